"""What can go wrong, as exceptions.

Every error is a :class:`MillstreamError`. Errors that can be known from the plan are raised where the plan is declared.
Errors that only show while a job runs are raised by :func:`millstream.run`, :meth:`Job.wait` and :meth:`Stream.collect`. A
failure inside a function of yours is a :class:`UserFunctionError` whose ``__cause__`` is the exception that your function
raised.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConnectorError",
    "DataError",
    "MillstreamError",
    "PlanError",
    "SchemaError",
    "UserFunctionError",
]


class MillstreamError(Exception):
    """The base class of all errors of Millstream.

    Attributes
    ----------
    step : str or None
        The name of the step in which it happened, where there is one.

    Examples
    --------
    >>> import millstream as mill
    >>> try:
    ...     mill.from_iter([{"x": 1}]).select("y")
    ... except mill.MillstreamError as error:
    ...     print(type(error).__name__)
    SchemaError
    """

    step: str | None = None


class PlanError(MillstreamError):
    """The plan asks for something that is not possible; raised where it is declared.

    Examples
    --------
    >>> mill.tumbling(5)
    Traceback (most recent call last):
        ...
    millstream.errors.PlanError: size of a window is the bare number 5, which has no unit; ...
    """


class SchemaError(PlanError):
    """A column is missing or has the wrong type; the message names the columns that exist.

    Examples
    --------
    >>> mill.from_iter([{"price": 1}]).select("prize")
    Traceback (most recent call last):
        ...
    millstream.errors.SchemaError: step "select": column "prize" does not exist; ...
    """


class DataError(MillstreamError):
    """A record could not be processed: a malformed line, an overflow, a value that cannot be cast.

    Examples
    --------
    >>> mill.from_iter(["1", "x"]).cast({"value": int}).collect()
    Traceback (most recent call last):
        ...
    millstream.errors.DataError: step "cast": ...
    """


class CheckpointError(MillstreamError):
    """A checkpoint could not be written or read, or belongs to another plan.

    Examples
    --------
    >>> mill.checkpoints("missing/")
    Traceback (most recent call last):
        ...
    millstream.errors.CheckpointError: missing/ is not a millstream state directory: there is no such directory
    """


class ConnectorError(MillstreamError):
    """A source or sink failed.

    Examples
    --------
    >>> mill.read_text("missing.txt").collect()
    Traceback (most recent call last):
        ...
    millstream.errors.ConnectorError: no such file or directory: "missing.txt"; ...
    """


class UserFunctionError(MillstreamError):
    """A function of yours raised an exception, which is the ``__cause__``; the message names step and record.

    Examples
    --------
    >>> try:
    ...     mill.from_iter([0]).map(lambda row: {"x": 1 // row.value}, schema={"x": int}).collect()
    ... except mill.UserFunctionError as error:
    ...     print(repr(error.__cause__))
    ZeroDivisionError('integer division or modulo by zero')
    """
