"""Range fields: what is asked for, Apache's coalescing and caps, and that no field ever asks for more than the file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxymw.rules.ranges import Limits, Span, part_heads, select


def asked(field: str, length: int = 37, *, apache: bool = False) -> list[tuple[int, int]] | None:
    """First and last byte of each range, as the field has them."""
    spans = select(field, length, apache=apache)
    return None if spans is None else [(start, stop - 1) for start, stop in spans]


@pytest.mark.parametrize("apache", [False, True])
@pytest.mark.parametrize(
    ("field", "length", "want"),
    [
        ("bytes=0-0", 37, [(0, 0)]),
        ("bytes=0-9", 37, [(0, 9)]),
        ("bytes=10-", 37, [(10, 36)]),
        ("bytes=-1", 37, [(36, 36)]),
        ("bytes=-5", 37, [(32, 36)]),
        ("bytes=-1000", 37, [(0, 36)]),
        ("bytes=0-", 37, [(0, 36)]),
        ("bytes=0-37", 37, [(0, 36)]),
        ("bytes=36-36", 37, [(36, 36)]),
        ("bytes=00-009", 37, [(0, 9)]),
        ("BYTES=0-9", 37, [(0, 9)]),
        ("bytes=37-", 37, []),
        ("bytes=37-40", 37, []),
        ("bytes=100-200,0-1", 37, [(0, 1)]),
        ("bytes=0-1,-2", 37, [(0, 1), (35, 36)]),
        ("bytes=0-36,0-36", 37, [(0, 36)]),
        # The vectors of Apache's own tests.
        ("bytes=5-10,11-12,99-99", 40000, [(5, 12), (99, 99)]),
        ("bytes=10-20,1-9,99-99", 40000, [(1, 20), (99, 99)]),
        ("bytes=5-10,1-3,99-99", 40000, [(5, 10), (1, 3), (99, 99)]),
        ("bytes=0-70,72-100,1000-1001", 40000, [(0, 70), (72, 100), (1000, 1001)]),
        ("bytes=100000-110000,1000-2000", 40000, [(1000, 2000)]),
        ("bytes=100000-110000", 40000, []),
        # Not a set of byte ranges: as if it were not there.
        ("bytes=1-4,5-2", 40000, None),
        ("bytes=-0", 37, None),
        ("bytes=5-2", 37, None),
        ("bytes=-", 37, None),
        ("bytes=", 37, None),
        ("bytes=,", 37, None),
        ("bytes=foo", 37, None),
        ("bytes=a-b", 37, None),
        ("bytes=1-2-3", 37, None),
        ("bytes=--1", 37, None),
        ("bytes=1_0-2_0", 37, None),
        ("bytes=\xb2-\xb3", 37, None),
        ("bytes=0x0-0x9", 37, None),
        ("bytes=0-1\n", 37, None),
        ("bytes=0 - 9", 37, None),
        ("bytes = 0-9", 37, None),
        ("bytes 0-9", 37, None),
        ("lines=0-9", 37, None),
        ("", 37, None),
        ("bytes=0-1,bytes=3-4", 37, None),
        # An empty file has no range to give.
        ("bytes=0-0", 0, None),
        ("bytes=-5", 0, None),
    ],
)
def test_what_a_field_asks_for(field: str, length: int, want: list[tuple[int, int]] | None, apache: bool) -> None:
    assert asked(field, length, apache=apache) == want


@pytest.mark.parametrize(
    ("field", "modern", "apache"),
    [
        ("bytes=0-1, 3-4", [(0, 1), (3, 4)], None),
        ("bytes= 0-1", [(0, 1)], None),
        ("bytes=0-1,,5-6", [(0, 1), (5, 6)], [(0, 1)]),
        ("bytes=9-9,0-,x", None, [(0, 36)]),
        ("bytes=0-18446744073709551616", [(0, 36)], None),
        ("bytes=18446744073709551616-", [], None),
        (f"bytes=0-{'9' * 5000}", [(0, 36)], None),
    ],
)
def test_where_the_dialects_differ(
    field: str, modern: list[tuple[int, int]] | None, apache: list[tuple[int, int]] | None
) -> None:
    assert asked(field) == modern
    assert asked(field, apache=True) == apache


def spread(count: int) -> str:
    return "bytes=" + ",".join(f"{n * 10}-{n * 10 + 1}" for n in range(count))


def test_too_many_ranges_get_everything() -> None:
    assert len(select(spread(200), 100_000) or []) == 200
    assert select(spread(201), 100_000) is None
    assert select(spread(3), 100_000, Limits(ranges=2)) is None
    assert select("bytes=0-1", 100_000, Limits(ranges=0)) is None


def test_too_many_overlaps_get_everything() -> None:
    overlapping = [f"{n}-{n + 5}" for n in range(22)]
    assert asked("bytes=" + ",".join(overlapping[:21]), 1000) == [(0, 25)]
    assert select("bytes=" + ",".join(overlapping), 1000) is None


def test_too_many_reversals_get_everything() -> None:
    backwards = [f"{n}-{n + 5}" for n in range(40, 18, -1)]
    loose = Limits(overlaps=1000)
    assert select("bytes=" + ",".join(backwards[:21]), 1000, loose) == [Span(20, 46)]
    assert select("bytes=" + ",".join(backwards), 1000, loose) is None


def test_ranges_that_add_up_to_more_than_the_file_get_everything() -> None:
    assert select("bytes=0-30,35-36,0-30", 37) is None


def test_five_thousand_single_bytes_get_everything() -> None:
    assert select("bytes=" + ",".join(f"{n % 9}-{n % 9}" for n in range(5000)), 1000) is None


def test_the_parts_of_a_multipart_body() -> None:
    spans = [Span(0, 2), Span(5, 6)]
    assert part_heads(spans, 9, "text/plain", "B") == [
        b"\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/9\r\n\r\n",
        b"\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-5/9\r\n\r\n",
        b"\r\n--B--\r\n",
    ]
    assert b"Content-Type" not in part_heads(spans, 9, "", "B")[0]


numbers = st.integers(0, 60)
specs = st.one_of(
    st.tuples(numbers, numbers).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    numbers.map(lambda n: f"{n}-"),
    numbers.map(lambda n: f"-{n}"),
)


def wanted_bytes(field: str, length: int) -> set[int] | None:
    """A slow reading of RFC 9110 14.1.2; None for a malformed field."""
    out: set[int] = set()
    for spec in field.removeprefix("bytes=").split(","):
        first, _, last = spec.partition("-")
        if not first:
            if int(last) == 0:
                return None
            out |= set(range(length)[-int(last) :])
        else:
            if last and int(last) < int(first):
                return None
            out |= set(range(int(first), int(last) + 1 if last else length))
    return out & set(range(length))


@given(st.lists(specs, min_size=1, max_size=8), st.integers(1, 50))
def test_exactly_the_asked_bytes_are_sent_or_the_whole_file(parts: list[str], length: int) -> None:
    field = "bytes=" + ",".join(parts)
    spans = select(field, length)
    want = wanted_bytes(field, length)
    if want is None:
        assert spans is None
    elif spans is not None:
        assert {at for span in spans for at in range(*span)} == want
        assert sum(stop - start for start, stop in spans) <= length
    else:
        assert len(parts) > 1  # one range is never too much


@given(st.text(st.sampled_from("0123456789-, \tbytes="), max_size=60), st.integers(0, 50), st.booleans())
def test_no_field_asks_for_what_is_not_there(text: str, length: int, apache: bool) -> None:
    for start, stop in select("bytes=" + text, length, apache=apache) or []:
        assert 0 <= start < stop <= length
