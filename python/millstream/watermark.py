"""Watermarks from a class of yours."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from millstream._engine import RawWatermarkFunction
from millstream._moments import since_epoch
from millstream._parameters import check_parameters, check_spelling
from millstream.errors import PlanError
from millstream.time import Duration, microseconds

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["WatermarkGenerator", "watermark_function"]

_US_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}


class WatermarkGenerator:
    """Makes the watermarks of a split; subclass it where a bound is not enough.

    Each split (a file, a partition) gets a copy of the object that you pass to :meth:`Stream.event_time`. The copy is
    called once for each frame of records, so use Arrow functions rather than a loop over records.

    Attributes
    ----------
    columns
        The columns that ``batch`` has. By default all columns, and then all are read from the source.
    period
        How often :meth:`on_periodic` is called, by a clock that does not change when the time of the machine is set. By
        default never.

    Notes
    -----
    A watermark never goes back: one that is earlier than another before it changes nothing.

    A record is late if it is older than the watermark of its split before it. An array from :meth:`on_batch` has a
    watermark after each record, so which records are late depends on their order alone. A single watermark counts after the
    last record of the frame. How many records a frame has depends on the source, and for files that grow on timing; return
    an array where that must not decide which records are late. Whatever :meth:`on_periodic` returns depends on timing.

    The attributes of each copy are pickled into every checkpoint, with the watermark of the split. After a restart, the
    copies continue from there, and the source goes back to the same record. So each record is judged once in what is
    committed: by the watermark that its split had in the run that committed it.

    Examples
    --------
    Sensors that report how far out of order their records may be:

    >>> import pyarrow.compute as pc
    >>> from datetime import datetime, timedelta
    >>> class BySensor(mill.WatermarkGenerator):
    ...     columns = ("delay",)
    ...
    ...     def on_batch(self, times, batch):
    ...         return pc.subtract(times, batch["delay"])
    >>> noon = datetime(2024, 1, 1, 12)
    >>> rows = [
    ...     {"at": noon + timedelta(seconds=s), "delay": timedelta(seconds=d)} for s, d in [(0, 5), (60, 5), (40, 5), (120, 5)]
    ... ]
    >>> timed = mill.from_iter(rows).event_time("at", watermark=BySensor())
    >>> counts = timed.window_all(mill.tumbling("10s")).agg(n=mill.count())
    >>> [row["window_start"].minute for row in counts.collect().to_pylist()]
    [0, 1, 2]
    >>> [row["at"].second for row in counts.late.collect().to_pylist()]
    [40]
    """

    columns: ClassVar[Sequence[str] | None] = None
    period: ClassVar[Duration | None] = None

    def on_batch(self, times: pa.Array, batch: pa.RecordBatch) -> datetime | pa.Array | None:
        """Return the watermark after a batch of records.

        Parameters
        ----------
        times
            The event times of the records, as a ``pyarrow.Array`` of the type of the column.
        batch
            The records, as a ``pyarrow.RecordBatch`` with the columns named in ``columns``.

        Returns
        -------
        datetime, pyarrow.Array or None
            A time, as the watermark after all records. Or an array of times, one after each record, null where there is
            none. Or None for no watermark.
        """
        raise NotImplementedError(f"{type(self).__name__} has no on_batch(times, batch)")

    def on_periodic(self) -> datetime | None:
        """Return the watermark after another ``period``, or None; also called for splits without records."""
        return None


_METHODS = {"on_batch": ("times", "batch"), "on_periodic": ()}


def check_generator(generator: object) -> None:
    """Refuse an object that is not a watermark generator."""
    kind = type(generator)
    if isinstance(generator, type):
        raise PlanError(f"watermark={generator.__name__} is a class; pass an object of it: {generator.__name__}()")
    if not isinstance(generator, WatermarkGenerator):
        raise PlanError(f"a generator of watermarks is an object of a subclass of mill.WatermarkGenerator, not {generator!r:.200}")
    check_spelling(kind, WatermarkGenerator, _METHODS)
    if type(generator).on_batch is WatermarkGenerator.on_batch:
        raise PlanError(f"{kind.__name__} has no on_batch(times, batch), which returns the watermark after a frame of records")
    for method, arguments in _METHODS.items():
        check_parameters(getattr(generator, method), f"event_time({kind.__name__})", *arguments)
    is_periodic = type(generator).on_periodic is not WatermarkGenerator.on_periodic
    if generator.period is not None and not is_periodic:
        raise PlanError(f"{kind.__name__} has period={generator.period!r:.80} and no on_periodic(), which is called so often; define it, or remove period")
    if generator.period is None and is_periodic:
        raise PlanError(f'{kind.__name__} has on_periodic() and no period, so it would never be called; set period = "1s" or the like')
    columns = generator.columns
    if isinstance(columns, str):
        raise PlanError(f'columns of {kind.__name__} is a str; write a tuple of names: ("{columns}",)')
    if columns is not None and (not isinstance(columns, (list, tuple)) or not all(isinstance(name, str) for name in columns)):
        raise PlanError(f'columns of {kind.__name__} is a tuple of names, as in ("delay",), not {columns!r:.200}')


def watermark_function(generator: WatermarkGenerator, zone: str | None) -> RawWatermarkFunction:
    """Return the engine's form of a generator, for event times of this zone."""
    check_generator(generator)
    kind, columns = type(generator), generator.columns
    period = None if generator.period is None else microseconds(generator.period, f"period of {kind.__name__}")
    adapter = _Generators(generator, zone)
    return RawWatermarkFunction(kind.__name__, adapter, None if columns is None else list(columns), period)


