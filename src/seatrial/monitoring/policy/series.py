"""Series: what is watched of a model, one number for each window of a fixed length.

    level       of an input that is a number, or of the score: the mean normal score, in standard deviations of the
                reference
    distance    how far the whole distribution lies from the reference (Kolmogorov-Smirnov, total variation)
    missing     the share of missing values
    unseen      the share of categories that the reference does not have
    error       the mean loss of the predictions whose label became known in the window: Brier's score, the share of
                wrong classes, the absolute error; as a share of the test part's
    estimated   what loss to expect of the predictions of the window, by their scores; as a share of the test part's

Windows begin at whole multiples of their length since 1970, in UTC. Rows count in the window of the instant that the
prediction is for, labels in the window in which they became known, so that a window that is over stays as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import Task
from seatrial.core.windows import DAY_US, Window
from seatrial.monitoring.looks.arrival import ONE_SIDED, USUAL, one_sided, outcomes_of
from seatrial.monitoring.looks.drift import PREDICTION
from seatrial.monitoring.policy.expected import ExpectedLoss, scores_of
from seatrial.monitoring.rows.reference import (
    TOLERATED,
    Categories,
    Column,
    Numbers,
    Reference,
    codes,
    floats,
    is_text,
    plain,
)
from seatrial.monitoring.rows.sample import FEATURE, Answers, Error, Places, Sample
from seatrial.stats.arrival import arrival_curve, slowest_age
from seatrial.stats.profile import LARGEST
from seatrial.stats.windowed import (
    chi_square_p_values,
    chi_square_scores,
    chi_squares,
    counted,
    kolmogorov_smirnov_distances,
    kolmogorov_smirnov_p_values,
    normal_scores,
    share_p_values,
    share_scores,
    total_variations,
)

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Kind = Literal["level", "distance", "missing", "unseen", "error", "estimated"]
KINDS: tuple[str, ...] = get_args(Kind)

TOLERANCE = 0.05
"""Standard deviations of the reference that a level or a share may be off for ever without a word."""
TOLERANCE_OF_SHARE = 0.02
TOLERATED_SHARE = 0.0025
"""Of shares: in standard deviations of one row, and at least so much of all rows."""
FAR_SHARE = 0.01
"""By how much a share has to be off before one window alone is an alarm."""
TOLERATED_LOSS = 0.10
"""The part of the test part's loss by which production may be worse without a word."""
SD_OF_KS = 2.5
"""Standard deviations by which a normal column moves for each unit of Kolmogorov-Smirnov: 1 / (2 phi(0))."""
SURE = 3.0
"""Standard errors of a small reference that are tolerated on top: its own mean is not known better."""
ALONE = 0.8
FEWEST = 30
"""Rows of a window below which its statistics are not judged."""
FEWEST_DISTANCE = 200
NO_REFERENCE = "no reference to compare with: neither inputs nor predictions are watched"
NO_ERROR = ", so the error is not watched"
ERRORS: dict[str, tuple[str, bool]] = {
    "binary": ("brier", False),
    "multiclass": ("accuracy", True),
    "regression": ("mae", False),
}
"""By task the metric of the test part whose rows' losses are watched, and whether it is one minus the loss."""


@dataclass(frozen=True)
class Series:
    """One number per window. column: an input, PREDICTION, or "" of a loss. usual: what it is in the reference;
    tolerated: how far from it counts as nothing, in the unit of its values."""

    kind: Kind
    column: str
    usual: float
    tolerated: float

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.column}" if self.column else self.kind

    @property
    def subject(self) -> str:
        """What an alarm is about: level and distance of one input are the same matter."""
        return self.column if self.kind in ("level", "distance") else self.key


