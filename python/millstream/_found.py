"""The result of an inner look-up: three steps in the plan, and one to the user."""

from __future__ import annotations

from millstream.expr import col
from millstream.stream import Stream

__all__ = ["Matches"]


class Matches(Stream):
    """The records of a look-up that a column marks, without that column.

    Its errors are those of the look-up, and its name is the one of that step.
    """

    __slots__ = ("_asked", "_mark")

    def __init__(self, asked: Stream, mark: str) -> None:
        super().__init__(asked.filter(col(mark)).drop(mark)._raw)
        self._asked = asked
        self._mark = mark

    @property
    def errors(self) -> Stream:
        """The records whose look-up failed."""
        return self._asked.errors

    def name(self, name: str, *, was: str | None = None) -> Stream:
        """Name the look-up."""
        return Matches(self._asked.name(name, was=was), self._mark)


Matches.__name__ = Matches.__qualname__ = "Stream"
