"""Redis: streams and hashes as sinks, by the package redis."""

from __future__ import annotations

import functools
import json
import logging
import random
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from millstream._counts import count
from millstream._custody import CLOSED, Custody, Mark
from millstream._extras import extra
from millstream._nearest import did_you_mean
from millstream._texts import text, texts
from millstream._value_texts import plain_texts
from millstream._waits import Waits
from millstream.errors import CheckpointError, ConnectorError, DataError, PlanError, SchemaError
from millstream.functions import check_pyarrow
from millstream.io._per_run import PerRun
from millstream.io.sinks import Output, output
from millstream.stream import Stream

if TYPE_CHECKING:
    from millstream._engine import RawEnding

__all__ = ["MARKS"]

MARKS = "_millstream:epochs"
"""The hash in which the server keeps the newest epoch of each run."""

_CALL = "write_redis"
_ATTEMPT_SECONDS_MAX = 60.0
"""For how long a commit is tried while the server is away."""
_FIRST_SECONDS_MAX = 2.0
"""For how long the server is looked for when a run begins."""
_PAUSE_SECONDS_MIN, _PAUSE_SECONDS_MAX = 0.01, 1.0
_CONNECT_SECONDS_MAX = 10
_ANSWER_SECONDS_MAX = 20
_TEXTS_PER_SCRIPT = 200_000
"""How many texts a script gets at most; a command of Redis has 1,048,576."""
_COLUMNS_MAX = 3000
"""What Lua unpacks at once is limited."""
_LOG = logging.getLogger("millstream.redis")

# Changes nothing unless the marks are those that the caller has seen. A mark is never removed: a command that arrives late, of a process that is long
# dead, would find that there is none, as it was when it was sent. A command that fails in MULTI does not undo the ones before it,
# so what could fail, a key of another type, is looked for before the first change.
_SCRIPT = """
local marks, run, seen, done, closed, closed_seen = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if (redis.call('HGET', marks, run) or '') ~= seen then return 'moved' end
if closed ~= '' and (redis.call('HGET', marks, closed) or '') ~= closed_seen then return 'moved' end
local at = 6
while at <= #ARGV do
    local kind = redis.call('TYPE', ARGV[at + 1]).ok
    local wanted = ARGV[at] == 'XADD' and 'stream' or 'hash'
    if kind ~= 'none' and kind ~= wanted then return {ARGV[at + 1], kind, wanted} end
    at = at + 3 + tonumber(ARGV[at + 2])
end
at = 6
while at <= #ARGV do
    local n = tonumber(ARGV[at + 2])
    redis.call(ARGV[at], ARGV[at + 1], unpack(ARGV, at + 3, at + 2 + n))
    at = at + 3 + n
end
redis.call('HSET', marks, run, done)
if closed ~= '' then redis.call('HSET', marks, closed, 'closed') end
return 'done'
"""

Command = list[str]
"""``XADD``, ``HSET`` or ``HDEL``, a key, and what follows; a character is a byte."""


def redis_sink(stream: Stream, url: str, target: str | None, prefix: str | None, key: str | Sequence[str] | None, maxlen: int | None) -> Output:
    """Write into a stream or into hashes."""
    check_pyarrow(_CALL)
    package = extra("redis", "redis", _CALL)
    _check_url(url, package)
    if (target is None) == (prefix is None):
        raise PlanError(f'{_CALL}() writes into a stream, as in stream="clicks", or into a hash for each key, as in hash="user:", key="id"')
    schema = stream.schema
    if len(schema) > _COLUMNS_MAX:
        raise SchemaError(f"{_CALL}(): the stream has {len(schema)} columns, and an entry has up to {_COLUMNS_MAX}")
    for name, kind in schema.items():
        if repr(kind) == "object":
            raise SchemaError(f"{_CALL}(): column {name!r} is object, which has no text; leave it out with drop()")
    keys: list[str] = []
    if target is not None:
        what = f'stream="{text(target, f"{_CALL}(stream=…)", "clicks")}"'
        if key is not None:
            raise PlanError(f"{_CALL}(stream=…) appends entries, and key= is for hashes; leave it out")
        length = None if maxlen is None else count(maxlen, f"{_CALL}(maxlen=…) takes a number of entries of at least 1", 1, 2**63 - 1)
    else:
        what = f'hash="{text(prefix, f"{_CALL}(hash=…)", "user:")}"'
        if maxlen is not None:
            raise PlanError(f"{_CALL}(maxlen=…) is for streams; leave it out")
        length = None
        keys = [] if key is None else texts(key, f"{_CALL}(key=…)", "id")
        if not keys:
            raise PlanError(f'{_CALL}(hash=…) writes a hash for each key: pass key=, such as "id"')
        for name in keys:
            if name not in schema:
                raise SchemaError(f"{_CALL}(key=…): there is no column {name!r}{did_you_mean(name, schema)}")
        own = stream._raw.updating_key()
        if own is not None and sorted(own) != sorted(keys):
            raise PlanError(f"{_CALL}(key=…) names {', '.join(keys)}, and this stream updates rows by {', '.join(own) or 'no columns'}")
    sink = PerRun(lambda: _RedisSink(url, target, prefix or "", keys, length))
    advice = "put to_changelog() before it, for a column that says what happens to each row"
    raw = stream._raw.write_python(sink, f"{_CALL}({what})", "write-ahead", False, bool(keys), None if keys else advice, 1)
    return output(raw, takes_frames=True)


