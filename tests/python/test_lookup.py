"""Look-ups by a function: which keys are asked for, what is remembered, and what has no match."""

from __future__ import annotations

import asyncio
import collections.abc
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

import millstream as mill
from millstream._lookup_functions import _Cache

NAMES = {1: "ann", 2: "bob", 4: "dan"}


def find(keys: list[int]) -> dict[int, str]:
    return {key: NAMES[key] for key in keys if key in NAMES}


async def find_later(keys: list[int]) -> list[str | None]:
    await asyncio.sleep(0.002)
    return [NAMES.get(key) for key in keys]


def clicks(*users: int | None) -> mill.Stream:
    return mill.from_iter([{"at": n, "user": user} for n, user in enumerate(users)], schema={"at": int, "user": int})


@pytest.mark.parametrize("function", [find, find_later])
def test_inner_and_left(function: Any) -> None:
    users = mill.lookup(function, schema={"name": str})
    stream = clicks(1, 3, None, 2, 1)
    got = stream.enrich(users, on="user").collect(parallelism=1).to_pylist()
    assert got == [{"at": 0, "user": 1, "name": "ann"}, {"at": 3, "user": 2, "name": "bob"}, {"at": 4, "user": 1, "name": "ann"}]
    left = stream.enrich(users, on="user", how="left").collect(parallelism=1).to_pylist()
    assert [row["name"] for row in left] == ["ann", None, None, "bob", "ann"]


@pytest.mark.parametrize("is_later", [True, False])
def test_each_key_is_asked_for_once_while_it_is_remembered(is_later: bool) -> None:
    asked: Counter[int | None] = Counter()

    def count(keys: list[int]) -> list[str | None]:
        assert len(set(keys)) == len(keys)
        asked.update(keys)
        return [NAMES.get(key) for key in keys]

    async def count_later(keys: list[int]) -> list[str | None]:
        return count(keys)

    if is_later:
        users = mill.lookup(count_later, schema={"name": str}, capacity=1, batch_rows=100, ttl=None)
    else:
        users = mill.lookup(count, schema={"name": str}, batch_rows=100, ttl=None)
    stream = mill.generate(rows=20_000, user=mill.index() % 7).enrich(users, on="user", how="left")
    got = Counter((row["user"], row["name"]) for row in stream.collect(parallelism=1).to_pylist())
    assert sum(got.values()) == 20_000
    assert {user: name for user, name in got} == {user: NAMES.get(user) for user in range(7)}
    assert asked == Counter(range(7))


def test_a_key_is_forgotten_at_its_age_and_when_others_take_its_place() -> None:
    now = 1000.0
    aged = _Cache(10, 50_000, lambda: now)
    aged.put({1: "ann", 2: None}, now)
    aged.put({3: "eve"}, now - 0.06)
    now += 0.049
    assert aged.take([1, 2, 3, 4]) == ({1: "ann", 2: None}, [3, 4])
    now += 0.002
    assert aged.take([1, 2]) == ({}, [1, 2])
    small = _Cache(2, None)
    small.put({1: "ann", 2: "bob"}, now)
    assert small.take([1]) == ({1: "ann"}, [])
    small.put({3: "eve"}, now)
    assert small.take([1, 2, 3]) == ({1: "ann", 3: "eve"}, [2])
    none = _Cache(0, None)
    none.put({1: "ann"}, now)
    assert none.take([1]) == ({}, [1])


def test_tasks_share_what_is_remembered() -> None:
    asked = Counter[int]()
    threads: list[int] = []
    first_is_through = threading.Event()

    def count(keys: list[int]) -> list[str | None]:
        asked.update(keys)
        return [NAMES.get(key) for key in keys]

    def second_waits_for_first(row: Any) -> None:
        thread = threading.get_ident()
        if thread not in threads:
            threads.append(thread)
        if thread != threads[0]:
            assert first_is_through.wait(60)
        elif asked:
            # This is a later batch than the one that was asked for.
            first_is_through.set()

    users = mill.lookup(count, schema={"name": str}, ttl=None)
    stream = mill.generate(rows=200_000, user=mill.index() % 5).rebalance().inspect(second_waits_for_first)
    assert len(stream.enrich(users, on="user", how="left").collect(parallelism=2)) == 200_000
    assert len(threads) == 2
    assert asked == Counter(range(5))


