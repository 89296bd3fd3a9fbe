"""What calls a process function: the loop over the records or timers of a call."""

from __future__ import annotations

import collections.abc
import copy
import functools
import inspect
import itertools
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from types import GeneratorType
from typing import Any

from millstream import _live
from millstream._broadcast import BroadcastContext, BroadcastMap, BroadcastValue, Gate, KeyedStateGuard, LatestRows
from millstream._closing import closed
from millstream._firing import DELETE, SET, Firing
from millstream._kept import Kept, exact_class, kept_by
from millstream._moments import EPOCH, EPOCH_WITHOUT_ZONE, shown_moment, since_epoch, utc_moment
from millstream._nearest import did_you_mean, with_nearest
from millstream._parameters import check_parameters
from millstream._row import row_class, rows
from millstream._states import (
    Copier,
    DefaultValue,
    FastValue,
    FloatMapHandle,
    ListHandle,
    MapHandle,
    ReducingHandle,
    Scope,
    ValueHandle,
    one_nan,
)
from millstream._texts import with_article
from millstream._view import columns_read
from millstream.errors import DataError, PlanError
from millstream.functions import check_callable
from millstream.process import Clock, ListState, MapState, ProcessFunction, ReducingState, State, ValueState
from millstream.types import DataType

__all__ = ["METHODS", "BroadcastSide", "ProcessAdapter", "check_methods", "declared_states", "side_names"]

_MIN, _MAX = -(2**63), 2**63 - 1
_WITHIN_ALL_ZONES = (since_epoch(datetime(1, 1, 2)), since_epoch(datetime(9999, 12, 31)))

_CHUNK_FIRST, _CHUNK_MAX = 4, 1024
"""After how many records the loop looks at the clock."""
_PAUSE = 16
"""After how many timers it does."""
_CALL_SECONDS_MAX = 0.020
"""How long a call lasts before the engine has its turn."""
_RESULTS_MAX = 65_536
"""How many results a call makes before they are passed on."""

_IMMUTABLE = (
    "bool",
    "int",
    "uint",
    "float",
    "str",
    "binary",
    "large_",
    "date",
    "time",
    "timestamp",
    "duration",
    "decimal",
)

Common = tuple[int, list[Sequence[Any]], list[list[Any]], int, int, int, bool]
TimerOp = tuple[int, bool, int, int, int]
Side = tuple[int, list[Any], list[int]]
Answer = tuple[
    int, list[Any], list[int], list[Side], list[int], list[list[Any]], list[TimerOp], list[tuple[int, int, int]]
]


def is_immutable(kind: DataType) -> bool:
    """Tell whether values of a type cannot be changed in place."""
    # A struct is not a str.
    return repr(kind).startswith(_IMMUTABLE) and not repr(kind).startswith("struct")


def copier_of(kind: DataType) -> Copier | None:
    """Give what copies values of a type; None for those that need no copy, and for objects, which are no values.

    What was changed in place is converted as it is copied, so that a later event reads what a checkpoint would return.
    """
    if is_immutable(kind) or repr(kind) == "object":
        return None
    return kept_by(kind) if repr(kind).startswith(("list[", "struct[")) else copy.deepcopy


METHODS = {
    "process": ("row", "ctx"),
    "process_left": ("row", "ctx"),
    "process_right": ("row", "ctx"),
    "process_broadcast": ("row", "ctx"),
    "on_timer": ("at", "ctx"),
    "on_end": ("ctx",),
    "open": (),
    "close": (),
}
"""What a function may define, and the arguments of each."""


def check_methods(function: ProcessFunction, methods: tuple[str, ...]) -> None:
    """Refuse methods that cannot be called as the engine calls them."""
    for name in (*methods, "on_timer", "on_end"):
        check_callable(getattr(function, name), "process", *METHODS[name])
    for name in ("open", "close"):
        check_parameters(getattr(function, name), "process()", *METHODS[name])


_TIMER_COLUMNS = ("event_timers", "processing_timers")


