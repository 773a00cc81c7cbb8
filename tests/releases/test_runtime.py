import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.linear_model import LogisticRegression

from seatrial.releases.native import capture
from seatrial.releases.onnx_export import to_onnx
from seatrial.releases.runtime import MissingNotAccepted, ModelUnreadable, Runtime, ScoreNotFinite, WrongShape
from tests.releases.factories import classifier, exported, labels, rows


@pytest.fixture(scope="module")
def plain():
    """A model that has no answer when an input is missing."""
    fitted = LogisticRegression(max_iter=3000).fit(rows(missing=False), labels())
    return to_onnx(capture(fitted, "binary"), 4)


def test_scores_are_one_finite_float64_for_each_row():
    scores = Runtime(exported("lightgbm")).score(rows())
    assert (scores.dtype, scores.shape) == (np.float64, (1500,))
    np.testing.assert_allclose(scores, classifier("lightgbm")[1].scorer()(rows()), atol=1e-6)


def test_no_rows_have_no_scores():
    assert Runtime(exported("logistic")).score(rows()[:0]).shape == (0,)


@pytest.mark.parametrize("count", [1, 3])
def test_a_score_that_is_no_finite_number_is_never_returned(plain, count):
    holed = rows(missing=False)[:count].copy()
    holed[-1, 2] = np.nan
    with pytest.raises(ScoreNotFinite, match=f"row {count - 1} "):
        Runtime(plain).score(holed)


def test_a_missing_value_is_refused_where_the_estimator_refuses_it(plain):
    holed = rows(missing=False)[:3].copy()
    holed[1, 2] = np.nan
    with pytest.raises(MissingNotAccepted, match="input 2 of row 1"):
        Runtime(plain, no_missing=[0, 2]).score(holed)
    holed[1] = 0
    assert len(Runtime(plain, no_missing=[0, 2]).score(holed)) == 3


@pytest.mark.parametrize("wrong", [rows()[:, :3], rows()[0], rows().astype(np.float64)])
def test_rows_of_another_shape_or_type_are_refused(wrong):
    with pytest.raises(WrongShape, match=r"float32 \[n, 4\]|rows are"):
        Runtime(exported("logistic")).score(wrong)


def test_bytes_that_are_no_model_are_refused():
    for data in (b"", b"no model", exported("logistic")[:100]):
        with pytest.raises(ModelUnreadable):
            Runtime(data)


def test_a_model_with_other_outputs_is_refused():
    model = onnx.load_from_string(exported("logistic"))
    model.graph.node[-1].output[0] = model.graph.output[0].name = "probability"
    with pytest.raises(ModelUnreadable, match="probability"):
        Runtime(model.SerializeToString())


def test_scoring_imports_nothing_that_trains():
    code = (
        "import sys, seatrial.releases.runtime, seatrial.releases.golden, seatrial.releases.bundle\n"
        "heavy = {'sklearn', 'lightgbm', 'onnx', 'skl2onnx', 'onnxmltools', 'skops', 'pandas', 'mlflow', 'duckdb'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_loaded_model_keeps_no_file_open_and_leaves_none_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    model = exported("lightgbm")
    before = len(list(Path("/proc/self/fd").iterdir()))
    loaded = [Runtime(model) for _ in range(3)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(tmp_path.iterdir()) == []
    assert len({one.score(rows()[:1]).tobytes() for one in loaded}) == 1


def test_where_the_system_has_no_files_in_memory_a_model_is_loaded_all_the_same(monkeypatch):
    model = exported("lightgbm")
    usual = Runtime(model).score(rows())
    monkeypatch.delattr(os, "memfd_create")
    assert Runtime(model).score(rows()).tobytes() == usual.tobytes()


def test_the_form_that_is_loaded_answers_as_the_graph_does():
    for name in ("lightgbm", "hist", "logistic", "forest"):
        model = exported(name)
        given = rows(missing=name in ("lightgbm", "hist"))
        plain = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        as_given = plain.run(None, {"input": given})[0]
        assert np.array_equal(Runtime(model).score(given), as_given.astype(np.float64)), name


def test_one_packed_row_scores_as_the_same_row_in_an_array():
    for name in ("lightgbm", "logistic"):
        runtime = Runtime(exported(name))
        for row in rows(missing=name == "lightgbm")[:200]:
            assert runtime.score_row(row.tobytes()) == runtime.score(row[np.newaxis])[0]


def test_one_packed_row_is_refused_as_the_same_row_in_an_array(plain):
    holed = rows(missing=False)[0].copy()
    holed[2] = np.nan
    with pytest.raises(ScoreNotFinite):
        Runtime(plain).score_row(holed.tobytes())
    with pytest.raises(MissingNotAccepted, match="input 2 of row 0"):
        Runtime(plain, no_missing=[0, 2]).score_row(holed.tobytes())