class _Generators:
    """Makes a generator for each split."""

    __slots__ = ("_pattern", "_zone")

    def __init__(self, pattern: WatermarkGenerator, zone: str | None) -> None:
        self._pattern = pattern
        self._zone = zone

    def open(self, state: bytes | None) -> _Generator:
        """Make the generator of a split, from the state it had."""
        generator = copy.deepcopy(self._pattern)
        if state is not None:
            import pickle

            attributes = pickle.loads(state)
            if hasattr(generator, "__setstate__"):
                generator.__setstate__(attributes)
            elif attributes is not None:
                generator.__dict__.update(attributes)
        return _Generator(generator, self._zone)


class _Generator:
    """Calls the generator of a split, and converts what it returns to microseconds."""

    __slots__ = ("_generator", "_zone")

    def __init__(self, generator: WatermarkGenerator, zone: str | None) -> None:
        self._generator = generator
        self._zone = zone

    def on_batch(self, times: Any, batch: Any) -> Any:
        returned = self._generator.on_batch(times, batch)
        if returned is None or isinstance(returned, datetime):
            return self._microseconds(returned, "on_batch")
        import pyarrow as pa

        if isinstance(returned, pa.Scalar):
            return self._of_scalar(returned)
        if not hasattr(returned, "__len__") or isinstance(returned, (str, bytes)):
            raise TypeError(f"on_batch() returned {returned!r}; return a datetime, an array of times, or None")
        array = returned if isinstance(returned, pa.Array) else _array(returned)
        if pa.types.is_null(array.type):
            return None
        self._check_zone(array.type, "on_batch")
        return pa.record_batch([array], names=["watermark"])

    def on_periodic(self) -> int | None:
        return self._microseconds(self._generator.on_periodic(), "on_periodic")

    def state(self) -> bytes:
        import pickle

        return pickle.dumps(self._generator.__getstate__(), 5)  # type: ignore[attr-defined, unused-ignore]

    def _of_scalar(self, scalar: Any) -> Any:
        import pyarrow as pa

        self._check_zone(scalar.type, "on_batch")
        if not scalar.is_valid:
            return None
        if not pa.types.is_timestamp(scalar.type):
            return self._microseconds(datetime.combine(scalar.as_py(), datetime.min.time(), None), "on_batch")
        value: int = scalar.value
        return value // 1_000 if scalar.type.unit == "ns" else value * _US_PER_UNIT[scalar.type.unit]

    def _check_zone(self, kind: Any, method: str) -> None:
        import pyarrow as pa

        if pa.types.is_date(kind):
            return
        if not pa.types.is_timestamp(kind):
            raise TypeError(f"{method}() returned values of type {kind}; watermarks are times, as the event times are")
        self._check(kind.tz is not None, method)

    def _check(self, is_zoned: bool, method: str) -> None:
        if is_zoned and self._zone is None:
            raise TypeError(f"{method}() returned a time with a zone, and the event times have none")
        if not is_zoned and self._zone is not None:
            raise TypeError(f"{method}() returned a time without a zone, and the event times have the zone {self._zone}")

    def _microseconds(self, at: datetime | None, method: str) -> int | None:
        if at is None:
            return None
        if not isinstance(at, datetime):
            raise TypeError(f"{method}() returned {at!r}; return a datetime or None")
        self._check(at.tzinfo is not None, method)
        return since_epoch(at)


def _array(values: Any) -> Any:
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if hasattr(values, "__arrow_c_stream__"):
        return _array(pa.chunked_array(values))
    return pa.array(values)
