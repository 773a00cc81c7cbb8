"""What may be taken out of use, what the names of a model mean, and that nothing of its history is lost."""

from __future__ import annotations

import json
import shutil

import pytest

from seatrial import Project
from seatrial.cli import run
from seatrial.core.errors import UsageError
from seatrial.registry.versions import Deleted, NoReason, UnknownAlias
from seatrial.verbs.custody import StillLive
from tests.cli.test_verbs import BLUE_GREEN, make


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with three released versions, of which the second is live and the first was."""
    folder = make(tmp_path_factory.mktemp("custody") / "project", project=BLUE_GREEN)
    with Project(folder, actor="ada") as project:
        for _ in range(3):
            project.train("heavy")
            project.release("heavy")
        project.deploy("heavy", release="heavy:1", reason="first")
        project.deploy("heavy", release="heavy:2", reason="better in May")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "project")


@pytest.fixture
def project(folder):
    with Project(folder, actor="ben") as opened:
        yield opened


def events_of(project):
    return [event.kind for event in project.audit_list(5)]


def test_a_model_is_shown_with_its_versions_releases_aliases_and_what_is_live(project):
    shown = project.model_show("heavy")
    assert [one.version for one in shown.versions] == [1, 2, 3]
    assert [one.live for one in shown.versions] == [[], ["heavy"], []]
    assert shown.aliases == {"candidate": 3, "champion": 2}
    assert [one.semantic_version for one in shown.versions] == ["1.0.0", "1.0.1", "1.0.2"]
    assert all(one.metrics["roc_auc"] > 0.6 and one.actor == "ada" for one in shown.versions)


@pytest.mark.parametrize(("version", "words"), [("heavy:2", "live in deployment 'heavy'"), ("heavy:1", "roll-back")])
def test_what_is_live_or_may_be_again_at_once_is_not_deleted(project, version, words):
    before = project.model_show("heavy"), project.releases("heavy")
    for delete, name in ((project.model_delete, version), (project.release_delete, version)):
        with pytest.raises(StillLive, match=words) as refused:
            delete(name, reason="no longer wanted")
        assert refused.value.facts["deployments"] == ["heavy"]
        assert refused.value.exit_code == 4
    assert (project.model_show("heavy"), project.releases("heavy")) == before


def test_a_deleted_version_goes_with_its_release_and_aliases_and_keeps_its_history(project):
    id = project.chosen_release("heavy", "heavy:3").id
    done = project.model_delete("heavy:3", reason="trained on a wrong label")
    assert (done.version, done.aliases, done.release) == (3, ["candidate"], id)
    assert [one["release"] for one in project.releases("heavy")] != []
    assert id not in [one["release"] for one in project.releases("heavy")]
    assert id in [one["release"] for one in project.releases("heavy", deleted=True)]
    assert "by ben" in project.model_show("heavy").versions[2].deleted
    assert project.model_history("heavy", "candidate")[-1].after is None
    for use in (
        lambda: project.registry.resolve("heavy:3"),
        lambda: project.chosen_release("heavy", id),
        lambda: project.deploy("heavy", release=id),
        lambda: project.release(done.id),
        lambda: project.model_alias("heavy", "shadow", "3"),
    ):
        with pytest.raises(Deleted):
            use()
    with pytest.raises(UnknownAlias):
        project.registry.resolve("heavy@candidate")
    assert project.registry.resolve("heavy").body["version"] == 2
    assert project.chosen_release("heavy", None).body["version"] == 2
    assert project.release_verify(id).release == id  # evidence can still be looked at
    assert {"version.deleted", "release.deleted"} <= {e.kind for e in project.metadata.events()}
    assert project.audit_verify().intact


def test_a_deleted_number_is_not_given_again(project):
    project.model_delete("heavy:3", reason="trained on a wrong label")
    assert project.train("heavy").version == 4


def test_deleting_needs_a_reason_and_one_version(project):
    with pytest.raises(NoReason):
        project.model_delete("heavy:3", reason=" ")
    with pytest.raises(UsageError, match="names no single version"):
        project.model_delete("heavy", reason="all of it")
    project.release_delete("heavy:3", reason="once")
    with pytest.raises(Deleted):
        project.release_delete("heavy:3", reason="twice")


def test_champion_follows_the_deployment_and_cannot_be_set_beside_it(project):
    with pytest.raises(StillLive, match="live in deployment 'heavy'"):
        project.model_alias("heavy", "champion", "1")
    with pytest.raises(StillLive):
        project.model_alias("heavy", "champion", None)
    project.rollback("heavy", reason="worse than before")
    assert project.model_show("heavy").aliases["champion"] == 1
    assert [(m.before, m.after) for m in project.model_history("heavy", "champion")] == [(None, 1), (1, 2), (2, 1)]


def test_every_move_of_an_alias_is_told_with_who_when_and_why(project):
    assert project.model_alias("heavy", "shadow", 1, reason="to compare").changed
    assert not project.model_alias("heavy", "shadow", "heavy@shadow").changed
    project.model_alias("heavy", "shadow", "candidate" and "heavy@candidate", reason="newer")
    project.model_alias("heavy", "shadow", None, reason="done")
    project.model_alias("heavy", "shadow", 2)
    moves = project.model_history("heavy", "shadow")
    assert [(m.before, m.after) for m in moves] == [(None, 1), (1, 3), (3, None), (None, 2)]
    assert {(m.actor, m.asserted) for m in moves} == {("ben", True)}
    assert [m.reason for m in moves] == ["to compare", "newer", "done", ""]
    every = project.model_history("heavy")
    assert {m.alias for m in every} == {"candidate", "champion", "shadow"}


def test_the_commands_tell_the_same(folder, capsys):
    def tell(*words):
        code = run([*words, "--project", str(folder)])
        out = capsys.readouterr()
        return code, out.out, out.err

    assert "live in heavy" in tell("models", "show", "heavy")[1]
    assert tell("models", "alias", "heavy", "shadow", "1")[1] == "heavy@shadow names version 1.\n"
    assert tell("models", "alias", "heavy", "shadow", "--remove")[1] == "heavy@shadow was removed.\n"
    assert tell("models", "alias", "heavy", "shadow")[0] == 2
    assert "better" not in tell("models", "history", "heavy", "shadow")[1]
    code, _, err = tell("releases", "delete", "heavy:2", "--reason", "old")
    assert (code, "registry.still_live" in err, "deployment 'heavy'" in err) == (4, True, True)
    whole = next((folder / ".seatrial/objects/releases").iterdir())
    assert "golden rows" in tell("releases", "verify", str(whole))[1]
    (folder / "cut.seatrial").write_bytes(whole.read_bytes()[:5000])
    code, _, err = tell("releases", "verify", str(folder / "cut.seatrial"), "--json")
    assert (code, json.loads(err)["code"], json.loads(err)["reason"]) == (1, "release.bundle_damaged", "truncated")
    assert "Only the version differs" in tell("releases", "diff", "heavy:1", "heavy:2")[1]
    code, out, _ = tell("models", "delete", "heavy:3", "--reason", "old", "--json")
    assert (code, json.loads(out)["version"]) == (0, 3)
    assert "deleted by" in tell("models", "show", "heavy")[1]
    assert len(json.loads(tell("releases", "list", "--deleted", "--json")[1])) == 3


def test_a_release_that_was_deleted_while_somebody_deployed_it_does_not_go_live(project):
    from seatrial.deployment.definition import Deployment
    from seatrial.deployment.deploy import Traffic, deploy

    release = project.chosen_release("heavy", "heavy:3")  # looked up, and then
    project.release_delete(release.id, reason="meanwhile")
    sign, verify = project.signer
    with pytest.raises(Deleted):
        deploy(
            project.metadata, project.routes, Deployment("heavy"), [Traffic(release, release.body["object"])],
            sign=sign, verify=verify, actor="ben", at_us=project.now_us,
        )  # fmt: skip
    assert project.model_show("heavy").aliases["champion"] == 2
