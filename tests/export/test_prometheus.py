"""Rules and dashboards: Prometheus' own tools take them, they fire when they should, and ask for what is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from seatrial.cli import run
from seatrial.core.objective import BadObjective, Objective
from seatrial.deployment.definition import BadDeployment, Deployment
from seatrial.export import gauges, grafana, prometheus
from seatrial.export.build_folder import FolderNotEmpty
from seatrial.export.prometheus import RULES, TESTS, Promised
from seatrial.serving.service import Service
from seatrial.stores.objects import ObjectStore
from seatrial.stores.prediction_log import PredictionLog
from tests.house.tree import ROOT
from tests.serving.worlds import GOOD, predictor

PROMISED = [
    Promised("late", "late", runbook="https://wiki/late", owner="flight-ops"),
    Promised('the "fare" \\ of Zürich', "fare", Objective(availability=0.9, latency_ms=100, share=0.95)),
]
KEPT = re.compile(r"\b(?:seatrial|model|process)_[a-z0-9_]+")


@pytest.fixture
def promtool(tmp_path):
    """Runs promtool in the folder; what it said."""
    path = shutil.which("promtool")

    def say(*words: str, code: int = 0) -> str:
        done = subprocess.run([path, *words], cwd=tmp_path / "rules", capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return say


@pytest.mark.needs("promtool")
class TestRules:
    def test_promtool_finds_no_fault(self, promtool, tmp_path):
        assert prometheus.export(PROMISED, tmp_path / "rules") == ["README.md", TESTS, RULES]
        said = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
        assert "SUCCESS: 45 rules found" in said

    def test_where_monitoring_writes_gauges_there_are_rules_on_them_too(self, promtool, tmp_path):
        prometheus.export(PROMISED[:1], tmp_path / "rules", watched=True)
        said = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
        assert "SUCCESS" in said
        assert "SUCCESS" in promtool("test", "rules", TESTS)
        text = (tmp_path / "rules" / RULES).read_text()
        asked = set(re.findall(r"seatrial_[a-z_]+", text.partition("seatrial-monitoring")[2]))
        assert asked <= set(gauges.HELP)

    @pytest.mark.parametrize(
        "change", [("> 1800", "> 18000"), ("seatrial_undelivered_messages) > 0", "seatrial_undelivered_messages) > 1")]
    )
    def test_the_test_of_monitoring_fails_when_a_rule_is_wrong(self, promtool, tmp_path, change):
        prometheus.export(PROMISED[:1], tmp_path / "rules", watched=True)
        rules = tmp_path / "rules" / RULES
        assert change[0] in rules.read_text()
        rules.write_text(rules.read_text().replace(*change))
        promtool("test", "rules", TESTS, code=1)

    def test_a_burn_pages_and_a_good_or_idle_service_does_not(self, promtool, tmp_path):
        prometheus.export(PROMISED, tmp_path / "rules")
        assert "SUCCESS" in promtool("test", "rules", TESTS)

    @pytest.mark.parametrize("change", [(" * 0.001)", " * 0.9)"), ('status=\\"5xx\\"', 'status=\\"4xx\\"')])
    def test_its_test_fails_when_a_rule_is_wrong(self, promtool, tmp_path, change):
        prometheus.export(PROMISED[:1], tmp_path / "rules")
        rules = tmp_path / "rules" / RULES
        assert change[0] in rules.read_text()
        rules.write_text(rules.read_text().replace(*change))
        assert "FAILED" in promtool("test", "rules", TESTS, code=1)

    def test_the_other_alerts_fire_on_what_they_are_about(self, promtool, tmp_path):
        prometheus.export(PROMISED[:1], tmp_path / "rules")
        of = 'job="s",instance="a"'
        series = {
            f"seatrial_ready{{{of}}}": "1+0x9 0+0x20",
            f'seatrial_distrusted{{{of},deployment="late"}}': "0+0x9 1+0x20",
            f'seatrial_worker_restarts_total{{{of},worker="0"}}': "0+1x30",
            f'seatrial_child_restarts_total{{{of},model_name="late"}}': "0+1x30",
            f'seatrial_worker_route_generation{{{of},deployment="late",worker="0"}}': "2+0x30",
            f'seatrial_worker_route_generation{{{of},deployment="late",worker="1"}}': "1+0x30",
            f'seatrial_routes_refused_total{{{of},deployment="late",code="a"}}': "0+0x20 1+0x10",
            f'seatrial_requests_total{{{of},deployment="",status="5xx"}}': "0+6x30",
            f'model_degraded_predictions_total{{{of},model_name="late"}}': "0+10x40",
            f'model_predictions_total{{{of},model_name="late"}}': "0+100x40",
            f"seatrial_unshipped_records{{{of}}}": "0+1000x40",
            f'seatrial_unlogged_predictions_total{{{of},model_name="late",model_version="1"}}': "0+1x30",
            f'seatrial_series_over_limit_total{{{of},metric="m"}}': "0+1x30",
        }
        fired = (
            "SeatrialNotReady SeatrialDistrusted SeatrialWorkerRestarts SeatrialChildRestarts SeatrialWorkerBehind "
            "SeatrialRouteRefused SeatrialRequestsUnattributed SeatrialDegraded SeatrialUnshippedRecords "
            "SeatrialUnlogged "
            "SeatrialSeriesOverLimit"
        ).split()
        test = {
            "rule_files": [RULES],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": name, "values": values} for name, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count by (alertname) (ALERTS{{alertname="{name}",alertstate="firing"}})',
                            "eval_time": "28m",
                            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}],
                        }
                        for name in fired
                    ]
                    + [{"expr": 'ALERTS{alertname="SeatrialErrorBudgetBurn"}', "eval_time": "28m", "exp_samples": []}]
                    + [{"expr": 'ALERTS{alertname="SeatrialNotReady"}', "eval_time": "9m", "exp_samples": []}],
                },
                {
                    "interval": "1m",
                    "input_series": [],
                    "promql_expr_test": [
                        {
                            "expr": "count by (alertname) (ALERTS)",
                            "eval_time": "28m",
                            "exp_samples": [{"labels": '{alertname="SeatrialAbsent"}', "value": 1}],
                        }
                    ],
                },
            ],
        }
        (tmp_path / "rules" / "more.yml").write_text(prometheus.yaml(test))
        assert "SUCCESS" in promtool("test", "rules", "more.yml")
        assert set(re.findall(r'alert: "(\w+)"', (tmp_path / "rules" / RULES).read_text())) == {
            *fired,
            "SeatrialAbsent",
            "SeatrialErrorBudgetBurn",
        }

    def test_every_expression_of_a_dashboard_is_promql(self, promtool, tmp_path):
        grafana.export(PROMISED, tmp_path / "boards")
        rules = [
            {"record": f"board{one}:{number}", "expr": expr}
            for one, file in enumerate(sorted((tmp_path / "boards").iterdir()))
            for number, expr in enumerate(grafana.expressions(json.loads(file.read_text())))
        ]
        (tmp_path / "rules").mkdir()
        (tmp_path / "rules" / RULES).write_text(prometheus.yaml({"groups": [{"name": "board", "rules": rules}]}))
        assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", "--lint=none", RULES)


def told_by_a_server(tmp_path) -> set[str]:
    """The names of every sample, once everything that can happen has."""
    metrics = Service(log=PredictionLog(tmp_path / "log", objects=ObjectStore(tmp_path / "objects"))).metrics
    served = predictor(metrics=metrics)
    served.handle(json.dumps({"instances": [GOOD | {"carrier": "ZZ"}]}).encode())
    served.handle(b"")
    metrics.degraded("late", "1", 1)
    metrics.unlogged("late", "1", 1)
    metrics.store_failed("late", "online.busy")
    metrics.child_died("late")
    metrics.took_up("late", 1)
    metrics.distrusted("late", now=False)
    metrics.refused("late", "route.older")
    metrics.asked("page", 200)
    metrics._count(metrics._tables["seatrial_series_over_limit"].family, "x")
    metrics.traced("sent")
    return {line.split("{")[0].split(" ")[0] for line in metrics.render().decode().splitlines() if line[0] != "#"}


def test_what_rules_and_dashboards_ask_for_is_told_by_a_server_or_recorded(tmp_path):
    told = told_by_a_server(tmp_path)
    rules = prometheus.rules(PROMISED)
    recorded = set(re.findall(r'record: "([^"]+)"', rules))
    asked = re.findall(r'expr: "(.*)"\n', rules)
    for one in PROMISED:
        asked += grafana.expressions(grafana.dashboard(one))
    missing = set()
    for expression in asked:
        for name in re.findall(r"deployment:[a-z0-9_:]+", expression):
            if name not in recorded:
                missing.add(name)
        plain = re.sub(r'\\?"(?:[^"\\]|\\.)*?\\?"|deployment:[a-z0-9_:]+|by \([^)]*\)', "", expression)
        missing |= {name for name in KEPT.findall(plain) if name not in told | {"model_name"}}
    assert missing == set()


def test_the_documentation_lists_what_is_told_and_nothing_else(tmp_path):
    page = (ROOT / "docs" / "metrics.md").read_text()
    lines = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    listed = {name for line in lines for name in re.findall(r"`([a-z_]+)`", line)}
    told = {re.sub("_(bucket|count|sum)$", "", name) for name in told_by_a_server(tmp_path)}
    assert listed == told
    for alert in re.findall(r'alert: "(\w+)"', prometheus.rules(PROMISED)):
        assert alert == "SeatrialErrorBudgetBurn" or f"`{alert}`" in page


def test_every_alert_says_how_urgent_it_is_and_where_to_look():
    alerts = [rule for one in PROMISED for rule in prometheus._burns(one)] + list(prometheus._service())
    for alert in alerts:
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert all(alert["annotations"].values())
    assert {alert["annotations"]["runbook_url"] for alert in alerts[:6]} == {"https://wiki/late"}


def test_a_dashboard_has_its_own_place_and_no_two_panels_share_one():
    boards = [grafana.dashboard(one) for one in PROMISED]
    assert len({board["uid"] for board in boards}) == 2
    for board in boards:
        assert len(board["uid"]) <= 40  # Grafana's limit
        cells = [
            (x, y)
            for panel in board["panels"]
            for at in [panel["gridPos"]]
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) == 23
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        assert json.loads(json.dumps(board)) == board


class TestObjective:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"availability": 1},
            {"availability": 0.2},
            {"share": True},
            {"share": "0.9"},
            {"latency_ms": 60},
            {"latency_ms": True},
            {"latency_ms": float("nan")},
        ],
    )
    def test_one_that_cannot_be_kept_or_measured_is_refused(self, wrong):
        with pytest.raises(BadObjective):
            Objective(**wrong)

    def test_a_deployment_has_one_unless_told_otherwise(self):
        assert Deployment("late").objective == Objective(0.999, 50, 0.99)
        with pytest.raises(BadDeployment):
            Deployment("late", objective=0.999)


class TestCommand:
    @pytest.fixture
    def project(self, tmp_path):
        (tmp_path / "project.py").write_text(
            "from seatrial import CsvSource, Deployment, Model, Objective\n"
            'rows = CsvSource("rows.csv", event_timestamp="at")\n'
            'Model("late", task="binary", target="y", labels=rows, features=["request:x"], runbook="docs/late.md",\n'
            '      estimator="sklearn.linear_model.LogisticRegression")\n'
            'Model("fare", task="regression", target="z", labels=rows, features=["request:x"],\n'
            '      estimator="sklearn.linear_model.LinearRegression")\n'
            'Deployment("late", name="late-eu", objective=Objective(availability=0.99, latency_ms=10))\n'
        )
        return tmp_path

    def test_it_writes_rules_and_dashboards_of_every_deployment(self, project, capsys):
        for form in ("prometheus", "grafana"):
            to = str(project / form)
            assert run(["export", form, "--to", to, "--project", str(project), "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["folder"] == to
        assert sorted(file.name for file in (project / "grafana").iterdir()) == ["fare.json", "late-eu.json"]
        rules = (project / "prometheus" / RULES).read_text()
        assert 'le=\\"0.01\\"' in rules
        assert '"docs/late.md"' in rules
        assert run(["export", "prometheus", "--to", str(project / "prometheus"), "--project", str(project)]) == 2
        assert "is not empty" in capsys.readouterr().err

    def test_a_project_without_a_deployment_is_told_so(self, tmp_path, capsys):
        (tmp_path / "project.py").write_text("")
        assert run(["export", "grafana", "--to", str(tmp_path / "to"), "--project", str(tmp_path)]) == 2
        assert "no deployment" in capsys.readouterr().err
        assert not (tmp_path / "to").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(FolderNotEmpty):
        grafana.export(PROMISED, tmp_path)
