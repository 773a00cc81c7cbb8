import base64
import json
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatrial.releases.signing import (
    KeyUnusable,
    SignatureRefused,
    is_signed,
    sign,
    signing_key,
    trust,
    trusted_keys,
    verify,
)

TYPE = "application/vnd.seatrial.test"


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "keys"


def test_the_first_use_makes_a_key_for_its_owner_only_and_trusts_it(keys):
    key = signing_key(keys)
    assert (keys / "signing.key").stat().st_mode & 0o777 == 0o600
    assert trusted_keys(keys) == {key.keyid: key.public}
    assert signing_key(keys).keyid == key.keyid


def test_processes_that_start_at_once_end_up_with_one_key(keys):
    code = (
        "import sys; from pathlib import Path; from seatrial.releases.signing import signing_key\n"
        "print(signing_key(Path(sys.argv[1])).keyid)"
    )
    command = [sys.executable, "-c", code, str(keys)]
    env = {"PYTHONPATH": ":".join(sys.path)}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(4)]
    made = {process.communicate()[0].strip() for process in running}
    assert made == {signing_key(keys).keyid}
    assert sorted(path.name for path in keys.iterdir()) == ["signing.key", "trusted"]


def test_a_private_key_that_others_can_read_is_refused(keys):
    signing_key(keys)
    (keys / "signing.key").chmod(0o640)
    with pytest.raises(KeyUnusable, match="mode 640"):
        signing_key(keys)


def test_a_secret_takes_the_place_of_the_file_and_writes_nothing(keys):
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    key = signing_key(keys, base64.b64encode(bytes(range(32))).decode())
    assert key.public == private.public_key().public_bytes_raw()
    assert not keys.exists()
    signing_key(keys)
    pem = (keys / "signing.key").read_text()
    assert signing_key(keys / "elsewhere", pem).keyid == signing_key(keys).keyid


@pytest.mark.parametrize("secret", ["nonsense", "-----BEGIN PRIVATE KEY-----", base64.b64encode(b"short").decode()])
def test_a_secret_that_is_no_key_is_refused_without_showing_it(keys, secret):
    with pytest.raises(KeyUnusable) as refused:
        signing_key(keys, secret)
    assert secret not in str(refused.value)


def test_a_key_shows_its_id_only(keys):
    key = signing_key(keys)
    assert repr(key) == f"SigningKey({key.keyid}, ***)"


def test_a_signature_is_good_for_its_payload_its_type_and_a_trusted_key_only(keys, tmp_path):
    key = signing_key(keys)
    trusted = trusted_keys(keys)
    envelope = sign(b"payload", TYPE, key)
    assert envelope == sign(b"payload", TYPE, key)
    assert verify(envelope, b"payload", TYPE, trusted) == key.keyid
    stranger = signing_key(tmp_path / "stranger")
    forged = json.loads(sign(b"payload", TYPE, stranger))
    forged["signatures"][0]["keyid"] = key.keyid
    newer = json.loads(envelope) | {"format": 2}
    cases = {
        "other_payload": (envelope, b"other", TYPE),
        "wrong_type": (envelope, b"payload", "application/other"),
        "unknown_key": (sign(b"payload", TYPE, stranger), b"payload", TYPE),
        "wrong": (json.dumps(forged).encode(), b"payload", TYPE),
        "unreadable": (b"{}", b"payload", TYPE),
        "too_new": (json.dumps(newer).encode(), b"payload", TYPE),
    }
    for reason, case in cases.items():
        with pytest.raises(SignatureRefused) as refused:
            verify(*case, trusted)
        assert refused.value.facts["reason"] == reason


def test_a_trusted_key_of_another_project_counts(keys, tmp_path):
    other = signing_key(tmp_path / "other")
    trust(keys, other.public)
    assert verify(sign(b"payload", TYPE, other), b"payload", TYPE, trusted_keys(keys)) == other.keyid
    assert is_signed(b"data", other.sign(b"data"), trusted_keys(keys))
    assert not is_signed(b"date", other.sign(b"data"), trusted_keys(keys))


def test_a_file_among_the_trusted_keys_that_is_no_key_is_named(keys):
    signing_key(keys)
    (keys / "trusted" / "broken.pub").write_text("no key")
    with pytest.raises(KeyUnusable, match=r"broken\.pub"):
        trusted_keys(keys)
