"""States of process functions at work: what ``self.last`` is while a function runs.

A call of a function is about some keys, which have numbers. A handle has the values of all of them in lists, as the engine
gave them; what is read and written is the value of the key whose turn it is. What has changed goes back to the engine after
the call. Nothing stays here from one call to the next.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

from millstream._kept import Kept

__all__ = [
    "Copier",
    "DefaultValue",
    "FastValue",
    "FloatMapHandle",
    "ListHandle",
    "MapHandle",
    "ReducingHandle",
    "Scope",
    "ValueHandle",
    "one_nan",
    "same_nan",
]

_NEVER = -(2**63)

Copier = Callable[[Any], Any]
"""Copies a value that can be changed in place, so that what was returned earlier stays as it was."""


class Scope:
    """Which key's turn it is, and what time it is for it."""

    __slots__ = ("changed", "event", "event_us", "floor", "now_us", "number")

    def __init__(self, event_us: Callable[[], int | None], event: Callable[[], int]) -> None:
        self.number = 0
        self.event = event
        self.changed: set[int] = set()
        self.event_us = event_us
        self.floor = _NEVER
        self.now_us = 0

    def event_clock(self) -> int:
        """Return the event time that ages are measured by."""
        at = self.event_us()
        return self.floor if at is None or at < self.floor else at

    def processing_clock(self) -> int:
        """Return the processing time that ages are measured by."""
        return self.now_us


class FastValue:
    """A value that is set before each event and taken after it: of a type that cannot be changed in place, without a ttl.

    ``value`` is a slot, so that reading and setting it cost next to nothing.
    """

    __slots__ = ("_before", "default", "exact", "kept", "value", "values")

    def __init__(self, default: Any, exact: type, kept: Kept) -> None:
        self.default = default
        self.exact = exact
        self.kept = kept
        self.values: list[Any] = []
        self._before: list[Any] = []
        self.clear()

    def __repr__(self) -> str:
        """Show the value."""
        return f"<ValueState {self.value!r}>"

    def clear(self) -> None:
        """Forget the value."""
        self.value: Any = None

    def load(self, columns: list[list[Any]]) -> None:
        """Take the values of the keys of a call; None for those that have none."""
        self.values = columns[0]
        self._before = self.values.copy()

    def changed(self) -> list[int]:
        """Tell of which keys the value is another one than before."""
        pairs = enumerate(map(operator.is_not, self.values, self._before))
        return [number for number, is_other in pairs if is_other]

    def columns(self, changed: list[int]) -> list[list[Any]]:
        """Give the values of these keys back."""
        values = self.values
        return [values if len(changed) == len(values) else [values[number] for number in changed]]


class DefaultValue(FastValue):
    """One that reads as the default where none is set: what is set and what is read are slots of their own."""

    __slots__ = ("set_to", "shown")

    def _set(self, value: Any) -> None:
        self.set_to = value
        self.shown = self.default if value is None else value

    value = property(operator.attrgetter("shown"), _set)


class _Aged:
    """What handles share whose values grow old."""

    __slots__ = ("_clock", "_refreshes", "_scope", "_ttl")

    def __init__(self, scope: Scope, ttl: int | None, clock: str, refresh: str) -> None:
        self._scope = scope
        self._ttl = ttl
        self._clock = scope.event_clock if clock == "event" else scope.processing_clock
        self._refreshes = ttl is not None and refresh == "read"


