"""From the bytes of a request to the bytes of its answer: read, route, look up, score, log, count.

`Predictor.handle` knows nothing of HTTP and is all that happens to a request between two sockets; any server, or
another service's own code, can call it. Nothing is answered that is not in the log.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from seatrial.core.clock import machine_us, monotonic
from seatrial.core.errors import Failed, SeatrialError, Unavailable
from seatrial.core.identity import uuid7
from seatrial.core.personal import Treatment, strictest
from seatrial.core.routing import BUCKETS, bucket, choose
from seatrial.core.signature import NamedRows, Signature
from seatrial.core.types import Dtype, Field
from seatrial.features.lookup import Lookup
from seatrial.features.plan import FeaturePlan
from seatrial.releases.named import UnseenNotAccepted
from seatrial.releases.runtime import MissingNotAccepted, ScoreNotFinite
from seatrial.releases.supervised import START_SECONDS, ChildRestarting, died_twice
from seatrial.serving.meters.metrics import SAMPLED, Counted, Metrics
from seatrial.serving.scoring.ahead import Ahead
from seatrial.serving.scoring.cache import ScoreCache
from seatrial.serving.scoring.defaults import check_defaults
from seatrial.serving.scoring.fields import ArmsDiffer, Suited, accepted, exact_fields, ignored_fields, plain
from seatrial.serving.scoring.personal import masked
from seatrial.serving.scoring.requests import Request, RequestReader
from seatrial.serving.scoring.row import row_encoder
from seatrial.stores.online import Key, OnlineStore, OnlineStoreDamaged, OnlineStoreTooNew, OnlineStoreUnavailable
from seatrial.stores.prediction_log import SHADOW, LoggedPrediction, LogSchema, LogUnwritable, PredictionLog, log_schema
from seatrial.stores.routes import SHADOW_ARM, Default, OnStoreFailure

Score = Callable[[Any], NDArray[np.floating[Any]]]
"""Rows (`core.signature.Rows`) -> n probabilities of the positive class, n values, or [n, C] of classes."""

ONLINE_STORE = "online_store"
PREDICTION_LOG = "prediction_log"
"""What stands in `degraded` of an answer that was given without it."""
_LOGGER = logging.getLogger("seatrial.serving")


class NoScore(Failed):
    """The model has no finite answer for a row."""

    code = "serving.no_score"


class NoOnlineStore(Failed):
    """A release looks features up, and the server was given no online store."""

    code = "serving.no_online_store"
    http_status: ClassVar[int] = 503


class ServerFailed(SeatrialError):
    """The server failed at something that is no fault of the request."""

    code = "serving.failed"


class StoreDown(Unavailable):
    """The online store did not answer, and the deployment answers nothing without it."""

    code = "serving.online_store_down"


@dataclass(frozen=True)
class Release:
    """A release as it is served: verified, its golden rows replayed.

    score_row: the same for one row, packed as float32 in the machine's byte order; None where this process may not have
        the model.
    threshold: the probability from which a binary prediction is 1.
    elsewhere: whether another process scores, so that `score` waits for it, and may raise ChildRestarting.
    no_missing: positions of the inputs without which the model has no answer. no_unseen: named inputs of which it takes
        no category that was never seen.
    example: a sound row of request fields, for the documentation; may be empty.
    bytes: about what the loaded model takes, in this process or in its own. start_s: what it took its process to start.
    """

    id: str
    model: str
    version: str
    signature: Signature
    plan: FeaturePlan
    score: Score
    score_row: Callable[[bytes], float] | None = None
    threshold: float = 0.5
    no_missing: tuple[int, ...] = ()
    no_unseen: tuple[str, ...] = ()
    description: str = ""
    example: dict[str, Any] | None = None
    elsewhere: bool = False
    signed_by: str = ""
    bytes: int = 0
    start_s: float = 0.0


@dataclass(frozen=True)
class Share:
    """A release's part of a deployment's traffic, of 10,000."""

    name: str
    release: Release
    share: int = BUCKETS


class Answer(NamedTuple):
    """An HTTP status and a JSON body: a prediction when it is 200, else a problem document (RFC 9457).

    retry_after: seconds after which asking again may help; 0: nothing is known of that.
    """

    status: int
    body: bytes
    retry_after: int = 0


class Asked(NamedTuple):
    """What a shadow scores again: the rows of a request, and what its records say of it."""

    rows: Sequence[tuple[Any, ...]]
    at_us: int
    bounded: bool
    request_id: str
    caller: str


class Draft(NamedTuple):
    """An answer that may leave when its rows are in the log; see `finish`.

    asked: what the deployment's shadow is to score when the answer has left; None: it has no shadow.
    counts: how many rows of which release it answers. start: the monotonic instant at which its request was complete.
    predictor: who made it; None for an answer without rows.
    """

    answer: Answer
    rows: Sequence[tuple[LogSchema, LoggedPrediction]] = ()
    counts: Sequence[tuple[Counted, int]] = ()
    start: float = 0.0
    predictor: Predictor | None = None
    asked: Asked | None = None


class Later(NamedTuple):
    """A request that is answered at the end of its turn, together with others of its predictor.

    since: the monotonic instant at which it was complete.
    """

    predictor: Predictor
    body: bytes
    caller: str
    since: float


class Row(msgspec.Struct, omit_defaults=True):
    """One row of a request that held many, answered."""

    prediction: float | int | str
    probability: float | dict[str, float] | None
    model_version: str
    prediction_id: str
    release: str
    degraded: tuple[str, ...] | UnsetType = UNSET
    views: dict[str, str] | UnsetType = UNSET
    features: dict[str, Any] | UnsetType = UNSET


class One(msgspec.Struct, omit_defaults=True):
    """A request of one row, answered."""

    prediction: float | int | str
    probability: float | dict[str, float] | None
    model_version: str
    request_id: str
    prediction_id: str
    latency_ms: float
    release: str
    degraded: tuple[str, ...] | UnsetType = UNSET
    views: dict[str, str] | UnsetType = UNSET
    features: dict[str, Any] | UnsetType = UNSET


class Many(msgspec.Struct):
    """A request of many rows, answered in order."""

    predictions: list[Row]
    request_id: str
    latency_ms: float


class _Scored(NamedTuple):
    """A row on its way: what went in, and what came out."""

    inputs: tuple[Any, ...]
    fields: tuple[Any, ...]
    views: tuple[tuple[str, int | None], ...]
    degraded: tuple[str, ...]
    prediction: float | int | str
    probability: float | dict[str, float] | None


class Predictor:
    """One deployment in service. Never changes: a new route is a new predictor. May be used by many threads.

    shares: the arms, adding up to 10,000. salt, route_by: see `stores.routes.RouteFile`.
    online: the online store; needed when a release looks features up.
    log: where answers are written before they leave; None: they are not logged.
    defaults, cache, sent: see `stores.routes.RouteFile`.
    own_fields: how many fields the first arm's requests hold; they are the first of `reader.fields`.
    ignored: the fields that are taken for the sake of another release, and of which nothing is made.
    replay: requests may say `at`. now_us: the domain's clock for those that do not.
    """

    def __init__(
        self,
        deployment: str,
        shares: Sequence[Share],
        *,
        metrics: Metrics,
        log: PredictionLog | None,
        online: OnlineStore | None = None,
        salt: str = "",
        route_by: str | None = None,
        on_store_failure: OnStoreFailure = "refuse",
        defaults: Mapping[str, Default] | None = None,
        cache: int = 0,
        sent: Mapping[str, Dtype] | None = None,
        replay: bool = False,
        now_us: Callable[[], int] = machine_us,
        max_rows: int = 1000,
    ) -> None:
        self.deployment = deployment
        self.shares = tuple(shares)
        self.elsewhere = any(share.release.elsewhere for share in shares)
        self.looks_up = online is not None and any(share.release.plan.views for share in shares)
        self.ahead = Ahead(online) if online is not None and self.looks_up else None
        self.replay = replay
        self.max_rows = max_rows
        answering = [share for share in shares if share.name != SHADOW_ARM]
        hidden = [share for share in shares if share.name == SHADOW_ARM]
        seen, unseen = ([share.release.signature for share in some] for some in (answering, hidden))
        fields, exact = accepted(deployment, seen, unseen), exact_fields(seen)
        names = [field.name for field in fields]
        # with one arm, or with arms that want the same, reading a request is all the looking at it that there is
        self._differ = any(Suited(fields, signature).asks for signature in [*seen, *unseen])
        beside = ignored_fields(fields, sent or {})
        self.ignored = [field.name for field in beside]
        self.own_fields = len(shares[0].release.signature.request)
        self.reader = RequestReader(
            fields, exact=exact, replay=replay, max_rows=max_rows, tells_absent=self._differ, ignored=beside
        )
        if route_by is not None and route_by not in names:
            raise ArmsDiffer(
                f"deployment '{deployment}' splits its traffic by '{route_by}', which is no field of its requests.",
                expected=f"Requests hold {', '.join(names)}.",
                state="Nothing was changed.",
            )
        check_defaults(deployment, defaults or {}, [(share.release.plan, share.release.signature) for share in shares])
        # requests are the same for every arm, so what one of them declares to be personal is so for all
        personal = strictest(share.release.signature.personal for share in shares)
        given = (fields, exact, self.ahead, on_store_failure, defaults or {}, cache, metrics, log, personal)
        self._arms = [_Arm(deployment, share, *given) for share in answering]
        self._shadows = [_Arm(deployment + SHADOW, share, *given) for share in hidden]
        self._only = self._arms[0] if len(self._arms) == 1 and not self._differ else None
        self._cuts = [share.share for share in answering]
        self._salt = salt
        self._route_position = None if route_by is None else names.index(route_by)
        self._log = log
        self._metrics = metrics
        self._model = shares[0].release.model
        self._log_failure = ""
        self._latency = metrics.of_deployment(deployment, self._arms[0].release.model)
        self._now_us = now_us
        self._encode = msgspec.json.Encoder().encode
        self._unwatched = 1  # until a request has its stages timed: the first, then one in SAMPLED
        self._spare: Predictor | None = None

    @property
    def cached(self) -> dict[str, int] | None:
        """How many scores are kept, and how often one was found or not, over all arms; None without a cache."""
        caches = [arm.cache for arm in (*self._arms, *self._shadows) if arm.cache is not None]
        if not caches:
            return None
        return {name: sum(getattr(one, name) for one in caches) for name in ("kept", "hits", "misses")}

    def handle(self, body: bytes, caller: str = "") -> Answer:
        """Answer one request. Never raises; what goes wrong is a problem document that repeats none of the input.

        caller: who asks, for the log; at most 200 characters of it are kept.
        """
        draft = self.draft(body, caller)
        answer = finish(self._log, [draft])[0]
        shadow([draft])
        return answer

    def draft(
        self,
        body: bytes,
        caller: str = "",
        *,
        since: float | None = None,
        wait: bool = True,
        request: Request | None = None,
    ) -> Draft:
        """`handle` without its last step: nothing is logged or counted yet. Never raises, unless it may not wait.

        since: the monotonic instant at which the request was complete; now by default.
        wait: for a process that is started again; otherwise ChildRestarting is raised then.
        request: what the body holds, where it was read before.
        """
        self._unwatched -= 1
        if self._unwatched <= 0:  # below it when several threads count at once
            return self._watched().draft(body, caller, since=since, wait=wait, request=request)
        start = monotonic() if since is None else since
        try:
            if request is None:
                request = self.reader.read(body)
            arm = self._only
            if arm is None or request.many:
                return self._answer_many(request, caller, start)
            return self._answer_one(arm, request, caller, start)
        except ChildRestarting as error:
            if error.died:
                self._metrics.child_died(self._model)
            if not wait:
                raise
            return self._draft_again(error, body, caller, start)
        except _ScoringFailed as failed:
            return Draft(self.refuse(_told(failed.error), failed.release, request_id=_id(request)))
        except Exception as error:
            return Draft(self.refuse(_told(error), request_id=_id(request)))

    def draft_all(self, asked: Sequence[Later]) -> list[Draft]:
        """The drafts of requests that came together, whose online rows are fetched in one round trip. Never raises."""
        if len(asked) == 1 or self.ahead is None:
            return [self.draft(one.body, one.caller, since=one.since) for one in asked]
        requests: list[Request | None] = []
        keys: dict[Key, None] = {}
        for one in asked:
            request = None
            with suppress(Exception):  # its draft will tell what is wrong with it
                request = self.reader.read(one.body)
                rows = plain(request.rows) if self._differ else request.rows
                for arm in self._arms:
                    keys |= dict.fromkeys(arm.keys(rows))
            requests.append(request)
        try:
            with suppress(SeatrialError):  # each draft will ask for itself, and tell
                self.ahead.fetch(list(keys))
            return [
                self.draft(one.body, one.caller, since=one.since, request=request)
                for one, request in zip(asked, requests, strict=True)
            ]
        finally:
            self.ahead.forget()

    def _watched(self) -> Predictor:
        """This predictor for one request, of which it takes the times."""
        from seatrial.serving.scoring.stages import Watched

        self._unwatched = SAMPLED
        spare, self._spare = self._spare, None
        return spare or Watched(self)

    def _draft_again(self, error: ChildRestarting, body: bytes, caller: str, start: float) -> Draft:
        deaths = 0
        while (left := start + START_SECONDS - monotonic()) > 0:
            deaths += error.died
            if deaths > 1:
                return self.gave_up(error, deaths)
            futures.wait([error.started], left)
            try:
                return self.draft(body, caller, since=start, wait=False)
            except ChildRestarting as again:
                error = again
        return self.gave_up(error, deaths)

    def gave_up(self, error: ChildRestarting, deaths: int) -> Draft:
        """The answer to a request that waited for its process in vain. deaths: how often it died of this request."""
        told = died_twice(f"on this request: {error.found}") if deaths > 1 else error
        return Draft(self.refuse(told, error.release))

    def count(self, draft: Draft, now: float) -> None:
        """Count an answer that leaves now."""
        for counted, rows in draft.counts:
            counted.rows += rows
        self._latency.took(now - draft.start)

    def refuse(self, error: SeatrialError, release: str = "", **ids: str) -> Answer:
        """The answer that reports `error`, counted. release: the one whose scoring failed. ids: request_id and others
        by which the server's log names the request."""
        self._metrics.failed(
            self._model,
            error.code,
            deployment=self.deployment,
            status=error.http_status,
            release=release,
            **ids,
        )
        if self._log is not None and (error.http_status >= 500 or release):
            self._log.failures.add(self.deployment, error.http_status, self._now_us(), release)
        return problem(error)

    def unlogged(self, draft: Draft, error: LogUnwritable) -> Answer:
        """The answer of a draft whose rows the log did not take, counted, "prediction_log" among what was degraded."""
        if not draft.rows or self._log is None:
            self.count(draft, monotonic())
            return draft.answer
        if self._log_failure != error.found:
            self._log_failure = error.found
            _LOGGER.warning("model '%s': answers leave without a row in the log: %s", self._model, error.found)
        for schema, row in draft.rows:
            self._log.unlogged.add(schema.deployment, draft.answer.status, row.at_us, schema.release)
        for counted, rows in draft.counts:
            self._metrics.unlogged(counted.model, counted.version, rows)
        self.count(draft, monotonic())
        body = msgspec.json.decode(draft.answer.body)
        for told in (body, *body.get("predictions", ())):  # each row too: most doors tell of rows alone
            told["degraded"] = [*told.get("degraded", ()), PREDICTION_LOG]
        return draft.answer._replace(body=msgspec.json.encode(body))

    def _answer_one(self, arm: _Arm, request: Request, caller: str, start: float) -> Draft:
        """The short way for what most requests are: one row, one arm."""
        at_us = self._now_us() if request.at_us is None else request.at_us
        try:
            scored = arm.score_one(request.rows[0], at_us, request.bounded)
        except Exception as error:
            raise _of_release(error, arm) from error
        prediction_id = uuid7()
        request_id = request.request_id or prediction_id
        latency = round((monotonic() - start) * 1000, 3)
        answer = self._encode(
            One(
                scored.prediction,
                scored.probability,
                arm.version,
                request_id,
                prediction_id,
                latency,
                arm.release.id,
                scored.degraded or UNSET,
                arm.views_told(scored, every=request.return_features),
                dict(zip(arm.inputs, scored.inputs, strict=True)) if request.return_features else UNSET,
            )
        )
        rows: Sequence[tuple[LogSchema, LoggedPrediction]] = ()
        if self._log is not None:
            rows = ((arm.schema, arm.logged(scored, prediction_id, request_id, 0, caller, at_us, latency)),)
        asked = Asked(request.rows, at_us, request.bounded, request_id, caller) if self._shadows else None
        return Draft(Answer(200, answer), rows, ((arm.counted, 1),), start, self, asked)

    def _answer_many(self, request: Request, caller: str, start: float) -> Draft:
        at_us = self._now_us() if request.at_us is None else request.at_us
        request_id = request.request_id or uuid7()
        by_arm: dict[int, list[int]] = {}
        for number, fields in enumerate(request.rows):
            by_arm.setdefault(self._route(fields, request_id), []).append(number)
        scored: list[tuple[_Arm, _Scored]] = [(self._arms[0], _NOTHING)] * len(request.rows)
        for position, numbers in by_arm.items():
            arm = self._arms[position]
            try:
                asked_of = [request.rows[number] for number in numbers]
                if self._differ:
                    asked_of = arm.suited.take(asked_of, numbers if request.many else [None])
                results = arm.score(asked_of, at_us, request.bounded)
            except Exception as error:
                raise _of_release(error, arm) from error
            for number, result in zip(numbers, results, strict=True):
                scored[number] = (arm, result)
        ids = [uuid7() for _ in scored]
        latency = round((monotonic() - start) * 1000, 3)
        rows = [
            Row(
                result.prediction,
                result.probability,
                arm.version,
                prediction_id,
                arm.release.id,
                result.degraded or UNSET,
                arm.views_told(result, every=request.return_features),
                dict(zip(arm.inputs, result.inputs, strict=True)) if request.return_features else UNSET,
            )
            for (arm, result), prediction_id in zip(scored, ids, strict=True)
        ]
        if request.many:
            self._metrics.many(self.deployment, len(rows))
            answer = self._encode(Many(rows, request_id, latency))
        else:
            row = rows[0]
            answer = self._encode(
                One(
                    row.prediction,
                    row.probability,
                    row.model_version,
                    request_id,
                    row.prediction_id,
                    latency,
                    row.release,
                    row.degraded,
                    row.views,
                    row.features,
                )
            )
        logged: Sequence[tuple[LogSchema, LoggedPrediction]] = ()
        if self._log is not None:
            logged = [
                (arm.schema, arm.logged(result, prediction_id, request_id, number, caller, at_us, latency))
                for number, ((arm, result), prediction_id) in enumerate(zip(scored, ids, strict=True))
            ]
        counts = [(self._arms[position].counted, len(numbers)) for position, numbers in by_arm.items()]
        asked = Asked(request.rows, at_us, request.bounded, request_id, caller) if self._shadows else None
        return Draft(Answer(200, answer), logged, counts, start, self, asked)

    def shadow(self, asked: Asked) -> None:
        """Score a request again by the release in the shadow, and log it; nobody is answered. Never raises."""
        for arm in self._shadows:
            start = monotonic()
            try:
                rows = arm.suited.take(asked.rows, range(len(asked.rows))) if self._differ else asked.rows
                results = arm.score(rows, asked.at_us, asked.bounded)
                latency = round((monotonic() - start) * 1000, 3)
                if self._log is not None:
                    logged = [
                        (
                            arm.schema,
                            arm.logged(one, uuid7(), asked.request_id, row, asked.caller, asked.at_us, latency),
                        )
                        for row, one in enumerate(results)
                    ]
                    self._log.append_all(logged)
            except Exception as error:
                if self._log is not None:
                    status = _told(error).http_status
                    self._log.failures.add(self.deployment + SHADOW, status, self._now_us(), arm.release.id)

    def _route(self, row: tuple[Any, ...], request_id: str) -> int:
        if self._only is not None:
            return 0
        if self._route_position is None:
            key = request_id
        else:
            value = row[self._route_position]
            key = str(None if value is UNSET else value)
        return choose(self._cuts, bucket(self._salt, key))


