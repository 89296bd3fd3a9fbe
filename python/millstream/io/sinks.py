"""Sinks: callbacks, files, databases, and classes of your own."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from millstream import _live
from millstream._closing import closed
from millstream._engine import RawEnding, RawSink, write_files, write_sqlite
from millstream._hints import no_attribute
from millstream._parameters import check_parameters, check_spelling
from millstream._paths import file_or_object, local_path
from millstream._row import row_class, rows
from millstream._texts import optional_text, text, texts
from millstream._waits import Waits
from millstream._writing import Writing
from millstream.errors import CheckpointError, PlanError
from millstream.functions import function_name
from millstream.stream import Stream

__all__ = ["Sink"]

T = TypeVar("T")


_CHANGES = "put to_changelog() before it, for a column that says what happens to each row"
_DELETE = "give it a method delete(batch), or put to_changelog() before it, for a column that says what happens to each row"


class Sink:
    """The base class of sinks of your own; :meth:`Stream.sink_to` writes a stream into one.

    A sink sets ``kind`` to how it keeps results exactly once after a crash:

    ``"idempotent"``
        ``write`` puts rows at their key; writing them again changes nothing. Rows must be durable when ``pre_commit``
        returns. It accepts updating streams; one from which keys are deleted also needs ``delete``.
    ``"transactional"``
        ``write`` writes where nobody sees it. ``pre_commit`` makes that durable and returns a handle (anything that JSON
        can hold, or None for nothing), which is stored in the checkpoint. ``commit`` makes it visible. After a crash,
        ``recover`` gets the handles of the checkpoint: it commits those that are not committed yet, and removes everything
        else.
    ``"write-ahead"``
        The engine stores the rows in the checkpoint and calls ``deliver`` after it, in the order of the epochs. If
        ``last_epoch`` returns the newest epoch that the target has, epochs up to it are not delivered again. A run that
        would repeat epochs is refused: one that continues from an older checkpoint, or starts from nothing on a target of
        another job. If ``last_epoch`` always returns None, the last epoch may be delivered twice. In the mode
        ``at_least_once``, rows are delivered before the checkpoint, and ``last_epoch`` is not called.

    Attributes
    ----------
    kind : str
        One of the three.

    Examples
    --------
    >>> class Upserts(mill.Sink):
    ...     kind = "idempotent"
    ...     def __init__(self):
    ...         self.rows = {}
    ...     def write(self, batch):
    ...         for row in batch.to_pylist():
    ...             self.rows[row["k"]] = row
    >>> target = Upserts()
    >>> report = mill.run(mill.from_iter([{"k": 1, "x": 2}]).sink_to(target))
    >>> target.rows
    {1: {'k': 1, 'x': 2}}
    """

    kind: ClassVar[Literal["idempotent", "transactional", "write-ahead"]]

    @property
    def is_ending(self) -> bool:
        """Whether the job was cancelled or has failed, so that nothing is to be waited for any more.

        A method that waits for its target, or tries again, looks at this now and then, and raises an exception if it is true. What it
        was about stays in the checkpoint, and is committed by the next run. It is always false in :meth:`open` of a first attempt:
        :func:`millstream.start` returns, and a job can be cancelled, once its sinks are open.

        Examples
        --------
        >>> class Posted(mill.Sink):
        ...     kind = "write-ahead"
        ...     def deliver(self, batch, epoch):
        ...         while not self.is_ending and not try_to_post(batch):
        ...             time.sleep(0.1)
        ...         if self.is_ending:
        ...             raise ConnectionError("the job ends before the service has answered")
        >>> Posted().is_ending
        False
        """
        sink, waits = getattr(_calls, "now", (None, None))
        if sink is not self:
            # A thread of the sink's own: it belongs to the run that began last.
            waits = self.__dict__.get("_millstream_waits")
        return waits is not None and waits.are_over

    def open(self) -> None:
        """Prepare the sink; called before the first record of a run."""

    def restored(self, epoch: int | None, newest: int | None) -> None:
        """Accept or refuse the checkpoint that the run continues from.

        Called after :meth:`open`, before :meth:`recover` and :meth:`commit`, in the mode ``exactly_once`` alone.

        Parameters
        ----------
        epoch
            The checkpoint that was restored; None if the run starts from nothing.
        newest
            The newest checkpoint that the state directory knows; output up to it may have been committed.

        Raises
        ------
        CheckpointError
            By default, when a transactional sink is restored from a checkpoint that is not the newest.

        Notes
        -----
        A run usually continues from the newest checkpoint. If that one is damaged, an older one is used, and what the job
        wrote after it is written again. A sink that can remove output of later epochs does so here; any other raises an
        exception, which refuses the run. An idempotent sink needs neither, since rows that are written again replace
        themselves. For a write-ahead sink the engine compares its :meth:`last_epoch`.
        """
        if self.kind == "transactional" and epoch is not None and newest is not None and newest > epoch:
            raise CheckpointError(
                f"{type(self).__name__}: checkpoint {epoch} was restored, and output of later ones, up to {newest}, may have "
                "been committed and would come again; put the newer checkpoint back, or remove that output and override "
                "restored() to accept the older one"
            )

    def write(self, batch: Any) -> None:
        """Write a batch of records; required for idempotent and transactional sinks.

        Parameters
        ----------
        batch
            A ``pyarrow.RecordBatch``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no write(batch)")

    def delete(self, batch: Any) -> None:
        """Delete the rows with the keys of a batch; for idempotent sinks.

        Called for an updating stream from which keys are deleted, such as one with a filter.

        Parameters
        ----------
        batch
            A ``pyarrow.RecordBatch`` with all columns of the stream; the columns of its key identify the rows to delete. A
            key may never have been written.
        """
        raise NotImplementedError(f"{type(self).__name__} has no delete(batch)")

    def pre_commit(self, epoch: int) -> Any:
        """Make durable what was written since the last call.

        Parameters
        ----------
        epoch
            The number of the checkpoint.

        Returns
        -------
        object
            A handle that JSON can hold, for :meth:`commit`; None if there is nothing to commit.
        """
        return None

    def commit(self, handles: Sequence[tuple[int, Any]]) -> None:
        """Make output visible; called again with the same handles after a crash.

        Parameters
        ----------
        handles
            Pairs of epoch and handle, as :meth:`pre_commit` returned them.
        """

    def recover(self, handles: Sequence[tuple[int, Any]]) -> None:
        """Commit what the restored checkpoint names, and remove all other output that is not committed.

        Parameters
        ----------
        handles
            Pairs of epoch and handle that the checkpoint holds.
        """
        self.commit(handles)

    def abort(self) -> None:
        """Remove what was not committed, and forget what was written since the last :meth:`pre_commit`.

        Called when a run fails or is cancelled. Where it is not known whether a commit took effect, it is called after the
        :meth:`recover` of the next run in the same process.
        """

    def deliver(self, batch: Any, epoch: int) -> None:
        """Deliver a batch of records to the target; required for write-ahead sinks.

        Parameters
        ----------
        batch
            A ``pyarrow.RecordBatch``.
        epoch
            The number of the checkpoint that holds it. Record it in the target together with the rows, for
            :meth:`last_epoch`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no deliver(batch, epoch)")

    def last_epoch(self) -> int | None:
        """Return the newest epoch that the target has recorded; None if it records none."""
        return None

    def close(self) -> None:
        """Release what the sink holds; called after the last commit. An exception is logged as a warning."""


class Output:
    """A sink with the stream that is written to it: what ``write_*`` and the like return, and :func:`millstream.run` takes.

    Examples
    --------
    >>> mill.from_iter([1, 2]).write_csv("numbers/")
    <Sink write_csv("numbers/")>
    """

    __slots__ = ("_raw", "_takes_frames")
    _raw: RawSink
    _takes_frames: bool

    def name(self, name: str, *, was: str | None = None) -> Output:
        """Name the sink; the name identifies what it has written.

        Parameters
        ----------
        name
            1 to 200 printable characters, unique in a job.
        was
            The name that the sink had in former runs; see :meth:`Stream.name`.

        Returns
        -------
        Output
            The same sink under this name.

        Raises
        ------
        PlanError
            When it is not such a name.

        Examples
        --------
        >>> report = mill.run(mill.from_iter([1]).for_each(lambda row: None).name("shown"))
        >>> report.steps[-1].name
        'shown'
        """
        return output(self._raw.named(text(name, "name()", "orders"), optional_text(was, "name(was=…)", "orders")), takes_frames=self._takes_frames)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise an error that says where what is looked for is found."""
            raise no_attribute(self, name)

    def __repr__(self) -> str:
        """Show what it writes to."""
        return f"<Sink {self._raw.name()}>"


