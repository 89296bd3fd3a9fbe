"""Java servers for tests: jars that Maven copies once, into a folder outside of the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["Jars"]

JAVA_MIN = 17


class Jars:
    """The jars that a POM of this folder names.

    Parameters
    ----------
    what
        What they are, for people.
    name
        The folder that they are copied into, in the cache: it has the version in its name.
    pom
        The file in this folder.
    """

    def __init__(self, what: str, name: str, pom: str) -> None:
        self.what = what
        self._name = name
        self._pom = Path(__file__).with_name(pom)

    def folder(self) -> Path:
        """Give the folder of the jars."""
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache) / "millstream" / self._name

    def missing(self) -> str | None:
        """Say what is missing here to fetch and run them; None if nothing is."""
        java = shutil.which("java")
        if java is None:
            return f"there is no java; {self.what} needs version {JAVA_MIN} or newer (Debian: apt install openjdk-17-jre-headless)"
        told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
        version = told.split('"')[1].split(".")[0] if told.count('"') >= 2 else ""
        if not version.isdigit() or int(version) < JAVA_MIN:
            return f"java is {told.splitlines()[0] if told else 'unusable'}; {self.what} needs version {JAVA_MIN} or newer"
        if not self._is_fetched() and shutil.which("mvn") is None:
            return f"there is no mvn to fetch {self.what} with (Debian: apt install maven)"
        return None

    def _is_fetched(self) -> bool:
        return (self.folder() / "complete").exists()

    def fetch(self) -> None:
        """Copy the jars, unless they are there."""
        if self._is_fetched():
            return
        where = self.folder()
        where.mkdir(parents=True, exist_ok=True)
        command = ["mvn", "-q", "-B", "-f", str(self._pom), "dependency:copy-dependencies"]
        subprocess.run([*command, f"-DoutputDirectory={where}", "-DincludeScope=runtime"], check=True)
        (where / "complete").touch()
