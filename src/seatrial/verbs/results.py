"""What verbs answer with: plain frozen values, the same in Python, on the command line and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from seatrial.core.pages import table_page
from seatrial.data.profile import DataNote
from seatrial.deployment.requests import RequestChange
from seatrial.governance.audit import Anchor
from seatrial.retraining.proposal import Proposal

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) while a verb works."""


class Taken(msgspec.Struct, frozen=True):
    """A snapshot that was taken. new: its content was not known; set_aside: rows taken out, by rule.

    notes: what is otherwise than in the source's snapshot before, warnings first, and expectations that only warn.
    """

    source: str
    id: str
    rows: int
    columns: int
    new: bool
    set_aside: dict[str, int]
    changed_columns: list[str]
    seconds: float
    notes: list[DataNote] = []

    def _repr_html_(self) -> str:
        facts = {"source": self.source, "new": self.new, "set aside": self.set_aside, "changed": self.changed_columns}
        return table_page(self.id, facts, {"rows": self.rows, "columns": self.columns})


class TakenIn(msgspec.Struct, frozen=True):
    """What was taken from a stream so far. rows: entries whose rows are online now; written: changes that they made,
    over all views; refused: entries that were set aside; lag: entries still to come, None when it is not known.
    waiting: which server does not answer; empty while all do."""

    rows: int = 0
    written: int = 0
    refused: int = 0
    lag: int | None = None
    waiting: str = ""


class Trained(msgspec.Struct, frozen=True):
    """A training run.

    version: None when a gate said no. rows: counts of the split. notes: what had to be assumed. leak_guard: what could
    not be checked for leaks; empty when everything was. sample: the rows of a sample, which never becomes a version.
    intervals, slices, threshold: as in the run's record. reused: the steps that an earlier run had made already.
    """

    model: str
    run: str
    version: int | None
    passed: bool
    metrics: dict[str, float | None]
    baseline: dict[str, float | None]
    cv: dict[str, Any] | None
    gates: list[dict[str, Any]]
    rows: dict[str, Any]
    training_set: str
    snapshots: list[str]
    seconds: float
    notes: list[str] = []
    leak_guard: str = ""
    sample: int | None = None
    intervals: dict[str, Any] = {}
    slices: dict[str, Any] = {}
    threshold: dict[str, Any] | None = None
    reused: list[str] = []

    def _repr_html_(self) -> str:
        refused = [gate["reason"] for gate in self.gates if not gate["passed"]]
        facts = {"model": self.model, "version": self.version, "passed": self.passed, "refused by": refused}
        return table_page(self.run, facts | {"notes": self.notes}, self.metrics)


class Released(msgspec.Struct, frozen=True):
    """A release that was packed. new: it was not known before; path: its bundle; explanation: of the version.

    cost: of the process that scores it when its format is not "onnx", measured here (`releases.supervised.Cost`).
    notes: what is to be known of a model that was brought in from elsewhere.
    needs_approval: policy lets it go live only when a second person approves it, and nobody has.
    """

    id: str
    model: str
    version: int
    semantic_version: str
    explanation: str
    format: str
    parity: dict[str, Any]
    path: str
    bytes: int
    new: bool
    cost: dict[str, Any] | None = None
    notes: list[str] = []
    needs_approval: bool = False

    def _repr_html_(self) -> str:
        facts = {"model": f"{self.model} {self.semantic_version}", "version": self.version, "why": self.explanation}
        facts |= {"format": self.format, "notes": self.notes, "bundle": self.path}
        numbers = {"parity rows": self.parity["rows"], "largest difference": self.parity["largest"]}
        return table_page(self.id, facts, numbers)


class Deployed(msgspec.Struct, frozen=True):
    """A deployment after it moved.

    version: of the live model. previous: the release that was live before.
    audit: the newest event of the audit log; kept elsewhere, it shows whether the log was cut since.
    changed: False when this release was live already, alone and as declared: then nothing was written.
    share: percent of the traffic that the release has; below 100 a rollout has begun, and `previous` is still live.
    steps: of a rollout that began, the percents of traffic to come; step_ends: when its first step may end at the
    earliest; min_rows: the answers that it needs.
    requests: what is different for callers; None where nothing is. refused: the newest run, whose gates said no, when
    nothing newer than what is live could be deployed.
    """

    deployment: str
    generation: int
    live: str
    version: str
    previous: str | None
    strategy: str
    audit: Anchor
    changed: bool = True
    share: float = 100.0
    steps: list[float] = []
    step_ends: str | None = None
    min_rows: int | None = None
    requests: RequestChange | None = None
    refused: str | None = None


class Replayed(msgspec.Struct, frozen=True):
    """A replay of history. pushed: rows taken into the online store; metrics: of the answers that have labels."""

    model: str
    window: str
    predictions: int
    pushed: int
    labelled: int
    metrics: dict[str, float | None]
    seconds: float
    per_second: float


class FeatureInfo(msgspec.Struct, frozen=True):
    """One feature of a view, or a request-time function: then kind is "function", and only names and words are said.

    online_rows: entities that the online store knows of; None: it cannot be read now. materialized_through: up to which
        instant `materialize` took rows last, as the view is declared or was; None: it never did.
    live: the deployments whose live release reads the view, with the digest where it reads an earlier one.
    same_as: the feature that it is again. shared_from: the address of the other project that the view is from.
    problem: why nothing is known of a view of another project.
    """

    view: str
    feature: str
    column: str
    entity: str
    definition: str
    source: str
    ttl: str
    owner: str
    description: str
    online_rows: int | None
    materialized_through: str | None = None
    tags: list[str] = []
    live: list[str] = []
    same_as: str | None = None
    shared_from: str | None = None
    problem: str | None = None
    kind: str = "feature"


