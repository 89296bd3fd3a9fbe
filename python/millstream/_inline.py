"""Functions of a record that are one expression, as a loop without a call.

``lambda row: row.price * rate + row.qty`` reads columns and computes one value. What it computes is read from its code
and written into a loop as it stands::

    for price, qty in records:
        results.append(price * rate + qty)

A function of values, used in an expression, is treated alike; its arguments are the columns. The loop does the same in
the same order without a call and a row a record: names from outside are looked up where the function looks them up, and
every part keeps its place in the user's file, so that a traceback shows the user's line. Branches, local variables, and
whatever is not followed below leave the function to be called.
"""

from __future__ import annotations

import ast
import dis
import inspect
from collections.abc import Callable, Iterable, Sequence
from types import CodeType, FunctionType
from typing import Any

__all__ = ["OBSERVERS", "inlined", "inlined_values"]

Loop = Callable[[Iterable[Any], list[Any]], None]

_SILENT = frozenset({"RESUME", "NOP", "CACHE", "PRECALL", "COPY_FREE_VARS", "NOT_TAKEN"})
_LOADS = frozenset({"LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK"})
_CONSTANTS = frozenset({"LOAD_CONST", "LOAD_SMALL_INT", "LOAD_CONST_IMMORTAL", "LOAD_CONST_MORTAL"})
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_OPERATORS: dict[str, type[ast.operator]] = {
    "+": ast.Add,
    "-": ast.Sub,
    "*": ast.Mult,
    "/": ast.Div,
    "//": ast.FloorDiv,
    "%": ast.Mod,
    "**": ast.Pow,
    "<<": ast.LShift,
    ">>": ast.RShift,
    "&": ast.BitAnd,
    "|": ast.BitOr,
    "^": ast.BitXor,
}
_COMPARISONS: dict[str, type[ast.cmpop]] = {
    "<": ast.Lt,
    "<=": ast.LtE,
    "==": ast.Eq,
    "!=": ast.NotEq,
    ">": ast.Gt,
    ">=": ast.GtE,
}
_UNARY: dict[str, type[ast.unaryop]] = {"UNARY_NEGATIVE": ast.USub, "UNARY_NOT": ast.Not, "UNARY_INVERT": ast.Invert}

OBSERVERS = frozenset(
    {"locals", "vars", "dir", "eval", "exec", "globals", "_getframe", "currentframe", "stack", "breakpoint", "set_trace"}
)
"""Names by which a function may look at its own frame, which a loop does not have."""

# No name of a user's can be these, as they hold a blank.
_RECORDS, _RESULTS, _COLUMN = "the records", "the results", "column "


class _NotOne(Exception):
    """The function is more than one expression."""


class _Mark:
    """Stands on the stack for what is no value: the row itself, and the gap below a call."""


_ROW, _GAP = _Mark(), _Mark()


def inlined_values(function: Any) -> tuple[Loop, int] | None:
    """Give the loop of a function of values, and how many it takes; None if it is more than one expression of them."""
    if not isinstance(function, FunctionType):
        return None
    code = function.__code__
    is_odd = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE)
    if is_odd or code.co_kwonlyargcount or code.co_cellvars or OBSERVERS.intersection(code.co_names):
        return None
    names = code.co_varnames[: code.co_argcount]
    loop = _inlined(function, names, is_row=False)
    return None if loop is None else (loop, len(names))


def inlined(function: Any, fields: Sequence[str]) -> Loop | None:
    """Give the loop of a function of a row with these columns; None if it is more than one expression of them.

    Parameters
    ----------
    function
        The function; it is known to read its one argument by ``row.name`` or ``row["name"]`` only.
    fields
        The columns that it reads. The loop takes one value a record if there is one, else tuples.
    """
    return _inlined(function, fields, is_row=True) if isinstance(function, FunctionType) else None


def _inlined(function: FunctionType, fields: Sequence[str], *, is_row: bool) -> Loop | None:
    if not fields:
        return None
    try:
        expression = _Reader(function.__code__, fields, is_row).expression()
    except (_NotOne, IndexError):
        return None
    code = _compile(function.__code__, expression, len(fields))
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in code.co_freevars)
    return FunctionType(code, function.__globals__, code.co_name, None, closure)


def _compile(code: CodeType, expression: ast.expr, columns: int) -> CodeType:
    """Give the code of the loop around an expression, as if it stood in the user's file."""
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
    loop.args.args[0].arg, loop.args.args[1].arg = _RECORDS, _RESULTS
    targets: list[ast.expr] = [ast.Name(f"{_COLUMN}{place}", ast.Store(), **at) for place in range(columns)]
    each.target = targets[0] if columns == 1 else ast.Tuple(targets, ast.Store(), **at)
    each.iter = ast.Name(_RECORDS, ast.Load(), **at)
    append = ast.Attribute(ast.Name(_RESULTS, ast.Load(), **at), "append", ast.Load(), **at)
    each.body = [ast.Expr(ast.Call(append, [expression], [], **at), **at)]
    # What the loop finds in enclosing functions has to be a variable of one.
    free: list[ast.stmt] = [ast.Assign([ast.Name(name, ast.Store(), **at)], ast.Constant(None, **at), **at) for name in code.co_freevars]
    outer.body = [*free, loop]
    module = compile(ast.Module([outer], []), code.co_filename, "exec", dont_inherit=True)
    [outer_code] = [part for part in module.co_consts if isinstance(part, CodeType)]
    [loop_code] = [part for part in outer_code.co_consts if isinstance(part, CodeType)]
    return loop_code


