"""Traces: one request's way through the server, sent to an OpenTelemetry collector.

Off unless the environment names a collector (OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT): then
a request costs one look at an attribute. A request that comes with a W3C `traceparent` is traced when its caller's
trace is sampled; others by chance, of which OTEL_TRACES_SAMPLER_ARG is the share (default 0.01). The event loop only
notes when a traced request's stages began and ended (`serving.scoring.stages`); a thread makes spans of this and sends
them as OTLP over HTTP. A collector that is away or slow costs spans, which are counted, and nothing else.
"""

from __future__ import annotations

import importlib.util
import logging
import queue
import random
import re
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from seatrial.core.clock import machine_us, monotonic
from seatrial.core.errors import SeatrialError
from seatrial.serving.doors.protocol import PredictionProtocol
from seatrial.serving.meters.metrics import Metrics
from seatrial.serving.scoring.predictor import Answer, Draft, Predictor
from seatrial.serving.scoring.requests import Request
from seatrial.serving.scoring.stages import Watched

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

SHARE = 0.01
MOST_WAITING = 2000
"""Traces that wait to be sent; what comes beyond is dropped, and counted."""
BATCH = 100
SEND_SECONDS = 1.0
CLOSE_SECONDS = 2.0

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LOGGER = logging.getLogger("seatrial.serving")


class Context(NamedTuple):
    """A trace and the span of the caller in it; parent 0: there is none."""

    trace: int
    parent: int
    sampled: bool


@dataclass
class Trace:
    """A request that is traced. start, end, and those of its stages: microseconds since 1970, UTC."""

    context: Context
    span: int
    deployment: str
    model: str
    start_us: float = 0.0
    end_us: float = 0.0
    stages: list[tuple[str, float, float]] = field(default_factory=list)
    facts: dict[str, str | int] = field(default_factory=dict)
    error: str = ""

    @property
    def traceparent(self) -> bytes:
        return b"00-%032x-%016x-01" % (self.context.trace, self.span)


class TracedAnswer(Answer):
    """An answer that says in which trace it was made, and goes on to when it is changed."""

    traceparent: bytes = b""

    def _replace(self, **changes: Any) -> TracedAnswer:
        return _in_trace(super()._replace(**changes), self.traceparent)


def _in_trace(answer: Answer, traceparent: bytes) -> TracedAnswer:
    found = TracedAnswer(*answer)
    found.traceparent = traceparent
    return found


class TracedProtocol(PredictionProtocol):
    """Connections of a server whose requests may be traced: answers carry their trace."""

    def send(self, answer: Answer, ending: int) -> None:
        if not isinstance(answer, TracedAnswer) or not answer.traceparent:
            super().send(answer, ending)
            return
        before = self.server_state
        self.server_state = _More(before, [*before.default_headers, (b"traceparent", answer.traceparent)])  # type: ignore[assignment]
        try:
            super().send(answer, ending)
        finally:
            self.server_state = before


class _More:
    """The state of a server with some headers more."""

    def __init__(self, state: Any, default_headers: list[tuple[bytes, bytes]]) -> None:
        self._state = state
        self.default_headers = default_headers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)


class Traces:
    """Which requests of a server are traced, and the thread that sends what was noted of them.

    exporter: where spans go. share: of requests without a caller's trace, from 0 to 1.
    """

    def __init__(self, exporter: SpanExporter, metrics: Metrics, *, share: float = SHARE) -> None:
        self._exporter = exporter
        self._metrics = metrics
        self._share = share
        self._waiting: queue.Queue[Trace | None] = queue.Queue(MOST_WAITING)
        self._closing = threading.Event()
        self._failing = False
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # told here, once for each time it begins
        self._thread = threading.Thread(target=self._send_all, name="seatrial-traces", daemon=True)
        self._thread.start()

    def watched(self, predictor: Predictor, headers: Iterable[tuple[bytes, bytes]]) -> Predictor:
        """The predictor, or one that notes what it does, for a request that is traced. headers: names are lower."""
        context = next((_parsed(value) for name, value in headers if name == b"traceparent"), None)
        if context is None:
            context = Context(random.getrandbits(128) or 1, 0, random.random() < self._share)
        if not context.sampled:
            return predictor
        return _Traced(predictor, self, context)

    def take(self, trace: Trace) -> None:
        """Send it, or drop it when too many wait."""
        try:
            self._waiting.put_nowait(trace)
        except queue.Full:
            self._metrics.traced("dropped")

    def close(self) -> None:
        """Send what waits, for CLOSE_SECONDS at most."""
        self._closing.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(CLOSE_SECONDS)
        self._exporter.shutdown()

    def _send_all(self) -> None:
        maker = _Maker()
        while True:
            batch = self._batch()
            if batch:
                self._send(maker.spans(batch), len(batch))
            elif self._closing.is_set():
                return

    def _batch(self) -> list[Trace]:
        """What came within SEND_SECONDS, BATCH at most."""
        batch: list[Trace] = []
        end = monotonic() + SEND_SECONDS
        while len(batch) < BATCH and (left := end - monotonic()) > 0:
            try:
                one = self._waiting.get(block=not self._closing.is_set(), timeout=left)
            except queue.Empty:
                break
            if one is not None:
                batch.append(one)
        return batch

    def _send(self, spans: list[ReadableSpan], traces: int) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            sent = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception:  # whatever it is: only this thread must not end
            sent = False
        self._metrics.traced("sent" if sent else "dropped", traces)
        if sent == self._failing:
            self._failing = not sent
            _LOGGER.warning("traces are sent again" if sent else "the collector does not take traces; they are dropped")


