"""Real servers for tests: started from the system's own programs, on a socket or a free port, and stopped again."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

REDIS = "redis-server"


def program(name: str) -> str:
    """Where a server's program is. Fails where it is missing: a test that could not run is no test that passed."""
    found = shutil.which(name)
    assert found, f"{name} is not installed: run `make services`"
    return found


@dataclass
class RedisProcess:
    """A Redis server of its own, on a socket and on a port, that keeps nothing on disk."""

    folder: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "redis.sock"

    def address(self, database: int = 0, *, password: str = "") -> str:
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/{database}"

    def unix(self, database: int = 0) -> str:
        return f"unix://{self.socket}?db={database}"

    def start(self) -> RedisProcess:
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)]
        kept = ["--save", "", "--appendonly", "no", "--dir", str(self.folder), "--logfile", str(self.folder / "log")]
        command = [program(REDIS), *where, *kept, "--databases", "64", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        for _ in range(500):
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(100):  # also when it asks for a password
                        return self
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.01)
        raise AssertionError("redis-server did not start")

    def ask(self, *words: str | bytes | int, database: int = 0) -> Any:
        """The server's answer to a command, as it gave it."""
        import redis

        with redis.Redis(port=self.port, db=database, protocol=2) as client:
            client.response_callbacks.clear()
            return client.execute_command(*words)

    def pause(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill it: what it held is gone."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


KAFKA_CLUSTER = """
import sys, time
from confluent_kafka import Producer
client = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
brokers = client.list_topics(timeout=10).brokers.values()
print(",".join(f"{one.host}:{one.port}" for one in brokers), flush=True)
sys.stdin.read()
"""


@contextmanager
def kafka_cluster() -> Iterator[str]:
    """The brokers of librdkafka's mock cluster, which lives in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", KAFKA_CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        brokers = process.stdout.readline().strip()
        assert brokers, "the mock cluster did not start"
        yield brokers
        process.kill()


ALERTMANAGER = "prometheus-alertmanager"
GROUPED = """
route: {receiver: ops, group_by: [model], group_wait: 300ms, group_interval: 300ms, repeat_interval: 1h}
receivers: [{name: ops, webhook_configs: [{url: "%s", send_resolved: true}]}]
inhibit_rules: [{source_matchers: ['severity="page"'], target_matchers: ['severity="ticket"'], equal: [model]}]
"""


@dataclass
class AlertmanagerProcess:
    """A Prometheus Alertmanager of its own, alone, that tells a webhook; a page inhibits the tickets of its model."""

    folder: Path
    hook: str
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> AlertmanagerProcess:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "config.yml").write_text(GROUPED % self.hook)
        command = [program(ALERTMANAGER), f"--config.file={self.folder / 'config.yml'}", "--cluster.listen-address="]
        command += [f"--storage.path={self.folder / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        for _ in range(1000):
            try:
                if self.ask("/-/ready", plain=True):
                    return self
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.01)
        raise AssertionError("the Alertmanager did not start")

    def ask(self, path: str, *, plain: bool = False) -> Any:
        """What it answers to GET, as JSON unless `plain`."""
        with urlopen(f"{self.url}{path}", timeout=5) as answer:
            text = answer.read().decode()
        return text if plain else json.loads(text)

    def alerts(self) -> list[dict[str, Any]]:
        """Those that fire, whether they are inhibited or not."""
        found: list[dict[str, Any]] = self.ask("/api/v2/alerts")
        return found

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
