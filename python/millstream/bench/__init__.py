"""``millstream bench``: how fast this machine runs a few known workloads, compared with the other engines that are installed.

A workload is a module with a ``WORKLOAD``; it makes its own data, so nothing is downloaded. Where engines stand side by
side they run in turns on the same data with the same number of threads, and their results are compared before anything
is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from millstream.bench import checkpoint, latency, nexmark, shapes, udf, wordcount, ysb
from millstream.bench.result import Result, Settings, Workload
from millstream.errors import PlanError

__all__ = ["WORKLOADS", "Result", "Settings", "Workload", "run"]

WORKLOADS: dict[str, Workload] = {
    module.WORKLOAD.name: module.WORKLOAD for module in (wordcount, nexmark, shapes, ysb, udf, checkpoint, latency)
}


def run(names: Sequence[str], settings: Settings, tell: Callable[[str], None]) -> list[Result]:
    """Run workloads by name, or all of them; ``tell`` gets progress messages."""
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        raise PlanError(f"no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    return [WORKLOADS[name].run(settings, tell) for name in names or WORKLOADS]
