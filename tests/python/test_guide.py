"""The documentation: its code runs, its navigation names every page, its links lead somewhere, it describes all that is public."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import signal
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import millstream as mill
from millstream import testing

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDE = sorted((DOCS / "guide").glob("*.md"))
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))

CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *$", re.MULTILINE)
OBJECT = re.compile(r"^::: (millstream[\w.]*)$", re.MULTILINE)

# Methods of a stream are on the page of their topic, so they are named one by one.
BY_METHOD = ["Stream"]


@pytest.fixture
def ends() -> Iterator[None]:
    """End a page that waits for what does not come; no machine is so slow that one takes this long."""

    def give_up(*_: object) -> None:
        raise TimeoutError("the code of the page does not end")

    former = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


CLICKS = """\
{"user": "ann", "page": "/shop/cart", "at": "2024-03-01T12:00:01", "ms": 12.5}
{"user": "bob", "page": "/shop/cart", "at": "2024-03-01T12:00:31", "ms": 7.5}
{"user": "bob", "page": "/about", "at": "2024-03-01T12:00:40", "ms": 3.0}
"""


@pytest.mark.usefixtures("ends")
@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "index.md", DOCS / "api" / "index.md", *GUIDE], ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if page.name == "README.md":
        (tmp_path / "clicks").mkdir()
        (tmp_path / "clicks" / "first.json").write_text(CLICKS)
    text = page.read_text()
    pieces = list(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert pieces, f"{page.name} has no code"
    # A module, as state of classes that a page defines is pickled by their module and name.
    module = types.ModuleType("a_page_of_the_guide")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for piece in pieces:
        # Empty lines in front, so that a failure names the line of the page.
        lines_before = text.count("\n", 0, piece.start(1))
        exec(compile("\n" * lines_before + piece[1], str(page), "exec"), module.__dict__)


def called(call: ast.Call) -> list[Callable[..., object]]:
    """Return what a call may be of: a function of the package, or a method of that name of one of its classes."""
    if not isinstance(call.func, ast.Attribute):
        return []
    name = call.func.attr
    if isinstance(call.func.value, ast.Name) and call.func.value.id == "mill":
        return [getattr(mill, name)]
    classes = [found for found in map(mill.__dict__.get, mill.__all__) if isinstance(found, type)]
    return [getattr(of, name) for of in classes if callable(getattr(of, name, None))]


# Pages for users of another tool have its code in such blocks.
OF_SERVERS = [page for page in GUIDE if "```py\n" in page.read_text() and not page.name.startswith("from-")]


@pytest.mark.parametrize("page", OF_SERVERS, ids=lambda page: page.name)
def test_code_that_needs_a_server_calls_what_there_is(page: Path) -> None:
    """Such blocks are run by nobody, so each call is compared with the signature of what it calls."""
    for piece in re.finditer(r"^```py\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        calls = [node for node in ast.walk(ast.parse(piece[1])) if isinstance(node, ast.Call)]
        for call in calls:
            functions = called(call)
            assert functions or not isinstance(call.func, ast.Attribute), ast.unparse(call)
            arguments = [None] * len(call.args), {word.arg: None for word in call.keywords if word.arg}
            assert not functions or any(is_bound(function, *arguments) for function in functions), ast.unparse(call)


def is_bound(function: Callable[..., object], positional: list[None], named: dict[str, None]) -> bool:
    """Whether a function takes such arguments, with or without a first one for the object that it is of."""
    signature = inspect.signature(function)
    for more in ([], [None]):
        with contextlib.suppress(TypeError):
            signature.bind(*more, *positional, **named)
            return True
    return False


def navigation() -> list[str]:
    """Return the targets of the navigation of mkdocs.yml: the last word of each line below `nav:`."""
    lines = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2].splitlines()
    return [line.split()[-1] for line in lines if not line.endswith(":")]


def test_the_navigation_names_every_page_once() -> None:
    named: list[str] = []
    for target in navigation():
        named += [page for page in PAGES if page.startswith(target)] if target.endswith("/") else [target]
    assert sorted(named) == PAGES, "mkdocs.yml: nav has another list of pages than docs/"


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as Python-Markdown makes them."""
    plain = [re.sub(r"[^\w\s-]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)) for title in HEADING.findall(CODE.sub("", text))]
    return {re.sub(r"[-\s]+", "-", title.strip().lower()) for title in plain}


@pytest.mark.parametrize("page", ["../README.md", "../CHANGELOG.md", *PAGES])
def test_links_and_anchors_of_a_page_exist(page: str) -> None:
    path = (DOCS / page).resolve()
    for link in LINK.findall(CODE.sub("", path.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        file = path if not target else path.parent / target
        assert file.exists(), f"{page} links to {link}, and there is no such file"
        # mkdocs knows pages, and no folders.
        assert file.is_file() or DOCS not in file.resolve().parents or DOCS not in path.parents, f"{page} links to the folder {link}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{page} links to {link}, and there is no such heading"


def test_the_reference_has_all_that_is_public() -> None:
    described = {name for page in (DOCS / "api").glob("*.md") for name in OBJECT.findall(page.read_text())}
    wanted = {f"millstream.{name}" for name in mill.__all__ if name != "nexmark"}
    wanted |= {f"millstream.testing.{name}" for name in testing.__all__}
    for owner in BY_METHOD:
        methods = [name for name in dir(getattr(mill, owner)) if not name.startswith("_")]
        wanted |= {f"millstream.{owner}.{name}" for name in methods}
    assert wanted - described == set(), "docs/api has no line ::: for these"
