"""What a project file can say about a deployment."""

from __future__ import annotations

import pytest

from seatrial.core.declared import collecting
from seatrial.core.errors import NotInThisVersion
from seatrial.deployment.definition import ABTest, BadDeployment, BlueGreen, Canary, Deployment, Shadow


def test_a_deployment_is_named_after_its_model_and_moves_all_traffic_at_once():
    with collecting() as declared:
        deployment = Deployment("late")
    assert declared == [deployment]
    assert (deployment.name, deployment.strategy, deployment.route_by) == ("late", BlueGreen(), None)
    assert Deployment("late", name="late-eu").name == "late-eu"


@pytest.mark.parametrize("strategy", [lambda: Canary([5, 25, 100]), ABTest, Shadow])
def test_a_planned_strategy_says_what_there_is_instead(strategy):
    with pytest.raises(NotInThisVersion, match="not in this version") as error:
        strategy()
    assert "BlueGreen()" in str(error.value)


def test_what_is_no_strategy_is_refused():
    with pytest.raises(BadDeployment, match="str"):
        Deployment("late", strategy="canary")
    with pytest.raises(BadDeployment, match="on_store_failure"):
        Deployment("late", on_store_failure="hope")
