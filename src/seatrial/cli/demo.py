"""The demo: every step of the path on real flights, told as it happens, and a summary at the end.

It does what the commands do, in one process beside the server, and writes before each step the command that does it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.cli import render, streams, talk
from seatrial.cli.story import ENGINEER, as_reviewer, tell_on
from seatrial.core.clock import FixedClock, monotonic
from seatrial.core.errors import Conflict, Failed
from seatrial.core.windows import Window, parse_window

if TYPE_CHECKING:
    from seatrial.project import Project

MARK = ".seatrial-demo"
MIDNIGHT = datetime(2013, 4, 1, 4, tzinfo=UTC)  # of 1 April in New York
APRIL = parse_window("2013-04-01T04:00:00Z/2013-05-01T04:00:00Z")
RECORDS = ("prediction", "release", "version", "run", "training_set", "snapshot")
RULE = 'set_aside=[SetAside(where="wind_speed > 150"'


class FolderTaken(Conflict):
    """The demo's folder holds something that is not an earlier demo."""

    code = "demo.folder_taken"


class ServerDied(Failed):
    """The demo's server did not come up."""

    code = "demo.server_died"


@dataclass
class Story:
    """What has happened so far: told line by line, and kept for the summary."""

    quiet: bool
    began: float
    steps: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, command: str) -> Iterator[Callable[[str], None]]:
        """One step; the function it gives tells a line about its outcome."""
        started = monotonic()
        self.lines = []
        if not self.quiet and not sys.stderr.isatty():
            talk.say(f"  … {command}")  # where no progress is shown
        yield self.lines.append
        seconds = monotonic() - started
        self.steps.append({"step": name, "command": command, "seconds": round(seconds, 2), "outcome": self.lines})
        if not self.quiet:
            blocks = [render.Line(f"{len(self.steps):>2}  {command}", "bold")]
            blocks += [render.Line(f"    {line}") for line in self.lines]
            blocks.append(render.Line(f"    {seconds:.1f} s"))
            with streams.answering():
                render.write(blocks)


def run(folder: Path, *, as_json: bool = False, window: Window = APRIL) -> None:
    """Make the flights project in `folder` and take it from raw data to a served, logged prediction.

    folder: must not exist, or be an earlier demo, which is replaced. window: the part of April that is replayed.
    """
    from seatrial.project import Project

    story = Story(as_json, monotonic())
    _clear(folder)
    with talk.Progress() as progress:
        with story.step("init", f"seatrial init {folder} --template flights") as tell:
            Project.init(folder, "flights").close()
            (folder / MARK).touch()
            rule = _without_rule(folder)
            commit = _commit(folder)
            tell("All 336,776 flights that left New York in 2013, their weather, planes, airports and airlines.")
        _refused(folder, story)
        _put_back(folder, rule)
        commit = _commit(folder) or commit
        with Project(folder, clock=FixedClock(MIDNIGHT), actor=ENGINEER) as project:
            trained = _prepare(project, story, progress)
            released = _release(project, story, progress)
            replayed = _serve(project, story, progress, window)
            # the year is told from April as a whole
            told = tell_on(project, story, progress, folder, partial(_server, folder)) if window == APRIL else {}
            _trace(project, story, folder)
            summary = _summary(folder, story, trained, released, replayed) | told
    with streams.answering():
        if as_json:
            render.write_json({"folder": str(folder), "commit": commit, "steps": story.steps, **summary})
        else:
            render.write([render.Line(), *_told(summary)])


def _refused(folder: Path, story: Story) -> None:
    """Validation stops the line: shown once, before the rule that sets the row aside is put in."""
    from seatrial.project import Project

    with story.step("validate", "seatrial validate") as tell, Project(folder) as project:
        for report in project.validate():
            for result in report.failures:
                tell(f"Refused: {report.source}: {result.expectation}, {result.failing} of {report.rows:,} rows.")
                for example in result.examples:
                    tell(f"  {example}")
        tell("Nothing is written until project.py says what to do with it. The demo now adds the rule")
        tell('  SetAside(where="wind_speed > 150", reason="beyond any wind measured on the ground")')


