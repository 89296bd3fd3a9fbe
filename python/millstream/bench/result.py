"""The settings of a workload, and its result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from millstream.errors import MillstreamError

__all__ = ["Bar", "Difference", "Result", "Settings", "Workload", "in_turns", "rate"]


class Difference(MillstreamError):
    """Two engines returned different results, so their times mean nothing."""


@dataclass(frozen=True)
class Settings:
    """How large, how long, on how many threads, against whom, and which queries of a workload; all of them unless named."""

    rows: int | None = None
    seconds: float = 3.0
    parallelism: int = 1
    runs: int = 3
    against: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """A bar of the plot; bars of one group share a scale."""

    label: str
    value: float
    is_ours: bool = True
    group: str = ""


@dataclass(frozen=True)
class Result:
    """What came out: a table for people, bars for a plot, figures for programs."""

    name: str
    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    bars: Sequence[Bar]
    unit: str
    figures: Sequence[dict[str, Any]]
    notes: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class Workload:
    """A workload by name.

    ``options`` are those of the command line that mean something to it, beside ``rows``; ``peers`` the engines that it can be
    compared with.
    """

    name: str
    about: str
    run: Callable[[Settings, Callable[[str], None]], Result]
    options: tuple[str, ...]
    peers: tuple[str, ...] = ()


def in_turns(jobs: dict[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Return the median seconds of each job, run in turns so that what else the machine does hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(max(1, runs)):
        for name, job in jobs.items():
            began = time.perf_counter()
            result = job()
            seconds[name].append(time.perf_counter() - began)
            del result
    return {name: statistics.median(values) for name, values in seconds.items()}


def rate(per_second: float) -> str:
    """Show a number of records a second."""
    if per_second >= 1e6:
        return f"{per_second / 1e6:,.1f} M/s" if per_second < 1e8 else f"{per_second / 1e6:,.0f} M/s"
    return f"{per_second / 1e3:,.0f} k/s" if per_second >= 1e4 else f"{per_second:,.0f} /s"
