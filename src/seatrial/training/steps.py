"""Memoised steps: has this very work been done before? Then what came of it is taken from where it was kept.

A step is a function with parameters and inputs. Its key is a digest of all that determines its result: the code of the
function and of everything of one's own that it uses, the parameters, the digests of the inputs, and the environment.
There is no graph and no engine: whoever runs steps calls them one after the other, and hands the digest of one result
to the next. What is kept is checked when it is read; what was damaged is made again.

    steps = Steps(project.objects, environment=environment_digest(facts))
    cleaned = steps.run(clean, {"lowest": 0}, {"rows": Input(snapshot.id, read)})
    counted = steps.run(count, inputs={"rows": cleaned.input})       # reads `cleaned` only when it has to count

A function that reads a clock, a file, an environment variable or a network by itself is no step: its key would not
change when its result does.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from sysconfig import get_path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import msgspec

from seatrial.core.clock import monotonic
from seatrial.core.errors import Failed, SeatrialError
from seatrial.core.identity import canonical_json, content_id, digest, value_digest
from seatrial.stores.objects import ObjectDiffers, ObjectStore
from seatrial.training.closure import INSTALLED, closure
from seatrial.training.code import NotMemoisable, code_tokens, is_own_function, name_of

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 2
Value = TypeVar("Value")
Kept = TypeVar("Kept")


class KeptDamaged(Failed):
    """What was kept of a step is gone, or is not what was kept."""

    code = "steps.kept_damaged"


class StepDiffers(UserWarning):
    """A step gave something else than before with the same key, so something that determines it is not in its key."""


@dataclass(frozen=True)
class Input(Generic[Value]):
    """An input of a step. digest: of its content. read: gives it; called only when the step has to be done."""

    digest: str
    read: Callable[[], Value] = field(repr=False)


class Form(Protocol[Kept]):
    """How results of one kind are kept."""

    name: str

    def put(self, objects: ObjectStore, value: Kept) -> str:
        """Keep a value; the digest under which `get` finds it."""
        ...

    def get(self, objects: ObjectStore, digest: str) -> Kept:
        """The value. Raises KeptDamaged, or what the store raises, when it is not there as it was kept."""
        ...


class _Plain:
    """Plain values, as JSON: what comes back has lists for tuples, also the first time."""

    name = "plain"

    def put(self, objects: ObjectStore, value: Any) -> str:
        try:
            data = canonical_json(value)
        except (TypeError, ValueError) as error:
            raise NotMemoisable(f"the result of a step cannot be kept as JSON: {error}.") from None
        found = digest(data)
        objects.put(_place(found), data, whole=lambda path: digest(path.read_bytes()) == found)
        return found

    def get(self, objects: ObjectStore, digest_: str) -> Any:
        data = objects.read(_place(digest_))
        if digest(data) != digest_:
            raise KeptDamaged(f"'{_place(digest_)}' in {objects.root} is damaged.")
        return msgspec.json.decode(data)


class _Table:
    """Arrow tables, by content, as training sets are kept: a table that is one is kept once."""

    name = "table"

    def put(self, objects: ObjectStore, value: pa.Table) -> str:
        import tempfile

        from seatrial.data import snapshot

        described = snapshot.content(value)
        found = content_id("tset", described.id.encode())
        if objects.exists(table_key(found)) and _whole(objects.path(table_key(found))):
            return found
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table"
            snapshot.write(described, value, path)
            objects.put_file(table_key(found), path, whole=_whole)
        return found

    def get(self, objects: ObjectStore, digest_: str) -> pa.Table:
        from seatrial.data import snapshot

        described, table = snapshot.load(objects.path(table_key(digest_)))
        if content_id("tset", described.id.encode()) != digest_:
            raise KeptDamaged(f"'{table_key(digest_)}' in {objects.root} holds another table.")
        return table


PLAIN: Form[Any] = _Plain()
TABLE: Form[pa.Table] = _Table()


class Made(Generic[Value]):
    """What a step gave. hit: it had been made before. digest: of the result. seconds: that it took when it was made."""

    def __init__(
        self, key: str, hit: bool, digest: str, seconds: float, read: Callable[[], Value], make: Callable[[], Value]
    ) -> None:
        self.key, self.hit, self.digest, self.seconds = key, hit, digest, seconds
        self._read, self._make = read, make

    @cached_property
    def value(self) -> Value:
        """The result; of a hit it is read, and checked, now. One that is damaged is made again."""
        try:
            return self._read()
        except (SeatrialError, OSError):
            if not self.hit:
                raise
            self.hit = False
            return self._make()

    @property
    def input(self) -> Input[Value]:
        """The result as the input of another step."""
        return Input(self.digest, lambda: self.value)


class Steps:
    """Runs steps, and keeps what comes of them in the object store.

    environment: the digest of everything outside the code that can move a result, such as the versions of packages.
    fresh: do everything again; what was kept before stays as it is, and a result that differs from it is warned of.
    """

    def __init__(self, objects: ObjectStore, *, environment: str, fresh: bool = False) -> None:
        self._objects, self._environment, self._fresh = objects, environment, fresh
        self.ran: list[dict[str, Any]] = []
        """A line for each step that was run: name, key, hit, seconds."""

    def run(
        self,
        function: Callable[..., Any],
        parameters: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Input[Any]] | None = None,
        *,
        form: Form[Any] = PLAIN,
        name: str = "",
        uses: Mapping[str, str] | None = None,
    ) -> Made[Any]:
        """`function(**parameters, **inputs)`, or what came of it before.

        parameters: plain values. form: how the result is kept. uses: digests of what else determines the result, by
        name. Raises NotMemoisable, and whatever the function raises.
        """
        parameters, inputs = dict(parameters or {}), dict(inputs or {})
        key = self.key(function, parameters, inputs, uses=uses, form=form)

        def make() -> tuple[Any, dict[str, Any]]:
            started = monotonic()
            made = function(**parameters, **{one: given.read() for one, given in inputs.items()})
            return self._keep(key, function, made, form, monotonic() - started)

        kept = self._kept(key)
        hit = kept is not None and not self._fresh
        if kept is not None and hit:
            read = partial(form.get, self._objects, kept["digest"])
            found = Made(key, True, kept["digest"], kept["seconds"], read, lambda: make()[0])
        else:
            value, made = make()
            if kept is not None and kept["digest"] != made["digest"]:
                _warn_of_difference(name or _short(function), made["digest"], kept["digest"])
            found = Made(key, False, made["digest"], made["seconds"], lambda: value, lambda: value)
        self.ran.append({"step": name or _short(function), "key": key, "hit": hit, "seconds": round(found.seconds, 6)})
        return found

    def key(
        self,
        function: Callable[..., Any],
        parameters: Mapping[str, Any],
        inputs: Mapping[str, Input[Any]],
        *,
        uses: Mapping[str, str] | None = None,
        form: Form[Any] = PLAIN,
    ) -> str:
        """The digest of all that determines a step's result. Raises NotMemoisable."""
        try:
            return value_digest(
                {
                    "format": FORMAT,
                    "form": form.name,
                    "function": name_of(function),
                    "code": code_digest(function),
                    "parameters": _typed(parameters),
                    "inputs": {name: given.digest for name, given in inputs.items()},
                    "uses": dict(uses or {}),
                    "environment": self._environment,
                }
            )
        except (TypeError, ValueError) as error:
            raise NotMemoisable(
                f"a parameter of step '{_short(function)}' is no plain value: {error}.",
                expected="Numbers, texts, lists and dicts are expected; anything else is an input with a digest.",
            ) from None

    def _kept(self, key: str) -> dict[str, Any] | None:
        """What is known of the step of this key; None when it was not run, or that cannot be read."""
        if not self._objects.exists(_pointer(key)):
            return None
        try:
            pointer: dict[str, Any] = msgspec.json.decode(self._objects.read(_pointer(key)))
        except (msgspec.DecodeError, SeatrialError):
            return None
        return pointer if pointer.get("format") == FORMAT and {"digest", "seconds"} <= pointer.keys() else None

    def _keep(
        self, key: str, function: Callable[..., Any], value: Any, form: Form[Any], seconds: float
    ) -> tuple[Any, dict[str, Any]]:
        """Keep a result and, unless one is known, which it was; the result as it will be read, and what is known."""
        kept_as = form.put(self._objects, value)
        pointer = {
            "format": FORMAT,
            "digest": kept_as,
            "form": form.name,
            "seconds": seconds,
            "function": name_of(function),
        }
        if self._kept(key) is None:
            try:
                self._objects.put(_pointer(key), canonical_json(pointer), whole=_is_pointer)
            except ObjectDiffers:  # another process did the same step meanwhile, in another time
                kept = self._kept(key)
                if kept is None:
                    raise
                if kept["digest"] != kept_as:
                    _warn_of_difference(name_of(function), kept_as, kept["digest"])
        return msgspec.json.decode(canonical_json(value)) if form is PLAIN else value, pointer


