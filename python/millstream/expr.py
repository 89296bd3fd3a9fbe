"""Column expressions, with the names of Polars.

An expression says what to compute; it is checked against the columns of a stream when it is used in one, and runs
compiled, over whole columns, without Python.

A bare string is the name of a column, as in Polars: ``select("a")``, ``coalesce("a", "b")``, ``.then("a")``. It is a value where
only a value makes sense: in comparisons and arithmetic (``col("a") == "x"``), ``is_in``, ``fill_null``, in the arguments of
functions of texts, and in :func:`lit`.

>>> import millstream as mill
>>> from millstream import col, lit, when
>>> s = mill.from_iter([{"price": 3.0, "qty": 2}, {"price": 5.0, "qty": 0}])
>>> state = when(col("qty") > 0).then(lit("sold")).otherwise(lit("none"))
>>> s.select(total=col("price") * col("qty"), state=state).collect().to_pylist()
[{'total': 6.0, 'state': 'sold'}, {'total': 0.0, 'state': 'none'}]
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, NoReturn

from millstream._engine import RawExpr
from millstream._mathematics import Mathematics
from millstream._namespaces import DateTimeNamespace, ListNamespace, StringNamespace, StructNamespace
from millstream.errors import PlanError
from millstream.types import TypeLike, data_type

__all__ = ["Expr", "IntoExpr", "coalesce", "col", "concat_str", "count", "lit", "max_horizontal", "min_horizontal", "now"]

Literal = bool | int | float | str | bytes | datetime | date | timedelta | Decimal | None
IntoExpr = Any
"""An expression, the name of a column, or a plain value, which is a constant."""


def _raw(value: IntoExpr) -> RawExpr:
    """Return a value as an expression, where a text is a value."""
    if isinstance(value, Expr):
        return value._raw
    from millstream._conditions import When

    if isinstance(value, When):
        raise PlanError("when(...) stands without .then(...)")
    return RawExpr.literal(value)


def column_name(value: object, method: str) -> str:
    """Return the name of a column, where a method takes names and no expressions.

    Parameters
    ----------
    value
        What the user gave.
    method
        The method, for the message.

    Raises
    ------
    PlanError
        When it is no text.

    Examples
    --------
    >>> from millstream.expr import column_name
    >>> column_name("x", "drop")
    'x'
    """
    if not isinstance(value, str):
        raise PlanError(f'{method}() takes the names of columns, as in "x", not {value!r:.200}')
    return value


def plain_column(value: object, place: str) -> str:
    """Return the name of a column that is given by name or as ``col("x")``.

    Parameters
    ----------
    value
        What the user gave.
    place
        The argument, for the message.

    Raises
    ------
    PlanError
        When it is neither.

    Examples
    --------
    >>> from millstream import col
    >>> from millstream.expr import plain_column
    >>> plain_column(col("x"), "from_column()")
    'x'
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Expr) and repr(value._raw) == repr(RawExpr.column(name := value._raw.output_name())):
        return name
    hint = "; make it a column with with_columns() first" if isinstance(value, Expr) else ""
    raise PlanError(f'{place} takes the name of a column, as in "x" or col("x"), not {value!r:.200}{hint}')


def _column(value: IntoExpr) -> RawExpr:
    """Return a value as an expression, where a text is the name of a column."""
    return RawExpr.column(value) if isinstance(value, str) else _raw(value)


