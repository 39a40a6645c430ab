"""Log lines: Apache's formats, escaping and documented items, and the JSON form."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxymw.errors import ConfigError
from proxymw.rules.logline import JSONFormat, LogEntry, LogFormat, escape, log_format

BEGIN = datetime(2011, 9, 18, 19, 18, 28, 0, timezone(timedelta(hours=-4)))


def entry(**changes: Any) -> LogEntry:
    fields: dict[str, Any] = {
        "method": "GET",
        "target": "/hello.txt?a=b",
        "path": "/hello.txt",
        "query": "a=b",
        "protocol": "HTTP/1.1",
        "status": 200,
        "begin": BEGIN,
        "micros": 123_456,
        "seconds": 1.234567,
        "sent": 37,
        "head_sent": 228,
        "received": 124,
        "client": "192.0.2.7",
        "peer": "127.0.0.1",
        "host": "ducklington.org",
        "server_name": "main.example",
        "port": "80",
        "local_port": "8000",
        "local_address": "127.0.0.1",
        "remote_port": "40000",
        "pid": 77,
        "thread": 255,
        "request_headers": {"user-agent": 'q"\\ \xc3\xa9', "referer": "ref", "cookie": "duck=quack; x=1", "empty": ""},
        "response_headers": [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2")],
        "env": {"MARK": "yes"},
        "notes": {"member": "app1"},
        **changes,
    }
    return LogEntry(**fields)


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("common", '192.0.2.7 - - [18/Sep/2011:19:18:28 -0400] "GET /hello.txt?a=b HTTP/1.1" 200 37'),
        (
            "combined",
            '192.0.2.7 - - [18/Sep/2011:19:18:28 -0400] "GET /hello.txt?a=b HTTP/1.1" 200 37'
            ' "ref" "q\\"\\\\ \\xc3\\xa9"',
        ),
        (
            "vhost_common",
            'main.example 192.0.2.7 - - [18/Sep/2011:19:18:28 -0400] "GET /hello.txt?a=b HTTP/1.1" 200 37',
        ),
        ("%h %l %u %m %U %q %H %>s %s %b %B %f", "192.0.2.7 - - GET /hello.txt ?a=b HTTP/1.1 200 200 37 37 -"),
        ("%v %V %{Host}i %X %R %k", "main.example ducklington.org - + - 0"),
        ("%400,501{User-Agent}i|%!200,304{Referer}i|%200,304{Referer}i", "-|-|ref"),
        ("%I|%O|%S|%b", "124|265|389|37"),
        ("%a|%{c}a|%A|%p|%{canonical}p|%{local}p|%{remote}p", "192.0.2.7|127.0.0.1|127.0.0.1|80|80|8000|40000"),
        ("%{%Y}t|%{begin:%Y}t|%T|%{ms}T|%{us}T|%{s}T|%D", "2011|2011|1|1234|1234567|1|1234567"),
        ("%{sec}t|%{msec}t|%{usec}t|%{msec_frac}t|%{usec_frac}t",
         "1316387908|1316387908123|1316387908123456|123|123456"),
        ("%{end:%H:%M:%S}t|%{end:msec_frac}t|%{begin:%H:%M}t", "19:18:29|358|19:18"),
        ("%{X-In}i|%{Content-Type}o|%{set-COOKIE}o|%{Missing}i|%{Empty}i|%{duck}C|%{x}C|%{uck}C",
         "-|text/plain|a=1, b=2|-||quack|1|-"),
        ("100%%|\\t|\\n|\\\\|\\x|\"x\"", "100%|\t|\n|\\|\\x|\"x\""),
        ("%{MARK}e|%{MISSING}e|%{member}n|%{note}n", "yes|-|app1|-"),
        ("%P %{pid}P %{tid}P %{hextid}P", "77 77 255 ff"),
        ("%{a}^ti %{b}^to %L", "- - -"),
        ("%<s %>s", "200 200"),
    ],
)  # fmt: skip
def test_formats(form: str, line: str) -> None:
    assert LogFormat(form).line(entry()) == line


@pytest.mark.parametrize(
    ("form", "changes", "line"),
    [
        ("%b %B %O", {"sent": 0}, "- 0 228"),
        ("%u", {"user": "frank"}, "frank"),
        ("%u", {"user": ""}, '""'),
        ("%u", {"user": 'a" b\n'}, 'a\\" b\\n'),
        ("%q", {"query": ""}, ""),
        ("%s %>s", {"status": 200, "first_status": 404}, "404 200"),
        ("%X", {"complete": False}, "X"),
        ("%X", {"keepalive": False}, "-"),
        ("%U", {"path": '/a"b'}, '/a\\"b'),
        ("%r", {"target": '/a"b\\c', "method": "G"}, 'G /a\\"b\\\\c HTTP/1.1'),
        ("%h", {"client": ""}, "-"),
        ("%V", {"host": ""}, "main.example"),
        ("%f", {"filename": "/srv/www/x"}, "/srv/www/x"),
        ("%t", {"begin": datetime(2026, 3, 2, 3, 4, 5, 0, timezone(timedelta(hours=5, minutes=30)))},
         "[02/Mar/2026:03:04:05 +0530]"),
    ],
)  # fmt: skip
def test_fields_that_are_special(form: str, changes: dict[str, Any], line: str) -> None:
    assert LogFormat(form).line(entry(**changes)) == line


def test_months_are_english_in_every_locale() -> None:
    months = [LogFormat("%t").line(entry(begin=BEGIN.replace(month=n)))[4:7] for n in range(1, 13)]
    assert months == ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain text", "plain text"),
        ('say "x"', 'say \\"x\\"'),
        ("back\\slash", "back\\\\slash"),
        ("\b\n\r\t\v", "\\b\\n\\r\\t\\v"),
        ("\x00\x07\x0c\x1b[31m\x7f", "\\x00\\x07\\x0c\\x1b[31m\\x7f"),
        ("\xc3\xa9\xff", "\\xc3\\xa9\\xff"),
        ("é€", "\\xe9\\xe2\\x82\\xac"),
    ],
)
def test_escaping_is_that_of_apache(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@given(st.text(st.characters(max_codepoint=255)))
def test_nothing_escaped_can_end_a_line_or_a_field_and_nothing_is_lost(text: str) -> None:
    escaped = escape(text)
    assert escaped.isascii()
    assert escaped.isprintable() or escaped == ""
    assert '"' not in escaped.replace("\\\\", "").replace('\\"', "")
    assert escaped.encode().decode("unicode_escape") == text


@pytest.mark.parametrize(
    "form", ["%Z", "%", "%{x", "%{x}", "%{}i", "%{y}a", "%{local}P", "%{hours}T", "%{z}p", "%>", "", None]
)
def test_an_unknown_item_is_refused(form: Any) -> None:
    with pytest.raises(ConfigError, match=r"^format must "):
        LogFormat(form)


def test_json_has_the_names_of_the_field() -> None:
    line = log_format("json").line(
        entry(
            target="/caf%C3%A9",
            path="/caf\xc3\xa9",
            query="",
            request_headers={
                "user-agent": "q\x1b\xff",
                "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            },
            notes={"pool": "cluster", "member": "app1", "attempts": 2, "upstream_ms": 1.5, "request_id": "r1"},
        )
    )
    assert "\n" not in line
    assert json.loads(line) == {
        "@timestamp": "2011-09-18T19:18:28.123-04:00",
        "client.address": "192.0.2.7",
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.domain": "ducklington.org",
        "url.path": "/café",
        "url.original": "/caf%C3%A9",
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "http.response.body.size": 37,
        "event.duration_ms": 1234.567,
        "user_agent.original": "q\x1b\\xff",
        "request_id": "r1",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "proxymw.pool": "cluster",
        "proxymw.member": "app1",
        "proxymw.attempts": 2,
        "proxymw.upstream_ms": 1.5,
    }
    assert json.loads(JSONFormat().line(entry(complete=False)))["proxymw.client_left"] is True


def test_formats_show_what_they_are() -> None:
    assert repr(log_format("common")) == '<LogFormat %h %l %u %t "%r" %>s %b>'
    assert repr(log_format("json")) == "<JSONFormat>"
