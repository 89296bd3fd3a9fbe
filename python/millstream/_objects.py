"""Python objects in records that are shown: dead letters and messages."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["to_json"]

_REPR_CHARACTERS_MAX = 10_000


def to_json(value: Any) -> str:
    """Return an object as JSON: its own values where JSON has them, otherwise what ``repr`` returns, as a text.

    >>> import datetime
    >>> from millstream._objects import to_json
    >>> to_json({"a": [1, None], "at": datetime.date(2024, 1, 31)})
    '{"a":[1,null],"at":"2024-01-31"}'
    >>> to_json({1, 2})
    '"{1, 2}"'
    """
    try:
        shown = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    except Exception:
        # Keys of other types, NaN, an object that holds itself, or a class with a fault of its own.
        shown = json.dumps(_repr(value), ensure_ascii=False)
    # A lone surrogate has no UTF-8; as an escape it is JSON.
    return shown.encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> str:
    """Return a value that JSON does not have as text: times in ISO 8601, others as ``repr`` shows them."""
    isoformat = getattr(value, "isoformat", None)
    return str(isoformat()) if callable(isoformat) else _repr(value)


def _repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:
        return f"<a {type(value).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= _REPR_CHARACTERS_MAX else f"{text[:_REPR_CHARACTERS_MAX]}…"
