"""The crates depend on one another as the table in the root ``Cargo.toml`` says, and in no other way."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Layer 0 stands alone; what knows Python is known by nobody. The table may not say otherwise.
ALONE = {"mill-frame", "mill-queue"}
PYTHON = "mill-python"


def workspace() -> dict:
    command = [os.environ.get("CARGO", "cargo"), "metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def is_part(package: dict) -> bool:
    """Whether the crate is part of the engine, and not a tool beside it."""
    return (ROOT / "rust") in Path(package["manifest_path"]).parents


def test_crates_depend_on_each_other_as_the_table_says():
    metadata = workspace()
    allowed = {crate: set(others) for crate, others in metadata["metadata"]["layers"].items()}
    crates = {package["name"] for package in metadata["packages"] if is_part(package)}
    assert crates == set(allowed), "a crate is missing in [workspace.metadata.layers], or stands there and is none"
    for package in filter(is_part, metadata["packages"]):
        ours = [dependency for dependency in package["dependencies"] if dependency["name"] in crates]
        found = {dependency["name"] for dependency in ours if dependency["kind"] != "dev"}
        extra = found - allowed[package["name"]]
        assert not extra, f"{package['name']} depends on {sorted(extra)}, which the table of layers does not allow"
        unused = allowed[package["name"]] - found
        assert not unused, f"the table allows {package['name']} to depend on {sorted(unused)}, but it does not"


def test_table_keeps_the_lowest_alone_and_python_on_top():
    allowed = workspace()["metadata"]["layers"]
    assert all(not allowed[crate] for crate in ALONE)
    assert not [crate for crate, others in allowed.items() if PYTHON in others]
    for crate, others in allowed.items():
        if crate not in ("mill-python", "millstream"):
            assert "millstream" not in others
    assert "mill-operators" not in allowed["mill-runtime"]
    assert "mill-plan" not in allowed["mill-runtime"]


def test_table_has_no_cycle():
    allowed = workspace()["metadata"]["layers"]
    done: set[str] = set()
    while len(done) < len(allowed):
        free = {crate for crate, others in allowed.items() if crate not in done and set(others) <= done}
        assert free, f"these depend on each other in a circle: {sorted(set(allowed) - done)}"
        done |= free
