"""What a record costs as something grows: rows, keys, open windows, state, chained steps, sinks, files, columns.

    python benches/jobs/growth.py [--runs 3] [--only keys columns] [--scale 0.1] [--svg docs/images]

Each point is a job in a process of its own, with two threads. Records are generated (their cost is part of each figure, and the same along a
curve). Printed are the least of some runs: nanoseconds of processor time a record, nanoseconds by the clock, and the peak of memory that
the process had above that of an empty job. What a curve should show is in its docstring, and the result of each job is checked.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Point = tuple[int, Callable[[], None]]
"""How many records, or values, a job has; the job, which checks its result."""

THREADS = 2
MIX = 2_654_435_761
"""A prime: the multiples of it, modulo the number of keys, meet the keys in no order that caches like."""


def rows(n: int, scale: float) -> Point:
    """Rows into 1,000 sums. Flat: a record costs the same in a long job."""
    count = int(n * scale)
    return count, lambda: _sums(count, 1_000)


def keys(n: int, scale: float) -> Point:
    """20 million rows into sums of random keys. It rises where the sums leave a cache, and where each row is a new key."""
    count = int(20_000_000 * scale)
    return count, lambda: _sums(count, n)


def state(n: int, scale: float) -> Point:
    """Two rows of each key into eight sums, about 100 bytes of state a key. It rises where the state leaves the caches."""
    count = int(2 * n * scale)
    return count, lambda: _sums(count, count // 2, sums=8)


def _sums(count: int, groups: int, sums: int = 1) -> None:
    import millstream as mill
    from millstream import col

    events = mill.generate(rows=count, key=(mill.index() * MIX) % groups, value=mill.index() % 10)
    named: dict[str, Any] = {f"sum{place}": (col("value") + place).sum() for place in range(sums)}
    grouped = events.key_by("key").agg(n=mill.count(), **named)
    # The groups stay in the engine: their number and their total are compared.
    total = grouped.agg(groups=mill.count(), n=col("n").sum(), sum=col("sum0").sum()).collect(parallelism=THREADS).to_pylist()
    assert total == [{"groups": min(count, groups), "n": count, "sum": sum(range(10)) * (count // 10) + sum(range(count % 10))}], total


def windows(n: int, scale: float) -> Point:
    """5 million rows into windows of a second, of which so many are open at a time. Flat, until the windows leave the caches."""
    count = int(5_000_000 * scale)

    def run() -> None:
        import millstream as mill
        from millstream import col

        second = mill.index() // 5_000 - (mill.index() * MIX) % n
        events = mill.generate(rows=count, key=mill.index() % 10, at=(second * 1000).cast(mill.Timestamp("ms")))
        grouped = events.event_time("at", watermark=f"{n}s").key_by("key").window(mill.tumbling("1s")).agg(n=mill.count())
        total = grouped.agg(n=col("n").sum()).collect(parallelism=THREADS).to_pylist()
        assert total == [{"n": count}], total

    return count, run


def steps(n: int, scale: float) -> Point:
    """5 million rows through so many steps that add one. A step more costs the same, however many there are."""
    count = int(5_000_000 * scale)

    def run() -> None:
        import millstream as mill
        from millstream import col

        stream = mill.generate(rows=count, x=mill.index())
        for _ in range(n):
            stream = stream.with_columns(x=col("x") + 1).filter(col("x") > 0)
        total = stream.agg(x=col("x").sum()).collect(parallelism=THREADS).to_pylist()
        assert total == [{"x": count * (count - 1) // 2 + n * count}], total

    return count, run


def sinks(n: int, scale: float) -> Point:
    """4 million rows, each into one of so many Parquet sinks. A sink more costs one comparison a record."""
    count = int(4_000_000 * scale)

    def run() -> None:
        import pyarrow.parquet as pq

        import millstream as mill
        from millstream import col

        with tempfile.TemporaryDirectory() as folder:
            stream = mill.generate(rows=count, x=mill.index())
            outputs = [stream.filter(col("x") % n == place).write_parquet(f"{folder}/{place}") for place in range(n)]
            mill.run(*outputs, parallelism=THREADS)
            found = sum(pq.read_metadata(file).num_rows for file in Path(folder).rglob("*.parquet"))
            assert found == count, found

    return count, run


def splits(n: int, scale: float) -> Point:
    """2 million rows in so many CSV files. It rises where a file has few rows: opening one costs what some hundred rows do."""
    count = int(2_000_000 * scale) // n * n

    def run() -> None:
        import millstream as mill
        from millstream import col

        with tempfile.TemporaryDirectory() as folder:
            lines = "".join(f"{x % 10},{x}\n" for x in range(count // n))
            for place in range(n):
                Path(folder, f"{place}.csv").write_text(f"key,value\n{lines}")
            _begin()
            table = mill.read_csv(folder, schema={"key": int, "value": int}).key_by("key").agg(n=mill.count(), sum=col("value").sum())
            total = table.agg(n=col("n").sum(), sum=col("sum").sum()).collect(parallelism=THREADS).to_pylist()
            each = count // n
            assert total == [{"n": count, "sum": n * (each * (each - 1) // 2)}], total

    return count, run


def columns(n: int, scale: float) -> Point:
    """20 million values in so many columns, filtered, mapped and summed by key. A value costs the same in a wide row."""
    count = int(20_000_000 * scale) // n

    def run() -> None:
        import millstream as mill
        from millstream import col

        names = [f"c{place}" for place in range(n)]
        made: dict[str, Any] = {name: mill.index() for name in names}
        summed: dict[str, Any] = {name: col(name).sum() for name in names}
        stream = mill.generate(rows=count, key=mill.index() % 100, **made)
        mapped = stream.filter(col("key") < 50).with_columns(**{name: col(name) + 1 for name in names})
        grouped = mapped.key_by("key").agg(**summed)
        found = grouped.collect(parallelism=THREADS).to_pylist()
        lengths = [len(range(rest, count, 100)) for rest in range(50)]
        expected = sum(length * (rest + 1) + 100 * (length * (length - 1) // 2) for rest, length in enumerate(lengths))
        assert len(found) == min(50, count)
        assert all(sum(row[name] for row in found) == expected for name in (names[0], names[-1]))

    return count * n, run


CURVES: dict[str, tuple[Callable[[int, float], Point], list[int]]] = {
    "rows": (rows, [1_000_000, 10_000_000, 100_000_000]),
    "keys": (keys, [1_000, 10_000, 100_000, 1_000_000, 10_000_000]),
    "windows": (windows, [1, 10, 100, 1_000, 10_000]),
    "state": (state, [10_000, 100_000, 1_000_000, 10_000_000, 40_000_000]),
    "steps": (steps, [1, 10, 50, 100, 200]),
    "sinks": (sinks, [1, 2, 5, 10, 20]),
    "splits": (splits, [1, 10, 100, 1_000, 10_000]),
    "columns": (columns, [1, 5, 20, 50, 200, 500]),
}
"""The curves, and how far they go."""

_began: list[tuple[float, float, int]] = []


def _begin() -> None:
    """Begin to measure; a job that has made its input does it again."""
    _began[:] = [(time.perf_counter(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)]


def one(curve: str, n: int, scale: float) -> None:
    """Run the job of a point, and print what it took."""
    import millstream as mill

    # The engine and its threads are there.
    mill.generate(rows=1000).collect(parallelism=THREADS)
    count, run = CURVES[curve][0](n, scale)
    _begin()
    run()
    wall, cpu, memory = _began[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    print(json.dumps({"cpu": (time.process_time() - cpu) / count * 1e9, "wall": (time.perf_counter() - wall) / count * 1e9, "peak": peak / 1024}))


def measured(curve: str, n: int, scale: float, runs: int) -> dict[str, float]:
    """Return the least that a point took."""
    found = []
    for _ in range(runs):
        done = subprocess.run([sys.executable, __file__, "--point", curve, str(n), "--scale", str(scale)], check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout))
    return {name: min(each[name] for each in found) for name in found[0]}


WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 220, 52, 34, 26


def chart(curve: str, points: dict[int, dict[str, float]]) -> str:
    """Draw a curve: both axes are logarithmic."""
    xs = [math.log10(n) for n in points]
    ys = [math.log10(point["cpu"]) for point in points.values()]
    low, high = math.floor(min(ys)), math.ceil(max(ys) + 1e-9)
    high = max(high, low + 1)
    span = (xs[-1] - xs[0]) or 1

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (x - xs[0]) / span * (WIDTH - LEFT - 20), HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11" fill="#555">',
        f'<text x="{LEFT}" y="15" font-weight="bold">{curve}: ns of processor time a {"value" if curve == "columns" else "record"}</text>',
    ]
    for power in range(low, high + 1):
        _, y = place(xs[0], power)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - 20}" y2="{y:.1f}" stroke="#ccc"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    where = [place(x, y) for x, y in zip(xs, ys, strict=True)]
    parts.append(f'<polyline fill="none" stroke="#2a6fb0" stroke-width="2" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in where)}"/>')
    for (x, y), (n, point) in zip(where, points.items(), strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#2a6fb0"/><text x="{x:.1f}" y="{y - 7:.1f}" text-anchor="middle">{point["cpu"]:.3g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{shown(n)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def shown(n: int) -> str:
    """Return a number as it stands at an axis."""
    for size, unit in ((1_000_000, " M"), (1_000, " k")):
        if n >= size and n % size == 0:
            return f"{n // size}{unit}"
    return str(n)


def main() -> None:
    """Measure the curves, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(CURVES), choices=list(CURVES))
    parser.add_argument("--scale", type=float, default=1.0, help="this part of the records")
    parser.add_argument("--svg", type=Path, help="a folder for charts")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.point is not None:
        one(given.point[0], int(given.point[1]), given.scale)
        return
    print("| curve | | ns CPU | ns clock | MB |\n| --- | ---: | ---: | ---: | ---: |")
    for curve in given.only:
        points = {}
        for n in CURVES[curve][1]:
            points[n] = point = measured(curve, n, given.scale, given.runs)
            print(f"| {curve} | {shown(n)} | {point['cpu']:.3g} | {point['wall']:.3g} | {point['peak']:.0f} |", flush=True)
        if given.svg is not None:
            given.svg.mkdir(parents=True, exist_ok=True)
            (given.svg / f"growth-{curve}.svg").write_text(chart(curve, points))


if __name__ == "__main__":
    main()
