"""What other libraries call it, and what it is here: hints for names that are not there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["no_attribute", "takes_by_name"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_AGGREGATES = ("sum", "mean", "min", "max", "first", "last", "median", "std", "var", "n_unique")
_JOINS = ("join", "join_interval", "join_asof", "enrich")

_OF_STREAM = {
    **dict.fromkeys(("group_by", "groupby", "groupBy", "keyBy"), 'use key_by(), as in key_by("user")'),
    "connect": 'two keyed streams are connected: a.key_by("id").connect(b.key_by("id"))',
    "process": 'a process function is called for each key: key_by("user").process(…); map() and flat_map() need no key',
    "reduce": 'use key_by("user").reduce(…), or agg() for all records together',
    "deduplicate": 'use key_by("id").deduplicate()',
    **dict.fromkeys(("unique", "distinct", "drop_duplicates"), 'use key_by("id").deduplicate()'),
    "window": 'use key_by("user").window(…), or window_all(…) for all records together',
    "rolling": 'use key_by("user").rolling(…)',
    **dict.fromkeys(("count", "len"), "use agg(n=mill.count())"),
    **{name: f'use agg(x=col("x").{name}())' for name in _AGGREGATES},
    "aggregate": "use agg()",
    **dict.fromkeys(("with_column", "withColumn", "assign", "mutate"), 'use with_columns(), as in with_columns(total=col("a") + col("b"))'),
    "where": "use filter()",
    **dict.fromkeys(("head", "take", "first_rows"), "use limit(), or show() to look at some"),
    **dict.fromkeys(("flatmap", "flatMap"), "use flat_map()"),
    **dict.fromkeys(("foreach", "subscribe"), "use for_each()"),
    "apply": "use map(), or map_batches() for whole batches",
    **dict.fromkeys(("concat", "merge"), "use union() to put streams together, join() to bring their columns together"),
    **dict.fromkeys(("sort", "sort_by", "order_by", "sort_values"), "a stream is not sorted; use top_n(), or collect().sort(…)"),
    **dict.fromkeys(("to_pandas", "to_polars", "to_arrow", "to_pylist"), "use collect() first; the table has it"),
    **dict.fromkeys(("add_sink", "write"), "use write_parquet(), write_json(), write_csv(), write_sqlite() or sink_to()"),
    **dict.fromkeys(("run", "start", "execute"), "write mill.run(stream.write_parquet(…)), or collect() for a table"),
    **dict.fromkeys(("assign_timestamps", "with_watermark", "withWatermark", "assign_timestamps_and_watermarks"), "use event_time()"),
}

_OF_KEYED = {
    **{name: f'remove key_by(), and name the key in the join: a.{name}(b, on="id")' for name in _JOINS},
    **dict.fromkeys(("count", "len"), "use agg(n=mill.count())"),
    **{name: f'use agg(x=col("x").{name}())' for name in _AGGREGATES},
    "aggregate": "use agg()",
    **dict.fromkeys(("map", "flat_map", "filter", "select", "with_columns", "union"), "put it before key_by()"),
    "window_all": "use window(…) for windows of each key; window_all() is of a stream without a key",
    "apply": "use process(), or window(…).apply()",
    **dict.fromkeys(("collect", "show"), "a keyed stream has no rows yet; use agg(), reduce(), process() or window() first"),
    "fold": "use reduce(), or agg(x=mill.aggregate(…))",
    "unique": "use deduplicate()",
    "group_by": "it has a key already",
}

_OF_WINDOWED = {
    "late": "late records are a stream of the result: agg(…).late",
    **dict.fromkeys(("count", "len"), "use agg(n=mill.count())"),
    **{name: f'use agg(x=col("x").{name}())' for name in _AGGREGATES},
    "aggregate": "use agg()",
    **dict.fromkeys(("process", "map"), "use apply(), which is called with the key, the window and its rows"),
    "trigger": "pass trigger= to window()",
    "allowed_lateness": "pass allowed_lateness= to window()",
    **dict.fromkeys(("collect", "show"), "windows have no rows yet; use agg(), reduce() or apply() first"),
    "fold": "use reduce(), or agg(x=mill.aggregate(…))",
}

_HINTS = {"Stream": _OF_STREAM, "KeyedStream": _OF_KEYED, "WindowedStream": _OF_WINDOWED}


def no_attribute(owner: object, name: str) -> AttributeError:
    """Return the error for a name that is not there, with what to write where that is known.

    Examples
    --------
    >>> mill.from_iter([1]).group_by("value")
    Traceback (most recent call last):
        ...
    AttributeError: Stream has no group_by; use key_by(), as in key_by("user")
    """
    kind = type(owner).__name__
    hint = _HINTS.get(kind, {}).get(name)
    message = f"{kind!r} object has no attribute {name!r}" if hint is None else f"{kind} has no {name}; {hint}"
    return AttributeError(message, name=name, obj=owner)


def takes_by_name(example: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return what makes a method with one positional argument name the call to write when it is given more."""

    def decorate(method: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(method)
        def checked(*args: _P.args, **named: _P.kwargs) -> _R:
            if len(args) > 2:
                raise TypeError(f"{method.__name__}() takes all arguments but the first by name, as in {example}")
            return method(*args, **named)

        return checked

    return decorate
