"""Inspection of checkpoints: which checkpoints exist, what they contain, and whether they are intact."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

from millstream import _engine
from millstream._counts import count
from millstream._moments import utc_moment
from millstream._paths import state_path
from millstream._texts import text
from millstream.table import Table

if TYPE_CHECKING:
    from millstream.io.sinks import Output
    from millstream.options import Checkpoint

__all__ = [
    "CheckpointInfo",
    "PickledState",
    "StateDiff",
    "StepDiff",
    "checkpoints",
    "pickled_state",
    "read_state",
    "state_diff",
    "verify",
]


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint in a state directory.

    Attributes
    ----------
    id
        Its number.
    created
        When it was started, in UTC.
    mode
        The guarantee that the job ran with.
    bytes, new_bytes
        The size of all that it needs, and of the part that was written for it.
    is_savepoint, is_finished
        Whether it is a savepoint, and whether the job had ended.
    steps
        The steps whose state it holds.
    damage
        What is wrong with it, if anything; then the other attributes have no meaning.

    Examples
    --------
    >>> report = mill.run(mill.from_iter([1, 2]).write_csv("out/"), checkpoint="state/")
    >>> newest = mill.checkpoints("state/")[0]
    >>> newest.mode, newest.is_savepoint, newest.damage
    ('exactly_once', False, None)
    """

    id: int
    created: datetime
    mode: str
    bytes: int
    new_bytes: int
    is_savepoint: bool
    is_finished: bool
    steps: list[str]
    damage: str | None


@dataclass(frozen=True)
class StepDiff:
    """What would happen to a step if a job continued from a checkpoint.

    Attributes
    ----------
    step
        The name of the step.
    change
        ``"kept"``, ``"changed"``, ``"new"``, ``"gone"``, ``"dropped"`` (it was removed, and its state is dropped) or ``"refused"``.
    text
        What differs, and what to write if it is refused; empty for a step that is kept.

    Examples
    --------
    >>> mill.StepDiff("totals", "kept", "").change
    'kept'
    """

    step: str
    change: str
    text: str


@dataclass(frozen=True)
class StateDiff:
    """How the plan of a job differs from the one of a checkpoint; made by :func:`state_diff`.

    Printed, it is a table with a line for each step.

    Attributes
    ----------
    checkpoint
        The number of the checkpoint.
    path
        The directory that it is in.
    steps
        The steps: those of the plan in its order, then removed ones.
    refusals
        Why the job would be refused; empty if it would not.

    Examples
    --------
    >>> counts = mill.generate(rows=9, k=mill.index() % 3).key_by("k").agg(n=mill.count()).name("counts")
    >>> sink = counts.write_csv("diff-out/")
    >>> report = mill.run(sink, checkpoint="diff-state/")
    >>> mill.state_diff(sink, checkpoint="diff-state/").is_refused
    False
    """

    checkpoint: int
    path: str
    steps: list[StepDiff]
    refusals: list[str]

    @property
    def is_refused(self) -> bool:
        """Whether the job would be refused.

        Examples
        --------
        >>> mill.StateDiff(3, "state/", [], ["no longer in the plan: totals"]).is_refused
        True
        """
        return bool(self.refusals)

    def __str__(self) -> str:
        """Show all steps, and what keeps the job from going on."""
        wide = max((len(step.step) for step in self.steps), default=0)
        lines = [f"checkpoint {self.checkpoint} in {self.path}"]
        lines += [f"  {step.change:<8}  {step.step:<{wide}}  {step.text}".rstrip() for step in self.steps]
        if not self.refusals:
            return "\n".join([*lines, "the job would continue from it"])
        told = {step.text for step in self.steps}
        rest = [f"  {refusal}" for refusal in self.refusals if not any(refusal in text for text in told)]
        return "\n".join([*lines, *rest, "the job would be refused"])


@dataclass(frozen=True)
class PickledState:
    """State that consists of pickled Python objects.

    Attributes
    ----------
    checkpoint
        The number of the checkpoint.
    step
        The step that has it.
    state
        The part of the step's state.
    """

    checkpoint: int
    step: str
    state: str


def pickled_state(path: str | os.PathLike[str]) -> list[PickledState]:
    """Find state that consists of pickled Python objects, without unpickling any of it.

    A job that continues from such state unpickles it, which can run any code: a state directory with any must be
    trusted as code is. ``millstream state verify --no-objects`` makes an error of it.

    Parameters
    ----------
    path
        The state directory, or its URL in an object store.

    Returns
    -------
    list of PickledState
        What was found.

    Raises
    ------
    CheckpointError
        When there is no such state directory, or it cannot be read.

    Examples
    --------
    >>> counts = mill.generate(rows=9, k=mill.index() % 3).key_by("k").agg(n=mill.count()).name("count")
    >>> report = mill.run(counts.write_csv("plain/"), checkpoint="plain-state/")
    >>> mill.state.pickled_state("plain-state/")
    []
    """
    return [PickledState(*found) for found in _engine.pickled_state(state_path(path, "the state directory"))]


