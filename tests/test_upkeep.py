"""Upkeep: a live release's features stay fresh after the project's views have changed."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Entity, FrameSource, Model, ParquetSource, Project, Split, agg, feature_view
from seatrial.core.clock import FixedClock
from seatrial.upkeep import NotKeptUp

NOON, ONE, TWO = (datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in (12, 13, 14))
LABELS = pa.table(
    {
        "at": pa.array([NOON] * 40),
        "shop": [f"s{i}" for i in range(40)],
        "busy": [i > 20 for i in range(40)],
    }
)


def sales(shop, amount, at):
    return {"sold_at": at, "shop": shop, "receipt": f"{shop}-{at.hour}", "amount": float(amount)}


def keep(folder, rows):
    pq.write_table(pa.Table.from_pylist(rows), folder / "sales.parquet")


def opened(folder, at, *, window="1d", source="sales.parquet", removed=False):
    """The project, in which the view may have been changed or removed since."""
    rows = ParquetSource(source, event_timestamp="sold_at", event_key=["receipt"])
    labels = FrameSource(LABELS, name="labels", event_timestamp="at", label_known_at="at")

    @feature_view(entity=Entity("shop"), source=rows)
    class till:
        total = agg.sum("amount", window=window)
        newest = agg.last("amount")

    model = Model(
        "busy",
        task="binary",
        target="busy",
        labels=labels,
        features=[till],
        estimator="sklearn.tree.DecisionTreeClassifier",
        split=Split("stratified"),
        cv_folds=0,
    )
    return Project(folder, clock=FixedClock(at), definitions=[rows] if removed else [model])


@pytest.fixture
def live(tmp_path):
    """A folder in which a release is live that looks up `till`, materialized at noon."""
    keep(tmp_path, [sales(f"s{i}", i, NOON) for i in range(40)])
    with opened(tmp_path, NOON) as project:
        project.train()
        project.release()
        project.deploy(reason="a test")
        project.materialize()
    return tmp_path


def served(folder, at):
    """What the live release reads online for s0: (total, newest)."""
    with opened(folder, at) as project:
        (answer,) = project.predict("busy", [{"shop": "s0"}])
        (row,) = project.log.find(answer["prediction_id"])
    return row["feature_till__total"], row["feature_till__newest"]


def test_a_live_release_sees_new_rows_after_its_view_was_changed(live):
    keep(live, [sales("s0", 100, ONE)])
    with opened(live, ONE, window="2d") as changed:
        written = changed.materialize()
        release = changed.releases()[0]["release"]
    assert [(one.release, one.written, one.problem) for one in written] == [("", 1, ""), (release, 1, "")]
    assert served(live, ONE) == (100.0, 100.0)


def test_a_live_release_sees_new_rows_after_its_view_was_removed(live):
    keep(live, [sales("s0", 100, ONE)])
    with opened(live, ONE, removed=True) as changed:
        assert [one.written for one in changed.materialize("till")] == [1]
        assert [one.written for one in changed.push("sales", [sales("s0", 11, TWO)])] == [1]
    assert served(live, TWO) == (111.0, 11.0)


def test_pushed_rows_reach_a_live_release_after_its_view_was_changed(live):
    with opened(live, ONE, window="2d") as changed:
        assert [one.written for one in changed.push("till", [sales("s0", 7, ONE)])] == [1, 1]
    assert served(live, ONE) == (7.0, 7.0)


def test_a_candidate_that_was_packed_is_kept_up_before_it_goes_live(live):
    with opened(live, NOON, window="3d") as project:
        project.train()
        candidate = project.release().id
    keep(live, [sales("s0", 5, ONE)])
    with opened(live, ONE, window="2d") as changed:
        written = changed.materialize()
        assert {one.release for one in written} >= {"", candidate}
        assert all(one.written == 1 for one in written)


def test_a_view_whose_source_is_gone_is_told_and_the_others_are_written(live):
    keep(live, [sales("s0", 100, ONE)])
    (live / "sales.parquet").rename(live / "tills.parquet")
    with opened(live, ONE, source="tills.parquet") as changed, pytest.warns(NotKeptUp, match="source 'sales' is no"):
        own, frozen = changed.materialize()
    assert (own.release, own.written, own.problem) == ("", 1, "")
    assert (frozen.view, frozen.rows, frozen.written) == ("till", 0, 0)
    assert "no longer declared" in frozen.problem


def test_a_source_that_lost_a_column_of_a_live_release_is_told(live):
    pq.write_table(pa.Table.from_pylist([{"sold_at": ONE, "shop": "s0", "receipt": "r"}]), live / "sales.parquet")
    with opened(live, ONE, removed=True) as changed, pytest.warns(NotKeptUp, match="has no column 'amount'"):
        assert [one.problem != "" for one in changed.materialize()] == [True]


def test_an_unchanged_project_writes_each_view_once(live):
    with opened(live, ONE) as same:
        assert [one.release for one in same.materialize()] == [""]


def test_train_and_materialize_freeze_each_definition_once_with_an_event(live):
    with opened(live, ONE, window="2d") as changed:
        changed.materialize()
        changed.materialize()
        frozen = changed.metadata.records("view", "till")
        events = changed.metadata.events(kind="view.frozen")
    assert [view.body["words"][0][1] for view in frozen] == ["sum(amount, window=1d)", "sum(amount, window=2d)"]
    assert [(event.subject, event.body["by"]) for event in events] == [
        (frozen[0].id, "train"),
        (frozen[1].id, "materialize"),
    ]
    assert frozen[0].body["source"]["columns"] == {
        "sold_at": "timestamp[us, tz=UTC]",
        "shop": "string",
        "receipt": "string",
        "amount": "double",
    }
