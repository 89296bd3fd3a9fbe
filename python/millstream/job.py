"""Running jobs, in the foreground and in the background."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self, cast

from millstream import _engine, _live
from millstream._counts import count
from millstream._declared import Declared, recorder
from millstream._engine import RawJob, RawReceiver, explain, receive
from millstream._engine import start as _start
from millstream._given import refuse_unread
from millstream._hints import no_attribute
from millstream._paths import real_place, state_path
from millstream._signals import stops_on_sigterm
from millstream._texts import flag
from millstream.errors import CheckpointError, MillstreamError, PlanError
from millstream.functions import fetch_pyarrow
from millstream.io.sinks import Output, Sink
from millstream.options import Checkpoint, OnError, Restart, check_restart, settings
from millstream.report import RUNNING, JobStatus, Metrics, Report, metrics_of, report_of, waits_of
from millstream.state import StateDiff, StepDiff
from millstream.table import Table
from millstream.time import Duration, microseconds

if TYPE_CHECKING:
    from millstream._endpoint import Endpoint
    from millstream._graph import Graph
    from millstream.stream import Stream

__all__ = ["Job", "graph", "jobs", "run", "start"]

_POLL_US = 100_000
_LOOK_US = 500_000
_REPLACED_SECONDS_MAX = 60.0
_NUMBER = re.compile(r"^checkpoint \d+")


class Job:
    """A job that runs in the background; made by :func:`start`.

    A job that nothing refers to any more is cancelled, with a warning in the log. As a context manager, it is cancelled at the
    end of the block if it still runs. A notebook shows it as a table that is brought up to date each second: records a second
    and lag (how far a watermark is behind the clock) of each step, its state directory, and what it waits for.

    Examples
    --------
    >>> with mill.start(mill.generate(rate=1000).for_each(lambda row: None)) as job:
    ...     job.status.state
    ...     job.stop()
    ...     job.wait().status
    'running'
    'stopped'
    """

    __slots__ = ("__weakref__", "_directory", "_endpoint", "_raw", "_started")

    def __init__(self, raw: RawJob, directory: str | None = None, endpoint: Endpoint | None = None) -> None:
        self._raw = raw
        self._directory = None if directory is None else real_place(directory)
        self._endpoint = endpoint
        self._started = time.monotonic()
        if endpoint is not None:
            endpoint.show(self)
            weakref.finalize(self, endpoint.close)
        _live.hold(self)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise an error that says where what is looked for is found."""
            raise no_attribute(self, name)

    def _is_stopping(self) -> bool:
        return self._raw.is_stopping()

    def _is_running(self) -> bool:
        return self._raw.is_held() and self._raw.status()[0] in RUNNING

    def __repr__(self) -> str:
        """Show the state, how much was read, and the state directory."""
        place = "" if self._directory is None else f"; state directory {self._directory}"
        return f"<Job {self.status}; {self.metrics().rows_in:,} records read{place}>"

    def ends(self, seconds_max: float) -> bool:
        """Wait for the end of the job, however it ends, for a limited time.

        Parameters
        ----------
        seconds_max
            How many seconds to wait at most.

        Returns
        -------
        bool
            Whether the job has ended, or :meth:`let_go` was called.

        Notes
        -----
        Unlike :meth:`wait`, it raises no error of the job.

        Examples
        --------
        >>> job = mill.start(mill.from_iter([1]).for_each(lambda row: None))
        >>> job.ends(10.0)
        True
        """
        if not self._raw.is_held():
            return True
        # How it ended is told by wait(); here only that it did matters.
        try:
            return self._raw.wait(int(seconds_max * 1_000_000)) is not None
        except MillstreamError:
            return True

    def let_go(self) -> None:
        """Cancel the job and do not wait for it, now or later.

        For a job whose functions may never return, such as one that still runs when the interpreter exits.

        Examples
        --------
        >>> job = mill.start(mill.generate(rate=10).for_each(lambda row: None))
        >>> job.let_go()
        >>> job.ends(0.0)
        True
        """
        self._raw.let_go()

    @property
    def status(self) -> JobStatus:
        """The current state of the job, and what it waits for.

        Examples
        --------
        >>> job = mill.start(mill.from_iter([1]).for_each(lambda row: None))
        >>> report = job.wait()
        >>> job.status.state
        'finished'
        """
        state, restarts, notes, error = self._raw.status()
        return JobStatus(state, restarts, notes, waits_of(self.metrics()), error)

    def metrics(self) -> Metrics:
        """Return the figures of the job so far.

        Examples
        --------
        >>> job = mill.start(mill.from_iter([1, 2]).for_each(lambda row: None))
        >>> report = job.wait()
        >>> job.metrics().rows_in
        2
        """
        figures = self._raw.metrics()
        return Metrics() if figures is None else metrics_of(figures)

    @property
    def url(self) -> str | None:
        """The address of the HTTP endpoint; None without ``http=``.

        Examples
        --------
        >>> from urllib.request import urlopen
        >>> with mill.start(mill.generate(rate=10).for_each(lambda row: None), http=0) as job:
        ...     urlopen(f"{job.url}/health").read()
        b'{"status": "running"}'
        """
        return None if self._endpoint is None else self._endpoint.url

    def checkpoint(self) -> None:
        """Take a checkpoint now, and return when it is durable.

        Raises
        ------
        CheckpointError
            When it fails, the job does not run, or a function of the job itself calls this: the checkpoint would wait for
            that function.

        Examples
        --------
        >>> sink = mill.generate(rate=1000).write_csv("out/")
        >>> with mill.start(sink, checkpoint=mill.Checkpoint("state/", every="1h")) as job:
        ...     job.checkpoint()
        ...     job.metrics().checkpoints_taken
        1
        """
        self._raw.checkpoint_now()

    def savepoint(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint into a directory of yours, which the engine never deletes.

        Parameters
        ----------
        path
            A new directory, or an empty one; or a prefix in an object store (``"s3://bucket/saved/1"``) under which there is nothing.

        Raises
        ------
        PlanError
            When ``path`` is not a path.
        CheckpointError
            When it cannot be written, the job does not run or has no state directory, or a function of the job itself calls
            this.

        Notes
        -----
        A savepoint that fails leaves nothing. :attr:`Checkpoint.restore_from` starts a job from a savepoint. Like a state
        directory, it must come from someone you trust; see :class:`Checkpoint`.

        Examples
        --------
        >>> sink = mill.generate(rate=1000).write_csv("out/")
        >>> with mill.start(sink, checkpoint="state/") as job:
        ...     job.savepoint("before-upgrade/")
        >>> [found.is_savepoint for found in mill.checkpoints("before-upgrade/")]
        [True]
        """
        self._raw.savepoint(state_path(path, "savepoint()"))

    def stop(self) -> None:
        """Ask the job to end with a last checkpoint and a last commit; returns at once.

        :meth:`wait` waits for that. A job that nothing refers to any more, or whose script ends, has three seconds for it.

        Examples
        --------
        >>> job = mill.start(mill.generate(rate=1000).for_each(lambda row: None))
        >>> job.stop()
        >>> job.wait().status
        'stopped'
        """
        self._raw.stop()

    def cancel(self) -> None:
        """Ask the job to end now, without a last checkpoint; returns at once.

        The newest checkpoint stays usable.

        Examples
        --------
        >>> job = mill.start(mill.generate(rate=1000).for_each(lambda row: None))
        >>> job.cancel()
        >>> job.wait().status
        'cancelled'
        """
        self._raw.cancel()

    def wait(self, timeout: Duration | None = None) -> Report:
        """Wait for the end of the job, and return its report.

        Parameters
        ----------
        timeout
            How long to wait at most; by default without a limit.

        Returns
        -------
        Report
            What the job has done.

        Raises
        ------
        TimeoutError
            When the job still runs after ``timeout``.
        DataError, UserFunctionError, ConnectorError, CheckpointError
            When the job has failed.
        MillstreamError
            When a function of the job itself calls this, or a process that was forked from the job's.
        KeyboardInterrupt
            On Ctrl-C, which ends the job: with a last checkpoint if that takes less than a second. A function that does not
            return is named on stderr and left alone. A second Ctrl-C leaves at once.
        SystemExit
            With status 143, on SIGTERM, after the job has stopped with a last checkpoint, even if that takes longer than
            ``timeout``; see :func:`run`.

        Notes
        -----
        SIGTERM stops the job only while this waits. A loop that does other work between two waits needs a handler of its own,
        which calls :meth:`stop`.

        Examples
        --------
        >>> job = mill.start(mill.from_iter([1, 2, 3]).for_each(lambda row: None))
        >>> job.wait("1m").rows_in
        3
        """
        limit = None if timeout is None else microseconds(timeout, "timeout")
        with stops_on_sigterm(self._raw):
            figures = _wait(self._raw, limit, set())
        if figures is None:
            raise TimeoutError(f"the job still runs after {timeout}")
        return report_of(figures)

    def __enter__(self) -> Self:
        """Return the job itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Cancel the job if it still runs, and wait until it has ended."""
        if self.status.state in RUNNING:
            self.cancel()
            self.ends(5.0)

    def _repr_html_(self) -> str:
        """Show state and figures in a notebook."""
        from millstream._html import of_job

        return of_job(self)

    def _ipython_display_(self) -> None:
        """Show state and figures in a notebook, and keep them up to date."""
        from millstream._html import show_live

        show_live(self)


def _outputs(sinks: tuple[Output, ...], verb: str) -> list[Output]:
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
    *sinks: Output,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    parallelism: int | None = None,
    until: Duration | None = None,
    restart: Restart | None = None,
    on_error: OnError = "fail",
    replace: bool = False,
    http: str | int | None = None,
) -> Job:
    """Run a job in the background.

    Parameters
    ----------
    *sinks
        What the job writes to: what ``write_*``, ``for_each`` and the like return.
    checkpoint
        The state directory, or a :class:`Checkpoint`. By default nothing survives the process.
    parallelism
        How many parallel tasks each step has; by default one for each core that the process may use.
    until
        How long the job runs; then it stops with a last checkpoint. By default it runs until its input ends.
    restart
        What happens after a failure; by default the job fails.
    on_error
        What happens to a record that fails: ``"fail"`` fails the job, ``"skip"`` drops the record and counts it,
        ``"route"`` sends it to ``.errors`` of the step.
    replace
        Whether a job of this process that still runs with the same state directory is stopped first, with a last checkpoint,
        from which this one continues: for a notebook cell that is run again. The former job keeps running if the new plan is
        refused, does not fit the checkpoint, or the address of ``http`` is taken. It needs ``checkpoint``.
    http
        Where the job serves a page that shows it, ``/health`` and ``/metrics``: a port of the loopback interface, or an address
        such as ``"0.0.0.0:8080"``; port 0 takes a free one, see :attr:`Job.url`. There is no access control.

    Returns
    -------
    Job
        The running job.

    Raises
    ------
    PlanError
        When there is no sink, an option is not one of its choices, two steps or sinks have the same name, or a source or
        sink cannot keep the guarantee of the checkpoint mode.
    CheckpointError
        When the state directory cannot be used, or holds state that does not fit the plan.
    MillstreamError
        When the job that is to be replaced does not stop within a minute.

    Notes
    -----
    What fails after the job has started is raised by :meth:`Job.wait`.

    Examples
    --------
    >>> job = mill.start(mill.from_iter([1, 2, 3]).write_csv("background/"))
    >>> job.wait().rows_in
    3
    """
    check_restart(checkpoint, restart)
    options = settings(
        checkpoint=checkpoint, parallelism=parallelism, until=until, restart=restart, on_error=on_error, is_background=True
    )
    if flag(replace, "start(replace=…)") and checkpoint is None:
        raise PlanError("start(replace=True) replaces the job of a state directory, and there is no checkpoint=")
    return _started(sinks, "start", options, http, replace)


class _Jobs(list[Job]):
    """A list that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        from millstream._html import of_jobs

        return of_jobs(self)


def jobs() -> list[Job]:
    """Return the jobs of this process that run in the background, oldest first.

    Returns
    -------
    list of Job
        A notebook shows the list as a table: the state of each job, records a second since it was last shown, lag, checkpoints,
        and its state directory.

    Examples
    --------
    >>> job = mill.start(mill.generate(rate=10).for_each(lambda row: None))
    >>> job in mill.jobs()
    True
    >>> job.cancel()
    >>> job.wait().status
    'cancelled'
    >>> job in mill.jobs()
    False
    """
    found: list[Any] = list(_live.held())
    return _Jobs(sorted((job for job in found if isinstance(job, Job) and job._is_running()), key=lambda job: job._started))


def _replaced(directory: str) -> list[Job]:
    """Return the job of this process that uses a state directory, if there is one."""
    place = real_place(directory)
    return [job for job in jobs() if job._directory == place]


def _check_replaces(former: list[Job], sinks: list[Any], options: dict[str, Any]) -> None:
    """Raise, while the former job runs, the error that would keep the new one from continuing from its checkpoint."""
    if former and not _engine.check_start(sinks, options) and not options["restart_over"] and options["mode"] != "none":
        # Its first one is not due yet, and what is to be compared with the new plan is in it.
        for job in former:
            try:
                job.checkpoint()
            except CheckpointError:
                # One that has come to its end by now is in nobody's way.
                if job._is_running():
                    raise
        _engine.check_start(sinks, options)


def _make_way(former: list[Job], directory: str) -> None:
    for job in former:
        logging.getLogger("millstream").warning("the job with the state directory %s is stopped, as another one replaces it", directory)
        job.stop()
        if not job.ends(_REPLACED_SECONDS_MAX):
            raise MillstreamError(f"the job with the state directory {directory} does not stop; cancel() it")


def _started(
    sinks: tuple[Output, ...], verb: str, options: dict[str, Any], http: str | int | None = None, replace: bool = False
) -> Job:
    raw = [output._raw for output in _outputs(sinks, verb)]
    if (recording := recorder()) is not None:
        # Whoever looks at a plan runs nothing: a stand-in ends the script where its result is needed.
        return cast("Job", recording.started(raw, options))
    refuse_unread()
    if any('("-"' in sink.name() for sink in raw):
        # What the script has printed comes before the rows, which do not go through Python.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stdout.flush()
    former = _replaced(options["checkpoint"]) if replace else []
    if http is None:
        _check_replaces(former, raw, options)
        _make_way(former, options["checkpoint"])
        return Job(_begun(raw, options), options["checkpoint"])
    from millstream._endpoint import Endpoint, address

    host, port = address(http)
    plan = _graph_of(raw, options)
    _check_replaces(former, raw, options)
    # Whoever cannot listen does not start either, and replaces nothing.
    if any(job._endpoint is not None and job._endpoint.port == port for job in former):
        Endpoint(host, 0, plan).close()
        _make_way(former, options["checkpoint"])
        former = []
    _close_endpoints(port)
    endpoint = Endpoint(host, port, plan)
    try:
        _make_way(former, options["checkpoint"])
        return Job(_begun(raw, options), options["checkpoint"], endpoint)
    except BaseException:
        endpoint.close()
        raise


def _begun(sinks: list[Any], options: dict[str, Any]) -> RawJob:
    """Start a job; where one of this process has its state directory, tell how to replace that one."""
    try:
        return _start(sinks, options)
    except CheckpointError as error:
        if " is in use by " in str(error) and _replaced(options["checkpoint"]):
            error.args = (
                f"{error}; or pass replace=True to mill.start(), which stops that job with a last checkpoint, and continues from there",
            )
        raise


def _close_endpoints(port: int) -> None:
    """Free the address for a new job where an endpoint of a job of this process that is over still has it."""
    for job in _live.held():
        if isinstance(job, Job) and job._endpoint is not None and job._endpoint.port == port and not job._is_running():
            job._endpoint.close()


def graph(
    *sinks: Output,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    parallelism: int | None = None,
    on_error: OnError = "fail",
) -> Graph:
    """Return the plan of a job as a graph: all steps from the sources to the sinks, with what each keeps and guarantees.

    Parameters
    ----------
    *sinks
        What the job writes to, as for :func:`run`.
    checkpoint, parallelism, on_error
        As for :func:`run`; nothing is read or written.

    Returns
    -------
    Graph
        A notebook draws it. ``print()`` shows the plan as text, as :meth:`Stream.explain` does for one stream.

    Raises
    ------
    PlanError
        When the job would be refused.

    Examples
    --------
    >>> words = mill.from_iter(["a", "b", "a"]).key_by("value").agg(n=mill.count())
    >>> plan = mill.graph(words.write_csv("out/"), words.for_each(lambda row: None), parallelism=2)
    >>> [node.kind for node in plan.nodes].count("sink")
    2
    """
    options = settings(checkpoint=checkpoint, parallelism=parallelism, on_error=on_error)
    return _graph_of([output._raw for output in _outputs(sinks, "graph")], options)


def _graph_of(sinks: list[Any], options: dict[str, Any]) -> Graph:
    from millstream._graph import graph_of

    return graph_of(*_engine.plan_of(sinks, options))


def run(
    *sinks: Output,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    parallelism: int | None = None,
    until: Duration | None = None,
    progress: bool | None = None,
    restart: Restart | None = None,
    on_error: OnError = "fail",
    http: str | int | None = None,
) -> Report:
    """Run a job until its input ends.

    Parameters
    ----------
    *sinks
        What the job writes to: what ``write_*``, ``for_each`` and the like return.
    checkpoint
        The state directory, or a :class:`Checkpoint`. A second run with the same one continues where the first one ended. By
        default nothing survives the process.
    parallelism
        How many parallel tasks each step has; by default one for each core that the process may use.
    until
        How long the job runs; then it stops with a last checkpoint. By default it runs until its input ends.
    progress
        Whether to show a progress bar; by default when the job takes long and stderr is a terminal or a notebook.
    restart
        What happens after a failure; by default the job fails.
    on_error
        What happens to a record that fails: ``"fail"`` fails the job, ``"skip"`` drops the record and counts it,
        ``"route"`` sends it to ``.errors`` of the step.
    http
        Where the job serves a page that shows it, ``/health`` and ``/metrics``; see :func:`start`.

    Returns
    -------
    Report
        What the job has done.

    Raises
    ------
    PlanError
        When there is no sink, an option is not one of its choices, two steps or sinks have the same name, or a source or
        sink cannot keep the guarantee of the checkpoint mode.
    CheckpointError
        When the state directory cannot be used, or holds state that does not fit the plan.
    DataError
        When a record cannot be processed and ``on_error`` is ``"fail"``.
    UserFunctionError
        When a function of yours raises and ``on_error`` is ``"fail"``; its exception is the ``__cause__``.
    ConnectorError
        When a source or sink fails.
    KeyboardInterrupt
        On Ctrl-C.
    SystemExit
        With status 143, on SIGTERM, after the job has stopped with a last checkpoint. A handler of yours for SIGTERM is left
        alone.

    Notes
    -----
    Ctrl-C stops the job with a last checkpoint, if that takes less than a second, and raises ``KeyboardInterrupt``; the
    next run continues from there. Functions that are running then are interrupted too. A function that does not return,
    because it is in a call that cannot be interrupted, is named on stderr and not waited for. A second Ctrl-C leaves at
    once.

    Examples
    --------
    >>> mill.run(mill.from_iter([1, 2, 3]).write_csv("out/"), checkpoint="state/").rows_in
    3
    """
    if progress is not None and not isinstance(progress, bool):
        raise PlanError(f"progress is True, False or None, not {progress!r:.200}")
    check_restart(checkpoint, restart)
    options = settings(checkpoint=checkpoint, parallelism=parallelism, until=until, restart=restart, on_error=on_error)
    job = _started(sinks, "run", options, http)
    if isinstance(job, Declared):
        return cast("Report", job)
    logged: set[str] = set()
    with stops_on_sigterm(job._raw):
        report = _watch(job._raw, progress, logged)
        _log(job._raw, report.notes, logged)
    return report


def _log(job: RawJob, notes: list[str], logged: set[str]) -> None:
    """Log the notes of a job that were not logged yet: failures of checkpoints that differ by their number once."""
    already = set(job.logged_notes()) if notes else ()
    for note in notes:
        text = _NUMBER.sub("checkpoint", note)
        if text not in logged and note not in already:
            logged.add(text)
            logging.getLogger("millstream").warning("%s", note)


def _wait(job: RawJob, limit_us: int | None, logged: set[str]) -> dict[str, Any] | None:
    """Wait for the end, and log notes of the job meanwhile."""
    end = None if limit_us is None else time.monotonic() + limit_us / 1_000_000
    while True:
        left_us = _LOOK_US if end is None else min(_LOOK_US, int(1_000_000 * (end - time.monotonic())))
        figures = job.wait(max(left_us, 0))
        if figures is not None or left_us < _LOOK_US:
            return figures
        _log(job, job.status()[2], logged)


def _watch(job: RawJob, progress: bool | None, logged: set[str]) -> Report:
    from millstream._progress import Display

    if progress is False or (progress is None and not Display.is_watched()):
        figures = _wait(job, None, logged)
    else:
        with Display(is_patient=progress is None) as display:
            while (figures := job.wait(_POLL_US)) is None:
                _log(job, job.status()[2], logged)
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
    """Run a stream and return its records; see :meth:`Stream.collect`."""
    if limit is not None:
        count(limit, "collect() takes a number of rows as limit")
    if limit is None and until is None and not stream.is_bounded:
        raise PlanError('collect() of an unbounded stream would never end; pass limit=1000 or until="10s"')
    options = settings(until=until, parallelism=parallelism, on_error=on_error)
    _check_runs("collect")
    raw = stream._raw
    if limit is not None and stream.updating_key is None:
        # As a step, a limit has the first records, and ends what comes before it.
        raw = raw.limit(limit)
    return Table(_Receiving(receive(raw, limit, options)).raw.collect())


def iter_batches(
    stream: Stream,
    *,
    until: Duration | None,
    parallelism: int | None,
    on_error: OnError,
) -> Iterator[Any]:
    """Run a stream and return an iterator over its batches; see :meth:`Stream.iter_batches`."""
    _check_runs("iter_batches")
    receiver = receive(stream._raw, None, settings(until=until, parallelism=parallelism, on_error=on_error))
    return _batches(_Receiving(receiver))


class _Receiving:
    """A job whose records are passed to the caller, until it is let go."""

    __slots__ = ("__weakref__", "raw")

    def __init__(self, raw: RawReceiver) -> None:
        self.raw = raw
        _live.hold(self)

    def cancel(self) -> None:
        """Ask the job to end; returns at once."""
        self.raw.cancel()

    def ends(self, seconds_max: float) -> bool:
        """Wait for the end; return whether it has come."""
        return self.raw.ends(int(seconds_max * 1_000_000))

    def _is_stopping(self) -> bool:
        return False

    def let_go(self) -> None:
        """Do not wait for the job any more."""
        self.raw.let_go()


def _batches(receiving: _Receiving) -> Iterator[Any]:
    try:
        while (batch := receiving.raw.next()) is not None:
            yield batch
    finally:
        receiving.raw.close()


def _check_runs(verb: str) -> None:
    if (recording := recorder()) is not None:
        recording.collected(verb)


def diff_of(sinks: tuple[Output, ...], checkpoint: str | os.PathLike[str] | Checkpoint, id: int | None) -> StateDiff:
    """Compare the plan of a job with a checkpoint; see :func:`millstream.state_diff`."""
    if checkpoint is None:
        raise PlanError("state_diff() compares a plan with a checkpoint; give checkpoint=\"state/\"")
    return diff_of_raw([output._raw for output in _outputs(sinks, "state_diff")], settings(checkpoint=checkpoint), id)


def diff_of_raw(sinks: list[Any], options: dict[str, Any], id: int | None) -> StateDiff:
    """Compare a plan with a checkpoint."""
    if id is not None:
        count(id, "the number of a checkpoint")
    checkpoint, path, steps, refusals = _engine.state_diff(sinks, options, id)
    return StateDiff(checkpoint, path, [StepDiff(*step) for step in steps], refusals)


def explain_stream(stream: Stream, *, parallelism: int | None) -> str:
    """Return the plan of a stream as text."""
    from millstream._graph import PlanText

    return PlanText(explain(stream._raw, settings(parallelism=parallelism)))


def graph_of_stream(stream: Stream, *, parallelism: int | None) -> Graph:
    """Return the plan of a stream as nodes and edges."""
    from millstream._graph import graph_of

    options = settings(parallelism=parallelism)
    return graph_of(explain(stream._raw, options), *_engine.graph(stream._raw, options))
