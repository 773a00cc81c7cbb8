"""What a deployment is: a model, how releases take its traffic, and by what the traffic is split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

from seatrial.core.declared import declare
from seatrial.core.errors import NotInThisVersion, UsageError
from seatrial.stores.routes import OnStoreFailure


class BadDeployment(UsageError):
    """A deployment is declared in a way that cannot work."""

    code = "definition.bad_deployment"


@dataclass(frozen=True)
class BlueGreen:
    """All traffic moves to the new release at once; the one before it stays at hand for a roll-back."""

    kind = "blue_green"


@dataclass(frozen=True)
class Deployment:
    """A model in service.

    model: the model's name. name: what callers ask for; the model's name unless given.
    route_by: the request field by which traffic is split when there are several arms, for example a customer's
        key, so that one customer always meets the same release. Without it each request is on its own.
    on_store_failure: "refuse" answers 503 while the online store is down; "missing" answers with its features
        missing, and says so in every such answer and in the log.
    """

    model: str
    strategy: BlueGreen = field(default_factory=BlueGreen)
    route_by: str | None = None
    name: str = ""
    on_store_failure: OnStoreFailure = "refuse"

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.model)
        if not isinstance(self.strategy, BlueGreen):
            raise BadDeployment(
                f"deployment '{self.name}' has {type(self.strategy).__name__} as its strategy.",
                expected="BlueGreen() is expected.",
            )
        if self.on_store_failure not in ("refuse", "missing"):
            raise BadDeployment(
                f"deployment '{self.name}' has on_store_failure={self.on_store_failure!r}.",
                expected='"refuse" or "missing" is expected.',
            )
        declare(self)


def Canary(*_steps: Any, **_options: Any) -> NoReturn:
    """Planned: traffic moves in steps, each decided by evidence. Not in this version."""
    _not_yet("Canary")


def ABTest(*_shares: Any, **_options: Any) -> NoReturn:
    """Planned: two releases side by side for a stated time. Not in this version."""
    _not_yet("ABTest")


def Shadow(*_releases: Any, **_options: Any) -> NoReturn:
    """Planned: a release that answers beside the live one, to nobody. Not in this version."""
    _not_yet("Shadow")


def _not_yet(name: str) -> NoReturn:
    raise NotInThisVersion(
        f"the strategy {name} is planned, but not in this version.",
        expected="What there is: BlueGreen(), which moves all traffic at once and can be rolled back.",
        next="Write strategy=BlueGreen(), or leave it out.",
    )
