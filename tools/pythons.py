"""Run the Python tests on every other CPython that is found, all from one wheel.

    python tools/pythons.py            3.11 to 3.13, and newer ones, on PATH or under pyenv
    PYTHONS="3.12 3.13" ...            only these
    PYTHONS=none ...                   none
    python tools/pythons.py --packages only makes their environments, without the engine

The interpreter that runs this is left out: `make test` has tested it. A version that is not found is named. One that is
found is tested; where it is newer than the promised ones and has no wheels of what the tests need, that is said instead.
Each has its own environment in `.venvs`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".venvs"
PROMISED = ("3.11", "3.12", "3.13")
NEWER = ("3.14", "3.15")


def version_of(python: Path) -> str | None:
    """Return the version of a CPython that runs and can make an environment; None for anything else."""
    code = "import sys, venv, ensurepip; print(sys.implementation.name, '%d.%d' % sys.version_info[:2], sys.version_info.releaselevel)"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = done.stdout.split()
    return found[1] if done.returncode == 0 and found[:1] == ["cpython"] else None


def find(version: str) -> Path | None:
    """Return the interpreter of a version."""
    named = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)
    for python in [*([Path(named)] if named else []), *installed]:
        if version_of(python) == version:
            return python
    return None


def wheel() -> Path:
    """Build the wheel; what `make install` has compiled is used again."""
    out = ENVIRONMENTS / "wheel"
    shutil.rmtree(out, ignore_errors=True)
    # It is used here alone, with the OpenSSL that is here: `make wheel` links in one of its own.
    command = [sys.executable, "-m", "maturin", "build", "--release", "--quiet", "--auditwheel", "skip", "--out", out]
    subprocess.run(command, cwd=ROOT, check=True)
    [found] = out.glob("*.whl")
    assert "-cp311-abi3-" in found.name, f"{found.name} is no wheel for every CPython from 3.11 on"
    return found


def install(python: Path, version: str, built: Path | None) -> Path | None:
    """Return the interpreter of an environment, with the wheel if there is one; None if what the tests need cannot be had."""
    environment = ENVIRONMENTS / version
    own = environment / "bin" / "python"
    if version_of(own) != version:
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([python, "-m", "venv", environment], check=True)
    extras = [subprocess.check_output([sys.executable, ROOT / "tools" / "extras.py", extra], text=True).split() for extra in ("test", "examples")]
    pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # These only as wheels: nothing is compiled for a version that its library does not support.
    needed = [*sum(extras, []), "rich>=13"]
    if subprocess.run([*pip, "--only-binary", "arro3-core,deltalake,duckdb,mmh3,numba,numpy,pandas,polars,pyarrow,pyiceberg-core,pyroaring,river,sqlalchemy,zstandard", *needed], check=False).returncode:
        return None
    if built is not None:
        subprocess.run([*pip, "--force-reinstall", "--no-deps", built], check=True)
    return own


def run(pythons: dict[str, Path]) -> Iterator[tuple[str, bool]]:
    """Run the tests with these interpreters at the same time, as they mostly wait; print what each says, and yield whether it passed."""
    running = {}
    for version, python in pythons.items():
        said = (ENVIRONMENTS / f"{version}.txt").open("w+")
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/python"]
        running[version] = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT), said
    for version, (process, said) in running.items():
        code = process.wait()
        with said:
            said.seek(0)
            print(f"CPython {version} ({pythons[version]}):", said.read(), sep="\n", flush=True)
        yield version, code == 0


def main() -> int:
    """Test them all; the exit code is 1 if one failed."""
    asked = os.environ.get("PYTHONS", "").split()
    if asked == ["none"]:
        return 0
    is_tested = sys.argv[1:] != ["--packages"]
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    ENVIRONMENTS.mkdir(exist_ok=True)
    built: Path | None = None
    results: list[str] = [f"{here}: tested by make test"]
    is_well = True
    tested: dict[str, Path] = {}
    for version in asked or [*PROMISED, *NEWER]:
        if version == here:
            continue
        python = find(version)
        if python is None:
            results.append(f"{version}: not found, not tested")
            continue
        if not is_tested:
            install(python, version, None)
            continue
        built = built or wheel()
        own = install(python, version, built)
        if own is None:
            is_well &= version not in PROMISED
            results.append(f"{version}: not tested, as what the tests need cannot be installed")
            continue
        tested[version] = own
    if not is_tested:
        return 0
    for version, is_passed in run(tested):
        is_well &= is_passed
        results.append(f"{version}: {'passed' if is_passed else 'FAILED'}")
    print("CPython", *results, sep="\n  ")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
