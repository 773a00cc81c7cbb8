"""seatrial's views and stores for the online benchmarks: the one place to change when their interfaces change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.histories import SPAN_US, START_US
from seatrial import Entity, ParquetSource, agg
from seatrial.data.reading import read
from seatrial.features.definitions import FeatureView
from seatrial.features.lookup import Lookup, entity_key
from seatrial.features.materialize import Written, write
from seatrial.features.plan import FeaturePlan, plan_view
from seatrial.stores.online import open_online

AT_US = START_US + SPAN_US
ENTITY = Entity("entity")


def last_values(path: Path, features: int) -> FeatureView:
    """`features` last values of the rows in `path`, none of them too old."""
    source = ParquetSource(str(path), event_timestamp="event_timestamp", known_at="created")
    named = {f"f{i}": agg.last(f"f{i}") for i in range(features)}
    return FeatureView(path.stem, ENTITY, source, named, ttl_us=90 * 86_400_000_000)


def windows(path: Path) -> FeatureView:
    """Mean, sum and count over a day and a week of the visits in `path`."""
    source = ParquetSource(str(path), event_timestamp="event_timestamp", known_at="created", event_key=["visit"])
    functions = {"mean": agg.mean, "sum": agg.sum, "count": agg.count}
    named = {
        f"{name}_{window}": make("amount", window=window) for window in ("1d", "7d") for name, make in functions.items()
    }
    return FeatureView(path.stem, ENTITY, source, named)


def open_store(address: str) -> Any:
    """address: sqlite:///PATH or redis://HOST:PORT/NUMBER."""
    return open_online(address, folder=Path("/"), project="bench")


def materialize(view: FeatureView, store: Any, *, at_us: int = AT_US) -> Written:
    """The rows of the view's source into the store, file to store."""
    return write(view, read(view.source, folder=Path("/")).table, store, known_by_us=at_us)


def push(view: FeatureView, rows: Any, store: Any) -> Written:
    """Rows from a frame into the store. rows: an Arrow table."""
    return write(view, rows, store)


class Reader:
    """Looks entities up as serving does."""

    def __init__(self, view: FeatureView, store: Any) -> None:
        self.plan = plan_view(view)
        self._store = store
        self._lookup = Lookup(FeaturePlan((self.plan,)), store)

    def key(self, entity: int) -> tuple[str, bytes]:
        return (self.plan.digest, entity_key([entity]))

    def one(self, entity: int, at_us: int) -> dict[str, Any]:
        """The columns of one request."""
        return self._lookup.assemble({"entity": entity}, at_us).columns

    def many(self, entities: Sequence[int], at_us: int) -> list[dict[str, Any]]:
        """The columns of many, in one round trip."""
        rows = self._lookup.assemble_many([{"entity": entity} for entity in entities], at_us)
        return [row.columns for row in rows]