def _prepare(project: Project, story: Story, progress: talk.Progress) -> Any:
    with story.step("snapshot", "seatrial snapshot") as tell:
        taken = project.snapshot(progress=progress)
        again = project.snapshot(progress=progress)
        aside = sum(sum(one.set_aside.values()) for one in taken)
        tell(f"{sum(one.rows for one in taken):,} rows in {len(taken)} tables kept by content; {aside} row set aside.")
        same = [one.id for one in taken] == [one.id for one in again]
        tell("Taken again: the same ids, nothing written." if same else "Taken again: other ids.")
    with story.step("materialize", "seatrial materialize --at 2013-04-01T04:00:00Z") as tell:
        written = project.materialize(progress=progress)
        entities = sum(one.entities for one in written)
        tell(f"{len(written)} views of {entities:,} entities are online, as of midnight of 1 April in New York.")
        tell(f"{sum(one.unknown for one in written):,} rows were not known by then and are not there.")
    with story.step("train", "seatrial train late --cutoff 2013-04-01T04:00:00Z") as tell:
        trained = project.train("late", cutoff=MIDNIGHT, progress=progress)
        split = trained.rows
        tell(
            f"{split['rows']['used']:,} flights whose outcome was known: {split['train']['rows']:,} to learn from, "
            f"{split['test']['rows']:,} later ones to test, {split['purged']} between them purged."
        )
        auc, loss = trained.metrics["roc_auc"], trained.metrics["log_loss"]
        tell(f"AUC {auc:.3f}, log loss {loss:.3f} (a constant: {trained.baseline['log_loss']:.3f}).")
        passed = sum(gate["passed"] for gate in trained.gates)
        tell(f"{passed} of {len(trained.gates)} gates passed: version {trained.version} is the candidate.")
    return trained


def _release(project: Project, story: Story, progress: talk.Progress) -> Any:
    with story.step("release", f"seatrial release late --parity-window {APRIL}") as tell:
        released = project.release("late", parity_window=APRIL, progress=progress)
        parity = released.parity
        tell(f"late {released.semantic_version}, signed, {released.bytes / 1000:,.0f} kB: {released.id}")
        tell(
            f"ONNX answers like the trained model on {parity['rows']:,} rows, every flight of April among them: "
            f"largest difference {parity['largest']:.1e}, {parity['flipped']} decisions changed."
        )
    with story.step("deploy", "seatrial approve late --reason ... --actor reviewer  &&  seatrial deploy late") as tell:
        approved = as_reviewer(project, lambda: project.approve("late", reason="every gate passed"))
        tell(f"Approved by {approved.actor} (asserted): who packs a release cannot approve it.")
        deployed = project.deploy("late")
        tell(f"Generation {deployed.generation}: version {deployed.version} answers everything: it is the first.")
    return released


def _serve(project: Project, story: Story, progress: talk.Progress, window: Window) -> Any:
    command = "seatrial serve --replay &  seatrial predict late --replay 2013-04-01T04:00Z/2013-05-01T04:00Z"
    with story.step("serve and predict", command) as tell, _server(project.folder) as url:
        replayed = project.replay("late", window, url=url, progress=progress)
        tell(
            f"{replayed.predictions:,} flights asked over HTTP, each two hours before departure; "
            f"{replayed.pushed:,} events pushed as they became known."
        )
        tell(f"{replayed.per_second:,.0f} a second, pushes included; every answer was logged before it left.")
        if replayed.metrics:
            auc, loss = replayed.metrics["roc_auc"], replayed.metrics["log_loss"]
            tell(f"What came true of {replayed.labelled:,}: AUC {auc:.3f}, log loss {loss:.3f}.")
    return replayed


