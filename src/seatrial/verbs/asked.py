"""Asked: what did the requests of a deployment hold lately?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seatrial.core.clock import from_us, iso
from seatrial.core.windows import Window

if TYPE_CHECKING:
    from seatrial.folder.workspace import Workspace
    from seatrial.retraining.narrowed import Asked


def asked_lately(workspace: Workspace, model: str, deployment: str, fields: Sequence[str]) -> Asked:
    """How often each of these fields was null in the requests of the last 30 days; reads the log only for some."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from seatrial.retraining.narrowed import LATELY_US, Asked
    from seatrial.stores.prediction_log import LogColumnMissing

    if not fields:
        return Asked(0, "", {})
    window = Window(max(workspace.now_us - LATELY_US, 0), workspace.now_us)
    columns = ["at", *(f"field_{name}" for name in fields)]
    try:
        rows = workspace.log.rows(model=model, window=window, deployment=deployment, columns=columns)
    except LogColumnMissing:  # a field that no request of that time carried
        return Asked(0, "", {})
    if not rows.num_rows:
        return Asked(0, "", {})
    first = pc.min(rows["at"].cast(pa.int64())).as_py()
    return Asked(rows.num_rows, iso(from_us(first)), {name: rows[f"field_{name}"].null_count for name in fields})
