"""Values by condition: ``when(...).then(...).otherwise(...)``."""

from __future__ import annotations

from millstream._engine import RawExpr
from millstream.expr import Expr, IntoExpr, _column

__all__ = ["Then", "When", "when"]


class When:
    """A condition that waits for its value; see :func:`when`."""

    __slots__ = ("_branches", "_condition")

    def __init__(self, branches: list[tuple[RawExpr, RawExpr]], condition: Expr | str) -> None:
        self._branches = branches
        self._condition = condition

    def then(self, value: IntoExpr) -> Then:
        """Give the value for where the condition holds; a string is the name of a column, ``lit("x")`` a text."""
        return Then([*self._branches, (_column(self._condition), _column(value))])


class Then(Expr):
    """Conditions with values, null where none holds; goes on with ``.when()`` or ends with ``.otherwise()``."""

    __slots__ = ("_branches",)

    def __init__(self, branches: list[tuple[RawExpr, RawExpr]]) -> None:
        super().__init__(RawExpr.case(branches, None))
        self._branches = branches

    def when(self, condition: Expr | str) -> When:
        """Add a condition for where none of those before holds."""
        return When(self._branches, condition)

    def otherwise(self, value: IntoExpr) -> Expr:
        """Give the value for where no condition holds; a string is the name of a column."""
        return Expr(RawExpr.case(self._branches, _column(value)))


def when(condition: Expr | str) -> When:
    """Choose a value by conditions; the first that holds decides. A string is the name of a column.

    Examples
    --------
    >>> from millstream import col, lit, when
    >>> s = mill.from_iter([-1, 0, 7])
    >>> sign = when(col("value") > 0).then(lit("plus")).when(col("value") < 0).then(lit("minus")).otherwise(lit("zero"))
    >>> [row["sign"] for row in s.select(sign=sign).collect().to_pylist()]
    ['minus', 'zero', 'plus']
    """
    return When([], condition)