class Expr(Mathematics):
    """An expression over the columns of a stream; made by :func:`col`, :func:`lit`, :func:`when` and operators.

    Examples
    --------
    >>> from millstream import col
    >>> (col("price") * 2 > 10).alias("is_dear")
    <Expr (col("price") * 2 > 10).alias("is_dear")>
    """

    __slots__ = ("_raw",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, raw: RawExpr) -> None:
        self._raw = raw

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("an expression cannot be pickled: build it anew in the process that uses it")

    def __repr__(self) -> str:
        """Show the expression."""
        return f"<Expr {self._raw!r}>"

    def __bool__(self) -> NoReturn:
        """Refuse: an expression has no truth value before it runs."""
        raise TypeError(
            "an expression is not true or false by itself; combine conditions with & | ~ instead of and/or/not, "
            "and write is_between(a, b) instead of a < x < b"
        )

    def __iter__(self) -> NoReturn:
        """Refuse: an expression is no sequence."""
        raise TypeError("an expression cannot be iterated over; to get one row for each element use stream.explode(name)")

    def _binary(self, op: str, other: IntoExpr) -> Expr:
        return Expr(RawExpr.binary(op, self._raw, _raw(other)))

    def _with_column(self, op: str, other: IntoExpr) -> Expr:
        return Expr(RawExpr.binary(op, self._raw, _column(other)))

    def _reflected_column(self, op: str, other: IntoExpr) -> Expr:
        return Expr(RawExpr.binary(op, _column(other), self._raw))

    def _reflected(self, op: str, other: IntoExpr) -> Expr:
        return Expr(RawExpr.binary(op, _raw(other), self._raw))

    def _call(self, function: str, *args: IntoExpr) -> Expr:
        return Expr(RawExpr.function(function, [self._raw, *map(_raw, args)]))

    def _call_columns(self, function: str, *args: IntoExpr) -> Expr:
        return Expr(RawExpr.function(function, [self._raw, *map(_column, args)]))

    def _aggregate(self, kind: str, parameter: float | None = None) -> Expr:
        return Expr(RawExpr.aggregate(kind, self._raw, parameter))

    # -- operators ---------------------------------------------------------------------------------------------------

    def __add__(self, other: IntoExpr) -> Expr:
        """Add; texts are joined.

        An integer that does not fit the type of the result is an error of its record. Columns of uint64 and of a signed type
        meet as int64; beside a constant that is not negative a column stays uint64.

        A date moves by whole days. For hours, cast it to a timestamp first.

        Examples
        --------
        >>> from datetime import date, datetime, timedelta
        >>> days = mill.from_iter([{"d": date(2024, 1, 1)}])
        >>> days.select(a=col("d") + timedelta(days=1), b=col("d").cast(datetime) + timedelta(hours=36)).collect().to_pylist()
        [{'a': datetime.date(2024, 1, 2), 'b': datetime.datetime(2024, 1, 2, 12, 0)}]
        """
        return self._binary("+", other)

    def __radd__(self, other: IntoExpr) -> Expr:
        """Add."""
        return self._reflected("+", other)

    def __sub__(self, other: IntoExpr) -> Expr:
        """Subtract."""
        return self._binary("-", other)

    def __rsub__(self, other: IntoExpr) -> Expr:
        """Subtract."""
        return self._reflected("-", other)

    def __mul__(self, other: IntoExpr) -> Expr:
        """Multiply."""
        return self._binary("*", other)

    def __rmul__(self, other: IntoExpr) -> Expr:
        """Multiply."""
        return self._reflected("*", other)

    def __truediv__(self, other: IntoExpr) -> Expr:
        """Divide; the result is a float, of decimals a decimal.

        A quotient of integers is the float nearest to the exact quotient, as in Python. A quotient of decimals has four more decimal places than the dividend, and at least six. It is rounded to the
        nearest, half to even. Dividing a decimal by zero is an error; floats and integers become infinite or NaN.

        Examples
        --------
        >>> from decimal import Decimal
        >>> mill.from_iter([{"x": 1, "d": Decimal("2.00")}]).select(f=col("x") / 4, d=col("d") / 3).collect().to_pylist()
        [{'f': 0.25, 'd': Decimal('0.666667')}]
        """
        return self._binary("/", other)

    def __rtruediv__(self, other: IntoExpr) -> Expr:
        """Divide; the result is a float, of decimals a decimal, see :meth:`__truediv__`."""
        return self._reflected("/", other)

    def __floordiv__(self, other: IntoExpr) -> Expr:
        """Divide and round down; an integer by zero is null, a float by zero infinite or NaN."""
        return self._binary("//", other)

    def __rfloordiv__(self, other: IntoExpr) -> Expr:
        """Divide and round down."""
        return self._reflected("//", other)

    def __mod__(self, other: IntoExpr) -> Expr:
        """Give the remainder, with the divisor's sign; an integer by zero is null, a float by zero NaN."""
        return self._binary("%", other)

    def __rmod__(self, other: IntoExpr) -> Expr:
        """Give the remainder, with the divisor's sign."""
        return self._reflected("%", other)

    def __pow__(self, other: IntoExpr) -> Expr:
        """Raise to a power."""
        return self._with_column("**", other)

    def __rpow__(self, other: IntoExpr) -> Expr:
        """Raise to a power."""
        return self._reflected_column("**", other)

    def __eq__(self, other: IntoExpr) -> Expr:  # type: ignore[override]
        """Compare; null where a side is null.

        Numbers of all types are compared exactly, as Python does: a decimal or float32 of 0.1 is not the float 0.1.
        """
        return self._binary("==", other)

    def __ne__(self, other: IntoExpr) -> Expr:  # type: ignore[override]
        """Compare; null where a side is null."""
        return self._binary("!=", other)

    def __lt__(self, other: IntoExpr) -> Expr:
        """Compare; null where a side is null."""
        return self._binary("<", other)

    def __le__(self, other: IntoExpr) -> Expr:
        """Compare; null where a side is null."""
        return self._binary("<=", other)

    def __gt__(self, other: IntoExpr) -> Expr:
        """Compare; null where a side is null."""
        return self._binary(">", other)

    def __ge__(self, other: IntoExpr) -> Expr:
        """Compare; null where a side is null."""
        return self._binary(">=", other)

    def __and__(self, other: IntoExpr) -> Expr:
        """Tell whether both hold."""
        return self._with_column("&", other)

    def __rand__(self, other: IntoExpr) -> Expr:
        """Tell whether both hold."""
        return self._reflected_column("&", other)

    def __or__(self, other: IntoExpr) -> Expr:
        """Tell whether one holds."""
        return self._with_column("|", other)

    def __ror__(self, other: IntoExpr) -> Expr:
        """Tell whether one holds."""
        return self._reflected_column("|", other)

    def __xor__(self, other: IntoExpr) -> Expr:
        """Tell whether exactly one holds."""
        return self._with_column("^", other)

    def __rxor__(self, other: IntoExpr) -> Expr:
        """Tell whether exactly one holds."""
        return self._reflected_column("^", other)

    def __invert__(self) -> Expr:
        """Tell whether it does not hold."""
        return Expr(RawExpr.unary("~", self._raw))

    def __neg__(self) -> Expr:
        """Change the sign."""
        return Expr(RawExpr.unary("-", self._raw))

    def __pos__(self) -> Expr:
        """Give the expression as it is."""
        return self

    def __abs__(self) -> Expr:
        """Give the absolute value."""
        return self.abs()

    # -- names, types, nulls -----------------------------------------------------------------------------------------

    def alias(self, name: str) -> Expr:
        """Give the same values under another name.

        Examples
        --------
        >>> mill.from_iter([1, 2]).select((col("value") + 1).alias("next")).collect().to_pylist()
        [{'next': 2}, {'next': 3}]
        """
        return Expr(self._raw.alias(name))

    def cast(self, to: TypeLike, *, strict: bool = True) -> Expr:
        """Convert to another type.

        Parameters
        ----------
        to
            The type wanted.
        strict
            Whether a value that does not fit is an error of its record; otherwise it becomes null.

        Notes
        -----
        No value changes silently. A float with a fraction is no integer (use ``floor()``, ``round()`` or ``trunc()``), an
        integer that a float does not hold is no float, and a decimal keeps its digits. Times are rounded down to a coarser
        unit, also before 1970. Text is read as files are, times in ISO 8601.

        Examples
        --------
        >>> mill.from_iter(["1", "x"]).select(n=col("value").cast(int, strict=False)).collect().to_pylist()
        [{'n': 1}, {'n': None}]
        """
        return Expr(RawExpr.cast(self._raw, data_type(to), strict))

    def eq_missing(self, other: IntoExpr) -> Expr:
        """Compare so that null equals null."""
        return self._binary("eq_missing", other)

    def is_null(self) -> Expr:
        """Tell whether the value is null."""
        return Expr(RawExpr.unary("is_null", self._raw))

    def is_not_null(self) -> Expr:
        """Tell whether the value is not null."""
        return Expr(RawExpr.unary("is_not_null", self._raw))

    def fill_null(self, value: IntoExpr) -> Expr:
        """Put another value in the place of null.

        Examples
        --------
        >>> mill.from_iter([1, None]).select(n=col("value").fill_null(0)).collect().to_pylist()
        [{'n': 1}, {'n': 0}]
        """
        return self._call("fill_null", value)

    def is_in(self, values: Iterable[Literal]) -> Expr:
        """Tell whether the value is one of these.

        Examples
        --------
        >>> mill.from_iter([1, 2, 3]).filter(col("value").is_in([1, 3])).collect().to_pylist()
        [{'value': 1}, {'value': 3}]
        """
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise PlanError(f"is_in takes several values, not {values!r}; write is_in([{values!r}])")
        return self._call("is_in", *values)

    def is_between(self, lower: IntoExpr, upper: IntoExpr) -> Expr:
        """Tell whether ``lower <= value <= upper``; a bound that is a string is a column.

        Examples
        --------
        >>> mill.from_iter([1, 2, 3]).filter(col("value").is_between(2, 3)).collect().to_pylist()
        [{'value': 2}, {'value': 3}]
        """
        return self._call_columns("is_between", lower, upper)

    def is_nan(self) -> Expr:
        """Tell whether the value is not a number."""
        return self._call("is_nan")

    def is_not_nan(self) -> Expr:
        """Tell whether the value is a number."""
        return self._call("is_not_nan")

    def fill_nan(self, value: IntoExpr) -> Expr:
        """Put another value in the place of what is not a number."""
        return self._call("fill_nan", value)

    def is_finite(self) -> Expr:
        """Tell whether the value is neither infinite nor not a number."""
        return self._call("is_finite")

    def is_infinite(self) -> Expr:
        """Tell whether the value is infinite."""
        return self._call("is_infinite")

    # -- namespaces --------------------------------------------------------------------------------------------------

    @property
    def str(self) -> StringNamespace:
        """Functions of texts."""
        return StringNamespace(self)

    @property
    def dt(self) -> DateTimeNamespace:
        """Functions of dates, times and durations."""
        return DateTimeNamespace(self)

    @property
    def list(self) -> ListNamespace:
        """Functions of lists."""
        return ListNamespace(self)

    @property
    def struct(self) -> StructNamespace:
        """Functions of structs."""
        return StructNamespace(self)

    # -- aggregates --------------------------------------------------------------------------------------------------

    def filter(self, condition: Expr | builtins.str) -> Expr:
        """Restrict an aggregate to the rows for which a condition holds.

        Examples
        --------
        >>> s = mill.from_iter([{"k": 1, "x": 2}, {"k": 1, "x": -3}])
        >>> s.key_by("k").agg(plus=col("x").sum().filter(col("x") > 0)).collect().to_pylist()
        [{'k': 1, 'plus': 2}]
        """
        return Expr(self._raw.filter(_column(condition)))

    def count(self) -> Expr:
        """Count the values that are not null."""
        return self._aggregate("count")

    def sum(self) -> Expr:
        """Add all values; null if there is none, an error of the result if the total does not fit its type."""
        return self._aggregate("sum")

    def mean(self) -> Expr:
        """Give the mean."""
        return self._aggregate("mean")

    def min(self) -> Expr:
        """Give the smallest value."""
        return self._aggregate("min")

    def max(self) -> Expr:
        """Give the largest value."""
        return self._aggregate("max")

    def first(self) -> Expr:
        """Give the first value in the order of the stream."""
        return self._aggregate("first")

    def last(self) -> Expr:
        """Give the last value in the order of the stream."""
        return self._aggregate("last")

    def n_unique(self) -> Expr:
        """Count the different values."""
        return self._aggregate("n_unique")

    def approx_n_unique(self) -> Expr:
        """Count the different values roughly, in little memory."""
        return self._aggregate("approx_n_unique")

    def std(self) -> Expr:
        """Give the standard deviation of a sample."""
        return self._aggregate("std")

    def var(self) -> Expr:
        """Give the variance of a sample."""
        return self._aggregate("var")

    def median(self) -> Expr:
        """Give the value in the middle, exactly."""
        return self._aggregate("median")

    def quantile(self, quantile: float) -> Expr:
        """Give a quantile exactly, with linear interpolation.

        Examples
        --------
        >>> s = mill.from_iter([{"k": 1, "x": x} for x in (1, 2, 3, 4, 5)])
        >>> s.key_by("k").agg(q=col("x").quantile(0.5)).collect().to_pylist()
        [{'k': 1, 'q': 3.0}]
        """
        return self._aggregate("quantile", _fraction(quantile))

    def approx_quantile(self, quantile: float) -> Expr:
        """Give a quantile roughly, in little memory."""
        return self._aggregate("approx_quantile", _fraction(quantile))

    def collect(self) -> Expr:
        """Give all values as a list, in the order of the stream."""
        return self._aggregate("collect")


