"""A simulated hour of every window kind, and of a join, over keys that never come again: memory and state directory stay flat.

Event time goes on by an hour while the job runs for some two seconds, at a steady rate so that every part of it is seen. The
memory of the process and the size of the state directory are read as it goes. What is compared are the middle third and the
last one: the first has the warming up in it.

``MILLSTREAM_FLAT_ROWS`` sets the records; run as a script, it prints the figures, of all kinds or of those that are named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

ROWS = int(os.environ.get("MILLSTREAM_FLAT_ROWS", "300000"))
HOUR_US = 3_600_000_000
# A key has so many records in a row, and none after them.
ROWS_A_KEY = 4

KINDS = [
    "tumbling", "sliding", "cumulative", "session", "session by record", "apply", "reduce", "count", "early", "global", "rolling",
    "top_n", "deduplicate", "alone", "regular join",
]  # fmt: skip


def resident() -> int:
    """The memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # It was removed meanwhile.
    return total


def stream_of(kind: str, rows: int, seconds: float):  # type: ignore[no-untyped-def]
    import millstream as mill
    from millstream import col, lit

    step_us = HOUR_US // rows
    # Half a second out of order, so that windows stay open for a while.
    jitter = (mill.index() * 7919) % 500_000
    made = mill.generate(
        rows=rows,
        rate=rows / seconds,
        key=mill.index() // ROWS_A_KEY,
        value=mill.index() % 1000,
        at=(mill.index() * step_us - jitter).cast(mill.Timestamp("us")),
    )
    timed = made.event_time("at", watermark="1s")
    keyed = timed.key_by("key")
    few = timed.key_by(key=col("key") % 1000)
    total = {"n": mill.count(), "total": col("value").sum()}
    if kind == "tumbling":
        return keyed.window(mill.tumbling("10s")).agg(**total)
    if kind == "sliding":
        return keyed.window(mill.sliding("10s", slide="2s")).agg(**total)
    if kind == "cumulative":
        return keyed.window(mill.cumulative(step="5s", size="20s")).agg(**total)
    if kind == "session":
        return keyed.window(mill.session("5s")).agg(**total)
    if kind == "session by record":
        from datetime import timedelta

        spanned = timed.with_columns(gap=(col("value") % 5 + 1) * lit(timedelta(seconds=1)))
        return spanned.key_by("key").window(mill.session(col("gap"))).agg(**total)
    if kind == "apply":
        # A function call a window: fewer windows than of the other kinds.
        of_ten = timed.key_by(key=col("key") // 1000)
        schema = {"n": int}
        return of_ten.window(mill.tumbling("10s")).apply(lambda key, window, rows: {"n": rows.num_rows}, schema=schema)
    if kind == "reduce":
        of_ten = timed.select("at", "value", key=col("key") // 1000).key_by("key")
        return of_ten.window(mill.tumbling("10s")).reduce(lambda so_far, row: row)
    if kind == "count":
        # A key whose window is not full keeps its records for good, so keys come again.
        return few.window(mill.count_window(100)).agg(**total)
    if kind == "early":
        trigger = mill.on_watermark(early=mill.every(2))
        return keyed.window(mill.tumbling("10s"), trigger=trigger).agg(**total)
    if kind == "global":
        # Keys whose windows have no end keep their row for good, so keys come again.
        return few.window(mill.global_window(), trigger=mill.on_count(100)).agg(**total, last=col("value").last())
    if kind == "rolling":
        return keyed.rolling("10s").agg(**total)
    if kind == "top_n":
        return keyed.top_n(1, by="value", within=mill.tumbling("10s"))
    if kind == "deduplicate":
        return keyed.deduplicate(within="10s")
    if kind == "alone":
        return timed.window_all(mill.tumbling("10s")).agg(people=col("key").n_unique())
    if kind == "regular join":
        return timed.join(timed.filter(col("value") % 4 == 0).select("key", other="value"), on="key", ttl="10s")
    raise ValueError(kind)


def measure(kind: str, rows: int, seconds: float) -> dict[str, float]:
    """Run one kind in no less than so many seconds; return memory and size of the state in each third, in MB."""
    import millstream as mill

    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        samples: list[tuple[int, int, int]] = []
        out = [0]

        def count(batch):  # type: ignore[no-untyped-def]
            out[0] += batch.num_rows

        began = time.perf_counter()
        checkpoint = mill.Checkpoint(state, every="100ms", mode="at_least_once")
        job = mill.start(stream_of(kind, rows, seconds).for_each_batch(count), checkpoint=checkpoint, parallelism=2)
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                samples.append((job.metrics().rows_in, resident(), size_of(state)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        job.wait()
        took = time.perf_counter() - began
        ended.set()
        watcher.join()
    thirds = [[it for it in samples if third * rows // 3 < it[0] <= (third + 1) * rows // 3] for third in range(3)]
    # The input has been read before the job has ended: what is left then is no part of the hour.
    thirds[2] = [it for it in thirds[2] if it[0] < rows] or thirds[2]
    if not (thirds[1] and thirds[2]):
        # The sampling thread had no turn for most of the run, or the input came in a few frames: once more, with more time.
        assert seconds < 60, f"too few samples: {[len(third) for third in thirds]}"
        return measure(kind, rows, seconds * 4)

    def mb(third: int, of: int) -> float:
        if not thirds[third]:
            return 0.0  # The first frames come all at once.
        values = sorted(it[of] for it in thirds[third])
        return round(values[len(values) * 3 // 4] / 1e6, 1)

    return {
        "rows": rows, "seconds": round(took, 1), "results": out[0], "memory_1": mb(0, 1), "memory_2": mb(1, 1),
        "memory_3": mb(2, 1), "state_1": mb(0, 2), "state_2": mb(1, 2), "state_3": mb(2, 2),
    }  # fmt: skip


def rows_of(kind: str) -> int:
    """How many records a kind gets, so that each takes about as long."""
    return int(ROWS * {"count": 4, "rolling": 0.5, "reduce": 0.5}.get(kind, 1))


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, float]]:
    """The figures of all kinds, measured in a process of its own."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in map(json.loads, done.stdout.splitlines())}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory as Linux shows it")
@pytest.mark.parametrize("kind", KINDS)
def test_memory_and_state_are_flat(kind: str, figures: dict[str, dict[str, float]]) -> None:
    found = figures[kind]
    assert found["results"] > 0
    # What leaks grows with the records: by more than half between these two thirds.
    assert found["memory_3"] <= found["memory_2"] * 1.15 + 15, found
    # A directory grows until what is left of it is worth writing anew.
    assert found["state_3"] <= found["state_2"] * 1.5 + 2, found


if __name__ == "__main__":
    for each in sys.argv[1:] or KINDS:
        # What `count` keeps is written anew every ten checkpoints or so: that has to happen in each third.
        seconds = 6.0 if each == "count" else 2.0
        print(json.dumps({"kind": each, **measure(each, rows_of(each), seconds)}), flush=True)
