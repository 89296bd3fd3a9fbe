"""The source of Delta tables: the files of one version."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millstream._counts import count
from millstream._engine import RawStream
from millstream._nearest import did_you_mean
from millstream._paths import local_path
from millstream._texts import texts
from millstream.errors import ConnectorError, SchemaError
from millstream.io._delta_table import columns_of, deltalake, opened, reason, subset
from millstream.io.sources import Source, SourceReader, _SourceAdapter
from millstream.stream import Stream
from millstream.types import schema_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["delta_source"]

_BATCH_ROWS = 1 << 16


def delta_source(path: str | os.PathLike[str], version: int | None, columns: str | Sequence[str] | None) -> Stream:
    """Read a version of a table."""
    call = "read_delta"
    deltalake(call)
    where = local_path(path, f"{call}()")
    wanted = None if version is None else count(version, f"{call}(version=…) takes the number of a version", most=2**63 - 1)
    table = opened(where, wanted, call)
    if table is None:
        raise ConnectorError(f"{call}(): there is no Delta table at {where!r}")
    schema = columns_of(table)
    names = schema.names if columns is None else texts(columns, f"{call}(columns=…)", "price")
    for name in names:
        if name not in schema.names:
            raise SchemaError(f"{call}(columns=…): the table has no column {name!r}{did_you_mean(name, schema.names)} (it has {', '.join(schema.names)})")
    source = _DeltaSource(where, table, subset(schema, names))
    adapter = _SourceAdapter(source)
    return Stream(RawStream.from_python(adapter, f'{call}("{os.fspath(path)}")', schema_of(source.schema)._raw, True, True))


class _DeltaSource(Source):
    """The files of one version, one after the other."""

    def __init__(self, path: str, table: Any, schema: pa.Schema) -> None:
        self._path = path
        self._version = table.version()
        self.schema = schema
        _dataset(table, path)

    def open(self, partition: str, position: Any | None) -> SourceReader:
        """Open the version that was begun with."""
        version = self._version if position is None else position["version"]
        table = opened(self._path, version, "read_delta")
        if table is None or (position is not None and position["table"] != str(table.metadata().id)):
            raise ConnectorError(f"read_delta(): the table at {self._path!r} is not the one that the checkpoint was made with")
        columns = columns_of(table)
        for field in self.schema:
            if field.name not in columns.names or columns.field(field.name).type != field.type:
                raise ConnectorError(f"read_delta(): column {field.name!r} of the table is another one in version {version}, which the job began with")
        return _DeltaReader(self._path, table, self.schema, position)


def _dataset(table: Any, path: str) -> Any:
    errors = deltalake("read_delta").exceptions
    try:
        return table.to_pyarrow_dataset()
    except errors.DeltaError as error:
        raise ConnectorError(f"read_delta(): the table at {path!r} cannot be read: {reason(error)}") from error


class _DeltaReader(SourceReader):
    """Reads files in the order of the log, and counts rows."""

    def __init__(self, path: str, table: Any, schema: pa.Schema, position: Any | None) -> None:
        self._path = path
        self._schema = schema
        self._table = str(table.metadata().id)
        self._version = table.version()
        self._all = columns_of(table)
        self._fragments = _in_order(table, _dataset(table, path))
        self._file = 0 if position is None else int(position["file"])
        self._rows = 0
        self._batches: Any = None
        self._skip = 0 if position is None else int(position["rows"])

    def next_batch(self) -> Any:
        """Return the next rows."""
        while self._file < len(self._fragments):
            if self._batches is None:
                fragment = self._fragments[self._file]
                self._batches = fragment.to_batches(schema=self._all, columns=self._schema.names, batch_size=_BATCH_ROWS)
            try:
                batch = next(self._batches, None)
            except (OSError, ValueError) as error:
                raise ConnectorError(f"read_delta(): {self._fragments[self._file].path!r} of version {self._version} cannot be read: {error}") from error
            if batch is None:
                self._file, self._rows, self._skip, self._batches = self._file + 1, 0, 0, None
                continue
            passed = min(self._skip, batch.num_rows)
            self._skip -= passed
            self._rows += batch.num_rows
            if passed < batch.num_rows:
                return batch.slice(passed)
        return None

    def position(self) -> Any:
        """Return the version, the file, and how many of its rows were read."""
        return {"table": self._table, "version": self._version, "file": self._file, "rows": self._rows}

    def close(self) -> None:
        """Let go of the files."""
        self._batches = None
        self._fragments = []


def _in_order(table: Any, dataset: Any) -> list[Any]:
    """Return the files of a table in the order in which they were written."""
    import pyarrow as pa

    actions = pa.table(table.get_add_actions(flatten=True))
    written = dict(zip(actions["path"].to_pylist(), actions["modification_time"].to_pylist(), strict=True))
    first = min(written.values(), default=0)
    return sorted(dataset.get_fragments(), key=lambda fragment: (written.get(fragment.path, first), fragment.path))
