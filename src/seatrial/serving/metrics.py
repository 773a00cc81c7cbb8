"""What a server counts: predictions, their latency, refusals, values never seen in training.

One registry per service, one process per registry. Every label has a bounded set of values: names of models, of
versions, of inputs, and error codes; never a path, a key or a request id.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Counted:
    """The counts of one release. They only rise.

    rows: scored and answered. seconds: sum of the latencies of requests; requests: how many fell into each bucket,
    the last without an upper end.
    """

    __slots__ = ("model", "requests", "rows", "seconds", "version")

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.rows = 0
        self.seconds = 0.0
        self.requests = [0] * (len(BUCKETS) + 1)

    def took(self, seconds: float) -> None:
        """Count one request. Plain additions, each whole under CPython's lock, cost a tenth of what the client
        library's locked counters do."""
        self.seconds += seconds
        self.requests[bisect_left(BUCKETS, seconds)] += 1


class _Predictions(Collector):
    """Hands the counts of every release to the registry."""

    def __init__(self) -> None:
        self.releases: dict[tuple[str, str], Counted] = {}

    def collect(self) -> Iterator[Metric]:
        counted = list(self.releases.values())
        rows = CounterMetricFamily(
            "model_predictions", "Rows scored and answered.", labels=["model_name", "model_version"]
        )
        for one in counted:
            rows.add_metric([one.model, one.version], one.rows)
        yield rows
        latency = HistogramMetricFamily(
            "model_prediction_latency_seconds",
            "Time from the request's last byte to the answer, look-up and log included.",
            labels=["model_name"],
        )
        for model in sorted({one.model for one in counted}):
            of_model = [one for one in counted if one.model == model]
            requests = accumulate(map(sum, zip(*(one.requests for one in of_model), strict=True)))
            ends = [*map(str, BUCKETS), "+Inf"]
            latency.add_metric(
                [model],
                [(end, count) for end, count in zip(ends, requests, strict=True)],
                sum(one.seconds for one in of_model),
            )
        yield latency


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._predictions = _Predictions()
        self.registry.register(self._predictions)
        self._errors = Counter(
            "model_prediction_errors",
            "Prediction requests that were not answered with a prediction, by error code.",
            ["model_name", "code"],
            registry=self.registry,
        )
        self._unseen = Counter(
            "model_unseen_categories",
            "Values of category inputs that were never seen in training.",
            ["model_name", "model_version", "input"],
            registry=self.registry,
        )
        self._degraded = Counter(
            "model_degraded_predictions",
            "Rows answered although something could not be asked.",
            ["model_name", "model_version"],
            registry=self.registry,
        )
        self._unlogged = Counter(
            "seatrial_unlogged_predictions",
            "Rows answered although the prediction log did not take them.",
            ["model_name", "model_version"],
            registry=self.registry,
        )
        self.ready = Gauge("seatrial_ready", "1 when every deployment is served.", registry=self.registry)
        self._generation = Gauge(
            "seatrial_route_generation", "Generation of the route in use.", ["deployment"], registry=self.registry
        )
        self._distrusted = Gauge(
            "seatrial_distrusted",
            "1 while no trusted key vouches for what a deployment answers with, because its key was revoked.",
            ["deployment"],
            registry=self.registry,
        )
        self._refused = Counter(
            "seatrial_routes_refused",
            "Route files or releases that were not taken; the one before stays in use.",
            ["deployment", "code"],
            registry=self.registry,
        )

    def of_release(self, model: str, version: str) -> Counted:
        """The counts of a release; a version that comes back goes on where it was."""
        return self._predictions.releases.setdefault((model, version), Counted(model, version))

    def failed(self, model: str, code: str) -> None:
        self._errors.labels(model, code).inc()

    def unseen(self, model: str, version: str, input: str, count: int) -> None:
        self._unseen.labels(model, version, input).inc(count)

    def degraded(self, model: str, version: str, rows: int) -> None:
        self._degraded.labels(model, version).inc(rows)

    def unlogged(self, model: str, version: str, rows: int) -> None:
        self._unlogged.labels(model, version).inc(rows)

    def took_up(self, deployment: str, generation: int) -> None:
        self._generation.labels(deployment).set(generation)

    def distrusted(self, deployment: str, *, now: bool) -> None:
        self._distrusted.labels(deployment).set(int(now))

    def refused(self, deployment: str, code: str) -> None:
        self._refused.labels(deployment, code).inc()

    def render(self) -> bytes:
        """Every metric in the Prometheus text format."""
        return generate_latest(self.registry)