def _warn_of_difference(name: str, made: str, kept: str) -> None:
    warnings.warn(
        f"step '{name}' gave {made[:17]}, and {kept[:17]} before: "
        "something that determines it is not among its parameters and inputs. What was kept stays.",
        StepDiffers,
        stacklevel=3,
    )


def environment_digest(facts: Mapping[str, Any], *, machine: bool = True) -> str:
    """The digest of an environment as `environment.describe` tells it. machine: whether processor, BLAS and threads
    count, which they do for fits, and not for joins."""
    names = ["python", "packages", *(("cpu", "blas", "threads", "thread_variables") if machine else ())]
    return value_digest({name: facts[name] for name in names})


def code_digest(function: Callable[..., Any]) -> str:
    """The digest of a function: of what is loaded (see `training.code`), and of the files that it stands in.

    Of a function of an installed package, or of seatrial, that is the whole package. Else it is the code itself with
    the values that it holds and reads, and its file with every module of one's own that this uses, directly or through
    others. Raises NotMemoisable for a function without a file, and for one that holds what has no digest.
    """
    told = innermost = function
    while not isinstance(innermost, FunctionType):
        if isinstance(innermost, partial):
            innermost = innermost.func
        elif isinstance(innermost, MethodType):
            innermost = cast("Any", innermost.__func__)
        elif hasattr(innermost, "__wrapped__"):
            innermost = innermost.__wrapped__
        else:
            raise NotMemoisable(f"{told!r} is no Python function.", expected="A step is a function with a source.")
    tokens, files = code_tokens(function)
    parts = [tokens]
    if not is_own_function(innermost):
        package = _package_folder(innermost.__globals__.get("__name__", "").partition(".")[0])
        parts.append((_package_digest(package) if package else "").encode())
    elif not Path(innermost.__code__.co_filename).is_file():
        raise NotMemoisable(
            f"the source of '{innermost.__qualname__}' is not in a file.", expected="A step stands in a module."
        )
    parts += [_files_digest(file).encode() for file in sorted(files)]
    return digest(b"\0".join(parts))


