"""The loop that starts runs: real processes that end well, fail, hang, print for ever and are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seatrial import Schedule
from seatrial.scheduling import jobs, lease
from seatrial.scheduling.child import KEPT, Child, Kept, wait
from seatrial.scheduling.control import UP, Control
from seatrial.stores import pauses
from seatrial.stores.metadata import MetadataStore
from tests.scheduling.worlds import HOUR, MINUTE, SECOND, World, hourly

ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def control(world, *schedules):
    return Control(world.metadata, schedules or (hourly(),), world.how(), say=world.said.append)


def turn(loop, world, until=lambda: True):
    """Look again and again, as the loop does, until nothing runs any more and `until` is so."""
    for _ in range(400):
        loop._next_look = 0.0
        loop.look()
        if not loop._running and until():
            return
        wait(loop._children(), 0.05)
    raise AssertionError(world.said)


def states(world, name="hourly"):
    return [(job.slot[11:16], job.attempt, job.state) for job in jobs.history(world.metadata, name)]


def seen(world, loop):
    """The schedule is seen for the first time, and then an hour goes by."""
    turn(loop, world)
    world.at("2024-03-01T11:00:01Z")


def test_a_due_run_is_made_in_a_process_of_its_own_and_recorded(world):
    world.code["hourly"] = "import json; print(json.dumps({'headline': 'all is well'}))"
    loop = control(world)
    turn(loop, world)
    assert states(world) == []  # the instants before it was declared are nobody's
    world.at("2024-03-01T11:00:01Z")
    turn(loop, world)
    (job,) = jobs.history(world.metadata)
    assert (job.state, job.words, job.exit_code, job.attempt) == ("done", "all is well", 0, 1)
    assert job.cpu_seconds > 0
    assert job.memory_bytes > 1_000_000
    assert "all is well" in Path(job.output).read_text()
    turn(loop, world)
    assert len(states(world)) == 1
    assert "hourly: done in" in world.said[-1]


def test_a_run_that_fails_is_tried_again_with_pauses_and_the_loop_goes_on(world):
    world.code["hourly"] = "raise SystemExit(1)"
    world.code["other"] = "print('fine')"
    loop = control(world, hourly(), Schedule("materialize", every="1h", name="other"))
    seen(world, loop)
    turn(loop, world)
    assert states(world) == [("11:00", 1, "failed")]
    assert states(world, "other") == [("11:00", 1, "done")]
    world.now += 59 * SECOND
    turn(loop, world)
    assert len(states(world)) == 1
    world.now += 2 * SECOND
    turn(loop, world)
    world.now += 2 * MINUTE
    turn(loop, world)
    world.now += 30 * MINUTE
    turn(loop, world)
    assert states(world) == [("11:00", 1, "failed"), ("11:00", 2, "failed"), ("11:00", 3, "failed")]
    assert jobs.newest(world.metadata, "hourly").words == "it ended with exit code 1, and said not why"


@pytest.mark.parametrize(
    ("code", "exit_code", "state", "words"),
    [
        ("gate.refused", 3, "refused", "no [gate.refused]"),
        ("retrain.over_budget", 4, "refused", "no [retrain.over_budget]"),
        ("project.unknown_name", 2, "refused", "no [project.unknown_name]"),
        ("rollout.none", 5, "done", "nothing to do: no"),
        ("metadata.busy", 6, "failed", "no [metadata.busy]"),
    ],
)
def test_an_explained_end_is_told_in_its_words(world, code, exit_code, state, words):
    problem = json.dumps({"code": code, "detail": "no"}, indent=2)
    text = f"note: something\n{problem}\n"
    world.code["hourly"] = f"import sys; sys.stderr.write({text!r}); sys.exit({exit_code})"
    loop = control(world)
    seen(world, loop)
    turn(loop, world)
    job = jobs.newest(world.metadata, "hourly")
    assert (job.state, job.words) == (state, words)


def test_a_run_that_hangs_and_takes_no_signal_is_killed_after_its_timeout(world, monkeypatch):
    monkeypatch.setattr("seatrial.scheduling.child.STOP_SECONDS", 0.2)
    world.code["hourly"] = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    loop = control(world, hourly(timeout="300ms"))
    seen(world, loop)
    turn(loop, world)
    job = jobs.newest(world.metadata, "hourly")
    assert (job.state, job.exit_code) == ("timed out", -signal.SIGKILL)
    assert job.words == "it was stopped after 0.3 s, its timeout"


def test_what_a_run_started_ends_with_it(world):
    world.code["hourly"] = (
        "import subprocess, sys; "
        "print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"
    )
    loop = control(world)
    seen(world, loop)
    turn(loop, world)
    job = jobs.newest(world.metadata, "hourly")
    pid = int(Path(job.output).read_text().splitlines()[-1])
    deadline = time.time() + 10
    while time.time() < deadline and _alive(pid):
        time.sleep(0.02)
    assert not _alive(pid)


def _alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_run_that_prints_megabytes_keeps_its_start_and_its_end(world):
    world.code["hourly"] = (
        "import sys; sys.stdout.write('first\\n' + 'x' * 5_000_000 + '\\nlast'); sys.stderr.write('talk')"
    )
    loop = control(world)
    seen(world, loop)
    turn(loop, world)
    job = jobs.newest(world.metadata, "hourly")
    kept = Path(job.output).read_text()
    assert job.state == "done"
    assert len(kept) < 3 * KEPT
    assert kept.startswith("== stdout, 5,000,011 bytes\nfirst\n")
    assert "bytes left out" in kept
    assert "last" in kept
    assert "== stderr, 4 bytes\ntalk" in kept


def test_only_the_newest_outputs_are_kept(world):
    world.code["hourly"] = "print(1)"
    (world.folder / "outputs").mkdir()
    for number in range(30):
        (world.folder / "outputs" / f"hourly.job_00{number:02}.txt").write_text("old")
    loop = control(world)
    seen(world, loop)
    turn(loop, world)
    files = sorted((world.folder / "outputs").iterdir())
    assert len(files) == 20
    assert str(files[-1]) == jobs.newest(world.metadata, "hourly").output


def test_a_run_is_told_with_the_verdict_of_its_report_however_long_that_is(world):
    world.code["hourly"] = (
        "import json; words = [{'words': 'w' * 50}] * 5000; "
        "print(json.dumps({'id': 'r', 'verdict': 'act', 'headline': 'Late \"again\".', 'found': words}, indent=2))"
    )
    loop = control(world)
    seen(world, loop)
    turn(loop, world)
    assert jobs.newest(world.metadata, "hourly").words == 'act: Late "again".'


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 17, 1000])
def test_what_is_kept_of_a_stream_is_its_start_and_its_end(size):
    data = bytes(33 + number % 90 for number in range(size))
    kept = Kept(8)
    for start in range(0, size, 3):
        kept.take(data[start : start + 3])
    text = kept.text()
    assert kept.total == size
    if size <= 16:
        assert text.encode() == data
    else:
        assert text.encode().startswith(data[:8])
        assert text.encode().endswith(data[-8:])
        assert f"{size - 16:,} bytes left out" in text
    assert kept.tail().encode() == data[-8:]


def test_a_long_run_is_not_started_a_second_time_and_what_it_missed_is_one_run(world):
    world.code["hourly"] = "import time; time.sleep(60)"
    loop = control(world)
    seen(world, loop)
    loop._next_look = 0.0
    loop.look()
    (running,) = loop._running
    world.at("2024-03-01T14:00:01Z")
    for _ in range(3):
        loop._next_look = 0.0
        loop.look()
    assert loop._running == [running]
    running.child._process.kill()
    world.code["hourly"] = ""
    turn(loop, world, until=lambda: len(states(world)) == 2)
    assert states(world) == [("11:00", 1, "failed"), ("14:00", 1, "done")]
    assert jobs.newest(world.metadata, "hourly").words == "2 instants were missed before; this run is for all of them"


def test_a_pause_is_obeyed_and_told_once_and_afterwards_it_goes_on(world):
    loop = control(world)
    seen(world, loop)
    with world.metadata.transaction() as transaction:
        pauses.pause(transaction, "late", reason="strike", until_us=None, actor="ada", at_us=world.now)
    for _ in range(3):
        turn(loop, world)
    assert states(world) == []
    told = [line for line in world.said if "strike" in line]
    assert len(told) == 1
    assert "hourly: due, but 'late' is paused by ada since 2024-03-01T11:00:01Z: strike" in told[0]
    with world.metadata.transaction() as transaction:
        pauses.resume(transaction, "late", reason="", actor="ada", at_us=world.now)
    turn(loop, world)
    assert states(world) == [("11:00", 1, "done")]


def test_a_clock_that_goes_back_makes_no_second_run(world):
    loop = control(world)
    seen(world, loop)
    turn(loop, world)
    world.at("2024-03-01T08:30:00Z")
    turn(loop, world)
    world.at("2024-03-01T11:30:00Z")
    turn(loop, world)
    assert states(world) == [("11:00", 1, "done")]


def test_a_store_that_is_away_is_waited_for_and_nothing_runs_meanwhile(world, tmp_path):
    loop = control(world)
    seen(world, loop)
    away = tmp_path / "away.db"
    blocker = MetadataStore(world.metadata.path, busy_seconds=0.1)
    loop._metadata = blocker
    with world.metadata.transaction():  # another process keeps it
        for _ in range(3):
            loop._next_look = 0.0
            loop.look()
    assert not away.exists()
    assert states(world) == []
    assert len([line for line in world.said if "Nothing is run meanwhile" in line]) == 1
    turn(loop, world)
    assert states(world) == [("11:00", 1, "done")]


def test_told_to_stop_it_lets_a_run_finish_within_the_grace(world):
    world.code["hourly"] = "import time; time.sleep(0.5); print('finished')"
    assert stopped_with(world, grace=30.0) == [("11:00", 1, "done")]


def test_and_stops_it_when_the_grace_is_over_so_that_the_next_one_makes_it_again(world):
    world.code["hourly"] = "import time; time.sleep(60)"
    assert stopped_with(world, grace=0.1) == [("11:00", 1, "stopped")]
    assert jobs.newest(world.metadata, "hourly").words.startswith("it was stopped, because")
    world.code["hourly"] = ""
    turn(control(world), world)
    assert states(world) == [("11:00", 1, "stopped"), ("11:00", 2, "done")]


def stopped_with(world, grace):
    loop = control(world)
    seen(world, loop)
    loop._next_look = 0.0
    loop.look()
    assert len(loop._running) == 1
    assert [one.holder for one in lease.present(world.metadata, UP, world.now)] == ["here:1"]
    heard, tell = os.pipe()
    os.write(tell, b".")
    loop.run([heard], grace_seconds=grace)
    os.close(heard)
    os.close(tell)
    assert lease.present(world.metadata, UP, world.now) == []
    return states(world)


def test_a_program_that_is_not_there_is_a_failed_run(world):
    how = world.how()
    object.__setattr__(how, "command", lambda one: ["/no/such/program"])
    loop = Control(world.metadata, [hourly()], how, say=world.said.append)
    seen(world, loop)
    turn(loop, world)
    assert jobs.newest(world.metadata, "hourly").words == "no process could be started: No such file or directory"


LOOP = """
import sys
from pathlib import Path
from seatrial import Schedule
from seatrial.scheduling.control import Control
from seatrial.scheduling.running import How
from seatrial.stores.metadata import MetadataStore

