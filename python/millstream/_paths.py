"""Paths as users write them."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from millstream._nearest import did_you_mean
from millstream.errors import PlanError

__all__ = ["file_or_object", "is_url", "local_path", "real_place", "state_path"]

_STORES = ("s3", "gs", "az", "hdfs", "http", "https")
# What pathlib makes of a URL.
_MERGED = re.compile(r"(s3|gs|az|hdfs|https?):/(?!/)")
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
        raise PlanError(_elsewhere(what, text, scheme[1].lower()))
    # A "?" or "#" of a file name is written as %3F or %23 in a URL.
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not parts.path:
        raise PlanError(f"{what}: {text!r:.200} names no file of this machine; write file:///absolute/path, or the path alone")
    return unquote(parts.path)


def file_or_object(path: str | os.PathLike[str], what: str) -> str:
    """Return the path of a file or directory on this machine, or the URL of objects in a store.

    Parameters
    ----------
    path
        What the user wrote.
    what
        What it is for; begins the message of an error.

    Raises
    ------
    PlanError
        When there are no stores of its scheme, or it is no path at all.

    Examples
    --------
    >>> from millstream._paths import file_or_object
    >>> file_or_object("s3://bucket/in/*.csv", "read_csv()")
    's3://bucket/in/*.csv'
    """
    if isinstance(path, os.PathLike):
        merged = _MERGED.match(str(path))
        if merged is not None:
            raise PlanError(f"{what}: a path of pathlib was a {merged[1]}:// URL, and pathlib merges its slashes: pass the URL as a text")
    scheme = _SCHEME.match(path) if isinstance(path, str) and "\0" not in path else None
    if isinstance(path, str) and scheme is not None and scheme[1].lower() in _STORES:
        return scheme[1].lower() + path[len(scheme[1]) :]
    return local_path(path, what)


def state_path(path: str | os.PathLike[str], what: str) -> str:
    """Return the path of a state directory or a savepoint, or its URL in an object store.

    Parameters
    ----------
    path
        What the user wrote.
    what
        What it is for; begins the message of an error.

    Raises
    ------
    PlanError
        When checkpoints cannot be there, or it is no path at all.

    Examples
    --------
    >>> from millstream._paths import state_path
    >>> state_path("s3://bucket/jobs/orders/", "checkpoint")
    's3://bucket/jobs/orders'
    """
    given = file_or_object(path, what)
    if not is_url(given):
        return given
    if given.startswith("http"):
        raise PlanError(f"{what}: {given!r:.200} is on the web, which can only be read: checkpoints are in a directory, or at s3://, gs://, az:// or hdfs://")
    scheme, rest = given.split("://", 1)
    return f"{scheme}://{rest.rstrip('/')}"


def is_url(path: str) -> bool:
    """Return whether a path that was checked is the URL of objects, and no path of this machine.

    Examples
    --------
    >>> from millstream._paths import is_url
    >>> is_url("s3://bucket/jobs"), is_url("jobs/s3://")
    (True, False)
    """
    return path.startswith(tuple(f"{store}://" for store in _STORES))


def real_place(path: str) -> str:
    """Return what two ways to write a path that was checked have in common: the path without links, or the URL.

    Examples
    --------
    >>> from millstream._paths import real_place
    >>> real_place("s3://bucket/jobs"), real_place("/tmp/../tmp") == real_place("/tmp")
    ('s3://bucket/jobs', True)
    """
    return path if is_url(path) else os.path.realpath(path)


def _elsewhere(what: str, text: str, scheme: str) -> str:
    if scheme in _STORES:
        return f"{what}: {text!r:.200} is in an object store, and {what} takes a path of this machine: copy it to or from there"
    near = did_you_mean(scheme, ("file", *_STORES))
    return (
        f"{what}: {text!r:.200} is on {scheme}, which Millstream does not know{near} "
        "(a path of this machine, file://, s3://, gs://, az:// and hdfs:// are known, and http(s):// to read): "
        "copy them to or from a local path, or mount the store"
    )
