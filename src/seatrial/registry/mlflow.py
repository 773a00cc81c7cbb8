"""The mirror: runs, versions and aliases as MLflow sees them, written after they were committed here.

Our store owns everything; MLflow is told from the outbox (topic "mlflow") and never asked. Telling twice is the
same as telling once, so a crash between the two stores mends itself at the next call. When MLflow does not
answer, the messages stay in the outbox and the caller gets a report, never an error. A model that somebody logged there
is fetched for a release of it (`fetch`). This is the only module that imports mlflow, and only when it is needed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import posixpath
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.core.errors import Failed, Unavailable, UsageError
from seatrial.core.identity import digest
from seatrial.core.records import Record
from seatrial.data.sources import without_password
from seatrial.stores.metadata import MetadataStore

TOPIC = "mlflow"
REFUSED = "mlflow.refused"  # messages that were set aside: {"reason": ..., "message": ...}
FORMAT = 2  # of the newest kind of message; each message carries the format since which its kind exists

RUN_TAG = "seatrial.run_id"
VERSION_TAG = "seatrial.version"
VERSION_ID_TAG = "seatrial.version_id"
DELETED_TAG, RELEASE_TAG, SEMANTIC_TAG = "seatrial.deleted", "seatrial.release", "seatrial.semantic_version"
ERROR_TAG, ORIGIN_TAG = "seatrial.error", "seatrial.origin"
MISSING_TAG = "seatrial.missing"  # files that were gone when MLflow was told
NOTE_TAG = "mlflow.note.content"  # what MLflow shows as the run's description
ARTIFACT_FOLDER = "model"
BATCH = 100  # MLflow takes at most 100 params and 100 tags at a time
LONGEST = 6000  # characters of a parameter's value
LONGEST_NAME, LONGEST_TAG = 250, 4000

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}  # a run that is asked for twice by MLflow's own client is made twice
"""Environment variables for MLflow, where the user has not set them: no telemetry, no minutes of waiting."""


class MessageTooNew(Failed):
    """A message in the outbox was written by a newer version."""

    code = "mlflow.message_too_new"


class ModelNotFetched(UsageError):
    """MLflow has no such model, or its artifacts cannot be had."""

    code = "mlflow.model_not_fetched"


class ServerUnreachable(Unavailable):
    """The tracking server does not answer."""

    code = "mlflow.unreachable"


@dataclass(frozen=True)
class Mirrored:
    """What a call to `mirror` did.

    written: messages that MLflow holds now. pending: messages that still wait. problem: why, or empty. refused: those
    that it refused for what they say, now and before, which hold up nothing.
    """

    written: int
    pending: int
    problem: str = ""
    refused: int = 0


def run_message(
    run_id: str,
    *,
    experiment: str,
    name: str,
    started_us: int,
    ended_us: int,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    tags: Mapping[str, str] | None = None,
    artifacts: Mapping[str, str] | None = None,
    failed: bool = False,
    series: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> dict[str, Any]:
    """The outbox message for one run; `Registry.create` adds version and aliases.

    artifacts: name in MLflow -> path of the file to copy. Metrics that are None are left out. series: for metrics that
    were logged more than once every [step, value], instead of the last one.
    """
    return {
        "format": 1,
        "kind": "run",
        "run_id": run_id,
        "experiment": experiment,
        "name": name,
        "started_us": started_us,
        "ended_us": ended_us,
        "params": {key: str(value)[:LONGEST] for key, value in params.items()},
        "metrics": {key: value for key, value in metrics.items() if _told(value)},
        "tags": dict(tags or {}),
        "artifacts": dict(artifacts or {}),
        "failed": failed,
        **(
            {"series": {key: [[step, value] for step, value in steps if _told(value)] for key, steps in series.items()}}
            if series
            else {}
        ),
    }


def _told(value: object) -> bool:
    """Whether MLflow's stores take a metric's value. What is not finite is text in a record, and stays there."""
    return isinstance(value, int | float) and math.isfinite(value)


def record_message(
    record: Record, *, experiment: str, started_us: int, ended_us: int, path: Callable[[str], Path]
) -> dict[str, Any]:
    """The outbox message for a run that failed, for one that was logged, and for a model that was trained elsewhere.

    path: of an object, by its key. started_us, ended_us: used where the record does not say.
    """
    body = record.body
    definition, error, origin = body["definition"], body.get("error") or {}, body.get("origin") or {}
    tags = {"model": record.name, **body.get("tags", {})}
    if record.kind == "run":
        tags["passed"] = str(bool(body["passed"])).lower()
    if "logged" in body:
        tags |= {"logged": body["logged"]["kind"], "commit": body["logged"]["commit"] or body["logged"]["why"]}
    if origin:
        tags |= {ORIGIN_TAG: origin.get("from", ""), "digest": origin.get("digest", "")}
    if error:
        tags |= {ERROR_TAG: error["code"] or "unexpected", NOTE_TAG: f"Failed at {error['stage']}: {error['found']}"}
    measured = "sample_" if record.kind == "adoption" else "test_" if body.get("task") else ""
    return run_message(
        record.id,
        experiment=experiment,
        name=record.name,
        started_us=body.get("begun_us") or started_us,
        ended_us=body.get("ended_us") or ended_us,
        params={**definition["params"], **({"estimator": definition["estimator"]} if definition["estimator"] else {})},
        metrics={f"{measured}{name}": value for name, value in body["metrics"].items()},
        tags=tags,
        artifacts={name: str(path(key)) for name, key in body["files"].items()},
        failed=body.get("state") == "failed",
        series=body.get("series"),
    )


def alias_message(model: str, alias: str, version: int, version_id: str) -> dict[str, Any]:
    """The outbox message for an alias that moved."""
    return {
        "format": 1,
        "kind": "alias",
        "model": model,
        "alias": alias,
        "version": version,
        "version_id": version_id,
    }


def alias_removed_message(model: str, alias: str) -> dict[str, Any]:
    """The outbox message for an alias that was taken away."""
    return {"format": 2, "kind": "alias_removed", "model": model, "alias": alias}


def deleted_message(model: str, version: int, version_id: str, reason: str) -> dict[str, Any]:
    """The outbox message for a version that was deleted. In MLflow it gets a tag and stays: deleting would lose it."""
    told = {"model": model, "version": version, "version_id": version_id, "reason": reason}
    return {"format": 2, "kind": "deleted", **told}


def release_message(
    *,
    model: str,
    version: int,
    version_id: str,
    run_id: str,
    experiment: str,
    release: str,
    semantic_version: str,
    bundle: str,
    key: str,
) -> dict[str, Any]:
    """The outbox message for a release that was packed. bundle, key: paths of the bundle and of its public key."""
    told = {"model": model, "version": version, "version_id": version_id, "run_id": run_id, "experiment": experiment}
    told |= {"release": release, "semantic_version": semantic_version, "bundle": bundle, "key": key}
    return {"format": 2, "kind": "release", **told}


def mirror(
    metadata: MetadataStore, tracking_uri: str, artifact_root: Path | None = None, *, again: bool = False
) -> Mirrored:
    """Tell MLflow what waits in the outbox, oldest first; stop at the first message that it does not answer.

    tracking_uri: "sqlite:///path" (made on first use, which takes seconds) or a server's http(s) address.
    artifact_root: where artifacts of new experiments go; None: where the server says.
    again: also what was refused before.
    A message that MLflow refuses for what it says is set aside with the reason, and so are later ones of that model.
    What else MLflow raises, or a message of a newer format, ends up in `problem`; nothing is raised for it. While
    another process mirrors the same store, returns at once: two that tell one message would make two runs.
    """
    written = 0
    problem = ""
    waiting = True
    while waiting and not problem:
        try:
            with _alone(metadata.path) as alone:
                if not alone:
                    problem = "another process is writing to MLflow just now"
                else:
                    if again:
                        _take_back(metadata)
                        again = False
                    if metadata.pending(TOPIC):
                        with _client(tracking_uri, ONCE) as client:
                            for seq, message in _waiting(metadata):
                                written += _tell_or_set_aside(metadata, client, seq, message, artifact_root)
        except Exception as error:  # whatever MLflow, its database or its server raises
            problem = _words(error)
        # whoever came meanwhile found this process at it, and left its message to it
        waiting = bool(metadata.pending(TOPIC))
    refused = metadata.pending(REFUSED)
    if refused and not problem:
        problem = f"{len(refused)} messages were refused, and are set aside: {refused[0][1]['reason']}"
    return Mirrored(written, len(metadata.pending(TOPIC)), problem, len(refused))


def _tell_or_set_aside(
    metadata: MetadataStore, client: Any, seq: int, message: dict[str, Any], artifact_root: Path | None
) -> bool:
    """Whether MLflow holds the message now; when it refuses it, it is set aside. Raises what an outage raises."""
    model = message.get("model")
    before = [body["message"] for _, body in metadata.pending(REFUSED)]
    if model is not None and any(one.get("model") == model for one in before):
        reason = f"an earlier message of '{model}' was refused"
    else:
        try:
            _tell(client, message, artifact_root)
            metadata.done(TOPIC, seq)
            return True
        except Exception as error:
            if not _is_refusal(error):
                raise
            reason = _words(error)
    with metadata.transaction() as transaction:
        transaction.enqueue(REFUSED, {"reason": reason, "message": message})
        transaction.done(TOPIC, seq)
    return False


def _is_refusal(error: Exception) -> bool:
    """Whether MLflow answered, and would answer the same tomorrow."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    return isinstance(error, TypeError | ValueError | KeyError | FileNotFoundError) and not isinstance(error, Failed)


