"""The name that was probably meant."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest", "with_nearest"]


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like one, or None if none is like it.

    Examples
    --------
    >>> from millstream._nearest import nearest
    >>> nearest("od", ["even", "odd"])
    'odd'
    """
    return _nearest(name, tuple(names))


@functools.lru_cache(maxsize=256)
def _nearest(name: str, names: tuple[str, ...]) -> str | None:
    # Only who makes a mistake pays for it.
    import difflib

    found = difflib.get_close_matches(name.lower(), [each.lower() for each in names], 1, 0.65)
    return next((each for each in names if each.lower() in found), None)


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """Return ``; did you mean 'odd'?``, or nothing if no name is like the one that was given."""
    found = nearest(name, names) if isinstance(name, str) else None
    return "" if found is None else f"; did you mean {found!r}?"


_MISSING = re.compile(r"'(\w+)' object has no attribute '(\w+)'")


def with_nearest(error: BaseException, kinds: Iterable[type]) -> None:
    """Add the name that was probably meant to an AttributeError of an object of these kinds.

    The interpreter does so only where it prints an exception that nobody has caught, and not for names that were set.
    """
    if not isinstance(error, AttributeError):
        return
    found = _MISSING.match(str(error))
    kind = None if found is None else next((kind for kind in kinds if kind.__name__ == found[1]), None)
    if found is None or kind is None:
        return
    hint = did_you_mean(found[2], (name for name in dir(kind) if not name.startswith("_")))
    if hint:
        error.args = (f"{error}{hint}",)
        # Else the interpreter would say it again.
        error.name = None
