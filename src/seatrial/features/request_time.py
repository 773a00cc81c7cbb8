"""Request-time functions: pure arithmetic over a request's fields and features, the same for one row and many.

A function decorated with `on_request` may use a closed subset of Python: arithmetic, comparisons, `&` `|` `~`
on them, constants, its arguments, local names, and the functions in `FUNCTIONS`. The subset is checked on the
syntax tree when the function is defined and again when a frozen source is loaded. Functions run on float64
arrays of length 1 or n, with IEEE arithmetic (1/0 is infinity, 0/0 is NaN); null is NaN.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import UsageError, did_you_mean, listed
from seatrial.core.identity import value_digest

FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(np, name)
    for name in (
        "abs arctan2 ceil clip cos exp expm1 floor hypot isnan log log10 log1p log2 "
        "maximum minimum radians sign sin sqrt tan tanh where"
    ).split()
}
CONSTANTS = {"pi": np.pi, "nan": np.nan}

_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr)
_UNARY = (ast.USub, ast.UAdd, ast.Invert)
_COMPARE = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_HINTS: dict[type[ast.AST], str] = {
    ast.IfExp: "write where(condition, a, b) instead of 'a if condition else b'",
    ast.If: "write where(condition, a, b) instead of an if statement",
    ast.BoolOp: "write & and | (with brackets) instead of 'and' and 'or'",
    ast.Not: "write ~ instead of 'not'",
}


class BadRequestFunction(UsageError):
    """A request-time function uses something outside the closed subset, or cannot be read."""

    code = "definition.bad_request_function"


class NotRowWise(UsageError):
    """A request-time function gives other values for one row than for many."""

    code = "definition.not_row_wise"


@dataclass(frozen=True)
class RequestFunction:
    """A request-time function and its frozen source.

    args: names of request fields, of features (`view__feature`) or of earlier request-time functions.
    source: the checked function in canonical form, without decorator, annotations and docstring.
    """

    name: str
    args: tuple[str, ...]
    source: str
    description: str = ""

    @property
    def digest(self) -> str:
        return value_digest([self.name, list(self.args), self.source])

    def __call__(self, *values: Any) -> NDArray[np.float64]:
        """The function's value for arrays or numbers, as a float64 array; for tests and notebooks."""
        arrays = [np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in values]
        return evaluate(load(self.name, self.source), arrays)


def on_request(function: Callable[..., Any]) -> RequestFunction:
    """Make a plain function a request-time feature. Its parameters name request fields and features.

    Raises BadRequestFunction when it uses anything outside the closed subset.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        raise BadRequestFunction(
            f"the source of request-time function '{getattr(function, '__name__', function)}' cannot be read.",
            expected="Define it with 'def' in a file or a notebook cell.",
        ) from None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise BadRequestFunction("a request-time function must be written with 'def'.")
    description = ast.get_docstring(definition) or ""
    bare = _bare(definition)
    if bare.name in [arg.arg for arg in bare.args.args]:
        _refuse(bare.name, definition, f"it takes '{bare.name}', its own output, as an argument")
    source = ast.unparse(bare)
    load(bare.name, source)
    return RequestFunction(bare.name, tuple(arg.arg for arg in bare.args.args), source, description)


def load(name: str, source: str) -> Callable[..., Any]:
    """The function of a frozen source, checked again, with nothing in reach but `FUNCTIONS` and `CONSTANTS`.

    Raises BadRequestFunction when the source is not one function of the closed subset.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BadRequestFunction(f"the source of request-time function '{name}' is not Python.") from None
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef) or tree.body[0].name != name:
        raise BadRequestFunction(f"the source of '{name}' is not one function of that name.")
    _check(tree.body[0])
    for node in ast.walk(tree):
        # whole numbers of any size take any time in Python; float64 is what the function runs on anyway
        if isinstance(node, ast.Constant) and type(node.value) is int:
            node.value = _float(name, node)
    code: CodeType = compile(tree, f"<request-time function {name}>", "exec")
    namespace: dict[str, Any] = {"__builtins__": {}, **FUNCTIONS, **CONSTANTS}
    exec(code, namespace)
    function: Callable[..., Any] = namespace[name]
    try:
        evaluate(function, [np.ones(1)] * len(tree.body[0].args.args))
    except Exception as error:  # whatever the arithmetic raises
        raise BadRequestFunction(f"request-time function '{name}' cannot be computed: {error}.") from None
    return function


