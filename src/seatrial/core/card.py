"""The owner's words about a model: what it is for, what it is not for, and what was given up for it.

Records can say how a model was made and how good it is. What it may be used for only its owner can say, in the
declaration of the model or in a Markdown file of the project.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from seatrial.core.errors import UsageError, did_you_mean

Words = str | Sequence[str]

TITLES = {
    "intended_use": "Intended use",
    "out_of_scope": "Out of scope",
    "limits": "Known limits",
    "alternatives": "Alternatives considered",
    "trade_offs": "Trade-offs",
}
"""Part -> its heading, in a file and on the card."""


class BadCard(UsageError):
    """A model card is declared in a way that cannot be read."""

    code = "definition.bad_card"


@dataclass(frozen=True)
class ModelCard:
    """What the owner says of a model; each part a text, or a list of them. A part that is left out is shown as missing.

    intended_use: for which decisions, by whom, on what. out_of_scope: what it must not be used for. limits: where it is
    known to be weak. alternatives: what else was tried or could be used, and why not. trade_offs: what was given up.
    """

    intended_use: Words = ""
    out_of_scope: Words = ""
    limits: Words = ""
    alternatives: Words = ""
    trade_offs: Words = ""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, str) and not (
                isinstance(value, Sequence) and all(isinstance(text, str) for text in value)
            ):
                raise BadCard(
                    f"the model card's {one.name} is {value!r:.80}.",
                    expected="A text, or a list of texts, is expected.",
                )

    def as_plain(self) -> dict[str, list[str]]:
        """Part -> its texts; none for a part that is not written."""
        plain = {}
        for one in fields(self):
            value = getattr(self, one.name)
            texts = [value] if isinstance(value, str) else list(value)
            plain[one.name] = [text.strip() for text in texts if text.strip()]
        return plain


def read_card(text: str, where: str) -> ModelCard:
    """The card in a Markdown file: a part below each heading of `TITLES` (of any level, in any order).

    Lists become lists; headings that are not known are refused with the ones that are. where: for messages.
    """
    parts: dict[str, list[str]] = {}
    names = {title.lower(): name for name, title in TITLES.items()}
    current: list[str] | None = None
    for line in text.splitlines():
        heading = re.match(r"#{2,6}\s+(.*?)\s*#*$", line)
        if heading:
            name = names.get(heading[1].lower())
            if name is None:
                raise BadCard(
                    f"{where} has a part '{heading[1][:80]}'.",
                    expected=f"Parts are {', '.join(TITLES.values())}. {did_you_mean(heading[1], TITLES.values())}",
                )
            current = parts.setdefault(name, [])
        elif current is not None:
            current.append(line)
    return ModelCard(**{name: _texts(lines) for name, lines in parts.items()})


def written(card: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """A card as records keep it, with every part."""
    return {name: list(card.get(name, ())) for name in TITLES}


def _texts(lines: Sequence[str]) -> list[str]:
    """Items of a list, and paragraphs, each a text."""
    texts: list[str] = []
    fresh = True
    for line in lines:
        item = re.match(r"\s*[-*]\s+(.*)", line)
        if not line.strip():
            fresh = True
        elif item or fresh:
            texts.append(item[1].strip() if item else line.strip())
            fresh = False
        else:
            texts[-1] += f" {line.strip()}"
    return texts
