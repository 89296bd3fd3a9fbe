"""Random as-of joins and enrichments, killed and restored at random, against the oracle.

``MILL_CASES`` sets how many cases are drawn (60 unless set), ``MILL_SEED`` the first of them. A failure prints its
seed: ``MILL_SEED=<seed> MILL_CASES=1`` replays it.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import lookups
import pyarrow.parquet as pq
import pytest

import millstream as mill
from millstream import testing

FIRST = int(os.environ.get("MILL_SEED", "1"))
CASES = int(os.environ.get("MILL_CASES", "60"))
STARTS_MAX = 200


def counted(rows: list[dict[str, Any]]) -> Counter[tuple[tuple[str, Any], ...]]:
    return Counter(tuple(sorted(row.items())) for row in rows)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + CASES))
def test_look_ups_agree_with_their_definition(seed: int, tmp_path: Path) -> None:
    case, dice = lookups.draw(seed), random.Random(f"schedule {seed}")
    for start in range(STARTS_MAX):
        outputs = case.build()
        sinks = [stream.write_parquet(tmp_path / name) for name, stream in outputs.items()]
        is_last = start == STARTS_MAX - 1
        done = testing.simulate(
            *sinks,
            checkpoint=mill.Checkpoint(tmp_path / "state", every="1ms"),
            seed=dice.randrange(2**32),
            parallelism=dice.choice([1, 2, 3]),
            frame_rows=dice.choice([1, 3, 64]),
            chaining=dice.random() < 0.7,
            steps=None if is_last else dice.choice([20, 100, 300]) * (1 + start),
        )
        if done:
            break
    for name, wanted in case.expected.items():
        files = [file for file in sorted((tmp_path / name).glob("*.parquet")) if not file.name.startswith(".")]
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        assert counted(rows) == counted(wanted), f"{name} of seed {seed}"
