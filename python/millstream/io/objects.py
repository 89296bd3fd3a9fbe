"""Options of object stores and of HDFS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream._engine import configure_storage
from millstream.errors import PlanError

__all__ = ["storage"]

_PLACE = "mill.storage()"


def storage(options: Mapping[str, str | bool | int], *, url: str = "") -> None:
    """Set credentials and options of object stores and of HDFS, for this process.

    Readers and sinks take the options that are set when they are declared, and again when they open an object. What is not set is taken from the environment, under
    the names that the tools of the store use, such as ``AWS_ACCESS_KEY_ID``. Setting options again replaces all that were set
    for the same ``url``; an empty dict removes them.

    Parameters
    ----------
    options
        Options by name, in small letters: ``aws_access_key_id``, ``aws_secret_access_key``, ``aws_session_token``,
        ``aws_region``, ``aws_endpoint``, ``aws_allow_http``, ``aws_virtual_hosted_style_request``, ``aws_skip_signature``;
        ``google_service_account``; ``azure_storage_account_name``, ``azure_storage_account_key``; for all of these ``timeout``,
        ``connect_timeout``, ``proxy_url``. The names are those of the ``object_store`` crate, which knows more of them. For HDFS
        ``hdfs_user``, and all that Hadoop calls ``dfs.…``, ``hadoop.…``, ``fs.…`` or ``ipc.…``.
    url
        The bucket that the options are for, such as ``"s3://bucket"`` or ``"hdfs://namenode:8020"``, or the stores, such as ``"s3://"``. By default they are for
        all stores, and each store takes those of its kind. Options of a bucket override those of all.

    Raises
    ------
    PlanError
        When an option is unknown, or names a bucket, which is part of the URL.

    Notes
    -----
    Values are never part of a plan, a checkpoint, a report or the message of an error. Files of the AWS command line, such as
    ``~/.aws/credentials``, are not read.

    Examples
    --------
    >>> mill.storage({"aws_region": "eu-central-1", "aws_endpoint": "http://localhost:9000", "aws_allow_http": True})
    >>> mill.storage({})
    """
    if not isinstance(options, Mapping):
        # It may be a secret, so only its type is shown.
        raise PlanError(f'{_PLACE} takes a dict, as in {{"aws_region": "eu-central-1"}}, not {type(options).__name__}')
    if not isinstance(url, str):
        raise PlanError(f"{_PLACE}: url is a text such as \"s3://bucket\", not {type(url).__name__}")
    if url and not url.startswith(("s3://", "gs://", "az://", "hdfs://", "http://", "https://")):
        raise PlanError(f"{_PLACE}: url is a bucket such as \"s3://bucket\", not {url!r:.80}")
    configure_storage(url, [(_name(name), _value(name, value)) for name, value in options.items()])


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise PlanError(f"{_PLACE}: the name of an option is a text, not {name!r:.80}")
    return name


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    # The value may be a secret, so only its type is shown.
    raise PlanError(f"{_PLACE}: {name} is a text, a number, True or False, not {type(value).__name__}")
