"""The dead letters of several streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream._engine import RawStream
from millstream.errors import PlanError
from millstream.io.sinks import Output
from millstream.keyed import ConnectedStreams, KeyedStream, RollingStream, WindowedStream
from millstream.stream import Stream

if TYPE_CHECKING:
    from typing import TypeAlias

    HasSteps: TypeAlias = Stream | KeyedStream | WindowedStream | RollingStream | ConnectedStreams | Output

__all__ = ["all_errors"]


def all_errors(*streams: HasSteps) -> Stream:
    """Return the records that failed in any step that these streams and sinks come from.

    It is :attr:`Stream.all_errors` for a job with several sinks: a step that several of them come from is in it once.

    Parameters
    ----------
    *streams
        Streams, keyed or windowed streams, and sinks; usually all sinks of the job.

    Returns
    -------
    Stream
        The columns ``step``, ``error``, ``traceback`` and ``record``, all text.

    Raises
    ------
    PlanError
        When no stream is given, something else is given, or no record can fail in any step.

    Notes
    -----
    The job must run with ``on_error="route"``. The order between the errors of different steps depends on timing. A record that
    a sink itself refuses is not in it: it fails the job.

    Examples
    --------
    >>> rows = mill.from_iter(["1", "x", "0"]).select(n=col("value").cast(int)).name("parse")
    >>> doubled = rows.select(n=col("n") * 2).for_each(print)
    >>> inverse = rows.map(lambda row: {"inverse": 1 / row.n}, schema={"inverse": float}).name("invert").for_each(print)
    >>> letters = mill.all_errors(doubled, inverse).collect(on_error="route").to_pylist()
    >>> sorted((letter["step"], letter["record"]) for letter in letters)
    [('invert', '{"n":0}'), ('parse', '{"value":"x"}')]
    """
    return Stream(RawStream.all_errors([raw for stream in streams for raw in _raw(stream)]))


def _raw(stream: HasSteps) -> list[RawStream]:
    if isinstance(stream, Stream):
        return [stream._raw]
    if isinstance(stream, (KeyedStream, WindowedStream, RollingStream, Output)):
        return [stream._raw.stream()]
    if isinstance(stream, ConnectedStreams):
        return [stream._left._raw.stream(), stream._right._raw.stream()]
    hint = "; pass several one by one, as in all_errors(*sinks)" if isinstance(stream, (list, tuple)) else ""
    raise PlanError(f"all_errors() takes streams and sinks, not {type(stream).__name__}{hint}")
