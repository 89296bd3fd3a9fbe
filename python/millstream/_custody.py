"""Which output of a job a target has, known from marks that are written together with the output.

A sink that writes an epoch and a mark of it in one transaction can ask the target after a crash whether it has the epoch. This module
decides what the answer means.

A *run* is one start of a job, or one restart. It has a random name, so epochs of two runs are never mistaken for each other, even where both have
the same number. A mark is a run and an epoch. The target keeps for each run the newest epoch that it shows::

    shown(run)   the newest epoch of the run; None: nothing of it; CLOSED: another run has continued from it

The handle of an epoch, which the checkpoint keeps, has the mark of the epoch and the newest mark that was known to be shown when it was made. A
run that continues from a checkpoint closes the run before it with its first commit. So there is at most one run that can commit, and:

==========================  =========================================================================================
shown(own run)              what it means for the handle of epoch *e*
==========================  =========================================================================================
e                           the target has the epoch: nothing to do
less than e, or nothing     the target lacks the epoch: commit it, provided that the target still shows the known mark
more than e                 a later epoch, unknown to the restored checkpoint, was committed: it would be repeated
closed                      another run has continued from here: this one must not write any more
==========================  =========================================================================================

A target that lacks the known mark was lost, or restored from an older backup.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from millstream.errors import CheckpointError

__all__ = ["CLOSED", "Custody", "Mark"]

CLOSED = 2**62
"""The epoch of a run that another one has gone on from: later than all others."""

Shown = Callable[[str], int | None]
"""Returns the newest epoch of a run that the target shows."""


@dataclass(frozen=True)
class Mark:
    """What a handle says of its epoch."""

    run: str
    epoch: int
    known: tuple[str, int] | None
    """The newest mark that the target was known to show."""

    def to_json(self) -> list[Any]:
        """Return what JSON can hold."""
        return [self.run, self.epoch, self.known]

    @staticmethod
    def from_json(given: Sequence[Any]) -> Mark:
        """Return the mark that was stored."""
        run, epoch, known = given
        return Mark(run, epoch, None if known is None else (known[0], known[1]))


class Custody:
    """The marks of one sink.

    Examples
    --------
    >>> from millstream._custody import Custody
    >>> custody = Custody("the table")
    >>> custody.begin("exactly_once")
    >>> mark = custody.mark(1)
    >>> custody.is_shown(mark, lambda run: None, newest=1)
    False
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._known: tuple[str, int] | None = None
        self.begin("exactly_once")

    def begin(self, delivery: str) -> None:
        """Begin a run under a name of its own."""
        self._run = f"millstream-{uuid.uuid4().hex}"
        self._known = None
        self._is_exact = delivery == "exactly_once"

    def mark(self, epoch: int) -> Mark:
        """Return the mark of an epoch of this run."""
        return Mark(self._run, epoch, self._known)

    def is_shown(self, mark: Mark, shown: Shown, *, newest: int) -> bool:
        """Return whether the target has an epoch; if not, it may be committed.

        Parameters
        ----------
        mark
            The mark of the epoch.
        shown
            Asks the target.
        newest
            The newest epoch that is asked about together with this one.

        Raises
        ------
        CheckpointError
            When the target does not show what it must, or shows what it must not.
        """
        own = shown(mark.run)
        if own is not None:
            self._check_open(own)
            if own > newest and self._is_exact:
                raise self._later(own, newest)
            if own >= mark.epoch:
                return True
        if mark.known is None:
            return False
        run, epoch = mark.known
        if run != mark.run and own is not None:
            # This run has committed, and closed the one before.
            return False
        before = own if run == mark.run else shown(run)
        if before is None or before < epoch:
            raise CheckpointError(
                f"{self._target} lacks output that the checkpoint knows to be committed (epoch {epoch}): it was lost or put "
                "back from an older copy, or another run of this job has gone on from the same checkpoint; put it back, or start with "
                "a new checkpoint path"
            )
        self._check_open(before)
        # Of the own run, epochs between the known one and this one may have come meanwhile.
        if run != mark.run and before > epoch and self._is_exact:
            raise self._later(before, epoch)
        return False

    def closes(self, mark: Mark) -> str | None:
        """Return the run that is closed with the commit of this mark."""
        return None if mark.known is None or mark.known[0] == mark.run else mark.known[0]

    def committed(self, mark: Mark) -> None:
        """Learn that the target shows a mark."""
        self._known = (mark.run, mark.epoch)

    def restored(self, mark: Mark, shown: Shown) -> None:
        """Continue from the newest handle of a checkpoint, all of whose handles were committed."""
        epoch = shown(mark.run)
        self._known = mark.known if epoch is None else (mark.run, epoch)

    def _check_open(self, epoch: int) -> None:
        if epoch >= CLOSED:
            raise CheckpointError(
                f"another run of this job has gone on from the same checkpoint and written to {self._target}; a job runs once "
                "at a time: end the other one, or start this one with a new checkpoint path"
            )

    def _later(self, found: int, restored: int) -> CheckpointError:
        return CheckpointError(
            f"{self._target} has output of epoch {found}, later than checkpoint {restored}, which was restored, and it would "
            "come again; put the newer checkpoint back, or remove that output and start with a new checkpoint path"
        )
