"""``python -m proxymw serve``: a configuration under gunicorn, reloaded by SIGHUP, stopped by SIGTERM."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.client import fetch
from tests.origins import EchoOrigin

pytestmark = pytest.mark.live

CONF = """\
<VirtualHost *:80>
    ServerName ducklington.org
    <Proxy balancer://cluster>
        BalancerMember {one}
        BalancerMember {two}
    </Proxy>
    <Location /balancer-manager>
        SetHandler balancer-manager
        Require local
    </Location>
    ProxyPass /balancer-manager !
    ProxyPass /app/ balancer://cluster/
    {more}
</VirtualHost>
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until(test: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class Served:
    """A running serve command."""

    def __init__(self, conf: Path, log: Path, *options: str) -> None:
        self.port, self._log = free_port(), log
        command = [sys.executable, "-m", "proxymw", "serve", str(conf), "--bind", f"127.0.0.1:{self.port}", *options]
        with open(log, "wb") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)

    def log(self) -> str:
        return self._log.read_text()

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            return self.status("/") > 0
        except OSError:
            return False

    def status(self, target: str) -> int:
        return fetch(self.port, target, headers=[("Host", "ducklington.org")]).status

    def elected(self) -> list[int]:
        reply = fetch(self.port, "/balancer-manager/api/v1/pools", headers=[("Host", "ducklington.org")])
        text = json.dumps(json.loads(reply.body))
        return [int(count) for count in re.findall(r'"requests": (\d+)', text)]


@contextmanager
def served(conf: Path, log: Path, *options: str) -> Iterator[Served]:
    server = Served(conf, log, *options)
    try:
        until(server.answers)
        yield server
    finally:
        server.process.terminate()
        server.process.wait(15)


@pytest.fixture(scope="module")
def members() -> Iterator[tuple[str, str]]:
    with EchoOrigin("one") as one, EchoOrigin("two") as two:
        yield one.url, two.url


def test_a_broken_file_is_refused_and_the_old_one_keeps_serving(tmp_path: Path, members: tuple[str, str]) -> None:
    conf, one, two = tmp_path / "site.conf", *members
    conf.write_text(CONF.format(one=one, two=two, more=""))
    with served(conf, tmp_path / "log") as server:
        assert [server.status("/app/x"), server.status("/new/x")] == [200, 404]
        conf.write_text(CONF.format(one=one, two=two, more="Nonsense on"))
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "was not reloaded" in server.log())
        assert f"{conf}:13: Nonsense: unknown directive" in server.log()
        assert [server.status("/app/x"), server.status("/new/x")] == [200, 404]
        conf.write_text(CONF.format(one=one, two=two, more=f"ProxyPass /new/ {one}/"))
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.status("/new/x") == 200)
        assert server.status("/app/x") == 200
    assert server.process.returncode == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_members_that_stay_keep_their_counters(tmp_path: Path, members: tuple[str, str], workers: int) -> None:
    conf, one, two = tmp_path / "site.conf", *members
    conf.write_text(CONF.format(one=one, two=two, more=""))
    with served(conf, tmp_path / "log", "--workers", str(workers)) as server:
        for _ in range(6):
            assert server.status("/app/x") == 200
        before = server.elected()
        assert sum(before[:2]) >= 6
        conf.write_text(CONF.format(one=one, two=two, more=f"ProxyPass /new/ {one}/"))
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.status("/new/x") == 200)
        assert server.elected()[:2] >= before[:2]


def test_a_file_that_cannot_be_loaded_does_not_start(tmp_path: Path) -> None:
    conf = tmp_path / "site.conf"
    conf.write_text("Nonsense on\n")
    command = [sys.executable, "-m", "proxymw", "serve", str(conf), "--bind", f"127.0.0.1:{free_port()}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{conf}:1: Nonsense: ")
