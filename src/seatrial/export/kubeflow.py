"""Pipelines for Kubeflow (kfp 2): one for each timing that is declared, and one for each model's path to a release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seatrial.core.timing import Timing
from seatrial.core.windows import duration_us
from seatrial.export.build_folder import write_files
from seatrial.export.tasks import PROGRAM, Pipeline, Task, head, identifier, slug


def export(pipelines: Sequence[Pipeline], folder: Path, *, project: str, image: str) -> list[str]:
    """Write the file with the pipelines, and how to use it; the names of the files, sorted.

    image: one that has seatrial and the project in its working directory. folder: is made; when it exists it must be
    empty. Raises FolderNotEmpty, CannotWrite.
    """
    name = f"seatrial_{identifier(slug(project))}.py"
    files = {name: definitions(pipelines, project=project, image=image), "README.md": _readme(name, pipelines)}
    return write_files(folder, {file: text.encode() for file, text in files.items()})


def definitions(pipelines: Sequence[Pipeline], *, project: str, image: str) -> str:
    """The Python file."""
    lines = [
        head("kubeflow").rstrip(),
        f'"""Tasks of the seatrial project {project!r}: each is one verb, and nothing is decided here."""',
        "",
        "from kfp import compiler, dsl",
        "",
        f"IMAGE = {image!r}  # with seatrial, and the project in its working directory",
    ]
    for pipeline in pipelines:
        for one in pipeline.tasks:
            lines += ["", "", *_component(pipeline, one)]
        lines += ["", "", *_pipeline(pipeline)]
    lines += ["", "", "if __name__ == '__main__':"]
    lines += [f"    compiler.Compiler().compile({one.identifier}, {one.name + '.yaml'!r})" for one in pipelines]
    return "\n".join(lines) + "\n"


def _component(pipeline: Pipeline, one: Task) -> list[str]:
    return [
        "@dsl.container_component",
        f"def {_function(pipeline, one.name)}():",
        f"    return dsl.ContainerSpec(image=IMAGE, command=[{PROGRAM!r}], args={list(one.words)!r})",
    ]


def _pipeline(pipeline: Pipeline) -> list[str]:
    lines = [
        f"@dsl.pipeline(name={pipeline.name!r}, description={pipeline.about!r})",
        f"def {pipeline.identifier}():",
    ]
    for one in pipeline.tasks:
        lines.append(f"    {one.identifier} = {_function(pipeline, one.name)}()")
        lines.append(f"    {one.identifier}.set_caching_options(False)")
        if one.retries:
            pause = f"{max(one.back_off_us // 1_000_000, 1)}s"
            lines.append(
                f"    {one.identifier}.set_retry("
                f"num_retries={one.retries}, backoff_duration={pause!r}, backoff_factor=2.0)"
            )
        if one.after:
            lines.append(f"    {one.identifier}.after({', '.join(identifier(name) for name in one.after)})")
    return lines


def _function(pipeline: Pipeline, name: str) -> str:
    return identifier(f"{pipeline.name}__{name}")


def recurring(timing: Timing) -> str:
    """A timing as the arguments of `create_recurring_run`; Kubeflow's cron has a field for seconds, and its zone is the
    cluster's."""
    if timing.cron:
        return f"cron_expression='0 {timing.cron}'"
    return f"interval_second={max(duration_us(timing.every) // 1_000_000, 1)}"


def _readme(name: str, pipelines: Sequence[Pipeline]) -> str:
    table = "\n".join(
        f"| `{one.name}.yaml` | {one.timing or 'by hand'} | {', '.join(task.name for task in one.tasks)} |"
        for one in pipelines
    )
    runs = "\n".join(
        f"    client.create_recurring_run(experiment, {one.name!r}, pipeline_package_path={one.name + '.yaml'!r},\n"
        f"                                {recurring(one.timing)}, no_catchup=True, max_concurrency=1)"
        for one in pipelines
        if one.timing
    )
    zones = sorted({one.timing.timezone for one in pipelines if one.timing and one.timing.cron} - {"UTC"})
    zone = (
        f"\nKubeflow reads cron expressions in the zone of its cluster (usually UTC); declared are times of "
        f"{', '.join(zones)}. A task takes the last\ninstant of its schedule, so it may come later than that, but "
        "never runs twice for one.\n"
        if zones
        else ""
    )
    return f"""\
# Pipelines for Kubeflow

    python {name}     # with kfp 2; writes the files below

| pipeline | when | tasks |
|---|---|---|
{table}

The image needs seatrial and the project in its working directory. What the project keeps (`.seatrial`, or wherever its
settings say) must outlive a container: mount a volume there for every task (`kfp-kubernetes`), or name servers in
seatrial.toml.

{runs or "Nothing is declared to run by itself."}
{zone}
A task of a schedule is `seatrial schedules run NAME`: called twice for one instant it runs once.
"""
