"""The door: stdout is data, stderr is talk, the exit code is the error's, and no traceback without --debug."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest

from seatrial.cli import catalogue, run
from seatrial.cli.door import INTERRUPTED, Invocation, Verb, root
from seatrial.cli.nouns import NOUNS
from seatrial.cli.verbs import VERBS
from seatrial.core.errors import Conflict, GateRefused, NotAllowed, SeatrialError, Unavailable


@pytest.fixture
def ends(monkeypatch):
    """Add a verb `try` that does what the test gives it; returns a function that sets it."""

    def set_to(function):
        monkeypatch.setitem(VERBS, "try", Verb("try", callback=click.pass_obj(function)))

    return set_to


@pytest.fixture
def answered(ends, capsys):
    """Run `seatrial try WORDS...`: (exit code, stdout, stderr)."""

    def run_it(function, *words):
        ends(function)
        code = run(["try", *words])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run_it


def raising(error: BaseException):
    def fail(call: Invocation) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SeatrialError("x."), 1),
        (GateRefused("x."), 3),
        (NotAllowed("x."), 4),
        (Conflict("x."), 5),
        (Unavailable("x."), 6),
        (KeyboardInterrupt(), INTERRUPTED),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_the_exit_code_is_that_of_the_error(answered, error, code):
    assert answered(raising(error))[0] == code


def test_an_error_is_told_on_stderr_and_stdout_stays_empty(answered):
    error = Conflict("found.", expected="expected.", state="state.", next="next.")
    assert answered(raising(error)) == (5, "", "Conflict [conflict]: found.\nexpected.\nnext. state.\n")


def test_with_json_an_error_is_one_document_on_stderr(answered):
    code, out, err = answered(raising(Conflict("found.", state="as before.", next="look.")), "--json")
    document = json.loads(err)
    assert (code, out) == (5, "")
    assert document["code"] == "conflict"
    assert (document["exit_code"], document["state"], document["next"]) == (5, "as before.", "look.")


def test_an_unexpected_error_is_one_to_report_and_shows_no_traceback(answered):
    _, _, err = answered(raising(ZeroDivisionError("by zero")))
    assert err.startswith("InternalError [internal]: ZeroDivisionError: by zero.\n")
    assert "report" in err
    assert "--debug" in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback_of_any_error(answered):
    assert "Traceback" in answered(raising(ZeroDivisionError("by zero")), "--debug")[2]
    assert "Traceback" in answered(raising(Conflict("x.")), "--debug")[2]


def test_an_interruption_is_quiet(answered):
    _, out, err = answered(raising(KeyboardInterrupt()))
    assert (out, err.strip()) == ("", "")


def test_warnings_are_notes_on_stderr(answered):
    def warn(call):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("column 'at' has no zone", stacklevel=1)

    assert answered(warn) == (0, "", "note: column 'at' has no zone\n")


def test_global_options_may_stand_before_or_after_the_command(ends, monkeypatch):
    seen = []
    ends(
        lambda call: seen.append(
            (call.project_folder, call.env, call.actor, call.json, call.debug, call.at.isoformat())
        )
    )
    options = "--project p --env e --actor a --json --debug --at 2013-04-01T02:00:00+02:00".split()
    assert run([*options, "try"]) == 0
    assert run(["try", *options]) == 0
    assert run([*options[:4], "try", *options[4:]]) == 0
    assert seen == [("p", "e", "a", True, True, "2013-04-01T00:00:00+00:00")] * 3


def test_json_is_exactly_one_document_with_null_for_what_is_not_a_number(answered):
    result = {"a": float("nan"), "b": [1, True, None], "c": "ü"}
    code, out, err = answered(lambda call: call.answer(result, lambda _: []), "--json")
    assert (code, json.loads(out), err) == (0, {"a": None, "b": [1, True, None], "c": "ü"}, "")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["trian"], "usage.unknown_command"),
        (["snapshots", "dif"], "usage.unknown_command"),
        (["train", "--bogus"], "usage.command_line"),
        (["push"], "usage.command_line"),
        (["export"], "usage.command_line"),
        (["init", "--template", "other"], "usage.command_line"),
        (["serve", "--port", "70000"], "usage.command_line"),
        (["predict"], "usage.command_line"),
        (["predict", "--request", "{}", "--file", "-"], "usage.command_line"),
        (["predict", "--replay", "2013-04-01/2013-05-01"], "usage.command_line"),
        (["predict", "--replay", "2013-05-01/2013-04-01", "--url", "http://localhost:1"], "usage.bad_window"),
        (["predict", "--request", '{"a": NaN}'], "usage.bad_rows"),
        (["predict", "--request", "[1]"], "usage.bad_rows"),
        (["predict", "--request", '{"a": 1, "a": 2}'], "usage.bad_rows"),
        (["predict", "--request", '{"features": {"a": 1, "a": 2}}'], "usage.bad_rows"),
        (["predict", "--request", '{"features": {"a": 1}, "at": "2013-04-01T00:00:00Z"}'], "usage.bad_rows"),
        (["predict", "--request", '{"features": {"a": 1}, "request_id": 1}'], "usage.bad_rows"),
        (["predict", "--file", "/nowhere/rows.jsonl"], "usage.bad_rows"),
        (["train", "--cutoff", "2013-04-01"], "usage.naive_time"),
        (["status", "--at", "2013-04-01T00:00:00"], "usage.naive_time"),
        (["--at", "yesterday", "status"], "usage.bad_time"),
        (["release", "--parity-window", "2013"], "usage.bad_window"),
        *(([name, "x", "--to", "y"], "usage.not_in_this_version") for name in dict(catalogue.LATER)),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_wrong(capsys, words, code):
    assert run([*words, "--json"]) == 2
    out = capsys.readouterr()
    assert json.loads(out.err)["code"] == code
    assert out.out == ""


@pytest.mark.parametrize(("word", "meant"), [("trian", "train"), ("snapshot-s", "snapshots"), ("deplpy", "deploy")])
def test_an_unknown_command_proposes_the_nearest(capsys, word, meant):
    assert run([word]) == 2
    assert f"Did you mean '{meant}'?" in capsys.readouterr().err


def test_a_row_that_is_no_json_is_named_by_its_line(capsys, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"a": 1}\n\n{"a": \n')
    assert run(["predict", "--file", str(rows)]) == 2
    assert f"line 3 of {rows} is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[name] for name in VERBS] + [[n, s] for n in NOUNS for s in NOUNS[n].commands])
def test_every_command_explains_itself(capsys, words):
    assert run([*words, "--help"]) == 0
    out = capsys.readouterr()
    assert out.out.startswith(f"Usage: seatrial {' '.join(words)} ")
    assert (f"seatrial {words[0]}" in out.out, out.err) == (True, "")
    assert "--json" in out.out or words == ["export"]


def test_help_may_stand_before_the_command(capsys):
    assert run(["help", "train"]) == 0
    assert capsys.readouterr().out.startswith("Usage: seatrial train ")


def test_the_version_is_data(capsys):
    from seatrial import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"seatrial {__version__}\n"


def seatrial_try(statement: str, **settings: str) -> subprocess.Popen[bytes]:
    """A process that runs `seatrial try`, a verb that does `statement` with its `call`."""
    code = (
        "import sys, click\nfrom seatrial.cli import door, verbs\n"
        f"def function(call):\n    {statement}\n"
        "verbs.VERBS['try'] = door.Verb('try', callback=click.pass_obj(function))\n"
        "sys.exit(door.run(['try']))"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | settings
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("from seatrial.cli.render import Line; call.answer({}, lambda _: [Line('x')])", 0),
        ("from seatrial.cli.render import Line; call.answer({}, lambda _: [Line('x' * 100_000)])", 0),
        ("call.answer({}, lambda _: []); raise verbs.NotFit('x.')", 1),
    ],
)
def test_a_reader_that_stops_reading_does_not_change_how_the_verb_ended(statement, code):
    with seatrial_try(statement) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before anything is written
        assert process.wait() == code
        assert b"Traceback" not in process.stderr.read()


def test_a_terminal_that_knows_few_characters_is_no_failure():
    with seatrial_try("print('✓ done')", PYTHONIOENCODING="ascii") as process:
        assert process.communicate() == (b"? done\n", b"")
        assert process.returncode == 0


def test_completion_is_clicks_own():
    env = os.environ | {"_SEATRIAL_COMPLETE": "bash_complete", "COMP_WORDS": "seatrial sn", "COMP_CWORD": "1"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    code = "from seatrial.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert [line.split(",")[1] for line in done.stdout.split()] == ["snapshot", "snapshots"]


def test_the_root_has_no_help_of_its_own():
    with click.Context(root) as ctx:
        assert root.get_help(ctx) == catalogue.first_page(everything=False).rstrip()


def test_no_command_has_a_parameter_by_the_name_of_a_global_option():
    """click keeps values by name, so that one would take the other's."""
    from seatrial.cli.door import GLOBAL_OPTIONS

    taken = {option.name for option in GLOBAL_OPTIONS}
    commands = [*VERBS.values(), *(command for noun in NOUNS.values() for command in noun.commands.values())]
    commands += [
        command for verb in VERBS.values() if isinstance(verb, click.Group) for command in verb.commands.values()
    ]
    assert [(command.name, param.name) for command in commands for param in command.params if param.name in taken] == []


