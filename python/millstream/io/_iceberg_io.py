"""Files of Iceberg tables: durable on this machine, recorded so that they can be removed again, or in memory alone.

Imports pyiceberg, so it is itself imported only where the package is known to be there.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from typing import Any

from pyiceberg.io import FileIO, InputFile, OutputFile
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from millstream.io._delta_files import sync_directory

__all__ = ["MemoryFiles", "RecordedFiles", "SyncedFiles"]


class SyncedFiles(PyArrowFileIO):
    """The files of pyarrow, of which local ones are durable when they are closed.

    A catalog in a database is durable when it confirms a commit. What it points to must not come later.
    """

    def new_output(self, location: str) -> PyArrowFile:
        """Return a file to write."""
        scheme, netloc, path = self.parse_location(location, self.properties)
        if scheme != "file":
            return super().new_output(location)
        return _SyncedFile(location=location, path=path, fs=self.fs_by_scheme(scheme, netloc))


class _SyncedFile(PyArrowFile):
    """A local file."""

    def create(self, overwrite: bool = False) -> Any:
        """Open it, and make the directories that it is in."""
        folder = os.path.dirname(self._path)
        _make_directories(folder)
        return _SyncedStream(open(self._path, "wb" if overwrite else "xb", buffering=0), folder)  # noqa: SIM115 - closed by the caller


class _SyncedStream(io.BufferedWriter):
    """Makes what was written and its name durable when it is closed."""

    def __init__(self, raw: Any, folder: str) -> None:
        super().__init__(raw)
        self._folder = folder

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self.flush()
            os.fsync(self.fileno())
            super().close()
            sync_directory(self._folder)


def _make_directories(path: str) -> None:
    """Make directories, the names of which are durable."""
    made = []
    while path and not os.path.isdir(path):
        made.append(path)
        path = os.path.dirname(path)
    for folder in reversed(made):
        os.makedirs(folder, exist_ok=True)
        sync_directory(os.path.dirname(folder))


class RecordedFiles(FileIO):
    """The files of a table, of which those that are written are remembered."""

    def __init__(self, files: FileIO) -> None:
        super().__init__(files.properties)
        self._files = files
        self._lock = threading.Lock()
        self._written: list[str] = []

    def new_input(self, location: str) -> InputFile:
        """Return a file to read."""
        return self._files.new_input(location)

    def new_output(self, location: str) -> OutputFile:
        """Return a file to write."""
        with self._lock:
            self._written.append(location)
        return self._files.new_output(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Remove a file."""
        self._files.delete(location)

    def discard(self) -> None:
        """Remove what was written."""
        for location in self._written:
            # One that stays takes space, and nothing names it.
            with contextlib.suppress(Exception):
                self._files.delete(location)
        self._written = []


class MemoryFiles(FileIO):
    """Files in memory, by name."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        super().__init__()
        self.files = {} if files is None else files

    def new_input(self, location: str) -> InputFile:
        """Return a file to read."""
        return _MemoryFile(location, self.files)

    def new_output(self, location: str) -> OutputFile:
        """Return a file to write."""
        return _MemoryFile(location, self.files)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Remove a file."""
        del self.files[location if isinstance(location, str) else location.location]


class _MemoryFile(InputFile, OutputFile):
    """A file in memory."""

    def __init__(self, location: str, files: dict[str, bytes]) -> None:
        super().__init__(location)
        self._files = files

    def __len__(self) -> int:
        return len(self._files[self.location])

    def exists(self) -> bool:
        """Return whether it was written."""
        return self.location in self._files

    def open(self, seekable: bool = True) -> Any:
        """Open it to read."""
        return io.BytesIO(self._files[self.location])

    def create(self, overwrite: bool = False) -> Any:
        """Open it to write."""
        return _MemoryStream(self._files, self.location)

    def to_input_file(self) -> InputFile:
        """Return it as a file to read."""
        return self


class _MemoryStream(io.BytesIO):
    """Keeps what was written when it is closed."""

    def __init__(self, files: dict[str, bytes], location: str) -> None:
        super().__init__()
        self._files = files
        self._location = location

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._files[self._location] = self.getvalue()
        super().close()
