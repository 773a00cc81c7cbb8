"""Rows of the data sets that NannyML's published answers are of: the columns that are needed, and alike rows once.

Answers over a part of the rows do not depend on their order in it, so a part is kept as how often each row occurs.
`README.md` beside this file names source, version and licence; `python -m tests.stats.nannyml DATA` makes the files
anew from the folder `nannyml/datasets/data` of an installed NannyML.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path(__file__).parent
TIMES = "times"


def rows(name: str, part: str) -> pa.Table:
    """The rows of one part of a data set, each as often as it occurs there, in no order that means anything."""
    table = pq.read_table(FOLDER / f"{name}.parquet", filters=[("part", "=", part)])
    return table.take(np.repeat(np.arange(table.num_rows), table[TIMES].to_numpy())).drop_columns(["part", TIMES])
