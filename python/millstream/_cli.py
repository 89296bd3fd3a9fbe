"""The command line: ``millstream run | state | bench | doctor | completion``."""

from __future__ import annotations

import argparse
import os
import platform
import runpy
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import millstream as mill
from millstream import _given
from millstream._completion import SHELLS, completion
from millstream._paths import real_place, state_path
from millstream._texts import counted
from millstream.bench import command
from millstream.errors import PlanError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="millstream", description="Stream processing inside a Python process.")
    parser.add_argument("--version", action="version", version=f"millstream {mill.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a script")
    run.add_argument("script", help="a Python file that declares streams and calls mill.run")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script gets as its arguments")

    state = commands.add_parser("state", help="look into a state directory")
    looks = state.add_subparsers(dest="look", required=True, metavar="LOOK")
    listing = looks.add_parser("list", help="list the checkpoints")
    showing = looks.add_parser("show", help="show the state of a step, or which steps there are")
    verifying = looks.add_parser("verify", help="read every byte and say what is damaged")
    exporting = looks.add_parser("export", help="write the state of a step into a file")
    verifying.add_argument(
        "--no-objects", action="store_true", help="fail if any state is pickled Python objects, which run code when read"
    )
    diffing = looks.add_parser(
        "diff",
        help="compare the job of a script with a checkpoint: which state would be kept, noted or refused",
        description="Run a script for the job that it declares, without running the job, and compare its plan with a checkpoint. "
        "Nothing is written or locked. The exit code is 0 if the job would continue, 1 if it would be refused, and 2 if there is nothing "
        "to compare. What follows -- are the arguments of the script.",
    )
    diffing.add_argument("path", nargs="?", default=None, help="a state directory, a savepoint or a URL of one; by default the one that the script uses")
    diffing.add_argument("script", help="the Python file that declares the job")
    diffing.add_argument("--checkpoint", default=None, metavar="PATH", help="the same as PATH")
    diffing.add_argument("--id", type=int, default=None, help="the checkpoint; by default the newest")
    for loads in (run, diffing):
        loads.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="set a parameter, which the script asks for with mill.parameter(NAME); may be repeated",
        )
    for look in (listing, showing, verifying, exporting):
        look.add_argument("path", help="a state directory, a savepoint or a URL of one in an object store")
    for look in (showing, exporting):
        look.add_argument("--id", type=int, default=None, help="the checkpoint; by default the newest")
    showing.add_argument("--step", default=None, help="the step")
    exporting.add_argument("--step", required=True, help="the step")
    exporting.add_argument("--output", required=True, help="a .parquet, .arrow, .csv or .json file")

    bench = commands.add_parser("bench", help="measure this machine, compared with other engines if asked")
    command.add_arguments(bench)

    commands.add_parser("doctor", help="say what this machine and installation can do")
    completing = commands.add_parser("completion", help="print a script that completes this command in a shell")
    completing.add_argument("shell", choices=SHELLS, help="the shell")
    given = list(sys.argv[1:] if arguments is None else arguments)
    is_diff, of_script = given[:2] == ["state", "diff"], []
    if is_diff and "--" in given:
        # What follows is the script's: the parser would take the first of it for one of its own.
        cut = given.index("--")
        given, of_script = given[:cut], given[cut + 1 :]
    options = parser.parse_args(given)

    from millstream.errors import MillstreamError

    try:
        if options.command == "run":
            return _run(options.script, options.arguments, options.set)
        if options.command == "completion":
            print(completion(parser, options.shell), end="")
            return 0
        if options.command == "doctor":
            return _doctor()
        if options.command == "bench":
            return command.main(options)
        if is_diff:
            return _diff(options, of_script)
        looking = {"list": _list, "show": _show, "verify": _verify, "export": _export}[options.look]
        return looking(options)
    except MillstreamError as error:
        if options.command == "run":
            raise
        print(f"millstream: {error}", file=sys.stderr)
        return 2 if is_diff else 1
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(script: str, arguments: list[str], settings: list[str]) -> int:
    if not Path(script).is_file():
        print(f"millstream: no file {script}", file=sys.stderr)
        return 2
    try:
        _given.give(settings)
    except PlanError as error:
        print(f"millstream: {error}", file=sys.stderr)
        return 2
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).resolve().parent))
    try:
        runpy.run_path(script, run_name="__main__")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 2 if _say_unread() else 0


def _say_unread() -> bool:
    """Report what was set and the script has not asked for; return whether there is any."""
    for name in _given.unread():
        print(f"millstream: --set {name}=…: the script has not asked for a parameter {name!r}", file=sys.stderr)
    return bool(_given.unread())


