import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, mean_pinball_loss, recall_score, roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from seatrial.core.clock import to_us
from seatrial.core.identity import canonical_json
from seatrial.core.signature import encode
from seatrial.features.definitions import BadDefinition
from seatrial.training.estimator import EstimatorFailed, MissingValuesNotTaken
from seatrial.training.gates import Gate
from seatrial.training.model import Split
from seatrial.training.pipeline import ALL_ROWS_US, ChampionNotComparable, ChampionScores
from seatrial.training.rows import OneClass
from seatrial.training.threshold import Costs
from tests.training.factories import HISTOGRAM, HOUR, LIGHTGBM, LOGISTIC, START, TIME, model, put, run, table

SMALL = {"n_estimators": 20}


def scores_of(fitted):
    return fitted.native.scorer()(fitted.parity_rows)


def test_the_test_part_is_measured_by_a_fit_that_never_saw_it():
    fitted = run(model(), table())
    labels = np.array(fitted.test_scores["label"])
    scores = np.array(fitted.test_scores["score"])
    assert fitted.metrics["roc_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert fitted.test_scores.num_rows == 80
    assert fitted.test_scores["flight"].to_pylist() == [f"F{number:05}" for number in range(320, 400)]

    train = table().slice(0, 318)  # hours 318 and 319 had no label at hour 320
    assert fitted.split["purged"] == 2
    codes = {"AA": 0.0, "BB": 1.0, "ZZ": 2.0}
    inputs = np.column_stack(
        [train["distance"], [codes[name] for name in train["carrier"].to_pylist()], train["stops"]]
    )
    by_hand = LogisticRegression(random_state=42).fit(inputs.astype(np.float32), np.array(train["late"]).astype(int))
    expected = by_hand.predict_proba(fitted.parity_rows[:80])[:, 1]
    assert scores == pytest.approx(expected, abs=1e-9)


def test_the_refit_learns_from_every_known_row_and_its_own_categories():
    given = put(table(), "carrier", ["AA"] * 390 + ["NEW"] * 10)  # seen in the test part only
    fitted = run(model(estimator=LIGHTGBM, params=SMALL), given)
    assert fitted.split["unseen"] == {"carrier": 10}
    assert fitted.signature.categories == {"carrier": ("AA", "NEW")}
    assert fitted.split["refit_rows"] == 400
    assert fitted.parity_rows.shape == (400, 3)
    assert fitted.parity_rows.dtype == np.float32
    assert "training part" in fitted.metrics_of


def test_parity_rows_are_the_test_rows_then_the_rest_encoded_with_the_signature():
    given = table()
    fitted = run(model(), given)
    order = [*range(320, 400), *range(320)]
    columns = {name: given[name].take(pa.array(order)).to_pylist() for name in fitted.signature.inputs}
    inputs, _ = encode(fitted.signature, columns)
    assert (inputs == fitted.parity_rows).all()
    assert fitted.signature.integers == ("stops",)


def test_cross_validation_sees_training_rows_only():
    declared = model(timed=False, cv_folds=4, split=Split("random"))
    given = table(timed=False)
    first = run(declared, given)
    tested = set(first.test_scores["flight"].to_pylist())
    rows = zip(given["flight"].to_pylist(), given["late"].to_pylist(), strict=True)
    second = run(declared, put(given, "late", [late != (flight in tested) for flight, late in rows]))
    assert second.metrics["roc_auc"] != first.metrics["roc_auc"]
    assert second.cv == first.cv


def test_cross_validation_is_of_the_size_that_scikit_learn_finds():
    fitted = run(model(timed=False, cv_folds=5), table(2000, timed=False))
    given = table(2000, timed=False)
    inputs = np.column_stack([given["distance"], (np.array(given["carrier"]) == "ZZ") * 1.0, given["stops"]])
    expected = cross_val_score(LogisticRegression(), inputs, np.array(given["late"]), cv=5, scoring="roc_auc")
    assert fitted.cv.mean["roc_auc"] == pytest.approx(expected.mean(), abs=0.02)
    values = [fold.metrics["roc_auc"] for fold in fitted.cv.folds]
    assert fitted.cv.mean["roc_auc"] == pytest.approx(np.mean(values))
    assert fitted.cv.std["roc_auc"] == pytest.approx(np.std(values))


def test_a_label_known_after_the_cut_off_changes_nothing():
    cutoff = to_us(START + 300 * HOUR)
    given = table()
    flipped = [late if hour < 298 else not late for hour, late in enumerate(given["late"].to_pylist())]
    first = run(model(), given, cutoff_us=cutoff)
    second = run(model(), put(given, "late", flipped), cutoff_us=cutoff)
    assert first.split == second.split
    assert first.metrics == second.metrics
    assert (scores_of(first) == scores_of(second)).all()


def test_when_a_gate_refuses_nothing_is_refitted():
    gates = [Gate.at_least("roc_auc", 0.999), Gate.cv_std_at_most(0.2), Gate.cv_gap_at_most(0.2)]
    fitted = run(model(gates=gates), table())
    assert [result.passed for result in fitted.gates] == [False, True, True]
    assert fitted.passed is False
    assert fitted.native is None
    assert fitted.split["refit_rows"] == 0
    assert "refit" not in fitted.timings


def test_the_champion_is_compared_on_the_same_test_rows():
    seen = []

    def perfect(rows):
        seen.append(rows["flight"].to_pylist())
        return np.where(np.array(rows["late"]), 0.99, 0.01)

    declared = model(gates=[Gate.not_worse_than_champion("log_loss")])
    fitted = run(declared, table(), champion=ChampionScores("late 1", perfect))
    assert seen == [fitted.test_scores["flight"].to_pylist()]
    (result,) = fitted.gates
    assert result.passed is False
    assert result.threshold == pytest.approx(-np.log(0.99))
    constant = ChampionScores("late 1", lambda rows: np.full(rows.num_rows, 0.5))
    assert run(declared, table(), champion=constant).passed
    assert run(declared, table()).gates[0].reason == "no champion to compare with"


def test_a_champion_is_not_asked_about_rows_that_it_has_learned_from():
    """A release is refitted on its own test part; to compare on these rows would refuse every successor."""
    declared = model(gates=[Gate.not_worse_than_champion("log_loss"), Gate.not_worse_than_champion("roc_auc")])
    own = run(model(), table(1000))
    asked = []

    def perfect(rows):
        asked.append(rows.num_rows)
        return np.where(np.array(rows["late"]), 0.99, 0.01)

    champion = ChampionScores("late 1", perfect, learned_until_us=ALL_ROWS_US, metrics=own.metrics)
    same = run(declared, table(1000), champion=champion)
    assert asked == []
    assert [(one.passed, one.value) for one in same.gates] == [(True, one.threshold) for one in same.gates]
    assert "on its own test part, since it has learned from these" in same.gates[0].reason
    better = {"log_loss": own.metrics["log_loss"] - 0.001, "roc_auc": own.metrics["roc_auc"] + 0.001}
    champion = ChampionScores("late 1", perfect, learned_until_us=ALL_ROWS_US, metrics=better)
    assert [one.passed for one in run(declared, table(1000), champion=champion).gates] == [False, False]


def test_both_are_compared_on_the_test_rows_that_the_champion_has_not_learned_from():
    gates = [Gate.not_worse_than_champion("log_loss"), Gate.not_worse_than_champion("log_loss", margin=0.01)]
    given = table(2000)
    whole = run(model(), given).test_scores
    known = np.array(whole["label_known_at"].cast(pa.int64()))
    until = int(np.sort(known)[150])
    new = known > until
    asked = []

    def own(rows):
        asked.append(rows["flight"].to_pylist())
        return whole["score"].to_numpy()[new]

    fitted = run(model(gates=gates), given, champion=ChampionScores("late 1", own, learned_until_us=until))
    assert asked == [whole.filter(pa.array(new))["flight"].to_pylist()]
    by_value, by_margin = fitted.gates
    assert (
        by_value.value
        == by_value.threshold
        == pytest.approx(log_loss(whole["label"].to_numpy()[new], whole["score"].to_numpy()[new]))
    )
    assert f"on the {new.sum()} of {new.size} test rows that it has not learned from" in by_value.reason
    assert (by_margin.value, by_margin.interval, by_margin.passed) == (0.0, (0.0, 0.0), True)


def test_beside_the_champions_own_test_part_a_margin_needs_two_independent_intervals():
    declared = model(gates=[Gate.not_worse_than_champion("log_loss", margin=10)])
    own = run(model(), table(1000))
    of = own.intervals["of"]
    given = {"learned_until_us": ALL_ROWS_US, "metrics": own.metrics, "intervals": of}
    (result,) = run(declared, table(1000), champion=ChampionScores("late 1", len, **given)).gates
    low, high = of["log_loss"]
    value = own.metrics["log_loss"]
    wide = np.hypot(value - low, high - value)
    assert (result.value, result.passed) == (0.0, True)
    assert result.interval == pytest.approx((-wide, wide))
    without = given | {"intervals": {}}
    (result,) = run(declared, table(1000), champion=ChampionScores("late 1", len, **without)).gates
    assert result.passed is False


def test_a_champion_that_does_not_score_every_row_is_an_error():
    declared = model(gates=[Gate.not_worse_than_champion("log_loss")])
    for wrong in (np.full(3, 0.5), np.full(80, np.nan)):
        with pytest.raises(ChampionNotComparable, match="late 1"):
            run(declared, table(), champion=ChampionScores("late 1", lambda rows, wrong=wrong: wrong))


def test_regression_runs_the_same_way():
    gates = [Gate.at_least("r2", 0.5), Gate.at_most("rmse", 2), Gate.cv_std_at_most(0.3)]
    declared = model(task="regression", estimator="sklearn.linear_model.LinearRegression", gates=gates)
    fitted = run(declared, table(task="regression"))
    assert fitted.passed
    assert set(fitted.metrics) == {"r2", "mae", "rmse", "quantile_loss"}
    assert fitted.baseline["rmse"] > fitted.metrics["rmse"]
    assert fitted.baseline["r2"] <= 0


def test_the_baseline_is_the_training_parts_mean_as_a_constant():
    fitted = run(model(), table())
    assert fitted.baseline["roc_auc"] == 0.5
    rate, test = fitted.split["train"]["label_mean"], fitted.split["test"]["label_mean"]
    assert fitted.baseline["log_loss"] == pytest.approx(-(test * np.log(rate) + (1 - test) * np.log(1 - rate)))


def test_missing_values_name_the_columns_and_an_imputer_mends_it():
    given = put(table(), "distance", [None, *table()["distance"].to_pylist()[1:]])
    with pytest.raises(MissingValuesNotTaken, match="distance"):
        run(model(), given)
    assert run(model(estimator=make_pipeline(SimpleImputer(), LogisticRegression())), given).passed
    assert run(model(estimator=LIGHTGBM, params=SMALL), given).passed


def test_an_estimator_that_gives_up_half_way_fails_in_its_own_words():
    told = []
    declared = model(estimator="sklearn.neighbors.KNeighborsClassifier", params={"n_neighbors": 150})
    with pytest.raises(EstimatorFailed, match="ValueError: Expected n_neighbors <= n_samples_fit"):
        run(declared, table(), progress=lambda *call: told.append(call))
    assert told[-1] == ("cross-validate", 0, 3)


def test_progress_and_timings_name_every_stage_in_order():
    told = []
    fitted = run(model(cv_folds=3), table(), progress=lambda *call: told.append(call))
    stages = ["rows", "fit", "repeat", "evaluate", "cross-validate", "measure", "judge", "refit", "profile"]
    assert list(fitted.timings) == stages
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == stages
    assert [call for call in told if call[0] == "cross-validate"][:4] == [("cross-validate", n, 3) for n in range(4)]


def test_what_a_run_keeps_is_plain_and_readable_json():
    fitted = run(model(gates=[Gate.at_least("roc_auc", 0.6)]), table(), cutoff_us=to_us(START + 399 * HOUR))
    plain = json.loads(canonical_json(fitted.as_plain()))
    assert plain["format"] == 1
    assert plain["metrics"]["roc_auc"] == fitted.metrics["roc_auc"]
    assert plain["gates"][0]["passed"] is True
    assert plain["estimator"]["class"].endswith("LogisticRegression")
    assert json.loads(canonical_json(fitted.profile))["rows"] == 397


def test_an_input_that_never_changes_is_warned_of():
    fitted = run(model(), put(table(), "stops", [1] * 400))
    assert "input 'stops' has the same value in every row" in fitted.warnings


def test_labels_of_which_one_kind_is_known_first_are_warned_of():
    rows, end = table(2000), START + 2000 * HOUR
    happened, at = rows["late"].to_numpy(zero_copy_only=False), rows["at"].to_pylist()

    def warned(hours_of):
        known = [time + hours_of(one) * HOUR for time, one in zip(at, happened, strict=True)]
        fitted = run(model(cv_folds=0), put(rows, "label_known_at", known, TIME), cutoff_us=to_us(end))
        return [one for one in fitted.warnings if "mislead" in one]

    (told,) = warned(lambda late: 2 if late else 200)
    assert told.startswith("labels that are known first mislead: 100% of the newest ")
    assert f"rows are 1, {happened[:1800].mean():.0%} of the older ones" in told
    assert "known after 2h and another after 8d8h; let `label_known_at` be when either could be known" in told
    assert warned(lambda late: 200) == warned(lambda late: 2) == warned(lambda late: 3 if late else 2) == []


def test_labels_without_times_need_no_clock():
    declared = model(timed=False, cv_folds=0, key=[])
    fitted = run(declared, table(timed=False))
    assert fitted.cv is None
    assert fitted.split["kind"] == "stratified"
    assert fitted.test_scores.column_names == ["label", "score"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": ["request:late"]}, "target 'late'"),
        ({"features": ["request:distance", "request:distance"]}, "twice"),
        ({"threads": 0}, "threads"),
        ({"seed": -1}, "seed"),
        ({"gates": [Gate.at_least("r2", 0.1)]}, "r2"),
        ({"cv_folds": 0, "gates": [Gate.cv_gap_at_most(0.1)]}, "cv_folds=0"),
    ],
)
def test_a_model_that_cannot_work_is_refused_when_declared(changes, words):
    with pytest.raises(BadDefinition, match=words):
        model(**changes)


