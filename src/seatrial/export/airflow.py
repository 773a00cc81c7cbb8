"""DAGs for Apache Airflow 3: one for each timing that is declared, and one for each model's path to a release."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from seatrial.core.clock import from_us
from seatrial.core.timing import Timing
from seatrial.core.windows import duration_us
from seatrial.export.build_folder import write_files
from seatrial.export.tasks import PROGRAM, Pipeline, Task, head, identifier, slug

SLOT = '"{{ dag_run.run_after.isoformat() }}"'
"""When the run was due, also of one that is started by hand or late."""
_START_US = 1_704_067_200_000_000  # 2024-01-01


def export(pipelines: Sequence[Pipeline], folder: Path, *, project: str, place: str) -> list[str]:
    """Write the file for Airflow's folder of DAGs, and how to use it; the names of the files, sorted.

    place: where the project's folder is, as Airflow's workers see it. folder: is made; when it exists it must be empty.
    Raises FolderNotEmpty, CannotWrite.
    """
    name = f"seatrial_{identifier(slug(project))}.py"
    files = {name: dags(pipelines, project=project, place=place), "README.md": _readme(name, pipelines)}
    return write_files(folder, {file: text.encode() for file, text in files.items()})


def dags(pipelines: Sequence[Pipeline], *, project: str, place: str) -> str:
    """The Python file."""
    timetables = sorted({"Cron" if one.timing.cron else "Delta" for one in pipelines if one.timing})
    imports = [f"{one}TriggerTimetable" for one in timetables]
    lines = [
        head("airflow").rstrip(),
        f'"""Tasks of the seatrial project {project!r}: each is one verb, and nothing is decided here."""',
        "",
        "import os",
        "from datetime import datetime, timedelta, timezone",
        "",
        "from airflow.providers.standard.operators.bash import BashOperator",
        f"from airflow.sdk import {', '.join([*imports, 'DAG'])}",
        "",
        f"PROJECT = os.environ.get('SEATRIAL_PROJECT', {place!r})  # the project's folder, on the workers",
        "",
    ]
    for one in pipelines:
        lines += ["", *_dag(one, project)]
    return "\n".join(lines) + "\n"


def _dag(pipeline: Pipeline, project: str) -> list[str]:
    schedule, start = _timetable(pipeline.timing)
    lines = [
        "with DAG(",
        f"    dag_id={pipeline.name!r},",
        f"    description={pipeline.about!r},",
        f"    schedule={schedule},",
        f"    start_date={start},",
        "    catchup=False,  # one run stands for what was missed",
        "    max_active_runs=1,",
        f"    tags={['seatrial', project]!r},",
        "):",
    ]
    for task in pipeline.tasks:
        lines += _task(task)
    for task in pipeline.tasks:
        before = [identifier(name) for name in task.after]
        if before:
            upstream = before[0] if len(before) == 1 else f"[{', '.join(before)}]"
            lines.append(f"    {upstream} >> {task.identifier}")
    return lines


def _task(task: Task) -> list[str]:
    command = " ".join([PROGRAM, *(_literal(shlex.quote(word)) for word in task.words)])
    command += f" --slot {SLOT}" if task.scheduled else ""
    lines = [
        f"    {task.identifier} = BashOperator(",
        f"        task_id={task.name!r},",
        f"        bash_command={command!r},",
        "        cwd=PROJECT,",
        f"        execution_timeout=timedelta(seconds={task.timeout_us // 1_000_000 + 60}),",
    ]
    if task.retries:
        lines += [
            f"        retries={task.retries},",
            f"        retry_delay=timedelta(seconds={max(task.back_off_us // 1_000_000, 1)}),",
            "        retry_exponential_backoff=True,",
        ]
    return [*lines, "    )"]


def _literal(word: str) -> str:
    """A word as it is, where Airflow would fill in a template."""
    return f"{{% raw %}}{word}{{% endraw %}}" if any(sign in word for sign in ("{{", "{%", "{#")) else word


def _timetable(timing: Timing | None) -> tuple[str, str]:
    """The schedule and the start of a DAG, as Python."""
    start = "datetime(2024, 1, 1, tzinfo=timezone.utc)"
    if timing is None:
        return "None", start
    if timing.cron:
        return f"CronTriggerTimetable({timing.cron!r}, timezone={timing.timezone!r})", start
    length = duration_us(timing.every)
    first = from_us(-(-_START_US // length) * length)
    start = f"datetime.fromisoformat({first.isoformat()!r})"
    return f"DeltaTriggerTimetable(timedelta(microseconds={length}))", start


def _readme(name: str, pipelines: Sequence[Pipeline]) -> str:
    table = "\n".join(f"| `{one.name}` | {one.timing or 'by hand'} | {_steps(one)} |" for one in pipelines)
    return f"""\
# Tasks for Airflow

Copy `{name}` into Airflow's folder of DAGs (Airflow 3). Its workers need `{PROGRAM}` on their path and the project's
folder, whose place is at the top of the file, or in the variable SEATRIAL_PROJECT.

| DAG | when | tasks |
|---|---|---|
{table}

A task of a schedule is `seatrial schedules run NAME --slot TIME`: called twice for one instant it runs once, so a retry
or a cleared task does no harm, and it may run beside `seatrial up`. It ends with 0 when the run ended well now or had
before, with 1 when it failed, 4 while it is paused, 5 while another run of it is under way.
"""


def _steps(pipeline: Pipeline) -> str:
    return ", ".join(
        f"{task.name} after {' and '.join(task.after)}" if task.after else task.name for task in pipeline.tasks
    )
