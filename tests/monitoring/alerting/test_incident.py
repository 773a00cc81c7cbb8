"""Incidents: what people and loops did around an alert stands in its timeline, in order and in words."""

from __future__ import annotations

from html import unescape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Canary, Guardrail
from seatrial.monitoring.pages.incident import html
from tests.verbs.test_steering import ADA, EVE, opened, parcels, window

CANARY = Canary([10, 50, 100], min_rows=100, guardrails=[Guardrail.mean_score(0.9)])


@pytest.mark.slow
def test_the_timeline_holds_rollouts_approvals_retrainings_and_what_changed_in_the_data(tmp_path):
    def at(day, actor=ADA):
        return opened(tmp_path, day, actor, strategy=CANARY)

    pq.write_table(parcels(), tmp_path / "parcels.parquet")
    with at(15) as project:
        first = project.release(project.train().run).id
    with at(15, EVE) as project:
        project.approve(first, reason="every gate passed")
    with at(15) as project:
        project.deploy("late")
    with at(27) as project:
        project.predict_batch("late", window(15, 27))
        project.label("late")
        project.monitor("late")
        alert = next(one for one in project.alerts("late") if one.alarm.startswith("calibration gap"))
        project.retrain("late")
        project.retrain("late", "train")
        second = project.metadata.records("release", "late", newest=1)[0].id
    with at(36) as project:
        assert project.retrain("late", "compare").proposal.state == "better"
    with at(36.25, EVE) as project:
        project.approve("late", reason="it knows the season")
    with at(36.5) as project:
        project.promote("late")
    with at(37) as project:
        random = np.random.default_rng(3)
        project.predict("late", [{"size": float(one), "season": 1.0} for one in random.normal(size=1500)])
    with at(37.75) as project:
        assert project.deployment_advance("late").analysis.verdict == "advance"
    with at(38) as project:
        project.rollback("late", reason="the belt stands")
    with at(38.5) as project:
        rows = parcels()
        thinned = pa.array(np.where(np.arange(len(rows)) % 3, rows["size"].to_numpy(), np.nan), from_pandas=True)
        pq.write_table(
            rows.set_column(rows.schema.get_field_index("size"), "size", thinned), tmp_path / "parcels.parquet"
        )
        project.snapshot()
    with at(39) as project:
        found = project.incident(alert.id)
    told = [
        (one.at[5:16], one.kind, one.actor, one.words.replace(first, "R1").replace(second, "R2"))
        for one in found.moments
        if one.kind in ("deployment", "approval", "retraining", "data")
    ]
    one, two, both = "version 1 (R1)", "version 2 (R2)", "version 1 (R1) and version 2 (R2)"
    expected = [
        ("01-16T00:00", "data", ADA, "new rows of 'parcels'"),
        ("01-16T00:00", "approval", EVE, f"approved {one}: every gate passed"),
        ("01-16T00:00", "deployment", ADA, f"'late' deployed {one}"),
        ("01-28T00:00", "retraining", ADA, "retraining opened: calibration gap over 5d: "),
        ("01-28T00:00", "retraining", ADA, "retraining trained"),
        ("02-06T00:00", "retraining", ADA, "retraining compared: better: log_loss lower by "),
        ("02-06T06:00", "approval", EVE, f"approved {two}: it knows the season"),
        ("02-06T06:00", "retraining", EVE, "retraining approved"),
        ("02-06T12:00", "deployment", ADA, f"'late' deployed {both}"),
        ("02-07T18:00", "deployment", ADA, "rollout of 'late': advance, every guardrail is within its margin"),
        ("02-07T18:00", "deployment", ADA, f"'late' rollout advanced {both}: "),
        ("02-08T00:00", "deployment", ADA, f"'late' rolled back to {one}: the belt stands"),
        ("02-08T00:00", "retraining", ADA, "retraining rolled back: the belt stands"),
        ("02-08T12:00", "data", ADA, "new rows of 'parcels': 33.3% of size is missing, it was 0%"),
    ]
    assert [moment[:3] for moment in told] == [moment[:3] for moment in expected]
    for (*_, words), (*_, start) in zip(told, expected, strict=True):
        assert words.startswith(start)
    assert [one.words[:11] for one in found.moments[-4:] if one.tone == "bad"] == ["'late' roll", "new rows of"]
    shown = html(found)
    assert all(one.words.split(":")[0] in unescape(shown) for one in found.moments)
