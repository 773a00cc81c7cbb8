"""The quality of features: do they leak, are they online what they are offline, and how are their values spread?

The verbs `feature_leaks`, `feature_verify` and `feature_stats` of a project, over `features.leaks`, `features.skew` and
`features.statistics`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from seatrial.features.leaks import Guarded, LeakReport, check

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.data.sources import Source
    from seatrial.features.definitions import FeatureView
    from seatrial.features.plan import FeaturePlan
    from seatrial.inputs import Inputs
    from seatrial.training.model import Model


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
