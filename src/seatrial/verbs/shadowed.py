"""Shadowed: champion and challenger on the same live requests, while one answers and the other scores in its shadow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from seatrial.core.windows import Window, duration_us

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.releases.bundle import Bundle
    from seatrial.retraining.proposal import Proposal
    from seatrial.training.model import Model
    from seatrial.verbs.challenging import Challenging


class Both(NamedTuple):
    """What two releases said of the same rows. labels: (n,), NaN where none is known yet; an index of `classes`.

    champion, challenger: (n,) or (n, C) scores, NaN where a row has none. inputs: what slices are cut by.
    ripe_after_us: how long a day's labels are waited for, as those came that there were, from `judge_for` before on.
    """

    start_us: int
    at_us: NDArray[np.int64]
    labels: NDArray[np.float64]
    champion: NDArray[np.float64]
    challenger: NDArray[np.float64]
    inputs: pa.Table
    ripe_after_us: int


def shadowed(project: Challenging, model: Model, proposal: Proposal, bundles: tuple[Bundle, Bundle]) -> Both | None:
    """What both said of the requests since the challenger is the champion's shadow; None when it is not.

    Rows are what was served, with the features of that moment. Slices by a column that is no input of the champion are
    not in the log, and not judged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from seatrial.deployment.deploy import live
    from seatrial.deployment.rollout import rollout_of
    from seatrial.retraining.paired import paired
    from seatrial.stores.prediction_log import SHADOW

    rollout = rollout_of(live(project.metadata, proposal.deployment))
    asked = ("shadow", proposal.champion, proposal.challenger)
    if rollout is None or (rollout.strategy, rollout.live, rollout.new) != asked:
        return None
    window = Window(rollout.since_us, max(project.now_us, rollout.since_us + 1))
    rows: list[pa.Table] = []
    for deployment, release in ((proposal.deployment, rollout.live), (proposal.deployment + SHADOW, rollout.new)):
        sample = project._sample(model, window, inputs=True, deployment=deployment)
        rows.append(sample.rows.filter(pc.fill_null(pc.equal(sample.rows["release"], release), False)))
    both = paired(*rows)
    mine, other = (table.take(pa.array(found)) for table, found in zip(rows, both, strict=True))
    classes = [bundle.manifest.signature.classes for bundle in bundles]
    if model.task == "multiclass":
        scores = [_of_classes(table, names) for table, names in zip((mine, other), classes, strict=True)]
        labels, champion, challenger = of_classes(mine["label_class"].to_pylist(), scores, classes)
    else:
        labels, champion, challenger = _floats(mine["label"]), _floats(mine["score"]), _floats(other["score"])
    inputs = mine.select([name for name in mine.column_names if name.startswith("feature_")])
    inputs = inputs.rename_columns([name.removeprefix("feature_") for name in inputs.column_names])
    at_us = mine["at"].cast(pa.int64()).to_numpy()
    ripe_after_us = ripe_since(project, model, proposal.deployment, rollout.since_us)
    return Both(rollout.since_us, at_us, labels, champion, challenger, inputs, ripe_after_us)


def ripe_since(project: Challenging, model: Model, deployment: str, since_us: int) -> int:
    """How long the labels of a rollout's predictions are waited for, as they came from `judge_for` before it on."""
    back_us = duration_us(project._retrain(model.name).judge_for)
    window = Window(max(since_us - back_us, 0), max(project.now_us, since_us + 1))
    rows = project._sample(model, window, deployment=deployment).rows
    happened = rows["label_class" if model.task == "multiclass" else "label"]
    return waited_for(model, rows["at"], rows["label_known_at"], happened, project.now_us)


def waited_for(
    model: Model, at: pa.ChunkedArray, known_at: pa.ChunkedArray, happened: pa.ChunkedArray, as_of_us: int
) -> int:
    """How long labels are waited for, from the delays of what happened: see `retraining.comparison.ripe_after`.

    at, known_at: (n,) times; happened: (n,), null where no label is known.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from seatrial.retraining.comparison import ripe_after

    instants = pa.timestamp("us", tz="UTC")
    there = pc.is_valid(at)
    at, known_at, happened = (column.filter(there) for column in (at, known_at, happened))
    told = pc.if_else(pc.is_valid(happened), known_at.cast(instants).cast(pa.int64()), None)
    outcome = None
    if model.task != "regression":
        encoded = pc.dictionary_encode(happened.combine_chunks(), null_encoding="encode")
        outcome = encoded.indices.to_numpy().astype(np.int64)
    return ripe_after(at.cast(instants).cast(pa.int64()).to_numpy(), _floats(told), as_of_us, outcome)


def of_classes(
    happened: Sequence[Any], scores: Sequence[NDArray[np.float64]], classes: Sequence[Sequence[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Labels, and the scores of champion and challenger, each by all classes that either knows or that happened."""
    import numpy as np

    from seatrial.core.signature import aligned, places

    known = sorted({*classes[0], *classes[1], *(one for one in happened if one is not None)})
    champion, challenger = (aligned(said, names, known) for said, names in zip(scores, classes, strict=True))
    return np.asarray(places(happened, known), dtype=np.float64), champion, challenger


def _of_classes(rows: pa.Table, classes: Sequence[str | int]) -> NDArray[np.float64]:
    """(n, C) probabilities in the order of the classes."""
    import numpy as np

    found = np.full((rows.num_rows, len(classes)), np.nan)
    for place, name in enumerate(classes):
        if f"probability_{name}" in rows.column_names:
            found[:, place] = _floats(rows[f"probability_{name}"])
    return found


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """(n,), NaN where there is none."""
    import numpy as np
    import pyarrow as pa

    found: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    return found
