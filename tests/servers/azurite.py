"""An Azure Blob Storage for tests: Azurite, Microsoft's emulator, which npm installs once, on a free loopback port with its data in memory.

    python tests/servers/azurite.py fetch       installs it
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote, urlencode

from postgres import free_port

VERSION = "3.35.0"
START_SECONDS_MAX = 60
FETCH_SECONDS_MAX = 180
ACCOUNT = "devstoreaccount1"
# The same for everybody: it is printed in the manual.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def _npm() -> str | None:
    """The npm of the system, or that of the package of Node.js for Python, which the checks of types bring along."""
    return shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))


def missing() -> str | None:
    """Say what is missing to run it, or give None."""
    if not _is_fetched() and _npm() is None:
        return "there is no npm to install Azurite with (Debian: apt install npm)"
    return None


def folder() -> Path:
    """Give the folder that it is installed in."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "millstream" / f"azurite-{VERSION}"


def _is_fetched() -> bool:
    return (folder() / "complete").exists()


def fetch() -> str | None:
    """Install it, unless it is there; give why it cannot be."""
    if _is_fetched():
        return None
    folder().mkdir(parents=True, exist_ok=True)
    npm = _npm()
    assert npm is not None
    command = [npm, "install", "--prefix", str(folder()), "--no-audit", "--no-fund", "--no-progress", "--silent", f"azurite@{VERSION}"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=FETCH_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return f"npm has not installed Azurite within {FETCH_SECONDS_MAX} s"
    if done.returncode != 0:
        return f"npm cannot install Azurite: {(done.stderr or done.stdout).strip()[-500:]}"
    (folder() / "complete").touch()
    return None


class Server:
    """An Azurite, whose blobs are in its memory."""

    def __init__(self, work: Path) -> None:
        self.port = free_port()
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where its account is."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    def start(self) -> Server:
        """Start it and wait until it answers."""
        node = shutil.which("node") or shutil.which("node", path=str(Path(sys.executable).parent)) or "node"
        script = folder() / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
        command = [node, str(script), "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]
        log = self._work / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen([*command, "--disableTelemetry"], stdout=out, stderr=out, cwd=self._work)
        end = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                self.ask("GET", "", comp="list")
                return self
            except (OSError, urllib.error.URLError):
                assert time.monotonic() < end and self._process.poll() is None, log.read_text()[-3000:]
                time.sleep(0.1)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, method: str, path: str, data: bytes | None = None, *, kind: str = "", **query: str) -> bytes:
        """Send a request as Azure's own clients sign it."""
        date = datetime.now(timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", **({"x-ms-blob-type": kind} if kind else {})}
        length = str(len(data)) if data else ""
        # Python sets this type where it sends something.
        content = "application/octet-stream" if data is not None else ""
        signed = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
        resource = f"/{ACCOUNT}/{ACCOUNT}{quote(path)}" + "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        text = f"{method}\n\n\n{length}\n\n{content}\n\n\n\n\n\n\n{signed}{resource}"
        signature = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
        headers["authorization"] = f"SharedKey {ACCOUNT}:{signature}"
        if content:
            headers["content-type"] = content
        url = f"{self.endpoint}{quote(path)}" + (f"?{urlencode(query)}" if query else "")
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as found:
            return bytes(found.read())


class Bucket:
    """A container that no other test has."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name
        self.options: dict[str, str | bool | int] = {
            "azure_storage_account_name": ACCOUNT,
            "azure_storage_account_key": KEY,
            "azure_endpoint": server.endpoint,
            "allow_http": True,
        }
        server.ask("PUT", f"/{name}", restype="container")

    @property
    def root(self) -> str:
        """The URL of the container."""
        return f"az://{self.name}"

    def url(self, key: str = "") -> str:
        """The URL of something in it."""
        return f"{self.root}/{key}"

    def put(self, key: str, data: bytes) -> None:
        """Write a blob."""
        self.server.ask("PUT", f"/{self.name}/{key}", data, kind="BlockBlob")

    def get(self, key: str) -> bytes:
        """Read a blob."""
        return self.server.ask("GET", f"/{self.name}/{key}")

    def names(self, prefix: str = "") -> list[str]:
        """The names of all blobs below a prefix."""
        found: list[str] = []
        marker = ""
        while True:
            more = {"marker": marker} if marker else {}
            tree = ElementTree.fromstring(self.server.ask("GET", f"/{self.name}", comp="list", prefix=prefix, restype="container", **more))
            found += [name.text or "" for name in tree.iter("Name")]
            marker = tree.findtext("NextMarker") or ""
            if not marker:
                return found

    def unfinished(self) -> list[str]:
        """Nothing: Azure drops blocks of no blob after a week, and nobody can do so before."""
        return []


if __name__ == "__main__":
    reason = missing() or fetch()
    if reason is not None:
        raise SystemExit(reason)