def _trace(project: Project, story: Story, folder: Path) -> None:
    from seatrial.governance.audit import refusal
    from seatrial.governance.lineage import as_tree

    newest = project.log.rows(columns=["prediction_id"])["prediction_id"][-1].as_py()
    with story.step("lineage", f"seatrial lineage {newest}") as tell:
        for line in as_tree(project.lineage(newest)):
            # one line a record; the facts below each are for who asks with the command itself
            if line.lstrip("│├└─ ").partition(" ")[0] in RECORDS:
                tell(line)
    with story.step("audit", "seatrial audit verify") as tell:
        report = project.audit_verify()
        if not report.intact:
            raise refusal(report)
        tell(f"{report.events} events, one unbroken chain.")
    with story.step("export", "seatrial export docker late@champion --to docker") as tell:
        files = project.export_docker("late@champion", folder / "docker")
        tell(f"{len(files)} files from which Docker builds a server for this release.")


def _summary(folder: Path, story: Story, trained: Any, released: Any, replayed: Any) -> dict[str, Any]:
    return {
        "seconds": round(monotonic() - story.began, 1),
        "model": trained.model,
        "version": trained.version,
        "release": released.id,
        "predictions": replayed.predictions,
        "metrics": replayed.metrics,
        "open": f"cd {folder} && seatrial serve --replay",
    }


def _told(summary: dict[str, Any]) -> list[render.Block]:
    metrics = summary["metrics"]
    lines = [
        f"Done in {summary['seconds']:.0f} s. A model that was trained on January to March answered "
        f"{summary['predictions']:,} requests of April;",
        f"every answer can be followed back to its rows, its code and its environment (AUC {metrics['roc_auc']:.3f}, "
        f"log loss {metrics['log_loss']:.3f})."
        if metrics
        else "every answer can be followed back to its rows, its code and its environment.",
    ]
    blocks: list[render.Block] = [render.Line(line, "bold") for line in lines]
    blocks.append(render.Line())
    if "page" in summary:
        blocks.append(render.Line(f"Read the year:     {summary['page']}"))
    blocks.append(render.Line(f"Open the service:  {summary['open']}"))
    blocks.append(render.Line("then look at       http://127.0.0.1:8000/docs"))
    blocks.append(render.Line("See how it stands: seatrial status"))
    return blocks


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """A server process of the project on a free port; its address. It is ended when the block is left."""
    command = [sys.executable, "-m", "seatrial", "--project", str(folder), "--at", "2013-04-01T04:00:00Z"]
    process = subprocess.Popen(
        [*command, "serve", "--replay", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield _address(process)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.communicate()


def _address(process: subprocess.Popen[str]) -> str:
    """What the server says that it listens on."""
    assert process.stdout is not None
    for line in process.stdout:
        place = line.find("http://")
        if place >= 0:
            return line[place:].strip().strip('",')
    assert process.stderr is not None
    raise ServerDied(f"the server ended: {process.stderr.read().strip()[-500:]}", state="The project is as it was.")


def _clear(folder: Path) -> None:
    if not folder.exists():
        return
    if any(folder.iterdir()) and not (folder / MARK).is_file():
        raise FolderTaken(
            f"the folder {folder} holds something that is not an earlier demo.",
            expected="An empty folder, or one that does not exist.",
            next="Name another one: seatrial demo FOLDER.",
        )
    talk.say(f"The earlier demo in {folder} is replaced.")
    shutil.rmtree(folder)


def _without_rule(folder: Path) -> str:
    """Take the set-aside rule out of the project file; the line that was taken out."""
    file = folder / "project.py"
    text = file.read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if RULE in line)
    file.write_text(text.replace(line, line.split("=")[0] + "=[],"), encoding="utf-8")
    return line


def _put_back(folder: Path, rule: str) -> None:
    file = folder / "project.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(rule.split("=")[0] + "=[],", rule, 1), encoding="utf-8")


def _commit(folder: Path) -> str | None:
    """Commit the project, so that its run names a commit; None without git."""
    if shutil.which("git") is None:
        return None
    name = {f"GIT_{role}_{part}": "demo" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "The flights project"]):
        done = subprocess.run(
            ["git", "-C", str(folder), *words], env={**os.environ, **name}, capture_output=True, check=False
        )
        if done.returncode:
            return None
    head = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return head.stdout.strip() or None
