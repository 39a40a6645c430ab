"""Mistakes that everybody makes once: each is answered by one clear sentence that holds the fix."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

import proxymw
from proxymw import (
    AccessLog,
    BalancerManagerApp,
    BalancerPool,
    ClientAddress,
    ConfigError,
    ErrorPages,
    HeaderRule,
    IPAllowlist,
    Member,
    Policy,
    PrefixProxy,
    ProxyRule,
    RewriteCond,
    RewriteProxy,
    RewriteRule,
    StaticOrPass,
    Transport,
    VirtualHosts,
    apacheconf,
)
from proxymw.errors import ConfigWarning
from tests.origins import ROOT

APP = "http://app.ducklington.org/"
MODULE = sys.modules[__name__]

#: What somebody wrote, and what is said to that: the name of what is wrong, what it should be, what it was.
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a slash is missing": (
        lambda: PrefixProxy(None, [("/wiki/", "http://app.ducklington.org")]),
        "target of rule 1 must end with a slash as its prefix does, or the path would run into the host; "
        "add a slash: ('/wiki/', 'http://app.ducklington.org/'), got 'http://app.ducklington.org'",
    ),
    "a prefix without its slash": (
        lambda: PrefixProxy(None, [("wiki/", APP)]),
        "prefix of rule 1 must be a path that starts with '/', got 'wiki/'",
    ),
    "a text for the list of rules": (
        lambda: PrefixProxy(None, "/wiki/"),
        "rules must be a list of (prefix, target) pairs, got '/wiki/'",
    ),
    "a dict for the list of rules": (
        lambda: PrefixProxy(None, {"/wiki/": APP}),
        "rules must be a list of (prefix, target) pairs, got {'/wiki/': 'http://app.ducklington.org/'}",
    ),
    "one pair for the list of rules": (
        lambda: PrefixProxy(None, ("/wiki/", APP)),
        "rule 1 must be a pair (prefix, target) or a ProxyRule, got '/wiki/'",
    ),
    "no scheme": (
        lambda: PrefixProxy(None, [("/", "127.0.0.1:8000")]),
        "target of rule 1 must begin with http:// or https://, got '127.0.0.1:8000'",
    ),
    "a pool by its name": (
        lambda: PrefixProxy(None, [("/", "balancer://cluster/")]),
        "target of rule 1 must be the BalancerPool itself, got its name 'balancer://cluster/'",
    ),
    "a pattern that is none": (
        lambda: PrefixProxy(None, [ProxyRule("^/(", APP, regex=True)]),
        "pattern of rule 1 must be a regular expression, got '^/(': missing ), unterminated subpattern at position 2",
    ),
    "no application": (
        lambda: AccessLog("front:app", "access.log"),
        "app, the first argument, must be the WSGI application that gets everything else (None: 404), got 'front:app'",
    ),
    "a root that is not there": (
        lambda: StaticOrPass(None, "/srv/www/nothing"),
        "root must be an existing folder, got '/srv/www/nothing': create it, or correct the path",
    ),
    "arguments in the wrong order": (
        lambda: StaticOrPass("/srv/www", None),
        "app, the first argument, must be the WSGI application that gets everything else (None: 404), got '/srv/www'",
    ),
    "a text for a tuple": (
        lambda: StaticOrPass(None, "/", index="index.html"),
        "index must be a tuple of file names such as (\"index.html\",), got 'index.html'",
    ),
    "an extension without its dot": (
        lambda: StaticOrPass(None, "/", mimetypes={"css": "text/css"}),
        "mimetypes must map \".ext\" (or a file name) to \"type/subtype\", got ('css', 'text/css')",
    ),
    "a type that is none": (
        lambda: StaticOrPass(None, "/", mimetypes={".css": "css"}),
        "mimetypes must map \".ext\" (or a file name) to \"type/subtype\", got ('.css', 'css')",
    ),
    "a text for the list of members": (
        lambda: BalancerPool("http://app1.ducklington.org"),
        "members must be a list of URLs, WSGI applications or Member objects, got 'http://app1.ducklington.org'",
    ),
    "an unknown method": (
        lambda: BalancerPool([APP], method="roundrobin"),
        "method must be one of byrequests, bytraffic, bybusyness, leastconn, ewma, hash, got 'roundrobin'",
    ),
    "a member twice": (
        lambda: BalancerPool([APP, APP]),
        "members must differ from each other, got 'http://app.ducklington.org/' twice",
    ),
    "a weight of nothing": (
        lambda: Member(APP, loadfactor=0),
        "member loadfactor must be a number between 1 and 100, got 0",
    ),
    "an unknown status": (
        lambda: Member(APP, status="sleeping"),
        "member status must be made of the letters D S I R H E N with + or -, or one of ready, drain, disabled, "
        "standby, spare, ignore_errors, stopped, got 'sleeping'",
    ),
    "a URL of Redis with a slash too few": (
        lambda: BalancerPool([APP], state="redis:/127.0.0.1"),
        "state must be a path, or a URL such as redis://127.0.0.1:6379/0, got 'redis:/127.0.0.1'",
    ),
    "URLs for pools": (
        lambda: BalancerManagerApp([APP]),
        "pools must be a list of BalancerPool objects, got 'http://app.ducklington.org/'",
    ),
    "a flag that does not exist": (
        lambda: RewriteRule("^/a", APP, flags="X"),
        "flags of '^/a' must be some of B, BCTLS, BNE, BNP, C, CO, E, END, F, G, L, N, NC, NE, P, PT, QSA, QSD, QSL, "
        "R, S, T, UNSAFEALLOW3F, got 'X'",
    ),
    "a host out of the path": (
        lambda: RewriteProxy(None, [("^/(.*)", "http://$1/")]),
        "rule 1: target must have a literal host and a slash before anything of the request, got 'http://$1/'",
    ),
    "a pattern that could take for ever": (
        lambda: RewriteProxy(None, [("^/(a+)+$", APP)]),
        "rule 1: pattern must not repeat what repeats itself: a long path could keep '^/(a+)+$' busy for minutes. "
        "Make the inner part possessive, as in (a++)*, or allow it with backtracking=True",
    ),
    "a host name in an allow list": (
        lambda: IPAllowlist(None, ["office.ducklington.org"]),
        "allow must be IP addresses or networks (host names are not looked up), got 'office.ducklington.org'",
    ),
    "a network with bits below its mask": (
        lambda: IPAllowlist(None, ["10.0.0.1/8"]),
        "allow must have no bits set below the mask, got '10.0.0.1/8': the network is 10.0.0.0",
    ),
    "a URL for a host name": (
        lambda: VirtualHosts({"http://ducklington.org": None}),
        "name must be a host name without scheme, port or path, got 'http://ducklington.org'",
    ),
    "pairs for a mapping": (
        lambda: VirtualHosts([("ducklington.org", None)]),
        "hosts must be a mapping of names to applications, got [('ducklington.org', None)]",
    ),
    "nobody to trust": (
        lambda: ClientAddress(None),
        "trusted must be the addresses of the proxies in front, got ()",
    ),
    "a misspelt log format": (
        lambda: AccessLog(None, "access.log", format="combine"),
        "format must be common, combined, vhost_common, vhost_combined, json or a LogFormat string, got 'combine'",
    ),
    "a text for a status": (
        lambda: ErrorPages(None, {"404": "/404.html"}),
        "pages must be by status of 400 to 599, got '404'",
    ),
    "a header that frames": (
        lambda: HeaderRule("set", "Content-Length", "0"),
        "name must not be a header that frames the message, got 'Content-Length'",
    ),
    "a file of authorities that is not there": (
        lambda: Transport(ca="/etc/ssl/our-own.pem"),
        "ca must be an existing PEM file, got '/etc/ssl/our-own.pem'",
    ),
    "the name of a policy": (
        lambda: PrefixProxy(None, [("/", APP)], policy="apache"),
        "policy must be Policy.modern(), Policy.apache() or one made with but(), got 'apache'",
    ),
    "a misspelt word in a policy": (
        lambda: Policy().but(spelling="apach"),
        "spelling must be one of 'client', 'apache', got 'apach'",
    ),
    "a time as text": (
        lambda: PrefixProxy(None, [("/", APP)], first_byte="30"),
        "first_byte must be a number, got '30'",
    ),
}

#: What works and is hardly ever meant.
DOUBTED: dict[str, tuple[Callable[[], Any], str]] = {
    "a slash on one side": (
        lambda: PrefixProxy(None, [("/wiki", "http://app.ducklington.org/w/")]),
        "rule 1 (/wiki -> http://app.ducklington.org/w/) ends with a slash on one side only, and what follows the "
        "prefix is put after the target as it stands",
    ),
    "an exclusion too late": (
        lambda: PrefixProxy(None, [("/wiki/", APP), ("/wiki/static/", "!")]),
        "rule 2 (/wiki/static/ -> !) can never apply: rule 1 (/wiki/ -> http://app.ducklington.org/) takes every path "
        "of it; put it before that one",
    ),
    "the manager below a proxied prefix": (
        lambda: PrefixProxy(None, [("/", APP), ("/balancer-manager", IPAllowlist(None, "127.0.0.1"))]),
        "can never apply: rule 1 (/ -> http://app.ducklington.org/) takes every path of it; put it before that one",
    ),
    "a group in Python's words": (
        lambda: RewriteProxy(None, [("^/(.*)$", r"http://app.ducklington.org/\1")]),
        r"target of rule 1 must name a group as $1, not \1, got 'http://app.ducklington.org/\\1'",
    ),
    "a group that is not there": (
        lambda: RewriteProxy(None, [("^/(.*)$", "http://app.ducklington.org/$2")]),
        "target of rule 1 names $2, and the pattern has 1 group, got 'http://app.ducklington.org/$2'",
    ),
    "a variable without its mark": (
        lambda: RewriteProxy(None, [RewriteRule("^/", APP, conditions=[RewriteCond("REQUEST_METHOD", "POST")])]),
        "a condition of rule 1 compares the word REQUEST_METHOD: the variable is %{REQUEST_METHOD}",
    ),
}


def test_there_are_thirty_and_more() -> None:
    running = [name for name in vars(MODULE) if name.startswith("test_running_")]
    assert len(REFUSED) + len(DOUBTED) + len(running) >= 30


@pytest.mark.parametrize("mistake", REFUSED)
def test_refused(mistake: str) -> None:
    make, sentence = REFUSED[mistake]
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("mistake", DOUBTED)
def test_doubted(mistake: str) -> None:
    make, sentence = DOUBTED[mistake]
    with pytest.warns(ConfigWarning) as caught:
        make()
    (told,) = caught
    assert str(told.message).endswith(sentence)
    assert told.filename == __file__, "the warning points at the line that was written"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ProxiPass / http://a/", ":1: ProxiPass: unknown directive; the docs list what is supported"),
        ("<VirtualHost *:80>\n", ":1: "),
        ("\nProxyPass /a\n", ":2: ProxyPass: "),
        ("RewriteEngine On\nRewriteRule ^/a http://b/ [X]\n", ":2: RewriteRule: "),
    ],
)
def test_an_apache_file_with_a_mistake_names_the_line(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "site.conf").write_text(text + "\n")
    with pytest.raises(ConfigError) as caught:
        apacheconf.load(tmp_path / "site.conf")
    assert str(caught.value).startswith(f"{tmp_path}/site.conf{sentence}")


# --- what shows only when it runs ---


@pytest.fixture
def port() -> Iterator[Callable[[Callable[[socket.socket], Any]], int]]:
    """``port(answer)`` listens and lets ``answer`` talk to each connection."""
    servers = []

    def serve(answer: Callable[[socket.socket], Any]) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    with contextlib.suppress(OSError):
                        answer(connection)

        threading.Thread(target=run, daemon=True).start()
        return int(server.getsockname()[1])

    yield serve
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def plain(connection: Any) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


def ok(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"ok"]


def said(caplog: pytest.LogCaptureFixture) -> str:
    return caplog.text.replace("\\x20", " ")


def asked(url: str, **options: Any) -> int:
    return Client(PrefixProxy(None, [("/", url)], **options)).get("/", buffered=True).status_code


def test_running_a_dead_origin(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = server.getsockname()[1]
    assert asked(f"http://127.0.0.1:{dead}/") == 503
    assert f"event=upstream_refused status=503 method=GET path=/ upstream=http://127.0.0.1:{dead}" in caplog.text
    assert "Connection refused" in said(caplog)


def test_running_https_to_a_plain_port(port: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert asked(f"https://127.0.0.1:{port(plain)}/") == 502
    assert "no TLS is spoken there: is it http://, or another port?" in said(caplog)


def test_running_http_to_a_tls_port(port: Any, caplog: pytest.LogCaptureFixture) -> None:
    def alert(connection: Any) -> None:
        connection.recv(4096)
        connection.sendall(b"\x15\x03\x01\x00\x02\x02\x16")

    assert asked(f"http://127.0.0.1:{port(alert)}/") == 502
    assert "TLS is spoken there: is it https://?" in said(caplog)


def test_running_a_certificate_that_is_refused(port: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("app.ducklington.org").configure_cert(context)

    def secure(connection: Any) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            plain(tls)

    url = f"https://localhost:{port(secure)}/"
    assert asked(url) == 502
    assert "its authority is not known: say Transport(ca=...)" in said(caplog)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    assert asked(url, transport=Transport(ca=str(tmp_path / "ca.pem"))) == 502
    assert "the certificate is for another name: say Transport(server_hostname=...)" in said(caplog)
    fixed = Transport(ca=str(tmp_path / "ca.pem"), server_hostname="app.ducklington.org")
    assert asked(url, transport=fixed) == 200


def test_running_two_workers_without_shared_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    pool = BalancerPool(
        [Member(lambda e, s: (s("200 OK", []), [b"ok"])[1], name="a")], state=tmp_path / "file" / "table"
    )
    environ = {"wsgi.multiprocess": True}
    assert Client(pool).get("/", environ_overrides=environ, buffered=True).status_code == 200
    assert "event=state_local pool=cluster workers=alone reason=" in caplog.text
    assert pool.snapshot().state.startswith("local: ")
    pool.close()


def test_running_with_redis_down(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = server.getsockname()[1]
    pool = BalancerPool([Member(ok, name="a")], state=f"redis://127.0.0.1:{dead}/0", name="withoutredis")
    assert Client(pool).get("/", buffered=True).status_code == 200
    for _ in range(200):
        if "event=redis_lost pool=withoutredis" in caplog.text:
            break
        threading.Event().wait(0.05)
    assert "event=redis_lost pool=withoutredis" in caplog.text
    pool.close()


def test_running_an_unprotected_manager(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    manager = BalancerManagerApp([BalancerPool([APP])])
    reply = Client(manager).get("/")
    assert reply.status_code == 403
    assert "mount IPAllowlist(BalancerManagerApp(pools), allow=[...])" in reply.text
    reply = Client(IPAllowlist(manager, "127.0.0.1")).get(
        "/", "http://elsewhere.example", environ_base={"REMOTE_ADDR": "127.0.0.1"}
    )
    assert reply.status_code == 403
    assert "BalancerManagerApp(pools, hosts=[...])" in reply.text


def test_running_the_wrong_mime_type(tmp_path: Path) -> None:
    (tmp_path / "data.duck").write_text("")
    assert Client(StaticOrPass(None, tmp_path)).get("/data.duck").content_type == "application/octet-stream"
    fixed = StaticOrPass(None, tmp_path, mimetypes={".duck": "application/x-duck"})
    assert Client(fixed).get("/data.duck").content_type == "application/x-duck"


def test_running_an_empty_allow_list_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert Client(IPAllowlist(None)).get("/", environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code == 403
    assert "event=allowlist_empty nobody is allowed" in caplog.text


def command(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, env=environ, **options)


@pytest.mark.live
def test_running_serve_at_a_port_in_use(tmp_path: Path) -> None:
    (tmp_path / "site.conf").write_text("ServerName ducklington.org\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = command("-m", "proxymw", "serve", str(tmp_path / "site.conf"), "--bind", where)
    assert done.returncode == 2
    assert done.stderr == f"{where} cannot be used: Address already in use; choose another with --bind\n"


@pytest.mark.live
def test_running_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = command("-m", "proxymw", "check", "nothing.conf", cwd=tmp_path)
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_running_an_old_python() -> None:
    """`demo/bootstrap.py` is read by every Python there is; the metadata stop pip."""
    assert "proxymw needs Python %d.%d or newer; this is %d.%d (%s)." in (ROOT / "demo" / "bootstrap.py").read_text()
    assert "python_requires = >=3.11" in (ROOT / "setup.cfg").read_text()


def test_running_a_name_that_is_misspelt() -> None:
    with pytest.raises(AttributeError, match="module 'proxymw' has no attribute 'PrefixProxi'"):
        proxymw.PrefixProxi  # noqa: B018


def test_a_right_configuration_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PrefixProxy(None, [("/wiki/static/", "!"), ("/wiki/", APP), ("/media", "http://media.ducklington.org")])
        RewriteProxy(None, [(r"^/(.*)\.php$", "http://app.ducklington.org/$1.php")])
