"""HDFS, and ``gs://`` and ``az://`` as their emulators have them: files read and written, kills, checkpoints, the lease."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any, Protocol

import job_process
import pytest
import s3_state_jobs
from job_process import SECONDS_MAX

import millstream as mill
from millstream import col
from millstream.state import verify

JOBS = Path(__file__).with_name("store_jobs.py")
SEED = int(os.environ.get("SEED", "1"))
KILLS = int(os.environ.get("KILLS", "3"))
ROWS = 900


class Place(Protocol):
    """A directory or bucket of a store, as a test sees it."""

    options: dict[str, str | bool | int]

    @property
    def root(self) -> str: ...
    def url(self, key: str = "") -> str: ...
    def put(self, key: str, data: bytes) -> None: ...
    def get(self, key: str) -> bytes: ...
    def names(self, prefix: str = "") -> list[str]: ...
    def unfinished(self) -> list[str]: ...


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory of caches, which no other test has."""
    monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Job(job_process.Job):
    """A job of `store_jobs.py`, all of which is in the store."""

    def __init__(self, work: Path, place: Place, source: str = "-", *, parallelism: int = 2, fail_point: str | None = None) -> None:
        at = [place.root, json.dumps(place.options), source if source == "-" else place.url(source), place.url("out/"), place.url("state")]
        super().__init__(JOBS, work, *at, "--rows", ROWS, "--parallelism", parallelism, fail_point=fail_point)


def rows_of(place: Place, prefix: str) -> list[dict[str, Any]]:
    """Return the rows of all complete files of JSON."""
    return [json.loads(line) for name in place.names(prefix) if ".writing" not in name for line in place.get(name).splitlines()]


def numbers(rows: int) -> mill.Stream:
    return mill.from_iter([{"n": n, "day": f"2024-01-{n % 3 + 1:02}"} for n in range(rows)])


# -- reading ---------------------------------------------------------------------------------------------------------------


def test_what_a_url_names_is_read(place: Place) -> None:
    for name, values in {"in/a.csv": (1, 2), "in/b.csv": (3,), "in/day=5/c.csv": (4,), "in/_skipped.csv": (9,), "other.csv": (8,)}.items():
        place.put(name, b"n\n" + b"".join(b"%d\n" % n for n in values))

    def read(path: str, **options: Any) -> list[int]:
        return sorted(mill.read_csv(place.url(path), schema={"n": int}, **options).collect()["n"])

    assert read("in/a.csv") == [1, 2]
    assert read("in/") == read("in") == read("in/[ab].csv") == [1, 2, 3]
    assert read("in/", recursive=True) == read("in/**/[abc].csv") == [1, 2, 3, 4]
    with pytest.raises(mill.ConnectorError, match="there is no object .*in/aa.csv"):
        read("in/aa.csv")
    with pytest.raises(mill.ConnectorError, match="no object matches"):
        read("in/*.parquet")


