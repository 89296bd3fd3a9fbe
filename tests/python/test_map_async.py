"""Asynchronous functions: order, capacity, time-outs, retries, failures, and what is in flight at a kill."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import select
import selectors
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millstream as mill
from millstream import col, lit
from millstream._async import Policy
from millstream._loop import Loop
from millstream.testing import simulate


def numbers(rows: int) -> mill.Stream:
    return mill.generate(rows=rows, n=mill.index())


async def double(row: Any) -> dict[str, int]:
    await asyncio.sleep(random.random() * 0.003)
    return {"n": row.n, "twice": 2 * row.n}


DOUBLED = {"n": int, "twice": int}


@pytest.mark.parametrize("capacity", [1, 7, 1000])
def test_results_come_in_order(capacity: int) -> None:
    rows = 100 if capacity == 1 else 2_000
    got = numbers(rows).map_async(double, schema=DOUBLED, capacity=capacity).collect(parallelism=1).to_pylist()
    assert got == [{"n": n, "twice": 2 * n} for n in range(rows)]


@pytest.mark.parametrize("parallelism", [1, 3])
def test_unordered_results_are_the_same_ones(parallelism: int) -> None:
    stream = numbers(3_000).rebalance().map_async(double, schema=DOUBLED, ordered=False)
    got = [row["n"] for row in stream.collect(parallelism=parallelism).to_pylist()]
    assert got != list(range(3_000))
    assert sorted(got) == list(range(3_000))


@pytest.mark.parametrize("ordered", [True, False])
def test_as_many_are_in_flight_as_the_capacity_says(ordered: bool) -> None:
    now, most = 0, 0

    async def counted(row: Any) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        return int(row.n)

    began = time.perf_counter()
    stream = numbers(400).map_async(counted, schema={"n": int}, capacity=50, ordered=ordered)
    assert len(stream.collect(parallelism=1)) == 400
    assert most == 50
    # One after the other they would take two seconds.
    assert time.perf_counter() - began < 1.5


def test_all_jobs_share_one_loop() -> None:
    loops = set()

    async def where(row: Any) -> int:
        loops.add((asyncio.get_running_loop(), threading.get_ident()))
        await asyncio.sleep(0.001)
        return int(row.n)

    numbers(50).map_async(where, schema={"n": int}).map_async(where, schema={"n": int}).collect(parallelism=2)
    numbers(50).map_async(where).collect(parallelism=2)
    assert len(loops) == 1


def test_a_client_that_belongs_to_a_loop_serves_the_next_job() -> None:
    """A client with connections was bound to the loop of the first job, and the next job had another one."""

    class Client:
        loop: asyncio.AbstractEventLoop | None = None

        async def ask(self, n: int) -> int:
            self.loop = self.loop or asyncio.get_running_loop()
            answer = self.loop.create_future()
            self.loop.call_soon(answer.set_result, 2 * n)
            return int(await answer)

    client = Client()

    async def ask(row: Any) -> int:
        return await client.ask(row.n)

    for _ in range(3):
        table = numbers(5).map_async(ask, schema={"twice": int}).collect(parallelism=1)
        assert table["twice"] == [0, 2, 4, 6, 8]


def test_columns_are_those_of_the_annotation_or_of_the_first_results() -> None:
    async def annotated(row: Any) -> float:
        return float(row.n)

    async def plain(row: Any):  # type: ignore[no-untyped-def]
        return {"half": row.n / 2, "text": str(row.n)}

    assert numbers(3).map_async(annotated).schema.names == ["value"]
    began = time.perf_counter()

    async def slow(row: Any):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0.05)
        return {"x": row.n}

    assert repr(numbers(100).map_async(slow).schema) == "Schema(x: int64)"
    assert time.perf_counter() - began < 2
    got = numbers(3).map_async(plain).collect(parallelism=1).to_pylist()
    assert got[1] == {"half": 0.5, "text": "1"}


def test_event_time_goes_with_the_results_and_none_is_late() -> None:
    start = datetime(2024, 1, 1)
    rows = [{"n": n, "at": start + timedelta(seconds=n)} for n in range(600)]

    async def slow(row: Any) -> dict[str, Any]:
        await asyncio.sleep(random.random() * 0.02)
        return {"n": row.n}

    for ordered in (True, False):
        stream = mill.from_iter(rows).event_time("at").map_async(slow, schema={"n": int}, ordered=ordered, capacity=40)
        windows = stream.window_all(mill.tumbling("1m")).agg(n=mill.count(), total=col("n").sum())
        got = sorted(windows.collect(parallelism=1).to_pylist(), key=lambda row: row["window_start"])
        assert [row["n"] for row in got] == [60] * 10, ordered
        assert [row["total"] for row in got] == [sum(range(60 * m, 60 * m + 60)) for m in range(10)]


# -- failures ------------------------------------------------------------------------------------------------------------


async def picky(row: Any) -> int:
    await asyncio.sleep(0.001)
    if row.n % 10 == 3:
        raise ValueError(f"not {row.n}")
    return int(row.n)


def test_an_exception_names_step_record_and_traceback() -> None:
    stream = numbers(20).map_async(picky, schema={"n": int}).name("ask the model")
    with pytest.raises(mill.UserFunctionError, match=r"picky\) raised ValueError: not 3; record: .*\"n\":3") as raised:
        stream.collect(parallelism=1)
    assert raised.value.step == "ask the model"
    assert isinstance(raised.value.__cause__, ValueError)
    errors = stream.errors.collect(parallelism=1, on_error="route").to_pylist()
    assert [row["record"] for row in errors] == ['{"n":3}', '{"n":13}']
    assert all("in picky" in row["traceback"] and "raise ValueError" in row["traceback"] for row in errors)


def test_each_record_ends_in_one_of_result_skip_and_route() -> None:
    for ordered in (True, False):
        stream = numbers(100).map_async(picky, schema={"n": int}, ordered=ordered, capacity=9)
        got = [row["n"] for row in stream.collect(parallelism=1, on_error="skip").to_pylist()]
        assert sorted(got) == [n for n in range(100) if n % 10 != 3]
        assert len(stream.errors.collect(on_error="route")) == 10


def test_a_result_that_does_not_fit_fails_its_record_alone() -> None:
    async def mixed(row: Any) -> Any:
        return "x" if row.n == 2 else row.n

    stream = numbers(5).map_async(mixed, schema={"n": int})
    assert [row["n"] for row in stream.collect(on_error="skip", parallelism=1).to_pylist()] == [0, 1, 3, 4]
    with pytest.raises(mill.UserFunctionError, match=r"returned a result that does not fit: column \"n\" .*record: {\"n\":2}"):
        stream.collect()


def test_a_record_that_takes_too_long_fails_with_the_line_it_was_at() -> None:
    async def stuck(row: Any) -> int:
        if row.n == 4:
            await asyncio.sleep(60)
        return int(row.n)

    stream = numbers(8).map_async(stuck, schema={"n": int}, timeout="200ms")
    began = time.perf_counter()
    with pytest.raises(mill.UserFunctionError, match=r'raised TimeoutError: no result within timeout="200ms"; record: {"n":4}'):
        stream.collect(parallelism=1)
    assert time.perf_counter() - began < 5
    [error] = stream.errors.collect(parallelism=1, on_error="route").to_pylist()
    assert "await asyncio.sleep(60)" in error["traceback"]
    assert [row["n"] for row in stream.collect(on_error="skip", parallelism=1).to_pylist()] == [0, 1, 2, 3, 5, 6, 7]


def test_retries_come_after_growing_pauses_and_only_for_what_is_worth_it() -> None:
    tries: dict[int, list[float]] = {}

    async def flaky(row: Any) -> int:
        seen = tries.setdefault(row.n, [])
        seen.append(time.perf_counter())
        if row.n == 5:
            raise KeyError("for good")
        if len(seen) <= row.n:
            raise ConnectionError(f"try {len(seen)}")
        return len(seen)

    stream = numbers(4).map_async(flaky, schema={"n": int}, retries=3, backoff="40ms")
    assert [row["n"] for row in stream.collect(parallelism=1).to_pylist()] == [1, 2, 3, 4]
    first, second, third = (b - a for a, b in zip(tries[3], tries[3][1:], strict=False))
    assert first >= 0.02
    assert second >= 0.04
    assert third >= 0.08
    tries.clear()
    stream = numbers(6).map_async(flaky, schema={"n": int}, retries=3, backoff="1ms", retry_on=ConnectionError)
    errors = stream.errors.collect(parallelism=1, on_error="route").to_pylist()
    assert {row["record"] for row in errors} == {'{"n":4}', '{"n":5}'}
    assert (len(tries[4]), len(tries[5])) == (4, 1)


class Instant(selectors.SelectSelector):
    """Lets the time of its loop pass at once where the loop would wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


