"""Telling: people hear of what rings once, in few messages, and not at all of what is muted."""

from __future__ import annotations

import threading
from dataclasses import replace

import msgspec
import pytest

from seatrial.core.clock import from_us, iso, machine_us, parse_time
from seatrial.core.records import Record
from seatrial.core.windows import Window
from seatrial.monitoring.alerting.alerts import (
    Silence,
    acknowledge,
    alerts,
    resolve,
    settle,
    settle_silences,
    with_mutes,
)
from seatrial.monitoring.alerting.incident import incident
from seatrial.monitoring.alerting.mutes import BadMute, mute, mutes, unmute
from seatrial.monitoring.alerting.telling import DIGEST_US, going_on, lines, targets, title, told_of
from seatrial.monitoring.report import Check
from seatrial.monitoring.routes.delivery import ATTEMPTS, deliver, resend, undelivered
from seatrial.stores.metadata import MetadataStore
from tests.monitoring.alerted import HERE, Hook, report_on
from tests.monitoring.worlds import DAY_US, START_US

HOUR_US = DAY_US // 24
NOON = START_US + 10 * DAY_US
BASE = report_on(10)


@pytest.fixture
def metadata(tmp_path):
    return MetadataStore(tmp_path / "metadata.db")


@pytest.fixture
def hook():
    hook = Hook()
    yield hook
    hook.close()


def settled(metadata, states, *, minute=0, on_call="route:ops", quality=BASE.quality):
    """A report whose alarms are in these states: {"a": "high"} fires with that severity, "quiet" does not."""
    end = NOON + minute * 60_000_000
    window = str(Window(end - 7 * DAY_US, end))
    alarms = [
        msgspec.structs.replace(
            BASE.alarms[0],
            name=name,
            window=window,
            state="quiet" if how == "quiet" else "fired",
            severity="high" if how == "quiet" else how,
            evidence=f"{name} is beyond its bound",
        )
        for name, how in states.items()
    ]
    report = msgspec.structs.replace(BASE, alarms=alarms, window=window, on_call=on_call, quality=quality)
    return settle(metadata, report, actor="ann", at_us=end, example="p-1")


def waiting(metadata):
    """In the order in which they are sent."""
    return [one for _, one in sorted(metadata.pending("webhook"), key=lambda it: it[1].get("order", it[0]))]


def summary(messages):
    return [(one["event"], one["page"], [alert["alarm"] for alert in one["alerts"]]) for one in messages]


# Incidents


def test_what_opens_together_is_one_message_and_the_worst_leads(metadata):
    settled(metadata, {"a": "low", "b": "high", "c": "medium"})
    assert summary(waiting(metadata)) == [("opened", True, ["b", "c", "a"])]
    assert len({one.incident for one in alerts(metadata)}) == 1


def test_a_hundred_alarms_in_a_minute_are_one_page(metadata, hook):
    for number in range(10):
        settled(metadata, {f"alarm {n:03}": "high" for n in range(10 * (number + 1))}, minute=number / 10)
        deliver(metadata, {"ops": hook.url}, allowed=HERE)
    assert [message["page"] for message in hook.got] == [True]
    (digest,) = waiting(metadata)
    assert (digest["event"], digest["page"], digest["count"]) == ("joined", False, 90)
    assert "90 more alarms in the same incident" in title(digest)
    assert "- and 40 more" in lines(digest)
    later = machine_us() + DIGEST_US
    assert deliver(metadata, {"ops": hook.url}, allowed=HERE, now_us=later).sent == 1
    assert len({one.incident for one in alerts(metadata)}) == 1


def test_two_runs_at_once_send_one_message(metadata, hook):
    report = msgspec.structs.replace(BASE, on_call="route:ops")

    def run():
        settle(metadata, report, actor="ann", at_us=NOON)
        deliver(metadata, {"ops": hook.url}, allowed=HERE)

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(alerts(metadata)) == 1
    assert [message["event"] for message in hook.got] == ["opened"]
    assert waiting(metadata) == []


