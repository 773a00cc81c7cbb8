"""Batches of files: the whole way, from Parquet files to an output, with every way in which it can be stopped."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from seatrial import Project, cli
from seatrial.core.errors import Unavailable, UsageError
from seatrial.core.windows import BadWindow, Window, parse_window
from seatrial.data.reading import DataWarning
from seatrial.serving.batch import files, sinks
from seatrial.serving.batch.files import (
    BatchInputChanged,
    BatchInputMissing,
    BatchInputUnreadable,
    BatchRowsRefused,
    BatchWorkerDied,
    Stage,
    Task,
    input_files,
    tasks_of,
)
from seatrial.serving.batch.rows import BatchColumnMissing
from seatrial.serving.batch.sinks import BadSink, SinkBusy, SinkTaken, only_one
from seatrial.serving.scoring import stored
from seatrial.testing import FakeClock
from seatrial.verbs import batches
from seatrial.verbs.batches import BatchColumnTaken, window_or_path
from tests.worlds import HOUR, START, write_project

NOW = START + 500 * HOUR


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A project with a deployed model that looks features up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_POLICY_APPROVAL", "none")
        patch.setenv("SEATRIAL_STORES_MLFLOW", "")
        folder = write_project(tmp_path_factory.mktemp("batches"))
        with Project(folder, clock=FakeClock(NOW)) as project:
            project.materialize(at=NOW)
            project.train("late")
            project.release("late")
            project.deploy("late", reason="for a test")
            yield project


@pytest.fixture
def rows(world, tmp_path):
    """A file of 400 rows in five row groups, without features."""
    path = tmp_path / "rows.parquet"
    pq.write_table(labels(world), path, row_group_size=90)
    return path


def labels(world):
    return pq.read_table(world.folder / "scheduled.parquet").drop(["late", "known"])


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 50 rows, scored in this process."""
    monkeypatch.setattr(files, "PART_ROWS", 50)


def joined(world, number):
    """That many rows with features, so that nothing has to be joined."""
    random = np.random.default_rng(1)
    return pa.table(
        {
            "flight": [f"F{place}" for place in range(number)],
            "at": pa.array([START] * number, pa.timestamp("us", "UTC")),
            "distance": random.normal(size=number),
            "carrier_delay__mean_24h": random.normal(size=number).astype(np.float32),
        }
    )


def killed(world, rows, out, monkeypatch, *, after, **how):
    """A batch that ends after so many parts without a chance to tidy up."""
    count = 0
    done = Stage.table

    def counted(self, path):
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt
        return done(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "table", counted)
        with pytest.raises(KeyboardInterrupt):
            world.predict_files("late", rows, to=out, **how)


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# -- answers


def test_answers_are_those_of_the_service_with_features_as_of_the_same_instant(world, rows, tmp_path):
    done = world.predict_files("late", rows, to=tmp_path / "out.parquet")
    out, asked = pq.read_table(tmp_path / "out.parquet"), labels(world)
    assert out.column_names == "flight at prediction probability release model_version predicted_at".split()
    assert out["flight"].to_pylist() == asked["flight"].to_pylist()
    for place in (398, 399):  # the online store keeps the last of them
        fields = {name: asked[name][place].as_py() for name in ("carrier", "distance")}
        [answer] = world.predict("late", [fields], at=asked["at"][place].as_py())
        assert (out["prediction"][place].as_py(), out["probability"][place].as_py()) == (
            answer["prediction"],
            answer["probability"],
        )
        assert (out["release"][place].as_py(), out["model_version"][place].as_py()) == (answer["release"], "1")
    assert (done.rows, done.features, done.scored) == (400, "joined", 400)
    assert set(out["predicted_at"].to_pylist()) == {NOW}
    assert hidden(tmp_path) == []