def at_once(call: Coroutine[Any, Any, Any], seconds: float) -> list[Any]:
    """Run a call on a loop whose time is made up; return what comes of it, after so many seconds more."""
    instant = Instant()
    loop = asyncio.SelectorEventLoop(instant)
    loop.time = lambda: instant.now  # type: ignore[method-assign]

    async def waits() -> list[Any]:
        outcome = await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(seconds)
        return outcome

    try:
        return loop.run_until_complete(waits())
    finally:
        loop.close()


def test_no_try_starts_after_the_timeout() -> None:
    tries: list[float] = []

    async def failing(given: Any) -> int:
        tries.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        raise ConnectionError("down")

    policy = Policy(300_000, 1000, (ConnectionError,), 1_000, 1_000)
    [error] = at_once(policy.call(failing, None), 10)
    # Each takes 50 ms, with a pause of half a millisecond to one after it.
    assert len(tries) == 6
    assert tries[-1] < 0.3
    assert isinstance(error, TimeoutError)
    assert str(error) == 'no result within timeout="300ms"; of 5 tries before, the last one raised ConnectionError: down'
    # A pause that would last beyond the time-out is not waited for.
    tries.clear()
    [error] = at_once(Policy(300_000, 1000, (ConnectionError,), 10_000_000, 10_000_000).call(failing, None), 10)
    assert len(tries) == 1
    assert isinstance(error, ConnectionError)


