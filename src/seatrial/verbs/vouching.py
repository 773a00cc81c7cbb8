"""Vouching: which keys sign and are trusted, what each has signed, and what happens when one of them leaks.

Every change of a key is an event. A release's id is the digest of its manifest and does not depend on who signed it, so
what was signed with a key that leaked can be signed again, when the audit log recorded it as packed here.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import Failed, SeatrialError, UsageError
from seatrial.core.records import Head, Record
from seatrial.folder.workspace import Workspace
from seatrial.releases import keyring
from seatrial.releases.bundle import open_bundle, pack, signers
from seatrial.releases.signing import (
    REVOKED_FOLDER,
    KeyUnusable,
    key_id,
    read_public,
    revoked_ids,
    trust,
    trusted_keys,
)
from seatrial.stores.objects import ObjectRepaired
from seatrial.verbs.custody import live_in, without_deleted


class NotVouched(Failed):
    """A bundle is not what the audit log says was packed here, so it is not signed again."""

    code = "signing.not_vouched"


class KeyInfo(msgspec.Struct, frozen=True):
    """One key. own: it signs now. source: where the own key is kept. releases: how many it signed, of those kept here.

    history: what happened to it, oldest first.
    """

    id: str
    state: str
    own: bool
    source: str
    releases: int
    history: list[str]


class SignedRelease(msgspec.Struct, frozen=True):
    """A release that a key signed. packed: when the audit log says that it was packed here, and by whom; or None."""

    release: str
    model: str
    semantic_version: str
    live: list[str]
    packed: str | None


class KeyShown(msgspec.Struct, frozen=True):
    """One key and everything that it signed, of what is kept here."""

    key: KeyInfo
    signed: list[SignedRelease]


class KeyChange(msgspec.Struct, frozen=True):
    """A key that was rotated, revoked or trusted. before: the key that signed until now. next: what is to be done."""

    what: str
    id: str
    before: str | None = None
    next: str = ""


class Resigned(msgspec.Struct, frozen=True):
    """Releases that were signed again by the key that signs now."""

    key: str
    releases: list[str]
    routes: list[str]


def keys(workspace: Workspace) -> list[KeyInfo]:
    """Every key that is or was trusted, those that are trusted first."""
    own = own_id(workspace)
    signed = _signed_by(workspace)
    return [_info(workspace, one, len(signed.get(one.id, []))) for one in keyring.states(workspace.keys, own)]


def key_shown(workspace: Workspace, name: str) -> KeyShown:
    """One key, by its id or the start of it, and what it signed. Raises UnknownKey."""
    id = keyring.chosen(workspace.keys, name)
    state = next(one for one in keyring.states(workspace.keys, own_id(workspace)) if one.id == id)
    releases = _signed_by(workspace).get(id, [])
    signed = [
        SignedRelease(
            record.id,
            record.name,
            record.body["semantic_version"],
            live_in(workspace.metadata, record.id),
            _packed(workspace, record.id),
        )
        for record in releases
    ]
    return KeyShown(_info(workspace, state, len(releases)), signed)


def rotate(workspace: Workspace, reason: str) -> KeyChange:
    """Sign with a new key from now on; the old one stays trusted, so that what it signed stays good.

    A key in a file is made anew; one that lives elsewhere has been changed there before. Raises NotRotated.
    """
    setting = workspace.settings.signing.key
    if workspace.key_source == "file":
        file = workspace.folder / setting if setting else None
        before, new = keyring.rotate_file(workspace.keys, file)
    else:
        workspace.forget_key()
        known = [event.subject for event in workspace.metadata.events(kind="key.rotated")]
        known = known or [id for id in trusted_keys(workspace.keys) if id in _signed_by(workspace)]
        before, new = keyring.rotated_elsewhere(workspace.keys, workspace.signing_key, known)
    _event(workspace, "key.rotated", new, {"before": before, "reason": reason})
    return KeyChange("rotated", new, before, f"seatrial keys revoke {before}, if it leaked" if before else "")


def revoke(workspace: Workspace, name: str, reason: str) -> KeyChange:
    """Trust a key no longer: every release, route and bundle that only it signed is refused from now on.

    Raises UnknownKey, and UsageError without a reason.
    """
    if not reason.strip():
        raise UsageError(
            "no reason was given for revoking a key.",
            state="Nothing was revoked.",
            next='Say why, for whoever asks later: --reason "..."',
        )
    own = own_id(workspace)
    id = keyring.chosen(workspace.keys, name)
    keyring.revoke(workspace.keys, id)
    _event(workspace, "key.revoked", id, {"reason": reason})
    resign = f"seatrial releases resign --by {id}"
    return KeyChange("revoked", id, next=f"seatrial keys rotate, then {resign}" if id == own else resign)


def trust_key(workspace: Workspace, file: str | Path, reason: str) -> KeyChange:
    """Trust the releases of whoever holds the private half of the public key in a file. Raises KeyUnusable."""
    try:
        public = read_public(Path(file).read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.", state="Nothing was trusted.") from None
    if public is None:
        raise KeyUnusable(f"{file} is no Ed25519 public key.", expected="A public key in PEM is expected.")
    id = key_id(public)
    if id in revoked_ids(workspace.keys):
        raise KeyUnusable(f"{file} is {id}, a key that was revoked here.", expected="A key that was revoked stays so.")
    trust(workspace.keys, public)
    _event(workspace, "key.trusted", id, {"reason": reason})
    return KeyChange("trusted", id)


def resign(workspace: Workspace, releases: Sequence[Record], reason: str) -> list[str]:
    """Sign releases again with the key that signs now; the ids of those that it had not signed.

    Each is opened with its former key, trusted or revoked, and must be, byte by byte, what the log says was packed.
    """
    key = workspace.signing_key
    ring: dict[str, bytes] = dict(workspace.trusted)
    for path in (workspace.keys / REVOKED_FOLDER).glob("*.pub"):
        public = read_public(path.read_bytes())
        if public is not None:
            ring[key_id(public)] = public
    done: list[str] = []
    for record in releases:
        path = workspace.objects.path(record.body["object"])
        bundle = open_bundle(path, ring)
        if bundle.keyid == key.keyid:
            continue
        if bundle.id != record.id or _packed(workspace, record.id) is None:
            raise NotVouched(
                f"the bundle of {record.id} holds {bundle.id}, or the audit log does not say that it was packed here.",
                expected="Only what was packed here is signed again.",
                state=f"{len(done)} releases were signed again; this one was not.",
                next=f"`seatrial lineage {record.id}` shows what is known of it.",
            )
        data = pack(bundle.manifest, bundle.files, key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ObjectRepaired)
            workspace.objects.put(record.body["object"], data, whole=lambda _: False)
        body = {"before": bundle.keyid, "key": key.keyid, "reason": reason}
        with workspace.metadata.transaction() as transaction:
            workspace.event(transaction, "release.resigned", record.id, body)
        done.append(record.id)
    return done


def resign_routes(workspace: Workspace) -> list[str]:
    """Write the route files that are not trusted any more as they were decided: the present, and what this host could
    return to while the metadata store is away. The deployments whose present was written."""
    from seatrial.deployment.deploy import KIND, reconcile, route_of

    sign, verify = workspace.signer
    done = reconcile(workspace.metadata, workspace.routes, sign=sign, verify=verify)
    for head in workspace.metadata.heads(KIND):
        for event in workspace.metadata.events(subject=f"{KIND}/{head.name}"):
            record = workspace.metadata.record(str(event.body.get("record")))
            if record is not None and "generation" in event.body:
                earlier = Head(KIND, head.name, record.id, event.body["generation"])
                workspace.routes.keep_again(route_of(record, earlier), sign, verify)
    return done


def signed_by(workspace: Workspace, name: str) -> list[Record]:
    """The releases, not deleted, that a key signed. Raises UnknownKey."""
    return _signed_by(workspace).get(keyring.chosen(workspace.keys, name), [])


def distrusted_signer(workspace: Workspace, release: Record) -> str | None:
    """The key that a release's bundle names as its signer, when it was revoked; nothing is verified."""
    if not workspace.objects.exists(release.body["object"]):
        return None
    named = signers(workspace.objects.path(release.body["object"]))
    revoked = revoked_ids(workspace.keys)
    return named[0] if named and revoked.issuperset(named) else None


