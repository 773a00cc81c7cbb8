"""Data through Project and the command line: proposals, notes against the last snapshot, pages, differences by key."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Project
from seatrial.cli import run

PROJECT = """
from seatrial import ParquetSource, expect

orders = ParquetSource("orders.parquet", event_timestamp="at", event_key=["id"], expectations=[{expectations}])
sources = [orders]
"""


def put(folder, rows, *, shops="ab", nulls=0, start=0):
    at = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=start + i) for i in range(rows)]
    amount = [None] * nulls + [float(i) for i in range(rows - nulls)]
    shop = [shops[i % len(shops)] for i in range(rows)]
    table = pa.table({"id": list(range(rows)), "at": at, "amount": pa.array(amount, pa.float64()), "shop": shop})
    pq.write_table(table, folder / "orders.parquet")


def declare(folder, expectations=""):
    (folder / "project.py").write_text(PROJECT.format(expectations=expectations))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "seatrial.toml").write_text("")
    declare(tmp_path)
    put(tmp_path, 100)
    return tmp_path


def test_a_snapshot_tells_what_is_otherwise_than_in_the_last_and_stops_nothing(folder):
    with Project(folder) as project:
        assert project.snapshot()[0].notes == []
    put(folder, 40, shops="abc", nulls=30)
    with Project(folder) as project:
        first = project.snapshot()[0]
        assert [(note.severity, note.about, note.column) for note in first.notes] == [
            ("warn", "volume", ""),
            ("warn", "freshness", "at"),
            ("warn", "nulls", "amount"),
            ("warn", "categories", "shop"),
        ]
        assert project.snapshot()[0].notes == first.notes  # the same content is told of again


def test_an_expectation_that_only_warns_is_a_note_of_the_snapshot(folder):
    declare(folder, 'expect.between("amount", 0, 50, severity="warn")')
    with Project(folder) as project:
        assert [note.words for note in project.snapshot()[0].notes] == ["amount between 0 and 50: 49 rows"]


def test_volume_and_freshness_stop_the_line_where_they_are_declared(folder, capsys):
    declare(folder, 'expect.volume(at_least=0.5), expect.fresh("at", "2d")')
    at = ["--project", str(folder), "--at", "2026-01-06T00:00Z"]
    assert run([*at, "snapshot"]) == 0
    put(folder, 40, start=60)
    assert run([*at, "snapshot"]) == 1
    assert "40 rows, 100 before" in capsys.readouterr().err
    put(folder, 90)
    assert run(["--project", str(folder), "--at", "2026-02-01T00:00Z", "snapshot"]) == 1
    assert "newest is 2026-01-04T17:00Z" in capsys.readouterr().err


def test_a_proposal_is_code_that_the_same_rows_pass(folder, capsys):
    assert run(["--project", str(folder), "validate", "orders", "--propose"]) == 0
    code = capsys.readouterr().out
    declare(folder, code.partition("[")[2].partition("\n")[2].rpartition("]")[0])
    assert run(["--project", str(folder), "validate", "orders"]) == 0
    assert "✓ shop one of a, b" in capsys.readouterr().out
    put(folder, 100, shops="az")
    assert run(["--project", str(folder), "validate", "orders"]) == 1
    assert run(["--project", str(folder), "validate", "nothing", "--propose"]) == 2


def test_the_page_of_a_validation_holds_each_result_and_no_address(folder, capsys):
    declare(folder, 'expect.one_of("shop", ["a", "<b>"]), expect.not_null("amount")')
    page = folder / "v.html"
    assert run(["--project", str(folder), "validate", "--html", str(page)]) == 1
    text = page.read_text()
    assert "1 expectation of 2 failed" in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert run(["--project", str(folder), "validate", "--html", str(folder / "no" / "v.html")]) != 0
    assert "cannot be written" in capsys.readouterr().err


def test_snapshots_are_compared_by_key_in_text_json_and_as_a_page(folder, capsys):
    with Project(folder) as project:
        a = project.snapshot()[0].id
    put(folder, 102, nulls=1)
    with Project(folder) as project:
        b = project.snapshot()[0].id
    words = ["--project", str(folder), "snapshots", "diff", a, b, "--key", "id"]
    page = folder / "d.html"
    assert run([*words, "--html", str(page)]) == 0
    assert "by id: 2 rows added, 0 removed, 100 changed, 0 unchanged" in capsys.readouterr().out
    assert "id=100" in page.read_text()
    assert run([*words, "--json"]) == 0
    keyed = json.loads(capsys.readouterr().out)["keyed"]
    assert (keyed["added"], keyed["columns"][0]["name"], keyed["came"]) == (2, "amount", ["id=100", "id=101"])
    assert run([*words[:-1], "nothing"]) == 2
    assert run([*words[:-1], "shop"]) == 1
    assert "shop does not name each row of the first snapshot once" in capsys.readouterr().err
    assert run(words[:-2]) == 0


MODEL = """
from seatrial import Model, ParquetSource

