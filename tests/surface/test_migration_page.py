"""docs/migration.md: its code runs, from the file of features to the answer."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from seatrial import surface
from tests.house.tree import ROOT
from tests.surface.worlds import at, write

PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    (tmp_path / "shop").mkdir()
    history = [
        {"customer_id": n, "event": at("01-10T00:00"), "spend": float(random.uniform(1, 100)), "visits": n % 9 + 1}
        for n in range(600)
    ]
    write(tmp_path / "shop" / "customers.parquet", history)
    labels = pd.DataFrame({"customer_id": range(600), "asked_at": pd.Timestamp(at("01-15T00:00"))})
    labels["left"] = [int(row["spend"] / row["visits"] + random.normal() > 10) for row in history]
    new_rows = [
        {"customer_id": 1, "spend": 40.0, "visits": 2, "event_timestamp": time, "created_timestamp": time}
        for time in [pd.Timestamp.now("UTC").to_pydatetime()]
    ]
    names = {"labels": labels, "new_rows": new_rows}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    assert capsys.readouterr().out.startswith("1 0.9")
    assert names["response"].request_id == "r-1"
    names["server"].close()
    names["store"].close()


def test_the_page_names_everything_that_there_is():
    assert [name for name in surface.__all__ if name not in PAGE and not name.endswith(("Result", "Response"))] == []


def test_no_tutorial_and_no_readme_speaks_of_the_surface():
    others = [page for page in (ROOT / "docs").rglob("*.md") if page.name not in ("migration.md", "errors.md")]
    readme = ROOT / "README.md"
    pages = [*others, *([readme] if readme.exists() else [])]
    assert [page.name for page in pages if "TrainingPipeline" in page.read_text(encoding="utf-8")] == []
