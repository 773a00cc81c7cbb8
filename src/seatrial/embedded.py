"""A release inside another program: opened, verified and asked without a server and without a project's code.

    with seatrial.load("late.seatrial", trusted="keys/") as model:
        model.predict({"distance": 1400.0, "origin": "JFK"})

It answers what the service would answer for the same rows: the same checks of the request, the same encoding, the same
runtime and, with `log=`, the same prediction log. Nothing that trains is imported, and nothing in a bundle is executed
or unpickled.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import as_utc, iso
from seatrial.core.errors import Unavailable, UsageError, listed
from seatrial.core.types import Field
from seatrial.features.plan import FeaturePlan
from seatrial.releases.bundle import SUFFIX
from seatrial.releases.signing import KeyRing, key_id, read_public, trusted_keys

if TYPE_CHECKING:
    from seatrial.releases.signing import TrustedKeys
    from seatrial.serving.scoring.predictor import Release
    from seatrial.stores.online import OnlineStore
    from seatrial.stores.prediction_log import PredictionLog

VARIABLE = "SEATRIAL_TRUSTED_KEYS"
CHUNK = 1000
"""Rows that are asked at once."""

Answer = dict[str, Any]


class NoTrustedKey(UsageError):
    """A bundle was to be opened, and no key was named whose signature counts."""

    code = "load.no_trusted_key"


class RowRefused(UsageError):
    """A row could not be answered. facts: `problem`, the same document that the service answers with."""

    code = "load.row_refused"


class NoAnswer(Unavailable):
    """A sound row was not answered: its log, its online store or the process that scores could not be reached.

    facts: `problem`, the same document that the service answers with.
    """

    code = "load.no_answer"


class LoadedModel:
    """A release that answers in this process; may be used by many threads. Made by `load`.

    release: its id. model, version: whose it is. fields: what a row holds. example: a sound row.
    """

    def __init__(
        self, release: Release, online: OnlineStore | None, log: PredictionLog | None = None, *, own_log: bool = False
    ) -> None:
        from seatrial.serving.meters.metrics import Metrics
        from seatrial.serving.scoring.predictor import Predictor, Share

        self._online = online
        self._log = log
        self._closes = log if own_log else None
        self._runtime = getattr(release.score, "__self__", None)  # what scores it, where that is a process of its own
        self.looks_up = bool(release.plan.views) and online is not None
        served = release if self.looks_up else _with_features_given(release)
        self.release, self.model, self.version = release.id, release.model, release.version
        self.fields: tuple[Field, ...] = served.signature.request
        self.example = dict(served.example or {})
        self._given = {field.name for field in self.fields} - {field.name for field in release.signature.request}
        self._predictor = Predictor(
            release.model,
            [Share("embedded", served)],
            metrics=Metrics(),
            log=log,
            online=online,
            replay=True,
            max_rows=CHUNK,
        )

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<seatrial model {self.model} {self.version}, {self.release}>"

    def close(self) -> None:
        """Close the online store and the log that were opened here, and end the process that scores, if it is another.

        A log that is not closed loses nothing: its rows are there when `predict` returns.
        """
        end = getattr(self._runtime, "close", None)
        if end is not None:
            end()
        if self._online is not None:
            self._online.close()
            self._online = None
        if self._closes is not None:
            self._closes.close()

    def predict(
        self, rows: object, *, at: datetime | None = None, request_id: str | None = None, caller: str = ""
    ) -> Any:
        """Answer rows: for one dict one answer; for a list of dicts, an Arrow table or a pandas frame a list of them.

        An answer has `prediction`, `probability` (of the positive class; by class for several; None for a regression),
        `model_version` and `release`; with a log also `prediction_id`. A missing value is None, NaN, null or an absent
        optional field.
        at: the instant as of which features are looked up (default: now). request_id, caller: by which the log can be
        asked later; up to CHUNK rows have one request_id. All rows are answered, or none; above CHUNK rows, in order,
        those before the first that could not be are in the log.
        Raises RowRefused, which names the row and the field, and NoAnswer.
        """
        if isinstance(rows, Mapping):
            return self._ask([rows], at, request_id, caller)[0]
        plain = _rows(rows)
        if request_id is not None and len(plain) > CHUNK:
            raise RowRefused(
                f"{len(plain):,} rows are to have one request_id.",
                expected=f"At most {CHUNK:,} rows are one request.",
                state="Nothing was predicted.",
            )
        chunks = (plain[start : start + CHUNK] for start in range(0, len(plain), CHUNK))
        return [one for chunk in chunks for one in self._ask(chunk, at, request_id, caller)]

    def _ask(
        self, rows: Sequence[Mapping[str, Any]], at: datetime | None, request_id: str | None, caller: str
    ) -> list[Answer]:
        body: dict[str, Any] = {"instances": [self._plain(row) for row in rows]}
        if request_id is not None:
            body["request_id"] = request_id
        if at is not None:
            body["at"] = iso(as_utc(at))
        try:
            encoded = msgspec.json.encode(body)
        except (TypeError, ValueError) as error:
            raise RowRefused(f"a row holds what is no plain value: {error}.", state="Nothing was predicted.") from None
        answer = self._predictor.handle(encoded, caller)
        told: dict[str, Any] = msgspec.json.decode(answer.body)
        if answer.status >= 500:
            raise NoAnswer(str(told.get("detail", "the rows were not answered.")), problem=told)
        if answer.status != 200:
            known = {field.name for field in self.fields}
            strange = list(dict.fromkeys(str(name) for row in rows for name in row if str(name) not in known))
            detail = str(told.get("detail", "the rows were refused."))
            raise RowRefused(
                f"{detail} Not a field: {listed(map(repr, strange))}." if strange else detail,
                expected=f"A row holds {listed([field.name for field in self.fields], most=12)}.",
                state="Nothing was predicted.",
                problem=told,
            )
        kept = ["prediction", "probability", "model_version", "release", "degraded", "views"]
        kept += ["prediction_id"] if self._log is not None else []
        return [{name: one[name] for name in kept if name in one} for one in told["predictions"]]

    def _plain(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: float(value) if isinstance(value, bool) and name in self._given else value
            for name, value in ((str(name), _value(name, value)) for name, value in row.items())
        }


def load(
    reference: str | Path,
    *,
    project: str | Path | None = None,
    online: str | None = None,
    trusted: str | Path | TrustedKeys | None = None,
    log: str | Path | PredictionLog | None = None,
) -> LoadedModel:
    """Open a release to predict with it in this process; its golden rows are replayed first.

    reference: a bundle's path, or a name in a project: "late@champion", "late:3", "late", a release's id.
    project: the project's folder (default: this one); only names and relative addresses need it.
    online: the address of an online store ("redis://...", "sqlite:///PATH") in which the features of views are looked
        up, or "project" for the project's own; without it rows hold them as `view__feature`.
    trusted: whose signature counts: a public key's file (.pub), a folder of them, or keys by id; by default the
        variable SEATRIAL_TRUSTED_KEYS (a file or folder), else the keys that the project trusts.
    log: a folder, or a PredictionLog, to which each answer is written before `predict` returns it, as the service
        does; any number of processes may write to one folder, and `seatrial monitor --log` reports on it. Without it
        nothing is logged.
    Raises NoTrustedKey, and what opening a bundle raises: see `releases.bundle.open_bundle`.
    """
    from seatrial.serving.scoring.release import open_release

    folder = Path(project or ".")
    path = Path(reference)
    ring: TrustedKeys | None = None
    if not (_is_file(path) or str(reference).endswith(SUFFIX)):
        path, ring = _of_project(str(reference), folder)
    if ring is None or trusted is not None:
        ring = _ring(trusted, folder)
    release = open_release(path, ring)
    store = _open_online(online, folder) if online and release.plan.views else None
    own = isinstance(log, (str, Path))
    return LoadedModel(release, store, _open_log(log), own_log=own)


def _load_pyfunc(path: str) -> _PyFunc:
    """What MLflow calls to load a model whose MLmodel names this module: the folder's bundle.

    The key is the one that SEATRIAL_TRUSTED_KEYS names; without it the public key that lies beside the bundle, which
    shows that the bundle is whole, but says nothing of who made it: that is then MLflow's word.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    (bundle,) = sorted(folder.glob(f"*{SUFFIX}"))
    return _PyFunc(load(bundle, trusted=os.environ.get(VARIABLE) or folder))


