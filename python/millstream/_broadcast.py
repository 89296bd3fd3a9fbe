"""Broadcast state at work: what ``self.rules`` is in a process function that reads a broadcast stream.

It belongs to no key. Its values are here between calls, as every call reads them; the engine has them in one row of columns,
which replaces those that are here when it has changed. ``process_broadcast`` alone may write, and what it reads is the same in
every task, so that all of them write the same.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from millstream._kept import Kept
from millstream._row import Row, row_class
from millstream._states import same_nan

__all__ = ["BroadcastContext", "BroadcastMap", "BroadcastValue", "Gate", "KeyedStateGuard", "LatestRows"]


class Gate:
    """Whether broadcast state may be written now."""

    __slots__ = ("is_open",)

    def __init__(self) -> None:
        self.is_open = False


class _Broadcast:
    __slots__ = ("_gate", "_name", "is_changed")

    def __init__(self, gate: Gate, name: str) -> None:
        self._gate = gate
        self._name = name
        self.is_changed = False

    def _write(self) -> None:
        if not self._gate.is_open:
            raise RuntimeError(
                f"state {self._name!r} is broadcast state: process_broadcast() alone can write it, so that it is the same in "
                "every task"
            )
        self.is_changed = True


class BroadcastValue(_Broadcast):
    """A value that is the same in every task."""

    __slots__ = ("_copier", "_default", "_kept", "_value")

    def __init__(
        self, gate: Gate, name: str, default: Any, copier: Callable[[Any], Any] | None, kept: Kept | None
    ) -> None:
        super().__init__(gate, name)
        self._default = default
        self._copier = copier
        self._kept = kept
        self._value: Any = None

    @property
    def value(self) -> Any:
        """The value, or the default: a copy, where it can be changed in place."""
        value = self._value
        if value is None:
            return self._default if self._copier is None else copy.deepcopy(self._default)
        return value if self._copier is None else self._copier(value)

    @value.setter
    def value(self, value: Any) -> None:
        self._write()
        self._value = value if self._kept is None else self._kept(value)

    def clear(self) -> None:
        """Forget the value."""
        self._write()
        self._value = None

    def __repr__(self) -> str:
        """Show the value."""
        return f"<ValueState {self.value!r}>"

    def load(self, columns: list[list[Any]]) -> None:
        """Take what the engine has."""
        self._value = columns[0][0]
        self.is_changed = False

    def columns(self) -> list[list[Any]]:
        """Give it back."""
        return [[self._value]]


class BroadcastMap(_Broadcast, MutableMapping[Any, Any]):
    """Values by an entry key that are the same in every task, in the order in which they were first set."""

    __slots__ = ("_copier", "_entries", "_kept", "_kept_key")

    def __init__(
        self, gate: Gate, name: str, copier: Callable[[Any], Any] | None, kept_key: Kept | None, kept: Kept | None
    ) -> None:
        super().__init__(gate, name)
        self._copier = copier
        self._kept_key = kept_key
        self._kept = kept
        self._entries: dict[Any, Any] = {}

    def __getitem__(self, key: Any) -> Any:
        """Return the value of an entry: a copy, where it can be changed in place."""
        value = self._entries[key if self._kept_key is None else self._kept_key(key)]
        return value if self._copier is None else self._copier(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set the value of an entry."""
        self._write()
        if key is None:
            raise TypeError("None cannot be a key of a MapState")
        key = key if self._kept_key is None else self._kept_key(key)
        self._entries[key] = value if self._kept is None else self._kept(value)

    def __delitem__(self, key: Any) -> None:
        """Remove an entry."""
        self._write()
        del self._entries[key if self._kept_key is None else self._kept_key(key)]

    def __contains__(self, key: object) -> bool:
        """Tell whether there is such an entry."""
        return (key if self._kept_key is None else self._kept_key(key)) in self._entries

    def __iter__(self) -> Iterator[Any]:
        """Go through the entry keys."""
        return iter(list(self._entries))

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._entries)

    def clear(self) -> None:
        """Remove all entries."""
        self._write()
        self._entries = {}

    def __repr__(self) -> str:
        """Show the entries."""
        return f"<MapState {self._entries!r}>"

    def load(self, columns: list[list[Any]]) -> None:
        """Take what the engine has."""
        keys = columns[1][0] or ()
        kept_key = self._kept_key
        self._entries = dict(zip(keys if kept_key is None else map(kept_key, keys), columns[0][0] or (), strict=True))
        self.is_changed = False

    def columns(self) -> list[list[Any]]:
        """Give it back."""
        entries = self._entries
        return [[list(entries.values()) if entries else None], [list(entries) if entries else None]]


