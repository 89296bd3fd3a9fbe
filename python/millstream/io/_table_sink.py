"""What the sinks of tables of a lake have in common: what they take, and how each epoch comes into the table once."""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from millstream._custody import Custody, Mark
from millstream._nearest import did_you_mean
from millstream._texts import choice, texts
from millstream._waits import Waits
from millstream.errors import CheckpointError, PlanError, SchemaError
from millstream.io._per_run import PerRun
from millstream.io._table_rows import exact_rows, last_changes, packed, unpacked
from millstream.io.sinks import Output, output
from millstream.stream import Stream

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream._engine import RawEnding

__all__ = ["ATTEMPT_SECONDS_MAX", "PAUSE_SECONDS_MAX", "PAUSE_SECONDS_MIN", "TableMode", "TableSink", "changes_of", "checked_asked", "checked_key", "table_output"]

TableMode = Literal["append", "overwrite"]
"""What happens to rows that a table has already."""

ATTEMPT_SECONDS_MAX = 60.0
"""For how long a commit is tried while others commit before it."""
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.005, 0.5
_ONCE = (
    'mode="overwrite" replaces the table in one transaction when the job ends, and a job with checkpoints commits before that; leave '
    "checkpoint= out (a job that failed is run again), or use key="
)


def checked_asked(
    call: str, stream: Stream, mode: TableMode, key: str | Sequence[str] | None, partition_by: str | Sequence[str], example: str
) -> tuple[list[str] | None, list[str]]:
    """Return the columns of the key, if there is one, and the partitions, of which there is an example."""
    choice(mode, f"{call}(mode=…)", "append", "overwrite")
    keys = None if key is None else texts(key, f"{call}(key=…)", "id")
    partitions = texts(partition_by, f"{call}(partition_by=…)", example)
    if keys is not None and not keys:
        raise PlanError(f"{call}(key=…) needs at least one column; leave it out to append rows")
    if mode == "overwrite" and keys is not None:
        raise PlanError(f'{call}(mode="overwrite") replaces the whole table, and key= single rows; leave one of them out')
    if mode == "overwrite" and not stream.is_bounded:
        raise PlanError(f'{call}(mode="overwrite") replaces the table when the input has ended, and this stream has no end')
    _check_updating(call, stream, keys)
    return keys, partitions


def _check_updating(call: str, stream: Stream, keys: list[str] | None) -> None:
    own = stream._raw.updating_key()
    if own is None:
        return
    named = ", ".join(own) or "no columns"
    if keys is None:
        example = f'key="{own[0]}"' if len(own) == 1 else f"key={own!r}"
        raise PlanError(
            f"{call}() without a key appends, and this stream updates: a row replaces the row of its key ({named}); pass {example}, or put "
            "to_changelog() before it"
        )
    if sorted(own) != sorted(keys):
        raise PlanError(f"{call}(key=…) names {', '.join(keys)}, and this stream updates rows by {named}")


def checked_key(call: str, stored: pa.Schema, schema: Any, keys: Sequence[str]) -> None:
    """Refuse columns that cannot be a key."""
    import pyarrow as pa

    for name in keys:
        if name not in schema:
            raise SchemaError(f"{call}(key=…): there is no column {name!r}{did_you_mean(name, schema)}")
        kind = stored.field(name).type
        if pa.types.is_floating(kind) or pa.types.is_nested(kind):
            raise SchemaError(f"{call}(key=…): column {name!r} is {schema[name]!r}; a key is of text, bytes, whole numbers, decimals, dates or times")
    if len(set(keys)) < len(keys):
        raise PlanError(f"{call}(key=…) names a column twice")


def table_output(call: str, stream: Stream, shown: str, sink: Callable[[], TableSink], mode: TableMode, keys: list[str] | None) -> Output:
    """Return the sink of a stream, which a plan shows under a name."""
    once = _ONCE if mode == "overwrite" else None
    raw = stream._raw.write_python(PerRun(sink), f'{call}("{shown}")', "transactional", False, keys is not None, None, 1, once)
    return output(raw, takes_frames=True)


