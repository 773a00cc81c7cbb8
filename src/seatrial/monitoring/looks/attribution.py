"""Attribution: which inputs that moved have moved the predictions, and by how much?

Two ways, and a report says which it took. With the model at hand an input is put back: its values are replaced, rank by
rank, by those that the reference has at the same ranks (categories: as few rows as possible become another one), and
the rows are scored again. Ranks stay, so that inputs that go together still do. What inputs share of an effect is split
evenly, by Shapley values over which of them are put back (Budhathoki, Janzing, Bloebaum and Ng, "Why did the
distribution change?", AISTATS 2021, with the inputs as mechanisms).

Without the model the rows are weighted until one input is spread as in the reference, and the mean score before and
after is compared: drift times association. Inputs that go together are then each given what they share, and what goes
with an input need not come from it.

Both are estimates: from a sample of rows, and as if the other inputs stayed as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import SeatrialError
from seatrial.monitoring.figures import Attribution, Part

if TYPE_CHECKING:
    from seatrial.monitoring.report import Drift
    from seatrial.monitoring.rows.reference import Categories, Column, Numbers, Reference
    from seatrial.monitoring.rows.sample import Sample
    from seatrial.releases.bundle import Bundle

MOST_INPUTS = 6
"""Inputs that are told one by one; the others that moved count as one."""
MOST_ROWS = 1_000
FEWEST_ROWS = 200
LEAST_COVERED = 0.8
"""Share of the reference whose values the window has any of, below which weights cannot put an input back."""
SEED = 7

Values = Mapping[str, NDArray[Any]]
Score = Callable[[Values], NDArray[np.float64]]
"""Scores of rows: inputs by name, float64 with NaN, or objects (str or None)."""


def attribution(
    sample: Sample, found: Drift, reference: Reference | None, score: Score | None = None
) -> Attribution | None:
    """What moved the predictions of `sample`; None when no input has moved, or when there is nothing to compare with.

    score: the model that answered; without it, or where it cannot read the rows, by association.
    """
    moved = [one for one in found.columns if one.drifted]
    if reference is None or not moved:
        return None
    total = None
    before = reference.scores.mean if reference.scores is not None else None
    if sample.task == "multiclass":
        return Attribution(
            None, [], None, "", 0, "of several classes nothing is attributed: there is no one prediction"
        )
    scores = sample.scores()
    scores = scores[np.isfinite(scores)]
    if before is not None and scores.size:
        total = float(scores.mean()) - before
    near = sample.few()
    names = [one.name for one in moved if f"feature_{one.name}" in near.rows.column_names]
    if not names or near.rows.num_rows < FEWEST_ROWS:
        note = "the rows stay where they are" if not names else f"not enough data: {near.rows.num_rows} rows"
        return Attribution(total, [], None, "", near.rows.num_rows, note)
    rows = _rows(near)
    note = ""
    if score is not None:
        try:
            return _rescored(rows, names, reference, score, total)
        except SeatrialError as error:
            note = f"the model could not score the rows again: {error.found}"
        except KeyError as error:
            note = f"the model reads {error}, which was not logged"
    return _associated(rows, names, reference, total, note)


def scorer(bundle: Bundle) -> Score:
    """The model of a release, over rows of its log. A column that was scored before is not encoded again."""
    import msgspec

    from seatrial.core.signature import columns_of, encode, rows_of

    signature = bundle.manifest.signature
    opened: list[Any] = []
    encoded: dict[tuple[str, int], tuple[NDArray[Any], NDArray[Any]]] = {}

    def column(name: str, values: NDArray[Any]) -> NDArray[Any]:
        if (name, id(values)) not in encoded:
            alone = msgspec.structs.replace(signature, inputs=(name,))
            inputs, _ = encode(alone, {name: values})
            encoded[name, id(values)] = values, columns_of(alone, inputs)[name]
        return encoded[name, id(values)][1]

    def score(rows: Values) -> NDArray[np.float64]:
        if not opened:
            opened.append(bundle.runtime())
        inputs = rows_of(signature, {name: column(name, rows[name]) for name in signature.inputs})
        found: NDArray[np.float64] = opened[0].score(inputs)
        return found

    return score


def _rows(sample: Sample) -> dict[str, NDArray[Any]]:
    """Inputs and `` (the score) of evenly spread rows that have one."""
    from seatrial.monitoring.rows.reference import values_of
    from seatrial.monitoring.rows.sample import FEATURE

    valid = np.flatnonzero(np.isfinite(sample.scores()))
    table = sample.rows.take(valid[:: max(1, -(-valid.size // MOST_ROWS))])
    found = {name: values_of(table[FEATURE + name]) for name in sample.features}
    return found | {"": values_of(table["score"])}


# With the model


def _rescored(
    rows: dict[str, NDArray[Any]], names: Sequence[str], reference: Reference, score: Score, total: float | None
) -> Attribution:
    random = np.random.default_rng(SEED)
    back = {name: put_back(rows[name], reference.columns[name], random) for name in names}
    players: list[tuple[str, ...]] = [(name,) for name in names[:MOST_INPUTS]]
    players += [tuple(names[MOST_INPUTS:])] if len(names) > MOST_INPUTS else []

    def mean(chosen: frozenset[int]) -> float:
        replaced = {name: back[name] for place in chosen for name in players[place]}
        return float(score(rows | replaced).mean())

    every = range(len(players))
    values = {
        frozenset(chosen): mean(frozenset(chosen))
        for size in range(len(players) + 1)
        for chosen in combinations(every, size)
    }
    parts = []
    for place, player in enumerate(players):
        effect = 0.0
        for chosen, value in values.items():
            if place not in chosen:
                size = len(chosen)
                weight = factorial(size) * factorial(len(players) - size - 1) / factorial(len(players))
                effect += weight * (value - values[chosen | {place}])
        parts.append(Part(player[0] if len(player) == 1 else "", effect))
    parts.sort(key=lambda part: -abs(part.moved))
    rest = None if total is None else total - sum(part.moved for part in parts)
    return Attribution(total, parts, rest, "rescoring", rows[""].size)


def put_back(values: NDArray[Any], reference: Column, random: np.random.Generator) -> NDArray[Any]:
    """`values` spread as in the reference, with their ranks (numbers), or with as few changed as can be (categories).

    Rows that are equal, and those that become or cease to be missing, are drawn.
    """
    from seatrial.monitoring.rows.reference import Categories

    if isinstance(reference, Categories):
        return _categories_back(values, reference, random)
    return _numbers_back(values, reference, random)


def _numbers_back(values: NDArray[np.float64], reference: Numbers, random: np.random.Generator) -> NDArray[np.float64]:
    missing = np.isnan(values)
    wanted = round(reference.missing * values.size)
    found = np.full(values.size, np.nan)
    present = np.flatnonzero(~missing)
    order = np.lexsort((random.random(present.size), values[present]))
    share = np.empty(present.size)
    share[order] = (np.arange(present.size) + 0.5) / max(present.size, 1)
    found[present] = quantiles(reference, share)
    dark = np.flatnonzero(missing)
    if wanted < dark.size:
        filled = random.choice(dark, dark.size - wanted, replace=False)
        found[filled] = quantiles(reference, random.random(filled.size))
    elif wanted > dark.size:
        found[random.choice(present, min(wanted - dark.size, present.size), replace=False)] = np.nan
    whole = values[present]
    return np.round(found) if whole.size and bool((whole == np.round(whole)).all()) else found


def quantiles(reference: Numbers, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The reference's values below which these shares of it lie, evenly between its cuts."""
    below = np.concatenate([[0.0], np.cumsum(reference.counts[1:-1]) / max(reference.rows, 1)])
    found: NDArray[np.float64] = np.interp(shares, below, reference.cuts)
    return found


