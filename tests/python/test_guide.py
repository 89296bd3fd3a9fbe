"""The documentation: its code runs, its navigation names every page, its links lead somewhere, it describes all that is public."""

from __future__ import annotations

import re
import signal
import sys
import types
from collections.abc import Iterator
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


@pytest.mark.usefixtures("ends")
@pytest.mark.parametrize("page", [DOCS / "index.md", *GUIDE], ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
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
