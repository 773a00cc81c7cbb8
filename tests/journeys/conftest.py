"""What journeys share, and that long ones run only when they are asked for: `pytest -m long`."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.journeys import worlds


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; runs only with -m long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "long" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


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
