"""Time zones, which the compiled module leaves to Python's own library."""

from __future__ import annotations

import re
from datetime import timedelta, timezone, tzinfo

from millstream.errors import SchemaError

__all__ = ["zone"]

_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")


def zone(name: str) -> tzinfo:
    """Return the time zone with this name, or with an offset like ``+02:00``."""
    offset = _OFFSET.fullmatch(name)
    if offset is None:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise SchemaError(
                f'{name!r} is no time zone that Python knows; take the times in one that it does, as in dt.convert_time_zone("UTC")'
            ) from error
    sign, hours, minutes = offset.groups()
    length = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-length if sign == "-" else length)
