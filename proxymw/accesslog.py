"""AccessLog: CustomLog and ErrorLog for whatever is behind it."""

from __future__ import annotations

import io
import logging
import os
import re
import threading
import time
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol

from proxymw.errors import ConfigError
from proxymw.exchange.behind import behind
from proxymw.rules.hosts import split_authority
from proxymw.rules.logline import NAMED, JSONFormat, LogEntry, LogFormat, log_format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_log = logging.getLogger("proxymw.access")


class AccessLog:
    """Log every request that ``app`` answers, when its body has ended, with the bytes that were sent.

    ``log`` is a path, or a stream with ``write`` (text or binary). A path is opened on the first line, in append mode;
    each line is one write, so that several workers can share a file, and a file that was moved away or removed is
    opened anew at once (logrotate needs no signal). A line that cannot be written is lost with one warning;
    the request is not.

    ``errors`` (a path or a text stream) becomes ``wsgi.errors`` for what is behind: ErrorLog. ``format`` is
    ``combined``, ``common``, ``vhost_combined``, ``vhost_common``, ``json`` or any LogFormat string.
    ``when(environ, status)`` decides whether a request is logged (``CustomLog ... env=``, ``expr=``). ``server_name``
    is what ``%v`` shows; otherwise the name that VirtualHosts chose by, or the server's.

    A response made with ``wsgi.file_wrapper`` stays one, so that the server can still use sendfile.
    """

    def __init__(
        self,
        app: WSGIApplication | None,
        log: str | os.PathLike[str] | Any,
        *,
        errors: str | os.PathLike[str] | Any = None,
        format: str | LogFormat | JSONFormat = "combined",
        when: Callable[[WSGIEnvironment, int], bool] | None = None,
        server_name: str = "",
    ) -> None:
        self.app = behind(app)
        if isinstance(format, str) and "%" not in format and format not in (*NAMED, "json"):
            raise ConfigError(f"format must be {', '.join(NAMED)}, json or a LogFormat string, got {format!r}")
        self.format = log_format(format) if isinstance(format, str) else format
        if not callable(getattr(self.format, "line", None)):
            raise ConfigError(f"format must be a format name or LogFormat string, got {format!r}")
        if when is not None and not callable(when):
            raise ConfigError(f"when must be a callable of (environ, status), got {when!r}")
        self._sink = _sink(log, "log")
        self._errors = None if errors is None else _sink(errors, "errors")
        self._when, self._server_name = when, server_name

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.around(self.app, environ, start_response)

    def around(self, app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer with ``app`` instead of the one behind, logged all the same, also by an AccessLog behind this one."""
        if app is not self.app and isinstance(self.app, AccessLog):
            app = partial(self.app.around, app)
        record = _Record(self, environ, start_response)
        if self._errors is not None:
            environ["wsgi.errors"] = record.errors = _ErrorLines(self._errors)
        try:
            body = app(environ, record.start)
        except BaseException:
            record.failed()
            raise
        return record.watch(body)

    def __repr__(self) -> str:
        return f"<AccessLog {self._sink.name} -> {self.app!r}>"


# --- one request ---


class _Record:
    """What one request adds up to; ``finish`` writes the line, once."""

    __slots__ = (
        "_begin", "_clock", "_done", "_environ", "_log", "_path", "_query", "_start", "_target",
        "complete", "errors", "headers", "sent", "started_body", "status",
    )  # fmt: skip

    def __init__(self, log: AccessLog, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._log, self._environ, self._start = log, environ, start_response
        self._begin, self._clock = time.time(), time.monotonic()
        # Skins behind may rewrite the path: what is logged is what came in.
        self._path, self._query = environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", "")
        self._target = _PASSWORD.sub(r"\1XXXXXXXX@", environ.get("RAW_URI") or environ.get("REQUEST_URI") or "")
        self.status, self.sent, self.headers = "", 0, _NO_HEADERS
        self.complete, self.started_body, self._done = True, False, False
        self.errors: _ErrorLines | None = None

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        # The server first: it raises when the head is already out, and then the old status is the one that was sent.
        if exc_info is None:
            write = self._start(status, headers)
        else:
            write = self._start(status, headers, exc_info)
        self.status, self.headers = status, headers

        def counted(data: bytes) -> object:
            result = write(data)
            self.count(data)
            return result

        return counted

    def count(self, data: bytes) -> None:
        if data:
            self.started_body = True
            self.sent += len(data)

    def failed(self) -> None:
        """The application raised: the server answers 500 unless the head is already out."""
        if not self.started_body:
            self.status, self.headers = "500 Internal Server Error", _NO_HEADERS
        self.finish()

    def watch(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """``body``, arranged so that its end is seen; a file wrapper stays the server's own object."""
        wrapper = self._environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper) and self._hook(body):
            return body
        return _CountedOfKnownLength(self, body) if hasattr(body, "__len__") else _Counted(self, body)

    def _hook(self, body: Any) -> bool:
        close, start = getattr(body, "close", None), _position(body)

        def closing() -> None:
            # sendfile leaves no trace but the file position, and on success the server puts that back.
            moved = max(_position(body) - start, 0)
            length = self._length(body, start)
            self.sent = length if not moved or (self._declared() is not None and moved > length) else moved
            try:
                if close is not None:
                    close()
            finally:
                self.finish()

        try:
            body.close = closing
        except (AttributeError, TypeError):
            return False  # a wrapper written in C: counted chunk by chunk, without sendfile
        return True

    def _declared(self) -> int | None:
        for name, value in self.headers:
            if name.lower() == "content-length" and value.isdigit():
                return int(value)
        return None

    def _length(self, body: Any, start: int) -> int:
        declared = self._declared()
        if declared is not None:
            return declared
        try:
            return max(os.fstat(body.filelike.fileno()).st_size - start, 0)
        except (AttributeError, OSError, ValueError):
            return 0

    def finish(self) -> None:
        if self._done:
            return
        self._done = True
        # A log never costs a request: whatever goes wrong here is said and forgotten.
        try:
            if self.errors is not None:
                self.errors.finish()
            log, status = self._log, _code(self.status)
            if log._when is None or log._when(self._environ, status):
                log._sink.write(log.format.line(self.entry(status)) + "\n")
        except Exception:  # a line that cannot be written costs a line, never a request
            _log.exception("event=access_log_failed log=%s", self._log._sink.name)

    def entry(self, status: int) -> LogEntry:
        environ, seconds = self._environ, time.monotonic() - self._clock
        method, protocol = environ.get("REQUEST_METHOD", ""), environ.get("SERVER_PROTOCOL", "")
        target = self._target or _quoted(environ.get("SCRIPT_NAME", "") + self._path, self._query)
        if method == "HEAD" or status in (204, 304):
            self.sent = 0
        measured = self._log.format.measures
        scheme, local_port = environ.get("wsgi.url_scheme", "http"), environ.get("SERVER_PORT", "")
        host, port = split_authority(environ.get("HTTP_HOST", "")) or ("", "")
        client = environ.get("REMOTE_ADDR", "")
        return LogEntry(
            method=method,
            target=target,
            path=environ.get("SCRIPT_NAME", "") + self._path,
            query=self._query,
            protocol=protocol,
            status=status,
            begin=_local(int(self._begin)),
            micros=int(self._begin % 1 * 1_000_000),
            seconds=seconds,
            sent=self.sent,
            head_sent=_head_length(protocol, self.status, self.headers) if measured else 0,
            received=_received(environ, method, target, protocol) if measured else 0,
            client=client,
            peer=str(environ.get("proxymw.peer", client)),
            user=environ.get("REMOTE_USER"),
            host=host,
            server_name=self._log._server_name or environ.get("proxymw.server_name") or environ.get("SERVER_NAME", ""),
            port=port or ("443" if scheme == "https" else "80"),
            local_port=local_port,
            local_address=environ.get("SERVER_ADDR") or environ.get("SERVER_NAME", ""),
            remote_port=environ.get("REMOTE_PORT", ""),
            scheme=scheme,
            filename=environ.get("proxymw.filename"),
            complete=self.complete,
            keepalive=protocol != "HTTP/1.0" and "close" not in environ.get("HTTP_CONNECTION", "").lower(),
            pid=os.getpid(),
            thread=threading.get_native_id(),
            request_headers=_RequestHeaders(environ),
            response_headers=self.headers,
            env=_Variables(environ),
            notes=_Notes(environ),
        )