def output(raw: RawSink, *, takes_frames: bool = False) -> Output:
    """Make what :func:`millstream.run` takes; with ``takes_frames`` its function is called with frames of pyarrow."""
    made = Output()
    made._raw = raw
    made._takes_frames = takes_frames
    return made


def file_sink(stream: Stream, kind: str, path: str | os.PathLike[str], writing: Writing) -> Output:
    """Write files of a kind."""
    return output(write_files(stream._raw, kind, file_or_object(path, f"write_{kind}()"), writing))


def sqlite_sink(stream: Stream, path: str | os.PathLike[str], table: str, key: Sequence[str] | None) -> Output:
    """Write into a table of an SQLite database."""
    keys = None if key is None else texts(key, "write_sqlite(key=…)", "id")
    return output(write_sqlite(stream._raw, local_path(path, "write_sqlite()"), text(table, "write_sqlite(table=…)", "orders"), keys))


# -- callbacks -----------------------------------------------------------------------------------------------------------


def callback_sink(stream: Stream, function: Callable[[Any], object], *, is_batch: bool) -> Output:
    """Call a function for each record or frame."""
    verb = "for_each_batch" if is_batch else "for_each"
    name = f"{verb}({function_name(function)})"
    adapter: Any = _BatchCallback(function) if is_batch else _RowCallback(function, tuple(stream.schema.names))
    raw = stream._raw.write_python(adapter, name, "immediate", not is_batch, True, _CHANGES, 1)
    return output(raw, takes_frames=is_batch)


