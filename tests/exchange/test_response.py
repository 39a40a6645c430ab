"""The strict reader: what an origin may send, what is refused, and where a body ends."""

from __future__ import annotations

import pytest

from proxymw.errors import BodyTruncated, ResponseMalformed, ResponseTooLarge
from proxymw.exchange.chunked import LINE_MOST, TRAILERS_MOST, ChunkedDecoder
from proxymw.exchange.response import (
    FIELDS_MOST,
    ChunkedFraming,
    CloseFraming,
    LengthFraming,
    StreamedResponse,
    parse_head,
)

# Rows of security.md section 2 and threats 77 to 90: what follows the status line, or the whole head.
MALFORMED = {
    "no version": b"HTTP 200 OK",
    "HTTP/2 in text": b"HTTP/2.0 200 OK",
    "another protocol": b"ICY 200 OK",
    "lower-case protocol": b"http/1.1 200 OK",
    "status of two digits": b"HTTP/1.1 99 Low",
    "status of four digits": b"HTTP/1.1 1000 High",
    "status 000": b"HTTP/1.1 000 None",
    "status below 100": b"HTTP/1.1 099 Low",
    "status above 599": b"HTTP/1.1 600 High",
    "negative status": b"HTTP/1.1 -20 No",
    "superscript digits": b"HTTP/1.1 2\xb2\xb2 No",
    "two spaces before the status": b"HTTP/1.1  200 OK",
    "tab before the status": b"HTTP/1.1\t200 OK",
    "letter behind the status": b"HTTP/1.1 200x",
    "empty": b"",
    "CR in the phrase": b"HTTP/1.1 200 O\rK",
    "NUL in the phrase": b"HTTP/1.1 200 O\0K",
    "ESC in the phrase": b"HTTP/1.1 200 \x1b[31m",
    "no colon": b"HTTP/1.1 200 OK\r\nNoColonHere",
    "empty name": b"HTTP/1.1 200 OK\r\n: x",
    "only a colon": b"HTTP/1.1 200 OK\r\n:",
    "space before the colon": b"HTTP/1.1 200 OK\r\nX : y",
    "space in the name": b"HTTP/1.1 200 OK\r\nX Y: z",
    "8-bit name": b"HTTP/1.1 200 OK\r\nX\xe9: z",
    "parentheses in the name": b"HTTP/1.1 200 OK\r\nX(1): z",
    "folded field": b"HTTP/1.1 200 OK\r\nX: one\r\n two",
    "folded with a tab": b"HTTP/1.1 200 OK\r\nX: one\r\n\ttwo",
    "space before the first field": b"HTTP/1.1 200 OK\r\n X: one",
    "bare CR in a value": b"HTTP/1.1 200 OK\r\nX: a\rX-Injected: b",
    "bare LF in a value": b"HTTP/1.1 200 OK\r\nX: a\nX-Injected: b",
    "LF before CR": b"HTTP/1.1 200 OK\r\nX: a\n\r\nY: b",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nX: a\0b",
    "vertical tab in a value": b"HTTP/1.1 200 OK\r\nX: a\x0bb",
    "DEL in a value": b"HTTP/1.1 200 OK\r\nX: a\x7fb",
    "Content-Length: five": b"HTTP/1.1 200 OK\r\nContent-Length: five",
    "Content-Length: -5": b"HTTP/1.1 200 OK\r\nContent-Length: -5",
    "Content-Length: +5": b"HTTP/1.1 200 OK\r\nContent-Length: +5",
    "Content-Length: 5.0": b"HTTP/1.1 200 OK\r\nContent-Length: 5.0",
    "Content-Length: 0x5": b"HTTP/1.1 200 OK\r\nContent-Length: 0x5",
    "Content-Length: 1_0": b"HTTP/1.1 200 OK\r\nContent-Length: 1_0",
    "Content-Length: 5 5": b"HTTP/1.1 200 OK\r\nContent-Length: 5 5",
    "Content-Length: superscript": b"HTTP/1.1 200 OK\r\nContent-Length: \xb2",
    "Content-Length empty": b"HTTP/1.1 200 OK\r\nContent-Length:",
    "Content-Length of 2^64": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621",
    "Content-Length list": b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5",
    "two equal lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 6",
    "length with chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
    "chunked with length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
    "chunked, gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "chunked, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked",
    "xchunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked",
    "identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity",
    "empty coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding:",
    "coding with a parameter": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1",
    "coding with a no-break space": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \xa0chunked",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
}


@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED)
def test_a_head_that_leaves_doubt_is_refused(head: bytes) -> None:
    with pytest.raises(ResponseMalformed):
        parse_head(head)


@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED)
def test_it_is_refused_the_second_time_too(head: bytes) -> None:
    """What is remembered about names and status lines must not let anything in."""
    for _ in range(2):
        with pytest.raises(ResponseMalformed):
            parse_head(head)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 200 OK", 200),
        (b"HTTP/1.0 404 Not Found", 404),
        (b"HTTP/1.1 200", 200),
        (b"HTTP/1.1 200 ", 200),
        (b"HTTP/1.1 200 caf\xe9", 200),
        (b"HTTP/1.1 599 Whatever", 599),
        (b"HTTP/1.1 103 Early Hints", 103),
    ],
)
def test_status_lines(head: bytes, status: int) -> None:
    assert parse_head(head).status == status


