"""What a monitoring report says: plain frozen values, the same in Python, as JSON, in the terminal and as a page.

A number that the rows do not define is None, and then `note` says why ("not enough data: 12 of 200 rows").
Times are ISO 8601 in UTC; shares lie in [0, 1].
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from seatrial.core.clock import parse_time
from seatrial.core.pages import table_page
from seatrial.monitoring.figures import (
    Arrival,
    Attribution,
    Business,
    Calibration,
    Concept,
    Estimate,
    Interval,
    Skew,
    Slices,
)
from seatrial.monitoring.watched import Watched

FORMAT = 1

Verdict = Literal["ok", "watch", "act", "unknown"]
"""ok: nothing found. watch: something moved, no harm shown. act: harm is shown, or data are broken. unknown: too
little to say."""

Severity = Literal["low", "medium", "high"]


class Check(msgspec.Struct, frozen=True):
    """One finding of data quality. column: empty for the table as a whole.

    A hard rule passes or fails. A soft one never fails: `noticed` tells that what it found is unusual.
    """

    name: str
    column: str
    passed: bool
    found: str
    expected: str
    noticed: bool = False


class ColumnDrift(msgspec.Struct, frozen=True):
    """How far one column has moved from the reference.

    kind: "number" or "category". rows, reference_rows: values looked at, missing ones not counted.
    distance: "ks" (Kolmogorov-Smirnov) for numbers, "tv" (total variation) for categories; value: in [0, 1].
    p_value: of the hypothesis that nothing moved. tolerated: the distance that counts as nothing, the largest that
        whole weeks of the reference itself show when they are known, at least 0.05.
    missing, reference_missing: shares. unseen: share of values that the reference does not have (categories), or
        outside its range (numbers).
    drifted: beyond what is tolerated and significant across all columns together.
    mean, reference_mean: of numbers.
    before: whether it had drifted in the window before this one already; None when nobody could look.
    distances: every distance that is defined for the column, see `looks.drift.distances_of`.
    """

    name: str
    kind: Literal["number", "category"]
    rows: int
    reference_rows: int
    distance: Literal["ks", "tv"]
    value: float | None
    p_value: float | None
    tolerated: float
    drifted: bool
    missing: float
    reference_missing: float
    unseen: float
    mean: float | None = None
    reference_mean: float | None = None
    note: str = ""
    before: bool | None = None
    distances: dict[str, float] = {}

    def far(self, distance: str) -> float | None:
        """The distance of that name; "ks" is of every column the one that its type has by default. None: undefined."""
        return self.value if distance in ("ks", self.distance) else self.distances.get(distance)


class Drift(msgspec.Struct, frozen=True):
    """Columns, furthest first. prediction: the same of the scores. note: why there is none, or what to know."""

    reference: str
    columns: list[ColumnDrift]
    prediction: ColumnDrift | None
    note: str = ""


class Day(msgspec.Struct, frozen=True):
    """One day of predictions: 24 hours from the window's start where that is a whole hour, else from midnight UTC.

    observed: mean label of those that have one. end: where it ends; "" in reports from before it was kept: 24 hours
    later. partial: less than 24 hours of it lie in the window.
    """

    start: str
    rows: int
    labelled: int
    mean_score: float | None
    mean_score_labelled: float | None
    observed: float | None
    end: str = ""
    partial: bool = False

    @property
    def middle(self) -> datetime:
        """The instant halfway, whose date names the day."""
        start = parse_time(self.start)
        return start + ((parse_time(self.end) - start) if self.end else timedelta(days=1)) / 2


class Bin(msgspec.Struct, frozen=True):
    """One bin of a calibration curve: labelled rows whose score lies in [low, high)."""

    low: float
    high: float
    rows: int
    mean_score: float
    observed: float


class Performance(msgspec.Struct, frozen=True):
    """How right the predictions were, with the labels known so far.

    metrics: of the labelled rows; constant: the same for the rows' own mean label as every prediction (the floor
        that a model must beat); training: of the release's test part, for comparison.
    mean_score, observed, gap: over labelled rows; gap = mean_score - observed.
    labels: what became of the labels that were told, see `monitoring.rows.labels.LabelCounts`.
    intervals: of the metrics, at 95 %, None where there is none; blocks: what was drawn for them ("28 blocks of 6
        hours"); few_blocks: these are so few that the intervals are too narrow.
    """

    rows: int
    labelled: int
    metrics: dict[str, float | None]
    constant: dict[str, float | None]
    training: dict[str, float | None]
    mean_score: float | None
    observed: float | None
    gap: float | None
    bins: list[Bin]
    days: list[Day]
    labels: dict[str, int]
    note: str = ""
    intervals: dict[str, Interval | None] = {}
    blocks: str = ""
    few_blocks: bool = False


class Resources(msgspec.Struct, frozen=True):
    """What a whole server took, all its deployments together, as `seatrial up` measured it.

    seconds: how long of the window was measured. cpu_seconds: of its processes in that time, its waiting included.
    memory_bytes: the most that they held, what they share counted once; None where nobody tells.
    """

    seconds: float
    cpu_seconds: float
    memory_bytes: int | None

    @property
    def words(self) -> str:
        """CPU as a share of one core, and memory."""
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / 1e6:,.0f} MB"
        return f"{100 * self.cpu_seconds / self.seconds:.1f} % of a core{memory}" if self.seconds else ""


class System(msgspec.Struct, frozen=True):
    """How the service did. Latencies in milliseconds; degraded: share of answers given with something missing.

    failed: requests refused or failed on our side (5xx); None when nobody counted. error_rate: their share of the
        requests that somebody waited for; None also when there were none.
    availability: share of requests that were answered. prompt: share of answers within the promised latency.
    promised: share of requests to be answered, share of answers to be prompt, and within how many milliseconds; None
        where no deployment promises anything. broken: which of the first two were not kept in this window, in words.
    resources: what the server took; None where nobody measured.
    """

    rows: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    degraded: float | None
    error_rate: float | None
    note: str = ""
    failed: int | None = None
    availability: float | None = None
    prompt: float | None = None
    promised: tuple[float, float, float] | None = None
    broken: list[str] = []
    resources: Resources | None = None


class AlarmResult(msgspec.Struct, frozen=True):
    """One alarm looked at. state: fired, quiet, or not enough data (then `note` says how much is missing).

    means: mean score and mean label over the alarm's window, of labelled rows; None without any.
    judged: an older window that was judged in place of this one, whose first labels mislead; then numbers are of that.
    """

    name: str
    state: Literal["fired", "quiet", "not_enough_data"]
    severity: Severity
    metric: str
    value: float | None
    threshold: float
    window: str
    rows: int
    labelled: int
    evidence: str
    action: str
    alert: str = ""
    note: str = ""
    means: tuple[float, float] | None = None
    judged: str = ""


class Mark(msgspec.Struct, frozen=True):
    """Something that happened, for pictures over time."""

    at: str
    kind: Literal["release", "rollback", "alert", "resolved", "proposal"]
    words: str


class Point(msgspec.Struct, frozen=True):
    """One earlier report in the metric history: its window's end, and numbers by name."""

    at: str
    window: str
    metrics: dict[str, float | None]


class Report(msgspec.Struct, frozen=True):
    """One window of one model.

    id: of the record when the report was kept. as_of: what was known then counts, nothing later.
    headline: one sentence that a product manager understands; next: what to do, a command where there is one.
    releases: rows by release (id or version). watched: what the policy has seen; None when it is off or has no rows.
    arrival, calibration, concept, slices, estimate: see `monitoring.figures`; None in older reports. skew: of the last
        replay; None when no feature is looked up, or nobody looks.
    business: numbers of the business, as the monitor declares them.
    """

    format: int
    id: str
    model: str
    task: str
    window: str
    as_of: str
    rows: int
    releases: dict[str, int]
    verdict: Verdict
    headline: str
    findings: list[str]
    next: str
    quality: list[Check]
    drift: Drift
    performance: Performance
    system: System
    alarms: list[AlarmResult]
    marks: list[Mark]
    history: list[Point]
    owner: str = ""
    on_call: str = ""
    runbook: str = ""
    arrival: Arrival | None = None
    calibration: Calibration | None = None
    concept: Concept | None = None
    slices: Slices | None = None
    estimate: Estimate | None = None
    business: list[Business] = []
    watched: Watched | None = None
    attribution: Attribution | None = None
    skew: Skew | None = None

    def _repr_html_(self) -> str:
        fired = [alarm.name for alarm in self.alarms if alarm.state == "fired"]
        facts = {"verdict": f"{self.verdict}: {self.headline}", "window": self.window, "alarms": fired}
        facts |= {"findings": self.findings, "next": self.next}
        return table_page(self.model, facts, {"predictions": self.rows, "labelled": self.performance.labelled})
