"""Model cards and bills of materials: the owner's words, what records say, and what was not written."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import msgspec
import pytest

from seatrial import ModelCard, Project
from seatrial.cli import run
from seatrial.core.card import BadCard, read_card
from seatrial.core.records import Record
from seatrial.governance.card import html, markdown
from seatrial.verbs.evidence import model_card
from tests.cli.test_verbs import PROJECT, make

CARD = """card=ModelCard(
            intended_use="To sort things before they are carried, by hand, at the depot.",
            out_of_scope=["Deciding who carries them.", "Things above 40 kg."],
            limits="Never saw a thing <b>without</b> a size.",
        ), """
WITH_CARD = PROJECT.replace("from seatrial import ", "from seatrial import ModelCard, ").replace(
    'owner="tests"', CARD + 'owner="tests"'
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("card") / "project", project=WITH_CARD)
    with Project(folder, actor="ada") as project:
        project.train("heavy")
        project.release("heavy")
        project.actor = "ben"
        project.approve("heavy", reason="every gate passed")
        project.deploy("heavy")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "project")


@pytest.fixture
def project(folder):
    with Project(folder, actor="ada") as opened:
        yield opened


def test_the_owners_words_stand_first_and_what_is_missing_is_said(project):
    written = project.model_card("heavy")
    assert written.missing == ["Alternatives considered", "Trade-offs"]
    text = written.text
    assert text.index("## Intended use") < text.index("To sort things") < text.index("## How good it is")
    assert "- Things above 40 kg." in text
    assert text.count("**Not written by the owner.**") == 2
    assert text.count("not written by the owner".capitalize()) == 2


def test_the_rest_is_filled_in_from_records(project):
    release = project.chosen_release("heavy", None)
    run = project.run_show(release.body["manifest"]["lineage"]["run"])
    text = project.release_card(release.id).text
    rows = f"{run['split']['train']['rows']} rows"
    for words in (
        "live in heavy", "1 of 1 gates passed", "roc_auc of the test part is", rows, "every gate passed", "ben",
        release.id, run["training_set"], run["snapshots"][0], "lightgbm.LGBMClassifier", "`n_estimators`",
        "No report was made", "not made from a commit", "things", "stratified", "| numpy |",
    ):  # fmt: skip
        assert words in text, words
    assert f"{run['metrics']['roc_auc']:.4g}" in text
    assert f"{run['baseline']['log_loss']:.4g}" in text
    assert "± " in text  # over the folds of cross-validation


def test_intervals_and_slices_are_shown_when_the_run_has_them(project):
    release = project.chosen_release("heavy", None)
    old = project.record(release.body["manifest"]["lineage"]["run"])
    body = old.body | {
        "intervals": {"method": "percentile bootstrap", "level": 0.9, "unit": "day", "clusters": 30,
                      "of": {"roc_auc": [0.91, 0.97], "f1": None}},
        "slices": {"size": {"metric": "roc_auc", "worst": "big", "slices": [
            {"value": "small", "rows": 300, "too_few": False, "metrics": {"roc_auc": 0.98}},
            {"value": "big", "rows": 100, "too_few": False, "metrics": {"roc_auc": 0.61}},
            {"value": "odd", "rows": 3, "too_few": True, "metrics": {"roc_auc": None}},
        ]}},
    }  # fmt: skip
    changed = Record(f"{old.id}x", "run", old.name, old.inputs, body)
    with project.metadata.transaction() as transaction:
        transaction.add(changed)
    manifest = json.loads(json.dumps(release.body["manifest"]))
    manifest["lineage"]["run"] = changed.id
    other = Record(release.id, release.kind, release.name, release.inputs, release.body | {"manifest": manifest})
    card = model_card(project, other)
    text = markdown(card)
    assert "0.91 to 0.97" in text
    assert "90% interval" in text
    assert "By `size` it is worst for `big`." in text
    assert "The worst slice is `size` = `big`: roc_auc 0.61 on 100 rows; " in text
    assert "too few to judge" in text
    assert "worst" in html(card)


class Page(HTMLParser):
    """What a page asks for from outside, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.outside += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_file_that_asks_nothing_and_shows_text_as_text(project, tmp_path):
    path = tmp_path / "card.html"
    written = project.model_card("heavy@champion", form="html", out=path)
    assert written.path == str(path)
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert (page.outside, page.open) == ([], [])
    assert "://" not in text
    assert "&lt;b&gt;without&lt;/b&gt;" in text
    assert text.count('class="missing">Not written by the owner') == 2


