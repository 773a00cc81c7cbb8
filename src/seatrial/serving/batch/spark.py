"""The same answers on Spark: a release's predictions for the rows of a data frame, to the last bit those of a batch.

Rows travel as Arrow batches to Spark's Python workers; each worker process opens the release once and keeps it. Nothing
is joined here: features that the release looks up are columns of the frame (`features.spark.as_of_spark` makes them).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.releases.bundle import open_bundle
from seatrial.releases.signing import trusted_keys
from seatrial.serving.batch.rows import BatchColumnMissing, RowScorer

if TYPE_CHECKING:
    import pyarrow as pa

REFUSED = "refused"
"""The column that says why a row has no answer; null where it has one."""

_SCORERS: dict[str, RowScorer] = {}
"""The releases that this process has opened, by id."""


def score_with_spark(
    frame: Any,
    release: str | Path | bytes,
    *,
    trusted: str | Path | Mapping[str, bytes],
    keep: Sequence[str] | None = None,
) -> Any:
    """A Spark data frame with an answer for each row of `frame`.

    release: a bundle's path or its bytes. trusted: whose signature counts: a project's folder of keys
        (`.seatrial/keys`), or keys by id.
    keep: the columns of the frame that stand beside the answers; all by default.
    Columns: those kept, `prediction`, `probability` (and of several classes `probability_CLASS`), `release`,
    `model_version`, and `refused`: why a row has no answer, whose prediction is then null.
    Workers need seatrial installed. Nothing is computed yet. Raises BatchColumnMissing, BatchColumnWrongType, and what
    opening a bundle raises.
    """
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
    from pyspark.sql.types import StringType, StructField, StructType

    data = release if isinstance(release, bytes) else Path(release).read_bytes()
    ring = dict(trusted if isinstance(trusted, Mapping) else trusted_keys(Path(trusted)))
    scorer = RowScorer(open_bundle(data, ring))
    needs = scorer.needs(to_arrow_schema(frame.schema), where="the frame")
    if needs.views:
        missing = [f"{view.name}__{feature}" for view in needs.views for feature in view.features]
        raise BatchColumnMissing(
            f"the frame lacks {', '.join(missing)}.",
            expected="On Spark the features that a release looks up are columns.",
            next="Make them with seatrial.features.spark.as_of_spark.",
            state="Nothing was computed.",
            columns=missing,
        )
    kept = list(frame.columns) if keep is None else list(keep)
    names = list(dict.fromkeys([*kept, *needs.columns]))
    texts = [StructField(name, StringType()) for name in ("release", "model_version", REFUSED)]
    made = StructType([*(frame.schema[name] for name in kept), *from_arrow_schema(scorer.answer_schema()), *texts])
    with warnings.catch_warnings():
        # pyspark warns of pandas 3, which it imports and of which nothing is used here
        warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
        return frame.select(*names).mapInArrow(_Score(scorer.bundle.id, data, ring, tuple(kept)), made)


@dataclass(frozen=True)
class _Score:
    """What a worker does with the batches of a partition."""

    id: str
    data: bytes
    trusted: dict[str, bytes]
    keep: tuple[str, ...]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        if self.id not in _SCORERS:
            _SCORERS[self.id] = RowScorer(open_bundle(self.data, self.trusted))
        scorer = _SCORERS[self.id]
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            answers = scorer.answer(rows)
            # each row in its place, null where it has no answer
            places = pa.array([None] * len(rows), pa.int64())
            if len(answers.places) == len(rows):
                places = pa.array(range(len(rows)), pa.int64())
            elif len(answers.places):
                found: list[int | None] = [None] * len(rows)
                for number, place in enumerate(answers.places.tolist()):
                    found[place] = number
                places = pa.array(found, pa.int64())
            made = rows.select(list(self.keep))
            for name, column in answers.columns.items():
                made = made.append_column(name, column.take(places))
            reasons = [None, *(reason for _, reason in answers.bad.reasons)]
            said = {
                "release": [scorer.bundle.id] * len(rows),
                "model_version": [str(scorer.bundle.manifest.version)] * len(rows),
                REFUSED: [reasons[code] for code in answers.bad.codes],
            }
            for name, texts in said.items():
                made = made.append_column(name, pa.array(texts, pa.string()))
            yield from made.combine_chunks().to_batches()
