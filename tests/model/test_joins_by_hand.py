"""Random joins whose result depends on the order in which records come: by hand, over kills and restores, against a plain model.

Those with a time to live, by the clock and by event time, and look-ups in the latest rows of a stream that goes on.

``MILL_CASES`` sets how many cases are drawn (60 unless set), ``MILL_SEED`` the first of them. A failure prints its
seed: ``MILL_SEED=<seed> MILL_CASES=1`` replays it.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import hand_joins
import pytest

import millstream as mill
from millstream import testing

FIRST = int(os.environ.get("MILL_SEED", "1"))
CASES = int(os.environ.get("MILL_CASES", "60"))
EPOCH = datetime(1970, 1, 1)
SCHEMA = {"k": int, "id": int, "n": int}


def counted(rows: list[dict[str, Any]]) -> Counter[Any]:
    """Rows without an order, and without what only tells them apart."""
    unshown = ("op", "at", "at_right", "left_row", "right_row")
    return Counter(tuple((name, value) for name, value in sorted(row.items()) if name not in unshown) for row in rows)


def declared(source: testing.Source, kind: str, bound: int | None) -> mill.Stream:
    """The stream of a side."""
    if kind != "append":
        return mill.from_changelog(source.stream(), key=hand_joins.KEYS[kind])
    return source.stream() if bound is None else source.stream().event_time("at", watermark=timedelta(seconds=bound))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + CASES))
def test_rows_that_are_not_used_are_dropped(seed: int) -> None:
    dice = random.Random(seed)
    kinds = [dice.choice(hand_joins.SIDES) for _ in range(2)]
    how: Any = dice.choice(hand_joins.HOWS)
    ttl = dice.choice([1, 4, 15])
    by_event_time = kinds == ["append", "append"] and dice.random() < 0.7
    bounds = [dice.choice([0, 3]) if by_event_time else None for _ in range(2)]
    extra = {"at": datetime} if by_event_time else {}
    sources = [
        testing.Source({**({} if kind == "append" else {"op": str}), **SCHEMA, **extra}, name=f"side {side}")
        for side, kind in enumerate(kinds)
    ]
    left, right = (declared(source, kind, bound) for source, kind, bound in zip(sources, kinds, bounds, strict=True))
    result = left.join(right, on="k", how=how, ttl=timedelta(seconds=ttl))
    late = [result.late, result.late_right] if by_event_time else []
    count = dice.choice([5, 25])
    given = [hand_joins.records(dice, kind, side * 1000, count) for side, kind in enumerate(kinds)]
    model = hand_joins.Model(how, kinds, ttl, result.updating_key)
    now, times, latest, wanted_late = 0, [0, 0], [-(2**62), -(2**62)], [[], []]
    clock = testing.Clock()
    rows: list[dict[str, Any]] = []
    with testing.Job(
        result,
        *late,
        clock=clock,
        seed=dice.randrange(2**32),
        parallelism=dice.randint(1, 5),
        frame_rows=dice.choice([1, 64]),
        chaining=dice.random() < 0.7,
    ) as job:
        while any(given):
            what = dice.random()
            if what < 0.6:
                side = dice.choice([side for side in (0, 1) if given[side]])
                op, row = given[side].pop(0)
                if by_event_time:
                    times[side] += dice.choice([0, 1, 1, 3, ttl])
                    at = times[side] - dice.choice([0, 0, 1, 5])
                    sources[side].push(row | {"at": EPOCH + timedelta(seconds=at)})
                    if at < latest[side] - (bounds[side] or 0):
                        wanted_late[side].append(row)
                    else:
                        model.take(side, op, row, at)
                    latest[side] = max(latest[side], at)
                else:
                    sources[side].push(row if kinds[side] == "append" else {"op": op, **row})
                    model.take(side, op, row, now)
                job.run()
            elif what < 0.8:
                seconds = dice.choice([1, 1, 2, ttl])
                clock.advance(timedelta(seconds=seconds))
                now += seconds
            elif what < 0.9:
                job.checkpoint()
                job.kill_and_restore(parallelism=dice.randint(1, 5))
            else:
                rows += job.collect(result)
        for source in sources:
            source.end()
        job.run()
        found = rows + job.collect(result) if result.updating_key is None else job.latest(result)
        text = f"{how} of {kinds}, ttl {ttl}, by event time: {by_event_time}, by {result.updating_key}"
        assert counted(found) == counted(model.shown()), text
        for stream, expected in zip(late, wanted_late, strict=False):
            assert counted(job.collect(stream)) == counted(expected), text


@pytest.mark.parametrize("seed", range(FIRST, FIRST + CASES // 3))
def test_a_record_meets_the_latest_row_of_its_key(seed: int) -> None:
    dice = random.Random(f"latest {seed}")
    how: Any = dice.choice(["inner", "left", "semi", "anti"])
    kind = dice.choice(["append", "unique"])
    stream = testing.Source({**SCHEMA, "at": datetime}, name="left", splits=dice.choice([1, 2]))
    versions = testing.Source({**({} if kind == "append" else {"op": str}), **SCHEMA}, name="right")
    result = stream.stream().event_time("at").enrich(declared(versions, kind, None), on="k", how=how)
    left = hand_joins.records(dice, "append", 0, 20)
    right = hand_joins.records(dice, kind, 1000, dice.choice([0, 20]))
    model = hand_joins.Latest(how)
    with testing.Job(
        result,
        seed=dice.randrange(2**32),
        parallelism=dice.randint(1, 5),
        frame_rows=dice.choice([1, 64]),
        chaining=dice.random() < 0.7,
    ) as job:
        while left or right:
            what = dice.random()
            if what < 0.5 and left:
                rows = [row for _, row in left[: dice.choice([1, 3])]]
                del left[: len(rows)]
                stream.push(*(row | {"at": EPOCH + timedelta(seconds=dice.randrange(30))} for row in rows), split=dice.randrange(stream._splits))
                model.look_up(rows)
            elif what < 0.85 and right:
                op, row = right.pop(0)
                versions.push(row if kind == "append" else {"op": op, **row})
                model.take(op, row)
            elif what > 0.85:
                job.checkpoint()
                job.kill_and_restore(parallelism=dice.randint(1, 5))
            job.run()
        for source in (stream, versions):
            source.end()
        assert counted(job.collect(result)) == counted(model.rows), f"{how} of {kind}"
