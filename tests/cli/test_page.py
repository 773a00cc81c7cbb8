"""The page docs/cli.md: it names every command with its options, and none that does not exist."""

from __future__ import annotations

import re

import click
import pytest

from seatrial.cli import catalogue
from seatrial.cli.nouns import NOUNS
from seatrial.cli.verbs import VERBS
from tests.house.test_verbs import every_command  # its module has registered every command
from tests.house.tree import ROOT

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
CELL = r"(?:[^|\\]|\\.)*"
EVERYWHERE = {"--project", "--env", "--actor", "--at", "--json", "--debug"}


def rows(heading):
    """The rows of the table under this heading, each without what is left of its first bar."""
    return PAGE.split(heading, 1)[1].split("\n\n", 1)[0].splitlines()[1:]


def code(row):
    """What stands in a row as code: the starts of commands, their words and options."""
    return re.findall(r"`([^`]*)`", row)


def of_verb(name):
    """The rows that begin with a verb, alone or beside others."""
    first = {row: re.match(rf"\|({CELL})\|", row)[1] for row in rows("| verb | does |")}
    return "\n".join(row for row, cell in first.items() if any(re.match(rf"{name}\b", one) for one in code(cell)))


def of_noun(name):
    return "\n".join(row for row in rows("| noun | words |") if row.startswith(f"| `{name}` |"))


def commands(thing):
    return list(thing.commands.values()) if isinstance(thing, click.Group) else [thing]


def options(thing):
    """The options that a command, or the words behind a noun, take, each by its first name."""
    taken = [param for one in commands(thing) for param in one.params if isinstance(param, click.Option)]
    return {param.opts[0] for param in taken if not param.hidden} - EVERYWHERE


def shown(told):
    return {option for part in code(told) for option in re.findall(r"--[a-z][a-z-]*", part)}


@pytest.mark.parametrize("name", catalogue.all_verbs())
def test_every_verb_stands_there_with_its_options(name):
    told = of_verb(name)
    assert told, f"`{name}` is not on the page"
    assert options(VERBS[name]) - shown(told) == set()


@pytest.mark.parametrize("name", list(NOUNS))
def test_every_noun_stands_there_with_its_words_and_their_options(name):
    told = of_noun(name)
    named = [re.match(r"[a-z-]*", part)[0] for part in code(told)]
    assert [word for word in NOUNS[name].commands if word not in named] == []
    assert options(NOUNS[name]) - shown(told) == set()


def test_every_form_of_export_stands_there():
    told = " ".join(code(of_verb("export"))).replace("\\|", " ").split()
    assert [form for form in VERBS["export"].commands if form not in told] == []


def test_nothing_stands_there_that_does_not_exist():
    named = {re.match(r"[a-z]*", part)[0] for row in rows("| verb | does |") for part in code(row.split(" | ")[0])}
    assert named - {*catalogue.all_verbs(), ""} == set()
    assert [row for row in rows("| noun | words |")[1:] if code(row)[0] not in NOUNS] == []
    known = {option for one in every_command() for option in options(one.values[0])} | EVERYWHERE | {"--help", "--all"}
    assert shown(PAGE) - known == set()


def test_the_words_of_a_noun_are_those_that_exist():
    for row in rows("| noun | words |")[1:]:
        name, *told = code(row)
        words = [re.match(r"[a-z-]+", part)[0] for part in told if not part.startswith("-")]
        assert [word for word in words if word not in NOUNS[name].commands] == [], name
