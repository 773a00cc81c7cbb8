"""Stream: requests that come as entries of a stream, answered into another.

An entry is settled only when its answer was logged and sent, so none is lost. One that is delivered again is answered
as the log says, and not logged again; its answer may stand twice in the stream of answers, with the same prediction_id,
which is made of the stream, the group, the entry and the row. What cannot be answered is set aside with the reason, and
holds nobody up. Nothing more is read than what is in hand until all of that is settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from seatrial.core.clock import monotonic
from seatrial.core.errors import Unavailable
from seatrial.core.identity import digest
from seatrial.serving.doors.http import MAX_BODY
from seatrial.serving.scoring.predictor import Draft, Predictor, ServerFailed, shadow
from seatrial.serving.service import WATCH_SECONDS, Service
from seatrial.stores.prediction_log import EVERY_CLASS, OF_CLASS, LoggedPrediction, LogSchema, PredictionLog
from seatrial.stores.streams import Answers, Entry, Stream, StreamRefused, StreamUnavailable

BATCH = 500
"""Entries in hand at most."""
MOST_DELIVERIES = 6
"""An entry that was given to so many consumers, none of which lived to settle it, is set aside."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0  # seconds between two attempts
TELL_LAG = 10.0  # seconds between two looks at how much is still to come
REQUEST, ROW = b"request", b"row"
START = 28  # characters of a prediction_id that are the entry's; the others are the row's place
BASICS = ("prediction_id", "prediction", "probability", "version", "release", "request_id", "latency_ms")


class StreamAnswered(msgspec.Struct, frozen=True):
    """How a stream is being answered. answered: entries; again: of these, those that the log had answered already;
    refused: entries that were set aside; lag: entries still to come, None when it is not known; waiting: what does not
    answer, empty while all do."""

    answered: int = 0
    again: int = 0
    refused: int = 0
    lag: int | None = None
    waiting: str = ""


Tell = Callable[[StreamAnswered], None]


class NotNow(Unavailable):
    """The service cannot answer at present; the same entries are tried again."""

    code = "stream.not_now"


class _Poison(Exception):
    """Why an entry can never be answered."""


class Made(NamedTuple):
    """What was made of some entries. answers: entry, prediction_id and answer; refused: entry and reason; again: how
    many of the answers the log had already."""

    answers: list[tuple[Entry, str, bytes]]
    refused: list[tuple[Entry, str]]
    drafts: list[Draft]
    again: int


