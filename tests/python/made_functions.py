"""Python functions made up at random, and what a run of them shows: values with their types, side effects in their order.

`Maker` writes functions of a row or of values that use most of the language: conditions, chained comparisons, `and` and `or`
for their values, `not`, assignments, closures, globals that change, f-strings, exceptions, unpacking, loops, `try`, nested
functions. `World` is what such a function finds outside of itself; two worlds are equal at the start, so that a function
can run in each of them in its own way and be compared.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Sequence
from typing import Any

FILE = "<made function>"

FIELDS = ("a", "b", "x", "s", "p", "n", "o", "l")
"""int, int, float, str, bool, int or None, an odd object, a list."""


class Odd:
    """An object whose truth and comparisons are notes, not truth values."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number

    def __repr__(self) -> str:
        return f"Odd({self.number})"

    def __bool__(self) -> bool:
        self.world.notes.append(("bool", self.number))
        if self.number == 5:
            raise LookupError("no truth")
        return self.number % 2 == 0

    def __lt__(self, other: object) -> Any:
        self.world.notes.append(("lt", self.number, repr(other)))
        return [self.number] if self.number % 3 else []

    def __eq__(self, other: object) -> Any:
        self.world.notes.append(("eq", self.number, repr(other)))
        return "same" if self.number % 2 else ""

    def __hash__(self) -> int:
        return self.number

    def __add__(self, other: object) -> Any:
        self.world.notes.append(("add", self.number))
        return (self.number, other)

    def __iadd__(self, other: object) -> Any:
        self.world.notes.append(("iadd", self.number))
        self.number += 1
        return self

    def __contains__(self, other: object) -> Any:
        self.world.notes.append(("in", repr(other)))
        return other

    def __getitem__(self, key: Any) -> Any:
        self.world.notes.append(("item", repr(key)))
        return (self.number, repr(key))

    def __format__(self, spec: str) -> str:
        self.world.notes.append(("format", spec))
        return f"<{spec}{self.number}>"

    @property
    def twice(self) -> int:
        self.world.notes.append(("twice", self.number))
        return self.number * 2


class World:
    """The globals and the closure of a function, and what it has noted."""

    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.globals: dict[str, Any] = {
            "__builtins__": __builtins__,
            "note": self.note,
            "fail": self.fail,
            "bump": self.bump,
            "rename": self.rename,
            "G": 3,
            "NULL_G": 4,
            "BOX": [1, 2],
            "ODD": Odd(self, 7),
        }

    def note(self, value: Any = None, *more: Any, tag: Any = None) -> Any:
        self.notes.append((repr(value), len(more), repr(tag)))
        return value

    def fail(self, value: Any) -> Any:
        self.notes.append("fail")
        if value is None or (isinstance(value, int) and value % 3 == 1):
            raise ValueError(f"fails for {value!r}")
        return value

    def bump(self) -> int:
        self.globals["G"] += 1
        return int(self.globals["G"])

    def rename(self, value: Any) -> Any:
        """Put another function in the place of one that is called."""
        self.globals["note"] = self.note if self.globals["note"] is not self.note else lambda *values, **named: ("other", values)
        return value

    def rows(self, seed: int, count: int) -> list[tuple[Any, ...]]:
        draw = random.Random(seed)
        return [
            (
                draw.randrange(-3, 6),
                draw.choice([0, 1, 2, -1, 2**40]),
                draw.choice([0.0, -0.0, 1.5, -2.25, float("inf"), float("nan")]),
                draw.choice(["", "a", "bc", "Ünï"]),
                draw.random() < 0.5,
                draw.choice([None, 0, 7]),
                Odd(self, draw.randrange(8)),
                [draw.randrange(3) for _ in range(draw.randrange(4))],
            )
            for _ in range(count)
        ]

    def function(self, source: str) -> Any:
        """Make the function of a source, in this world."""
        exec(compile(source, FILE, "exec"), self.globals)
        return self.globals["outer"](10, [5])


def typed(value: Any, depth: int = 0) -> Any:
    """Return a value with all its types, so that equal means the same."""
    kind = type(value).__name__
    if depth > 6:
        return kind
    if isinstance(value, (list, tuple)):
        return (kind, [typed(item, depth + 1) for item in value])
    if isinstance(value, dict):
        return (kind, [(typed(key, depth + 1), typed(item, depth + 1)) for key, item in value.items()])
    if isinstance(value, (set, frozenset)):
        return (kind, sorted(map(repr, value)))
    if callable(value) or hasattr(value, "__next__"):
        return kind
    return (kind, repr(value))


