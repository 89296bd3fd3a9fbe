"""The sink of Iceberg tables: one snapshot for each checkpoint that has rows."""

from __future__ import annotations

import base64
import contextlib
import logging
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from millstream._custody import Mark
from millstream._nearest import did_you_mean
from millstream.errors import CheckpointError, ConnectorError, SchemaError
from millstream.io._iceberg_catalog import (
    CLOSED_MARK,
    CatalogGiven,
    checked_catalog,
    checked_table,
    connected,
    mark_text,
    opened,
    pyiceberg,
    reason,
    shown_in,
)
from millstream.io._iceberg_types import (
    arrow_schema,
    check_fits,
    check_partitions,
    iceberg_schema,
    partition_spec,
    shown_spec,
    stored_schema,
)
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

    from millstream._engine import RawEnding

__all__ = ["iceberg_sink"]

_CALL = "write_iceberg"
_BRANCH = "main"
_FORMAT_VERSION = 2
_PROPERTIES = {"format-version": str(_FORMAT_VERSION), "commit.manifest-merge.enabled": "true"}
"""Of a table that is created. Each commit adds a manifest, and readers read them all: from 100 on they are merged."""
_LOG = logging.getLogger("millstream.iceberg")


def iceberg_sink(
    stream: Stream,
    table: str,
    catalog: CatalogGiven,
    mode: TableMode,
    key: str | Sequence[str] | None,
    partition_by: str | Sequence[str],
) -> Output:
    """Write into an Iceberg table."""
    pyiceberg(_CALL)
    name = checked_table(table, _CALL)
    given = checked_catalog(catalog, _CALL)
    keys, partitions = checked_asked(_CALL, stream, mode, key, partition_by, "day(at)")
    schema = stream.schema
    stored = stored_schema(schema, f"{_CALL}()")
    checked_key(_CALL, stored, schema, keys or [])
    # Checked without the table, too: it may be gone when the job starts.
    partition_spec(partitions, iceberg_schema(stored), _CALL)
    with contextlib.closing(connected(given, _CALL, writes=True)) as own:
        found = opened(own, name, _CALL)
        if found is not None:
            _check_table(found, schema, stored, keys, partitions)
    return table_output(_CALL, stream, table, lambda: _IcebergSink(name, given, schema, stored, mode, keys, partitions), mode, keys)


def _check_table(table: Any, schema: Any, stored: pa.Schema, keys: list[str] | None, partitions: list[str]) -> None:
    """Compare a table with the stream that is written into it."""
    metadata = table.metadata
    if metadata.format_version != _FORMAT_VERSION:
        advice = "upgrade it with pyiceberg's upgrade_table_version(2)" if metadata.format_version < _FORMAT_VERSION else "write into another table"
        raise SchemaError(f"{_CALL}(): the table has version {metadata.format_version} of Iceberg's format, and version 2 is needed; {advice}")
    columns = metadata.schema()
    fields = {field.name: field for field in columns.fields}
    for name, kind in schema.items():
        if name not in fields:
            raise SchemaError(
                f"{_CALL}(): the table has no column {name!r}{did_you_mean(name, list(fields))} (it has {', '.join(fields)}); rename() the column, or "
                "write into another table"
            )
        check_fits(name, kind, stored.field(name).type, fields[name], f"{_CALL}()")
    for name, field in fields.items():
        if name not in schema and field.required:
            raise SchemaError(f"{_CALL}(): column {name!r} of the table is required, and the stream has no such column")
    arrow_schema(columns, f"{_CALL}()")
    spec = metadata.spec()
    check_partitions(spec, columns, f"{_CALL}()")
    if partitions:
        asked = partition_spec(partitions, columns, _CALL)
        if [(field.source_id, str(field.transform)) for field in asked.fields] != [(field.source_id, str(field.transform)) for field in spec.fields]:
            found = f"the partitions {shown_spec(spec, columns)}" if spec.fields else "no partitions"
            raise SchemaError(
                f"{_CALL}(partition_by=…): the table has {found}, not the partitions {', '.join(partitions)}; leave it out to write as the table is"
            )
    settings = metadata.properties
    if settings.get("write.format.default", "parquet").lower() != "parquet":
        raise SchemaError(f"{_CALL}(): the table is written as {settings['write.format.default']} (write.format.default), and this sink writes Parquet")
    if keys is not None and not set(keys) <= set(fields):
        raise SchemaError(f"{_CALL}(key=…): the table does not have all columns of the key")


