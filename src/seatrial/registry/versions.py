"""Model versions and aliases: which versions does a model have, and which one does a name mean?

Versions of a model are the integers 1, 2, 3, ... in the order in which they were made, one for each run, or for each
model that was brought in from elsewhere; nobody gets a number twice and none is left out, also when many processes
train at once. An alias ("late@candidate") names one version; every move is an event with actor, time and reason.
Deleting takes a version or a release out of use, with an event: no name means it any more, its number is not given
again, and its record, its evidence and its history stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seatrial.core.errors import Conflict, UsageError, did_you_mean, listed
from seatrial.core.identity import new_id
from seatrial.core.records import Event, Record
from seatrial.registry.mlflow import TOPIC, alias_message, alias_removed_message, deleted_message
from seatrial.stores.metadata import MetadataStore, Transaction

FORMAT = 1
CANDIDATE, CHAMPION = "candidate", "champion"
DELETION = "deletion"
PREFIX = "ver"
_ALIAS = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")


class UnknownModel(UsageError):
    """No version of a model by that name exists."""

    code = "registry.unknown_model"


class UnknownVersion(UsageError):
    """The model has no such version."""

    code = "registry.unknown_version"


class UnknownAlias(UsageError):
    """The model has no such alias."""

    code = "registry.unknown_alias"


class BadAlias(UsageError):
    """An alias is spelled in a way that could be mistaken for something else."""

    code = "registry.bad_alias"


class VersionTaken(Conflict):
    """Another version of the model was made meanwhile, and has the number."""

    code = "registry.version_taken"


class VersionExists(Conflict):
    """The run was made a version before."""

    code = "registry.version_exists"


class Deleted(UsageError):
    """The version or the release was deleted: it is kept, with its history, but no longer to be used."""

    code = "registry.deleted"


class NoReason(UsageError):
    """Something was to be deleted, and no reason was given."""

    code = "registry.no_reason"


@dataclass(frozen=True)
class AliasMove:
    """One move of an alias. from_version is None for the first, to_version when it was removed.

    Times in microseconds since 1970 (UTC).
    """

    model: str
    alias: str
    from_version: int | None
    to_version: int | None
    actor: str
    asserted: bool
    reason: str
    at_us: int
    recorded_at_us: int


class Registry:
    """Versions and aliases in the metadata store.

    mirrored: whether alias moves are put into the outbox for MLflow.
    """

    def __init__(self, metadata: MetadataStore, *, mirrored: bool = False) -> None:
        self._metadata = metadata
        self._mirrored = mirrored

    def create(
        self,
        run: Record,
        *,
        actor: str,
        at_us: int,
        number: int | None = None,
        body: Mapping[str, Any] | None = None,
        aliases: Sequence[str] = (CANDIDATE,),
        message: Mapping[str, Any] | None = None,
        within: Transaction | None = None,
    ) -> Record:
        """The next version of model `run.name`, made from `run`, with `aliases` moved to it.

        run: the record of a run, or of an adoption; kept too if it was not yet. number: the one that it must get;
        raises VersionTaken when it is another's. body: more plain values for the version's record.
        message: what MLflow shall be told, from `registry.mlflow.run_message`; sent to the outbox with the version.
        within: a transaction to take part in; by default one of its own. All is written, or nothing.
        Raises VersionExists when this run is a version already.
        """
        for alias in aliases:
            _check_alias(run.name, alias)
        if within is not None:
            return self._create(within, run, actor, at_us, number, body or {}, aliases, message)
        with self._metadata.transaction() as transaction:
            return self._create(transaction, run, actor, at_us, number, body or {}, aliases, message)

    def next_number(self, model: str) -> int:
        """The number that the next version of the model will get, if nobody else makes one before."""
        newest = self._metadata.head("version", model)
        return newest.generation + 1 if newest else 1

    def models(self) -> list[str]:
        """Names of the models that have versions, sorted."""
        return sorted(head.name for head in self._metadata.heads("version"))

    def versions(self, model: str, *, deleted: bool = False) -> list[Record]:
        """Every version of the model, oldest first; with `deleted`, those too that were deleted.

        Raises UnknownModel when there never was one.
        """
        found = self._metadata.records("version", model)
        if not found:
            raise self._unknown_model(model)
        gone = set() if deleted else deleted_ids(self._metadata)
        return sorted((record for record in found if record.id not in gone), key=version_number)

    def version_of(self, run_id: str) -> Record | None:
        """The version that was made from the run, if any."""
        head = self._metadata.head("run_version", run_id)
        return None if head is None else self._metadata.record(head.record_id)

    def aliases(self, model: str) -> dict[str, Record]:
        """The model's aliases and the versions they name now, sorted by alias."""
        found = {}
        for head in self._metadata.heads("alias"):
            name, _, alias = head.name.partition("@")
            record = self._metadata.record(head.record_id) if name == model else None
            if record is not None and record.kind == "version":  # else it was removed
                found[alias] = record
        return dict(sorted(found.items()))

    def set_alias(
        self,
        model: str,
        alias: str,
        version: str | int,
        *,
        actor: str,
        at_us: int,
        reason: str = "",
        expected: int | None = None,
        within: Transaction | None = None,
    ) -> Record:
        """Let `model@alias` name the version; returns the version's record. No event when it does already.

        version: a number, or any reference to a version of this model.
        expected: the alias's generation that the caller saw (0: there was none); raises HeadMoved when it is another.
        """
        _check_alias(model, alias)
        record = self.resolve(f"{model}:{version}" if str(version).isdigit() else str(version))
        if record.name != model:
            raise UnknownVersion(
                f"{version!r} is version {version_number(record)} of model '{record.name}', not of '{model}'.",
                expected=f"A version of '{model}' is expected.",
            )
        if within is not None:
            self._move(within, record, alias, actor, at_us, reason, expected, mirrored=self._mirrored)
        else:
            with self._metadata.transaction() as transaction:
                self._move(transaction, record, alias, actor, at_us, reason, expected, mirrored=self._mirrored)
        return record

    def remove_alias(self, model: str, alias: str, *, actor: str, at_us: int, reason: str = "") -> Record:
        """Take an alias away; returns the version that it named. Raises UnknownAlias when it names none."""
        with self._metadata.transaction() as transaction:
            record = self._by_alias(model, alias)
            self._remove(transaction, record, alias, actor, at_us, reason)
        return record

    def delete(self, version: Record, *, actor: str, at_us: int, reason: str, within: Transaction) -> list[str]:
        """Take a version out of use, with the aliases that name it; returns those.

        Whoever calls has made sure, in the same transaction, that nothing answers with it. Raises NoReason, Deleted.
        """
        aliases = [alias for alias, named in self.aliases(version.name).items() if named.id == version.id]
        for alias in aliases:
            self._remove(within, version, alias, actor, at_us, f"version deleted: {reason}")
        number = version_number(version)
        what = f"version {number} of '{version.name}'"
        delete(within, version, what, actor=actor, at_us=at_us, reason=reason, body={"version": number})
        if self._mirrored:
            within.enqueue(TOPIC, deleted_message(version.name, number, version.id, reason))
        return aliases

    def history(self, model: str, alias: str | None = None) -> list[AliasMove]:
        """Every move of the alias, or of all the model's, oldest first; empty when there never was one."""
        start = _subject(model, "")
        events = self._metadata.events(kind="alias.moved") if alias is None else self._moves(model, alias)
        return [
            AliasMove(
                model=model,
                alias=event.subject.removeprefix(start),
                from_version=event.body["from"],
                to_version=event.body["to"],
                actor=event.actor,
                asserted=event.asserted,
                reason=event.body["reason"],
                at_us=event.at_us,
                recorded_at_us=event.recorded_at_us,
            )
            for event in events
            if event.subject.startswith(start)
        ]

    def resolve(self, reference: str) -> Record:
        """The version that a reference means.

        reference: "late@candidate" (alias), "late:3" (number), "late" (the newest), a version id, or the start of
        one that only one version has.
        Raises UnknownModel, UnknownVersion or UnknownAlias, each naming what there is, and Deleted.
        """
        model, at, alias = reference.partition("@")
        if at:
            return self._by_alias(model, alias)
        model, colon, number = reference.partition(":")
        if colon:
            return self._by_number(model, number)
        if reference.startswith(f"{PREFIX}_"):
            return self._by_id(reference)
        head = self._metadata.head("version", reference)
        record = None if head is None else self._metadata.record(head.record_id)
        if record is None:
            raise self._unknown_model(reference)
        if self._metadata.head(DELETION, record.id) is None:
            return record
        left = self.versions(reference)
        if not left:
            refuse_deleted(self._metadata, record.id, f"every version of '{reference}'")
        return left[-1]

    def _moves(self, model: str, alias: str) -> list[Event]:
        return self._metadata.events(subject=_subject(model, alias), kind="alias.moved")

    def _remove(
        self, transaction: Transaction, record: Record, alias: str, actor: str, at_us: int, reason: str
    ) -> None:
        name = f"{record.name}@{alias}"
        body = {"of": name, "reason": reason}
        gone = Record(new_id("del"), DELETION, name, (record.id,), body)
        transaction.add(gone)
        transaction.move("alias", name, gone.id, expected=None)
        facts = {"from": version_number(record), "to": None, "version": record.id, "reason": reason}
        transaction.event("alias.moved", _subject(record.name, alias), actor=actor, at_us=at_us, body=facts)
        if self._mirrored:
            transaction.enqueue(TOPIC, alias_removed_message(record.name, alias))

    def _create(
        self,
        transaction: Transaction,
        run: Record,
        actor: str,
        at_us: int,
        wanted: int | None,
        body: Mapping[str, Any],
        aliases: Sequence[str],
        message: Mapping[str, Any] | None,
    ) -> Record:
        taken = transaction.head("run_version", run.id)
        if taken is not None:
            raise VersionExists(
                f"run '{run.id}' of model '{run.name}' is version '{taken.record_id}' already.",
                expected="One run makes one version.",
                version=taken.record_id,
            )
        newest = transaction.head("version", run.name)
        number = newest.generation + 1 if newest else 1
        if wanted not in (None, number):
            raise VersionTaken(
                f"version {wanted} of '{run.name}' was made by somebody else meanwhile.",
                expected=f"The next one is {number}.",
                state="Nothing was written.",
                next="Do it again.",
            )
        made_by = run.id if run.kind == "run" else ""
        version = Record(
            id=new_id(PREFIX),
            kind="version",
            name=run.name,
            inputs=(run.id,),
            body={**body, "version": number, "run": made_by},
            format=FORMAT,
        )
        transaction.add(run)
        transaction.add(version)
        transaction.move("version", run.name, version.id, expected=number - 1)
        transaction.move("run_version", run.id, version.id, expected=0)
        transaction.event(
            "version.created",
            version.id,
            actor=actor,
            at_us=at_us,
            body={"model": run.name, "version": number, "run": made_by},
        )
        for alias in aliases:
            self._move(transaction, version, alias, actor, at_us, "new version", None, mirrored=False)
        if message is not None:
            told = {"model": run.name, "version": number, "version_id": version.id, "aliases": list(aliases)}
            transaction.enqueue(TOPIC, {**message, **told})
        return version

    def _move(
        self,
        transaction: Transaction,
        record: Record,
        alias: str,
        actor: str,
        at_us: int,
        reason: str,
        expected: int | None,
        *,
        mirrored: bool,
    ) -> None:
        name = f"{record.name}@{alias}"
        before = transaction.head("alias", name)
        if before is not None and before.record_id == record.id and expected in (None, before.generation):
            return
        former = self._metadata.record(before.record_id) if before else None
        if former is not None and former.kind != "version":
            former = None  # the alias was removed
        refuse_deleted(transaction, record.id, f"version {version_number(record)} of '{record.name}'")
        transaction.move("alias", name, record.id, expected=expected)
        transaction.event(
            "alias.moved",
            _subject(record.name, alias),
            actor=actor,
            at_us=at_us,
            body={
                "from": None if former is None else version_number(former),
                "to": version_number(record),
                "version": record.id,
                "reason": reason,
            },
        )
        if mirrored:
            transaction.enqueue(TOPIC, alias_message(record.name, alias, version_number(record), record.id))

    def _by_alias(self, model: str, alias: str) -> Record:
        head = self._metadata.head("alias", f"{model}@{alias}")
        record = None if head is None else self._metadata.record(head.record_id)
        if record is None or record.kind != "version":
            self.versions(model)  # an unknown model is the better answer
            known = self.aliases(model)
            raise UnknownAlias(
                f"model '{model}' has no alias '{alias}'.",
                expected=f"It has {listed(known)}. {did_you_mean(alias, known)}".strip(),
                next="Run `seatrial models list`.",
            )
        return record

    def _by_number(self, model: str, number: str) -> Record:
        versions = self.versions(model, deleted=True)
        for record in versions:
            if str(version_number(record)) == number:
                refuse_deleted(self._metadata, record.id, f"version {number} of '{model}'")
                return record
        raise UnknownVersion(
            f"model '{model}' has no version {number!r}.",
            expected=f"It has the versions 1 to {len(versions)}.",
            next="Run `seatrial models list`.",
        )

    def _by_id(self, start: str) -> Record:
        found = [self._metadata.record(record_id) for record_id in self._metadata.find(start)]
        versions = [record for record in found if record is not None and record.kind == "version"]
        exact = [record for record in versions if record.id == start]
        if len(exact or versions) == 1:
            (one,) = exact or versions
            refuse_deleted(self._metadata, one.id, f"version {version_number(one)} of '{one.name}'")
            return one
        raise UnknownVersion(
            f"{len(versions) or 'no'} version ids start with '{start}'.",
            expected=f"The id of one version is expected. Found: {listed(record.id for record in versions)}.",
            next="Run `seatrial models list`.",
        )

    def _unknown_model(self, model: str) -> UnknownModel:
        known = self.models()
        return UnknownModel(
            f"no model named '{model}' has a version.",
            expected=f"There are versions of {listed(known)}. {did_you_mean(model, known)}".strip() if known else "",
            next=f"Run `seatrial train {model}`." if model else "",
        )


