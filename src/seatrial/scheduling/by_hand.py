"""By hand: what does a verb take that a person, or another program, ran?

A run of a schedule is a process of its own, whose cost is known when it ends. A verb that somebody calls is measured
from its first line to its last: the CPU seconds of this process, all threads, and of those that it waited for. One
record is kept for each, and none for a verb that wrote nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from seatrial.core.clock import machine_us
from seatrial.core.errors import SeatrialError
from seatrial.core.identity import new_id
from seatrial.core.records import Record

if TYPE_CHECKING:
    from seatrial.stores.metadata import MetadataStore

KIND = "cost"
RUN = "run"
BY_SCHEDULE = "schedule:"
"""How the actor of a schedule's run begins."""

P = ParamSpec("P")
T = TypeVar("T")
_under_way: ContextVar[bool] = ContextVar("seatrial_measured", default=False)


class Acting(Protocol):
    """Whoever has verbs."""

    actor: str

    @property
    def metadata(self) -> MetadataStore: ...


def measured(
    verb: Callable[[Any], str],
    *,
    rows: Callable[[Any], int | None] = lambda _: None,
    keeps: Callable[[Mapping[str, Any]], bool] = lambda _: True,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Have each call of a verb measured, the outermost of those that call each other.

    verb: what its answer says was done. rows: how many it scored. keeps: of its named arguments, whether it writes.
    A call that fails is not measured, nor does one fail because its cost cannot be kept.
    """

    def made(method: Callable[P, T]) -> Callable[P, T]:
        @wraps(method)
        def call(*args: P.args, **named: P.kwargs) -> T:
            if _under_way.get() or not keeps(named):
                return method(*args, **named)
            token = _under_way.set(True)
            try:
                since_us, before = machine_us(), _cpu()
                done = method(*args, **named)
                body = {
                    "verb": verb(done),
                    "cpu_seconds": round(_cpu() - before, 3),
                    "rows": rows(done),
                    "from_us": since_us,
                    "until_us": machine_us(),
                }
            finally:
                _under_way.reset(token)
            _keep(cast("Acting", args[0]), body)
            return done

        return call

    return made


def trains(words: str) -> bool:
    """Whether `retrain` has trained a challenger, which the words of its answer tell."""
    return words.startswith(("challenger ", "gates refused"))


def _keep(acting: Acting, body: dict[str, Any]) -> None:
    body["scheduled"] = acting.actor.startswith(BY_SCHEDULE)
    with suppress(SeatrialError), acting.metadata.transaction() as transaction:
        record = Record(new_id("cost"), KIND, RUN, (), body)
        transaction.add(record)
        transaction.event("cost.measured", record.id, actor=acting.actor, at_us=body["until_us"], body={"of": RUN})


def _cpu() -> float:
    """CPU seconds of this process and of those that it waited for, so far."""
    took = os.times()
    return took.user + took.system + took.children_user + took.children_system
