"""Case one: files and programs on hosts of their own, each with its own logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client import eventually

pytestmark = pytest.mark.live

SITE = """
from proxymw import AccessLog, StaticOrPass, VirtualHosts

def programs(environ, start_response):
    print("a program speaks", file=environ["wsgi.errors"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"main"]

def site(app, name):
    return AccessLog(app, f"{logs}/{{name}}-access.log", errors=f"{logs}/{{name}}-error.log")

static = site(StaticOrPass(None, "{root}", index=("index.html",)), "static")
main = site(programs, "main")
app = VirtualHosts({{
    "static.ducklington.org": static,
    ("ducklington.org", "www.ducklington.org"): main,
}}, default=main)
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def site(serve, docroot, logs):
    (docroot / "screen.css").write_text("body {}")
    return serve(SITE.format(root=docroot, logs=logs))


@pytest.mark.parametrize(
    ("host", "target", "body"),
    [
        ("static.ducklington.org", "/screen.css", "body {}"),
        ("static.ducklington.org", "/", "the main page"),
        ("STATIC.ducklington.org:8000", "/screen.css", "body {}"),
        ("static.ducklington.org.", "/screen.css", "body {}"),
        ("ducklington.org", "/screen.css", "main"),
        ("www.ducklington.org", "/", "main"),
        ("unknown.example", "/", "main"),
    ],
)
def test_the_host_decides(site, host, target, body):
    assert site.get(target, host=host).text == body


def test_a_file_that_is_not_there(site):
    assert site.get("/no.css", host="static.ducklington.org").status == 404


def lines(path: Path) -> list[str]:
    """The log's lines, once there are any: a line is written when the body has ended, after the client has it."""
    return eventually(lambda: path.exists() and path.read_text().splitlines())


def test_each_host_has_its_own_logs(serve, docroot, tmp_path):
    (docroot / "screen.css").write_text("body {}")
    site = serve(SITE.format(root=docroot, logs=tmp_path))
    site.get("/screen.css?v=1", host="static.ducklington.org", headers={"User-Agent": 'a "duck"'})
    site.get("/index.php", host="ducklington.org", headers={"Referer": "http://ducklington.org/"})
    (static,) = lines(tmp_path / "static-access.log")
    (main,) = lines(tmp_path / "main-access.log")
    assert static.startswith("127.0.0.1 - - [")
    assert static.endswith('"GET /screen.css?v=1 HTTP/1.1" 200 7 "-" "a \\"duck\\""')
    assert main.endswith('"GET /index.php HTTP/1.1" 200 4 "http://ducklington.org/" "-"')
    (spoken,) = lines(tmp_path / "main-error.log")
    assert spoken.endswith("a program speaks")
    assert not (tmp_path / "static-error.log").exists() or (tmp_path / "static-error.log").read_text() == ""
