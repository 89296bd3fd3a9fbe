"""Timers that are due, in order of time, and those that join them while they fire."""

from __future__ import annotations

import heapq

__all__ = ["DELETE", "SET", "SET_FOR_NEXT", "Firing"]

DELETE, SET, SET_FOR_NEXT = 0, 1, 2
"""What the engine is to do with a timer."""

_MIN = -(2**63)


class Firing:
    """Timers that fire in order of time, and those that join them meanwhile."""

    __slots__ = ("_added", "_at", "_dead", "_given", "_is_processing", "_place", "_queued", "_stamps", "_until")

    def __init__(self, is_processing: bool, given: list[tuple[int, int, int]], until: int) -> None:
        self._is_processing = is_processing
        self._given = given
        self._place = 0
        self._until = until
        self._at = _MIN
        self._added: list[tuple[int, int, int]] = []
        self._dead: set[tuple[int, int]] = set()
        self._queued: set[tuple[int, int]] | None = None
        # Of timers that were set again while they waited.
        self._stamps: dict[tuple[int, int], int] = {}

    def next(self) -> tuple[int, int, int] | None:
        """Return the next timer: when it is due, its key, the event time of its results."""
        while True:
            given = self._given[self._place] if self._place < len(self._given) else None
            if self._added and (given is None or self._added[0] < given):
                timer = heapq.heappop(self._added)
            elif given is not None:
                self._place += 1
                timer = given
            else:
                return None
            if self._dead and timer[:2] in self._dead:
                self._dead.remove(timer[:2])
                continue
            if self._stamps:
                timer = self._stamped(timer)
            self._at = timer[0]
            if self._queued is not None:
                self._queued.discard(timer[:2])
            return timer

    def _stamped(self, timer: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return a timer with the event time of what has set it last."""
        return (*timer[:2], self._stamps.get(timer[:2], timer[2]))

    def failed_at(self) -> int | None:
        """Return the place of the timer that fires, if it is one of those that were given."""
        return self._place - 1 if self._place and self._given[self._place - 1][0] == self._at else None

    def _waiting(self) -> set[tuple[int, int]]:
        if self._queued is None:
            self._queued = {timer[:2] for timer in self._given[self._place :]}
        return self._queued

    def set(self, is_processing: bool, us: int, number: int, stamp: int) -> int | None:
        """Set a timer; return what the engine is to do, None for nothing."""
        if is_processing != self._is_processing:
            return SET
        if us <= self._at:
            return SET_FOR_NEXT
        timer = (us, number)
        waiting = self._waiting()
        if is_processing and (timer in self._dead or timer in waiting):
            self._stamps[timer] = stamp
        if timer in self._dead:
            self._dead.remove(timer)
            waiting.add(timer)
            return None
        if timer in waiting:
            return None
        if us > self._until:
            return SET
        waiting.add(timer)
        heapq.heappush(self._added, (us, number, stamp if is_processing else us))
        return None

    def delete(self, is_processing: bool, us: int, number: int) -> None:
        """Delete a timer that waits for its turn."""
        timer = (us, number)
        if is_processing == self._is_processing and us > self._at and timer in self._waiting():
            self._waiting().discard(timer)
            self._dead.add(timer)

    def left(self) -> list[tuple[int, int, int]]:
        """Return those that have not fired."""
        rest = self._given[self._place :] + self._added
        return sorted(self._stamped(timer) for timer in rest if timer[:2] not in self._dead)
