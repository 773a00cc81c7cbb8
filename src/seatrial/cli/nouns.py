"""The nouns: commands that read what is kept. `seatrial NOUN` alone lists."""

from __future__ import annotations

from pathlib import Path

import click

from seatrial.cli import catalogue
from seatrial.cli.door import Invocation, Noun
from seatrial.cli.pages import write_page

NOUNS: dict[str, Noun] = {
    name: Noun(name, short_help=purpose, help=f"{purpose}. `seatrial {name}` alone lists.")
    for name, purpose in catalogue.NOUNS
}


@NOUNS["snapshots"].command("list")
@click.argument("source", required=False)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page as well.")
@click.pass_obj
def snapshots_list(call: Invocation, source: str | None, html: Path | None) -> None:
    """List snapshots, all or those of SOURCE, oldest first, each compared with the one before it."""
    from seatrial.cli import snapshots

    with call.project() as project:
        found = project.snapshots(source)
        if html is not None:
            write_page(html, snapshots.listing_page(found))
        call.answer(found, snapshots.listing)


@NOUNS["snapshots"].command("show")
@click.argument("id")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page as well.")
@click.pass_obj
def snapshots_show(call: Invocation, id: str, html: Path | None) -> None:
    """Show one snapshot: its columns with their profile and digests, where it came from, what came of the expectations,
    and what changed since the last. ID is an id, the start of one, or a source's name for its newest."""
    from seatrial.cli import snapshots

    with call.project() as project:
        found = project.snapshot_show(id)
        if html is not None:
            write_page(html, snapshots.page(found))
        call.answer(found, snapshots.details)


@NOUNS["snapshots"].command("diff")
@click.argument("a")
@click.argument("b")
@click.option("--key", multiple=True, metavar="COLUMN", help="Compare rows by this column, or by several together.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page as well.")
@click.pass_obj
def snapshots_diff(call: Invocation, a: str, b: str, key: tuple[str, ...], html: Path | None) -> None:
    """Name the columns in which two snapshots differ, with the first cells; with --key also which rows came, went
    and changed. A and B are ids, the start of one, or a source's name for its newest."""
    from seatrial.cli import data, render

    with call.project() as project:
        found = project.snapshots_diff(a, b, key=key)
        if html is not None:
            write_page(html, data.diff_page(found))
        call.answer(found, lambda _: render.lines(str(found).splitlines()))


@NOUNS["features"].command("list")
@click.pass_obj
def features_list(call: Invocation) -> None:
    """List every feature with its owner and tags; how far it is online, where it is live, and which it is again."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.features(), render.features)


@NOUNS["features"].command("show")
@click.argument("name")
@click.pass_obj
def features_show(call: Invocation, name: str) -> None:
    """Show the view NAME with all its features, or one feature by the name of its column: who uses it, the versions
    that were frozen, and what was changed since."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.feature_show(name), render.feature)


@NOUNS["features"].command("search")
@click.argument("text", nargs=-1, required=True)
@click.pass_obj
def features_search(call: Invocation, text: tuple[str, ...]) -> None:
    """List the features that have every word of TEXT in name, description, owner, tags, column or expression."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.features_search(" ".join(text)), render.searched)


@NOUNS["features"].command("used-by")
@click.argument("name")
@click.pass_obj
def features_used_by(call: Invocation, name: str) -> None:
    """Show who uses the view, feature, request-time function or source NAME: models, releases, deployments."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.features_used_by(name), render.used_by)


@NOUNS["models"].command("list")
@click.pass_obj
def models_list(call: Invocation) -> None:
    """List models with their versions and aliases."""
    from seatrial.cli import registered, render

    with call.project() as project:
        call.answer(project.models(), lambda things: render.listing(registered.listed(things), next="seatrial train"))


