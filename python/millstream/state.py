"""Looking into checkpoints: which there are, and whether they are whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from millstream import _engine

__all__ = ["CheckpointInfo", "checkpoints", "verify"]


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
    for raw in _engine.checkpoints(os.fspath(path)):
        created = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=raw.pop("created_us"))
        found.append(CheckpointInfo(created=created, **raw))
    return found


def verify(path: str | os.PathLike[str]) -> tuple[list[tuple[int, str | None]], list[str]]:
    """Read every byte of a state directory.

    Returns
    -------
    tuple
        The numbers of the checkpoints, newest first, each with what is wrong with it or None; and what else was noticed.
    """
    return _engine.verify(os.fspath(path))