class _Refused(Exception):
    """The catalog did not confirm a commit: the table had changed, or it is not known. Nothing is tried again, and no file removed, by pyiceberg."""

    def __init__(self, error: Exception, *, is_known: bool) -> None:
        super().__init__(reason(error))
        self.is_known = is_known


class _Conditional:
    """A catalog that commits only if the table is as it was read, and once.

    A transaction of pyiceberg that has lost a race reads the table, adds its files to the new snapshot and commits again. It does not look
    whether the commit that won was of the same epoch. And when it gives up, it removes its manifests, although an answer may have been
    lost. Both happen on a `CommitFailedException` alone, which is therefore replaced.
    """

    def __init__(self, catalog: Any, metadata: Any) -> None:
        self._catalog = catalog
        self._metadata = metadata

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def commit_table(self, table: Any, requirements: tuple[Any, ...], updates: tuple[Any, ...]) -> Any:
        """Commit, or raise."""
        from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
        from pyiceberg.table import update

        # Their constructors take the names of fields, and are typed for those of JSON.
        made: Any = update
        head = self._metadata.snapshot_by_name(_BRANCH)
        wanted = (
            made.AssertTableUUID(uuid=self._metadata.table_uuid),
            made.AssertRefSnapshotId(ref=_BRANCH, snapshot_id=None if head is None else head.snapshot_id),
            made.AssertCurrentSchemaId(current_schema_id=self._metadata.current_schema_id),
            made.AssertDefaultSpecId(default_spec_id=self._metadata.default_spec_id),
        )
        others = tuple(each for each in requirements if type(each) not in {type(own) for own in wanted})
        try:
            return self._catalog.commit_table(table, wanted + others, updates)
        except CommitFailedException as error:
            raise _Refused(error, is_known=True) from error
        except CommitStateUnknownException as error:
            raise _Refused(error, is_known=False) from error


