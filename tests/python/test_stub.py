"""The stub says what the binary has: the same names with the same parameters."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from millstream import _millstream as binary

STUB = Path(binary.__file__).with_name("_millstream.pyi")
TREE = ast.parse(STUB.read_text(encoding="utf-8"))
CLASSES = {node.name: node for node in TREE.body if isinstance(node, ast.ClassDef)}
FUNCTIONS = {node.name: node for node in TREE.body if isinstance(node, ast.FunctionDef)}
#: Python gives these to every class, or to every class with the other one.
GIVEN = {"__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__doc__", "__module__", "__new__", "__repr__"}


def declared(node: ast.FunctionDef, *, is_method: bool) -> list[tuple[str, bool]]:
    """Names of parameters, and whether each has a default."""
    args = [*node.args.posonlyargs, *node.args.args]
    defaults = [False] * (len(args) - len(node.args.defaults)) + [True] * len(node.args.defaults)
    names = [(arg.arg, default) for arg, default in zip(args, defaults, strict=True)]
    kinds = {decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)}
    return names[1:] if is_method and "staticmethod" not in kinds else names


def found(function: object) -> list[tuple[str, bool]] | None:
    """The same of the binary; None where it does not say."""
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return [
        (name, parameter.default is not inspect.Parameter.empty)
        for name, parameter in signature.parameters.items()
        if name not in ("self", "cls", "$self")
    ]


def test_names_are_the_same() -> None:
    public = {name for name in dir(binary) if not name.startswith("__")}
    assert public == CLASSES.keys() | FUNCTIONS.keys()


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_function(name: str) -> None:
    assert found(getattr(binary, name)) == declared(FUNCTIONS[name], is_method=False)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_class(name: str) -> None:
    own = {member for member in vars(getattr(binary, name)) if member not in GIVEN}
    methods = {node.name: node for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)}
    assert own == methods.keys() - GIVEN
    for member in own:
        if member.startswith("__") and not member.startswith("__arrow"):
            continue
        assert found(getattr(getattr(binary, name), member)) == declared(methods[member], is_method=True), member
