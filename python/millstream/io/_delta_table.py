"""Delta tables by the package deltalake: what the source and the sink share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream._extras import extra
from millstream.errors import ConnectorError
from millstream.functions import check_pyarrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["columns_of", "deltalake", "opened", "subset"]


def deltalake(call: str) -> Any:
    """Return the package."""
    check_pyarrow(call)
    return extra("deltalake", "delta", call)


def opened(path: str, version: int | None, call: str) -> Any:
    """Return the table at a path; None if there is none."""
    package = deltalake(call)
    try:
        return package.DeltaTable(path, version=version)
    except package.exceptions.TableNotFoundError:
        return None
    except package.exceptions.DeltaError as error:
        raise ConnectorError(f"{call}(): the table {path!r} cannot be read: {error}") from error


def columns_of(table: Any) -> pa.Schema:
    """Return the columns of a table."""
    import pyarrow as pa

    return pa.schema(table.schema().to_arrow())


def subset(schema: pa.Schema, names: list[str]) -> pa.Schema:
    """Return some columns, in this order."""
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in names])
