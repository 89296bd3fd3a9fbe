"""Random process functions against a plain interpreter of the same functions.

By hand (``millstream.testing``), where it is known when watermarks and ticks of the clock come: one or two inputs, states of every kind
that grow old by either clock, timers of both clocks, side outputs, failures, kills. And simulated, killed at any step: functions whose
results do not depend on when watermarks come.

``MILL_CASES`` sets how many cases are drawn (100 unless set), ``MILL_SEED`` the first of them. A failure prints its
seed: ``MILL_SEED=<seed> MILL_CASES=1`` replays it.
"""

from __future__ import annotations

import copy
import os
import random
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import programs
import pytest
from engine import STARTS_MAX, committed
from programs import EPOCH, LEAST, SECOND, Interpreter, Program

import millstream as mill
from millstream import testing

FIRST = int(os.environ.get("MILL_SEED", "1"))
CASES = int(os.environ.get("MILL_CASES", "100"))
SIDES = ("audit", "odd")
RESULT = {"k": str, "what": str}
TYPES: dict[str, Any] = {
    "int": lambda **given: mill.ValueState(int, **given),
    "default": lambda **given: mill.ValueState(int, default=7, **given),
    "float": lambda **given: mill.ValueState(float, **given),
    "text": lambda **given: mill.ValueState(str, **given),
    "bag": lambda **given: mill.ValueState(list[int], default=[], **given),
    "struct": lambda **given: mill.ValueState({"a": int, "b": str}, **given),
    "object": lambda **given: mill.ValueState(object, **given),
    "list": lambda **given: mill.ListState(int, **given),
    "structs": lambda **given: mill.ListState({"a": int, "b": str}, **given),
    "map": lambda **given: mill.MapState(str, int, **given),
    "lists": lambda **given: mill.MapState(str, list[int], **given),
    "max": lambda **given: mill.ReducingState(int, max, **given),
    "joined": lambda **given: mill.ReducingState(list[int], programs.joined, **given),
}


