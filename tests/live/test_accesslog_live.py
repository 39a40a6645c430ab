"""AccessLog under gunicorn: sendfile survives, bytes are counted, files rotate, workers share one file."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live

APP = '''
import os, socket, sys
from proxymw import AccessLog

sendfile = socket.socket.sendfile


def told(self, file, offset=0, count=None):
    """What gunicorn calls for a file: says what it did where the test can read it."""
    sent = -1
    try:
        sent = sendfile(self, file, offset, count)
        return sent
    finally:
        print(f"sendfile {count} -> {sent}", file=sys.stderr, flush=True)


socket.socket.sendfile = told
HOME = os.environ["LOG_HOME"]


def site(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/file/"):
        start_response("200 OK", [("Content-Length", str(os.stat(HOME + "/big").st_size))])
        return environ["wsgi.file_wrapper"](open(HOME + "/big", "rb"))
    if path == "/part":
        file = open(HOME + "/big", "rb")
        file.seek(1000)
        start_response("206 Partial Content", [("Content-Length", "500"), ("Content-Range", "bytes 1000-1499/1048576")])
        return environ["wsgi.file_wrapper"](file)
    if path == "/endless":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"x" * 65536 for _ in iter(int, 1))
    if path == "/broken":
        environ["wsgi.errors"].write("about to fail\\n")
        raise RuntimeError("bug")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (chunk for chunk in (b"hello ", b"world"))


app = AccessLog(site, os.environ.get("LOG_FILE") or HOME + "/access.log", errors=HOME + "/error.log")
'''

SIZE = 1024 * 1024
LINE = re.compile(r'127\.0\.0\.1 - - \[[^]]+\] "(GET|HEAD) (\S+) HTTP/1\.[01]" (\d+) (\d+|-) "-" "-"')


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "big").write_bytes(bytes(range(256)) * (SIZE // 256))
    return tmp_path


def lines(path: Path, count: int = 1, *, within: float = 5) -> list[str]:
    """The lines of a log as soon as there are `count`: one is written after the client has its last byte."""
    deadline = time.monotonic() + within
    while True:
        found = path.read_text().splitlines() if path.exists() else []
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"{len(found)} of {count} lines in {path.name}"
        time.sleep(0.01)


def logged(path: Path, count: int = 1) -> list[tuple[str, ...]]:
    """(method, target, status, bytes) of each line."""
    found = [LINE.fullmatch(line) for line in lines(path, count)]
    assert all(found)
    return [match.groups() for match in found if match]


def test_a_file_goes_out_by_sendfile_and_is_counted(front: Callable[..., Any], home: Path) -> None:
    with front(APP, env={"LOG_HOME": str(home)}) as server:
        assert server.get("/file/a").body == (home / "big").read_bytes()
        assert server.get("/part").body == (home / "big").read_bytes()[1000:1500]
        assert server.get("/file/h", method="HEAD").body == b""
        assert server.get("/").body == b"hello world"
        assert sorted(logged(home / "access.log", 4)) == [
            ("GET", "/", "200", "11"),
            ("GET", "/file/a", "200", str(SIZE)),
            ("GET", "/part", "206", "500"),
            ("HEAD", "/file/h", "200", "-"),
        ]
        calls = re.findall(r"sendfile (\d+) -> (\d+)", server.log)
        assert (str(SIZE), str(SIZE)) in calls
        assert ("500", "500") in calls
        assert len(calls) == 2


def test_without_sendfile_the_count_is_the_same(front: Callable[..., Any], home: Path) -> None:
    with front(APP, env={"LOG_HOME": str(home)}, args=["--no-sendfile"]) as server:
        assert len(server.get("/file/a").body) == SIZE
        assert len(server.get("/part").body) == 500
        assert sorted(logged(home / "access.log", 2)) == [
            ("GET", "/file/a", "200", str(SIZE)),
            ("GET", "/part", "206", "500"),
        ]
        assert "sendfile 1" not in server.log


@pytest.mark.parametrize("target", ["/file/left", "/endless"])
def test_a_client_that_leaves_is_logged_with_about_what_it_took(
    front: Callable[..., Any], home: Path, target: str
) -> None:
    with (home / "big").open("r+b") as big:
        big.truncate(400 * SIZE)  # more than any socket buffer holds
    with front(APP, env={"LOG_HOME": str(home)}) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            taken = 0
            while taken < SIZE:
                taken += len(client.recv(65536))
        ((_, _, status, sent),) = logged(home / "access.log")
        assert status == "200"
        assert SIZE <= int(sent) < 100 * SIZE
        # The worker is free again and the next request is its own.
        assert server.get("/").body == b"hello world"


def test_a_failure_is_logged_as_the_500_the_client_gets(front: Callable[..., Any], home: Path) -> None:
    with front(APP, env={"LOG_HOME": str(home)}) as server:
        assert server.get("/broken").status == 500
        assert logged(home / "access.log") == [("GET", "/broken", "500", "-")]
        assert (home / "error.log").read_text() == "about to fail\n"


def test_a_rotated_file_is_followed_without_a_signal(front: Callable[..., Any], home: Path) -> None:
    log, old = home / "access.log", home / "access.log.1"
    with front(APP, env={"LOG_HOME": str(home)}, workers=2) as server:
        for _ in range(8):
            server.get("/before")
        lines(log, 8)
        log.rename(old)
        deadline, asked = time.monotonic() + 10, 8
        while not log.exists() or len(log.read_text().splitlines()) < 20:
            server.get("/after")
            asked += 1
            time.sleep(0.02)
            assert time.monotonic() < deadline
        total = Counter(re.findall(r"GET (\S+) ", old.read_text() + log.read_text()))
        assert total["/before"] == 8
        assert sum(total.values()) in (asked, asked - 1)  # the last line may still be on its way


def test_workers_and_threads_share_one_file_line_by_line(front: Callable[..., Any], home: Path) -> None:
    with front(APP, env={"LOG_HOME": str(home)}, workers=2) as server:
        targets = [f"/{'y' * 200}?{n}" for n in range(300)]
        with ThreadPoolExecutor(8) as pool:
            assert all(reply.status == 200 for reply in pool.map(server.get, targets))
        assert sorted(target for _, target, _, _ in logged(home / "access.log", 300)) == sorted(targets)


def test_a_full_disk_costs_no_request_and_one_warning(front: Callable[..., Any], home: Path) -> None:
    with front(APP, env={"LOG_HOME": str(home), "LOG_FILE": "/dev/full"}) as server:
        assert [server.get("/").body for _ in range(5)] == [b"hello world"] * 5
        assert len(server.get("/file/a").body) == SIZE
        assert server.log.count("event=log_lost") == 1
