"""Courier: who sends again what a route did not take, while nothing else happens?

Every verb that leaves a message sends it, once. `seatrial up` has a courier beside its loop: it looks every few seconds
whether a message is due and sends it in a thread of its own, so that a route that hangs holds nothing up. Several
couriers on one project send each message once, as several verbs do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from seatrial.core.clock import machine_us, monotonic
from seatrial.core.errors import SeatrialError
from seatrial.monitoring.routes.delivery import Delivery, due
from seatrial.stores.metadata import MetadataStore

LOOK_SECONDS = 5.0
IN_VAIN_SECONDS = 30.0
"""Until the next look after one that sent nothing."""


class Courier:
    """Looks for messages that are due, and has them sent.

    send: sends what is due, as `delivery.deliver` does. held: why nothing is sent now; empty: it is. say: told what
    does not arrive, once until it does.
    """

    def __init__(
        self,
        metadata: MetadataStore,
        *,
        send: Callable[[], Delivery],
        held: Callable[[], str] = lambda: "",
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], int] = machine_us,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._metadata, self._send, self._held, self._say = metadata, send, held, say
        self._clock, self._look_seconds = clock, look_seconds
        self._next = 0.0
        self._under_way: threading.Thread | None = None
        self._told: dict[str, str] = {}

    def beat(self) -> None:
        """Look, when it is time; sending goes on after this has returned. Raises what the metadata store does."""
        if monotonic() < self._next or (self._under_way is not None and self._under_way.is_alive()):
            return
        self._next = monotonic() + self._look_seconds
        if not due(self._metadata, self._clock()) or self._held():
            return
        self._under_way = threading.Thread(target=self._turn, name="courier", daemon=True)
        self._under_way.start()

    def wait(self, seconds: float) -> None:
        """Wait until what is under way was sent, so long at most."""
        if self._under_way is not None:
            self._under_way.join(seconds)

    def _turn(self) -> None:
        try:
            done = self._send()
        except SeatrialError:  # the store is away: the message waits in it
            return
        if not done.sent:
            self._next = monotonic() + max(self._look_seconds, IN_VAIN_SECONDS)
        for target, why in done.failures.items():
            if self._told.get(target) != why:
                self._say(f"the alerts for '{target}' were not delivered: {why}; they are sent again")
        for target in self._told.keys() - done.failures.keys():
            self._say(f"the alerts for '{target}' arrive again")
        self._told = dict(done.failures)
