"""Rolling back while the metadata store is away: at once on this host, and reconciled when it is back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from seatrial.core.records import Record
from seatrial.deployment.definition import Deployment
from seatrial.deployment.deploy import (
    NothingDeployed,
    NothingToRollBackTo,
    Traffic,
    deploy,
    live,
    reconcile,
    roll_back,
)
from seatrial.deployment.emergency import JournalTooNew, roll_back_here, settle
from seatrial.stores.metadata import MetadataStore
from seatrial.stores.routes import RouteNotTrusted, RouteStore, RouteUnwritable

AT_US = 1_364_774_400_000_000


def sign(data: bytes) -> bytes:
    return hashlib.sha256(b"key" + data).digest()


def verify(data: bytes, signature: bytes) -> bool:
    return signature == sign(data)


SIGNED = {"sign": sign, "verify": verify}


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


def release(number: int) -> Record:
    body = {"model": "late", "owner": "flight-ops", "runbook": "docs/runbook.md"}
    return Record(f"rel_{number:032x}", "release", "late", (), body)


@pytest.fixture
def go(metadata, routes):
    def go(number):
        traffic = [Traffic(release(number), f"releases/{number}.seatrial")]
        return deploy(metadata, routes, Deployment("late"), traffic, actor="ada", at_us=AT_US, **SIGNED)

    return go


def here(routes, reason=""):
    return roll_back_here(routes, "late", actor="bob", at_us=AT_US + 5, reason=reason, **SIGNED)


def serves(routes) -> str:
    return routes.read("late", verify).arms[0].release


def test_a_host_returns_to_the_release_before_without_the_metadata_store(routes, go):
    go(1), go(2)
    route = here(routes)
    assert serves(routes) == release(1).id
    assert route.generation == 3


def test_the_store_learns_of_it_when_it_is_back(metadata, routes, go):
    go(1), go(2)
    here(routes, reason="too many 503")
    (settled,) = settle(metadata, routes, **SIGNED)
    assert settled.taken
    now = live(metadata, "late")
    assert now.record.inputs == (release(1).id,)
    assert now.head.generation == 3 == routes.read("late", verify).generation
    event = metadata.events(kind="rollback")[-1]
    assert (event.actor, event.at_us, event.body["reason"]) == ("bob", AT_US + 5, "too many 503")
    assert settle(metadata, routes, **SIGNED) == []


def test_two_roll_backs_while_away_go_two_back_and_are_both_told(metadata, routes, go):
    go(1), go(2), go(3)
    here(routes)
    here(routes)
    assert serves(routes) == release(1).id
    assert [one.taken for one in settle(metadata, routes, **SIGNED)] == [True, True]
    assert live(metadata, "late").record.inputs == (release(1).id,)


def test_a_decision_made_meanwhile_elsewhere_stands_and_reaches_this_host(metadata, routes, go, tmp_path):
    go(1), go(2)
    elsewhere = RouteStore(tmp_path / "elsewhere")
    here(routes)
    traffic = [Traffic(release(4), "releases/4.seatrial")]
    deploy(metadata, elsewhere, Deployment("late"), traffic, actor="eve", at_us=AT_US, **SIGNED)
    (settled,) = settle(metadata, routes, **SIGNED)
    assert not settled.taken
    assert serves(routes) == release(4).id
    assert routes.read("late", verify).generation == live(metadata, "late").head.generation > 3
    (event,) = metadata.events(kind="rollback.superseded")
    assert event.actor == "bob"


def test_a_settling_that_died_half_way_is_finished_once(metadata, routes, go, monkeypatch):
    go(1), go(2)
    here(routes)

    def dies(*_args, **_options):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(OSError, match="killed"):
            settle(metadata, routes, **SIGNED)
    (settled,) = settle(metadata, routes, **SIGNED)
    assert settled.taken
    assert live(metadata, "late").head.generation == 3
    assert len(metadata.events(kind="rollback")) == 1


def test_a_roll_back_after_a_roll_back_in_the_store_goes_one_further(metadata, routes, go):
    go(1), go(2), go(3)
    roll_back(metadata, routes, "late", actor="ada", at_us=AT_US, **SIGNED)
    here(routes)
    assert serves(routes) == release(1).id


def test_nothing_before_and_nothing_at_all_are_refused(routes, go):
    with pytest.raises(NothingDeployed):
        here(routes)
    go(1)
    with pytest.raises(NothingToRollBackTo):
        here(routes)
    assert serves(routes) == release(1).id


def test_only_what_was_signed_here_can_be_returned_to(routes, go):
    go(1), go(2)
    kept = routes.folder / "history" / "late" / "1.json"
    kept.write_bytes(kept.read_bytes().replace(b"releases/1", b"releases/9"))
    with pytest.raises(RouteNotTrusted):
        here(routes)
    assert serves(routes) == release(2).id


def test_a_journal_of_a_newer_version_is_refused_and_kept(metadata, routes, go):
    go(1), go(2)
    here(routes)
    (entry,) = (routes.folder / "journal").glob("*.json")
    entry.write_bytes(entry.read_bytes().replace(b'"format":1', b'"format":2'))
    with pytest.raises(JournalTooNew):
        settle(metadata, routes, **SIGNED)
    assert entry.exists()


def test_route_files_are_healed_after_settling(metadata, routes, go):
    go(1), go(2)
    here(routes)
    settle(metadata, routes, **SIGNED)
    assert reconcile(metadata, routes, **SIGNED) == []


@pytest.mark.parametrize("full", ["journal", "routes"])
def test_a_roll_back_that_cannot_be_written_leaves_nothing_behind(metadata, routes, go, monkeypatch, full):
    go(1), go(2)
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.parent.name == full:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(RouteUnwritable, match="No space left"):
            here(routes)
    assert serves(routes) == release(2).id
    assert not list((routes.folder / "journal").iterdir())
    assert settle(metadata, routes, **SIGNED) == []
