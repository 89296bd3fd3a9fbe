"""Inputs that change between the runs of a bounded job, that are no files, or that are the job's own output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import millstream as mill

JOB = """
import sys, time
import millstream as mill
is_slow, pattern = sys.argv[1] == "slow", sys.argv[2]
def work(row):
    if is_slow and row.v % 100 == 0 and row.v >= int(sys.argv[3]):
        time.sleep(0.01)
    return {"v": row.v, "w": row.w}
schema = {"v": int, "w": int}
stream = mill.read_csv(pattern, schema=schema).map(work, schema=schema)
try:
    mill.run(stream.write_csv("out"), checkpoint=mill.Checkpoint("state", every="10ms"), parallelism=1)
except mill.MillstreamError as error:
    print(error)
    sys.exit(1)
"""


def rows_out(directory: Path) -> list[tuple[int, int]]:
    parts = sorted((directory / "out").glob("part-*"))
    lines = [line for part in parts for line in part.read_text().splitlines()[1:]]
    return [(int(v), int(w)) for v, w in (line.split(",") for line in lines)]


def write(path: Path, start: int, end: int, mode: str = "w") -> None:
    with path.open(mode) as file:
        if mode == "w":
            file.write("v,w\n")
        file.writelines(f"{v},{2 * v}\n" for v in range(start, end))


def killed(directory: Path, pattern: str, reached: int, slow_from: int = 0) -> None:
    """Run the job until so many rows are committed, and kill it."""
    command = [sys.executable, "-c", JOB, "slow", pattern, str(slow_from)]
    process = subprocess.Popen(command, cwd=directory)
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end and len(rows_out(directory)) < reached:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it was killed"
    process.kill()
    process.wait()


def resumed(directory: Path, pattern: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", JOB, "fast", pattern, "0"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("before", "after"), [(100, 200), (20_000, 90_000), (90_000, 200_000)])
def test_a_finished_file_that_grew_is_not_read_twice(tmp_path: Path, before: int, after: int) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.csv", 0, before)
    write(tmp_path / "in" / "b.csv", 1_000_000, 1_060_000)
    killed(tmp_path, "in/*.csv", before + 1, slow_from=1_000_000)
    write(tmp_path / "in" / "a.csv", before, after, "a")
    done = resumed(tmp_path, "in/*.csv")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_out(tmp_path)
    assert sorted(rows) == [(v, 2 * v) for v in [*range(after), *range(1_000_000, 1_060_000)]]


def insert_line(path: Path) -> None:
    lines = path.read_text().split("\n")
    lines.insert(2000, "123,246")
    path.write_text("\n".join(lines))


def rewrite(path: Path) -> None:
    write(path, 500_000, 600_000)


def cut(path: Path) -> None:
    os.truncate(path, 1000)


@pytest.mark.parametrize("change", [insert_line, rewrite, cut])
def test_a_half_read_file_that_was_changed_is_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.csv", 0, 40_000)
    killed(tmp_path, "in/a.csv", 8000)
    before = rows_out(tmp_path)
    change(tmp_path / "in" / "a.csv")
    done = resumed(tmp_path, "in/a.csv")
    assert done.returncode == 1
    assert "a.csv" in done.stdout
    assert "put the former file back" in done.stdout
    assert rows_out(tmp_path)[: len(before)] == before


def test_a_finished_file_that_was_rewritten_is_refused_and_one_that_is_gone_is_not_missed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.csv", 0, 100)
    write(tmp_path / "in" / "b.csv", 1000, 40_000)
    killed(tmp_path, "in/*.csv", 5000)
    former = (tmp_path / "in" / "a.csv").read_bytes()
    write(tmp_path / "in" / "a.csv", 500, 700)
    done = resumed(tmp_path, "in/*.csv")
    assert done.returncode == 1
    assert "a.csv" in done.stdout
    (tmp_path / "in" / "a.csv").write_bytes(former)
    (tmp_path / "in" / "a.csv").unlink()
    assert resumed(tmp_path, "in/*.csv").returncode == 0
    assert sorted(v for v, _ in rows_out(tmp_path)) == [*range(100), *range(1000, 40_000)]


def test_a_name_may_look_like_anything(tmp_path: Path) -> None:
    names = [b"a.csv", b"a.csv range 0-4", b"a\nb.csv", b"\xff.csv", "é.csv".encode(), b"9" * 200]
    for number, name in enumerate(names):
        (tmp_path / os.fsdecode(name)).write_text(f"v\n{number}\n")
    table = mill.read_csv(str(tmp_path), schema={"v": int}).collect()
    assert sorted(table["v"]) == list(range(len(names)))


@pytest.mark.parametrize(
    ("read", "written"),
    [
        ("io", "io"),
        ("io/*.csv", "io"),
        ("./io/../io", "io"),
        ("link", "io"),
        ("io", "link"),
        ("link/*", "io"),
        ("*/*.csv", "io"),
        ("*/*.csv", "new"),
        ("**/*.csv", "io/within"),
        ([".", "io/*.csv"], "io"),
    ],
)
@pytest.mark.parametrize("follow", [False, True])
def test_output_that_is_also_input_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str | list[str], written: str, follow: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "io").mkdir()
    (tmp_path / "io" / "x.csv").write_text("v\n1\n")
    (tmp_path / "y.csv").write_text("v\n1\n")
    (tmp_path / "link").symlink_to("io")
    sink = mill.read_csv(read, schema={"v": int}, follow=follow).write_csv(written)
    with pytest.raises(mill.PlanError, match=r"read_csv\(.*reads what write_csv\("):
        mill.run(sink)
    assert not list((tmp_path / "io").glob("part-*"))


@pytest.mark.parametrize(
    ("read", "written"), [("io", "io/out"), ("io/*.csv", "out"), ("io/x.csv", "io"), ("io/*.txt", "io")]
)
def test_output_beside_the_input_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str, written: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "io").mkdir()
    (tmp_path / "io" / "x.csv").write_text("v\n1\n")
    (tmp_path / "io" / "x.txt").write_text("v\n1\n")
    assert mill.run(mill.read_csv(read, schema={"v": int}).write_csv(written)).rows_in > 0


def test_a_database_or_checkpoints_within_the_input_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("v\n1\n")
    stream = mill.read_csv(str(tmp_path), schema={"v": int})
    with pytest.raises(mill.PlanError, match="reads what write_sqlite"):
        mill.run(stream.write_sqlite(str(tmp_path / "a.db"), "t"))
    with pytest.raises(mill.PlanError, match="directory of their own"):
        mill.run(stream.write_csv(str(tmp_path / "out")), checkpoint=str(tmp_path))


def test_what_is_no_file_is_an_error_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    began = time.monotonic()
    with pytest.raises(mill.MillstreamError, match="is a named pipe"):
        mill.read_text(str(tmp_path / "pipe")).collect()
    with pytest.raises(mill.MillstreamError, match="is a device"):
        mill.read_csv("/dev/zero", schema={"v": int}).collect()
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    with pytest.raises(mill.MillstreamError, match="loop.csv"):
        mill.read_csv(str(tmp_path / "loop.csv"), schema={"v": int}).collect()
    with pytest.raises(mill.MillstreamError, match="loop.csv.*cannot be followed"):
        mill.read_csv(str(tmp_path), schema={"v": int}).collect()
    assert time.monotonic() - began < 5


def test_a_file_that_becomes_a_pipe_does_not_hang(tmp_path: Path) -> None:
    code = f"""
