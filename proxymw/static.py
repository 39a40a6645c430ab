"""Files below a folder, or else the application behind: Apache's DocumentRoot, and its ``!-f`` idiom."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, replace
from errno import ENAMETOOLONG
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Final, Literal

from . import staticoptions as options
from .errors import RequestRefused
from .exchange.behind import behind
from .exchange.inbound import answer, inbound, public_url, refuse
from .filebody import CHUNK, FileParts, FileSlice, close_fd
from .files import FileTree, Symlinks, status_of
from .rules.conditional import Preconditions, evaluate, http_date, range_applies
from .rules.encodings import preferred
from .rules.headers import HeaderList, header_value, status_line
from .rules.options import check_count, flag
from .rules.policy import Policy, as_policy
from .rules.ranges import DEFAULT_LIMITS, Limits, Span, part_heads, select
from .staticoptions import ESCAPES, SUFFIXES, PathTest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from re import Pattern

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .rules.mediatypes import MediaTypes

#: Files up to this size are answered from memory; larger ones are never read in Python where the server can send them.
_SMALL: Final = 64 * 1024
_MOST_KEPT: Final = 4096
_CONDITIONS: Final = (
    "HTTP_IF_MATCH",
    "HTTP_IF_UNMODIFIED_SINCE",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_RANGE",
    "HTTP_RANGE",
)
_QUERY_ESCAPES: Final = {code: f"%{code:02x}" for code in (*range(33), *range(127, 256))}
# RFC 9110 8.3 to 8.6 and 15.4.5: what describes a body is not sent without one.
_OF_BODY: Final = frozenset({"content-type", "content-length", "content-encoding"})

# Methods httpd knows; it answers 405 to these and 501 to any other.
_KNOWN: Final = frozenset(
    "PUT DELETE PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK VERSION-CONTROL CHECKOUT UNCHECKOUT CHECKIN"  # noqa: SIM905
    " UPDATE LABEL REPORT MKWORKSPACE MKACTIVITY BASELINE-CONTROL MERGE".split()
)
_APACHE_ALLOW: Final = "GET, HEAD, OPTIONS, POST"


@dataclass(frozen=True, slots=True)
class Found:
    """What a path is here: a ``file`` to serve, a folder to ``redirect`` to its slash, or something that is answered at
    once, ``denied`` (403) or ``busy`` (503: out of file descriptors). ``name`` is the path below the root."""

    kind: Literal["file", "redirect", "denied", "busy"]
    name: str


class StaticOrPass:
    """Serve a regular file below ``root`` for GET and HEAD, else call ``app`` (None: 404, and 405 to other methods).

    With ``index=()`` it is ``RewriteCond %{REQUEST_FILENAME} !-f``: folders pass, ``/`` included. With
    ``index=("index.html",)`` it is a DocumentRoot: a folder with an index is that file, after a 301 to its slash
    (``slash_redirect``, DirectorySlash). The disk is asked on each request, so new, changed and removed files are
    seen at once. A file that exists but cannot be read is 403, never passed on.

    - ``prefix``: the URL path that stands for the root (Alias).
    - ``symlinks``, ``dotfiles``: see ``FileTree``. Default: links that stay inside the root, no dotfiles.
    - ``mimetypes``: ``{".ext": "type/subtype"}`` beside the shipped table (AddType), or a ``MediaTypes``;
      ``charset`` of text types, empty for none (AddDefaultCharset).
    - ``etag``: FileETag, of "inode", "mtime", "size"; empty for none. ``ranges``: MaxRanges and its kin.
    - ``precompressed``: True, or some of "br", "zstd", "gzip" in order of preference: a sibling ``file.br`` that is
      not older than ``file`` is sent to a client that names the coding.
    - ``cache_control``: ``[(glob, value), ...]``, first match, or a function of the path below the root; then
      ``immutable`` (True: names holding a hex digest; or globs, a compiled pattern, a function of the path): a year;
      then ``max_age`` in seconds. ``*`` in a glob matches slashes too. ``headers``: pairs, or a function of the path
      giving pairs, sent with 304, 412 and 416 also. The functions are called once per version of a file.
    - ``offload``: "X-Sendfile", or ("X-Accel-Redirect", "/internal/"): name the file for the server in front to send.
    - ``memory``: bytes of small files kept, each validated by a stat on every request; 0 keeps none of them.

    The ``policy`` chooses between RFC 9110 and Apache's conditionals, ranges, redirects and names.
    """

    def __init__(
        self,
        app: WSGIApplication | None,
        root: str | os.PathLike[str],
        *,
        index: Iterable[str] = (),
        prefix: str = "/",
        slash_redirect: bool = True,
        symlinks: Symlinks = "inside",
        dotfiles: bool | None = None,
        mimetypes: Mapping[str, str] | MediaTypes | None = None,
        charset: str | None = None,
        etag: Iterable[str] = ("mtime", "size"),
        ranges: Limits = DEFAULT_LIMITS,
        precompressed: bool | Iterable[str] = False,
        cache_control: Iterable[tuple[str, str]] | Callable[[str], str | None] = (),
        immutable: bool | Iterable[str] | Pattern[str] | PathTest = False,
        max_age: int | None = None,
        headers: Iterable[tuple[str, str]] | Callable[[str], Iterable[tuple[str, str]]] = (),
        offload: str | tuple[str, str] | None = None,
        memory: int = 16 * 1024 * 1024,
        policy: Policy | None = None,
    ) -> None:
        self.policy = as_policy(policy)
        self._apache = self.policy.static == "apache"
        self._alone = app is None
        self.app = behind(app)
        self.root = options.root_option(root)
        self.index = options.file_names_option(index)
        self.prefix = options.url_prefix_option(prefix)
        self._slash_redirect = flag("slash_redirect", slash_redirect)
        if dotfiles is None:
            dotfiles = self._apache
        self._tree = FileTree(self.root, symlinks=symlinks, dotfiles=dotfiles, aliases=self._apache)
        self._types = options.media_types_option(mimetypes, charset, self._apache)
        self._etag = options.etag_parts_option(etag)
        self._limits = options.range_limits_option(ranges)
        self._codings = options.codings_option(precompressed)
        self._cache_rules = options.cache_rules_option(cache_control, immutable, max_age)
        self._extra = options.extra_headers_option(headers)
        self._offload = options.offload_option(offload)
        self._shelf = _Shelf(memory)

    def __repr__(self) -> str:
        behind = "" if self._alone else f", or {self.app!r}"
        return f"<StaticOrPass {self.prefix} from {self.root}{behind}>"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            path = inbound(environ, self.policy).path
        except RequestRefused as refused:
            if "proxymw.checked" not in environ or (self._alone and self._apache):
                return refuse(environ, start_response, refused)
            return self.app(environ, start_response)  # such a path is no file
        method = environ["REQUEST_METHOD"]
        if method != "GET" and method != "HEAD" and not self._alone:
            return self.app(environ, start_response)
        status, name, entry = self._look(path)
        if status == 200 and entry is not None:
            if method == "GET" or method == "HEAD" or (method == "POST" and self._apache):
                return self._serve(environ, start_response, name, entry)
            return self._other_method(environ, start_response, method)
        if status == 301:
            return answer(environ, start_response, 301, headers=[("Location", self._slashed(environ, path))])
        if self._apache and self._alone and method not in ("GET", "HEAD", "POST"):
            return self._other_method(environ, start_response, method)
        if status == 0 or method == "POST":
            return self.app(environ, start_response)
        return self._fail(environ, start_response, status)

    def find(self, path: str) -> Found | None:
        """What the canonical ``path`` of a request is here; None where it is passed on. Nothing is opened."""
        status, name, _ = self._look(path)
        kinds: dict[int, Literal["file", "redirect", "denied", "busy"]] = {
            200: "file",
            301: "redirect",
            403: "denied",
            503: "busy",
        }
        return Found(kinds[status], name) if status else None

    # Finding: (200, name, stat) a file, 301 a folder without its slash, 403, 503, or 0 for nothing.

    def _look(self, path: str) -> tuple[int, str, os.stat_result | None]:
        if self.prefix == "/":
            name = path
        elif path.startswith(self.prefix):
            name = path[len(self.prefix) - 1 :]
        elif path == self.prefix[:-1]:
            name = ""
        else:
            return 0, "", None
        try:
            entry = self._tree.stat(name)
        except OSError as error:
            return self._missing(name, error), name, None
        except ValueError:
            return 0, name, None
        if S_ISREG(entry.st_mode):
            if name not in self._shelf.files and self._tree.hides(name):
                return self._refusal(), name, None
            return 200, name, entry
        if S_ISDIR(entry.st_mode) and self.index and not self._tree.hides(name):
            return self._folder(name)
        return self._refusal(), name, None

    def _folder(self, name: str) -> tuple[int, str, os.stat_result | None]:
        slashed = name.endswith("/")
        for candidate in self.index:
            inner = name + candidate if slashed else f"{name}/{candidate}"
            try:
                entry = self._tree.stat(inner)
            except OSError as error:
                status = status_of(error)
                if status == 503 or (status == 403 and self._alone):
                    return status, inner, None
                continue
            if S_ISREG(entry.st_mode) and not self._tree.hides(inner):
                if slashed:
                    return 200, inner, entry
                break
        else:
            # Without an index a folder is the application's business; Apache redirects to its slash all the same.
            if slashed or not self._apache:
                return self._refusal(), name, None
        return (301 if self._slash_redirect else self._refusal()), name, None

    def _refusal(self) -> int:
        """Something is there that is never served. Apache says so (403) where nothing else could answer."""
        return 403 if self._apache and self._alone else 0

    def _missing(self, name: str, error: OSError) -> int:
        status = status_of(error)
        if status == 503 or not self._alone:
            # Whether a file lies in a folder that may not be searched, nobody can tell: -f says no.
            return 503 if status == 503 else 0
        if status == 0 and self._apache and (error.errno == ENAMETOOLONG or self._tree.is_link(name)):
            return 403
        return status

    def _slashed(self, environ: WSGIEnvironment, path: str) -> str:
        """The URL of a folder with its slash; path-only, or absolute where the policy says so."""
        path = (environ.get("SCRIPT_NAME", "") + path).lstrip("/").translate(ESCAPES)
        query = environ.get("QUERY_STRING", "").translate(_QUERY_ESCAPES)
        location = f"/{path}/?{query}" if query else f"/{path}/"
        return location if self.policy.location == "path" else public_url(environ, self.policy) + location

    # Answering.

    def _serve(
        self, environ: WSGIEnvironment, start_response: StartResponse, name: str, entry: os.stat_result
    ) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        try:
            if self._codings:
                file, fd = self._negotiated(environ.get("HTTP_ACCEPT_ENCODING", ""), name, entry, method != "HEAD")
            else:
                file, fd = self._load(name, name, entry, method != "HEAD")
        except OSError as error:
            status = status_of(error) or self._refusal()
            if status:
                return self._fail(environ, start_response, status)
            return self.app(environ, start_response)
        for condition in _CONDITIONS:
            if condition in environ:
                return self._conditional(environ, start_response, file, fd)
        return self._whole(environ, start_response, file, fd)

    def _whole(
        self, environ: WSGIEnvironment, start_response: StartResponse, file: _File, fd: int | None
    ) -> Iterable[bytes]:
        start_response("200 OK", file.headers.copy())
        if environ["REQUEST_METHOD"] == "HEAD":
            return []  # nothing was opened for it
        if fd is None:
            return [file.body or b""]
        if self._offload:
            close_fd(fd)
            return []
        body = FileSlice(fd, Span(0, file.size))
        wrapper = environ.get("wsgi.file_wrapper")
        return wrapper(body, CHUNK) if wrapper else body

    def _conditional(
        self, environ: WSGIEnvironment, start_response: StartResponse, file: _File, fd: int | None
    ) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        conditions = Preconditions(*map(environ.get, _CONDITIONS))
        if method != "GET" and not self._apache:
            conditions = conditions._replace(range=None)  # RFC 9110 14.2
        now, apache = int(time.time()), self._apache
        verdict = evaluate(
            conditions, safe=method != "POST", etag=file.etag, modified=file.modified, now=now, apache=apache
        )
        if verdict != 200:
            close_fd(fd)
            start_response(status_line(verdict), file.bare + self._of_412(file) * (verdict == 412))
            return []
        if not range_applies(conditions, etag=file.etag, modified=file.modified, now=now, apache=apache):
            return self._whole(environ, start_response, file, fd)
        spans = select(conditions.range or "", file.size, self._limits, apache=apache)
        if spans is None or self._offload:
            return self._whole(environ, start_response, file, fd)
        if not spans:
            close_fd(fd)
            headers = _without(file.extra, "cache-control", "x-content-type-options")
            if not apache:
                headers += [("Accept-Ranges", "bytes"), ("Content-Range", f"bytes */{file.size}")]
            return answer(environ, start_response, 416, headers=headers)
        return _partial(method, start_response, file, fd, spans)

    def _other_method(self, environ: WSGIEnvironment, start_response: StartResponse, method: str) -> Iterable[bytes]:
        if not self._apache:
            status = 204 if method == "OPTIONS" else 405
            return answer(environ, start_response, status, allow="GET, HEAD, OPTIONS")
        if method == "OPTIONS":
            start_response("200 OK", [("Allow", _APACHE_ALLOW), ("Content-Length", "0"), *self._kind_of(environ)])
            return []
        return answer(environ, start_response, 405 if method in _KNOWN else 501, allow=_APACHE_ALLOW)

    def _of_412(self, file: _File) -> HeaderList:
        """What else a 412 says: that it is empty, and of which type the file would have been (as httpd does)."""
        kind = [("Content-Type", file.content_type)] if file.content_type else []
        return [("Content-Length", "0"), *kind]

    def _kind_of(self, environ: WSGIEnvironment) -> HeaderList:
        """The type of what the path means, which httpd tells in its answer to OPTIONS."""
        _, name, entry = self._look(inbound(environ, self.policy).path)
        if entry is None and name.endswith("/"):
            return [("Content-Type", "httpd/unix-directory")]
        kind = self._types.of(name) if entry is not None else ""
        return [("Content-Type", kind)] if kind else []

    def _fail(self, environ: WSGIEnvironment, start_response: StartResponse, status: int) -> Iterable[bytes]:
        return answer(environ, start_response, status, headers=[("Retry-After", "1")] if status == 503 else ())

    # Opening and describing.

    def _negotiated(self, accepted: str, name: str, entry: os.stat_result, wanted: bool) -> tuple[_File, int | None]:
        """The precompressed sibling that the client prefers, or the file itself; Vary where there is any sibling."""
        siblings: dict[str, os.stat_result] = {}
        for coding in self._codings:
            try:
                sibling = self._tree.stat(name + SUFFIXES[coding])
            except (OSError, ValueError):
                continue
            if S_ISREG(sibling.st_mode) and _as_new(sibling, entry):
                siblings[coding] = sibling
        if not siblings:
            return self._load(name, name, entry, wanted)
        for coding in preferred(accepted, self._codings):
            if coding in siblings:
                try:
                    return self._load(name, name + SUFFIXES[coding], siblings[coding], wanted, coding=coding, vary=True)
                except OSError:
                    continue  # not readable, or gone: the next best
        return self._load(name, name, entry, wanted, vary=True)

    def _load(
        self, name: str, stored: str, entry: os.stat_result, wanted: bool, *, coding: str = "", vary: bool = False
    ) -> tuple[_File, int | None]:
        """The description of a file, with its body or (``wanted``) an open descriptor. Raises OSError, also ENOENT for
        what is no regular file any more."""
        key = (name, coding) if vary else name
        kept = self._shelf.files.get(key)
        if kept is not None and kept.stamp == _stamp(entry):
            if kept.body is not None or not wanted:
                return kept, None
            # This very inode was found below the root before; opening it by name again needs no second walk.
            fd = self._tree.reopen(stored)
            if _stamp(os.fstat(fd)) == kept.stamp:
                return kept, fd
            os.close(fd)
        fd = self._tree.open(stored)
        try:
            entry = os.fstat(fd)
            if not S_ISREG(entry.st_mode):
                raise FileNotFoundError
            body = None if entry.st_size > _SMALL or self._offload else os.pread(fd, _SMALL + 1, 0)
            if body is not None and len(body) != entry.st_size:
                body = None  # it is changing under us: send what was announced, or a visible cut
            file = self._describe(name, stored, entry, coding, vary, body)
        except BaseException:
            os.close(fd)
            raise
        # Two changes within one tick of the file system's clock look like one: only a settled file is kept.
        if time.time() - max(entry.st_mtime, entry.st_ctime) > 1:
            self._shelf.put(key, file)
        if body is not None or not wanted:
            os.close(fd)
            return file, None
        return file, fd

    def _describe(
        self, name: str, stored: str, entry: os.stat_result, coding: str, vary: bool, body: bytes | None
    ) -> _File:
        now = time.time()
        modified = min(entry.st_mtime_ns // 1_000_000_000, int(now))  # RFC 9110 8.8.2.1: never in the future
        tag = self._entity_tag(entry, coding, weak=now - entry.st_mtime < 1)
        below = name[1:]
        extra = self._extra(below)
        kind = self._types.of(name)
        headers: HeaderList = [("Content-Type", kind)] if kind else []
        headers.append(("Content-Length", str(entry.st_size)))
        if coding:
            headers.append(("Content-Encoding", coding))
        headers.append(("Last-Modified", http_date(modified)))
        if tag:
            headers.append(("ETag", tag))
        headers.append(("Accept-Ranges", "bytes"))
        cache = self._cache_rules(below)
        if cache:
            headers.append(("Cache-Control", cache))
        if not self._apache:
            headers.append(("X-Content-Type-Options", "nosniff"))
        replaced = {key.lower() for key, _ in extra}
        headers = [pair for pair in headers if pair[0].lower() not in replaced] + extra
        if vary:
            headers.append(("Vary", "Accept-Encoding"))
            extra = [*extra, ("Vary", "Accept-Encoding")]
        bare = [pair for pair in headers if pair[0].lower() not in _OF_BODY]
        if self._offload:
            # The server in front measures the file itself, and would wait for a body of the length we name.
            headers = [*_without(headers, "content-length"), ("Content-Length", "0"), self._offload(self.root, stored)]
        kind, tag = header_value(headers, "content-type") or "", header_value(headers, "etag") or ""
        return _File(_stamp(entry), entry.st_size, tag, modified, kind, headers, bare, extra, body)

    def _entity_tag(self, entry: os.stat_result, coding: str, *, weak: bool) -> str:
        """Apache's format: hex of inode, size and microseconds. Weak while a second change could share its time."""
        values = {"inode": entry.st_ino, "size": entry.st_size, "mtime": entry.st_mtime_ns // 1000}
        parts = [f"{values[part] % 2**64:x}" for part in self._etag]
        if not parts:
            return ""
        return f'{"W/" if weak else ""}"{"-".join([*parts, coding] if coding else parts)}"'


@dataclass(frozen=True, slots=True)
class _File:
    """One version of a file (or of a precompressed sibling), ready to be answered with."""

    stamp: tuple[int, ...]
    size: int
    etag: str
    modified: int
    content_type: str
    headers: HeaderList  # of a 200
    bare: HeaderList  # of a 304 or 412
    extra: HeaderList  # what goes with a 416 too
    body: bytes | None


class _Shelf:
    """Descriptions of files, the small ones with their bodies; bounded, the oldest goes first."""

    def __init__(self, memory: int) -> None:
        self.files: dict[str | tuple[str, str], _File] = {}
        self._memory = check_count("memory", memory, optional=False) or 0
        self._used = 0
        self._lock = threading.Lock()

    def put(self, key: str | tuple[str, str], file: _File) -> None:
        if file.body is not None and len(file.body) > self._memory:
            file = replace(file, body=None)
        size = len(file.body or b"")
        with self._lock:
            self._drop(key)
            while self.files and (self._used + size > self._memory or len(self.files) >= _MOST_KEPT):
                self._drop(next(iter(self.files)))
            self.files[key] = file
            self._used += size

    def _drop(self, key: str | tuple[str, str]) -> None:
        gone = self.files.pop(key, None)
        if gone is not None:
            self._used -= len(gone.body or b"")


def _partial(
    method: str, start_response: StartResponse, file: _File, fd: int | None, spans: list[Span]
) -> Iterable[bytes]:
    """206: one range as it is, several as multipart/byteranges (RFC 9110 15.3.7)."""
    body = file.body
    if len(spans) == 1:
        span = spans[0]
        own = [("Content-Length", str(span.stop - span.start)), ("Content-Range", span.content_range(file.size))]
        start_response("206 Partial Content", _without(file.headers, "content-length") + own)
        if method == "HEAD":
            close_fd(fd)
            return []
        return [body[span.start : span.stop]] if body is not None else FileSlice(_opened(fd), span)
    boundary = os.urandom(12).hex()
    heads = part_heads(spans, file.size, file.content_type, boundary)
    total = sum(map(len, heads)) + sum(span.stop - span.start for span in spans)
    own = [("Content-Length", str(total)), ("Content-Type", f"multipart/byteranges; boundary={boundary}")]
    start_response("206 Partial Content", _without(file.headers, "content-length", "content-type") + own)
    if method == "HEAD":
        close_fd(fd)
        return []
    if body is None:
        return FileParts(_opened(fd), spans, heads)
    parts = (part for head, span in zip(heads, spans, strict=False) for part in (head, body[span.start : span.stop]))
    return [b"".join([*parts, heads[-1]])]


def _without(headers: HeaderList, *names: str) -> HeaderList:
    return [pair for pair in headers if pair[0].lower() not in names]


def _opened(fd: int | None) -> int:
    assert fd is not None, "a file that is not in memory is open"
    return fd


def _stamp(entry: os.stat_result) -> tuple[int, ...]:
    """What changes with every change of a file: its times, size and identity; mode and owner by way of ctime."""
    return entry.st_mtime_ns, entry.st_ctime_ns, entry.st_size, entry.st_ino, entry.st_dev


def _as_new(sibling: os.stat_result, entry: os.stat_result) -> bool:
    """A compressed sibling older than the file belongs to a former version of it.

    Some tools copy the time without its fraction of a second.
    """
    if sibling.st_mtime_ns % 1_000_000_000 == 0:
        return sibling.st_mtime_ns >= entry.st_mtime_ns // 1_000_000_000 * 1_000_000_000
    return sibling.st_mtime_ns >= entry.st_mtime_ns
