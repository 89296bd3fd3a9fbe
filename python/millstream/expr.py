"""Column expressions, with the names of Polars.

An expression describes a computation. It is checked against the columns of a stream when a step uses it, and runs compiled,
over whole columns, without Python.

A bare string is the name of a column, as in Polars: ``select("a")``, ``coalesce("a", "b")``, ``.then("a")``. It is a text
where only a value makes sense: in comparisons and arithmetic (``col("a") == "x"``), ``is_in``, ``fill_null``, in the
arguments of functions of text, and in :func:`lit`.

>>> import millstream as mill
>>> from millstream import col, lit, when
>>> s = mill.from_iter([{"price": 3.0, "qty": 2}, {"price": 5.0, "qty": 0}])
>>> state = when(col("qty") > 0).then(lit("sold")).otherwise(lit("none"))
>>> s.select(total=col("price") * col("qty"), state=state).collect().to_pylist()
[{'total': 6.0, 'state': 'sold'}, {'total': 0.0, 'state': 'none'}]
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

from millstream._engine import RawExpr
from millstream._hints import no_attribute
from millstream._mathematics import Mathematics
from millstream._namespaces.datetimes import DateTimeNamespace
from millstream._namespaces.lists import ListNamespace
from millstream._namespaces.maps import MapNamespace
from millstream._namespaces.strings import StringNamespace
from millstream._namespaces.structs import StructNamespace
from millstream._texts import flag
from millstream.errors import PlanError
from millstream.types import TypeLike, data_type

__all__ = ["Expr", "IntoExpr", "coalesce", "col", "concat_list", "concat_str", "count", "element", "lit", "max_horizontal", "min_horizontal", "now"]

Literal = bool | int | float | str | bytes | datetime | date | timedelta | Decimal | None
IntoExpr = Any
"""An expression, the name of a column, or a plain value, which is a constant."""


def _raw(value: IntoExpr) -> RawExpr:
    """Return a value as an expression, where a text is a value."""
    if isinstance(value, Expr):
        return value._raw
    from millstream._conditions import When

    if isinstance(value, When):
        raise PlanError("when(...) needs .then(...)")
    return RawExpr.literal(value)


def column_name(value: object, method: str) -> str:
    """Return the name of a column, where a method takes names and no expressions.

    Parameters
    ----------
    value
        The argument.
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
        The argument.
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
    name = value if isinstance(value, str) else name_of(value)
    if name is not None:
        return name
    hint = "; make it a column with with_columns() first" if isinstance(value, Expr) else ""
    raise PlanError(f'{place} takes the name of a column, as in "x" or col("x"), not {value!r:.200}{hint}')


def name_of(value: object) -> str | None:
    """Return ``"x"`` for ``col("x")``, which is the column itself, and None for anything else.

    Examples
    --------
    >>> from millstream import col
    >>> from millstream.expr import name_of
    >>> name_of(col("x")), name_of(col("x") + 1)
    ('x', None)
    """
    if isinstance(value, Expr) and repr(value._raw) == repr(RawExpr.column(name := value._raw.output_name())):
        return name
    return None


def _column(value: IntoExpr) -> RawExpr:
    """Return a value as an expression, where a text is the name of a column."""
    return RawExpr.column(value) if isinstance(value, str) else _raw(value)


