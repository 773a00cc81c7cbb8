"""Slack, and what takes the same (Mattermost, Rocket.Chat, Discord with /slack): a message of text and blocks.

Sizes are those of Slack's Block Kit: 150 characters in a header, 3,000 in a section.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from seatrial.core.identity import canonical_json
from seatrial.monitoring.alerting.telling import lines, title
from seatrial.monitoring.routes.addresses import Allowed, post

HEADER, SECTION = 150, 3000
SIGNS = {"opened": ":large_yellow_circle:", "joined": ":large_yellow_circle:", "resolved": ":large_green_circle:"}
PAGE = ":red_circle:"


def send(address: str, message: Mapping[str, Any], allowed: Allowed, seconds: float) -> str:
    """Post it; why that failed, or an empty text."""
    return post(address.partition("+")[2], canonical_json(payload(message)), allowed, seconds, says=_reason)


def payload(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message as Slack takes it. Nothing that a model or a column is called can mention or link anybody."""
    head, under = title(message), lines(message)
    sign = PAGE if message.get("page") else SIGNS.get(message["event"], "")
    return {
        "text": f"{sign} {escaped(head)}",
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": _cut(head, HEADER)}},
            {"type": "section", "text": {"type": "mrkdwn", "text": _cut("\n".join(map(_marked, under)), SECTION)}},
        ],
    }


def escaped(text: str) -> str:
    """Slack's own three: without them `<!channel>` calls everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _marked(line: str) -> str:
    """Commands as code, the rest as text."""
    words = escaped(line)
    before, found, after = words.partition(": seatrial ")
    return f"{before}: `seatrial {after}`" if found else words


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _reason(answer: bytes) -> str:
    """Slack answers with one word, such as invalid_payload or no_service."""
    said = answer.decode("ascii", "replace").strip()
    return f" ({said})" if re.fullmatch(r"[a-z_]{1,60}", said) else ""