def drafted(asked: Sequence[Draft | Later]) -> list[Draft]:
    """Every draft made, in order; those of one predictor together. Never raises."""
    together: dict[Predictor, list[Later]] = {}
    for one in asked:
        if isinstance(one, Later):
            together.setdefault(one.predictor, []).append(one)
    made = {predictor: iter(predictor.draft_all(mine)) for predictor, mine in together.items()}
    return [next(made[one.predictor]) if isinstance(one, Later) else one for one in asked]


def shadow(drafts: Iterable[Draft]) -> None:
    """Let the shadows of these answers, which have left, score them. Never raises."""
    for draft in drafts:
        if draft.asked is not None and draft.predictor is not None:
            draft.predictor.shadow(draft.asked)


class _ScoringFailed(Exception):
    """A release could not score rows that were well formed; or a row does not suit it."""

    def __init__(self, error: Exception, release: str) -> None:
        super().__init__(str(error))
        self.error = error
        self.release = release


def _of_release(error: Exception, arm: _Arm) -> Exception:
    """The error that tells of which release another one is."""
    if isinstance(error, ChildRestarting):
        error.release = arm.release.id
        return error
    return _ScoringFailed(error, arm.release.id)


def _told(error: Exception) -> SeatrialError:
    """What a caller is told of an error; the trace of an unforeseen one names code, never the request."""
    if isinstance(error, SeatrialError):
        return error
    _LOGGER.error("a request could not be answered", exc_info=error)
    return ServerFailed("the server failed at this request.")


