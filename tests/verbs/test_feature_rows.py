"""Rows and entities with features beside them: they come back as they came, with the values that a model would get."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Entity, Model, ParquetSource, Project, agg, feature_view, on_request, point_in_time_join, sql
from seatrial.cli import run
from seatrial.core.clock import FixedClock
from seatrial.core.errors import SeatrialError

NOON, LATER = datetime(2024, 1, 1, 12, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
TIME = pa.timestamp("us", tz="UTC")
SALES = [
    {"sold_at": NOON, "shop": 7, "receipt": "r0", "amount": 1.0, "paid_at": NOON, "parts": [1, 2]},
    {"sold_at": NOON, "shop": 8, "receipt": "r1", "amount": 3.0, "paid_at": None, "parts": None},
]
PROJECT = """
from seatrial import Entity, ParquetSource, agg, feature_view, on_request

sales = ParquetSource("sales.parquet", event_timestamp="sold_at", event_key=["receipt"])

@feature_view(entity=Entity("shop"), source=sales)
class till:
    total = agg.sum("amount", window="7d")
    paid = agg.last("paid_at")

@feature_view(entity=Entity("shop"), source=sales, ttl="1h")
class short:
    parts = agg.last("parts")

@on_request
def part_of(price, till__total):
    "How much of the week's sales it is."
    return price / till__total
