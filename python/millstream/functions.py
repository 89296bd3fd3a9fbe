"""Functions of yours as steps and in expressions, and the loops that call them.

The engine passes the columns of a frame as lists and takes lists back. In between, the loops below run in C wherever no
function raises. A failing record is found by the number of results when it fails.
"""

from __future__ import annotations

import collections.abc
import functools
import importlib.util
import inspect
import itertools
import sys
import time
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from millstream import _live
from millstream._foreign import check_frame
from millstream._parameters import check_parameters
from millstream._row import Row, row_class, rows
from millstream._texts import with_article
from millstream._view import View
from millstream.errors import PlanError, SchemaError
from millstream.types import Schema, schema_of
from millstream.window import WindowBounds

__all__ = [
    "CHUNK_FIRST",
    "BatchAdapter",
    "FilterAdapter",
    "FlatMapAdapter",
    "FoldAdapter",
    "InspectAdapter",
    "MapAdapter",
    "Row",
    "View",
    "as_arrow",
    "check_async",
    "check_callable",
    "check_pyarrow",
    "function_name",
    "is_async",
    "is_async_generator",
    "is_generator",
    "next_chunk",
    "returned_schema",
    "several",
]

Failures = list[tuple[int, BaseException]]
Answer = tuple[list[Any], list[int] | None, Failures]


# -- one call a record ---------------------------------------------------------------------------------------------------


CHUNK_FIRST = 4
_CHUNK_MAX = 1 << 16
_CHUNK_SECONDS_MIN, _CHUNK_SECONDS_MAX = 0.005, 0.020


