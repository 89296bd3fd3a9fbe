"""What MkDocs leaves to a site: folders in the navigation, links to files outside ``docs/``, and pages that fetch nothing."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

_LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)\s#]+)")
_FETCHED = re.compile(r"""<(?:script|link|img)\b[^>]*?\b(?:src|href)=["'](?:https?:)?//[^"']+""")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Put the pages of a folder in the place of its name."""
    config["nav"] = [_expanded(entry, Path(config["docs_dir"])) for entry in config["nav"]]
    return config


def _expanded(entry: Any, docs: Path) -> Any:
    if isinstance(entry, str):
        return entry
    ((title, target),) = entry.items()
    if isinstance(target, list):
        return {title: [_expanded(inner, docs) for inner in target]}
    if not target.endswith("/"):
        return entry
    return {title: [f"{target}{page.name}" for page in sorted((docs / target).glob("*.md"))]}


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Let links that leave ``docs/`` lead to the repository, and fill in the changelog, which is outside."""
    root = Path(config["docs_dir"]).parent
    here = posixpath.join("docs", posixpath.dirname(page.file.src_uri))
    origin = here
    if page.file.src_uri == "changelog.md":
        origin = ""
        markdown = (root / "CHANGELOG.md").read_text()

    def target(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(origin, match[1]))
        if not (root / path).exists():
            return match[1]
        return posixpath.relpath(path, here) if path.startswith("docs/") else config["extra"]["source"] + path

    pieces: list[str] = []
    end = 0
    for code in _CODE.finditer(markdown):
        pieces += [_LINK.sub(target, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, _LINK.sub(target, markdown[end:])])


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Refuse a page that fetches anything from elsewhere when it is read."""
    found = _FETCHED.search(output)
    if found is not None:
        raise PluginError(f"{page.file.src_uri} fetches from elsewhere: {found[0]}")
    return output