@dataclass(frozen=True)
class Windows:
    """w windows of s series.

    starts, rows: (w,) instants in microseconds, and predictions. releases: (w,) what answered each nearly alone, or "".
    value: (w, s) in the unit of the series; NaN where there is too little. up, down: (w, s) how far it lies above and
    below what is tolerated, in standard deviations of chance; NaN where nobody looks in that direction.
    p_value: (w, s) of distances and shares, that a window alone is no different; NaN elsewhere. notes: what is not
    watched, and why.
    """

    every_us: int
    starts: Ints
    rows: Ints
    releases: tuple[str, ...]
    series: tuple[Series, ...]
    value: Floats
    up: Floats
    down: Floats
    p_value: Floats
    notes: tuple[str, ...] = ()

    @property
    def ends(self) -> Ints:
        ends: Ints = self.starts + self.every_us
        return ends

    def __len__(self) -> int:
        return int(self.starts.size)

    def part(self, first: int, end: int) -> Windows:
        """Those windows."""
        cut = slice(first, end)
        return Windows(
            self.every_us,
            self.starts[cut],
            self.rows[cut],
            self.releases[cut],
            self.series,
            self.value[cut],
            self.up[cut],
            self.down[cut],
            self.p_value[cut],
            self.notes,
        )


@dataclass
class Figures:
    """The numbers of one series, (w,) each, before they stand beside the others: see `Windows`."""

    series: Series
    value: Floats
    up: Floats
    down: Floats
    p_value: Floats


def span(every_us: int) -> float:
    """Windows that an average looks back: of 24 hours, and at least seven. After as many without a value sums and
    averages begin anew: what was before is no evidence of now."""
    return max(DAY_US / every_us, 7.0)


