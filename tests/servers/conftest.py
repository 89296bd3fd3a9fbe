"""A broker, database servers, object stores and an HDFS for all tests of this folder, and clients that owe the engine nothing."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import azurite
import browser
import gcs
import hdfs
import kafka
import mariadb
import postgres
import redis_server
import s3
from cluster import Cluster

_NUMBERS = itertools.count()


def skip_if_missing(reason: str | None) -> None:
    """Skip the tests of a server that is not there."""
    if reason is not None:
        # CI must not pass because nothing was tested.
        if os.environ.get("MILLSTREAM_SERVERS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka.Broker]:
    """Give a broker; whoever stops it starts it again."""
    skip_if_missing(kafka.missing())
    kafka.fetch()
    started = kafka.Broker(tmp_path_factory.mktemp("kafka")).start()
    yield started
    started.kill()


@pytest.fixture
def cluster(broker: kafka.Broker) -> Cluster:
    """Give what asks the broker, by names of topics that no other test has."""
    return Cluster(broker.address, f"t{next(_NUMBERS)}")


@pytest.fixture(scope="session")
def chromium() -> None:
    """See to it that there is a browser."""
    skip_if_missing(browser.missing())


@pytest.fixture(scope="session")
def database() -> Iterator[postgres.Server]:
    """Give a PostgreSQL server; whoever kills it starts it again."""
    skip_if_missing(postgres.missing())
    started = postgres.Server().start()
    yield started
    started.stop()


@pytest.fixture
def schema(database: postgres.Server) -> str:
    """Give the name of a schema that no other test has."""
    name = f"t{next(_NUMBERS)}"
    database.execute(f"CREATE SCHEMA {name}")
    return name


@pytest.fixture(scope="session")
def mysql() -> Iterator[mariadb.Server]:
    """Give a MariaDB server; whoever kills it starts it again."""
    skip_if_missing(mariadb.missing())
    started = mariadb.Server().start()
    yield started
    started.stop()


@pytest.fixture
def mysql_database(mysql: mariadb.Server) -> str:
    """Give the name of a database that no other test has."""
    name = f"t{next(_NUMBERS)}"
    mysql.execute(f"CREATE DATABASE {name}")
    return name


@pytest.fixture(scope="session")
def started_redis() -> Iterator[redis_server.Server]:
    """Give a Redis server; whoever kills it starts it again."""
    skip_if_missing(redis_server.missing())
    started = redis_server.Server().start()
    yield started
    started.stop()


@pytest.fixture
def redis(started_redis: redis_server.Server) -> redis_server.Server:
    """Give that server without data."""
    started_redis.ask("FLUSHALL")
    return started_redis


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    """Give an S3 server."""
    skip_if_missing(s3.missing())
    started = s3.Server(tmp_path_factory.mktemp("s3")).start()
    yield started
    started.stop()


@pytest.fixture
def bucket(store: s3.Server) -> Iterator[s3.Bucket]:
    """Give a bucket that no other test has, and options with which it is reached."""
    import millstream as mill

    mill.storage({**s3.OPTIONS, "aws_endpoint": store.url})
    yield s3.Bucket(store, f"bucket-{next(_NUMBERS)}")
    mill.storage({})


@pytest.fixture(scope="session")
def hdfs_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hdfs.Cluster]:
    """Give an HDFS; whoever kills a part of it starts it again."""
    skip_if_missing(hdfs.missing())
    hdfs.fetch()
    started = hdfs.Cluster(tmp_path_factory.mktemp("hdfs")).start()
    yield started
    started.stop()


@pytest.fixture
def hdfs_folder(hdfs_cluster: hdfs.Cluster) -> Iterator[hdfs.Folder]:
    """Give a directory of HDFS that no other test has, and the user that it is of."""
    import millstream as mill

    mill.storage(hdfs.OPTIONS, url="hdfs://")
    yield hdfs.Folder(hdfs_cluster, f"t{next(_NUMBERS)}")
    mill.storage({}, url="hdfs://")


@pytest.fixture(scope="session")
def google(store: s3.Server) -> Iterator[gcs.Server]:
    """Give what speaks as Google Cloud Storage does."""
    started = gcs.Server(store)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[azurite.Server]:
    """Give an Azurite."""
    reason = azurite.missing() or azurite.fetch()
    if reason is not None:
        # Not every machine that runs these tests reaches npm's registry.
        pytest.skip(reason)
    started = azurite.Server(tmp_path_factory.mktemp("azurite")).start()
    yield started
    started.stop()


@pytest.fixture(params=["hdfs", "gs", "az"])
def place(request: pytest.FixtureRequest) -> Iterator[hdfs.Folder | gcs.Bucket | azurite.Bucket]:
    """Give a directory or bucket of each store in turn, that no other test has, and options with which it is reached."""
    import millstream as mill

    name = f"t{next(_NUMBERS)}"
    made: hdfs.Folder | gcs.Bucket | azurite.Bucket
    if request.param == "hdfs":
        made = hdfs.Folder(request.getfixturevalue("hdfs_cluster"), name)
    elif request.param == "gs":
        made = gcs.Bucket(request.getfixturevalue("google"), request.getfixturevalue("store"), f"bucket-{name}")
    else:
        made = azurite.Bucket(request.getfixturevalue("azure"), f"box-{name}")
    mill.storage(made.options, url=made.root)
    yield made
    mill.storage({}, url=made.root)
