"""The source of Iceberg tables: the files of one snapshot."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millstream._counts import count
from millstream._engine import RawStream
from millstream._nearest import did_you_mean
from millstream._texts import texts
from millstream.errors import ConnectorError, SchemaError
from millstream.io._iceberg_catalog import CatalogGiven, checked_catalog, checked_table, connected, opened, pyiceberg, reason
from millstream.io._iceberg_types import arrow_schema, arrow_type
from millstream.io.sources import Source, SourceReader, _SourceAdapter
from millstream.stream import Stream
from millstream.types import schema_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["iceberg_source"]

_CALL = "read_iceberg"


def iceberg_source(table: str, catalog: CatalogGiven, snapshot: int | None, columns: str | Sequence[str] | None) -> Stream:
    """Read a snapshot of a table."""
    pyiceberg(_CALL)
    name = checked_table(table, _CALL)
    given = checked_catalog(catalog, _CALL)
    wanted = None if snapshot is None else count(snapshot, f"{_CALL}(snapshot=…) takes the id of a snapshot", most=2**63 - 1)
    with contextlib.closing(connected(given, _CALL)) as own:
        found = opened(own, name, _CALL)
        if found is None:
            raise ConnectorError(f"{_CALL}(): the catalog has no table {table!r}")
        metadata = found.metadata
        if wanted is not None and metadata.snapshot_by_id(wanted) is None:
            raise ConnectorError(f"{_CALL}(snapshot=…): the table {table!r} has no snapshot {wanted}; {_listed(metadata)}")
        current = metadata.snapshot_by_name("main")
        if wanted is None and current is not None:
            wanted = current.snapshot_id
        whole = _columns_of(metadata, wanted)
        names = [field.name for field in whole.fields]
        chosen = names if columns is None else texts(columns, f"{_CALL}(columns=…)", "price")
        for each in chosen:
            if each not in names:
                raise SchemaError(f"{_CALL}(columns=…): the table has no column {each!r}{did_you_mean(each, names)} (it has {', '.join(names)})")
        source = _IcebergSource(name, given, str(metadata.table_uuid), wanted, _read_schema(whole, chosen))
        # What cannot be read is an error here, not when the job runs.
        _tasks(found, wanted)
    adapter = _SourceAdapter(source)
    return Stream(RawStream.from_python(adapter, f'{_CALL}("{table}")', schema_of(source.schema)._raw, True, True))


def _listed(metadata: Any) -> str:
    found = [str(each.snapshot_id) for each in metadata.snapshots]
    if not found:
        return "it has none"
    return f"it has {', '.join(found[-5:])}{' and older ones' if len(found) > 5 else ''}"


def _columns_of(metadata: Any, snapshot: int | None) -> Any:
    """Return the columns that a snapshot was written with."""
    found = None if snapshot is None else metadata.snapshot_by_id(snapshot)
    own = None if found is None or found.schema_id is None else metadata.schema_by_id(found.schema_id)
    return metadata.schema() if own is None else own


def _read_schema(columns: Any, names: list[str]) -> pa.Schema:
    import pyarrow as pa

    chosen = type(columns)(*(columns.find_field(name) for name in names))
    # Whether a column is null is no part of a stream's schema.
    return pa.schema([pa.field(field.name, field.type) for field in arrow_schema(chosen, f"{_CALL}()")])


def _tasks(table: Any, snapshot: int | None) -> list[Any]:
    """Return the files of a snapshot in the order in which they were written."""
    from pyiceberg.manifest import ManifestContent

    if snapshot is None:
        return []
    try:
        found = list(table.scan(snapshot_id=snapshot).plan_files())
        written: dict[str, int] = {}
        for manifest in table.metadata.snapshot_by_id(snapshot).manifests(table.io):
            if manifest.content == ManifestContent.DATA:
                for entry in manifest.fetch_manifest_entry(table.io):
                    written[entry.data_file.file_path] = entry.sequence_number or 0
    except Exception as error:
        raise ConnectorError(f"{_CALL}(): snapshot {snapshot} of the table {'.'.join(table.name())!r} cannot be read: {reason(error)}") from error
    return sorted(found, key=lambda task: (written.get(task.file.file_path, 0), task.file.file_path))


class _IcebergSource(Source):
    """The files of one snapshot, one after the other."""

    def __init__(self, name: tuple[str, ...], catalog: CatalogGiven, table_id: str, snapshot: int | None, schema: pa.Schema) -> None:
        self._name = name
        self._given = catalog
        self._table_id = table_id
        self._snapshot = snapshot
        self.schema = schema

    def open(self, partition: str, position: Any | None) -> SourceReader:
        """Open the snapshot that was begun with."""
        snapshot = self._snapshot if position is None else position["snapshot"]
        shown = ".".join(self._name)
        catalog = connected(self._given, _CALL)
        try:
            table = opened(catalog, self._name, _CALL)
            if table is None or str(table.metadata.table_uuid) != (self._table_id if position is None else position["table"]):
                began = "the stream was declared" if position is None else "the checkpoint was made"
                raise ConnectorError(f"{_CALL}(): the table {shown!r} is not the one that {began} with")
            if snapshot is not None and table.metadata.snapshot_by_id(snapshot) is None:
                raise ConnectorError(
                    f"{_CALL}(): snapshot {snapshot} of the table {shown!r}, which the job began with, has expired; start with a new checkpoint "
                    "path to read a newer one"
                )
            whole = {field.name: arrow_type(field.field_type) for field in _columns_of(table.metadata, snapshot).fields}
            for field in self.schema:
                if whole.get(field.name) != field.type:
                    raise ConnectorError(f"{_CALL}(): column {field.name!r} of the table is another one in snapshot {snapshot}, which the job began with")
            return _IcebergReader(catalog, table, snapshot, self.schema, position)
        except BaseException:
            catalog.close()
            raise


class _IcebergReader(SourceReader):
    """Reads files in the order in which they were written, and counts rows."""

    def __init__(self, catalog: Any, table: Any, snapshot: int | None, schema: pa.Schema, position: Any | None) -> None:
        from pyiceberg.expressions import AlwaysTrue
        from pyiceberg.io.pyarrow import ArrowScan

        self._catalog = catalog
        self._table = str(table.metadata.table_uuid)
        self._snapshot = snapshot
        self._schema = schema
        whole = _columns_of(table.metadata, snapshot)
        self._scan = ArrowScan(table.metadata, table.io, type(whole)(*(whole.find_field(name) for name in schema.names)), AlwaysTrue())
        self._tasks = _tasks(table, snapshot)
        self._file = 0 if position is None else int(position["file"])
        self._rows = 0
        self._batches: Any = None
        self._skip = 0 if position is None else int(position["rows"])

    def next_batch(self) -> Any:
        """Return the next rows."""
        while self._file < len(self._tasks):
            task = self._tasks[self._file]
            try:
                if self._batches is None:
                    self._batches = self._scan.to_record_batches([task])
                batch = next(self._batches, None)
            except Exception as error:
                raise ConnectorError(
                    f"{_CALL}(): {task.file.file_path!r} of snapshot {self._snapshot} cannot be read: {reason(error)}; if the snapshot was removed, start "
                    "with a new checkpoint path"
                ) from error
            if batch is None:
                self._file, self._rows, self._skip, self._batches = self._file + 1, 0, 0, None
                continue
            passed = min(self._skip, batch.num_rows)
            self._skip -= passed
            self._rows += batch.num_rows
            if passed < batch.num_rows:
                return self._plain(batch.slice(passed))
        return None

    def _plain(self, batch: Any) -> Any:
        """Return a batch with the types of the stream."""
        import pyarrow as pa

        [plain] = pa.Table.from_batches([batch]).cast(self._schema).combine_chunks().to_batches()
        return plain

    def position(self) -> Any:
        """Return the snapshot, the file, and how many of its rows were read."""
        return {"table": self._table, "snapshot": self._snapshot, "file": self._file, "rows": self._rows}

    def close(self) -> None:
        """Let go of the files and of the catalog."""
        self._batches = None
        self._tasks = []
        self._catalog.close()