@pytest.mark.parametrize("arguments", [("tme",), ("time", 0.0), ("time", 1.0)])
def test_a_split_that_cannot_be_is_refused_when_declared(arguments):
    with pytest.raises(BadDefinition):
        Split(*arguments)


KINDS = {
    LIGHTGBM: {"n_estimators": 20, "subsample": 0.5, "subsample_freq": 1},
    HISTOGRAM: {"max_iter": 20},
    LOGISTIC: {},
}


def everything_that_was_learned():
    """Scores, bit by bit, and metrics of one fit of each kind."""
    lines = []
    for estimator, params in KINDS.items():
        fitted = run(model(estimator=estimator, params=params), table())
        lines += [scores_of(fitted).tobytes().hex(), f"{fitted.metrics} {fitted.cv.mean}"]
    return lines


def test_a_fit_in_a_fresh_process_gives_the_same_predictions_bit_by_bit():
    root = Path(__file__).parents[2]
    script = "from tests.training.test_pipeline import *; print(*everything_that_was_learned(), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": f"{root / 'src'}:{root}", "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    np.random.seed(99)  # what ran before in this process must not matter
    assert done.stdout.splitlines() == everything_that_was_learned()


def test_another_seed_gives_another_model():
    params = SMALL | {"subsample": 0.5, "subsample_freq": 1}
    first = run(model(estimator=LIGHTGBM, params=params), table())
    second = run(model(estimator=LIGHTGBM, params=params, seed=7), table())
    assert (scores_of(first) != scores_of(second)).any()


