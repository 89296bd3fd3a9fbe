"""What came out: a table for people, Markdown for `docs/BENCHMARKS.md`, JSON, a chart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from contest import Cell, Contest
from environment import OURS
from jobs import JOBS, Job

from millstream.bench.report import as_svg, machine
from millstream.bench.result import Bar, Result

__all__ = ["as_chart", "as_json", "as_markdown", "as_text", "facts", "notes"]

Rows = Sequence[tuple[Job, Sequence[Cell]]]


def _rate(per_second: float) -> str:
    millions = per_second / 1e6
    return f"{millions:,.0f}" if millions >= 100 else f"{millions:,.1f}" if millions >= 1 else f"{millions:.2g}"


def _cell(cell: Cell, ours: Cell | None) -> str:
    if cell.rate is None:
        return cell.note or "-"
    text = _rate(cell.rate)
    if cell.peer != OURS and ours and ours.rate:
        times = cell.rate / ours.rate
        text += f" (x{times:,.0f})" if times >= 10 else f" (x{times:.2g})"
    if cell.share is not None:
        text += f", {cell.share:.2f} of without"
    return text


def _table(rows: Rows) -> list[list[str]]:
    lines = [["job", *(cell.peer for cell in rows[0][1])]]
    for job, cells in rows:
        ours = next((cell for cell in cells if cell.peer == OURS), None)
        lines.append([job.about, *(_cell(cell, ours) for cell in cells)])
    return lines


def facts(contest: Contest, versions: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Say what ran, and where."""
    return {"rows": contest.rows, "threads": contest.threads, "runs": contest.runs, "machine": machine(), "versions": versions}


def notes(found: dict[str, Any], rows: Rows) -> list[str]:
    """Say how to read the table."""
    host = found["machine"]
    versions = ", ".join(" ".join(pair) for peer in found["versions"].values() for pair in peer.items())
    fewer: dict[str, list[str]] = {}
    for job, cells in rows:
        for cell in cells:
            if cell.rate is not None and job.name != "words" and cell.rows != found["rows"]:
                fewer.setdefault(cell.peer, []).append(f"{job.name} {cell.rows:,}")
            elif cell.rate is not None and job.name == "words" and cell.records != max(other.records for other in cells):
                fewer.setdefault(cell.peer, []).append(f"words {cell.records:,}")
    said = [
        f"Millions of records a second (words: of words), medians of {found['runs']} in turns in one run; in brackets how many times ours.",
        f"{found['rows']:,} rows, {found['threads']} threads; the loop is on one thread. Every result was compared before it was timed.",
        f"{host['processor']}, {host['cores']} cores, {host['system']}; load {host['load']:.1f} when it ended.",
        f"Versions: {versions}, Python {host['python']}.",
    ]
    if fewer:
        said.append("Other numbers of rows: " + "; ".join(f"{peer}: {', '.join(of)}" for peer, of in fewer.items()) + ".")
    return said


def as_text(found: dict[str, Any], rows: Rows) -> str:
    """Give a table for a terminal: a job a block, since what is said of a peer may be long."""
    table = _table(rows)
    width = max(len(name) for name in table[0][1:])
    blocks = [f"{line[0]}\n" + "\n".join(f"  {peer:<{width}}  {text}" for peer, text in zip(table[0][1:], line[1:], strict=True)) for line in table[1:]]
    return "\n".join([*blocks, "", *notes(found, rows)])


def as_markdown(found: dict[str, Any], rows: Rows) -> str:
    """Give a table for the documentation."""
    head, *lines = _table(rows)
    drawn = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    drawn += ["| " + " | ".join("none" if cell.startswith("none: ") else cell for cell in line) + " |" for line in lines]
    return "\n".join([*drawn, "", *(f"- {note}" for note in [*notes(found, rows), *_reasons(rows)])])


def _reasons(rows: Rows) -> list[str]:
    """Say why there is none where there is none."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for job, cells in rows:
        for cell in cells:
            if cell.note.startswith("none: "):
                reasons.setdefault((cell.peer, cell.note.removeprefix("none: ")), []).append(job.name)
    said = [f"{peer}: {reason} ({', '.join(jobs)})" for (peer, reason), jobs in reasons.items()]
    return ["Where there is none: " + "; ".join(said) + "."] if said else []


def as_json(found: dict[str, Any], rows: Rows) -> str:
    """Give all figures."""
    cells = [asdict(cell) | {"rate": cell.rate, "share": cell.share} for _, of in rows for cell in of]
    return json.dumps(found | {"cells": cells}, indent=2) + "\n"


def as_chart(found: dict[str, Any], rows: Rows) -> str:
    """Draw the rates, a job a block with a scale of its own."""
    drawn = []
    for job, cells in rows:
        bars = [Bar(cell.peer, cell.rate / 1e6, cell.peer == OURS) for cell in cells if cell.rate]
        if bars:
            drawn.append(Result(job.name, JOBS[job.name].about.replace("`", ""), [], [], bars, "M records/s", [], notes(found, rows)))
    return as_svg(drawn)
