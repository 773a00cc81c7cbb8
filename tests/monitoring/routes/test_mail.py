"""E-mail: a letter reaches a real server encrypted and with login, and whatever refuses it is said without a secret."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from ipaddress import ip_address

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from seatrial.monitoring.routes.addresses import Allowed
from seatrial.monitoring.routes.delivery import deliver, expanded, problem
from seatrial.monitoring.routes.mail import Mail, read
from seatrial.stores.metadata import MetadataStore
from tests.monitoring.alerted import settled
from tests.servers import free_port

HERE = Allowed.parse(["127.0.0.1"])
PASSWORD = "p@ss/w%rd:1"
PEOPLE = "to=ops@example.org,duty@example.org&from=seatrial@example.org"


@pytest.fixture
def metadata(tmp_path):
    return MetadataStore(tmp_path / "metadata.db")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate for 127.0.0.1, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder


class Box:
    """What a server does with a letter: keeps it, or answers `says`."""

    def __init__(self, says=""):
        self.letters, self.envelopes, self.says, self.encrypted = [], [], says, []

    async def handle_DATA(self, server, session, envelope):
        if self.says:
            return self.says
        self.encrypted.append(bool(session.ssl))
        self.envelopes.append(envelope)
        self.letters.append(message_from_bytes(envelope.content, policy=default))
        return "250 kept"


@pytest.fixture
def mailbox(certificate, monkeypatch):
    """Starts servers; the box of one and its address without the people."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    running = []

    def start(box=None, *, tls=True, login=False, scheme="smtp", **options):
        box = box or Box()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        if tls and scheme == "smtp":
            options |= {"tls_context": context, "require_starttls": True}
        elif tls:
            options |= {"ssl_context": context}
        if login:
            options |= {"authenticator": known, "auth_required": True}
        controller = Controller(box, hostname="127.0.0.1", port=free_port(), **options)
        controller.start()
        running.append(controller)
        return box, f"127.0.0.1:{controller.port}"

    yield start
    for controller in running:
        controller.stop()


def known(_server, _session, _envelope, mechanism, data):
    good = mechanism in ("LOGIN", "PLAIN") and (data.login, data.password) == (b"ann", PASSWORD.encode())
    return AuthResult(success=good, handled=good)


def delivered(metadata, address, **named):
    settled(metadata, 10, on_call="route:mail")
    return deliver(metadata, {"mail": address}, **{"allowed": HERE} | named)


def test_a_page_is_a_letter_with_all_that_is_needed_at_night(metadata, mailbox):
    box, host = mailbox()
    done = delivered(metadata, f"smtp://{host}?{PEOPLE}")
    assert (done.sent, done.failures, box.encrypted) == (1, {}, [True])
    (letter,) = box.letters
    assert letter["Subject"].startswith("[page] late: ")
    assert (letter["To"], letter["From"]) == ("ops@example.org, duty@example.org", "seatrial@example.org")
    assert box.envelopes[0].rcpt_tos == ["ops@example.org", "duty@example.org"]
    text = letter.get_content()
    for part in ("calibration gap above 0.1 over 7d", "Owner: flight-ops", "Runbook: docs/runbook.md"):
        assert part in text
    assert "seatrial incident alert_" in text
    assert "seatrial alerts acknowledge alert_" in text


def test_the_opening_and_the_end_are_one_thread(metadata, mailbox):
    box, host = mailbox()
    settled(metadata, 10, on_call="route:mail")
    settled(metadata, 12, 0.3, on_call="route:mail")
    assert deliver(metadata, {"mail": f"smtp://{host}?{PEOPLE}"}, allowed=HERE).sent == 2
    first, last = box.letters
    assert last["Subject"].startswith("[over] late: calibration gap")
    assert first["References"] == last["References"]
    assert first["Message-ID"] != last["Message-ID"]


