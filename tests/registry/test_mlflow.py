import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from seatrial.core.identity import new_id
from seatrial.core.records import Record
from seatrial.registry.mlflow import TOPIC, alias_message, mirror, run_message
from seatrial.registry.versions import Registry
from seatrial.stores.metadata import MetadataStore

ME = {"actor": "ada", "at_us": 1_000_000}
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def metadata(tmp_path):
    store = MetadataStore(tmp_path / "metadata.db")
    yield store
    store.close()


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    """One database for all tests, because MLflow takes seconds to make one; each test has its own model."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def mlflow(tracking):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        yield MlflowClient(tracking, tracking)


def trained(metadata, tmp_path, model):
    """A run with a version and a message in the outbox."""
    run = Record(new_id("run"), "run", model)
    onnx = tmp_path / "some-object"
    onnx.write_bytes(b"onnx bytes")
    message = run_message(
        run.id,
        experiment=model,
        name="first try",
        started_us=1_700_000_000_000_000,
        ended_us=1_700_000_002_000_000,
        params={"seed": 42, "estimator": "lightgbm.LGBMClassifier"} | {f"p{n}": n for n in range(120)},
        metrics={"roc_auc": 0.75, "f1": None},
        tags={"stage": "candidate"},
        artifacts={"model.onnx": str(onnx)},
    )
    Registry(metadata, mirrored=True).create(run, **ME, message=message)
    return run


def runs_of(mlflow, model):
    return mlflow.search_runs([mlflow.get_experiment_by_name(model).experiment_id])


def send_again(metadata, messages):
    with metadata.transaction() as transaction:
        for message in messages:
            transaction.enqueue(TOPIC, message)


def test_a_run_is_in_mlflow_with_all_that_belongs_to_it(metadata, tracking, mlflow, tmp_path):
    run = trained(metadata, tmp_path, "whole")
    assert mirror(metadata, tracking, tmp_path / "artifacts").written == 1
    assert metadata.pending(TOPIC) == []
    (seen,) = runs_of(mlflow, "whole")
    assert seen.data.metrics == {"roc_auc": 0.75}
    assert (seen.data.params["seed"], len(seen.data.params)) == ("42", 122)
    assert (seen.data.tags["stage"], seen.data.tags["seatrial.run_id"]) == ("candidate", run.id)
    assert (seen.info.run_name, seen.info.status) == ("first try", "FINISHED")
    assert (seen.info.start_time, seen.info.end_time) == (1_700_000_000_000, 1_700_000_002_000)
    version = mlflow.get_model_version_by_alias("whole", "candidate")
    assert (str(version.version), version.run_id, version.tags["seatrial.version"]) == ("1", seen.info.run_id, "1")
    copy = mlflow.download_artifacts(seen.info.run_id, "model/model.onnx", str(tmp_path))
    assert Path(copy).read_bytes() == b"onnx bytes"
    assert (tmp_path / "artifacts").is_dir()


def test_telling_twice_is_telling_once(metadata, tracking, mlflow, tmp_path):
    trained(metadata, tmp_path, "twice")
    messages = [body for _, body in metadata.pending(TOPIC)]
    mirror(metadata, tracking, tmp_path / "artifacts")
    send_again(metadata, messages * 2)
    assert mirror(metadata, tracking, tmp_path / "artifacts").written == 2
    assert len(runs_of(mlflow, "twice")) == 1
    assert len(mlflow.search_model_versions("name = 'twice'")) == 1


def test_aliases_follow_in_order(metadata, tracking, mlflow, tmp_path):
    for _ in range(2):
        trained(metadata, tmp_path, "moving")
    registry = Registry(metadata, mirrored=True)
    for number in (1, 2, 1):
        registry.set_alias("moving", "champion", number, **ME)
    assert mirror(metadata, tracking, tmp_path / "artifacts").written == 5
    assert str(mlflow.get_model_version_by_alias("moving", "champion").version) == "1"
    assert str(mlflow.get_model_version_by_alias("moving", "candidate").version) == "2"


def test_numbers_that_somebody_else_took_in_mlflow_do_not_confuse_ours(metadata, tracking, mlflow, tmp_path):
    mlflow.create_registered_model("shared")
    mlflow.create_model_version("shared", "file:///elsewhere")
    trained(metadata, tmp_path, "shared")
    mirror(metadata, tracking, tmp_path / "artifacts")
    version = mlflow.get_model_version_by_alias("shared", "candidate")
    assert (str(version.version), version.tags["seatrial.version"]) == ("2", "1")


def test_an_alias_of_a_version_that_mlflow_never_heard_of_is_passed_over(metadata, tracking, tmp_path):
    send_again(metadata, [alias_message("stranger", "champion", 3, "ver_3")])
    assert mirror(metadata, tracking, tmp_path / "artifacts").problem == ""
    assert metadata.pending(TOPIC) == []


def test_an_outage_raises_nothing_and_is_caught_up(metadata, tracking, mlflow, tmp_path):
    trained(metadata, tmp_path, "later")
    told = mirror(metadata, NOBODY, tmp_path / "artifacts")
    assert (told.written, told.pending) == (0, 1)
    assert "127.0.0.1" in told.problem
    assert mirror(metadata, tracking, tmp_path / "artifacts").written == 1
    assert len(runs_of(mlflow, "later")) == 1


def test_a_run_whose_file_is_gone_is_told_without_it_and_says_which(metadata, tracking, mlflow, tmp_path):
    trained(metadata, tmp_path, "lost")
    (tmp_path / "some-object").unlink()
    assert mirror(metadata, tracking, tmp_path / "artifacts").written == 1
    (seen,) = runs_of(mlflow, "lost")
    assert (seen.info.status, seen.data.tags["seatrial.missing"]) == ("FINISHED", "model.onnx")


def test_metrics_that_are_no_numbers_are_left_out_and_hold_up_nothing(metadata, tracking, mlflow, tmp_path):
    trained(metadata, tmp_path, "numbers")
    ((seq, message),) = metadata.pending(TOPIC)
    metadata.done(TOPIC, seq)
    series = {"loss": [[0, 1.0], [1, None]]}
    send_again(metadata, [message | {"metrics": {"r2": None, "rmse": 1.5}, "series": series}])  # as NaN was kept before
    trained(metadata, tmp_path, "after_numbers")
    assert mirror(metadata, tracking, tmp_path / "artifacts").written == 2
    assert runs_of(mlflow, "numbers")[0].data.metrics == {"rmse": 1.5, "loss": 1.0}
    more = {"started_us": 0, "ended_us": 0, "params": {}}
    told = run_message("r", experiment="e", name="n", metrics={"r2": math.nan, "rmse": math.inf, "mae": 1.0}, **more)
    assert told["metrics"] == {"mae": 1.0}


def test_what_mlflow_refuses_is_set_aside_and_told_again_on_command(metadata, tracking, mlflow, tmp_path):
    trained(metadata, tmp_path, "deleted")
    mirror(metadata, tracking, tmp_path / "artifacts")
    experiment = mlflow.get_experiment_by_name("deleted").experiment_id
    mlflow.delete_experiment(experiment)
    trained(metadata, tmp_path, "deleted")
    Registry(metadata, mirrored=True).set_alias("deleted", "champion", 2, **ME)
    trained(metadata, tmp_path, "after_deleted")
    told = mirror(metadata, tracking, tmp_path / "artifacts")
    assert (told.written, told.pending, told.refused) == (1, 0, 2)
    assert "active" in told.problem
    assert len(runs_of(mlflow, "after_deleted")) == 1
    mlflow.restore_experiment(experiment)
    assert mirror(metadata, tracking, tmp_path / "artifacts").written == 0
    told = mirror(metadata, tracking, tmp_path / "artifacts", again=True)
    assert (told.written, told.pending, told.refused, told.problem) == (2, 0, 0, "")
    assert len(runs_of(mlflow, "deleted")) == 2
    assert str(mlflow.get_model_version_by_alias("deleted", "champion").version) == "2"


def test_a_message_of_a_newer_format_stays_and_says_so(metadata, tracking, tmp_path):
    send_again(metadata, [alias_message("late", "champion", 1, "ver_1") | {"format": 99}])
    told = mirror(metadata, tracking, tmp_path / "artifacts")
    assert told.pending == 1
    assert "format 99" in told.problem


def test_with_nothing_to_tell_mlflow_is_not_even_imported(tmp_path):
    script = (
        "import sys; from pathlib import Path; from seatrial.registry.mlflow import mirror; "
        "from seatrial.registry.versions import Registry; from seatrial.stores.metadata import MetadataStore; "
        "print(mirror(MetadataStore(Path(sys.argv[1])), 'sqlite:///none.db'), 'mlflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "metadata.db")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.strip() == "Mirrored(written=0, pending=0, problem='', refused=0) False"