_REFUSALS = frozenset(
    {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "INVALID_STATE", "INVALID_STATE_TRANSITION"}
    | {"RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "RESOURCE_CONFLICT", "RESOURCE_LIMIT_EXCEEDED"}
    | {"MAX_BLOCK_SIZE_EXCEEDED", "MAX_READ_SIZE_EXCEEDED"}
)


def _take_back(metadata: MetadataStore) -> None:
    """What was refused waits again, before what waits now."""
    refused, waiting = metadata.pending(REFUSED), metadata.pending(TOPIC)
    with metadata.transaction() as transaction:
        for seq, body in refused:
            transaction.enqueue(TOPIC, body["message"])
            transaction.done(REFUSED, seq)
        for seq, message in waiting:
            transaction.enqueue(TOPIC, message)
            transaction.done(TOPIC, seq)


def fetch(uri: str, tracking_uri: str | None, folder: Path) -> dict[str, Any]:
    """Copy a model's artifacts into `folder`, and say where they are from; nothing of them is opened.

    uri: "models:/NAME/7", "models:/NAME@ALIAS", "models:/m-..." or "runs:/ID/model". Raises ModelNotFetched and
    ServerUnreachable.
    """
    if not tracking_uri:
        raise ModelNotFetched(
            "no tracking server was named.",
            expected="Its address is expected, such as http://127.0.0.1:5000.",
            next="Set MLFLOW_TRACKING_URI, or give --mlflow-uri.",
            state="Nothing was released.",
        )
    if not uri.startswith(("models:/", "runs:/")):
        raise ModelNotFetched(
            f"'mlflow:{uri}' names no model.",
            expected="mlflow:models:/NAME/7, mlflow:models:/NAME@ALIAS or mlflow:runs:/ID/model is expected.",
            state="Nothing was released.",
        )
    try:
        with _client(tracking_uri) as client:
            from mlflow.artifacts import download_artifacts

            exact, artifacts, facts = _meant(client, uri)
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):  # progress bars
                path = Path(download_artifacts(artifact_uri=artifacts, dst_path=str(folder), tracking_uri=tracking_uri))
    except Exception as error:  # whatever MLflow, its database or its server raises
        words = _words(error)
        if "Max retries exceeded" in words or "Connection" in type(error).__name__:
            raise ServerUnreachable(
                f"the tracking server {without_password(tracking_uri)} does not answer.",
                state="Nothing was released.",
                next="Look whether it runs, and whether the address is right.",
            ) from None
        raise ModelNotFetched(
            f"'{uri}' could not be had from {without_password(tracking_uri)}: {words}",
            expected="A model that was logged or registered there is expected.",
            state="Nothing was released.",
        ) from None
    if path != folder:
        for part in path.iterdir():
            shutil.move(part, folder / part.name)
    return {"from": f"mlflow:{exact}", **facts}


