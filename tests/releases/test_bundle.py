import io
import json
import stat
import zipfile

import msgspec
import pytest

from seatrial.core.identity import canonical_json, digest
from seatrial.releases import bundle as bundles
from seatrial.releases.bundle import BadFiles, BundleDamaged, BundleMissing, BundleUnsafe, open_bundle, pack
from seatrial.releases.manifest import ManifestTooNew, ManifestUnreadable, file_entries, release_id, write_manifest
from seatrial.releases.signing import SignatureRefused, sign, signing_key
from tests.releases.factories import manifest_and_files

MANIFEST, FILES = manifest_and_files()
REFUSED = (BundleDamaged, BundleUnsafe, SignatureRefused, ManifestUnreadable)


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return signing_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def trusted(key):
    return {key.keyid: key.public}


@pytest.fixture(scope="module")
def packed(key):
    return pack(MANIFEST, FILES, key)


def rewritten(packed, change=lambda files: files, entry=lambda info: info):
    """The same bundle written again, as plainly as pack writes, after a change of its files or entries."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        files = change({name: archive.read(name) for name in archive.namelist()})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry(info), files[name])
    return out.getvalue()


def reason(data, trusted):
    with pytest.raises(REFUSED) as refused:
        open_bundle(data, trusted)
    return refused.value.facts["reason"]


def test_packing_again_gives_the_same_bytes(packed, key):
    assert pack(MANIFEST, dict(reversed(FILES.items())), key) == packed
    assert rewritten(packed) == packed


def test_an_opened_bundle_is_what_was_packed(packed, key, trusted, tmp_path):
    path = tmp_path / "late.seatrial"
    path.write_bytes(packed)
    opened = open_bundle(path, trusted)
    assert opened.files == FILES
    assert (opened.id, opened.keyid, opened.bytes) == (release_id(MANIFEST), key.keyid, len(packed))
    assert opened.manifest.metrics == {"roc_auc": 0.75, "n": 3.0, "undefined": None}
    assert opened.runtime().inputs == 4


def test_the_id_does_not_depend_on_who_signs(trusted, packed, tmp_path):
    other = signing_key(tmp_path)
    theirs = open_bundle(pack(MANIFEST, FILES, other), {other.keyid: other.public})
    assert theirs.id == open_bundle(packed, trusted).id


def test_one_flipped_bit_anywhere_is_refused(packed, trusted):
    for place in range(0, len(packed), 97):
        damaged = bytearray(packed)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(REFUSED):
            open_bundle(bytes(damaged), trusted)


@pytest.mark.parametrize("name", ["manifest.json", "signature.json", "model.onnx", "golden.json"])
def test_a_flipped_bit_in_a_file_names_the_file(packed, trusted, name):
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        content = archive.read(name)
    damaged = bytearray(packed)
    damaged[packed.index(content) + len(content) // 2] ^= 1
    with pytest.raises(BundleDamaged, match=name) as refused:
        open_bundle(bytes(damaged), trusted)
    assert refused.value.facts["reason"] == "file_changed"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_bundle_that_was_cut_short_is_refused(packed, trusted, share):
    assert reason(packed[: int(len(packed) * share)], trusted) == "truncated"


def test_bytes_around_the_bundle_are_refused(packed, trusted):
    assert reason(packed + b"more", trusted) == "not_as_packed"
    assert reason(b"more" + packed, trusted) == "not_as_packed"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda files: files | {"model.onnx": b"another model"}, "file_changed"),
        (lambda files: files | {"model.onnx": files["golden.json"]}, "file_changed"),
        (lambda files: files | {"extra.txt": b"extra"}, "file_extra"),
        (lambda files: {name: data for name, data in files.items() if name != "golden.json"}, "file_missing"),
        (lambda files: {name: data for name, data in files.items() if name != "manifest.json"}, "file_missing"),
        (lambda files: {name: data for name, data in files.items() if name != "signature.json"}, "missing"),
        (lambda files: files | {"signature.json": b"{}"}, "unreadable"),
        (lambda files: files | {"../outside.txt": b""}, "unsafe_name"),
        (lambda files: files | {"a/../../outside.txt": b""}, "unsafe_name"),
        (lambda files: files | {"/etc/passwd": b""}, "unsafe_name"),
        (lambda files: files | {"C:\\windows": b""}, "unsafe_name"),
        (lambda files: files | {"..": b""}, "unsafe_name"),
        (lambda files: files | {"folder/": b""}, "unsafe_name"),
        (lambda files: files | {f"file{number}": b"" for number in range(1001)}, "too_large"),
    ],
)  # fmt: skip
def test_files_that_were_swapped_added_or_removed_are_refused(packed, trusted, change, expected):
    assert reason(rewritten(packed, change), trusted) == expected


def test_a_link_is_refused(packed, trusted):
    def as_link(info):
        if info.filename == "golden.json":
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
        return info

    assert reason(rewritten(packed, entry=as_link), trusted) == "symlink"


def test_a_compressed_file_is_refused(packed, trusted):
    def compressed(info):
        info.compress_type = zipfile.ZIP_DEFLATED
        return info

    assert reason(rewritten(packed, entry=compressed), trusted) == "compressed"


def test_a_file_that_is_there_twice_is_refused(packed, trusted):
    out = io.BytesIO(packed)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(out, "a") as archive:
        archive.writestr("golden.json", b"other")
    assert reason(out.getvalue(), trusted) == "file_twice"


def test_other_times_and_permissions_are_refused(packed, trusted):
    def newer(info):
        info.date_time = (2024, 1, 1, 0, 0, 0)
        return info

    assert reason(rewritten(packed, entry=newer), trusted) == "not_as_packed"


def test_a_bundle_over_the_size_limit_is_refused_before_it_is_read(packed, trusted, tmp_path):
    path = tmp_path / "large.seatrial"
    with path.open("wb") as file:
        file.truncate(bundles.LARGEST_BUNDLE + 1)  # sparse: takes no room
    assert reason(path, trusted) == "too_large"


def test_a_newer_manifest_is_refused_by_its_format(packed, key, trusted):
    def newer(files):
        manifest = canonical_json(json.loads(files["manifest.json"]) | {"format": 7})
        return files | {"manifest.json": manifest, "signature.json": sign(manifest, bundles.PAYLOAD_TYPE, key)}

    with pytest.raises(ManifestTooNew, match="format 7"):
        open_bundle(rewritten(packed, newer), trusted)


def test_a_bundle_by_a_key_that_is_not_trusted_is_refused(packed, tmp_path):
    other = signing_key(tmp_path)
    assert reason(packed, {other.keyid: other.public}) == "unknown_key"
    assert reason(packed, {}) == "unknown_key"


def test_a_signature_of_another_release_is_refused(packed, key, trusted):
    other = write_manifest(msgspec.structs.replace(MANIFEST, version=99))
    moved = rewritten(packed, lambda files: files | {"signature.json": sign(other, bundles.PAYLOAD_TYPE, key)})
    assert reason(moved, trusted) == "other_payload"


def test_a_signature_that_only_claims_a_trusted_key_is_refused(packed, key, trusted, tmp_path):
    def forge(files):
        envelope = json.loads(sign(files["manifest.json"], bundles.PAYLOAD_TYPE, signing_key(tmp_path)))
        envelope["signatures"][0]["keyid"] = key.keyid
        return files | {"signature.json": canonical_json(envelope)}

    assert reason(rewritten(packed, forge), trusted) == "wrong"


def test_a_path_without_a_bundle_is_named(tmp_path, trusted):
    with pytest.raises(BundleMissing, match=r"none\.seatrial"):
        open_bundle(tmp_path / "none.seatrial", trusted)


def test_files_that_the_manifest_does_not_name_are_not_packed(key):
    for files in ({}, FILES | {"more.txt": b""}, FILES | {"model.onnx": b""}):
        with pytest.raises(BadFiles):
            pack(MANIFEST, files, key)


@pytest.mark.parametrize("name", ["../up", "/abs", "manifest.json", "signature.json", "a b", ""])
def test_an_unsafe_name_is_not_packed(key, name):
    files = FILES | {name: b""}
    with pytest.raises(BadFiles):
        pack(msgspec.structs.replace(MANIFEST, files=file_entries(files)), files, key)


def test_the_manifest_names_every_file_by_its_digest():
    assert MANIFEST.files["model.onnx"].digest == digest(FILES["model.onnx"])


@pytest.mark.parametrize(
    "edit", [lambda data: data + b" ", lambda data: b"\n" + data, lambda data: data.replace(b",", b", ", 1)]
)
def test_white_space_in_the_signature_is_another_bundle(packed, trusted, edit):
    changed = rewritten(packed, lambda files: files | {"signature.json": edit(files["signature.json"])})
    assert reason(changed, trusted) == "not_canonical"


def test_an_edited_manifest_is_refused_with_a_reason(packed, trusted):
    spaced = rewritten(packed, lambda files: files | {"manifest.json": files["manifest.json"] + b" "})
    assert reason(spaced, trusted) == "not_canonical"
    broken = rewritten(packed, lambda files: files | {"manifest.json": b"{"})
    assert reason(broken, trusted) == "unreadable"
