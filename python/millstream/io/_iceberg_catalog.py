"""Iceberg catalogs and their tables by the package pyiceberg: what the source and the sink share."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from typing import Any

from millstream._custody import CLOSED
from millstream._extras import extra
from millstream.errors import ConnectorError, PlanError
from millstream.functions import check_pyarrow

__all__ = ["CLOSED_MARK", "CatalogGiven", "checked_catalog", "checked_table", "connected", "mark_text", "opened", "pyiceberg", "reason", "shown_in"]

CatalogGiven = str | Mapping[str, str]
"""The name of a catalog that pyiceberg is configured with, or the properties of one."""

CLOSED_MARK = "closed"
"""The mark of a run that another one has gone on from."""
_VERSION_MIN, _VERSION_END = (0, 12, 0), (0, 13)
_FILES = "py-io-impl"
_REFUSED = {
    "InMemoryCatalog": "is gone when its process ends",
    "DynamoDbCatalog": "cannot commit by pyiceberg",
    "BigQueryMetastoreCatalog": "cannot commit by pyiceberg",
    "NoopCatalog": "cannot commit by pyiceberg",
}
"""Catalogs that a sink cannot write by."""


def pyiceberg(call: str) -> Any:
    """Return the package."""
    check_pyarrow(call)
    package = extra("pyiceberg", "iceberg", call)
    version = importlib.metadata.version("pyiceberg")
    numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
    if not _VERSION_MIN <= numbers < _VERSION_END:
        # Between two of its releases pyiceberg changes what the proof rests on: who tries a commit again, and what is cleared up after it.
        raise PlanError(f"{call}() needs pyiceberg 0.12, and {version} is installed: pip install --upgrade millstream[iceberg]")
    return package


def checked_table(table: Any, call: str) -> tuple[str, ...]:
    """Return the name of a table, in parts."""
    parts = tuple(table.split(".")) if isinstance(table, str) else ()
    if len(parts) < 2 or not all(part.strip() for part in parts):
        raise PlanError(f'{call}() takes the name of a table with its namespace, such as "shop.orders", not {table!r:.200}')
    return parts


def checked_catalog(catalog: Any, call: str) -> CatalogGiven:
    """Return what the user says of a catalog."""
    if isinstance(catalog, str) and catalog:
        return catalog
    if not isinstance(catalog, Mapping) or not all(isinstance(each, str) for pair in catalog.items() for each in pair):
        shown = "a dict with other values than texts" if isinstance(catalog, Mapping) else f"{catalog!r:.200}"
        raise PlanError(
            f"{call}(catalog=…) takes the name of a catalog that pyiceberg is configured with, or its properties as texts, such as "
            f'{{"type": "sql", "uri": "sqlite:///catalog.db", "warehouse": "lake"}}, not {shown}'
        )
    return dict(catalog)


def connected(given: CatalogGiven, call: str, *, writes: bool = False) -> Any:
    """Return a catalog.

    Parameters
    ----------
    given
        What the user says of it.
    call
        Begins the message of an error.
    writes
        Whether it must be able to commit.

    Raises
    ------
    PlanError
        When pyiceberg knows no such catalog, or it cannot commit.
    ConnectorError
        When it cannot be reached.
    """
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NoSuchPropertyException, NotInstalledError

    name, properties = (given, {}) if isinstance(given, str) else (given.get("name"), {key: value for key, value in given.items() if key != "name"})
    try:
        catalog = load_catalog(name, **properties)
    except (NoSuchPropertyException, NotInstalledError, ValueError) as error:
        what = f"the catalog {given!r}" if isinstance(given, str) else "the catalog"
        raise PlanError(f"{call}(catalog=…): {what} cannot be used: {reason(error)}") from error
    except Exception as error:
        raise ConnectorError(f"{call}(): the catalog cannot be reached: {reason(error)}") from error
    refused = _REFUSED.get(type(catalog).__name__)
    if writes and refused is not None:
        catalog.close()
        raise PlanError(f"{call}(catalog=…): a catalog of the type {catalog.properties.get('type', type(catalog).__name__)!r} {refused}; use one of sql, rest, hive or glue")
    _make_durable(catalog, catalog.properties.get("warehouse"))
    return catalog


def opened(catalog: Any, name: tuple[str, ...], call: str) -> Any:
    """Return a table of a catalog; None if there is none."""
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    try:
        table = catalog.load_table(name)
        if _make_durable(catalog, table.metadata.location):
            table = catalog.load_table(name)
        return table
    except (NoSuchTableError, NoSuchNamespaceError):
        return None
    except Exception as error:
        raise ConnectorError(f"{call}(): the table {'.'.join(name)!r} cannot be loaded: {reason(error)}") from error


def _make_durable(catalog: Any, location: str | None) -> bool:
    """Let local files be durable before the catalog names them, unless the user has chosen how files are written."""
    is_local = location is not None and (location.startswith("file:") or "://" not in location)
    if not is_local or _FILES in catalog.properties:
        return False
    catalog.properties[_FILES] = "millstream.io._iceberg_io.SyncedFiles"
    return True


def reason(error: BaseException) -> str:
    """Return what an exception says, in a line."""
    text = str(error).strip().partition("\n")[0]
    return text if text else type(error).__name__


# -- marks -----------------------------------------------------------------------------------------------------------------


def mark_text(epoch: int, snapshot: int, sequence: int) -> str:
    """Return the value of the property of a run: the newest epoch that the table has, and the snapshot that brought it."""
    return f"{epoch}/{snapshot}/{sequence}"


def shown_in(metadata: Any, run: str) -> int | None:
    """Return the newest epoch of a run that a table shows.

    A property stays when the table is rolled back to an older snapshot, and the rows do not. So the snapshot of the epoch must be in the
    history of the branch, or have expired.
    """
    value = metadata.properties.get(run)
    if value is None:
        return None
    if value == CLOSED_MARK:
        return CLOSED
    epoch, snapshot, sequence = map(int, value.split("/"))
    known = {each.snapshot_id: each for each in metadata.snapshots}
    current = metadata.snapshot_by_name("main")
    oldest = None
    while current is not None:
        if current.snapshot_id == snapshot:
            return epoch
        oldest, current = current, known.get(current.parent_snapshot_id)
    # What is left of the history begins after it; or it begins before it, and leads past it.
    has_expired = snapshot not in known and oldest is not None and (oldest.sequence_number or 0) > sequence
    return epoch if has_expired else None
