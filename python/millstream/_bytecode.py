"""What a function computes, read from its code as statements over its columns.

The code is followed instruction by instruction with expressions in place of values. Where it branches, both ways are
followed to their ends, so that the branch becomes an ``if`` and each way has one result::

    POP_JUMP_IF_FALSE 20     if <expression>:   <statements up to a RETURN>
                             else:              <statements from 20 on>

Before a statement runs, what waits on the stack is put into variables: it was computed before, and must not see what the
statement changes. Loops, ``try``, ``with``, functions inside and whatever is not followed below are left alone.

The meaning of an instruction belongs to a version of CPython. Code is followed only on the versions in
:data:`VERSIONS_FOLLOWED`, on each of which ``tests/python/test_inline.py`` has compared thousands of functions with their
calls. On any other interpreter, and with ``MILLSTREAM_INLINE=0`` in the environment, every function is called as it is.
"""

from __future__ import annotations

import ast
import dis
import os
import sys
from collections.abc import Sequence
from types import CodeType
from typing import Any

__all__ = ["VERSIONS_FOLLOWED", "NotFollowed", "Reader", "column_name", "instructions", "is_followed", "loads_method", "results_name"]

VERSIONS_FOLLOWED = frozenset({(3, 11), (3, 12), (3, 13)})
"""The versions of CPython whose instructions are known here."""

_SILENT = frozenset({"RESUME", "NOP", "CACHE", "PRECALL", "COPY_FREE_VARS", "EXTENDED_ARG"})
_LOADS = frozenset({"LOAD_FAST", "LOAD_FAST_CHECK"})
_PAIRS = {
    "LOAD_FAST_LOAD_FAST": ("LOAD_FAST", "LOAD_FAST"),
    "STORE_FAST_LOAD_FAST": ("STORE_FAST", "LOAD_FAST"),
    "STORE_FAST_STORE_FAST": ("STORE_FAST", "STORE_FAST"),
}
"""Instructions that stand for two (from 3.13 on)."""
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
_FOLLOWED_MAX = 500
"""How many instructions are followed at most over all ways: ways that meet again are followed twice."""


def is_followed() -> bool:
    """Report whether code may be followed on this interpreter."""
    is_known = sys.implementation.name == "cpython" and sys.version_info[:2] in VERSIONS_FOLLOWED
    return is_known and os.environ.get("MILLSTREAM_INLINE", "1") != "0"


def instructions(code: CodeType) -> list[dis.Instruction]:
    """Return what a function does, instruction by instruction, without those that do nothing to its values."""
    found: list[dis.Instruction] = []
    for item in dis.get_instructions(code):
        if item.opname in _PAIRS:
            found += [item._replace(opname=name, argval=of) for name, of in zip(_PAIRS[item.opname], item.argval, strict=True)]
        elif item.opname not in _SILENT:
            found.append(item)
    return found


def loads_method(item: dis.Instruction) -> bool:
    """Report whether an instruction that loads an attribute or a global leaves a place for a call beside it."""
    if item.opname == "LOAD_METHOD":
        return True
    has_flag = item.opname == "LOAD_GLOBAL" or (item.opname == "LOAD_ATTR" and sys.version_info >= (3, 12))
    return has_flag and bool((item.arg or 0) & 1)


class NotFollowed(Exception):
    """The function does something that is not followed."""


class _Mark:
    """Stands on the stack for what is no value: the row itself, and the gap below a call."""


_ROW, _GAP = _Mark(), _Mark()
_Stack = list[ast.expr | _Mark]


def column_name(place: int) -> str:
    """Return the variable of a column; no name of a user's can be it, as it holds a blank."""
    return f"column {place}"


def results_name() -> str:
    """Return the variable of the list that results go to."""
    return "the results"


