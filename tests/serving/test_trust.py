"""A key that leaks is revoked while servers run: from then on they trust nothing that it signed."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager

import pytest

from seatrial.releases import keyring
from seatrial.releases.keyring import WatchedKeys
from seatrial.releases.signing import KeyUnusable, SigningKey, read_private, signing_key, trusted_keys
from seatrial.serving import service as serving
from seatrial.serving.clients.client import Client, ServerUnable
from seatrial.serving.service import NotTrusted, from_bundle, load
from seatrial.stores.objects import ObjectStore
from seatrial.stores.routes import Arm, RouteFile, RouteStore
from tests.serving.worlds import GOOD, Keys, bundle, server

LONG = 60.0


class World:
    """Routes and bundles in a folder, signed by a key that leaks, and one that comes after it."""

    def __init__(self, home):
        self.home = home
        self.keys = Keys(home / "keys")
        self.leaked: SigningKey = self.keys.key
        self.objects = ObjectStore(home / "objects")
        self.routes = RouteStore(home / "routes")

    def put(self, version: int, key: SigningKey, *, again: bool = False) -> Arm:
        data = bundle(key, version, version)
        name = f"releases/{version}.seatrial"
        self.objects.put(name, data, **({"whole": lambda _: False} if again else {}))
        return Arm("live", Keys.open(self.keys, bundle(self.leaked, version, version)).id, 10_000, name)

    def route(self, generation: int, arm: Arm, key: SigningKey) -> None:
        """The route is written whatever is there: as a thief, or `releases resign`, would."""
        self.routes.write(RouteFile("late", generation, "late", "salt", (arm,)), key.sign, lambda *_: False)

    def revoke(self) -> None:
        keyring.revoke(self.home / "keys", self.leaked.keyid)

    def rotate(self) -> SigningKey:
        keyring.rotate_file(self.home / "keys")
        return signing_key(self.home / "keys")

    def service(self, **options):
        return load(
            routes=self.routes.folder,
            read_bundle=self.objects.read,
            trusted_keys=WatchedKeys(self.home / "keys"),
            online=None,
            log=None,
            **options,
        )


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    made.route(1, made.put(1, made.leaked), made.leaked)
    return made


@contextmanager
def client_of(world, **options):
    with server(world.home, **options) as (_, url), Client(url) as client:
        until(lambda: told(client, "/ready")["ready"])
        yield client


def told(client, path):
    try:
        return json.loads(client.get(path))
    except ServerUnable:
        return {"ready": False}


def until(reached):
    end = time.monotonic() + LONG
    while not (found := reached()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)
    return found


def version(client):
    return client.predict(GOOD, model="late")["model_version"]


@pytest.mark.filterwarnings("ignore::seatrial.stores.objects.ObjectRepaired")
def test_a_running_server_trusts_a_revoked_key_no_longer_and_says_so_until_it_is_signed_again(world):
    with client_of(world) as client:
        assert told(client, "/health") == {"live": True}
        assert "seatrial_distrusted{" not in client.get("/metrics").decode()
        world.revoke()
        health = until(lambda: told(client, "/health").get("distrusted"))
        assert world.leaked.keyid in health["late"]
        assert "revoked" in health["late"]
        assert told(client, "/ready")["distrusted"] == health
        assert told(client, "/ready")["ready"]
        assert 'seatrial_distrusted{deployment="late"} 1.0' in client.get("/metrics").decode()
        assert version(client) == "1"
        # whoever has the key makes a release, and a route to it
        world.route(2, world.put(2, world.leaked), world.leaked)
        until(lambda: told(client, "/ready")["refused"] == {"late": "route.not_trusted"})
        # neither is such a release taken from a route that is ours
        new = world.rotate()
        world.route(3, world.put(2, world.leaked), new)
        until(lambda: told(client, "/ready")["refused"] == {"late": "signing.refused"})
        assert version(client) == "1"
        # `releases resign`: bundles first, then routes
        arm = world.put(1, new, again=True)
        world.route(4, arm, new)
        until(lambda: told(client, "/health") == {"live": True})
        assert told(client, "/ready")["refused"] == {}
        assert 'seatrial_distrusted{deployment="late"} 0.0' in client.get("/metrics").decode()
        assert version(client) == "1"


@pytest.mark.filterwarnings("ignore::seatrial.stores.objects.ObjectRepaired")
def test_where_policy_says_so_nothing_is_answered_until_it_is_signed_again(world):
    with client_of(world, refuse_distrusted=True) as client:
        assert version(client) == "1"
        world.revoke()
        until(lambda: told(client, "/health").get("distrusted"))
        with pytest.raises(ServerUnable) as refused:
            version(client)
        assert refused.value.facts["code"] == "serving.not_trusted"
        with pytest.raises(ServerUnable):
            client.get("/ready")
        new = world.rotate()
        world.route(2, world.put(1, new, again=True), new)
        until(lambda: told(client, "/ready")["ready"])
        assert version(client) == "1"


def test_a_server_of_one_bundle_sees_it_too(tmp_path):
    keys = Keys(tmp_path / "keys")
    path = tmp_path / "late.seatrial"
    path.write_bytes(bundle(keys.key))
    with server(tmp_path, bundle=str(path)) as (_, url), Client(url) as client:
        keyring.revoke(tmp_path / "keys", keys.key.keyid)
        until(lambda: told(client, "/health").get("distrusted"))
        assert version(client) == "1"
        keyring.rotate_file(tmp_path / "keys")
        aside = tmp_path / "aside"
        aside.write_bytes(bundle(signing_key(tmp_path / "keys")))
        aside.replace(path)
        until(lambda: told(client, "/health") == {"live": True})


def test_a_release_that_was_signed_again_is_trusted_though_its_route_stayed(world, monkeypatch):
    """The route was signed by another key, so `releases resign` does not write it anew."""
    monkeypatch.setattr(serving, "DISTRUST_SECONDS", 0.0)
    other = read_private(b"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "test")
    keyring.trust(world.home / "keys", other.public)
    service = world.service()
    world.route(2, world.put(1, world.leaked), other)
    service.refresh()
    world.revoke()
    assert service._changed()
    service.refresh()
    assert service.distrusted.keys() == {"late"}
    assert service._changed()
    with pytest.warns(match="repaired|again|anew"):
        world.put(1, other, again=True)
    service.refresh()
    assert service.distrusted == {}
    assert not service._changed()


def test_what_was_refused_is_taken_when_its_key_is_trusted_later(world, tmp_path):
    theirs = signing_key(tmp_path / "theirs")
    service = world.service()
    world.route(2, world.put(2, theirs), theirs)
    service.refresh()
    assert service.state()["refused"] == {"late": "route.not_trusted"}
    keyring.trust(world.home / "keys", theirs.public)
    service.refresh()
    assert service.state()["deployments"]["late"]["generation"] == 2


def test_a_file_that_is_no_key_does_not_hide_that_another_was_revoked(tmp_path):
    keys = Keys(tmp_path)
    watched = WatchedKeys(tmp_path)
    assert dict(watched) == trusted_keys(tmp_path)
    (tmp_path / "trusted" / "broken.pub").write_text("no key")
    keyring.revoke(tmp_path, keys.key.keyid)
    assert watched.changed()
    watched.refresh()
    assert len(watched) == 0
    assert watched.revoked == {keys.key.keyid}
    assert not watched.changed()
    with pytest.raises(KeyUnusable):
        WatchedKeys(tmp_path)


def test_the_only_release_that_is_withheld_is_told_as_not_trusted_also_without_its_name(tmp_path):
    keys = Keys(tmp_path / "keys")
    path = tmp_path / "late.seatrial"
    path.write_bytes(bundle(keys.key))
    service = from_bundle(path, trusted_keys=WatchedKeys(tmp_path / "keys"), log=None, refuse_distrusted=True)
    assert service.predictor(None) is service.predictor("late")
    shutil.rmtree(tmp_path / "keys" / "trusted")
    service.refresh()
    for name in (None, "late"):
        with pytest.raises(NotTrusted):
            service.predictor(name)
    assert not service.state()["ready"]
