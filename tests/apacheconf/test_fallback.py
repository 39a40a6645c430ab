"""FallbackResource, and upgrade= of ProxyPass.

The first table is as httpd 2.4.71 answers, but for a fallback that is nothing (/page, 500) and a link that leads out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxymw import ConfigError
from proxymw.apacheconf import load, read
from proxymw.apacheconf.build import Builder
from proxymw.apacheconf.convert import convert
from proxymw.explain import explain
from tests.client import call

SITE = """
ServerName localhost
DocumentRoot {root}
FallbackResource /fb.html
Header add X-Seen once
Alias /al {root}/sub
Alias /gone-folder {root}/no-such
Redirect 301 /old http://e.example/new
<Location /off>
    FallbackResource disabled
</Location>
<Location /chain>
    FallbackResource /nothing
</Location>
<Location /loc>
    Header set X-Loc yes
    FallbackResource /sub/o.html
</Location>
<Location /todir>
    FallbackResource /sub/
</Location>
<Location /noslash>
    FallbackResource /sub
</Location>
<Location /closed>
    FallbackResource /denied/x
</Location>
<Location /denied>
    Require all denied
</Location>
<Location /redir>
    FallbackResource /old/x
</Location>
<Location /page>
    ErrorDocument 404 /page/none.html
    FallbackResource /page/none
</Location>
<Directory {root}/sub>
    FallbackResource /sub/o.html
</Directory>
<Files x.php>
    FallbackResource /index.html
</Files>
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name, text in {
        "fb.html": "fallback",
        "index.html": "front",
        "sub/index.html": "idx",
        "sub/o.html": "other",
        "empty/.keep": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "out").symlink_to(tmp_path)
    return root


def site(root: Path, text: str) -> Path:
    path = root.parent / "site.conf"
    path.write_text(text.replace("{root}", str(root)))
    return path


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/", 200, "front"),
        ("/none", 200, "fallback"),
        ("/none?q=1", 200, "fallback"),
        ("/none/deep/x", 200, "fallback"),
        ("/fb.html/info", 404, None),
        ("/empty/", 200, "fallback"),
        ("/empty", 301, None),
        ("/sub/", 200, "idx"),
        ("/sub", 301, None),
        ("/sub/zz", 200, "other"),
        ("/al/zz", 200, "other"),
        ("/gone-folder/x", 200, "fallback"),
        ("/off/x", 404, None),
        ("/chain/x", 200, "fallback"),
        ("/loc/x", 200, "other"),
        ("/todir/x", 200, "idx"),
        ("/noslash/x", 301, None),
        ("/closed/x", 403, None),
        ("/redir/x", 301, None),
        ("/page/x", 404, None),
        ("/x.php", 200, "front"),
        ("/out/", 403, None),
    ],
)
def test_where_nothing_is_the_fallback_answers(root: Path, target: str, status: int, body: str | None) -> None:
    app = load(site(root, SITE))
    reply = call(app, target)
    assert reply.status == status
    assert body is None or reply.body == body.encode()
    assert explain(app, "GET", f"http://localhost{target}").status == status


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 200), ("PUT", 405), ("OPTIONS", 200)])
def test_every_method_falls_back(root: Path, method: str, status: int) -> None:
    assert call(load(site(root, SITE)), "/none", method=method).status == status


def test_the_sections_of_the_fallback_hold_and_once(root: Path) -> None:
    reply = call(load(site(root, SITE)), "/loc/x")
    assert [value for name, value in reply.headers if name == "X-Seen"] == ["once"]
    assert reply.header("X-Loc") is None


@pytest.mark.parametrize(
    ("lines", "status"),
    [("FallbackResource /nothing", 404), ("DirectoryIndex disabled\nFallbackResource /empty/", 404)],
)
def test_a_fallback_that_is_nothing_ends(root: Path, lines: str, status: int) -> None:
    app = load(site(root, f"DocumentRoot {{root}}\n{lines}\n"))
    assert call(app, "/none").status == status
    assert explain(app, "GET", "http://localhost/none").status == status


@pytest.mark.parametrize("folder", ["", "DocumentRoot {root}\n"])
def test_the_query_goes_to_a_proxied_fallback(root: Path, folder: str) -> None:
    text = folder + "FallbackResource /app/x%20y?a=1\nProxyPass /app/ http://127.0.0.9/\n"
    app = load(site(root, text))
    assert explain(app, "GET", "http://h/none?b=2").target == "http://127.0.0.9/x%20y?a=1?b=2"
    assert explain(app, "GET", "http://h/none").target == "http://127.0.0.9/x%20y?a=1"


def test_a_host_has_its_own(root: Path) -> None:
    hosts = "<VirtualHost *:80>\nServerName a.example\nFallbackResource /sub/o.html\n</VirtualHost>\n"
    hosts += "<VirtualHost *:80>\nServerName b.example\nFallbackResource disabled\n</VirtualHost>\n"
    hosts += "<VirtualHost *:80>\nServerName c.example\n</VirtualHost>\n"
    app = load(site(root, "DocumentRoot {root}\nFallbackResource /fb.html\n" + hosts))
    replies = [call(app, "/none", host=f"{name}.example") for name in "abc"]
    assert [reply.status for reply in replies] == [200, 404, 200]
    assert [replies[0].body, replies[2].body] == [b"other", b"fallback"]


def test_convert_says_that_it_cannot(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"FallbackResource .* load the file"):
        convert(read("DocumentRoot {root}\nFallbackResource /fb.html\n".replace("{root}", str(root))))


@pytest.mark.parametrize(
    ("parameter", "tunnels"),
    [("", False), ("upgrade=websocket", True), ("upgrade=ANY", True), ("upgrade=NONE", False), ("upgrade=none", False)],
)
@pytest.mark.parametrize("pool", [False, True])
def test_upgrade_none_opens_no_tunnel(parameter: str, tunnels: bool, pool: bool) -> None:
    text = f"ProxyPass / http://127.0.0.9/ {parameter}\n"
    if pool:
        text = (
            f"<Proxy balancer://c>\nBalancerMember http://127.0.0.9 {parameter}\n</Proxy>\nProxyPass / balancer://c/\n"
        )
    app: Any = Builder(read(text)).application()
    assert [bool(rule.websocket) for rule in app.rules] == [tunnels]
