"""Reading the state of a job back, without its plan, against plain Python."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import col


def stop_after(stream: mill.Stream, path: Path, is_enough: Callable[[], bool], parallelism: int) -> None:
    """Run until enough was seen, then stop with a last checkpoint."""
    job = mill.start(
        stream.for_each(lambda row: None),
        checkpoint=mill.Checkpoint(path, every=timedelta(milliseconds=100), mode="at_least_once"),
        parallelism=parallelism,
    )
    deadline = time.monotonic() + 30
    while not is_enough():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    job.stop()
    job.wait()


@pytest.mark.parametrize("parallelism", [1, 2])
def test_counts_of_a_stopped_job(tmp_path: Path, parallelism: int) -> None:
    seen: list[int] = []

    def keyed(row: Any) -> dict[str, Any]:
        seen.append(row.i)
        return {"k": f"key {row.i % 5}", "i": row.i}

    stream = (
        mill.generate(rate=5000, i=mill.index())
        .map(keyed, schema={"k": str, "i": int})
        .key_by("k")
        .agg(n=mill.count(), total=col("i").sum(), emit="checkpoint")
        .name("counts")
    )
    stop_after(stream, tmp_path, lambda: len(seen) > 1000, parallelism)
    counts, totals = Counter[str](), Counter[str]()
    for i in seen:
        counts[f"key {i % 5}"] += 1
        totals[f"key {i % 5}"] += i
    table = mill.read_state(tmp_path, step="counts")
    assert {row["k"]: (row["n"], row["total"]) for row in table} == {k: (counts[k], totals[k]) for k in counts}
    ids = [info.id for info in mill.checkpoints(tmp_path)]
    assert ids == sorted(ids, reverse=True), "the newest comes first"
    older = mill.read_state(tmp_path, step="counts", id=ids[-1])
    assert sum(row["n"] for row in older) <= len(seen)


def test_open_windows_of_a_stopped_job(tmp_path: Path) -> None:
    seen: list[int] = []
    epoch = datetime(2024, 1, 1)

    def timed(row: Any) -> dict[str, Any]:
        seen.append(row.i)
        return {"k": row.i % 3, "i": row.i, "at": epoch + timedelta(seconds=row.i)}

    stream = (
        mill.generate(rate=5000, i=mill.index())
        .map(timed, schema={"k": int, "i": int, "at": datetime})
        .event_time("at", watermark=timedelta(days=30))
        .key_by("k")
        .window(mill.tumbling("1m"))
        .agg(n=mill.count(), top=col("i").max())
        .name("windows")
    )
    stop_after(stream, tmp_path, lambda: len(seen) > 500, 2)
    expected: dict[Any, list[int]] = defaultdict(list)
    for i in seen:
        expected[i % 3, epoch + timedelta(seconds=i // 60 * 60)].append(i)
    table = mill.read_state(tmp_path, step="windows")
    assert {(row["k"], row["window_start"]): (row["n"], row["top"]) for row in table} == {
        key: (len(values), max(values)) for key, values in expected.items()
    }
    assert all(row["window_end"] - row["window_start"] == timedelta(minutes=1) for row in table)


def test_a_reduce_and_a_step_that_does_not_exist(tmp_path: Path) -> None:
    stream = (
        mill.generate(rows=40, k=mill.index() % 4, x=mill.index())
        .key_by("k")
        .reduce(lambda a, b: {"k": a.k, "x": a.x + b.x})
        .name("sums")
    )
    mill.run(stream.for_each(lambda row: None), checkpoint=mill.Checkpoint(tmp_path, mode="at_least_once"))
    table = mill.read_state(tmp_path, step="sums")
    assert {row["k"]: row["x"] for row in table} == {k: sum(range(k, 40, 4)) for k in range(4)}
    with pytest.raises(mill.CheckpointError, match='did you mean "sums"'):
        mill.read_state(tmp_path, step="sum")


def test_a_job_that_ends_has_no_checkpoint_to_take(tmp_path: Path) -> None:
    # Whether the end has been noticed or not, it is the error that the documentation names.
    for number in range(20):
        folder = tmp_path / str(number)
        job = mill.start(mill.generate(rows=2000).write_csv(folder / "out"), checkpoint=folder / "state")
        if number % 2:
            job.stop()
        for ask in (job.checkpoint, lambda folder=folder: job.savepoint(folder / "saved")):
            with contextlib.suppress(mill.CheckpointError):
                ask()
        job.wait()
        with pytest.raises(mill.CheckpointError):
            job.checkpoint()


@pytest.mark.parametrize("ending", ["parquet", "json", "jsonl", "csv"])
def test_an_exported_state_is_read_back_as_it_was(tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    from millstream._cli import main

    rows = [{"k": f'key "{i % 3}"\n', "t": datetime(2026, 1, 1, 2, 3, 4, i), "b": bytes([i, 255]), "n": i} for i in range(9)]
    # CSV has no bytes and no lists, and says so.
    more = {} if ending == "csv" else {"b": col("b").last(), "all": col("n").collect()}
    columns = {"t": col("t").max(), "mean": col("n").mean()} | more
    totals = mill.from_iter(rows).key_by("k").agg(**columns)
    mill.run(totals.name("totals").for_each(lambda row: None), checkpoint=mill.Checkpoint(tmp_path / "state", mode="at_least_once"), parallelism=1)
    state = mill.read_state(tmp_path / "state", step="totals")
    out = tmp_path / f"out.{ending}"
    for _ in range(2):  # A file that is there is replaced.
        assert main(["state", "export", str(tmp_path / "state"), "--step", "totals", "--output", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"3 rows into {out}"
    read = {"parquet": mill.read_parquet, "csv": mill.read_csv}.get(ending, mill.read_json)
    schema = {name: state.to_arrow().schema.field(name).type for name in state.columns}
    found = read(out, schema=schema).collect(parallelism=1).to_pylist()
    assert sorted(found, key=repr) == sorted(state.to_pylist(), key=repr)
    assert len(found) == 3
    assert main(["state", "export", str(tmp_path / "state"), "--step", "totals", "--output", str(tmp_path / "out.txt")]) == 2
