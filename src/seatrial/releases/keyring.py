"""Which key signs, which keys are trusted, and which are so no longer.

The key that signs is a file of the project, a secret in the environment, or a key service that signs without ever
giving the key away. Every public key in `keys/trusted/` counts, unless it is in `keys/revoked/` too: so releases signed
before a rotation stay good, and releases signed with a key that leaked do not.

A key service is a command, started without a shell in the project's folder:

    COMMAND public      prints the public key: PEM, or base64 of its 32 bytes
    COMMAND sign        reads the bytes to sign from stdin; prints base64 of the 64 bytes of the Ed25519 signature

Exit code 0 means done; anything else is a refusal, and the last line of stderr is told. Whatever it answers is verified
before it is used.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import msgspec

from seatrial.core.errors import Conflict, NotAllowed, SeatrialError, Unavailable, UsageError, listed
from seatrial.releases.signing import (
    KEY_FILE,
    REVOKED_FOLDER,
    TRUSTED_FOLDER,
    KeyRing,
    KeyUnusable,
    SigningKey,
    is_signed,
    key_id,
    make_key,
    read_private,
    read_public,
    revoked_ids,
    signing_key,
    trust,
    trusted_keys,
)

EXEC = "exec:"
PATIENCE = 30.0  # seconds for which a key service is waited for
VARIABLE = "SEATRIAL_SIGNING_KEY"

Source = Literal["file", "environment", "service"]


class KeyRevoked(NotAllowed):
    """The project's own key was revoked; nothing is signed with it any more."""

    code = "signing.key_revoked"


class KeyServiceFailed(Unavailable):
    """The key service did not answer, refused, or answered with something that is no signature by its key."""

    code = "signing.key_service_failed"


class UnknownKey(UsageError):
    """No key of this id is trusted or revoked here."""

    code = "signing.unknown_key"


class NotRotated(Conflict):
    """The key lives elsewhere, and it is still the one that was trusted before."""

    code = "signing.not_rotated"


class KeyState(msgspec.Struct, frozen=True):
    """One key. own: it signs now. state: "trusted" or "revoked"."""

    id: str
    state: Literal["trusted", "revoked"]
    own: bool


class WatchedKeys(Mapping[str, bytes]):
    """The keys that are trusted, for a process that runs for long: `refresh` reads them again.

    folder: `.seatrial/keys`. read: reads them; by default those in the folder.
    Raises what `read` raises.
    """

    def __init__(self, folder: Path, read: Callable[[], KeyRing] | None = None) -> None:
        self._folder = folder
        self._read = read or partial(trusted_keys, folder)
        self._stamp = self._look()
        self._ring = self._read()

    @property
    def revoked(self) -> frozenset[str]:
        """The ids of those that were revoked."""
        return self._ring.revoked

    def __getitem__(self, id: str) -> bytes:
        return self._ring[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ring)

    def __len__(self) -> int:
        return len(self._ring)

    def changed(self) -> bool:
        """Whether a key came, went or was revoked since they were read."""
        return self._look() != self._stamp

    def refresh(self) -> None:
        """Read them again. When one cannot be read, those of before count, without those that were revoked since."""
        self._stamp = self._look()
        try:
            self._ring = self._read()
        except (SeatrialError, OSError):
            revoked = revoked_ids(self._folder)
            ring = KeyRing({id: public for id, public in self._ring.items() if id not in revoked})
            ring.revoked = frozenset(revoked)
            self._ring = ring

    def _look(self) -> tuple[tuple[str, ...], ...]:
        found = []
        for name in (TRUSTED_FOLDER, REVOKED_FOLDER):
            try:
                found.append(tuple(sorted(path.name for path in (self._folder / name).iterdir())))
            except OSError:
                found.append(())
        return tuple(found)


