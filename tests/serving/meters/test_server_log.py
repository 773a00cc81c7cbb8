"""What a server writes about requests that it did not answer: enough to find them, never what they held."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from seatrial.serving.meters import server_log
from seatrial.serving.meters.metrics import Metrics
from seatrial.serving.meters.server_log import MOST_LINES, MOST_TRACES, WINDOW_SECONDS, Refusals
from seatrial.serving.scoring.predictor import finish
from tests.serving.meters.test_metrics import body
from tests.serving.worlds import GOOD, Keys, bundle, predictor, release

SECRET = "a name that nobody may read"


@pytest.fixture
def lines(capsys):
    """What the log writes to stderr, by form."""
    logger = logging.getLogger("seatrial.serving")
    before = logger.handlers, logger.propagate, logger.level, warnings.showwarning
    found: list[str] = []

    def written(form: str) -> list:
        found.extend(capsys.readouterr().err.splitlines())
        return [json.loads(line) for line in found] if form == "json" else found

    yield written
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])
    warnings.showwarning = before[3]


def watched(**options):
    metrics = Metrics()
    metrics.refusals = Refusals()
    return predictor(options.pop("release", release()), metrics=metrics, **options)


def broken(_rows):
    raise RuntimeError(SECRET)


def test_a_refused_request_is_one_line_of_json_without_its_input(lines):
    server_log.to_stderr("json")
    assert watched().handle(body(carrier=SECRET, seats=SECRET)).status == 422
    [line] = lines("json")
    assert (line["level"], line["event"], line["code"], line["status"]) == (
        "info",
        "request refused",
        "request.bad_field",
        422,
    )
    assert (line["deployment"], line["model"]) == ("late", "late")
    assert line["time"].endswith("Z")
    assert SECRET not in json.dumps(line)


def test_a_failed_request_is_found_by_its_id_and_its_failure_by_its_place(lines):
    server_log.to_stderr("json")
    served = watched(release=release(score=broken))
    assert served.handle(json.dumps({"features": GOOD, "request_id": 'order "7"\n'}).encode()).status == 500
    failure, line = lines("json")
    assert failure["exception"] == "RuntimeError"
    assert failure["at"][-1].endswith("broken")
    assert (line["level"], line["event"], line["code"]) == ("warning", "request failed", "serving.failed")
    assert (line["request_id"], line["release"]) == ('order "7"\n', f"rel_{0:032x}")
    assert SECRET not in json.dumps([failure, line])


def test_an_answer_that_the_log_did_not_take_is_named_by_the_id_that_its_row_would_have_had(lines, tmp_path):
    from seatrial.stores.prediction_log import PredictionLog

    (tmp_path / "log").write_text("no folder can be made here")
    log = PredictionLog(tmp_path / "log")
    served = watched(log=log)
    server_log.to_stderr("json")
    draft = served.draft(body())
    assert finish(log, [draft])[0].status == 503
    [line] = lines("json")
    assert line["code"] == "log.unwritable"
    assert line["prediction_id"] == draft.rows[0][1].prediction_id


def test_text_tells_failures_and_not_what_callers_got_wrong(lines):
    server_log.to_stderr("text")
    served = watched(release=release(score=broken))
    served.handle(b"{")
    served.handle(json.dumps({"features": GOOD, "request_id": "two words\n"}).encode())
    written = lines("text")
    assert written[-1] == (
        f"request failed: deployment=late model=late release=rel_{0:032x} code=serving.failed status=500 "
        'request_id="two words\\n"'
    )
    assert "refused" not in "".join(written)


def test_a_storm_writes_few_lines_and_says_how_many_were_left_out(lines):
    server_log.to_stderr("json")
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    for _ in range(10_000):
        refusals.tell("request.not_json", 400, model="late", deployment="late")
    refusals.tell("http.not_found", 404)
    assert len(lines("json")) == MOST_LINES + 1
    refusals.look()
    assert len(lines("json")) == MOST_LINES + 1
    now[0] += WINDOW_SECONDS
    refusals.look()
    refusals.look()
    told = lines("json")[MOST_LINES + 1 :]
    assert [(line["event"], line["code"], line["left_out"]) for line in told] == [
        ("requests refused", "request.not_json", 10_000 - MOST_LINES)
    ]
    for _ in range(MOST_LINES + 2):
        refusals.tell("request.not_json", 400)
    refusals.close()
    assert lines("json")[-1]["left_out"] == 2


def test_a_storm_of_unforeseen_failures_writes_few_traces(lines):
    server_log.to_stderr("json")
    served = watched(release=release(score=broken))
    for _ in range(200):
        assert served.handle(body()).status == 500
    assert sum("exception" in line for line in lines("json")) == MOST_TRACES
    assert len(lines("json")) == MOST_TRACES + MOST_LINES


def test_ids_that_callers_choose_are_cut(lines):
    server_log.to_stderr("json")
    Refusals().tell("a.code", 400, request_id="x" * 100_000)
    assert len(lines("json")[0]["request_id"]) == server_log.LONGEST


def test_warnings_are_lines_too(lines):
    server_log.to_stderr("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = server_log._warned
        warnings.warn("the routes are served as they are", UserWarning, stacklevel=1)
    assert lines("json")[0]["event"] == "the routes are served as they are"


def test_a_stderr_that_is_closed_or_full_changes_nothing(lines, monkeypatch):
    server_log.to_stderr("json")
    served = watched()
    full = Path("/dev/full").open("w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stderr", full)
    assert served.handle(b"{").status == 400
    with suppress(OSError):
        full.close()
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert served.handle(b"{").status == 400


def test_serve_writes_nothing_but_json_to_stderr(tmp_path):
    keys = Keys(tmp_path / "keys")
    trusted = tmp_path / ".seatrial" / "keys" / "trusted"
    trusted.mkdir(parents=True)
    (tmp_path / "late.seatrial").write_bytes(bundle(keys.key))
    for path in (tmp_path / "keys").rglob("*.pub"):
        (trusted / path.name).write_bytes(path.read_bytes())
    words = ["serve", "--bundle", str(tmp_path / "late.seatrial"), "--port", "0", "--log", "json", "--workers", "2"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "seatrial", *words, "--project", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=env, text=True) as process:
        try:
            first = json.loads(process.stderr.readline())
            url = first["event"].split()[2].rstrip(";")
            for path, data in (("/predict", b"{"), ("/models/none/predict", body()), ("/predict", body())):
                try:
                    urllib.request.urlopen(urllib.request.Request(url + path, data)).close()
                except urllib.error.HTTPError as error:
                    error.close()
        finally:
            process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in process.stderr.read().splitlines()]
        assert process.wait(30) == 0
    assert [line["code"] for line in lines] == ["request.not_json", "http.not_found"]