def test_fields_keep_their_order_case_repeats_and_bytes() -> None:
    head = parse_head(
        b"HTTP/1.1 200 OK\r\nsEt-cookie: a=1\r\nX-A:\tcaf\xe9 \r\nSet-Cookie: b=2\r\nX-Empty:\r\nX-B:  c d  "
    )
    fields = [("sEt-cookie", "a=1"), ("X-A", "caf\xe9"), ("Set-Cookie", "b=2"), ("X-Empty", ""), ("X-B", "c d")]
    assert head.headers == fields


@pytest.mark.parametrize(
    "name",
    [
        *("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade", "Proxy-Authenticate"),
        *("HTTP2-Settings", "proxy-authorization", "X-Accel-Redirect", "X-SENDFILE", "x-lighttpd-send-file"),
    ],
)
def test_fields_for_this_hop_or_for_a_front_server_stay_here(name: str) -> None:
    head = parse_head(f"HTTP/1.1 200 OK\r\n{name}: x\r\nX-Kept: y".encode())
    assert head.headers == [("X-Kept", "y")]


def test_fields_that_connection_lists_stay_here_but_framing_does_not() -> None:
    head = parse_head(
        b"HTTP/1.1 200 OK\r\nX-Secret: s\r\nConnection: X-Secret, , close\r\nContent-Length: 5\r\n"
        b"connection: content-length, x-other\r\nX-Other: o\r\nX-Kept: k"
    )
    assert head.headers == [("Content-Length", "5"), ("X-Kept", "k")]
    assert (head.length, head.keep) == (5, False)


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive, CLOSE", False),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close", False),
        (b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive", True),
        (b"HTTP/1.0 200 OK\r\nConnection: close, keep-alive", False),
    ],
)
def test_whether_the_origin_keeps_the_connection(head: bytes, keep: bool) -> None:
    assert parse_head(head).keep is keep


def test_a_length_is_written_anew() -> None:
    head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 0005 ")
    assert head.length == 5
    assert head.headers == [("Content-Length", "5")]


def test_date_and_server_can_be_left_to_the_server() -> None:
    raw = b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 11:02:11 GMT\r\nServer: x\r\nX-A: b"
    assert [name for name, _ in parse_head(raw).headers] == ["Date", "Server", "X-A"]
    assert parse_head(raw, own=False).headers == [("X-A", "b")]
    assert parse_head(raw).dated
    assert not parse_head(b"HTTP/1.1 200 OK").dated


def test_as_many_fields_as_the_cap_and_no_more() -> None:
    fields = b"".join(b"\r\nX-%d: 1" % n for n in range(FIELDS_MOST))
    assert len(parse_head(b"HTTP/1.1 200 OK" + fields).headers) == FIELDS_MOST
    with pytest.raises(ResponseTooLarge):
        parse_head(b"HTTP/1.1 200 OK" + fields + b"\r\nX-More: 1")


def test_names_that_an_origin_invents_do_not_pile_up() -> None:
    from proxymw.exchange import response

    for n in range(2 * response._KINDS_MOST):
        parse_head(b"HTTP/1.1 200 OK %d\r\nX-%d: 1" % (n, n))
    assert len(response._kinds) <= response._KINDS_MOST
    assert len(response._status_lines) <= response._STATUS_LINES_MOST
    assert parse_head(b"HTTP/1.1 200 OK\r\nX-Never-Seen: 1").headers == [("X-Never-Seen", "1")]