class ServiceKey(SigningKey):
    """A key that another program holds. It is asked for its public half when that is first needed."""

    def __init__(self, command: str, cwd: Path, keys: Path) -> None:
        self._command = _words(command)
        self._cwd = cwd
        self._keys = keys

    @cached_property
    def public(self) -> bytes:  # type: ignore[override]
        """The 32 bytes of the public key; trusted from then on, unless it was revoked."""
        answer = self._ask("public")
        found = read_public(answer)
        if found is None:
            raise _service_failed(self._command, "what it printed is no Ed25519 public key.")
        if key_id(found) not in revoked_ids(self._keys):
            trust(self._keys, found)
        return found

    @cached_property
    def keyid(self) -> str:  # type: ignore[override]
        return key_id(self.public)

    def __repr__(self) -> str:
        return f"ServiceKey({self._command[0]})"

    def sign(self, data: bytes) -> bytes:
        """The signature that the service gave, verified. Raises KeyServiceFailed, KeyRevoked."""
        refuse_revoked(self._keys, self.keyid)
        try:
            signature = base64.b64decode(self._ask("sign", data).strip(), validate=True)
        except (binascii.Error, ValueError):
            signature = b""
        if not is_signed(data, signature, {self.keyid: self.public}):
            raise _service_failed(self._command, f"what it printed is no signature by its key {self.keyid}.")
        return signature

    def _ask(self, what: str, data: bytes = b"") -> bytes:
        try:
            done = subprocess.run(
                [*self._command, what], input=data, cwd=self._cwd, capture_output=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            raise _service_failed(self._command, f"it did not answer within {PATIENCE:g} s.") from None
        except OSError as error:
            raise _service_failed(self._command, f"it cannot be started: {error.strerror}.") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
            raise _service_failed(self._command, f"it ended with {done.returncode} and said: {said[-1][:200]}")
        return done.stdout


def source_of(setting: str, variables: Mapping[str, str]) -> Source:
    """Where the key that signs is kept."""
    if setting.startswith(EXEC):
        return "service"
    return "environment" if setting.startswith("${") or (not setting and variables.get(VARIABLE)) else "file"


def open_key(keys: Path, setting: str, variables: Mapping[str, str], *, cwd: Path) -> SigningKey:
    """The key that signs.

    keys: `.seatrial/keys`. setting: of seatrial.toml, `[signing] key`: empty (SEATRIAL_SIGNING_KEY, or a file that is
    made on first use), the path of a file, "${VARIABLE}", or "exec:COMMAND". cwd: the project's folder.
    Raises KeyUnusable, KeyRevoked, KeyServiceFailed.
    """
    if setting.startswith(EXEC):
        return ServiceKey(setting.removeprefix(EXEC), cwd, keys)
    if setting.startswith("${"):
        name = setting.removeprefix("${").removesuffix("}")
        secret = variables.get(name)
        if not secret:
            raise KeyUnusable(
                f"seatrial.toml takes the signing key from {name}, which is not set.",
                expected=f"{name} holds an Ed25519 private key: PEM, or base64 of its 32 bytes.",
            )
        key = read_private(secret.encode(), name)
    elif setting:
        key = signing_key(keys, file=cwd / setting)
    else:
        key = signing_key(keys, variables.get(VARIABLE))
    refuse_revoked(keys, key.keyid)
    return key


def refuse_revoked(keys: Path, keyid: str) -> None:
    """Raise KeyRevoked when the key was revoked."""
    if keyid in revoked_ids(keys):
        raise KeyRevoked(
            f"the project's own key {keyid} was revoked.",
            expected="Nothing is signed with a key that others may have.",
            next="Run `seatrial keys rotate` to sign with a new one.",
            keyid=keyid,
        )


def states(keys: Path, own: str | None) -> list[KeyState]:
    """Every key that is or was trusted. own: the id of the key that signs now, when it is known."""
    trusted, revoked = trusted_keys(keys), revoked_ids(keys)
    return [
        *(KeyState(id, "trusted", id == own) for id in sorted(trusted)),
        *(KeyState(id, "revoked", id == own) for id in sorted(revoked)),
    ]


def rotate_file(keys: Path, file: Path | None = None) -> tuple[str | None, str]:
    """A new private key in the place of the old, which is gone; (old id, new id). The old public key stays trusted.

    file: where the private key is, when it is not in `keys`. A crash leaves the old key or the new one, never none.
    """
    path = file or keys / KEY_FILE
    before = None
    with contextlib.suppress(OSError, KeyUnusable):
        before = read_private(path.read_bytes(), str(path))
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    make_key(fresh)
    new = read_private(fresh.read_bytes(), str(fresh))
    trust(keys, new.public)
    fresh.replace(path)
    return (before.keyid if before else None), new.keyid


def rotated_elsewhere(keys: Path, key: SigningKey, known: Sequence[str]) -> tuple[str | None, str]:
    """Take note of a new key that lives elsewhere: trust it. known: keys that signed before. Raises NotRotated."""
    if key.keyid in known:
        raise NotRotated(
            f"the key that signs is still {key.keyid}.",
            expected="The key lives elsewhere; a new one is put there first.",
            next="Change the secret, or let the key service use a new key, then run `seatrial keys rotate` again.",
        )
    trust(keys, key.public)
    return (known[-1] if known else None), key.keyid


def revoke(keys: Path, keyid: str) -> None:
    """Trust a key no longer, for good: its public half moves to `revoked/`. Raises UnknownKey."""
    if keyid in revoked_ids(keys):
        return
    trusted = keys / TRUSTED_FOLDER / f"{keyid}.pub"
    if not trusted.exists():
        known = sorted(trusted_keys(keys))
        raise UnknownKey(
            f"no key '{keyid}' is trusted here.",
            expected=f"Trusted are {listed(known)}.",
            state="Nothing was revoked.",
            next="Run `seatrial keys list`.",
        )
    (keys / REVOKED_FOLDER).mkdir(parents=True, exist_ok=True)
    trusted.replace(keys / REVOKED_FOLDER / trusted.name)


def chosen(keys: Path, name: str) -> str:
    """The id of the one key that is or was trusted and starts with `name`. Raises UnknownKey."""
    known = [one.id for one in states(keys, None)]
    found = [id for id in known if id.startswith(name) or id.removeprefix("key_").startswith(name)]
    if name and len(found) == 1:
        return found[0]
    raise UnknownKey(
        f"{len(found) or 'no'} keys start with '{name[:80]}'.",
        expected=f"There is {listed(known)}.",
        state="Nothing was changed.",
        next="Run `seatrial keys list`.",
    )


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if not words:
        raise KeyUnusable(f"the key service {command!r:.80} is no command.", expected='For example "exec:./sign.sh".')
    return words


def _service_failed(command: Sequence[str], why: str) -> KeyServiceFailed:
    return KeyServiceFailed(
        f"the key service '{command[0]}' failed: {why}",
        expected="COMMAND public prints the public key, COMMAND sign prints the signature of stdin in base64.",
        next="Correct it, then try again.",
    )
