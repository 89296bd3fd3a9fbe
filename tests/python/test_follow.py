"""Followed files: rotated, cut off, written anew, compressed, deleted, and more than there are descriptors."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as mill


def wait_for(condition: Callable[..., bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@contextlib.contextmanager
def following(stream: Any) -> Iterator[list[Any]]:
    """Run a job that collects the first column; at the end it must stop without a failure."""
    got: list[Any] = []
    job = mill.start(stream.for_each(lambda row: got.append(row[0])))
    try:
        yield got
    finally:
        job.stop()
    assert job.wait("10s").status == "stopped"


def parquet(path: Path, values: list[int]) -> None:
    hidden = path.with_name("." + path.name)
    pq.write_table(pa.table({"x": values}), hidden)
    os.rename(hidden, path)


def numbers(path: Path, start: int, end: int) -> None:
    with path.open("a") as file:
        file.writelines(f"{number}\n" for number in range(start, end))


@pytest.mark.parametrize("pattern", ["", "app.log", "app.log*"])
@pytest.mark.parametrize("parallelism", [1, 3])
def test_rotation_by_renaming_reads_each_line_once(tmp_path: Path, pattern: str, parallelism: int) -> None:
    log = tmp_path / "app.log"
    numbers(log, 0, 100)
    got: list[int] = []
    stream = mill.read_text(str(tmp_path / pattern), follow=True)
    job = mill.start(stream.for_each(lambda row: got.append(int(row.line))), parallelism=parallelism)
    end = 100
    for rotation in range(1, 4):
        wait_for(lambda end=end: len(got) == end)
        numbers(log, end, end + 10)
        log.rename(tmp_path / f"app.log.{rotation}")
        numbers(tmp_path / f"app.log.{rotation}", end + 10, end + 20)
        numbers(log, end + 20, end + 30)
        end += 30
    wait_for(lambda: len(got) == end)
    job.stop()
    assert job.wait("10s").status == "stopped"
    assert sorted(got) == list(range(end))


def test_cut_off_and_written_anew_is_read_from_the_start(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("one\ntwo\n")
    with following(mill.read_text(str(log), follow=True)) as got:
        wait_for(lambda: got == ["one", "two"])
        for text in ["x\n", "longer than before, and in place\nof it\n", "LONGER than before, and in place\nof it\n"]:
            del got[:]
            log.write_text(text)
            wait_for(lambda text=text: got == text.splitlines())


def test_csv_written_anew_has_its_header_read_anew(tmp_path: Path) -> None:
    log = tmp_path / "a.csv"
    log.write_text("a,b\n1,2\n")
    with following(mill.read_csv(str(log), schema={"a": int, "b": int}, follow=True)) as got:
        wait_for(lambda: got == [1])
        log.write_text("b,a\n10,20\n30,40\n")
        wait_for(lambda: got == [1, 20, 40])


def test_compressed_files_grow_by_members(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"one\n"))
    with following(mill.read_text(str(tmp_path), follow=True)) as got:
        wait_for(lambda: got == ["one"])
        with path.open("ab") as file:
            file.write(gzip.compress(b"two\n") + gzip.compress(b"three\n"))
        wait_for(lambda: got == ["one", "two", "three"])


def test_parquet_files_that_are_replaced_are_read_as_new_ones(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", [1])
    with following(mill.read_parquet(str(tmp_path), follow=True)) as got:
        wait_for(lambda: got == [1])
        parquet(tmp_path / "a.parquet", [8, 9])
        wait_for(lambda: got == [1, 8, 9])
        buffer = io.BytesIO()
        pq.write_table(pa.table({"x": [20]}), buffer)
        (tmp_path / "a.parquet").write_bytes(buffer.getvalue())
        wait_for(lambda: got == [1, 8, 9, 20])


def run_for(path: Path, reader: Callable[..., Any] = mill.read_text, until: str = "700ms", **options: Any) -> Any:
    stream = reader(str(path / "in"), **options)
    return mill.run(
        stream.write_json(str(path / "out")), checkpoint=mill.Checkpoint(str(path / "st"), every="50ms"), until=until
    )


def lines_out(path: Path) -> list[Any]:
    schema = {"line": str}
    return sorted(mill.read_json(str(path / "out"), schema=schema).collect()["line"])


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A followed directory of two files, of which a job has read all."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.log").write_text("1\n2\n")
    (tmp_path / "in" / "b.log").write_text("3\n")
    run_for(tmp_path, follow=True)
    assert lines_out(tmp_path) == ["1", "2", "3"]
    return tmp_path


def test_restart_after_a_rotation(begun: Path) -> None:
    (begun / "in" / "a.log").rename(begun / "in" / "a.log.1")
    with (begun / "in" / "a.log.1").open("a") as file:
        file.write("4\n")
    (begun / "in" / "a.log").write_text("5\n")
    for _ in range(2):
        run_for(begun, follow=True)
        assert lines_out(begun) == ["1", "2", "3", "4", "5"]


def test_restart_after_a_file_that_was_read_is_gone(begun: Path) -> None:
    (begun / "in" / "a.log").unlink()
    (begun / "in" / "c.log").write_text("6\n")
    run_for(begun, follow=True)
    assert lines_out(begun) == ["1", "2", "3", "6"]


def test_restart_after_the_directory_was_copied_elsewhere(begun: Path) -> None:
    for name in ["a.log", "b.log"]:
        text = (begun / "in" / name).read_bytes()
        (begun / "in" / name).unlink()
        (begun / "in" / ("." + name)).write_bytes(text + b"more of " + name.encode() + b"\n")
        (begun / "in" / ("." + name)).rename(begun / "in" / name)
    run_for(begun, follow=True)
    assert lines_out(begun) == ["1", "2", "3", "more of a.log", "more of b.log"]


def test_a_last_line_without_an_end_is_not_lost_with_its_file(begun: Path) -> None:
    with (begun / "in" / "a.log").open("a") as file:
        file.write("unfinished")
    run_for(begun, follow=True)
    (begun / "in" / "a.log").unlink()
    with pytest.raises(mill.MillstreamError, match="in the middle of .*a.log.*gone"):
        run_for(begun, follow=True)


def test_deleted_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("1\n")
    with following(mill.read_text(str(tmp_path), follow=True)) as got:
        wait_for(lambda: got == ["1"])
        with (tmp_path / "a.log").open("a") as file:
            file.write("no end")
        time.sleep(0.1)
        (tmp_path / "a.log").unlink()
        (tmp_path / "b.log").write_text("2\n")
        wait_for(lambda: sorted(got) == ["1", "2", "no end"])


def test_following_what_a_bounded_job_has_finished_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.log").write_text("1\n")
    run_for(tmp_path)
    (tmp_path / "in" / "b.log").write_text("2\n")
    with pytest.raises(mill.CheckpointError, match="finished.*follow=True"):
        run_for(tmp_path, follow=True)
    run_for(tmp_path)
    assert lines_out(tmp_path) == ["1"]


FEW_DESCRIPTORS = """
import gzip, os, resource, sys, time, threading
import millstream as mill
directory, kind, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
pack = gzip.compress if kind == "gz" else bytes
names = [os.path.join(directory, f"{i:05}.{kind}") for i in range(700)]
def put(what, mode):
    for name in names:
        with open(name, mode) as file:
            file.write(pack(what))
