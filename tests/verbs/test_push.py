"""Pushed rows: they become what the source's own rows are, or nothing is written and the row is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import CsvSource, Entity, ParquetSource, Project, QuerySource, SetAside, agg, expect, feature_view, sql
from seatrial.core.clock import FixedClock
from seatrial.core.errors import SeatrialError
from seatrial.data.expectations import DataRefused
from seatrial.data.given import ColumnLacking, RowWrongType
from seatrial.data.reading import ColumnWrongType, DataWarning
from seatrial.features.events import ValueTooLarge
from seatrial.features.lookup import Lookup
from seatrial.features.plan import FeaturePlan, plan_view
from seatrial.verbs.inputs import BadRows, TimeInFuture

NOON, LATER = datetime(2024, 1, 1, 12, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
FIRST = {"sold_at": NOON, "shop": 7, "receipt": "r0", "amount": 1.0, "open": True, "kind": "food"}


def world(folder, *, snapshot=True, derived=False, **declared):
    """A project with one view over sales, of which shop 7 has one; and the view."""
    pq.write_table(pa.Table.from_pylist([FIRST]), folder / "sales.parquet")
    times = {"event_timestamp": "sold_at", "event_key": ["receipt"]}
    source = ParquetSource("sales.parquet", **times, **declared)
    if derived:
        source = QuerySource("SELECT * FROM sales", name="derived", tables={"sales": source}, **times)

    @feature_view(entity=Entity("shop"), source=source)
    class till:
        count = agg.count(window="7d")
        total = agg.sum("amount", window="7d")
        kind = agg.last("kind")

    project = Project(folder, clock=FixedClock(LATER), definitions=[till])
    if snapshot:
        project.materialize()
    return project, till


def says(project, view, shop=7):
    found = Lookup(FeaturePlan(views=(plan_view(view),)), project.online).assemble({"shop": shop}, project.now_us)
    return found.views["till"].values


def row(**changed):
    return {"sold_at": "2024-01-01T13:00:00Z", "shop": 7, "receipt": "r1", "amount": 2.5, "kind": "toys"} | changed


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("derived", [True, False])
@pytest.mark.parametrize(
    ("changed", "column"),
    [
        ({"shop": "7"}, "shop"),
        ({"shop": 7.5}, "shop"),
        ({"shop": True}, "shop"),
        ({"shop": 2**70}, "shop"),
        ({"receipt": 1}, "receipt"),
        ({"amount": "2.5"}, "amount"),
        ({"amount": False}, "amount"),
        ({"kind": 3}, "kind"),
        ({"open": 1}, "open"),
        ({"sold_at": 5}, "sold_at"),
    ],
)
def test_a_value_of_another_type_is_refused_by_row_and_column_and_nothing_is_written(
    tmp_path, changed, column, derived, snapshot
):
    project, view = world(tmp_path, derived=derived, snapshot=snapshot)
    before = says(project, view)
    with project, pytest.raises(RowWrongType, match=rf"row 1 .*'{column}'") as caught:
        project.push("till", [row(receipt="sound"), row(**changed)])
    assert "Nothing was written" in str(caught.value)
    with project:
        assert says(project, view) == before


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("column", ["shop", "sold_at", "receipt", "amount", "kind"])
def test_a_row_that_lacks_a_column_that_a_view_reads_is_refused_by_row_and_column(tmp_path, column, snapshot):
    project, view = world(tmp_path, snapshot=snapshot)
    before = says(project, view)
    short = {name: value for name, value in row().items() if name != column}
    frame = pa.Table.from_pylist([short | {"sold_at": NOON} if "sold_at" in short else short])
    (tmp_path / "new.jsonl").write_text(json.dumps(short) + "\n")
    (tmp_path / "new.csv").write_text(",".join(short) + "\n" + ",".join(str(value) for value in short.values()) + "\n")
    pq.write_table(frame, tmp_path / "new.parquet")
    with project:
        pushed = [frame, frame.to_pandas(), *(tmp_path / f"new.{ending}" for ending in ("jsonl", "csv", "parquet"))]
        for rows, place in [([row(receipt="sound"), short], 1), *((one, 0) for one in pushed)]:
            with pytest.raises(ColumnLacking, match=rf"row {place} lacks column '{column}'") as caught:
                project.push("till", rows)
            assert "Correct the rows and push them again. Nothing was written" in str(caught.value)
        assert says(project, view) == before


def test_a_row_that_lacks_a_column_that_an_expression_reads_is_refused(tmp_path):
    pq.write_table(pa.Table.from_pylist([FIRST]), tmp_path / "sales.parquet")

    @feature_view(entity=Entity("shop"), source=ParquetSource("sales.parquet", event_timestamp="sold_at"))
    class till:
        double = agg.last(sql("Amount * 2"))

    with Project(tmp_path, clock=FixedClock(LATER), definitions=[till]) as project:
        with pytest.raises(ColumnLacking, match="row 0 lacks column 'amount'"):
            project.push("till", [{"sold_at": NOON, "shop": 7}, row()])
        assert project.push("till", [{"sold_at": NOON, "shop": 7, "amount": None}, row()])[0].rows == 2


def test_what_can_be_meant_only_one_way_is_taken(tmp_path):
    project, view = world(tmp_path)
    with project:
        project.push("till", [row(amount=2, shop=7.0)])
        assert says(project, view) == {"count": 2.0, "total": 3.0, "kind": "toys"}


def test_a_frame_of_other_widths_is_the_same_entity(tmp_path):
    project, view = world(tmp_path)
    table = pa.Table.from_pylist([row(sold_at=NOON)])
    narrow = table.set_column(table.column_names.index("shop"), "shop", pa.array([7], pa.int16()))
    wrong = table.set_column(table.column_names.index("shop"), "shop", pa.array(["7"]))
    with project:
        project.push("sales", narrow)
        assert says(project, view)["count"] == 2
        with pytest.raises(RowWrongType, match=r"'7' in column 'shop', which is int64"):
            project.push("sales", wrong)
        with pytest.raises(RowWrongType, match="'shop'"):
            project.push("sales", narrow.to_pandas().assign(shop=[7.5]))


def test_text_of_a_csv_file_is_read_as_the_types_of_the_source(tmp_path):
    project, view = world(tmp_path)
    file = tmp_path / "new.csv"
    file.write_text("sold_at,shop,receipt,amount,kind,open\n2024-01-01T13:00:00Z,7,100,2,5,true\n")
    with project:
        project.push("till", file)
        assert says(project, view) == {"count": 2.0, "total": 3.0, "kind": "5"}
        file.write_text("sold_at,shop,receipt,amount,kind\n2024-01-01T13:00:00Z,7,100,n/a,5\n")
        with pytest.raises(RowWrongType, match=r"row 0 .*'n/a' in column 'amount'"):
            project.push("till", file)


def test_a_csv_source_reads_pushed_files_with_its_own_nulls(tmp_path):
    (tmp_path / "sales.csv").write_text("sold_at,shop,amount,receipt\n2024-01-01T12:00:00Z,7,1.5,a\n")
    source = CsvSource("sales.csv", nulls=["NA"], event_timestamp="sold_at", event_key=["receipt"])

    @feature_view(entity=Entity("shop"), source=source)
    class till:
        total = agg.sum("amount", window="7d")

    (tmp_path / "new.csv").write_text("sold_at,shop,amount,receipt\n2024-01-01T12:00:00Z,7,NA,7\n")
    with Project(tmp_path, clock=FixedClock(LATER), definitions=[till]) as project:
        project.materialize()
        assert project.push("till", tmp_path / "new.csv")[0].written == 1
        assert says(project, till) == {"total": 1.5}


@pytest.mark.parametrize(
    ("rule", "changed", "words"),
    [
        (expect.between("amount", 0, 10), {"amount": 11.0}, "amount between 0 and 10"),
        (expect.not_null("kind"), {"kind": None}, "kind not null"),
        (expect.one_of("kind", ["food", "toys"]), {"kind": "cars"}, "kind one of food, toys"),
        (expect.sql("amount > 0 OR kind = 'refund'", "refunds are named"), {"amount": -1.0}, "refunds are named"),
        (expect.unique(["receipt"]), {"receipt": "sound"}, "receipt unique"),
    ],
)
def test_rows_that_break_an_expectation_are_refused_by_its_name_and_nothing_is_written(tmp_path, rule, changed, words):
    project, view = world(tmp_path, expectations=[rule])
    with project:
        before = says(project, view)
        with pytest.raises(DataRefused, match=r"1 expectation of 1 failed") as caught:
            project.push("till", [row(receipt="sound"), row(**changed)])
        assert words in str(caught.value)
        assert "push them again. Nothing was written" in str(caught.value)
        assert says(project, view) == before
        assert project.push("till", [row()])[0].written == 1


def test_what_is_expected_of_the_whole_source_is_not_expected_of_a_push(tmp_path):
    rules = [expect.rows(at_least=1, at_most=1), expect.not_null("kind", at_most=0.5)]
    project, _ = world(tmp_path, expectations=rules)
    with project:
        assert project.push("till", [row(kind=None), row(receipt="r2", kind=None)])[0].written == 2


def test_set_aside_rules_take_pushed_rows_out_too(tmp_path):
    project, view = world(tmp_path, set_aside=[SetAside("amount < 0", reason="a test till")])
    with project:
        project.push("till", [row(), row(receipt="r2", amount=-5)])
        assert says(project, view)["total"] == 3.5


@pytest.mark.parametrize("as_file", [True, False])
def test_times_without_a_zone_are_read_in_the_zone_of_the_source(tmp_path, as_file):
    project, view = world(tmp_path, timezone="America/New_York")
    rows = [
        row(sold_at="2024-01-01T18:59:59"),
        row(receipt="r2", sold_at="2024-01-01T19:00:01"),
    ]  # 23:59:59Z, 00:00:01Z
    if as_file:
        (tmp_path / "new.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    with project:
        project.push("till", tmp_path / "new.jsonl" if as_file else rows)
        assert says(project, view)["count"] == 2  # 23:59:59Z counts by midnight UTC, 00:00:01Z does not


def test_times_without_a_zone_are_utc_with_one_warning_when_the_source_has_none(tmp_path):
    project, view = world(tmp_path)
    naive = [row(sold_at="2024-01-01T13:00:00"), row(receipt="r2", sold_at=datetime(2024, 1, 1, 14))]
    with pytest.warns(DataWarning, match="sold_at carries no time zone") as caught:
        project.push("till", naive)
    with project:
        assert says(project, view)["count"] == 3
        assert len(caught) == 1
        project.push("till", [row(receipt="r3", sold_at=NOON)])  # a warning would fail the test


def test_a_text_that_is_no_time_is_named_with_its_row(tmp_path):
    project, _ = world(tmp_path)
    with project, pytest.raises(ColumnWrongType, match=r"'13/01/2024' in row 1"):
        project.push("till", [row(), row(sold_at="13/01/2024")])


def test_rows_can_be_pushed_before_the_source_has_a_file(tmp_path):
    project, _ = world(tmp_path, snapshot=False)
    (tmp_path / "sales.parquet").unlink()
    with project:
        assert project.push("till", [row()])[0].written == 1
        with pytest.raises(SeatrialError, match="not all objects"):
            project.push("till", [5])


def test_a_row_that_happens_in_the_future_is_refused_by_row_and_value_and_nothing_is_written(tmp_path):
    project, view = world(tmp_path)
    with pytest.raises(TimeInFuture, match="row 2 has 'sold_at' 2024-01-05T00:00:00Z, and it is 2024-01-02T00:00:00Z"):
        project.push("till", [row(), row(receipt="r2", sold_at="2024-01-05T00:00:00Z")])
    assert says(project, view)["count"] == 1.0
    project.push("till", [row(sold_at="2024-01-02T00:04:00Z")])  # clocks may differ that much
    project.close()


def test_a_row_that_is_foreseen_is_taken_when_it_says_since_when(tmp_path):
    project, _ = world(tmp_path, snapshot=False, known_at="known")
    pq.write_table(pa.Table.from_pylist([FIRST | {"known": NOON}]), tmp_path / "sales.parquet")
    foreseen = row(sold_at="2024-01-05T00:00:00Z", known="2024-01-01T15:00:00Z")
    assert project.push("till", [foreseen])[0].written == 1
    project.close()


def test_the_online_store_is_not_brought_up_to_a_time_that_has_not_come(tmp_path):
    project, view = world(tmp_path)
    with pytest.raises(TimeInFuture, match="cannot be brought up to 2024-01-03T00:00:00Z"):
        project.materialize(at=datetime(2024, 1, 3, tzinfo=UTC))
    project.close()
    ahead = Project(tmp_path, clock=FixedClock(datetime(2199, 1, 1, tzinfo=UTC)), definitions=[view])
    with pytest.raises(TimeInFuture, match="cannot be brought up to 2199"):
        ahead.materialize()
    ahead.close()


def test_an_entity_is_read_with_the_status_and_the_age_of_what_is_online(tmp_path):
    project, _ = world(tmp_path)
    found = project.feature_get("till", {"shop": "7"})
    assert (found.status, found.age_seconds, found.features["total"]) == ("present", 12 * 3600, 1.0)
    assert project.feature_get("till", {"shop": 8}).status == "missing"
    for keys, words in (
        ({}, "'shop' is not given"),
        ({"shop": 7, "x": 1}, "'x' is none"),
        ({"shop": "s"}, "whole number"),
    ):
        with pytest.raises(SeatrialError, match=words):
            project.feature_get("till", keys)
    project.close()


def test_rows_of_ones_own_are_joined_and_written(tmp_path):
    project, _ = world(tmp_path)
    asked = pa.table({"shop": [7, 8, None], "when": pa.array([LATER] * 3, pa.timestamp("us", tz="UTC"))})
    joined = project.feature_join(asked, at="when", out=tmp_path / "out.parquet")
    assert joined["till__total"].to_pylist() == [1.0, None, None]
    assert pq.read_table(tmp_path / "out.parquet").equals(joined)
    with pytest.raises(SeatrialError, match="no column 'at'"):
        project.feature_join(asked)
    project.close()


def test_a_row_that_one_view_cannot_take_is_written_for_no_view(tmp_path):
    pq.write_table(pa.Table.from_pylist([FIRST]), tmp_path / "sales.parquet")
    source = ParquetSource("sales.parquet", event_timestamp="sold_at", event_key=["receipt"])

    @feature_view(entity=Entity("shop"), source=source)
    class till:
        amount = agg.last("amount")

    @feature_view(entity=Entity("shop"), source=source)
    class total:
        amount = agg.sum("amount", window="7d")

    with Project(tmp_path, clock=FixedClock(LATER), definitions=[till, total]) as project:
        project.materialize()
        with pytest.raises(ValueTooLarge, match="Nothing was written"):
            project.push("sales", [row(amount=1e300)])
        assert says(project, till) == {"amount": 1.0}
        rows = [FIRST, FIRST | {"receipt": "r9", "sold_at": LATER, "amount": 1e300}]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "sales.parquet")
        with pytest.raises(ValueTooLarge, match="Nothing was written"):
            project.materialize()
        assert says(project, till) == {"amount": 1.0}


def test_rows_without_their_entity_are_counted(tmp_path):
    project, _ = world(tmp_path)
    with project:
        (written,) = project.push("till", [row(), row(shop=None, receipt="r2"), row(receipt="r0", amount=1.0)])
    assert (written.rows, written.written, written.unchanged, written.without_key) == (3, 2, 0, 1)


def test_a_file_of_json_too_deep_to_read_is_refused(tmp_path):
    project, _ = world(tmp_path)
    (tmp_path / "deep.jsonl").write_text('{"x":' + "[" * 2000 + "]" * 2000 + "}")
    with project, pytest.raises(BadRows, match="is not JSON"):
        project.push("till", tmp_path / "deep.jsonl")
