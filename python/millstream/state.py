"""Looking into checkpoints: which there are, and whether they are whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

from millstream import _engine
from millstream._counts import count
from millstream._moments import utc_moment
from millstream._paths import local_path
from millstream._texts import text
from millstream.table import Table

__all__ = ["CheckpointInfo", "PickledState", "checkpoints", "pickled_state", "read_state", "verify"]


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint in a state directory.

    Attributes
    ----------
    id
        Its number.
    created
        When its barrier was sent.
    mode
        The guarantee the job ran with.
    bytes, new_bytes
        How much all it needs has, and how much of that was written for it.
    is_savepoint, is_finished
        Whether it was asked for by you; whether the job had come to its end.
    steps
        The steps whose state it holds.
    damage
        What is wrong with it, if anything; the other fields then say nothing.
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
class PickledState:
    """State that is pickled Python objects.

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
    """Find the state that is pickled Python objects, without unpickling any of it.

    A job that goes on from such state unpickles it, which runs what the bytes ask for: a state directory with any must be
    trusted as code is. ``millstream state verify --no-objects`` makes an error of it.

    Examples
    --------
    >>> counts = mill.generate(rows=9, k=mill.index() % 3).key_by("k").agg(n=mill.count()).name("count")
    >>> report = mill.run(counts.write_csv("plain/"), checkpoint="plain-state/")
    >>> mill.state.pickled_state("plain-state/")
    []
    """
    return [PickledState(*found) for found in _engine.pickled_state(local_path(path, "the state directory"))]


def checkpoints(path: str | os.PathLike[str]) -> list[CheckpointInfo]:
    """List the checkpoints in a state directory, oldest first.

    Examples
    --------
    >>> counts = mill.generate(rows=100, k=mill.index() % 3).key_by("k").agg(n=mill.count()).name("count")
    >>> report = mill.run(counts.write_csv("out/"), checkpoint="state/")
    >>> mill.checkpoints("state/")[-1].is_finished
    True
    """
    found = []
    for raw in _engine.checkpoints(local_path(path, "the state directory")):
        created = utc_moment(raw.pop("created_us"))
        found.append(CheckpointInfo(created=created, **raw))
    return found


def read_state(path: str | os.PathLike[str], *, step: str, id: int | None = None) -> Table:
    """Read the keyed state of a step as a table: a row a key, or a key and open window.

    Parameters
    ----------
    path
        The state directory.
    step
        The name of the step, as ``explain()`` and ``name()`` have it.
    id
        The number of the checkpoint; the newest unless given.

    Returns
    -------
    Table
        The key columns, the window's bounds where there are any, and the results as of that moment. Aggregates of your
        own are given as their bytes.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint or step, or the step keeps no keyed state.

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
    return Table(_engine.read_state(local_path(path, "the state directory"), step, id))


def verify(path: str | os.PathLike[str]) -> tuple[list[tuple[int, str | None]], list[str]]:
    """Read every byte of a state directory.

    Returns
    -------
    tuple
        The numbers of the checkpoints, newest first, each with what is wrong with it or None; and what else was noticed.
    """
    return _engine.verify(local_path(path, "the state directory"))
