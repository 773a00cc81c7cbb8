"""Fifty planted corruptions of a release: each is refused with a named reason, before anything of it is loaded."""

from __future__ import annotations

import base64
import io
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import onnxruntime
import pytest

import seatrial
from seatrial.core.errors import SeatrialError
from seatrial.core.identity import canonical_json, digest
from seatrial.releases import bundle as bundles
from seatrial.releases.bundle import open_bundle, pack
from seatrial.releases.manifest import file_entries, write_manifest
from seatrial.releases.signing import public_pem, revoked_ids, sign, signing_key, trusted_keys
from seatrial.serving.scoring.release import open_release
from tests.releases.factories import exported, manifest_and_files

DAMAGED, UNSAFE = "release.bundle_damaged", "release.bundle_unsafe"
REFUSED, UNREADABLE, TOO_NEW = "signing.refused", "release.manifest_unreadable", "release.manifest_too_new"
GOLDEN = "release.golden_unreadable"

Files = Mapping[str, bytes]


class World(NamedTuple):
    """A sound bundle, whose key is trusted, and what an attacker has: a key of their own and one that was revoked."""

    packed: bytes
    key: Any
    stranger: Any
    revoked: Any
    trusted: Any
    keys: Any


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    keys = tmp_path_factory.mktemp("keys")
    key, stranger = signing_key(keys), signing_key(tmp_path_factory.mktemp("stranger"))
    revoked = signing_key(tmp_path_factory.mktemp("revoked"))
    (keys / "revoked").mkdir()
    (keys / "revoked" / f"{revoked.keyid}.pub").write_bytes(public_pem(revoked.public))
    assert revoked_ids(keys) == {revoked.keyid}
    manifest, files = manifest_and_files()
    files = files | {bundles.PROFILE: b"{}"}
    manifest = msgspec.structs.replace(manifest, files=file_entries(files))
    return World(pack(manifest, files, key), key, stranger, revoked, trusted_keys(keys), keys)


def members(packed: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: Files, entry: Callable[[zipfile.ZipInfo], object] = lambda info: None) -> bytes:
    """A container as plain as pack's, after `entry` changed what stands in it about a file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            entry(info)
            archive.writestr(info, files[name])
    return out.getvalue()


def files_changed(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Callable[[World], bytes]:
    return lambda world: zipped(change(members(world.packed)))


def entry_changed(name: str, change: Callable[[zipfile.ZipInfo], None]) -> Callable[[World], bytes]:
    return lambda world: zipped(members(world.packed), lambda info: change(info) if info.filename == name else None)


def cut(share: float) -> Callable[[World], bytes]:
    return lambda world: world.packed[: int(len(world.packed) * share)]


def flipped(name: str) -> Callable[[World], bytes]:
    """One bit in the middle of a member, and nothing else."""

    def damage(world: World) -> bytes:
        content = members(world.packed)[name]
        data = bytearray(world.packed)
        data[world.packed.index(content) + len(content) // 2] ^= 1
        return bytes(data)

    return damage


def manifest_edited(edit: Callable[[dict[str, Any]], Any], by: str = "", raw: bool = False) -> Callable[[World], bytes]:
    """The manifest after an edit, signed by that key of the world; by nobody: with the old signature."""

    def damage(world: World) -> bytes:
        files = members(world.packed)
        plain = json.loads(files["manifest.json"])
        plain = edit(plain) or plain
        manifest = plain if isinstance(plain, bytes) else canonical(plain)
        signature = sign(manifest, bundles.PAYLOAD_TYPE, getattr(world, by)) if by else files["signature.json"]
        return zipped(files | {"manifest.json": manifest, "signature.json": signature})

    def canonical(plain: dict[str, Any]) -> bytes:
        if raw:
            return canonical_json(plain)
        from seatrial.releases.manifest import Manifest

        return write_manifest(msgspec.convert(plain, Manifest))

    return damage


def signature_edited(edit: Callable[[dict[str, Any], World], Any]) -> Callable[[World], bytes]:
    def damage(world: World) -> bytes:
        files = members(world.packed)
        envelope = json.loads(files["signature.json"])
        envelope = edit(envelope, world) or envelope
        return zipped(files | {"signature.json": canonical_json(envelope)})

    return damage


def renamed(plain: dict[str, Any]) -> None:
    plain["model"] = "fraud"


def other_metrics(plain: dict[str, Any]) -> None:
    plain["metrics"]["roc_auc"] = 0.99


def swapped_by_hand(world: World) -> bytes:
    """Another model, and a manifest that names it by its right digest, signed by a stranger."""
    files = members(world.packed)
    other = exported("forest")
    plain = json.loads(files["manifest.json"])
    plain["files"]["model.onnx"] = {"digest": digest(other), "bytes": len(other)}
    return manifest_edited(lambda _: plain, by="stranger")(world._replace(packed=zipped(files | {"model.onnx": other})))


def twice(name: str) -> Callable[[World], bytes]:
    def damage(world: World) -> bytes:
        out = io.BytesIO(world.packed)
        with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(out, "a") as archive:
            archive.writestr(name, b"second")
        return out.getvalue()

    return damage


def claimed_size(world: World) -> bytes:
    """The directory says that a member has nearly 4 GiB."""
    data = bytearray(world.packed)
    place = data.rindex(b"model.onnx") - 46  # its entry in the central directory
    assert data[place : place + 4] == b"PK\x01\x02"
    struct.pack_into("<II", data, place + 20, 0xFFFFFFF0, 0xFFFFFFF0)
    return bytes(data)


def bomb(world: World) -> bytes:
    """64 MiB of zeros in 64 KiB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members(world.packed).items():
            archive.writestr(name, data, zipfile.ZIP_STORED)
        archive.writestr("bomb.json", bytes(64 << 20))
    return out.getvalue()


