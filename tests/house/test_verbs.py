"""One name for one thing: verbs and nouns are called the same in Python and on the command line."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import click
import pytest

from seatrial import Project, cli
from seatrial.cli import catalogue
from seatrial.cli.nouns import NOUNS
from seatrial.cli.verbs import VERBS

for module in pkgutil.iter_modules(cli.__path__):
    import_module(f"{cli.__name__}.{module.name}")  # commands register themselves

COMMANDS = [name for lines in catalogue.VERBS.values() for name, _ in lines]
ONLY_COMMANDS = {"demo"}  # a program of verbs, not a verb


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - ONLY_COMMANDS - {"export"}))
def test_every_command_is_a_method_of_project(name):
    assert callable(getattr(Project, name))


@pytest.mark.parametrize("form", VERBS["export"].commands if isinstance(VERBS["export"], click.Group) else [])
def test_every_form_of_export_is_a_method_of_project(form):
    assert callable(getattr(Project, f"export_{form}"))


def every_command():
    groups = [VERBS, *(group.commands for group in NOUNS.values())]
    for name, command in ((name, one) for group in groups for name, one in group.items()):
        inner = command.commands.items() if isinstance(command, click.Group) else [(name, command)]
        yield from (pytest.param(one, id=f"{name} {word}") for word, one in inner)


@pytest.mark.parametrize("command", list(every_command()))
def test_a_command_has_an_option_for_each_parameter_that_it_takes(command):
    taken = [name for name, one in inspect.signature(command.callback).parameters.items() if one.default is one.empty]
    given = {param.name for param in command.params if param.expose_value}
    # the first is the invocation; `how` and `options` hold whatever else is given
    assert set(taken[1:]) - {"how", "options"} <= given


@pytest.mark.parametrize(
    ("noun", "word"), [(noun, word) for noun, group in sorted(NOUNS.items()) for word in sorted(group.commands)]
)
def test_every_noun_is_read_by_a_method_of_project(noun, word):
    singular = noun.removesuffix("s")
    word = word.replace("-", "_")
    names = {f"{noun}_{word}", f"{singular}_{word}", *([noun] if word == "list" else [])}
    known = {name for name in names if callable(getattr(Project, name, None))}
    filtered = {"features_show"} if (noun, word) == ("features", "show") else set()  # the list, for one view
    assert known or filtered


OPTIONS = {
    "cost": "status --cost",
    "deployment_watch": "deployments advance --watch",
    "predict_batch": "predict --batch",
    "predict_files": "predict --batch",
    "predict_stream": "predict --stream",
    "propose": "validate --propose",
    "push_stream": "push --from",
    "rehearse": "monitor --rehearse",
    "replay": "predict --replay",
    "run_page": "runs show --html",
}
"""Methods that a command calls when this option is given."""
INNER = {
    "alerts_mutes",  # stand in the list of alerts
    "close",
    "event",
    "feature_stats_kept",  # of `features stats`, when somebody looked before
    "forget_key",
    "found",
    "keep_table",
    "keeping_log",
    "keeps_table",
    "mirror",
    "online_for_serving",
    "online_to_read",
    "reconcile",
    "record",
    "release_of",
    "chosen_release",
    "resolved",
    "run",  # a block of Python: `with project.run("x") as r`
    "snapshot_table",
    "sqlite_path",
    "without_persons",
}
"""What commands and other parts of the package ask a project for."""


def test_every_public_verb_of_project_is_a_command_or_an_option_of_one():
    verbs = {name for name in dir(Project) if callable(getattr(Project, name)) and not name.startswith("_")}
    commands = {*COMMANDS, *(f"export_{form}" for form in VERBS["export"].commands), *NOUNS}
    for noun, group in NOUNS.items():
        commands |= {
            f"{one}_{word}".replace("-", "_") for one in (noun, noun.removesuffix("s")) for word in group.commands
        }
    assert verbs - commands == {*OPTIONS, *INNER}


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_verb_that_is_an_option_is_one_of_the_command_that_is_named(name):
    *words, option = OPTIONS[name].split()
    command = VERBS[words[0]] if len(words) == 1 else NOUNS[words[0]].commands[words[1]]
    assert option in {spelling for one in command.params for spelling in one.opts}
    assert callable(getattr(Project, name))
