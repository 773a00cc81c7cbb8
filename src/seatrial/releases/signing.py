"""Who made this file? Ed25519 signatures over bundles and route files, and the keys that are trusted.

A project signs with one key of its own and trusts every public key in `keys/trusted/`. An envelope has the shape
of DSSE (github.com/secure-systems-lab/dsse): what is signed is the payload type and the payload, so a signature
for one kind of file is worth nothing on another. The payload itself stays in its own file.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from seatrial.core.errors import Failed, NotAllowed, listed
from seatrial.core.identity import canonical_json, content_id, digest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT = 1
KEY_FILE, TRUSTED_FOLDER, REVOKED_FOLDER = "signing.key", "trusted", "revoked"

TrustedKeys = Mapping[str, bytes]
"""Key id -> the 32 bytes of an Ed25519 public key."""


class KeyRing(dict[str, bytes]):
    """Trusted keys, with the ids of those that were revoked, so that a signature by one is told as what it is."""

    revoked: frozenset[str] = frozenset()


class KeyUnusable(Failed):
    """A key file or SEATRIAL_SIGNING_KEY cannot be read, or others can read the private key."""

    code = "signing.key_unusable"


class SignatureRefused(NotAllowed):
    """A signature is missing, wrong, or by a key that is not trusted, or no longer. `facts["reason"]` says which."""

    code = "signing.refused"


class Signed(msgspec.Struct, frozen=True, rename="camel"):
    """One signature of an envelope. sig: base64 of the 64 bytes."""

    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A detached DSSE envelope: DSSE's `payload` is replaced by its digest."""

    format: int
    payload_type: str
    payload_digest: str
    signatures: tuple[Signed, ...]


class SigningKey:
    """A private key; it never shows in messages."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()
        self.keyid = key_id(self.public)

    def __repr__(self) -> str:
        return f"SigningKey({self.keyid}, ***)"

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of the signature over `data`; the same every time."""
        return self._private.sign(data)


def key_id(public: bytes) -> str:
    """`key_` and 32 hex digits of the public key's digest."""
    return content_id("key", public)


def signing_key(folder: Path, secret: str | None = None, *, file: Path | None = None) -> SigningKey:
    """The project's key: `secret` when given (SEATRIAL_SIGNING_KEY), else `folder`/signing.key, made on first use.

    folder: `.seatrial/keys`. The file is made readable by its owner only; its public half goes to trusted/.
    secret: a private key in PEM, or base64 of the 32 bytes of an Ed25519 private key. Nothing is written then.
    file: where the private key is kept instead.
    Several processes at once end up with one key. Raises KeyUnusable.
    """
    if secret:
        return read_private(secret.encode(), "SEATRIAL_SIGNING_KEY")
    path = file or folder / KEY_FILE
    if not path.exists():
        make_key(path)
    mode = path.stat().st_mode
    if mode & 0o077:
        raise KeyUnusable(
            f"{path} can be read by others (mode {mode & 0o777:o}).",
            expected="A private key is for its owner only.",
            next=f"Run `chmod 600 {path}`; if others have had access, remove it: a new key is made on the next use.",
        )
    key = read_private(path.read_bytes(), str(path))
    if key.keyid not in revoked_ids(folder):
        trust(folder, key.public)
    return key


def trust(folder: Path, public: bytes) -> Path:
    """Write the public key to `folder`/trusted/KEYID.pub, unless it is there, and return the path."""
    path = folder / TRUSTED_FOLDER / f"{key_id(public)}.pub"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_new(path, public_pem(public), mode=0o644)
    return path


def trusted_keys(folder: Path) -> KeyRing:
    """The public keys in `folder`/trusted/*.pub (PEM) that are not in revoked/, by key id.

    Raises KeyUnusable for one that cannot be read.
    """
    keys = KeyRing()
    keys.revoked = frozenset(revoked_ids(folder))
    for path in sorted((folder / TRUSTED_FOLDER).glob("*.pub")):
        public = read_public(path.read_bytes())
        if public is None:
            raise KeyUnusable(
                f"{path} is no Ed25519 public key.", expected="A public key in PEM is expected.", next=f"Remove {path}."
            )
        if key_id(public) not in keys.revoked:
            keys[key_id(public)] = public
    return keys


def revoked_ids(folder: Path) -> set[str]:
    """The ids of the keys in `folder`/revoked/, by the names of their files."""
    return {path.stem for path in (folder / REVOKED_FOLDER).glob("*.pub")}


