"""Every public definition is documented to one standard; that its examples run is checked by pytest's doctests.

The walk starts at what ``import millstream`` exports and follows the classes that public functions return, so it also reaches
the namespaces of expressions, the branches of ``when()`` and the like. Definitions are read from the source, since some methods
exist for type checkers and readers only.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import millstream

ROOTS = ("millstream", "millstream.nexmark", "millstream.testing", "millstream.types")
PACKAGE = Path(millstream.__file__).parent
SECTIONS = ["Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "References", "Examples"]
ERRORS = {"PlanError", "SchemaError", "DataError", "CheckpointError", "ConnectorError", "UserFunctionError", "MillstreamError"}

#: Classes whose methods the engine calls, or which exist only inside such a call: the example of the class shows them at work.
HOOKS = {
    "Aggregate", "ListState", "MapState", "ProcessContext", "ProcessFunction", "ReducingState", "Sink", "Source", "SourceReader",
    "Timers", "ValueState", "WatermarkGenerator",
}
#: Classes that users are handed and never make: their constructor is no part of the interface.
HANDED_OUT = {
    "ConnectedStreams", "DateTimeNamespace", "Expr", "Graph", "Job", "KeyedStream", "ListNamespace", "Lookup", "RollingStream",
    "Row", "Stream", "StringNamespace", "StructNamespace", "Table", "Then", "Udf", "When", "Window", "WindowedStream",
}
#: What fails for single records when the job runs, which the source of the package does not show: it happens in the engine.
FAILS_AT_RUN_TIME = {
    "Expr.abs", "Expr.cast", "Expr.sum", "Expr.mean", "ListNamespace.get", "ListNamespace.sum", "StringNamespace.to_date",
    "StringNamespace.to_datetime", "StringNamespace.to_integer", "DateTimeNamespace.replace_time_zone", "DateTimeNamespace.offset_by",
    "DateTimeNamespace.cast_time_unit", "DateTimeNamespace.total_nanoseconds", "Stream.cast", "Stream.map", "Stream.flat_map",
    "Stream.filter", "Stream.inspect", "Stream.collect", "Stream.iter_batches", "Stream.show", "run", "read_text", "read_csv",
    "read_json", "read_parquet", "Job.wait", "Job.savepoint", "Job.checkpoint",
}  # fmt: skip
#: Functions that call others that may raise, with constants that are valid or with a handler around.
NEVER_FAILS = {"Job.ends", "WatermarkStrategy.ascending"}


@dataclass(frozen=True)
class Module:
    name: str
    tree: ast.Module
    #: Where a name of the module comes from, by module and name.
    origins: dict[str, tuple[str, str]]


@functools.cache
def modules() -> dict[str, Module]:
    found = {}
    for info in pkgutil.walk_packages([str(PACKAGE)], "millstream."):
        # Of the queries and the benchmarks, only the packages that hold them are public.
        if info.name.endswith(("__main__", "_millstream")) or info.name.startswith(("millstream.nexmark.", "millstream.bench")):
            continue
        source = Path(importlib.util.find_spec(info.name).origin or "")
        tree = ast.parse(source.read_text(encoding="utf-8"))
        origins = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                origins.update({alias.asname or alias.name: (node.module, alias.name) for alias in node.names})
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                origins[node.name] = (info.name, node.name)
        found[info.name] = Module(info.name, tree, origins)
    return found


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a class or module, with those that only type checkers see."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from statements(node.body)


@functools.cache
def definition(module: str, name: str) -> ast.FunctionDef | ast.ClassDef | None:
    """A function or class by where it is defined; of an overloaded one what runs."""
    if module not in modules():
        return None
    found = None
    for node in statements(modules()[module].tree.body):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name and not is_overload(node):
            found = node
    return found


def decorators(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    return {ast.unparse(decorator).split("(")[0].split(".")[-1] for decorator in node.decorator_list}


def is_overload(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return "overload" in decorators(node)


@dataclass(frozen=True)
class Public:
    name: str
    module: str
    node: ast.FunctionDef | ast.ClassDef
    #: The class that has it, where it is a method.
    owner: str | None

    @property
    def around(self) -> str | None:
        """The public name of that class."""
        return None if self.owner is None else self.name.rpartition(".")[0]

    @property
    def is_property(self) -> bool:
        return "property" in decorators(self.node)


def methods(module: str, node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {
        inner.name: inner for inner in statements(node.body) if isinstance(inner, ast.FunctionDef) and not decorators(inner) & {"overload", "setter"}
    }


def bases(module: str, node: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef]]:
    """A class, and those of the package that it inherits from, nearest first."""
    yield module, node
    for base in node.bases:
        name = ast.unparse(base).split("[")[0]
        where = modules()[module].origins.get(name, (module, name))
        found = definition(*where)
        if isinstance(found, ast.ClassDef):
            yield from bases(where[0], found)


def walk() -> Iterator[Public]:
    """All public definitions."""
    waiting = []
    for root in ROOTS:
        namespace = importlib.import_module(root)
        for name in namespace.__all__:
            value = vars(namespace).get(name, getattr(namespace, name, None))
            if root == "millstream" and name == "nexmark":
                waiting.append(("millstream.nexmark", "nexmark", f"{root}.nexmark"))
            elif inspect.isclass(value) or inspect.isfunction(value):
                waiting.append((value.__module__, value.__qualname__, f"{root}.{name}"))
    seen = set()
    seen_methods = set()
    while waiting:
        module, name, path = waiting.pop(0)
        node = definition(module, name)
        if node is None or (module, name) in seen:
            continue
        seen.add((module, name))
        short = path.removeprefix("millstream.")
        yield Public(short, module, node, None)
        annotations = [] if isinstance(node, ast.ClassDef) else [(module, node.returns)]
        if isinstance(node, ast.ClassDef):
            fields = [inner for inner in node.body if isinstance(inner, ast.AnnAssign) and not ast.unparse(inner.target).startswith("_")]
            annotations += [(module, field.annotation) for field in fields]
            for where, base in bases(module, node):
                for inner in methods(where, base).values():
                    if inner.name.startswith("_") or (where, base.name, inner.name) in seen_methods:
                        continue
                    seen_methods.add((where, base.name, inner.name))
                    annotations.append((where, inner.returns))
                    yield Public(f"{short}.{inner.name}", where, inner, name)
        for where, annotation in annotations:
            for word in re.findall(r"[A-Za-z_]+", "" if annotation is None else ast.unparse(annotation)):
                origin = modules()[where].origins.get(word)
                found = None if origin is None or word.startswith("Raw") else definition(*origin)
                if isinstance(found, ast.ClassDef) and not word.startswith("_"):
                    waiting.append((*origin, f"millstream.{word}"))


PUBLIC = {public.name: public for public in walk()}


# -- what may be raised --------------------------------------------------------------------------------------------------


def calls_engine(node: ast.AST) -> bool:
    """Whether a definition passes arguments to the engine, which checks them: a method of something that is called raw."""
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and (call.args or call.keywords)
        and ast.unparse(call.func.value).endswith(("_raw", "RawStream", "RawExpr.literal"))
        for call in ast.walk(node)
    )


def raised(module: str, node: ast.FunctionDef | ast.ClassDef, owner: str | None, seen: set[tuple[str, str]]) -> bool:
    """Whether a definition raises an error of Millstream, by itself or by a function of the package that it calls."""
    if isinstance(node, ast.ClassDef):
        own = methods(module, node)
        return any(raised(module, own[name], node.name, seen) for name in ("__init__", "__post_init__", "_raw") if name in own)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Raise) and inner.exc is not None and ERRORS & set(re.findall(r"\w+", ast.unparse(inner.exc))):
            return True
        if not isinstance(inner, ast.Call):
            continue
        if isinstance(inner.func, ast.Name):
            where = modules()[module].origins.get(inner.func.id)
            of = None
        elif isinstance(inner.func, ast.Attribute) and ast.unparse(inner.func.value) == "self" and owner is not None:
            where, of = (module, f"{owner}.{inner.func.attr}"), owner
        else:
            continue
        if where is None or where in seen:
            continue
        seen.add(where)
        if of is not None:
            around = definition(module, of)
            found = methods(module, around).get(inner.func.attr) if isinstance(around, ast.ClassDef) else None
        else:
            found = definition(*where)
        if found is not None and raised(where[0], found, of, seen):
            return True
    return False


# -- what a docstring has ------------------------------------------------------------------------------------------------


def sections(doc: str) -> dict[str, list[str]]:
    """The lines of each section, in their order; those before the first one are under the empty name."""
    found: dict[str, list[str]] = {"": []}
    lines = doc.splitlines()
    name = ""
    for place, line in enumerate(lines):
        following = lines[place + 1] if place + 1 < len(lines) else ""
        if following.startswith("---") and set(following.strip()) == {"-"} and line.strip():
            name = line.strip()
            found[name] = []
        elif not (line.startswith("---") and set(line.strip()) == {"-"}):
            found[name].append(line)
    return found


def entries(lines: list[str]) -> dict[str, str]:
    """The names that a section describes, with what it says of each."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line and not line.startswith(" "):
            names = [part.strip() for part in line.split(" : ")[0].split(",")]
            found.update(dict.fromkeys(names, ""))
        elif line.strip():
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
    return found