def test_large_files_are_read_in_ranges(place: Place) -> None:
    # Of several blocks of HDFS, whose limit the tests have set low.
    rows = 300_000
    place.put("big.csv", b"n,text\n" + b"".join(b"%d,value-%d\n" % (n, n) for n in range(rows)))
    found = mill.read_csv(place.url("big.csv"), schema={"n": int, "text": str}).agg(n=mill.count(), total=col("n").sum()).collect(parallelism=2)
    assert found.to_pylist() == [{"n": rows, "total": rows * (rows - 1) // 2}]


def test_new_files_are_followed(place: Place, tmp_path: Path) -> None:
    place.put("in/a.csv", b"n\n1\n2\n")
    seen: list[int] = []
    stream = mill.read_csv(place.url("in/"), follow=True, schema={"n": int})
    with mill.start(stream.for_each(lambda row: seen.append(row["n"])), checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms", mode="at_least_once")):
        until(lambda: sorted(seen) == [1, 2])
        place.put("in/b.csv", b"n\n3\n")
        until(lambda: sorted(seen) == [1, 2, 3])
    seen.clear()
    place.put("in/c.csv", b"n\n4\n")
    with mill.start(stream.for_each(lambda row: seen.append(row["n"])), checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms", mode="at_least_once")):
        until(lambda: 4 in seen)


def until(is_so: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_file_that_was_replaced_is_not_continued(place: Place, tmp_path: Path) -> None:
    place.put("in.csv", b"n\n" + b"".join(b"%d\n" % n for n in range(1000)))

    def fail(row: dict[str, Any]) -> bool:
        if row["n"] == 999:
            raise RuntimeError("as the test wants it")
        time.sleep(0.001)
        return True

    def job() -> mill.Output:
        return mill.read_csv(place.url("in.csv"), schema={"n": int}).filter(fail).write_json(tmp_path / "out")

    with pytest.raises(mill.UserFunctionError):
        mill.run(job(), checkpoint=mill.Checkpoint(tmp_path / "state", every="5ms"))
    place.put("in.csv", b"n\n" + b"".join(b"%d\n" % n for n in range(2000)))
    with pytest.raises(mill.MillstreamError, match=r"in\.csv"):
        mill.run(job(), checkpoint=mill.Checkpoint(tmp_path / "state", every="5ms"))


# -- writing ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_formats(place: Place, tmp_path: Path, kind: str) -> None:
    sink = getattr(numbers(1000), f"write_{kind}")(place.url("out/"), partition_by="day")
    assert mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="10ms")).status == "finished"
    names = place.names("out/")
    assert {name.split("/")[1] for name in names} == {"day=2024-01-01", "day=2024-01-02", "day=2024-01-03"}
    assert all(name.split("/")[2].startswith("part-") and name.endswith(f".{kind}") for name in names)
    back = getattr(mill, f"read_{kind}")(place.url("out/"), recursive=True).collect()
    assert sorted(back["n"]) == list(range(1000))


def test_large_output(place: Place) -> None:
    rows = 20_000
    text = random.Random(SEED).randbytes(400).hex()
    mill.run(mill.generate(rows=rows, n=mill.index()).select("n", text=mill.lit(text) + col("n").cast(str)).write_csv(place.url("out/")), parallelism=1)
    back = mill.read_csv(place.url("out/"), schema={"n": int, "text": str}).agg(n=mill.count(), total=col("n").sum()).collect()
    assert back.to_pylist() == [{"n": rows, "total": rows * (rows - 1) // 2}] and place.unfinished() == []


def test_output_of_another_run(place: Place, tmp_path: Path) -> None:
    place.put("out/mine.txt", b"kept")
    mill.run(numbers(10).write_json(place.url("out/")), checkpoint=tmp_path / "first")
    with pytest.raises(mill.ConnectorError, match="already has the output of another run"):
        mill.run(numbers(20).write_json(place.url("out/")), checkpoint=tmp_path / "second")
    mill.run(numbers(20).write_json(place.url("out/"), on_existing="replace"), checkpoint=tmp_path / "third")
    rows = [json.loads(line) for name in place.names("out/") if name.endswith(".json") for line in place.get(name).splitlines()]
    assert sorted(row["n"] for row in rows) == list(range(20)) and place.get("out/mine.txt") == b"kept"


def test_a_job_that_fails_leaves_nothing(place: Place) -> None:
    def fail(row: dict[str, Any]) -> bool:
        if row["n"] == 4999:
            raise RuntimeError("as the test wants it")
        return True

    with pytest.raises(mill.UserFunctionError):
        mill.run(numbers(5000).filter(fail).write_json(place.url("out/")))
    assert (place.names("out/"), place.unfinished()) == ([], [])


# -- checkpoints and the lease ---------------------------------------------------------------------------------------------


def counts(rows: int) -> mill.Stream:
    return mill.generate(rows=rows, k=mill.index() % 5).key_by("k").agg(n=mill.count()).name("counts")


def test_a_job_goes_on_and_can_be_looked_at(place: Place, tmp_path: Path, cache: Path) -> None:
    url = place.url("jobs/counts")
    report = mill.run(counts(1000).write_csv(tmp_path / "out"), checkpoint=url + "/")
    for is_lost in (False, True):
        if is_lost:
            shutil.rmtree(cache)
        again = mill.run(counts(1000).write_csv(tmp_path / "out"), checkpoint=url)
        assert again.restored == report.checkpoint and "nothing to do" in again.notes[-1]
    assert sorted(mill.read_state(url, step="counts")["n"]) == [200] * 5
    assert max(info.id for info in mill.checkpoints(url)) == report.checkpoint
    with pytest.raises(mill.CheckpointError, match="is not a millstream state directory: there is no object MILLSTREAM"):
        mill.checkpoints(place.url("nothing"))
    place.put("taken/mine.txt", b"kept")
    with pytest.raises(mill.CheckpointError, match='holds "mine.txt"; give a prefix under which there is nothing else'):
        mill.run(counts(1).write_csv(tmp_path / "other"), checkpoint=place.url("taken"))
    mill.run(counts(200).write_csv(tmp_path / "b"), checkpoint=mill.Checkpoint(url, restart=True))
    assert sum(mill.read_state(url, step="counts")["n"]) == 200


def test_savepoints(place: Place, tmp_path: Path, cache: Path) -> None:
    endless = mill.generate(rate=5_000, n=mill.index()).key_by(k=col("n") % 3).agg(n=mill.count(), emit="checkpoint").name("counts")
    sink, options = endless.for_each(lambda row: None), {"every": "50ms", "mode": "at_least_once"}
    saved = place.url("saved/before")
    with mill.start(sink, checkpoint=mill.Checkpoint(place.url("state"), **options)) as job:
        job.checkpoint()
        job.savepoint(saved)
        with pytest.raises(mill.CheckpointError, match="saved/before is not empty"):
            job.savepoint(saved)
    shutil.rmtree(cache)
    kept = sum(mill.read_state(saved, step="counts")["n"])
    with mill.start(sink, checkpoint=mill.Checkpoint(place.url("next"), restore_from=saved, **options)) as job:
        job.checkpoint()
    assert sum(mill.read_state(place.url("next"), step="counts")["n"]) >= kept > 0


def test_one_job_at_a_time(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = place.url("state")
    endless = mill.generate(rate=1_000, n=mill.index()).key_by(k=col("n") % 3).agg(n=mill.count(), emit="checkpoint")
    with mill.start(endless.write_sqlite(tmp_path / "a.db", "t", key="k"), checkpoint=url) as job:
        job.checkpoint()
        monkeypatch.setenv("MILLSTREAM_CACHE", str(tmp_path / "other"))
        with pytest.raises(mill.CheckpointError, match=rf"{url} is in use by process {os.getpid()} on host .*which is this machine"):
            mill.run(counts(1).write_csv(tmp_path / "out"), checkpoint=url)
        job.checkpoint()


# -- kills -----------------------------------------------------------------------------------------------------------------

STEPS = ["object.note:2", "object.part:2", "object.complete:2", "remote.manifest_written:2", "remote.head:4", "remote.published:2"]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(place: Place, tmp_path: Path, cache: Path, step: str) -> None:
    job = Job(tmp_path, place, fail_point=step)
    assert job.ends_within(SECONDS_MAX) and job.process.returncode == -signal.SIGKILL, job.said()
    is_elsewhere = step.startswith("remote")
    if is_elsewhere:
        # On another machine, which has no notes of what the sink had begun to write.
        shutil.rmtree(cache)
    Job(tmp_path, place, parallelism=1 + STEPS.index(step) % 3).finish()
    found = sorted((row["least"], row["count"], row["total"]) for row in rows_of(place, "out/"))
    assert found == s3_state_jobs.expected(ROWS)
    assert verify(place.url("state"))[0][0][1] is None
    assert is_elsewhere or [name for name in place.unfinished() if name.startswith("out/")] == []


def test_killed_at_any_time(place: Place, tmp_path: Path) -> None:
    chances = random.Random(SEED)
    parts = 10
    for part in range(parts):
        place.put(f"in/{part}.csv", b"n,text\n" + b"".join(b"%d,value-%d\n" % (n, n) for n in range(part * ROWS // parts, (part + 1) * ROWS // parts)))
    for _ in range(KILLS):
        job = Job(tmp_path, place, "in/*.csv", parallelism=chances.randint(1, 3))
        if job.ends_within(chances.uniform(0.4, 1.6)):
            assert job.process.returncode == 0, job.said()
            break
        job.kill()
    Job(tmp_path, place, "in/*.csv").finish()
    assert sorted(row["n"] for row in rows_of(place, "out/")) == list(range(ROWS))
    assert [name for name in place.unfinished() if name.startswith("out/")] == []
