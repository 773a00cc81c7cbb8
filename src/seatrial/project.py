"""The project: one folder, its stores, and every verb.

Here, with what it is built on in `verbs`, is the only place where parts are wired together: `building` goes from data
to traffic, `watching` from the log to alerts, `challenging` from a reason to retrain to a challenger that was compared.
Traffic itself stands in this file: batch and stream, approval, deployment, rollout, promotion and roll-back.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from seatrial.core.clock import from_us, iso, monotonic
from seatrial.core.errors import SeatrialError, Unavailable, UsageError, listed
from seatrial.core.records import Record
from seatrial.core.windows import DAY_US, Window
from seatrial.scheduling.by_hand import measured, trains
from seatrial.verbs.results import Deployed, Progress, Retrained, RolledBack, Scored
from seatrial.verbs.scheduled import Scheduled

if TYPE_CHECKING:
    from seatrial.core.signature import Signature
    from seatrial.deployment.definition import Deployment
    from seatrial.deployment.deploy import Deployed as Decided
    from seatrial.deployment.requests import RequestChange
    from seatrial.export.kubernetes import Manifests
    from seatrial.export.prometheus import Promised
    from seatrial.features.skew import SkewReport
    from seatrial.governance.explain import Explained
    from seatrial.governance.review import Reviewed
    from seatrial.retraining.approval import Approval, Decision
    from seatrial.retraining.proposal import Proposal
    from seatrial.serving.doors.stream import StreamAnswered
    from seatrial.stores.metadata import MetadataStore
    from seatrial.verbs.batches import BatchScored
    from seatrial.verbs.reproduce import Reproduced, Verdict
    from seatrial.verbs.rolling import Evidence, Moved, RolloutShown
    from seatrial.verbs.runs import Compared
    from seatrial.verbs.tracking import Tracked

UNPROMOTABLE = ("live", "rejected", "gates refused", "rolled back")
ROLLBACK_BUSY_SECONDS = 0.3
"""How long a roll-back waits for the metadata store before it is made without it."""


class RollbacksNotTold(UserWarning):
    """This host was rolled back without the metadata store, which cannot be told of it yet."""


def _exported(form: str, reason: str) -> dict[str, str]:
    return {"form": form} | ({"reason": reason} if reason else {})


class Project(Scheduled):
    """A folder with a project file, opened: every verb. See `Workspace` for the arguments."""

    @staticmethod
    def init(folder: str | Path, template: str = "empty") -> Project:
        """Write a new project's files into `folder`, overwriting none, and open it. template: "empty" or "flights"."""
        from seatrial.folder.scaffold import init

        init(Path(folder), template)
        return Project(folder)

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, name: str, *, notebook: str | Path | None = None) -> Tracked:
        """Track numbers alone: `with project.run("x") as r: r.log(loss=0.3)`. See `tracking.Tracked`."""
        from seatrial.verbs.tracking import Tracked, origin_of

        self.found()
        return Tracked(self, name, origin_of(sys._getframe(1).f_globals, notebook), self._start_mirror)

    @cached_property
    def metadata(self) -> MetadataStore:
        """See `Workspace`. It is told first of roll-backs of this host that were made without it."""
        self._tell_of_rollbacks()
        return super().metadata

    def _tell_of_rollbacks(self) -> None:
        from seatrial.deployment.emergency import journalled, settle
        from seatrial.retraining.proposal import settle_all
        from seatrial.stores.metadata import MetadataStore

        waiting = journalled(self.routes)
        if not waiting:
            return
        sign, verify = self.signer
        path = self.sqlite_path("metadata")
        why = f"the metadata store {path.name} is not there, or empty."
        try:
            if path.exists() and path.stat().st_size:
                with closing(MetadataStore(path, busy_seconds=ROLLBACK_BUSY_SECONDS, make=False)) as metadata:
                    settle(metadata, self.routes, sign=sign, verify=verify)
                    settle_all(metadata, actor=self.actor, at_us=self.now_us)
                return
        except (SeatrialError, OSError) as error:
            why = error.found if isinstance(error, SeatrialError) else str(error)
        names = listed([f"'{name}'" for name in waiting])
        warnings.warn(
            f"{names} was rolled back on this host, and the metadata store has not been told: {why} Until it is, what "
            "is said of it here is what was live before.",
            RollbacksNotTold,
            stacklevel=3,
        )

    # -- history in batch

    @measured(lambda _: "batch", rows=lambda done: done.predictions)
    def predict_batch(
        self,
        model: str | None,
        window: Window,
        *,
        release: str | None = None,
        to: str | Path | Sequence[str | Path] = (),
        keep: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> Scored:
        """Score the label rows predicted in `window` from the features as of each row's instant, and log them.

        release: default the live one. The log then holds what the service would have answered, marked as batch. Rows
        that this release answered already at the same instant are scored, but not logged again.
        to, keep: outputs that take the answers as well, as for `predict_files`; a window is one batch.
        """
        import pyarrow as pa

        from seatrial.features import training_set
        from seatrial.serving.batch import table
        from seatrial.verbs.batches import score_window
        from seatrial.verbs.history import business_keys, labels_known, measured, times_us

        deployment = self._deployment(model)
        declared = self._trained_here(deployment.model, "where its history is")
        chosen = self._live_release(deployment.name) if release is None else self.chosen_release(declared.name, release)
        started = monotonic()
        bundle = self._bundle(chosen)
        rows, _, _, _ = self._inputs.rows(declared, window=window, progress=progress)
        scores = table.score(bundle, rows, threads=declared.threads)
        ids = business_keys(self.without_persons(declared, rows), declared)
        at_us = times_us(rows, training_set.AT).tolist()
        at = 0.5 if bundle.manifest.threshold is None else bundle.manifest.threshold
        known, classes = labels_known(rows, self.now_us), bundle.manifest.signature.classes
        labelled, metrics = measured(declared, rows.filter(pa.array(known)), scores[known], classes, threshold=at)
        answered = self._answered(declared.name, window, chosen.id)
        new = [place for place, asked in enumerate(zip(ids, at_us, strict=True)) if asked not in answered]
        kept = table.keep(
            self.log,
            bundle,
            rows.take(pa.array(new, pa.int64())),
            scores[new],
            at_us=[at_us[place] for place in new],
            request_ids=[ids[place] for place in new],
            deployment=deployment.name,
            caller=self.actor,
        )
        self.log.rotate()
        self._compact_log()
        outputs = [to] if isinstance(to, str | Path) else list(to)
        put: BatchScored | None = None
        if outputs:
            put = score_window(self, self._inputs, declared, chosen, bundle, rows, window, to=outputs, keep=keep)
        return Scored(
            model=declared.name,
            window=str(window),
            release=chosen.id,
            predictions=len(ids),
            logged=kept,
            labelled=labelled,
            metrics=metrics,
            seconds=round(monotonic() - started, 3),
            to=put.to if put else [],
            batch=put.batch if put else None,
        )

    @measured(lambda _: "batch", rows=lambda done: done.scored)
    def predict_files(
        self,
        model: str | None,
        rows: str | Path,
        *,
        to: str | Path | Sequence[str | Path],
        release: str | None = None,
        keep: Sequence[str] | None = None,
        set_aside: str | Path | None = None,
        by_day: str = "",
        workers: int | None = None,
        log: bool = False,
        progress: Progress | None = None,
    ) -> BatchScored:
        """Score Parquet files by all cores, in bounded memory, and put the answers into one output or several.

        rows: a file, or a folder of them. Columns that it has are taken as they are; views that it lacks are joined as
        of each row's instant (the label source's event_timestamp, or `at`), and functions computed.
        to: see `serving.batch.sinks.open_sink`, or "online"; relative paths start at the working directory. release:
        default the live one. keep: the columns beside the answers; default the model's key and instant, or all when the
        rows lack the key; ["all"], ["none"]. set_aside: a Parquet file for rows without an answer, with reasons;
        without it such rows are refused. by_day: the column of times by whose day a folder or Delta table is divided.
        workers: processes; default one for each core. log: keep each row in the prediction log.

        A call that was killed is taken up by the next of the same arguments. Nothing is written before all is scored.
        """
        from seatrial.verbs.batches import score_files

        deployment = self._deployment(model)
        declared = self._model(deployment.model)
        chosen = self._live_release(deployment.name) if release is None else self.chosen_release(declared.name, release)
        done = score_files(
            self,
            self._inputs,
            declared,
            chosen,
            self._bundle(chosen),
            rows,
            to=[to] if isinstance(to, str | Path) else list(to),
            keep=keep,
            set_aside=set_aside,
            by_day=by_day,
            workers=workers,
            logged=deployment.name if log else "",
            progress=progress,
        )
        if log:
            self._compact_log()
        return done

    def predict_stream(
        self,
        model: str | None,
        address: str,
        *,
        to: str,
        group: str = "seatrial",
        until_empty: bool = False,
        stopped: Callable[[], bool] = lambda: False,
        tell: Callable[[StreamAnswered], None] | None = None,
    ) -> StreamAnswered:
        """Answer the requests of a stream into another, until `stopped` or until it is empty; each is logged.

        address, to: redis://HOST:PORT/DB/STREAM or kafka://HOST:PORT/TOPIC; see `stores.streams.open_stream`. An entry
        holds a body as POST /predict takes it (Redis: in its field `request`, or the fields alone in `row`). group:
        consumers of one group share the requests. What cannot be answered goes to STREAM:refused, or TOPIC.refused,
        with the reason. tell: called after each lot, and while something that does not answer is waited for; for a
        minute at most when it is to go on until the stream is empty.
        """
        from seatrial.deployment.deploy import nothing_deployed
        from seatrial.serving.doors.stream import Answering, answer_stream
        from seatrial.stores.streams import open_answers, open_stream
        from seatrial.verbs.preparing import PATIENCE

        name = self._deployment(model).name
        if name not in self.routes.names():
            raise nothing_deployed(name)
        service = self._service(replay=False, only=[name])
        try:
            with closing(open_answers(to)) as answers, closing(open_stream(address, group=group)) as stream:
                answering = Answering(service, name, self.log, name=f"{stream.name}\n{group}", caller=self.actor)
                return answer_stream(
                    stream,
                    answers,
                    answering,
                    until_empty=until_empty,
                    stopped=stopped,
                    tell=tell,
                    patience_seconds=PATIENCE if until_empty else None,
                )
        finally:
            service.close()

    def _answered(self, model: str, window: Window, release: str) -> set[tuple[str, int]]:
        """The requests of the window that a release has answered: (request_id, instant)."""
        from seatrial.verbs.history import times_us

        rows = self.log.rows(model=model, window=window, release=release, columns=["request_id", "at", "release"])
        return set(zip(rows["request_id"].to_pylist(), times_us(rows, "at").tolist(), strict=True))

    def _live_release(self, deployment: str) -> Record:
        from seatrial.deployment.deploy import live, nothing_deployed

        now = live(self.metadata, deployment)
        if now is None:
            raise nothing_deployed(deployment)
        return self.record(now.record.inputs[0])

    # -- the same again

    def reproduce(
        self,
        name: str,
        *,
        current: bool = False,
        rebuild_env: bool = False,
        allow: Sequence[Verdict] = (),
        progress: Progress | None = None,
    ) -> Reproduced:
        """Train a run again from what was recorded, and judge what comes out; no version is made.

        name: a run's or a release's id or the start of it, a model (its newest version), `model@alias` or `model:3`.
        current: train from the project's sources and definitions as they are now instead, to see what they change.
        rebuild_env: in a clean environment with exactly the packages that the run recorded, which are installed.
        allow: verdicts that count as reproduced beside "identical" and "equivalent".
        Raises SnapshotMissing, SnapshotDamaged, DefinitionsDamaged and NotReproducible, and trains nothing.
        """
        from seatrial.verbs.reproduce import in_rebuilt_environment, reproduce

        if current and rebuild_env:
            raise UsageError(
                "the project as it is now has no recorded packages.",
                expected="Either current or rebuild_env.",
                state="Nothing was trained.",
            )
        if rebuild_env:
            return in_rebuilt_environment(self, name, allow=allow, progress=progress)
        return reproduce(self, self._inputs, name, current=current, allow=allow, progress=progress)

    def export_docker(
        self, release: str | None, folder: str | Path, *, training: bool = False, reason: str = ""
    ) -> list[str]:
        """Write a folder from which Docker builds a server for one release; the names of the files.

        release: of a model alone it is the live one, else the newest that may go live.
        training: an image instead that trains the run of a release (or a run, as `reproduce` takes it) again.
        reason: needed for a release that nobody approved where policy asks for that, or that was rolled back.
        Raises NotForExport.
        """
        from seatrial.export.docker import export
        from seatrial.verbs.exporting import exported_release
        from seatrial.verbs.training_image import training_image

        if training:
            return training_image(self, release or self._model(None).name, Path(folder))
        chosen = exported_release(self, release, reason=reason)
        target = Path(folder)
        written = export(self.objects.path(chosen.body["object"]), target, trusted=self.trusted)
        with self.metadata.transaction() as transaction:
            self.event(transaction, "release.exported", chosen.id, _exported("docker", reason))
        return written

    def export_kubernetes(
        self,
        release: str | None,
        folder: str | Path,
        *,
        image: str,
        slot: Literal["blue", "green"] | None = None,
        kserve: bool = False,
        reason: str = "",
    ) -> Manifests:
        """Write the manifests with which Kubernetes runs the image of one release (see `export_docker`).

        release, reason: as of `export_docker`.
        image: its name with a tag or, better, a digest. slot: one of two Deployments beside each other, for blue-green.
        kserve: KServe's InferenceService instead.
        """
        from seatrial.export.kubernetes import export
        from seatrial.releases.bundle import open_bundle
        from seatrial.verbs.exporting import exported_release, told_of

        chosen = exported_release(self, release, reason=reason)
        bundle = open_bundle(self.objects.path(chosen.body["object"]), self.trusted)
        written = export(bundle, Path(folder), image=image, slot=slot, kserve=kserve, project=self.name)
        with self.metadata.transaction() as transaction:
            self.event(transaction, "release.exported", chosen.id, _exported("kubernetes", reason) | {"image": image})
        return msgspec.structs.replace(written, told=told_of(self, chosen))

    def export_prometheus(self, folder: str | Path) -> list[str]:
        """Write recording and alert rules for every deployment, and a test of them; the names of the files.

        Alerts tell when a deployment uses up the error budget of its objective too fast, see `Deployment`; where the
        gauges of monitoring are written, also when nothing watches any more.
        """
        from seatrial.export.prometheus import export

        return export(self._promised(), Path(folder), watched=bool(self.settings.alerts.textfile))

    def export_grafana(self, folder: str | Path) -> list[str]:
        """Write a dashboard for every deployment, over the rules of `export_prometheus`; the names of the files."""
        from seatrial.export.grafana import export

        return export(self._promised(), Path(folder))

    def _promised(self) -> list[Promised]:
        from seatrial.verbs.promised import promised

        return promised(self._models(), self.definitions.deployments, self.routes.names())

    def run_compare(
        self, a: str | None = None, b: str | None = None, *, model: str | None = None, base: str | None = None
    ) -> Compared:
        """What is different in run `b`: metrics, gates, data, code, parameters, environment.

        a, b: runs or releases, as `reproduce` takes them; without them the two newest of the model. base: a git
        branch: then `a` is the newest run that was trained from a commit of it, and `b` the newest of all.
        Raises NoBaseRun.
        """
        from seatrial.verbs.reproduce import chosen
        from seatrial.verbs.runs import base_run, compare, newest_runs

        if base is not None:
            given = b or a
            run = chosen(self, given)[0] if given else newest_runs(self, model, 1)[0]
            return compare(self, base_run(self, run, base), run, base=base)
        if a is None:
            return compare(self, *newest_runs(self, model, 2))
        first = chosen(self, a)[0]
        if b is None:
            newest = newest_runs(self, first.name, 2)
            return compare(self, first, next(one for one in reversed(newest) if one.id != first.id))
        return compare(self, first, chosen(self, b)[0])

    def run_page(self, id: str) -> str:
        """One run as a page of HTML that needs nothing else."""
        from seatrial.verbs.run_page import html

        run = self.resolved(id, "run")
        version = self.registry.version_of(run.id)
        again = [event.body for event in self.metadata.events(subject=run.id, kind="run.reproduced")]
        shown = self.run_show(run.id)
        return html(shown, version=int(version.body["version"]) if version else None, reproduced=again)

    def run_extract(self, name: str, folder: str | Path) -> list[str]:
        """Write a project that trains a run again: its definitions over the rows that it read. The files' names."""
        from seatrial.verbs.reproduce import chosen
        from seatrial.verbs.runs import extract

        return extract(self, chosen(self, name)[0], Path(folder))

    # -- decisions

    def approve(self, name: str | None = None, *, reason: str, seen: str | None = None) -> Approval:
        """Say yes to a release going live. See `retraining.approval` for what it binds and when it is refused.

        name: a release (its id, or what `deploy` takes), a deployment (for its model's newest release), or a
        proposal's id. seen: the comparison that was looked at.
        """
        return self._decide("approved", name, reason, seen)

    def reject(self, name: str | None = None, *, reason: str) -> Approval:
        """Say no to a release; a proposal of it is ended.

        name: as for `approve`. A proposal without a challenger yet, by its id or its model's name, is ended alone: no
        release is decided on. Raises AlreadyLive for a release that is live, which is rolled back instead.
        """
        waiting = self._without_challenger(name)
        return self._end_open(waiting, reason) if waiting else self._decide("rejected", name, reason, None)

    def _without_challenger(self, name: str | None) -> Proposal | None:
        """The open proposal that a name means: nothing was trained for it yet."""
        from seatrial.retraining.proposal import newest

        if name is not None and name.startswith("prop_"):
            found: Proposal | None = self.proposal_show(name)
        else:
            declared = self.definitions.deployments.get(name or "")
            model = declared.model if declared else name
            found = newest(self.metadata, self._model(model).name) if model is None or model in self._models() else None
        return found if found is not None and found.state == "open" else None

    def _end_open(self, proposal: Proposal, reason: str) -> Approval:
        from seatrial.retraining.approval import reject_open

        self.reconcile()
        with self.metadata.transaction() as transaction:
            facts: dict[str, Any] = {"reason": reason, "actor": self.actor, "at_us": self.now_us}
            return reject_open(self.metadata, transaction, proposal, **facts)

    def _decide(self, decision: Decision, name: str | None, reason: str, seen: str | None) -> Approval:
        from seatrial.deployment.taken_back import taken_back
        from seatrial.retraining.approval import StaleEvidence, decide

        self.reconcile()
        declared = self.definitions.deployments.get(name or "")
        release, proposal = self._decided_on(declared.model if declared and declared.model != name else name)
        meant = declared.name if declared else (proposal.deployment if proposal else None)
        deployment = meant or self._deployment(release.name).name
        back = taken_back(self.metadata, deployment).get(release.id)
        if decision == "approved" and back is not None and (name is None or name in self._models()):
            raise StaleEvidence(
                f"the newest release, {release.id}, was {back.words}.",
                expected="One that was rolled back is approved only by its own name.",
                state="Nothing was decided.",
                next=f'Release another one, or run `seatrial approve {release.id} --reason "..."`.',
            )
        with self.metadata.transaction() as transaction:
            return decide(
                self.metadata,
                transaction,
                decision,
                release=release,
                proposal=proposal,
                proposers=self._proposers(release, proposal),
                deployment=deployment,
                reason=reason,
                actor=self.actor,
                at_us=self.now_us,
                seen=seen,
                experiment=_experiment(self._deployment(deployment)),
            )

    @measured(lambda done: "retraining" if trains(done.words) else "look")
    def retrain(
        self, model: str | None = None, step: str = "propose", *, reason: str = "", progress: Progress | None = None
    ) -> Retrained:
        """See `Challenging.retrain`; "advance" also promotes a challenger that by its `Retrain` needs no person."""
        done = super().retrain(model, step, reason=reason, progress=progress)
        if step != "advance" or done.proposal is None or done.proposal.state not in ("better", "approved"):
            return done
        return self._without_person(done, done.proposal)

    def _without_person(self, done: Retrained, proposal: Proposal) -> Retrained:
        """Approve and promote by policy, or keep why a person is needed."""
        from seatrial.retraining.approval import approval_of, decide
        from seatrial.retraining.exemption import NEEDS_PERSON, POLICY, exemption
        from seatrial.retraining.narrowed import narrowed
        from seatrial.verbs.asked import asked_lately

        assert proposal.challenger is not None, "it was compared"
        retrain, model = self._retrain(proposal.model), self._model(proposal.model)
        if retrain.approval != POLICY:
            return done
        release, champion = self.record(proposal.challenger), self.record(proposal.champion)
        if proposal.state == "better":
            manifests = self._bundle(champion).manifest, self._bundle(release).manifest
            asked = asked_lately(self, proposal.model, proposal.deployment, narrowed(*manifests))
            found = exemption(retrain, proposal, *manifests, asked)
            if found.against:
                words = "needs a person: " + "; ".join(found.against)
                self._refused(model, "advance", NEEDS_PERSON, words, proposal.trigger, proposal.id)
                return msgspec.structs.replace(done, words=f"{done.words}; {words}")
            with self.metadata.transaction() as transaction:
                decide(
                    self.metadata,
                    transaction,
                    "approved",
                    release=release,
                    proposal=proposal,
                    proposers=self._proposers(release, proposal),
                    deployment=proposal.deployment,
                    reason=f"{found.facts['verdict']}; {found.facts['changed']} Every margin is kept.",
                    actor=self.actor,
                    at_us=self.now_us,
                    exempt=found.facts,
                )
        said = approval_of(self.metadata, proposal.deployment, proposal.challenger)
        if said is None or not said.exempt:
            return done  # a person approved it, and promotes it
        moved = self.promote(proposal.model, reason=f"by policy {POLICY}: {said.reason}")
        words = f"{done.words}; promoted by policy, {moved.share:g} % of the traffic"
        return msgspec.structs.replace(done, words=words, proposal=self.proposal_show(proposal.id))

    def _decided_on(self, name: str | None) -> tuple[Record, Proposal | None]:
        from seatrial.retraining.proposal import ENDED, NothingProposed, newest, proposals

        if name is not None and name.startswith("prop_"):
            proposal = self.proposal_show(name)
            if proposal.challenger is None:
                raise NothingProposed(f"proposal {proposal.id} has no challenger; it is {proposal.state}.")
            return self.record(proposal.challenger), proposal
        if name is None or name in self._models():
            found = newest(self.metadata, self._model(name).name)
            if found is not None and found.challenger is not None and found.state not in ENDED:
                return self.record(found.challenger), found
        release = self.chosen_release(None, name)
        of_it = [one for one in proposals(self.metadata, release.name) if one.challenger == release.id]
        return release, of_it[-1] if of_it else None

    def _proposers(self, release: Record, proposal: Proposal | None) -> list[str]:
        packed = [event.actor for event in self.metadata.events(subject=release.id, kind="release.packed")]
        return [*packed, *(proposal.proposers if proposal else [])]

    def deploy(
        self,
        model: str | None = None,
        *,
        release: str | None = None,
        reason: str = "",
        expected: int | None = None,
        at_once: bool = False,
    ) -> Deployed:
        """Give a deployment's traffic to a release (default: the model's newest), in steps where it is so declared.

        model: the deployment's name. release: an id or its start, or what `release` takes as a name.
        reason: why, in words; needed for a model without owner or runbook, and with `at_once`.
        expected: the generation that the caller saw; raises HeadMoved when somebody deployed since.
        at_once: all of the traffic, whatever the strategy. Raises RolloutUnderWay in the middle of a rollout.
        Raises NotApproved unless a second person approved the release, it was live here before, or policy asks for
        no approval. Raises WasTakenBack for one that was rolled back from it, unless it is named and has a reason.
        """
        from seatrial.deployment.deploy import live
        from seatrial.deployment.rollout import check_not_in_future, rollout_of
        from seatrial.deployment.taken_back import check_not_taken_back, taken_back
        from seatrial.retraining.approval import approval_of, require
        from seatrial.retraining.proposal import newest

        self.reconcile()  # a roll-back that was made without the metadata store comes first
        check_not_in_future(self.now_us)
        deployment = self._deployment(model)
        chosen = self.chosen_release(deployment.model, release)
        now = live(self.metadata, deployment.name)
        if expected is None:
            expected = now.head.generation if now else 0  # what is checked here is what is replaced below
        if now is None or now.record.inputs != (chosen.id,):
            back = taken_back(self.metadata, deployment.name).get(chosen.id)
            check_not_taken_back(chosen.id, back, named=release is not None, reason=reason)
        rollout = rollout_of(now)
        follows = expected  # the generation that an approval must have been given for
        if now is not None and rollout is not None and rollout.new == chosen.id and expected == now.head.generation:
            follows = now.record.body["replaces_generation"]  # it was approved for the rollout that is under way
        said = approval_of(self.metadata, deployment.name, chosen.id)
        returns = self._was_live(deployment.name, chosen.id) and (said is None or said.decision == "approved")
        if self.settings.policy.approval == "required" and not returns:
            proposal = newest(self.metadata, deployment.model)
            compared = proposal.comparison_id if proposal and proposal.challenger == chosen.id else None
            require(self.metadata, deployment.name, chosen.id, follows, comparison=compared)
        done = super().deploy(model, release=chosen.id, reason=reason, expected=expected, at_once=at_once)
        self._settle_proposal(deployment.model)
        return msgspec.structs.replace(done, generation=self._outdo(self.metadata, deployment.name) or done.generation)

    def _outdo(self, metadata: MetadataStore, deployment: str) -> int | None:
        """Make what was just decided the route of this host, whatever it has; see `emergency.outdo`."""
        from seatrial.deployment.emergency import outdo

        sign, verify = self.signer
        return outdo(metadata, self.routes, deployment, sign=sign, verify=verify, actor=self.actor, at_us=self.now_us)

    def promote(self, model: str | None = None, *, reason: str = "", expected: int | None = None) -> Deployed:
        """Make the approved challenger the live release. expected: the generation that the caller saw.

        Raises NotApproved, StaleEvidence, VerdictRefuses, NothingProposed, HeadMoved.
        """
        from seatrial.retraining.approval import VerdictRefuses, approval_of
        from seatrial.retraining.proposal import NothingProposed, newest

        declared = self._model(model)
        self._check_generation(self._deployment(declared.name).name, expected)
        proposal = newest(self.metadata, declared.name)
        if proposal is None or proposal.challenger is None or proposal.state in UNPROMOTABLE:
            raise NothingProposed(
                f"'{declared.name}' has no challenger to promote"
                + (f"; the newest proposal is {proposal.state}." if proposal else "."),
                state="Nothing was deployed.",
                next=f"Run `seatrial retrain {declared.name}` first.",
            )
        approval = approval_of(self.metadata, proposal.deployment, proposal.challenger)
        for_experiment = approval is not None and approval.decision == "approved" and bool(approval.experiment)
        if not for_experiment and (proposal.comparison is None or proposal.comparison.verdict != "better"):
            said = proposal.comparison.words if proposal.comparison else "it was not compared yet"
            raise VerdictRefuses(
                f"challenger {proposal.challenger} of '{declared.name}' cannot be promoted: {said}.",
                expected="Only a challenger that is shown to be better goes live.",
                state="Nothing was deployed.",
            )
        return self.deploy(proposal.deployment, release=proposal.challenger, reason=reason, expected=expected)

    def deployment_status(self, name: str | None = None) -> RolloutShown:
        """How a deployment's rollout stands: steps, wanted and observed split, and what the evidence says now."""
        from seatrial.verbs import rolling

        self._require_metadata()
        deployment = self._deployment(name)
        return rolling.show(self, deployment, self._evidence(deployment))

    def deployment_advance(self, name: str | None = None) -> Moved:
        """Judge a rollout's step; then the new release gets more of the traffic, loses it, or keeps what it has.

        Raises NoRollout, NothingDeployed, Paused, and HeadMoved when somebody else deployed meanwhile.
        """
        from seatrial.deployment.rollout import check_not_in_future
        from seatrial.stores.pauses import ROLLOUTS, paused, refuse
        from seatrial.verbs import rolling
        from seatrial.verbs.custody import follow

        self._require_metadata()
        self.reconcile()
        check_not_in_future(self.now_us)
        deployment = self._deployment(name)
        held = paused(self.metadata, [ROLLOUTS, deployment.name, deployment.model], self.now_us)
        refuse(held, f"the rollout of '{deployment.name}' is not looked at")
        moved, done = rolling.move(self, deployment, self._evidence(deployment))
        if done is not None:
            follow(self, self.metadata)
            self._settle_proposal(deployment.model)
            if moved.analysis.verdict == "roll back":
                left = self.record(done.record.body["rolled_back"])
                rolling.announce(self, moved, self.record(left.inputs[-1]))
                self._deliver()
        return moved

    def deployment_watch(
        self,
        name: str | None = None,
        *,
        every: str = "5m",
        told: Callable[[Moved | SeatrialError], None],
        wait: Callable[[float], bool],
    ) -> Moved | None:
        """`deployment_advance` again and again until the rollout is over; the last look, or None when there was none.

        every: how long between two looks. told: each look, or why there was none: a store was away, or somebody else
        decided meanwhile. wait: waits so many seconds; False when no more looks are wanted.
        Raises Watched when another process of this host does the same, BadPace, and what `deployment_advance` raises.
        """
        from seatrial.verbs import rolling

        return rolling.watch(self, self._deployment(name), self.deployment_advance, every, told, wait)

    def _evidence(self, deployment: Deployment) -> Evidence:
        from seatrial.monitoring.rows.labels import prediction_keys
        from seatrial.verbs.rolling import Evidence
        from seatrial.verbs.shadowed import ripe_since

        model = self._model(deployment.model)

        def keyed(window: Window, name: str) -> dict[str, str | None]:
            rows = self._predictions(model, window, name)
            return dict(
                zip(rows["prediction_id"].to_pylist(), prediction_keys(rows, model.key).to_pylist(), strict=True)
            )

        return Evidence(
            lambda window, name: self._sample(model, window, deployment=name),
            lambda source: self._inputs.uncut(source),
            list(model.key),
            keyed,
            lambda window, name: self._routed(model.name, deployment.route_by or "", window, name),
            lambda since_us: ripe_since(self, model, deployment.name, since_us),
        )

    def _routed(self, model: str, field: str, window: Window, deployment: str) -> dict[str, str | None]:
        """By prediction_id, the value of the field that a deployment is routed by, as text; nothing where it was not
        logged."""
        import pyarrow as pa

        from seatrial.stores.prediction_log import LogColumnMissing

        try:
            columns = ["prediction_id", f"field_{field}"]
            rows = self.log.rows(model=model, window=window, deployment=deployment, columns=columns)
        except LogColumnMissing:
            return {}
        texts = rows[columns[1]].cast(pa.string()).to_pylist()
        return dict(zip(rows["prediction_id"].to_pylist(), texts, strict=True))

    def _check_generation(self, deployment: str, expected: int | None) -> None:
        """Raise HeadMoved when somebody deployed since the caller looked, before anything else is found wrong."""
        from seatrial.deployment.deploy import live
        from seatrial.stores.metadata import HeadMoved

        now = live(self.metadata, deployment)
        generation = now.head.generation if now else 0
        if expected is not None and expected != generation:
            raise HeadMoved(
                f"somebody else changed deployment '{deployment}' first: it is at generation {generation} now"
                + (f", with release {now.record.inputs[0]}." if now else "."),
                expected=f"Generation {expected} was expected.",
                state="Nothing was deployed.",
                next=f"Look at `seatrial deployments show {deployment}`, then decide again.",
                head=now.head if now else None,
                expected_generation=expected,
            )

    def rollback(self, model: str | None = None, *, reason: str = "", expected: int | None = None) -> RolledBack:
        """Return to the release that was live before, at once.

        While the metadata store is away it is done on this host alone and told later (`deployment.emergency`).
        expected: the generation that the caller saw; raises HeadMoved when somebody deployed since.
        """
        from seatrial.deployment.deploy import roll_back
        from seatrial.deployment.emergency import JournalDamaged, JournalTooNew, roll_back_here
        from seatrial.deployment.rollout import check_not_in_future
        from seatrial.stores.metadata import MetadataDamaged, MetadataStore, MetadataUnreachable, NotMetadata
        from seatrial.verbs.custody import follow

        started = monotonic()
        check_not_in_future(self.now_us)
        name = self._deployed_name(model)
        sign, verify = self.signer
        facts = {"actor": self.actor, "at_us": self.now_us, "reason": reason}
        path = self.sqlite_path("metadata")
        settled, requests = True, None
        try:
            if self.routes.names() and not (path.exists() and path.stat().st_size):
                raise MetadataUnreachable(f"the metadata store {path.name} is not there, or empty.")
            with closing(MetadataStore(path, busy_seconds=ROLLBACK_BUSY_SECONDS)) as metadata:
                with suppress(JournalDamaged, JournalTooNew):  # an emergency does not wait for what is told later
                    self._reconcile(metadata)
                done = roll_back(metadata, self.routes, name, sign=sign, verify=verify, expected=expected, **facts)  # type: ignore[arg-type]
                route = done.route
                generation = self._outdo(metadata, name) or route.generation
                with suppress(SeatrialError):  # a name that lags behind is mended by the next `reconcile`
                    follow(self, metadata)
                    self._settle_proposal(done.record.body["model"])
                    requests = self._changed_back(metadata, done)
        except (Unavailable, MetadataDamaged, MetadataUnreachable, NotMetadata):
            route = roll_back_here(self.routes, name, sign=sign, verify=verify, expected=expected, **facts)  # type: ignore[arg-type]
            generation = route.generation
            settled = False
        return RolledBack(
            deployment=name,
            generation=generation,
            live=route.arms[0].release,
            settled=settled,
            seconds=round(monotonic() - started, 3),
            requests=requests,
        )

    def _changed_back(self, metadata: MetadataStore, done: Decided) -> RequestChange | None:
        """What is different for callers after a roll-back; None: nothing."""
        from seatrial.deployment.requests import change

        left = metadata.record(done.record.body["rolled_back"])
        lost = metadata.record(left.inputs[-1]) if left else None
        live = metadata.record(done.record.inputs[0])
        found = change(lost, live) if lost and live else None
        return found if found and found.words else None

    def _deployed_name(self, model: str | None) -> str:
        """The deployment meant, from the route files alone when there is no doubt: an emergency reads no project."""
        names = self.routes.names()
        if model in names:
            return str(model)
        if model is None and len(names) == 1:
            return names[0]
        return self._deployment(model).name

    # -- looking closely

    def explain(self, id: str, *, progress: Progress | None = None) -> Explained:
        """One prediction, by its id or its request's: inputs as served and recomputed, replays, approvals, lineage."""
        from seatrial.governance.explain import Explained, inputs_of, replay
        from seatrial.verbs.predictions import looked_up

        found = looked_up(self, id, by="explain")
        lineage = self._lineage_of(id, found)
        if not found:
            raise UsageError(f"'{id}' is no prediction.", expected="A prediction's or a request's id is expected.")
        row = found[0]
        release = self.record(row["release"])
        bundle = self._bundle(release)
        manifest = bundle.manifest
        logged = row["probability"] if row["probability"] is not None else row["prediction"]
        recomputed, note = self._recomputed(manifest.model, row, manifest.signature, progress)
        personal = manifest.signature.personal
        logged_whole = {name: value for name, value in row.items() if name.partition("_")[2] not in personal}
        inputs = inputs_of(row, manifest.signature.inputs, recomputed)
        replays = [replay("answered", bundle, logged_whole, logged)]
        before = self._release_before(row["deployment"], release.id)
        if before is not None:
            replays.append(replay("live before", self._bundle(before), logged_whole, logged))
        return Explained(
            prediction_id=row["prediction_id"],
            request_id=row["request_id"],
            model=row["model"],
            version=row["version"],
            release=release.id,
            at=iso(row["at"]),
            caller=row["caller"],
            score=logged,
            latency_ms=row["latency_ms"],
            degraded=list(row["degraded"] or ()),
            label=self._label_of(row),
            inputs=inputs,
            different=sum(not one.equal for one in inputs),
            replays=replays,
            approvals=[
                event.body | {"actor": event.actor, "asserted": event.asserted, "at": iso(from_us(event.at_us))}
                for event in self.metadata.events(subject=release.id)
                if event.kind in ("release.approved", "release.rejected")
            ],
            lineage=lineage,
            note=note,
            others=[one["prediction_id"] for one in found[1:]],
        )

    def _recomputed(
        self, model: str, row: dict[str, Any], signature: Signature, progress: Progress | None
    ) -> tuple[dict[str, Any] | None, str]:
        """The model's inputs for a logged row, joined as of its instant from the tables as they are now."""
        import pyarrow as pa

        from seatrial.features import training_set
        from seatrial.features.plan import make_plan

        hidden = sorted(set(signature.personal) & {*signature.request_names, *signature.inputs})
        if hidden:
            return None, f"nothing was recomputed: {listed(hidden)} is personal, and not logged as it came"
        declared = self.definitions.models.get(model)
        if declared is None:
            return None, f"the project no longer defines model '{model}', so nothing was recomputed"
        plan = make_plan(declared.features, self.definitions.views)
        if not set(signature.inputs) <= {*plan.feature_columns, *signature.request_names}:
            return None, "the project's features are no longer those of this release, so nothing was recomputed"
        fields = {name: [row.get(f"field_{name}")] for name in signature.request_names}
        table = pa.table({training_set.AT: pa.array([row["at"]], pa.timestamp("us", tz="UTC")), **fields})
        views = {view.name: self.definitions.views[view.name] for view in plan.views}
        try:
            tables, _ = self._inputs.tables([view.source for view in views.values()], progress)
        except SeatrialError as error:
            return None, f"nothing was recomputed: {error.found}"
        events = {name: tables[view.source.name] for name, view in views.items()}
        joined = training_set.build(table, plan, views, events, threads=self.settings.threads)
        return {name: joined[name][0].as_py() for name in signature.inputs}, ""

    def feature_verify(
        self,
        model: str | None = None,
        *,
        window: Window | None = None,
        sample: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> SkewReport:
        """Whether the features that predictions were made from are what the offline join says for the same instants.

        window: of the predictions' instants; default: the last 7 days. sample: so many of them, the same ones for the
        same seed. Predictions of a batch are left out: they were joined offline. Each release is followed by the plan
        that it froze, over its sources as they are now. Changes nothing.
        """
        from seatrial.verbs.feature_quality import verify

        declared = self.definitions.model(model)
        if sample is not None and sample < 1:
            raise UsageError(f"a sample of {sample} predictions is asked for.", expected="At least 1 is expected.")
        chosen = window or Window(max(self.now_us - 7 * DAY_US, 0), self.now_us)
        self._compact_log()
        return verify(self, self._inputs, declared, chosen, sample=sample, seed=seed, progress=progress)

    def _label_of(self, row: dict[str, Any]) -> dict[str, Any] | None:
        declared = self._models().get(row["model"])
        if declared is None:
            return None
        at_us = int(row["at"].timestamp() * 1_000_000)
        sample = self._sample(declared, Window(at_us, at_us + 1))
        label = "label_class" if declared.task == "multiclass" else "label"
        for one in sample.rows.select(["prediction_id", label, "label_known_at"]).to_pylist():
            if one["prediction_id"] == row["prediction_id"] and one[label] is not None:
                return {"label": one[label], "known_at": iso(one["label_known_at"])}
        return None

    def _release_before(self, deployment: str, release: str) -> Record | None:
        """The release that was live in the deployment before `release` first was."""
        before: Record | None = None
        for record in self.metadata.records("deployment", deployment):
            if release in record.inputs:
                break
            before = self.record(record.inputs[0])
        return before

    def _taken_back_lately(self, model: str, days: int) -> str:
        """The newest roll-back of so many days, in words; empty when there was none."""
        after = iso(from_us(self.now_us - days * 86_400_000_000))
        back = {id: one for id, one in self._taken_back(model).items() if one.at >= after}
        return max(((one.at, f"{id} was {one.words}") for id, one in back.items()), default=("", ""))[1]

    def review(self) -> list[Reviewed]:
        """Each model's red flags, with evidence and the next single step."""
        from seatrial.deployment.deploy import live
        from seatrial.governance.review import TAKEN_BACK_DAYS, Facts, review
        from seatrial.retraining.approval import approval_of
        from seatrial.verbs.external import adopted_models

        reviewed = []
        for model in self._models().values():
            deployed = [now for now in (live(self.metadata, one) for one in self._deployments_of(model.name)) if now]
            now = deployed[0] if deployed else None
            release = self.record(now.record.inputs[0]) if now else None
            runs = [record for record in self.metadata.records("run", model.name) if "sample" not in record.body]
            newest = runs[-1] if runs else adopted_models(self.metadata).get(model.name)
            run = self.record(release.inputs[1]) if release else newest
            reports = self.metadata.records("report", model.name, newest=1)
            approval = approval_of(self.metadata, now.head.name, release.id) if now and release else None
            watched = self._sample(model, None)
            alerts = self.alerts(model.name)
            facts = Facts(
                model=model.name,
                owner=model.owner,
                on_call=model.on_call,
                runbook=model.runbook,
                live=str(release.body["version"]) if release else None,
                live_release=release.id if release else None,
                declared_monitor=model.name in self.definitions.monitors,
                monitored_at=reports[-1].body["as_of"] if reports else None,
                predictions=watched.rows.num_rows,
                labels=watched.labels.matched,
                run=run.body if run else None,
                approved_by=approval.actor if approval and approval.decision == "approved" else None,
                open_alerts=len(alerts),
                severities=Counter(alert.severity for alert in alerts),
                retrain_declared=model.name in self.definitions.retrains,
                reachable=self._is_reachable(model.on_call),
                taken_back=self._taken_back_lately(model.name, TAKEN_BACK_DAYS),
            )
            reviewed.append(review(facts))
        return reviewed


def _experiment(deployment: Deployment) -> str:
    """The A/B test or shadow in which a deployment's rollouts show which release is better, in words; else empty."""
    from seatrial.deployment.definition import ABTest, Shadow

    strategy = deployment.strategy
    if not isinstance(strategy, ABTest | Shadow):
        return ""
    name = strategy.decide if isinstance(strategy.decide, str) else strategy.decide.name
    return f"{strategy.kind} of '{deployment.name}', decided by {name}"
