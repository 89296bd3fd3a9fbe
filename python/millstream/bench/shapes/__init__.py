"""Queries over every shape of data: the db-benchmark's, strings, windows, wide rows, skew, files.

A family is a module with a function ``queries``. It makes its data when it is asked for, so that one family is in memory at a time.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

from millstream.bench.contest import Query, contest
from millstream.bench.result import Result, Settings, Workload
from millstream.bench.shapes import files, groups, joins, strings, wide, windows
from millstream.errors import PlanError

__all__ = ["WORKLOAD"]

_ROWS_DEFAULT = 3_000_000
_FAMILIES = {module.NAME: module for module in (groups, joins, strings, windows, wide, files)}


def _run(settings: Settings, tell: Callable[[str], None]) -> Result:
    for package in ("numpy", "pyarrow"):
        if importlib.util.find_spec(package) is None:
            raise PlanError(f"the workload shapes makes its data with {package}: pip install {package}")
    wanted = settings.queries
    known = [name for module in _FAMILIES.values() for name in module.QUERIES]
    unknown = [name for name in wanted if name not in known and name not in _FAMILIES]
    if unknown:
        raise PlanError(f"shapes has no query {unknown[0]!r}; there are {', '.join(_FAMILIES)}, and one by one {', '.join(known)}")
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for name, module in _FAMILIES.items():
            names = [query for query in module.QUERIES if not wanted or query in wanted or name in wanted]
            if not names:
                continue
            tell(f"shapes: data of {name}")
            queries: list[Query] = [query for query in module.queries(settings.rows or _ROWS_DEFAULT, settings, Path(folder)) if query.name in names]
            parts.append(contest("shapes", "Every shape of data", "rows", queries, settings, tell))
    columns = max((part.columns for part in parts), key=len)
    return Result(
        "shapes", parts[0].title, columns,
        [line for part in parts for line in part.lines], [bar for part in parts for bar in part.bars],
        parts[0].unit, [figure for part in parts for figure in part.figures], parts[0].notes,
    )


WORKLOAD = Workload(
    "shapes", "groups, joins, strings, windows, wide rows and files of many shapes",
    _run, ("runs", "parallelism", "against", "query"), ("duckdb", "polars"),
)
