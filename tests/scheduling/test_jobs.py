"""Runs of schedules: which is due, who may make it, and how it is recorded."""

from __future__ import annotations

import resource
import signal
import threading
from contextlib import suppress

import pytest

from seatrial.core.errors import Unavailable
from seatrial.scheduling import jobs, lease
from seatrial.scheduling.jobs import Due, Ended, JobRun, StillRunning
from seatrial.stores.metadata import MetadataStore
from tests.scheduling.worlds import HOUR, MINUTE, SECOND, START, World, hourly

TEN = START - 30 * SECOND


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def begin(world, schedule, found, **how):
    return jobs.begin(world.metadata, schedule, found, actor="test", by=world.by, now_us=world.now, **how)


def end(world, job, state="done", words=""):
    return jobs.end(world.metadata, job, Ended(state, words), actor="test", now_us=world.now)


def run(slot=TEN, state="done", attempt=1, ended=START):
    return JobRun("job_1", "hourly", [], "", attempt, state, "", "", "", slot_us=slot, ended_us=ended)


def test_nothing_is_due_before_the_first_instant_after_a_schedule_was_seen():
    assert jobs.due(hourly(), START, None, START + 59 * MINUTE) is None
    assert jobs.due(hourly(), START, None, START + HOUR) == Due(TEN + HOUR)


def test_what_was_run_is_not_due_again():
    assert jobs.due(hourly(), 0, run(), START) is None
    assert jobs.due(hourly(), 0, run(), TEN + HOUR) == Due(TEN + HOUR)


def test_after_downtime_one_run_stands_for_all_that_was_missed_and_says_so():
    found = jobs.due(hourly(), 0, run(), TEN + 5 * HOUR + 20 * MINUTE)
    assert found == Due(TEN + 5 * HOUR, missed=4)
    assert found.words == "4 instants were missed before; this run is for all of them"


def test_skipping_leaves_out_what_was_missed_and_keeps_what_is_due_now():
    skip = hourly(catch_up="skip")
    late = jobs.due(skip, 0, run(), TEN + 5 * HOUR + 20 * MINUTE)
    assert late == Due(TEN + 5 * HOUR, missed=4, skip=True)
    assert late.words == "5 instants were missed, and skipped"
    assert jobs.due(skip, 0, run(), TEN + 5 * HOUR + SECOND) == Due(TEN + 5 * HOUR, missed=4)


def test_a_clock_that_goes_back_makes_nothing_due_and_one_that_jumps_ahead_one_run():
    assert jobs.due(hourly(), 0, run(), START - 3 * HOUR) is None
    assert jobs.due(hourly(), 0, run(state="failed"), START - 3 * HOUR) is None
    assert jobs.due(hourly(), 0, run(), START + 400 * 24 * HOUR).slot_us == TEN + 400 * 24 * HOUR


@pytest.mark.parametrize(("state", "pause"), [("failed", MINUTE), ("timed out", MINUTE), ("stopped", 0), ("lost", 0)])
def test_a_run_that_failed_is_tried_again_after_its_pause(state, pause):
    failed = run(state=state)
    assert jobs.due(hourly(), 0, failed, START + pause) == Due(TEN, attempt=2)
    assert pause == 0 or jobs.due(hourly(), 0, failed, START + pause - 1) is None
    assert jobs.next_us(hourly(), 0, failed, START) == (TEN if pause == 0 else START + pause)


def test_the_second_pause_is_twice_as_long_and_the_last_attempt_ends_it():
    failed = run(state="failed", attempt=2)
    assert jobs.due(hourly(), 0, failed, START + 2 * MINUTE - 1) is None
    assert jobs.due(hourly(), 0, failed, START + 2 * MINUTE) == Due(TEN, attempt=3)
    assert jobs.due(hourly(), 0, run(state="failed", attempt=3), START + 30 * MINUTE) is None
    assert jobs.due(hourly(retries=0), 0, run(state="failed"), START + 30 * MINUTE) is None


@pytest.mark.parametrize("state", ["done", "refused", "skipped"])
def test_what_was_done_or_refused_is_not_tried_again(state):
    assert jobs.due(hourly(), 0, run(state=state), START + 30 * MINUTE) is None


def test_a_new_instant_comes_before_a_retry_of_the_old_one():
    assert jobs.due(hourly(), 0, run(state="failed"), TEN + HOUR) == Due(TEN + HOUR)


