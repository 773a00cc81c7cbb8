"""The exported training image without an engine: its packages in an empty environment, its command, variables and
user as they stand, with nothing to write to but what is mounted."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seatrial import Project
from seatrial.cli import run as cli
from seatrial.export.training import OtherInterpreter, export
from seatrial.training.environment import installed
from seatrial.verbs.runs import NotExtractable
from tests.worlds import edit, git, write_project

pytestmark = pytest.mark.slow

TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project under git, with a run of its model."""
    folder = write_project(tmp_path_factory.mktemp("project"))
    (folder / ".gitignore").write_text(".seatrial/\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "Predict what is late")
    with Project(folder) as project:
        return folder, project.train().run


@pytest.fixture(scope="module")
def image(trained):
    """The build folder, written after the project became another."""
    folder, run = trained
    edit(folder, '"num_leaves": 7', '"num_leaves": 2')
    assert (
        cli(["--project", str(folder), "export", "docker", run[:20], "--training", "--to", str(folder / "image")]) == 0
    )
    (folder / "departures.parquet").unlink()
    return folder / "image"


def dockerfile(image: Path) -> str:
    return (image / "Dockerfile").read_text()


class Container:
    """What the Dockerfile makes, in folders that stand for /app, /tmp and its Python; `.seatrial` is mounted."""

    def __init__(self, image: Path, root: Path, state: Path) -> None:
        self.app, self.tmp, self.python = root / "app", root / "tmp", root / "python"
        self.text = dockerfile(image)
        shutil.copytree(image / "project", self.app)
        self.tmp.mkdir()
        subprocess.run([TOOLS / "uv", "venv", "--quiet", "--python", sys.executable, self.python], check=True)
        for what in (["--requirements", image / "requirements.txt"], [next(image.glob("*.whl"))]):
            pip = [TOOLS / "uv", "pip", "install", "--quiet", "--no-deps", "--python", self.python / "bin" / "python"]
            subprocess.run([*pip, *what], check=True)
        shutil.copytree(state, self.app / ".seatrial")
        user = int(re.findall(r"^USER (\d+)$", self.text, re.MULTILINE)[-1])
        self.alone = os.geteuid() == 0  # only root can become another user, and mount
        if self.alone:
            for path in [self.tmp, self.app / ".seatrial", *(self.app / ".seatrial").rglob("*")]:
                os.chown(path, user, user)
        self.user = user

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Its command, or another, with its variables, and nothing else but which kernels this machine's BLAS takes."""
        words = ast.literal_eval(re.findall(r"^CMD (\[.*\])$", self.text, re.MULTILINE)[-1])
        (line,) = re.findall(r"^ENV (.*)$", self.text, re.MULTILINE)
        variables = dict(word.split("=", 1) for word in shlex.split(line))
        variables = {name: value.replace("/tmp", str(self.tmp)) for name, value in variables.items()}
        variables |= {"PATH": f"{self.python / 'bin'}{os.pathsep}{os.defpath}", "TMPDIR": str(self.tmp)}
        variables |= {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")}
        command = [*words, *more]
        if self.alone:
            # the whole tree is read-only but for the two mounts; dac_read_search stands for a Python outside of /root
            user, caps = str(self.user), "-all,+dac_read_search"
            drop = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs"]
            drop += ["--inh-caps", caps, "--ambient-caps", caps]
            mounts = f"for one in {shlex.quote(str(self.app / '.seatrial'))} {shlex.quote(str(self.tmp))}; do "
            mounts += 'mount --bind "$one" "$one"; done; mount -o remount,bind,ro /; exec "$@"'
            command = ["unshare", "--mount", "sh", "-ec", mounts, "sh", *drop, *command]
        return subprocess.run(command, cwd=self.app, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def container(trained, image, tmp_path_factory):
    return Container(image, tmp_path_factory.mktemp("container"), trained[0] / ".seatrial")


def test_the_run_is_identical_in_the_image_and_nothing_differs(trained, container):
    before = {path for path in container.app.rglob("*") if ".seatrial" not in path.parts}
    done = container.run("--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["verdict"], found["run"], found["reproduced"]) == ("identical", trained[1], True)
    assert found["digest"] == found["recorded_digest"]
    assert found["inputs"] == found["project"] == []
    assert {path for path in container.app.rglob("*") if ".seatrial" not in path.parts} == before
    with Project(container.app) as project:
        event = project.audit_list()[-1]
    assert event.kind == "run.reproduced"
    if container.alone:
        assert event.actor == f"uid-{container.user}"


def test_it_does_not_run_as_root_and_waits_for_no_network_or_secret(image):
    lines = dockerfile(image).splitlines()
    assert "USER 10001" in lines
    assert lines[-1].startswith('CMD ["seatrial", "reproduce", "run_')
    assert not [line for line in lines if line.startswith(("ENTRYPOINT", "EXPOSE", "ARG"))]
    assert lines[0] == f"FROM python:{'.'.join(map(str, sys.version_info[:3]))}-slim-bookworm"


def test_it_has_exactly_the_packages_of_the_run(image, container):
    wanted = [line for line in installed() if not line.startswith("seatrial==")]
    assert (image / "requirements.txt").read_text().splitlines() == wanted
    found = subprocess.run(
        [TOOLS / "uv", "pip", "freeze", "--python", container.python / "bin" / "python"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert len(found.splitlines()) == len(wanted) + 1


def test_its_definitions_are_those_of_the_run_and_not_todays(trained, image):
    assert '"num_leaves": 7' in (image / "project" / "project.py").read_text()
    assert '"num_leaves": 2' in (trained[0] / "project.py").read_text()
    assert not list(image.rglob("*.parquet"))


def test_hadolint_finds_nothing(image):
    done = subprocess.run([TOOLS / "hadolint", "--no-color", image / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_only_what_is_copied_is_sent_to_the_builder(image):
    ignored, *kept = (image / ".dockerignore").read_text().split()
    copied = re.findall(r"^COPY (.*) \S+$", dockerfile(image), re.MULTILINE)
    assert ignored == "*"
    assert {name.removeprefix("!") for name in kept} == {name.rstrip("/") for line in copied for name in line.split()}


def test_stores_that_are_kept_elsewhere_are_mounted_too(trained, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "project", ignore=shutil.ignore_patterns("image"))
    (folder / ".seatrial" / "objects").rename(tmp_path / "objects")
    (folder / "seatrial.toml").write_text('[stores]\nobjects = "../objects"\n')
    with Project(folder) as project:
        project.export_docker(trained[1], tmp_path / "image", training=True)
        assert project.audit_list()[-1].kind == "run.exported"
    readme = (tmp_path / "image" / "README.md").read_text()
    assert f"--volume {folder}/.seatrial:/app/.seatrial --volume {tmp_path}/objects:/app/stores/objects" in readme
    assert 'objects = "stores/objects"' in (tmp_path / "image" / "project" / "seatrial.toml").read_text()


def test_a_run_that_kept_no_definitions_is_refused(trained, tmp_path):
    folder = write_project(tmp_path)
    with Project(folder) as project:
        given = list(project.definitions.models.values())
    with Project(folder, definitions=given) as project:
        run = project.train().run
        with pytest.raises(NotExtractable, match="kept no definitions"):
            project.export_docker(run, tmp_path / "image", training=True)
    assert not (tmp_path / "image").exists()


def test_an_interpreter_without_an_image_is_refused(tmp_path):
    with pytest.raises(OtherInterpreter, match=r"PyPy 3\.11\.7"):
        export(
            tmp_path / "image",
            run="run_1",
            model="late",
            environment={"python": "PyPy 3.11.7", "packages": []},
            definitions={},
            settings="",
            mounts={},
        )
    assert not (tmp_path / "image").exists()
