"""Rules by which Prometheus sums up what servers tell, and says when somebody must look.

Recording rules keep the shares that alerts and dashboards ask for, by job and deployment. A deployment's promise
(`core.objective`) is watched by how fast it uses up its error budget, over a long and a short window together, as in
"Alerting on SLOs" of Google's Site Reliability Workbook (2018, chapter 5, table 5-8):

    severity   long   short   burn rate   of the budget of 30 days
    page       1h     5m      14.4        2 %
    page       6h     30m     6           5 %
    ticket     3d     6h      1           10 %
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seatrial.core.objective import LATENCY_BOUNDS, Objective
from seatrial.export.build_folder import write_files

RULES = "seatrial.rules.yml"
TESTS = "seatrial.rules.test.yml"
BURNS = (("page", "1h", "5m", 14.4, "2m"), ("page", "6h", "30m", 6.0, "15m"), ("ticket", "3d", "6h", 1.0, "1h"))
"""Severity, long and short window, burn rate, and how long it must last."""
WINDOWS = ("5m", "30m", "1h", "6h", "3d", "30d")
BUDGET = "30d"
FAILED = "deployment:seatrial_requests_failed:ratio_rate"
SLOW = "deployment:seatrial_requests_slow:ratio_rate"
BY = "by (job, deployment)"

_RUNBOOK = "docs/metrics.md#rules-and-dashboards"


@dataclass(frozen=True)
class Promised:
    """A deployment and what it promises. runbook: where the person who is called looks first; may be empty."""

    deployment: str
    model: str
    objective: Objective = field(default_factory=Objective)
    runbook: str = ""
    owner: str = ""


def export(promised: Sequence[Promised], folder: Path, *, watched: bool = False) -> list[str]:
    """Write the rules and a test of them for `promtool test rules`; the names of the files, sorted.

    watched: the gauges of monitoring (`export.gauges`) are written for node_exporter, so there are rules on them too.
    folder: is made; when it exists it must be empty. Raises FolderNotEmpty, CannotWrite.
    """
    files = {RULES: rules(promised, watched=watched), TESTS: tests(promised, watched=watched)}
    files["README.md"] = _readme(promised) + (_WATCHED if watched else "")
    return write_files(folder, {name: text.encode() for name, text in files.items()})


def rules(promised: Sequence[Promised], *, watched: bool = False) -> str:
    """The text of the rules' file."""
    groups = [
        {"name": "seatrial-recording", "rules": list(_recorded(promised))},
        {"name": "seatrial-objectives", "rules": [rule for one in promised for rule in _burns(one)]},
        {"name": "seatrial-service", "rules": list(_service())},
        {"name": "seatrial-monitoring", "rules": list(_monitoring()) if watched else []},
    ]
    head = "# Written by `seatrial export prometheus`; written again when a deployment or its objective changes.\n"
    return head + yaml({"groups": [group for group in groups if group["rules"]]})


def bound(objective: Objective) -> str:
    """The latency of an objective as the label `le` of the bucket that ends there."""
    return str(next(bound for bound in LATENCY_BOUNDS if round(bound * 1000, 3) == objective.latency_ms))


def failed(window: str) -> str:
    """The share of a deployment's requests that got a 5xx; what was refused because of what it asked counts neither
    way."""
    bad = f'sum {BY} (rate(seatrial_requests_total{{status="5xx"}}[{window}]))'
    return f'{bad} / sum {BY} (rate(seatrial_requests_total{{status=~"2xx|5xx"}}[{window}]))'


def slow(promised: Promised, window: str) -> str:
    """The share of its answers that came later than its objective says."""
    name = _quoted(promised.deployment)
    fast = f'seatrial_request_latency_seconds_bucket{{deployment={name},le="{bound(promised.objective)}"}}'
    every = f"seatrial_request_latency_seconds_count{{deployment={name}}}"
    return f"1 - sum {BY} (rate({fast}[{window}])) / sum {BY} (rate({every}[{window}]))"


