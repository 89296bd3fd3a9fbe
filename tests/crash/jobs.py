"""The jobs that the crash harnesses run, and how their output is read back and judged.

A job writes into ``WORK/out`` and keeps its checkpoints in ``WORK/state``; run again, it goes on. What it has committed
is read back by :func:`committed`, without the engine, and compared by :func:`verdict`.

    python tests/crash/jobs.py JOB WORK [--mode exactly_once] [--parallelism 2] [--every 20ms]
"""

from __future__ import annotations

import argparse
import csv
import functools
import gzip
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROWS = 2_000_000
RATE = 4_000_000
"""Rows a second: so that a job takes half a second, in which there are 25 checkpoints and room for a kill."""
KEYS = 1_000


def flights(work: Path) -> list[object]:
    """The main job of the examples, as it is."""
    return list(_example().sinks(work / "out"))


@functools.cache
def _example() -> object:
    """The example, with its data read only once in a process and those that it forks."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
    import flights as example

    example.load_flights = functools.cache(example.load_flights)
    example.load_flights()
    return example


def count(work: Path) -> list[object]:
    """A keyed count and sum over two million generated records, one row a key at the end."""
    return [_totals("end").write_csv(work / "out")]


def running(work: Path) -> list[object]:
    """The same count as an updating stream into a keyed SQLite table."""
    (work / "out").mkdir(parents=True, exist_ok=True)
    return [_totals("checkpoint").write_sqlite(work / "out" / "totals.db", "totals", key="key")]


def _totals(emit: str) -> object:
    import millstream as mill
    from millstream import col

    events = mill.generate(rows=ROWS, rate=RATE, key=(mill.index() * 7919) % KEYS, value=mill.index() % 1000)
    return events.key_by("key").agg(n=mill.count(), total=col("value").sum(), emit=emit)


def rows(work: Path) -> list[object]:
    """Every record of a filtered stream, as it is: what is lost or repeated shows as a row."""
    import millstream as mill
    from millstream import col

    events = mill.generate(rows=ROWS // 10, rate=RATE // 10, value=mill.index())
    return [events.filter(col("value") % 3 == 0).write_csv(work / "out")]


def files(work: Path) -> list[object]:
    """Records of a quoted CSV and of a Parquet file, each read in many parts and filtered, as they are."""
    import millstream as mill
    from millstream import col

    folder = _input_files()
    lines = mill.read_csv(folder / "in.csv").filter(col("value") % 30 == 0)
    table = mill.read_parquet(folder / "in.parquet").filter((col("value") >= ROWS // 8) & (col("share") < 0.1))
    return [lines.write_csv(work / "out" / "csv"), table.write_parquet(work / "out" / "parquet")]


def single(work: Path) -> list[object]:
    """Records into single files: some are complete long before the others, one is compressed, one replaces what is there."""
    import millstream as mill
    from millstream import col

    events = mill.generate(rows=ROWS // 10, rate=RATE // 10, value=mill.index())
    early = mill.generate(rows=ROWS // 1000, rate=RATE // 200, value=mill.index())
    out = work / "out"
    return [
        early.write_csv(out / "early.csv", on_existing="replace"),
        early.write_parquet(out / "early.parquet"),
        events.filter(col("value") % 3 == 0).write_csv(out / "late.csv.gz"),
        events.filter(col("value") % 5 == 0).write_json(out / "late.json", on_existing="replace"),
    ]


@functools.cache
def _input_files() -> Path:
    """The same files for all runs; made under another name, so that nobody reads half of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(tempfile.gettempdir()) / f"millstream-crash-input-{ROWS}"
    if not folder.exists():
        made = Path(tempfile.mkdtemp(dir=folder.parent))
        with (made / "in.csv").open("w") as out:
            out.write('"value","name"\n')
            out.writelines(f'{value},"name, {value % 97}"\n' for value in range(ROWS // 4))
        values = pa.array(range(ROWS // 4), pa.int64())
        shares = pa.array([value * 7919 % 1000 / 1000 for value in range(ROWS // 4)])
        pq.write_table(pa.table({"value": values, "share": shares}), made / "in.parquet", row_group_size=20_000)
        try:
            made.rename(folder)
        except OSError:
            shutil.rmtree(made)
    return folder


JOBS: dict[str, Callable[[Path], list[object]]] = {
    "flights": flights,
    "count": count,
    "running": running,
    "rows": rows,
    "files": files,
    "single": single,
}
TOTALS = ("count", "running")
"""Jobs whose rows are a key and totals that only grow."""


def prepare(job: str) -> None:
    """Import all that the job needs, so that a fork has it."""
    import pyarrow.parquet  # noqa: F401

    import millstream  # noqa: F401

    if job == "flights":
        _example()
    if job == "files":
        _input_files()


def run(job: str, work: Path, mode: str, parallelism: int, every: str) -> object:
    """Run a job to its end; gives its report."""
    import millstream as mill

    checkpoint = mill.Checkpoint(work / "state", every=every, mode=mode)
    return mill.run(*JOBS[job](work), checkpoint=checkpoint, parallelism=parallelism)


def committed(work: Path) -> list[str]:
    """All rows that are visible in the output, as sorted lines."""
    found: list[str] = []
    out = work / "out"
    for path in sorted(out.rglob("*")):
        if path.name.startswith(".") or not path.is_file():
            continue
        label = path.parent.relative_to(out).as_posix() if path.name.startswith("part-") else path.name
        if ".csv" in path.suffixes:
            with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
                found += [f"{label}|{','.join(row)}" for row in list(csv.reader(file))[1:]]
        elif path.suffix == ".parquet":
            import pyarrow.parquet as pq

            # One thread: a process that goes on to fork must have no others.
            with path.open("rb") as file:
                found += [f"{label}|{row!r}" for row in pq.read_table(file, use_threads=False, pre_buffer=False).to_pylist()]
        elif path.suffix == ".json":
            found += [f"{label}|{line}" for line in path.read_text().splitlines()]
        elif path.suffix == ".db":
            with sqlite3.connect(path) as database:
                query = database.execute("SELECT * FROM totals") if _has_table(database) else []
                found += [f"{label}|{','.join(map(str, row))}" for row in query]
    return sorted(found)


def _has_table(database: sqlite3.Connection) -> bool:
    return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'totals'").fetchall())


def check_mode(job: str, mode: str) -> None:
    """Refuse what cannot be judged."""
    if mode != "exactly_once" and job == "flights":
        raise SystemExit(
            f"flights cannot be judged in mode {mode}: a mean or a percentile over records that are missing or counted "
            "twice is just another number; take rows, count or running"
        )


def verdict(job: str, mode: str, expected: list[str], found: list[str]) -> str:
    """What is wrong with the output of a job under this mode; empty if nothing is.

    - ``exactly_once``: the rows are those of the undisturbed run.
    - ``at_least_once``: no row is missing; of totals, no key is, and none is smaller.
    - ``none``: no row is there that the undisturbed run does not have, or that often; of totals, those of a key are
      together not larger.
    """
    if mode != "exactly_once" and job in TOTALS:
        return _verdict_on_totals(mode, expected, found)
    missing, surplus = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    if mode == "exactly_once" and (missing or surplus):
        return f"missing {sorted(missing.elements())[:3]}, surplus {sorted(surplus.elements())[:3]}"
    if mode == "at_least_once" and missing:
        return f"missing {sorted(missing.elements())[:3]}"
    if mode == "none" and surplus:
        return f"surplus {sorted(surplus.elements())[:3]}"
    return ""


def _verdict_on_totals(mode: str, expected: list[str], found: list[str]) -> str:
    wanted, given = _by_key(expected), _by_key(found)
    for key, row in given.items():
        if key not in wanted:
            return f"key {key} does not exist"
        if mode == "none" and any(total > limit for total, limit in zip(_sums(row), _sums(wanted[key]), strict=True)):
            return f"key {key}: {row} is more than {wanted[key]}"
    for key, row in wanted.items() if mode == "at_least_once" else ():
        best = [max(column) for column in zip(*given.get(key, [(0, 0)]), strict=True)]
        if any(total < limit for total, limit in zip(best, _sums(row), strict=True)):
            return f"key {key}: {given.get(key)} is less than {row}"
    return ""


def _by_key(lines: list[str]) -> dict[str, list[tuple[int, ...]]]:
    rows: dict[str, list[tuple[int, ...]]] = {}
    for line in lines:
        key, *totals = line.split("|", 1)[1].split(",")
        rows.setdefault(key, []).append(tuple(map(int, totals)))
    return rows


def _sums(rows: list[tuple[int, ...]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]


def main() -> None:
    """Run one job to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=sorted(JOBS))
    parser.add_argument("work", type=Path)
    parser.add_argument("--mode", default="exactly_once")
    parser.add_argument("--parallelism", type=int, default=2)
    parser.add_argument("--every", default="20ms")
    given = parser.parse_args()
    print(run(given.job, given.work, given.mode, given.parallelism, given.every))


if __name__ == "__main__":
    main()
