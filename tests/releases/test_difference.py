"""Two releases beside each other: what differs, and whether they answer alike."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from seatrial.releases import bundle as bundles
from seatrial.releases import golden
from seatrial.releases.bundle import open_bundle, pack
from seatrial.releases.difference import compare
from seatrial.releases.manifest import file_entries
from seatrial.releases.runtime import Runtime
from seatrial.releases.signing import signing_key
from tests.releases.factories import INPUTS, exported, manifest_and_files, rows


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return signing_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def make(key):
    """A bundle of the logistic model after changes of its manifest and files."""

    def made(files=None, **changes):
        manifest, own = manifest_and_files()
        own = own | (files or {})
        manifest = msgspec.structs.replace(manifest, files=file_entries(own), **changes)
        return open_bundle(pack(manifest, own, key), {key.keyid: key.public})

    return made


def lineage(**changes):
    return msgspec.structs.replace(manifest_and_files()[0].lineage, **changes)


def groups(found):
    return {one.group for one in found.changed}


def test_a_release_is_identical_with_itself(make):
    found = compare(make(), make())
    assert (found.verdict, found.equal, found.same_model, found.changed) == ("identical", True, True, [])


def test_a_build_in_another_environment_is_equal_and_says_so(make):
    lock = {bundles.LOCK: b"numpy==2.4.1\nscipy==1.18\n"}
    found = compare(make(), make(lock, version=4, lineage=lineage(lock="other", run="run_2")))
    assert (found.verdict, found.equal, found.same_model) == ("environment only", True, True)
    assert "Only the environment differs: they answer the same" in found.words
    changed = {one.name: (one.a, one.b) for one in found.changed if one.group == "environment"}
    assert changed["package numpy"] == ("2.4.0", "2.4.1")
    assert changed["package scipy"] == (None, "1.18")
    assert [(one.rows, one.largest, one.decisions) for one in found.replays] == [(200, 0.0, 0)] * 2


def test_a_second_training_on_the_same_data_differs_in_its_version_only(make):
    found = compare(make(), make(version=4, semantic_version="1.0.1", lineage=lineage(run="run_2")))
    assert (found.verdict, found.equal, groups(found)) == ("equal", True, {"version"})
    assert found.words == "Only the version differs: they answer the same."


def test_a_build_in_another_environment_that_answers_otherwise_is_called_out(make):
    other = exported("forest")
    files = {bundles.MODEL: other, bundles.GOLDEN: golden.record("binary", rows(), Runtime(other))}
    found = compare(make(), make(files, lineage=lineage(lock="other")))
    assert (found.verdict, found.equal) == ("environment only", False)
    assert "DO NOT ANSWER THE SAME" in found.words
    first = found.replays[0]
    wanted = np.array(golden.read_golden(manifest_and_files()[1][bundles.GOLDEN]).scores)
    scored = Runtime(other).score(golden.read_golden(manifest_and_files()[1][bundles.GOLDEN]).matrix())
    assert first.largest == pytest.approx(np.abs(wanted - scored).max())
    assert first.decisions == ((wanted >= 0.5) != (scored >= 0.5)).sum() > 0


@pytest.mark.parametrize(
    ("changes", "group"),
    [
        ({"parameters": {"C": 2, "tags": ["a", "b"]}}, "parameters"),
        ({"estimator": "another.Classifier"}, "estimator"),
        ({"metrics": {"roc_auc": 0.8, "n": 3, "undefined": None}}, "metrics"),
        ({"gates": ({"gate": "roc_auc at least 0.7", "passed": False, "value": 0.6},)}, "gates"),
        ({"lineage": lineage(snapshots=("snap_2",))}, "data"),
        ({"lineage": lineage(commit="abc")}, "code"),
        ({"owner": "others"}, "people"),
    ],
)
def test_each_kind_of_change_is_named(make, changes, group):
    found = compare(make(), make(**changes))
    assert group in groups(found)
    assert found.equal


def test_a_changed_threshold_flips_decisions(make):
    found = compare(make(), make(threshold=0.9))
    assert "threshold" in groups(found)
    assert found.verdict == "different"
    assert found.replays[0].decisions > 0
    assert found.replays[0].largest == 0.0


def test_rows_are_given_by_name_when_the_inputs_stand_in_another_order(make):
    signature = manifest_and_files()[0].signature
    turned = msgspec.structs.replace(signature, inputs=tuple(reversed(INPUTS)))
    found = compare(make(), make(signature=turned))
    assert "inputs" in groups(found)
    assert not found.equal
    there = golden.read_golden(manifest_and_files()[1][bundles.GOLDEN])
    expected = Runtime(exported("logistic")).score(np.ascontiguousarray(there.matrix()[:, ::-1]))
    assert found.replays[0].largest == pytest.approx(np.abs(expected - np.array(there.scores)).max())


def test_an_input_that_the_other_does_not_have_makes_answers_not_comparable(make):
    signature = manifest_and_files()[0].signature
    renamed = msgspec.structs.replace(signature, inputs=("age", "dose", "year", "weight"))
    found = compare(make(), make(signature=renamed))
    assert (found.verdict, found.equal) == ("different", False)
    assert "weight is no input" in found.replays[0].problem
    assert "cannot be compared" in found.words
