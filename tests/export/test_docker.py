import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import msgspec
import pytest

from seatrial.cli.verbs import VERBS
from seatrial.core.settings import Settings, Stores
from seatrial.export import docker
from seatrial.export.build_folder import CannotWrite, FolderNotEmpty
from seatrial.export.docker import NotPinned, export, serving_requirements
from seatrial.releases.bundle import LOCK, open_bundle, pack
from seatrial.releases.manifest import file_entries
from seatrial.releases.signing import SignatureRefused, signing_key, trusted_keys
from tests.releases.factories import manifest_and_files, own_format

ROOT = Path(__file__).parents[2]
PINNED = ["numpy==2.4.0", "uvloop==0.23.0 ; sys_platform != 'win32'"]


@pytest.fixture
def released(tmp_path):
    """A bundle file and the keys that it is trusted by."""
    manifest, files = manifest_and_files()
    path = tmp_path / "late.seatrial"
    path.write_bytes(pack(manifest, files, signing_key(tmp_path / "keys")))
    return path, trusted_keys(tmp_path / "keys")


@pytest.fixture
def folder(released, tmp_path):
    path, trusted = released
    export(path, tmp_path / "image", trusted=trusted, requirements=PINNED)
    return tmp_path / "image"


def test_the_folder_holds_what_an_image_needs(released, tmp_path):
    path, trusted = released
    written = export(path, tmp_path / "image", trusted=trusted, requirements=PINNED)
    found = sorted(str(p.relative_to(tmp_path / "image")) for p in (tmp_path / "image").rglob("*") if p.is_file())
    assert written == found
    keyid = next(iter(trusted))
    assert {".dockerignore", "Dockerfile", "README.md", "release.seatrial", f"keys/{keyid}.pub"} <= set(written)


def test_the_bundle_in_the_folder_verifies_with_the_key_in_the_folder(folder, tmp_path):
    trusted = tmp_path / "container" / "trusted"
    trusted.mkdir(parents=True)
    for key in (folder / "keys").iterdir():
        (trusted / key.name).write_bytes(key.read_bytes())
    opened = open_bundle(folder / "release.seatrial", trusted_keys(tmp_path / "container"))
    assert opened.manifest.model == "late"


