"""The Open Inference Protocol, version 2: what the clients of Triton, KServe and MLServer speak.

    GET  /v2                                      the server, and what it knows beyond the protocol
    GET  /v2/health/live        /v2/health/ready
    GET  /v2/models/M[/versions/V]                its tensors      .../ready
    POST /v2/models/M[/versions/V]/infer          predictions
    POST /v2/repository/index                     what is served

A request is tensors of n rows: one for each request field, of shape [n] or [n, 1], because a row is made of named
fields of several types; of a deployment whose fields are all numbers also one tensor [n, k], `WIDE`, as those send it
whose model was fitted on a matrix. Among numbers NaN is what is missing; in JSON null is. Tensors come as JSON or, by
Triton's extension, as raw bytes behind it, packed by gzip or deflate or not, and go so as well.
Everything else (types, limits, routing, the log, what is refused) is that of /predict. Whatever is refused on these
paths is `{"error": "..."}`.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

import seatrial
from seatrial.core.errors import UsageError, did_you_mean, listed
from seatrial.core.types import Field
from seatrial.serving.doors.body import packed, strict_json, unpacked
from seatrial.serving.doors.http import JSON, MethodNotAllowed, foreseen, header, trace_of
from seatrial.serving.scoring.personal import as_strict
from seatrial.serving.scoring.predictor import Answer, Predictor, Share, finish, problem, shadow
from seatrial.serving.scoring.requests import LONGEST_ID, BadRequest
from seatrial.serving.service import NotFound
from seatrial.stores.routes import SHADOW_ARM

if TYPE_CHECKING:
    from seatrial.serving.doors.http import Front, Receive, Scope, Send

WIDES = ("input-0", "input-1")
"""How the one tensor [n, k] of a deployment whose fields are all numbers may be called: as in KServe's documents, and
as MLServer's codec for matrices calls it."""
WIDE = WIDES[0]
ASKED_ARM = "asked"
"""The arm of rows whose caller asked for a version: they say nothing of how a deployment splits its traffic."""
EXTENSIONS = ("binary_tensor_data", "model_repository_index")
OCTETS = b"application/octet-stream"

