"""Random plans over random data, killed and restored at random, against the oracle.

``MILL_CASES`` sets how many cases are drawn (100 unless set), ``MILL_SEED`` the first of them. A failure prints its
seed: ``MILL_SEED=<seed> MILL_CASES=1`` replays it.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import plans
import pytest
from engine import carry_out

FIRST = int(os.environ.get("MILL_SEED", "1"))
CASES = int(os.environ.get("MILL_CASES", "100"))
FOUND = [29, 34, 39, 6025]
"""Cases that once failed: partial results overtaken by idleness; an end that was emitted again after a second restart."""


def canonical(row: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """A row in an order that does not depend on the columns' order, floats rounded past what summation order moves."""
    return [(name, type(value).__name__ if value is not None else "", _rounded(value)) for name, value in sorted(row.items())]


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if math.isnan(value):
        return "nan"
    return round(value, 9 - max(0, math.ceil(math.log10(abs(value)))) if value else 9) + 0.0


@pytest.mark.parametrize("seed", sorted({*FOUND, *range(FIRST, FIRST + CASES)}))
def test_engine_and_oracle_agree(seed: int, tmp_path: Path) -> None:
    case = plans.draw(seed)
    expected = plans.expected(case)
    found = carry_out(case, tmp_path)
    for name, rows in expected.items():
        wanted = sorted((canonical(row) for row in rows), key=repr)
        given = sorted((canonical(row) for row in found[name]), key=repr)
        assert given == wanted, f"{name} of {case}"
