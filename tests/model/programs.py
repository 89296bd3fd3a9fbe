"""Random process functions, as data, and a plain interpreter of what they do.

A program is a list of operations for records, for timers and for the end, on states that it declares. :func:`perform` carries
operations out on whatever ``own`` and ``ctx`` it is given: those of the engine, or those of the interpreter here. The interpreter
keeps what each key has in dicts and lists, takes one record, timer or tick of the clock after the other, and knows nothing of
frames, tasks or checkpoints.
"""

from __future__ import annotations

import copy
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1)
SECOND = 1_000_000
LEAST, GREATEST = -(2**63), 2**63 - 1
Row = dict[str, Any]
Operation = tuple[Any, ...]

KINDS = ("int", "default", "float", "text", "bag", "struct", "object", "list", "structs", "map", "lists", "max", "joined")
"""What states there are: values of several types, lists, maps and folds."""


@dataclass(frozen=True)
class State:
    """A state that a program declares."""

    kind: str
    ttl: int | None
    clock: str
    refresh: str


@dataclass
class Program:
    """What a function does."""

    states: dict[str, State]
    on_record: list[list[Operation]]
    """For each input."""
    on_timer: list[Operation]
    on_end: list[Operation] | None
    can_fail: bool = False


# -- what both sides carry out -------------------------------------------------------------------------------------------


class Refused(ValueError):
    """What a program raises."""


def perform(operations: list[Operation], own: Any, ctx: Any, x: int) -> list[Row]:
    """Carry operations out for a number; returns the results."""
    seen: list[Any] = []
    results: list[Row] = []
    for operation in operations:
        verb, *arguments = operation
        if verb == "if":
            modulus, rest, inner = arguments
            if x % modulus == rest:
                results += perform(inner, own, ctx, x)
        elif verb == "yield":
            results.append({"k": repr(ctx.key), "what": f"{x} {ctx.timestamp} {seen!r}"})
        elif verb == "yield at the end":
            # Which of its times a key has at the end depends on which of them came together.
            results.append({"k": repr(ctx.key), "what": f"{x} {ctx.timestamp.year > 1900} {seen!r}"})
        elif verb == "watermark":
            seen.append(str(ctx.watermark))
        elif verb == "side":
            ctx.side_output(arguments[0], {"k": repr(ctx.key), "what": f"{x} {seen!r}"})
        elif verb == "raise":
            raise Refused(f"{x} is refused")
        elif verb == "now":
            seen.append(str(ctx.now))
        elif verb == "event timer":
            ctx.timers.event_time(ctx.timestamp + timedelta(microseconds=arguments[0]))
        elif verb == "no event timer":
            ctx.timers.delete_event_time(ctx.timestamp + timedelta(microseconds=arguments[0]))
        elif verb == "processing timer":
            ctx.timers.processing_time(ctx.now + timedelta(microseconds=arguments[0]))
        elif verb == "no processing timer":
            ctx.timers.delete_processing_time(ctx.now + timedelta(microseconds=arguments[0]))
        elif verb == "again":
            if not ctx.is_draining:
                results += perform(arguments[0], own, ctx, x)
        else:
            name, kind = arguments
            of = getattr(own, name)
            USES[kind][verb](of, x, seen)
    return results


def _entry(x: int) -> str:
    return f"e{x % 5}"


def _read(of: Any, x: int, seen: list[Any]) -> None:
    seen.append(copy.deepcopy(of.value))


def _set_value(make: Callable[[int], Any]) -> Callable[[Any, int, list[Any]], None]:
    def set_value(of: Any, x: int, seen: list[Any]) -> None:
        of.value = make(x)

    return set_value


def _none(of: Any, x: int, seen: list[Any]) -> None:
    of.value = None


def _clear(of: Any, x: int, seen: list[Any]) -> None:
    of.clear()


def _change_bag(of: Any, x: int, seen: list[Any]) -> None:
    of.value.append(x)
    if len(of.value) > 5:
        del of.value[0]


def _change_struct(of: Any, x: int, seen: list[Any]) -> None:
    if of.value is not None:
        of.value["a"] = x


