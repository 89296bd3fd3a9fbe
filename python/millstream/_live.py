"""What still runs when the interpreter ends: jobs are cancelled before it goes, as their threads cannot outlive it."""

from __future__ import annotations

import atexit
import time
import weakref
from typing import Any, Protocol

__all__ = ["Ending", "check", "hold", "reading"]

_JOB_SECONDS_MAX = 3.0
_READERS_SECONDS_MAX = 0.5


class Ending(BaseException):
    """The interpreter ends: a function of the user's is not called any more."""


class Endable(Protocol):
    """A job, or whatever holds one."""

    def end(self, seconds_max: float) -> None:
        """Cancel it and wait until its threads are gone."""


is_ending = False
#: The threads that are inside a source of the user's now.
reading: set[int] = set()
_held: weakref.WeakSet[Any] = weakref.WeakSet()


def hold(job: Endable) -> None:
    """See to it that a job is cancelled before the interpreter ends; it is not kept alive by this."""
    _held.add(job)


def check() -> None:
    """Raise when the interpreter ends."""
    if is_ending:
        raise Ending


def _end() -> None:
    global is_ending
    is_ending = True
    for job in list(_held):
        job.end(_JOB_SECONDS_MAX)
    # A reader that has just been let go needs a moment; one that blocks in the user's code cannot be helped.
    until = time.monotonic() + _READERS_SECONDS_MAX
    while reading and time.monotonic() < until:
        time.sleep(0.005)


atexit.register(_end)
