"""Alerting: who is told of what rings, who has seen it, what shall be quiet, and what came of the messages."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from seatrial.core.clock import to_us
from seatrial.core.errors import UsageError, did_you_mean, listed
from seatrial.core.windows import duration_us
from seatrial.verbs.building import Building

if TYPE_CHECKING:
    from seatrial.monitoring.addresses import Allowed
    from seatrial.monitoring.alerts import Alert
    from seatrial.monitoring.mutes import Mute
    from seatrial.monitoring.report import Report
    from seatrial.monitoring.routes import Undelivered
    from seatrial.monitoring.sample import Sample


class AlertsNotDelivered(UserWarning):
    """A route did not take an alert; it waits for the next attempt, or was given up."""


class Alerting(Building):
    """The verbs about alerts."""

    def alerts(self, model: str | None = None, *, every: bool = False) -> list[Alert]:
        """Alerts that are open or acknowledged; with `every`, resolved ones too. Oldest first."""
        from seatrial.monitoring.alerts import alerts, with_mutes

        found = [alert for alert in alerts(self.metadata, model) if every or alert.state != "resolved"]
        return with_mutes(self.metadata, found, self.now_us)

    def alert_show(self, id: str) -> Alert:
        """One alert with its evidence and what happened to it."""
        from seatrial.monitoring.alerts import alert, with_mutes

        found = alert(self.metadata, self.resolved(id, "alert").id)
        return with_mutes(self.metadata, [found], self.now_us)[0]

    def alert_acknowledge(self, id: str, reason: str = "") -> Alert:
        """Say that somebody looks at it."""
        from seatrial.monitoring.alerts import acknowledge

        record = self.resolved(id, "alert")
        return acknowledge(self.metadata, record.id, actor=self.actor, at_us=self.now_us, reason=reason)

    def alert_resolve(self, id: str, reason: str = "") -> Alert:
        """Say that it is over."""
        from seatrial.monitoring.alerts import resolve

        record = self.resolved(id, "alert")
        alert = resolve(self.metadata, record.id, actor=self.actor, at_us=self.now_us, reason=reason)
        self._deliver()
        return alert

    def alerts_mute(self, name: str, *, reason: str, until: datetime | None = None, lasting: str | None = None) -> Mute:
        """Keep alerts, but tell nobody of them, until a time or for a while. What still rings then is told then.

        name: a model, an alert (its alarm is meant), or an alarm's name. lasting: such as "4h". Raises BadMute.
        """
        from seatrial.monitoring.mutes import BadMute, mute

        if (until is None) == (lasting is None):
            raise BadMute("a mute needs an end.", expected="Either until a time or for a while is expected.")
        model, alarm = self._alarm_named(name)
        until_us = to_us(until) if until is not None else self.now_us + duration_us(lasting or "")
        facts = {"actor": self.actor, "at_us": self.now_us}
        return mute(self.metadata, model, alarm, until_us=until_us, reason=reason, **facts)  # type: ignore[arg-type]

    def alerts_unmute(self, name: str) -> list[Mute]:
        """End the mutes of a model or an alarm, named as for `alerts_mute`. What still rings is told next."""
        from seatrial.monitoring.mutes import unmute

        model, alarm = self._alarm_named(name)
        return unmute(self.metadata, model, alarm, actor=self.actor, at_us=self.now_us)

    def alerts_mutes(self, model: str | None = None) -> list[Mute]:
        """The mutes that hold now, oldest first."""
        from seatrial.monitoring.mutes import mutes

        return mutes(self.metadata, self.now_us, model)

    def alerts_undelivered(self) -> list[Undelivered]:
        """Messages that were given up after their last attempt, then those that were tried in vain and wait."""
        from seatrial.monitoring.routes import undelivered

        return undelivered(self.metadata)

    def alerts_resend(self, ids: Sequence[str] = ()) -> list[Undelivered]:
        """Try undelivered messages again, at once: these (an id or its start), or all; what did not arrive again."""
        from seatrial.monitoring.routes import resend, undelivered

        if ids and not any(one.id.startswith(tuple(ids)) for one in undelivered(self.metadata)):
            raise UsageError(
                f"no undelivered message is named {listed(ids)}.",
                state="Nothing was sent.",
                next="See `seatrial alerts undelivered`.",
            )
        resend(self.metadata, ids)
        self._deliver()
        return undelivered(self.metadata)

    def _alarm_named(self, name: str) -> tuple[str, str]:
        """The model and the alarm (empty: all of it) that a person means."""
        from seatrial.monitoring.alerts import alerts

        models = {*self._models(), *(one.model for one in alerts(self.metadata))}
        if name in models:
            return name, ""
        if name.startswith("alert_"):
            one = self.alert_show(name)
            return one.model, one.alarm
        known = {(one.model, one.alarm) for one in alerts(self.metadata)}
        known |= {(one, alarm.name) for one, it in self.definitions.monitors.items() for alarm in it.every_alarm}
        meant = {one for one in known if name in (one[1], f"{one[0]}/{one[1]}")}
        if len(meant) == 1:
            return next(iter(meant))
        several = f" Several models have it: write {listed(sorted(f'{m}/{a}' for m, a in meant))}." if meant else ""
        names = [*models, *(alarm for _, alarm in known)]
        raise UsageError(
            f"'{name}' is {'not clear' if meant else 'no model, no alert and no alarm'}.",
            expected=f"Models are {listed(sorted(models))}. {did_you_mean(name, names)}".strip() + several,
            state="Nothing was changed.",
            next="See `seatrial alerts list`.",
        )

    # Telling

    def _settle_alerts(self, report: Report, sample: Sample) -> list[Alert]:
        """Bring the alerts to what a report says, and send what there is to tell."""
        from seatrial.monitoring.alerts import settle
        from seatrial.monitoring.incident import worst_prediction

        example = worst_prediction(sample) if any(one.state == "fired" for one in report.alarms) else ""
        alerts = settle(self.metadata, report, actor=self.actor, at_us=self.now_us, example=example)
        self._deliver()
        return alerts

    def _deliver(self) -> None:
        """Send what waits for the routes, and say who was not reached."""
        from seatrial.monitoring.routes import deliver, refresh

        urls, allowed = self.alert_routes, self._allowed
        done = deliver(self.metadata, urls, allowed=allowed, actor=self.actor)
        failures = dict(done.failures)
        if any(address.startswith("alertmanager+") for address in urls.values()):
            failures |= refresh(self.metadata, self.alerts(every=True), urls, allowed=allowed, skip=done.failures)
        for target, why in failures.items():
            warnings.warn(
                f"the alerts for '{target}' were not delivered: {why}. They are kept; the next `seatrial monitor` or "
                "`seatrial alerts check` sends them again. See `seatrial alerts undelivered`.",
                AlertsNotDelivered,
                stacklevel=3,
            )

    @property
    def _allowed(self) -> Allowed:
        from seatrial.monitoring.addresses import Allowed

        return Allowed.parse(self.settings.alerts.internal)

    def _is_reachable(self, on_call: str) -> bool:
        """Whether every route that an `on_call` names has an address here."""
        from seatrial.monitoring.routes import address_of
        from seatrial.monitoring.telling import targets

        return all(address_of(self.alert_routes, target) for target in targets(on_call))
