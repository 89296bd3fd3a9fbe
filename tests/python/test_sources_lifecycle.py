"""Readers of the user's are closed in every ending, and keep neither threads nor records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill


class Log(mill.Source):
    """A source that notes what becomes of its readers."""

    schema = {"v": int}

    def __init__(self, rows: int | None, partitions: int = 1, fails_at: int | None = None, is_bounded: bool = True) -> None:
        self.rows = rows
        self.is_bounded = is_bounded
        self.names = [str(number) for number in range(partitions)]
        self.fails_at = fails_at
        self.opened = 0
        self.closed = 0
        self.threads: set[threading.Thread] = set()

    def partitions(self) -> list[str]:
        return self.names

    def open(self, partition: str, position: Any | None) -> mill.SourceReader:
        self.opened += 1
        self.threads.add(threading.current_thread())
        return LogReader(self, position or 0)


class LogReader(mill.SourceReader):
    def __init__(self, log: Log, given: int) -> None:
        self.log = log
        self.given = given

    def next_batch(self) -> Any:
        if self.log.fails_at == self.given:
            self.log.fails_at = None
            raise ValueError("as asked")
        if self.log.rows is None or (self.given >= self.log.rows and not self.log.is_bounded):
            return []
        if self.given >= self.log.rows:
            return None
        self.given += 1
        return [{"v": self.given - 1}]

    def position(self) -> Any:
        return self.given

    def close(self) -> None:
        self.log.closed += 1


def no_readers_left() -> bool:
    """Whether the threads of readers are gone; they need a moment."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        names = [Path(f"/proc/self/task/{task.name}/comm") for task in Path("/proc/self/task").iterdir()]
        alive = []
        for name in names:
            try:
                alive.append(name.read_text().strip())
            except OSError:
                continue
        if "mill-reader" not in alive:
            return True
        time.sleep(0.01)
    return False


def finished(log: Log, tmp_path: Path) -> None:
    mill.run(mill.from_source(log).for_each(lambda row: None))


def stopped(log: Log, tmp_path: Path) -> None:
    job = mill.start(mill.from_source(log).write_json(tmp_path / "out"), checkpoint=tmp_path / "state")
    while log.opened < len(log.names):
        time.sleep(0.005)
    job.stop()
    assert job.wait("20s").status == "stopped"


def cancelled(log: Log, tmp_path: Path) -> None:
    job = mill.start(mill.from_source(log).for_each(lambda row: None))
    while log.opened < len(log.names):
        time.sleep(0.005)
    job.cancel()
    job.wait("20s")


def timed(log: Log, tmp_path: Path) -> None:
    mill.run(mill.from_source(log).for_each(lambda row: None), until="100ms")


def dropped(log: Log, tmp_path: Path) -> None:
    job = mill.start(mill.from_source(log).for_each(lambda row: None))
    while log.opened < len(log.names):
        time.sleep(0.005)
    del job


def failed(log: Log, tmp_path: Path) -> None:
    log.fails_at = 0
    with pytest.raises(mill.ConnectorError, match="as asked"):
        mill.run(mill.from_source(log).for_each(lambda row: None))


def restarted(log: Log, tmp_path: Path) -> None:
    log.fails_at = 2
    restart = mill.Restart.fixed_delay(3, "1ms")
    mill.run(mill.from_source(log).write_json(tmp_path / "out"), checkpoint=tmp_path / "state", restart=restart)
    assert log.opened > len(log.names)


@pytest.mark.parametrize("partitions", [1, 5])
@pytest.mark.parametrize(
    ("ending", "rows", "is_bounded"),
    [
        (finished, 3, True),
        (stopped, None, False),
        (stopped, 3, False),
        (cancelled, None, False),
        (timed, None, False),
        (dropped, None, False),
        (failed, 3, True),
        (restarted, 3, True),
    ],
)
def test_every_reader_is_closed_once_however_the_job_ends(
    ending: Callable[[Log, Path], None], rows: int | None, is_bounded: bool, partitions: int, tmp_path: Path
) -> None:
    log = Log(rows, partitions, is_bounded=is_bounded)
    ending(log, tmp_path)
    assert log.opened >= 1
    assert log.closed == log.opened
    assert no_readers_left()


def test_a_reader_that_had_nothing_takes_nothing_from_the_next_job() -> None:
    records: list[int] = []

    class Inbox(mill.Source):
        schema = {"v": int}
        is_bounded = False
        is_replayable = False

        def open(self, partition: str, position: Any | None) -> mill.SourceReader:
            return InboxReader()

    class InboxReader(mill.SourceReader):
        def next_batch(self) -> Any:
            return [{"v": records.pop(0)}] if records else []

        def position(self) -> Any:
            return 0

    for _ in range(3):
        mill.run(mill.from_source(Inbox()).for_each(lambda row: None), until="50ms")
    records += range(100)
    seen: list[int] = []
    job = mill.start(mill.from_source(Inbox()).for_each(lambda row: seen.append(row.v)))
    until = time.monotonic() + 20
    while len(seen) < 100 and time.monotonic() < until:
        time.sleep(0.01)
    job.cancel()
    job.wait("20s")
    assert seen == list(range(100))