def test_a_time_out_of_the_function_itself_is_an_exception_like_any_other() -> None:
    async def impatient(row: Any) -> int:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(5)
        return 0

    with pytest.raises(mill.UserFunctionError) as raised:
        numbers(1).map_async(impatient, schema={"n": int}, timeout="5s").collect()
    assert "within timeout=" not in str(raised.value)


def test_a_function_that_cancels_itself_fails_its_record() -> None:
    async def quits(row: Any) -> int:
        if row.n == 1:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await asyncio.sleep(0)
        return int(row.n)

    stream = numbers(3).map_async(quits, schema={"n": int})
    assert [row["n"] for row in stream.collect(on_error="skip", parallelism=1).to_pylist()] == [0, 2]
    with pytest.raises(mill.UserFunctionError, match="the function cancelled its own task"):
        stream.collect()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("timeout", [None, "60s"])
def test_an_exit_ends_the_job_whatever_happens_to_records(kind: type[BaseException], timeout: str | None) -> None:
    async def exits(row: Any) -> int:
        raise kind(3)

    with pytest.raises((mill.MillstreamError, KeyboardInterrupt)):
        numbers(3).map_async(exits, schema={"n": int}, timeout=timeout).collect(on_error="skip")


class Stop(BaseException):
    """No ``Exception``."""


@pytest.mark.parametrize("kind", [GeneratorExit, Stop])
@pytest.mark.parametrize("timeout", [None, "60s"])
def test_whatever_a_function_raises_settles_its_call(kind: type[BaseException], timeout: str | None) -> None:
    """A GeneratorExit ended the task without an answer: the job waited for one for ever."""

    async def stops(given: Any) -> Any:
        raise kind("enough")

    for stream in (
        numbers(3).map_async(stops, schema={"n": int}, timeout=timeout),
        numbers(3).map_batches_async(stops, timeout=timeout),
        numbers(3).enrich(mill.lookup(stops, schema={"name": str}, timeout=timeout), on="n"),
    ):
        for on_error in ("fail", "skip"):
            with pytest.raises(mill.UserFunctionError, match=f"{kind.__name__}: enough"):
                stream.collect(on_error=on_error)
    with pytest.raises(kind, match="enough"):
        numbers(3).map_async(stops, timeout=timeout)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("is_child", [False, True])
