"""Running: in the foreground, in the background, and what is told of it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from millstream import _engine, _live
from millstream._counts import count
from millstream._engine import RawJob, RawReceiver, explain, receive
from millstream._engine import start as _start
from millstream._paths import local_path
from millstream.errors import MillstreamError, PlanError
from millstream.functions import fetch_pyarrow
from millstream.io.sinks import Output, Sink
from millstream.options import Checkpoint, OnError, Restart, settings
from millstream.report import JobStatus, Metrics, Report, metrics_of, report_of, waits_of
from millstream.table import Table
from millstream.time import Duration, microseconds

if TYPE_CHECKING:
    from millstream._graph import Graph
    from millstream.stream import Stream

__all__ = ["Job", "run", "start"]

_POLL_US = 100_000
_LOOK_US = 500_000
_NUMBER = re.compile(r"^checkpoint \d+")


class Job:
    """A job that runs in the background; made by :func:`start`. When nobody holds it any more, it is cancelled.

    Examples
    --------
    >>> with mill.start(mill.generate(rate=1000).for_each(lambda row: None)) as job:
    ...     job.status.state
    ...     job.stop()
    ...     job.wait().status
    'running'
    'stopped'
    """

    __slots__ = ("__weakref__", "_raw")

    def __init__(self, raw: RawJob) -> None:
        self._raw = raw
        _live.hold(self)

    def __repr__(self) -> str:
        """Show the state."""
        return f"<Job {self.status}>"

    def ends(self, seconds_max: float) -> bool:
        """Wait for the end, unless the job was let go, at most this long; give whether it has come, however it was."""
        if not self._raw.is_held():
            return True
        # How it ended is told by wait(); here only that it did matters.
        try:
            return self._raw.wait(int(seconds_max * 1_000_000)) is not None
        except MillstreamError:
            return True

    def let_go(self) -> None:
        """Cancel the job without ever waiting for it: what it is in may not come back."""
        self._raw.let_go()

    @property
    def status(self) -> JobStatus:
        """How the job stands, and what it waits for."""
        return JobStatus(*self._raw.status(), waits_of(self.metrics()))

    def metrics(self) -> Metrics:
        """Give the figures so far."""
        figures = self._raw.metrics()
        return Metrics() if figures is None else metrics_of(figures)

    def checkpoint(self) -> None:
        """Take a checkpoint now, and return when it is durable.

        Raises
        ------
        CheckpointError
            When it fails, the job does not run, or a function of the job itself asks for it: the checkpoint would wait for
            that function.
        """
        self._raw.checkpoint_now()

    def savepoint(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint that is yours into a directory; the engine never deletes it.

        A savepoint that fails leaves nothing. Like a state directory it must come from someone you trust: see
        :class:`Checkpoint`.

        Parameters
        ----------
        path
            A new directory, or an empty one.

        Raises
        ------
        CheckpointError
            When it cannot be written, the job does not run or has no state directory, or a function of the job itself
            asks for it.
        """
        self._raw.savepoint(local_path(path, "savepoint()"))

    def stop(self) -> None:
        """Ask the job to end with a last checkpoint and a last commit; returns at once."""
        self._raw.stop()

    def cancel(self) -> None:
        """Ask the job to end now; the newest checkpoint stays usable. Returns at once."""
        self._raw.cancel()

    def wait(self, timeout: Duration | None = None) -> Report:
        """Wait for the end.

        Parameters
        ----------
        timeout
            How long at most.

        Raises
        ------
        TimeoutError
            When the job still runs then.
        MillstreamError
            What the job has failed of; also when a function of the job itself waits for it, or a process that was forked
            from the job's.
        KeyboardInterrupt
            On Ctrl-C, which ends the job: with a last checkpoint if that takes less than a second. A function that does
            not return then is named on stderr and left alone; a second Ctrl-C leaves at once.
        """
        limit = None if timeout is None else microseconds(timeout, "timeout")
        figures = _wait(self._raw, limit, set())
        if figures is None:
            raise TimeoutError(f"the job still runs after {timeout}")
        return report_of(figures)

    def __enter__(self) -> Self:
        """Hold the job for a while."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Cancel the job, if it still runs, and wait until it has ended."""
        if self.status.state in ("starting", "running", "restarting"):
            self.cancel()
            self.ends(5.0)

    def _repr_html_(self) -> str:
        """Show state and figures in a notebook."""
        figures = self.metrics()
        return f"<b>Job</b> {self.status}: {figures.rows_in:,} records read, {figures.checkpoints_taken} checkpoints"


