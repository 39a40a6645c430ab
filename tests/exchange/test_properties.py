"""What must hold for every input: against h11 where it knows better than we do, else against plain reasoning."""

from __future__ import annotations

import contextlib
from typing import Any

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from proxymw.errors import RequestRefused, UpstreamError
from proxymw.exchange.chunked import ChunkedDecoder
from proxymw.exchange.request import RequestWriter
from proxymw.exchange.response import LengthFraming, parse_head
from proxymw.rules.headers import HOP_BY_HOP
from proxymw.rules.origins import Origin
from proxymw.rules.policy import Policy
from tests.client import environ

TOKEN = st.text("abcXYZ019-_!#$%&'*+.^`|~", min_size=1, max_size=12)
VALUE = st.text(st.characters(max_codepoint=255), max_size=30)
CLEAN_VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30)
#: Pieces that matter in a head, so that chance finds what it would not letter by letter.
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *(b"HTTP/1.1 200 OK", b"HTTP/1.0 404 X", b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b": "),
                *(b"Content-Length", b"5", b"5, 5", b"+5", b"Transfer-Encoding", b"chunked", b"gzip", b"Connection"),
                *(b"close", b"X-A", b"\xe9", b"\x7f", b"\x0b", b"HTTP/1.1 103 E", b"Set-Cookie"),
            ]
        ),
        st.binary(max_size=4),
    ),
    max_size=24,
).map(b"".join)


@given(head=PIECES)
@settings(max_examples=400)
def test_a_head_is_parsed_or_refused_and_nothing_dangerous_comes_out(head: bytes) -> None:
    try:
        status, headers, length, chunked, *_ = parse_head(head)
    except UpstreamError:
        return
    assert 100 <= status <= 599
    assert not (chunked and length is not None)
    for name, value in headers:
        assert name.isascii()
        assert name.lower() not in HOP_BY_HOP
        assert not set(name) & set(" \t\r\n:\0")
        assert not set(value) & set("\r\n\0\x7f\x0b")
        assert value == value.strip(" \t")
    assert sum(name.lower() == "content-length" for name, _ in headers) == (length is not None)


@given(fields=st.lists(st.tuples(TOKEN, CLEAN_VALUE), max_size=8), status=st.integers(200, 599))
@settings(max_examples=200)
def test_good_heads_read_as_h11_reads_them(fields: list[tuple[str, str]], status: int) -> None:
    lines = [f"HTTP/1.1 {status} Fine", *(f"{name}: {value}" for name, value in fields)]
    raw = "\r\n".join(lines).encode("latin-1")
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    peer.receive_data(raw + b"\r\n\r\n")
    try:
        event: Any = peer.next_event()
    except h11.RemoteProtocolError:
        return  # h11 refuses some values that are only odd
    theirs = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
    if any(name in HOP_BY_HOP or name.startswith("x-") for name, _ in theirs):
        return
    ours = [(name.lower(), value) for name, value in parse_head(raw).headers]
    assert ours == theirs


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    step=st.integers(1, 60),
    behind=st.binary(max_size=5),
)
@settings(max_examples=200)
def test_chunks_come_out_as_they_went_in(chunks: list[bytes], step: int, behind: bytes) -> None:
    raw = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    decoder, out, stream = ChunkedDecoder(), b"", raw + behind
    for at in range(0, len(stream), step):
        if decoder.done:
            break
        out += decoder.feed(stream[at : at + step])
    assert decoder.done
    assert out == b"".join(chunks)
    assert behind.startswith(decoder.rest)


CHUNK_PIECES = st.one_of(
    st.sampled_from([b"5\r\n", b"hello", b"\r\n", b"0\r\n", b"\n", b"a", b";x", b"X: y\r\n", b"-"]),
    st.binary(max_size=3),
)


@given(
    raw=st.lists(CHUNK_PIECES, max_size=12).map(b"".join),
    step=st.integers(1, 9),
)
@settings(max_examples=300)
def test_chunks_mean_the_same_however_they_arrive(raw: bytes, step: int) -> None:
    def outcome(pieces: list[bytes]) -> tuple[bytes, str]:
        decoder, out = ChunkedDecoder(), b""
        for _at, piece in enumerate(pieces):
            try:
                out += decoder.feed(piece)
            except UpstreamError:
                return out, "refused"
            if decoder.done:
                return out, "done"
        return out, "more"

    together, apart = outcome([raw]), outcome([raw[at : at + step] for at in range(0, len(raw), step)])
    assert together[1] == apart[1]
    assert apart[0].startswith(together[0])
    if together[1] == "done":
        assert together[0] == apart[0]


@given(length=st.integers(0, 50), pieces=st.lists(st.binary(min_size=1, max_size=20), max_size=8))
def test_a_length_is_kept_exactly(length: int, pieces: list[bytes]) -> None:
    framing, out = LengthFraming(length, b""), b""
    for piece in pieces:
        if framing.done:
            break
        out += framing.feed(piece)
    whole = b"".join(pieces)
    assert out == whole[: len(out)]
    assert len(out) <= length
    assert framing.done == (len(out) == length)


@given(
    headers=st.lists(st.tuples(TOKEN, VALUE), max_size=8),
    target=st.text(st.characters(max_codepoint=300), max_size=20).map(lambda text: "/" + text),
    method=st.sampled_from(["GET", "POST", "get"]),
)
@settings(max_examples=300)
def test_an_origin_gets_one_well_formed_head_or_nothing(
    headers: list[tuple[str, str]], target: str, method: str
) -> None:
    made = environ("/", method=method)
    made.update({"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers})
    made.pop("HTTP_TRANSFER_ENCODING", None)
    with contextlib.suppress(RequestRefused):
        raw = RequestWriter(Policy.modern()).request(made, target).head(Origin.parse("http://app"))
        lines = raw[:-4].split(b"\r\n")
        assert raw.endswith(b"\r\n\r\n")
        assert lines[0].count(b" ") == 2
        if not raw.isascii():
            return  # h11 refuses some 8-bit values that RFC 9110 lets pass
        peer = h11.Connection(h11.SERVER)
        peer.receive_data(raw)
        event: Any = peer.next_event()
        assert event.target == lines[0].split(b" ")[1]
        assert [name for name, _ in event.headers].count(b"host") == 1