_NOTHING = "Nothing was predicted."
_SIZES = {
    "BOOL": np.dtype("?"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_WHOLE = tuple(name for name in _SIZES if "INT" in name)
_FLOATS = ("FP16", "FP32", "FP64")
_DATATYPES = {"float": "FP64", "int": "INT64", "bool": "BOOL"}
_TAKEN = {"float": (*_FLOATS, *_WHOLE), "int": (*_WHOLE, *_FLOATS), "bool": ("BOOL",)}


class BadInference(BadRequest):
    """A request is no inference request of the Open Inference Protocol, or its tensors are not those of the model."""

    code = "open_inference.bad_request"
    http_status = 400


class OutputNotKnown(UsageError):
    """A request asks for an output that the model does not have."""

    code = "open_inference.output_not_known"


class Reply(NamedTuple):
    """An HTTP answer. header_length: how much of the body is JSON, when raw tensors follow it."""

    status: int
    body: bytes
    header_length: int | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Wanted(NamedTuple):
    """An output that a request asks for. binary: as raw bytes behind the JSON."""

    name: str
    binary: bool


class Inference(NamedTuple):
    """A sound request. body: the same in seatrial's own form."""

    body: bytes
    id: str | None
    outputs: tuple[Wanted, ...]


class Door:
    """Answers the paths below /v2 for one server."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._service = front.service
        self._pinned: WeakKeyDictionary[Predictor, dict[str, Predictor]] = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unread = scope["method"] not in ("GET", "HEAD")
        try:
            methods = self._methods(scope["path"])
            answer = methods.get(scope["method"])
            if answer is None:
                raise MethodNotAllowed("this path does not take this method.", state="", allowed=", ".join(methods))
            body = b""
            if scope["method"] == "POST":
                _, found = await self._front.asked(scope, receive, compressed=True)
                if found is None:  # the caller went away
                    return
                unread = False
                body = unpacked(found, header(scope, b"content-encoding"), self._front.max_body)
            reply = await answer(scope, body)
        except Exception as error:
            told = foreseen(error)
            infers = scope["path"].endswith("/infer")  # what else is asked here is no prediction
            self._service.metrics.failed("", told.code, status=told.http_status if infers else 0)
            reply = refused(problem(told))
            if isinstance(told, MethodNotAllowed):
                reply = reply._replace(headers=((b"allow", str(told.facts.get("allowed", "POST")).encode()),))
        await _send(scope, send, reply, close=unread and reply.status != 200)

    def _methods(self, path: str) -> dict[str, Callable[[Scope, bytes], Awaitable[Reply]]]:
        """What answers at a path, by the method. Raises NotFound."""
        match path.removesuffix("/").split("/")[2:]:
            case []:
                return {"GET": self._server}
            case ["health", "live" | "ready" as what]:
                return {"GET": self._live if what == "live" else self._ready}
            case ["repository", "index"]:
                return {"POST": self._index}
            case ["models", name] | ["models", name, "versions", _]:
                return {"GET": self._metadata}
            case ["models", name, "ready"] | ["models", name, "versions", _, "ready"]:
                return {"GET": self._model_ready}
            case ["models", name, "infer"] | ["models", name, "versions", _, "infer"]:
                del name
                return {"POST": self._infer}
        raise NotFound(
            "nothing is served at this path.",
            expected="There are /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME[/versions/VERSION] with /ready "
            "and /infer, and /v2/repository/index.",
            state="",
        )

    # -- what is here

    async def _server(self, _scope: Scope, _body: bytes) -> Reply:
        return _json({"name": "seatrial", "version": seatrial.__version__, "extensions": EXTENSIONS})

    async def _live(self, _scope: Scope, _body: bytes) -> Reply:
        return _json({"live": True, "ready": bool(self._service.state()["ready"])})

    async def _ready(self, _scope: Scope, _body: bytes) -> Reply:
        state = self._service.state()
        if state["ready"]:
            return _json({"live": True, "ready": True})
        return _json({"live": True, "ready": False, "error": state["reason"]}, 503)

    async def _index(self, _scope: Scope, body: bytes) -> Reply:
        asked = strict_json(body) if body.strip() else {}
        if not isinstance(asked, dict) or asked.keys() - {"ready"} or not isinstance(asked.get("ready", False), bool):
            raise BadInference('the body is not {"ready": true} or {"ready": false}.', state="")
        state = self._service.state()
        found = [
            {"name": name, "version": version, "state": "READY", "reason": ""}
            for name, deployment in state["deployments"].items()
            for version in dict.fromkeys(arm["version"] for arm in deployment["arms"] if arm["name"] != SHADOW_ARM)
        ]
        if not asked.get("ready", False):
            away = sorted(state["refused"].keys() - state["deployments"].keys())
            found += [
                {"name": name, "version": "", "state": "UNAVAILABLE", "reason": state["refused"][name]} for name in away
            ]
        return _json(found)

    async def _metadata(self, scope: Scope, _body: bytes) -> Reply:
        name, _ = _named(scope)
        return _json(metadata(name, self._predictor(scope), versions(self._service.predictor(name))))

    async def _model_ready(self, scope: Scope, _body: bytes) -> Reply:
        self._predictor(scope)
        return _json({"name": _named(scope)[0], "ready": True})

    # -- predictions

    async def _infer(self, scope: Scope, body: bytes) -> Reply:
        predictor = self._predictor(scope)
        asked = read(body, header(scope, b"inference-header-content-length"), predictor)
        caller = header(scope, b"x-seatrial-caller").decode("latin-1")
        draft = await self._front.draft_by(predictor, asked.body, caller, scope["headers"])
        answer = finish(self._service.log, [draft])[0]
        shadow([draft])
        return answered(_named(scope)[0], answer, asked, predictor)

    def _predictor(self, scope: Scope) -> Predictor:
        """Who answers for the path's model and version. Raises what `Service.predictor` raises, and NotFound."""
        name, version = _named(scope)
        predictor = self._service.predictor(name)
        releases = versions(predictor)
        if version is None:
            return predictor
        if version not in releases:
            raise NotFound(
                "this version of the model is not served.",
                expected=f"Served now: {listed(releases)}.",
                state="",
                next="Leave the version out, and the deployment chooses.",
            )
        if len(releases) == 1:
            return predictor
        pinned = self._pinned.setdefault(predictor, {})
        if version not in pinned:
            share = Share(ASKED_ARM, as_strict(releases[version], predictor.shares))
            pinned[version] = self._service.make_predictor(name, [share], self._service.route(name))
        return pinned[version]


def versions(predictor: Predictor) -> dict[str, Any]:
    """The releases that answer for a deployment, by their version."""
    return {share.release.version: share.release for share in predictor.shares if share.name != SHADOW_ARM}


def metadata(name: str, predictor: Predictor, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a deployment takes and gives: a tensor for each request field, in the order of `WIDE`'s columns.

    A request's number is of 64 bits, as in JSON, whatever the model makes of it; narrower ones are taken, too. Of a
    deployment whose fields are all numbers `parameters` name the wide tensor and, as JSON, its columns.
    known: the versions that may be asked for.
    """
    fields = predictor.reader.fields
    found: dict[str, Any] = {
        "name": name,
        "versions": list(known),
        "platform": "seatrial_process" if predictor.elsewhere else "onnx_onnxv1",
        "inputs": [
            {
                "name": field.name,
                "datatype": datatype_of(field),
                "shape": [-1],
                "parameters": {"dtype": field.dtype, "nullable": field.nullable, "optional": field.optional},
            }
            for field in fields
        ],
        "outputs": [
            {"name": one, "datatype": datatype, "shape": shape} for one, (datatype, shape) in outputs(predictor).items()
        ],
    }
    columns_of_wide = wide(predictor)
    if columns_of_wide:
        columns = json.dumps([field.name for field in columns_of_wide])
        found["parameters"] = {"wide_input": WIDE, "wide_datatype": "FP32", "wide_columns": columns}
    return found


def outputs(predictor: Predictor) -> dict[str, tuple[str, list[int]]]:
    """The datatype and the shape of each output of a deployment."""
    task = predictor.shares[0].release.signature.task
    found: dict[str, tuple[str, list[int]]] = {}
    if task == "binary":
        found = {"prediction": ("INT64", [-1]), "probability": ("FP64", [-1])}
    elif task == "regression":
        found = {"prediction": ("FP64", [-1])}
    else:
        names = classes(predictor)
        kind = "INT64" if isinstance(names[0], int) else "BYTES"
        found = {"prediction": (kind, [-1]), "probability": ("FP64", [-1, len(names)])}
    return found | {"prediction_id": ("BYTES", [-1])}


def classes(predictor: Predictor) -> list[str | int]:
    """The classes of every release that answers, in the order of the columns of `probability`."""
    answering = [share.release.signature for share in predictor.shares if share.name != SHADOW_ARM]
    return list(dict.fromkeys(name for signature in answering for name in signature.classes))


def datatype_of(field: Field) -> str:
    """The datatype of a field's tensor."""
    return _DATATYPES.get(field.dtype, "BYTES")


def taken(field: Field | None) -> tuple[str, ...]:
    """The datatypes in which a field's tensor may come; of None those of the wide one."""
    return (*_FLOATS, *_WHOLE) if field is None else _TAKEN.get(field.dtype, ("BYTES",))


def wide(predictor: Predictor) -> Sequence[Field]:
    """The fields that may come as one tensor, where they are all numbers; none where they are not.

    They are those of the release that was live before, as long as a request may do without what another one adds: who
    sends a tensor knows its columns by their place alone.
    """
    fields = predictor.reader.fields
    if all(field.optional for field in fields[predictor.own_fields :]):
        fields = fields[: predictor.own_fields]
    sound = all(field.dtype in _DATATYPES and field.name not in WIDES for field in fields)
    return fields if sound else ()


def read(body: bytes, header_length: bytes, predictor: Predictor) -> Inference:
    """The request in a body. header_length: the header Inference-Header-Content-Length; empty: it is all JSON.

    Raises BadInference, OutputNotKnown, and NotJson or DuplicateKey.
    """
    raw = memoryview(b"")
    if header_length:
        if not (header_length.isdigit() and len(header_length) < 16 and int(header_length) <= len(body)):
            raise _bad("Inference-Header-Content-Length is not how much of the body is JSON.")
        raw = memoryview(body)[int(header_length) :]
        body = body[: int(header_length)]
    found = strict_json(body)
    if not isinstance(found, dict):
        raise _bad("the body is not a JSON object.")
    unknown = found.keys() - {"id", "inputs", "outputs", "parameters", "model_name", "model_version"}
    if unknown:
        raise _bad(f"the request holds {len(unknown)} members that are not known.")
    identity = found.get("id")
    if "id" in found and not (isinstance(identity, str) and 0 < len(identity) <= LONGEST_ID):
        raise _bad(f"'id' is not a string of 1 to {LONGEST_ID} characters.")
    parameters = _parameters(found, "the request")
    wanted = _wanted(found.get("outputs", []), outputs(predictor), parameters)
    rows = _rows(_tensors(found.get("inputs"), raw), predictor)
    asked: dict[str, Any] = {"instances": rows}
    if identity is not None:
        asked["request_id"] = identity
    return Inference(msgspec.json.encode(asked), identity, wanted)


def answered(name: str, answer: Answer, asked: Inference, predictor: Predictor) -> Reply:
    """The answer to a prediction of many rows, in tensors."""
    if answer.status != 200:
        return refused(answer)
    found = msgspec.json.decode(answer.body)
    rows = found["predictions"]
    known = outputs(predictor)
    told: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for one in asked.outputs:
        datatype, shape = known[one.name]
        parameters: dict[str, Any] = {}
        if one.name == "probability" and len(shape) == 2:
            names = [str(name) for name in classes(predictor)]
            values = [row["probability"].get(each, 0.0) for row in rows for each in names]
            parameters["classes"] = json.dumps(names)
        else:
            values = [row[one.name] for row in rows]
        entry: dict[str, Any] = {"name": one.name, "datatype": datatype, "shape": [len(rows), *shape[1:]]}
        if one.binary:
            raw.append(_raw(values, datatype))
            parameters["binary_data_size"] = len(raw[-1])
        else:
            entry["data"] = values
        told.append(entry | ({"parameters": parameters} if parameters else {}))
    document: dict[str, Any] = {"model_name": name, "id": found["request_id"], "outputs": told}
    answering = {(row["model_version"], row["release"]) for row in rows}
    parameters = {"latency_ms": found["latency_ms"]}
    if len(answering) == 1:
        document["model_version"], parameters["release"] = next(iter(answering))
    degraded = sorted({why for row in rows for why in row.get("degraded", ())})
    if degraded:
        parameters["degraded"] = ",".join(degraded)
    document["parameters"] = parameters
    head = msgspec.json.encode(document)
    return Reply(200, head + b"".join(raw), len(head) if raw else None, trace_of(answer))


def refused(answer: Answer) -> Reply:
    """A problem document as this protocol says what was wrong."""
    found = msgspec.json.decode(answer.body)
    detail = str(found.get("detail", "")).replace(" of 'instances'", "")  # a row of its tensors
    said = msgspec.json.encode({"error": f"{detail} ({found.get('code', '')})"})
    headers = trace_of(answer) + (((b"retry-after", b"%d" % answer.retry_after),) if answer.retry_after else ())
    return Reply(400 if answer.status == 422 else answer.status, said, headers=headers)


# -- reading tensors


class _Tensor(NamedTuple):
    """A tensor as it came: its values in rows' order, None for null."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any]


def _parameters(holder: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    found = holder.get("parameters", {})
    if not isinstance(found, dict) or any(isinstance(value, dict | list | None) for value in found.values()):
        raise _bad(f"'parameters' of {where} are not an object of strings, numbers and booleans.")
    return found


def _wanted(
    asked: Any, known: Mapping[str, tuple[str, list[int]]], parameters: Mapping[str, Any]
) -> tuple[Wanted, ...]:
    every = parameters.get("binary_data_output", False)
    if not isinstance(every, bool):
        raise _bad("'binary_data_output' is not true or false.")
    if not isinstance(asked, list):
        raise _bad("'outputs' is not a list.")
    if not asked:
        return tuple(Wanted(name, every) for name in known)
    wanted = []
    for number, one in enumerate(asked):
        where = f"output {number}"
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or one.keys() - {"name", "parameters"}:
            raise _bad(f'{where} is not {{"name": ...}}.')
        if one["name"] not in known:
            raise OutputNotKnown(
                f"{where} is none of the model's.",
                expected=f"It has {listed(known)}. {did_you_mean(one['name'][:100], known)}".strip(),
                state=_NOTHING,
            )
        given = _parameters(one, where)
        binary = given.get("binary_data", every)
        if not isinstance(binary, bool):
            raise _bad(f"'binary_data' of {where} is not true or false.")
        _refuse_extensions(given, where)
        wanted.append(Wanted(one["name"], binary))
    if len({one.name for one in wanted}) != len(wanted):
        raise _bad("an output is asked for more than once.")
    return tuple(wanted)


def _refuse_extensions(parameters: Mapping[str, Any], where: str) -> None:
    """Refuse what would be answered wrongly when it was not heeded."""
    for name in parameters:
        if name == "classification" or name.startswith("shared_memory"):
            raise _bad(f"{where} asks for an extension that is not known here; known are {listed(EXTENSIONS)}.")


def _tensors(found: Any, raw: memoryview) -> list[_Tensor]:
    if not isinstance(found, list) or not found:
        raise _bad("'inputs' is not a list of tensors.")
    tensors: list[_Tensor] = []
    position = 0
    for number, one in enumerate(found):
        where = f"input {number}"
        if not isinstance(one, dict) or one.keys() - {"name", "shape", "datatype", "data", "parameters"}:
            raise _bad(f"{where} is not an object of name, shape, datatype and data.")
        name, datatype, shape = one.get("name"), one.get("datatype"), one.get("shape")
        if not isinstance(name, str):
            raise _bad(f"{where} has no name.")
        if not isinstance(datatype, str) or (datatype not in _SIZES and datatype != "BYTES"):
            raise _bad(f"{where} has no datatype that is known: {listed([*_SIZES, 'BYTES'])}.")
        if not isinstance(shape, list) or not all(type(each) is int and 0 <= each <= 2**40 for each in shape):
            raise _bad(f"{where} has no shape: a list of whole numbers.")
        if not 1 <= len(shape) <= 2:
            raise _bad(f"{where} is of {len(shape)} dimensions, not of one or two.")
        parameters = _parameters(one, where)
        _refuse_extensions(parameters, where)
        size = parameters.get("binary_data_size")
        if (size is None) == ("data" not in one):
            raise _bad(f"{where} has neither or both of 'data' and 'binary_data_size'.")
        if size is None:
            values = _listed(one["data"], datatype, tuple(shape), where)
        else:
            if type(size) is not int or not 0 <= size <= len(raw) - position:
                raise _bad(f"'binary_data_size' of {where} is not how many bytes there are of it.")
            values = _decoded(raw[position : position + size], datatype, math.prod(shape), where)
            position += size
        tensors.append(_Tensor(name, datatype, tuple(shape), values))
    if position != len(raw):
        raise _bad("the body holds more bytes than the inputs say.")
    return tensors


def _listed(data: Any, datatype: str, shape: tuple[int, ...], where: str) -> list[Any]:
    """The values of a tensor in JSON, as they came flat or nested."""
    if not isinstance(data, list):
        raise _bad(f"'data' of {where} is not a list.")
    if len(shape) == 2 and data and isinstance(data[0], list):
        if len(data) != shape[0] or not all(isinstance(row, list) and len(row) == shape[1] for row in data):
            raise _bad(f"'data' of {where} is not of its shape.")
        data = [value for row in data for value in row]
    if len(data) != math.prod(shape):
        raise _bad(f"'data' of {where} holds not as many values as its shape says.")
    values: list[Any] = data
    kinds: tuple[type, ...] = (str,) if datatype == "BYTES" else (bool,) if datatype == "BOOL" else (int,)
    if datatype in _FLOATS:
        kinds = (int, float)
    if not all(type(value) in kinds or value is None for value in values):
        raise _bad(f"'data' of {where} holds what is no {datatype}.")
    if datatype in _WHOLE:
        limits = np.iinfo(_SIZES[datatype].name)
        if not all(value is None or limits.min <= value <= limits.max for value in values):
            raise _bad(f"'data' of {where} holds what is no {datatype}.")
    if datatype in _FLOATS and not all(value is None or math.isfinite(value) for value in values):
        raise _bad(f"'data' of {where} holds what is no finite number.")
    return values


def _decoded(raw: memoryview, datatype: str, count: int, where: str) -> list[Any]:
    """The values of a tensor that came as raw bytes; NaN is None."""
    if datatype == "BYTES":
        return _strings(raw, count, where)
    kind = _SIZES[datatype]
    if len(raw) != count * kind.itemsize:
        raise _bad(f"{where} has not as many bytes as its shape and datatype say.")
    if datatype == "BOOL":
        flags = np.frombuffer(raw, dtype=np.uint8)
        if (flags > 1).any():
            raise _bad(f"{where} holds what is no BOOL.")
        return list(map(bool, flags.tolist()))
    values: list[Any] = np.frombuffer(raw, dtype=kind).tolist()
    if datatype in _FLOATS:
        if any(map(math.isinf, values)):
            raise _bad(f"{where} holds what is no finite number.")
        return [None if value != value else value for value in values]
    return values


def _strings(raw: memoryview, count: int, where: str) -> list[Any]:
    found: list[Any] = []
    position = 0
    while position < len(raw) and len(found) < count:
        if position + 4 > len(raw):
            break
        (size,) = struct.unpack_from("<I", raw, position)
        position += 4
        if position + size > len(raw):
            raise _bad(f"{where} holds a string that is longer than its bytes.")
        try:
            found.append(bytes(raw[position : position + size]).decode())
        except UnicodeDecodeError:
            raise _bad(f"{where} holds a string that is not UTF-8.") from None
        position += size
    if len(found) != count or position != len(raw):
        raise _bad(f"{where} has not as many strings as its shape says.")
    return found


def _rows(tensors: Sequence[_Tensor], predictor: Predictor) -> list[dict[str, Any]]:
    """The rows of a request, by the names of their fields."""
    by_name = {field.name: field for field in predictor.reader.fields}
    together, most = wide(predictor), predictor.max_rows
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise _bad("an input comes more than once.")
    if len(tensors) == 1 and tensors[0].name in WIDES and together:
        columns = _of_wide(tensors[0], together)
    else:
        for number, tensor in enumerate(tensors):
            if tensor.name not in by_name:
                alone = f" or {WIDE} alone" if together else ""
                raise _bad(
                    f"input {number} is none of the model's.",
                    f"It has {listed(by_name, most=20)}{alone}. {did_you_mean(tensor.name[:100], by_name)}".strip(),
                )
            if len(tensor.shape) == 2 and tensor.shape[1] != 1:
                raise _bad(f"input '{tensor.name}' is not of shape [n] or [n, 1].")
        columns = {tensor.name: _of_field(tensor, by_name[tensor.name]) for tensor in tensors}
    counts = {len(values) for values in columns.values()}
    if len(counts) != 1:
        raise _bad("the inputs are not of one number of rows.")
    if not 0 < max(counts) <= most:
        raise _bad(f"the request holds {max(counts)} rows.", f"From 1 to {most} rows are taken at once.")
    missing = [repr(field.name) for field in by_name.values() if not field.optional and field.name not in columns]
    if missing:
        raise _bad(f"the inputs lack {listed(missing, most=20)}.", "There is a tensor for each field of a row.")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _of_field(tensor: _Tensor, field: Field) -> list[Any]:
    kinds = taken(field)
    if tensor.datatype not in kinds:
        raise _bad(
            f"input '{field.name}' is {tensor.datatype}.",
            f"It is {datatype_of(field)}" + (f"; {listed(kinds)} are taken." if kinds[1:] else "."),
        )
    if field.dtype == "int" and tensor.datatype in _FLOATS:
        return [_whole(value) for value in tensor.values]
    return tensor.values


def _of_wide(tensor: _Tensor, fields: Sequence[Field]) -> dict[str, list[Any]]:
    """The columns of a tensor [n, k], where a bool is 0 or 1."""
    if len(tensor.shape) != 2 or tensor.shape[1] != len(fields):
        raise _bad(f"input '{WIDE}' is not of shape [n, {len(fields)}].", f"Its columns are {listed(_names(fields))}.")
    if tensor.datatype not in taken(None):
        raise _bad(f"input '{WIDE}' is {tensor.datatype}.", f"It is FP32; {listed(taken(None))} are taken.")
    columns = {}
    for position, field in enumerate(fields):
        values = tensor.values[position :: len(fields)]
        if field.dtype == "int":
            values = [_whole(value) for value in values]
        elif field.dtype == "bool":
            if not all(value is None or value in (0, 1) for value in values):
                raise _bad(f"column '{field.name}' of input '{WIDE}' holds what is neither 0 nor 1.")
            values = [None if value is None else bool(value) for value in values]
        columns[field.name] = values
    return columns


def _whole(value: Any) -> Any:
    """A whole number that came as a float, as an integer; of another the reader of predictions says what is wrong."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 else value


def _names(fields: Sequence[Field]) -> list[str]:
    return [field.name for field in fields]


# -- writing


def _raw(values: Sequence[Any], datatype: str) -> bytes:
    if datatype != "BYTES":
        return np.array(values, dtype=_SIZES[datatype]).tobytes()
    texts = [str(value).encode() for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _named(scope: Scope) -> tuple[str, str | None]:
    parts = scope["path"].split("/")[3:]
    return parts[0], parts[2] if len(parts) > 2 and parts[1] == "versions" else None


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, msgspec.json.encode(value))


def _bad(found: str, expected: str = "") -> BadInference:
    return BadInference(found, expected=expected, state=_NOTHING)


async def _send(scope: Scope, send: Send, reply: Reply, *, close: bool) -> None:
    body, encoding = reply.body, b""
    if reply.status == 200 and scope["method"] == "POST":
        body, encoding = packed(body, header(scope, b"accept-encoding"))
    headers = [
        (b"content-type", JSON if reply.header_length is None else OCTETS),
        (b"content-length", str(len(body)).encode()),
        *reply.headers,
    ]
    if encoding:
        headers.append((b"content-encoding", encoding))
    if reply.header_length is not None:
        headers.append((b"inference-header-content-length", b"%d" % reply.header_length))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