def read_public(data: bytes) -> bytes | None:
    """The 32 bytes of an Ed25519 public key in PEM or base64; None when it is none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key: object = None
    with contextlib.suppress(ValueError, UnsupportedAlgorithm):
        if data.lstrip().startswith(b"-----"):
            key = load_pem_public_key(data)
        else:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(data.strip(), validate=True))
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None


def public_pem(public: bytes) -> bytes:
    """A public key as PEM, as it is kept in trusted/."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return Ed25519PublicKey.from_public_bytes(public).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def is_signed(data: bytes, signature: bytes, trusted: TrustedKeys) -> bool:
    """Whether `signature` is by any trusted key over exactly `data`."""
    return any(_valid(public, signature, data) for public in trusted.values())


def sign(payload: bytes, payload_type: str, key: SigningKey) -> bytes:
    """The envelope, as JSON, of one signature over a payload; the same bytes every time."""
    signature = base64.b64encode(key.sign(_authenticated(payload_type, payload))).decode()
    return canonical_json(Envelope(FORMAT, payload_type, digest(payload), (Signed(key.keyid, signature),)))


def named_signers(envelope: bytes) -> tuple[str, ...]:
    """The ids of the keys that an envelope names, not verified; empty when it is none."""
    try:
        return tuple(one.keyid for one in msgspec.json.decode(envelope, type=Envelope).signatures)
    except msgspec.DecodeError:
        return ()


def verify(envelope: bytes, payload: bytes, payload_type: str, trusted: TrustedKeys) -> str:
    """The id of the trusted key that signed `payload`.

    Raises SignatureRefused: "unreadable", "too_new", "wrong_type", "other_payload", "unknown_key", "revoked_key",
    "wrong" or "not_canonical".
    """
    try:
        found = msgspec.json.decode(envelope, type=Envelope)
    except msgspec.DecodeError:
        raise _refused("unreadable", "the signature file is no envelope of seatrial's.") from None
    if found.format > FORMAT:
        raise _refused("too_new", f"the signature has format {found.format}; this version reads up to {FORMAT}.")
    if found.payload_type != payload_type:
        raise _refused("wrong_type", f"the signature is for '{found.payload_type}', not for '{payload_type}'.")
    if found.payload_digest != digest(payload):
        raise _refused("other_payload", "the signature is of another file.")
    known = [signed for signed in found.signatures if signed.keyid in trusted]
    if not known:
        keys = listed(signed.keyid for signed in found.signatures)
        revoked = {signed.keyid for signed in found.signatures} & getattr(trusted, "revoked", frozenset())
        if revoked:
            raise _refused("revoked_key", f"it is signed by {listed(sorted(revoked))}, a key that was revoked.")
        raise _refused("unknown_key", f"it is signed by {keys}, and trusted are {listed(trusted)}.")
    for signed in known:
        if _valid(trusted[signed.keyid], _bytes(signed.sig), _authenticated(payload_type, payload)):
            if canonical_json(found) != envelope:  # only its meaning was signed, and a release is its very bytes
                raise _refused("not_canonical", "the signature file is not as it was written.")
            return signed.keyid
    raise _refused("wrong", f"the signature by {known[0].keyid} does not fit the content.")


def _authenticated(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is really signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _valid(public: bytes, signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _refused(reason: str, found: str) -> SignatureRefused:
    return SignatureRefused(
        found,
        expected="A signature by a trusted key over exactly these bytes is expected.",
        next="Have it signed again by whoever vouches for it (`seatrial releases resign`)."
        if reason == "revoked_key"
        else "Get the file again from where it was made, or put the signer's public key into .seatrial/keys/trusted/.",
        state="Nothing was loaded.",
        reason=reason,
    )


def read_private(data: bytes, where: str) -> SigningKey:
    """The private key in `data`: PEM, or base64 of its 32 bytes. where: for messages. Raises KeyUnusable."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private: object = None
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
        if data.lstrip().startswith(b"-----"):
            private = load_pem_private_key(data, password=None)
        else:
            private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(data, validate=True))
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyUnusable(
            f"{where} holds no Ed25519 private key.",
            expected="PEM without a password, or base64 of 32 bytes, is expected.",
        )
    return SigningKey(private)


def make_key(path: Path) -> None:
    """A new private key in a file that its owner alone can read; the first of several makers wins."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path.parent.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write_new(path, pem, mode=0o600)


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that appears whole or not at all; the first of several writers wins."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(descriptor, mode)
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
