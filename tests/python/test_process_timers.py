"""Timers of process functions, and functions at random, over kills and restores, against plain Python."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from process_runs import EPOCH, SECOND, at, keyed, run_through_restarts, seconds

import millstream as mill


class Late(mill.ProcessFunction):
    """What the timers of a key show of the order in which they fire."""

    def process(self, row: Any, ctx: mill.ProcessContext) -> None:
        for offset in row.offsets:
            ctx.timers.event_time(row.at + offset * SECOND)
        for offset in row.deleted:
            ctx.timers.delete_event_time(row.at + offset * SECOND)

    def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
        assert ctx.timer == "event" and ctx.timestamp == at
        if seconds(at) % 10 == 7:
            ctx.timers.event_time(at + 2 * SECOND)
            ctx.timers.delete_event_time(at + 3 * SECOND)
        yield {"k": ctx.key, "at": at}


def test_timers_are_a_set_and_fire_in_order_of_time() -> None:
    rows = [
        {"k": "a", "at": at(0), "offsets": [30, 5, 5, 17, 20, 25], "deleted": [25, 99]},
        {"k": "a", "at": at(100), "offsets": [], "deleted": []},
    ]
    schema = {"k": str, "at": datetime, "offsets": list[int], "deleted": list[int]}
    stream = (
        mill.from_iter(rows, schema=schema)
        .event_time("at")
        .key_by("k")
        .process(Late(), schema={"k": str, "at": datetime})
    )
    # 17 sets 19 and deletes 20.
    assert [seconds(row["at"]) for row in stream.collect().to_pylist()] == [5, 17, 19, 30]


def test_a_timer_of_the_past_fires_at_the_next_watermark_and_is_late_for_no_window() -> None:
    class Past(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            ctx.timers.event_time(row.at - 60 * SECOND)

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
            yield {"k": ctx.key, "due": at}

    rows = [{"k": "a", "at": at(n)} for n in range(0, 300, 7)]
    result = keyed(rows).process(Past(), schema={"k": str, "due": datetime})
    windows = result.window_all(mill.tumbling("10s")).agg(n=mill.count())
    assert sum(row["n"] for row in windows.collect().to_pylist()) == len(rows)
    assert len(windows.late.collect()) == 0


def test_timers_by_processing_time_fire_and_those_left_at_the_end_fire_then() -> None:
    class Soon(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            ctx.timers.processing_time(ctx.now + timedelta(milliseconds=10))
            ctx.timers.processing_time(ctx.now + timedelta(hours=10))

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
            assert ctx.timer == "processing" and at.tzinfo is not None
            assert ctx.is_draining or ctx.now >= at
            yield {"k": ctx.key, "is_early": at - ctx.now < timedelta(hours=1), "is_draining": ctx.is_draining}

    def slow() -> Iterator[dict[str, Any]]:
        import time

        for n in range(4):
            yield {"k": n}
            time.sleep(0.05)

    stream = (
        mill.from_iter(slow(), schema={"k": int})
        .key_by("k")
        .process(Soon(), schema={"k": int, "is_early": bool, "is_draining": bool})
    )
    result = stream.collect(parallelism=1).to_pylist()
    assert sorted((row["k"], row["is_early"]) for row in result) == [
        (k, early) for k in range(4) for early in (False, True)
    ]
    assert all(row["is_draining"] for row in result if not row["is_early"])
    assert any(not row["is_draining"] for row in result if row["is_early"])


def test_timers_that_fell_due_while_nothing_ran_fire_after_the_restart(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"k": "a"}\n')
    (tmp_path / "out").mkdir()

    class Soon(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            ctx.timers.processing_time(ctx.now + timedelta(seconds=3))

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
            yield {"k": ctx.key, "is_draining": ctx.is_draining}

    def job() -> mill.Job:
        stream = mill.read_json(str(path), schema={"k": str}, follow=True).key_by("k")
        sink = stream.process(Soon(), schema={"k": str, "is_draining": bool}).name("soon").write_json(tmp_path / "out")
        return mill.start(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms"), parallelism=1)

    first = job()
    until = time.monotonic() + 20
    timers: list[Any] = []
    while not timers and time.monotonic() < until:
        time.sleep(0.05)
        if mill.checkpoints(tmp_path / "state"):
            timers = mill.read_state(tmp_path / "state", step="soon").to_pylist()
    first.stop()
    first.wait("30s")
    time.sleep(3)
    second = job()
    until = time.monotonic() + 20
    found: list[Any] = []
    while not found and time.monotonic() < until:
        time.sleep(0.1)
        if any((tmp_path / "out").glob("[!.]*")):
            found = mill.read_json(str(tmp_path / "out"), schema={"k": str, "is_draining": bool}).collect().to_pylist()
    second.stop()
    second.wait("30s")
    assert found == [{"k": "a", "is_draining": False}]


def test_a_function_that_sets_timers_for_ever_at_the_end_is_an_error() -> None:
    class Endless(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            ctx.timers.event_time(row.at)

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> None:
            ctx.timers.event_time(at + SECOND)

    with pytest.raises(mill.UserFunctionError, match="is_draining"):
        keyed([{"k": 1, "at": at(0)}]).process(Endless(), schema={"x": int}).collect()


def test_on_end_is_called_for_each_key_with_state() -> None:
    class Ends(mill.ProcessFunction):
        total = mill.ValueState(int, default=0)

        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            self.total.value = row.x or None  # type: ignore[assignment]

        def on_end(self, ctx: mill.ProcessContext) -> Iterator[Any]:
            assert ctx.is_draining
            yield {"k": ctx.key, "total": self.total.value, "time": ctx.timestamp}

    rows = [{"k": f"k{n}", "x": n, "at": at(n)} for n in range(20)]
    result = keyed(rows).process(Ends(), schema={"k": str, "total": int, "time": datetime})
    expected = [{"k": f"k{n}", "total": n, "time": at(n)} for n in range(1, 20)]
    assert sorted(result.collect(parallelism=3).to_pylist(), key=lambda row: row["total"]) == expected
    # The results have the times of their keys, or the watermark that has passed before: none does here.
    held = keyed(rows, watermark="1m").process(Ends(), schema={"k": str, "total": int, "time": datetime})
    windows = held.window_all(mill.tumbling("1s")).agg(n=mill.count())
    assert len(windows.collect()) == 19


@pytest.mark.parametrize("is_event", [True, False])
def test_on_end_of_a_key_whose_state_a_timer_has_set(is_event: bool) -> None:
    class Marks(mill.ProcessFunction):
        seen = mill.ValueState(bool)

        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            if is_event:
                ctx.timers.event_time(row.at + SECOND)
            else:
                ctx.timers.processing_time(ctx.now)

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> None:
            self.seen.value = True

        def on_end(self, ctx: mill.ProcessContext) -> Iterator[Any]:
            yield {"k": ctx.key, "time": ctx.timestamp}

    rows = [{"k": n % 3, "at": at(n)} for n in range(9)]
    for watermark in ("0s", "1h"):
        result = keyed(rows, watermark=watermark).process(Marks(), schema={"k": int, "time": datetime})
        found = sorted((row["k"], seconds(row["time"])) for row in result.collect().to_pylist())
        assert found == [(k, 6 + k + is_event) for k in range(3)]


def test_results_of_a_timer_by_processing_time_have_the_time_of_what_has_set_it_last() -> None:
    from millstream import testing

    class Twice(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            for offset in row.offsets:
                ctx.timers.processing_time(ctx.now + offset * SECOND)

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
            if at.second == 1:
                # That of ten seconds waits for its turn in the same call, if the clock has come so far.
                ctx.timers.delete_processing_time(at + 9 * SECOND)
                ctx.timers.processing_time(at + 9 * SECOND)
            yield {"due": at.second, "time": ctx.timestamp}

    for restarts in (False, True):
        source = testing.Source({"k": int, "at": datetime, "offsets": list[int]})
        timed = source.stream().event_time("at", watermark="1h").key_by("k")
        result = timed.process(Twice(), schema={"due": int, "time": datetime})
        clock = testing.Clock()
        with testing.Job(result, clock=clock) as job:
            source.push({"k": 1, "at": at(5), "offsets": [1]}, {"k": 1, "at": at(7), "offsets": [10, 20]})
            source.push({"k": 1, "at": at(3), "offsets": [20]})
            job.checkpoint()
            if restarts:
                job.kill_and_restore()
            source.end()
            found = [(row["due"], seconds(row["time"])) for row in job.collect()]
        assert found == [(1, 5), (10, 5), (20, 3)]


# -- random functions ------------------------------------------------------------------------------------------------------


class Program(mill.ProcessFunction):
    """What it does follows from the numbers of its records; what a timer shows depends on records up to its time alone."""

    total = mill.ValueState(int, default=0)
    recent = mill.ValueState(int, default=-1, ttl="9s")
    items = mill.ListState(int, ttl="15s")
    best = mill.ReducingState(int, max)
    bag = mill.ValueState(list[int], default=[])
    times = mill.MapState(int, int, ttl="40s")

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        x, now = row.x, seconds(row.at)
        before = (self.total.value, self.recent.value, tuple(self.items), self.best.value, tuple(self.bag.value))
        self.total.value += x
        self.best.add(x)
        self.times[row.n] = now
        if x % 2:
            self.recent.value = x
            self.items.add(x)
        if x % 5 == 0:
            self.bag.value.append(x)
        if x % 3 == 0:
            ctx.timers.event_time(row.at + (1 + x % 11) * SECOND)
        if x % 7 == 1:
            ctx.timers.delete_event_time(row.at + (1 + x % 11) * SECOND)
        ctx.side_output("audit", {"k": ctx.key, "n": row.n})
        if x % 13 == 12:
            raise ValueError(f"{x} is refused")
        yield {"k": ctx.key, "what": f"{row.n} {before}"}

    def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
        now = seconds(at)
        seen = sorted(n for n, time in self.times.items() if time <= now)
        ctx.side_output("audit", {"k": ctx.key, "n": -now})
        if now % 4 == 0 and now % 6 and not ctx.is_draining:
            ctx.timers.event_time(at)
        if now % 6 == 0:
            ctx.timers.event_time(at + 5 * SECOND)
        yield {"k": ctx.key, "what": f"timer {now} {seen}"}


RESULT, AUDIT = {"k": str, "what": str}, {"k": str, "n": int}


def plain_program(rows: list[dict[str, Any]]) -> tuple[list[tuple[str, str]], list[tuple[str, int]]]:
    """What the program makes of the records, without an engine. Timers that are set for their own time are left out."""
    results, audit = [], []
    for key in {row["k"] for row in rows}:
        total, recent, items, best = 0, None, [], None
        bag: list[int] = []
        times: dict[int, int] = {}
        timers: set[int] = set()
        for row in (row for row in rows if row["k"] == key):
            x, now = row["x"], seconds(row["at"])
            if x % 13 == 12:
                continue
            fresh = [(x, t) for x, t in items if now - t < 15]
            shown = recent[0] if recent is not None and now - recent[1] < 9 else -1
            results.append((key, f"{row['n']} {(total, shown, tuple(x for x, _ in fresh), best, tuple(bag))}"))
            audit.append((key, row["n"]))
            total += x
            best = x if best is None else max(best, x)
            times[row["n"]] = now
            if x % 2:
                recent = (x, now)
                items.append((x, now))
            if x % 5 == 0:
                bag.append(x)
            if x % 3 == 0:
                timers.add(now + 1 + x % 11)
            if x % 7 == 1:
                timers.discard(now + 1 + x % 11)
        while timers:
            now = min(timers)
            timers.remove(now)
            if now % 6 == 0:
                timers.add(now + 5)
            seen = sorted(n for n, time in times.items() if time <= now and now - time < 40)
            results.append((key, f"timer {now} {seen}"))
            audit.append((key, -now))
    return sorted(results), sorted(audit)


@pytest.mark.parametrize("seed", range(int(os.environ.get("MILL_PROCESS_SEEDS", "12"))))
def test_functions_at_random_do_what_plain_python_does(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    bound = dice.choice([0, 4])
    rows, now = [], 0
    for n in range(dice.choice([40, 120])):
        now += dice.choice([0, 1, 1, 3])
        rows.append({"k": dice.choice("abcd"), "x": dice.randrange(60), "n": n, "at": at(now - dice.randint(0, bound))})
    # Ages go by the time of the record, which is not in order within the bound: one order of records, one result.
    if bound:
        rows = [row | {"x": row["x"] // 2 * 2} for row in rows]

    def declared() -> mill.Stream:
        stream = mill.from_iter(rows, schema={"k": str, "x": int, "n": int, "at": datetime})
        timed = stream.event_time("at", watermark=bound * SECOND).key_by("k")
        return timed.process(Program(), schema=RESULT, side_outputs={"audit": AUDIT})

    shared: list[mill.Stream] = []

    def result() -> mill.Stream:
        shared[:] = [declared()]
        return shared[0]

    results, audit = run_through_restarts(
        result, seed, tmp_path, lambda: shared[0].side_output("audit"), on_error="skip"
    )
    found = [(row["k"], row["what"]) for row in results]
    audited = [(row["k"], row["n"]) for row in audit]
    expected, expected_audit = plain_program(rows)
    # A timer that sets itself again fires once more at each watermark that follows, so it comes at least once.
    again = {(key, -n) for key, n in expected_audit if n < 0 and n % 4 == 0}
    assert set(expected) <= set(found)
    assert all(int(what.split()[1]) % 4 == 0 for _, what in set(found) - set(expected))
    assert [row for row in sorted(found) if not row[1].startswith("timer")] == [
        row for row in expected if not row[1].startswith("timer")
    ]
    once = [row for row in sorted(audited) if (row[0], -row[1]) not in again]
    assert once == [row for row in expected_audit if (row[0], -row[1]) not in again]


SCRIPT = """
import sys
from datetime import datetime, timedelta
import millstream as mill

