"""Upkeep: a live release's features stay fresh after the project's views have changed."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Entity, FrameSource, Model, ParquetSource, Project, QuerySource, SetAside, Split, agg, feature_view
from seatrial.core.clock import FixedClock
from seatrial.verbs.upkeep import BreaksLiveRelease, NotKeptUp, ViewRetyped

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


def opened(
    folder,
    at,
    *,
    window="1d",
    source="sales.parquet",
    removed=False,
    query="",
    beside=False,
    derived="derived",
    **declared,
):
    """The project, in which the view or its source may have been changed or removed since.

    query: the view reads this query over the source, named `derived`. beside: the old source stays declared.
    """
    times = {"event_timestamp": "sold_at", "event_key": ["receipt"]}
    rows = ParquetSource(source, **(times | declared))
    if query:
        rows = QuerySource(query, {"raw": rows}, name=derived, **times)
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
    old = [ParquetSource("sales.parquet", **times)] if beside else []
    return Project(folder, clock=FixedClock(at), definitions=[rows] if removed else [model, *old])


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


def served(folder, at, **declared):
    """What the live release reads online for s0: (total, newest)."""
    with opened(folder, at, **declared) as project:
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
    with opened(live, TWO, removed=True) as changed:
        assert [one.written for one in changed.materialize("till", at=ONE)] == [1]
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


def refused(folder, verb="materialize", **changed):
    """The words with which a verb refuses the changed project, of which it has written nothing."""
    with opened(folder, ONE, **changed) as project:
        before = project.metadata.last_event(), sorted(project.objects.root.rglob("*"))
        with pytest.raises(BreaksLiveRelease) as caught:
            getattr(project, verb)()
        assert (project.metadata.last_event(), sorted(project.objects.root.rglob("*"))) == before
        assert project.releases()[0]["release"] in caught.value.found
        (one,) = caught.value.facts["broken"]
        assert (one.model, one.deployments, one.view) == ("busy", ("busy",), "till")
    assert caught.value.exit_code == 5
    return str(caught.value)


@pytest.mark.parametrize("verb", ["train", "materialize"])
def test_a_source_of_a_live_release_that_is_gone_is_refused_by_the_releases_name(live, verb):
    (live / "sales.parquet").rename(live / "tills.parquet")
    words = refused(live, verb, source="tills.parquet")
    assert "live in busy, reads view 'till'" in words
    assert "Source 'sales' is no longer declared." in words
    assert "Keep the source under its old name" in words


def test_a_source_that_was_renamed_is_named_by_its_new_name(live):
    assert "Source 'tills' reads the same file." in refused(live, name="tills")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"event_key": ["receipt", "shop"]}, "had event_key=['receipt'] and now has event_key=['receipt', 'shop']"),
        ({"known_at": "sold_at"}, "had known_at=None and now has known_at='sold_at'"),
        ({"set_aside": [SetAside("amount < 2", "noise")]}, "had set_aside=[] and now has set_aside=['amount < 2']"),
        ({"timezone": "Europe/Vienna"}, "had timezone=None and now has timezone='Europe/Vienna'"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "materialize"])
def test_a_source_whose_rows_mean_something_else_now_is_refused(live, changed, words, verb):
    assert f"Source 'sales' {words}" in refused(live, verb, **changed)


def test_rows_that_no_view_could_take_may_be_set_aside(live):
    with opened(live, ONE, set_aside=[SetAside("receipt IS NULL", "tills that lost the roll")]) as changed:
        changed.materialize()


@pytest.mark.parametrize("verb", ["train", "materialize"])
def test_a_file_that_became_a_query_is_refused_when_it_says_something_else_of_the_same_rows(live, verb):
    doubled = "SELECT * REPLACE (amount * 2 AS amount) FROM raw"
    words = refused(live, verb, query=doubled, derived="sales", name="raw")
    assert "'amount' has another value in 39 of 40 rows" in words  # twice nothing is nothing
    with opened(live, ONE, query="SELECT *, 1 AS more FROM raw", derived="sales", name="raw") as same:
        same.materialize()


@pytest.mark.parametrize("removed", [True, False])
def test_a_source_that_lost_a_column_of_a_live_release_is_refused(live, removed):
    pq.write_table(pa.Table.from_pylist([{"sold_at": ONE, "shop": "s0", "receipt": "r"}]), live / "sales.parquet")
    assert "Source 'sales' has no column 'amount' any more." in refused(live, removed=removed)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("shop", 7, "'shop' of source 'sales' was string and is int64"),
        ("receipt", 7, "'receipt' of source 'sales' was string and is int64"),
        ("amount", "7", "'amount' of source 'sales' was double and is string"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "materialize"])
def test_a_column_that_has_another_type_is_refused(live, column, value, words, verb):
    keep(live, [sales("s0", 1, ONE) | {column: value}])
    assert words in refused(live, verb)


def test_a_number_that_is_whole_now_and_a_file_elsewhere_are_no_difference(live):
    (live / "new").mkdir()
    keep(live / "new", [sales("s0", 1, ONE) | {"amount": 3}])
    with opened(live, ONE, source="new/sales.parquet", name="sales") as moved:
        assert [one.written for one in moved.materialize()] == [1, 1]
    assert served(live, ONE) == (3.0, 3.0)


def test_validate_tells_what_would_break_beside_what_else_it_finds(live):
    with opened(live, ONE, event_key=["receipt", "shop"]) as changed:
        (report,) = [one for one in changed.validate() if not one.passed]
    assert report.as_plain()["kind"] == "release"
    assert report.results[0].expectation == "view 'till', live in busy, can be fed"
    assert "event_key" in report.results[0].detail


def test_the_old_source_beside_the_new_one_lets_a_successor_be_trained_and_the_old_one_go(live):
    (live / "tills.parquet").write_bytes((live / "sales.parquet").read_bytes())
    with opened(live, ONE, source="tills.parquet", beside=True) as both:
        assert both.train().passed
        both.release()
        both.deploy(reason="the live one cannot be fed", at_once=True)
    with opened(live, ONE, source="tills.parquet") as after:
        assert [one.problem for one in after.materialize()] == [""]


def test_a_column_that_is_cast_back_under_the_old_name_is_a_way_out(live):
    keep(live, [sales(f"s{i}", i, ONE) | {"receipt": i} for i in range(40)])
    assert "'receipt' of source 'sales' was string and is int64" in refused(live)
    query = "SELECT * REPLACE (receipt::VARCHAR AS receipt) FROM raw"
    with opened(live, ONE, query=query, derived="sales", name="receipts") as mended:
        assert [one.written for one in mended.materialize()] == [40, 40]
    assert served(live, ONE, query=query, derived="sales", name="receipts") == (0.0, 0.0)


def test_a_type_that_changed_before_the_release_was_trained_is_no_difference(live):
    rows = [sales(f"s{i}", i, NOON) | {"receipt": i} for i in range(40)]
    (live / "new").mkdir()
    keep(live / "new", [sales("s0", 1, NOON)])
    with opened(live, NOON, source="new/sales.parquet", beside=True, name="tills", window="3d") as project:
        project.materialize("till")  # frozen here, while the receipt is text
    keep(live / "new", rows)
    (live / ".seatrial" / "online.db").unlink()
    with opened(live, NOON, source="new/sales.parquet", beside=True, name="tills", window="3d") as project:
        project.train()
        project.release()
        project.deploy(reason="a test", at_once=True)
        assert [one.problem for one in project.materialize()] == [""]


def test_rows_of_other_types_are_not_mixed_with_those_that_are_online(packed):
    with opened(packed, ONE) as project:
        project.materialize()
        keep(packed, [sales("s0", 1, ONE) | {"receipt": 7}])
        with pytest.raises(ViewRetyped, match="'receipt' of source 'sales' was string and is int64"):
            project.materialize()
        assert project.metadata.last_event().kind == "features.materialized"
    with opened(packed, ONE) as project:
        project.snapshot()
        with pytest.raises(ViewRetyped, match="were made of other types"):
            project.push("till", [sales("s0", 1, ONE) | {"receipt": 7}])


def test_a_push_that_a_candidate_cannot_take_is_told_and_taken_by_the_others(packed):
    keep(packed, [sales("s0", 1, ONE) | {"receipt": 7}])
    with opened(packed, ONE, window="2d") as changed:
        changed.snapshot()
        with pytest.warns(NotKeptUp, match="was string and is int64"):
            own, frozen = changed.push("till", [sales("s0", 1, ONE) | {"receipt": 7}])
        assert (own.written, frozen.written) == (1, 0)


QUERY = "SELECT sold_at, shop, receipt, amount FROM raw"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (QUERY.replace("amount", "amount * 100 AS amount"), "'amount' has another value in 39 of 40 rows"),
        (f"{QUERY} WHERE amount > 9", "of 40 rows that the frozen query finds it has lost 10, and it finds 0 others"),
        (QUERY.replace("shop", "lower(shop) AS shop, 1 AS more"), ""),
        (f"{QUERY} ORDER BY amount", ""),
    ],
)
def test_a_query_that_was_changed_is_refused_when_it_says_something_else_of_the_same_rows(tmp_path, query, words):
    keep(tmp_path, [sales(f"s{i}", i, NOON) for i in range(40)])
    with opened(tmp_path, NOON, query=QUERY) as project:
        project.train()
        project.release()
        project.deploy(reason="a test")
    if words:
        assert f"The query of source 'derived' was changed: {words}" in refused(tmp_path, query=query)
    else:
        with opened(tmp_path, ONE, query=query) as changed:
            assert [one.written for one in changed.materialize()] == [40, 40]


@pytest.fixture
def packed(tmp_path):
    """A folder in which a release is a candidate, and nothing is live."""
    keep(tmp_path, [sales(f"s{i}", i, NOON) for i in range(40)])
    with opened(tmp_path, NOON) as project:
        project.train()
        project.release()
    return tmp_path


def test_a_candidate_whose_source_is_gone_is_told_and_the_others_are_written(packed):
    keep(packed, [sales("s0", 100, ONE)])
    (packed / "sales.parquet").rename(packed / "tills.parquet")
    with opened(packed, ONE, source="tills.parquet") as changed, pytest.warns(NotKeptUp, match="source 'sales' is no"):
        own, frozen = changed.materialize()
    assert (own.release, own.written, own.problem) == ("", 1, "")
    assert (frozen.view, frozen.rows, frozen.written) == ("till", 0, 0)
    assert "no longer declared" in frozen.problem


def test_a_source_that_lost_a_column_of_a_candidate_is_told(packed):
    pq.write_table(pa.Table.from_pylist([{"sold_at": ONE, "shop": "s0", "receipt": "r"}]), packed / "sales.parquet")
    with opened(packed, ONE, removed=True) as changed, pytest.warns(NotKeptUp, match="has no column 'amount'"):
        assert [one.problem != "" for one in changed.materialize()] == [True]


def test_a_push_tells_what_a_live_release_lacks_and_takes_the_rows(live):
    with (
        opened(live, ONE, event_key=["receipt", "shop"], name="tills") as changed,
        pytest.warns(NotKeptUp, match="source 'sales' is no longer declared"),
    ):
        own, frozen = changed.push("till", [sales("s0", 100, ONE)])
    assert (own.written, frozen.written) == (1, 0)


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
