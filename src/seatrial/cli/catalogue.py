"""The catalogue of commands: which exist, in the order of the path, and what each is for in one line.

`seatrial --help` prints it without loading anything else, so this module imports nothing. A test compares
it with the commands themselves.
"""

from __future__ import annotations

Line = tuple[str, str]

DAILY = ("init", "validate", "snapshot", "train", "release", "deploy", "serve", "predict")
LOOK = ("status", "doctor")

# Section -> (command, what it does), in the order of the path.
VERBS: dict[str, tuple[Line, ...]] = {
    "From data to a model": (
        ("init", "Start a project in a folder"),
        ("validate", "Check the raw data against what is expected of it"),
        ("snapshot", "Freeze the raw data under an id of its content"),
        ("materialize", "Bring the online features up to a time"),
        ("push", "Send new rows to the online features"),
        ("check", "Say in seconds whether the definitions would train"),
        ("train", "Fit a model, judge it by its gates, make a version"),
    ),
    "From a model to traffic": (
        ("release", "Pack a version for serving, proved equal to the model"),
        ("deploy", "Make a release the live one"),
        ("serve", "Answer prediction requests over HTTP"),
        ("predict", "Predict for given rows, or replay history"),
    ),
    "From a prediction to a decision": (
        ("label", "Tell what really happened"),
        ("monitor", "Report on data, drift, performance and alarms"),
        ("retrain", "Propose, train and compare a challenger"),
        ("approve", "Say yes to a release going live"),
        ("reject", "Say no to a release"),
        ("promote", "Make the approved challenger the live release"),
        ("rollback", "Return to the previous release, at once"),
    ),
    "Looking back": (
        ("explain", "Explain one prediction"),
        ("reproduce", "Make a run again and compare"),
        ("incident", "Show what happened around an alert"),
        ("review", "Name each model's red flags"),
        ("lineage", "Show what an id was made from, and what from it"),
        ("status", "Show for each model what is live"),
    ),
    "By itself": (
        ("up", "Serve, and run what is declared, in one command"),
        ("pause", "Let a loop stand still, with a reason"),
        ("resume", "Let it go on"),
    ),
    "Housekeeping": (
        ("export", "Write files for other systems"),
        ("doctor", "Say whether this machine is fit for the work"),
        ("demo", "Run the whole path on real flights"),
    ),
}

NOUNS: tuple[Line, ...] = (
    ("snapshots", "Frozen raw data: list, show, diff"),
    ("features", "Feature views: list, show, search, used-by, leaks, verify, stats, get, join, lookup"),
    ("runs", "Trainings: list, show, compare, extract"),
    ("models", "Models, their versions and aliases: list, show, alias, history, card, delete"),
    ("releases", "Packed versions: list, show, verify, diff, card, sbom, delete, resign"),
    ("deployments", "What is live: list, show, status, advance"),
    ("predictions", "The prediction log: list, show, ship, prune"),
    ("reports", "Kept monitoring reports: list, show"),
    ("alerts", "Alarms: list, show, acknowledge, resolve, mute, unmute, check, undelivered, resend"),
    ("proposals", "Proposed retrainings: list, show, refusals"),
    ("schedules", "What runs by itself: list, show, run, history"),
    ("keys", "Keys that sign and are trusted: list, show, rotate, revoke, trust"),
    ("audit", "Who did what: list, show, verify"),
)

LATER: tuple[Line, ...] = (
    ("import", "Take in a release from elsewhere"),
    ("backup", "Copy the project's state"),
    ("restore", "Put a copy back"),
)


GLOBAL_OPTIONS: tuple[Line, ...] = (
    ("--project DIR", "Folder of the project (default: this one)"),
    ("--env NAME", "Environment of seatrial.toml (default: local)"),
    ("--actor NAME", "Who acts, for the audit log (default: SEATRIAL_ACTOR, then the OS user)"),
    ("--at TIME", "The time it is for the project, for replaying history; ISO 8601 with a zone"),
    ("--json", "One JSON document on stdout instead of text"),
    ("--debug", "Show tracebacks"),
    ("--version", "Print the version"),
    ("--help", "Explain a command; with --all: list every command"),
)


def all_verbs() -> list[str]:
    """Every verb of this version, in the order of the path."""
    return [name for section in VERBS.values() for name, _ in section]


def purpose(name: str) -> str:
    """The one line of a command of this version or a later one. Raises KeyError for any other name."""
    return {**{n: words for section in VERBS.values() for n, words in section}, **dict(NOUNS), **dict(LATER)}[name]


def asks_for_first_page(arguments: list[str]) -> str:
    """ "page" or "all" when the words ask for help on seatrial as a whole, else an empty string."""
    words = set(arguments)
    if not words <= {"--help", "-h", "--all", "help"} or _completing():
        return ""
    return "all" if "--all" in words else "page"


def first_page(*, everything: bool) -> str:
    """The help on seatrial as a whole: the daily verbs, or every command in its section."""
    lines = ["Usage: seatrial COMMAND [OPTIONS] ...", ""]
    if everything:
        sections = [*VERBS.items(), ("Reading and managing (seatrial NOUN list, show, ...)", NOUNS)]
        sections += [("Later, not in this version", LATER)]
    else:
        lines += ["Takes a tabular model from a notebook to a production service that can be trusted.", ""]
        sections = [("Daily", tuple((name, purpose(name)) for name in DAILY))]
        sections += [("Look", tuple((name, purpose(name)) for name in LOOK))]
    for title, section in [*sections, ("Options, before or after the command", GLOBAL_OPTIONS)]:
        lines += [f"{title}:", *(f"  {name:<14} {words}" for name, words in section), ""]
    lines.append("`seatrial COMMAND --help` explains a command.")
    if not everything:
        lines.append("`seatrial --help --all` lists every command.")
    return "\n".join(lines) + "\n"


def _completing() -> bool:
    import os

    return "_SEATRIAL_COMPLETE" in os.environ