class ValueHandle(_Aged):
    """A value of each key.

    One that can be changed in place is copied when an event first reads it: the event before may have returned it.
    """

    __slots__ = ("_copier", "_default", "_events", "_is_mutable", "_kept", "_values", "_written")

    def __init__(
        self,
        scope: Scope,
        default: Any,
        is_mutable: bool,
        copier: Copier | None,
        kept: Kept | None,
        ttl: int | None,
        clock: str,
        refresh: str,
    ) -> None:
        super().__init__(scope, ttl, clock, refresh)
        self._default = default
        self._is_mutable = is_mutable
        self._copier = copier
        self._kept = kept
        self._events: dict[int, int] = {}
        self._values: list[Any] = []
        self._written: list[int | None] = []

    @property
    def value(self) -> Any:
        """The value of the key, or the default."""
        number = self._scope.number
        value = self._values[number]
        if value is not None and self._ttl is not None and self._is_over(number, self._clock()):
            self._put(number, None)
            value = None
        if value is None:
            if not self._is_mutable or self._default is None:
                return self._default
            # What is done to it is kept.
            value = copy.deepcopy(self._default)
            self._put(number, value)
            return value
        if self._copier is not None and self._events.get(number) != (event := self._scope.event()):
            if number in self._events:
                value = self._values[number] = self._copier(value)
            self._events[number] = event
        if self._refreshes:
            self._put(number, value)
        elif self._is_mutable:
            self._scope.changed.add(number)
        return value

    @value.setter
    def value(self, value: Any) -> None:
        self._put(self._scope.number, value if self._kept is None else self._kept(value))

    def __repr__(self) -> str:
        """Show the value."""
        return f"<{type(self).__name__} {self.value!r}>"

    def clear(self) -> None:
        """Forget the value."""
        self._put(self._scope.number, None)

    def _put(self, number: int, value: Any) -> None:
        self._values[number] = value
        if self._ttl is not None:
            self._written[number] = None if value is None else self._clock()
        if self._copier is not None:
            self._events[number] = self._scope.event()
        self._scope.changed.add(number)

    def _is_over(self, number: int, at: int) -> bool:
        written = self._written[number]
        if written is None:
            # Kept by a run in which the state had no ttl: it counts as written now.
            self._written[number] = at
            self._scope.changed.add(number)
            return False
        return self._ttl is not None and at - written >= self._ttl

    def load(self, columns: list[list[Any]]) -> None:
        """Take the values of the keys of a call."""
        self._values = columns[0]
        self._events.clear()
        if self._ttl is not None:
            self._written = columns[1]

    def columns(self, changed: list[int]) -> list[list[Any]]:
        """Give the values of these keys back."""
        columns = [[self._values[number] for number in changed]]
        if self._ttl is not None:
            columns.append([self._written[number] for number in changed])
        return columns

    def expire(self, at: int) -> None:
        """Forget the values that are too old by now."""
        for number, value in enumerate(self._values):
            if value is not None and self._is_over(number, at):
                self._values[number] = self._written[number] = None
                self._scope.changed.add(number)


class ReducingHandle(ValueHandle):
    """A value of each key that new ones are folded into."""

    __slots__ = ("_function",)

    def __init__(
        self,
        scope: Scope,
        function: Callable[[Any, Any], Any],
        is_mutable: bool,
        copier: Copier | None,
        kept: Kept | None,
        ttl: int | None,
        clock: str,
        refresh: str,
    ) -> None:
        super().__init__(scope, None, is_mutable, copier, kept, ttl, clock, refresh)
        self._function = function

    def add(self, value: Any) -> Any:
        """Fold a value in, and return the result."""
        before = self.value
        result = value if before is None else self._function(before, value)
        if self._kept is not None:
            result = self._kept(result)
        self._put(self._scope.number, result)
        return result


class ListHandle(_Aged):
    """Values of each key, in the order in which they were added."""

    __slots__ = ("_copier", "_kept", "_lists", "_written")

    def __init__(
        self, scope: Scope, copier: Copier | None, kept: Kept | None, ttl: int | None, clock: str, refresh: str
    ) -> None:
        super().__init__(scope, ttl, clock, refresh)
        self._copier = copier
        self._kept = kept
        self._lists: list[list[Any] | None] = []
        self._written: list[list[int] | None] = []

    def _now(self) -> list[Any]:
        """Return the values of the key, those that are too old left out."""
        number = self._scope.number
        values = self._lists[number]
        if values is None:
            values = self._lists[number] = []
            if self._ttl is not None:
                self._written[number] = []
        elif self._ttl is not None:
            self._prune(number, self._clock())
            values = self._lists[number] or []
        return values

    def _prune(self, number: int, at: int) -> None:
        values, written, ttl = self._lists[number], self._written[number], self._ttl
        if values is None or ttl is None:
            return
        if written is None:
            written = self._written[number] = [at] * len(values)
            self._scope.changed.add(number)
        kept = [place for place, time in enumerate(written) if at - time < ttl]
        if len(kept) < len(values):
            self._lists[number] = [values[place] for place in kept]
            self._written[number] = [written[place] for place in kept]
            self._scope.changed.add(number)

    def _read(self) -> list[Any]:
        values = self._now()
        if self._refreshes and values:
            number = self._scope.number
            self._written[number] = [self._clock()] * len(values)
            self._scope.changed.add(number)
        return values

    def add(self, value: Any) -> None:
        """Add a value."""
        self.extend((value,))

    def extend(self, values: Iterable[Any]) -> None:
        """Add several values."""
        number = self._scope.number
        kept = self._now()
        before = len(kept)
        kept.extend(values if self._kept is None else map(self._kept, values))
        self._lists[number] = kept
        if self._ttl is not None:
            written = self._written[number] or []
            written.extend([self._clock()] * (len(kept) - before))
            self._written[number] = written
        self._scope.changed.add(number)

    def set(self, values: Iterable[Any]) -> None:
        """Replace the stored values with these."""
        given = list(values)
        self.clear()
        self.extend(given)

    def clear(self) -> None:
        """Forget all values."""
        number = self._scope.number
        self._lists[number] = None
        if self._ttl is not None:
            self._written[number] = None
        self._scope.changed.add(number)

    def get(self) -> list[Any]:
        """Return the values as a list of its own."""
        values = self._read()
        return values.copy() if self._copier is None else list(map(self._copier, values))

    def __iter__(self) -> Iterator[Any]:
        """Go through the values."""
        return iter(self.get())

    def __len__(self) -> int:
        """Count the values."""
        return len(self._now())

    def __getitem__(self, place: Any) -> Any:
        """Return a value by its place, or several."""
        return self._read()[place] if self._copier is None else self.get()[place]

    def __contains__(self, value: object) -> bool:
        """Tell whether a value is among them; asking that is no reading of them."""
        return (value if self._kept is None else self._kept(value)) in self._now()

    def __repr__(self) -> str:
        """Show the values."""
        return f"<ListState {self._now()!r}>"

    def load(self, columns: list[list[Any]]) -> None:
        """Take the values of the keys of a call."""
        self._lists = columns[0]
        if self._ttl is not None:
            self._written = columns[1]

    def columns(self, changed: list[int]) -> list[list[Any]]:
        """Give the values of these keys back."""
        columns: list[list[Any]] = [[self._lists[number] or None for number in changed]]
        if self._ttl is not None:
            columns.append([(self._written[number] if self._lists[number] else None) for number in changed])
        return columns

    def expire(self, at: int) -> None:
        """Forget the values that are too old by now."""
        for number in range(len(self._lists)):
            self._prune(number, at)


