"""Open files as the bodies of answers: whole, one range, or several; closed once, and cut visibly when they shrink."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .rules.ranges import Span

CHUNK: Final = 128 * 1024


class FileShrank(RuntimeError):
    """A file became shorter than its announced length while it was sent: the answer must look cut."""


class OpenFile:
    """An open file that is an answer's body: closed once, by the server or at the latest with the object."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def fileno(self) -> int:
        if self._fd is None:
            raise ValueError("the file is closed")
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, None
        close_fd(fd)

    __del__ = close


class FileSlice(OpenFile):
    """Some bytes of an open file, never more and never quietly less.

    An iterable, and a file for ``wsgi.file_wrapper``.
    """

    __slots__ = ("_left", "_stop")

    def __init__(self, fd: int, span: Span) -> None:
        super().__init__(fd)
        self._left = span.stop - span.start
        self._stop = span.stop
        if span.start:
            os.lseek(fd, span.start, os.SEEK_SET)

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        if not size:
            return b""
        data = os.read(self.fileno(), size)
        if not data:
            self._left = 0
            raise FileShrank
        self._left -= len(data)
        return data

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(CHUNK), b"")

    def close(self) -> None:
        # A server that sends the descriptor itself ends quietly at the end of a file that has become shorter.
        short = self._fd is not None and self._left and os.fstat(self._fd).st_size < self._stop
        super().close()
        if short:
            raise FileShrank

    def __del__(self) -> None:
        super().close()


class FileParts(OpenFile):
    """The body of a ``multipart/byteranges`` answer, read from an open file as it is sent."""

    __slots__ = ("_heads", "_spans")

    def __init__(self, fd: int, spans: list[Span], heads: list[bytes]) -> None:
        super().__init__(fd)
        self._spans, self._heads = spans, heads

    def __iter__(self) -> Iterator[bytes]:
        for head, (at, stop) in zip(self._heads, self._spans, strict=False):
            yield head
            while at < stop:
                data = os.pread(self.fileno(), min(CHUNK, stop - at), at)
                if not data:
                    raise FileShrank
                at += len(data)
                yield data
        yield self._heads[-1]


def close_fd(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
