"""What a report says of how right the model was, beyond its metrics: plain frozen values, as in `report`.

An interval is (low, high) at 95 %, or None where there is none. Shares lie in [0, 1], times are ISO 8601 in UTC, ages
are hours.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Interval = tuple[float, float]


class Age(msgspec.Struct, frozen=True):
    """One point of the arrival curve: what share of labels is known this many hours after the prediction."""

    hours: float
    share: float


class Arrival(msgspec.Struct, frozen=True):
    """How labels arrive, and how many of this window's are there.

    known: share of the window's predictions whose label is known. expected: what is usual for predictions of their
        ages. final: the share that comes at all. curve: from history, labels that were not due yet taken into account.
    usual_hours: age by which 95 % of the labels that ever come are there, of every outcome by itself. ripe_at: when
        that is true of the whole window; ripe: whether it is so already. None where history does not say.
    of: how many predictions, and of when, the curve rests on.
    same_age: the window before as it stood when it was as young as this one; later: the same rows by now. Means of
        labels and of scores of the rows that were labelled, and how many; empty when this window is ripe.
    biased: the labels that come first are unlike the others: the difference between `same_age` and `later` is more
        than chance. one_sided: all labels so far say the same, and most predictions have none, so that nothing is known
        of when the others come.
    """

    known: float | None = None
    expected: float | None = None
    final: float | None = None
    curve: list[Age] = []
    usual_hours: float | None = None
    ripe_at: str | None = None
    ripe: bool | None = None
    of: str = ""
    same_age: dict[str, float] = {}
    later: dict[str, float] = {}
    biased: bool = False
    one_sided: bool = False
    note: str = ""


class CalibrationBin(msgspec.Struct, frozen=True):
    """Labelled rows whose score lies in (low, high]. interval: of `observed`."""

    low: float
    high: float
    rows: int
    mean_score: float
    observed: float
    interval: Interval | None = None


class Calibration(msgspec.Struct, frozen=True):
    """Whether scores can be taken at their word.

    gap: mean score minus mean label. error: the expected calibration error (binary and several classes).
    slope, intercept: of the logistic regression of the label on the logit of the score (binary, several classes), or
        of the label on the score (regression): 1 and 0 are right; a slope below 1 means that scores are too extreme.
    level: the intercept when the slope is 1: how many logits (or units) all scores should be raised by.
    unit: what intervals draw ("28 days"); few: they rest on few and are too narrow.
    """

    rows: int
    gap: float | None = None
    gap_interval: Interval | None = None
    error: float | None = None
    error_interval: Interval | None = None
    slope: float | None = None
    slope_interval: Interval | None = None
    intercept: float | None = None
    intercept_interval: Interval | None = None
    level: float | None = None
    bins: list[CalibrationBin] = []
    unit: str = ""
    few: bool = False
    note: str = ""


class Changed(msgspec.Struct, frozen=True):
    """How the answer to the same inputs changed in one part of the rows.

    before, after: mean of label minus score, in the reference (weighted to the inputs of now) and in the window.
    change: after - before, its interval, and the p-value that there is none. changed: beyond what is tolerated, and not
    by chance across all parts.
    """

    part: str
    rows: int
    before_rows: int
    before: float
    after: float
    change: float
    interval: Interval | None
    p_value: float | None
    changed: bool


class Concept(msgspec.Struct, frozen=True):
    """Whether the world answers differently, apart from whether other inputs come.

    verdict: "same", "changed" or "unknown". words: one sentence.
    inputs_moved: whether the labelled rows can be told from the reference by their inputs; auc: how well (0.5: not at
        all). weighted: the reference was weighted to the inputs of now; effective: what share of it that leaves.
    parts: all rows, and by score; slices: parts by input in which the answer changed, the worst first.
    against: what it was compared with. window: which was looked at in place of the report's own, whose labels are not
        there yet; empty: the report's own was.
    """

    verdict: Literal["same", "changed", "unknown"]
    words: str
    against: str = ""
    rows: int = 0
    before_rows: int = 0
    inputs_moved: bool | None = None
    auc: float | None = None
    weighted: bool = False
    effective: float | None = None
    tolerated: float | None = None
    parts: list[Changed] = []
    slices: list[Changed] = []
    unit: str = ""
    note: str = ""
    window: str = ""


class Differing(msgspec.Struct, frozen=True):
    """A feature that was not online what it is offline. share: of the predictions that were joined again.

    kinds: how many of each kind: "missing online", "materialized late", "different value".
    """

    feature: str
    share: float
    kinds: dict[str, int]


class Skew(msgspec.Struct, frozen=True):
    """Whether what the model was given is what the offline join says, bit by bit, of a sample of a window.

    as_of: when they were joined again. predictions: of the window; rows: of them joined again; mismatched: of these
    with a feature that differs. low: the least share of mismatches that chance leaves possible (99.9 %, Wilson).
    features: those that differ, the worst first. note: what was not joined again, and why.
    """

    as_of: str
    window: str
    predictions: int = 0
    rows: int = 0
    mismatched: int = 0
    low: float = 0.0
    features: list[Differing] = []
    note: str = ""

    @property
    def words(self) -> str:
        """What was found, in one sentence without an end."""
        if not self.rows:
            return f"no prediction was joined again: {self.note}"
        whole = f"{self.rows:,} of {self.predictions:,} predictions" if self.rows < self.predictions else "predictions"
        if not self.mismatched:
            return f"{whole} were joined again, and every feature was online what it is offline"
        worst = self.features[0]
        kind = max(worst.kinds, key=worst.kinds.__getitem__)
        others = f", and {len(self.features) - 1:,} more" if len(self.features) > 1 else ""
        share = f"{self.mismatched / self.rows:.1%}"
        return f"of {whole} that were joined again {share} had other features online ('{worst.feature}' {kind}{others})"


class SliceFigure(msgspec.Struct, frozen=True):
    """One slice of the labelled rows.

    where: column and value, one or two of them. loss: mean loss of its rows, interval, and of all the other rows;
    shrunk: how much worse it is than the others, drawn towards nothing the less the fewer rows say it (empirical
    Bayes); mean_score, observed: what was said and what happened in it. p_value: that it is no worse.
    off: what happened in it is not what was said, beyond chance: a fault of the model. Else its rows are only harder
    to tell, as they may be for any model.
    """

    where: dict[str, str]
    rows: int
    loss: float
    interval: Interval | None
    others: float
    shrunk: float
    p_value: float
    mean_score: float | None
    observed: float
    off: bool = False


class Slices(msgspec.Struct, frozen=True):
    """Where the model is worst. loss: what is compared. looked_at: slices of enough rows; worst: those that are
    worse than the other rows beyond chance, across all that were looked at: first those that are off, then those that
    are only harder, the worst first of both."""

    loss: str
    looked_at: int = 0
    least_rows: int = 0
    columns: int = 0
    worst: list[SliceFigure] = []
    unit: str = ""
    note: str = ""

    def off_words(self, *, share: bool) -> str:
        """The worst slice that is off its level, in one sentence; empty where none is. share: levels are shares."""
        first = next((one for one in self.worst if one.off), None)
        if first is None:
            return ""
        said, happened = (
            "" if value is None else f"{value * 100:.3g} %" if share else f"{value:.3g}"
            for value in (first.mean_score, first.observed)
        )
        where = " and ".join(f"{column} {value}" for column, value in first.where.items())
        told = f"{said} was said and {happened} happened" if said else f"{happened} happened"
        return f"the slice that is most off its level: {where}, where {told}, in {first.rows:,} rows"


class Estimate(msgspec.Struct, frozen=True):
    """What the metrics will be, estimated without labels.

    metrics, intervals: None where they are undefined. tested: the same metrics of the rows that it was calibrated on.
    blind: what the estimate cannot see; it stands beside every one.
    calibrated_on: which rows, and how many. auc: how well the window's inputs can be told from theirs; weighted:
    whether they were weighted to the window's inputs; effective: what share of them that leaves.
    realised: the same metrics of the labelled rows, and share: of how many of all rows.
    note: why there is none, or what to know.
    """

    metrics: dict[str, float | None] = {}
    intervals: dict[str, Interval | None] = {}
    tested: dict[str, float | None] = {}
    blind: str = ""
    calibrated_on: str = ""
    rows: int = 0
    auc: float | None = None
    weighted: bool = False
    effective: float | None = None
    note: str = ""


class Business(msgspec.Struct, frozen=True):
    """A number of the business, of the window's requests. mean: of the requests that have one (or, where it was said
    what one without counts as, of all); total: their sum. interval: of the mean."""

    name: str
    better: Literal["higher", "lower"]
    rows: int
    mean: float | None
    total: float | None
    interval: Interval | None = None
    unit: str = ""
    without: int = 0
    note: str = ""


METHODS = {
    "rescoring": "each put back to where it was, and scored again",
    "association": "drift times association with the score: no model at hand",
}
"""How a part of the movement was found, in words."""


class Part(msgspec.Struct, frozen=True):
    """By how much an input moved the mean prediction; `name` is empty for the others that moved, together."""

    name: str
    moved: float


class Attribution(msgspec.Struct, frozen=True):
    """moved: the mean prediction of the window minus that of the reference; None when the reference has no scores.

    parts: of the inputs that moved, the largest first. rest: what they do not explain: other inputs, how they go
    together, the model itself; None where the parts may overlap (association). rows: looked at. note: what to know, or
    why there is no part.
    """

    moved: float | None
    parts: list[Part]
    rest: float | None
    method: Literal["rescoring", "association", ""]
    rows: int
    note: str = ""

    @property
    def words(self) -> str:
        """One line for people; empty when there is nothing to tell."""
        if not self.parts:
            return ""
        named = [f"{part.name or 'the others that moved'} {signed(part.moved)}" for part in self.parts]
        if self.rest is not None:
            named.append(f"the rest {signed(self.rest)}")
        total = (
            "the mean prediction moved" if self.moved is None else f"the mean prediction moved by {signed(self.moved)}"
        )
        return f"{total}, an estimate by input: {', '.join(named)} ({METHODS[self.method]})"


def signed(value: float) -> str:
    """A difference as people read it, with its sign."""
    return f"{value:+.2g}" if abs(value) < 0.1 else f"{value:+.3g}"
