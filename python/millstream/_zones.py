"""Time zones, which the compiled module leaves to Python's own library."""

from __future__ import annotations

import re
from datetime import timedelta, timezone, tzinfo

__all__ = ["zone"]

_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")


def zone(name: str) -> tzinfo:
    """Give the time zone with this name, or with an offset like ``+02:00``."""
    offset = _OFFSET.fullmatch(name)
    if offset is None:
        from zoneinfo import ZoneInfo

        return ZoneInfo(name)
    sign, hours, minutes = offset.groups()
    length = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-length if sign == "-" else length)