def encrypted(world: World) -> bytes:
    data = bytearray(world.packed)
    for place, at in ((data.rindex(b"model.onnx") - 46, 8), (data.index(b"model.onnx") - 30, 6)):
        data[place + at] |= 1
    return bytes(data)


def hidden_between(world: World) -> bytes:
    """Bytes between the first file and the next, that no directory names."""
    data = bytearray(world.packed)
    start = data.index(b"PK\x03\x04", 4)
    inserted = b"hidden!!"
    data[start:start] = inserted
    with_offsets = bytes(data)
    out = bytearray(with_offsets)
    place = out.index(b"PK\x01\x02")
    end = out.rindex(b"PK\x05\x06")
    struct.pack_into("<I", out, end + 16, place)
    first = True
    while out[place : place + 4] == b"PK\x01\x02":
        if not first:
            (offset,) = struct.unpack_from("<I", out, place + 42)
            struct.pack_into("<I", out, place + 42, offset + len(inserted))
        first = False
        n, m, k = struct.unpack_from("<HHH", out, place + 28)
        place += 46 + n + m + k
    return bytes(out)


def wrong_crc(world: World) -> bytes:
    data = bytearray(world.packed)
    place = data.rindex(b"model.onnx") - 46
    struct.pack_into("<I", data, place + 16, zlib.crc32(b"something else"))
    return bytes(data)


def another_golden(files: dict[str, bytes]) -> dict[str, bytes]:
    plain = json.loads(files["golden.json"])
    plain["scores"] = [1 - score for score in plain["scores"]]
    return files | {"golden.json": canonical_json(plain)}


def golden_too_new(world: World) -> bytes:
    """A sound bundle, rightly signed, whose golden rows are of a format to come."""
    manifest, files = manifest_and_files()
    plain = json.loads(files["golden.json"]) | {"format": 9}
    files = files | {"golden.json": canonical_json(plain)}
    return pack(msgspec.structs.replace(manifest, files=file_entries(files)), files, world.key)


