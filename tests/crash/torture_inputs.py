"""Inputs that grow or are rewritten while a job of the crash matrix is down.

Each file begins with some of its lines. Between two lives of the job lines are appended, or the lines of a file are put into another
order. A job that has read of a file that was rewritten must refuse it and go on when the old content is back; one that has not may
read the new order, and one that has read all of its input does not look. So whatever happens, the rows that are shown of a file are
the first lines of one of its versions, and at least as many as it began with.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

HEAD = "v,k\n"


class Inputs:
    """The files of one run."""

    def __init__(self, whole: Path, folder: Path, dice: random.Random) -> None:
        folder.mkdir(parents=True)
        self.folder, self.dice = folder, dice
        self.lines: dict[str, list[str]] = {}
        self.rest: dict[str, list[str]] = {}
        self.least: dict[str, int] = {}
        self.former: dict[str, list[list[str]]] = {path.name: [] for path in whole.glob("*.csv")}
        self.versions: dict[str, list[list[str]]] = {path.name: [] for path in whole.glob("*.csv")}
        for path in sorted(whole.glob("*.csv")):
            lines = path.read_text().splitlines(keepends=True)[1:]
            first = dice.choice([0, 1, 20, 60, len(lines)])
            self.lines[path.name], self.rest[path.name] = lines[:first], lines[first:]
            self.least[path.name] = first
            self._write(path.name)

    def grow(self) -> None:
        """Append lines to some of the files."""
        for name, rest in self.rest.items():
            count = self.dice.choice([0, 1, 10, 100])
            with (self.folder / name).open("a") as file:
                file.writelines(rest[:count])
            self.lines[name] = self.lines[name] + rest[:count]
            self.former[name] = [lines + rest[:count] for lines in self.former[name]]
            self.versions[name].append(self.lines[name])
            self.rest[name] = rest[count:]

    def rewrite(self) -> str:
        """Put the lines of a file into another order; returns its name."""
        name = self.dice.choice(sorted(self.lines))
        before = self.lines[name]
        self.former[name].append(before)
        self.lines[name] = self.dice.sample(before, len(before))
        self._write(name)
        return name

    def put_back(self, complaint: str) -> bool:
        """Give the file that is complained of the order that it had; returns whether it had another."""
        name = next((name for name in self.lines if f"/{name}\" is another file" in complaint), None)
        if name is None or not self.former[name]:
            return False
        self.lines[name] = self.former[name].pop()
        self._write(name)
        return True

    def _write(self, name: str) -> None:
        self.versions[name].append(self.lines[name])
        # Sometimes in place, sometimes by a new file under the name.
        path = self.folder / name
        target = path if self.dice.random() < 0.5 else path.with_suffix(".new")
        target.write_text(HEAD + "".join(self.lines[name]))
        if target != path:
            os.replace(target, path)

    def wrong(self, mode: str, found: list[tuple]) -> str:
        """What the output breaks of the mode's promise; empty if nothing."""
        counts = Counter(row[1] for row in found)
        twice = sorted(v for v, count in counts.items() if count > 1)
        if twice and mode != "at_least_once":
            return f"twice {twice[:3]}"
        known: set[int] = set()
        for name, versions in self.versions.items():
            values = [[int(line.split(",")[0]) for line in lines] for lines in versions]
            known.update(*values)
            if mode != "none" and not any(self._is_head(version, self.least[name], counts) for version in values):
                shown = sum(v in counts for v in values[-1])
                return f"{name}: {shown} rows are shown of {len(values[-1])}, with holes or too few; it began with {self.least[name]}"
        unknown = sorted(set(counts) - known)
        return f"surplus {unknown[:3]}" if unknown else ""

    @staticmethod
    def _is_head(values: list[int], least: int, counts: Counter[int]) -> bool:
        # What the filter of the job lets through.
        is_shown = [v in counts for v in values if v % 3 != 0]
        return False not in is_shown[: sum(is_shown)] and sum(is_shown) >= sum(v % 3 != 0 for v in values[:least])
