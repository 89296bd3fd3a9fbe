"""Numbers of any class as ``int``, ``float`` or the digits of a decimal, exactly.

The compiled module asks here for what is not the plain class of a column. Each function returns the same number or raises.
Truth values are no numbers.
"""

from __future__ import annotations

import decimal
import operator
from decimal import Decimal
from typing import Any

__all__ = ["floating_number", "scaled_decimal", "whole_number"]

_DIGITS_MAX = 80
"""More digits than any decimal column has: larger numbers are refused before they are written out."""


def _refuse_truth(value: Any) -> None:
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        raise TypeError(f"{value!r} is a truth value")


def whole_number(value: Any) -> int:
    """Return the ``int`` that a number is.

    Raises
    ------
    TypeError, ValueError, OverflowError
        When it is no whole number.

    Examples
    --------
    >>> from decimal import Decimal
    >>> from millstream._numbers import whole_number
    >>> whole_number(3.0), whole_number(Decimal("12"))
    (3, 12)
    """
    _refuse_truth(value)
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "__index__"):
        return operator.index(value)
    if isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"{value!r} is a text")
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() > _DIGITS_MAX:
        raise OverflowError(f"{value!r} has too many digits")
    whole = int(value)
    if whole != value:
        raise ValueError(f"{value!r} is no whole number")
    return whole


def floating_number(value: Any) -> float:
    """Return the ``float`` that a number is; a ``Decimal`` is rounded to the nearest one.

    Raises
    ------
    TypeError, ValueError, OverflowError
        When it is no number, or no float is this number.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from millstream._numbers import floating_number
    >>> floating_number(Fraction(1, 4))
    0.25
    """
    _refuse_truth(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"{value!r} is a text")
    if isinstance(value, Decimal):
        number = float(value)
        if value.is_finite() and number in (float("inf"), float("-inf")):
            raise OverflowError(f"{value!r} is too large for a float")
        return number
    exact = operator.index(value) if hasattr(value, "__index__") else value
    number = float(exact)
    if number != exact and not (number != number and exact != exact):
        raise ValueError(f"no float is {value!r}")
    return number


def scaled_decimal(value: Any, precision: int, scale: int) -> int:
    """Return a decimal number as a whole number of its last digit.

    A float counts as the shortest decimal that is read as that float.

    Raises
    ------
    TypeError, ValueError, ArithmeticError
        When it is no number, or has more digits than the column.

    Examples
    --------
    >>> from decimal import Decimal
    >>> from millstream._numbers import scaled_decimal
    >>> scaled_decimal(Decimal("1.50"), 10, 2)
    150
    """
    _refuse_truth(value)
    with decimal.localcontext() as context:
        context.prec = _DIGITS_MAX
        # A number that the context would have to round is refused.
        context.traps[decimal.Inexact] = True
        scaled = _decimal(value).scaleb(scale)
        if scaled and scaled.adjusted() > _DIGITS_MAX:
            raise ValueError(f"{value!r} has too many digits")
        whole = int(scaled)
        if whole != scaled or abs(whole) >= 10**precision:
            raise ValueError(f"{value!r} does not fit decimal({precision}, {scale})")
    return whole


def _decimal(value: Any) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, float):
        return Decimal(repr(float(value)))
    if hasattr(value, "__index__"):
        return Decimal(operator.index(value))
    if hasattr(value, "numerator") and hasattr(value, "denominator"):
        return Decimal(value.numerator) / Decimal(value.denominator)
    if type(value).__module__ == "numpy":
        return _decimal(value.item())
    raise TypeError(f"{value!r} is not a decimal number")
