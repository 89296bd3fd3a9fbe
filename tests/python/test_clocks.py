"""The clock of the machine is set while jobs run: nothing stops, and nothing is over too early.

A library that is loaded ahead of the C library moves the wall clock of a child process; the jobs are real, and so are their
threads. What a job waits for has to go by a clock that cannot be set.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

CC = shutil.which("cc")
HOUR, DAY = 3600, 86_400

pytestmark = pytest.mark.skipif(sys.platform != "linux" or CC is None, reason="needs LD_PRELOAD and a C compiler")

PRELUDE = """
import datetime, os, struct, threading, time
import millstream as mill
from millstream import col

STARTED = datetime.datetime.now(datetime.UTC)


def shift(seconds):
    with open(os.environ["MILL_CLOCK_FILE"], "r+b") as file:
        file.write(struct.pack("q", seconds))
    moved = (datetime.datetime.now(datetime.UTC) - STARTED).total_seconds()
    assert abs(moved - seconds) < 600, f"the clock was not moved by {seconds} s but by {moved} s"


def soon(condition, what):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"stopped: {what}"
        time.sleep(0.01)


def grows(count, what):
    # Twice: a round that had begun before the clock was set proves nothing.
    for _ in range(2):
        before = count()
        soon(lambda: count() > before, what)
"""

FOLLOWED = """
def line(k, second):
    return '{"k": %d, "at": "2024-01-01T00:%02d:%02d"}\\n' % (k, *divmod(second, 60))


def write(name, *lines):
    with open(".hidden", "w") as file:
        file.writelines(lines)
    os.rename(".hidden", f"in/{name}.json")


os.mkdir("in")
write("quiet", line(0, 0))
write("busy", line(1, 0), line(1, 100))
strategy = mill.WatermarkStrategy.bounded_out_of_orderness("0s").with_idleness("1h")
schema = {"k": int, "at": datetime.datetime}
rows = mill.read_json("in", schema=schema, follow=True)
windows = rows.event_time("at", watermark=strategy).key_by("k").window(mill.tumbling("10s")).agg(n=mill.count())
fired, listed, emitted, made, seen = [], [], [], [], []
totals = mill.generate(rate=200, k=mill.index() % 2).key_by("k").agg(n=mill.count(), emit="100ms")
job = mill.start(
    windows.for_each(lambda row: fired.append(row.n)),
    rows.for_each(lambda row: listed.append(row.k)),
    totals.for_each(lambda row: emitted.append(row.n)),
    mill.generate(rate=200).with_columns(now=mill.now()).for_each(lambda row: made.append(row.now)),
    checkpoint=mill.Checkpoint("state", every="100ms", mode="at_least_once"),
    parallelism=2,
)
soon(lambda: len(listed) == 3, "the listing")
for number, seconds in enumerate([-HOUR, DAY, 0, DAY, -HOUR]):
    shift(seconds)
    write(f"new{number}", line(2, 0))
    soon(lambda: len(listed) == 4 + number, "the listing of followed files")
    grows(lambda: len(emitted), 'emit="100ms"')
    grows(lambda: len(made), "generate(rate=)")
    grows(lambda: job.metrics().checkpoints_taken, "checkpoints")
    moved = (made[-1].replace(tzinfo=datetime.UTC) - STARTED).total_seconds()
    assert abs(moved - seconds) < 600, "now() does not show the time of the machine"
# The clock has jumped by a day and more, twice: no split has been quiet for an hour.
assert fired == [], "a split became idle"
assert job.metrics().rows_late == 0
began = time.monotonic()
try:
    job.wait("500ms")
except TimeoutError:
    pass
assert 0.4 < time.monotonic() - began < 10
job.stop()
assert job.wait("20s").status == "stopped"
"""

LIMITS = """
def failing(start):
    yield {"x": 1}
    raise RuntimeError("again")

def mover():
    time.sleep(0.3)
    shift(sign * DAY)

for sign in (1, -1):
    shift(0)
    thread = threading.Thread(target=mover)
    thread.start()
    began = time.monotonic()
    table = mill.generate(rate=100).collect(until="1s")
    took = time.monotonic() - began
    thread.join()
    assert 0.9 < took < 15, f"until was kept in {took} s"
    assert 40 < len(table) <= 120, f"rate=100 made {len(table)} rows in a second"

    shift(0)
    thread = threading.Thread(target=mover)
    thread.start()
    began = time.monotonic()
    job = mill.start(
        mill.from_iter(failing, schema={"x": int}).for_each(lambda row: None),
        checkpoint=mill.Checkpoint(f"state{sign}", mode="at_least_once"),
        restart=mill.Restart.fixed_delay(2, "1s"),
    )
    try:
        job.wait("20s")
    except mill.MillstreamError:
        pass
    took = time.monotonic() - began
    thread.join()
    assert 1.9 < took < 15, f"two pauses of a second took {took} s"
    assert job.status.restarts == 2
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that moves the clock."""
    library = tmp_path_factory.mktemp("shim") / "clock_shim.so"
    source = Path(__file__).with_name("clock_shim.c")
    subprocess.run([str(CC), "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("script", [FOLLOWED, LIMITS], ids=["a running job", "limits and pauses"])
def test_setting_the_clock_neither_stops_nor_hurries_a_job(tmp_path: Path, shim: Path, script: str) -> None:
    clock = tmp_path / "clock"
    clock.write_bytes(struct.pack("q", 0))
    environment = os.environ | {"LD_PRELOAD": str(shim), "MILL_CLOCK_FILE": str(clock)}
    text = f"HOUR, DAY = {HOUR}, {DAY}\n{PRELUDE}\n{script}"
    child = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert child.returncode == 0, child.stdout + child.stderr
