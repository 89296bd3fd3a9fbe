"""Options of calls of asynchronous functions, as ``map_async``, ``map_batches_async`` and ``lookup`` take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream._counts import count
from millstream.errors import PlanError
from millstream.time import Duration, microseconds

if TYPE_CHECKING:
    from millstream._async import Policy

__all__ = [
    "BACKOFF",
    "BACKOFF_MAX",
    "BATCHES_IN_FLIGHT",
    "BATCH_ROWS",
    "RetryOn",
    "checked_batch_rows",
    "checked_cache",
    "checked_capacity",
    "checked_ordered",
    "checked_policy",
]

RetryOn = type[Exception] | tuple[type[Exception], ...]
"""Which exceptions are worth another try."""

BATCH_ROWS = 1024
BATCHES_IN_FLIGHT = 8
BACKOFF, BACKOFF_MAX = "100ms", "10s"

_CAPACITY_MAX = 1_000_000
_CACHE_MAX = 100_000_000
_RETRIES_MAX = 1_000_000


def checked_capacity(method: str, capacity: object) -> int:
    """Return how many calls may be in flight."""
    return count(capacity, f"{method}(): capacity= is a number of calls of at least 1", 1, _CAPACITY_MAX)


def checked_batch_rows(method: str, batch_rows: object) -> int:
    """Return how many records a call gets at most."""
    return count(batch_rows, f"{method}(): batch_rows= is a number of records of at least 1", 1)


def checked_cache(method: str, cache: object, ttl: Duration | None) -> tuple[int, int | None]:
    """Return how many keys are cached, and for how many microseconds."""
    size = count(cache, f"{method}(): cache= is a number of keys", 0, _CACHE_MAX)
    ttl_us = None if ttl is None else microseconds(ttl, f"{method}(): ttl")
    if ttl_us is not None and ttl_us <= 0:
        raise PlanError(f"{method}(): ttl= is more than zero, not {ttl!r:.80}; cache=0 remembers nothing")
    return size, ttl_us


def checked_ordered(method: str, ordered: object) -> bool:
    """Return whether results come in the order of the records."""
    if not isinstance(ordered, bool):
        raise PlanError(f"{method}(): ordered= is True or False, not {ordered!r:.200}")
    return ordered


def checked_policy(
    method: str,
    timeout: Duration | None,
    retries: object,
    retry_on: object,
    backoff: Duration,
    backoff_max: Duration,
) -> Policy:
    """Return how long a call may take, and how often it is tried."""
    # Only who uses it pays for asyncio when the package is imported.
    from millstream._async import Policy

    def duration(value: Duration, name: str) -> int:
        us = microseconds(value, f"{method}(): {name}")
        if us <= 0:
            raise PlanError(f"{method}(): {name}= is more than zero, not {value!r:.80}")
        return us

    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not kinds or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        raise PlanError(
            f"{method}(): retry_on= is a class of exceptions or a tuple of them, as in retry_on=ConnectionError, not {retry_on!r:.200}"
        )
    return Policy(
        timeout_us=None if timeout is None else duration(timeout, "timeout"),
        retries=count(retries, f"{method}(): retries= is a number of further tries", 0, _RETRIES_MAX),
        retry_on=kinds,
        backoff_us=duration(backoff, "backoff"),
        backoff_max_us=duration(backoff_max, "backoff_max"),
    )
