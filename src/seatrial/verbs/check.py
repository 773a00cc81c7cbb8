"""Check: would the definitions train, as far as that can be told without data, servers and stores?

For a pull request, in seconds: the project file is run, estimators are imported and made with their parameters,
request-time functions are tried on made-up numbers, and every name that one definition has of another is looked up.
What needs rows (columns, types, classes) is for `seatrial validate`, and `seatrial train --sample` tries it all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.errors import Failed, SeatrialError, did_you_mean, listed
from seatrial.features.shared import SharedView
from seatrial.folder.loading import Definitions
from seatrial.folder.workspace import Workspace

if TYPE_CHECKING:
    from seatrial.core.types import Dtype
    from seatrial.monitoring.definition import Monitor
    from seatrial.training.model import Model

ROWS = 64
"""Made-up rows that request-time functions are tried on."""


class DefinitionsWrong(Failed):
    """`check` found definitions that would not train."""

    code = "check.definitions_wrong"


class Looked(msgspec.Struct, frozen=True):
    """One thing that was looked at. what: the definition. found: what is wrong, or what there is. next: a correction.

    passed: None for something worth knowing that stops nothing.
    """

    what: str
    check: str
    passed: bool | None
    found: str
    next: str = ""


def check(workspace: Workspace) -> list[Looked]:
    """Look at every definition; never raises for a wrong one, but says so."""
    try:
        definitions = workspace.definitions
    except SeatrialError as error:
        return [Looked("project", "definitions", False, _words(error), error.next)]
    counts = {
        "model": len(definitions.models),
        "view": len(definitions.views),
        "source": len(definitions.own_sources),
        "deployment": len(definitions.deployments),
    }
    words = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())
    found = [Looked("project", "definitions", True, words)]
    if not definitions.models:
        found.append(Looked("project", "models", None, "no model is declared, so there is nothing to train"))
    for model in definitions.models.values():
        found += _model(model, definitions)
    for view in definitions.views.values():
        if isinstance(view, SharedView):
            found.append(Looked(f"view {view.name}", "look-up", None, f"is of {view.url}, which was not looked at"))
        else:
            found.append(_tried(f"view {view.name}", "event key", _event_key(view)))
    found += _names(definitions)
    for monitor in definitions.monitors.values():
        if monitor.model in definitions.models:
            found += _inputs_watched(monitor, definitions)
    return found


def check_all_personal(definitions: Definitions) -> None:
    """Raise BadPersonal for a model that declares a column to be personal which it does not have."""
    for model in definitions.models.values():
        if model.personal and not any(isinstance(view, SharedView) for view in model.views):
            _personal(model, definitions)


def wrong(found: list[Looked]) -> DefinitionsWrong:
    """The error for what did not pass."""
    failed = [one for one in found if one.passed is False]
    return DefinitionsWrong(
        f"{len(failed)} of {len(found)} checks failed: {listed(f'{one.what} ({one.check})' for one in failed)}.",
        expected="\n".join(f"  {one.what}: {one.found}" for one in failed),
        state="Nothing was read but the definitions.",
    )


def _model(model: Model, definitions: Definitions) -> Iterator[Looked]:
    what = f"model {model.name}"
    shared = [view.name for view in model.views if isinstance(view, SharedView)]
    if shared:
        yield Looked(what, "features", None, f"{listed(shared)} of another project were not looked at")
    else:
        yield _tried(what, "features", lambda: _features(model, definitions))
        yield _tried(what, "request-time functions", lambda: _functions(model, definitions))
        if model.personal:
            yield _tried(what, "personal", lambda: _personal(model, definitions))
    yield _tried(what, "estimator", lambda: _estimator(model))
    own = [*map(str, model.gates), *(f"{gate} (of the project)" for gate in definitions.gates)]
    yield Looked(what, "gates", True if own else None, listed(own) if own else "none: every fit becomes a version")
    for gate, reason in model.waives.items():
        yield Looked(what, "gates", None, f"is excused from '{gate}': {reason}")
    lacking = [name for name in ("owner", "on_call", "runbook") if not getattr(model, name)]
    if lacking:
        yield Looked(what, "people", None, f"has no {listed(lacking)}; deploying it asks for a reason")
    if not model.key:
        yield Looked(what, "key", None, "has no key=, so labels that come later need a prediction_id or request_id")


def _features(model: Model, definitions: Definitions) -> str:
    from seatrial.features.plan import make_plan
    from seatrial.training.rows import TrainingColumnMissing, input_names

    plan = make_plan(model.features, definitions.views)
    names = input_names(model)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TrainingColumnMissing(
            f"two inputs of model '{model.name}' are named '{twice[0]}'.", expected="Every input needs a name."
        )
    asked = list(dict.fromkeys([*plan.request_columns, *model.request_features]))
    if model.target in asked:
        raise TrainingColumnMissing(
            f"model '{model.name}' would be given its own target '{model.target}' with every request.",
            expected="A feature, a key or an argument of a function cannot be what is predicted.",
        )
    return f"{len(names)} inputs; a request carries {listed(asked)}"


def _personal(model: Model, definitions: Definitions) -> str:
    from seatrial.core.personal import check_personal
    from seatrial.features.plan import make_plan
    from seatrial.training.rows import input_names

    plan = make_plan(model.features, definitions.views)
    names = [*model.key, *plan.request_columns, *model.request_features, *input_names(model)]
    types: dict[str, Dtype] = dict.fromkeys(names, "string")  # which it is only rows say: training looks at that
    check_personal(model.name, model.personal, types)
    return ", ".join(f"{name} is {'hashed' if how == 'hash' else 'dropped'}" for name, how in model.personal.items())


def _functions(model: Model, definitions: Definitions) -> str:
    import numpy as np

    from seatrial.features.lookup import compute, load_functions
    from seatrial.features.plan import make_plan
    from seatrial.features.request_time import check_row_wise

    plan = make_plan(model.features, definitions.views)
    random = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for function, (name, args, loaded) in zip(plan.functions, load_functions(plan), strict=True):
        columns = {}
        for arg in args:
            numbers = random.normal(scale=100, size=ROWS)
            numbers[::7] = np.nan
            columns[arg] = made.get(arg, numbers)
        check_row_wise(name, function.source, columns)
        made |= compute([(name, args, loaded)], columns)
    return listed(made) if made else "none"


def _estimator(model: Model) -> str:
    from seatrial.training.estimator import describe, make_estimator, require_extra

    require_extra()
    made = make_estimator(model)
    described, known = describe(made), _stated(made, model)
    unknown = [name for name in model.params if known and name not in known]
    near = did_you_mean(unknown[0], known) if unknown else ""
    note = f", which hands {listed(unknown)} on unlooked-at. {near}".rstrip() if unknown else ""
    return f"{described['class']}({', '.join(f'{name}={value!r}' for name, value in model.params.items())}){note}"


def _stated(made: Any, model: Model) -> list[str]:
    """The parameters that an estimator's class names; none when something else makes it."""
    kind = type(made)
    path = model.estimator if isinstance(model.estimator, str) else getattr(model.estimator, "__name__", "")
    return list(inspect.signature(kind).parameters) if path.rpartition(".")[2] == kind.__name__ else []


