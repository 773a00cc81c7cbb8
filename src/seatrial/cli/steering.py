"""The verbs after the prediction: labels, reports, retraining, decisions, and a close look at one prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from seatrial.cli import alerting, talk
from seatrial.cli.door import BadCommandLine, Invocation, as_window
from seatrial.cli.nouns import NOUNS
from seatrial.cli.pages import write_page
from seatrial.cli.verbs import verb

DATABASES = ("postgresql://", "postgres://", "${")
NAMES = ("ks", "wasserstein", "js", "psi", "chi2", "tv")  # of stats.distances, which loads numpy

if TYPE_CHECKING:
    from seatrial.core.windows import Window
    from seatrial.monitoring.alerting.alerts import Alert
    from seatrial.monitoring.report import Report

EXPECT = click.option(
    "--expect", "expected", type=click.IntRange(min=0), metavar="GENERATION", help="Only if this is still the present."
)


@verb("label")
@click.argument("model", required=False)
@click.argument("rows", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def label(call: Invocation, model: str | None, rows: Path | None) -> None:
    """ROWS is a .parquet, .csv or .jsonl file with prediction_id, request_id or the model's key, and the target.
    Without it, what the model's label source holds that is known by now and was not told yet is told."""
    from seatrial.cli import outcome

    if rows is None and model is not None and model.endswith((".parquet", ".csv", ".jsonl")):
        rows, model = Path(model), None
    with call.project() as project:
        with talk.Progress() as progress:
            told = project.label(model, rows, progress=progress)
        call.answer(told, outcome.labelled)


@verb("monitor")
@click.argument("model", required=False)
@click.option("--window", callback=as_window, metavar="START/END", help="Predictions of it (default: the last 7 days).")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page as well.")
@click.option("--dry-run", is_flag=True, help="Report only: keep nothing, open and resolve no alert.")
@click.option(
    "--against", metavar="WHAT", help="Compare with: training (default), champion, 7d (before the window), START/END."
)
@click.option(
    "--distance", "distances", multiple=True, type=click.Choice(NAMES), help="Show this distance of inputs as well."
)
@click.option("--fail-on", type=alerting.LEVEL, help="End with 3 when such an alarm fired.")
@click.option("--rehearse", is_flag=True, help="Replay the policy on the past instead: alarms, incidents, thresholds.")
@click.option("--over", metavar="DURATION", help="With --rehearse: how far back (default: 28d).")
@click.option("--log", metavar="PATH|URL", help="A log from elsewhere, or postgresql://...; no project is needed.")
@click.option("--table", help="With --log postgresql://...: the table of predictions; only aggregates leave it.")
@click.option("--query", metavar="SELECT", help="In place of --table.")
@click.option("--map", "mapping", type=click.Path(path_type=Path), help="With --log: which columns mean what (TOML).")
@click.option("--reference", type=click.Path(path_type=Path), help="With --log: rows to compare with.")
@click.option("--labels", type=click.Path(path_type=Path), help="With --log: labels that lie in another file.")
@click.option("--detail", is_flag=True, help="Every section with its numbers.")
@click.pass_obj
def monitor(
    call: Invocation,
    model: str | None,
    window: Window | None,
    html: Path | None,
    dry_run: bool,
    against: str | None,
    distances: tuple[str, ...],
    fail_on: str | None,
    rehearse: bool,
    over: str | None,
    log: str | None,
    table: str | None,
    query: str | None,
    mapping: Path | None,
    reference: Path | None,
    labels: Path | None,
    detail: bool,
) -> None:
    """Data quality, drift, performance with the labels known so far, calibration, latency, alarms. Compares with the
    training rows of the release, or with what --against says; then nothing is kept. Alerts are opened, continued and
    resolved.

    With --log and --map the same for a model that is served elsewhere: `--log` is a Parquet or CSV file, or a log
    folder that `PredictionLog(...).write(...)` made. Where the rows may not leave PostgreSQL, `--log postgresql://...`
    or `--log '${DATABASE_URL}'` with --table or --query asks it for aggregates."""
    from seatrial.cli import report as rendering
    from seatrial.monitoring.alerting.rules import of_rules

    fresh: list[Alert] = []
    if over and not rehearse:
        raise BadCommandLine("--over goes with --rehearse.", state="Nothing was done.")
    if log is None and (mapping or reference or labels or table or query):
        raise BadCommandLine(
            "--map, --reference, --labels, --table and --query go with --log.", state="Nothing was done."
        )
    if log is not None and model is not None:
        raise BadCommandLine(
            f"'{model}' is named beside --log.",
            expected="The map says which model a log is of.",
            state="Nothing was done.",
        )
    if log is not None and not log.startswith(DATABASES) and (table or query):
        raise BadCommandLine("--table and --query go with --log postgresql://...", state="Nothing was done.")
    if rehearse:
        if window or html or fail_on or against or distances or detail:
            raise BadCommandLine(
                "--rehearse makes no report.",
                expected="--window, --html, --fail-on, --against, --distance and --detail are for one.",
                state="Nothing was done.",
            )
        _rehearse(call, model, over or "28d", log, mapping, reference, labels)
        return
    if log is not None:
        report = _elsewhere(call, log, (table, query), mapping, reference, labels, window, against)
    else:
        with call.project() as project:
            report = project.monitor(model, window=window, keep=not dry_run, against=against or "training")
            fresh = [one for one in project.alerts(report.model) if report.id and one.report == report.id]
    told = alerting.opened(fresh)
    call.answer(report, lambda _: [*rendering.monitor_lines(report, distances, detail=detail), *told])
    _page(html, report)
    looked = [*report.alarms, of_rules(report)]  # a hard rule that failed pages, as an alarm of severity high does
    fired = [(one.name, one.severity) for one in looked if one.state == "fired"]
    alerting.refuse_fired(fired, fail_on, "The report was made.")


