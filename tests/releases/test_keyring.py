"""Keys from a file, the environment or a service; rotation; and the drill for a key that leaked."""

from __future__ import annotations

import base64
import shutil
import sys
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import seatrial
from seatrial import Project
from seatrial.core.errors import UsageError
from seatrial.core.settings import BadSettings
from seatrial.releases.bundle import open_bundle, pack
from seatrial.releases.keyring import KeyRevoked, KeyServiceFailed, NotRotated, UnknownKey, open_key
from seatrial.releases.signing import (
    KeyUnusable,
    SignatureRefused,
    public_pem,
    read_private,
    sign,
    trusted_keys,
    verify,
)
from tests.cli.test_verbs import BLUE_GREEN, make
from tests.releases.factories import manifest_and_files

SERVICE = """#!{python}
import base64, pathlib, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(pathlib.Path("secret.hex").read_text()))
if sys.argv[1] == "public":
    print(base64.b64encode(private.public_key().public_bytes_raw()).decode())
elif pathlib.Path("locked").exists():
    sys.exit("the vault is locked")
else:
    print(base64.b64encode(private.sign(sys.stdin.buffer.read())).decode())
"""


def secret(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


def key_id_of(number: int) -> str:
    return read_private(secret(number).encode(), "test").keyid


def service(folder, number=1):
    """A key service in the folder; the setting that names it."""
    (folder / "secret.hex").write_text((bytes([number]) * 32).hex())
    script = folder / "sign.py"
    script.write_text(SERVICE.format(python=sys.executable))
    script.chmod(0o755)
    return "exec:./sign.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with two releases, of which the second is live."""
    folder = make(tmp_path_factory.mktemp("keys") / "project", project=BLUE_GREEN)
    with Project(folder, actor="ada") as project:
        for _ in range(2):
            project.train("heavy")
            project.release("heavy")
        project.deploy("heavy", release="heavy:1")
        project.deploy("heavy", release="heavy:2")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "project")


def predicted(folder):
    with Project(folder) as project:
        return project.predict("heavy", [{"size": 0.25, "weight": 0.5}])[0]["prediction"]


def reason_of(folder, release):
    with Project(folder) as project, pytest.raises(SignatureRefused) as refused:
        project.release_verify(release)
    return refused.value.facts["reason"]


def test_a_key_service_signs_without_giving_its_key_away(tmp_path):
    key = open_key(tmp_path / "keys", service(tmp_path), {}, cwd=tmp_path)
    assert "secret" not in repr(key)
    manifest, files = manifest_and_files()
    opened = open_bundle(pack(manifest, files, key), trusted_keys(tmp_path / "keys"))
    assert opened.keyid == key.keyid == key_id_of(1)
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["trusted"]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda folder: (folder / "locked").touch(), "the vault is locked"),
        (lambda folder: (folder / "sign.py").write_text("#!/bin/sh\necho bm90aGluZw==\n"), "no Ed25519 public key"),
        (lambda folder: (folder / "sign.py").unlink(), "cannot be started"),
        (lambda folder: (folder / "sign.py").chmod(0o600), "cannot be started"),
    ],
)
def test_a_key_service_that_fails_is_named_with_what_it_said(tmp_path, break_it, words):
    setting = service(tmp_path)
    break_it(tmp_path)
    with pytest.raises(KeyServiceFailed, match=words) as failed:
        open_key(tmp_path / "keys", setting, {}, cwd=tmp_path).sign(b"data")
    assert failed.value.exit_code == 6


def test_a_signature_by_another_key_than_the_services_own_is_not_used(tmp_path):
    key = open_key(tmp_path / "keys", service(tmp_path, 1), {}, cwd=tmp_path)
    assert key.public
    service(tmp_path, 2)
    with pytest.raises(KeyServiceFailed, match="no signature by its key"):
        key.sign(b"data")


