"""Materialize may be killed at any moment, run again, and run twice at once: the store is as if nothing had been."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Project
from seatrial.core.clock import FixedClock, to_us
from seatrial.features.lookup import Lookup
from seatrial.features.materialize import BATCH
from seatrial.features.plan import FeaturePlan, plan_view

SHOPS = 5 * BATCH
NOON = datetime(2024, 2, 1, 12, tzinfo=UTC)
PROJECT = """
    from seatrial import Entity, ParquetSource, agg, feature_view

    sales = ParquetSource("sales.parquet", event_timestamp="sold_at", known_at="known_at", event_key=["receipt"])

    @feature_view(entity=Entity("shop"), source=sales)
    class till:
        count = agg.count(window="36500d")
        total = agg.sum("amount", window="36500d")

    @feature_view(entity=Entity("shop"), source=sales)
    class latest:
        amount = agg.last("amount")
        age = agg.age()
"""


@pytest.fixture(params=["sqlite", "redis"])
def folder(request, tmp_path, monkeypatch):
    """A project whose source has three sales of each shop, the last of which is known only since noon."""
    (tmp_path / "project.py").write_text(textwrap.dedent(PROJECT))
    draw = random.Random(3)
    rows = []
    for shop in range(SHOPS):
        for number in range(3):
            sold = NOON - timedelta(hours=draw.randrange(1, 500))
            known = NOON if number == 2 else sold + timedelta(minutes=5)
            rows.append(
                {"shop": shop, "receipt": f"{shop}-{number}", "sold_at": sold, "known_at": known, "amount": 1.5}
            )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "sales.parquet")
    if request.param == "redis":
        monkeypatch.setenv("SEATRIAL_STORES_ONLINE", request.getfixturevalue("redis_server").address())
    return tmp_path


def materializing(folder, at=NOON):
    """`seatrial materialize` in a process of its own."""
    command = [sys.executable, "-m", "seatrial", "materialize", "--at", at.isoformat(), "--project", str(folder)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def online(project):
    """What the views say of every seventh shop, as of noon and of an hour later."""
    views = {name: plan_view(view) for name, view in project.definitions.views.items()}
    lookup = Lookup(FeaturePlan(views=tuple(views.values())), project.online)
    instants = (to_us(NOON), to_us(NOON + timedelta(hours=1)))
    return [lookup.assemble({"shop": shop}, at_us).views for at_us in instants for shop in range(0, SHOPS, 7)]


def counts(project):
    """How many shops are online, for each view."""
    return [project.online.count(view.digest) for view in project.definitions.views.values()]


def undisturbed(folder, *instants):
    """What a store holds that was materialized up to each instant in turn, in another place."""
    with Project(folder, clock=FixedClock(NOON), online="sqlite:///undisturbed.db") as project:
        for at in instants:
            project.materialize(at=at)
        return online(project)


@pytest.mark.slow
def test_one_that_was_killed_at_any_point_is_made_good_by_the_next(folder):
    with Project(folder, clock=FixedClock(NOON)) as project:
        project.snapshot()
        draw = random.Random(5)
        for _ in range(4):
            before = counts(project)
            process = materializing(folder)
            while process.poll() is None and counts(project) == before != [SHOPS, SHOPS]:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.1))
            process.kill()
            process.communicate()
            assert all(count % BATCH == 0 for count in counts(project))  # whole batches only
        project.materialize(at=NOON)
        assert online(project) == undisturbed(folder, NOON)
        again = project.materialize(at=NOON)
        assert [one.written for one in again] == [0, 0]


@pytest.mark.slow
def test_two_at_once_of_which_one_is_older_leave_what_the_newer_says(folder):
    hour_before = NOON - timedelta(hours=1)
    with Project(folder, clock=FixedClock(NOON)) as project:
        project.snapshot()
        both = [materializing(folder, at) for at in (NOON, hour_before)]
        for process in both:
            _, said = process.communicate()
            assert process.returncode == 0, said
        assert online(project) == undisturbed(folder, NOON)
        project.materialize(at=hour_before)
        assert online(project) == undisturbed(folder, NOON)
