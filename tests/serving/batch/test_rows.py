"""Batch rows: what the service answers to the same rows, to the last bit; and a reason where it answers nothing."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from seatrial.features.plan import FeaturePlan
from seatrial.releases import golden
from seatrial.releases.bundle import GOLDEN, MODEL, open_bundle, pack
from seatrial.releases.manifest import Lineage, Manifest, file_entries
from seatrial.releases.named import open_graph
from seatrial.releases.onnx_export import to_onnx
from seatrial.releases.parity import compare
from seatrial.releases.runtime import Runtime
from seatrial.serving.batch.rows import BatchColumnMissing, BatchColumnWrongType, RowScorer
from seatrial.serving.meters.metrics import Metrics
from seatrial.serving.scoring.predictor import Predictor, Share
from seatrial.serving.scoring.stored import answers_of
from tests.releases.test_named_export import columns as named_columns
from tests.releases.test_named_export import native as named_native
from tests.releases.test_named_export import rows as named_rows
from tests.releases.test_named_export import signature as named_signature
from tests.serving.worlds import DOUBLED, Keys, bundle, columns


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def plain(keys):
    return bundle(keys.key)


@pytest.fixture(scope="module")
def with_function(keys):
    return bundle(keys.key, plan=DOUBLED)


def scorer(keys, data):
    return RowScorer(open_bundle(data, keys.trusted))


def table(rows=400, seed=5, **changes):
    found = {name: values for name, values in columns(rows, seed).items() if name != "doubled"}
    random = np.random.default_rng(seed)
    found["distance"] = pa.array(found["distance"], mask=random.random(rows) < 0.1)
    found["carrier"] = [
        None if random.random() < 0.1 else "ZZ" if random.random() < 0.1 else one for one in found["carrier"]
    ]
    return pa.table(found | changes)


def served(keys, data, rows):
    """The service's answers to rows, one in a request."""
    predictor = Predictor("late", [Share("live", keys.open(data))], metrics=Metrics(), log=None)
    return [predictor.handle(json.dumps({"features": row}).encode()) for row in rows.to_pylist()]


@pytest.mark.parametrize("which", ["plain", "with_function"])
def test_answers_are_those_of_the_service_to_the_last_bit(keys, which, request):
    data = request.getfixturevalue(which)
    rows = table()
    answers = scorer(keys, data).answer(rows)
    wanted = [json.loads(one.body) for one in served(keys, data, rows)]
    assert answers.columns["probability"].to_pylist() == [one["probability"] for one in wanted]
    assert answers.columns["prediction"].to_pylist() == [one["prediction"] for one in wanted]


def test_a_linear_model_is_scored_row_by_row_because_its_last_bits_hang_on_the_batch(keys, plain):
    made = scorer(keys, plain)
    found = open_bundle(plain, keys.trusted)
    runtime = found.runtime()
    assert isinstance(runtime, Runtime)
    assert made.alone


def test_rows_that_the_service_refuses_have_a_reason_and_the_others_an_answer(keys, plain):
    rows = table(
        8,
        distance=[1.0, float("inf"), 1e39, -1e39, 5.0, 6.0, None, 8.0],
        seats=pa.array([1, 2, 3, 4, 2**24 + 1, None, 7, 8], pa.int64()),
        carrier=["AA", "AA", "AA", "AA", "AA", "AA", "ZZ", None],
    )
    answers = scorer(keys, plain).answer(rows)
    good = [answer.status == 200 for answer in served(keys, plain, rows.slice(4))]
    assert good == [False, False, True, True]
    assert answers.places.tolist() == [0, 6, 7]
    assert answers.bad.told() == {
        "'distance' is an infinity or a number beyond float32": 3,
        "'seats' is an integer beyond 2^24": 1,
        "'seats' is null": 1,
    }