def failure(error: BaseException) -> Any:
    """Return what an exception shows: class, text, and the lines of the made function that it passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
    cause = error.__context__
    return ("raised", type(error).__name__, str(error), lines, None if cause is None else type(cause).__name__)


def outcomes(call: Callable[[Any], Any], rows: Sequence[Any], world: World) -> list[Any]:
    """Return what a plain call does for each row: result or failure, and the notes by then."""
    seen: list[Any] = []
    for row in rows:
        try:
            seen.append(typed(call(row)))
        except Exception as error:
            seen.append(failure(error))
    return [seen, world.notes, world.globals["G"], world.globals["BOX"]]


class Maker:
    """Writes functions."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        # Half of all functions use only what is likely to be followed, so that much of it is.
        self.is_plain = self.draw.random() < 0.6
        self.is_values = self.draw.random() < 0.35
        self.style = self.draw.choice(["attribute", "attribute", "key", "mixed"])
        self.names: list[str] = []
        self.budget = 40

    def source(self) -> str:
        """Write `outer`, which returns the function."""
        parameters = ", ".join(FIELDS[:4] + FIELDS[6:7]) if self.is_values else "row"
        if not self.is_plain and self.draw.random() < 0.15:
            parameters += self.draw.choice([", k=3", ", *, k=3", ", *more", ", **more"])
        lines = [f"    def made({parameters}):"]
        if not self.is_plain and self.draw.random() < 0.2:
            lines.append(self.draw.choice(["        global G", "        nonlocal c"]))
        lines += self.block(self.draw.randrange(0, 3), "        ")
        lines.append(f"        return {self.expression(3)}" if self.draw.random() < 0.8 else "        pass")
        if self.draw.random() < 0.2:
            lines = [f"    made = lambda {parameters}: {self.expression(4)}"]
        return "\n".join(["def outer(c, NULL_c):", *lines, "    return made", ""])

    def column(self) -> str:
        if self.is_values:
            return self.draw.choice(FIELDS[:4] + FIELDS[6:7])
        name = self.draw.choice(FIELDS)
        style = self.draw.choice(["attribute", "key"]) if self.style == "mixed" else self.style
        return f"row.{name}" if style == "attribute" else f'row["{name}"]'

    def constant(self) -> str:
        return self.draw.choice(
            ["0", "1", "2", "-1", "3", "257", "10**20", "0.5", "-0.0", "1e300", '""', '"a"', '"b%s"', "None", "True", "False"]
            + ["(1, 2)", "()", 'b"z"', "2j", "...", "(None, (1.0, 1))"]
        )

    def atom(self) -> str:
        choice = self.draw.random()
        if choice < 0.5:
            return self.column()
        if choice < 0.65 and self.names:
            return self.draw.choice(self.names)
        if choice < 0.8:
            return self.draw.choice(["c", "NULL_c", "G", "NULL_G", "BOX", "ODD"])
        return self.constant()

    def expression(self, depth: int) -> str:
        self.budget -= 1
        if depth <= 0 or self.budget <= 0 or self.draw.random() < 0.15:
            return self.atom()
        make = self.draw.choice(_PLAIN if self.is_plain else _PLAIN + _RARE)
        return make(self, lambda: self.expression(depth - 1))

    def block(self, depth: int, indent: str) -> list[str]:
        lines: list[str] = []
        kept = list(self.names)
        for _ in range(self.draw.randrange(1, 4)):
            lines += self.statement(depth, indent)
        self.names = kept + [name for name in self.names if name not in kept and self.draw.random() < 0.8]
        return lines

    def target(self) -> str:
        name = self.draw.choice(["u", "v", "w", *(FIELDS[:2] if self.is_values else ())])
        if name not in self.names:
            self.names.append(name)
        return name

    def statement(self, depth: int, indent: str) -> list[str]:
        choice = self.draw.random()
        value = self.expression(3)
        if choice < 0.3:
            return [f"{indent}{self.target()} = {value}"]
        if choice < 0.4 and self.names:
            operator = self.draw.choice(["+", "-", "*", "//", "%", "|", "&", "^", "<<", "**", "/", ">>"])
            return [f"{indent}{self.draw.choice(self.names)} {operator}= {value}"]
        if choice < 0.47:
            return [f"{indent}note({value}, tag={self.atom()})"]
        if choice < 0.52:
            return [f"{indent}{self.target()}, {self.target()} = {value}, {self.expression(2)}"]
        if choice < 0.55:
            return [f"{indent}{self.target()} = {self.target()} = {value}"]
        if choice < 0.58:
            return [f"{indent}{value}"]
        if choice < 0.62:
            return [f"{indent}if {value}:", f"{indent}    return {self.expression(2)}"]
        if choice < 0.85 and depth > 0:
            lines = [f"{indent}if {value}:", *self.block(depth - 1, indent + "    ")]
            if self.draw.random() < 0.3:
                lines += [f"{indent}elif {self.expression(2)}:", *self.block(depth - 1, indent + "    ")]
            if self.draw.random() < 0.6:
                lines += [f"{indent}else:", *self.block(depth - 1, indent + "    ")]
            return lines
        if self.is_plain:
            return [f"{indent}pass"]
        inner = indent + "    "
        return self.draw.choice(
            [
                [f"{indent}try:", f"{inner}note({value})", f"{indent}except Exception as e:", f"{inner}note(str(e))"],
                [f"{indent}try:", f"{inner}u = {value}", f"{indent}finally:", f"{inner}note('f')"],
                [f"{indent}for u in ({value}, 1):", f"{inner}note(u)"],
                [f"{indent}w = 3", f"{indent}while w:", f"{inner}w -= 1", f"{inner}note({value})"],
                [f"{indent}def inner(): return {value}", f"{indent}note(inner())"],
                [f"{indent}assert {value}, 'no'"],
                [f"{indent}u = {value}", f"{indent}del u"],
                [f"{indent}u, *v = {value}, 2, 3", f"{indent}note(v)"],
                [f"{indent}BOX[0] = {value}"],
                [f"{indent}ODD.mark = {value}", f"{indent}note(ODD.mark)"],
                [f"{indent}match {value}:", f"{inner}case 1 | 2:", f"{inner}    note('m')", f"{inner}case [u, _]:", f"{inner}    note(u)"],
                [f"{indent}G = {value} if 0 else 3"],
                [f"{indent}v: int = {value}"],
                [f"{indent}import math", f"{indent}note(math.pi)"],
                [f"{indent}raise KeyError({value})"],
            ]
        )