def own_id(workspace: Workspace) -> str | None:
    """The id of the key that signs now; None when there is none yet, or it cannot be read. Makes none."""
    setting = workspace.settings.signing.key
    file = workspace.folder / setting if setting else workspace.keys / "signing.key"
    if workspace.key_source == "file" and not file.exists():
        return None
    try:
        return workspace.signing_key.keyid
    except keyring.KeyRevoked as error:
        return str(error.facts["keyid"])
    except SeatrialError:
        return None


def _signed_by(workspace: Workspace) -> dict[str, list[Record]]:
    """Key id -> the releases whose bundles name it as their signer; nothing is verified."""
    found: dict[str, list[Record]] = {}
    for record in without_deleted(workspace.metadata, workspace.metadata.records("release")):
        if workspace.objects.exists(record.body["object"]):
            for id in signers(workspace.objects.path(record.body["object"])):
                found.setdefault(id, []).append(record)
    return found


def _packed(workspace: Workspace, release: str) -> str | None:
    packed = workspace.metadata.events(subject=release, kind="release.packed")
    return f"{iso(from_us(packed[0].at_us))} by {packed[0].actor}" if packed else None


def _info(workspace: Workspace, state: keyring.KeyState, releases: int) -> KeyInfo:
    history = []
    for event in workspace.metadata.events(subject=state.id):
        why = f": {event.body['reason']}" if event.body.get("reason") else ""
        history.append(f"{event.kind.removeprefix('key.')} {iso(from_us(event.at_us))} by {event.actor}{why}")
    return KeyInfo(state.id, state.state, state.own, workspace.key_source if state.own else "", releases, history)


def _event(workspace: Workspace, kind: str, id: str, body: dict[str, Any]) -> None:
    with workspace.metadata.transaction() as transaction:
        workspace.event(transaction, kind, id, body)
