"""Results for people and programs: tables, bars in the terminal or as SVG, JSON."""

from __future__ import annotations

import html
import json
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

from millstream.bench.result import Bar, Result

__all__ = ["as_json", "as_svg", "machine", "show"]

_BAR_WIDTH = 40
_BLOCKS = " ▏▎▍▌▋▊▉█"
_SVG_WIDTH, _SVG_LABEL, _SVG_VALUE, _SVG_ROW = 760, 230, 90, 22


def machine() -> dict[str, Any]:
    """Describe what it ran on."""
    import millstream as mill

    cores = len(os.sched_getaffinity(0))
    return {
        "millstream": mill.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": cores,
        "load": os.getloadavg()[0],
        "system": platform.platform(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def show(result: Result) -> None:
    """Print a result as a table with bars below."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(title=result.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(result.columns):
        table.add_column(column, justify="left" if place < 2 and not _is_number(result, place) else "right", overflow="fold")
    for line in result.lines:
        table.add_row(*line)
    console.print()
    console.print(table)
    for text in _bars(result.bars, result.unit):
        console.print(text, highlight=False, markup=False, no_wrap=True)
    for note in result.notes:
        console.print(f"  note: {note}", style="dim", highlight=False, markup=False)


def _is_number(result: Result, place: int) -> bool:
    return all(line[place][:1].isdigit() for line in result.lines)


def _longest(bars: Sequence[Bar]) -> dict[str, float]:
    """Return the longest bar of each group."""
    longest: dict[str, float] = {}
    for bar in bars:
        longest[bar.group] = max(longest.get(bar.group, 0.0), bar.value)
    return {group: value or 1.0 for group, value in longest.items()}


def _bars(bars: Sequence[Bar], unit: str) -> list[str]:
    """Draw bars of text."""
    longest = _longest(bars)
    width = max((len(bar.label) for bar in bars), default=0)
    drawn = [f"  {unit}"] if bars else []
    for place, bar in enumerate(bars):
        if place and bar.group != bars[place - 1].group:
            drawn.append("")
        eighths = max(1, round(bar.value / longest[bar.group] * _BAR_WIDTH * 8))
        block = "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip() if bar.is_ours else "░" * max(1, round(eighths / 8))
        drawn.append(f"  {bar.label:<{width}} {block} {_value(bar.value)}")
    return drawn


def _value(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 1 else f"{value:,.2g}"


def as_svg(results: Sequence[Result]) -> str:
    """Draw the bars of all results, one block each."""
    parts: list[str] = []
    y = 10
    for result in results:
        longest = _longest(result.bars)
        y += 18
        parts.append(f'<text x="10" y="{y}" font-size="14" font-weight="bold">{html.escape(result.title)}</text>')
        y += 16
        parts.append(f'<text x="10" y="{y}" font-size="11" fill="#666">{html.escape(result.unit)}</text>')
        y += 8
        for place, bar in enumerate(result.bars):
            if place and bar.group != result.bars[place - 1].group:
                y += 8
            length = bar.value / longest[bar.group] * (_SVG_WIDTH - _SVG_LABEL - _SVG_VALUE)
            colour = "#2f6db3" if bar.is_ours else "#b9c3cf"
            parts.append(
                f'<text x="{_SVG_LABEL - 8}" y="{y + 14}" font-size="12" text-anchor="end">{html.escape(bar.label)}</text>'
                f'<rect x="{_SVG_LABEL}" y="{y + 3}" width="{max(length, 1):.1f}" height="{_SVG_ROW - 7}" fill="{colour}"/>'
                f'<text x="{_SVG_LABEL + length + 6:.1f}" y="{y + 14}" font-size="12">{_value(bar.value)}</text>'
            )
            y += _SVG_ROW
        y += 14
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_SVG_WIDTH}" height="{y}" font-family="sans-serif">'
    return head + '<rect width="100%" height="100%" fill="white"/>' + "".join(parts) + "</svg>\n"


def as_json(results: Sequence[Result]) -> str:
    """Return machine and figures as JSON."""
    found = {
        result.name: {"title": result.title, "unit": result.unit, "figures": list(result.figures), "notes": list(result.notes)}
        for result in results
    }
    return json.dumps({"machine": machine(), "results": found}, indent=2) + "\n"
