"""Concept drift: does the world answer the same inputs differently, apart from whether other inputs come?

What is compared is the mean of label minus score, in all rows and by the size of the score, between labelled
predictions of before (see `baseline`) and the labelled ones of the window. Where a domain classifier can tell the
inputs apart, those of before are weighted to the inputs of now (density ratio, see `stats.domain`), so that inputs
alone, moved to where the model was off all along, change nothing. A part has changed when its change is more than
tolerated and, across all parts, more than chance (Bonferroni at 0.01; for slices by input Benjamini-Hochberg at 0.001);
the variance is that of blocks of time, because rows of one day share its weather. Method: the two ways in which a joint
distribution moves, P(x) and P(y|x), as in Moreno-Torres et al. 2012, "A unifying view on dataset shift"; weights after
Shimodaira 2000, "Improving predictive inference under covariate shift".
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from seatrial.core.windows import DAY_US
from seatrial.monitoring.figures import Changed, Concept
from seatrial.monitoring.looks.calibration import blocks
from seatrial.monitoring.looks.shift import TOLD_APART, shift
from seatrial.monitoring.rows.baseline import Baseline, chosen, labelled
from seatrial.monitoring.rows.sample import FEATURE
from seatrial.stats.bootstrap import resample
from seatrial.stats.detectors import benjamini_hochberg
from seatrial.stats.parts import change, means

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.monitoring.rows.sample import Sample

FEWEST = 200
FEWEST_IN_PART = 100
"""Rows of now, and effective rows of before, below which a part is not looked at."""
SURE = 0.01
SURE_OF_SLICES = 0.001
TOLERATED = 0.02
"""Change of label minus score that counts as nothing; of a regression in standard deviations of the label."""
WIDE = 0.08
"""Half of the interval of the whole change (same unit) above which "the same" is more than the labels can say."""
LEAST_EFFECTIVE = 0.05
PARTS = 5
MOST_SLICES = 20
FEWEST_DAYS = 5

Floats = NDArray[np.float64]
Answer = Literal["same", "changed", "unknown"]


def concept(inside: Sample, base: Baseline | None, why: str, ripe: NDArray[np.bool_], *, seed: int = 0) -> Concept:
    """Whether the window's labels answer its inputs as before.

    base: what to compare with; None: there is nothing, and `why` says so. ripe: (n,) which rows of `inside` are old
    enough for labels to be there; the younger ones are left out, because the labels that come first may be unlike.
    """
    if inside.decided_only:
        return _unknown("the log does not say how sure the model was")
    now = _measured(chosen(inside, ripe))
    note = "" if ripe.all() else f"{int(np.count_nonzero(~ripe)):,} predictions are too young for their labels"
    if base is None:
        return _unknown(f"nothing to compare with: {why}", note)
    before = _measured(base.sample)
    for sample, name in ((now, "labels of now"), (before, "labels of before")):
        if sample.rows.num_rows < FEWEST:
            return _unknown(f"not enough data: {sample.rows.num_rows:,} of {FEWEST} {name}", note)
    found = shift(before, now, seed=seed)
    moved = None if found is None else found.moved(TOLD_APART)
    weights = np.ones(before.rows.num_rows)
    effective = None
    if found is not None and moved:
        effective, weights = found.effective, found.weights
        if effective < LEAST_EFFECTIVE:
            words = f"other inputs come than before: only {effective:.1%} of the labelled rows of before are like them"
            return Concept(
                "unknown",
                f"{words}, {LEAST_EFFECTIVE:.0%} are needed to compare answers",
                base.name,
                now.rows.num_rows,
                before.rows.num_rows,
                inputs_moved=True,
                auc=found.auc,
                weighted=False,
                effective=effective,
                note=note,
            )
    unit = float(before.label_values().std()) or 1.0 if inside.task == "regression" else 1.0
    compared = _Compared(now, before, weights, unit, base.timed, seed)
    parts, slices = compared.parts(), compared.slices()
    verdict, words = _words(parts, slices, moved, inside.task, unit)
    return Concept(
        verdict,
        words,
        base.name,
        now.rows.num_rows,
        before.rows.num_rows,
        inputs_moved=moved,
        auc=None if found is None else found.auc,
        weighted=bool(moved),
        effective=effective,
        tolerated=TOLERATED * unit,
        parts=parts,
        slices=slices,
        unit=compared.unit,
        note="; ".join(text for text in (note, _inputs_note(found is None)) if text),
    )


class _Compared:
    """The labelled rows of now and of before."""

    def __init__(self, now: Sample, before: Sample, weights: Floats, tolerance: float, timed: bool, seed: int) -> None:
        self.current, self.before, self.weights, self.scale = now, before, weights, tolerance
        self.rest = [sample.label_values() - sample.scores() for sample in (before, now)]
        self.cluster, self.unit = _blocks(now.at_us(), seed)
        self.old_cluster, _ = _blocks(before.at_us() if timed else None, seed, before.rows.num_rows)

    def parts(self) -> list[Changed]:
        """All rows, and parts by score."""
        scores = [self.before.scores(), self.current.scores()]
        steps = np.linspace(0, 1, PARTS + 1)[1:-1]
        edges = _round(np.unique(np.quantile(scores[1], steps)))
        names = _ranges("score", edges)
        place = [np.searchsorted(edges, values, side="right") for values in scores]
        found = self._changes(["all rows"], [np.zeros(values.size, np.intp) for values in scores])
        found += self._changes(names, place) if edges.size else []
        sure = SURE / max(len(found), 1)
        return [_flag(one, one.p_value is not None and one.p_value <= sure, TOLERATED * self.scale) for one in found]

    def slices(self) -> list[Changed]:
        """Parts by input in which the answer changed."""
        found: list[Changed] = []
        for name in self.current.features:
            if name in self.before.features:
                old, new = (sample.rows[FEATURE + name] for sample in (self.before, self.current))
                names, place = _coded(name, old, new)
                found += self._changes(names, place)
        p_values = np.array([np.nan if one.p_value is None else one.p_value for one in found], dtype=np.float64)
        sure = benjamini_hochberg(p_values, SURE_OF_SLICES)
        told = [_flag(one, bool(yes), TOLERATED * self.scale) for one, yes in zip(found, sure, strict=True)]
        return sorted((one for one in told if one.changed), key=lambda one: -abs(one.change))[:MOST_SLICES]

    def _changes(self, names: list[str], place: list[NDArray[np.intp]]) -> list[Changed]:
        old = means(self.rest[0], place[0], len(names), self.old_cluster, self.weights)
        new = means(self.rest[1], place[1], len(names), self.cluster)
        moved = change(old, new)
        mass, squares = (np.bincount(place[0], weights=self.weights**power, minlength=len(names)) for power in (1, 2))
        effective = np.divide(mass**2, squares, out=np.zeros_like(mass), where=squares > 0)
        return [
            Changed(
                name,
                int(new.rows[number]),
                int(old.rows[number]),
                float(old.mean[number]),
                float(new.mean[number]),
                float(moved.value[number]),
                moved.interval(number),
                float(moved.p_value[number]) if np.isfinite(moved.p_value[number]) else None,
                False,
            )
            for number, name in enumerate(names)
            if new.rows[number] >= FEWEST_IN_PART and effective[number] >= FEWEST_IN_PART
        ]


def _measured(sample: Sample) -> Sample:
    found = labelled(sample)
    return chosen(found, np.isfinite(found.scores()))


def _blocks(at_us: NDArray[np.int64] | None, seed: int, rows: int = 0) -> tuple[NDArray[np.intp], str]:
    """The block of each row and what a block is: days when there are five, else as intervals elsewhere."""
    if at_us is not None:
        days, place = np.unique((at_us - at_us.min()) // DAY_US, return_inverse=True)
        if days.size >= FEWEST_DAYS:
            return place.astype(np.intp), f"{days.size} days"
    drawn = resample(rows if at_us is None else at_us.size, seed=seed, at_us=at_us, replicates=1)
    return drawn.cluster, blocks(drawn)


def _flag(one: Changed, sure: bool, tolerated: float) -> Changed:
    import msgspec

    return msgspec.structs.replace(one, changed=sure and abs(one.change) > tolerated)


def _coded(name: str, old: pa.ChunkedArray, new: pa.ChunkedArray) -> tuple[list[str], list[NDArray[np.intp]]]:
    """Parts of one input and the part of each row of before and of now."""
    from seatrial.monitoring.looks.slices import named_codes

    first, second, names = named_codes(name, old, new)
    return names, [first, second]


def _words(
    parts: list[Changed], slices: list[Changed], moved: bool | None, task: str, unit: float
) -> tuple[Answer, str]:
    found = [one for one in parts if one.changed]
    if found or slices:
        worst = max(found, key=lambda one: abs(one.change)) if found else slices[0]
        start = "the inputs moved, and the same inputs" if moved else "the same inputs"
        too = " too" if moved else ""
        amount = f"{worst.change:+.2f}" if task != "regression" else f"{worst.change:+.3g}"
        where = "in all rows" if worst.part == "all rows" else f"at {worst.part}"
        return "changed", f"{start} are answered differently now{too} ({amount} {where})"
    whole = next((one for one in parts if one.part == "all rows"), None)
    if whole is None or whole.interval is None:
        return "unknown", "too few labels in a row of blocks of time to say whether the answers changed"
    low, high = whole.interval
    if (high - low) / 2 > WIDE * unit:
        return "unknown", (
            f"the labels cannot say whether the answers changed: by {low:+.2g} to {high:+.2g}, as far as they tell"
        )
    if moved is None:
        return "same", "the answers at the same scores did not change"
    if moved:
        return "same", "the inputs moved, the answer to them did not"
    return "same", "neither the inputs nor the answers to them changed"


def _inputs_note(nameless: bool) -> str:
    return "the inputs of before are not known, so rows are compared at equal scores only" if nameless else ""


def _round(edges: Floats) -> Floats:
    """To three significant digits, so that they can be read."""
    return np.unique(np.array([float(f"{edge:.3g}") for edge in edges]))


def _ranges(name: str, edges: Floats) -> list[str]:
    if not edges.size:
        return [f"any {name}"]
    told = [f"{edge:g}" for edge in edges]
    middle = [f"a {name} of {low} to {high}" for low, high in pairwise(told)]
    return [f"a {name} below {told[0]}", *middle, f"a {name} of {told[-1]} and more"]


def _unknown(words: str, note: str = "") -> Concept:
    return Concept("unknown", words, note=note)
