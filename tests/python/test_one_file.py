"""One file as a sink: complete or not there, whenever the job is killed, and left alone once it is complete."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

import millstream as mill
from millstream import testing

SHORT, LONG = 30, 160
DENSITY = int(os.environ.get("MILL_DENSITY", "3"))
"""At how many occurrences of a step a job dies."""
KINDS = ["csv", "csv.gz", "ndjson.zst", "json", "parquet", "arrow"]


def content(path: Path) -> list[int]:
    """Return the numbers in a file, read without the engine; whatever is wrong with it raises."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        return sorted(pq.read_table(io.BytesIO(data)).column("n").to_pylist())
    if path.suffix == ".arrow":
        return sorted(ipc.open_file(io.BytesIO(data)).read_all().column("n").to_pylist())
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if path.suffix == ".zst":
        data = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
    text = data.decode()
    assert text.endswith("\n") or (not text and ".csv" not in path.name)
    if ".csv" in path.name:
        header, *rows = csv.reader(io.StringIO(text))
        assert header == ["n"]
        return sorted(int(number) for (number,) in rows)
    return sorted(json.loads(line)["n"] for line in text.splitlines())


def sink(path: Path, rows: int, **options: Any) -> mill.Sink:
    """Write the numbers below ``rows`` into one file."""
    kind = {"csv": "csv", "ndjson": "json", "json": "json", "parquet": "parquet", "arrow": "arrow"}[path.name.split(".")[1]]
    write: Callable[..., mill.Sink] = getattr(mill.generate(rows=rows, n=mill.index()), f"write_{kind}")
    return write(path, **options)


def attempt(folder: Path, kind: str, seed: int, mode: Any = "exactly_once", **options: Any) -> mill.Report | None:
    """Run a job of two files, one of which is complete long before the other."""
    sinks = [sink(folder / f"{name}.{kind}", rows, **options) for name, rows in (("short", SHORT), ("long", LONG))]
    checkpoint = mill.Checkpoint(folder / "state", every="1ms", mode=mode)
    return testing.simulate(*sinks, checkpoint=checkpoint, seed=seed, parallelism=1 + seed % 2, frame_rows=5)


def outcome(folder: Path, kind: str, mode: str) -> None:
    """Check that the files are what they are to be, and that nothing else is left."""
    names = [f"long.{kind}", f"short.{kind}"]
    assert sorted(path.name for path in folder.iterdir() if path.name != "state") == names
    for name, rows in zip(names, (LONG, SHORT), strict=True):
        found = content(folder / name)
        if mode == "exactly_once":
            assert found == list(range(rows)), name
        elif mode == "at_least_once":
            assert sorted(set(found)) == list(range(rows)), name
        else:
            assert len(set(found)) == len(found) and set(found) <= set(range(rows)), name