@pytest.mark.parametrize("is_later", [True, False])
def test_a_record_that_does_not_fit_is_not_remembered(is_later: bool) -> None:
    """It was, and failed every batch with its key until it was too old."""
    record: dict[str, Any] = {"name": 5}

    def one(keys: list[int]) -> dict[int, Any]:
        return {key: record if key == 1 else {"name": "bob"} for key in keys}

    async def one_later(keys: list[int]) -> dict[int, Any]:
        return one(keys)

    users = mill.lookup(one_later if is_later else one, schema={"name": str}, ttl=None)
    stream = clicks(2, 1).enrich(users, on="user")
    with pytest.raises(mill.UserFunctionError, match=r"returned for the key 1 a record that does not fit: column \"name\""):
        stream.collect(parallelism=1)
    record["name"] = "ann"
    assert stream.collect(parallelism=1)["name"] == ["bob", "ann"]
    # The same holds for one that the function changes after it was remembered.
    record["name"] = 6
    with pytest.raises(mill.UserFunctionError, match="for the key 1"):
        stream.collect(parallelism=1)
    record["name"] = "eve"
    assert stream.collect(parallelism=1)["name"] == ["bob", "eve"]


def test_the_loop_is_not_held_up_by_conversions() -> None:
    threads: dict[str, int] = {}

    class Found(collections.abc.Mapping[int, Any]):
        def __getitem__(self, key: int) -> str:
            threads["converted"] = threading.get_ident()
            return NAMES[key]

        def __iter__(self) -> Iterator[int]:
            return iter(NAMES)

        def __len__(self) -> int:
            return len(NAMES)

    async def found(keys: list[int]) -> Any:
        threads["called"] = threading.get_ident()
        return Found()

    assert len(clicks(1, 2, 4).enrich(mill.lookup(found, schema={"name": str}), on="user").collect(parallelism=1)) == 3
    assert threads["converted"] != threads["called"]


@pytest.mark.parametrize("how", ["inner", "left"])
def test_any_name_of_a_column_will_do(how: Any) -> None:
    """One named ``__found`` was refused, and there was no other way than to rename it."""
    stream = mill.from_iter([{"user": 1, "__found": "x"}, {"user": 3, "__found": "y"}])
    got = stream.enrich(mill.lookup(find, schema={"__found_": str}), on="user", how=how).collect(parallelism=1).to_pylist()
    assert got[0] == {"user": 1, "__found": "x", "__found_": "ann"}
    assert len(got) == (1 if how == "inner" else 2)


@pytest.mark.parametrize("is_later", [True, False])
def test_a_call_gets_as_many_records_as_were_asked_for(is_later: bool) -> None:
    sizes: list[int] = []

    def sized(keys: list[int]) -> dict[int, str]:
        sizes.append(len(keys))
        return {}

    async def sized_later(keys: list[int]) -> dict[int, str]:
        return sized(keys)

    users = mill.lookup(sized_later if is_later else sized, schema={"name": str}, batch_rows=3)
    mill.generate(rows=10, user=mill.index()).enrich(users, on="user").collect(parallelism=1)
    assert sorted(sizes) == [1, 3, 3, 3]


def test_several_columns_are_a_row() -> None:
    def find_pair(keys: list[Any]) -> dict[Any, dict[str, Any]]:
        return {key: {"sum": key.a + key.b} for key in keys if key.a != 2}

    rows = [{"a": 1, "b": 10}, {"a": 2, "b": 20}, {"a": 1, "b": None}, {"a": 3, "b": 30}]
    stream = mill.from_iter(rows).enrich(mill.lookup(find_pair, schema={"sum": int}), on=["a", "b"], how="left")
    assert [row["sum"] for row in stream.collect(parallelism=1).to_pylist()] == [11, None, None, 33]


def test_event_time_stays() -> None:
    start = datetime(2024, 1, 1)
    rows = [{"user": n % 4, "at": start + timedelta(seconds=n)} for n in range(120)]
    for function in (find, find_later):
        users = mill.lookup(function, schema={"name": str})
        named = mill.from_iter(rows).event_time("at").enrich(users, on="user")
        windows = named.window_all(mill.tumbling("1m")).agg(n=mill.count()).collect()
        assert sorted(row["n"] for row in windows.to_pylist()) == [30, 30]


@dataclass
class User:
    name: str
    age: int


def test_columns_of_the_annotation_and_names_that_clash() -> None:
    def annotated(keys: list[int]) -> dict[int, User | None]:
        return {key: User("ann", key) for key in keys}

    stream = mill.from_iter([{"user": 1, "name": "x"}]).enrich(mill.lookup(annotated), on="user")
    assert stream.collect().to_pylist() == [{"user": 1, "name": "x", "name_right": "ann", "age": 1}]
    with pytest.raises(mill.PlanError, match="the column 'name' would exist twice; pass another suffix="):
        mill.from_iter([{"user": 1, "name": "x"}]).enrich(mill.lookup(annotated), on="user", suffix="")


