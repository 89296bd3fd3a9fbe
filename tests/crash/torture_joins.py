"""The jobs of the crash matrix with two inputs, with timers of both clocks, and with calls in flight.

Each plan has six variants; see :func:`declare`. Their outputs are rows of whole numbers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pyarrow as pa

import millstream as mill
from millstream import col

PLANS = ("joined", "enriched", "regular", "timers", "broadcast", "async")
KEYS = 7
START = datetime(2024, 1, 1)
ROWS = 300
NULL = -5
"""What is shown of a null; -1 are the rows of the second job."""

Output = tuple[Any, str | list[str] | None]
"""A stream, and the key of the table that it is written into."""


@cache
def others() -> pa.Table:
    """Numbered records of the right side, a few of their keys null, out of order and some of them late."""
    dice = random.Random(2)
    times, clock = [], START
    for _ in range(ROWS):
        clock += timedelta(milliseconds=dice.choice([0, 300, 700]))
        times.append(clock - timedelta(seconds=dice.choice([0, 0, 1, 2, 30])))
    keys = [dice.choice([None, *range(KEYS + 2)]) for _ in range(ROWS)]
    return pa.table({"w": pa.array(range(ROWS), pa.int64()), "k": pa.array(keys, pa.int64()), "at": pa.array(times, pa.timestamp("us"))})


def declare(plan: str, is_keyed: bool, variant: int, table: Any, hook: Callable[[], object]) -> dict[str, Output]:
    """The outputs of a job by name; ``is_keyed`` says that they may be updating streams."""
    left, right = table.event_time("at", watermark="1s"), mill.from_arrow(others()).event_time("at", watermark="2s")
    if plan == "joined":
        joined = _joined(left, right, variant)
        late, late_right = joined.late.select("v", "k"), joined.late_right.select("w", k=col("k").fill_null(NULL))
        return {"rows": (_rows(joined), None), "late": (late, None), "late_right": (late_right, None)}
    if plan == "enriched":
        return {"rows": (_rows(_enriched(table, variant)), None)}
    if plan == "regular":
        return _regular(table, is_keyed, variant)
    if plan == "timers":
        rows = left.key_by("k").process(Twice(hook), schema={"v": int, "k": int, "w": int})
        return {"rows": (rows, None)}
    if plan == "broadcast":
        return {"rows": (_broadcast(table, left, variant, hook), None)}
    return {"rows": (_async(table.select("v", "k"), variant, hook), None)}


def _rows(joined: Any) -> Any:
    """The numbers of both records."""
    there = joined.schema.names
    columns = {name: col(name).fill_null(NULL) if name in there else mill.lit(0) for name in ("v", "k", "w")}
    return joined.select(**columns)


def _joined(left: Any, right: Any, variant: int) -> Any:
    """Window joins in windows of all kinds, interval joins and as-of joins."""
    if variant == 0:
        return left.join(right, on="k", window=mill.tumbling("5s"), how="left")
    if variant == 1:
        return left.join_interval(right, on="k", lower="-1s", upper="2s", how="full")
    if variant == 2:
        return left.join(right, on="k", window=mill.session("400ms"), how="right")
    if variant == 3:
        return left.join_asof(right, on="k", tolerance="3s")
    if variant == 4:
        return left.join(right, on="k", window=mill.sliding("6s", slide="3s"), how="full")
    return left.join_interval(right, left_on=col("k") + 1, right_on="k", lower="-1s", upper="1s", how="anti")


def _enriched(table: Any, variant: int) -> Any:
    """Tables, the table that comes from the stream itself, the latest rows of a stream, and look-ups by a function."""
    right = mill.from_arrow(others()).select("w", "k")
    if variant == 0:
        return table.enrich(right.filter(col("w") < 40), on="k", how="left")
    if variant == 1:
        return table.enrich(table.filter(col("v") % 50 == 0).select("k", w="v"), on="k")
    if variant == 2:
        latest = right.filter(col("k").is_not_null()).key_by("k").agg(w=col("w").max(), emit="each")
        return table.enrich(latest, on="k", how="left")
    if variant == 3:
        return table.enrich(right.filter(col("k") % 2 == 0), on="k", how="anti")

    def find(keys: list[int]) -> dict[int, int]:
        return {key: key * 11 for key in keys if key % 3}

    async def find_later(keys: list[int]) -> dict[int, int]:
        await asyncio.sleep(0.0001)
        return find(keys)

    return table.enrich(mill.lookup(find_later if variant == 4 else find, schema={"w": int}, cache=3), on="k", how="left")


def _regular(table: Any, is_keyed: bool, variant: int) -> dict[str, Output]:
    """Joins without windows: with a time to live and without, of records and of updating streams."""
    plain = mill.from_arrow(others()).filter(col("w") < 60).select("w", "k")
    table = table.filter(col("v") < 80)
    if not is_keyed:
        if variant in (0, 3):
            joined = table.join(plain, on="k", ttl="10000d", how="inner" if variant == 0 else "semi")
        elif variant in (1, 4):
            # Rows without a partner come at the end.
            joined = table.join(plain.filter(col("k") % 2 == 0), on="k", how="full" if variant == 1 else "anti")
        else:
            # By event time: two heaps of records, a day apart, of which the first is dropped when the second one comes.
            sides = ((table, "v"), (mill.from_arrow(others()).filter(col("w") < 60), "w"))
            heaps = [_apart(stream, by).event_time("at", watermark="1m") for stream, by in sides]
            joined = heaps[0].join(heaps[1], on="k", ttl="1h", how="inner" if variant == 2 else "semi")
        return {"rows": (_rows(joined), None)}
    totals = table.key_by("k").agg(n=mill.count(), total=col("v").sum(), emit="each")
    if variant < 3:
        how: Any = ("full", "left", "inner")[variant]
        counts = plain.filter(col("k").is_not_null()).key_by("k").agg(m=mill.count(), emit="each")
        joined = totals.join(counts, on="k", how=how, ttl="10000d")
        return {"totals": (joined.select("k", n=col("n").fill_null(NULL), m=col("m").fill_null(NULL)), joined.updating_key)}
    # Rows that move from key to key, and go.
    op = mill.when(col("v") % 5 == 0).then(mill.lit("delete")).otherwise(mill.lit("update"))
    moving = mill.from_changelog(table.select("k", "v", op=op, id=col("v") % 40), key="id")
    how = ("left", "semi", "anti")[variant - 3]
    joined = moving.join(totals.filter(col("total") % 2 == 0), on="k", how=how, ttl="10000d")
    n = col("n").fill_null(NULL) if variant == 3 else mill.lit(0)
    return {"totals": (joined.select("k", "id", "v", n=n), joined.updating_key)}


def _apart(stream: Any, number: str) -> Any:
    """The records at one time, but for all after the first thirty, which come a day later."""
    day = mill.when(col(number) >= 30).then(mill.lit(timedelta(days=1))).otherwise(mill.lit(timedelta(0)))
    return stream.with_columns(at=mill.lit(START) + day)


class Twice(mill.ProcessFunction):
    """Each record once by a timer of event time, and once by one of processing time; and states of both clocks that go."""

    by_event = mill.MapState(int, list[int], ttl="1d")
    by_clock = mill.MapState(int, list[int], ttl="10d", clock="processing")
    young = mill.MapState(int, int, ttl="2s")
    short = mill.ValueState(int, ttl="1ms", clock="processing", refresh="read")
    few = mill.ListState(int, ttl="3s")

    def __init__(self, hook: Callable[[], object]) -> None:
        # A function: what it belongs to is not copied with the object for each task.
        self.hook = lambda: hook()

    def process(self, row: Any, ctx: Any) -> None:
        self.hook()
        due = ctx.timestamp + timedelta(seconds=row.v % 5, microseconds=row.v)
        self.by_event[_number(due)] = [*self.by_event.get(_number(due), ()), row.v]
        ctx.timers.event_time(due)
        due = ctx.now + timedelta(microseconds=row.v % 5 * 300)
        self.by_clock[_number(due)] = [*self.by_clock.get(_number(due), ()), row.v]
        ctx.timers.processing_time(due)
        self.young[row.v] = row.v * 3
        self.few.add(row.v)
        self.short.value = row.v if self.short.value is None else max(row.v, self.short.value)

    def on_timer(self, at: datetime, ctx: Any) -> Iterator[dict[str, int]]:
        is_event = ctx.timer == "event"
        for v in (self.by_event if is_event else self.by_clock).pop(_number(at)):
            # At least once, a record that is read again may be in the list already.
            assert self.young.get(v, v * 3) == v * 3 and all(item >= 0 for item in self.few)
            yield {"v": v, "k": ctx.key, "w": int(is_event)}


class Ruled(mill.ProcessFunction):
    """Each record once, with what the rules say that every task has: at once, or when a timer of its own fires."""

    rules = mill.MapState(int, list[int], broadcast=True)
    last = mill.ValueState(int, broadcast=True)
    pending = mill.MapState(int, list[int])
    n = mill.ValueState(int, default=0)

    def __init__(self, is_timed: bool, hook: Callable[[], object]) -> None:
        self.is_timed = is_timed
        # A function: what it belongs to is not copied with the object for each task.
        self.hook = lambda: hook()

    def process_broadcast(self, row: Any, ctx: Any) -> None:
        # Once more is the same: at least once, rules are read again.
        if row.w % 11 == 10:
            self.rules.pop(row.w % 7, None)
        else:
            self.rules[row.w % 7] = [row.w, row.w * 2]
        self.last.value = row.w

    def said(self, v: int) -> int:
        rule = self.rules.get(v % 7, [0, 0])
        return rule[0] * 1000 + (self.last.value or 0)

    def process(self, row: Any, ctx: Any) -> Iterator[dict[str, int]]:
        self.hook()
        self.n.value += 1
        if not self.is_timed:
            yield {"v": row.v, "k": ctx.key, "w": self.said(row.v)}
            return
        due = ctx.timestamp + timedelta(seconds=row.v % 5, microseconds=row.v)
        self.pending[_number(due)] = [*self.pending.get(_number(due), ()), row.v]
        ctx.timers.event_time(due)

    def on_timer(self, at: datetime, ctx: Any) -> Iterator[dict[str, int]]:
        for v in self.pending.pop(_number(at)):
            yield {"v": v, "k": ctx.key, "w": self.said(v)}


def _broadcast(table: Any, left: Any, variant: int, hook: Callable[[], object]) -> Any:
    """Rules of another table, with event time and without, and rules made of the very records that they are for."""
    if variant % 3 == 0:
        rules = mill.from_arrow(others()).select("w")
    elif variant % 3 == 1:
        rules = mill.from_arrow(others()).event_time("at", watermark="2s").select("w")
    else:
        rules = table.filter(col("v") % 5 == 0).select(w="v")
    return left.key_by("k").process(Ruled(variant < 3, hook), schema={"v": int, "k": int, "w": int}, broadcast=rules)


def _number(moment: datetime) -> int:
    return (moment.replace(tzinfo=None) - START) // timedelta(microseconds=1)


def _async(stream: Any, variant: int, hook: Callable[[], object]) -> Any:
    """Calls in flight, of records and of batches, in order and not, some of which fail at first."""
    schema = {"v": int, "k": int, "w": int}
    tries: dict[int, int] = {}

    async def double(row: Any) -> dict[str, int]:
        hook()
        await asyncio.sleep(0.0001 * (row.v % 3))
        tries[row.v] = tries.get(row.v, 0) + 1
        if variant % 3 == 2 and row.v % 10 == 0 and tries[row.v] % 2:
            raise ConnectionError("for now")
        return {"v": row.v, "k": row.k, "w": row.v * 2}

    async def double_all(batch: Any) -> dict[str, Any]:
        hook()
        await asyncio.sleep(0.0001 * (batch.num_rows % 3))
        return {"v": batch["v"], "k": batch["k"], "w": pa.array([v * 2 for v in batch["v"].to_pylist()])}

    is_ordered = variant % 2 == 0
    if variant in (1, 4):
        return stream.map_batches_async(double_all, schema=schema, batch_rows=5, capacity=3, ordered=is_ordered)
    capacity = (1, 0, 10, 100, 0, 10)[variant]
    again: dict[str, Any] = {"retries": 2, "retry_on": ConnectionError, "backoff": "100us"} if variant % 3 == 2 else {}
    return stream.map_async(double, schema=schema, capacity=capacity, ordered=is_ordered, **again)
