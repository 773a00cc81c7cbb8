"""The verbs: commands that act, in the order of the path. Each calls the verb of the same name of `Project`."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from seatrial.cli import catalogue, talk
from seatrial.cli.batch import batch_options
from seatrial.cli.door import BadCommandLine, Invocation, Noun, Verb, as_time, as_window
from seatrial.cli.pages import write_page
from seatrial.core.errors import Failed, UsageError

if TYPE_CHECKING:
    from seatrial.core.settings import Engine
    from seatrial.core.windows import Window

VERBS: dict[str, click.Command] = {}


class BadRequestRows(UsageError):
    """The rows to predict for cannot be read."""

    code = "usage.bad_rows"


class NotFit(Failed):
    """`doctor` found something that has to be mended first."""

    code = "doctor.not_fit"


def verb(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make the function the verb `name`; its docstring follows the catalogue's line in the help."""

    def make(function: Callable[..., None]) -> click.Command:
        purpose = catalogue.purpose(name)
        more = inspect.cleandoc(function.__doc__ or "")
        command = click.command(name, cls=Verb, short_help=purpose, help=f"{purpose}.\n\n{more}")(function)
        VERBS[name] = command
        return command

    return make


@contextmanager
def until_told_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came meanwhile: what is in hand can be finished first."""
    came: list[int] = []

    def remember(number: int, _frame: object) -> None:
        came.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@verb("init")
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--template", type=click.Choice(["empty", "flights"]), default="empty", show_default=True)
@click.pass_obj
def init(call: Invocation, folder: Path, template: str) -> None:
    """FOLDER is made when it is not there. `empty` is a definition file with comments, to be filled in;
    `flights` is a whole project on real data. No file that is there already is overwritten."""
    from seatrial.cli import render
    from seatrial.folder.scaffold import init as write_project

    if folder == Path():  # none was named
        folder = Path(call.project_folder)
    files = write_project(folder, template)
    call.answer({"folder": str(folder), "template": template, "files": files}, render.initialised)


@verb("validate")
@click.argument("sources", nargs=-1)
@click.option("--propose", is_flag=True, help="Print expectations that would fit the rows, as Python to edit.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page as well.")
@click.pass_obj
def validate(call: Invocation, sources: tuple[str, ...], propose: bool, html: Path | None) -> None:
    """Reads the raw tables, all or those named, and shows for each expectation whether it holds, with the rows
    that break it; without names also every column that a model, view or deployment names and no source has, and
    each live release whose features the project can no longer keep up. Writes nothing. Ends with 1 when anything
    failed, with 5 when it is only that a live release would break."""
    from seatrial.cli import data, render
    from seatrial.data.expectations import refused
    from seatrial.folder.declarations import DeclarationReport, differ
    from seatrial.verbs.upkeep import ReleaseReport, breaking

    with call.project() as project:
        if propose:
            if html is not None:
                raise BadCommandLine(
                    "--propose prints code, and --html writes what came of it.", expected="One of them."
                )
            call.answer(project.propose(*sources), data.proposed)
            return
        reports = project.validate(*sources)
        if html is not None:
            write_page(html, data.validation_page(reports, project.now_us))
        call.answer(reports, render.validated)
    differing = [report for report in reports if isinstance(report, DeclarationReport)]
    releases = [report for report in reports if isinstance(report, ReleaseReport)]
    checked = [report for report in reports if not isinstance(report, DeclarationReport | ReleaseReport)]
    if not all(report.passed for report in checked):
        raise refused(*checked)
    if differing:
        raise differ(differing)
    if releases:
        raise breaking([report.broken for report in releases])


@verb("snapshot")
@click.argument("sources", nargs=-1)
@click.pass_obj
def snapshot(call: Invocation, sources: tuple[str, ...]) -> None:
    """Validates the raw tables first, all or those named; nothing is kept when one is refused. Equal content
    has an equal id."""
    from seatrial.cli import render

    with call.project() as project:
        with talk.Progress() as progress:
            taken = project.snapshot(*sources, progress=progress)
        call.answer(taken, render.snapshotted)


@verb("materialize")
@click.argument("views", nargs=-1)
@click.pass_obj
def materialize(call: Invocation, views: tuple[str, ...]) -> None:
    """Takes every row known by --at (default: now) for all views, or those named. Repeating it is safe."""
    from seatrial.cli import render

    with call.project() as project:
        with talk.Progress() as progress:
            done = project.materialize(*views, at=call.at, progress=progress)
        call.answer(done, render.written)


@verb("push")
@click.argument("name")
@click.argument("rows", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--from", "address", metavar="URL", help="Take rows from a stream: redis://HOST:PORT/DB/STREAM.")
@click.option("--group", default="seatrial", show_default=True, help="Consumers of one group share a stream's rows.")
@click.option("--until-empty", is_flag=True, help="End when the stream has nothing more.")
@click.pass_obj
def push(call: Invocation, name: str, rows: Path | None, address: str | None, group: str, until_empty: bool) -> None:
    """NAME is a feature view or a source. ROWS is a .parquet, .csv or .jsonl file with the source's columns.
    Rows that are there already change nothing. With --from rows are taken from a stream as they come, until Ctrl-C or
    SIGTERM: JSON objects in the field `row`, or a field for each column. Those that cannot be taken go to
    STREAM:refused, with the reason."""
    from seatrial.cli import render

    if (rows is None) == (address is None):
        raise BadCommandLine(
            f"`seatrial push {name}` needs either a file of ROWS or a stream with --from.", state="Nothing was done."
        )
    with call.project() as project:
        if rows is not None:
            call.answer(project.push(name, rows), render.written)
            return
        talk.release()
        with until_told_to_stop() as stopped, talk.TakingIn() as tell:
            taken = project.push_stream(
                name, address or "", group=group, until_empty=until_empty, stopped=stopped, tell=tell
            )
        call.answer(taken, render.taken_in)


@verb("train")
@click.argument("model", required=False)
@click.option(
    "--cutoff", callback=as_time, metavar="TIME", help="Use only labels known by then (default: all known now)."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "spark"]),
    help="Where features are joined; the training set is the same (default: engine of seatrial.toml, local).",
)
@click.option(
    "--sample",
    metavar="ROWS",
    help="Learn from so many rows only (5000), or a share of them (10%): a quick run that never becomes a version.",
)
@click.option("--fresh", is_flag=True, help="Do every step again, also when nothing it is made of was changed.")
@click.option("--no-tune", is_flag=True, help="Train with the declared parameters, also when the model is tuned.")
@click.pass_obj
def train(
    call: Invocation,
    model: str | None,
    cutoff: datetime | None,
    engine: Engine | None,
    sample: str | None,
    fresh: bool,
    no_tune: bool,
) -> None:
    """MODEL may be left out when the project has one. When every gate passes, the run becomes the next version
    with the alias "candidate"; else the run is kept as evidence and the command ends with 3. The gates of a sample
    are shown, and decide nothing."""
    from seatrial.cli import render

    size = None
    if sample is not None:
        from seatrial.training.sample import Sample

        size = Sample.parse(sample).size
    with call.project() as project:
        with talk.Progress() as progress:
            run = project.train(
                model, cutoff=cutoff, engine=engine, sample=size, fresh=fresh, tune=not no_tune, progress=progress
            )
        call.answer(run, render.trained)
    if not run.passed and run.sample is None:
        from seatrial.training.gates import GatesNotPassed

        failed = [gate for gate in run.gates if not gate["passed"] and not gate["waived"]]
        raise GatesNotPassed(
            f"{len(failed)} of {len(run.gates)} gates of model '{run.model}' said no.",
            expected="\n".join(f"  {gate['gate']}: {gate['reason']}" for gate in failed),
            state=f"Run {run.run} is kept, no version was made.",
            next="Change the data, the features or the parameters, and train again.",
        )


@verb("release")
@click.argument("name", required=False)
@click.option(
    "--parity-window",
    callback=as_window,
    metavar="START/END",
    help="Compare the packed model with the trained one on every row of this window too.",
)
@click.option("--from", "from_", metavar="MODEL", help="Bring in a model that was trained elsewhere; see below.")
@click.option(
    "--sample",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --from: rows as the model is given them (.parquet, .csv, .jsonl).",
)
@click.option("--target", metavar="COLUMN", help="With --from: the column of the sample with what really happened.")
@click.option(
    "--task",
    type=click.Choice(["binary", "multiclass", "regression"]),
    help="With --from: what the model answers, where it does not tell.",
)
@click.option(
    "--classes",
    callback=lambda _context, _option, value: [one.strip() for one in value.split(",")] if value else [],
    metavar="A,B,C",
    help="With --from: its classes in the order of its probabilities, where it does not name them.",
)
@click.option("--owner", default="", metavar="NAME", help="With --from: who answers for the model.")
@click.option("--on-call", default="", metavar="NAME", help="With --from: who is told of alerts, such as webhook:ops.")
@click.option("--runbook", default="", metavar="PATH", help="With --from: what to do when it misbehaves.")
@click.option("--description", default="", metavar="TEXT", help="With --from: what it is for.")
@click.option("--mlflow-uri", metavar="URI", help="With --from mlflow:...: the server (default: MLFLOW_TRACKING_URI).")
@click.pass_obj
def release(call: Invocation, /, name: str | None, **options: Any) -> None:
    """NAME is a model (its newest version), MODEL@ALIAS, MODEL:VERSION or the id of a run. The bundle is refused when
    the packed model answers differently from the trained one. The same run gives the same id.

    With --from, NAME is any name, and nothing needs to be declared: MODEL is a file of scikit-learn (model.skops),
    LightGBM (booster.txt), XGBoost (model.json, .ubj), CatBoost (model.cbm) or ONNX (model.onnx), or a model in MLflow
    (mlflow:models:/NAME/7, mlflow:runs:/ID/model). It becomes the next version of NAME."""
    from seatrial.cli import render

    with call.project() as project:
        with talk.Progress() as progress:
            done = project.release(name, **options, progress=progress)
        call.answer(done, render.released)


@verb("deploy")
@click.argument("model", required=False)
@click.option("--release", "release_id", metavar="ID", help="The release (default: the newest of the model).")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the audit log; needed without owner or runbook.")
@click.option("--at-once", is_flag=True, help="All of the traffic, without the steps of a canary; needs a reason.")
@click.pass_obj
def deploy(call: Invocation, model: str | None, release_id: str | None, reason: str, at_once: bool) -> None:
    """Running services follow by themselves. The first release of a deployment takes all of its traffic; a later one
    takes 5 % of it first (unless another strategy is declared), and `seatrial deployments advance` judges and takes the
    next steps. To return to the release that was live before, at once: `seatrial rollback`."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.deploy(model, release=release_id, reason=reason, at_once=at_once), render.deployed)


