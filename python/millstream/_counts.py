"""Checks of whole numbers from users: how many rows, tasks, checkpoints."""

from __future__ import annotations

from typing import Any

from millstream.errors import PlanError

__all__ = ["COUNT_MAX", "count"]

COUNT_MAX = 2**64 - 1
"""The largest number that the engine counts to."""


def count(value: Any, what: str, least: int = 0, most: int = COUNT_MAX) -> int:
    """Return a whole number that is in range.

    Parameters
    ----------
    value
        The argument.
    what
        The start of the message, such as ``"limit() takes a number of rows"``.
    least, most
        The range.

    Raises
    ------
    PlanError
        When it is no whole number, or out of range.

    Examples
    --------
    >>> from millstream._counts import count
    >>> count(3, "limit() takes a number of rows")
    3
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise PlanError(f"{what}, not {value!r:.80}")
    if value > most:
        raise PlanError(f"{what}, at most {most}, not {_shown(value)}")
    return value


def _shown(value: int) -> str:
    """Return the digits of a number, of a very large one only how many bits it has."""
    return str(value) if value.bit_length() <= 512 else f"a number of {value.bit_length()} bits"
