"""The page: one file, nothing fetched, nothing of the data taken for mark-up, the verdict first."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import msgspec
import pytest

from seatrial.monitoring.pages.page import Chapter, days_picture, drift_picture, html, story
from seatrial.monitoring.pages.pictures import At, Bar, Dot, Series, Span, bars, calibration_curve, columns, line_chart
from seatrial.monitoring.report import (
    AlarmResult,
    Bin,
    Check,
    ColumnDrift,
    Day,
    Drift,
    Mark,
    Performance,
    Point,
    Report,
    System,
)

NASTY = "<script>alert(1)</script>\"'&\x00\u202e"
START = datetime(2013, 4, 22, 4, tzinfo=UTC)


class Markup(HTMLParser):
    """The elements of a page, and whether each is closed in order."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def report(**changes) -> Report:
    observed = [0.57, 0.46, 0.39, 0.57, 0.46, 0.08, None]
    days = [
        Day(f"2013-04-{22 + i}T04:00:00Z", 900, 880 if value else 0, 0.23, 0.22 if value else None, value)
        for i, value in enumerate(observed)
    ]
    moved = ColumnDrift("temp", "number", 6200, 77000, "ks", 0.31, 1e-90, 0.28, True, 0.0, 0.0, 0.01, 58.2, 38.4)
    empty = ColumnDrift(
        "gone", "number", 0, 77000, "ks", None, None, 0.05, False, 1, 0, 0, note="not enough data: 0 of 200 rows"
    )
    alarm = AlarmResult(
        "calibration gap above 0.1 over 7d",
        "fired",
        "high",
        "calibration_gap",
        0.19,
        0.1,
        "w",
        6300,
        5280,
        "gap",
        "act",
    )
    plain = Report(
        format=1,
        id="report_1",
        model="late",
        task="binary",
        window="2013-04-22T04:00:00Z/2013-04-29T04:00:00Z",
        as_of="2013-04-29T04:00:00Z",
        rows=6300,
        releases={"rel_1": 6300},
        verdict="act",
        headline="Late flights are under-predicted: 42 % were late, the model said 22 %.",
        findings=["84 % of this window's labels have arrived"],
        next="Find out what changed in the world.",
        quality=[Check("range", "temp", False, "12 % outside", "at most 1 %"), Check("ids", "", True, "none", "none")],
        drift=Drift("training rows", [moved, empty], None),
        performance=Performance(
            6300,
            5280,
            {"roc_auc": 0.6, "log_loss": None},
            {},
            {},
            0.22,
            0.42,
            -0.2,
            [Bin(0, 1, 5280, 0.22, 0.42)],
            days,
            {},
        ),
        system=System(6300, 1.0, 2.0, 3000.0, 0.01, None, "failed requests are not in the log"),
        alarms=[alarm],
        marks=[Mark("2013-04-23T09:00:00Z", "alert", "it fired")],
        history=[Point("2013-04-22T04:00:00Z", "w", {"observed": 0.2, "mean_score": 0.22, "log_loss": 0.45})],
    )
    return msgspec.structs.replace(plain, **changes)


def test_the_verdict_and_what_to_do_come_before_everything_else():
    words = Markup(html(report())).words
    places = [
        words.index(text) for text in ("under-predicted", "Find out what changed", "Was the model right", "Alarms")
    ]
    assert places == sorted(places)
    assert "On 5 of 6 days more happened than it said." in words
    assert "84 % of this window's labels have arrived: 5,280 of 6,300." in words


def test_the_page_asks_for_nothing_and_is_small():
    page = html(report())
    assert len(page) < 200_000
    assert [tag for tag, _ in Markup(page).tags if tag in ("script", "link", "img", "iframe", "object", "use")] == []
    addresses = re.findall(r"(?:src|href|action)=|url\(|@import|https?://\S+", page)
    assert set(addresses) == {'http://www.w3.org/2000/svg"'}  # the name of SVG, which nobody fetches


def test_no_text_of_the_data_is_taken_for_mark_up():
    fields = {
        "model": NASTY,
        "headline": NASTY,
        "next": NASTY,
        "findings": [NASTY],
        "releases": {NASTY: 1},
        "id": NASTY,
    }
    fields |= {"owner": NASTY, "on_call": NASTY, "runbook": f"javascript:{NASTY}"}
    fields |= {"quality": [Check(NASTY, NASTY, False, NASTY, NASTY)], "marks": [Mark(report().as_of, "alert", NASTY)]}
    one = report()
    drifted = msgspec.structs.replace(one.drift.columns[0], name=NASTY, note=NASTY)
    fields |= {"drift": Drift(NASTY, [drifted], drifted, NASTY)}
    fields |= {"alarms": [msgspec.structs.replace(one.alarms[0], name=NASTY, evidence=NASTY, action=NASTY)]}
    fields |= {"performance": msgspec.structs.replace(one.performance, note=NASTY, metrics={NASTY: 0.5})}
    fields |= {"system": msgspec.structs.replace(one.system, note=NASTY)}
    page = html(report(**fields))
    markup = Markup(page)
    assert markup.open == []
    assert not any(tag == "script" or any(name.startswith("on") for name in attrs) for tag, attrs in markup.tags)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 15
    assert not set(page) & set("\x00\u202e")
    assert "<script" not in story(NASTY, [NASTY], [Chapter(NASTY, [NASTY], when=NASTY, tone='"><script>')], foot=NASTY)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_report_without_anything_is_a_page_all_the_same(task):
    nothing = Performance(0, 0, {}, {}, {}, None, None, None, [], [], {}, "no predictions in this window")
    empty = report(
        task=task,
        rows=0,
        releases={},
        verdict="unknown",
        findings=[],
        quality=[],
        drift=Drift("", [], None, "no reference to compare with"),
        performance=nothing,
        system=System(0, None, None, None, None, None),
        alarms=[],
        marks=[],
        history=[],
    )
    markup = Markup(html(empty))
    assert markup.open == []
    for words in ("Not known yet", "no predictions in this window", "no reference to compare with", "None is declared"):
        assert words.lower() in markup.words.lower()


