"""The nouns that manage: versions and their aliases, releases, and what may be taken out of use."""

from __future__ import annotations

import click

from seatrial.cli.door import BadCommandLine, Invocation
from seatrial.cli.nouns import NOUNS

REASON = click.option("--reason", default="", metavar="WORDS", help="Why, for whoever asks later.")


@NOUNS["models"].command("show")
@click.argument("model")
@click.pass_obj
def models_show(call: Invocation, model: str) -> None:
    """Show MODEL: its versions with their releases and metrics, its aliases, what is live and what was deleted."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.model_show(model), registered.model)


@NOUNS["models"].command("alias")
@click.argument("model")
@click.argument("alias")
@click.argument("version", required=False)
@click.option("--remove", is_flag=True, help="Take the alias away.")
@REASON
@click.pass_obj
def models_alias(call: Invocation, model: str, alias: str, version: str | None, remove: bool, reason: str) -> None:
    """Let MODEL@ALIAS name VERSION, a number or any reference to one. Every move is kept: see `models history`."""
    from seatrial.cli import registered

    if remove == (version is not None):
        raise BadCommandLine("an alias is given a VERSION, or taken away with --remove.", expected="One of the two.")
    with call.project() as project:
        call.answer(project.model_alias(model, alias, version, reason=reason), registered.aliased)


@NOUNS["models"].command("history")
@click.argument("model")
@click.argument("alias", required=False)
@click.pass_obj
def models_history(call: Invocation, model: str, alias: str | None) -> None:
    """List every move of MODEL's aliases, or of ALIAS: from, to, who, when, why."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.model_history(model, alias), registered.moves)


@NOUNS["models"].command("delete")
@click.argument("version")
@REASON
@click.pass_obj
def models_delete(call: Invocation, version: str, reason: str) -> None:
    """Take VERSION (MODEL:3, MODEL@ALIAS or an id) and its release out of use. What is live is refused; the record
    and its history stay."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.model_delete(version, reason=reason), registered.deleted)


@NOUNS["releases"].command("delete")
@click.argument("release")
@REASON
@click.pass_obj
def releases_delete(call: Invocation, release: str, reason: str) -> None:
    """Take RELEASE out of use: it can no longer be deployed. What is live is refused; bundle and history stay."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.release_delete(release, reason=reason), registered.deleted)
