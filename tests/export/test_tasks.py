"""What other schedulers are given: which tasks, in which order; then each form, read as text and as Python."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys

import pytest

from seatrial import Project, Schedule
from seatrial.core.errors import UsageError
from seatrial.core.timing import Timing
from seatrial.export import airflow, cron, kubeflow, prefect
from seatrial.export.build_folder import FolderNotEmpty
from seatrial.export.tasks import NothingToExport, identifier, path, slug, timing_slug
from seatrial.scheduling.pipelines import timed
from tests.worlds import write_project

NIGHT = {"cron": "0 3 * * 1", "timezone": "Europe/Berlin"}
MORE = """
Schedule("materialize", cron="0 3 * * 1", timezone="Europe/Berlin")
Schedule("retrain", "late", cron="0 3 * * 1", timezone="Europe/Berlin", args=["propose"], name="100%")
Schedule("monitor", "late", cron="0 3 * * 1", timezone="Europe/Berlin", retries=1, back_off="2m")
Schedule("predictions ship", every="90m", name="class")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = write_project(tmp_path_factory.mktemp("tasks"))
    with (made / "project.py").open("a") as file:
        file.write(MORE.replace('name="100%"', 'name="weekly"'))
    return made


def test_tasks_of_one_timing_follow_the_path_and_those_of_another_are_apart():
    schedules = [
        Schedule("monitor", "b", **NIGHT),
        Schedule("retrain", "a", **NIGHT),
        Schedule("predictions prune", **NIGHT),
        Schedule("monitor", "a", **NIGHT),
        Schedule("materialize", **NIGHT),
        Schedule("monitor", "a", every="1h", name="hourly"),
    ]
    weekly, hourly = timed(schedules, project="My Project")
    assert {task.name: task.after for task in weekly.tasks} == {
        "materialize": (),
        "monitor-b": ("materialize",),
        "monitor-a": ("materialize",),
        "retrain-a": ("monitor-a",),
        "predictions-prune": (),
    }
    names = [task.name for task in weekly.tasks]
    assert all(names.index(one) < names.index(task.name) for task in weekly.tasks for one in task.after)
    assert [task.words for task in hourly.tasks] == [("schedules", "run", "hourly")]
    assert (weekly.name, hourly.name) == ("my-project-at-0-3-x-x-1-europe-berlin", "my-project-every-1h")


def test_the_path_of_a_model_goes_from_raw_data_to_a_release_and_deploys_nothing():
    tasks = path("late", project="p", views=True).tasks
    assert [" ".join(task.words) for task in tasks] == [
        *("validate", "snapshot", "materialize", "train late", "release late")
    ]
    assert [task.after for task in tasks] == [(), ("validate",), ("snapshot",), ("materialize",), ("train",)]


@pytest.mark.parametrize(
    ("name", "python", "short"),
    [("late", "late", "late"), ("7-up", "_7_up", "7-up"), ("class", "_class", "class"), ("é", "_", "project")],
)
def test_any_name_becomes_one_that_others_take(name, python, short):
    assert identifier(name) == python
    assert identifier(name).isidentifier()
    assert slug(name) == short


def test_a_timing_has_a_short_name():
    assert timing_slug(Timing(cron="*/5 * * * *")) == "at-x-5-x-x-x-x"


FORMS = {
    "airflow": lambda project, to: project.export_airflow(to, place="/srv/late's"),
    "prefect": lambda project, to: project.export_prefect(to, place="/srv/late's"),
    "kubeflow": lambda project, to: project.export_kubeflow(to, image="registry/late:1"),
}


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    """The Python of each form, parsed."""
    found = {}
    with Project(folder) as project:
        for form, write in FORMS.items():
            to = tmp_path_factory.mktemp(form) / "out"
            files = write(project, to)
            assert files[0] == "README.md"
            assert files[1].endswith(".py")
            found[form] = ast.parse((to / files[1]).read_text())
    return found