@pytest.mark.parametrize("timeout", [None, "60s"])
def test_an_exit_while_columns_are_found_out_is_raised_there(
    kind: type[BaseException], is_child: bool, timeout: str | None
) -> None:
    """The call was never answered: it hung."""
    is_given_up = threading.Event()

    async def child() -> int:
        raise kind(3)

    async def exits(row: Any):  # type: ignore[no-untyped-def]
        if row.n == 0:
            try:
                await asyncio.sleep(3_600)
            finally:
                is_given_up.set()
        return await (asyncio.create_task(child()) if is_child else child())

    with pytest.raises(kind, match="3"):
        numbers(3).map_async(exits, timeout=timeout)
    assert is_given_up.wait(60)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_task_of_the_function_leaves_other_jobs_alone(kind: type[BaseException]) -> None:
    """asyncio raises it out of the loop: it ended for the whole process, and every other job hung."""
    has_exited = threading.Event()

    async def child() -> int:
        raise kind(3)

    async def exits(row: Any) -> int:
        return await asyncio.create_task(child())

    async def waits(row: Any) -> int:
        while not has_exited.is_set():
            await asyncio.sleep(0.001)
        return int(row.n)

    other = mill.start(numbers(3).map_async(waits, schema={"n": int}).for_each(lambda row: None), parallelism=1)
    with pytest.raises((mill.MillstreamError, KeyboardInterrupt)):
        numbers(3).map_async(exits, schema={"n": int}).collect(on_error="skip")
    has_exited.set()
    assert other.wait("60s").status == "finished"
    assert len(numbers(3).map_async(waits, schema={"n": int}).collect()) == 3


def test_columns_cannot_be_found_out_within_an_asynchronous_function() -> None:
    async def inner(row: Any):  # type: ignore[no-untyped-def]
        return row.n

    async def outer(row: Any) -> int:
        numbers(1).map_async(inner)
        return 1

    with pytest.raises(mill.UserFunctionError, match="pass schema="):
        numbers(1).map_async(outer, schema={"n": int}).collect()


@pytest.mark.parametrize("is_repeated", [False, True])
def test_a_function_that_takes_its_cancellation_times_out_nevertheless(is_repeated: bool) -> None:
    """A bare except: swallowed the cancellation, and the record had no time-out at all."""
    is_over = threading.Event()

    async def stubborn(row: Any) -> int:
        if row.n == 1:
            while True:
                try:
                    while not is_over.is_set():
                        await asyncio.sleep(0.01)
                    return 77
                except:
                    if not is_repeated:
                        return 78
        return int(row.n)

    stream = numbers(3).map_async(stubborn, schema={"n": int}, timeout="100ms", retries=2)
    try:
        assert stream.collect(on_error="skip", parallelism=1)["n"] == [0, 2]
        [error] = stream.errors.collect(parallelism=1, on_error="route").to_pylist()
    finally:
        is_over.set()
    assert 'TimeoutError: no result within timeout="100ms"' in error["error"]
    assert ("its except clause must let asyncio.CancelledError pass" in error["error"]) == is_repeated


def test_any_number_of_tries_has_a_pause() -> None:
    """From the 1,025th try on the pause was a float too large: an OverflowError took the place of the exception."""
    policy = Policy(None, 1_200, (ConnectionError,), 1, 1)

    async def failing(given: Any) -> None:
        nonlocal tries
        tries += 1
        raise ConnectionError(tries)

    tries = 0
    with pytest.raises(ConnectionError, match="1201"):
        asyncio.run(policy.call(failing, None))
    # The longest pause that can be asked for is reached, and not passed.
    longest = Policy(None, 0, (), 1, 2**63 - 1)
    assert [longest.pause_us(number) for number in (0, 3, 62, 63, 10**6)] == [1, 8, 2**62, 2**63 - 1, 2**63 - 1]


@pytest.mark.parametrize("rows", [5, 5_000])
def test_a_limit_that_is_reached_waits_for_no_call(rows: int) -> None:
    async def hangs(row: Any) -> int:
        if row.n >= 3:
            await asyncio.sleep(3_600)
        return int(row.n)

    began = time.perf_counter()
    stream = numbers(rows).map_async(hangs, schema={"n": int}, capacity=10)
    assert [row["n"] for row in stream.limit(3).collect(parallelism=1).to_pylist()] == [0, 1, 2]
    assert len(stream.collect(limit=2, parallelism=1)) == 2
    assert time.perf_counter() - began < 20


