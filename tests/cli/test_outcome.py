"""A proposed retraining in the terminal: where it stands, and what its newest look compared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from seatrial import Project
from seatrial.cli import run
from seatrial.core.clock import iso, to_us
from seatrial.core.records import Record
from seatrial.retraining.comparison import Change, Comparison, DayGain
from seatrial.retraining.proposal import keep_comparison, newest, open_proposal
from seatrial.testing import FakeClock
from tests.retraining.worlds import made

START = datetime(2024, 1, 16, tzinfo=UTC)
CHAMPION, CHALLENGER = "rel_" + "0" * 32, "rel_" + "1" * 32


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def looked(days: int, **changes) -> Comparison:
    """Champion against challenger after so many days."""
    given = {
        "model": "late", "champion": CHAMPION, "challenger": CHALLENGER, "start": iso(day(0)), "as_of": iso(day(days)),
        "rows": 200 * days, "loss": "log_loss", "better_days": days, "gain": 0.13, "low": 0.11, "high": 0.15,
        "days": [DayGain(iso(day(number)), 200, 0.1 + number / 100) for number in range(days)],
        "champion_metrics": {"accuracy": 0.6476, "log_loss": 0.6596, "recall": 0.24, "roc_auc": 0.6441},
        "challenger_metrics": {"accuracy": 0.6476, "log_loss": 0.5299, "recall": None, "roc_auc": 0.8079},
        "verdict": "better", "final": False,
    }  # fmt: skip
    return Comparison(**given | changes)


@pytest.fixture
def shown(tmp_path, capsys):
    """Run `seatrial proposals ...` on a project with one proposal and these looks."""

    def show(looks=(), words=("show", "late"), **facts):
        (tmp_path / "project.py").write_text("")
        with Project(tmp_path, clock=FakeClock(day(0)), actor="ada") as project:
            project.found()
            with project.metadata.transaction() as transaction:
                for name in (CHAMPION, CHALLENGER):
                    transaction.add(Record(name, "release", "late", (), {"of": name}))
                record = open_proposal(
                    transaction, model="late", reasons=[], words="x matters now", champion=CHAMPION, deployment="late",
                    generation=1, actor="ada", at_us=to_us(day(0)),
                )  # fmt: skip
                body = {"run": None, "release": CHALLENGER}
                transaction.event("proposal.trained", record.id, actor="ada", at_us=to_us(day(0)), body=body)
            for look in looks:
                with project.metadata.transaction() as transaction:
                    facts = {"actor": "ada", "at_us": to_us(day(len(look.days)))}
                    keep_comparison(transaction, newest(project.metadata, "late"), look, **facts)
            id = record.id
        assert run(["proposals", *(id if word == "late" else word for word in words), "--project", str(tmp_path)]) == 0
        return capsys.readouterr().out.replace(id, "PROP")

    return show


def test_before_the_first_look_a_proposal_is_shown_with_why_and_what_comes_next(shown):
    lines = shown().splitlines()
    assert lines[:5] == [
        "proposal PROP, judging",
        "  why        x matters now",
        "  proposed   2024-01-16 by ada (asserted)",
        f"  champion   {CHAMPION}, generation 1 of 'late'",
        f"  challenger {CHALLENGER}",
    ]
    assert lines[5].startswith("Next: seatrial retrain late compare")
    assert len(lines) == 6


def test_the_newest_look_is_shown_whole_metrics_days_and_margins(shown):
    within = Change("log_loss", "all rows", 600, 0.66, 0.53, -0.13, 0.02, "within")
    beyond = Change("positive_rate", "where=north", 250, 0.15, 0.28, 0.13, 0.05, "beyond")
    few = Change("positive_rate", "where=south", 40, None, None, None, 0.05, "too few")
    text = shown([looked(2, verdict="too early"), looked(3, changes=[within, beyond, few])])
    before, *parts, after = text.split("\n\n")
    assert [line.split(":")[0] for line in before.splitlines() if "look " in line] == [
        "  look       2024-01-18",
        "  look       2024-01-19",
    ]
    assert "\n  beyond     positive_rate of where=north" in before
    assert parts[0].splitlines() == [
        "Both on the same rows of history, 600 with a label, 2024-01-16 to 2024-01-19",
        "metric    champion  challenger  change",
        "roc_auc      0.644       0.808  +0.164",
        "log_loss     0.660       0.530  -0.130",
        "accuracy     0.648       0.648  0.000",
        "recall       0.240           -",
    ]
    assert parts[1].splitlines() == [
        "day         labels  log_loss lower by",
        "2024-01-16     200              0.100",
        "2024-01-17     200              0.110",
        "2024-01-18     200              0.120",
    ]
    assert parts[2].splitlines() == [
        "metric         in           rows  champion  challenger  margin",
        "log_loss       all rows      600     0.660       0.530   0.020  within",
        "positive_rate  where=north   250     0.150       0.280   0.050  BEYOND",
        "positive_rate  where=south    40         -           -   0.050  too few",
    ]
    assert after == f"Next: seatrial approve {CHALLENGER} --reason TEXT\n"


def test_days_on_which_the_loss_went_up_have_a_head_that_says_which_sign_that_is(shown):
    days = [DayGain(iso(day(number)), 200, 0.1 - number / 10) for number in range(3)]
    text = shown([replace(looked(3, gain=-0.01, low=-0.02, high=0.005), days=days)])
    assert "log_loss lower by (-: higher by)" in text
    assert "log_loss higher by 0.0100 a day on average (95 % between -0.0050 and 0.0200)" in " ".join(text.split())


def test_of_many_days_the_newest_are_shown_and_live_requests_are_called_so(shown):
    text = shown([looked(20, shadow="live")])
    assert "Both on the same live requests, 4,000 with a label" in text
    assert "the last 14 of 20 days" in text
    assert ("2024-01-21  " in text, "2024-01-22  " in text) == (False, True)


def test_a_look_without_a_label_has_no_tables(shown):
    nothing = {"rows": 0, "champion_metrics": {}, "challenger_metrics": {}}
    text = shown([looked(0, **nothing, verdict="too early", gain=None, low=None, high=None, needed=7)])
    assert "Both on the same rows of history, 0 with a label" in text
    assert "metric" not in text


def test_proposals_are_listed_in_80_columns(shown):
    lines = shown(words=["list"]).splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["proposal", "model", "opened", "state", "trigger"],
        ["PROP", "late", "2024-01-16", "judging", "manual"],
    ]
    assert lines[2] == "Next: seatrial proposals show PROP"


def test_a_rejected_proposal_without_a_challenger_is_told_without_a_release(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SEATRIAL_STORES_MLFLOW", "")
    monkeypatch.setenv("SEATRIAL_POLICY_APPROVAL", "none")
    with made(tmp_path) as project:
        id = project.retrain("late", reason="x matters now").proposal.id
    assert run(["reject", "late", "--reason", "not now", "--project", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"rejected: proposal {id}, which has no challenger, for 'late'")
    assert "rel_" not in told
