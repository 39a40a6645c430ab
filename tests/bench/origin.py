"""An origin that costs as little as Python allows, in a process of its own."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

BODY = b"{" + b'"a": "b", ' * 102 + b"\n}\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sun, 22 Nov 2026 11:02:11 GMT\r\nContent-Type: application/json\r\n"
    b'Content-Length: %d\r\nConnection: keep-alive\r\nETag: "5f3c-1a2b3c4d"\r\nCache-Control: no-cache\r\n'
    b"X-Request-Id: 0123456789abcdef\r\n\r\n%b" % (len(BODY), BODY)
)


class RunningOrigin:
    """The origin, started and stopped."""

    def __enter__(self) -> RunningOrigin:
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.origin"], stdout=subprocess.PIPE, text=True, cwd=root
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.terminate()
        self._process.communicate()


def serve() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                connection = key.fileobj  # type: ignore[assignment]
                if connection.recv(65536):
                    connection.sendall(ANSWER)
                else:
                    selector.unregister(connection)
                    connection.close()


if __name__ == "__main__":
    serve()
