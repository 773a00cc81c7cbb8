"""Real Delta tables with several versions: the one that is asked for is read, and which it was is recorded."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from seatrial import DeltaSource, Project, QuerySource, SetAside
from seatrial.data.delta import VersionMissing
from seatrial.data.reading import SourceEmpty, SourceMissing, SourceUnreadable, read
from seatrial.data.references import SnapshotGone
from seatrial.data.snapshot import SnapshotDamaged, load
from seatrial.data.sources import BadSource, ColumnMissing
from seatrial.verbs.runs import extract

AT = pa.array([datetime(2013, 1, 1, tzinfo=UTC)] * 2, pa.timestamp("us", tz="UTC"))


@pytest.fixture
def folder(tmp_path):
    """A Delta table `t` of three versions: two rows, four rows, and three after a deletion."""
    first = pa.table({"a": [4, 3], "k": ["x", "y"], "at": AT, "l": [[1.5], None]})
    write_deltalake(tmp_path / "t", first, partition_by=["k"])
    write_deltalake(tmp_path / "t", first.set_column(0, "a", pa.array([2, 1])), mode="append")
    DeltaTable(tmp_path / "t").delete("a = 3")
    return tmp_path


def rows(source, folder, **given):
    return read(source, folder=folder, **given).table


@pytest.mark.parametrize(("version", "expected"), [(0, [3, 4]), (1, [1, 2, 3, 4]), (2, [1, 2, 4]), (None, [1, 2, 4])])
def test_a_version_gives_its_rows_in_one_order_on_any_number_of_threads(folder, version, expected):
    first, second = (read(DeltaSource("t", version=version), folder=folder, threads=threads) for threads in (1, 2))
    assert sorted(first.table["a"].to_pylist()) == expected
    assert first.table.equals(second.table)
    assert first.versions == {"t": 2 if version is None else version}
    assert first.table.schema.types == [pa.int64(), pa.string(), AT.type, pa.list_(pa.float64())]


def test_a_copy_of_the_table_gives_the_same_rows(folder):
    shutil.copytree(folder / "t", folder / "copy", copy_function=shutil.copyfile)
    assert rows(DeltaSource("copy"), folder).equals(rows(DeltaSource("t"), folder))


def test_partitions_of_any_text_are_columns(tmp_path):
    table = pa.table({"a": [1, 2, 3, 4], "k": ["a b", "c/d=%20", None, "é"]})
    write_deltalake(tmp_path / "t", table, partition_by=["k"])
    write_deltalake(tmp_path / "t", table.set_column(0, "a", pa.array([5, 6, 7, 8])), mode="append")
    found = rows(DeltaSource("t"), tmp_path).sort_by("a")
    assert found["k"].to_pylist() == ["a b", "c/d=%20", None, "é"] * 2


def test_a_query_over_it_notes_its_version(folder):
    source = QuerySource(name="q", sql="SELECT sum(a) AS n FROM t", tables={"t": DeltaSource("t", version=1)})
    reading = read(source, folder=folder)
    assert (reading.table.to_pylist(), reading.versions) == ([{"n": 10}], {"t": 1})


def test_only_the_wanted_columns_are_read(folder):
    assert rows(DeltaSource("t"), folder, columns=["a"]).equals(rows(DeltaSource("t"), folder).select(["a"]))
    assert rows(DeltaSource("t"), folder, columns=["k"]).equals(rows(DeltaSource("t"), folder).select(["k"]))
    source = DeltaSource("t", set_aside=[SetAside("k = 'x'", "why")])
    assert rows(source, folder, columns=["a"]).to_pylist() == [{"a": 1}]
    with pytest.raises(ColumnMissing, match="no column 'b'"):
        rows(DeltaSource("t"), folder, columns=["b"])


def test_the_snapshot_records_the_version_that_was_read_and_a_new_version_is_seen(folder):
    source = DeltaSource("t", timezone="UTC")
    with Project(folder, definitions=[source]) as project:
        (first,) = project.snapshot()
        write_deltalake(
            folder / "t", pa.table({"a": [9, 8], "k": ["x", "y"], "at": AT, "l": [[2.5], None]}), mode="append"
        )
        (second,) = project.snapshot()
        assert (first.rows, second.rows) == (3, 5)
        events = [event for event in project.metadata.events() if event.kind == "snapshot.taken"]
    assert [event.body["versions"] for event in events] == [{"t": 2}, {"t": 3}]


@pytest.mark.parametrize("version", [3, 10**30])
def test_a_missing_version_is_named_with_those_there_are(folder, version):
    with pytest.raises(VersionMissing, match=f"no version {version}") as caught:
        rows(DeltaSource("t", version=version), folder)
    assert caught.value.expected == "It has the versions 0 to 2."


def test_a_version_whose_log_is_gone_is_named_as_missing(folder):
    table = DeltaTable(folder / "t")
    table.create_checkpoint()
    (folder / "t/_delta_log" / f"{0:020}.json").unlink()
    with pytest.raises(VersionMissing) as caught:
        rows(DeltaSource("t", version=0), folder)
    assert caught.value.expected == "It has version 2 alone."
    assert sorted(rows(DeltaSource("t"), folder)["a"].to_pylist()) == [1, 2, 4]


def test_a_version_whose_files_are_gone_says_so(folder):
    DeltaTable(folder / "t").vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(SourceUnreadable, match=r"lost files of version 1.*vacuum"):
        rows(DeltaSource("t", version=1), folder)


def test_an_empty_table_is_an_error(tmp_path):
    DeltaTable.create(tmp_path / "t", pa.schema([("a", pa.int64())]))
    with pytest.raises(SourceEmpty):
        rows(DeltaSource("t"), tmp_path)


def test_a_folder_that_is_no_delta_table_is_named_with_those_beside_it(folder):
    (folder / "plain").mkdir()
    for path, words in (("plain", "no folder _delta_log"), ("tt", "is not there"), ("no/where", "is not there")):
        with pytest.raises(SourceMissing, match=words) as caught:
            rows(DeltaSource(path), folder)
        assert path == "no/where" or "Delta tables t." in caught.value.expected


@pytest.mark.parametrize("feature", ["deletionVectors", "columnMapping", "somethingNew"])
def test_a_feature_that_cannot_be_read_is_named(folder, feature):
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [feature], "writerFeatures": [feature]}
    (folder / "t/_delta_log" / f"{3:020}.json").write_text(json.dumps({"protocol": protocol}) + "\n")
    with pytest.raises(SourceUnreadable, match=feature):
        rows(DeltaSource("t"), folder)
    assert rows(DeltaSource("t", version=2), folder).num_rows == 3


def test_a_damaged_log_or_file_is_one_clear_error(folder):
    (folder / "t/_delta_log" / f"{3:020}.json").write_text("{no json\n")
    with pytest.raises(SourceUnreadable):
        rows(DeltaSource("t"), folder)
    (folder / "t/_delta_log" / f"{3:020}.json").unlink()
    for file in (folder / "t").rglob("*.parquet"):
        file.write_bytes(b"PAR1 no more")
    with pytest.raises(SourceUnreadable) as caught:
        rows(DeltaSource("t"), folder)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("version", [-1, True, "1", 1.0])
def test_a_version_is_a_whole_number(version):
    with pytest.raises(BadSource, match="version="):
        DeltaSource("t", version=version)


# Snapshots by reference

BY_REFERENCE = """
from seatrial import DeltaSource, SetAside