def next_chunk(chunk: int, took: float) -> int:
    """Return how many rows to take next, so that a slow function is not called for long after the interpreter wants to end."""
    _live.check()
    if took < _CHUNK_SECONDS_MIN:
        return min(chunk * 2, _CHUNK_MAX)
    return max(1, chunk // 2) if took > _CHUNK_SECONDS_MAX else chunk


class _RecordAdapter:
    """What the loops share: the function, and how its rows are made."""

    __slots__ = ("_calls", "_chunk")

    def __init__(self, function: Callable[[Any], Any], view: View) -> None:
        self._calls = view.calls(function)
        self._chunk = CHUNK_FIRST

    def _results(self, columns: Sequence[Sequence[Any]], count: int) -> tuple[list[Any], Failures]:
        """Call the function for each row; results and failures together are as many as rows."""
        results: list[Any] = []
        failures: Failures = []
        resume = self._calls(columns, count, results)
        while (done := len(results) + len(failures)) < count:
            chunk = min(self._chunk, count - done)
            began = time.perf_counter()
            try:
                # On an exception the list keeps what it has got, and the loop has passed the failing row.
                resume(chunk)
            except Exception as error:
                failures.append((len(results) + len(failures), error))
                continue
            given = len(results) + len(failures) - done
            if given < chunk:
                # A StopIteration from the function ends the loop silently; the rows after it are still to be called.
                failures.append((done + given, RuntimeError("the function raised StopIteration")))
                continue
            self._chunk = next_chunk(self._chunk, time.perf_counter() - began)
        return results, failures


def _left(count: int, failures: Failures) -> list[int] | None:
    """Return the rows that did not fail; None if none did."""
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
    """Calls a function once a record and keeps the records for which it returns something true."""

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


PIECE_ROWS = 4096
"""How many results of a function that returns many are held at most before they are passed on."""
_PIECE_SECONDS_MAX = 0.1
"""How long such a function runs before the engine may look whether it is to stop."""

Piece = tuple[list[Any], list[int], Failures, bool]


class FlatMapAdapter:
    """Calls a function once a record and passes on what it yields, in pieces."""

    __slots__ = ("_function", "_make")

    def __init__(self, function: Callable[[Any], Any], view: View) -> None:
        self._function = function
        self._make = functools.partial(tuple.__new__, row_class(view.fields))

    def __call__(self, columns: Sequence[Sequence[Any]], count: int) -> Iterator[Piece]:
        """Run the loop over one frame, a piece at a time: results, the row of each, failures, whether it is the last.

        A record counts whole or not at all as long as it has no more results than a piece: what a record has yielded so
        far is kept back while the piece goes without it. An empty piece lets the engine look whether it is to stop.
        """
        results: list[Any] = []
        origin: list[int] = []
        failures: Failures = []
        until = time.perf_counter() + _PIECE_SECONDS_MAX
        for place, row in enumerate(rows(self._make, columns, count)):
            before = len(results)
            chunk = CHUNK_FIRST
            _live.check()
            try:
                given = several(self._function(row))
                while True:
                    began = time.perf_counter()
                    asked = min(chunk, PIECE_ROWS - len(results))
                    had = len(results)
                    results.extend(itertools.islice(given, asked))
                    if len(results) - had < asked:
                        break
                    now = time.perf_counter()
                    chunk = next_chunk(chunk, now - began)
                    if len(results) < PIECE_ROWS and now < until:
                        continue
                    # What the record itself has yielded goes only when it fills a piece.
                    cut = before or (PIECE_ROWS if len(results) >= PIECE_ROWS else 0)
                    own = [place] * (cut - before)
                    yield results[:cut], origin + own, failures, False
                    results, origin, failures, before = results[cut:], [], [], 0
                    until = time.perf_counter() + _PIECE_SECONDS_MAX
            except Exception as error:
                del results[before:]
                failures.append((place, error))
            origin.extend(itertools.repeat(place, len(results) - before))
            if len(results) >= PIECE_ROWS or time.perf_counter() > until:
                yield results, origin, failures, False
                results, origin, failures = [], [], []
                until = time.perf_counter() + _PIECE_SECONDS_MAX
        yield results, origin, failures, True


def several(given: Any) -> Iterator[Any]:
    """Return what goes through the records that a function returned."""
    if given is None:
        return iter(())
    if isinstance(given, (str, bytes, collections.abc.Mapping)) or not isinstance(given, collections.abc.Iterable) and not hasattr(given, "__getitem__"):
        raise TypeError(
            "flat_map() takes a function that returns several records (a list, a generator), and this one returned "
            f"{with_article(type(given).__name__)}; yield it, or return [it]"
        )
    return iter(given)


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
    """Return what a fold returned as a row again, so that the next call finds what it expects."""
    if isinstance(value, Row):
        return value
    if isinstance(value, dict) and len(value) == len(fields):
        return make(value[name] for name in fields)
    if isinstance(value, (tuple, list)) and len(value) == len(fields):
        return make(value)
    if hasattr(type(value), "__dataclass_fields__"):
        return make(getattr(value, name) for name in fields)
    raise TypeError(f"reduce() takes a function that returns a record with {', '.join(fields)}, not {value!r:.200}")


class WindowAdapter:
    """Calls a function with the records of a window."""

    __slots__ = ("_function", "_key")

    def __init__(self, function: Callable[[Any, Any, Any], Any], keys: tuple[str, ...]) -> None:
        self._function = function
        self._key = functools.partial(tuple.__new__, row_class(keys)) if len(keys) > 1 else None

    def __call__(self, key: Sequence[Sequence[Any]], bounds: tuple[Any, Any] | None, rows: Any) -> Any:
        """Return a list of records, or something with an Arrow interface."""
        values = tuple(column[0] for column in key)
        of_key = self._key(values) if self._key is not None else values[0] if values else None
        window = None if bounds is None else WindowBounds(*bounds)
        given = self._function(of_key, window, rows)
        if given is None:
            return []
        if hasattr(given, "__arrow_c_array__") or hasattr(given, "__arrow_c_stream__"):
            return given
        if isinstance(given, collections.abc.Mapping | tuple) or hasattr(type(given), "__dataclass_fields__"):
            return [given]
        if isinstance(given, collections.abc.Iterable) and not isinstance(given, str | bytes):
            return list(given)
        return [given]


class BatchAdapter:
    """Calls a function once a frame with a ``pyarrow.RecordBatch``; a dict of arrays becomes a batch."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, batch: Any) -> Any:
        """Run the function over one frame."""
        return as_arrow(self._function(batch))


def as_arrow(given: Any) -> Any:
    """Return something with an Arrow interface for whatever a function of batches returned."""
    if isinstance(given, collections.abc.Mapping):
        import pyarrow as pa

        arrays = {name: _array(pa, value) for name, value in given.items()}
        return pa.record_batch(list(arrays.values()), names=list(arrays))
    if hasattr(given, "__arrow_c_array__") or hasattr(given, "__arrow_c_stream__"):
        check_frame(given, "the function's frame")
        return given
    raise TypeError(
        f"a function of batches returns a pyarrow.RecordBatch, a dict of arrays, or anything with an Arrow interface, not {type(given).__name__}"
    )


def _array(pa: Any, value: Any) -> Any:
    if isinstance(value, pa.ChunkedArray):
        return value.combine_chunks()
    check_frame(value, "the function's result")
    if hasattr(value, "__arrow_c_stream__") and not hasattr(value, "__arrow_c_array__"):
        return pa.chunked_array(value).combine_chunks()
    return value if isinstance(value, pa.Array) else pa.array(value)


# -- what a function returns ---------------------------------------------------------------------------------------------


def function_name(function: Any) -> str:
    """Return the name of a function in plans and messages."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None) or type(function).__name__
    return str(name)


def is_async(function: Any) -> bool:
    """Return whether a function is an ``async def`` one, or an object whose call is."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_call_of(function))


def is_async_generator(function: Any) -> bool:
    """Return whether a function is an ``async def`` one that yields, or an object whose call is."""
    return inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(_call_of(function))


def is_generator(function: Any) -> bool:
    """Return whether a function is one that yields, or an object whose call is."""
    return inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(_call_of(function))


def _call_of(function: Any) -> Any:
    """Return what runs when an object is called, that is no function itself."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(type(function), "__call__", None)


def check_async(function: Any, method: str, plain: str, *arguments: str) -> None:
    """Refuse what is no ``async def`` function of these arguments; ``plain`` is the method that takes an ordinary one."""
    if not callable(function):
        raise PlanError(f"{method}() takes an async def function, not {function!r:.200}")
    name = function_name(function)
    if is_async_generator(function):
        raise PlanError(
            f"{method}() takes a function with one result, and {name} is an asynchronous generator; return a list and explode() it"
        )
    # A decorator may call an async def function in a plain one, and return what it is to await.
    if not is_async(function) and not is_async(inspect.unwrap(function)):
        raise PlanError(f"{method}() takes an async def function, and {name} is a plain one; use {plain}({name})")
    check_parameters(function, f"{method}()", *arguments)


def check_callable(function: Any, method: str, *arguments: str) -> None:
    """Refuse what cannot be called, or not with these arguments if there are any, or is asynchronous."""
    if not callable(function):
        raise PlanError(f"{method}() takes a function, not {function!r:.200}")
    if is_async(function) or is_async_generator(function):
        name = function_name(function)
        advice = f"; use {method}_async({name})" if method in ("map", "map_batches") else ""
        raise PlanError(f"{method}() takes a plain function, and {name} is asynchronous{advice}")
    if arguments:
        check_parameters(function, f"{method}()", *arguments)


def check_pyarrow(method: str) -> None:
    """Refuse a method that needs pyarrow where it is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise PlanError(f"{method}() needs pyarrow: pip install pyarrow")


def fetch_pyarrow() -> None:
    """Import pyarrow beside the start of a job: the engine reads its state meanwhile, and the first frame need not wait."""
    if "pyarrow" not in sys.modules:
        import threading

        # Not a daemon: the interpreter must not end in the middle of an import.
        threading.Thread(target=importlib.import_module, args=("pyarrow",), name="millstream-import").start()


def returned_schema(function: Any, *, is_many: bool) -> Schema | None:
    """Return the schema that a function's annotation declares; None if it declares none.

    Parameters
    ----------
    function
        The function.
    is_many
        Whether it returns several records, so that the annotation is ``Iterator[X]`` and the like.
    """
    target = function if isinstance(function, (types.FunctionType, types.MethodType)) else getattr(type(function), "__call__", function)
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
