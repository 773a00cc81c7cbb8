"""The public names: complete, sorted, real, and cheap to import."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest

import seatrial
from tests.house.tree import ROOT

HEAVY = ("duckdb", "lightgbm", "mlflow", "msgspec", "numpy", "onnx", "onnxruntime", "pandas", "pyarrow", "sklearn")
# The names of the README, the documentation and the templates; adding one is a promise, removing one breaks it
PUBLIC = """
    ABTest Alarm AsyncClient BlueGreen Canary Client Costs CsvSource DeltaSource Deployment Entity FrameSource Gate
    Guardrail Metric Model ModelCard Monitor Objective ParquetSource PostgresSource PredictionLog Project
    ProjectGates QuerySource Retrain Schedule SeatrialError SetAside Shadow Split Trigger Tune agg expect feature_view
    load log_run on_request point_in_time_join shared_view sql
""".split()


def test_the_public_names_are_the_promised_ones_in_order():
    assert sorted(seatrial.__all__) == list(seatrial.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_under_its_own_name(name):
    thing = getattr(seatrial, name)
    assert thing.__name__ == name
    assert name in dir(seatrial)
    assert thing.__doc__


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Projekt"):
        seatrial.Projekt  # noqa: B018


def test_the_version_is_that_of_the_package():
    assert seatrial.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("code", ["import seatrial", "from seatrial.cli import run; run(['--help'])"])
def test_starting_loads_nothing_heavy(code):
    loaded = in_a_fresh_interpreter(code)
    assert [name for name in HEAVY if name in loaded] == []


def test_definitions_load_no_library_of_training_or_tables():
    """A project file is read by every command; what it imports must not cost what training costs."""
    loaded = in_a_fresh_interpreter("from seatrial import *")
    heavy = ("duckdb", "lightgbm", "mlflow", "onnx", "onnxruntime", "pandas", "pyarrow", "sklearn")
    assert [name for name in heavy if name in loaded] == []


def in_a_fresh_interpreter(code: str) -> list[str]:
    """Names of the modules that are loaded after running `code`."""
    report = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True, cwd=ROOT)
    names: list[str] = json.loads(done.stderr.splitlines()[-1])
    return names
