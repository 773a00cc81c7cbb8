"""Pipelines over named columns as ONNX: every encoder, against the pipeline itself."""

from __future__ import annotations

from functools import cache

import msgspec
import numpy as np
import pytest
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from seatrial.core.signature import NamedRows, Signature, encode
from seatrial.core.types import Field
from seatrial.releases import golden, parity
from seatrial.releases.golden import GoldenUnreadable, read_golden
from seatrial.releases.named import MISSING, NamedRuntime, UnseenNotAccepted, open_graph
from seatrial.releases.native import capture, given
from seatrial.releases.onnx_export import ExportFailed, to_onnx
from seatrial.releases.runtime import MissingNotAccepted, WrongShape
from seatrial.releases.supervised import SupervisedRuntime

NUMBERS, STRINGS = ("income", "age", "month"), ("city", "job", "score")
ORDINAL = {"handle_unknown": "use_encoded_value"}
ENCODERS = {
    "one hot": OneHotEncoder(handle_unknown="ignore"),
    "one hot that refuses": OneHotEncoder(),
    "one hot without the first": OneHotEncoder(handle_unknown="ignore", drop="first"),
    "one hot of the frequent": OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=30),
    "filled by the most frequent": make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    ),
    "filled by a word": make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore")
    ),
    "ordinal": OrdinalEncoder(**ORDINAL, unknown_value=-1),
    "ordinal with a code for missing": OrdinalEncoder(**ORDINAL, unknown_value=np.nan, encoded_missing_value=-2),
    "ordinal that refuses": OrdinalEncoder(),
    "target": TargetEncoder(),
}


@cache
def columns():
    random = np.random.default_rng(5)
    rows = 400

    def holed(values):
        column = np.empty(rows, dtype=object)
        column[:] = values
        column[random.random(rows) < 0.1] = None
        return column

    return {
        "income": random.normal(3000, 500, rows),
        "age": np.where(random.random(rows) < 0.1, np.nan, random.normal(40, 9, rows)),
        "month": random.integers(1, 6, rows).astype(float),
        "city": holed(random.choice(["Ulm", "Kiel", "nan", "", "Jülich"], rows)),
        "job": holed(random.choice(["cook", "nurse"], rows)),
        "score": holed([f"s{value}" for value in random.integers(0, 40, rows)]),
    }


def signature(task="binary"):
    fields = tuple(Field(name, "category" if name in STRINGS else "float") for name in columns())
    known = {name: tuple(sorted({value for value in columns()[name] if value is not None})) for name in STRINGS}
    classes = ("a", "b", "c") if task == "multiclass" else ()
    return Signature(task, fields, tuple(columns()), known, classes=classes, layout="named")


@cache
def rows() -> NamedRows:
    return encode(signature(), columns())[0]


def labels(task="binary"):
    value = (
        np.nan_to_num(columns()["age"]) / 40
        + (columns()["job"] == "cook")
        + (columns()["city"] == "Kiel")
        + np.random.default_rng(6).normal(size=400)
    )
    if task == "regression":
        return value
    return np.digitize(value, [1.5]) if task == "binary" else np.digitize(value, [1.0, 2.0])


def pipeline(encoder, task="binary"):
    last = Ridge() if task == "regression" else LogisticRegression(max_iter=500)
    return make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), ["income", "age"]),
            (encoder, list(STRINGS)),
            ("passthrough", ["month"]),
        ),
        SimpleImputer(),
        last,
    )


@cache
def native(name="one hot", task="binary"):
    return capture(pipeline(ENCODERS[name], task).fit(given(rows()), labels(task)), task)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_every_encoder_answers_like_itself_for_missing_and_unknown_values_too(name):
    found = parity.compare(native(name), to_onnx(native(name), 6, signature()), rows(), signature())
    assert found.passed, found.worst
    assert found.largest < 1e-6
    assert bool(found.refuses_unseen) == ("refuses" in name)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
@pytest.mark.parametrize("name", ["one hot", "target"])
def test_other_tasks_are_exported_too(name, task):
    model = to_onnx(native(name, task), 6, signature(task))
    found = parity.compare(native(name, task), model, rows(), signature(task))
    assert found.passed, found.worst


def test_numbers_are_categories_too_when_an_encoder_takes_them():
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["month", "age"]))
    kept = capture(make_pipeline(encoder, LogisticRegression()).fit(given(rows()), labels()), "binary")
    assert parity.compare(kept, to_onnx(kept, 6, signature()), rows(), signature()).passed