class Expr(Mathematics):
    """A computation over the columns of a stream; made by :func:`col`, :func:`lit`, :func:`when` and operators.

    Notes
    -----
    An expression is checked when a step uses it. A column that does not exist, or a type that a function does not take, is
    a :class:`SchemaError` of that step. A value that cannot be computed, such as an integer overflow, is a
    :class:`DataError` of its record when the job runs, which ``on_error`` handles.

    Unless a function says otherwise, the result is null where an argument is null.

    Examples
    --------
    >>> from millstream import col
    >>> (col("price") * 2 > 10).alias("is_dear")
    <Expr (col("price") * 2 > 10).alias("is_dear")>
    >>> mill.from_iter([{"price": 7}]).select(double=col("price") * 2).collect()["double"]
    [14]
    """

    __slots__ = ("_raw",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, raw: RawExpr) -> None:
        self._raw = raw

    if not TYPE_CHECKING:

        def __getattr__(self, name: builtins.str) -> Any:
            """Raise an error that names the function of Millstream for one of another library."""
            raise no_attribute(self, name)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("an expression cannot be pickled: build it again in the process that uses it")

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

    def _without_nulls(self, aggregate: Expr, ignore_nulls: bool) -> Expr:
        return aggregate.filter(self.is_not_null()) if ignore_nulls else aggregate

    # -- operators ---------------------------------------------------------------------------------------------------

    def __add__(self, other: IntoExpr) -> Expr:
        """Add; text is concatenated.

        An integer overflow is an error of its record. A column of uint64 and one of a signed type are added as int64. With
        a constant that is not negative, a column of uint64 stays uint64.

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
        """Add; see :meth:`__add__`."""
        return self._reflected("+", other)

    def __sub__(self, other: IntoExpr) -> Expr:
        """Subtract; an integer overflow is an error of its record."""
        return self._binary("-", other)

    def __rsub__(self, other: IntoExpr) -> Expr:
        """Subtract; see :meth:`__sub__`."""
        return self._reflected("-", other)

    def __mul__(self, other: IntoExpr) -> Expr:
        """Multiply; an integer overflow is an error of its record."""
        return self._binary("*", other)

    def __rmul__(self, other: IntoExpr) -> Expr:
        """Multiply; see :meth:`__mul__`."""
        return self._reflected("*", other)

    def __truediv__(self, other: IntoExpr) -> Expr:
        """Divide; the result is a float, of decimals a decimal.

        A quotient of integers is the float nearest to the exact quotient, as in Python. A quotient of decimals has four
        more decimal places than the dividend, and at least six, and is rounded half to even. Dividing a decimal by zero is
        an error of its record. Dividing a float or an integer by zero returns infinity or NaN.

        Examples
        --------
        >>> from decimal import Decimal
        >>> mill.from_iter([{"x": 1, "d": Decimal("2.00")}]).select(f=col("x") / 4, d=col("d") / 3).collect().to_pylist()
        [{'f': 0.25, 'd': Decimal('0.666667')}]
        """
        return self._binary("/", other)

    def __rtruediv__(self, other: IntoExpr) -> Expr:
        """Divide; see :meth:`__truediv__`."""
        return self._reflected("/", other)

    def __floordiv__(self, other: IntoExpr) -> Expr:
        """Divide and round down; an integer divided by zero is null, a float divided by zero is infinite or NaN."""
        return self._binary("//", other)

    def __rfloordiv__(self, other: IntoExpr) -> Expr:
        """Divide and round down; see :meth:`__floordiv__`."""
        return self._reflected("//", other)

    def __mod__(self, other: IntoExpr) -> Expr:
        """Return the remainder, with the sign of the divisor; an integer modulo zero is null, a float modulo zero is NaN."""
        return self._binary("%", other)

    def __rmod__(self, other: IntoExpr) -> Expr:
        """Return the remainder; see :meth:`__mod__`."""
        return self._reflected("%", other)

    def __pow__(self, other: IntoExpr) -> Expr:
        """Raise to a power; an integer to a negative power, or one that overflows, is an error of its record."""
        return self._with_column("**", other)

    def __rpow__(self, other: IntoExpr) -> Expr:
        """Raise to a power; see :meth:`__pow__`."""
        return self._reflected_column("**", other)

    def __eq__(self, other: IntoExpr) -> Expr:  # type: ignore[override]
        """Test for equality; null where a side is null.

        Numbers of all types are compared exactly, as in Python: a decimal or float32 of 0.1 differs from the float 0.1.
        NaN equals NaN.
        """
        return self._binary("==", other)

    def __ne__(self, other: IntoExpr) -> Expr:  # type: ignore[override]
        """Test for inequality; null where a side is null."""
        return self._binary("!=", other)

    def __lt__(self, other: IntoExpr) -> Expr:
        """Test whether it is less; null where a side is null."""
        return self._binary("<", other)

    def __le__(self, other: IntoExpr) -> Expr:
        """Test whether it is less or equal; null where a side is null."""
        return self._binary("<=", other)

    def __gt__(self, other: IntoExpr) -> Expr:
        """Test whether it is greater; null where a side is null."""
        return self._binary(">", other)

    def __ge__(self, other: IntoExpr) -> Expr:
        """Test whether it is greater or equal; null where a side is null."""
        return self._binary(">=", other)

    def __and__(self, other: IntoExpr) -> Expr:
        """Return whether both are true; null where that is unknown."""
        return self._with_column("&", other)

    def __rand__(self, other: IntoExpr) -> Expr:
        """Return whether both are true; see :meth:`__and__`."""
        return self._reflected_column("&", other)

    def __or__(self, other: IntoExpr) -> Expr:
        """Return whether at least one is true; null where that is unknown."""
        return self._with_column("|", other)

    def __ror__(self, other: IntoExpr) -> Expr:
        """Return whether at least one is true; see :meth:`__or__`."""
        return self._reflected_column("|", other)

    def __xor__(self, other: IntoExpr) -> Expr:
        """Return whether exactly one is true; null where one is null."""
        return self._with_column("^", other)

    def __rxor__(self, other: IntoExpr) -> Expr:
        """Return whether exactly one is true; see :meth:`__xor__`."""
        return self._reflected_column("^", other)

    def __invert__(self) -> Expr:
        """Return the opposite truth value; null stays null."""
        return Expr(RawExpr.unary("~", self._raw))

    def __neg__(self) -> Expr:
        """Change the sign; an integer overflow is an error of its record."""
        return Expr(RawExpr.unary("-", self._raw))

    def __pos__(self) -> Expr:
        """Return the expression unchanged."""
        return self

    def __abs__(self) -> Expr:
        """Return the absolute value; see :meth:`abs`."""
        return self.abs()

    # -- names, types, nulls -----------------------------------------------------------------------------------------

    def alias(self, name: str) -> Expr:
        """Rename the result.

        Parameters
        ----------
        name
            The name of the column.

        Raises
        ------
        TypeError
            When the name is not a string.

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
            The type: a Python type, one of :mod:`millstream.types`, or an Arrow type.
        strict
            Whether a value that does not fit is an error of its record. Otherwise it becomes null.

        Raises
        ------
        SchemaError
            When ``to`` is not a type, or when a step uses the expression and the types cannot be converted.
        DataError
            When the job runs with ``strict`` and a value does not fit.

        Notes
        -----
        No value changes silently. A float with a fraction is not converted to an integer (use ``floor()``, ``round()`` or
        ``trunc()``), nor an integer to a float that cannot hold it, and a decimal keeps its digits. Times are rounded down
        to a coarser unit, also before 1970. Text is parsed as in files, times in ISO 8601.

        Examples
        --------
        >>> mill.from_iter(["1", "x"]).select(x=col("value").cast(int, strict=False)).collect()["x"]
        [1, None]
        """
        return Expr(RawExpr.cast(self._raw, data_type(to), strict))

    def eq_missing(self, other: IntoExpr) -> Expr:
        """Test for equality, where null equals null.

        Parameters
        ----------
        other
            An expression, or a constant. A string is a text, not a column.

        Raises
        ------
        TypeError
            When ``other`` is not of a type that a column can have.

        Notes
        -----
        The result is never null. NaN equals NaN.

        Examples
        --------
        >>> mill.from_iter([1, None]).select(x=col("value").eq_missing(None)).collect()["x"]
        [False, True]
        """
        return self._binary("eq_missing", other)

    def is_null(self) -> Expr:
        """Test whether the value is null.

        Notes
        -----
        NaN is not null.

        Examples
        --------
        >>> mill.from_iter([1, None]).select(x=col("value").is_null()).collect()["x"]
        [False, True]
        """
        return Expr(RawExpr.unary("is_null", self._raw))

    def is_not_null(self) -> Expr:
        """Test whether the value is not null.

        Notes
        -----
        NaN is not null.

        Examples
        --------
        >>> mill.from_iter([1, None]).select(x=col("value").is_not_null()).collect()["x"]
        [True, False]
        """
        return Expr(RawExpr.unary("is_not_null", self._raw))

    def fill_null(self, value: IntoExpr) -> Expr:
        """Replace null by another value.

        Parameters
        ----------
        value
            An expression, or a constant. A string is a text, not a column.

        Examples
        --------
        >>> mill.from_iter([1, None]).select(x=col("value").fill_null(0)).collect()["x"]
        [1, 0]
        """
        return self._call("fill_null", value)

    def is_in(self, values: Iterable[Literal]) -> Expr:
        """Test whether the value is one of several.

        Parameters
        ----------
        values
            The values, as any iterable.

        Raises
        ------
        PlanError
            When ``values`` is a single value.

        Examples
        --------
        >>> mill.from_iter([1, 2, 3]).select(x=col("value").is_in([1, 3])).collect()["x"]
        [True, False, True]
        """
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise PlanError(f"is_in takes several values, not {values!r}; write is_in([{values!r}])")
        return self._call("is_in", *values)

    def is_between(self, lower: IntoExpr, upper: IntoExpr) -> Expr:
        """Test whether the value is between two bounds, both included.

        Parameters
        ----------
        lower
            The lower bound: a value, the name of a column, or an expression.
        upper
            The upper bound, likewise.

        Examples
        --------
        >>> mill.from_iter([1, 2, 3]).select(x=col("value").is_between(2, 3)).collect()["x"]
        [False, True, True]
        """
        return self._call_columns("is_between", lower, upper)

    def is_nan(self) -> Expr:
        """Test whether a float is NaN.

        Examples
        --------
        >>> mill.from_iter([1.0, float("nan"), None]).select(x=col("value").is_nan()).collect()["x"]
        [False, True, None]
        """
        return self._call("is_nan")

    def is_not_nan(self) -> Expr:
        """Test whether a float is not NaN.

        Examples
        --------
        >>> mill.from_iter([1.0, float("nan"), None]).select(x=col("value").is_not_nan()).collect()["x"]
        [True, False, None]
        """
        return self._call("is_not_nan")

    def fill_nan(self, value: IntoExpr) -> Expr:
        """Replace NaN by another value.

        Parameters
        ----------
        value
            An expression, or a constant. ``None`` makes it null.

        Examples
        --------
        >>> mill.from_iter([1.0, float("nan")]).select(x=col("value").fill_nan(0.0)).collect()["x"]
        [1.0, 0.0]
        """
        return self._call("fill_nan", value)

    def is_finite(self) -> Expr:
        """Test whether a float is neither infinite nor NaN.

        Examples
        --------
        >>> mill.from_iter([1.0, float("inf")]).select(x=col("value").is_finite()).collect()["x"]
        [True, False]
        """
        return self._call("is_finite")

    def is_infinite(self) -> Expr:
        """Test whether a float is infinite.

        Examples
        --------
        >>> mill.from_iter([1.0, float("-inf")]).select(x=col("value").is_infinite()).collect()["x"]
        [False, True]
        """
        return self._call("is_infinite")

    # -- namespaces --------------------------------------------------------------------------------------------------

    @property
    def str(self) -> StringNamespace:
        """Functions of text.

        Examples
        --------
        >>> mill.from_iter(["a"]).select(x=col("value").str.to_uppercase()).collect()["x"]
        ['A']
        """
        return StringNamespace(self)

    @property
    def dt(self) -> DateTimeNamespace:
        """Functions of dates, times and durations.

        Examples
        --------
        >>> from datetime import date
        >>> mill.from_iter([date(2024, 5, 17)]).select(x=col("value").dt.year()).collect()["x"]
        [2024]
        """
        return DateTimeNamespace(self)

    @property
    def list(self) -> ListNamespace:
        """Functions of lists.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5]}]).select(x=col("l").list.len()).collect()["x"]
        [2]
        """
        return ListNamespace(self)

    @property
    def struct(self) -> StructNamespace:
        """Functions of structs.

        Examples
        --------
        >>> mill.from_iter([{"at": {"x": 1}}]).select(x=col("at").struct.field("x")).collect()["x"]
        [1]
        """
        return StructNamespace(self)

    @property
    def map(self) -> MapNamespace:
        """Functions of maps.

        Examples
        --------
        >>> import pyarrow as pa
        >>> tags = pa.array([[("env", "prod"), ("zone", "a")]], pa.map_(pa.string(), pa.string()))
        >>> mill.from_arrow(pa.table({"tags": tags})).select(x=col("tags").map.get("zone")).collect()["x"]
        ['a']
        """
        return MapNamespace(self)

    # -- aggregates --------------------------------------------------------------------------------------------------

    def filter(self, condition: Expr | builtins.str) -> Expr:
        """Restrict an aggregate to the records for which a condition is true.

        Parameters
        ----------
        condition
            An expression of type ``bool``, or the name of a column. Null counts as false.

        Raises
        ------
        PlanError
            When the expression is not an aggregate.

        Examples
        --------
        >>> mill.from_iter([2, -3, 5]).agg(x=col("value").sum().filter(col("value") > 0)).collect()["x"]
        [7]
        """
        return Expr(self._raw.filter(_column(condition)))

    def count(self) -> Expr:
        """Count the values that are not null; an aggregate.

        Notes
        -----
        :func:`millstream.count` counts records, null or not.

        Examples
        --------
        >>> mill.from_iter([3, None, 5]).agg(x=col("value").count()).collect()["x"]
        [2]
        """
        return self._aggregate("count")

    def sum(self) -> Expr:
        """Add the values; an aggregate.

        Raises
        ------
        DataError
            When the total does not fit the type of the result. Then the group has no result; intermediate sums never
            overflow.

        Notes
        -----
        Nulls are skipped; the sum of no value is null. Sums of floats are kept in twice the precision of a float, so that
        the rounded result does not depend on the order of the records.

        Examples
        --------
        >>> mill.from_iter([3, None, 5]).agg(x=col("value").sum()).collect()["x"]
        [8]
        """
        return self._aggregate("sum")

    def mean(self) -> Expr:
        """Return the mean of the values; an aggregate.

        Raises
        ------
        SchemaError
            When a step uses the expression and the values are not numbers, durations or timestamps.

        Notes
        -----
        The mean of numbers is a float. That of durations or timestamps has their type, rounded to its unit, a half to the even
        number. Nulls are skipped; the mean of no value is null. A NaN makes the mean NaN. As for :meth:`sum`, the result does
        not depend on the order of the records.

        Examples
        --------
        >>> mill.from_iter([1, 2, None]).agg(x=col("value").mean()).collect()["x"]
        [1.5]
        """
        return self._aggregate("mean")

    def min(self) -> Expr:
        """Return the smallest value; an aggregate.

        Notes
        -----
        Nulls are skipped; the result of no value is null. NaN is greater than any number, and ``-0.0`` is less than
        ``0.0``.

        Examples
        --------
        >>> mill.from_iter([3, None, 1]).agg(x=col("value").min()).collect()["x"]
        [1]
        """
        return self._aggregate("min")

    def max(self) -> Expr:
        """Return the largest value; an aggregate.

        Notes
        -----
        Nulls are skipped; the result of no value is null. NaN is greater than any number, and ``-0.0`` is less than
        ``0.0``.

        Examples
        --------
        >>> mill.from_iter([3, None, 1]).agg(x=col("value").max()).collect()["x"]
        [3]
        """
        return self._aggregate("max")

    def min_by(self, by: IntoExpr) -> Expr:
        """Return the value of the record in which another expression is smallest; an aggregate.

        Parameters
        ----------
        by
            What has to be smallest: an expression or the name of a column, of values with an order.

        Raises
        ------
        SchemaError
            When a step uses the expression and ``by`` has no order, or the values cannot be kept as state.

        Notes
        -----
        Records in which ``by`` is null are skipped, and the result of no other is null. NaN is greater than any number. Of
        several records with the same smallest ``by``, the smallest value is returned, so that the result does not depend on the
        order of the records; null is smaller than any value.

        Examples
        --------
        >>> s = mill.from_iter([{"city": "Oslo", "t": -3}, {"city": "Rome", "t": 14}, {"city": "Bern", "t": None}])
        >>> s.agg(coldest=col("city").min_by("t"), warmest=col("city").max_by("t")).collect().to_pylist()
        [{'coldest': 'Oslo', 'warmest': 'Rome'}]
        """
        return Expr(RawExpr.aggregate("min_by", RawExpr.function("by_pair", [self._raw, _column(by)]), None))

    def max_by(self, by: IntoExpr) -> Expr:
        """Return the value of the record in which another expression is largest; an aggregate.

        Parameters
        ----------
        by
            What has to be largest: an expression or the name of a column, of values with an order.

        Raises
        ------
        SchemaError
            When a step uses the expression and ``by`` has no order, or the values cannot be kept as state.

        Notes
        -----
        As for :meth:`min_by`; of several records with the same largest ``by``, the largest value is returned.

        Examples
        --------
        >>> s = mill.from_iter([{"bid": 5, "who": "ann"}, {"bid": 9, "who": "bob"}])
        >>> s.agg(who=col("who").max_by("bid")).collect()["who"]
        ['bob']
        """
        return Expr(RawExpr.aggregate("max_by", RawExpr.function("by_pair", [self._raw, _column(by)]), None))

    def any(self) -> Expr:
        """Return whether a value is true; an aggregate.

        Raises
        ------
        SchemaError
            When a step uses the expression and the values are not booleans.

        Notes
        -----
        Nulls are skipped; the result of no value is false.

        Examples
        --------
        >>> s = mill.from_iter([{"late": False}, {"late": None}, {"late": True}])
        >>> s.agg(any=col("late").any(), all=col("late").all()).collect().to_pylist()
        [{'any': True, 'all': False}]
        """
        return self._call("any")._aggregate("max").fill_null(False)

    def all(self) -> Expr:
        """Return whether all values are true; an aggregate.

        Raises
        ------
        SchemaError
            When a step uses the expression and the values are not booleans.

        Notes
        -----
        Nulls are skipped; the result of no value is true.

        Examples
        --------
        >>> mill.from_iter([True, None]).agg(x=col("value").all()).collect()["x"]
        [True]
        """
        return self._call("all")._aggregate("min").fill_null(True)

    def product(self) -> Expr:
        """Multiply the values; an aggregate.

        Raises
        ------
        SchemaError
            When a step uses the expression and the values are not integers, floats or booleans. Decimals can be cast to float.
        DataError
            When the product of integers does not fit the type of the result. Then the group has no result.

        Notes
        -----
        Nulls are skipped; the product of no value is null, as the sum is. Products of floats are kept in twice the precision of a
        float and with an exponent of their own, so that nothing overflows on the way.

        Examples
        --------
        >>> mill.from_iter([3, None, 5]).agg(x=col("value").product()).collect()["x"]
        [15]
        >>> mill.from_iter([2.0**600, 2.0**600, 2.0**-599, 2.0**-599]).agg(x=col("value").product()).collect()["x"]
        [4.0]
        """
        return self._aggregate("product")

    def mode(self) -> Expr:
        """Return the values that occur most often, as a list in their order; an aggregate.

        Raises
        ------
        SchemaError
            When a step uses the expression and the values have no order.

        Notes
        -----
        Nulls are skipped; the result of no value is an empty list. All values are kept as state.

        Examples
        --------
        >>> mill.from_iter(["b", "a", "b", None, "a", "c"]).agg(x=col("value").mode()).collect()["x"]
        [['a', 'b']]
        """
        return self._aggregate("collect")._call("list.mode")

    def first(self, *, ignore_nulls: bool = False) -> Expr:
        """Return the value of the first record; an aggregate.

        Parameters
        ----------
        ignore_nulls
            Whether records whose value is null are skipped. Otherwise a null is a value like any other.

        Raises
        ------
        PlanError
            When ``ignore_nulls`` is neither True nor False.

        Notes
        -----
        The order is that of event time, ties in the order of arrival. Without event time, and in count windows, it is the order
        of arrival.

        Examples
        --------
        >>> s = mill.from_iter([None, 3, 1, 2])
        >>> s.agg(x=col("value").first(), y=col("value").first(ignore_nulls=True)).collect().to_pylist()
        [{'x': None, 'y': 3}]
        """
        return self._without_nulls(self._aggregate("first"), flag(ignore_nulls, "first(ignore_nulls=…)"))

    def last(self, *, ignore_nulls: bool = False) -> Expr:
        """Return the value of the last record; an aggregate.

        Parameters
        ----------
        ignore_nulls
            Whether records whose value is null are skipped. Otherwise a null is a value like any other.

        Raises
        ------
        PlanError
            When ``ignore_nulls`` is neither True nor False.

        Notes
        -----
        The order is that of event time, ties in the order of arrival. Without event time, and in count windows, it is the order
        of arrival.

        Examples
        --------
        >>> s = mill.from_iter([3, 1, 2, None])
        >>> s.agg(x=col("value").last(), y=col("value").last(ignore_nulls=True)).collect().to_pylist()
        [{'x': None, 'y': 2}]
        """
        return self._without_nulls(self._aggregate("last"), flag(ignore_nulls, "last(ignore_nulls=…)"))

    def n_unique(self) -> Expr:
        """Count the distinct values, exactly; an aggregate.

        Notes
        -----
        Null counts as a value, and so does NaN. All distinct values are kept as state; :meth:`approx_n_unique` needs little
        memory.

        Examples
        --------
        >>> mill.from_iter([3, 3, None]).agg(x=col("value").n_unique()).collect()["x"]
        [2]
        """
        return self._aggregate("n_unique")

    def approx_n_unique(self) -> Expr:
        """Estimate the number of distinct values in bounded memory; an aggregate.

        Notes
        -----
        Null counts as a value, and so does NaN. The estimate is computed by HyperLogLog with 4,096 registers, at most 4 KiB
        for each group. Its standard error is 1.04 / sqrt(4096) = 1.6 %: two of three estimates are within 1.6 % of the
        exact number, 95 of 100 within 3.3 %. The estimate depends on the set of values alone, not on order or parallelism.

        Examples
        --------
        >>> mill.from_iter([3, 3, None]).agg(x=col("value").approx_n_unique()).collect()["x"]
        [2]
        """
        return self._aggregate("approx_n_unique")

    def std(self) -> Expr:
        """Return the standard deviation of a sample; an aggregate.

        Raises
        ------
        SchemaError
            When a step uses the expression and the values are not numbers or durations.

        Notes
        -----
        That of numbers is a float, that of durations a duration, rounded to its unit.
        The divisor of the variance is n - 1. Nulls are skipped; the result of fewer than two values is null. The algorithm
        is that of :meth:`var`.

        Examples
        --------
        >>> mill.from_iter([1, 2, 3]).agg(x=col("value").std()).collect()["x"]
        [1.0]
        """
        return self._aggregate("std")

    def var(self) -> Expr:
        """Return the variance of a sample, a float; an aggregate.

        Notes
        -----
        The divisor is n - 1. Nulls are skipped; the result of fewer than two values is null.

        Sums of squared distances from the mean are updated and merged as by Chan, Golub and LeVeque (1983), in twice the
        precision of a float. So digits do not cancel for values that are large compared to their spread, and the rounded
        result does not depend on the order of the records. Values that a float cannot hold, such as decimals of more than 15
        digits, are rounded to floats first.

        Examples
        --------
        >>> mill.from_iter([1, 2, 3]).agg(x=col("value").var()).collect()["x"]
        [1.0]
        """
        return self._aggregate("var")

    def median(self) -> Expr:
        """Return the median, exactly; an aggregate.

        Notes
        -----
        The median is ``quantile(0.5)``: the mean of the two middle values, where their number is even. That of durations or
        timestamps has their type.

        Examples
        --------
        >>> mill.from_iter([1, 2, 4, 10]).agg(x=col("value").median()).collect()["x"]
        [3.0]
        """
        return self._aggregate("median")

    def quantile(self, quantile: float | Sequence[float]) -> Expr:
        """Return a quantile, exactly, with linear interpolation; an aggregate.

        Parameters
        ----------
        quantile
            A number between 0 and 1: 0 is the smallest value, 1 the largest. Of a list of numbers the result is a list, in the
            same order.

        Raises
        ------
        PlanError
            When ``quantile`` is not a number between 0 and 1.
        SchemaError
            When a step uses the expression and the values are not numbers, durations or timestamps.

        Notes
        -----
        The quantile of numbers is a float. That of durations or timestamps has their type, rounded to its unit, a half to the
        even number. Nulls are skipped; the result of no value is null. NaN is greater than any number. All values are kept as state,
        for each quantile of a list; :meth:`approx_quantile` needs little memory.

        Examples
        --------
        >>> mill.from_iter([1, 2, 3, 4]).agg(x=col("value").quantile(0.5)).collect()["x"]
        [2.5]
        >>> mill.from_iter([1, 2, 3, 4]).agg(x=col("value").quantile([0, 0.5])).collect()["x"]
        [[1.0, 2.5]]
        """
        return self._quantile("quantile", quantile)

    def _quantile(self, kind: builtins.str, quantile: float | Sequence[float]) -> Expr:
        if isinstance(quantile, (int, float)) or not isinstance(quantile, Sequence) or isinstance(quantile, (builtins.str, bytes)):
            return self._aggregate(kind, _fraction(quantile))  # type: ignore[arg-type]
        if not quantile:
            raise PlanError(f"{kind}() needs at least one quantile")
        each = [self._aggregate(kind, _fraction(one))._raw for one in quantile]
        return Expr(RawExpr.function("concat_list", each))

    def approx_quantile(self, quantile: float | Sequence[float]) -> Expr:
        """Estimate a quantile in bounded memory; an aggregate.

        Parameters
        ----------
        quantile
            A number between 0 and 1: 0 is the smallest value, 1 the largest. Of a list of numbers the result is a list, in the
            same order.

        Raises
        ------
        PlanError
            When ``quantile`` is not a number between 0 and 1.
        SchemaError
            When a step uses the expression and the values are not numbers or durations.

        Notes
        -----
        The estimate for numbers is a float, that for durations a duration. Nulls are skipped; the result of no value is null.
        NaN is greater than any number.

        The estimate is computed by DDSketch (Masson, Rim and Lee, 2019) with a relative accuracy of 1 %: it differs by at
        most 1 % from the value of rank ``floor(quantile * (n - 1))`` among the n sorted values. It is one value and not
        interpolated between two. The number of buckets grows with the logarithm of the range of values: numbers from 1 to a
        million take about 700 buckets of 12 bytes. The estimate depends on the values alone, not on order or parallelism.

        Examples
        --------
        >>> s = mill.generate(rows=10_001, x=mill.index())
        >>> estimate = s.agg(x=col("x").approx_quantile(0.5)).collect()["x"][0]
        >>> abs(estimate - 5000) <= 50
        True
        """
        return self._quantile("approx_quantile", quantile)

    def collect(self) -> Expr:
        """Return all values as a list; an aggregate.

        Notes
        -----
        Nulls are included. The order is that of event time, ties in the order of arrival. Without event time, and in count
        windows, it is the order of arrival.

        Examples
        --------
        >>> mill.from_iter([3, None, 5]).agg(x=col("value").collect()).collect()["x"]
        [[3, None, 5]]
        """
        return self._aggregate("collect")


def _fraction(quantile: float) -> float:
    if not isinstance(quantile, (int, float)) or not 0 <= quantile <= 1:
        raise PlanError(f"a quantile is between 0 and 1, not {quantile!r}")
    return float(quantile)


def col(name: str) -> Expr:
    """Return the column with this name, as an expression.

    Parameters
    ----------
    name
        The name of the column.

    Raises
    ------
    PlanError
        When the name is not a string.

    Notes
    -----
    Whether there is such a column is checked when a step uses the expression.

    Examples
    --------
    >>> from millstream import col
    >>> mill.from_iter([{"price": 2}]).select(next=col("price") + 1).collect()["next"]
    [3]
    """
    if not isinstance(name, str):
        raise PlanError(f"col() takes the name of a column, not {name!r}; for a constant use lit()")
    return Expr(RawExpr.column(name))


def element() -> Expr:
    """Return the element of a list, within :meth:`Expr.list.eval <millstream._namespaces.ListNamespace.eval>`.

    Examples
    --------
    >>> from millstream import col
    >>> mill.from_iter([{"l": [1, 2]}]).select(x=col("l").list.eval(mill.element() * 10)).collect()["x"]
    [[10, 20]]
    """
    return Expr(RawExpr.element())


def lit(value: Literal, dtype: TypeLike = None) -> Expr:
    """Return a constant, as an expression.

    Parameters
    ----------
    value
        The value.
    dtype
        Its type; by default that of the value.

    Raises
    ------
    TypeError
        When the value is not of a type that a column can have.
    SchemaError
        When ``dtype`` is not a type.

    Examples
    --------
    >>> from millstream import lit
    >>> mill.from_iter([1]).select(a=lit("x"), b=lit(1, float)).collect().to_pylist()
    [{'a': 'x', 'b': 1.0}]
    """
    constant = Expr(RawExpr.literal(value))
    return constant if dtype is None else constant.cast(dtype)


def count() -> Expr:
    """Count the records; an aggregate.

    Notes
    -----
    :meth:`Expr.count` counts the values of a column that are not null.

    Examples
    --------
    >>> mill.from_iter([{"k": "a"}, {"k": "a"}]).key_by("k").agg(n=mill.count()).collect().to_pylist()
    [{'k': 'a', 'n': 2}]
    """
    return Expr(RawExpr.aggregate("count", None, None))


def now() -> Expr:
    """Return the time of the clock when a batch of records is processed.

    Notes
    -----
    The time is a timestamp in UTC, in microseconds. All records of a batch have the same time.

    This is processing time, so a replay does not reproduce it: a record that is processed again after a failure has another
    time. For the time at which something happened, use :meth:`Stream.event_time`.

    Examples
    --------
    >>> stream = mill.generate(rows=2).with_columns(seen=mill.now())
    >>> stream.schema
    Schema(index: int64, seen: timestamp[us, UTC])
    """
    return Expr(RawExpr.now())


def concat_list(*values: IntoExpr) -> Expr:
    """Make a list of the values of each record.

    Parameters
    ----------
    *values
        Expressions, names of columns, or constants, of types that one type holds exactly.

    Raises
    ------
    PlanError
        When no value is given.
    SchemaError
        When a step uses the expression and no type holds all values.

    Examples
    --------
    >>> mill.from_iter([{"a": 1, "b": 2.5}]).select(x=mill.concat_list("a", "b")).collect()["x"]
    [[1.0, 2.5]]
    """
    if not values:
        raise PlanError("concat_list() needs at least one value")
    return Expr(RawExpr.function("concat_list", [_column(value) for value in values]))


def coalesce(*values: IntoExpr) -> Expr:
    """Return the first of several values that is not null.

    Parameters
    ----------
    *values
        Expressions, names of columns, or constants that are not text; ``lit("x")`` is a text.

    Raises
    ------
    PlanError
        When there is no value.

    Notes
    -----
    The result is null where all values are null. NaN is not null.

    Examples
    --------
    >>> s = mill.from_iter([{"a": None, "b": 2}], schema={"a": int, "b": int})
    >>> s.select(x=mill.coalesce("a", "b", 0)).collect().to_pylist()
    [{'x': 2}]
    """
    return Expr(RawExpr.function("coalesce", [_column(value) for value in values]))


def concat_str(*values: IntoExpr, separator: str = "") -> Expr:
    """Join values as text.

    Parameters
    ----------
    *values
        Expressions, names of columns, or constants that are not text; ``lit("x")`` is a text.
    separator
        The text between two values.

    Raises
    ------
    PlanError
        When there is no value.

    Notes
    -----
    The result is null where one of the values is null.

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
    """Return the smallest of several values of a record.

    Parameters
    ----------
    *values
        Expressions, names of columns, or constants that are not text; ``lit("x")`` is a text.

    Raises
    ------
    PlanError
        When there is no value.

    Notes
    -----
    Nulls are skipped; the result is null where all values are null. NaN is greater than any number.

    Examples
    --------
    >>> mill.from_iter([{"a": 3, "b": 2}]).select(m=mill.min_horizontal("a", "b")).collect()["m"]
    [2]
    """
    return Expr(RawExpr.function("min_horizontal", [_column(value) for value in values]))


def max_horizontal(*values: IntoExpr) -> Expr:
    """Return the largest of several values of a record.

    Parameters
    ----------
    *values
        Expressions, names of columns, or constants that are not text; ``lit("x")`` is a text.

    Raises
    ------
    PlanError
        When there is no value.

    Notes
    -----
    Nulls are skipped; the result is null where all values are null. NaN is greater than any number.

    Examples
    --------
    >>> mill.from_iter([{"a": 3, "b": 2}]).select(m=mill.max_horizontal("a", "b")).collect()["m"]
    [3]
    """
    return Expr(RawExpr.function("max_horizontal", [_column(value) for value in values]))
