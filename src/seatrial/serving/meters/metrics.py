"""What a server counts: predictions, their latency, refusals, values never seen in training.

One registry per service. Every label has a bounded set of values: names of models, of versions, of inputs, of
deployments, error codes; never a path, a key or a request id; and each metric has a most number of series, beyond which
what comes is counted under `other`.

Counting is plain additions to numbers of this process. Where several processes serve together, each writes its numbers
to its slot's file (`serving.meters.slots`) a few times a second, and `render` of any of them tells the sum.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

import seatrial
from seatrial.core.objective import LATENCY_BOUNDS
from seatrial.serving.meters.server_log import Refusals
from seatrial.serving.meters.slots import Found, Slot, read_slots
from seatrial.stores.prediction_log import PredictionLog

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = LATENCY_BOUNDS
STAGE_BUCKETS = (0.000005, 0.00001, 0.000025, 0.00005, *LATENCY_BOUNDS[:-1])
STAGES = ("wait", "read", "look_up", "score", "answer", "log")
SAMPLED = 32
"""One request in so many has its stages timed."""
FLUSH_SECONDS = 0.2
MEASURED = 10  # times of FLUSH_SECONDS between two looks at the process's memory
OTHER = "other"


class Family(NamedTuple):
    """A metric. most: of its series, without that for `other`. buckets: of a histogram, their upper ends in seconds.

    merge: how the numbers of several workers become one; min and max are over those that run.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    merge: Literal["sum", "min", "max"] = "sum"
    most: int = 200
    buckets: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Numbers of a series: of a histogram the sum, then how many fell into each bucket and beyond the last."""
        return len(self.buckets) + 2 if self.buckets else 1


MERGES: dict[str, Callable[[Iterable[float]], float]] = {"sum": sum, "min": min, "max": max}


class Series(Protocol):
    """The numbers of one series in this process."""

    def values(self) -> Sequence[float]: ...
    def restore(self, values: Sequence[float]) -> None: ...


class Counted:
    """The rows of one release that were scored and answered. They only rise."""

    __slots__ = ("model", "rows", "version")

    def __init__(self, model: str = "", version: str = "") -> None:
        self.model = model
        self.version = version
        self.rows = 0

    def values(self) -> Sequence[float]:
        return (self.rows,)

    def restore(self, values: Sequence[float]) -> None:
        self.rows = int(values[0])


class Latency:
    """How long something took: the sum of seconds, and how many times fell into each bucket, the last without end."""

    __slots__ = ("buckets", "requests", "seconds")

    def __init__(self, buckets: tuple[float, ...] = BUCKETS) -> None:
        self.buckets = buckets
        self.seconds = 0.0
        self.requests = [0] * (len(buckets) + 1)

    def took(self, seconds: float) -> None:
        """Count one. Plain additions, each whole under CPython's lock, cost a tenth of what the client library's
        locked counters do."""
        self.seconds += seconds
        self.requests[bisect_left(self.buckets, seconds)] += 1

    def values(self) -> Sequence[float]:
        return (self.seconds, *self.requests)

    def restore(self, values: Sequence[float]) -> None:
        self.seconds = values[0]
        self.requests = [int(value) for value in values[1:]]


class Number:
    """One number, counted or set."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, by: float = 1) -> None:
        self.value += by

    def set(self, value: float) -> None:
        self.value = value

    def values(self) -> Sequence[float]:
        return (self.value,)

    def restore(self, values: Sequence[float]) -> None:
        self.value = values[0]