class FunctionShown(msgspec.Struct, frozen=True):
    """A request-time function. definition: its source as it is frozen; used_by: see `features used-by`."""

    function: str
    description: str
    args: list[str]
    definition: str
    digest: str
    used_by: dict[str, Any]


class LookedUp(msgspec.Struct, frozen=True):
    """What is online of one entity.

    status: "present", "expired" (there are only rows older than the ttl or the windows) or "missing".
    event_timestamp, age_seconds: of the latest row that counts, or has expired; None without one.
    features: by bare name; times are ISO 8601 text.
    """

    view: str
    entity: dict[str, Any]
    at: str
    status: str
    event_timestamp: str | None
    age_seconds: float | None
    features: dict[str, Any]


class FoundFeature(msgspec.Struct, frozen=True):
    """A feature, or request-time function, that has every word of a search. where: in what, best first."""

    name: str
    where: list[str]
    definition: str
    owner: str
    description: str


class Searched(msgspec.Struct, frozen=True):
    """A search. found: best first. did_you_mean: the words that would find something; empty when `found` is not."""

    text: str
    found: list[FoundFeature]
    did_you_mean: str


class RolloutLine(msgspec.Struct, frozen=True):
    """A rollout that is under way. share: percent of the traffic that the new release has; step: 1 for the first."""

    strategy: str
    new: str
    share: float
    step: int
    steps: int
    since: str


class AlertsLine(msgspec.Struct, frozen=True):
    """Alerts that are open or acknowledged, in short. worst: the id of the worst, the newest of those that are
    equally bad, and `words` what it says. unseen: how many nobody acknowledged."""

    high: int
    medium: int
    low: int
    unseen: int
    worst: str
    words: str


class ReportLine(msgspec.Struct, frozen=True):
    """What a kept report says in short."""

    id: str
    verdict: str
    headline: str
    window: str
    model: str
    as_of: str


class ProposalLine(msgspec.Struct, frozen=True):
    """A retraining that is not ended. next: the command that takes it further."""

    id: str
    state: str
    reason: str
    next: str


class ModelStatus(msgspec.Struct, frozen=True):
    """How a model stands.

    live: the version that answers. refused: the newest run, when its gates said no or it failed; refused_because: why.
    distrusted: the key that signed what is live, when it is not trusted any more.
    silent: what should have come and did not, a sentence each.
    schedules: what runs by itself for it, and for the whole project (`verbs.scheduled.ScheduleShown`).
    paused: what of it stands still (`stores.pauses.Pause`).
    since: when the live release got the traffic. rollout: of another one beside it. rolled_back: when and why the
    newest release lost the traffic that it had.
    alerts: those that are not resolved; report: the newest; proposal: the retraining that waits. None: there is none.
    next: the command that would bring it further.
    """

    model: str
    owner: str
    live: str | None
    release: str | None
    since: str | None
    generation: int | None
    candidate: int | None
    snapshots: list[str]
    training_set: str | None
    parameters: dict[str, str]
    performance: dict[str, float | None]
    next: str
    refused: str | None = None
    refused_because: list[str] = []
    distrusted: str | None = None
    silent: list[str] = []
    schedules: list[dict[str, Any]] = []
    paused: list[dict[str, Any]] = []
    rollout: RolloutLine | None = None
    rolled_back: str | None = None
    alerts: AlertsLine | None = None
    report: ReportLine | None = None
    proposal: ProposalLine | None = None


class Labelled(msgspec.Struct, frozen=True):
    """Labels that were told, and how all labels of the model stand beside its predictions.

    told: rows of this telling. matched: predictions with a label; unmatched: labels that no prediction fits;
    duplicate: told again; contradicting: told otherwise before or after; before: known before their prediction.
    later: rows of this telling that are known only after the project's present, and count from then on.
    """

    model: str
    told: int
    predictions: int
    matched: int
    unmatched: int
    duplicate: int
    contradicting: int
    before: int
    later: int
    seconds: float


class Scored(msgspec.Struct, frozen=True):
    """Rows of history that were scored in batch.

    logged: those that this release had not answered before. metrics: of those whose label is known by now.
    to: the outputs that have the answers as well. batch: the record of these; None when they had them already.
    """

    model: str
    window: str
    release: str
    predictions: int
    logged: int
    labelled: int
    metrics: dict[str, float | None]
    seconds: float
    to: list[str] = []
    batch: str | None = None


class Retrained(msgspec.Struct, frozen=True):
    """One step of a retraining. words: what happened; next: the command that would bring it further."""

    model: str
    words: str
    proposal: Proposal | None
    next: str


class RolledBack(msgspec.Struct, frozen=True):
    """A deployment after a roll-back. settled: the metadata store knows; False: it was away and is told later.

    requests: what is different for callers; None where nothing is, or nobody could be asked.
    """

    deployment: str
    generation: int
    live: str
    settled: bool
    seconds: float
    requests: RequestChange | None = None
