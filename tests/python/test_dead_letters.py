"""Dead letters of a whole job: one stream for all steps, what a letter is of, and which steps need a sink for theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, element, lit, when

AT = datetime(2026, 1, 1)


def nothing(row: Any) -> None:
    """Take a row."""


# -- one stream for all steps --------------------------------------------------------------------------------------------


def letters(*streams: Any) -> list[tuple[str, str]]:
    found = mill.all_errors(*streams).collect(on_error="route").to_pylist()
    return sorted((letter["step"], letter["record"]) for letter in found)


def test_a_step_that_two_branches_share_is_there_once(tmp_path: Path) -> None:
    parsed = mill.from_iter(["1", "x", "0"]).select(n=col("value").cast(int)).name("parse")
    halves = parsed.map(lambda row: {"half": 6 // row.n}, schema={"half": int}).name("halve")
    texts = parsed.with_columns(t=col("n").cast(str)).with_columns(back=col("t").str.to_integer()).name("back")
    outputs = [halves.write_json(tmp_path / "halves"), texts.write_json(tmp_path / "texts")]
    kept: list[Any] = []
    report = mill.run(*outputs, mill.all_errors(*outputs).for_each(kept.append), on_error="route")
    assert sorted((row.step, row.record) for row in kept) == [("halve", '{"n":0}'), ("parse", '{"value":"x"}')]
    assert report.rows_routed == 2
    assert letters(halves, texts) == letters(*outputs) == letters(halves, texts, halves, outputs[0])
    # The branches of one step, and what comes of a stream of errors.
    yes, no = parsed.branch(col("n") > 0)
    assert letters(yes, no) == [("parse", '{"value":"x"}')]
    sized = parsed.errors.map(lambda row: {"n": 1 // 0}, schema={"n": int}).name("after")
    assert [step for step, _ in letters(parsed, sized)] == ["after", "parse"]


class Inverse(mill.ProcessFunction):
    def process(self, row: Any, ctx: mill.ProcessContext) -> Any:
        yield {"x": 1 / row.n}


class Both(mill.ProcessFunction):
    def process_left(self, row: Any, ctx: mill.ProcessContext) -> Any:
        yield {"x": 1 / row.n}

    def process_right(self, row: Any, ctx: mill.ProcessContext) -> Any:
        return ()


KINDS: dict[str, Callable[[mill.Stream], Any]] = {
    "keyed": lambda s: s.key_by("n"),
    "key expression": lambda s: s.key_by(k=col("n") + 1),
    "agg": lambda s: s.key_by("n").agg(x=mill.count()),
    "windowed": lambda s: s.key_by("n").window(mill.tumbling("1s")),
    "windows": lambda s: s.key_by("n").window(mill.session("1s")).agg(x=mill.count()),
    "rolling": lambda s: s.key_by("n").rolling("1s"),
    "connected": lambda s: s.key_by("n").connect(s.key_by("n")),
    "two inputs": lambda s: s.key_by("n").connect(s.key_by("n")).process(Both(), schema={"x": float}),
    "process": lambda s: s.key_by("n").process(Inverse(), schema={"x": float}),
    "join": lambda s: s.join(s, on="n", window=mill.tumbling("1s")),
    "enrich": lambda s: s.enrich(mill.from_iter([{"n": 1, "y": 2}]), on="n"),
    "sink": lambda s: s.write_csv("never-written/"),
    "named sink": lambda s: s.for_each(nothing).name("shown"),
    "late": lambda s: s.key_by("n").window(mill.tumbling("1s")).agg(x=mill.count()).late,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_stream_has_the_errors_of_the_steps_before_it(kind: str) -> None:
    source = mill.from_iter([{"n": "1", "t": AT}, {"n": "x", "t": AT}]).event_time("t", watermark="1s")
    parsed = source.with_columns(n=col("n").cast(int)).name("parse")
    assert letters(KINDS[kind](parsed)) == [("parse", '{"n":"x","t":"2026-01-01T00:00:00"}')]


def test_sources_joins_and_functions_are_steps_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\nmany\n0\n")
    read = mill.read_csv(tmp_path / "a.csv", schema={"n": int}).name("read")
    inverse = read.key_by("n").process(Inverse(), schema={"x": float}).name("invert")
    found = letters(inverse.for_each(nothing), read.key_by("n"))
    assert found == [("invert", '{"n":0}'), ("read", "many")]
    rows = [{"n": 1, "more": "y" * 2000}, {"n": "z", "more": "y" * 2000}]
    given = mill.from_iter(lambda start: iter(rows[start:]), schema={"n": int, "more": str}).name("given")
    [(_, record)] = letters(given)
    assert json.loads(record) == {"n": "z", "more": "y" * 2000}


def test_what_is_no_stream_and_steps_that_cannot_fail_are_refused() -> None:
    numbers = mill.from_iter([{"n": 1}])
    with pytest.raises(mill.PlanError, match=r"needs the streams whose errors it has"):
        mill.all_errors()
    with pytest.raises(mill.PlanError, match=r"takes streams and sinks, not list; pass several one by one, as in all_errors\(\*sinks\)"):
        mill.all_errors([numbers])  # type: ignore[arg-type]
    with pytest.raises(mill.PlanError, match=r"takes streams and sinks, not str$"):
        mill.all_errors("n")  # type: ignore[arg-type]


def test_streams_without_rows_say_where_errors_are() -> None:
    keyed = mill.from_iter([{"n": "1", "t": AT}, {"n": "x", "t": AT}]).event_time("t").key_by(k=col("n").cast(int))
    assert [json.loads(row["record"])["n"] for row in keyed.errors.collect(on_error="route").to_pylist()] == ["x"]
    assert keyed.all_errors.collect(on_error="route")["record"] == keyed.errors.collect(on_error="route")["record"]
    for stream in (keyed.window(mill.tumbling("1s")), keyed.rolling("1s"), keyed.connect(keyed)):
        for name in ("errors", "all_errors"):
            with pytest.raises(AttributeError, match=rf"has no {name}; it has no rows yet: \.errors and \.all_errors are of the result"):
                getattr(stream, name)
    with pytest.raises(AttributeError, match=r"Output has no all_errors; use mill\.all_errors"):
        _ = mill.from_iter([1]).for_each(nothing).all_errors  # type: ignore[attr-defined]
    with mill.start(mill.from_iter([1]).for_each(nothing)) as job:
        with pytest.raises(AttributeError, match=r"Job has no errors; .* mill\.all_errors\(…\) of its sinks"):
            _ = job.errors  # type: ignore[attr-defined]
        job.wait()


# -- what a letter is of -------------------------------------------------------------------------------------------------


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __repr__(self) -> str:
        return f"Point({self.x})"


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Gone:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


OBJECTS: list[tuple[Any, Any]] = [
    (Point(1), "Point(1)"),
    ({"a": [1, None, "é"], "b": {"c": 1.5}}, {"a": [1, None, "é"], "b": {"c": 1.5}}),
    ([Point(2), AT, Decimal("1.50"), b"\x00"], ["Point(2)", "2026-01-01T00:00:00", "Decimal('1.50')", "b'\\x00'"]),
    ("text", "text"),
    (1, 1),
    (True, True),
    (None, None),
    (float("nan"), "nan"),
    ({(1, 2): 3}, "{(1, 2): 3}"),
    ({1, 2}, "{1, 2}"),
    ("\udc80", "\udc80"),
    (Mute(), "<a Mute whose repr raises RuntimeError>"),
    ([Mute()], ["<a Mute whose repr raises RuntimeError>"]),
]


@pytest.mark.parametrize("place", range(len(OBJECTS)))
def test_objects_are_in_the_record_at_every_kind_of_step(place: int) -> None:
    value, shown = OBJECTS[place]
    stream = mill.from_iter([{"n": "x", "o": value}], schema={"n": str, "o": object})
    steps = [
        stream.with_columns(n=col("n").cast(int)),
        stream.filter(col("n").cast(int) > 0),
        stream.map(lambda row: {"n": int(row.n)}, schema={"n": int}),
        stream.map_batches(lambda batch: 1 // 0, schema={"n": int}),
        stream.key_by("n").process(Inverse(), schema={"x": float}),
        stream.key_by(k=col("n").cast(int)).agg(n=mill.count()),
    ]
    for failing in steps:
        [letter] = failing.all_errors.collect(on_error="route").to_pylist()
        assert json.loads(letter["record"]) == {"n": "x", "o": shown}, failing


def test_an_object_is_cut_only_where_its_repr_is_long() -> None:
    long = mill.from_iter([{"n": "x", "o": [Point(10**20_0)] * 3000}, {"n": "x", "o": set(range(10_000))}], schema={"n": str, "o": object})
    first, second = (json.loads(record) for record in long.with_columns(n=col("n").cast(int)).errors.collect(parallelism=1, on_error="route")["record"])
    assert len(first["o"]) == 3000
    assert len(second["o"]) == 10_001 and second["o"].endswith("…")


def test_an_object_that_cannot_be_unpickled_says_so() -> None:
    stream = mill.from_iter([{"n": "x", "o": Gone()}], schema={"n": str, "o": object})
    [letter] = stream.with_columns(n=col("n").cast(int)).errors.collect(on_error="route").to_pylist()
    assert json.loads(letter["record"])["o"].startswith("<an object that cannot be unpickled: ValueError")


BIG = 2**62
ROWS = [{"k": "a", "v": BIG, "w": 1, "t": AT}, {"k": "a", "v": BIG, "w": 2, "t": AT}, {"k": "b", "v": 1, "w": 3, "t": AT}]
WINDOW = {"window_start": "2026-01-01T00:00:00", "window_end": "2026-01-01T00:00:10"}
RESULTS: dict[str, tuple[Callable[[mill.Stream, Any], mill.Stream], dict[str, Any]]] = {
    "agg": (lambda s, sums: s.key_by("k").agg(**sums), {"k": "a"}),
    "agg each": (lambda s, sums: s.key_by("k").agg(**sums, emit="each"), {"k": "a"}),
    "no key": (lambda s, sums: s.agg(**sums), {"n": 3, "start": 3}),
    "tumbling": (lambda s, sums: s.key_by("k").window(mill.tumbling("10s")).agg(**sums), {"k": "a", **WINDOW}),
    "sliding": (lambda s, sums: s.key_by("k").window(mill.sliding("10s", slide="10s")).agg(**sums), {"k": "a", **WINDOW}),
    "all": (lambda s, sums: s.window_all(mill.tumbling("10s")).agg(**sums), {"n": 3, "start": 3, **WINDOW}),
    "session": (lambda s, sums: s.key_by("k").window(mill.session("10s")).agg(**sums), {"k": "a", **WINDOW}),
    "count": (lambda s, sums: s.key_by("k").window(mill.count_window(2)).agg(**sums), {"k": "a"}),
    "rolling": (lambda s, sums: s.key_by("k").rolling("10s").agg(**sums), {"k": "a"}),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_that_does_not_fit_is_shown_with_the_others(kind: str) -> None:
    """It had its key alone, and without a key nothing: "{}"."""
    stream = mill.from_iter(ROWS).event_time("t", watermark="1s")
    make, expected = RESULTS[kind]
    result = make(stream, {"total": col("v").sum(), "n": mill.count(), "start": col("w").max()})
    found = result.errors.collect(on_error="route", parallelism=1).to_pylist()
    assert found
    for letter in found:
        record = json.loads(letter["record"])
        assert re.search(r'sum "total" is \d+ and overflows int64', letter["error"])
        assert record.pop("total", "absent") is None
        wanted = {"n": 2, "start": 2, **expected}
        assert record == wanted or kind == "rolling" and wanted.items() <= record.items(), letter


def test_a_result_within_an_expression_is_named_in_the_error() -> None:
    stream = mill.from_iter(ROWS)
    [letter] = stream.agg(x=col("v").sum() / mill.count(), most=col("w").max()).errors.collect(on_error="route").to_pylist()
    assert json.loads(letter["record"]) == {"most": 3}
    assert letter["error"].startswith(f"a sum is {2 * BIG + 1} and overflows int64")
    [letter] = stream.agg(x=col("v").sum() / mill.count()).errors.collect(on_error="route").to_pylist()
    assert letter["record"] == "{}"


# -- which steps need a sink for their errors ----------------------------------------------------------------------------

NS, US, S = pa.timestamp("ns"), pa.timestamp("us"), pa.timestamp("s")
I64 = pa.array([2**63 - 1, -(2**63), 0])
ORDINARY = pa.array([2**53, -(2**53), 0])
FIRST, LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)
YEARS = [FIRST, LAST, AT]
DAYS = pa.array([year.date() for year in YEARS])
FITS: dict[str, tuple[pa.Array, Any]] = {
    "itself": (I64, int),
    "int32 to int64": (pa.array([2**31 - 1, -(2**31)], pa.int32()), int),
    "uint32 to int64": (pa.array([2**32 - 1], pa.uint32()), int),
    "int32 to float": (pa.array([2**31 - 1, -(2**31)], pa.int32()), float),
    "int64 to float": (ORDINARY, float),
    "uint64 to float": (pa.array([2**53], pa.uint64()), float),
    "float32 to float": (pa.array([3.4e38, -1e-45], pa.float32()), float),
    "int64 to decimal": (I64, pa.decimal128(38, 10)),
    "decimal to float": (pa.array([Decimal("9" * 38), Decimal("-" + "9" * 38)], pa.decimal128(38, 0)), float),
    "decimal to wider": (pa.array([Decimal("99.99")], pa.decimal128(4, 2)), pa.decimal128(10, 4)),
    "bool to int": (pa.array([True, False]), int),
    "int to bool": (I64, bool),
    "int to text": (I64, str),
    "time to text": (pa.array(YEARS, US), str),
    "duration to text": (pa.array([2**63 - 1, -(2**63)], pa.duration("us")), str),
    "date to timestamp": (DAYS, mill.Timestamp("us")),
    "date to seconds": (DAYS, mill.Timestamp("s")),
    "date64 to date": (pa.array(YEARS, pa.date64()), pa.date32()),
    "timestamp to date": (pa.array(YEARS, US), pa.date32()),
    "timestamp to coarser": (pa.array([2**63 - 1, -(2**63)], NS), mill.Timestamp("s")),
    "timestamp to finer": (pa.array(YEARS, S), mill.Timestamp("us")),
    "duration to finer": (pa.array([timedelta(days=999_999)], pa.duration("s")), pa.duration("us")),
    "time of day to finer": (pa.array([86_399], pa.time32("s")), pa.time64("us")),
    "time of day to coarser": (pa.array([86_399_999_999], pa.time64("us")), pa.time32("s")),
    "dictionary to its values": (pa.array(["a", None]).dictionary_encode(), str),
    "null to int": (pa.nulls(2), int),
    "list to itself": (pa.array([[1], None]), list[int]),
    "list of int32 to int64": (pa.array([[1], None], pa.list_(pa.int32())), list[int]),
}
MISFITS: dict[str, tuple[pa.Array, Any]] = {
    "text to int": (pa.array(["x"]), int),
    "text to bool": (pa.array(["x"]), bool),
    "float to int": (pa.array([0.5]), int),
    "float to float32": (pa.array([1e300]), pa.float32()),
    "int64 to float32": (pa.array([2**24 + 1]), pa.float32()),
    "int64 to int32": (I64, pa.int32()),
    "int64 to uint64": (I64, pa.uint64()),
    "uint64 to int64": (pa.array([2**64 - 1], pa.uint64()), int),
    "int64 to small decimal": (I64, pa.decimal128(10, 2)),
    "decimal to int": (pa.array([Decimal("0.5")]), int),
    "decimal to narrower": (pa.array([Decimal("0.555")]), pa.decimal128(4, 2)),
    "decimal256 to float32": (pa.array([Decimal("9" * 60)], pa.decimal256(60, 0)), pa.float32()),
    "date to nanoseconds": (DAYS, mill.Timestamp("ns")),
    "timestamp to nanoseconds": (pa.array(YEARS, US), mill.Timestamp("ns")),
    "duration to nanoseconds": (pa.array([2**62], pa.duration("us")), pa.duration("ns")),
    "text to date": (pa.array(["x"]), pa.date32()),
    "bytes to text": (pa.array([b"\xff"]), str),
    "dictionary of text to int": (pa.array(["x"]).dictionary_encode(), int),
    "list of text to int": (pa.array([["x"]]), list[int]),
}


def routed(stream: mill.Stream) -> mill.Report:
    other = mill.from_iter([1]).map(lambda row: row)
    return mill.run(stream.for_each(nothing), other.errors.for_each(nothing), on_error="route")


@pytest.mark.parametrize("name", FITS)
def test_a_cast_into_a_type_that_holds_the_values_needs_no_sink_for_errors(name: str) -> None:
    array, to = FITS[name]
    table = mill.from_arrow(pa.table({"x": array}))
    assert routed(table.select(y=col("x").cast(to))).rows_routed == 0
    assert routed(table.cast({"x": to})).rows_routed == 0


@pytest.mark.parametrize("name", MISFITS)
def test_a_cast_that_may_fail_needs_one(name: str) -> None:
    array, to = MISFITS[name]
    table = mill.from_arrow(pa.table({"x": array}))
    cast = table.with_columns(y=col("x").cast(to))
    with pytest.raises(mill.PlanError, match="would reach no sink: write its .errors, or mill.all_errors"):
        routed(cast)
    with pytest.raises(mill.DataError):
        cast.collect()
    assert routed(table.with_columns(y=col("x").cast(to, strict=False))).rows_routed == 0


def test_a_value_beyond_what_a_plan_foresees_fails_the_job() -> None:
    table = mill.from_arrow(pa.table({"x": [2**53 + 1]}))
    with pytest.raises(mill.DataError, match=r"9007199254740993 .*no sink takes the \.errors of this step: write them, or mill\.all_errors"):
        routed(table.with_columns(y=col("x").cast(float)))


def test_what_cannot_fail_needs_no_sink_for_errors() -> None:
    stream = mill.from_iter([{"a": 1, "t": "x"}])
    for harmless in (
        stream.with_columns(seen=mill.now()),
        stream.filter(mill.now() > lit(AT).dt.replace_time_zone("UTC")),
        stream.with_columns(x=lit("7").cast(int) + col("a")),
        stream.with_columns(x=(col("a") + 1).cast(float)),
        stream.with_columns(x=when(col("a") > 0).then(col("a").cast(float))),
        stream.key_by("t").agg(x=col("a").cast(float).sum()),
        mill.generate(rows=3, x=mill.index().cast(float)),
        mill.from_iter([{"l": [1, 2]}]).with_columns(m=col("l").list.eval(element().cast(float))),
        stream.join(stream, left_on=col("a").cast(float), right_on=col("a").cast(float), ttl="1h"),
    ):
        assert routed(harmless).rows_routed == 0
    lists = mill.from_iter([{"l": ["1", "x"]}])
    for strict in (
        lists.with_columns(m=col("l").list.eval(element().cast(int))),
        stream.with_columns(x=(col("t").cast(int) + 1).cast(float)),
        stream.join(stream, left_on=col("t").cast(int), right_on="a", ttl="1h"),
    ):
        with pytest.raises(mill.PlanError, match="would reach no sink"):
            routed(strict)


def test_steps_with_the_time_of_the_clock_alone_are_not_functions_of_the_user(tmp_path: Path) -> None:
    """Two steps that differed in nothing were refused with a checkpoint, as if each called a function."""
    stream = mill.generate(rows=3, k=mill.index())
    sums = [stream.with_columns(seen=mill.now()).key_by("k").agg(n=mill.count()).write_json(tmp_path / name) for name in ("a", "b")]
    assert mill.run(*sums, checkpoint=tmp_path / "state").rows_in in (3, 6)


# -- how many ------------------------------------------------------------------------------------------------------------


def test_counts_have_the_names_that_letters_have() -> None:
    """A step that runs in parts had its errors at a part, whose name no letter has."""
    rows = mill.from_iter([{"k": "a", "v": "x"}, {"k": "a", "v": "1"}, {"k": "b", "v": str(2**62)}, {"k": "b", "v": str(2**62)}])
    sums = rows.key_by("k").agg(total=col("v").cast(int).sum()).name("sums")
    kept: list[Any] = []
    report = mill.run(sums.for_each(nothing), sums.errors.for_each(kept.append), on_error="route")
    assert [row.step for row in kept] == ["sums", "sums"]
    assert report.errors == {"sums": 2}
    assert {step.name: step.rows_routed for step in report.steps if step.rows_routed} == {"sums.input": 1, "sums": 1}
    assert {step.step for step in report.steps if step.name.startswith("sums")} >= {"sums"}
    assert mill.run(sums.filter(col("total") > 5).for_each(nothing), on_error="skip").errors == {"sums": 2}
    job = mill.start(sums.for_each(nothing), on_error="skip")
    job.wait()
    assert job.metrics().errors == {"sums": 2}


def test_the_report_counts_errors_per_step() -> None:
    stream = mill.from_iter([{"n": "1", "t": AT}, {"n": "x", "t": AT}, {"n": "0", "t": AT}, {"n": "2", "t": AT - timedelta(days=1)}])
    parsed = stream.with_columns(n=col("n").cast(int)).name("parse")
    inverse = parsed.map(lambda row: {"inverse": 1 / row.n, "t": row.t}, schema={"inverse": float, "t": datetime}).name("invert")
    counted = inverse.event_time("t", watermark="1s").window_all(mill.tumbling("1m")).agg(n=mill.count()).name("count")
    for mode in ("skipped", "routed"):
        sinks = [counted.for_each(nothing).name("out")]
        if mode == "routed":
            sinks.append(mill.all_errors(*sinks).for_each(nothing).name("letters"))
        report = mill.run(*sinks, on_error="route" if mode == "routed" else "skip")
        lines = {line.split()[0]: line.split()[1:] for line in str(report).splitlines() if line.startswith("  ")}
        assert lines["parse"] == ["4", "in", "3", "out", "1", mode]
        assert lines["invert"] == ["3", "in", "2", "out", "1", mode]
        assert lines["count.partial"][-2:] == ["1", "late"]
        assert lines["out"] == ["1", "in", "0", "out"]
        assert f"2 {mode}" in str(report).splitlines()[0]
        assert report.errors == {"parse": 1, "invert": 1}
        assert "errors: 1 in parse, 1 in invert" in str(report).splitlines()
        assert "errors: 1 in parse, 1 in invert" in report._repr_html_()
        assert f"<th>{mode}</th>" in report._repr_html_()
