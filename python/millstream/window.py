"""Windows: which slices of event time belong together."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.errors import PlanError
from millstream.time import Duration, microseconds

__all__ = ["TumblingWindow", "tumbling"]


@dataclass(frozen=True)
class TumblingWindow:
    """Windows of one size, each beginning where the one before ends; made by :func:`tumbling`."""

    size: Duration
    offset: Duration = "0s"

    def __post_init__(self) -> None:
        """Check the durations."""
        if microseconds(self.size, "size of a window") == 0:
            raise PlanError("a window's size must be more than nothing")
        microseconds(self.offset, "offset of a window", is_negative_allowed=True)


def tumbling(size: Duration, offset: Duration = "0s") -> TumblingWindow:
    """Give windows of one size that follow each other without a gap.

    Parameters
    ----------
    size
        How long a window is.
    offset
        Where windows begin: at ``offset + n * size`` since 1970-01-01.

    Notes
    -----
    Windows have a fixed length: ``"1d"`` is 24 hours, counted from midnight UTC, also where the event time has a zone.
    On the days on which the clocks of that zone change, such a window therefore does not begin at local midnight; for days
    of the calendar, use ``.dt.truncate("1d")`` of the local time as a key.

    The unit of the event time must be able to hold the bounds: ``tumbling("1500ms")`` over times in seconds is refused.

    Examples
    --------
    >>> mill.tumbling("1m")
    TumblingWindow(size='1m', offset='0s')
    """
    return TumblingWindow(size, offset)
