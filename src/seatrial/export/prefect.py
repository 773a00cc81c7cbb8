"""Flows for Prefect 3: one for each timing that is declared, and one for each model's path to a release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seatrial.core.timing import Timing
from seatrial.core.windows import duration_us
from seatrial.export.build_folder import write_files
from seatrial.export.tasks import PROGRAM, Pipeline, Task, head, identifier, slug

_LONGEST_PAUSES = 20


def export(pipelines: Sequence[Pipeline], folder: Path, *, project: str, place: str) -> list[str]:
    """Write the file with the flows, and how to use it; the names of the files, sorted.

    place: where the project's folder is, as the process that runs the flows sees it. folder: is made; when it exists it
    must be empty. Raises FolderNotEmpty, CannotWrite.
    """
    name = f"seatrial_{identifier(slug(project))}.py"
    files = {name: flows(pipelines, project=project, place=place), "README.md": _readme(name, pipelines)}
    return write_files(folder, {file: text.encode() for file, text in files.items()})


def flows(pipelines: Sequence[Pipeline], *, project: str, place: str) -> str:
    """The Python file."""
    kinds = sorted({"Cron" if one.timing.cron else "Interval" for one in pipelines if one.timing})
    dates = ["from datetime import datetime, timedelta"] if "Interval" in kinds else []
    lines = [
        head("prefect").rstrip(),
        f'"""Tasks of the seatrial project {project!r}: each is one verb, and nothing is decided here."""',
        "",
        "import os",
        "import subprocess",
        *dates,
        "",
        "from prefect import flow, serve, task",
        "from prefect.runtime import flow_run",
        *([f"from prefect.schedules import {', '.join(kinds)}"] if kinds else []),
        "",
        f"PROJECT = os.environ.get('SEATRIAL_PROJECT', {place!r})  # the project's folder, where the flows run",
        "",
        "",
        "def seatrial(*words):",
        f"    subprocess.run([{PROGRAM!r}, *words], cwd=PROJECT, check=True)",
    ]
    for pipeline in pipelines:
        for one in pipeline.tasks:
            lines += ["", "", *_task(pipeline, one)]
        lines += ["", "", *_flow(pipeline)]
    lines += ["", "", "if __name__ == '__main__':", "    serve("]
    for pipeline in pipelines:
        schedule = f", schedule={_schedule(pipeline.timing)}" if pipeline.timing else ""
        lines.append(f"        {pipeline.identifier}.to_deployment(name={pipeline.name!r}{schedule}),")
    return "\n".join([*lines, "    )"]) + "\n"


def _task(pipeline: Pipeline, one: Task) -> list[str]:
    words = [repr(word) for word in one.words]
    words += ["'--slot'", "slot"] if one.scheduled else []
    settings = [f"name={one.name!r}", f"timeout_seconds={one.timeout_us // 1_000_000 + 60}"]
    if one.retries:
        pause = max(one.back_off_us // 1_000_000, 1)
        pauses = [pause << number for number in range(min(one.retries, _LONGEST_PAUSES))]
        settings += [f"retries={one.retries}", f"retry_delay_seconds={pauses}"]
    return [
        f"@task({', '.join(settings)})",
        f"def {_function(pipeline, one.name)}({'slot' if one.scheduled else ''}):",
        f"    seatrial({', '.join(words)})",
    ]


def _flow(pipeline: Pipeline) -> list[str]:
    lines = [
        f"@flow(name={pipeline.name!r}, description={pipeline.about!r})",
        f"def {pipeline.identifier}():",
    ]
    if any(one.scheduled for one in pipeline.tasks):
        lines.append("    slot = flow_run.scheduled_start_time.isoformat()")
    for one in pipeline.tasks:
        given = ["slot"] if one.scheduled else []
        given += [f"wait_for=[{', '.join(identifier(name) for name in one.after)}]"] if one.after else []
        lines.append(f"    {one.identifier} = {_function(pipeline, one.name)}.submit({', '.join(given)})")
    names = ", ".join(one.identifier for one in pipeline.tasks)
    return [*lines, f"    return [{names}]"]


def _function(pipeline: Pipeline, name: str) -> str:
    return identifier(f"{pipeline.name}__{name}")


def _schedule(timing: Timing) -> str:
    if timing.cron:
        return f"Cron({timing.cron!r}, timezone={timing.timezone!r})"
    start = "anchor_date=datetime.fromisoformat('1970-01-01T00:00:00+00:00')"
    return f"Interval(timedelta(microseconds={duration_us(timing.every)}), {start})"


def _readme(name: str, pipelines: Sequence[Pipeline]) -> str:
    table = "\n".join(
        f"| `{one.name}` | {one.timing or 'by hand'} | {', '.join(task.name for task in one.tasks)} |"
        for one in pipelines
    )
    return f"""\
# Flows for Prefect

    python {name}

serves the flows (Prefect 3): it registers them with the server of PREFECT_API_URL, and runs them here when they are
due. The process needs `{PROGRAM}` on its path and the project's folder, whose place is at the top of the file, or in
the variable SEATRIAL_PROJECT.

| flow | when | tasks |
|---|---|---|
{table}

A task of a schedule is `seatrial schedules run NAME --slot TIME`: called twice for one instant it runs once, so a retry
does no harm, and it may run beside `seatrial up`.
"""
