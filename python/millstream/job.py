"""Running: in the foreground, in the background, and what is told of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

from millstream import _engine, _live
from millstream._engine import RawJob, RawReceiver, explain, receive
from millstream._engine import start as _start
from millstream.errors import MillstreamError, PlanError
from millstream.io.sinks import Output, Sink
from millstream.table import Table
from millstream.time import Duration, microseconds

if TYPE_CHECKING:
    from millstream._graph import Graph
    from millstream.stream import Stream

__all__ = ["Checkpoint", "Job", "JobStatus", "Metrics", "Report", "Restart", "StepMetrics", "run", "start"]

Mode = Literal["exactly_once", "at_least_once", "none"]
OnError = Literal["fail", "skip", "route"]

_POLL_US = 100_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WATERMARK_MAX = 2**62


@dataclass(frozen=True)
class Checkpoint:
    """Where and how checkpoints are taken; the second run on the same path goes on from the first.

    Attributes
    ----------
    path
        The state directory.
    every
        How often one is taken.
    mode
        What a restart means for the results: ``"exactly_once"``, ``"at_least_once"`` (nothing is missing, some may come
        twice) or ``"none"`` (nothing is replayed: at most once).
    retain
        How many are kept.
    restore_from
        A savepoint, or another job's state directory, to begin with if ``path`` holds nothing yet.

    Examples
    --------
    >>> mill.Checkpoint("state/", every="200ms").mode
    'exactly_once'
    """

    path: str | os.PathLike[str]
    every: Duration = "1s"
    mode: Mode = "exactly_once"
    retain: int = 3
    restore_from: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Check what can be checked at once."""
        if microseconds(self.every, "checkpoint every") == 0:
            raise PlanError('checkpoint every="0s" leaves no time to work; give an interval such as "1s"')
        if self.mode not in ("exactly_once", "at_least_once", "none"):
            raise PlanError(f'mode is {self.mode!r}; it is "exactly_once", "at_least_once" or "none"')
        if not isinstance(self.retain, int) or self.retain < 1:
            raise PlanError(f"retain is {self.retain!r}; at least 1 checkpoint has to be kept to go on from")


@dataclass(frozen=True)
class Restart:
    """What happens after a failure; needs a checkpoint to go on from.

    Examples
    --------
    >>> mill.Restart.fixed_delay(3, "10s")
    Restart(attempts=3, initial='10s', longest='10s')
    """

    attempts: int
    initial: Duration
    longest: Duration

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not isinstance(self.attempts, int) or self.attempts < 0:
            raise PlanError(f"a restart strategy takes a number of attempts, not {self.attempts!r}")
        microseconds(self.initial, "delay")
        microseconds(self.longest, "longest delay")

    @staticmethod
    def fixed_delay(attempts: int, delay: Duration = "1s") -> Restart:
        """Start again from the last checkpoint, with the same pause each time.

        Examples
        --------
        >>> mill.Restart.fixed_delay(attempts=3).initial
        '1s'
        """
        return Restart(attempts, delay, delay)

    @staticmethod
    def exponential_delay(attempts: int, initial: Duration = "1s", *, longest: Duration = "1m") -> Restart:
        """Start again after a pause that doubles from failure to failure.

        Examples
        --------
        >>> mill.Restart.exponential_delay(10, "100ms").longest
        '1m'
        """
        return Restart(attempts, initial, longest)


@dataclass(frozen=True)
class StepMetrics:
    """The figures of one step.

    Attributes
    ----------
    name
        The step.
    rows_in, rows_out
        Records taken and given.
    rows_late
        Records that came too late for their window.
    rows_skipped, rows_routed
        Records that failed and were left out, or went to ``.errors``.
    watermark
        How far event time has come; None before it has begun and after the end.
    checkpoint_bytes
        How much of its state the last checkpoint wrote.
    """

    name: str
    rows_in: int
    rows_out: int
    rows_late: int
    rows_skipped: int
    rows_routed: int
    watermark: datetime | None
    checkpoint_bytes: int


@dataclass(frozen=True)
class Metrics:
    """The figures of a run so far.

    Attributes
    ----------
    rows_in
        Records that the sources have given.
    rows_total
        How many they will give, where all of them know.
    rows_late, rows_skipped, rows_routed
        Records that came too late, were left out, or went to ``.errors``, over all steps.
    checkpoints_taken, checkpoints_failed
        How many checkpoints there were.
    checkpoint_bytes, checkpoint_duration
        What the last one wrote and how long it took.
    steps
        The figures of each step, in the order of the plan.
    """

    rows_in: int = 0
    rows_total: int | None = None
    rows_late: int = 0
    rows_skipped: int = 0
    rows_routed: int = 0
    checkpoints_taken: int = 0
    checkpoints_failed: int = 0
    checkpoint_bytes: int = 0
    checkpoint_duration: timedelta = timedelta(0)
    steps: list[StepMetrics] = field(default_factory=list)