class MapHandle(_Aged, MutableMapping[Any, Any]):
    """Values of each key by an entry key, in the order in which they were first set."""

    __slots__ = ("_copier", "_kept", "_kept_key", "_keys", "_maps", "_times", "_values", "_written")

    def __init__(
        self,
        scope: Scope,
        copier: Copier | None,
        kept_key: Kept | None,
        kept: Kept | None,
        ttl: int | None,
        clock: str,
        refresh: str,
    ) -> None:
        super().__init__(scope, ttl, clock, refresh)
        self._copier = copier
        self._kept_key = kept_key
        self._kept = kept
        self._values: list[list[Any] | None] = []
        self._keys: list[list[Any] | None] = []
        self._written: list[list[int] | None] = []
        self._maps: dict[int, dict[Any, Any]] = {}
        self._times: dict[int, dict[Any, int]] = {}

    def _map(self, number: int) -> dict[Any, Any]:
        found = self._maps.get(number)
        if found is None:
            keys = self._keys[number] or ()
            found = self._maps[number] = dict(zip(keys, self._values[number] or (), strict=True))
            if self._ttl is not None:
                written = self._written[number]
                if written is None and found:
                    written = [self._clock()] * len(found)
                    self._scope.changed.add(number)
                self._times[number] = dict(zip(keys, written or (), strict=True))
        return found

    def _now(self) -> dict[Any, Any]:
        number = self._scope.number
        found = self._map(number)
        if self._ttl is not None and found:
            self._prune(number, self._clock())
        return found

    def _prune(self, number: int, at: int) -> None:
        found, ttl = self._map(number), self._ttl
        if ttl is None:
            return
        times = self._times[number]
        over = [key for key, time in times.items() if at - time >= ttl]
        for key in over:
            del found[key], times[key]
        if over:
            self._scope.changed.add(number)

    def __getitem__(self, key: Any) -> Any:
        """Return the value of an entry."""
        if self._kept_key is not None:
            key = self._kept_key(key)
        number = self._scope.number
        value = self._map(number)[key]
        if self._copier is not None:
            value = self._copier(value)
        if self._ttl is None:
            return value
        at = self._clock()
        if at - self._times[number][key] >= self._ttl:
            self._drop(number, key)
            raise KeyError(key)
        if self._refreshes:
            self._times[number][key] = at
            self._scope.changed.add(number)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set the value of an entry."""
        if key is None:
            raise TypeError("None cannot be a key of a MapState")
        number = self._scope.number
        if self._kept_key is not None:
            key = self._kept_key(key)
        entries = self._map(number)
        if self._kept is not None:
            value = self._kept(value)
        if self._ttl is not None:
            at, times = self._clock(), self._times[number]
            if key in entries and at - times[key] >= self._ttl:
                # It is not there any more, removed or not: the new one is the last.
                del entries[key], times[key]
            times[key] = at
        entries[key] = value
        self._scope.changed.add(number)

    def __delitem__(self, key: Any) -> None:
        """Remove an entry."""
        if self._kept_key is not None:
            key = self._kept_key(key)
        if not self._has(key):
            raise KeyError(key)
        self._drop(self._scope.number, key)

    def _drop(self, number: int, key: Any) -> None:
        del self._map(number)[key]
        if self._ttl is not None:
            del self._times[number][key]
        self._scope.changed.add(number)

    def __contains__(self, key: object) -> bool:
        """Tell whether there is such an entry."""
        return self._has(key if self._kept_key is None else self._kept_key(key))

    def _has(self, key: Any) -> bool:
        number = self._scope.number
        if key not in self._map(number):
            return False
        return self._ttl is None or self._clock() - self._times[number][key] < self._ttl

    def __iter__(self) -> Iterator[Any]:
        """Go through the entry keys."""
        return iter(list(self._now()))

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._now())

    def __repr__(self) -> str:
        """Show the entries."""
        return f"<MapState {self._now()!r}>"

    def clear(self) -> None:
        """Remove all entries."""
        number = self._scope.number
        self._maps[number] = {}
        self._times[number] = {}
        self._scope.changed.add(number)

    def load(self, columns: list[list[Any]]) -> None:
        """Take the entries of the keys of a call."""
        self._values, self._keys = columns[0], columns[1]
        if self._ttl is not None:
            self._written = columns[2]
        self._maps = {}
        self._times = {}

    def columns(self, changed: list[int]) -> list[list[Any]]:
        """Give the entries of these keys back."""
        maps = [self._map(number) for number in changed]
        columns: list[list[Any]] = [
            [list(entries.values()) if entries else None for entries in maps],
            [list(entries) if entries else None for entries in maps],
        ]
        if self._ttl is not None:
            times = [self._times[number] for number in changed]
            columns.append([list(written.values()) if written else None for written in times])
        return columns

    def expire(self, at: int) -> None:
        """Remove the entries that are too old by now."""
        for number in range(len(self._values)):
            if self._values[number] is not None:
                self._prune(number, at)


_NAN = float("nan")


def same_nan(key: Any) -> Any:
    """Return a key, and the same NaN for every one: in a dict each is another key, unless it is the same object."""
    return _NAN if key != key else key


def one_nan(kept_key: Kept | None) -> Kept:
    """Return what converts an entry key as another function does, and all NaN to one."""
    return same_nan if kept_key is None else (lambda key: same_nan(kept_key(key)))


class FloatMapHandle(MapHandle):
    """Values by an entry key that is a float: all NaN are one, as they are one key of a stream."""

    __slots__ = ()

    def load(self, columns: list[list[Any]]) -> None:
        """Take the entries of the keys of a call."""
        values, keys, *written = columns
        super().load([values, [None if found is None else list(map(same_nan, found)) for found in keys], *written])


_OTHER_NAMES: dict[str, dict[str, str]] = {
    "ValueState": dict.fromkeys(("get", "set", "update", "add", "append", "put", "items"), "use .value"),
    "ReducingState": {"get": "use .value", "append": "use add()", "update": "use add()", "put": "use add()"},
    "ListState": {
        **dict.fromkeys(("append", "push", "put"), "use add()"),
        **dict.fromkeys(("update", "add_all"), "use extend()"),
        "value": "use get() and set()",
        **dict.fromkeys(("insert", "pop", "remove", "sort"), "change the list of get(), and set() it"),
    },
    "MapState": {
        "value": "use it as a dict: self.state[key]",
        "set": "write self.state[key] = value",
        "put": "write self.state[key] = value",
        "add": "write self.state[key] = value",
        "contains": "write key in self.state",
        "remove": "write del self.state[key]",
        "put_all": "use update()",
    },
}
"""What other libraries call it, and what to do here."""


def _other_name(name: str, advice: str) -> property:
    def refuse(handle: object, *_: object) -> Any:
        raise AttributeError(f"{type(handle).__name__} has no {name}; {advice}", name=name, obj=handle)

    return property(refuse, refuse)


# Users meet these classes in messages and at the prompt; there they have the names of what was declared. What they lack is
# a property each, as __getattr__ would make everything else slower.
for _class, _kind in (
    (FastValue, "ValueState"),
    (DefaultValue, "ValueState"),
    (ValueHandle, "ValueState"),
    (ReducingHandle, "ReducingState"),
    (ListHandle, "ListState"),
    (MapHandle, "MapState"),
    (FloatMapHandle, "MapState"),
):
    _class.__name__ = _class.__qualname__ = _kind
    for _name, _advice in _OTHER_NAMES[_kind].items():
        setattr(_class, _name, _other_name(_name, _advice))
