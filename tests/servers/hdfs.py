"""A real HDFS for tests: the NameNode and a DataNode of Hadoop's mini cluster, on free loopback ports, with their data in a temporary folder.

    python tests/servers/hdfs.py fetch       copies the jars with Maven, once
    python tests/servers/hdfs.py run         runs a cluster until Ctrl-C, to try things by hand
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from maven import Jars
from postgres import free_port

VERSION = "3.4.2"
START_SECONDS_MAX = 120
SUPERUSER = "hdfs"
"""Who has started the NameNode, and may do all."""
OPTIONS: dict[str, str | bool | int] = {"hdfs_user": "etl"}
HIDDEN = ".writing"
"""What the names of files end with that are not complete."""

NAME_NODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DATA_NODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"
# Lost nodes are noticed soon, and writes to the only one wait for it.
PROPERTIES = {
    "dfs.replication": "1",
    "dfs.heartbeat.interval": "1",
    "dfs.namenode.heartbeat.recheck-interval": "1000",
    "dfs.namenode.safemode.extension": "0",
    "dfs.namenode.fs-limits.min-block-size": "1048576",
    "dfs.blocksize": "1048576",
    "dfs.permissions.superusergroup": "supergroup",
    "dfs.namenode.avoid.write.stale.datanode": "false",
    "dfs.client.block.write.replace-datanode-on-failure.policy": "NEVER",
}
JAVA = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-DHADOOP_USER_NAME={SUPERUSER}", "-Djava.net.preferIPv4Stack=true")


JARS = Jars("Hadoop", f"hadoop-{VERSION}", "pom.hadoop.xml")
missing, fetch = JARS.missing, JARS.fetch


class Cluster:
    """A NameNode and a DataNode, each of which can be killed, stopped for a while, and started again on its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.web = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        data, ipc, data_web = free_port(), free_port(), free_port()
        properties = {
            **PROPERTIES,
            "fs.defaultFS": f"hdfs://{self.address}",
            "hadoop.tmp.dir": str(folder / "tmp"),
            "dfs.namenode.name.dir": (folder / "name").as_uri(),
            "dfs.datanode.data.dir": (folder / "data").as_uri(),
            "dfs.namenode.http-address": f"127.0.0.1:{self.web}",
            "dfs.datanode.address": f"127.0.0.1:{data}",
            "dfs.datanode.ipc.address": f"127.0.0.1:{ipc}",
            "dfs.datanode.http.address": f"127.0.0.1:{data_web}",
            "dfs.datanode.hostname": "127.0.0.1",
        }
        self._config = folder / "conf"
        self._config.mkdir()
        text = "".join(f"<property><name>{name}</name><value>{value}</value></property>\n" for name, value in properties.items())
        for name in ("core-site.xml", "hdfs-site.xml"):
            (self._config / name).write_text(f"<configuration>\n{text}</configuration>\n")
        done = subprocess.run(self._command(NAME_NODE, "-format", "-nonInteractive"), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the NameNode was not formatted:\n{done.stdout}{done.stderr}")

    def _command(self, main: str, *arguments: str) -> list[str]:
        return ["java", *JAVA, "-cp", f"{self._config}:{JARS.folder()}/*", main, *arguments]

    def start(self) -> Cluster:
        """Start what does not run, and wait until files can be written."""
        for main in (NAME_NODE, DATA_NODE):
            if main not in self._processes:
                with self._log(main).open("ab") as log:
                    environment = {**os.environ, "HADOOP_USER_NAME": SUPERUSER}
                    self._processes[main] = subprocess.Popen(self._command(main), stdout=log, stderr=log, env=environment)
        end = time.monotonic() + START_SECONDS_MAX
        while not self._is_ready():
            ended = [main for main, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"HDFS did not start ({ended}):\n" + "".join(self._log(main).read_text()[-3000:] for main in (NAME_NODE, DATA_NODE)))
            time.sleep(0.1)
        return self

    def _log(self, main: str) -> Path:
        return self.folder / f"{main.rsplit('.', 1)[1]}.log"

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                pass
            state = self._bean("FSNamesystemState")
            return state["NumLiveDataNodes"] == 1 and self._bean("NameNodeInfo")["Safemode"] == ""
        except (OSError, LookupError):
            return False

    def _bean(self, name: str) -> dict[str, Any]:
        query = f"http://127.0.0.1:{self.web}/jmx?qry=Hadoop:service=NameNode,name={name}"
        with urllib.request.urlopen(query, timeout=10) as found:
            return dict(json.load(found)["beans"][0])

    def kill(self, main: str) -> None:
        """Kill one of them, as a crash does."""
        process = self._processes.pop(main)
        process.kill()
        process.wait()

    def pause(self, main: str) -> None:
        """Let one of them hang."""
        self._processes[main].send_signal(signal.SIGSTOP)

    def go_on(self, main: str) -> None:
        """Let it go on after :meth:`pause`."""
        self._processes[main].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill all."""
        for main in list(self._processes):
            self.kill(main)

    # -- what judges: WebHDFS, which is another protocol than the engine's ------------------------------------------------

    def _ask(self, method: str, path: str, operation: str, data: bytes | None = None, **options: str) -> bytes:
        query = urlencode({"op": operation, "user.name": SUPERUSER, **options})
        url = f"http://127.0.0.1:{self.web}/webhdfs/v1{quote(path)}?{query}"
        request = urllib.request.Request(url, method=method)
        if data is not None:
            # The NameNode names the DataNode that takes the bytes.
            with urllib.request.urlopen(urllib.request.Request(url + "&noredirect=true", method=method), timeout=60) as found:
                where = json.load(found)["Location"]
            request = urllib.request.Request(where, data, {"content-type": "application/octet-stream"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as found:
            return bytes(found.read())

    def put(self, path: str, data: bytes, user: str = SUPERUSER) -> None:
        """Write a file, over one of its name; directories that are made for it are the user's, too."""
        self._ask("PUT", path, "CREATE", data, overwrite="true", **{"user.name": user})

    def get(self, path: str) -> bytes:
        """Read a file."""
        return self._ask("GET", path, "OPEN")

    def delete(self, path: str) -> None:
        """Delete a file, or a directory with all that is in it."""
        self._ask("DELETE", path, "DELETE", recursive="true")

    def rename(self, path: str, to: str) -> None:
        """Rename a file."""
        assert json.loads(self._ask("PUT", path, "RENAME", destination=to))["boolean"]

    def make(self, path: str, owner: str, permission: str = "755") -> None:
        """Make a directory of somebody."""
        self._ask("PUT", path, "MKDIRS", permission=permission)
        self._ask("PUT", path, "SETOWNER", owner=owner)

    def files(self, path: str) -> list[str]:
        """The paths of all files in a directory, at any depth, also of those that are hidden."""
        try:
            listed = json.loads(self._ask("GET", path, "LISTSTATUS"))["FileStatuses"]["FileStatus"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        found = []
        for entry in listed:
            inner = f"{path.rstrip('/')}/{entry['pathSuffix']}"
            found += self.files(inner) if entry["type"] == "DIRECTORY" else [inner]
        return sorted(found)


class Folder:
    """A directory of HDFS that no other test has, of the user that the engine is."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.path, self.options = cluster, f"/{name}", OPTIONS
        cluster.make(self.path, str(OPTIONS["hdfs_user"]))

    @property
    def root(self) -> str:
        """The URL of the cluster."""
        return f"hdfs://{self.cluster.address}"

    def url(self, name: str = "") -> str:
        """The URL of something in it."""
        return f"{self.root}{self.path}/{name}"

    def put(self, name: str, data: bytes) -> None:
        """Write a file as most programs do: under another name, and renamed; one that is there is deleted before."""
        self.cluster.put(f"{self.path}/{name}._COPYING_", data, str(OPTIONS["hdfs_user"]))
        self.cluster.delete(f"{self.path}/{name}")
        self.cluster.rename(f"{self.path}/{name}._COPYING_", f"{self.path}/{name}")

    def get(self, name: str) -> bytes:
        """Read a file."""
        return self.cluster.get(f"{self.path}/{name}")

    def delete(self, name: str) -> None:
        """Delete a file or a directory."""
        self.cluster.delete(f"{self.path}/{name}")

    def names(self, name: str = "") -> list[str]:
        """The names of all files below, also of those that are hidden."""
        start = len(self.path) + 1
        return [path[start:] for path in self.cluster.files(f"{self.path}/{name}".rstrip("/"))]

    def unfinished(self) -> list[str]:
        """The names of files that are not complete."""
        return [name for name in self.names() if name.endswith(HIDDEN)]


def main(arguments: list[str]) -> int:
    """Fetch the jars, or run a cluster."""
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    fetch()
    if arguments[:1] == ["run"]:
        with tempfile.TemporaryDirectory() as folder:
            cluster = Cluster(Path(folder)).start()
            print(f"hdfs://{cluster.address}, http://127.0.0.1:{cluster.web}", flush=True)
            try:
                signal.pause()
            except KeyboardInterrupt:
                pass
            finally:
                cluster.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
