"""Calls of asynchronous functions: how often and how long one is tried, and those that are in flight.

Only the function runs on the event loop. Records become rows and results become columns on the thread of the engine: what that
takes, such as a first import of pandas, must not keep other calls from their answers.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from millstream import _live
from millstream._loop import CLOSING_SECONDS_MAX, Loop
from millstream._row import row_class, rows
from millstream.functions import as_arrow

__all__ = ["AsyncAdapter", "AsyncBatchAdapter", "Policy", "outcomes"]

_DOUBLINGS_MAX = 63
"""After so many the pause is longer than any that can be asked for."""


# -- one call ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """How long a call may take, and how often it is tried."""

    timeout_us: int | None
    retries: int
    retry_on: tuple[type[Exception], ...]
    backoff_us: int
    backoff_max_us: int

    async def call(self, function: Callable[[Any], Awaitable[Any]], given: Any) -> Any:
        """Call a function until it has a result, or its attempts or its time are used up."""
        if self.timeout_us is None:
            return await self._tries(function, given, None, [])
        seconds = self.timeout_us / 1e6
        loop = asyncio.get_running_loop()
        failures: list[Exception] = []
        # A task of its own, that can be left to itself if it takes no notice of being cancelled (a bare "except:").
        task = loop.create_task(self._tries(function, given, loop.time() + seconds, failures))
        try:
            await asyncio.wait((task,), timeout=seconds)
            if task.done():
                return task.result()
            task.cancel()
            await asyncio.wait((task,), timeout=CLOSING_SECONDS_MAX)
            raise TimeoutError(self._out_of_time(task, failures)) from _raised(task)
        finally:
            if not task.done():
                task.cancel()
                _left.add(task)
                task.add_done_callback(_forget)

    def pause_us(self, number: int) -> int:
        """Return how long to wait at most after so many failures and one."""
        return min(self.backoff_us << min(number, _DOUBLINGS_MAX), self.backoff_max_us)

    def _out_of_time(self, task: asyncio.Task[Any], failures: list[Exception]) -> str:
        text = f"no result within timeout={_shown((self.timeout_us or 0) / 1e6)}"
        if not task.done():
            text += "; the function was cancelled but continues: its except clause must let asyncio.CancelledError pass"
        if failures:
            last = f"{type(failures[-1]).__name__}: {failures[-1]}".removesuffix(": ")
            before = "the try before" if len(failures) == 1 else f"of {len(failures)} tries before, the last one"
            text += f"; {before} raised {last}"
        return text

    async def _tries(
        self, function: Callable[[Any], Awaitable[Any]], given: Any, deadline: float | None, failures: list[Exception]
    ) -> Any:
        time = asyncio.get_running_loop().time
        for number in itertools.count():
            try:
                return await function(given)
            except self.retry_on as error:
                if number >= self.retries:
                    raise
                failures.append(error)
                # Calls that failed together do not come together again.
                pause = self.pause_us(number) / 1e6 * random.uniform(0.5, 1.0)
                if deadline is not None and time() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            if deadline is not None and time() >= deadline:
                raise failures[-1]


_left: set[asyncio.Task[Any]] = set()
"""Tasks that nobody waits for any more: the loop itself would not keep them."""


def _forget(task: asyncio.Task[Any]) -> None:
    _left.discard(task)
    # Else asyncio would log that nobody has asked for it.
    _raised(task)


def _raised(task: asyncio.Task[Any]) -> BaseException | None:
    """Return what a task has ended with, if that is an exception; of a cancelled one, where it was."""
    if not task.done():
        return None
    try:
        task.result()
    except BaseException as error:
        return error
    return None


def _shown(seconds: float) -> str:
    return f'"{seconds:g}s"' if seconds >= 1 else f'"{seconds * 1000:g}ms"'


# -- calls in flight -----------------------------------------------------------------------------------------------------


class _Waker(Protocol):
    def wake(self) -> None: ...


class Calls:
    """The calls in flight of one parallel instance of a step."""

    def __init__(self, call: Callable[[Any], Awaitable[Any]], waker: _Waker) -> None:
        self._call = call
        self._waker = waker
        self._loop = Loop.of_process()
        # The thread of the loop appends, that of the engine takes from the left.
        self._answers: collections.deque[tuple[int, Any, BaseException | None]] = collections.deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_woken = False
        self._is_closed = False

    def _start(self, given: Sequence[tuple[int, Any]]) -> None:
        self._loop.call(self._begin, given)

    def take(self) -> tuple[list[int], list[Any], list[tuple[int, BaseException]]]:
        """Return what has come: tickets with results, and those that failed with what was raised."""
        _live.check()
        answers = [self._answers.popleft() for _ in range(len(self._answers))]
        tickets = [ticket for ticket, _, error in answers if error is None]
        values = [value for _, value, error in answers if error is None]
        return tickets, values, [(ticket, error) for ticket, _, error in answers if error is not None]

    def wake(self) -> None:
        """Wake the engine, from its own thread."""
        self._loop.call(self._waker.wake)

    def close(self) -> None:
        """Give up what is in flight."""
        self._loop.call(self._end)

    # -- on the thread of the loop -----------------------------------------------------------------------------------

    def _begin(self, given: Sequence[tuple[int, Any]]) -> None:
        if self._is_closed:
            return
        loop = asyncio.get_running_loop()
        for ticket, value in given:
            task = loop.create_task(self._answer(ticket, value))
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._settle, ticket))

    async def _answer(self, ticket: int, given: Any) -> None:
        try:
            value = await self._call(given)
        except asyncio.CancelledError as error:
            if self._is_closed:
                raise
            self._publish(ticket, None, _cancelled_itself(error))
        except GeneratorExit:
            # Raised by the function, it ends the task, and _settle() sees it. Raised by close(), as the coroutine is thrown
            # away, nothing may be done here.
            raise
        except BaseException as error:
            self._publish(ticket, None, error)
        else:
            self._publish(ticket, value, None)

    def _settle(self, ticket: int, task: asyncio.Task[None]) -> None:
        """Note that a task has ended; an exception that left it has not been published yet."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._publish(ticket, None, error)

    def _publish(self, ticket: int, value: Any, error: BaseException | None) -> None:
        self._answers.append((ticket, value, error))
        if not self._is_woken:
            # Once for all that ends in this turn of the loop.
            self._is_woken = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._is_woken = False
        if not self._is_closed:
            self._waker.wake()

    def _end(self) -> None:
        self._is_closed = True
        for task in self._tasks:
            task.cancel()