@NOUNS["releases"].command("list")
@click.argument("model", required=False)
@click.option("--deleted", is_flag=True, help="Also those that were taken out of use.")
@click.pass_obj
def releases_list(call: Invocation, model: str | None, deleted: bool) -> None:
    """List releases, all or those of MODEL, oldest first."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(
            project.releases(model, deleted=deleted), lambda things: render.listing(things, next="seatrial release")
        )


@NOUNS["releases"].command("show")
@click.argument("id")
@click.pass_obj
def releases_show(call: Invocation, id: str) -> None:
    """Show one release: what it asks and answers, evidence, lineage. The whole manifest: --json."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.release_show(id), render.release)


@NOUNS["releases"].command("verify")
@click.argument("release")
@click.pass_obj
def releases_verify(call: Invocation, release: str) -> None:
    """Check signature, digests and golden rows of RELEASE, an id or a bundle file; every check is named."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.release_verify(release), registered.verified)


@NOUNS["releases"].command("diff")
@click.argument("a")
@click.argument("b")
@click.pass_obj
def releases_diff(call: Invocation, a: str, b: str) -> None:
    """Compare releases A and B (ids, names or bundle files): each scores the other's golden rows, and everything that
    their manifests say otherwise is listed."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.release_diff(a, b), registered.difference)


@NOUNS["deployments"].command("list")
@click.pass_obj
def deployments_list(call: Invocation) -> None:
    """List deployments: what is live, since when."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.deployments(), render.deployments)


@NOUNS["deployments"].command("show")
@click.argument("name")
@click.pass_obj
def deployments_show(call: Invocation, name: str) -> None:
    """Show one deployment and its history: also the releases that it could return to."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.deployment_show(name), render.deployment)


@NOUNS["deployments"].command("status")
@click.argument("name", required=False)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page as well.")
@click.pass_obj
def deployments_status(call: Invocation, name: str | None, html: Path | None) -> None:
    """Show how a rollout stands: steps, wanted and observed split, guardrails, labels. Looking decides nothing, and may
    be done as often as one likes: every interval holds over all looks."""
    from seatrial.cli import rolling

    with call.project() as project:
        found = project.deployment_status(name)
        if html is not None:
            from seatrial.cli import render, rolling_page

            write_page(html, rolling_page.page(render.plain(found)))
        call.answer(found, rolling.status)


@NOUNS["deployments"].command("advance")
@click.argument("name", required=False)
@click.option("--watch", is_flag=True, help="Go on until the rollout is over: one look every five minutes.")
@click.option("--every", default="5m", show_default=True, metavar="DURATION", help="With --watch: between two looks.")
@click.pass_obj
def deployments_advance(call: Invocation, name: str | None, watch: bool, every: str) -> None:
    """Judge a rollout's step and do what the verdict says: the new release gets more of the traffic, keeps what it has,
    or loses it. Made for a scheduler; every five minutes is not too often. With --watch this command is the scheduler:
    each look is a line (with --json a document on a line of its own), Ctrl-C and SIGTERM end it between two looks, and
    the next one goes on where it was. A release that was taken back ends it with exit code 3."""
    from seatrial.cli import rolling
    from seatrial.core.errors import GateRefused

    with call.project() as project:
        if watch:
            last = rolling.watch(call, project, name, every)
        else:
            last = project.deployment_advance(name)
            call.answer(last, rolling.moved)
    if last is not None and last.analysis.verdict == "roll back":
        raise SystemExit(GateRefused.exit_code)


@NOUNS["audit"].command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="So many of the newest events.")
@click.pass_obj
def audit_list(call: Invocation, limit: int) -> None:
    """List who did what and when, newest last."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.audit_list(limit), render.events)


@NOUNS["audit"].command("show")
@click.argument("seq", type=click.IntRange(1))
@click.pass_obj
def audit_show(call: Invocation, seq: int) -> None:
    """Show the event of this number."""
    from seatrial.cli import render

    with call.project() as project:
        call.answer(project.audit_show(seq), render.details)


@NOUNS["audit"].command("verify")
@click.pass_obj
def audit_verify(call: Invocation) -> None:
    """Recompute the log's chain of hashes; name the first event that does not fit."""
    from seatrial.cli import render
    from seatrial.governance.audit import refusal

    with call.project() as project:
        report = project.audit_verify()
        call.answer(report, render.audited)
    if not report.intact:
        raise refusal(report)