CORRUPTIONS: dict[str, tuple[Callable[[World], bytes], str, str | None]] = {
    "empty file": (cut(0), DAMAGED, "truncated"),
    "cut after a byte": (lambda w: w.packed[:1], DAMAGED, "truncated"),
    "cut within the first file": (cut(0.05), DAMAGED, "truncated"),
    "cut at a quarter": (cut(0.25), DAMAGED, "truncated"),
    "cut at a half": (cut(0.5), DAMAGED, "truncated"),
    "cut at three quarters": (cut(0.75), DAMAGED, "truncated"),
    "cut within the directory": (cut(0.97), DAMAGED, "truncated"),
    "last byte cut": (lambda w: w.packed[:-1], DAMAGED, "truncated"),
    "no zip at all": (lambda w: b"a pickle would be executed here" * 40, DAMAGED, "truncated"),
    "bit flipped in the manifest": (flipped("manifest.json"), DAMAGED, "file_changed"),
    "bit flipped in the signature": (flipped("signature.json"), DAMAGED, "file_changed"),
    "bit flipped in the model": (flipped("model.onnx"), DAMAGED, "file_changed"),
    "bit flipped in the golden rows": (flipped("golden.json"), DAMAGED, "file_changed"),
    "bit flipped in the profile": (flipped("profile.json"), DAMAGED, "file_changed"),
    "bit flipped in the lock": (flipped("requirements.lock"), DAMAGED, "file_changed"),
    "checksum of the model changed": (wrong_crc, DAMAGED, "file_changed"),
    "two members swapped": (
        files_changed(lambda f: f | {"golden.json": f["profile.json"], "profile.json": f["golden.json"]}),
        DAMAGED,
        "file_changed",
    ),
    "another model": (files_changed(lambda f: f | {"model.onnx": exported("forest")}), DAMAGED, "file_changed"),
    "an empty model": (files_changed(lambda f: f | {"model.onnx": b""}), DAMAGED, "file_changed"),
    "golden rows that fit another model": (files_changed(another_golden), DAMAGED, "file_changed"),
    "an added member": (files_changed(lambda f: f | {"setup.py": b"import os"}), DAMAGED, "file_extra"),
    "a pickle beside the model": (files_changed(lambda f: f | {"model.pkl": b"\x80\x04."}), DAMAGED, "file_extra"),
    "a member twice": (twice("golden.json"), UNSAFE, "file_twice"),
    "the model twice": (twice("model.onnx"), UNSAFE, "file_twice"),
    "the manifest twice": (twice("manifest.json"), UNSAFE, "file_twice"),
    "no model": (files_changed(lambda f: _without(f, "model.onnx")), DAMAGED, "file_missing"),
    "no golden rows": (files_changed(lambda f: _without(f, "golden.json")), DAMAGED, "file_missing"),
    "no manifest": (files_changed(lambda f: _without(f, "manifest.json")), DAMAGED, "file_missing"),
    "no signature": (files_changed(lambda f: _without(f, "signature.json")), REFUSED, "missing"),
    "a symbolic link": (entry_changed("golden.json", lambda i: _as(i, stat.S_IFLNK | 0o777)), UNSAFE, "symlink"),
    "a device": (entry_changed("golden.json", lambda i: _as(i, stat.S_IFCHR | 0o644)), DAMAGED, "not_as_packed"),
    "an executable": (entry_changed("golden.json", lambda i: _as(i, stat.S_IFREG | 0o755)), DAMAGED, "not_as_packed"),
    "zip slip": (files_changed(lambda f: f | {"../../.bashrc": b"evil"}), UNSAFE, "unsafe_name"),
    "zip slip inside": (files_changed(lambda f: f | {"a/../../b": b"evil"}), UNSAFE, "unsafe_name"),
    "an absolute path": (files_changed(lambda f: f | {"/etc/cron.d/evil": b"evil"}), UNSAFE, "unsafe_name"),
    "a drive": (files_changed(lambda f: f | {"C:\\evil": b"evil"}), UNSAFE, "unsafe_name"),
    "a name with a NUL": (
        entry_changed("golden.json", lambda i: setattr(i, "filename", "golden.json\0.exe")), UNSAFE, "unsafe_name",
    ),
    "a hidden name": (files_changed(lambda f: f | {".hidden": b"evil"}), UNSAFE, "unsafe_name"),
    "a folder": (files_changed(lambda f: f | {"folder/": b""}), UNSAFE, "unsafe_name"),
    "1,001 files": (files_changed(lambda f: f | {f"n{i}": b"" for i in range(1001)}), UNSAFE, "too_large"),
    "a huge declared size": (claimed_size, DAMAGED, "truncated"),
    "a zip bomb": (bomb, UNSAFE, "compressed"),
    "compressed": (
        entry_changed("model.onnx", lambda i: setattr(i, "compress_type", zipfile.ZIP_DEFLATED)), UNSAFE, "compressed",
    ),
    "encrypted": (encrypted, UNSAFE, "compressed"),
    "bytes before": (lambda w: b"#!/bin/sh\n" + w.packed, DAMAGED, "not_as_packed"),
    "bytes behind": (lambda w: w.packed + b"more", DAMAGED, "not_as_packed"),
    "bytes in between": (hidden_between, DAMAGED, "not_as_packed"),
    "another time of a file": (
        entry_changed("golden.json", lambda i: setattr(i, "date_time", (2024, 1, 1, 0, 0, 0))), DAMAGED,
        "not_as_packed",
    ),
    "a comment": (
        entry_changed("golden.json", lambda i: setattr(i, "comment", b"look here")), DAMAGED, "not_as_packed"
    ),
    "signature of another release": (
        lambda w: zipped(members(w.packed) | {"signature.json": sign(b"{}", bundles.PAYLOAD_TYPE, w.key)}),
        REFUSED,
        "other_payload",
    ),
    "signature for another kind of file": (
        lambda w: zipped(
            members(w.packed) | {"signature.json": sign(members(w.packed)["manifest.json"], "route", w.key)}
        ),
        REFUSED,
        "wrong_type",
    ),
    "signature of nobody": (signature_edited(lambda e, w: e["signatures"].clear()), REFUSED, "unknown_key"),
    "signature of zeros": (
        signature_edited(lambda e, w: e["signatures"][0].update(sig=base64.b64encode(bytes(64)).decode())),
        REFUSED,
        "wrong",
    ),
    "signature that is no base64": (
        signature_edited(lambda e, w: e["signatures"][0].update(sig="*** not base64 ***")), REFUSED, "wrong",
    ),
    "signature by a key that only claims a trusted id": (
        signature_edited(lambda e, w: _forged(e, w)), REFUSED, "wrong",
    ),
    "signature of a format to come": (signature_edited(lambda e, w: e | {"format": 9}), REFUSED, "too_new"),
    "signature file that is none": (signature_edited(lambda e, w: {"signed": "yes"}), REFUSED, "unreadable"),
    "signed by a key that nobody trusts": (manifest_edited(lambda p: None, by="stranger"), REFUSED, "unknown_key"),
    "signed by a key that was revoked": (manifest_edited(lambda p: None, by="revoked"), REFUSED, "revoked_key"),
    "manifest edited": (manifest_edited(other_metrics), REFUSED, "other_payload"),
    "manifest edited and signed by a stranger": (manifest_edited(other_metrics, by="stranger"), REFUSED, "unknown_key"),
    "model renamed": (manifest_edited(renamed), REFUSED, "other_payload"),
    "model renamed and signed by a stranger": (manifest_edited(renamed, by="stranger"), REFUSED, "unknown_key"),
    "model swapped with its digest, signed by a stranger": (swapped_by_hand, REFUSED, "unknown_key"),
    "manifest of a format to come": (
        manifest_edited(lambda p: p | {"format": 9}, by="key", raw=True), TOO_NEW, "too_new",
    ),
    "manifest with a field that nobody knows": (
        manifest_edited(lambda p: p | {"hook": "os.system"}, by="key", raw=True), UNREADABLE, "unreadable",
    ),
    "manifest in another spelling": (
        manifest_edited(lambda p: json.dumps(p, indent=1).encode(), by="key"), UNREADABLE, "not_canonical",
    ),
    "manifest that says a thing twice": (
        manifest_edited(lambda p: b'{"format":1,' + json.dumps(p).encode()[1:], by="key"), UNREADABLE, "not_canonical",
    ),
    "manifest that is no JSON": (manifest_edited(lambda p: b"model: late", by="key"), UNREADABLE, "unreadable"),
    "manifest with a text for a number": (
        manifest_edited(lambda p: p | {"version": "3"}, by="key", raw=True), UNREADABLE, "unreadable",
    ),
    "golden rows of a format to come": (golden_too_new, GOLDEN, None),
}  # fmt: skip


