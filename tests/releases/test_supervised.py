import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from seatrial.core.signature import NamedRows
from seatrial.releases.native import NativeModel, capture
from seatrial.releases.runtime import MissingNotAccepted, ModelUnreadable, WrongShape
from seatrial.releases.supervised import ChildRestarting, ChildUnavailable, ScoringFailed, SupervisedRuntime
from tests.releases.factories import classifier, crashing, labels, rows

ENDING = 30.0


def started(native, **settings):
    return SupervisedRuntime(native.format, native.data, native.task, 4, **settings)


@pytest.fixture(scope="module")
def runtime():
    """LightGBM's child: the one that starts soonest."""
    return started(classifier("lightgbm")[1])


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid):
    end = time.monotonic() + ENDING
    while running(pid):
        assert time.monotonic() < end, f"process {pid} still runs"
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["lightgbm", "hist"])
def test_a_child_gives_the_native_models_scores_to_the_last_bit(name):
    native = classifier(name)[1]
    child = started(native)
    wanted = native.scorer()(rows())
    np.testing.assert_array_equal(child.score(rows()), wanted)
    np.testing.assert_array_equal([child.score(rows()[place : place + 1])[0] for place in range(5)], wanted[:5])


def test_many_rows_are_sent_in_parts(runtime):
    many = np.tile(rows(), (17, 1))
    np.testing.assert_array_equal(runtime.score(many), np.tile(runtime.score(rows()), 17))


def test_no_rows_have_no_scores(runtime):
    assert runtime.score(rows()[:0]).shape == (0,)


@pytest.mark.parametrize("wrong", [rows()[:, :3], rows()[0], rows().astype(np.float64)])
def test_rows_of_another_shape_or_type_are_refused(runtime, wrong):
    with pytest.raises(WrongShape):
        runtime.score(wrong)


def test_a_child_that_was_killed_is_started_again_and_answers(runtime):
    wanted, pid = runtime.score(rows()[:5]), runtime.pid
    os.kill(pid, signal.SIGKILL)
    np.testing.assert_array_equal(runtime.score(rows()[:5]), wanted)
    assert runtime.pid != pid
    assert not running(pid)


def test_threads_get_their_own_answers(runtime):
    found = {}

    def ask(place):
        found[place] = runtime.score(rows()[place : place + 20])

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(0, 200, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(
        np.concatenate([found[place] for place in sorted(found)]), runtime.score(rows()[:200])
    )


def test_a_child_ends_with_its_runtime():
    child = started(classifier("lightgbm")[1])
    pid = child.pid
    assert running(pid)
    del child
    wait_until_gone(pid)


def test_a_child_is_not_stopped_by_a_signal_to_the_whole_group(runtime):
    pid = runtime.pid
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    runtime.score(rows()[:1])
    assert runtime.pid == pid


PARENT = """
import os, sys, threading, time
from pathlib import Path
from seatrial.releases.native import NativeModel
from seatrial.releases.supervised import SupervisedRuntime
import numpy as np
child = SupervisedRuntime("lightgbm", Path(sys.argv[1]).read_bytes(), "binary", 4)
print(child.pid, flush=True)
if sys.argv[2] == "busy":
    child._call_limit = 1000
    rows = np.random.default_rng(0).normal(size=(10_000, 4)).astype(np.float32)
    while True:
        child.score(rows)
time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["idle", "busy"])
def test_a_child_ends_when_its_parent_is_killed(tmp_path, how):
    (tmp_path / "model.txt").write_bytes(classifier("lightgbm")[1].data)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "model.txt"), how],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    pid = int(parent.stdout.readline())
    assert running(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until_gone(pid)


def stuck(child):
    """Stop the child's process, so that it is there and does not answer."""
    os.kill(child.pid, signal.SIGSTOP)


def test_a_child_that_does_not_answer_in_time_is_killed_and_the_next_call_starts_another():
    child = started(classifier("lightgbm")[1], call_s=0.2)
    pid = child.pid
    stuck(child)
    with pytest.raises(ChildUnavailable, match=r"took longer than .* for 1 rows and was killed") as refused:
        child.score(rows()[:1])
    assert refused.value.http_status == 503
    assert not running(pid)
    child._call_limit = 60
    assert child.score(rows()[:1]).shape == (1,)


@pytest.mark.slow
def test_a_row_that_kills_the_child_twice_is_refused_and_others_are_answered():
    native, kills, good = crashing()
    child = SupervisedRuntime(native.format, native.data, native.task, 1)
    assert child.score(good).shape == (1,)
    with pytest.raises(ChildUnavailable, match=r"died twice on the same 1 rows: signal 11"):
        child.score(kills)
    assert child.score(good).shape == (1,)


def test_whoever_may_not_wait_is_told_that_the_child_starts_again_and_when_it_has():
    child = started(classifier("lightgbm")[1])
    wanted, pid = child.score_now(rows()[:5]), child.pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ChildRestarting) as first:
        child.score_now(rows()[:5])
    assert (first.value.died, first.value.http_status) == (True, 503)
    assert first.value.facts["retry_after"] >= 1
    assert not running(pid)
    first.value.started.result(ENDING)
    np.testing.assert_array_equal(child.score_now(rows()[:5]), wanted)
    assert child.pid != pid


