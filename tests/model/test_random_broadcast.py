"""Random process functions with broadcast state against plain Python.

By hand (``millstream.testing``), where it is known in which order records of both streams come: entries that are set and deleted,
timers by the lesser time of both streams, kills, other parallelisms. And simulated, killed at any step, with a broadcast stream
that is there before the first record.

``MILL_CASES`` sets how many cases are drawn (100 unless set), ``MILL_SEED`` the first of them. A failure prints its
seed: ``MILL_SEED=<seed> MILL_CASES=1`` replays it.
"""

from __future__ import annotations

import copy
import os
import random
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine import STARTS_MAX, committed

import millstream as mill
from millstream import testing

FIRST = int(os.environ.get("MILL_SEED", "1"))
CASES = int(os.environ.get("MILL_CASES", "100"))
EPOCH = datetime(1970, 1, 1)
NEVER, EVER = -(10**9), 10**9
"""Before and after all seconds."""
RULE = {"verb": str, "name": str, "x": int, "at": datetime}
ROW = {"k": str, "x": int, "at": datetime}
RESULT = {"k": str, "what": str}


def moment(second: int) -> datetime:
    return EPOCH + timedelta(seconds=second)


def write(row: Any, rules: Any, lists: Any, count: Any) -> None:
    """What a broadcast record does, to the states of the engine or to those of the model."""
    count.value = (count.value or 0) + 1
    if row["verb"] == "set":
        rules[row["name"]] = row["x"]
    elif row["verb"] == "delete":
        rules.pop(row["name"], None)
    elif row["verb"] == "list":
        lists[row["x"]] = [*lists.get(row["x"], ()), row["name"]]
    elif row["verb"] == "clear":
        rules.clear()


def seen(x: int, rules: Any, lists: Any, count: Any) -> str:
    """What a keyed record or a timer reads of them."""
    if x % 3 == 0:
        return f"{count.value} {list(rules.items())}"
    if x % 3 == 1:
        return f"{rules.get('a')} {'b' in rules} {len(rules)}"
    return f"{lists.get(x % 4)} {sorted(lists)}"


class Function(mill.ProcessFunction):
    rules = mill.MapState(str, int, broadcast=True)
    lists = mill.MapState(int, list[str], broadcast=True)
    count = mill.ValueState(int, broadcast=True)
    n = mill.ValueState(int, default=0)

    def __init__(self, counts: bool = True) -> None:
        # How many records a key has when a timer fires depends on when watermarks come.
        self.counts = counts

    def process_broadcast(self, row: Any, ctx: Any) -> None:
        write(row, self.rules, self.lists, self.count)

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        self.n.value += 1
        yield {"k": ctx.key, "what": f"{row.x} {self.n.value} {seen(row.x, self.rules, self.lists, self.count)}"}
        if row.x % 2:
            ctx.timers.event_time(row.at + timedelta(seconds=1 + row.x % 9))

    def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
        second = (at - EPOCH) // timedelta(seconds=1)
        yield {"k": ctx.key, "what": f"timer {second} {self.n.value if self.counts else 0} {seen(second, self.rules, self.lists, self.count)}"}


class Cell:
    value: Any = None


class Model:
    """The same in plain Python, one record after the other."""

    def __init__(self, counts: bool = True) -> None:
        self.counts = counts
        self.rules: dict[str, int] = {}
        self.lists: dict[int, list[str]] = {}
        self.count = Cell()
        self.n: dict[Any, int] = {}
        self.timers: set[tuple[int, Any]] = set()
        self.out: dict[Any, list[str]] = {}

    def broadcast(self, row: dict[str, Any]) -> None:
        write(row, self.rules, self.lists, self.count)

    def record(self, row: dict[str, Any]) -> None:
        key, x = row["k"], row["x"]
        self.n[key] = self.n.get(key, 0) + 1
        self.emit(key, f"{x} {self.n[key]} {seen(x, self.rules, self.lists, self.count)}")
        if x % 2:
            self.timers.add((row["at"] + 1 + x % 9, key))

    def advance_to(self, watermark: int) -> None:
        # Records of the watermark's own time may follow.
        due = sorted((timer for timer in self.timers if timer[0] < watermark), key=lambda timer: timer[0])
        for timer in due:
            self.timers.remove(timer)
            second, key = timer
            self.emit(key, f"timer {second} {self.n[key] if self.counts else 0} {seen(second, self.rules, self.lists, self.count)}")

    def emit(self, key: Any, what: str) -> None:
        self.out.setdefault(key, []).append(what)


def rule_of(dice: random.Random, at: int) -> dict[str, Any]:
    verb = dice.choice(["set", "set", "set", "delete", "list", "clear"])
    return {"verb": verb, "name": dice.choice("abcdef"), "x": dice.randrange(4), "at": at}


def timed(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"at": moment(row["at"])}


