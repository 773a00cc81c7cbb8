"""The reference's model server: versions of one model answered in this process, or over HTTP.

Behind it stand a release for each version, golden rows replayed, and the predictor and log of every other service. It
decides what this process answers with and changes no deployment: that is for `Project.deploy`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import Clock
from seatrial.core.errors import Conflict, UsageError
from seatrial.core.identity import value_digest
from seatrial.core.routing import BUCKETS
from seatrial.project import Project
from seatrial.stores.routes import Arm, RouteFile
from seatrial.verbs.answering import PredictionRefused

if TYPE_CHECKING:
    from seatrial.core.records import Record
    from seatrial.serving.doors.http import Front
    from seatrial.serving.scoring.predictor import Predictor, Release
    from seatrial.serving.service import Service
    from seatrial.surface.enrichment import EnrichingReader
    from seatrial.surface.feature_store import FeatureStore

LIVE = "live"
PERCENT = BUCKETS // 100


class BadSplit(UsageError):
    """An A/B test gives its treatment a share that cannot be served."""

    code = "surface.bad_split"


class NothingLoaded(UsageError):
    """A prediction was asked for before any version was loaded."""

    code = "surface.nothing_loaded"


@dataclass(frozen=True)
class ABTestConfig:
    """Two versions side by side. treatment_percentage: 0 to 100, in steps of 0.01."""

    control_version: str | int
    treatment_version: str | int
    treatment_percentage: float


@dataclass(frozen=True)
class PredictionRequest:
    """What is asked. request_id: names the caller's request, and decides the arm of an A/B test; made when None."""

    features: Mapping[str, Any]
    request_id: str | None = None


@dataclass(frozen=True)
class PredictionResponse:
    """What is answered. prediction: 0 or 1, or a value. probability: of 1; None for a regression."""

    prediction: float | int
    probability: float | None
    model_version: str
    request_id: str
    latency_ms: float


