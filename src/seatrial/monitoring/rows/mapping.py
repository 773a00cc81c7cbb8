"""The map of a foreign log: which of its columns are the time, the score, the label and the inputs?

A TOML file, every key at its top:

    model = "churn"               # its name in the report
    task = "binary"               # or "regression", or "multiclass": see below
    timestamp = "scored_at"       # the instant that the prediction is for
    score = "p_churn"             # P(positive), or the value of a regression; `prediction` is the same
    features = ["age", "plan"]    # or "*": every column that nothing else names, except those in `without`

    # all of these may be left out
    without = ["email"]
    label = "churned"             # in the log, or with --labels in that file
    positive = "yes"              # the label that counts as 1, when it is neither 0/1 nor true/false
    label_known_at = "told_at"    # without it a label counts as known from its prediction on
    prediction_id = "id"
    request_id = "request"
    key = ["customer"]            # by which labels of --labels find their prediction
    latency_ms = "took_ms"
    version = "model_version"
    timezone = "Europe/Vienna"    # of times that carry none; without it UTC
    timestamp_unit = "s"          # of times that are numbers: s, ms or us since 1970
    window = "7d"                 # what a report looks at, and the default alarm looks back
    calibration = true            # the default alarm
    every = "1d"                  # the policy: its windows, its budget, and what its thresholds are multiplied by
    false_alarms_per_month = 1
    thresholds = {age = 1.3}
    subject = "customers"         # words for the headline
    outcome = "gone"
    owner = "crm"
    on_call = "webhook:crm"
    runbook = "https://example.org/runbook"

    [tested]                      # figures of the model's test, to compare with
    roc_auc = 0.81

    [[alarm]]
    metric = "roc_auc"
    below = 0.7                   # or above = ..., or drop = "20%"
    window = "7d"                 # and severity, min_labels

Of several classes a log holds which class was predicted, or a probability for each class, or both:

    task = "multiclass"
    prediction = "predicted"      # the class; without it the likeliest one
    score = "sureness"            # its probability, when there is no column for each class

    [probabilities]               # the column of each class's probability; labels hold the same classes
    early = "p_early"
    "on time" = "p_on_time"

With classes alone only decisions are measured (accuracy, precision, recall, F1), and nothing tells of calibration.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from seatrial.core.errors import Failed, UsageError, did_you_mean, listed
from seatrial.core.signature import Task
from seatrial.monitoring.definition import Alarm, Monitor

ALL = "*"
TEXTS = (
    "model task timestamp score prediction label positive label_known_at prediction_id request_id latency_ms version "
    "timezone timestamp_unit window subject outcome owner on_call runbook every"
).split()
LISTS = ("features", "without", "key")
OTHERS = ("calibration", "tested", "alarm", "probabilities", "false_alarms_per_month", "thresholds")
TASKS = ("binary", "regression", "multiclass")
COMPARISONS = ("above", "below", "drop")
OF_ALARM = ("metric", *COMPARISONS, "window", "severity", "min_labels")


class MapUnreadable(Failed):
    """The map of a foreign log is not there, or is no TOML."""

    code = "monitor.map_unreadable"


class BadMap(UsageError):
    """The map of a foreign log says something that cannot be, or leaves out what is needed."""

    code = "monitor.bad_map"


@dataclass(frozen=True)
class ColumnMap:
    """What the map says; see this module. features: None stands for "*". Columns that are not mapped are "".

    predicted, probabilities: of several classes the column of the predicted one, and of each class's probability.
    """

    path: Path
    model: str
    task: Task
    timestamp: str = ""
    score: str = ""
    predicted: str = ""
    probabilities: Mapping[str, str] = field(default_factory=dict)
    features: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    label: str = ""
    positive: str | int | float | bool | None = None
    label_known_at: str = ""
    prediction_id: str = ""
    request_id: str = ""
    key: tuple[str, ...] = ()
    latency_ms: str = ""
    version: str = ""
    timezone: str | None = None
    timestamp_unit: Literal["s", "ms", "us"] | None = None
    tested: Mapping[str, float] = field(default_factory=dict)
    owner: str = ""
    on_call: str = ""
    runbook: str = ""
    monitor: Monitor = field(default_factory=lambda: Monitor("model"))

    def named(self) -> dict[str, str]:
        """Columns that have a role of their own, by role; not the inputs."""
        roles = "timestamp score predicted label label_known_at prediction_id request_id latency_ms version".split()
        found = {role: getattr(self, role) for role in roles if getattr(self, role)}
        found |= {f"probability of {of_class}": name for of_class, name in self.probabilities.items()}
        return found | {f"key {name}": name for name in self.key}

    @property
    def decided_only(self) -> bool:
        """Whether the log says which class was predicted, and never how sure the model was."""
        return self.task == "multiclass" and not self.score and not self.probabilities


def read_map(path: Path) -> ColumnMap:
    """The map in a file. Raises MapUnreadable, BadMap, and BadDefinition for an alarm that cannot be."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MapUnreadable(
            f"the map {path} cannot be read: {error.strerror}.",
            expected="A TOML file that says which column is what is expected.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MapUnreadable(f"the map {path} is no TOML: {error}.") from None
    return map_of(said, path)


