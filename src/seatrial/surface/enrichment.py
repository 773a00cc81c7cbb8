"""Enrichment: a request that names an entity gets the features that it does not carry itself.

It happens where a request is read, so that it counts in the latency, its outcome is logged as the model's input, and
the entity's key stays outside: it is a field of the request, and no field of the row that goes on to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from seatrial.core.errors import UsageError, listed
from seatrial.core.types import Dtype, Field
from seatrial.serving.scoring.predictor import StoreDown
from seatrial.serving.scoring.requests import MissingField, Request, RequestReader
from seatrial.stores.online import OnlineStoreDamaged, OnlineStoreUnavailable
from seatrial.surface.feature_store import Chosen, FeatureDtype, FeatureStore

FITS: dict[Dtype, tuple[FeatureDtype, ...]] = {
    "float": ("float", "int"),
    "int": ("int",),
    "bool": ("int",),
    "category": ("string",),
    "string": ("string",),
}
"""For each type of a model's field the types of features that can stand in for it unchanged."""
MADE: dict[Dtype, Callable[[Any], Any]] = {"float": float, "bool": bool}


class FeatureTypeDiffers(UsageError):
    """A feature of the store has another type than the model's field of that name."""

    code = "surface.feature_type_differs"


class EnrichingReader(RequestReader):
    """Reads requests whose features may come from the store.

    fields: what the model's rows hold. A field that the store has a feature for need not be sent, or may be null:
    then it is looked up by the entity keys in the request, which may be left out too. What is not found is null.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        store: FeatureStore,
        *,
        exact: Iterable[str],
        now_us: Callable[[], int],
        max_rows: int,
    ) -> None:
        names = [field.name for field in fields]
        supplied = store.supplied(names)
        for field in fields:
            if field.name in supplied:
                _check_type(field, supplied[field.name])
        keys = {key: kind for view in store.views().values() for key, kind in view.keys.items()}
        outside = [
            Field(key, kind, optional=True, description="Names the entity whose features are looked up.")
            for key, kind in keys.items()
            if key not in names
        ]
        taken = [Field(f.name, f.dtype, True, True, f.description) if f.name in supplied else f for f in fields]
        super().__init__([*taken, *outside], exact=exact, max_rows=max_rows)
        self._width = len(fields)
        self._supplied = [
            (position, field, supplied[field.name].looked_up)
            for position, field in enumerate(fields)
            if field.name in supplied
        ]
        self._keys = [(position, name) for position, name in enumerate(self.names) if name in keys]
        self._lookup = store.lookup(supplied.values())
        self._now_us = now_us

    def read(self, body: bytes) -> Request:
        """The request in `body`, enriched. Raises a BadRequest, or StoreDown when the store does not answer."""
        request = super().read(body)
        at_us = self._now_us()  # one instant for what is looked up here and, later, for the release's own views
        rows = [self._enriched(row, number if request.many else None, at_us) for number, row in enumerate(request.rows)]
        return replace(request, rows=rows, at_us=at_us, bounded=False)

    def _enriched(self, row: tuple[Any, ...], number: int | None, at_us: int) -> tuple[Any, ...]:
        values = list(row[: self._width])
        missing = [entry for entry in self._supplied if values[entry[0]] is None]
        if missing:
            found = self._looked_up({name: row[position] for position, name in self._keys}, at_us)
            for position, field, column in missing:
                value = found[column]
                values[position] = None if value is None else MADE.get(field.dtype, _same)(value)
        refused = [field for position, field, _ in missing if values[position] is None and not field.nullable]
        if refused:
            raise MissingField(
                f"{'the request' if number is None else f'row {number}'} lacks "
                f"{listed((f.name for f in refused), most=20)}, and the feature store has no value for its entity.",
                expected=f"Send the value, or a known entity: {listed(name for _, name in self._keys)}.",
                state="Nothing was predicted.",
                field=refused[0].name,
                row=number,
            )
        return tuple(values)

    def _looked_up(self, keys: dict[str, Any], at_us: int) -> dict[str, Any]:
        try:
            return self._lookup.assemble(keys, at_us).columns
        except (OnlineStoreUnavailable, OnlineStoreDamaged):
            raise StoreDown(
                "the online store does not answer.",
                expected="Features of this request are looked up there.",
                state="Nothing was predicted.",
                next="Try again.",
            ) from None


def _check_type(field: Field, chosen: Chosen) -> None:
    dtype = chosen.view.features[chosen.feature].dtype
    if dtype not in FITS.get(field.dtype, ()):
        raise FeatureTypeDiffers(
            f"feature '{chosen.view.name}:{chosen.feature}' is {dtype}, "
            f"and the model's field '{field.name}' is {field.dtype}.",
            expected="A feature is served in the type that was trained on.",
            state="Nothing was loaded.",
            next="Train on the columns of get_training_data, or give the feature the field's type.",
        )


def _same(value: Any) -> Any:
    return value
