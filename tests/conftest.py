"""What every test run has in common: it ends by saying which tests could not run, and for want of what.

A test that talks to a real server or program names it: `@pytest.mark.needs("redis-server")`. Where the program is
missing the test is skipped and listed at the end; with CI=true that makes the run fail.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.servers import RedisProcess


class NotRun:
    """Which tests could not run, by the program that they need; counted where the reports of all workers come in."""

    def __init__(self) -> None:
        self.tests: dict[str, list[str]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for key, name in report.user_properties:
            if key == LACKING and report.when == "setup":
                self.tests[str(name)].append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.tests and _in_ci() and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name, tests in sorted(self.tests.items()):
            terminalreporter.section(f"not run: {len(tests)} for want of {name}", sep="-", red=_in_ci())
            for test in tests:
                terminalreporter.line(test)
        if self.tests:
            verdict = "with CI=true that is a failure" if _in_ci() else "`make services` installs it (Debian, root)"
            terminalreporter.line(f"Not everything was tested: {verdict}.")


LACKING = "lacking"
SHARED = dict.fromkeys(("tests/journeys/test_flights.py", "tests/journeys/test_story.py"), "the journey")


class ByFile(LoadScopeScheduling):
    """Files to workers, whole."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return SHARED.get(file, file)


ASIDE = {
    "slow": "takes seconds that `make test` does not have; `make slow` and CI run it, and who names its file",
    "long": "takes minutes; runs only with -m long",
}

# a busy machine is no reason to fail: nothing here is timed
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(program): a program of the system that the test talks to")
    for kind, told in ASIDE.items():
        config.addinivalue_line("markers", f"{kind}: {told}")
    config.pluginmanager.register(NotRun())
    # the mirror costs seconds of every training; the tests that are about it switch it on
    os.environ.setdefault("SEATRIAL_STORES_MLFLOW", "")
    # four eyes are the subject of the tests of retraining and of the journeys, which switch them on
    os.environ.setdefault("SEATRIAL_POLICY_APPROVAL", "none")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """The tests of a file, which share what it set up, run in one worker; so do files that share a world."""
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave aside what was not asked for; who names files wants all of them but the long ones."""
    whole = config.args == config.getini("testpaths")
    aside = [kind for kind in ASIDE if kind not in config.option.markexpr and (whole or kind == "long")]
    left = [item for item in items if any(item.get_closest_marker(kind) for kind in aside)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = [name for mark in item.iter_markers("needs") for name in mark.args if not _found(name)]
    if missing:
        item.user_properties.extend((LACKING, name) for name in missing)
        pytest.skip(f"needs {', '.join(missing)}")


def _found(program: str) -> bool:
    """Whether the program is on the path or beside the interpreter (wheels bring some)."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return shutil.which(program, path=places) is not None


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() == "true"


@pytest.fixture(autouse=True)
def _same_draws_alone_and_among_others(request: pytest.FixtureRequest) -> None:
    """A module's generator `RANDOM` begins anew with each test, by the test's name."""
    random = getattr(getattr(request.node, "module", None), "RANDOM", None)
    if random is not None:
        fresh = type(random.bit_generator)(crc32(request.node.name.encode()))
        random.bit_generator.state = fresh.state


@pytest.fixture(scope="session")
def _redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(_redis_server: RedisProcess) -> RedisProcess:
    """The run's Redis server, empty."""
    _redis_server.ask("FLUSHALL")
    return _redis_server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[..., RedisProcess]]:
    """Makes Redis servers that only this test has: to stop, to fill, to guard with a password."""
    made: list[RedisProcess] = []

    def make(*options: str) -> RedisProcess:
        folder = tmp_path / f"redis{len(made)}"
        folder.mkdir()
        made.append(RedisProcess(folder, options).start())
        return made[-1]

    yield make
    for server in made:
        server.stop()