def _add(of: Any, x: int, seen: list[Any]) -> None:
    of.value = (of.value or 0) + x


def _fold(make: Callable[[int], Any]) -> Callable[[Any, int, list[Any]], None]:
    def fold(of: Any, x: int, seen: list[Any]) -> None:
        seen.append(of.add(make(x)))

    return fold


def _list_use(name: str) -> Callable[[Any, int, list[Any]], None]:
    def use(of: Any, x: int, seen: list[Any]) -> None:
        if name == "get":
            seen.append(list(of.get()))
        elif name == "each":
            seen.append(list(of))
        elif name == "len":
            seen.append(len(of))
        elif name == "in":
            seen.append(x in of)
        elif name == "last" and len(of):
            seen.append(of[-1])

    return use


def _list_set(make: Callable[[int], Any]) -> dict[str, Callable[[Any, int, list[Any]], None]]:
    def add(of: Any, x: int, seen: list[Any]) -> None:
        of.add(make(x))

    def extend(of: Any, x: int, seen: list[Any]) -> None:
        of.extend([make(x), make(x + 1)])

    def set_all(of: Any, x: int, seen: list[Any]) -> None:
        of.set([make(n) for n in range(x % 3)])

    def drop(of: Any, x: int, seen: list[Any]) -> None:
        of.set(of.get()[1:])

    return {"add": add, "extend": extend, "set": set_all, "drop": drop, "clear": _clear}


def _map_use(make: Callable[[int], Any]) -> dict[str, Callable[[Any, int, list[Any]], None]]:
    def put(of: Any, x: int, seen: list[Any]) -> None:
        of[_entry(x)] = make(x)

    def get(of: Any, x: int, seen: list[Any]) -> None:
        seen.append(of.get(_entry(x)))

    def items(of: Any, x: int, seen: list[Any]) -> None:
        seen.append(list(of.items()))

    def keys(of: Any, x: int, seen: list[Any]) -> None:
        seen.append(list(of))

    def size(of: Any, x: int, seen: list[Any]) -> None:
        seen.append(len(of))

    def has(of: Any, x: int, seen: list[Any]) -> None:
        seen.append(_entry(x) in of)

    def pop(of: Any, x: int, seen: list[Any]) -> None:
        seen.append(of.pop(_entry(x), "none"))

    def delete(of: Any, x: int, seen: list[Any]) -> None:
        if _entry(x) in of:
            del of[_entry(x)]

    def default(of: Any, x: int, seen: list[Any]) -> None:
        seen.append(of.setdefault(_entry(x), make(x)))

    return {
        **{"put": put, "put more": put, "get": get, "items": items, "keys": keys, "size": size, "has": has},
        **{"pop": pop, "delete": delete, "default": default, "clear": _clear},
    }


def _pair(x: int) -> dict[str, Any]:
    return {"a": None if x % 4 == 0 else x, "b": f"b{x}"}


USES: dict[str, dict[str, Callable[[Any, int, list[Any]], None]]] = {
    "int": {"read": _read, "set": _set_value(int), "add": _add, "clear": _clear},
    "default": {"read": _read, "set": _set_value(int), "add": _add, "clear": _clear, "none": _none},
    "float": {"read": _read, "set": _set_value(lambda x: x / 8), "clear": _clear, "none": _none},
    "text": {"read": _read, "set": _set_value(lambda x: f"t{x}"), "clear": _clear},
    "bag": {"read": _read, "set": _set_value(lambda x: [x]), "change": _change_bag, "clear": _clear},
    "struct": {"read": _read, "set": _set_value(_pair), "change": _change_struct, "clear": _clear},
    "object": {"read": _read, "set": _set_value(lambda x: (x, {"t": [x]})), "clear": _clear},
    "list": {**_list_set(int), **{name: _list_use(name) for name in ("get", "each", "len", "in", "last")}},
    "structs": {**_list_set(_pair), **{name: _list_use(name) for name in ("get", "each", "len", "last")}},
    "map": _map_use(int),
    "lists": _map_use(lambda x: [x, -x]),
    "max": {"read": _read, "add": _fold(int), "clear": _clear},
    "joined": {"read": _read, "add": _fold(lambda x: [x]), "clear": _clear},
}
"""What can be done with a state of each kind."""


