"""Joins of two streams; :class:`millstream.Stream` has all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from millstream._engine import RawJoin
from millstream._hints import takes_by_name
from millstream._nearest import did_you_mean
from millstream.errors import PlanError
from millstream.expr import Expr, _column
from millstream.time import Duration, microseconds
from millstream.window import Window

if TYPE_CHECKING:
    from millstream._engine import RawExpr, RawStream
    from millstream.stream import Stream

__all__ = ["How", "JoinKey", "Joins"]

How = Literal["inner", "left", "right", "full", "semi", "anti"]
"""Which rows a join has."""

JoinKey = str | Expr | Sequence[str | Expr]
"""What records are joined by: a column, an expression, or several of them."""

_HOWS = ("inner", "left", "right", "full", "semi", "anti")


def _right(method: str, other: object) -> RawStream:
    from millstream.stream import Stream

    if type(other).__name__ == "KeyedStream":
        raise PlanError(f'{method}() joins streams, and this one is keyed: remove key_by(), and name the key: {method}(other, on="id")')
    if not isinstance(other, Stream):
        raise PlanError(
            f"{method}() joins with a stream, not {type(other).__name__}; make one with mill.from_arrow() or mill.from_iter()"
        )
    return other._raw


def _how(method: str, how: object, allowed: Sequence[str] = _HOWS) -> str:
    if isinstance(how, str) and how in allowed:
        return how
    meant = how
    if isinstance(how, str) and "outer" in how:
        meant = next((name for name in ("left", "right", "full") if name in allowed and (name in how or name == "full")), None)
    hint = did_you_mean(meant, allowed)
    raise PlanError(f"{method}(): how={how!r:.200} is not possible{hint or ';'} it is one of {', '.join(map(repr, allowed))}")


def _side(method: str, name: str, key: object) -> list[RawExpr]:
    parts = [key] if isinstance(key, (str, Expr)) else key
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, (str, Expr)) for part in parts):
        raise PlanError(
            f'{method}(): {name}= is a column, an expression or a list of them, as in {name}="id", not {key!r:.200}'
        )
    return [_column(part) for part in parts]


def _join(
    method: str,
    on: str | Sequence[str] | None,
    left_on: JoinKey | None,
    right_on: JoinKey | None,
    how: object,
    suffix: object,
    allowed: Sequence[str] = _HOWS,
) -> RawJoin:
    """Check the options that all kinds of joins have."""
    checked = _how(method, how, allowed)
    columns, left, right = _key(method, on, left_on, right_on)
    if not isinstance(suffix, str):
        raise PlanError(f'{method}(): suffix= is a text such as "_right", not {suffix!r:.200}')
    return RawJoin(columns, left, right, checked, suffix)


def _key(
    method: str, on: str | Sequence[str] | None, left_on: JoinKey | None, right_on: JoinKey | None
) -> tuple[list[str] | None, list[RawExpr], list[RawExpr]]:
    if on is not None:
        if left_on is not None or right_on is not None:
            raise PlanError(f"{method}() takes on=, or left_on= and right_on=, not both")
        names: Any = [on] if isinstance(on, str) else on
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise PlanError(
                f'{method}(): on= names columns that both sides have, as in on="id" or on=["id", "day"], not {on!r:.200}; '
                "expressions go into left_on= and right_on="
            )
        return list(names), [], []
    if left_on is None or right_on is None:
        raise PlanError(
            f'{method}() needs a key: on="id" for a column that both sides have, or left_on="id", right_on="user_id"'
        )
    return None, _side(method, "left_on", left_on), _side(method, "right_on", right_on)


class Joins:
    """Methods that join a stream with another one; :class:`millstream.Stream` has all of them."""

    __slots__ = ()

    @takes_by_name('join_interval(other, on="id", lower="0s", upper="5m")')
    def join_interval(
        self,
        other: Stream,
        *,
        on: str | Sequence[str] | None = None,
        left_on: JoinKey | None = None,
        right_on: JoinKey | None = None,
        lower: Duration,
        upper: Duration,
        how: How = "inner",
        suffix: str = "_right",
    ) -> Stream:
        """Join records with the same key whose event times are close to each other.

        A record of the other stream is a partner of a record of this stream at ``time`` if its own time is between ``time +
        lower`` and ``time + upper``, both included.

        Parameters
        ----------
        other
            The right side. It may be this stream itself.
        on
            One or several columns that both sides have; the result has each of them once.
        left_on, right_on
            Instead of ``on``: columns or expressions of each side, in the same order. The result has the columns of both
            sides.
        lower, upper
            The earliest and the latest time of a partner, relative to the record of this stream. A negative duration, such
            as
            ``"-5m"``, is before it.
        how
            ``"inner"``: one row for each pair. ``"left"``, ``"right"``, ``"full"``: also one row for each record of this stream, of
            the other one, or of both, that has no partner, with null in the columns of the other side. ``"semi"``: each
            record of this stream that has a partner, once. ``"anti"``: each record of this stream that has none.
        suffix
            What is appended to the name of a column of the right side that the left side has too.

        Returns
        -------
        Stream
            The columns of this stream, then those of the other one. The event time of a row is the later one of its two
            records, or that of its only record.

        Raises
        ------
        PlanError
            When a side has no event time or is an updating stream, an option is not one of its choices, or two columns
            would have the same name.
        SchemaError
            When a key does not exist, or has types that no common type holds exactly.

        Notes
        -----
        A null key matches nothing. A record without a partner is emitted as soon as no partner can arrive any more.

        Each side keeps its records as state until the watermark of the other side shows that no partner can arrive;
        ``explain()`` shows how long that is. A record that is older than the watermark of its own side is late, since its
        partners may have been dropped. It is in ``.late`` if it belongs to this stream, and in ``.late_right`` if it
        belongs to the other one.

        Examples
        --------
        >>> from datetime import datetime
        >>> ads = mill.from_iter([{"ad": 1, "at": datetime(2024, 1, 1, 10, 0)}, {"ad": 2, "at": datetime(2024, 1, 1, 10, 1)}])
        >>> clicks = mill.from_iter([{"ad": 1, "at": datetime(2024, 1, 1, 10, 4)}])
        >>> shown = ads.event_time("at").join_interval(clicks.event_time("at"), on="ad", lower="0s", upper="5m", how="left")
        >>> sorted((row["ad"], row["at_right"] is not None) for row in shown.collect().to_pylist())
        [(1, True), (2, False)]
        """
        from millstream.stream import Stream

        method = "join_interval"
        right, join = _right(method, other), _join(method, on, left_on, right_on, how, suffix)
        first, last = (microseconds(bound, name, is_negative_allowed=True) for bound, name in ((lower, "lower"), (upper, "upper")))
        return Stream(cast("Stream", self)._raw.join_interval(right, join, first, last))

    @takes_by_name('join(other, on="id", window=mill.tumbling("1m"))')
    def join(
        self,
        other: Stream,
        *,
        on: str | Sequence[str] | None = None,
        left_on: JoinKey | None = None,
        right_on: JoinKey | None = None,
        window: Window | None = None,
        ttl: Duration | None = None,
        how: How = "inner",
        suffix: str = "_right",
    ) -> Stream:
        """Join rows with the same key: all rows, or with ``window`` those in the same window of event time.

        Parameters
        ----------
        other
            The right side. It may be this stream itself.
        on
            One or several columns that both sides have; the result has each of them once.
        left_on, right_on
            Instead of ``on``: columns or expressions of each side, in the same order. The result has the columns of both
            sides.
        window
            The windows: :func:`tumbling`, :func:`sliding` or :func:`cumulative` ones, or a :func:`session` with one gap,
            which records of both sides form together. Two records that share several windows make one row in each of them.
        ttl
            How long a row is kept that is neither changed nor joined, such as ``"1h"``; not together with ``window``. None
            keeps all rows, which only bounded streams allow.
        how
            ``"inner"``: one row for each pair. ``"left"``, ``"right"``, ``"full"``: also one row for each record of this stream, of
            the other one, or of both, that has no partner (in the window), with null in the columns of the other side.
            ``"semi"``: each record of this stream that has a partner, once (for each window). ``"anti"``: each record of
            this stream that has none.
        suffix
            What is appended to the name of a column of the right side that the left side has too.

        Returns
        -------
        Stream
            The columns of both sides. With ``window``, then ``window_start`` and ``window_end``; the event time of a row is
            the last moment of its window. Without ``window``, the result may be an updating stream; see below.

        Raises
        ------
        PlanError
            When an unbounded side is joined with neither ``window`` nor ``ttl``, an option is not one of its choices, or
            two columns would have the same name. With ``window``, when a side has no event time or is an updating stream.
        SchemaError
            When a key does not exist, or has types that no common type holds exactly.

        Notes
        -----
        A null key matches nothing.

        **Without** ``window``, the sides may be updating streams, and the result changes with them. If a row changes, so do
        the rows that it is part of; if it is deleted, they are deleted. The row with nulls of a record that has no partner
        is deleted when its first partner arrives, and is inserted again when the last one is deleted.

        So the result is an updating stream, :attr:`updating_key` is its key, and sinks with a key and :meth:`to_changelog`
        accept it. The key consists of ``on`` and of what identifies the rows of each side: the key of an updating stream,
        or a number for each record of any other stream, in a column ``left_row`` or ``right_row``. The right part is left
        out where a row of the left side has at most one partner. If an updating stream is joined by other columns than
        those of its key, the latest row of each key is kept as well, for as long as the job runs, so that a row whose join
        key changes is deleted from its former one.

        If both sides are append-only, so is the result where nothing is ever deleted: for ``"inner"`` and ``"semi"``, and
        for all others if both sides are bounded and there is no ``ttl``. Then rows without a partner are emitted at the
        end.

        A row that has been neither changed nor joined for ``ttl`` is dropped, and counts as not there from that moment on.
        The rows that it is part of stay as they are. If both sides are append-only and have event time, ``ttl`` is measured
        in event time: a row is also not there for a record that is earlier than its last use by ``ttl`` or more. A record
        that is older than the watermark of its own side is then late, and is in ``.late`` or ``.late_right``. Otherwise
        ``ttl`` is measured in processing time. Which rows are still there when a record arrives depends on the order in
        which the records of both sides arrive; the result of :meth:`join_interval` does not.

        **With** ``window``, a pair is emitted as soon as both of its records have arrived; a record without a partner when
        the watermark of the other side has passed the end of the window. In sessions, all rows are emitted when both
        watermarks have passed the end. Each side keeps its records as state until the watermark of the other side has
        passed the end of their window. A record is late for a window if the watermark of its own side has passed the end.
        If it is late for all of its windows, it is in ``.late`` if it belongs to this stream, and in ``.late_right`` if it
        belongs to the other one. For sessions, a record is late that is older than the watermark of its own side.

        Examples
        --------
        Two unbounded streams need a ``ttl``. Here they are bounded:

        >>> orders = mill.from_iter([{"order": 1, "user": "ann"}, {"order": 2, "user": "bob"}])
        >>> payments = mill.from_iter([{"order": 1, "paid": 20}])
        >>> orders.join(payments, on="order", how="left").collect().sort("order").to_pylist()
        [{'order': 1, 'user': 'ann', 'paid': 20}, {'order': 2, 'user': 'bob', 'paid': None}]

        With a ``ttl``, the row without a partner is emitted at once, and deleted later:

        >>> shown = orders.join(payments, on="order", how="left", ttl="1d")
        >>> shown.updating_key
        ['order', 'left_row', 'right_row']

        In the same window of event time:

        >>> from datetime import datetime
        >>> orders = mill.from_iter([{"user": 1, "x": 7, "at": datetime(2024, 1, 1, 10, 0, 2)}]).event_time("at")
        >>> visits = mill.from_iter([{"user": 1, "page": "a", "at": datetime(2024, 1, 1, 10, 0, 9)}]).event_time("at")
        >>> joined = orders.join(visits, on="user", window=mill.tumbling("10s"))
        >>> joined.select("user", "x", "page", "window_end").collect().to_pylist()
        [{'user': 1, 'x': 7, 'page': 'a', 'window_end': datetime.datetime(2024, 1, 1, 10, 0, 10)}]
        """
        from millstream.stream import Stream

        method = "join"
        right, join = _right(method, other), _join(method, on, left_on, right_on, how, suffix)
        if window is None:
            age = None if ttl is None else microseconds(ttl, "ttl")
            return Stream(cast("Stream", self)._raw.join_regular(right, join, age))
        if ttl is not None:
            raise PlanError(
                "join() takes window= or ttl=, not both: with window= records are kept until their window is over, with ttl= until "
                "they have been neither changed nor joined for so long"
            )
        if not isinstance(window, Window):
            raise PlanError(f'join(): window= takes a window such as mill.tumbling("10s"), not {window!r:.200}')
        return Stream(cast("Stream", self)._raw.join_window(right, join, window._raw()))

    @property
    def late_right(self) -> Stream:
        """The late records of the right side of a join, unchanged: those that arrived too late for their partners.

        Raises
        ------
        PlanError
            When the step before is not a join.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1)}]).event_time("at")
        >>> len(s.join_interval(s, on="k", lower="0s", upper="1s").late_right.collect())
        0
        """
        from millstream.stream import Stream

        return Stream(cast("Stream", self)._raw.late_right())
