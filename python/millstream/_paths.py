"""Paths as users write them."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from millstream.errors import PlanError

__all__ = ["local_path"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/(?=/)")


def local_path(path: str | os.PathLike[str], what: str) -> str:
    """Return the path of a file or directory on this machine.

    ``~`` is the home directory, and ``file://`` URLs are understood.

    Parameters
    ----------
    path
        What the user wrote.
    what
        What it is for; begins the message of an error.

    Raises
    ------
    PlanError
        When it is on another machine, or no path at all.

    Examples
    --------
    >>> from millstream._paths import local_path
    >>> local_path("file:///data/a%20b.csv", "read_csv()")
    '/data/a b.csv'
    """
    if not isinstance(path, (str, os.PathLike)):
        raise PlanError(f"{what}: a path is a text or a pathlib.Path, not {path!r:.200}")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise PlanError(f"{what}: a path is a text, not bytes: {text!r:.200}; write os.fsdecode(path)")
    if not text:
        raise PlanError(f"{what}: the path is empty")
    if "\0" in text:
        raise PlanError(f"{what}: the path {text!r:.200} has a zero character, which no file name has")
    scheme = _SCHEME.match(text)
    if scheme is None:
        return os.path.expanduser(text)
    if scheme[1].lower() != "file":
        raise PlanError(
            f"{what}: {text!r:.200} is on {scheme[1].lower()}, and Millstream reads and writes files of this machine only, so far: "
            "copy them to or from a local path, or mount the store"
        )
    # A "?" or "#" of a file name is written as %3F or %23 in a URL.
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not parts.path:
        raise PlanError(f"{what}: {text!r:.200} names no file of this machine; write file:///absolute/path, or the path alone")
    return unquote(parts.path)