put(b"1\\n", "wb")
got = []
job = mill.start(mill.read_text(directory, follow=True).for_each(lambda row: got.append(row[0])), parallelism=2)
def wait(count):
    end = time.monotonic() + 40
    while len(got) < count and time.monotonic() < end and job.status.state == "running":
        time.sleep(0.05)
wait(700)
put(b"2\\n", "ab")
wait(1400)
job.stop()
job.wait("10s")
print(got.count("1"), got.count("2"))
"""


@pytest.mark.parametrize("kind", ["log", "gz"])
@pytest.mark.parametrize("limit", [256, 1024])
def test_more_files_than_descriptors(tmp_path: Path, kind: str, limit: int) -> None:
    command = [sys.executable, "-c", FEW_DESCRIPTORS, str(tmp_path), kind, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["700", "700"], done.stdout + done.stderr


def rotate(log: Path) -> None:
    """Do what logrotate does with copytruncate."""
    older = sorted(log.parent.glob(f"{log.name}.[0-9]"), reverse=True)
    for path in older:
        path.rename(log.with_name(f"{log.name}.{int(path.suffix[1:]) + 1}"))
    log.with_name(f"{log.name}.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)


@pytest.mark.parametrize("pattern", ["", "app.log*"])
@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("rows", [3, 2000])
def test_rotation_by_copy_and_truncate_reads_each_line_once(tmp_path: Path, pattern: str, parallelism: int, rows: int) -> None:
    log = tmp_path / "app.log"
    numbers(log, 1000, 1000 + rows)
    got: list[int] = []
    stream = mill.read_text(str(tmp_path / pattern), follow=True)
    job = mill.start(stream.for_each(lambda row: got.append(int(row.line))), parallelism=parallelism)
    end = rows
    for _ in range(3):
        wait_for(lambda end=end: len(got) == end)
        # These may or may not have been read by the time of the copy.
        numbers(log, 1000 + end, 1000 + end + 10)
        rotate(log)
        numbers(log, 1000 + end + 10, 1000 + end + 20)
        end += 20
    wait_for(lambda: len(got) == end)
    time.sleep(0.5)
    job.stop()
    report = job.wait("10s")
    assert sorted(got) == list(range(1000, 1000 + end))
    assert (report.truncations, report.bytes_lost) == (3, 0)


class Slow:
    """Passes lines on, slowly until it is told to go on."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.is_fast = False

    def __call__(self, row: Any) -> None:
        if not self.is_fast:
            time.sleep(0.001)
        self.seen.append(row.line[:6])


