"""Personal columns of a release in service: what of its rows may reach the log?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msgspec import structs

from seatrial.core.personal import Mask, Treatment, key_missing, pseudonym, strictest
from seatrial.core.signature import Signature
from seatrial.core.types import Field
from seatrial.stores.prediction_log import PredictionLog

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.serving.scoring.predictor import Release, Share


def hashed(table: pa.Table, personal: Mapping[str, Treatment], key: bytes | None, *, prefix: str = "") -> pa.Table:
    """A table with pseudonyms in the columns that are hashed, where it has them; what is one already stays.

    prefix: of the columns' names in the table. Raises PersonalKeyMissing.
    """
    import pyarrow as pa

    for name, treatment in personal.items():
        place = table.schema.get_field_index(prefix + name)
        if treatment != "hash" or place < 0:
            continue
        if key is None:
            raise key_missing([name])
        column = table.column(place).combine_chunks()
        values = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        texts = pa.array([pseudonym(key, name, one) for one in values.dictionary.to_pylist()], pa.string())
        table = table.set_column(place, prefix + name, texts.take(values.indices))
    return table


def hashed_rows(rows: Sequence[Mapping[str, Any]], personal: Mapping[str, Treatment], key: bytes | None) -> list[Any]:
    """`hashed` for rows as dictionaries."""
    names = [name for name, treatment in personal.items() if treatment == "hash"]
    found = []
    for row in rows:
        there = [name for name in names if isinstance(row, Mapping) and name in row]  # what is no row is told elsewhere
        if there and key is None:
            raise key_missing(names)
        found.append({**row, **{name: pseudonym(key or b"", name, row[name]) for name in there}} if there else row)
    return found


def masked(
    personal: Mapping[str, Treatment], log: PredictionLog, signature: Signature, fields: Sequence[Field]
) -> Mask:
    """What the log keeps of rows with personal columns. Raises PersonalKeyMissing."""
    return Mask(
        personal,
        log.personal_key,
        inputs=signature.inputs,
        categories=signature.categories,
        fields=[(field.name, field.dtype) for field in fields],
    )


def as_strict(release: Release, shares: Sequence[Share]) -> Release:
    """A release that is asked for by itself, with what every release of its deployment declares to be personal."""
    personal = strictest(share.release.signature.personal for share in shares)
    if personal == release.signature.personal:
        return release
    return replace(release, signature=structs.replace(release.signature, personal=personal))