def test_a_reader_that_does_not_come_back_is_named(tmp_path: Path) -> None:
    free = threading.Event()

    class Stuck(mill.Source):
        schema = {"v": int}
        is_bounded = False

        def partitions(self) -> list[str]:
            return ["left", "right"]

        def open(self, partition: str, position: Any | None) -> mill.SourceReader:
            return StuckReader(partition)

    class StuckReader(mill.SourceReader):
        def __init__(self, partition: str) -> None:
            self.partition = partition

        def next_batch(self) -> Any:
            if self.partition == "right":
                free.wait()
            return []

        def position(self) -> Any:
            return 0

    began = time.monotonic()
    report = mill.run(mill.from_source(Stuck()).for_each(lambda row: None), until="100ms")
    assert time.monotonic() - began < 5
    assert any("right" in note and "still inside" in note for note in report.notes), report.notes
    assert not any("left" in note for note in report.notes), report.notes
    free.set()
    assert no_readers_left()


@pytest.mark.parametrize("how", ["generator", "function", "limit", "failure"])
def test_generators_are_closed_when_the_job_ends(how: str) -> None:
    log: list[str] = []

    def numbers(start: int = 0) -> Iterator[int]:
        try:
            yield from range(start, 1_000_000)
        finally:
            log.append("closed")

    def fails(row: Any) -> None:
        raise ValueError("as asked")

    stream = mill.from_iter(numbers if how == "function" else numbers(), schema=int)
    if how == "failure":
        with pytest.raises(mill.MillstreamError, match="as asked"):
            mill.run(stream.for_each(fails))
    elif how == "limit":
        assert len(stream.collect(limit=10)) == 10
    else:
        mill.run(stream.for_each_batch(lambda batch: None), until="100ms")
    assert log == ["closed"]


def test_the_look_at_the_first_records_closes_what_it_opened() -> None:
    log: list[str] = []

    def numbers(start: int) -> Iterator[int]:
        try:
            yield from range(start, 5)
        finally:
            log.append("closed")

    assert len(mill.from_iter(numbers).collect()) == 5
    assert log == ["closed", "closed"]


def batches(rows: int, size: int) -> pa.RecordBatchReader:
    schema = pa.schema({"v": pa.int64()})
    made = (pa.record_batch({"v": list(range(at, min(at + size, rows)))}, schema) for at in range(0, rows, size))
    return pa.RecordBatchReader.from_batches(schema, made)


@pytest.mark.parametrize("kind", ["arrow reader", "iterator", "source"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_mode_none_goes_on_after_what_was_read(kind: str, size: int, tmp_path: Path) -> None:
    """A later run gets the input anew, and returns none of it twice; what was in flight at the failure is lost."""
    seen: list[int] = []
    runs = 0

    def stream() -> mill.Stream:
        if kind == "arrow reader":
            return mill.from_arrow(batches(3000, size))
        if kind == "iterator":
            return mill.from_iter(iter(range(3000)), schema={"v": int})
        return mill.from_source(Log(300))

    def note(row: Any) -> None:
        seen.append(row.v)
        if len(seen) == 40:
            raise ValueError("as asked")

    checkpoint = mill.Checkpoint(tmp_path / "state", mode="none")
    with pytest.raises(mill.UserFunctionError, match="as asked"):
        mill.run(stream().for_each(note), checkpoint=checkpoint)
    while runs < 2:
        mill.run(stream().for_each(note), checkpoint=checkpoint)
        runs += 1
    assert len(set(seen)) == len(seen), "a record came twice"
    assert seen == sorted(seen)
    assert seen[:40] == list(range(40))


def test_a_stream_that_is_shorter_than_what_was_read_of_it_is_refused(tmp_path: Path) -> None:
    seen: list[int] = []

    def note(row: Any) -> None:
        seen.append(row.v)
        if len(seen) == 40:
            raise ValueError("as asked")

    checkpoint = mill.Checkpoint(tmp_path / "state", mode="none")
    with pytest.raises(mill.UserFunctionError):
        mill.run(mill.from_arrow(batches(1000, 10)).for_each(note), checkpoint=checkpoint)
    with pytest.raises(mill.CheckpointError, match="ends after 5 rows"):
        mill.run(mill.from_arrow(batches(5, 10)).for_each(note), checkpoint=checkpoint)
