"""A PostgreSQL server of the tests' own, on a socket and a free port, gone when they end."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

PASSWORD = "s3cret/p@ss"
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class PostgresServer:
    """user, host, port: how to reach it; every user needs a password, and PASSWORD is that of `seatrial`."""

    def __init__(self) -> None:
        assert BINARIES, "PostgreSQL is not installed: run `make services`"
        self._bin = BINARIES[-1]
        # not pytest's folder: PostgreSQL refuses to run as root, and nobody else may enter that one
        self._folder = Path(tempfile.mkdtemp(prefix="seatrial-pg-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.host, self.user = "127.0.0.1", "seatrial"
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb", "-D", str(self._folder / "data"), "-U", self.user, "-A", "scram-sha-256",
            f"--pwfile={password}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
        )  # fmt: skip
        self._control("start", "-w", "-l", str(self._folder / "log"), "-o", self._options())

    def _options(self) -> str:
        return f"-h {self.host} -p {self.port} -k {self._folder} -F -c shared_buffers=16MB"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments], cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, env={"PATH": os.environ["PATH"]}, **self._as,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    def _control(self, *arguments: str) -> None:
        # its output goes to a file: the server keeps the pipe of its starter open
        with (self._folder / "pg_ctl").open("w") as said:
            done = subprocess.run(
                [self._bin / "pg_ctl", "-D", self._folder / "data", *arguments], cwd=self._folder, stdout=said,
                stdin=subprocess.DEVNULL, stderr=said, check=False, env={"PATH": os.environ["PATH"]}, **self._as,
            )  # fmt: skip
        assert done.returncode == 0, (self._folder / "pg_ctl").read_text()

    @property
    def url(self) -> str:
        return self.url_of(PASSWORD)

    def url_of(self, password: str, database: str = "postgres", user: str = "seatrial") -> str:
        from urllib.parse import quote

        return f"postgresql://{user}:{quote(password, safe='')}@{self.host}:{self.port}/{database}"

    def run(self, *statements: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def stop(self) -> None:
        self._control("stop", "-m", "immediate", "-w")
        shutil.rmtree(self._folder)


class Proxy:
    """Passes one connection's bytes on to the server, and cuts it after so many bytes of answers."""

    def __init__(self, port: int, after: int) -> None:
        import threading

        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._target, self._after = port, after
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        import selectors

        client, _ = self._listening.accept()
        with client, socket.create_connection(("127.0.0.1", self._target)) as server, selectors.DefaultSelector() as on:
            on.register(client, selectors.EVENT_READ, server)
            on.register(server, selectors.EVENT_READ, client)
            passed = 0
            while passed < self._after:
                for key, _ in on.select():
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return
                    key.data.sendall(data)
                    passed += len(data) if key.fileobj is server else 0

    def close(self) -> None:
        self._thread.join()
        self._listening.close()