def test_whole_numbers_may_come_as_floats_and_fractions_are_refused(keys, plain):
    rows = table(3, seats=[100.0, 100.5, 200.0])
    answers = scorer(keys, plain).answer(rows)
    assert answers.bad.told() == {"'seats' is no whole number": 1}
    assert (
        answers.columns["probability"].to_pylist()
        == scorer(keys, plain).answer(table(3, seats=[100, 100, 200]).take([0, 2])).columns["probability"].to_pylist()
    )


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.decimal128(9, 2), pa.int32()])
def test_numbers_may_be_of_any_width(keys, plain, kind):
    values = pa.array([100.0, 250.0, 512.0, 1000.0]).cast(kind)
    same = scorer(keys, plain).answer(table(4, distance=[100.0, 250.0, 512.0, 1000.0]))
    assert scorer(keys, plain).answer(table(4, distance=values)).columns == same.columns


def test_text_may_be_coded(keys, plain):
    rows = table(50)
    coded = rows.set_column(rows.column_names.index("carrier"), "carrier", rows["carrier"].dictionary_encode())
    assert scorer(keys, plain).answer(coded).columns == scorer(keys, plain).answer(rows).columns


def test_a_column_that_is_made_by_a_function_may_be_given(keys, with_function):
    made = scorer(keys, with_function)
    rows = table(20)
    given = rows.append_column("doubled", pa.array([0.0] * 20)).drop(["distance"])
    assert made.needs(rows.schema).functions == ("doubled",)
    assert made.needs(given.schema).functions == ()
    assert made.answer(given).columns != made.answer(rows).columns


def test_no_rows_have_no_answers(keys, plain):
    answers = scorer(keys, plain).answer(table(1).slice(0, 0))
    assert {name: len(column) for name, column in answers.columns.items()} == {"prediction": 0, "probability": 0}


def test_what_is_missing_is_told_by_name(keys, plain):
    with pytest.raises(BatchColumnMissing, match="seats") as error:
        scorer(keys, plain).needs(table(1).rename_columns(["distance", "sets", "carrier", "night"]).schema)
    assert "'sets'" in error.value.expected


@pytest.mark.parametrize(
    ("name", "values"),
    [("distance", ["1"]), ("seats", [True]), ("night", [1]), ("carrier", [1]), ("distance", [[1.0]])],
)
def test_a_column_of_another_type_is_told(keys, plain, name, values):
    with pytest.raises(BatchColumnWrongType, match=name):
        scorer(keys, plain).needs(table(1, **{name: values}).schema)


# -- every kind of release


def packed_bundle(key, signature, native, rows, exported):
    runtime = open_graph(exported, signature)
    files = {MODEL: exported, GOLDEN: golden.record(signature.task, rows, runtime)}
    manifest = Manifest(
        model="late",
        version=1,
        semantic_version="1.0.0",
        explanation="the first",
        signature=signature,
        plan=FeaturePlan(),
        threshold=0.5 if signature.task == "binary" else None,
        estimator="sklearn.pipeline.Pipeline",
        parameters={},
        parity=compare(native, exported, rows, signature),
        metrics={},
        gates=(),
        lineage=Lineage(),
        files=file_entries(files),
    )
    return pack(manifest, files, key)


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@pytest.mark.parametrize(
    ("encoder", "task"),
    [("one hot", "binary"), ("one hot", "multiclass"), ("one hot", "regression"), ("ordinal that refuses", "binary")],
)
def test_a_release_of_named_inputs_is_answered_as_the_service_does(keys, encoder, task):
    signature, native = named_signature(task), named_native(encoder, task)
    data = packed_bundle(keys.key, signature, native, named_rows(), to_onnx(native, 6, signature))
    given = {name: list(values[:120]) for name, values in named_columns().items()}
    given["city"][7] = "never seen"
    rows = pa.table({name: pa.array(values, from_pandas=True) for name, values in given.items()})
    answers = scorer(keys, data).answer(rows)
    told = served(keys, data, rows)
    assert answers.places.tolist() == [place for place, one in enumerate(told) if one.status == 200]
    wanted = [json.loads(one.body) for one in told if one.status == 200]
    assert answers_of(pa.table(answers.columns)) == [(one["prediction"], one["probability"]) for one in wanted]
    assert bool(answers.bad.told()) == ("refuses" in encoder)
