"""Tuning: which parameters are best on the folds of the training part?

The split is made first, as `pipeline.fit` makes it; each trial is a cross-validation within the training part, so the
rows that the gates look at are never tuned on. Trials are kept in a journal as they end: whoever is killed goes on from
there. Each trial is drawn with a seed of its own, from the model's seed and the number of trials that ended before, so
that a tuning that was interrupted tries what one that was not would have tried.
"""

from __future__ import annotations

import importlib
import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from seatrial.core.clock import monotonic
from seatrial.core.errors import SeatrialError, UsageError, did_you_mean, listed
from seatrial.core.identity import digest, value_digest
from seatrial.core.types import Field
from seatrial.core.windows import duration_us
from seatrial.stats.metrics import METRICS
from seatrial.training.estimator import THREAD_PARAMETERS, BadEstimator, controlled, describe, make_estimator
from seatrial.training.evaluation import fit_part, measured
from seatrial.training.model import Model
from seatrial.training.rows import TrainingRefused, TrainingRows, training_rows
from seatrial.training.space import Dimension, Tune
from seatrial.training.split import Parts, folds, split
from seatrial.training.threshold import HALF

STUDY = "tuning"
SETTLED = ("COMPLETE", "PRUNED", "FAIL")
STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
INTERRUPTED = "interrupted"
FEWEST_WEIGHED = 8
"""Finished trials below which nothing is said of which parameters mattered."""


class TuneExtraMissing(UsageError):
    """Tuning needs Optuna, which the base install does not hold."""

    code = "training.tune_extra_missing"


class TuningFailed(TrainingRefused):
    """No trial of a tuning came to a value."""

    code = "training.tuning_failed"


@dataclass(frozen=True)
class Tuned:
    """model: with the best parameters among its own. record: what the run's record keeps as "tuning"."""

    model: Model
    record: dict[str, Any]


