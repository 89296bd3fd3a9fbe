"""Sketches of all records are made in parts by the tasks that read: nobody sees it in results.

A step with one key of a single value has one task that sees all records, so its results are what those without keys have to be.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, testing

START = datetime(2026, 1, 1)
CALLS: dict[str, Any] = {
    "names": col("s").approx_n_unique(),
    "some": col("s").approx_n_unique().filter(col("v") > 0),
    "values": col("v").approx_n_unique(),
    "low": col("v").approx_quantile(0.1),
    "mid": col("v").approx_quantile(0.5).filter(col("s") != "name 3"),
    "took": col("d").approx_quantile(0.9),
    "nothing": col("v").approx_quantile(0.5).filter(col("v") > 1e300),
    "n": mill.count(),
    "most": col("s").max(),
}


def records(seed: int, rows: int, names: int) -> pa.Table:
    """Records with nulls, a few of which are late."""
    dice = random.Random(seed)
    made = []
    for number in range(rows):
        at = START + timedelta(milliseconds=10 * number - (dice.randrange(30_000) if dice.random() < 0.02 else 0))
        made.append(
            {
                "k": 1,
                "at": at,
                "s": None if dice.random() < 0.1 else f"name {dice.randrange(names)}",
                "v": None if dice.random() < 0.1 else dice.choice([0.0, dice.gauss(0, 50), dice.expovariate(0.001)]),
                "d": timedelta(seconds=dice.randrange(3000)),
            }
        )
    return pa.Table.from_pylist(made)


def rows_of(stream: mill.Stream, parallelism: int) -> list[dict[str, Any]]:
    """The rows without the key, by their window."""
    rows = stream.collect(parallelism=parallelism).to_arrow().to_pylist()
    for row in rows:
        row.pop("k", None)
    return sorted(rows, key=lambda row: str(row.get("window_start")))


@pytest.mark.parametrize("rows, names", [(0, 1), (50, 20), (3000, 150), (20_000, 30_000)])
@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_without_keys_results_are_those_of_one_key(parallelism: int, rows: int, names: int) -> None:
    table = records(rows + 1, rows or 1, names).slice(0, rows)
    batches = pa.Table.from_batches(table.to_batches(max_chunksize=701), schema=table.schema)
    stream = mill.from_arrow(batches)
    [found] = rows_of(stream.agg(**CALLS), parallelism)
    keyed = rows_of(stream.key_by("k").agg(**CALLS), 1)
    if rows:
        assert [found] == keyed
    else:
        assert (found["names"], found["low"], found["n"]) == (0, None, 0)


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("window", [mill.tumbling(timedelta(seconds=20)), mill.sliding(timedelta(seconds=20), timedelta(seconds=5))])
def test_windows_without_keys_have_the_results_of_one_key(window: Any, parallelism: int) -> None:
    table = records(7, 6000, 400)
    stream = mill.from_arrow(table).event_time("at", watermark="40s")
    found = rows_of(stream.window_all(window).agg(**CALLS), parallelism)
    assert found == rows_of(stream.key_by("k").window(window).agg(**CALLS), 1)
    assert len(found) > 2


@pytest.mark.parametrize("seed", range(4))
def test_a_job_that_is_stopped_goes_on_with_its_sketches(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    table = records(seed, 3000, 900).drop(["d"])
    calls = {name: call for name, call in CALLS.items() if name != "took"}
    mill.run(mill.from_arrow(table).write_csv(tmp_path / "x"))
    schema = {"k": int, "at": datetime, "s": str, "v": float}

    def job() -> mill.Output:
        return mill.read_csv(tmp_path / "x", schema=schema).agg(**calls).write_json(tmp_path / "out")

    for attempt in range(12):
        steps = dice.randrange(40, 500) if attempt < 11 else None
        options: dict[str, Any] = {"seed": seed * 100 + attempt, "checkpoint": str(tmp_path / "state"), "frame_rows": 64}
        if testing.simulate(job(), steps=steps, parallelism=dice.randrange(1, 4), **options) is not None:
            break
    [found] = mill.read_json(tmp_path / "out", schema={**dict.fromkeys(calls, float), "most": str}).collect().to_arrow().to_pylist()
    [expected] = rows_of(mill.read_csv(tmp_path / "x", schema=schema).agg(**calls), 1)
    assert found == expected
