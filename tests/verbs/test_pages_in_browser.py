"""The pages of data and trainings in a real browser: nothing is wider than the screen, and nothing is complained of."""

from __future__ import annotations

import json
import re
import subprocess
from html import escape, unescape

import pyarrow as pa
import pytest

from seatrial import Project
from seatrial.cli import data, snapshots
from seatrial.verbs.run_page import compared_html
from tests.servers import program
from tests.worlds import edit, rewrite, write_project

WIDTHS = (1280, 400)
LOOK = """<script>addEventListener("load", () => {
const found = {};
for (const frame of document.querySelectorAll("iframe")) {
  const root = frame.contentDocument.documentElement;
  const cut = [...root.querySelectorAll("svg.fit text")].filter(text => {
    const shown = text.getBoundingClientRect(), edge = text.ownerSVGElement.getBoundingClientRect();
    return shown.width && (shown.left < edge.left - 1 || shown.right > edge.right + 1);
  }).map(text => text.textContent);
  found[frame.id] = { wide: root.scrollWidth, screen: root.clientWidth, high: root.scrollHeight, cut };
}
document.body.innerHTML = "<pre>" + JSON.stringify(found) + "</pre>";
});</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = write_project(tmp_path_factory.mktemp("pages"), rows=200)
    edit(
        folder,
        "cv_folds=3,",
        "cv_folds=3, slices=['carrier'], tune=Tune({'num_leaves': Tune.integer(4, 31), "
        "'learning_rate': Tune.number(0.01, 0.5, log=True)}, trials=8, pruner=False),",
    )
    edit(
        folder,
        'ParquetSource("departures.parquet",',
        'ParquetSource("departures.parquet", expectations=[expect.unique("flight"), '
        'expect.between("delay", 0, 10, severity="warn")],',
    )
    found = {}
    with Project(folder) as project:
        run = project.train()
        found["run"] = project.run_page(run.run)
        project.train(tune=False)
        found["compare"] = compared_html(project.run_compare())
        project.release("late")
        project.model_card("late", form="html", out=str(folder / "card.html"))
        found["card"] = (folder / "card.html").read_text()
        first = project.snapshot_show("departures")["id"]
        wide = pa.array([f"{i:04} with words that go on for long" for i in range(200)])
        rewrite(folder, "departures", lambda table: table.append_column("a_name_that_is_long_enough_for_a_card", wide))
        rewrite(folder, "departures", lambda table: table.set_column(1, "carrier", pa.array(["AA", "DD"] * 100)))
        project.snapshot()
        found["validate"] = data.validation_page(project.validate(), project.now_us)
        found["list"] = snapshots.listing_page(project.snapshots())
        found["show"] = snapshots.page(project.snapshot_show("departures"))
        found["diff"] = data.diff_page(project.snapshots_diff(first, "departures"))
        found["keyed"] = data.diff_page(project.snapshots_diff(first, "departures", key=["flight"]))
        assert found["run"].count("fANOVA") == 1
    return found


@pytest.mark.needs("chromium")
def test_no_page_is_wider_than_its_screen_and_the_browser_has_nothing_to_complain_of(pages, tmp_path):
    frames = "".join(
        f'<iframe id="{name} {width}" width="{width}" height="900" style="border: 0" srcdoc="{escape(page)}"></iframe>'
        for name, page in pages.items()
        for width in WIDTHS
    )
    sheet = tmp_path / "sheet.html"
    sheet.write_text(f"<!doctype html><meta charset='utf-8'><body>{frames}{LOOK}")
    words = [program("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu"]
    words += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
        "--dump-dom",
        sheet.as_uri(),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    said = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert said is not None
    found = json.loads(unescape(said[1]))
    assert len(found) == len(pages) * len(WIDTHS)
    assert {name: one for name, one in found.items() if one["wide"] > one["screen"]} == {}
    assert {name: one["cut"] for name, one in found.items() if one["cut"]} == {}
    assert all(one["high"] > 300 for one in found.values())