def _without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {key: data for key, data in files.items() if key != name}


def _as(info: zipfile.ZipInfo, mode: int) -> None:
    info.external_attr = mode << 16


def _forged(envelope: dict[str, Any], world: World) -> dict[str, Any]:
    theirs = json.loads(sign(members(world.packed)["manifest.json"], bundles.PAYLOAD_TYPE, world.stranger))
    theirs["signatures"][0]["keyid"] = world.key.keyid
    return theirs


@pytest.fixture
def loaded(monkeypatch):
    """Every model that onnxruntime was given since the test began."""
    seen: list[bytes | str] = []
    really = onnxruntime.InferenceSession

    def session(model: bytes | str, *rest: Any, **more: Any) -> Any:
        seen.append(model)
        return really(model, *rest, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return seen


def test_the_sound_bundle_is_taken(world, loaded):
    assert open_release(world.packed, world.trusted).model == "late"
    assert [type(one) for one in loaded] == [bytes, str]  # the graph, and what onnxruntime made of it


def test_there_are_more_than_forty_corruptions_with_more_than_fifteen_reasons():
    assert len(CORRUPTIONS) >= 40
    assert len({(code, reason) for _, code, reason in CORRUPTIONS.values()}) >= 15


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_refused_by_name_and_nothing_is_loaded(name, world, loaded, tmp_path):
    damage, code, reason = CORRUPTIONS[name]
    path = tmp_path / "late.seatrial"
    path.write_bytes(damage(world))
    assert path.read_bytes() != world.packed
    for enter in (
        lambda: open_release(path, world.trusted),  # the server
        lambda: seatrial.load(path, trusted=world.keys),  # another program
    ):
        with pytest.raises(SeatrialError) as refused:
            enter()
        assert (refused.value.code, refused.value.facts.get("reason")) == (code, reason)
        if code != GOLDEN:  # these are read when the model is about to be replayed
            assert refused.value.state == "Nothing was loaded."
            assert loaded == []
            with pytest.raises(SeatrialError):
                open_bundle(path, world.trusted)
    assert [file.name for file in tmp_path.iterdir()] == ["late.seatrial"]
    assert list(tmp_path.parent.glob("b")) == []
