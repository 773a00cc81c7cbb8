import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from seatrial.training.gates import Gate
from seatrial.training.rows import TrainingColumnMissing
from seatrial.training.slices import NotSliced
from tests.training.factories import model, put, run, table


def by_name(found):
    return {one["value"]: one for one in found["slices"]}


def with_region(rows=1000, **columns):
    given = table(rows)
    region = np.random.default_rng(1).choice(["north", "south", "west"], rows, p=[0.6, 0.35, 0.05]).tolist()
    return given.append_column("region", pa.array(region))


def test_each_slice_is_measured_by_itself_with_its_rows():
    fitted = run(model(slices=["region"]), with_region())
    found = by_name(fitted.slices["region"])
    tested = with_region().slice(800)
    labels, scores = np.array(fitted.test_scores["label"]), np.array(fitted.test_scores["score"])
    for name, one in found.items():
        inside = np.array(tested["region"]) == name
        assert one["rows"] == inside.sum()
        assert one["metrics"]["roc_auc"] == pytest.approx(roc_auc_score(labels[inside], scores[inside]))
        assert one["positive_rate"] == pytest.approx((scores[inside] >= 0.5).mean())
    assert sum(one["rows"] for one in found.values()) == 200
    assert list(found) == ["north", "south", "west"]  # the largest first


def test_the_worst_slice_is_named_and_small_ones_are_flagged_but_never_named():
    given = with_region(3000)
    late = given["late"].to_pylist()
    wrong = {"south": lambda late, number: number % 2 == 0, "west": lambda late, _: not late}
    region = given["region"].to_pylist()
    muddled = [
        wrong.get(name, lambda late, _: late)(one, n) for n, (one, name) in enumerate(zip(late, region, strict=True))
    ]
    found = run(model(slices=["region"]), put(given, "late", muddled)).slices["region"]
    assert (found["worst"], found["metric"]) == ("south", "roc_auc")
    assert by_name(found)["west"]["too_few"] is True
    assert by_name(found)["west"]["metrics"]["roc_auc"] < by_name(found)["south"]["metrics"]["roc_auc"]


def test_numbers_are_cut_into_quarters_of_the_training_part_and_few_of_them_are_values():
    found = run(model(slices=["distance", "stops"]), table(1000)).slices
    edges = np.quantile(np.array(table(1000)["distance"])[:798], [0.25, 0.5, 0.75])
    assert by_name(found["distance"]).keys() == {
        f"up to {edges[0]:g}",
        f"{edges[0]:g} to {edges[1]:g}",
        f"{edges[1]:g} to {edges[2]:g}",
        f"above {edges[2]:g}",
    }
    assert by_name(found["stops"]).keys() == {"0", "1", "2", "3"}


def test_quarters_whose_edges_look_alike_stay_four_slices():
    seconds = 1_700_000_000 + np.random.default_rng(0).integers(0, 1000, 1000)
    found = run(model(slices=["started"]), table(1000).append_column("started", pa.array(seconds))).slices["started"]
    edges = np.quantile(seconds[:798], [0.25, 0.5, 0.75])
    tested = np.searchsorted(edges, seconds[800:])
    assert sorted(one["rows"] for one in found["slices"]) == sorted(np.bincount(tested))
    assert len(by_name(found)) == 4
    apart = [float(name.split()[2]) for name in by_name(found) if name.startswith("up to")]
    assert apart == pytest.approx(edges[:1], abs=50)


def test_missing_values_are_a_slice_and_rare_ones_are_one_together():
    names = [None if number % 4 == 0 else f"A{number % 150}" for number in range(1000)]
    given = table(1000).append_column("agent", pa.array(names))
    found = by_name(run(model(slices=["agent"]), given).slices["agent"])
    assert found["(missing)"]["rows"] == 50
    assert len(found) == 50
    assert found["(other)"]["rows"] > 50
    assert found["(other)"]["metrics"]["roc_auc"] is not None