def calls(tree, name):
    """The keyword arguments of each call of a name, as Python values where they are constants."""
    return [
        {
            one.arg: one.value.value if isinstance(one.value, ast.Constant) else ast.unparse(one.value)
            for one in node.keywords
        }
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name
    ]


def test_airflow_has_a_dag_for_each_timing_and_a_task_for_each_verb(written):
    tree = written["airflow"]
    schedules = {one["dag_id"]: one["schedule"] for one in calls(tree, "DAG")}
    assert len(schedules) == 3
    assert "CronTriggerTimetable('0 3 * * 1', timezone='Europe/Berlin')" in schedules.values()
    assert "DeltaTriggerTimetable(timedelta(microseconds=5400000000))" in schedules.values()
    assert None in schedules.values()
    tasks = {one["task_id"]: one for one in calls(tree, "BashOperator")}
    assert tasks["monitor-late"]["bash_command"] == (
        'seatrial schedules run monitor-late --slot "{{ dag_run.run_after.isoformat() }}"'
    )
    assert (tasks["monitor-late"]["retries"], tasks["monitor-late"]["retry_delay"]) == (1, "timedelta(seconds=120)")
    assert tasks["train"]["bash_command"] == "seatrial train late"
    assert "retries" not in tasks["train"]
    edges = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.BinOp)]
    assert edges == [
        *("materialize >> monitor_late", "monitor_late >> weekly"),
        *("validate >> snapshot", "snapshot >> materialize", "materialize >> train", "train >> release"),
    ]


def test_what_airflow_would_take_for_a_template_stays_as_it_is():
    assert airflow._literal("{{ x }}") == "{% raw %}{{ x }}{% endraw %}"
    assert airflow._literal("plain") == "plain"