def test_a_wide_report_over_years_stays_below_a_megabyte():
    one = report()
    days = [Day(f"{START + timedelta(days=i):%Y-%m-%dT%H:%M:%SZ}", 900, 800, 0.2, 0.2, 0.3) for i in range(1000)]
    wide = [msgspec.structs.replace(one.drift.columns[0], name=f"column_{i}" * 20) for i in range(2000)]
    performance = msgspec.structs.replace(one.performance, days=days)
    page = html(report(performance=performance, drift=Drift("r", wide, None), findings=["x" * 10_000] * 2000))
    assert len(page.encode()) < 1_000_000
    assert "1,700 more columns" in page


def test_pictures_say_in_words_what_they_show_in_colours():
    page = html(report())
    assert "0.31, moved" in Markup(page).words
    assert "not enough data: 0 of 200 rows" in page
    assert 'class="bar beyond"' in page
    assert 'class="hatch"' in page
    pictures = [attrs for tag, attrs in Markup(page).tags if tag == "svg"]
    assert len(pictures) >= 5
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in pictures)


def test_what_had_moved_before_is_no_news():
    one = report()
    columns = [msgspec.structs.replace(one.drift.columns[0], before=True)]
    words = Markup(html(report(drift=Drift("training rows", columns, None)))).words
    assert "0.31, had moved before" in words
    assert "it is no news" in words


def test_a_line_has_a_gap_where_nothing_is_known():
    times = [START + timedelta(days=i) for i in range(5)]
    drawn = line_chart(times, [Series("observed", [0.1, 0.2, None, 0.4, float("nan")], "observed")], title="t")
    assert len(re.findall("<polyline", drawn)) == 2
    assert "nan" not in drawn


def test_marks_outside_of_the_picture_are_left_out_and_the_others_numbered():
    times = [START + timedelta(days=i) for i in range(3)]
    marks = [At(START + timedelta(days=n), f"thing {n}", n == 1) for n in (9, 1, 0)]
    drawn = line_chart(
        times, [Series("a", [1.0, 2.0, 3.0])], title="t", marks=marks, spans=[Span(START, times[-1], "storm")]
    )
    assert "thing 9" not in drawn
    assert re.findall(r"<li><b(?: class=loud)?>(\d)</b>[^<]*: thing (\d)", drawn) == [("1", "0"), ("2", "1")]
    assert ">storm<" in drawn


@pytest.mark.parametrize("value", [0.0, 1e-300, -5.0, 1e15, float("inf"), float("nan"), None])
def test_no_number_breaks_a_picture(value):
    times = [START]
    drawn = [
        line_chart(times, [Series("a", [value], "observed"), Series("b", [0.5], "predicted")], title="t"),
        line_chart(times, [Series("a", [value])], title="t", shown="number"),
        bars([Bar("a", value, 0.1, True), Bar("b", 0.2)], title="t"),
        calibration_curve([Dot(value if value is not None else 0.1, 0.2, 0)], title="t", shown="number"),
        columns(times, [0], [0], title="t", names=("all", "some")),
    ]
    for one in drawn:
        assert Markup(one).open == []
        assert not re.search(r'="[^"]*\b(?:nan|inf)\b', one)


def test_a_story_puts_pictures_of_reports_between_its_words():
    one = report()
    chapter = Chapter(
        "What happened",
        ["The model was wrong."],
        [days_picture(one.performance.days, marks=one.marks), drift_picture(one)],
        "22 April",
        "loud",
    )
    markup = Markup(story("A week in April", ["In short."], [chapter], foot="made of records"))
    assert markup.open == []
    assert [tag for tag, _ in markup.tags].count("svg") == 2
    assert ("section", {"class": "chapter loud"}) in markup.tags


def test_of_several_classes_the_page_tells_how_often_the_model_was_right():
    page = html(report(task="multiclass"))
    assert "How often it was right" in page
    assert "accuracy" in page
    assert "was right" in page
    assert "mean of the labels" not in page
    assert "mean of the labels" in html(report())