def test_features_may_be_columns_and_then_no_instant_is_needed(world, tmp_path):
    given = joined(world, 300).drop(["at"])
    pq.write_table(given, tmp_path / "rows.parquet")
    done = world.predict_files("late", tmp_path / "rows.parquet", to=tmp_path / "out.parquet", keep=["none"])
    assert (done.features, done.kept, done.rows) == ("columns", [], 300)
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 300


def test_a_folder_is_scored_in_the_order_of_its_files(world, rows, tmp_path):
    folder = tmp_path / "in"
    (folder / "b=2").mkdir(parents=True)
    whole = labels(world)
    pq.write_table(whole.slice(0, 150), folder / "a.parquet")
    pq.write_table(whole.slice(150), folder / "b=2" / "x.parquet", row_group_size=7)
    (folder / "_SUCCESS").touch()
    done = world.predict_files("late", folder, to=tmp_path / "out", keep=["all"])
    one = world.predict_files("late", rows, to=tmp_path / "one.parquet", keep=["all"])
    assert (done.files, done.rows, one.rows) == (2, 400, 400)
    assert pq.read_table(tmp_path / "out" / "part-00000.parquet") == pq.read_table(tmp_path / "one.parquet")


def test_several_processes_give_the_same_file(world, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PART_ROWS", 4_000)
    pq.write_table(joined(world, 25_000), tmp_path / "rows.parquet", row_group_size=11_000)
    one = world.predict_files("late", tmp_path / "rows.parquet", to=tmp_path / "one.parquet", workers=1)
    two = world.predict_files("late", tmp_path / "rows.parquet", to=tmp_path / "two.parquet", workers=2)
    assert (one.workers, two.workers) == (1, 2)
    first, second = (pq.read_table(tmp_path / name) for name in ("one.parquet", "two.parquet"))
    assert first == second
    assert first.num_rows == 25_000


def test_a_file_without_rows_gives_an_output_without_rows(world, rows, tmp_path):
    pq.write_table(labels(world).slice(0, 0), rows)
    assert world.predict_files("late", rows, to=tmp_path / "out.parquet").rows == 0
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_one_record_of_a_batch_says_what_it_was_made_from(world, rows, tmp_path):
    done = world.predict_files("late", rows, to=tmp_path / "out.parquet")
    told = world.lineage(done.batch)
    kinds = [node.kind for node in told.nodes]
    assert {"batch", "release", "snapshot", "file", "run", "version"} <= set(kinds)
    assert any(event.kind == "batch.scored" for event in world.audit_list())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("at", pa.timestamp("ns", "UTC")),
        ("at", pa.timestamp("ms", "America/New_York")),
        ("carrier", pa.large_string()),
        ("carrier", pa.dictionary(pa.int8(), pa.string())),
        ("distance", pa.float32()),
    ],
)
def test_columns_as_pandas_and_polars_write_them_give_the_same(world, rows, tmp_path, name, kind):
    world.predict_files("late", rows, to=tmp_path / "one.parquet")
    given = labels(world)
    column = given[name].dictionary_encode() if pa.types.is_dictionary(kind) else given[name].cast(kind)
    pq.write_table(given.set_column(given.column_names.index(name), name, column), rows, row_group_size=100)
    world.predict_files("late", rows, to=tmp_path / "two.parquet")
    one, two = (pq.read_table(tmp_path / name) for name in ("one.parquet", "two.parquet"))
    assert one["flight"].equals(two["flight"])
    different = pc.max(pc.abs(pc.subtract(one["probability"], two["probability"]))).as_py()
    assert different < (1e-6 if name == "distance" else 1e-15)


def test_an_instant_without_a_zone_is_read_as_utc_with_a_note(world, rows, tmp_path):
    world.predict_files("late", rows, to=tmp_path / "one.parquet")
    given = labels(world)
    pq.write_table(given.set_column(given.column_names.index("at"), "at", given["at"].cast(pa.timestamp("us"))), rows)
    with pytest.warns(DataWarning, match="'at'"):
        world.predict_files("late", rows, to=tmp_path / "two.parquet")
    one, two = (pq.read_table(tmp_path / name) for name in ("one.parquet", "two.parquet"))
    assert one["probability"].equals(two["probability"])


