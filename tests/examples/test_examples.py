"""Every example runs as a user would start it, and gives what a slow and plain computation gives."""

import collections
import datetime
import importlib.util
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl

import millstream as mill

EXAMPLES = Path(__file__).parents[2] / "examples"
HOUR = datetime.timedelta(hours=1)


def run(example: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def load_flights() -> pl.DataFrame:
    spec = importlib.util.spec_from_file_location("flights", EXAMPLES / "flights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return pl.from_pandas(module.load_flights())


def split_late(flights: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Separate the flights whose hour was closed when they left, one after the other."""
    latest = datetime.datetime.min
    is_late = []
    for scheduled in flights["scheduled"]:
        watermark = latest - HOUR if latest > datetime.datetime.min else latest
        last = scheduled.replace(minute=0) + HOUR - datetime.timedelta(microseconds=1)
        is_late.append(watermark > last + HOUR)
        latest = max(latest, scheduled)
    mask = pl.Series(is_late)
    return flights.filter(~mask), flights.filter(mask)


def test_flights_equal_the_same_query_in_polars(tmp_path: Path) -> None:
    out = run("flights.py", "--output", tmp_path / "out", "--state", tmp_path / "state")
    assert "EWR" in out
    on_time, late = split_late(load_flights())
    assert 0 < late.height < 20_000
    expected = (
        on_time.group_by("origin", pl.col("scheduled").dt.truncate("1h").alias("window_start"))
        .agg(
            flights=pl.len(),
            mean=pl.col("delay").mean(),
            worst=pl.col("delay").max(),
            p95=pl.col("delay").quantile(0.95, interpolation="linear"),
        )
        .sort("origin", "window_start")
    )
    found = pl.read_parquet(tmp_path / "out" / "hourly").sort("origin", "window_start")
    assert found.columns == ["origin", "window_start", "window_end", "flights", "mean", "worst", "p95"]
    assert (found["window_end"] - found["window_start"]).unique().to_list() == [HOUR]
    for column in ("origin", "window_start", "flights", "worst"):
        assert found[column].to_list() == expected[column].to_list(), column
    for column in ("mean", "p95"):
        assert found[column].is_null().to_list() == expected[column].is_null().to_list(), column
        assert (found[column] - expected[column]).abs().max() < 1e-9, column
    late_found = pl.read_parquet(tmp_path / "out" / "late")
    order = ["scheduled", "carrier", "flight", "origin", "dest", "delay"]
    assert late_found.select(order).sort(order).rows() == late.select(order).sort(order).rows()


def test_flights_run_again_write_nothing_twice(tmp_path: Path) -> None:
    arguments = ("flights.py", "--output", tmp_path / "out", "--state", tmp_path / "state", "--parallelism", 2)
    run(*arguments)
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.parquet")}
    assert files
    run(*arguments)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.parquet")} == files


def test_wordcount_counts_every_word(tmp_path: Path) -> None:
    text = "It's a dog. A DOG!\n\nno 'cat', no: cats\n"
    (tmp_path / "a.txt").write_text(text * 1000)
    (tmp_path / "b.txt").write_text("dog")
    expected = collections.Counter(re.findall("[a-z']+", (text * 1000 + "dog").lower()))
    lines = run("wordcount.py", tmp_path / "*.txt").splitlines()
    found = {word: int(n.replace(",", "")) for n, word in (line.split() for line in lines[:-1])}
    assert found == expected
    assert lines[-1].split() == [f"{expected.total():,}", "words,", str(len(expected)), "different", "ones"]


def test_wordcount_finds_a_text_by_itself() -> None:
    assert "self" in run("wordcount.py")


def test_running_count_is_right_in_the_table(tmp_path: Path) -> None:
    database = tmp_path / "counts.db"
    out = run("running_count.py", "--rows", 100_000, "--database", database, "--state", tmp_path / "state")
    assert out.splitlines()[-1] == "100,000 records of 1,000 users"
    with closing(sqlite3.connect(database)) as connection:
        found = {user: (n, total) for user, n, total in connection.execute("SELECT user, n, total FROM counts")}
    totals: dict[int, int] = collections.Counter()
    for index in range(100_000):
        totals[index % 1000] += index % 97
    assert found == {user: (100, total) for user, total in totals.items()}


def test_functions_show_what_failed() -> None:
    out = run("functions.py")
    assert "70.7" in out and "cellar" not in out
    assert "failed:" in out and "broken" in out


def test_the_leaderboard_is_a_sort_and_its_changes_lead_there(tmp_path: Path) -> None:
    rows, database, changes = 50_000, tmp_path / "out" / "scores.db", tmp_path / "changes"
    out = run("leaderboard.py", "--rows", rows, "--database", database, "--changes", changes, "--state", tmp_path / "state")
    expected = {}
    for game in range(5):
        scores = [(n * 7919 % 100003, n % 1009) for n in range(rows) if n % 5 == game]
        for rank, (score, player) in enumerate(sorted(scores, reverse=True)[:3], start=1):
            expected[game, rank] = (player, score)
            assert f"game {game}, rank {rank}: player {player} with {score} points" in out
    files = sorted(changes.glob("*.csv"))
    # Files of later epochs have greater names; a change of a rank is in one of them.
    replayed: dict[tuple[int, int], tuple[int, int]] = {}
    seen = set()
    for file in files:
        for row in pl.read_csv(file).to_dicts():
            key = (row["game"], row["rank"])
            assert row["op"] == ("update" if key in seen else "insert")
            seen.add(key)
            replayed[key] = (row["player"], row["score"])
    assert replayed == expected


def load(example: str) -> Any:
    spec = importlib.util.spec_from_file_location(example, EXAMPLES / f"{example}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_visits_are_those_of_sorted_clicks(tmp_path: Path) -> None:
    run("sessions.py", "--rows", 60_000, "--output", tmp_path / "out", "--state", tmp_path / "state", "--parallelism", 2)
    clicks = load("sessions").clicks(60_000).collect(parallelism=1).to_pylist()
    late = pl.read_parquet(tmp_path / "out" / "late").select("user", "page", "at").rows()
    left = collections.Counter(tuple(click.values()) for click in clicks) - collections.Counter(late)
    assert sum(left.values()) == 60_000 - len(late), "late clicks are clicks"
    # Every 1,009th click is hours late; all others are within a minute.
    assert 50 < len(late) <= 60
    by_user = collections.defaultdict(list)
    for user, page, at in left.elements():
        by_user[user].append((at, page))
    expected = []
    for user, found in by_user.items():
        found.sort(key=lambda click: click[0])
        visit = [found[0]]
        for click in [*found[1:], (datetime.datetime.max, 0)]:
            if click[0] - visit[-1][0] < datetime.timedelta(minutes=30):
                visit.append(click)
                continue
            pages = [page for _, page in visit]
            end = visit[-1][0] + datetime.timedelta(minutes=30)
            expected.append((user, visit[0][0], end, len(visit), len(set(pages)), pages[0], pages[-1]))
            visit = [click]
    visits = pl.read_parquet(tmp_path / "out" / "visits").rows()
    assert len(expected) > 2_000
    assert sorted(visits) == sorted(expected)


def test_hot_items_are_those_of_a_plain_count(tmp_path: Path) -> None:
    run("sliding_top.py", "--rows", 150_000, "--output", tmp_path / "out", "--parallelism", 2)
    bids = load("sliding_top").bids(150_000).collect(parallelism=1).to_pylist()
    start, counts = datetime.datetime(1970, 1, 1), collections.defaultdict(collections.Counter)
    for bid in bids:
        step = (bid["at"] - start) // datetime.timedelta(seconds=2)
        for since in range(step - 4, step + 1):
            counts[since * 2][bid["item"]] += 1
    expected = []
    for since, items in counts.items():
        best = sorted(items.items(), key=lambda item: (-item[1], item[0]))[:3]
        bounds = (start + datetime.timedelta(seconds=since), start + datetime.timedelta(seconds=since + 10))
        expected += [(*bounds, rank, item, n) for rank, (item, n) in enumerate(best, 1)]
    found = mill.read_json(tmp_path / "out").collect().to_pylist()
    assert len(expected) > 20
    assert sorted(tuple(row.values()) for row in found) == sorted(expected)


def test_fraud_alerts_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    rows = 30_000
    run("fraud_alert.py", "--rows", rows, "--output", tmp_path / "out", "--state", tmp_path / "state", "--parallelism", 2)
    small: dict[int, int] = {}
    expected = []
    for index in range(rows):
        card = (index // 9 * 7919 + index % 3) % 500
        amount = 0.5 if index % 50 == 7 else 700.0 if index % 40 == 3 else 20.0
        if amount > 500 and card in small and index - small[card] <= 60:
            expected.append((card, index, index - small[card]))
        if amount < 1:
            small[card] = index
    start = datetime.datetime(2024, 3, 1)
    second = datetime.timedelta(seconds=1)
    found = pl.read_parquet(tmp_path / "out").iter_rows(named=True)
    assert expected
    assert sorted((row["card"], (row["at"] - start) // second, row["after"] // second) for row in found) == sorted(expected)


def test_models_that_learn_go_on_from_what_they_had_learned_when_they_are_killed(tmp_path: Path) -> None:
    example = load("online_model")
    arguments = ["--rows", 4000, "--output", tmp_path / "out", "--state", tmp_path / "state", "--parallelism", 2]
    command = [sys.executable, str(EXAMPLES / "online_model.py"), *map(str, arguments)]
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Killed once some predictions are committed; the job is likely to be in the middle then, and what is compared holds anyway.
    until = time.monotonic() + 60
    while not list((tmp_path / "out").glob("*.parquet")) and time.monotonic() < until:
        time.sleep(0.005)
    job.kill()
    job.wait()
    run("online_model.py", *arguments)
    models: dict[str, Any] = {}
    expected = []
    for row in example.departures(4000).collect(parallelism=1):
        model = models.setdefault(row["carrier"], example.Delay.untaught())
        known = {"dep_delay": row["dep_delay"], "distance": float(row["distance"]), "hour": float(row["hour"])}
        expected.append((row["carrier"], row["flight"], row["arr_delay"], float(model.predict_one(known))))
        model.learn_one(known, row["arr_delay"])
    found = pl.read_parquet(tmp_path / "out").select("carrier", "flight", "arr_delay", "predicted").rows()
    assert sorted(found) == sorted(expected)


def test_clicked_ads_are_those_of_a_join_of_tables(tmp_path: Path) -> None:
    rows = 20_000
    out = tmp_path / "out"
    run("ad_clicks.py", "--rows", rows, "--output", out, "--state", tmp_path / "state", "--parallelism", 2)
    example = load("ad_clicks")
    ads = pl.from_arrow(example.impressions(rows).collect().to_arrow())
    clicks = pl.from_arrow(example.clicks(rows).collect(parallelism=1).to_arrow())
    assert isinstance(ads, pl.DataFrame) and isinstance(clicks, pl.DataFrame)
    latest = clicks["at"].cum_max().shift(1, fill_value=datetime.datetime(1970, 1, 1))
    is_late = clicks["at"] < latest - datetime.timedelta(minutes=6)
    late, good = clicks.filter(is_late), clicks.filter(~is_late)
    assert 0 < late.height < 100
    distance = pl.col("at_right") - pl.col("at")
    is_near = distance.is_between(datetime.timedelta(0), datetime.timedelta(minutes=5))
    pairs = ads.join(good, on="impression").filter(is_near).select("impression", "campaign", "at", "user", "at_right")
    alone = ads.join(pairs, on="impression", how="anti")
    found = pl.read_parquet(out / "shown")
    clicked = found.filter(pl.col("user").is_not_null()).select(pairs.columns)
    assert clicked.sort("impression", "user", "at_right").rows() == pairs.sort("impression", "user", "at_right").rows()
    unclicked = found.filter(pl.col("user").is_null()).select("impression", "campaign", "at")
    assert unclicked.sort("impression").rows() == alone.select("impression", "campaign", "at").sort("impression").rows()
    late_found = pl.read_parquet(out / "late").select("impression", "user", "at")
    assert late_found.sort("impression", "user").rows() == late.sort("impression", "user").rows()
