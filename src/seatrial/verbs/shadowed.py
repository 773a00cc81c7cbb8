"""Shadowed: champion and challenger on the same live requests, while one answers and the other scores in its shadow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seatrial.core.windows import Window, duration_us

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.retraining.comparison import Comparison
    from seatrial.retraining.proposal import Proposal
    from seatrial.training.model import Model
    from seatrial.verbs.challenging import Challenging


def shadowed(project: Challenging, model: Model, proposal: Proposal) -> Comparison | None:
    """What the labels say of both on the requests since the challenger is the champion's shadow; None when it is not.

    Rows are what was served, with the features of that moment. Slices by a column that is no input of the champion are
    not in the log, and not judged.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from seatrial.core.signature import aligned, places
    from seatrial.deployment.deploy import live
    from seatrial.deployment.rollout import rollout_of
    from seatrial.retraining.comparison import compare
    from seatrial.retraining.paired import paired
    from seatrial.stores.prediction_log import SHADOW
    from seatrial.verbs.challenging import slices_of, threshold_of

    rollout = rollout_of(live(project.metadata, proposal.deployment))
    if rollout is None or (rollout.strategy, rollout.new) != ("shadow", proposal.challenger):
        return None
    retrain = project._retrain(model.name)
    window = Window(rollout.since_us, max(project.now_us, rollout.since_us + 1))
    rows: list[pa.Table] = []
    for deployment, release in ((proposal.deployment, rollout.live), (proposal.deployment + SHADOW, rollout.new)):
        sample = project._sample(model, window, inputs=True, deployment=deployment)
        rows.append(sample.rows.filter(pc.fill_null(pc.equal(sample.rows["release"], release), False)))
    both = paired(*rows)
    mine, other = (table.take(pa.array(found)) for table, found in zip(rows, both, strict=True))
    bundles = [project._bundle(project.record(id)) for id in (rollout.live, rollout.new)]
    if model.task == "multiclass":
        happened = mine["label_class"].to_pylist()
        known = [bundle.manifest.signature.classes for bundle in bundles]
        classes = sorted({*known[0], *known[1], *(one for one in happened if one is not None)})
        champion, challenger = (
            aligned(_of_classes(table, names), names, classes)
            for table, names in zip((mine, other), known, strict=True)
        )
        labels = places(happened, classes)
    else:
        labels, champion, challenger = _floats(mine["label"]), _floats(mine["score"]), _floats(other["score"])
    inputs = mine.select([name for name in mine.column_names if name.startswith("feature_")])
    inputs = inputs.rename_columns([name.removeprefix("feature_") for name in inputs.column_names])
    return compare(
        model=model.name,
        task=model.task,
        champion=rollout.live,
        challenger=rollout.new,
        at_us=mine["at"].cast(pa.int64()).to_numpy(),
        labels=np.asarray(labels, dtype=np.float64),
        champion_scores=champion,
        challenger_scores=challenger,
        start_us=rollout.since_us,
        as_of_us=project.now_us,
        min_days=retrain.min_days,
        judge_for_us=duration_us(retrain.judge_for),
        margins=retrain.margins,
        slices=slices_of(model, inputs) if retrain.margins else {},
        thresholds=(threshold_of(bundles[0]), threshold_of(bundles[1])),
        quantile=model.quantile,
        shadow="live",
    )


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