class Reader:
    """Follows the code of a function of a row, or of values, with these columns."""

    def __init__(self, code: CodeType, fields: Sequence[str], is_row: bool) -> None:
        self._fields = fields
        self._row = code.co_varnames[0] if is_row else None
        self._instructions = instructions(code)
        self._offsets = [item.offset for item in self._instructions]
        self._end = len(code.co_code)
        self._constants = code.co_consts
        self._has_handlers = bool(code.co_exceptiontable)
        self._followed = 0
        self._variables = 0

    def statements(self) -> list[ast.stmt]:
        """Return the statements that append one result for a record."""
        if self._has_handlers:
            raise NotFollowed
        try:
            return self._way(0, [], frozenset())
        except (IndexError, RecursionError):
            raise NotFollowed from None

    def _place_of(self, offset: int) -> int:
        """Return the place in the list of the first instruction at or after an offset."""
        return next(place for place, found in enumerate([*self._offsets, self._end]) if found >= offset)

    def _way(self, place: int, stack: _Stack, known: frozenset[str]) -> list[ast.stmt]:
        """Follow the code from a place to the ends of all ways; `known` are the variables that are set by then."""
        done: list[ast.stmt] = []
        keywords: tuple[str, ...] = ()
        while True:
            self._followed += 1
            if self._followed > _FOLLOWED_MAX:
                raise NotFollowed
            item = self._instructions[place]
            name = item.opname
            at = _place(item)
            place += 1
            if name in ("RETURN_VALUE", "RETURN_CONST"):
                result = ast.Constant(_plain(item.argval), **at) if name == "RETURN_CONST" else _value(stack)
                if stack:
                    raise NotFollowed
                append = ast.Attribute(ast.Name(results_name(), ast.Load(), **at), "append", ast.Load(), **at)
                return [*done, ast.Expr(ast.Call(append, [result], [], **at), **at)]
            if name == "STORE_FAST":
                value = _value(stack)
                self._spill(stack, done)
                done.append(ast.Assign([ast.Name(_local(item.argval), ast.Store(), **at)], value, **at))
                known |= {item.argval}
            elif name == "POP_TOP":
                value = _value(stack)
                self._spill(stack, done)
                if not _is_settled(value):
                    done.append(ast.Expr(value, **at))
            elif name == "COPY":
                self._spill(stack, done)
                stack.append(_again(stack[-(item.arg or 1)]))
            elif name == "SWAP":
                self._spill(stack, done)
                stack[-1], stack[-(item.arg or 1)] = stack[-(item.arg or 1)], stack[-1]
            elif name == "JUMP_FORWARD":
                place = self._place_of(item.argval)
            elif "JUMP" in name:
                return [*done, *self._branch(item, place, stack, known)]
            elif name == "KW_NAMES":
                keywords = self._constants[item.arg or 0]
            elif name == "CALL":
                stack.append(_call(item, stack, keywords))
                keywords = ()
            elif name == "CALL_KW":
                names = stack.pop()
                if not isinstance(names, ast.Constant) or not isinstance(names.value, tuple):
                    raise NotFollowed
                stack.append(_call(item, stack, names.value))
            elif name == "BINARY_OP" and item.argrepr.endswith("=") and item.argrepr[:-1] in _OPERATORS:
                # In place: what it changes is its left side, if that can be changed.
                value = _value(stack)
                self._spill(stack, done)
                target = stack[-1]
                if not isinstance(target, ast.Name):
                    raise NotFollowed
                changed = self._set(target, done, at)
                done.append(ast.AugAssign(ast.Name(changed.id, ast.Store(), **at), _OPERATORS[item.argrepr[:-1]](), value, **at))
                stack[-1] = changed
            else:
                stack.append(self._follow(item, stack, known))

    def _branch(self, item: dis.Instruction, place: int, stack: _Stack, known: frozenset[str]) -> list[ast.stmt]:
        """Return the ``if`` that a jump is, with what follows on both ways."""
        name, at = item.opname.replace("_FORWARD", ""), _place(item)
        target = self._place_of(item.argval)
        if target < place or "BACKWARD" in name:
            raise NotFollowed
        done: list[ast.stmt] = []
        condition = _value(stack)
        self._spill(stack, done)
        jumping, staying = list(stack), list(stack)
        is_jump_if_true = "TRUE" in name or name == "POP_JUMP_IF_NONE"
        if name in ("JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP"):
            condition = self._set(condition, done, at)
            jumping.append(_again(condition))
        elif name in ("POP_JUMP_IF_NONE", "POP_JUMP_IF_NOT_NONE"):
            condition = ast.Compare(condition, [ast.Is()], [ast.Constant(None, **at)], **at)
        elif name not in ("POP_JUMP_IF_FALSE", "POP_JUMP_IF_TRUE"):
            raise NotFollowed
        jump, stay = self._way(target, jumping, known), self._way(place, staying, known)
        return [*done, ast.If(condition, jump, stay, **at) if is_jump_if_true else ast.If(condition, stay, jump, **at)]

    def _spill(self, stack: _Stack, done: list[ast.stmt]) -> None:
        """Have what waits on the stack computed now."""
        for depth, value in enumerate(stack):
            if isinstance(value, (ast.Slice, ast.FormattedValue)):
                raise NotFollowed
            if isinstance(value, ast.expr) and not _is_settled(value):
                at = {"lineno": value.lineno, "col_offset": value.col_offset}
                stack[depth] = self._set(value, done, at)

    def _set(self, value: ast.expr, done: list[ast.stmt], at: dict[str, Any]) -> ast.Name:
        """Put a value into a variable of its own."""
        self._variables += 1
        name = f"part {self._variables}"
        done.append(ast.Assign([ast.Name(name, ast.Store(), **at)], value, **at))
        return ast.Name(name, ast.Load(), **at)

    def _follow(self, item: dis.Instruction, stack: _Stack, known: frozenset[str]) -> ast.expr | _Mark:
        """Return what an instruction leaves on the stack, with what it takes taken."""
        name, at = item.opname, _place(item)
        if name in _LOADS:
            if item.argval in known:
                return ast.Name(_local(item.argval), ast.Load(), **at)
            return _ROW if item.argval == self._row else self._column(None if self._row else item.argval, item)
        if name == "PUSH_NULL":
            return _GAP
        if name == "LOAD_CONST":
            return ast.Constant(_plain(item.argval), **at)
        if name in ("LOAD_GLOBAL", "LOAD_DEREF"):
            if loads_method(item):
                stack.append(_GAP)
            return ast.Name(item.argval, ast.Load(), **at)
        if name in ("LOAD_ATTR", "LOAD_METHOD"):
            return self._attribute(item, stack)
        if name == "BINARY_SUBSCR":
            return self._item(item, stack)
        if name == "BINARY_SLICE":
            whole, start, stop = _values(stack, 3)
            return ast.Subscript(whole, ast.Slice(start, stop, **at), ast.Load(), **at)
        if name == "TO_BOOL":
            return _truth(_value(stack), at)
        if name in ("BINARY_OP", "COMPARE_OP", "IS_OP", "CONTAINS_OP"):
            return _operation(item, stack)
        if name in _UNARY:
            return ast.UnaryOp(_UNARY[name](), _value(stack), **at)
        return _display(item, stack)

    def _column(self, name: Any, item: dis.Instruction) -> ast.expr:
        if name not in self._fields:
            raise NotFollowed
        return ast.Name(column_name(self._fields.index(name)), ast.Load(), **_place(item))

    def _attribute(self, item: dis.Instruction, stack: _Stack) -> ast.expr:
        is_method = loads_method(item)
        if stack[-1] is _ROW:
            stack.pop()
            if is_method:
                raise NotFollowed
            return self._column(item.argval, item)
        value = _value(stack)
        if is_method:
            stack.append(_GAP)
        return ast.Attribute(value, item.argval, ast.Load(), **_place(item))

    def _item(self, item: dis.Instruction, stack: _Stack) -> ast.expr:
        key = stack.pop()
        if isinstance(key, (_Mark, ast.FormattedValue)):
            raise NotFollowed
        if stack[-1] is _ROW:
            stack.pop()
            return self._column(getattr(key, "value", None), item)
        return ast.Subscript(_value(stack), key, ast.Load(), **_place(item))


