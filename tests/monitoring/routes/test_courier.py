"""Courier: what a route did not take is sent again while nothing else happens."""

from __future__ import annotations

import pytest

from seatrial.core.clock import machine_us
from seatrial.monitoring.routes.courier import Courier
from seatrial.monitoring.routes.delivery import deliver, undelivered, waiting
from seatrial.stores.metadata import MetadataStore
from tests.monitoring.alerted import HERE, Hook, settled

MINUTE_US = 60_000_000


@pytest.fixture
def metadata(tmp_path):
    return MetadataStore(tmp_path / "metadata.db")


@pytest.fixture
def hooks():
    made = []

    def hook(status):
        made.append(Hook(status))
        return made[-1]

    yield hook
    for one in made:
        one.close()


class Office:
    """A courier whose clock and route are put where the test wants them."""

    def __init__(self, metadata, url):
        self.url, self.now, self.why_not, self.said = url, machine_us(), "", []
        self.courier = Courier(
            metadata,
            send=lambda: deliver(metadata, {"ops": self.url}, allowed=HERE, now_us=self.now),
            held=lambda: self.why_not,
            say=self.said.append,
            clock=lambda: self.now,
            look_seconds=0.0,
        )

    def beat(self):
        self.courier._next = 0.0
        self.courier.beat()
        self.courier.wait(30)


def test_a_message_that_was_refused_arrives_by_itself_when_its_time_has_come(metadata, hooks):
    settled(metadata, 10)
    refusing, taking = hooks(500), hooks(200)
    office = Office(metadata, refusing.url)
    office.beat()
    assert (len(refusing.got), waiting(metadata)) == (1, 1)
    office.url = taking.url
    office.beat()  # too early for another attempt
    assert (len(taking.got), waiting(metadata)) == (0, 1)
    office.now += MINUTE_US
    office.beat()
    assert (len(taking.got), waiting(metadata)) == (1, 0)
    assert taking.got[0]["id"] == refusing.got[0]["id"]
    assert office.said == [
        "the alerts for 'webhook:ops' were not delivered: it answered 500; they are sent again",
        "the alerts for 'webhook:ops' arrive again",
    ]


def test_while_it_is_held_nothing_is_sent_and_afterwards_it_is(metadata, hooks):
    settled(metadata, 10)
    hook = hooks(200)
    office = Office(metadata, hook.url)
    office.why_not = "paused by ada"
    office.beat()
    assert (hook.got, undelivered(metadata)) == ([], [])
    office.why_not = ""
    office.beat()
    assert len(hook.got) == 1


def test_two_couriers_send_a_message_once(metadata, hooks):
    settled(metadata, 10)
    hook = hooks(200)
    offices = [Office(metadata, hook.url) for _ in range(4)]
    for one in offices:
        one.courier.beat()
    for one in offices:
        one.courier.wait(30)
    assert len(hook.got) == 1


def test_where_nothing_waits_nothing_is_begun(metadata):
    office = Office(metadata, "")
    office.beat()
    assert office.courier._under_way is None