def test_columns_that_a_function_chose_are_kept_by_name():
    chosen = make_column_transformer(
        (SimpleImputer(), make_column_selector(dtype_include=float)),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include=object)),
    )
    kept = capture(make_pipeline(chosen, RandomForestClassifier(5)).fit(given(rows()), labels()), "binary")
    assert parity.compare(kept, to_onnx(kept, 6, signature()), rows(), signature()).passed


def test_a_column_that_nothing_reads_is_still_an_input_of_the_graph():
    narrow = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["job"]))
    kept = capture(make_pipeline(narrow, LogisticRegression()).fit(given(rows()), labels()), "binary")
    runtime = open_graph(to_onnx(kept, 6, signature()), signature())
    np.testing.assert_allclose(runtime.score(rows()), kept.scorer()(rows()), atol=1e-6)


def test_the_same_pipeline_gives_the_same_bytes():
    again = capture(pipeline(ENCODERS["one hot"]).fit(given(rows()), labels()), "binary")
    assert to_onnx(native(), 6, signature()) == to_onnx(again, 6, signature())


def test_many_categories_stay_a_small_graph():
    values = np.empty(3000, dtype=object)
    values[:] = [f"category {number}" for number in range(3000)]
    wide = NamedRows({"city": values})
    known = Signature("binary", (Field("city", "category"),), ("city",), {"city": tuple(values)}, layout="named")
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]))
    kept = capture(make_pipeline(encoder, LogisticRegression()).fit(given(wide), np.arange(3000) % 2), "binary")
    model = to_onnx(kept, 1, known)
    assert len(model) < 200_000
    assert parity.compare(kept, model, wide, known).passed


def test_what_cannot_be_asked_value_by_value_is_not_exported():
    with_indicator = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none", add_indicator=True),
        OneHotEncoder(handle_unknown="ignore"),
    )
    kept = capture(pipeline(with_indicator).fit(given(rows()), labels()), "binary")
    with pytest.raises(ExportFailed, match="add_indicator"):
        to_onnx(kept, 6, signature())


def test_a_pipeline_without_an_onnx_form_answers_in_a_child_process_by_name():
    with_indicator = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none", add_indicator=True),
        OneHotEncoder(handle_unknown="ignore"),
    )
    kept = capture(pipeline(with_indicator).fit(given(rows()), labels()), "binary")
    child = SupervisedRuntime(kept.format, kept.data, kept.task, 6, no_missing=[0])
    try:
        np.testing.assert_array_equal(child.score(rows()[:9]), kept.scorer()(rows()[:9]))
        with pytest.raises(MissingNotAccepted, match="input 0"):
            child.score(NamedRows(rows().columns | {"income": np.full(400, np.nan, dtype=np.float32)}))
        with pytest.raises(WrongShape, match="1 columns"):
            child.score(NamedRows({"income": rows().columns["income"]}))
    finally:
        child.close()


def test_what_the_estimator_refuses_the_runtime_refuses():
    name = "one hot that refuses"
    model = to_onnx(native(name), 6, signature())
    runtime = open_graph(model, signature(), no_missing=[4], no_unseen=["city"])
    strange = NamedRows(rows().columns | {"city": np.full(400, "Atlantis", dtype=object)})
    with pytest.raises(UnseenNotAccepted, match="'city' of row 0"):
        runtime.score(strange[:1])
    with pytest.raises(MissingNotAccepted, match="input 4"):
        runtime.score(rows())
    assert isinstance(runtime, NamedRuntime)
    assert runtime.score(rows()[:0]).shape == (0,)
    with pytest.raises(WrongShape):
        runtime.score(np.zeros((1, 6), dtype=np.float32))


def test_the_string_for_a_missing_value_is_no_text():
    assert MISSING == "\ufdd0"
    assert MISSING not in {value for name in STRINGS for value in columns()[name]}


def test_golden_rows_keep_strings_and_numbers_as_the_model_takes_them():
    runtime = open_graph(to_onnx(native(), 6, signature()), signature())
    data = golden.record("binary", rows(), runtime, most=50)
    kept = read_golden(data)
    assert kept.format == 2
    np.testing.assert_array_equal(runtime.score(kept.given()), kept.wanted())
    assert any(value is None for value in kept.given().columns["city"])
    short = msgspec.structs.replace(kept, columns=kept.columns | {"city": kept.columns["city"][1:]})
    with pytest.raises(GoldenUnreadable, match="do not fit"):
        short.given()
