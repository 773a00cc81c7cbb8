"""The OpenAPI operations of the doors beside the native one: MLflow's invocations, and the Open Inference Protocol.

That a tensor's data has as many values as its shape says, and the like, no schema can say: a request that a schema
allows may be refused with 400 here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seatrial.core.types import Field
from seatrial.serving.doors import open_inference as protocol
from seatrial.serving.scoring.requests import LONGEST_ID

if TYPE_CHECKING:
    from seatrial.serving.scoring.predictor import Predictor

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_PARAMETERS: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_REFUSALS = {
    "400": "The request is wrong.",
    "404": "The model, or this version of it, is not served.",
    "405": "Not asked for with POST.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is of a type, or packed in a way, that is not taken.",
    "500": "The server failed.",
    "503": "Not ready, or something that is needed does not answer.",
}
_JSON_VALUE = {
    "float": "number",
    "int": "number",
    "bool": "boolean",
    "string": "string",
    "category": "string",
    "timestamp": "string",
}


def _object(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _refusals(form: str, *statuses: str) -> Schema:
    return {status: {"description": _REFUSALS[status], "content": _json(_ref(form))} for status in statuses}


SCHEMAS: Schema = {
    "OpenInferenceError": _object({"error": _TEXT}, ["error"]),
    "MlflowError": _object({"error_code": _TEXT, "message": _TEXT}, ["error_code", "message"]),
    "Health": _object({"live": {"type": "boolean"}, "ready": {"type": "boolean"}, "error": _TEXT}, ["live", "ready"]),
}
"""What these doors have in common."""

_INDEXED = _object({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT}, ["name", "version", "state"])
_SERVER = _object({"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}}, ["name"])


def _get(operation_id: str, summary: str, answer: Schema, *statuses: str, **more: Any) -> Schema:
    responses = {"200": {"description": "", "content": _json(answer)}} | _refusals(
        "OpenInferenceError", *statuses, "405"
    )
    if "503" in statuses and answer == _ref("Health"):
        responses["503"] = {"description": _REFUSALS["503"], "content": _json(answer)}
    return {"operationId": operation_id, "summary": summary, "responses": responses, **more}


OPEN_INFERENCE: Schema = {
    "/v2": {"get": _get("open_server", "The server, to clients of the Open Inference Protocol.", _SERVER)},
    "/v2/health/live": {"get": _get("open_live", "Is the process alive?", _ref("Health"))},
    "/v2/health/ready": {"get": _get("open_ready", "Are all releases loaded and proved?", _ref("Health"), "503")},
    "/v2/repository/index": {
        "post": {
            "operationId": "open_index",
            "summary": "What is served?",
            "requestBody": {
                "content": {
                    "application/json": {
                        "schema": _object({"ready": {"type": "boolean"}}, []),
                        "examples": {"ready": {"value": {"ready": True}}},
                    }
                }
            },
            "responses": {
                "200": {"description": "", "content": _json({"type": "array", "items": _INDEXED})},
                **_refusals("OpenInferenceError", "400", "405", "408", "413", "415"),
            },
        }
    },
}


def schemas(name: str, predictor: Predictor) -> Schema:
    """The schemas of a deployment at these doors."""
    fields = predictor.reader.fields
    outputs = protocol.outputs(predictor)
    tensors = [_tensor(field.name, field) for field in fields]
    if protocol.wide(predictor):
        tensors += [_tensor(one, None) for one in protocol.WIDES]
    wanted = _object({"name": {"enum": list(outputs)}, "parameters": _with_flag("binary_data")}, ["name"])
    answered = {
        "name": {"enum": list(outputs)},
        "datatype": {"enum": sorted({datatype for datatype, _ in outputs.values()})},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "data": {"type": "array"},
        "parameters": _PARAMETERS,
    }
    whole = {
        "model_name": _TEXT,
        "model_version": _TEXT,
        "id": _TEXT,
        "parameters": _PARAMETERS,
        "outputs": {"type": "array", "items": _object(answered, ["name", "datatype", "shape"])},
    }
    row: Schema = {
        "type": "object",
        "properties": {field.name: _value(field) for field in fields},
        "required": [field.name for field in fields if not field.optional],
    }
    values = {"type": "array", "items": {"type": ["number", "string", "boolean", "null"]}}
    return {
        f"{name}_inference": _object(
            {
                "id": {"type": "string", "minLength": 1, "maxLength": LONGEST_ID},
                "parameters": _with_flag("binary_data_output"),
                "inputs": {"type": "array", "minItems": 1, "items": {"anyOf": tensors}},
                "outputs": {"type": "array", "items": wanted},
                "model_name": {},
                "model_version": {},
            },
            ["inputs"],
        ),
        f"{name}_inferred": _object(whole, ["model_name", "id", "outputs"]),
        f"{name}_tensors": _object(
            {
                "name": _TEXT,
                "versions": {"type": "array", "items": _TEXT},
                "platform": _TEXT,
                "inputs": {"type": "array", "items": {"type": "object"}},
                "outputs": {"type": "array", "items": {"type": "object"}},
                "parameters": _PARAMETERS,
            },
            ["name", "versions", "platform", "inputs", "outputs"],
        ),
        f"{name}_record": row,
        f"{name}_invocation": {
            "oneOf": [
                _form(
                    "dataframe_split", {"type": "object", "properties": {"data": _list(values)}, "required": ["data"]}
                ),
                _form("dataframe_records", _list({"anyOf": [_ref(f"{name}_record"), values]})),
                _form("instances", _list({"anyOf": [_ref(f"{name}_record"), values]})),
                _form("inputs", {"anyOf": [_list({"anyOf": [_ref(f"{name}_record"), values]}), {"type": "object"}]}),
            ]
        },
    }


def invocations(name: str, predictor: Predictor, operation_id: str) -> Schema:
    """The operation for MLflow's clients."""
    example = predictor.shares[0].release.example
    examples = {"records": {"value": {"dataframe_records": [example]}}} if example is not None else {}
    degraded = {"type": "array", "items": {"type": "string"}}
    predictions = _object({"predictions": {"type": "array"}, "degraded": degraded}, ["predictions"])
    return {
        "operationId": operation_id,
        "summary": f"A prediction of '{predictor.shares[0].release.model}' in the form of MLflow's clients.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _ref(f"{name}_invocation"), "examples": examples},
                "text/csv": {"schema": _TEXT},
            },
        },
        "responses": {
            "200": {"description": "The predictions, after they were logged.", "content": _json(predictions)},
            **_refusals("MlflowError", *_REFUSALS),
        },
    }


