"""A simulated hour of every kind of window, join and state over keys that never come again: memory and state directory stay flat.

Event time goes on by an hour while the job runs for some two seconds, at a steady rate so that every part of it is seen; then it is
cancelled. The memory of the process and the size of the state directory are read as it goes. What is compared are the middle third and the
last one: the first has the warming up in it.

``MILLSTREAM_FLAT_ROWS`` sets the records; run as a script, it prints the figures, of all kinds or of those that are named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flat_streams import GROWS, KINDS, made

import millstream as mill

ROWS = int(os.environ.get("MILLSTREAM_FLAT_ROWS", "300000"))
PROCESSES = 3
# Some kinds get fewer or more records, so that each takes about as long.
SHARES = {
    "count": 4, "rolling": 0.5, "reduce": 0.5, "states": 0.1, "states by the clock": 0.1, "states that are read": 0.1, "entries": 0.1, "timers": 0.2,
    "timers by the clock": 0.2, "connect": 0.3, "broadcast": 0.3, "map_async": 0.05, "map_async, unordered": 0.05, "map_batches_async": 0.5,
    "lookup, async": 0.2, "totals": 4,
}  # fmt: skip

# What these keep is written anew every ten checkpoints or so, and that has to happen in each third.
SECONDS = {"count": 6.0, "regular join by the clock": 6.0, "regular join of an updating stream": 6.0, "totals": 6.0}


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


class Counted(mill.Sink):
    """Counts rows, and those that are withdrawn."""

    kind = "idempotent"

    def __init__(self) -> None:
        self.rows = 0

    def write(self, batch: Any) -> None:
        self.rows += batch.num_rows

    def delete(self, batch: Any) -> None:
        self.rows += batch.num_rows


def measure(kind: str, rows: int, seconds: float) -> dict[str, float]:
    """Run one kind in no less than so many seconds; return memory and size of the state in each third, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        samples: list[tuple[int, int, int]] = []
        sink = Counted()
        began = time.perf_counter()
        checkpoint = mill.Checkpoint(state, every="100ms", mode="at_least_once")
        job = mill.start({**KINDS, **GROWS}[kind](made(rows, rows / seconds)).sink_to(sink), checkpoint=checkpoint, parallelism=2)
        while (read := job.metrics().rows_in) < rows and job.status.state != "failed":
            samples.append((read, resident(), size_of(state)))
            time.sleep(0.02)
        took = time.perf_counter() - began
        job.cancel()
        job.wait()
    thirds = [[it for it in samples if third * rows // 3 < it[0] <= (third + 1) * rows // 3] for third in range(3)]
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
        "rows": rows, "seconds": round(took, 1), "results": sink.rows, "memory_1": mb(0, 1), "memory_2": mb(1, 1),
        "memory_3": mb(2, 1), "state_1": mb(0, 2), "state_2": mb(1, 2), "state_3": mb(2, 2),
    }  # fmt: skip


def is_larger(found: dict[str, float]) -> bool:
    """Whether the state directory has grown. It does so, too, until what is left of it is worth writing anew."""
    return found["state_3"] > found["state_2"] * 1.2 + 2


def rows_of(kind: str) -> int:
    """How many records a kind gets."""
    return int(ROWS * SHARES.get(kind, 1))


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, float]]:
    """The figures of all kinds, measured in processes of their own, which mostly wait for the next records."""
    kinds = [*KINDS, *GROWS]
    commands = [[sys.executable, __file__, *kinds[part::PROCESSES]] for part in range(PROCESSES)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands]
    found = {}
    try:
        with ThreadPoolExecutor() as pool:
            for process, (printed, errors) in zip(running, pool.map(partial(subprocess.Popen.communicate, timeout=1800), running), strict=True):
                assert process.returncode == 0, errors
                found.update({each["kind"]: each for each in map(json.loads, printed.splitlines())})
    finally:
        for process in running:
            process.kill()
    return found


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory as Linux shows it")
@pytest.mark.parametrize("kind", KINDS)
def test_memory_and_state_are_flat(kind: str, figures: dict[str, dict[str, float]]) -> None:
    found = figures[kind]
    assert found["results"] > 0
    # What leaks grows with the records: by more than half between these two thirds.
    assert found["memory_3"] <= found["memory_2"] * 1.15 + 15, found
    assert not is_larger(found), found


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory as Linux shows it")
@pytest.mark.parametrize("kind", GROWS)
def test_state_that_is_kept_for_good_is_noticed(kind: str, figures: dict[str, dict[str, float]]) -> None:
    # From the first third of the run to the last: one checkpoint that a busy machine has delayed is a third of it.
    assert figures[kind]["state_3"] > 1.3 * figures[kind]["state_1"] + 2, figures[kind]


if __name__ == "__main__":
    for each in sys.argv[1:] or KINDS:
        print(json.dumps({"kind": each, **measure(each, rows_of(each), SECONDS.get(each, 2.0))}), flush=True)
