"""Which code is this function, and what does it hold? Told by what is loaded, not by what its file says now.

A function is its code object (bytes, constants, names, and the functions within it), its defaults, the values that it
closes over, the object that it is bound to, and the globals that it reads: plain values by value, functions, classes,
plain objects and modules of one's own in the same way, what is installed by its name, because its version is known.
Whatever cannot be told surely is refused.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import dis
import enum
import functools
import importlib
import importlib.util
import logging
import re
import sys
import sysconfig
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, NoReturn

from seatrial.core.errors import UsageError
from seatrial.core.identity import canonical_json, digest
from seatrial.training.closure import INSTALLED


class NotMemoisable(UsageError):
    """A function cannot be told from another one, or a parameter is no plain value."""

    code = "steps.not_memoisable"


_LOADERS = frozenset(
    {"import_module", "exec_module", "spec_from_file_location", "run_path", "run_module", "load_module"}
)
_BUILTIN_LOADERS = frozenset({"eval", "exec", "compile", "__import__", "globals"})
_LOOKERS = frozenset({"getattr", "vars", "dir", "attrgetter", "methodcaller"})  # they may look at any name of a module
_BY_TEXT = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    decimal.Decimal,
    complex,
    uuid.UUID,
    range,
    slice,
    type(Ellipsis),
    type(NotImplemented),
    PurePath,
    re.Pattern,
    logging.Logger,
    typing.TypeVar,
    types.GenericAlias,
    types.UnionType,
)
_DICTS = (dict, types.MappingProxyType, collections.OrderedDict, collections.defaultdict, collections.Counter)
_NO_MATTER = frozenset({"__dict__", "__weakref__", "__module__", "__qualname__", "__annotations__", "_abc_impl"})
_DATACLASS = frozenset({"__dataclass_fields__", "__dataclass_params__", "__match_args__"})


def code_tokens(function: Callable[..., Any]) -> tuple[bytes, set[Path]]:
    """What tells a function, as bytes, and the files of one's own that it was found in. Raises NotMemoisable."""
    walk = _Walk(function)
    walk.value(function, "the function")
    return canonical_json(walk.tokens), walk.files