def _recorded(promised: Sequence[Promised]) -> Iterator[dict[str, Any]]:
    for window in WINDOWS:
        yield {"record": f"{FAILED}{window}", "expr": failed(window)}
        for one in promised:
            labels = {"deployment": one.deployment}  # of the result anyway; so that each rule is told from the next
            yield {"record": f"{SLOW}{window}", "expr": slow(one, window), "labels": labels}
    yield {
        "record": "deployment:seatrial_requests:rate5m",
        "expr": "sum by (job, deployment, status) (rate(seatrial_requests_total[5m]))",
    }
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield {
            "record": f"deployment:seatrial_request_latency_seconds:{name}_5m",
            "expr": f"histogram_quantile({share}, sum by (job, deployment, le) "
            "(rate(seatrial_request_latency_seconds_bucket[5m])))",
        }


def _burns(one: Promised) -> Iterator[dict[str, Any]]:
    """The alerts of one deployment: of its availability, then of its latency."""
    objective, name = one.objective, _quoted(one.deployment)
    kinds = (
        ("availability", FAILED, objective.availability, "requests are answered with a 5xx"),
        ("latency", SLOW, objective.share, f"answers take longer than {objective.latency_ms:g} ms"),
    )
    for kind, recorded, promise, what in kinds:
        for severity, long, short, rate, lasts in BURNS:
            most = f"({rate:g} * {1 - promise:.6g})"
            both = [f"{recorded}{window}{{deployment={name}}} > {most}" for window in (long, short)]
            yield _alert(
                "SeatrialErrorBudgetBurn",
                " and ".join(both),
                lasts,
                severity,
                f"Deployment {one.deployment} uses its {kind} budget up {rate:g} times too fast",
                f"Of the last {long} and {short} {{{{ $value | humanizePercentage }}}} of the {what}; "
                f"the promise is {promise * 100:g} % over {BUDGET}.",
                runbook=one.runbook,
                labels={"objective": kind, "window": long} | ({"owner": one.owner} if one.owner else {}),
            )