@dataclass(frozen=True)
class Report(Metrics):
    """What a run that has ended has done; what :func:`run` and :meth:`Job.wait` give.

    Attributes
    ----------
    status
        ``"finished"`` (the input has ended), ``"stopped"`` or ``"cancelled"``.
    duration
        From start to end.
    restored
        The checkpoint it went on from, if any.
    checkpoint
        The last checkpoint, if any.
    notes
        What you should know: checkpoints that failed or were passed over, restarts.

    Examples
    --------
    >>> report = mill.run(mill.from_iter([1, 2]).for_each(lambda row: None))
    >>> report.status, report.rows_in
    ('finished', 2)
    """

    status: str = "finished"
    duration: timedelta = timedelta(0)
    restored: int | None = None
    checkpoint: int | None = None
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Tell it in a few lines."""
        seconds = self.duration.total_seconds()
        lines = [f"{self.status} after {seconds:,.2f} s: {self.rows_in:,} records read"]
        for count, what in ((self.rows_late, "late"), (self.rows_skipped, "skipped"), (self.rows_routed, "routed")):
            if count:
                lines[0] += f", {count:,} {what}"
        if self.restored is not None:
            lines.append(f"went on from checkpoint {self.restored}")
        if self.checkpoints_taken or self.checkpoints_failed:
            failed = f", {self.checkpoints_failed} failed" if self.checkpoints_failed else ""
            lines.append(f"{self.checkpoints_taken} checkpoints taken{failed}")
        width = max((len(step.name) for step in self.steps), default=0)
        lines.extend(f"  {step.name:<{width}}  {step.rows_in:>14,} in  {step.rows_out:>14,} out" for step in self.steps)
        lines.extend(f"note: {note}" for note in self.notes)
        return "\n".join(lines)


@dataclass(frozen=True)
class JobStatus:
    """How a job stands.

    Attributes
    ----------
    state
        ``"starting"``, ``"running"``, ``"restarting"``, ``"finished"``, ``"cancelled"`` or ``"failed"``.
    restarts
        How often it was started again after a failure.
    notes
        What you should know so far.
    """

    state: str
    restarts: int
    notes: list[str]

    def __str__(self) -> str:
        """Give the state."""
        return self.state


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

    def end(self, seconds_max: float) -> None:
        """Cancel the job, if it still runs, and wait until it has ended, at most this long."""
        if self.status.state in ("starting", "running", "restarting"):
            self._raw.cancel()
            # How it ended is told by wait(); here only that it did matters.
            with contextlib.suppress(MillstreamError):
                self._raw.wait(int(seconds_max * 1_000_000))

    @property
    def status(self) -> JobStatus:
        """How the job stands."""
        return JobStatus(*self._raw.status())

    def metrics(self) -> Metrics:
        """Give the figures so far."""
        figures = self._raw.metrics()
        return Metrics() if figures is None else Metrics(**_metrics(figures))

    def checkpoint(self) -> None:
        """Take a checkpoint now, and return when it is durable."""
        self._raw.checkpoint_now()

    def savepoint(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint that is yours into a directory; the engine never deletes it."""
        self._raw.savepoint(os.fspath(path))

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
            What the job has failed of.
        """
        limit = None if timeout is None else microseconds(timeout, "timeout")
        figures = self._raw.wait(limit)
        if figures is None:
            raise TimeoutError(f"the job still runs after {timeout}")
        return _report(figures)

    def __enter__(self) -> Self:
        """Hold the job for a while."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Cancel the job, if it still runs, and wait until it has ended."""
        self.end(5.0)

    def _repr_html_(self) -> str:
        """Show state and figures in a notebook."""
        figures = self.metrics()
        return f"<b>Job</b> {self.status}: {figures.rows_in:,} records read, {figures.checkpoints_taken} checkpoints"


