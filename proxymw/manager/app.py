"""The balancer-manager as a WSGI application: who may come in, which page or change is meant, and the answer's form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from webob import Response

from proxymw import metrics
from proxymw.errors import ConfigError, RequestRefused
from proxymw.exchange.events import event_line, request_values
from proxymw.manager import answers, api, classic, page
from proxymw.manager.assets import stamp
from proxymw.manager.forms import Change, acts, bad, change_of, find_member, parse_fields, pool_named, read_form
from proxymw.manager.security import (
    SECURITY_HEADERS,
    Refused,
    actor,
    check_access,
    check_change,
    nonce_matches,
    same_origin,
)
from proxymw.rules.hosts import HostPattern
from proxymw.rules.members import Member
from proxymw.rules.networks import NetworkSet
from proxymw.rules.options import flag, listed
from proxymw.rules.policy import Policy, as_policy

if TYPE_CHECKING:
    from proxymw.balancer import BalancerPool

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

READ_ONLY = "This balancer manager is read-only."

logger = logging.getLogger("proxymw.manager")


class BalancerManagerApp:
    """The page that shows ``pools`` and changes them (``SetHandler balancer-manager``).

    It answers only requests that passed an ``IPAllowlist``, unless ``allow_unprotected`` is true, and only for hosts
    that are addresses, localhost, matched by ``VirtualHosts`` or one of ``hosts`` (names, ``*.`` patterns).
    ``read_only`` shows the page and accepts no change. Members can be added only at addresses in ``member_networks``
    (networks, as for an IPAllowlist), and removed only where some are given. ``explain`` is asked for the text that
    says where a URL goes, such as ``lambda url: explain(app, "GET", url).text()``. ``paths`` are the front paths of
    pools by name, which Apache's own page shows.

    Mount it with its path in ``SCRIPT_NAME``; all its links are relative. Nothing that it does touches the path of
    proxied requests.
    """

    def __init__(
        self,
        pools: Iterable[BalancerPool],
        *,
        read_only: bool = False,
        hosts: Iterable[str] = (),
        allow_unprotected: bool = False,
        member_networks: Iterable[str] = (),
        explain: Callable[[str], str] | None = None,
        paths: Mapping[str, str] | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.policy = as_policy(policy)
        self.pools = _checked_pools(pools)
        self.hosts = tuple(HostPattern(name, name="hosts") for name in listed("hosts", hosts, "host names"))
        self.read_only = flag("read_only", read_only)
        self.allow_unprotected = flag("allow_unprotected", allow_unprotected)
        self.member_networks = NetworkSet(member_networks, name="member_networks")
        if explain is not None and not callable(explain):
            raise ConfigError(f"explain must be a function from a URL to a text, got {explain!r}")
        self.explain = explain
        self.paths = dict(paths or {})
        self._templates = page.Templates(stamp())

    def __repr__(self) -> str:
        names = " ".join(pool.name for pool in self.pools)
        return f"<BalancerManagerApp {names}{' read-only' if self.read_only else ''}>"

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            check_access(environ, self.hosts, self.allow_unprotected)
            for pool in self.pools:
                pool.join(environ)  # a pool that served nothing yet learns here whether there are more workers
            response = self._respond(environ)
        except Refused as refused:
            _log_refusal(environ, refused)
            answer = answers.problem if environ.get("PATH_INFO", "").startswith("/api/") else answers.text
            response = answer(refused.status, refused.detail, refused.headers)
        for name, value in SECURITY_HEADERS:
            response.headers[name] = value
        response.headers.setdefault("Cache-Control", "no-store")
        start_response(response.status, list(response.headerlist))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _respond(self, environ: Environ) -> Any:
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        own = path.startswith(("/static/", "/api/")) or path in ("/metrics", "/healthz")
        if self.policy.manager == "page" and not own and "text/html" not in environ.get("HTTP_ACCEPT", ""):
            return self._classic(environ, method)
        if path in ("", "/"):
            if method == "POST":
                return self._post(environ)
            _only(method, "GET, HEAD, POST")
            return self._get(environ)
        if path.startswith("/static/"):
            _only(method, "GET, HEAD")
            return answers.static(path.removeprefix("/static/"))
        if path == "/api/v1" or path.startswith("/api/v1/"):
            return answers.as_json(*api.respond(self, environ, path.removeprefix("/api/v1")))
        if path in ("/metrics", "/healthz"):
            _only(method, "GET, HEAD")
            return self._metrics() if path == "/metrics" else self._health()
        raise Refused(404, "mgr_not_found", answers.NO_PAGE)

    def _metrics(self) -> Any:
        try:
            kind, text = metrics.render(self.pools)
        except ImportError:
            raise Refused(501, "mgr_no_metrics", metrics.INSTALL) from None
        return Response(text, headerlist=[("Content-Type", kind), ("Content-Length", str(len(text)))])

    def _health(self) -> Any:
        """200 while every pool has a usable member, else 503; which have none is told."""
        idle = [pool.name for pool in self.pools if not any(view.usable for view in pool.snapshot().members)]
        if idle:
            return answers.text(503, "no usable member: " + " ".join(idle))
        return answers.text(200, "ok")

    # -- the page ----------------------------------------------------------------------------------------------------

    def _get(self, environ: Environ) -> Any:
        fields = parse_fields(_query(environ))
        if acts(fields):
            logger.warning(event_line("mgr_get_ignored", **request_values(environ)))
        if ("xml", "1") in fields and not self.read_only:
            return self._xml()
        return self._page(environ, dict(fields))

    def _page(self, environ: Environ, query: Mapping[str, str], *, status: int = 200, problem: str = "") -> Any:
        here, part = _here(environ), environ.get("HTTP_HX_REQUEST") == "true"
        view = page.build(
            self.pools,
            host=_host(environ),
            writable=not self.read_only,
            adding=bool(self.member_networks),
            refresh=_refresh(query.get("refresh", "")),
            drawn=not part,
        )
        edit = self._edited(view, query) if view.writable else None
        name = "page.html" if not part else "edit.html" if edit else "live.html"
        values = {"page": view, "problem": problem, "here": here, "root": "" if here == "./" else here, "edit": edit}
        if not part:
            values |= self._explained(query.get("explain", ""))
        html = self._templates.render(name, values)
        return Response(html.encode(), status=status, content_type="text/html", charset="utf-8")

    def _explained(self, url: str) -> dict[str, Any]:
        """Where a URL goes, for who asks on the page."""
        told = ""
        if self.explain is not None and url:
            try:
                told = self.explain(url[:2000])
            except (ConfigError, RequestRefused, ValueError) as error:
                told = f"This cannot be asked: {error}"
        return {"explains": self.explain is not None, "asked_url": url, "explained": told}

    def _edited(self, view: page.Page, query: Mapping[str, str]) -> dict[str, Any] | None:
        """The pool or member whose form the query asks for, in Apache's ``b`` and ``w``."""
        pool = pool_named(self.pools, query)
        if pool is None:
            return None
        part = next(part for part in view.pools if part.name == pool.name)
        member = find_member(pool.snapshot(), query["w"]) if "w" in query else None
        row = next((row for row in part.rows if member is not None and row.id == member.id), None)
        return None if "w" in query and row is None else {"pool": part, "row": row}

    # -- Apache's page -------------------------------------------------------------------------------------------------

    def _classic(self, environ: Environ, method: str) -> Any:
        if method == "OPTIONS":
            return answers.text(200, "", [("Allow", "GET, HEAD, OPTIONS, POST")])
        _only(method, "GET, HEAD, OPTIONS, POST")
        form = dict(read_form(environ, strict=False) if method == "POST" else parse_fields(_query(environ)))
        # Without a Referer of its own host Apache reads no parameter at all.
        known = "HTTP_REFERER" in environ and same_origin(environ)
        pool = pool_named(self.pools, form) if known or method == "POST" else None
        if method == "POST":
            self._classic_change(environ, pool, form)
        elif known and form.get("xml") == "1" and any(nonce_matches(own, form.get("nonce", "")) for own in self.pools):
            return self._xml()
        return self._classic_page(environ, pool if known else None, form)

    def _classic_change(self, environ: Environ, pool: BalancerPool | None, form: Mapping[str, str]) -> None:
        """A refused change is logged and then, as Apache does, answered with the page as it was."""
        try:
            check_change(environ, pool, form.get("nonce", ""))
            if self.read_only or pool is None:
                raise Refused(403, "mgr_read_only", READ_ONLY)
        except Refused as refused:
            _log_refusal(environ, refused)
            return
        changes = classic.changes_of(form, pool.snapshot())
        if form.get("b_nwrkr"):
            changes.append(change_of(list(form.items()), pool.snapshot()))
        for change in changes:
            try:
                self._apply(pool, change, by=actor(environ))
            except ConfigError as error:
                raise bad(_sentence(str(error))) from None

    def _classic_page(self, environ: Environ, pool: BalancerPool | None, form: Mapping[str, str]) -> Any:
        here = quote((environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1"), safe="/;=")
        balancers = [classic.shown(own, self.paths.get(own.name, "/"), 0) for own in self.pools]
        edit = None
        if pool is not None and not self.read_only:
            balancer = next(balancer for balancer in balancers if balancer.shot.name == pool.name)
            view = find_member(balancer.shot, form["w"]) if "w" in form else None
            if view is not None or "w" not in form:
                edit = {"balancer": balancer, "view": view, "adding": bool(self.member_networks)}
        values = {"balancers": balancers, "edit": edit, "here": here, "persisted": False, "host": _host(environ)}
        html = self._templates.render("classic.html", values).encode("latin-1", "xmlcharrefreplace")
        return Response(html, content_type="text/html", charset="ISO-8859-1")

    def _xml(self) -> Any:
        balancers = []
        for pool in self.pools:
            balancer = classic.shown(pool, "", 0)
            members = {member.id: member for member in pool.members}
            rows = [classic.xml_rows(view, members.get(view.id)) for view in balancer.shot.members]
            balancers.append((balancer, rows))
        text = self._templates.render("classic.xml", {"balancers": balancers})
        return Response(text.encode(), content_type="text/xml", charset=None)

    # -- a change ----------------------------------------------------------------------------------------------------

    def _post(self, environ: Environ) -> Any:
        fields = read_form(environ)
        single = dict(fields)
        pool = pool_named(self.pools, single)
        check_change(environ, pool, single.get("nonce", ""))
        if self.read_only or pool is None:
            raise Refused(403, "mgr_read_only", READ_ONLY)
        try:
            self._apply(pool, change_of(fields, pool.snapshot()), by=actor(environ))
        except (ConfigError, Refused) as problem:
            refused = problem if isinstance(problem, Refused) else bad(_sentence(str(problem)))
            if environ.get("HTTP_HX_REQUEST") == "true" or refused.status != 400:
                raise refused from None
            _log_refusal(environ, refused)
            return self._page(environ, {}, status=400, problem=refused.detail)
        if self.policy.manager == "page" and "b" in single:
            # Apache answers its own form with the page, and what was written for it looks for the page there.
            return self._page(environ, {})
        return Response(status=303, location=_here(environ), content_type="text/plain", body=b"")

    def _apply(self, pool: BalancerPool, change: Change, *, by: str) -> None:
        """Do it; ConfigError, and nothing done, when a value is out of range."""
        if change.kind == "pool":
            pool.change_pool(by=by, **change.values)
        elif change.kind == "add":
            pool.add(self.new_member(**change.values), by=by, state="disabled")
        else:
            for member in change.members:
                self.remove_member(pool, member, by=by) if change.kind == "remove" else pool.change(
                    member, by=by, **change.values
                )

    def new_member(self, target: str, **values: Any) -> Member:
        """A member that may be added: http or https at an address in ``member_networks``; Refused otherwise."""
        member = Member(target, **values)
        origin = member.origin
        if origin is None or origin.socket or origin.host not in self.member_networks:
            raise Refused(403, "mgr_member_address", "Members can be added only at addresses in member_networks.")
        return member

    def remove_member(self, pool: BalancerPool, member: str, *, by: str) -> None:
        if not self.member_networks:
            raise Refused(403, "mgr_member_address", "Members can be removed only where they can be added.")
        pool.remove(member, by=by)


def _checked_pools(pools: Iterable[BalancerPool]) -> tuple[BalancerPool, ...]:
    if isinstance(pools, str) or not isinstance(pools, Iterable):
        raise ConfigError(f"pools must be a list of BalancerPool objects, got {pools!r}")
    result = tuple(pools)
    for pool in result:
        if not callable(getattr(pool, "snapshot", None)):
            raise ConfigError(f"pools must be a list of BalancerPool objects, got {pool!r}")
    names = [pool.name for pool in result]
    if len(set(names)) < len(names):
        raise ConfigError(f"pools must have different names, got {names!r}")
    return result


def _host(environ: Environ) -> str:
    return str(environ.get("HTTP_HOST") or environ.get("SERVER_NAME", ""))


def _query(environ: Environ) -> str:
    return str(environ.get("QUERY_STRING", ""))


def _only(method: str, allowed: str) -> None:
    if method not in allowed.split(", "):
        raise Refused(405, "mgr_method", f"Only {allowed} here.", (("Allow", allowed),))


def _here(environ: Environ) -> str:
    """The page's own address as a relative link; without its trailing slash it is the last name of the mount path."""
    if environ.get("PATH_INFO", "") or not environ.get("SCRIPT_NAME", ""):
        return "./"
    return f"./{quote(environ['SCRIPT_NAME'].rpartition('/')[2].encode('latin-1'))}/"


def _refresh(text: str) -> int:
    return int(text) if text in ("1", "2", "5", "10", "30", "60") else 0


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _log_refusal(environ: Environ, refused: Refused) -> None:
    level = logging.WARNING if refused.status in (400, 403, 413) else logging.INFO
    logger.log(level, event_line(refused.event, status=refused.status, **request_values(environ)))
