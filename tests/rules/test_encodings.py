"""Accept-Encoding: a coding is sent only to a client that names it."""

from __future__ import annotations

import pytest

from proxymw.rules.encodings import preferred

OFFERED = ("br", "zstd", "gzip")


@pytest.mark.parametrize(
    ("field", "want"),
    [
        ("", ()),
        ("gzip", ("gzip",)),
        ("GZip", ("gzip",)),
        ("x-gzip", ("gzip",)),
        ("gzip, deflate, br, zstd", ("br", "zstd", "gzip")),
        ("gzip;q=1.0, br;q=0.5", ("gzip", "br")),
        ("gzip ; q=0.5 , br;Q=0.8", ("br", "gzip")),
        ("gzip;q=0", ()),
        ("gzip;q=0.000, br", ("br",)),
        ("*", ()),
        ("*;q=0", ()),
        ("identity, gzip;q=0.5", ()),
        ("identity;q=0.5, gzip", ("gzip",)),
        ("identity;q=0, *", ("br", "zstd", "gzip")),
        ("identity;q=0, br;q=0, *;q=0.1", ("zstd", "gzip")),
        ("deflate", ()),
        # A member that is malformed counts for nothing and spoils nothing.
        (";;q=,,%00, gzip;q=nan", ()),
        ("gzip;q=1.5, br", ("br",)),
        ("gzip;q=0.1234, br;q=0.5", ("br",)),
        ("gzip;level=9, br", ("br",)),
        ("gzip br", ()),
        ("notgzip, gzipped", ()),
    ],
)
def test_order_of_preference(field: str, want: tuple[str, ...]) -> None:
    assert preferred(field, OFFERED) == want
