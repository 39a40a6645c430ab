"""The servers that the conformance suite runs under, each with the same front."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.client import Reply, eventually, fetch, raw
from tests.origins import ROOT, SETTINGS

#: What is served: every kind of rule, the origin's port in front of the path.
APP = """
import os
from proxymw import IPAllowlist, PrefixProxy, RewriteProxy, StaticOrPass, BalancerPool
from wsgiref.validate import validator

_rules = {}

def to_port(environ, start_response):
    port = environ["PATH_INFO"].split("/")[1]
    rule = _rules.setdefault(port, PrefixProxy(None, [("/" + port, "http://127.0.0.1:" + port)]))
    return rule(environ, start_response)

app = PrefixProxy(to_port, [("/static", StaticOrPass(None, os.environ["STATIC_ROOT"]))])
app = IPAllowlist(app, allow=["127.0.0.1"])
"""


def _have(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _gunicorn(worker: str, parser: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, home: Path) -> list[str]:
        args = [sys.executable, "-m", "gunicorn", "-c", str(home / "settings.py"), "--no-control-socket"]
        args += ["-b", f"127.0.0.1:{port}", "-k", worker, "--graceful-timeout", "1", "--http-parser", parser]
        return [*args, *(["--threads", "8"] if worker == "gthread" else []), "served:app"]

    return command


def _waitress(port: int, home: Path) -> list[str]:
    args = [f"--listen=127.0.0.1:{port}", "--threads=8", "--channel-request-lookahead=1"]
    return [sys.executable, "-m", "waitress", *args, "served:app"]


def _granian(port: int, home: Path) -> list[str]:
    args = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--blocking-threads", "8", "--no-ws"]
    return [_program("granian"), *args, "--log-level", "error", "served:app"]


def _uwsgi(port: int, home: Path) -> list[str]:
    args = ["--http-socket", f"127.0.0.1:{port}", "--master", "--enable-threads", "--threads", "8"]
    return [_program("uwsgi"), *args, "--die-on-term", "--need-app", "--disable-logging", "--module", "served:app"]


def _werkzeug(port: int, home: Path) -> list[str]:
    start = f"run_simple('127.0.0.1', {port}, app, threaded=True)"
    return [sys.executable, "-c", f"from served import app; from werkzeug.serving import run_simple; {start}"]


def _program(name: str) -> str:
    """Beside this Python, or anywhere."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which(name, path=path) or name


@dataclass(frozen=True)
class Kind:
    """A server: how it is started, and what must be installed for it."""

    name: str
    command: Callable[[int, Path], list[str]]
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        return ", ".join(module for module in self.needs if not _have(module))


SERVERS = {
    kind.name: kind
    for kind in (
        Kind("gunicorn-sync", _gunicorn("sync", "python"), ("gunicorn",)),
        Kind("gunicorn-gthread", _gunicorn("gthread", "python"), ("gunicorn",)),
        Kind("gunicorn-gthread-c", _gunicorn("gthread", "fast"), ("gunicorn", "gunicorn_h1c")),
        Kind("gunicorn-gevent", _gunicorn("gevent", "python"), ("gunicorn", "gevent")),
        Kind("gunicorn-gevent-c", _gunicorn("gevent", "fast"), ("gunicorn", "gevent", "gunicorn_h1c")),
        Kind("waitress", _waitress, ("waitress",)),
        Kind("uwsgi", _uwsgi, ("pyuwsgi",)),
        Kind("granian", _granian, ("granian",)),
        Kind("werkzeug", _werkzeug),
    )
}


class Served:
    """One of the servers, running the front."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._home = tempfile.TemporaryDirectory(prefix="served-")
        home = Path(self._home.name)
        self.root = home / "static"
        self.root.mkdir()
        (self.root / "small.txt").write_text("0123456789")
        (self.root / "large.bin").write_bytes(os.urandom(3_000_000))
        (home / "served.py").write_text(textwrap.dedent(APP))
        (home / "ready").mkdir()
        (home / "settings.py").write_text(SETTINGS.format(ready=home / "ready"))
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._log = home / "log"
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(home), str(ROOT)]), "STATIC_ROOT": str(self.root)}
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(kind.command(self.port, home), cwd=home, env=env, stdout=log, stderr=log)
        try:
            eventually(self._answers, 20)
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        # Before anybody listens, a client whose own port happens to be this one is connected to itself.
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/static/small.txt").status == 200
        return False

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, target: str, **options: Any) -> Reply:
        return fetch(self.port, target, **options)

    def raw(self, data: bytes, **options: Any) -> bytes:
        return raw(self.port, data, **options)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(6)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        self._home.cleanup()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
