"""Stored predictions: what a batch said of each key of a model, kept in the online store to be asked for.

There is one for each key, the one whose instant is the latest: what was said of an earlier instant never overwrites
what was said of a later one, so jobs may run again and in any order. Nothing is scored here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.stores.online import Key, OnlineStore, OnlineStoreDamaged, OnlineStoreTooNew, Rows
from seatrial.stores.prediction_log import OF_CLASS

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
ROWS = 1_000
"""Rows in one change of the store: each change is made whole or not at all."""

Answered = tuple[float | int | str, float | dict[str, float] | None]
"""A prediction and its probability, as a service's answer has them."""


class StoredPrediction(msgspec.Struct, frozen=True):
    """What a batch said of one key.

    prediction, probability, release, model_version: as in a service's answer.
    as_of: the instant that it was said of, aware, UTC; its age is counted from here.
    """

    prediction: float | int | str
    probability: float | dict[str, float] | None
    release: str
    model_version: str
    as_of: datetime


class _Wire(msgspec.Struct, array_like=True):
    format: int
    as_of_us: int
    prediction: float | int | str
    probability: float | dict[str, float] | None
    release: str
    model_version: str


class _Start(msgspec.Struct, array_like=True):
    format: int


def write(
    online: OnlineStore,
    model: str,
    keys: Sequence[str],
    predictions: Sequence[Answered],
    at_us: Sequence[int],
    *,
    release: str,
    model_version: str,
) -> int:
    """Keep predictions of a release, one for each key; how many were written.

    keys: n texts: the model's business key, its values joined by "|". at_us: n instants that the predictions are of.
    One that is older than what is there, or said of the same instant the very same, is left out. Of one instant the
    one that comes last is kept. A crash leaves whole changes of ROWS each; doing it again is safe.
    Raises what the store's `update` raises.
    """
    written = 0
    for start in range(0, len(keys), ROWS):
        chunk: dict[Key, _Wire] = {}
        span = slice(start, start + ROWS)
        for key, (prediction, probability), us in zip(keys[span], predictions[span], at_us[span], strict=True):
            made = _Wire(FORMAT, int(us), prediction, probability, release, model_version)
            other = chunk.get(_key(model, key))
            if other is None or other.as_of_us <= made.as_of_us:
                chunk[_key(model, key)] = made
        written += online.update(partial(_merge, chunk=chunk))
    return written


def read(online: OnlineStore, model: str, key: str) -> StoredPrediction | None:
    """What was said of a key last, or None when nothing was; one round trip.

    Raises OnlineStoreDamaged and OnlineStoreTooNew for what is there, and what the store's `get` raises.
    """
    [packed] = online.get([_key(model, key)])
    if packed is None:
        return None
    found = _unpacked(packed)
    return StoredPrediction(
        found.prediction, found.probability, found.release, found.model_version, from_us(found.as_of_us)
    )


def key_texts(rows: pa.Table, key: Sequence[str]) -> list[str]:
    """The business key of each row: its values joined by "|", times in ISO 8601."""
    columns = [rows[name].to_pylist() for name in key]
    return ["|".join(iso(v) if isinstance(v, datetime) else str(v) for v in one) for one in zip(*columns, strict=True)]


def answers_of(rows: pa.Table) -> list[Answered]:
    """The prediction and the probability of each row of a batch's output."""
    classes = [name for name in rows.column_names if name.startswith(OF_CLASS)]
    probabilities: list[Any] = rows["probability"].to_pylist()
    if classes:
        every = zip(*(rows[name].to_pylist() for name in classes), strict=True)
        names = [name.removeprefix(OF_CLASS) for name in classes]
        probabilities = [dict(zip(names, one, strict=True)) for one in every]
    return list(zip(rows["prediction"].to_pylist(), probabilities, strict=True))


def _merge(rows: Rows, chunk: dict[Key, _Wire]) -> int:
    written = 0
    for (key, made), packed in zip(chunk.items(), rows.get(list(chunk)), strict=True):
        if packed is not None:
            there = _unpacked(packed)
            if there.as_of_us > made.as_of_us or there == made:
                continue
        rows.put(key, msgspec.msgpack.encode(made))
        written += 1
    return written


def _key(model: str, key: str) -> Key:
    return f"predictions/{model}", key.encode()  # no view's digest has a slash


def _unpacked(packed: bytes) -> _Wire:
    try:
        found: Any = msgspec.msgpack.decode(packed, type=_Start).format
        if found > FORMAT:
            raise OnlineStoreTooNew(
                f"a stored prediction has format {found}; this version reads up to {FORMAT}.", next="Update seatrial."
            )
        return msgspec.msgpack.decode(packed, type=_Wire)
    except msgspec.DecodeError as error:
        raise OnlineStoreDamaged(
            f"a stored prediction cannot be read: {error}.", next="Run the batch that wrote it again."
        ) from None