def test_a_key_comes_from_the_variable_that_the_settings_name(tmp_path):
    assert open_key(tmp_path, "${VAULT}", {"VAULT": secret(3)}, cwd=tmp_path).keyid == key_id_of(3)
    with pytest.raises(KeyUnusable, match="VAULT, which is not set"):
        open_key(tmp_path, "${VAULT}", {}, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_key_comes_from_the_file_that_the_settings_name(tmp_path):
    (tmp_path / "elsewhere.key").write_text(secret(4))
    (tmp_path / "elsewhere.key").chmod(0o600)
    assert open_key(tmp_path / "keys", "elsewhere.key", {}, cwd=tmp_path).keyid == key_id_of(4)
    assert open_key(tmp_path / "keys", "", {"SEATRIAL_SIGNING_KEY": secret(5)}, cwd=tmp_path).keyid == key_id_of(5)


def test_an_unknown_setting_of_signing_is_refused(tmp_path):
    (tmp_path / "seatrial.toml").write_text('[signing]\nkeys = "x"\n')
    with pytest.raises(BadSettings, match="keys"):
        Project(tmp_path)


def test_after_a_rotation_old_releases_stay_good_and_new_ones_carry_the_new_key(folder):
    with Project(folder) as project:
        first, second = (one["release"] for one in project.releases())
        old = project.release_verify(first).signed_by
        changed = project.key_rotate(reason="yearly")
        assert (changed.before, changed.what) == (old, "rotated")
        assert project.release_verify(first).signed_by == project.release_verify(second).signed_by == old
        assert project.release("heavy").id == second  # packed again by the new key: it is there already
        project.train("heavy")
        third = project.release("heavy").id
        assert project.release_verify(third).signed_by == changed.id
        keys = {one.id: one for one in project.keys_list()}
        assert (keys[old].releases, keys[changed.id].releases) == (2, 1)
        assert (keys[old].own, keys[changed.id].own, keys[changed.id].source) == (False, True, "file")
    assert predicted(folder) in (0, 1)
    assert (folder / ".seatrial/keys/signing.key").stat().st_mode & 0o777 == 0o600
    assert not list((folder / ".seatrial/keys").glob(".*"))


def test_a_key_of_the_environment_is_rotated_where_it_lives(folder, monkeypatch):
    monkeypatch.setenv("SEATRIAL_SIGNING_KEY", secret(1))
    with Project(folder) as project:
        project.train("heavy")
        release = project.release("heavy").id
        with pytest.raises(NotRotated):
            project.key_rotate()
    monkeypatch.setenv("SEATRIAL_SIGNING_KEY", secret(2))
    with Project(folder) as project:
        assert project.key_rotate().id == key_id_of(2)
        assert project.release_verify(release).signed_by == key_id_of(1)
        with pytest.raises(NotRotated):
            project.key_rotate()


def test_a_project_releases_with_a_key_service_and_rotates_it(folder):
    (folder / "seatrial.toml").write_text(f'[signing]\nkey = "{service(folder, 1)}"\n[stores]\nmlflow = ""\n')
    with Project(folder) as project:
        project.train("heavy")
        release = project.release("heavy").id
        assert project.release_verify(release).signed_by == key_id_of(1)
        project.deploy("heavy")
        service(folder, 2)
        assert project.key_rotate().id == key_id_of(2)
    (folder / "sign.py").unlink()  # whoever answers or verifies needs no key
    assert predicted(folder) in (0, 1)
    with Project(folder) as project:
        assert project.release_verify(release).signed_by == key_id_of(1)
        assert seatrial.load(release, project=folder).predict({"size": 0.5, "weight": 0.5})


def test_the_drill_for_a_key_that_leaked(folder, tmp_path):
    """docs/releases.md, "When a key leaks", step by step."""
    keys = folder / ".seatrial/keys"
    leaked = read_private((keys / "signing.key").read_bytes(), "the thief's copy")
    with Project(folder) as project:
        first, second = (one["release"] for one in project.releases())
        # a thief packs a release of their own with the leaked key: it looks like one of ours
        manifest, files = manifest_and_files()
        forged = tmp_path / "forged.seatrial"
        forged.write_bytes(pack(manifest, files, leaked))
        assert project.release_verify(str(forged)).signed_by == leaked.keyid
        # 1. what has it signed?
        shown = project.key_show(leaked.keyid[:12])
        assert [(one.release, one.live) for one in shown.signed] == [(first, []), (second, ["heavy"])]
        assert all(one.packed and "by ada" in one.packed for one in shown.signed)
        # 2. revoke
        with pytest.raises(UsageError, match="no reason"):
            project.key_revoke(leaked.keyid, reason="")
        assert project.status()[0].distrusted is None
        assert "rotate" in project.key_revoke(leaked.keyid, reason="found in a public repository").next
        # what is live goes on answering, and that it is not trusted any more is told
        (status,) = project.status()
        assert (status.live, status.distrusted) == ("2", leaked.keyid)
        assert status.next.endswith(f"seatrial releases resign --by {leaked.keyid}")
    # 3. everything that it signed is refused, by name, and nothing is signed with it any more
    for release in (first, second, str(forged)):
        assert reason_of(folder, release) == "revoked_key"
    with Project(folder) as project:
        with pytest.raises(KeyRevoked):
            project.release("heavy")
        with pytest.raises(KeyRevoked):
            project.deploy("heavy", release=first)
        # 4. a new key, 5. sign again what we packed
        new = project.key_rotate(reason="the old one leaked").id
        done = project.release_resign(by=leaked.keyid, reason="packed before the leak")
        assert (done.key, done.releases, done.routes) == (new, [first, second], ["heavy"])
        assert project.status()[0].distrusted is None
        assert {project.release_verify(id).signed_by for id in (first, second)} == {new}
        # the ids are the same: a release does not depend on who signed it
        assert {first, second} <= {one["release"] for one in project.releases()}
        # 6. what the thief made stays out
        with pytest.raises(SignatureRefused, match="revoked"):
            project.release_verify(str(forged))
        # 7. the log tells it all
        kinds = [event.kind for event in project.metadata.events()]
        assert [kind for kind in kinds if kind.startswith("key.")] == ["key.revoked", "key.rotated"]
        assert kinds.count("release.resigned") == 2
        assert project.audit_verify().intact
        states = {one.id: (one.state, one.releases) for one in project.keys_list()}
        assert states == {leaked.keyid: ("revoked", 0), new: ("trusted", 2)}
        # a key that was revoked does not come back by itself
        (tmp_path / "old.pub").write_bytes(public_pem(leaked.public))
        with pytest.raises(KeyUnusable, match="revoked"):
            project.key_trust(tmp_path / "old.pub")
    assert predicted(folder) in (0, 1)
    # an emergency roll-back finds the route of before, though the metadata store is away
    (folder / ".seatrial/metadata.db").rename(folder / "away.db")
    with Project(folder) as project:
        back = project.rollback("heavy", reason="drill")
        assert (back.live, back.settled) == (first, False)


def test_a_service_that_runs_follows_the_drill(folder):
    with Project(folder) as project, serving(project) as service:
        leaked = project.signing_key.keyid
        assert service.distrusted == {}
        project.key_revoke(leaked, reason="found in a public repository")
        service.refresh()
        assert leaked in service.distrusted["heavy"]
        assert service.state()["ready"]
        project.key_rotate(reason="the old one leaked")
        service.refresh()
        assert service.distrusted.keys() == {"heavy"}
        project.release_resign(by=leaked, reason="packed before the leak")
        service.refresh()
        assert service.distrusted == {}
        assert service.state()["refused"] == {}


@contextmanager
def serving(project):
    """What `seatrial serve` serves, without its sockets."""
    service = project._service(replay=False)
    service.refresh()
    yield service
    service.close()


def test_a_bundle_that_was_not_packed_here_is_not_signed_again(folder):
    with Project(folder) as project:
        first, second = project.metadata.records("release")
        shutil.copyfile(project.objects.path(second.body["object"]), folder / "copy")
        path = project.objects.path(first.body["object"])
        path.chmod(0o644)
        (folder / "copy").replace(path)
        old = project.signing_key.keyid
        project.key_rotate()
        with pytest.raises(UsageError):
            project.key_revoke("key_0000", reason="x")
        from seatrial.verbs.vouching import NotVouched

        with pytest.raises(NotVouched):
            project.release_resign(by=old)


def test_a_public_key_of_others_is_trusted_and_an_unknown_one_cannot_be_revoked(folder, tmp_path):
    theirs = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    (tmp_path / "theirs.pub").write_bytes(public_pem(theirs))
    with Project(folder) as project:
        id = project.key_trust(tmp_path / "theirs.pub", reason="the other team").id
        assert id in project.trusted
        project.key_revoke(id, reason="the other team left")
        assert id not in project.trusted
        with pytest.raises(UnknownKey):
            project.key_revoke("key_nobody", reason="x")
        with pytest.raises(KeyUnusable):
            project.key_trust(folder / "project.py")


def test_the_envelope_of_a_revoked_key_says_so(tmp_path):
    key = open_key(tmp_path / "keys", "", {}, cwd=tmp_path)
    envelope = sign(b"payload", "type", key)
    assert verify(envelope, b"payload", "type", trusted_keys(tmp_path / "keys")) == key.keyid
    from seatrial.releases.keyring import revoke

    revoke(tmp_path / "keys", key.keyid)
    with pytest.raises(SignatureRefused) as refused:
        verify(envelope, b"payload", "type", trusted_keys(tmp_path / "keys"))
    assert refused.value.facts["reason"] == "revoked_key"
