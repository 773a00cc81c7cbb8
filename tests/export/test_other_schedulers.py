"""What is written for Airflow, Prefect and Kubeflow, run once by each of them: in environments of their own."""

from __future__ import annotations

import json
import subprocess

import pytest

from seatrial import Project
from tests.export.environments import environment, variables
from tests.worlds import write_project

pytestmark = pytest.mark.long

MORE = """
Schedule("materialize", every="1h")
Schedule("label", "late", every="1h", retries=0)
"""


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "project"
    made.mkdir()
    write_project(made)
    with (made / "project.py").open("a") as file:
        file.write(MORE)
    return made


def ran(folder):
    with Project(folder) as project:
        return [(job.schedule, job.state, job.attempt) for job in project.schedule_history()]


def test_airflow_reads_the_dags_and_runs_one_twice_for_one_instant(request, folder, tmp_path):
    python = environment(request, "airflow", "apache-airflow>=3,<4")
    with Project(folder) as project:
        project.export_airflow(tmp_path / "dags")
    env = variables(
        AIRFLOW_HOME=str(tmp_path / "home"),
        AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path / "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        PYTHONWARNINGS="ignore",
    )

    def airflow(*words):
        program = str(python.parent / "airflow")
        return subprocess.run(
            [program, *words], env=env, capture_output=True, text=True, check=True, timeout=600
        ).stdout

    airflow("db", "migrate")
    listed = airflow("dags", "list-import-errors", "-o", "json")
    assert json.loads(listed[listed.index("[") :] if "[" in listed else "[]") == []
    for _ in range(2):
        airflow("dags", "test", "project-every-1h", "2024-01-10T12:30:00Z")
    made = ran(folder)
    assert made[:2] == [("materialize", "done", 1), ("label-late", "done", 1)]
    assert all(state == "done" for _, state, _ in made)


def test_prefect_runs_a_flow(request, folder, tmp_path):
    python = environment(
        request, "prefect", "prefect>=3,<4", "fastapi<0.130"
    )  # Prefect 3.8 with a later one does not start
    with Project(folder) as project:
        _, file = project.export_prefect(tmp_path / "flows")
    code = f"import {file.removesuffix('.py')} as f; print(all(one.is_completed() for one in f.project_every_1h()))"
    env = variables(
        PREFECT_HOME=str(tmp_path / "home"),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="300",
        DO_NOT_TRACK="1",
    )
    done = subprocess.run(
        [str(python), "-c", code],
        cwd=tmp_path / "flows",
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("True")
    assert ran(folder) == [("materialize", "done", 1), ("label-late", "done", 1)]


def test_kubeflow_compiles_the_pipelines(request, folder, tmp_path):
    python = environment(request, "kubeflow", "kfp>=2,<3")
    with Project(folder) as project:
        _, file = project.export_kubeflow(tmp_path / "pipelines", image="registry/late:1")
    words = [str(python), "-W", "ignore", file]
    subprocess.run(words, cwd=tmp_path / "pipelines", env=variables(), check=True, timeout=600)
    code = """
import json, sys, yaml
from kfp.components import load_component_from_file
load_component_from_file(sys.argv[1])
spec = yaml.safe_load(open(sys.argv[1]))
tasks = spec["root"]["dag"]["tasks"]
containers = spec["deploymentSpec"]["executors"].values()
print(json.dumps([{name: task.get("dependentTasks", []) for name, task in tasks.items()},
                  sorted(" ".join(one["container"]["command"] + one["container"]["args"]) for one in containers)]))
"""
    done = subprocess.run(
        [str(python), "-W", "ignore", "-c", code, "project-late-release.yaml"],
        cwd=tmp_path / "pipelines",
        env=variables(),
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    tasks, commands = json.loads(done.stdout)
    assert commands == [
        *("seatrial materialize", "seatrial release late", "seatrial snapshot", "seatrial train late"),
        "seatrial validate",
    ]
    assert sorted(len(after) for after in tasks.values()) == [0, 1, 1, 1, 1]
