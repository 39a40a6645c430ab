"""What a request must be before anything is decided about it, and the fixed answers when it is not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from proxymw.errors import RequestRefused
from proxymw.rules.headers import is_length, is_token, status_line
from proxymw.rules.hosts import split_authority
from proxymw.rules.paths import RoutePath, route_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from proxymw.rules.policy import Policy

#: What is answered to a method that is never forwarded.
ALLOW: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

_USUAL_METHODS: Final = frozenset(ALLOW.split(", "))
_TARGET: Final = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<rest>[/?].*)?", re.I | re.S).fullmatch
_ANY_TARGET: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]*)", re.I).match
# Host fields that were found good; full, it stays as it is.
_good_hosts: set[str | None] = set()
_GOOD_HOSTS_MOST: Final = 1024


def inbound(environ: WSGIEnvironment, policy: Policy) -> RoutePath:
    """Check the request's head, once, and give its canonical path.

    The path is kept in ``environ["proxymw.route"]`` and worked out again where PATH_INFO or SCRIPT_NAME has changed.
    Raises ``RequestRefused``.
    """
    path_info, script_name = environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", "")
    kept = environ.get("proxymw.route")
    if kept is not None and kept[0] == path_info and kept[1] == script_name and kept[2] is policy:
        return kept[3]  # type: ignore[no-any-return]
    check(environ, policy)
    route = route_path(path_info, script_name, raw_target(environ), policy=policy)
    environ["proxymw.route"] = (path_info, script_name, policy, route)
    return route


def raw_target(environ: WSGIEnvironment) -> str | None:
    """The request-target as the client sent it, from a server that gives it: RAW_URI, or REQUEST_URI."""
    return environ.get("RAW_URI") or environ.get("REQUEST_URI")


def public_url(environ: WSGIEnvironment, policy: Policy) -> str:
    """``scheme://host[:port]`` by which the client knows us: its Host in lower case, a default port left out.

    Or the policy's ``canonical`` name, where it has one.
    """
    scheme = environ.get("wsgi.url_scheme", "http")
    host = policy.canonical or environ.get("HTTP_HOST") or policy.server_name or environ.get("SERVER_NAME", "")
    name, port = split_authority(host) or (host.lower(), "")
    return f"{scheme}://{name}" if port in ("", "443" if scheme == "https" else "80") else f"{scheme}://{name}:{port}"


def check(environ: WSGIEnvironment, policy: Policy) -> None:
    """Refuse a head that cannot be trusted, whatever its path: method, Host, framing, expectation, form of the target.

    Once per request. What the server should have refused is refused here again: servers differ. The caps on size and
    the control characters of fields are checked where a head is written to an origin. Raises ``RequestRefused``.
    """
    if "proxymw.checked" in environ:
        return
    if environ["REQUEST_METHOD"] not in _USUAL_METHODS:
        _check_method(environ["REQUEST_METHOD"])
    host = environ.get("HTTP_HOST")
    if host not in _good_hosts:
        _check_host(host, environ)
    if environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ:
        _check_framing(environ)
    if "HTTP_EXPECT" in environ and environ["HTTP_EXPECT"].lower() != "100-continue":
        raise RequestRefused(417, "unknown_expectation")
    target = raw_target(environ)
    if target is not None and (target[:1] != "/" or "#" in target):
        _check_target(target, host, environ, policy)
    environ["proxymw.checked"] = True


def _check_method(method: str) -> None:
    if method == "CONNECT":
        raise RequestRefused(501, "connect_refused")
    if method == "TRACE":
        raise RequestRefused(405, "trace_refused", (("Allow", ALLOW),))
    if not is_token(method) or len(method) > 64:
        raise RequestRefused(400, "bad_method")


def _check_host(host: str | None, environ: WSGIEnvironment) -> None:
    """RFC 9112 3.2: exactly one valid Host in HTTP/1.1 and later; a server joins two with a comma."""
    if host is None:
        if environ.get("SERVER_PROTOCOL") in ("HTTP/1.0", "HTTP/0.9"):
            return
        raise RequestRefused(400, "no_host")
    if split_authority(host) is None:
        raise RequestRefused(400, "bad_host")
    if len(_good_hosts) < _GOOD_HOSTS_MOST:
        _good_hosts.add(host)


def _check_framing(environ: WSGIEnvironment) -> None:
    """RFC 9112 6.1 and 6.3: one length in digits, or chunked alone."""
    length = environ.get("CONTENT_LENGTH")
    if length and not is_length(length):
        raise RequestRefused(400, "bad_content_length")
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is None:
        return
    if length:
        raise RequestRefused(400, "length_with_chunked")
    if coding.strip(" \t").lower() != "chunked":
        raise RequestRefused(501, "unknown_transfer_coding")
    if environ.get("SERVER_PROTOCOL") in ("HTTP/1.0", "HTTP/0.9"):
        raise RequestRefused(400, "chunked_in_http10")
    if not environ.get("wsgi.input_terminated"):
        # The end of the body cannot be told from a client that has gone.
        raise RequestRefused(411, "length_required")


def _check_target(target: str, host: str | None, environ: WSGIEnvironment, policy: Policy) -> None:
    """The forms of RFC 9112 3.2 other than origin-form: absolute-form, and ``OPTIONS *``.

    An absolute-form target is for the same authority as Host, or (Apache) stands in for it.
    """
    if "#" in target:
        raise RequestRefused(400, "fragment_in_target")
    if target == "*" and environ["REQUEST_METHOD"] == "OPTIONS":
        status = 200 if policy.static == "apache" else 204
        raise RequestRefused(status, "options_of_server", (("Allow", ALLOW),))
    if policy.absolute_form == "wins" and (match := _ANY_TARGET(target)):
        if match["scheme"].lower() == "http":
            environ.pop("HTTP_HOST", None)
            if match["authority"]:
                _check_host(match["authority"], environ)
                environ["HTTP_HOST"] = match["authority"]
        return
    match = _TARGET(target)
    if match is None:
        raise RequestRefused(400, "bad_target")
    if host is not None and _authority(match["authority"], match["scheme"]) != _authority(host, match["scheme"]):
        raise RequestRefused(400, "target_is_not_host")


def _authority(text: str, scheme: str) -> str:
    default = ":443" if scheme.lower() == "https" else ":80"
    return text.lower().removesuffix(default).removesuffix(":")


def answer(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: int,
    *,
    headers: Iterable[tuple[str, str]] = (),
    text: str | None = None,
    allow: Sequence[str] | str | None = None,
) -> list[bytes]:
    """Answer with a fixed page of plain text that holds nothing of the request.

    ``text`` replaces the reason phrase as the page; ``allow`` is sent as the Allow field.
    """
    line = status_line(status)
    body = (line if text is None else text).encode() + b"\n"
    fields = [*headers, ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
    if allow is not None:
        fields.append(("Allow", allow if isinstance(allow, str) else ", ".join(allow)))
    if status == 204 or status == 304:
        body = b""
    else:
        fields += [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    own = environ.get("proxymw.own")
    if own is not None:
        own.append(status)  # told to the skins in front: this is our answer, not that of an origin or application
    start_response(line, fields)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


def refuse(environ: WSGIEnvironment, start_response: StartResponse, error: RequestRefused) -> list[bytes]:
    """Answer a request that was refused, and log why."""
    from proxymw.exchange.events import log_refusal

    log_refusal(environ, error)
    return answer(environ, start_response, error.status, headers=error.headers, text=error.text)


def NOT_FOUND(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """The application behind a skin that has none: 404."""
    return answer(environ, start_response, 404)
