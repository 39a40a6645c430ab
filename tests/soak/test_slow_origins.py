"""A thousand requests that wait: greenlets hold them all, threads shed them and leave the application its own.

Short in the suite; ``PROXYMW_LONG=soak`` makes it a thousand clients of a one-second origin, beside nginx.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client import fetch
from tests.origins import Front

pytestmark = [pytest.mark.live, pytest.mark.soak]

LONG = os.environ.get("PROXYMW_LONG") == "soak"
CLIENTS, SECONDS, ROUNDS = (1000, 1.0, 8) if LONG else (60, 0.3, 3)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class SlowOrigin:
    """An origin that answers any number of requests at once, each after ``SECONDS``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=2048)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._end.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(SECONDS)
                writer.write(ANSWER)
        writer.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)


@pytest.fixture
def origin() -> Iterator[SlowOrigin]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    origin = SlowOrigin()
    yield origin
    origin.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _client(port: int, rounds: int, statuses: Counter[int], times: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(rounds):
        writer.write(b"GET /slow HTTP/1.1\r\nHost: front\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        statuses[int(head[9:12])] += 1
        times.append(time.monotonic())
    writer.close()


def load(port: int, rounds: int = ROUNDS) -> tuple[Counter[int], float]:
    """Statuses of all clients asking again and again, and answers per second once the rush of the start is over."""
    statuses: Counter[int] = Counter()
    times: list[float] = []

    async def run() -> None:
        await asyncio.gather(*(_client(port, rounds, statuses, times) for _ in range(CLIENTS)))

    began = time.monotonic()
    asyncio.run(run())
    # All clients come at once; after two turns they are as far apart as the one in front of them makes them.
    first, last = began + 2.5 * SECONDS, began + (rounds - 0.5) * SECONDS
    return statuses, sum(first < at <= last for at in times) / max(last - first, SECONDS)


def memory(pid: int) -> int:
    """Resident KiB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@contextlib.contextmanager
def nginx(origin: SlowOrigin, home: Path) -> Iterator[int]:
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (home / "nginx.conf").write_text(f"""
        daemon off; worker_processes 1; worker_rlimit_nofile 8192; pid {home}/pid; error_log {home}/log crit;
        events {{ worker_connections 4096; }}
        http {{
            access_log off;
            upstream slow {{ server 127.0.0.1:{origin.port}; keepalive 1024; }}
            server {{
                listen 127.0.0.1:{port} backlog=2048; keepalive_requests 100000;
                location / {{ proxy_pass http://slow; proxy_http_version 1.1; proxy_set_header Connection ""; }}
            }}
        }}
    """)
    process = subprocess.Popen([program, "-c", str(home / "nginx.conf"), "-p", str(home)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                fetch(port, "/")
                break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(5)


APP = "from proxymw import PrefixProxy\napp = PrefixProxy(None, [('/', 'http://127.0.0.1:{port}/')])\n"


def test_greenlets_hold_them_all(origin: SlowOrigin, front: Callable[..., Front], tmp_path: Path) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    args = ["--worker-connections", "2000", "--backlog", "2048"]
    server = front(APP.format(port=origin.port), worker_class="gevent", args=args)
    load(server.port, 1)
    before = memory(server.worker_pids[0])
    statuses, _ = load(server.port)
    assert statuses == {200: CLIENTS * ROUNDS}
    assert memory(server.worker_pids[0]) < before * 1.1
    if not LONG:
        return
    with nginx(origin, tmp_path) as port:
        load(port, 1)
        ratios = []
        for _ in range(3):
            _, theirs = load(port)
            _, ours = load(server.port)
            ratios.append(ours / theirs)
            print(f"{ours:.0f}/s, nginx {theirs:.0f}/s, {ratios[-1]:.3f}; {memory(server.worker_pids[0])} KiB")
    assert max(ratios) >= 0.95, ratios
    assert memory(server.worker_pids[0]) < before * 1.1


def test_threads_shed_them_and_the_application_keeps_answering(origin: SlowOrigin, front: Callable[..., Front]) -> None:
    app = f"""
    from proxymw import BalancerPool, PrefixProxy
    def wrapped(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]
    pool = BalancerPool(["http://127.0.0.1:{origin.port}"], name="slow", threads=4)
    app = PrefixProxy(wrapped, [("/slow", pool)])
    """
    server = front(app, threads=8, args=["--worker-connections", "2000", "--backlog", "2048"])
    statuses: Counter[int] = Counter()
    thread = threading.Thread(target=lambda: statuses.update(load(server.port)[0]))
    thread.start()
    waits, replies = [], Counter()  # type: ignore[var-annotated]
    while thread.is_alive():
        began = time.monotonic()
        replies[server.get("/mine").status] += 1
        waits.append(time.monotonic() - began)
        time.sleep(0.02)
    thread.join()
    assert replies == {200: len(waits)}
    # Shed at once, not queued behind the slow ones: those alone would take CLIENTS / 4 turns.
    assert sorted(waits)[len(waits) // 2] < SECONDS
    assert statuses.keys() == {200, 503}
    assert statuses.total() == CLIENTS * ROUNDS
