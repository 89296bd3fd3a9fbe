"""A real Apache Kafka broker for tests: one node, KRaft, on free loopback ports, with its data in a temporary folder.

    python tests/servers/kafka.py fetch         copies the broker's jars with Maven, once
    python tests/servers/kafka.py run PORT      runs a broker until Ctrl-C, to try things by hand
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from maven import Jars

VERSION = "4.3.1"
START_SECONDS_MAX = 120

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.partitions=1
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
"""

LOG4J = """\
Configuration:
  status: error
  Appenders:
    Console:
      name: out
      target: SYSTEM_OUT
      PatternLayout:
        pattern: "%d %p %m (%c)%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        - ref: out
"""


# The broker of a test should start soon; one that is measured has Java's whole compiler.
JAVA = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


JARS = Jars("Kafka", f"kafka-{VERSION}", "pom.xml")
missing, fetch = JARS.missing, JARS.fetch


def free_port() -> int:
    """Give a port of the loopback interface that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Broker:
    """A broker that can be killed, stopped for a while, and started again on its data."""

    def __init__(self, folder: Path, port: int | None = None, extra: str = "", java: Sequence[str] = JAVA) -> None:
        self.folder = folder
        self._options = java
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        data = folder / "data"
        properties = (PROPERTIES + extra).format(port=self.port, controller=free_port(), data=data)
        self._config = folder / "server.properties"
        self._config.write_text(properties)
        self._log4j = folder / "log4j2.yaml"
        self._log4j.write_text(LOG4J)
        self._java(["kafka.tools.StorageTool", "format", "-t", "bWlsbHN0cmVhbS10ZXN0cw", "-c", str(self._config)])

    def _command(self, arguments: list[str]) -> list[str]:
        return ["java", *self._options, f"-Dlog4j2.configurationFile={self._log4j}", "-cp", f"{JARS.folder()}/*", *arguments]

    def _java(self, arguments: list[str]) -> None:
        done = subprocess.run(self._command(arguments), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{arguments[0]} failed:\n{done.stdout}{done.stderr}")

    def start(self) -> Broker:
        """Start it and wait until it answers."""
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(self._command(["kafka.Kafka", str(self._config)]), stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return self
        self.kill()
        raise RuntimeError("the broker did not start:\n" + (self.folder / "broker.log").read_text()[-4000:])

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill it, as a crash does."""
        self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after :meth:`pause`."""
        self._send(signal.SIGCONT)

    def _send(self, what: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(what)


def main(arguments: list[str]) -> int:
    """Fetch the broker, or run one."""
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    fetch()
    if arguments[:1] == ["run"]:
        with tempfile.TemporaryDirectory() as folder:
            broker = Broker(Path(folder), int(arguments[1]) if len(arguments) > 1 else None).start()
            print(f"a broker listens on {broker.address}", flush=True)
            try:
                signal.pause()
            except KeyboardInterrupt:
                pass
            finally:
                broker.kill()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
