"""Custody: what a model has in the registry, what its names mean, and what may be taken out of use.

What answers requests, or what a roll-back would return to, is never deleted, and `champion` names what is live: it
follows the deployment and cannot be set beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import NotAllowed, listed
from seatrial.core.records import Record
from seatrial.folder.workspace import Workspace
from seatrial.registry.versions import (
    CHAMPION,
    DELETION,
    AliasMove,
    Registry,
    delete,
    deleted_ids,
    version_number,
)

if TYPE_CHECKING:
    from seatrial.stores.metadata import MetadataStore, Transaction

DEPLOYMENT = "deployment"  # the kind of record, as deployment.deploy names it


class StillLive(NotAllowed):
    """What answers requests, or what a roll-back would return to, is neither deleted nor given away."""

    code = "registry.still_live"


class ModelVersion(msgspec.Struct, frozen=True):
    """One version. live: the deployments that answer with it. deleted: who deleted it, when and why; else None.

    measured_on: "test", or "sample" for a model from elsewhere, which may have been trained on these rows.
    """

    version: int
    id: str
    run: str
    release: str | None
    semantic_version: str | None
    aliases: list[str]
    live: list[str]
    metrics: dict[str, float | None]
    created_at: str
    actor: str
    deleted: str | None = None
    measured_on: str = "test"


class ModelShown(msgspec.Struct, frozen=True):
    """A model in the registry. versions: oldest first, deleted ones too. aliases: name -> version."""

    model: str
    aliases: dict[str, int]
    versions: list[ModelVersion]


class Moved(msgspec.Struct, frozen=True):
    """One move of an alias. before: None for the first; after: None when it was removed. asserted: see `Event`."""

    model: str
    alias: str
    before: int | None
    after: int | None
    actor: str
    asserted: bool
    reason: str
    at: str


class AliasSet(msgspec.Struct, frozen=True):
    """An alias after it was set or removed. changed: False when it named this version already."""

    model: str
    alias: str
    version: int | None
    changed: bool


class Deletion(msgspec.Struct, frozen=True):
    """What was taken out of use: a version or a release, with the aliases that named it and the release it had."""

    kind: str
    id: str
    model: str
    version: int
    aliases: list[str] = []
    release: str | None = None


def model_shown(workspace: Workspace, model: str) -> ModelShown:
    """Every version of a model with its release, its aliases and where it is live. Raises UnknownModel."""
    registry, metadata = workspace.registry, workspace.metadata
    versions = registry.versions(model, deleted=True)
    aliases = registry.aliases(model)
    shown = []
    for record in versions:
        head = metadata.head("version_release", record.id)
        release = workspace.record(head.record_id) if head else None
        run = metadata.record(record.inputs[0])
        (created,) = metadata.events(subject=record.id, kind="version.created")
        shown.append(
            ModelVersion(
                version=version_number(record),
                id=record.id,
                run=record.body["run"],
                release=release.id if release else None,
                semantic_version=release.body["semantic_version"] if release else None,
                aliases=[alias for alias, named in aliases.items() if named.id == record.id],
                live=live_in(metadata, release.id) if release else [],
                metrics=dict(run.body.get("metrics") or {}) if run else {},
                measured_on="sample" if run and run.kind == "adoption" else "test",
                created_at=iso(from_us(created.at_us)),
                actor=created.actor,
                deleted=deleted_words(metadata, record.id),
            )
        )
    return ModelShown(model, {alias: version_number(named) for alias, named in aliases.items()}, shown)


def sample_words(more: Mapping[str, Any], measured: bool) -> str:
    """What the metrics of a model from elsewhere are of. more: of its lineage."""
    rows = (more.get("sample") or {}).get("rows")
    sample = f"the sample of {rows:,} rows that was given with it" if rows else "the sample that was given with it"
    if not measured:
        return f"Nothing was measured: no target was named in {sample}."
    return f"Measured on {sample}, which is no test part: the model may have been trained on these rows."


def moved(moves: Iterable[AliasMove]) -> list[Moved]:
    """Moves of aliases, as they are told."""
    return [
        Moved(
            move.model,
            move.alias,
            move.from_version,
            move.to_version,
            move.actor,
            move.asserted,
            move.reason,
            iso(from_us(move.at_us)),
        )
        for move in moves
    ]


def set_alias(workspace: Workspace, model: str, alias: str, version: str | None, *, reason: str) -> AliasSet:
    """Let the alias name a version, or, with None, take it away. Raises StillLive for `champion` of what is live."""
    registry = workspace.registry
    before = registry.aliases(model).get(alias)
    chosen = None
    if version is not None:
        chosen = registry.resolve(f"{model}:{version}" if version.isdigit() else version)
    if alias == CHAMPION and (deployment := _main_deployment(workspace.metadata, model)) is not None:
        live = _live_version(workspace.metadata, deployment)
        if live is not None and (chosen is None or chosen.id != live.id):
            raise StillLive(
                f"'{model}@{CHAMPION}' names version {version_number(live)}, which is live in deployment "
                f"'{deployment}'.",
                expected="This alias follows the deployment, so that it never names what does not answer.",
                state="Nothing was changed.",
                next=f"Deploy the other version: `seatrial deploy {deployment} --release {model}:{version or 'N'}`.",
                deployments=[deployment],
            )
    if version is None:
        registry.remove_alias(model, alias, actor=workspace.actor, at_us=workspace.now_us, reason=reason)
        return AliasSet(model, alias, None, True)
    named = registry.set_alias(model, alias, version, actor=workspace.actor, at_us=workspace.now_us, reason=reason)
    return AliasSet(model, alias, version_number(named), before is None or before.id != named.id)


def delete_version(workspace: Workspace, version: Record, *, reason: str) -> Deletion:
    """Take a version, its aliases and its release out of use. Raises StillLive, NoReason, Deleted."""
    metadata = workspace.metadata
    number = version_number(version)
    how: dict[str, Any] = {"actor": workspace.actor, "at_us": workspace.now_us, "reason": reason}
    with metadata.transaction() as transaction:
        head = transaction.head("version_release", version.id)
        if head is not None:
            _refuse_live(metadata, head.record_id, f"version {number} of '{version.name}'")
        aliases = workspace.registry.delete(version, **how, within=transaction)
        if head is not None and transaction.head(DELETION, head.record_id) is None:
            _delete_release(metadata, transaction, workspace.record(head.record_id), how)
    return Deletion("version", version.id, version.name, number, aliases, head.record_id if head else None)


def delete_release(workspace: Workspace, release: Record, *, reason: str) -> Deletion:
    """Take a release out of use. Its bundle stays, so that its predictions can still be explained.

    Raises StillLive, NoReason, Deleted.
    """
    metadata = workspace.metadata
    how: dict[str, Any] = {"actor": workspace.actor, "at_us": workspace.now_us, "reason": reason}
    with metadata.transaction() as transaction:
        _refuse_live(metadata, release.id, f"release {release.id}")
        _delete_release(metadata, transaction, release, how)
    return Deletion("release", release.id, release.name, release.body["version"], [], release.id)


def follow(workspace: Workspace, metadata: MetadataStore) -> None:
    """Let every model's `champion` name the version that is live. metadata: the workspace's, open already."""
    registry = Registry(metadata, mirrored=True)
    for model in sorted({record.body["model"] for _, record in _decisions(metadata)}):
        deployment = _main_deployment(metadata, model)
        head = metadata.head(DEPLOYMENT, deployment) if deployment else None
        version = _live_version(metadata, deployment) if deployment else None
        if head is None or version is None or metadata.head(DELETION, version.id) is not None:
            continue
        named = metadata.head("alias", f"{model}@{CHAMPION}")
        if named is None or named.record_id != version.id:
            why = f"live in deployment '{deployment}', generation {head.generation}"
            registry.set_alias(model, CHAMPION, version.id, actor=workspace.actor, at_us=workspace.now_us, reason=why)


def live_in(metadata: MetadataStore, release: str) -> list[str]:
    """The deployments that answer with a release."""
    return [head.name for head, record in _decisions(metadata) if release in record.inputs]


def deleted_words(metadata: MetadataStore, id: str) -> str | None:
    """Who deleted a version or a release, when and why; None when nobody did."""
    if metadata.head(DELETION, id) is None:
        return None
    event = [one for one in metadata.events(subject=id) if one.kind.endswith(".deleted")][-1]
    return f"by {event.actor} at {iso(from_us(event.at_us))}: {event.body['reason']}"


def without_deleted(metadata: MetadataStore, records: Iterable[Record]) -> list[Record]:
    """The records that were not deleted."""
    gone = deleted_ids(metadata)
    return [record for record in records if record.id not in gone]


def _delete_release(metadata: MetadataStore, transaction: Transaction, release: Record, how: dict[str, Any]) -> None:
    body = {"version": release.body["version"], "semantic_version": release.body["semantic_version"]}
    delete(transaction, release, f"release {release.id}", body=body, **how)
    newest = transaction.head("release", release.name)
    if newest is None or newest.record_id != release.id:
        return
    left = [one for one in metadata.records("release", release.name) if transaction.head(DELETION, one.id) is None]
    if left:
        transaction.move("release", release.name, left[-1].id, expected=None)


def _refuse_live(metadata: MetadataStore, release: str, what: str) -> None:
    """Raise StillLive when a deployment answers with the release, or would after a roll-back."""
    live = live_in(metadata, release)
    back = [
        head.name
        for head, record in _decisions(metadata)
        if record.body["replaces"]
        and (former := metadata.record(record.body["replaces"])) is not None
        and release in former.inputs
    ]
    if not live and not back:
        return
    names = listed([f"'{name}'" for name in live or back])
    raise StillLive(
        f"{what} is live in deployment {names}."
        if live
        else f"{what} is what a roll-back of deployment {names} would return to.",
        expected="What answers, or may have to answer at once, is not deleted.",
        state="Nothing was deleted.",
        next=f"Deploy another release first: `seatrial deploy {(live or back)[0]} --release ...`.",
        deployments=live or back,
    )


def _decisions(metadata: MetadataStore) -> list[tuple[Any, Record]]:
    """Each deployment's head with the decision that it names."""
    found = [(head, metadata.record(head.record_id)) for head in metadata.heads(DEPLOYMENT)]
    return [(head, record) for head, record in found if record is not None]


def _main_deployment(metadata: MetadataStore, model: str) -> str | None:
    """The deployment that `champion` follows: the one with the model's name, else the only one there is."""
    names = [head.name for head, record in _decisions(metadata) if record.body["model"] == model]
    if model in names:
        return model
    return names[0] if len(names) == 1 else None


def _live_version(metadata: MetadataStore, deployment: str) -> Record | None:
    head = metadata.head(DEPLOYMENT, deployment)
    decision = metadata.record(head.record_id) if head else None
    release = metadata.record(decision.inputs[0]) if decision else None
    version = metadata.record(release.inputs[0]) if release and release.inputs else None
    return version if version is not None and version.kind == "version" else None
