"""The catalogue: it lists every command that exists and none that does not, and costs nothing to print."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stdout

import click
import pytest

from seatrial.cli import catalogue, run
from seatrial.cli.door import root
from seatrial.cli.nouns import NOUNS
from seatrial.cli.verbs import VERBS

DESIGNED = """
    init validate snapshot materialize push check train release deploy serve predict label monitor retrain approve
    reject promote rollback lineage explain incident reproduce review export import backup restore status doctor up
    pause resume demo
    snapshots features runs models releases deployments predictions reports alerts proposals schedules
    keys audit
""".split()


def printed(*words: str) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        assert run(list(words)) == 0
    return out.getvalue()


def test_every_designed_command_is_there_or_named_as_later():
    here = [*catalogue.all_verbs(), *(name for name, _ in catalogue.NOUNS)]
    later = [name for name, _ in catalogue.LATER]
    assert sorted([*here, *later]) == sorted(DESIGNED)
    assert not set(here) & set(later)


def test_every_listed_command_exists_under_its_name():
    with click.Context(root) as ctx:
        for name in [*catalogue.all_verbs(), *dict(catalogue.NOUNS), *dict(catalogue.LATER)]:
            command = root.get_command(ctx, name)
            assert command is not None, name
            assert command.name == name


def test_no_command_exists_that_is_not_listed():
    assert list(VERBS) == catalogue.all_verbs() or set(VERBS) == set(catalogue.all_verbs())
    assert list(NOUNS) == list(dict(catalogue.NOUNS))


def test_the_words_behind_a_noun_are_those_it_lists():
    for name, purpose in catalogue.NOUNS:
        assert purpose.split(": ")[1].split(", ") == list(NOUNS[name].commands), name


def test_help_shows_the_eight_daily_verbs_and_where_to_look():
    page = printed("--help")
    listed = [line.split()[0] for line in page.splitlines() if line.startswith("  ") and not line.startswith("  -")]
    assert listed == "init validate snapshot train release deploy serve predict status doctor".split()
    assert "--help --all" in page


@pytest.mark.parametrize("words", [["--help", "--all"], ["--all", "--help"], ["help", "--all"], ["--all"]])
def test_all_lists_every_command_and_says_which_come_later(words):
    page = printed(*words)
    now, later = page.split("Later, not in this version:")
    for name in [*catalogue.all_verbs(), *dict(catalogue.NOUNS)]:
        assert f"\n  {name} " in now
    for name in dict(catalogue.LATER):
        assert f"\n  {name} " in later


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_on_the_whole_is_one_page_however_it_is_asked_for(words):
    assert printed(*words) == catalogue.first_page(everything=False)


def test_the_first_page_fits_a_terminal_of_100_columns():
    assert max(len(line) for line in catalogue.first_page(everything=True).splitlines()) <= 100


def test_the_first_page_is_printed_without_click():
    code = "from seatrial.cli import run; run(['--help']); import sys; sys.exit('click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.parametrize("noun", [*dict(catalogue.NOUNS), "export"])
def test_what_a_noun_says_of_its_commands_is_not_cut(noun):
    lines = printed(noun, "--help").partition("Commands:\n")[2].splitlines()
    assert lines
    assert not [line for line in lines if line.endswith("...")]
