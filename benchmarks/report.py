"""From outcomes to Markdown, JSON and a picture."""

from __future__ import annotations

import importlib
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cases import Goal, Outcome
from running import BARE, OURS, Result

_COLUMNS = (
    "tool",
    "rows",
    "rows/s",
    "slowest – fastest",
    "sending, rows/s",
    "× bare loop",
    "CPU s per 1M rows",
    "peak RSS, MB",
    "arrived",
)
_HEAD = (f"| {' | '.join(_COLUMNS)} |", "|---|---:|---:|---:|---:|---:|---:|---:|---|")


def machine() -> str:
    """What this was measured on, in a line."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    model = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} × {model}, {system}, load {os.getloadavg()[0]:.1f} before the start"


def markdown(outcomes: Sequence[Outcome], where: str) -> str:
    """The whole report."""
    parts = [f"Measured on {where}. Medians; imports are not counted; every row that arrived was checked.", ""]
    for outcome in outcomes:
        parts += [*_section(outcome), ""]
    goals = [(outcome, goal) for outcome in outcomes for goal in outcome.goals]
    parts += ["### Goals", "", "| case | what | is | should be | |", "|---|---|---:|---:|---|"]
    parts += [_goal(outcome, goal) for outcome, goal in goals]
    return "\n".join(parts) + "\n"


def _section(outcome: Outcome) -> list[str]:
    bare = next((result.rate for result in outcome.results if result.tool == BARE.name), 0.0)
    lines = [f"### {outcome.title}", ""]
    if outcome.bound:
        lines += [f"The latency allows {outcome.bound:,.0f} rows/s.", ""]
    return [*lines, *_HEAD, *(_row(result, bare) for result in outcome.results)]


def _row(result: Result, bare: float) -> str:
    if not result.seconds:
        return f"| {result.tool} | {result.rows:,} | | | | | | | {result.problem} |"
    cpu = statistics.median(result.cpu) / result.rows * 1e6
    rates = sorted(result.rows / seconds for seconds in result.seconds)
    cells = [
        result.tool,
        f"{result.rows:,}",
        f"**{result.rate:,.0f}**",
        f"{rates[0]:,.0f} – {rates[-1]:,.0f}",
        f"{result.sending_rate:,.0f}" if result.sending else "",
        f"{result.rate / bare:.2f}" if bare else "",
        f"{cpu:.1f}",
        f"{max(result.memory) / 1e6:.0f}",
        result.problem or "all, exactly",
    ]
    return f"| {' | '.join(cells)} |"


def _goal(outcome: Outcome, goal: Goal) -> str:
    sign = "≤" if goal.at_most else "≥"
    return f"| {outcome.title} | {goal.what} | {goal.value:.2f} | {sign} {goal.target:g} | {'✓' if goal.met else '✗'} |"


def write(outcomes: Sequence[Outcome], folder: Path, where: str) -> str:
    """Write `report.md`, `results.json` and `rates.svg` to a folder; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(outcomes, where)
    (folder / "report.md").write_text(text)
    found = {"machine": where, "outcomes": [asdict(outcome) for outcome in outcomes]}
    (folder / "results.json").write_text(json.dumps(found, indent=1))
    plot(outcomes, folder / "rates.svg")
    return text


def plot(outcomes: Sequence[Outcome], file: Path) -> None:
    """Rows a second of each tool, a panel for each case in which tools send rows."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    compared = [outcome for outcome in outcomes if any(result.tool == BARE.name for result in outcome.results)]
    if not compared:
        return
    figure, panels = pyplot.subplots(len(compared), 1, figsize=(8, 1.6 * len(compared)), squeeze=False)
    for panel, outcome in zip(panels[:, 0], compared, strict=True):
        _bars(panel, outcome)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def _bars(panel: Any, outcome: Outcome) -> None:
    shown = [result for result in outcome.results if result.seconds]
    colors = ["#4f46e5" if result.tool == OURS.name else "#c7c9d1" for result in shown]
    bars = panel.barh([result.tool for result in shown], [result.rate for result in shown], color=colors)
    panel.bar_label(bars, labels=[f"{result.rate:,.0f}" for result in shown], padding=4, fontsize=8)
    panel.set_title(f"{outcome.title}: rows/s", fontsize=9, loc="left")
    panel.margins(x=0.12)
    panel.invert_yaxis()
    panel.xaxis.set_visible(False)
    panel.spines[["top", "right", "bottom"]].set_visible(False)
    panel.tick_params(left=False, labelsize=8)
