"""Challenging: from a reason to retrain to a challenger that was compared with the champion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from seatrial.core.clock import parse_time, to_us
from seatrial.core.errors import SeatrialError, UsageError, listed
from seatrial.core.windows import DAY_US, Window, duration_us
from seatrial.folder.workspace import STATE
from seatrial.stores.pauses import RETRAINING, Paused, paused, refuse
from seatrial.verbs.results import Progress, Retrained
from seatrial.verbs.watching import Watching

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.core.records import Record
    from seatrial.releases.bundle import Bundle
    from seatrial.retraining.comparison import Comparison
    from seatrial.retraining.definition import Retrain
    from seatrial.retraining.proposal import Proposal
    from seatrial.retraining.refusals import Refusal
    from seatrial.retraining.triggers import Labelled as Rows
    from seatrial.retraining.triggers import OpenAlert, Seen
    from seatrial.training.model import Model
    from seatrial.verbs.shadowed import Both

FRESH_US = 7 * DAY_US
"""A report older than this says nothing of the data that would be learned from now."""


class Challenging(Watching):
    """The verbs of a retraining that is proposed, trained and compared; `approve` and `promote` stand in `project`."""

    def retrain(
        self, model: str | None = None, step: str = "propose", *, reason: str = "", progress: Progress | None = None
    ) -> Retrained:
        """Take a model's retraining one step further.

        step: "propose" asks the triggers, and only proposes; "train" fits, judges and packs the challenger of the
        open proposal, or, with a `reason`, of one that it opens by hand; "compare" looks at the challenger once more
        beside the champion, on rows that neither was trained on; "advance" does whatever comes next, as a schedule
        does.
        What is refused is kept with its reason, see `proposal_refusals`.
        Raises Paused, DataBroken, OverBudget, RolloutFirst, UnderWay, Training, NothingProposed.
        """
        steps = {
            "propose": self._propose,
            "train": self._train_challenger,
            "compare": self._compare,
            "advance": self._advance,
        }
        if step not in steps:
            raise UsageError(f"retrain has no step '{step}'.", expected=f"{listed(steps)} is expected.")
        declared = self._trained_here(model, "how it is trained")
        return steps[step](declared, reason, progress)

    def _propose(self, model: Model, reason: str, _: Progress | None) -> Retrained:
        from seatrial.retraining.proposal import ENDED, manual, newest
        from seatrial.retraining.refusals import UnderWay
        from seatrial.retraining.triggers import look

        self._settle_proposal(model.name)
        self._refuse_paused(model, "propose", reason)
        under_way = newest(self.metadata, model.name)
        if under_way is not None and under_way.state not in ENDED:
            return self._held(model, under_way, reason)
        retrain = self._retrain(model.name)
        reasons = look(retrain.triggers, self._seen(model, retrain), self.now_us)
        fired = [one for one in reasons if one.fired]
        if not fired and not reason:
            words = "; ".join(one.words for one in reasons) or "no trigger is declared"
            return self._retrained(model, f"nothing to propose: {words}", None)
        trigger = "; ".join(one.trigger for one in fired) or "manual"
        self._refuse_broken(model, "propose", trigger)
        try:
            return self._retrained(model, "proposed", self._open(model, fired or manual(reason), reason))
        except UnderWay:  # somebody was first
            under_way = newest(self.metadata, model.name)
            assert under_way is not None, "it is in the way"
            return self._held(model, under_way, reason, trigger)

    def _held(self, model: Model, under_way: Proposal, reason: str, trigger: str = "") -> Retrained:
        words = f"a proposal is under way since {under_way.opened_at[:10]}"
        self._refused(model, "propose", "retrain.under_way", words, trigger or reason or "not asked", under_way.id)
        return self._retrained(model, words, under_way)

    def _open(self, model: Model, fired: Sequence[Any], reason: str) -> Proposal:
        from seatrial.deployment.deploy import live
        from seatrial.retraining.proposal import ENDED, NothingProposed, newest, open_proposal, over_budget
        from seatrial.retraining.refusals import UnderWay

        if model.labels.event_timestamp is None:
            raise UsageError(
                f"the labels of model '{model.name}' have no times, so a challenger could never be compared.",
                state="Nothing was proposed.",
                next=f"Give event_timestamp= to the labels, or `seatrial train {model.name}` and decide by its gates.",
            )
        deployment = self._deployment(model.name)
        now = live(self.metadata, deployment.name)
        if now is None:
            raise NothingProposed(
                f"nothing of model '{model.name}' is live, so there is no champion to challenge.",
                state="Nothing was proposed.",
                next=f"Train, release and deploy '{model.name}' first.",
            )
        trigger = "; ".join(one.trigger for one in fired) or "manual"
        with self.metadata.transaction() as transaction:
            # looked at again where nobody else writes: of a hundred alarms at once, one proposes
            other = newest(self.metadata, model.name)
            if other is not None and other.state not in ENDED:
                raise UnderWay(f"a proposal of '{model.name}' is under way.", state="Nothing was proposed.")
            refused = over_budget(self.metadata, self._retrain(model.name), self.now_us)
            if refused is None:
                open_proposal(
                    transaction,
                    model=model.name,
                    reasons=fired,
                    words=reason,
                    champion=now.record.inputs[0],
                    deployment=deployment.name,
                    generation=now.head.generation,
                    actor=self.actor,
                    at_us=self.now_us,
                )
        if refused is not None:
            raise self._refusal(model, "propose", refused, trigger)
        opened = newest(self.metadata, model.name)
        assert opened is not None, "it was opened above"
        return opened

    def _train_challenger(self, model: Model, reason: str, progress: Progress | None) -> Retrained:
        from seatrial.retraining.alone import alone
        from seatrial.retraining.refusals import Training

        try:
            with alone(self.folder / STATE / "retraining", model.name):
                return self._train_alone(model, reason, progress)
        except Training as error:
            raise self._refusal(model, "train", error, reason or "the open proposal") from None

    def _train_alone(self, model: Model, reason: str, progress: Progress | None) -> Retrained:
        from seatrial.retraining.proposal import ENDED, NothingProposed, manual, newest, over_budget

        self._settle_proposal(model.name)
        self._refuse_paused(model, "train", reason)
        proposal = newest(self.metadata, model.name)
        if proposal is None or proposal.state in ENDED:
            if not reason:
                raise NothingProposed(
                    f"no retraining of '{model.name}' is proposed.",
                    state="Nothing was trained.",
                    next=f'Run `seatrial retrain {model.name}`, or say why: `... train --reason "..."`.',
                )
            proposal = None
        elif proposal.state != "open":
            raise NothingProposed(
                f"the proposal {proposal.id} has its challenger already; it is {proposal.state}.",
                state="Nothing was trained.",
                next=proposal.next or f"Look at `seatrial proposals show {proposal.id}`.",
            )
        trigger = proposal.trigger if proposal else "manual"
        refused = over_budget(self.metadata, self._retrain(model.name), self.now_us)
        if refused is not None:
            raise self._refusal(model, "train", refused, trigger, proposal.id if proposal else None)
        self._refuse_broken(model, "train", trigger, proposal.id if proposal else None)
        if proposal is None:
            proposal = self._open(model, manual(reason), reason)
        before = len(self.metadata.records("run", model.name))
        try:
            start = "champion" if self._retrain(model.name).warm_start else None
            trained = self.train(model.name, tune="champion", continue_from=start, progress=progress)
            released = self.release(trained.run, progress=progress) if trained.passed else None
        except SeatrialError as error:
            self._broke_off(model, proposal, error, fitted=len(self.metadata.records("run", model.name)) > before)
            raise
        with self.metadata.transaction() as transaction:
            body = {"run": trained.run, "release": released.id if released else None}
            self.event(transaction, "proposal.trained", proposal.id, body)
        now = newest(self.metadata, model.name)
        failed = [gate["reason"] for gate in trained.gates if not gate["passed"] and not gate["waived"]]
        words = (
            f"gates refused: {'; '.join(failed)}" if failed else f"challenger {released.id if released else ''} packed"
        )
        return self._retrained(model, words, now)

    def _broke_off(self, model: Model, proposal: Proposal, error: SeatrialError, *, fitted: bool) -> None:
        """Keep that a training broke off; the proposal stays open. fitted: it got as far as a run, and costs budget."""
        trigger = proposal.trigger
        with self.metadata.transaction() as transaction:
            body = {"code": error.code, "reason": error.found, "counts": fitted}
            self.event(transaction, "proposal.failed", proposal.id, body)
        self._refused(model, "train", error.code, error.found, trigger, proposal.id)

    def _advance(self, model: Model, reason: str, progress: Progress | None) -> Retrained:
        """Propose and train, or compare: whatever comes next for the model."""
        from seatrial.retraining.proposal import ENDED, newest

        self._settle_proposal(model.name)
        proposal = newest(self.metadata, model.name)
        if proposal is None or proposal.state in ENDED:
            done = self._propose(model, reason, progress)
            if done.proposal is None or done.proposal.state != "open":
                return done
            proposal = done.proposal
        if proposal.state == "open":
            return self._train_challenger(model, "", progress)
        if proposal.state in ("judging", "better"):
            self._refuse_paused(model, "advance", proposal.trigger)
            return self._compare(model, reason, progress)
        return self._retrained(model, f"the proposal is {proposal.state}", proposal)

    # -- what is refused, and why

    def proposal_refusals(self, model: str | None = None) -> list[Refusal]:
        """Every retraining that was asked for and refused, with its reason, oldest first; alike ones in a row once."""
        from seatrial.retraining.refusals import refusals

        return self._of_model(model, refusals(self.metadata, model))

    def _refused(
        self, model: Model, step: str, code: str, reason: str, trigger: str, proposal: str | None = None
    ) -> None:
        from seatrial.retraining.refusals import keep

        with self.metadata.transaction() as transaction:
            keep(
                transaction,
                model=model.name,
                step=step,
                code=code,
                reason=reason,
                trigger=trigger,
                proposal=proposal,
                actor=self.actor,
                at_us=self.now_us,
            )

    def _refusal(
        self, model: Model, step: str, error: SeatrialError, trigger: str, proposal: str | None = None
    ) -> SeatrialError:
        """The error, kept as a refusal."""
        self._refused(model, step, error.code, error.found, trigger, proposal)
        return error

    def _refuse_paused(self, model: Model, step: str, trigger: str) -> None:
        held = paused(self.metadata, [RETRAINING, model.name], self.now_us)
        try:
            refuse(held, f"no retraining of '{model.name}' is proposed or trained")
        except Paused as error:
            raise self._refusal(model, step, error, trigger or "not asked") from None

    def _refuse_broken(self, model: Model, step: str, trigger: str, proposal: str | None = None) -> None:
        """Raise while another release takes the traffic, or the data break a rule. Reads the model's sources."""
        from seatrial.deployment.deploy import live
        from seatrial.deployment.rollout import rollout_of
        from seatrial.retraining.refusals import DataBroken, RolloutFirst

        deployment = self._deployment(model.name)
        rollout = rollout_of(live(self.metadata, deployment.name))
        if rollout is not None:
            raise self._refusal(
                model,
                step,
                RolloutFirst(
                    f"release {rollout.new} is taking the traffic of '{deployment.name}' in steps ({rollout.share:g} % "
                    "now), so there is no champion yet that a challenger could be compared with.",
                    state="Nothing was trained.",
                    next=f"Look at `seatrial deployments status {deployment.name}`.",
                ),
                trigger,
                proposal,
            )
        broken = self._broken_rules(model)
        if broken:
            raise self._refusal(
                model,
                step,
                DataBroken(
                    f"the data of '{model.name}' break {len(broken)} rule{'s' if len(broken) > 1 else ''}: "
                    + "; ".join(broken[:5])
                    + ("; ..." if len(broken) > 5 else "."),
                    expected="A model must not learn from data that are known to be wrong.",
                    state="Nothing was trained.",
                    next=f"See `seatrial validate` and `seatrial monitor {model.name}`; mend the data first.",
                ),
                trigger,
                proposal,
            )

    def _broken_rules(self, model: Model) -> list[str]:
        """Declared expectations of the model's sources that fail, and hard rules that failed in the newest report."""
        from seatrial.features.plan import make_plan

        plan = make_plan(model.features, self.definitions.views)
        views = self.definitions.views
        named = [model.labels.name, *(views[one.name].source.name for one in plan.views if one.name in views)]
        known = self.definitions.sources
        asked = dict.fromkeys(name for name in [*self._inputs.raw_names(model, plan), *named] if name in known)
        reports = self._inputs.reports(list(asked), lambda _: None)
        broken = [f"{one.source}: {result}" for one in reports for result in one.failures]
        for record in self.metadata.records("report", model.name, newest=1):
            as_of = to_us(parse_time(record.body["as_of"], name="as_of"))
            if 0 <= self.now_us - as_of <= FRESH_US:
                said = f"report of {record.body['as_of'][:10]}"
                failed = [check for check in record.body["quality"] if not check["passed"]]
                broken += [f"{said}: {one['name']} {one['column']} ({one['found']})" for one in failed]
        return broken

    def _settle_proposal(self, model: str) -> None:
        """End the model's newest proposal where its deployment says that it is over."""
        from seatrial.retraining.proposal import settle

        with self.metadata.transaction() as transaction:
            settle(self.metadata, transaction, model, actor=self.actor, at_us=self.now_us)

    def _seen(self, model: Model, retrain: Retrain) -> Seen:
        """What triggers may look at."""
        from seatrial.deployment.deploy import live
        from seatrial.retraining.triggers import Seen

        now = live(self.metadata, self._deployment(model.name).name)
        champion = self.record(now.record.inputs[0]) if now else None
        run = self.metadata.record(champion.inputs[1]) if champion and len(champion.inputs) > 1 else None
        cutoff_us = int(run.body.get("cutoff_us") or 0) if run else 0
        reach_us = max((one.reach_us for one in retrain.triggers), default=0)
        return Seen(
            predictions=cache(lambda: self._labelled(model, reach_us)),
            alerts=cache(lambda: self._open_alerts(model.name)),
            since_us=self._since(model) or cutoff_us,
            cutoff_us=cutoff_us,
            known=cache(lambda: self._known_at(model)),
        )

    def _since(self, model: Model) -> int | None:
        """When the last proposal was opened or what is live went live, whichever is later; None before either."""
        from seatrial.retraining.proposal import newest

        kinds = ("deploy", "rollback")
        names = self._deployments_of(model.name)
        told = [event for name in names for event in self.metadata.events(subject=f"deployment/{name}")]
        at = [event.at_us for event in told if event.kind in kinds]
        proposal = newest(self.metadata, model.name)
        at += [to_us(parse_time(proposal.opened_at))] if proposal else []
        return max(at, default=None)

    def _open_alerts(self, model: str) -> list[OpenAlert]:
        """The open alerts of what was seen: neither silence nor broken data are a reason to train."""
        from seatrial.monitoring.alerting.rules import NAME as BROKEN
        from seatrial.retraining.triggers import OpenAlert

        metrics: dict[str, str] = {}
        alerts = [one for one in self.alerts(model) if one.kind != "silence" and one.alarm != BROKEN]
        for alert in alerts:
            report = self.metadata.record(alert.report)
            for alarm in report.body["alarms"] if report else []:
                metrics[alarm["name"]] = alarm["metric"]
        return [OpenAlert(one.id, one.alarm, metrics.get(one.alarm, ""), one.severity, one.headline) for one in alerts]

    def _known_at(self, model: Model) -> NDArray[np.int64]:
        """When each label of the label source became known, in microseconds since 1970."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        source = model.labels
        column = source.label_known_at or source.event_timestamp
        if column is None:
            return np.empty(0, np.int64)
        tables, _ = self._inputs.tables([source], None)
        rows = tables[source.name]
        known = rows[column].filter(pc.is_valid(rows[model.target])).drop_null()
        found: NDArray[np.int64] = known.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
        return found

    def _compare(self, model: Model, _: str, progress: Progress | None) -> Retrained:
        from seatrial.retraining.proposal import NothingProposed, keep_comparison, newest

        self._settle_proposal(model.name)
        proposal = newest(self.metadata, model.name)
        judged = ("judging", "better", "approved")
        if proposal is None or proposal.challenger is None or proposal.state not in judged:
            raise NothingProposed(
                f"no challenger of '{model.name}' is being judged"
                + (f"; the newest proposal is {proposal.state}." if proposal else ".")
                + (f" It ended because {proposal.ended}." if proposal and proposal.ended else ""),
                state="Nothing was compared.",
            )
        if proposal.comparison is not None and to_us(parse_time(proposal.comparison.as_of, name="as_of")) > self.now_us:
            raise UsageError(
                f"the challenger of '{model.name}' was compared as of {proposal.comparison.as_of} already.",
                expected="A look at a time before that would choose among verdicts.",
                state="Nothing was compared.",
            )
        comparison = self._comparison(model, proposal, progress)
        with self.metadata.transaction() as transaction:
            keep_comparison(transaction, proposal, comparison, actor=self.actor, at_us=self.now_us)
        return self._retrained(model, comparison.words, newest(self.metadata, model.name))

    def _comparison(self, model: Model, proposal: Proposal, progress: Progress | None) -> Comparison:
        """Of both releases, on live requests where the challenger is a shadow, and else on the source's label rows."""
        from seatrial.retraining.comparison import compare
        from seatrial.verbs.shadowed import shadowed

        assert proposal.challenger is not None, "the caller has looked"
        retrain = self._retrain(model.name)
        releases = self.record(proposal.champion), self.record(proposal.challenger)
        bundles = self._bundle(releases[0]), self._bundle(releases[1])
        live = shadowed(self, model, proposal, bundles)
        both = live or self._both_on_labels(model, releases, bundles, progress)
        return compare(
            model=model.name,
            task=model.task,
            champion=proposal.champion,
            challenger=proposal.challenger,
            at_us=both.at_us,
            labels=both.labels,
            champion_scores=both.champion,
            challenger_scores=both.challenger,
            start_us=both.start_us,
            as_of_us=self.now_us,
            min_days=retrain.min_days,
            judge_for_us=duration_us(retrain.judge_for),
            margins=retrain.margins,
            slices=slices_of(model, both.inputs) if retrain.margins else {},
            thresholds=(threshold_of(bundles[0]), threshold_of(bundles[1])),
            quantile=model.quantile,
            shadow="live" if live else "batch",
            ripe_after_us=both.ripe_after_us,
            earlier=proposal.comparison,
        )

    def _both_on_labels(
        self,
        model: Model,
        releases: tuple[Record, Record],
        bundles: tuple[Bundle, Bundle],
        progress: Progress | None,
    ) -> Both:
        """Both releases on the label rows after both cut-offs, as a shadow in batch."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from seatrial.features import training_set
        from seatrial.serving.batch.table import score
        from seatrial.verbs.history import times_us
        from seatrial.verbs.inputs import instant
        from seatrial.verbs.shadowed import Both, of_classes

        start_us = max(int(self.record(one.inputs[1]).body.get("cutoff_us") or 0) for one in releases)
        window = Window(start_us, max(self.now_us, start_us + 1))
        rows, _, _, _ = self._inputs.rows(model, window=window, progress=progress)
        known_at = rows[training_set.LABEL_KNOWN_AT if model.labels.label_known_at else training_set.AT]
        known = pc.fill_null(pc.less_equal(known_at, instant(self.now_us)), False)
        champion, challenger = (score(bundle, rows, threads=model.threads) for bundle in bundles)
        if model.task == "multiclass":
            happened = pc.if_else(known, rows[model.target], None).to_pylist()
            classes = [bundle.manifest.signature.classes for bundle in bundles]
            labels, champion, challenger = of_classes(happened, (champion, challenger), classes)
        else:
            column = pc.if_else(known, rows[model.target].cast(pa.float64()), None)
            labels = np.asarray(column.to_numpy(), dtype=np.float64)
        return Both(
            start_us,
            times_us(rows, training_set.AT),
            labels,
            champion,
            challenger,
            rows,
            self._waited_on_labels(model, start_us),
        )

    def _waited_on_labels(self, model: Model, start_us: int) -> int:
        """How long the labels of a day are waited for, as those of the label source came."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from seatrial.verbs.inputs import instant
        from seatrial.verbs.shadowed import waited_for

        source = model.labels
        if source.label_known_at is None or source.event_timestamp is None:
            return 0
        rows = self._inputs.uncut(source)
        back_us = duration_us(self._retrain(model.name).judge_for)
        at = rows[source.event_timestamp].cast(pa.timestamp("us", tz="UTC"))
        rows = rows.filter(pc.fill_null(pc.greater_equal(at, instant(start_us - back_us)), False))
        at, known_at = rows[source.event_timestamp], rows[source.label_known_at]
        return waited_for(model, at, known_at, rows[model.target], self.now_us)

    def proposals(self, model: str | None = None) -> list[Proposal]:
        """Every proposed retraining and how it stands, oldest first."""
        from seatrial.retraining.proposal import proposals

        return self._of_model(model, proposals(self.metadata, model))

    def proposal_show(self, id: str) -> Proposal:
        """One proposal with every look at its challenger."""
        from seatrial.retraining.proposal import standing

        return standing(self.metadata, self.resolved(id, "proposal"))

    def _retrained(self, model: Model, words: str, proposal: Proposal | None) -> Retrained:
        return Retrained(
            model=model.name,
            words=words,
            proposal=proposal,
            next=proposal.next if proposal else "",
        )

    def _labelled(self, model: Model, reach_us: int) -> Rows:
        """What triggers look at: predictions of the live release with their labels, as far back as they look."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from seatrial.deployment.deploy import live
        from seatrial.retraining.triggers import Labelled as Rows
        from seatrial.verbs.shadowed import waited_for

        deployed = [live(self.metadata, name) for name in self._deployments_of(model.name)]
        releases = pa.array([now.record.inputs[0] for now in deployed if now], pa.string())
        back_us = max(reach_us, duration_us(self._retrain(model.name).judge_for))
        sample = self._sample(model, Window(max(self.now_us - back_us - DAY_US, 0), self.now_us))
        happened = sample.rows["label_class" if model.task == "multiclass" else "label"]
        known = sample.rows["label_known_at"].cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
        ours = pc.is_in(sample.rows["release"], releases).to_numpy()
        at = sample.rows["at"].cast(pa.int64()).to_numpy()
        several = sample.class_scores() if model.task == "multiclass" else None
        return Rows(
            at[ours],
            known[ours],
            sample.scores()[ours],
            sample.label_values()[ours],
            task=model.task,
            happened=several[0][ours] if several else None,
            probabilities=several[1][ours] if several else None,
            threshold=sample.threshold,
            quantile=model.quantile,
            ripe_us=waited_for(model, sample.rows["at"], sample.rows["label_known_at"], happened, self.now_us),
        )

    def _retrain(self, model: str) -> Retrain:
        from seatrial.retraining.definition import Retrain

        return self.definitions.retrains.get(model) or Retrain(model)


def threshold_of(bundle: Bundle) -> float:
    """From which score on a release decides \"positive\"."""
    return 0.5 if bundle.manifest.threshold is None else bundle.manifest.threshold


def slices_of(model: Model, rows: pa.Table) -> dict[str, NDArray[np.str_]]:
    """By column that the model is sliced by, the slice of each row."""
    import numpy as np

    from seatrial.training.slices import slice_values

    every = np.arange(rows.num_rows)
    return {name: slice_values(rows[name], every, every) for name in model.slices if name in rows.column_names}