@NOUNS["reports"].command("list")
@click.argument("model", required=False)
@click.pass_obj
def reports_list(call: Invocation, model: str | None) -> None:
    """List the reports that were kept, all or those of MODEL, oldest first."""
    from seatrial.cli import report as rendering

    with call.project() as project:
        call.answer(project.reports(model), rendering.listing)


@NOUNS["reports"].command("show")
@click.argument("id")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page as well.")
@click.option("--detail", is_flag=True, help="Every section with its numbers.")
@click.pass_obj
def reports_show(call: Invocation, id: str, html: Path | None, detail: bool) -> None:
    """Show a report as it was made, such as the one in which an alarm rang. ID is its id, the start of it, or a model:
    then its newest is meant. Nothing is looked at anew."""
    from seatrial.cli import report as rendering

    with call.project() as project:
        report = project.report_show(id)
    call.answer(report, lambda _: rendering.monitor_lines(report, detail=detail))
    _page(html, report)


def _rehearse(
    call: Invocation,
    model: str | None,
    over: str,
    log: str | None,
    mapping: Path | None,
    reference: Path | None,
    labels: Path | None,
) -> None:
    from seatrial.cli import rehearsed
    from seatrial.core.clock import machine_us, to_us
    from seatrial.core.windows import duration_us
    from seatrial.monitoring.imported import rehearse_log

    if log is None:
        with call.project() as project:
            done = project.rehearse(model, over=over)
        call.answer(done, lambda _: rehearsed.lines(done))
        return
    if mapping is None:
        raise BadCommandLine("--log needs --map.", next="See docs/monitoring.md.", state="Nothing was done.")
    if log.startswith(DATABASES):
        raise BadCommandLine(
            "--rehearse replays rows, and rows of a database do not leave it.",
            next="Give a Parquet file of them.",
            state="Nothing was done.",
        )
    as_of_us = to_us(call.at) if call.at else machine_us()
    found = rehearse_log(Path(log), mapping, reference, as_of_us=as_of_us, over_us=duration_us(over), labels=labels)
    call.answer(found, lambda _: rehearsed.lines(found))


def _elsewhere(
    call: Invocation,
    log: str,
    rows: tuple[str | None, str | None],
    mapping: Path | None,
    reference: Path | None,
    labels: Path | None,
    window: Window | None,
    against: str | None,
) -> Report:
    from seatrial.core.clock import machine_us, to_us
    from seatrial.monitoring.imported import monitor_log

    if mapping is None:
        raise BadCommandLine(
            "--log needs --map, a TOML file that says which column is the time, the score and so on.",
            next="See docs/monitoring.md, or examples/adopt/monitor_only.",
            state="Nothing was done.",
        )
    as_of_us = to_us(call.at) if call.at else machine_us()
    if log.startswith(DATABASES):
        return _in_database(log, *rows, mapping, reference, labels, as_of_us=as_of_us, window=window, against=against)
    return monitor_log(Path(log), mapping, reference, as_of_us=as_of_us, window=window, labels=labels, against=against)


def _in_database(
    url: str,
    table: str | None,
    query: str | None,
    mapping: Path,
    reference: Path | None,
    labels: Path | None,
    *,
    as_of_us: int,
    window: Window | None,
    against: str | None,
) -> Report:
    from seatrial.data.sources import PostgresSource
    from seatrial.monitoring.in_database import monitor_database

    if (table is None) == (query is None):
        raise BadCommandLine(
            "a log in PostgreSQL needs --table or --query, and not both.",
            expected='Such as --table shop.predictions, or --query "SELECT * FROM shop.predictions WHERE ...".',
            state="Nothing was done.",
        )
    if labels is not None:
        raise BadCommandLine(
            "--labels is a file, and the predictions stay in PostgreSQL.",
            expected="Join the labels in --query, and name their column in the map.",
            state="Nothing was done.",
        )
    source = PostgresSource(name=table or "query", url=url, table=table, sql=query)
    return monitor_database(source, mapping, reference, as_of_us=as_of_us, window=window, against=against)