def map_of(said: Mapping[str, Any], path: Path) -> ColumnMap:
    """The map that these values say. path: where they come from, for messages."""
    known = [*TEXTS, *LISTS, *OTHERS]
    for name in said:
        if name not in known:
            _bad(
                path,
                f"has the key '{name}', which means nothing",
                f"{did_you_mean(name, known)} Known are {listed(known, most=30)}.".strip(),
            )
    texts = {name: _text(said, name, path) for name in TEXTS if name != "positive"}
    task = texts["task"] or "binary"
    if task not in TASKS:
        _bad(path, f"has task = {task!r}", '"binary", "regression" or "multiclass" is expected.')
    several = task == "multiclass"
    probabilities = _probabilities(said, path, several=several)
    if not several and texts["score"] and texts["prediction"] and texts["score"] != texts["prediction"]:
        _bad(path, "has a `score` and a `prediction`", "They are two words for one column; keep one.")
    if several and texts["score"] and not texts["prediction"]:
        _bad(path, "has a `score` of several classes and no `prediction`", "It is the probability of the class there.")
    if several and texts["score"] and probabilities:
        _bad(path, "has a `score` beside [probabilities]", "The predicted class's probability is taken from these.")
    if several and "positive" in said:
        _bad(path, "has a `positive` label and several classes", "The labels are the classes themselves.")
    if not texts["model"]:
        _bad(path, "does not say `model`", "A name for the report is expected.")
    if texts["timestamp_unit"] not in ("", "s", "ms", "us"):
        _bad(path, f"has timestamp_unit = {texts['timestamp_unit']!r}", '"s", "ms" or "us" is expected.')
    features = None if said.get("features", ALL) in (ALL, [ALL]) else _names(said, "features", path)
    label = texts["label"]
    if label and label in (texts["score"], texts["prediction"], texts["timestamp"], *probabilities.values()):
        _bad(path, f"has '{label}' as the label and as something else", "What happened has a column of its own.")
    if label and label in (features or ()):
        _bad(path, f"has the label '{label}' among `features`", "What happened is no input of the model.")
    return ColumnMap(
        path=path,
        model=texts["model"],
        task=task,  # type: ignore[arg-type]
        timestamp=texts["timestamp"],
        score=texts["score"] if several else texts["score"] or texts["prediction"],
        predicted=texts["prediction"] if several else "",
        probabilities=probabilities,
        features=features,
        without=_names(said, "without", path),
        label=texts["label"],
        positive=_positive(said, path),
        label_known_at=texts["label_known_at"],
        prediction_id=texts["prediction_id"],
        request_id=texts["request_id"],
        key=_names(said, "key", path),
        latency_ms=texts["latency_ms"],
        version=texts["version"],
        timezone=texts["timezone"] or None,
        timestamp_unit=texts["timestamp_unit"] or None,  # type: ignore[arg-type]
        tested=_tested(said.get("tested", {}), path),
        owner=texts["owner"],
        on_call=texts["on_call"],
        runbook=texts["runbook"],
        monitor=_monitor(said, texts, path, sure=not several or bool(texts["score"] or probabilities)),
    )


