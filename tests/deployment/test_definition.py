"""What a project file can say about a deployment."""

from __future__ import annotations

import pytest

from seatrial import FrameSource, Metric
from seatrial.core.declared import collecting
from seatrial.core.objective import BadObjective, Objective
from seatrial.core.windows import BadDuration
from seatrial.deployment.definition import ABTest, BadDeployment, BlueGreen, Canary, Deployment, Guardrail, Shadow


def test_a_deployment_is_named_after_its_model_and_is_a_canary_of_three_steps():
    with collecting() as declared:
        deployment = Deployment("late")
    assert declared == [deployment]
    assert (deployment.name, deployment.strategy, deployment.route_by) == ("late", Canary([5, 25, 100]), None)
    assert Deployment("late", name="late-eu", strategy=BlueGreen()).name == "late-eu"


def test_a_canary_takes_a_list_of_steps_and_stays_as_it_was_declared():
    steps = [1, 10, 100]
    canary = Canary(steps)
    steps.append(200)
    assert (canary.steps, canary.hold_us, canary.kind) == ((1, 10, 100), 86_400_000_000, "canary")
    assert Deployment("late", strategy=canary).strategy == Canary((1, 10, 100))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": []}, "steps"),
        ({"steps": [5, 25]}, "rise to 100"),
        ({"steps": [25, 5, 100]}, "rise to 100"),
        ({"steps": [5, 5, 100]}, "rise to 100"),
        ({"steps": [0.001, 100]}, "smallest share"),
        ({"steps": "5"}, "list"),
        ({"steps": [True, 100]}, "rise to 100"),
        ({"hold": "1h"}, "Whole days"),
        ({"hold": "0d"}, "Whole days are expected, one at least"),
        ({"min_rows": 10}, "At least 100"),
        ({"min_rows": 1000.0}, "At least 100"),
        ({"decide": "sales"}, "labels"),
        ({"guardrails": ["errors"]}, "Guardrail"),
        ({"guardrails": [Guardrail.errors(), Guardrail.errors(0.1)]}, "once"),
    ],
)
def test_a_canary_that_cannot_work_is_refused_when_it_is_declared(options, said):
    with pytest.raises(BadDeployment, match=said):
        Canary(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"share": 0}, "percent"),
        ({"share": 100}, "percent"),
        ({"judge_for": "36h"}, "Whole days"),
        ({"min_days": 1}, "2 days"),
    ],
)
def test_an_experiment_that_cannot_work_is_refused_when_it_is_declared(options, said):
    with pytest.raises(BadDeployment, match=said):
        ABTest(**options)
    if "share" not in options:
        with pytest.raises(BadDeployment, match=said):
            Shadow(**options)


@pytest.mark.parametrize("margin", [0, -1, float("nan"), float("inf"), "1 %", True])
def test_a_margin_is_a_number_above_zero(margin):
    with pytest.raises(BadDeployment, match="margin"):
        Guardrail.errors(margin)


def test_what_is_no_strategy_is_refused():
    with pytest.raises(BadDeployment, match="str"):
        Deployment("late", strategy="canary")
    with pytest.raises(BadDeployment, match="on_store_failure"):
        Deployment("late", on_store_failure="hope")
    with pytest.raises(BadDeployment, match="p90"):
        Guardrail("p90", 0.1)
    with pytest.raises(BadDuration):
        Canary(hold="a day")


ORDERS = FrameSource({"request_id": ["a"], "revenue": [1.0]}, name="orders")
REVENUE = Metric("revenue", ORDERS)


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: Metric("", ORDERS), "a metric is named ''"),
        (lambda: Metric("labels", ORDERS), "a metric is named 'labels'"),
        (lambda: Metric("revenue", "select 1"), "metric 'revenue' is to be read from str"),
        (lambda: Metric("revenue", ORDERS, better="more"), "of metric 'revenue' 'more' is better"),
        (lambda: Metric("revenue", ORDERS, margin=-1), "margin of metric 'revenue' is -1"),
        (lambda: Metric("revenue", ORDERS, margin=float("nan")), "margin of metric 'revenue' is nan"),
        (lambda: Metric("revenue", ORDERS, without_row="0"), "without_row of metric 'revenue' is '0'"),
        (lambda: Canary(decide="revenue"), "a canary decides by 'revenue'"),
        (lambda: ABTest(decide=None), "a ab_test decides by None"),
        (lambda: ABTest(unit="flight"), "the unit of an A/B test is 'flight'"),
        (
            lambda: Deployment("late", route_by="carrier", strategy=ABTest(unit="request")),
            "splits its traffic by 'carrier'",
        ),
        (lambda: ABTest(decide=Metric("revenue", ORDERS, margin=1)), "metric 'revenue' of an A/B test has a margin"),
        (lambda: Shadow(decide=REVENUE), "a shadow is to be judged by 'revenue', which nothing that it says can move"),
    ],
)
def test_a_decision_that_cannot_be_taken_is_refused_where_it_is_declared(declare, said):
    with pytest.raises(BadDeployment, match=said):
        declare()


def test_a_metric_is_a_column_of_a_source_and_an_experiment_takes_it_in_place_of_labels():
    assert ABTest(decide=REVENUE).decide.better == "higher"
    assert Canary(decide=Metric("cost", ORDERS, better="lower", margin=0.5)).decide.margin == 0.5
    assert (ABTest().decide, Shadow().decide, Canary().decide) == ("labels", "labels", None)


def test_a_latency_that_no_bucket_tells_apart_is_refused_with_every_one_that_is():
    with pytest.raises(BadObjective, match="10, 25, 50, 100"):
        Objective(latency_ms=30)
