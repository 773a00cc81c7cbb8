"""Personal columns: what does the prediction log keep of a value that tells of a person?

By a model's declaration nothing ("drop"), or a pseudonym ("hash"): a keyed digest of the column's name and the value.
Equal values of a column have equal pseudonyms, so that labels join and counts by value stay what they are; without the
key nobody can find a value by hashing every possible one. The key belongs to the project and is in no release.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import blake3

from seatrial.core.errors import Unavailable, UsageError, did_you_mean, listed
from seatrial.core.types import Dtype

Treatment = Literal["hash", "drop"]
TREATMENTS = ("hash", "drop")
PREFIX = "anon_"
KEY_BYTES = 32
_PSEUDONYM = re.compile(PREFIX + r"[0-9a-f]{32}")
_HASHED = ("string", "category", "int")


class BadPersonal(UsageError):
    """A column was declared personal that is none of the model's, or in a way that its type does not allow."""

    code = "personal.bad"


class PersonalKeyMissing(Unavailable):
    """A release hashes personal columns, and the key for that is not here."""

    code = "personal.no_key"


def derived_key(secret: bytes) -> bytes:
    """The key that a secret of any length stands for."""
    return blake3.blake3(secret, derive_key_context="seatrial 2026 pseudonyms of personal columns").digest()


def pseudonym(key: bytes, name: str, value: Any) -> str | None:
    """What stands for a column's value: "anon_" and 32 hex digits (128 bits). None stays None, and a pseudonym itself.

    Whole numbers are the same as int and as float.
    """
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    if _PSEUDONYM.fullmatch(text):
        return text
    return PREFIX + blake3.blake3(f"{name}\0{text}".encode("utf-8", "surrogatepass"), key=key).hexdigest()[:32]


def strictest(declared: Iterable[Mapping[str, Treatment]]) -> dict[str, Treatment]:
    """What applies where several releases answer the same requests: a column that one of them drops is dropped."""
    found: dict[str, Treatment] = {}
    for one in declared:
        for name, treatment in one.items():
            if found.get(name) != "drop":
                found[name] = treatment
    return found


def check_personal(model: str, personal: Mapping[str, Treatment], types: Mapping[str, Dtype]) -> None:
    """Raise BadPersonal for a column that a model does not have, or that is to be hashed and is neither text nor whole
    numbers: the pseudonym of a measure would join with nothing.

    types: of every request field, key and input.
    """
    for name, treatment in personal.items():
        if name not in types:
            raise BadPersonal(
                f"model '{model}' declares '{name}' as personal, which is no request field, key or input of it.",
                expected=f"It has {listed(sorted(types))}. {did_you_mean(name, types)}".strip(),
            )
        if treatment == "hash" and types[name] not in _HASHED:
            raise BadPersonal(
                f"model '{model}' declares '{name}' to be hashed, and it is a {types[name]}.",
                expected="Text, categories and whole numbers can be hashed; anything can be dropped.",
            )


def key_missing(names: Sequence[str]) -> PersonalKeyMissing:
    return PersonalKeyMissing(
        f"{listed(names)} must be hashed before it is kept, and the key for that is not here.",
        expected="personal.key is expected in .seatrial/keys/, or SEATRIAL_PERSONAL_KEY in the environment.",
        state="Nothing was kept, and the release is not served.",
        next="Copy the key from where the release was packed.",
    )


class Mask:
    """What the log keeps of a release's rows.

    inputs, categories, fields: as the log's schema names them, without what is dropped; what is hashed is text.
    """

    def __init__(
        self,
        personal: Mapping[str, Treatment],
        key: bytes | None,
        *,
        inputs: Sequence[str],
        categories: Iterable[str],
        fields: Sequence[tuple[str, Dtype]],
    ) -> None:
        hashed = {name for name, treatment in personal.items() if treatment == "hash"}
        if hashed and key is None:
            raise key_missing(sorted(hashed))
        self._key = key or b""
        kept = [name for name in inputs if personal.get(name) != "drop"]
        self.inputs = tuple(kept)
        self.categories = tuple({*categories, *hashed} & set(kept))
        self.fields = tuple(
            (name, "string" if name in hashed else dtype) for name, dtype in fields if personal.get(name) != "drop"
        )
        self._of_inputs = _places(inputs, personal)
        self._of_fields = _places([name for name, _ in fields], personal)

    def __call__(self, inputs: Sequence[Any], fields: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """A row's inputs and fields as they are logged."""
        return self._masked(inputs, self._of_inputs), self._masked(fields, self._of_fields)

    def _masked(self, values: Sequence[Any], places: Sequence[tuple[int, str]]) -> tuple[Any, ...]:
        return tuple([pseudonym(self._key, name, values[place]) if name else values[place] for place, name in places])


def _places(names: Sequence[str], personal: Mapping[str, Treatment]) -> list[tuple[int, str]]:
    """Where each kept value stands, and the name of what is hashed, else an empty text."""
    return [
        (place, name if personal.get(name) == "hash" else "")
        for place, name in enumerate(names)
        if personal.get(name) != "drop"
    ]
