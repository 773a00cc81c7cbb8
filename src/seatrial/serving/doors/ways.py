"""Doors: by which way do requests come, and how are they answered?

What the connection answers itself counts at its end of the turn (`serving.doors.protocol`); everything else passes
here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from seatrial.serving.meters.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREDICT = "predict"
PLATFORM = "platform"
PAGE = "page"


def door(path: str, platform: str | None = None) -> str:
    """The door of a path. There are few: a path that nobody serves is a page's.

    platform: the path at which the platform that runs the container asks for predictions.

    >>> [door(path) for path in ("/models/late/predict", "/v2/models/late/infer", "/predictions/late/1", "/nowhere")]
    ['predict', 'v2', 'predictions', 'page']
    """
    if path == platform:
        return PLATFORM
    parts = path.split("/")
    if parts[-1] in ("predict", "invocations") and (len(parts) == 2 or parts[1] == "models"):
        return parts[-1]
    return parts[1] if parts[1:2] in (["v2"], ["predictions"]) else PAGE


async def through(
    came_by: str,
    metrics: Metrics,
    answer: Callable[[Scope, Receive, Send], Awaitable[None]],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Answer an HTTP request, and count it with its door and status; one that gets no answer is not counted."""

    async def counted(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            metrics.asked(came_by, message["status"])
        await send(message)

    metrics.in_flight.value += 1
    try:
        await answer(scope, receive, counted)
    finally:
        metrics.in_flight.value -= 1