def finish(log: PredictionLog | None, drafts: Sequence[Draft]) -> list[Answer]:
    """Log the rows of all drafts by one write and count them; from here on their answers may leave. Never raises.

    When the log does not take the rows none of these answers leaves: each becomes the same problem. Where the log's
    policy is to serve all the same they leave, flagged and counted.
    """
    if log is not None:
        rows = drafts[0].rows if len(drafts) == 1 else [row for draft in drafts for row in draft.rows]
        try:
            if len(rows) == 1:
                log.append(*rows[0])
            elif rows:
                log.append_all(rows)
        except Exception as error:
            if isinstance(error, LogUnwritable) and log.when_full == "serve_unlogged":
                return [draft.predictor.unlogged(draft, error) if draft.predictor else draft.answer for draft in drafts]
            if not isinstance(error, SeatrialError):
                _LOGGER.exception("answers could not be logged")
                error = ServerFailed("the server failed at this request.")
            return [_not_logged(draft, error) for draft in drafts]
    now = monotonic()
    for draft in drafts:
        if draft.predictor is not None:
            draft.predictor.count(draft, now)
    return [draft.answer for draft in drafts]


def _not_logged(draft: Draft, error: SeatrialError) -> Answer:
    """The answer to a request whose rows the log does not take; one without rows leaves as it is."""
    if draft.predictor is None:
        return draft.answer
    ids = (
        {"request_id": draft.rows[0][1].request_id, "prediction_id": draft.rows[0][1].prediction_id}
        if draft.rows
        else {}
    )
    return draft.predictor.refuse(error, **ids)


