"""Calls of ``close()`` of user objects, whose exceptions are logged."""

from __future__ import annotations

from collections.abc import Callable

from millstream._live import Ending

__all__ = ["closed"]


def closed(close: Callable[[], object], step: str) -> None:
    """Call a ``close()`` of the user's; what it raises is logged with its traceback.

    The engine closes objects as their task goes away, when the outcome of the job is decided: nothing can be raised any more.
    """
    try:
        close()
    except Ending:
        raise
    except BaseException as error:
        import logging

        raised = f"{type(error).__name__}: {error}".removesuffix(": ")
        logging.getLogger("millstream").warning("%s: close() raised %s", step, raised, exc_info=error)
