"""Conversions that the compiled module leaves to Python's own library: time zones and decimals."""

from __future__ import annotations

import re
from datetime import timedelta, timezone, tzinfo
from decimal import Decimal, localcontext

__all__ = ["scaled_decimal", "zone"]

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


def scaled_decimal(value: object, precision: int, scale: int) -> int:
    """Give a decimal number as a whole number of its last digit, and refuse what would lose digits."""
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float, Decimal)):
        raise TypeError(f"{value!r} is no decimal number")
    with localcontext() as context:
        context.prec = 80
        scaled = Decimal(repr(value) if isinstance(value, float) else value).scaleb(scale)
        whole = int(scaled)
        if whole != scaled or abs(whole) >= 10**precision:
            raise ValueError(f"{value!r} does not fit decimal({precision}, {scale})")
    return whole