def _id(request: Request | None) -> str:
    return (request.request_id or "") if request is not None else ""


class _Arm:
    """One release, ready to score rows of the deployment's fields."""

    def __init__(
        self,
        deployment: str,
        share: Share,
        fields: Sequence[Field],
        exact: AbstractSet[str],
        online: Ahead | None,
        on_store_failure: OnStoreFailure,
        defaults: Mapping[str, Default],
        cache: int,
        metrics: Metrics,
        log: PredictionLog | None = None,
        personal: Mapping[str, Treatment] | None = None,
    ) -> None:
        release = share.release
        signature = release.signature
        if release.plan.views and online is None and on_store_failure == "refuse":
            raise NoOnlineStore(
                f"release {release.id} of model '{release.model}' looks up "
                f"{', '.join(view.name for view in release.plan.views)}, and there is no online store.",
                state="It is not served.",
                next="Give the server the project's folder or the online store's address.",
            )
        self.name = share.name
        self.release = release
        self.version = release.version
        self.inputs = signature.inputs
        self.counted: Counted = metrics.of_release(release.model, release.version)
        self._metrics = metrics
        told = metrics.of_cache(release.model, release.version) if cache else None
        self.cache = ScoreCache(release.score, cache, told) if cache else None
        self._score: Score = self.cache or release.score
        self._no_missing = release.no_missing
        self._score_row = None if self.cache else release.score_row
        self._binary = signature.task == "binary"
        self._classes = signature.classes
        self._class_names = [str(name) for name in signature.classes]
        self._pack = struct.Struct(f"<{len(signature.classes)}d").pack
        self._threshold = release.threshold
        self._names = tuple(field.name for field in fields)
        self.suited = Suited(fields, signature)
        self._encoder: Any = row_encoder(signature)
        self._named = signature.layout == "named"
        self._no_unseen = {name: frozenset(signature.categories[name]) for name in release.no_unseen}
        self._missing_allowed = on_store_failure == "missing"
        self._views = tuple(view.name for view in release.plan.views)
        self._lookup = Lookup(release.plan, online) if release.plan.views or release.plan.functions else None
        columns = {f"{view.name}__{feature}" for view in release.plan.views for feature in view.features}
        self._defaults = {name: value for name, value in defaults.items() if name in columns}
        self._without_store = Lookup(FeaturePlan((), release.plan.functions), None)
        self._no_store = bool(self._views) and online is None
        self._store_failure = ""
        # where each input stands among the request's fields; only a release without look-ups and functions has it
        self._positions = None if self._lookup else tuple(self._names.index(name) for name in signature.inputs)
        self._as_they_come = self._positions == tuple(range(len(fields)))
        whole = {field.name for field in fields if field.dtype == "int"}
        self._bounded = self._lookup is None and (whole & exact).issuperset(signature.integers)
        self._in_loops = self._positions is None or bool(self._encoder.unseen) or bool(self._classes) or self._named
        self._mask = masked(personal, log, signature, fields) if personal and log is not None else None
        logged = self._mask or signature
        self.schema: LogSchema = log_schema(
            model=release.model,
            version=release.version,
            release=release.id,
            deployment=deployment,
            inputs=logged.inputs,
            categories=logged.categories,
            fields=self._mask.fields if self._mask else [(field.name, field.dtype) for field in fields],
            views=self._views,
            classes=signature.classes,
        )

    def score_one(self, row: tuple[Any, ...], at_us: int, bounded: bool) -> _Scored:
        """One row scored; `score` without its loops. Raises the same."""
        if self._in_loops:
            return self.score([row], at_us, bounded)[0]
        inputs = row if self._as_they_come else self._gather([row], at_us)[0][0]
        packed = self._encoder.pack(inputs, bounded=bounded and self._bounded)
        if self._score_row is None or (self._no_missing and None in inputs):
            value = self._run(self._encoder.tensor((packed,))).item()
        else:
            try:
                value = self._score_row(packed)
            except ScoreNotFinite:
                raise self._no_score(None, 1) from None
        if not isfinite(value):
            raise self._no_score(0, 1)
        if self._binary:
            return _Scored(inputs, row, (), (), 1 if value >= self._threshold else 0, value)
        return _Scored(inputs, row, (), (), value, None)

    def score(self, rows: Sequence[tuple[Any, ...]], at_us: int, bounded: bool) -> list[_Scored]:
        """Every row scored. Raises NoScore, MissingNotAccepted, InputNotExact or StoreDown; then nothing was scored."""
        encoder = self._encoder
        bounded = bounded and self._bounded
        unseen = dict(encoder.unseen) if encoder.unseen else None
        gathered = self._gather(rows, at_us)
        packed = [encoder.pack(inputs, bounded=bounded) for inputs, _, _ in gathered]
        values = self._run(encoder.tensor(packed)).tolist()
        if unseen is not None and unseen != encoder.unseen:
            self._count_unseen(unseen)
        scored = []
        degraded_rows = 0
        for number, (row, (inputs, views, degraded), value) in enumerate(zip(rows, gathered, values, strict=True)):
            if self._classes:
                degraded_rows += bool(degraded)
                scored.append(_Scored(inputs, row, views, degraded, *self._likeliest(value, number, len(rows))))
                continue
            if not isfinite(value):
                raise self._no_score(number, len(rows))
            degraded_rows += bool(degraded)
            if self._binary:
                scored.append(_Scored(inputs, row, views, degraded, int(value >= self._threshold), value))
            else:
                scored.append(_Scored(inputs, row, views, degraded, value, None))
        if degraded_rows:
            self._metrics.degraded(self.release.model, self.version, degraded_rows)
        return scored

    def _likeliest(self, values: list[float], number: int, rows: int) -> tuple[str | int, dict[str, float]]:
        """The class with the highest probability, the first of several, and the probability of each."""
        if not isfinite(sum(values)):
            raise self._no_score(number, rows)
        return self._classes[values.index(max(values))], dict(zip(self._class_names, values, strict=True))

    def _run(self, tensor: Any) -> NDArray[np.floating[Any]]:
        if self._named:
            self._refuse_named(tensor)
        # the sum of squares is NaN exactly when a value is; it costs a tenth of looking at the positions
        elif self._no_missing and isnan(np.vdot(tensor, tensor)):
            self._refuse_missing(np.isnan(tensor))
        try:
            return self._score(tensor)
        except ScoreNotFinite:
            raise self._no_score(None, len(tensor)) from None

    def _refuse_named(self, rows: NamedRows) -> None:
        if self._no_missing:
            self._refuse_missing(rows.missing())
        for name, known in self._no_unseen.items():
            for number, value in enumerate(rows.columns[name]):
                if value is not None and value not in known:
                    raise UnseenNotAccepted(
                        f"input '{name}'{f' of row {number}' if len(rows) > 1 else ''} is a category that was never "
                        "seen in training, and this model was fitted to refuse such.",
                        state="Nothing was predicted.",
                        next="Send one of the values that it knows.",
                        row=number if len(rows) > 1 else None,
                    )

    def _refuse_missing(self, missing: NDArray[np.bool_]) -> None:
        for number, row in enumerate(missing):
            for position in self._no_missing:
                if row[position]:
                    raise MissingNotAccepted(
                        f"input '{self.inputs[position]}'{f' of row {number}' if len(missing) > 1 else ''} is missing, "
                        "or a category that was never seen, and this model was fitted without missing values there.",
                        state="Nothing was predicted.",
                        next="Send the value.",
                        row=number if len(missing) > 1 else None,
                    )

    def _no_score(self, number: int | None, rows: int) -> NoScore:
        where = f" for row {number}" if number is not None and rows > 1 else ""
        return NoScore(
            f"the model has no finite answer{where}.",
            expected="Most often a value is missing or far outside of what this model was trained on.",
            state="Nothing was predicted.",
            row=number if rows > 1 else None,
        )

    def views_told(self, scored: _Scored, *, every: bool) -> dict[str, str] | UnsetType:
        """What the caller is told of the views: those that had nothing fresh to say, or every one."""
        if not every and all(status == "present" for status, _ in scored.views):
            return UNSET
        found = {
            name: status
            for name, (status, _) in zip(self._views, scored.views, strict=True)
            if every or status != "present"
        }
        return found or UNSET

    def shadowed(
        self, scored: _Scored, row: int, request_id: str, caller: str, at_us: int, latency_ms: float
    ) -> LoggedPrediction:
        """`logged`, of what nobody was answered."""
        return self.logged(scored, uuid7(), request_id, row, caller, at_us, latency_ms)

    def logged(
        self,
        scored: _Scored,
        prediction_id: str,
        request_id: str,
        row: int,
        caller: str,
        at_us: int,
        latency_ms: float,
    ) -> LoggedPrediction:
        """The record of one scored row; of many classes it holds the place of the likeliest, and all probabilities."""
        prediction, probability, every = scored.prediction, scored.probability, b""
        if isinstance(probability, dict):
            values = list(probability.values())
            probability, every = max(values), self._pack(*values)
            prediction = values.index(probability)
        assert not isinstance(prediction, str), "only a model of many classes answers with a word"
        inputs, fields = scored.inputs, scored.fields
        if self._mask is not None:
            inputs, fields = self._mask(inputs, fields)
        return LoggedPrediction(
            self.schema.id,
            prediction_id,
            request_id,
            row,
            caller[:200],
            self.name,
            at_us,
            machine_us(),
            inputs,
            fields,
            scored.views,
            prediction,
            probability,
            latency_ms,
            scored.degraded,
            every,
        )

    def _gather(
        self, rows: Sequence[tuple[Any, ...]], at_us: int
    ) -> list[tuple[tuple[Any, ...], tuple[tuple[str, int | None], ...], tuple[str, ...]]]:
        """Each row's inputs, what its views said, and what could not be asked; one look-up for all rows."""
        if self._positions is not None:
            whole, places = self._as_they_come, self._positions
            return [(row if whole else tuple([row[p] for p in places]), (), ()) for row in rows]
        fields = [dict(zip(self._names, row, strict=True)) for row in rows]
        if not self._no_store and self._lookup is not None:
            try:
                found = self._lookup.assemble_many(fields, at_us)
            except (OnlineStoreUnavailable, OnlineStoreDamaged, OnlineStoreTooNew) as error:
                self._metrics.store_failed(self.release.model, error.code)
                self._tell_store_failed(error.code, error.found)
                if not self._missing_allowed:
                    raise StoreDown(
                        "the online store does not answer.",
                        expected="This model's features are looked up there.",
                        state="Nothing was predicted.",
                        next="Try again.",
                    ) from None
            else:
                self._store_failure = ""
                return [
                    (
                        tuple([one.columns[name] for name in self.inputs]),
                        tuple([(looked.status, looked.event_us) for looked in one.views.values()]),
                        (),
                    )
                    for one in found
                ]
        missing: tuple[tuple[str, int | None], ...] = tuple(("missing", None) for _ in self._views)
        made = self._without_store.assemble_many([row | self._defaults for row in fields], at_us)
        return [(tuple([one.columns.get(name) for name in self.inputs]), missing, (ONLINE_STORE,)) for one in made]

    def keys(self, rows: Sequence[tuple[Any, ...]]) -> list[Key]:
        """What is looked up for these rows."""
        if self._lookup is None:
            return []
        return self._lookup.keys([dict(zip(self._names, row, strict=True)) for row in rows])

    def _tell_store_failed(self, code: str, why: str) -> None:
        """Write to the server's log why the store cannot be asked, once for each way in which it fails."""
        if code != self._store_failure:
            self._store_failure = code
            _LOGGER.warning("model '%s': %s [%s]", self.release.model, why, code)

    def _count_unseen(self, before: dict[str, int]) -> None:
        for name, count in self._encoder.unseen.items():
            if count > before[name]:
                self._metrics.unseen(self.release.model, self.version, name, count - before[name])


_NOTHING = _Scored((), (), (), (), 0, None)


def problem(error: SeatrialError) -> Answer:
    """An error as a problem document. What went wrong inside the server is not told, only its code."""
    document = error.as_problem()
    if error.http_status >= 500 and not isinstance(error, StoreDown):
        document["detail"] = "The server could not answer; this is not a fault of the request. Nothing was predicted."
    for name in ("field", "row"):
        if error.facts.get(name) is not None:
            document[name] = error.facts[name]
    seconds = error.facts.get("retry_after")
    return Answer(error.http_status, msgspec.json.encode(document), seconds if isinstance(seconds, int) else 0)
