"""Texts that users give: names of steps, columns and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from millstream.errors import PlanError

__all__ = ["character", "choice", "counted", "directions", "flag", "mapping", "optional_text", "text", "texts", "with_article"]


def text(value: Any, place: str, example: str = "x") -> str:
    """Return a value that is a text.

    Parameters
    ----------
    value
        The argument.
    place
        The argument, such as ``"to_changelog(op=…)"``.
    example
        A text that may be there.

    Raises
    ------
    PlanError
        When it is no text.

    Examples
    --------
    >>> from millstream._texts import text
    >>> text("op", "to_changelog(op=…)")
    'op'
    """
    if not isinstance(value, str):
        raise PlanError(f'{place} takes a text, as in "{example}", not {value!r:.200}')
    return value


def optional_text(value: Any, place: str, example: str = "x") -> str | None:
    """Return a value that is a text or None.

    Examples
    --------
    >>> from millstream._texts import optional_text
    >>> optional_text(None, "read_csv(comment_prefix=…)", "#") is None
    True
    """
    return None if value is None else text(value, place, example)


def choice(value: Any, place: str, *choices: str) -> str:
    """Return a value that is one of some texts.

    Examples
    --------
    >>> from millstream._texts import choice
    >>> choice("insert", "read_csv(missing_columns=…)", "raise", "insert")
    'insert'
    """
    if not isinstance(value, str) or value not in choices:
        *first, last = (f'"{one}"' for one in choices)
        raise PlanError(f"{place} takes {', '.join(first)} or {last}, not {value!r:.80}")
    return value


def texts(value: Any, place: str, example: str = "x") -> list[str]:
    """Return a text, or several, as a list.

    Examples
    --------
    >>> from millstream._texts import texts
    >>> texts("id", "from_changelog(key=…)")
    ['id']
    """
    given = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if not all(isinstance(one, str) for one in given):
        raise PlanError(f'{place} takes a text or a list of them, as in "{example}", not {value!r:.200}')
    return given


def with_article(noun: str) -> str:
    """Return a noun with its article.

    Examples
    --------
    >>> from millstream._texts import with_article
    >>> with_article("int"), with_article("dict")
    ('an int', 'a dict')
    """
    has_vowel = noun[:1].lower() in tuple("aeio") or (noun.startswith("un") and not noun.startswith("uni"))
    return f"{'an' if has_vowel else 'a'} {noun}"


def character(value: Any, place: str, example: str) -> int:
    """Return the byte of one ASCII character.

    Examples
    --------
    >>> from millstream._texts import character
    >>> character(";", "read_csv(separator=…)", "|")
    59
    """
    if not isinstance(value, str) or len(value) != 1 or not value.isascii():
        raise PlanError(f'{place} takes one ASCII character, as in "{example}", not {value!r:.80}')
    return ord(value)


def counted(number: int, noun: str) -> str:
    """Return a number of things, in the plural but for one.

    Examples
    --------
    >>> from millstream._texts import counted
    >>> counted(1, "key"), counted(0, "key")
    ('1 key', '0 keys')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def directions(value: Any, columns: int, place: str, of: str = "") -> list[bool]:
    """Return for each of so many columns whether it is sorted in descending order.

    Examples
    --------
    >>> from millstream._texts import directions
    >>> directions(True, 2, "sort()")
    [True, True]
    """
    given = [value] * columns if isinstance(value, bool) else list(value) if isinstance(value, Iterable) else []
    if len(given) != columns or not all(isinstance(one, bool) for one in given):
        each = "the one column" if columns == 1 else f"each of the {columns} columns"
        raise PlanError(
            f"{place}: descending is True or False, or one of them for {each}{of}; it is {value!r:.200}"
        )
    return given


def flag(value: Any, place: str) -> bool:
    """Return a value that is True or False.

    Examples
    --------
    >>> from millstream._texts import flag
    >>> flag(True, "read_csv(follow=…)")
    True
    """
    if not isinstance(value, bool):
        raise PlanError(f"{place} takes True or False, not {value!r:.80}")
    return value


def mapping(value: Any, place: str, example: str) -> Mapping[Any, Any]:
    """Return a value that is a mapping.

    Examples
    --------
    >>> from millstream._texts import mapping
    >>> mapping({"a": "b"}, "rename()", '{"a": "b"}')
    {'a': 'b'}
    """
    if not isinstance(value, Mapping):
        raise PlanError(f"{place} takes a dict, as in {example}, not {value!r:.200}")
    return value