def function(program: Program) -> mill.ProcessFunction:
    """The program as the engine's function."""
    members: dict[str, Any] = {}
    for name, state in program.states.items():
        ttl = None if state.ttl is None else timedelta(microseconds=state.ttl)
        # The clock and what renews a value are options of a ttl.
        options = {} if ttl is None else {"ttl": ttl, "clock": state.clock, "refresh": state.refresh}
        members[name] = TYPES[state.kind](**options)

    def of_record(place: int) -> Any:
        return lambda self, row, ctx: programs.perform(program.on_record[place], self, ctx, row.x)

    if len(program.on_record) == 2:
        members |= {"process_left": of_record(0), "process_right": of_record(1)}
    else:
        members["process"] = of_record(0)

    def on_timer(self: Any, at: datetime, ctx: Any) -> Any:
        moment = at.replace(tzinfo=None)
        return programs.perform(program.on_timer, self, ctx, (moment - EPOCH) // timedelta(seconds=1))

    members["on_timer"] = on_timer
    if program.on_end is not None:
        operations = program.on_end
        members["on_end"] = lambda self, ctx: programs.perform(operations, self, ctx, 1)
    kind: type[mill.ProcessFunction] = type("Made", (mill.ProcessFunction,), members)
    return kind()


def rows_of(dice: random.Random, count: int, spread: int) -> list[dict[str, Any]]:
    """Records of a few keys, one of them null, at most so many seconds out of order."""
    clock, rows = dice.choice([-30, 0, 100]), []
    keys = [None, *"abcd"][: dice.choice([1, 2, 5])]
    for _ in range(count):
        clock += dice.choice([0, 0, 1, 1, 2, 6])
        rows.append({"k": dice.choice(keys), "x": dice.randrange(60), "at": clock - dice.randint(0, spread)})
    return rows


def timed(row: dict[str, Any]) -> dict[str, Any]:
    """A record as the engine takes it."""
    return row | {"at": EPOCH + timedelta(seconds=row["at"])}


class Split:
    """A split of a source under test, with what is to be pushed into it."""

    def __init__(self, source: testing.Source, side: int, number: int, rows: list[dict[str, Any]], bound: int) -> None:
        self.source, self.side, self.number, self.rows, self.bound = source, side, number, rows, bound
        self.place, self.watermark = 0, LEAST
        self.latest: Any = None

    def push(self, count: int) -> list[dict[str, Any]]:
        """Push the next records."""
        rows = self.rows[self.place : self.place + (1 if self.latest is None else count)]
        self.place += len(rows)
        # However the engine cuts them, the watermark advances only after the last one.
        for row in rows[:-1]:
            row["at"] = min(row["at"], self.latest)
        self.latest = rows[-1]["at"] if self.latest is None else max(self.latest, rows[-1]["at"])
        self.source.push(*map(timed, rows), split=self.number)
        return rows


@pytest.mark.parametrize("seed", range(FIRST, FIRST + CASES))
def test_functions_do_by_hand_what_plain_python_does(seed: int) -> None:
    dice = random.Random(seed)
    inputs = dice.choice([1, 1, 2])
    program = programs.draw(dice, inputs)
    schema = {"k": str, "x": int, "at": datetime}
    splits: list[Split] = []
    streams = []
    for side in range(inputs):
        source = testing.Source(schema, splits=dice.choice([1, 1, 2]), name=f"source {side}")
        bound, spread = dice.choice([0, 2, 5]), dice.choice([0, 2, 9])
        for number in range(source._splits):
            splits.append(Split(source, side, number, rows_of(dice, dice.choice([0, 5, 30]), spread), bound))
        streams.append(source.stream().event_time("at", watermark=timedelta(seconds=bound)).key_by("k"))
    keyed = streams[0] if inputs == 1 else streams[0].connect(streams[1])
    made = keyed.process(function(program), schema=RESULT, side_outputs=dict.fromkeys(SIDES, RESULT))
    outputs = {"result": made, **{name: made.side_output(name) for name in SIDES}}
    frame_rows = dice.choice([1, 4, 64])
    clock = testing.Clock("2024-01-01")
    model = Interpreter(program, (clock.now.replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1))
    # What the model was at the last checkpoint, the batches since then, and whether they come in that order once more.
    kept, is_repeatable = copy.deepcopy(model), True
    since: list[tuple[Split, list[dict[str, Any]], int]] = []

    def take(split: Split, rows: list[dict[str, Any]], watermark: int) -> None:
        for row in rows:
            model.record(row["k"], row["x"], row["at"] * SECOND, split.side)
        model.advance_to(watermark)

    job = testing.Job(
        *outputs.values(),
        clock=clock,
        seed=dice.randrange(2**32),
        parallelism=dice.randint(1, 5),
        frame_rows=frame_rows,
        chaining=dice.random() < 0.7,
        on_error="skip" if program.can_fail else "fail",
    )
    with job:
        while any(split.place < len(split.rows) for split in splits):
            what = dice.random()
            if what < 0.75:
                split = dice.choice([split for split in splits if split.place < len(split.rows)])
                rows = split.push(dice.randint(1, frame_rows))
                job.run()
                split.watermark = (split.latest - split.bound) * SECOND
                since.append((split, rows, min(split.watermark for split in splits)))
                take(*since[-1])
            elif what < 0.87:
                seconds = dice.choice([1, 1, 2, 5, 30])
                clock.advance(timedelta(seconds=seconds))
                model.tick(model.now + seconds * SECOND)
                is_repeatable = False
            else:
                # Several batches may be read at once when they are read again.
                is_alone = len(splits) == 1 and is_repeatable and len(since) < 2
                if dice.random() < 0.6 or not is_alone:
                    job.checkpoint()
                    kept, since, is_repeatable = copy.deepcopy(model), [], True
                if dice.random() < 0.6:
                    job.kill_and_restore(parallelism=dice.randint(1, 5))
                    job.run()
                    model = copy.deepcopy(kept)
                    for batch in since:
                        take(*batch)
        for split in splits:
            split.source.end(split=split.number)
            job.run()
            split.watermark = programs.GREATEST
            if split is not splits[-1]:
                model.advance_to(min(split.watermark for split in splits))
        model.end()
        for name, stream in outputs.items():
            found: dict[str, list[str]] = {}
            for row in job.collect(stream):
                found.setdefault(row["k"], []).append(row["what"])
            wanted = {key: rows for key, rows in model.outputs[name].items() if rows}
            other = next((key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)), None)
            assert other is None, f"{name} of {program}\n{other}: found  {found.get(other)}\n{other}: wanted {wanted.get(other)}"


@pytest.mark.parametrize("seed", range(FIRST, FIRST + CASES // 4))
def test_functions_do_over_kills_what_plain_python_does(seed: int, tmp_path: Path) -> None:
    dice = random.Random(f"simulated {seed}")
    program = programs.draw_free(dice)
    rows = rows_of(dice, dice.choice([1, 30, 80]), 0)
    report = None
    for start in range(STARTS_MAX):
        stream = mill.from_iter(list(map(timed, rows)), schema={"k": str, "x": int, "at": datetime}).event_time("at").key_by("k")
        made = stream.process(function(program), schema=RESULT, side_outputs=dict.fromkeys(SIDES, RESULT))
        outputs = {"result": made, **{name: made.side_output(name) for name in SIDES}}
        report = testing.simulate(
            *(stream.write_parquet(tmp_path / name) for name, stream in outputs.items()),
            checkpoint=mill.Checkpoint(tmp_path / "state", every="1ms"),
            seed=dice.randrange(2**32),
            parallelism=dice.randint(1, 5),
            frame_rows=dice.choice([1, 3, 16, 8192]),
            chaining=dice.random() < 0.7,
            steps=None if start == STARTS_MAX - 1 else dice.choice([20, 60, 150]) * (1 + start),
            on_error="skip" if program.can_fail else "fail",
        )
        if report is not None:
            break
    assert report is not None
    model = Interpreter(program, 0)
    for row in rows:
        model.record(row["k"], row["x"], row["at"] * SECOND)
        model.advance_to(row["at"] * SECOND)
    model.end()
    for name in outputs:
        found = Counter((row["k"], row["what"]) for row in committed(tmp_path / name))
        wanted = Counter((key, what) for key, rows in model.outputs[name].items() for what in rows)
        assert found == wanted, f"{name} of {program}\nmissing {wanted - found}\nsurplus {found - wanted}"
