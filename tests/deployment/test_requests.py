"""Callers and releases never change at one instant: what has to be sent, and what is taken meanwhile."""

from __future__ import annotations

import pytest

from seatrial.core.records import Record
from seatrial.deployment.definition import Deployment
from seatrial.deployment.deploy import Traffic, deploy, roll_back
from seatrial.deployment.emergency import roll_back_here, settle
from seatrial.deployment.requests import RefusesCallers, RequestChange, change, check_callers
from seatrial.stores.metadata import MetadataStore
from seatrial.stores.routes import RouteStore

AT_US = 1_364_774_400_000_000


def sign(data: bytes) -> bytes:
    return b"signed " + data[-20:]


def verify(data: bytes, signature: bytes) -> bool:
    return signature == sign(data)


SIGNED = {"sign": sign, "verify": verify}


def release(number: int, **fields) -> Record:
    request = [
        {"name": name} | (given if isinstance(given, dict) else {"dtype": given}) for name, given in fields.items()
    ]
    body = {"model": "loan", "owner": "risk", "runbook": "r.md", "manifest": {"signature": {"request": request}}}
    return Record(f"rel_{number:032x}", "release", "loan", (), body)


ONE = release(1, amount="float", region="category")
TWO = release(2, amount="float", region="category", term="int", purpose="category")
THREE = release(3, amount="float", term="int")
SAME = release(4, amount="float", region="category")
EVERY = {"amount": "float", "region": "category", "term": "int", "purpose": "category"}


def test_what_changes_for_callers_is_told_in_words():
    found = change(ONE, TWO)
    assert (found.needed, found.refuses) == (["term", "purpose"], ["term", "purpose"])
    assert found.words == ["callers must send term, purpose"]
    assert change(TWO, ONE) == RequestChange(removed=["term", "purpose"])
    assert change(ONE, SAME).words == []


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("float", {"dtype": "float", "nullable": False}, "not_null"),
        ({"dtype": "float", "optional": True}, "float", "needed"),
        ("float", "int", "retyped"),
        ("bool", "float", "retyped"),
    ],
)
def test_what_a_field_takes_no_more_is_a_change_that_refuses_callers(before, after, kind):
    found = change(release(1, amount=before), release(2, amount=after))
    assert getattr(found, kind) == found.refuses == ["amount"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("int", "float"),
        ({"dtype": "float", "nullable": False}, "float"),
        ("float", {"dtype": "float", "optional": True}),
    ],
)
def test_what_takes_more_than_before_refuses_nobody(before, after):
    assert change(release(1, amount=before), release(2, amount=after)).refuses == []


def test_a_release_that_refuses_todays_callers_needs_a_reason_and_the_safe_way_is_said():
    with pytest.raises(RefusesCallers, match="callers must send term, purpose") as refused:
        check_callers("loan", TWO, change(ONE, TWO), reason=" ")
    assert "Shadow()" in refused.value.next
    check_callers("loan", TWO, change(ONE, TWO), reason="every caller sends them since Monday")
    check_callers("loan", ONE, change(TWO, ONE), reason="")


class TestRoute:
    @pytest.fixture
    def metadata(self, tmp_path):
        store = MetadataStore(tmp_path / "metadata.db")
        with store.transaction() as transaction:
            for one in (ONE, TWO, THREE, SAME):
                transaction.add(one)
        yield store
        store.close()

    @pytest.fixture
    def routes(self, tmp_path):
        return RouteStore(tmp_path / "routes")

    @pytest.fixture
    def go(self, metadata, routes):
        def go(*releases):
            shares = [10_000 - 500 * (len(releases) - 1), 500]
            names = ["live", "new"]
            traffic = [
                Traffic(one, one.id, share, name) for one, share, name in zip(releases, shares, names, strict=False)
            ]
            return deploy(metadata, routes, Deployment("loan"), traffic, actor="ada", at_us=AT_US, **SIGNED).route.sent

        return go

    def back(self, metadata, routes):
        return roll_back(metadata, routes, "loan", actor="ada", at_us=AT_US, **SIGNED).route.sent

    def test_it_names_no_fields_where_every_release_wants_the_same(self, go):
        assert go(ONE) == go(ONE, SAME) == go(SAME) == {}

    def test_it_names_what_callers_may_send_for_a_release_that_is_rolled_out_and_after_a_roll_back(
        self, metadata, routes, go
    ):
        assert go(ONE) == {}
        assert go(ONE, TWO) == EVERY
        assert self.back(metadata, routes) == EVERY
        assert go(TWO) == EVERY
        assert self.back(metadata, routes) == EVERY
        assert routes.read("loan", verify).arms[0].release == ONE.id

    def test_a_release_that_wants_less_takes_what_callers_still_send(self, go):
        go(TWO)
        assert go(THREE) == EVERY

    def test_what_no_recent_release_wants_is_forgotten(self, metadata, go):
        five, six = release(5, amount="float"), release(6, amount="float")
        with metadata.transaction() as transaction:
            transaction.add(five)
            transaction.add(six)
        assert ["purpose" in go(one) for one in (TWO, ONE, SAME, five, six)] == [False, True, True, True, False]

    def test_an_emergency_on_this_host_goes_on_taking_them(self, metadata, routes, go):
        go(ONE), go(TWO)
        route = roll_back_here(routes, "loan", actor="bob", at_us=AT_US, **SIGNED)
        assert (route.arms[0].release, route.sent) == (ONE.id, EVERY)
        assert settle(metadata, routes, **SIGNED)[0].taken
        go(ONE, TWO)
        assert roll_back_here(routes, "loan", actor="bob", at_us=AT_US, **SIGNED).sent == EVERY
