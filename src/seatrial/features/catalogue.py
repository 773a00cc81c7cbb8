"""The catalogue: which feature is it that I need, and does it exist already?

Two questions over features that somebody has declared. `search` ranks names, descriptions, owners, tags, columns and
expressions by words. `identity` tells features that are computed alike: the same function over the same column or
expression of the same rows, for the same entity, over the same window.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from seatrial.core.identity import value_digest
from seatrial.features.definitions import WINDOWED, Aggregation

WEIGHTS = {
    "name": 100,
    "feature": 60,
    "view": 50,
    "tags": 40,
    "column": 30,
    "entity": 20,
    "owner": 20,
    "source": 15,
    "definition": 10,
    "description": 8,
}
"""How much a word counts where it is found; half when it is only a part of a word there."""

_SUMMED = ("mean", "sum", "std")


class Entry(msgspec.Struct, frozen=True):
    """Something that can be searched for, by its name. texts: place (see WEIGHTS) -> what stands there."""

    name: str
    texts: dict[str, str]


class Hit(msgspec.Struct, frozen=True):
    """An entry that has every word that was searched for. where: the places in which they were found, best first."""

    name: str
    score: int
    where: list[str]


def search(text: str, entries: Sequence[Entry]) -> list[Hit]:
    """The entries that have every word of `text`, best first; letters of either case are equal.

    >>> mean = Entry("delay__mean", {"name": "delay__mean", "description": "How late, in minutes."})
    >>> [hit.where for hit in search("DELAY minutes", [mean])]
    [['name', 'description']]
    """
    asked = _words(text)
    hits = []
    for entry in entries:
        found = [_best(word, entry.texts) for word in asked]
        if asked and all(score for score, _ in found):
            whole = 1000 if entry.name.lower() == text.strip().lower() else 0
            where = sorted({place for _, place in found}, key=lambda place: -WEIGHTS[place])
            hits.append(Hit(entry.name, whole + sum(score for score, _ in found), where))
    return sorted(hits, key=lambda hit: (-hit.score, hit.name))


def near(text: str, entries: Sequence[Entry]) -> str:
    """`text` with each word that no entry has replaced by the most similar one; empty when there is none."""
    known = sorted({word for entry in entries for words in entry.texts.values() for word in _words(words)})
    replaced = []
    for word in _words(text):
        if any(word in one for one in known):
            replaced.append(word)
        elif close := difflib.get_close_matches(word, known, n=1, cutoff=0.7):
            replaced.append(close[0])
        else:
            return ""
    return " ".join(replaced)


def identity(keys: Sequence[str], rows: str, ttl_us: int | None, feature: Aggregation) -> str:
    """What a feature is computed from and how, as a digest: equal ones have equal values whatever they are called.

    rows: what tells the source's rows, see `plain_rows` and `snapshot_rows`.
    """
    bounded = feature.function not in WINDOWED and feature.window_us is None
    return value_digest(
        {
            "keys": list(keys),
            "rows": rows,
            "function": feature.function,
            "column": " ".join((feature.column or "").split()),
            "sql": feature.sql,
            "window_us": feature.window_us,
            "scale": feature.scale if feature.function in _SUMMED else None,
            "unit_us": feature.unit_us if feature.function == "age" else None,
            "ttl_us": ttl_us if bounded else None,
        }
    )


def plain_rows(source: Mapping[str, Any]) -> str:
    """What tells the rows of a source by its declaration. source: its plain form, `Source.as_plain`."""
    return f"declared:{value_digest(source)}"


def _best(word: str, texts: Mapping[str, str]) -> tuple[int, str]:
    """The highest score of a word, and where; (0, "") when it stands nowhere."""
    found = [(0, "")]
    for place, text in texts.items():
        words = _words(text)
        if word in words:
            found.append((2 * WEIGHTS[place], place))
        elif any(word in one for one in words):
            found.append((WEIGHTS[place], place))
    return max(found, key=lambda one: one[0])


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def first_of(groups: Iterable[tuple[str, set[str]]]) -> dict[str, str]:
    """For each name that shares an identity with an earlier one: the first that has it. groups: (name, identities)."""
    seen: dict[str, str] = {}
    found: dict[str, str] = {}
    for name, identities in groups:
        known = next((seen[one] for one in sorted(identities) if one in seen), None)
        if known is not None:
            found[name] = known
        for one in identities:
            seen.setdefault(one, known or name)
    return found
