"""E-mail: a message to a few addresses, over SMTP.

    smtp://USER:PASSWORD@HOST:587?to=ops@example.org,duty@example.org&from=seatrial@example.org

STARTTLS is required with smtp:// unless `tls=none` is written; smtps:// is encrypted from the start. A password is
never sent without encryption.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from seatrial.core.clock import machine_us
from seatrial.core.inert import inert
from seatrial.monitoring.alerting.telling import lines, title
from seatrial.monitoring.routes.addresses import Allowed, connected, within

PORTS = {"smtp": 587, "smtps": 465}
FORM = "smtp://USER:PASSWORD@HOST:587?to=A@B&from=C@D is expected"
PERSON = re.compile(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+")


@dataclass(frozen=True)
class Mail:
    """Where a mail goes. encrypted: "starttls", "tls" or "none". password is shown by nothing."""

    host: str
    port: int
    to: tuple[str, ...]
    sender: str
    user: str
    password: str
    encrypted: str

    def __repr__(self) -> str:
        return f"Mail(to {len(self.to)})"


def read(address: str) -> Mail | str:
    """What an address says, or what is wrong with it, in words that show nothing of it."""
    try:
        parts = urlsplit(address)
        options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        host, port = parts.hostname, parts.port or PORTS[parts.scheme.casefold()]
    except (ValueError, KeyError):
        return f"its address cannot be read: {FORM}"
    if not host or port is None:
        return f"its address names no host: {FORM}"
    if set(options) - {"to", "from", "tls"}:
        return "its address has an option that is not known: to, from and tls are"
    people = tuple(one.strip() for one in options.get("to", "").split(",") if one.strip())
    sender = options.get("from", "")
    if not people or not all(PERSON.fullmatch(one) for one in (*people, sender)):
        return f"its address lacks to= or from=, or one of them is no e-mail address: {FORM}"
    tls = options.get("tls", "starttls")
    if tls not in ("starttls", "none"):
        return "its option tls is neither starttls nor none"
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not (user + password).isascii():
        return "its user or password has letters that smtplib cannot send: only ASCII"
    encrypted = "tls" if parts.scheme.casefold() == "smtps" else tls
    if password and encrypted == "none":
        return "its password would be sent without encryption"
    return Mail(host, port, people, sender, user, password, encrypted)


def send(address: str, message: Mapping[str, Any], allowed: Allowed, seconds: float) -> str:
    """Send one mail to all of the address; why that failed, or an empty text."""
    mail = read(address)
    if isinstance(mail, str):
        return mail
    letter = compose(message, mail)

    def work(ends: list[Callable[[], None]]) -> str:
        client = _Client(mail, allowed, seconds)
        ends.append(lambda: client.sock.shutdown(socket.SHUT_RDWR) if client.sock else None)
        try:
            return _handed_over(client, mail, letter)
        except smtplib.SMTPResponseException as error:
            return f"it refused with {error.smtp_code} ({_step(error)})"
        except smtplib.SMTPRecipientsRefused as error:
            codes = sorted({code for code, _ in error.recipients.values()})
            return f"it refused the recipients with {', '.join(map(str, codes))}"
        except smtplib.SMTPNotSupportedError:
            return "it lacks what is needed: STARTTLS, login or UTF-8"
        except smtplib.SMTPException as error:
            return f"it broke off ({type(error).__name__})"
        finally:
            with suppress(OSError):
                client.close()

    return within(seconds, work)


def compose(message: Mapping[str, Any], mail: Mail) -> EmailMessage:
    """The letter; the same message has the same Message-ID, and those of an incident are one thread."""
    letter = EmailMessage(default.clone(max_line_length=250))  # a subject in one line, which every reader can search
    letter["Subject"] = title(message)[:200]
    letter["From"] = mail.sender
    letter["To"] = ", ".join(mail.to)
    letter["Date"] = formatdate((message.get("sent_us") or machine_us()) / 1e6)
    domain = mail.sender.rpartition("@")[2]
    letter["Message-ID"] = f"<{message.get('id') or message['alert']['id']}@{domain}>"
    thread = message.get("incident") or message["alert"]["id"]
    letter["References"] = f"<{thread}@{domain}>"
    letter["Auto-Submitted"] = "auto-generated"
    if message.get("page"):
        letter["Importance"] = "high"
    headline = inert(" ".join(str(message["alert"]["headline"]).split()))
    letter.set_content("\n".join([headline, "", *lines(message)]) + "\n")
    return letter


def _handed_over(client: _Client, mail: Mail, letter: EmailMessage) -> str:
    tls = ssl.create_default_context()
    client.connect(mail.host, mail.port)
    client.ehlo_or_helo_if_needed()
    if mail.encrypted == "starttls":
        client.starttls(context=tls)
        client.ehlo()
    if mail.user:
        client.login(mail.user, mail.password)
    refused = client.send_message(letter)
    with suppress(smtplib.SMTPException, OSError):
        client.quit()
    return f"it refused {len(refused)} of {len(mail.to)} recipients" if refused else ""


def _step(error: smtplib.SMTPResponseException) -> str:
    """What was refused: the server's own words might repeat an address."""
    names = {
        smtplib.SMTPAuthenticationError: "the login",
        smtplib.SMTPSenderRefused: "the sender",
        smtplib.SMTPDataError: "the message",
        smtplib.SMTPConnectError: "the connection",
        smtplib.SMTPHeloError: "the greeting",
    }
    return names.get(type(error), "the conversation")


class _Client(smtplib.SMTP):
    """smtplib's client, which connects to an address that was judged."""

    def __init__(self, mail: Mail, allowed: Allowed, seconds: float) -> None:
        super().__init__(timeout=seconds, local_hostname="seatrial.invalid")
        self._mail = mail
        self._allowed = allowed
        self._host = mail.host  # what starttls checks the certificate for

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made = connected(host, port, self._allowed, timeout)
        if self._mail.encrypted != "tls":
            return made
        return ssl.create_default_context().wrap_socket(made, server_hostname=host)