def test_a_run_is_recorded_with_its_start_its_end_and_its_words(world):
    job = begin(world, hourly(), Due(TEN, missed=2))
    assert (job.state, job.slot, job.attempt, job.by) == ("running", "2024-03-01T10:00:00Z", 1, "here:1")
    world.now += 3 * SECOND
    ended = Ended("failed", "no such model", 2, 2.9, 1.5, 10**8, "out.txt")
    assert jobs.end(world.metadata, job, ended, actor="test", now_us=world.now)
    kept = jobs.newest(world.metadata, "hourly")
    assert (kept.state, kept.exit_code, kept.seconds, kept.cpu_seconds) == ("failed", 2, 2.9, 1.5)
    assert kept.words == "no such model. 2 instants were missed before; this run is for all of them"
    assert (kept.started_at, kept.ended_at) == ("2024-03-01T10:00:30Z", "2024-03-01T10:00:33Z")
    assert [event.kind for event in world.metadata.events(subject=job.id)] == ["job.started", "job.ended"]


def test_a_slot_is_claimed_once_however_many_try_at_once(world):
    stores = [MetadataStore(world.metadata.path) for _ in range(8)]
    claimed, refused = [], []
    ready = threading.Barrier(len(stores))

    def claim(store):
        ready.wait()
        try:
            found = jobs.begin(store, hourly(), Due(TEN), actor="test", by="x", now_us=world.now)
        except StillRunning:
            refused.append(1)
        else:
            claimed.append(found)

    threads = [threading.Thread(target=claim, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 1
    assert len(refused) == 7
    assert len(jobs.history(world.metadata)) == 1


def test_a_slot_that_was_run_is_run_again_only_by_force(world):
    end(world, begin(world, hourly(), Due(TEN)))
    assert begin(world, hourly(), Due(TEN)) is None
    assert begin(world, hourly(), Due(TEN - HOUR)) is None
    again = begin(world, hourly(), Due(TEN), forced=True)
    assert again.attempt == 2


def test_a_run_whose_process_is_gone_is_lost_when_its_lease_has_ended(world):
    job = begin(world, hourly(), Due(TEN))
    with pytest.raises(StillRunning) as refused:
        begin(world, hourly(), Due(TEN + HOUR))
    assert (refused.value.exit_code, refused.value.facts["job"]) == (5, job.id)
    assert jobs.bury(world.metadata, "hourly", actor="test", now_us=world.now) is None
    world.now += lease.LEASE_US
    assert jobs.bury(world.metadata, "hourly", actor="test", now_us=world.now).id == job.id
    assert jobs.newest(world.metadata, "hourly").state == "lost"
    assert jobs.due(hourly(), 0, jobs.newest(world.metadata, "hourly"), world.now) == Due(TEN, attempt=2)
    assert not end(world, job)  # it was alive after all: too late
    assert jobs.newest(world.metadata, "hourly").state == "lost"


def test_a_lease_is_kept_by_renewing_and_a_lost_one_is_not_renewed(world):
    job = begin(world, hourly(), Due(TEN))
    for _ in range(5):
        world.now += lease.LEASE_US - 1
        assert lease.renew(world.metadata, "hourly", job.id, world.now)
    world.now += lease.LEASE_US
    jobs.bury(world.metadata, "hourly", actor="test", now_us=world.now)
    assert not lease.renew(world.metadata, "hourly", job.id, world.now)


def test_a_clock_that_goes_back_does_not_end_the_lease_of_a_run(world):
    begin(world, hourly(), Due(TEN))
    world.now -= 5 * HOUR
    with pytest.raises(StillRunning):
        begin(world, hourly(), Due(TEN - 5 * HOUR))
    assert jobs.bury(world.metadata, "hourly", actor="test", now_us=world.now) is None


def test_a_schedule_that_is_declared_anew_does_not_catch_up_with_instants_before(world):
    first = jobs.declare(world.metadata, hourly(), actor="test", at_us=START)
    assert jobs.declare(world.metadata, hourly(), actor="test", at_us=START + HOUR) == first == START
    other = hourly(retries=0)
    assert jobs.declared_us(world.metadata, other) == START  # its instants are the same
    changed = type(other)("monitor", "late", every="2h", name="hourly")
    assert jobs.declared_us(world.metadata, changed) is None
    assert jobs.declare(world.metadata, changed, actor="test", at_us=START + HOUR) == START + HOUR


def test_a_full_disk_claims_nothing_and_a_later_look_claims_it(world):
    begun = begin(world, hourly(), Due(TEN))
    size = world.metadata.path.with_name("metadata.db-wal").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(Unavailable):
            end(world, begun)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    with suppress(Unavailable):
        assert jobs.newest(world.metadata, "hourly").state == "running"
    assert end(world, begun)
    assert jobs.newest(world.metadata, "hourly").state == "done"