def _is_settled(value: ast.expr) -> bool:
    """Return whether a value is the same whenever it is asked for, and asking does nothing."""
    return isinstance(value, ast.Constant) or (isinstance(value, ast.Name) and value.id.startswith(("column ", "part ")))


def _value(stack: _Stack) -> ast.expr:
    """Take the topmost value."""
    top = stack.pop()
    if isinstance(top, (_Mark, ast.Slice, ast.FormattedValue)):
        raise NotFollowed
    return top


def _values(stack: _Stack, count: int) -> list[ast.expr]:
    return [_value(stack) for _ in range(count)][::-1]


def _again(value: ast.expr | _Mark) -> ast.expr:
    """Return a value that has been put into a variable, or is a constant, once more."""
    if isinstance(value, ast.Name):
        return ast.Name(value.id, ast.Load(), lineno=value.lineno, col_offset=value.col_offset)
    if isinstance(value, ast.Constant):
        return ast.Constant(value.value, lineno=value.lineno, col_offset=value.col_offset)
    raise NotFollowed


def _call(item: dis.Instruction, stack: _Stack, keywords: tuple[str, ...]) -> ast.expr:
    arguments = _values(stack, item.arg or 0)
    below = [stack.pop(), stack.pop()]
    # Which of the two is on top depends on the version of Python.
    function = [value for value in below if not isinstance(value, _Mark)]
    if _GAP not in below or len(function) != 1:
        raise NotFollowed
    plain = len(arguments) - len(keywords)
    named = [ast.keyword(name, value, **_place(item)) for name, value in zip(keywords, arguments[plain:], strict=True)]
    return ast.Call(function[0], arguments[:plain], named, **_place(item))


