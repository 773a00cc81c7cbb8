"""Watching: from the log and the labels to a report, and from a report to alerts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import from_us, iso, monotonic, parse_time, to_us
from seatrial.core.errors import SeatrialError, UsageError, listed
from seatrial.core.identity import new_id
from seatrial.core.records import Record
from seatrial.core.windows import DAY_US, Window, duration_us, parse_window
from seatrial.scheduling.by_hand import measured
from seatrial.verbs.alerting import Alerting, with_silences
from seatrial.verbs.results import Labelled, Progress
from seatrial.verbs.standing_watch import StandingWatch

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.core.objective import Objective
    from seatrial.monitoring.alerting.cadence import Cadence
    from seatrial.monitoring.definition import Monitor
    from seatrial.monitoring.figures import Business, Skew
    from seatrial.monitoring.policy.expected import ExpectedLoss
    from seatrial.monitoring.policy.rehearsal import Rehearsal
    from seatrial.monitoring.policy.watch import Source
    from seatrial.monitoring.report import AlarmResult, Mark, Point, Report
    from seatrial.monitoring.rows.reference import Reference
    from seatrial.monitoring.rows.sample import Sample
    from seatrial.monitoring.watched import Watched
    from seatrial.releases.bundle import Bundle
    from seatrial.training.model import Model

SAMPLED = (
    "prediction_id",
    "request_id",
    "at",
    "release",
    "version",
    "prediction",
    "probability",
    "latency_ms",
    "degraded",
    "arm",
)

BACK_US = 60 * DAY_US
"""How far before a report's window its predictions are read to see when labels come: as long as the retraining waits
for labels if nobody says otherwise (`Retrain.judge_for`). Labels that take a month were never seen in two weeks, so
the first ones, which come early because of what happened, passed for all. Without inputs, and beside the rows that are
compared, because what moved before and what a baseline is must not change with it."""
MOST_BACK = 5_000_000
"""Predictions that are read for that: of busy models those of fewer days."""


def _keeps_report(named: Mapping[str, Any]) -> bool:
    return bool(named.get("keep", True)) and named.get("against", "training") == "training"


class Watching(Alerting):
    """The verbs that look at what a model did."""

    def label(self, model: str | None = None, rows: object = None, *, progress: Progress | None = None) -> Labelled:
        """Tell what really happened.

        rows: a path (.parquet, .csv, .jsonl), a table or a list of dicts, each with `prediction_id`, `request_id` or
        the model's key, and the target; without it, what the model's label source holds that is known by now and was
        not told before. A label is never changed: one that is told again is counted as a duplicate, one that
        contradicts as such, and the one known last counts.
        """
        from seatrial.monitoring.rows.labels import parse

        declared = self._model(model)
        started = monotonic()
        self._compact_log()
        table = self._known_labels(declared, progress) if rows is None else self._inputs.as_table(rows)
        if declared.personal and isinstance(table, list):
            from seatrial.serving.scoring.personal import hashed_rows

            table = hashed_rows(table, declared.personal, self.personal_key)
        elif not isinstance(table, list):
            table = self.without_persons(declared, table)
        told = parse(
            table,
            model=declared.name,
            task=declared.task,
            key=declared.key,
            target=declared.target,
            event_timestamp=declared.labels.event_timestamp,
            label_known_at=declared.labels.label_known_at,
            now_us=self.now_us,
            actor=self.actor,
        )
        with self.metadata.transaction() as transaction:  # a busy store refuses before a label is kept
            self.labels.append(declared.name, told)
            self.event(transaction, "labels.told", f"model/{declared.name}", {"rows": len(told)})
        sample = self._sample(declared, None)
        counts = sample.labels
        return Labelled(
            model=declared.name,
            told=len(told),
            predictions=sample.rows.num_rows,
            matched=counts.matched,
            unmatched=counts.unmatched,
            duplicate=counts.duplicate,
            contradicting=counts.contradicting,
            before=counts.before,
            later=sum(one.known_at_us > self.now_us for one in told),
            seconds=round(monotonic() - started, 3),
        )

    def _known_labels(self, model: Model, progress: Progress | None) -> pa.Table:
        """The rows of the label source that belong to a prediction, whose label is known by now, and that were not
        told yet with this value."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from seatrial.monitoring.rows.labels import keys, prediction_keys
        from seatrial.verbs.inputs import instant

        source = model.labels
        if source.event_timestamp is None or not model.key:
            lacking = "no times" if source.event_timestamp is None else "no key= in the model"
            raise UsageError(
                f"the labels of model '{model.name}' have {lacking}, so what belongs to which prediction is not known.",
                state="Nothing was told.",
                next=f"Give the rows: `seatrial label {model.name} FILE`, with prediction_id or request_id.",
            )
        tables, _ = self._inputs.tables([source], progress)
        rows = tables[source.name]
        known_at = rows[source.label_known_at or source.event_timestamp]
        fresh = pc.and_(pc.less_equal(known_at, instant(self.now_us)), pc.is_valid(rows[model.target]))
        rows = rows.filter(pc.fill_null(fresh, False))
        predictions = self._predictions(model)
        if not predictions.num_rows:
            return rows.slice(0, 0)
        # one key comes back with every event of it: labels of instants before or after all predictions fit none
        at, span = rows[source.event_timestamp], pc.min_max(predictions["at"])
        near = pc.and_(pc.greater_equal(at, span["min"]), pc.less_equal(at, span["max"]))
        rows = rows.filter(pc.fill_null(near, False))
        named = keys(self.without_persons(model, rows), model.key)
        predicted = prediction_keys(self.without_persons(model, predictions, prefix="field_"), model.key)
        told = self.labels.read(model.name)
        several = model.task == "multiclass"
        happened = rows[model.target].cast(pa.string() if several else pa.float64())
        said = _said(named, rows[source.event_timestamp], happened)
        told_already = pc.is_in(said, pc.unique(_said(told["key"], told["at"], told["class" if several else "label"])))
        return rows.filter(pc.and_not(pc.is_in(named, pc.unique(predicted)), told_already))

    @measured(lambda _: "monitor", keeps=_keeps_report)
    def monitor(
        self,
        model: str | None = None,
        *,
        window: Window | None = None,
        keep: bool = True,
        against: str = "training",
    ) -> Report:
        """Report on a window (default: the monitor's trailing one) with what is known now; settle the model's alerts.

        keep: keep the report in the metric history and open, continue or resolve alerts; without it nothing is
        written. against: what inputs and scores are compared with, see `monitoring.rows.against`; with anything but
        "training" nothing is written either, because alarms are declared for that.
        """
        keep = keep and against == "training"
        from seatrial.monitoring.looks.attribution import scorer
        from seatrial.monitoring.monitor import make_report, require_an_age
        from seatrial.scheduling.metering import used
        from seatrial.stores.prediction_log import LogWarning
        from seatrial.verbs.tested import labelled_test_part

        declared = self._model(model)
        monitor = self._monitor(declared.name)
        if keep:
            self._compact_log()
        now_us = self.now_us
        chosen = window or Window(now_us - duration_us(monitor.window), now_us)
        if chosen.start_us < 0 and window is None:
            raise UsageError(
                f"the {monitor.window} up to {iso(from_us(now_us))} begin before 1970.", state="Nothing was reported."
            )
        require_an_age(chosen)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            reach = self._reach(monitor, chosen, against)
            sample = self._sample(declared, reach, inputs=True)
            back = self._sample(declared, _longer(reach, chosen, sample.rows.num_rows), every_class=True)
        unread = list(dict.fromkeys(str(one.message) for one in heard if issubclass(one.category, LogWarning)))
        for one in heard:
            warnings.warn(one.message, one.category, stacklevel=2)
        release = self._watched(declared.name, sample.within(chosen))
        reference = self._compared_with(against, chosen, sample, release)
        otherwise = self._logged_otherwise(sample.within(chosen), release)
        if reference is not None and otherwise:
            reference = reference.without(otherwise)
            unread.append(
                f"{listed(otherwise)} of this window cannot be compared: its releases do not take and log it alike."
            )
        watched, policy = self._policy(declared, monitor, keep=keep, past=window is not None and window.end_us < now_us)
        report = make_report(
            sample,
            window=chosen,
            as_of_us=now_us,
            monitor=monitor,
            reference=reference,
            training=dict(release.body["manifest"]["metrics"]) if release else {},
            marks=self._marks(declared.name),
            history=self._history(declared.name),
            id=new_id("rep"),
            owner=declared.owner,
            on_call=declared.on_call,
            runbook=declared.runbook,
            failed=self._failed(declared.name, chosen),
            tested=labelled_test_part(self, release, sample.threshold, sample.quantile),
            business=self._business(declared, monitor, chosen),
            objective=self._objective(declared.name),
            resources=used(self.metadata, chosen),
            watched=watched,
            policy=policy,
            score=scorer(self._bundle(release)) if release else None,
            skew=self._skew(declared, monitor, chosen, carried=window is None),
            back=back,
        )
        report = msgspec.structs.replace(report, findings=[*report.findings, *unread])
        silent = self._cadences(declared)
        report = with_silences(report, silent)
        return self._keep_report(report, release, sample.within(chosen), silent) if keep else report

    def report_show(self, id: str) -> Report:
        """A kept report as it was made. id: of it, the start of one, or a model: its newest is meant.

        Raises UnknownId, and ReportTooNew for one of a later version.
        """
        from seatrial.monitoring.monitor import kept

        newest = self._report_line(id)
        record = self.resolved(newest.id if newest else id, "report")
        report, model = kept(record.body), record.name
        until = parse_window(report.window).end_us
        alerts = {
            one.alarm: one.id
            for one in self.alerts(model, every=True)
            if one.opened_at <= report.as_of and (not one.resolved_at or one.resolved_at > report.as_of)
        }
        return msgspec.structs.replace(
            report,
            alarms=[msgspec.structs.replace(one, alert=alerts.get(one.name, "")) for one in report.alarms],
            marks=[one for one in self._marks(model) if one.at <= report.as_of],
            history=[one for one in self._history(model) if to_us(parse_time(one.at)) < until],
        )

    def rehearse(self, model: str | None = None, *, over: str = "28d") -> Rehearsal:
        """Replay the policy on the model's own past: what it would have raised and when, how soon a planted incident is
        found, and which thresholds meet the stated budget. Nothing is kept.

        over: how far back from now; the four weeks before, where there are any, tell what is usual.
        """
        from seatrial.monitoring.policy import watch
        from seatrial.monitoring.policy.rehearsal import WARM_US, rehearse

        declared = self._model(model)
        monitor = self._monitor(declared.name)
        self._compact_log()
        source = self._watch_source(declared)
        standing = StandingWatch(self, monitor, source, lambda within: self._instants(declared, within))
        monitor = replace(monitor, every=standing.every)
        from_us = self.now_us - duration_us(over)
        back = Window(max(from_us - WARM_US, 0), self.now_us)
        state = watch.begun(monitor, self._instants(declared, back), source, until_us=self.now_us)
        ringing = {one.alarm for one in self.alerts(declared.name) if one.state != "resolved"}
        return rehearse(monitor, state, source, from_us=from_us, until_us=self.now_us, open_alerts=ringing)

    def _policy(
        self, model: Model, monitor: Monitor, *, keep: bool, past: bool = False
    ) -> tuple[Watched | None, list[AlarmResult]]:
        """Continue the policy over the windows that are over by now, and what it says."""
        from seatrial.monitoring.policy import watch

        if not monitor.policy:
            return None, []
        standing = StandingWatch(self, monitor, self._watch_source(model), lambda within: self._instants(model, within))
        state, learned = standing.continued(keep=keep)
        words = "the policy looks at the newest windows, this report at earlier ones" if past else ""
        if state is not None and state.cursor_us > self.now_us:
            judged, now = iso(from_us(state.cursor_us)), iso(from_us(self.now_us))
            words = f"the clock was put back: windows until {judged} were judged already, and it is {now}"
        return watch.watched(state, learned), watch.alarms(state, past=words)

    def _instants(self, model: Model, window: Window) -> NDArray[np.int64]:
        """When the predictions of a window were made for, in microseconds."""
        found: NDArray[np.int64] = self._predictions(model, window)["at"].cast("int64").to_numpy()
        return found

    def _watch_source(self, model: Model) -> Source:
        from functools import cache

        from seatrial.monitoring.policy.expected import expected_loss
        from seatrial.monitoring.policy.watch import Source
        from seatrial.verbs.tested import labelled_test_part

        @cache
        def compared(release: str) -> tuple[Reference | None, dict[str, float | None]]:
            record = self.metadata.record(release) if release else None
            if record is None:
                head = self.metadata.head("release", model.name)
                record = self.record(head.record_id) if head else None
            return self._reference(record), dict(record.body["manifest"]["metrics"]) if record else {}

        def named(release: str) -> str:
            record = self.metadata.record(release) if release else None
            return f"v{record.body['version']}" if record and "version" in record.body else release

        def read(window: Window) -> Sample:
            return self._sample(model, window, inputs=True)

        def labelled(window: Window) -> Sample:
            return self._sample(model, window)

        @cache
        def expected(release: str) -> ExpectedLoss | None:
            record = self.metadata.record(release) if release else None
            return expected_loss(labelled_test_part(self, record, self._threshold(model.name), model.quantile))

        return Source(read, labelled, compared, named, expected)

    def _business(self, model: Model, monitor: Monitor, window: Window) -> list[Business]:
        """The numbers of the business for the window's requests; one that cannot be read says so."""
        from seatrial.monitoring.figures import Business
        from seatrial.monitoring.looks.business import business
        from seatrial.monitoring.rows.labels import prediction_keys

        if not monitor.business:
            return []
        asked = self._predictions(model, window)
        asked = asked.append_column("key", prediction_keys(asked, model.key))
        found = []
        for metric in monitor.business:
            try:
                rows = self._inputs.tables([metric.source], None)[0][metric.source.name]
                found.append(business(metric, rows, asked, list(model.key), as_of_us=self.now_us))
            except SeatrialError as error:
                found.append(Business(metric.name, metric.better, 0, None, None, note=error.found.rstrip(".")))
        return found

    def _keep_report(self, report: Report, release: Record | None, sample: Sample, silent: list[Cadence]) -> Report:
        body = msgspec.to_builtins(report) | {"marks": [], "history": []}
        record = Record(report.id, "report", report.model, (release.id,) if release else (), body)
        with self.metadata.transaction() as transaction:
            transaction.add(record)
            facts = {"verdict": report.verdict, "headline": report.headline, "window": report.window}
            facts["model"] = report.model
            self.event(transaction, "report.made", report.id, facts)
        alerts = self._settle_alerts(report, sample, silent)
        named = {alert.alarm: alert.id for alert in alerts}
        alarms = [msgspec.structs.replace(one, alert=named.get(one.name, "")) for one in report.alarms]
        return msgspec.structs.replace(report, alarms=alarms)

    def _sample(
        self,
        model: Model,
        window: Window | None,
        *,
        inputs: bool = False,
        deployment: str | None = None,
        every_class: bool = False,
    ) -> Sample:
        """The model's predictions of a window, with the labels known by now. inputs: with what the model was given.
        every_class: without it, but with the probability of each class."""
        from seatrial.monitoring.rows.sample import from_log
        from seatrial.monitoring.rows.streamed import of_log

        whole = not inputs or deployment is not None or model.personal  # what is personal is hashed as it is read
        long = None if whole else of_log(self.log, model=model.name, window=window)
        streamed = None
        if long is not None:
            rows, streamed = long
        elif inputs:
            rows = self.log.rows(model=model.name, window=window, deployment=deployment)
        else:
            rows = self._predictions(model, window, deployment, every_class=every_class)
        for prefix in ("field_", "feature_"):
            rows = self.without_persons(model, rows, prefix=prefix)
        sample = from_log(
            rows,
            self.labels.read(model.name),
            model=model.name,
            task=model.task,
            key=model.key,
            window=window,
            as_of_us=self.now_us,
            threshold=self._threshold(model.name),
            quantile=model.quantile,
        )
        return sample if streamed is None else replace(sample, inputs=streamed)

    def _predictions(
        self,
        model: Model,
        window: Window | None = None,
        deployment: str | None = None,
        *,
        every_class: bool = False,
    ) -> pa.Table:
        """Predictions without their inputs, but with the columns of the key where requests carried them."""
        from seatrial.stores.prediction_log import EVERY_CLASS

        several = ["predicted_class", *([EVERY_CLASS] if every_class else ())]
        sampled = [*SAMPLED, *(several if model.task == "multiclass" else ())]
        fields = [f"field_{name}" for name in model.key]
        rows = self.log.rows(model=model.name, window=window, deployment=deployment, columns=sampled, optional=fields)
        whole = set(fields) <= set(rows.column_names)
        return rows if whole else rows.drop_columns([name for name in fields if name in rows.column_names])

    def _monitor(self, model: str) -> Monitor:
        from seatrial.monitoring.definition import Monitor

        return self.definitions.monitors.get(model) or Monitor(model)

    def _compared_with(self, against: str, window: Window, sample: Sample, release: Record | None) -> Reference | None:
        from seatrial.monitoring.rows.against import BadReference, chosen, of_window

        found = chosen(against, window)
        if isinstance(found, Window):
            return of_window(sample, found)
        if found == "training":
            return self._reference(release)
        names = self._deployments_of(sample.model)
        heads = [head for name in names if (head := self.metadata.head("deployment", name)) is not None]
        if not heads:
            raise BadReference(f"no release of '{sample.model}' is live, so there is no champion to compare with.")
        reference = self._reference(self.record(self.record(heads[0].record_id).inputs[0]))
        return None if reference is None else replace(reference, name="the champion's training rows")

    def _reach(self, monitor: Monitor, window: Window, against: str = "training") -> Window:
        """The window, one before it to know what had moved already, as far back as the widest alarm looks, and what is
        compared with."""
        from seatrial.monitoring.rows.against import chosen

        widest = max((duration_us(alarm.window) for alarm in monitor.every_alarm), default=0)
        before = window.start_us - (window.end_us - window.start_us)
        past = chosen(against, window)
        if isinstance(past, Window):
            before = min(before, past.start_us)
        start_us = min(before, min(window.end_us, self.now_us) - widest) - DAY_US
        return Window(max(start_us, 0), max(window.end_us, self.now_us))

    def _objective(self, model: str) -> Objective | None:
        """What the model's deployment promises; None where there are several, or none is declared or live."""
        declared = self.definitions.deployments
        names = self._deployments_of(model)
        return declared[names[0]].objective if len(names) == 1 and names[0] in declared else None

    def _skew(self, model: Model, monitor: Monitor, window: Window, *, carried: bool) -> Skew | None:
        """What the offline join says of the features that a sample of the window was given; None where none is looked
        up. carried: the newest report's answer will do while it is young enough."""
        from seatrial.features.plan import make_plan
        from seatrial.monitoring.figures import Skew
        from seatrial.monitoring.looks.skew import SAMPLE, skew
        from seatrial.verbs.feature_quality import verify

        if not monitor.skew or not make_plan(model.features, self.definitions.views).feature_columns:
            return None
        for record in self.metadata.records("report", model.name, newest=1) if carried else ():
            found = msgspec.convert(record.body.get("skew"), Skew | None)
            if found is not None and found.rows and _of_now(found, window, duration_us(monitor.skew)):
                return found
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sources: `seatrial validate` says it
            try:
                replayed = verify(self, self._inputs, model, window, sample=SAMPLE)
                return skew(replayed, self.now_us) if replayed.rows or replayed.notes else None
            except SeatrialError as error:
                return Skew(as_of=iso(from_us(self.now_us)), window=str(window), note=error.found.rstrip("."))

    def _failed(self, model: str, window: Window) -> int:
        """How many requests of the window the service did not answer."""
        return sum(self.log.failures.count(window=window, deployment=name) for name in self._deployments_of(model))

    def _watched(self, model: str, sample: Sample) -> Record | None:
        """The release that a report compares with: the one that answered most of the window, else the live one."""
        counts = sorted(sample.rows["release"].value_counts().to_pylist(), key=lambda one: -one["counts"])
        for release in (one["values"] for one in counts):
            record = self.metadata.record(release)
            if record is not None:
                return record
        head = self.metadata.head("release", model)
        return self.record(head.record_id) if head else None

    def _reference(self, release: Record | None) -> Reference | None:
        """What the inputs and scores looked like in training; None when the release says nothing of it."""
        from seatrial.monitoring.rows.reference import Reference

        if release is None:
            return None
        bundle = self._bundle(release)
        files = bundle.files
        profile = files.get("profile.json")
        if not profile:
            return None
        personal = bundle.manifest.signature.personal
        return Reference.from_profile(msgspec.json.decode(profile)).anonymous(personal, self.personal_key)

    def _logged_otherwise(self, sample: Sample, watched: Record | None) -> list[str]:
        """The columns that another release of these rows has no such input for, or logs in another way (personal)."""
        if watched is None:
            return []
        signature = self._bundle(watched).manifest.signature
        found: set[str] = set()
        for id in sample.rows["release"].unique().to_pylist():
            record = self.metadata.record(id) if id != watched.id else None
            if record is not None:
                other = self._bundle(record).manifest.signature
                found |= set(signature.inputs) - set(other.inputs)
                found |= {name for name in signature.inputs if signature.personal.get(name) != other.personal.get(name)}
        return sorted(found)

    def _bundle(self, release: Record) -> Bundle:
        from seatrial.releases.bundle import open_bundle

        return open_bundle(self.objects.path(release.body["object"]), self.trusted)

    def _marks(self, model: str) -> list[Mark]:
        """What happened to the model, oldest first: releases, roll-backs, alerts, proposals."""
        from seatrial.monitoring.report import Mark
        from seatrial.retraining.proposal import proposals

        kinds = {"deploy": "release", "rollback": "rollback"}
        marks = []
        names = self._deployments_of(model)
        for event in (one for name in names for one in self.metadata.events(subject=f"deployment/{name}")):
            if event.kind in kinds:
                id = event.body["arms"][-1]["release"]  # of a rollout that begins, the one that is new
                release = self.metadata.record(id)
                version = f"v{release.body['version']}" if release else id
                marks.append(Mark(iso(from_us(event.at_us)), kinds[event.kind], version))  # type: ignore[arg-type]
        for alert in self.alerts(model, every=True):
            marks.append(Mark(alert.opened_at, "alert", alert.alarm))
            if alert.resolved_at:
                marks.append(Mark(alert.resolved_at, "resolved", alert.alarm))
        marks += [Mark(one.opened_at, "proposal", one.trigger) for one in proposals(self.metadata, model)]
        return sorted(marks, key=lambda mark: mark.at)

    def _history(self, model: str) -> list[Point]:
        from seatrial.monitoring.monitor import point

        return [point(record.body) for record in self.metadata.records("report", model)]


def _longer(reach: Window, chosen: Window, rows: int) -> Window:
    """Where predictions are read from to see when labels come. rows: how many `reach` holds, which are read anyway."""
    most_us = MOST_BACK * (reach.end_us - reach.start_us) // max(rows, 1)
    start_us = max(chosen.start_us - BACK_US, reach.end_us - most_us, 0)
    return Window(min(start_us, reach.start_us), reach.end_us)


def _of_now(found: Skew, window: Window, every_us: int) -> bool:
    """Whether a replay was of a window as long as this one, which ended not long before it."""
    looked = parse_window(found.window)
    alike = looked.end_us - looked.start_us == window.end_us - window.start_us
    return alike and 0 <= window.end_us - looked.end_us < every_us


def _said(keys: pa.ChunkedArray, at: pa.ChunkedArray, labels: pa.ChunkedArray) -> pa.ChunkedArray:
    """A key, an instant and a label as one text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(keys, at.cast(pa.int64()).cast(pa.string()), labels.cast(pa.string()), "=")
