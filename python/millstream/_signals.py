"""The handling of SIGTERM while a script waits for a job."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from millstream._engine import RawJob

__all__ = ["stops_on_sigterm"]

_STATUS = 128 + signal.SIGTERM
_LOOK_US = 500_000


@contextlib.contextmanager
def stops_on_sigterm(job: RawJob) -> Iterator[None]:
    """Stop the job with a last checkpoint on SIGTERM, and then leave by SystemExit; a handler of the user's stays."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    is_asked = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal is_asked
        is_asked = True
        job.stop()

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
        # A wait with a limit may be over before the last checkpoint is.
        while is_asked and job.wait(_LOOK_US) is None:
            pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if is_asked:
        raise SystemExit(_STATUS)
