"""A dashboard of each deployment for Grafana, over what servers tell and what the rules keep (`export.prometheus`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from seatrial.core.identity import value_digest
from seatrial.export.build_folder import write_files
from seatrial.export.prometheus import BUDGET, FAILED, SLOW, Promised

SCHEMA = 39
"""Of Grafana 10.1's dashboards; later ones read it."""
JOB = 'job=~"$job"'
RATE = "$__rate_interval"


class Panel(NamedTuple):
    """One picture. lines: (PromQL, legend). unit: Grafana's name of it. most: of the axis."""

    title: str
    description: str
    lines: Sequence[tuple[str, str]]
    unit: str = "short"
    width: int = 8
    type: str = "timeseries"
    most: float | None = None


def export(promised: Sequence[Promised], folder: Path) -> list[str]:
    """Write a dashboard for each deployment; the names of the files, sorted.

    folder: is made; when it exists it must be empty. Raises FolderNotEmpty, CannotWrite.
    """
    files = {f"{quote(one.deployment, safe=' ')}.json": dashboard(one) for one in promised}
    return write_files(
        folder, {name: (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode() for name, body in files.items()}
    )


def dashboard(promised: Promised) -> dict[str, Any]:
    """The dashboard of one deployment, as Grafana imports it."""
    return {
        "uid": f"seatrial-{value_digest(promised.deployment)[:16]}",
        "title": f"{promised.deployment} in service",
        "description": f"Model {promised.model}, served by seatrial. Written by `seatrial export grafana`.",
        "tags": ["seatrial"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "timezone": "utc",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "job",
                    "label": "Job",
                    "type": "query",
                    "datasource": _SOURCE,
                    "query": {"query": "label_values(seatrial_ready, job)", "refId": "job"},
                    "refresh": 2,
                    "includeAll": True,
                    "multi": True,
                    "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
                },
            ]
        },
        "links": [{"title": "Runbook", "type": "link", "url": promised.runbook}] if "://" in promised.runbook else [],
        "panels": list(_placed(_rows(promised))),
    }


