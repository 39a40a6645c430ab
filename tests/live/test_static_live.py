"""StaticOrPass under a real gunicorn: sendfile, keep-alive, cuts, permissions of another user."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client import fetch
from tests.origins import Front

pytestmark = pytest.mark.live

SIZE = 40_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "hello.txt").write_bytes(b"hello static\n")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/index.html").write_bytes(b"dir index")
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(SIZE)
    for path in tmp_path.rglob("*"):
        os.utime(path, (1_582_165_220, 1_582_165_220))
    return tmp_path


def application(root: Path, options: str = "") -> str:
    return f"""
from proxymw import StaticOrPass

def behind(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("X-App", "yes"), ("Content-Length", str(len(body)))])
    return [body]

app = StaticOrPass(behind, {str(root)!r}, index=("index.html",) {options})
"""


def still_open(server: Front, path: Path, patience: float = 10) -> bool:
    """Whether a worker holds the file open, and goes on doing so."""
    deadline = time.monotonic() + patience
    while any(
        os.path.samefile(link, path)
        for pid in server.worker_pids
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if link.exists()
    ):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.02)
    return False


# At the first request: the server has to report that it is ready before.
GIVE_UP_ROOT = """
import os
import proxymw.exchange.events

files = app

def app(environ, start_response):
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    return files(environ, start_response)
"""


@contextlib.contextmanager
def connected(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        yield connection
    finally:
        connection.close()


@pytest.mark.parametrize("worker_class", ["gthread", "sync", "gevent"])
def test_one_connection_serves_every_kind_of_answer(root: Path, front: Callable[..., Front], worker_class: str) -> None:
    if worker_class == "gevent":
        pytest.importorskip("gevent")
    server = front(application(root), worker_class=worker_class)
    with connected(server.port) as connection:

        def ask(
            method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
        ) -> tuple[int, bytes]:
            connection.request(method, target, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

        assert ask("GET", "/hello.txt") == (200, b"hello static\n")
        for _ in range(3):
            assert ask("GET", "/big.bin") == (200, bytes(SIZE))
            assert ask("HEAD", "/big.bin") == (200, b"")
            assert ask("GET", "/big.bin", {"If-None-Match": "*"}) == (304, b"")
            assert ask("GET", "/big.bin", {"Range": "bytes=5-2000004"}) == (206, bytes(2_000_000))
            assert ask("GET", "/big.bin", {"Range": "bytes=0-1,9-9"})[0] == 206
            assert ask("GET", "/big.bin", {"Range": f"bytes={SIZE}-"})[0] == 416
            assert ask("GET", "/dir/") == (200, b"dir index")
            assert ask("GET", "/dir?x=1")[0] == 301
            assert ask("POST", "/hello.txt", body=b"form") == (200, b"form")
    assert not still_open(server, root / "big.bin")


def test_new_files_are_seen_without_a_restart_by_every_worker(root: Path, front: Callable[..., Front]) -> None:
    server = front(application(root), workers=2)
    for number in range(20):
        (root / "new.txt").write_bytes(b"%d" % number)
        assert {server.get("/new.txt").body for _ in range(4)} == {b"%d" % number}
    (root / "new.txt").unlink()
    assert server.get("/new.txt").header("X-App") == "yes"


def test_a_file_cut_while_it_is_sent_ends_the_connection(root: Path, front: Callable[..., Front]) -> None:
    server = front(application(root))
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        received = len(connection.recv(1000))
        os.truncate(root / "big.bin", 1000)
        # Not a hang until the keep-alive ends, and no second answer in the middle of the first.
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 20):
                received += len(part)
        assert time.monotonic() - started < 5
        assert received < SIZE
    os.truncate(root / "big.bin", 0)
    assert fetch(server.port, "/big.bin").status == 200


def test_a_client_that_leaves_gives_the_file_back(root: Path, front: Callable[..., Front]) -> None:
    server = front(application(root))
    assert server.get("/hello.txt").status == 200
    for headers in (b"", b"Range: bytes=1-\r\n", b"Range: bytes=0-9,20-30000000\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
            connection.recv(1000)
    assert not still_open(server, root / "big.bin")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a server of another user")
def test_what_the_server_may_not_read_is_403(root: Path, front: Callable[..., Front]) -> None:
    for folder in (root, *root.parents):
        if folder.owner() == "root" and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    for name in ("secret.txt", "closed/file.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"secret")
    (root / "secret.txt").chmod(0)
    (root / "closed").chmod(0)
    server = front(application(root) + GIVE_UP_ROOT)
    assert server.get("/secret.txt").status == 403
    assert server.get("/secret.txt", method="HEAD").status == 403
    assert server.get("/closed/file.txt").header("X-App") == "yes"
    assert server.get("/hello.txt").status == 200
    (root / "hello.txt").chmod(0)
    assert server.get("/hello.txt").status == 403
