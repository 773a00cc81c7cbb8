"""Training again: the same comes out, and whatever was planted is named."""

from __future__ import annotations

import shutil

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Project
from seatrial.cli import run as cli
from seatrial.core.errors import UsageError
from seatrial.core.records import Record
from seatrial.data.snapshot import SnapshotDamaged
from seatrial.training.environment import DefinitionsDamaged
from seatrial.verbs.rebuilt import EnvironmentNotBuilt, OtherPython, python_of
from seatrial.verbs.reproduce import NotReproducible
from seatrial.verbs.runs import SnapshotMissing
from tests.worlds import edit, nudged, rewrite, write_project


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project's folder after its first training, and the run."""
    folder = tmp_path_factory.mktemp("trained")
    write_project(folder)
    with Project(folder) as project:
        return folder, project.train().run


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of it, to plant changes in."""
    return shutil.copytree(trained[0], tmp_path / "copy")


@pytest.fixture
def run(trained):
    return trained[1]


def reproduced(folder, name="late", **how):
    with Project(folder) as project:
        return project.reproduce(name, **how)


def named(differences, kind):
    return [one for one in differences if one.kind == kind]


def test_a_run_trained_again_is_identical_and_makes_no_version(folder, run):
    done = reproduced(folder, run)
    assert (done.verdict, done.reproduced, done.because) == ("identical", True, "")
    assert done.digest == done.recorded_digest
    assert done.inputs == done.project == []
    with Project(folder) as project:
        assert len(project.models()) == len(project.runs()) == 1
        assert project.audit_list()[-1].kind == "run.reproduced"


def test_it_is_named_by_run_model_version_or_release(folder, run):
    with Project(folder) as project:
        release = project.release("late")
        names = [run, run[:20], "late", "late@candidate", "late:1", release.id]
        found = [project.reproduce(name) for name in names]
    assert {one.run for one in found} == {run}
    assert {one.verdict for one in found} == {"identical"}
    assert {one.release for one in found} == {release.id}


def test_the_recorded_rows_are_trained_on_and_a_cell_that_moved_by_1e_12_since_is_named(folder):
    rewrite(folder, "departures", nudged)
    done = reproduced(folder)
    assert done.verdict == "identical"
    (moved,) = named(done.project, "data")
    assert moved.name == "departures"
    assert moved.detail[:2] == (
        "by flight: 0 rows added, 0 removed, 1 changed, 399 unchanged",
        "changed: delay, in 1 row",
    )
    assert moved.detail[2].startswith("flight=F0007: ")


def test_rows_in_another_order_are_told_as_that(folder):
    rewrite(folder, "departures", lambda table: table.take(list(reversed(range(table.num_rows)))))
    (moved,) = named(reproduced(folder).project, "data")
    assert moved.detail == ("the same rows in another order",)


def test_rows_that_came_since_are_told_as_that(folder):
    rewrite(folder, "departures", lambda table: pa.concat_tables([table, table.slice(0, 3)]))
    done = reproduced(folder)
    (moved,) = named(done.project, "data")
    assert moved.detail == ("3 rows were put at the end",)
    assert done.verdict == "identical"


@pytest.mark.parametrize(
    ("old", "new", "kind", "name", "words"),
    [
        ('"num_leaves": 7', '"num_leaves": 8', "parameter", "num_leaves", "7 -> 8"),
        ('"subsample": 0.8, ', "", "parameter", "subsample", "0.8 -> none"),
        ("cv_folds=3", "cv_folds=3, seed=43", "seed", "seed", "42 -> 43"),
        ("cv_folds=3", "cv_folds=3, threads=2", "threads", "threads", "1 -> 2"),
        ("cv_folds=3", "cv_folds=4", "declaration", "cv_folds", "3 -> 4"),
        ("distance / (1 +", "distance / (2 +", "code", "project.py", ""),
    ],
)
def test_a_change_of_the_definitions_is_named_and_not_trained_with(folder, old, new, kind, name, words):
    edit(folder, old, new)
    done = reproduced(folder)
    assert done.verdict == "identical"
    (found,) = named(done.project, kind)
    assert found.name == name
    assert words in str(found)
    assert named(done.project, "code")[0].name == "project.py"


def test_a_package_of_another_version_is_named_before_those_that_came_in_addition(folder, tmp_path, monkeypatch):
    for name, version in (("an-addition", "1.0"), ("planted", "1.0")):
        info = tmp_path / "site" / f"{name}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    shutil.move(tmp_path / "site" / "an-addition.dist-info", tmp_path / "aside")
    with Project(folder) as project:
        run = project.train().run
    shutil.move(tmp_path / "aside", tmp_path / "site" / "an-addition.dist-info")
    (tmp_path / "site" / "planted.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: planted\nVersion: 1.1\n"
    )
    done = reproduced(folder, run)
    assert [str(one) for one in named(done.inputs, "package")] == [
        "package planted: 1.0 -> 1.1",
        "package an-addition: not installed -> 1.0",
    ]


def test_a_variable_that_limits_threads_is_named(folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    (found,) = named(reproduced(folder).inputs, "machine")
    assert found.name == "thread_variables"
    assert "OMP_NUM_THREADS=7" in found.after


@pytest.mark.parametrize(
    ("old", "new", "because"),
    [
        ('"num_leaves": 7', '"num_leaves": 3', "parameter num_leaves: 7 -> 3"),
        ("cv_folds=3", "cv_folds=3, seed=43", "seed seed: 42 -> 43"),
    ],
)
def test_trained_from_the_project_as_it_is_now_a_change_is_named_as_the_cause(folder, old, new, because):
    edit(folder, old, new)
    done = reproduced(folder, current=True, allow=["statistically same"])
    assert done.verdict in ("statistically same", "different")
    assert done.reproduced == (done.verdict == "statistically same")
    assert done.project == []
    first = next(one for one in done.inputs if one.kind != "code")
    assert str(first) == because
    assert done.largest > 1e-6


def test_a_model_that_learned_from_other_labels_is_different(folder):
    def flipped(table):
        late = [not value for value in table["late"].to_pylist()]
        return table.set_column(table.column_names.index("late"), "late", pa.array(late))

    rewrite(folder, "scheduled", flipped)
    done = reproduced(folder, current=True, allow=["statistically same"])
    assert (done.verdict, done.reproduced) == ("different", False)
    assert done.because.startswith("The first input that differs: data scheduled")
    assert done.flipped > 0
    assert [one.reached for one in done.rungs] == [False, False, False]
    (joined,) = named(done.inputs, "training set")
    assert joined.detail[0].startswith("changed: late")


def test_an_estimator_that_does_not_repeat_itself_is_told_so(folder):
    edit(
        folder,
        'estimator="lightgbm.LGBMClassifier"',
        'estimator=__import__("lightgbm").LGBMClassifier(random_state=int.from_bytes(__import__("os").urandom(2)))',
    )
    with Project(folder) as project:
        run = project.train().run
    done = reproduced(folder, run)
    assert done.verdict in ("statistically same", "different")
    assert "does not repeat itself" in done.because
    assert done.inputs == []


def test_a_snapshot_that_is_gone_or_damaged_is_said_and_nothing_is_trained(folder, run):
    with Project(folder) as project:
        (snapshot,) = {id for source, id in project.run_show(run)["data"].items() if source == "departures"}
    file = folder / ".seatrial" / "objects" / "snapshots" / f"{snapshot}.parquet"
    whole = file.read_bytes()
    file.chmod(0o644)
    described = {name: value for name, value in pq.read_metadata(file).metadata.items() if name != b"ARROW:schema"}
    pq.write_table(nudged(pq.read_table(file)).replace_schema_metadata(described), file)
    with pytest.raises(SnapshotDamaged, match="delay changed"):
        reproduced(folder)
    file.unlink()
    with pytest.raises(SnapshotMissing, match=f"{snapshot} of source 'departures'"):
        reproduced(folder)
    file.write_bytes(whole)
    assert reproduced(folder).verdict == "identical"


def test_definitions_that_were_tampered_with_are_refused(folder, run):
    file = folder / ".seatrial" / "objects" / "runs" / run / "definitions.zip"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DefinitionsDamaged):
        reproduced(folder)


def test_rows_to_compare_on_that_are_damaged_are_said(folder, run):
    edit(folder, '"num_leaves": 7', '"num_leaves": 3')
    file = folder / ".seatrial" / "objects" / "runs" / run / "parity_rows.parquet"
    file.chmod(0o644)
    file.write_bytes(b"PAR1")
    with pytest.raises(NotReproducible, match=r"parity_rows\.parquet' in .* is damaged"):
        reproduced(folder, run, current=True)


def test_it_needs_neither_the_sources_nor_the_definitions_of_today(folder, run):
    for name in ("scheduled.parquet", "departures.parquet"):
        (folder / name).unlink()
    (folder / "project.py").write_text("this is no python")
    done = reproduced(folder, run)
    assert done.verdict == "identical"
    assert done.notes == [
        "the project's definitions cannot be loaded now, so they are not compared with the recorded ones"
    ]


def test_a_run_that_a_gate_refused_is_judged_by_its_test_scores(folder):
    edit(folder, 'Gate.at_least("roc_auc", 0.55)', 'Gate.at_least("roc_auc", 0.99)')
    with Project(folder) as project:
        trained = project.train()
        done = project.reproduce(trained.run)
    assert not trained.passed
    assert (done.verdict, done.largest, done.flipped) == ("equivalent", 0.0, 0)
    assert done.probe_rows > 0


OTHER_KINDS = {
    "several classes": 'Model("late", task="multiclass", target="carrier", key=["flight"], labels=labels, cv_folds=2, '
    'features=["request:distance", "request:delay"], estimator="lightgbm.LGBMClassifier", params={"n_estimators": 5})',
    "a number": 'Model("late", task="regression", target="delay", key=["flight"], labels=labels, cv_folds=2, '
    'features=["request:distance", "request:carrier"], estimator="sklearn.ensemble.RandomForestRegressor", '
    'params={"n_estimators": 5, "max_depth": 4}, threads=2)',
    "a booster of its own format": 'Model("late", task="binary", target="late", key=["flight"], labels=labels, '
    'features=["request:distance", "request:delay"], estimator="xgboost.XGBClassifier", params={"n_estimators": 5}, '
    "cv_folds=0)",
    "no ONNX form": 'Model("late", task="binary", target="late", key=["flight"], labels=labels, cv_folds=0, '
    'features=["request:distance", "request:delay"], estimator="sklearn.ensemble.HistGradientBoostingClassifier", '
    'params={"max_iter": 5, "monotonic_cst": [1, 0]})',
    "named columns": 'Model("late", task="binary", target="late", key=["flight"], labels=labels, '
    'features=["request:distance", "request:carrier"], cv_folds=0, estimator=make_pipeline(make_column_transformer('
    '(OneHotEncoder(handle_unknown="ignore"), ["carrier"]), remainder="passthrough"), LogisticRegression()))',
}
HEAD = """
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from seatrial import Model, ParquetSource
labels = ParquetSource("joined.parquet", event_timestamp="at", label_known_at="known")
"""


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_models_of_other_kinds_are_identical_too(folder, kind):
    scheduled, departures = (pq.read_table(folder / f"{name}.parquet") for name in ("scheduled", "departures"))
    pq.write_table(scheduled.append_column("delay", departures["delay"]), folder / "joined.parquet")
    (folder / "project.py").write_text(HEAD + OTHER_KINDS[kind])
    with Project(folder) as project:
        done = project.reproduce(project.train().run)
    assert (done.verdict, done.inputs, done.project) == ("identical", [], [])


def test_a_module_beside_the_definitions_is_part_of_their_code(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    (folder / "own_trees.py").write_text(
        "from lightgbm import LGBMClassifier\ndef few(**params):\n    return LGBMClassifier(n_estimators=5, **params)\n"
    )
    edit(folder, '"lightgbm.LGBMClassifier"', '"own_trees.few"')
    edit(folder, '"n_estimators": 20, ', "")
    with Project(folder) as project:
        run = project.train().run
    (folder / "own_trees.py").write_text("raise RuntimeError('as it is now')\n")
    done = reproduced(folder, run)
    assert done.verdict == "identical"
    assert [one.name for one in named(done.project, "code")] == ["own_trees.py"]


def test_a_run_whose_definitions_were_not_kept_goes_by_those_of_today_when_they_are_the_same(folder, run):
    with Project(folder) as project:
        record = project.record(run)
        del record.body["files"]["definitions.zip"], record.body["data"]
        with project.metadata.transaction() as transaction:
            transaction.add(Record("run_older", "run", record.name, record.inputs, record.body))
            project.event(transaction, "run.recorded", "run_older", {})
        assert project.reproduce("run_older").verdict == "identical"
    edit(folder, "cv_folds=3", "cv_folds=4")
    with pytest.raises(NotReproducible, match="were not kept"):
        reproduced(folder, "run_older")


def test_a_sample_is_recorded_makes_no_version_and_can_be_trained_again(folder):
    with Project(folder) as project:
        trained = project.train(sample=0.5)
        assert (trained.passed, trained.version, trained.sample) == (True, None, 200)
        assert len(project.models()) == 1
        assert project.reproduce(trained.run).verdict == "identical"
        with pytest.raises(UsageError, match="it learned from a sample"):
            project.release(trained.run)
    assert cli(["--project", str(folder), "train", "--sample", "60%"]) == 0


def hits(project, run):
    return {one["step"]: one["hit"] for one in project.run_show(run)["steps"]}


def test_a_training_with_nothing_changed_joins_nothing_and_learns_the_same(folder, run):
    with Project(folder) as project:
        again, fresh = project.train(), project.train(fresh=True)
        assert hits(project, again.run) == {"join features": True, "cross-validate": True}
        for one in (run, fresh.run):
            assert hits(project, one) == {"join features": False, "cross-validate": False}
        assert again.training_set == fresh.training_set == project.run_show(run)["training_set"]
        assert again.metrics == fresh.metrics
        assert again.cv == fresh.cv == project.run_show(run)["cv"]
        rewrite(folder, "departures", nudged)  # by less than the resolution of a mean, so what is joined is the same
        assert hits(project, project.train().run) == {"join features": False, "cross-validate": True}
        rewrite(folder, "departures", lambda table: nudged(table, by=1.0))
        assert hits(project, project.train().run) == {"join features": False, "cross-validate": False}


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("0.55", "0.56", True),
        ('"num_leaves": 7', '"num_leaves": 6', False),
        ("cv_folds=3", "cv_folds=4", False),
        ("cv_folds=3", "cv_folds=3, seed=1", False),
        ("cv_folds=3", "cv_folds=3, threads=2", False),
        ("cv_folds=3", 'cv_folds=3, inputs="named"', False),
        ('estimator="lightgbm.LGBMClassifier"', 'estimator=__import__("lightgbm").LGBMClassifier', None),
    ],
)
def test_folds_are_done_again_when_what_they_learn_from_was_changed(folder, old, new, kept):
    edit(folder, old, new)
    with Project(folder) as project:
        found = hits(project, project.train().run)
    assert found["join features"]
    assert found.get("cross-validate") is kept


@pytest.mark.slow
def test_an_environment_that_cannot_be_installed_is_refused_with_the_reason(folder, run, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    with pytest.raises(EnvironmentNotBuilt, match="packages that the run recorded cannot be installed") as refused:
        reproduced(folder, run, rebuild_env=True)
    assert refused.value.exit_code == 6
    assert not list((folder / ".seatrial" / "environments").iterdir())


def test_another_python_than_the_runs_is_refused(tmp_path):
    with pytest.raises(OtherPython, match=r"CPython 3\.2\.1"):
        python_of(["six==1.17.0"], "CPython 3.2.1", tmp_path)


def test_the_command_ends_with_0_when_reproduced_and_with_1_when_not(folder, run, capsys):
    assert cli(["--project", str(folder), "reproduce", run[:20], "--json"]) == 0
    answer = msgspec.json.decode(capsys.readouterr().out)
    assert (answer["verdict"], answer["run"]) == ("identical", run)
    edit(folder, '"num_leaves": 7', '"num_leaves": 2')
    assert cli(["--project", str(folder), "reproduce", "late", "--current"]) == 1
    out = capsys.readouterr()
    assert "parameter  num_leaves  7" in out.out
    assert "NotReproduced" in out.err


@pytest.mark.parametrize("how", ["Path(__file__).with_name('params.json')", "Path('params.json')"])
def test_a_file_that_the_definitions_read_is_kept_and_read_again(folder, how, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "params.json").write_text('{"C": 0.5}')
    project = folder / "project.py"
    read = f"import json\nfrom pathlib import Path\nHELD = json.loads({how}.read_text())\n"
    project.write_text(f"{read}{project.read_text()}\nassert HELD['C'] == 0.5\n")
    with Project(folder) as opened:
        run = opened.train().run
        assert {"project.py", "params.json"} <= opened.record(run).body["environment"]["code"]["files"].keys()
    edit(folder, "== 0.5", "> 0")
    (folder / "params.json").write_text('{"C": 3}')
    done = reproduced(folder, run)
    assert done.verdict == "identical"
    assert any("params.json" in str(one) for one in done.project)


def test_a_file_outside_the_folder_that_the_definitions_read_is_named_when_they_are_trained(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("{}")
    project = folder / "project.py"
    project.write_text(f"from pathlib import Path\nPath({str(elsewhere)!r}).read_text()\n{project.read_text()}")
    with Project(folder) as opened:
        notes = opened.train().notes
    assert [note for note in notes if "not kept with the run" in note] == [
        f"the definitions read a file that is not kept with the run: {elsewhere} lies outside the project's folder"
    ]
