"""Functions of a record as a loop without a call.

``lambda row: row.price * rate + row.qty`` reads columns and computes one value. What it computes is read from its code
(:mod:`millstream._bytecode`) and written into a loop as it stands::

    for price, qty in records:
        results.append(price * rate + qty)

A function with branches and variables becomes as many statements; one of values, used in an expression, is treated alike,
its arguments being the columns. The loop does the same in the same order without a call and a row a record: names from
outside are looked up where the function looks them up, and every part keeps its place in the user's file, so that a
traceback shows the user's line. A function with loops, or with something else that is not followed, is called.

What a loop cannot keep is the frame of a call of its own: a function that looks at its frame by one of :data:`OBSERVERS` is
called; one that is *called by* it and looks at its caller sees the loop, under the function's name and at its line.
``MILLSTREAM_INLINE=0`` turns all of it off.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from types import CodeType, FunctionType
from typing import Any

from millstream._bytecode import NotFollowed, Reader, column_name, is_followed, results_name

__all__ = ["OBSERVERS", "inlined", "inlined_values"]

Loop = Callable[[Iterable[Any], list[Any]], None]

OBSERVERS = frozenset(
    {"locals", "vars", "dir", "eval", "exec", "globals", "super", "_getframe", "currentframe", "stack", "breakpoint", "set_trace"}
)
"""Names by which a function may look at its own frame, which a loop does not have."""

_RECORDS = "the records"


def inlined_values(function: Any) -> tuple[Loop, int] | None:
    """Return the loop of a function of values, and how many it takes; None if it does what is not followed."""
    if not isinstance(function, FunctionType) or not is_followed():
        return None
    code = function.__code__
    is_odd = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE)
    if is_odd or code.co_kwonlyargcount or code.co_cellvars or OBSERVERS.intersection(code.co_names):
        return None
    names = code.co_varnames[: code.co_argcount]
    loop = _inlined(function, names, is_row=False)
    return None if loop is None else (loop, len(names))


def inlined(function: Any, fields: Sequence[str]) -> Loop | None:
    """Return the loop of a function of a row with these columns; None if it does what is not followed.

    Parameters
    ----------
    function
        The function; it is known to read its one argument by ``row.name`` or ``row["name"]`` only.
    fields
        The columns that it reads. The loop takes one value a record if there is one, else tuples.
    """
    return _inlined(function, fields, is_row=True) if isinstance(function, FunctionType) else None


def _inlined(function: FunctionType, fields: Sequence[str], *, is_row: bool) -> Loop | None:
    if not fields or not is_followed():
        return None
    try:
        statements = Reader(function.__code__, fields, is_row).statements()
    except NotFollowed:
        return None
    code = _compile(function.__code__, statements, len(fields))
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in code.co_freevars)
    return FunctionType(code, function.__globals__, code.co_name, None, closure)


def _compile(code: CodeType, statements: list[ast.stmt], columns: int) -> CodeType:
    """Return the code of the loop around these statements, as if they stood in the user's file."""
    [outer] = ast.parse("def outer():\n  def loop(a, b):\n    for c in a: b.append(d)").body
    assert isinstance(outer, ast.FunctionDef)
    [loop] = outer.body
    assert isinstance(loop, ast.FunctionDef)
    [each] = loop.body
    assert isinstance(each, ast.For)
    for node in ast.walk(outer):
        if isinstance(node, (ast.expr, ast.stmt, ast.arg)):
            node.lineno = node.end_lineno = code.co_firstlineno
            node.col_offset = node.end_col_offset = 0
    at: dict[str, Any] = {"lineno": code.co_firstlineno, "col_offset": 0}
    loop.name = code.co_name
    loop.args.args[0].arg, loop.args.args[1].arg = _RECORDS, results_name()
    targets: list[ast.expr] = [ast.Name(column_name(place), ast.Store(), **at) for place in range(columns)]
    each.target = targets[0] if columns == 1 else ast.Tuple(targets, ast.Store(), **at)
    each.iter = ast.Name(_RECORDS, ast.Load(), **at)
    each.body = statements
    # What the loop finds in enclosing functions has to be a variable of one.
    free: list[ast.stmt] = [ast.Assign([ast.Name(name, ast.Store(), **at)], ast.Constant(None, **at), **at) for name in code.co_freevars]
    outer.body = [*free, loop]
    with warnings.catch_warnings():
        # What there is to warn of was said when the function itself was compiled.
        warnings.simplefilter("ignore", SyntaxWarning)
        module = compile(ast.Module([outer], []), code.co_filename, "exec", dont_inherit=True)
    [outer_code] = [part for part in module.co_consts if isinstance(part, CodeType)]
    [loop_code] = [part for part in outer_code.co_consts if isinstance(part, CodeType)]
    return loop_code
