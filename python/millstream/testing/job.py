"""A job under test, run by hand."""

from __future__ import annotations

import itertools
from typing import Any, Self

from millstream._counts import count
from millstream._engine import RawDisk, RawHandJob, RawLedger, RawPushedSource, RawSink, RawTable
from millstream.errors import MillstreamError, PlanError
from millstream.io.sinks import Output
from millstream.job import _outputs
from millstream.options import Checkpoint, Mode, OnError, settings
from millstream.report import Report, report_of
from millstream.stream import Stream
from millstream.testing.clock import Clock
from millstream.testing.source import live_sources

__all__ = ["Job", "collect"]

_NUMBERS = itertools.count()
_OP = "op"


class Job:
    """A job that runs by hand, on the calling thread.

    It runs when it is asked to, until it is *quiet*: nothing can happen before new input or a later time. Steps are taken
    in an order drawn from the seed: the same seed repeats a run, and other seeds try other orders of concurrent steps. Its
    state is kept on a disk in memory.

    Parameters
    ----------
    *outputs
        The streams to collect, including side outputs such as ``.late`` and ``.errors``. Also sinks, which write as they
        would in a run.
    clock
        Its processing time; by default its own clock, at the beginning of the year 2000.
    seed
        What the order of steps is drawn from.
    parallelism
        How many parallel tasks each step has.
    mode
        What a restart means for the results, as for :class:`millstream.Checkpoint`.
    on_error
        What happens to a record that fails, as for :func:`millstream.run`.
    frame_rows
        How many rows a frame has at most; few rows make many orders.
    chaining
        Whether steps are fused into chains.

    Raises
    ------
    PlanError
        When there is no output, an option is not one of its choices, or the job could not be started by
        :func:`millstream.run`.

    Examples
    --------
    >>> from datetime import datetime
    >>> from millstream import testing
    >>> source = testing.Source({"user": str, "at": datetime})
    >>> visits = source.stream().event_time("at").key_by("user").window(mill.tumbling("1h")).agg(n=mill.count())
    >>> with testing.Job(visits, visits.late, seed=7) as job:
    ...     source.push({"user": "ann", "at": datetime(2024, 1, 1, 9)}, {"user": "ann", "at": datetime(2024, 1, 1, 10, 5)})
    ...     print([row["n"] for row in job.collect(visits)])
    ...     source.push({"user": "bob", "at": datetime(2024, 1, 1, 9, 30)})
    ...     job.kill_and_restore()
    ...     print([row["user"] for row in job.collect(visits.late)])
    [1]
    ['bob']
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_disk",
        "_has_failed",
        "_is_over",
        "_ledgers",
        "_mode",
        "_number",
        "_options",
        "_raw",
        "_seed",
        "_sinks",
    )

    def __init__(
        self,
        *outputs: Stream | Output,
        clock: Clock | None = None,
        seed: int = 0,
        parallelism: int = 2,
        mode: Mode = "exactly_once",
        on_error: OnError = "fail",
        frame_rows: int | None = None,
        chaining: bool = True,
    ) -> None:
        if not outputs:
            raise PlanError("Job() takes the streams to collect, and sinks")
        if clock is not None and not isinstance(clock, Clock):
            raise PlanError(f"the clock of a job is a testing.Clock, not {clock!r:.80}")
        self._seed = count(seed, "a job takes a seed that is a whole number from 0")
        self._clock = Clock() if clock is None else clock
        self._mode = mode
        self._ledgers = [_ledger(output, mode) for output in outputs if isinstance(output, Stream)]
        others = tuple(output for output in outputs if not isinstance(output, Stream))
        self._sinks: list[RawSink] = [output._raw for output in _outputs(others, "Job")] if others else []
        self._options = settings(
            checkpoint=Checkpoint("state", mode=mode),
            parallelism=parallelism,
            on_error=on_error,
            frame_rows=frame_rows,
            is_chaining=chaining,
        )
        self._disk = RawDisk()
        self._number = next(_NUMBERS)
        self._is_over = self._has_failed = False
        self._raw = self._open()
        self._clock._jobs.add(self)

    def _open(self) -> RawHandJob:
        sinks = [*(ledger.sink() for ledger in self._ledgers), *self._sinks]
        return RawHandJob(sinks, self._options, self._seed, self._disk, self._clock._raw)

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until the job is quiet.

        Raises
        ------
        MillstreamError
            When the job fails.

        Examples
        --------
        >>> from millstream import testing
        >>> source, seen = testing.Source({"x": int}), []
        >>> with testing.Job(source.stream().for_each(lambda row: seen.append(row.x)), mode="at_least_once") as job:
        ...     source.push({"x": 1})
        ...     job.run()
        ...     seen
        [1]
        """
        self._run(None, "run")

    def checkpoint(self, *, after: int | None = None) -> None:
        """Run until the job is quiet and take a checkpoint, which commits the results so far.

        Parameters
        ----------
        after
            Start the checkpoint when the sources have emitted this many more records, whatever is in progress then; by
            default when the job is quiet.

        Raises
        ------
        PlanError
            When fewer records are left to read.
        MillstreamError
            When the checkpoint or the job fails.

        Examples
        --------
        >>> from millstream import testing
        >>> source = testing.Source({"x": int})
        >>> with testing.Job(source.stream()) as job:
        ...     source.push({"x": 1}, {"x": 2}, {"x": 3})
        ...     job.checkpoint(after=2)
        ...     job.kill_and_restore(after=0)
        ...     job.collect()
        [{'x': 1}, {'x': 2}, {'x': 3}]
        """
        self._run(after, "checkpoint")
        if not self._is_over:
            # The barrier comes after that many records and before any other.
            self._checkpoint([] if after is None else live_sources())

    def kill_and_restore(self, *, after: int | None = None, parallelism: int | None = None, seed: int | None = None) -> None:
        """Stop the job as if its process was killed, and restore it from its last checkpoint.

        Results since that checkpoint are lost and computed again, as sources are read again from where they were. A job
        that has failed is restored as it is.

        Parameters
        ----------
        after
            Kill the job when the sources have emitted this many more records, whatever is in progress then; by default when
            the job is quiet. 0 kills it at once.
        parallelism
            How many parallel tasks each step has from now on; by default as many as before.
        seed
            What the order of steps is drawn from now on; by default the number after the last one.

        Raises
        ------
        PlanError
            When fewer records are left to read, or an option is out of range.
        MillstreamError
            When the job fails before it is killed.

        Examples
        --------
        >>> from millstream import testing
        >>> source = testing.Source({"k": str})
        >>> counts = source.stream().key_by("k").agg(n=mill.count(), emit="end")
        >>> with testing.Job(counts) as job:
        ...     source.push({"k": "a"}, {"k": "a"}, {"k": "a"})
        ...     job.checkpoint(after=1)
        ...     job.kill_and_restore(after=1, parallelism=3)
        ...     source.end()
        ...     job.collect()
        [{'k': 'a', 'n': 3}]
        """
        changed = self._options if parallelism is None else {**self._options, **_parallel(parallelism)}
        number = self._seed + 1 if seed is None else count(seed, "kill_and_restore() takes a seed that is a whole number from 0")
        if after != 0 and not self._has_failed:
            self._run(after, "kill_and_restore")
        self._raw.kill()
        self._disk = self._disk.after_kill()
        self._options, self._seed = changed, number
        self._is_over = self._has_failed = False
        self._raw = self._open()

    def close(self) -> None:
        """End the job if it still runs; what no checkpoint has committed is dropped.

        Examples
        --------
        >>> from millstream import testing
        >>> job = testing.Job(testing.Source({"x": int}).stream())
        >>> job.close()
        """
        self._clock._jobs.discard(self)
        self._raw.close()

    def __enter__(self) -> Self:
        """Return the job itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the job."""
        self.close()

    def __repr__(self) -> str:
        """Show the seed and whether the job is over."""
        return f"<testing.Job seed={self._seed} {'over' if self._is_over else 'open'}>"

    # -- what has come out -------------------------------------------------------------------------------------------

    def collect(self, stream: Stream | None = None) -> list[dict[str, Any]]:
        """Run until the job is quiet, take a checkpoint, and return the rows that were committed since the last call.

        In the modes ``at_least_once`` and ``none``, rows are committed as they come, and no checkpoint is taken.

        Parameters
        ----------
        stream
            Which of the job's streams; by default its only one.

        Returns
        -------
        list of dict
            The rows, in the order in which they were written. Those of an updating stream begin with ``op``, which says
            what the row does to its key: ``"insert"``, ``"update"`` or ``"delete"``. A step that deletes a row may leave
            all columns but the key empty; :meth:`millstream.Stream.to_changelog` fills them.

        Raises
        ------
        PlanError
            When the job does not collect this stream.
        MillstreamError
            When the job fails.

        Examples
        --------
        >>> from millstream import testing
        >>> source = testing.Source({"k": str, "x": int})
        >>> latest = source.stream().key_by("k").agg(x=col("x").last(), emit="checkpoint")
        >>> with testing.Job(latest) as job:
        ...     source.push({"k": "a", "x": 1})
        ...     print(job.collect())
        ...     source.push({"k": "a", "x": 2})
        ...     print(job.collect())
        [{'op': 'insert', 'k': 'a', 'x': 1}]
        [{'op': 'update', 'k': 'a', 'x': 2}]
        """
        ledger = self._ledger_of(stream)
        self.run()
        if self._mode in ("exactly_once", "dedup") and not self._is_over:
            self._checkpoint([])
        return _rows(*ledger.take())

    def pending(self, stream: Stream | None = None) -> list[dict[str, Any]]:
        """Run until the job is quiet, and return the rows that wait for a checkpoint to be committed.

        Parameters
        ----------
        stream
            Which of the job's streams; by default its only one.

        Returns
        -------
        list of dict
            The rows, as :meth:`collect` returns them. They are returned again until they are committed.

        Raises
        ------
        PlanError
            When the job does not collect this stream.
        MillstreamError
            When the job fails.

        Examples
        --------
        >>> from millstream import testing
        >>> source = testing.Source({"x": int})
        >>> with testing.Job(source.stream()) as job:
        ...     source.push({"x": 1})
        ...     print(job.pending())
        ...     job.checkpoint()
        ...     print(job.pending(), job.collect())
        [{'x': 1}]
        [] [{'x': 1}]
        """
        ledger = self._ledger_of(stream)
        self.run()
        return _rows(*ledger.pending())

    def latest(self, stream: Stream | None = None) -> list[dict[str, Any]]:
        """Collect the changes of an updating stream, and return the table that all of them result in.

        Parameters
        ----------
        stream
            Which of the job's streams; by default its only one.

        Returns
        -------
        list of dict
            The latest row of each key.

        Raises
        ------
        PlanError
            When the job does not collect this stream, or it is not an updating one.
        MillstreamError
            When the job fails.

        Examples
        --------
        >>> from millstream import testing
        >>> source = testing.Source({"k": str})
        >>> counts = source.stream().key_by("k").agg(n=mill.count(), emit="checkpoint")
        >>> with testing.Job(counts) as job:
        ...     source.push({"k": "a"})
        ...     job.checkpoint()
        ...     source.push({"k": "b"}, {"k": "a"})
        ...     sorted(job.latest(), key=lambda row: row["k"])
        [{'k': 'a', 'n': 2}, {'k': 'b', 'n': 1}]
        """
        ledger = self._ledger_of(stream)
        self.collect(stream)
        table = ledger.latest()
        if table is None:
            raise PlanError("latest() is of an updating stream, in which the latest row of a key counts; use collect()")
        return table.rows()

    @property
    def clock(self) -> Clock:
        """The processing time of the job.

        Examples
        --------
        >>> from millstream import testing
        >>> with testing.Job(testing.Source({"x": int}).stream()) as job:
        ...     job.clock.now.year
        2000
        """
        return self._clock

    @property
    def is_over(self) -> bool:
        """Whether the sources have ended and all results were emitted.

        Examples
        --------
        >>> from millstream import testing
        >>> source = testing.Source({"x": int})
        >>> with testing.Job(source.stream()) as job:
        ...     job.run()
        ...     before = job.is_over
        ...     source.end()
        ...     job.run()
        ...     before, job.is_over
        (False, True)
        """
        return self._is_over

    def report(self) -> Report:
        """Return the report of a job that is over, since it was opened or restored.

        Raises
        ------
        MillstreamError
            When the job has failed, or is not over.

        Examples
        --------
        >>> from millstream import testing
        >>> source = testing.Source({"x": int})
        >>> with testing.Job(source.stream()) as job:
        ...     source.push({"x": 1})
        ...     source.end()
        ...     job.run()
        ...     job.report().rows_in
        1
        """
        return report_of(self._raw.report())

    # -- inside ------------------------------------------------------------------------------------------------------

    def _run(self, after: int | None, method: str) -> None:
        if after is not None:
            count(after, f"{method}(after=...) takes a number of records")
        try:
            is_over, missing = self._raw.run(live_sources(), after)
        except MillstreamError:
            self._has_failed = True
            raise
        self._is_over = self._is_over or is_over
        if after is not None and missing > 0:
            raise PlanError(
                f"{method}(after={after}): the sources of the job had {after - missing} more records to emit; push more first"
            )

    def _checkpoint(self, held: list[RawPushedSource]) -> None:
        try:
            self._raw.checkpoint(held)
        except MillstreamError:
            self._has_failed = True
            raise

    def _next_time(self) -> int | None:
        return None if self._is_over else self._raw.next_time()

    def _ledger_of(self, stream: Stream | None) -> RawLedger:
        if stream is None:
            if len(self._ledgers) == 1:
                return self._ledgers[0]
            if not self._ledgers:
                raise PlanError("the job collects nothing: it has sinks only; pass the stream to testing.Job(…) to collect it")
            raise PlanError(f"the job collects {len(self._ledgers)} streams; pass one of them, as in job.collect(stream)")
        if not isinstance(stream, Stream):
            raise PlanError(f"a job collects streams, not {stream!r:.80}")
        for ledger in self._ledgers:
            if ledger.is_of(stream._raw):
                return ledger
        raise PlanError("the job does not collect this stream; pass it to testing.Job(...) when the job is made")