def _check_name(name: str, owner: str, keys: Collection[str]) -> None:
    """Refuse the name of a state that means something else to the engine or in ``read_state``."""
    if name in vars(ProcessFunction) or name.startswith("__"):
        raise PlanError(f"a state of {owner} cannot be named {name!r}: that is a method of ProcessFunction; rename the state")
    if name in keys:
        raise PlanError(f"state {name!r} of {owner} is named as a key column; rename it: the key is ctx.key")
    if name in _TIMER_COLUMNS:
        raise PlanError(f"state {name!r} of {owner} is named as a column of read_state() that shows timers; rename it")


def declared_states(function: ProcessFunction, keys: Collection[str] = ()) -> dict[str, State]:
    """Give the states that the class of a function declares, by name, those of its bases first."""
    for name, value in vars(function).items():
        if isinstance(value, State):
            raise PlanError(
                f"state {name!r} is declared in __init__(); declare it in the class body of {type(function).__name__}"
            )
    states: dict[str, State] = {}
    for owner in reversed(type(function).__mro__):
        for name, value in vars(owner).items():
            states.pop(name, None)
            if not isinstance(value, State):
                continue
            if len(value._names) > 1:
                (first, second), owners = value._names[:2], [owner.rpartition(".")[2] for owner in value._owners[:2]]
                if value._owners[0] == value._owners[1]:
                    said = f"one state has two names, {first!r} and {second!r}"
                else:
                    said = f"one state belongs to two classes, as {first!r} to {owners[0]} and as {second!r} to {owners[1]}"
                raise PlanError(f"{said}; declare a state of its own for each")
            _check_name(name, type(function).__name__, keys)
            states[name] = value
    return states


def side_names(side_outputs: Any) -> None:
    """Refuse what names no side outputs."""
    if not isinstance(side_outputs, collections.abc.Mapping) or not all(isinstance(name, str) for name in side_outputs):
        raise PlanError(
            'process(): side_outputs is a dict of name to schema, as in side_outputs={"audit": {"user": str}}'
        )


class BroadcastSide:
    """What a function has of its broadcast stream: the states, the columns, and the zone of event times.

    With ``keys`` it has the latest row of each instead of states of its own, and with ``is_changelog`` the first column says what
    becomes of a row.
    """

    def __init__(
        self,
        states: dict[str, State],
        fields: tuple[str, ...],
        zone: str | None,
        keys: tuple[str, ...] | None = None,
        *,
        is_changelog: bool = False,
    ) -> None:
        self.states = states
        self.fields = fields
        self.zone = zone
        self.keys = keys
        self.is_changelog = is_changelog


class ProcessAdapter:
    """A process function, of which each parallel instance opens a copy."""

    def __init__(
        self,
        function: ProcessFunction,
        methods: tuple[str, ...],
        states: dict[str, State],
        fields: tuple[str, ...],
        keys: tuple[str, ...],
        sides: tuple[str, ...],
        is_timed: bool,
        zone: str | None,
        broadcast: BroadcastSide | None = None,
    ) -> None:
        self.function = _copied(function)
        self.states = states
        self.broadcast = broadcast
        self.methods = methods
        # Records of two streams are rows of either: which columns are read is not asked.
        is_one = len(methods) == 1
        read = columns_read(function.process, fields, others=1, may_yield=True) if is_one else None
        # What is only read by row.name needs no row of its own, and no other columns.
        self.is_cursor = read is not None and read[0] == "attribute"
        self.fields = tuple(name for name in fields if read is None or name in read[1]) if self.is_cursor else fields
        self.used = [name in self.fields for name in fields] if self.is_cursor else None
        self.keys = keys
        self.sides = sides
        self.is_timed = is_timed
        self.zone = zone

    def open(self) -> Task:
        """Make a copy of the function that works."""
        return Task(self)


def _copied(function: ProcessFunction) -> ProcessFunction:
    """Copy a function where it is declared, so that what is done to the object later does not count."""
    try:
        return copy.deepcopy(function)
    except Exception as error:
        guilty = [name for name, value in vars(function).items() if not _is_copied(value)]
        what = ", ".join(f"self.{name}" for name in guilty) or "it"
        raise PlanError(
            f"each parallel instance works with a copy of {type(function).__name__}, and {what} cannot be copied ({error}); "
            "make it in open(self), which each copy calls before its first record"
        ) from error


