"""Statistics of features: right by an oracle, about the values that a model meets, and kept by what they say."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial import Entity, FrameSource, ParquetSource, Project, agg, feature_view, sql
from seatrial.cli import run
from seatrial.core.clock import FixedClock, iso, to_us
from seatrial.core.errors import UsageError
from seatrial.core.windows import Window
from seatrial.features.statistics import NoRowsInRange, histogram, number_spread, text_spread, view_statistics
from seatrial.monitoring.pages.feature import html
from seatrial.monitoring.pages.pictures import tick_texts

TIME = pa.timestamp("us", tz="UTC")
START = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = Window(to_us(START), to_us(START + 24 * HOUR))
numbers = st.lists(st.none() | st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1.0, 2.0]), max_size=60)


def sales(rows=48):
    """A sale every hour, in shops a and b in turn; every fifth amount is missing."""
    at = [START + n * HOUR for n in range(rows)]
    return pa.table(
        {
            "receipt": pa.array(range(rows)),
            "shop": pa.array([("a", "b")[n % 2] for n in range(rows)]),
            "sold_at": pa.array(at, TIME),
            "told_at": pa.array([one + 3 * HOUR for one in at], TIME),
            "amount": pa.array([None if n % 5 == 0 else float(n) for n in range(rows)]),
            "kind": pa.array([None if n == 3 else ("food", "toys", "food")[n % 3] for n in range(rows)]),
        }
    )


def view(source=None, **features):
    times = {"event_timestamp": "sold_at", "event_key": ["receipt"]}
    source = source or FrameSource(sales(), name="sales", **times)
    body = features or {
        "amount": agg.last("amount"),
        "kind": agg.last("kind"),
        "count_4h": agg.count(window="4h"),
    }
    return feature_view(entity=Entity("shop"), source=source)(type("till", (), body))


def of(found, feature):
    return next(one for one in found.features if one.feature == feature)


@given(numbers)
def test_numbers_have_the_statistics_that_pandas_says(values):
    found = number_spread(np.array([math.nan if value is None else value for value in values]))
    expected = pd.Series(values, dtype=float)
    assert found["count"] == len(values)
    assert found["distinct_count"] == expected.nunique()
    if not values:
        assert found["null_rate"] is None
        return
    assert found["null_rate"] == pytest.approx(expected.isna().mean())
    if expected.notna().any():
        for name, value in (
            ("mean", expected.mean()),
            ("min", expected.min()),
            ("max", expected.max()),
            ("p25", expected.quantile(0.25)),
            ("p50", expected.quantile(0.5)),
            ("p75", expected.quantile(0.75)),
        ):
            assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9)
        assert sum(found["counts"]) == expected.notna().sum()
    else:
        assert "mean" not in found


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=40))
def test_a_histogram_counts_every_finite_value_once_between_its_edges(values):
    finite = [value for value in values if math.isfinite(value)]
    edges, counts = histogram(np.array(values))
    assert sum(counts) == len(finite)
    assert len(edges) == (len(counts) + 1 if finite else 0)
    if finite:
        assert (edges[0], edges[-1]) == (min(finite), max(finite))
        assert all(a <= b for a, b in pairwise(edges))


def test_texts_have_their_most_frequent_values_and_how_many_there_are():
    found = text_spread(["b", "a", None, "a", *map(str, range(20))])
    assert found["most"][:2] == [("a", 2), ("0", 1)]
    assert len(found["most"]) == 10
    assert (found["count"], found["distinct_count"]) == (24, 22)
    assert found["null_rate"] == pytest.approx(1 / 24)


def test_a_last_value_is_described_by_the_rows_of_the_stretch():
    found = view_statistics(view(), sales(), DAY)
    assert found.rows == 24
    amount = of(found, "amount").whole
    values = pd.Series(sales()["amount"].to_pylist()[:24], dtype=float)
    assert (amount.count, amount.null_rate, amount.mean) == (24, values.isna().mean(), values.mean())
    assert of(found, "kind").kind == "text"
    assert dict(of(found, "kind").whole.most) == {"food": 15, "toys": 8}


def test_a_window_is_described_as_a_model_meets_it():
    """In each shop a sale every second hour: at each one there are two in the last four hours, but at the first."""
    found = of(view_statistics(view(), sales(), DAY), "count_4h").whole
    assert (found.min, found.max) == (1.0, 2.0)
    assert found.mean == pytest.approx((2 * 1 + 22 * 2) / 24)


def test_a_row_counts_from_when_it_was_known():
    source = FrameSource(sales(), name="sales", event_timestamp="sold_at", known_at="told_at", event_key=["receipt"])
    found = view_statistics(view(source, amount=agg.last("amount")), sales(), DAY)
    values = pd.Series(sales()["amount"].to_pylist()[:24], dtype=float)
    assert of(found, "amount").whole.mean == values.mean()  # not what was known when it happened, three hours behind


def test_pieces_add_up_to_the_whole_and_the_last_may_be_shorter():
    found = of(view_statistics(view(), sales(), DAY, by_us=to_us(START + 7 * HOUR) - to_us(START)), "amount")
    assert [piece.count for piece in found.buckets] == [7, 7, 7, 3]
    assert found.buckets[0].start == iso(START)
    assert found.buckets[-1].end == iso(START + 24 * HOUR)


def test_too_many_pieces_are_refused():
    with pytest.raises(UsageError, match="1,440 pieces"):
        view_statistics(view(), sales(), DAY, by_us=60_000_000)


def test_a_stretch_without_events_is_refused():
    later = Window(DAY.end_us + 10 * (DAY.end_us - DAY.start_us), DAY.end_us + 11 * (DAY.end_us - DAY.start_us))
    with pytest.raises(NoRowsInRange, match="'till'"):
        view_statistics(view(), sales(), later)


def test_the_number_of_threads_changes_nothing_and_the_stretch_is_part_of_the_id():
    one = view_statistics(view(), sales(), DAY)
    assert one == view_statistics(view(), sales(), DAY, threads=4)
    assert one.id.startswith("stat_")
    assert one.id != view_statistics(view(), sales(), Window(DAY.start_us, DAY.end_us - 1)).id


@pytest.fixture
def folder(tmp_path):
    pq.write_table(sales(), tmp_path / "sales.parquet")
    (tmp_path / "seatrial.toml").write_text('[stores]\nmlflow = ""\n')
    (tmp_path / "project.py").write_text(
        "from seatrial import Entity, ParquetSource, agg, feature_view\n"
        "sales = ParquetSource('sales.parquet', event_timestamp='sold_at', event_key=['receipt'])\n"
        "@feature_view(entity=Entity('shop'), source=sales)\n"
        "class till:\n"
        "    amount = agg.last('amount')\n"
        "    kind = agg.last('kind')\n"
        "    count_4h = agg.count(window='4h')\n"
    )
    return tmp_path


def test_what_was_described_is_kept_once_and_listed(tmp_path):
    pq.write_table(sales(), tmp_path / "sales.parquet")
    source = ParquetSource("sales.parquet", event_timestamp="sold_at", event_key=["receipt"])
    with Project(tmp_path, clock=FixedClock(START), definitions=[view(source)]) as project:
        one, same = (project.feature_stats("till", DAY, by="12h") for _ in range(2))
        other = project.feature_stats("till", DAY)
        assert one == same
        assert [kept["id"] for kept in project.feature_stats_kept("till")] == [one.id, other.id]
        assert project.feature_stats_kept("other") == []
        assert len(project.metadata.events(kind="statistics.computed")) == 2


def test_the_command_describes_a_view_and_lists_what_was_kept(folder, capsys):
    words = ["features", "stats", "till", "--project", str(folder), "--json"]
    span = ["--start", iso(START), "--end", iso(START + 24 * HOUR)]
    assert run([*words, *span, "--by", "6h", "--html", str(folder / "page.html")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["feature"] for one in found["features"]] == ["amount", "kind", "count_4h"]
    assert [piece["count"] for piece in found["features"][0]["buckets"]] == [6, 6, 6, 6]
    page = (folder / "page.html").read_text()
    assert page.count("<section id=") == 3
    assert run(words) == 0
    (kept,) = json.loads(capsys.readouterr().out)
    assert (kept["id"], kept["rows"]) == (found["id"], 24)
    assert run([*words[:-1], *span, "--by", "6h"]) == 0
    told = capsys.readouterr().out
    assert found["id"] in told
    assert "food 15" in told


@pytest.mark.parametrize(
    "words", [["till", "--start", "2024-03-01T00:00Z"], ["--start", "2024-03-01T00:00Z"], ["till", "--by", "1d"]]
)
def test_half_a_stretch_of_time_is_a_usage_error(folder, words, capsys):
    assert run(["features", "stats", *words, "--project", str(folder)]) == 2
    assert capsys.readouterr().out == ""


def test_the_page_asks_nothing_from_anywhere_and_escapes_what_it_shows():
    rows = sales().set_column(5, "kind", pa.array(["<script>alert(1)</script>"] * 48))
    page = html(view_statistics(view(), rows, DAY, by_us=3_600_000_000 * 6))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "default-src 'none'" in page
    assert page.count('class="bar"') > 20
    assert "prefers-color-scheme: dark" in page


def test_a_feature_without_any_value_is_described_and_drawn():
    rows = sales().set_column(4, "amount", pa.nulls(48, pa.float64()))
    found = view_statistics(view(), rows, DAY)
    amount = of(found, "amount").whole
    assert (amount.null_rate, amount.mean, amount.counts, amount.distinct_count) == (1.0, None, [], 0)
    assert "no value to draw" in html(found)


def test_one_value_far_out_does_not_hide_the_others_in_one_bin():
    values = np.concatenate([np.linspace(0, 1, 999), [1e6]])
    edges, counts = histogram(values)
    assert (edges[0], edges[-1], sum(counts)) == (0.0, 1e6, 1000)
    assert max(counts) < 100
    assert edges[-2] == pytest.approx(0.99, abs=0.01)  # the last bin reaches out
    found = view_statistics(
        view(), sales().set_column(4, "amount", pa.array([float(n == 7) * 1e6 + n for n in range(48)])), DAY
    )
    assert f"{of(found, 'amount').whole.max:,.0f}</text>" in html(found)


def test_a_last_value_that_is_a_time_has_a_first_and_a_last(tmp_path):
    table = sales()
    found = view_statistics(view(told=agg.last("told_at"), day=agg.last(sql("CAST(told_at AS DATE)"))), table, DAY)
    told, day = of(found, "told"), of(found, "day")
    assert (told.kind, told.whole.mean, told.whole.counts) == ("time", None, [])
    assert (told.whole.min, told.whole.max) == ("2024-03-01T03:00:00Z", "2024-03-02T02:00:00Z")
    assert (day.whole.distinct_count, day.whole.min) == (2, "2024-03-01T00:00:00Z")
    page = html(found)
    assert "<dt>first</dt><dd>2024-03-01T03:00:00Z</dd>" in page
    assert "<dt>mean</dt>" not in page


def test_a_page_of_many_features_begins_with_a_table_of_links():
    few = {f"sum_{n}h": agg.sum("amount", window=f"{n}h") for n in range(1, 7)}
    assert '<a href="#' not in html(view_statistics(view(**few), sales(), DAY))
    page = html(view_statistics(view(**few, kind=agg.last("kind")), sales(), DAY))
    for name in (*few, "kind"):
        assert f'<a href="#{name}">' in page
        assert f'<section id="{name}">' in page
    assert "from 2024-03-01 to 2024-03-02</h1>" in page


def test_ticks_of_small_shares_are_told_apart():
    assert tick_texts([0.0, 0.0005, 0.001], "share") == ["0.00 %", "0.05 %", "0.10 %"]
