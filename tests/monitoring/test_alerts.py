from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.core.records import Record
from seatrial.core.windows import Window
from seatrial.monitoring.alerts import AlertOver, UnknownAlert, acknowledge, alerts, deliver, resolve, settle
from seatrial.monitoring.definition import Alarm, Monitor
from seatrial.monitoring.monitor import make_report
from seatrial.stores.metadata import MetadataStore
from tests.monitoring.worlds import DAY_US, START_US, a_sample

MONITOR = Monitor("late")


@pytest.fixture
def metadata(tmp_path):
    return MetadataStore(tmp_path / "metadata.db")


def report_on(day, rate=0.6, *, monitor=MONITOR, on_call="webhook:ops", few=False):
    """The report of the week that ends `day` days into April; 0.3 was predicted, `rate` came true."""
    end = START_US + day * DAY_US
    count = 100 if few else 700
    at = end - 8 * DAY_US + np.arange(count) * (8 * DAY_US // count)
    labels = np.arange(count) % 10 < rate * 10
    sample = a_sample(np.full(count, 0.3), labels.astype(float), at_us=at)
    return make_report(
        sample,
        window=Window(end - 7 * DAY_US, end),
        as_of_us=end,
        monitor=monitor,
        id=f"rep_{day}_{rate}",
        owner="flight-ops",
        on_call=on_call,
        runbook="docs/runbook.md",
    )


def settled(metadata, day, *given, **named):
    report = report_on(day, *given, **named)
    return settle(metadata, report, actor="ann", at_us=START_US + day * DAY_US)


def kinds(metadata):
    return [event.kind for event in metadata.events()]


def test_an_alarm_that_fires_opens_an_alert_with_all_that_is_needed_at_night(metadata):
    (alert,) = settled(metadata, 10)
    assert (alert.state, alert.severity, alert.alarm) == ("open", "high", "calibration gap above 0.1 over 7d")
    assert (alert.owner, alert.on_call, alert.runbook) == ("flight-ops", "webhook:ops", "docs/runbook.md")
    assert alert.evidence["value"] == pytest.approx(0.3, abs=0.01)
    assert alert.evidence["observed"] == pytest.approx(0.6, abs=0.01)
    assert (alert.evidence["threshold"], alert.release, alert.report) == (0.1, "rel_1", "rep_10_0.6")
    assert alert.action
    assert "60 %" in alert.headline
    assert alert.opened_at == "2013-04-11T00:00:00Z"
    record = metadata.record(alert.id)
    assert (record.kind, record.inputs) == ("alert", ("rep_10_0.6",))
    assert metadata.head("alert", "late/calibration gap above 0.1 over 7d").record_id == alert.id


def test_while_an_alert_is_open_its_alarm_opens_no_other(metadata):
    (first,) = settled(metadata, 10)
    (again,) = settled(metadata, 11)
    assert (again.id, again.seen, again.last_seen_at) == (first.id, 2, "2013-04-12T00:00:00Z")
    acknowledge(metadata, first.id, actor="ben", at_us=START_US + 11 * DAY_US)
    (third,) = settled(metadata, 12)
    assert (third.id, third.seen, third.state) == (first.id, 3, "acknowledged")
    assert len(metadata.records("alert")) == 1


def test_the_same_look_twice_is_seen_once(metadata):
    settled(metadata, 10)
    settled(metadata, 11)
    before = kinds(metadata)
    settled(metadata, 11)
    assert kinds(metadata) == before


def test_a_quiet_alarm_resolves_its_alert(metadata):
    (opened,) = settled(metadata, 10)
    (over,) = settled(metadata, 11, 0.3)
    assert (over.id, over.state, over.reason) == (opened.id, "resolved", "the alarm is quiet again")
    assert over.resolved_at == "2013-04-12T00:00:00Z"
    assert settled(metadata, 12, 0.3) == []


def test_too_little_data_is_not_quiet(metadata):
    settled(metadata, 10)
    (still,) = settled(metadata, 11, 0.3, few=True)
    assert still.state == "open"


def test_after_it_was_resolved_a_later_window_opens_another(metadata):
    (first,) = settled(metadata, 10)
    settled(metadata, 11, 0.3)
    (second,) = settled(metadata, 12)
    assert second.id != first.id
    assert [alert.state for alert in alerts(metadata)] == ["resolved", "open"]


def test_a_report_on_an_older_window_changes_nothing(metadata):
    settled(metadata, 10)
    settled(metadata, 12, 0.3)
    before = kinds(metadata)
    assert settled(metadata, 11) == []
    assert settled(metadata, 9, 0.3) == []
    assert kinds(metadata) == before


def test_an_alert_that_a_person_resolved_is_not_opened_again_by_the_same_window(metadata):
    (first,) = settled(metadata, 10)
    resolve(metadata, first.id, actor="ben", at_us=START_US + 10 * DAY_US + 5, reason="storm")
    assert settled(metadata, 10) == []
    assert len(settled(metadata, 11)) == 1


def test_an_alarm_that_is_not_declared_any_more_has_no_open_alert(metadata):
    settled(metadata, 10)
    (over,) = settled(metadata, 11, monitor=Monitor("late", alarms=[Alarm.calibration(0.5)]))
    assert (over.state, over.reason) == ("resolved", "the alarm is not declared any more")


def test_alerts_of_other_models_are_left_alone(metadata):
    settled(metadata, 10)
    other = report_on(11, 0.3)
    settle(metadata, msgspec.structs.replace(other, model="early"), actor="ann", at_us=START_US)
    assert [alert.state for alert in alerts(metadata, "late")] == ["open"]
    assert alerts(metadata, "early") == []


def test_who_did_what_and_why_is_told_in_order(metadata):
    (first,) = settled(metadata, 10)
    acknowledge(metadata, first.id, actor="ben", at_us=START_US + 11 * DAY_US, reason="looking")
    done = resolve(metadata, first.id, actor="eve", at_us=START_US + 12 * DAY_US, reason="strike is over")
    assert [(one.kind, one.actor, one.reason) for one in done.history] == [
        ("opened", "ann", ""),
        ("acknowledged", "ben", "looking"),
        ("resolved", "eve", "strike is over"),
    ]
    assert (done.acknowledged_by, done.resolved_by, done.reason) == ("ben", "eve", "strike is over")


def test_nothing_more_can_be_said_of_an_alert_that_is_over(metadata):
    (first,) = settled(metadata, 10)
    resolve(metadata, first.id, actor="eve", at_us=0)
    for say in (acknowledge, resolve):
        with pytest.raises(AlertOver, match="eve"):
            say(metadata, first.id, actor="ben", at_us=0)


def test_an_id_that_is_no_alert_is_refused(metadata):
    with metadata.transaction() as transaction:
        transaction.add(Record("rep_1", "report", "late"))
    for unknown in ("alert_nothing", "rep_1"):
        with pytest.raises(UnknownAlert):
            acknowledge(metadata, unknown, actor="ben", at_us=0)


def test_two_reports_at_once_open_one_alert(metadata):
    report = report_on(10)
    threads = [
        threading.Thread(target=settle, args=(metadata, report), kwargs={"actor": str(n), "at_us": START_US})
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kinds(metadata) == ["alert.opened"]


steps = st.one_of(
    st.tuples(st.integers(1, 9), st.sampled_from(["fired", "quiet", "not_enough_data"])),
    st.tuples(st.none(), st.sampled_from(["acknowledge", "resolve"])),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=10))
def test_whatever_happens_in_whatever_order_an_alarm_has_one_alert_at_most(taken):
    """Beside a model of it: the state, the newest window that was looked at, how many were opened."""
    with TemporaryDirectory() as folder:
        metadata = MetadataStore(Path(folder) / "metadata.db")
        state, newest, opened = "resolved", 0, 0
        for day, what in taken:
            if day is None:
                for alert in [one for one in alerts(metadata) if one.state != "resolved"]:
                    say = acknowledge if what == "acknowledge" else resolve
                    say(metadata, alert.id, actor="ben", at_us=0)
                if state != "resolved":
                    state = "acknowledged" if what == "acknowledge" else "resolved"
            else:
                settle(metadata, as_if(day, what), actor="ann", at_us=day * DAY_US)
                if day > newest and what == "fired":
                    opened, state = (opened + 1, "open") if state == "resolved" else (opened, state)
                    newest = day
                elif day > newest and what == "quiet" and state != "resolved":
                    state, newest = "resolved", day
            found = alerts(metadata)
            assert len(found) == opened
            assert [one.state for one in found if one.state != "resolved"] == ([] if state == "resolved" else [state])
        metadata.close()


BASE = report_on(10)


def as_if(day, state):
    """A report whose only alarm is in `state` at the end of `day`."""
    window = str(Window(START_US + (day - 7) * DAY_US, START_US + day * DAY_US))
    alarm = msgspec.structs.replace(BASE.alarms[0], state=state, window=window)
    return msgspec.structs.replace(BASE, alarms=[alarm], window=window)


# Delivery


class Hook:
    """A webhook on this machine: answers with `status`, remembers what it got."""

    def __init__(self, status=200, **headers):
        got = self.got = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=secret"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hook():
    hook = Hook()
    yield hook
    hook.close()


def test_the_webhook_hears_of_the_opening_and_of_the_end_in_order(metadata, hook):
    settled(metadata, 10)
    settled(metadata, 11)
    settled(metadata, 12, 0.3)
    done = deliver(metadata, {"ops": hook.url})
    assert (done.sent, done.pending, done.failures) == (2, 0, {})
    assert [message["event"] for message in hook.got] == ["opened", "resolved"]
    opened = hook.got[0]["alert"]
    assert opened["evidence"]["value"] == pytest.approx(0.3, abs=0.01)
    assert (opened["owner"], opened["runbook"], opened["severity"]) == ("flight-ops", "docs/runbook.md", "high")
    assert deliver(metadata, {"ops": hook.url}).sent == 0


def test_without_a_webhook_nothing_waits_to_be_sent(metadata):
    settled(metadata, 10, on_call="ann@example.org")
    assert deliver(metadata, {}).pending == 0


def test_a_webhook_without_an_address_keeps_its_messages(metadata, hook):
    settled(metadata, 10)
    done = deliver(metadata, {"other": hook.url})
    assert (done.sent, done.pending) == (0, 1)
    assert done.failures == {"webhook:ops": "no address is set for it"}
    assert deliver(metadata, {"ops": hook.url}).sent == 1


@pytest.mark.parametrize("status", [199 + 102, 307, 400, 500])
def test_an_answer_that_is_no_yes_keeps_the_message(metadata, status):
    hook = Hook(status, Location="http://127.0.0.1:1/elsewhere")
    settled(metadata, 10)
    done = deliver(metadata, {"ops": hook.url})
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
    done = deliver(metadata, {"ops": url}, timeout=2)
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
    done = deliver(metadata, {"ops": f"http://127.0.0.1:{server.getsockname()[1]}/secret"}, timeout=0.4)
    stop.set()
    thread.join()
    server.close()
    assert (done.sent, done.pending) == (0, 2)
    assert done.failures == {"webhook:ops": "no answer in time"} or "reached" in done.failures["webhook:ops"]


def test_one_target_that_fails_does_not_hold_up_another(metadata, hook):
    settled(metadata, 10, on_call="webhook:dead")
    settle(metadata, msgspec.structs.replace(report_on(10), model="early"), actor="ann", at_us=START_US + 10 * DAY_US)
    done = deliver(metadata, {"dead": "http://127.0.0.1:1/", "ops": hook.url})
    assert (done.sent, done.pending, list(done.failures)) == (1, 1, ["webhook:dead"])