def test_hadolint_finds_nothing_in_the_dockerfile(folder):
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([str(hadolint), "--no-color", str(folder / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_server_is_not_root_knows_its_health_and_gets_signals(folder):
    lines = (folder / "Dockerfile").read_text().splitlines()
    assert "USER 10001:10001" in lines
    assert "STOPSIGNAL SIGTERM" in lines
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    assert lines[-2:] == ['ENTRYPOINT ["seatrial"]', 'CMD ["serve"]']


def test_the_base_is_a_slim_python_unless_the_builder_names_another(folder):
    lines = (folder / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")][:2] == [
        "ARG BASE=python:3.11-slim-bookworm",
        "FROM ${BASE}",
    ]


def test_every_variable_of_the_image_is_an_option_or_a_setting(folder):
    text = (folder / "Dockerfile").read_text()
    ours = {word.split("=")[0] for word in re.findall(r"SEATRIAL_\w+=", text)}
    from_options = {option.envvar for option in VERBS["serve"].params if option.envvar}
    settings = {f"SEATRIAL_STORES_{name.upper()}" for name in Stores.__struct_fields__}
    settings |= {f"SEATRIAL_{name.upper()}" for name in Settings.__struct_fields__ if name.startswith("log_")}
    assert ours & from_options == {"SEATRIAL_BUNDLE", "SEATRIAL_HOST", "SEATRIAL_PORT", "SEATRIAL_WORKERS"}
    assert ours - from_options <= settings


def test_the_labels_name_the_release_in_the_words_of_the_oci(folder, released):
    text = (folder / "Dockerfile").read_text()
    labels = dict(re.findall(r'([\w.-]+)="([^"]*)"', text[text.index("LABEL ") : text.index("USER ")]))
    bundle = open_bundle(*released)
    assert labels["org.opencontainers.image.title"] == "late"
    assert labels["org.opencontainers.image.version"] == bundle.manifest.semantic_version
    assert labels["seatrial.release"] == bundle.id


def test_every_file_can_be_read_by_the_images_user_whatever_the_umask(released, tmp_path):
    path, trusted = released
    before = os.umask(0o077)
    try:
        export(path, tmp_path / "image", trusted=trusted, requirements=PINNED)
    finally:
        os.umask(before)
    for one in (tmp_path / "image", *(tmp_path / "image").rglob("*")):
        assert one.stat().st_mode & 0o777 == (0o755 if one.is_dir() else 0o644)


def test_no_file_names_an_address_of_a_registry(folder):
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in (".seatrial", ".whl"):
            text = path.read_text()
            assert set(re.findall(r"\w+://[^/\s'\"]+", text)) <= {"http://127.0.0.1:%s"}
            assert "index-url" not in text


def test_only_what_the_image_needs_is_sent_to_the_builder(folder):
    ignored, *kept = (folder / ".dockerignore").read_text().split()
    assert ignored == "*"
    copied = re.findall(r"^COPY (?:--\S+ )?(.*) \S+$", (folder / "Dockerfile").read_text(), re.MULTILINE)
    wanted = {name.rstrip("/") for line in copied for name in line.split()}
    assert {name.removeprefix("!") for name in kept} == wanted


def test_the_wheel_installs_and_brings_the_command(folder, tmp_path):
    (wheel,) = folder.glob("seatrial-*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps",
         "--target", str(site), str(wheel)],
        check=True,
    )  # fmt: skip
    assert (site / "bin" / "seatrial").exists()
    assert (site / "seatrial" / "releases" / "runtime.py").exists()
    assert not list(site.glob("tests*"))


def test_the_same_release_exports_to_the_same_files(released, tmp_path):
    path, trusted = released
    for name in ("one", "two"):
        export(path, tmp_path / name, trusted=trusted, requirements=PINNED)
    for one in (tmp_path / "one").rglob("*"):
        if one.is_file():
            assert one.read_bytes() == (tmp_path / "two" / one.relative_to(tmp_path / "one")).read_bytes()


def test_an_untrusted_bundle_is_not_exported(released, tmp_path):
    with pytest.raises(SignatureRefused):
        export(released[0], tmp_path / "image", trusted={}, requirements=PINNED)
    assert not (tmp_path / "image").exists()


def test_a_place_that_cannot_be_written_is_a_clear_error(released, tmp_path):
    path, trusted = released
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for folder in (tmp_path / "file" / "below", tmp_path / "dangling", tmp_path / ("a" * 300), Path("/proc/x")):
        with pytest.raises(CannotWrite) as error:
            export(path, folder, trusted=trusted, requirements=PINNED)
        assert str(folder) in str(error.value)
    with pytest.raises(FolderNotEmpty):
        export(path, tmp_path / "file", trusted=trusted, requirements=PINNED)
    assert sorted(file.name for file in tmp_path.iterdir() if file.name[0] == ".") == []


def test_a_folder_that_holds_something_is_left_alone(released, tmp_path):
    path, trusted = released
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "mine.txt").write_text("mine")
    with pytest.raises(FolderNotEmpty):
        export(path, tmp_path / "image", trusted=trusted, requirements=PINNED)
    assert [p.name for p in (tmp_path / "image").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "line", ["numpy", "numpy>=2", "numpy==2.*", "numpy @ https://example.org/numpy.whl", "./numpy"]
)
def test_a_requirement_that_is_not_pinned_is_refused(released, tmp_path, line):
    path, trusted = released
    with pytest.raises(NotPinned):
        export(path, tmp_path / "image", trusted=trusted, requirements=[line])


def test_a_release_whose_lock_lacks_the_server_is_refused(released, tmp_path):
    path, trusted = released
    with pytest.raises(NotPinned, match="blake3"):
        export(path, tmp_path / "image", trusted=trusted)


def test_serving_needs_the_base_dependencies():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert sorted(re.match(r"[\w-]+", line)[0] for line in declared) == docker.SERVING


def test_requirements_are_the_servers_part_of_the_lock_with_their_hashes():
    lock = (ROOT / "requirements.lock").read_text()
    entries = serving_requirements(lock)
    names = [entry.split("==")[0] for entry in entries]
    assert names == sorted(names)
    assert {"fastapi", "starlette", "onnxruntime", "numpy"} <= set(names)
    assert not {"scikit-learn", "lightgbm", "pandas", "mlflow-skinny", "onnx", "skops", "pytest"} & set(names)
    assert all(entry in lock and "--hash=sha256:" in entry for entry in entries)


def test_hashes_are_required_when_every_requirement_has_them(released, tmp_path):
    path, trusted = released
    requirements = serving_requirements((ROOT / "requirements.lock").read_text())
    export(path, tmp_path / "image", trusted=trusted, requirements=requirements)
    assert "--require-hashes" in (tmp_path / "image" / "Dockerfile").read_text()
    assert (tmp_path / "image" / "requirements.txt").read_text().startswith("annotated-doc==")


def test_without_a_lock_the_installed_versions_are_pinned():
    entries = serving_requirements("")
    assert all(re.fullmatch(r"[\w.-]+==\S+", entry) for entry in entries)
    assert any(entry.startswith("onnxruntime==") for entry in entries)


def test_the_wheel_holds_no_compiled_leftovers(folder):
    (wheel,) = folder.glob("seatrial-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        assert not [name for name in archive.namelist() if "__pycache__" in name]


@pytest.mark.parametrize(
    ("name", "wanted", "library"),
    [("hist", {"skops", "scikit-learn", "scipy"}, False), ("lightgbm", {"lightgbm"}, True)],
)
def test_what_the_child_process_of_a_release_needs_is_in_the_image(tmp_path, name, wanted, library):
    manifest, files = own_format(name)
    lock = (ROOT / "requirements.lock").read_bytes()
    files = files | {LOCK: lock}
    manifest = msgspec.structs.replace(manifest, files=file_entries(files))
    path = tmp_path / "late.seatrial"
    path.write_bytes(pack(manifest, files, signing_key(tmp_path / "keys")))
    export(path, tmp_path / "image", trusted=trusted_keys(tmp_path / "keys"))
    required = {line.split("==")[0] for line in (tmp_path / "image" / "requirements.txt").read_text().splitlines()}
    assert wanted <= required
    assert not {"mlflow-skinny", "onnx", "pytest"} & required
    dockerfile = (tmp_path / "image" / "Dockerfile").read_text()
    assert ("libgomp1" in dockerfile) == library
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [str(hadolint), "--no-color", str(tmp_path / "image" / "Dockerfile")], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_a_package_is_found_in_the_lock_under_its_other_name():
    entries = serving_requirements((ROOT / "requirements.lock").read_text(), scored_by=["xgboost"])
    assert any(entry.startswith(("xgboost==", "xgboost-cpu==")) for entry in entries)
