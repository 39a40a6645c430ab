"""Where requests are sent is parsed once, strictly."""

from __future__ import annotations

import pytest

from proxymw.errors import ConfigError
from proxymw.rules.origins import Origin


@pytest.mark.parametrize(
    ("url", "authority", "base", "name"),
    [
        ("http://app", "app", "", "http://app"),
        ("http://app/", "app", "/", "http://app"),
        ("http://App.Example:80/a/b/", "app.example", "/a/b/", "http://app.example"),
        ("http://app:9001/x", "app:9001", "/x", "http://app:9001"),
        ("https://app:443", "app", "", "https://app"),
        ("https://app:80", "app:80", "", "https://app:80"),
        ("HTTP://app", "app", "", "http://app"),
        ("http://127.0.0.1:81", "127.0.0.1:81", "", "http://127.0.0.1:81"),
        ("http://[::1]:81/x", "[::1]:81", "/x", "http://[::1]:81"),
        ("http://[2001:DB8::1]", "[2001:db8::1]", "", "http://[2001:db8::1]"),
        ("http://web_1:80/a%2Fb", "web_1", "/a%2Fb", "http://web_1"),
        ("http://b\xfccher.example", "xn--bcher-kva.example", "", "http://xn--bcher-kva.example"),
        ("unix:/run/app.sock|http://localhost/x", "localhost", "/x", "unix:/run/app.sock|http://localhost"),
    ],
)
def test_good_urls(url: str, authority: str, base: str, name: str) -> None:
    origin = Origin.parse(url)
    assert (origin.authority, origin.base, origin.url, str(origin)) == (authority, base, name, name + base)


@pytest.mark.parametrize(
    "url",
    [
        *("", "app", "app:80", "//app", "ftp://app", "http:app", "http:/app", "http://", "http:///x", "http://:80"),
        *(
            "http://user@app",
            "http://user:pw@app/",
            "http://app:80@evil/",
            "http://app?x",
            "http://app/x?y",
            "http://app#x",
        ),
        *(
            "http://app/x#y",
            "http://app:0",
            "http://app:65536",
            "http://app:x",
            "http://app:",
            "http://a b",
            "http://a,b",
        ),
        *("http://app/a b", "http://app/\r\nX: y", "http://app/%zz", "http://app/\xe9", "http://[::1", "http://::1/"),
        *("http://-a", "unix:/x", "unix:x|http://a", "unix:/x|ftp://a", "unix:|http://a", "http://a\\b", "http://$1/x"),
    ],
)
def test_bad_urls_are_config_errors_that_name_what_they_are_about(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^member must "):
        Origin.parse(url, name="member")


def test_no_password_in_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        Origin.parse("http://user:secret@app/")
    assert "secret" not in str(caught.value)


def test_not_even_a_string() -> None:
    with pytest.raises(ConfigError, match="got 5"):
        Origin.parse(5)  # type: ignore[arg-type]


def test_equal_by_what_was_written() -> None:
    assert Origin.parse("http://APP:80/x") == Origin.parse("http://app/x")
    assert Origin.parse("http://app/x") != Origin.parse("http://app/y")
