"""A part of what a real httpd 2.4.71 did, as ordinary tests: the same configuration and bytes, the same decision."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from werkzeug.test import create_environ, run_wsgi_app

from proxymw.apacheconf import load
from proxymw.testing import ScriptedTransport

FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "facts.json").read_text("ascii"))
HOSTS = {
    name: f"127.0.0.{number}:8001"
    for name, number in zip(
        ("static", "media", "application", "app", "other", "app1", "app2", "app3", "app4", "app5", "dead"),
        (11, 12, 13, 14, 15, 21, 22, 23, 24, 25, 31),
        strict=True,
    )
}
#: What stands before every configuration: the recorded server had it too.
BASE = """\
ServerName fallback.invalid
TypesConfig {root}/mime.types
LogFormat "%h %l %u %t \\"%r\\" %>s %b \\"%{Referer}i\\" \\"%{User-Agent}i\\"" combined
<Directory />
    Options FollowSymLinks
</Directory>
<FilesMatch "^\\.ht">
    Require all denied
</FilesMatch>
"""
REMOTE = "RemoteIPHeader X-Oracle-Client\nRemoteIPInternalProxy 127.0.0.0/8 ::1\n"
HOST = """<VirtualHost *:{port}>
    ServerName ducklington.org
    ServerAlias www.ducklington.org
    DocumentRoot {docroot}/
%s
</VirtualHost>
"""


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    (folder / "mime.types").write_text(FACTS["mime"])
    (folder / "www").mkdir()
    for item in FACTS["files"]:
        path = folder / "www" / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if "symlink" in item:
            path.symlink_to(item["symlink"])
        elif item.get("dir"):
            path.mkdir(exist_ok=True)
        else:
            path.write_text(item["content"])
    return folder


def filled(text: str, root: Path) -> str:
    places = {name: f"http://{address}" for name, address in HOSTS.items()}
    places |= {f"{name}_host": address for name, address in HOSTS.items()}
    places |= {
        "port": "80",
        "docroot": f"{root}/www",
        "root": str(root),
        "logs": f"{root}/logs",
        "conf": f"{root}/conf",
    }
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text


MEMBER = re.compile(r"BalancerMember +\{(\w+)\}")


@lru_cache(maxsize=4)
def stack(number: int, root: Path) -> Any:
    config = FACTS["configs"][number]
    for name, text in config.get("files", {}).items():
        (root / "conf").mkdir(exist_ok=True)
        (root / "conf" / name).write_text(filled(text, root))
    text = config["text"] if config["context"] == "server" else HOST.replace("%s", config["text"])
    path = root / f"site-{number}.conf"
    path.write_bytes(filled(BASE + (REMOTE if "clients" in config else "") + text, root).encode("latin-1"))
    return load(path)


@pytest.mark.parametrize("fact", FACTS["cases"], ids=lambda fact: fact["id"])
def test_httpd_did(fact: dict[str, Any], root: Path) -> None:
    environ = create_environ("/", "http://localhost/", method=fact["method"])
    path, _, query = fact["target"].partition("?")
    environ.pop("HTTP_HOST")
    environ.pop("REQUEST_URI")
    environ |= {
        "RAW_URI": fact["target"],
        "PATH_INFO": unquote(path, encoding="latin-1"),
        "QUERY_STRING": query,
        "REMOTE_ADDR": "127.0.0.1",
    }
    for name, value in fact.get("headers", [["Host", "ducklington.org"]]):
        environ["HTTP_" + name.upper().replace("-", "_")] = filled(value, root)
    if "client" in fact:
        environ["HTTP_X_ORACLE_CLIENT" if "clients" in FACTS["configs"][fact["config"]] else "REMOTE_ADDR"] = fact[
            "client"
        ]
    if "balancer:" in FACTS["configs"][fact["config"]]["text"]:
        stack.cache_clear()  # each case was the first request of a pool
    with ScriptedTransport() as origins:
        body, status, headers = run_wsgi_app(stack(fact["config"], root), environ, buffered=True)
    origin = {f"http://{address}": name for name, address in HOSTS.items()}
    asked = [(origin[sent.origin], sent.target) for sent in origins.sent]
    if "asks" in fact:
        # Whose turn it is in a balancer depends on the requests before: any of its members is right.
        members = MEMBER.findall(FACTS["configs"][fact["config"]]["text"])
        right = members if fact["served"] in members else [fact["served"]]
        assert [target for _, target in asked] == [filled(fact["asks"], root)]
        assert asked[0][0] in right
        return
    assert asked == []
    assert int(status[:3]) == fact["status"]
    if "location" in fact:
        assert headers.get("Location") == filled(fact["location"], root)
    assert (fact["served"] == "file") <= (headers.get("ETag") is not None)
    assert body is not None
