"""A batch's rows in the prediction log, each once, however often the batch is begun.

A row's prediction_id is made from its part and its place, so the same row of the same file, scored by the same release,
has the same id. Rows of a part are logged in order, and only those that the log lacks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seatrial.core.clock import machine_us
from seatrial.core.identity import digest
from seatrial.serving.batch.files import Part
from seatrial.serving.batch.rows import Answers, Needs, Places
from seatrial.serving.batch.table import ARM, CHUNK
from seatrial.serving.scoring.personal import hashed, masked
from seatrial.serving.scoring.stored import key_texts
from seatrial.stores.objects import ObjectStore
from seatrial.stores.personal_key import read_personal_key
from seatrial.stores.prediction_log import OF_CLASS, LoggedPrediction, PredictionLog, log_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.releases.bundle import Bundle

ROW = 8  # hex digits of an id that say which row of its part it is


class PartLog:
    """Logs parts. about: `deployment`, `caller`, `key` (the model's), `at_us` of rows without an instant; `objects` and
    `keys`, the folders of the object store and of the key for personal columns."""

    def __init__(self, bundle: Bundle, root: Path, about: Mapping[str, Any]) -> None:
        self._key = read_personal_key(Path(about["keys"]), os.environ)
        self._log = PredictionLog(root, objects=ObjectStore(Path(about["objects"])), personal_key=lambda: self._key)
        self._about = about
        self._counts: dict[str, int] | None = None
        manifest = bundle.manifest
        self._signature = signature = manifest.signature
        personal = signature.personal
        self._mask = mask = masked(personal, self._log, signature, signature.request) if personal else None
        logged = mask or signature
        self._schema = log_schema(
            model=manifest.model,
            version=str(manifest.version),
            release=bundle.id,
            deployment=about["deployment"],
            inputs=logged.inputs,
            categories=logged.categories,
            fields=mask.fields if mask else [(field.name, field.dtype) for field in signature.request],
            classes=signature.classes,
        )

    def __call__(self, part: Part, rows: pa.Table, needs: Needs, answers: Answers, good: Places) -> dict[str, pa.Array]:
        """Log the rows that have an answer; their ids."""
        import pyarrow as pa

        ids = prediction_ids(part.same, good)
        rows = rows.take(pa.array(answers.places))
        known = self._known(prediction_ids(part.same, good[:1])[0][:-ROW]) if len(good) else 0
        records = self._records(part, rows, needs, answers, ids, good)
        chunk = []
        for number, record in enumerate(records):
            if number >= known:
                chunk.append((self._schema, record))
            if len(chunk) >= CHUNK:
                self._log.append_all(chunk)
                chunk = []
        if chunk:
            self._log.append_all(chunk)
        self._log.rotate()
        return {"prediction_id": pa.array(ids, pa.string())}

    def _known(self, start: str) -> int:
        """How many rows of the part whose ids start so are in the log: its first ones, for they are logged in order."""
        import pyarrow.compute as pc

        if self._counts is None:
            rows = self._log.rows(model=self._schema.model, release=self._schema.release, columns=["prediction_id"])
            starts = pc.utf8_slice_codeunits(rows["prediction_id"], 0, -ROW)
            self._counts = {one["values"]: one["counts"] for one in pc.value_counts(starts).to_pylist()}
        return self._counts.get(start, 0)

    def _without_persons(self, rows: pa.Table) -> pa.Table:
        personal = self._signature.personal
        return hashed(rows, personal, self._key) if personal else rows

    def _records(
        self, part: Part, rows: pa.Table, needs: Needs, answers: Answers, ids: Sequence[str], good: Places
    ) -> Any:
        import pyarrow as pa

        signature, about = self._signature, self._about
        number = len(rows)
        made = {name: _plain(_taken(column, answers.places)) for name, column in answers.inputs.items()}
        inputs = zip(*(made[name] for name in signature.inputs), strict=True)
        fields = zip(*(_column(rows, name) for name in signature.request_names), strict=True)
        at_us = [about["at_us"]] * number
        if needs.instant:
            at_us = rows[needs.instant].cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64()).to_pylist()
        keyed = about["key"] and all(name in rows.column_names for name in about["key"])
        request_ids = (
            key_texts(self._without_persons(rows), about["key"])
            if keyed
            else [f"{part.file}:{part.start + at}" for at in good]
        )
        probabilities = (
            [None] * number if signature.task == "regression" else answers.columns["probability"].to_pylist()
        )
        every = [b""] * number
        predictions: list[Any] = answers.columns["prediction"].to_pylist()
        if signature.task == "multiclass":
            table = np.column_stack([answers.columns[f"{OF_CLASS}{one}"].to_numpy() for one in signature.classes])
            every = [row.astype("<f8").tobytes() for row in table]
            predictions = table.argmax(axis=1).tolist()
        now_us = machine_us()
        for place, (given, asked) in enumerate(zip(inputs, fields, strict=True)):
            if self._mask is not None:
                given, asked = self._mask(given, asked)
            yield LoggedPrediction(
                schema=self._schema.id,
                prediction_id=ids[place],
                request_id=request_ids[place],
                row=0,
                caller=about["caller"][:200],
                arm=ARM,
                at_us=at_us[place],
                recorded_at_us=now_us,
                inputs=given,
                fields=asked,
                views=(),
                prediction=float(predictions[place]),
                probability=probabilities[place],
                latency_ms=float("nan"),
                probabilities=every[place],
            )


def prediction_ids(part: str, places: Places) -> list[str]:
    """The ids of rows of a part: version-8 UUIDs (RFC 9562) of its id and the row's place."""
    made = digest(part.encode())
    start = f"{made[:8]}-{made[8:12]}-8{made[12:15]}-8{made[15:18]}-{made[18:22]}"
    return [f"{start}{place:08x}" for place in places.tolist()]


def _column(rows: pa.Table, name: str) -> list[Any]:
    import pyarrow as pa

    if name not in rows.column_names:
        return [None] * len(rows)
    column = rows[name]
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    return [None if value != value else value for value in column.to_pylist()]


def _taken(column: Any, places: Places) -> Any:
    import pyarrow as pa

    return column[places] if isinstance(column, np.ndarray) else column.take(pa.array(places))


def _plain(column: Any) -> list[Any]:
    """An input's values as the log has them: missing is None."""
    import pyarrow as pa

    if not isinstance(column, np.ndarray):
        kind = column.type
        column = column.cast(pa.float64(), safe=False) if pa.types.is_boolean(kind) or _is_decimal(kind) else column
        column = column.to_pylist()
    else:
        column = column.tolist()
    return [None if value is None or value != value else value for value in column]


def _is_decimal(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_decimal(kind))
