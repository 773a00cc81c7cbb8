"""Scheduled: what runs by itself, what it did, and how it is made to stand still."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from seatrial.core.clock import FixedClock, from_us, iso, machine_us, to_us
from seatrial.core.errors import Failed, SeatrialError, UsageError, did_you_mean, listed
from seatrial.core.settings import LOCAL
from seatrial.folder.loading import UnknownName
from seatrial.folder.workspace import STATE
from seatrial.stores.pauses import Pause
from seatrial.verbs.challenging import Challenging
from seatrial.verbs.nouns import SERVE
from seatrial.verbs.results import ModelStatus

if TYPE_CHECKING:
    from seatrial.export.tasks import Pipeline
    from seatrial.monitoring.routes.courier import Courier
    from seatrial.monitoring.routes.delivery import Delivery
    from seatrial.scheduling.cost import Cost
    from seatrial.scheduling.declared import Reading
    from seatrial.scheduling.definition import Schedule
    from seatrial.scheduling.jobs import JobRun
    from seatrial.scheduling.running import How
    from seatrial.stores.metadata import MetadataStore

CONTROL_WAITS = 5.0
"""Seconds for which the control loop waits for a metadata store that another process holds; less than a lease."""
LAST_MESSAGES = 5.0
"""Seconds for which it waits for messages that are being sent when it ends."""
CHECKED_EVERY = "5m"
"""How often `up` looks for silence and beats the heart where somebody waits for it."""


class ScheduledRunFailed(Failed):
    """A run of a schedule ended otherwise than done. facts: `job`."""

    code = "schedule.run_failed"


class NothingPaused(UsageError):
    """What is to go on was not paused."""

    code = "loop.not_paused"


class ScheduleShown(msgspec.Struct, frozen=True):
    """A schedule, and how it stands.

    command: what is run. timing: as it is declared. next: the next instant, in UTC; next_local: in the schedule's zone;
    due: it has come, and nobody has run it yet. paused: why it is not run now. last: the newest run. run_by: which
    processes run schedules at present; without one nothing here runs by itself.
    """

    name: str
    command: list[str]
    model: str
    timing: str
    timezone: str
    next: str
    next_local: str
    due: bool
    paused: Pause | None
    last: JobRun | None
    run_by: list[str]
    catch_up: str
    timeout: str
    retries: int


class Ran(msgspec.Struct, frozen=True):
    """What came of `schedules run`. ran: False when the slot had been run before; then `job` is that run, or, where
    later is True, the newest one, which is of a later slot."""

    ran: bool
    job: JobRun
    later: bool = False


class Scheduled(Challenging):
    """The verbs of schedules, and of pausing whatever acts by itself."""

    def schedules(self) -> list[ScheduleShown]:
        """Every schedule with its next instant and its last run."""
        declared = self._schedules()
        return [self._shown(one) for one in declared.values()]

    def schedule_show(self, name: str) -> ScheduleShown:
        """One schedule."""
        return self._shown(self._schedule(name))

    def schedule_history(self, name: str | None = None, *, limit: int | None = 20) -> list[JobRun]:
        """Runs of one schedule, or of all, oldest first; the newest `limit` of them."""
        from seatrial.scheduling import jobs

        found = jobs.history(self.metadata, name, limit=limit)
        if name is not None and not found:
            self._schedule(name)
        now = machine_us()
        return [jobs.as_seen(self.metadata, one, now) for one in found]

    def schedule_run(
        self,
        name: str,
        *,
        slot: datetime | None = None,
        again: bool = False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Ran:
        """Run a schedule now, in a process of its own; once for each of its instants, whoever asks and how often.

        slot: the last instant of the schedule up to then is meant, and is the project's time for the run, however late
            it is made (default: up to now, and the run sees the time that this process does). again: also when it was
            run.
        stopped: asked meanwhile; True ends the run.
        Raises StillRunning, Paused, and UnknownName.
        """
        from seatrial.scheduling import jobs
        from seatrial.scheduling.running import finish, loops, start
        from seatrial.stores.pauses import paused, refuse

        schedule = self._schedule(name)
        self._require_metadata()
        refuse(paused(self.metadata, loops(schedule), self.now_us), f"'{name}' is not run")
        wanted = schedule.timing.latest(self.now_us if slot is None else to_us(slot))
        if wanted is None:
            raise UsageError(f"'{name}' ({schedule.timing}) has no instant before that.", state="Nothing was run.")
        how = self._how(at=wanted if slot is not None else self.now_us if isinstance(self.clock, FixedClock) else None)
        found = jobs.Due(wanted)
        running = start(self.metadata, schedule, found, how, forced=again)
        if running is not None:
            finish(running, stopped)
        job = jobs.newest(self.metadata, name)
        assert job is not None, "it was run, here or before"
        return Ran(running is not None, job, later=running is None and job.slot_us > wanted)

    def up(
        self,
        stop_files: Sequence[int],
        *,
        say: Callable[[str], None] = lambda _: None,
        ready: Callable[[list[Schedule]], None] = lambda _: None,
        grace_seconds: float = 30.0,
        server: str = "",
    ) -> None:
        """Start what schedules declare, a process for each run, until one of `stop_files` (descriptors) can be
        read.

        This is the control process of `seatrial up`; the command runs the server beside it. say: told what happens.
        ready: called once, before the first look. grace_seconds: how long a run may still take when it is to stop.
        server: the address of the server beside it, whose cost is then measured.
        """
        from seatrial.scheduling.control import Control
        from seatrial.scheduling.declared import Declared
        from seatrial.scheduling.metering import Meter, counters, memory_below, memory_beside
        from seatrial.stores.metadata import MetadataStore

        if isinstance(self.clock, FixedClock):
            raise UsageError(
                f"the time stands still at {iso(self.clock.now())}, and schedules need time.",
                expected="Without --at the machine's clock is taken.",
            )
        declared = Declared(*self._reading(), self.folder, self._read_anew)
        self._require_metadata()
        path = self.sqlite_path("metadata")
        self.close()
        with closing(MetadataStore(path, busy_seconds=CONTROL_WAITS, make=False)) as metadata:
            how = self._how()
            courier = self._courier(metadata, say)
            meter = Meter(
                metadata,
                read=lambda: counters(server) if server else None,
                memory=lambda: memory_below(os.getppid()),
                of_server=lambda: memory_beside(os.getppid()),
                by=how.by,
                actor=self.actor,
            )

            def beat(idle: bool) -> None:
                meter.beat(idle)
                with suppress(SeatrialError):  # the store is away, which the loop says
                    courier.beat()

            facts = {"schedules": len(declared.in_force)}
            control = Control(metadata, declared, how, say=say, facts=facts, beat=beat)
            ready(declared.in_force)
            control.run(stop_files, grace_seconds=grace_seconds)
            courier.wait(LAST_MESSAGES)
            meter.keep()

    def _courier(self, metadata: MetadataStore, say: Callable[[str], None]) -> Courier:
        """Sends, while nothing else happens, what a route did not take; `up` reads routes anew for each turn."""
        from seatrial.monitoring.routes.courier import Courier
        from seatrial.monitoring.routes.delivery import deliver
        from seatrial.stores.pauses import ALERTS, paused

        def send() -> Delivery:
            fresh = self._fresh()
            urls, allowed = fresh.alert_routes, fresh._allowed
            return deliver(metadata, urls, allowed=allowed, project=fresh.name, actor=self.actor)

        def held() -> str:
            pause = paused(metadata, [ALERTS], machine_us())
            return pause.words if pause else ""

        return Courier(metadata, send=send, held=held, say=say)

    def _fresh(self) -> Self:
        """The project as its files are now."""
        return type(self)(self.folder, env=self.env, actor=self.actor, definitions=self._given)

    def _read_anew(self) -> Reading:
        with closing(self._fresh()) as fresh:
            return fresh._reading()

    def _reading(self) -> Reading:
        """What is declared, and the files that tell it."""
        schedules = list(self._schedules().values())
        return schedules, [*self.definitions.told_by, self.folder / "seatrial.toml"]

    def pause(self, name: str, *, reason: str, until: datetime | None = None) -> Pause:
        """Let a loop stand still until it is resumed, or `until`.

        name: a schedule, a model or deployment (for everything of it that acts by itself), or a kind of loop:
        "schedules", "monitoring", "materializing", "batches", "retraining", "rollouts", "alerts", "shipping". What is
        under way is not broken off; what a person asks for by name (deploy, promote, rollback) goes on working.
        """
        from seatrial.stores import pauses

        self._loop(name)
        reason = self._reason(reason)
        until_us = None if until is None else to_us(until)
        if until_us is not None and until_us <= self.now_us:
            raise UsageError(
                f"'{name}' is to be paused until {iso(from_us(until_us))}, which is over.",
                expected=f"A time after {iso(from_us(self.now_us))} is expected.",
                state="Nothing was paused.",
            )
        with self.metadata.transaction() as transaction:
            return pauses.pause(
                transaction, name, reason=reason, until_us=until_us, actor=self.actor, at_us=self.now_us
            )

    def resume(self, name: str, *, reason: str = "") -> Pause:
        """Let a loop go on that was paused; returns the pause that ended. What was missed is caught up with as each
        schedule says. Raises NothingPaused."""
        from seatrial.stores import pauses

        now = self.now_us
        ended = pauses.paused(self.metadata, [name], now)
        if ended is None:
            others = [one.name for one in pauses.pauses(self.metadata, now)]
            raise NothingPaused(
                f"'{name}' is not paused.",
                expected=f"Paused are {listed(others)}. {did_you_mean(name, others)}".strip(),
                state="Nothing was changed.",
            )
        with self.metadata.transaction() as transaction:
            pauses.resume(transaction, name, reason=reason, actor=self.actor, at_us=now)
        return ended

    def status(self) -> list[ModelStatus]:
        """See `Nouns.status`; with the schedules of each model, with what is paused, and with the retraining that
        waits. A model that is live has what rings or waits as its next step."""
        found = [self._with_what_waits(one) for one in super().status()]
        if not self.sqlite_path("metadata").exists() and not self.definitions.schedules:
            return found
        from seatrial.stores.pauses import pauses

        of_up = self._watch_over(self.definitions.schedules)  # without one, somebody else may well look for silence
        plain = [msgspec.to_builtins(one) for one in self.schedules() if one.run_by or one.name not in of_up]
        held = [msgspec.to_builtins(one) for one in pauses(self.metadata, self.now_us)]
        models = {one.model for one in found}
        if any(one["run_by"] for one in plain):  # `seatrial up` serves
            found = [
                msgspec.structs.replace(one, next=f"seatrial monitor {one.model}") if one.next == SERVE else one
                for one in found
            ]
        return [
            msgspec.structs.replace(
                one,
                schedules=[each for each in plain if each["model"] in (one.model, "") or each["model"] not in models],
                paused=[each for each in held if each["name"] == one.model or each["name"] not in models],
            )
            for one in found
        ]

    def _with_what_waits(self, one: ModelStatus) -> ModelStatus:
        from seatrial.retraining.proposal import ENDED, newest
        from seatrial.verbs.results import ProposalLine

        proposal = newest(self.metadata, one.model)
        line = None
        if proposal is not None and proposal.state not in ENDED:
            line = ProposalLine(proposal.id, proposal.state, proposal.reason, proposal.next)
        following = one.next
        if one.live and one.next == SERVE:
            if one.alerts and one.alerts.unseen:
                following = f"seatrial incident {one.alerts.worst}"
            elif line:
                following = line.next
            elif one.alerts:
                following = f"seatrial incident {one.alerts.worst}"
        return msgspec.structs.replace(one, proposal=line, next=following)

    # -- for other schedulers

    def export_airflow(self, folder: str | Path, *, place: str | None = None) -> list[str]:
        """Write DAGs for Airflow 3: what is declared, and each model's path to a release; the names of the files.

        place: the project's folder as the workers see it (default: where it is here).
        """
        from seatrial.export.airflow import export

        return export(self._pipelines(), Path(folder), project=self.name, place=place or str(self.folder))

    def export_prefect(self, folder: str | Path, *, place: str | None = None) -> list[str]:
        """Write flows for Prefect 3, as `export_airflow` does."""
        from seatrial.export.prefect import export

        return export(self._pipelines(), Path(folder), project=self.name, place=place or str(self.folder))

    def export_kubeflow(self, folder: str | Path, *, image: str) -> list[str]:
        """Write pipelines for Kubeflow (kfp 2). image: one with seatrial, and the project in its working directory."""
        from seatrial.export.kubeflow import export

        return export(self._pipelines(), Path(folder), project=self.name, image=image)

    def export_cron(self, folder: str | Path, *, place: str | None = None) -> list[str]:
        """Write a crontab of what is declared; the names of the files. Raises NothingToExport."""
        from seatrial.export.cron import export, running

        named = set(re.findall(r"\$\{(\w+)\}", str(msgspec.to_builtins(self.settings))))
        facts = {"place": place or str(self.folder), "program": running()}
        return export(self._pipelines(), Path(folder), variables=sorted(named), **facts)

    def _pipelines(self) -> list[Pipeline]:
        """What other schedulers are given: a pipeline for each timing, then one for each model's path."""
        from seatrial.export.tasks import NothingToExport, path
        from seatrial.scheduling.pipelines import timed

        models = self.definitions.models.values()
        found = timed(list(self._schedules().values()), project=self.name)
        found += [path(model.name, project=self.name, views=bool(model.views)) for model in models]
        if not found:
            raise NothingToExport(
                "the project declares no model and no schedule.",
                expected="Each is a task, or several.",
                state="Nothing was written.",
            )
        return found if self.env == LOCAL else [one.of_environment(self.env) for one in found]

    def cost(self) -> Cost:
        """What predictions, retrainings, reports and the log take, as far as it was measured; see `scheduling.cost`."""
        from seatrial.scheduling import jobs
        from seatrial.scheduling.cost import cost
        from seatrial.stores.log_batches import standing

        found, _ = standing([*self.log.local_batches().values(), *self.log.shipped_batches().values()])
        parts = {(one.batch, part.file): part for one in found for part in one.parts}
        price = self.settings.cost
        return cost(
            self.metadata,
            jobs.history(self.metadata),
            [(part.records, part.bytes, part.recorded_us) for part in parts.values()],
            cpu_hour=price.cpu_hour,
            currency=price.currency,
        )

    def _reason(self, reason: str) -> str:
        if not reason.strip():
            raise UsageError("a pause has no reason.", expected="A reason in words.", state="Nothing was paused.")
        return reason.strip()

    def _loop(self, name: str) -> None:
        """Raise UnknownName when nothing that acts by itself has this name."""
        from seatrial.stores.pauses import LOOPS

        known = [*LOOPS, *self._schedules(), *self._models(), *self.definitions.deployments]
        if name not in known:
            raise UnknownName(
                f"nothing that acts by itself is named '{name}'.",
                expected=f"There is {listed(dict.fromkeys(known), most=12)}. {did_you_mean(name, known)}".strip(),
                state="Nothing was paused.",
            )

    def _schedules(self) -> dict[str, Schedule]:
        """Every schedule, those that retraining implies too. Raises UnknownName for one of an unknown model."""
        from seatrial.scheduling.definition import BadSchedule, implied

        found = dict(self.definitions.schedules)
        others = {one.name: (one, f"Retrain('{one.model}')") for one in implied(self.definitions.retrains.values())}
        others |= self._watch_over(found)
        for name, (one, whose) in others.items():
            if name in found:
                raise BadSchedule(
                    f"two schedules are named '{name}': one is declared, one is of {whose}.",
                    expected="Names are unique within a project.",
                )
            found[name] = one
        models, deployments = self._models(), self.definitions.deployments
        for one in found.values():
            known: Mapping[str, object] = models
            if one.verb in ("deployments advance", "batch"):
                known = {**models, **deployments}
            if one.model and one.model not in known:
                raise UnknownName(
                    f"the schedule '{one.name}' is of '{one.model}', and no model is named that.",
                    expected=f"There is {listed(known)}. {did_you_mean(one.model, known)}".strip(),
                    state="Nothing was run.",
                )
        return found

    def _watch_over(self, declared: Mapping[str, Schedule]) -> dict[str, tuple[Schedule, str]]:
        """The schedule that a route, a heartbeat or a folder for gauges stands for, where none looks for silence."""
        from seatrial.scheduling.definition import Schedule

        settings = self.settings
        awaited = settings.routes or settings.webhooks or settings.alerts.heartbeat or settings.alerts.textfile
        if not awaited or any(one.verb == "alerts check" for one in declared.values()):
            return {}
        one = Schedule("alerts check", every=CHECKED_EVERY)
        return {one.name: (one, "the routes or the heartbeat in seatrial.toml")}

    def _schedule(self, name: str) -> Schedule:
        found = self._schedules()
        if name not in found:
            raise UnknownName(
                f"no schedule is named '{name}'.",
                expected=f"There is {listed(found)}. {did_you_mean(name, found)}".strip(),
                next='Declare one: Schedule("monitor", "MODEL", every="1h").' if not found else "",
            )
        return found[name]

    def _shown(self, schedule: Schedule) -> ScheduleShown:
        from seatrial.scheduling import jobs, lease
        from seatrial.scheduling.control import UP
        from seatrial.scheduling.running import loops
        from seatrial.stores.pauses import paused

        now = self.now_us
        newest = jobs.newest(self.metadata, schedule.name)
        since = jobs.declared_us(self.metadata, schedule)
        following = jobs.next_us(schedule, now if since is None else since, newest, now)
        return ScheduleShown(
            name=schedule.name,
            command=["seatrial", *schedule.told],
            model=schedule.model,
            timing=str(schedule.timing),
            timezone=schedule.timezone,
            next=iso(from_us(following)),
            next_local=schedule.timing.local(following).isoformat(timespec="seconds"),
            due=following <= now,
            paused=paused(self.metadata, loops(schedule), now),
            last=jobs.as_seen(self.metadata, newest, machine_us()) if newest else None,
            run_by=[one.holder for one in lease.present(self.metadata, UP, machine_us())],
            catch_up=schedule.catch_up,
            timeout=schedule.timeout,
            retries=schedule.retries,
        )

    def _how(self, *, at: int | None = None) -> How:
        """at: the project's time for a run; None: the machine's."""
        from seatrial.scheduling.running import How

        told = [] if at is None else ["--at", iso(from_us(at))]
        place = ["--project", str(self.folder), "--env", self.env]

        def command(schedule: Schedule) -> list[str]:
            actor = ["--actor", f"schedule:{schedule.name}"]
            return [sys.executable, "-P", "-m", "seatrial", *place, *actor, "--json", *told, *schedule.words]

        return How(
            command=command,
            cwd=self.folder,
            env=dict(os.environ),
            outputs=self.folder / STATE / "schedules",
            by=f"{_host()}:{os.getpid()}",
        )

    def _require_metadata(self) -> None:
        """Raise MetadataUnreachable where something is served and the store that decided it is gone: a new and empty
        one would say that nothing was ever deployed."""
        from seatrial.stores.metadata import MetadataUnreachable

        path = self.sqlite_path("metadata")
        if self.routes.names() and not path.exists():
            raise MetadataUnreachable(
                f"the metadata store {path.name} is not there, while {listed(self.routes.names())} is served.",
                state="Nothing was decided; what is served stays as it is.",
                next="Bring it back, or put a backup in its place. `seatrial rollback` works without it.",
            )


def _host() -> str:
    with suppress(OSError):
        return socket.gethostname()
    return "unknown"


def failed(ran: Ran) -> SeatrialError | None:
    """The error of a run that did not end well, now or before; None when it did, or a later one was made."""
    job = ran.job
    if ran.later or job.state in ("done", "skipped"):
        return None
    return ScheduledRunFailed(
        f"the run of '{job.schedule}' for {job.slot} ended as {job.state}: {job.words.rstrip('.')}.",
        state=f"It is kept as {job.id}" + (f"; what it printed is in {job.output}." if job.output else "."),
        next=f"Look at `seatrial schedules history {job.schedule}`.",
        job=job.id,
    )
