import pytest

from seatrial.features.definitions import BadDefinition
from seatrial.training.gates import Evidence, Gate, check_gates, judge, not_passed


def evidence(**changes):
    given = {
        "task": "binary",
        "metrics": {"roc_auc": 0.75, "log_loss": 0.5, "f1": None},
        "cv_mean": {"roc_auc": 0.80},
        "cv_std": {"roc_auc": 0.04},
    }
    return Evidence(**(given | changes))


def only(gate, seen):
    (result,) = judge([gate], seen)
    return result


@pytest.mark.parametrize(
    ("gate", "value", "passed"),
    [
        (Gate.at_least("roc_auc", 0.75), 0.75, True),
        (Gate.at_least("roc_auc", 0.7500001), 0.75, False),
        (Gate.at_most("log_loss", 0.5), 0.5, True),
        (Gate.at_most("log_loss", 0.49), 0.5, False),
        (Gate.cv_std_at_most(0.04), 0.04, True),
        (Gate.cv_std_at_most(0.03), 0.04, False),
        (Gate.cv_gap_at_most(0.06), pytest.approx(0.05), True),
        (Gate.cv_gap_at_most(0.04), pytest.approx(0.05), False),
    ],
)
def test_a_gate_passes_on_its_threshold_and_tells_what_it_saw(gate, value, passed):
    result = only(gate, evidence())
    assert (result.value, result.passed) == (value, passed)
    assert result.threshold == gate.value
    assert f"{result.threshold:g}" in result.reason


def test_the_gap_counts_in_both_directions():
    optimistic = evidence(cv_mean={"roc_auc": 0.70})
    assert only(Gate.cv_gap_at_most(0.04), optimistic).passed is False


def test_a_metric_that_is_not_defined_never_passes():
    result = only(Gate.at_least("f1", 0.0), evidence())
    assert (result.passed, result.value) == (False, None)
    assert "not defined" in result.reason


def test_without_a_champion_the_comparison_passes_and_says_so():
    result = only(Gate.not_worse_than_champion("log_loss"), evidence())
    assert (result.passed, result.threshold) == (True, None)
    assert "no champion" in result.reason


@pytest.mark.parametrize(
    ("metric", "champion", "passed"),
    [("log_loss", 0.5, True), ("log_loss", 0.49, False), ("roc_auc", 0.75, True), ("roc_auc", 0.76, False)],
)
def test_not_worse_means_what_is_better_for_the_metric(metric, champion, passed):
    seen = evidence(champion={metric: champion}, champion_name="late 3")
    result = only(Gate.not_worse_than_champion(metric), seen)
    assert (result.passed, result.threshold) == (passed, champion)
    assert "late 3" in result.reason


def test_an_unknown_metric_is_refused_when_declared_with_the_known_ones_listed():
    with pytest.raises(BadDefinition) as caught:
        Gate.at_least("roc_acu", 0.7)
    assert "Did you mean 'roc_auc'?" in str(caught.value)
    assert "log_loss" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.7", None, True])
def test_a_threshold_must_be_a_finite_number(value):
    with pytest.raises(BadDefinition):
        Gate.at_least("roc_auc", value)


def test_a_gate_in_the_wrong_direction_is_refused_with_the_right_one():
    with pytest.raises(BadDefinition, match="at least") as caught:
        Gate.at_least("log_loss", 0.7)
    assert "Gate.at_most('log_loss'" in str(caught.value)


def test_a_gate_that_its_model_can_never_satisfy_is_refused():
    with pytest.raises(BadDefinition, match="r2"):
        check_gates([Gate.at_least("r2", 0.1)], "binary", cv_folds=5)
    with pytest.raises(BadDefinition, match="cv_folds=0"):
        check_gates([Gate.cv_std_at_most(0.1)], "binary", cv_folds=0)


def test_a_refusal_names_the_gates_that_failed_and_exits_3():
    gates = [Gate.at_least("roc_auc", 0.7), Gate.at_most("log_loss", 0.4)]
    error = not_passed("late", judge(gates, evidence()), state="Run run_1 is kept; no version was made.")
    assert error.exit_code == 3
    assert "1 of 2" in str(error)
    assert "log_loss of the test part is 0.5 > 0.4" in str(error)
    assert "roc_auc" not in str(error)
    assert "Run run_1 is kept" in str(error)


def test_results_are_plain_values():
    (result,) = judge([Gate.at_least("roc_auc", 0.7)], evidence())
    assert result.as_plain() == {
        "gate": "roc_auc at least 0.7",
        "kind": "at_least",
        "metric": "roc_auc",
        "value": 0.75,
        "threshold": 0.7,
        "interval": None,
        "passed": True,
        "reason": "roc_auc of the test part is 0.75 >= 0.7",
        "of_project": False,
        "waived": "",
    }