def _outputs(sinks: tuple[Sink, ...], verb: str) -> list[Output]:
    if not sinks:
        raise PlanError(f"{verb}() needs at least one sink, such as stream.write_parquet(path); for a table use stream.collect()")
    outputs = []
    for sink in sinks:
        if isinstance(sink, Output):
            outputs.append(sink)
        elif isinstance(sink, Sink):
            raise PlanError(f"{type(sink).__name__} has no stream; write stream.sink_to({type(sink).__name__}(...))")
        else:
            hint = "; end it with a sink such as .write_parquet(path)" if hasattr(sink, "collect") else ""
            raise PlanError(f"{verb}() takes sinks, not {type(sink).__name__}{hint}")
    if any(output._takes_frames for output in outputs):
        fetch_pyarrow()
    return outputs


def start(
    *sinks: Sink,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    parallelism: int | None = None,
    until: Duration | None = None,
    restart: Restart | None = None,
    on_error: OnError = "fail",
) -> Job:
    """Run a job in the background.

    Parameters
    ----------
    *sinks
        What it writes to: what ``write_*``, ``for_each`` and the like give.
    checkpoint
        The state directory, or a :class:`Checkpoint`; without one nothing survives the process.
    parallelism
        How many parallel tasks a step has; by default one a core that the process may use.
    until
        Stop, with a last checkpoint, after this long.
    restart
        What happens after a failure; by default the job fails.
    on_error
        What happens to a record that fails: ``"fail"`` the job, ``"skip"`` it (counted), or ``"route"`` it to ``.errors``.

    Returns
    -------
    Job
        The running job.

    Examples
    --------
    >>> job = mill.start(mill.from_iter([1, 2, 3]).write_csv("background/"))
    >>> job.wait().rows_in
    3
    """
    outputs = _outputs(sinks, "start")
    options = settings(checkpoint=checkpoint, parallelism=parallelism, until=until, restart=restart, on_error=on_error)
    return Job(_start([output._raw for output in outputs], options))


def run(
    *sinks: Sink,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    parallelism: int | None = None,
    until: Duration | None = None,
    progress: bool | None = None,
    restart: Restart | None = None,
    on_error: OnError = "fail",
) -> Report:
    """Run a job to its end.

    Ctrl-C stops it with a last checkpoint, if that takes less than a second, and raises ``KeyboardInterrupt``; run again,
    it goes on from there. Functions that are being called then are interrupted too; one that does not return, as it is in
    a call that cannot be interrupted, is named on stderr and not waited for. A second Ctrl-C leaves at once.

    Parameters
    ----------
    *sinks, checkpoint, parallelism, until, restart, on_error
        As of :func:`start`.
    progress
        Whether to show how far it is; by default when it takes long and someone watches.

    Returns
    -------
    Report
        What it has done.

    Examples
    --------
    >>> mill.run(mill.from_iter([1, 2, 3]).write_csv("out/"), checkpoint="state/").rows_in
    3
    """
    if progress is not None and not isinstance(progress, bool):
        raise PlanError(f"progress is True, False or None, not {progress!r:.200}")
    outputs = _outputs(sinks, "run")
    options = settings(checkpoint=checkpoint, parallelism=parallelism, until=until, restart=restart, on_error=on_error)
    job = Job(_start([output._raw for output in outputs], options))
    logged: set[str] = set()
    report = _watch(job._raw, progress, logged)
    _log(report.notes, logged)
    return report


