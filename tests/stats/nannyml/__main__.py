"""Makes the files of `tests.stats.nannyml` anew: python -m tests.stats.nannyml DATA."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from tests.stats.nannyml import FOLDER, TIMES

CARDS = ["highstreet_card", "prepaid_card", "upmarket_card"]


def made(data: Path) -> dict[str, pa.Table]:
    """The tables by the names of their files."""

    def read(name: str, *columns: str) -> pa.Table:
        return pyarrow.csv.read_csv(data / f"{name}.csv").select(columns)

    binary = beside(
        read("synthetic_sample_analysis", "y_pred_proba", "y_pred"),
        read("synthetic_sample_analysis_gt", "work_home_actual"),
    )
    probabilities = [f"y_pred_proba_{card}" for card in CARDS]
    cards = read("mc_analysis", "timestamp", *probabilities)
    years = pc.cast(pc.year(cards["timestamp"]), pa.string())
    cars = beside(
        read("regression_synthetic_analysis", "y_pred"), read("regression_synthetic_analysis_targets", "y_true")
    )
    return {
        "binary": pa.concat_tables(
            [
                counted(read("synthetic_sample_reference", "y_pred_proba", "work_home_actual"), "reference"),
                *(counted(binary.slice(start, 5000), str(start)) for start in range(0, 50_000, 5000)),
            ],
            promote_options="default",
        ),
        "multiclass": pa.concat_tables(
            [
                counted(read("mc_reference", *probabilities, "y_true"), "reference"),
                *(
                    counted(cards.filter(pc.equal(years, year)).select(probabilities), year)
                    for year in ("2020", "2021")
                ),
            ],
            promote_options="default",
        ),
        "regression": pa.concat_tables(
            counted(cars.slice(start, 6000), str(start)) for start in range(0, 18_000, 6000)
        ),
    }


def beside(one: pa.Table, other: pa.Table) -> pa.Table:
    """Two tables of the same rows as one."""
    return pa.table({name: of[name] for of in (one, other) for name in of.column_names})


def counted(rows: pa.Table, part: str) -> pa.Table:
    """How often each row occurs, sorted, as the part of this name."""
    names = rows.column_names
    found = rows.group_by(names).aggregate([([], "count_all")]).sort_by([(name, "ascending") for name in names])
    times = found["count_all"].cast(pa.int32())
    whole = {"part": pa.array([part] * found.num_rows)} | {name: small(found[name]) for name in names}
    return pa.table(whole | {TIMES: times})


def small(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers as such, which is shorter."""
    if pa.types.is_floating(column.type) and pc.all(pc.equal(column, pc.round(column))).as_py():
        return column.cast(pa.int32())
    return column


if __name__ == "__main__":
    for name, table in made(Path(sys.argv[1])).items():
        pq.write_table(table, FOLDER / f"{name}.parquet", compression="zstd", compression_level=19)
