"""Routes: what waits reaches people, whatever the other side does, and what does not is kept and said."""

from __future__ import annotations

import socket
import threading

import msgspec
import pytest

from seatrial.monitoring.alerting.alerts import alerts, settle
from seatrial.monitoring.routes.delivery import deliver, held, refresh
from seatrial.stores.metadata import MetadataStore
from tests.monitoring.alerted import HERE, Hook, report_on, settled
from tests.monitoring.worlds import DAY_US, START_US


@pytest.fixture
def metadata(tmp_path):
    return MetadataStore(tmp_path / "metadata.db")


def deliver_to(metadata, urls, **named):
    return deliver(metadata, urls, **{"allowed": HERE} | named)


@pytest.fixture
def hook():
    hook = Hook()
    yield hook
    hook.close()


def test_the_webhook_hears_of_the_opening_and_of_the_end_in_order(metadata, hook):
    settled(metadata, 10)
    settled(metadata, 11)
    settled(metadata, 12, 0.3)
    done = deliver_to(metadata, {"ops": hook.url})
    assert (done.sent, done.pending, done.failures) == (2, 0, {})
    assert [message["event"] for message in hook.got] == ["opened", "resolved"]
    opened = hook.got[0]["alert"]
    assert opened["evidence"]["value"] == pytest.approx(0.3, abs=0.01)
    assert (opened["owner"], opened["runbook"], opened["severity"]) == ("flight-ops", "docs/runbook.md", "high")
    assert deliver_to(metadata, {"ops": hook.url}).sent == 0


def test_the_body_names_the_project_so_that_one_webhook_can_serve_several(metadata, hook):
    settled(metadata, 10)
    settled(metadata, 12, 0.3)
    assert deliver_to(metadata, {"ops": hook.url}, project="shop").sent == 2
    assert [(one["event"], one["project"]) for one in hook.got] == [("opened", "shop"), ("resolved", "shop")]
    settled(metadata, 20)
    assert deliver_to(metadata, {"ops": hook.url}).sent == 1
    assert "project" not in hook.got[-1]


def test_without_a_webhook_nothing_waits_to_be_sent(metadata):
    settled(metadata, 10, on_call="ann@example.org")
    assert deliver_to(metadata, {}).pending == 0


def test_a_webhook_without_an_address_keeps_its_messages(metadata, hook):
    settled(metadata, 10)
    done = deliver_to(metadata, {"other": hook.url})
    assert (done.sent, done.pending) == (0, 1)
    assert done.failures == {"webhook:ops": "no address is set for it"}
    assert deliver_to(metadata, {"ops": hook.url}).sent == 1


@pytest.mark.parametrize("status", [199 + 102, 307, 400, 500])
def test_an_answer_that_is_no_yes_keeps_the_message(metadata, status):
    hook = Hook(status, Location="http://127.0.0.1:1/elsewhere")
    settled(metadata, 10)
    done = deliver_to(metadata, {"ops": hook.url})
    hook.close()
    assert (done.sent, done.pending, len(hook.got)) == (0, 1, 1)
    assert str(status) in done.failures["webhook:ops"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "not an address",
        "file:///etc/passwd?token=secret",
        "ftp://127.0.0.1/secret",
        "http://",
        "http://127.0.0.1:99999/secret",
        "http://127.0.0.1:0/secret",
        "http://[::1/secret",
        "http://127.0.0.1:1/secret",
        "http://127.0.0.1:1/a b\r\nsecret: x",
        "http://name.that.does.not.exist.invalid/secret",
        "https://127.0.0.1:1/secret",
        "http://" + "a" * 300 + "/secret",
        "http://..secret/",
    ],
)
def test_an_address_that_does_not_work_never_raises_and_is_never_shown(metadata, url):
    settled(metadata, 10)
    done = deliver_to(metadata, {"ops": url}, timeout=2)
    assert (done.sent, done.pending) == (0, 1)
    assert "secret" not in done.failures["webhook:ops"]
    assert "127.0.0.1" not in done.failures["webhook:ops"]


@pytest.mark.parametrize("trickle", [b"", b"H", b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_a_webhook_that_hangs_or_trickles_holds_nobody_up(metadata, trickle):
    """The limit is on the whole exchange: the webhook goes on for as long as the test waits for us."""
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve():
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(trickle)
                while not stop.wait(0.05):
                    connection.sendall(trickle[-1:])
            except OSError:
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    settled(metadata, 10)
    settled(metadata, 11, 0.3)
    done = deliver_to(metadata, {"ops": f"http://127.0.0.1:{server.getsockname()[1]}/secret"}, timeout=0.4)
    stop.set()
    thread.join()
    server.close()
    assert (done.sent, done.pending) == (0, 2)
    assert done.failures == {"webhook:ops": "no answer in time"} or "reached" in done.failures["webhook:ops"]


def test_one_target_that_fails_does_not_hold_up_another(metadata, hook):
    settled(metadata, 10, on_call="webhook:dead")
    settle(metadata, msgspec.structs.replace(report_on(10), model="early"), actor="ann", at_us=START_US + 10 * DAY_US)
    done = deliver_to(metadata, {"dead": "http://127.0.0.1:1/", "ops": hook.url})
    assert (done.sent, done.pending, list(done.failures)) == (1, 1, ["webhook:dead"])


@pytest.fixture
def silent():
    """An address that takes connections and never answers."""
    server = socket.create_server(("127.0.0.1", 0))
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()


def test_all_routes_of_one_call_share_its_time_however_slowly_they_answer(metadata, hook, silent):
    names = [f"slow{number}" for number in range(6)]
    settled(metadata, 10, on_call=", ".join(f"route:{name}" for name in [*names, "ops"]))
    urls = dict.fromkeys(names, silent) | {"ops": hook.url}
    done = deliver_to(metadata, urls, timeout=0.2, whole=0.5)
    assert (done.sent, done.pending, hook.got) == (0, 7, [])
    tried = in_vain(done.failures)
    assert [one.target for one in held(metadata)] == [f"route:{name}" for name in [*names, "ops"][tried:]]
    assert deliver_to(metadata, {"ops": hook.url}).sent == 1  # they are the first of the next call


def test_all_alertmanagers_that_are_told_again_share_its_time_too(metadata, silent):
    names = [f"slow{number}" for number in range(6)]
    settled(metadata, 10, on_call=", ".join(f"route:{name}" for name in names))
    urls = dict.fromkeys(names, f"alertmanager+{silent}")
    failures = refresh(metadata, alerts(metadata), urls, allowed=HERE, timeout=0.2, whole=0.5)
    in_vain(failures)


def in_vain(failures):
    """How many routes were tried before the time of all was used up."""
    late = [why == "its time was used up by the messages before" for why in failures.values()]
    assert late == sorted(late)
    assert 0 < late.count(False) < 6
    return late.count(False)
