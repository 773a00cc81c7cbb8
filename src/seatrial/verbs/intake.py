"""Intake: the entries of a stream, taken into the online store as they come.

An entry is settled only after the online store has its row, so none is lost; one that is delivered again changes
nothing, so none counts twice. A row that cannot be taken is set aside with the reason and holds nobody up. A server
that does not answer is asked again, ever more slowly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import monotonic
from seatrial.core.errors import Failed, SeatrialError, Unavailable, UsageError, did_you_mean
from seatrial.stores.online import OnlineStoreDamaged, OnlineStoreTooNew
from seatrial.stores.streams import Entry, Stream, StreamRefused, StreamUnavailable
from seatrial.verbs.results import TakenIn

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 500
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0  # seconds between two attempts to reach a server
ROW = b"row"
WRONG_ROW = (Failed, UsageError, ValueError, TypeError, ArithmeticError, NotImplementedError, RecursionError)

Row = Mapping[str, Any]
Tell = Callable[[TakenIn], None]


class NoRow(Failed):
    """An entry of a stream does not hold a row."""

    code = "stream.no_row"


def take_in(
    stream: Stream,
    write: Callable[[list[Row]], int],
    row: Callable[[Entry], Row],
    *,
    until_empty: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    tell: Tell | None = None,
    patience_seconds: float | None = None,
) -> TakenIn:
    """Take entries in until `stopped`, or until there is none; how it went.

    write: takes rows; how many changed something. Called again with the same rows it changes nothing more. row: the
    row of an entry. What either raises of WRONG_ROW is the reason why a row is refused. tell: called after each batch,
    and when a server is waited for. patience_seconds: after so long without an answer of a server its error is raised;
    None: never.

    Raises OnlineStoreDamaged, OnlineStoreTooNew, StreamDamaged and StreamRefused at once; nothing in hand is settled.
    """
    so_far = TakenIn()
    tell = tell or _silent
    entries: list[Entry] = []
    pause, waits_since = FIRST_PAUSE, 0.0
    while not stopped():
        try:
            entries = entries or stream.read(BATCH, wait_seconds=0.0 if until_empty else 1.0)
            if entries:
                changed, taken, refused = _take(entries, write, row)
                stream.settle(taken, refused)
                entries = []
                so_far = TakenIn(
                    rows=so_far.rows + len(taken),
                    written=so_far.written + changed,
                    refused=so_far.refused + len(refused),
                )
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
            if isinstance(error, StreamUnavailable):
                entries = []  # they are delivered again
            waits_since = waits_since or monotonic()
            if patience_seconds is not None and monotonic() - waits_since > patience_seconds:
                raise
            so_far = msgspec.structs.replace(so_far, waiting=error.found)
            tell(so_far)
            _sleep(pause, stopped)
            pause = min(2 * pause, LONGEST_PAUSE)
    return msgspec.structs.replace(so_far, waiting="")


def row_of(entry: Entry, schema: pa.Schema | None) -> Row:
    """The row of an entry: a JSON object in its field `row`, or one field for each column.

    Text in a field of its own becomes what the column holds, as in CSV; nothing in it is null.
    schema: the source's columns; None when they are not known, and then all text stays text.
    Raises NoRow.
    """
    if not entry.fields:
        raise NoRow("the entry was deleted before it was read.")
    if set(entry.fields) == {ROW} and (schema is None or ROW.decode() not in schema.names):
        try:
            row = msgspec.json.decode(entry.fields[ROW])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NoRow(f"field 'row' is not JSON: {error}.") from None
        except RecursionError:
            raise NoRow("field 'row' holds JSON of too many levels.") from None
        if not isinstance(row, dict):
            raise NoRow(f"field 'row' holds JSON, but no object: {type(row).__name__}.")
        return row
    try:
        texts = {name.decode(): text.decode() for name, text in entry.fields.items()}
    except UnicodeDecodeError as error:
        raise NoRow(f"a field is not UTF-8: {error}.") from None
    return {name: _typed(name, text, schema) for name, text in texts.items()}


def complete(row: Row, schema: pa.Schema | None, named: Sequence[str], keys: Sequence[Sequence[str]]) -> Row:
    """The row with null for each column of the source that it lacks, whatever else comes with it.

    named: columns that it must name: those that a view reads. keys: of each view; of one of them the row needs all.
    Raises NoRow.
    """
    for name in named:
        if name not in row:
            raise NoRow(f"it lacks column '{name}'. {did_you_mean(name, list(row))}".strip())
    if not any(all(row[name] is not None for name in one) for one in keys):
        raise NoRow(f"it has no entity: '{keys[0][0]}' is null.")
    return row if schema is None else {**dict.fromkeys(schema.names), **row}


def _take(
    entries: Sequence[Entry], write: Callable[[list[Row]], int], row: Callable[[Entry], Row]
) -> tuple[int, list[Entry], list[tuple[Entry, str]]]:
    """How many rows changed something, the entries that were taken, and those that were not, with the reason."""
    rows: list[tuple[Entry, Row]] = []
    refused: list[tuple[Entry, str]] = []
    for entry in entries:
        try:
            rows.append((entry, row(entry)))
        except WRONG_ROW as error:
            refused.append((entry, _reason(error)))
    changed = 0
    taken: list[Entry] = []
    waiting = [rows] if rows else []
    while waiting:
        part = waiting.pop()
        try:
            changed += write([one for _, one in part])
        except (OnlineStoreDamaged, OnlineStoreTooNew):
            raise
        except WRONG_ROW as error:
            if len(part) == 1:
                refused.append((part[0][0], _reason(error)))
            else:  # which of them is it?
                waiting += [part[len(part) // 2 :], part[: len(part) // 2]]
        else:
            taken += [entry for entry, _ in part]
    return changed, taken, refused


def _typed(name: str, text: str, schema: pa.Schema | None) -> Any:
    import pyarrow as pa

    if schema is None or name not in schema.names:
        return text
    kind = schema.field(name).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return text
    if not text.strip():
        return None
    try:
        if pa.types.is_integer(kind):
            return int(text)
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return float(text)
    except ValueError:
        raise NoRow(f"column '{name}' has {text[:80]!r}, which is no number; it is {kind} in the source.") from None
    if pa.types.is_boolean(kind):
        if text.strip().lower() not in ("true", "false"):
            raise NoRow(f"column '{name}' has {text[:80]!r}, which is neither true nor false.")
        return text.strip().lower() == "true"
    return text


def _reason(error: Exception) -> str:
    return error.found if isinstance(error, SeatrialError) else f"{type(error).__name__}: {error}"


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    """Wait, but no longer than until it is to stop."""
    until = monotonic() + seconds
    while not stopped() and (left := until - monotonic()) > 0:
        time.sleep(min(left, 0.1))


def _silent(_: TakenIn) -> None:
    pass