def print_sink(stream: Stream) -> Output:
    """Print each record."""
    adapter = _RowCallback(_print, tuple(stream.schema.names))
    return output(stream._raw.write_python(adapter, "print()", "immediate", True, True, _CHANGES, 1))


def _print(row: Any) -> None:
    # The stream is looked up at each call: a notebook, or a test, puts its own in its place.
    sys.stdout.write(f"{row!r}\n")


class _Callback:
    """What callbacks share: they are their own writer, and have nothing to commit."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[Any], object]) -> None:
        self._function = function

    def writer(self, index: int, parallelism: int) -> _Callback:
        """Return what is written to."""
        return self

    def committer(self) -> _Callback:
        """Return what commits."""
        return self

    def promise(self, delivery: str, restored: int | None, newest: int | None, is_persistent: bool, ending: RawEnding) -> None:
        """Learn of the run; nothing depends on it."""

    def commit(self, handles: object) -> None:
        """Do nothing: what was given was given."""

    recover = commit
    abort = commit

    def close(self) -> None:
        """Do nothing: a callback holds nothing."""


class _BatchCallback(_Callback):
    """Calls a function once a frame."""

    __slots__ = ()

    def write(self, batch: Any) -> None:
        """Pass on a frame."""
        self._function(batch)


class _RowCallback(_Callback):
    """Calls a function once a record."""

    __slots__ = ("_make",)

    def __init__(self, function: Callable[[Any], object], fields: tuple[str, ...]) -> None:
        super().__init__(function)
        self._make = functools.partial(tuple.__new__, row_class(fields))

    def write(self, columns: Sequence[list[Any]], count: int) -> None:
        """Pass on the records of a frame."""
        function = self._function
        for number, row in enumerate(rows(self._make, columns, count)):
            _live.check()
            try:
                function(row)
            except Exception as error:
                # The engine puts the record into its message; the exception itself stays as it is.
                error._millstream_row = number  # type: ignore[attr-defined]
                raise


# -- sinks of the user's -------------------------------------------------------------------------------------------------


_METHODS: dict[str, tuple[str, ...]] = {
    "open": (),
    "write": ("batch",),
    "delete": ("batch",),
    "pre_commit": ("epoch",),
    "commit": ("handles",),
    "recover": ("handles",),
    "abort": (),
    "restored": ("epoch", "newest"),
    "deliver": ("batch", "epoch"),
    "last_epoch": (),
    "close": (),
}
"""What a sink may define, and the arguments of each."""


def custom_sink(stream: Stream, sink: Sink) -> Output:
    """Write into a sink of the user's."""
    if isinstance(sink, Output):
        raise PlanError("sink_to() takes a sink of your own; this one has its stream already: pass it to run()")
    if not isinstance(sink, Sink):
        hint = "; pass an object, not the class" if isinstance(sink, type) else ""
        raise PlanError(f"sink_to() takes a mill.Sink, not {sink!r:.200}{hint}")
    name = type(sink).__name__
    check_spelling(type(sink), Sink, _METHODS)
    for method, arguments in _METHODS.items():
        check_parameters(getattr(sink, method), f"sink_to({name})", *arguments)
    kind = getattr(sink, "kind", None)
    if kind not in ("idempotent", "transactional", "write-ahead"):
        raise PlanError(f'{name} has no kind; set kind = "idempotent", "transactional" or "write-ahead"')
    needed = {"idempotent": ["write"], "transactional": ["write", "pre_commit", "commit"], "write-ahead": ["deliver"]}[kind]
    missing = [method for method in needed if getattr(type(sink), method) is getattr(Sink, method)]
    if missing:
        raise PlanError(f"{name} is {kind} and has no {', '.join(missing)}; a sink of this kind needs {', '.join(needed)}")
    adapter: Any = _WriteAhead(sink) if kind == "write-ahead" else _Direct(sink, _Rows())
    if kind == "write-ahead" and type(sink).last_epoch is Sink.last_epoch:
        kind = "write-ahead-at-least-once"
    deletes = type(sink).delete is not Sink.delete
    raw = stream._raw.write_python(adapter, name, kind, False, kind == "idempotent", None if deletes else _DELETE, 1)
    return output(raw, takes_frames=True)