def test_what_opens_later_joins_and_the_end_is_told_once_when_nothing_bad_rings_any_more(metadata):
    settled(metadata, {"a": "high"})
    settled(metadata, {"a": "high", "b": "high"}, minute=1)
    settled(metadata, {"a": "quiet", "b": "high"}, minute=2)
    assert [event for event, _, _ in summary(waiting(metadata))] == ["opened", "joined"]
    settled(metadata, {"a": "quiet", "b": "quiet"}, minute=3)
    assert summary(waiting(metadata))[-1] == ("resolved", False, ["a", "b"])
    settled(metadata, {"a": "high", "b": "quiet"}, minute=4)
    assert summary(waiting(metadata))[-1] == ("opened", True, ["a"])
    assert len({one.incident for one in alerts(metadata)}) == 2


def test_an_alarm_that_takes_over_while_the_last_one_ends_is_the_same_incident(metadata):
    settled(metadata, {"a": "high"})
    settled(metadata, {"a": "quiet", "b": "high"}, minute=60)
    settled(metadata, {"a": "quiet", "b": "quiet"}, minute=120)
    settled(metadata, {"a": "high", "b": "quiet"}, minute=180)
    messages = waiting(metadata)
    assert summary(messages) == [
        ("opened", True, ["a"]),
        ("joined", False, ["b"]),
        ("resolved", False, ["a", "b"]),
        ("opened", True, ["a"]),
    ]
    assert len({one["incident"] for one in messages}) == 2


def test_broken_data_do_not_go_on_in_the_place_of_an_alarm_that_ends(metadata):
    settled(metadata, {"a": "high"})
    broken = [Check("range", "x", passed=False, found="9", expected="1")]
    settled(metadata, {"a": "quiet"}, minute=60, quality=broken)
    assert [event for event, page, _ in summary(waiting(metadata)) if page] == ["opened", "opened"]


def test_a_ticket_that_stays_open_does_not_swallow_the_next_page(metadata):
    settled(metadata, {"a": "high", "t": "low"})
    settled(metadata, {"a": "quiet", "t": "low"}, minute=1)
    settled(metadata, {"a": "quiet", "t": "low", "b": "high"}, minute=2)
    assert [one["page"] for one in waiting(metadata)] == [True, False, True]


def test_another_failure_pages_while_an_older_incident_is_open_and_acknowledged(metadata):
    settled(metadata, {"a": "high"})
    acknowledge(metadata, alerts(metadata)[0].id, actor="ben", at_us=NOON)
    dead = replace(silence("no predictions", "high"), on_call="route:ops")
    settle_silences(metadata, ["late"], [dead], actor="cron", at_us=NOON + 1)
    assert summary(waiting(metadata)) == [("opened", True, ["a"]), ("opened", True, ["no predictions"])]
    assert [one["failures"] for one in waiting(metadata)] == [["model"], ["silence"]]
    settled(metadata, {"a": "high", "b": "high"}, minute=1)
    assert summary(waiting(metadata))[-1] == ("joined", False, ["b"])
    first, second, third = (one.incident for one in alerts(metadata))
    assert first == third != second
    settle_silences(metadata, ["late"], [], actor="cron", at_us=NOON + 2)
    ended = waiting(metadata)[-1]
    assert (ended["event"], ended["incident"], ended["over"]) == ("resolved", second, True)
    assert going_on(told_of(metadata, "late"), alerts(metadata)) == [first]