def parameters(function: ast.FunctionDef, *, is_method: bool) -> list[str]:
    args = function.args
    names = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    if is_method and "staticmethod" not in decorators(function):
        names = names[1:]
    names += [] if args.vararg is None else [f"*{args.vararg.arg}"]
    names += [arg.arg for arg in args.kwonlyargs]
    return names + ([] if args.kwarg is None else [f"**{args.kwarg.arg}"])


def wanted_parameters(public: Public) -> list[str]:
    """What has to be described: the parameters of a function, of the constructor of a class, the fields of a dataclass."""
    node = public.node
    if isinstance(node, ast.FunctionDef):
        return parameters(node, is_method=public.owner is not None)
    if "dataclass" in decorators(node):
        fields = [inner.target for inner in node.body if isinstance(inner, ast.AnnAssign)]
        return [field.id for field in fields if isinstance(field, ast.Name) and not field.id.startswith("_")]
    constructor = methods(public.module, node).get("__init__")
    return [] if constructor is None or public.name in HANDED_OUT else parameters(constructor, is_method=True)


def needs_returns(public: Public) -> bool:
    """Whether what a function returns is not evident: neither one of our own classes, nor what its first line names."""
    node = public.node
    if isinstance(node, ast.ClassDef) or public.is_property or node.returns is None:
        return False
    returns = ast.unparse(node.returns)
    words = re.findall(r"[A-Za-z_]+", returns)
    origins = modules()[public.module].origins
    is_ours = any(word[0].isupper() and origins.get(word, ("",))[0].startswith("millstream") for word in words)
    first = (ast.get_docstring(node) or "").splitlines()[:1]
    return returns != "None" and not is_ours and not first[0].startswith("Return ")


