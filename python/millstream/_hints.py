"""Names in other libraries, and their equivalents here: hints for names that do not exist."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from millstream import _expression_hints as _expressions
from millstream._nearest import did_you_mean, nearest

__all__ = ["no_attribute", "no_name", "takes_by_name"]

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
    **dict.fromkeys(
        ("group_by_dynamic", "groupby_dynamic", "tumble", "hop"),
        'use window_all(mill.tumbling("1m")).agg(…), or key_by("user").window(…) for windows of each key; event_time("at") comes before it',
    ),
    **dict.fromkeys(("group_by_rolling", "groupby_rolling"), 'use event_time("at").key_by("user").rolling("10m").agg(…)'),
    **dict.fromkeys(("with_column", "withColumn", "assign", "mutate"), 'use with_columns(), as in with_columns(total=col("a") + col("b"))'),
    "where": "use filter()",
    **dict.fromkeys(("head", "take", "first_rows"), "use limit(), or show() to look at some"),
    **dict.fromkeys(("flatmap", "flatMap"), "use flat_map()"),
    **dict.fromkeys(("foreach", "subscribe"), "use for_each()"),
    "apply": "use map(), or map_batches() for whole batches",
    **dict.fromkeys(("concat", "merge"), "use union() to put streams together, join() to bring their columns together"),
    **dict.fromkeys(("sort", "sort_by", "order_by", "sort_values"), "a stream is not sorted; use top_n(), or collect().sort(…)"),
    **dict.fromkeys(("shift", "diff"), 'rows come in an order within their key: use key_by("k").shift(before="x") or .diff(change="x")'),
    **dict.fromkeys(("to_pandas", "to_polars", "to_arrow", "to_pylist"), "use collect() first; the table has it"),
    **dict.fromkeys(("add_sink", "write"), "use write_parquet(), write_json(), write_csv(), write_arrow(), write_sqlite() or sink_to()"),
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
    "lag": 'use shift(), as in shift(before="x")',
    "fold": "use reduce(), or agg(x=mill.aggregate(…))",
    "unique": "use deduplicate()",
    **dict.fromkeys(("group_by", "groupby"), "it has a key already"),
    **dict.fromkeys(("group_by_dynamic", "tumble", "hop"), 'use window(mill.tumbling("1m")).agg(…)'),
}

_ERRORS = dict.fromkeys(("errors", "all_errors"), "it has no rows yet: .errors and .all_errors are of the result, as in agg(…).errors")

_OF_WINDOWED = {
    **_ERRORS,
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

_OF_ROLLING = {
    **_ERRORS,
    "late": "late records are a stream of the result: agg(…).late",
    **dict.fromkeys(("collect", "show"), "it has no rows yet; use agg() first"),
    **{name: f'use agg(x=col("x").{name}())' for name in _AGGREGATES},
}
_OF_CONNECTED = {
    **dict.fromkeys(("errors", "all_errors"), "it has no rows yet: .errors and .all_errors are of the result, as in process(…).errors"),
    **dict.fromkeys(("collect", "show", "map", "flat_map"), "it has no rows yet; use process() first"),
}
_OF_JOB = {
    **dict.fromkeys(
        ("errors", "all_errors", "dead_letters"),
        "the errors of a job are a stream of its plan: start it with mill.all_errors(…) of its sinks, written to a sink, and "
        'on_error="route"; how many there are is in metrics().rows_routed',
    ),
    "report": "use wait(), which returns it",
    **dict.fromkeys(("result", "join", "await_termination", "awaitTermination"), "use wait()"),
    "state": "use status.state",
}

_BOUNDED = 'use bounded_out_of_orderness("5s")'
_OF_STRATEGY = {
    **dict.fromkeys(("for_bounded_out_of_orderness", "forBoundedOutOfOrderness"), _BOUNDED),
    **dict.fromkeys(("for_monotonous_timestamps", "forMonotonousTimestamps", "monotonic"), "use ascending()"),
    **dict.fromkeys(("for_generator", "forGenerator"), "use from_generator(…)"),
    **dict.fromkeys(("no_watermarks", "noWatermarks"), "leave event_time() out; a stream without it has no watermarks"),
    **dict.fromkeys(
        ("with_timestamp_assigner", "withTimestampAssigner"), 'name the column instead: event_time("at", watermark=…)'
    ),
    **dict.fromkeys(("with_watermark_alignment", "withWatermarkAlignment"), 'use with_alignment("1m", group="orders")'),
    "withIdleness": 'use with_idleness("10s")',
}

_OF_OUTPUT = {
    "errors": 'a sink has no .errors: a record that it cannot write fails the job, or is left out and counted with on_error="skip". What the '
    "steps before it reject is in .errors and .all_errors of the stream that is written, and in mill.all_errors(…) of several sinks",
    "all_errors": "use mill.all_errors(…) of the sinks, or .all_errors of the stream that is written",
    "late": "late records are a stream of the step that found them late, not of a sink: agg(…).late",
    **dict.fromkeys(("run", "start", "execute", "collect"), "pass it to mill.run(…) or mill.start(…)"),
}

_HINTS = {
    "Output": _OF_OUTPUT,
    "Stream": _OF_STREAM,
    "KeyedStream": _OF_KEYED,
    "WindowedStream": _OF_WINDOWED,
    "RollingStream": _OF_ROLLING,
    "ConnectedStreams": _OF_CONNECTED,
    "Job": _OF_JOB,
    "WatermarkStrategy": _OF_STRATEGY,
    "Expr": _expressions.OF_EXPR,
    "StringNamespace": _expressions.OF_TEXTS,
    "DateTimeNamespace": _expressions.OF_DATES,
    "ListNamespace": _expressions.OF_LISTS,
    "MapNamespace": _expressions.OF_MAPS,
    "StructNamespace": _expressions.OF_STRUCTS,
}
_WRITTEN = {kind: f"Expr.{name}" for name, kind in _expressions.NAMESPACES.items()}
"""What a user writes for a class that is never named."""

_TUMBLING, _SLIDING = 'use mill.tumbling("1m")', 'use mill.sliding("10m", slide="1m")'
_SESSION, _CUMULATIVE = 'use mill.session("30m")', 'use mill.cumulative(step="1h", size="1d")'
_NO_ENVIRONMENT = "there is no environment: mill.read_csv() and the like return streams, and mill.run(…) runs what is written"
_OF_PACKAGE = {
    **dict.fromkeys(("dead_letters", "dead_letter_queue"), "use mill.all_errors(…) of the streams and sinks of a job"),
    **dict.fromkeys(
        ("tumble", "Tumble", "tumbling_window", "TumblingWindows", "TumblingEventTimeWindows", "TumblingProcessingTimeWindows"), _TUMBLING
    ),
    **dict.fromkeys(
        ("hop", "Hop", "hopping", "Slide", "sliding_window", "SlidingWindows", "SlidingEventTimeWindows", "HoppingWindow"), _SLIDING
    ),
    **dict.fromkeys(("session_window", "SessionWindows", "EventTimeSessionWindows"), _SESSION),
    **dict.fromkeys(("cumulate", "Cumulate"), _CUMULATIVE),
    **dict.fromkeys(("CountTrigger", "PurgingTrigger"), "use mill.on_count(100)"),
    **dict.fromkeys(("EventTimeTrigger", "ContinuousEventTimeTrigger"), 'use mill.on_watermark(early="5s")'),
    **dict.fromkeys(("ProcessingTimeTrigger", "ContinuousProcessingTimeTrigger"), 'use mill.on_processing_time("5s")'),
    **dict.fromkeys(("StreamExecutionEnvironment", "Dataflow", "SparkSession", "App"), _NO_ENVIRONMENT),
    **dict.fromkeys(("KeyedProcessFunction", "CoProcessFunction", "KeyedCoProcessFunction"), "use mill.ProcessFunction"),
    **dict.fromkeys(("MapFunction", "FlatMapFunction", "FilterFunction"), "map(), flat_map() and filter() take any function"),
    **dict.fromkeys(("ValueStateDescriptor",), "declare it in the class body of a ProcessFunction: last = mill.ValueState(int)"),
    **dict.fromkeys(("ListStateDescriptor",), "declare it in the class body of a ProcessFunction: items = mill.ListState(int)"),
    **dict.fromkeys(("MapStateDescriptor",), "declare it in the class body of a ProcessFunction: seen = mill.MapState(str, int)"),
    **dict.fromkeys(("from_elements", "from_collection", "from_dicts", "from_records"), "use mill.from_iter([…])"),
    **dict.fromkeys(("from_pandas", "from_polars", "DataFrame", "LazyFrame"), "use mill.from_arrow(frame)"),
    **dict.fromkeys(("scan_csv",), "use mill.read_csv()"),
    **dict.fromkeys(("scan_parquet",), "use mill.read_parquet()"),
    **dict.fromkeys(("scan_ipc", "read_ipc", "read_feather", "read_ipc_stream"), "use mill.read_arrow()"),
    **dict.fromkeys(("scan_ndjson", "read_ndjson", "read_jsonl"), "use mill.read_json()"),
    **dict.fromkeys(("len", "size"), "use mill.count()"),
    **{name: f'use col("x").{name}()' for name in _AGGREGATES},
    "testing": "it is a module of its own: from millstream import testing",
    "bench": "it is a module of its own: from millstream import bench",
}
"""Names that the package does not have; a module exists once it is imported."""


def no_attribute(owner: object, name: str) -> AttributeError:
    """Return the error for a name that does not exist, with the equivalent to write where that is known.

    Examples
    --------
    >>> mill.from_iter([1]).group_by("value")
    Traceback (most recent call last):
        ...
    AttributeError: Stream has no group_by; use key_by(), as in key_by("user")
    """
    # A class has its static methods, an object all of them.
    made = owner if isinstance(owner, type) else type(owner)
    # What when(…).then(…) returns is an expression, too.
    base = next((each.__name__ for each in made.__mro__ if each.__name__ in _HINTS), made.__name__)
    kind, hints = _WRITTEN.get(base, base), _HINTS.get(base, {})
    hint = hints.get(name) or _elsewhere(base, name)
    if hint is not None:
        return AttributeError(f"{kind} has no {name}; {hint}", name=name, obj=owner)
    kind = kind if base in _WRITTEN else made.__name__
    message = f"{'type object ' if made is owner else ''}{kind!r}{'' if made is owner else ' object'} has no attribute {name!r}"
    if name.startswith("_"):
        return AttributeError(message, name=name, obj=owner)
    own = [each for each in dir(made) if not each.startswith("_")]
    near = nearest(name, (*own, *hints))
    if near is None:
        return AttributeError(message, name=name, obj=owner)
    # Without the name, as the interpreter would say again where it prints the error what a notebook shows only so.
    return AttributeError(f"{message}; did you mean {near!r}?" if near in own else f"{message}; if {near!r} is meant: {hints[near]}")


def _elsewhere(kind: str, name: str) -> str | None:
    """Return where an expression has a name: in one of its namespaces, or outside of the namespace that was asked."""
    if name.startswith("_") or (kind != "Expr" and kind not in _WRITTEN):
        return None
    from millstream.expr import Expr

    if kind != "Expr" and callable(getattr(Expr, name, None)):
        return f'it is a function of every expression: col("x").{name}()'
    found = [f'col("x").{space}.{name}()' for space in _expressions.NAMESPACES if hasattr(_namespace(Expr, space), name)]
    return f"use {' or '.join(found)}" if found else None


def _namespace(expr: type, name: str) -> type:
    """Return the class of a namespace."""
    from millstream import _namespaces

    kind: type = getattr(_namespaces, _expressions.NAMESPACES[name])
    return kind


def no_name(package: object, names: Iterable[str], name: str) -> AttributeError:
    """Return the error for a name that the package does not have."""
    hint = _OF_PACKAGE.get(name)
    if hint is not None:
        return AttributeError(f"millstream has no {name}; {hint}")
    meant = "" if name.startswith("_") else did_you_mean(name, names)
    message = f"module 'millstream' has no attribute {name!r}{meant}"
    # Without the name, as the interpreter would say again what was meant.
    return AttributeError(message) if meant else AttributeError(message, name=name, obj=package)


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