def test_it_logs_in_with_a_password_from_the_environment_or_a_file(metadata, mailbox, tmp_path):
    box, host = mailbox(login=True)
    (tmp_path / "secret").write_text(f"{PASSWORD}\n", encoding="utf-8")
    for place in ("${SMTP_PASSWORD}", "${file:secret}"):
        address = expanded(f"smtp://ann:{place}@{host}?{PEOPLE}", {"SMTP_PASSWORD": PASSWORD}, tmp_path)
        settled(metadata, 10 if place[2] == "S" else 12, 0.6 if place[2] == "S" else 0.3, on_call="route:mail")
        assert deliver(metadata, {"mail": address}, allowed=HERE).failures == {}
    assert len(box.letters) == 2


def test_with_smtps_it_is_encrypted_from_the_start(metadata, mailbox):
    box, host = mailbox(scheme="smtps")
    done = delivered(metadata, f"smtps://{host}?{PEOPLE}")
    assert (done.sent, done.failures) == (1, {})
    assert box.letters


def test_a_wrong_password_is_a_refused_login(metadata, mailbox):
    box, host = mailbox(login=True)
    done = delivered(metadata, f"smtp://ann:secret@{host}?{PEOPLE}")
    assert "refused with 535 (the login)" in done.failures["route:mail"]
    assert "secret" not in str(done)
    assert box.letters == []


def test_a_server_without_encryption_gets_no_letter_unless_that_is_meant(metadata, mailbox):
    box, host = mailbox(tls=False)
    done = delivered(metadata, f"smtp://{host}?{PEOPLE}")
    assert "STARTTLS" in done.failures["route:mail"]
    assert box.letters == []
    settled(metadata, 12, 0.3, on_call="route:mail")
    meant = {"mail": f"smtp://{host}?{PEOPLE}&tls=none"}
    assert deliver(metadata, meant, allowed=HERE, now_us=10**16).failures == {}


def test_a_certificate_that_nobody_vouches_for_is_refused(metadata, mailbox, monkeypatch):
    box, host = mailbox()
    monkeypatch.delenv("SSL_CERT_FILE")
    done = delivered(metadata, f"smtp://{host}?{PEOPLE}")
    assert done.failures == {"route:mail": "its certificate is not trusted"}
    assert box.letters == []


@pytest.mark.parametrize(
    ("says", "told"), [("552 too much ops@example.org", "552 (the message)"), ("451 later", "451 (the message)")]
)
def test_a_server_that_refuses_the_letter_is_told_by_its_code(metadata, mailbox, says, told):
    _, host = mailbox(Box(says))
    done = delivered(metadata, f"smtp://{host}?{PEOPLE}")
    assert told in done.failures["route:mail"]
    assert "example.org" not in done.failures["route:mail"]


def test_a_server_that_is_not_there_or_internal_is_said(metadata):
    assert "could not be reached" in delivered(metadata, f"smtp://127.0.0.1:1?{PEOPLE}").failures["route:mail"]
    settled(metadata, 12, 0.3, on_call="route:mail")
    refused = deliver(metadata, {"mail": f"smtp://127.0.0.1:1?{PEOPLE}"}, now_us=10**16)
    assert "internal address" in refused.failures["route:mail"]


@pytest.mark.parametrize(
    ("address", "wrong"),
    [
        ("smtp://?to=a@b&from=c@d", "names no host"),
        ("smtp://host", "lacks to= or from="),
        ("smtp://host?to=a@b", "lacks to= or from="),
        ("smtp://host?to=nobody&from=c@d", "no e-mail address"),
        ("smtp://host?to=a@b&from=c@d&tsl=none", "not known"),
        ("smtp://host?to=a@b&from=c@d&tls=maybe", "neither"),
        ("smtp://ann:secret@host?to=a@b&from=c@d&tls=none", "without encryption"),
        ("smtp://ann:w%C3%B6rd@host?to=a@b&from=c@d", "only ASCII"),
        ("smtp://host:99999?to=a@b&from=c@d", "cannot be read"),
        ("smtp://host?to=a@b%0d%0aBcc:x@y&from=c@d", "no e-mail address"),
    ],
)
def test_an_address_that_says_too_little_is_refused_before_anything_is_sent(address, wrong):
    assert wrong in str(read(address))
    assert wrong in problem(address)
    assert "secret" not in problem(address)


def test_a_password_is_shown_by_nothing():
    mail = read("smtp://ann:secret@host?to=a@b&from=c@d")
    assert isinstance(mail, Mail)
    assert "secret" not in repr(mail)