_calls = threading.local()
"""By thread: the sink of the user's that is called, and the waits of the run that calls it. One object may be the sink of several runs."""


class _OfUser:
    """A sink of the user's in one run."""

    __slots__ = ("_is_open", "_sink", "_waits")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waits = Waits()
        self._is_open = False

    def _begin(self, ending: RawEnding) -> None:
        """Begin a run, or begin it again after a failure."""
        self._waits = Waits()
        self._waits.begin(ending)
        # Past a `__setattr__` of the class, which may refuse: a frozen dataclass does.
        object.__setattr__(self._sink, "_millstream_waits", self._waits)
        self._call(self._sink.open)
        self._is_open = True

    def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a method of the sink, which may ask whether this run ends."""
        former = getattr(_calls, "now", (None, None))
        _calls.now = (self._sink, self._waits)
        try:
            return function(*arguments)
        finally:
            _calls.now = former

    def close(self) -> None:
        """Release what the sink holds, if it was opened."""
        if self._is_open:
            self._is_open = False
            self._call(closed, self._sink.close, type(self._sink).__name__)


class _Rows:
    """Whether a sink got rows since it last returned a handle or dropped them; runs of one object share it."""

    __slots__ = ("are_there",)

    def __init__(self) -> None:
        self.are_there = False


class _Direct(_OfUser):
    """An idempotent or transactional sink of the user's as the engine calls it: one writer, one committer."""

    __slots__ = ("_rows",)

    def __init__(self, sink: Sink, rows: _Rows) -> None:
        super().__init__(sink)
        self._rows = rows

    def of_run(self) -> _Direct:
        """Return the sink as one run calls it."""
        return _Direct(self._sink, self._rows)

    def writer(self, index: int, parallelism: int) -> _Direct:
        """Return the writer."""
        return self

    def promise(self, delivery: str, restored: int | None, newest: int | None, is_persistent: bool, ending: RawEnding) -> None:
        """Let the sink refuse to repeat output."""
        self._begin(ending)
        if restored is None and self._rows.are_there:
            # No checkpoint names anything that could still be needed.
            self.abort(())
        if delivery == "exactly_once" and is_persistent:
            self._call(self._sink.restored, restored, newest)

    def committer(self) -> _Direct:
        """Return the committer."""
        return self

    def write(self, batch: Any) -> None:
        """Write a frame."""
        self._rows.are_there = True
        self._call(self._sink.write, batch)

    def delete(self, batch: Any) -> None:
        """Delete the keys of a frame."""
        self._rows.are_there = True
        self._call(self._sink.delete, batch)

    def pre_commit(self, epoch: int) -> bytes | None:
        """Make what was written durable."""
        import json

        handle = self._call(self._sink.pre_commit, epoch)
        self._rows.are_there = False
        if handle is None:
            return None
        try:
            return json.dumps(handle).encode()
        except TypeError as error:
            raise TypeError(f"pre_commit() returns something that JSON can hold, not {handle!r:.200}") from error

    def commit(self, handles: Sequence[tuple[int, bytes]]) -> None:
        """Make output visible."""
        self._call(self._sink.commit, _opened(handles))

    def recover(self, handles: Sequence[tuple[int, bytes]]) -> None:
        """Settle what an earlier run has left, also in the memory of the sink."""
        self._call(self._sink.recover, _opened(handles))
        if self._rows.are_there:
            self.abort(())

    def abort(self, handles: object) -> None:
        """Remove what was not committed."""
        self._call(self._sink.abort)
        self._rows.are_there = False