@pytest.mark.parametrize("seed", range(FIRST, FIRST + CASES))
def test_broadcast_by_hand_does_what_plain_python_does(seed: int) -> None:
    dice = random.Random(f"broadcast {seed}")
    is_timed = dice.random() < 0.6
    rules, rows = testing.Source(RULE, name="rules"), testing.Source(ROW, name="rows")
    rule_stream = rules.stream().event_time("at") if is_timed else rules.stream()
    made = rows.stream().event_time("at").key_by("k").process(Function(), schema=RESULT, broadcast=rule_stream)
    model, kept = Model(), Model()
    clocks, kept_clocks = [0, 0], [NEVER, NEVER]
    watermarks = [NEVER, NEVER]
    # What has come since the last checkpoint: it comes again in this order where it is of one stream and one batch.
    since: list[tuple[int, list[dict[str, Any]]]] = []
    keys = [None, *"abcdefg"][: dice.choice([1, 3, 8])]

    def take(side: int, batch: list[dict[str, Any]]) -> None:
        for row in batch:
            (model.record if side == 0 else model.broadcast)(row)
        watermarks[side] = max(watermarks[side], batch[-1]["at"])
        model.advance_to(min(watermarks) if is_timed else watermarks[0])

    with testing.Job(made, seed=dice.randrange(2**32), parallelism=dice.randint(1, 5), frame_rows=64, chaining=dice.random() < 0.7) as job:
        for _ in range(dice.choice([5, 40])):
            if (what := dice.random()) < 0.8:
                side, batch = int(dice.random() < 0.4), []
                for _ in range(dice.choice([1, 1, 3])):
                    clocks[side] += dice.choice([0, 1, 1, 4])
                    row = {"k": dice.choice(keys), "x": dice.randrange(60), "at": clocks[side]}
                    batch.append(rule_of(dice, clocks[side]) if side else row)
                # However the engine cuts them, the watermark advances only after the last one.
                for row in batch[:-1]:
                    row["at"] = batch[0]["at"]
                (rules if side else rows).push(*map(timed, batch))
                if len(batch) > 1:
                    clocks[side] = batch[-1]["at"]
                job.run()
                take(side, batch)
                since.append((side, batch))
            else:
                if what < 0.95 or len(since) > 1:
                    job.checkpoint()
                    kept, kept_clocks, since = copy.deepcopy(model), list(watermarks), []
                if dice.random() < 0.7:
                    job.kill_and_restore(parallelism=dice.randint(1, 5))
                    job.run()
                    model, watermarks[:] = copy.deepcopy(kept), kept_clocks
                    for side, batch in since:
                        take(side, batch)
        for side, source in dice.sample([(0, rows), (1, rules)], 2):
            source.end()
            job.run()
            watermarks[side] = EVER
            model.advance_to(min(watermarks) if is_timed else watermarks[0])
        found: dict[Any, list[str]] = {}
        for row in job.collect():
            found.setdefault(row["k"], []).append(row["what"])
        other = next((key for key in {*found, *model.out} if found.get(key) != model.out.get(key)), None)
        assert found == model.out, f"{other}: found  {found.get(other)}\n{other}: wanted {model.out.get(other)}"


@pytest.mark.parametrize("seed", range(FIRST, FIRST + CASES // 4))
def test_broadcast_over_kills_does_what_plain_python_does(seed: int, tmp_path: Path) -> None:
    dice = random.Random(f"simulated broadcast {seed}")
    rules = [rule_of(dice, n) for n in range(dice.choice([0, 1, 20, 60]))]
    keys = [None, *"abcdefg"][: dice.choice([1, 3, 8])]
    rows = [{"k": dice.choice(keys), "x": dice.randrange(60), "at": n // 2} for n in range(dice.choice([1, 30, 80]))]
    is_timed = dice.random() < 0.5
    # Rules made of the very records cannot be read first: those are kept.
    is_own = dice.random() < 0.3
    for start in range(STARTS_MAX):
        stream = mill.from_iter(list(map(timed, rows)), schema=ROW)
        if is_own:
            made_of = stream.select(verb=mill.lit("set"), name=mill.col("k").fill_null("null"), x="x", at="at").filter(mill.col("x") < 20)
        else:
            made_of = mill.from_iter(list(map(timed, rules)), schema=RULE)
        made_of = made_of.event_time("at") if is_timed else made_of
        made = stream.event_time("at").key_by("k").process(Function(counts=False), schema=RESULT, broadcast=made_of)
        report = testing.simulate(
            made.write_parquet(tmp_path / "out"),
            checkpoint=mill.Checkpoint(tmp_path / "state", every="1ms"),
            seed=dice.randrange(2**32),
            parallelism=dice.randint(1, 5),
            frame_rows=dice.choice([1, 3, 16, 8192]),
            chaining=dice.random() < 0.7,
            steps=None if start == STARTS_MAX - 1 else dice.choice([20, 60, 150]) * (1 + start),
        )
        if report is not None:
            break
    assert report is not None
    model = Model(counts=False)
    if is_own:
        rules = [{"verb": "set", "name": row["k"] or "null", "x": row["x"], "at": 0} for row in rows if row["x"] < 20]
    for row in rules:
        model.broadcast(row)
    for row in rows:
        model.record(row)
        model.advance_to(row["at"])
    model.advance_to(EVER)
    found = Counter((row["k"], row["what"]) for row in committed(tmp_path / "out"))
    wanted = Counter((key, what) for key, all_of in model.out.items() for what in all_of)
    assert found == wanted, f"missing {wanted - found}\nsurplus {found - wanted}"
