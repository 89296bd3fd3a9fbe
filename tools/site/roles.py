"""Cross-references of docstrings, ``:class:`Stream```, as links of the site."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?([\w.]+)`")
_PACKAGES = ("millstream", "millstream.testing", "millstream.nexmark", "millstream.state")


class Roles(griffe.Extension):
    """Replaces each role in a docstring by a link to the public name it means, or by the name where there is none."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Go through all docstrings once the whole package is known."""
        _visit(pkg, pkg)


def _visit(found: griffe.Object, package: griffe.Module) -> None:
    if found.docstring is not None:
        found.docstring.value = _ROLE.sub(lambda match: _link(match[1], found, package), found.docstring.value)
    for member in found.members.values():
        if not member.is_alias:
            _visit(member, package)  # type: ignore[arg-type]


def _link(name: str, found: griffe.Object, package: griffe.Module) -> str:
    owner = found if found.is_class else found.parent
    scopes = [f"millstream.{owner.name}"] if owner is not None and owner.is_class else []
    for scope in (*scopes, *_PACKAGES):
        path = name if name.startswith("millstream.") else f"{scope}.{name}"
        target = _target(path, package)
        if target is not None:
            return f"[`{name}`][{target}]"
    return f"`{name}`"


def _target(path: str, package: griffe.Module) -> str | None:
    """Return where a name is documented: an attribute of a dataclass is in the docstring of its class."""
    parts = path.split(".")[1:]
    if not parts or any(part.startswith("_") for part in parts):
        return None
    try:
        found = package[".".join(parts)]
        if found.is_module:
            # `millstream.nexmark` is a package that can be called as the function in it.
            return _target(f"{path}.{parts[-1]}", package) if parts[-1] in found.members else None
        if found.is_attribute and not found.has_docstring:
            return path.rpartition(".")[0] if found.parent.is_class else None
    except (KeyError, griffe.AliasResolutionError):
        return None
    return path