def _diff(options: argparse.Namespace, arguments: list[str]) -> int:
    from millstream._declared import declared_by
    from millstream.errors import MillstreamError
    from millstream.job import diff_of_raw

    if not Path(options.script).is_file():
        print(f"millstream: no file {options.script}", file=sys.stderr)
        return 2
    if options.path is not None and options.checkpoint is not None:
        print("millstream: the state directory is given twice", file=sys.stderr)
        return 2
    path = options.path if options.path is not None else options.checkpoint
    _given.give(options.set)
    try:
        jobs = declared_by(options.script, arguments)
    except MillstreamError:
        raise
    except Exception:
        # The status 1 says that the job would be refused, and nobody has compared anything yet.
        traceback.print_exc()
        return 2
    if _say_unread():
        return 2
    if path is not None:
        # A savepoint, or a copy of the directory, is compared with the only job there is.
        path = state_path(path, "the state directory")
        own = [job for job in jobs if job[1]["checkpoint"] is not None and real_place(job[1]["checkpoint"]) == real_place(path)]
        jobs = own or [(sinks, {**settings, "checkpoint": path, "restore_from": None}) for sinks, settings in jobs]
    else:
        jobs = [job for job in jobs if job[1]["checkpoint"] is not None]
    if len(jobs) != 1:
        paths = ", ".join(str(settings["checkpoint"]) for _, settings in jobs)
        wrong = f"declares several jobs; name the state directory of one: {paths}" if jobs else "declares no job with a checkpoint"
        print(f"millstream: {options.script} {wrong}", file=sys.stderr)
        return 2
    [(sinks, settings)] = jobs
    if settings["restart_over"] and settings["restore_from"] is None:
        print("the job would start over, with restart=True: nothing of its checkpoints is used")
        return 0
    found = diff_of_raw(sinks, settings, options.id)
    print(found)
    return int(found.is_refused)


def _list(options: argparse.Namespace) -> int:
    from millstream.state import checkpoints

    found = checkpoints(options.path)
    print(f"{'id':>8}  {'created':<25}  {'bytes':>14}  steps")
    for info in found:
        if info.damage is not None:
            print(f"{info.id:>8}  damaged: {info.damage}")
            continue
        marks = " (savepoint)" if info.is_savepoint else ""
        marks += " (finished)" if info.is_finished else ""
        print(f"{info.id:>8}  {info.created:%Y-%m-%d %H:%M:%S %Z}    {info.bytes:>14,}  {', '.join(info.steps)}{marks}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from millstream.state import checkpoints, read_state

    if options.step is not None:
        print(read_state(options.path, step=options.step, id=options.id))
        return 0
    found = [info for info in checkpoints(options.path) if options.id in (None, info.id)]
    if not found:
        print(f"millstream: no such checkpoint in {options.path}", file=sys.stderr)
        return 1
    print(f"checkpoint {found[-1].id}")
    for step in found[-1].steps:
        print(f"  {step}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from millstream.state import pickled_state, verify

    results, notes = verify(options.path)
    for number, problem in results:
        print(f"{number:>8}  {problem or 'ok'}")
    for note in notes:
        print(f"note: {note}")
    is_damaged = any(problem for _, problem in results)
    if is_damaged or not options.no_objects:
        return int(is_damaged)
    found = pickled_state(options.path)
    for pickled in found:
        print(f"checkpoint {pickled.checkpoint}: step {pickled.step!r} holds pickled objects: {pickled.state}")
    return int(bool(found))


def _export(options: argparse.Namespace) -> int:
    from millstream.state import read_state

    table = read_state(options.path, step=options.step, id=options.id)
    stream = mill.from_arrow(table.to_arrow())
    name = Path(options.output).name
    writers: dict[str, Callable[..., mill.Output]] = {
        ".parquet": stream.write_parquet,
        ".csv": stream.write_csv,
        ".json": stream.write_json,
        ".jsonl": stream.write_json,
        ".arrow": stream.write_arrow,
    }
    write = next((write for ending, write in writers.items() if name.endswith(ending) and name != ending), None)
    if write is None:
        print(f"millstream: {options.output} ends neither in .parquet nor .arrow nor .csv nor .json", file=sys.stderr)
        return 2
    # As every sink writes it, so that it can be read back.
    mill.run(write(options.output, on_existing="replace"), progress=False)
    print(f"{counted(len(table), 'row')} into {options.output}")
    return 0


def _doctor() -> int:

    print(f"millstream  {mill.__version__}")
    print(f"python      {platform.python_version()} ({platform.python_implementation()})")
    print(f"system      {platform.platform()}")
    print(f"cores       {len(os.sched_getaffinity(0))} of {os.cpu_count()} may be used")
    for name in ("pyarrow", "polars", "pandas", "duckdb", "numba", "rich"):
        print(f"{name:<10}  {_version(name)}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            totals = mill.generate(rows=10_000, k=mill.index() % 10).key_by("k").agg(n=mill.count())
            mill.run(totals.write_csv(f"{folder}/out"), checkpoint=f"{folder}/state", progress=False)
            rows = mill.read_csv(f"{folder}/out").collect().to_pylist()
            is_right = sorted(row["n"] for row in rows) == [1_000] * 10
        except mill.MillstreamError as error:
            print(f"test job    failed: {error}")
            return 1
    print(f"test job    {'ok' if is_right else 'WRONG RESULT'}")
    return 0 if is_right else 1


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