class _Walk:
    """Goes through what determines a function, once through each thing, and writes down tokens."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.tokens: list[str] = []
        self.files: set[Path] = set()
        self._named = name_of(function)
        self._seen: dict[Any, int] = {}
        self._within: set[int] = set()
        self._alive: list[Any] = []  # an id means nothing once its object is gone

    def refuse(self, what: str, why: str) -> NoReturn:
        raise NotMemoisable(
            f"step '{self._named}': {what} {why}.",
            expected="Plain values, and functions, classes and modules that are imported as usual are expected.",
            state="Nothing was run.",
            next="Give it to the step as a parameter, or as an input with a digest.",
        )

    def put(self, *tokens: object) -> None:
        self.tokens.extend(map(str, tokens))

    def _again(self, value: object, key: Any = None) -> bool:
        """Whether a thing was walked through before, which is then told by its number."""
        key = id(value) if key is None else key
        if key in self._seen:
            self.put("again", self._seen[key])
            return True
        self._seen[key] = len(self._seen)
        self._alive.append(value)
        return False

    def value(self, value: Any, what: str) -> None:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            self.put(kind.__name__, value)
        elif kind is float:
            self.put("float", value.hex())
        elif kind in (bytes, bytearray):
            self.put(kind.__name__, value.hex())
        elif kind in (list, tuple):
            self._items(kind.__name__, value, what)
        elif kind in (set, frozenset):
            self.put(kind.__name__, len(value), *sorted(self._apart(one, what) for one in value))
        elif kind in _DICTS:
            self.put(kind.__name__)
            self.value(getattr(value, "default_factory", None), what)
            self._items("items", [part for item in list(value.items()) for part in item], what, value)
        elif isinstance(value, types.ModuleType):
            self._module(value, frozenset(), everything=True)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.MethodType):
            self.put("method")
            self.value(value.__func__, what)
            self.value(value.__self__, f"what {what} is bound to")
        elif isinstance(value, functools.partial):
            self.put("partial")
            for part in (value.func, value.args, value.keywords):
                self.value(part, what)
        elif isinstance(value, type):
            self._class(value)
        else:
            self._other(value, kind, what)

    def _other(self, value: Any, kind: type, what: str) -> None:
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            self.put("builtin", value.__qualname__)
            if value.__self__ is not None and not isinstance(value.__self__, types.ModuleType):
                self.value(value.__self__, f"what {what} is bound to")
        elif isinstance(
            value, types.MethodDescriptorType | types.WrapperDescriptorType | types.ClassMethodDescriptorType
        ):
            self.put("descriptor", f"{value.__objclass__.__module__}.{value.__qualname__}")
        elif isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
            self.put("slot", value.__name__)
        elif isinstance(value, staticmethod | classmethod):
            self.put(kind.__name__)
            self.value(value.__func__, what)
        elif isinstance(value, property):
            self.put("property")
            for part in (value.fget, value.fset, value.fdel):
                self.value(part, what)
        elif isinstance(value, functools.cached_property):
            self.put("cached_property")
            self.value(value.func, what)
        elif kind is functools._lru_cache_wrapper:
            self.put("lru_cache")
            self.value(value.__wrapped__, what)
        elif isinstance(value, enum.Enum):
            self.put("member", value.name)
            self.value(kind, what)
        elif isinstance(value, _BY_TEXT) and not is_own(kind):
            self.put(f"{kind.__module__}.{kind.__qualname__}", getattr(value, "key", ""), repr(value))
        elif kind.__module__ == "typing":
            self.put("typing", repr(value))
        elif kind.__module__.partition(".")[0] == "numpy":
            self._numpy(value, kind, what)
        elif is_own(kind) and all(is_own(base) or base in (object, typing.Generic) for base in kind.__mro__):
            self._object(value, kind, what)
        else:
            self.refuse(what, f"is a {kind.__module__}.{kind.__qualname__}, which no digest tells")

    def _apart(self, value: Any, what: str) -> str:
        """The tokens of one value of a set as one text, so that they can be put in order."""
        tokens, self.tokens = self.tokens, []
        try:
            if type(value) not in (int, str, bool, float, bytes, tuple, type(None)):
                self.refuse(what, "is a set of other things than plain values")
            self.value(value, what)
            return canonical_json(self.tokens).decode()
        finally:
            self.tokens = tokens

    def _items(self, kind: str, values: Iterable[Any], what: str, holder: object = None) -> None:
        key = id(values if holder is None else holder)
        if key in self._within:
            self.refuse(what, "holds itself")
        self._within.add(key)
        values = list(values)
        self.put(kind, len(values))
        for one in values:
            self.value(one, what)
        self._within.remove(key)

    def _numpy(self, value: Any, kind: type, what: str) -> None:
        import numpy as np

        if isinstance(value, np.ufunc | np.dtype):
            self.put("numpy", kind.__name__, str(value))
        elif kind is np.ndarray and not value.dtype.hasobject:
            self.put("array", str(value.dtype), value.shape, digest(np.ascontiguousarray(value).tobytes()))
        elif isinstance(value, np.generic) and not value.dtype.hasobject:
            self.put("numpy", str(value.dtype), value.tobytes().hex())
        else:
            self.refuse(what, f"is a numpy.{kind.__qualname__}, which no digest tells")

    def _function(self, function: types.FunctionType) -> None:
        if self._again(function):
            return
        name = f"{function.__globals__.get('__name__', '')}.{function.__code__.co_qualname}"
        own = is_own_function(function)
        self.put("function" if own else "installed", name)
        for cell in function.__closure__ or ():
            try:
                held = cell.cell_contents
            except ValueError:
                self.put("empty")
                continue
            self.value(held, f"a value that '{function.__qualname__}' closes over")
        if function.__code__.co_filename == "<string>":  # a method that dataclasses made
            self.put(_static(function.__code__).digest)
            return
        if not own:
            return
        self.value(function.__defaults__, f"a default of '{function.__qualname__}'")
        self.value(function.__kwdefaults__, f"a default of '{function.__qualname__}'")
        self.value(function.__dict__, f"an attribute of '{function.__qualname__}'")
        self._code(function)

    def _code(self, function: types.FunctionType) -> None:
        code, scope = function.__code__, function.__globals__
        static = _static(code)
        self.put("code", static.digest)
        file = Path(code.co_filename)
        if file.is_file():
            self.files.add(file)
        if static.attributes & _LOADERS or ("modules" in static.attributes and "sys" in static.names):
            self.refuse(f"'{function.__qualname__}'", "loads code by a name that is made when it runs")
        looks = bool((static.names | static.attributes) & _LOOKERS)
        for name in sorted(static.names):
            where = f"the global '{name}' of {scope.get('__name__', 'its module')}"
            self.put("global", name)
            if name in scope:
                self._global(scope[name], static.attributes, looks or name in static.handed, where)
            elif hasattr(builtins, name):
                if name in _BUILTIN_LOADERS:
                    self.refuse(f"'{function.__qualname__}'", f"uses {name}()")
                self.put("builtins")
            else:
                self.put("absent")
        for one in static.imports:
            self._import(function, one, static.attributes, looks or bool(one.stored & static.handed))

    def _global(self, value: Any, attributes: frozenset[str], everything: bool, what: str) -> None:
        if isinstance(value, types.BuiltinFunctionType | types.FunctionType) and value.__name__ in _LOADERS:
            self.refuse(what, "loads code by a name that is made when it runs")
        if isinstance(value, types.ModuleType):
            self._module(value, attributes, everything)
        else:
            self.value(value, what)

    def _module(self, module: types.ModuleType, attributes: frozenset[str], everything: bool) -> None:
        """A module of one's own by what is used of it. everything: it is handed on, so that nobody knows what is."""
        self.put("module", module.__name__)
        if not _is_own_module(module):
            return
        used = {name for name in vars(module) if (everything or name in attributes) and not name.startswith("__")}
        if self._again(module, (id(module), frozenset(used))):
            return
        if module.__file__:
            self.files.add(Path(module.__file__))
        for name in sorted(used):
            self.put("attribute", name)
            self._global(vars(module)[name], attributes, everything, f"'{name}' of {module.__name__}")

    def _import(self, function: types.FunctionType, one: _Import, attributes: frozenset[str], everything: bool) -> None:
        """A module that the function imports when it runs; one of one's own is imported now."""
        package = function.__globals__.get("__package__") or ""
        try:
            name = importlib.util.resolve_name("." * one.level + one.name, package) if one.level else one.name
            parts = name.split(".")
            names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
            for part in (*names, *(f"{name}.{taken}" for taken in one.taken)):
                if part not in sys.modules:
                    spec = importlib.util.find_spec(part)
                    if spec is None or not _is_own_place(spec.origin, spec.submodule_search_locations):
                        self.put("import", part)
                        continue
                    importlib.import_module(part)
                handed = everything and (not one.taken or part not in names)
                self._module(sys.modules[part], attributes | set(one.taken), handed)
        except (ImportError, ValueError):
            self.put("import", one.name, "fails")

    def _class(self, kind: type) -> None:
        if not is_own(kind):
            self.put("class", f"{kind.__module__}.{kind.__qualname__}")
            return
        if self._again(kind):
            return
        self.put("class", kind.__module__, kind.__qualname__, len(kind.__bases__))
        for base in (type(kind), *kind.__bases__):
            self.value(base, f"what {kind.__qualname__} is made of")
        held = dict(vars(kind))
        if issubclass(kind, enum.Enum):
            held = {name: one for name, one in held.items() if isinstance(one, types.FunctionType | property)}
            held |= {name: member.value for name, member in kind.__members__.items()}
        elif "__dataclass_fields__" in held:
            self._dataclass(held, kind)
            held = {name: one for name, one in held.items() if name not in _DATACLASS and not _made(one)}
        for name in sorted(set(held) - _NO_MATTER):
            self.put("member", name)
            self.value(held[name], f"{kind.__qualname__}.{name}")

    def _dataclass(self, held: Mapping[str, Any], kind: type) -> None:
        import dataclasses

        self.put("dataclass", repr(held["__dataclass_params__"]))
        for field in held["__dataclass_fields__"].values():
            self.put("field", field.name, field.init, field.repr, field.compare, field.hash, field.kw_only)
            for given in (field.default, field.default_factory):
                self.put("none") if given is dataclasses.MISSING else self.value(given, f"a default of {kind.__name__}")

    def _object(self, value: Any, kind: type, what: str) -> None:
        """An object of a class of one's own, whose bases are too: it is its class and its attributes."""
        if self._again(value):
            return
        self.put("object")
        self.value(kind, what)
        held = dict(getattr(value, "__dict__", {}))
        for base in kind.__mro__:
            for name, slot in vars(base).items():
                if isinstance(slot, types.MemberDescriptorType) and hasattr(value, name):
                    held[name] = getattr(value, name)
        self.put(len(held))
        for name, one in held.items():
            self.put(name)
            self.value(one, f"'{name}' of {what}")


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called: module and qualified name; of a partial, that of what it calls."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"


