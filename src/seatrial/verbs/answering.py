"""Answering: from a release to a prediction. Deploy, serve, predict, replay."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import MachineClock, as_utc, iso, machine_us, monotonic
from seatrial.core.errors import SeatrialError, Unavailable, UsageError, did_you_mean, listed
from seatrial.core.records import Record
from seatrial.core.windows import Window
from seatrial.folder.loading import pick
from seatrial.folder.workspace import SERVING_WAITS, STATE
from seatrial.verbs.building import Building
from seatrial.verbs.results import Deployed, Progress, Replayed

if TYPE_CHECKING:
    from seatrial.deployment.definition import Deployment
    from seatrial.deployment.requests import RequestChange
    from seatrial.folder.doctor import Check
    from seatrial.serving.place import Place
    from seatrial.serving.scoring.predictor import Answer, Draft
    from seatrial.serving.service import Service
    from seatrial.stores.metadata import MetadataStore


class PredictionRefused(UsageError):
    """A row could not be predicted. facts: `problem`, the problem document."""

    code = "project.prediction_refused"


class PredictionUnavailable(Unavailable):
    """A row could not be predicted, by no fault of the row. facts: `problem`, the problem document."""

    code = "project.prediction_unavailable"


class RoutesNotReconciled(UserWarning):
    """Whether the route files say what was decided last could not be looked up; they are served as they are."""


class Answering(Building):
    """The verbs from a release to a prediction."""

    def deploy(
        self,
        model: str | None = None,
        *,
        release: str | None = None,
        reason: str = "",
        expected: int | None = None,
        at_once: bool = False,
    ) -> Deployed:
        """Give a deployment's traffic to a release (default: the model's newest). When it has it, nothing is written.

        model: the deployment's name. release: an id or its start, or what `release` takes as a name.
        reason: why, in words; needed for a model without owner or runbook, and with `at_once`.
        expected: the generation that the caller saw; raises HeadMoved when somebody deployed since.
        at_once: all of the traffic, whatever the strategy. Raises RolloutUnderWay, NoReason.
        """
        from seatrial.deployment.deploy import Traffic, deploy, live
        from seatrial.deployment.requests import RequestChange, change, check_callers
        from seatrial.deployment.rollout import Decider, begin, check_alone, check_shadow, first_step, is_other
        from seatrial.governance.audit import anchor
        from seatrial.verbs.custody import follow

        deployment = self._deployment(model)
        chosen = self.chosen_release(deployment.model, release)
        self._check_servable(chosen, deployment)
        before = live(self.metadata, deployment.name)
        if expected is None:
            expected = before.head.generation if before else 0
        if before is not None and expected == before.head.generation and _is_live(before.record, chosen, deployment):
            self.reconcile()
            return Deployed(
                deployment=deployment.name,
                generation=expected,
                live=chosen.id,
                version=str(chosen.body["version"]),
                previous=chosen.id,
                strategy=deployment.strategy.kind,
                audit=anchor(self.metadata),
                changed=False,
                refused=self._refused_run(deployment.model),
            )
        check_alone(deployment.name, before, at_once=at_once, reason=reason)
        changed = change(self.record(before.record.inputs[0]), chosen) if before else RequestChange()
        if deployment.strategy.kind != "shadow" or at_once:
            check_callers(deployment.name, chosen, self._felt(deployment, changed), reason=reason)
        sign, verify = self.signer
        if before is not None and not at_once and deployment.strategy.kind != "blue_green" and is_other(before, chosen):
            if deployment.strategy.kind == "shadow":
                check_shadow(chosen)
            decider = Decider(self.metadata, self.routes, sign, verify, self.actor, self.now_us)
            old = self.record(before.record.inputs[0])
            done = begin(decider, deployment, old, chosen, expected=expected, reason=reason)
        else:
            done = deploy(
                self.metadata,
                self.routes,
                deployment,
                [Traffic(chosen, chosen.body["object"])],
                sign=sign,
                verify=verify,
                actor=self.actor,
                at_us=self.now_us,
                expected=expected,
                reason=reason,
            )
        follow(self, self.metadata)
        self._start_mirror()
        return Deployed(
            deployment=deployment.name,
            generation=done.head.generation,
            live=chosen.id,
            version=str(chosen.body["version"]),
            previous=before.record.inputs[0] if before else None,
            strategy=deployment.strategy.kind,
            audit=anchor(self.metadata),
            requests=changed if changed.words else None,
            **first_step(deployment, done),
        )

    def _refused_run(self, model: str) -> str | None:
        """The newest run of a model when it became no version: its gates said no, or it failed."""
        runs = [record for record in self.metadata.records("run", model) if "sample" not in record.body]
        return runs[-1].id if runs and not runs[-1].body["passed"] else None

    def _felt(self, deployment: Deployment, changed: RequestChange) -> RequestChange:
        """The change without what no caller feels: fields that may be null no more, and lately were not."""
        from seatrial.verbs.asked import asked_lately

        asked = asked_lately(self, deployment.model, deployment.name, changed.not_null)
        return msgspec.structs.replace(changed, not_null=[one for one in changed.not_null if asked.against([one])])

    def _check_servable(self, release: Record, deployment: Deployment) -> None:
        """Raise unless the release's bundle is whole and trusted, replays, and has what the deployment splits by."""
        from seatrial.releases.bundle import open_bundle
        from seatrial.releases.golden import replay
        from seatrial.serving.scoring.defaults import check_defaults

        bundle = open_bundle(self.objects.path(release.body["object"]), self.trusted)
        replay(bundle, bundle.runtime())
        names = bundle.manifest.signature.request_names
        if deployment.route_by is not None and deployment.route_by not in names:
            raise UsageError(
                f"deployment '{deployment.name}' splits by '{deployment.route_by}', which is no field of a request.",
                expected=f"Requests have {listed(names)}. {did_you_mean(deployment.route_by, names)}".strip(),
                state="Nothing was deployed.",
            )
        check_defaults(deployment.name, deployment.defaults, [(bundle.manifest.plan, bundle.manifest.signature)])

    def serve(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        replay: bool = False,
        workers: int = 1,
        memory_budget: str | None = None,
        on_ready: Callable[[str], None] | None = None,
    ) -> None:
        """Answer predictions over HTTP until SIGTERM or SIGINT. replay: requests may carry their own `at`.

        workers: processes, 0 for one on each core that there is for them; more than one are forked, so call it from the
        main thread of a process without others.
        memory_budget: what loaded models may take in all workers together, for example "512MiB"; what was asked least
        recently is let go and loaded again when it is asked.
        """
        from seatrial.serving.scoring.on_demand import parse_memory
        from seatrial.serving.workers.cores import cores
        from seatrial.serving.workers.supervisor import serve

        workers = workers or cores()
        budget = None if memory_budget is None else parse_memory(memory_budget) // workers
        self._reconcile_or_warn()
        make = partial(self._service, replay=replay, memory_budget=budget)
        with self.keeping_log():
            serve(make, workers=workers, host=host, port=port, started=on_ready or _nobody)

    def reconcile(self) -> list[str]:
        """Bring metadata and route files together: roll-backs that were made while the metadata store was away are
        told, then every route file that is behind its decision is written. Returns the deployments of the latter."""
        return self._reconcile(self.metadata)

    def _reconcile(self, metadata: MetadataStore) -> list[str]:
        from seatrial.deployment.deploy import reconcile
        from seatrial.deployment.emergency import settle
        from seatrial.verbs.custody import follow

        sign, verify = self.signer
        if settle(metadata, self.routes, sign=sign, verify=verify):
            from seatrial.retraining.proposal import settle_all

            follow(self, metadata)
            settle_all(metadata, actor=self.actor, at_us=self.now_us)
        return reconcile(metadata, self.routes, sign=sign, verify=verify)

    def _reconcile_or_warn(self) -> None:
        """`reconcile` for those who answer requests: they need the route files only, and wait for no metadata."""
        from seatrial.stores.metadata import MetadataStore

        path = self.sqlite_path("metadata")
        if not path.exists():
            return
        try:
            with closing(MetadataStore(path, busy_seconds=SERVING_WAITS)) as metadata:
                self._reconcile(metadata)
        except (SeatrialError, OSError) as error:
            why = error.found if isinstance(error, SeatrialError) else str(error)
            warnings.warn(
                f"{why} The route files are served as they are; a decision that was kept but not yet told to serving "
                "waits until the metadata store answers again.",
                RoutesNotReconciled,
                stacklevel=3,
            )

    def predict(
        self,
        model: str | None,
        rows: Sequence[Mapping[str, Any]],
        *,
        at: datetime | None = None,
        url: str | None = None,
        request_ids: Sequence[str | None] = (),
        return_features: bool = False,
    ) -> list[dict[str, Any]]:
        """Predict rows of request fields, in this process or through the service at `url`; logged either way.

        at: the instant as of which features are looked up (default: now); through a service only if it replays.
        request_ids: the caller's own id of each row, or none at all. return_features: answer with the model's inputs
        and the state of every view, too.
        """
        from seatrial.deployment.deploy import nothing_deployed
        from seatrial.serving.clients.client import Client

        name = self._deployment(model).name
        asked = list(zip(map(_with_floats, rows), request_ids or [None] * len(rows), strict=True))
        if url is not None:
            with Client(url, caller=self.actor) as client:
                return [
                    client.predict(row, model=name, request_id=id, at=at, return_features=return_features).as_dict()
                    for row, id in asked
                ]
        self._reconcile_or_warn()
        if name not in self.routes.names():
            raise nothing_deployed(name)
        service = self._service(replay=True, only=[name])
        service.refresh()
        try:
            moment = iso(as_utc(at) if at else self.clock.now())
            predictor = service.predictor(name)
            drafts = (predictor.draft(_request(row, id, moment, return_features), self.actor) for row, id in asked)
            return [self._logged(draft) for draft in drafts]
        finally:
            service.close()

    def _logged(self, draft: Draft) -> dict[str, Any]:
        """An answer that was made in this process, when it is in the log. Raises LogUnwritable."""
        from seatrial.serving.scoring.predictor import shadow

        if draft.rows:
            self.log.append_all(draft.rows)
        shadow([draft])
        return _answered(draft.answer)

    def replay(
        self,
        model: str | None,
        window: Window,
        *,
        url: str,
        push: bool = True,
        progress: Progress | None = None,
    ) -> Replayed:
        """Send the label rows predicted in `window` to a service that replays, each at its own instant, in order.

        push: before each instant, push the events that had become known since the last one. Labels that the source
        holds are then compared with the answers.
        """
        from seatrial.features.plan import make_plan
        from seatrial.serving.clients.client import Client
        from seatrial.serving.clients.replay import Asked, replay
        from seatrial.verbs.history import Feed, business_keys, by_class, in_window, measured, request_fields, times_us
        from seatrial.verbs.upkeep import needed

        deployment = self._deployment(model)
        declared = self._trained_here(deployment.model, "where its history is")
        plan = make_plan(declared.features, self.definitions.views)
        frozen = [one for one in needed(self, declared.name) if one.source]
        sources = [self.definitions.views[view.name].source for view in plan.views]
        sources += [one.source for one in frozen if one.source]
        views = [*plan.views, *(one.plan for one in frozen)]
        started = monotonic()
        tables, _ = self._inputs.tables([declared.labels, *sources], progress)
        rows = in_window(tables[declared.labels.name], declared.labels, window)
        names = list(dict.fromkeys([*plan.request_columns, *declared.request_features]))
        fields = request_fields(rows, names)
        ids = business_keys(self.without_persons(declared, rows), declared)
        at_us = times_us(rows, declared.labels.event_timestamp).tolist()
        asked = [Asked(at, row, key) for at, row, key in zip(at_us, fields, ids, strict=True)]
        feed = Feed(views if push else [], tables, window, self.online)
        positions = {id(one): position for position, one in enumerate(asked)}
        scores: list[Any] = [float("nan")] * len(asked)
        tell = progress or _silent
        with Client(url, caller=self.actor) as client:
            done = replay(client, deployment.name, asked, feed.up_to, progress=lambda n, of: tell("replay", n, of))
            for one, answer in done:
                score = answer.prediction if declared.task == "regression" else answer.probability
                scores[positions[id(one)]] = score
        feed.up_to(window.end_us)  # the next window begins where this one ends, not at its last request
        seconds = monotonic() - started
        labelled, metrics = measured(
            declared, rows, *by_class(declared, rows, scores), threshold=self._threshold(declared.name)
        )
        return Replayed(
            model=declared.name,
            window=str(window),
            predictions=len(asked),
            pushed=feed.rows,
            labelled=labelled,
            metrics=metrics,
            seconds=round(seconds, 3),
            per_second=round(len(asked) / seconds, 1) if asked else 0.0,
        )

    def doctor(self) -> list[Check]:
        """Whether this machine and folder are fit, and whether what is kept can be read and is whole."""
        from seatrial.folder.doctor import checks

        return checks(self)

    def _deployment(self, name: str | None) -> Deployment:
        """The deployment of that name, or the one of the model of that name; a model that declares none is deployed
        under its own name."""
        from seatrial.deployment.definition import Deployment

        declared = self.definitions
        if name is None and not declared.deployments:
            return Deployment(self._model(None).name)
        if name is None or name in declared.deployments:
            return declared.deployment(name)
        if name not in self._models():
            own = [model for model in self._models() if self._deployments_of(model) == [model]]
            return pick("deployment", {**{one: Deployment(one) for one in own}, **declared.deployments}, name)
        names = self._deployments_of(name)
        if len(names) > 1:
            raise UsageError(
                f"model '{name}' has {len(names)} deployments, and none was named.",
                expected=f"They are {listed(names)}.",
                state="Nothing was changed.",
            )
        return declared.deployments.get(names[0]) or Deployment(name)

    def _service(
        self,
        place: Place | None = None,
        *,
        replay: bool,
        only: Sequence[str] | None = None,
        memory_budget: int | None = None,
    ) -> Service:
        from seatrial.releases.keyring import WatchedKeys
        from seatrial.serving.service import load

        return load(
            routes=self.folder / STATE / "routes",
            read_bundle=self.objects.read,
            trusted_keys=WatchedKeys(self.keys, lambda: self.trusted),
            refuse_distrusted=self.settings.policy.distrusted == "refuse",
            online=self.online_for_serving(),
            log=self.log,
            replay=replay,
            now_us=machine_us if isinstance(self.clock, MachineClock) else lambda: self.now_us,
            only=only,
            place=place,
            memory_budget=memory_budget,
        )


