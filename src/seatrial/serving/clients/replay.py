"""Replay: history through a running service, each request at its own instant, with nothing known too early.

Requests are sent in the order of their instants. Before each instant, the events that had become known by then
are pushed, so the online store says at every moment what it would have said then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from seatrial.core.clock import from_us
from seatrial.serving.clients.client import Client, Prediction

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """A request of the past: its instant, its fields and the id that it carries."""

    at_us: int
    fields: Row
    request_id: str


def replay(
    client: Client,
    model: str,
    requests: Sequence[Asked],
    push: Callable[[int], None],
    *,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[Asked, Prediction]]:
    """Send `requests` in the order of their instants; yields each with its answer.

    push(at_us): takes what became known by then into the online store.
    progress: told (requests done, requests in all).
    """
    ordered = sorted(requests, key=lambda asked: asked.at_us)
    done = 0
    for at_us, together in groupby(ordered, key=lambda asked: asked.at_us):
        push(at_us)
        at = from_us(at_us)
        for asked in together:
            yield asked, client.predict(asked.fields, model=model, request_id=asked.request_id, at=at)
            done += 1
        progress(done, len(ordered))