CLOSED, FULL = "closed", "/dev/full"


def seatrial(*words: str, out: str | None = None, err: str | None = None) -> tuple[int, bytes, bytes]:
    """Run `seatrial WORDS...` with a stdout or stderr that is closed or full: (exit code, stdout, stderr)."""
    close = [number for number, place in ((1, out), (2, err)) if place == CLOSED]
    code = f"import os, sys; [os.close(n) for n in {close}]; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    words = ("-m", "seatrial", *words)
    full = open(FULL, "wb")  # noqa: SIM115, PTH123
    with full:
        streams = [full if place == FULL else subprocess.PIPE for place in (out, err)]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, stdout=streams[0], stderr=streams[1], env=env, check=False)
    return done.returncode, done.stdout or b"", done.stderr or b""


@pytest.mark.parametrize("words", ["--help", "--version", "train --help", "--help --json"])
def test_a_closed_stdout_is_nobody_who_listens(words):
    assert seatrial(*words.split(), out=CLOSED) == (0, b"", b"")


@pytest.mark.parametrize("words", ["--help", "--version", "train --help"])
@pytest.mark.parametrize("out", [None, CLOSED])
def test_what_nobody_can_be_told_changes_nothing_about_how_a_command_ends(words, out):
    for err in (CLOSED, FULL):
        assert seatrial(*words.split(), out=out, err=err)[0] == 0
        assert seatrial("trian", out=out, err=err)[0] == 2
        assert seatrial("trian", "--json", "--debug", out=out, err=err)[0] == 2


