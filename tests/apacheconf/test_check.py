"""What check refuses, with file and line, and what it only warns of."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxymw import ConfigError
from proxymw.__main__ import main
from proxymw.apacheconf import check

HOST = "<VirtualHost *:80>\nServerName ducklington.org\n%s\n</VirtualHost>\n"
CLUSTER = "<Proxy balancer://cluster>\nBalancerMember http://127.0.0.1:8001\n</Proxy>\n"


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(text + "\n")
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Nonsense on", "<text>:3: Nonsense: unknown directive"),
        ("ProxyPass /x/", "<text>:3: ProxyPass: takes a path and a target"),
        ("ProxyPass /x/ app", "<text>:3: ProxyPass: the target must be ! or an absolute URL"),
        ("ProxyPass /x/ http://h/ bogus=1", "<text>:3: ProxyPass: unknown parameter 'bogus'"),
        ("ProxyPass /x/ http://h/ retry", "<text>:3: ProxyPass: a parameter must be key=value"),
        ("ProxyPass /x/ balancer://c/ lbmethod=ByRequests", "<text>:3: ProxyPass: lbmethod must be one of"),
        ("BalancerMember http://h", "<text>:3: BalancerMember: must stand in <Proxy balancer://name>"),
        ("RewriteRule ^/( /", "<text>:3: RewriteRule: pattern must be a regular expression"),
        ("RewriteRule ^/ / [XX]", "<text>:3: RewriteRule: flags of '^/' must be"),
        ("RewriteRule ^/ / XX", "<text>:3: RewriteRule: flags must be written as [flag,flag=value]"),
        ("RewriteMap m dbm:/x", "<text>:3: RewriteMap: the source must be txt:FILE"),
        ("ErrorDocument 200 x", "<text>:3: ErrorDocument: takes a status of 300 to 599"),
        ("Header frob X y", "<text>:3: Header: the action must be one of"),
        ("ServerName a b", "<text>:3: ServerName: takes one argument"),
        ("CustomLog |rotate combined", "<text>:3: CustomLog: must be a file"),
        ("SSLEngine on", "<text>:3: SSLEngine: is not supported: TLS ends in the server"),
        ("AuthType Basic", "<text>:3: AuthType: is not supported: authenticate in a WSGI middleware"),
        ("<VirtualHost *:81>\n</VirtualHost>", "<text>:3: <VirtualHost>: not allowed in <VirtualHost>"),
        ("<Location /x>\nServerName a\n</Location>", "<text>:4: ServerName: not allowed in <Location>"),
        ("<Location /x>\nDeny from app.example\n</Location>", "<text>:4: Deny: must be addresses"),
        ("<Location /x>\nRequire valid-user\n</Location>", "<text>:4: Require: must be all, ip"),
        ("<Location /x>\nRequire not ip 10\n</Location>", "<text>:4: Require: a negated Require only makes sense"),
        ("<RequireAll>\nRequire not ip 10\n</RequireAll>", "<text>:3: <RequireAll>: must have at least one Require"),
        ("Redirect /old relative", "<text>:3: Redirect: must redirect to an absolute URL"),
        ("RewriteMap m txt:/no/such\nRewriteEngine On\nRewriteRule ^ ${m:x}", "<text>:3: RewriteMap: cannot read"),
        ("FallbackResource x.html", "<text>:3: FallbackResource: must be a URL path that starts with /"),
        ("AliasMatch ^/x /y", "<text>:3: AliasMatch: is not supported"),
    ],
)
def test_errors_name_the_line_and_what_is_accepted(line: str, message: str) -> None:
    assert refusal(HOST % line).startswith(message)


@pytest.mark.parametrize(
    ("lines", "place", "warning"),
    [
        ("ProxyPass /a http://h/", 3, "do not both end with a slash"),
        ("ProxyPass /a/ http://h", 3, "would run into the host of http://h: such requests are answered 500"),
        ("ProxyPass /a http://h\nProxyPass /a/b http://i", 4, "/a/b is never reached: /a at <text>:3 takes all of it"),
        ("ProxyPass / http://h/\nProxyPass /static/ !", 4, "comes after /, from which it exempts"),
        ("ProxyPass / balancer://none/", 3, "no member is usable"),
        ("<Proxy balancer://c>\n</Proxy>", 3, "no member is usable"),
        ("<Proxy balancer://c>\nBalancerMember http://h status=+D\n</Proxy>", 3, "no member is usable"),
        (
            CLUSTER + "<Location /m>\nSetHandler balancer-manager\n</Location>\nProxyPass / balancer://cluster/",
            6,
            "is itself",
        ),
        (CLUSTER + "<Location /m>\nSetHandler balancer-manager\n</Location>", 6, "nobody may use the manager"),
        (r"RewriteEngine On" + "\n" + r"RewriteRule ^/(.*)\.php$ http://h/$1 [P]", 4, "takes .php off"),
        ("RewriteRule ^/x /y", 3, "has no effect without RewriteEngine On"),
        ("RewriteEngine On\nRewriteCond %{HTTP_HOST} x", 4, "no RewriteRule follows"),
        ("DocumentRoot /no/such/folder", 3, "does not exist"),
        ("CustomLog /tmp/x.log nosuch", 3, "there is no LogFormat nosuch"),
        ("KeepAlive On", 3, "accepted and without effect"),
        ("<Location /x>\nAllow from app.example\n</Location>", 4, "names are not looked up"),
        ("ProxyPass /a/ http://h/ keepalive=On", 3, "keepalive is accepted and without effect"),
        ("RewriteEngine On\nRewriteRule ^/x/(.*)$ http://h$1 [P]", 4, "such requests are answered 500"),
    ],
)
def test_what_people_regret_is_said_and_accepted(lines: str, place: int, warning: str) -> None:
    found = check(HOST % lines)
    assert any(one.place.line == place and warning in str(one) for one in found), [str(one) for one in found]


def test_lenient_ignores_what_does_no_harm_and_nothing_else() -> None:
    found = check(HOST % "ExpiresActive On\nSSLEngine on", lenient=True)
    assert [one.directive for one in found] == ["ExpiresActive", "SSLEngine"]
    with pytest.raises(ConfigError):
        check(HOST % "AuthType Basic", lenient=True)


def test_the_command_exits_2_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "site.conf"
    conf.write_text(HOST % "ProxyPass /a http://h/")
    assert main(["check", str(conf)]) == 0
    out = capsys.readouterr().out
    assert f"{conf}:3: ProxyPass: warning: " in out
    conf.write_text(HOST % "Nonsense")
    assert main(["check", str(conf)]) == 2
    assert capsys.readouterr().err.startswith(f"{conf}:3: Nonsense: ")


@pytest.mark.parametrize(
    "data", [b"\x00\x01\x02", b"\xff\xfe<\x00", b"<VirtualHost", b"<", b"</", b"<>", b"\\", b"${", b"<a"]
)
def test_rubbish_is_refused_or_taken_but_never_a_traceback(data: bytes, tmp_path: Path) -> None:
    conf = tmp_path / "site.conf"
    conf.write_bytes(data)
    assert main(["check", str(conf)]) in (0, 2)
    conf.write_bytes(HOST.encode() % data)
    assert main(["check", str(conf)]) in (0, 2)


def test_ten_thousand_rules_load_in_bounded_time(tmp_path: Path) -> None:
    import time

    passes = "\n".join(f"ProxyPass /p{n}/ http://127.0.0.1:8001/p{n}/" for n in range(5_000))
    rules = "RewriteEngine On\n" + "\n".join(
        rf"RewriteRule ^/r{n}/(.*)$ http://127.0.0.1:8001/$1 [P]" for n in range(5_000)
    )
    begin = time.monotonic()
    check(HOST % (passes + "\n" + rules))
    assert time.monotonic() - begin < 30
