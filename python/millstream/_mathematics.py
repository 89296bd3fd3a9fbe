"""Functions of numbers, as methods of an expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.expr import Expr, IntoExpr

__all__ = ["Mathematics"]


class Mathematics:
    """Functions of numbers; :class:`millstream.Expr` has all of them.

    Examples
    --------
    >>> mill.from_iter([9]).select(x=col("value").sqrt()).collect()["x"]
    [3.0]
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def _call(self, function: str, *args: Any) -> Expr: ...
        def _call_columns(self, function: str, *args: Any) -> Expr: ...

    def abs(self) -> Expr:
        """Return the absolute value.

        Raises
        ------
        DataError
            When the job runs and the result does not fit: of the smallest value of a signed integer type.

        Notes
        -----
        Works for durations, too.

        Examples
        --------
        >>> mill.from_iter([-5, 3]).select(x=col("value").abs()).collect()["x"]
        [5, 3]
        """
        return self._call("abs")

    def sign(self) -> Expr:
        """Return -1, 0 or 1 for negative values, zero and positive values.

        Notes
        -----
        The result has the type of the value. NaN stays NaN.

        Examples
        --------
        >>> mill.from_iter([-5, 0, 3]).select(x=col("value").sign()).collect()["x"]
        [-1, 0, 1]
        """
        return self._call("sign")

    def round(self, decimals: int = 0) -> Expr:
        """Round to a number of decimal places, half to even.

        Parameters
        ----------
        decimals
            How many digits after the decimal point. A negative number rounds to tens, hundreds and so on.

        Notes
        -----
        The type stays. A float counts as the exact number that it is, so ``1.005`` (which is slightly less) becomes ``1.0``.

        Examples
        --------
        >>> mill.from_iter([1.2345, 2.5]).select(x=col("value").round(2)).collect()["x"]
        [1.23, 2.5]
        """
        return self._call("round", decimals)

    def floor(self) -> Expr:
        """Round down to a whole number; the type stays.

        Examples
        --------
        >>> mill.from_iter([1.5, -1.5]).select(x=col("value").floor()).collect()["x"]
        [1.0, -2.0]
        """
        return self._call("floor")

    def ceil(self) -> Expr:
        """Round up to a whole number; the type stays.

        Examples
        --------
        >>> mill.from_iter([1.5, -1.5]).select(x=col("value").ceil()).collect()["x"]
        [2.0, -1.0]
        """
        return self._call("ceil")

    def trunc(self) -> Expr:
        """Round towards zero to a whole number; the type stays.

        Examples
        --------
        >>> mill.from_iter([1.5, -1.5]).select(x=col("value").trunc()).collect()["x"]
        [1.0, -1.0]
        """
        return self._call("trunc")

    def sqrt(self) -> Expr:
        """Return the square root, a float.

        Notes
        -----
        The result is NaN for negative values.

        Examples
        --------
        >>> mill.from_iter([9, -1]).select(x=col("value").sqrt()).collect()["x"]
        [3.0, nan]
        """
        return self._call("sqrt")

    def cbrt(self) -> Expr:
        """Return the cube root, a float.

        Examples
        --------
        >>> mill.from_iter([-8]).select(x=col("value").cbrt()).collect()["x"]
        [-2.0]
        """
        return self._call("cbrt")

    def exp(self) -> Expr:
        """Return e raised to the power of the value, a float.

        Examples
        --------
        >>> mill.from_iter([0.0]).select(x=col("value").exp()).collect()["x"]
        [1.0]
        """
        return self._call("exp")

    def log(self, base: float | None = None) -> Expr:
        """Return the logarithm, a float.

        Parameters
        ----------
        base
            The base; by default e, for the natural logarithm.

        Notes
        -----
        The result is NaN for negative values, and minus infinity for zero.

        Examples
        --------
        >>> mill.from_iter([8.0, 0.0]).select(x=col("value").log(2)).collect()["x"]
        [3.0, -inf]
        """
        return self._call("log") if base is None else self._call("log", float(base))

    def log10(self) -> Expr:
        """Return the logarithm to base 10, a float.

        Notes
        -----
        The result is NaN for negative values, and minus infinity for zero.

        Examples
        --------
        >>> mill.from_iter([1000]).select(x=col("value").log10()).collect()["x"]
        [3.0]
        """
        return self._call("log10")

    def log1p(self) -> Expr:
        """Return the natural logarithm of one plus the value, a float.

        Notes
        -----
        It is exact for values near zero, where ``(1 + x).log()`` is not. The result is NaN below -1.

        Examples
        --------
        >>> mill.from_iter([0.0, 1e-20]).select(x=col("value").log1p()).collect()["x"]
        [0.0, 1e-20]
        """
        return self._call("log1p")

    def sinh(self) -> Expr:
        """Return the hyperbolic sine, a float.

        Examples
        --------
        >>> mill.from_iter([0.0]).select(x=col("value").sinh()).collect()["x"]
        [0.0]
        """
        return self._call("sinh")

    def cosh(self) -> Expr:
        """Return the hyperbolic cosine, a float.

        Examples
        --------
        >>> mill.from_iter([0.0]).select(x=col("value").cosh()).collect()["x"]
        [1.0]
        """
        return self._call("cosh")

    def tanh(self) -> Expr:
        """Return the hyperbolic tangent, a float.

        Examples
        --------
        >>> mill.from_iter([0.0]).select(x=col("value").tanh()).collect()["x"]
        [0.0]
        """
        return self._call("tanh")

    def degrees(self) -> Expr:
        """Convert radians to degrees, a float.

        Examples
        --------
        >>> mill.from_iter([0.0]).select(x=col("value").degrees()).collect()["x"]
        [0.0]
        """
        return self._call("degrees")

    def radians(self) -> Expr:
        """Convert degrees to radians, a float.

        Examples
        --------
        >>> mill.from_iter([0]).select(x=col("value").radians()).collect()["x"]
        [0.0]
        """
        return self._call("radians")

    def sin(self) -> Expr:
        """Return the sine of an angle in radians, a float.

        Examples
        --------
        >>> mill.from_iter([0.0]).select(x=col("value").sin()).collect()["x"]
        [0.0]
        """
        return self._call("sin")

    def cos(self) -> Expr:
        """Return the cosine of an angle in radians, a float.

        Examples
        --------
        >>> mill.from_iter([0.0]).select(x=col("value").cos()).collect()["x"]
        [1.0]
        """
        return self._call("cos")

    def tan(self) -> Expr:
        """Return the tangent of an angle in radians, a float.

        Examples
        --------
        >>> mill.from_iter([0.0]).select(x=col("value").tan()).collect()["x"]
        [0.0]
        """
        return self._call("tan")

    def arcsin(self) -> Expr:
        """Return the angle in radians whose sine is the value, a float.

        Notes
        -----
        The result is NaN for values outside of -1 to 1.

        Examples
        --------
        >>> mill.from_iter([0.0, 2.0]).select(x=col("value").arcsin()).collect()["x"]
        [0.0, nan]
        """
        return self._call("arcsin")

    def arccos(self) -> Expr:
        """Return the angle in radians whose cosine is the value, a float.

        Notes
        -----
        The result is NaN for values outside of -1 to 1.

        Examples
        --------
        >>> mill.from_iter([1.0, 2.0]).select(x=col("value").arccos()).collect()["x"]
        [0.0, nan]
        """
        return self._call("arccos")

    def arctan(self) -> Expr:
        """Return the angle in radians whose tangent is the value, a float.

        Examples
        --------
        >>> mill.from_iter([0.0]).select(x=col("value").arctan()).collect()["x"]
        [0.0]
        """
        return self._call("arctan")

    def clip(self, lower: IntoExpr = None, upper: IntoExpr = None) -> Expr:
        """Limit the value to a range.

        Parameters
        ----------
        lower
            The lower bound: a value, or the name of a column, or an expression. None is no bound.
        upper
            The upper bound, likewise.

        Notes
        -----
        NaN stays NaN.

        Examples
        --------
        >>> mill.from_iter([-5, 50]).select(x=col("value").clip(0, 10)).collect()["x"]
        [0, 10]
        """
        return self._call_columns("clip", lower, upper)