def test_a_page_waits_for_no_digest_and_for_no_message_in_back_off_of_another_incident(metadata, hook):
    settled(metadata, {"a": "high", "b": "quiet"})
    deliver(metadata, {"ops": hook.url}, allowed=HERE)
    settled(metadata, {"a": "high", "b": "high"}, minute=1)  # a digest, ten minutes from now
    dead = replace(silence("no predictions", "high"), on_call="route:ops")
    settle_silences(metadata, ["late"], [dead], actor="cron", at_us=NOON + 1)
    done = deliver(metadata, {"ops": hook.url}, allowed=HERE)
    assert (done.sent, done.pending) == (1, 1)
    assert summary(hook.got)[1:] == [("opened", True, ["no predictions"])]
    settle_silences(metadata, ["late"], [], actor="cron", at_us=NOON + 2)
    settled(metadata, {"a": "quiet", "b": "quiet"}, minute=2)
    deliver(metadata, {"ops": hook.url}, allowed=HERE)
    assert summary(hook.got)[2:] == [("resolved", False, ["no predictions"])]  # the others wait for their digest
    deliver(metadata, {"ops": hook.url}, allowed=HERE, now_us=machine_us() + DIGEST_US)
    assert summary(hook.got)[3:] == [("joined", False, ["b"]), ("resolved", False, ["a", "b"])]

    broken, now_us = Hook(500), machine_us() + DIGEST_US
    settled(metadata, {"a": "high", "b": "quiet"}, minute=3)
    assert deliver(metadata, {"ops": broken.url}, allowed=HERE, now_us=now_us).failures == {
        "route:ops": "it answered 500"
    }
    broken.close()
    settle_silences(metadata, ["late"], [replace(dead, window=Window(NOON, NOON + 9))], actor="cron", at_us=NOON + 9)
    settled(metadata, {"a": "quiet", "b": "quiet"}, minute=4)
    done = deliver(metadata, {"ops": hook.url}, allowed=HERE, now_us=now_us + 1)
    assert (done.sent, done.failures) == (1, {"route:ops": "it answered 500"})
    assert summary(hook.got)[-1] == ("opened", True, ["no predictions"])
    assert summary(waiting(metadata)) == [("opened", True, ["a"]), ("resolved", False, ["a"])]


def test_at_an_alertmanager_no_beginning_passes_an_end_of_the_same_labels(metadata, hook):
    settled(metadata, {"a": "high"})
    address = {"ops": f"alertmanager+{hook.url}"}
    assert deliver(metadata, address, allowed=HERE).sent == 1
    broken, now_us = Hook(500), machine_us()
    settled(metadata, {"a": "quiet"}, minute=1)
    deliver(metadata, {"ops": f"alertmanager+{broken.url}"}, allowed=HERE, now_us=now_us)
    broken.close()
    settled(metadata, {"a": "high"}, minute=2)
    assert deliver(metadata, address, allowed=HERE, now_us=now_us + 1).sent == 0
    assert deliver(metadata, address, allowed=HERE, now_us=now_us + 3_600_000_000).sent == 2
    *_, ended, begun = hook.got
    ends = [max(parse_time(one["endsAt"]) for one in told) for told in (ended, begun)]
    assert ends[0] < ends[1]


def test_broken_data_page_beside_an_alarm_of_the_model_and_together_they_are_one(metadata):
    settled(metadata, {"a": "high"})
    broken = [Check("values there", "age", False, "60.0% missing of 700", "at most 10.0%")]
    settled(metadata, {"a": "high", "b": "high"}, minute=1, quality=broken)
    told = [("opened", True, ["a"]), ("opened", True, ["data broken"]), ("joined", False, ["b"])]
    assert summary(waiting(metadata)) == told
    other = MetadataStore(metadata.path.with_name("other.db"))
    settled(other, {"a": "high"}, quality=broken)
    settled(other, {"a": "high", "b": "high"}, minute=1, quality=broken)
    assert summary(waiting(other)) == [("opened", True, ["a", "data broken"]), ("joined", False, ["b"])]


def test_what_is_over_before_its_message_has_left_is_marked(metadata, hook):
    settled(metadata, {"a": "high"})
    deliver(metadata, {"ops": hook.url}, allowed=HERE)
    settled(metadata, {"a": "high", "b": "high", "c": "high"}, minute=1)
    settled(metadata, {"a": "high", "b": "quiet", "c": "high"}, minute=2)
    (digest,) = waiting(metadata)
    assert title(digest) == "[ticket] late: 2 more alarms in the same incident"
    assert [bool(one.get("resolved_at")) for one in digest["alerts"]] == [True, False]
    assert "- b (high, over since 2013-04-11T00:02:00Z): b is beyond its bound" in lines(digest)
    settled(metadata, {"a": "high", "b": "quiet", "c": "quiet"}, minute=3)
    (digest,) = waiting(metadata)
    assert title(digest) == "[ticket] late: 2 more alarms in the same incident, over already"