# A password in an absolute-form target is for nobody to read.
_PASSWORD = re.compile(r"^([a-z][a-z0-9+.-]*://[^/?#@:]*:)[^/?#@]*@", re.I)
_NO_HEADERS: list[tuple[str, str]] = []
_STATUS = re.compile(r"[0-9]{3}(?![0-9])")


@lru_cache(8)
def _local(second: int) -> datetime:
    return datetime.fromtimestamp(second).astimezone()


def _code(status: str) -> int:
    """The number of a status line; 500 where the application never gave one (the server then answers that)."""
    found = _STATUS.match(status)
    return int(found[0]) if found else 500


def _position(body: Any) -> int:
    try:
        return int(body.filelike.tell())
    except (AttributeError, OSError, ValueError):
        return 0


class _Counted:
    """A body that counts what it gives out, and says when it was closed."""

    __slots__ = ("_body", "_next", "_record")

    def __init__(self, record: _Record, body: Iterable[bytes]) -> None:
        self._record, self._body = record, body
        self._next: Iterator[bytes] | None = None

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> bytes:
        record = self._record
        try:
            if self._next is None:
                record.complete = False
                self._next = iter(self._body)
            chunk = next(self._next)
        except StopIteration:
            record.complete = True
            raise
        except BaseException:
            # The line is written by close(); a server that forgets close() after a failure still gets it here.
            record.failed()
            raise
        record.count(chunk)
        return chunk

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._record.finish()


