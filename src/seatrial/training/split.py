"""Which rows are learned from, and which are held back to judge the fit?

By time, the last rows are the test part; a training row whose label became known only after the test part's first
instant is purged, because at that instant nobody could have learned from it. Rows of one instant are never torn
apart. Cross-validation folds the training part only, by the same rule: each fold learns from the past and is
tested on what came next. By group, rows of one group are in one part, and in one fold. Everything is a function of the
rows and the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import listed
from seatrial.core.signature import Task
from seatrial.training.model import Model
from seatrial.training.rows import Indices, OneClass, TooFewRows, TrainingRefused, TrainingRows

SplitKind = Literal["time", "stratified", "group", "random"]


class SplitImpossible(TrainingRefused):
    """The rows cannot be split in the way that the model asks for."""

    code = "training.split_impossible"


class ClassNotLearned(TrainingRefused):
    """A class of the target has rows in the test part only."""

    code = "training.class_not_learned"


@dataclass(frozen=True)
class Parts:
    """Indices into the training rows, ascending; no index is in two parts.

    purged: rows before the test part whose label was not known when it began.
    """

    train: Indices
    test: Indices
    purged: Indices


def split_kind(model: Model, rows: TrainingRows) -> SplitKind:
    """How this model's rows are split: as declared; else by time, by class, or at random."""
    if model.split.kind is not None:
        return model.split.kind
    if rows.at_us is not None:
        return "time"
    return "random" if model.task == "regression" else "stratified"


def split(model: Model, rows: TrainingRows) -> Parts:
    """The training and the test part.

    Raises SplitImpossible, TooFewRows or OneClass with what is missing.
    """
    kind = split_kind(model, rows)
    everything = np.arange(rows.size)
    if kind == "time":
        at_us, known_us = _times(model, rows)
        if at_us.min() == at_us.max():
            raise SplitImpossible(
                f"all {rows.size} rows of model '{model.name}' are of one instant, {iso(from_us(int(at_us[0])))}.",
                expected="A split by time needs an earlier and a later part.",
                next="Name the column of when a row happened as event_timestamp=, or choose Split('stratified') "
                "or Split('random').",
            )
        start = rows.size - round(rows.size * model.split.test_size)
        parts = _forward(at_us, known_us, everything, min(start, rows.size - 1), rows.size)
    else:
        if kind == "group":
            fold = _grouped_test(model, group_codes(model, rows))
        else:
            fold = _shuffled_folds(rows.labels, everything, kind, model.split.test_size, model.seed)
        parts = Parts(np.flatnonzero(fold != 0), np.flatnonzero(fold == 0), everything[:0])
    _check_parts(model.task, rows.labels, parts, "the test part")
    if model.task == "multiclass":
        _check_learned(model, rows, parts)
    return parts


def folds(model: Model, rows: TrainingRows, train: Indices) -> list[Parts]:
    """`model.cv_folds` splits of the training part, in order.

    By time, the training part is cut into folds + 1 blocks; fold i learns from the first i and is tested on the
    next. Otherwise every row is tested once, and by group with the rest of its group.
    Raises SplitImpossible, TooFewRows or OneClass with the fold that cannot be made.
    """
    kind = split_kind(model, rows)
    made: list[Parts] = []
    if kind == "time":
        at_us, known_us = _times(model, rows)
        bounds = [round(train.size * block / (model.cv_folds + 1)) for block in range(model.cv_folds + 2)]
        for start, end in pairwise(bounds[1:]):
            made.append(_forward(at_us, known_us, train, start, end))
    else:
        if kind == "group":
            fold = _grouped_folds(model, group_codes(model, rows)[train])
        else:
            fold = _shuffled_folds(rows.labels, train, kind, 1 / model.cv_folds, model.seed)
        for number in range(model.cv_folds):
            made.append(Parts(train[fold != number], train[fold == number], train[:0]))
    for number, parts in enumerate(made, start=1):
        _check_parts(model.task, rows.labels, parts, f"fold {number} of {model.cv_folds}")
    return made


def summary(model: Model, rows: TrainingRows, parts: Parts) -> dict[str, Any]:
    """The split in plain values: how, counts, times and label means of both parts, rows left out and why."""
    plain: dict[str, Any] = {
        "kind": split_kind(model, rows),
        "rows": dict(rows.counts),
        "train": _part(rows, parts.train),
        "test": _part(rows, parts.test),
        "purged": int(parts.purged.size),
    }
    return plain


def _part(rows: TrainingRows, indices: Indices) -> dict[str, Any]:
    plain: dict[str, Any] = {"rows": int(indices.size)}
    if rows.classes:
        plain["classes"] = int(np.unique(rows.labels[indices]).size)
    else:
        plain["label_mean"] = float(rows.labels[indices].mean())
    if rows.at_us is not None:
        plain["first_at"] = iso(from_us(int(rows.at_us[indices].min())))
        plain["last_at"] = iso(from_us(int(rows.at_us[indices].max())))
    return plain