def test_costs_choose_a_threshold_that_the_test_rows_have_no_say_in():
    declared = model(timed=False, split=Split("random"), costs=Costs(false_positive=1, false_negative=8), cv_folds=4)
    given = table(timed=False)
    first = run(declared, given)
    assert first.threshold["value"] < 0.4
    assert first.threshold["rows"] == 320
    tested = set(first.test_scores["flight"].to_pylist())
    rows = zip(given["flight"].to_pylist(), given["late"].to_pylist(), strict=True)
    second = run(declared, put(given, "late", [late != (flight in tested) for flight, late in rows]))
    assert second.threshold["value"] == first.threshold["value"]
    assert second.threshold["cost"] == first.threshold["cost"]
    assert second.threshold["test_cost"] > first.threshold["test_cost"]


def test_decisions_are_measured_at_the_chosen_threshold():
    fitted = run(model(costs=Costs(1, 8)), table())
    labels, scores = np.array(fitted.test_scores["label"]), np.array(fitted.test_scores["score"])
    decided = scores >= fitted.threshold["value"]
    assert fitted.metrics["recall"] == pytest.approx(recall_score(labels, decided))
    assert fitted.confusion["true_positive"] == (decided & (labels == 1)).sum()
    assert fitted.threshold["test_cost"] == pytest.approx(
        ((decided & (labels == 0)).sum() + 8 * (~decided & (labels == 1)).sum()) / labels.size
    )
    assert fitted.threshold["test_cost"] < fitted.threshold["test_cost_at_half"]


