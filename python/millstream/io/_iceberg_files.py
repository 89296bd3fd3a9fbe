"""Data files of an Iceberg table: written before the table names them, and rewritten where rows of a key change."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from millstream.io._iceberg_io import MemoryFiles

__all__ = ["FileWriter", "Rewritten", "files_of", "manifest_of", "rewritten", "tasks_of"]

_BUFFERED_BYTES_MAX = 128 << 20
"""How many bytes of rows wait in memory until files are written."""
_FILE_BYTES = 512 << 20
"""How many bytes of rows, in memory, a file has at most."""
_MANIFEST = "manifest.avro"


class FileWriter:
    """Writes rows into new files of a table, one or more for each partition. Nothing names them until the table does."""

    def __init__(self, metadata: Any, files: Any) -> None:
        self._metadata = metadata
        self._files = files
        self._name = uuid.uuid4()
        self._tasks = 0
        self._waiting: list[Any] = []
        self._waiting_bytes = 0
        self._written: list[Any] = []

    def write(self, table: Any) -> None:
        """Take rows, with the columns of the table."""
        self._waiting.append(table)
        self._waiting_bytes += table.nbytes
        if self._waiting_bytes >= _BUFFERED_BYTES_MAX:
            self._flush()

    def finish(self) -> list[Any]:
        """Complete all files, and return them as ``pyiceberg.manifest.DataFile``."""
        self._flush()
        return self._written

    def discard(self) -> None:
        """Remove all files."""
        for file in self._written:
            with contextlib.suppress(Exception):
                self._files.delete(file.file_path)

    def _flush(self) -> None:
        import pyarrow as pa
        from pyiceberg.io.pyarrow import write_file

        if not self._waiting:
            return
        rows = pa.concat_tables(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        # The files of one call are written by threads; each is durable when it returns.
        self._written += write_file(self._files, self._metadata, self._tasks_of(rows))

    def _tasks_of(self, rows: Any) -> Iterator[Any]:
        from pyiceberg.table import WriteTask

        for key, part in _parts(self._metadata, rows):
            bytes_per_row = max(1, part.nbytes // max(1, part.num_rows))
            step = max(1, _FILE_BYTES // bytes_per_row)
            for start in range(0, part.num_rows, step):
                batches = part.slice(start, step).combine_chunks().to_batches()
                yield WriteTask(self._name, self._tasks, self._metadata.schema(), batches, partition_key=key)
                self._tasks += 1


def _parts(metadata: Any, rows: Any) -> Iterator[tuple[Any, Any]]:
    """Return rows by partition."""
    import pyarrow as pa
    from pyiceberg.partitioning import PartitionFieldValue, PartitionKey

    spec, schema = metadata.spec(), metadata.schema()
    if rows.num_rows == 0:
        return
    if spec.is_unpartitioned():
        yield None, rows
        return
    keyed = {}
    for at, field in enumerate(spec.fields):
        source = schema.find_field(field.source_id)
        column = rows.column(source.name).combine_chunks()
        keyed[f"key{at}"] = field.transform.pyarrow_transform(source.field_type)(column) if str(field.transform) != "void" else pa.nulls(len(column), pa.int32())
    names = list(keyed)
    numbered = pa.table({**keyed, "row": pa.array(range(rows.num_rows), type=pa.int64())})
    for found in numbered.group_by(names, use_threads=False).aggregate([("row", "list")]).to_pylist():
        values = [PartitionFieldValue(field, found[name]) for field, name in zip(spec.fields, names, strict=True)]
        yield PartitionKey(values, spec, schema), rows.take(pa.array(found["row_list"], type=pa.int64()))


# -- files in a handle -----------------------------------------------------------------------------------------------------


def manifest_of(metadata: Any, files: Sequence[Any]) -> bytes:
    """Return files as a manifest of Iceberg: what a checkpoint keeps of them."""
    from pyiceberg.manifest import ManifestEntry, ManifestEntryStatus, write_manifest

    memory = MemoryFiles()
    with write_manifest(metadata.format_version, metadata.spec(), metadata.schema(), memory.new_output(_MANIFEST), 0, "deflate") as writer:
        for file in files:
            writer.add(
                ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=0, sequence_number=None, file_sequence_number=None, data_file=file)
            )
    return memory.files[_MANIFEST]


def files_of(manifest: bytes, spec_id: int) -> list[Any]:
    """Return the files of a manifest."""
    from pyiceberg.manifest import ManifestContent, ManifestFile

    found = ManifestFile.from_args(
        manifest_path=_MANIFEST,
        manifest_length=len(manifest),
        partition_spec_id=spec_id,
        content=ManifestContent.DATA,
        sequence_number=0,
        min_sequence_number=0,
        added_snapshot_id=0,
    )
    return [entry.data_file for entry in found.fetch_manifest_entry(MemoryFiles({_MANIFEST: manifest}))]


# -- rows that change ------------------------------------------------------------------------------------------------------


class Rewritten:
    """What a snapshot removes and adds."""

    def __init__(self, removed: list[Any], added: list[Any]) -> None:
        self.removed = removed
        self.added = added


def tasks_of(table: Any, snapshot: int | None, row_filter: Any = None) -> list[Any]:
    """Return the files of a snapshot, with the deletes that apply to them."""
    from pyiceberg.expressions import AlwaysTrue

    if snapshot is None:
        return []
    return list(table.scan(row_filter=AlwaysTrue() if row_filter is None else row_filter, snapshot_id=snapshot).plan_files())


def rewritten(table: Any, files: Any, columns: Any, changes: Any, keys: list[str]) -> Rewritten:
    """Write the files of a table that have changed keys again.

    Parameters
    ----------
    table
        The table; its newest snapshot is read.
    files
        Where its files are written.
    columns
        The columns of the table, as a ``pyarrow.Schema``.
    changes
        The last change of each key; its last column says whether the key is deleted.
    keys
        The columns of the key.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    metadata = table.metadata
    head = metadata.snapshot_by_name("main")
    deletes = changes.column(changes.num_columns - 1)
    writer = FileWriter(metadata, files)
    removed = []
    is_new = pa.array([True] * changes.num_rows)
    change_keys = _numbered(changes, keys, "change")
    for task in tasks_of(table, None if head is None else head.snapshot_id, _bounds(changes, keys)):
        rows = _rows_of(table, task, columns)
        pairs = _numbered(rows, keys, "row").join(change_keys, list(map(str, range(len(keys)))), join_type="inner").sort_by("row")
        if pairs.num_rows == 0:
            continue
        removed.append(task.file)
        is_new = _without(is_new, pairs["change"])
        writer.write(rows.filter(_without(pa.array([True] * rows.num_rows), pairs["row"])))
        kept = pairs.filter(pc.invert(deletes.take(pairs["change"])))
        if kept.num_rows:
            writer.write(_joined(columns, changes.take(kept["change"]), rows.take(kept["row"])))
    added = changes.filter(pc.and_(is_new, pc.invert(deletes)))
    if added.num_rows:
        writer.write(_joined(columns, added, None))
    return Rewritten(removed, writer.finish())


