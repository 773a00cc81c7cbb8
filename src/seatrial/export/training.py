"""A folder from which Docker builds an image that trains one run again and says what came out.

It holds the definitions of the run, exactly the packages that it recorded, and seatrial as a wheel. The rows are not in
it: the container reads them from the project's `.seatrial`, which is mounted.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seatrial.core.errors import Failed
from seatrial.export.build_folder import USER, WHEEL, dockerignore, system_packages, write

PROJECT = "project"
BASE_PACKAGES = ("pip", "setuptools", "wheel")
"""What the base image has installed; what of it the run did not have is taken away."""


class OtherInterpreter(Failed):
    """A run was made with an interpreter of which there is no image."""

    code = "export.other_interpreter"


def export(
    folder: Path,
    *,
    run: str,
    model: str,
    environment: Mapping[str, Any],
    definitions: Mapping[str, bytes],
    settings: str,
    mounts: Mapping[str, str],
) -> list[str]:
    """Write the build folder; the names of the files, sorted.

    folder: is made; when it exists it must be empty. It appears whole or not at all.
    environment: the facts that the run recorded (`training.environment.describe`).
    definitions: the sources of the run's definitions, by their place in the project's folder.
    settings: the text of a seatrial.toml by which the recorded rows are read. mounts: folder or file of the project ->
        its place below /app.
    Raises OtherInterpreter, FolderNotEmpty, CannotWrite.
    """
    interpreter, _, version = environment["python"].rpartition(" ")
    if interpreter != "CPython":
        raise OtherInterpreter(
            f"run {run} was made with {environment['python']}.",
            expected="The image is built on one of CPython's own.",
            state="Nothing was written.",
            next="`seatrial reproduce --rebuild-env` trains it with the interpreter that is here.",
        )
    packages = [line for line in environment["packages"] if not line.startswith("seatrial==")]
    files = {
        "Dockerfile": _dockerfile(run, version, packages, environment).encode(),
        "requirements.txt": "".join(f"{line}\n" for line in packages).encode(),
        ".dockerignore": dockerignore(["requirements.txt", WHEEL, PROJECT]).encode(),
        "README.md": _readme(run, model, mounts).encode(),
        f"{PROJECT}/seatrial.toml": settings.encode(),
        **{f"{PROJECT}/{place}": source for place, source in definitions.items()},
    }
    return write(folder, files)


def _dockerfile(run: str, python: str, packages: Sequence[str], environment: Mapping[str, Any]) -> str:
    names = [line.partition("==")[0] for line in packages]
    foreign = " ".join(name for name in reversed(BASE_PACKAGES) if name not in names)  # pip last: it does the work
    leave = f" \\\n    && python -m pip uninstall --yes {foreign}" if foreign else ""
    command = json.dumps(["seatrial", "reproduce", run])
    variables = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
        **{name: value for name, value in sorted(environment["thread_variables"].items()) if value is not None},
    }
    if environment["hash_seed"] is not None:
        variables["PYTHONHASHSEED"] = environment["hash_seed"]
    return f"""\
FROM python:{python}-slim-bookworm

ENV {" ".join(f"{name}={json.dumps(value)}" for name, value in variables.items())}
WORKDIR /app
{system_packages(names)}
COPY requirements.txt {WHEEL} /tmp/
RUN python -m pip install --no-cache-dir --no-deps -r /tmp/requirements.txt \\
    && python -m pip install --no-cache-dir --no-deps /tmp/{WHEEL} \\
    && rm /tmp/requirements.txt /tmp/{WHEEL} \\
    && useradd --uid {USER} --no-create-home --shell /usr/sbin/nologin seatrial \\
    && mkdir .seatrial{leave}

COPY {PROJECT}/ ./

USER {USER}
CMD {command}
"""


def _readme(run: str, model: str, mounts: Mapping[str, str]) -> str:
    volumes = " ".join(f"--volume {shlex.quote(f'{place}:/app/{inside}')}" for place, inside in mounts.items())
    tag = f"{model.lower()}-{run.partition('_')[2][-12:]}"
    start = f'docker run --rm --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" {volumes} {tag}'
    return f"""\
# Run `{run}` of model `{model}`, again

    docker build --tag {tag} .
    {start}

trains the run a second time in an image that has exactly the packages that it recorded, from its own definitions and
from the rows that the project keeps, makes no version, prints the verdict, and ends with 0 when it is *identical* or
*equivalent*, else with 1. For the same as JSON:

    {start} seatrial reproduce {run} --json

The container is not root, and writes to nothing but /tmp and what is mounted: the audit log, which holds each
reproduction. `--user` is whoever may write there; without it, it is {USER}. `--network none` does it no harm.
"""
