"""The other end: runs a peer's jobs in the peer's own interpreter, one JSON object a line in, one a line out.

    PYTHON serve.py NAME

Loads `../NAME.py` under another name, so that `import NAME` in there finds the package. Whatever the engine prints goes to
stderr; replies have the real stdout. The clock runs around the prepared job only: imports, the start of a JVM and the loading
of records into memory come before it.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from task import Cannot, Task


def load(name: str) -> Any:
    """Import a peer's file."""
    spec = importlib.util.spec_from_file_location(f"peer_{name}", Path(__file__).parent.parent / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no peer {name!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write(table: Any, path: str) -> None:
    """Leave a result for the harness."""
    import pyarrow as pa

    table = table if isinstance(table, pa.Table) else pa.table(table)
    with pa.OSFile(path, "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)


class Server:
    """Answers one request after the other; keeps the last prepared job."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.task: Task | None = None
        self.job: Any = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a job once."""
        result_path = request.pop("result", None)
        task = Task(**{**request, "folder": Path(request["folder"]), "scratch": Path(request["scratch"])})
        if task != self.task:
            self.task = self.job = None
            gc.collect()
            self.job = self.module.prepare(task)
            self.task = task
        gc.collect()
        began = time.perf_counter()
        result = self.job()
        seconds = time.perf_counter() - began
        reply = {"seconds": seconds, **getattr(self.module, "extras", dict)()}
        if result_path:
            write(self.module.answer(result) if hasattr(self.module, "answer") else result, result_path)
        return reply


def main() -> None:
    """Serve until stdin ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module = load(sys.argv[1])
    hello = {"versions": module.versions(), "python": platform.python_version(), "rows": module.ROWS}
    replies.write(json.dumps(hello) + "\n")
    server = Server(module)
    for line in sys.stdin:
        try:
            reply = server.answer(json.loads(line))
        except Cannot as reason:
            reply = {"none": str(reason)}
        except Exception as problem:
            traceback.print_exc()
            # What an engine wraps an error in says less than what it wraps.
            while problem.__cause__ is not None or problem.__context__ is not None:
                problem = problem.__cause__ or problem.__context__
            text = " ".join(str(problem).split())
            reply = {"error": f"{type(problem).__name__}: {text[:300]}"}
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
