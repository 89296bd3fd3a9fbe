"""A broker for all tests of this folder, and clients that owe the engine nothing."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import kafka
from cluster import Cluster

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka.Broker]:
    """Give a broker; whoever stops it starts it again."""
    reason = kafka.missing()
    if reason is not None:
        # CI must not pass because nothing was tested.
        if os.environ.get("MILLSTREAM_SERVERS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    kafka.fetch()
    started = kafka.Broker(tmp_path_factory.mktemp("kafka")).start()
    yield started
    started.kill()


@pytest.fixture
def cluster(broker: kafka.Broker) -> Cluster:
    """Give what asks the broker, by names of topics that no other test has."""
    return Cluster(broker.address, f"t{next(_NUMBERS)}")
