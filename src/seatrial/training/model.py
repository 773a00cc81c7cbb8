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
TASKS: tuple[Task, ...] = ("binary", "regression")
SPLITS = ("time", "stratified", "random")


@dataclass(frozen=True)
class Split:
    """How rows are held back for the test that the gates read.

    kind: "time" (the last rows by time; the default when labels have an event_timestamp), "stratified"
        (binary targets without a time) or "random".
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
        if not 0 < self.test_size < 1:
            raise BadDefinition(
                f"a split holds back {self.test_size!r} of the rows.", expected="A share between 0 and 1 is expected."
            )


@dataclass(frozen=True)
class Model:
    """A model and everything that training it needs.

    task: "binary" (target false/true or 0/1; answers P(positive)) or "regression".
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
        if not 0 <= self.cv_folds != 1:
            raise BadDefinition(
                f"model '{self.name}' asks for {self.cv_folds} cross-validation folds.", expected="0, or at least 2."
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
        if not isinstance(self.threads, int) or self.threads < 1:
            raise BadDefinition(f"model '{self.name}' asks for {self.threads!r} threads.", expected="At least 1.")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise BadDefinition(
                f"model '{self.name}' has the seed {self.seed!r}.", expected="A whole number in [0, 2^32) is expected."
            )
        check_gates(self.gates, self.task, cv_folds=self.cv_folds)
        declare(self)

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