def long_lines(path: Path, start: int, end: int) -> None:
    with path.open("a") as file:
        file.writelines(f"{number:06}{'.' * 300}\n" for number in range(start, end))


def test_what_a_truncation_loses_is_reported_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # The rest of a log of 150 MB was lost without a word.
    log = tmp_path / "app.log"
    long_lines(log, 0, 30_000)
    size = log.stat().st_size
    slow = Slow()
    job = mill.start(mill.read_text(str(log), follow=True).for_each(slow), parallelism=1)
    wait_for(lambda: len(slow.seen) > 100)
    os.truncate(log, 0)
    long_lines(log, 99_000, 99_002)
    slow.is_fast = True
    wait_for(lambda: slow.seen[-2:] == ["099000", "099001"])
    wait_for(lambda: job.metrics().truncations == 1)
    lost = job.metrics().bytes_lost
    read = sum(not line.startswith("099") for line in slow.seen)
    assert lost > 0
    assert abs(size - lost - read * 307) < 307
    assert slow.seen[:-2] == [f"{number:06}" for number in range(read)]
    said = rf'"{log}" was truncated, and is read from its start: {lost} of {size} bytes had not been read and are lost'
    wait_for(lambda: said in job.status.notes)
    wait_for(lambda: any(said in record.getMessage() for record in caplog.records))
    job.stop()
    report = job.wait("10s")
    assert report.notes == [said]
    assert (report.truncations, report.bytes_lost) == (1, lost)
    assert [record.getMessage() for record in caplog.records].count(said) == 1
    assert f"millstream_step_lost_bytes_total{{step=\"read_text\"}} {lost}" in report.to_prometheus()
    assert "bytes lost" in str(report)
    assert "bytes lost" in report._repr_html_()


@pytest.mark.parametrize("kind", ["text", "csv", "json"])
def test_a_line_that_was_cut_off_is_no_record(tmp_path: Path, kind: str) -> None:
    """It has no line break yet when the file is truncated, so it is lost, and counted."""
    log = tmp_path / f"app.{kind}"
    lines = {"text": ["one", "tw", "three"], "csv": ["x\n1", "2", "x\n3"], "json": ['{"x": 1}', '{"x": 2', '{"x": 3}']}[kind]
    log.write_text(f"{lines[0]}\n{lines[1]}")
    read: dict[str, Any] = {
        "text": lambda: mill.read_text(log, follow=True),
        "csv": lambda: mill.read_csv(log, follow=True, schema={"x": int}),
        "json": lambda: mill.read_json(log, follow=True, schema={"x": int}),
    }
    got: list[Any] = []
    job = mill.start(read[kind]().for_each(lambda row: got.append(row[0])))
    wait_for(lambda: len(got) == 1)
    time.sleep(0.2)
    os.truncate(log, 0)
    wait_for(lambda: job.metrics().truncations == 1)
    with log.open("a") as file:
        file.write(f"{lines[2]}\n")
    wait_for(lambda: len(got) == 2)
    job.stop()
    report = job.wait()
    assert got == (["one", "three"] if kind == "text" else [1, 3])
    assert (report.truncations, report.bytes_lost) == (1, len(lines[1]))


