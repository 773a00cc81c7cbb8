import msgspec
import pytest

from seatrial.releases.bundle import BundleDamaged, open_bundle, pack
from seatrial.releases.formats import FILES, FormatUnknown, model_file, packages
from seatrial.releases.golden import replay
from seatrial.releases.manifest import file_entries, write_manifest
from tests.releases.factories import CLASSIFIERS, classifier, key, manifest_and_files, own_format


def test_every_format_has_a_file_of_its_own():
    assert len(set(FILES.values())) == len(FILES)
    assert model_file("onnx") == "model.onnx"


def test_a_format_of_a_newer_version_is_refused_by_name():
    with pytest.raises(FormatUnknown, match="'gguf'"):
        model_file("gguf")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_packages_that_score_are_told(name):
    native = classifier(name)[1]
    wanted = ("lightgbm",) if name == "lightgbm" else ("scikit-learn", "skops")
    assert packages(native.format, native.data) == wanted
    assert packages("onnx", b"") == ()


@pytest.mark.parametrize("name", ["hist", "lightgbm"])
def test_a_bundle_of_another_format_opens_and_replays_in_a_child(tmp_path, name):
    manifest, files = own_format(name)
    opened = open_bundle(pack(manifest, files, key(tmp_path)), {key(tmp_path).keyid: key(tmp_path).public})
    assert opened.manifest.parity.refused == "It splits on sets."
    assert replay(opened, opened.runtime()) == 200


def test_a_bundle_without_the_file_of_its_format_is_refused(tmp_path):
    manifest, files = own_format("lightgbm")
    rest = {name: data for name, data in files.items() if name != "model.txt"}
    broken = msgspec.structs.replace(manifest, files=file_entries(rest))
    with pytest.raises(Exception, match=r"model\.txt"):
        pack(broken, rest, key(tmp_path))
    assert BundleDamaged.code == "release.bundle_damaged"


def test_a_certificate_of_an_onnx_release_says_nothing_of_a_refusal():
    """Manifests from before there were other formats keep their id."""
    assert b'refused"' not in write_manifest(manifest_and_files()[0])
