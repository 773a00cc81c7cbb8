import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.core.clock import to_us
from seatrial.features.definitions import BadDefinition
from seatrial.training.model import Split
from seatrial.training.rows import OneClass, TooFewRows, TrainingRows, training_rows
from seatrial.training.split import SplitImpossible, folds, split, split_kind, summary
from tests.training.factories import HOUR, START, model, put, table


def known(declared, given):
    return training_rows(declared, given, cutoff_us=None)


@st.composite
def timed_rows(draw):
    """Rows with many ties in time, and labels that arrive late in any order."""
    count = draw(st.integers(30, 80))
    at = np.sort(draw(st.lists(st.integers(0, 30), min_size=count, max_size=count)))
    lags = np.array(draw(st.lists(st.integers(0, 8), min_size=count, max_size=count)))
    return TrainingRows(
        table=None, labels=np.arange(count) * 1.0, columns={}, at_us=at, known_us=at + lags, integers=(), counts={}
    )


def check_leaks_nothing(rows, parts):
    """By brute force: whatever is learned from was known when the first test row was predicted."""
    first = rows.at_us[parts.test].min()
    before = [index for index in range(rows.size) if rows.at_us[index] < first]
    assert set(parts.train) <= {index for index in before if rows.known_us[index] <= first}
    assert set(parts.purged) <= {index for index in before if rows.known_us[index] > first}
    return before


@settings(max_examples=80, deadline=None)
@given(timed_rows(), st.floats(0.1, 0.5))
def test_the_test_part_is_the_last_rows_and_nothing_learned_was_known_later(rows, share):
    declared = model(task="regression", split=Split(test_size=share))
    try:
        parts = split(declared, rows)
    except (TooFewRows, SplitImpossible):
        return
    before = check_leaks_nothing(rows, parts)
    assert sorted([*parts.train, *parts.purged]) == before
    assert sorted([*before, *parts.test]) == list(range(rows.size))
    assert parts.test.size >= round(rows.size * share)


@settings(max_examples=80, deadline=None)
@given(timed_rows(), st.integers(2, 5))
def test_forward_folds_learn_from_the_past_and_stay_within_the_training_part(rows, count):
    declared = model(task="regression", cv_folds=count)
    try:
        train = split(declared, rows).train
        made = folds(declared, rows, train)
    except (TooFewRows, SplitImpossible):
        return
    assert len(made) == count
    tested = []
    for parts in made:
        check_leaks_nothing(rows, parts)
        assert set(parts.train) | set(parts.test) | set(parts.purged) <= set(train)
        tested += list(parts.test)
    assert len(tested) == len(set(tested))
    assert max(train) in tested


def test_the_default_follows_the_data():
    assert split_kind(model(), known(model(), table())) == "time"
    untimed = model(timed=False)
    assert split_kind(untimed, known(untimed, table(timed=False))) == "stratified"
    values = model(timed=False, task="regression")
    assert split_kind(values, known(values, table(timed=False, task="regression"))) == "random"
    chosen = model(split=Split("random"))
    assert split_kind(chosen, known(chosen, table())) == "random"


def test_the_summary_counts_and_dates_both_parts():
    declared = model(split=Split(test_size=0.25))
    rows = known(declared, table(100, lag=3 * HOUR))
    told = summary(declared, rows, split(declared, rows))
    assert told["kind"] == "time"
    assert (told["train"]["rows"], told["purged"], told["test"]["rows"]) == (73, 2, 25)
    assert told["test"]["first_at"] == "2013-01-04T03:00:00Z"
    assert told["train"]["last_at"] == "2013-01-04T00:00:00Z"
    assert told["rows"]["given"] == 100


@pytest.mark.parametrize("kind", ["stratified", "random"])
def test_shuffled_parts_are_exact_and_repeatable(kind):
    declared = model(timed=False, split=Split(kind, 0.2), cv_folds=5)
    rows = known(declared, table(300, timed=False))
    parts, again = split(declared, rows), split(declared, rows)
    assert (parts.test == again.test).all()
    assert parts.test.size == pytest.approx(60, abs=1)
    assert sorted([*parts.train, *parts.test]) == list(range(300))
    made = folds(declared, rows, parts.train)
    assert sorted(index for fold in made for index in fold.test) == parts.train.tolist()
    assert max(fold.test.size for fold in made) - min(fold.test.size for fold in made) <= 2
    other = split(model(timed=False, split=Split(kind, 0.2), seed=7), rows)
    assert (other.test.size != parts.test.size) or (other.test != parts.test).any()


def test_stratified_parts_keep_the_share_of_positives():
    declared = model(timed=False, cv_folds=4)
    rows = known(declared, put(table(200, timed=False), "late", [True] * 20 + [False] * 180))
    parts = split(declared, rows)
    assert rows.labels[parts.test].sum() == 4
    assert [rows.labels[fold.test].sum() for fold in folds(declared, rows, parts.train)] == [4, 4, 4, 4]