def _is_live(decision: Record, release: Record, deployment: Deployment) -> bool:
    """Whether a deployment's decision gives everything to this release, in the way that is declared."""
    declared = {
        "strategy": deployment.strategy.kind,
        "route_by": deployment.route_by,
        "on_store_failure": deployment.on_store_failure,
        "defaults": dict(deployment.defaults) or None,
        "cache": deployment.cache or None,
    }
    same = all(decision.body.get(name) == value for name, value in declared.items())
    return decision.inputs == (release.id,) and same


def _with_floats(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with its decimals as floats, which is what a request's numbers are."""
    return {name: float(value) if isinstance(value, Decimal) else value for name, value in row.items()}


def _request(row: Mapping[str, Any], request_id: str | None, at: str, return_features: bool) -> bytes:
    endless = [name for name, value in row.items() if isinstance(value, float) and math.isinf(value)]
    if endless:
        raise PredictionRefused(
            f"field '{endless[0]}' is infinite.",
            expected="A number or null is expected.",
            state="Nothing was predicted.",
        )
    try:
        body = {"features": row, "at": at} | ({} if request_id is None else {"request_id": request_id})
        return msgspec.json.encode(body | ({"return_features": True} if return_features else {}))
    except (TypeError, ValueError) as error:
        raise PredictionRefused(f"a row cannot be written as JSON: {error}.", state="Nothing was predicted.") from None


def _answered(answer: Answer) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(answer.body)
    if answer.status >= 500:
        raise PredictionUnavailable(str(body.get("detail", "no reason was given.")), state="", problem=body)
    if answer.status != 200:
        raise PredictionRefused(str(body.get("detail", "the row was refused.")), state="", problem=body)
    return body


def _nobody(url: str) -> None:
    del url


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total