def _operation(item: dis.Instruction, stack: _Stack) -> ast.expr:
    left, right = _values(stack, 2)
    if item.opname == "BINARY_OP" and item.argrepr in _OPERATORS:
        return ast.BinOp(left, _OPERATORS[item.argrepr](), right, **_place(item))
    if item.opname == "COMPARE_OP" and item.argval in _COMPARISONS:
        operator: ast.cmpop = _COMPARISONS[item.argval]()
    elif item.opname == "IS_OP":
        operator = ast.IsNot() if item.arg else ast.Is()
    elif item.opname == "CONTAINS_OP":
        operator = ast.NotIn() if item.arg else ast.In()
    else:
        raise NotFollowed
    compared = ast.Compare(left, [operator], [right], **_place(item))
    # From 3.13 on a comparison may ask for the truth of its result itself.
    wants_truth = item.opname == "COMPARE_OP" and sys.version_info >= (3, 13) and (item.arg or 0) & 16
    return _truth(compared, _place(item)) if wants_truth else compared


def _truth(value: ast.expr, at: dict[str, Any]) -> ast.expr:
    """Return whether a value counts as true; as a condition it costs nothing."""
    return ast.UnaryOp(ast.Not(), ast.UnaryOp(ast.Not(), value, **at), **at)


def _display(item: dis.Instruction, stack: _Stack) -> ast.expr:
    """Follow what makes a tuple, a list, a dict, a slice or a text out of parts."""
    name, count, at = item.opname, item.arg or 0, _place(item)
    if name == "BUILD_TUPLE":
        return ast.Tuple(_values(stack, count), ast.Load(), **at)
    if name == "BUILD_LIST":
        return ast.List(_values(stack, count), ast.Load(), **at)
    if name == "BUILD_MAP":
        pairs = _values(stack, 2 * count)
        return ast.Dict(list(pairs[::2]), pairs[1::2], **at)
    if name == "BUILD_CONST_KEY_MAP":
        keys = _value(stack)
        if isinstance(keys, ast.Constant) and isinstance(keys.value, tuple):
            return ast.Dict([ast.Constant(key, **at) for key in keys.value], _values(stack, count), **at)
    if name == "BUILD_SLICE":
        return ast.Slice(*_values(stack, count), **at)
    if name == "FORMAT_VALUE":
        spec = _value(stack) if count & 4 else None
        return _formatted(_value(stack), _CONVERSIONS[count & 3], spec, at)
    if name == "CONVERT_VALUE":
        return ast.FormattedValue(_value(stack), _CONVERSIONS[count], None, **at)
    if name in ("FORMAT_SIMPLE", "FORMAT_WITH_SPEC"):
        spec = _value(stack) if name == "FORMAT_WITH_SPEC" else None
        if stack and isinstance(stack[-1], ast.FormattedValue):
            converted = stack.pop()
            assert isinstance(converted, ast.FormattedValue)
            return _formatted(converted.value, converted.conversion, spec, at)
        return _formatted(_value(stack), -1, spec, at)
    if name == "BUILD_STRING":
        parts = _values(stack, count)
        if all(isinstance(part, (ast.JoinedStr, ast.Constant)) for part in parts):
            return ast.JoinedStr([value for part in parts for value in getattr(part, "values", [part])], **at)
    raise NotFollowed


_CONVERSIONS = {0: -1, 1: ord("s"), 2: ord("r"), 3: ord("a")}


def _formatted(value: ast.expr, conversion: int, spec: ast.expr | None, at: dict[str, Any]) -> ast.expr:
    """Return a text of one formatted value; a format that is computed is not followed."""
    if spec is not None and not isinstance(spec, ast.Constant):
        raise NotFollowed
    format_spec = None if spec is None else ast.JoinedStr([spec], **at)
    return ast.JoinedStr([ast.FormattedValue(value, conversion, format_spec, **at)], **at)


def _local(name: str) -> str:
    return f"local {name}"


def _plain(value: Any) -> Any:
    """Return a constant that can be written as one again."""
    if not (type(value) in _PLAIN or (type(value) is tuple and all(_plain(part) is part for part in value))):
        raise NotFollowed
    return value


def _place(item: dis.Instruction) -> dict[str, Any]:
    """Return the position of an instruction in the user's file."""
    at = item.positions
    line = (at.lineno if at else None) or 1
    end_line = (at.end_lineno if at else None) or line
    column, end_column = (at.col_offset if at else None) or 0, (at.end_col_offset if at else None) or 0
    return {"lineno": line, "end_lineno": end_line, "col_offset": column, "end_col_offset": end_column}
