"""The package as a whole: quick to import, typed, documented, one door to the compiled module."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import millstream as mill

PACKAGE = Path(mill.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_import_is_quick_and_takes_along_only_what_it_needs() -> None:
    # Processor time, the least of a few: what else the machine does hardly counts. A third of the bound is usual.
    code = (
        "import sys, time; began = time.process_time(); import millstream; took = time.process_time() - began;"
        "heavy = {'pyarrow', 'polars', 'pandas', 'numpy', 'rich', 'numba', 'duckdb', 'asyncio', 'json', 'pickle', 'millstream.bench'} & set(sys.modules);"
        "assert not heavy, heavy; print(took)"
    )
    took = min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    )
    assert took < 0.4, f"import takes {took:.3f} s"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_engine_module_imports_the_compiled_one(path: Path) -> None:
    if path.name != "_engine.py":
        assert "_millstream import" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    if path.name != "__main__.py":
        names = {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)}
        assert "__all__" in names


@pytest.mark.parametrize("name", mill.__all__)
def test_public_name_is_documented(name: str) -> None:
    value = getattr(mill, name)
    assert inspect.getdoc(value)
    if inspect.isclass(value) and value.__module__.startswith("millstream") and value is not mill.DataType:
        for member, function in vars(value).items():
            if not member.startswith("_") and callable(function):
                assert inspect.getdoc(function), f"{name}.{member}"


def test_every_example_is_in_the_readme() -> None:
    root = Path(__file__).parents[2]
    readme = (root / "README.md").read_text()
    missing = [path.name for path in sorted((root / "examples").glob("*.py")) if f"(examples/{path.name})" not in readme]
    assert not missing
