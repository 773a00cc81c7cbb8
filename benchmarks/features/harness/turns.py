"""Contestants in turns: each run is a process of its own, with a limit of time and of memory.

A run's command prints one JSON object as its last line. The peak of memory is the process's own high-water mark
(VmHWM), which, unlike `ru_maxrss`, does not include what the parent held when it forked.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

SOURCE = Path(__file__).resolve().parents[3] / "src"
LARGEST_MB = 14_000
START_S = 120.0  # for imports and what else comes before the clock


@dataclass(frozen=True)
class Turn:
    """One run. seconds: as it reports itself, or its limit when it was cut off. cut: why, empty when it ended."""

    seconds: float
    peak_mb: float
    cut: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Contestant:
    """command: how a run is started. rounds: at most so many runs.

    clock: a file that a run makes when its own clock starts; from then on it has `limit_s`.
    """

    name: str
    command: Sequence[str]
    limit_s: float = 120.0
    clock: Path | None = None
    rounds: int = 99
    turns: list[Turn] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return len(self.turns) >= self.rounds or any(turn.cut for turn in self.turns)

    @property
    def cut(self) -> str:
        return next((turn.cut for turn in self.turns if turn.cut), "")

    @property
    def seconds(self) -> float:
        """The median; the limit when a run was cut off."""
        return statistics.median(turn.seconds for turn in self.turns)

    @property
    def peak_mb(self) -> float:
        return max(turn.peak_mb for turn in self.turns)

    @property
    def figures(self) -> Mapping[str, Any]:
        """What the last run said of its result."""
        return self.turns[-1].figures

    def seconds_text(self) -> str:
        if not self.turns:
            return "-"
        if self.cut:
            return f"> {self.seconds:g}" if self.cut == "time" else self.cut
        return f"{self.seconds:.2f}"

    def spread_text(self) -> str:
        return " ".join(f"{turn.seconds:.2f}" for turn in self.turns) if self.turns and not self.cut else ""


def take_turns(contestants: Sequence[Contestant], rounds: int, *, say: Callable[[str], None] | None = None) -> None:
    """Let every contestant run once per round, one after the other, so that a busy moment of the machine meets all."""
    for number in range(rounds):
        for contestant in contestants:
            if contestant.done:
                continue
            turn = run(contestant.command, contestant.limit_s, contestant.clock)
            contestant.turns.append(turn)
            if say:
                cut = f" cut off: {turn.cut}" if turn.cut else ""
                say(f"round {number + 1}: {contestant.name} {turn.seconds:.2f} s, {turn.peak_mb:,.0f} MB{cut}")


def run(command: Sequence[str], limit_s: float, clock: Path | None = None) -> Turn:
    """Run one command to its end or to its limit, see `Contestant`."""
    if clock:
        clock.unlink(missing_ok=True)
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "PYTHONWARNINGS": "ignore", "FEAST_USAGE": "False"}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment, start_new_session=True)
        peak_mb, cut, waiting = 0.0, "", clock is not None
        try:
            while process.poll() is None:
                peak_mb = max(peak_mb, high_water_mb(process.pid))
                if waiting and clock and clock.exists():
                    started, waiting = perf_counter(), False
                if perf_counter() - started > limit_s + waiting * START_S:
                    cut = "time"
                elif peak_mb > LARGEST_MB:
                    cut = f"> {LARGEST_MB:,} MB"
                if cut:
                    break
                sleep(0.02)
        finally:
            process.kill()
            process.wait()
        if cut:
            return Turn(limit_s, peak_mb, cut)
        output.seek(0)
        errors.seek(0)
        said, complaint = output.read().decode(), errors.read().decode()
    if process.returncode:
        sys.stderr.write(complaint[-4000:])
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    figures = json.loads(said.strip().splitlines()[-1])
    return Turn(figures["seconds"], figures.get("peak_mb", peak_mb), "", figures)


def high_water_mb(pid: int | str = "self") -> float:
    """The most memory that a process has held at once, in MB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)


def verdict(what: str, figure: float, goal: float, *, at_most: bool, unit: str = "x", at_least: bool = False) -> str:
    """One line: the figure, the goal and whether it is met. at_least: the peer was cut off before its end."""
    met = figure <= goal if at_most else figure >= goal
    said = "met" if met else "undecided, the peer was cut off" if at_least else "MISSED"
    sign = "<=" if at_most else ">="
    return f"{what}: {'> ' if at_least else ''}{figure:.4g}{unit}, goal {sign} {goal:.4g}{unit}: {said}"
