"""Sinks whose state belongs to a run: one plan may be run several times, also at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["PerRun"]


class PerRun:
    """What the engine asks for the sink of each run.

    Examples
    --------
    >>> from millstream.io._per_run import PerRun
    >>> sink = PerRun(list)
    >>> run = sink.of_run()
    >>> run.writer(0, 1) is run.committer(), run.committer() is sink.of_run().committer()
    (True, False)
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def of_run(self) -> _OfRun:
        """Return the sink of one run."""
        return _OfRun(self._make())


class _OfRun:
    """The sink of one run: one object is the writer and the committer."""

    __slots__ = ("_sink",)

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def committer(self) -> Any:
        """Return the committer."""
        return self._sink

    def writer(self, index: int, parallelism: int) -> Any:
        """Return the writer."""
        return self._sink