class _Traced(Watched):
    """A predictor for one request that is traced."""

    def __init__(self, of: Predictor, traces: Traces, context: Context) -> None:
        super().__init__(of, _noted)
        self._traces = traces
        self._trace = Trace(context, random.getrandbits(64) or 1, of.deployment, self._model)

    def draft(
        self,
        body: bytes,
        caller: str = "",
        *,
        since: float | None = None,
        wait: bool = True,
        request: Request | None = None,
    ) -> Draft:
        draft = super().draft(body, caller, since=since, wait=wait, request=request)
        return draft._replace(answer=_in_trace(draft.answer, self._trace.traceparent))

    def refuse(self, error: SeatrialError, release: str = "", **ids: str) -> Answer:
        self._trace.error = error.code
        self._trace.facts["http.response.status_code"] = error.http_status
        self.note(self._began, monotonic())
        answer = super().refuse(error, release, trace_id=f"{self._trace.context.trace:032x}", **ids)
        return _in_trace(answer, self._trace.traceparent)

    def note(self, start: float, now: float) -> None:
        """Hand the trace over. Instants are monotonic."""
        to_us = machine_us() - now * 1e6
        trace = self._trace
        trace.start_us, trace.end_us = to_us + start * 1e6, to_us + now * 1e6
        trace.stages = [(stage, to_us + begun * 1e6, to_us + ended * 1e6) for stage, begun, ended in self.took]
        self._traces.take(trace)


def _noted(one: Watched, draft: Draft, now: float) -> None:
    assert isinstance(one, _Traced)
    facts = one._trace.facts
    facts["http.response.status_code"] = 200
    facts["seatrial.rows"] = sum(rows for _, rows in draft.counts)
    facts["seatrial.model_version"] = ",".join(sorted({counted.version for counted, _ in draft.counts}))
    if draft.rows:
        facts["seatrial.request_id"] = draft.rows[0][1].request_id
        facts["seatrial.prediction_id"] = draft.rows[0][1].prediction_id
    one.took.append(("log", one._drafted, now))
    one.note(draft.start, now)


class _Maker:
    """Spans of traces, by OpenTelemetry's SDK."""

    def __init__(self) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        made: list[ReadableSpan] = []
        ids: list[tuple[int, int]] = []

        class Ids(RandomIdGenerator):
            def generate_span_id(self) -> int:
                return ids.pop()[1] if ids else super().generate_span_id()

            def generate_trace_id(self) -> int:
                return ids[-1][0] if ids else super().generate_trace_id()

        class Kept(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                made.append(span)

        resource = Resource({"service.name": "seatrial"}).merge(_named())
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=Ids())
        provider.add_span_processor(Kept())
        self._tracer = provider.get_tracer("seatrial")
        self._made, self._ids = made, ids

    def spans(self, traces: Iterable[Trace]) -> list[ReadableSpan]:
        from opentelemetry.trace import (
            NonRecordingSpan,
            SpanContext,
            SpanKind,
            Status,
            StatusCode,
            TraceFlags,
            set_span_in_context,
        )

        self._made.clear()
        for trace in traces:
            trace_id, parent, _ = trace.context
            context = set_span_in_context(
                NonRecordingSpan(SpanContext(trace_id, parent, is_remote=True, trace_flags=TraceFlags(1)))
            )
            self._ids.append((trace_id, trace.span))
            facts = {"seatrial.deployment": trace.deployment, "seatrial.model": trace.model} | trace.facts
            if trace.error:
                facts["error.type"] = trace.error
            root = self._tracer.start_span(
                f"predict {trace.deployment}",
                context,
                SpanKind.SERVER,
                facts,
                start_time=round(trace.start_us * 1000),
            )
            self._ids.clear()
            within = set_span_in_context(root)
            for stage, start_us, end_us in trace.stages:
                child = self._tracer.start_span(stage, within, start_time=round(start_us * 1000))
                child.end(round(end_us * 1000))
            if trace.error and int(trace.facts.get("http.response.status_code", 0)) >= 500:
                root.set_status(Status(StatusCode.ERROR))
            root.end(round(trace.end_us * 1000))
        return list(self._made)


def _named() -> Any:
    """What the environment says of this service."""
    from opentelemetry.sdk.resources import OTELResourceDetector

    return OTELResourceDetector().detect()


def _parsed(value: bytes) -> Context | None:
    """A W3C traceparent (Trace Context, section 3.2); None for what is none."""
    found = _TRACEPARENT.fullmatch(value.strip())
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5]):
        return None
    trace, parent = int(found[2], 16), int(found[3], 16)
    return Context(trace, parent, bool(int(found[4], 16) & 1)) if trace and parent else None


def from_environment(environment: Mapping[str, str], metrics: Metrics) -> Traces | None:
    """The traces that the environment asks for; None when it asks for none, or what they need is not installed."""
    if not any(environment.get(name) for name in _ENDPOINTS) or environment.get("OTEL_SDK_DISABLED") == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER") == "none" or environment.get("OTEL_TRACES_SAMPLER") == "always_off":
        return None
    if importlib.util.find_spec("opentelemetry") is None or not _installed():
        _LOGGER.warning(
            "the environment names a collector of traces, and what sends them is not installed: "
            "run `pip install 'seatrial[otel]'`. Nothing is traced"
        )
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return Traces(OTLPSpanExporter(), metrics, share=_share(environment))


def _installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        return False


def _share(environment: Mapping[str, str]) -> float:
    if environment.get("OTEL_TRACES_SAMPLER", "").endswith("always_on"):
        return 1.0
    text = environment.get("OTEL_TRACES_SAMPLER_ARG", "")
    try:
        share = float(text) if text else SHARE
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        _LOGGER.warning("OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1; %g of the requests are traced", SHARE)
        return SHARE
    return share