def _is_copied(value: Any) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:
        return False
    return True


def _handle(scope: Scope, state: State) -> Any:
    ttl, clock, refresh = state._ttl, state._clock, state._refresh
    if isinstance(state, ListState):
        return ListHandle(scope, copier_of(state._type), kept_by(state._type), ttl, clock, refresh)
    if isinstance(state, MapState):
        handle = FloatMapHandle if _is_float(state._key) else MapHandle
        return handle(scope, copier_of(state._value), _kept_key(state._key), kept_by(state._value), ttl, clock, refresh)
    if not isinstance(state, (ValueState, ReducingState)):
        raise PlanError(f"{type(state).__name__} is not a kind of state that process() knows")
    is_mutable, copier, kept = not is_immutable(state._type), copier_of(state._type), kept_by(state._type)
    if isinstance(state, ReducingState):
        return ReducingHandle(scope, state._function, is_mutable, copier, kept, ttl, clock, refresh)
    exact = exact_class(state._type)
    if ttl is None and exact is not None and kept is not None:
        return (FastValue if state._default is None else DefaultValue)(state._default, exact, kept)
    return ValueHandle(scope, state._default, is_mutable, copier, kept, ttl, clock, refresh)


def _broadcast_handle(gate: Gate, name: str, state: State) -> BroadcastValue | BroadcastMap:
    if isinstance(state, MapState):
        return BroadcastMap(gate, name, copier_of(state._value), _kept_key(state._key), kept_by(state._value))
    if isinstance(state, ValueState):
        return BroadcastValue(gate, name, state._default, copier_of(state._type), kept_by(state._type))
    raise PlanError(f"{type(state).__name__} cannot be broadcast state")


def _kept_key(kind: DataType) -> Kept | None:
    """Return what converts entry keys of a type; of floats, all NaN are one key."""
    return one_nan(kept_by(kind)) if _is_float(kind) else kept_by(kind)


def _is_float(kind: DataType) -> bool:
    return repr(kind).startswith("float")


class _Context(Scope):
    """What a function gets as ``ctx``; to users it is a ``ProcessContext``."""

    __slots__ = ("_keys", "_sides", "_task", "is_draining", "timer", "timers", "watermark_us")

    def __init__(self, task: Task) -> None:
        super().__init__(task.event_us, task.event)
        self._task = task
        self._keys: Sequence[Any] = []
        self._sides: dict[str, tuple[list[Any], list[int]]] = {}
        self.is_draining = False
        self.timer: Clock | None = None
        self.watermark_us = _MIN
        self.timers = _Timers(task, self)

    @property
    def key(self) -> Any:
        """The key: its value, or a row of several columns."""
        return self._keys[self.number]

    @property
    def timestamp(self) -> datetime | None:
        """The event time of the record or timer."""
        at = self._task.event_us()
        return None if at is None else self._task.moment(at)

    @property
    def watermark(self) -> datetime | None:
        """How far event time has come."""
        return None if self.watermark_us == _MIN else self._task.watermark(self.watermark_us)

    @property
    def now(self) -> datetime:
        """Processing time."""
        return utc_moment(self.now_us)

    @property
    def broadcast(self) -> LatestRows:
        """The latest rows of the broadcast stream."""
        if self._task.latest is None:
            raise PlanError(
                "ctx.broadcast has the latest rows of broadcast=, and process() has no such stream with a key: pass "
                'broadcast=rules.key_by("id"), or an updating stream, to a function without process_broadcast()'
            )
        return self._task.latest

    def side_output(self, name: str, row: Any) -> None:
        """Send a record to a side output."""
        side = self._sides.get(name)
        if side is None:
            names = self._task.adapter.sides
            if name not in names:
                hint = did_you_mean(name, names)
                there = f"it has {', '.join(map(repr, names))}" if names else "it has none"
                declare = "" if hint else f"; declare it: process(…, side_outputs={{{name!r}: {{…}}}})"
                raise PlanError(f"process() has no side output {name!r}{hint or ';'} {there}{declare}")
            side = self._sides[name] = ([], [])
        side[0].append(row)
        side[1].append(self._task.place())