class _Checkpoints(list[CheckpointInfo]):
    """A list that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        from millstream._html import table

        names = [field.name for field in fields(CheckpointInfo)]
        return table(names, ([getattr(info, name) for name in names] for info in self))


def checkpoints(path: str | os.PathLike[str]) -> list[CheckpointInfo]:
    """List the checkpoints in a state directory, newest first.

    Parameters
    ----------
    path
        The state directory, or its URL in an object store.

    Returns
    -------
    list of CheckpointInfo
        Damaged checkpoints are included, with what is wrong with them. A notebook shows the list as a table.

    Raises
    ------
    CheckpointError
        When there is no such state directory, or it cannot be read.
    PlanError
        When ``path`` is not a path.

    Examples
    --------
    >>> counts = mill.generate(rows=100, k=mill.index() % 3).key_by("k").agg(n=mill.count()).name("count")
    >>> report = mill.run(counts.write_csv("out/"), checkpoint="state/")
    >>> mill.checkpoints("state/")[0].is_finished
    True
    """
    found = _Checkpoints()
    for raw in _engine.checkpoints(state_path(path, "the state directory")):
        created = utc_moment(raw.pop("created_us"))
        found.append(CheckpointInfo(created=created, **raw))
    return found


def state_diff(*sinks: Output, checkpoint: str | os.PathLike[str] | Checkpoint, id: int | None = None) -> StateDiff:
    """Compare the plan of a job with the checkpoint that it would continue from.

    Nothing runs, and nothing is locked or written: a job may be running on the state directory. Input files, and what is in the
    files and tables of sinks, are looked at when a job starts, not here.

    Parameters
    ----------
    *sinks
        What the job writes to, as for :func:`run`.
    checkpoint
        The state directory or a savepoint, or the :class:`Checkpoint` of the run, whose ``allow_new`` and ``drop`` then count.
    id
        The number of the checkpoint; by default the newest.

    Returns
    -------
    StateDiff
        What would happen to each step, and the reasons if the job would be refused.

    Raises
    ------
    CheckpointError
        When there is no checkpoint.
    PlanError
        When the plan does not hold together, or an argument is not of its type.

    Examples
    --------
    >>> counts = mill.generate(rows=9, k=mill.index() % 3).key_by("k").agg(n=mill.count()).name("counts")
    >>> report = mill.run(counts.write_csv("diffed/"), checkpoint="diffed-state/")
    >>> same = mill.state_diff(counts.write_csv("diffed/"), checkpoint="diffed-state/")
    >>> {step.change for step in same.steps}
    {'kept'}
    >>> other = mill.generate(rows=9, k=mill.index() % 4).key_by("k").agg(n=mill.count()).name("counts")
    >>> mill.state_diff(other.write_csv("diffed/"), checkpoint="diffed-state/").is_refused
    True
    """
    from millstream.job import diff_of

    return diff_of(sinks, checkpoint, id)


def read_state(path: str | os.PathLike[str], *, step: str, id: int | None = None) -> Table:
    """Read the keyed state of a step as a table, with one row for each key, or each key and open window.

    Parameters
    ----------
    path
        The state directory, or its URL in an object store.
    step
        The name of the step, as in ``explain()`` and ``name()``.
    id
        The number of the checkpoint; by default the newest.

    Returns
    -------
    Table
        The columns of the key, the bounds of the window where there are any, and the results as of the checkpoint.
        Aggregates of your own are their pickled bytes.

    Raises
    ------
    CheckpointError
        When there is no such checkpoint or step, or the step has no keyed state.
    PlanError
        When an argument is not of its type.

    Examples
    --------
    >>> counts = mill.generate(rows=9, k=mill.index() % 3).key_by("k").agg(n=mill.count()).name("count")
    >>> report = mill.run(counts.write_csv("counted/"), checkpoint="counted-state/")
    >>> sorted(row["n"] for row in mill.read_state("counted-state/", step="count").to_pylist())
    [3, 3, 3]
    """
    if id is not None:
        count(id, "read_state(id=...) takes the number of a checkpoint")
    step = text(step, "read_state(step=…)", "per user")
    return Table(_engine.read_state(state_path(path, "the state directory"), step, id))


def verify(path: str | os.PathLike[str]) -> tuple[list[tuple[int, str | None]], list[str]]:
    """Read every byte of a state directory.

    Parameters
    ----------
    path
        The state directory, or its URL in an object store.

    Returns
    -------
    tuple
        The numbers of the checkpoints, newest first, each with what is wrong with it or None; and what else was noticed.

    Raises
    ------
    CheckpointError
        When there is no such state directory.
    """
    return _engine.verify(state_path(path, "the state directory"))