def is_own_function(function: types.FunctionType) -> bool:
    """Whether a function's code is of one's own; a decorator's wrapper is of where the decorator stands."""
    module = sys.modules.get(function.__globals__.get("__name__", ""))
    file = getattr(module, "__file__", None) or function.__code__.co_filename
    return _is_own_file(file)


def is_own(kind: type) -> bool:
    """Whether a class is of one's own; one whose module is not known is."""
    module = sys.modules.get(kind.__module__)
    return module is None or _is_own_module(module)


def _is_own_module(module: types.ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.origin in ("built-in", "frozen"):
        return False
    return _is_own_place(getattr(module, "__file__", None), getattr(module, "__path__", None), module.__name__)


def _is_own_place(file: str | None, folders: Iterable[str] | None, name: str = "") -> bool:
    if file:
        return _is_own_file(file)
    if folders is not None:
        return any(map(_is_own_file, folders))
    return name not in sys.builtin_module_names


@lru_cache(maxsize=8192)
def _is_own_file(file: str) -> bool:
    """Whether a file is neither Python's, nor installed, nor seatrial's."""
    if file.startswith("<frozen"):
        return False
    path = Path(file).resolve()
    if INSTALLED & set(path.parts) or path.is_relative_to(SEATRIAL):
        return False
    return not any(path.is_relative_to(place) for place in _PYTHON)


SEATRIAL = Path(__file__).resolve().parent.parent
_PYTHON = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")})


def _made(value: Any) -> bool:
    """Whether dataclasses made this method."""
    while hasattr(value, "__wrapped__"):
        value = value.__wrapped__
    code = getattr(value, "__code__", None)
    return code is not None and (code.co_filename == "<string>" or value.__globals__.get("__name__") == "dataclasses")


@dataclass(frozen=True)
class _Import:
    """An import within a function. taken: what `from` takes; stored: the names that the function gives them."""

    level: int
    name: str
    taken: tuple[str, ...]
    stored: frozenset[str]


@dataclass(frozen=True)
class _Static:
    """What a code object says by itself, with the functions within it.

    names: globals that it reads. handed: names that it reads for something else than an attribute of theirs.
    """

    digest: str
    names: frozenset[str]
    attributes: frozenset[str]
    handed: frozenset[str]
    imports: tuple[_Import, ...]


_GLOBAL = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTE = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "STORE_ATTR", "IMPORT_FROM"})


