"""A pickle is opened in a process that is thrown away, and comes back as a file that holds no code.

Unpickling runs whatever the file says, so nobody here does it who has something to lose. The child gets an empty
environment, little time, and what `releases.confinement` leaves it: no socket, no other process, no file to read but
Python's and the system's, none to change but those of its own folder. It opens the model, lets it score the sample,
writes it again as skops or in the booster's format, and ends; what comes back is read like any file from elsewhere.
Where the kernel cannot confine it, nothing is opened.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.core.errors import UsageError
from seatrial.releases.confinement import Unconfined, confine, end_first_without_memory, leave_namespaces

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SECONDS = 300
MOST_BYTES = 8 << 30
_MODEL, _FACTS, _ANSWERS, _SAMPLE = "model.bin", "facts.json", "answers.npy", "sample.parquet"


_EXPECTED = (
    "A fitted model of scikit-learn, LightGBM, XGBoost or CatBoost is expected, and here the packages that it was "
    "pickled with."
)


class NotOpened(UsageError):
    """A pickled model could not be opened apart, or not be written in a form that holds no code."""

    code = "external.not_opened"


@dataclass(frozen=True)
class Opened:
    """What a pickled model was turned into.

    data: skops, or a booster's file. classes: of a classifier, as plain values. answers: of the model as it was pickled
    on the sample, float64 (n,) or (n, C); None when it could not score it. estimator: its class.
    """

    data: bytes
    estimator: str
    classes: tuple[Any, ...]
    parameters: dict[str, Any]
    answers: NDArray[np.float64] | None


def open_pickle(data: bytes, sample: pa.Table) -> Opened:
    """Open a pickle, or a skops file of any types, apart, and bring back what can be loaded without running code.

    Raises NotOpened with what the child said.
    """
    import numpy as np
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="seatrial-apart-") as made:
        folder = Path(made)
        (folder / _MODEL).write_bytes(data)
        pq.write_table(sample, folder / _SAMPLE)
        facts = _run(folder)
        if "failed" in facts:
            raise NotOpened(
                f"the pickled model could not be taken over: {facts['failed']}",
                expected=str(facts.get("expected") or _EXPECTED),
                next=str(facts.get("next", "")),
                state="Nothing was released; the process that opened it is gone.",
            )
        answers = folder / _ANSWERS
        return Opened(
            data=(folder / "out.bin").read_bytes(),
            estimator=str(facts["estimator"]),
            classes=tuple(facts["classes"]),
            parameters=dict(facts["parameters"]),
            answers=np.load(answers, allow_pickle=False) if answers.exists() else None,
        )


def _run(folder: Path) -> dict[str, Any]:
    package = str(Path(__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {package!r}); "
    code += f"from seatrial.releases.throwaway import main; main({str(folder)!r})"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"}
    environment |= {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "SEATRIAL_APART": "1"}
    process = subprocess.Popen(
        [sys.executable, "-I", "-W", "ignore", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=folder,
        close_fds=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        said = f"it was not done after {SECONDS} seconds".encode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    try:
        facts: dict[str, Any] = json.loads((folder / _FACTS).read_bytes())
        return facts
    except (OSError, ValueError):
        lines = said.decode(errors="replace").strip().splitlines() or [f"it ended with {process.returncode}"]
        return {"failed": lines[-1][:300]}


def main(folder: str) -> None:
    """What the child does. It never returns."""
    place = Path(folder)
    try:
        _leave_the_world(place)
        facts = _convert(place)
    except Unconfined as error:
        facts = {"failed": error.found.rstrip("."), "expected": error.expected, "next": error.next}
    except BaseException as error:  # what is opened raises what it likes
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        facts = {"failed": words}
        if isinstance(error, ModuleNotFoundError):
            facts["next"] = f"Install the package that has '{error.name}', in the version that it was trained with."
    (place / _FACTS).write_text(json.dumps(facts))
    os._exit(0)


def _leave_the_world(folder: Path) -> None:
    """Give up all that is not needed to turn one file into another. Raises Unconfined."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
    leave_namespaces()
    child = os.fork()  # the first process of the new world; all others in it end with it
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    end_first_without_memory()
    confine(folder)


def _convert(folder: Path) -> dict[str, Any]:
    import numpy as np

    model = _load((folder / _MODEL).read_bytes())
    data = _rewritten(model, folder)
    (folder / "out.bin").write_bytes(data)
    import pyarrow.parquet as pq

    from seatrial.releases import foreign

    answers = foreign.answers_of(model, pq.read_table(folder / _SAMPLE))
    if answers is not None:
        np.save(folder / _ANSWERS, answers, allow_pickle=False)
    classes = [one.item() if isinstance(one, np.generic) else one for one in getattr(model, "classes_", ())]
    parameters = foreign.parameters_of(model)
    return {"estimator": foreign.class_of(model), "classes": classes, "parameters": parameters}


def _load(data: bytes) -> Any:
    from seatrial.releases.foreign import kind_of

    if kind_of(data) == "skops":
        import skops.io

        return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    import io

    if data[:1] == b"\x80":
        import pickle

        return pickle.loads(data)  # this is what the process is for
    import joblib  # type: ignore[import-untyped]

    return joblib.load(io.BytesIO(data))


def _rewritten(model: Any, folder: Path) -> bytes:
    """The model in its own format, or as skops."""
    package, path = type(model).__module__.partition(".")[0], folder / "rewritten"
    if package == "lightgbm":
        text: str = getattr(model, "booster_", model).model_to_string()
        return text.encode()
    if package == "xgboost":
        booster = model.get_booster() if hasattr(model, "get_booster") else model
        return bytes(booster.save_raw("json"))
    if package == "catboost":
        model.save_model(str(path), format="cbm")
        return path.read_bytes()
    import skops.io

    return bytes(skops.io.dumps(model))
