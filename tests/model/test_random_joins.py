"""Random joins of every kind, killed and restored at random, against the oracle.

``MILL_CASES`` sets how many cases are drawn (100 unless set), ``MILL_SEED`` the first of them. A failure prints its
seed: ``MILL_SEED=<seed> MILL_CASES=1`` replays it.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import joins
import pytest
from joins_engine import UNSHOWN, carry_out

FIRST = int(os.environ.get("MILL_SEED", "1"))
CASES = int(os.environ.get("MILL_CASES", "100"))


def text(value: Any) -> str:
    """A value so that those that are equal are the same."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(value + 0.0)
    return repr(value)


def counted(rows: list[joins.Row], unshown: tuple[str, ...] = ()) -> Counter[Any]:
    """Rows without an order."""
    return Counter(tuple((name, text(value)) for name, value in sorted(row.items()) if name not in unshown) for row in rows)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + CASES))
def test_joins_agree_with_their_definition(seed: int, tmp_path: Path) -> None:
    case = joins.draw(seed)
    found, rows_late = carry_out(case, tmp_path)
    if rows_late is not None:
        assert rows_late == sum(len(rows) for name, rows in found.items() if name != "result"), f"late rows and their count differ in {case}"
    wanted = joins.expected(case)
    if case.is_silent:
        for name in ("late", "late_right"):
            assert not counted(wanted[name]) - counted(found[name]), f"{name} of {case}"
        wanted = joins.expected(case, [found["late"], found["late_right"]])
    assert found.keys() == wanted.keys()
    unshown = UNSHOWN if (tmp_path / "result.db").exists() else ()
    for name, rows in found.items():
        given, expected = counted(rows), counted(wanted[name], unshown if name == "result" else ())
        missing, surplus = (list((one - other).elements()) for one, other in ((expected, given), (given, expected)))
        assert not missing and not surplus, f"{name} of {case}\n{len(missing)} missing {missing[:2]}\n{len(surplus)} surplus {surplus[:2]}"
