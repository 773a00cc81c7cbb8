"""From a notebook: record a fit that was made already, in the project of a folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.core.signature import Task

if TYPE_CHECKING:
    from seatrial.project import Project
    from seatrial.verbs.tracking import Logged


def log_run(
    model: Any,
    X_train: Any,
    y_train: Any,
    X_test: Any,
    y_test: Any,
    *,
    name: str,
    params: Mapping[str, Any] | None = None,
    task: Task | None = None,
    target: str = "target",
    owner: str = "",
    on_call: str = "",
    runbook: str = "",
    description: str = "",
    slices: Sequence[str] = (),
    notebook: str | Path | None = None,
    project: Project | None = None,
) -> Logged:
    """Record a fit that was made already: the model, the rows, how good it is on the test rows, and from which code.

    model: fitted, of scikit-learn, LightGBM, XGBoost or CatBoost. X: frames or arrays (n, k); y: (n,).
    params: what was chosen, in words of one's own. target: what the outcome is called. slices: columns of X; the
    test rows are also measured for each of their values. notebook: the notebook's file, where the notebook server does
    not tell. project: default: that of this folder, which needs no file in it.
    The sources of a notebook's cells are kept. A run whose code is in no commit is marked as not reproducible; it is
    released after it was made again from a commit. Raises BadFit, BadSample, BadTarget, WrongTask, NotCaptured.
    """
    from seatrial.project import Project
    from seatrial.verbs.tracking import log_fit, origin_of

    origin = origin_of(sys._getframe(1).f_globals, notebook)
    words = {"owner": owner, "on_call": on_call, "runbook": runbook, "description": description}
    opened = project or Project(".")
    opened.found()
    try:
        done = log_fit(
            opened,
            model,
            (X_train, y_train, X_test, y_test),
            name=name,
            params=params,
            task=task,
            target=target,
            words=words,
            origin=origin,
            slices=slices,
        )
        opened._start_mirror()
        return done
    finally:
        if project is None:
            opened.close()
