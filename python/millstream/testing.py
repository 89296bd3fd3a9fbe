"""Running a job by hand: for tests that want every schedule, and to see what a crash leaves."""

from __future__ import annotations

import os

from millstream import _engine
from millstream.io.sinks import Sink
from millstream.job import Checkpoint, OnError, Report, _outputs, _report, settings

__all__ = ["simulate"]


def simulate(
    *sinks: Sink,
    seed: int,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    steps: int | None = None,
    parallelism: int | None = None,
    frame_rows: int | None = None,
    chaining: bool = True,
    on_error: OnError = "fail",
) -> Report | None:
    """Run a job on this thread, step by step, in an order drawn from a seed.

    A job that is left before its end is left as a kill leaves it; called again with the same state directory, it
    recovers from there.

    Parameters
    ----------
    *sinks, checkpoint, parallelism, on_error
        As of :func:`millstream.run`.
    seed
        What the order of steps is drawn from.
    steps
        How many to take; None for all.
    frame_rows
        How many rows a frame has.
    chaining
        Whether steps are fused into chains.

    Returns
    -------
    Report or None
        What it has done, if it has come to its end.

    Examples
    --------
    >>> from millstream import testing
    >>> sink = mill.generate(rows=100, k=mill.index() % 3).key_by("k").agg(n=mill.count()).write_csv("out/")
    >>> testing.simulate(sink, seed=1).status
    'finished'
    """
    options = settings(
        checkpoint=checkpoint,
        parallelism=parallelism,
        on_error=on_error,
        frame_rows=frame_rows,
        is_chaining=chaining,
    )
    figures = _engine.simulate([output._raw for output in _outputs(sinks, "simulate")], options, seed, steps)
    return None if figures is None else _report(figures)