def test_the_timeline_says_whether_a_message_was_sent(metadata, hook):
    def messages():
        every = alerts(metadata)
        found = incident(metadata, every, every[0], now_us=NOON + DAY_US).moments
        return [one.words for one in found if one.kind == "message"]

    settled(metadata, {"a": "high"})
    assert messages() == ["page for route:ops on 1 alert, waits"]
    deliver(metadata, {"ops": hook.url}, allowed=HERE)
    settled(metadata, {"a": "high", "b": "high"}, minute=1)
    assert messages() == ["page for route:ops on 1 alert, sent", "ticket for route:ops on 1 alert, waits"]


def test_drift_alone_is_a_ticket(metadata):
    settled(metadata, {"a": "low"})
    assert summary(waiting(metadata)) == [("opened", False, ["a"])]
    assert alerts(metadata)[0].incident == ""
    assert title(waiting(metadata)[0]).startswith("[ticket] late: ")


def test_models_have_incidents_of_their_own(metadata):
    settled(metadata, {"a": "high"})
    other = msgspec.structs.replace(report_on(10, on_call="route:ops"), model="early")
    settle(metadata, other, actor="ann", at_us=NOON)
    assert [one["page"] for one in waiting(metadata)] == [True, True]


def test_every_message_says_whose_it_is_and_which_commands_look_closer(metadata):
    settled(metadata, {"a": "high"})
    (message,) = waiting(metadata)
    alert = message["alert"]
    assert alert["explain"] == "seatrial explain p-1"
    assert alert["timeline"] == f"seatrial incident {alert['id']}"
    text = "\n".join(lines(message))
    for part in ("Owner: flight-ops", "Runbook: docs/runbook.md", "seatrial explain p-1", "seatrial incident alert_"):
        assert part in text


@pytest.mark.parametrize(
    ("on_call", "routes"),
    [
        ("route:ops", ["route:ops"]),
        ("webhook:ops, route:mail", ["webhook:ops", "route:mail"]),
        ("ann@example.org, route:mail", ["route:mail"]),
        ("", []),
    ],
)
def test_a_model_can_name_several_routes(metadata, on_call, routes):
    assert targets(on_call) == routes
    settled(metadata, {"a": "high"}, on_call=on_call)
    assert [one["target"] for one in waiting(metadata)] == routes
    assert told_of(metadata, "late").pages


# Mutes


def muted(metadata, alarm="", *, hours=4, at_us=NOON - 1):
    return mute(metadata, "late", alarm, until_us=at_us + hours * HOUR_US, actor="ben", at_us=at_us, reason="known")


def test_what_is_muted_is_kept_and_told_to_nobody(metadata):
    muted(metadata, "a")
    settled(metadata, {"a": "high", "b": "low"})
    assert summary(waiting(metadata)) == [("opened", False, ["b"])]
    shown = with_mutes(metadata, alerts(metadata), NOON)
    assert {one.alarm: bool(one.muted_until) for one in shown} == {"a": True, "b": False}


def test_what_still_rings_when_the_mute_ends_is_told_then(metadata):
    muted(metadata)
    settled(metadata, {"a": "high"})
    settled(metadata, {"a": "high"}, minute=239)
    assert waiting(metadata) == []
    settled(metadata, {"a": "high"}, minute=240)
    assert summary(waiting(metadata)) == [("opened", True, ["a"])]


def test_what_ended_while_it_was_muted_is_never_told(metadata):
    muted(metadata)
    settled(metadata, {"a": "high"})
    settled(metadata, {"a": "quiet"}, minute=10)
    settled(metadata, {"a": "quiet"}, minute=500)
    assert waiting(metadata) == []


def test_an_unmuted_alarm_is_told_at_the_next_look(metadata):
    muted(metadata, "a")
    settled(metadata, {"a": "high"})
    assert len(unmute(metadata, "late", "a", actor="ben", at_us=NOON + 1)) == 1
    settled(metadata, {"a": "high"}, minute=1)
    assert summary(waiting(metadata)) == [("opened", True, ["a"])]
    with pytest.raises(BadMute, match="is not muted"):
        unmute(metadata, "late", "a", actor="ben", at_us=NOON + 1)


