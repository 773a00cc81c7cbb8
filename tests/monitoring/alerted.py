"""What rings: reports whose alarm fires or not, settled into alerts, and a webhook that listens."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from seatrial.core.windows import Window
from seatrial.monitoring.alerting.alerts import settle
from seatrial.monitoring.definition import Monitor
from seatrial.monitoring.monitor import make_report
from seatrial.monitoring.routes.addresses import Allowed
from tests.monitoring.worlds import DAY_US, START_US, a_sample

HERE = Allowed.parse(["127.0.0.0/8", "::1"])
MONITOR = Monitor("late")


def report_on(day, rate=0.6, *, monitor=MONITOR, on_call="webhook:ops", few=False):
    """The report of the week that ends `day` days into April; 0.3 was predicted, `rate` came true."""
    end = START_US + day * DAY_US
    count = 100 if few else 700
    at = end - 8 * DAY_US + np.arange(count) * (8 * DAY_US // count)
    labels = np.arange(count) % 10 < rate * 10
    sample = a_sample(np.full(count, 0.3), labels.astype(float), at_us=at)
    return make_report(
        sample,
        window=Window(end - 7 * DAY_US, end),
        as_of_us=end,
        monitor=monitor,
        id=f"rep_{day}_{rate}",
        owner="flight-ops",
        on_call=on_call,
        runbook="docs/runbook.md",
    )


def settled(metadata, day, *given, **named):
    report = report_on(day, *given, **named)
    return settle(metadata, report, actor="ann", at_us=START_US + day * DAY_US)


class Hook:
    """A webhook on this machine: answers with `status`, remembers what it got."""

    def __init__(self, status=200, **headers):
        got = self.got = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=secret"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
