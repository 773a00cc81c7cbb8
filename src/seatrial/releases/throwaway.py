"""A pickle is opened in a process that is thrown away, and comes back as a file that holds no code.

Unpickling runs whatever the file says, so nobody here does it who has something to lose. The child gets an empty
environment, a network of its own without any way out (where the kernel lets it), no other process to see, no file that
it could change but those of its own folder, and little time. It opens the model, lets it score the sample, writes it
again as skops or in the booster's format, and ends; what comes back is read like any file from elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SECONDS = 300
MOST_BYTES = 8 << 30
_MODEL, _FACTS, _ANSWERS, _SAMPLE = "model.bin", "facts.json", "answers.npy", "sample.parquet"
_NEWUSER, _NEWPID, _NEWNET, _NEWIPC = 0x10000000, 0x20000000, 0x40000000, 0x08000000
_NO_NEW_PRIVILEGES = 38


class NotOpened(UsageError):
    """A pickled model could not be opened, or not be written in a form that holds no code."""

    code = "external.not_opened"


class NotIsolated(UserWarning):
    """The kernel gave the process that opens a pickle less of its own than it was asked for."""


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

    Raises NotOpened with what the child said. Warns NotIsolated when the child had a network.
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
                expected="A fitted model of scikit-learn, LightGBM, XGBoost or CatBoost is expected, and here the "
                "packages that it was pickled with.",
                next=str(facts.get("next", "")),
                state="Nothing was released; the process that opened it is gone.",
            )
        if not facts["network_gone"]:
            warnings.warn(
                "the kernel lets this user make no network namespace: the process that opened the pickle had Python's "
                "sockets blocked, which code that means harm can get around.",
                NotIsolated,
                stacklevel=2,
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
    gone = _leave_the_world(Path(folder))
    place = Path(folder)
    try:
        facts = _convert(place) | {"network_gone": gone}
    except BaseException as error:  # what is opened raises what it likes
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        facts = {"failed": words}
        if isinstance(error, ModuleNotFoundError):
            facts["next"] = f"Install the package that has '{error.name}', in the version that it was trained with."
    (place / _FACTS).write_text(json.dumps(facts))
    os._exit(0)


def _leave_the_world(folder: Path) -> bool:
    """Give up the network, other processes, files of others and privileges; whether the network is really gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
    wanted = _NEWNET | _NEWPID | _NEWIPC
    gone = any(libc.unshare(flags) == 0 for flags in (wanted, wanted | _NEWUSER, _NEWNET, _NEWNET | _NEWUSER))
    child = os.fork()  # the first process of the new world; all others in it end with it
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _write_only_below(libc, folder)
    _block_sockets()
    return gone


def _write_only_below(libc: Any, folder: Path) -> None:
    """Let this process change no file outside `folder`, by Landlock; where the kernel has none, nothing changes."""
    changes = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))  # write, remove, make of every kind

    class Below(ctypes.Structure):
        _pack_ = 1
        _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]

    handled = ctypes.c_uint64(changes)
    rules = libc.syscall(444, ctypes.byref(handled), ctypes.c_size_t(8), 0)
    if rules < 0:
        return
    parent = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    libc.syscall(445, rules, 1, ctypes.byref(Below(changes, parent)), 0)
    libc.syscall(446, rules, 0)
    os.close(parent)
    os.close(rules)


def _block_sockets() -> None:
    import socket

    class NoSocket(socket.socket):
        def __init__(self, *_: object, **__: object) -> None:
            raise PermissionError("a model that is opened apart has no network")

    for name in ("socket", "create_connection", "create_server", "socketpair", "fromfd"):
        setattr(socket, name, NoSocket)


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
