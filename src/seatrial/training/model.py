"""What a model is: its target, its labels, its features, its estimator and the gates that it must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from seatrial.core.card import ModelCard
from seatrial.core.declared import declare
from seatrial.core.errors import did_you_mean
from seatrial.core.personal import TREATMENTS, Treatment
from seatrial.core.signature import Layout, Task
from seatrial.data.sources import Source
from seatrial.features.definitions import BadDefinition, FeatureSelection, FeatureView, check_name
from seatrial.features.request_time import RequestFunction
from seatrial.training.gates import Gate, check_gates
from seatrial.training.space import Tune
from seatrial.training.threshold import Costs

if TYPE_CHECKING:
    from seatrial.training.continuing import Start

REQUEST = "request:"
TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")
SPLITS = ("time", "stratified", "group", "random")
MOST_THREADS = 256
WORDS = ("owner", "on_call", "runbook", "description")


@dataclass(frozen=True)
class Split:
    """How rows are held back for the test that the gates read.

    kind: "time" (the last rows by time; the default when labels have an event_timestamp), "stratified"
        (binary and multiclass targets without a time), "group" (all rows that share a value of `by` are in one part)
        or "random".
    test_size: share of the rows in the test part, in (0, 1).
    by: for "group" the column of the training set, such as "customer".
    """

    kind: Literal["time", "stratified", "group", "random"] | None = None
    test_size: float = 0.2
    by: str | None = None

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
        if (self.kind == "group") != (isinstance(self.by, str) and bool(self.by)):
            raise BadDefinition(
                f"a split of the kind {self.kind!r} is given by={self.by!r}.",
                expected="Split('group', by='COLUMN') keeps the rows of one value together; no other kind takes by=.",
            )


@dataclass(frozen=True)
class Model:
    """A model and everything that training it needs.

    task: "binary" (target false/true or 0/1; answers P(positive)), "multiclass" (target of 3 to 1,000 strings or whole
        numbers; answers a probability for each class) or "regression".
    target: column of the label source; null rows have no label.
    labels: one row per thing to predict: key, time, request fields, target. `event_timestamp` is the instant
        of the prediction, `label_known_at` when its label is known. Without a time, rows are one batch.
    features: feature views (every feature of the view; some of them as view["one", "other"]), request-time functions,
        and "request:COLUMN" for a column of the label source that a request carries.
    estimator: import path of a scikit-learn compatible class or of a function that makes one
        ("lightgbm.LGBMClassifier"), or such a class, function or unfitted object itself; params: its parameters.
    inputs: "packed" (the estimator is given float32 numpy, categories as codes) or "named" (a pandas DataFrame, strings
        as they are); by default named when the estimator asks for columns by name.
    key: columns that name a row of labels (the model's business key), for joining labels later.
    gates: what a fit must reach to become a version. waives: gates of the project (`ProjectGates`) that this model is
        excused from, each by its words and with the reason: {"roc_auc at least 0.7": "a pilot of six weeks"}.
    cv_folds: folds of cross-validation on training rows; 0 for none.
    slices: columns of the label source or features; metrics are also told for each of their values.
    costs: what mistakes cost, for a binary model; they choose the operating threshold, which is 0.5 without.
    quantile: which quantile of its target a regression predicts, for `quantile_loss`; 0.5 is the median.
    threads: threads given to the estimator and to BLAS; part of what makes a run reproducible.
    tune: parameters that are searched on the training part before the fit, `Tune(...)`.
    personal: request fields and inputs that tell of a person: {"tailnum": "hash", "email": "drop"}. The prediction log
        keeps of them a pseudonym, or nothing; docs/prediction_log.md says what that means for reports.
    continues: set by a training that goes on from a fit, never declared; see `training.continuing`.
    card: what only its owner can say of it, ModelCard(...) or the path of a Markdown file of the project.
    """

    name: str
    task: Task
    target: str
    labels: Source
    features: Sequence[FeatureView | FeatureSelection | RequestFunction | str]
    estimator: str | object
    params: Mapping[str, Any] = field(default_factory=dict)
    key: Sequence[str] = ()
    gates: Sequence[Gate] = ()
    waives: Mapping[str, str] = field(default_factory=dict)
    split: Split = field(default_factory=Split)
    slices: Sequence[str] = ()
    costs: Costs | None = None
    quantile: float = 0.5
    cv_folds: int = 5
    seed: int = 42
    threads: int = 1
    owner: str = ""
    on_call: str = ""
    runbook: str = ""
    description: str = ""
    card: ModelCard | str | None = None
    inputs: Layout | None = None
    tune: Tune | None = None
    personal: Mapping[str, Treatment] = field(default_factory=dict)
    continues: Start | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name("model", self.name)
        self._check_types()
        if self.task not in TASKS:
            raise BadDefinition(
                f"model '{self.name}' has the task {self.task!r}.",
                expected=f"One of {', '.join(TASKS)} is expected. {did_you_mean(str(self.task), TASKS)}".strip(),
            )
        if self.inputs not in (None, "packed", "named"):
            raise BadDefinition(
                f"model '{self.name}' is declared with inputs={self.inputs!r}.",
                expected="'packed' or 'named' is expected, or nothing: then the estimator decides.",
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
                    expected=f"A column that the request carries is written '{REQUEST}{feature}'; a view is listed "
                    'itself, without quotes, and some of its features as view["one", "other"].',
                )
            if not isinstance(feature, (str, FeatureView, FeatureSelection, RequestFunction)):
                raise BadDefinition(
                    f"model '{self.name}' lists {type(feature).__name__} among its features.",
                    expected="Views, view['feature'], request-time functions or 'request:COLUMN' are expected.",
                )
        whole = [f.name for f in self.features if isinstance(f, FeatureView)]
        parts = [column for f in self.features if isinstance(f, FeatureSelection) for column in f.columns]
        again = [one for one in parts if parts.count(one) > 1 or one.partition("__")[0] in whole]
        if again:
            raise BadDefinition(f"model '{self.name}' lists '{again[0]}' twice.", expected="Once is enough.")
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
        lost = [name for name in self.key if self.personal.get(name) == "drop"]
        if lost:
            raise BadDefinition(
                f"model '{self.name}' drops '{lost[0]}' from its log, by which labels find their predictions.",
                expected='A column of the key can be hashed: {"' + lost[0] + '": "hash"}.',
            )
        self._check_measured()
        check_gates(self.gates, self.task, cv_folds=self.cv_folds)
        if self.tune is not None:
            self.tune.check(self.name, self.task, self.cv_folds)
        declare(self)

    def _check_measured(self) -> None:
        """Raise BadDefinition for a threshold or a quantile that cannot be chosen or measured."""
        if self.costs is not None and self.task != "binary":
            raise BadDefinition(
                f"model '{self.name}' states costs, and its task is {self.task}.",
                expected="Costs choose the threshold of a binary model; there is none to choose here.",
            )
        if self.costs is not None and not self.cv_folds:
            raise BadDefinition(
                f"model '{self.name}' states costs and turns cross-validation off with cv_folds=0.",
                expected="The threshold is chosen on predictions of the folds, never on the test rows.",
            )
        quantile = self.quantile
        if isinstance(quantile, bool) or not isinstance(quantile, int | float) or not 0 < quantile < 1:
            raise BadDefinition(
                f"model '{self.name}' predicts the quantile {quantile!r}.", expected="One between 0 and 1 is expected."
            )
        for gate, reason in self.waives.items():
            if not isinstance(reason, str) or not reason.strip():
                raise BadDefinition(
                    f"model '{self.name}' waives the gate '{gate}' without a reason.",
                    expected="A gate of the project is waived with a reason in words.",
                )

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
            ("waives", _is_named(self.waives), 'Reasons by gate, such as {"roc_auc at least 0.7": "a pilot"}.'),
            (
                "card",
                self.card is None or isinstance(self.card, (ModelCard, str)),
                "ModelCard(...), or the path of a Markdown file.",
            ),
            ("split", isinstance(self.split, Split), "Split(...) is expected, such as Split('random', 0.2)."),
            (
                "slices",
                _is_list(self.slices) and all(isinstance(c, str) for c in self.slices),
                'Columns such as ["carrier"] are expected.',
            ),
            (
                "costs",
                self.costs is None or isinstance(self.costs, Costs),
                "Costs(false_positive=..., false_negative=...) is expected.",
            ),
            (
                "personal",
                _is_named(self.personal) and all(one in TREATMENTS for one in self.personal.values()),
                'Columns with "hash" or "drop", such as {"tailnum": "hash"}.',
            ),
            ("tune", self.tune is None or isinstance(self.tune, Tune), "Tune(space={...}) is expected."),
            *((what, isinstance(getattr(self, what), str), "Text is expected.") for what in WORDS),
        ):
            if not good:
                raise BadDefinition(
                    f"model '{self.name}' is declared with {what}={getattr(self, what)!r:.80}.", expected=expected
                )

    @property
    def views(self) -> tuple[FeatureView, ...]:
        taken = [f.view if isinstance(f, FeatureSelection) else f for f in self.features]
        return tuple(dict.fromkeys(f for f in taken if isinstance(f, FeatureView)))

    @property
    def functions(self) -> tuple[RequestFunction, ...]:
        return tuple(f for f in self.features if isinstance(f, RequestFunction))

    @property
    def request_features(self) -> tuple[str, ...]:
        """Columns of the request that are model inputs themselves."""
        return tuple(f.removeprefix(REQUEST) for f in self.features if isinstance(f, str))

    @property
    def described_by(self) -> tuple[str, ...]:
        """Columns that the training set must hold beside inputs, key and target: those of slices, groups and gates."""
        by = [self.split.by] if self.split.by else []
        return tuple(dict.fromkeys([*self.slices, *by, *(gate.by for gate in self.gates if gate.by)]))


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_named(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