PREDICTIONS = Family("model_predictions", "Rows scored and answered.", ("model_name", "model_version"), most=500)
REQUESTS = Family("requests", "", ("deployment", "model_name"), buckets=BUCKETS)
FAILED = Family("seatrial_requests", "Prediction requests.", ("deployment", "status"))
DOORS = Family("seatrial_http_requests", "HTTP requests.", ("door", "status"))
ERRORS = Family(
    "model_prediction_errors",
    "Prediction requests that were not answered with a prediction, by error code.",
    ("model_name", "code"),
    most=500,
)
UNSEEN = Family(
    "model_unseen_categories",
    "Values of category inputs that were never seen in training.",
    ("model_name", "model_version", "input"),
    most=500,
)
DEGRADED = Family(
    "model_degraded_predictions",
    "Rows answered although something could not be asked.",
    ("model_name", "model_version"),
)
UNLOGGED = Family(
    "seatrial_unlogged_predictions",
    "Rows answered although the prediction log did not take them.",
    ("model_name", "model_version"),
)
STAGE = Family(
    "model_prediction_stage_seconds",
    f"Time of one stage of a prediction request, of one request in {SAMPLED}: wait for a thread, read the body, "
    "look_up features, score (the model alone), answer (all else until the answer is made), log (until its rows are "
    "written).",
    ("model_name", "stage"),
    buckets=STAGE_BUCKETS,
)
MANY = Family("seatrial_batch_requests", "Answered requests that held a list of rows.", ("deployment",))
MANY_ROWS = Family("seatrial_batch_rows", "Rows of answered requests that held a list of rows.", ("deployment",))
STORE = Family(
    "seatrial_online_store_failures", "Look-ups that the online store did not answer.", ("model_name", "code")
)
CHILDREN = Family(
    "seatrial_child_restarts",
    "Times that a process that scores for a release ended and was started again.",
    ("model_name",),
)
REFUSED = Family(
    "seatrial_routes_refused",
    "Route files or releases that were not taken; the one before stays in use.",
    ("deployment", "code"),
)
DISTRUSTED = Family(
    "seatrial_distrusted",
    "1 while no trusted key vouches for what a deployment answers with, because its key was revoked.",
    ("deployment",),
    merge="max",
)
TRACES = Family("seatrial_traces", "Traced requests by what became of their spans.", ("outcome",))
UNSENT = Family(
    "seatrial_answers_unsent",
    "Answers that could not be written to their connection, which was closed. They are in the log.",
    (),
)
STORED = Family(
    "seatrial_stored_prediction_requests",
    "Requests for a prediction that a batch stored; without a model when nothing of that name is served.",
    ("model_name", "status"),
)
CACHE = Family(
    "seatrial_score_cache_lookups",
    "Rows whose score was looked for among those that are kept: hit or miss.",
    ("model_name", "model_version", "outcome"),
    most=500,
)
LOG_BYTES = Family("seatrial_log_bytes", "Bytes appended to the prediction log.", ())
OVER = Family(
    "seatrial_series_over_limit",
    "Times that something was counted under `other`, because its metric has as many series as it may.",
    ("metric",),
)
COUNTERS = (
    PREDICTIONS,
    FAILED,
    DOORS,
    ERRORS,
    UNSEEN,
    DEGRADED,
    MANY,
    MANY_ROWS,
    STORE,
    CHILDREN,
    UNLOGGED,
    REFUSED,
    TRACES,
    UNSENT,
    STORED,
    CACHE,
    LOG_BYTES,
    OVER,
)

# of one worker; told by worker, and together
READY = Family("ready", "", ())
GENERATION = Family("generation", "", ("deployment",))
STARTS = Family("starts", "", ())
CPU = Family("cpu", "", ())
IN_FLIGHT = Family("in_flight", "", ())
LOADED = Family("loaded", "", ())
LOADED_BYTES = Family("loaded_bytes", "", ())
PROCESS = Family("process", "", ("measure",))
FAMILIES = (
    *COUNTERS,
    REQUESTS,
    STAGE,
    DISTRUSTED,
    READY,
    GENERATION,
    STARTS,
    CPU,
    IN_FLIGHT,
    LOADED,
    LOADED_BYTES,
    PROCESS,
)
_BY_NAME = {family.name: family for family in FAMILIES}


class _Table:
    """The series of one family in this process."""

    def __init__(self, family: Family, metrics: Metrics) -> None:
        self.family = family
        self.series: dict[tuple[str, ...], Series] = {}
        self._metrics = metrics

    def of(self, *labels: str) -> Series:
        """The series with these labels, or that for everything else when there are as many as may be."""
        found = self.series.get(labels)
        if found is None:
            found = self._metrics.begin(self, labels)
        return found

    def number(self, *labels: str) -> Number:
        found = self.of(*labels)
        assert isinstance(found, Number)
        return found


