import pytest

from seatrial.features.definitions import BadDefinition
from seatrial.stats.bootstrap import Difference
from seatrial.training.gates import Evidence, Gate, ProjectGates, check_gates, check_waives, judge, not_passed


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


@pytest.mark.parametrize(
    ("gate", "value", "passed"),
    [
        (Gate.overfit_gap_at_most(0.16), 0.15, True),
        (Gate.overfit_gap_at_most(0.14), 0.15, False),
        (Gate.overfit_gap_at_most(0.2, "log_loss"), 0.2, True),
        (Gate.overfit_gap_at_most(0.19, "log_loss"), 0.2, False),
        (Gate.size_at_most(1000), 1000, True),
        (Gate.size_at_most("0.9 kB"), 1000, False),
        (Gate.latency_at_most(2.5), 2.5, True),
        (Gate.latency_at_most(2.4), 2.5, False),
    ],
)
def test_a_budget_passes_up_to_its_limit(gate, value, passed):
    seen = evidence(train_metrics={"roc_auc": 0.9, "log_loss": 0.3}, size=1000, latency_ms=2.5)
    result = only(gate, seen)
    assert (result.value, result.passed) == (pytest.approx(value), passed)


def test_a_fit_that_is_worse_where_it_learned_has_no_gap():
    assert only(Gate.overfit_gap_at_most(0.0), evidence(train_metrics={"roc_auc": 0.7})).passed


def test_what_was_not_measured_does_not_pass():
    for gate in (Gate.size_at_most(1), Gate.latency_at_most(1), Gate.overfit_gap_at_most(1)):
        assert only(gate, evidence()).passed is False
    by = only(Gate.slice_at_least("roc_auc", 0.1, by="carrier"), evidence())
    assert (by.passed, by.reason) == (False, "the training set has no column 'carrier' to look at")


@pytest.mark.parametrize(
    ("metric", "difference", "interval", "passed"),
    [
        ("roc_auc", 0.01, (-0.009, 0.03), True),
        ("roc_auc", 0.01, (-0.011, 0.03), False),  # better, but not shown to be no worse
        ("log_loss", -0.01, (-0.03, 0.009), True),  # lower is better
        ("log_loss", 0.02, (0.005, 0.035), False),
        ("roc_auc", 0.5, None, False),
    ],
)
def test_a_margin_to_the_champion_is_held_by_the_whole_interval(metric, difference, interval, passed):
    found = {metric: Difference(difference, interval)}
    seen = evidence(champion={metric: 0.5}, champion_name="late 3", differences=found)
    result = only(Gate.not_worse_than_champion(metric, margin=0.01), seen)
    assert (result.passed, result.threshold) == (passed, -0.01)
    assert "late 3" in result.reason
    if interval is not None:
        assert result.interval[0] <= result.value <= result.interval[1]


def test_a_margin_without_a_champion_passes_and_says_so():
    result = only(Gate.not_worse_than_champion("roc_auc", margin=0.01), evidence())
    assert (result.passed, result.reason) == (True, "no champion to compare with")


def test_a_gate_on_a_metric_tells_its_interval():
    result = only(Gate.at_least("roc_auc", 0.7), evidence(intervals={"roc_auc": (0.71, 0.79)}))
    assert result.as_plain()["interval"] == [0.71, 0.79]


def test_gates_of_the_project_come_first_and_only_where_the_task_has_their_metric():
    of_project = [Gate.at_least("r2", 0.9), Gate.at_most("log_loss", 0.4)]
    first, own = judge([Gate.at_least("roc_auc", 0.7)], evidence(), of_project=of_project)
    assert (str(first.gate), first.of_project, first.refuses) == ("log_loss at most 0.4", True, True)
    assert (own.of_project, own.refuses) == (False, False)


