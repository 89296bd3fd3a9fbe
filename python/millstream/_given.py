"""Parameters of a script, set by ``millstream run --set name=value``."""

from __future__ import annotations

import os
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeVar, overload

from millstream._nearest import did_you_mean
from millstream._texts import with_article
from millstream.errors import PlanError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["give", "parameter", "refuse_unread", "unread"]

_T = TypeVar("_T", str, int, float, bool, Decimal, timedelta, "Path")

_REQUIRED: Any = object()
"""In the place of a default, where there is none."""
_given: dict[str, str] = {}
"""What was given, by name."""
_asked: set[str] = set()
"""The parameters that the script has asked for."""
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def give(settings: list[str]) -> None:
    """Set the parameters from the command line: texts ``name=value``, which replace all earlier ones."""
    found: dict[str, str] = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator or not name.isidentifier():
            raise PlanError(f"--set takes name=value, as in --set input=clicks/, not {setting!r:.200}")
        if name in found:
            raise PlanError(f"--set {name}=… is set twice")
        found[name] = value
    _given.clear()
    _asked.clear()
    _given.update(found)


def unread() -> list[str]:
    """Return the names of what was given and has not been asked for."""
    return [name for name in _given if name not in _asked]


def refuse_unread() -> None:
    """Refuse what was given and not asked for before the first job starts: it is misspelt, or would do nothing."""
    for name in unread():
        meant = did_you_mean(name, _asked)
        there = f" (it asks for {', '.join(sorted(_asked))})" if _asked else ""
        raise PlanError(f"--set {name}=…: the script asks for no parameter {name!r} before its first job{meant}{there}")


@overload
def parameter(name: str) -> str: ...
@overload
def parameter(name: str, default: None) -> str | None: ...
@overload
def parameter(name: str, default: _T) -> _T: ...
def parameter(name: str, default: Any = _REQUIRED) -> Any:
    """Return a parameter of the script, which ``millstream run --set name=value`` sets.

    Parameters
    ----------
    name
        The name, as Python has them.
    default
        The value where the command line does not set it, as where the script is run with ``python``. Its type is that of the
        result: text, a whole number, a float, a truth value, a ``Decimal``, a ``timedelta`` (given as ``1m30s``) or a ``Path``.
        A parameter without a default has to be set, and is text.

    Raises
    ------
    PlanError
        When a parameter without a default is not set, the value given is not one of its type, or the default is of another
        type than these.

    Notes
    -----
    A job does not start while ``--set`` names a parameter that the script has not asked for: ask for all of them before the
    first job.

    Examples
    --------
    >>> mill.parameter("input", "clicks/")
    'clicks/'
    >>> mill.parameter("batch", 100)
    100
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise PlanError(f'parameter() takes a name such as "input", not {name!r:.200}')
    _asked.add(name)
    value = None if default is _REQUIRED else default
    from pathlib import Path

    if value is not None and not isinstance(value, (str, int, float, Decimal, timedelta, Path)):
        raise PlanError(
            f"parameter({name!r}): a default is text, a number, a truth value, a Decimal, a timedelta or a Path, not {value!r:.200}"
        )
    if name not in _given:
        if default is _REQUIRED:
            raise PlanError(f"parameter({name!r}) has no default and is not set: run the script with millstream run --set {name}=…")
        return value
    given = _given[name]
    try:
        return given if value is None else _converted(given, value)
    except (ValueError, InvalidOperation, PlanError):
        kind = type(value).__name__
        raise PlanError(f"--set {name}={given:.200}: expected {with_article(kind)}") from None


def _converted(given: str, like: Any) -> Any:
    """Return a text as a value of the type of another."""
    if isinstance(like, bool):
        truth = _TRUTHS.get(given.lower())
        if truth is None:
            raise ValueError(given)
        return truth
    if isinstance(like, timedelta):
        from millstream.time import microseconds

        return timedelta(microseconds=microseconds(given, "parameter()"))
    if isinstance(like, os.PathLike):
        from pathlib import Path

        return Path(given).expanduser()
    return type(like)(given)
