"""A real PostgreSQL server for tests, on a free loopback port, with its data in a temporary folder.

    python tests/servers/postgres.py PORT      runs a server until Ctrl-C, to try things by hand
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

START_SECONDS_MAX = 120
USER = "millstream"
SECRET = "hunter2-hunter2"

CONF = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
max_connections = 60
shared_buffers = 32MB
# The machine does not crash in a test; a server that is killed leaves what it wrote to the system.
fsync = off
full_page_writes = off
ssl = {ssl}
wal_level = logical
max_replication_slots = 40
max_wal_senders = 40
max_prepared_transactions = 40
{more}
"""


def programs() -> Path | None:
    """Give the folder of the server's programs: the newest of Debian's, or that of PATH."""
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if versions:
        return max(versions, key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    return None if found is None else Path(found).parent


def missing() -> str | None:
    """Say what is missing to run a server, or give None."""
    if programs() is None:
        return "no PostgreSQL: install the package postgresql (its programs initdb and postgres are needed)"
    if os.getuid() == 0 and _owner() is None:
        return "PostgreSQL does not run as root, and there is no user postgres or nobody"
    return None


def _owner() -> str | None:
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    return None


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server with one database."""

    def __init__(self, port: int | None = None, more: str = "") -> None:
        self._more = more
        self.port = port or free_port()
        # Not below pytest's folder, which only its own user may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="millstream-postgres-"))
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            owner = pwd.getpwnam(_owner() or "nobody")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Who needs no password."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    @property
    def secret_url(self) -> str:
        """Who needs one."""
        return f"postgresql://secretive:{SECRET}@127.0.0.1:{self.port}/postgres"

    def start(self) -> Server:
        """Start it; the first time with a new database."""
        found = programs()
        assert found is not None
        data = self.folder / "data"
        if not data.exists():
            command = [str(found / "initdb"), "-D", str(data), "-U", USER, "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **self._as)
            hba = data / "pg_hba.conf"
            hba.write_text(f"host all secretive 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
            self._certificate(data)
            with (data / "postgresql.conf").open("a") as conf:
                conf.write(CONF.format(port=self.port, folder=self.folder, ssl="on" if (data / "server.key").exists() else "off", more=self._more))
            self._run()
            with self.connect() as connection:
                connection.execute(f"CREATE ROLE secretive LOGIN SUPERUSER PASSWORD '{SECRET}'")
            return self
        self._run()
        return self

    def _certificate(self, data: Path) -> None:
        if shutil.which("openssl") is None:
            return
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "server.key", "-out", "server.crt"]
        subprocess.run([*command, *names], check=True, cwd=data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as)
        (data / "server.key").chmod(0o600)

    @property
    def certificate(self) -> Path:
        """The certificate of the server, signed by itself, of the host "localhost"."""
        return self.folder / "data" / "server.crt"

    def _run(self) -> None:
        found = programs()
        assert found is not None
        end = time.monotonic() + START_SECONDS_MAX
        while True:
            with (self.folder / "log").open("ab") as log:
                command = [str(found / "postgres"), "-D", str(self.folder / "data")]
                self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **self._as)
            while self._process.poll() is None:
                try:
                    self.connect().close()
                    return
                except psycopg.OperationalError:
                    assert time.monotonic() < end, (self.folder / "log").read_text()[-3000:]
                    time.sleep(0.05)
            # Processes of one that was killed may still be about to end.
            assert time.monotonic() < end, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.2)

    def connect(self) -> psycopg.Connection[Any]:
        """Connect with the client that judges."""
        return psycopg.connect(self.url, autocommit=True)

    def execute(self, sql: str, *parameters: object) -> None:
        """Do something."""
        with self.connect() as connection:
            connection.execute(sql.encode(), parameters or None)

    def rows(self, sql: str) -> list[Any]:
        """Ask something."""
        with self.connect() as connection:
            return connection.execute(sql.encode()).fetchall()

    @property
    def pid(self) -> int:
        """The process whose children are the others."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it, and remove its data."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)


if __name__ == "__main__":
    server = Server(int(sys.argv[1]) if len(sys.argv) > 1 else None).start()
    print(server.url)
    try:
        signal.pause()
    finally:
        server.stop()
