"""Options of a run: checkpoints and restarts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from millstream._counts import count
from millstream._paths import state_path
from millstream.errors import PlanError
from millstream.time import Duration, microseconds

__all__ = ["Checkpoint", "Restart", "settings"]

_ATTEMPTS_MAX = 2**32 - 1

Mode = Literal["exactly_once", "at_least_once", "dedup", "none"]
OnError = Literal["fail", "skip", "route"]


@dataclass(frozen=True)
class Checkpoint:
    """Where and how checkpoints are taken; a second run on the same path continues from the first.

    Attributes
    ----------
    path
        The state directory, or a prefix in an object store: ``"s3://bucket/jobs/orders/"``.
    every
        The interval between checkpoints.
    mode
        What a restart means for the results: ``"exactly_once"``, ``"at_least_once"`` (nothing is missing, some results may
        be repeated), ``"dedup"`` (as ``"exactly_once"``, and a task that fails goes back alone while the others continue; needs a
        restart strategy) or ``"none"`` (nothing is replayed: at most once).
    retain
        How many checkpoints are kept, at least 1.
    restore_from
        A savepoint, or the state directory of another job, to start from if ``path`` has no checkpoint yet.
    allow_new
        The steps with state that may be new, although there is a checkpoint: a list of their names, or True for all. They start
        empty; a source is read from its beginning. A new aggregate of a step is named ``"step.column"``.
    drop
        The names of removed steps whose state is dropped, and of aggregates as ``"step.column"``. A step that is in
        ``drop`` and in ``allow_new`` loses its former state and starts empty.
    restart
        Whether to start over: the checkpoints of earlier runs in ``path`` are removed, once all sinks have started. Earlier output is
        handled by ``on_existing`` of each sink; ``write_sqlite`` adds to the rows of its table. Do not leave this set in a
        script that should resume.

    Raises
    ------
    PlanError
        When a value is not of its type, or not one of its choices.

    Notes
    -----
    A run that continues from a checkpoint compares the plan with the one that the checkpoint was taken with. What has changed
    is in :attr:`Report.notes`, and is logged as a warning; of functions only the names are compared. Where state would be
    lost or would mean something else, the run is refused, and so is a changed plan of a job that had finished. The error names
    every step and what to write for it; ``millstream state diff flow.py`` shows the same before the run, as does
    :func:`state_diff`. ``allow_new`` and ``drop`` may stay in the script once they have been used; a name of no step is an
    error.

    Trust a state directory or a savepoint as you trust code. Columns and states of type ``object``, states of an
    :class:`Aggregate` of yours, and attributes of a :class:`WatermarkGenerator` are pickled, and unpickling can run any
    code. ``millstream state verify --no-objects`` reports whether a directory holds any.

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
    allow_new: bool | Sequence[str] = False
    drop: Sequence[str] = ()
    restart: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked at once."""
        state_path(self.path, "checkpoint")
        if self.restore_from is not None:
            state_path(self.restore_from, "restore_from")
        if microseconds(self.every, "checkpoint every") == 0:
            raise PlanError('checkpoint every="0s" leaves no time to work; give an interval such as "1s"')
        if self.mode not in ("exactly_once", "at_least_once", "dedup", "none"):
            raise PlanError(f'mode is {self.mode!r}; it is "exactly_once", "at_least_once", "dedup" or "none"')
        if not isinstance(self.allow_new, bool):
            _names(self.allow_new, "allow_new is True or a list of names of steps")
        _names(self.drop, "drop is a list of names of steps")
        if not isinstance(self.restart, bool):
            raise PlanError(
                f"restart of a checkpoint is True or False, not {self.restart!r:.200}; "
                "a restart strategy such as mill.Restart.fixed_delay(3) is an option of the run"
            )
        count(self.retain, "retain is how many checkpoints are kept to continue from, at least 1", 1)


def _names(given: object, what: str) -> list[str]:
    if isinstance(given, (list, tuple, set, frozenset)) and all(isinstance(name, str) for name in given):
        return sorted(given) if isinstance(given, (set, frozenset)) else list(given)
    raise PlanError(f'{what}, such as ["totals"], not {given!r:.200}')


@dataclass(frozen=True)
class Restart:
    """What happens after a failure; needs a checkpoint to continue from.

    Attributes
    ----------
    attempts
        How many times the job is restarted at most; the next failure ends it. In mode ``"dedup"``, restarts of single tasks count, too.
    initial
        The pause before the first restart.
    longest
        The longest pause; pauses double up to it.

    Raises
    ------
    PlanError
        When ``attempts`` is not an integer of at least 0, or a pause is not a duration.

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
        count(self.attempts, "a restart strategy takes a number of attempts", 0, _ATTEMPTS_MAX)
        microseconds(self.initial, "delay")
        microseconds(self.longest, "longest delay")

    @staticmethod
    def fixed_delay(attempts: int, delay: Duration = "1s") -> Restart:
        """Restart from the last checkpoint, after the same pause each time.

        Parameters
        ----------
        attempts
            How many times the job is restarted at most; the next failure ends it.
        delay
            The pause before each restart.

        Raises
        ------
        PlanError
            When ``attempts`` is not an integer of at least 0, or ``delay`` is not a duration.

        Examples
        --------
        >>> mill.Restart.fixed_delay(attempts=3).initial
        '1s'
        """
        return Restart(attempts, delay, delay)

    @staticmethod
    def exponential_delay(attempts: int, initial: Duration = "1s", *, longest: Duration = "1m") -> Restart:
        """Restart from the last checkpoint, after a pause that doubles from failure to failure.

        Parameters
        ----------
        attempts
            How many times the job is restarted at most; the next failure ends it.
        initial
            The pause before the first restart.
        longest
            The longest pause.

        Raises
        ------
        PlanError
            When ``attempts`` is not an integer of at least 0, or a pause is not a duration.

        Examples
        --------
        >>> mill.Restart.exponential_delay(10, "100ms").longest
        '1m'
        """
        return Restart(attempts, initial, longest)