def _check_url(url: str, package: Any) -> None:
    """Refuse what is no URL; it is not repeated, as it may hold a password."""
    example = '"redis://localhost:6379/0"'
    if not isinstance(url, str):
        raise PlanError(f"{_CALL}(): the URL is a text such as {example}, not an object of type {type(url).__name__}")
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise PlanError(f"{_CALL}(): a URL begins with redis://, rediss:// (TLS) or unix://, as in {example}")
    try:
        options = package.connection.parse_url(url)
        # It does not connect yet, and takes only options that there are.
        package.Redis.from_url(url).close()
    except (ValueError, TypeError):
        raise PlanError(f"{_CALL}(): the URL has no valid host, port or option; it is a text such as {example}") from None
    if options.get("decode_responses"):
        raise PlanError(f"{_CALL}(): leave decode_responses out of the URL; the sink reads answers as bytes")


class _RedisSink:
    """The writer and the committer for one run.

    Changes wait in the checkpoint as commands; a script applies those of an epoch and its mark at once.
    """

    def __init__(self, url: str, stream: str | None, prefix: str, keys: list[str], maxlen: int | None) -> None:
        self._url = url
        self._stream = stream
        self._prefix = prefix
        self._keys = keys
        self._trim = [] if maxlen is None else ["MAXLEN", "~", str(maxlen)]
        self._custody = Custody("the server")
        self._entries: list[Command] = []
        self._changes: dict[str, list[Command]] = {}
        self._client: Any = None
        self._waits = Waits()

    # -- the writer --------------------------------------------------------------------------------------------------

    def write(self, batch: Any) -> None:
        """Take a frame."""
        names = [_bytes(name) for name in batch.schema.names]
        columns = [_texts(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
        if self._stream is not None:
            begin = ["XADD", _bytes(self._stream), *self._trim, "*"]
            for row in zip(*columns, strict=True):
                entry = [each for pair in zip(names, row, strict=True) if pair[1] is not None for each in pair]
                if not entry:
                    raise DataError("all values of a record are null, and an entry of a stream has at least one field")
                self._entries.append([*begin, *entry])
            return
        for key, row in zip(self._named(batch), zip(*columns, strict=True), strict=True):
            fields = [each for pair in zip(names, row, strict=True) if pair[1] is not None for each in pair]
            missing = [name for name, value in zip(names, row, strict=True) if value is None]
            self._changes[key] = [["HSET", key, *fields], *([["HDEL", key, *missing]] if missing else [])]

    def delete(self, batch: Any) -> None:
        """Delete the fields of the keys of a frame; a hash without fields is none."""
        names = [_bytes(name) for name in batch.schema.names]
        for key in self._named(batch):
            self._changes[key] = [["HDEL", key, *names]]

    def _named(self, batch: Any) -> Iterator[str]:
        """Return the key of the hash of each row."""
        columns = [_texts(name, batch.column(name)) for name in self._keys]
        begin = _bytes(self._prefix)
        for row in zip(*columns, strict=True):
            parts = []
            for name, value in zip(self._keys, row, strict=True):
                if value is None:
                    raise DataError(f"column {name!r} is null, and it is of the key")
                # So that no two keys of several columns have one name.
                parts.append(value if len(row) == 1 else value.replace("%", "%25").replace(":", "%3A"))
            yield begin + ":".join(parts)

    def pre_commit(self, epoch: int) -> bytes | None:
        """Return the commands of an epoch. There is always a handle, which has the mark."""
        commands = self._entries + [command for key in self._changes.values() for command in key]
        self.abort(())
        head = json.dumps({"mark": self._custody.mark(epoch).to_json()}).encode()
        return head + b"\n" + (zlib.compress(json.dumps(_scripts(commands)).encode(), 1) if commands else b"")

    def abort(self, handles: object) -> None:
        """Forget what is in no checkpoint."""
        self._entries = []
        self._changes = {}

    # -- the committer -----------------------------------------------------------------------------------------------

    def promise(self, delivery: str, restored: int | None, newest: int | None, is_persistent: bool, ending: RawEnding) -> None:
        """Begin the run, and check whether the server responds."""
        self._custody.begin(delivery)
        self._waits.begin(ending)
        self._until_done(lambda: bool(self._connected().ping()), _FIRST_SECONDS_MAX)

    def commit(self, handles: Sequence[tuple[int, bytes]]) -> None:
        """Apply each epoch that the server does not show yet."""
        found = [_opened(handle) for _, handle in sorted(handles, key=lambda pair: pair[0])]
        newest = max((mark.epoch for mark, _ in found), default=0)
        for mark, packed in found:
            if packed:
                self._until_done(functools.partial(self._apply, mark, packed, newest))
                self._custody.committed(mark)

    def recover(self, handles: Sequence[tuple[int, bytes]]) -> None:
        """Apply what a checkpoint names and the server does not show yet."""
        self.commit(handles)
        if handles:
            mark, _ = _opened(max(handles, key=lambda pair: pair[0])[1])
            self._until_done(functools.partial(self._look, mark))

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def _look(self, mark: Mark) -> bool:
        self._custody.is_shown(mark, self._shown, newest=mark.epoch)
        self._custody.restored(mark, self._shown)
        return True

    def _apply(self, mark: Mark, packed: bytes, newest: int) -> bool:
        """Try to apply an epoch; returns whether the target has it."""
        if self._custody.is_shown(mark, self._shown, newest=newest):
            return True
        scripts = json.loads(zlib.decompress(packed))
        seen = self._value(mark.run)
        number, _, part = seen.partition("/")
        first = int(part) if part and int(number) == mark.epoch else 0
        closed = self._custody.closes(mark) if not seen else None
        closed_seen = "" if closed is None else self._value(closed)
        for at in range(first, len(scripts)):
            done = str(mark.epoch) if at + 1 == len(scripts) else f"{mark.epoch}/{at + 1}"
            arguments = [mark.run, seen, done, closed or "", closed_seen, *(word.encode("latin-1") for word in scripts[at])]
            answer = self._connected().eval(_SCRIPT, 1, MARKS, *arguments)
            if answer == b"moved":
                return False
            if answer != b"done":
                key, kind, wanted = (each.decode(errors="replace") for each in answer)
                raise ConnectorError(f"the key {key!r:.200} is a {kind}, not a {wanted}; remove it, or write elsewhere")
            seen, closed, closed_seen = done, None, ""
        return True

    def _value(self, run: str) -> str:
        return (self._connected().hget(MARKS, run) or b"").decode()

    def _shown(self, run: str) -> int | None:
        """Return the newest epoch of a run: one that is only partly written does not count yet."""
        value = self._value(run)
        if not value:
            return None
        if value == "closed":
            return CLOSED
        number, _, part = value.partition("/")
        return int(number) - 1 if part else int(number)

    def _until_done(self, attempt: Callable[[], bool], seconds_max: float = _ATTEMPT_SECONDS_MAX) -> None:
        """Try until it is done; the marks tell whether a try whose answer was lost was."""
        errors = extra("redis", "redis", _CALL).exceptions
        end = time.monotonic() + seconds_max
        pause = _PAUSE_SECONDS_MIN
        while True:
            try:
                if self._waits.call(attempt):
                    return
                failure: Exception = CheckpointError("other runs of this job write to the server")
            except (errors.AuthenticationError, errors.AuthorizationError) as error:
                raise self._failed(error) from error
            except (errors.ConnectionError, errors.TimeoutError, errors.ReadOnlyError) as error:
                self.close()
                failure = error
            except errors.RedisError as error:
                raise self._failed(error) from error
            if time.monotonic() > end:
                raise self._failed(failure) from failure
            _LOG.debug("%s; trying again", failure)
            self._waits.pause(random.uniform(pause / 2, pause))
            pause = min(pause * 2, _PAUSE_SECONDS_MAX)

    def _failed(self, error: Exception) -> Exception:
        if isinstance(error, CheckpointError):
            return error
        return ConnectorError(f"the server cannot be written: {type(error).__name__}: {error}")

    def _connected(self) -> Any:
        # An attempt that was left behind sends nothing more.
        self._waits.check()
        if self._client is None:
            package = extra("redis", "redis", _CALL)
            self._client = package.Redis.from_url(
                self._url, socket_connect_timeout=_CONNECT_SECONDS_MAX, socket_timeout=_ANSWER_SECONDS_MAX, decode_responses=False
            )
        return self._client


def _bytes(value: str | bytes) -> str:
    """Return bytes as a text of as many characters, which JSON can hold."""
    return (value if isinstance(value, bytes) else value.encode()).decode("latin-1")


def _texts(name: str, column: Any) -> list[str | None]:
    try:
        return [None if value is None else _bytes(value) for value in plain_texts(column)]
    except (OverflowError, UnicodeError) as error:
        raise DataError(f"column {name!r} cannot be written as text: {error}") from error


def _scripts(commands: list[Command]) -> list[list[str]]:
    """Return the texts that the scripts of an epoch get, cut where there are too many for one."""
    scripts: list[list[str]] = [[]]
    for verb, key, *rest in commands:
        if len(scripts[-1]) > _TEXTS_PER_SCRIPT:
            scripts.append([])
        scripts[-1] += [verb, key, str(len(rest)), *rest]
    return scripts


def _opened(handle: bytes) -> tuple[Mark, bytes]:
    head, _, packed = handle.partition(b"\n")
    return Mark.from_json(json.loads(head)["mark"]), packed