def problems(public: Public) -> list[str]:
    doc = ast.get_docstring(public.node)
    if not doc:
        return ["no docstring"]
    found = []
    first, *rest = doc.splitlines()
    if not first.endswith("."):
        found.append(f"the first line does not end with a period: {first!r}")
    if rest and rest[0]:
        found.append("the first line is longer than a line")
    if re.match(r"(Give|Gives|Tell|Tells|Says?|Return:)\b", first):
        found.append(f"the first line begins with {first.split()[0]!r}")
    parts = sections(doc)
    unknown = [name for name in parts if name and name not in SECTIONS]
    if unknown:
        found.append(f"sections that numpy's standard does not have: {unknown}")
    order = [SECTIONS.index(name) for name in parts if name in SECTIONS]
    if order != sorted(order):
        found.append(f"sections out of order: {[name for name in parts if name]}")
    is_class = isinstance(public.node, ast.ClassDef)
    described = entries(parts.get("Parameters", [])) | (entries(parts.get("Attributes", [])) if is_class else {})
    wanted = wanted_parameters(public)
    found += [f"parameter {name} is not described" for name in wanted if not described.get(name)]
    if not is_class or "Parameters" in parts:
        found += [f"there is no parameter {name}" for name in entries(parts.get("Parameters", [])) if name not in wanted]
    if needs_returns(public) and "Returns" not in parts and "Yields" not in parts:
        found.append("no section Returns")
    owner = public.owner
    checks = raised(public.module, public.node, owner, set()) or calls_engine(public.node)
    is_exempt = public.is_property or public.name in HANDED_OUT | NEVER_FAILS
    if (public.name in FAILS_AT_RUN_TIME or (checks and not is_exempt)) and "Raises" not in parts:
        found.append("no section Raises")
    if public.around not in HOOKS and not any(line.lstrip().startswith(">>> ") for line in parts.get("Examples", [])):
        found.append("no example")
    return found


def test_the_walk_reaches_what_functions_return() -> None:
    for name in ("Stream.select", "Stream.join", "StringNamespace.split", "DateTimeNamespace.year", "When.then", "Graph", "Firing",
                 "ListState.add", "testing.Source.push", "nexmark.query", "types.Decimal", "Report"):
        assert name in PUBLIC, name
    assert len(PUBLIC) > 300


def test_exemptions_are_about_what_there_is() -> None:
    exempt = HOOKS | HANDED_OUT | FAILS_AT_RUN_TIME | NEVER_FAILS
    assert exempt <= PUBLIC.keys(), exempt - PUBLIC.keys()


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_definition(name: str) -> None:
    assert not problems(PUBLIC[name])