# -- stopped and begun again


def test_a_killed_batch_goes_on_where_it_was_and_gives_the_same(world, rows, tmp_path, small_parts, monkeypatch):
    out = tmp_path / "out.parquet"
    whole = world.predict_files("late", rows, to=tmp_path / "whole.parquet")
    killed(world, rows, out, monkeypatch, after=3)
    assert not out.exists()
    world.clock.advance("1h")
    again = world.predict_files("late", rows, to=out)
    world.clock.set(NOW)
    assert (whole.scored, again.scored) == (400, 400 - 2 * (50 + 40))
    assert pq.read_table(out) == pq.read_table(tmp_path / "whole.parquet")
    assert hidden(tmp_path) == []


def test_the_same_batch_again_scores_nothing_and_changes_nothing(world, rows, tmp_path):
    out = tmp_path / "out.parquet"
    world.predict_files("late", rows, to=out)
    before = out.read_bytes()
    again = world.predict_files("late", rows, to=out)
    assert (again.batch, again.scored, again.rows) == (None, 0, 400)
    assert out.read_bytes() == before


def test_an_input_that_changed_between_is_told_and_scored_again(world, rows, tmp_path, small_parts, monkeypatch):
    killed(world, rows, tmp_path / "out.parquet", monkeypatch, after=3)
    pq.write_table(labels(world).slice(0, 200), rows)
    again = world.predict_files("late", rows, to=tmp_path / "out.parquet")
    assert (again.changed, again.scored, again.rows) == (["rows.parquet"], 200, 200)


