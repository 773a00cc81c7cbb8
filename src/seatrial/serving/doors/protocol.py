"""One connection: a prediction is answered where its last byte is read; everything else goes to the application.

A framework's request (a task, a queue of messages, two writes) costs more than a whole prediction. So this protocol
takes `POST /predict` and `POST /models/NAME/predict` out of uvicorn's hands as soon as their head is complete.
What was answered in one turn of the event loop is logged by one write, and only then leaves. What looks features up is
answered at the end of its turn, with one round trip to the online store for all of it. What another process
scores is left to the application, which waits for it elsewhere.

It also guards: heads, bodies and idle connections have a deadline and a size, and what is no HTTP gets a problem
document. Nothing here waits, so a connection that trickles its bytes keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import logging
import select
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from seatrial.core.errors import SeatrialError
from seatrial.serving.doors.http import (
    JSON,
    PROBLEM,
    HeadTooLarge,
    NotHttp,
    body_too_large,
    body_too_slow,
    check_head,
    check_host,
    in_form,
)
from seatrial.serving.doors.ways import PREDICT
from seatrial.serving.scoring.predictor import Answer, Draft, Later, drafted, finish, problem, shadow

if TYPE_CHECKING:
    from seatrial.serving.doors.http import Front
    from seatrial.serving.meters.metrics import Metrics
    from seatrial.stores.prediction_log import PredictionLog

MAX_HEAD = 64 * 2**10
LOOKS = 0.7
"""Between two looks at a connection, of the time that a body may take. Two of them pass at most before a head that does
not end is given up, which is then within 30 seconds."""
IDLE_LOOKS = 5
LINGER_SECONDS = 1.0

STAY, CLOSE, LINGER = 0, 1, 2
"""What becomes of a connection with an answer: it stays; it is closed; it is closed, and what its caller goes on
sending is read and dropped for a while, because a connection that is closed before takes the answer away."""
_LOGGER = logging.getLogger("seatrial.serving")


class Turn:
    """The answers of one turn of the event loop, in the order in which they were made."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: PredictionLog | None, metrics: Metrics) -> None:
        self._loop = loop
        self._log = log
        self._metrics = metrics
        self._answered = metrics.door(PREDICT)
        self._refused = 0
        self._waiting: list[tuple[PredictionProtocol, Draft | Later, int]] = []
        self._later = False  # whether some of them are not drafted yet
        self.draining = False  # every connection is closed with its next answer

    def add(self, connection: PredictionProtocol, draft: Draft | Later, ending: int) -> None:
        """Answer on a connection at the end of this turn. ending: STAY, CLOSE or LINGER, with this very answer."""
        if not self._waiting:
            self._loop.call_soon(self.send)
        self._waiting.append((connection, draft, ending))
        self._later = self._later or isinstance(draft, Later)

    def send(self) -> None:
        """Log what waits, and send it."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            asked = [draft for _, draft, _ in waiting]
            drafts = drafted(asked) if self._later else cast("list[Draft]", asked)
            self._later = False
            answers = finish(self._log, drafts)
            for (connection, _, ending), answer in zip(waiting, answers, strict=True):
                try:
                    connection.send(answer, ending)
                except Exception as error:  # of this connection alone: the others have their answers
                    connection.give_up(error)
            self._answered.value += len(answers) - self._refused
            self._refused = 0
            shadow(drafts)

    def refused(self, status: int) -> None:
        """Count an answer of this turn that is no prediction."""
        self._refused += 1
        self._metrics.asked(PREDICT, status)


class PredictionProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the short way for predictions. One for each connection."""

    def __init__(self, front: Front, **given: Any) -> None:
        super().__init__(**given)
        self._front = front
        self._turn = front.turn(self.loop)
        # a platform whose own route is one of ours is answered in its form, which only the application knows
        taken = front.platform is not None and front.platform.predict.endswith("/predict")
        self._deployment = _not_ours if taken else _deployment
        self._in_head = False
        self._head_size = 0
        self._weigh = False  # whether a head that ends now may be too large
        self._requests = 0
        # the prediction whose body is arriving: its parts, None while there is none
        self._parts: list[bytes] | None = None
        self._size = 0
        self._name: str | None = None
        self._caller = ""
        self._deadline: asyncio.TimerHandle | None = None
        self._last = False  # the connection is closed after this answer
        self._ended = False  # nothing more is answered
        self._problem_kind = PROBLEM  # of the answer that refuses the connection's last request
        self._behind: Draft | None = None  # that answer, while requests before it wait for theirs

    # -- of the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._last = self._turn.draining
        self._made = self.loop.time()
        self._seen, self._idle = 0, 0
        self._look_seconds = LOOKS * self._front.slow_seconds
        self._look_later = self.loop.call_later(self._look_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_later.cancel()
        self._forget_body()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        began_in_head = self._in_head
        self._weigh = began_in_head or len(data) > MAX_HEAD
        super().data_received(data)
        if self._in_head and began_in_head:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                self._refuse(_head_too_large())
        elif self._parts is not None and self._deadline is None:  # most bodies come with their heads and need no timer
            self._deadline = self.loop.call_later(self._front.slow_seconds, self._body_too_slow)

    def drain(self) -> None:
        """Close with the answer to the newest request that has come in, or else to the next one."""
        self._last = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def close_unused(self, since: float) -> None:
        """Close, if all was answered that came in, and nothing has come since then.

        since: on the loop's clock; a connection that is younger may still be about to ask.
        """
        under_way = self._in_head or self._parts is not None or not (self.cycle is None or self.cycle.response_complete)
        if not (self._ended or under_way or self._made > since or self.transport.is_closing() or self._unread()):
            self.transport.close()

    def _unread(self) -> bool:
        """Whether bytes lie in the kernel that were not read yet."""
        waiting = select.poll()
        waiting.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(waiting.poll(0))

    def pause_writing(self) -> None:
        """A caller that does not read its answers asks nothing more until it does."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.flow.resume_reading()

    def send(self, answer: Answer, ending: int) -> None:
        """Write an answer; ending: STAY, CLOSE or LINGER."""
        kind = JSON
        if answer.status != 200:
            kind = _problem_head(self._problem_kind if ending == LINGER else PROBLEM, answer)
            self._turn.refused(answer.status)
        if self.transport.is_closing():
            return
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n" % (
            STATUS_LINE[answer.status],
            kind,
            len(answer.body),
            b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers]),
            b"connection: close\r\n" if ending else b"",
        )
        self.transport.write(head + answer.body)
        if ending:
            if ending == LINGER or self._turn.draining:
                self.linger()
            else:
                self.transport.close()

    def give_up(self, error: Exception) -> None:
        """Break the connection, on which an answer could not be written: another in its place would be a wrong one."""
        self._ended = True
        self._front.service.metrics.unsent()
        _LOGGER.warning("an answer could not be written to its connection, which was closed: %s", error)
        self.transport.abort()

    def on_response_complete(self) -> None:
        """Go on with what waited behind an answer of the application's."""
        under_way = bool(self.pipeline)
        super().on_response_complete()
        if self._behind is not None and not under_way:
            behind, self._behind = self._behind, None
            self._turn.add(self, behind, LINGER)

    def linger(self) -> None:
        """Close, but read and drop for a while what the caller goes on sending, which would take the answer away."""
        self._ended = True
        self.pipeline.clear()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _look(self) -> None:
        """Close a connection on which too long nothing was asked: the rest of its request's head does not come, or
        nobody wants anything. What is under way has deadlines of its own."""
        under_way = self._parts is not None or not (self.cycle is None or self.cycle.response_complete)
        self._idle = 0 if under_way or self._requests != self._seen else self._idle + 1
        self._seen = self._requests
        if self._idle >= (IDLE_LOOKS if self._requests and not self._in_head else 1):
            self.transport.close()
        else:
            self._look_later = self.loop.call_later(self._look_seconds, self._look)

    # -- what the parser calls

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        self._in_head = False
        self._requests += 1
        if self._weigh:
            self._head_size = 0
            if len(self.url) + sum([len(name) + len(value) + 4 for name, value in self.headers]) > MAX_HEAD:
                self._refuse(_head_too_large())
                return
        own, name = self._deployment(self.url) if self.parser.get_method() == b"POST" else (False, None)
        if name in self._front.service.elsewhere:
            own = False  # this one waits for another process, which nothing here may
        if not own or not (self.cycle is None or self.cycle.response_complete):
            self._turn.send()  # answers leave in the order of their requests
            try:
                check_host(self.headers, self.parser.get_http_version())
            except SeatrialError as error:
                self._refuse(error)
                return
            super().on_headers_complete()
            if self._last:
                self.cycle.keep_alive = False
            self.cycle.transport = cast("asyncio.Transport", _Lingering(self, self.cycle))
            return
        if self.parser.should_upgrade():  # the parser then takes no body
            self._refuse(NotHttp("the request asks to speak another protocol.", next="Leave the header Upgrade out."))
            return
        try:
            self._caller = check_head("POST", self.headers, self._front.max_body, version=self.parser.get_http_version)
        except SeatrialError as error:
            self._refuse(error)
            return
        self._name, self._parts, self._size = name, [], 0
        if self.expect_100_continue:
            self._turn.send()
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._parts is not None:
            self._size += len(body)
            if self._size > self._front.max_body:
                self._refuse(body_too_large(self._front.max_body))
            else:
                self._parts.append(body)
        elif not self._ended:
            super().on_body(body)

    def on_message_complete(self) -> None:
        parts = self._parts
        if parts is None:
            if not self._ended:
                super().on_message_complete()
            return
        self._forget_body()
        draft = self._front.ask(
            self._name, parts[0] if len(parts) == 1 else b"".join(parts), self._caller, self.headers
        )
        self._ended = self._last or self.parser.get_http_version() == "1.0" or not self.parser.should_keep_alive()
        self._turn.add(self, draft, CLOSE if self._ended else STAY)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for what its parser does not take."""
        del msg
        self._refuse(NotHttp("the request is not HTTP as this server takes it.", state=""))

    # -- refusing

    def _body_too_slow(self) -> None:
        self._refuse(body_too_slow(self._front.slow_seconds))

    def _refuse(self, error: SeatrialError) -> None:
        """Answer with a problem, after all that was asked before, and close: what else comes on this connection cannot
        be trusted or is not wanted."""
        if self._ended:  # it was not wanted before
            return
        self._forget_body()
        self._ended = True
        self._front.service.metrics.failed("", error.code, status=error.http_status)
        cycle, waits = self.cycle, False
        path = ""
        if cycle is not None and not cycle.response_complete:
            waits = True
            if cycle.more_body:  # it is the application's request that is refused
                path = cycle.scope["path"]
                if self.pipeline and self.pipeline[0][0] is cycle:  # which has not begun with it
                    self.pipeline.popleft()
                elif cycle.response_started:  # and is answering it: `_Lingering` closes then
                    cycle.keep_alive = False
                    return
                else:
                    cycle.disconnected, waits = True, False
                    cycle.message_event.set()
        answer, self._problem_kind = in_form(path, problem(error))
        if waits:
            self._behind = Draft(answer)
        else:
            self._turn.add(self, Draft(answer), LINGER)

    def _forget_body(self) -> None:
        self._parts = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Lingering:
    """The transport as the application's answer sees it: a request of which the rest is not wanted is lingered on."""

    def __init__(self, connection: PredictionProtocol, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        if self._cycle.more_body and not self.is_closing():
            self._connection.linger()
        else:
            self._connection.transport.close()


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge("the request's head is too large.", expected=f"At most {MAX_HEAD} bytes.")


def _problem_head(kind: bytes, answer: Answer) -> bytes:
    """The media type of a problem, and the line behind it that says when asking again may help."""
    return kind + (b"\r\nretry-after: %d" % answer.retry_after if answer.retry_after else b"")


def _not_ours(_url: bytes) -> tuple[bool, str | None]:
    """`_deployment` where every request is the application's."""
    return False, None


def _deployment(url: bytes) -> tuple[bool, str | None]:
    """Whether an address asks for a prediction, and of which deployment; None: of the only one.

    Raises what httptools raises for what is no address; uvicorn answers that with 400.
    """
    if url == b"/predict":
        return True, None
    path = unquote(httptools.parse_url(url).path.decode("ascii"))
    if path.startswith("/models/") and path.endswith("/predict"):
        return True, path[8:-8]
    return path == "/predict", None