def test_a_split_by_time_without_times_is_refused():
    declared = model(timed=False, split=Split("time"))
    with pytest.raises(SplitImpossible, match="its labels have none"):
        split(declared, known(declared, table(timed=False)))


def test_rows_of_one_instant_cannot_be_split_by_time():
    rows = table(40)
    rows = put(rows, "at", [START] * 40, rows.schema.field("at").type)
    with pytest.raises(SplitImpossible, match="all 40 rows of model 'late' are of one instant, 2013"):
        split(model(), known(model(), rows))


def test_a_part_with_one_class_is_refused():
    given = put(table(100), "late", [True, False] * 40 + [False] * 20)
    with pytest.raises(OneClass, match="test part leaves 20 test rows that are all 0"):
        split(model(), known(model(), given))


def test_a_fold_with_one_class_is_refused_by_number():
    declared = model(cv_folds=4)
    rows = known(declared, put(table(100), "late", [False] * 20 + [True, False] * 40))
    with pytest.raises(OneClass, match="fold 1 of 4"):
        folds(declared, rows, split(declared, rows).train)


def test_when_every_label_comes_too_late_the_refusal_counts_the_purged():
    rows = known(model(), table(40, lag=1000 * HOUR))
    assert rows.known_us.min() > to_us(START + 40 * HOUR)
    with pytest.raises(TooFewRows, match="32 rows were purged"):
        split(model(), rows)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(12, 60), st.floats(0.1, 0.5), st.integers(2, 5))
def test_a_group_is_never_in_two_parts_nor_in_two_folds(seed, groups, share, cv_folds):
    random = np.random.default_rng(seed)
    rows = 300
    customer = [f"C{number}" for number in random.integers(0, groups, rows)]
    late = (random.random(rows) < 0.5).tolist()
    declared = model(timed=False, split=Split("group", share, by="customer"), cv_folds=cv_folds, seed=seed)
    found = known(declared, put(table(rows, timed=False), "late", late).append_column("customer", [customer]))
    names = np.array(customer)
    parts = split(declared, found)
    assert set(names[parts.train]).isdisjoint(names[parts.test])
    assert sorted([*parts.train, *parts.test]) == list(range(rows))
    largest = max(np.unique(names, return_counts=True)[1])
    assert abs(parts.test.size - share * rows) <= largest
    made = folds(declared, found, parts.train)
    for fold in made:
        assert set(names[fold.train]).isdisjoint(names[fold.test])
    assert sorted(row for fold in made for row in fold.test) == sorted(parts.train)
    sizes = [fold.test.size for fold in made]
    assert max(sizes) - min(sizes) <= largest


def test_a_group_that_is_larger_than_the_test_part_is_learned_from():
    customer = ["big"] * 280 + [f"C{number % 20}" for number in range(120)]
    declared = model(timed=False, split=Split("group", 0.2, by="customer"))
    for seed in range(5):
        found = known(
            model(timed=False, split=declared.split, seed=seed),
            table(400, timed=False).append_column("customer", [customer]),
        )
        parts = split(declared, found)
        assert "big" not in {customer[row] for row in parts.test}
        assert 70 <= parts.test.size <= 80


def test_groups_may_be_numbers_or_dictionaries_and_another_seed_draws_others():
    customer = [number % 40 for number in range(400)]
    given = table(400, timed=False)
    tested = []
    for values in (pa.array(customer), pa.array([f"{one}" for one in customer]).dictionary_encode()):
        for seed in (1, 2):
            declared = model(timed=False, split=Split("group", by="customer"), seed=seed)
            parts = split(declared, known(declared, given.append_column("customer", values)))
            tested.append({customer[row] for row in parts.test})
            assert len(tested[-1]) == 8
    assert tested[0] != tested[1]


def test_rows_without_a_group_and_too_few_groups_are_refused():
    declared = model(timed=False, split=Split("group", by="customer"), cv_folds=5)
    given = table(100, timed=False)
    with pytest.raises(SplitImpossible, match="null in 1 of 100"):
        split(declared, known(declared, given.append_column("customer", [[None, *["a", "b"] * 49, "a"]])))
    few = known(declared, given.append_column("customer", [["a", "b", "c", "d"] * 25]))
    with pytest.raises(SplitImpossible, match="3 values"):
        folds(declared, few, split(declared, few).train)
    with pytest.raises(SplitImpossible, match="'customer'"):
        split(declared, known(declared, given))


@pytest.mark.parametrize("arguments", [("group",), ("time", 0.2, "customer"), ("group", 0.2, "")])
def test_a_group_needs_its_column_and_no_other_split_takes_one(arguments):
    with pytest.raises(BadDefinition, match="by="):
        Split(*arguments)


def test_a_group_that_is_a_list_is_refused():
    given = table(100).append_column("tags", pa.array([["a"], ["b"]] * 50))
    declared = model(split=Split("group", by="tags"))
    with pytest.raises(SplitImpossible, match="'tags', which the rows are grouped by, is list"):
        split(declared, known(declared, given))
