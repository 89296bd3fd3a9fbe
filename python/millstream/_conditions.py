"""Values by condition: ``when(...).then(...).otherwise(...)``."""

from __future__ import annotations

from millstream._engine import RawExpr
from millstream.expr import Expr, IntoExpr, _column

__all__ = ["Then", "When", "when"]


class When:
    """A condition without its value yet; made by :func:`when`.

    Examples
    --------
    >>> from millstream import col, lit, when
    >>> mill.from_iter([7]).select(sign=when(col("value") > 0).then(lit("plus"))).collect()["sign"]
    ['plus']
    """

    __slots__ = ("_branches", "_condition")

    def __init__(self, branches: list[tuple[RawExpr, RawExpr]], condition: Expr | str) -> None:
        self._branches = branches
        self._condition = condition

    def then(self, value: IntoExpr) -> Then:
        """Set the value for where the condition is true.

        Parameters
        ----------
        value
            An expression, the name of a column, or a constant that is not text; ``lit("x")`` is a text.

        Raises
        ------
        TypeError
            When the value is not of a type that a column can have.

        Examples
        --------
        >>> from millstream import col, lit, when
        >>> s = mill.from_iter([-1, 0, 7])
        >>> s.select(sign=when(col("value") > 0).then(lit("plus"))).collect()["sign"]
        [None, None, 'plus']
        """
        return Then([*self._branches, (_column(self._condition), _column(value))])


class Then(Expr):
    """Conditions with their values, which is an expression; null where no condition is true.

    Examples
    --------
    >>> from millstream import col, lit, when
    >>> s = mill.from_iter([-1, 0, 7])
    >>> s.select(sign=when(col("value") > 0).then(1).otherwise(0)).collect()["sign"]
    [0, 0, 1]
    """

    __slots__ = ("_branches",)

    def __init__(self, branches: list[tuple[RawExpr, RawExpr]]) -> None:
        super().__init__(RawExpr.case(branches, None))
        self._branches = branches

    def when(self, condition: Expr | str) -> When:
        """Add a condition for where no condition before it is true.

        Parameters
        ----------
        condition
            An expression of type ``bool``, or the name of a column. Null counts as false.

        Examples
        --------
        >>> from millstream import col, lit, when
        >>> s = mill.from_iter([-1, 0, 7])
        >>> s.select(sign=when(col("value") > 0).then(1).when(col("value") < 0).then(-1)).collect()["sign"]
        [-1, None, 1]
        """
        return When(self._branches, condition)

    def otherwise(self, value: IntoExpr) -> Expr:
        """Set the value for where no condition is true.

        Parameters
        ----------
        value
            An expression, the name of a column, or a constant that is not text; ``lit("x")`` is a text.

        Raises
        ------
        TypeError
            When the value is not of a type that a column can have.

        Examples
        --------
        >>> from millstream import col, lit, when
        >>> s = mill.from_iter([-1, 0, 7])
        >>> s.select(x=when(col("value") > 0).then("value").otherwise(0)).collect()["x"]
        [0, 0, 7]
        """
        return Expr(RawExpr.case(self._branches, _column(value)))


def when(condition: Expr | str) -> When:
    """Choose a value by conditions; the first condition that is true decides.

    Parameters
    ----------
    condition
        An expression of type ``bool``, or the name of a column. Null counts as false.

    Examples
    --------
    >>> from millstream import col, lit, when
    >>> s = mill.from_iter([-1, 0, 7])
    >>> sign = when(col("value") > 0).then(lit("plus")).when(col("value") < 0).then(lit("minus")).otherwise(lit("zero"))
    >>> s.select(sign=sign).collect()["sign"]
    ['minus', 'zero', 'plus']
    """
    return When([], condition)
