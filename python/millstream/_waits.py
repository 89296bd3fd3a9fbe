"""Waiting of a sink for what it writes to, which ends when its run does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from millstream import _live

if TYPE_CHECKING:
    from millstream._engine import RawEnding

__all__ = ["RunEnds", "Waits"]

T = TypeVar("T")

_SLICE_SECONDS = 0.05
"""How long a wait lasts before it is checked whether the run ends."""


class RunEnds(_live.Ending):
    """The job was cancelled or has failed: what is still waited for is taken up by the next recovery."""


class Waits:
    """The waits of one run of a sink.

    A thread that waits for a server cannot be woken. So a call that may wait is made on a thread of its own, and is left behind when the
    run ends. That thread is a daemon: it ends when the server answers, or with the process.

    Examples
    --------
    >>> from millstream._waits import Waits
    >>> Waits().call(lambda: 1)
    1
    """

    __slots__ = ("_ending",)

    def __init__(self) -> None:
        self._ending: RawEnding | None = None

    def begin(self, ending: RawEnding) -> None:
        """Begin a run."""
        self._ending = ending

    @property
    def are_over(self) -> bool:
        """Whether the run is to end."""
        return self._ending is not None and self._ending.is_set()

    def check(self) -> None:
        """Raise when the run, or the interpreter, is to end."""
        _live.check()
        if self.are_over:
            raise RunEnds("the job ends, and does not wait for the target any more")

    def pause(self, seconds: float) -> None:
        """Wait for this time."""
        end = time.monotonic() + seconds
        while True:
            self.check()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _SLICE_SECONDS))

    def call(self, function: Callable[[], T]) -> T:
        """Call a function that may wait; if the run ends, it continues and nobody waits for it."""
        self.check()
        results: list[T] = []
        errors: list[BaseException] = []
        is_done = threading.Event()

        def run() -> None:
            try:
                results.append(function())
            except BaseException as error:
                errors.append(error)
            finally:
                is_done.set()

        threading.Thread(target=run, name="millstream-request", daemon=True).start()
        while not is_done.wait(_SLICE_SECONDS):
            self.check()
        if errors:
            # Without a cycle of the exception, its traceback and this frame.
            raise errors.pop()
        return results[0]
