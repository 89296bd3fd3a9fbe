"""Marks of a target, in a model: processes that die anywhere, commits that arrive late, runs from copies of one checkpoint."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import millstream as mill
from millstream._custody import CLOSED, Custody, Mark

TOTAL = 30


@dataclass
class Target:
    """Rows and marks that change together, if the target is as it was when it was asked."""

    is_delta: bool
    rows: list[int] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    version: int = 0
    late: list[tuple[Any, ...]] = field(default_factory=list)
    """Commits of dead processes that are still on their way."""

    def seen(self, mark: Mark, closed: str | None) -> Any:
        return self.version if self.is_delta else (self.marks.get(mark.run), self.marks.get(closed or ""))

    def apply(self, seen: Any, mark: Mark, closed: str | None, rows: list[int]) -> bool:
        if self.seen(mark, closed) != seen:
            return False
        self.version += 1
        self.rows += rows
        self.marks[mark.run] = mark.epoch
        if closed is not None:
            self.marks[closed] = CLOSED
        return True


Handle = tuple[Any, list[int]]


@dataclass
class Store:
    """The newest durable checkpoint: its number, how many rows were read, and its handles."""

    checkpoint: tuple[int, int, list[Handle]] | None = None


def commit(target: Target, custody: Custody, handles: list[Handle]) -> Iterator[Any]:
    newest = max(handle[0][1] for handle in handles)
    for given, rows in handles:
        mark = Mark.from_json(given)
        while rows:
            closed = custody.closes(mark)
            seen = target.seen(mark, closed)
            yield "asked"
            # What was seen is older than the answer: the answer may be newer, and then the commit fails.
            if custody.is_shown(mark, target.marks.get, newest=newest):
                break
            yield (seen, mark, closed, rows)
            if target.apply(seen, mark, closed, rows):
                yield "committed"
                break
        if rows:
            custody.committed(mark)


def run(target: Target, store: Store, dice: random.Random) -> Iterator[Any]:
    """A process; it may die wherever it yields."""
    custody = Custody("the target")
    epoch, read = 0, 0
    if store.checkpoint is not None:
        epoch, read, handles = store.checkpoint
        yield from commit(target, custody, handles)
        mark = Mark.from_json(handles[-1][0])
        custody.is_shown(mark, target.marks.get, newest=mark.epoch)
        custody.restored(mark, target.marks.get)
    while read < TOTAL:
        pending: list[Handle] = []
        # Sometimes a checkpoint fails, and the next one has its handle too.
        for _ in range(dice.choice([1, 1, 2])):
            rows = list(range(read, min(read + dice.randint(0, 3), TOTAL)))
            epoch, read = epoch + 1, read + len(rows)
            pending.append((custody.mark(epoch).to_json(), rows))
            yield "prepared"
        store.checkpoint = (epoch, read, pending)
        yield "durable"
        yield from commit(target, custody, pending)


def deliver(target: Target, dice: random.Random) -> None:
    """Let commits of dead processes arrive."""
    while target.late and dice.random() < 0.3:
        target.apply(*target.late.pop(dice.randrange(len(target.late))))


@pytest.mark.parametrize("is_delta", [True, False])
def test_a_process_that_dies_anywhere(is_delta: bool) -> None:
    for seed in range(1500):
        dice = random.Random(seed)
        target, store = Target(is_delta), Store()
        done, deaths = False, 0
        while not done:
            process = run(target, store, dice)
            for step in process:
                deliver(target, dice)
                if deaths < 8 and dice.random() < 0.15:
                    deaths += 1
                    if isinstance(step, tuple) and dice.random() < 0.7:
                        target.late.append(step)
                    break
            else:
                done = True
        while target.late:
            target.apply(*target.late.pop())
        assert target.rows == list(range(TOTAL)), f"seed {seed}"


@pytest.mark.parametrize("is_delta", [True, False])
def test_two_runs_go_on_from_copies(is_delta: bool) -> None:
    refused = 0
    for seed in range(1500):
        dice = random.Random(seed)
        target, store = Target(is_delta), Store()
        first = run(target, store, dice)
        for _ in range(dice.randint(5, 40)):
            next(first, None)
        stores = [store, copy.deepcopy(store)]
        # The first one may still be alive, as a process that was cut off and wakes up.
        alive = [run(target, each, dice) for each in stores] + ([first] if dice.random() < 0.5 else [])
        has_begun = store.checkpoint is not None and any(rows for _, rows in store.checkpoint[2])
        while alive:
            process = dice.choice(alive)
            try:
                next(process)
            except StopIteration:
                alive.remove(process)
            except mill.CheckpointError:
                refused += 1
                alive.remove(process)
        if has_begun:
            assert target.rows == list(range(len(target.rows))), f"seed {seed}"
    assert refused > 500


def test_a_target_that_was_put_back() -> None:
    custody = Custody("the target")
    marks: dict[str, int] = {}
    for epoch in (1, 2):
        mark = custody.mark(epoch)
        assert not custody.is_shown(mark, marks.get, newest=epoch)
        marks[mark.run] = epoch
        assert custody.is_shown(mark, marks.get, newest=epoch)
        custody.committed(mark)
    mark = custody.mark(3)
    for found in ({}, {mark.run: 1}):
        with pytest.raises(mill.CheckpointError, match="the target lacks output"):
            custody.is_shown(mark, found.get, newest=3)
    with pytest.raises(mill.CheckpointError, match="the target has output of epoch 4, later than checkpoint 3"):
        custody.is_shown(mark, {mark.run: 4}.get, newest=3)
    with pytest.raises(mill.CheckpointError, match="another run of this job has gone on"):
        custody.is_shown(mark, {mark.run: CLOSED}.get, newest=3)
    # At least once, a later epoch may be there already.
    custody.begin("at_least_once")
    assert custody.is_shown(mark, {mark.run: 4}.get, newest=3)