def evaluate(function: Callable[..., Any], arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The function's values, float64 [n], for argument arrays of one length n (n = 1 without arguments)."""
    rows = len(arrays[0]) if arrays else 1
    with np.errstate(all="ignore"):
        result = np.asarray(function(*arrays), dtype=np.float64)
    return np.ascontiguousarray(np.broadcast_to(result, (rows,)))


def check_row_wise(name: str, source: str, columns: Mapping[str, NDArray[np.float64]], *, sample: int = 200) -> None:
    """Raise NotRowWise when the function's value for a row alone differs from its value among all rows.

    columns: argument name -> float64 [n]. At most `sample` rows, evenly spread, are tried alone; bits must match.
    """
    function = load(name, source)
    arrays = list(columns.values())
    if not arrays:
        return
    together = evaluate(function, arrays)
    for row in np.unique(np.linspace(0, len(together) - 1, min(sample, len(together))).astype(int)):
        alone = evaluate(function, [array[row : row + 1] for array in arrays])
        if alone.tobytes() != together[row : row + 1].tobytes():
            raise NotRowWise(
                f"request-time function '{name}' gives {float(alone[0])!r} for row {row} alone and "
                f"{float(together[row])!r} among {len(together)} rows.",
                expected="Its value may depend on nothing but the row's own arguments.",
            )


def _bare(definition: ast.FunctionDef) -> ast.FunctionDef:
    """The function without decorators, annotations and docstring; checked."""
    _check(definition, allow_dress=True)
    body = definition.body
    if ast.get_docstring(definition) is not None:
        body = body[1:]
    args = [ast.arg(arg.arg) for arg in definition.args.args]
    bare = ast.FunctionDef(
        name=definition.name,
        args=ast.arguments(posonlyargs=[], args=args, kwonlyargs=[], kw_defaults=[], defaults=[]),
        body=body,
        decorator_list=[],
    )
    return ast.fix_missing_locations(bare)


def _check(definition: ast.FunctionDef, *, allow_dress: bool = False) -> None:
    """Refuse whatever is outside the closed subset. allow_dress: decorators, annotations, a docstring may stand."""
    name = definition.name
    arguments = definition.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs or arguments.defaults:
        _refuse(name, definition, "its parameters must be plain names without defaults")
    if not allow_dress and definition.decorator_list:
        _refuse(name, definition, "a frozen source has no decorators")
    known = {arg.arg for arg in arguments.args}
    clash = known & (FUNCTIONS.keys() | CONSTANTS.keys())
    if clash:
        _refuse(name, definition, f"the parameter '{min(clash)}' hides a function of that name")
    body = definition.body
    if allow_dress and ast.get_docstring(definition) is not None:
        body = body[1:]
    if not body or not isinstance(body[-1], ast.Return):
        _refuse(name, definition, "its last line must return the value")
    for position, statement in enumerate(body):
        if isinstance(statement, ast.Return) and statement.value is not None and position == len(body) - 1:
            _check_expression(name, statement.value, known)
        elif (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            _check_expression(name, statement.value, known)
            known.add(statement.targets[0].id)
        else:
            hint = _HINTS.get(type(statement), "only 'name = expression' and a final return may stand in it")
            _refuse(name, statement, hint)


def _check_expression(name: str, node: ast.expr, known: set[str]) -> None:
    match node:
        case ast.Constant(value=bool() | int() | float()):
            pass
        case ast.Name(id=used):
            if used not in known and used not in CONSTANTS:
                near = did_you_mean(used, known)
                _refuse(name, node, f"'{used}' is not among its parameters ({listed(sorted(known))}). {near}".strip())
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _BINARY):
            _check_expression(name, left, known)
            _check_expression(name, right, known)
        case ast.UnaryOp(op=op, operand=operand) if isinstance(op, _UNARY):
            _check_expression(name, operand, known)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if isinstance(op, _COMPARE):
            _check_expression(name, left, known)
            _check_expression(name, right, known)
        case ast.Compare():
            _refuse(name, node, "write (a < b) & (b < c) instead of a < b < c")
        case ast.Call(func=ast.Name(id=called), args=arguments, keywords=[]) if called in FUNCTIONS:
            for argument in arguments:
                _check_expression(name, argument, known)
        case ast.Call(func=ast.Name(id=called)):
            _refuse(name, node, f"'{called}' cannot be called; {listed(sorted(FUNCTIONS), most=40)} can")
        case ast.Call():
            _refuse(name, node, "only the listed functions can be called, by their bare names: sin(x), not np.sin(x)")
        case ast.UnaryOp(op=ast.Not()):
            _refuse(name, node, _HINTS[ast.Not])
        case _:
            _refuse(name, node, _HINTS.get(type(node), f"{type(node).__name__} is outside the subset"))


def _float(name: str, node: ast.Constant) -> float:
    try:
        return float(node.value)  # type: ignore[arg-type]
    except OverflowError:
        _refuse(name, node, "it has a number beyond float64")
        raise


def _refuse(name: str, node: ast.AST, why: str) -> None:
    raise BadRequestFunction(
        f"request-time function '{name}', line {getattr(node, 'lineno', 1)}: {why}.",
        expected="Request-time functions use arithmetic, comparisons, where() and a listed set of functions only.",
    )
