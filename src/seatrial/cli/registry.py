"""The nouns that manage: versions and their aliases, releases, and what may be taken out of use."""

from __future__ import annotations

from typing import Literal

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


@NOUNS["models"].command("card")
@click.argument("model")
@click.option("--html", type=click.Path(dir_okay=False), metavar="FILE", help="Write one HTML page instead.")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write the Markdown to a file.")
@click.pass_obj
def models_card(call: Invocation, model: str, html: str | None, out: str | None) -> None:
    """Show the model card of MODEL (also MODEL@ALIAS, MODEL:3): the owner's words, and what the records say."""
    from seatrial.cli import registered

    with call.project() as project:
        form: Literal["md", "html"] = "html" if html else "md"
        call.answer(project.model_card(model, form=form, out=html or out), registered.card)


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


@NOUNS["releases"].command("card")
@click.argument("release")
@click.option("--html", type=click.Path(dir_okay=False), metavar="FILE", help="Write one HTML page instead.")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write the Markdown to a file.")
@click.pass_obj
def releases_card(call: Invocation, release: str, html: str | None, out: str | None) -> None:
    """Show the model card of RELEASE: the owner's words, and what the records say."""
    from seatrial.cli import registered

    with call.project() as project:
        form: Literal["md", "html"] = "html" if html else "md"
        call.answer(project.release_card(release, form=form, out=html or out), registered.card)


@NOUNS["releases"].command("sbom")
@click.argument("release")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write it to a file.")
@click.pass_obj
def releases_sbom(call: Invocation, release: str, out: str | None) -> None:
    """Print the bill of materials of RELEASE: CycloneDX 1.6, with the model, its card, data, files and libraries."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.release_sbom(release, out=out), registered.bill)


@NOUNS["releases"].command("delete")
@click.argument("release")
@REASON
@click.pass_obj
def releases_delete(call: Invocation, release: str, reason: str) -> None:
    """Take RELEASE out of use: it can no longer be deployed. What is live is refused; bundle and history stay."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.release_delete(release, reason=reason), registered.deleted)


@NOUNS["releases"].command("resign")
@click.argument("releases", nargs=-1)
@click.option("--by", metavar="KEY", help="All that this key signed, instead of those named.")
@REASON
@click.pass_obj
def releases_resign(call: Invocation, releases: tuple[str, ...], by: str | None, reason: str) -> None:
    """Sign RELEASES again with the key that signs now, after another one leaked. Each must be what the audit log says
    was packed here."""
    from seatrial.cli import registered

    if bool(releases) == bool(by):
        raise BadCommandLine("RELEASES are named, or all that a key signed by --by KEY.", expected="One of the two.")
    with call.project() as project:
        call.answer(project.release_resign(*releases, by=by, reason=reason), registered.resigned)


@NOUNS["keys"].command("list")
@click.pass_obj
def keys_list(call: Invocation) -> None:
    """List the keys that are or were trusted, which one signs, and how many releases each signed."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.keys_list(), registered.keys)


@NOUNS["keys"].command("show")
@click.argument("key")
@click.pass_obj
def keys_show(call: Invocation, key: str) -> None:
    """Show KEY, by its id or the start of it: what happened to it, and everything that it signed."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.key_show(key), registered.key)


@NOUNS["keys"].command("rotate")
@REASON
@click.pass_obj
def keys_rotate(call: Invocation, reason: str) -> None:
    """Sign with a new key from now on. The old one stays trusted, so what it signed stays good."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.key_rotate(reason=reason), registered.key_changed)


@NOUNS["keys"].command("revoke")
@click.argument("key")
@REASON
@click.pass_obj
def keys_revoke(call: Invocation, key: str, reason: str) -> None:
    """Trust KEY no longer: what only it signed is refused from now on. docs/releases.md has the drill for a leak."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.key_revoke(key, reason=reason), registered.key_changed)


@NOUNS["keys"].command("trust")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@REASON
@click.pass_obj
def keys_trust(call: Invocation, file: str, reason: str) -> None:
    """Trust the releases of whoever holds the private half of the public key in FILE (PEM)."""
    from seatrial.cli import registered

    with call.project() as project:
        call.answer(project.key_trust(file, reason=reason), registered.key_changed)
