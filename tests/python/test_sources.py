"""Sources from Python: iterables, functions of an offset, classes; and that a run goes on where the last one stood."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as mill


@dataclass
class Point:
    x: int
    y: float | None = None


def test_from_iter_takes_every_form() -> None:
    assert mill.from_iter([{"a": 1}]).schema == {"a": int}
    assert mill.from_iter([Point(1, 2.0)]).collect().to_pylist() == [{"x": 1, "y": 2.0}]
    assert mill.from_iter([(1, "a")], schema={"n": int, "s": str}).collect().to_pylist() == [{"n": 1, "s": "a"}]
    assert mill.from_iter([1.5, None]).collect().to_pylist() == [{"value": 1.5}, {"value": None}]
    assert mill.from_iter([{"a": 1}, {"b": 2}]).collect().to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": 2}]
    assert mill.from_iter([{"l": [{"p": 1}]}]).collect().to_pylist() == [{"l": [{"p": 1}]}]


@pytest.mark.parametrize("make", [lambda: range(10_000), lambda: iter(range(10_000)), lambda: (i for i in range(10_000))])
def test_long_and_lazy_iterables(make: Any) -> None:
    assert mill.from_iter(make()).collect()["value"] == list(range(10_000))


def test_slow_records_are_passed_on_as_they_come() -> None:
    def slowly() -> Iterator[int]:
        for number in range(1000):
            yield number
            time.sleep(0.02)

    began = time.monotonic()
    table = mill.from_iter(slowly(), schema=int).collect(limit=5)
    assert table["value"] == [0, 1, 2, 3, 4]
    assert time.monotonic() - began < 3


def test_iterator_is_read_once() -> None:
    stream = mill.from_iter(iter([1, 2]), schema=int)
    assert len(stream.collect()) == 2
    with pytest.raises(mill.ConnectorError, match="read already") as info:
        stream.collect()
    assert "function of a start offset" in str(info.value)


def test_exception_of_an_iterable_is_the_cause() -> None:
    def broken(start: int) -> Iterator[int]:
        yield 1
        raise OSError("line went dead")

    with pytest.raises(mill.ConnectorError, match="line went dead") as info:
        mill.from_iter(broken, schema=int).collect()
    assert isinstance(info.value.__cause__, OSError)


def test_function_of_an_offset_goes_on_where_it_stood(tmp_path: Path) -> None:
    starts: list[int] = []

    def numbers(start: int) -> Iterator[int]:
        starts.append(start)
        for number in range(start, 100_000):
            if number == 500 and start == 0:
                time.sleep(0.4)
                raise RuntimeError("dies here")
            yield number

    def job() -> mill.Report:
        sink = mill.from_iter(numbers, schema=int).write_csv(tmp_path / "out")
        return mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms"))

    with pytest.raises(mill.ConnectorError, match="dies here"):
        job()
    job()
    assert len(starts) == 2
    assert 0 < starts[1] <= 500
    found = mill.read_csv(tmp_path / "out").collect()["value"]
    assert sorted(found) == list(range(100_000))


def test_restart_strategy_goes_on_within_one_run(tmp_path: Path) -> None:
    failures = iter([True, True])

    def numbers(start: int) -> Iterator[int]:
        for number in range(start, 2000):
            if number == 1000 and next(failures, False):
                time.sleep(0.2)
                raise RuntimeError("again")
            yield number

    sink = mill.from_iter(numbers, schema=int).write_csv(tmp_path / "out")
    report = mill.run(
        sink,
        checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms"),
        restart=mill.Restart.fixed_delay(5, "10ms"),
    )
    assert report.status == "finished"
    assert sorted(mill.read_csv(tmp_path / "out").collect()["value"]) == list(range(2000))


class Parts(mill.Source):
    schema = {"part": str, "n": int}

    def __init__(self, size: int, die_at: int | None = None) -> None:
        self.size = size
        self.die_at = die_at
        self.opened: list[tuple[str, Any]] = []

    def partitions(self) -> list[str]:
        return ["a", "b", "c"]

    def open(self, partition: str, position: Any) -> PartReader:
        self.opened.append((partition, position))
        return PartReader(self, partition, position or 0)


class PartReader(mill.SourceReader):
    def __init__(self, source: Parts, part: str, at: int) -> None:
        self.source, self.part, self.at = source, part, at

    def next_batch(self) -> Any:
        if self.at >= self.source.size:
            return None
        if self.source.die_at is not None and self.part == "b" and self.at >= self.source.die_at:
            time.sleep(0.3)
            raise RuntimeError("dies here")
        batch = [{"part": self.part, "n": n} for n in range(self.at, min(self.at + 10, self.source.size))]
        self.at += len(batch)
        return batch

    def position(self) -> int:
        return self.at


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_own_source(parallelism: int) -> None:
    table = mill.from_source(Parts(95)).collect(parallelism=parallelism)
    assert sorted((r["part"], r["n"]) for r in table) == [(p, n) for p in "abc" for n in range(95)]


def test_own_source_goes_on_where_it_stood(tmp_path: Path) -> None:
    def job(source: Parts) -> mill.Report:
        sink = mill.from_source(source).write_csv(tmp_path / "out")
        return mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms"), parallelism=2)

    with pytest.raises(mill.ConnectorError, match="dies here"):
        job(Parts(200, die_at=100))
    again = Parts(200)
    job(again)
    assert any(position for _, position in again.opened)
    found = mill.read_csv(tmp_path / "out").collect()
    assert sorted((r["part"], r["n"]) for r in found) == [(p, n) for p in "abc" for n in range(200)]


def test_own_source_that_says_too_little() -> None:
    class Nothing(mill.Source):
        def open(self, partition: str, position: Any) -> Any: ...

    with pytest.raises(mill.PlanError, match="declares no columns"):
        mill.from_source(Nothing())
    with pytest.raises(mill.PlanError, match="pass an object"):
        mill.from_source(Parts)  # type: ignore[arg-type]


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.txt").write_text("three")
    assert sorted(mill.read_text(tmp_path / "*.txt").collect()["line"]) == ["one", "three", "two"]
    (tmp_path / "a.json").write_text('{"a": 1, "b": "x"}\n{"a": 2, "b": null}\n')
    assert mill.read_json(tmp_path / "a.json").collect().to_pylist() == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]


def test_records_that_do_not_fit_are_told_one_by_one() -> None:
    stream = mill.from_iter(lambda start: iter([1, "x", 3][start:]), schema=int)
    with pytest.raises(mill.MillstreamError, match="cannot hold 'x'"):
        stream.collect()
    assert stream.collect(on_error="skip")["value"] == [1, 3]


def test_filters_told_to_a_reader_give_the_same_rows(tmp_path: Path) -> None:
    rows = 5000
    table = pa.table(
        {
            "number": [None if i % 7 == 0 else i // 10 for i in range(rows)],
            "real": [float("nan") if i % 11 == 0 else i / 100 for i in range(rows)],
            "text": [f"{i // 500:02}" for i in range(rows)],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=900)
    read, memory = mill.read_parquet(tmp_path / "a.parquet"), mill.from_arrow(table)
    number, real, text = mill.col("number"), mill.col("real"), mill.col("text")
    for predicate in [number >= 480, (real > 49.9) & text.str.contains("9"), text == "03", (number < 3) & (real < 0.2), ~(number > 5)]:
        kept = [stream.filter(predicate).select("text", "number").collect(parallelism=2).to_arrow() for stream in (read, memory)]
        found, wanted = (sorted(map(tuple, (row.values() for row in one.to_pylist())), key=str) for one in kept)
        assert found == wanted, predicate
    explained = read.filter((number >= 480) & (text != "x")).explain()
    assert "where number >= 480" in explained
    assert "filter" in explained


def test_a_source_that_gives_arrow_is_soon_asked_again() -> None:
    # The pause behind an empty answer grew from answer to answer, also when batches had come between them.
    from millstream.io.sources import _ReaderAdapter

    class Reader(mill.SourceReader):
        answers: Any = iter([[], [], [], mill.from_iter([1]).collect(), [], None])

        def next_batch(self) -> Any:
            return next(self.answers)

        def position(self) -> int:
            return 0

    adapter = _ReaderAdapter(Reader(), "Reader")
    kinds = [adapter.next(10)[:2] for _ in range(6)]
    pauses = [payload for kind, payload in kinds if kind == "pending"]
    assert [kind for kind, _ in kinds] == ["pending", "pending", "pending", "arrow", "pending", "end"]
    assert pauses[0] < pauses[1] < pauses[2]
    assert pauses[3] == pauses[0]