def check_restart(checkpoint: object, restart: object) -> None:
    """Refuse a mode that restarts tasks without saying how often."""
    if isinstance(checkpoint, Checkpoint) and checkpoint.mode == "dedup" and restart is None:
        raise PlanError(
            'mode="dedup" restarts a task that fails, and has to know how often: give restart=mill.Restart.fixed_delay(3), '
            'or use mode="exactly_once"'
        )


def _allowed(checkpoint: Checkpoint | None) -> list[str] | None:
    """Return the names of steps that may be new; None for all."""
    if checkpoint is None or checkpoint.allow_new is False:
        return []
    return None if checkpoint.allow_new is True else list(checkpoint.allow_new)


def settings(
    *,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    parallelism: int | None = None,
    until: Duration | None = None,
    restart: Restart | None = None,
    on_error: OnError = "fail",
    frame_rows: int | None = None,
    is_chaining: bool = True,
    is_background: bool = False,
) -> dict[str, Any]:
    """Return the options of a run in the form of the compiled module."""
    if isinstance(checkpoint, (str, os.PathLike)):
        checkpoint = Checkpoint(checkpoint)
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        raise PlanError(f"checkpoint is a path or mill.Checkpoint(...), not {checkpoint!r:.200}")
    if parallelism is not None:
        count(parallelism, "parallelism is a number of tasks from 1", 1)
    if frame_rows is not None:
        count(frame_rows, "frame_rows is a number of rows from 1", 1)
    if restart is not None and not isinstance(restart, Restart):
        over = "; to start over without the old state: checkpoint=mill.Checkpoint(path, restart=True)" if restart is True else ""
        raise PlanError(f"restart is a strategy such as mill.Restart.fixed_delay(3), not {restart!r:.200}{over}")
    restore_from = None if checkpoint is None else checkpoint.restore_from
    return {
        "checkpoint": None if checkpoint is None else state_path(checkpoint.path, "checkpoint"),
        "every_us": 1_000_000 if checkpoint is None else microseconds(checkpoint.every),
        "mode": "exactly_once" if checkpoint is None else checkpoint.mode,
        "retain": 3 if checkpoint is None else checkpoint.retain,
        "allow_new": _allowed(checkpoint),
        "drop": [] if checkpoint is None else list(checkpoint.drop),
        "restart_over": checkpoint is not None and checkpoint.restart,
        "restore_from": None if restore_from is None else state_path(restore_from, "restore_from"),
        "parallelism": parallelism,
        "restart": None
        if restart is None
        else (restart.attempts, microseconds(restart.initial), microseconds(restart.longest)),
        "on_error": on_error,
        "until_us": None if until is None else microseconds(until, "until"),
        "frame_rows": frame_rows,
        "is_chaining": is_chaining,
        "is_background": is_background,
    }