def _fraction(quantile: float) -> float:
    if not isinstance(quantile, (int, float)) or not 0 <= quantile <= 1:
        raise PlanError(f"a quantile lies between 0 and 1, not at {quantile!r}")
    return float(quantile)


def col(name: str) -> Expr:
    """Give the column with this name.

    Examples
    --------
    >>> from millstream import col
    >>> col("price") + 1
    <Expr col("price") + 1>
    """
    if not isinstance(name, str):
        raise PlanError(f"col() takes the name of a column, not {name!r}; for a constant use lit()")
    return Expr(RawExpr.column(name))


def lit(value: Literal, dtype: TypeLike = None) -> Expr:
    """Give a constant, of a certain type if one is given.

    Examples
    --------
    >>> from millstream import lit
    >>> mill.from_iter([1]).select(a=lit("x"), b=lit(1, float)).collect().to_pylist()
    [{'a': 'x', 'b': 1.0}]
    """
    constant = Expr(RawExpr.literal(value))
    return constant if dtype is None else constant.cast(dtype)


def count() -> Expr:
    """Count the rows; an aggregate.

    Examples
    --------
    >>> mill.from_iter([{"k": "a"}, {"k": "a"}]).key_by("k").agg(n=mill.count()).collect().to_pylist()
    [{'k': 'a', 'n': 2}]
    """
    return Expr(RawExpr.aggregate("count", None, None))