def listening(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where a server listens."""
    host = click.option("--host", default="127.0.0.1", show_default=True, envvar="SEATRIAL_HOST")
    kind = click.IntRange(0, 65535)
    port = click.option(
        "--port", default=8000, show_default=True, type=kind, envvar="SEATRIAL_PORT", help="0: any free port."
    )
    return host(port(command))


@verb("serve")
@listening
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(0, 256),
    envvar="SEATRIAL_WORKERS",
    help="Processes that answer on the one port; 0: as many as the cores that this machine, or container, has for it.",
)
@click.option(
    "--memory-budget",
    metavar="SIZE",
    envvar="SEATRIAL_MEMORY_BUDGET",
    help="What loaded models may take together, for example 512MiB; without it all stay loaded.",
)
@click.option("--replay", is_flag=True, help="Let requests say at which time they are made, for replaying history.")
@click.option(
    "--bundle",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="SEATRIAL_BUNDLE",
    help="Serve this one release file; no project file is needed, only the signer's key in .seatrial/keys/trusted/.",
)
@click.option(
    "--log",
    "form",
    envvar="SEATRIAL_LOG",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="What went wrong, on stderr: as text, or each as one line of JSON, with the requests that were refused.",
)
@click.pass_obj
def serve(
    call: Invocation,
    form: Literal["text", "json"],
    host: str,
    port: int,
    workers: int,
    memory_budget: str | None,
    replay: bool,
    bundle: Path | None,
) -> None:
    """Serves every deployment of the project until it is stopped with Ctrl-C or SIGTERM. Every answer is in the
    prediction log before it leaves. In a container of Vertex AI or SageMaker, which their variables or folders tell,
    it listens where they want it."""
    from seatrial.serving.doors.container import platform
    from seatrial.serving.meters import server_log

    server_log.to_stderr(form)
    say = server_log.say if form == "json" else talk.say

    def ready(url: str) -> None:
        say(f"Serving at {url}; documentation at {url}/docs. Stop with Ctrl-C.")
        talk.release()
        if call.json:
            call.answer({"url": url}, lambda _: [])

    wanted = platform(os.environ)
    if wanted is not None:
        host, port, bundle = wanted.host, wanted.port, wanted.bundle or bundle
        say(wanted.told)
    if bundle is not None and memory_budget is not None:
        raise BadCommandLine(
            "--memory-budget says which of several releases stay loaded; --bundle serves one.",
            state="Nothing was started.",
        )
    with call.project() as project:
        if bundle is None:
            if not project.routes.names():
                say("Nothing is deployed yet: requests are answered with 503 until `seatrial deploy` was run.")
            project.serve(
                host=host, port=port, workers=workers, memory_budget=memory_budget, replay=replay, on_ready=ready
            )
            return
        from seatrial.releases.keyring import WatchedKeys
        from seatrial.serving.place import Place
        from seatrial.serving.service import Service, from_bundle
        from seatrial.serving.workers.supervisor import serve

        def make(place: Place | None) -> Service:
            return from_bundle(
                bundle,
                trusted_keys=WatchedKeys(project.keys),
                refuse_distrusted=project.settings.policy.distrusted == "refuse",
                log=project.log,
                online=project.online_for_serving,
                replay=replay,
                place=place,
            )

        with project.keeping_log():
            serve(make, workers=workers, host=host, port=port, started=ready)


@verb("predict")
@click.argument("model", required=False)
@click.option(
    "--request", metavar="JSON", help="One row: an object of the request fields, or a body as POST /predict takes it."
)
@click.option("--file", "file", metavar="FILE", help="Rows as JSON lines; - reads stdin.")
@click.option("--url", metavar="URL", help="A running service; without it the prediction is made in this process.")
@click.option(
    "--replay", "window", callback=as_window, metavar="START/END", help="Replay this window of the labels' rows."
)
@click.option(
    "--batch",
    metavar="FILE|FOLDER|START/END",
    help="Score Parquet files, or this window of the labels' rows (also last-hour, last-day, last-week).",
)
@click.option(
    "--stream",
    metavar="URL",
    help="Answer the requests of a stream into another, --to: redis://HOST:PORT/DB/STREAM, kafka://HOST:PORT/TOPIC.",
)
@batch_options
@click.pass_obj
def predict(
    call: Invocation,
    /,
    model: str | None,
    request: str | None,
    file: str | None,
    url: str | None,
    window: Window | None,
    batch: str | None,
    stream: str | None,
    **how: Any,
) -> None:
    """Give rows with --request or --file, --replay a window of history through a service started with
    `seatrial serve --replay`, score Parquet files or a window in --batch, with features as of each row's instant, or
    answer a --stream until Ctrl-C or SIGTERM. Predictions are logged, wherever they are made, but those of files only
    with --log."""
    from seatrial.cli import batch as batches
    from seatrial.cli import render

    if [request, file, window, batch, stream].count(None) != 4:
        raise BadCommandLine(
            "predict takes one of --request, --file, --replay, --batch and --stream.",
            expected="""For example `seatrial predict --request '{"distance": 500}'`.""",
            state="Nothing was done.",
        )
    if window is not None:
        if url is None:
            raise BadCommandLine(
                "--replay needs --url, the address of a service started with `seatrial serve --replay`.",
                state="Nothing was done.",
            )
        with call.project() as project:
            with talk.Progress() as progress:
                done = project.replay(model, window, url=url, progress=progress)
            call.answer(done, render.replayed)
        return
    if batch is not None:
        batches.run(call, model, batch, **how)
        return
    if stream is not None:
        with until_told_to_stop() as stopped:
            batches.answer(call, model, stream, stopped, **how)
        return
    batches.refuse_options(**how)
    rows, ids, with_features = read_rows(request, file)
    with call.project() as project:
        answers = project.predict(model, rows, at=call.at, url=url, request_ids=ids, return_features=with_features)
        call.answer(answers, render.predicted)


@verb("lineage")
@click.argument("id")
@click.pass_obj
def lineage(call: Invocation, id: str) -> None:
    """ID is of anything that seatrial keeps (a prediction, release, version, run, training set, snapshot), or the
    start of one."""
    from seatrial.cli import render
    from seatrial.governance.lineage import as_tree

    with call.project() as project:
        found = project.lineage(id)
        call.answer(found, lambda _: render.lines(as_tree(found)))


@verb("status")
@click.option("--cost", is_flag=True, help="What predictions, retrainings, reports and the log take, as measured.")
@click.pass_obj
def status(call: Invocation, cost: bool) -> None:
    """Release, data, parameters, performance and owner of each model, what runs by itself, and what to do next."""
    from seatrial.cli import render

    with call.project() as project:
        if cost:
            from seatrial.cli import schedules

            call.answer(project.cost(), schedules.cost)
            return
        call.answer(project.status(), render.statuses)


@verb("doctor")
@click.pass_obj
def doctor(call: Invocation) -> None:
    """Looks at Python, packages, the disk, the stores and the clock. Ends with 1 when something must be mended."""
    from seatrial.cli import render

    with call.project() as project:
        checks = project.doctor()
        call.answer(checks, render.checked)
    failed = [check for check in checks if not check.passed]
    if failed:
        raise NotFit(
            f"{len(failed)} of {len(checks)} checks failed: {', '.join(check.name for check in failed)}.",
            next="\n".join(f"  {check.name}: {check.next}" for check in failed),
            state="Nothing was changed.",
        )


@verb("demo")
@click.argument("folder", default="seatrial-demo", type=click.Path(file_okay=False, path_type=Path))
@click.pass_obj
def demo(call: Invocation, folder: Path) -> None:
    """Makes the flights project in FOLDER (it must not exist, or be an earlier demo) and runs every step from raw
    data to a year of a model in service. Two to three minutes."""
    from seatrial.cli import demo as demonstration

    demonstration.run(folder, as_json=call.json)


export = Noun("export", short_help=catalogue.purpose("export"), help=f"{catalogue.purpose('export')}.")
VERBS["export"] = export


UNAPPROVED = click.option(
    "--reason", default="", metavar="TEXT", help="Why, where nobody approved it or it was rolled back."
)


@export.command("docker")
@click.argument("release")
@click.option("--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--training", is_flag=True, help="An image that trains the run of RELEASE, or a run, again.")
@UNAPPROVED
@click.pass_obj
def export_docker(call: Invocation, release: str, folder: Path, training: bool, reason: str) -> None:
    """Write Dockerfile, pinned requirements and bundle of RELEASE to a folder; of a model its live release, else the
    newest that may go live. With --training the definitions and packages of its run instead, or of any name that
    `seatrial reproduce` takes: the image's command reproduces it."""
    from seatrial.cli import render
    from seatrial.verbs import exporting

    with call.project() as project:
        told = {"release": release} if training else exporting.described(project, release, reason=reason)
        files = project.export_docker(told["release"], folder, training=training, reason=reason)
        call.answer({"folder": str(folder), **told, "files": files}, render.exported)


@export.command("kubernetes")
@click.argument("release")
@click.option(
    "--image",
    required=True,
    metavar="NAME",
    help="The image of RELEASE, as the cluster finds it, with its digest or tag.",
)
@click.option("--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--slot", type=click.Choice(["blue", "green"]), help="One of two Deployments, for blue-green.")
@click.option("--kserve", is_flag=True, help="KServe's InferenceService.")
@UNAPPROVED
@click.pass_obj
def export_kubernetes(
    call: Invocation,
    release: str,
    image: str,
    folder: Path,
    slot: Literal["blue", "green"] | None,
    kserve: bool,
    reason: str,
) -> None:
    """Write manifests that run the image of RELEASE, of a model its live one (see `seatrial export docker`):
    Deployment, Service, autoscaler, disruption budget; network policy, ServiceMonitor and a claim for the log to choose
    from. DIR/README.md has the commands."""
    from seatrial.cli import render

    with call.project() as project:
        done = project.export_kubernetes(release, folder, image=image, slot=slot, kserve=kserve, reason=reason)
        call.answer(done, render.manifests)


@export.command("prometheus")
@click.option("--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.pass_obj
def export_prometheus(call: Invocation, folder: Path) -> None:
    """Write recording and alert rules for every deployment, made of its objective, and a test of them. DIR/README.md
    has the commands."""
    from seatrial.cli import render

    with call.project() as project:
        files = project.export_prometheus(folder)
        call.answer({"folder": str(folder), "files": files}, render.exported)


@export.command("grafana")
@click.option("--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.pass_obj
def export_grafana(call: Invocation, folder: Path) -> None:
    """Write a dashboard for every deployment, to be imported; it needs the rules of `seatrial export prometheus`."""
    from seatrial.cli import render

    with call.project() as project:
        files = project.export_grafana(folder)
        call.answer({"folder": str(folder), "files": files}, render.exported)


def read_rows(request: str | None, file: str | None) -> tuple[list[dict[str, Any]], list[str | None], bool]:
    """The rows of --request (one JSON object) or --file (JSON lines; - is stdin), the request id of each, if any, and
    whether any asks for the features.

    An object may be the row itself or a body as the service takes it: {"features": {...}, "request_id": "...",
    "return_features": true}.
    Raises BadRequestRows with the line that is neither. Values are checked by the model's signature.
    """
    if request is not None:
        read = _row(request, "--request")
    elif file == "-":
        read = _rows(sys.stdin.read(), "stdin")
    else:
        assert file is not None
        try:
            content = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise BadRequestRows(
                f"the file {file} cannot be read: {reason}.", expected="JSON lines in UTF-8."
            ) from None
        read = _rows(content, file)
    return [row for row, *_ in read], [request_id for _, request_id, _ in read], any(asks for *_, asks in read)


_Row = tuple[dict[str, Any], str | None, bool]
"""A row, its request id, and whether its features are asked for."""


def _rows(content: str, where: str) -> list[_Row]:
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    if not lines:
        raise BadRequestRows(f"{where} holds no rows.", expected="One JSON object a line.")
    return [row for number, line in lines for row in _row(line, f"line {number} of {where}")]


def _row(line: str, where: str) -> list[_Row]:
    """The row in a line, or the rows when it is a body."""
    try:
        found = json.loads(line, parse_constant=_no_constant, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise BadRequestRows(
            f"{where} is not JSON: {reason}.", expected='An object such as {"distance": 500} is expected.'
        ) from None
    if isinstance(found, dict) and isinstance(found.get("features"), dict):
        rows = [found.pop("features")]
    elif isinstance(found, dict) and isinstance(found.get("instances"), list):
        rows = found.pop("instances")
    else:
        found, rows = {}, [found]
    request_id, asks = found.pop("request_id", None), found.pop("return_features", False)
    if found or not isinstance(request_id, str | None) or not isinstance(asks, bool):
        wrong = "request_id" if isinstance(asks, bool) else "return_features"
        raise BadRequestRows(
            f"{where} is a body with '{next(iter(found), wrong)}', which is not taken here.",
            expected='Of a body "features" or "instances" is taken, "request_id", a string, and '
            '"return_features", true or false.',
            next="The time of a prediction is given with --at.",
            state="Nothing was predicted.",
        )
    if not all(isinstance(row, dict) for row in rows):
        raise BadRequestRows(
            f"{where} is JSON, but not an object.", expected='An object such as {"distance": 500} is expected.'
        )
    return [(row, request_id, asks) for row in rows]


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; which of two values of one key is meant, nobody knows. The service refuses them too."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' comes twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
