"""Small tables for notebooks: a thing's facts and numbers as HTML, in light and in dark, everything escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

LONGEST = 200

_STYLE = (
    "border-collapse:collapse;font:13px/1.5 system-ui,sans-serif;color:inherit;background:transparent;margin:.3em 0"
)
_CELL = "text-align:left;padding:.1em .8em .1em 0;border:0;vertical-align:top"
_NUMBER = "text-align:right;padding:.1em .8em .1em 0;border:0;font-variant-numeric:tabular-nums"


def table_page(title: str, facts: Mapping[str, Any], numbers: Mapping[str, Any] | None = None) -> str:
    """A heading, one line for each fact that there is, and one for each number.

    It takes the page's own colours, so that it can be read in light and in dark.
    """
    lines = [f'<tr><th colspan="2" style="{_CELL}">{_text(title)}</th></tr>']
    lines += [
        f'<tr><td style="{_CELL};opacity:.7">{_text(name)}</td><td style="{_CELL}">{_text(value)}</td></tr>'
        for name, value in facts.items()
        if value not in (None, "", [], {}, ())
    ]
    lines += [
        f'<tr><td style="{_CELL};opacity:.7">{_text(name)}</td><td style="{_NUMBER}">{_text(_number(value))}</td></tr>'
        for name, value in (numbers or {}).items()
    ]
    return f'<table style="{_STYLE}">{"".join(lines)}</table>'


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {one}" for name, one in value.items())
    elif isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    words = str(value)
    return escape(words if len(words) <= LONGEST else f"{words[:LONGEST]}...")
