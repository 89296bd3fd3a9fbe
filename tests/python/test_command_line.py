"""``millstream run --set`` and the completion of the command in shells."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import millstream as mill
from millstream import _given
from millstream._cli import main
from millstream._completion import SHELLS


@pytest.fixture(autouse=True)
def _nothing_given() -> Any:
    yield
    _given.give([])


def script(folder: Path, code: str) -> str:
    path = folder / "flow.py"
    path.write_text("import millstream as mill\n" + textwrap.dedent(code))
    return str(path)


def test_a_script_gets_its_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = script(
        tmp_path,
        """
        import sys
        from datetime import timedelta
        from decimal import Decimal
        from pathlib import Path
        defaults = {"a": "x", "b": 1, "c": 1.5, "d": False, "e": Decimal("0.5"), "f": timedelta(seconds=1), "g": Path("x"), "h": None}
        print([mill.parameter(name, default) for name, default in defaults.items()], sys.argv[1:])
        """,
    )
    assert main(["run", flow, "--set", "x"]) == 0
    assert capsys.readouterr().out == (
        "['x', 1, 1.5, False, Decimal('0.5'), datetime.timedelta(seconds=1), PosixPath('x'), None] ['--set', 'x']\n"
    )
    sets = ["a=y=z", "b=-7", "c=2", "d=Yes", "e=0.10", "f=1m30s", "g=/tmp/q", "h=t"]
    assert main(["run", *(part for each in sets for part in ("--set", each)), flow, "more"]) == 0
    assert capsys.readouterr().out == (
        "['y=z', -7, 2.0, True, Decimal('0.10'), datetime.timedelta(seconds=90), PosixPath('/tmp/q'), 't'] ['more']\n"
    )


def test_what_is_set_wrongly_is_said_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = script(
        tmp_path,
        """
        rows = mill.parameter("rows", 3)
        mill.run(mill.generate(rows=rows, n=mill.index()).write_csv(mill.parameter("output")))
        """,
    )
    with pytest.raises(mill.PlanError, match=r"parameter\('output'\) has no default and is not set: run the script with millstream run --set output="):
        main(["run", flow])
    with pytest.raises(mill.PlanError, match="--set rows=many: expected an int"):
        main(["run", "--set", "rows=many", flow])
    out = tmp_path / "out"
    with pytest.raises(mill.PlanError, match="asks for no parameter 'row' before its first job; did you mean 'rows'"):
        main(["run", "--set", f"output={out}", "--set", "row=5", flow])
    assert not out.exists()
    assert main(["run", "--set", "rows=2", "--set", f"output={out}", flow]) == 0
    assert mill.read_csv(out).collect()["n"] == [0, 1]
    for bad, said in (("rows", "--set takes name=value"), ("2x=1", "--set takes name=value")):
        assert main(["run", "--set", bad, flow]) == 2
        assert said in capsys.readouterr().err
    assert main(["run", "--set", "a=1", "--set", "a=2", flow]) == 2
    assert "--set a=… is set twice" in capsys.readouterr().err
    # A script without a job is told of afterwards.
    assert main(["run", "--set", "a=1", script(tmp_path, "print(1)")]) == 2
    assert "the script has not asked for a parameter 'a'" in capsys.readouterr().err


def test_a_parameter_has_a_name_and_a_default_that_can_be_given() -> None:
    assert mill.parameter("limit", 5) == 5
    assert mill.parameter("limit", default=None) is None
    for wrong in (lambda: mill.parameter("a b"), lambda: mill.parameter("x", [1])):  # type: ignore[type-var]
        with pytest.raises(mill.PlanError, match="parameter"):
            wrong()
    _given.give(["d=2"])
    with pytest.raises(mill.PlanError, match="--set d=2: expected a bool"):
        mill.parameter("d", True)
    _given.give(["d=2 parsecs"])
    with pytest.raises(mill.PlanError, match="--set d=2 parsecs: expected a timedelta"):
        mill.parameter("d", timedelta(1))
    with pytest.raises(mill.PlanError, match="--set d=2 parsecs: expected a Decimal"):
        mill.parameter("d", Decimal(1))


def completed(script: str, words: str) -> list[str]:
    """Return what bash would offer after these words, the last of which is being typed."""
    code = f"""{script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _millstream; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.split()


def test_shells_complete_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    scripts = {}
    for shell in SHELLS:
        assert main(["completion", shell]) == 0
        scripts[shell] = capsys.readouterr().out
        for word in ("doctor", "--no-objects", "export", "completion"):
            assert word.lstrip("-") in scripts[shell]
    bash = scripts["bash"]
    assert set(completed(bash, "millstream ''")) >= {"run", "state", "bench", "doctor", "completion", "--version"}
    assert completed(bash, "millstream sta") == ["state"]
    assert set(completed(bash, "millstream state ''")) >= {"list", "show", "verify", "export"}
    assert completed(bash, "millstream state verify --no") == ["--no-objects"]
    assert completed(bash, "millstream state export path/ --o") == ["--output"]
    assert completed(bash, "millstream run --s") == ["--set"]
    assert completed(bash, "millstream completion ''") == ["bash", "zsh", "fish", "-h", "--help"]
    for shell in ("zsh", "fish"):
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=scripts[shell], text=True, check=True, timeout=60)
