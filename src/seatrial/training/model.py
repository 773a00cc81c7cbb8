"""What a model is: its target, its labels, its features, its estimator and the gates that it must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from seatrial.core.declared import declare
from seatrial.core.errors import did_you_mean
from seatrial.core.signature import Task
from seatrial.data.sources import Source
from seatrial.features.definitions import BadDefinition, FeatureView, check_name
from seatrial.features.request_time import RequestFunction
from seatrial.training.gates import Gate, check_gates

REQUEST = "request:"
TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")
SPLITS = ("time", "stratified", "random")
MOST_THREADS = 256
WORDS = ("owner", "on_call", "runbook", "description")


@dataclass(frozen=True)
class Split:
    """How rows are held back for the test that the gates read.

    kind: "time" (the last rows by time; the default when labels have an event_timestamp), "stratified"
        (binary and multiclass targets without a time) or "random".
    test_size: share of the rows in the test part, in (0, 1).
    """

    kind: Literal["time", "stratified", "random"] | None = None
    test_size: float = 0.2

    def __post_init__(self) -> None:
        if self.kind not in (None, *SPLITS):
            raise BadDefinition(
                f"the split {self.kind!r} is not known.",
                expected=f"One of {', '.join(SPLITS)} is expected. {did_you_mean(str(self.kind), SPLITS)}".strip(),
            )
        if (
            isinstance(self.test_size, bool)
            or not isinstance(self.test_size, int | float)
            or not 0 < self.test_size < 1
        ):
            raise BadDefinition(
                f"a split holds back {self.test_size!r} of the rows.", expected="A share between 0 and 1 is expected."
            )


@dataclass(frozen=True)
class Model:
    """A model and everything that training it needs.

    task: "binary" (target false/true or 0/1; answers P(positive)), "multiclass" (target of 3 to 1,000 strings or whole
        numbers; answers a probability for each class) or "regression".
    target: column of the label source; null rows have no label.
    labels: one row per thing to predict: key, time, request fields, target. `event_timestamp` is the instant
        of the prediction, `label_known_at` when its label is known. Without a time, rows are one batch.
    features: feature views (every feature of the view), request-time functions, and
        "request:COLUMN" for a column of the label source that a request carries.
    estimator: import path of a scikit-learn compatible class or of a function that makes one
        ("lightgbm.LGBMClassifier"), or such a class, function or unfitted object itself; params: its parameters.
    key: columns that name a row of labels (the model's business key), for joining labels later.
    cv_folds: folds of cross-validation on training rows; 0 for none.
    threads: threads given to the estimator and to BLAS; part of what makes a run reproducible.
    """

    name: str
    task: Task
    target: str
    labels: Source
    features: Sequence[FeatureView | RequestFunction | str]
    estimator: str | object
    params: Mapping[str, Any] = field(default_factory=dict)
    key: Sequence[str] = ()
    gates: Sequence[Gate] = ()
    split: Split = field(default_factory=Split)
    cv_folds: int = 5
    seed: int = 42
    threads: int = 1
    owner: str = ""
    on_call: str = ""
    runbook: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        check_name("model", self.name)
        self._check_types()
        if self.task not in TASKS:
            raise BadDefinition(
                f"model '{self.name}' has the task {self.task!r}.",
                expected=f"One of {', '.join(TASKS)} is expected. {did_you_mean(str(self.task), TASKS)}".strip(),
            )
        if not self.features:
            raise BadDefinition(
                f"model '{self.name}' has no features.",
                expected="Feature views, request-time functions or 'request:COLUMN' are expected.",
            )
        for feature in self.features:
            if isinstance(feature, str) and not feature.startswith(REQUEST):
                raise BadDefinition(
                    f"feature {feature!r} of model '{self.name}' is a plain string.",
                    expected=f"A column that the request carries is written '{REQUEST}{feature}'.",
                )
            if not isinstance(feature, (str, FeatureView, RequestFunction)):
                raise BadDefinition(
                    f"model '{self.name}' lists {type(feature).__name__} among its features.",
                    expected="Feature views, request-time functions or 'request:COLUMN' are expected.",
                )
        if isinstance(self.cv_folds, bool) or not isinstance(self.cv_folds, int) or not 0 <= self.cv_folds != 1:
            raise BadDefinition(
                f"model '{self.name}' asks for {self.cv_folds!r} cross-validation folds.", expected="0, or at least 2."
            )
        names = [feature for feature in self.features if isinstance(feature, str)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadDefinition(f"model '{self.name}' lists {twice[0]!r} twice.", expected="Once is enough.")
        if self.target in self.request_features:
            raise BadDefinition(
                f"model '{self.name}' has its target '{self.target}' among its features.",
                expected="No request can carry what is to be predicted.",
            )
        if not isinstance(self.threads, int) or not 1 <= self.threads <= MOST_THREADS:
            raise BadDefinition(
                f"model '{self.name}' asks for {self.threads!r} threads.", expected=f"1 to {MOST_THREADS} are expected."
            )
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise BadDefinition(
                f"model '{self.name}' has the seed {self.seed!r}.", expected="A whole number in [0, 2^32) is expected."
            )
        check_gates(self.gates, self.task, cv_folds=self.cv_folds)
        declare(self)

    def _check_types(self) -> None:
        """Raise BadDefinition for the first part that is not what its name says."""
        for what, good, expected in (
            ("target", isinstance(self.target, str), "The name of a column is expected."),
            (
                "labels",
                isinstance(self.labels, Source),
                "A source is expected, such as ParquetSource(...).",
            ),
            ("features", _is_list(self.features), "A list is expected."),
            ("params", _is_named(self.params), 'Parameters by name are expected, such as {"max_depth": 3}.'),
            ("key", _is_list(self.key) and all(isinstance(c, str) for c in self.key), 'Columns such as ["id"].'),
            ("gates", _is_list(self.gates) and all(isinstance(g, Gate) for g in self.gates), "A list of gates."),
            ("split", isinstance(self.split, Split), "Split(...) is expected, such as Split('random', 0.2)."),
            *((what, isinstance(getattr(self, what), str), "Text is expected.") for what in WORDS),
        ):
            if not good:
                raise BadDefinition(
                    f"model '{self.name}' is declared with {what}={getattr(self, what)!r:.80}.", expected=expected
                )

    @property
    def views(self) -> tuple[FeatureView, ...]:
        return tuple(f for f in self.features if isinstance(f, FeatureView))

    @property
    def functions(self) -> tuple[RequestFunction, ...]:
        return tuple(f for f in self.features if isinstance(f, RequestFunction))

    @property
    def request_features(self) -> tuple[str, ...]:
        """Columns of the request that are model inputs themselves."""
        return tuple(f.removeprefix(REQUEST) for f in self.features if isinstance(f, str))


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_named(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
