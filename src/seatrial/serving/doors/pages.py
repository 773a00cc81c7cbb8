"""What a person sees of a server: the OpenAPI document, made from the models' signatures, and two plain pages.

The pages need no JavaScript and fetch nothing from elsewhere.
"""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

from seatrial.core.types import EXACT_FLOAT32, EXACT_FLOAT64, Field
from seatrial.serving.doors import operations
from seatrial.serving.scoring.requests import LONGEST_ID

if TYPE_CHECKING:
    from seatrial.serving.scoring.predictor import Predictor
    from seatrial.serving.service import Service

Schema = dict[str, Any]

SAFE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
MOST_LISTED = 100
"""Classes of a model that the OpenAPI document names one by one."""
_LARGEST_FLOAT32 = 3.4028234663852886e38
_BEYOND_YEARS = {"type": "string", "pattern": r"^(0001-01-01.*\+|9999-12-31.*-\d\d:\d\d$)"}
"""Times of the first and last day that there are, whose zone may put them into the year 0 or 10000 in UTC."""
_PROBLEMS = {
    "400": "The body is not JSON, or a number does not fit the model's input.",
    "404": "No deployment has this name any more.",
    "405": "Not asked for with POST.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "422": "A field is unknown, missing, of the wrong type or out of range; or the model has no answer.",
    "500": "The server failed.",
    "503": "Not ready, the online store or the process that scores does not answer, or the log cannot be written.",
}
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem;border-top:1px solid #d0d7de;padding-top:1rem}
code,pre{font:14px/1.5 ui-monospace,monospace;background:#f3f5f7;border-radius:4px}code{padding:.1rem .3rem}
pre{padding:.8rem;overflow:auto}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d0d7de;vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}code,pre{background:#161b22}
h2,td,th{border-color:#30363d}a{color:#7ab7ff}}
"""


def openapi(service: Service, base: Schema) -> Schema:
    """The OpenAPI document: the application's own routes and one prediction operation for each deployment.

    base: the document of the FastAPI application.
    """
    document = dict(base)
    document["openapi"] = "3.1.0"
    document["info"] = {"title": "seatrial", "version": "1", "description": "Predictions of deployed models."}
    paths = {path: _plain_route(path, item) for path, item in base["paths"].items()}
    schemas: Schema = {"Problem": _problem(), **operations.SCHEMAS}
    predictors = service.predictors
    for name, predictor in sorted(predictors.items()):
        schemas |= _schemas(name, predictor) | operations.schemas(name, predictor)
        paths[f"/models/{name}/predict"] = {"post": _operation(name, predictor, f"predict_{name}")}
        paths[f"/models/{name}/invocations"] = {"post": operations.invocations(name, predictor, f"invoke_{name}")}
        paths |= operations.open_inference(name, predictor)
    if len(predictors) == 1:
        name, predictor = next(iter(predictors.items()))
        paths["/predict"] = {"post": _operation(name, predictor, "predict")}
        paths["/invocations"] = {"post": operations.invocations(name, predictor, "invoke")}
    paths |= operations.OPEN_INFERENCE
    document["paths"] = paths
    document["components"] = {"schemas": schemas}
    return document


def docs(document: Schema) -> str:
    """The document as a page, what is asked for a prediction first."""
    parts = []
    for path, item in sorted(document["paths"].items(), key=lambda one: not one[0].endswith("/predict")):
        for method, operation in item.items():
            parts.append(f"<h2><code>{method.upper()} {_e(path)}</code></h2><p>{_e(operation.get('summary', ''))}</p>")
            body = operation.get("requestBody")
            if body is None:
                continue
            media = body["content"]["application/json"]
            if not operation["operationId"].startswith("predict"):
                parts += [f"<pre>{_e(json.dumps(one['value'], indent=2))}</pre>" for one in media["examples"].values()]
                continue
            name = media["schema"]["oneOf"][0]["$ref"].rpartition("/")[2].removesuffix("_one")
            row = document["components"]["schemas"][f"{name}_row"]
            parts.append("<table><tr><th>field</th><th>type</th><th></th></tr>")
            parts += [_field_row(field, schema, row.get("required", ())) for field, schema in row["properties"].items()]
            parts.append("</table>")
            for example in media.get("examples", {}).values():
                parts.append(f"<pre>{_e(json.dumps(example['value'], indent=2))}</pre>")
            parts.append("<table><tr><th>status</th><th></th></tr>")
            for status, response in operation["responses"].items():
                parts.append(f"<tr><td><code>{status}</code></td><td>{_e(response['description'])}</td></tr>")
            parts.append("</table>")
    return _page("API", "<p><a href='/openapi.json'>openapi.json</a></p>" + "".join(parts))


def front(state: Schema) -> str:
    """The front page: what is served."""
    rows = [
        f"<tr><td>{_e(name)}</td><td>{_e(', '.join(arm['version'] for arm in d['arms']))}</td>"
        f"<td><code>{_e(', '.join(arm['release'] for arm in d['arms']))}</code></td></tr>"
        for name, d in state["deployments"].items()
    ]
    table = "<table><tr><th>deployment</th><th>version</th><th>release</th></tr>" + "".join(rows) + "</table>"
    links = "".join(f"<li><a href='{path}'>{path}</a></li>" for path in ("/docs", "/ready", "/health", "/metrics"))
    ready = "ready" if state["ready"] else f"not ready: {_e(state['reason'])}"
    return _page("seatrial", f"<p>This server is {ready}.</p>{table}<ul>{links}</ul>")


def _page(title: str, body: str) -> str:
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{_e(title)}</title><style>{_STYLE}</style><h1>{_e(title)}</h1>{body}</html>"
    )


def _e(text: object) -> str:
    return html.escape(str(text))


def _field_row(name: str, schema: Schema, required: list[str]) -> str:
    kind = schema["type"] if isinstance(schema["type"], str) else " or ".join(schema["type"])
    note = schema.get("description", "") + ("" if name in required else " (may be left out)")
    return f"<tr><td><code>{_e(name)}</code></td><td>{_e(kind)}</td><td>{_e(note)}</td></tr>"


def _plain_route(path: str, item: Schema) -> Schema:
    kinds = {"/metrics": "text/plain", "/version": "text/plain", "/docs": "text/html", "/": "text/html"}
    kind = kinds.get(path, "application/json")
    schema: Schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses: Schema = {"200": {"description": "", "content": {kind: {"schema": schema}}}}
    if path in ("/ready", "/ping"):
        responses["503"] = responses["200"] | {"description": "Not ready; of /ready the body says why."}
    if path == "/predictions/{model}/{key}":
        responses["200"]["content"][kind]["schema"] = _stored()
        responses["404"] = {"description": "No prediction of this key is stored.", "content": problem}
        responses["503"] = {"description": "The online store does not answer.", "content": problem}
    responses["405"] = {"description": "It is asked for with GET.", "content": problem}
    return {method: operation | {"responses": responses} for method, operation in item.items()}


def _stored() -> Schema:
    text = {"type": "string"}
    of_class = {"type": "object", "additionalProperties": {"type": "number"}}
    found = {
        "prediction": {"type": ["number", "string"]},
        "probability": {"anyOf": [{"type": ["number", "null"]}, of_class]},
        "release": text,
        "model_version": text,
        "as_of": text | {"format": "date-time"},
        "age_seconds": {"type": "number", "minimum": 0},
    }
    return _object(found, list(found))


def _operation(name: str, predictor: Predictor, operation_id: str) -> Schema:
    release = predictor.shares[0].release
    examples = {}
    if release.example is not None:
        examples = {
            "one": {"summary": "One row.", "value": {"features": release.example}},
            "many": {"summary": "Many rows.", "value": {"instances": [release.example, release.example]}},
        }
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses: Schema = {
        "200": {
            "description": "The prediction, after it was logged.",
            "content": {"application/json": {"schema": _any_of(f"{name}_answer", f"{name}_answers")}},
        }
    }
    responses |= {status: {"description": text, "content": problem} for status, text in _PROBLEMS.items()}
    return {
        "operationId": operation_id,
        "summary": f"A prediction of '{release.model}'." + (f" {release.description}" if release.description else ""),
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": _any_of(f"{name}_one", f"{name}_many")["anyOf"]},
                    **({"examples": examples} if examples else {}),
                }
            },
        },
        "responses": responses,
    }


def _any_of(*names: str) -> Schema:
    return {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}


def _schemas(name: str, predictor: Predictor) -> Schema:
    row = _object(
        {field.name: _field(field, predictor) for field in predictor.reader.fields},
        [field.name for field in predictor.reader.fields if not field.optional],
    )
    row_ref = {"$ref": f"#/components/schemas/{name}_row"}
    rest: Schema = {
        "request_id": {"type": "string", "minLength": 1, "maxLength": LONGEST_ID, "description": "The caller's own."},
        "return_features": {"type": "boolean", "description": "Answer with the model's inputs, too."},
    }
    if predictor.replay:
        rest["at"] = {"type": "string", "format": "date-time", "description": "The instant of the prediction."}
    prediction, probability = _answered(predictor)
    answer = {
        "prediction": prediction,
        "probability": probability,
        "model_version": {"type": "string"},
        "prediction_id": {"type": "string", "format": "uuid"},
        "release": {"type": "string"},
    }
    whole = {"request_id": {"type": "string"}, "latency_ms": {"type": "number", "minimum": 0}}
    optional = {
        "degraded": {"type": "array", "items": {"type": "string"}},
        "views": {
            "type": "object",
            "description": "The views that had nothing fresh to say of the request's entities; "
            "with return_features every view.",
            "additionalProperties": {"enum": ["present", "missing", "expired"]},
        },
        "features": {"type": "object"},
    }
    rows = {"type": "array", "items": row_ref, "minItems": 1, "maxItems": predictor.max_rows}
    return {
        f"{name}_row": row,
        f"{name}_one": _object({"features": row_ref, **rest}, ["features"]),
        f"{name}_many": _object({"instances": rows, **rest}, ["instances"]),
        f"{name}_answer": _object({**answer, **whole, **optional}, [*answer, *whole]),
        f"{name}_answers": _object(
            {
                "predictions": {"type": "array", "items": _object({**answer, **optional}, list(answer))},
                **whole,
                "degraded": optional["degraded"],
            },
            ["predictions", *whole],
        ),
    }


def _answered(predictor: Predictor) -> tuple[Schema, Schema]:
    """The schemas of a row's prediction and its probability."""
    signatures = [share.release.signature for share in predictor.shares]
    between: Schema = {"type": "number", "minimum": 0, "maximum": 1}
    match signatures[0].task:
        case "binary":
            return {"enum": [0, 1]}, between
        case "regression":
            return {"type": "number"}, {"type": "null"}
    classes = list(dict.fromkeys(name for signature in signatures for name in signature.classes))
    kind = "integer" if isinstance(classes[0], int) else "string"
    if len(classes) > MOST_LISTED:
        text = f"The probability of each of {len(classes)} classes, by the class."
        return {"type": kind}, {"type": "object", "additionalProperties": between, "description": text}
    every = all(signature.classes == signatures[0].classes for signature in signatures)
    each = {str(name): between for name in classes}
    return {"type": kind, "enum": classes}, _object(each, list(each) if every else [])


def _object(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _field(field: Field, predictor: Predictor) -> Schema:
    schema: Schema
    match field.dtype:
        case "float":
            schema = {"type": "number", "minimum": -_LARGEST_FLOAT32, "maximum": _LARGEST_FLOAT32}
        case "int":
            limit = EXACT_FLOAT32 if predictor.reader.goes_in_exactly(field.name) else EXACT_FLOAT64
            schema = {"type": "integer", "minimum": -limit, "maximum": limit}
        case "bool":
            schema = {"type": "boolean"}
        case "timestamp":
            schema = {"type": "string", "format": "date-time", "not": _BEYOND_YEARS}
        case _:
            schema = {"type": "string"}
    if field.nullable:
        schema["type"] = [schema["type"], "null"]
    if field.description:
        schema["description"] = field.description
    return schema


def _problem() -> Schema:
    text = {"type": "string"}
    properties = {
        "type": text,
        "title": text,
        "status": {"type": "integer"},
        "code": text,
        "detail": text,
        "field": text,
        "row": {"type": "integer"},
    }
    return _object(properties, ["type", "title", "status", "code", "detail"])
