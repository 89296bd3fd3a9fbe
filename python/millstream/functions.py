"""Functions of yours as steps and in expressions, and the loops that call them.

The engine hands over the columns of a frame as lists and takes lists back; between the two the loops below run in C
wherever no function raises. A failing record is found by how many results there are when it fails.
"""

from __future__ import annotations

import collections.abc
import dis
import functools
import importlib.util
import inspect
import itertools
import time
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

from millstream import _live
from millstream._engine import DataType, RawExpr, aggregate_function, column_function, compiled_function
from millstream._row import Row, row_class, rows
from millstream.errors import PlanError, SchemaError
from millstream.expr import Expr, _raw
from millstream.types import Schema, TypeLike, data_type, schema_of

__all__ = ["Row", "Udf", "udf"]

P = ParamSpec("P")
T = TypeVar("T")

Failures = list[tuple[int, BaseException]]
Answer = tuple[list[Any], list[int] | None, Failures]


# -- one call a record ---------------------------------------------------------------------------------------------------


_CHUNK_FIRST = 4
_CHUNK_MAX = 1 << 16
_CHUNK_SECONDS_MIN, _CHUNK_SECONDS_MAX = 0.005, 0.020


def _next_chunk(chunk: int, took: float) -> int:
    """Give how many rows to take next, so that a slow function is not called for long after the interpreter wants to end."""
    _live.check()
    if took < _CHUNK_SECONDS_MIN:
        return min(chunk * 2, _CHUNK_MAX)
    return max(1, chunk // 2) if took > _CHUNK_SECONDS_MAX else chunk


class _RecordAdapter:
    """What the loops share: the function, and how its rows are made."""

    __slots__ = ("_calls", "_chunk")

    def __init__(self, function: Callable[[Any], Any], view: View) -> None:
        self._calls = view.calls(function)
        self._chunk = _CHUNK_FIRST

    def _results(self, columns: Sequence[Sequence[Any]], count: int) -> tuple[list[Any], Failures]:
        """Call the function for each row; results and failures together are as many as rows."""
        results: list[Any] = []
        failures: Failures = []
        resume = self._calls(columns, count, results)
        while (done := len(results) + len(failures)) < count:
            chunk = min(self._chunk, count - done)
            began = time.perf_counter()
            try:
                # On an exception the list keeps what it has got, and the loop stands behind the failing row.
                resume(chunk)
            except Exception as error:
                failures.append((len(results) + len(failures), error))
                continue
            given = len(results) + len(failures) - done
            if given < chunk:
                # A StopIteration from the function ends the loop silently; the rows behind it still want their turn.
                failures.append((done + given, RuntimeError("the function raised StopIteration")))
                continue
            self._chunk = _next_chunk(self._chunk, time.perf_counter() - began)
        return results, failures


def _left(count: int, failures: Failures) -> list[int] | None:
    """Give the rows that did not fail; None if none did."""
    if not failures:
        return None
    failed = {row for row, _ in failures}
    return [row for row in range(count) if row not in failed]


class MapAdapter(_RecordAdapter):
    """Calls a function once a record and takes what it returns as a record."""

    __slots__ = ()

    def __call__(self, columns: Sequence[Sequence[Any]], count: int) -> Answer:
        """Run the loop over one frame."""
        results, failures = self._results(columns, count)
        return results, _left(count, failures), failures


class FilterAdapter(_RecordAdapter):
    """Calls a function once a record and keeps the records for which it gives something true."""

    __slots__ = ()

    def __call__(self, columns: Sequence[Sequence[Any]], count: int) -> Answer:
        """Run the loop over one frame."""
        results, failures = self._results(columns, count)
        left = _left(count, failures)
        return results, left, failures


class InspectAdapter(_RecordAdapter):
    """Calls a function once a record and passes the records on as they are."""

    __slots__ = ()

    def __call__(self, columns: Sequence[Sequence[Any]], count: int) -> Answer:
        """Run the loop over one frame."""
        _, failures = self._results(columns, count)
        return [], _left(count, failures), failures


class FlatMapAdapter:
    """Calls a function once a record and takes everything it yields."""

    __slots__ = ("_function", "_make")

    def __init__(self, function: Callable[[Any], Any], view: View) -> None:
        self._function = function
        self._make = functools.partial(tuple.__new__, row_class(view.fields))

    def __call__(self, columns: Sequence[Sequence[Any]], count: int) -> Answer:
        """Run the loop over one frame."""
        results: list[Any] = []
        origin: list[int] = []
        failures: Failures = []
        function = self._function
        for place, row in enumerate(rows(self._make, columns, count)):
            before = len(results)
            _live.check()
            try:
                given = function(row)
                if given is not None:
                    if isinstance(given, (str, bytes, collections.abc.Mapping)):
                        raise TypeError(
                            "flat_map takes a function that gives several records (a list, a generator), "
                            f"not a {type(given).__name__}"
                        )
                    results.extend(given)
            except Exception as error:
                # A record counts whole or not at all.
                del results[before:]
                failures.append((place, error))
            origin.extend(itertools.repeat(place, len(results) - before))
        return results, origin, failures


class FoldAdapter:
    """Folds the records of one key."""

    __slots__ = ("_function", "_make")

    def __init__(self, function: Callable[[Any, Any], Any], fields: tuple[str, ...]) -> None:
        self._function = function
        self._make = functools.partial(tuple.__new__, row_class(fields))

    def __call__(self, before: Sequence[Sequence[Any]] | None, columns: Sequence[Sequence[Any]]) -> Any:
        """Fold rows into what was folded before, if anything was."""
        values = rows(self._make, columns, len(columns[0]) if columns else 1)
        folded = next(values) if before is None else self._make(column[0] for column in before)
        make = self._make
        fields = make.args[0]._fields
        for row in values:
            folded = _as_row(self._function(folded, row), make, fields)
        return folded


def _as_row(value: Any, make: Callable[[Any], Row], fields: tuple[str, ...]) -> Any:
    """Give what a fold returned as a row again, so that the next call finds what it expects."""
    if isinstance(value, Row):
        return value
    if isinstance(value, dict) and len(value) == len(fields):
        return make(value[name] for name in fields)
    if isinstance(value, (tuple, list)) and len(value) == len(fields):
        return make(value)
    if hasattr(type(value), "__dataclass_fields__"):
        return make(getattr(value, name) for name in fields)
    raise TypeError(f"reduce takes a function that gives a record with {', '.join(fields)}, not {value!r:.200}")


class BatchAdapter:
    """Calls a function once a frame with a ``pyarrow.RecordBatch``; a dict of arrays becomes a batch."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, batch: Any) -> Any:
        """Run the function over one frame."""
        return as_arrow(self._function(batch))


def as_arrow(given: Any) -> Any:
    """Give something with an Arrow interface for whatever a function of batches returned."""
    if isinstance(given, collections.abc.Mapping):
        import pyarrow as pa

        arrays = {name: _array(pa, value) for name, value in given.items()}
        return pa.record_batch(list(arrays.values()), names=list(arrays))
    if hasattr(given, "__arrow_c_array__") or hasattr(given, "__arrow_c_stream__"):
        return given
    raise TypeError(
        f"a function of batches gives a pyarrow.RecordBatch, a dict of arrays, or anything with an Arrow interface, not {type(given).__name__}"
    )


def _array(pa: Any, value: Any) -> Any:
    if isinstance(value, pa.ChunkedArray):
        return value.combine_chunks()
    if hasattr(value, "__arrow_c_stream__") and not hasattr(value, "__arrow_c_array__"):
        return pa.chunked_array(value).combine_chunks()
    return value if isinstance(value, pa.Array) else pa.array(value)


# -- what a function looks at --------------------------------------------------------------------------------------------


class View:
    """Which columns a function is given, and in what form.

    A plain function whose only use of its argument is ``row.name``, or only ``row["name"]``, reads those columns and no
    others, and cannot keep the row. If it is one expression, that stands in the loop; else it gets a cursor: one object a
    frame, whose values change under it. Any other function gets a :class:`Row` a record.
    """

    __slots__ = ("_style", "fields", "used")

    def __init__(self, function: Callable[[Any], Any], fields: Sequence[str]) -> None:
        found = _columns_read(function, fields)
        self._style, names = found or ("row", set(fields))
        self.fields = tuple(name for name in fields if name in names)
        self.used = [name in names for name in fields] if found else None

    def calls(self, function: Callable[[Any], Any]) -> Callable[[Sequence[Sequence[Any]], int, list[Any]], Callable[[int], None]]:
        """Give what starts the loop over a frame; what it gives goes on with the loop for so many rows."""
        if self._style == "row":
            make = functools.partial(tuple.__new__, row_class(self.fields))

            def start(columns: Sequence[Sequence[Any]], count: int, results: list[Any]) -> Callable[[int], None]:
                given = rows(make, columns, count)
                return lambda chunk: results.extend(map(function, itertools.islice(given, chunk)))

            return start
        from millstream._inline import inlined

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
    """Give the loop that puts values into a cursor and calls a function, and what makes a cursor."""
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


_OBSERVERS = frozenset({"locals", "vars", "dir", "eval", "exec", "globals", "_getframe", "currentframe", "stack", "breakpoint", "set_trace"})


def _columns_read(function: Any, fields: Sequence[str]) -> tuple[str, set[str]] | None:
    """Tell how a function of a row reads it, and which columns; None if it may do anything else with it."""
    place = 1 if isinstance(function, types.MethodType) else 0
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        return None
    code = function.__code__
    odd = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    required = code.co_argcount - len(function.__defaults__ or ())
    if required > place + 1 or code.co_argcount <= place or code.co_kwonlyargcount or code.co_flags & odd:
        return None
    argument = code.co_varnames[place]
    if argument in code.co_cellvars or _OBSERVERS.intersection(code.co_names):
        return None
    styles: set[str] = set()
    names: set[str] = set()
    instructions = [item for item in dis.get_instructions(code) if item.opname not in ("CACHE", "EXTENDED_ARG", "NOP")]
    for number, item in enumerate(instructions):
        if "_FAST" not in item.opname or not _names(item, argument):
            continue
        if item.opname not in ("LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK"):
            return None
        read = _column_read(instructions[number + 1 : number + 3])
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
    """Give how a column is read, and which, by the instructions behind the one that loads the row."""
    if not following:
        return None
    first = following[0]
    if first.opname == "LOAD_ATTR" and isinstance(first.argval, str):
        # From 3.12 on the same opcode loads methods; those show a NULL beside the name.
        return None if "NULL" in (first.argrepr or "") else ("attribute", first.argval)
    is_key = first.opname == "LOAD_CONST" and isinstance(first.argval, str)
    if is_key and len(following) > 1:
        is_read = following[1].opname == "BINARY_SUBSCR" or following[1].argrepr == "[]"
        return ("key", str(first.argval)) if is_read else None
    return None


# -- what a function returns ---------------------------------------------------------------------------------------------


def function_name(function: Any) -> str:
    """Give what a function is called in plans and messages."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None) or type(function).__name__
    return str(name)


def check_callable(function: Any, method: str) -> None:
    """Refuse what cannot be called, or is a coroutine."""
    if not callable(function):
        raise PlanError(f"{method}() takes a function, not {function!r:.200}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PlanError(f"{method}() takes a plain function, and {function_name(function)} is asynchronous")


def returned_schema(function: Any, *, is_many: bool) -> Schema | None:
    """Give the schema that a function's annotation declares; None if it declares none.

    Parameters
    ----------
    function
        The function.
    is_many
        Whether it gives several records, so that the annotation is ``Iterator[X]`` and the like.
    """
    target = function if isinstance(function, (types.FunctionType, types.MethodType)) else getattr(type(function), "__call__", function)  # noqa: B004
    try:
        hint = typing.get_type_hints(target).get("return")
    except (NameError, TypeError, AttributeError):
        return None
    if hint is None or hint is Any:
        return None
    if is_many:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        is_iterable = isinstance(origin, type) and issubclass(origin, collections.abc.Iterable)
        if not is_iterable or not arguments or issubclass(origin, collections.abc.Mapping):
            return None
        hint = arguments[0]
    bare = typing.get_origin(hint) or hint
    if bare in (dict, tuple, list, object, Any, collections.abc.Mapping) or hint is Row:
        return None
    try:
        return schema_of(hint)
    except SchemaError:
        return None


# -- udf -----------------------------------------------------------------------------------------------------------------


class _ValueAdapter:
    """Calls a function once a row of argument columns."""

    __slots__ = ("_chunk", "_function", "_skips_nulls")

    def __init__(self, function: Callable[..., Any], skips_nulls: bool) -> None:
        self._function = function
        self._skips_nulls = skips_nulls
        self._chunk = _CHUNK_FIRST

    def __call__(self, columns: Sequence[Sequence[Any]], count: int) -> tuple[list[Any], BaseException | None]:
        """Run the loop over one frame."""
        function = self._function
        try:
            if not columns:
                calls: Any = (function() for _ in range(count))
            elif self._skips_nulls and any(type(column) is list and None in column for column in columns):
                calls = (None if None in pair else function(*pair) for pair in zip(*columns))
            else:
                calls = map(function, *columns)
            results: list[Any] = []
            while (done := len(results)) < count:
                began = time.perf_counter()
                results.extend(itertools.islice(calls, self._chunk))
                if len(results) == done:
                    raise RuntimeError("the function raised StopIteration")
                self._chunk = _next_chunk(self._chunk, time.perf_counter() - began)
            return results, None
        except Exception as error:
            return [], error


class _CompiledAdapter:
    """Compiles a function to machine code for arguments of given types, and keeps the code alive."""

    __slots__ = ("_code", "_function")

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._code: list[Any] = []

    def address(self, types: list[str], returns: str) -> int:
        """Give the address of a loop over columns: it returns the row that raised, or -1."""
        import numba
        import numpy as np

        inner = numba.njit(nogil=True)(self._function)
        namespace: dict[str, Any] = {"carray": vars(numba)["carray"], "inner": inner, "returns": getattr(np, returns)}
        lines = ["def loop(count, columns, out):", "    results = carray(out, (count,), dtype=returns)"]
        for place, name in enumerate(types):
            namespace[f"type_{place}"] = getattr(np, name)
            lines.append(f"    c{place} = carray(columns[{place}], (count,), dtype=type_{place})")
        values = ", ".join(f"c{place}[row]" for place in range(len(types)))
        lines += [
            "    for row in range(count):",
            "        try:",
            f"            results[row] = inner({values})",
            "        except Exception:",
            "            return row",
            "    return -1",
        ]
        exec(compile("\n".join(lines), "<millstream compiled loop>", "exec"), namespace)
        code: Any = numba.cfunc("int64(int64, CPointer(voidptr), voidptr)")(namespace["loop"])
        self._code.append((inner, code))
        return int(code.address)

    def again(self, values: list[Any]) -> Any:
        """Call the function in the interpreter, to see what it raises."""
        return self._function(*values)


class Udf(Generic[P, T]):
    """A function of values that can be used in expressions; made by :func:`udf`.

    Called with an expression it gives an expression; called with plain values it is the function itself.
    """

    def __init__(self, function: Callable[P, T], returns: DataType, skips_nulls: bool, is_compiled: bool) -> None:
        self._function = function
        self._returns = returns
        self._is_compiled = is_compiled
        self._adapter: Any = _CompiledAdapter(function) if is_compiled else _ValueAdapter(function, skips_nulls)
        functools.update_wrapper(self, function)

    @overload
    def __call__(self, *args: Expr) -> Expr: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Give an expression if an argument is one, else call the function."""
        if not any(isinstance(arg, Expr) for arg in args):
            return self._function(*args, **kwargs)
        if kwargs:
            raise PlanError(f"{function_name(self._function)} takes no keyword arguments in an expression")
        raws = [_raw(arg) for arg in args]
        make = compiled_function if self._is_compiled else column_function
        return Expr(make(function_name(self._function), self._adapter, self._returns, raws))


def udf(
    *, returns: TypeLike = None, skip_nulls: bool = True, compiled: bool = False
) -> Callable[[Callable[P, T]], Udf[P, T]]:
    """Make a function of values usable in expressions.

    Parameters
    ----------
    returns
        The type of its result; by default the annotation.
    skip_nulls
        Whether a row with a null argument gives null without a call.
    compiled
        Whether numba compiles it to machine code, which runs on all cores at once; for numbers and truth values. A null
        argument then always gives null.

    Examples
    --------
    >>> @mill.udf(returns=float)
    ... def with_tax(price):
    ...     return price * 1.19
    >>> mill.from_iter([100.0, None]).select(gross=with_tax(col("value"))).collect().to_pylist()
    [{'gross': 119.0}, {'gross': None}]
    """

    def wrap(function: Callable[P, T]) -> Udf[P, T]:
        check_callable(function, "udf")
        if compiled:
            if importlib.util.find_spec("numba") is None:
                raise PlanError("udf(compiled=True) needs numba: pip install numba")
            if not skip_nulls:
                raise PlanError("udf(compiled=True) passes no nulls on; leave skip_nulls out")
        if returns is not None:
            return Udf(function, data_type(returns, place="returns"), skip_nulls, compiled)
        hint = None
        try:
            hint = typing.get_type_hints(function).get("return")
        except (NameError, TypeError):
            pass
        if hint is None:
            raise PlanError(f"udf: what does {function_name(function)} return? write @udf(returns=float) or annotate it")
        return Udf(function, data_type(hint, place=f"{function_name(function)}() ->"), skip_nulls, compiled)

    return wrap


# -- aggregates ----------------------------------------------------------------------------------------------------------


class _AggregateAdapter:
    """Runs an aggregate of the user's over pickled states."""

    __slots__ = ("_aggregate", "_dumps", "_loads")

    def __init__(self, aggregate: Any) -> None:
        import pickle

        self._aggregate = aggregate
        self._dumps, self._loads = pickle.dumps, pickle.loads

    def update(self, state: bytes | None, values: list[Any]) -> bytes:
        """Take values into a state."""
        current = self._aggregate.create() if state is None else self._loads(state)
        add = self._aggregate.add
        for value in values:
            current = add(current, value)
        return self._dumps(current, 5)

    def merge(self, left: bytes, right: bytes) -> bytes:
        """Unite two states."""
        return self._dumps(self._aggregate.merge(self._loads(left), self._loads(right)), 5)

    def finish(self, state: bytes | None) -> Any:
        """Give the result of a state."""
        return self._aggregate.result(self._aggregate.create() if state is None else self._loads(state))


def aggregate_expression(function: Any, value: RawExpr, returns: TypeLike) -> RawExpr:
    """Make the expression of an aggregate of the user's."""
    instance = function() if isinstance(function, type) else function
    name = type(instance).__name__
    missing = [method for method in ("create", "add", "merge", "result") if not callable(getattr(instance, method, None))]
    if missing:
        raise PlanError(f"aggregate: {name} has no {', '.join(missing)}; it needs create, add, merge and result")
    if returns is None:
        try:
            returns = typing.get_type_hints(type(instance).result).get("return")
        except (NameError, TypeError):
            returns = None
        if returns is None:
            raise PlanError(f"aggregate: what does {name} give? annotate result() or say returns=")
    return aggregate_function(name, _AggregateAdapter(instance), data_type(returns, place="returns"), value)

