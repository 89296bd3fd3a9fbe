"""A TCP proxy in a process of its own, which cuts connections in the middle of what they carry.

It stands before servers whose tests start no threads, because they fork. Each route has a listening port and the port of a
server. A connection that is cut is reset on both sides, at a byte of either direction that was drawn before: the server may
have got half of a request, or all of it and be about to answer. Instead of that, a connection may carry nothing for a while.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import signal
import socket
import struct
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["Cutter"]

PIECE = 65536
RESET = struct.pack("ii", 1, 0)
"""What lets a socket send a reset when it is closed."""


class Cutter:
    """The proxy, as the process that has started it sees it."""

    def __init__(self, names: list[str]) -> None:
        listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
        self.ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}
        self._pipe, theirs = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._pipe.close()
            with contextlib.suppress(EOFError, KeyboardInterrupt):
                _Loop(listeners, theirs).run()
            os._exit(0)
        theirs.close()
        for listener in listeners.values():
            listener.close()

    def lead(self, name: str, port: int) -> None:
        """Lead a route to a port."""
        self._ask("lead", name, port)

    def cut(self, name: str, seed: int, least: int, most: int, times: int, hang_seconds: float = 0) -> None:
        """Cut connections of a route so many times, each after a number of bytes between these, or let them hang for so long."""
        self._ask("cut", name, seed, least, most, times, hang_seconds)

    def away(self, name: str) -> None:
        """Cut all connections of a route, and let no new one in."""
        self._ask("away", name)

    def calm(self, name: str) -> int:
        """Cut no more; return how many connections were cut, or did hang, since the last time."""
        return int(self._ask("calm", name))

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)

    def _ask(self, *command: Any) -> Any:
        self._pipe.send(command)
        return self._pipe.recv()


class _Route:
    """Where connections of one listening port go, and what becomes of them."""

    def __init__(self) -> None:
        self.port = 0
        self.dice = random.Random(0)
        self.least, self.most, self.left = 0, 0, 0
        self.hang_seconds = 0.0
        self.is_away = False
        self.cuts = 0

    def bytes_to_live(self) -> float:
        """Draw after how many bytes the next connection is cut: small numbers are as likely as large ones."""
        if self.left <= 0:
            return float("inf")
        return int(self.least * (self.most / self.least) ** self.dice.random())


class _Pair:
    """A connection to the proxy, and the one to the server that belongs to it."""

    def __init__(self, route: _Route, client: socket.socket, server: socket.socket) -> None:
        self.route, self.ends = route, (client, server)
        self.left = route.bytes_to_live()

    def other(self, end: socket.socket) -> socket.socket:
        return self.ends[1] if end is self.ends[0] else self.ends[0]


class _Loop:
    """The process of the proxy. Pieces are small and both ends are local, so whoever reads slowly may hold up the others."""

    def __init__(self, listeners: dict[str, socket.socket], pipe: Connection) -> None:
        self._routes = {name: _Route() for name in listeners}
        self._pairs: set[_Pair] = set()
        self._pipe = pipe
        self._hanging: list[tuple[float, _Pair, socket.socket, bytes]] = []
        """When each is to go on, and what it has for whom."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(pipe, selectors.EVENT_READ, None)
        for name, listener in listeners.items():
            self._selector.register(listener, selectors.EVENT_READ, self._routes[name])

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select(0.05 if self._hanging else None):
                if key.data is None:
                    self._pipe.send(self._obey(*self._pipe.recv()))
                elif isinstance(key.data, _Route):
                    self._connect(key.data, key.fileobj)
                elif key.data in self._pairs:
                    self._carry(key.data, key.fileobj)
            now = time.monotonic()
            due = [hanging for hanging in self._hanging if hanging[0] <= now]
            self._hanging = [hanging for hanging in self._hanging if hanging[0] > now]
            for _, pair, end, data in due:
                self._resume(pair, end, data)

    def _obey(self, what: str, name: str, *more: Any) -> int:
        route = self._routes[name]
        if what == "lead":
            (route.port,) = more
        elif what == "away":
            route.is_away = True
            for pair in [pair for pair in self._pairs if pair.route is route]:
                self._cut(pair)
        elif what == "cut":
            seed, route.least, route.most, route.left, route.hang_seconds = more
            route.dice = random.Random(seed)
            for pair in self._pairs:
                if pair.route is route:
                    pair.left = route.bytes_to_live()
        else:
            route.is_away, route.left = False, 0
            for pair in self._pairs:
                if pair.route is route:
                    pair.left = float("inf")
            cuts, route.cuts = route.cuts, 0
            return cuts
        return 0

    def _connect(self, route: _Route, listener: Any) -> None:
        client, _ = listener.accept()
        try:
            if route.is_away:
                raise ConnectionError
            server = socket.create_connection(("127.0.0.1", route.port), timeout=5)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return
        pair = _Pair(route, client, server)
        self._pairs.add(pair)
        for end in pair.ends:
            end.settimeout(5)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end, selectors.EVENT_READ, pair)

    def _carry(self, pair: _Pair, end: Any) -> None:
        try:
            data = end.recv(PIECE)
            kept = data[: int(min(pair.left, len(data)))]
            pair.other(end).sendall(kept)
            rest = data[len(kept) :]
        except OSError:
            self._close(pair)
            return
        pair.left -= len(data)
        if not data:
            self._close(pair)
        elif pair.left <= 0:
            pair.route.left -= 1
            if pair.route.hang_seconds > 0:
                self._hang(pair, pair.other(end), rest)
            else:
                self._cut(pair)
            if pair.route.left <= 0:
                for other in self._pairs:
                    if other.route is pair.route:
                        other.left = float("inf")

    def _cut(self, pair: _Pair) -> None:
        pair.route.cuts += 1
        for end in pair.ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._close(pair)

    def _hang(self, pair: _Pair, end: socket.socket, data: bytes) -> None:
        pair.route.cuts += 1
        pair.left = pair.route.bytes_to_live()
        for each in pair.ends:
            self._selector.unregister(each)
        self._pairs.discard(pair)
        self._hanging.append((time.monotonic() + pair.route.hang_seconds, pair, end, data))

    def _resume(self, pair: _Pair, end: socket.socket, data: bytes) -> None:
        for each in pair.ends:
            self._selector.register(each, selectors.EVENT_READ, pair)
        self._pairs.add(pair)
        try:
            end.sendall(data)
        except OSError:
            self._close(pair)

    def _close(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        for end in pair.ends:
            self._selector.unregister(end)
            end.close()
