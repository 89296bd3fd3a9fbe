"""Functions of lists in expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream._engine import RawExpr
from millstream._namespaces.base import Namespace
from millstream.errors import PlanError

if TYPE_CHECKING:
    from millstream.expr import Expr

__all__ = ["ListNamespace"]


class ListNamespace(Namespace):
    """Functions of lists: ``col("l").list``.

    Notes
    -----
    Null in, null out. A function of a column that is not a list is a :class:`SchemaError` of the step that uses it.

    Examples
    --------
    >>> s = mill.from_iter([{"l": [1, 2, 3]}])
    >>> s.select(n=col("l").list.len(), last=col("l").list.get(-1)).collect().to_pylist()
    [{'n': 3, 'last': 3}]
    """

    __slots__ = ()
    _prefix = "list"

    def len(self) -> Expr:
        """Count the elements, nulls included.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, None, 1]}]).select(x=col("l").list.len()).collect()["x"]
        [3]
        """
        return self._call("len")

    def get(self, index: int | str | Expr, *, null_on_oob: bool = False) -> Expr:
        """Return the element at a position.

        Parameters
        ----------
        index
            The position, from 0. A negative position counts from the end. A string is the name of a column of positions.
        null_on_oob
            Whether a position outside of the list returns null.

        Raises
        ------
        DataError
            When the job runs without ``null_on_oob`` and a list has no such position.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5, 8]}]).select(x=col("l").list.get(-1)).collect()["x"]
        [8]
        """
        return self._call_columns("get", index, null_on_oob)

    def first(self) -> Expr:
        """Return the first element; null if the list is empty.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5]}]).select(x=col("l").list.first()).collect()["x"]
        [3]
        """
        return self._call("first")

    def last(self) -> Expr:
        """Return the last element; null if the list is empty.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5]}]).select(x=col("l").list.last()).collect()["x"]
        [5]
        """
        return self._call("last")

    def contains(self, value: Any) -> Expr:
        """Test whether an element equals a value.

        Parameters
        ----------
        value
            The value to look for, or an expression.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5]}]).select(x=col("l").list.contains(5)).collect()["x"]
        [True]
        """
        return self._call("contains", value)

    def join(self, separator: str) -> Expr:
        """Join the elements of a list of text.

        Parameters
        ----------
        separator
            What is put between two elements.

        Notes
        -----
        Null elements are left out.

        Examples
        --------
        >>> mill.from_iter([{"l": ["a", None, "b"]}]).select(x=col("l").list.join("-")).collect()["x"]
        ['a-b']
        """
        return self._call("join", separator)

    def sum(self) -> Expr:
        """Add the elements; the sum of an empty list is 0.

        Raises
        ------
        DataError
            When the job runs and a total does not fit the type of the result.

        Notes
        -----
        Nulls are skipped. Intermediate sums never overflow, and a sum of floats is the float nearest to the exact sum.

        Examples
        --------
        >>> mill.from_iter([{"l": [1e16, 1.0, -1e16]}]).select(x=col("l").list.sum()).collect()["x"]
        [1.0]
        """
        return self._call("sum")

    def mean(self) -> Expr:
        """Return the mean of the elements; null if there are none.

        Notes
        -----
        Nulls are skipped. The result is the float nearest to the exact mean.

        Examples
        --------
        >>> mill.from_iter([{"l": [1, 2, None]}]).select(x=col("l").list.mean()).collect()["x"]
        [1.5]
        """
        return self._call("mean")

    def min(self) -> Expr:
        """Return the smallest element; null if there are none.

        Notes
        -----
        Nulls are skipped. NaN is greater than any number.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, None, 1]}]).select(x=col("l").list.min()).collect()["x"]
        [1]
        """
        return self._call("min")

    def max(self) -> Expr:
        """Return the largest element; null if there are none.

        Notes
        -----
        Nulls are skipped. NaN is greater than any number.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, None, 1]}]).select(x=col("l").list.max()).collect()["x"]
        [3]
        """
        return self._call("max")

    def sort(self, *, descending: bool = False) -> Expr:
        """Sort the elements; nulls come first.

        Parameters
        ----------
        descending
            Whether to sort from the largest to the smallest. Nulls come first in either direction.

        Notes
        -----
        NaN is greater than any number.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, None, 1]}]).select(x=col("l").list.sort()).collect()["x"]
        [[None, 1, 3]]
        """
        return self._call("sort", descending)

    def eval(self, expr: Expr) -> Expr:
        """Apply an expression to each element.

        Parameters
        ----------
        expr
            An expression of :func:`millstream.element`, which is each element in turn.

        Raises
        ------
        PlanError
            When the expression is used in a step and has a column of the stream, an aggregate or a function of yours in it.
        DataError
            When the job runs and the expression fails for an element: an error of the record.

        Examples
        --------
        >>> s = mill.from_iter([{"l": ["3", "x"]}])
        >>> s.select(x=col("l").list.eval(mill.element().cast(int, strict=False).fill_null(0))).collect()["x"]
        [[3, 0]]
        """
        from millstream.expr import Expr

        if not isinstance(expr, Expr):
            raise PlanError(f"list.eval() takes an expression of mill.element(), as in mill.element() * 2, not {expr!r:.200}")
        return Expr(RawExpr.list_eval(self._expr._raw, expr._raw))

    def mode(self) -> Expr:
        """Return the elements that occur most often, in their order; nulls are skipped.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 1, 3, None, 1]}]).select(x=col("l").list.mode()).collect()["x"]
        [[1, 3]]
        """
        return self._call("mode")

    def reverse(self) -> Expr:
        """Reverse the order of the elements.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5]}]).select(x=col("l").list.reverse()).collect()["x"]
        [[5, 3]]
        """
        return self._call("reverse")

    def unique(self) -> Expr:
        """Remove duplicates, and keep the first of equal elements.

        Notes
        -----
        The order stays. ``-0.0`` equals ``0.0``, NaN equals NaN and null equals null.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 1, 3]}]).select(x=col("l").list.unique()).collect()["x"]
        [[3, 1]]
        """
        return self._call("unique")

    def slice(self, offset: int, length: int | None = None) -> Expr:
        """Return part of the list.

        Parameters
        ----------
        offset
            The position of the first element, from 0. A negative offset counts from the end.
        length
            How many elements to return at most; by default all up to the end.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5, 8]}]).select(x=col("l").list.slice(1, 2)).collect()["x"]
        [[5, 8]]
        """
        return self._call("slice", offset) if length is None else self._call("slice", offset, length)

    def head(self, n: int) -> Expr:
        """Return the first elements.

        Parameters
        ----------
        n
            How many elements. A negative number leaves out that many at the end.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5, 8]}]).select(x=col("l").list.head(2)).collect()["x"]
        [[3, 5]]
        """
        return self._call("head", n)

    def tail(self, n: int) -> Expr:
        """Return the last elements.

        Parameters
        ----------
        n
            How many elements. A negative number leaves out that many at the start.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5, 8]}]).select(x=col("l").list.tail(2)).collect()["x"]
        [[5, 8]]
        """
        return self._call("tail", n)

    def set_union(self, other: Expr | str) -> Expr:
        """Return the elements that are in either of two lists, each once.

        Parameters
        ----------
        other
            The other list: the name of a column, or an expression.

        Notes
        -----
        The elements of this list come first, in their order. The result is null if one of the lists is null.

        Examples
        --------
        >>> s = mill.from_iter([{"l": [3, 1, 3], "m": [1, 5]}])
        >>> s.select(x=col("l").list.set_union("m")).collect()["x"]
        [[3, 1, 5]]
        """
        return self._call_columns("set_union", other)

    def set_intersection(self, other: Expr | str) -> Expr:
        """Return the elements that are in both lists, each once.

        Parameters
        ----------
        other
            The other list: the name of a column, or an expression.

        Notes
        -----
        The elements have the order of this list. The result is null if one of the lists is null.

        Examples
        --------
        >>> s = mill.from_iter([{"l": [3, 1, 3], "m": [1, 5]}])
        >>> s.select(x=col("l").list.set_intersection("m")).collect()["x"]
        [[1]]
        """
        return self._call_columns("set_intersection", other)

    def set_difference(self, other: Expr | str) -> Expr:
        """Return the elements of this list that are not in the other one, each once.

        Parameters
        ----------
        other
            The other list: the name of a column, or an expression.

        Notes
        -----
        The elements have the order of this list. The result is null if one of the lists is null.

        Examples
        --------
        >>> s = mill.from_iter([{"l": [3, 1, 3], "m": [1, 5]}])
        >>> s.select(x=col("l").list.set_difference("m")).collect()["x"]
        [[3]]
        """
        return self._call_columns("set_difference", other)