class ModelServer:
    """Answers for one model.

    feature_store: where features that a request does not carry are looked up, by the entity keys that it does carry.
    folder: where versions, releases and the prediction log are. clock: where "now" comes from.
    Every answer is in the prediction log before it leaves.
    """

    def __init__(
        self,
        model_name: str,
        feature_store: FeatureStore | None = None,
        folder: str | Path = ".",
        *,
        clock: Clock | None = None,
    ) -> None:
        self.model_name = model_name
        self._store = feature_store
        self._project = Project(folder, clock=clock, definitions=())
        self._releases: dict[str, tuple[Record, Release]] = {}
        self._loaded: str | None = None
        self._test: ABTestConfig | None = None

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the prediction log and the stores that were opened."""
        if "_service" in self.__dict__:
            self._service.close()
        self._project.close()

    def load_model(self, version: str | int | None = None) -> str:
        """Answer with this version from now on; while an A/B test runs, from its end. Returns the version.

        version: a number, an alias such as "candidate", or None or "latest" for the newest.
        A version that has no release yet gets one. Views that are registered later are not looked up until then.
        Raises UnknownModel, UnknownVersion, UnknownAlias, and what packing or opening a release raises.
        """
        loaded = self._open(version)
        if self._test is None:
            self._answer_with([(LIVE, loaded, BUCKETS)], salt="")
        self._loaded = loaded
        return loaded

    def set_ab_test(self, config: ABTestConfig | None) -> None:
        """Split requests between two versions by their request id; None ends the test.

        The same id gets the same version, in every process and after a restart. The split is salted by model and
        versions, so two tests do not split alike; a growing treatment keeps who is in it. A request without an id
        gets a new one, and with it a new draw.
        """
        if config is None:
            self._test = None
            if self._loaded is not None:
                self._answer_with([(LIVE, self._loaded, BUCKETS)], salt="")
            return
        share = _share(config.treatment_percentage)
        control, treatment = self._open(config.control_version), self._open(config.treatment_version)
        salt = value_digest([self.model_name, control, treatment])[:16]
        self._answer_with([("control", control, BUCKETS - share), ("treatment", treatment, share)], salt=salt)
        self._test = config

    def predict(self, request: PredictionRequest) -> PredictionResponse:
        """Answer one request; its features are not changed.

        Raises NothingLoaded, or PredictionRefused with the problem document that HTTP would have answered.
        """
        if not self._service.predictors:
            raise NothingLoaded(
                f"no version of '{self.model_name}' is loaded.",
                state="Nothing was predicted.",
                next="Call load_model() first.",
            )
        predictor = self._service.predictor(self.model_name)
        answer = predictor.handle(_body(request), self._project.actor)
        body: dict[str, Any] = msgspec.json.decode(answer.body)
        if answer.status != 200:
            raise PredictionRefused(str(body.get("detail", "the request was refused.")), state="", problem=body)
        return PredictionResponse(**{name: body[name] for name in PredictionResponse.__dataclass_fields__})

    @cached_property
    def app(self) -> Front:
        """The ASGI application: POST /predict takes a `PredictionRequest` as JSON and answers a `PredictionResponse`.

        Beside it stand /health, /ready, /metrics and /docs.
        """
        from seatrial.serving.doors.http import Front

        return Front(self._service)

    def serve(
        self, port: int = 8000, *, host: str = "127.0.0.1", on_ready: Callable[[str], None] | None = None
    ) -> None:
        """Serve `app` until SIGTERM or SIGINT. on_ready: called with the address once it listens."""
        from seatrial.serving.workers.process import run

        run(self._service, host=host, port=port, started=on_ready, front=self.app)

    def metrics(self) -> str:
        """What was counted, in the Prometheus text format."""
        return self._service.metrics.render().decode()

    @cached_property
    def _service(self) -> Service:
        from seatrial.serving.service import Service

        service = Service(online=self._project.online, log=self._project.log, now_us=self._now_us)
        service.prove()
        return service

    def _now_us(self) -> int:
        return self._project.now_us

    def _open(self, version: str | int | None) -> str:
        """Make a version ready to answer; its number as text."""
        from seatrial.serving.scoring.release import open_release

        found = self._project.registry.resolve(self._reference(version))
        number = str(found.body["version"])
        if number not in self._releases:
            release = self._release(found)
            data = self._project.objects.read(release.body["object"])
            self._releases[number] = release, open_release(data, self._project.trusted)
        return number

    def _reference(self, version: str | int | None) -> str:
        if version is None or version == "latest":
            return self.model_name
        return f"{self.model_name}{':' if str(version).isdigit() else '@'}{version}"

    def _release(self, version: Record) -> Record:
        """The version's release; packed now when there is none."""
        release = self._project.release_of(version.id)
        if release is None:
            try:
                self._project.release(version.id)
            except Conflict:
                if self._project.release_of(version.id) is None:
                    raise  # otherwise another process packed it in the meantime
            release = self._project.release_of(version.id)
        assert release is not None
        return release

    def _answer_with(self, arms: list[tuple[str, str, int]], *, salt: str) -> None:
        """arms: name, version and share of 10,000 of each."""
        from seatrial.serving.scoring.predictor import Share

        shares = [Share(name, self._releases[version][1], share) for name, version, share in arms]
        route = RouteFile(
            deployment=self.model_name,
            generation=1,
            model=self.model_name,
            salt=salt,
            arms=tuple(self._arm(*arm) for arm in arms),
        )
        predictor = self._service.make_predictor(self.model_name, shares, route)
        if self._store is not None:
            predictor.reader = self._reader(self._store, predictor)
        self._service.serve(self.model_name, predictor)

    def _arm(self, name: str, version: str, share: int) -> Arm:
        release, _ = self._releases[version]
        return Arm(name, release.id, share, release.body["object"])

    def _reader(self, store: FeatureStore, predictor: Predictor) -> EnrichingReader:
        from seatrial.surface.enrichment import EnrichingReader

        exact = {name for share in predictor.shares for name in share.release.signature.integers}
        fields, most = predictor.reader.fields, predictor.max_rows
        return EnrichingReader(fields, store, exact=exact, now_us=self._now_us, max_rows=most)


def _share(percentage: float) -> int:
    """The treatment's share of 10,000."""
    sound = isinstance(percentage, int | float) and not isinstance(percentage, bool) and 0 <= percentage <= 100
    share = round(percentage * PERCENT) if sound else 0
    if not sound or abs(share - percentage * PERCENT) > 1e-6:
        raise BadSplit(
            f"the treatment's percentage is {percentage!r}.",
            expected="A number from 0 to 100 with at most two decimals is expected.",
            state="Nothing was changed.",
        )
    return share


def _body(request: PredictionRequest) -> bytes:
    """The request as HTTP would carry it. NaN is null."""
    from seatrial.serving.scoring.requests import NumberOutOfRange

    features = {name: _plain(value) for name, value in request.features.items()}
    for name, value in features.items():
        if isinstance(value, float) and math.isinf(value):
            raise NumberOutOfRange(
                f"field '{name}' is infinite.",
                expected="It would be changed on its way into the model.",
                state="Nothing was predicted.",
                field=name,
            )
    body: dict[str, Any] = {"features": features}
    if request.request_id is not None:
        body["request_id"] = request.request_id
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError) as error:
        raise PredictionRefused(
            f"the request cannot be written as JSON: {error}.", state="Nothing was predicted."
        ) from None


def _plain(value: Any) -> Any:
    """numpy's scalars as Python's."""
    return value.item() if hasattr(value, "item") else value
