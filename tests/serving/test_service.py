"""What a service takes up, and what it does not: routes and releases from folders, while it answers."""

from __future__ import annotations

import json
import time

import pytest

from seatrial.core.errors import Unavailable
from seatrial.releases.signing import SignatureRefused
from seatrial.serving.clients.client import Client, ServerUnable
from seatrial.serving.scoring.release import open_release
from seatrial.serving.service import Service, from_bundle, load
from seatrial.stores.objects import ObjectStore
from seatrial.stores.routes import FORMAT, Arm, RouteFile, RouteStore
from tests.serving.worlds import DOUBLED, GOOD, Keys, bundle, server


class World:
    def __init__(self, home):
        self.home = home
        self.keys = Keys(home / "keys")
        self.objects = ObjectStore(home / "objects")
        self.routes = RouteStore(home / "routes")

    def put(self, seed=0, version=1, damage=False) -> Arm:
        data = bundle(self.keys.key, seed, version)
        release = self.keys.open(data)
        if damage:
            data = data[:-200] + bytes(200)
        self.objects.put(f"releases/{version}.seatrial", data)
        return Arm("live", release.id, 10_000, f"releases/{version}.seatrial")

    def route(self, generation: int, *arms: Arm, **changes) -> RouteFile:
        route = RouteFile("late", generation, "late", "salt", arms, **changes)
        self.routes.write(route, self.keys.sign, self.keys.verify)
        return route

    def service(self) -> Service:
        return load(
            routes=self.routes.folder,
            read_bundle=self.objects.read,
            trusted_keys=self.keys.trusted,
            online=None,
            log=None,
        )


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def version(service: Service) -> str:
    answer = service.predictor("late").handle(json.dumps({"features": GOOD}).encode())
    return json.loads(answer.body)["model_version"]


def test_a_service_is_ready_only_when_its_releases_are_proved(world):
    service = world.service()
    assert not service.state()["ready"]
    assert "golden rows" in service.state()["reason"]
    with pytest.raises(Unavailable):
        service.predictor("late")
    service.refresh()
    assert service.state()["reason"] == "Nothing is deployed."
    world.route(1, world.put())
    service.refresh()
    assert service.state()["ready"]
    assert version(service) == "1"
    service.drain()
    assert not service.state()["ready"]
    assert version(service) == "1"


def test_a_new_route_is_taken_up(world):
    service = world.service()
    world.route(1, world.put())
    service.refresh()
    world.route(2, world.put(seed=1, version=2))
    assert service._changed()
    service.refresh()
    assert version(service) == "2"
    assert not service._changed()
    assert service.state()["deployments"]["late"]["generation"] == 2


def test_a_bad_release_never_replaces_a_good_one(world):
    service = world.service()
    world.route(1, world.put())
    service.refresh()
    good = world.put(seed=1, version=2)
    for number, bad in enumerate(
        [
            world.put(seed=2, version=3, damage=True),
            Arm("live", good.release, 10_000, "releases/missing.seatrial"),
            Arm("live", "rel_" + "0" * 32, 10_000, good.bundle),
        ]
    ):
        world.route(2 + number, bad)
        service.refresh()
        assert version(service) == "1"
        assert service.state()["ready"]
        assert service.state()["refused"].keys() == {"late"}
    assert "seatrial_routes_refused_total" in service.metrics.render().decode()
    world.route(9, good)
    service.refresh()
    assert version(service) == "2"
    assert service.state()["refused"] == {}


def test_a_route_that_is_unsigned_changed_or_older_is_not_taken(world, tmp_path):
    service = world.service()
    first, second = world.put(), world.put(seed=1, version=2)
    world.route(1, first)
    older = world.routes.path("late").read_bytes()
    world.route(2, second)
    service.refresh()
    path = world.routes.path("late")
    good = path.read_bytes()
    stranger = Keys(tmp_path / "stranger")
    RouteStore(tmp_path / "forged").write(
        RouteFile("late", 3, "late", "salt", (first,)), stranger.sign, stranger.verify
    )
    bad = {
        "route.older": older,
        "route.not_trusted": (tmp_path / "forged" / "late.json").read_bytes(),
        "route.damaged": good[:40],
        "route.too_new": good.replace(b'{"format":1', b'{"format":%d' % (FORMAT + 1), 1),
    }
    for code, data in bad.items():
        path.write_bytes(data)
        service.refresh()
        assert service.state()["refused"] == {"late": code}
        assert version(service) == "2"
    path.write_bytes(good.replace(b'"generation":2', b'"generation":7'))
    service.refresh()
    assert service.state()["refused"] == {"late": "route.not_trusted"}


def test_a_deployment_that_was_never_served_makes_the_service_not_ready(world):
    world.route(1, world.put(damage=True))
    service = world.service()
    service.refresh()
    assert not service.state()["ready"]
    assert "'late' is not served" in service.state()["reason"]


def test_two_arms_are_served_side_by_side(world):
    first, second = world.put(), world.put(seed=1, version=2)
    arms = [Arm("control", first.release, 5000, first.bundle), Arm("new", second.release, 5000, second.bundle)]
    world.route(1, *arms, route_by="tail")
    service = world.service()
    service.refresh()
    served = service.predictor("late")
    seen = set()
    for number in range(40):
        answer = served.handle(json.dumps({"features": GOOD | {"tail": f"N{number}"}}).encode())
        seen.add(json.loads(answer.body)["model_version"])
    assert seen == {"1", "2"}


def test_a_bundle_file_is_served_alone(world, tmp_path):
    path = tmp_path / "late.seatrial"
    path.write_bytes(bundle(world.keys.key, plan=DOUBLED))
    service = from_bundle(path, trusted_keys=world.keys.trusted, log=None)
    assert service.state()["ready"]
    assert version(service) == "1"
    with pytest.raises(SignatureRefused):
        from_bundle(path, trusted_keys={}, log=None)


def test_the_example_of_a_release_is_a_request_that_it_answers(world):
    release = open_release(bundle(world.keys.key), world.keys.trusted)
    assert release.example.keys() == {"distance", "seats", "night", "carrier", "tail", "leaves"}
    assert release.example["carrier"] in ("AA", "DL", "UA")


def test_a_running_server_takes_up_a_deployment_without_losing_a_request(world):
    with server(world.home) as (_, url), Client(url) as client:
        with pytest.raises(ServerUnable) as error:
            client.predict(GOOD)
        assert error.value.facts["code"] == "serving.not_ready"
        seen = []
        for number in (1, 2):
            world.route(number, world.put(seed=number, version=number))
            for _ in range(600):
                try:
                    seen.append(client.predict(GOOD)["model_version"])
                except ServerUnable:
                    assert number == 1
                if str(number) in seen:
                    break
                time.sleep(0.01)
        assert seen[0] == "1"
        assert seen[-1] == "2"
        assert client.ready()["deployments"]["late"]["generation"] == 2