t = DeltaSource("t", by_reference=True, set_aside=[SetAside(where="a = 2", reason="a test")])
sources = [t]
"""


@pytest.fixture
def referring(folder):
    (folder / "seatrial.toml").write_text("")
    (folder / "project.py").write_text(BY_REFERENCE)
    return folder


def test_a_snapshot_by_reference_copies_nothing_and_is_read_and_checked_in_place(referring):
    with Project(referring) as project:
        first = project.snapshot()[0]
        assert not project.snapshot()[0].new
        assert len(project.snapshots()) == 1
        assert not list((referring / ".seatrial").rglob("*.parquet"))
        assert project.snapshot_show(first.id)["taken"][0]["reference"]["version"] == 2
    write_deltalake(referring / "t", pa.table({"a": [9], "k": ["x"], "at": AT[:1], "l": [[2.5]]}), mode="append")
    with Project(referring) as project:
        second = project.snapshot()[0]
        found = project.snapshots_diff(first.id, second.id, key=["a"])
    assert (found.keyed.added, found.keyed.removed, found.keyed.unchanged) == (1, 0, 2)
    (referring / "project.py").write_text(BY_REFERENCE.replace("by_reference=True, ", ""))
    with Project(referring) as project:
        assert project.snapshot()[0].id == second.id  # a copy has the same id


def test_a_reference_to_a_version_that_was_vacuumed_is_one_clear_error(referring):
    with Project(referring) as project:
        first = project.snapshot()[0].id
    table = DeltaTable(referring / "t")
    table.delete("a = 4")
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    with Project(referring) as project:
        second = project.snapshot()[0].id
        with pytest.raises(SnapshotGone, match="refers to version 2 of the Delta table 't'"):
            project.snapshots_diff(first, second)


def test_a_reference_to_a_table_that_was_written_anew_is_found_out(referring):
    with Project(referring) as project:
        first = project.snapshot()[0].id
    shutil.rmtree(referring / "t")
    for a in (1, 2, 3):
        write_deltalake(referring / "t", pa.table({"a": [a], "k": ["x"], "at": AT[:1], "l": [[0.5]]}), mode="append")
    with Project(referring) as project, pytest.raises(SnapshotDamaged, match="holds other data than"):
        project.snapshots_diff(first, first)


def test_a_run_on_a_reference_is_reproduced_from_the_version_that_it_read(tmp_path):
    (tmp_path / "seatrial.toml").write_text("")
    (tmp_path / "project.py").write_text(
        "from seatrial import DeltaSource, Model\n"
        't = DeltaSource("t", by_reference=True, event_key=["id"])\n'
        'Model("m", task="regression", target="y", labels=t, key=["id"], features=["request:x"],\n'
        '      estimator="sklearn.linear_model.LinearRegression", cv_folds=2)\n'
    )
    rows = pa.table({"id": list(range(60)), "x": [i / 60 for i in range(60)], "y": [i * 2.0 for i in range(60)]})
    write_deltalake(tmp_path / "t", rows)
    with Project(tmp_path) as project:
        run = project.train("m").run
    write_deltalake(tmp_path / "t", rows.slice(0, 30), mode="overwrite")
    with Project(tmp_path) as project:
        assert project.reproduce(run).verdict == "identical"
        extract(project, project.record(run), tmp_path / "out")
        assert load(next((tmp_path / "out" / "data").iterdir()))[1].num_rows == 60
        DeltaTable(tmp_path / "t").vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        with pytest.raises(SnapshotGone, match="version 0") as error:
            project.reproduce(run)
    assert "Restore the table" in error.value.next