def _metrics(figures: dict[str, Any]) -> dict[str, Any]:
    steps = []
    for step in figures["steps"]:
        watermark = step["watermark_us"]
        is_time = watermark is not None and abs(watermark) < _WATERMARK_MAX
        steps.append(
            StepMetrics(
                step["name"],
                step["rows_in"],
                step["rows_out"],
                step["rows_late"],
                step["rows_skipped"],
                step["rows_routed"],
                _time(watermark) if is_time else None,
                step["checkpoint_bytes"],
            )
        )
    return {
        "rows_in": figures["rows_in"],
        "rows_total": figures["rows_total"],
        "rows_late": sum(step.rows_late for step in steps),
        "rows_skipped": sum(step.rows_skipped for step in steps),
        "rows_routed": sum(step.rows_routed for step in steps),
        "checkpoints_taken": figures["checkpoints_taken"],
        "checkpoints_failed": figures["checkpoints_failed"],
        "checkpoint_bytes": figures["checkpoint_bytes"],
        "checkpoint_duration": timedelta(microseconds=figures["checkpoint_us"]),
        "steps": steps,
    }


def _time(watermark_us: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=watermark_us)
    except OverflowError:
        return None


def _report(figures: dict[str, Any]) -> Report:
    return Report(
        **_metrics(figures),
        status=figures["status"],
        duration=timedelta(microseconds=figures["duration_us"]),
        restored=figures["restored"],
        checkpoint=figures["checkpoint"],
        notes=figures["notes"],
    )


def settings(
    *,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    parallelism: int | None = None,
    until: Duration | None = None,
    restart: Restart | None = None,
    on_error: OnError = "fail",
    frame_rows: int | None = None,
    is_chaining: bool = True,
) -> dict[str, Any]:
    """Give the options of a run as the compiled module takes them."""
    if isinstance(checkpoint, (str, os.PathLike)):
        checkpoint = Checkpoint(checkpoint)
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        raise PlanError(f"checkpoint is a path or mill.Checkpoint(...), not {checkpoint!r:.200}")
    if parallelism is not None and (not isinstance(parallelism, int) or isinstance(parallelism, bool) or parallelism < 1):
        raise PlanError(f"parallelism is a number of tasks from 1, not {parallelism!r}")
    if restart is not None and not isinstance(restart, Restart):
        raise PlanError(f"restart is a strategy such as mill.Restart.fixed_delay(3), not {restart!r:.200}")
    restore_from = None if checkpoint is None else checkpoint.restore_from
    return {
        "checkpoint": None if checkpoint is None else os.fspath(checkpoint.path),
        "every_us": 1_000_000 if checkpoint is None else microseconds(checkpoint.every),
        "mode": "exactly_once" if checkpoint is None else checkpoint.mode,
        "retain": 3 if checkpoint is None else checkpoint.retain,
        "restore_from": None if restore_from is None else os.fspath(restore_from),
        "parallelism": parallelism,
        "restart": None
        if restart is None
        else (restart.attempts, microseconds(restart.initial), microseconds(restart.longest)),
        "on_error": on_error,
        "until_us": None if until is None else microseconds(until, "until"),
        "frame_rows": frame_rows,
        "is_chaining": is_chaining,
    }


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

    Ctrl-C stops it with a last checkpoint, and raises ``KeyboardInterrupt``; run again, it goes on from there.

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
    outputs = _outputs(sinks, "run")
    options = settings(checkpoint=checkpoint, parallelism=parallelism, until=until, restart=restart, on_error=on_error)
    job = Job(_start([output._raw for output in outputs], options))
    report = _watch(job._raw, progress)
    if report.notes:
        import logging

        for note in report.notes:
            logging.getLogger("millstream").warning(note)
    return report


def _watch(job: RawJob, progress: bool | None) -> Report:
    from millstream._progress import Display

    if progress is False or (progress is None and not Display.is_watched()):
        figures = job.wait(None)
    else:
        with Display(is_patient=progress is None) as display:
            while (figures := job.wait(_POLL_US)) is None:
                so_far = job.metrics()
                if so_far is not None:
                    display.update(Metrics(**_metrics(so_far)))
            display.finish(_report(figures))
    assert figures is not None, "a wait without a limit ends with the job"
    return _report(figures)


def collect(
    stream: Stream,
    limit: int | None,
    *,
    until: Duration | None,
    parallelism: int | None,
    on_error: OnError,
) -> Table:
    """Run a stream and give its records; see :meth:`Stream.collect`."""
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise PlanError(f"collect() takes a number of rows as limit, not {limit!r}")
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

    def end(self, seconds_max: float) -> None:
        """Cancel the job; the receiver waits for it on its own."""
        self.raw.close()


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
