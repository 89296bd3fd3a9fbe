"""Simulated runs of whole jobs: for tests that need every schedule, and of what a crash leaves.

Besides the order of its steps, a test can command faults: of the process and its files, by named steps (:func:`arm`), and
of the machine, by a state directory on a :class:`Disk` in memory.
"""

from __future__ import annotations

import os
from typing import Literal

from millstream import _engine
from millstream._counts import count
from millstream.io.sinks import Output
from millstream.job import _outputs
from millstream.options import Checkpoint, OnError, settings
from millstream.report import Report, report_of

__all__ = ["Disk", "arm", "disarm", "simulate"]


class Disk:
    """A disk in memory for the state directory of a simulated job, which loses data, fails and fills up on command.

    It knows what a running process sees, and what would survive a crash of the machine. Operations are numbered from 0.

    Examples
    --------
    >>> from millstream import testing
    >>> disk = testing.Disk()
    >>> sink = mill.generate(rows=100, k=mill.index() % 3).key_by("k").agg(n=mill.count()).write_csv("out/")
    >>> disk.crash_at(20)
    >>> testing.simulate(sink, seed=1, checkpoint="state/", disk=disk) is None
    True
    >>> testing.simulate(sink, seed=2, checkpoint="state/", disk=disk.after_crash(seed=3)).status
    'finished'
    """

    def __init__(self) -> None:
        self._raw = _engine.RawDisk()

    def fail_at(self, operation: int) -> None:
        """Make one operation fail; a sync that fails makes nothing durable.

        Parameters
        ----------
        operation
            The number of the operation.

        Raises
        ------
        PlanError
            When it is not an integer of at least 0.

        Examples
        --------
        >>> from millstream import testing
        >>> disk = testing.Disk()
        >>> disk.fail_at(3)
        >>> sink = mill.generate(rows=9).write_csv("out/")
        >>> try:
        ...     testing.simulate(sink, seed=1, checkpoint="state/", disk=disk)
        ... except mill.CheckpointError:
        ...     print("the state could not be written")
        the state could not be written
        """
        self._raw.fail_at(count(operation, "fail_at() takes the number of an operation"), False)

    def crash_at(self, operation: int) -> None:
        """Let the machine crash: this operation and all after it fail, and the simulation ends.

        Parameters
        ----------
        operation
            The number of the operation.

        Raises
        ------
        PlanError
            When it is not an integer of at least 0.

        Examples
        --------
        >>> from millstream import testing
        >>> disk = testing.Disk()
        >>> disk.crash_at(0)
        >>> sink = mill.generate(rows=9).write_csv("out/")
        >>> testing.simulate(sink, seed=1, checkpoint="state/", disk=disk) is None
        True
        """
        self._raw.fail_at(count(operation, "crash_at() takes the number of an operation"), True)

    @property
    def operations(self) -> int:
        """How many operations there were.

        Examples
        --------
        >>> from millstream import testing
        >>> testing.Disk().operations
        0
        """
        return self._raw.operations()

    def set_space(self, bytes: int | None) -> None:
        """Limit how many more bytes can be allocated.

        Parameters
        ----------
        bytes
            How many bytes; None for no limit.

        Raises
        ------
        PlanError
            When it is not an integer of at least 0.

        Examples
        --------
        >>> from millstream import testing
        >>> disk = testing.Disk()
        >>> disk.set_space(0)
        >>> sink = mill.generate(rows=9).write_csv("out/")
        >>> try:
        ...     testing.simulate(sink, seed=1, checkpoint="state/", disk=disk)
        ... except mill.CheckpointError:
        ...     print("the disk is full")
        the disk is full
        """
        self._raw.set_space(None if bytes is None else count(bytes, "set_space() takes a number of bytes"))

    def after_crash(self, seed: int) -> Disk:
        """Return the disk as it is after the machine crashed.

        Synced data survives. For every name and every sector that was not, the seed decides whether it is as it was
        before or after the change.

        Parameters
        ----------
        seed
            An integer from 0.

        Raises
        ------
        PlanError
            When it is not such an integer.

        Examples
        --------
        >>> from millstream import testing
        >>> testing.Disk().after_crash(seed=1).operations
        0
        """
        disk = Disk()
        disk._raw = self._raw.after_crash(count(seed, "after_crash() takes a seed that is a whole number from 0"))
        return disk

    def after_kill(self) -> Disk:
        """Return the disk as it is after the process was killed: with all that was written.

        Examples
        --------
        >>> from millstream import testing
        >>> testing.Disk().after_kill().operations
        0
        """
        disk = Disk()
        disk._raw = self._raw.after_kill()
        return disk


