"""One report on one window: every look at the predictions, and one verdict in plain words.

act: a hard rule of data quality failed, or an alarm fired that shows harm. watch: something moved, no harm shown.
unknown: too little to say. ok: the labels say that the model is right. Each statement comes with its numbers, and
what could not be looked at is said, never left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import Failed, UsageError, did_you_mean
from seatrial.core.windows import Window
from seatrial.monitoring.definition import MIN_LABELS, PERFORMANCE, Alarm, Monitor
from seatrial.monitoring.looks.alarms import MIN_ROWS, QUIET_START, evaluate
from seatrial.monitoring.looks.arrival import arrival
from seatrial.monitoring.looks.attribution import Score, attribution
from seatrial.monitoring.looks.outcome import NO_HARM, percent, with_outcome
from seatrial.monitoring.looks.performance import performance
from seatrial.monitoring.looks.skew import METRIC as SKEW
from seatrial.monitoring.looks.skew import alarm as skewed
from seatrial.monitoring.looks.skew import behind
from seatrial.monitoring.looks.system import system
from seatrial.monitoring.looks.young import of_ripe
from seatrial.monitoring.report import (
    FORMAT,
    AlarmResult,
    Check,
    ColumnDrift,
    Drift,
    Mark,
    Performance,
    Point,
    Report,
    Resources,
    Verdict,
)
from seatrial.monitoring.watched import NOT_WATCHED, POLICY
from seatrial.stats.metrics import MEAN

if TYPE_CHECKING:
    from seatrial.core.objective import Objective
    from seatrial.monitoring.figures import Business, Skew
    from seatrial.monitoring.rows.baseline import Baseline
    from seatrial.monitoring.rows.reference import Reference
    from seatrial.monitoring.rows.sample import Sample
    from seatrial.monitoring.watched import Watched

CONTRADICTING = 0.1
"""Labels told otherwise, as a share of those that count, beyond which nobody can tell which to believe."""
EARLIEST_US = -2_208_988_800_000_000
"""1900-01-01 in UTC."""
NO_REFERENCE = "no reference to compare with, so nobody looked whether the inputs moved"


class ReportTooNew(Failed):
    """A kept report was written by a newer version."""

    code = "report.too_new"


def require_an_age(window: Window) -> None:
    """Raises UsageError for a window so long ago that what lies before it has no dates."""
    if window.end_us < EARLIEST_US:
        raise UsageError(
            f"the window ends before 1900, at {iso(window.end)}, when no model predicted.",
            expected="Look at the times of the predictions, or at the window.",
            state="Nothing was reported.",
        )


def make_report(
    sample: Sample,
    *,
    window: Window,
    as_of_us: int,
    monitor: Monitor | None = None,
    reference: Reference | None = None,
    training: Mapping[str, float | None] | None = None,
    marks: Sequence[Mark] = (),
    history: Sequence[Point] = (),
    id: str = "",
    owner: str = "",
    on_call: str = "",
    runbook: str = "",
    failed: int | None = None,
    since_us: int | None = None,
    elsewhere: bool = False,
    tested: Baseline | None = None,
    business: Sequence[Business] = (),
    objective: Objective | None = None,
    resources: Resources | None = None,
    watched: Watched | None = None,
    policy: Sequence[AlarmResult] = (),
    score: Score | None = None,
    skew: Skew | None = None,
    back: Sample | None = None,
) -> Report:
    """The report on `window` with what was known at `as_of_us`. Nothing is written, nothing raises for what data hold.

    sample: the model's predictions of the window and of the time before it, with the labels known at `as_of_us`: alarms
        look back from the window's end (from `as_of_us` when that is earlier), and a window's length before the window
        tells which inputs had moved before.
    monitor: what is watched; without it the default alarm.
    reference: what the inputs and scores looked like in training; None: there is none, and the report says so.
    training: metrics of the release's test part. failed: how many requests got no answer, when somebody counted.
    since_us: instant of the model's first prediction ever, when the sample does not reach back to it.
    elsewhere: the model is served by other software, so `next` names no command that needs a project.
    tested: labelled rows of before to compare answers with; None: those of the log from before the window.
    score: the model that answered, to tell which inputs moved the predictions; see `looks.attribution`.
    business: numbers of the business, of the window's requests. objective: what the deployment promises.
    resources: what the server took in the window.
    skew: what of the features that were given the offline join confirms.
    watched, policy: what the policy has seen, and its alarms (see `monitoring.policy.watch`).
    back: predictions from further back than `sample`, without inputs, to see when labels come; None: there are none.
    """
    monitor = monitor or Monitor(sample.model)
    back = sample if back is None else back
    inside = sample.within(window)
    figures = performance(inside, window, training=training, min_labels=_min_labels(monitor))
    drifted, checks = _compared(inside, reference, min(as_of_us, window.end_us))
    drifted = _with_before(drifted, sample, window, reference)
    until_us = min(as_of_us, window.end_us)
    drifts = {window: drifted} if reference is not None else {}

    def look(alarm: Alarm, rows: Sample, end_us: int) -> AlarmResult:
        return evaluate(alarm, rows, end_us, reference, training, since_us=since_us, drifts=drifts)

    arrived = cache(lambda of: arrival(back, of, as_of_us))
    alarms = [
        of_ripe(look(alarm, sample, until_us), alarm, back, as_of_us, partial(look, alarm, back), arrived)
        for alarm in monitor.every_alarm
    ]
    alarms += [*policy, *([skewed(skew, sample.model)] if skew else [])]
    judged = _judge(
        _Facts(
            monitor,
            window,
            figures,
            drifted,
            checks,
            alarms,
            reference is not None,
            elsewhere,
            sample.task == "multiclass",
            sample.features,
            sample.quantile == MEAN,
            behind(skew),
        )
    )
    report = Report(
        format=FORMAT,
        id=id,
        model=sample.model,
        task=sample.task,
        window=str(window),
        as_of=iso(from_us(as_of_us)),
        rows=figures.rows,
        releases=_releases(inside),
        verdict=judged.verdict,
        headline=judged.headline,
        findings=judged.findings,
        next=judged.next,
        quality=checks,
        drift=drifted,
        performance=figures,
        system=system(inside, failed=failed, objective=objective, resources=resources),
        alarms=alarms,
        marks=[mark for mark in marks if mark.at <= iso(from_us(as_of_us))],
        history=list(history),
        owner=owner,
        on_call=on_call,
        runbook=runbook,
        watched=watched,
        attribution=None if reference is None else attribution(inside, drifted, reference, score),
        skew=skew,
    )
    return with_outcome(report, sample, window, as_of_us, arrived(window), given=tested, business=business)


def point(body: Mapping[str, Any]) -> Point:
    """A kept report (`msgspec.to_builtins` of it) as one point of the metric history. Raises ReportTooNew."""
    _require_known(body)
    figures = body["performance"]
    numbers: dict[str, float | None] = {
        **figures["metrics"],
        "gap": figures["gap"],
        "mean_score": figures["mean_score"],
        "observed": figures["observed"],
        "rows": body["rows"],
        "labelled": figures["labelled"],
        "drifted": sum(column["drifted"] for column in body["drift"]["columns"]),
        "p99_ms": body["system"]["p99_ms"],
        "degraded": body["system"]["degraded"],
    }
    numbers |= {f"business:{one['name']}": one["mean"] for one in body.get("business", ())}
    guessed = (body.get("estimate") or {}).get("metrics", {})
    numbers |= {f"estimated:{name}": value for name, value in guessed.items()}
    return Point(at=body["window"].partition("/")[2], window=body["window"], metrics=numbers)


def kept(body: Mapping[str, Any]) -> Report:
    """A kept report (`msgspec.to_builtins` of it). Raises ReportTooNew."""
    _require_known(body)
    return msgspec.convert(body, Report)


def _min_labels(monitor: Monitor) -> int:
    return min((alarm.min_labels for alarm in monitor.every_alarm if alarm.of_performance), default=MIN_LABELS)


def _compared(inside: Sample, reference: Reference | None, until_us: int) -> tuple[Drift, list[Check]]:
    from seatrial.monitoring.looks.drift import drift
    from seatrial.monitoring.looks.quality import quality
    from seatrial.monitoring.rows.reference import Reference

    if reference is not None:
        counted = inside.counted(reference)
        return drift(counted, reference), quality(inside, reference, counted=counted, until_us=until_us)
    # the rules that look at the predictions alone
    checks = [check for check in quality(inside, Reference("", 0, {}), until_us=until_us) if check.name != "columns"]
    return Drift("", [], None, NO_REFERENCE), checks


def _with_before(found: Drift, sample: Sample, window: Window, reference: Reference | None) -> Drift:
    """Whether what moved had moved in as long a time before, too: then it is no news, a season for example."""
    length = window.end_us - window.start_us
    earlier = Window(window.start_us - length, window.start_us)
    at_us = sample.at_us()
    whole = at_us.size and at_us[0] <= earlier.start_us + length // QUIET_START
    if reference is None or not whole or not any(column.drifted for column in found.columns):
        return found
    from seatrial.monitoring.looks.drift import drift

    rows = sample.within(earlier)
    if rows.rows.num_rows < MIN_ROWS:
        return found
    moved = {column.name: column.drifted for column in drift(rows, reference).columns if column.value is not None}
    columns = [msgspec.structs.replace(column, before=moved.get(column.name)) for column in found.columns]
    return msgspec.structs.replace(found, columns=columns)


def _releases(sample: Sample) -> dict[str, int]:
    """Rows by release, or by version where there is none; most first."""
    import pyarrow.compute as pc

    names = (pc.if_else(pc.equal(sample.rows[name], ""), None, sample.rows[name]) for name in ("release", "version"))
    counted = pc.value_counts(pc.coalesce(*names, "unknown")).to_pylist()
    return {one["values"]: one["counts"] for one in sorted(counted, key=lambda one: -one["counts"])}


# The verdict


@dataclass(frozen=True)
class _Facts:
    monitor: Monitor
    window: Window
    performance: Performance
    drift: Drift
    checks: list[Check]
    alarms: list[AlarmResult]
    compared: bool
    elsewhere: bool
    several: bool = False
    inputs: Sequence[str] = ()
    of_means: bool = True
    behind: Collection[str] = ()

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    @property
    def moved(self) -> list[ColumnDrift]:
        return [column for column in self.drift.columns if column.drifted]

    def fired(self, *, harmful: bool) -> list[AlarmResult]:
        """Alarms that fired, those that show harm or the others, the worst first."""
        order = ("high", "medium", "low")
        declared = {alarm.name: alarm for alarm in self.monitor.every_alarm}
        found = [
            result
            for result in self.alarms
            if result.state == "fired" and harmful == _harm(result, declared.get(result.name))
        ]
        return sorted(found, key=lambda result: (order.index(result.severity), result.metric != "calibration_gap"))

    @property
    def lost(self) -> AlarmResult | None:
        """A declared alarm on an input that is not there: it can never fire."""
        return next(
            (
                one
                for one in self.alarms
                if one.state == "not_enough_data"
                and (column := one.metric.partition(":")[2])
                and not one.metric.startswith(POLICY)
                and column not in self.inputs
            ),
            None,
        )

    @property
    def unjudged(self) -> str:
        """Why the labels do not tell whether the model is right; empty when they do."""
        needed = _min_labels(self.monitor)
        if not self.performance.rows:
            return "no predictions in this window"
        declared = {alarm.name: alarm for alarm in self.monitor.every_alarm}
        looked = [one for one in self.alarms if one.name in declared and declared[one.name].of_performance]
        lacking = [result.note for result in looked if result.state == "not_enough_data"]
        if self.performance.labelled < needed:
            return f"not enough data: {self.performance.labelled:,} of {needed:,} labels"
        if self.contradicted:
            counting = f"{self.performance.labelled:,} that count"
            return f"{_count(self.contradicted, 'label')} told otherwise before, beside {counting}"
        return lacking[0] if lacking else ""

    @property
    def contradicted(self) -> int:
        """How many labels were told otherwise before, when that is too many to believe the others."""
        otherwise = self.performance.labels.get("contradicting", 0)
        return otherwise if otherwise > CONTRADICTING * self.performance.labelled else 0


def _harm(result: AlarmResult, declared: Alarm | None) -> bool:
    """Whether an alarm that fired shows harm: a loss, or what was declared to be grave and is no drift."""
    if declared is None:  # of the policy
        return result.severity == "high"
    return declared.of_performance or (not declared.of_drift and result.severity == "high")


@dataclass(frozen=True)
class _Judged:
    verdict: Verdict
    headline: str
    findings: list[str]
    next: str


def _judge(facts: _Facts) -> _Judged:
    harm, fired = facts.fired(harmful=True), facts.fired(harmful=False)
    findings = _findings(facts)
    if facts.failed:
        return _Judged("act", _broken(facts), findings, _next_for_data(facts))
    if harm:
        return _Judged("act", _harmful(facts, harm[0]), findings, _next_for_harm(facts, harm[0]))
    moved = facts.moved or fired or (facts.drift.prediction is not None and facts.drift.prediction.drifted)
    if moved and facts.performance.rows:
        fired.sort(key=lambda one: one.metric != SKEW)  # a fault, where the others are changes
        action = fired[0].action if fired else "Ask who delivers these inputs whether the change is meant."
        return _Judged("watch", _watchful(facts, fired), findings, action)
    if facts.unjudged:
        return _Judged("unknown", _unknown(facts), findings, _next_for_unknown(facts))
    if facts.lost is not None:
        return _Judged("unknown", _never(facts, facts.lost), findings, f"Correct the alarm '{facts.lost.name}'.")
    return _Judged("ok", _good(facts), findings, "Nothing to do.")


def _broken(facts: _Facts) -> str:
    first, more = facts.failed[0], len(facts.failed) - 1
    where = f" of '{first.column}'" if first.column else ""
    others = f"; {_count(more, 'other rule')} failed too" if more else ""
    return f"The data are broken, rule '{first.name}'{where}: {first.found}; expected: {first.expected}{others}."


def _harmful(facts: _Facts, alarm: AlarmResult) -> str:
    if alarm.metric == "calibration_gap":
        return f"{_calibration(facts, alarm)}; {_inputs(facts)}."
    if alarm.metric.startswith(POLICY):
        return f"{_subject(facts)} has grown worse: {alarm.evidence}; {_inputs(facts)}."
    tested = facts.performance.training.get(alarm.metric)
    before = f", it was {_number(tested)} in testing" if tested is not None else ""
    value = _number(alarm.value)
    name = alarm.metric.replace("_", " ")
    return (
        f"{_subject(facts)} is worse than allowed: {name} is {value}, {_number(alarm.threshold)} is the limit"
        f"{before}; {_inputs(facts)}."
    )


def _calibration(facts: _Facts, alarm: AlarmResult) -> str:
    """The figures are those of the alarm, which may look at another window than the report."""
    mean_score, observed = _means(alarm, facts.performance)
    monitor, outcome = facts.monitor, facts.monitor.outcome
    if mean_score is None or observed is None or not facts.of_means:
        return f"{_subject(facts)} is off its level: {alarm.evidence}"
    under = observed > mean_score
    if _is_share(facts):
        numbers = f"{percent(observed)} were {_outcome(facts)}, the model said {percent(mean_score)}"
    else:
        numbers = f"the mean was {_number(observed)}, the model said {_number(mean_score)}"
    if facts.several:
        return f"'{monitor.model}' is {'less' if under else 'more'} sure of itself than it is right: {numbers}"
    direction = f"{'under' if under else 'over'}-predicted"
    if monitor.subject and outcome:
        return f"{outcome.capitalize()} {monitor.subject} are {direction}: {numbers}"
    return f"'{monitor.model}' is {direction}: {numbers}"


def _watchful(facts: _Facts, fired: list[AlarmResult]) -> str:
    if served := next((one for one in fired if one.metric == SKEW), None):
        what = served.evidence
    elif len(facts.moved) == 1:
        what = f"input '{facts.moved[0].name}' moved by {_number(facts.moved[0].value)}"
    elif facts.moved:
        names = _names([column.name for column in facts.moved])
        what = f"{_count(len(facts.moved), 'input')} moved, '{facts.moved[0].name}' most: {names}"
    elif fired:
        what = fired[0].evidence
    else:
        what = f"the predictions moved by {_number(facts.drift.prediction.value if facts.drift.prediction else None)}"
    what = what[0].upper() + what[1:]
    if facts.unjudged:
        return f"{what}; whether that does harm is not known: {facts.unjudged}."
    return f"{what}{NO_HARM}{_level(facts)}."


def _unknown(facts: _Facts) -> str:
    counts, figures = facts.performance.labels, facts.performance
    why = facts.unjudged
    if not figures.rows:
        return f"{_subject(facts)} cannot be judged: there are no predictions in this window."
    if not figures.labelled and counts.get("before"):
        why = f"{counts['before']:,} labels were known before their predictions were made, none after"
    elif not figures.labelled and counts.get("unmatched", 0) >= figures.rows:
        why = f"{counts['unmatched']:,} labels were told that belong to no known prediction, and none that does"
    elif not figures.labelled and figures.rows == 1:
        why = "its only prediction has no label yet"
    elif not figures.labelled:
        why = f"none of its {figures.rows:,} predictions has a label yet"
    return f"Nobody can say yet whether {_subject(facts, start=False)} is right: {why}; {_inputs(facts, quiet=True)}."


def _good(facts: _Facts) -> str:
    inputs = "" if facts.compared else "; the inputs were not compared, there is no reference"
    return f"{_subject(facts)} is doing what it should: {_level(facts)}{inputs}."


def _never(facts: _Facts, alarm: AlarmResult) -> str:
    column = alarm.metric.partition(":")[2]
    have = f"The predictions have no input {column!r}. {did_you_mean(column, facts.inputs)}".strip()
    return f"The alarm '{alarm.name}' can never fire. {have} The rest is as it should be: {_level(facts)}."


def _level(facts: _Facts) -> str:
    figures = facts.performance
    if ripe := next((one for one in facts.alarms if one.judged and one.means is not None), None):
        return _level_of_ripe(facts, ripe)
    if figures.observed is None:
        return "no label is known"
    known = f"with {percent(figures.labelled / figures.rows)} of the labels known"
    if figures.mean_score is None:
        return f"{percent(figures.observed)} were {_outcome(facts)}, {known}"
    if _is_share(facts):
        numbers = f"{percent(figures.observed)} were {_outcome(facts)}, it said {percent(figures.mean_score)}"
    else:
        numbers = f"the mean was {_number(figures.observed)}, it said {_number(figures.mean_score)}"
    return f"{numbers}, {known}"


def _level_of_ripe(facts: _Facts, alarm: AlarmResult) -> str:
    """The level of an older window that was judged, because the first labels of this one mislead."""
    mean_score, observed = alarm.means or (None, None)
    until = alarm.judged.partition("/")[2][:10]
    if _is_share(facts):
        numbers = f"{percent(observed or 0.0)} were {_outcome(facts)}, it said {percent(mean_score or 0.0)}"
    else:
        numbers = f"the mean was {_number(observed)}, it said {_number(mean_score)}"
    return f"{numbers}, of predictions until {until}, whose labels are there"


def _inputs(facts: _Facts, *, quiet: bool = False) -> str:
    """What the inputs have to say about it."""
    if not facts.compared:
        return "the inputs were not compared, there is no reference"
    if facts.moved:
        return _fresh(facts)
    if all(column.value is None for column in facts.drift.columns):
        return f"the inputs could not be compared: {facts.drift.note or 'not enough data'}".rstrip(".")
    return "nothing moved in the inputs" if quiet else "nothing in the inputs explains it"


def _fresh(facts: _Facts) -> str:
    fresh = [column.name for column in facts.moved if not column.before]
    others = len(facts.moved) - len(fresh)
    if not fresh:
        return f"nothing new in the inputs explains it, {_count(others, 'input')} had moved before already"
    known = f" ({_count(others, 'other')} had moved before)" if others else ""
    if len(fresh) == 1:
        return f"input '{fresh[0]}' moved too{known}"
    return f"{_count(len(fresh), 'input')} moved too: {_names(fresh)}{known}"


def _findings(facts: _Facts) -> list[str]:
    """Everything found or not looked at, the worst first, a sentence each."""
    figures = facts.performance
    found = [
        f"{check.name}{f' of {check.column!r}' if check.column else ''}: {check.found}; expected: {check.expected}"
        for check in facts.failed
    ]
    found += [
        f"alarm '{one.name}' fired: {one.evidence}" for harmful in (True, False) for one in facts.fired(harmful=harmful)
    ]
    found += [_moved(column) for column in sorted(facts.moved, key=lambda column: bool(column.before))]
    if facts.drift.prediction is not None and facts.drift.prediction.drifted:
        found.append(f"the predictions moved by {_number(facts.drift.prediction.value)}")
    if figures.rows:
        found.append(
            f"{percent(figures.labelled / figures.rows)} of this window's labels have arrived "
            f"({figures.labelled:,} of {figures.rows:,})"
        )
    if figures.labels.get("contradicting"):
        found.append(f"{_count(figures.labels['contradicting'], 'label')} told otherwise before; the newest counts")
    if figures.labels.get("duplicate"):
        found.append(f"{_count(figures.labels['duplicate'], 'label')} told again with the same value; each counts once")
    found += [text for text in (figures.note, facts.drift.note) if text]
    found += [
        f"alarm '{one.name}': {one.note}"
        for one in facts.alarms
        if one.state == "not_enough_data" and not one.metric.startswith(POLICY)
    ]
    found += [f"{one.name}: {one.note}" for one in facts.alarms if one.severity == "high" and _is_unwatched(one)]
    return list(dict.fromkeys(found))


def _is_unwatched(alarm: AlarmResult) -> bool:
    return alarm.note.startswith(NOT_WATCHED)


def _moved(column: ColumnDrift) -> str:
    means = ""
    if column.mean is not None and column.reference_mean is not None:
        means = f", mean {_number(column.mean)} where it was {_number(column.reference_mean)}"
    return (
        f"input '{column.name}' moved: {column.distance} {_number(column.value)} "
        f"({_number(column.tolerated)} is tolerated){means}{', as in the window before' if column.before else ''}"
    )


def _next_for_data(facts: _Facts) -> str:
    first = facts.failed[0]
    if first.column in facts.behind:
        return (
            f"Run `seatrial materialize`, and see that it runs as often as it should: offline '{first.column}' had "
            "come. Do not retrain on this window."
        )
    what = f"'{first.column}'" if first.column else "the data"
    return f"Mend {what} where it is made; do not retrain on this window."


def _next_for_harm(facts: _Facts, alarm: AlarmResult) -> str:
    if facts.elsewhere or alarm.metric not in PERFORMANCE:
        return alarm.action
    return f"{alarm.action} `seatrial retrain {facts.monitor.model}` proposes, it changes nothing by itself."


def _next_for_unknown(facts: _Facts) -> str:
    if not facts.performance.rows:
        status = "." if facts.elsewhere else ": `seatrial status`."
        return f"Check that the model is asked, and that its log is written{status}"
    if facts.performance.labelled < _min_labels(facts.monitor):
        how = "." if facts.elsewhere else f": `seatrial label {facts.monitor.model} FILE`."
        return f"Tell what really happened{how}"
    if facts.contradicted:
        return "Ask who tells the labels which of them are right."
    return "Wait until the window is full; nothing else is missing."


def _means(alarm: AlarmResult, figures: Performance) -> tuple[float | None, float | None]:
    """Mean score and mean label of the alarm's window."""
    if alarm.means is not None:
        return alarm.means
    return figures.mean_score, figures.observed


def _outcome(facts: _Facts) -> str:
    """What labels of 1 stand for; of several classes, that the predicted one was right."""
    return "right" if facts.several else facts.monitor.outcome or "positive"


def _is_share(facts: _Facts) -> bool:
    return "roc_auc" in facts.performance.metrics


def _subject(facts: _Facts, *, start: bool = True) -> str:
    return f"{'The model' if start else 'the model'} '{facts.monitor.model}'"


def _names(names: list[str], most: int = 3) -> str:
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _require_known(body: Mapping[str, Any]) -> None:
    number = body.get("format", 0)
    if number > FORMAT:
        raise ReportTooNew(
            f"report '{body.get('id', '')}' has the format {number}; this version reads up to {FORMAT}.",
            state="Nothing was changed.",
            next="Update seatrial.",
        )
