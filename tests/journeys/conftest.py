"""What journeys share."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.journeys import worlds


@pytest.fixture
def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[worlds.Journey]:
    """The flights project with an April that was served: replayed once for every journey that goes on from there."""
    made = worlds.journey(tmp_path_factory.mktemp("journey") / "flights")
    yield made
    made.project.close()