def _page(path: Path | None, report: Report) -> None:
    """Write the report as a page as well, where one is asked for."""
    from seatrial.monitoring.pages.page import html

    if path is not None:
        write_page(path, html(report))


@verb("retrain")
@click.argument("model", required=False)
@click.argument("step", type=click.Choice(["propose", "train", "compare", "advance"]), default="propose")
@click.option("--reason", default="", metavar="TEXT", help="Why; with it a person may propose without a trigger.")
@click.pass_obj
def retrain(call: Invocation, model: str | None, step: str, reason: str) -> None:
    """STEP propose asks the triggers and only proposes; train fits, judges and packs the challenger of the open
    proposal; compare looks at it beside the champion once more; advance does whatever comes next, for schedules. What
    goes live is decided by approve and promote, unless the model's Retrain says otherwise."""
    from seatrial.cli import outcome

    if model in ("train", "compare", "propose", "advance"):
        step, model = model, None
    with call.project() as project:
        with talk.Progress() as progress:
            done = project.retrain(model, step, reason=reason, progress=progress)
        call.answer(done, outcome.retrained)


@verb("approve")
@click.argument("name", required=False)
@click.option("--reason", required=True, metavar="TEXT", help="Why, for whoever asks later.")
@click.option("--seen", metavar="ID", help="The comparison that you looked at; refused when there is a newer one.")
@click.pass_obj
def approve(call: Invocation, name: str | None, reason: str, seen: str | None) -> None:
    """NAME is a release, a model (its open challenger, else its newest release) or a proposal. Who proposed or packed
    it cannot approve it; say who you are with --actor. Names are asserted: this is four eyes, not authentication."""
    from seatrial.cli import outcome

    with call.project() as project:
        call.answer(project.approve(name, reason=reason, seen=seen), outcome.decided)


@verb("reject")
@click.argument("name", required=False)
@click.option("--reason", required=True, metavar="TEXT", help="Why, for whoever asks later.")
@click.pass_obj
def reject(call: Invocation, name: str | None, reason: str) -> None:
    """NAME as for approve. A proposal of the release is ended; one without a challenger yet is ended alone."""
    from seatrial.cli import outcome

    with call.project() as project:
        call.answer(project.reject(name, reason=reason), outcome.decided)


@verb("promote")
@click.argument("model", required=False)
@click.option("--reason", default="", metavar="TEXT")
@EXPECT
@click.pass_obj
def promote(call: Invocation, model: str | None, reason: str, expected: int | None) -> None:
    """Makes the approved challenger of MODEL the live release."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.promote(model, reason=reason, expected=expected), render.deployed)


@verb("rollback")
@click.argument("model", required=False)
@click.option("--reason", default="", metavar="TEXT")
@EXPECT
@click.pass_obj
def rollback(call: Invocation, model: str | None, reason: str, expected: int | None) -> None:
    """One command, at once; also while the metadata store is away, which is told when it is back."""
    from seatrial.cli import outcome

    with call.project() as project:
        call.answer(project.rollback(model, reason=reason, expected=expected), outcome.rolled_back)


@verb("explain")
@click.argument("id")
@click.pass_obj
def explain(call: Invocation, id: str) -> None:
    """ID is a prediction's or a request's. Inputs as served beside the same recomputed as of that instant, what other
    releases answer for them, who approved the release, and what it was made from."""
    from seatrial.cli import outcome

    with call.project() as project:
        with talk.Progress() as progress:
            found = project.explain(id, progress=progress)
        call.answer(found, lambda _: outcome.explained(found))


@verb("review")
@click.pass_obj
def review(call: Invocation) -> None:
    """No owner, no monitor, no labels, not reproducible, a manual step: each with evidence and the next step."""
    from seatrial.cli import outcome

    with call.project() as project:
        call.answer(project.review(), outcome.reviewed)


@NOUNS["proposals"].command("list")
@click.argument("model", required=False)
@click.pass_obj
def proposals_list(call: Invocation, model: str | None) -> None:
    """List proposed retrainings, all or those of MODEL, oldest first."""
    from seatrial.cli import outcome

    with call.project() as project:
        refused = project.proposal_refusals(model)
        call.answer(project.proposals(model), lambda found: [*outcome.proposals(found), *outcome.refused(refused)])


@NOUNS["proposals"].command("show")
@click.argument("id")
@click.pass_obj
def proposals_show(call: Invocation, id: str) -> None:
    """Show one proposed retraining: why, every look at its challenger, and what the newest look compared."""
    from seatrial.cli import outcome

    with call.project() as project:
        call.answer(project.proposal_show(id), outcome.proposal_and_evidence)


@NOUNS["proposals"].command("refusals")
@click.argument("model", required=False)
@click.pass_obj
def proposals_refusals(call: Invocation, model: str | None) -> None:
    """List retrainings that were asked for and refused, with the reasons, oldest first."""
    from seatrial.cli import outcome

    with call.project() as project:
        call.answer(project.proposal_refusals(model), outcome.refusals)
