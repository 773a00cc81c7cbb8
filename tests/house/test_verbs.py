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
from seatrial.verbs.answering import Answering
from seatrial.verbs.building import Building
from seatrial.verbs.preparing import Preparing

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


def test_every_public_verb_of_project_is_a_command():
    verbs = {
        name
        for one in (Preparing, Building, Answering, Project)
        for name, value in vars(one).items()
        if callable(value) and not name.startswith("_")
    }
    # options of other verbs: predict --replay, --batch and --stream, push --from, runs show --html, validate --propose,
    # monitor --rehearse
    helpers = {"close", "mirror", "propose", "reconcile", "replay", "predict_batch", "predict_files", "predict_stream"}
    helpers |= {"push_stream", "run_page", "rehearse"}
    helpers |= {"deployment_watch"}  # deployments advance --watch
    helpers |= {"run"}  # a block of Python: `with project.run("x") as r`
    commands = {*COMMANDS, *(f"export_{form}" for form in VERBS["export"].commands), *NOUNS}
    commands |= {f"{noun.removesuffix('s')}_{word}" for noun, group in NOUNS.items() for word in group.commands}
    assert verbs - helpers - {"init"} <= commands
