"""Times and missing values of numpy and pandas, exactly.

The compiled module asks here for what is no object of Python's own. Neither library is imported: a value is known by the
module of its type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from millstream.errors import SchemaError

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = ["check_frame", "count", "is_missing", "unit_of"]

_PER_SECOND: dict[str, tuple[int, int]] = {
    "W": (1, 7 * 86_400),
    "D": (1, 86_400),
    "h": (1, 3_600),
    "m": (1, 60),
    **{unit: (10**digits, 1) for unit, digits in {"s": 0, "ms": 3, "us": 6, "ns": 9, "ps": 12, "fs": 15, "as": 18}.items()},
}
"""How many of a unit of numpy's a second has, as a fraction."""

_COLUMN_UNITS = {"W": "date", "D": "date", "Y": "date", "M": "date", "h": "s", "m": "s", "s": "s", "ms": "ms", "us": "us"}


def _library(value: Any) -> str:
    return type(value).__module__.split(".")[0]


def is_missing(value: Any) -> bool:
    """Report whether a value is what numpy or pandas have for none: ``NaT``, ``pandas.NA``.

    Examples
    --------
    >>> import numpy as np
    >>> from millstream._foreign import is_missing
    >>> is_missing(np.datetime64("NaT", "s")), is_missing(float("nan"))
    (True, False)
    """
    library = _library(value)
    if library == "pandas":
        return type(value).__name__ in ("NaTType", "NAType")
    return library == "numpy" and type(value).__name__ in ("datetime64", "timedelta64") and str(value) == "NaT"


def check_frame(frame: Any, place: str) -> None:
    """Refuse a frame with columns that its library hands over as something else than they are.

    Polars exports objects as their addresses, and pandas lets pyarrow make one type of a column of objects: texts become
    bytes beside bytes, and times without a zone become times of UTC beside times with one.

    Parameters
    ----------
    frame
        A frame or column of polars or pandas; anything else is ignored.
    place
        Who asks, for the message.

    Raises
    ------
    SchemaError
        With the first such column.

    Examples
    --------
    >>> import polars as pl
    >>> from millstream._foreign import check_frame
    >>> check_frame(pl.DataFrame({"x": pl.Series([{1}, {2}], dtype=pl.Object)}), "from_arrow()")
    Traceback (most recent call last):
    millstream.errors.SchemaError: from_arrow(): column "x" holds Python objects, which polars exports as their addresses; ...
    """
    library, name = _library(frame), type(frame).__name__
    if library == "polars" and name in ("DataFrame", "Series"):
        for column in frame.get_columns() if name == "DataFrame" else [frame]:
            if str(column.dtype) == "Object":
                raise SchemaError(
                    f'{place}: column "{column.name}" holds Python objects, which polars exports as their addresses; '
                    "pass them to from_iter() with the type object, or make a column of another type of them"
                )
    elif library == "pandas" and name in ("DataFrame", "Series"):
        columns = frame.items() if name == "DataFrame" else [(frame.name, frame)]
        for label, column in columns:
            if str(column.dtype) == "object":
                _check_objects(column, f'{place}: column "{label}"')


def _check_objects(values: Any, place: str) -> None:
    """Refuse objects of kinds that pyarrow would make alike without a word."""
    types = set(map(type, values))
    of = {base: any(issubclass(found, base) for found in types) for base in (str, bytes, set, frozenset, datetime, int)}
    if of[str] and of[bytes]:
        raise SchemaError(f"{place} mixes texts and bytes; make them alike before, as in df[name].astype(str)")
    if of[set] or of[frozenset]:
        raise SchemaError(f"{place} holds sets, which Arrow does not have; make lists of them, as in df[name].map(sorted)")
    if of[datetime]:
        times = [value for value in values if isinstance(value, datetime) and not is_missing(value)]
        if len({value.tzinfo is None for value in times}) > 1:
            raise SchemaError(f"{place} mixes times with a zone and times without one; give all of them one, or none")
        if any(issubclass(found, date) and not issubclass(found, datetime) for found in types):
            raise SchemaError(f"{place} mixes dates and times; make them alike before, as in pd.to_datetime(df[name])")
    for row, value in _leaves(values):
        if isinstance(value, time) and value.tzinfo is not None:
            raise SchemaError(
                f"{place}, row {row}: {value!r} has a zone, which times of day in Arrow do not have; take it off, as in "
                "df[name].map(lambda t: t.replace(tzinfo=None))"
            )
        unit = unit_of(value) if isinstance(value, (datetime, timedelta)) and not is_missing(value) else None
        if unit is not None and unit[1] == "ns":
            function = "to_timedelta" if unit[0] else "to_datetime"
            raise SchemaError(
                f"{place}, row {row}: {value!r} has nanoseconds, which pyarrow cuts off in a column of objects; make it a "
                f"column of times, as in pd.{function}(df[name])"
            )
    if of[datetime]:
        zoned = [(row, value) for row, value in enumerate(values) if isinstance(value, datetime) and not is_missing(value)]
        other = next((found for found in zoned if str(found[1].tzinfo) != str(zoned[0][1].tzinfo)), None)
        if other is not None:
            raise SchemaError(
                f"{place}, row {other[0]}: the time has the zone {other[1].tzinfo}, and that of row {zoned[0][0]} has "
                f"{zoned[0][1].tzinfo}; give all of them one, as in pd.to_datetime(df[name], utc=True)"
            )
    if of[int]:
        large = next((value for value in values if isinstance(value, int) and not -(2**63) <= value < 2**64), None)
        if large is not None:
            raise SchemaError(f"{place} holds {large!r:.80}, which has more than 64 bits; make texts or decimals of the column")