def tune(
    model: Model,
    rows: pa.Table,
    request: Sequence[Field],
    *,
    folder: Path,
    about: str = "",
    cutoff_us: int | None = None,
    fresh: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Tuned:
    """Try parameters on the folds of the training part; see `Tune`.

    rows, request, cutoff_us: as for `pipeline.fit`. folder: where journals of trials are kept. about: digest of what
    else decides about a trial (the training set, packages, the code of the user's own estimator). fresh: forget the
    trials that were made before. progress: told ("tuning", trials done, trials).

    Raises TuneExtraMissing, BadEstimator for a parameter that the estimator does not take, and TuningFailed, which
    names the first error, when every trial failed.
    """
    asked = model.tune
    assert asked is not None
    optuna = _optuna()
    _check_space(model, asked)
    known = training_rows(model, rows, cutoff_us=cutoff_us)
    parts = split(model, known)
    made = folds(model, known, parts.train)
    file = folder / f"{_identity(model, asked, about, made).removeprefix('sha256:')}.log"
    if fresh:
        file.unlink(missing_ok=True)
    study = _study(optuna, file, model, asked)
    begun, resumed = monotonic(), len(_settled(study))
    limit = duration_us(asked.timeout) / 1e6 if asked.timeout else math.inf
    while (done := len(_settled(study))) < asked.trials and (not done or monotonic() - begun < limit):
        if progress:
            progress("tuning", done, asked.trials)
        study.sampler = optuna.samplers.TPESampler(seed=(model.seed + done) % 2**32)
        _try(optuna, study, model, asked, known, request, made)
    if progress:
        progress("tuning", asked.trials, asked.trials)
    record = _record(study, model, asked, resumed)
    if record["best"] is None:
        errors = [one["error"] for one in record["trials"] if "error" in one]
        raise TuningFailed(
            f"all {len(record['trials'])} trials of tuning model '{model.name}' failed; the first: {errors[0]}",
            expected="At least one choice of parameters must give a value of "
            f"{asked.metric_of(model.task)} in every fold.",
            next="Correct the space, the features or the estimator, or train with the declared parameters: "
            "`seatrial train --no-tune`. `seatrial train --fresh` tries the same again.",
        )
    return Tuned(as_tuned(model, record), record)


def as_tuned(model: Model, record: dict[str, Any] | None) -> Model:
    """The model with the best parameters of a record of tuning; as it is when it is not tuned, or was not."""
    if model.tune is None or not record:
        return model
    return replace(model, params={**model.params, **record["best"]["params"]})


def words(record: dict[str, Any]) -> str:
    """What came of a tuning, in a sentence."""
    best = record["best"]
    chosen = ", ".join(f"{name}={value!r}" for name, value in best["params"].items())
    if "chosen_by" in record:
        return f"the parameters are those that run {record['chosen_by']} chose: {chosen}; nothing was tuned again"
    return (
        f"tuned by {record['metric']} on the folds of the training part: {chosen} is the best "
        f"({best['value']:.5g}) of {len(record['trials'])} trials, {record['pruned']} pruned and "
        f"{record['failed']} failed"
    )


def _try(
    optuna: Any,
    study: Any,
    model: Model,
    asked: Tune,
    rows: TrainingRows,
    request: Sequence[Field],
    made: Sequence[Parts],
) -> None:
    """One trial, told to the study: finished with the mean over the folds, pruned, or failed with the reason."""
    begun, trial, state = monotonic(), study.ask(), optuna.trial.TrialState
    chosen = replace(
        model, params={**model.params, **{name: _suggest(trial, name, one) for name, one in asked.space.items()}}
    )
    metric, values, heard = asked.metric_of(model.task), list[float](), list[str]()
    ended, why = state.COMPLETE, ""
    try:
        with controlled(chosen, heard):
            for number, fold in enumerate(made):
                scores = fit_part(chosen, rows, request, fold.train).score(chosen, rows, fold.test)
                value = measured(chosen, rows.labels[fold.test], scores, HALF)[metric]
                if value is None or not math.isfinite(value):
                    ended, why = state.FAIL, f"fold {number + 1} does not define {metric}"
                    break
                values.append(value)
                trial.report(float(np.mean(values)), number)
                if number + 1 < len(made) and trial.should_prune():
                    ended = state.PRUNED
                    break
    except SeatrialError as error:
        ended, why = state.FAIL, error.found
    trial.set_user_attr("seconds", round(monotonic() - begun, 6))
    trial.set_user_attr("error", why)
    study.tell(trial, float(np.mean(values)) if ended == state.COMPLETE else None, state=ended)


def _record(study: Any, model: Model, asked: Tune, resumed: int) -> dict[str, Any]:
    trials = []
    for number, one in enumerate(_settled(study)):
        last = one.intermediate_values
        value = one.value if one.value is not None else last[max(last)] if last else None
        told = {
            "number": number,
            "params": dict(one.params),
            "value": value,
            "state": STATES[one.state.name],
            "folds": len(last),
            "seconds": one.user_attrs.get("seconds", 0.0),
        }
        trials.append(told | ({"error": one.user_attrs["error"]} if one.user_attrs.get("error") else {}))
    metric = METRICS[model.task][asked.metric_of(model.task)]
    finished = [one for one in trials if one["state"] == "finished"]
    sign = 1 if metric.better == "lower" else -1
    best = min(finished, key=lambda one: (sign * one["value"], one["number"])) if finished else None
    return {
        "metric": metric.name,
        "better": metric.better,
        "sampler": "TPESampler",
        "pruner": "MedianPruner" if asked.pruner else None,
        "seed": model.seed,
        "asked": asked.as_plain(),
        "trials": trials,
        "best": best and {name: best[name] for name in ("number", "params", "value")},
        "pruned": sum(one["state"] == "pruned" for one in trials),
        "failed": sum(one["state"] == "failed" for one in trials),
        "importance": _importance(study, len(finished)),
        "resumed": resumed,
    }


def _importance(study: Any, finished: int) -> dict[str, float]:
    """Each parameter's share of what the values of finished trials vary by, the largest first, by Optuna's fANOVA
    (Hutter and others, 2014). Empty for one parameter, few trials, or values that are all the same."""
    if finished < FEWEST_WEIGHED or len({name for one in study.trials for name in one.params}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importance = importlib.import_module("optuna.importance")
        try:
            weights = importance.get_param_importances(study, evaluator=importance.FanovaImportanceEvaluator(seed=0))
        except RuntimeError:  # nothing varies
            return {}
    shares = {str(name): round(float(weight), 6) for name, weight in weights.items()}
    return shares if all(math.isfinite(share) for share in shares.values()) else {}


def _study(optuna: Any, file: Path, model: Model, asked: Tune) -> Any:
    """The study that the file holds, a new one without; a trial that was under way when its process ended is given
    up."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and not (data := file.read_bytes()).endswith(b"\n"):
        file.write_bytes(data[: data.rfind(b"\n") + 1])  # killed within a line
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        journal = importlib.import_module("optuna.storages.journal")
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5) if asked.pruner else optuna.pruners.NopPruner()
        better = METRICS[model.task][asked.metric_of(model.task)].better
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(journal.JournalFileBackend(str(file))),
            study_name=STUDY,
            load_if_exists=True,
            direction="minimize" if better == "lower" else "maximize",
            pruner=pruner,
        )
    for one in study.get_trials(deepcopy=False):
        if one.state.name not in SETTLED:
            study._storage.set_trial_user_attr(one._trial_id, INTERRUPTED, True)
            study.tell(one.number, state=optuna.trial.TrialState.FAIL)
    return study


def _settled(study: Any) -> list[Any]:
    """Trials that ended by themselves, in order."""
    trials = study.get_trials(deepcopy=False)
    return [one for one in trials if one.state.name in SETTLED and INTERRUPTED not in one.user_attrs]


def _suggest(trial: Any, name: str, one: Dimension) -> Any:
    if one.kind == "integer":
        return trial.suggest_int(name, int(one.low), int(one.high), log=one.log)
    if one.kind == "number":
        return trial.suggest_float(name, one.low, one.high, log=one.log)
    return trial.suggest_categorical(name, list(one.choices))


def _check_space(model: Model, asked: Tune) -> None:
    """Raise BadEstimator for a parameter that the estimator does not take, or that is not the user's to choose.

    An estimator that takes any parameter, as LightGBM does, is believed when the model's params name it as well.
    """
    estimator = make_estimator(model)
    maker = model.estimator if callable(model.estimator) else type(estimator)
    taken = set(model.params) | (set(estimator.get_params(deep=True)) if hasattr(estimator, "get_params") else set())
    taken |= {name for name in inspect.signature(maker).parameters if name not in ("self", "args", "kwargs")}
    if isinstance(model.estimator, str):  # a function that makes one
        module, _, name = model.estimator.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        if inspect.isfunction(found):
            taken = set(model.params) | set(inspect.signature(found).parameters)
    for name in asked.space:
        if name in THREAD_PARAMETERS or name in ("random_state", "seed"):
            raise BadEstimator(
                f"model '{model.name}' tunes '{name}'.",
                expected="Seeds and threads are part of what makes a run repeatable; they are not tuned.",
                next="Take it out of the space.",
            )
        if name not in taken:
            raise BadEstimator(
                f"model '{model.name}' tunes '{name}', which {type(estimator).__name__} does not take.",
                expected=f"It takes {listed(sorted(taken))}. {did_you_mean(name, sorted(taken))}".strip(),
                next="Correct the space; a parameter that is only known by another name is given in params as well.",
            )


def _identity(model: Model, asked: Tune, about: str, made: Sequence[Parts]) -> str:
    """Digest of all that decides what a trial gives; how many there are and how long they may take does not."""
    plain = asked.as_plain()
    return value_digest(
        {
            "model": model.name,
            "task": model.task,
            "target": model.target,
            "estimator": describe(make_estimator(model)),
            "params": repr(sorted(model.params.items())),
            "seed": model.seed,
            "threads": model.threads,
            "quantile": repr(model.quantile),
            "space": repr(plain["space"]),
            "metric": asked.metric_of(model.task),
            "pruner": asked.pruner,
            "folds": [digest(part.astype(np.int64).tobytes()) for one in made for part in (one.train, one.test)],
            "about": about,
        }
    )


def _optuna() -> Any:
    """Optuna, told to be silent. Raises TuneExtraMissing."""
    try:
        optuna: Any = importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        raise TuneExtraMissing(
            f"tuning needs the package '{error.name}', which is not installed.",
            next="Install seatrial with its extra: pip install 'seatrial[train,tune]', or train with --no-tune.",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