class _IcebergSink(TableSink):
    """The writer and the committer of an Iceberg table, for one run.

    Rows with a key are merged by rewriting the files that have their keys.
    """

    def __init__(
        self,
        name: tuple[str, ...],
        catalog: CatalogGiven,
        schema: Any,
        stored: pa.Schema,
        mode: TableMode,
        keys: list[str] | None,
        partitions: list[str],
    ) -> None:
        super().__init__(schema, stored, mode, keys, partitions)
        self._name = name
        self._given = catalog
        self._catalog: Any = None
        self._table: Any = None

    # -- a run -------------------------------------------------------------------------------------------------------

    def promise(self, delivery: str, restored: int | None, newest: int | None, is_persistent: bool, ending: RawEnding) -> None:
        """Begin the run."""
        self._close_catalog()
        self._catalog = connected(self._given, _CALL, writes=True)
        super().promise(delivery, restored, newest, is_persistent, ending)

    def close(self) -> None:
        """Remove what was written since the last checkpoint."""
        super().close()
        self._close_catalog()

    def _close_catalog(self) -> None:
        if self._catalog is not None:
            self._catalog.close()
        self._catalog = None

    # -- rows --------------------------------------------------------------------------------------------------------

    def _append(self, rows: Any) -> None:
        from millstream.io._iceberg_files import FileWriter

        if self._files is None:
            self._files = FileWriter(self._table.metadata, self._table.io)
        try:
            self._files.write(rows)
        except OSError as error:
            raise ConnectorError(f"a file of the table cannot be written: {reason(error)}") from error

    def _remove(self, path: str) -> None:
        try:
            self._table.io.delete(path)
        except Exception as error:
            _LOG.debug("%s of %s stays: %s", path, ".".join(self._name), error)

    # -- an epoch ----------------------------------------------------------------------------------------------------

    def _finished(self, epoch: int) -> dict[str, Any]:
        from millstream.io._iceberg_files import manifest_of

        metadata = self._table.metadata
        try:
            files = [] if self._files is None else self._files.finish()
        except OSError as error:
            raise ConnectorError(f"a file of the table cannot be written: {reason(error)}") from error
        if not files:
            return {"files": None} if self._mode == "overwrite" else {}
        self._prepared[epoch] = [file.file_path for file in files]
        # What they were written for; a table that has changed since is compared with it.
        schema = metadata.schema().model_dump(mode="json", by_alias=True)
        return {"schema": schema, "spec": metadata.default_spec_id, "files": base64.b64encode(manifest_of(metadata, files)).decode()}

    def _commit(self, handle: dict[str, Any], mark: Mark, newest: int) -> None:
        end = time.monotonic() + ATTEMPT_SECONDS_MAX
        pause = PAUSE_SECONDS_MIN
        attempt: _Attempt | None = None
        lost: Exception | None = None
        while True:
            # Whatever came of an attempt, it may have happened: asking is the only way to know.
            table = self._reached(end)
            is_shown = self._is_shown(table, mark, newest)
            if attempt is not None and lost is not None:
                attempt.failed(lost, table, mark)
            if is_shown:
                return
            if lost is not None:
                self._check_passes(lost, end)
            attempt = _Attempt(self, table)
            try:
                attempt.write(handle, mark)
                return
            except Exception as error:
                lost = error
            self._waits.pause(random.uniform(0, pause))
            pause = min(pause * 2, PAUSE_SECONDS_MAX)

    def _check_passes(self, lost: Exception, end: float) -> None:
        if isinstance(lost, (CheckpointError, ConnectorError)):
            raise lost
        if not _passes(lost):
            raise ConnectorError(f"the table cannot be written: {reason(lost)}") from lost
        if time.monotonic() > end:
            raise ConnectorError(f"the commit was tried for {ATTEMPT_SECONDS_MAX:.0f} seconds, and the table could not be written: {reason(lost)}") from lost

    def _reached(self, end: float) -> Any:
        """Return the table as it is now; a catalog that cannot be reached is tried again."""
        while True:
            try:
                return self._required()
            except ConnectorError as error:
                if isinstance(error, CheckpointError) or time.monotonic() > end or not _passes(error.__cause__):
                    raise
            self._waits.pause(PAUSE_SECONDS_MAX)

    def _is_shown(self, table: Any, mark: Mark, newest: int) -> bool:
        return self._custody.is_shown(mark, self._marks(table), newest=newest)

    # -- the table ---------------------------------------------------------------------------------------------------

    def _found(self) -> Any:
        return opened(self._catalog, self._name, _CALL)

    def _identity(self, table: Any) -> str:
        return str(table.metadata.table_uuid)

    def _marks(self, table: Any) -> Callable[[str], int | None]:
        metadata = table.metadata
        return lambda run: shown_in(metadata, run)

    def _created(self) -> Any:
        from pyiceberg.exceptions import NoSuchNamespaceError, TableAlreadyExistsError

        columns = iceberg_schema(self._stored)
        spec = partition_spec(self._partitions, columns, _CALL)
        for _ in range(2):
            try:
                return self._catalog.create_table(self._name, columns, partition_spec=spec, properties=_PROPERTIES)
            except NoSuchNamespaceError:
                self._catalog.create_namespace_if_not_exists(self._name[:-1])
            except TableAlreadyExistsError:
                # Another job has made it meanwhile.
                break
            except Exception as error:
                raise ConnectorError(f"the table cannot be created: {reason(error)}") from error
        table = self._found()
        if table is None:
            raise ConnectorError(f"the table cannot be created: the namespace {'.'.join(self._name[:-1])!r} does not exist")
        return table

    def _take(self, table: Any) -> None:
        """Go on with a table, which is compared with the stream again."""
        _check_table(table, self._schema, self._stored, self._keys, self._partitions)
        columns = arrow_schema(table.metadata.schema(), f"{_CALL}()")
        if self._keys is not None:
            import pyarrow as pa

            # The others keep the values that they have.
            columns = pa.schema([columns.field(name) for name in self._stored.names])
        self._columns = columns
        self._table = table
        self._table_id = self._identity(table)