class Count(mill.ProcessFunction):
    n = mill.ValueState(int, default=0)
    def process(self, row, ctx):
        self.n.value += 1
        ctx.timers.event_time(ctx.timestamp + timedelta(seconds=row.x % 50))
        yield {"k": row.k, "what": f"{row.x}: {self.n.value}"}
    def on_timer(self, at, ctx):
        yield {"k": ctx.key, "what": f"timer {at:%H:%M:%S}"}

rows = [{"k": x % 7, "x": x, "at": datetime(2024, 1, 1) + timedelta(seconds=x)} for x in range(3000)]
stream = mill.from_iter(rows).event_time("at").key_by("k").process(Count(), schema={"k": int, "what": str})
mill.run(stream.write_json("out"), checkpoint=mill.Checkpoint("state", every="2ms"), parallelism=int(sys.argv[1]))
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_job_that_is_killed_fires_each_timer_once(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    kills = 0
    for _ in range(30):
        environment = dict(os.environ)
        if kills < 4:
            environment["MILLSTREAM_FAIL_POINT"] = f"*:{dice.randrange(1, 60)}"
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(dice.choice([1, 2, 3]))]
        done = subprocess.run(
            command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
    assert kills > 0
    found = mill.read_json(str(tmp_path / "out"), schema={"k": int, "what": str}).collect().to_pylist()
    expected = []
    for key in range(7):
        xs = range(key, 3000, 7)
        expected += [(key, f"{x}: {n + 1}") for n, x in enumerate(xs)]
        due = {EPOCH + timedelta(seconds=x + x % 50) for x in xs}
        expected += [(key, f"timer {moment:%H:%M:%S}") for moment in due]
    assert sorted((row["k"], row["what"]) for row in found) == sorted(expected)


TIMERS = """
import sys
from datetime import datetime, timedelta
import millstream as mill
from millstream import col, lit

COUNT, START, SPREAD = int(sys.argv[1]), datetime(2024, 1, 1), 1_000_000

class Once(mill.ProcessFunction):
    def process(self, row, ctx):
        if row.number >= 0:
            ctx.timers.event_time(START + timedelta(seconds=1 + row.number * 7919 % SPREAD))
    def on_timer(self, at, ctx):
        yield {"k": ctx.key, "at": (at - START) // timedelta(seconds=1)}

# First all timers are set, then time goes on in 50 steps.
index = mill.index()
number = mill.when(index < COUNT).then(index).otherwise(-1)
since = mill.when(index < COUNT).then(0).otherwise((index - COUNT) * (SPREAD // 50 + 1))
made = mill.generate(rows=COUNT + 52, number=number, at=lit(START) + since.cast(mill.types.Duration("s")))
stream = made.event_time("at").key_by(k="number").process(Once(), schema={"k": int, "at": int})
mill.run(stream.write_sqlite("out.db", "fired"), checkpoint=mill.Checkpoint("state", every="50ms"), parallelism=1)
"""


def test_pending_timers_fire_once_each_in_order_of_time_over_kills(tmp_path: Path) -> None:
    """As many as MILL_TIMERS says."""
    count = int(os.environ.get("MILL_TIMERS", "20000"))
    dice = random.Random(count)
    kills = 0
    for _ in range(30):
        environment = dict(os.environ)
        if kills < 5:
            environment["MILLSTREAM_FAIL_POINT"] = f"*:{dice.randrange(10, 80)}"
        command = [sys.executable, "-c", textwrap.dedent(TIMERS), str(count)]
        done = subprocess.run(
            command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
    assert kills > 0
    with contextlib.closing(sqlite3.connect(tmp_path / "out.db")) as database:
        fired = database.execute("SELECT k, at FROM fired ORDER BY rowid").fetchall()
    times = [moment for _, moment in fired]
    assert times == sorted(times)
    assert sorted(fired) == [(k, 1 + k * 7919 % 1_000_000) for k in range(count)]


@pytest.mark.parametrize("again", [timedelta(0), timedelta(milliseconds=1)])
def test_timers_that_are_always_due_leave_room_for_records_and_barriers(tmp_path: Path, again: timedelta) -> None:
    class Busy(mill.ProcessFunction):
        n = mill.ValueState(int, default=0)

        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            if row.i < 50:
                ctx.timers.processing_time(ctx.now)
            yield {"i": row.i}

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> None:
            self.n.value += 1
            time.sleep(0.0002)
            if not ctx.is_draining:
                ctx.timers.processing_time(ctx.now + again)

    rows = mill.generate(rate=300, i=mill.index(), k=mill.index() % 50)
    seen: list[int] = []
    out = rows.key_by("k").process(Busy(), schema={"i": int}).for_each(lambda row: seen.append(row.i))
    checkpoint = mill.Checkpoint(tmp_path / "state", every="50ms", mode="at_least_once")
    job = mill.start(out, checkpoint=checkpoint, parallelism=1)
    until = time.monotonic() + 60
    while len(seen) < 50 or job.metrics().checkpoints_taken < 3:
        assert time.monotonic() < until, f"{len(seen)} records, {job.metrics().checkpoints_taken} checkpoints"
        time.sleep(0.02)
    job.stop()
    assert job.wait("20s").status == "stopped"


@pytest.mark.parametrize("parallelism", [1, 2])
def test_a_stop_comes_between_timers_that_set_others_for_ever(tmp_path: Path, parallelism: int) -> None:
    """At the end of the input they fired without a barrier between them: neither a checkpoint nor a stop came through."""
    fired: list[int] = []
    is_endless = True

    class Endless(mill.ProcessFunction):
        n = mill.ValueState(int, default=0)

        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            ctx.timers.event_time(row.at + timedelta(seconds=1))

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
            time.sleep(0.0005)
            fired.append(1)
            self.n.value += 1
            if is_endless or self.n.value % 100:
                ctx.timers.event_time(at + timedelta(seconds=1))
            yield {"k": ctx.key, "n": self.n.value}

        def on_end(self, ctx: mill.ProcessContext) -> Iterator[Any]:
            yield {"k": ctx.key, "n": -self.n.value}

    def sink() -> mill.Output:
        rows = mill.from_iter([{"k": k, "at": datetime(2024, 1, 1)} for k in range(4)])
        done = rows.event_time("at").key_by("k").process(Endless(), schema={"k": int, "n": int})
        return done.write_json(tmp_path / "out")

    for _ in range(2):
        before = len(fired)
        job = mill.start(sink(), checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms"), parallelism=parallelism)
        until = time.monotonic() + 60
        while len(fired) < before + 50 or job.metrics().checkpoints_taken < 2:
            assert time.monotonic() < until, f"{len(fired)} timers, {job.metrics().checkpoints_taken} checkpoints"
            time.sleep(0.01)
        job.stop()
        assert job.wait("60s").status == "stopped"
    is_endless = False
    assert mill.run(sink(), checkpoint=tmp_path / "state", parallelism=3 - parallelism).status == "finished"
    found = mill.read_json(str(tmp_path / "out"), schema={"k": int, "n": int}).collect().to_pylist()
    for k in range(4):
        numbers = sorted(row["n"] for row in found if row["k"] == k)
        last = numbers[-1]
        assert last % 100 == 0
        assert numbers == [-last, *range(1, last + 1)]


@pytest.mark.parametrize("later", [{}, {"ttl": "100ms", "clock": "event"}])
def test_a_state_may_lose_the_ttl_that_it_had(tmp_path: Path, later: dict[str, Any]) -> None:
    def job(options: dict[str, Any], rows: list[int]) -> mill.Job:
        class Counts(mill.ProcessFunction):
            n = mill.ValueState(int, default=0, **options)

            def process(self, row: Any, ctx: mill.ProcessContext) -> None:
                self.n.value += 1
                rows.append(row.i)

        made = mill.generate(rate=200, i=mill.index(), k=mill.index() % 20, at=mill.index().cast(mill.Timestamp("us")))
        keyed = made.event_time("at").key_by("k")
        sink = keyed.process(Counts(), schema={"i": int}).name("counts").for_each(lambda row: None)
        checkpoint = mill.Checkpoint(tmp_path / "state", every="30ms", mode="at_least_once")
        return mill.start(sink, checkpoint=checkpoint, parallelism=1)

    for options in [{"ttl": "200ms", "clock": "processing"}, later]:
        rows: list[int] = []
        running = job(options, rows)
        until = time.monotonic() + 30
        while len(rows) < 60 or running.metrics().checkpoints_taken < 2:
            assert time.monotonic() < until, f"{len(rows)} records with {options}"
            time.sleep(0.02)
        running.stop()
        assert running.wait("20s").status == "stopped"
        time.sleep(0.3)


@pytest.mark.parametrize("kind", ["value", "list", "map"])
def test_another_clock_or_ttl_of_a_state_is_noted_and_forgets_nothing(tmp_path: Path, kind: str) -> None:
    def run(rows: int, **options: Any) -> tuple[mill.Report, list[int]]:
        found: list[int] = []

        class Counts(mill.ProcessFunction):
            if kind == "value":
                n = mill.ValueState(int, default=0, **options)
            elif kind == "list":
                n = mill.ListState(int, **options)
            else:
                n = mill.MapState(int, int, **options)

            def process(self, row: Any, ctx: mill.ProcessContext) -> None:
                if kind == "value":
                    self.n.value += 1
                    found.append(self.n.value)
                    return
                if kind == "list":
                    self.n.add(row.i)
                else:
                    self.n[row.i] = 1
                found.append(len(self.n))

        made = mill.generate(rate=200, i=mill.index(), k=mill.index() % 2, at=mill.index().cast(mill.Timestamp("us")))
        sink = made.event_time("at").key_by("k").process(Counts(), schema={"i": int}).name("counts").for_each(lambda row: None)
        checkpoint = mill.Checkpoint(tmp_path / "state", every="30ms", mode="at_least_once")
        job = mill.start(sink, checkpoint=checkpoint, parallelism=1)
        until = time.monotonic() + 30
        while len(found) < rows or job.metrics().checkpoints_taken < 2:
            assert time.monotonic() < until, f"{len(found)} records"
            time.sleep(0.02)
        job.stop()
        return job.wait("20s"), found

    first, before = run(30, ttl="365d", clock="event")
    second, after = run(10, ttl="300d", clock="processing")
    assert first.notes == []
    (note,) = second.notes
    assert 'for "365d"' in note and 'for "300d" of processing time' in note
    assert after[0] > 1 and after[0] >= max(before) - 10


def test_timers_at_the_end_of_the_input_know_what_time_it_is() -> None:
    # They kept the time of the last record, and after a restart among them 1970.
    class Slow(mill.ProcessFunction):
        n = mill.ValueState(int, default=0)

        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            ctx.timers.event_time(row.at)

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[dict[str, Any]]:
            self.n.value += 1
            time.sleep(0.001)
            if self.n.value < 400:
                ctx.timers.event_time(at + timedelta(seconds=1))
            yield {"now": ctx.now}

    rows = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1)}]).event_time("at").key_by("k")
    times = rows.process(Slow(), schema={"now": mill.Timestamp("us", tz="UTC")}).collect(parallelism=1)["now"]
    assert len(times) == 400 and times == sorted(times)
    # 400 timers take 0.4 s at least; several in a row share their time.
    assert times[-1] - times[0] > timedelta(seconds=0.2)
