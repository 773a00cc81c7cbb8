"""What a release says of itself: the manifest, its id, and the semantic version that follows from the last one.

The manifest is canonical JSON and names every file of the bundle by digest, so its own digest is the release's.
It holds no time of packing and no name of a packer: the same run packed twice is the same release.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from seatrial.core.errors import Failed, listed
from seatrial.core.identity import canonical_json, content_id, digest
from seatrial.core.signature import Signature
from seatrial.core.types import Field
from seatrial.features.plan import FeaturePlan
from seatrial.releases.parity import Parity

FORMAT = 1
PAYLOAD_TYPE = "application/vnd.seatrial.manifest+json"
FIRST_VERSION = "1.0.0"


class ManifestUnreadable(Failed):
    """A manifest is not what this version writes: broken, with unknown parts, or not in canonical form."""

    code = "release.manifest_unreadable"


class ManifestTooNew(Failed):
    """A manifest was written by a newer version."""

    code = "release.manifest_too_new"


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the bundle. digest: BLAKE3-256 in hex; bytes: its length."""

    digest: str
    bytes: int


class Lineage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the release was made from: ids of records, and what identifies the code and its environment.

    definitions: digest of the code of the definitions. commit: of the repository, empty when there is none.
    dirty: digest of the changes that are not committed; empty when there are none. lock: digest of the lock file.
    more: further plain values, for people (cut-off, row counts, threads, seeds).
    """

    run: str = ""
    training_set: str = ""
    snapshots: tuple[str, ...] = ()
    definitions: str = ""
    commit: str = ""
    dirty: str = ""
    lock: str = ""
    more: dict[str, Any] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a release but its files.

    version: the model version's integer; semantic_version and explanation: from `next_version`.
    model_format: "onnx", or the format of `native.NativeModel` in which the model had to be released, because of what
        `parity.refused` says. threshold: from which probability a prediction is 1; None for regression.
    estimator, parameters: what was fitted. metrics: of the test part. gates: plain results.
    """

    format: int = FORMAT
    model: str
    version: int
    semantic_version: str
    explanation: str
    model_format: str = "onnx"
    signature: Signature
    plan: FeaturePlan
    threshold: float | None
    estimator: str
    parameters: dict[str, Any]
    parity: Parity
    metrics: dict[str, float | None]
    gates: tuple[dict[str, Any], ...]
    lineage: Lineage
    files: dict[str, FileEntry]
    owner: str = ""
    on_call: str = ""
    runbook: str = ""
    description: str = ""

    @property
    def no_missing(self) -> tuple[int, ...]:
        """Positions of the inputs for which the runtime refuses missing values."""
        return tuple(self.signature.inputs.index(name) for name in self.parity.refuses_missing)


_NEVER = object()
PEOPLE = ("owner", "on_call", "runbook", "description")
_LATER: dict[str, dict[str, Any]] = {"signature": {"classes": [], "layout": "packed", "personal": {}}}


class _Format(msgspec.Struct):
    format: int


def release_id(manifest: Manifest) -> str:
    """`rel_` and the digest of the manifest; signature and approvals are not part of it."""
    return content_id("rel", write_manifest(manifest))


def write_manifest(manifest: Manifest) -> bytes:
    """The manifest as canonical JSON: equal manifests, equal bytes, whether made here or read from a bundle.

    What came to format 1 later is left out where it says nothing, so that the id of an older release stays what it was.
    """
    whole = canonical_json(msgspec.convert(msgspec.to_builtins(manifest), Manifest))
    plain = msgspec.json.decode(whole)
    for part, later in _LATER.items():
        plain[part] = {name: value for name, value in plain[part].items() if later.get(name, _NEVER) != value}
    return msgspec.json.encode(plain)  # in the order in which it stands


