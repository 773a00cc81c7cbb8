"""Gauges of monitoring in the text form that Prometheus reads, for node_exporter's textfile collector.

Times are Unix seconds, so that their age is `time() - gauge`: a file that nobody writes any more grows old by itself.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HEARTBEAT = "seatrial_heartbeat_timestamp_seconds"
VERDICTS = ("ok", "watch", "act", "unknown")
SEVERITIES = ("low", "medium", "high")

HELP = {
    HEARTBEAT: "When monitoring last did its work.",
    "seatrial_undelivered_messages": "Messages on alerts that were tried in vain, or given up.",
    "seatrial_open_alerts": "Alerts that are open or acknowledged.",
    "seatrial_muted_alerts": "Those of them that nobody is told of.",
    "seatrial_incident_open": "1 while an incident goes on.",
    "seatrial_report_timestamp_seconds": "When the newest report was made.",
    "seatrial_report_verdict": "1 for the verdict of the newest report.",
    "seatrial_drifted_inputs_ratio": "Share of the inputs that have moved, in the newest report.",
    "seatrial_labelled_ratio": "Share of the newest report's predictions whose label has arrived.",
    "seatrial_labels_timestamp_seconds": "When labels last came.",
    "seatrial_predictions_timestamp_seconds": "The newest instant that was predicted for.",
    "seatrial_missed": "1 for what should have come and did not.",
}


@dataclass(frozen=True)
class Watched:
    """How one model stands. Times in seconds since 1970; None: never, or not known.

    alerts: how many of each severity are open or acknowledged. missed: "predictions", "labels", "report" or "view NAME"
    -> whether it did not come. verdict: of the newest report; empty without any.
    """

    model: str
    alerts: dict[str, int] = field(default_factory=dict)
    muted: int = 0
    incident: bool = False
    reported_at: float | None = None
    verdict: str = ""
    drifted: float | None = None
    labelled: float | None = None
    labels_at: float | None = None
    predicted_at: float | None = None
    missed: dict[str, bool] = field(default_factory=dict)


def text(project: str, watched: Sequence[Watched], *, heartbeat: float, undelivered: int) -> str:
    """The gauges of a project."""
    of = {"project": project}
    rows: dict[str, list[tuple[dict[str, str], float | None]]] = {name: [] for name in HELP}
    rows[HEARTBEAT].append((of, heartbeat))
    rows["seatrial_undelivered_messages"].append((of, undelivered))
    for one in watched:
        mine = of | {"model": one.model}
        rows["seatrial_open_alerts"] += [(mine | {"severity": s}, one.alerts.get(s, 0)) for s in SEVERITIES]
        rows["seatrial_muted_alerts"].append((mine, one.muted))
        rows["seatrial_incident_open"].append((mine, one.incident))
        rows["seatrial_report_timestamp_seconds"].append((mine, one.reported_at))
        if one.verdict:
            rows["seatrial_report_verdict"] += [(mine | {"verdict": v}, v == one.verdict) for v in VERDICTS]
        rows["seatrial_drifted_inputs_ratio"].append((mine, one.drifted))
        rows["seatrial_labelled_ratio"].append((mine, one.labelled))
        rows["seatrial_labels_timestamp_seconds"].append((mine, one.labels_at))
        rows["seatrial_predictions_timestamp_seconds"].append((mine, one.predicted_at))
        rows["seatrial_missed"] += [(mine | {"what": what}, missed) for what, missed in one.missed.items()]
    return "".join(_family(name, [row for row in found if row[1] is not None]) for name, found in rows.items())


def write(folder: Path, project: str, content: str) -> Path:
    """Put the gauges into the collector's folder, whole or not at all, readable by all. Raises OSError."""
    path = folder / f"seatrial_{re.sub(r'[^A-Za-z0-9_-]', '_', project)}.prom"
    handle, unfinished = tempfile.mkstemp(dir=folder, prefix=".seatrial-")  # the collector reads *.prom alone
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        Path(unfinished).chmod(0o644)
        Path(unfinished).replace(path)
    finally:
        Path(unfinished).unlink(missing_ok=True)
    return path


def _family(name: str, rows: Iterable[tuple[dict[str, str], float | None]]) -> str:
    lines = [f"{name}{{{_labels(labels)}}} {float(value or 0):.15g}\n" for labels, value in rows]
    return f"# HELP {name} {HELP[name]}\n# TYPE {name} gauge\n{''.join(lines)}" if lines else ""


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
