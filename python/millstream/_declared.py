"""Scripts that are run for what they declare: nothing that they start runs."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from millstream.errors import PlanError

__all__ = ["Declared", "Recorder", "declared_by", "recorder"]


class _Enough(BaseException):
    """Ends a script that needs the result of a job that does not run."""


class Declared:
    """A stand-in for the report or the job of something that does not run: whoever looks at it ends the script."""

    def __getattr__(self, name: str) -> NoReturn:
        """End the script."""
        raise _Enough

    def __enter__(self) -> NoReturn:
        """End the script."""
        raise _Enough

    def __exit__(self, *_: object) -> None:
        """Do nothing: no block begins."""


class Recorder:
    """Takes the place of running."""

    def __init__(self) -> None:
        self.jobs: list[tuple[list[Any], dict[str, Any]]] = []

    def started(self, sinks: list[Any], options: dict[str, Any]) -> Declared:
        """Note a job that would have been run or started."""
        self.jobs.append((sinks, options))
        return Declared()

    def collected(self, verb: str) -> NoReturn:
        """End the script, or refuse it if it has not come to its job yet."""
        if self.jobs:
            raise _Enough
        raise PlanError(
            f"the script calls {verb}() before it declares its job, and nothing runs here; declare the job first, or compare in "
            "Python with mill.state_diff(sink, checkpoint=…)"
        )


_recorder: Recorder | None = None


def recorder() -> Recorder | None:
    """Return the stand-in for running a job, if nothing is to run."""
    return _recorder


def declared_by(script: str, arguments: list[str]) -> list[tuple[list[Any], dict[str, Any]]]:
    """Run a script as its own program, and return the jobs that it would run: their sinks and options."""
    import runpy
    from pathlib import Path

    global _recorder
    before, path = sys.argv, sys.path[:]
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).resolve().parent))
    _recorder = found = Recorder()
    try:
        runpy.run_path(script, run_name="__main__")
    except (_Enough, SystemExit):
        pass
    finally:
        _recorder = None
        sys.argv, sys.path[:] = before, path
    return found.jobs
