"""Sinks whose state belongs to a run: one plan may be run several times, also at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["PerRun"]


class PerRun:
    """What the engine asks for the committer and the writer of a run: the same object, made anew for each run.

    Examples
    --------
    >>> from millstream.io._per_run import PerRun
    >>> sink = PerRun(list)
    >>> run = sink.committer()
    >>> sink.writer(0, 1) is run, sink.committer() is run
    (True, False)
    """

    __slots__ = ("_make", "_run")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def committer(self) -> Any:
        """Return the committer; that comes first in a run."""
        self._run = self._make()
        return self._run

    def writer(self, index: int, parallelism: int) -> Any:
        """Return the writer of the run."""
        return self._run