def joined(one: list[int], other: list[int]) -> list[int]:
    """What a fold of lists makes of two."""
    return (one + other)[-4:]


# -- drawing -------------------------------------------------------------------------------------------------------------


def draw(dice: random.Random, inputs: int = 1) -> Program:
    """A program for so many inputs, whose results may depend on when watermarks and ticks of the clock come."""
    states = {}
    for number in range(dice.randint(1, 4)):
        ttl = dice.choice([None, None, 3, 7, 20])
        clock = dice.choice(["event", "event", "processing"])
        states[f"s{number}"] = State(dice.choice(KINDS), ttl and ttl * SECOND, clock, dice.choice(["write", "read"]))
    # How old a value is at the end depends on the time that its key then has.
    has_end = dice.random() < 0.5 and all(state.ttl is None or state.clock == "processing" for state in states.values())
    can_fail = dice.random() < 0.3
    on_record = [_operations(dice, states, can_fail, "record") for _ in range(inputs)]
    on_timer = _operations(dice, states, can_fail, "timer")
    on_end = _operations(dice, states, can_fail, "end") if has_end else None
    return Program(states, on_record, on_timer, on_end, can_fail)


def draw_free(dice: random.Random) -> Program:
    """A program whose results do not depend on when watermarks come, for records in order of time.

    Records and timers have states of their own: when a timer fires, any number of later records may have been there.
    """
    states = {}
    for number in range(dice.randint(2, 4)):
        ttl = dice.choice([None, None, 3, 7, 20])
        states[f"{'rt'[number % 2]}{number}"] = State(dice.choice(KINDS), ttl and ttl * SECOND, "event", dice.choice(["write", "read"]))
    can_fail = dice.random() < 0.3
    of_records, of_timers = ({name: state for name, state in states.items() if name[0] == kind} for kind in "rt")
    on_record = _operations(dice, of_records, can_fail, "record", True)
    on_timer = _operations(dice, of_timers, can_fail, "timer", True)
    # How old a value is at the end depends on the last watermark before.
    has_end = dice.random() < 0.5 and all(state.ttl is None for state in states.values())
    on_end = _operations(dice, states, can_fail, "end", True) if has_end else None
    return Program(states, [on_record], on_timer, on_end, can_fail)


def _operations(dice: random.Random, states: dict[str, State], can_fail: bool, place: str, is_free: bool = False) -> list[Operation]:
    found = []
    last = ("yield at the end",) if place == "end" else ("yield",)
    for _ in range(dice.randint(2, 8)):
        operation = _operation(dice, states, place, is_free)
        if dice.random() < 0.4:
            modulus = dice.randint(2, 5)
            operation = ("if", modulus, dice.randrange(modulus), [operation, *([last] if dice.random() < 0.5 else [])])
        found.append(operation)
    if can_fail and dice.random() < 0.6:
        found.insert(dice.randint(0, len(found)), ("if", dice.choice([7, 13]), 3, [("raise",)]))
    return [*found, last]


