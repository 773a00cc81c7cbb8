"""Deploying and rolling back: one decision, one event, one route file, whatever happens in between."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from seatrial.core.errors import Conflict
from seatrial.core.records import Record
from seatrial.deployment.definition import Deployment
from seatrial.deployment.deploy import (
    BadShares,
    NoOwner,
    NothingDeployed,
    NothingToRollBackTo,
    Traffic,
    WrongModel,
    deploy,
    live,
    reconcile,
    roll_back,
)
from seatrial.stores.metadata import MetadataStore
from seatrial.stores.routes import RouteStore

AT_US = 1_364_774_400_000_000


def sign(data: bytes) -> bytes:
    return b"signed " + data[-20:]


def verify(data: bytes, signature: bytes) -> bool:
    return signature == b"signed " + data[-20:]


SIGNED = {"sign": sign, "verify": verify}


def release(number: int, **body) -> Record:
    given = {"model": "late", "owner": "flight-ops", "runbook": "docs/runbook.md"} | body
    return Record(f"rel_{number:032x}", "release", "late", (), given)


def traffic(number: int, **body) -> list[Traffic]:
    return [Traffic(release(number, **body), f"releases/{number}.seatrial")]


@pytest.fixture
def metadata(tmp_path):
    store = MetadataStore(tmp_path / "metadata.db")
    with store.transaction() as transaction:
        for number in range(5):
            transaction.add(release(number))
    yield store
    store.close()


@pytest.fixture
def routes(tmp_path):
    return RouteStore(tmp_path / "routes")


@pytest.fixture
def go(metadata, routes):
    def go(number, **options):
        given = {"actor": "ada", "at_us": AT_US} | SIGNED | options
        return deploy(metadata, routes, Deployment("late"), given.pop("traffic", None) or traffic(number), **given)

    return go


def test_a_release_goes_live_with_a_record_an_event_and_a_signed_route(metadata, routes, go):
    done = go(1)
    assert done.head.generation == 1
    assert metadata.head("deployment", "late") == done.head
    assert metadata.record(done.record.id).inputs == (release(1).id,)
    (event,) = metadata.events(subject="deployment/late")
    assert (event.kind, event.actor, event.at_us) == ("deploy", "ada", AT_US)
    route = routes.read("late", verify)
    assert route == done.route == live(metadata, "late").route
    assert [(arm.release, arm.share, arm.bundle) for arm in route.arms] == [
        (release(1).id, 10_000, "releases/1.seatrial")
    ]


def test_the_salt_stays_for_the_life_of_a_deployment(go):
    assert go(1).route.salt == go(2).route.salt != ""


def test_who_saw_an_older_state_is_told_so_and_changes_nothing(metadata, routes, go):
    go(1, expected=0)
    with pytest.raises(Conflict):
        go(2, expected=0)
    go(2, expected=1)
    assert routes.read("late", verify).generation == 2
    assert len(metadata.records("deployment", "late")) == 2


def test_of_concurrent_deployments_exactly_one_wins(metadata, routes, go):
    def attempt(number):
        try:
            return go(number % 5, expected=0).head.generation
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(attempt, range(16)))
    assert sorted(result for result in results if result) == [1]
    assert routes.read("late", verify).arms[0].release == live(metadata, "late").record.inputs[0]


def test_the_route_file_never_goes_back(metadata, routes, go):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(go, [number % 5 for number in range(40)]))
    assert routes.read("late", verify) == live(metadata, "late").route
    assert live(metadata, "late").head.generation == 40


@pytest.mark.parametrize("missing", [{"owner": ""}, {"runbook": ""}, {"owner": "", "runbook": ""}])
def test_a_model_without_owner_or_runbook_needs_a_written_reason(metadata, routes, go, missing):
    with pytest.raises(NoOwner) as error:
        go(0, traffic=traffic(1, **missing))
    assert error.value.exit_code == 4
    assert all(f"{name}=" in str(error.value) for name in missing)
    with pytest.raises(NoOwner):
        go(0, traffic=traffic(1, **missing), reason="  ")
    assert live(metadata, "late") is None
    assert routes.names() == []
    go(0, traffic=traffic(1, **missing), reason="a trial on one desk, ends on Friday")
    assert metadata.events(subject="deployment/late")[0].body["reason"].startswith("a trial")


def test_a_release_of_another_model_is_refused(go):
    with pytest.raises(WrongModel, match="'fare'"):
        go(0, traffic=traffic(1, model="fare"))


def test_traffic_is_split_over_arms_that_add_up(go):
    arms = [Traffic(release(1), "b1", 9000, "control"), Traffic(release(2), "b2", 1000, "treatment")]
    assert [(arm.name, arm.share) for arm in go(0, traffic=arms).route.arms] == [("control", 9000), ("treatment", 1000)]
    for bad in (
        [Traffic(release(1), "b1", 9000)],
        [Traffic(release(1), "b1", 11_000, "a"), Traffic(release(2), "b2", -1000, "b")],
        [Traffic(release(1), "b1", 5000, "a"), Traffic(release(2), "b2", 5000, "a")],
    ):
        with pytest.raises(BadShares):
            go(0, traffic=bad)


class TestRollBack:
    def back(self, metadata, routes, **options):
        return roll_back(metadata, routes, "late", **SIGNED, actor="ada", at_us=AT_US, **options)

    def test_it_returns_step_by_step_to_what_was_live_before(self, metadata, routes, go):
        for number in (1, 2, 3):
            go(number)
        assert self.back(metadata, routes, reason="late shipments").route.arms[0].release == release(2).id
        done = self.back(metadata, routes)
        assert done.route.arms[0].release == release(1).id
        assert (done.head.generation, routes.read("late", verify).generation) == (5, 5)
        assert metadata.events(subject="deployment/late")[3].kind == "rollback"
        with pytest.raises(NothingToRollBackTo):
            self.back(metadata, routes)
        go(4)
        assert self.back(metadata, routes).route.arms[0].release == release(1).id

    def test_without_a_deployment_there_is_nothing_to_return_to(self, metadata, routes):
        with pytest.raises(NothingDeployed):
            self.back(metadata, routes)

    def test_who_saw_an_older_state_changes_nothing(self, metadata, routes, go):
        go(1), go(2)
        with pytest.raises(Conflict):
            self.back(metadata, routes, expected=1)


class TestReconcile:
    def heal(self, metadata, routes):
        return reconcile(metadata, routes, **SIGNED)

    def test_a_missing_old_or_damaged_route_file_is_written_from_the_head(self, metadata, routes, go):
        go(1)
        first = routes.path("late").read_bytes()
        go(2)
        second = routes.path("late").read_bytes()
        assert self.heal(metadata, routes) == []
        for found in (None, first, second[:50], second.replace(b"salt", b"pepper")):
            routes.path("late").unlink()
            if found is not None:
                routes.path("late").write_bytes(found)
            assert self.heal(metadata, routes) == ["late"]
            assert routes.path("late").read_bytes() == second

    def test_a_crash_at_any_file_operation_leaves_the_old_or_the_new_route_and_is_healed(self, tmp_path):
        (tmp_path / "crash.py").write_text(CRASH)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, str(tmp_path / "crash.py"), str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) > 3


CRASH = """
import os, sys
from pathlib import Path
from seatrial.deployment.definition import Deployment
from seatrial.deployment.deploy import deploy, live, reconcile
from seatrial.stores.metadata import MetadataStore
from seatrial.stores.routes import RouteStore
from tests.deployment.test_deploy import SIGNED, release, traffic, verify
root = Path(sys.argv[1])
crashes = 0
for point in range(100):
    home = root / str(point)
    home.mkdir()
    metadata = MetadataStore(home / "metadata.db")
    with metadata.transaction() as transaction:
        transaction.add(release(1)), transaction.add(release(2))
    routes = RouteStore(home / "routes")
    given = {"actor": "ada", "at_us": 1} | SIGNED
    deploy(metadata, routes, Deployment("late"), traffic(1), **given)
    metadata.close()
    child = os.fork()
    if child == 0:
        metadata = MetadataStore(home / "metadata.db")
        steps = 0
        def step(event, args):
            global steps
            if event in ("open", "os.rename") and "routes" in str(args[0]):
                steps += 1
                if steps > point:
                    os._exit(9)
        sys.addaudithook(step)
        deploy(metadata, routes, Deployment("late"), traffic(2), **given)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    metadata = MetadataStore(home / "metadata.db")
    assert live(metadata, "late").head.generation == 2
    assert routes.read("late", verify).generation in (1, 2)
    reconcile(metadata, routes, **SIGNED)
    assert routes.read("late", verify) == live(metadata, "late").route
    metadata.close()
    if code == 0:
        break
    assert code == 9, code
    crashes += 1
print(crashes)
"""
