"""What can go wrong, as exceptions.

Every error is a :class:`MillstreamError`. What can be known from the plan is raised where the plan is declared; what
only shows while a job runs is raised by :func:`millstream.run`, :meth:`Job.wait` and :meth:`Stream.collect`. A failure
inside a function of yours is a :class:`UserFunctionError` whose ``__cause__`` is the exception your function raised.
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
    """The base of all errors of Millstream.

    Attributes
    ----------
    step : str or None
        The name of the step it happened in, where there is one.

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
    """The plan asks for something that cannot be; raised where it is declared."""


class SchemaError(PlanError):
    """A column is missing or has the wrong type; the message names the columns there are."""


class DataError(MillstreamError):
    """A record could not be processed: a malformed line, an overflow, a value that cannot be cast."""


class CheckpointError(MillstreamError):
    """A checkpoint could not be written or read, or belongs to another plan."""


class ConnectorError(MillstreamError):
    """A source or sink failed, or cannot keep the guarantee asked for."""


class UserFunctionError(MillstreamError):
    """A function of the user's raised; its exception is the ``__cause__``, the message names step and record."""
