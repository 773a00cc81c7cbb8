"""A worker of a batch: a process that scores parts of files, with features joined where the release looks them up.

Run by `serving.batch.files.Workers`; orders and tasks come on stdin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.releases.bundle import open_bundle
from seatrial.serving.batch.files import Enrich, Noted, Orders, PartScorer, Stage, work
from seatrial.serving.batch.rows import Needs, RowScorer

if TYPE_CHECKING:
    import pyarrow as pa


def scorer(orders: Orders, events: Mapping[str, pa.Table] | None = None) -> PartScorer:
    """What scores by these orders. events: each view's rows; read from where the orders say by default."""
    bundle = open_bundle(Path(orders.bundle), orders.trusted)
    noted: Noted | None = None
    if orders.log:
        from seatrial.serving.batch.log import PartLog

        noted = PartLog(bundle, Path(orders.log), orders.logged)
    return PartScorer(
        RowScorer(bundle),
        Stage(Path(orders.stage)),
        keep=orders.keep,
        instants=orders.instants,
        enrich=_enrich(_events(orders) if events is None else events) if orders.events else None,
        noted=noted,
    )


def _events(orders: Orders) -> dict[str, pa.Table]:
    import pyarrow as pa

    found = {}
    for view, path in orders.events.items():
        with pa.memory_map(path) as file:  # which all workers share
            found[view] = pa.ipc.open_file(file).read_all()
    return found


def _enrich(events: Mapping[str, pa.Table]) -> Enrich:
    from seatrial.features.join import as_of

    def enrich(rows: pa.Table, needs: Needs) -> pa.Table:
        """The rows with the features of the views that they lack, as of each row's instant."""
        return as_of(rows, {view.name: view for view in needs.views}, events, at=needs.instant)

    return enrich


if __name__ == "__main__":
    work(scorer)