def collect(
    stream: Stream,
    *,
    clock: Clock | None = None,
    seed: int = 0,
    parallelism: int = 2,
    on_error: OnError = "fail",
) -> list[dict[str, Any]]:
    """Run a stream to its end by hand, and return its rows.

    Parameters
    ----------
    stream
        A bounded stream, or one whose sources have been ended by hand.
    clock, seed, parallelism, on_error
        As for :class:`Job`.

    Returns
    -------
    list of dict
        The rows; of an updating stream the latest row of each key.

    Raises
    ------
    PlanError
        When it is not a stream, or the stream does not end.
    MillstreamError
        When the job fails.

    Examples
    --------
    >>> from millstream import testing
    >>> testing.collect(mill.from_iter([1, 2, 3]).filter(col("value") > 1))
    [{'value': 2}, {'value': 3}]
    """
    if not isinstance(stream, Stream):
        raise PlanError(f"collect() takes a stream, not {stream!r:.80}")
    with Job(stream, clock=clock, seed=seed, parallelism=parallelism, on_error=on_error) as job:
        job.run()
        if not job.is_over:
            raise PlanError("the stream has not come to its end: end its sources with source.end(), or use testing.Job")
        return job.collect() if stream.updating_key is None else job.latest()


def _ledger(stream: Stream, mode: Mode) -> RawLedger:
    if stream.updating_key is not None and _OP in stream.schema.names:
        raise PlanError(
            f"an updating stream is collected with a column {_OP!r} for what each row does, and this one has such a column; "
            'collect to_changelog(op="change") instead'
        )
    return RawLedger(stream._raw, mode not in ("exactly_once", "dedup"))


def _parallel(parallelism: int) -> dict[str, int]:
    return {"parallelism": count(parallelism, "parallelism is a number of tasks from 1", 1)}


def _rows(table: RawTable, changes: list[str] | None) -> list[dict[str, Any]]:
    rows = table.rows()
    return rows if changes is None else [{_OP: change, **row} for change, row in zip(changes, rows, strict=True)]