class _PyFunc:
    """The shape that MLflow expects of a model."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model

    def predict(self, model_input: object, params: object = None) -> Any:
        """A pandas frame with `prediction` and `probability`, a row for each row."""
        del params
        import pandas as pd

        answers = self.model.predict([model_input] if isinstance(model_input, Mapping) else model_input)
        return pd.DataFrame([{name: one[name] for name in ("prediction", "probability")} for one in answers])


def _with_features_given(release: Release) -> Release:
    """The release as it answers rows that hold the features of its views; entity keys are needed no more."""
    from dataclasses import replace

    plan, signature = release.plan, release.signature
    if not plan.views:
        return release
    args = {arg for function in plan.functions for arg in function.args}
    needed = {*signature.inputs, *args}
    features = [name for view in plan.views for name in (f"{view.name}__{one}" for one in view.features)]
    given = [
        Field(name, "category" if name in signature.categories else "float", nullable=True)
        for name in features
        if name in needed
    ]
    asked = [
        field if field.name in needed else msgspec.structs.replace(field, nullable=True, optional=True)
        for field in signature.request
    ]
    example = {**(release.example or {}), **dict.fromkeys((field.name for field in given), None)}
    return replace(
        release,
        signature=msgspec.structs.replace(signature, request=(*asked, *given)),
        plan=FeaturePlan((), plan.functions),
        example=example,
    )


def _of_project(name: str, folder: Path) -> tuple[Path, KeyRing]:
    """The bundle that a name means in a project, and the keys that the project trusts."""
    from seatrial.verbs.nouns import Nouns

    workspace = Nouns(folder)
    try:
        release = workspace.chosen_release(None, name)
        return workspace.objects.path(release.body["object"]), workspace.trusted
    finally:
        workspace.close()


def _ring(trusted: str | Path | TrustedKeys | None, folder: Path) -> TrustedKeys:
    if isinstance(trusted, Mapping):
        return trusted
    place = Path(trusted or os.environ.get(VARIABLE) or folder / ".seatrial" / "keys")
    if place.is_dir():
        ring = trusted_keys(place)
        files = sorted(place.glob("*.pub"))
    else:
        ring, files = KeyRing(), [place] if _is_file(place) else []
    for file in files:
        public = read_public(file.read_bytes())
        if public is not None and key_id(public) not in ring.revoked:
            ring[key_id(public)] = public
    if not ring and not ring.revoked:
        raise NoTrustedKey(
            f"there is no public key in {place}.",
            expected="A bundle counts when a key that you trust signed it.",
            state="Nothing was loaded.",
            next=f"Give trusted= (a .pub file, or a folder of them), or set {VARIABLE}. `seatrial keys list` in the "
            "project names them; they lie in .seatrial/keys/trusted/.",
        )
    return ring


def _open_online(address: str, folder: Path) -> OnlineStore:
    from seatrial.folder.workspace import Workspace
    from seatrial.stores.online import open_online

    workspace = Workspace(folder)
    if address == "project":
        return workspace.online_for_serving()
    return open_online(address, folder=folder, project=workspace.name, lazy=True)


def _open_log(log: str | Path | PredictionLog | None) -> PredictionLog | None:
    from seatrial.stores.prediction_log import PredictionLog

    return PredictionLog(Path(log)) if isinstance(log, (str, Path)) else log


def _rows(rows: object) -> Sequence[Mapping[str, Any]]:
    """Rows as dicts. Frames of pandas go through Arrow, which says what is missing."""
    if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)):
        wrong = next((one for one in rows if not isinstance(one, Mapping)), None)
        if wrong is None:
            return rows
        raise RowRefused(f"a row is {type(wrong).__name__}, not a dict.", state="Nothing was predicted.")
    made_of = type(rows).__module__.partition(".")[0]
    if made_of in ("pyarrow", "pandas", "polars"):
        import pyarrow as pa

        table: Any = rows
        if made_of == "pandas":
            table = pa.Table.from_pandas(rows, preserve_index=False)
        elif made_of == "polars":
            table = table.to_arrow()
        found: list[dict[str, Any]] = table.to_pylist()
        return found
    raise RowRefused(
        f"rows are {type(rows).__name__}.",
        expected="A dict, a list of dicts, an Arrow table or a pandas frame is expected.",
        state="Nothing was predicted.",
    )


def _value(name: str, value: Any) -> Any:
    """A value as JSON has it: no value is None, numbers of numpy and decimals are plain, times have their zone."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Decimal):
        value = float(value)
    item = getattr(value, "item", None)
    if item is not None and not isinstance(value, float):
        with suppress(ValueError):
            return _value(name, item())
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            raise RowRefused(
                f"field '{name}' is infinite.", expected="A number or None is expected.", state="Nothing was predicted."
            )
        return float(value)
    if isinstance(value, datetime):
        return iso(as_utc(value)) if value.tzinfo else f"{value.isoformat()}Z"
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00Z"
    return value


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
