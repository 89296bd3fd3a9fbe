"""The sink of Delta tables: one transaction for each checkpoint that has rows."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from millstream._custody import CLOSED, Mark
from millstream._nearest import did_you_mean
from millstream._paths import local_path
from millstream.errors import ConnectorError, PlanError, SchemaError
from millstream.io._delta_files import DataFile, FileWriter, partition_text, sync_directory
from millstream.io._delta_table import columns_of, deltalake, opened, reason, subset
from millstream.io._delta_types import check_fits, stored_schema
from millstream.io._table_sink import (
    ATTEMPT_SECONDS_MAX,
    PAUSE_SECONDS_MAX,
    PAUSE_SECONDS_MIN,
    TableMode,
    TableSink,
    changes_of,
    checked_asked,
    checked_key,
    table_output,
)
from millstream.io.sinks import Output
from millstream.stream import Stream

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["delta_sink"]

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
_LOG = logging.getLogger("millstream.delta")


def delta_sink(
    stream: Stream,
    path: str | os.PathLike[str],
    mode: TableMode,
    key: str | Sequence[str] | None,
    partition_by: str | Sequence[str],
) -> Output:
    """Write into a Delta table."""
    call = "write_delta"
    deltalake(call)
    where = local_path(path, f"{call}()")
    keys, partitions = checked_asked(call, stream, mode, key, partition_by, "day")
    schema = stream.schema
    stored = stored_schema(schema, f"{call}()")
    checked_key(call, stored, schema, keys or [])
    _check_partitions(stored, schema, partitions, call)
    table = opened(where, None, call)
    if table is not None:
        _check_table(table, schema, stored, keys, partitions if partition_by else None, mode, call)
    return table_output(call, stream, os.fspath(path), lambda: _DeltaSink(where, schema, stored, mode, keys, partitions), mode, keys)


def _check_partitions(stored: pa.Schema, schema: Any, partitions: list[str], call: str) -> None:
    import pyarrow as pa

    for name in partitions:
        if name not in schema:
            raise SchemaError(f"{call}(partition_by=…): there is no column {name!r}{did_you_mean(name, schema)}")
    if len(set(partitions)) < len(partitions):
        raise PlanError(f"{call}(partition_by=…) names a column twice")
    for name in partitions:
        kind = stored.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_date(kind)):
            raise SchemaError(f"{call}(partition_by=…): column {name!r} is {schema[name]!r}; a partition is of text, whole numbers, booleans or dates")
    if partitions and len(partitions) == len(stored.names):
        raise SchemaError(f"{call}(partition_by=…) names all columns; a file needs at least one that is the same in no directory")


def _check_table(
    table: Any, schema: Any, stored: pa.Schema, keys: list[str] | None, partitions: list[str] | None, mode: TableMode, call: str
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


def _check_features(table: Any, keys: list[str] | None, mode: TableMode, call: str) -> None:
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


class _DeltaSink(TableSink):
    """The writer and the committer of a Delta table, for one run."""

    def __init__(self, path: str, schema: Any, stored: pa.Schema, mode: TableMode, keys: list[str] | None, partitions: list[str]) -> None:
        super().__init__(schema, stored, mode, keys, partitions)
        self._path = path

    # -- rows --------------------------------------------------------------------------------------------------------

    def _append(self, rows: Any) -> None:
        if self._files is None:
            self._files = FileWriter(self._path, self._columns, self._partitions)
        self._files.write(rows)

    def _check(self, rows: Any) -> None:
        for name in set(self._partitions) & set(rows.column_names):
            for value in rows.column(name).unique().to_pylist():
                partition_text(value, name)

    def _remove(self, path: str) -> None:
        try:
            os.unlink(os.path.join(self._path, path))
        except OSError as error:
            _LOG.debug("%s of %s stays: %s", path, self._path, error)

    # -- an epoch ----------------------------------------------------------------------------------------------------

    def _finished(self, epoch: int) -> dict[str, Any]:
        files: list[DataFile] = [] if self._files is None else self._files.finish()
        if files:
            self._prepared[epoch] = [file["path"] for file in files]
        return {"files": files} if files or self._mode == "overwrite" else {}

    def _commit(self, handle: dict[str, Any], mark: Mark, newest: int) -> None:
        errors = deltalake("write_delta").exceptions
        end = time.monotonic() + ATTEMPT_SECONDS_MAX
        pause = PAUSE_SECONDS_MIN
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
                        f"the commit was tried for {ATTEMPT_SECONDS_MAX:.0f} seconds, and other writers came before it: {reason(lost)}"
                    ) from lost
                self._waits.pause(random.uniform(0, pause))
                pause = min(pause * 2, PAUSE_SECONDS_MAX)
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
        elif not self._merge(table, changes_of(handle), properties):
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

    def _merge(self, table: Any, changes: Any, properties: Any) -> bool:
        """Merge the changes of an epoch into a table; returns whether a transaction was written."""
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

    def _found(self) -> Any:
        return opened(self._path, None, "write_delta")

    def _identity(self, table: Any) -> str:
        return str(table.metadata().id)

    def _marks(self, table: Any) -> Callable[[str], int | None]:
        return table.transaction_version  # type: ignore[no-any-return]

    def _created(self) -> Any:
        package = deltalake("write_delta")
        try:
            return package.DeltaTable.create(self._path, package.Schema.from_arrow(self._stored), partition_by=self._partitions)
        except (package.exceptions.DeltaError, OSError) as error:
            # Another job may have made it meanwhile.
            table = self._found()
            if table is None:
                raise ConnectorError(f"the table cannot be created: {reason(error)}") from error
            return table

    def _take(self, table: Any) -> None:
        """Go on with a table, which is compared with the stream again."""
        _check_table(table, self._schema, self._stored, self._keys, self._partitions or None, self._mode, "write_delta")
        self._columns = columns_of(table) if self._keys is None else subset(columns_of(table), self._stored.names)
        self._partitions = list(table.metadata().partition_columns)
        self._table_id = self._identity(table)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
