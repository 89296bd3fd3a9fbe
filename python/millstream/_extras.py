"""Packages of others that single connectors need, and that are installed with an extra of this package."""

from __future__ import annotations

import importlib
from typing import Any

from millstream.errors import PlanError

__all__ = ["extra"]


def extra(package: str, name: str, call: str) -> Any:
    """Import a package that an extra installs.

    Parameters
    ----------
    package
        The module to import.
    name
        The extra, as in ``pip install millstream[delta]``.
    call
        What needs it; begins the message of an error.

    Raises
    ------
    PlanError
        When it is not installed.

    Examples
    --------
    >>> from millstream._extras import extra
    >>> extra("json", "delta", "write_delta").loads("1")
    1
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package.partition(".")[0]:
            raise
        raise PlanError(f"{call}() needs the package {package}: pip install millstream[{name}]") from None
