"""The event loop of asynchronous functions: one for the process, on a thread of its own.

It begins with the first step that needs it and stays until the interpreter ends. So a client that a module makes once, and that
belongs to the loop it was first used on, serves every job of the process. A forked child has a loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from millstream import _live
from millstream.errors import PlanError

__all__ = ["CLOSING_SECONDS_MAX", "Loop"]

CLOSING_SECONDS_MAX = 1.0
"""How long calls that are given up have to clean up after themselves."""

T = TypeVar("T")


class Loop:
    """An event loop that runs on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="millstream-async", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._is_over:
                # An exit in one task must not end the calls of all jobs. Whoever awaits the task gets it, as any other exception.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    self._loop.run_forever()
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        left = asyncio.all_tasks(self._loop)
        for task in left:
            # One that is cleaning up already is not disturbed.
            if not task.cancelling():
                task.cancel()
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            if left:
                self._loop.run_until_complete(asyncio.wait(left, timeout=CLOSING_SECONDS_MAX))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        self._loop.close()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the thread of the loop, soon; does not wait for it."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def result(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for its result, from another thread."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise PlanError("an asynchronous function of a job waits for itself here; pass schema=, or call this with asyncio.to_thread()")
        running = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return running.result()
        except BaseException:
            # Who waits may have been interrupted.
            running.cancel()
            raise

    def end(self) -> None:
        """Cancel the calls that still run, and end the thread, if it reacts to that."""
        self._is_over = True
        self.call(self._loop.stop)
        self._thread.join(2 * CLOSING_SECONDS_MAX)

    @staticmethod
    def of_process() -> Loop:
        """Return the loop of the process."""
        global _current
        with _lock:
            if _current is None:
                _current = Loop()
                # After the jobs: a call that is given up while its job runs would be a record that failed.
                _live.after_jobs(_current.end)
            return _current


_lock = threading.Lock()
_current: Loop | None = None


def _forget() -> None:
    """In a forked child: the thread of the loop is the parent's, and so is what the loop waits by."""
    global _current, _lock
    if _current is not None:
        # Closing it here, as happens to a loop that nothing refers to, would stop the parent's: both share one epoll.
        with contextlib.suppress(AttributeError):
            _current._loop._closed = True  # type: ignore[attr-defined]
    _current, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