class _Timers:
    """The timers of the key whose turn it is."""

    __slots__ = ("_context", "_task")

    def __init__(self, task: Task, context: _Context) -> None:
        self._task = task
        self._context = context

    def event_time(self, at: datetime) -> None:
        """Set a timer by event time."""
        self._task.set_timer(False, self._event_us(at))

    def processing_time(self, at: datetime) -> None:
        """Set a timer by processing time."""
        self._task.set_timer(True, _processing_us(at))

    def delete_event_time(self, at: datetime) -> None:
        """Delete a timer by event time."""
        self._task.delete_timer(False, self._event_us(at))

    def delete_processing_time(self, at: datetime) -> None:
        """Delete a timer by processing time."""
        self._task.delete_timer(True, _processing_us(at))

    def _event_us(self, at: datetime) -> int:
        task = self._task
        if not task.adapter.is_timed:
            raise PlanError(
                "a timer by event time needs event time, and the stream has none; call event_time() before key_by()"
            )
        if not isinstance(at, datetime):
            raise TypeError(
                f"a timer is set to a datetime, not {at!r:.80}; as in ctx.timestamp + timedelta(seconds=30)"
            )
        if (at.tzinfo is None) != (task.zone is None):
            has, want = ("no zone", "have one") if at.tzinfo is None else ("a zone", "have none")
            raise TypeError(
                f"the timer {at} has {has}, and the event times of the stream {want}; set it by ctx.timestamp or such a time"
            )
        us = since_epoch(at)
        if task.zone is not None and not _WITHIN_ALL_ZONES[0] < us < _WITHIN_ALL_ZONES[1]:
            # on_timer() gets it in the zone of the stream.
            task.moment(us)
        return us


def _processing_us(at: datetime) -> int:
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise TypeError(
            f"a timer by processing time is set to a datetime with a zone, not {at!r:.80}; as in ctx.now + timedelta(seconds=30)"
        )
    return since_epoch(at)


def _several(given: Any) -> Any:
    """Refuse a record in the place of records."""
    kind = given.__class__
    if kind is GeneratorType or kind is list:
        return given
    if given is None:
        return ()
    if isinstance(given, (str, bytes, collections.abc.Mapping)) or hasattr(kind, "_fields") or not hasattr(kind, "__iter__"):
        raise TypeError(
            f"a process function yields records, or returns a list of them, and this one returned {with_article(kind.__name__)}; "
            "yield it, or return [it]"
        )
    return given


@functools.lru_cache(maxsize=256)
def _loops(
    fast: tuple[bool, ...], is_generator: bool, fields: tuple[str, ...], is_cursor: bool
) -> tuple[Callable[..., None], Callable[..., None]]:
    """Give the loop over records, and what makes a single call that is about no record.

    They put values into their handles before each call and take them out after it; ``fast`` tells which of these have a
    default. With a cursor the record is one object, into which the loop puts the values of its columns.
    """
    prepare, given, taken = [], [], []
    for i, has_default in enumerate(fast):
        prepare.append(f"h{i} = handles[{i}]; v{i} = h{i}.values; t{i} = h{i}.exact")
        keep = f"v{i}[number] = a{i} if a{i}.__class__ is t{i} or a{i} is None else h{i}.kept(a{i})"
        if has_default:
            prepare.append(f"d{i} = h{i}.default")
            given += [f"b{i} = h{i}.set_to = v{i}[number]", f"h{i}.shown = d{i} if b{i} is None else b{i}"]
            taken += [f"a{i} = h{i}.set_to", keep]
        else:
            given.append(f"h{i}.value = v{i}[number]")
            taken += [f"a{i} = h{i}.value", keep]
    target = "row" if not is_cursor else ", ".join([*(f"row.{name}" for name in fields)])
    call = "process(row, ctx)" if is_generator else "several(process(row, ctx))"
    lines = [
        "def loop(process, ctx, row, records, results, ends, handles):",
        " extend = results.extend; end = ends.append; size = len",
    ]
    lines += [f" {line}" for line in prepare]
    lines.append(f" for {target + ', ' if target else ''}number in records:")
    lines += [f"  {line}" for line in ["ctx.number = number", *given, f"extend({call})", *taken, "end(size(results))"]]
    lines += ["def once(function, arguments, ctx, number, extend, handles):"]
    lines += [
        f" {line}"
        for line in [*prepare, "ctx.number = number", *given, "extend(several(function(*arguments)))", *taken]
    ]
    namespace: dict[str, Any] = {"several": _several}
    exec(compile("\n".join(lines), "<millstream process loop>", "exec"), namespace)
    return namespace["loop"], namespace["once"]