class _Attempt:
    """One try to commit an epoch, on top of the table as it was read."""

    def __init__(self, sink: _IcebergSink, table: Any) -> None:
        from millstream.io._iceberg_io import RecordedFiles

        self._sink = sink
        self._table = table
        self._files = RecordedFiles(table.io)
        self._snapshot: int | None = None

    def write(self, handle: dict[str, Any], mark: Mark) -> None:
        """Commit the rows of an epoch and its mark."""
        from pyiceberg.table import Table

        table, sink = self._table, self._sink
        metadata = table.metadata
        change = self._change(handle)
        catalog: Any = _Conditional(sink._catalog, metadata)
        own = Table(table.name(), metadata, table.metadata_location, self._files, catalog, table.config)
        transaction = own.transaction()
        update = transaction.update_snapshot({"millstream.run": mark.run, "millstream.epoch": str(mark.epoch)}, branch=_BRANCH)
        merges = metadata.properties.get("commit.manifest-merge.enabled", "false").lower() == "true"
        # An epoch that changes nothing has a snapshot, too: commits that expect the same snapshot exclude each other.
        snapshot = update.overwrite() if change.removed else update.merge_append() if merges else update.fast_append()
        with snapshot:
            for file in change.removed:
                snapshot.delete_data_file(file)
            for file in change.added:
                snapshot.append_data_file(file)
        self._snapshot = snapshot.snapshot_id
        marks = {mark.run: mark_text(mark.epoch, snapshot.snapshot_id, metadata.next_sequence_number())}
        closed = sink._custody.closes(mark)
        if closed is not None:
            marks[closed] = CLOSED_MARK
        transaction.set_properties(marks)
        transaction.commit_transaction()

    def _change(self, handle: dict[str, Any]) -> Any:
        """Return the files to remove and to add."""
        from millstream.io._iceberg_files import Rewritten, files_of, rewritten, tasks_of

        table, sink = self._table, self._sink
        metadata = table.metadata
        if "changes" in handle:
            columns = arrow_schema(metadata.schema(), f"{_CALL}()")
            changes = changes_of(handle)
            _check_unchanged(changes.schema.names[:-1], changes.schema, columns)
            return rewritten(table, self._files, columns, changes, sink._keys or [])
        added = []
        if handle["files"] is not None:
            _check_written(handle, metadata)
            added = files_of(base64.b64decode(handle["files"]), handle["spec"])
            for file in added:
                self._check_file(file)
        if sink._mode == "append":
            return Rewritten([], added)
        head = metadata.snapshot_by_name(_BRANCH)
        return Rewritten([task.file for task in tasks_of(table, None if head is None else head.snapshot_id)], added)

    def _check_file(self, file: Any) -> None:
        try:
            size = len(self._table.io.new_input(file.file_path))
        except OSError as error:
            raise ConnectorError(f"the file {file.file_path!r}, which the checkpoint names, cannot be read: {reason(error)}") from error
        if size != file.file_size_in_bytes:
            raise ConnectorError(f"the file {file.file_path!r} has {size} bytes, and the checkpoint knows {file.file_size_in_bytes}")

    def failed(self, error: Exception, now: Any, mark: Mark) -> None:
        """Remove what was written, if it is in no snapshot and can come into none any more: the one that it was to follow is not the newest."""
        value = now.metadata.properties.get(mark.run)
        has_landed = value is not None and value.split("/")[1:2] == [str(self._snapshot)]
        before, after = (each.metadata.snapshot_by_name(_BRANCH) for each in (self._table, now))
        has_moved = (None if before is None else before.snapshot_id) != (None if after is None else after.snapshot_id)
        if isinstance(error, _Refused) and error.is_known and has_moved and not has_landed:
            self._files.discard()


def _passes(error: BaseException | None) -> bool:
    """Return whether another try may succeed: the table has changed, an answer was lost, or a server or a database is busy."""
    from pyiceberg.exceptions import ServiceUnavailableError, TooManyRequestsError

    busy: list[type[BaseException]] = [_Refused, ServiceUnavailableError, TooManyRequestsError, ConnectionError, TimeoutError]
    # Of packages that only some catalogs need.
    for module, name in (("sqlalchemy.exc", "OperationalError"), ("requests.exceptions", "ConnectionError"), ("requests.exceptions", "Timeout")):
        if module in sys.modules:
            busy.append(getattr(sys.modules[module], name))
    return isinstance(error, tuple(busy))


def _check_written(handle: dict[str, Any], metadata: Any) -> None:
    """Refuse files that the table can hold no more, because its columns or partitions were changed after they were written."""
    from pyiceberg.schema import Schema

    advice = "undo that, and start the job again"
    if handle["spec"] != metadata.default_spec_id:
        raise CheckpointError(f"the partitions of the table were changed while rows for it were pending; {advice}")
    written = {field.field_id: field for field in Schema.model_validate(handle["schema"]).fields}
    for field in metadata.schema().fields:
        before = written.get(field.field_id)
        if before is None:
            if field.required:
                raise CheckpointError(f"column {field.name!r} of the table was added and is required, while rows without it were pending; {advice}")
        elif before.field_type != field.field_type or (field.required and not before.required):
            raise CheckpointError(f"column {field.name!r} of the table was changed while rows for it were pending; {advice}")


def _check_unchanged(names: Sequence[str], written: pa.Schema, columns: pa.Schema) -> None:
    for name in names:
        if name not in columns.names or columns.field(name).type != written.field(name).type:
            raise CheckpointError(f"column {name!r} of the table was changed while rows for it were pending; undo that, and start the job again")