def expressions(dashboard: dict[str, Any]) -> list[str]:
    """Every PromQL expression of a dashboard, with its variables filled in."""
    return [
        target["expr"].replace(RATE, "5m").replace("$job", ".+")
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _rows(promised: Promised) -> Iterator[tuple[str, list[Panel]]]:
    name, model = json.dumps(promised.deployment, ensure_ascii=False), json.dumps(promised.model, ensure_ascii=False)
    of = f"{JOB},deployment={name}"
    of_model = f"{JOB},model_name={model}"
    objective = promised.objective
    budgets = (
        ("availability", FAILED, objective.availability),
        (f"{objective.share * 100:g} % within {objective.latency_ms:g} ms", SLOW, objective.share),
    )
    yield (
        "Promise",
        [
            Panel(
                "Error budget left",
                f"Of {BUDGET}; below 0 the promise is broken.",
                [(f"1 - {record}{BUDGET}{{{of}}} / {1 - promise:.6g}", kind) for kind, record, promise in budgets],
                unit="percentunit",
                type="stat",
                most=1,
            ),
            Panel(
                "Burn rate, one hour",
                "1 uses the budget up in 30 days; 14.4 calls somebody.",
                [(f"{record}1h{{{of}}} / {1 - promise:.6g}", kind) for kind, record, promise in budgets],
            ),
            Panel(
                "Availability",
                "Of requests that were not refused because of what they asked.",
                [(f"1 - {FAILED}5m{{{of}}}", "5 minutes"), (f"1 - {FAILED}1h{{{of}}}", "1 hour")],
                unit="percentunit",
                most=1,
            ),
        ],
    )
    yield (
        "Requests",
        [
            Panel(
                "Requests by status",
                "4xx were refused because of what they asked.",
                [(f"sum by (status) (rate(seatrial_requests_total{{{of}}}[{RATE}]))", "{{status}}")],
                unit="reqps",
            ),
            Panel(
                "Latency",
                "From a request's last byte to its answer, of requests answered.",
                [
                    (
                        f"histogram_quantile({share}, sum by (le) "
                        f"(rate(seatrial_request_latency_seconds_bucket{{{of}}}[{RATE}])))",
                        label,
                    )
                    for share, label in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
                ],
                unit="s",
            ),
            Panel(
                "Latency by stage, p99",
                "Of one request in 32.",
                [
                    (
                        "histogram_quantile(0.99, sum by (le, stage) "
                        f"(rate(model_prediction_stage_seconds_bucket{{{of_model}}}[{RATE}])))",
                        "{{stage}}",
                    )
                ],
                unit="s",
            ),
            Panel(
                "Errors by code",
                "docs/errors.md says what each means.",
                [(f"sum by (code) (rate(model_prediction_errors_total{{{of_model}}}[{RATE}]))", "{{code}}")],
                unit="reqps",
            ),
            Panel(
                "Rows by version",
                "How the traffic is split.",
                [
                    (
                        f"sum by (model_version) (rate(model_predictions_total{{{of_model}}}[{RATE}]))",
                        "version {{model_version}}",
                    )
                ],
                unit="cps",
            ),
            Panel(
                "Lists of rows",
                "Requests that hold a list, and their rows.",
                [
                    (f"sum(rate(seatrial_batch_requests_total{{{of}}}[{RATE}]))", "requests"),
                    (f"sum(rate(seatrial_batch_rows_total{{{of}}}[{RATE}]))", "rows"),
                ],
                unit="cps",
            ),
        ],
    )
    yield (
        "Inputs",
        [
            Panel(
                "Unseen categories",
                "Values that were never seen in training, for each row scored.",
                [
                    (
                        f"sum by (input) (rate(model_unseen_categories_total{{{of_model}}}[{RATE}])) / ignoring(input) "
                        f"group_left() sum(rate(model_predictions_total{{{of_model}}}[{RATE}]))",
                        "{{input}}",
                    )
                ],
                unit="percentunit",
            ),
            Panel(
                "Degraded rows",
                "Answered although something could not be asked.",
                [
                    (
                        f"sum(rate(model_degraded_predictions_total{{{of_model}}}[{RATE}])) / "
                        f"sum(rate(model_predictions_total{{{of_model}}}[{RATE}]))",
                        "share",
                    )
                ],
                unit="percentunit",
            ),
            Panel(
                "Online store failures",
                "Look-ups that were not answered, by code.",
                [(f"sum by (code) (rate(seatrial_online_store_failures_total{{{of_model}}}[{RATE}]))", "{{code}}")],
                unit="cps",
            ),
        ],
    )
    yield (
        "Server",
        [
            Panel(
                "Ready",
                "1 when every worker of a server serves every deployment.",
                [
                    (f"min by (instance) (seatrial_ready{{{JOB}}})", "{{instance}}"),
                    (f"max by (instance) (seatrial_distrusted{{{of}}})", "distrusted {{instance}}"),
                ],
                most=1,
            ),
            Panel(
                "Route generation",
                "The lowest and the highest that a worker uses.",
                [
                    (f"min(seatrial_worker_route_generation{{{of}}})", "lowest"),
                    (f"max(seatrial_worker_route_generation{{{of}}})", "highest"),
                ],
            ),
            Panel(
                "Not shipped",
                "Records that would be lost with the server's disk.",
                [(f"max by (instance) (seatrial_unshipped_records{{{JOB}}})", "{{instance}}")],
            ),
            Panel(
                "CPU by worker",
                "Seconds a second; 1 is a whole core.",
                [
                    (
                        f"sum by (instance, worker) (rate(seatrial_worker_cpu_seconds_total{{{JOB}}}[{RATE}]))",
                        "{{instance}} {{worker}}",
                    )
                ],
            ),
            Panel(
                "Memory by worker",
                "Resident; what workers share counts for each.",
                [(f"seatrial_worker_resident_memory_bytes{{{JOB}}}", "{{instance}} {{worker}}")],
                unit="bytes",
            ),
            Panel(
                "Restarts",
                "Of workers and of processes that score, in an hour.",
                [
                    (
                        f"sum by (instance) (increase(seatrial_worker_restarts_total{{{JOB}}}[1h]))",
                        "workers {{instance}}",
                    ),
                    (f"sum(increase(seatrial_child_restarts_total{{{of_model}}}[1h]))", "processes that score"),
                ],
            ),
        ],
    )


def _placed(rows: Iterator[tuple[str, list[Panel]]]) -> Iterator[dict[str, Any]]:
    """Panels on Grafana's grid, 24 columns wide."""
    number, y = 0, 0
    for title, panels in rows:
        number += 1
        place = {"x": 0, "y": y, "w": 24, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        y += 1
        x = 0
        for panel in panels:
            if x + panel.width > 24:
                x, y = 0, y + 8
            number += 1
            yield _drawn(panel, number, {"x": x, "y": y, "w": panel.width, "h": 8})
            x += panel.width
        y += 8


def _drawn(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.most is not None:
        defaults["max"] = panel.most
    return {
        "id": number,
        "type": panel.type,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}}
        if panel.type == "stat"
        else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
            for at, (expr, legend) in enumerate(panel.lines)
        ],
    }
