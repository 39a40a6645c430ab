"""Reading configuration files: quoting, continuations, sections, includes, and errors that name a line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from proxymw.apacheconf.lexer import ConfFileError, Directive, Reader, Section, logical_lines, split_raw, split_words


def parse(text: str, **defines: str) -> list[Directive]:
    return Reader(defines, {}).read_text(text, "site.conf")


def shape(items: list[Directive]) -> list[object]:
    return [
        [item.name, item.text, shape(list(item.children))] if isinstance(item, Section) else f"{item.name} {item.text}"
        for item in items
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b  c", ["a", "b", "c"]),
        ('"a b" c', ["a b", "c"]),
        ("'a \"b' c", ['a "b', "c"]),
        (r'"a \"b\" c"', ['a "b" c']),
        (r"a\b", [r"a\b"]),
        (r"a\\b", [r"a\b"]),
        (r'"a\nb"', [r"a\nb"]),
        ('"open', ["open"]),
        ('""', [""]),
        ("", []),
        ('a"b c', ['a"b', "c"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (r"^/a\.b$ /x [P]", [r"^/a\.b$", "/x", "[P]"]),
        (r"^/a\ b$ /x", [r"^/a\ b$", "/x"]),
        (r'"^/a b\\c$" /x', [r"^/a b\\c$", "/x"]),
        (r'x "a \"b\""', ["x", 'a "b"']),
        ('^/(.*)$ "/a b/$1" "[P,NE]"', ["^/(.*)$", "/a b/$1", "[P,NE]"]),
    ],
)
def test_rewrite_arguments_keep_their_backslashes(text: str, words: list[str]) -> None:
    assert split_raw(text, 3) == words


def test_continuations_join_and_comments_are_whole_lines() -> None:
    text = "A one \\\n  two\n# note \\\nstill a note\nB x # y\n\n"
    assert list(logical_lines(text)) == [(1, "A one   two"), (5, "B x # y")]


def test_a_file_may_end_within_a_continuation() -> None:
    assert list(logical_lines("A one\\")) == [(1, "A one")]


def test_sections_nest_and_know_their_lines() -> None:
    items = parse(
        '<VirtualHost *:80>\n  ServerName a\n  <Location "/x y">\n  Order Deny,Allow\n</location>\n</VirtualHost>\n'
    )
    assert shape(items) == [["VirtualHost", "*:80", ["ServerName a", ["Location", '"/x y"', ["Order Deny,Allow"]]]]]
    host = items[0]
    assert isinstance(host, Section)
    assert [child.place.line for child in host.children] == [2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<VirtualHost *:80>\nServerName a\n", "site.conf:1: <VirtualHost>: the section is not closed"),
        ("A b\n</Location>\n", "site.conf:2: </Location>: there is no section to close"),
        ("<Location /a>\n</Directory>\n", "site.conf:2: </Directory>: expected </Location>, opened at site.conf:1"),
        ("<Location /a\n</Location>\n", "site.conf:1: <Location>: the directive is missing its closing '>'"),
        ("A b\n\x00\n", "site.conf:2: a NUL byte"),
        ("Include /no/such/file.conf\n", "site.conf:1: Include: no such file"),
        ("Include /no/such/*.conf\n", "site.conf:1: Include: no file matches"),
        ("Define a:b c\n", "site.conf:1: Define: a name must not have a colon"),
    ],
)
def test_errors_name_file_line_and_directive(text: str, message: str) -> None:
    with pytest.raises(ConfFileError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)


def test_define_and_variables() -> None:
    items = parse("Define host app.example\nProxyPass / http://${host}:${PORT}/\nRewriteRule a ${map:$1}\n", PORT="81")
    assert shape(items) == ["ProxyPass / http://app.example:81/", "RewriteRule a ${map:$1}"]


def test_an_unknown_variable_stays_and_is_said() -> None:
    reader = Reader({}, {})
    assert shape(reader.read_text("A ${nope}\n")) == ["A ${nope}"]
    assert "${nope} is not defined" in reader.warnings[0][2]


def test_sections_decided_at_load_time() -> None:
    text = (
        "<IfModule mod_proxy.c>\nA yes\n<IfModule !proxy_module>\nB no\n<Location /x>\n</Location>\n</IfModule>\n"
        "</IfModule>\n<IfDefine LIVE>\nC yes\n</IfDefine>\n<IfDefine !LIVE>\nD no\n</IfDefine>\n"
        "<IfVersion >= 2.4>\nE yes\n</IfVersion>\n<IfModule mod_php7.c>\nBroken <\nF no\n</IfModule>\n"
    )
    assert shape(parse(text, LIVE="")) == ["A yes", "C yes", "E yes"]


def test_include_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.conf").write_text("B 2\n")
    (tmp_path / "conf.d" / "a.conf").write_text("A 1\n")
    (tmp_path / "site.conf").write_text("Before 0\nInclude conf.d/*.conf\nIncludeOptional conf.d/none*.conf\nAfter 3\n")
    reader = Reader({}, {})
    items = reader.read_file(str(tmp_path / "site.conf"))
    assert shape(items) == ["Before 0", "A 1", "B 2", "After 3"]
    assert str(items[1].place).endswith("a.conf:1")


def test_an_include_loop_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("Include b.conf\n")
    (tmp_path / "b.conf").write_text("\nInclude a.conf\n")
    with pytest.raises(ConfFileError, match=r"b\.conf:2: Include: include loop"):
        Reader({}, {}).read_file(str(tmp_path / "a.conf"))


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    for name in ("", "missing.conf"):
        with pytest.raises(ConfFileError, match="no such file"):
            Reader({}, {}).read_file(str(tmp_path / name))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ConfFileError, match="no such file"):
        Reader({}, {}).read_file(str(fifo))


def test_large_files_take_bounded_time(tmp_path: Path) -> None:
    large = tmp_path / "large.conf"
    large.write_bytes(b"# " + b"x" * 70 + b"\n")
    large.write_bytes(large.read_bytes() * 140_000)
    begin = time.monotonic()
    assert Reader({}, {}).read_file(str(large)) == []
    assert time.monotonic() - begin < 10
    large.write_bytes(b"x" * (17 << 20))
    with pytest.raises(ConfFileError, match="must have at most"):
        Reader({}, {}).read_file(str(large))
