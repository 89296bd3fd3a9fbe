"""Apache Iceberg: tables as sources and sinks, by the package pyiceberg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millstream.stream import Stream

__all__ = ["read_iceberg"]


def read_iceberg(
    table: str,
    *,
    catalog: str | Mapping[str, str],
    snapshot: int | None = None,
    columns: str | Sequence[str] | None = None,
) -> Stream:
    """Read a snapshot of an Iceberg table.

    Parameters
    ----------
    table
        The name of the table with its namespace: ``"shop.orders"``.
    catalog
        The name of a catalog that pyiceberg is configured with (in ``.pyiceberg.yaml`` or by environment variables), or its properties, such
        as ``{"type": "sql", "uri": "sqlite:///catalog.db", "warehouse": "lake"}``. The property ``"name"`` is the name of the catalog.
    snapshot
        The id of the snapshot; by default the newest when the stream is declared.
    columns
        The columns to read, in this order; by default all.

    Returns
    -------
    Stream
        A stream that ends after the last row. Files are read in the order in which they were written.

    Raises
    ------
    PlanError
        When an option is not of its type, pyiceberg knows no such catalog, or the package is not installed:
        ``pip install millstream[iceberg]``.
    SchemaError
        When a column does not exist, or is of a type that this package does not know.
    ConnectorError
        When the catalog cannot be reached, has no such table, or the table no such snapshot, or it needs something that the reader does not
        know (deletes by equality); also when the job runs and a file cannot be read.

    Notes
    -----
    The position in a checkpoint has the snapshot. A run that continues after a crash reads the snapshot that it began with, whatever was
    committed since; this fails if the snapshot has expired.

    Examples
    --------
    >>> lake = {"type": "sql", "uri": "sqlite:///catalog.db", "warehouse": "lake"}
    >>> report = mill.run(mill.from_iter([{"a": 1, "b": "x"}]).write_iceberg("shop.some", catalog=lake))
    >>> mill.read_iceberg("shop.some", catalog=lake, columns="b").collect().to_pylist()
    [{'b': 'x'}]
    """
    # Only who reads a table pays for what that takes.
    from millstream.io._iceberg_source import iceberg_source

    return iceberg_source(table, catalog, snapshot, columns)
