"""docs/leaving.md, done as it is written, where seatrial cannot be imported: everything that is kept can be read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LinearRegression

from seatrial import Project
from seatrial.testing import FakeClock
from tests.cli.test_verbs import make
from tests.journeys import test_multiclass, test_named_inputs

PAGE = Path(__file__).parents[2] / "docs" / "leaving.md"
ROWS = [{"size": i / 20, "weight": None if i == 3 else 1 - i / 20} for i in range(20)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A project that has done everything once, and what it answered."""
    folder = make(tmp_path_factory.mktemp("leaving") / "project", weight=lambda i: i / 400 if i % 9 else "")
    with Project(folder, actor="ada") as project:
        trained = project.train("heavy")
        released = project.release("heavy")
        project.deploy("heavy", reason="the first")
        answers = project.predict("heavy", ROWS)
        project.label("heavy", [{"prediction_id": one["prediction_id"], "heavy": True} for one in answers])
    return folder, trained, released, answers


@pytest.fixture(scope="module")
def told(kept):
    """What the page's code prints, and what it ends with, run in order in one interpreter without seatrial."""
    folder = kept[0]
    asked = f"json.dumps([predict(row) for row in {ROWS!r}])"
    ends = f"\nprint('END', {asked})\nprint('NATIVE', (state / 'objects' / files['native.lightgbm']))\n"
    ends += "print('MODULES', sorted(name for name in sys.modules if name.startswith('seatrial.')))\n"
    ends += (
        "print('LOG', json.dumps([predictions.num_rows, labels.num_rows, predictions['probability'].to_pylist()]))\n"
    )
    return pasted(folder, ends)


def pasted(folder: Path, ends: str, begins: str = "") -> str:
    """What the page's code prints in a project's folder. begins: put before the block on releases."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    code = "\n".join(["import sys\nsys.modules['seatrial'] = None", *blocks[:2], begins, *blocks[2:], ends])
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def line(told: str, start: str) -> str:
    return next(one for one in told.splitlines() if one.startswith(start)).removeprefix(start).strip()


def test_no_part_of_seatrial_was_needed(told):
    assert line(told, "MODULES") == "[]"


def test_snapshots_and_training_sets_are_tables(kept, told):
    _, trained, _, _ = kept
    for name in (f"{trained.training_set}.parquet 400", f"{trained.snapshots[0]}.parquet 400", "test_scores.parquet"):
        assert name in told


def test_records_tell_the_run_its_inputs_the_alias_and_what_is_live(kept, told):
    _, trained, released, _ = kept
    assert f"heavy {trained.run} lightgbm.LGBMClassifier" in told
    assert f"{trained.run} from {trained.training_set}" in told
    assert "heavy@champion" in told
    assert "ada deploy deployment/heavy the first" in told
    assert released.id in told
    assert "signed by key_" in told


def test_the_graph_answers_as_the_service_did(kept, told):
    answers = kept[3]
    assert "largest difference: 0.0" in told
    found = json.loads(line(told, "END"))
    assert [one["prediction"] for one in found] == [one["prediction"] for one in answers]
    assert [one["probability"] for one in found] == [one["probability"] for one in answers]


def test_predictions_and_labels_are_tables(kept, told):
    rows, labels, probabilities = json.loads(line(told, "LOG"))
    assert (rows, labels) == (20, 20)
    assert sorted(probabilities) == sorted(one["probability"] for one in kept[3])


def test_the_trained_model_opens_in_its_own_library(kept, told):
    booster = lightgbm.Booster(model_str=(kept[0] / line(told, "NATIVE")).read_text())
    rows = np.array([[row["size"], np.nan if row["weight"] is None else row["weight"]] for row in ROWS], np.float32)
    assert booster.predict(rows) == pytest.approx([one["probability"] for one in kept[3]], abs=1e-6)


def test_every_file_that_is_kept_is_named_on_the_page(kept):
    folder = kept[0] / ".seatrial"
    known = ("objects/", "log/", "routes/", "keys/", "metadata.db")
    stray = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not str(path.relative_to(folder)).startswith(known) and not path.name.startswith(".")
    ]
    assert stray == []
    forms = {path.suffix for path in (folder / "objects").rglob("*") if path.is_file() and path.name[0] != "."}
    assert forms <= {".parquet", ".seatrial", ".json", ".lightgbm", ".zip", ""}


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Two models of several classes, live in two deployments; nothing was predicted yet."""
    folder = tmp_path_factory.mktemp("leaving_classes")
    pq.write_table(test_multiclass.trips(400, test_multiclass.START, 0), folder / "trips.parquet")
    (folder / "project.py").write_text(test_multiclass.PROJECT)
    (folder / "seatrial.toml").write_text('[stores]\nmlflow = ""\n[policy]\napproval = "none"\n')
    with Project(folder, clock=FakeClock(test_multiclass.NOW)) as project:
        for name in ("trees", "stars"):
            project.train(name)
            project.release(name)
            project.deploy(name)
    return folder


@pytest.mark.parametrize("name", ["trees", "stars"])
def test_each_of_two_deployments_of_classes_is_read_before_anything_was_predicted(classes, name):
    row = {"wind": None, "load": 0.4, "line": "B"} if name == "trees" else {"wind": 0.4, "load": 1.0, "line": "Q"}
    told = pasted(classes, f"print('END', json.dumps(predict({row!r})))", f"live = {{'one': live[{name!r}]}}")
    assert "largest difference: 0.0" in told
    assert "0 predictions []\n0 labels []" in told
    found = json.loads(line(told, "END"))
    with Project(classes) as project:
        answer = project.predict(name, [row])[0]
    assert found["prediction"] == answer["prediction"]
    assert found["probability"] == {str(label): value for label, value in answer["probability"].items()}


def test_named_inputs_with_strings_among_them_are_read(tmp_path):
    pq.write_table(test_named_inputs.loans(), tmp_path / "loans.parquet")
    (tmp_path / "project.py").write_text(test_named_inputs.PROJECT)
    (tmp_path / "seatrial.toml").write_text('[stores]\nmlflow = ""\n[policy]\napproval = "none"\n')
    with Project(tmp_path) as project:
        project.train("default")
        project.release("default")
        project.deploy("default")
        answers = project.predict("default", test_named_inputs.ROWS)
        project.label("default", [{"prediction_id": answers[0]["prediction_id"], "default": True}])
    asked = f"json.dumps([predict(row) for row in {test_named_inputs.ROWS!r}])"
    told = pasted(tmp_path, f"print('END', {asked})")
    assert "largest difference: 0.0" in told
    assert "3 predictions" in told
    found = json.loads(line(told, "END"))
    assert [one["probability"] for one in found] == [one["probability"] for one in answers]


def test_a_model_from_elsewhere_is_read(tmp_path):
    rows = np.random.default_rng(0).normal(size=(80, 2))
    with Project(tmp_path, actor="ada") as project:
        model = LinearRegression().fit(rows, rows[:, 0])
        sample = [{"a": float(a), "b": float(b)} for a, b in rows]
        project.release("far", from_=model, sample=sample, runbook="r.md", owner="ada")
        project.deploy("far")
    told = pasted(tmp_path, "print('END', json.dumps(predict({'a': 1.0, 'b': 2.0})))")
    assert json.loads(line(told, "END"))["prediction"] == pytest.approx(1.0, abs=1e-5)
    assert "native.skops" in told
