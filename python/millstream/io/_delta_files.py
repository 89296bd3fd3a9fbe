"""Data files of a Delta table: written before the log names them, and described as the log describes them."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Any, TypedDict
from urllib.parse import quote

from millstream.errors import DataError

__all__ = ["DataFile", "FileWriter", "partition_text", "sync_directory"]

_ROWS_PER_GROUP = 1 << 17
_BUFFERED_ROWS_MAX = 1 << 20
"""How many rows wait in memory, over all partitions."""
_OPEN_FILES_MAX = 64
_FILE_BYTES = 256 << 20
"""After how many bytes a file is complete."""
_STATISTICS_COLUMNS_MAX = 32
_STATISTICS_TEXT_MAX = 32
_DIRECTORY_CHARACTERS_MAX = 200
_MILLISECOND = timedelta(milliseconds=1)


class DataFile(TypedDict):
    """A file as a handle has it."""

    path: str
    size: int
    modified: int
    partition: dict[str, str | None]
    statistics: str


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def partition_text(value: Any, name: str) -> str | None:
    """Return the value of a partition column as the log has it.

    Raises
    ------
    DataError
        When it is empty text, which Delta does not tell from null.
    """
    if value is None:
        return None
    if value == "":
        raise DataError(f"column {name!r} is an empty text, and as a partition Delta Lake does not tell it from null")
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)


class FileWriter:
    """Writes the rows of one epoch into new files of a table, one or more for each partition.

    Rows wait in memory until there are enough of them for a row group. Nothing names the files until the log does.
    """

    def __init__(self, root: str, schema: Any, partition_by: list[str]) -> None:
        self._root = root
        self._partition_by = partition_by
        self._columns = [field for field in schema if field.name not in partition_by]
        self._waiting: dict[tuple[str | None, ...], list[Any]] = {}
        self._waiting_rows = 0
        self._open: dict[tuple[str | None, ...], _OpenFile] = {}
        self._written: list[DataFile] = []
        self._paths: list[str] = []

    def write(self, table: Any) -> None:
        """Take rows, with the columns of the table."""
        for key, rows in self._parts(table):
            waiting = self._waiting.setdefault(key, [])
            waiting.append(rows)
            self._waiting_rows += rows.num_rows
            if sum(part.num_rows for part in waiting) >= _ROWS_PER_GROUP:
                self._flush(key)
        if self._waiting_rows > _BUFFERED_ROWS_MAX:
            for key in list(self._waiting):
                self._flush(key)

    def finish(self) -> list[DataFile]:
        """Complete all files, and return them once they are durable."""
        for key in list(self._waiting):
            self._flush(key)
        for key in list(self._open):
            self._complete(key)
        for directory in sorted({os.path.dirname(os.path.join(self._root, file["path"])) for file in self._written}):
            sync_directory(directory)
        if self._written:
            sync_directory(self._root)
        return self._written

    def discard(self) -> None:
        """Remove all files."""
        for file in self._open.values():
            with contextlib.suppress(Exception):
                file.writer.close()
        for path in self._paths:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._root, path))

    def _parts(self, table: Any) -> Iterator[tuple[tuple[str | None, ...], Any]]:
        import pyarrow as pa

        if not self._partition_by:
            yield (), table
            return
        numbers = pa.array(range(table.num_rows), type=pa.int64())
        keyed = table.select(self._partition_by).append_column("__rows", numbers)
        grouped = keyed.group_by(self._partition_by, use_threads=False).aggregate([("__rows", "list")])
        rest = table.select([field.name for field in self._columns])
        for row in grouped.to_pylist():
            key = tuple(partition_text(row[name], name) for name in self._partition_by)
            yield key, rest.take(pa.array(row["__rows_list"], type=pa.int64()))

    def _flush(self, key: tuple[str | None, ...]) -> None:
        import pyarrow as pa

        parts = self._waiting.pop(key, [])
        if not parts:
            return
        rows = pa.concat_tables(parts)
        self._waiting_rows -= rows.num_rows
        file = self._open.pop(key, None)
        if file is None:
            if len(self._open) >= _OPEN_FILES_MAX:
                self._complete(next(iter(self._open)))
            file = _OpenFile(self._root, self._directory(key), pa.schema(self._columns))
            self._paths.append(file.path)
        # The one that was written last is last.
        self._open[key] = file
        file.writer.write_table(rows, row_group_size=_ROWS_PER_GROUP)
        if file.sink.tell() >= _FILE_BYTES:
            self._complete(key)

    def _complete(self, key: tuple[str | None, ...]) -> None:
        file = self._open.pop(key)
        size = file.close()
        self._written.append(
            {
                "path": file.path,
                "size": size,
                "modified": time.time_ns() // 1_000_000,
                "partition": dict(zip(self._partition_by, key, strict=True)),
                "statistics": json.dumps(_statistics(os.path.join(self._root, file.path))),
            }
        )

    def _directory(self, key: tuple[str | None, ...]) -> str:
        """Return where files of a partition are by convention; readers go by the log alone."""
        parts = []
        for name, value in zip(self._partition_by, key, strict=True):
            parts.append(f"{quote(name, safe='')}={'__HIVE_DEFAULT_PARTITION__' if value is None else quote(value, safe=' ')}")
        return "" if any(len(part) > _DIRECTORY_CHARACTERS_MAX for part in parts) else "/".join(parts)


class _OpenFile:
    """A file that is being written."""

    def __init__(self, root: str, directory: str, schema: Any) -> None:
        import pyarrow.parquet as pq

        self.path = os.path.join(directory, f"part-{uuid.uuid4()}.snappy.parquet")
        os.makedirs(os.path.join(root, directory), exist_ok=True)
        self.sink = open(os.path.join(root, self.path), "xb")  # noqa: SIM115 - it is closed when it is complete
        self.writer = pq.ParquetWriter(self.sink, schema, compression="snappy", version="2.6")

    def close(self) -> int:
        """Complete the file and make it durable; return its size."""
        self.writer.close()
        self.sink.flush()
        os.fsync(self.sink.fileno())
        size = self.sink.tell()
        self.sink.close()
        return size


# -- statistics ------------------------------------------------------------------------------------------------------------


def _statistics(path: str) -> dict[str, Any]:
    """Return what the log says of a file, so that readers can leave it out: rows, and of plain columns nulls, least and greatest value."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    found: dict[str, Any] = {"numRecords": metadata.num_rows, "minValues": {}, "maxValues": {}, "nullCount": {}}
    for at in range(min(metadata.num_columns, _STATISTICS_COLUMNS_MAX)):
        column = metadata.schema.column(at)
        if column.max_repetition_level or "." in column.path or column.path != column.name:
            continue
        groups = [metadata.row_group(group).column(at).statistics for group in range(metadata.num_row_groups)]
        if not groups or any(group is None or not group.has_null_count for group in groups):
            continue
        found["nullCount"][column.name] = sum(group.null_count for group in groups)
        valued = [group for group in groups if group.num_values]
        if not valued or not all(group.has_min_max for group in valued):
            continue
        try:
            least = _bound(min(group.min for group in valued), is_upper=False)
            greatest = _bound(max(group.max for group in valued), is_upper=True)
        except (OverflowError, TypeError, ValueError):
            continue
        if least is not None and greatest is not None:
            found["minValues"][column.name] = least
            found["maxValues"][column.name] = greatest
    return found


def _bound(value: Any, *, is_upper: bool) -> Any:
    """Return a bound as the log has it; None if it has none. Of floats there is none, since NaN is left out of Parquet's."""
    if isinstance(value, (bool, float, bytes)):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return value if len(value) <= _STATISTICS_TEXT_MAX else None
    if isinstance(value, datetime):
        # The log has milliseconds; a bound may be wider than the values, and not narrower.
        cut = value - timedelta(microseconds=value.microsecond % 1000)
        wide = cut + _MILLISECOND if is_upper and cut != value else cut
        text = wide.replace(tzinfo=None).isoformat(timespec="milliseconds")
        return text if value.tzinfo is None else f"{wide.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    return value.isoformat() if isinstance(value, date) else None
