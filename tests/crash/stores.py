"""Kill jobs that write a table of Delta or Iceberg, at random instants, run them again until they are done, and judge what the table shows.

    python tests/crash/stores.py delta --runs 100 --seed 1
    python tests/crash/stores.py iceberg-keyed --runs 100

Prints the seed and a line for each run with a wrong result. The table is judged by DuckDB, over the files that it names: by the entries of
Delta's log, read in plain Python, or by the newest snapshot of Iceberg. ``--only 17`` replays run 17 alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import deltalake  # noqa: F401 - so that the jobs need not, which are killed early otherwise
import pyarrow.parquet  # noqa: F401
import pyiceberg.catalog.sql
import pyiceberg.io.pyarrow  # noqa: F401
from kill import OPENING, STARTS_MAX, instant
from launcher import Child, Failed, spread

import millstream as mill
from millstream import col

TOTAL = 6000
KEYS = 40


def numbers(start: int) -> Any:
    """Numbers in small portions, so that many checkpoints come between them."""
    for n in range(start, TOTAL):
        if n % 10 == 0:
            time.sleep(0.001)
        yield {"n": n, "k": n * 7919 % KEYS, "part": f"p{n % 3}"}


def source() -> mill.Stream:
    """The input of all jobs."""
    return mill.from_iter(numbers, schema={"n": int, "k": int, "part": str})


def appended(work: Path) -> mill.Output:
    """All numbers, by partition."""
    return source().write_delta(work / "table", partition_by="part")


def keyed(work: Path) -> mill.Output:
    """Sums by key; those that are even are withdrawn."""
    return source().key_by("k").agg(n=mill.count(), t=col("n").sum(), emit="each").filter(col("t") % 2 == 1).write_delta(work / "table", key="k")


def lake(work: Path) -> dict[str, str]:
    """A catalog of Iceberg."""
    return {"type": "sql", "uri": f"sqlite:///{work}/catalog.db", "warehouse": f"file://{work}/lake"}


def appended_to_iceberg(work: Path) -> mill.Output:
    """All numbers, by partition."""
    return source().write_iceberg("s.t", catalog=lake(work), partition_by=["part", "bucket(2, k)"])


def keyed_in_iceberg(work: Path) -> mill.Output:
    """Sums by key; those that are even are withdrawn."""
    sums = source().key_by("k").agg(n=mill.count(), t=col("n").sum(), emit="each")
    return sums.filter(col("t") % 2 == 1).write_iceberg("s.t", catalog=lake(work), key="k")


JOBS: dict[str, Callable[[Path], mill.Output]] = {
    "delta": appended,
    "delta-keyed": keyed,
    "iceberg": appended_to_iceberg,
    "iceberg-keyed": keyed_in_iceberg,
}


def expected(job: str) -> list[Any]:
    """What a table must have in the end, without the engine."""
    if not job.endswith("-keyed"):
        return [[n] for n in range(TOTAL)]
    sums: dict[int, list[int]] = {}
    for n in range(TOTAL):
        sums.setdefault(n * 7919 % KEYS, []).append(n)
    return sorted([k, len(found), sum(found)] for k, found in sums.items() if sum(found) % 2 == 1)


def run(job: str, work: Path) -> None:
    """Run a job to its end."""
    # A commit of pyiceberg takes tens of milliseconds.
    every = "50ms" if job.startswith("iceberg") else "10ms"
    mill.run(JOBS[job](work), checkpoint=mill.Checkpoint(work / "state", every=every), parallelism=2)


def judge(job: str, work: Path) -> None:
    """Write down what the table shows, in a process of its own: who forks must have no threads."""
    import duckdb

    paths = of_iceberg(work) if job.startswith("iceberg") else of_delta(work)
    columns = "k, n, t" if job.endswith("-keyed") else "n"
    found = duckdb.sql(f"select {columns} from read_parquet({paths!r}, hive_partitioning=false) order by all").fetchall() if paths else []
    (work / "found.json").write_text(json.dumps(found))


def of_delta(work: Path) -> list[str]:
    """The files that the log names."""
    files: set[str] = set()
    newest: dict[str, int] = {}
    for entry in sorted((work / "table" / "_delta_log").glob("*.json")):
        for line in entry.read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                assert action["add"]["path"] not in files
                files.add(action["add"]["path"])
            if "remove" in action:
                files.remove(action["remove"]["path"])
            if "txn" in action:
                mark = action["txn"]
                assert mark["version"] > newest.get(mark["appId"], 0), f"{mark} comes twice"
                newest[mark["appId"]] = mark["version"]
    return [str(work / "table" / unquote(path)) for path in files]


def of_iceberg(work: Path) -> list[str]:
    """The files of the newest snapshot."""
    with pyiceberg.catalog.load_catalog("default", **lake(work)) as catalog:
        table = catalog.load_table("s.t")
        newest: dict[str, int] = {}
        for snapshot in sorted(table.snapshots(), key=lambda each: each.sequence_number or 0):
            assert snapshot.summary is not None
            run, epoch = snapshot.summary["millstream.run"], int(snapshot.summary["millstream.epoch"] or 0)
            assert run is not None and epoch > newest.get(run, 0), f"{epoch} of {run} comes twice"
            newest[run] = epoch
        return [unquote(urlsplit(task.file.file_path).path) for task in table.scan().plan_files()]


def carry_out(job: str, seed: int, root: Path, seconds: float, number: int) -> tuple[int, str]:
    """One run from its first start to its verdict: how many kills hit, and what is wrong."""
    work = root / f"run-{number}"
    dice = random.Random(f"{seed} {number}")
    kills, wanted, left = 0, dice.randint(1, 4), seconds
    wrong = ""
    try:
        for _ in range(STARTS_MAX):
            child = Child(partial(run, job, work), work / "log")
            delay = instant(dice, left)
            if kills == wanted or child.ends_within(delay):
                child.finish()
                break
            child.kill()
            kills += 1
            left = max(left - delay, OPENING)
        else:
            raise Failed(f"not done after {STARTS_MAX} starts")
        Child(partial(judge, job, work), work / "judged").finish()
        found = json.loads((work / "found.json").read_text())
        if found != expected(job):
            wrong = f"{len(found)} rows, and {len(expected(job))} were expected"
    except Failed as error:
        wrong = str(error)
    if not wrong:
        shutil.rmtree(work, ignore_errors=True)
    return kills, wrong


def main() -> None:
    """Run the harness."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=sorted(JOBS))
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--only", type=int, help="replay this run alone")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    print(f"job {given.job}, seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        began = time.monotonic()
        Child(partial(run, given.job, root / "calm"), root / "calm" / "log").finish()
        seconds = time.monotonic() - began
        print(f"undisturbed: {seconds:.2f} s", flush=True)
        kills, failed = 0, 0
        numbers_of_runs = range(given.runs) if given.only is None else [given.only]
        for number, (hit, wrong) in spread(numbers_of_runs, partial(carry_out, given.job, given.seed, root, seconds), given.workers):
            kills += hit
            if wrong:
                failed += 1
                print(f"run {number}: {wrong}", flush=True)
    print(f"{given.job}: {given.runs if given.only is None else 1} runs, {kills} kills, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
