"""The training image: what goes into a container that trains one run again from the project's kept rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.core.errors import listed
from seatrial.core.records import Record
from seatrial.folder.workspace import STATE, Workspace
from seatrial.verbs.runs import DEFINITIONS, NotExtractable, sources_of

if TYPE_CHECKING:
    from seatrial.verbs.building import Building


def training_image(project: Building, name: str, folder: Path) -> list[str]:
    """Write the build folder for a run; the names of the files.

    name: as `reproduce` takes it. Raises NotExtractable, NotReproducible and what `export.training.export` raises.
    """
    from seatrial.export.training import export
    from seatrial.training.environment import unpack_definitions
    from seatrial.verbs.reproduce import chosen

    run, _ = chosen(project, name)
    _refuse_unkept(project, run)
    packed = project.objects.read(run.body["files"][DEFINITIONS])
    written = export(
        folder,
        run=run.id,
        model=run.name,
        environment=run.body["environment"],
        definitions=unpack_definitions(packed, run.body["environment"]["code"]["definitions"]),
        settings=_settings(project, run),
        mounts=_mounts(project),
    )
    with project.metadata.transaction() as transaction:
        project.event(transaction, "run.exported", run.id, {"form": "docker"})
    return written


def _refuse_unkept(project: Workspace, run: Record) -> None:
    """Raise NotExtractable for a run that cannot be trained again without what is outside of the project."""
    if DEFINITIONS not in run.body.get("files", {}):
        raise NotExtractable(
            f"run {run.id} kept no definitions: they were given in memory, or it is of an earlier version.",
            state="Nothing was written.",
            next="Train it again from a project file.",
        )
    shared = [source for source in sources_of(project, run) if "@" in source]
    if shared:
        raise NotExtractable(
            f"run {run.id} uses views of another project: {listed(shared)}.",
            expected="The image holds one project's definitions.",
            state="Nothing was written.",
        )


def _places(project: Workspace) -> dict[str, tuple[Path, str]]:
    """What is mounted: the project's state, the folder of the metadata store and that of the objects, each with its
    place in the container. Where they are below one another they are mounted once."""
    state = (project.folder / STATE).resolve()
    places = {"state": (state, STATE)}
    for store, path in (("metadata", project.sqlite_path("metadata").parent), ("objects", project.objects.root)):
        outside = not path.resolve().is_relative_to(state)
        inside = f"stores/{store}" if outside else f"{STATE}/{path.resolve().relative_to(state).as_posix()}"
        places[store] = (path.resolve(), inside)
    return places


def _mounts(project: Workspace) -> dict[str, str]:
    places = _places(project).values()
    return {str(path): inside for path, inside in places if inside == STATE or not inside.startswith(f"{STATE}/")}


def _settings(project: Workspace, run: Record) -> str:
    """A seatrial.toml by which each source is read from the rows that the run recorded, where they are kept."""
    places = _places(project)
    objects = places["objects"][1]
    metadata = f"sqlite:///{places['metadata'][1]}/{project.sqlite_path('metadata').name}"
    lines = [
        f"name = {json.dumps(project.name)}",
        f"threads = {project.settings.threads}",
        "",
        "[stores]",
        f"metadata = {json.dumps(metadata)}",
        f"objects = {json.dumps(objects)}",
        'mlflow = ""',
        "",
        "# the rows that the run read, instead of where the sources are declared",
        "[sources]",
    ]
    for source, snapshot in sources_of(project, run).items():
        key = project.record(snapshot).body["object"]
        if project.objects.exists(key):
            lines.append(f"{json.dumps(source)} = {json.dumps(f'{objects}/{key}')}")
    return "\n".join(lines) + "\n"
