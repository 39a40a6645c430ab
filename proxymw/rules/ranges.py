"""Byte ranges (RFC 9110 section 14): which parts of a file a ``Range`` field asks for, within Apache's limits."""

from __future__ import annotations

import re
from typing import NamedTuple

#: Apache's MaxRanges, MaxRangeOverlaps, MaxRangeReversals. Over any of them the whole file is sent.
MAX_RANGES, MAX_OVERLAPS, MAX_REVERSALS = 200, 20, 20

_SPEC = re.compile(r"([0-9]*)-([0-9]*)\Z")
_BYTES = "bytes="
_FAR = 2**63 - 1


class Limits(NamedTuple):
    """MaxRanges, MaxRangeOverlaps, MaxRangeReversals; ``ranges=0`` is MaxRanges none: Range is ignored."""

    ranges: int = MAX_RANGES
    overlaps: int = MAX_OVERLAPS
    reversals: int = MAX_REVERSALS


class Span(NamedTuple):
    """Bytes ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    def content_range(self, length: int) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{length}"


DEFAULT_LIMITS = Limits()


def select(field: str, length: int, limits: Limits = DEFAULT_LIMITS, *, apache: bool = False) -> list[Span] | None:
    """The spans that ``Range: field`` asks for of ``length`` bytes.

    None: send everything (200), the field is malformed, of another unit, over a limit, or of no use. Empty: nothing
    of it can be satisfied (416). Each range that touches the one before it is joined to it; the order stays as asked.
    In the ``apache`` dialect a blank makes the field malformed, an empty element ends it, and ``0-`` means everything.
    """
    if not limits.ranges or not length or field[: len(_BYTES)].lower() != _BYTES:
        return None
    specs = field[len(_BYTES) :].split(",")
    asked: list[Span] = []
    for spec in specs:
        text = spec if apache else spec.strip(" \t")
        if not text:
            if apache:
                break
            continue
        if apache and text == "0-":
            return [Span(0, length)]
        span = _span(text, length, apache)
        if span is None:
            return None
        asked.append(span)
    if not asked:
        return None
    return _joined([span for span in asked if span.start < length], length, limits)


def _span(spec: str, length: int, apache: bool) -> Span | None:
    """One range, clipped to the end but not at its start; None when malformed."""
    found = _SPEC.match(spec)
    if found is None or spec == "-":
        return None
    first, last = (_number(text) for text in found.groups())
    if apache and max(first or 0, last or 0) > _FAR:
        return None
    if first is None:
        return Span(max(length - last, 0), length) if last else None
    if last is None:
        return Span(first, length)
    return Span(first, min(last + 1, length)) if first <= last else None


def _number(digits: str) -> int | None:
    """The number, or something as good where it is beyond any file."""
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 19 else _FAR + 1


def _joined(spans: list[Span], length: int, limits: Limits) -> list[Span] | None:
    overlaps = reversals = 0
    out: list[Span] = []
    for span in spans:
        before = out[-1] if out else None
        if before is None or span.start > before.stop or span.stop < before.start:
            out.append(span)
            continue
        overlaps += 1
        reversals += span.start < before.start
        out[-1] = Span(min(span.start, before.start), max(span.stop, before.stop))
    if len(out) > limits.ranges or overlaps > limits.overlaps or reversals > limits.reversals:
        return None
    if sum(span.stop - span.start for span in out) > length:
        return None
    return out


def part_heads(spans: list[Span], length: int, content_type: str, boundary: str) -> list[bytes]:
    """The head of each part of a ``multipart/byteranges`` body (RFC 9110 14.6), and last the closing delimiter."""
    kind = f"Content-Type: {content_type}\r\n" if content_type else ""
    heads = [
        f"\r\n--{boundary}\r\n{kind}Content-Range: {span.content_range(length)}\r\n\r\n".encode("latin-1")
        for span in spans
    ]
    return [*heads, f"\r\n--{boundary}--\r\n".encode("latin-1")]