def test_a_waived_gate_is_judged_all_the_same_and_refuses_nothing():
    gate = Gate.at_most("log_loss", 0.4)
    (result,) = judge([], evidence(), of_project=[gate], waives={str(gate): "a pilot"})
    assert (result.passed, result.waived, result.refuses) == (False, "a pilot", False)
    error = not_passed("late", [result, *judge([Gate.at_least("roc_auc", 0.9)], evidence())], state="")
    assert "log_loss" not in str(error)


def test_a_waiver_cannot_reach_a_gate_of_the_models_own():
    gate = Gate.at_most("log_loss", 0.4)
    (result,) = judge([gate], evidence(), waives={str(gate): "no"})
    assert result.refuses


def test_a_waiver_of_a_gate_that_the_project_does_not_have_is_refused():
    with pytest.raises(BadDefinition, match=r"'roc_auc at least 0\.8'") as caught:
        check_waives("late", {"roc_auc at least 0.8": "why"}, [Gate.at_least("roc_auc", 0.7)])
    assert "Did you mean 'roc_auc at least 0.7'?" in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gate.slice_at_least("log_loss", 0.5, by="carrier"),
        lambda: Gate.slice_at_least("roc_auc", 0.5, by=""),
        lambda: Gate.slice_at_least("roc_auc", 0.5, by="carrier", min_rows=0),
        lambda: Gate.fairness_gap_at_most(0.1, by="sex", of="f1"),
        lambda: Gate.fairness_gap_at_most(-0.1, by="sex"),
        lambda: Gate.size_at_most("5 miles"),
        lambda: Gate.size_at_most(""),
        lambda: Gate.latency_at_most(-1),
        lambda: Gate.not_worse_than_champion("roc_auc", margin=-0.1),
        lambda: Gate.overfit_gap_at_most(0.1, "rocauc"),
        lambda: ProjectGates("roc_auc"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused_when_declared(make):
    with pytest.raises(BadDefinition):
        make()


@pytest.mark.parametrize(
    ("text", "size"), [("5 MB", 5e6), ("512KiB", 512 * 1024), ("1.5 mib", 1.5 * 1024**2), ("100", 100), ("7 B", 7)]
)
def test_a_size_is_written_as_people_write_it(text, size):
    assert Gate.size_at_most(text).value == size


def test_a_fairness_gap_is_only_for_decisions():
    with pytest.raises(BadDefinition, match="decisions"):
        check_gates([Gate.fairness_gap_at_most(0.1, by="sex")], "regression", cv_folds=5)


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (Gate.slice_at_least("roc_auc", 0.65, by="carrier"), "roc_auc at least 0.65 by carrier"),
        (Gate.slice_at_most("log_loss", 1, by="c", min_rows=50), "log_loss at most 1 by c from 50 rows"),
        (Gate.fairness_gap_at_most(0.1, by="sex"), "gap of positive_rate by sex at most 0.1"),
        (Gate.overfit_gap_at_most(0.1), "gap between training and test at most 0.1"),
        (Gate.size_at_most("5 MB"), "at most 5,000,000 bytes"),
        (Gate.latency_at_most(2), "a row scored in at most 2 ms"),
        (Gate.not_worse_than_champion("r2", margin=0.01), "r2 not worse than the champion by more than 0.01"),
    ],
)
def test_a_gate_reads_as_a_sentence_by_which_it_can_be_waived(gate, words):
    assert str(gate) == words


@pytest.mark.parametrize(("budget", "passed", "sure"), [(2.4, False, False), (2.6, True, False), (4, True, True)])
def test_a_latency_is_judged_by_the_median_of_the_rounds_and_says_how_sure_it_is(budget, passed, sure):
    seen = evidence(latency_ms=2.5, latency_range=(2.0, 3.0))
    (result,) = judge([Gate.latency_at_most(budget)], seen)
    assert result.passed is passed
    assert "2 to 3 over the rounds" in result.reason
    assert ("another try may decide otherwise" in result.reason) != sure
