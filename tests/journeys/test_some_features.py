"""A model that takes some of a view's features: the others, which no model could take, are no hindrance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from seatrial import Entity, FrameSource, Model, Project, Split, agg, feature_view
from seatrial.core.clock import FixedClock
from seatrial.features.definitions import BadDefinition

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
SHOPS = [f"s{i}" for i in range(60)]
SALES = pa.table(
    {
        "sold_at": [NOON - timedelta(minutes=i) for i in range(60)],
        "shop": SHOPS,
        "receipt": SHOPS,
        "amount": [float(i) for i in range(60)],
        "basket": [["tea", "milk"]] * 60,
    }
)
LABELS = pa.table({"at": [NOON] * 60, "shop": SHOPS, "busy": [i > 30 for i in range(60)]})


@feature_view(
    entity=Entity("shop"), source=FrameSource(SALES, name="sales", event_timestamp="sold_at", event_key=["receipt"])
)
class till:
    total = agg.sum("amount", window="1d")
    newest = agg.last("amount")
    basket = agg.last("basket")


def model(features):
    return Model(
        "busy",
        task="binary",
        target="busy",
        labels=FrameSource(LABELS, name="labels", event_timestamp="at", label_known_at="at"),
        features=features,
        estimator="sklearn.tree.DecisionTreeClassifier",
        split=Split("random"),
        cv_folds=0,
        owner="shops",
        runbook="none",
    )


def test_it_is_trained_released_and_asked_without_the_others(tmp_path):
    with Project(tmp_path, definitions=[till, model([till["newest", "total"]])], clock=FixedClock(NOON)) as project:
        assert project.train().passed
        project.materialize()
        release = project.release()
        assert project.release_show(release.id)["signature"]["inputs"] == ["till__newest", "till__total"]
        project.deploy(reason="a test")
        assert project.predict("busy", [{"shop": "s40"}])[0]["prediction"] == 1
        assert project.features_used_by("till__newest").models
        assert not project.features_used_by("till__basket").models


@pytest.mark.parametrize("names", [[("newest",), ("newest",)], [("newest", "newest")], [("newest",), ()]])
def test_a_feature_is_listed_once(names):
    with pytest.raises(BadDefinition):
        model([till[each] for each in names])


def test_a_feature_that_the_view_does_not_have_is_told_with_a_near_one():
    with pytest.raises(BadDefinition, match="newest"):
        till["newst"]
