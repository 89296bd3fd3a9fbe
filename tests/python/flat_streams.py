"""Streams over keys that never come again, one for each kind of window, join and state: what they keep must not grow.

Event time goes on steadily, without an end: what a step would keep until the end is then kept, too. A key has :data:`ROWS_A_KEY` records in a row, and none after them. Where a step keeps a row a
key for good, by its contract, keys come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa

import millstream as mill
from millstream import col, lit

HOUR_US = 3_600_000_000
ROWS_A_KEY = 4
# Of a run that takes two seconds by the clock.
CLOCK_TTL = "200ms"

TOTAL = {"n": mill.count(), "total": col("value").sum()}


@dataclass(frozen=True)
class Made:
    """The records, as the kinds need them."""

    plain: mill.Stream
    timed: mill.Stream

    @property
    def keyed(self) -> Any:
        """By a key that never comes again."""
        return self.timed.key_by("key")

    @property
    def few(self) -> Any:
        """By one of a thousand keys that come again and again."""
        return self.timed.key_by(key=col("key") % 1000)

    @property
    def other(self) -> mill.Stream:
        """The other side of a join: a quarter of the records, of which half have a key that no other record has."""
        return self.timed.filter(col("value") % 4 == 0).select("at", key=col("key") + col("value") % 8 * 10**12, other=col("value"))


def made(rows: int, rate: float) -> Made:
    """Return records, so many in an hour, that come at a steady rate, half a second out of order, so that windows stay open for a while."""
    step_us = HOUR_US // rows
    jitter = (mill.index() * 7919) % 500_000
    plain = mill.generate(
        rate=rate,
        key=mill.index() // ROWS_A_KEY,
        value=mill.index() % 1000,
        at=(mill.index() * step_us - jitter).cast(mill.Timestamp("us")),
    )
    return Made(plain, plain.event_time("at", watermark="1s"))


Kind = Callable[[Made], Any]


def windows() -> dict[str, Kind]:
    """Return those with windows."""

    def by_record(it: Made) -> Any:
        spanned = it.timed.with_columns(gap=(col("value") % 5 + 1) * lit(timedelta(seconds=1)))
        return spanned.key_by("key").window(mill.session(col("gap"))).agg(**TOTAL)

    def applied(it: Made) -> Any:
        # A function call a window: fewer windows than of the other kinds.
        of_ten = it.timed.key_by(key=col("key") // 1000).window(mill.tumbling("10s"))
        return of_ten.apply(lambda key, window, rows: {"n": rows.num_rows}, schema={"n": int})

    def reduced(it: Made) -> Any:
        of_ten = it.timed.select("at", "value", key=col("key") // 1000).key_by("key")
        return of_ten.window(mill.tumbling("10s")).reduce(lambda so_far, row: row)

    def early(it: Made) -> Any:
        trigger = mill.on_watermark(early=mill.every(2))
        return it.keyed.window(mill.tumbling("10s"), trigger=trigger).agg(**TOTAL)

    def everywhere(it: Made) -> Any:
        # Keys whose windows have no end keep their row for good, so keys come again.
        return it.few.window(mill.global_window(), trigger=mill.on_count(100)).agg(**TOTAL, last=col("value").last())

    return {
        "tumbling": lambda it: it.keyed.window(mill.tumbling("10s")).agg(**TOTAL),
        "sliding": lambda it: it.keyed.window(mill.sliding("10s", slide="2s")).agg(**TOTAL),
        "cumulative": lambda it: it.keyed.window(mill.cumulative(step="5s", size="20s")).agg(**TOTAL),
        "session": lambda it: it.keyed.window(mill.session("5s")).agg(**TOTAL),
        "session by record": by_record,
        "apply": applied,
        "reduce": reduced,
        # A key whose window is not full keeps its records for good, so keys come again.
        "count": lambda it: it.few.window(mill.count_window(100)).agg(**TOTAL),
        "early": early,
        "global": everywhere,
        "rolling": lambda it: it.keyed.rolling("10s").agg(**TOTAL),
        "top_n": lambda it: it.keyed.top_n(1, by="value", within=mill.tumbling("10s")),
        "deduplicate": lambda it: it.keyed.deduplicate(within="10s"),
        "alone": lambda it: it.timed.window_all(mill.tumbling("10s")).agg(people=col("key").n_unique()),
    }


def joins() -> dict[str, Kind]:
    """Return those of two streams, and look-ups."""
    tumbling = mill.tumbling("10s")

    def in_windows(window: Any, how: str) -> Kind:
        return lambda it: it.timed.join(it.other, on="key", window=window, how=how)

    def in_interval(how: str) -> Kind:
        return lambda it: it.timed.join_interval(it.other, on="key", lower="-2s", upper="5s", how=how)

    def regular(how: str) -> Kind:
        return lambda it: it.timed.join(it.other, on="key", ttl="10s", how=how)

    def by_the_clock(it: Made) -> Any:
        right = it.plain.filter(col("value") % 4 == 0).select("key", other="value")
        return it.plain.join(right, on="key", ttl=CLOCK_TTL, how="left")

    def updating(it: Made) -> Any:
        # The totals of windows are given up with their windows, and the rows that were joined by the clock.
        early = mill.on_watermark(early=mill.every(2))
        totals = it.keyed.window(tumbling, trigger=early).agg(**TOTAL)
        return it.timed.join(totals, on="key", ttl=CLOCK_TTL)

    def latest(it: Made) -> Any:
        # The latest row of a key is kept for good, so keys come again.
        right = it.few.agg(total=col("value").sum(), emit="each")
        return it.timed.with_columns(key=col("key") % 1000).enrich(right, on="key", how="left")

    def looked_up(it: Made) -> Any:
        found = mill.lookup(lambda keys: {key: {"name": str(key)} for key in keys}, schema={"name": str}, cache=1000, ttl="1s")
        return it.timed.enrich(found, on="key")

    def looked_up_async(it: Made) -> Any:
        async def find(keys: list[int]) -> dict[int, dict[str, str]]:
            await asyncio.sleep(0.001)
            return {key: {"name": str(key)} for key in keys}

        return it.timed.enrich(mill.lookup(find, schema={"name": str}, cache=1000, ttl="1s"), on="key")

    return {
        **{f"window join, {how}": in_windows(tumbling, how) for how in ("inner", "left", "right", "full", "semi", "anti")},
        "window join, sliding": in_windows(mill.sliding("10s", slide="5s"), "full"),
        "window join, cumulative": in_windows(mill.cumulative(step="5s", size="10s"), "full"),
        "window join, session": in_windows(mill.session("2s"), "full"),
        **{f"interval join, {how}": in_interval(how) for how in ("inner", "left", "right", "full", "semi", "anti")},
        # Without a tolerance, the latest version of each key is kept for good.
        "as-of join": lambda it: it.timed.join_asof(it.other, on="key", tolerance="10s"),
        "as-of join, keys that come again": lambda it: it.timed.with_columns(key=col("key") % 1000).join_asof(
            it.other.with_columns(key=col("key") % 1000), on="key"
        ),
        **{f"regular join, {how}": regular(how) for how in ("inner", "left", "right", "full", "semi", "anti")},
        "regular join by the clock": by_the_clock,
        "regular join of an updating stream": updating,
        "enrich, latest": latest,
        "lookup": looked_up,
        "lookup, async": looked_up_async,
    }


class Kept(mill.ProcessFunction):
    """Has a state of each kind, which expire."""

    value = mill.ValueState(int, ttl="10s")
    items = mill.ListState(int, ttl="10s")
    entries = mill.MapState(int, int, ttl="10s")
    most = mill.ReducingState(int, max, ttl="10s")
    anything = mill.ValueState(object, ttl="10s")

    def process(self, row: Any, ctx: Any) -> Iterator[dict[str, int]]:
        self.value.value = row.value
        self.items.add(row.value)
        self.entries[row.value] = row.value
        self.most.add(row.value)
        self.anything.value = (row.value,)
        yield {"n": len(self.items.get())}


class KeptByTheClock(Kept):
    """Expires by the clock of the machine."""

    value = mill.ValueState(int, ttl=CLOCK_TTL, clock="processing")
    items = mill.ListState(int, ttl=CLOCK_TTL, clock="processing")
    entries = mill.MapState(int, int, ttl=CLOCK_TTL, clock="processing")
    most = mill.ReducingState(int, max, ttl=CLOCK_TTL, clock="processing")
    anything = mill.ValueState(object, ttl=CLOCK_TTL, clock="processing")


class KeptWhileRead(Kept):
    """A read lets it live longer, too."""

    value = mill.ValueState(int, ttl="10s", refresh="read")
    items = mill.ListState(int, ttl="10s", refresh="read")
    entries = mill.MapState(int, int, ttl="10s", refresh="read")
    most = mill.ReducingState(int, max, ttl="10s", refresh="read")
    anything = mill.ValueState(object, ttl="10s", refresh="read")


class Entries(mill.ProcessFunction):
    """Has entries that never come again, under keys that do."""

    # A record of a key comes every few seconds.
    items = mill.ListState(int, ttl="1m")
    entries = mill.MapState(int, int, ttl="1m")

    def process(self, row: Any, ctx: Any) -> Iterator[dict[str, int]]:
        self.items.add(row.number)
        self.entries[row.number] = row.value
        yield {"n": len(self.entries)}


class Cleared(mill.ProcessFunction):
    """Clears its state by a timer."""

    value = mill.ValueState(int)

    def process(self, row: Any, ctx: Any) -> None:
        if self.value.value is None:
            ctx.timers.event_time(ctx.timestamp + timedelta(seconds=5))
        self.value.value = row.value

    def on_timer(self, at: Any, ctx: Any) -> Iterator[dict[str, int]]:
        yield {"n": self.value.value or 0}
        self.value.clear()


class ClearedByTheClock(Cleared):
    """Clears its state some time later."""

    def process(self, row: Any, ctx: Any) -> None:
        if self.value.value is None:
            ctx.timers.processing_time(ctx.now + timedelta(milliseconds=200))
        self.value.value = row.value


class Connected(mill.ProcessFunction):
    """Has a state of two streams."""

    value = mill.ValueState(int, ttl="10s")

    def process_left(self, row: Any, ctx: Any) -> Iterator[dict[str, int]]:
        yield {"n": self.value.value or 0}

    def process_right(self, row: Any, ctx: Any) -> None:
        self.value.value = row.other


class Ruled(mill.ProcessFunction):
    """Has the latest rules, by one of a thousand names."""

    value = mill.ValueState(int, ttl="10s")

    def process(self, row: Any, ctx: Any) -> Iterator[dict[str, int]]:
        rule = ctx.broadcast.get(row.value)
        self.value.value = 0 if rule is None else rule.n
        yield {"n": self.value.value}


def states() -> dict[str, Kind]:
    """Return those with functions that keep something, or have calls in flight."""

    def process(function: type[mill.ProcessFunction]) -> Kind:
        return lambda it: it.keyed.process(function(), schema={"n": int})

    def entries(it: Made) -> Any:
        return it.timed.select("at", "value", number="key", key=col("key") % 1000).key_by("key").process(Entries(), schema={"n": int})

    def ruled(it: Made) -> Any:
        rules = it.plain.filter(col("value") < 10).select(name="value", n="key").key_by("name")
        return it.keyed.process(Ruled(), broadcast=rules, schema={"n": int})

    async def answer(row: Any) -> dict[str, int]:
        await asyncio.sleep(0.001)
        return {"n": row.value}

    async def answer_all(batch: pa.RecordBatch) -> dict[str, Any]:
        await asyncio.sleep(0.001)
        return {"n": batch["value"]}

    return {
        "states": process(Kept),
        "states by the clock": process(KeptByTheClock),
        "states that are read": process(KeptWhileRead),
        "entries": entries,
        "timers": process(Cleared),
        "timers by the clock": process(ClearedByTheClock),
        "connect": lambda it: it.keyed.connect(it.other.key_by("key")).process(Connected(), schema={"n": int}),
        "broadcast": ruled,
        "map_async": lambda it: it.timed.map_async(answer, schema={"n": int}, capacity=100),
        "map_async, unordered": lambda it: it.timed.map_async(answer, schema={"n": int}, capacity=100, ordered=False),
        "map_batches_async": lambda it: it.timed.map_batches_async(answer_all, schema={"n": int}, batch_rows=256, capacity=8),
    }


KINDS: dict[str, Kind] = {**windows(), **joins(), **states()}

# By its contract it keeps a row a key for good: a leak looks like this.
GROWS: dict[str, Kind] = {"totals": lambda it: it.keyed.agg(**TOTAL, emit="each")}
