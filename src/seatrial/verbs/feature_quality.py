"""The quality of features: do they leak, are they online what they are offline, and how are their values spread?

The verbs `feature_leaks`, `feature_verify` and `feature_stats` of a project, over `features.leaks`, `features.skew` and
`features.statistics`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seatrial.core.errors import listed
from seatrial.core.windows import Window
from seatrial.features.leaks import Guarded, LeakReport, check
from seatrial.features.plan import FeaturePlan, make_plan
from seatrial.features.skew import SkewReport, Tally, missing_fields, recompute
from seatrial.serving.batch.table import ARM

if TYPE_CHECKING:
    from seatrial.data.sources import Source
    from seatrial.features.definitions import FeatureView
    from seatrial.folder.workspace import Workspace
    from seatrial.training.model import Model
    from seatrial.verbs.inputs import Inputs
    from seatrial.verbs.results import Progress

CHUNK = 50_000  # predictions recomputed at once
MOST = 500_000  # predictions read at once
DAY_US, SECOND_US = 86_400_000_000, 1_000_000


def leaks(inputs: Inputs, model: Model, plan: FeaturePlan, training_set: pa.Table) -> LeakReport:
    """The leak guard on a training set that `inputs` made for the model."""
    from seatrial.data.reading import DataWarning

    views = views_of(inputs, model, plan)
    workspace = inputs.workspace
    known: dict[str, pa.Table] = {}

    def rows(source: Source) -> pa.Table:
        if source.name not in known:
            known[source.name] = inputs.uncut(source)
        return known[source.name]

    guarded = Guarded(
        model=model.name,
        labels=model.labels,
        key=[name for name in model.key if name in training_set.column_names],
        target=model.target,
        request=list(dict.fromkeys([*model.request_features, *plan.request_columns])),
        plan=plan,
        views=views,
        rows=rows,
        folder=workspace.folder,
        seed=model.seed,
        threads=workspace.settings.threads,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # said when the sources were read
        return check(guarded, training_set)


def views_of(inputs: Inputs, model: Model, plan: FeaturePlan) -> dict[str, FeatureView]:
    """The views of a plan by name: the project's, or the model's own."""
    known = inputs.workspace.definitions.views | {view.name: view for view in model.views}
    return {view.name: known[view.name] for view in plan.views}


def verify(
    project: Workspace,
    inputs: Inputs,
    model: Model,
    window: Window,
    *,
    sample: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SkewReport:
    """Logged features of a window beside the join as of the same instants, by each release's own plan.

    The log is read a day at a time, or less of a busy one, and recomputed a chunk of days at a time.
    sample: so many predictions, chosen by the seed.
    """
    notes: list[str] = []
    pieces = [piece for day in _days(window) for piece in _pieces(project, model, day)]
    counts = {piece: online for piece, online, _ in pieces}
    total = sum(counts.values())
    chosen = None
    if sample is not None and sample < total:
        chosen = np.sort(np.random.default_rng(seed).choice(total, sample, replace=False))
    replays: dict[str, _Replay] = {}
    waiting: dict[tuple[str, str], list[pa.Table]] = {}  # by release and columns: a join of many rows is as soon done
    tally, before = Tally(), 0

    def join(asked: tuple[str, str]) -> None:
        found = pa.concat_tables(waiting.pop(asked))
        for start in range(0, found.num_rows, CHUNK):
            replays[asked[0]].add(tally, found.slice(start, CHUNK), project.settings.threads, notes)

    for piece, count in counts.items():
        if not count:
            continue
        rows = _answered_online(project, model, piece, None)
        if chosen is not None:
            rows = rows.take(chosen[(chosen >= before) & (chosen < before + count)] - before)
        before += count
        if progress:
            progress("recompute", before, total)
        for release in sorted(set(rows["release"].to_pylist())):
            if release not in replays:
                replays[release] = _Replay.of(project, inputs, model, release, notes)
            ours = rows.filter(pc.equal(rows["release"], release))
            asked = release, ours.schema.to_string()
            waiting.setdefault(asked, []).append(ours)
            if sum(one.num_rows for one in waiting[asked]) >= CHUNK:
                join(asked)
    for asked in list(waiting):
        join(asked)
    features = tally.features()
    return SkewReport(
        model=model.name,
        window=str(window),
        predictions=total,
        rows=tally.rows,
        mismatched=tally.mismatched,
        share=max((one.share for one in features), default=0.0),
        features=features,
        releases=sorted(release for release in replays if release),
        notes=list(dict.fromkeys(notes)),
        batch=sum(batch for _, _, batch in pieces),
    )


@dataclass(frozen=True)
class _Replay:
    """What is needed to join a release's features again: its plan, cut to the views whose source is there."""

    plan: FeaturePlan
    events: dict[str, pa.Table]

    @staticmethod
    def of(project: Workspace, inputs: Inputs, model: Model, release: str, notes: list[str]) -> _Replay:
        """release: empty for predictions that were logged from elsewhere; these are joined by the model's own plan."""
        definitions = project.definitions
        record = project.metadata.record(release) if release else None
        if record is not None:
            plan = msgspec.convert(record.body["manifest"]["plan"], FeaturePlan)
        elif release:
            notes.append(f"predictions of release {release}, which is not known here, were not joined again")
            plan = FeaturePlan()
        else:
            plan = make_plan(model.features, definitions.views)
        declared = {view.digest for view in [*definitions.views.values(), *model.views]}
        own = {view.source.name: view.source for view in model.views}
        events, lost = {}, set()
        for view in plan.views:
            name = view.source.name if view.source else ""
            source = definitions.sources.get(name) or own.get(name)
            if source is None:
                lost.add(view.name)
                notes.append(f"view '{view.name}' was not joined again: its source {name or ''} is no longer declared")
                continue
            if view.digest not in declared:
                notes.append(
                    f"view '{view.name}' of release {release} is no longer declared like that; it was joined as it was "
                    f"frozen, from source '{name}' as it is now"
                )
            events[view.name] = inputs.uncut(source)
        functions = tuple(
            function
            for function in plan.functions
            if not any(arg.partition("__")[0] in lost and "__" in arg for arg in function.args)
        )
        return _Replay(FeaturePlan(tuple(view for view in plan.views if view.name not in lost), functions), events)

    def add(self, tally: Tally, logged: pa.Table, threads: int, notes: list[str]) -> None:
        unknown = missing_fields(logged, self.plan)
        if unknown:
            notes.append(
                f"predictions that were logged without {listed(unknown)} were not joined again: features hang on it"
            )
            return
        if not self.plan.feature_columns:
            return  # nothing is looked up or computed
        tally.add(logged, recompute(logged, self.plan, self.events, threads=threads), self.plan)