def _operation(dice: random.Random, states: dict[str, State], place: str, is_free: bool) -> Operation:
    what = dice.random()
    operation: Operation
    if what < 0.65:
        name = dice.choice(list(states))
        kind = states[name].kind
        return (dice.choice(list(USES[kind])), name, kind)
    if what < 0.75:
        return ("side", dice.choice(["audit", "odd"]))
    if is_free and place == "end":
        return ("side", "audit")
    if is_free:
        if place == "timer":
            # A timer sets another one that sets none, deletes none, and no record deletes it: that might come before or after.
            return ("if", 5, 0, [("event timer", dice.choice([1, 2]) * SECOND + SECOND // 4)])
        offset = dice.choice([1, 2, 5, 12]) * SECOND
        return ("no event timer" if dice.random() < 0.25 else "event timer", offset)
    if what < 0.8:
        return (dice.choice(["now", "watermark"]),)
    clock = dice.choice(["event", "processing"]) if place != "end" else "processing"
    # A timer that sets another one for its own time would fire for ever, and nothing says what comes first at one instant of the clock.
    offsets = [-3, 0, 1, 1, 2, 5, 12] if clock == "event" and place == "record" else [1, 2, 2, 5, 12]
    offset = dice.choice(offsets) * SECOND
    if dice.random() < 0.25:
        return (f"no {clock} timer", offset)
    operation = (f"{clock} timer", offset)
    if place == "record":
        return operation
    return ("again", [("if", 3, dice.randrange(3), [operation])])


# -- the interpreter -----------------------------------------------------------------------------------------------------


@dataclass
class Kept:
    """What is kept of a key."""

    values: dict[str, Any] = field(default_factory=dict)
    """By state: a value with when it was written, or a list or dict of those."""
    event_timers: set[int] = field(default_factory=set)
    processing_timers: dict[int, int] = field(default_factory=dict)
    """When they are due, and the event time of what set them."""
    for_next: list[tuple[str, int, int]] = field(default_factory=list)
    """Timers that a timer set for its own time or before."""
    latest: int = LEAST


class Interpreter:
    """Carries a program out, one event after the other."""

    def __init__(self, program: Program, now: int) -> None:
        self.program = program
        self.now = now
        self.watermark = self.floor = LEAST
        self.keys: dict[Any, Kept] = defaultdict(Kept)
        self.outputs: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        """Rows by output and key, in their order."""
        self.is_draining = False

    def record(self, key: Any, x: int, at: int, side: int = 0) -> None:
        """Take a record."""
        self._event(key, self.program.on_record[side], x, at, max(at, self.watermark), None)
        if self.program.on_end is not None:
            self.keys[key].latest = max(self.keys[key].latest, at)

    def advance_to(self, watermark: int) -> None:
        """Take a watermark: timers that it has passed fire, and what has grown too old is forgotten."""
        if watermark <= self.watermark:
            return
        self.floor, self.watermark = self.watermark, watermark
        self._fire_event_timers(watermark - 1)

    def tick(self, now: int) -> None:
        """Let the clock come to a time: timers that are due by then fire one after the other."""
        while dues := [due for kept in self.keys.values() for due in kept.processing_timers if due <= now]:
            self.now = max(self.now, min(dues))
            for key, kept in list(self.keys.items()):
                while mine := [due for due in kept.processing_timers if due <= self.now]:
                    self._fire_processing_timer(key, min(mine))
                self._set_those_for_next(kept)
        self.now = now

    def end(self) -> None:
        """Come to the end: all timers fire, keys that still have state are told, and the timers that they set fire."""
        self._forget()
        self.floor = max(self.floor, self.watermark)
        self.watermark, self.is_draining = GREATEST, True
        self._drain()
        if self.program.on_end is not None:
            for key, kept in list(self.keys.items()):
                if any(self._entries(name, kept) for name in self.program.states):
                    self._event(key, self.program.on_end, 1, kept.latest, max(kept.latest, self.floor), None)
        self._drain()

    def _drain(self) -> None:
        while any(kept.event_timers or kept.processing_timers or kept.for_next for kept in self.keys.values()):
            for key, kept in list(self.keys.items()):
                self._set_those_for_next(kept)
            self._fire_event_timers(GREATEST)
            for key, kept in list(self.keys.items()):
                while kept.processing_timers:
                    self._fire_processing_timer(key, min(kept.processing_timers))

    def _fire_event_timers(self, until: int) -> None:
        for key, kept in list(self.keys.items()):
            while due := [at for at in kept.event_timers if at <= until]:
                at = min(due)
                kept.event_timers.remove(at)
                x = at // SECOND
                self._event(key, self.program.on_timer, x, at, max(at, self.floor), "event", at)
        for kept in self.keys.values():
            self._set_those_for_next(kept)

    def _fire_processing_timer(self, key: Any, due: int) -> None:
        stamp = self.keys[key].processing_timers.pop(due)
        floor = self.floor if self.is_draining else max(self.floor, self.watermark)
        self._event(key, self.program.on_timer, due // SECOND, stamp, max(stamp, floor), "processing", due)

    @staticmethod
    def _set_those_for_next(kept: Kept) -> None:
        for clock, at, stamp in kept.for_next:
            if clock == "event":
                kept.event_timers.add(at)
            else:
                kept.processing_timers[at] = stamp
        kept.for_next.clear()

    def _event(self, key: Any, operations: list[Operation], x: int, at: int, age: int, timer: str | None, due: int = 0) -> None:
        """Carry out what belongs to one event; if it fails it is as if it had never come."""
        kept = self.keys[key]
        before = copy.deepcopy(kept)
        ctx = Context(self, key, at, age, timer, due)
        try:
            results = perform(operations, Own(self, ctx), ctx, x)
        except Refused:
            vars(kept).update(vars(before))
            return
        for output, row in [*ctx.sides, *(("result", row) for row in results)]:
            self.outputs[output][row["k"]].append(row["what"])

    # -- states --------------------------------------------------------------------------------------------------------

    def _entries(self, name: str, kept: Kept) -> bool:
        found = kept.values.get(name)
        return found is not None and (not isinstance(found, (list, dict)) or len(found) > 0)

    def _forget(self) -> None:
        """Forget what is too old by the watermark or the clock."""
        for kept in self.keys.values():
            for name, state in self.program.states.items():
                at = self.watermark if state.clock == "event" else self.now
                if state.ttl is None or name not in kept.values:
                    continue
                found, ttl = kept.values[name], state.ttl
                if isinstance(found, list):
                    kept.values[name] = [(value, written) for value, written in found if at - written < ttl]
                elif isinstance(found, dict):
                    kept.values[name] = {entry: pair for entry, pair in found.items() if at - pair[1] < ttl}
                elif at - found[1] >= ttl:
                    del kept.values[name]


class Context:
    """What ``ctx`` is."""

    def __init__(self, interpreter: Interpreter, key: Any, at: int, age: int, timer: str | None, due: int) -> None:
        self._interpreter = interpreter
        self.key = key
        self.age = age
        self._at = at
        self.timestamp = EPOCH + timedelta(microseconds=at)
        self.timer = timer
        self._due = due
        self.is_draining = interpreter.is_draining
        self.sides: list[tuple[str, Row]] = []
        self.timers = self

    @property
    def watermark(self) -> datetime | None:
        at = self._interpreter.watermark
        if at == GREATEST:
            return datetime.max
        return None if at == LEAST else EPOCH + timedelta(microseconds=at)

    @property
    def now(self) -> datetime:
        return (EPOCH + timedelta(microseconds=self._interpreter.now)).replace(tzinfo=UTC)

    def side_output(self, name: str, row: Row) -> None:
        self.sides.append((name, row))

    def event_time(self, at: datetime) -> None:
        due = (at - EPOCH) // timedelta(microseconds=1)
        kept = self._interpreter.keys[self.key]
        if self.timer == "event" and due <= self._due:
            kept.for_next.append(("event", due, 0))
        else:
            kept.event_timers.add(due)

    def processing_time(self, at: datetime) -> None:
        due = (at.replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1)
        kept = self._interpreter.keys[self.key]
        if self.timer == "processing" and due <= self._due:
            kept.for_next.append(("processing", due, self._at))
        else:
            kept.processing_timers[due] = self._at

    def delete_event_time(self, at: datetime) -> None:
        due = (at - EPOCH) // timedelta(microseconds=1)
        kept = self._interpreter.keys[self.key]
        kept.event_timers.discard(due)
        kept.for_next = [timer for timer in kept.for_next if timer[:2] != ("event", due)]

    def delete_processing_time(self, at: datetime) -> None:
        due = (at.replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1)
        kept = self._interpreter.keys[self.key]
        kept.processing_timers.pop(due, None)
        kept.for_next = [timer for timer in kept.for_next if timer[:2] != ("processing", due)]


class Own:
    """What ``self`` is: the states of a key."""

    def __init__(self, interpreter: Interpreter, ctx: Context) -> None:
        self._interpreter = interpreter
        self._ctx = ctx

    def __getattr__(self, name: str) -> Any:
        state = self._interpreter.program.states[name]
        kept = self._interpreter.keys[self._ctx.key].values
        clock = self._ctx.age if state.clock == "event" else self._interpreter.now
        kind = {"list": Items, "structs": Items, "map": Entries, "lists": Entries}.get(state.kind, Value)
        return kind(state, name, kept, clock)


class _Of:
    """A state of a key."""

    def __init__(self, state: State, name: str, kept: dict[str, Any], clock: int) -> None:
        self.state, self.name, self.kept, self.clock = state, name, kept, clock

    def is_over(self, written: int) -> bool:
        return self.state.ttl is not None and self.clock - written >= self.state.ttl

    @property
    def refreshes(self) -> bool:
        return self.state.refresh == "read"

    def clear(self) -> None:
        self.kept.pop(self.name, None)


class Value(_Of):
    """A value, or one that others are folded into."""

    @property
    def value(self) -> Any:
        found = self.kept.get(self.name)
        if found is not None and self.is_over(found[1]):
            found = None
            self.clear()
        if found is None:
            if self.state.kind == "bag":
                # What is done to the default is kept.
                self.value = []
                return self.kept[self.name][0]
            return 7 if self.state.kind == "default" else None
        if self.refreshes:
            self.kept[self.name] = (found[0], self.clock)
        return found[0]

    @value.setter
    def value(self, value: Any) -> None:
        if value is None:
            self.clear()
        else:
            self.kept[self.name] = (value, self.clock)

    def add(self, value: Any) -> Any:
        before = self.value
        fold = max if self.state.kind == "max" else joined
        self.value = value if before is None else fold(before, value)
        return self.kept[self.name][0]


class Items(_Of):
    """A list."""

    def _now(self) -> list[tuple[Any, int]]:
        found = [pair for pair in self.kept.get(self.name, []) if not self.is_over(pair[1])]
        self.kept[self.name] = found
        return found

    def get(self) -> list[Any]:
        found = self._now()
        if self.refreshes:
            self.kept[self.name] = [(value, self.clock) for value, _ in found]
        return [value for value, _ in found]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.get())

    def __getitem__(self, place: int) -> Any:
        return self.get()[place]

    def __len__(self) -> int:
        return len(self._now())

    def __contains__(self, value: Any) -> bool:
        return any(value == one for one, _ in self._now())

    def add(self, value: Any) -> None:
        self._now().append((value, self.clock))

    def extend(self, values: list[Any]) -> None:
        self._now().extend((value, self.clock) for value in values)

    def set(self, values: list[Any]) -> None:
        self.kept[self.name] = [(value, self.clock) for value in values]


class Entries(_Of, MutableMapping[str, Any]):
    """A mapping."""

    def _now(self) -> dict[str, tuple[Any, int]]:
        found = {entry: pair for entry, pair in self.kept.get(self.name, {}).items() if not self.is_over(pair[1])}
        self.kept[self.name] = found
        return found

    def __getitem__(self, entry: str) -> Any:
        if entry not in self:
            self.kept.get(self.name, {}).pop(entry, None)
            raise KeyError(entry)
        value, _ = self.kept[self.name][entry]
        if self.refreshes:
            self.kept[self.name][entry] = (value, self.clock)
        return copy.deepcopy(value)

    def __setitem__(self, entry: str, value: Any) -> None:
        found = self.kept.setdefault(self.name, {})
        if entry not in self:
            # One that is too old is not there, so the new one is the last.
            found.pop(entry, None)
        found[entry] = (value, self.clock)

    def __delitem__(self, entry: str) -> None:
        if entry not in self:
            raise KeyError(entry)
        del self.kept[self.name][entry]

    def __contains__(self, entry: object) -> bool:
        found = self.kept.get(self.name, {}).get(entry)
        return found is not None and not self.is_over(found[1])

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._now()))

    def __len__(self) -> int:
        return len(self._now())

    def clear(self) -> None:
        self.kept.pop(self.name, None)
