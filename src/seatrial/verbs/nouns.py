"""What is there: every list and show of the plural nouns, and how each model stands. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import SeatrialError, UsageError
from seatrial.core.records import Event, Record
from seatrial.core.windows import duration_text
from seatrial.folder.loading import Thing, UnknownName, pick
from seatrial.folder.workspace import Workspace
from seatrial.verbs.results import FeatureInfo, FoundFeature, FunctionShown, ModelStatus, RolloutLine, Searched

if TYPE_CHECKING:
    from seatrial.data.snapshot import SnapshotDiff
    from seatrial.deployment.taken_back import TakenBack
    from seatrial.features.definitions import FeatureView
    from seatrial.governance.audit import Anchor, AuditReport
    from seatrial.governance.lineage import Lineage
    from seatrial.releases.difference import Difference
    from seatrial.training.model import Model
    from seatrial.verbs.custody import ModelShown, Moved
    from seatrial.verbs.evidence import Bill, Form, Written
    from seatrial.verbs.predictions import PredictionsListed, Pruned, ShippedNow
    from seatrial.verbs.reuse import Reuse, Use
    from seatrial.verbs.verified import Verified
    from seatrial.verbs.vouching import KeyInfo, KeyShown


SERVE = "seatrial serve"
"""The next step of a model that is live, while nothing rings or waits."""


class NoRelease(UsageError):
    """The model, version or alias has no release yet."""

    code = "project.no_release"


class Nouns(Workspace):
    """The reading half of a project."""

    def status(self) -> list[ModelStatus]:
        """For each model: what is live since when, from which data, how good it was, who owns it, what to do next."""
        return [self._status(model) for model in self._models().values()]

    def features(self) -> list[FeatureInfo]:
        """Every feature of every view: whose it is, how far its view is online, and whether it is live; then every
        request-time function.

        A view of another project that cannot be looked up now is listed with the problem instead of its features.
        """
        reuse = self._reuse()
        found = []
        for view in reuse.views.values():
            online_rows, through = self._online_rows(view), self._materialized_through(view)
            found += [
                FeatureInfo(
                    view=view.name,
                    feature=name,
                    column=f"{view.name}__{name}",
                    entity=view.entity.name,
                    definition=aggregation.describe(),
                    source=view.source.name,
                    ttl=duration_text(view.ttl_us) if view.ttl_us else "",
                    owner=view.owner,
                    description=view.description,
                    online_rows=online_rows,
                    materialized_through=through,
                    tags=list(view.tags),
                    live=reuse.live(view.name),
                    same_as=reuse.same.get(f"{view.name}__{name}"),
                    shared_from=_shared_from(view),
                )
                for name, aggregation in view.features.items()
            ]
        found += [
            FeatureInfo(name, "", name, "", "", "", "", "", "", None, problem=error.found)
            for name, error in reuse.unreadable.items()
        ]
        found += [
            FeatureInfo(
                view="",
                feature=function.name,
                column=function.name,
                entity="",
                definition=f"{function.name}({', '.join(function.args)})",
                source="",
                ttl="",
                owner="",
                description=function.description,
                online_rows=None,
                live=reuse.use(function.name).deployments,
                kind="function",
            )
            for function in reuse.functions.values()
        ]
        return found

    def feature_show(self, name: str) -> dict[str, Any]:
        """Everything about a view with all its features, one feature by its column (`view__feature`), or a
        request-time function.

        With who uses it, the versions that were frozen, and what was changed since the newest of them.
        """
        from seatrial.features.definitions import unknown_view

        reuse = self._reuse()
        features = self.features()
        if name in reuse.functions and name not in self.definitions.views:
            function = reuse.functions[name]
            shown = FunctionShown(
                function.name,
                function.description,
                list(function.args),
                function.source,
                function.digest,
                _used_by(reuse.use(name)),
            )
            return dict(msgspec.to_builtins(shown))
        column = [one for one in features if one.column == name and one.view]
        if column:
            return {**msgspec.to_builtins(column[0]), "used_by": _used_by(reuse.use(name))}
        if name in reuse.unreadable:
            raise reuse.unreadable[name]
        view = reuse.views.get(name)
        if view is None:
            raise unknown_view(name, [*self.definitions.views, *(one.column for one in features)])
        from seatrial.verbs.inputs import Inputs

        return {
            "view": view.name,
            "description": view.description,
            "owner": view.owner,
            "tags": list(view.tags),
            "entity": view.entity.name,
            "keys": list(view.entity.keys),
            "source": view.source.name,
            "shared_from": _shared_from(view),
            "event_timestamp": view.source.event_timestamp,
            "known_at": view.source.known_at,
            "event_key": list(view.source.event_key),
            "ttl": duration_text(view.ttl_us) if view.ttl_us else None,
            "digest": view.digest,
            "online_rows": self._online_rows(view),
            "materialized_through": self._materialized_through(view),
            "live": reuse.live(name),
            "features": {name: aggregation.describe() for name, aggregation in view.features.items()},
            "same_as": {column: reuse.same[column] for column in view.columns if column in reuse.same},
            "used_by": _used_by(reuse.use(name)),
            "versions": msgspec.to_builtins(reuse.versions(name)),
            "changed_since_frozen": reuse.changed(name, Inputs(self).known_schemas([view.source])),
        }

    def features_search(self, text: str) -> Searched:
        """The features that have every word of `text` in their names, words, owners, tags, columns or expressions."""
        from seatrial.features import catalogue

        entries = list(self._reuse().entries())
        hits = catalogue.search(text, entries)
        texts = {entry.name: entry.texts for entry in entries}
        found = [
            FoundFeature(
                name=hit.name,
                where=hit.where,
                definition=texts[hit.name]["definition"],
                owner=texts[hit.name].get("owner", ""),
                description=" ".join(texts[hit.name].get("description", "").split()),
            )
            for hit in hits
        ]
        return Searched(text, found, "" if found else catalogue.near(text, entries))

    def features_used_by(self, name: str) -> Use:
        """Who uses a view, a feature (by its column), a request-time function or a source: models, releases that are
        live or candidates, deployments, functions; and the views over a source."""
        return self._reuse().use(name)

    def _reuse(self) -> Reuse:
        from seatrial.verbs.reuse import Reuse

        return Reuse(self)

    def feature_stats_kept(self, view: str | None = None) -> list[dict[str, Any]]:
        """The statistics that were kept, of all views or one, oldest first."""
        return [
            {name: record.body[name] for name in ("id", "view", "start", "end", "by", "rows")}
            | {"features": len(record.body["features"]), "digest": record.body["digest"][:12]}
            for record in self.metadata.records("statistics", view)
        ]

    def _online_rows(self, view: FeatureView) -> int | None:
        """How many entities of a view are online; None when the store cannot be read, which stops no list."""
        try:
            online = self.online_to_read()
            if online is None:
                return 0
            with closing(online):
                return online.count(view.digest)
        except SeatrialError:
            return None

    def _materialized_through(self, view: FeatureView) -> str | None:
        events = self.metadata.events(subject=f"view/{view.name}", kind="features.materialized")
        own = [event.body["through_us"] for event in events if not event.body.get("release")]
        return iso(from_us(own[-1])) if own else None

    def snapshots(self, source: str | None = None) -> list[dict[str, Any]]:
        """Every snapshot that was taken, oldest first, each compared with the one before it of the same source."""
        from seatrial.verbs.snapshots import listed

        return listed(self, source)

    def snapshot_show(self, id: str) -> dict[str, Any]:
        """One snapshot (its id, the start of it, or a source's name): its columns with their profile, where they came
        from, what came of the expectations, and what changed since the last."""
        from seatrial.verbs.snapshots import shown

        return shown(self, self._snapshot_record(id))

    def snapshots_diff(self, a: str, b: str, *, key: Sequence[str] = ()) -> SnapshotDiff:
        """What is different in `b`, by column and by cell. Each is a snapshot's id, its start, or a source's name.

        key: columns that name a row once; by default those that the source or its model declares, where each row has
        its own. Rows are then compared by it, else position by position.
        """
        from seatrial.data.keyed import by_first_key, by_key
        from seatrial.data.snapshot import diff
        from seatrial.verbs.runs import keys_of

        records = [self._snapshot_record(name) for name in (a, b)]
        first, second = (self.snapshot_table(record) for record in records)
        found = diff(first[0], second[0], first[1], second[1])
        if key:
            return replace(found, keyed=by_key(first[1], second[1], key))
        if found.same:
            return found
        taken = [self.metadata.events(subject=record.id, kind="snapshot.taken") for record in records]
        names = list(dict.fromkeys(event.body["source"] for events in taken for event in events))
        return replace(found, keyed=by_first_key(first[1], second[1], keys_of(self, names)))

    def runs(self, model: str | None = None) -> list[dict[str, Any]]:
        """Every run, oldest first: when, passed or not, finished or failed half-way, which version it became, of which
        commit, its metrics."""
        from seatrial.verbs.runs import trained_at

        versions = {record.body["run"]: record.body["version"] for record in self.metadata.records("version", model)}
        return [
            {
                "run": record.id,
                "model": record.name,
                "trained_at": trained_at(record.id),
                "passed": record.body["passed"],
                "state": record.body.get("state", "finished"),
                "version": versions.get(record.id),
                "sample": record.body.get("sample", {}).get("rows"),
                "cutoff": iso(from_us(record.body["cutoff_us"])) if record.body["cutoff_us"] is not None else None,
                "commit": _commit_words(record.body["environment"]["code"]),
                **{
                    name: record.body["metrics"].get(name)
                    for name in ("roc_auc", "log_loss", "rmse", "r2")
                    if name in record.body["metrics"]
                },
            }
            for record in self._of_model(model, self.metadata.records("run", model))
        ]

    def run_show(self, id: str) -> dict[str, Any]:
        """One run's record."""
        record = self.resolved(id, "run")
        training_set, *snapshots = record.inputs or ("",)  # a run that only tracks has none
        return {
            "id": record.id,
            "model": record.name,
            "training_set": training_set,
            "snapshots": snapshots,
            **record.body,
        }

    def models(self) -> list[dict[str, Any]]:
        """Every version of every model, with its aliases and its release."""
        found = []
        for model in self.registry.models():
            aliases, back = self.registry.aliases(model), self._taken_back(model)
            for record in self.registry.versions(model):
                release = self.release_of(record.id)
                found.append(
                    {
                        "model": model,
                        "version": record.body["version"],
                        "aliases": [alias for alias, named in aliases.items() if named.id == record.id],
                        "run": record.body["run"],
                        "release": release.id if release else None,
                        "rolled_back": back[release.id].words if release and release.id in back else None,
                        "id": record.id,
                    }
                )
        return found

    def model_show(self, model: str) -> ModelShown:
        """One model: its versions with release and metrics, its aliases, where they are live, what was deleted."""
        from seatrial.verbs.custody import model_shown

        return model_shown(self, model)

    def model_history(self, model: str, alias: str | None = None) -> list[Moved]:
        """Every move of a model's alias (default: of all its aliases), oldest first: from, to, who, when, why."""
        from seatrial.verbs.custody import moved

        self.registry.versions(model, deleted=True)  # an unknown model is the better answer
        return moved(self.registry.history(model, alias))

    def releases(self, model: str | None = None, *, deleted: bool = False) -> list[dict[str, Any]]:
        """Every release, oldest first; with `deleted`, those too that were taken out of use."""
        from seatrial.verbs.custody import without_deleted

        records = self._of_model(model, self.metadata.records("release", model))
        live = {head.name: self.record(head.record_id).inputs for head in self.metadata.heads("deployment")}
        return [
            {
                "release": record.id,
                "model": record.name,
                "version": record.body["version"],
                "semantic_version": record.body["semantic_version"],
                "live": [name for name, inputs in live.items() if record.id in inputs],
                "bytes": record.body["bytes"],
            }
            for record in (records if deleted else without_deleted(self.metadata, records))
        ]

    def release_show(self, id: str) -> dict[str, Any]:
        """One release: its manifest, where its bundle lies, and an example of a request."""
        from seatrial.releases.bundle import open_bundle
        from seatrial.serving.scoring.release import example

        record = self._any_release(id)
        path = self.objects.path(record.body["object"])
        back = self._taken_back(record.body["model"]).get(record.id)
        shown = {"id": record.id, "path": str(path), "cost": self._cost_of(record), **record.body["manifest"]}
        shown |= {"rolled_back": back.words} if back else {}
        return shown | {"example": example(open_bundle(path, self.trusted))}

    def _taken_back(self, model: str) -> dict[str, TakenBack]:
        """The releases that a deployment of the model was rolled back from."""
        from seatrial.deployment.taken_back import taken_back

        every = [taken_back(self.metadata, name) for name in self._deployments_of(model)]
        return {id: found for one in reversed(every) for id, found in one.items()}

    def _cost_of(self, release: Record) -> dict[str, Any] | None:
        """What the child process of a release cost where it was packed; None for one that answers with ONNX."""
        packed = [event for event in self.metadata.events(subject=release.id) if event.kind == "release.packed"]
        found: dict[str, Any] | None = packed[0].body.get("cost") if packed else None
        return found

    def release_verify(self, id: str) -> Verified:
        """Check a bundle (a release's id or name, or a path): signature, every digest, its form, its golden rows, and,
        for a release of this project, that it is what was recorded. Raises for the first that is not as it should be.
        """
        from seatrial.verbs.verified import verify

        path = self._bundle_file(id)
        return verify(path or self.objects.path(self._any_release(id).body["object"]), self)

    def release_diff(self, a: str, b: str) -> Difference:
        """What is different in `b`, and how each scores the other's golden rows. Each is an id, a name or a path."""
        from seatrial.releases.bundle import open_bundle
        from seatrial.releases.difference import compare

        paths = (self._bundle_file(one) or self.objects.path(self._any_release(one).body["object"]) for one in (a, b))
        first, second = (open_bundle(path, self.trusted) for path in paths)
        return compare(first, second)

    def release_card(self, id: str, *, form: Form = "md", out: str | Path | None = None) -> Written:
        """The model card of a release (its id, or a name): Markdown, or "html" for one page. out: a file to write."""
        from seatrial.verbs.evidence import write_card

        return write_card(self, self._any_release(id), form, out)

    def model_card(self, name: str, *, form: Form = "md", out: str | Path | None = None) -> Written:
        """The model card of the release that a model's name means: `late` (the newest), `late@champion`, `late:3`."""
        return self.release_card(name, form=form, out=out)

    def release_sbom(self, id: str, *, out: str | Path | None = None) -> Bill:
        """The bill of materials of a release: CycloneDX 1.6 with the model, its card, data, files and libraries."""
        from seatrial.verbs.evidence import write_bill

        return write_bill(self, self._any_release(id), out)

    def _bundle_file(self, name: str) -> Path | None:
        """The file that is meant; None when a release is. A name that ends like a bundle means a file."""
        path = Path(name)
        return path if _is_file(path) or name.endswith(".seatrial") else None

    def keys_list(self) -> list[KeyInfo]:
        """Every key that is or was trusted, which one signs, and how many releases each signed."""
        from seatrial.verbs.vouching import keys

        return keys(self)

    def key_show(self, id: str) -> KeyShown:
        """One key, by its id or the start of it: what happened to it, and everything that it signed."""
        from seatrial.verbs.vouching import key_shown

        return key_shown(self, id)

    def deployments(self) -> list[dict[str, Any]]:
        """What every deployment answers with."""
        return [self.deployment_show(head.name) for head in self.metadata.heads("deployment")]

    def deployment_show(self, name: str) -> dict[str, Any]:
        """One deployment: its arms, its generation and the decisions that led here."""
        from seatrial.deployment.deploy import live, nothing_deployed

        found = live(self.metadata, name)
        if found is None:
            raise nothing_deployed(name)
        events = self.metadata.events(subject=f"deployment/{name}")
        return {
            "deployment": name,
            "generation": found.head.generation,
            "strategy": found.record.body["strategy"],
            "arms": found.record.body["arms"],
            "history": [
                {"at": iso(from_us(event.at_us)), "kind": event.kind, "actor": event.actor, **event.body}
                for event in events
            ],
        }

    def predictions(self) -> PredictionsListed:
        """What the prediction log holds, by model and day, and how much of it the object store has."""
        from seatrial.verbs.predictions import listed

        return listed(self)

    def prediction_show(self, id: str) -> list[dict[str, Any]]:
        """The rows of a prediction's or a request's id, by column; the audit log is told who looked."""
        from seatrial.verbs.predictions import shown

        return shown(self, id)

    def predictions_ship(self) -> ShippedNow:
        """Compact what is closed of the prediction log, and bring it to the object store, in this process."""
        from seatrial.verbs.predictions import ship_now

        return ship_now(self)

    def predictions_prune(self, *, dry_run: bool = False) -> Pruned:
        """Take away predictions that are older than `log_retention`. dry_run: only say what would go."""
        from seatrial.verbs.predictions import pruned

        return pruned(self, dry_run=dry_run)

    def lineage(self, id: str) -> Lineage:
        """What a record, or a prediction, was made from, down to files, commit and environment; and what came of it.

        id: a record's id or its start, a prediction's id, or a request's.
        """
        return self._lineage_of(id)

    def _lineage_of(self, id: str, found: list[dict[str, Any]] | None = None) -> Lineage:
        """`lineage`. found: what the log has under the id, when it was asked already."""
        from seatrial.governance.lineage import LineageStart, UnknownId, both, upstream
        from seatrial.verbs.predictions import looked_up

        try:
            return both(self.metadata, id)
        except UnknownId:
            found = looked_up(self, id, by="lineage") if found is None else found
            if not found:
                raise
        row = found[0]
        facts = {
            name: row[name] for name in ("request_id", "model", "version", "arm", "prediction", "probability", "caller")
        }
        facts["at"] = iso(row["at"])
        return upstream(self.metadata, LineageStart(row["prediction_id"], (row["release"],), facts=facts))

    def audit_verify(self, anchors: Sequence[Anchor] = ()) -> AuditReport:
        """Check the chain of events. anchors: events that were kept elsewhere, for example by `deploy`'s answer."""
        from seatrial.governance.audit import verify

        return verify(self.metadata, anchors)

    def audit_list(self, limit: int = 50) -> list[Event]:
        """The newest events, newest last."""
        from seatrial.governance.audit import newest

        return newest(self.metadata, limit)

    def audit_show(self, seq: int) -> Event:
        """One event by its number."""
        from seatrial.governance.audit import show

        return show(self.metadata, seq)

    def _snapshot_record(self, name: str) -> Record:
        head = self.metadata.head("snapshot", name)
        return self.record(head.record_id) if head else self.resolved(name, "snapshot")

    def release_of(self, version_id: str) -> Record | None:
        head = self.metadata.head("version_release", version_id)
        return self.record(head.record_id) if head else None

    def chosen_release(self, model: str | None, name: str | None) -> Record:
        """A release by its id or the start of it, by a model, `model@alias` or `model:3`; by default the newest.

        Raises NoRelease, and Deleted for one that was taken out of use.
        """
        from seatrial.registry.versions import refuse_deleted

        if name is not None and name.startswith("rel_"):
            named = self.resolved(name, "release")
            refuse_deleted(self.metadata, named.id, f"release {named.id}")
            return named
        if name is None:
            name = model or self._model(None).name
        if name.isdigit() and model:
            name = f"{model}:{name}"
        plain = "@" not in name and ":" not in name
        head = self.metadata.head("release", name) if plain else None
        record = self.record(head.record_id) if head else None
        if record is None and not plain:
            record = self.release_of(self.registry.resolve(name).id)
        if record is None:
            raise NoRelease(
                f"'{name[:100]}' has no release.",
                state="Nothing was changed.",
                next=f"Run `seatrial release {name[:100]}` first; `seatrial releases list` shows those there are.",
            )
        refuse_deleted(self.metadata, record.id, f"release {record.id}")
        return record

    def _any_release(self, id: str) -> Record:
        """A release to look at: also one that was deleted, by its id."""
        return self.resolved(id, "release") if id.startswith("rel_") else self.chosen_release(None, id)

    def _models(self) -> dict[str, Model]:
        """The models that are declared, and those that were brought in from elsewhere and are not."""
        from seatrial.verbs.external import adopted_models, as_model

        declared = self.definitions.models
        adopted = adopted_models(self.metadata)
        return {**declared, **{name: as_model(one) for name, one in adopted.items() if name not in declared}}

    def _model(self, name: str | None) -> Model:
        """The model of that name, declared or brought in; without a name, the only one. Raises UnknownName."""
        return pick("model", self._models(), name)

    def resolved(self, id: str, kind: str) -> Record:
        """The record of a kind that a person means: its id, or the start of it. Raises UnknownId, and UnknownName for a
        model that has none."""
        from seatrial.governance.lineage import UnknownId

        try:
            return super().resolved(id, kind)
        except UnknownId:
            self._refuse_without(id, kind)
            raise

    def _refuse_without(self, name: str, kind: str) -> None:
        """Raise UnknownName for a model of which no such record is kept."""
        if name in self._models():
            raise UnknownName(f"model '{name}' has no {kind}.", state="Nothing was changed.") from None

    def _of_model(self, name: str | None, found: list[Thing]) -> list[Thing]:
        """What is kept of a model, or of all. Raises UnknownName where nothing is and no model has that name: a wrong
        name is not "none"."""
        if name is not None and not found:
            self._model(name)
        return found

    def _trained_here(self, name: str | None, what: str) -> Model:
        """A model that is declared. Raises TrainedElsewhere, for want of `what`, for one that was only brought in."""
        from seatrial.verbs.external import refuse

        model = self._model(name)
        refuse(model, what)
        return model

    def _threshold(self, model: str) -> float:
        """From which score on the live release of a model decides "positive", or its newest when none is live."""
        heads = [self.metadata.head("deployment", name) for name in self._deployments_of(model)]
        live = [self.record(self.record(head.record_id).inputs[0]) for head in heads if head]
        newest = self.metadata.head("release", model)
        found = live[0] if live else (self.record(newest.record_id) if newest else None)
        value = found.body["manifest"].get("threshold") if found else None
        return 0.5 if value is None else float(value)

    def _deployments_of(self, model: str) -> list[str]:
        """The names of the model's deployments; a model that declares none is deployed under its own name."""
        return [one.name for one in self.definitions.deployments.values() if one.model == model] or [model]

    def _needs_approval(self, model: str, release: str) -> bool:
        """Whether policy lets this release go live only when somebody approves it, and nobody has."""
        from seatrial.retraining.approval import approval_of

        if self.settings.policy.approval != "required":
            return False
        said = [approval_of(self.metadata, name, release) for name in self._deployments_of(model) or [model]]
        return not any(one is not None and one.decision == "approved" for one in said)

    def _status(self, model: Model) -> ModelStatus:
        from seatrial.verbs.vouching import distrusted_signer

        deployments = self._deployments_of(model.name)
        heads = {name: self.metadata.head("deployment", name) for name in deployments}
        deployed = next((name for name in deployments if heads[name]), deployments[0])
        head = heads[deployed]
        versions = self.metadata.records("version", model.name)
        candidate = self.metadata.head("alias", f"{model.name}@candidate")
        release = self.record(self.record(head.record_id).inputs[0]) if head else None
        run = self.record(release.inputs[1]) if release else None
        if run is None and versions:
            run = self.record(max(versions, key=lambda record: int(record.body["version"])).inputs[0])
        decisions = self.metadata.records("deployment", deployed)
        packed = self.metadata.head("release", model.name)
        runs = [record for record in self.metadata.records("run", model.name) if "sample" not in record.body]
        refused = runs[-1] if runs and not runs[-1].body["passed"] else None
        if not versions and refused:
            following = f"seatrial runs show {refused.id}"
        elif not versions:
            following = f"seatrial train {model.name}"
        elif packed is None:
            following = f"seatrial release {model.name}"
        else:
            following = f"seatrial deploy {deployed}" if head is None else SERVE
            if head is None and self._needs_approval(model.name, packed.record_id):
                following = f'seatrial approve {packed.record_id} --reason "..." --actor SECOND_PERSON'
        back = self._taken_back(model.name).get(packed.record_id) if packed else None
        distrusted = distrusted_signer(self, release) if release else None
        if distrusted:
            following = f"seatrial keys show {distrusted}, then seatrial releases resign --by {distrusted}"
        return ModelStatus(
            model=model.name,
            owner=model.owner,
            live=str(release.body["version"]) if release else None,
            release=f"{release.body['semantic_version']} {release.id}" if release else None,
            since=self._live_since(deployed, decisions),
            generation=head.generation if head else None,
            candidate=self.record(candidate.record_id).body["version"] if candidate else None,
            snapshots=[one for one in run.inputs[1:] if one.startswith("snap_")] if run else [],
            training_set=run.inputs[0] if run and run.inputs else None,
            parameters=dict(run.body["definition"]["params"]) if run else {},
            performance=dict(run.body["metrics"]) if run else {},
            next=following,
            refused=refused.id if refused else None,
            refused_because=_refused_because(refused) if refused else [],
            distrusted=distrusted,
            rollout=_under_way(decisions[-1]) if decisions else None,
            rolled_back=back.words if back else None,
        )

    def _live_since(self, deployment: str, decisions: list[Record]) -> str | None:
        """When the release that is live got all of the traffic, whatever was tried beside it since."""
        at = {
            event.body.get("record"): event.at_us for event in self.metadata.events(subject=f"deployment/{deployment}")
        }
        since = None
        for record in reversed(decisions):
            if record.inputs[0] != decisions[-1].inputs[0]:
                break
            since = at.get(record.id, since)
        return iso(from_us(since)) if since is not None else None


def _under_way(decision: Record) -> RolloutLine | None:
    kept = decision.body.get("rollout")
    if not kept:
        return None
    share = kept["steps"][kept["step"]]
    return RolloutLine(kept["strategy"], kept["new"], share, kept["step"] + 1, len(kept["steps"]), kept["since"])


def _shared_from(view: FeatureView) -> str | None:
    from seatrial.features.shared import SharedView

    return view.url if isinstance(view, SharedView) else None


def _refused_because(run: Record) -> list[str]:
    """Why a run became no version: its gates' reasons, or what it failed of."""
    if run.body.get("state") == "failed":
        return [run.body["error"]["found"]]
    return [gate["reason"] for gate in run.body["gates"] if not gate["passed"] and not gate.get("waived")]


def _used_by(use: Use) -> dict[str, Any]:
    """Who uses something, without what it is."""
    plain: dict[str, Any] = msgspec.to_builtins(use)
    return {name: value for name, value in plain.items() if name not in ("name", "kind", "views")}


def _is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _commit_words(code: Mapping[str, Any]) -> str:
    """A commit in short, with + for changes since; empty where there is none."""
    return "" if not code["commit"] else code["commit"][:8] + ("+" if code["dirty"] else "")