def arm(
    step: str, *, first: int = 1, times: int = 1, effect: Literal["count", "kill", "die", "fail", "full", "panic"] = "die"
) -> None:
    """Cause a fault at a named step of a checkpoint, a commit or a recovery, until :func:`disarm`.

    Parameters
    ----------
    step
        The step, such as ``"file.rename"``; ``"*"`` for any. :func:`disarm` returns those that were reached.
    first
        Which occurrence of the step triggers the effect, counting from 1.
    times
        How many times in a row, for effects that do not end the process.
    effect
        ``"kill"`` kills the process. ``"die"`` ends a simulated job as a kill would. ``"fail"`` and ``"full"`` make the step fail
        as on a broken or a full disk. ``"panic"`` makes it panic, as on a bug of the engine. ``"count"`` only counts.

    Raises
    ------
    PlanError
        When ``first`` or ``times`` is not an integer of at least 1.
    ValueError
        When there is no such effect.

    Notes
    -----
    Another process is killed likewise if its environment has ``MILLSTREAM_FAIL_POINT=step:first``. Every thread of the
    engine passes a step of its own: ``thread.worker``, ``thread.coordinator``, ``thread.writer``, ``thread.reader`` and
    ``thread.supervisor``.

    Examples
    --------
    >>> from millstream import testing
    >>> testing.arm("*", effect="count")
    >>> report = testing.simulate(mill.generate(rows=9).write_csv("out/"), seed=1, checkpoint="state/")
    >>> "file.rename" in testing.disarm()
    True
    """
    first = count(first, "arm(first=...) takes a number from 1", 1)
    _engine.arm(step, first, count(times, "arm(times=...) takes a number of times"), effect)


def disarm() -> dict[str, int]:
    """Remove all faults of :func:`arm`.

    Returns
    -------
    dict
        How many times each step was reached since :func:`arm`, by its name.

    Examples
    --------
    >>> from millstream import testing
    >>> testing.arm("file.rename", effect="count")
    >>> report = testing.simulate(mill.generate(rows=9).write_csv("out/"), seed=1, checkpoint="state/")
    >>> testing.disarm()["file.rename"] > 0
    True
    """
    return _engine.disarm()


def simulate(
    *sinks: Output,
    seed: int,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    steps: int | None = None,
    parallelism: int | None = None,
    frame_rows: int | None = None,
    chaining: bool = True,
    on_error: OnError = "fail",
    disk: Disk | None = None,
    clock_jumps: bool = False,
) -> Report | None:
    """Run a job on this thread, step by step, in an order drawn from a seed.

    A job that ends early is left as after a kill. Called again with the same state directory, it recovers from there.

    Parameters
    ----------
    *sinks, checkpoint, parallelism, on_error
        As for :func:`millstream.run`.
    seed
        What the order of steps is drawn from.
    steps
        How many steps to take; None for all.
    frame_rows
        How many rows a frame has at most.
    chaining
        Whether steps are fused into chains.
    disk
        The disk of the state directory; by default that of the machine.
    clock_jumps
        Whether the clock of the job starts up to a day off and jumps back and forth.

    Returns
    -------
    Report or None
        What the job has done; None if it has not come to its end.

    Raises
    ------
    PlanError
        When an option is not one of its choices, or :func:`millstream.run` would refuse the job.
    MillstreamError
        When the job fails.

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
    count(seed, "simulate() takes a seed that is a whole number from 0")
    if steps is not None:
        count(steps, "simulate(steps=...) takes a number of steps")
    outputs = [output._raw for output in _outputs(sinks, "simulate")]
    figures = _engine.simulate(outputs, options, seed, steps, None if disk is None else disk._raw, clock_jumps)
    return None if figures is None else report_of(figures)
