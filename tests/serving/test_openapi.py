"""The OpenAPI document says what the server does: schemathesis reads the one, asks the other, and finds nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.serving.service import Service
from tests.serving.doors.test_open_inference import NUMBERS, SEVERAL, several
from tests.serving.worlds import GOOD, in_thread, predictor, release

CONFIGURATION = """
[[operations]]
# that the tensors of a request, or the columns of a form, are of one length, no schema can say
include-path-regex = "(/infer|/invocations)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400"]
"""
ROW = {"distance": 544.0, "seats": 150, "night": False}


def world(*names):
    """A service of deployments of every kind: a mixed row, numbers only, several classes, two arms."""
    service = Service()
    given = {"metrics": service.metrics}
    made = {
        "late": lambda: [release(example=GOOD)],
        "fare": lambda: [release(signature=NUMBERS, model="fare", example=ROW)],
        "when": lambda: [release(signature=SEVERAL, score=several(), model="when", example=GOOD)],
        "two": lambda: [release(model="two", example=GOOD), release(1, "2", model="two", example=GOOD)],
    }
    for name in names:
        service.serve(name, predictor(*made[name](), **given))
    service.prove()
    return service


def schemathesis(url, folder, *words):
    """What a run of all its checks said, and how it ended."""
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    command = [Path(sys.executable).parent / "schemathesis", "run", f"{url}/openapi.json", "--checks", "all"]
    ran = subprocess.run(
        [*command, "--continue-on-failure", "--warnings", "off", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path):
    with in_thread(world("fare")) as url:
        status, said = schemathesis(url, tmp_path, "-n", "20", "--phases", "examples,fuzzing")
    assert status == 0, said
    assert "No issues found" in said


@pytest.mark.long
@pytest.mark.parametrize("names", [["late"], ["late", "fare", "when", "two"]])
def test_schemathesis_finds_nothing_in_200_examples_of_each_operation(tmp_path, names):
    with in_thread(world(*names)) as url:
        status, said = schemathesis(url, tmp_path, "-n", "200", "--request-timeout", "60")
    assert status == 0, said