def whole_windows(window: Window, every_us: int) -> Ints:
    """The starts of the windows that lie in `window`, whole."""
    first = -(-window.start_us // every_us) * every_us
    return np.arange(first, window.end_us - every_us + 1, every_us, dtype=np.int64)


def windows_of(
    sample: Sample,
    window: Window,
    every_us: int,
    reference: Reference | None,
    tested: Mapping[str, float | None] | None = None,
    *,
    labelled: Sample | None = None,
    expected: ExpectedLoss | None = None,
) -> Windows:
    """Every whole window of `window`.

    sample: rows ordered by `at`. reference: without it only errors are watched. tested: metrics of the release's test
    part; without them errors are not watched. labelled: predictions back to where labels are still awaited, of which
    only scores and labels are looked at; default: `sample`. expected: without it no loss is estimated.
    """
    starts = whole_windows(window, every_us)
    if sample.answers is not None:
        return _asked(sample, starts, every_us, reference, dict(tested or {}), (labelled or sample).answers)
    inside = sample.rows.slice(0, 0)
    place = np.empty(0, dtype=np.int64)
    if starts.size:
        at_us = sample.at_us()
        first, end = np.searchsorted(at_us, [starts[0], starts[-1] + every_us]).tolist()
        inside = sample.rows.slice(first, end - first)
        place = (at_us[first:end] - starts[0]) // every_us
    rows = np.bincount(place, minlength=starts.size).astype(np.int64)
    found: list[Figures] = []
    notes: list[str] = []
    if reference is None:
        notes.append(NO_REFERENCE)
    else:
        for name, column in reference.columns.items():
            found += _input(
                name, _placed(name, sample.with_input(inside, name), place, starts.size, column), column, notes
            )
        found += _prediction(inside, place, starts.size, reference)
        notes += _new(sample, reference)
    of_labels = partial(_errors, labelled or sample, starts, every_us, notes=notes)
    found += _error(sample.task, of_labels, int(span(every_us)) - 1, dict(tested or {}), notes)
    if expected is not None:
        losses = expected.of(scores_of(replace(sample, rows=inside)))
        known = ~np.isnan(losses)
        error = error_of(losses[known], place[known], starts.size)
        found.append(of_estimate(error, expected.usual, expected.spread))
    return stacked(every_us, starts, rows, _releases(inside, place, starts.size), found, notes)


def _asked(
    sample: Sample,
    starts: Ints,
    every_us: int,
    reference: Reference | None,
    tested: Mapping[str, float | None],
    labelled: Answers | None,
) -> Windows:
    """`windows_of` rows that stay where they are: each series is counted there."""
    answers, first, count = sample.answers, int(starts[0]) if starts.size else 0, starts.size
    assert answers is not None
    rows, versions = answers.rows_by(first, every_us, count)
    found: list[Figures] = []
    notes: list[str] = []
    if reference is None:
        notes.append(NO_REFERENCE)
    else:
        for name, column in reference.columns.items():
            found += _input(name, answers.placed(name, column, first, every_us, count), column, notes)
        if reference.predicted is not None:
            placed = answers.placed("predicted", reference.predicted, first, every_us, count)
            found += of_categories(PREDICTION, placed.counts, reference.predicted) if placed else []
        elif reference.scores is not None and reference.scores.rows:
            placed = answers.placed("score", reference.scores, first, every_us, count)
            found += of_numbers(PREDICTION, placed.counts, reference.scores) if placed else []
        notes += _new(sample, reference)
    asked = labelled or answers
    found += _error(
        sample.task,
        lambda before: asked.errors_by(first - before * every_us, every_us, before + count),
        int(span(every_us)) - 1,
        tested,
        notes,
    )
    releases = []
    for total, one in zip(rows.tolist(), versions, strict=True):
        most = max(one, key=lambda name: one[name], default="")
        releases.append(most if total and one[most] >= ALONE * total else "")
    return stacked(every_us, starts, rows, tuple(releases), found, notes)


def _new(sample: Sample, reference: Reference) -> list[str]:
    new = sorted(set(sample.features) - set(reference.columns))
    return [f"not in the reference, so not watched: {', '.join(new)}"] if new else []


def stacked(
    every_us: int,
    starts: Ints,
    rows: Ints,
    releases: tuple[str, ...],
    found: Sequence[Figures],
    notes: Sequence[str] = (),
) -> Windows:
    """Series beside each other."""

    def beside(columns: list[Floats]) -> Floats:
        return np.column_stack(columns) if columns else np.empty((starts.size, 0))

    return Windows(
        every_us,
        starts,
        rows,
        releases,
        tuple(one.series for one in found),
        beside([one.value for one in found]),
        beside([one.up for one in found]),
        beside([one.down for one in found]),
        beside([one.p_value for one in found]),
        tuple(notes),
    )


def joined(parts: Sequence[Windows]) -> Windows:
    """Windows one after the other, of the same series."""
    first = parts[0]
    return Windows(
        first.every_us,
        np.concatenate([one.starts for one in parts]),
        np.concatenate([one.rows for one in parts]),
        tuple(release for one in parts for release in one.releases),
        first.series,
        np.concatenate([one.value for one in parts]),
        np.concatenate([one.up for one in parts]),
        np.concatenate([one.down for one in parts]),
        np.concatenate([one.p_value for one in parts]),
        tuple(dict.fromkeys(note for one in parts for note in one.notes)),
    )


def _releases(rows: pa.Table, place: Ints, windows: int) -> tuple[str, ...]:
    """What answered each window nearly alone; "" where nothing did."""
    import pyarrow.compute as pc

    if not rows.num_rows:
        return ("",) * windows
    named = pc.coalesce(pc.if_else(pc.equal(rows["release"], ""), None, rows["release"]), rows["version"], "")
    encoded = named.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    counts = counted(place, encoded.indices.to_numpy().astype(np.int64), windows, len(names))
    most, total = counts.argmax(axis=1), counts.sum(axis=1)
    alone = (total > 0) & (counts.max(axis=1) >= ALONE * total)
    return tuple(names[one] if sure else "" for one, sure in zip(most.tolist(), alone.tolist(), strict=True))


def _placed(name: str, rows: pa.Table, place: Ints, windows: int, reference: Column) -> Places | None:
    if f"{FEATURE}{name}" not in rows.column_names:
        return None
    column = plain(rows[f"{FEATURE}{name}"])
    text = is_text(column) if column.null_count < len(column) else None
    total = np.bincount(place, minlength=windows)
    if text is not None and text != isinstance(reference, Categories):
        return Places(text, np.empty((windows, 0), np.int64), total)
    if isinstance(reference, Categories):
        values = codes(column.cast("string"), reference.values).astype(np.int64)
        counts = counted(place[values >= 0], values[values >= 0], windows, len(reference.values) + 1)
        return Places(text, counts, total)
    return Places(text, _binned(floats(column), place, windows, reference), total)


def _input(name: str, placed: Places | None, reference: Column, notes: list[str]) -> list[Figures]:
    if placed is None:
        notes.append(f"input '{name}' is not in these rows, so not watched")
        return []
    if placed.text is not None and placed.text != isinstance(reference, Categories):
        kind = "text" if placed.text else "numbers"
        notes.append(f"input '{name}' is {kind} and was not in the reference: not watched")
        return []
    if not reference.rows:
        notes.append(f"the reference has no value of input '{name}', so only what is missing is watched")
    counts, total = placed.counts, placed.total
    present = counts.sum(axis=1)
    if isinstance(reference, Categories):
        found = of_categories(name, counts, reference) if reference.rows else []
        if reference.complete and reference.rows:
            found.append(of_share("unseen", name, counts[:, -1], present, 0.0, reference.rows, only_up=True))
    else:
        found = of_numbers(name, counts, reference) if reference.rows else []
    whole = reference.rows / (1 - reference.missing) if reference.missing < 1 else 0
    found.append(of_share("missing", name, total - present, total, reference.missing, whole))
    return found


def _prediction(rows: pa.Table, place: Ints, windows: int, reference: Reference) -> list[Figures]:
    if reference.predicted is not None and "predicted_class" in rows.column_names:
        values = codes(plain(rows["predicted_class"]).cast("string"), reference.predicted.values).astype(np.int64)
        known = values >= 0
        counts = counted(place[known], values[known], windows, len(reference.predicted.values) + 1)
        return of_categories(PREDICTION, counts, reference.predicted)
    if reference.scores is None or not reference.scores.rows:
        return []
    counts = _binned(floats(rows["score"]), place, windows, reference.scores)
    return of_numbers(PREDICTION, counts, reference.scores)


def _binned(numbers: Floats, place: Ints, windows: int, reference: Numbers) -> Ints:
    """(w, b) rows by window and bin of the reference; missing ones are not counted."""
    known = ~np.isnan(numbers)
    values = np.clip(numbers[known], -LARGEST, LARGEST)
    bins = np.searchsorted(reference.cuts, values, side="right")
    return counted(place[known], bins, windows, reference.counts.size)


def of_numbers(name: str, counts: Ints, reference: Numbers) -> list[Figures]:
    """Level and distance of a column of numbers. counts: (w, b) rows by window and bin of the reference."""
    present = counts.sum(axis=1)
    distance = kolmogorov_smirnov_distances(reference.counts, counts)
    found = [
        _distance(name, distance, present, reference, kolmogorov_smirnov_p_values(distance, reference.rows, present))
    ]
    scores = normal_scores(reference.counts)
    usual = float(reference.counts @ scores) / reference.rows
    spread = float(np.sqrt(reference.counts @ (scores - usual) ** 2 / reference.rows))
    if spread == 0:  # a constant: that another value comes is a matter of the distance
        return found
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (counts @ scores / present - usual) / spread
    tolerated = TOLERANCE if reference.tolerated <= TOLERATED else SD_OF_KS * reference.tolerated
    tolerated = max(tolerated, SURE / np.sqrt(reference.rows))
    root = np.sqrt(present)
    few = present < FEWEST
    up, down = (value - tolerated) * root, (-value - tolerated) * root
    series = Series("level", name, 0.0, tolerated)
    value, up, down = (np.where(few, np.nan, one) for one in (value, up, down))
    return [Figures(series, value, up, down, _nothing(value)), *found]


def of_categories(name: str, counts: Ints, reference: Categories) -> list[Figures]:
    """The distance of a category; that its shares are a little off for long is in `up`. counts: (w, v + 1) rows by
    window and value of the reference, the last column being all others."""
    whole, counts = reference.compared(counts)
    if whole.size < 2:
        return []
    present = counts.sum(axis=1)
    statistics, degrees = chi_squares(whole, counts)
    found = _distance(
        name, total_variations(whole, counts), present, reference, chi_square_p_values(statistics, degrees)
    )
    tolerated = TOLERANCE if reference.tolerated <= TOLERATED else SD_OF_KS * reference.tolerated
    tolerated = max(tolerated, SURE / np.sqrt(reference.rows))
    scores = chi_square_scores(
        statistics, degrees, present * reference.rows / (present + reference.rows) * tolerated**2
    )
    found.up = np.where(present < FEWEST, np.nan, scores)
    return [found]


def _distance(name: str, distance: Floats, present: Ints, reference: Column, p_values: Floats) -> Figures:
    few = present < FEWEST_DISTANCE
    series = Series("distance", name, 0.0, reference.tolerated)
    none = _nothing(distance)
    return Figures(series, np.where(few, np.nan, distance), none, none, np.where(present < FEWEST, np.nan, p_values))


def of_share(
    kind: Kind, name: str, hits: Ints, rows: Ints, usual: float, reference_rows: float, *, only_up: bool = False
) -> Figures:
    """How many of a window's rows something is true of. usual: of the reference's, which has so many rows."""
    spread = np.sqrt(usual * (1 - usual))
    tolerated = max(TOLERANCE_OF_SHARE * spread, TOLERATED_SHARE, SURE * spread / np.sqrt(max(reference_rows, 1.0)))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = hits / rows
    few = rows < FEWEST
    none = _nothing(value)
    high, low = usual + tolerated, usual - tolerated
    up = share_scores(hits, rows, high) if high < 1 else none
    down = -share_scores(hits, rows, low) if low > 0 and not only_up else none
    series = Series(kind, name, usual, tolerated)
    counted_in = max(reference_rows, 1.0)
    p_values = share_p_values(hits, rows, max(usual, 0.5 / counted_in), counted_in)
    value, up, down, p_values = (np.where(few, np.nan, one) for one in (value, up, down, p_values))
    return Figures(series, value, up, down, p_values)


def _error(
    task: Task, errors: Callable[[int], Error], before: int, tested: Mapping[str, float | None], notes: list[str]
) -> list[Figures]:
    """errors: of as many windows before the first as it is given, and of the windows."""
    metric, turned = ERRORS[task]
    figure = tested.get(metric)
    usual = None if figure is None else 1 - figure if turned else figure
    if usual is None or usual <= 0:
        notes.append(f"the test part has no {metric} to compare with{NO_ERROR}")
        return []
    return [of_error(errors(before), before, usual, shares=task != "regression")]


def _errors(sample: Sample, starts: Ints, every_us: int, before: int, *, notes: list[str]) -> Error:
    losses, known_us = _losses(sample)
    count = before + starts.size
    place = (known_us - (starts[0] if starts.size else 0)) // every_us + before
    inside = (place >= 0) & (place < count)
    begin_us = _all_outcomes_us(sample)
    if begin_us is None:
        notes.append(f"{ONE_SIDED}{NO_ERROR}")
    inside &= np.full(known_us.size, False) if begin_us is None else known_us >= begin_us
    return error_of(losses[inside], place[inside], count)


def _all_outcomes_us(sample: Sample) -> int | None:
    """From when on what becomes known is of every outcome: the age by which labels of the slowest are there after the
    first prediction. Before, one that is known early stands for all. None while only one is known, of few predictions.
    """
    import pyarrow as pa

    at_us = sample.at_us()
    known_us = sample.rows["label_known_at"].cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
    delays = np.where(np.isfinite(sample.label_values()), np.maximum(known_us - at_us, 0.0), np.nan)
    told = ~np.isnan(delays)
    if not told.any():
        return 0
    waited: Floats = known_us[told].max() - at_us.astype(np.float64)  # what came before says it where labels ceased
    outcomes = outcomes_of(sample)
    curve = arrival_curve(delays, np.maximum(waited, 0.0))
    usual = slowest_age(curve, delays, outcomes, USUAL) or 0.0
    if one_sided(told, outcomes, waited >= usual):
        return None
    return int(at_us[0] + usual) if usual else 0


def error_of(losses: Floats, place: Ints, windows: int) -> Error:
    """losses, place: (n,) the loss of a row, and the window it counts in."""
    rows = np.bincount(place, minlength=windows)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(place, weights=losses, minlength=windows) / rows
        square = np.bincount(place, weights=losses**2, minlength=windows) / rows
    return Error(rows, mean, square)


def of_error(found: Error, before: int, usual: float, *, shares: bool) -> Figures:
    """The mean loss of each window but the first `before`, which say no more than how far losses spread.

    shares: losses may be 0 and 1 alone, and are then counted as a share is: a window without an error says so much that
    none was expected, and one with nothing else is no surer than its rows make it.
    """
    series = Series("error", "", 1.0, TOLERATED_LOSS)
    own, whole = _spread(found), _spread(_together(found, before + 1))
    lately = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.full(before, np.nan), own]), before + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # windows without a row, all of them
        middle = np.nanmedian(lately, axis=1)  # which one label that is far off does not move
    figures = _of_loss(series, found, usual, np.maximum(own, np.where(middle > 0, middle, whole)))
    if shares:
        most = usual * (1 + TOLERATED_LOSS)
        hits = np.rint(np.nan_to_num(found.mean) * found.rows)
        counted_up = share_scores(hits, found.rows, most) if most < 1 else _nothing(figures.up)
        plain = (found.mean == found.square) & (found.rows >= FEWEST)
        figures.up = np.where(plain, counted_up, figures.up)
    return Figures(series, *(one[before:] for one in (figures.value, figures.up, figures.down, figures.p_value)))