class _RecordCalls(Calls):
    def __init__(self, adapter: AsyncAdapter, waker: _Waker) -> None:
        super().__init__(adapter.call, waker)
        self._make = functools.partial(tuple.__new__, row_class(adapter.fields))

    def start(self, first: int, columns: Sequence[Sequence[Any]], count: int) -> None:
        """Start on records with these columns."""
        _live.check()
        self._start(list(zip(itertools.count(first), rows(self._make, columns, count))))


class _BatchCalls(Calls):
    def __init__(self, adapter: AsyncBatchAdapter, waker: _Waker) -> None:
        super().__init__(adapter.call, waker)
        self._prepare = adapter.prepare
        self._finish = adapter.finish

    def start(self, first: int, batch: Any) -> None:
        """Start on a batch."""
        _live.check()
        try:
            given = batch if self._prepare is None else self._prepare(batch)
        except Exception as error:
            self._answers.append((first, None, error))
            self.wake()
            return
        self._start([(first, given)])

    def take(self) -> tuple[list[int], list[Any], list[tuple[int, BaseException]]]:
        """Return what has come, results as Arrow data."""
        tickets, values, failures = super().take()
        fine: list[int] = []
        finished: list[Any] = []
        for ticket, value in zip(tickets, values, strict=True):
            try:
                finished.append(as_arrow(value if self._finish is None else self._finish(value)))
            except Exception as error:
                failures.append((ticket, error))
            else:
                fine.append(ticket)
        return fine, finished, failures


class AsyncAdapter:
    """An asynchronous function of a record, of which each parallel instance opens calls."""

    def __init__(self, function: Callable[[Any], Awaitable[Any]], fields: tuple[str, ...], policy: Policy) -> None:
        self.fields = fields
        self.call = functools.partial(policy.call, function)

    def open(self, waker: _Waker) -> Calls:
        """Begin; the waker is woken after results have been published."""
        return _RecordCalls(self, waker)


class AsyncBatchAdapter:
    """An asynchronous function of a batch, of which each parallel instance opens calls.

    A result is ``finish(await call(prepare(batch)))``, made Arrow data; all but the call is done on the thread of the engine.
    """

    def __init__(
        self,
        call: Callable[[Any], Awaitable[Any]],
        *,
        prepare: Callable[[Any], Any] | None = None,
        finish: Callable[[Any], Any] | None = None,
    ) -> None:
        self.call = call
        self.prepare = prepare
        self.finish = finish

    def open(self, waker: _Waker) -> Calls:
        """Begin; the waker is woken after results have been published."""
        return _BatchCalls(self, waker)


# -- before a job --------------------------------------------------------------------------------------------------------


def _cancelled_itself(error: asyncio.CancelledError) -> Exception:
    failure = RuntimeError("the function cancelled its own task")
    failure.__cause__ = error
    return failure


class _Exit(Exception):
    """Carries what is no ``Exception`` out of a task: the loop would end by itself."""


def outcomes(call: Callable[[Any], Awaitable[Any]], given: Sequence[Any], capacity: int) -> Iterator[tuple[Any, Exception | None]]:
    """Call a function for each of these, so many at a time; go through results and exceptions, in order.

    If the function raises something else than an ``Exception``, such as a ``SystemExit``, it is raised here, and the other
    calls in flight are abandoned.
    """

    is_given_up = False

    async def outcome(room: asyncio.Semaphore, value: Any) -> tuple[Any, Exception | None]:
        async with room:
            try:
                return await call(value), None
            except Exception as error:
                return None, error
            except asyncio.CancelledError as error:
                if is_given_up:
                    raise
                return None, _cancelled_itself(error)
            except (SystemExit, KeyboardInterrupt) as error:
                raise _Exit from error

    async def all_of_them() -> list[tuple[Any, Exception | None]]:
        nonlocal is_given_up
        room = asyncio.Semaphore(capacity)
        tasks = [asyncio.ensure_future(outcome(room, value)) for value in given]
        try:
            return await asyncio.gather(*tasks)
        finally:
            is_given_up = True
            for task in tasks:
                task.cancel()

    try:
        yield from Loop.of_process().result(all_of_them())
    except _Exit as exit:
        assert exit.__cause__ is not None
        raise exit.__cause__ from None