class Metrics:
    """The metrics of one service.

    folder: where the workers of one server keep their numbers while it runs, best in memory (tmpfs); None: this process
        serves alone.
    slot: of this worker among them, from 0; one that takes a dead one's place has its slot.
    registry: what `render` shows; further collectors may be registered. refusals: what writes of requests
    without a prediction to the server's log; None: nothing does.
    Raises SlotTaken and SlotUnwritable with a folder.
    """

    def __init__(self, folder: Path | None = None, slot: int = 0) -> None:
        self.registry = CollectorRegistry()
        self.refusals: Refusals | None = None
        self.folder = folder
        self.slot = slot
        self._file = None if folder is None else Slot(folder, slot)
        self._lock = threading.Lock()
        self._placed: list[tuple[int, Series, Sequence[float]]] = []
        self._process = ProcessCollector(registry=None)
        self._tables = {family.name: _Table(family, self) for family in FAMILIES}
        for table in self._tables.values():
            if table.family.labels:
                self._begin(table, (OTHER,) * len(table.family.labels))
        if self._file is not None:
            for (name, labels), values in self._file.before.items():
                self._restore(name, labels, values)
        self.ready = self._number(READY)
        self.in_flight = self._number(IN_FLIGHT)
        self._unsent = self._number(UNSENT)
        self._log_bytes = self._number(LOG_BYTES)
        self._starts = self._number(STARTS)
        self._starts.inc()
        self._cpu = self._number(CPU)
        self._cpu_before = self._cpu.value
        self._log_before = self._log_bytes.value
        self.log: PredictionLog | None = None  # of which the bytes are told
        for gauge in (self.ready, self.in_flight):
            gauge.set(0)
        for family in (GENERATION, DISTRUSTED, PROCESS):
            for series in self._tables[family.name].series.values():
                series.restore([0.0])
        self._measure()
        self.flush()
        self.registry.register(_Collected(self))

    # -- counting

    def of_release(self, model: str, version: str) -> Counted:
        """The counts of a release; a version that comes back goes on where it was."""
        found = self._tables[PREDICTIONS.name].of(model, version)
        assert isinstance(found, Counted)
        return found

    def of_deployment(self, deployment: str, model: str) -> Latency:
        """The latencies of the answers of a deployment, whose live release is of a model."""
        return self._latency(REQUESTS, deployment, model)

    def of_stage(self, model: str, stage: str) -> Latency:
        """The latencies of one of STAGES."""
        return self._latency(STAGE, model, stage)

    def failed(self, model: str, code: str, *, deployment: str = "", status: int = 0, **told: str) -> None:
        """Count a prediction request that got no prediction, and write it to the server's log.

        status: of HTTP; deployment: empty when none was found. told: what else the log says, see `Refusals`.
        """
        self._count(ERRORS, model, code)
        if status:
            self._count(FAILED, deployment, status_class(status))
            if self.refusals is not None:
                self.refusals.tell(code, status, model=model, deployment=deployment, **told)

    def asked(self, door: str, status: int) -> None:
        """Count an answer that left by one of the doors."""
        self._count(DOORS, door, status_class(status))

    def door(self, door: str, status: int = 200) -> Number:
        """What `asked` counts in."""
        return self._number(DOORS, door, status_class(status))

    def many(self, deployment: str, rows: int) -> None:
        """Count an answered request that held a list of rows."""
        self._count(MANY, deployment)
        self._count(MANY_ROWS, deployment, by=rows)

    def unseen(self, model: str, version: str, input: str, count: int) -> None:
        self._count(UNSEEN, model, version, input, by=count)

    def degraded(self, model: str, version: str, rows: int) -> None:
        self._count(DEGRADED, model, version, by=rows)

    def store_failed(self, model: str, code: str) -> None:
        self._count(STORE, model, code)

    def child_died(self, model: str) -> None:
        self._count(CHILDREN, model)

    def traced(self, outcome: str, traces: int = 1) -> None:
        """Count traces that were "sent" or "dropped"."""
        self._count(TRACES, outcome, by=traces)

    def unlogged(self, model: str, version: str, rows: int) -> None:
        self._count(UNLOGGED, model, version, by=rows)

    def of_cache(self, model: str, version: str) -> tuple[Number, Number]:
        """What counts the scores of a release that were kept, and those that were not."""
        return self._number(CACHE, model, version, "hit"), self._number(CACHE, model, version, "miss")

    def stored(self, model: str, status: int, code: str = "") -> None:
        """Count a request for a stored prediction; one that was refused is written to the server's log."""
        self._count(STORED, model, status_class(status))
        if status >= 400 and self.refusals is not None:
            self.refusals.tell(code, status, model=model)

    def unsent(self) -> None:
        """Count an answer that could not be written to its connection."""
        self._unsent.inc()

    def took_up(self, deployment: str, generation: int) -> None:
        self._number(GENERATION, deployment).set(generation)

    def distrusted(self, deployment: str, *, now: bool) -> None:
        self._number(DISTRUSTED, deployment).set(int(now))

    def refused(self, deployment: str, code: str) -> None:
        self._count(REFUSED, deployment, code)

    def loaded(self, releases: int, model_bytes: int = 0) -> None:
        """How many releases are in this worker's memory, and what their models took when they were loaded."""
        self._number(LOADED).set(releases)
        self._number(LOADED_BYTES).set(model_bytes)

    # -- telling

    def render(self) -> bytes:
        """Every metric in the Prometheus text format, of all workers together."""
        return generate_latest(self.registry)

    async def keep(self) -> None:
        """Write this worker's numbers to its slot's file as long as the task runs, FLUSH_SECONDS apart.

        What was counted since is lost when the process is killed; the prediction log has the rows.
        """
        while self.folder is not None:
            for _ in range(MEASURED):
                self.flush()
                await asyncio.sleep(FLUSH_SECONDS)
            self._measure()

    def flush(self) -> None:
        """Write what changed to the slot's file."""
        with self._lock:
            if self._file is None:
                return
            for number, (first, series, written) in enumerate(self._placed):
                values = series.values()
                if values != written:
                    self._file.write(first, values)
                    self._placed[number] = (first, series, values)

    def close(self) -> None:
        """Write what changed, and give the slot up. Counting goes on in memory."""
        if self.refusals is not None:
            self.refusals.close()
        self.ready.set(0)
        self._measure()
        self.flush()
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def found(self) -> tuple[list[Found], int]:
        """The numbers of every slot, this process's as they are now, and how many slots' files cannot be read."""
        self._measure()
        self.flush()
        others: list[Found] = []
        unreadable = 0
        if self.folder is not None:
            others, unreadable = read_slots(self.folder)
        own = Found(
            self.slot,
            True,
            {
                (table.family.name, labels): list(series.values())
                for table in self._tables.values()
                for labels, series in list(table.series.items())
            },
        )
        found = [one for one in others if one.slot != self.slot] + [own]
        return sorted(found, key=lambda one: one.slot), unreadable

    # -- inside

    def begin(self, table: _Table, labels: tuple[str, ...]) -> Series:
        """A new series, or that for everything else."""
        with self._lock:
            known = table.series.get(labels)
            if known is not None:
                return known
            if len(table.series) <= table.family.most:  # that for everything else is one of them
                made = self._begin(table, labels)
                if made is not None:
                    return made
        if table.family is not OVER:
            self._count(OVER, table.family.name)
        return table.series[(OTHER,) * len(labels)]

    def _begin(self, table: _Table, labels: tuple[str, ...]) -> Series | None:
        family = table.family
        first = None if self._file is None else self._file.place(family.name, labels, family.width)
        always = labels == (OTHER,) * len(labels)  # so for a family without labels
        if self._file is not None and first is None and not always:
            return None  # the file is full
        made: Series = Counted(*labels) if family is PREDICTIONS else Number()
        if family.buckets:
            made = Latency(family.buckets)
        table.series[labels] = made
        if first is not None:
            self._placed.append((first, made, ()))
        return made

    def _restore(self, name: str, labels: tuple[str, ...], values: Sequence[float]) -> None:
        """Go on where the process before this one stopped."""
        family = _BY_NAME.get(name)
        if family is None or len(labels) != len(family.labels) or len(values) != family.width:
            return  # of another version of seatrial
        table = self._tables[name]
        series = table.series.get(labels)
        if series is None and len(table.series) <= family.most:
            series = self._begin(table, labels)
        if series is not None:
            series.restore(values)

    def _number(self, family: Family, *labels: str) -> Number:
        return self._tables[family.name].number(*labels)

    def _latency(self, family: Family, *labels: str) -> Latency:
        found = self._tables[family.name].of(*labels)
        assert isinstance(found, Latency)
        return found

    def _count(self, family: Family, *labels: str, by: float = 1) -> None:
        self._tables[family.name].number(*labels).inc(by)

    def _measure(self) -> None:
        """Look at what this process uses and wrote."""
        if self.log is not None:
            self._log_bytes.set(max(self._log_bytes.value, self._log_before + self.log.written))
        for measured in self._process.collect():
            value = measured.samples[0].value
            if measured.name == "process_cpu_seconds":
                self._cpu.set(self._cpu_before + value)
            else:
                self._number(PROCESS, measured.name).set(value)


