"""A source that a test pushes records into."""

from __future__ import annotations

import weakref
from datetime import datetime
from typing import Any

from millstream._counts import count
from millstream._engine import RawPushedSource, rows_to_table
from millstream._foreign import check_frame
from millstream.errors import PlanError
from millstream.stream import Stream
from millstream.testing.clock import Moment, moment
from millstream.types import SchemaLike, schema_of

__all__ = ["Source", "live_sources"]

_SPLITS_MAX = 1024
_LIVE: weakref.WeakSet[Source] = weakref.WeakSet()


class Source:
    """A source whose records, watermarks, idleness and end are pushed by hand.

    Every split is a log that only grows. A job reads it when it runs, which is when it is asked for results, and after a
    restart reads it again from where its checkpoint was. Several jobs may read one source, one after the other or at once;
    each reads all of it.

    Parameters
    ----------
    schema
        The columns, in any of the forms that a schema can have.
    splits
        How many splits it has, numbered from 0. Each has its own order and watermark.
    name
        Its name in plans and messages.
    is_bounded
        Whether the plan may rely on its end, as for a source of files. The end comes with :meth:`end` in any case.

    Raises
    ------
    PlanError
        When ``splits`` is not an integer from 1 to 1024, or ``name`` is not text.
    SchemaError
        When ``schema`` is not a schema.

    Examples
    --------
    >>> from millstream import testing
    >>> source = testing.Source({"x": int})
    >>> doubled = source.stream().select(y=col("x") * 2)
    >>> with testing.Job(doubled) as job:
    ...     source.push({"x": 1}, {"x": 2})
    ...     job.collect()
    [{'y': 2}, {'y': 4}]
    """

    __slots__ = ("__weakref__", "_raw", "_schema", "_splits", "_stream")

    def __init__(self, schema: SchemaLike, *, splits: int = 1, name: str = "source", is_bounded: bool = False) -> None:
        self._splits = count(splits, "a source takes a number of splits from 1", 1, _SPLITS_MAX)
        if not isinstance(name, str) or not name:
            raise PlanError(f"the name of a source is a text, not {name!r:.80}")
        self._schema = schema_of(schema)
        self._raw = RawPushedSource(name, self._schema._raw, self._splits, bool(is_bounded))
        self._stream = Stream(self._raw.stream())
        _LIVE.add(self)

    def stream(self) -> Stream:
        """Return the stream of its records.

        Examples
        --------
        >>> from millstream import testing
        >>> testing.Source({"x": int}).stream()
        <Stream unbounded, x: int64>
        """
        return self._stream

    def push(self, *records: Any, split: int = 0) -> None:
        """Append records to the log of a split.

        Parameters
        ----------
        *records
            Dicts, tuples, dataclasses or plain values, as :func:`millstream.from_iter` takes them; or one table, which is
            anything with an Arrow interface.
        split
            The number of the split.

        Raises
        ------
        SchemaError
            When a record does not fit the columns. Then none of them is added.
        PlanError
            When there is no such split, or it has ended.

        Examples
        --------
        >>> from millstream import testing
        >>> source = testing.Source({"x": int, "y": str})
        >>> source.push({"x": 1, "y": "a"}, (2, "b"))
        >>> source.push(mill.from_iter([{"x": 3, "y": "c"}]).collect())
        >>> source.end()
        >>> [row["x"] for row in testing.collect(source.stream())]
        [1, 2, 3]
        """
        split = self._split(split)
        if len(records) == 1 and isinstance(records[0], list) and all(isinstance(record, dict) for record in records[0]):
            raise PlanError("push() takes records one by one; write push(*records)")
        if len(records) == 1 and (hasattr(records[0], "__arrow_c_stream__") or hasattr(records[0], "__arrow_c_array__")):
            check_frame(records[0], "push()")
            self._raw.push_arrow(split, records[0])
        else:
            self._raw.push_table(split, rows_to_table(self._schema._raw, list(records)))

    def watermark(self, at: Moment, *, split: int | None = None) -> None:
        """Declare that no record older than this follows, except for late ones.

        The watermark of a split is the greater of what was declared here and what ``event_time()`` derives from the
        records. It reaches an ``event_time()`` that comes before any exchange of records, such as ``rebalance()``. A stream
        without event time has no use for it.

        Parameters
        ----------
        at
            The time: a datetime, which has a zone if the event times have one; or text, which without a zone is in UTC.
        split
            The number of the split; by default all that have not ended.

        Raises
        ------
        PlanError
            When ``at`` is not a time, it has a zone and no column of times has one, or the other way round, or there is no
            such split.

        Examples
        --------
        >>> from datetime import datetime
        >>> from millstream import testing
        >>> source = testing.Source({"at": datetime})
        >>> counts = source.stream().event_time("at", watermark="1h").window_all(mill.tumbling("1m")).agg(n=mill.count())
        >>> with testing.Job(counts) as job:
        ...     source.push({"at": datetime(2024, 1, 1)})
        ...     before = job.collect()
        ...     source.watermark("2024-01-01T00:01:00")
        ...     len(before), [row["n"] for row in job.collect()]
        (0, [1])
        """
        at_us = moment(at, "watermark() takes a time")
        self._check_zone(at)
        for index in self._chosen(split):
            self._raw.watermark(index, at_us)

    def idle(self, *, split: int | None = None) -> None:
        """Declare that a split has nothing for now, so that time advances without it until it has a record again.

        As with idleness that is measured, records that follow are late if their window has closed meanwhile. Whether it has
        depends on the order of events, and so on the seed, unless the job was run in between.

        Parameters
        ----------
        split
            The number of the split; by default all that have not ended.

        Raises
        ------
        PlanError
            When there is no such split.

        Examples
        --------
        >>> from datetime import datetime
        >>> from millstream import testing
        >>> source = testing.Source({"at": datetime}, splits=2)
        >>> counts = source.stream().event_time("at").window_all(mill.tumbling("1m")).agg(n=mill.count())
        >>> with testing.Job(counts) as job:
        ...     source.push({"at": datetime(2024, 1, 1, 0, 0)}, {"at": datetime(2024, 1, 1, 0, 1)}, split=0)
        ...     before = job.collect()
        ...     source.idle(split=1)
        ...     len(before), len(job.collect())
        (0, 1)
        """
        for index in self._chosen(split):
            self._raw.idle(index)

    def end(self, *, split: int | None = None) -> None:
        """End a split; when all have ended, windows close and the job finishes.

        Parameters
        ----------
        split
            The number of the split; by default all.

        Raises
        ------
        PlanError
            When there is no such split.

        Examples
        --------
        >>> from millstream import testing
        >>> source = testing.Source({"x": int})
        >>> source.push({"x": 1}, {"x": 2})
        >>> source.end()
        >>> testing.collect(source.stream().agg(total=col("x").sum()))
        [{'total': 3}]
        """
        for index in self._chosen(split):
            self._raw.end(index)

    def _check_zone(self, at: Moment) -> None:
        """Refuse a time with a zone where those of the records have none, and the reverse; as a generator's watermarks are."""
        is_text = isinstance(at, str)
        time = datetime.fromisoformat(at) if isinstance(at, str) else at
        if not isinstance(time, datetime) or (is_text and time.tzinfo is None):
            return
        kinds = [repr(kind) for _, kind in self._schema.items() if repr(kind).startswith("timestamp")]
        has_zone = time.tzinfo is not None
        if kinds and all(("," in kind) != has_zone for kind in kinds):
            has, want = ("a zone", "none") if has_zone else ("no zone", "one")
            raise PlanError(f"watermark({time!s:.80}) has {has}, and the times of the source have {want}")

    def _split(self, split: int) -> int:
        return count(split, f"the splits of this source are numbered from 0 to {self._splits - 1}", 0)

    def _chosen(self, split: int | None) -> list[int]:
        if split is not None:
            return [self._split(split)]
        return [index for index in range(self._splits) if not self._raw.has_ended(index)]


def live_sources() -> list[RawPushedSource]:
    """Return all sources that are still referenced."""
    return [source._raw for source in _LIVE]