def _log(notes: list[str], logged: set[str]) -> None:
    """Log the notes of a job that were not logged yet: failures of checkpoints that differ by their number once."""
    import logging

    for note in notes:
        text = _NUMBER.sub("checkpoint", note)
        if text not in logged:
            logged.add(text)
            logging.getLogger("millstream").warning(note)


def _wait(job: RawJob, limit_us: int | None, logged: set[str]) -> dict[str, Any] | None:
    """Wait for the end, and log meanwhile what the job has to say of itself."""
    end = None if limit_us is None else time.monotonic() + limit_us / 1_000_000
    while True:
        left_us = _LOOK_US if end is None else min(_LOOK_US, int(1_000_000 * (end - time.monotonic())))
        figures = job.wait(max(left_us, 0))
        if figures is not None or left_us < _LOOK_US:
            return figures
        _log(job.status()[2], logged)


def _watch(job: RawJob, progress: bool | None, logged: set[str]) -> Report:
    from millstream._progress import Display

    if progress is False or (progress is None and not Display.is_watched()):
        figures = _wait(job, None, logged)
    else:
        with Display(is_patient=progress is None) as display:
            while (figures := job.wait(_POLL_US)) is None:
                _log(job.status()[2], logged)
                so_far = job.metrics()
                if so_far is not None:
                    display.update(metrics_of(so_far))
            display.finish(report_of(figures))
    assert figures is not None, "a wait without a limit ends with the job"
    return report_of(figures)


def collect(
    stream: Stream,
    limit: int | None,
    *,
    until: Duration | None,
    parallelism: int | None,
    on_error: OnError,
) -> Table:
    """Run a stream and give its records; see :meth:`Stream.collect`."""
    if limit is not None:
        count(limit, "collect() takes a number of rows as limit")
    if limit is None and until is None and not stream.is_bounded:
        raise PlanError('collect() of an unbounded stream would never end; give limit=1000 or until="10s"')
    options = settings(until=until, parallelism=parallelism, on_error=on_error)
    return Table(_Receiving(receive(stream._raw, limit, options)).raw.collect())


def iter_batches(
    stream: Stream,
    *,
    until: Duration | None,
    parallelism: int | None,
    on_error: OnError,
) -> Iterator[Any]:
    """Run a stream and give its batches; see :meth:`Stream.iter_batches`."""
    receiver = receive(stream._raw, None, settings(until=until, parallelism=parallelism, on_error=on_error))
    return _batches(_Receiving(receiver))


class _Receiving:
    """A job whose records come to the caller, until it is let go."""

    __slots__ = ("__weakref__", "raw")

    def __init__(self, raw: RawReceiver) -> None:
        self.raw = raw
        _live.hold(self)

    def cancel(self) -> None:
        """Ask the job to end; returns at once."""
        self.raw.cancel()

    def ends(self, seconds_max: float) -> bool:
        """Wait for the end; give whether it has come."""
        return self.raw.ends(int(seconds_max * 1_000_000))

    def let_go(self) -> None:
        """Wait for the job no more."""
        self.raw.let_go()


def _batches(receiving: _Receiving) -> Iterator[Any]:
    try:
        while (batch := receiving.raw.next()) is not None:
            yield batch
    finally:
        receiving.raw.close()


def explain_stream(stream: Stream, *, parallelism: int | None) -> str:
    """Give the plan of a stream as text."""
    return explain(stream._raw, settings(parallelism=parallelism))


def graph_of_stream(stream: Stream, *, parallelism: int | None) -> Graph:
    """Give the plan of a stream as nodes and edges."""
    from millstream._graph import Graph, GraphEdge, GraphNode

    options = settings(parallelism=parallelism)
    nodes, edges = _engine.graph(stream._raw, options)
    return Graph([GraphNode(*node) for node in nodes], [GraphEdge(*edge) for edge in edges], explain(stream._raw, options))
