"""Building: from features to a release. Train, release, and what may be done to versions and keys.

A verb reads what it needs from the stores, calls the stage that does the work, and writes the outcome in one
transaction: records, the event that says who did it, and the head that now points at it. Objects are written before
the transaction that names them, so a crash leaves at most an object that nobody names.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from seatrial.core.clock import as_utc, iso, machine_us, monotonic, to_us
from seatrial.core.errors import Conflict, Failed, SeatrialError, UsageError, listed
from seatrial.core.identity import canonical_json, content_id, new_id
from seatrial.core.personal import check_personal
from seatrial.core.records import Record
from seatrial.core.settings import Engine
from seatrial.core.windows import Window, parse_window
from seatrial.folder.workspace import SQLITE, STATE
from seatrial.verbs.inputs import columns
from seatrial.verbs.preparing import Preparing
from seatrial.verbs.results import Progress, Released, Trained

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.core.signature import Rows, Task
    from seatrial.core.types import Dtype, Field
    from seatrial.registry.mlflow import Mirrored
    from seatrial.releases.build import Built
    from seatrial.releases.manifest import Manifest
    from seatrial.training.environment import Environment
    from seatrial.training.model import Model
    from seatrial.training.pipeline import ChampionScores, Fitted
    from seatrial.verbs.custody import AliasSet, Deletion
    from seatrial.verbs.external import Words
    from seatrial.verbs.vouching import KeyChange, Resigned

MIRROR_WAITS = 2.0  # seconds for which the end of a verb waits for a tracking server to be told
MLFLOW = "mlflow"  # the outbox topic, as registry.mlflow names it


class AlreadyReleased(Conflict):
    """The version has a release, and this pack is not the same."""

    code = "project.already_released"


class RunFileDamaged(Failed):
    """A file that a training kept is not as it was written."""

    code = "project.run_file_damaged"


class Building(Preparing):
    """The verbs from features to a release."""

    _mirroring: subprocess.Popen[bytes] | None = None

    def train(
        self,
        model: str | None = None,
        *,
        cutoff: datetime | None = None,
        engine: Engine | None = None,
        sample: int | float | None = None,
        fresh: bool = False,
        tune: bool | Literal["champion"] = True,
        continue_from: str | None = None,
        progress: Progress | None = None,
    ) -> Trained:
        """Fit a model on what was known at `cutoff` (default: now), judge it, and make it a version if its gates pass.

        The run is recorded either way; `passed` and `version` say how it ended. The version gets the alias
        `candidate`. When rows or estimator fail half-way, the run is recorded as failed with the reason, and the error
        goes on; snapshots and training set are kept, so that the next try starts from the same data. engine: "local" or
        "spark" (default: the settings'): where features are joined; the same rows.
        sample: learn from so many rows only (5000), or from a share of them (0.1): a quick run, marked as a sample,
        that never becomes a version. fresh: join features, tune and cross-validate again, also when nothing was
        changed. tune: False takes the declared parameters of a model that says `tune=Tune(...)`; "champion" those that
        the run behind the live release chose, as `retrain` does, and tunes when there is no such choice.
        continue_from: "champion" or a release whose fit is gone on from, on the rows whose label became known since;
        see `training.continuing`. It is one of the run's inputs.
        Raises BreaksLiveRelease, before anything is written, when the project was changed so that a live release's
        features can no longer be kept up, and LeakFound, and trains nothing, for a column that knows more than could
        be known.
        """
        from seatrial.features.frozen import frozen_source
        from seatrial.features.leaks import note, refusal
        from seatrial.retraining.refit import champions_choice
        from seatrial.training.environment import describe
        from seatrial.training.evaluation import fold_scores
        from seatrial.training.pipeline import fit
        from seatrial.training.remembered import remembered_folds
        from seatrial.training.sample import Sample
        from seatrial.training.steps import Steps, environment_digest
        from seatrial.verbs.evidence import card_of
        from seatrial.verbs.feature_quality import leaks
        from seatrial.verbs.reuse import Reuse
        from seatrial.verbs.upkeep import freeze, refuse

        refuse(self)
        started, started_us = monotonic(), machine_us()
        declared = self._trained_here(model, "how it is trained")
        words = card_of(declared.card, self.folder)
        timed = declared.labels.event_timestamp is not None
        cutoff_us = to_us(as_utc(cutoff, name="cutoff") if cutoff else self.clock.now()) if timed else None
        environment = describe(self.folder, self.definitions.told_by, declared.threads, seed=declared.seed)
        left_out: dict[str, int] = {}
        steps = Steps(self.objects, environment=environment_digest(environment.facts, machine=False), fresh=fresh)
        rows, plan, request, snapshots = self._inputs.rows(
            declared,
            known_by_us=cutoff_us,
            progress=progress,
            left_out=left_out,
            engine=engine,
            inspect=partial(refuse, self),
            steps=steps,
            sample=None if sample is None else Sample(sample, declared.seed),
        )
        guard = leaks(self._inputs, declared, plan, rows)
        if guard.leaks:
            raise refusal(guard)
        views = [self.definitions.views[view.name] for view in plan.views]
        schemas = self._inputs.schemas([view.source for view in views])
        freeze(self, views, schemas, "train")
        more: list[str] = []
        if continue_from is not None:
            from seatrial.verbs.continuing import started_from

            declared, rows = started_from(self, declared, rows, continue_from)
            more = [declared.continues.release] if declared.continues else []
        training_set = self._keep_training_set(declared, rows, snapshots, cutoff_us)
        run = new_id("run")
        body: dict[str, Any] = {
            "cutoff_us": cutoff_us,
            "steps": steps.ran,
            "data": dict(zip(self._inputs.raw_names(declared, plan), snapshots, strict=True)),
            "leak_guard": msgspec.to_builtins(guard),
            "environment": environment.facts,
            "plan": msgspec.to_builtins(plan),
            "definition": definition_of(declared),
            "sources": {view.name: msgspec.to_builtins(frozen_source(view.source, schemas)) for view in views},
        }
        if words is not None:
            body["card"] = words
        if sample is not None:
            body["sample"] = {"size": sample, "rows": rows.num_rows}
        if declared.continues is not None:
            start = declared.continues
            body["continued"] = {"release": start.release, "run": start.run, "cutoff_us": start.cutoff_us}
        unfinished = Record(run, "run", declared.name, (training_set, *snapshots, *more), body)
        with self._failing(unfinished, declared, progress, started_us) as tell:
            if declared.tune is not None and tune:
                chosen = champions_choice(self.metadata, declared, self._deployments_of(declared.name))
                declared = (
                    self._as_chosen(declared, chosen, body)
                    if chosen and tune == "champion"
                    else self._tuned(declared, rows, request, training_set, body, fresh, tell)
                )
            fitted = fit(
                declared,
                rows,
                plan,
                request,
                cutoff_us=cutoff_us,
                champion=self._champion(declared),
                of_project=self.definitions.gates,
                unrepeatable=self.settings.policy.unrepeatable,
                progress=tell,
                folds_by=fold_scores
                if declared.continues
                else partial(remembered_folds, steps, environment_digest(environment.facts)),
            )
        notes = [_KNOWN_AT_ONCE] if timed and declared.labels.label_known_at is None else []
        used = zip(self._inputs.raw_names(declared, plan), snapshots, strict=True)
        notes += [f"{name}: {note.words}" for name, snapshot in used for note in self._inputs.notes_of(name, snapshot)]
        notes += [
            f"the definitions read a file that is not kept with the run: {one}" for one in self.definitions.not_kept
        ]
        notes += [*Reuse(self).notes([view.name for view in views]), *fitted.notes]
        if "tuning" in body:
            from seatrial.training.tuning import words as tuning_words

            notes.append(tuning_words(body["tuning"]))
        if sample is not None:
            notes.append(f"a sample: {rows.num_rows:,} rows only, so no version is made, whatever the gates say")
        counted = _counting(fitted.split, left_out)
        fitted = replace(fitted, split=counted, warnings=tuple(dict.fromkeys((*notes, *fitted.warnings))))
        if declared.personal:
            keys: dict[str, Dtype] = dict.fromkeys(declared.key, "string")  # labels are told by them
            check_personal(declared.name, declared.personal, keys | fitted.signature.types)
        body |= fitted.as_plain() | {
            "signature": msgspec.to_builtins(fitted.signature),
            "files": self._keep_run_files(run, fitted, environment),
        }
        record = Record(run, "run", declared.name, (training_set, *snapshots, *more), body)
        version = self._keep_run(record, fitted, started_us)
        return Trained(
            model=declared.name,
            run=run,
            version=version,
            passed=fitted.passed,
            metrics=fitted.metrics,
            baseline=fitted.baseline,
            cv=body["cv"],
            gates=body["gates"],
            rows=fitted.split,
            training_set=training_set,
            snapshots=snapshots,
            seconds=round(monotonic() - started, 3),
            notes=notes,
            leak_guard=note(guard),
            sample=None if sample is None else rows.num_rows,
            intervals=fitted.intervals,
            slices=fitted.slices,
            threshold=fitted.threshold,
            reused=[str(one["step"]) for one in steps.ran if one["hit"]],
        )

    def release(
        self,
        name: str | None = None,
        *,
        parity_window: Window | None = None,
        from_: object = None,
        sample: object = None,
        target: str | None = None,
        task: Task | None = None,
        owner: str = "",
        on_call: str = "",
        runbook: str = "",
        description: str = "",
        classes: Sequence[str | int] = (),
        mlflow_uri: str | None = None,
        progress: Progress | None = None,
    ) -> Released:
        """Pack a model version as a signed release, proved to answer like the native model: as ONNX; where that
        differs, in the estimator's own format, which a child process scores.

        name: a model (its newest version), `model@alias`, `model:3`, a version's id, or a run's.
        parity_window: label rows predicted in it (labelled or not) are compared too. Packing the same version again
        gives the same release; with another parity window it is refused, since the evidence is part of a release.

        from_: a model that was trained elsewhere, which becomes the next version of `name`, without any declaration:
        a fitted object of scikit-learn, LightGBM, XGBoost or CatBoost, a file of theirs, or a model in MLflow
        (`mlflow:models:/NAME/7`, at `mlflow_uri`). sample: rows as it is given them, a path or a frame. target: the
        column of the sample with what really happened; task, classes: what the model answers, and its classes in the
        order of its probabilities, where it does not tell. The other words go into the release. See `external` and
        docs/adopt.md.
        """
        from seatrial.registry.versions import refuse_deleted
        from seatrial.releases.build import build, made_by_run
        from seatrial.releases.native import NativeModel
        from seatrial.releases.signing import trust
        from seatrial.stores.personal_key import make_personal_key
        from seatrial.training.estimator import require_extra
        from seatrial.verbs.external import Words, made_elsewhere, notes

        require_extra()
        if from_ is not None:
            words = Words(owner, on_call, runbook, description)
            source, left = self._brought_in(name, from_, sample, target, task, words, mlflow_uri, classes)
            version = self.registry.version_of(source.id)
        else:
            said = {"owner": owner, "on_call": on_call, "runbook": runbook, "classes": classes}
            self._refuse_words(sample=sample, target=target, task=task, **said)
            left = []
            version, source = self._released_from(name or self._only_logged() or self._model(None).name)
        known = self.release_of(version.id) if version else None
        number = version.body["version"] if version else self.registry.next_number(source.name)
        if known is not None:
            refuse_deleted(self.metadata, known.id, f"the release of version {number} of '{source.name}'")
        if known is not None and parity_window is None and known.body["parity_window"]:
            parity_window = parse_window(known.body["parity_window"])
        files = source.body["files"]
        kind = next(key.removeprefix("native.") for key in files if key.startswith("native."))
        native = NativeModel(kind, self.objects.read(files[f"native.{kind}"]), source.body["task"])
        rows = self._parity_rows(source, parity_window, progress)
        compared = {"parity_window": str(parity_window) if parity_window else ""}
        if "hash" in (source.body["definition"].get("personal") or {}).values():
            make_personal_key(self.keys, os.environ)
        built = build(
            made_by_run(source, compared) if source.kind == "run" else made_elsewhere(source),
            number,
            native,
            rows,
            profile=self.objects.read(files["profile.json"]),
            previous=self._manifest_before(source.name, number),
            key=self.signing_key,
            progress=progress,
        )
        if version is not None and known is not None and known.id != built.id:
            raise _already_released(version, known.id, built, self._live_words(known.id))
        key = f"releases/{built.id}.seatrial"
        trust(self.keys, self.signing_key.public)  # a key of the environment leaves, what it signed stays
        # also when it is known: a lost or damaged bundle is there again
        if not (self.objects.exists(key) and _is_bundle(self.objects.path(key), id=built.id, trusted=self.trusted)):
            self.objects.put(key, built.data, whole=lambda _: False)
        new = known is None and self._keep_release(built, version, source, key, parity_window)
        manifest = built.manifest
        return Released(
            id=built.id,
            model=source.name,
            version=manifest.version,
            semantic_version=manifest.semantic_version,
            explanation=manifest.explanation,
            format=manifest.model_format,
            parity=msgspec.to_builtins(manifest.parity),
            path=str(self.objects.path(key)),
            bytes=len(built.data),
            new=new,
            cost=msgspec.to_builtins(built.cost),
            notes=[
                *([] if source.kind == "run" else notes(source, left)),
                *_unanswerable(source),
                *self._beside_live(manifest),
            ],
            needs_approval=self._needs_approval(source.name, built.id),
        )

    def _brought_in(
        self,
        name: str | None,
        from_: object,
        sample: object,
        target: str | None,
        task: Task | None,
        words: Words,
        mlflow_uri: str | None,
        classes: Sequence[str | int],
    ) -> tuple[Record, list[str]]:
        """The record of a model from elsewhere, and the columns of the sample that it does not take; the record is a
        version when it was brought in before."""
        from seatrial.verbs.external import adopt, fetched, require_name, sample_table

        self.found()
        require_name(name, sample)
        table = sample_table(self._inputs, sample)
        model, origin = fetched(from_, task, mlflow_uri, table, target)
        source = adopt(self, str(name), model, table, origin=origin, target=target, words=words, classes=classes)
        inputs = source.body["signature"]["inputs"]
        return source, [one for one in table.column_names if one not in inputs and one != target]

    def _refuse_words(self, **given: object) -> None:
        said = [
            name
            for name, value in given.items()
            if value is not None and not (isinstance(value, str | list | tuple) and not value)
        ]
        if said:
            raise UsageError(
                f"{listed(said)} of a release is said by the declaration of its model.",
                expected="Only a model that is brought in with from_= (--from) gets it here.",
                state="No release was written.",
            )

    def _only_logged(self) -> str | None:
        """The model whose fits were logged, where that is the only one and none is declared."""
        names = {head.name for head in self.metadata.heads("logged")}
        return names.pop() if len(names) == 1 and not self._models() else None

    def _released_from(self, name: str) -> tuple[Record | None, Record]:
        """The version that is meant, and its run or adoption; a logged run becomes a version with its release."""
        logged = self.metadata.head("logged", name)
        if logged is not None and self.metadata.head("version", name) is None:
            raise UsageError(
                f"model '{name}' has no version: its fits were logged, the newest as run '{logged.record_id}'.",
                expected="A logged fit becomes a version when its run is released.",
                state="No release was written.",
                next=f"Run `seatrial release {logged.record_id}`.",
            )
        run = self.resolved(name, "run") if name.startswith("run_") else None
        if run is not None and "logged" in run.body and self.registry.version_of(run.id) is None:
            from seatrial.verbs.tracking import refuse_unreleasable

            refuse_unreleasable(run)
            return None, run
        version = self._version(name)
        return version, self.record(version.inputs[0])

    def _version(self, name: str) -> Record:
        """The version that a name means; a run's id means the version that the run was made."""
        if not name.startswith("run_"):
            return self.registry.resolve(name)
        run = self.resolved(name, "run")
        version = self.registry.version_of(run.id)
        if version is None:
            sampled = "it learned from a sample" if "sample" in run.body else "its gates said no"
            why = "it failed" if run.body.get("state") == "failed" else sampled
            raise UsageError(
                f"run '{run.id}' of model '{run.name}' was made no version: {why}.",
                state="No release was written.",
                next=f"Run `seatrial train {run.name}` without --sample."
                if "sample" in run.body
                else f"Run `seatrial runs show {run.id}` to see why.",
            )
        return version

    def model_alias(self, model: str, alias: str, version: str | int | None, *, reason: str = "") -> AliasSet:
        """Let `model@alias` name a version (a number or any reference to one); None takes the alias away.

        Raises StillLive when the alias is `champion`, which follows the deployment.
        """
        from seatrial.verbs.custody import set_alias

        done = set_alias(self, model, alias, None if version is None else str(version), reason=reason)
        self._start_mirror()
        return done

    def model_delete(self, name: str, *, reason: str) -> Deletion:
        """Take a version (`model:3`, `model@alias`, its id) and its release out of use. Nothing of its history is lost.

        Raises StillLive, with the deployment's name, for what is live or what a roll-back would return to.
        """
        from seatrial.verbs.custody import delete_version

        done = delete_version(self, self._one_version(name), reason=reason)
        self._start_mirror()
        return done

    def _one_version(self, name: str) -> Record:
        """A version that is named by itself: the bare name of a model might mean another one tomorrow."""
        if ":" not in name and "@" not in name and not name.startswith("ver_"):
            raise UsageError(
                f"'{name}' names no single version.",
                expected=f"A version is expected, such as '{name}:3'.",
                state="Nothing was deleted.",
                next=f"`seatrial models show {name}` lists its versions.",
            )
        return self.registry.resolve(name)

    def release_resign(self, *ids: str, by: str | None = None, reason: str = "") -> Resigned:
        """Sign releases again with the key that signs now: those named, or all that the key `by` signed.

        Each must be what the audit log says was packed here. Route files that are no longer trusted are written anew.
        """
        from seatrial.verbs.vouching import Resigned, resign, resign_routes, signed_by

        records = [self._any_release(id) for id in ids] or (signed_by(self, by) if by else [])
        done = resign(self, records, reason)
        return Resigned(self.signing_key.keyid, done, resign_routes(self))

    def key_rotate(self, *, reason: str = "") -> KeyChange:
        """Sign with a new key from now on; the old one stays trusted. Raises NotRotated."""
        from seatrial.verbs.vouching import rotate

        return rotate(self, reason)

    def key_revoke(self, id: str, *, reason: str) -> KeyChange:
        """Trust a key no longer: what only it signed is refused from now on. Raises UnknownKey."""
        from seatrial.verbs.vouching import revoke

        return revoke(self, id, reason)

    def key_trust(self, file: str | Path, *, reason: str = "") -> KeyChange:
        """Trust what the private half of the public key in `file` signs. Raises KeyUnusable."""
        from seatrial.verbs.vouching import trust_key

        return trust_key(self, file, reason)

    def release_delete(self, id: str, *, reason: str) -> Deletion:
        """Take a release out of use: no name means it any more, and it cannot be deployed. Its record, its bundle and
        its history stay. Raises StillLive, with the deployment's name."""
        from seatrial.verbs.custody import delete_release

        return delete_release(self, self._any_release(id), reason=reason)

    def mirror(self, *, again: bool = False) -> Mirrored:
        """Tell MLflow what it has not been told. Its outage changes nothing here; what waits is told next time.

        again: also what MLflow refused before, and which was set aside.
        """
        from seatrial.registry.mlflow import Mirrored, mirror

        target = self._mlflow()
        if target is None:
            pending = len(self.metadata.pending(MLFLOW))
            return Mirrored(0, pending, "no tracking server is set, or mlflow is not installed")
        return mirror(self.metadata, *target, again=again)

    def close(self) -> None:
        """Close every store that was opened, and wait for the mirror to have been told what was trained."""
        if self._mirror_ended() == 0 and self.metadata.pending(MLFLOW):  # told while it was on its way out
            self._start_mirror()
            self._mirror_ended()
        super().close()

    def _mirror_ended(self) -> int | None:
        """Wait for the mirror; its exit code, None when there is none or it takes long."""
        mirroring, self._mirroring = self._mirroring, None
        if mirroring is None:
            return None
        target = self._mlflow()
        try:
            return mirroring.wait(None if target and target[1] else MIRROR_WAITS)
        except subprocess.TimeoutExpired:  # it goes on by itself; somebody must take note of its end
            threading.Thread(target=mirroring.wait, name="mirror", daemon=True).start()
            return None

    def _mlflow(self) -> tuple[str, Path | None] | None:
        """Where the mirror is: its address, and the folder of its artifacts when it is a file of ours."""
        uri = self.settings.stores.mlflow
        if not uri or find_spec("mlflow") is None:
            return None
        if not uri.startswith(SQLITE):
            return uri, None
        path = self.sqlite_path("mlflow")
        path.parent.mkdir(parents=True, exist_ok=True)
        return f"{SQLITE}{path}", path.parent / "mlflow-artifacts"

    def _start_mirror(self) -> None:
        """Tell MLflow in a process of its own: importing it alone takes seconds that no verb should wait for."""
        target = self._mlflow()
        if target is None or (self._mirroring is not None and self._mirroring.poll() is None):
            return
        uri, artifacts = target
        command = [sys.executable, "-m", "seatrial.registry.mlflow", str(self.sqlite_path("metadata")), uri]
        self._mirroring = subprocess.Popen(
            [*command, *([str(artifacts)] if artifacts else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _keep_training_set(self, model: Model, rows: pa.Table, snapshots: list[str], cutoff_us: int | None) -> str:
        """Keep the training set by content; returns its id."""
        from seatrial.data import snapshot

        content = snapshot.content(rows)
        identity = content_id("tset", content.id.encode())
        key = f"training_sets/{identity}.parquet"
        self.keep_table(key, lambda path: snapshot.write(content, rows, path), content)
        body = {"content": content.as_plain(), "object": key}
        happened = {"model": model.name, "cutoff_us": cutoff_us, "snapshots": snapshots, "rows": rows.num_rows}
        with self.metadata.transaction() as transaction:
            transaction.add(Record(identity, "training_set", "", (), body))  # content only: the run names its snapshots
            self.event(transaction, "training_set.built", identity, happened)
        return identity

    def _tuned(
        self,
        model: Model,
        rows: pa.Table,
        request: Sequence[Field],
        training_set: str,
        body: dict[str, Any],
        fresh: bool,
        progress: Progress,
    ) -> Model:
        """The model with its best parameters, which the run's body then says, and how they were found."""
        from seatrial.training.remembered import told_by_name
        from seatrial.training.steps import environment_digest
        from seatrial.training.tuning import tune

        environment = body["environment"]
        own = "" if told_by_name(model) else str(environment["code"]["definitions"])
        tuned = tune(
            model,
            rows,
            request,
            folder=self.folder / STATE / "tuning",
            about=" ".join((training_set, environment_digest(environment), own)),
            cutoff_us=body["cutoff_us"],
            fresh=fresh,
            progress=progress,
        )
        body |= {"tuning": tuned.record, "definition": definition_of(tuned.model)}
        return tuned.model

    def _as_chosen(self, model: Model, chosen: dict[str, Any], body: dict[str, Any]) -> Model:
        """The model with parameters that another run chose, which the run's body then says."""
        from seatrial.training.tuning import as_tuned

        model = as_tuned(model, chosen)
        body |= {"tuning": chosen, "definition": definition_of(model)}
        return model

    @contextmanager
    def _failing(self, run: Record, model: Model, progress: Progress | None, started_us: int) -> Iterator[Progress]:
        """Records the run as failed when what is done inside raises; a wrong call is only told. Gives a progress."""
        from seatrial.training.failure import failed_body

        stage = ""

        def tell(what: str, done: int, total: int) -> None:
            nonlocal stage
            stage = what
            if progress:
                progress(what, done, total)

        try:
            yield tell
        except UsageError:
            raise
        except Exception as error:
            body = failed_body(model, error, stage) | run.body
            failed = Record(run.id, run.kind, run.name, run.inputs, body)
            with self.metadata.transaction() as transaction:
                transaction.add(failed)
                facts = {"model": model.name, "code": body["error"]["code"], "stage": stage}
                self.event(transaction, "run.failed", run.id, facts)
                transaction.enqueue(MLFLOW, self._record_message(failed, started_us))
            self._start_mirror()
            if isinstance(error, SeatrialError):
                error.state = f"Run {run.id} is recorded as failed; no version was made."
            raise

    def _keep_run_files(self, run: str, fitted: Fitted, environment: Environment) -> dict[str, str]:
        """Keep what a run's record does not hold itself: name -> object key."""
        import pyarrow as pa

        from seatrial.core.signature import columns_of

        files = {
            "profile.json": canonical_json(fitted.profile),
            "feature_importance.json": msgspec.json.encode(fitted.importance),  # in its order, which is by weight
        }
        if environment.patch:
            files["uncommitted.patch"] = environment.patch
        if environment.definitions:
            files["definitions.zip"] = environment.definitions
        if fitted.native is not None:
            files[f"native.{fitted.native.format}"] = fitted.native.data
        parity = pa.table(columns_of(fitted.signature, fitted.parity_rows))
        for name, table in (("parity_rows.parquet", parity), ("test_scores.parquet", fitted.test_scores)):
            files[name] = _parquet(table)
        self.objects.put_all({f"runs/{run}/{name}": data for name, data in files.items()})
        return {name: f"runs/{run}/{name}" for name in files}

    @property
    def _experiment(self) -> str:
        """What MLflow calls all that is done in this project."""
        return self.name

    def _record_message(self, record: Record, started_us: int | None = None) -> dict[str, Any]:
        """What MLflow is told of a run that was not trained here, or that failed, and of a model from elsewhere."""
        from seatrial.registry.mlflow import record_message

        now = machine_us()
        return record_message(
            record,
            experiment=self._experiment,
            started_us=now if started_us is None else started_us,
            ended_us=now,
            path=self.objects.path,
        )

    def _run_message(self, record: Record, fitted: Fitted, started_us: int) -> dict[str, Any]:
        """What MLflow is told of a run."""
        from seatrial.registry.mlflow import run_message

        return run_message(
            record.id,
            experiment=self._experiment,
            name=f"{record.name} {iso(self.clock.now())}",
            started_us=started_us,
            ended_us=machine_us(),
            params={**fitted.estimator.get("params", {}), "estimator": fitted.estimator.get("class", "")},
            metrics={f"test_{name}": value for name, value in fitted.metrics.items()},
            tags={"model": record.name, "passed": str(fitted.passed).lower(), "training_set": record.inputs[0]},
            artifacts={name: str(self.objects.path(key)) for name, key in record.body["files"].items()},
        )

    def _keep_run(self, record: Record, fitted: Fitted, started_us: int) -> int | None:
        """Record the run and, when its gates passed, make it a version; then tell MLflow. Returns the version."""
        from seatrial.registry.versions import version_number

        message = self._run_message(record, fitted, started_us)
        version = None
        with self.metadata.transaction() as transaction:
            transaction.add(record)
            self.event(transaction, "run.recorded", record.id, {"model": record.name, "passed": fitted.passed})
            if fitted.passed and "sample" not in record.body:
                created = self.registry.create(
                    record, actor=self.actor, at_us=self.now_us, message=message, within=transaction
                )
                version = version_number(created)
            else:
                transaction.enqueue(MLFLOW, message)
        self._start_mirror()
        return version

    def _was_live(self, deployment: str, release: str) -> bool:
        return any(release == record.inputs[0] for record in self.metadata.records("deployment", deployment))

    def _champion(self, model: Model) -> ChampionScores | None:
        """The live release of the model, as the gate that compares with it wants it; None when nothing is live.

        It scores those of the challenger's test rows that it has not learned from, so every column that it reads must
        be among theirs.
        """
        from seatrial.core.signature import encode
        from seatrial.releases.bundle import open_bundle
        from seatrial.training.pipeline import ALL_ROWS_US, ChampionNotComparable, ChampionScores

        names = [d.name for d in self.definitions.deployments.values() if d.model == model.name] or [model.name]
        head = self.metadata.head("deployment", names[0])
        if head is None:
            return None
        release = self.record(self.record(head.record_id).inputs[0])
        bundle = open_bundle(self.objects.path(release.body["object"]), self.trusted)
        signature, runtime = bundle.manifest.signature, bundle.runtime(model.threads)

        def score(rows: pa.Table) -> NDArray[np.float64]:
            missing = [name for name in signature.inputs if name not in rows.column_names]
            if missing:
                raise ChampionNotComparable(
                    f"the champion, version {bundle.manifest.version}, reads {listed(missing)}, "
                    f"which the new training set of '{model.name}' does not have.",
                    expected="The gate not_worse_than_champion compares both on the same rows.",
                    next="Keep these features in the model until the champion is replaced, or drop the gate.",
                )
            inputs, _ = encode(signature, columns(rows, signature.inputs))
            return runtime.score(inputs)

        at = 0.5 if bundle.manifest.threshold is None else bundle.manifest.threshold
        # of a model from elsewhere nobody knows which rows it learned from
        run = self.metadata.record(bundle.manifest.lineage.run) if bundle.manifest.lineage.run else None
        learned = None if run is None else run.body.get("cutoff_us") or ALL_ROWS_US
        return ChampionScores(
            name=f"{model.name} {bundle.manifest.version}",
            score=score,
            classes=signature.classes,
            threshold=at,
            learned_until_us=learned,
            metrics=bundle.manifest.metrics,
            intervals=((run.body.get("intervals") or {}).get("of") or {}) if run else {},
        )

    def _parity_rows(self, run: Record, window: Window | None, progress: Progress | None) -> Rows:
        """The rows on which a release must answer like the native model: of the run, or of the sample of a model from
        elsewhere), and those of a window."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from seatrial.core.signature import Signature, encode, joined, rows_of

        key = run.body["files"]["parity_rows.parquet"]
        try:
            table = pq.read_table(self.objects.path(key))
        except pa.ArrowException as error:
            raise RunFileDamaged(
                f"'{key}' in {self.objects.root} is damaged: {error}.",
                expected=f"The rows on which a release of run {run.id} is compared with the trained model.",
                state="No release was written.",
                next=f"Put the file back from a backup, or run `seatrial train {run.name}` again.",
            ) from None
        signature = msgspec.convert(run.body["signature"], Signature)
        rows = rows_of(signature, {name: table[name].to_numpy() for name in table.column_names})
        if window is None:
            return rows
        model = self._trained_here(run.name, "the rows of a window")
        found, _, _, _ = self._inputs.rows(model, window=window, progress=progress)
        missing = [name for name in signature.inputs if name not in found.column_names]
        if missing or not found.num_rows:
            raise UsageError(
                f"the window {window} has no rows of labels."
                if not missing
                else f"the project no longer has {listed(missing)}, which run {run.id} was trained with.",
                state="No release was written.",
                next="Name a window that has rows, or leave it out." if not missing else "Leave the window out.",
            )
        more, _ = encode(signature, columns(found, signature.inputs))
        return joined([rows, more])

    def _manifest_before(self, model: str, number: int) -> Manifest | None:
        """The manifest of the newest release of a version of the model before that number."""
        from seatrial.releases.manifest import Manifest

        earlier = [record for record in self.metadata.records("release", model) if record.body["version"] < number]
        newest = max(earlier, key=lambda record: int(record.body["version"]), default=None)
        return msgspec.convert(newest.body["manifest"], Manifest) if newest else None

    def _beside_live(self, new: Manifest) -> list[str]:
        """What changed since the release that is live, when another one was packed after it: numbers follow packing."""
        from seatrial.registry.versions import CHAMPION
        from seatrial.releases.manifest import Manifest, next_version

        named = self.metadata.head("alias", f"{new.model}@{CHAMPION}")
        record = self.release_of(named.record_id) if named else None
        before = self._manifest_before(new.model, new.version)
        if record is None or before is None or record.body["version"] in range(before.version, new.version + 1):
            return []
        return [f"Against what is live: {next_version(msgspec.convert(record.body['manifest'], Manifest), new)[1]}"]

    def _keep_release(self, built: Built, version: Record | None, run: Record, key: str, window: Window | None) -> bool:
        """Record the release. False when another process has recorded the same one meanwhile.

        run: the run, or the adoption, which becomes a version here when it is none (`version` is None)."""
        manifest = built.manifest
        body = {
            "model": run.name,
            "version": manifest.version,
            "semantic_version": manifest.semantic_version,
            "owner": manifest.owner,
            "on_call": manifest.on_call,
            "runbook": manifest.runbook,
            "object": key,
            "bytes": len(built.data),
            "parity_window": str(window) if window else "",
            "manifest": msgspec.to_builtins(manifest),
        }
        with self.metadata.transaction() as transaction:
            if version is None:
                version = self.registry.create(
                    run,
                    actor=self.actor,
                    at_us=self.now_us,
                    number=manifest.version,
                    message=self._record_message(run),
                    within=transaction,
                )
                transaction.move("adoption", run.name, run.id, expected=None)  # what nothing declares
            there = transaction.head("version_release", version.id)
            if there is not None and there.record_id != built.id:
                raise _already_released(version, there.record_id, built, self._live_words(there.record_id))
            if there is not None:
                return False
            transaction.add(Record(built.id, "release", run.name, (version.id, run.id), body))
            transaction.move("version_release", version.id, built.id, expected=0)
            transaction.move("release", run.name, built.id, expected=None)
            facts = {name: body[name] for name in ("model", "version", "semantic_version", "bytes")}
            # what a machine needed is no part of a release, whose bytes are the same everywhere
            facts |= {"format": manifest.model_format, "cost": msgspec.to_builtins(built.cost)}
            self.event(transaction, "release.packed", built.id, facts)
            transaction.enqueue(MLFLOW, self._release_message(body, built, version, run))
        self._start_mirror()
        return True

    def _release_message(self, body: dict[str, Any], built: Built, version: Record, run: Record) -> dict[str, Any]:
        """What MLflow is told of a release."""
        from seatrial.registry.mlflow import release_message
        from seatrial.releases.signing import trust

        return release_message(
            model=run.name,
            version=body["version"],
            version_id=version.id,
            run_id=run.id,
            experiment=self._experiment,
            release=built.id,
            semantic_version=body["semantic_version"],
            bundle=str(self.objects.path(body["object"])),
            key=str(trust(self.keys, self.signing_key.public)),
        )

    def _live_words(self, release: str) -> str:
        """Where a release is live, as the tail of a sentence."""
        from seatrial.verbs.custody import live_in

        names = [f"'{name}'" for name in live_in(self.metadata, release)]
        return f", live in deployment {listed(names)}" if names else ""


def _unanswerable(source: Record) -> list[str]:
    """What a deployment will ask a reason for: a model that nobody answers for, or without a runbook."""
    definition = source.body["definition"]
    lacking = [what for what in ("owner", "runbook") if not definition.get(what)]
    if not lacking:
        return []
    if source.kind != "run":
        advice = f"release it again with {' and '.join(f'--{what}' for what in lacking)}"
    elif "logged" in source.body:
        advice = f"log it again with {' and '.join(f'{what}=' for what in lacking)}"
    else:
        advice = f"give {' and '.join(f'{what}=' for what in lacking)} to Model('{source.name}', ...)"
    return [f"it has no {' and no '.join(lacking)}, so `deploy` asks for a --reason; else {advice}"]


def _already_released(version: Record, known: str, built: Built, live: str) -> AlreadyReleased:
    return AlreadyReleased(
        f"version {version.body['version']} of '{version.name}' is release {known}{live}; this pack is {built.id}.",
        expected="A version has one release, and evidence or environment of this pack differ from it.",
        next=f"Use {known}, or train a new version.",
    )


def _is_bundle(path: Path, *, id: str, trusted: Mapping[str, bytes]) -> bool:
    """Whether a file is the bundle of this release, whole."""
    from seatrial.releases.bundle import open_bundle

    try:
        return open_bundle(path, trusted).id == id
    except SeatrialError:
        return False


def definition_of(model: Model) -> dict[str, Any]:
    """The model's declaration as plain values, for records."""
    return {
        "task": model.task,
        "target": model.target,
        "key": list(model.key),
        "labels": model.labels.as_plain(),
        "estimator": _estimator_name(model.estimator),
        "params": {name: repr(value) for name, value in model.params.items()},
        "gates": [str(gate) for gate in model.gates],
        "waives": dict(model.waives),
        "split": {"kind": model.split.kind, "test_size": model.split.test_size, "by": model.split.by},
        "slices": list(model.slices),
        "costs": model.costs.as_plain() if model.costs else None,
        "quantile": model.quantile,
        "tune": model.tune.as_plain() if model.tune else None,
        "cv_folds": model.cv_folds,
        "seed": model.seed,
        "threads": model.threads,
        "owner": model.owner,
        "on_call": model.on_call,
        "runbook": model.runbook,
        "description": model.description,
        **({"personal": dict(model.personal)} if model.personal else {}),
    }


def _estimator_name(estimator: object) -> str:
    """An import path as it is; a class or function by its path; an instance by its class's."""
    if isinstance(estimator, str):
        return estimator
    named = estimator if hasattr(estimator, "__qualname__") else type(estimator)
    return f"{named.__module__}.{named.__qualname__}"


_KNOWN_AT_ONCE = (
    "the label source names no label_known_at, so each label counts as known at the instant of its prediction; if they "
    "come later, name the column that says when, or training looks ahead"
)


def _counting(split: dict[str, Any], left_out: Mapping[str, int]) -> dict[str, Any]:
    """The counts of a split with the rows that were left out before the fit."""
    counts = {name: count + left_out.get(name, 0) for name, count in split["rows"].items()}
    return split | {"rows": counts | {"given": counts["given"] + sum(left_out.values())}}


def _parquet(table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data
