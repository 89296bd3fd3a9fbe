"""Random cases: data and a plan over it, as data, and how the engine carries the plan out."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import oracle
from oracle import Row, Term

Schema = dict[str, str]
"""Column name to kind: int, float, str, bool, list (of str) or time (microseconds)."""

WORDS = ["", "a", "b", "mill", "stream", "wheel", "Über", "naïve", "a longer word than fits in place"]
SECOND = 1_000_000


@dataclass
class Case:
    """One case: the records, the steps over them, and what the results are called."""

    seed: int
    rows: list[Row]
    schema: Schema
    steps: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __str__(self) -> str:
        steps = "\n".join(f"  {name} {arguments}" for name, arguments in self.steps)
        return f"case {self.seed}: {len(self.rows)} rows of {self.schema}\n{steps}"


def draw(seed: int) -> Case:
    """The case of this seed."""
    dice = random.Random(seed)
    schema: Schema = {"i": "int", "j": "int", "x": "float", "s": "str", "b": "bool", "tags": "list", "at": "time"}
    count = dice.choice([0, 1, 2, 7, 50, 300, 1000])
    clock, rows = 0, []
    for _ in range(count):
        clock += dice.choice([0, 1, 1, 2, 5]) * SECOND // 2
        jitter = dice.choice([0, 0, 0, 1, 3, 10, 40]) * SECOND
        rows.append(
            {
                "i": _maybe(dice, dice.randint(-50, 50)),
                "j": dice.randint(0, dice.choice([1, 5, 200])),
                "x": _maybe(dice, dice.randint(-1000, 1000) / 8),
                "s": _maybe(dice, dice.choice(WORDS)),
                "b": _maybe(dice, dice.random() < 0.5),
                "tags": _maybe(dice, [dice.choice(WORDS) for _ in range(dice.randint(0, 3))]),
                "at": clock - jitter,
            }
        )
    case = Case(seed, rows, schema)
    _steps(dice, case)
    return case


def _maybe(dice: random.Random, value: Any) -> Any:
    return None if dice.random() < 0.1 else value


def _steps(dice: random.Random, case: Case) -> None:
    schema = dict(case.schema)
    for _ in range(dice.randint(0, 4)):
        step = dice.choice(["with_columns", "filter", "select", "explode", "python_map", "python_filter", "python_flat_map", "batches", "union", "rebalance"])
        if step in ("with_columns", "python_map"):
            name = dice.choice(["i", "x", "n1", "n2"])
            kind = dice.choice(["int", "float", "str", "bool"])
            case.steps.append((step, {"columns": {name: _term(dice, schema, kind)}, "kinds": {name: kind}}))
            schema[name] = kind
        elif step in ("filter", "python_filter", "batches"):
            case.steps.append((step, {"condition": _term(dice, schema, "bool")}))
        elif step == "select":
            kept = [name for name in schema if name == "at" or dice.random() < 0.8]
            case.steps.append((step, {"columns": {name: Term("col", (name,)) for name in kept}}))
            schema = {name: schema[name] for name in kept}
        elif step == "explode" and schema.get("tags") == "list":
            case.steps.append((step, {"column": "tags", "keep_empty": dice.random() < 0.5}))
            schema["tags"] = "str"
        elif step == "python_flat_map":
            case.steps.append((step, {"times": dice.randint(0, 3)}))
        elif step == "union":
            case.steps.append((step, {"condition": _term(dice, schema, "bool")}))
        elif step == "rebalance":
            case.steps.append((step, {}))
    is_ordered = not any(name in ("union", "rebalance") for name, _ in case.steps)
    keys = dice.sample([name for name, kind in schema.items() if kind not in ("list", "time")] or ["at"], 1)
    if dice.random() < 0.3:
        keys += [name for name in ("s", "j") if name in schema and name not in keys and schema[name] != "list"][:1]
    ending = dice.choice(["none", "aggregate", "aggregate", "window", "window", "window"])
    if ending == "aggregate":
        case.steps.append(("aggregate", {"keys": keys, "aggregates": _aggregates(dice, schema, is_ordered)}))
    elif ending == "window":
        # Lateness is a matter of the order in the source, so event time comes first.
        case.steps.insert(0, ("event_time", {"column": "at", "bound": dice.choice([0, 2, 5]) * SECOND}))
        case.steps.append(
            (
                "window",
                {
                    "keys": keys,
                    "aggregates": _aggregates(dice, schema, is_ordered),
                    "size": dice.choice([1, 7, 60]) * SECOND,
                    "offset": dice.choice([0, 0, SECOND // 2]),
                    "lateness": dice.choice([0, 0, 3 * SECOND]),
                    "parts": dice.choice([1, 1, 2, 5]),
                    "kind": dice.choice(["sliding", "cumulative"]),
                },
            )
        )


def _aggregates(dice: random.Random, schema: Schema, is_ordered: bool) -> oracle.Aggregates:
    found: oracle.Aggregates = {}
    for index in range(dice.randint(1, 4)):
        kinds = ["count", "sum", "mean", "min", "max", "median", "std", "n_unique"]
        kind = dice.choice(kinds + (["first", "last"] if is_ordered else []))
        if kind == "count":
            found[f"a{index}"] = (kind, None)
            continue
        of = "str" if kind in ("min", "max", "n_unique", "first", "last") and dice.random() < 0.4 else dice.choice(["int", "float"])
        found[f"a{index}"] = (kind, _term(dice, schema, of, depth=1))
    return found


def _term(dice: random.Random, schema: Schema, kind: str, depth: int = 2) -> Term:
    """A random term of this kind. Numbers stay small, so nothing overflows; floats are multiples of 1/8."""
    columns = [name for name, of in schema.items() if of == kind]
    if depth == 0 or dice.random() < 0.3:
        if columns and dice.random() < 0.8:
            return Term("col", (dice.choice(columns),))
        literals = {"int": dice.randint(-5, 5), "float": dice.randint(-16, 16) / 8, "str": dice.choice(WORDS), "bool": True}
        return Term("lit", (literals[kind],))

    def sub(of: str) -> Term:
        return _term(dice, schema, of, depth - 1)

    if dice.random() < 0.15:
        return Term("when", (sub("bool"), sub(kind), sub(kind)))
    if dice.random() < 0.1:
        return Term("fill_null", (sub(kind), sub(kind)))
    if kind == "int":
        op = dice.choice(["add", "sub", "mul", "mod", "length"])
        if op == "length":
            return Term("length", (sub("str"),))
        if op == "mod":
            return Term("mod", (sub("int"), Term("lit", (dice.randint(1, 9),))))
        if op == "mul":
            return Term("mul", (sub("int"), Term("lit", (dice.randint(-3, 3),))))
        return Term(op, (sub("int"), sub("int")))
    if kind == "float":
        op = dice.choice(["add", "sub", "div"])
        if op == "div":
            return Term("div", (sub(dice.choice(["int", "float"])), Term("lit", (dice.choice([2, 4, 8]),))))
        return Term(op, (sub("float"), sub("float")))
    if kind == "str":
        return Term("upper", (sub("str"),))
    op = dice.choice(["eq", "ne", "lt", "ge", "and", "or", "not", "is_null"])
    if op in ("and", "or"):
        return Term(op, (sub("bool"), sub("bool")))
    if op == "not":
        return Term(op, (sub("bool"),))
    of = dice.choice(["int", "float", "str"])
    return Term(op, (sub(of),) if op == "is_null" else (sub(of), sub(of)))


def expected(case: Case) -> dict[str, list[Row]]:
    """What the oracle says: rows by output name."""
    stream = oracle.Stream([dict(row) for row in case.rows])
    for name, given in case.steps:
        if name in ("with_columns", "python_map"):
            stream = oracle.with_columns(stream, given["columns"])
        elif name in ("filter", "python_filter", "batches"):
            stream = oracle.where(stream, given["condition"])
        elif name == "select":
            stream = oracle.select(stream, given["columns"])
        elif name == "explode":
            stream = oracle.explode(stream, given["column"], given["keep_empty"])
        elif name == "python_flat_map":
            places = [i for i in range(len(stream.rows)) for _ in range(given["times"])]
            stream = stream.keep(places)
        elif name == "union":
            stream = oracle.union(oracle.where(stream, given["condition"]), stream)
        elif name == "event_time":
            stream = oracle.event_time(stream, given["column"], given["bound"])
        elif name == "aggregate":
            stream = oracle.grouped(stream, given["keys"], given["aggregates"])
        elif name == "window":
            on_time, late = oracle.windowed(stream, given)
            return {"result": on_time.rows, "late": late.rows}
    return {"result": stream.rows}
