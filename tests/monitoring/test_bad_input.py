"""What reality sends, for each of the three tasks: each has a stated result, nothing raises, nothing is silently ok."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from seatrial.core.clock import to_us
from seatrial.core.windows import Window
from seatrial.monitoring.imported import monitor_log
from seatrial.monitoring.monitor import NO_REFERENCE
from seatrial.monitoring.pages.page import html

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 14
COUNT = 1400
END_US = to_us(START + timedelta(days=DAYS))
WEEK = Window(END_US - 7 * 86_400_000_000, END_US)
CLASSES = ("early", "late", "on time")
TASKS = ("binary", "multiclass", "regression")
MAP = 'model = "trips"\ntimestamp = "t"\nlabel = "outcome"\nlabel_known_at = "told"\nprediction_id = "id"\n'
MAP += 'features = ["wind", "carrier"]\n'
OF_TASK = {
    "binary": 'task = "binary"\nscore = "score"\n',
    "multiclass": 'task = "multiclass"\n[probabilities]\nearly = "p0"\nlate = "p1"\n"on time" = "p2"\n',
    "regression": 'task = "regression"\nscore = "score"\n',
}


def log(task, seed=1):
    """Two weeks of predictions that come true as often as they say; and their labels, told an hour later."""
    random = np.random.default_rng(seed)
    at = [START + timedelta(days=DAYS * n / COUNT) for n in range(COUNT)]
    wind = random.normal(size=COUNT)
    columns = {
        "id": [f"p{n}" for n in range(COUNT)],
        "t": pa.array(at, pa.timestamp("us", tz="UTC")),
        "wind": wind,
        "carrier": random.choice(["AA", "UA"], COUNT).tolist(),
    }
    if task == "binary":
        score = 1 / (1 + np.exp(-wind))
        columns |= {"score": score}
        outcome = (random.random(COUNT) < score).astype(float).tolist()
    elif task == "regression":
        score = 10 + 3 * wind
        columns |= {"score": score}
        outcome = (score + random.normal(size=COUNT)).tolist()
    else:
        table = np.exp(np.column_stack([wind, -wind, np.zeros(COUNT)]))
        table /= table.sum(axis=1, keepdims=True)
        columns |= {f"p{place}": table[:, place] for place in range(3)}
        outcome = [CLASSES[random.choice(3, p=row)] for row in table]
    told = pa.table({"id": columns["id"], "outcome": outcome, "told": [one + timedelta(hours=1) for one in at]})
    return pa.table(columns), told.set_column(2, "told", told["told"].cast(pa.timestamp("us", tz="UTC")))


def replaced(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def other(task, values):
    """Labels that say something else."""
    if task == "multiclass":
        return [CLASSES[(CLASSES.index(one) + 1) % 3] for one in values]
    return [1 - one for one in values] if task == "binary" else [one + 5 for one in values]


def last_week(table):
    return np.arange(table.num_rows) >= COUNT // 2


def in_last_week(table, name, value):
    """The column with one value in the last week."""
    kept = table[name].to_pylist()
    return replaced(table, name, [value if now else one for now, one in zip(last_week(table), kept, strict=True)])


def scores(task):
    return ("p0", "p1", "p2") if task == "multiclass" else ("score",)


def no_labels(task, rows, told):
    return rows, told.slice(0, 0)


def labels_first(task, rows, told):
    early = pc.subtract(told["told"], pa.scalar(timedelta(hours=2)))
    return rows, told.set_column(2, "told", early)


def labels_twice(task, rows, told):
    return rows, pa.concat_tables([told, told])


def labels_that_contradict(task, rows, told):
    later = pc.add(told["told"], pa.scalar(timedelta(hours=1)))
    again = replaced(told, "outcome", other(task, told["outcome"].to_pylist())).set_column(2, "told", later)
    return rows, pa.concat_tables([told, again])


def labels_of_others(task, rows, told):
    return rows, replaced(told, "id", [f"q{n}" for n in range(told.num_rows)])


def empty_window(task, rows, told):
    return rows.slice(0, COUNT // 2), told.slice(0, COUNT // 2)


def one_row(task, rows, told):
    return pa.concat_tables([rows.slice(0, COUNT // 2), rows.slice(COUNT - 1)]), told


def one_row_ever(task, rows, told):
    return rows.slice(COUNT - 1), told.slice(COUNT - 1)


def one_outcome(task, rows, told):
    return rows, replaced(told, "outcome", [told["outcome"][0].as_py()] * told.num_rows)


def one_score(task, rows, told):
    for name in scores(task):
        rows = replaced(rows, name, [1 / 3 if task == "multiclass" else 0.5] * COUNT)
    return rows, told


def constant_inputs(task, rows, told):
    return replaced(replaced(rows, "wind", [1.0] * COUNT), "carrier", ["AA"] * COUNT), told


def stuck_input(task, rows, told):
    return in_last_week(rows, "wind", 1.0), told


def missing_input(task, rows, told):
    return in_last_week(rows, "wind", None), told


def missing_inputs(task, rows, told):
    return in_last_week(in_last_week(rows, "wind", None), "carrier", None), told


def missing_scores(task, rows, told):
    for name in scores(task):
        rows = in_last_week(rows, name, None)
    return rows, told


def unseen_category(task, rows, told):
    return in_last_week(rows, "carrier", "ZZ"), told


NO_REGRESSION = "there is no estimate for a regression"
CASES = {
    # case: (what happens to the data, the verdict, what the report says somewhere)
    "nothing is wrong": (lambda task, rows, told: (rows, told), "ok", "99 % of this window's labels have arrived"),
    "no labels ever": (no_labels, "unknown", "none of its 700 predictions has a label yet"),
    "labels before their predictions": (labels_first, "unknown", "695 labels were known before their predictions"),
    "labels told twice": (labels_twice, "ok", "696 labels told again with the same value; each counts once"),
    "labels that contradict": (
        labels_that_contradict,
        {"binary": "unknown", "multiclass": "act", "regression": "act"},
        "692 labels told otherwise before",
    ),
    "labels of other predictions": (labels_of_others, "unknown", "700 labels were told that belong to no known"),
    "an empty window": (empty_window, "unknown", "there are no predictions in this window"),
    "one row": (one_row, "unknown", "not enough data: 1 of 200 rows"),
    "one row ever": (one_row_ever, "unknown", "its only prediction has no label yet"),
    "one outcome": (
        one_outcome,
        {"binary": "act", "multiclass": "ok", "regression": "unknown"},
        {
            "binary": "roc_auc is not defined: all 696 labels are 1",
            "multiclass": "not every metric is defined: all 696 labels are 'late'",
            "regression": "all labels are equal, so the gap has no unit",
        },
    ),
    "one score": (
        one_score,
        {"binary": "watch", "multiclass": "watch", "regression": "act"},
        {"binary": "predictions moved", "multiclass": "predictions", "regression": "predictions have moved"},
    ),
    "constant inputs": (constant_inputs, "watch", "input 'carrier' moved"),
    "an input that is stuck": (stuck_input, "watch", "input 'wind' moved"),
    "an input that is missing": (missing_input, "act", "values there of 'wind': 100.0% missing of 700"),
    "all inputs missing": (missing_inputs, "act", "values there of 'carrier': 100.0% missing of 700"),
    "all scores missing": (missing_scores, "act", "scores there: 700 of 700 without"),
    "an unseen category": (unseen_category, "act", "of 'carrier': 100.0% of values never seen before"),
}


def report(folder, task, case, *, compared=True):
    """The report on the second week; the first week is the reference."""
    rows, told = CASES[case][0](task, *log(task))
    for name, table in (("log", rows), ("told", told), ("reference", log(task)[0].slice(0, COUNT // 2))):
        pq.write_table(table, folder / f"{name}.parquet")
    (folder / "map.toml").write_text(MAP + OF_TASK[task])
    return monitor_log(
        folder / "log.parquet",
        folder / "map.toml",
        folder / "reference.parquet" if compared else None,
        labels=folder / "told.parquet",
        as_of_us=END_US,
        window=WEEK,
    )


def of(task, told):
    return told[task] if isinstance(told, dict) else told


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("case", CASES)
def test_there_is_a_stated_result(tmp_path, task, case):
    found = report(tmp_path, task, case)
    _, verdict, words = CASES[case]
    assert found.verdict == of(task, verdict), found.headline
    assert of(task, words) in " ".join([found.headline, *found.findings])
    assert found.next
    # each section has figures, or says why it has none
    assert found.performance.labelled or found.performance.note
    assert any(value is not None for value in found.performance.metrics.values()) or found.performance.note
    assert found.concept.words
    assert found.calibration.gap is not None or found.calibration.note
    assert found.slices.worst or found.slices.looked_at or found.slices.note
    assert found.estimate.metrics or found.estimate.note
    assert all(column.value is not None or column.note for column in found.drift.columns)
    if task == "regression":
        assert NO_REGRESSION in found.estimate.note
    # what leaves it is whole: the page, and numbers that JSON has
    assert found.headline.split("'")[0] in html(found)
    assert "NaN" not in msgspec.json.encode(found).decode()


@pytest.mark.parametrize("task", TASKS)
def test_without_a_profile_it_says_that_nobody_looked_whether_the_inputs_moved(tmp_path, task):
    found = report(tmp_path, task, "nothing is wrong", compared=False)
    assert "the inputs were not compared, there is no reference" in found.headline
    assert NO_REFERENCE in found.findings


@pytest.mark.parametrize("task", TASKS)
def test_every_part_of_the_report_is_there_for_each_task(tmp_path, task):
    """But for the estimate of a regression, which cannot be made from what the log holds, and says so."""
    found = report(tmp_path, task, "nothing is wrong")
    main = {"binary": "roc_auc", "multiclass": "roc_auc", "regression": "mae"}[task]
    low, high = found.performance.intervals[main]
    assert low < found.performance.metrics[main] < high
    assert found.calibration.slope == pytest.approx(1, abs=0.35)
    assert found.calibration.slope_interval[0] < 1 < found.calibration.slope_interval[1]
    assert found.concept.verdict == "same"
    assert found.slices.looked_at > 0
    if task == "regression":
        assert found.estimate.note.startswith(NO_REGRESSION)
    else:
        low, high = found.estimate.intervals[main]
        assert low < found.performance.metrics[main] < high
        assert found.estimate.blind


def test_figures_of_several_classes_are_not_told_in_the_words_of_two(tmp_path):
    page = html(report(tmp_path, "multiclass", "nothing is wrong"))
    assert "mean over classes (recall)" in page
    assert "always saying the classes" in page
    assert "it called positive" not in page
    assert "it called positive" in html(report(tmp_path, "binary", "nothing is wrong"))