def _days(window: Window) -> list[Window]:
    starts = [*range(window.start_us, window.end_us, DAY_US), window.end_us]
    return [Window(start, end) for start, end in pairwise(starts)]


def _pieces(project: Workspace, model: Model, window: Window) -> list[tuple[Window, int, int]]:
    """The window in pieces of at most `MOST` predictions, or of a second; with how many each holds, and how many of a
    batch beside them."""
    arms = project.log.rows(model=model.name, window=window, columns=["prediction_id", "arm"])["arm"]
    batch: int = pc.sum(pc.equal(arms, ARM)).as_py() or 0
    count = len(arms) - arms.null_count - batch
    if count <= MOST or window.end_us - window.start_us <= SECOND_US:
        return [(window, count, batch)]
    middle = (window.start_us + window.end_us) // 2
    halves = (Window(window.start_us, middle), Window(middle, window.end_us))
    return [piece for half in halves for piece in _pieces(project, model, half)]


def _answered_online(project: Workspace, model: Model, window: Window, columns: list[str] | None) -> pa.Table:
    """The window's predictions but those of a batch, which were joined offline in the first place."""
    rows = project.log.rows(model=model.name, window=window, columns=columns)
    hidden = [f"{kind}_{name}" for name in model.personal for kind in ("field", "feature")]
    rows = rows.drop_columns([name for name in hidden if name in rows.column_names])
    return rows.filter(pc.not_equal(rows["arm"], ARM))
