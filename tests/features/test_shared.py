"""Shared views: another project's frozen definition and rows, read only, the same online as offline."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Project
from seatrial.core.clock import FixedClock
from seatrial.core.errors import NotInThisVersion, SeatrialError
from seatrial.data.snapshot import SnapshotDamaged
from seatrial.features.definitions import BadDefinition
from seatrial.features.frozen import FrozenDamaged, FrozenTooNew
from seatrial.features.lookup import Lookup
from seatrial.features.plan import FeaturePlan, plan_view
from seatrial.features.shared import (
    SharedProjectMissing,
    SharedReadOnly,
    SharedRowsMissing,
    SharedViewUnknown,
    shared_view,
)
from seatrial.stores.metadata import MetadataDamaged, MetadataTooNew

START = datetime(2024, 1, 1, tzinfo=UTC)
NOON = START + timedelta(hours=12)

THEIRS = """
from seatrial import Entity, ParquetSource, QuerySource, SetAside, agg, feature_view

departures = ParquetSource("departures.parquet", event_timestamp="left_at", known_at="told_at", event_key=["flight"],
                           set_aside=[SetAside("delay > 900", reason="a diversion")])
hours = QuerySource("SELECT *, delay / 60.0 AS hours FROM d WHERE delay > 0", tables={"d": departures}, name="hours",
                    event_timestamp="left_at", known_at="told_at", event_key=["flight"])

@feature_view(entity=Entity("carrier"), source=departures, ttl="7d", owner="ops", tags=["delay"])
class carrier_delay:
    \"\"\"How late a carrier departs.\"\"\"
    mean_6h = agg.mean("delay", window="6h")
    last = agg.last("delay")
    count_1d = agg.count(window="1d")

@feature_view(entity=Entity("carrier"), source=hours)
class carrier_hours:
    total = agg.sum("hours", window="2d")
"""

OURS = """
from seatrial import Model, ParquetSource, Split, on_request, shared_view

carrier_delay = shared_view("../theirs", "carrier_delay", digest="{delay}")
carrier_hours = shared_view("{url}", "carrier_hours", digest="{hours}")

@on_request
def share(carrier_delay__last: float, plan: float) -> float:
    return carrier_delay__last / plan

Model("late", task="binary", target="late", labels=ParquetSource("labels.parquet", event_timestamp="at"),
      features=[carrier_delay, carrier_hours, share], estimator="sklearn.tree.DecisionTreeClassifier",
      split=Split("stratified"), cv_folds=0)
"""


def departures(n=60):
    carriers = ["AA", "BB", "CC"]
    return [
        {
            "left_at": START + timedelta(minutes=7 * i),
            "told_at": START + timedelta(minutes=7 * i + i % 5),
            "flight": f"f{i}",
            "carrier": carriers[i % 3],
            "delay": float((i * 37) % 90 - 10) if i % 11 else 1000.0,
        }
        for i in range(n)
    ]


@pytest.fixture
def theirs(tmp_path):
    """A project that has materialized its two views, and the digests of both."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "project.py").write_text(THEIRS)
    pq.write_table(pa.Table.from_pylist(departures()), folder / "departures.parquet")
    with Project(folder, clock=FixedClock(NOON)) as project:
        project.materialize()
        digests = {view.name: view.digest for view in project.definitions.views.values()}
    return folder, digests


@pytest.fixture
def ours(theirs, tmp_path):
    """A project that uses them, of which nothing was run yet."""
    folder = tmp_path / "ours"
    folder.mkdir()
    _, digests = theirs
    url = (tmp_path / "theirs").as_uri()
    delay, hours = digests["carrier_delay"][:12], digests["carrier_hours"]
    (folder / "project.py").write_text(OURS.format(delay=delay, hours=hours, url=url))
    rows = [
        {
            "at": START + timedelta(minutes=23 * i),
            "carrier": ["AA", "BB", "CC", "ZZ"][i % 4],
            "plan": 100.0,
            "late": i % 3 == 0,
        }
        for i in range(30)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "labels.parquet")
    return folder