def _leaves(values: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Iterate over the values of a column and those within its lists and dicts, each with its row."""
    for row, value in enumerate(values):
        open_values = [value]
        while open_values:
            found = open_values.pop()
            if isinstance(found, dict):
                open_values.extend(found.values())
            elif isinstance(found, (list, tuple)):
                open_values.extend(found)
            else:
                yield row, found


def unit_of(value: Any) -> tuple[bool, str] | None:
    """Return whether a time of numpy's or pandas' is a length, and the unit of a column that holds it exactly.

    Parameters
    ----------
    value
        Any value.

    Returns
    -------
    tuple or None
        Whether it is a length of time, and ``"date"``, ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``; None for any other value.
    """
    library, name = _library(value), type(value).__name__
    if library == "pandas" and name in ("Timestamp", "Timedelta"):
        nanoseconds = value.nanosecond if name == "Timestamp" else value.nanoseconds
        return name == "Timedelta", "ns" if nanoseconds else "us"
    if library == "numpy" and name in ("datetime64", "timedelta64"):
        unit = _numpy_unit(value)[0]
        is_length = name == "timedelta64"
        found = _COLUMN_UNITS.get(unit, "ns")
        return is_length, "s" if is_length and found == "date" else found
    return None


def count(value: Any, unit: str) -> int:
    """Return how many units from 1970, or how many units long, a time of numpy's or pandas' is.

    Parameters
    ----------
    value
        A ``numpy.datetime64`` or ``timedelta64``, a ``pandas.Timestamp`` or ``Timedelta``.
    unit
        ``"date"``, ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``.

    Raises
    ------
    TypeError
        When it is no such value.
    ValueError
        When it is not a whole number of units.

    Examples
    --------
    >>> import numpy as np
    >>> from millstream._foreign import count
    >>> count(np.datetime64("1970-01-02"), "s")
    86400
    """
    if is_missing(value):
        raise TypeError("it is missing")
    scaled = _seconds(value) * _per_second("D" if unit == "date" else unit)
    if scaled.denominator != 1:
        raise ValueError(
            "it has a time of day" if unit == "date" else 'it has digits below that unit; declare a finer one, such as mill.Timestamp("ns")'
        )
    return scaled.numerator


def _per_second(unit: str) -> Fraction:
    from fractions import Fraction

    return Fraction(*_PER_SECOND[unit])


def _seconds(value: Any) -> Fraction:
    from fractions import Fraction

    library, name = _library(value), type(value).__name__
    if library == "pandas" and name == "Timestamp":
        plain = value.to_pydatetime(warn=False)
        epoch = datetime(1970, 1, 1, tzinfo=None if plain.tzinfo is None else timezone.utc)
        return _of_delta(plain - epoch) + Fraction(value.nanosecond, 10**9)
    if library == "pandas" and name == "Timedelta":
        return _of_delta(timedelta(value.days, value.seconds, value.microseconds)) + Fraction(value.nanoseconds, 10**9)
    if library == "numpy" and name in ("datetime64", "timedelta64"):
        return _of_numpy(value)
    if isinstance(value, (int, float, Decimal)) or library == "numpy":
        raise TypeError("a bare number is not a time; pass a datetime, date or timedelta, or make it a column of numbers and cast() that")
    raise TypeError("it is not a time")


def _of_delta(delta: timedelta) -> Fraction:
    from fractions import Fraction

    return delta.days * 86_400 + delta.seconds + Fraction(delta.microseconds, 10**6)


def _numpy_unit(value: Any) -> tuple[str, int]:
    import numpy as np

    unit, step = np.datetime_data(value.dtype)
    return str(unit), int(step)


def _of_numpy(value: Any) -> Fraction:
    unit, step = _numpy_unit(value)
    ticks = int(value.astype("int64")) * step
    if unit in _PER_SECOND:
        return ticks / _per_second(unit)
    if type(value).__name__ == "timedelta64" or unit not in ("Y", "M"):
        raise ValueError("it has no fixed length; use a unit from weeks to nanoseconds")
    return _days(ticks * 12 if unit == "Y" else ticks) / _per_second("D")


def _days(months: int) -> int:
    """Count the days from 1970-01-01 to the first of a month, in the proleptic Gregorian calendar."""
    year, month = divmod(months, 12)
    year += 1970
    # Years that begin in March end with the day that only some of them have.
    year -= month < 2
    of_year = (153 * ((month + 10) % 12) + 2) // 5
    return year * 365 + year // 4 - year // 100 + year // 400 + of_year - 719_468
