"""Delta Lake: tables as sources and sinks, by the package deltalake."""

from __future__ import annotations

import os
from collections.abc import Sequence

from millstream.stream import Stream

__all__ = ["read_delta"]


def read_delta(
    path: str | os.PathLike[str],
    *,
    version: int | None = None,
    columns: str | Sequence[str] | None = None,
) -> Stream:
    """Read a version of a Delta table.

    Parameters
    ----------
    path
        The directory of the table.
    version
        The version; by default the newest when the stream is declared.
    columns
        The columns to read, in this order; by default all.

    Returns
    -------
    Stream
        A stream that ends after the last row. Files are read in the order in which they were written.

    Raises
    ------
    PlanError
        When an option is not of its type, or the package ``deltalake`` is not installed: ``pip install millstream[delta]``.
    SchemaError
        When a column does not exist.
    ConnectorError
        When there is no table, it has no such version, or it needs something that the reader does not know (deletion vectors, column mapping);
        also when the job runs and a file cannot be read.

    Notes
    -----
    The position in a checkpoint has the version. A run that continues after a crash reads the version that it began with, whatever was
    committed since; this fails if files of that version were vacuumed.

    Timestamps with a zone are in UTC and all times in microseconds, as Delta Lake stores them.

    Examples
    --------
    >>> report = mill.run(mill.from_iter([{"a": 1, "b": "x"}]).write_delta("lake/some"))
    >>> mill.read_delta("lake/some", columns="b").collect().to_pylist()
    [{'b': 'x'}]
    """
    # Only who reads a table pays for what that takes.
    from millstream.io._delta_source import delta_source

    return delta_source(path, version, columns)
