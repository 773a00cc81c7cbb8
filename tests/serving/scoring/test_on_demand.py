"""Many releases, little memory: every one of them answers rightly, and none keeps another waiting."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from seatrial.core.errors import SeatrialError
from seatrial.releases import keyring
from seatrial.releases.keyring import WatchedKeys
from seatrial.serving.clients.client import Client
from seatrial.serving.doors.http import Front
from seatrial.serving.scoring.on_demand import BadMemory, parse_memory
from seatrial.serving.service import load
from seatrial.stores.objects import ObjectStore
from seatrial.stores.prediction_log import PredictionLog
from seatrial.stores.routes import Arm, RouteFile, RouteStore
from tests.serving.workers.test_supervisor import serving
from tests.serving.worlds import GOOD, Keys, bundle

MANY, LOADED = 30, 5
BODY = json.dumps({"features": GOOD}).encode()


class World:
    """Deployments d0, d1, ... of one release each."""

    def __init__(self, home, many):
        self.home = home
        self.keys = Keys(home / "keys")
        self.objects = ObjectStore(home / "objects")
        self.routes = RouteStore(home / "routes")
        self.right = {}
        for number in range(many):
            data = bundle(self.keys.key, number % 4, number + 1)
            release = self.keys.open(data)
            self.bytes = release.bytes
            self.objects.put(f"{number}.seatrial", data)
            arm = Arm("live", release.id, 10_000, f"{number}.seatrial")
            route = RouteFile(f"d{number}", 1, "late", "salt", (arm,))
            self.routes.write(route, self.keys.sign, self.keys.verify)
            self.right[f"d{number}"] = release

    @property
    def budget(self):
        return LOADED * self.bytes + 1000

    def service(self, **options):
        service = load(
            routes=self.routes.folder,
            read_bundle=self.objects.read,
            trusted_keys=WatchedKeys(self.home / "keys"),
            online=None,
            log=None,
            memory_budget=self.budget,
            **options,
        )
        service.refresh()
        return service


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("many"), MANY)


@pytest.fixture
def few(tmp_path):
    return World(tmp_path, LOADED + 2)


def loaded(state):
    return sorted(name for name, one in state["deployments"].items() if all(arm["loaded"] for arm in one["arms"]))


def answer(service, name):
    found = service.predictor(name).handle(BODY)
    return found.status, json.loads(found.body)


def test_thirty_deployments_in_the_memory_of_five_all_answer_rightly(world):
    service = world.service()
    assert service.state()["ready"]
    assert len(loaded(service.state())) == LOADED
    names = list(world.right) * 4
    random.Random(0).shuffle(names)

    def ask(name):
        status, body = answer(service, name)
        assert status == 200
        return name, body["release"]

    with ThreadPoolExecutor(6) as pool:
        for name, release in pool.map(ask, names):
            assert release == world.right[name].id
    memory = service.state()["memory"]
    assert memory == {"budget": world.budget, "loaded": LOADED * world.bytes}
    assert len(loaded(service.state())) == LOADED


def test_a_server_answers_for_all_of_them_over_http_from_several_callers(world, tmp_path):
    for name in ("keys", "objects", "routes"):
        (tmp_path / name).symlink_to(world.home / name)
    expected = {name: answer(world.service(), name)[1]["probability"] for name in list(world.right)[:8]}
    with serving(tmp_path, memory_budget=world.budget, workers=1) as server:

        def ask(seed):
            names = list(world.right)
            random.Random(seed).shuffle(names)
            with Client(server.url) as client:
                found = [(name, client.predict(GOOD, model=name)) for name in names]
            for name, one in found:
                assert one["release"] == world.right[name].id
                assert one["probability"] == expected.get(name, one["probability"])
            return [one["prediction_id"] for _, one in found]

        with ThreadPoolExecutor(4) as pool:
            ids = [id for found in pool.map(ask, range(4)) for id in found]
        assert len(loaded(server.ready())) == LOADED
        assert server.ready()["memory"]["loaded"] <= world.budget
    logged = PredictionLog(tmp_path / "log").rows(columns=["prediction_id"])["prediction_id"].to_pylist()
    assert sorted(logged) == sorted(ids)


def test_who_waits_for_a_model_keeps_nobody_else_waiting(few):
    gate = threading.Event()
    service = few.service()
    reading = service._read_bundle
    service._read_bundle = lambda key: gate.wait(30) and reading(key)
    near = loaded(service.state())[0]
    away = next(name for name in few.right if name in service.elsewhere)

    async def ask():
        front = Front(service)
        waiting = [asyncio.create_task(front._draft(away, BODY, "")) for _ in range(20)]
        for _ in range(20):
            assert (await front._draft(near, BODY, "")).answer.status == 200
        assert not any(one.done() for one in waiting)
        gate.set()
        return [draft.answer.status for draft in await asyncio.gather(*waiting)]

    assert asyncio.run(ask()) == [200] * 20


def test_the_one_that_was_asked_least_recently_is_let_go(few):
    service = few.service()
    names = sorted(few.right)
    for name in names[:LOADED]:
        answer(service, name)
    assert loaded(service.state()) == names[:LOADED]
    answer(service, names[0])
    answer(service, names[LOADED])
    assert loaded(service.state()) == sorted([names[0], *names[2 : LOADED + 1]])
    assert names[1] in service.elsewhere


def test_a_bundle_that_is_gone_is_told_as_such_until_it_is_back(few):
    service = few.service()
    away = next(name for name in few.right if name not in loaded(service.state()))
    path = few.home / "objects" / f"{away[1:]}.seatrial"
    path.rename(path.with_suffix(".away"))
    for _ in range(2):
        status, body = answer(service, away)
        assert (status, body["code"]) == (503, "serving.release_not_loaded")
    assert service.state()["ready"]
    path.with_suffix(".away").rename(path)
    for _ in range(400):
        status, _ = answer(service, away)
        if status == 200:
            break
        threading.Event().wait(0.01)
    assert status == 200


def test_a_damaged_bundle_is_not_loaded_again(few):
    service = few.service()
    away = next(name for name in few.right if name not in loaded(service.state()))
    path = few.home / "objects" / f"{away[1:]}.seatrial"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-300] + bytes(300))
    assert answer(service, away)[1]["code"] == "serving.release_not_loaded"


def test_what_was_live_is_loaded_again_after_its_key_was_revoked_and_reported_like_the_rest(few):
    service = few.service()
    away = next(name for name in few.right if name not in loaded(service.state()))
    keyring.rotate_file(few.home / "keys")
    keyring.revoke(few.home / "keys", few.keys.key.keyid)
    service.refresh()
    assert away in service.distrusted
    assert answer(service, away)[0] == 200


def test_a_new_release_takes_the_place_of_the_one_before_it(few):
    service = few.service()
    data = bundle(few.keys.key, 99, 100)
    release = few.keys.open(data)
    few.objects.put("99.seatrial", data)
    arm = Arm("live", release.id, 10_000, "99.seatrial")
    few.routes.write(RouteFile("d0", 2, "late", "salt", (arm,)), few.keys.sign, few.keys.verify)
    service.refresh()
    assert answer(service, "d0")[1]["release"] == release.id
    assert service.state()["memory"]["loaded"] <= few.budget


@pytest.mark.parametrize(("text", "bytes"), [("512MiB", 2**29), ("1.5 GB", 1_500_000_000), ("64k", 64_000), ("7", 7)])
def test_an_amount_of_memory_is_read_in_its_unit(text, bytes):
    assert parse_memory(text) == bytes


@pytest.mark.parametrize("text", ["", "0", "-1", "MiB", "12 TB", "1e9", "nan", "1.5.2GB", "9" * 40])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(BadMemory) as error:
        parse_memory(text)
    assert isinstance(error.value, SeatrialError)
    assert error.value.exit_code == 2


def test_a_model_larger_than_the_whole_budget_is_served_all_the_same(few):
    few.bytes = 1
    service = few.service()
    for name in few.right:
        assert answer(service, name)[0] == 200
        assert loaded(service.state()) == [name]