def test_prefect_has_a_flow_for_each_timing_and_its_tasks_wait_for_each_other(written):
    tree = written["prefect"]
    functions = {node.name: ast.unparse(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
    weekly = next(text for name, text in functions.items() if name.endswith("europe_berlin"))
    assert ".submit(slot, wait_for=[monitor_late])" in weekly
    assert any("seatrial('schedules', 'run', 'monitor-late', '--slot', slot)" in text for text in functions.values())
    assert any("retry_delay_seconds=[120]" in text for text in functions.values())
    deployments = calls(tree, "to_deployment")
    assert [one.get("schedule", "").partition("(")[0] for one in deployments] == ["Cron", "Interval", ""]


def test_kubeflow_has_a_container_for_each_verb_in_the_same_order(written):
    tree = written["kubeflow"]
    text = ast.unparse(tree)
    assert "IMAGE = 'registry/late:1'" in text
    assert "args=['schedules', 'run', 'monitor-late']" in text
    assert "monitor_late.set_retry(num_retries=1, backoff_duration='120s', backoff_factor=2.0)" in text
    assert "monitor_late.after(materialize)" in text
    assert text.count(".set_caching_options(False)") == text.count("dsl.ContainerSpec(") == 9


@pytest.mark.parametrize(
    ("timing", "fields"),
    [
        (Timing(cron="0 3 * * 1", timezone="Europe/Berlin"), "0 3 * * 1"),
        (Timing(every="1h"), "0 * * * *"),
        (Timing(every="6h"), "0 */6 * * *"),
        (Timing(every="5h"), "0 * * * *"),
        (Timing(every="10m"), "*/10 * * * *"),
        (Timing(every="90m"), "*/30 * * * *"),
        (Timing(every="7m"), "* * * * *"),
        (Timing(every="10s"), "* * * * *"),
        (Timing(every="1d"), "0 0 * * *"),
        (Timing(every="2d"), "0 0 * * *"),
        (Timing(every="7d"), "0 0 * * 4"),
    ],
)
def test_a_crontab_line_comes_at_each_instant_at_least(timing, fields):
    assert cron.fields(timing) == fields
    if timing.every and not timing.every.endswith("s"):
        line, at = Timing(cron=fields), 1_700_000_000_000_000
        for _ in range(20):
            at = timing.after(at)
            assert line.latest(at) == at


def test_the_lines_of_a_crontab_do_in_a_shell_what_they_say(folder, tmp_path):
    with Project(folder) as project:
        cron.export(project._pipelines(), tmp_path / "out", place=str(tmp_path))
    text = (tmp_path / "out" / "seatrial.crontab").read_text()
    assert "CRON_TZ=Europe/Berlin\n0 3 * * 1 cd " in text
    assert "CRON_TZ=UTC\n*/30 * * * * cd " in text
    (line,) = [one for one in text.splitlines() if one.startswith("0 3 * * 1")]
    shell = line.split(" ", 5)[5].replace(r"\%", "%")
    fake = tmp_path / "bin" / "seatrial"
    fake.parent.mkdir()
    for failing, made in (("nothing", "materialize monitor-late weekly"), ("monitor-late", "materialize monitor-late")):
        fake.write_text(f'#!/bin/sh\necho -n "$3 " >> {tmp_path}/made\n[ "$3" != {failing} ]\n')
        fake.chmod(0o755)
        (tmp_path / "made").unlink(missing_ok=True)
        subprocess.run(["/bin/sh", "-c", shell], env={"PATH": f"{fake.parent}:/usr/bin:/bin"}, check=False)
        assert (tmp_path / "made").read_text().strip() == made


def test_a_crontab_calls_the_seatrial_that_wrote_it_and_names_what_cron_does_not_give(folder, tmp_path):
    (folder / "seatrial.toml").write_text('[routes]\nops = "https://ops.example.org/${OPS_KEY}"\n')
    with Project(folder) as project:
        project.export_cron(tmp_path / "out")
    (folder / "seatrial.toml").unlink()
    text = (tmp_path / "out" / "seatrial.crontab").read_text()
    (program,) = set(re.findall(r"(\S+(?: -m seatrial)?) schedules run", text))
    done = subprocess.run(
        ["/bin/sh", "-c", f"{program} --version"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    readme = (tmp_path / "out" / "README.md").read_text()
    assert program in readme
    assert "OPS_KEY" in readme


def test_a_folder_that_would_begin_a_line_of_its_own_is_refused_by_the_crontab(folder, tmp_path):
    with Project(folder) as project, pytest.raises(UsageError, match="cannot stand in a crontab"):
        project.export_cron(tmp_path / "out", place="/srv/late\n* * * * * touch /tmp/made")
    assert not (tmp_path / "out").exists()


def test_an_environment_is_part_of_every_task_and_name(folder):
    shutil.copy(folder / "project.py", folder / "copy.py")
    (folder / "seatrial.toml").write_text("[env.prod]\nthreads = 1\n")
    with Project(folder, env="prod") as project:
        pipelines = project._pipelines()
    (folder / "seatrial.toml").unlink()
    (folder / "copy.py").unlink()
    assert all(one.name.endswith("-prod") for one in pipelines)
    assert all(task.words[-2:] == ("--env", "prod") for one in pipelines for task in one.tasks)


def test_nothing_declared_is_told_and_a_folder_that_holds_something_is_left_alone(tmp_path):
    with Project(tmp_path, definitions=[]) as project:
        with pytest.raises(NothingToExport):
            project.export_airflow(tmp_path / "out")
        with pytest.raises(NothingToExport):
            project.export_cron(tmp_path / "out")
    with Project(tmp_path, definitions=[Schedule("materialize", every="1h")]) as project:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        with pytest.raises(FolderNotEmpty):
            project.export_prefect(tmp_path / "full")
        assert project.export_cron(tmp_path / "out") == ["README.md", "seatrial.crontab"]


@pytest.mark.parametrize("text", ["plain", 'O\'Neil "quoted" \\ {{ x }} %s'])
def test_a_name_with_any_sign_in_it_makes_sound_python(text):
    pipelines = timed([Schedule("materialize", every="1h", args=[text])], project=text)
    for made in (
        airflow.dags(pipelines, project=text, place=text),
        prefect.flows(pipelines, project=text, place=text),
        kubeflow.definitions(pipelines, project=text, image=text),
    ):
        compile(made, sys.executable, "exec")