def _categories_back(values: NDArray[Any], reference: Categories, random: np.random.Generator) -> NDArray[Any]:
    known: list[str | None] = [*reference.values, None]
    present = max(sum(reference.values.values()), 1)
    shares = [count / present * (1 - reference.missing) for count in reference.values.values()] + [reference.missing]
    exact = np.array(shares) * values.size
    wanted = np.floor(exact).astype(int)
    for place in np.argsort(wanted - exact)[: values.size - int(wanted.sum())]:
        wanted[place] += 1
    found = values.copy()
    free: list[int] = []
    lacking: list[str | None] = []
    for value, count in zip(known, wanted.tolist(), strict=True):
        have = np.flatnonzero(np.array([one is None for one in values]) if value is None else values == value)
        if have.size > count:
            free += random.choice(have, have.size - count, replace=False).tolist()
        lacking += [value] * (count - have.size)
    of_known = set(known)
    free += [place for place, value in enumerate(values) if value not in of_known]
    for place, value in zip(random.permutation(free).tolist(), lacking, strict=True):
        found[int(place)] = value
    return found


# Without it


def _associated(
    rows: dict[str, NDArray[Any]], names: Sequence[str], reference: Reference, total: float | None, note: str
) -> Attribution:
    parts, uncovered = [], []
    for name in names[: MOST_INPUTS * 2]:
        effect = _weighted(rows[name], rows[""], reference.columns[name])
        if effect is None:
            uncovered.append(name)
        else:
            parts.append(Part(name, effect))
    parts.sort(key=lambda part: -abs(part.moved))
    notes = [note] if note else []
    notes.append("inputs that go together are each given what they share")
    if uncovered:
        notes.append(f"the window has too few of the values of before: {', '.join(uncovered[:10])}")
    return Attribution(total, parts[:MOST_INPUTS], None, "association", rows[""].size, "; ".join(notes))


def _weighted(values: NDArray[Any], scores: NDArray[np.float64], reference: Column) -> float | None:
    """The mean score minus that of the rows weighted to the reference's bins; None when these lack too much of it."""
    from seatrial.monitoring.rows.reference import Categories
    from seatrial.stats.profile import codes_of

    if isinstance(reference, Categories):
        places = codes_of(values, reference.values).astype(np.intp)
        places[places < 0] = len(reference.values) + 1
        shares = np.array([*reference.values.values(), reference.other], dtype=np.float64)
    else:
        edges = np.unique(quantiles(reference, np.linspace(0.1, 0.9, 9)))
        places = np.where(np.isnan(values), edges.size + 1, np.searchsorted(edges, values, side="right"))
        below = np.concatenate([[0.0], np.cumsum(reference.counts[1:-1]).astype(np.float64)])
        shares = np.diff(np.concatenate([[0.0], np.interp(edges, reference.cuts, below), below[-1:]]))
    shares = np.append(shares / max(shares.sum(), 1) * (1 - reference.missing), reference.missing)
    rows = np.bincount(places, minlength=shares.size)
    sums = np.bincount(places, weights=scores, minlength=shares.size)
    there = rows > 0
    covered = float(shares[there].sum())
    if covered < LEAST_COVERED:
        return None
    return float(scores.mean() - (shares[there] * sums[there] / rows[there]).sum() / covered)