@lru_cache(maxsize=4096)
def _static(code: types.CodeType) -> _Static:
    names: set[str] = set()
    attributes: set[str] = set()
    handed: set[str] = set()
    imports: list[_Import] = []
    done = list(dis.get_instructions(code))
    for place, one in enumerate(done):
        following = done[place + 1] if place + 1 < len(done) else one
        if one.opname in _GLOBAL:
            names.add(one.argval)
        elif one.opname in _ATTRIBUTE:
            attributes.add(one.argval)
        elif one.opname == "IMPORT_NAME":
            level, taken = done[place - 2].argval, done[place - 1].argval
            imports.append(_Import(level or 0, one.argval, tuple(taken or ()), frozenset()))
        if one.opname in ("IMPORT_NAME", "IMPORT_FROM") and following.opname.startswith("STORE_") and imports:
            imports[-1] = replace(imports[-1], stored=imports[-1].stored | {following.argval})
        if one.opname.startswith("LOAD_") and isinstance(one.argval, str) and following.opname not in _ATTRIBUTE:
            handed.add(one.argval)
    constants = []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = _static(constant)
            constants.append(inner.digest)
            names |= inner.names
            attributes |= inner.attributes
            handed |= inner.handed
            imports += inner.imports
        else:
            constants.append(_constant(constant))
    facts = [
        code.co_qualname,
        code.co_code.hex(),
        constants,
        [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars],
        [code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount],
        code.co_exceptiontable.hex(),
    ]
    told = digest(canonical_json(facts))
    return _Static(told, frozenset(names), frozenset(attributes), frozenset(handed), tuple(imports))


def _constant(value: Any) -> str:
    """A constant of a code object as text; floats exactly, sets in order."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    return f"{type(value).__name__} {value!r}"
