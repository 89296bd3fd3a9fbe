"""Instruction counts of the micro benchmarks: a gate against slow creep that no noise of a machine hides.

    python benches/count.py             compares with benches/results/instructions.json; exit code 1 if one has grown
    python benches/count.py --accept    writes the counts as the new reference

Each case of ``mill-micro`` is run under ``valgrind --tool=callgrind`` with two numbers of rounds; the difference is what a
round costs, without set-up. Counts depend on the compiler: the reference names the one it was made with, and another
compiler's counts are shown but not held against it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "benches" / "results" / "instructions.json"
TOLERANCE = 0.02
ROUNDS = (1, 2)


def build() -> Path:
    """Build the micro benchmarks; give the program."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    # With the operators, so that the dependencies have the same features as in the whole workspace.
    subprocess.run(["cargo", "build", "--release", "-p", "mill-micro", "-p", "mill-operators"], cwd=ROOT, check=True)
    return target / "release" / "mill-micro"


def instructions(program: Path, case: str, rounds: int) -> int:
    """How many instructions a run takes."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", str(program), case, str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(f"callgrind gave no count: {done.stderr[-500:]}")
    return int(found.group(1))


def main() -> int:
    """Count, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true", help="make these counts the reference")
    parser.add_argument("cases", nargs="*", help="these cases only")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is missing: on Debian, apt install valgrind", file=sys.stderr)
        return 2
    program = build()
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    cases = options.cases or subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    counts = {case: instructions(program, case, ROUNDS[1]) - instructions(program, case, ROUNDS[0]) for case in cases}
    known = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {"compiler": compiler, "instructions": {}}
    is_same_compiler = known["compiler"] == compiler
    grown = []
    for case, count in counts.items():
        before = known["instructions"].get(case)
        change = f"{count / before - 1:+8.2%}" if before else "     new"
        print(f"{case:32} {count:>14,} {change}")
        if before and count > before * (1 + TOLERANCE):
            grown.append(case)
    if options.accept:
        REFERENCE.parent.mkdir(exist_ok=True)
        merged = (known["instructions"] if is_same_compiler else {}) | counts
        REFERENCE.write_text(json.dumps({"compiler": compiler, "instructions": merged}, indent=2) + "\n")
        return 0
    if not is_same_compiler:
        print(f"the reference was made with {known['compiler']}, this is {compiler}: not compared")
        return 0
    if grown:
        print(f"more than {TOLERANCE:.0%} above the reference: {', '.join(grown)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