def test_failures_fail_the_records_of_the_call() -> None:
    def fails(keys: list[int]) -> dict[int, str]:
        raise OSError("the service is down")

    async def flaky(keys: list[int]) -> dict[int, str]:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("once more")
        return find(keys)

    stream = clicks(1, 2).enrich(mill.lookup(fails, schema={"name": str}), on="user")
    with pytest.raises(mill.UserFunctionError, match=r"enrich\(lookup\(fails\), on=user\) raised OSError: the service is down"):
        stream.collect()
    tries: list[int] = []
    users = mill.lookup(flaky, schema={"name": str}, retries=3, backoff="1ms")
    assert len(clicks(1, 2).enrich(users, on="user").collect(parallelism=1)) == 2
    assert len(tries) == 3


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda keys: "ann", "returns a dict by key or a list with a record or None for each, not str"),
        (lambda keys: ["ann"], "was asked for 2 keys and returned 1 record;"),
        (lambda keys: dict.fromkeys([1, 2, 77], "ann"), "returned records of keys that it was not asked for, such as .77."),
        (lambda keys: {str(key): "ann" for key in keys}, "returned records of keys that it was not asked for, such as .'1', '2'."),
        (lambda keys: {1: {"nome": "ann"}}, "name"),
    ],
)
def test_what_a_function_may_not_return(function: Any, text: str) -> None:
    with pytest.raises(mill.UserFunctionError, match=text):
        clicks(1, 2).enrich(mill.lookup(function, schema={"name": str}), on="user").collect(parallelism=1)


def generator(keys: list[int]) -> Any:
    yield 1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: mill.lookup("find"), "takes a function of a list of keys"),
        (lambda: mill.lookup(generator), "generator is a generator"),
        (lambda: mill.lookup(lambda keys: {}), r"write lookup\(<lambda>, schema="),
        (lambda: mill.lookup(find, ttl=5), "ttl"),
        (lambda: mill.lookup(find, ttl="0s"), "cache=0 remembers nothing"),
        (lambda: mill.lookup(find, cache=-1), "cache= is a number of keys, not -1"),
        (lambda: mill.lookup(find, timeout="5s"), "timeout= would do nothing: find is a plain function"),
        (lambda: mill.lookup(find, capacity=2, retries=1), "capacity= and retries= would do nothing"),
        (lambda: mill.lookup(find, retry_on=OSError, backoff="1s", backoff_max="2s"), "retry_on= and backoff= and backoff_max="),
        (lambda: mill.lookup(find, batch_rows=0), "batch_rows= is a number of records of at least 1"),
        (lambda: mill.lookup(find_later, schema={"x": int}, timeout=5), "timeout"),
        (lambda: clicks(1).enrich(mill.lookup(find)), "needs on="),
        (lambda: clicks(1).enrich(mill.lookup(find), on="usr"), "user"),
        (lambda: clicks(1).enrich(mill.lookup(find), left_on="user", right_on="user"), "takes on="),
        (lambda: clicks(1).enrich(mill.lookup(find), on="user", how="anti"), "'inner', 'left'"),
        (lambda: mill.from_iter([{"k": [1]}]).enrich(mill.lookup(find), on="k"), "keys are plain values"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_declared(call: Any, text: str) -> None:
    with pytest.raises(mill.PlanError, match=text):
        call()


@pytest.mark.parametrize("function", [find, find_later])
@pytest.mark.parametrize("how", ["inner", "left"])
def test_a_lookup_is_a_step_named_enrich(function: Any, how: Any) -> None:
    found = clicks(1).enrich(mill.lookup(function, schema={"name": str}), on="user", how=how)
    plan = found.explain()
    assert "enrich" in plan and "map_batches" not in plan, plan
    assert "enrich(lookup(" in plan, plan
    assert "find it" in found.name("find it").explain()


class Finder:
    """A function of the user's whose method has the name of one that the engine's own tables have."""

    def __call__(self, keys: list[int]) -> dict[int, dict[str, Any]]:
        return {key: {"name": str(key)} for key in keys}

    def check_keys(self, keys: list[int]) -> None:
        raise AssertionError("only the user calls this")


def test_methods_of_a_callable_are_the_users_own() -> None:
    stream = clicks(1).enrich(mill.lookup(Finder(), schema={"name": str}), on="user")
    assert stream.collect()["name"] == ["1"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_record_that_does_not_fit_rejects_all_records_of_its_call(is_async: bool) -> None:
    def misfit(keys: list[int]) -> dict[int, dict[str, Any]]:
        return {key: {"name": key if key == 2 else str(key)} for key in keys}

    async def misfit_later(keys: list[int]) -> dict[int, dict[str, Any]]:
        return misfit(keys)

    look = mill.lookup(misfit_later if is_async else misfit, schema={"name": str}, batch_rows=2)
    stream = clicks(1, 2, 3).enrich(look, on="user")
    assert [row["user"] for row in stream.collect(on_error="skip", parallelism=1).to_pylist()] == [3]
