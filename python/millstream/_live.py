"""Jobs that still run when the interpreter ends: they are cancelled before, because their threads cannot outlive it. One that was told to
stop may stop first."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from millstream._engine import end_interpreter, engine_threads, interrupt_threads

__all__ = ["Ending", "after_jobs", "check", "held", "hold", "say_busy", "say_dropped"]

_STOP_SECONDS_MAX = 3.0
"""How long jobs that were told to stop have for their last checkpoint."""
_CALM_SECONDS_MAX = 0.6
"""How long the others have to end by themselves."""
_INTERRUPTED_SECONDS_MAX = 0.3
"""How long they have after the functions that they are in were interrupted."""
_BUSY_SECONDS_MAX = 0.1
"""How long is waited for functions whose job is not waited for."""
_PAUSE_SECONDS = 0.005
_PACKAGE = str(Path(__file__).parent)


class Ending(BaseException):
    """The interpreter ends: a function of the user's is not called any more."""


class Endable(Protocol):
    """A job, or whatever holds one."""

    def cancel(self) -> None:
        """Ask it to end; returns at once."""

    def _is_stopping(self) -> bool:
        """Return whether it was told to stop, and not to cancel since."""

    def ends(self, seconds_max: float) -> bool:
        """Wait until its threads are gone, unless it was let go; return whether there is nothing left to wait for."""

    def let_go(self) -> None:
        """Wait for it no more."""


is_ending = False
_held: weakref.WeakSet[Any] = weakref.WeakSet()
_last: list[Callable[[], None]] = []
_said: set[int] = set()
"""The threads whose functions were named as not waited for."""


def hold(job: Endable) -> None:
    """Register a job to be cancelled before the interpreter ends; this does not keep it alive."""
    _held.add(job)


def held() -> list[Any]:
    """Return what was given to :func:`hold` and is still referred to."""
    return list(_held)


def say_dropped(was_stopping: bool) -> None:
    """Log that a job was cancelled because nothing referred to it any more, and whether it had been told to stop."""
    import logging

    # At the end of the interpreter all jobs are, and nobody has to be told.
    if not is_ending:
        logging.getLogger("millstream").warning(
            "a job that was told to stop and had not ended after 3 s has been cancelled, as nothing refers to it any more: call its wait()"
            if was_stopping
            else "a job that was running has been cancelled, as nothing refers to it any more: keep what mill.start() returns, and call its "
            "stop() and wait()"
        )


def after_jobs(end: Callable[[], None]) -> None:
    """See to it that this is called when the interpreter ends, once no job calls a function any more."""
    _last.append(end)


def check() -> None:
    """Raise when the interpreter ends."""
    if is_ending:
        raise Ending


def say_busy() -> None:
    """Report on stderr, once each, which functions of the user's the engine is still in, and that they are not waited for."""
    busy = _busy()
    inside = "; ".join(sorted({place for thread, place in busy.items() if thread not in _said}))
    # The number of a thread that is gone may be that of a new one.
    _said.intersection_update(busy)
    _said.update(busy)
    if inside and sys.stderr is not None:
        # A stream that is closed cannot be told, and nothing else can be done about it.
        with contextlib.suppress(OSError, ValueError):
            print(f"millstream: not waiting for what a job is still in: {inside}", file=sys.stderr, flush=True)


def _busy() -> dict[int, str]:
    """Name the function of the user's that each of the engine's threads is in."""
    frames = sys._current_frames()
    return {thread: _place(frames[thread]) for thread in engine_threads() if thread in frames}


def _place(frame: FrameType | None) -> str:
    """Name the outermost function that is not the engine's: the one that the engine called."""
    place = "a call of the engine"
    while frame is not None:
        code = frame.f_code
        # Loops that the package has written itself are not the user's either.
        if not code.co_filename.startswith((_PACKAGE, "<millstream")):
            place = f"{code.co_qualname} ({code.co_filename}, line {frame.f_lineno})"
        frame = frame.f_back
    return place


def _end() -> None:
    global is_ending
    jobs: list[Endable] = list(_held)
    # Functions of theirs may still be called, so this comes before anything is refused.
    with contextlib.suppress(KeyboardInterrupt):
        _wait_for([job for job in jobs if job._is_stopping()], _STOP_SECONDS_MAX)
    is_ending = True
    # Ctrl-C means that nothing is waited for any more; what is said of it here would only be noise.
    try:
        for job in jobs:
            job.cancel()
        if not _have_ended(jobs, _CALM_SECONDS_MAX):
            interrupt_threads(Ending)
            if not _have_ended(jobs, _INTERRUPTED_SECONDS_MAX):
                say_busy()
    except KeyboardInterrupt:
        pass
    finally:
        for job in jobs:
            job.let_go()
        end_interpreter()
        # A second Ctrl-C waits for nothing.
        with contextlib.suppress(KeyboardInterrupt):
            for end in _last:
                end()


def _wait_for(jobs: list[Endable], seconds_max: float) -> bool:
    until = time.monotonic() + seconds_max
    have_ended = [job.ends(max(0.0, until - time.monotonic())) for job in jobs]
    return all(have_ended)


def _have_ended(jobs: list[Endable], seconds_max: float) -> bool:
    """Wait for jobs, and for whatever else the engine's threads do in the interpreter, such as to start a job."""
    until = time.monotonic() + seconds_max
    have_ended = _wait_for(jobs, seconds_max)
    until = min(until, time.monotonic() + _BUSY_SECONDS_MAX)
    while _busy() and time.monotonic() < until:
        time.sleep(_PAUSE_SECONDS)
    return have_ended and not _busy()


def _forget() -> None:
    """In a forked child: the jobs are the parent's, and so are their threads."""
    global _held
    _held = weakref.WeakSet()
    _last.clear()


atexit.register(_end)
os.register_at_fork(after_in_child=_forget)
