"""Is this bundle what it should be? Each check by name, with what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import Failed
from seatrial.verbs.custody import deleted_words

if TYPE_CHECKING:
    from seatrial.folder.workspace import Workspace


class NotAsRecorded(Failed):
    """A bundle is whole, but it is not the release that this project recorded under its place."""

    code = "release.not_as_recorded"


class Verified(msgspec.Struct, frozen=True):
    """A bundle that passed every check. checked: what was looked at, and what was found, in order."""

    release: str
    model: str
    version: int
    semantic_version: str
    signed_by: str
    files: int
    golden_rows: int
    checked: list[tuple[str, str]]


def verify(path: Path, workspace: Workspace) -> Verified:
    """Check a bundle file against itself, the trusted keys, this machine's arithmetic and the project's records.

    Raises BundleMissing, BundleUnsafe, BundleDamaged, SignatureRefused, ManifestTooNew, ManifestUnreadable,
    GoldenMismatch or NotAsRecorded; each names its reason.
    """
    from seatrial.releases.bundle import open_bundle
    from seatrial.releases.golden import replay
    from seatrial.releases.manifest import Manifest, write_manifest

    bundle = open_bundle(path, workspace.trusted)
    rows = replay(bundle, bundle.runtime())
    manifest = bundle.manifest
    record = workspace.metadata.record(bundle.id)
    recorded = "not of this project"
    if record is not None:
        if write_manifest(msgspec.convert(record.body["manifest"], Manifest)) != write_manifest(manifest):
            raise NotAsRecorded(
                f"{path} is whole, but its manifest is not the one that was recorded for {bundle.id}.",
                expected="The records of a project and its bundles say the same.",
                state="Nothing was loaded.",
                next="Run `seatrial audit verify`: a record was changed.",
            )
        packed = workspace.metadata.events(subject=bundle.id, kind="release.packed")
        recorded = f"packed {iso(from_us(packed[0].at_us))} by {packed[0].actor}" if packed else "recorded"
        deleted = deleted_words(workspace.metadata, bundle.id)
        recorded += f"; deleted {deleted}" if deleted else ""
    parity = manifest.parity
    checked = [
        ("form", f"{bundle.bytes} bytes, exactly as they are packed; plain files, no links, no unsafe names"),
        ("manifest", f"format {manifest.format}, canonical; its digest is the id {bundle.id}"),
        ("signature", f"Ed25519 by the trusted key {bundle.keyid}"),
        ("files", f"{len(bundle.files)} of {len(manifest.files)}, each by length and BLAKE3 digest"),
        ("model", f"{manifest.model_format}, loaded; {len(manifest.signature.inputs)} inputs"),
        ("golden rows", f"{rows} rows score here as when it was packed, together and one by one"),
        ("parity", f"certificate of {parity.rows} rows: largest difference {parity.largest:.3g}"),
        ("record", recorded),
    ]
    return Verified(
        release=bundle.id,
        model=manifest.model,
        version=manifest.version,
        semantic_version=manifest.semantic_version,
        signed_by=bundle.keyid,
        files=len(bundle.files),
        golden_rows=rows,
        checked=checked,
    )
