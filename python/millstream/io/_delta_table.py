"""Delta tables by the package deltalake: what the source and the sink share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from millstream._extras import extra
from millstream.errors import ConnectorError, PlanError
from millstream.functions import check_pyarrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["columns_of", "deltalake", "opened", "reason", "subset"]

_VERSION_MIN = (1, 6, 2)


def deltalake(call: str) -> Any:
    """Return the package."""
    check_pyarrow(call)
    package = extra("deltalake", "delta", call)
    numbers = re.findall(r"\d+", str(package.__version__))
    if tuple(map(int, numbers[:3])) < _VERSION_MIN:
        # Older ones leave the marks of create_write_transaction() out, and MERGE makes nulls of some lists.
        raise PlanError(
            f"{call}() needs deltalake {'.'.join(map(str, _VERSION_MIN))} or newer, and {package.__version__} is installed: "
            "pip install --upgrade millstream[delta]"
        )
    return package


def opened(path: str, version: int | None, call: str) -> Any:
    """Return the table at a path; None if there is none."""
    package = deltalake(call)
    try:
        return package.DeltaTable(path, version=version)
    except package.exceptions.TableNotFoundError:
        return None
    except (package.exceptions.DeltaError, OSError) as error:
        raise ConnectorError(f"{call}(): the table {path!r} cannot be read: {reason(error)}") from error


def columns_of(table: Any) -> pa.Schema:
    """Return the columns of a table."""
    import pyarrow as pa

    return pa.schema(table.schema().to_arrow())


def subset(schema: pa.Schema, names: list[str]) -> pa.Schema:
    """Return some columns, in this order."""
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in names])


def reason(error: Exception) -> str:
    """Return what an exception of the package says, without the stack of its own that it may have."""
    return str(error).partition("\n   0: ")[0].strip()