def steps_of(run: Callable[[], object]) -> list[tuple[str, int]]:
    """Return the steps of a run at which it can die, each some times over."""
    testing.arm("*", effect="count")
    try:
        run()
    finally:
        reached = testing.disarm()
    found = []
    for step, times in sorted(reached.items()):
        if step.startswith("thread."):
            continue
        most = min(times, DENSITY if step.startswith(("file.", "sink.", "checkpoint.publish", "checkpoint.settle")) else 2)
        # The last ones are those at which the files are made.
        found += [(step, times - times * index // most) for index in range(most)]
    return found


def dies(run: Callable[[], object], step: str, first: int) -> None:
    """Run a job that dies at a step."""
    testing.arm(step, first=first, effect="die")
    try:
        run()
    except mill.MillstreamError:
        pass
    finally:
        testing.disarm()


@pytest.mark.parametrize(
    ("kind", "on_existing", "mode"),
    [
        *((kind, "refuse", "exactly_once") for kind in KINDS),
        *((kind, "replace", "exactly_once") for kind in ("csv", "parquet")),
        *((kind, on_existing, mode) for kind, on_existing in (("csv", "replace"), ("json", "refuse")) for mode in ("at_least_once", "none")),
    ],
)
def test_a_job_that_dies_anywhere_leaves_whole_files(kind: str, on_existing: str, mode: str, tmp_path: Path) -> None:
    # A file that was complete before the last checkpoint used to be emptied or refused by the next run.
    steps = steps_of(lambda: attempt(tmp_path / "calm", kind, 1, mode, on_existing=on_existing))
    outcome(tmp_path / "calm", kind, mode)
    for number, (step, first) in enumerate(steps):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        if on_existing == "replace":
            for name in ("short", "long"):
                shutil.copy(tmp_path / "calm" / f"{name}.{kind}", folder / f"{name}.{kind}")
        dies(lambda: attempt(folder, kind, 1, mode, on_existing=on_existing), step, first)  # noqa: B023
        if number % 3 == 0:
            dies(lambda: attempt(folder, kind, number, mode, on_existing=on_existing), "*", 5 + number)  # noqa: B023
        for path in folder.glob(f"*.{kind}"):
            content(path)
        report = attempt(folder, kind, number, mode, on_existing=on_existing)
        assert report is not None and report.status == "finished", (step, first)
        outcome(folder, kind, mode)
        # Run again, the job has nothing to do and changes nothing.
        before = {path.name: path.read_bytes() for path in folder.glob(f"*.{kind}")}
        attempt(folder, kind, number, mode, on_existing=on_existing)
        assert {path.name: path.read_bytes() for path in folder.glob(f"*.{kind}")} == before, (step, first)
        outcome(folder, kind, mode)
        shutil.rmtree(folder)


def numbers(path: Path, rows: int = 3000, **options: Any) -> mill.Sink:
    """Write one file slowly enough that the job can be stopped between its checkpoints."""
    return mill.generate(rate=2_000, n=mill.index()).limit(rows).write_csv(path, **options)


def begun(folder: Path, **options: Any) -> mill.Checkpoint:
    """Run a job until some parts are committed, take a savepoint, and stop it."""
    checkpoint = mill.Checkpoint(folder / "state", every="10ms")
    job = mill.start(numbers(folder / "o.csv", **options), checkpoint=checkpoint)
    while len(list((folder / ".o.csv.parts").glob("part-*"))) < 3:
        assert not (folder / "o.csv").exists(), "the job was too fast"
        clock.sleep(0.005)
    job.savepoint(folder / "saved")
    job.stop()
    assert job.wait().status == "stopped"
    return checkpoint


@pytest.mark.parametrize("on_existing", ["refuse", "replace"])
def test_a_savepoint_whose_rows_went_into_the_file_is_refused(on_existing: Any, tmp_path: Path) -> None:
    # Its run used to replace the file by one without the rows before the savepoint.
    checkpoint = begun(tmp_path, on_existing=on_existing)
    mill.run(numbers(tmp_path / "o.csv", on_existing=on_existing), checkpoint=checkpoint)
    assert content(tmp_path / "o.csv") == list(range(3000))
    other = mill.Checkpoint(tmp_path / "other", restore_from=tmp_path / "saved")
    for _ in range(2):
        with pytest.raises(mill.CheckpointError, match=r"was made after checkpoint \d+ was taken.*restart=True"):
            mill.run(numbers(tmp_path / "o.csv", on_existing=on_existing), checkpoint=other)
        assert content(tmp_path / "o.csv") == list(range(3000))
    (tmp_path / "o.csv").unlink()
    with pytest.raises(mill.CheckpointError, match="that is gone"):
        mill.run(numbers(tmp_path / "o.csv", on_existing=on_existing), checkpoint=other)


def test_a_savepoint_of_a_file_that_is_not_complete_is_continued(tmp_path: Path) -> None:
    begun(tmp_path)
    parts = sorted((tmp_path / ".o.csv.parts").glob("part-*"))
    other = mill.Checkpoint(tmp_path / "other", restore_from=tmp_path / "saved")
    try:
        mill.run(numbers(tmp_path / "o.csv"), checkpoint=other)
    except mill.ConnectorError as error:
        # The stop committed more after the savepoint, and the message names what.
        newer = [part for part in parts if part.name in str(error)]
        assert newer
        for part in newer:
            part.unlink()
        mill.run(numbers(tmp_path / "o.csv"), checkpoint=other)
    assert content(tmp_path / "o.csv") == list(range(3000))


def test_a_finished_file_may_be_moved_and_the_name_be_used_by_others(tmp_path: Path) -> None:
    checkpoint = tmp_path / "state"
    mill.run(sink(tmp_path / "o.csv", 50), checkpoint=checkpoint)
    (tmp_path / "o.csv").rename(tmp_path / "moved.csv")
    report = mill.run(sink(tmp_path / "o.csv", 50), checkpoint=checkpoint)
    assert "nothing to do" in report.notes[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved.csv", "state"]
    # Another job is on its way to a file of this name: its parts are not this job's.
    folder = tmp_path / "of another"
    folder.mkdir()
    other = begun(folder)
    shutil.move(folder / ".o.csv.parts", tmp_path / ".o.csv.parts")
    left = {path.name: path.read_bytes() for path in (tmp_path / ".o.csv.parts").iterdir()}
    (tmp_path / ".o.csv.parts" / ".part-00000000000000aa-0-9.csv").write_text("n\n1\n")
    mill.run(sink(tmp_path / "o.csv", 50), checkpoint=checkpoint)
    assert len(list((tmp_path / ".o.csv.parts").iterdir())) == len(left) + 1
    shutil.move(tmp_path / ".o.csv.parts", folder / ".o.csv.parts")
    mill.run(numbers(folder / "o.csv"), checkpoint=other)
    assert content(folder / "o.csv") == list(range(3000))
    assert sorted(path.name for path in folder.iterdir()) == ["o.csv", "saved", "state"]


def test_parts_that_another_job_has_replaced_are_not_taken_up(tmp_path: Path) -> None:
    checkpoint = begun(tmp_path)
    other = mill.Checkpoint(tmp_path / "other", every="10ms")
    job = mill.start(numbers(tmp_path / "o.csv", on_existing="replace"), checkpoint=other)
    while not list((tmp_path / ".o.csv.parts").glob("part-*")):
        assert not (tmp_path / "o.csv").exists(), "the job was too fast"
        clock.sleep(0.005)
    job.stop()
    job.wait()
    with pytest.raises(mill.CheckpointError, match="is of another job"):
        mill.run(numbers(tmp_path / "o.csv"), checkpoint=checkpoint)
    mill.run(numbers(tmp_path / "o.csv", on_existing="replace"), checkpoint=other)
    assert content(tmp_path / "o.csv") == list(range(3000))


def test_a_part_that_was_removed_is_missed(tmp_path: Path) -> None:
    checkpoint = begun(tmp_path)
    parts = sorted((tmp_path / ".o.csv.parts").glob("part-*"))
    for index in (0, -1):
        held = parts[index].read_bytes()
        parts[index].unlink()
        with pytest.raises(mill.ConnectorError, match=r"parts|lost"):
            mill.run(numbers(tmp_path / "o.csv"), checkpoint=checkpoint)
        parts[index].write_bytes(held)
    mill.run(numbers(tmp_path / "o.csv"), checkpoint=checkpoint)
    assert content(tmp_path / "o.csv") == list(range(3000))


@pytest.mark.parametrize("on_existing", ["refuse", "replace"])
def test_parts_that_are_gone_are_missed_though_a_file_is_there(on_existing: Any, tmp_path: Path) -> None:
    checkpoint = begun(tmp_path, on_existing=on_existing)
    (tmp_path / "o.csv").write_text("n\n7\n")
    shutil.rmtree(tmp_path / ".o.csv.parts")
    with pytest.raises(mill.CheckpointError, match="the file is left as it is"):
        mill.run(numbers(tmp_path / "o.csv", on_existing=on_existing), checkpoint=checkpoint)
    assert (tmp_path / "o.csv").read_text() == "n\n7\n"


def test_another_file_in_the_way_is_noticed_before_the_first_record(tmp_path: Path) -> None:
    checkpoint = begun(tmp_path)
    (tmp_path / "o.csv").symlink_to(tmp_path / "nowhere")
    parts = sorted(path.name for path in (tmp_path / ".o.csv.parts").iterdir())
    with pytest.raises(mill.ConnectorError, match="has come into being since the job began"):
        mill.run(numbers(tmp_path / "o.csv"), checkpoint=checkpoint)
    assert sorted(path.name for path in (tmp_path / ".o.csv.parts").iterdir()) == parts
    (tmp_path / "o.csv").unlink()
    mill.run(numbers(tmp_path / "o.csv"), checkpoint=checkpoint)
    assert content(tmp_path / "o.csv") == list(range(3000))


def test_new_records_after_the_end_in_mode_none_do_not_touch_the_file(tmp_path: Path) -> None:
    # Positions are all that such a job keeps: its next run finds new input, and used to make the file of that alone.
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.csv").write_text("n\n1\n2\n")

    def run(**options: Any) -> mill.Report:
        checkpoint = mill.Checkpoint(tmp_path / "state", mode="none", **options)
        return mill.run(mill.read_csv(tmp_path / "in").write_csv(tmp_path / "o.csv", on_existing="replace"), checkpoint=checkpoint)

    run()
    run()
    assert content(tmp_path / "o.csv") == [1, 2]
    (tmp_path / "in" / "2.csv").write_text("n\n3\n")
    with pytest.raises(mill.CheckpointError, match="was complete when an earlier run of the job came to its end"):
        run()
    assert content(tmp_path / "o.csv") == [1, 2]
    run(restart=True)
    assert content(tmp_path / "o.csv") == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "o.csv", "state"]


def test_a_failed_run_without_checkpoints_leaves_nothing(tmp_path: Path) -> None:
    for step in ("file.rename", "file.sync", "file.write", "file.create"):
        testing.arm(step, effect="full", first=1, times=100)
        try:
            with pytest.raises(mill.MillstreamError):
                mill.run(sink(tmp_path / "o.csv", 50))
        finally:
            testing.disarm()
        assert not list(tmp_path.iterdir()), step
    mill.run(sink(tmp_path / "o.csv", 50))
    assert content(tmp_path / "o.csv") == list(range(50))


@pytest.mark.parametrize("name", ["o.csv", "o.parquet"])
def test_a_run_without_checkpoints_that_dies_is_in_nobodys_way(name: str, tmp_path: Path) -> None:
    # What it had left used to be taken for the output of a run that can be resumed.
    steps = steps_of(lambda: testing.simulate(sink(tmp_path / name, 50), seed=1, frame_rows=5))
    for step, first in steps:
        (tmp_path / name).unlink(missing_ok=True)
        dies(lambda: testing.simulate(sink(tmp_path / name, 50), seed=1, frame_rows=5), step, first)
        if (tmp_path / name).exists():
            assert content(tmp_path / name) == list(range(50))
            mill.run(sink(tmp_path / name, 50, on_existing="replace"))
        else:
            mill.run(sink(tmp_path / name, 50))
        assert content(tmp_path / name) == list(range(50)), (step, first)
        assert [path.name for path in tmp_path.iterdir()] == [name], (step, first)


def test_one_file_that_all_threads_encode_has_each_row_once(tmp_path: Path) -> None:
    rows = 150_000
    numbers = range(rows)
    table = pa.table({
        "n": pa.array(numbers, pa.int64()),
        "text": pa.array([None if n % 7 == 0 else f'a "quoted", {n % 900}' for n in numbers]),
        "share": pa.array([n / 8 for n in numbers]),
        "at": pa.array(numbers, pa.timestamp("s", "UTC")),
        "few": pa.array([n % 5 for n in numbers], pa.int8()),
    })
    stream = mill.from_arrow(table)
    wanted = table.to_pylist()
    for parallelism in (1, 2, 5):
        for write in (stream.write_csv, stream.write_json, stream.write_parquet):
            kind = write.__name__.removeprefix("write_")
            path = tmp_path / f"{parallelism}.{kind}"
            mill.run(write(path), parallelism=parallelism, progress=False)
            read = {"csv": mill.read_csv, "json": mill.read_json, "parquet": mill.read_parquet}[kind]
            found = sorted(read(path, schema=None if kind == "parquet" else stream.schema).collect().to_pylist(), key=lambda row: row["n"])
            assert found == wanted, (kind, parallelism)


def test_a_value_that_cannot_be_written_fails_the_job_whichever_thread_meets_it(tmp_path: Path) -> None:
    for place in (0, 60_000, 99_999):
        table = pa.table({"n": range(100_000), "word": ["NA" if n == place else "word" for n in range(100_000)]})
        with pytest.raises(mill.MillstreamError, match="which null_value writes for null"):
            mill.run(mill.from_arrow(table).write_csv(tmp_path / f"{place}.csv", null_value="NA"), parallelism=2, progress=False)
        assert not (tmp_path / f"{place}.csv").exists()