def _meant(client: Any, uri: str) -> tuple[str, str, dict[str, str]]:
    """An address that means the same tomorrow (an alias moves), where its artifacts are, and the run that logged it."""
    if uri.startswith("runs:/"):
        return uri, uri, {"run_id": uri.removeprefix("runs:/").partition("/")[0]}
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if at:
        found = client.get_model_version_by_alias(name, alias)
    else:
        name, _, version = name.rpartition("/")
        if not name or not version.isdigit():
            return uri, uri, {}
        found = client.get_model_version(name, version)
    # asked of this server: the address alone would be looked up in whatever registry is set for the process
    artifacts = client.get_model_version_download_uri(found.name, found.version)
    return f"models:/{found.name}/{found.version}", artifacts, {"run_id": found.run_id} if found.run_id else {}


def _waiting(metadata: MetadataStore) -> Iterator[tuple[int, dict[str, Any]]]:
    """Messages as they wait, also those that arrive meanwhile."""
    while pending := metadata.pending(TOPIC):
        yield from pending


def _tell(client: Any, message: Mapping[str, Any], artifact_root: Path | None) -> None:
    if message["format"] > FORMAT:
        raise MessageTooNew(
            f"a message for MLflow has the format {message['format']}.",
            expected=f"This version writes up to format {FORMAT}.",
            state="It stays in the outbox.",
            next="Upgrade seatrial.",
        )
    if message["kind"] in _TOLD:
        _TOLD[message["kind"]](client, message)
        return
    if message["kind"] == "release":
        _tell_release(client, message)
        return
    mlflow_run = _run(client, message, artifact_root)
    _log(client, mlflow_run.info.run_id, message)
    missing = [name for name, path in message["artifacts"].items() if not Path(path).is_file()]
    for name, path in message["artifacts"].items():
        if name not in missing:
            _log_artifact(client, mlflow_run.info.run_id, name, Path(path))
    if missing:
        client.set_tag(mlflow_run.info.run_id, MISSING_TAG, ", ".join(missing)[:LONGEST_TAG])
    status = "FAILED" if message["failed"] else "FINISHED"
    client.set_terminated(mlflow_run.info.run_id, status, message["ended_us"] // 1000)
    if message.get("version") is not None:
        _version(client, message, mlflow_run)
        for alias in message["aliases"]:
            _tell_alias(client, message, alias)


def _run(client: Any, message: Mapping[str, Any], artifact_root: Path | None) -> Any:
    """MLflow's run for ours; made when it is not there."""
    experiment = client.get_experiment_by_name(message["experiment"])
    if experiment is None:
        # an experiment's name is text, and may look like a path to somewhere else
        folder = digest(message["experiment"].encode())[:16]
        location = None if artifact_root is None else (artifact_root.resolve() / folder).as_uri()
        experiment_id = client.create_experiment(message["experiment"], artifact_location=location)
    else:
        experiment_id = experiment.experiment_id
    found = _only_run(client, experiment_id, message["run_id"])
    if found is not None:
        return found
    tags = {_key(key): value[:LONGEST_TAG] for key, value in message["tags"].items() if value}
    tags |= {RUN_TAG: message["run_id"]}
    made = client.create_run(experiment_id, message["started_us"] // 1000, tags, message["name"])
    return _only_run(client, experiment_id, message["run_id"]) or made


def _only_run(client: Any, experiment_id: str, run_id: str) -> Any:
    """MLflow's run for ours, if any. Of several, as a request leaves that was answered too late, one stays."""
    found = client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{run_id}'", max_results=BATCH)
    first, *others = sorted(found, key=lambda one: (one.info.status != "FINISHED", one.info.run_id)) or [None]
    for one in others:
        client.delete_run(one.info.run_id)
    return first


def _log(client: Any, run_id: str, message: Mapping[str, Any]) -> None:
    from mlflow.entities import Metric, Param

    stamp = message["ended_us"] // 1000
    logged = {key: [[0, value]] for key, value in message["metrics"].items()} | message.get("series", {})
    metrics = [
        Metric(_key(key), float(value), stamp, int(step))
        for key in logged
        for step, value in logged[key]
        if _told(value)
    ]
    params = [Param(key, value) for key, value in {_key(key): one for key, one in message["params"].items()}.items()]
    for start in range(0, max(len(metrics), len(params)), BATCH):
        client.log_batch(run_id, metrics[start : start + BATCH], params[start : start + BATCH])


def _log_artifact(client: Any, run_id: str, name: str, path: Path) -> None:
    """Copy one file under the name it shall have, without loading or inspecting it."""
    if path.name == name:
        client.log_artifact(run_id, str(path), ARTIFACT_FOLDER)
        return
    with tempfile.TemporaryDirectory() as folder:
        renamed = Path(folder) / _key(name).replace("/", "_")
        shutil.copyfile(path, renamed)
        client.log_artifact(run_id, str(renamed), ARTIFACT_FOLDER)


def _key(name: str) -> str:
    """A name as MLflow takes it: a message that it refuses would hold up all that wait behind it."""
    plain = re.sub(r"[^\w\-. :/]", "_", name)[:LONGEST_NAME]
    if posixpath.normpath(plain) != plain or plain.startswith((".", "/")):
        plain = plain.replace("/", "_").replace(".", "_")
    return plain or "_"


def _version(client: Any, message: Mapping[str, Any], mlflow_run: Any) -> None:
    """MLflow's version for ours; MLflow gives the number, our number is its tag."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(message["model"])
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(message["model"])
    if _find_version(client, message) is None:
        client.create_model_version(
            message["model"],
            f"{mlflow_run.info.artifact_uri}/{ARTIFACT_FOLDER}",
            run_id=mlflow_run.info.run_id,
            tags={VERSION_TAG: str(message["version"]), VERSION_ID_TAG: message["version_id"]},
            description=f"Version {message['version']} in seatrial: trained, not released. It cannot be loaded from "
            f"here before `seatrial release {message['model']}:{message['version']}`.",
        )


def _tell_alias(client: Any, message: Mapping[str, Any], alias: str) -> None:
    version = _find_version(client, message)
    if version is None:
        return  # made before the mirror was switched on: MLflow never heard of it
    client.set_registered_model_alias(message["model"], alias, version)


def _tell_moved(client: Any, message: Mapping[str, Any]) -> None:
    _tell_alias(client, message, message["alias"])


def _tell_removed(client: Any, message: Mapping[str, Any]) -> None:
    """Take the alias away; that MLflow has none, or no such model, is as well."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_registered_model_alias(message["model"], message["alias"])
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _tell_deleted(client: Any, message: Mapping[str, Any]) -> None:
    version = _find_version(client, message)
    if version is not None:
        client.set_model_version_tag(message["model"], version, DELETED_TAG, message["reason"])


def _tell_release(client: Any, message: Mapping[str, Any]) -> None:
    """Put the release beside its run's files, as `mlflow.pyfunc.load_model` opens it, and tag the version."""
    version = _find_version(client, message)
    if version is None:
        return  # made before the mirror was switched on: MLflow never heard of it
    run_id = client.get_model_version(message["model"], version).run_id
    with tempfile.TemporaryDirectory() as folder:
        _write_model(Path(folder), message, run_id)
        client.log_artifacts(run_id, folder, ARTIFACT_FOLDER)
    words = (
        f"Version {message['version']} in seatrial, released as {message['semantic_version']} ({message['release']})."
    )
    client.update_model_version(message["model"], version, words)
    for tag, value in ((RELEASE_TAG, message["release"]), (SEMANTIC_TAG, message["semantic_version"])):
        client.set_model_version_tag(message["model"], version, tag, value)


def _write_model(folder: Path, message: Mapping[str, Any], run_id: str) -> None:
    """A model folder as MLflow has it: MLmodel, the bundle, its public key, the graph, and what loading it needs."""
    import seatrial

    bundle, key = Path(message["bundle"]), Path(message["key"])
    data = f"{message['model']}.seatrial"
    shutil.copyfile(bundle, folder / data)
    shutil.copyfile(key, folder / key.name)
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        graph = "model.onnx" in archive.namelist()
        if graph:
            (folder / "model.onnx").write_bytes(archive.read("model.onnx"))
    needs = f"seatrial=={seatrial.__version__}\n"
    (folder / "requirements.txt").write_text(needs)
    python = ".".join(map(str, sys.version_info[:3]))
    environment = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(json.dumps(environment))
    flavors: dict[str, Any] = {
        "python_function": {
            "loader_module": "seatrial.embedded",
            "data": data,
            "python_version": python,
            "env": {"virtualenv": "python_env.yaml"},
        }
    }
    if graph:
        flavors["onnx"] = {"data": "model.onnx", "onnx_version": "", "providers": ["CPUExecutionProvider"]}
    described = {
        "artifact_path": ARTIFACT_FOLDER,
        "run_id": run_id,
        "flavors": flavors,
        "metadata": {
            "release": message["release"],
            "version": message["version"],
            "semantic_version": message["semantic_version"],
            "request": [field["name"] for field in manifest["signature"]["request"]],
        },
    }
    (folder / "MLmodel").write_text(json.dumps(described, indent=1))  # JSON is YAML, which MLflow reads


_TOLD = {"alias": _tell_moved, "alias_removed": _tell_removed, "deleted": _tell_deleted}
"""What is done with each kind of message but "run"."""


def _find_version(client: Any, message: Mapping[str, Any]) -> str | None:
    """MLflow's number of our version, newest first; numbers differ when somebody else writes to the model there."""
    quoted = message["model"].replace("'", "")
    for found in client.search_model_versions(f"name = '{quoted}'", order_by=["version_number DESC"]):
        if found.tags.get(VERSION_ID_TAG) == message["version_id"]:
            return str(found.version)
    return None


@contextmanager
def _client(tracking_uri: str, settings: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A client that keeps quiet: no telemetry, no warnings, no log lines below errors. settings: for as long."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    before = {name: os.environ[name] for name in settings or {} if name in os.environ}
    os.environ |= settings or {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield MlflowClient(tracking_uri, tracking_uri)
        finally:
            os.environ |= before
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _alone(store: Path) -> Iterator[bool]:
    """Whether no other process of this machine tells what waits in this metadata store now."""
    import fcntl

    with store.with_name(f".{store.name}.mirror.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _words(error: BaseException) -> str:
    """The first line of what was raised, short enough for a status line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def main(arguments: list[str]) -> int:
    """`python -m seatrial.registry.mlflow METADATA URI [ARTIFACTS]`: tell MLflow what waits; 0 when nothing waits."""
    path, uri, *root = arguments
    return 1 if mirror(MetadataStore(Path(path)), uri, Path(root[0]) if root else None).pending else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
