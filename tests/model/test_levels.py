"""Random windows over windows and unions, killed and restored at random, against the oracle.

``MILL_CASES`` sets how many cases are drawn (100 unless set), ``MILL_SEED`` the first of them. A failure prints its
seed: ``MILL_SEED=<seed> MILL_CASES=1`` replays it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import levels
import pytest
from levels_engine import carry_out

FIRST = int(os.environ.get("MILL_SEED", "1"))
CASES = int(os.environ.get("MILL_CASES", "100"))


def plain(rows: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """Rows in one order."""
    return sorted((row["k"], row["v"], row["n"]) for row in rows)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + CASES))
def test_windows_over_windows_agree_with_the_oracle(seed: int, tmp_path: Path) -> None:
    case = levels.draw(seed)
    found, rows_late = carry_out(case, tmp_path)
    stood_for = levels.rows_stood_for(case.tree)
    if stood_for is not None:
        assert sum(row["n"] for rows in found for row in rows) == stood_for, f"rows are missing or counted twice in {case}"
    if rows_late is not None:
        assert rows_late == sum(len(rows) for rows in found[1:]), f"late rows and their count differ in {case}"
    for number, may_be_late in enumerate(levels.may_be_late(case.tree)):
        assert may_be_late or not found[1 + number], f"window {number} found the rows of a window late in {case}"
    if not case.is_stalling:
        late: list[list[levels.Row]] = []
        expected = [[row for row, _, _ in levels.expected(case.tree, late).rows], *late]
        for number, (given, wanted) in enumerate(zip(found, expected, strict=True)):
            assert plain(given) == plain(wanted), f"output {number} of {case}"
