"""Servers that tests talk to: origins that answer their own name, scripted ones that misbehave, and real fronts.

Everything listens on loopback only. Each is a context manager and stops with no thread or process left.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.client import Pairs, Reply, fetch, raw

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Request:
    """What an origin received. `body` holds at most the first MiB; `length` and `sha256` are of all of it."""

    method: str
    target: str
    version: str
    headers: Pairs
    body: bytes = b""
    length: int = 0
    sha256: str = ""
    connection: int = 0

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


@dataclass
class Answer:
    """What an origin sends; Content-Length is added, or chunks, or with `until_close` it ends as in HTTP/1.0."""

    status: int = 200
    headers: Pairs = field(default_factory=list)
    body: bytes | Iterable[bytes] = b""
    reason: str = "Fine"
    chunked: bool = False
    until_close: bool = False


class _Server:
    """A listening socket, a thread for each connection."""

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, unix: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        self._tls = tls
        if unix:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(unix)
            self.port = 0
            self.url = f"unix:{unix}|http://localhost"
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.socket(family)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((host, port))
            self.port = self._listener.getsockname()[1]
            self.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._listener.listen(128)
        self.connections = 0
        self.failures: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # stopped, or out of files for a while
                if self._stopping:
                    return
                time.sleep(0.01)
                continue
            with self._lock:
                if self._stopping:
                    connection.close()
                    return
                self.connections += 1
                self._open.add(connection)
                thread = threading.Thread(target=self._run, args=(connection, self.connections), daemon=True)
                self._threads.append(thread)
            thread.start()

    def _run(self, connection: socket.socket, number: int) -> None:
        wrapped = connection
        try:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                wrapped = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open.add(wrapped)
            self._serve(wrapped, number)
        except (OSError, ValueError) as error:
            if not self._stopping:
                self.failures.append(error)
        finally:
            with self._lock:
                self._open -= {connection, wrapped}
            wrapped.close()

    def _serve(self, connection: socket.socket, number: int) -> None:
        raise NotImplementedError

    @property
    def open_connections(self) -> int:
        """Connections that neither side has closed yet, as far as this server has noticed."""
        with self._lock:
            return len(self._open)

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(5)
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class EchoOrigin(_Server):
    """An HTTP/1.1 origin that answers, in JSON, its own name and exactly what it received.

    The JSON: ``origin``, ``method``, ``target`` (raw), ``version``, ``headers`` (pairs), ``length`` and ``sha256`` of
    the body, ``connection`` (1 for the first), ``count`` (requests so far). ``requests`` records every request.
    `answer` takes a `Request` and gives an `Answer` instead (or None for the JSON); `headers` are added to each
    answer; `delay` is waited before it (seconds, or an Event).
    """

    def __init__(
        self,
        name: str = "origin",
        *,
        answer: Callable[[Request], Answer | None] | None = None,
        headers: Pairs = (),  # type: ignore[assignment]
        delay: float | threading.Event = 0.0,
        **where: Any,
    ) -> None:
        self.name = name
        self.answer = answer
        self.headers = list(headers)
        self.delay = delay
        self.requests: list[Request] = []
        super().__init__(**where)

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection.makefile("rb") as stream:
            while (request := _read_request(stream, connection, number)) is not None:
                self.requests.append(request)
                if isinstance(self.delay, threading.Event):
                    self.delay.wait(30)
                elif self.delay:
                    time.sleep(self.delay)
                answer = self.answer(request) if self.answer else None
                if not self._send(connection, request, answer or self._echo(request)):
                    return

    def _echo(self, request: Request) -> Answer:
        shown = {
            "origin": self.name,
            "method": request.method,
            "target": request.target,
            "version": request.version,
            "headers": request.headers,
            "length": request.length,
            "sha256": request.sha256,
            "connection": request.connection,
            "count": len(self.requests),
        }
        return Answer(headers=[("Content-Type", "application/json")], body=json.dumps(shown).encode())

    def _send(self, connection: socket.socket, request: Request, answer: Answer) -> bool:
        """Send the answer; give back whether the connection goes on."""
        keep = request.version == "HTTP/1.1" and not answer.until_close
        keep = keep and "close" not in (request.header("Connection") or "").lower()
        parts = [answer.body] if isinstance(answer.body, bytes) else answer.body
        bodyless = request.method == "HEAD" or answer.status in (204, 304) or answer.status < 200
        framing: Pairs = []
        if answer.chunked:
            framing = [("Transfer-Encoding", "chunked")]
        elif not answer.until_close and not (answer.status == 204 or answer.status < 200):
            parts = [b"".join(parts)]
            framing = [("Content-Length", str(len(parts[0])))]
        if not keep:
            framing.append(("Connection", "close"))
        head = f"HTTP/1.{0 if answer.until_close else 1} {answer.status} {answer.reason}\r\n"
        named = {name.lower() for name, _ in answer.headers}
        framing = [(name, value) for name, value in framing if name.lower() not in named]
        head += "".join(f"{name}: {value}\r\n" for name, value in [*answer.headers, *self.headers, *framing]) + "\r\n"
        data = head.encode("latin-1")
        if bodyless:
            connection.sendall(data)
            return keep
        for part in parts:
            data += b"%x\r\n%s\r\n" % (len(part), part) if answer.chunked and part else part
            connection.sendall(data)
            data = b""
        connection.sendall(data + (b"0\r\n\r\n" if answer.chunked else b""))
        return keep


def _read_request(stream: Any, connection: socket.socket, number: int) -> Request | None:
    if stream.peek(1)[:1] == b"\x16":
        raise ValueError("a TLS hello, which may never have a line's end")
    line = stream.readline(65537)
    if not line.strip():
        return None
    method, target, version = line.decode("latin-1").rstrip("\r\n").split(" ")
    headers: Pairs = []
    while (line := stream.readline(65537).decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        headers.append((name, value.strip(" \t")))
    request = Request(method, target, version, headers, connection=number)
    if "100-continue" in (request.header("Expect") or "").lower():
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    digest = hashlib.sha256()
    for part in _read_body(stream, request):
        digest.update(part)
        request.length += len(part)
        if len(request.body) < 1 << 20:
            request.body += part
    request.sha256 = digest.hexdigest()
    return request


def _read_body(stream: Any, request: Request) -> Iterable[bytes]:
    if "chunked" in (request.header("Transfer-Encoding") or "").lower():
        while size := int(stream.readline().split(b";")[0], 16):
            yield _exactly(stream, size)
            stream.readline()
        while stream.readline().strip():
            pass
    else:
        left = int(request.header("Content-Length") or 0)
        while left:
            part = _exactly(stream, min(left, 65536))
            left -= len(part)
            yield part


def _exactly(stream: Any, size: int) -> bytes:
    part: bytes = stream.read(size)
    if len(part) < size:
        raise ConnectionError("the request's body ended early")
    return part


#: Steps of a script beside bytes (sent), numbers (seconds slept) and Events (waited for).
READ_HEAD = "read the head"
READ_REQUEST = "read the head and the body it declares"
READ_ALL = "read to the client's end"
CLOSE = "close"
RESET = "reset"


class ScriptedOrigin(_Server):
    """An origin that does exactly what a script says, byte for byte.

    Each positional argument is the script of one connection, a list of steps; the last one serves all connections
    after it. Steps: ``bytes`` are sent, a number is slept (seconds), an ``Event`` is waited for, a callable is called
    with the socket, and `READ_HEAD`, `READ_REQUEST`, `READ_ALL`, `CLOSE`, `RESET`. A script that starts with bytes
    reads a request first; one that starts with another step does not. The connection is closed at the script's end.
    ``received`` holds the bytes read on each connection.
    """

    def __init__(self, *scripts: Sequence[Any] | bytes, **where: Any) -> None:
        self._scripts = [[script] if isinstance(script, bytes) else list(script) for script in scripts] or [[CLOSE]]
        self.received: list[bytearray] = []
        super().__init__(**where)

    def _serve(self, connection: socket.socket, number: int) -> None:
        seen = bytearray()
        with self._lock:
            self.received.append(seen)
        script = self._scripts[min(number, len(self._scripts)) - 1]
        if script and isinstance(script[0], bytes):
            script = [READ_REQUEST, *script]
        for step in script:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif isinstance(step, threading.Event):
                step.wait(30)
            elif isinstance(step, (int, float)):
                time.sleep(step)
            elif step == CLOSE:
                return
            elif step == RESET:
                reset(connection)
                return
            elif callable(step):
                step(connection)
            else:
                _receive(connection, seen, step)


def _receive(connection: socket.socket, seen: bytearray, upto: str) -> None:
    connection.settimeout(20)
    start = len(seen)
    while True:
        head, blank, rest = bytes(seen[start:]).partition(b"\r\n\r\n")
        if upto == READ_HEAD and blank:
            return
        if upto == READ_REQUEST and blank and _whole(head.lower(), rest):
            return
        part = connection.recv(65536)
        if not part:
            return
        seen += part


def _whole(head: bytes, rest: bytes) -> bool:
    if b"\r\ntransfer-encoding:" in head:
        return rest.endswith(b"0\r\n\r\n")
    _, found, after = head.partition(b"\r\ncontent-length:")
    return len(rest) >= (int(after.split(b"\r\n")[0]) if found else 0)


def reset(connection: socket.socket) -> None:
    """Close with a TCP RST, as a crashed peer does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


