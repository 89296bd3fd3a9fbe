"""Whoever looks into a table while a job writes it, from the job's own process, sees whole commits and disturbs nothing.

Python's ``sqlite3`` is another copy of SQLite than the engine's, so neither knows of the locks of the other but by the file.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest

import millstream as mill

SPLITS = 8
"""How many splits generate() has: each makes every eighth number, in order."""


def whole(path: Path) -> int:
    """The number of rows, which of every split are the first ones, each once."""
    with sqlite3.connect(path) as database:
        lanes = "SELECT value % ?, count(*), count(DISTINCT value), max(value) FROM t GROUP BY 1"
        found = database.execute(lanes, [SPLITS]).fetchall()
    database.close()
    for lane, count, distinct, last in found:
        assert count == distinct == (last - lane) // SPLITS + 1
    return sum(count for _, count, _, _ in found)


@pytest.mark.parametrize("mode", ["delete", "wal", "truncate"])
@pytest.mark.parametrize("key", [None, "value"])
def test_a_reader_in_the_same_process_sees_whole_commits(tmp_path: Path, mode: str, key: str | None) -> None:
    path = tmp_path / "out.db"
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute(f"CREATE TABLE t (value INTEGER {'PRIMARY KEY' if key else ''})")
    database.close()
    stream = mill.generate(rate=20_000, value=mill.index())
    job = mill.start(stream.write_sqlite(path, "t", key=key), checkpoint=mill.Checkpoint(tmp_path / "state", every="5ms"), parallelism=1)
    stop = threading.Event()
    failures: list[BaseException] = []
    seen: list[int] = []

    def look() -> None:
        while not stop.is_set():
            try:
                seen.append(whole(path))
            except BaseException as failure:
                failures.append(failure)
                return

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(2.5)
    stop.set()
    for thread in threads:
        thread.join()
    job.stop()
    job.wait()
    assert failures == []
    assert len(set(seen)) > 5
    assert whole(path) >= max(seen)
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_a_writer_in_the_same_process_waits_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (n INTEGER)")
    database.close()
    stream = mill.generate(rate=20_000, value=mill.index())
    job = mill.start(stream.write_sqlite(path, "t"), checkpoint=mill.Checkpoint(tmp_path / "state", every="10ms"), parallelism=1)
    written = 0
    until = time.monotonic() + 2
    while time.monotonic() < until:
        database = sqlite3.connect(path, timeout=20)
        with database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO mine VALUES (?)", [written])
        database.close()
        written += 1
        time.sleep(0.01)
    job.stop()
    job.wait()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*), count(DISTINCT n) FROM mine").fetchone() == (written, written)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert whole(path) > 1000
