"""Gauges: Prometheus' own tool takes them, whatever a project or a model is called."""

from __future__ import annotations

import subprocess

import pytest

from seatrial.export.gauges import HELP, Watched, text, write

FULL = Watched(
    'the "fare"\n\\ of Zürich',
    alerts={"high": 2},
    muted=1,
    incident=True,
    reported_at=1.7e9,
    verdict="act",
    drifted=0.25,
    labelled=0.5,
    labels_at=1.7e9,
    predicted_at=1.7e9,
    missed={"labels": True, "view carrier": False},
)


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("watched", [[], [Watched("late")], [FULL, Watched("late")]])
def test_promtool_finds_no_fault(watched):
    told = text("parcels", watched, heartbeat=1.7e9, undelivered=3)
    done = subprocess.run(["promtool", "check", "metrics"], input=told.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_is_not_known_is_left_out_and_what_is_known_is_there():
    told = text("parcels", [Watched("late")], heartbeat=1.7e9, undelivered=0)
    assert 'seatrial_open_alerts{project="parcels",model="late",severity="high"} 0' in told
    assert "seatrial_report_verdict" not in told
    assert "seatrial_labels_timestamp_seconds" not in told
    every = text("parcels", [FULL], heartbeat=1.7e9, undelivered=0)
    assert all(f"# TYPE {name} gauge" in every for name in HELP)


def test_the_file_appears_whole_and_others_can_read_it(tmp_path):
    path = write(tmp_path, "flights/2013 ü", "a 1\n")
    assert path.name == "seatrial_flights_2013__.prom"
    assert path.stat().st_mode & 0o777 == 0o644
    write(tmp_path, "flights/2013 ü", "a 2\n")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(path.name, "a 2\n")]