def _pick(maker: Maker, *choices: str) -> str:
    return maker.draw.choice(choices)


Make = Callable[[Maker, Callable[[], str]], str]

_PLAIN: list[Make] = [
    lambda m, e: f"({e()} {_pick(m, '+', '-', '*', '/', '//', '%', '**', '<<', '>>', '&', '|', '^')} {e()})",
    lambda m, e: f"({e()} {_pick(m, '<', '<=', '==', '!=', '>', '>=')} {e()})",
    lambda m, e: f"({e()} {_pick(m, 'is', 'is not', 'in', 'not in')} {e()})",
    lambda m, e: f"({e()} {_pick(m, '<', '==')} {e()} {_pick(m, '<=', '!=', 'is', 'in')} {e()})",
    lambda m, e: f"({e()} < {e()} <= {e()} != {e()})",
    lambda m, e: f"({e()} {_pick(m, 'and', 'or')} {e()})",
    lambda m, e: f"({e()} and {e()} or {e()})",
    lambda m, e: f"(not {e()})",
    lambda m, e: f"(not (not {e()}))",
    lambda m, e: f"(not ({e()} {_pick(m, 'and', 'or', '<', 'is', 'in')} {e()}))",
    lambda m, e: f"({e()} if {e()} else {e()})",
    lambda m, e: f"({e()} if {e()} is {_pick(m, '', 'not ')}None else {e()})",
    lambda m, e: f"({_pick(m, '-', '~')}{e()})",
    lambda m, e: f"note({e()})",
    lambda m, e: f"note({e()}, {e()}, tag={e()})",
    lambda m, e: f"fail({e()})",
    lambda m, e: "bump()",
    lambda m, e: f"rename({e()})",
    lambda m, e: f"{_pick(m, 'abs', 'len', 'str', 'repr', 'bool', 'type')}({e()})",
    lambda m, e: f"max({e()}, {e()})",
    lambda m, e: f"isinstance({e()}, (int, str))",
    lambda m, e: f"({e()}, {e()})",
    lambda m, e: f"[{e()}, {e()}]",
    lambda m, e: f"{{'k': {e()}, 1: {e()}}}",
    lambda m, e: f"{{{e()}: {e()}}}",
    lambda m, e: f"({e()}, {e()})[{_pick(m, '0', '-1', '1', '2')}]",
    lambda m, e: f"({e()})[{e()}]",
    lambda m, e: f"str({e()})[{_pick(m, ':1', '1:', '::2', '-1:')}]",
    lambda m, e: f"str({e()})[{e()}:{e()}]",
    lambda m, e: f"f'{{{e()}}}'",
    lambda m, e: f"f'a{{{e()}!r}}b{{{e()}:>4}}{{{e()}!s:<3}}c'",
    lambda m, e: f"str({e()}).upper().replace('A', {e()})",
    lambda m, e: f"({e()}).{_pick(m, 'real', 'twice', 'number', 'nothing')}",
    lambda m, e: f"(w := {e()})",
]

_RARE: list[Make] = [
    lambda m, e: f"[i for i in ({e()}, {e()})]",
    lambda m, e: f"(lambda: {e()})()",
    lambda m, e: f"(lambda z: z)({e()})",
    lambda m, e: f"note(*[{e()}, {e()}])",
    lambda m, e: f"note(**{{'tag': {e()}}})",
    lambda m, e: f"{{{e()}, {e()}}}",
    lambda m, e: f"[*({e()}, 1), {e()}]",
    lambda m, e: f"f'{{{e()}:{{{e()}}}}}'",
    lambda m, e: f"(+{e()})",
    lambda m, e: f"list(i for i in ({e()},))",
    lambda m, e: f"BOX.append({e()})",
    lambda m, e: "unknown_name",
    lambda m, e: "sorted(locals())",
    lambda m, e: "row" if not m.is_values else "a",
]