def test_bools_and_dictionaries_are_values_too():
    given = table(1000)
    given = given.append_column("weekend", pa.array([number % 7 > 4 for number in range(1000)]))
    given = given.append_column("kind", pa.array(["a", "b"] * 500).dictionary_encode())
    found = run(model(slices=["weekend", "kind"]), given).slices
    assert by_name(found["weekend"]).keys() == {"true", "false"}
    assert by_name(found["kind"]).keys() == {"a", "b"}


def test_a_slice_of_one_class_has_no_area_and_says_so():
    given = table(1000)
    given = given.append_column("outcome", pc_text(given["late"]))
    found = by_name(run(model(slices=["outcome"]), given).slices["outcome"])
    assert found["yes"]["metrics"]["roc_auc"] is None
    assert found["yes"]["metrics"]["accuracy"] is not None


def pc_text(column):
    return pa.array(["yes" if one else "no" for one in column.to_pylist()])


def test_a_slice_by_a_column_that_is_not_there_is_refused_by_name():
    with pytest.raises(TrainingColumnMissing, match="'regoin'") as caught:
        run(model(slices=["regoin"]), with_region())
    assert "Did you mean 'region'?" in str(caught.value)


def test_a_regression_is_sliced_by_its_main_metric():
    declared = model(task="regression", estimator="sklearn.linear_model.LinearRegression", slices=["carrier"])
    found = run(declared, table(1000, task="regression")).slices["carrier"]
    assert found["metric"] == "r2"
    assert "positive_rate" not in found["slices"][0]


def test_a_floor_for_every_slice_names_the_worst_and_counts_those_that_are_too_small():
    gate = Gate.slice_at_least("roc_auc", 0.99, by="region", min_rows=50)
    (result,) = run(model(gates=[gate]), with_region()).gates
    assert result.passed is False
    assert "test rows, the worst) is 0." in result.reason
    assert "1 values have too few rows" in result.reason
    assert run(model(gates=[Gate.slice_at_least("roc_auc", 0.6, by="region", min_rows=50)]), with_region()).passed
    (none,) = run(model(gates=[Gate.slice_at_least("roc_auc", 0.6, by="region", min_rows=900)]), with_region()).gates
    assert (none.passed, none.value) == (False, None)


def test_a_fairness_gap_is_the_largest_difference_between_groups():
    fitted = run(model(gates=[Gate.fairness_gap_at_most(0.0, by="region", of="recall", min_rows=50)]), with_region())
    (result,) = fitted.gates
    recalls = [one["metrics"]["recall"] for one in fitted.slices["region"]["slices"] if one["rows"] >= 50]
    assert result.value == pytest.approx(max(recalls) - min(recalls))
    assert result.passed is False
    rates = run(model(gates=[Gate.fairness_gap_at_most(1.0, by="region", min_rows=50)]), with_region())
    assert rates.passed
    shares = [one["positive_rate"] for one in rates.slices["region"]["slices"] if one["rows"] >= 50]
    assert rates.gates[0].value == pytest.approx(max(shares) - min(shares))
    (alone,) = run(model(gates=[Gate.fairness_gap_at_most(1.0, by="region", min_rows=110)]), with_region()).gates
    assert "two are compared" in alone.reason
    assert alone.passed is False


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([["a"], ["b"]] * 500, "is list"),
        ([{"a": 1}, {"a": 2}] * 500, "is struct"),
        ([b"ab", b"\xff\xfe"] * 500, "is bytes that are no UTF-8"),
    ],
)
def test_a_column_without_plain_values_is_refused_before_anything_is_fitted(values, words):
    given = table(1000).append_column("tags", pa.array(values))
    stages = []
    with pytest.raises(NotSliced, match=f"sliced by 'tags', which {words}"):
        run(model(slices=["tags"]), given, progress=lambda stage, done, total: stages.append(stage))
    assert "fit" not in stages


def test_bytes_that_are_text_are_slices():
    given = table(1000).append_column("code", pa.array([b"ab", b"cd"] * 500))
    assert by_name(run(model(slices=["code"]), given).slices["code"]).keys() == {"ab", "cd"}
