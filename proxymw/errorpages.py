"""ErrorPages: the operator's own pages for errors (ErrorDocument, ProxyErrorOverride)."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from proxymw.errors import ConfigError
from proxymw.exchange.behind import behind
from proxymw.exchange.inbound import answer
from proxymw.rules.headers import status_line
from proxymw.rules.options import mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from proxymw.rules.policy import Policy

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_URL = re.compile(r"https?://[^\x00-\x20\x7f]+", re.I)
# Headers of the error itself that go with the page that is shown for it.
_KEPT = frozenset({"allow", "retry-after", "www-authenticate", "proxy-authenticate", "proxy-status", "cache-control"})
_KEPT_BY_APACHE = frozenset({"allow", "www-authenticate", "proxy-authenticate"})
# What the page's own file says of itself is not said of the error.
_OF_THE_PAGE = frozenset({"etag", "last-modified", "accept-ranges", "content-range", "location", "cache-control"})
_NOT_OF_AN_ERROR = frozenset({"content-range", "location"})
# A page is asked for plainly: no conditions, no part of it, no body.
_NOT_ASKED = ("HTTP_RANGE", "HTTP_IF_RANGE", "HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE",
              "HTTP_IF_UNMODIFIED_SINCE", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "CONTENT_TYPE",
              "RAW_URI", "REQUEST_URI", "proxymw.route", "proxymw.checked", "proxymw.front")  # fmt: skip


class ErrorPages:
    """Show ``pages[status]`` instead of the plain page of an error.

    A page is a text (sent as HTML), a path (``/errors/404.html``, asked of ``app``) or an http(s) URL (a redirect). The
    status stays that of the error. Without ``override`` only errors that proxymw itself answers are touched; what an
    origin or application says is its own. ``override=True`` (ProxyErrorOverride) takes every status from 400, a list of
    statuses those, from whomever; where there is no page for one, a plain one is shown.

    For a page with a path, ``REDIRECT_STATUS`` and ``REDIRECT_URL`` tell the application which error and where; if that
    page fails itself, the plain one is shown. Under ``Policy.apache()`` a page keeps its own validators.
    """

    def __init__(
        self,
        app: WSGIApplication | None,
        pages: Mapping[int, str],
        *,
        override: bool | Iterable[int] = False,
        policy: Policy | None = None,
    ) -> None:
        self._apache = policy is not None and policy.static == "apache"
        for status, page in mapping("pages", pages, "statuses to pages").items():
            if not isinstance(status, int) or not 400 <= status <= 599:
                raise ConfigError(f"pages must be by status of 400 to 599, got {status!r}")
            if not isinstance(page, str) or not page:
                raise ConfigError(f"pages must be texts, paths or URLs, got {page!r} for {status}")
            if status == 401 and _URL.fullmatch(page):
                raise ConfigError(f"pages must not send a 401 elsewhere (no browser would ask who it is), got {page!r}")
        self.app = behind(app)
        self.pages = dict(pages)
        self.override = frozenset(range(400, 600)) if override is True else frozenset(override or ())
        for status in self.override:
            if not isinstance(status, int) or not 400 <= status <= 599:
                raise ConfigError(f"override must be True or statuses of 400 to 599, got {status!r}")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        as_it_came = dict(environ)
        watch = _Watch(self, environ, start_response)
        body = self.app(environ, watch)
        if not watch.called:
            body = watch.peek(body)
        if watch.held is None:
            return body
        _close(body)
        status, headers = watch.held
        return self._show(as_it_came, environ, start_response, status, headers)

    def concerns(self, status: int, *, ours: bool) -> bool:
        """Whether a response of this status is replaced; ``ours`` is whether proxymw itself answered it."""
        return status in self.override or (ours and status in self.pages)

    def _show(
        self,
        as_it_came: WSGIEnvironment,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        status: int,
        headers: list[tuple[str, str]],
    ) -> Iterable[bytes]:
        page = self.pages.get(status)
        names = _KEPT_BY_APACHE if self._apache else _KEPT
        kept = [(name, value) for name, value in headers if name.lower() in names and _goes_with(name, status)]
        if page is None:
            return answer(environ, start_response, status, headers=_without(kept, "cache-control"))
        if _URL.fullmatch(page):
            return answer(environ, start_response, 302, headers=[("Location", page)])
        if not page.startswith("/"):
            return _text(environ, start_response, status, kept, page, apache=self._apache)
        shown = self._ask(as_it_came, page, status)
        if shown is None:
            return answer(environ, start_response, status, headers=_without(kept, "cache-control"))
        fields, body = shown
        start_response(status_line(status), [*fields, *kept])
        return body

    def _ask(
        self, as_it_came: WSGIEnvironment, page: str, status: int
    ) -> tuple[list[tuple[str, str]], Iterable[bytes]] | None:
        """Headers and body of the page at a path, or None where it fails itself."""
        path, _, query = page.partition("?")
        inner = {key: value for key, value in as_it_came.items() if key not in _NOT_ASKED}
        inner.update(
            {
                "REQUEST_METHOD": "HEAD" if as_it_came["REQUEST_METHOD"] == "HEAD" else "GET",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_LENGTH": "",
                "wsgi.input": io.BytesIO(),
                "REDIRECT_STATUS": str(status),
                "REDIRECT_URL": as_it_came.get("SCRIPT_NAME", "") + as_it_came.get("PATH_INFO", ""),
                "REDIRECT_QUERY_STRING": as_it_came.get("QUERY_STRING", ""),
                "proxymw.own": [],
            }
        )
        got: list[tuple[str, list[tuple[str, str]]]] = []

        def hold(
            line: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            got[:] = [(line, headers)]
            return _discard

        body = self.app(inner, hold)
        if not got:
            body = _peeked(body)
        if not got or not got[0][0].startswith("2"):
            _close(body)
            return None
        dropped = _NOT_OF_AN_ERROR if self._apache else _OF_THE_PAGE
        return [(name, value) for name, value in got[0][1] if name.lower() not in dropped], body

    def __repr__(self) -> str:
        pages = ", ".join(map(str, sorted(self.pages)))
        return f"<ErrorPages {pages or 'none'}{' override' if self.override else ''} -> {self.app!r}>"


class _Watch:
    """A start_response that holds back a head that is going to be replaced, and passes on every other."""

    def __init__(self, pages: ErrorPages, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._pages, self._start = pages, start_response
        self._own: list[int] = environ.setdefault("proxymw.own", [])
        self.called = False
        self.held: tuple[int, list[tuple[str, str]]] | None = None

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        first, self.called = not self.called, True
        code = int(status[:3]) if status[:3].isdigit() else 0
        ours = bool(self._own) and self._own[-1] == code
        if (first or self.held is not None) and self._pages.concerns(code, ours=ours):
            self.held = code, headers
            return _discard
        self.held = None
        return self._start(status, headers) if exc_info is None else self._start(status, headers, exc_info)

    def peek(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """``body`` begun: an application may call start_response as late as with its first chunk."""
        return _peeked(body)


class _Peeked:
    """A body of which the first chunk was taken to see its head."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body, self._rest = body, iter(body)
        self._first: list[bytes] = []
        for chunk in self._rest:
            self._first.append(chunk)
            break

    def __iter__(self) -> Iterator[bytes]:
        yield from self._first
        yield from self._rest

    def close(self) -> None:
        _close(self._body)


def _peeked(body: Iterable[bytes]) -> Iterable[bytes]:
    try:
        return _Peeked(body)
    except BaseException:
        _close(body)
        raise


def _discard(data: bytes) -> None:
    """The ``write`` of a head that is not sent."""


def _close(body: Any) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _goes_with(name: str, status: int) -> bool:
    """A challenge belongs to the status that it is a challenge of."""
    return not name.lower().endswith("-authenticate") or status in (401, 407)


def _without(headers: list[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    return [pair for pair in headers if pair[0].lower() != name]


def _text(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: int,
    kept: list[tuple[str, str]],
    page: str,
    *,
    apache: bool,
) -> list[bytes]:
    body = page.encode("utf-8", "surrogateescape")
    charset = "iso-8859-1" if apache and page.isascii() else "utf-8"
    fields = [*kept, ("Content-Type", f"text/html; charset={charset}"), ("Content-Length", str(len(body)))]
    if not apache:
        fields.append(("X-Content-Type-Options", "nosniff"))
    start_response(status_line(status), fields)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