"""


def declared(folder):
    source = ParquetSource(str(folder / "sales.parquet"), event_timestamp="sold_at", event_key=["receipt"])

    @feature_view(entity=Entity("shop"), source=source)
    class till:
        total = agg.sum("amount", window="7d")
        paid = agg.last("paid_at")
        day = agg.last(sql("CAST(paid_at AS DATE)"))

    @on_request
    def part_of(price, till__total):
        return price / till__total

    return till, part_of


@pytest.fixture
def folder(tmp_path):
    pq.write_table(pa.Table.from_pylist(SALES), tmp_path / "sales.parquet")
    return tmp_path


@pytest.fixture
def project(folder):
    (folder / "project.py").write_text(PROJECT)
    with Project(folder, clock=FixedClock(LATER)) as project:
        project.materialize()
        yield project


def command(project, *words):
    return run([*words, "--project", str(project.folder), "--at", "2024-01-02T00:00:00Z"])


def rows(**more):
    return {"shop": [7, 9], "at": [LATER, LATER], "price": [0.5, 1.0]} | more


def test_a_last_value_that_is_a_time_is_a_time_in_joins_online_and_in_answers(project, folder, capsys):
    table = pa.table({**rows(), "at": pa.array([LATER] * 2, TIME)})
    till, _ = declared(folder)
    alone = point_in_time_join(table, [till])
    assert alone.schema.field("till__paid").type == alone.schema.field("till__day").type == TIME
    assert alone["till__day"].to_pylist() == [datetime(2024, 1, 1, tzinfo=UTC), None]
    joined = project.feature_join(table, "till")
    assert joined.schema.field("till__paid").type == TIME
    assert joined["till__paid"].to_pylist() == [NOON, None]
    assert project.feature_lookup(table, "till")["till__paid"].to_pylist() == [NOON, None]
    assert str(project.feature_join(table.to_pandas(), "till")["till__paid"].dtype) == "datetime64[us, UTC]"
    assert project.feature_get("till", {"shop": 7}).features["paid"] == "2024-01-01T12:00:00Z"
    assert command(project, "features", "get", "till", "shop=7", "--json") == 0
    assert json.loads(capsys.readouterr().out)["features"]["paid"] == "2024-01-01T12:00:00Z"


def test_frames_come_back_as_they_were(project):
    frame = pd.DataFrame(rows(), index=[5, 6])
    joined = project.feature_join(frame, project.definitions.views["till"])
    assert list(joined.index) == [5, 6]
    assert list(joined.columns) == ["shop", "at", "price", "till__total", "till__paid"]
    assert project.feature_join(pl.DataFrame(rows()), ["till"])["till__total"].to_list() == [1.0, None]
    (first, _) = project.feature_join([{"shop": 7, "at": "2024-01-02T00:00:00Z"}, {"shop": 9, "at": LATER}], "till")
    assert (first["at"], first["till__total"]) == ("2024-01-02T00:00:00Z", 1.0)
    assert list(project.feature_lookup(frame, "till").index) == [5, 6]
    assert project.feature_lookup([{"shop": 7}], "till")[0]["till__total"] == 1.0


def test_request_time_functions_are_joined_and_looked_up_beside_views(project, folder):
    till, part_of = declared(folder)
    table = pd.DataFrame(rows())
    assert point_in_time_join(table, [till, part_of])["part_of"][0] == 0.5
    with pytest.raises(SeatrialError, match="asks for 'price', which the rows do not have"):
        point_in_time_join(table[["shop", "at"]], [till, part_of])
    with pytest.raises(SeatrialError, match="not their names"):
        point_in_time_join(table, ["till"])
    assert project.feature_join(table, "part_of")["part_of"][0] == 0.5
    assert project.feature_lookup(table, ["till", "part_of"])["part_of"][0] == 0.5


def test_several_views_of_many_entities_are_looked_up_with_their_states(project):
    found = project.feature_lookup(pa.table({"shop": [7, 9, None]}), at="2024-01-01T12:30:00Z")
    assert found["till__status"].to_pylist() == ["present", "missing", "missing"]
    assert found["short__parts"].to_pylist() == [[1, 2], None, None]
    later = project.feature_lookup(pa.table({"shop": [7]}))
    assert (later["till__status"][0].as_py(), later["short__status"][0].as_py()) == ("present", "expired")
    with pytest.raises(SeatrialError, match="'shop' is string in the rows and integer"):
        project.feature_lookup(pa.table({"shop": ["7"]}))


def test_what_a_model_learns_from_is_joined_and_looked_up(folder):
    till, part_of = declared(folder)
    pq.write_table(pa.table({**rows(), "at": pa.array([LATER] * 2, TIME), "y": [0, 1]}), folder / "labels.parquet")
    labels = ParquetSource("labels.parquet", event_timestamp="at")
    model = Model("m", "binary", "y", labels, [till["total"], part_of], "lightgbm")
    with Project(folder, clock=FixedClock(LATER), definitions=[model]) as project:
        project.materialize()
        joined = project.feature_join(folder / "labels.parquet", model="m")
        assert joined.column_names == ["shop", "at", "price", "y", "till__total", "part_of"]
        looked = project.feature_lookup(folder / "labels.parquet", model="m")
        assert looked.column_names == [*joined.column_names, "till__status"]
        assert looked["part_of"].to_pylist() == joined["part_of"].to_pylist() == [0.5, None]


def test_whole_floats_are_taken_for_integer_keys_and_fractions_are_refused(project):
    frame = pd.DataFrame({"shop": [7, None], "at": [LATER] * 2})
    assert project.feature_join(frame, "till")["till__total"][0] == 1.0
    assert project.feature_lookup(frame, "till")["till__total"][0] == 1.0
    for ask in (project.feature_join, project.feature_lookup):
        with pytest.raises(SeatrialError, match=r'astype\("Int64"\)'):
            ask(frame.assign(shop=[7.5, 1.0]), "till")


def test_rows_that_have_a_column_that_is_made_are_refused(project):
    for ask in (project.feature_join, project.feature_lookup):
        with pytest.raises(SeatrialError, match="two columns 'till__total'"):
            ask(pd.DataFrame(rows(till__total=[1.0, 2.0])), "till")
        with pytest.raises(SeatrialError, match="two columns 'part_of'"):
            ask(pd.DataFrame(rows(part_of=[1.0, 2.0])), "part_of")
    with pytest.raises(SeatrialError, match="two columns 'till__status'"):
        project.feature_lookup(pd.DataFrame(rows(till__status=["a", "b"])), "till")


def test_instants_in_text_are_answered_with_how_to_make_times_of_them(project):
    frame = pd.DataFrame({"shop": [7], "at": ["2024-01-02T00:00:00Z"]})
    with pytest.raises(SeatrialError, match=r"pd.to_datetime\(rows\['at'\], utc=True\)"):
        project.feature_join(frame, "till")
    with pytest.raises(SeatrialError, match=r"str\.to_datetime"):
        project.feature_join(pl.from_pandas(frame), "till")


def test_the_ending_says_the_form_of_what_is_written(project, capsys):
    pd.DataFrame(rows(), index=[3, 4]).to_parquet(project.folder / "rows.parquet")
    asked, out = str(project.folder / "rows.parquet"), project.folder / "out.csv"
    assert command(project, "features", "join", asked, "--view", "till", "--out", str(out)) == 0
    first, second = out.read_text().splitlines()[:2]
    assert first == '"shop","at","price","till__total","till__paid"'
    assert second.startswith("7,2024-01-02 00:00:00")
    assert command(project, "features", "join", asked, "--out", str(out)) != 0
    assert "'short__parts' holds list" in capsys.readouterr().err
    for name in ("out.xlsx", "out"):
        assert command(project, "features", "join", asked, "--out", str(project.folder / name)) == 2
    named = pd.DataFrame(rows(), index=pd.Index([3, 4], name="row"))
    assert "row" in project.feature_join(_file(project, named), "till").column_names
    assert command(project, "features", "join", asked, "--instant", "when", "--out", str(out)) != 0
    assert "--instant COLUMN" in capsys.readouterr().err


def _file(project, frame):
    frame.to_parquet(project.folder / "named.parquet")
    return project.folder / "named.parquet"


def test_commands_look_up_several_views_and_many_rows(project, capsys):
    assert command(project, "features", "get", "till", "short", "shop=7", "--json") == 0
    assert [one["status"] for one in json.loads(capsys.readouterr().out)] == ["present", "expired"]
    assert command(project, "features", "get", "till", "shop=7") == 0
    assert "43,200 (12 hours)" in capsys.readouterr().out
    assert command(project, "features", "get", "till", "shop=7", "shop=8") == 2
    assert "'shop' is given twice" in capsys.readouterr().err
    (project.folder / "rows.csv").write_text("shop,price\n7,0.5\n9,1\n")
    asked = str(project.folder / "rows.csv")
    assert command(project, "features", "lookup", asked, "--view", "till", "--view", "part_of", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["part_of"], first["till__paid"]) == (0.5, "2024-01-01T12:00:00Z")
    assert (second["part_of"], second["till__status"]) == (None, "missing")
    out = project.folder / "found.parquet"
    assert command(project, "features", "lookup", asked, "--out", str(out)) == 0
    assert pq.read_table(out)["short__status"].to_pylist() == ["expired", "missing"]


def test_functions_that_no_model_uses_are_listed_shown_and_found(project, capsys):
    assert [one.column for one in project.features() if one.kind == "function"] == ["part_of"]
    shown = project.feature_show("part_of")
    assert (shown["function"], shown["args"]) == ("part_of", ["price", "till__total"])
    assert project.features_used_by("part_of").models == []
    assert project.features_used_by("till__total").functions == ["part_of"]
    assert [one.name for one in project.features_search("week's").found] == ["part_of"]
    assert command(project, "features", "show", "part_of") == 0
    assert command(project, "features", "list") == 0
    assert "part_of(price, till__total)" in capsys.readouterr().out


def test_an_instant_may_be_text(project):
    assert project.feature_get("till", {"shop": 7}, at="2024-01-01T12:30:00Z").age_seconds == 1800
    (found,) = project.feature_get([project.definitions.views["till"]], {"shop": 7}, at=LATER)
    assert found.status == "present"


def test_a_bare_date_is_its_midnight_and_an_end_before_its_start_is_told(project, capsys):
    stats = ["features", "stats", "till"]
    assert command(project, *stats, "--start", "2024-01-01", "--end", "2024-01-02", "--json") == 0
    assert json.loads(capsys.readouterr().out)["start"] == "2024-01-01T00:00:00Z"
    assert command(project, *stats, "--start", "2024-01-02", "--end", "2024-01-01") == 2
    assert "--end 2024-01-01T00:00:00Z is not after --start 2024-01-02T00:00:00Z" in capsys.readouterr().err