def now() -> Expr:
    """Give the time of the clock when a batch of records passes: a timestamp in UTC, to the microsecond.

    It is processing time, and as such no part of what a replay repeats: a record that is processed again after a failure gets
    another time. What depends on when records happened belongs to :meth:`Stream.event_time`.

    Examples
    --------
    >>> stream = mill.generate(rows=2).with_columns(seen=mill.now())
    >>> stream.schema
    Schema(index: int64, seen: timestamp[us, UTC])
    """
    return Expr(RawExpr.now())


def coalesce(*values: IntoExpr) -> Expr:
    """Give the first of several values that is not null.

    Examples
    --------
    >>> s = mill.from_iter([{"a": None, "b": 2}], schema={"a": int, "b": int})
    >>> s.select(x=mill.coalesce("a", "b", 0)).collect().to_pylist()
    [{'x': 2}]
    """
    if not values:
        raise PlanError("coalesce takes at least one value")
    return Expr(RawExpr.function("coalesce", [_column(value) for value in values]))


def concat_str(*values: IntoExpr, separator: str = "") -> Expr:
    """Join texts; null if one of them is null.

    Examples
    --------
    >>> s = mill.from_iter([{"a": "x", "b": 1}])
    >>> s.select(t=mill.concat_str("a", "b", separator="-")).collect().to_pylist()
    [{'t': 'x-1'}]
    """
    if not values:
        raise PlanError("concat_str takes at least one value")
    return Expr(RawExpr.function("concat_str", [_raw(separator), *map(_column, values)]))


def min_horizontal(*values: IntoExpr) -> Expr:
    """Give the smallest of several values of a row; nulls are passed over.

    Examples
    --------
    >>> mill.from_iter([{"a": 3, "b": 2}]).select(m=mill.min_horizontal("a", "b")).collect()["m"]
    [2]
    """
    return Expr(RawExpr.function("min_horizontal", [_column(value) for value in values]))


def max_horizontal(*values: IntoExpr) -> Expr:
    """Give the largest of several values of a row; nulls are passed over.

    Examples
    --------
    >>> mill.from_iter([{"a": 3, "b": 2}]).select(m=mill.max_horizontal("a", "b")).collect()["m"]
    [3]
    """
    return Expr(RawExpr.function("max_horizontal", [_column(value) for value in values]))
