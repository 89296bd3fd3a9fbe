"""A real MariaDB server for tests, on a free loopback port, with its data in a temporary folder.

    python tests/servers/mariadb.py PORT      runs a server until Ctrl-C, to try things by hand
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

import pymysql
from postgres import free_port

START_SECONDS_MAX = 120
USER = "millstream"
SECRET = "hunter2-hunter2"
PATHS = "/usr/sbin:/usr/local/sbin:/usr/libexec"


def program(*names: str) -> str | None:
    """Give the first of these programs that is there."""
    for name in names:
        found = shutil.which(name) or shutil.which(name, path=PATHS)
        if found is not None:
            return found
    return None


def missing() -> str | None:
    """Say what is missing to run a server, or give None."""
    if program("mariadbd") is None or program("mariadb-install-db") is None:
        return "no MariaDB: install the package mariadb-server (its programs mariadbd and mariadb-install-db are needed)"
    if os.getuid() == 0 and _owner() is None:
        return "MariaDB does not run as root, and there is no user mysql or nobody"
    return None


def _owner() -> str | None:
    for name in ("mysql", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    return None


class Server:
    """A server."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        # Not below pytest's folder, which only its own user may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="millstream-mariadb-"))
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            owner = pwd.getpwnam(_owner() or "nobody")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Who needs no password; a database may follow."""
        return f"mysql://{USER}@127.0.0.1:{self.port}"

    @property
    def secret_url(self) -> str:
        """Who needs one."""
        return f"mysql://secretive:{SECRET}@127.0.0.1:{self.port}"

    @property
    def by_socket(self) -> Path:
        """The socket, by which nothing but the first user is made."""
        return self.folder / "socket"

    @property
    def certificate(self) -> Path:
        """The certificate of the server, signed by itself, of the host "localhost"."""
        return self.folder / "server.crt"

    def start(self) -> Server:
        """Start it; the first time with a new database."""
        data = self.folder / "data"
        if data.exists():
            self._run()
            return self
        install = program("mariadb-install-db")
        assert install is not None
        options = ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        command = [install, *options, f"--datadir={data}", f"--tmpdir={self.folder}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder, **self._as)
        self._certify()
        self._run(self._probe)
        with pymysql.connect(unix_socket=str(self.by_socket), user="root", autocommit=True) as root, root.cursor() as cursor:
            cursor.execute(f"CREATE USER {USER}@'127.0.0.1'")
            cursor.execute(f"CREATE USER {USER}@'localhost'")
            cursor.execute(f"CREATE USER secretive@'127.0.0.1' IDENTIFIED BY '{SECRET}'")
            for user in (f"{USER}@'127.0.0.1'", f"{USER}@'localhost'", "secretive@'127.0.0.1'"):
                cursor.execute(f"GRANT ALL ON *.* TO {user} WITH GRANT OPTION")
        return self

    def _certify(self) -> None:
        if shutil.which("openssl") is None:
            return
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "server.key", "-out", "server.crt"]
        subprocess.run([*command, *names], check=True, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as)

    def _probe(self) -> Any:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.by_socket))
        return pymysql.connect(unix_socket=str(self.by_socket), user="root", autocommit=True)

    def _run(self, probe: Any = None) -> None:
        server = program("mariadbd")
        assert server is not None
        options = [
            "--no-defaults", f"--datadir={self.folder / 'data'}", f"--socket={self.by_socket}", f"--pid-file={self.folder / 'pid'}",
            "--bind-address=127.0.0.1", f"--port={self.port}", f"--tmpdir={self.folder}", "--skip-log-bin",
            "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M",
            # The machine does not crash in a test; a server that is killed leaves what it wrote to the system.
            "--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync", "--max-connections=60",
            # What a server may be set to, and jobs must not depend on.
            "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES", "--default-time-zone=+05:30", "--character-set-server=latin1",
        ]  # fmt: skip
        if self.certificate.exists():
            options += [f"--ssl-cert={self.certificate}", f"--ssl-key={self.folder / 'server.key'}"]
        end = time.monotonic() + START_SECONDS_MAX
        while True:
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen([server, *options], stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **self._as)
            while self._process.poll() is None:
                try:
                    (probe or self.connect)().close()
                    return
                except (pymysql.err.OperationalError, OSError):
                    assert time.monotonic() < end, (self.folder / "log").read_text()[-3000:]
                    time.sleep(0.05)
            # Files of one that was killed may still be locked.
            assert time.monotonic() < end, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.2)

    def connect(self) -> pymysql.Connection[Any]:
        """Connect with the client that judges."""
        init = "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES'"
        where: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "user": USER, "database": "mysql"}
        return pymysql.connect(**where, charset="utf8mb4", autocommit=True, init_command=init)

    def execute(self, *statements: str) -> None:
        """Do something."""
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def rows(self, sql: str) -> list[Any]:
        """Ask something."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it, and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


if __name__ == "__main__":
    server = Server(int(sys.argv[1]) if len(sys.argv) > 1 else None).start()
    print(server.url)
    try:
        signal.pause()
    finally:
        server.stop()
