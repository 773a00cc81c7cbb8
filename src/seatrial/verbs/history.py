"""History: the past of a project's data, sent through a running service at its own pace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from seatrial.core.clock import iso
from seatrial.core.errors import UsageError
from seatrial.core.windows import Window
from seatrial.verbs.inputs import instant

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.core.signature import Class
    from seatrial.data.sources import Source
    from seatrial.features.materialize import Change
    from seatrial.features.plan import ViewPlan
    from seatrial.stores.online import Key, OnlineStore
    from seatrial.training.model import Model


class Feed:
    """The events of a window, pushed as they become known: every view at once, in one transaction."""

    def __init__(
        self, views: Sequence[ViewPlan], tables: Mapping[str, pa.Table], window: Window, online: OnlineStore
    ) -> None:
        from seatrial.features.materialize import Stream

        self.rows = 0
        self._online = online
        span = {"since_us": window.start_us, "until_us": window.end_us}
        self._streams = [Stream(view, tables[view.source.name], **span) for view in views if view.source]

    def up_to(self, at_us: int) -> None:
        """Push what became known by `at_us`."""
        from seatrial.features.materialize import take

        changes: list[tuple[Key, Change]] = []
        for stream in self._streams:
            rows, fresh = stream.up_to(at_us)
            self.rows += rows
            changes += fresh
        if changes:
            take(self._online, changes)


def in_window(rows: pa.Table, source: Source, window: Window) -> pa.Table:
    """The rows whose event time is in the window, in its order."""
    import pyarrow.compute as pc

    if source.event_timestamp is None:
        raise UsageError(f"label source '{source.name}' has no event_timestamp, so it has no history to replay.")
    at = rows[source.event_timestamp]
    inside = pc.and_(pc.greater_equal(at, instant(window.start_us)), pc.less(at, instant(window.end_us)))
    return rows.filter(inside).sort_by(source.event_timestamp)


def request_fields(rows: pa.Table, names: Sequence[str]) -> list[dict[str, Any]]:
    """The request fields of each row; decimals as floats, which is what a request's numbers are."""
    import pyarrow as pa

    rows = rows.select(names)
    for position, field in enumerate(rows.schema):
        if pa.types.is_decimal(field.type):
            rows = rows.set_column(position, field.name, rows[field.name].cast(pa.float64()))
    fields: list[dict[str, Any]] = rows.to_pylist()
    return fields


def times_us(rows: pa.Table, column: str | None) -> NDArray[np.int64]:
    import pyarrow as pa

    times: NDArray[np.int64] = rows[column].cast(pa.int64()).to_numpy()
    return times


def business_keys(rows: pa.Table, model: Model) -> list[str]:
    """A request id per row: the model's key in one text, or the row's place when it has no key."""
    if not model.key:
        return [f"{model.name}-{place}" for place in range(rows.num_rows)]
    columns = [rows[name].to_pylist() for name in model.key]
    return ["|".join(iso(v) if isinstance(v, datetime) else str(v) for v in key) for key in zip(*columns, strict=True)]


def labels_known(rows: pa.Table, by_us: int) -> NDArray[np.bool_]:
    """(n,) Whether each row's label was known by then; of every one where no row says when it was."""
    import numpy as np
    import pyarrow.compute as pc

    from seatrial.features.training_set import LABEL_KNOWN_AT

    if LABEL_KNOWN_AT not in rows.column_names:
        return np.ones(rows.num_rows, dtype=bool)
    known: NDArray[np.bool_] = pc.fill_null(pc.less_equal(rows[LABEL_KNOWN_AT], instant(by_us)), False).to_numpy()
    return known


def measured(
    model: Model,
    rows: pa.Table,
    scores: Sequence[Any] | NDArray[np.float64],
    classes: Sequence[Class] = (),
    *,
    threshold: float = 0.5,
) -> tuple[int, dict[str, float | None]]:
    """How many rows have a label, and the metrics of their scores.

    scores: (n,), or (n, C) in the order of `classes`. A label of another class counts as one that was given no
    probability. threshold: from which score on a decision was "positive".
    """
    import numpy as np
    import pyarrow as pa

    from seatrial.core.signature import places
    from seatrial.stats.metrics import measure

    if model.task == "multiclass":
        found = places(rows[model.target].to_pylist(), classes)
        told = ~np.isnan(found)
        if not told.any():
            return 0, {}
        table = np.asarray(scores, dtype=np.float64)
        table = np.column_stack([table, np.zeros(len(table))])
        return int(told.sum()), measure(model.task, found[told], table[told])
    labels = rows[model.target].cast(pa.float64()).to_numpy()
    known = ~np.isnan(labels)
    if not known.any():
        return 0, {}
    told = np.asarray(scores)[known]
    return int(known.sum()), measure(model.task, labels[known], told, threshold=threshold, quantile=model.quantile)


def by_class(model: Model, rows: pa.Table, answers: Sequence[Any]) -> tuple[Any, tuple[Class, ...]]:
    """Answered scores and classes as `measured` takes them; of a multiclass model the answers are probabilities by
    class, told as text."""
    import numpy as np

    if model.task != "multiclass":
        return answers, ()
    names = sorted({name for answer in answers for name in answer})
    table = np.array([[answer.get(name, 0.0) for name in names] for answer in answers], dtype=np.float64)
    whole = {str(value): value for value in rows[model.target].to_pylist() if value is not None}
    return table.reshape(len(answers), len(names)), tuple(whole.get(name, name) for name in names)
