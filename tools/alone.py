"""Run a command while no other that was started by this script has the same lock.

    python tools/alone.py .venv/lock pip install …

Targets of make that change one environment are independent of each other, and `make -j` would run them at the same time.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

with Path(sys.argv[1]).open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    sys.exit(subprocess.run(sys.argv[2:], check=False).returncode)