def _times(model: Model, rows: TrainingRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if rows.at_us is None or rows.known_us is None:
        raise SplitImpossible(
            f"model '{model.name}' asks for a split by time, but its labels have none.",
            expected="Give the label source event_timestamp=, or choose Split('stratified') or Split('random').",
        )
    return rows.at_us, rows.known_us


def _forward(at_us: NDArray[np.int64], known_us: NDArray[np.int64], order: Indices, start: int, end: int) -> Parts:
    """Test on order[start:end], learn from what was known before it; both borders move back to whole instants.

    order: indices ascending in time.
    """
    at = at_us[order]
    start = int(np.searchsorted(at, at[start], side="left"))
    if end < order.size:
        end = int(np.searchsorted(at, at[end], side="left"))
    before = order[:start]
    known = known_us[before] <= at[start]
    return Parts(before[known], order[start:end], before[~known])


def group_codes(model: Model, rows: TrainingRows) -> NDArray[np.int64]:
    """Of each row the number of its group, for a split by group. Raises SplitImpossible for a row without one."""
    name = model.split.by
    if name is None or name not in rows.table.column_names:
        raise SplitImpossible(
            f"model '{model.name}' is split by '{name}', which its training set does not have.",
            expected=f"It has {listed(rows.table.column_names)}.",
        )
    column = rows.table.column(name).combine_chunks()
    if column.null_count:
        raise SplitImpossible(
            f"'{name}', which the rows are grouped by, is null in {column.null_count} of {len(column)} rows.",
            expected="A row without a group could be in either part.",
            next="Fill the column in the label source, or set such rows aside.",
        )
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    if pa.types.is_nested(plain.type):
        raise SplitImpossible(
            f"'{name}', which the rows are grouped by, is {plain.type}.",
            expected="A group is a number, a text or a time.",
            next="Group by a part of it: make that a column of the label source.",
        )
    codes: NDArray[np.int64] = pc.rank(plain, tiebreaker="dense").to_numpy().astype(np.int64)
    return codes


def _grouped_test(model: Model, groups: NDArray[np.int64]) -> NDArray[np.intp]:
    """0 for rows of the test part: whole groups in shuffled order, each that still fits into its share of the rows."""
    found, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    _require_groups(model, found.size, 2)
    room = max(round(model.split.test_size * groups.size), int(sizes.min()))
    number = np.ones(found.size, dtype=np.intp)
    for group in np.random.default_rng(model.seed).permutation(found.size):
        if sizes[group] <= room:
            number[group] = 0
            room -= sizes[group]
    return number[place]


def _grouped_folds(model: Model, groups: NDArray[np.int64]) -> NDArray[np.intp]:
    """The fold of each row: shuffled groups, the largest first, each dealt to the fold that has fewest rows so far."""
    found, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    _require_groups(model, found.size, model.cv_folds)
    order = np.random.default_rng(model.seed).permutation(found.size)
    filled = np.zeros(model.cv_folds, dtype=np.intp)
    number = np.empty(found.size, dtype=np.intp)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        number[group] = int(np.argmin(filled))
        filled[number[group]] += sizes[group]
    return number[place]


def _require_groups(model: Model, found: int, parts: int) -> None:
    if found < parts:
        raise SplitImpossible(
            f"model '{model.name}' is split by '{model.split.by}', of which {found} values are there to deal into "
            f"{parts} parts.",
            expected="No value may be in two parts, so there must be at least as many values as parts.",
            next="Choose fewer cv_folds, or another column.",
        )


def _shuffled_folds(
    labels: NDArray[np.float64], indices: Indices, kind: SplitKind, share: float, seed: int
) -> NDArray[np.intp]:
    """For each index the number of its fold, every fold holding `share` of the rows (of each class, if stratified)."""
    random = np.random.default_rng(seed)
    fold = np.empty(indices.size, dtype=np.intp)
    classes = labels[indices] if kind == "stratified" else np.zeros(indices.size)
    for value in np.unique(classes):
        members = random.permutation(np.flatnonzero(classes == value))
        positions = np.arange(members.size)
        fold[members] = np.floor(positions / max(members.size * share, 1) + 1e-9).astype(np.intp)
    return fold


_ADVICE = (
    "Rows whose label became known only after the next part begins are purged: labels that come late need rows over a "
    "longer time, or fewer cv_folds (0 turns cross-validation off). See docs/training.md."
)


_FEW = "It takes more rows of the rarest class, or fewer cv_folds (0 turns cross-validation off). See docs/training.md."


def _check_parts(task: Task, labels: NDArray[np.float64], parts: Parts, where: str) -> None:
    purged = f" ({parts.purged.size} rows were purged)" if parts.purged.size else ""
    advice = _ADVICE if parts.purged.size else _FEW
    for name, indices in (("training", parts.train), ("test", parts.test)):
        if indices.size < 2:
            raise TooFewRows(
                f"{where} leaves {indices.size} {name} rows{purged}.",
                expected="At least 2 are needed.",
                next=advice,
            )
        found = labels[indices]
        if task == "binary" and found.min() == found.max():
            raise OneClass(
                f"{where} leaves {indices.size} {name} rows that are all {found[0]:g}{purged}.",
                expected="Both classes are needed in training and test.",
                next=advice,
            )
        if task == "multiclass" and found.min() == found.max():
            raise OneClass(
                f"{where} leaves {indices.size} {name} rows that are all of one class{purged}.",
                expected="At least two classes are needed in training and test.",
                next=advice,
            )


def _check_learned(model: Model, rows: TrainingRows, parts: Parts) -> None:
    """Refuse a class that the test part has and the training part does not: nothing could be learned of it."""
    missing = np.setdiff1d(np.arange(len(rows.classes)), rows.labels[parts.train]).astype(int)
    if missing.size:
        names = [str(rows.classes[place]) for place in missing]
        tested = int(np.isin(rows.labels[parts.test], missing).sum())
        raise ClassNotLearned(
            f"the training part of model '{model.name}' has no row of {missing.size} of {len(rows.classes)} classes: "
            f"{listed(names)}; the test part has {tested} of them, {parts.purged.size} rows were purged.",
            expected="Every class needs rows that can be learned from.",
            next="Wait until there are older rows of it, leave its target null, put it together with another class, or "
            "give the model Split('stratified').",
            classes=names,
        )