def read_manifest(data: bytes) -> Manifest:
    """The manifest in `data`. Raises ManifestTooNew for a newer format, by its number, and ManifestUnreadable."""
    try:
        number = msgspec.json.decode(data, type=_Format).format
        if number > FORMAT:
            raise ManifestTooNew(
                f"the manifest has format {number}; this version reads up to {FORMAT}.",
                expected="It was written by a newer version of seatrial.",
                next="Upgrade seatrial here, or release again with this version.",
                state="Nothing was loaded.",
                format=number,
                reason="too_new",
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise _unreadable("unreadable", str(error)) from None
    if write_manifest(manifest) != data:
        raise _unreadable("not_canonical", "it is not in canonical form")
    return manifest


def file_entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """The entries for `files`, as a manifest holds them."""
    return {name: FileEntry(digest(data), len(data)) for name, data in sorted(files.items())}


def next_version(previous: Manifest | None, new: Manifest) -> tuple[str, str]:
    """The semantic version of `new` after `previous`, the model's last release, and why, in one sentence.

    Major when what is asked and answered changes (request fields, inputs, task); minor when features, estimator,
    parameters, threshold or the definitions' code change; patch when only data changed. Categories are learnt from
    data. The first is 1.0.0. `new`'s own semantic_version and explanation are not looked at.
    """
    if previous is None:
        return FIRST_VERSION, "First release."
    major, minor, patch = (int(part) for part in previous.semantic_version.split("."))
    before = f"of {previous.semantic_version}"
    changed = _changes(_asked(previous), _asked(new))
    if changed:
        return f"{major + 1}.0.0", f"Major: {listed(changed)} changed since the signature {before}."
    changed = _changes(_made_by(previous), _made_by(new))
    if changed:
        return f"{major}.{minor + 1}.0", f"Minor: {listed(changed)} changed since {previous.semantic_version}."
    return f"{major}.{minor}.{patch + 1}", _patch_words(previous, new)


def _patch_words(previous: Manifest, new: Manifest) -> str:
    """What a patch differs in: the data, what it was fitted with, or nothing at all."""
    since, training_set = previous.semantic_version, previous.lineage.training_set
    if "origin" in new.lineage.more:
        if _digest(previous) != _digest(new):
            return f"Patch: another model with the same signature and parameters since {since}."
        said = _changes(_said(previous), _said(new))
        return f"Patch: {listed(said) or 'nothing'} changed since {since}; it is the same model."
    around = _changes(_around(previous), _around(new))
    if not training_set or training_set != new.lineage.training_set:
        words = "only data" if not around else f"data, {listed(around)}"
        return f"Patch: {words} changed since {since}."
    if around:
        return f"Patch: {listed(around)} changed since {since}, on the same data."
    return f"Patch: nothing changed since {since}; it was trained again on the same data."


def _asked(manifest: Manifest) -> dict[str, Any]:
    signature = manifest.signature
    return {
        "the task": signature.task,
        "the request fields": [_without_words(field) for field in signature.request],
        "the inputs": [signature.inputs, sorted(signature.categories), sorted(signature.integers)],
        "the classes": signature.classes,
    }


def _made_by(manifest: Manifest) -> dict[str, Any]:
    made: dict[str, Any] = {f"view '{view.name}'": view.digest for view in manifest.plan.views}
    made |= {f"function '{function.name}'": function for function in manifest.plan.functions}
    made |= {f"parameter '{name}'": value for name, value in manifest.parameters.items()}
    return made | {
        "the estimator": manifest.estimator,
        "the decision threshold": manifest.threshold,
        "the definitions' code": manifest.lineage.definitions,
    }


def _digest(manifest: Manifest) -> str | None:
    """Of the file that a model from elsewhere came in."""
    origin = manifest.lineage.more.get("origin") or {}
    return origin.get("digest")


def _said(manifest: Manifest) -> dict[str, Any]:
    """What somebody says of a model, and the rows that were given with it."""
    more = manifest.lineage.more
    words = {f"the {name.replace('_', ' ')}": getattr(manifest, name) for name in PEOPLE}
    return words | {"the sample": more.get("sample"), "the target": more.get("target")}


def _around(manifest: Manifest) -> dict[str, Any]:
    more = manifest.lineage.more
    return {
        "the environment": manifest.lineage.lock,
        "the seed": more.get("seed"),
        "the threads": more.get("threads"),
    }


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys whose value changed, or that only one of them has; a value is what it is as JSON."""
    plain_old, plain_new = ({key: canonical_json(value) for key, value in values.items()} for values in (old, new))
    return [key for key in {**old, **new} if plain_old.get(key) != plain_new.get(key)]


def _without_words(field: Field) -> Field:
    return msgspec.structs.replace(field, description="")


def _unreadable(reason: str, found: str) -> ManifestUnreadable:
    return ManifestUnreadable(
        f"the manifest cannot be read: {found}.",
        expected="The canonical JSON that seatrial writes is expected.",
        state="Nothing was loaded.",
        reason=reason,
    )