def test_without_costs_decisions_are_at_one_half_and_say_so():
    fitted = run(model(), table())
    assert fitted.threshold == {"value": 0.5, "chosen_on": "nothing: no costs are stated"}
    regression = model(task="regression", estimator="sklearn.linear_model.LinearRegression")
    assert run(regression, table(task="regression")).threshold is None


def test_intervals_hold_the_metrics_and_say_what_was_drawn():
    fitted = run(model(), table(1000))
    assert (fitted.intervals["unit"], fitted.intervals["clusters"]) == ("6 hours", 34)
    for name, (low, high) in fitted.intervals["of"].items():
        assert low <= fitted.metrics[name] <= high
    alone = run(model(timed=False), table(timed=False))
    assert (alone.intervals["unit"], alone.intervals["clusters"]) == ("row", 80)


def test_rows_of_a_group_are_drawn_together():
    given = table(400, timed=False).append_column("customer", [[number % 50 for number in range(400)]])
    fitted = run(model(timed=False, split=Split("group", by="customer")), given)
    assert (fitted.intervals["unit"], fitted.intervals["clusters"]) == ("customer", 10)
    assert fitted.intervals["few"] is True
    assert fitted.split["kind"] == "group"


def test_a_quantile_is_measured_by_its_own_loss():
    declared = model(
        task="regression",
        estimator="sklearn.linear_model.QuantileRegressor",
        params={"quantile": 0.9, "alpha": 0.0},
        quantile=0.9,
    )
    fitted = run(declared, put(table(task="regression"), "carrier", ["AA", "BB"] * 200))
    labels, scores = np.array(fitted.test_scores["label"]), np.array(fitted.test_scores["score"])
    assert fitted.metrics["quantile_loss"] == pytest.approx(mean_pinball_loss(labels, scores, alpha=0.9))


