"""A Redis server as the stores talk to it: several commands in one piece there, all answers in one piece back.

Connections are kept by this process alone and shared by its threads, one conversation at a time on each. What the
driver raises becomes `RedisFailed`, whose kind says what a store can do about it. No password is ever in a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from seatrial.core.errors import UsageError

SCHEMES = ("redis://", "rediss://", "unix://")
NOT_NOW = ("LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "READONLY")

Kind = Literal["unavailable", "refused", "full", "damaged"]
Command = tuple[Any, ...]


class RedisExtraMissing(UsageError):
    """Redis is asked for, and its driver is not installed."""

    code = "redis.extra_missing"


class BadRedisAddress(UsageError):
    """An address of a Redis server cannot be understood, or names a variable that is not set."""

    code = "redis.bad_address"


class RedisFailed(Exception):
    """A conversation failed. A store says it in its own words.

    kind: "unavailable": it is down, slow, loading, or a replica that may not be written to; "refused": the password
    or the rights; "full": it has no room; "damaged": there is something else than a store writes.
    sent: whether the server may have done what it was told.
    """

    def __init__(self, kind: Kind, why: str, *, sent: bool = True) -> None:
        super().__init__(why)
        self.kind = kind
        self.why = why
        self.sent = sent


class RedisServer:
    """One database of one server, at an address.

    wait_seconds: how long connecting, sending and each answer may take.
    Making one opens no connection. Raises BadRedisAddress and RedisExtraMissing.
    """

    def __init__(self, address: str, *, wait_seconds: float) -> None:
        self._address = with_variables(address)
        self.shown = without_secrets(self._address)
        self._wait_seconds = wait_seconds
        self._free: list[Any] = []
        self._process = os.getpid()
        self._make, self._options = self._connecting()

    def __repr__(self) -> str:
        return f"RedisServer({self.shown!r})"

    def ask(self, *commands: Command) -> list[Any]:
        """The answers to some commands, sent together. Raises RedisFailed; a fresh connection is tried once."""
        with self.conversation() as ask:
            return ask(*commands)

    @contextmanager
    def conversation(self) -> Iterator[Conversation]:
        """One connection, kept for what belongs together, such as WATCH and EXEC."""
        connection, fresh = self._taken()
        talk = Conversation(self, connection, fresh)
        try:
            yield talk
        except BaseException:
            talk.connection.disconnect()  # what it still watches, or would still answer, must reach nobody
            raise
        self._free.append(talk.connection)

    def close(self) -> None:
        """Close every connection that is not in use."""
        while self._free:
            self._free.pop().disconnect()

    def connected(self) -> Any:
        """A connection that has greeted the server. Raises RedisFailed."""
        connection = self._make(**self._options)
        try:
            connection.connect()
        except Exception as error:
            connection.disconnect()
            raise self.failed(error, sent=False) from None
        return connection

    def failed(self, error: Exception, *, sent: bool = True) -> RedisFailed:
        """What the driver raised, told apart."""
        from redis import exceptions as driver

        why = _plain(str(error))
        for name in ("username", "password"):
            secret = self._options.get(name)
            if secret:
                why = why.replace(secret, "***")
        refused = (driver.AuthenticationError, driver.AuthorizationError, driver.NoPermissionError)
        if isinstance(error, (*refused, driver.AuthenticationWrongNumberOfArgsError)) or "NOAUTH" in why:
            return RedisFailed("refused", why, sent=False)
        if isinstance(error, driver.OutOfMemoryError) or "OOM command not allowed" in why:
            return RedisFailed("full", why, sent=False)
        if isinstance(error, driver.TimeoutError | TimeoutError):
            return RedisFailed("unavailable", f"no answer within {self._wait_seconds:g} s", sent=sent)
        if isinstance(error, driver.ReadOnlyError) or "READONLY" in why:
            return RedisFailed("unavailable", "it is a replica that may only be read", sent=False)
        if isinstance(error, driver.BusyLoadingError):
            return RedisFailed("unavailable", "it is loading its data", sent=False)
        if isinstance(error, driver.ResponseError) and not why.startswith(NOT_NOW):
            return RedisFailed("damaged" if "WRONGTYPE" in why else "unavailable", why, sent=False)
        return RedisFailed("unavailable", why or type(error).__name__, sent=sent)

    def _taken(self) -> tuple[Any, bool]:
        """A connection, and whether it is a fresh one."""
        if self._process != os.getpid():
            self._free, self._process = [], os.getpid()  # those of the parent are the parent's
        try:
            return self._free.pop(), False
        except IndexError:
            return self.connected(), True

    def _connecting(self) -> tuple[Any, dict[str, Any]]:
        """The driver's class of connection, and what it is made with."""
        try:
            from redis.backoff import NoBackoff
            from redis.connection import Connection, parse_url
            from redis.retry import Retry
        except ModuleNotFoundError as error:
            raise RedisExtraMissing(
                f"Redis needs the package '{error.name}', which is not installed.",
                state="Nothing was opened.",
                next="Install seatrial with its extra: pip install 'seatrial[redis]'.",
            ) from None
        parts = urlsplit(self._address)
        try:
            if parts.scheme != "unix" and not re.fullmatch(r"(/\d*)?", parts.path):
                raise ValueError(f"the database is {parts.path[1:]!r}, which is no number")
            if parts.scheme != "unix" and not parts.hostname:
                raise ValueError("no host is named")
            options = parse_url(self._address)  # type: ignore[no-untyped-call,unused-ignore]
            made = {
                "socket_timeout": self._wait_seconds,
                "socket_connect_timeout": self._wait_seconds,
                "socket_keepalive": True,
                "retry": Retry(NoBackoff(), 0),
                "protocol": 2,
            }
            if parts.scheme == "unix":
                del made["socket_keepalive"]
            make = options.pop("connection_class", Connection)
            make(**(made | options))
        except (ValueError, TypeError) as error:
            raise BadRedisAddress(
                f"the address {self.shown} of a Redis server cannot be understood: {_plain(str(error))}.",
                expected="redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://... (TLS) or "
                "unix://[[USER]:PASSWORD@]/SOCKET[?db=DB] is expected.",
                state="Nothing was opened.",
            ) from None
        return make, made | options


