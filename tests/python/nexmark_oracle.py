"""The rules of the Nexmark generator in plain Python, one event at a time."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Any

GOLDEN = 0x9E3779B97F4A7C15
MASK = 2**64 - 1
PURPOSES = [
    *("delay", "name", "email_name", "email_host", "credit_card", "place", "person_extra"),
    *("item_name", "description", "initial_bid", "reserve", "expires", "seller", "category", "auction_extra"),
    *("auction", "bidder", "price", "channel", "bid_extra"),
]
FIRST = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"]
LAST = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"]
CITIES = ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"]
STATES = ["AZ", "CA", "ID", "OR", "WA", "WY"]
HOT = ["Google", "Facebook", "Baidu", "Apple"]
START = datetime(2015, 7, 15)


def mix(x: int) -> int:
    """Return the finalizer of SplitMix64."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


class Draw:
    """64 random bits."""

    def __init__(self, seed: int, purpose: int, number: int) -> None:
        key = mix(mix((seed + GOLDEN) & MASK) ^ ((purpose * GOLDEN) & MASK))
        self.bits = mix((key + number * GOLDEN) & MASK)

    def high(self, n: int) -> int:
        return ((self.bits >> 32) * n) >> 32

    def low(self, n: int) -> int:
        return ((self.bits & 0xFFFFFFFF) * n) >> 32


@cache
def pool(purpose: int, special: str | None) -> str:
    def letter(at: int) -> str:
        draw = Draw(0, purpose, at)
        return special if special is not None and draw.high(13) == 0 else chr(ord("a") + draw.low(26))

    return "".join(map(letter, range(64 * 1024 + 512)))


def text(pool: str, draw: Draw, longest: int) -> str:
    at = draw.low(64 * 1024)
    return pool[at : at + 3 + draw.high(longest - 3)].strip(" ")


def about(draw: Draw, length: int) -> str:
    at, spread = draw.low(64 * 1024), length // 5
    return pool(1, None)[at : at + length - spread + draw.high(2 * spread)]


@cache
def prices() -> tuple[list[float], list[float]]:
    fine, coarse = [100.0], [1.0]
    while len(fine) < 1024:
        fine.append(fine[-1] * 1.0000131755843844)
    step = fine[-1] * 1.0000131755843844 / 100.0
    while len(coarse) < 1024:
        coarse.append(coarse[-1] * step)
    return coarse, fine


def price(draw: Draw) -> int:
    coarse, fine = prices()
    return int(coarse[draw.high(1024)] * fine[draw.low(1024)] + 0.5)


def url(channel: int) -> str:
    """Return the address of a channel; the first four are the hot ones."""
    words = [text(pool(3, "_"), Draw(0, 4, 4 * channel + which), 5) for which in range(3)]
    base = f"https://www.nexmark.com/{'/'.join(words)}/item.htm?query=1"
    if channel < 4 or Draw(0, 4, 4 * channel + 3).high(10) == 0:
        return base
    turned = int(f"{channel - 4:032b}"[::-1], 2)
    return f"{base}&channel_id={abs(turned - 2**32 if turned >= 2**31 else turned)}"


def event(number: int, seed: int, event_rate: float, delay: int) -> tuple[str, dict[str, Any]]:
    """Return kind and values of an event; ``delay`` is in milliseconds."""

    def draw(purpose: str) -> Draw:
        return Draw(seed, 16 + PURPOSES.index(purpose), number)

    def due(number: int) -> int:
        return int(number * (1000.0 / event_rate))

    def person(draw: Draw, hot: int, ratio: int) -> int:
        if draw.high(ratio) > 0:
            return 1000 + hot
        active = min(epoch + 1, 1000)
        return 1000 + epoch + 1 - active + draw.low(active + 10)

    epoch, offset = divmod(number, 50)
    late = draw("delay")
    behind = 1 + late.low(delay) if delay > 0 and late.high(10) == 0 else 0
    at = START + timedelta(milliseconds=max(due(number) - behind, 0))
    if offset == 0:
        name, place, card = draw("name"), draw("place"), draw("credit_card").bits
        groups = [((card >> (16 * group) & 0xFFFF) * 10_000) >> 16 for group in range(4)]
        host = text(pool(1, None), draw("email_host"), 5)
        return "persons", {
            "id": 1000 + epoch,
            "name": f"{FIRST[name.high(11)]} {LAST[name.low(9)]}",
            "email_address": f"{text(pool(1, None), draw('email_name'), 7)}@{host}.com",
            "credit_card": " ".join(f"{digits:04d}" for digits in groups),
            "city": CITIES[place.high(10)],
            "state": STATES[place.low(6)],
            "date_time": at,
            "extra": about(draw("person_extra"), 140),
        }
    if offset < 4:
        horizon = due(number + 1666) - due(number)
        length = 1 + draw("expires").low(max(2 * horizon, 1))
        return "auctions", {
            "id": 1000 + 3 * epoch + offset - 1,
            "item_name": text(pool(2, " "), draw("item_name"), 20),
            "description": text(pool(2, " "), draw("description"), 100),
            "initial_bid": price(draw("initial_bid")),
            "reserve": price(draw("initial_bid")) + price(draw("reserve")),
            "date_time": at,
            "expires": at + timedelta(milliseconds=length),
            "seller": person(draw("seller"), epoch // 100 * 100, 4),
            "category": 10 + draw("category").high(5),
            "extra": about(draw("auction_extra"), 392),
        }
    last, which = 3 * epoch + 2, draw("auction")
    first = max(last - 100, 0)
    auction = last // 100 * 100 if which.high(2) > 0 else first + which.low(last - first + 11)
    chosen = draw("channel")
    channel = chosen.low(4) if chosen.high(2) > 0 else 4 + chosen.low(10_000)
    return "bids", {
        "auction": 1000 + auction,
        "bidder": person(draw("bidder"), epoch // 100 * 100 + 1, 4),
        "price": price(draw("price")),
        "channel": HOT[channel] if channel < 4 else f"channel-{channel - 4}",
        "url": url(channel),
        "date_time": at,
        "extra": about(draw("bid_extra"), 68),
    }