CHUNKED = {
    "one": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "none": (b"0\r\n\r\n", b""),
    "several": (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
    "leading zeros": (b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "upper and lower hex": (b"A\r\n0123456789\r\na\r\nabcdefghij\r\n0\r\n\r\n", b"0123456789abcdefghij"),
    "extensions": (b'5;a=b;c="d"\r\nhello\r\n0;last\r\n\r\n', b"hello"),
    "blanks before an extension": (b"5 \t;a\r\nhello\r\n0\r\n\r\n", b"hello"),
    "trailers": (b"5\r\nhello\r\n0\r\nX-T: 1\r\nSet-Cookie: evil=1\r\n\r\n", b"hello"),
    "CRLF as data": (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
}


@pytest.mark.parametrize(("raw", "body"), CHUNKED.values(), ids=CHUNKED)
@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
def test_chunks_are_joined_however_they_arrive(raw: bytes, body: bytes, step: int) -> None:
    decoder = ChunkedDecoder()
    out = b"".join(decoder.feed(raw[n : n + step]) for n in range(0, len(raw), step))
    assert out == body
    assert decoder.done
    assert decoder.rest == b""


@pytest.mark.parametrize(("raw", "body"), CHUNKED.values(), ids=CHUNKED)
def test_a_chunked_body_cut_anywhere_is_never_complete(raw: bytes, body: bytes) -> None:
    for cut in range(len(raw)):
        decoder = ChunkedDecoder()
        assert body.startswith(decoder.feed(raw[:cut]))
        assert not decoder.done


def test_what_follows_the_last_chunk_is_kept_apart() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK") == b"hello"
    assert decoder.done
    assert decoder.rest == b"HTTP/1.1 200 OK"


BAD_CHUNKS = {
    "0x5": b"0x5\r\nhello\r\n0\r\n\r\n",
    "+5": b"+5\r\nhello\r\n0\r\n\r\n",
    "-5": b"-5\r\nhello\r\n0\r\n\r\n",
    "0_5": b"0_5\r\nhello\r\n0\r\n\r\n",
    "leading space": b" 5\r\nhello\r\n0\r\n\r\n",
    "trailing space": b"5 \r\nhello\r\n0\r\n\r\n",
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "superscript": b"\xb2\r\nhello\r\n0\r\n\r\n",
    "more than 64 bits": b"10000000000000000\r\nhello\r\n0\r\n\r\n",
    "bare LF": b"5\nhello\n0\n\n",
    "bare CR in an extension": b"5;\rx\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;\0\r\nhello\r\n0\r\n\r\n",
    "no CRLF behind the data": b"5\r\nhelloXX0\r\n\r\n",
    "data longer than its size": b"3\r\nhello\r\n0\r\n\r\n",
    "LF alone behind the data": b"5\r\nhello\n0\r\n\r\n",
    "trailer without a colon": b"0\r\nnope\r\n\r\n",
    "folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
    "NUL in a trailer": b"0\r\nX: \0\r\n\r\n",
    "endless extension": b"5;" + b"x" * (LINE_MOST + 1),
    "endless trailers": b"0\r\n" + b"X: y\r\n" * (TRAILERS_MOST // 6 + 1),
}


@pytest.mark.parametrize("raw", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
@pytest.mark.parametrize("step", [1, 7, 100000])
def test_chunks_that_leave_doubt_are_refused(raw: bytes, step: int) -> None:
    decoder = ChunkedDecoder()
    with pytest.raises(ResponseMalformed):
        for n in range(0, len(raw), step):
            decoder.feed(raw[n : n + step])
            assert not decoder.done


def _read(framing: object, *pieces: bytes) -> tuple[list[bytes], list[bool]]:
    """All of a body, and with what it gave its connection back."""
    source, ended = iter(pieces), list[bool]()
    response = StreamedResponse(
        200, [], framing, lambda size: next(source), ended.append, dated=True, sent=0, received=15  # type: ignore[arg-type]
    )  # fmt: skip
    try:
        return list(response), ended
    finally:
        response.close()


def test_the_first_piece_comes_before_anything_is_read() -> None:
    assert _read(LengthFraming(5, b""), b"hello") == ([b"", b"hello"], [True])
    assert _read(LengthFraming(5, b"he"), b"llo") == ([b"he", b"llo"], [True])


def test_a_connection_with_something_behind_the_body_is_not_kept() -> None:
    assert _read(LengthFraming(5, b"he"), b"lloHTTP/1.1 200 OK") == ([b"he", b"llo"], [False])
    assert _read(ChunkedFraming(b""), b"5\r\nhello\r\n0\r\n\r\nx") == ([b"", b"hello"], [False])


def test_a_body_that_ends_with_its_connection_is_not_kept() -> None:
    assert _read(CloseFraming(b"he"), b"llo", b"") == ([b"he", b"llo"], [False])


@pytest.mark.parametrize("framing", [lambda: LengthFraming(9, b"he"), lambda: ChunkedFraming(b"9\r\nhe")])
def test_a_body_that_breaks_off_raises_and_its_connection_is_closed(framing: object) -> None:
    source, ended = iter([b"l", b""]), list[bool]()
    response = StreamedResponse(
        200, [], framing(), lambda size: next(source), ended.append, dated=True, sent=0, received=15  # type: ignore[operator]
    )  # fmt: skip
    got = []
    with pytest.raises(BodyTruncated):
        got.extend(piece for piece in response)
    response.close()
    response.close()
    assert ended == [False]


def test_received_counts_the_status_line_and_the_body() -> None:
    source = iter([b"llo"])
    response = StreamedResponse(
        200, [], LengthFraming(5, b"he"), lambda size: next(source), lambda clean: None, dated=True, sent=0, received=15
    )
    assert b"".join(response) == b"hello"
    assert response.received == 20


def test_reading_grows_while_the_origin_keeps_up() -> None:
    sizes: list[int] = []

    def read(size: int) -> bytes:
        sizes.append(size)
        return b"x" * (size if len(sizes) < 5 else 1)

    response = StreamedResponse(
        200, [], LengthFraming(10**6, b""), read, lambda clean: None, dated=True, sent=0, received=0
    )
    pieces = iter(response)
    for _ in range(7):
        next(pieces)
    assert sizes == [65536, 131072, 262144, 262144, 262144, 262144]
