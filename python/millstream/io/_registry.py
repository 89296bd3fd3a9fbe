"""A schema registry that speaks Confluent's HTTP interface."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from millstream._texts import text
from millstream.errors import ConnectorError, PlanError, SchemaError

__all__ = ["Registry", "registry"]

_ANSWER_SECONDS = 10
_TYPE = "application/vnd.schemaregistry.v1+json"


class Registry:
    """Asks a registry for schemas, and registers new ones."""

    def __init__(self, url: str) -> None:
        parts = _parts(url)
        host = parts.netloc.rpartition("@")[2]
        self._url = urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._headers = {"Accept": _TYPE}
        if parts.username is not None:
            user = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()

    def __repr__(self) -> str:
        """Show the URL without user and password."""
        return self._url

    def schema(self, number: int) -> tuple[str | None, str]:
        """Return the schema of a number; without one, also why there is none."""
        found = self._ask(f"/schemas/ids/{number}")
        if found is None:
            return None, "which the registry does not have"
        reason = _unusable(found)
        return (None, f"which {reason}") if reason else (self._text(found, f"schema {number}"), "")

    def latest(self, subject: str) -> str:
        """Return the schema that a subject has now."""
        found = self._ask(f"/subjects/{urllib.parse.quote(subject, safe='')}/versions/latest")
        if found is None:
            raise SchemaError(f"the schema registry {self!r} has no subject {subject!r}; pass avro_schema=")
        if reason := _unusable(found):
            raise SchemaError(f"subject {subject!r} of the schema registry {self!r} {reason}")
        return self._text(found, f"subject {subject!r}")

    def register(self, subject: str, schema: str) -> int:
        """Return the number of a schema under a subject, which gets it if it does not have it."""
        found = self._ask(f"/subjects/{urllib.parse.quote(subject, safe='')}/versions", {"schema": schema})
        number = None if found is None else found.get("id")
        if not isinstance(number, int):
            raise ConnectorError(f"the schema registry {self!r} did not answer with a number to the schema of {subject!r}")
        return number

    def _text(self, found: dict[str, Any], what: str) -> str:
        schema = found.get("schema")
        if not isinstance(schema, str):
            raise ConnectorError(f"the schema registry {self!r} did not answer with a schema to {what}")
        return schema

    def _ask(self, path: str, body: Any = None) -> dict[str, Any] | None:
        """Return what is at a path; None if nothing is."""
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers if data is None else {**self._headers, "Content-Type": _TYPE}
        request = urllib.request.Request(self._url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise ConnectorError(f"the schema registry {self!r} refuses {path}: {error.code} {_reason(error)}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ConnectorError(f"the schema registry {self!r} cannot be asked for {path}: {error}") from None
        if not isinstance(found, dict):
            raise ConnectorError(f"the schema registry {self!r} did not answer with an object to {path}")
        return found


def _unusable(found: dict[str, Any]) -> str | None:
    """Return why an answer has no schema that can be used, or None."""
    kind = found.get("schemaType", "AVRO")
    if kind != "AVRO":
        return f"is {kind}, not Avro"
    return "refers to other schemas, which is not supported" if found.get("references") else None


def _reason(error: urllib.error.HTTPError) -> str:
    """Return what a registry says of an error."""
    try:
        return str(json.loads(error.read())["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(error.reason)


def _parts(url: str) -> urllib.parse.SplitResult:
    """Take a URL apart; it is not repeated in messages, as it may hold a password."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    # A password with a slash in it, say, would be taken for a path.
    if not is_valid or "@" in parts.path + parts.query + parts.fragment:
        raise PlanError(
            'the URL of the schema registry has no valid host and port; in a user or password, write "/", "?", "#" and "@" as %2F, %3F, %23 and %40'
        )
    return parts


def registry(url: Any, call: str) -> Registry:
    """Return the registry of an argument."""
    if not text(url, f"{call}(registry=…)", "http://localhost:8081").startswith(("http://", "https://")):
        # The URL may hold a password.
        raise PlanError(f'{call}(registry=…) takes a URL that begins with http:// or https://, as in "http://localhost:8081"')
    return Registry(url)