def _service() -> Iterator[dict[str, Any]]:
    """The alerts that are alike for every deployment."""
    yield _alert(
        "SeatrialNotReady",
        "max by (job, instance) (seatrial_ready) == 0",
        "5m",
        "page",
        "A server is not ready",
        "{{ $labels.instance }} does not serve every deployment, by every worker; its page /ready says why.",
    )
    yield _alert(
        "SeatrialAbsent",
        "absent(seatrial_ready)",
        "5m",
        "page",
        "No server tells its metrics",
        "Prometheus finds no seatrial server: none runs, or the scrape fails.",
    )
    yield _alert(
        "SeatrialDistrusted",
        f"max {BY} (seatrial_distrusted) == 1",
        "1m",
        "page",
        "What a deployment answers with is not trusted any more",
        "The key that signed the release or the route of {{ $labels.deployment }} was revoked: have it signed again, "
        "or deploy another.",
        runbook="docs/releases.md#when-a-key-leaks",
    )
    yield _alert(
        "SeatrialRequestsUnattributed",
        'sum by (job) (rate(seatrial_requests_total{deployment="",status="5xx"}[5m])) > 0',
        "5m",
        "page",
        "Requests fail before a deployment is found",
        "{{ $value | humanize }} requests a second got a 5xx, and count in no deployment's budget.",
    )
    yield _alert(
        "SeatrialUnshippedRecords",
        "max by (job, instance) (seatrial_unshipped_records) > 1000 and max by (job, instance) "
        "(seatrial_unshipped_records) > sum by (job, instance) (increase(model_predictions_total[1h]))",
        "15m",
        "page",
        "The prediction log is not shipped",
        "{{ $value }} records of {{ $labels.instance }}, more than an hour's, would be lost with its disk.",
    )
    yield _alert(
        "SeatrialUnlogged",
        "sum by (job, instance, model_name) (increase(seatrial_unlogged_predictions_total[5m])) > 0",
        "0m",
        "page",
        "Answers leave without a row in the prediction log",
        "{{ $value | humanize }} rows of {{ $labels.model_name }} at {{ $labels.instance }} in 5 minutes: the log's "
        "disk is full or failing, and the policy is to serve all the same.",
    )
    yield _alert(
        "SeatrialWorkerRestarts",
        "sum by (job, instance) (increase(seatrial_worker_restarts_total[15m])) > 3",
        "0m",
        "ticket",
        "Workers die again and again",
        "Workers of {{ $labels.instance }} were started again {{ $value | humanize }} times in 15 minutes; its log "
        "says how they ended.",
    )
    yield _alert(
        "SeatrialChildRestarts",
        "sum by (job, instance, model_name) (increase(seatrial_child_restarts_total[15m])) > 3",
        "0m",
        "ticket",
        "The process that scores dies again and again",
        "That of model {{ $labels.model_name }} ended {{ $value | humanize }} times in 15 minutes.",
        runbook="docs/releases.md#a-model-that-has-no-onnx-form",
    )
    yield _alert(
        "SeatrialWorkerBehind",
        "max by (job, instance, deployment) (seatrial_worker_route_generation) > "
        "min by (job, instance, deployment) (seatrial_worker_route_generation)",
        "5m",
        "ticket",
        "A worker answers with an older route than another",
        "Of {{ $labels.deployment }} at {{ $labels.instance }}.",
    )
    yield _alert(
        "SeatrialRouteRefused",
        f"sum {BY} (increase(seatrial_routes_refused_total[10m])) > 0",
        "0m",
        "ticket",
        "A route or release was not taken",
        "{{ $labels.deployment }} goes on with the one before; /ready says why.",
    )
    yield _alert(
        "SeatrialDegraded",
        "sum by (job, model_name) (rate(model_degraded_predictions_total[15m])) / "
        "sum by (job, model_name) (rate(model_predictions_total[15m])) > 0.05",
        "15m",
        "ticket",
        "Answers lack what should have been looked up",
        "{{ $value | humanizePercentage }} of the rows of {{ $labels.model_name }}.",
    )
    yield _alert(
        "SeatrialSeriesOverLimit",
        "sum by (job, metric) (increase(seatrial_series_over_limit_total[1h])) > 0",
        "0m",
        "ticket",
        "A metric has more series than it may",
        "{{ $labels.metric }} counts what is beyond under `other`.",
    )


def _monitoring() -> Iterator[dict[str, Any]]:
    """The alerts on what watches: who wakes somebody when it is dead, or when its messages reach nobody?"""
    runbook = "docs/alerts.md"
    yield _alert(
        "SeatrialHeartbeatMissing",
        "time() - max by (project) (seatrial_heartbeat_timestamp_seconds) > 1800",
        "5m",
        "page",
        "Nothing watches over the models",
        "Of {{ $labels.project }} neither `seatrial alerts check` nor `seatrial monitor` has done its work for "
        "{{ $value | humanizeDuration }}.",
        runbook=runbook,
    )
    yield _alert(
        "SeatrialHeartbeatAbsent",
        "absent(seatrial_heartbeat_timestamp_seconds)",
        "10m",
        "page",
        "Nothing tells whether anything watches over the models",
        "Prometheus finds no heartbeat of seatrial: node_exporter's textfile collector does not read its folder, or "
        "it was never written.",
        runbook=runbook,
    )
    yield _alert(
        "SeatrialMessagesUndelivered",
        "max by (project) (seatrial_undelivered_messages) > 0",
        "30m",
        "page",
        "Alerts do not reach anybody",
        "{{ $value }} messages of {{ $labels.project }} did not arrive; `seatrial alerts undelivered` says why.",
        runbook=runbook,
    )
    yield _alert(
        "SeatrialIncidentOpen",
        "max by (project, model) (seatrial_incident_open) == 1",
        "1h",
        "ticket",
        "An incident goes on",
        "Of {{ $labels.model }}, for more than an hour; its page was sent when it began. See `seatrial alerts list`.",
        runbook=runbook,
    )
    yield _alert(
        "SeatrialMissed",
        "max by (project, model, what) (seatrial_missed) == 1",
        "15m",
        "ticket",
        "Something that should come does not",
        "The {{ $labels.what }} of {{ $labels.model }}; `seatrial alerts check` says since when.",
        runbook=runbook,
    )


