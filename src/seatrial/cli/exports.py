"""`seatrial export` for other schedulers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seatrial.cli.door import Invocation
from seatrial.cli.verbs import export

if TYPE_CHECKING:
    from seatrial.project import Project

TO = click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="A new folder.",
)
PLACE = click.option("--place", metavar="DIR", help="The project's folder as the scheduler sees it (default: as here).")


@export.command("airflow")
@TO
@PLACE
@click.pass_obj
def export_airflow(call: Invocation, folder: Path, place: str | None) -> None:
    """Write DAGs for Airflow 3: one for each declared timing, one task a verb, and one from raw data to a release for
    each model. DIR/README.md has the commands."""
    _written(call, folder, lambda project: project.export_airflow(folder, place=place))


@export.command("prefect")
@TO
@PLACE
@click.pass_obj
def export_prefect(call: Invocation, folder: Path, place: str | None) -> None:
    """Write flows for Prefect 3, as `seatrial export airflow` writes DAGs."""
    _written(call, folder, lambda project: project.export_prefect(folder, place=place))


@export.command("kubeflow")
@click.option("--image", required=True, metavar="NAME", help="An image with seatrial and the project.")
@TO
@click.pass_obj
def export_kubeflow(call: Invocation, folder: Path, image: str) -> None:
    """Write pipelines for Kubeflow (kfp 2), as `seatrial export airflow` writes DAGs."""
    _written(call, folder, lambda project: project.export_kubeflow(folder, image=image))


@export.command("cron")
@TO
@PLACE
@click.pass_obj
def export_cron(call: Invocation, folder: Path, place: str | None) -> None:
    """Write a crontab of what is declared: a line for each timing."""
    _written(call, folder, lambda project: project.export_cron(folder, place=place))


def _written(call: Invocation, folder: Path, write: Callable[[Project], list[str]]) -> None:
    from seatrial.cli import render

    with call.project() as project:
        call.answer({"folder": str(folder), "files": write(project)}, render.exported)
