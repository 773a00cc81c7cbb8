"""Inert text: what a model, a category or a person is called is obeyed by no terminal and no mail reader.

Escape sequences set titles, move the cursor over what was said before, and some terminals do more; marks of direction
(Unicode TR 36) make text read otherwise than it stands. They are shown as what they are.
"""

from __future__ import annotations

import re

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters of ASCII and Latin-1 but for tab and line feed; what separates lines or turns their direction."""


def inert(text: str) -> str:
    r"""The text with each such character as its escape.

    >>> print(inert("\x1b[2J"), inert("caf\u00e9"), inert("a\u202eb"))
    \x1b[2J café a\u202eb
    """
    return OBEYED.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
