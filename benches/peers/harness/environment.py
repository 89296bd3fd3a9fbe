"""An environment a peer: a venv with pinned packages under the user's cache, never the project's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from program import PROGRAM

__all__ = ["CannotInstall", "Environment", "cache", "environment"]

HERE = Path(__file__).parent.parent
OURS = "millstream"
_CRATES = {"loop": (HERE.parent / "loop", "mill-loop"), "timely": (HERE / "timely", "peer-timely")}


class CannotInstall(Exception):
    """A peer's environment could not be made."""


@dataclass(frozen=True)
class Environment:
    """What a peer runs in."""

    python: Path
    variables: dict[str, str] = field(default_factory=dict)


def cache() -> Path:
    """Give the folder for environments and records."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millstream" / "peers"


def environment(peer: str, is_here: bool, tell: Callable[[str], None]) -> Environment:
    """Make a peer's environment if it is not there yet; with `is_here`, use this interpreter's packages."""
    variables: dict[str, str] = {}
    if peer in _CRATES:
        variables[PROGRAM] = str(_build(peer, *_CRATES[peer], tell))
    if peer == OURS or is_here:
        return Environment(Path(sys.executable), variables)
    requirements = HERE / "requirements" / f"{peer}.txt"
    if not requirements.exists():
        raise CannotInstall(f"there is no {requirements.name}")
    folder = cache() / peer
    mark, wanted = folder / "installed", hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if not (mark.exists() and mark.read_text() == wanted):
        tell(f"{peer}: installing {', '.join(requirements.read_text().split())}")
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)])
        mark.write_text(wanted)
    # The project's own package is not for the peers to find.
    return Environment(python, variables | {"PYTHONPATH": ""})


def _build(peer: str, crate: Path, binary: str, tell: Callable[[str], None]) -> Path:
    if shutil.which("cargo") is None:
        raise CannotInstall("there is no cargo to build it with")
    target = cache() / "target" / peer
    tell(f"{peer}: building")
    _run(["cargo", "build", "--release", "--quiet", "--locked", "--manifest-path", str(crate / "Cargo.toml"), "--target-dir", str(target)])
    return target / "release" / binary


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise CannotInstall(f"{' '.join(Path(part).name for part in command[:3])}: {last}")