def _package_folder(top: str) -> Path | None:
    """The folder of an installed package, or of seatrial; None for modules of one's own."""
    file = getattr(sys.modules.get(top), "__file__", None)
    folder = Path(file).resolve().parent if file else None
    installed = folder is not None and (top == "seatrial" or INSTALLED & set(folder.parts))
    return folder if installed else None


@lru_cache(maxsize=32)
def _package_digest(folder: Path) -> str:
    """Of every source file of a package; its modules are loaded, so it is looked at once."""
    files = sorted(file for file in folder.rglob("*.py") if "templates" not in file.relative_to(folder).parts)
    return value_digest({file.relative_to(folder).as_posix(): digest(file.read_bytes()) for file in files})


_closures: dict[tuple[Path, tuple[Path, ...]], tuple[tuple[tuple[str, Path], ...], tuple[tuple[int, int], ...]]] = {}


def _files_digest(file: Path) -> str:
    """Of a file and the modules of one's own that it uses; looked at again when one of them was changed."""
    roots = (file.parent.resolve(), *_own_roots(tuple(sys.path)))
    named, stamps = _closures.get((file, roots), ((), ()))
    try:
        fresh = bool(named) and tuple(_stamp(path) for _, path in named) == stamps
    except OSError:
        fresh = False
    if not fresh:
        named = tuple((_relative(path, roots), path) for path in closure([file], roots))
        stamps = tuple(_stamp(path) for _, path in named)
        _closures[file, roots] = named, stamps
    found = [[name, _digest_of(path, stamp)] for (name, path), stamp in zip(named, stamps, strict=True)]
    return value_digest(sorted(found))


@lru_cache(maxsize=64)
def _own_roots(places: tuple[str, ...]) -> tuple[Path, ...]:
    """Where Python finds modules of one's own: neither its own, nor what is installed, nor seatrial."""
    found = [Path(place or ".").resolve() for place in places]
    python = [Path(get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
    found = [one for one in found if one.is_dir() and not (one / "seatrial" / "training" / "steps.py").is_file()]
    own = [one for one in found if not INSTALLED & set(one.parts)]
    return tuple(dict.fromkeys(one for one in own if not any(one.is_relative_to(place) for place in python)))


def _relative(path: Path, roots: tuple[Path, ...]) -> str:
    """The name of a file below the deepest root that holds it: the same wherever the folder lies."""
    path = path.resolve()
    within = [path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)]
    return max(within, key=len, default=path.name)


@lru_cache(maxsize=4096)
def _digest_of(path: Path, stamp: tuple[int, int]) -> str:
    del stamp
    return digest(path.read_bytes())


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _typed(value: Any) -> Any:
    """A plain value in which 1, 1.0, True and "1" are told apart. Raises TypeError."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, Mapping):
        return {"dict": [[_typed(name), _typed(value[name])] for name in sorted(value, key=repr)]}
    if isinstance(value, list | tuple):
        return [_typed(one) for one in value]
    raise TypeError(f"{type(value).__name__} {value!r:.60}")


def table_key(digest: str) -> str:
    """Where a table is kept, and where a training set is."""
    return f"training_sets/{digest}.parquet"


def _whole(path: Path) -> bool:
    from seatrial.data import snapshot

    try:
        snapshot.load(path)
    except (SeatrialError, OSError):
        return False
    return True


def _is_pointer(path: Path) -> bool:
    try:
        return bool({"digest", "seconds"} <= msgspec.json.decode(path.read_bytes()).keys())
    except (msgspec.DecodeError, AttributeError):
        return False


def _short(function: Callable[..., Any]) -> str:
    return name_of(function).rpartition(".")[2]


def _place(digest: str) -> str:
    return f"steps/results/{digest}.json"


def _pointer(key: str) -> str:
    return f"steps/{key}.json"