def test_nothing_is_lost_of_a_log_that_had_been_read_and_is_larger_afterwards(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("first\n" * 100)
    got: list[Any] = []
    job = mill.start(mill.read_text(log, follow=True).for_each(lambda row: got.append(row.line)))
    wait_for(lambda: len(got) == 100)
    time.sleep(0.2)
    # Truncated and written to at once: it is never seen shorter.
    with log.open("r+") as file:
        file.write("second\n" * 3000)
    wait_for(lambda: len(got) == 3100)
    job.stop()
    report = job.wait()
    assert got == ["first"] * 100 + ["second"] * 3000
    assert (report.truncations, report.bytes_lost) == (1, 0), report.notes


def test_what_was_not_read_before_a_truncation_is_read_from_the_copy(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    long_lines(log, 0, 30_000)
    slow = Slow()
    job = mill.start(mill.read_text(str(tmp_path), follow=True).for_each(slow), parallelism=1)
    wait_for(lambda: len(slow.seen) > 100)
    rotate(log)
    long_lines(log, 30_000, 30_002)
    slow.is_fast = True
    wait_for(lambda: len(slow.seen) >= 30_002)
    time.sleep(0.3)
    job.stop()
    report = job.wait("10s")
    assert sorted(slow.seen) == [f"{number:06}" for number in range(30_002)]
    assert (report.truncations, report.bytes_lost) == (1, 0)
    assert "is read from its copy" in report.notes[0]


def test_a_copy_that_is_not_followed_is_named(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    long_lines(log, 0, 30_000)
    slow = Slow()
    job = mill.start(mill.read_text(str(log), follow=True).for_each(slow), parallelism=1)
    wait_for(lambda: len(slow.seen) > 100)
    rotate(log)
    slow.is_fast = True
    wait_for(lambda: bool(job.status.notes))
    job.cancel()
    assert "app.log.1" in job.status.notes[0]
    assert "is a copy that has them, which the job does not read" in job.status.notes[0]


def test_a_file_of_the_same_content_is_read_as_its_own(tmp_path: Path) -> None:
    (tmp_path / "app.log").write_text("1\n2\n")
    with following(mill.read_text(str(tmp_path), follow=True)) as got:
        wait_for(lambda: got == ["1", "2"])
        (tmp_path / "app.log.1").write_text("1\n2\n")
        (tmp_path / "other.log").write_text("1\n2\n")
        wait_for(lambda: len(got) == 4)
        # Nothing is truncated: it is no copy of a rotation.
        wait_for(lambda: got == ["1", "2"] * 3)


@pytest.mark.parametrize("is_copied", [False, True])
@pytest.mark.parametrize("is_read", [False, True])
def test_restart_after_a_truncation(tmp_path: Path, is_copied: bool, is_read: bool) -> None:
    (tmp_path / "in").mkdir()
    log = tmp_path / "in" / "app.log"
    long_lines(log, 0, 5000)
    slow = Slow()
    stream = mill.read_text(str(tmp_path / "in"), follow=True)
    checkpoint = mill.Checkpoint(str(tmp_path / "st"), every="20ms", mode="at_least_once")
    slow.is_fast = is_read
    job = mill.start(stream.for_each(slow), checkpoint=checkpoint, parallelism=1)
    wait_for(lambda: len(slow.seen) > (4999 if is_read else 100))
    job.stop()
    job.wait("10s")
    before = len(slow.seen)
    assert is_read == (before == 5000)
    if is_copied:
        rotate(log)
    else:
        os.truncate(log, 0)
    long_lines(log, 5000, 5002)
    slow.is_fast = True
    report = mill.run(stream.for_each(slow), checkpoint=checkpoint, until="1s", progress=False)
    rest = [] if is_read or not is_copied else [f"{number:06}" for number in range(before, 5000)]
    assert sorted(slow.seen[before:]) == [*rest, "005000", "005001"]
    assert report.truncations == 1
    assert report.bytes_lost == (0 if is_copied else (5000 - before) * 307)
    again = mill.run(stream.for_each(slow), checkpoint=checkpoint, until="300ms", progress=False)
    assert (again.rows_in, again.truncations, again.notes) == (0, 0, [])