def test_several_calls_share_one_start_and_whoever_waits_gets_its_answer():
    child = started(classifier("lightgbm")[1])
    wanted = child.score(rows()[:5])
    child.close()
    refused = []
    for _ in range(3):
        with pytest.raises(ChildRestarting) as one:
            child.score_now(rows()[:5])
        refused.append(one.value)
    assert not any(one.died for one in refused)
    assert len({id(one.started) for one in refused}) == 1
    np.testing.assert_array_equal(child.score(rows()[:5]), wanted)
    assert child.pid == refused[0].started.result().process.pid


def test_a_child_that_is_being_started_is_closed_too():
    child = started(classifier("lightgbm")[1])
    child.close()
    with pytest.raises(ChildRestarting) as refused:
        child.score_now(rows()[:5])
    child.close()
    assert not running(refused.value.started.result().process.pid)


def test_what_the_estimator_raises_is_told_without_ending_the_child():
    plain = capture(LogisticRegression(max_iter=3000).fit(rows(missing=False), labels()), "binary")
    child = started(plain, no_missing=[0])
    pid = child.pid
    with pytest.raises(ScoringFailed, match="raised ValueError on these 3 rows") as refused:
        child.score(np.full((3, 4), [0, 0, np.nan, 0], np.float32))
    assert "NaN" in refused.value.state
    assert "NaN" not in str(refused.value.as_problem())
    with pytest.raises(MissingNotAccepted, match="input 0 of row 2"):
        child.score(np.array([[0, 0, 0, 0], [1, 1, 1, 1], [np.nan, 0, 0, 0]], np.float32))
    assert child.score(np.zeros((1, 4), np.float32)).shape == (1,)
    assert child.pid == pid


def test_a_model_that_cannot_be_loaded_is_refused_with_the_childs_words():
    native = classifier("hist")[1]
    with pytest.raises(ModelUnreadable, match="NativeDamaged"):
        started(NativeModel("skops", native.data[:500], "binary"))


def test_a_child_is_given_no_secret(monkeypatch):
    monkeypatch.setenv("SEATRIAL_SIGNING_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    child = started(classifier("lightgbm")[1], threads=1)
    given = Path(f"/proc/{child.pid}/environ").read_bytes()
    assert b"OMP_NUM_THREADS=1" in given
    assert b"secret" not in given
    open_files = {str(link.readlink()) for link in Path(f"/proc/{child.pid}/fd").iterdir()}
    assert not [name for name in open_files if name.endswith((".db", ".log", ".key"))]


def test_the_cost_of_a_child_is_measured(runtime):
    cost = runtime.cost(rows())
    assert cost.start_s > 0
    assert cost.bytes > 10_000_000
    assert cost.us_alone > 0
    assert cost.us_many > 0


def test_the_process_that_asks_imports_nothing_that_trains(tmp_path):
    (tmp_path / "model.skops").write_bytes(classifier("logistic")[1].data)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from seatrial.releases.supervised import SupervisedRuntime\n"
        "child = SupervisedRuntime('skops', Path(sys.argv[1]).read_bytes(), 'binary', 4)\n"
        "assert child.score(np.zeros((3, 4), np.float32)).shape == (3,)\n"
        "heavy = {'sklearn', 'lightgbm', 'onnx', 'skl2onnx', 'skops', 'pandas', 'scipy', 'seatrial.releases.native'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.skops")],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_columns_by_name_are_scored_as_the_native_model_does():
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    kinds = np.array(["abc"[place % 3] for place in range(1500)], dtype=object)
    ages = np.nan_to_num(rows()[:, 0])
    frame = pd.DataFrame({"age": ages.astype(np.float64), "kind": kinds})
    encoded = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["kind"]), remainder="passthrough")
    native = capture(make_pipeline(encoded, LogisticRegression()).fit(frame, labels()), "binary")
    child = SupervisedRuntime(native.format, native.data, "binary", 2)
    named = NamedRows({"age": ages, "kind": kinds})
    np.testing.assert_array_equal(child.score(named), native.scorer()(named))
    with pytest.raises(WrongShape, match="1 columns by name"):
        child.score(NamedRows({"age": ages}))
