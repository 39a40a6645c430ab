"""Good and broken exchanges by the thousand leave nothing behind."""

from __future__ import annotations

import gc
import os
import resource
import threading
from typing import Any

import pytest

from proxymw.exchange.forwarder import Forwarder
from proxymw.exchange.transport import Transport
from tests.client import environ, eventually
from tests.exchange.asking import HELLO, ask, pool_of
from tests.origins import READ_HEAD, READ_REQUEST, RESET, dead_port

pytestmark = pytest.mark.leak

ROUNDS = 5_000 if os.environ.get("PROXYMW_LONG") == "leak" else 60

SCRIPTS: dict[str, list[Any]] = {
    "kept": [item for _ in range(10) for item in (READ_REQUEST, HELLO)],
    "closed": [READ_HEAD],
    "reset": [READ_HEAD, RESET],
    "garbage": [b"garbage"],
    "cut": [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"],
    "chunked": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
    "bad chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"x\r\n"],
    "early": [READ_HEAD, b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n"],
}


def measure() -> tuple[int, int, int]:
    """Open files, threads, and the resident memory in KiB."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return len(os.listdir("/proc/self/fd")), threading.active_count(), pages * resource.getpagesize() // 1024


def test_files_threads_and_memory_stay_flat(
    scripted: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "proxymw")  # a test keeps what is logged during it
    transport = Transport(first_byte=5, between_bytes=5)
    forwarder = Forwarder(transport=transport)
    origins = [scripted(script) for script in SCRIPTS.values()]
    urls = [origin.url for origin in origins] + [f"http://127.0.0.1:{dead_port()}"]

    def round_of_exchanges() -> None:
        for url in urls:
            pool = pool_of(url)
            ask(forwarder, pool, method="POST", body=b"x" * 20_000)
            assert len(pool.leases[0].finished) == 1
        # Left unread, and never closed at all.
        for _ in range(2):
            body: Any = forwarder(environ("/"), lambda *_: None, pool_of(urls[4]), "/")  # type: ignore[arg-type, return-value, misc]
            iter(body)
            del body

    def settle() -> None:
        transport.close()
        eventually(lambda: not any(origin.open_connections for origin in origins), 30)
        for origin in origins:
            origin._threads[:] = [thread for thread in origin._threads if thread.is_alive()]
            origin.received.clear()
            origin.failures.clear()

    for _ in range(20):
        round_of_exchanges()
    settle()
    before = measure()
    for number in range(ROUNDS):
        round_of_exchanges()
        if number % 50 == 49:
            settle()
    settle()
    after = measure()
    with capsys.disabled():
        if ROUNDS > 1000:
            print(f"\n{ROUNDS * (len(urls) + 2)} exchanges; files, threads, KiB: {before} -> {after}")
    assert after[0] <= before[0] + 4
    assert after[1] <= before[1] + 4
    if ROUNDS > 1000:
        assert after[2] <= before[2] + 4096
    transport.close()