def test_a_mute_that_ended_before_it_began_or_has_no_reason_is_refused(metadata):
    for until_us in (NOON, NOON - HOUR_US):
        with pytest.raises(BadMute, match="would end at"):
            mute(metadata, "late", "", until_us=until_us, actor="ben", at_us=NOON, reason="known")
    with pytest.raises(BadMute, match="no reason"):
        mute(metadata, "late", "", until_us=NOON + 1, actor="ben", at_us=NOON, reason=" ")
    assert mutes(metadata, NOON) == []


def test_a_mute_that_nobody_lives_to_see_end_is_refused(metadata):
    for years in (2, 20_000):
        with pytest.raises(BadMute, match="more than a year"):
            mute(
                metadata,
                "late",
                "",
                until_us=START_US + years * 366 * DAY_US,
                actor="a",
                at_us=START_US,
                reason="storm",
            )
    assert mutes(metadata, START_US) == []


def test_a_clock_that_jumps_back_before_a_mute_makes_it_void(metadata):
    muted(metadata, hours=1)
    assert len(mutes(metadata, NOON)) == 1
    assert mutes(metadata, NOON - DAY_US) == []
    assert mutes(metadata, NOON + HOUR_US) == []


# Silences


def silence(name="no labels", severity="medium", start=NOON - DAY_US):
    window = Window(start, NOON)
    return Silence("late", name, severity, "the labels of 'late' have not come", window, "look", {"value": 24.0})


def test_a_silence_is_one_alert_until_what_was_missed_comes(metadata):
    for _ in range(3):
        settle_silences(metadata, ["late"], [silence()], actor="cron", at_us=NOON)
    (alert,) = alerts(metadata)
    assert (alert.kind, alert.state, alert.seen) == ("silence", "open", 1)
    settle_silences(metadata, ["late"], [], actor="cron", at_us=NOON + 1)
    assert alerts(metadata)[0].state == "resolved"


def test_a_report_does_not_end_a_silence(metadata):
    settle_silences(metadata, ["late"], [silence()], actor="cron", at_us=NOON)
    settled(metadata, {"a": "quiet"})
    assert alerts(metadata)[0].state == "open"


def test_a_silence_that_a_person_resolved_stays_so_until_something_came(metadata):
    settle_silences(metadata, ["late"], [silence()], actor="cron", at_us=NOON)
    resolve(metadata, alerts(metadata)[0].id, actor="ben", at_us=NOON, reason="holidays")
    settle_silences(metadata, ["late"], [silence()], actor="cron", at_us=NOON + 1)
    assert len(alerts(metadata)) == 1
    settle_silences(metadata, ["late"], [silence(start=NOON - HOUR_US)], actor="cron", at_us=NOON + 2)
    assert len(alerts(metadata)) == 2


def test_what_nobody_can_judge_leaves_a_silence_as_it_is(metadata):
    settle_silences(metadata, ["late"], [silence()], actor="cron", at_us=NOON)
    undecided = {("late", "no labels")}
    settle_silences(metadata, ["late"], [], actor="cron", at_us=NOON + 1, undecided=undecided)
    settle_silences(metadata, ["late"], [], actor="cron", at_us=NOON - DAY_US)  # the clock was put back
    assert alerts(metadata)[0].state == "open"


# Retries