class TableSink(ABC):
    """The writer and the committer of a table, for one run.

    Appended rows are written into data files before the checkpoint, which no reader sees until the table names them. Rows with a key wait in the
    checkpoint, and are merged after it. Either way one commit of the table has the rows of an epoch and its mark.

    A handle in the checkpoint is JSON: ``table`` identifies the table, ``mark`` is the epoch's, ``changes`` the last change of each key, or
    ``files`` what names the files.
    """

    def __init__(self, schema: Any, stored: pa.Schema, mode: TableMode, keys: list[str] | None, partitions: list[str]) -> None:
        self._schema = schema
        self._stored = stored
        self._mode: TableMode = mode
        self._keys = keys
        self._partitions = partitions
        self._custody = Custody("the table")
        self._columns = stored
        self._table_id: str | None = None
        self._files: Any = None
        self._changes: list[tuple[Any, bool]] = []
        self._prepared: dict[int, list[str]] = {}
        self._waits = Waits()

    # -- what the format of the table decides ------------------------------------------------------------------------

    @abstractmethod
    def _found(self) -> Any:
        """Return the table as it is now, or None."""

    @abstractmethod
    def _created(self) -> Any:
        """Create the table, and return it."""

    @abstractmethod
    def _take(self, table: Any) -> None:
        """Go on with a table, which is compared with the stream again."""

    @abstractmethod
    def _identity(self, table: Any) -> str:
        """Return what tells a table from another one of its name."""

    @abstractmethod
    def _marks(self, table: Any) -> Callable[[str], int | None]:
        """Return a function that knows the newest epoch of a run that a table shows."""

    @abstractmethod
    def _append(self, rows: Any) -> None:
        """Write rows into files."""

    @abstractmethod
    def _finished(self, epoch: int) -> dict[str, Any]:
        """Make the files of an epoch durable, and return what a handle says of them."""

    @abstractmethod
    def _commit(self, handle: dict[str, Any], mark: Mark, newest: int) -> None:
        """Write the commit of an epoch, unless the table shows it already."""

    @abstractmethod
    def _remove(self, path: str) -> None:
        """Remove a file that no commit names."""

    def _check(self, rows: Any) -> None:
        """Refuse changed rows that cannot be written."""

    # -- a run -------------------------------------------------------------------------------------------------------

    def promise(self, delivery: str, restored: int | None, newest: int | None, is_persistent: bool, ending: RawEnding) -> None:
        """Begin the run."""
        self._custody.begin(delivery)
        self._waits.begin(ending)
        if restored is None:
            self._take(self._found() or self._created())

    def recover(self, handles: Sequence[tuple[int, bytes]]) -> None:
        """Commit what a checkpoint names and the table does not show yet."""
        table = self._found()
        found = _read(handles)
        if table is None:
            if found:
                raise CheckpointError("there is no table, and the checkpoint knows one; restore it, or start with a new checkpoint path")
            table = self._created()
        self._take(table)
        for handle in found:
            if handle["table"] != self._table_id:
                raise CheckpointError(
                    f"the checkpoint was made with another table (its id was {handle['table']}, and this one is {self._table_id}); "
                    "put that one back, or start with a new checkpoint path"
                )
        self.commit(handles)
        if found:
            mark = Mark.from_json(found[-1]["mark"])
            marks = self._marks(self._required())
            self._custody.is_shown(mark, marks, newest=mark.epoch)
            self._custody.restored(mark, marks)

    def abort(self, handles: object) -> None:
        """Remove what was not committed."""
        for path in (path for paths in self._prepared.values() for path in paths):
            self._remove(path)
        self._forget()

    def close(self) -> None:
        """Remove what was written since the last checkpoint."""
        self._forget()

    def _forget(self) -> None:
        if self._files is not None:
            self._files.discard()
        self._files = None
        self._changes = []
        self._prepared = {}

    def _required(self) -> Any:
        table = self._found()
        if table is None or self._identity(table) != self._table_id:
            raise CheckpointError("the table was removed or replaced by another one while the job was writing it")
        return table

    # -- rows --------------------------------------------------------------------------------------------------------

    def write(self, batch: Any) -> None:
        """Take a frame."""
        self._add(batch, is_deleted=False)

    def delete(self, batch: Any) -> None:
        """Delete the rows of the keys of a frame."""
        self._add(batch, is_deleted=True)

    def _add(self, batch: Any, *, is_deleted: bool) -> None:
        rows = exact_rows(batch, self._columns, self._keys or [])
        if self._keys is None:
            self._append(rows)
        else:
            self._check(rows)
            self._changes.append((rows, is_deleted))

    # -- an epoch ----------------------------------------------------------------------------------------------------

    def pre_commit(self, epoch: int) -> bytes | None:
        """Make the rows of an epoch durable: in files, or in the handle. There is always a handle, which has the mark."""
        handle: dict[str, Any] = {"table": self._table_id, "mark": self._custody.mark(epoch).to_json()}
        if self._keys is None:
            handle |= self._finished(epoch)
            self._files = None
        elif self._changes:
            handle["changes"] = base64.b64encode(packed(last_changes(self._changes, self._keys))).decode()
            self._changes = []
        return json.dumps(handle).encode()

    def commit(self, handles: Sequence[tuple[int, bytes]]) -> None:
        """Write one commit for each epoch that has rows and is not there yet."""
        found = _read(handles)
        newest = max((handle["mark"][1] for handle in found), default=0)
        for handle in found:
            if "files" not in handle and "changes" not in handle:
                continue
            mark = Mark.from_json(handle["mark"])
            # From here on the table may name them.
            self._prepared.pop(mark.epoch, None)
            self._commit(handle, mark, newest)
            self._custody.committed(mark)


def _read(handles: Sequence[tuple[int, bytes]]) -> list[dict[str, Any]]:
    return [json.loads(handle) for _, handle in sorted(handles, key=lambda pair: pair[0])]


def changes_of(handle: dict[str, Any]) -> Any:
    """Return the last change of each key that a handle has."""
    return unpacked(base64.b64decode(handle["changes"]))
