"""Looking into checkpoints: which there are, and what a step remembers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from millstream import _engine
from millstream.table import Table

__all__ = ["CheckpointInfo", "StepState", "checkpoints", "read_state", "verify"]


@dataclass(frozen=True)
class StepState:
    """What a checkpoint holds of one step.

    Attributes
    ----------
    name
        The step.
    signature
        What has to stay the same for the state to be used again.
    parallelism
        How many parallel tasks it had.
    bytes
        How large its state is, and how much of it this checkpoint wrote.
    """

    name: str
    signature: str
    parallelism: int
    bytes: int


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint in a state directory.

    Attributes
    ----------
    id
        Its number.
    created
        When it was taken.
    bytes
        How much it wrote.
    is_savepoint, is_finished
        Whether it was asked for by you; whether the job had come to its end.
    steps
        What it holds of each step.
    """

    id: int
    created: datetime
    bytes: int
    is_savepoint: bool
    is_finished: bool
    steps: list[StepState]


def checkpoints(path: str | os.PathLike[str]) -> list[CheckpointInfo]:
    """List the checkpoints in a state directory, oldest first.

    Examples
    --------
    >>> counts = mill.generate(rows=100, k=mill.index() % 3).key_by("k").agg(n=mill.count(), emit="checkpoint").name("count")
    >>> report = mill.run(counts.for_each(lambda row: None), checkpoint="state/")
    >>> mill.checkpoints("state/")[-1].is_finished
    True
    """
    return [_info(raw) for raw in _engine.checkpoints(os.fspath(path))]


def _info(raw: dict[str, Any]) -> CheckpointInfo:
    created = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=raw["created_us"])
    steps = [StepState(*step) for step in raw["steps"]]
    return CheckpointInfo(raw["id"], created, raw["bytes"], raw["is_savepoint"], raw["is_finished"], steps)


def read_state(path: str | os.PathLike[str], *, step: str, id: int | None = None) -> Table:
    """Give the keyed state of a step as a table: the key and what is remembered of it.

    Parameters
    ----------
    path
        A state directory or savepoint.
    step
        The name of the step.
    id
        The checkpoint; by default the newest that verifies.

    Examples
    --------
    >>> counts = mill.generate(rows=100, k=mill.index() % 3).key_by("k").agg(n=mill.count(), emit="checkpoint").name("count")
    >>> report = mill.run(counts.for_each(lambda row: None), checkpoint="state/")
    >>> sorted(mill.read_state("state/", step="count")["k"])
    [0, 1, 2]
    """
    return Table(_engine.read_state(os.fspath(path), step, id))


def verify(path: str | os.PathLike[str]) -> list[tuple[int, str | None]]:
    """Read every byte of every checkpoint; give their numbers, each with what is wrong with it or None."""
    return _engine.verify(os.fspath(path))
