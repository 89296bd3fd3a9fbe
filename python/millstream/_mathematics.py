"""Functions of numbers, as methods of an expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.expr import Expr, IntoExpr

__all__ = ["Mathematics"]


class Mathematics:
    """What expressions of numbers can do; :class:`millstream.Expr` has all of it."""

    __slots__ = ()

    if TYPE_CHECKING:

        def _call(self, function: str, *args: Any) -> Expr: ...
        def _call_columns(self, function: str, *args: Any) -> Expr: ...

    def abs(self) -> Expr:
        """Give the absolute value."""
        return self._call("abs")

    def sign(self) -> Expr:
        """Give -1, 0 or 1."""
        return self._call("sign")

    def round(self, decimals: int = 0) -> Expr:
        """Round to this many digits behind the point.

        Examples
        --------
        >>> mill.from_iter([1.2345]).select(x=col("value").round(2)).collect().to_pylist()
        [{'x': 1.23}]
        """
        return self._call("round", decimals)

    def floor(self) -> Expr:
        """Round down."""
        return self._call("floor")

    def ceil(self) -> Expr:
        """Round up."""
        return self._call("ceil")

    def trunc(self) -> Expr:
        """Round towards zero."""
        return self._call("trunc")

    def sqrt(self) -> Expr:
        """Give the square root."""
        return self._call("sqrt")

    def cbrt(self) -> Expr:
        """Give the cube root."""
        return self._call("cbrt")

    def exp(self) -> Expr:
        """Give e to this power."""
        return self._call("exp")

    def log(self, base: float | None = None) -> Expr:
        """Give the logarithm, the natural one without a base."""
        return self._call("log") if base is None else self._call("log", float(base))

    def log10(self) -> Expr:
        """Give the logarithm to base 10."""
        return self._call("log10")

    def log1p(self) -> Expr:
        """Give the natural logarithm of one plus the value."""
        return self._call("log1p")

    def sinh(self) -> Expr:
        """Give the hyperbolic sine."""
        return self._call("sinh")

    def cosh(self) -> Expr:
        """Give the hyperbolic cosine."""
        return self._call("cosh")

    def tanh(self) -> Expr:
        """Give the hyperbolic tangent."""
        return self._call("tanh")

    def degrees(self) -> Expr:
        """Turn radians into degrees."""
        return self._call("degrees")

    def radians(self) -> Expr:
        """Turn degrees into radians."""
        return self._call("radians")

    def sin(self) -> Expr:
        """Give the sine."""
        return self._call("sin")

    def cos(self) -> Expr:
        """Give the cosine."""
        return self._call("cos")

    def tan(self) -> Expr:
        """Give the tangent."""
        return self._call("tan")

    def arcsin(self) -> Expr:
        """Give the angle with this sine."""
        return self._call("arcsin")

    def arccos(self) -> Expr:
        """Give the angle with this cosine."""
        return self._call("arccos")

    def arctan(self) -> Expr:
        """Give the angle with this tangent."""
        return self._call("arctan")

    def clip(self, lower: IntoExpr = None, upper: IntoExpr = None) -> Expr:
        """Keep the value between two bounds; a bound that is None is no bound, one that is a string a column.

        Examples
        --------
        >>> mill.from_iter([-5, 50]).select(x=col("value").clip(0, 10)).collect().to_pylist()
        [{'x': 0}, {'x': 10}]
        """
        return self._call_columns("clip", lower, upper)