def _numbered(rows: Any, keys: list[str], name: str) -> Any:
    """Return the columns of a key by their numbers, with the number of each row."""
    import pyarrow as pa

    columns = {str(at): rows.column(key) for at, key in enumerate(keys)}
    return pa.table({**columns, name: pa.array(range(rows.num_rows), type=pa.int64())})


def _rows_of(table: Any, task: Any, columns: Any) -> Any:
    """Return the rows of a file."""
    import pyarrow as pa
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    scan = ArrowScan(table.metadata, table.io, table.metadata.schema(), AlwaysTrue())
    batches = [pa.Table.from_batches([batch]).cast(columns) for batch in scan.to_record_batches([task])]
    return pa.concat_tables(batches) if batches else columns.empty_table()


def _joined(columns: Any, changes: Any, old: Any) -> Any:
    """Return changed rows; columns that the stream has not keep their values."""
    import pyarrow as pa

    found = []
    for field in columns:
        if field.name in changes.column_names[:-1]:
            found.append(changes.column(field.name))
        else:
            found.append(pa.nulls(changes.num_rows, field.type) if old is None else old.column(field.name))
    return pa.Table.from_arrays(found, schema=columns)


def _without(mask: Any, numbers: Any) -> Any:
    """Return a mask that is false at these places, too."""
    import pyarrow as pa
    import pyarrow.compute as pc

    places = pa.array(range(len(mask)), type=pa.int64())
    return pc.and_(mask, pc.invert(pc.is_in(places, value_set=numbers.combine_chunks())))


def _bounds(changes: Any, keys: list[str]) -> Any:
    """Return a filter that all rows of these keys pass: files that have none are not read."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyiceberg import expressions

    # Their constructors are typed for the classes that they are validated into.
    made: Any = expressions
    found = []
    for name in keys:
        kind = changes.schema.field(name).type
        if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_date(kind):
            bounds = pc.min_max(changes.column(name)).as_py()
            found += [made.GreaterThanOrEqual(name, bounds["min"]), made.LessThanOrEqual(name, bounds["max"])]
    return None if not found else found[0] if len(found) == 1 else made.And(*found)