class Task:
    """A copy of a function at work: called for pieces of the stream."""

    def __init__(self, adapter: ProcessAdapter) -> None:
        self.adapter = adapter
        self.failed_at: int | None = None
        self.zone = _zone(adapter.zone)
        self.epoch = EPOCH_WITHOUT_ZONE if self.zone is None else EPOCH
        self.function = copy.deepcopy(adapter.function)
        self.context = context = _Context(self)
        self._handles = {name: _handle(context, state) for name, state in adapter.states.items()}
        self._widths = [_width(state) for state in adapter.states.values()]
        self._fast = [handle for handle in self._handles.values() if isinstance(handle, FastValue)]
        self._aged = [
            (state._clock, self._handles[name]) for name, state in adapter.states.items() if state._ttl is not None
        ]
        methods = [getattr(self.function, name) for name in adapter.methods]
        is_generator = all(inspect.isgeneratorfunction(getattr(method, "__func__", method)) for method in methods)
        self._call = methods[0] if len(methods) == 1 else _either(methods[0], methods[1], adapter.fields)
        self._loop, self._once = _loops(tuple(handle.default is not None for handle in self._fast), is_generator, adapter.fields, adapter.is_cursor)
        self._row: Any = None
        self._make = functools.partial(tuple.__new__, row_class(adapter.fields))
        if adapter.is_cursor:
            self._row = type("Row", (), {"__slots__": adapter.fields})()
        self._make_key = functools.partial(tuple.__new__, row_class(adapter.keys)) if len(adapter.keys) > 1 else None
        self._has_timers = type(self.function).on_timer is not ProcessFunction.on_timer
        self._results: list[Any] = []
        self._ends: list[int] = []
        self._times: Sequence[int] | None = None
        self._stamp: int | None = None
        self._ops: list[TimerOp] = []
        self._fired = 0
        self._firing: Firing | None = None
        self._gate = Gate()
        self._of_broadcast: dict[str, BroadcastValue | BroadcastMap] = {}
        self.latest: LatestRows | None = None
        if adapter.broadcast is not None:
            self._take_broadcast(adapter.broadcast)
        self.function.open()
        # Only now, so that a state says in open() that there is no key to which a value would belong, and broadcast state that
        # it has not been read yet.
        self.function.__dict__.update(self._of_broadcast)
        self.function.__dict__.update(self._handles)

    def _take_broadcast(self, side: BroadcastSide) -> None:
        if side.keys is None:
            self._of_broadcast = {name: _broadcast_handle(self._gate, name, state) for name, state in side.states.items()}
        else:
            [state] = side.states.values()
            assert isinstance(state, ValueState)
            row = state._type.item()
            kinds = dict((None if row is None else row.fields()) or ())
            fields = side.fields[1:] if side.is_changelog else side.fields
            is_plain = all(is_immutable(kinds[field]) for field in fields)
            self.latest = LatestRows(side.keys, fields, None if is_plain else copy.deepcopy)
        self._guards = {name: KeyedStateGuard(name) for name in self._handles}
        self._make_broadcast = functools.partial(tuple.__new__, row_class(side.fields))
        own = _zone(side.zone)
        epoch = EPOCH_WITHOUT_ZONE if own is None else EPOCH
        self._broadcast_context = BroadcastContext(lambda us: _moment(us, epoch, own))

    def close(self) -> None:
        """Let the function release what it has taken."""
        # It is about no key, as open() is: a state says so there.
        for name in (*self._handles, *self._of_broadcast):
            self.function.__dict__.pop(name, None)
        closed(self.function.close, f"process({type(self.function).__name__})")

    # -- what the context asks ---------------------------------------------------------------------------------------

    def event_us(self) -> int | None:
        """Return the event time of the record or timer."""
        times = self._times
        return self._stamp if times is None else times[len(self._ends)]

    def event(self) -> int:
        """Return a number of the record or timer within the call."""
        return len(self._ends) + self._fired

    def place(self) -> int:
        """Return what tells where a result comes from: the record, or the event time."""
        return len(self._ends) if self._firing is None and self._stamp is None else self._stamp or 0

    def moment(self, us: int) -> datetime:
        """Return an event time as the stream has it."""
        return _moment(us, self.epoch, self.zone)

    def watermark(self, us: int) -> datetime:
        """Return a watermark as the stream has it; the first or last time there is for one that is beyond all of these."""
        try:
            return self.moment(us)
        except DataError:
            bound = datetime.min if us < 0 else datetime.max
            return bound if self.zone is None else bound.replace(tzinfo=UTC)

    def set_timer(self, is_processing: bool, us: int) -> None:
        """Set a timer of the key."""
        if not self._has_timers:
            raise PlanError(f"{type(self.function).__name__} sets a timer and has no on_timer(); define it")
        if not _MIN < us < _MAX:
            raise ValueError("a timer beyond all times")
        number = self.context.number
        stamp = self.event_us()
        action = SET if self._firing is None else self._firing.set(is_processing, us, number, stamp or 0)
        if action is not None:
            self._ops.append((number, is_processing, us, action, us if not is_processing else stamp or 0))

    def delete_timer(self, is_processing: bool, us: int) -> None:
        """Delete a timer of the key."""
        number = self.context.number
        if self._firing is not None:
            self._firing.delete(is_processing, us, number)
        if _MIN < us < _MAX:
            self._ops.append((number, is_processing, us, DELETE, 0))

    # -- what the engine calls ---------------------------------------------------------------------------------------

    def _start(self, common: Common) -> int:
        count, keys, states, watermark, floor, now, is_draining = common
        context = self.context
        context.changed.clear()
        context.floor, context.now_us = floor, now
        at = 0
        for handle, width in zip(self._handles.values(), self._widths, strict=True):
            handle.load(states[at : at + width])
            at += width
        if self._make_key is not None:
            context._keys = list(map(self._make_key, zip(*keys, strict=True)))
        else:
            context._keys = keys[0] if keys else [None] * count
        context.watermark_us = watermark
        context.is_draining = is_draining
        context.timer = None
        context._sides = {}
        self.failed_at = None
        self._results, self._ends, self._ops = [], [], []
        self._times, self._stamp, self._firing, self._fired = None, None, None, 0
        return count

    def _answer(self, done: int, places: list[int], left: list[tuple[int, int, int]]) -> Answer:
        changed = self._fast[0].changed() if self._fast else []
        if len(self._fast) < len(self._handles) or len(self._fast) > 1:
            # In their order, and each once.
            noted = self.context.changed
            noted.update(changed, *(handle.changed() for handle in self._fast[1:]))
            changed = sorted(noted)
        columns = [column for handle in self._handles.values() for column in handle.columns(changed)] if changed else []
        names = self.adapter.sides
        sides = [(names.index(name) + 1, values, of) for name, (values, of) in self.context._sides.items()]
        return done, self._results, places, sides, changed, columns, self._ops, left

    def records(
        self,
        common: Common,
        columns: Sequence[Sequence[Any]],
        count: int,
        keys: Sequence[int],
        times: Sequence[int] | None,
    ) -> Answer:
        """Process records."""
        self._start(common)
        self._times = times
        results, ends = self._results, self._ends
        records: Any = zip(*columns, keys) if self._row is not None else zip(rows(self._make, columns, count), keys)
        if self._row is not None and not columns:
            records = keys
        loop = functools.partial(self._loop, self._call, self.context, self._row)
        until = time.perf_counter() + _CALL_SECONDS_MAX
        records, chunk = iter(records), _CHUNK_FIRST
        while len(ends) < count:
            _live.check()
            try:
                loop(itertools.islice(records, chunk), results, ends, self._fast)
            except BaseException as error:
                self.failed_at = len(ends)
                self._explain(error)
                raise
            if len(results) > _RESULTS_MAX or time.perf_counter() > until:
                break
            chunk = min(chunk * 2, _CHUNK_MAX)
        return self._answer(len(ends), ends, [])

    def migrate(self, name: str, old: list[Any]) -> list[Any]:
        """Return the values of a state for those of another type that a checkpoint has."""
        side = self.adapter.broadcast
        state = self.adapter.states.get(name) or (side.states[name] if side is not None else None)
        assert state is not None

        def migrated(value: Any) -> Any:
            try:
                return state._migrated(value)
            except Exception as error:
                raise ValueError(f"migrate= of state {name!r} fails on {value!r:.200}: {error}") from error

        if state._is_list():
            return [None if values is None else list(map(migrated, values)) for values in old]
        return [None if value is None else migrated(value) for value in old]

    def load_broadcast(self, columns: list[list[Any]]) -> None:
        """Take broadcast states that are others than before."""
        if self.latest is not None:
            self.latest.load(columns)
            return
        at = 0
        for name, handle in self._of_broadcast.items():
            width = _width(self.adapter.broadcast.states[name]) if self.adapter.broadcast is not None else 0
            handle.load(columns[at : at + width])
            at += width

    def broadcast(self, columns: Sequence[Sequence[Any]], count: int, times: Sequence[int] | None) -> Answer:
        """Process records of the broadcast stream."""
        self.failed_at = None
        if self.latest is not None:
            side = self.adapter.broadcast
            is_changelog = side is not None and side.is_changelog
            self.latest.take(columns[1:] if is_changelog else columns, columns[0] if is_changelog else None)
            return count, [], [], [], [0], self.latest.columns(), [], []
        function, ctx, handles = self.function, self._broadcast_context, self._of_broadcast.values()
        call = function.process_broadcast
        ctx.times = times
        until = time.perf_counter() + _CALL_SECONDS_MAX
        done = 0
        function.__dict__.update(self._guards)
        self._gate.is_open = True
        try:
            for row in rows(self._make_broadcast, columns, count):
                ctx.number = done
                if (given := call(row, ctx)) is not None:
                    raise TypeError(
                        f"process_broadcast() returned {with_article(type(given).__name__)}: every task is called with the record, so it emits "
                        "nothing; return None"
                    )
                done += 1
                if done % _PAUSE == 0:
                    _live.check()
                    if time.perf_counter() > until:
                        break
        except BaseException as error:
            self.failed_at = done
            self._explain(error)
            raise
        finally:
            self._gate.is_open = False
            function.__dict__.update(self._handles)
        is_changed = any(handle.is_changed for handle in handles)
        states = [column for handle in handles for column in handle.columns()] if is_changed else []
        return done, [], [], [], [0] if is_changed else [], states, [], []

    def timers(
        self,
        common: Common,
        is_processing: bool,
        times: Sequence[int],
        keys: Sequence[int],
        stamps: Sequence[int],
        until: int,
    ) -> Answer:
        """Fire timers, and those that are set meanwhile in their turn."""
        self._start(common)
        self.context.timer = "processing" if is_processing else "event"
        firing = self._firing = Firing(is_processing, list(zip(times, keys, stamps, strict=True)), until)
        function, ctx, fast, once = self.function.on_timer, self.context, self._fast, self._once
        epoch = EPOCH if is_processing else self.epoch
        is_zoned = not is_processing and self.zone is not None and self.zone is not UTC
        is_timed = self.adapter.is_timed
        results = self._results
        places: list[int] = []
        stop = time.perf_counter() + _CALL_SECONDS_MAX
        fired = 0
        while (timer := firing.next()) is not None:
            at, number, stamp = timer
            moment = epoch + timedelta(0, 0, at)
            if is_zoned:
                moment = moment.astimezone(self.zone)
            place = stamp if is_processing else at
            self._stamp = place if is_timed else None
            try:
                once(function, (moment, ctx), ctx, number, results.extend, fast)
            except BaseException as error:
                self.failed_at = firing.failed_at()
                self._explain(error)
                raise
            places.extend([place] * (len(results) - len(places)))
            fired += 1
            self._fired = fired
            if fired % _PAUSE == 0:
                _live.check()
                if len(results) > _RESULTS_MAX or time.perf_counter() > stop:
                    break
        return self._answer(fired, places, firing.left())

    def end(self, common: Common, stamps: Sequence[int]) -> Answer:
        """Tell the function that the input has ended, once a key."""
        count = self._start(common)
        function, ctx, fast, once = self.function.on_end, self.context, self._fast, self._once
        results = self._results
        places: list[int] = []
        stop = time.perf_counter() + _CALL_SECONDS_MAX
        done = 0
        for number in range(count):
            self._stamp = stamps[number] if self.adapter.is_timed else None
            try:
                once(function, (ctx,), ctx, number, results.extend, fast)
            except BaseException as error:
                self.failed_at = number
                self._explain(error)
                raise
            places.extend([stamps[number]] * (len(results) - len(places)))
            done += 1
            self._fired = done
            if done % _PAUSE == 0:
                _live.check()
                if len(results) > _RESULTS_MAX or time.perf_counter() > stop:
                    break
        return self._answer(done, places, [])

    def _explain(self, error: BaseException) -> None:
        """Name the attribute that was probably meant; a ``__getattr__`` that did so would make every access slower."""
        with_nearest(error, (_Context, _Timers, LatestRows, *map(type, (*self._handles.values(), *self._of_broadcast.values())), type(self.function)))

    def expire(self, common: Common, is_processing: bool) -> Answer:
        """Forget the values that have grown too old."""
        self._start(common)
        context = self.context
        context.now_us = context.floor
        for clock, handle in self._aged:
            if (clock == "processing") == is_processing:
                handle.expire(context.floor)
        return self._answer(0, [], [])


