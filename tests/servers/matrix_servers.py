"""The servers of one worker of the crash matrix: one of each kind, started when it is first needed, and a proxy before them.

A worker must have no threads, since it forks. Clients that have some (Confluent's, deltalake) work in :func:`apart`.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import time
import traceback
from collections.abc import Callable
from functools import cached_property
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, TypeVar

import kafka
import postgres
import s3
from cluster import Cluster
from cutter import Cutter

__all__ = ["KINDS", "Servers", "apart", "of_this_worker", "wait_until"]

Result = TypeVar("Result")

KINDS = ("kafka", "postgres", "s3")
SMALL = "8m"
"""The size of the filesystem that fills up."""

LISTENERS = """\
listeners=PLAINTEXT://127.0.0.1:{{port}},CUT://127.0.0.1:{cut},CONTROLLER://127.0.0.1:{{controller}}
advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},CUT://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CUT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.segment.delete.delay.ms=100
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
"""
"""A second address, which leads through the proxy. A broker that is killed may come back once its session is over."""


def apart(call: Callable[[], Result], seconds: float = 120) -> Result:
    """Call a function in a forked process, and return or raise what it does."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(int(seconds))
        try:
            told: tuple[bool, Any] = True, call()
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            told = False, f"{type(error).__name__}: {error} at {last.name}:{last.lineno}"
        with os.fdopen(send, "wb") as pipe:
            pickle.dump(told, pipe)
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    if not data:
        raise RuntimeError(f"a client has died, or has not ended after {seconds} s")
    is_good, result = pickle.loads(data)
    if not is_good:
        raise RuntimeError(result)
    return result  # type: ignore[no-any-return]


class Servers:
    """One server of each kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.started: dict[str, Any] = {}
        self.made: dict[str, str] = {}
        """What the jobs of this worker have in common."""
        self._stopped: list[int] = []

    @cached_property
    def cutter(self) -> Cutter:
        """The proxy before all of them."""
        return Cutter(list(KINDS))

    @cached_property
    def kafka(self) -> kafka.Broker:
        """The broker; it has a second address, which leads through the proxy, also for those who ask it where it is."""
        (self.folder / "kafka").mkdir()
        cut = kafka.free_port()
        broker = kafka.Broker(self.folder / "kafka", extra=LISTENERS.format(cut=cut, proxy=self.cutter.ports["kafka"]))
        # Known before it is started: whatever happens then, it is ended.
        self.started["kafka"] = broker
        broker.start()
        self.cutter.lead("kafka", cut)
        return broker

    @cached_property
    def postgres(self) -> postgres.Server:
        """The database server."""
        self.started["postgres"] = started = postgres.Server()
        started.start()
        self.cutter.lead("postgres", started.port)
        return started

    @cached_property
    def s3(self) -> s3.Bucket:
        """A bucket of the object store."""
        (self.folder / "s3").mkdir()
        self.started["s3"] = started = s3.Server(self.folder / "s3")
        started.start()
        self.cutter.lead("s3", started.port)
        return s3.Bucket(started, "matrix")

    @cached_property
    def small(self) -> Path:
        """A small filesystem."""
        path = self.folder / "small"
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(path)], check=True)
        self.started["small"] = path
        return path

    def address(self, kind: str, is_cut: bool) -> str:
        """Where a job finds a server: itself, or the proxy before it."""
        port = self.cutter.ports[kind] if is_cut else self.started[kind].port
        return {"kafka": "127.0.0.1:{}", "postgres": f"postgresql://{postgres.USER}@127.0.0.1:{{}}/postgres", "s3": "http://127.0.0.1:{}"}[kind].format(port)

    def cluster(self) -> Cluster:
        """What asks the broker, to be used in :func:`apart`."""
        return Cluster(self.kafka.address, "matrix")

    def kill(self, kind: str) -> None:
        """Kill a server as a crash does. The store has its objects in memory: there all connections die, and nobody answers."""
        if kind == "s3":
            self.cutter.away(kind)
        else:
            self.started[kind].kill()

    def start(self, kind: str) -> None:
        """Start it again, and wait until it answers."""
        if kind == "s3":
            self.cutter.calm(kind)
            return
        self.started[kind].start()
        if kind == "kafka":
            apart(lambda: Cluster(self.started[kind].address, "matrix").ready())

    def pause(self, kind: str) -> None:
        """Stop all processes of a server for a while."""
        root = self.started[kind].pid
        os.kill(root, signal.SIGSTOP)
        children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
        self._stopped = [root, *map(int, children)]
        for pid in self._stopped[1:]:
            _send(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them go on."""
        for pid in reversed(self._stopped):
            _send(pid, signal.SIGCONT)
        self._stopped = []

    def stop(self) -> None:
        """End all."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.go_on()
        for kind, started in self.started.items():
            if kind == "kafka":
                started.kill()
            elif kind == "small":
                subprocess.run(["umount", "-l", str(started)], check=False)
            else:
                started.stop()
        if "cutter" in self.__dict__:
            self.cutter.stop()


def _send(pid: int, what: signal.Signals) -> None:
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        pass


_SERVERS: dict[int, Servers] = {}


def of_this_worker(root: Path) -> Servers:
    """Return the servers of this process, which are stopped when it ends."""
    pid = os.getpid()
    if pid not in _SERVERS:

        def leave(number: int, frame: Any) -> None:
            if os.getpid() == pid:
                raise SystemExit(1)
            # A job that has just been forked dies as any process does.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signal.SIGTERM, leave)
        _SERVERS[pid] = Servers(root / f"worker-{pid}")
        Finalize(None, _SERVERS[pid].stop, exitpriority=10)
    return _SERVERS[pid]


def wait_until(is_true: Callable[[], bool], seconds: float, pause: float = 0.02) -> float:
    """Wait until a claim holds; return how long that took, or infinity if it does not hold in time."""
    began = time.monotonic()
    while not is_true():
        if time.monotonic() - began > seconds:
            return float("inf")
        time.sleep(pause)
    return time.monotonic() - began
