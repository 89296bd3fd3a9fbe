"""What a function of a record looks at, and the loop that shows it that."""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Sequence
from typing import Any

from millstream._bytecode import instructions, is_followed, loads_method
from millstream._inline import OBSERVERS, inlined
from millstream._row import row_class, rows

__all__ = ["View", "columns_read"]


class View:
    """Which columns a function is given, and in what form.

    A plain function whose only use of its argument is ``row.name``, or only ``row["name"]``, reads those columns and no
    others, and cannot keep the row. If it can be followed, it is written into the loop; else it gets a cursor: one object a
    frame, whose values change under it. Any other function gets a :class:`Row` a record, and so does every function on an
    interpreter whose code is not followed.
    """

    __slots__ = ("_style", "fields", "used")

    def __init__(self, function: Callable[[Any], Any], fields: Sequence[str]) -> None:
        found = columns_read(function, fields)
        self._style, names = found or ("row", set(fields))
        self.fields = tuple(name for name in fields if name in names)
        self.used = [name in names for name in fields] if found else None

    def calls(self, function: Callable[[Any], Any]) -> Callable[[Sequence[Sequence[Any]], int, list[Any]], Callable[[int], None]]:
        """Return a function that starts the loop over a frame; the function that it returns continues the loop for so many rows."""
        if self._style == "row":
            make = functools.partial(tuple.__new__, row_class(self.fields))

            def start(columns: Sequence[Sequence[Any]], count: int, results: list[Any]) -> Callable[[int], None]:
                given = rows(make, columns, count)
                return lambda chunk: results.extend(map(function, itertools.islice(given, chunk)))

            return start
        loop = inlined(function, self.fields)
        called, new_cursor = _loop(self._style, self.fields)

        def start_loop(columns: Sequence[Sequence[Any]], count: int, results: list[Any]) -> Callable[[int], None]:
            if not columns:
                records: Any = itertools.repeat((), count)
            else:
                records = iter(columns[0]) if len(columns) == 1 else zip(*columns)

            def some(chunk: int) -> Any:
                return records if chunk >= count else itertools.islice(records, chunk)

            if loop is not None:
                return lambda chunk: loop(some(chunk), results)
            cursor = new_cursor()
            return lambda chunk: called(function, cursor, some(chunk), results)

        return start_loop


@functools.lru_cache(maxsize=1024)
def _loop(style: str, fields: tuple[str, ...]) -> tuple[Callable[..., None], Callable[[], Any]]:
    """Return the loop that puts values into a cursor and calls a function, and what makes a cursor."""
    if not fields:
        target = "_"
    elif style == "attribute":
        target = ", ".join(f"cursor.{name}" for name in fields)
    else:
        target = ", ".join(f"cursor[{name!r}]" for name in fields)
    source = f"def loop(function, cursor, records, results):\n    for {target} in records:\n        results.append(function(cursor))\n"
    namespace: dict[str, Any] = {}
    exec(compile(source, "<millstream loop>", "exec"), namespace)
    if style == "key":
        return namespace["loop"], dict
    return namespace["loop"], type("Row", (), {"__slots__": fields})


def columns_read(
    function: Any, fields: Sequence[str], *, others: int = 0, may_yield: bool = False
) -> tuple[str, set[str]] | None:
    """Return how a function of a row reads it, and which columns; None if it may do anything else with it.

    It takes so many other arguments after the row.
    """
    place = 1 if isinstance(function, types.MethodType) else 0
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType) or not is_followed():
        return None
    code = function.__code__
    odd = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    odd |= 0 if may_yield else inspect.CO_GENERATOR
    required = code.co_argcount - len(function.__defaults__ or ())
    if required > place + 1 + others or code.co_argcount <= place or code.co_kwonlyargcount or code.co_flags & odd:
        return None
    argument = code.co_varnames[place]
    if argument in code.co_cellvars or OBSERVERS.intersection(code.co_names):
        return None
    styles: set[str] = set()
    names: set[str] = set()
    found = instructions(code)
    for number, item in enumerate(found):
        if "_FAST" not in item.opname or not _names(item, argument):
            continue
        if item.opname not in ("LOAD_FAST", "LOAD_FAST_CHECK"):
            return None
        read = _column_read(found[number + 1 : number + 3])
        if read is None or read[1] not in fields:
            return None
        styles.add(read[0])
        names.add(read[1])
    if len(styles) > 1:
        return None
    style = styles.pop() if styles else "attribute"
    if style == "attribute" and not all(name.isidentifier() and not name.startswith("__") for name in names):
        return None
    return style, names


def _names(item: dis.Instruction, argument: str) -> bool:
    return item.argval == argument or (isinstance(item.argval, tuple) and argument in item.argval)


def _column_read(following: Sequence[dis.Instruction]) -> tuple[str, str] | None:
    """Return how a column is read, and which, by the instructions after the one that loads the row."""
    if not following:
        return None
    first = following[0]
    if first.opname == "LOAD_ATTR" and isinstance(first.argval, str):
        # From 3.12 on the same opcode loads methods.
        return None if loads_method(first) else ("attribute", first.argval)
    is_key = first.opname == "LOAD_CONST" and isinstance(first.argval, str)
    if is_key and len(following) > 1:
        return ("key", str(first.argval)) if following[1].opname == "BINARY_SUBSCR" else None
    return None
