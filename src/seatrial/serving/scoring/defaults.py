"""Defaults: which values stand for looked-up features while the online store does not answer?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seatrial.core.errors import UsageError, did_you_mean, listed
from seatrial.core.signature import Signature
from seatrial.features.plan import FeaturePlan
from seatrial.stores.routes import Default


class DefaultWrong(UsageError):
    """A deployment declares a default for what its releases do not look up, or of another type."""

    code = "serving.default_wrong"


def check_defaults(
    deployment: str, defaults: Mapping[str, Default], releases: Iterable[tuple[FeaturePlan, Signature]]
) -> None:
    """Raise DefaultWrong unless one of the releases looks each of `defaults` up, and takes its value.

    Text is taken where every release that has the feature as an input has it as a category, a number elsewhere.
    """
    if not defaults:
        return
    looked_up: dict[str, bool] = {}
    for plan, signature in releases:
        for view in plan.views:
            for feature in view.features:
                name = f"{view.name}__{feature}"
                looked_up[name] = looked_up.get(name, False) or name in signature.categories
    for name, value in defaults.items():
        if name not in looked_up:
            raise DefaultWrong(
                f"deployment '{deployment}' declares a default for '{name}', which its release does not look up.",
                expected=f"It looks up {listed(sorted(looked_up))}. {did_you_mean(name, looked_up)}".strip(),
                state="Nothing was changed.",
            )
        if value is not None and isinstance(value, str) != looked_up[name]:
            found = "text" if isinstance(value, str) else "number"
            raise DefaultWrong(
                f"the default of '{name}' in deployment '{deployment}' is a {found}.",
                expected=f"The model takes a {'text, of a category' if looked_up[name] else 'number'} there.",
                state="Nothing was changed.",
            )