class Answering:
    """Answers entries of one stream for one deployment.

    deployment: its name in `service`, which is refreshed here. name: of the stream, and of the group: with the entry
    they make its prediction_id.
    """

    def __init__(self, service: Service, deployment: str, log: PredictionLog, *, name: str, caller: str) -> None:
        self._service = service
        self._deployment = deployment
        self._log = log
        self._name = name
        self._caller = caller
        self._looked = -WATCH_SECONDS

    def answer(self, entries: Sequence[Entry]) -> Made:
        """Answer entries, and log the answers by one write. Raises NotNow and LogUnwritable; then none was logged."""
        predictor = self._predictor()
        known = self._known(predictor, [entry for entry in entries if entry.deliveries > 1])
        answers: list[tuple[Entry, str, bytes]] = []
        refused: list[tuple[Entry, str]] = []
        drafts: list[Draft] = []
        rows: list[tuple[LogSchema, LoggedPrediction]] = []
        again = 0
        for entry in entries:
            first = self.prediction_id(entry, 0)
            logged = known.get(first)
            try:
                if entry.deliveries >= MOST_DELIVERIES and logged is None:
                    raise _Poison(f"it was delivered {entry.deliveries} times, and nobody lived to settle it")
                draft = self._draft(predictor, entry, logged is not None)
            except _Poison as poison:
                refused.append((entry, str(poison)))
                continue
            ids = [self.prediction_id(entry, number) for number in range(max(1, len(draft.rows)))]
            if logged is None:
                drafts.append(draft)
                rows += [(schema, _renamed(record, id)) for (schema, record), id in zip(draft.rows, ids, strict=True)]
            else:
                again += 1
            answers.append((entry, first, _said(draft.answer.body, ids, known)))
        if rows:
            self._log.append_all(rows)
        for draft in drafts:
            predictor.count(draft, monotonic())
        return Made(answers, refused, drafts, again)

    def prediction_id(self, entry: Entry, row: int) -> str:
        """The id of a row of an entry: a version-8 UUID (RFC 9562), 90 bits of stream, group, deployment and entry."""
        made = digest(f"{self._deployment}\n{self._name}\n{entry.id}".encode())
        return f"{made[:8]}-{made[8:12]}-8{made[12:15]}-8{made[15:18]}-{made[18:22]}{row:08x}"

    def _predictor(self) -> Predictor:
        if monotonic() - self._looked >= WATCH_SECONDS:
            self._service.refresh()
            self._looked = monotonic()
        return self._service.predictor(self._deployment)

    def _draft(self, predictor: Predictor, entry: Entry, logged: bool) -> Draft:
        draft = predictor.draft(_body(entry), self._caller)
        if draft.answer.status == 200:
            return draft
        problem = msgspec.json.decode(draft.answer.body)
        if draft.answer.status >= 500 and problem.get("code") != ServerFailed.code:
            raise NotNow(f"{problem['detail']} [{problem['code']}]", state="What is in hand is tried again.")
        if logged:  # as the release of before answered it
            return draft
        raise _Poison(f"{problem['detail']} [{problem['code']}]")

    def _known(self, predictor: Predictor, entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
        """What the log holds of entries that were delivered before: its rows by prediction_id."""
        if not entries:
            return {}
        import pyarrow as pa
        import pyarrow.compute as pc

        several = any(share.release.signature.classes for share in predictor.shares)
        columns = [*BASICS, *(("predicted_class", EVERY_CLASS) if several else ())]
        rows = self._log.rows(deployment=self._deployment, columns=columns)
        starts = pa.array(sorted({self.prediction_id(entry, 0)[:START] for entry in entries}), pa.string())
        theirs = pc.is_in(pc.utf8_slice_codeunits(rows["prediction_id"], 0, START), value_set=starts)
        return {row["prediction_id"]: row for row in rows.filter(theirs).to_pylist()}


def answer_stream(
    stream: Stream,
    answers: Answers,
    answering: Answering,
    *,
    until_empty: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    tell: Tell | None = None,
    patience_seconds: float | None = None,
) -> StreamAnswered:
    """Answer entries until `stopped`, or until there is none; how it went. What is in hand is finished first.

    tell: called after each lot, and when something is waited for. patience_seconds: after so long without an answer of
    a server its error is raised; None: never. Raises StreamDamaged and StreamRefused at once.
    """
    so_far = StreamAnswered()
    tell = tell or _silent
    entries: list[Entry] = []
    made: Made | None = None  # their answers, logged
    sent = False
    pause, waits_since, looked = FIRST_PAUSE, 0.0, -TELL_LAG
    while not stopped() or (entries and not so_far.waiting):
        ours = True  # whether it is the stream of requests that is talked to
        try:
            entries = entries or stream.read(BATCH, wait_seconds=0.0 if until_empty else 0.5)
            if entries:
                ours = False
                made = made or answering.answer(entries)
                if made.answers and not sent:
                    answers.send([(id, said) for _, id, said in made.answers])
                sent = ours = True
                stream.settle([entry for entry, _, _ in made.answers], made.refused)
                shadow(made.drafts)
                so_far = StreamAnswered(
                    so_far.answered + len(made.answers),
                    so_far.again + made.again,
                    so_far.refused + len(made.refused),
                    so_far.lag,
                )
                entries, made, sent = [], None, False
                if monotonic() - looked >= TELL_LAG:
                    looked = monotonic()
                    so_far = msgspec.structs.replace(so_far, lag=stream.lag())
                tell(so_far)
            elif until_empty:
                if not stream.pending():
                    break
                _sleep(FIRST_PAUSE, stopped)  # another has it in hand, or had
            elif so_far.waiting:
                so_far = msgspec.structs.replace(so_far, waiting="")
                tell(so_far)
            pause, waits_since = FIRST_PAUSE, 0.0
        except StreamRefused:
            raise
        except Unavailable as error:
            waits_since = waits_since or monotonic()
            if patience_seconds is not None and monotonic() - waits_since > patience_seconds:
                raise
            so_far = msgspec.structs.replace(so_far, waiting=error.found)
            tell(so_far)
            _sleep(pause, stopped)
            pause = min(2 * pause, LONGEST_PAUSE)
            if ours or not _kept(stream, entries):  # they are delivered again
                entries, made, sent = [], None, False
    lag = so_far.lag
    with suppress(Unavailable):
        lag = stream.lag()
    return msgspec.structs.replace(so_far, lag=lag, waiting="")


def _kept(stream: Stream, entries: Sequence[Entry]) -> bool:
    """Whether the entries are still in hand; they are not when their server is away too."""
    try:
        stream.keep(entries)
    except StreamUnavailable:
        return False
    return True


def _body(entry: Entry) -> bytes:
    """The request of an entry: its field `request`, a body as POST /predict takes it, or `row`, the fields alone."""
    body, row = entry.fields.get(REQUEST), entry.fields.get(ROW)
    if body is None and row is None:
        raise _Poison("it has no field 'request', nor 'row'" if entry.fields else "it was deleted before it was read")
    if body is None:
        body = b'{"features":' + _one_object(row or b"") + b"}"
    if len(body) > MAX_BODY:
        raise _Poison(f"it has {len(body)} bytes; a request has at most {MAX_BODY}")
    return body


def _one_object(row: bytes) -> bytes:
    """The bytes of a JSON object, and nothing behind it that would stand beside the row in its request."""
    try:
        msgspec.json.decode(row, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        raise _Poison("its field 'row' is not one JSON object [request.not_json]") from None
    return row


def _renamed(record: LoggedPrediction, id: str) -> LoggedPrediction:
    own = record.request_id == record.prediction_id  # the caller gave none
    return msgspec.structs.replace(record, prediction_id=id, request_id=id if own else record.request_id)


def _said(body: bytes, ids: Sequence[str], known: Mapping[str, Mapping[str, Any]]) -> bytes:
    """An answer with the ids of its rows, and with what the log says of those that it knows."""
    document = msgspec.json.decode(body)
    if "predictions" not in document and "prediction" not in document:  # refused now, and answered before
        document = {}
    rows = document.get("predictions", [document])
    for row, id in zip(rows, ids, strict=True):
        own = row.get("request_id") == row.get("prediction_id")
        row["prediction_id"] = id
        if "predictions" not in document and own:
            row["request_id"] = id
        logged = known.get(id)
        if logged is not None:
            row.update(_as_logged(logged, row.get("prediction")))
            if "predictions" not in document:
                row |= {"request_id": logged["request_id"], "latency_ms": logged["latency_ms"]}
    return msgspec.json.encode(document)


def _as_logged(logged: Mapping[str, Any], now: Any) -> dict[str, Any]:
    """The parts of an answer that the log keeps. now: what the answer would be, for its type."""
    prediction, probability = logged["prediction"], logged["probability"]
    if logged.get("predicted_class") is not None:
        prediction = logged["predicted_class"]
        prediction = int(prediction) if isinstance(now, int) else prediction
        probability = {
            name.removeprefix(OF_CLASS): value
            for name, value in logged.items()
            if name.startswith(OF_CLASS) and value is not None
        }
    elif probability is not None:
        prediction = int(prediction)
    return {
        "prediction": prediction,
        "probability": probability,
        "model_version": logged["version"],
        "release": logged["release"],
    }


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    """Wait, but no longer than until it is to stop."""
    until = monotonic() + seconds
    while not stopped() and (left := until - monotonic()) > 0:
        time.sleep(min(left, 0.1))


def _silent(_: StreamAnswered) -> None:
    pass