# -- batches -------------------------------------------------------------------------------------------------------------


def test_batches_are_cut_and_come_back_in_order() -> None:
    sizes: list[int] = []

    async def doubled(batch: pa.RecordBatch) -> dict[str, Any]:
        sizes.append(batch.num_rows)
        await asyncio.sleep(random.random() * 0.005)
        return {"n": batch["n"], "twice": pc.multiply(batch["n"], 2)}

    stream = numbers(5_000).map_batches_async(doubled, schema=DOUBLED, batch_rows=64, capacity=5)
    got = stream.collect(parallelism=1)
    assert got.to_pylist() == [{"n": n, "twice": 2 * n} for n in range(5_000)]
    assert max(sizes) == 64


def test_a_batch_may_return_any_number_of_records_where_there_is_no_event_time() -> None:
    async def evens(batch: pa.RecordBatch) -> pa.RecordBatch:
        await asyncio.sleep(random.random() * 0.002)
        return batch.filter(pc.equal(pc.bit_wise_and(batch["n"], 1), 0))

    stream = numbers(1_000).map_batches_async(evens, batch_rows=10)
    assert [row["n"] for row in stream.collect(parallelism=1).to_pylist()] == list(range(0, 1_000, 2))
    timed = mill.from_iter([{"n": n, "at": datetime(2024, 1, 1)} for n in range(4)]).event_time("at")
    with pytest.raises(mill.UserFunctionError, match="it has 2 rows for 4 records, so their event time is not known"):
        timed.map_batches_async(evens).collect()


def test_results_become_columns_off_the_loop() -> None:
    """A first import of pandas, or a large result, held up every other call on the loop, up to their time-outs."""
    threads: dict[str, int] = {}

    class Frame:
        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            threads["converted"] = threading.get_ident()
            return pa.record_batch({"n": [1]}).__arrow_c_array__(requested_schema)

    async def framed(batch: pa.RecordBatch) -> Any:
        threads["called"] = threading.get_ident()
        return Frame()

    assert len(numbers(1).map_batches_async(framed, schema={"n": int}).collect(parallelism=1)) == 1
    assert threads["converted"] != threads["called"]


def test_a_result_that_is_no_frame_fails_its_batch_alone() -> None:
    async def mixed(batch: pa.RecordBatch) -> Any:
        return "x" if 3 in batch["n"].to_pylist() else batch

    stream = numbers(6).map_batches_async(mixed, batch_rows=2)
    assert stream.collect(on_error="skip", parallelism=1)["n"] == [0, 1, 4, 5]


def test_a_batch_that_fails_fails_each_of_its_records() -> None:
    async def picky_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
        if 15 in batch["n"].to_pylist():
            raise ValueError("fifteen")
        return batch

    stream = numbers(40).map_batches_async(picky_batch, batch_rows=10)
    assert [row["n"] for row in stream.collect(on_error="skip", parallelism=1).to_pylist()] == [*range(10), *range(20, 40)]
    errors = stream.errors.collect(on_error="route", parallelism=1).to_pylist()
    assert [row["record"] for row in errors] == [f'{{"n":{n}}}' for n in range(10, 20)]
    assert all("fifteen" in row["error"] for row in errors)


def test_rows_of_a_batch_that_do_not_fit_fail_alone() -> None:
    async def halves(batch: pa.RecordBatch) -> dict[str, Any]:
        return {"n": pa.array([n / 2 for n in batch["n"].to_pylist()])}

    stream = numbers(10).map_batches_async(halves, schema={"n": int})
    assert [row["n"] for row in stream.collect(on_error="skip", parallelism=1).to_pylist()] == [0, 1, 2, 3, 4]


# -- at the line of the user ---------------------------------------------------------------------------------------------