def _opened(handles: Sequence[tuple[int, bytes]]) -> list[tuple[int, Any]]:
    """Return what the sink's own `pre_commit` returned, by epoch."""
    import json

    return [(epoch, json.loads(handle)) for epoch, handle in handles]



class _Frames:
    """The frames that a write-ahead sink got since the last checkpoint."""

    __slots__ = ("_batches",)

    def __init__(self) -> None:
        self._batches: list[Any] = []

    def write(self, batch: Any) -> None:
        """Keep a frame for the checkpoint."""
        self._batches.append(batch)

    def pre_commit(self, epoch: int) -> bytes | None:
        """Return the frames as bytes."""
        if not self._batches:
            return None
        import pyarrow as pa

        buffer = pa.BufferOutputStream()
        with pa.ipc.new_stream(buffer, self._batches[0].schema) as writer:
            for batch in self._batches:
                writer.write_batch(batch)
        self._batches = []
        return bytes(buffer.getvalue())


class _WriteAhead(_OfUser):
    """A write-ahead sink of the user's: frames wait in the checkpoint as Arrow streams and are delivered after it."""

    __slots__ = ("_is_repeating",)

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._is_repeating = False

    def of_run(self) -> _WriteAhead:
        """Return the sink as one run calls it."""
        return _WriteAhead(self._sink)

    def promise(self, delivery: str, restored: int | None, newest: int | None, is_persistent: bool, ending: RawEnding) -> None:
        """Refuse a run that would repeat or lose output, before anything is committed."""
        self._begin(ending)
        # At least once delivers before the checkpoint. After a kill in between, the same epoch has other records: to
        # pass it over would lose them. A job without checkpoints delivers each epoch once, and counts from 1 in each run.
        self._is_repeating = delivery == "at_least_once" or not is_persistent
        if delivery != "exactly_once" or not is_persistent:
            return
        self._call(self._sink.restored, restored, newest)
        last = self._call(self._sink.last_epoch)
        name = type(self._sink).__name__
        if last is None or (restored is not None and last <= restored):
            return
        if restored is None:
            raise CheckpointError(
                f"{name}: the target has epochs up to {last} of another run, and this job starts from nothing: its own epochs "
                "up to that number would be taken for delivered; continue with the former checkpoint path, or give the job a "
                "target of its own"
            )
        raise CheckpointError(
            f"{name}: the target has output of epoch {last}, later than checkpoint {restored}, which was restored, and it "
            "would come again; put the newer checkpoint back, or remove that output from the target"
        )

    def writer(self, index: int, parallelism: int) -> _Frames:
        """Return a writer; one of a run that has failed may have frames left, and they are none of this one's."""
        return _Frames()

    def committer(self) -> _WriteAhead:
        """Return the committer."""
        return self

    def commit(self, handles: Sequence[tuple[int, bytes]]) -> None:
        """Deliver frames whose checkpoint is durable, but for those that the target has already."""
        import pyarrow as pa

        last = None if self._is_repeating else self._call(self._sink.last_epoch)
        for epoch, handle in sorted(handles, key=lambda pair: pair[0]):
            if last is not None and epoch <= last:
                continue
            table = pa.ipc.open_stream(handle).read_all().combine_chunks()
            for batch in table.to_batches():
                self._waits.check()
                self._call(self._sink.deliver, batch, epoch)

    recover = commit

    def abort(self, handles: object) -> None:
        """Let the sink forget what was not in a checkpoint."""
        self._call(self._sink.abort)