def _probabilities(said: Mapping[str, Any], path: Path, *, several: bool) -> dict[str, str]:
    """The column of each class's probability."""
    value = said.get("probabilities", {})
    if not isinstance(value, dict) or not all(isinstance(one, str) and one for one in value.values()):
        _bad(path, f"has probabilities = {value!r}", 'A column for each class is expected, such as early = "p_early".')
    if value and not several:
        _bad(path, "has [probabilities] of classes", 'It goes with task = "multiclass".')
    if len(value) == 1 or len(set(value.values())) < len(value):
        _bad(path, f"has probabilities = {value!r}", "Two classes or more are expected, each with a column of its own.")
    return dict(value)


def _monitor(said: Mapping[str, Any], texts: Mapping[str, str], path: Path, *, sure: bool) -> Monitor:
    """sure: whether the log says how sure the model was; without it there is no calibration to watch by default."""
    alarms = said.get("alarm", [])
    if not isinstance(alarms, list) or not all(isinstance(one, dict) for one in alarms):
        _bad(path, "has an `alarm` that is no table", "Each alarm begins with a line [[alarm]].")
    factors = said.get("thresholds", {})
    if not isinstance(factors, dict):
        _bad(path, f"has thresholds = {factors!r}", "A factor for each input is expected, such as {age = 1.3}.")
    declared = [_alarm(one, path) for one in alarms]
    return Monitor(
        texts["model"],
        alarms=declared,
        window=texts["window"] or "7d",
        calibration=said.get("calibration", sure or not any(one.of_performance for one in declared)),
        subject=texts["subject"],
        outcome=texts["outcome"],
        every=texts["every"],
        false_alarms_per_month=said.get("false_alarms_per_month", 1),
        thresholds=factors,
    )


def _alarm(said: Mapping[str, Any], path: Path) -> Alarm:
    for name in said:
        if name not in OF_ALARM:
            _bad(
                path,
                f"has an alarm with the key '{name}'",
                f"{did_you_mean(name, OF_ALARM)} Known are {listed(OF_ALARM, most=9)}.".strip(),
            )
    compared = [name for name in COMPARISONS if name in said]
    if len(compared) != 1 or "metric" not in said:
        _bad(
            path, f"has an alarm that says {listed(said)}", "A `metric` and one of above, below and drop are expected."
        )
    rest = {name: said[name] for name in ("window", "severity", "min_labels") if name in said}
    make = {"above": Alarm.above, "below": Alarm.below, "drop": Alarm.drop}[compared[0]]
    return make(said["metric"], said[compared[0]], **rest)


def _text(said: Mapping[str, Any], name: str, path: Path) -> str:
    value = said.get(name, "")
    if not isinstance(value, str):
        _bad(path, f"has {name} = {value!r}", "Text is expected.")
    return value


def _positive(said: Mapping[str, Any], path: Path) -> str | int | float | bool | None:
    value = said.get("positive")
    if value is not None and not isinstance(value, str | int | float | bool):
        _bad(path, f"has positive = {value!r}", "One value of the label is expected.")
    return value


def _names(said: Mapping[str, Any], name: str, path: Path) -> tuple[str, ...]:
    value = said.get(name, [])
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        _bad(path, f"has {name} = {value!r}", 'A list of column names is expected, such as ["age", "plan"].')
    twice = sorted({one for one in value if value.count(one) > 1})
    if twice:
        _bad(path, f"has '{twice[0]}' twice in {name}", "Each column is named once.")
    return tuple(value)


def _tested(value: Any, path: Path) -> dict[str, float]:
    good = isinstance(value, dict) and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in value.values()
    )
    if not good:
        _bad(path, f"has tested = {value!r}", "A number for each metric is expected, such as roc_auc = 0.81.")
    return {name: float(one) for name, one in value.items()}


def _bad(path: Path, found: str, expected: str) -> NoReturn:
    raise BadMap(f"the map {path} {found}.", expected=expected, state="Nothing was read.", next="Correct the map.")