def version_number(version: Record) -> int:
    """The integer of a version's record."""
    return int(version.body["version"])


def delete(
    transaction: Transaction,
    record: Record,
    what: str,
    *,
    actor: str,
    at_us: int,
    reason: str,
    body: Mapping[str, Any],
) -> None:
    """Take a version's or a release's record out of use; the record stays. Raises NoReason, and Deleted."""
    if not reason.strip():
        raise NoReason(
            f"no reason was given for deleting {what}.",
            state="Nothing was deleted.",
            next='Say why, for whoever asks later: --reason "..."',
        )
    refuse_deleted(transaction, record.id, what)
    gone = Record(new_id("del"), DELETION, record.id, (record.id,), {"of": record.id, "reason": reason})
    transaction.add(gone)
    transaction.move(DELETION, record.id, gone.id, expected=0)
    facts = {"model": record.name, **body, "reason": reason}
    transaction.event(f"{record.kind}.deleted", record.id, actor=actor, at_us=at_us, body=facts)


def deleted_ids(metadata: MetadataStore) -> set[str]:
    """The ids of the versions and releases that were deleted."""
    return {head.name for head in metadata.heads(DELETION)}


def refuse_deleted(heads: MetadataStore | Transaction, id: str, what: str) -> None:
    """Raise Deleted when the record of this id was deleted. heads: the store, or the transaction that is to use it."""
    if heads.head(DELETION, id) is not None:
        raise Deleted(
            f"{what} was deleted ({id}).",
            expected="It is kept for its history only, and cannot be used again.",
            next=f"`seatrial lineage {id}` shows its history: who deleted it, when and why.",
            id=id,
        )


def _subject(model: str, alias: str) -> str:
    return f"alias/{model}@{alias}"


def _check_alias(model: str, alias: str) -> None:
    if not _ALIAS.fullmatch(alias) or alias == "latest":
        raise BadAlias(
            f"{alias!r} is no alias for model '{model}'.",
            expected="Small letters, digits, '-' and '_' are expected, starting with a letter; 'latest' is not taken, "
            "because the bare name of a model means its newest version.",
        )