async def fine(row: Any) -> int:
    return 1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda s: s.map_async(lambda row: 1), r"<lambda> is a plain one; use map\(<lambda>\)"),
        (lambda s: s.map_batches_async(lambda batch: batch), r"use map_batches\(<lambda>\)"),
        (lambda s: s.map_async("ask"), "takes an async def function, not 'ask'"),
        (lambda s: s.map_async(fine, timeout=5), r"map_async\(\): timeout.*"),
        (lambda s: s.map_async(fine, timeout="0s"), "timeout= is more than zero"),
        (lambda s: s.map_async(fine, backoff=0.1), "backoff"),
        (lambda s: s.map_async(fine, capacity=0), "capacity= is a number of calls of at least 1, not 0"),
        (lambda s: s.map_async(fine, capacity=2.5), "capacity= is a number"),
        (lambda s: s.map_async(fine, retries=-1), "retries= is a number of further tries, not -1"),
        (lambda s: s.map_async(fine, retry_on="x"), "retry_on= is a class of exceptions"),
        (lambda s: s.map_async(fine, retry_on=KeyboardInterrupt), "retry_on= is a class of exceptions"),
        (lambda s: s.map_async(fine, ordered="no"), "ordered= is True or False"),
        (lambda s: s.map_batches_async(fine, batch_rows=0), "batch_rows= is a number of records"),
        (lambda s: s.map(fine), r"map\(\) takes a plain function, and fine is asynchronous; use map_async\(fine\)"),
        (lambda s: s.map_async(fine, schema={"at": datetime}).event_time("at"), r"call event_time\(\) before map_async"),
        (lambda s: s.map_async(fine, schema={}), "name at least one"),
        (lambda s: s.key_by("n").agg(x=mill.count(), emit="each").map_async(fine), "updating"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_declared(call: Any, text: str) -> None:
    with pytest.raises(mill.PlanError, match=text):
        call(numbers(3))


def test_an_asynchronous_generator_is_refused() -> None:
    async def several(row: Any) -> Any:
        yield 1

    with pytest.raises(mill.PlanError, match="several is an asynchronous generator"):
        numbers(3).map_async(several)


def test_the_plan_says_what_is_in_flight() -> None:
    text = numbers(3).map_async(fine, capacity=12).explain()
    assert "map_async(fine), at most 12 calls in flight in each task, results in the order of the records" in text
    assert "keeps the records in flight until they are answered" in text


# -- checkpoints ---------------------------------------------------------------------------------------------------------


def test_calls_that_hang_delay_no_checkpoint(tmp_path: Path) -> None:
    release = threading.Event()

    async def waits(row: Any) -> int:
        while not release.is_set():
            await asyncio.sleep(0.01)
        return int(row.n)

    stream = mill.generate(rows=50_000, rate=20_000, n=mill.index()).map_async(waits, schema={"n": int}, capacity=10)
    job = mill.start(
        stream.write_json(str(tmp_path / "out")), checkpoint=mill.Checkpoint(str(tmp_path / "state"), every="100ms"), parallelism=1
    )
    until = time.monotonic() + 20
    while job.metrics().checkpoints_taken < 4 and time.monotonic() < until:
        time.sleep(0.02)
    taken = job.metrics().checkpoints_taken
    release.set()
    report = job.wait()
    assert taken >= 4
    assert report.status == "finished"
    got = Counter(row["n"] for row in mill.read_json(str(tmp_path / "out"), schema={"n": int}).collect().to_pylist())
    assert got == Counter(range(50_000))


RUN = """
import asyncio, random, sys
import millstream as mill

random.seed()

async def ask(row):
    await asyncio.sleep(random.random() * 0.05)
    if row.n % 97 == 0:
        raise ValueError(row.n)
    return {"n": row.n, "twice": 2 * row.n}

async def ask_all(batch):
    await asyncio.sleep(random.random() * 0.05)
    return {"n": batch["n"], "twice": [2 * n for n in batch["n"].to_pylist()]}

out, state, kind, ordered, parallelism, rate = sys.argv[1:7]
s = mill.generate(rows=12_000, rate=float(rate), n=mill.index())
if kind == "keyed":
    s = s.rebalance()
if kind == "batches":
    s = s.map_batches_async(ask_all, schema={"n": int, "twice": int}, batch_rows=32, capacity=6, ordered=ordered == "1")
else:
    s = s.map_async(ask, schema={"n": int, "twice": int}, capacity=60, ordered=ordered == "1")
mill.run(
    s.write_json(out),
    checkpoint=mill.Checkpoint(state, every="50ms"),
    parallelism=int(parallelism),
    on_error="skip",
)
print("finished")
"""


@pytest.mark.parametrize(("kind", "ordered"), [("plain", "1"), ("plain", "0"), ("keyed", "0"), ("batches", "1")])
def test_a_kill_loses_nothing_and_repeats_nothing(tmp_path: Path, kind: str, ordered: str) -> None:
    script = tmp_path / "flow.py"
    script.write_text(RUN)
    out, state = str(tmp_path / "out"), str(tmp_path / "state")

    def start(parallelism: int, rate: int) -> subprocess.Popen[str]:
        arguments = [sys.executable, str(script), out, state, kind, ordered, str(parallelism), str(rate)]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def newest() -> int:
        try:
            return max((info.id for info in mill.checkpoints(state)), default=0)
        except mill.CheckpointError:  # the directory is not there yet, or is just being made
            return 0

    # At this rate a run would last for a minute: it is killed as soon as some checkpoints are there.
    for attempt in range(2):
        before = newest()
        process = start(1 + attempt % 2 if kind == "keyed" else 2, 200)
        until = time.monotonic() + 60
        while newest() < before + 3 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()[1]
        assert newest() >= before + 3
        process.send_signal(signal.SIGKILL)
        process.communicate()
    text, errors = start(2, 100_000).communicate(timeout=120)
    assert "finished" in text, errors
    left_out = {n for n in range(12_000) if n % 97 == 0} if kind != "batches" else set()
    got = mill.read_json(out, schema=DOUBLED).collect().to_pylist()
    assert Counter(row["n"] for row in got) == Counter(set(range(12_000)) - left_out)
    assert all(row["twice"] == 2 * row["n"] for row in got)
    assert not [name for name in os.listdir(out) if name.startswith(".")]


@pytest.mark.parametrize("seed", range(12))
def test_kills_and_rescales_under_any_schedule_change_nothing(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    start, rows, ordered = datetime(2024, 1, 1), draw.randrange(50, 200), draw.random() < 0.5

    async def ask(row: Any) -> dict[str, Any]:
        if random.random() < 0.5:
            await asyncio.sleep(random.random() * 0.001)
        if row.n % 13 == 5:
            raise ValueError(row.n)
        return {"n": row.n, "at": row.at}

    async def ask_all(batch: pa.RecordBatch) -> pa.RecordBatch:
        await asyncio.sleep(random.random() * 0.001)
        return batch

    def flow() -> list[mill.Sink]:
        s = mill.generate(rows=rows, n=mill.index(), at=lit(start) + mill.index() * lit(timedelta(seconds=1))).event_time("at")
        if seed & 1:
            s = s.rebalance()
        if seed & 2:
            s = s.map_batches_async(ask_all, capacity=2, batch_rows=4, ordered=ordered)
        else:
            s = s.map_async(ask, schema={"n": int, "at": mill.Timestamp("us")}, capacity=5, ordered=ordered)
        windows = s.window_all(mill.tumbling("30s")).agg(total=col("n").sum())
        return [s.write_json(tmp_path / "all"), windows.write_json(tmp_path / "windows")]

    report = None
    for attempt in itertools.count():
        report = simulate(
            *flow(),
            seed=draw.randrange(1 << 30),
            checkpoint=tmp_path / "state",
            steps=draw.randrange(20, 600) if attempt < 5 else None,
            parallelism=draw.randrange(1, 4),
            frame_rows=draw.choice([3, 17, 1000]),
            on_error="skip",
        )
        if report is not None:
            break
    wanted = [n for n in range(rows) if seed & 2 or n % 13 != 5]
    got = mill.read_json(str(tmp_path / "all"), schema={"n": int, "at": str}).collect().to_pylist()
    assert Counter(row["n"] for row in got) == Counter(wanted)
    totals: Counter[int] = Counter()
    for n in wanted:
        totals[n // 30] += n
    windows = mill.read_json(str(tmp_path / "windows"), schema={"total": int, "window_start": str, "window_end": str})
    assert Counter(row["total"] for row in windows.collect().to_pylist()) == Counter(totals.values())
    assert report.rows_late == 0


def test_an_input_that_changes_its_columns_does_not_take_up_what_was_in_flight(tmp_path: Path) -> None:
    async def never(row: Any) -> int:
        await asyncio.sleep(3_600)
        return 1

    def flow(rows: mill.Stream) -> mill.Sink:
        return rows.map_async(never, schema={"n": int}).write_json(str(tmp_path / "out"))

    checkpoint = mill.Checkpoint(str(tmp_path / "state"), every="50ms")
    job = mill.start(flow(numbers(10)), checkpoint=checkpoint, parallelism=1)
    until = time.monotonic() + 20
    while job.metrics().checkpoints_taken < 2 and time.monotonic() < until:
        time.sleep(0.02)
    job.stop()
    job.wait()
    with pytest.raises(mill.CheckpointError, match="records in flight"):
        mill.run(flow(numbers(10).with_columns(other=col("n"))), checkpoint=checkpoint, parallelism=1)


def test_a_stop_ends_while_calls_hang_and_the_next_run_makes_them_again(tmp_path: Path) -> None:
    hang = True
    calls: Counter[int] = Counter()

    async def ask(row: Any) -> int:
        calls[row.n] += 1
        if hang and row.n % 2:
            await asyncio.sleep(3_600)
        return int(row.n)

    def flow() -> mill.Sink:
        return numbers(20).map_async(ask, schema={"n": int}, ordered=False).write_json(str(tmp_path / "out"))

    job = mill.start(flow(), checkpoint=mill.Checkpoint(str(tmp_path / "state"), every="50ms"), parallelism=1)
    until = time.monotonic() + 20
    while job.metrics().checkpoints_taken < 2 and time.monotonic() < until:
        time.sleep(0.02)
    began = time.perf_counter()
    job.stop()
    assert job.wait().status == "stopped"
    assert time.perf_counter() - began < 5
    hang = False
    mill.run(flow(), checkpoint=mill.Checkpoint(str(tmp_path / "state"), every="50ms"), parallelism=1)
    got = [row["n"] for row in mill.read_json(str(tmp_path / "out"), schema={"n": int}).collect().to_pylist()]
    assert sorted(got) == list(range(20))
    assert calls == Counter({n: 2 if n % 2 else 1 for n in range(20)})


def test_ctrl_c_ends_a_job_whose_calls_hang() -> None:
    script = """
import asyncio
import millstream as mill

async def never(row):
    print("called", flush=True)
    await asyncio.sleep(3600)

mill.generate(rows=3, n=mill.index()).map_async(never, schema={"n": int}).collect()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    began = time.perf_counter()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert time.perf_counter() - began < 5
    assert process.returncode != 0
    assert re.search("KeyboardInterrupt", errors)


def test_a_forked_child_has_a_loop_of_its_own() -> None:
    async def ask(row: Any) -> int:
        await asyncio.sleep(0.01)
        return int(row.n)

    stream = numbers(5).map_async(ask, schema={"n": int})
    loop = Loop.of_process()
    read, write = os.pipe()
    with warnings.catch_warnings():
        # CPython 3.12 warns of any fork of a process with threads; here it is forked to see that it can be.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            os.write(write, str(len(stream.collect(parallelism=1))).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as text:
        if not select.select([read], [], [], 60)[0]:
            os.kill(child, signal.SIGKILL)
        assert text.read() == "5"
    os.waitpid(child, 0)
    assert Loop.of_process() is loop


def test_calls_in_flight_clean_up_when_the_interpreter_ends() -> None:
    script = """
import asyncio, threading
import millstream as mill

begun = threading.Event()

async def never(row):
    begun.set()
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.01)
        print("cleaned up", flush=True)

job = mill.start(mill.generate(rows=1, n=mill.index()).map_async(never, schema={"n": int}).for_each(lambda row: None))
begun.wait()
"""
    ended = subprocess.run([sys.executable, "-X", "dev", "-c", script], capture_output=True, text=True, timeout=60)
    # On a busy machine asyncio says which of its steps took long, as it is asked to by "-X dev".
    errors = [line for line in ended.stderr.splitlines() if not re.match(r"Executing <.* took [\d.]+ seconds", line)]
    assert (ended.returncode, ended.stdout, errors) == (0, "cleaned up\n", [])