def test_the_champion_within_a_margin_is_compared_in_blocks_of_time():
    declared = model(gates=[Gate.not_worse_than_champion("log_loss", margin=0.05)])
    own = run(model(), table(1000)).test_scores["score"].to_numpy()
    same = run(declared, table(1000), champion=ChampionScores("late 1", lambda rows: own))
    (result,) = same.gates
    assert (result.value, result.interval, result.passed) == (0.0, (0.0, 0.0), True)
    better = np.where(np.array(table(1000)["late"])[800:], 0.99, 0.01)
    (result,) = run(declared, table(1000), champion=ChampionScores("late 1", lambda rows: better)).gates
    assert result.passed is False
    assert result.interval[1] < -0.05


def test_budgets_are_measured_only_when_a_gate_asks():
    gates = [Gate.latency_at_most(60_000), Gate.size_at_most("1 MB"), Gate.overfit_gap_at_most(0.5)]
    fitted = run(model(gates=gates), table())
    latency, size, gap = fitted.gates
    assert fitted.passed
    assert latency.value > 0
    assert "over the rounds; of the trained estimator on this machine, not of the ONNX form" in latency.reason
    assert size.value == pytest.approx(len(fitted.native.data), rel=0.1)
    assert gap.value is not None
    assert run(model(gates=[Gate.latency_at_most(0), Gate.size_at_most(1)]), table()).passed is False