class Conversation:
    """Called with commands, it sends them together and returns their answers in order."""

    def __init__(self, server: RedisServer, connection: Any, fresh: bool) -> None:
        self.connection = connection
        self._server = server
        self._tried = fresh

    def __call__(self, *commands: Command) -> list[Any]:
        """The answers. Raises RedisFailed for the first that is an error, after all have been read.

        On a connection that was kept, and turns out to be gone, the first call is made again on a fresh one.
        """
        from redis.exceptions import ConnectionError, ResponseError

        stale, self._tried = not self._tried, True
        connection = self.connection
        try:
            if len(commands) == 1:
                connection.send_packed_command(connection.pack_command(*commands[0]))
            else:
                connection.send_packed_command(connection.pack_commands(commands))
            return self._answers(len(commands))
        except ResponseError as error:
            raise self._server.failed(error) from None
        except ConnectionError as error:
            failed = self._server.failed(error)
            if not stale or failed.kind != "unavailable":
                raise failed from None
        except Exception as error:
            raise self._server.failed(error) from None
        connection.disconnect()
        self.connection = self._server.connected()
        return self(*commands)

    def _answers(self, number: int) -> list[Any]:
        from redis.exceptions import ResponseError

        answers: list[Any] = []
        wrong: ResponseError | None = None
        for _ in range(number):
            try:
                answers.append(self.connection.read_response())
            except ResponseError as error:
                # of a transaction's errors the first is the reason
                wrong = wrong or error
        last = answers[-1] if answers else None
        if wrong is None and isinstance(last, list):  # a transaction's: the rest of it was done all the same
            wrong = next((one for one in last if isinstance(one, ResponseError)), None)
        if wrong is not None:
            raise wrong
        return answers


def with_variables(address: str, variables: Mapping[str, str] | None = None) -> str:
    """The address with every `${VAR}` in it taken from the environment.

    The variable holds the value as it is: in the part of user and password, what an address would need escaped is
    escaped here. Raises BadRedisAddress for a variable that is not set.
    """
    known = os.environ if variables is None else variables
    secret_until = address.rfind("@")

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in known:
            raise BadRedisAddress(
                f"the address {without_secrets(address)} of a store names the variable {name}, which is not set.",
                state="Nothing was opened.",
                next=f"Set {name} in the environment of this process.",
            )
        return quote(known[name], safe="") if found.start() < secret_until else known[name]

    return re.sub(r"\$\{(\w+)\}", value, address)


def without_secrets(address: str) -> str:
    """The address as it may be shown: scheme, host or path, and database; no user, password or other option."""
    scheme, _, rest = address.partition("://")
    place, _, query = rest.rpartition("@")[2].partition("?")
    database = re.search(r"(?:^|&)db=(\d+)", query)
    return f"{scheme}://{place}" + (f"?db={database[1]}" if database else "")


def _plain(words: str) -> str:
    """The driver's words without full stop and lines, to stand within a sentence."""
    return " ".join(words.split()).rstrip(".")
