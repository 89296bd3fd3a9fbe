"""What calls asynchronous functions: an event loop on a thread of its own, and the calls that are in flight on it.

One loop serves all jobs of the process. It begins with the first step that needs it and ends with the last one.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import inspect
import itertools
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from millstream import _live
from millstream._row import row_class, rows
from millstream.errors import PlanError
from millstream.functions import as_arrow, function_name

__all__ = ["AsyncAdapter", "AsyncBatchAdapter", "Policy", "check_async", "is_async", "outcomes"]

_CLOSING_SECONDS_MAX = 1.0
"""How long calls that are given up have to clean up after themselves."""


def is_async(function: Any) -> bool:
    """Tell whether a function is an ``async def`` one, or an object whose call is."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004


def check_async(function: Any, method: str, plain: str) -> None:
    """Refuse what is no ``async def`` function; ``plain`` is the method that takes an ordinary one."""
    if not callable(function):
        raise PlanError(f"{method}() takes an async def function, not {function!r:.200}")
    name = function_name(function)
    if inspect.isasyncgenfunction(function):
        raise PlanError(
            f"{method}() takes a function with one result, and {name} is an asynchronous generator; return a list and explode() it"
        )
    if not is_async(function):
        raise PlanError(f"{method}() takes an async def function, and {name} is a plain one; use {plain}({name})")


# -- the loop ------------------------------------------------------------------------------------------------------------


class Loop:
    """An event loop that runs on a thread of its own as long as someone uses it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._users = 0
        self._thread = threading.Thread(target=self._run, name="millstream-async", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left, timeout=_CLOSING_SECONDS_MAX))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self._loop.close()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the thread of the loop, soon; does not wait for it."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def result(self, coroutine: Any) -> Any:
        """Run a coroutine and wait for its result, from another thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def release(self) -> None:
        """Note that one user less needs the loop."""
        global _current
        with _lock:
            self._users -= 1
            if self._users:
                return
            if _current is self:
                _current = None
        self.call(self._loop.stop)

    @staticmethod
    def acquire() -> Loop:
        """Return the loop of the process, for one more user."""
        global _current
        with _lock:
            if _current is None:
                _current = Loop()
            _current._users += 1
            return _current


_lock = threading.Lock()
_current: Loop | None = None


def _forget() -> None:
    """In a forked child: the thread of the loop is the parent's."""
    global _current, _lock
    _current, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


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
        """Call a function until it has a result, tries are used up, or time is."""
        if self.timeout_us is None:
            return await self._tries(function, given, None, [])
        seconds = self.timeout_us / 1e6
        deadline = asyncio.get_running_loop().time() + seconds
        failures: list[Exception] = []
        try:
            async with asyncio.timeout_at(deadline) as limit:
                return await self._tries(function, given, deadline, failures)
        except TimeoutError as error:
            if not limit.expired():
                raise
            before = ""
            if failures:
                last = f"{type(failures[-1]).__name__}: {failures[-1]}".removesuffix(": ")
                before = f"; of {len(failures)} tries before, the last one raised {last}"
            raise TimeoutError(f"no result within timeout={_shown(seconds)}{before}") from error

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
                pause = min(self.backoff_us * 2.0**number, self.backoff_max_us) / 1e6
                # Calls that failed together do not come together again.
                pause *= random.uniform(0.5, 1.0)
                if deadline is not None and time() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)


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
        self._loop = Loop.acquire()
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
        self._loop.release()

    # -- on the thread of the loop -----------------------------------------------------------------------------------

    def _begin(self, given: Sequence[tuple[int, Any]]) -> None:
        if self._is_closed:
            return
        loop = asyncio.get_running_loop()
        for ticket, value in given:
            task = loop.create_task(self._answer(ticket, value))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, ticket: int, given: Any) -> None:
        try:
            value = await self._call(given)
        except asyncio.CancelledError as error:
            if self._is_closed:
                raise
            failure = RuntimeError("the function cancelled its own task")
            failure.__cause__ = error
            self._publish(ticket, None, failure)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._publish(ticket, None, error)
        else:
            self._publish(ticket, value, None)

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
    def start(self, first: int, batch: Any) -> None:
        """Start on a batch."""
        _live.check()
        self._start([(first, batch)])


class AsyncAdapter:
    """An asynchronous function of a record, of which each parallel instance opens calls."""

    def __init__(self, function: Callable[[Any], Awaitable[Any]], fields: tuple[str, ...], policy: Policy) -> None:
        self.fields = fields
        self.call = functools.partial(policy.call, function)

    def open(self, waker: _Waker) -> Calls:
        """Begin; the waker is woken after results have been published."""
        return _RecordCalls(self, waker)


class AsyncBatchAdapter:
    """An asynchronous function of a batch, of which each parallel instance opens calls."""

    def __init__(self, function: Callable[[Any], Awaitable[Any]], policy: Policy) -> None:
        async def to_arrow(batch: Any) -> Any:
            return as_arrow(await policy.call(function, batch))

        self._call = to_arrow

    def open(self, waker: _Waker) -> Calls:
        """Begin; the waker is woken after results have been published."""
        return _BatchCalls(self._call, waker)


# -- before a job --------------------------------------------------------------------------------------------------------


def outcomes(call: Callable[[Any], Awaitable[Any]], given: Sequence[Any], capacity: int) -> Iterator[tuple[Any, Exception | None]]:
    """Call a function for each of these, so many at a time; go through results and exceptions, in order."""

    async def outcome(room: asyncio.Semaphore, value: Any) -> tuple[Any, Exception | None]:
        async with room:
            try:
                return await call(value), None
            except Exception as error:
                return None, error

    async def all_of_them() -> list[tuple[Any, Exception | None]]:
        room = asyncio.Semaphore(capacity)
        return await asyncio.gather(*(outcome(room, value) for value in given))

    loop = Loop.acquire()
    try:
        yield from loop.result(all_of_them())
    finally:
        loop.release()