import os, millstream as mill
stream = mill.read_text({str(tmp_path / "a")!r})
os.unlink({str(tmp_path / "a")!r})
os.mkfifo({str(tmp_path / "a")!r})
try:
    stream.collect()
except mill.MillstreamError as error:
    print(error)
"""
    (tmp_path / "a").write_text("1\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert "is a named pipe" in done.stdout, done.stdout + done.stderr


def test_a_file_that_vanishes_before_it_is_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1\n")
    (tmp_path / "b.txt").write_text("2\n")
    stream = mill.read_text(str(tmp_path))
    (tmp_path / "b.txt").unlink()
    with pytest.raises(mill.MillstreamError, match=r"b\.txt"):
        stream.collect()


MANY_FILES = """
import os, sys, time
import millstream as mill
directory, count = sys.argv[1], int(sys.argv[2])
os.mkdir(directory)
for number in range(count):
    with open(f"{directory}/{number:06}.csv", "w") as file:
        file.write(f"at\\n{number}\\n")
stream = mill.read_csv(directory, schema={"at": int})
began = time.process_time()
assert len(stream.collect(parallelism=1)) == count
print(time.process_time() - began)
"""


def test_the_cost_of_files_is_linear_in_their_number(tmp_path: Path) -> None:
    def cost(count: int) -> float:
        command = [sys.executable, "-c", MANY_FILES, str(tmp_path / f"{count}"), str(count)]
        return float(subprocess.run(command, capture_output=True, text=True, timeout=170, check=True).stdout)

    few, many = cost(3000), cost(24_000)
    assert many < 16 * few, f"{few:.2f} s of CPU for 3,000 files, {many:.2f} s for 24,000"


def test_ctrl_c_ends_a_job_that_follows(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\n")
    code = f"import millstream as mill; mill.run(mill.read_text({str(tmp_path)!r}, follow=True).for_each(lambda row: print(row.line, flush=True)))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGINT)
        process.wait(10)
