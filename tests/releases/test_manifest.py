import json

import msgspec
import pytest

from seatrial.core.types import Field
from seatrial.features.plan import FeaturePlan, FunctionPlan, ViewPlan
from seatrial.releases.manifest import (
    FileEntry,
    ManifestTooNew,
    ManifestUnreadable,
    next_version,
    read_manifest,
    release_id,
    write_manifest,
)
from seatrial.releases.parity import Parity
from tests.releases.factories import BINARY, manifest_and_files

MANIFEST, _ = manifest_and_files()
replace = msgspec.structs.replace


def test_a_manifest_read_again_is_the_same_release():
    again = read_manifest(write_manifest(MANIFEST))
    assert release_id(again) == release_id(MANIFEST)
    assert write_manifest(again) == write_manifest(MANIFEST)


def test_the_id_follows_from_every_part_of_the_manifest():
    ids = {release_id(MANIFEST)}
    for change in ({"version": 4}, {"owner": "x"}, {"threshold": 0.4}, {"metrics": {}}, {"files": {}}):
        ids.add(release_id(replace(MANIFEST, **change)))
    assert len(ids) == 6


def test_a_newer_format_is_refused_by_its_number():
    newer = json.loads(write_manifest(MANIFEST)) | {"format": 2, "something": "else"}
    with pytest.raises(ManifestTooNew, match="format 2"):
        read_manifest(json.dumps(newer).encode())


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"[]",
        lambda data: b" " + data,
        lambda data: data.replace(b'"owner":"flight-ops"', b'"owner":1'),
        lambda data: data.replace(b'"format":1', b'"format":1,"extra":1', 1),
        lambda data: data.replace(b'"signature":{', b'"signature":{"extra":1,', 1),
    ],
)
def test_a_manifest_that_this_version_would_not_write_is_refused(damage):
    with pytest.raises(ManifestUnreadable):
        read_manifest(damage(write_manifest(MANIFEST)))


def test_the_first_release_is_1_0_0():
    assert next_version(None, MANIFEST) == ("1.0.0", "First release.")


VIEW = ViewPlan("carrier_delay", "digest-1", ("carrier",), None, {})


@pytest.mark.parametrize(
    ("change", "version", "word"),
    [
        ({}, "1.4.3", "only data"),
        ({"metrics": {"roc_auc": 0.8}, "files": {}, "version": 9}, "1.4.3", "only data"),
        ({"owner": "others", "description": "x"}, "1.4.3", "only data"),
        ({"parameters": {"C": 2, "tags": ("a", "b")}}, "1.5.0", "parameter 'C'"),
        ({"parameters": {"C": 1}}, "1.5.0", "parameter 'tags'"),
        ({"estimator": "x.Other"}, "1.5.0", "the estimator"),
        ({"threshold": 0.4}, "1.5.0", "the decision threshold"),
        ({"lineage": replace(MANIFEST.lineage, definitions="d2")}, "1.5.0", "the definitions' code"),
        ({"plan": FeaturePlan((VIEW,), MANIFEST.plan.functions)}, "1.5.0", "view 'carrier_delay'"),
        ({"plan": FeaturePlan((), (FunctionPlan("double", ("dose",), "other"),))}, "1.5.0", "function 'double'"),
        ({"signature": replace(BINARY, task="regression")}, "2.0.0", "the task"),
        ({"signature": replace(BINARY, inputs=BINARY.inputs[::-1])}, "2.0.0", "the inputs"),
        ({"signature": replace(BINARY, request=BINARY.request[1:])}, "2.0.0", "the request fields"),
        ({"signature": replace(BINARY, request=(Field("age", "float", description="in years"), *BINARY.request[1:]))},
         "1.4.3", "only data"),
    ],
)  # fmt: skip
def test_the_version_says_what_changed(change, version, word):
    previous = read_manifest(write_manifest(replace(MANIFEST, semantic_version="1.4.2")))
    found, explanation = next_version(previous, replace(MANIFEST, **change))
    assert found == version
    assert word in explanation


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "Patch: nothing changed since 1.4.2; it was trained again on the same data."),
        ({"training_set": "tset_2"}, "Patch: only data changed since 1.4.2."),
        ({"lock": "l2"}, "Patch: the environment changed since 1.4.2, on the same data."),
        ({"training_set": "tset_2", "more": {"seed": 2}}, "Patch: data, the seed changed since 1.4.2."),
    ],
)
def test_a_patch_says_what_is_true_of_its_data(change, words):
    before = replace(MANIFEST, semantic_version="1.4.2", lineage=replace(MANIFEST.lineage, training_set="tset_1"))
    new = replace(before, lineage=replace(before.lineage, **change))
    assert next_version(before, new) == ("1.4.3", words)


def test_categories_learnt_from_data_do_not_change_the_signature():
    previous = replace(MANIFEST, signature=replace(BINARY, categories={"age": ("a", "b")}))
    new = replace(MANIFEST, signature=replace(BINARY, categories={"age": ("a", "b", "c")}))
    assert next_version(previous, new)[0] == "1.0.1"


def test_the_id_of_a_release_from_before_there_were_classes_is_what_it_was():
    whole, _ = manifest_and_files()
    before = msgspec.structs.replace(
        whole,
        files={"model.onnx": FileEntry("0" * 64, 1)},
        parity=Parity(
            rows=3,
            missing_rows=2,
            single_rows=3,
            largest=1e-7,
            tolerance=1e-6,
            not_finite=0,
            flipped=0,
            threshold=0.5,
            refuses_missing=(),
            worst="none",
            passed=True,
        ),
    )
    assert release_id(before) == "rel_637d90feaf09e407c80bc6a2cdf5596c"  # as the version before gave it
    assert b"classes" not in write_manifest(before)


def test_classes_and_named_inputs_stand_in_the_manifest_and_are_read_again():
    whole, _ = manifest_and_files()
    signature = msgspec.structs.replace(whole.signature, task="multiclass", classes=("a", "b", "c"), layout="named")
    several = msgspec.structs.replace(whole, signature=signature, threshold=None)
    assert read_manifest(write_manifest(several)).signature == signature


def test_another_class_is_a_major_change():
    whole, _ = manifest_and_files()
    signature = msgspec.structs.replace(whole.signature, task="multiclass", classes=(1, 2, 3))
    three = msgspec.structs.replace(whole, signature=signature)
    four = msgspec.structs.replace(three, signature=msgspec.structs.replace(signature, classes=(1, 2, 3, 4)))
    assert next_version(three, four) == ("2.0.0", "Major: the classes changed since the signature of 1.0.0.")