orders = ParquetSource("orders.parquet", event_key=["id"])
Model(
    "m", task="regression", target="amount", labels=orders, key=["id"], features=["request:id"],
    estimator="sklearn.linear_model.LinearRegression", cv_folds=2,
)
"""


def test_training_repeats_what_is_otherwise_in_its_data(folder):
    (folder / "project.py").write_text(MODEL)
    with Project(folder) as project:
        project.snapshot()
    put(folder, 80, shops="abc")
    with Project(folder) as project:
        notes = project.train("m").notes
    assert "orders: shop has 'c' for the first time, in 32.5% of the rows" in notes
    assert "orders: 80 rows, 100 before" in notes


def test_a_snapshot_shows_its_columns_its_expectations_and_what_changed(folder, capsys):
    declare(folder, 'expect.unique("id"), expect.between("amount", 0, 50, severity="warn")')
    args = ["--project", str(folder)]
    assert run([*args, "snapshot"]) == 0
    put(folder, 40, shops="abc", nulls=30)
    assert run([*args, "snapshot"]) == 0
    capsys.readouterr()
    page = folder / "page.html"
    assert run([*args, "snapshots", "show", "orders", "--html", str(page)]) == 0
    text, html = capsys.readouterr().out, page.read_text()
    for told in ("40 rows, 100 before", "-60 rows", "id unique", "amount between 0 and 50", "35 %", "75 %", "shop"):
        assert told in text
        assert told in html
    assert "▁" in text
    assert html.count("<svg") == 3  # id, at, amount; a few texts are a list
    assert run([*args, "--json", "snapshots", "show", "orders"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["passed"] for one in shown["expectations"]] == [True, True]
    assert shown["changed_columns"] == ["id", "at", "amount", "shop"]
    assert sum(shown["profile"]["columns"][0]["bins"]) == 40


def test_snapshots_are_listed_with_what_changed_from_one_to_the_next(folder, capsys):
    args = ["--project", str(folder)]
    assert run([*args, "snapshots", "list"]) == 0
    assert "Next: seatrial snapshot" in capsys.readouterr().out
    assert run([*args, "snapshot"]) == 0
    put(folder, 40)
    assert run([*args, "snapshot"]) == 0
    capsys.readouterr()
    page = folder / "page.html"
    assert run([*args, "snapshots", "list", "--html", str(page)]) == 0
    text = capsys.readouterr().out
    assert "id, at, amount and 1 more" in text
    assert "id, at, amount and 1 more" in page.read_text()
    with Project(folder) as project:
        first, second = project.snapshots("orders")
    assert first["changed_columns"] is None
    assert second["changed_columns"] == ["id", "at", "amount", "shop"]


def test_a_snapshot_kept_without_profile_and_expectations_is_shown_without_them(folder):
    from seatrial.cli import render, snapshots

    with Project(folder) as project:
        project.snapshot()
        shown = project.snapshot_show("orders") | {"profile": None, "expectations": None}
    assert "Expectations" not in snapshots.page(shown)
    assert snapshots.details(render.plain(shown))


def test_a_snapshot_of_a_file_is_that_of_the_table_that_training_reads(folder):
    declare(folder, 'expect.unique("id"), expect.references("shop", shops, "name")')
    text = (folder / "project.py").read_text().replace("orders =", 'shops = ParquetSource("shops.parquet")\norders =')
    (folder / "project.py").write_text(text)
    pq.write_table(pa.table({"name": ["a", "b"]}), folder / "shops.parquet")
    with Project(folder) as project:
        taken = project.snapshot("orders")[0]
        assert taken.new
        again, _ = project._inputs.snapshots(project._inputs.raw(["orders"]), None)
        assert (again[0].id, again[0].new) == (taken.id, False)
        assert project.snapshot_table(project.record(taken.id))[1].num_rows == 100