@pytest.mark.parametrize("words", ["--help", "--version", "train --help", "help --all"])
def test_a_stdout_that_takes_nothing_is_told_with_6(words):
    code, _, err = seatrial(*words.split(), out=FULL)
    assert code == 6
    assert err.startswith(b"OutputUnwritable [output.unwritable]: ")
    assert b"Traceback" not in err
    assert seatrial(*words.split(), out=FULL, err=FULL)[0] == 6


def test_help_whose_reader_stopped_reading_ends_with_0():
    for words in (["--help"], ["train", "--help"], ["--version"]):
        command = [sys.executable, "-m", "seatrial", *words]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert (process.wait(), process.stderr.read()) == (0, b"")


def test_a_file_that_is_opened_later_does_not_become_a_closed_stdout(tmp_path):
    kept = tmp_path / "kept"
    code = (
        "import os; os.close(1); os.close(2)\nimport sys; sys.stdout = sys.stderr = None\n"
        "from seatrial.cli import streams; streams.open_closed()\n"
        f"file = open({str(kept)!r}, 'w'); sys.exit(file.fileno() <= 2)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_an_interruption_while_modules_are_loaded_is_quiet():
    code = (
        "import sys, signal\nfrom seatrial.cli import main\nname = sys.argv[1]\nclass Interrupting:\n"
        "    def find_spec(self, wanted, *_):\n"
        "        if wanted == name: signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\nsys.argv = ['seatrial', 'status']\nmain()"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for module in ("seatrial.cli.catalogue", "seatrial.cli.door", "seatrial.cli.nouns", "seatrial.project"):
        command = [sys.executable, "-c", code, module]
        done = subprocess.run(command, capture_output=True, env=env, check=False)
        assert (done.returncode, done.stdout, done.stderr.strip()) == (INTERRUPTED, b"", b"")


def test_an_error_that_a_library_made_of_an_interruption_is_an_interruption(answered):
    def fail(call):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ImportError("half a module")  # noqa: B904

    assert answered(fail) == (INTERRUPTED, "", "")


def test_with_json_the_notes_before_a_failure_are_in_its_document(answered):
    def fail(call):
        import warnings

        from seatrial.cli import talk

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("column 'at' has no zone", stacklevel=1)
        talk.say("half-way")
        sys.stderr.write("printed by a project file\n")
        raise Conflict("found.")

    code, out, err = answered(fail, "--json")
    assert (code, out) == (5, "")
    assert json.loads(err)["notes"] == ["note: column 'at' has no zone", "half-way", "printed by a project file"]


def test_with_json_the_notes_of_a_success_are_still_told(answered):
    def succeed(call):
        from seatrial.cli import talk

        talk.say("half-way")
        call.answer({}, lambda _: [])

    assert answered(succeed, "--json") == (0, "{}\n", "half-way\n")


def test_the_version_as_json_is_json(capsys):
    from seatrial import __version__

    for words in (["--version", "--json"], ["--json", "--version"]):
        assert run(words) == 0
        assert json.loads(capsys.readouterr().out) == {"version": __version__}


def test_a_demo_whose_reader_stopped_reading_goes_on_to_its_end():
    code = (
        "import sys\nfrom seatrial.cli import demo\nstory = demo.Story(False, 0.0)\n"
        "for number in range(3):\n    with story.step('a', 'b' * 70_000) as tell: tell('x')\n"
        "sys.exit(len(story.steps))"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 3
