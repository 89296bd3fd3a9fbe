"""The sink of Delta tables: one transaction for each checkpoint that has rows."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import random
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from millstream._custody import CLOSED, Custody, Mark
from millstream._nearest import did_you_mean
from millstream._paths import local_path
from millstream._texts import choice, texts
from millstream._waits import Waits
from millstream.errors import CheckpointError, ConnectorError, PlanError, SchemaError
from millstream.io._delta_files import DataFile, FileWriter, partition_text, sync_directory
from millstream.io._delta_table import columns_of, deltalake, opened, reason, subset
from millstream.io._delta_types import check_fits, stored_schema
from millstream.io._per_run import PerRun
from millstream.io._table_rows import exact_rows, last_changes, packed, unpacked
from millstream.io.sinks import Output, output
from millstream.stream import Stream

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream._engine import RawEnding

__all__ = ["DeltaMode", "delta_sink"]

DeltaMode = Literal["append", "overwrite"]
"""What happens to rows that a table has already."""

_ATTEMPT_SECONDS_MAX = 60.0
"""For how long a commit is tried while others commit before it."""
_PAUSE_SECONDS_MIN, _PAUSE_SECONDS_MAX = 0.005, 0.5
_SYNCED_VERSIONS = 100
"""How many entries of the log are made durable where it is not known which one it is."""
_HARMLESS_FEATURES = {
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "deletionVectors",
    "domainMetadata",
    "generatedColumns",
    "invariants",
    "timestampNtz",
    "v2Checkpoint",
    "vacuumProtocolCheck",
}
"""Features of a table that ask nothing of who appends files, or whose use is looked for in the columns."""
_ONCE = (
    'mode="overwrite" replaces the table in one transaction when the job ends, and a job with checkpoints commits before that; leave '
    "checkpoint= out (a job that failed is run again), or use key="
)
_LOG = logging.getLogger("millstream.delta")


def delta_sink(
    stream: Stream,
    path: str | os.PathLike[str],
    mode: DeltaMode,
    key: str | Sequence[str] | None,
    partition_by: str | Sequence[str],
) -> Output:
    """Write into a Delta table."""
    call = "write_delta"
    deltalake(call)
    where = local_path(path, f"{call}()")
    choice(mode, f"{call}(mode=…)", "append", "overwrite")
    keys = None if key is None else texts(key, f"{call}(key=…)", "id")
    partitions = texts(partition_by, f"{call}(partition_by=…)", "day")
    if keys is not None and not keys:
        raise PlanError(f"{call}(key=…) needs at least one column; leave it out to append rows")
    if mode == "overwrite" and keys is not None:
        raise PlanError(f'{call}(mode="overwrite") replaces the whole table, and key= single rows; leave one of them out')
    if mode == "overwrite" and not stream.is_bounded:
        raise PlanError(f'{call}(mode="overwrite") replaces the table when the input has ended, and this stream has no end')
    _check_updating(stream, keys, call)
    schema = stream.schema
    stored = stored_schema(schema, f"{call}()")
    for argument, names in (("key", keys or []), ("partition_by", partitions)):
        for name in names:
            if name not in schema:
                raise SchemaError(f"{call}({argument}=…): there is no column {name!r}{did_you_mean(name, schema)}")
        if len(set(names)) < len(names):
            raise PlanError(f"{call}({argument}=…) names a column twice")
    _check_kinds(stored, schema, keys or [], partitions, call)
    table = opened(where, None, call)
    if table is not None:
        _check_table(table, schema, stored, keys, partitions if partition_by else None, mode, call)
    sink = PerRun(lambda: _DeltaSink(where, schema, stored, mode, keys, partitions))
    raw = stream._raw.write_python(sink, f'{call}("{os.fspath(path)}")', "transactional", False, keys is not None, None, 1, _ONCE if mode == "overwrite" else None)
    return output(raw, takes_frames=True)


def _check_updating(stream: Stream, keys: list[str] | None, call: str) -> None:
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


def _check_kinds(stored: pa.Schema, schema: Any, keys: list[str], partitions: list[str], call: str) -> None:
    import pyarrow as pa

    for name in keys:
        kind = stored.field(name).type
        if pa.types.is_floating(kind) or pa.types.is_nested(kind):
            raise SchemaError(f"{call}(key=…): column {name!r} is {schema[name]!r}; a key is of text, bytes, whole numbers, decimals, dates or times")
    for name in partitions:
        kind = stored.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_date(kind)):
            raise SchemaError(f"{call}(partition_by=…): column {name!r} is {schema[name]!r}; a partition is of text, whole numbers, booleans or dates")
    if partitions and len(partitions) == len(stored.names):
        raise SchemaError(f"{call}(partition_by=…) names all columns; a file needs at least one that is the same in no directory")


def _check_table(
    table: Any, schema: Any, stored: pa.Schema, keys: list[str] | None, partitions: list[str] | None, mode: DeltaMode, call: str
) -> None:
    """Compare a table with the stream that is written into it."""
    columns = columns_of(table)
    names = columns.names
    for name, kind in schema.items():
        if name not in names:
            raise SchemaError(
                f"{call}(): the table has no column {name!r}{did_you_mean(name, names)} (it has {', '.join(names)}); rename() the column, or "
                "write into another table"
            )
        check_fits(name, kind, stored.field(name).type, columns.field(name).type, f"{call}()")
    for field in columns:
        if field.name not in schema and not field.nullable:
            raise SchemaError(f"{call}(): column {field.name!r} of the table is NOT NULL, and the stream has no such column")
    found = table.metadata().partition_columns
    if partitions is not None and partitions != found:
        raise SchemaError(f"{call}(partition_by=…): the table has {_listed(found)}, not {_listed(partitions)}; leave it out to write as the table is")
    _check_features(table, keys, mode, call)


def _listed(partitions: list[str]) -> str:
    return f"the partitions {', '.join(partitions)}" if partitions else "no partitions"


def _check_features(table: Any, keys: list[str] | None, mode: DeltaMode, call: str) -> None:
    """Refuse a table that asks something of its writers that this one does not do."""
    settings = table.metadata().configuration
    if settings.get("delta.appendOnly", "false").lower() == "true" and (keys is not None or mode == "overwrite"):
        what = "key=" if keys is not None else 'mode="overwrite"'
        raise SchemaError(f"{call}(): the table is append-only (delta.appendOnly), and {what} removes rows")
    reasons = [f"the constraint {name.removeprefix('delta.constraints.')}" for name in settings if name.startswith("delta.constraints.")]
    if settings.get("delta.columnMapping.mode", "none") != "none":
        reasons.append("columns that have other names in its files (column mapping)")
    for field in json.loads(table.schema().to_json())["fields"]:
        made = [each for each in field["metadata"] if each.startswith(("delta.generationExpression", "delta.identity.", "delta.invariants"))]
        if made:
            reasons.append(f"a rule of its column {field['name']} ({made[0]})")
    features = set(table.protocol().writer_features or ()) - _HARMLESS_FEATURES
    reasons += [f"the feature {name}" for name in sorted(features)] if not reasons else []
    if reasons:
        raise SchemaError(f"{call}(): the table has {reasons[0]}, which write_delta() does not keep to; write into another table")


class _DeltaSink:
    """The writer and the committer of a table, for one run.

    Appended rows are written into data files before the checkpoint, which no reader sees until the log names them. Rows with a key wait in the
    checkpoint, and are merged after it. Either way one transaction of the table has the rows of an epoch and its mark.
    """

    def __init__(self, path: str, schema: Any, stored: pa.Schema, mode: DeltaMode, keys: list[str] | None, partitions: list[str]) -> None:
        self._path = path
        self._schema = schema
        self._stored = stored
        self._mode: DeltaMode = mode
        self._keys = keys
        self._partitions = partitions
        self._custody = Custody("the table")
        self._columns = stored
        self._table_id: str | None = None
        self._files: FileWriter | None = None
        self._changes: list[Any] = []
        self._prepared: list[DataFile] = []
        self._waits = Waits()

    # -- a run -------------------------------------------------------------------------------------------------------

    def promise(self, delivery: str, restored: int | None, newest: int | None, is_persistent: bool, ending: RawEnding) -> None:
        """Begin the run."""
        self._custody.begin(delivery)
        self._waits.begin(ending)
        if restored is None:
            self._take(opened(self._path, None, "write_delta") or self._created())

    def recover(self, handles: Sequence[tuple[int, bytes]]) -> None:
        """Commit what a checkpoint names and the table does not show yet."""
        table = opened(self._path, None, "write_delta")
        found = [json.loads(handle) for _, handle in sorted(handles, key=lambda pair: pair[0])]
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
            table = self._required()
            self._custody.is_shown(mark, table.transaction_version, newest=mark.epoch)
            self._custody.restored(mark, table.transaction_version)

    def abort(self, handles: object) -> None:
        """Remove what was not committed."""
        for file in self._prepared:
            try:
                os.unlink(os.path.join(self._path, file["path"]))
            except OSError as error:
                _LOG.debug("%s of %s stays: %s", file["path"], self._path, error)
        self._forget()

    def close(self) -> None:
        """Remove what was written since the last checkpoint."""
        self._forget()

    def _forget(self) -> None:
        if self._files is not None:
            self._files.discard()
        self._files = None
        self._changes = []
        self._prepared = []

    # -- rows --------------------------------------------------------------------------------------------------------

    def write(self, batch: Any) -> None:
        """Take a frame."""
        self._add(batch, is_deleted=False)

    def delete(self, batch: Any) -> None:
        """Delete the rows of the keys of a frame."""
        self._add(batch, is_deleted=True)

    def _add(self, batch: Any, *, is_deleted: bool) -> None:
        table = exact_rows(batch, self._columns, self._keys or [])
        if self._keys is None:
            if self._files is None:
                self._files = FileWriter(self._path, self._columns, self._partitions)
            self._files.write(table)
        else:
            self._check_partitions(table)
            self._changes.append((table, is_deleted))

    def _check_partitions(self, table: Any) -> None:
        for name in set(self._partitions) & set(table.column_names):
            for value in table.column(name).unique().to_pylist():
                partition_text(value, name)

    # -- an epoch ----------------------------------------------------------------------------------------------------

    def pre_commit(self, epoch: int) -> bytes | None:
        """Make the rows of an epoch durable: in files, or in the handle. There is always a handle, which has the mark."""
        handle: dict[str, Any] = {"table": self._table_id, "mark": self._custody.mark(epoch).to_json()}
        if self._keys is not None:
            if self._changes:
                handle["changes"] = base64.b64encode(packed(last_changes(self._changes, self._keys))).decode()
            self._changes = []
        else:
            files = [] if self._files is None else self._files.finish()
            self._files = None
            self._prepared += files
            if files or self._mode == "overwrite":
                handle["files"] = files
        return json.dumps(handle).encode()

    def commit(self, handles: Sequence[tuple[int, bytes]]) -> None:
        """Write one transaction for each epoch that has rows and is not there yet."""
        found = [json.loads(handle) for _, handle in sorted(handles, key=lambda pair: pair[0])]
        newest = max((handle["mark"][1] for handle in found), default=0)
        for handle in found:
            if "files" not in handle and "changes" not in handle:
                continue
            mark = Mark.from_json(handle["mark"])
            self._commit(handle, mark, newest)
            self._custody.committed(mark)
            done = {file["path"] for file in handle.get("files", ())}
            self._prepared = [file for file in self._prepared if file["path"] not in done]

    def _commit(self, handle: dict[str, Any], mark: Mark, newest: int) -> None:
        errors = deltalake("write_delta").exceptions
        end = time.monotonic() + _ATTEMPT_SECONDS_MAX
        pause = _PAUSE_SECONDS_MIN
        lost: Exception | None = None
        while True:
            table = self._required()
            if self._custody.is_shown(mark, table.transaction_version, newest=newest):
                # Who wrote it may have died before it was durable.
                self._sync(range(max(0, table.version() - _SYNCED_VERSIONS), table.version() + 1) if lost is None else [table.version()])
                return
            if lost is not None:
                if time.monotonic() > end:
                    raise ConnectorError(
                        f"the commit was tried for {_ATTEMPT_SECONDS_MAX:.0f} seconds, and other writers came before it: {reason(lost)}"
                    ) from lost
                self._waits.pause(random.uniform(0, pause))
                pause = min(pause * 2, _PAUSE_SECONDS_MAX)
            try:
                version = table.version() + 1
                self._write(table, handle, mark)
                self._sync([version])
                return
            except errors.CommitFailedError as error:
                # Another writer was first. The package would try again without asking whether it was this epoch that was written.
                lost = error
            except errors.DeltaError as error:
                lost = error
                if not self._custody.is_shown(mark, self._required().transaction_version, newest=newest):
                    raise ConnectorError(f"the table cannot be written: {reason(error)}") from error

    def _write(self, table: Any, handle: dict[str, Any], mark: Mark) -> None:
        """Try to write a transaction as the next version of a table."""
        package = deltalake("write_delta")
        marks = [package.Transaction(mark.run, mark.epoch, time.time_ns() // 1_000_000)]
        closed = self._custody.closes(mark)
        if closed is not None:
            marks.append(package.Transaction(closed, CLOSED, time.time_ns() // 1_000_000))
        properties = package.CommitProperties(app_transactions=marks, max_commit_retries=0)
        if "files" in handle:
            actions = [self._action(file) for file in handle["files"]]
            table.create_write_transaction(actions, self._mode, table.schema(), self._partitions, commit_properties=properties)
        elif not self._merge(table, handle["changes"], properties):
            # Nothing has changed, and the package has written nothing: only deletes of keys that are not there.
            table.create_write_transaction([], "append", table.schema(), self._partitions, commit_properties=properties)

    def _action(self, file: DataFile) -> Any:
        from deltalake.transaction import AddAction

        path = os.path.join(self._path, file["path"])
        try:
            size = os.path.getsize(path)
        except OSError as error:
            raise ConnectorError(f"the file {path!r}, which the checkpoint names, cannot be read: {error}") from error
        if size != file["size"]:
            raise ConnectorError(f"the file {path!r} has {size} bytes, and the checkpoint knows {file['size']}")
        return AddAction(file["path"], size, file["partition"], file["modified"], True, file["statistics"])

    def _merge(self, table: Any, stream: str, properties: Any) -> bool:
        """Merge the changes of an epoch into a table; returns whether a transaction was written."""
        changes = unpacked(base64.b64decode(stream))
        deletes = _quoted(changes.schema.names[-1])
        predicate = " and ".join(f"target.{_quoted(name)} = source.{_quoted(name)}" for name in self._keys or [])
        columns = {_quoted(name): f"source.{_quoted(name)}" for name in self._stored.names}
        merger = table.merge(
            changes, predicate, source_alias="source", target_alias="target", streamed_exec=False, commit_properties=properties
        )
        merger = merger.when_matched_delete(f"source.{deletes}").when_matched_update(columns, f"not source.{deletes}")
        done = merger.when_not_matched_insert(columns, f"not source.{deletes}").execute()
        return any(done[f"num_target_rows_{what}"] for what in ("inserted", "updated", "deleted"))

    def _sync(self, versions: Iterable[int]) -> None:
        """Make entries of the log durable; the package leaves that to the system."""
        folder = os.path.join(self._path, "_delta_log")
        for version in versions:
            # Entries that a checkpoint of the log has may be gone.
            with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, f"{version:020}.json"), "rb") as file:
                os.fsync(file.fileno())
        sync_directory(folder)

    # -- the table ---------------------------------------------------------------------------------------------------

    def _required(self) -> Any:
        table = opened(self._path, None, "write_delta")
        if table is None or table.metadata().id != self._table_id:
            raise CheckpointError("the table was removed or replaced by another one while the job was writing it")
        return table

    def _created(self) -> Any:
        package = deltalake("write_delta")
        try:
            return package.DeltaTable.create(self._path, package.Schema.from_arrow(self._stored), partition_by=self._partitions)
        except (package.exceptions.DeltaError, OSError) as error:
            # Another job may have made it meanwhile.
            table = opened(self._path, None, "write_delta")
            if table is None:
                raise ConnectorError(f"the table cannot be created: {reason(error)}") from error
            return table

    def _take(self, table: Any) -> None:
        """Go on with a table, which is compared with the stream again."""
        _check_table(table, self._schema, self._stored, self._keys, self._partitions or None, self._mode, "write_delta")
        self._columns = columns_of(table) if self._keys is None else subset(columns_of(table), self._stored.names)
        self._partitions = list(table.metadata().partition_columns)
        self._table_id = str(table.metadata().id)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