def status_class(status: int) -> str:
    return f"{status // 100}xx"


class _Collected(Collector):
    """Hands the numbers of all workers to the registry."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        slots, unreadable = self._metrics.found()
        alive = [one for one in slots if one.alive]
        merged = {family.name: _merged(family, slots, alive) for family in FAMILIES}
        yield from self._predictions(merged)
        for family in COUNTERS:
            if family is not FAILED:
                yield _counter(family, merged[family.name])
        yield _histogram(STAGE, merged[STAGE.name])
        yield _gauge(DISTRUSTED, merged[DISTRUSTED.name])
        yield from _of_workers(slots, alive)
        yield from _of_processes(slots, alive)
        yield _one("seatrial_metrics_files_unreadable", "Files of workers' numbers that cannot be read.", unreadable)
        info = GaugeMetricFamily("seatrial_build_info", "1, with the version of seatrial.", labels=["version"])
        info.add_metric([seatrial.__version__], 1)
        yield info

    def _predictions(self, merged: Mapping[str, Mapping[tuple[str, ...], Sequence[float]]]) -> Iterator[Metric]:
        """Latencies by model and by deployment, and from them how many requests were answered."""
        requests = merged[REQUESTS.name]
        yield _histogram(
            Family(
                "model_prediction_latency_seconds",
                "Time from the request's last byte to the answer, look-up and log included.",
                ("model_name",),
                buckets=BUCKETS,
            ),
            _added((labels[1:], values) for labels, values in requests.items()),
        )
        by_deployment = _added((labels[:1], values) for labels, values in requests.items())
        yield _histogram(
            Family(
                "seatrial_request_latency_seconds",
                "Time from the request's last byte to the answer, look-up and log included, of requests answered.",
                ("deployment",),
                buckets=BUCKETS,
            ),
            by_deployment,
        )
        by_status = dict(merged[FAILED.name])
        for (deployment,), values in by_deployment.items():
            by_status[deployment, "2xx"] = [sum(values[1:])]
            by_status.setdefault((deployment, "5xx"), [0.0])  # so that a share of failures is known before the first
        yield _counter(FAILED, by_status)


_Merged = Mapping[tuple[str, ...], Sequence[float]]


def _merged(family: Family, slots: Sequence[Found], alive: Sequence[Found]) -> dict[tuple[str, ...], Sequence[float]]:
    """The series of a family over all workers. What is counted is the sum, of those that ended too."""
    found: dict[tuple[str, ...], list[Sequence[float]]] = {}
    for one in slots if family.merge == "sum" else alive:
        for (name, labels), values in one.series.items():
            if name == family.name and len(labels) == len(family.labels) and len(values) == family.width:
                found.setdefault(labels, []).append(values)
    merge = MERGES[family.merge]
    merged = {labels: [merge(column) for column in zip(*many, strict=True)] for labels, many in found.items()}
    other = (OTHER,) * len(family.labels)
    return {labels: values for labels, values in sorted(merged.items()) if not labels or labels != other or any(values)}


def _added(parts: Iterable[tuple[tuple[str, ...], Sequence[float]]]) -> dict[tuple[str, ...], Sequence[float]]:
    found: dict[tuple[str, ...], Sequence[float]] = {}
    for labels, values in parts:
        before = found.get(labels)
        found[labels] = list(values) if before is None else [a + b for a, b in zip(before, values, strict=True)]
    return found


def _counter(family: Family, series: _Merged) -> Metric:
    metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
    for labels, values in series.items():
        metric.add_metric(labels, values[0])
    return metric


def _gauge(family: Family, series: _Merged) -> Metric:
    metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for labels, values in series.items():
        metric.add_metric(labels, values[0])
    return metric


def _one(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=value)


def _histogram(family: Family, series: _Merged) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    ends = [*map(str, family.buckets), "+Inf"]
    for labels, (seconds, *counts) in series.items():
        metric.add_metric(labels, list(zip(ends, accumulate(counts), strict=True)), seconds)
    return metric


def _of_workers(slots: Sequence[Found], alive: Sequence[Found]) -> Iterator[Metric]:
    """What is told of each worker, and what of all: ready when all are, the lowest generation that one has taken."""
    yield _one("seatrial_workers", "Workers that run.", len(alive))
    ready = min(_running(one, READY) for one in slots)
    yield _one("seatrial_ready", "1 when every deployment is served, by every worker.", ready)
    yield _one(
        "seatrial_requests_in_flight",
        "HTTP requests that wait for something: a process that scores, a page; others are answered when they are read.",
        sum(_value(one, IN_FLIGHT) for one in alive),
    )
    generations = {one.slot: _by_label(one, GENERATION) for one in alive}
    deployments = sorted({name for taken in generations.values() for name, number in taken.items() if number})
    lowest = GaugeMetricFamily(
        "seatrial_route_generation",
        "Generation of the route in use; of several workers the lowest.",
        labels=["deployment"],
    )
    each = GaugeMetricFamily(
        "seatrial_worker_route_generation",
        "Generation of the route that a worker uses; 0: it has none yet.",
        labels=["deployment", "worker"],
    )
    for name in deployments:
        lowest.add_metric([name], min(taken.get(name, 0) for taken in generations.values()))
        for slot, taken in generations.items():
            each.add_metric([name, str(slot)], taken.get(name, 0))
    yield lowest
    yield each
    of_worker: dict[str, tuple[str, Callable[[Found], float]]] = {
        "seatrial_worker_up": ("1 while the worker runs.", lambda one: int(one.alive)),
        "seatrial_worker_ready": ("1 when the worker serves every deployment.", lambda one: _running(one, READY)),
        "seatrial_worker_releases_loaded": ("Releases in the worker's memory.", lambda one: _running(one, LOADED)),
        "seatrial_worker_model_memory_bytes": (
            "Memory that the models of these releases took when they were loaded, in child processes too.",
            lambda one: _running(one, LOADED_BYTES),
        ),
        "seatrial_worker_resident_memory_bytes": (
            "Resident memory; what workers share counts for each.",
            lambda one: _measured(one, "process_resident_memory_bytes") if one.alive else 0,
        ),
    }
    for name, (help, value) in of_worker.items():
        gauge = GaugeMetricFamily(name, help, labels=["worker"])
        for one in slots:
            gauge.add_metric([str(one.slot)], value(one))
        yield gauge
    cpu = CounterMetricFamily(
        "seatrial_worker_cpu_seconds", "CPU time of the processes that had this slot.", labels=["worker"]
    )
    restarts = CounterMetricFamily(
        "seatrial_worker_restarts", "Times that a process took this slot over from another.", labels=["worker"]
    )
    for one in slots:
        cpu.add_metric([str(one.slot)], _value(one, CPU))
        restarts.add_metric([str(one.slot)], max(0, _value(one, STARTS) - 1))
    yield cpu
    yield restarts


def _of_processes(slots: Sequence[Found], alive: Sequence[Found]) -> Iterator[Metric]:
    """The metrics of a process that every client library has, of the workers together."""
    yield CounterMetricFamily(
        "process_cpu_seconds",
        "CPU time of all workers, of those that ended too.",
        value=sum(_value(one, CPU) for one in slots),
    )
    for name, help, merge in (
        ("process_resident_memory_bytes", "Resident memory of all workers; what they share counts for each.", "sum"),
        ("process_virtual_memory_bytes", "Virtual memory of all workers.", "sum"),
        ("process_open_fds", "Open file descriptors of all workers.", "sum"),
        ("process_max_fds", "Open file descriptors that each worker may have.", "min"),
        ("process_start_time_seconds", "Start of the worker that runs longest, seconds since 1970.", "min"),
    ):
        values = [value for one in alive if (value := _measured(one, name))]
        if values:
            yield _one(name, help, MERGES[merge](values))


def _value(one: Found, family: Family) -> float:
    return one.series.get((family.name, ()), [0.0])[0]


def _running(one: Found, family: Family) -> float:
    return _value(one, family) if one.alive else 0.0


def _measured(one: Found, name: str) -> float:
    return one.series.get((PROCESS.name, (name,)), [0.0])[0]


def _by_label(one: Found, family: Family) -> dict[str, float]:
    return {labels[0]: values[0] for (name, labels), values in one.series.items() if name == family.name}