def open_inference(name: str, predictor: Predictor) -> Schema:
    """The paths of a deployment for clients of the Open Inference Protocol."""
    version: Schema = {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"enum": list(protocol.versions(predictor))},
    }
    paths: Schema = {}
    for where, end, more in ((f"/v2/models/{name}", "", {}), (f"/v2/models/{name}/versions/{{version}}", "_of", {})):
        more = {"parameters": [version]} if end else {}
        ready = _object({"name": _TEXT, "ready": {"type": "boolean"}}, ["name", "ready"])
        told = _get(
            f"open_tensors_{name}{end}", f"The tensors of '{name}'.", _ref(f"{name}_tensors"), "404", "503", **more
        )
        paths[where] = {"get": told}
        paths[f"{where}/ready"] = {
            "get": _get(f"open_ready_{name}{end}", f"Does '{name}' answer?", ready, "404", "503", **more)
        }
        paths[f"{where}/infer"] = {"post": _infer(name, predictor, f"open_infer_{name}{end}") | more}
    return paths


def _infer(name: str, predictor: Predictor, operation_id: str) -> Schema:
    example = predictor.shares[0].release.example
    examples = {}
    if example is not None:
        known = {field.name: field for field in predictor.reader.fields}
        inputs = [
            {"name": one, "shape": [1], "datatype": protocol.datatype_of(known[one]), "data": [value]}
            for one, value in example.items()
        ]
        examples = {"one": {"summary": "One row.", "value": {"inputs": inputs}}}
    return {
        "operationId": operation_id,
        "summary": f"A prediction of '{name}' in tensors.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(f"{name}_inference"), "examples": examples}},
        },
        "responses": {
            "200": {
                "description": "The predictions, after they were logged; raw tensors where they were asked for.",
                "content": _json(_ref(f"{name}_inferred")) | {"application/octet-stream": {}},
            },
            **_refusals("OpenInferenceError", *_REFUSALS),
        },
    }


def _tensor(name: str, field: Field | None) -> Schema:
    """A tensor of a request. field: None for the wide one."""
    values: Schema = {"type": [_JSON_VALUE[field.dtype] if field else "number", "null"]}
    return _object(
        {
            "name": {"const": name},
            "datatype": {"enum": list(protocol.taken(field))},
            "shape": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": 2**40},
                "minItems": 1,
                "maxItems": 2,
            },
            "data": _list({"anyOf": [values, _list(values)]}),
            "parameters": _PARAMETERS,
        },
        ["name", "shape", "datatype", "data"],
    )


def _form(name: str, rows: Schema) -> Schema:
    methods = {"predict_method": {"enum": ["predict", "predict_proba"]}}
    params = {"type": ["object", "null"], "properties": methods, "additionalProperties": False}
    return _object({name: rows, "params": params, "columns": {}, "index": {}}, [name])


def _value(field: Field) -> Schema:
    kind = _JSON_VALUE[field.dtype]
    return {"type": [kind, "null"] if field.nullable else kind}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _with_flag(name: str) -> Schema:
    return _PARAMETERS | {"properties": {name: {"type": "boolean"}}}