def test_the_words_of_a_file_are_those_of_its_headings(tmp_path):
    text = (
        "# heavy\n\n## Intended use\n\nFor the depot,\nby hand.\n\nOnly there.\n\n### Known limits\n- small things\n"
        "- things\n  of glass\n"
    )
    card = read_card(text, "card.md")
    assert card.intended_use == ["For the depot, by hand.", "Only there."]
    assert card.limits == ["small things", "things of glass"]
    with pytest.raises(BadCard, match="Intended uses"):
        read_card("## Intended uses\nx", "card.md")
    with pytest.raises(BadCard, match="limits"):
        ModelCard(limits=3)


def test_words_that_came_after_the_release_are_marked_as_such(folder):
    with Project(folder, actor="ada") as project:
        release = project.chosen_release("heavy", None)
        assert "the project's of now" not in project.release_card(release.id).text
    text = (folder / "project.py").read_text()
    (folder / "project.py").write_text(re.sub(r"card=ModelCard\(.*?\), ", "", text, flags=re.DOTALL))
    with Project(folder, actor="ada") as project:
        project.train("heavy")
        second = project.release("heavy").id
        assert len(project.release_card(second).missing) == 5
        assert len(project.release_card(release.id).missing) == 2  # the first was packed with its words
    (folder / "card.md").write_text("## Trade-offs\nFast rather than exact.\n")
    text = (folder / "project.py").read_text().replace('owner="tests"', 'card="card.md", owner="tests"')
    (folder / "project.py").write_text(text)
    with Project(folder, actor="ada") as project:
        told = project.release_card(second)
        assert "Fast rather than exact." in told.text
        assert "the project's of now" in told.text
        project.train("heavy")
        assert "the project's of now" not in project.release_card(project.release("heavy").id).text
    (folder / "card.md").unlink()
    with Project(folder) as project, pytest.raises(BadCard, match=r"card\.md"):
        project.train("heavy")


def test_the_bill_names_the_model_its_data_its_files_and_every_pinned_library(project, tmp_path):
    bill = project.release_sbom("heavy", out=tmp_path / "bom.json")
    document = json.loads((tmp_path / "bom.json").read_text())
    assert document == msgspec.to_builtins(bill.document)
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", document["serialNumber"]
    )
    model = document["metadata"]["component"]
    release = project.chosen_release("heavy", None)
    manifest = release.body["manifest"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "heavy", "1.0.0")
    assert model["hashes"] == [{"alg": "BLAKE3", "content": manifest["files"]["model.onnx"]["digest"]}]
    card = model["modelCard"]
    metrics = {one["type"]: one["value"] for one in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert float(metrics["roc_auc"]) == manifest["metrics"]["roc_auc"]
    assert card["considerations"]["useCases"] == ["To sort things before they are carried, by hand, at the depot."]
    assert "Out of scope: Things above 40 kg." in card["considerations"]["technicalLimitations"]
    run = project.run_show(manifest["lineage"]["run"])
    by_type = {}
    for one in document["components"]:
        by_type.setdefault(one["type"], []).append(one)
    assert {one["purl"] for one in by_type["library"]} >= {"pkg:pypi/numpy@" + _version("numpy")}
    assert len(by_type["library"]) == len(run["environment"]["packages"]) == bill.libraries
    assert {one["version"] for one in by_type["data"]} == {run["training_set"], *run["snapshots"]}
    assert {one["name"] for one in by_type["file"]} == set(manifest["files"])
    # every reference names something that is there, once
    refs = [model["bom-ref"], *(one["bom-ref"] for one in document["components"])]
    assert len(set(refs)) == len(refs)
    assert {one["ref"] for one in document["dependencies"]} == set(refs)
    assert {one["ref"] for one in card["modelParameters"]["datasets"]} <= set(refs)
    # the kinds of values that the specification lists (cyclonedx.org/docs/1.6/json)
    assert set(by_type) <= {"data", "file", "library"}
    assert card["modelParameters"]["approach"]["type"] in ("supervised", "unsupervised")
    assert {one["data"][0]["type"] for one in by_type["data"]} == {"dataset"}


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def test_the_same_release_gives_the_same_bill(project):
    assert project.release_sbom("heavy").document == project.release_sbom("heavy:1").document


def test_the_commands_print_or_write(folder, capsys, tmp_path):
    def tell(*words):
        assert run([*words, "--project", str(folder)]) == 0
        return capsys.readouterr().out

    assert "## Intended use" in tell("models", "card", "heavy")
    assert json.loads(tell("releases", "sbom", "heavy"))["bomFormat"] == "CycloneDX"
    said = tell("releases", "card", "heavy", "--html", str(tmp_path / "card.html"))
    assert "Not written by the owner: Alternatives considered, Trade-offs." in said
    assert (tmp_path / "card.html").read_text().startswith("<!doctype html>")
    assert json.loads(tell("models", "card", "heavy", "--json"))["missing"]
    assert "libraries" in tell("releases", "sbom", "heavy", "--out", str(tmp_path / "bom.json"))
