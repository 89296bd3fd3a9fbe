"""What every example in a docstring may take for granted: the imports of a first job, and a directory of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import millstream


@pytest.fixture(autouse=True)
def _example(doctest_namespace: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the names of a first job at hand, and keep files apart."""
    monkeypatch.chdir(tmp_path)
    doctest_namespace.update(mill=millstream, col=millstream.col, lit=millstream.lit, when=millstream.when)