class _CountedOfKnownLength(_Counted):
    """The same for a list: servers that find ``len(body) == 1`` know the Content-Length."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]


def _quoted(path: str, query: str) -> str:
    from urllib.parse import quote

    quoted = quote(path or "/", safe="/!$&'()*+,;=:@-._~", encoding="latin-1")
    return f"{quoted}?{query}" if query else quoted


def _received(environ: WSGIEnvironment, method: str, target: str, protocol: str) -> int:
    """The size of the request: a header's name is as long as its key, so the head can be added up."""
    total = len(method) + len(target) + len(protocol) + 6
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            total += len(key) - 5 + len(value) + 4
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            total += len(key) + len(value) + 4
    length = environ.get("CONTENT_LENGTH") or "0"
    return total + (int(length) if length.isdigit() else 0)


def _head_length(protocol: str, status: str, headers: list[tuple[str, str]]) -> int:
    """The size of the head as we gave it to the server, which adds lines of its own (Date, Server, Connection)."""
    return len(protocol) + len(status) + 5 + sum(len(name) + len(value) + 4 for name, value in headers)


class _RequestHeaders:
    """Request headers of an environ by lower-case name."""

    __slots__ = ("_environ",)

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ

    def get(self, name: str, /) -> Any:
        key = name.upper().replace("-", "_")
        return self._environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")


class _Variables:
    """Environment variables: those that rules set, else plain texts of the environ."""

    __slots__ = ("_environ",)

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ

    def get(self, name: str, /) -> Any:
        value = self._environ.get(name)
        return value if isinstance(value, str) else None


class _Notes:
    """Our own ``proxymw.*`` keys, by what follows the dot."""

    __slots__ = ("_environ",)

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ

    def get(self, name: str, /) -> Any:
        return self._environ.get(f"proxymw.{name}")


# --- where lines go ---


class _Sink(Protocol):
    name: str

    def write(self, text: str) -> None: ...


def _sink(target: Any, name: str) -> _Sink:
    if isinstance(target, (str, os.PathLike)) and os.fspath(target):
        return LogFile(target)
    if callable(getattr(target, "write", None)):
        return _Stream(target)
    raise ConfigError(f"{name} must be a path or an object with write(), got {target!r}")


class LogFile:
    """A file that lines are appended to, by any number of threads and processes, for years.

    The parent directory is made when it is missing. Each line goes to the file that the path names at that moment, so
    that a rotation needs no signal and loses nothing; asking costs a microsecond.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # A server may change its directory between configuration and the first request.
        self.name = os.path.abspath(os.fspath(path))
        self._lock = threading.Lock()
        self._file: int | None = None
        self._warned = self._torn = False

    def write(self, text: str) -> None:
        """Append ``text``. Raises nothing: what cannot be written is lost, with one warning until it works again."""
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            try:
                file = self._opened()
                if self._torn:
                    data = b"\n" + data
                written = os.write(file, data)
                self._torn = written < len(data)
                self._warned = False
            except OSError as error:
                if not self._warned:
                    _log.warning("event=log_lost file=%s error=%s", self.name, error)
                self._warned = True

    def _opened(self) -> int:
        """The descriptor to write to, opened anew when the path no longer means it."""
        if self._file is None or self._moved(self._file):
            try:
                fresh = self._open()
            except OSError:
                if self._file is None:
                    raise
                return self._file  # better in the file that was moved away than nowhere
            if self._file is not None:
                os.close(self._file)
            self._file = fresh
        return self._file

    def _moved(self, file: int) -> bool:
        try:
            there = os.stat(self.name)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # keep writing to what we have
        here = os.fstat(file)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _open(self) -> int:
        # Not blocking, for the sake of a fifo that nobody reads.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(self.name, flags, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.name), exist_ok=True)
            return os.open(self.name, flags, 0o644)

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = None


class _Stream:
    """An open stream of text or bytes, which stays the caller's."""

    def __init__(self, stream: Any) -> None:
        self.name = str(getattr(stream, "name", stream))
        self._stream = stream
        self._binary = isinstance(stream, (io.RawIOBase, io.BufferedIOBase)) or "b" in str(getattr(stream, "mode", ""))
        self._lock = threading.Lock()
        self._warned = False

    def write(self, text: str) -> None:
        try:
            with self._lock:
                self._stream.write(text.encode("utf-8", "backslashreplace") if self._binary else text)
                if callable(getattr(self._stream, "flush", None)):
                    self._stream.flush()
            self._warned = False
        except (OSError, ValueError) as error:
            if not self._warned:
                _log.warning("event=log_lost file=%s error=%s", self.name, error)
            self._warned = True


_CONTROLS = re.compile(r"[^\n\t -~\x80-\U0010ffff]")


class _ErrorLines:
    """``wsgi.errors`` of one request: whole lines go to the sink, so that requests do not mix within a line.

    Control characters are escaped; a client's text cannot move a reader's cursor.
    """

    __slots__ = ("_rest", "_sink")

    def __init__(self, sink: _Sink) -> None:
        self._sink, self._rest = sink, ""

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"text must be str, got {text!r}")
        lines, newline, rest = (self._rest + text).rpartition("\n")
        self._rest = rest
        if newline:
            self._sink.write(_CONTROLS.sub(_visible, lines) + "\n")
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Whole lines are out already; an unfinished one waits for its end."""

    def finish(self) -> None:
        if self._rest:
            self.write("\n")


def _visible(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"
