"""Routes: how do the messages that wait reach people, and what becomes of those that do not?

A route is an address in seatrial.toml:

    https://... or http://...                           JSON by POST
    slack+https://...                                   what Slack and those that copy it take
    alertmanager+https://HOST:9093                      Prometheus' Alertmanager
    smtp://USER:PASSWORD@HOST:587?to=A,B&from=C         e-mail with STARTTLS; smtps:// with TLS from the start

A message is taken before it is sent: in one transaction its next attempt is put off, so that two processes never send
the same, and one that was killed while it sent leaves it for the next. After the last attempt it is kept as
undelivered, with the reason, until a person sends it again. Messages on one incident go to a route in order; those on
another do not wait for them, so that no page is held up by a digest that is not due.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec

from seatrial.core.clock import from_us, iso, machine_us, monotonic
from seatrial.core.identity import canonical_json
from seatrial.monitoring.alerting.telling import DEAD, TOPIC, title
from seatrial.monitoring.routes.addresses import Allowed, post, refused
from seatrial.stores.metadata import MetadataStore, Transaction

if TYPE_CHECKING:
    from seatrial.monitoring.alerting.alerts import Alert

ATTEMPTS = 10
FIRST_US, MOST_US = 30_000_000, 3_600_000_000
"""Until the second attempt, and the longest until any; it doubles in between."""
TIMEOUT = 5.0
WHOLE = 30.0
"""Seconds for all routes of one call together, those included that are only told again."""
KEPT_BACK = ("attempts", "not_before_us", "order", "failure", "sent_us", "gave_up_us")
"""Parts of a message that are about sending it."""

Send = Callable[[str, Mapping[str, Any], Allowed, float], str]


@dataclass(frozen=True)
class Delivery:
    """What one call of `deliver` did. failures: why messages still wait, by target, without any address.

    pending: messages that wait, those not due yet included. gave_up: messages that were tried for the last time now.
    """

    sent: int
    pending: int
    failures: dict[str, str]
    gave_up: int = 0


class Undelivered(msgspec.Struct, frozen=True):
    """A message that did not arrive. given_up: nobody tries any more, `alerts resend` does. failure: of the last
    attempt; empty: it was not tried yet. next_at: of the next one, machine time in UTC."""

    id: str
    target: str
    model: str
    title: str
    attempts: int
    failure: str
    given_up: bool
    alerts: list[str]
    since: str
    next_at: str = ""


@dataclass
class _Turn:
    """One call: whose, how much time is left, what came of it."""

    metadata: MetadataStore
    allowed: Allowed
    project: str
    actor: str
    now_us: int
    ends: float
    sent: int = 0
    gave_up: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def deliver(
    metadata: MetadataStore,
    urls: Mapping[str, str],
    timeout: float = TIMEOUT,
    *,
    whole: float = WHOLE,
    allowed: Allowed | None = None,
    project: str = "",
    actor: str = "seatrial",
    now_us: int | None = None,
) -> Delivery:
    """Send what waits and is due, to each target in order. Never raises for what a target does.

    urls: name -> address, for the targets "route:NAME" and "webhook:NAME". allowed: internal addresses that are
    meant. timeout: seconds for all messages of one target together, from the name look-up to the answer. whole: for
    all targets together; those that are left wait for the next call. project: its name, for whoever is told by
    several. now_us: machine time. A message may arrive twice when an answer is lost: its `id` tells.
    """
    now_us = machine_us() if now_us is None else now_us
    turn = _Turn(metadata, allowed or Allowed(), project, actor, now_us, monotonic() + whole)
    lines: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for seq, message in _waiting(metadata):
        lines.setdefault(str(message.get("target", "")), []).append((seq, message))
    for target, messages in lines.items():
        address = address_of(urls, target)
        if address is None:
            turn.failures[target] = "no address is set for it"
            continue
        _send_all(turn, messages, target, address, min(monotonic() + timeout, turn.ends))
    return Delivery(turn.sent, waiting(metadata), turn.failures, turn.gave_up)


def refresh(
    metadata: MetadataStore,
    alerts: Sequence[Alert],
    urls: Mapping[str, str],
    *,
    allowed: Allowed | None = None,
    project: str = "",
    timeout: float = TIMEOUT,
    whole: float = WHOLE,
    skip: Iterable[str] = (),
) -> dict[str, str]:
    """Tell every Alertmanager among the alerts' routes again what rings; why one was not reached, by target.

    alerts: all, of whichever models. timeout, whole: as for `deliver`. skip: targets that did not answer a moment
    ago. An Alertmanager forgets what it is not told again, and one that was restarted may have lost it.
    """
    from seatrial.monitoring.alerting.telling import targets
    from seatrial.monitoring.routes import alertmanager

    named = dict.fromkeys(target for one in alerts for target in targets(one.on_call))
    failures = {}
    ends = monotonic() + whole
    for target in named:
        address = address_of(urls, target) or ""
        if target in skip or not address.casefold().startswith("alertmanager+"):
            continue
        mine = [one for one in alerts if target in targets(one.on_call)]
        ringing = alertmanager.ringing(metadata, mine, project)
        seconds = min(timeout, ends - monotonic())
        failure = alertmanager.put(address, ringing, allowed or Allowed(), seconds) if ringing else ""
        if failure:
            failures[target] = failure
    return failures


def due(metadata: MetadataStore, now_us: int) -> bool:
    """Whether a message waits whose next attempt has come. now_us: machine time."""
    return any(_due(message, now_us) for _, message in metadata.pending(TOPIC))


def waiting(metadata: MetadataStore) -> int:
    """How many messages wait, those not due yet included."""
    return len(metadata.pending(TOPIC))


def address_of(urls: Mapping[str, str], target: str) -> str | None:
    """The address of "route:NAME", "webhook:NAME" or NAME."""
    return urls.get(target.partition(":")[2]) or urls.get(target) or None


def send(address: str, message: Mapping[str, Any], allowed: Allowed, seconds: float) -> str:
    """Send one message; why that failed, or an empty text. No part of the address is in it."""
    scheme = address.partition("://")[0].casefold()
    sender = _senders().get(scheme)
    if sender is None:
        return f"its address is of no known kind ({', '.join(_senders())})"
    return sender(address, message, allowed, seconds)


def undelivered(metadata: MetadataStore) -> list[Undelivered]:
    """Messages that were given up, then those that were tried in vain and wait for another attempt."""
    dead = [_undelivered(message, given_up=True) for _, message in metadata.pending(DEAD)]
    return dead + [_undelivered(one, given_up=False) for _, one in _waiting(metadata) if one.get("failure")]


def held(metadata: MetadataStore) -> list[Undelivered]:
    """Messages that wait and were not tried yet: digests until their time, and what nobody has sent so far."""
    return [_undelivered(one, given_up=False) for _, one in _waiting(metadata) if not one.get("failure")]


def resend(metadata: MetadataStore, ids: Iterable[str] = ()) -> int:
    """Let messages be tried anew, at once: those given up, and those that wait for their next attempt; how many.

    ids: of messages, or the start of one; none: all of them.
    """
    chosen = tuple(ids)
    count = 0
    with metadata.transaction() as transaction:
        for topic in (TOPIC, DEAD):
            for seq, message in metadata.pending(topic):
                if (topic == TOPIC and not message.get("failure")) or not _means(chosen, message):
                    continue
                transaction.done(topic, seq)
                kept = {name: value for name, value in message.items() if name not in ("attempts", "not_before_us")}
                transaction.enqueue(TOPIC, kept | {"order": message.get("order", seq)})
                count += 1
    return count


def expanded(address: str, variables: Mapping[str, str], folder: Path) -> str | None:
    """The address with every `${VAR}` and `${file:PATH}` in it put in; None when one is not there.

    A value stands as it is; in the part of user and password, what an address would need escaped is escaped here.
    """
    secret_until = address.rfind("@", 0, _end_of_authority(address))
    missing = []

    def value(found: re.Match[str]) -> str:
        kind, _, path = found[1].partition(":")
        if kind == "file" and path:
            try:
                text = (folder / path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                text = ""
        else:
            text = variables.get(found[1], "")
        if not text:
            missing.append(found[1])
        return quote(text, safe="") if found.start() < secret_until else text

    whole = re.sub(r"\$\{([^}]+)\}", value, address)
    return None if missing or not whole else whole


def _end_of_authority(address: str) -> int:
    """Where user, password and host end; slashes in `${file:/run/secret}` are no end."""
    blank = re.sub(r"\$\{[^}]*\}", lambda found: "_" * len(found[0]), address)
    start = blank.find("://") + 3
    ends = [place for place in (blank.find(mark, start) for mark in "/?#") if place >= 0]
    return min(ends, default=len(address)) if start >= 3 else 0


def problem(address: str, allowed: Allowed | None = None, seconds: float = 2.0) -> str:
    """What is wrong with an address, before anything is sent; empty when nothing is. seconds: for looking up its name,
    which may not lead into the house."""
    scheme = address.partition("://")[0].casefold()
    if scheme not in _senders():
        return f"it is of no known kind: {', '.join(_senders())}"
    if scheme.startswith("smtp"):
        from seatrial.monitoring.routes.mail import read

        found = read(address)
        return found if isinstance(found, str) else refused(found.host, allowed or Allowed(), seconds)
    try:
        host = urlsplit(address).hostname
    except ValueError:
        host = None
    return refused(host, allowed or Allowed(), seconds) if host else "it names no host"


# One turn


def _send_all(
    turn: _Turn, messages: Sequence[tuple[int, dict[str, Any]]], target: str, address: str, ends: float
) -> None:
    """Send the messages of one target in order, up to the first that does not arrive; of a model's incident (or of what
    belongs to none) up to the first that is not due."""
    held = set()
    for seq, message in messages:
        # one alert is told there by its labels alone, so of a model an end must not pass a beginning, nor be passed
        whole = address.casefold().startswith("alertmanager+")
        about = (_model(message), "" if whole else message.get("incident", ""))
        if about in held:
            continue
        if not _due(message, turn.now_us):
            held.add(about)
            if message.get("failure"):
                turn.failures.setdefault(target, message["failure"])
            continue
        if ends - monotonic() <= 0:
            turn.failures.setdefault(target, "its time was used up by the messages before")
            return
        taken = _taken(turn.metadata, seq, turn.now_us)
        if taken is None:  # another process was faster
            held.add(about)
            continue
        seq, message = taken
        whose = {"project": turn.project} if turn.project else {}
        failure = send(address, message | whose, turn.allowed, ends - monotonic())
        if failure:
            turn.failures[target] = failure
            turn.gave_up += _put_off(turn.metadata, seq, message, failure, turn.actor, turn.now_us)
            return
        turn.metadata.done(TOPIC, seq)
        turn.sent += 1


def _waiting(metadata: MetadataStore) -> list[tuple[int, dict[str, Any]]]:
    """In the order in which they were left, whenever they were last tried."""
    return sorted(metadata.pending(TOPIC), key=lambda one: one[1].get("order", one[0]))


def _due(message: Mapping[str, Any], now_us: int) -> bool:
    """A time further away than any that is ever set comes of a clock that was put back."""
    left: int = message.get("not_before_us", 0) - now_us
    return left <= 0 or left > MOST_US


def _taken(metadata: MetadataStore, seq: int, now_us: int) -> tuple[int, dict[str, Any]] | None:
    """The message, with its next attempt put off; None when it is gone."""
    with metadata.transaction() as transaction:
        message = dict(metadata.pending(TOPIC)).get(seq)
        if message is None or not _due(message, now_us):
            return None
        attempts = message.get("attempts", 0) + 1
        later = {
            "attempts": attempts,
            "not_before_us": now_us + _back_off(attempts),
            "order": message.get("order", seq),
        }
        return _replaced(metadata, transaction, seq, message | later)


def _put_off(metadata: MetadataStore, seq: int, message: dict[str, Any], failure: str, actor: str, now_us: int) -> int:
    """Keep why it failed; 1 when that was the last attempt, and the message is kept as undelivered."""
    kept = message | {"failure": failure}
    with metadata.transaction() as transaction:
        if message["attempts"] < ATTEMPTS:
            _replaced(metadata, transaction, seq, kept)
            return 0
        transaction.done(TOPIC, seq)
        transaction.enqueue(DEAD, kept | {"gave_up_us": now_us})
        body = {"target": message["target"], "failure": failure, "attempts": message["attempts"]}
        body["message"] = message.get("id", "")
        transaction.event("alert.undelivered", message["alert"]["id"], actor=actor, at_us=now_us, body=body)
    return 1


def _replaced(
    metadata: MetadataStore, transaction: Transaction, seq: int, message: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    transaction.done(TOPIC, seq)
    transaction.enqueue(TOPIC, message)
    return metadata.pending(TOPIC)[-1]


def _back_off(attempts: int) -> int:
    return int(min(FIRST_US * 2 ** (attempts - 1), MOST_US))


def _model(message: Mapping[str, Any]) -> str:
    return str(message.get("model") or message["alert"]["model"])


def _means(chosen: Sequence[str], message: Mapping[str, Any]) -> bool:
    return not chosen or any(str(message.get("id", "")).startswith(one) for one in chosen)


def _undelivered(message: Mapping[str, Any], *, given_up: bool) -> Undelivered:
    next_us = 0 if given_up else message.get("not_before_us", 0)
    return Undelivered(
        id=str(message.get("id", "")),
        target=str(message["target"]),
        model=_model(message),
        title=title(message),
        attempts=message.get("attempts", 0),
        failure=message.get("failure", ""),
        given_up=given_up,
        alerts=[one["id"] for one in message.get("alerts") or [message["alert"]]],
        since=iso(from_us(message.get("sent_us", 0))),
        next_at=iso(from_us(next_us)) if next_us else "",
    )


# The kinds


def _senders() -> dict[str, Send]:
    from seatrial.monitoring.routes import alertmanager, mail, slack

    return {
        "http": _webhook,
        "https": _webhook,
        "slack+http": slack.send,
        "slack+https": slack.send,
        "alertmanager+http": alertmanager.send,
        "alertmanager+https": alertmanager.send,
        "smtp": mail.send,
        "smtps": mail.send,
    }


def _webhook(address: str, message: Mapping[str, Any], allowed: Allowed, seconds: float) -> str:
    body = {name: value for name, value in message.items() if name not in KEPT_BACK}
    return post(address, canonical_json(body), allowed, seconds)