def test_a_file_that_changes_while_it_is_scored_is_noticed(world, rows, tmp_path, monkeypatch):
    done = Stage.table

    def meanwhile(self, path):
        pq.write_table(labels(world).slice(0, 10), rows)
        return done(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "table", meanwhile)
        with pytest.raises(BatchInputChanged):
            world.predict_files("late", rows, to=tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
    assert world.predict_files("late", rows, to=tmp_path / "out.parquet").rows == 10


def test_a_part_that_lost_its_bytes_is_scored_again(world, rows, tmp_path, small_parts, monkeypatch):
    out = tmp_path / "out.parquet"
    killed(world, rows, out, monkeypatch, after=3)
    stage = tmp_path / ".out.parquet.batch"
    torn = sorted(path for path in stage.glob("*.arrow") if ".aside" not in path.name)[:2]
    torn[0].write_bytes(b"")
    torn[1].write_bytes(torn[1].read_bytes()[:-100])
    kept = {path.name for path in stage.glob("*.json")} - {f"{path.stem}.json" for path in torn} - {"journal.json"}
    sizes = [json.loads((stage / name).read_bytes())["rows"] for name in kept]
    assert world.predict_files("late", rows, to=out).scored == 400 - sum(sizes)


RUN = """
import sys
from pathlib import Path
from seatrial import Project
from seatrial.data.reading import DataWarning
from seatrial.serving.batch import files
from seatrial.serving.batch import sinks
from seatrial.serving.scoring import stored
from seatrial.testing import FakeClock
from tests.worlds import HOUR, START
files.PART_ROWS = 10_000
with Project(sys.argv[1], clock=FakeClock(START + 500 * HOUR)) as project:
    print("started", flush=True)
    project.predict_files("late", sys.argv[2], to=sys.argv[3], workers=2)
"""


def test_kill_9_at_any_moment_leaves_no_half_file_and_loses_no_finished_part(world, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PART_ROWS", 10_000)
    path, out = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    pq.write_table(joined(world, 200_000), path)
    stage = tmp_path / ".out.parquet.batch"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(world.folder), str(path), str(out)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        while len(list(stage.glob("*.json"))) < 6 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    done = len([path for path in stage.glob("*.json") if path.name != "journal.json"])
    again = world.predict_files("late", path, to=out, workers=1)
    assert 0 < again.scored <= 200_000 - 10_000 * done
    assert pq.read_table(out)["flight"].to_pylist() == [f"F{place}" for place in range(200_000)]


MEMORY = """
import sys
from pathlib import Path
from seatrial import Project
from seatrial.testing import FakeClock
from tests.worlds import HOUR, START
def peak():
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
with Project(sys.argv[1], clock=FakeClock(START + 500 * HOUR)) as project:
    for name in ("small", "large"):
        project.predict_files("late", f"{sys.argv[2]}/{name}.parquet", to=f"{sys.argv[2]}/{name}.out.parquet",
                              keep=["all"], workers=1)
        print(peak())
"""


@pytest.mark.long
def test_memory_does_not_hang_on_the_size_of_the_file(world, tmp_path):
    """140,000 rows of 110 bytes and ten times as many: 125 MB more in the file, and less than 45 MiB in memory."""
    random = np.random.default_rng(0)
    table = joined(world, 140_000)
    for number in range(10):
        table = table.append_column(f"more{number}", pa.array(random.random(len(table))))
    pq.write_table(table, tmp_path / "small.parquet")
    with pq.ParquetWriter(tmp_path / "large.parquet", table.schema) as writer:
        for _ in range(10):
            writer.write_table(table)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(world.folder), str(tmp_path)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    small, large = (int(line) for line in done.stdout.split())
    assert (tmp_path / "large.parquet").stat().st_size > 110 * 2**20
    assert large - small < 45 * 2**10, f"{large - small} KiB more, of {large} KiB"


def test_two_at_once_on_one_output_are_not_let_in(world, rows, tmp_path):
    with only_one(tmp_path / ".out.parquet.batch" / "lock", "out"), pytest.raises(SinkBusy):
        world.predict_files("late", rows, to=tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


# -- what is refused, before anything is written


def refused(world, rows, out, error, **how):
    with pytest.raises(error) as raised:
        world.predict_files("late", rows, to=out, **how)
    assert not out.exists()
    return raised.value


def test_bad_rows_are_refused_or_set_aside_with_their_place_and_reason(world, tmp_path, small_parts):
    rows, out = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    given = labels(world)
    distance = given["distance"].to_pylist()
    distance[70] = float("inf")
    given = given.set_column(given.column_names.index("distance"), "distance", pa.array(distance))
    at = given["at"].to_pylist()
    at[222] = None
    given = given.set_column(given.column_names.index("at"), "at", pa.array(at, pa.timestamp("us", "UTC")))
    pq.write_table(given, rows)
    refused(world, rows, out, BatchRowsRefused)
    done = world.predict_files("late", rows, to=out, set_aside=tmp_path / "bad.parquet")
    assert (done.rows, sum(done.set_aside.values())) == (398, 2)
    assert done.scored < 400  # what the call that was refused had scored is not scored again
    bad = pq.read_table(tmp_path / "bad.parquet").to_pylist()
    assert [(one["file"], one["row"], one["code"]) for one in bad] == [
        ("rows.parquet", 70, "signature.input_not_exact"),
        ("rows.parquet", 222, "batch.no_instant"),
    ]
    good = [one for place, one in enumerate(given["flight"].to_pylist()) if place not in (70, 222)]
    assert pq.read_table(out)["flight"].to_pylist() == good


def test_what_is_no_parquet_is_told(world, tmp_path):
    out = tmp_path / "out.parquet"
    refused(world, tmp_path / "none.parquet", out, BatchInputMissing)
    (tmp_path / "in").mkdir()
    refused(world, tmp_path / "in", out, BatchInputMissing)
    for name, data in (("empty", b""), ("text", b"a,b\n1,2\n"), ("cut", b"PAR1" + bytes(100))):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(data)
        refused(world, path, out, BatchInputUnreadable)


def test_columns_that_are_missing_or_twice_are_told(world, rows, tmp_path):
    out = tmp_path / "out.parquet"
    pq.write_table(labels(world).drop(["carrier"]), rows)
    assert "'carrier' is needed by view 'carrier_delay'" in refused(world, rows, out, BatchColumnMissing).expected
    pq.write_table(labels(world).drop(["at"]), rows)
    refused(world, rows, out, BatchColumnMissing)
    pq.write_table(labels(world).append_column("prediction", pa.array([1] * 400)), rows)
    refused(world, rows, out, BatchColumnTaken, keep=["all"])
    refused(world, rows, out, UsageError, keep=["flihgt"])


def test_an_output_that_this_batch_did_not_write_is_left_alone(world, rows, tmp_path):
    out = tmp_path / "out.parquet"
    pq.write_table(pa.table({"precious": [1]}), out)
    with pytest.raises(SinkTaken):
        world.predict_files("late", rows, to=out)
    assert pq.read_table(out).column_names == ["precious"]
    out.unlink()
    world.predict_files("late", rows, to=out)
    other = rows.with_name("other.parquet")
    pq.write_table(labels(world), other)
    with pytest.raises(SinkTaken):
        world.predict_files("late", other, to=out)


def test_the_same_path_with_other_rows_replaces_its_own_output(world, rows, tmp_path):
    for to in ("out.parquet", "out"):
        pq.write_table(labels(world), rows)
        world.predict_files("late", rows, to=tmp_path / to)
        pq.write_table(labels(world).slice(0, 10), rows)
        world.predict_files("late", rows, to=tmp_path / to)
        assert len(pq.read_table(tmp_path / to)) == 10


def test_outputs_that_come_into_each_other_s_way_are_refused(world, rows, tmp_path):
    out = tmp_path / "in" / "out.parquet"
    out.parent.mkdir()
    pq.write_table(labels(world), out.parent / "rows.parquet")
    refused(world, out.parent, out, BadSink)
    refused(world, rows, tmp_path / "out.parquet", BadSink, set_aside=tmp_path / "out.parquet")
    with pytest.raises(BadSink):
        world.predict_files("late", rows, to=[tmp_path / "a.parquet", tmp_path / "a.parquet"])


def test_a_full_disk_is_told_and_the_output_is_as_it_was(world, rows, tmp_path, monkeypatch):
    out = tmp_path / "out.parquet"
    world.predict_files("late", rows, to=out)
    before = out.read_bytes()
    pq.write_table(labels(world).slice(0, 100), rows)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for where, what in ((files, "_write"), (sinks, "_write_file")):
        with monkeypatch.context() as patch:
            patch.setattr(where, what, full)
            with pytest.raises(Unavailable, match="No space"):
                world.predict_files("late", rows, to=out)
        assert out.read_bytes() == before
    assert world.predict_files("late", rows, to=out).rows == 100


def test_a_worker_that_dies_is_told_and_its_parts_are_scored_the_next_time(world, tmp_path, monkeypatch):
    pq.write_table(joined(world, 25_000), tmp_path / "rows.parquet", row_group_size=6_000)
    monkeypatch.setattr(files, "PART_ROWS", 3_000)
    run = files.Workers.run

    def killed_at_once(self, tasks):
        os.kill(self.pids[0], signal.SIGKILL)
        yield from run(self, tasks)

    with monkeypatch.context() as patch:
        patch.setattr(files.Workers, "run", killed_at_once)
        with pytest.raises(BatchWorkerDied):
            world.predict_files("late", tmp_path / "rows.parquet", to=tmp_path / "out.parquet", workers=2)
    assert world.predict_files("late", tmp_path / "rows.parquet", to=tmp_path / "out.parquet", workers=1).rows == 25_000


# -- the command


def command(world, *words):
    """Exit code, stdout as JSON and stderr of a command."""
    out, told = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(told):
        code = cli.run(["--project", str(world.folder), "--at", "2024-01-21T20:00:00Z", "--json", *map(str, words)])
    return code, json.loads(out.getvalue() or "null"), told.getvalue()


def test_the_command_scores_files_and_its_exit_code_says_how_it_went(world, rows, tmp_path):
    out = tmp_path / "out.parquet"
    code, done, _ = command(world, "predict", "late", "--batch", rows, "--to", out, "--keep", "flight")
    assert (code, done["rows"], done["kept"]) == (0, 400, ["flight"])
    assert command(world, "predict", "late", "--batch", rows, "--to", out, "--keep", "flight")[1]["batch"] is None
    assert command(world, "predict", "late", "--batch", rows)[0] == 2
    assert command(world, "predict", "late", "--to", out, "--request", "{}")[0] == 2
    assert command(world, "predict", "late", "--batch", "last-day", "--by-day", "at")[0] == 2
    assert command(world, "predict", "late", "--batch", rows, "--to", out, "--group", "g")[0] == 2
    assert command(world, "predict", "late", "--batch", tmp_path / "no.parquet", "--to", out)[0] == 2
    with only_one(tmp_path / ".out.parquet.batch" / "lock", "out"):
        assert command(world, "predict", "late", "--batch", rows, "--to", out)[0] == 5
    pq.write_table(labels(world).drop(["carrier"]), rows)
    code, _, told = command(world, "predict", "late", "--batch", rows, "--to", tmp_path / "new.parquet")
    assert (code, json.loads(told)["code"]) == (1, "batch.column_missing")


def test_the_command_answers_a_stream_until_it_is_empty(world, redis_server):
    for number in range(3):
        body = {"features": {"carrier": "AA", "distance": number / 3}}
        redis_server.ask("XADD", "requests", "*", "request", json.dumps(body))
    redis_server.ask("XADD", "requests", "*", "request", "{}")
    address = redis_server.address()
    words = ("predict", "late", "--stream", f"{address}/requests")
    code, done, _ = command(world, *words, "--to", f"{address}/predictions", "--until-empty")
    assert (code, done["answered"], done["refused"]) == (0, 3, 1)
    assert command(world, *words)[0] == 2
    assert command(world, *words, "--to", f"{address}/predictions", "--keep", "a")[0] == 2
    assert redis_server.ask("XLEN", "predictions") == 3


def test_several_outputs_hold_the_same_and_are_left_alone_the_second_time(world, rows, tmp_path):
    from deltalake import DeltaTable

    to = [f"delta:{tmp_path}/table", f"sqlite:///{tmp_path}/db?table=late", tmp_path / "out"]
    done = world.predict_files("late", rows, to=to)
    table, out = DeltaTable(tmp_path / "table"), pq.read_table(tmp_path / "out")
    assert len(done.to) == 3
    assert sorted(table.to_pyarrow_table()["flight"].to_pylist()) == out["flight"].to_pylist()
    assert world.predict_files("late", rows, to=to).batch is None
    assert DeltaTable(tmp_path / "table").version() == table.version()
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("DELETE FROM late WHERE flight = 'F0007'")
    connection.close()
    assert world.predict_files("late", rows, to=to).scored == 400  # somebody changed an output


def test_stored_answers_are_those_of_the_batch(world, rows, tmp_path):
    world.predict_files("late", rows, to=["online", tmp_path / "out.parquet"])
    out = pq.read_table(tmp_path / "out.parquet")
    found = stored.read(world.online, "late", "F0123")
    assert (found.prediction, found.probability) == (
        out["prediction"][123].as_py(),
        out["probability"][123].as_py(),
    )
    assert found.as_of == out["at"][123].as_py()


# -- the log


def test_rows_are_logged_once_when_asked_however_often_the_batch_is_begun(
    world, rows, tmp_path, small_parts, monkeypatch
):
    asked = labels(world).slice(0, 200).append_column("flight_of", pa.array(["x"] * 200))
    pq.write_table(asked, rows)
    killed(world, rows, tmp_path / "out.parquet", monkeypatch, after=2, log=True)
    done = world.predict_files("late", rows, to=tmp_path / "out.parquet", log=True)
    world.predict_files("late", rows, to=tmp_path / "elsewhere.parquet", log=True, keep=["all"])
    out = pq.read_table(tmp_path / "out.parquet")
    logged = world.log.rows(model="late").filter(pc.field("arm") == "batch")
    assert done.logged == 200
    assert sorted(logged["prediction_id"].to_pylist()) == sorted(out["prediction_id"].to_pylist())
    found = dict(zip(logged["request_id"].to_pylist(), logged["probability"].to_pylist(), strict=True))
    assert found == dict(zip(out["flight"].to_pylist(), out["probability"].to_pylist(), strict=True))
    assert "feature_carrier_delay__mean_24h" in logged.column_names


# -- cuts and windows


def test_a_window_of_the_labels_may_go_into_outputs_as_well(world, tmp_path):
    window = window_or_path("last-week", world.now_us)
    for _ in range(2):
        world.predict_batch("late", window, to=[tmp_path / "out.parquet", f"sqlite:///{tmp_path}/db?table=late"])
    out = pq.read_table(tmp_path / "out.parquet")
    logged = world.log.rows(model="late", window=window)
    said = dict(zip(logged["request_id"].to_pylist(), logged["probability"].to_pylist(), strict=True))
    assert 100 < len(out) == len(said)
    assert said == dict(zip(out["flight"].to_pylist(), out["probability"].to_pylist(), strict=True))
    with sqlite3.connect(tmp_path / "db") as connection:
        assert connection.execute("SELECT count(*), min(prediction) FROM late").fetchall() == [(len(out), 0)]
    connection.close()


@pytest.mark.parametrize("groups", [(10,), (400,), (30, 30, 30), (130, 5, 260, 50, 50, 1), (0, 0), ()])
@pytest.mark.parametrize("workers", [1, 3, 16])
def test_parts_hold_each_row_once_and_do_not_hang_on_the_number_of_workers(groups, workers, small_parts, tmp_path):
    path = tmp_path / "x.parquet"
    with pq.ParquetWriter(path, pa.schema([("a", pa.int64())])) as writer:
        for number in groups:
            writer.write_table(pa.table({"a": pa.array(range(number), pa.int64())}), row_group_size=max(1, number))
    [file] = input_files(path)
    tasks = tasks_of(file, {"release": "r"}, workers=workers, files=1)
    parts = [part for task in tasks for part in task.parts]
    alone = [part for task in tasks_of(file, {"release": "r"}, workers=1, files=1) for part in task.parts]
    assert parts == alone
    assert [part.start for part in parts] == [sum(one.rows for one in parts[:place]) for place in range(len(parts))]
    assert sum(part.rows for part in parts) == sum(groups)
    assert all(isinstance(task, Task) for task in tasks)
    assert len({part.id for part in parts}) == len(parts)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("last-hour", "2024-01-21T19:00:00Z/2024-01-21T20:00:00Z"),
        ("last-day", "2024-01-20/2024-01-21"),
        ("last-week", "2024-01-08/2024-01-15"),
        ("2024-01-01/2024-01-02", "2024-01-01/2024-01-02"),
    ],
)
def test_named_windows_are_the_last_whole_ones_before_the_present(world, text, window):
    assert window_or_path(text, world.now_us) == parse_window(window)
    assert isinstance(window_or_path(text, world.now_us), Window)


def test_a_window_that_is_not_known_is_told(world):
    with pytest.raises(BadWindow, match="last-month"):
        window_or_path("last-month", world.now_us)
    assert json.dumps(sorted(batches.CALENDAR)) == '["last-day", "last-hour", "last-week"]'