def test_a_message_is_put_off_longer_each_time_and_then_kept_as_undelivered(metadata):
    hook = Hook(500)
    settled(metadata, {"a": "high"})
    now_us, waits = machine_us(), []
    for attempt in range(ATTEMPTS):
        done = deliver(metadata, {"ops": hook.url}, allowed=HERE, now_us=now_us)
        early = deliver(metadata, {"ops": hook.url}, allowed=HERE, now_us=now_us + 1)
        assert (early.sent, len(hook.got)) == (0, attempt + 1)
        (one,) = undelivered(metadata)
        if not one.given_up:
            waits.append(waiting(metadata)[0]["not_before_us"] - now_us)
            now_us += waits[-1]
    hook.close()
    assert [wait // 1_000_000 for wait in waits] == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert (done.gave_up, done.pending) == (1, 0)
    assert (one.given_up, one.attempts, one.failure) == (True, ATTEMPTS, "it answered 500")
    assert "secret" not in str(undelivered(metadata))
    (event,) = metadata.events(kind="alert.undelivered")
    assert (event.subject, event.body["target"]) == (alerts(metadata)[0].id, "route:ops")


def test_what_was_given_up_is_sent_again_when_a_person_says_so(metadata, hook):
    broken = Hook(500)
    settled(metadata, {"a": "high"})
    now_us = machine_us()
    for _ in range(ATTEMPTS):
        deliver(metadata, {"ops": broken.url}, allowed=HERE, now_us=now_us)
        now_us += 2 * HOUR_US
    broken.close()
    assert deliver(metadata, {"ops": hook.url}, allowed=HERE, now_us=now_us).sent == 0
    assert resend(metadata, ["msg_nothing"]) == 0
    assert resend(metadata) == 1
    assert deliver(metadata, {"ops": hook.url}, allowed=HERE).sent == 1
    assert undelivered(metadata) == []
    assert hook.got[0]["alert"]["alarm"] == "a"


def test_what_a_person_resolved_stays_so_when_a_message_on_it_is_given_up(metadata):
    broken = Hook(500)
    settled(metadata, {"a": "high"})
    resolve(metadata, alerts(metadata)[0].id, actor="ben", at_us=NOON + 1, reason="storm")
    now_us = machine_us()
    for _ in range(ATTEMPTS):
        deliver(metadata, {"ops": broken.url}, allowed=HERE, now_us=now_us)
        now_us += 2 * HOUR_US
    broken.close()
    assert metadata.events(kind="alert.undelivered")
    settled(metadata, {"a": "high"}, minute=1)
    assert [(one.alarm, one.state) for one in alerts(metadata)] == [("a", "resolved")]


def test_a_sender_that_was_killed_leaves_the_message_for_the_next(metadata, hook):
    from seatrial.monitoring.routes import delivery

    settled(metadata, {"a": "high"})
    ((seq, _),) = metadata.pending("webhook")
    now_us = machine_us()
    assert delivery._taken(metadata, seq, now_us) is not None  # and here it died
    assert deliver(metadata, {"ops": hook.url}, allowed=HERE, now_us=now_us).sent == 0
    assert deliver(metadata, {"ops": hook.url}, allowed=HERE, now_us=now_us + 30_000_000).sent == 1


def test_a_clock_that_was_put_back_does_not_hold_messages_for_years(metadata, hook):
    broken = Hook(500)
    settled(metadata, {"a": "high"})
    now_us = machine_us()
    deliver(metadata, {"ops": broken.url}, allowed=HERE, now_us=now_us)
    broken.close()
    back = now_us - 1000 * DAY_US
    assert deliver(metadata, {"ops": hook.url}, allowed=HERE, now_us=back).sent == 1


def test_a_message_of_a_version_before_incidents_is_still_sent(metadata, hook):
    alert = {"id": "alert_1", "model": "late", "alarm": "a", "headline": "it rings", "severity": "high"}
    with metadata.transaction() as transaction:
        old = {"format": 1, "target": "webhook:ops", "event": "opened", "alert": alert}
        transaction.enqueue("webhook", old)
    assert deliver(metadata, {"ops": hook.url}, allowed=HERE).sent == 1
    assert hook.got == [old]


def test_an_alert_of_a_version_before_incidents_is_not_told_again(metadata):
    settled(metadata, {"a": "high"})
    record = metadata.records("alert")[0]
    old = {name: value for name, value in record.body.items() if name not in ("kind", "example")}
    other = MetadataStore(metadata.path.with_name("old.db"))
    with other.transaction() as transaction:
        transaction.add(Record(record.id, record.kind, record.name, (), old, record.format))
        transaction.event("alert.opened", record.id, actor="ann", at_us=NOON, body={"window": old["window"]})
        transaction.move("alert", record.name, record.id, expected=0)
    settled(other, {"a": "high"}, minute=1)
    assert other.pending("webhook") == []
    assert alerts(other)[0].seen == 2
    assert iso(from_us(NOON)) == alerts(other)[0].opened_at
