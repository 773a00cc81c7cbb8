"""What the project's deployments promise, for those who watch over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from seatrial.core.errors import UsageError
from seatrial.deployment.definition import Deployment

if TYPE_CHECKING:
    from seatrial.export.prometheus import Promised
    from seatrial.training.model import Model


class NoDeployment(UsageError):
    """There is nothing to watch over: the project declares no model and no deployment, and has none in service."""

    code = "export.no_deployment"


def promised(
    models: Mapping[str, Model], declared: Mapping[str, Deployment], in_service: Iterable[str]
) -> list[Promised]:
    """Every deployment that is declared or in service, sorted; a model that declares none is deployed under its name.

    Raises NoDeployment.
    """
    from seatrial.export.prometheus import Promised

    own = {name: Deployment(name) for name in models if not any(one.model == name for one in declared.values())}
    every = {name: Deployment(name) for name in in_service} | own | dict(declared)
    if not every:
        raise NoDeployment(
            "the project has no deployment.",
            expected="A Model or Deployment in the project file, or a release in service, is expected.",
            state="Nothing was written.",
        )
    found = []
    for name, one in sorted(every.items()):
        model = models.get(one.model)
        runbook, owner = (model.runbook, model.owner) if model else ("", "")
        found.append(Promised(name, one.model, one.objective, runbook, owner))
    return found