def of_estimate(found: Error, usual: float, spread: float) -> Figures:
    """The mean expected loss of each window. spread: standard deviation of the expected losses of before."""
    return _of_loss(Series("estimated", "", 1.0, TOLERATED_LOSS), found, usual, np.maximum(_spread(found), spread))


def _of_loss(series: Series, found: Error, usual: float, spread: Floats) -> Figures:
    with np.errstate(invalid="ignore", divide="ignore"):
        value = found.mean / usual
        up = (found.mean - usual * (1 + TOLERATED_LOSS)) / spread * np.sqrt(found.rows)
    few = found.rows < FEWEST
    none = _nothing(value)
    return Figures(series, np.where(few, np.nan, value), np.where(few, np.nan, up), none, none)


def _spread(found: Error) -> Floats:
    """(w,) standard deviations of the losses of each window; NaN without any."""
    spread: Floats = np.sqrt(np.maximum(found.square - found.mean**2, 0.0))
    return spread


def _together(found: Error, windows: int) -> Error:
    """Each window with those before it, so many in all."""

    def last(values: Floats) -> Floats:
        total = np.concatenate([np.zeros(windows), np.cumsum(values)])
        found: Floats = total[windows:] - total[:-windows]
        return found

    rows = last(found.rows.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, square = (last(np.nan_to_num(one) * found.rows) / rows for one in (found.mean, found.square))
    return Error(rows.astype(np.int64), mean, square)


def _losses(sample: Sample) -> tuple[Floats, Ints]:
    """The loss of each row that has an answer and a label, and the instant from which on its label was known."""
    import pyarrow as pa

    labels, scores = sample.label_values(), sample.scores()
    if sample.task == "multiclass":
        losses = 1 - labels
    elif sample.task == "binary":
        losses = (labels - scores) ** 2
    else:
        losses = np.abs(labels - scores)
    known = np.isfinite(losses) & sample.rows["label_known_at"].is_valid().to_numpy()
    us = sample.rows["label_known_at"].cast(pa.int64()).fill_null(0).to_numpy()
    return losses[known], us[known]


def _nothing(like: Floats) -> Floats:
    return np.full(like.shape, np.nan)