folder, name, program = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
how = How(lambda one: [sys.executable, "-S", "-E", "-c", program, str(folder), name], folder, {},
          folder / "outputs", by=name, lease_us=1_500_000)
print("ready", flush=True)
Control(MetadataStore(folder / "metadata.db"), [Schedule("materialize", every="1s", retries=1)], how,
        say=lambda line: print(line, file=sys.stderr, flush=True)).run([0], grace_seconds=10)
"""
TOLD = "import sys, os; open(sys.argv[1] + '/runs', 'a').write(sys.argv[2] + ' %d\\n' % os.getpid())"


def process(folder, name, program=TOLD):
    words = [sys.executable, "-c", LOOP, str(folder), name, program]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    started = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
    assert started.stdout.readline() == "ready\n"
    return started


def ended(started):
    with started:
        started.stdin.close()
        started.wait(30)
        started.stdout.close()


def until(true, seconds=30):
    deadline = time.time() + seconds
    while not true():
        assert time.time() < deadline
        time.sleep(0.05)


def test_two_processes_on_one_project_make_each_run_once_and_one_goes_on_when_the_other_is_killed(tmp_path):
    MetadataStore(tmp_path / "metadata.db").close()
    first, second = process(tmp_path, "first"), process(tmp_path, "second")
    metadata = MetadataStore(tmp_path / "metadata.db")
    until(lambda: len(jobs.history(metadata)) >= 3)
    first.kill()
    first.communicate()
    count = len(jobs.history(metadata))
    until(lambda: len(jobs.history(metadata)) >= count + 2)
    ended(second)
    made = jobs.history(metadata)
    slots = [(job.slot, job.attempt) for job in made]
    assert len(slots) == len(set(slots))
    assert len((tmp_path / "runs").read_text().splitlines()) <= len(made)
    assert all(job.state in ("done", "lost") for job in made)
    assert made[-1].by == "second"


def test_the_run_of_a_killed_process_dies_with_it_and_is_made_again_by_another_after_the_lease(tmp_path):
    MetadataStore(tmp_path / "metadata.db").close()
    first = process(tmp_path, "first", f"{TOLD}; import time; time.sleep(60)")
    metadata = MetadataStore(tmp_path / "metadata.db")
    until(lambda: (tmp_path / "runs").exists() and (tmp_path / "runs").read_text().endswith("\n"))
    child = int((tmp_path / "runs").read_text().split()[1])
    second = process(tmp_path, "second")
    first.kill()
    first.communicate()
    until(lambda: not _alive(child))
    until(lambda: any(job.by == "second" and job.state == "done" for job in jobs.history(metadata)))
    ended(second)
    lost, *after = jobs.history(metadata)
    assert (lost.by, lost.state, lost.words) == ("first", "lost", jobs.LOST)
    assert {job.by for job in after} == {"second"}


def test_a_child_that_is_told_to_stop_says_so(tmp_path):
    child = Child(["sleep", "60"], cwd=tmp_path, env={"PATH": os.defpath}, timeout_us=HOUR)
    child.stop()
    while (how := child.poll()) is None:
        wait([child], 0.05)
    assert (how.state, how.exit_code) == ("stopped", -signal.SIGTERM)