def _alert(
    name: str,
    expr: str,
    lasts: str,
    severity: str,
    summary: str,
    description: str,
    *,
    runbook: str = "",
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        "for": lasts,
        "labels": {"severity": severity} | (labels or {}),
        "annotations": {"summary": summary, "description": description, "runbook_url": runbook or _RUNBOOK},
    }


def tests(promised: Sequence[Promised], *, watched: bool) -> str:
    """A file for `promtool test rules`: of each deployment the page fires while a fifth of its requests fails or is
    slow, and stays silent while all goes well, and while nobody asks."""
    cases: list[dict[str, Any]] = []
    for one in promised:
        silent = [{"eval_time": "90m", "alertname": "SeatrialErrorBudgetBurn", "exp_alerts": []}]
        cases.append({"interval": "1m", "input_series": _served(one, "600", "0", "600"), "alert_rule_test": silent})
        cases.append({"interval": "1m", "input_series": _served(one, "0", "0", "0"), "alert_rule_test": silent})
        for kind, answered, broken, fast in (("availability", "400", "200", "400"), ("latency", "600", "0", "300")):
            expected = [
                {
                    "eval_time": "90m",
                    "alertname": "SeatrialErrorBudgetBurn",
                    "exp_alerts": [
                        {"exp_labels": alert["labels"] | {"job": "seatrial", "deployment": one.deployment}, **told}
                        for alert, told in _expected(one, kind, broken, answered, fast)
                    ],
                }
            ]
            series = _served(one, answered, broken, fast)
            cases.append({"interval": "1m", "input_series": series, "alert_rule_test": expected})
    cases += _monitoring_cases() if watched else []
    head = "# promtool test rules " + TESTS + "\n"
    return head + yaml({"rule_files": [RULES], "evaluation_interval": "1m", "tests": cases})


def _monitoring_cases() -> list[dict[str, Any]]:
    """A heart that beats and misses nothing is silent; one that stopped, and each thing that is wrong, is told."""
    rules = {one["alert"]: one for one in _monitoring()}
    beats, stopped = "0+60x120", "0x120"

    def case(beat: str, wrong: int, expected: dict[str, tuple[dict[str, str], str, str]]) -> dict[str, Any]:
        of = 'project="parcels"'
        series = {
            f"seatrial_heartbeat_timestamp_seconds{{{of}}}": beat,
            f"seatrial_undelivered_messages{{{of}}}": f"{wrong}x120",
            f'seatrial_incident_open{{{of},model="late"}}': f"{wrong}x120",
            f'seatrial_missed{{{of},model="late",what="labels"}}': f"{wrong}x120",
        }
        found = []
        for name, rule in rules.items():
            labels, value, told = expected.get(name, ({}, "", ""))
            alerts = []
            if labels:
                said = rule["annotations"]["description"].replace(value, told)
                for label, text in labels.items():
                    said = said.replace(f"{{{{ $labels.{label} }}}}", text)
                annotations = rule["annotations"] | {"description": said}
                alerts = [{"exp_labels": rule["labels"] | labels, "exp_annotations": annotations}]
            found.append({"eval_time": "90m", "alertname": name, "exp_alerts": alerts})
        series_of = [{"series": name, "values": values} for name, values in series.items()]
        return {"interval": "1m", "input_series": series_of, "alert_rule_test": found}

    project = {"project": "parcels"}
    model = project | {"model": "late"}
    number = "{{ $value }}"
    wrong = {
        "SeatrialHeartbeatMissing": (project, "{{ $value | humanizeDuration }}", "1h 30m 0s"),
        "SeatrialMessagesUndelivered": (project, number, "1"),
        "SeatrialIncidentOpen": (model, number, ""),
        "SeatrialMissed": (model | {"what": "labels"}, number, ""),
    }
    return [case(beats, 0, {}), case(stopped, 1, wrong)]


