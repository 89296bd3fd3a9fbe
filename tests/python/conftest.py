"""What the tests share: plain helpers, no state."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def raises_at_caller() -> Callable[..., pytest.ExceptionInfo[BaseException]]:
    """Check that a call fails with a message, and that the traceback leads through this test's file."""

    def check(kind: type[BaseException], message: str, call: Callable[[], Any]) -> pytest.ExceptionInfo[BaseException]:
        with pytest.raises(kind, match=message) as info:
            call()
        files = [Path(str(entry.path)).name for entry in info.traceback]
        assert Path(call.__code__.co_filename).name in files, files
        return info

    return check