def _either(left: Callable[..., Any], right: Callable[..., Any], fields: tuple[str, ...]) -> Callable[..., Any]:
    """Give what calls one function or the other, with the columns of its stream.

    The columns are those of the key, ``is_left``, those of the left stream and those of the right one.
    """
    side = fields.index("is_left")
    first = side + 1 + sum(name.startswith("left.") for name in fields[side + 1 :])
    make_left = functools.partial(
        tuple.__new__, row_class(tuple(name.removeprefix("left.") for name in fields[side + 1 : first]))
    )
    make_right = functools.partial(
        tuple.__new__, row_class(tuple(name.removeprefix("right.") for name in fields[first:]))
    )
    item = tuple.__getitem__

    def call(row: Any, ctx: Any) -> Any:
        if item(row, side):
            return left(make_left(item(row, slice(side + 1, first))), ctx)
        return right(make_right(item(row, slice(first, None))), ctx)

    return call


def _zone(name: str | None) -> tzinfo | None:
    if name is None:
        return None
    from millstream._zones import zone

    return UTC if name in ("UTC", "utc", "+00:00", "Z") else zone(name)


def _moment(us: int, epoch: datetime, own: tzinfo | None) -> datetime:
    """Return an event time as a stream of this zone has it."""
    try:
        at = epoch + timedelta(microseconds=us)
        return at if own is None or own is UTC else at.astimezone(own)
    except OverflowError:
        raise DataError(
            f"the event time is {shown_moment(us)}{'' if own is None else 'Z'}, and no datetime of Python's is before year 1 or after "
            "9999; map_batches() takes such times as Arrow"
        ) from None


_Context.__name__ = _Context.__qualname__ = "ProcessContext"
_Timers.__name__ = _Timers.__qualname__ = "Timers"


def _width(state: State) -> int:
    return len(state._types()) + (state._ttl is not None)
