"""Content-Type by name: one table everywhere, overridable."""

from __future__ import annotations

import re

import pytest

from proxymw import ConfigError
from proxymw.rules.mediatypes import TYPES, MediaTypes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("index.html", "text/html; charset=utf-8"),
        ("a/b.c/app.mjs", "text/javascript; charset=utf-8"),
        ("UPPER.TXT", "text/plain; charset=utf-8"),
        ("font.woff2", "font/woff2"),
        ("picture.webp", "image/webp"),
        ("data.json", "application/json"),
        ("icon.svg", "image/svg+xml"),
        ("module.wasm", "application/wasm"),
        ("archive.tar.gz", "application/gzip"),
        ("page.html.bak", "application/octet-stream"),
        ("README", "application/octet-stream"),
        ("html", "application/octet-stream"),
        (".html", "application/octet-stream"),
        ("name.", "application/octet-stream"),
        ("", "application/octet-stream"),
        ("Apple-App-Site-Association", "application/json"),
    ],
)
def test_shipped_table(name: str, kind: str) -> None:
    assert MediaTypes().of(name) == kind


def test_every_entry_is_a_media_type() -> None:
    for kind in TYPES.values():
        assert re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", kind), kind


def test_a_table_of_ones_own() -> None:
    types = MediaTypes({".FOO": "application/x-foo", "LICENSE": "text/plain"}, default="", charset="")
    assert types.of("a.foo") == "application/x-foo"
    assert types.of("license") == "text/plain"
    assert types.of("unknown.bar") == ""
    assert MediaTypes(table={".a": "text/a"}).of("index.html") == "application/octet-stream"


def test_a_charset_already_given_stays() -> None:
    assert MediaTypes({".x": "text/plain; charset=latin-1"}).of("a.x") == "text/plain; charset=latin-1"


def test_mod_mime_looks_at_every_extension() -> None:
    types = MediaTypes(default="", charset="", every_extension=True)
    assert types.of("page.html.bak") == "text/html"
    assert types.of("page.html.jpg") == "image/jpeg"
    assert types.of("page.bak") == ""


def test_a_type_that_would_split_the_head_is_refused() -> None:
    with pytest.raises(ConfigError, match="mimetypes must be"):
        MediaTypes({".x": "text/plain\r\nX: y"})