class _Reader:
    """Follows the code of a function with expressions for values."""

    def __init__(self, code: CodeType, fields: Sequence[str], is_row: bool) -> None:
        self._code = code
        self._fields = fields
        self._row = code.co_varnames[0] if is_row else None
        self._stack: list[ast.expr | _Mark] = []

    def expression(self) -> ast.expr:
        """Give what the function returns as an expression of columns."""
        instructions = [item for item in dis.get_instructions(self._code) if item.opname not in _SILENT]
        if self._code.co_exceptiontable or not instructions or instructions.pop().opname != "RETURN_VALUE":
            raise _NotOne
        for item in instructions:
            self._stack.append(self._follow(item))
        result = self._value()
        if self._stack:
            raise _NotOne
        return result

    def _value(self) -> ast.expr:
        """Take the topmost value."""
        top = self._stack.pop()
        if isinstance(top, _Mark):
            raise _NotOne
        return top

    def _values(self, count: int) -> list[ast.expr]:
        return [self._value() for _ in range(count)][::-1]

    def _follow(self, item: dis.Instruction) -> ast.expr | _Mark:
        """Give what an instruction leaves on the stack, with what it takes taken."""
        name = item.opname
        if name in _LOADS:
            return _ROW if item.argval == self._row else self._column(None if self._row else item.argval, item)
        if name == "PUSH_NULL":
            return _GAP
        if name in _CONSTANTS and _is_plain(item.argval):
            return ast.Constant(item.argval, **_place(item))
        if name in ("LOAD_GLOBAL", "LOAD_DEREF"):
            if "NULL" in item.argrepr:
                self._stack.append(_GAP)
            return ast.Name(item.argval, ast.Load(), **_place(item))
        if name in ("LOAD_ATTR", "LOAD_METHOD"):
            return self._attribute(item)
        if name == "BINARY_SUBSCR" or (name == "BINARY_OP" and item.argrepr == "[]"):
            return self._item(item)
        if name in ("BINARY_OP", "COMPARE_OP", "IS_OP", "CONTAINS_OP"):
            return self._operation(item)
        if name in _UNARY:
            return ast.UnaryOp(_UNARY[name](), self._value(), **_place(item))
        if name == "CALL":
            arguments = self._values(item.arg or 0)
            below = [self._stack.pop(), self._stack.pop()]
            # Which of the two is on top depends on the version of Python.
            function = [value for value in below if not isinstance(value, _Mark)]
            if _GAP not in below or len(function) != 1:
                raise _NotOne
            return ast.Call(function[0], arguments, [], **_place(item))
        return self._display(item)

    def _column(self, name: Any, item: dis.Instruction) -> ast.expr:
        if name not in self._fields:
            raise _NotOne
        return ast.Name(f"{_COLUMN}{self._fields.index(name)}", ast.Load(), **_place(item))

    def _attribute(self, item: dis.Instruction) -> ast.expr:
        is_method = item.opname == "LOAD_METHOD" or "NULL" in (item.argrepr or "")
        if self._stack[-1] is _ROW:
            self._stack.pop()
            if is_method:
                raise _NotOne
            return self._column(item.argval, item)
        value = self._value()
        if is_method:
            self._stack.append(_GAP)
        return ast.Attribute(value, item.argval, ast.Load(), **_place(item))

    def _item(self, item: dis.Instruction) -> ast.expr:
        key = self._value()
        if self._stack[-1] is _ROW:
            self._stack.pop()
            return self._column(getattr(key, "value", None), item)
        return ast.Subscript(self._value(), key, ast.Load(), **_place(item))

    def _operation(self, item: dis.Instruction) -> ast.expr:
        left, right = self._values(2)
        if item.opname == "BINARY_OP" and item.argrepr in _OPERATORS:
            return ast.BinOp(left, _OPERATORS[item.argrepr](), right, **_place(item))
        if item.opname == "COMPARE_OP" and item.argval in _COMPARISONS:
            operator: ast.cmpop = _COMPARISONS[item.argval]()
        elif item.opname == "IS_OP":
            operator = ast.IsNot() if item.arg else ast.Is()
        elif item.opname == "CONTAINS_OP":
            operator = ast.NotIn() if item.arg else ast.In()
        else:
            raise _NotOne
        return ast.Compare(left, [operator], [right], **_place(item))

    def _display(self, item: dis.Instruction) -> ast.expr:
        """Follow what makes a tuple, a list or a dict."""
        name, count = item.opname, item.arg or 0
        if name == "BUILD_TUPLE":
            return ast.Tuple(self._values(count), ast.Load(), **_place(item))
        if name == "BUILD_LIST":
            return ast.List(self._values(count), ast.Load(), **_place(item))
        if name == "BUILD_MAP":
            pairs = self._values(2 * count)
            return ast.Dict(list(pairs[::2]), pairs[1::2], **_place(item))
        if name == "BUILD_CONST_KEY_MAP":
            keys = self._value()
            if isinstance(keys, ast.Constant) and isinstance(keys.value, tuple):
                return ast.Dict([ast.Constant(key, **_place(item)) for key in keys.value], self._values(count), **_place(item))
        raise _NotOne


def _is_plain(value: Any) -> bool:
    """Tell whether a constant can be written as one again."""
    return type(value) in _PLAIN or (type(value) is tuple and all(map(_is_plain, value)))


def _place(item: dis.Instruction) -> dict[str, Any]:
    """Give where an instruction stands in the user's file."""
    at = item.positions
    line = (at.lineno if at else None) or 1
    end_line = (at.end_lineno if at else None) or line
    column, end_column = (at.col_offset if at else None) or 0, (at.end_col_offset if at else None) or 0
    return {"lineno": line, "end_lineno": end_line, "col_offset": column, "end_col_offset": end_column}
