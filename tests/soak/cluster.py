"""Members that are processes, so that they can be killed, and a load that never pauses."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

MEMBER = """
import os, socket, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

name, port, log, delay = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        if length:
            self.rfile.read(length)
        nonce = self.headers.get("X-Nonce", "")
        with open(log, "a") as file:
            file.write(self.command + " " + nonce + "\\n")
        time.sleep(delay)
        body = name.encode() * 50
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *args):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True

Server(("127.0.0.1", port), Handler).serve_forever()
"""


class Member:
    """A member in a process of its own, on a port that stays its own over restarts."""

    def __init__(self, name: str, home: Path, delay: float = 0.01) -> None:
        self.name = name
        self.log = home / f"{name}.log"
        self.log.touch()
        self._delay = delay
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", MEMBER, self.name, str(self.port), str(self.log), str(self._delay)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"member {self.name} did not start")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def nonces(self, method: str) -> list[str]:
        return [line.split()[1] for line in self.log.read_text().splitlines() if line.startswith(method + " ")]


@dataclass
class Load:
    """Requests at a constant rate; ``failed`` are those that did not get a whole 200."""

    port: int
    rate: float
    seconds: float
    posts: float = 0.2
    threads: int = 24
    done: Counter = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def run(self) -> None:
        began = time.monotonic() + 0.1
        count = int(self.rate * self.seconds)
        numbers = iter(range(count))
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                time.sleep(max(0.0, began + number / self.rate - time.monotonic()))
                self._one(number)

        threads = [threading.Thread(target=work) for _ in range(self.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _one(self, number: int) -> None:
        method = "POST" if number % 100 < self.posts * 100 else "GET"
        nonce = f"{os.getpid()}-{number}"
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, "/x", body=b"b" * 100 if method == "POST" else None, headers={"X-Nonce": nonce})
            reply = connection.getresponse()
            body = reply.read()
            problem = "" if reply.status == 200 and len(set(body)) == 1 else f"{reply.status} {body[:80]!r}"
        except (OSError, http.client.HTTPException) as error:
            problem = repr(error)
        finally:
            connection.close()
        self.times.append(time.monotonic() - began)
        self.done[method] += 1
        if problem:
            self.failed.append((method, problem))

    def told(self) -> str:
        times = sorted(self.times)
        p50, p99 = times[len(times) // 2] * 1000, times[len(times) * 99 // 100] * 1000
        gets = sum(method == "GET" for method, _ in self.failed)
        return (
            f"{sum(self.done.values())} requests at {self.rate:g}/s: {gets} of {self.done['GET']} GET and "
            f"{len(self.failed) - gets} of {self.done['POST']} POST failed; p50 {p50:.0f} ms, p99 {p99:.0f} ms"
        )
