"""What convert prints, run, is the same stack."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from proxymw import ConfigError
from proxymw.__main__ import main
from proxymw.apacheconf import load, read
from proxymw.apacheconf.convert import convert
from proxymw.explain import explain

SITE = r"""
<VirtualHost *:80>
    ServerName ducklington.org
    ServerAlias www.ducklington.org *.ducklington.net
    DocumentRoot {root}
    CustomLog {root}/access.log combined env=!quiet
    ErrorDocument 404 "not here"
    SetEnvIf Request_URI \.gif$ quiet
    Header set X-Front yes
    RequestHeader unset Cookie
    <Proxy balancer://cluster>
        BalancerMember http://127.0.0.1:8001 loadfactor=2 route=a
        BalancerMember http://127.0.0.1:8002 status=+H retry=5
        ProxySet stickysession=SID lbmethod=bytraffic
    </Proxy>
    <Location /balancer-manager>
        SetHandler balancer-manager
        Order Deny,Allow
        Deny from all
        Allow from 10.0.0.0/8 env=ADMIN
    </Location>
    <Location /private>
        <RequireAll>
            Require all granted
            Require not ip 10.1
        </RequireAll>
    </Location>
    Alias /icons {root}/icons
    Redirect 301 /old http://elsewhere.example/new
    RewriteEngine On
    RewriteMap lower int:tolower
    RewriteCond %{HTTP_USER_AGENT} bot [NC]
    RewriteRule ^/r/(.*)\.php$ http://127.0.0.3/${lower:$1}.php [P]
    RewriteRule ^/gone - [G]
    ProxyPass /balancer-manager !
    ProxyPass /icons !
    ProxyPass /wiki http://127.0.0.4:81 timeout=7
    ProxyPassMatch ^/(a|b)/(.*)$ http://127.0.0.5/$2/$1
    ProxyPass /odd/ http://127.0.0.6/x?y=
    ProxyPass /app/ balancer://cluster/base/
    ProxyPassReverse /app/ balancer://cluster/base/
</VirtualHost>
<VirtualHost *:80>
    ServerName other.example
    ProxyPass / http://127.0.0.9/
    ProxyPreserveHost On
</VirtualHost>
"""
REQUESTS = [
    ("GET", "http://ducklington.org/hello.txt", [], "192.0.2.1"),
    ("GET", "http://ducklington.org/missing", [], "192.0.2.1"),
    ("GET", "http://www.ducklington.org/wiki/x?y=1", [("Cookie", "a=b")], "192.0.2.1"),
    ("POST", "http://a.ducklington.net/app/x", [], "192.0.2.1"),
    ("GET", "http://ducklington.org/a/z", [], "192.0.2.1"),
    ("GET", "http://ducklington.org/odd/z", [], "192.0.2.1"),
    ("GET", "http://ducklington.org/r/INDEX.php", [("User-Agent", "Bot")], "192.0.2.1"),
    ("GET", "http://ducklington.org/r/INDEX.php", [], "192.0.2.1"),
    ("GET", "http://ducklington.org/gone", [], "192.0.2.1"),
    ("GET", "http://ducklington.org/old/x", [], "192.0.2.1"),
    ("GET", "http://ducklington.org/icons/i.png", [], "192.0.2.1"),
    ("GET", "http://ducklington.org/icons", [], "192.0.2.1"),
    ("GET", "http://ducklington.org/balancer-manager", [], "192.0.2.1"),
    ("GET", "http://ducklington.org/balancer-manager", [], "10.9.9.9"),
    ("GET", "http://ducklington.org/private/x", [], "10.1.2.3"),
    ("GET", "http://ducklington.org/private/x", [], "10.2.2.3"),
    ("GET", "http://other.example/x/y", [], "192.0.2.1"),
    ("GET", "http://nobody.example/x/y", [], "192.0.2.1"),
]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "hello.txt").write_text("hello\n")
    (tmp_path / "icons").mkdir()
    (tmp_path / "icons" / "i.png").write_text("png")
    path = tmp_path / "site.conf"
    path.write_text(SITE.replace("{root}", str(tmp_path)))
    return path


def run(text: str) -> Any:
    names: dict[str, Any] = {}
    exec(compile(text, "<converted>", "exec"), names)
    return names["application"]


def test_the_converted_stack_decides_the_same(conf: Path) -> None:
    loaded, converted = load(conf), run(convert(read(conf)))
    for method, url, headers, client in REQUESTS:
        mine = explain(converted, method, url, headers, client).text()
        assert mine == explain(loaded, method, url, headers, client).text()


def test_it_reads_as_if_written_by_hand(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(conf)]) == 0
    text = capsys.readouterr().out
    ast.parse(text)
    assert max(map(len, text.splitlines())) <= 160
    assert "import *" not in text
    assert "cluster = BalancerPool(" in text
    assert "('/balancer-manager', '!')," in text
    assert text.count("cluster = BalancerPool(") == 1


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    text = f'DocumentRoot {tmp_path}\n<FilesMatch "secret">\nRequire ip 10\n</FilesMatch>\n'
    with pytest.raises(ConfigError, match="chosen by pattern"):
        convert(read(text))