def test_gates_of_the_project_are_judged_and_a_waiver_is_kept_with_its_reason():
    of_project = [Gate.at_least("roc_auc", 0.999), Gate.at_least("r2", 0.5)]
    assert run(model(), table(), of_project=of_project).passed is False
    waived = run(model(waives={str(of_project[0]): "a pilot until May"}), table(), of_project=of_project)
    assert waived.passed
    (result,) = waived.as_plain()["gates"]
    assert (result["passed"], result["waived"], result["of_project"]) == (False, "a pilot until May", True)


def test_a_gate_of_the_project_on_a_column_that_a_model_lacks_does_not_pass():
    fitted = run(model(), table(), of_project=[Gate.slice_at_least("roc_auc", 0.1, by="region")])
    assert fitted.passed is False
    assert "no column 'region'" in fitted.gates[0].reason


def test_turning_cross_validation_off_gets_nobody_around_a_gate_of_the_project():
    assert run(model(cv_folds=0), table(), of_project=[Gate.cv_std_at_most(1)]).passed is False


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"costs": Costs(1, 5), "cv_folds": 0}, "cv_folds=0"),
        ({"costs": Costs(1, 5), "task": "regression"}, "regression"),
        ({"costs": 5}, "costs"),
        ({"slices": "carrier"}, "slices"),
        ({"quantile": 1.0}, "quantile 1.0"),
        ({"waives": {"roc_auc at least 0.7": " "}}, "without a reason"),
        ({"waives": ["roc_auc at least 0.7"]}, "waives"),
    ],
)
def test_what_cannot_be_measured_is_refused_when_declared(changes, words):
    with pytest.raises(BadDefinition, match=words):
        model(**changes)


def test_a_rare_target_trains_with_every_figure_that_it_defines():
    rare = [number % 1000 == 0 for number in range(20_000)]
    given = put(table(20_000, timed=False), "late", rare)
    fitted = run(model(timed=False, estimator=LIGHTGBM, params=SMALL, slices=["carrier"]), given)
    assert fitted.split["test"]["label_mean"] == 0.001
    assert fitted.metrics["roc_auc"] is not None
    assert fitted.intervals["of"]["log_loss"] is not None
    with pytest.raises(OneClass, match="639 training rows that are all 0"):
        run(model(timed=False), put(table(800, timed=False), "late", [number == 0 for number in range(800)]))


def test_several_classes_are_measured_sliced_and_judged_the_same_way():
    names = np.array(["early", "on time", "late"])[np.arange(2400) % 3]
    given = put(table(2400, timed=False), "late", names.tolist())
    declared = model(
        timed=False,
        task="multiclass",
        slices=["carrier"],
        gates=[Gate.slice_at_most("log_loss", 5, by="carrier", min_rows=10), Gate.overfit_gap_at_most(0.5)],
    )
    fitted = run(declared, given)
    assert fitted.passed
    assert (fitted.threshold, fitted.calibration) == (None, [])
    assert fitted.confusion["classes"] == ["early", "late", "on time"]
    assert np.sum(fitted.confusion["counts"]) == 480
    assert np.trace(fitted.confusion["counts"]) == pytest.approx(480 * fitted.metrics["accuracy"])
    low, high = fitted.intervals["of"]["roc_auc"]
    assert low <= fitted.metrics["roc_auc"] <= high
    assert fitted.slices["carrier"]["worst"] is not None
    assert fitted.permutation["inputs"].keys() == {"distance", "carrier", "stops"}
    assert fitted.repeatable["same"] is True
