"""Who looks at a rollout, and that it is one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from seatrial.core.errors import Unavailable
from seatrial.deployment.controller import BadPace, Watched, lease, pace, watch
from seatrial.deployment.rollout import NoRollout
from seatrial.stores.metadata import HeadMoved, MetadataUnreachable
from seatrial.stores.pauses import Paused

HOLD = """
import sys
from pathlib import Path
from seatrial.deployment.controller import lease
with lease(Path(sys.argv[1]), "late"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that watches `late`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_one_is_told_who_watches(holder, tmp_path):
    with pytest.raises(Watched, match=f"by process {holder.pid}") as refused, lease(tmp_path, "late"):
        pass
    assert refused.value.exit_code == 5
    with lease(tmp_path, "other"):  # each rollout has a lease of its own
        pass


def test_the_lease_of_a_killed_one_is_free_at_once(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(10)
    with lease(tmp_path, "late"), pytest.raises(Watched, match=f"by process {os.getpid()}"), lease(tmp_path, "late"):
        pass


def looks(*outcomes):
    """A look that gives or raises one of the outcomes after the other."""
    left = list(outcomes)

    def look():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return look, left


def watched(look, *, rounds=10):
    waited, missed = [], []

    def wait(seconds):
        waited.append(seconds)
        return len(waited) < rounds

    last = watch(look, over=lambda verdict: verdict == "over", every=300.0, wait=wait, missed=missed.append)
    return last, waited, [type(one) for one in missed]


def test_it_looks_until_the_rollout_is_over_and_waits_in_between():
    look, left = looks("hold", "hold", "over", "never")
    assert watched(look) == ("over", [300.0, 300.0], [])
    assert left == ["never"]


def test_a_store_that_is_away_and_somebody_who_was_faster_cost_one_look():
    look, _ = looks(Unavailable("away"), "hold", HeadMoved("moved"), MetadataUnreachable("gone"), "over")
    assert watched(look) == ("over", [300.0] * 4, [Unavailable, HeadMoved, MetadataUnreachable])


def test_while_it_is_paused_it_goes_on_looking_whether_it_still_is():
    look, _ = looks(Paused("paused"), Paused("paused"), "over")
    assert watched(look) == ("over", [300.0] * 2, [Paused, Paused])


def test_a_rollout_that_somebody_ended_meanwhile_is_the_end_and_none_at_all_is_an_error():
    look, _ = looks("hold", NoRollout("none"))
    assert watched(look) == ("hold", [300.0], [NoRollout])
    look, _ = looks(NoRollout("none"))
    with pytest.raises(NoRollout):
        watched(look)


def test_whoever_is_told_to_stop_stops_between_two_looks():
    look, left = looks("hold", "hold", "hold")
    assert watched(look, rounds=2) == ("hold", [300.0, 300.0], [])
    assert left == ["hold"]


@pytest.mark.parametrize("every", ["1us", "500ms"])
def test_no_more_than_a_look_a_second(every):
    with pytest.raises(BadPace):
        pace(every)
    assert pace("5m") == 300
