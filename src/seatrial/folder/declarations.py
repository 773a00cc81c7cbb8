"""Declarations: do models, views and deployments name columns that their sources have?

A project file runs without its data, so a misspelt column shows only when rows are there: here, before anything is
trained on them. Only columns are compared; what their values must be, expectations say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seatrial.core.errors import Failed, SeatrialError, did_you_mean, listed
from seatrial.data.expectations import Result, ValidationReport
from seatrial.data.expressions import wrong
from seatrial.data.sources import Source
from seatrial.features.definitions import FeatureView
from seatrial.features.plan import make_plan
from seatrial.folder.loading import Definitions
from seatrial.training.model import Model

if TYPE_CHECKING:
    import pyarrow as pa

Schemas = Mapping[str, "pa.Schema"]
"""The columns of each source, by its name."""


class DeclarationsDiffer(Failed):
    """Models, views or deployments name columns that are not there. facts: `reports`."""

    code = "project.declarations_differ"


class DeclarationReport(ValidationReport):
    """What a model, view or deployment names that is not there. source: its kind and name."""

    def as_plain(self) -> dict[str, Any]:
        return super().as_plain() | {"kind": "declaration"}


def differing(definitions: Definitions, schemas: Schemas) -> list[DeclarationReport]:
    """A report for each view, model and deployment that names something that is not there; none when all is well."""
    found = {f"view {view.name}": _of_view(view, schemas) for view in definitions.views.values()}
    found |= {f"model {model.name}": _of_model(model, definitions, schemas) for model in definitions.models.values()}
    found |= {f"deployment {name}": _of_deployment(name, definitions) for name in definitions.deployments}
    reports = [DeclarationReport(name, 0, tuple(results)) for name, results in found.items()]
    return [report for report in reports if report.results]


def differ(reports: Sequence[ValidationReport]) -> DeclarationsDiffer:
    """The error that names every difference."""
    lines = [f"  {report.source}: {result}" for report in reports for result in report.failures]
    return DeclarationsDiffer(
        f"{listed(report.source for report in reports)}: what they name is not all there.",
        expected="\n".join(lines),
        next="Correct project.py, then run `seatrial validate` again.",
        reports=tuple(reports),
    )


def _of_view(view: FeatureView, schemas: Schemas) -> Iterator[Result]:
    schema = schemas.get(view.source.name)
    known = schema.names if schema is not None else None
    yield from _times(view.source, known)
    yield from _missing("the key of its entity", view.entity.keys, view.source.name, known)
    for name, aggregation in view.features.items():
        if aggregation.sql and schema is not None:
            problem = wrong(str(aggregation.column), schema.empty_table())
            if problem:
                yield Result(f"the expression of feature '{name}' can be computed", False, None, detail=f"{problem}.")
        wanted = [aggregation.column] if aggregation.column and not aggregation.sql else []
        yield from _missing(f"the column of feature '{name}'", wanted, view.source.name, known)


def _of_model(model: Model, definitions: Definitions, schemas: Schemas) -> Iterator[Result]:
    source = model.labels.name
    known = schemas[source].names if source in schemas else None
    yield from _times(model.labels, known)
    yield from _missing("its target", [model.target], source, known)
    yield from _missing("its key", model.key, source, known)
    yield from _missing("a request feature", model.request_features, source, known)
    try:
        plan = make_plan(model.features, definitions.views)
    except SeatrialError as error:
        yield Result("its features are declared", passed=False, failing=None, detail=f"{error.found} {error.expected}")
        return
    needed = [name for name in plan.request_columns if name not in model.request_features]
    yield from _missing("a request field that its features need", needed, source, known)
    described = [name for name in model.described_by if name not in plan.feature_columns]
    yield from _missing("a column that it is sliced or grouped by", described, source, known)


def _times(source: Source, known: Sequence[str] | None) -> Iterator[Result]:
    """What a source says of its own columns: reading a raw one tells it too, a derived one is not read for this."""
    for what in ("event_timestamp", "known_at", "label_known_at"):
        column = getattr(source, what)
        yield from _missing(f"the {what} of its source", [column] if column else [], source.name, known)
    yield from _missing("the event_key of its source", source.event_key, source.name, known)


def _of_deployment(name: str, definitions: Definitions) -> Iterator[Result]:
    deployment = definitions.deployments[name]
    model = definitions.models.get(deployment.model)
    if model is None:
        yield _result("its model", deployment.model, "the project declares", definitions.models)
    elif deployment.route_by is not None:
        try:
            plan = make_plan(model.features, definitions.views)
        except SeatrialError:  # told of the model
            return
        fields = list(dict.fromkeys([*plan.request_columns, *model.request_features]))
        if deployment.route_by not in fields:
            yield _result("the field it splits by", deployment.route_by, f"a request of '{model.name}' has", fields)


def _missing(what: str, wanted: Iterable[str], source: str, known: Sequence[str] | None) -> Iterator[Result]:
    if known is not None:  # else the source itself could not be read, which is told
        for column in wanted:
            if column not in known:
                yield _result(what, column, f"source '{source}' has", known)


def _result(what: str, name: str, who: str, known: Iterable[str]) -> Result:
    known = list(known)
    detail = f"{who} {listed(known)}. {did_you_mean(name, known)}".strip()
    return Result(f"{what}, '{name}', is there", passed=False, failing=None, detail=detail)