def _expected(
    one: Promised, kind: str, broken: str, answered: str, fast: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The alerts that fire after an hour and a half of this, with what they tell."""
    share = {
        "availability": int(broken) / (int(broken) + int(answered)),
        "latency": 1 - int(fast) / max(1, int(answered)),
    }[kind]
    promise = one.objective.availability if kind == "availability" else one.objective.share
    for alert in _burns(one):
        rate = next(burn[3] for burn in BURNS if burn[1] == alert["labels"]["window"])
        if alert["labels"]["objective"] != kind or share <= rate * (1 - promise):
            continue
        said = alert["annotations"] | {
            "description": alert["annotations"]["description"].replace(
                "{{ $value | humanizePercentage }}", f"{share * 100:.4g}%"
            )
        }
        yield alert, {"exp_annotations": said}


def _served(one: Promised, answered: str, broken: str, fast: str) -> list[dict[str, str]]:
    """Series of a server that answers so many requests a minute for two hours."""
    name, of = _quoted(one.deployment), 'job="seatrial",instance="a"'
    series = {
        f'seatrial_requests_total{{{of},deployment={name},status="2xx"}}': answered,
        f'seatrial_requests_total{{{of},deployment={name},status="5xx"}}': broken,
        f'seatrial_request_latency_seconds_bucket{{{of},deployment={name},le="{bound(one.objective)}"}}': fast,
        f'seatrial_request_latency_seconds_bucket{{{of},deployment={name},le="+Inf"}}': answered,
        f"seatrial_request_latency_seconds_count{{{of},deployment={name}}}": answered,
    }
    return [{"series": name, "values": f"0+{step}x120"} for name, step in series.items()]


def _readme(promised: Sequence[Promised]) -> str:
    table = "\n".join(
        f"| {one.deployment} | {one.model} | {one.objective.availability * 100:g} % | "
        f"{one.objective.share * 100:g} % within {one.objective.latency_ms:g} ms |"
        for one in promised
    )
    return f"""\
# Rules for Prometheus

| deployment | model | availability | latency |
|---|---|---|---|
{table}

    promtool check rules {RULES}
    promtool test rules {TESTS}

Name `{RULES}` under `rule_files` of prometheus.yml, and let it scrape `/metrics` of each server, under one `job`:

    scrape_configs:
      - job_name: seatrial
        static_configs: [{{targets: ["HOST:8000"]}}]

Alerts carry `severity` (page: somebody now; ticket: in working hours) and `runbook_url`. Burn rates and windows are
those of the Site Reliability Workbook, chapter 5. What is left of the budget is asked over {BUDGET}: Prometheus keeps
15 days unless `--storage.tsdb.retention.time` says more.
"""


_WATCHED = """
The group seatrial-monitoring asks for the gauges that `seatrial monitor` and `seatrial alerts check` write to the
folder under `[alerts] textfile` of seatrial.toml. Let node_exporter read it (`--collector.textfile.directory`), and Prometheus
scrape node_exporter.
"""


def yaml(value: Any, indent: int = 0) -> str:
    """Plain data as YAML: keys in the order given, every text in double quotes as JSON writes it."""
    pad = " " * indent
    lines = []
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list) and item:
                lines.append(f"{pad}{key}:\n{yaml(item, indent + 2)}")
            else:
                lines.append(f"{pad}{key}: {json.dumps(item, ensure_ascii=False)}\n")
    else:
        for item in value:
            body = (
                yaml(item, indent + 2) if isinstance(item, dict) else f"{pad}  {json.dumps(item, ensure_ascii=False)}\n"
            )
            lines.append(f"{pad}- {body[indent + 2 :]}")
    return "".join(lines)


def _quoted(text: str) -> str:
    """A text of PromQL."""
    return json.dumps(text, ensure_ascii=False)
