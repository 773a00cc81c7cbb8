import msgspec
import numpy as np
import pytest

from seatrial.core.identity import canonical_json
from seatrial.releases import golden
from seatrial.releases.bundle import Bundle
from seatrial.releases.golden import FORMAT, Golden, GoldenMismatch, GoldenUnreadable, choose, read_golden, replay
from seatrial.releases.manifest import release_id
from seatrial.releases.native import capture
from seatrial.releases.onnx_export import to_onnx
from seatrial.releases.runtime import Runtime
from tests.releases.factories import CLASSIFIERS, exported, labels, manifest_and_files, rows


def bundle_with(data):
    manifest, files = manifest_and_files()
    return Bundle(release_id(manifest), manifest, files | {"golden.json": data}, "key_1", 0)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_model_that_was_packed_agrees_with_its_golden_rows(name):
    runtime = Runtime(exported(name))
    assert replay(bundle_with(golden.record("binary", rows(), runtime)), Runtime(exported(name))) == 200


def test_values_are_replayed_too():
    runtime = Runtime(exported("hist", "regression"))
    assert replay(bundle_with(golden.record("regression", rows(), runtime)), runtime) == 200


def test_another_model_disagrees_with_the_golden_rows():
    data = golden.record("binary", rows(), Runtime(exported("hist")))
    with pytest.raises(GoldenMismatch, match=r"golden row \d+"):
        replay(bundle_with(data), Runtime(exported("lightgbm")))


def test_a_single_score_that_moved_by_two_millionths_is_found():
    runtime = Runtime(exported("hist"))
    kept = read_golden(golden.record("binary", rows(), runtime))
    scores = list(kept.scores)
    scores[17] += 2e-6
    moved = canonical_json(msgspec.structs.replace(kept, scores=tuple(scores)))
    with pytest.raises(GoldenMismatch, match=r"golden row 17 .*; 1 of 200"):
        replay(bundle_with(moved), runtime)


def test_golden_rows_are_the_rows_bit_by_bit():
    kept = read_golden(golden.record("binary", rows()[:50], Runtime(exported("hist"))))
    assert kept.matrix().tobytes() == rows()[:50].tobytes()


def test_golden_rows_reach_over_all_scores_and_hold_missing_values():
    scores = Runtime(exported("hist")).score(rows())
    chosen = choose(rows(), scores)
    assert len(chosen) == len(set(chosen)) == 200
    assert (scores[chosen].min(), scores[chosen].max()) == (scores.min(), scores.max())
    assert np.isnan(rows()[chosen]).any(axis=1).sum() >= 50
    deciles = np.quantile(scores, np.linspace(0.1, 0.9, 9))
    assert np.bincount(np.searchsorted(deciles, scores[chosen]), minlength=10).min() >= 10


def test_rare_rows_with_missing_values_are_all_kept():
    few = rows(missing=False).copy()
    few[[3, 700], 1] = np.nan
    assert {3, 700} <= set(choose(few, Runtime(exported("hist")).score(few)).tolist())


def test_rows_that_the_estimator_refuses_are_not_golden():
    from sklearn.linear_model import LogisticRegression

    plain = capture(LogisticRegression(max_iter=3000).fit(rows(missing=False), labels()), "binary")
    runtime = Runtime(to_onnx(plain, 4), no_missing=range(4))
    assert not np.isnan(read_golden(golden.record("binary", rows(), runtime)).matrix()).any()


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: b"{}",
        lambda kept: canonical_json(msgspec.structs.replace(kept, format=FORMAT + 1)),
        lambda kept: canonical_json(msgspec.structs.replace(kept, scores=kept.scores[1:])),
        lambda kept: canonical_json(msgspec.structs.replace(kept, rows="!")),
        lambda kept: canonical_json(Golden(1, "binary", 4, "", ())),
    ],
)
def test_golden_rows_that_cannot_be_read_are_refused(damage):
    runtime = Runtime(exported("hist"))
    kept = read_golden(golden.record("binary", rows(), runtime))
    with pytest.raises(GoldenUnreadable):
        replay(bundle_with(damage(kept)), runtime)