def opened(folder, at=NOON):
    return Project(folder, clock=FixedClock(at))


def files(folder):
    """Every file of a folder with its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_shared_view_is_the_frozen_one_in_digest_features_and_order(theirs, ours):
    folder, digests = theirs
    with opened(ours) as project, opened(folder) as other:
        for name, view in project.definitions.views.items():
            theirs_, mine = other.definitions.views[name], view
            assert mine.digest == digests[name]
            assert mine.columns == theirs_.columns
            assert mine.features == theirs_.features
            assert mine.entity.keys == theirs_.entity.keys
            assert (mine.owner, mine.description, mine.tags, mine.ttl_us) == (
                theirs_.owner,
                theirs_.description,
                theirs_.tags,
                theirs_.ttl_us,
            )
            assert plan_view(mine).features == plan_view(theirs_).features


def test_nothing_of_the_other_project_is_written_or_run_and_its_data_need_not_be_there(theirs, ours):
    folder, _ = theirs
    (folder / "project.py").write_text("raise SystemExit('the code of the other project was run')")
    (folder / "departures.parquet").unlink()
    before = files(folder)
    with opened(ours) as project:
        assert project.train().passed
        assert [one.view for one in project.materialize()] == ["carrier_delay", "carrier_hours"]
        project.validate()
        assert [one["source"] for one in project.snapshots()] == ["labels", "departures@theirs"]
    assert files(folder) == before


@pytest.mark.slow
def test_features_are_the_same_online_here_offline_here_and_offline_there(theirs, ours):
    from seatrial.features.join import as_of

    folder, _ = theirs
    instants = [START + timedelta(minutes=13 * i) for i in range(1, 40)]
    labels = pa.table(
        {
            "at": pa.array([at for at in instants for _ in range(4)], pa.timestamp("us", tz="UTC")),
            "carrier": ["AA", "BB", "CC", "ZZ"] * len(instants),
        }
    )
    joined = {}
    for place in (folder, ours):
        with opened(place) as project:
            views = project.definitions.views
            tables, _ = project._inputs.tables([view.source for view in views.values()], None)
            events = {name: tables[view.source.name] for name, view in views.items()}
            joined[place] = as_of(labels, {name: views[name] for name in ("carrier_delay", "carrier_hours")}, events)
    assert joined[ours].equals(joined[folder])
    assert joined[ours]["carrier_hours__total"].null_count < len(labels)
    rows = iter(joined[ours].to_pylist())
    for at in instants:
        with opened(ours, at) as project:
            project.materialize()
            views = project.definitions.views.values()
            lookup = Lookup(FeaturePlan(views=tuple(map(plan_view, views))), project.online)
            for row in (next(rows) for _ in range(4)):
                found = lookup.assemble({"carrier": row["carrier"]}, project.now_us).columns
                assert {name: found[name] for name in row if name != "at"} == {
                    name: value for name, value in row.items() if name != "at"
                }


def test_new_rows_are_seen_when_the_other_project_has_taken_a_snapshot(theirs, ours):
    folder, _ = theirs
    with opened(ours) as project:
        project.materialize()
    pq.write_table(pa.Table.from_pylist(departures(80)), folder / "departures.parquet")
    with opened(ours) as project:
        assert [one.written for one in project.materialize()] == [0, 0]
    with opened(folder) as project:
        project.snapshot()
    with opened(ours) as project:
        assert project.materialize("carrier_delay")[0].written == 18  # two of the twenty are set aside there


def test_what_the_other_project_is_writing_right_now_is_seen(theirs, ours):
    folder, _ = theirs
    with opened(folder) as other:
        pq.write_table(pa.Table.from_pylist(departures(80)), folder / "departures.parquet")
        other.snapshot()  # still open, its log not yet folded into the file
        assert (folder / ".seatrial" / "metadata.db-wal").stat().st_size
        with opened(ours) as project:
            assert project.materialize("carrier_delay")[0].rows == 72
        other.snapshot()


def test_a_version_that_was_changed_since_can_still_be_used(theirs, ours):
    folder, _ = theirs
    (folder / "project.py").write_text(THEIRS.replace('"6h"', '"8h"'))
    with opened(folder) as project:
        project.materialize()
    with opened(ours) as project:
        assert project.definitions.views["carrier_delay"].features["mean_6h"].window_us == 6 * 3600 * 10**6


def test_loading_a_project_asks_nothing_of_the_other_one(theirs, ours):
    folder, _ = theirs
    shutil.rmtree(folder)
    with opened(ours) as project:
        assert [status.model for status in project.status()] == ["late"]
        assert project.deployments() == []
        assert str(project.definitions.views["carrier_delay"]).startswith("shared_view('../theirs', 'carrier_delay'")


def test_what_does_not_need_the_other_project_works_while_it_is_away(theirs, ours):
    folder, _ = theirs
    text = (ours / "project.py").read_text()
    (ours / "project.py").write_text(
        text
        + "Model('own', task='binary', target='late', labels=ParquetSource('labels.parquet', event_timestamp='at'),"
        " features=['request:plan', 'request:carrier'], estimator='lightgbm.LGBMClassifier', cv_folds=0)\n"
    )
    shutil.rmtree(folder)
    with opened(ours) as project:
        assert [one.source for one in project.snapshot("labels")] == ["labels"]
        assert project.train("own").passed
        with pytest.raises(SharedProjectMissing):
            project.train("late")
        with pytest.raises(SharedProjectMissing):
            project.snapshot()


def test_a_shared_view_is_frozen_here_too_and_can_be_shared_on(theirs, ours, tmp_path):
    _, digests = theirs
    with opened(ours) as project:
        project.materialize()
        frozen = project.metadata.records("view", "carrier_hours")
        here = [one.digest for one in project.definitions.views.values()]
    assert len(frozen) == 1
    third = tmp_path / "third"
    third.mkdir()
    views = [shared_view("../ours", name, digest=digest) for name, digest in digests.items()]
    with Project(third, clock=FixedClock(NOON), definitions=views) as project:
        assert [one.entities for one in project.materialize()] == [3, 3]
        assert [view.digest for view in views] == here
        assert views[0].source.name == "departures@theirs@ours"


@pytest.mark.parametrize("name", ["carrier_delay", "departures@theirs"])
def test_rows_cannot_be_pushed_to_a_view_of_another_project(theirs, ours, name):
    folder, _ = theirs
    with opened(ours) as project, pytest.raises(SharedReadOnly, match=f"belongs to the project in {folder}") as caught:
        project.push(name, departures(1))
    assert caught.value.exit_code == 4


def test_a_live_release_that_reads_a_shared_view_keeps_it_from_being_dropped(theirs, ours):
    with opened(ours) as project:
        project.train()
        project.release()
        project.deploy(reason="a test")
    text = (ours / "project.py").read_text()
    (ours / "project.py").write_text(
        text.replace("carrier_delay, carrier_hours, share]", "carrier_delay, share]").replace(
            "carrier_hours = ", "0 and "
        )
    )
    with (
        opened(ours) as project,
        pytest.raises(SeatrialError, match="live in late, reads view 'carrier_hours'") as caught,
    ):
        project.materialize()
    assert "with its source 'hours@theirs', is no longer declared by shared_view()" in str(caught.value)


def test_the_other_project_may_move_and_change_its_name(theirs, ours, tmp_path):
    folder, _ = theirs
    with opened(ours) as project:
        project.train()
        project.release()
        project.deploy(reason="a test")
    folder.rename(tmp_path / "moved")
    text = (ours / "project.py").read_text()
    (ours / "project.py").write_text(text.replace("/theirs", "/moved"))
    (tmp_path / "moved" / "seatrial.toml").write_text('name = "flights"')
    with opened(ours) as project:
        assert [(one.view, one.entities, one.problem) for one in project.materialize()] == [
            ("carrier_delay", 3, ""),
            ("carrier_hours", 3, ""),
        ]
        assert project.definitions.views["carrier_hours"].source.name == "hours@flights"


# What can be wrong


def used(folder, url="../theirs", name="carrier_delay", digest="0" * 12):
    with Project(folder, clock=FixedClock(NOON), definitions=[shared_view(url, name, digest=digest)]) as project:
        project.materialize()


def test_a_folder_that_is_not_there_and_one_that_keeps_nothing_are_named(theirs, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    with pytest.raises(SharedProjectMissing, match=f"there is no folder {tmp_path}/nowhere"):
        used(here, "../nowhere")
    with pytest.raises(SharedProjectMissing, match="keeps nothing yet"):
        used(here, "../here")


def test_a_digest_that_was_not_frozen_lists_those_that_were(theirs, tmp_path):
    folder, digests = theirs
    with pytest.raises(SharedViewUnknown, match="has frozen view 'carrier_delay', but not as 000000000000") as caught:
        used(folder)
    assert f"There it is {digests['carrier_delay'][:12]} (frozen 2024-01-01T12:00:00Z)" in str(caught.value)
    with pytest.raises(SharedViewUnknown, match="has frozen no view 'carrier_delays'") as caught:
        used(folder, name="carrier_delays")
    assert "Did you mean 'carrier_delay'?" in str(caught.value)


def test_a_record_that_was_edited_or_is_newer_is_refused(theirs, ours):
    folder, digests = theirs
    path = folder / ".seatrial" / "metadata.db"
    change(path, "UPDATE records SET body = replace(body, '604800000000', '604800000001') WHERE kind = 'view'")
    with pytest.raises(FrozenDamaged, match="view 'carrier_delay' in record"):
        used(ours, digest=digests["carrier_delay"])
    change(path, "UPDATE records SET format = 2 WHERE kind = 'view'")
    with pytest.raises(FrozenTooNew):
        used(ours, digest=digests["carrier_delay"])


def test_a_newer_or_damaged_store_is_named(theirs, ours):
    folder, digests = theirs
    path = folder / ".seatrial" / "metadata.db"
    change(path, "PRAGMA user_version=99")
    with pytest.raises(MetadataTooNew, match=f"{folder}.* has the format 99"):
        used(ours, digest=digests["carrier_delay"])
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(MetadataDamaged, match=str(folder)):
        used(ours, digest=digests["carrier_delay"])


def test_a_snapshot_that_is_gone_or_damaged_is_named(theirs, ours):
    folder, digests = theirs
    (snapshot,) = (folder / ".seatrial" / "objects" / "snapshots").iterdir()
    data = snapshot.read_bytes()
    snapshot.write_bytes(data[:-100])
    with pytest.raises(SnapshotDamaged, match=snapshot.name):
        used(ours, digest=digests["carrier_delay"])
    snapshot.unlink()
    with pytest.raises(SharedRowsMissing, match=f"{snapshot.stem} of source 'departures' is no longer in") as caught:
        used(ours, digest=digests["carrier_delay"])
    assert f"Run `seatrial snapshot departures` in {folder}" in str(caught.value)
    change(folder / ".seatrial" / "metadata.db", "DELETE FROM heads WHERE kind = 'snapshot'")
    with pytest.raises(SharedRowsMissing, match="has no snapshot of source 'departures'"):
        used(ours, digest=digests["carrier_delay"])


@pytest.mark.parametrize("url", ["s3://bucket/project", "https://user:secret@host/project"])
def test_other_kinds_of_address_are_not_in_this_version(url):
    with pytest.raises(NotInThisVersion) as caught:
        shared_view(url, "carrier_delay", digest="0" * 12)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "name", "digest"),
    [
        ("", "v", "0" * 12),
        (None, "v", "0" * 12),
        ("file://host/folder", "v", "0" * 12),
        ("../a", "a b", "0" * 12),
        ("../a", "v", "0" * 11),
        ("../a", "v", "0" * 65),
        ("../a", "v", "x" * 12),
        ("../a", "v", None),
    ],
)
def test_a_reference_that_cannot_be_meant_is_a_bad_definition(url, name, digest):
    with pytest.raises(BadDefinition):
        shared_view(url, name, digest=digest)


def change(path, statement):
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