def _event_key(view: Any) -> Callable[[], str]:
    def look() -> str:
        from seatrial.features.materialize import require_event_key

        require_event_key(view)
        return f"{len(view.features)} features of '{view.source.name}' by {listed(view.entity.keys)}"

    return look


def _names(definitions: Definitions) -> Iterator[Looked]:
    """The names that definitions have of models."""
    named = [(f"deployment {name}", one.model) for name, one in definitions.deployments.items()]
    named += [(f"monitor {name}", name) for name in definitions.monitors]
    named += [(f"retrain {name}", name) for name in definitions.retrains]
    for what, model in named:
        known = model in definitions.models
        near = did_you_mean(model, definitions.models)
        yield Looked(
            what,
            "model",
            known,
            f"of model '{model}'" if known else f"no model is named '{model}'; there is {listed(definitions.models)}.",
            "" if known else near,
        )


def _inputs_watched(monitor: Monitor, definitions: Definitions) -> Iterator[Looked]:
    """Alarms and thresholds on an input that the model does not have: they would be silent for ever."""
    from seatrial.monitoring.looks.drift import PREDICTION
    from seatrial.monitoring.policy.series import KINDS
    from seatrial.training.rows import input_names

    model = definitions.models[monitor.model]
    if any(isinstance(view, SharedView) for view in model.views):
        return
    names = input_names(model)
    asked = [("alarms", f"the alarm '{one.name}'", one.metric.partition(":")[2]) for one in monitor.alarms]
    for factor in monitor.thresholds:
        kind, _, column = factor.partition(":")
        asked.append(("thresholds", f"the threshold '{factor}'", column if kind in KINDS else factor))
    for check, who, column in asked:
        if column and column not in (*names, PREDICTION, "*"):
            found = f"{who} is on '{column}', which is no input of model '{model.name}', so it would be silent."
            yield Looked(f"monitor {monitor.model}", check, False, found, did_you_mean(column, names))


def _tried(what: str, check: str, look: Callable[[], str]) -> Looked:
    try:
        return Looked(what, check, True, look())
    except SeatrialError as error:
        return Looked(what, check, False, _words(error), error.next)


def _words(error: SeatrialError) -> str:
    return " ".join(part for part in (error.found, error.expected) if part)
