"""Invocations: MLflow's scoring protocol and SageMaker's, on top of predictions.

Who calls `mlflow models serve` today calls this server unchanged: POST /invocations with one of `dataframe_split`,
`dataframe_records`, `inputs` or `instances`, or with CSV; GET /ping and /version. Columns are taken by name, and those
that the model does not know are dropped, as MLflow's signatures do. Everything else (types, limits, the log, what is
refused) is that of /predict.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from seatrial.core.errors import UsageError, listed
from seatrial.core.types import Field
from seatrial.serving.doors.body import strict_json
from seatrial.serving.scoring.predictor import Answer
from seatrial.serving.scoring.requests import BadRequest

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
PARAMS = {"predict", "predict_proba"}


class BadInvocation(UsageError):
    """The body is none of the forms in which MLflow's clients ask."""

    code = "invocations.bad_body"


class WrongContentType(UsageError):
    """Rows come as JSON or as CSV."""

    code = "invocations.wrong_content_type"
    http_status = 415


def read(content_type: str, body: bytes, fields: Sequence[Field]) -> tuple[bytes, Callable[[Answer], Answer]]:
    """The rows of a request, as the body of a prediction of many, and how its answer is told.

    fields: what a row of the deployment holds. Raises BadInvocation, WrongContentType.
    """
    kind = content_type.partition(";")[0].strip().lower() or "application/json"  # a charset of JSON is UTF-8
    if kind == "text/csv":
        return _written(_from_csv(body), fields, as_text=True), _decisions
    if kind != "application/json":
        form = kind == "application/x-www-form-urlencoded"  # as curl says of all that it is not told of
        raise WrongContentType(
            f"the header Content-Type says that the body is {'a form' if form else 'neither JSON nor CSV'}.",
            expected="application/json or text/csv is taken.",
            state=_NOTHING,
            next="Send the header Content-Type: application/json.",
        )
    found = _decoded(body)
    if not isinstance(found, dict):
        raise _bad("the body is no JSON object.")
    given = [name for name in FORMATS if name in found]
    unknown = sorted(found.keys() - {*FORMATS, "params", "columns", "index"})
    if len(given) != 1 or unknown:
        wrong = f"it holds {listed(given)}" if len(given) != 1 else "it holds fields that are not known"
        raise _bad(f"the body does not say its rows in one way: {wrong}.")
    rows = _rows(given[0], found[given[0]], [field.name for field in fields])
    return _written(rows, fields), _probabilities if _asks_for_probabilities(found.get("params")) else _decisions


def refused(answer: Answer) -> Answer:
    """A problem document as MLflow says what was wrong."""
    found = msgspec.json.decode(answer.body)
    status = 400 if answer.status == 422 else answer.status
    code = "BAD_REQUEST" if status < 500 else "TEMPORARILY_UNAVAILABLE" if status == 503 else "INTERNAL_ERROR"
    detail = str(found.get("detail", "")).replace(" of 'instances'", "")  # a row, in whatever form it came
    said = {"error_code": code, "message": f"{detail} ({found.get('code', '')})"}
    return answer._replace(status=status, body=msgspec.json.encode(said))


def _decisions(answer: Answer) -> Answer:
    """The answer to a prediction of many rows in MLflow's form."""
    return _told(answer, lambda row: row["prediction"])


def _probabilities(answer: Answer) -> Answer:
    """The same where `params` ask for probabilities and not for decisions."""
    return _told(answer, _probability)


def _told(answer: Answer, value: Callable[[Mapping[str, Any]], Any]) -> Answer:
    """One value of each row, and `degraded`, which MLflow does not know, when something went without."""
    rows = msgspec.json.decode(answer.body)["predictions"]
    told: dict[str, Any] = {"predictions": [value(row) for row in rows]}
    degraded = sorted({why for row in rows for why in row.get("degraded", ())})
    return answer._replace(body=msgspec.json.encode(told | ({"degraded": degraded} if degraded else {})))


def _decoded(body: bytes) -> Any:
    """The JSON of a body. pandas, and so MLflow's clients, write NaN for what is missing, which JSON does not know."""
    try:
        return strict_json(body, nan=True)
    except BadRequest as error:
        raise _bad(error.found) from None


def _rows(form: str, found: Any, names: Sequence[str]) -> list[Mapping[str, Any]]:
    if form == "dataframe_split":
        if not isinstance(found, dict) or not isinstance(found.get("data"), list):
            raise _bad("dataframe_split holds no 'data'.")
        columns = found.get("columns", names)
        return [_named(row, columns) for row in found["data"]]
    if form == "inputs" and isinstance(found, dict):  # columns of values, of one length
        columns = {name: value if isinstance(value, list) else [value] for name, value in found.items()}
        if len({len(value) for value in columns.values()}) > 1:
            raise _bad("the columns of 'inputs' are not of one length.")
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if not isinstance(found, list):
        raise _bad(f"'{form}' is no list of rows.")
    return [row if isinstance(row, dict) else _named(row, names) for row in found]


def _named(row: Any, columns: Any) -> Mapping[str, Any]:
    if not isinstance(row, list) or not isinstance(columns, list | tuple) or len(row) != len(columns):
        raise _bad("a row has not as many values as there are columns.")
    if not all(isinstance(name, str) for name in columns) or len(set(columns)) != len(columns):
        raise _bad("the columns are not names, each once.")
    return dict(zip(columns, row, strict=True))


def _from_csv(body: bytes) -> list[Mapping[str, Any]]:
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise _bad("the body is no CSV in UTF-8.") from None
    lines = [line for line in lines if line]
    if len(lines) < 2:
        raise _bad("the CSV holds no row below its header.")
    return [_named(line, lines[0]) for line in lines[1:]]


def _written(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field], *, as_text: bool = False) -> bytes:
    """The rows with the fields that the deployment knows. as_text: their values are what a CSV holds."""
    value = _of_text if as_text else _of_json
    kept = [{field.name: value(row[field.name], field) for field in fields if field.name in row} for row in rows]
    return msgspec.json.encode({"instances": kept})


def _of_json(value: Any, field: Field) -> Any:
    """A value, with integers as such: pandas makes a column of integers with a missing one a column of floats."""
    if not isinstance(value, float):
        return value
    if math.isinf(value):
        raise _bad(f"a value of '{field.name}' is no finite number.")
    return int(value) if field.dtype == "int" and value.is_integer() else value


def _of_text(text: str, field: Field) -> Any:
    if text == "":
        return None
    if field.dtype in ("string", "category", "timestamp"):
        return text
    try:
        if field.dtype == "bool":
            return {"true": True, "false": False}[text.lower()]
        number = float(text)
    except (KeyError, ValueError):
        return text  # that it is no number is said by the reader of predictions, by the field's name
    return None if math.isnan(number) else _of_json(number, field)


def _asks_for_probabilities(params: Any) -> bool:
    if params is None or params == {}:
        return False
    method = params.get("predict_method") if isinstance(params, dict) else None
    if not isinstance(method, str) or method not in PARAMS or len(params) > 1:
        raise _bad('params are not known; there is {"predict_method": "predict_proba"}.')
    return bool(method == "predict_proba")


def _probability(row: Mapping[str, Any]) -> list[float] | None:
    found = row["probability"]
    if isinstance(found, dict):
        return list(found.values())
    return None if found is None else [1 - found, found]


_NOTHING = "Nothing was predicted."


def _bad(found: str) -> BadInvocation:
    return BadInvocation(
        found,
        expected=f"One of {listed(FORMATS)} is expected, as `mlflow models serve` takes it, or text/csv with a header.",
        state=_NOTHING,
    )
