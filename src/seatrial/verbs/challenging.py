"""Challenging: from a reason to retrain to a challenger that was compared with the champion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from seatrial.core.clock import parse_time, to_us
from seatrial.core.errors import UsageError
from seatrial.core.windows import Window, duration_us
from seatrial.stores.pauses import RETRAINING, paused, refuse
from seatrial.verbs.results import Progress, Retrained
from seatrial.verbs.watching import DAY_US, Watching

if TYPE_CHECKING:
    from seatrial.retraining.comparison import Comparison
    from seatrial.retraining.definition import Retrain, Trigger
    from seatrial.retraining.proposal import Proposal
    from seatrial.retraining.triggers import Labelled as Rows
    from seatrial.training.model import Model


class Challenging(Watching):
    """The verbs of a retraining that is proposed, trained and compared; `approve` and `promote` stand in `project`."""

    def retrain(
        self, model: str | None = None, step: str = "propose", *, reason: str = "", progress: Progress | None = None
    ) -> Retrained:
        """Take a model's retraining one step further.

        step: "propose" asks the triggers, and only proposes; "train" fits, judges and packs the challenger of the
        open proposal, or, with a `reason`, of one that it opens by hand; "compare" looks at the challenger once more
        beside the champion, on rows that neither was trained on.
        Raises DataRefused when the data break their rules, OverBudget, NothingProposed.
        """
        steps = {"propose": self._propose, "train": self._train_challenger, "compare": self._compare}
        if step not in steps:
            raise UsageError(f"retrain has no step '{step}'.", expected="propose, train or compare is expected.")
        declared = self._trained_here(model, "how it is trained")
        if step != "compare":
            held = paused(self.metadata, [RETRAINING, declared.name], self.now_us)
            refuse(held, f"no retraining of '{declared.name}' is proposed or trained")
        return steps[step](declared, reason, progress)

    def _propose(self, model: Model, reason: str, _: Progress | None) -> Retrained:
        from seatrial.retraining.proposal import ENDED, newest, refusal
        from seatrial.retraining.triggers import look

        under_way = newest(self.metadata, model.name)
        if under_way is not None and under_way.state not in ENDED:
            return self._retrained(model, f"a proposal is under way since {under_way.opened_at[:10]}", under_way)
        retrain = self._retrain(model.name)
        alerts = [(one.id, one.headline) for one in self.alerts(model.name) if one.severity == "high"]
        watching = [one for one in retrain.triggers if one.kind == "calibration"]
        since_us = self._since(model)
        reasons = look(
            retrain.triggers, lambda: self._labelled(model, watching), alerts, self.now_us, since_us=since_us
        )
        fired = [one for one in reasons if one.fired]
        if not fired and not reason:
            words = "; ".join(one.words for one in reasons) or "no trigger is declared"
            return self._retrained(model, f"nothing to propose: {words}", None)
        refused = refusal(self.metadata, retrain, self.now_us)
        if refused is not None:
            raise refused
        return self._retrained(model, "proposed", self._open(model, fired, reason))

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

    def _open(self, model: Model, fired: Sequence[Any], reason: str) -> Proposal:
        from seatrial.deployment.deploy import live
        from seatrial.retraining.proposal import NothingProposed, newest, open_proposal

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
        with self.metadata.transaction() as transaction:
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
        opened = newest(self.metadata, model.name)
        assert opened is not None, "it was opened above"
        return opened

    def _train_challenger(self, model: Model, reason: str, progress: Progress | None) -> Retrained:
        from seatrial.retraining.proposal import ENDED, NothingProposed, newest, refusal

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
        refused = refusal(self.metadata, self._retrain(model.name), self.now_us)
        if refused is not None:
            raise refused
        if proposal is None:
            from seatrial.retraining.proposal import manual

            proposal = self._open(model, manual(reason), reason)
        trained = self.train(model.name, tune="champion", progress=progress)
        released = self.release(trained.run, progress=progress) if trained.passed else None
        with self.metadata.transaction() as transaction:
            body = {"run": trained.run, "release": released.id if released else None}
            self.event(transaction, "proposal.trained", proposal.id, body)
        now = newest(self.metadata, model.name)
        failed = [gate["reason"] for gate in trained.gates if not gate["passed"] and not gate["waived"]]
        words = (
            f"gates refused: {'; '.join(failed)}" if failed else f"challenger {released.id if released else ''} packed"
        )
        return self._retrained(model, words, now)

    def _compare(self, model: Model, _: str, progress: Progress | None) -> Retrained:
        from seatrial.retraining.proposal import NothingProposed, keep_comparison, newest

        proposal = newest(self.metadata, model.name)
        judged = ("judging", "better", "worse", "approved")
        if proposal is None or proposal.challenger is None or proposal.state not in judged:
            raise NothingProposed(
                f"no challenger of '{model.name}' is being judged"
                + (f"; the newest proposal is {proposal.state}." if proposal else "."),
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
        """Both releases on the label rows after both cut-offs, as a shadow in batch."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from seatrial.core.signature import aligned, places
        from seatrial.features import training_set
        from seatrial.retraining.comparison import compare
        from seatrial.serving.batch.table import score
        from seatrial.verbs.history import times_us
        from seatrial.verbs.inputs import instant

        assert proposal.challenger is not None, "the caller has looked"
        retrain = self._retrain(model.name)
        releases = [self.record(id) for id in (proposal.champion, proposal.challenger)]
        start_us = max(int(self.record(one.inputs[1]).body.get("cutoff_us") or 0) for one in releases)
        window = Window(start_us, max(self.now_us, start_us + 1))
        rows, _, _, _ = self._inputs.rows(model, window=window, progress=progress)
        known_at = rows[training_set.LABEL_KNOWN_AT if model.labels.label_known_at else training_set.AT]
        known = pc.fill_null(pc.less_equal(known_at, instant(self.now_us)), False)
        bundles = [self._bundle(one) for one in releases]
        champion, challenger = (score(bundle, rows, threads=model.threads) for bundle in bundles)
        if model.task == "multiclass":
            happened = pc.if_else(known, rows[model.target], None).to_pylist()
            of_bundles = [bundle.manifest.signature.classes for bundle in bundles]
            classes = sorted({*of_bundles[0], *of_bundles[1], *(value for value in happened if value is not None)})
            champion, challenger = (
                aligned(scores, of_bundle, classes)
                for scores, of_bundle in zip((champion, challenger), of_bundles, strict=True)
            )
            labels = places(happened, classes)
        else:
            column = pc.if_else(known, rows[model.target].cast(pa.float64()), None)
            labels = np.asarray(column.to_numpy(), dtype=np.float64)
        return compare(
            model=model.name,
            task=model.task,
            champion=proposal.champion,
            challenger=proposal.challenger,
            at_us=times_us(rows, training_set.AT),
            labels=labels,
            champion_scores=champion,
            challenger_scores=challenger,
            start_us=start_us,
            as_of_us=self.now_us,
            min_days=retrain.min_days,
            judge_for_us=duration_us(retrain.judge_for),
        )

    def proposals(self, model: str | None = None) -> list[Proposal]:
        """Every proposed retraining and how it stands, oldest first."""
        from seatrial.retraining.proposal import proposals

        return proposals(self.metadata, model)

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

    def _labelled(self, model: Model, triggers: Sequence[Trigger]) -> Rows:
        """What triggers look at: predictions of the live release with their labels, as far back as they look."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from seatrial.deployment.deploy import live
        from seatrial.retraining.triggers import Labelled as Rows

        deployed = [live(self.metadata, name) for name in self._deployments_of(model.name)]
        releases = pa.array([now.record.inputs[0] for now in deployed if now], pa.string())
        widest = max((duration_us(one.window) + one.looks * duration_us(one.every) for one in triggers), default=0)
        sample = self._sample(model, Window(max(self.now_us - widest - DAY_US, 0), self.now_us))
        known = sample.rows["label_known_at"].cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
        ours = pc.is_in(sample.rows["release"], releases).to_numpy()
        at = sample.rows["at"].cast(pa.int64()).to_numpy()
        return Rows(at[ours], known[ours], sample.scores()[ours], sample.label_values()[ours])

    def _retrain(self, model: str) -> Retrain:
        from seatrial.retraining.definition import Retrain

        return self.definitions.retrains.get(model) or Retrain(model)