_dead: list[socket.socket] = []


def dead_port() -> int:
    """A loopback port on which connecting is refused: bound, so that nobody else gets it, and never listened on."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    if not _dead:
        atexit.register(lambda: [held.close() for held in _dead])
    _dead.append(holder)
    port: int = holder.getsockname()[1]
    return port


#: Gunicorn's settings: it dies with its parent (PR_SET_PDEATHSIG, Linux), and each worker tells that it is ready.
SETTINGS = """
import contextlib, ctypes, signal
with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)

def post_worker_init(worker):
    open(f"{ready}/{{worker.pid}}", "w").close()
"""


class Front:
    """A real gunicorn serving ``module:app`` or, when `app` is source text that defines ``app``, that.

    Ready when every worker has imported the application. `args` are gunicorn's; the defaults are gthread with 8
    threads and one worker. `log` reads what it has written. Used as a context manager, it is stopped at the end.
    """

    def __init__(
        self,
        app: str,
        *,
        args: Sequence[str] = (),
        env: dict[str, str] | None = None,
        cwd: str | Path = ROOT,
        workers: int = 1,
        threads: int = 8,
        worker_class: str = "gthread",
    ) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="front-")
        home = Path(self._home.name)
        path = [str(ROOT)]
        if "\n" in app or " " in app:
            (home / "front_under_test.py").write_text(textwrap.dedent(app))
            app, path = "front_under_test:app", [str(home), *path]
        (home / "ready").mkdir()
        (home / "settings.py").write_text(SETTINGS.format(ready=home / "ready"))
        self.workers = workers
        self._log = home / "log"
        command = [sys.executable, "-m", "gunicorn", "-c", str(home / "settings.py"), "--no-control-socket"]
        command += ["-b", "127.0.0.1:0", "-k", worker_class, "-w", str(workers), "--graceful-timeout", "3"]
        command += ["--threads", str(threads)] if worker_class == "gthread" else []
        variables = {**os.environ, **(env or {})}
        variables["PYTHONPATH"] = os.pathsep.join([*path, *filter(None, [variables.get("PYTHONPATH")])])
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, *args, app], cwd=cwd, env=variables, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self.port = self._wait_until_ready(home / "ready")
        except BaseException:
            self.stop()
            raise
        self.url = f"http://127.0.0.1:{self.port}"

    def _wait_until_ready(self, ready: Path) -> int:
        deadline = time.monotonic() + 30
        while len(list(ready.iterdir())) < self.workers:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the front did not start:\n{self.log}")
            time.sleep(0.02)
        listening = [line for line in self.log.splitlines() if "Listening at: http" in line]
        return int(listening[0].split("Listening at: ")[1].split()[0].rstrip("/").rsplit(":", 1)[1])

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def worker_pids(self) -> list[int]:
        """The workers that have ever become ready, oldest first."""
        return sorted(int(entry.name) for entry in (Path(self._home.name) / "ready").iterdir())

    def get(self, target: str = "/", **options: Any) -> Reply:
        """Ask this front; the options are those of `fetch`."""
        return fetch(self.port, target, **options)

    def raw(self, data: bytes, **options: Any) -> bytes:
        return raw(self.port, data, **options)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(5)
        self._home.cleanup()

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
