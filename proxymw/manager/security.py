"""Who may see the manager, who may change something, and the headers every answer of it carries."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from proxymw.rules.hosts import HostPattern, split_authority

if TYPE_CHECKING:
    from proxymw.balancer import BalancerPool

Environ = Mapping[str, Any]

#: On every answer. Scripts, styles and requests come from this very place and nowhere else. ``same-origin`` and not
#: ``no-referrer``: under the latter browsers send ``Origin: null`` with a form's POST, which no check could trust.
SECURITY_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)

#: One text for every refused change: which check failed is for the log, not for who sent it.
FORGED = "This change was not accepted: it did not come from this page, or the page is old. Reload it and try again."

UNPROTECTED = (
    "The balancer manager answers only to requests that passed an IPAllowlist: "
    "mount IPAllowlist(BalancerManagerApp(pools), allow=[...]), or say allow_unprotected=True."
)

STRANGE_HOST = (
    "The balancer manager does not know this host name. It answers to addresses, to localhost, to names that "
    "VirtualHosts matched, and to those given as BalancerManagerApp(pools, hosts=[...])."
)


class Refused(Exception):
    """The request is answered with ``status`` and ``detail`` (fixed text or our own validation message).

    ``event`` names the refusal in the log.
    """

    def __init__(self, status: int, event: str, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{status} {event}")
        self.status = status
        self.event = event
        self.detail = detail
        self.headers = headers


def host_known(environ: Environ, hosts: Iterable[HostPattern]) -> bool:
    """Whether the Host may be ours; a name that anybody can point at this machine (DNS rebinding) is not.

    An address, localhost, one of ``hosts``, or a name that ``VirtualHosts`` matched. A request without Host is of
    HTTP/1.0 and of no browser: it passes.
    """
    authority = environ.get("HTTP_HOST", "")
    if not authority or environ.get("proxymw.host"):
        return True
    parts = split_authority(authority)
    if parts is None:
        return False
    host = parts[0]
    return host == "localhost" or _is_address(host) or any(pattern.matches(host) for pattern in hosts)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def check_access(environ: Environ, hosts: Iterable[HostPattern], allow_unprotected: bool) -> None:
    """Refuse what may not even look: a request that no allow list passed, or one for a foreign host name."""
    if environ.get("proxymw.allowed") is not True and not allow_unprotected:
        raise Refused(403, "mgr_unprotected", UNPROTECTED)
    if not host_known(environ, hosts):
        raise Refused(403, "mgr_host", STRANGE_HOST)


def same_origin(environ: Environ) -> bool:
    """Whether the request can have been made by our own page, or by no browser at all.

    Browsers send ``Sec-Fetch-Site`` or ``Origin`` with every POST, so a request without either is not another site's
    form; ``Referer`` is looked at only then, and only if it is there. Schemes are not compared: TLS may end in front.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site in ("same-origin", "none")
    source = environ.get("HTTP_ORIGIN")
    if source is None:
        source = environ.get("HTTP_REFERER")
    if source is None:
        return True
    scheme, _, rest = source.partition("://")
    sent = split_authority(rest.partition("/")[0])
    own = split_authority(environ.get("HTTP_HOST", ""))
    return sent is not None and _with_port(sent, scheme) == _with_port(own, scheme)


def _with_port(parts: tuple[str, str] | None, scheme: str) -> tuple[str, str] | None:
    return parts and (parts[0], parts[1] or ("443" if scheme == "https" else "80"))


def nonce(pool: BalancerPool) -> str:
    """The token that a change of ``pool`` must carry: made from the pool's shared secret, so every worker knows it."""
    return hmac.new(pool.secret, b"balancer-manager\0" + pool.name.encode(), hashlib.sha256).hexdigest()[:32]


def nonce_matches(pool: BalancerPool, token: str) -> bool:
    """Whether a token is the pool's, in constant time."""
    return hmac.compare_digest(nonce(pool).encode(), token.encode("utf-8", "surrogatepass"))


def check_change(environ: Environ, pool: BalancerPool | None, token: str) -> None:
    """Refuse a change that did not come from our page; an unknown pool is told apart only by those with a token."""
    known = pool is not None and nonce_matches(pool, token)
    if not same_origin(environ):
        raise Refused(403, "mgr_csrf_origin", FORGED)
    if not known:
        raise Refused(403, "mgr_csrf_token", FORGED)


def actor(environ: Environ) -> str:
    """Who asked, for the audit record: the address, with the authenticated name in front where there is one."""
    address, user = environ.get("REMOTE_ADDR") or "?", environ.get("REMOTE_USER")
    return f"{user}@{address}" if user else str(address)