class LatestRows(Mapping[Any, Row]):
    """The latest row of each key of a broadcast stream, which is the same in every task: ``ctx.broadcast``."""

    def __init__(self, keys: Sequence[str], fields: tuple[str, ...], copier: Callable[[Any], Any] | None) -> None:
        self._fields = fields
        self._make = functools.partial(tuple.__new__, row_class(fields))
        self._key_of = operator.itemgetter(*(fields.index(key) for key in keys))
        self._key = same_nan if len(keys) == 1 else _same_nans
        self._copier = copier
        self._rows: dict[Any, Row] = {}

    def __getitem__(self, key: Any) -> Row:
        """Return the row of a key; of several columns the key is a tuple of their values."""
        row = self._rows[self._key(key)]
        return row if self._copier is None else self._make(map(self._copier, row))

    def __contains__(self, key: object) -> bool:
        """Tell whether there is a row of a key."""
        return self._key(key) in self._rows

    def __iter__(self) -> Iterator[Any]:
        """Go through the keys."""
        return iter(list(self._rows))

    def __len__(self) -> int:
        """Count the keys."""
        return len(self._rows)

    def __repr__(self) -> str:
        """Show the rows."""
        return f"<broadcast {list(self.values())!r}>"

    def take(self, columns: Sequence[Sequence[Any]], changes: Sequence[str] | None) -> None:
        """Take records of the stream: columns, and where they are changes, what each of them is."""
        rows = map(self._make, zip(*columns, strict=True))
        if changes is None:
            self._rows.update((self._key(self._key_of(row)), row) for row in rows)
            return
        for change, row in zip(changes, rows, strict=True):
            if change == "delete":
                self._rows.pop(self._key(self._key_of(row)), None)
            else:
                self._rows[self._key(self._key_of(row))] = row

    def load(self, columns: list[list[Any]]) -> None:
        """Take what the engine has."""
        self._rows = {}
        for values in columns[0][0] or ():
            row = self._make(map(values.__getitem__, self._fields))
            self._rows[self._key(self._key_of(row))] = row

    def columns(self) -> list[list[Any]]:
        """Give it back."""
        return [[[row.asdict() for row in self._rows.values()] or None]]


def _same_nans(key: Any) -> Any:
    """Return a key of several columns with one NaN for all of them, as in key_by()."""
    return tuple(map(same_nan, key)) if isinstance(key, tuple) else key


class KeyedStateGuard:
    """What the state of a key is in ``process_broadcast``, whose records are of no key."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def _refuse(self, *_: object) -> NoReturn:
        name = object.__getattribute__(self, "_name")
        raise RuntimeError(
            f"state {name!r} belongs to a key, and the records of process_broadcast() are of none; declare it with broadcast=True, or "
            "use it in the other methods"
        )

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse to read it."""
        self._refuse()

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        """Refuse to write it."""
        self._refuse()

    __getitem__ = __setitem__ = __delitem__ = __contains__ = __iter__ = __len__ = _refuse


class BroadcastContext:
    """What ``process_broadcast`` gets as ``ctx``: only what is the same in every task."""

    __slots__ = ("_moment", "number", "times")

    def __init__(self, moment: Callable[[int], datetime]) -> None:
        self._moment = moment
        self.times: Any = None
        self.number = 0

    @property
    def timestamp(self) -> datetime | None:
        """The event time of the record."""
        return None if self.times is None else self._moment(self.times[self.number])

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse what a broadcast record has not."""
        why = {
            "key": "the record is of no key",
            "timers": "a timer belongs to a key, and the record is of none",
            "side_output": "every task is called with the record, so it emits nothing",
            "now": "the clock of one task is not that of another, and all have to keep the same",
            "watermark": "one task may be ahead of another, and all have to keep the same",
        }.get(name, "it has timestamp alone")
        raise AttributeError(f"ctx.{name} does not exist in process_broadcast(): {why}", name=name, obj=self)


# Users meet these classes in messages and at the prompt; there they have the names of what was declared.
for _class, _name in ((BroadcastValue, "ValueState"), (BroadcastMap, "MapState"), (BroadcastContext, "ProcessContext")):
    _class.__name__ = _class.__qualname__ = _name
