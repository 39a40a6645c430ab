"""Why does this URL go there: every layer and rule in order, asked the way a request asks them, with nothing sent.

>>> print(explain(app, "GET", "http://example.org/wiki/Main_Page").text())
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from proxymw.errors import ConfigError, RequestRefused
from proxymw.exchange.inbound import NOT_FOUND, check, inbound
from proxymw.headerskin import Headers, _change_request
from proxymw.rewrite import RewriteProxy, _set_env
from proxymw.rules.decisions import Local, Proxy, Redirect, Status

if TYPE_CHECKING:
    import os

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from proxymw.accesslog import AccessLog
    from proxymw.allow import IPAllowlist
    from proxymw.balancer import BalancerPool
    from proxymw.clientaddress import ClientAddress
    from proxymw.errorpages import ErrorPages
    from proxymw.exchange.forwarder import Forwarder, ForwardOptions
    from proxymw.locations import Locations
    from proxymw.prefix import PrefixProxy, ProxyRule
    from proxymw.redirects import Redirects
    from proxymw.rules.rewriting import Step as RewriteStep
    from proxymw.static import StaticOrPass
    from proxymw.variables import Variables
    from proxymw.vhosts import VirtualHosts

#: Rules that did not match are shown one by one up to this many for each layer; more are counted.
_SHOWN = 100
#: Deeper stacks than this are a loop.
_DEEPEST = 200


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer that the request came to: what it is, what it decided, and what it looked at on the way."""

    name: str
    verdict: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemberState:
    """A member of the pool that the request goes to, whether it could be elected now, and why or why not."""

    url: str
    eligible: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of one request.

    ``outcome`` is ``forward`` (to ``target``: a URL, or for a pool ``balancer://name/path``), ``file``, ``manager``,
    ``application``, ``redirect`` (to ``target``) or ``answer``; ``status`` is known for all but what others answer.
    ``headers`` is the request head as an origin would get it, from the first member that is eligible; ``members`` are
    those of the pool.
    """

    method: str
    url: str
    outcome: str
    target: str = ""
    status: int | None = None
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    members: tuple[MemberState, ...] = ()
    layers: tuple[Layer, ...] = ()

    def __str__(self) -> str:
        """The outcome in one line."""
        status = f" {self.status}" if self.status else ""
        target = f" {self.target}" if self.target else ""
        return f"{self.outcome}{status}{target}" + (f" ({self.reason})" if self.reason else "")

    def text(self) -> str:
        """For people: the layers in order, indented, then the outcome."""
        lines = [f"{self.method} {self.url}"]
        for layer in self.layers:
            lines.append(f"  {layer.name}: {layer.verdict}")
            lines += [f"      {detail}" for detail in layer.details]
        lines.append(f"=> {self}")
        if self.headers:
            lines.append("   sent to the origin:")
            lines += [f"      {name}: {value}" if name else f"      {value}" for name, value in self.headers]
        if self.members:
            lines.append("   members:")
            lines += [f"      {'+' if m.eligible else '-'} {m.url}: {m.reason}" for m in self.members]
        return "\n".join(lines)

    def json(self) -> str:
        """The same for machines: one object."""
        data = {
            "method": self.method,
            "url": self.url,
            "outcome": self.outcome,
            "target": self.target or None,
            "status": self.status,
            "reason": self.reason or None,
            "headers": [list(pair) for pair in self.headers if pair[0]],
            "members": [{"url": m.url, "eligible": m.eligible, "reason": m.reason} for m in self.members],
            "layers": [{"name": x.name, "verdict": x.verdict, "details": list(x.details)} for x in self.layers],
        }
        return json.dumps(data, indent=2)


def explain(
    app: WSGIApplication,
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
    client: str = "127.0.0.1",
) -> Explanation:
    """Walk a stack of proxymw's middlewares with a request and say what becomes of it and why.

    ``url`` is ``http://host/path?query``, or a path with the Host among ``headers``. Opens no connection, writes no log
    and changes no counter; an application that is not proxymw's is named and not called.
    """
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    environ = _environ(method, url, pairs, client)
    walk = _Walk(method, url, environ)
    walk.go(app)
    return walk.explanation()


def load_app(
    source: str | os.PathLike[str], *, lenient: bool = False, defines: Mapping[str, str] | None = None
) -> WSGIApplication:
    """The stack to explain: a configuration file, or ``module:name`` of a WSGI application (or of what makes one)."""
    import os

    text = os.fspath(source)
    module, colon, name = text.partition(":")
    if os.path.exists(text) or not colon or "/" in module:
        from proxymw.apacheconf import load

        return load(source, lenient=lenient, defines=defines)
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = import_module(module)
        for part in name.removesuffix("()").split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"module:app must name a WSGI application, got {text!r}: {error}") from None
    if name.endswith("()"):
        found = found()
    if not callable(found):
        raise ConfigError(f"module:app must name a WSGI application, got {text!r}")
    return found  # type: ignore[no-any-return]


def _environ(method: str, url: str, headers: list[tuple[str, str]], client: str) -> WSGIEnvironment:
    """The environ that a server would make of the request."""
    parts = urlsplit(url)
    if not (parts.scheme in ("http", "https") and parts.netloc) and not url.startswith("/"):
        raise ConfigError(f"url must be http://host/path or a path, got {url!r}")
    raw = url[url.index("//") + 2 + len(parts.netloc) :] if parts.netloc else url
    raw = (raw if raw.startswith("/") else "/" + raw).partition("#")[0]
    path, _, query = raw.partition("?")
    scheme = parts.scheme or "http"
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, encoding="latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": raw,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": parts.hostname or "localhost",
        "SERVER_PORT": str(parts.port or (443 if scheme == "https" else 80)),
        "REMOTE_ADDR": client,
        "HTTP_HOST": parts.netloc.rpartition("@")[2] or "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": True,
    }
    for name, value in headers:
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key
        known = environ.get(key)
        environ[key] = f"{known},{value}" if known is not None and key != "HTTP_HOST" else value
    return environ


@dataclass(slots=True)
class _Walk:
    """A request on its way down the stack."""

    method: str
    url: str
    environ: WSGIEnvironment
    layers: list[Layer] = field(default_factory=list)
    end: dict[str, Any] | None = None

    def explanation(self) -> Explanation:
        end = self.end or {"outcome": "answer", "status": 404, "reason": "nothing is behind the last layer"}
        return Explanation(self.method, self.url, layers=tuple(self.layers), **end)

    def go(self, app: Any) -> None:
        following: Any = app
        for _ in range(_DEEPEST):
            if following is None or self.end is not None:
                return
            try:
                following = self.step(following)
            except RequestRefused as refused:
                self.add(_name(following), f"refuses the request: {refused.event}")
                self.finish("answer", status=refused.status, reason=refused.event)
        if self.end is None:
            self.finish("answer", reason="the stack does not end")

    def step(self, app: Any) -> Any:
        """What one layer makes of it: the next one, or None where it ends."""
        if app is NOT_FOUND:
            return self.finish("answer", status=404, reason="nothing matched")
        for kind in type(app).__mro__:
            explainer = _EXPLAINERS.get(f"{kind.__module__}.{kind.__name__}")
            if explainer is not None:
                return explainer(self, app)
        behind = getattr(app, "app", None)
        if callable(behind) and type(app).__module__.startswith("proxymw."):
            self.add(_name(app), "passes on")
            return behind
        self.add(_name(app), "an application of its own: not called here")
        return self.finish("application", reason=repr(app)[:200])

    def add(self, name: str, verdict: str, details: Iterable[str] = ()) -> None:
        self.layers.append(Layer(name, verdict, tuple(details)))

    def finish(self, outcome: str, **values: Any) -> None:
        self.end = {"outcome": outcome, **values}

    # -- sending -----------------------------------------------------------------------------------------------

    def send(self, destination: Any, target: str, forwarder: Forwarder, options: ForwardOptions) -> None:
        """The request would go to ``destination`` as ``target``."""
        environ = self.environ
        check(environ, forwarder.policy)
        host = environ.get("HTTP_HOST") if options.preserve_host else options.host
        request = forwarder._writer.request(environ, target, host=host, prefix=options.prefix)
        members: tuple[MemberState, ...] = ()
        origin = getattr(destination, "origin", None)
        url = f"{origin}{target}" if origin is not None else target
        if origin is None:
            standing = destination.eligible()
            members = tuple(MemberState(member.url, usable, why) for member, usable, why in standing)
            usable = [member for member, can, _ in standing if can]
            origin = next((member.origin for member in usable if member.origin is not None), None)
            url = f"balancer://{destination.name}{target}"
            if not usable:
                return self.finish("answer", status=503, target=url, members=members, reason="no member is usable")
        head = () if origin is None else tuple(_head(request.head(origin)))
        return self.finish("forward", target=url, headers=head, members=members)


def _head(data: bytes) -> Iterator[tuple[str, str]]:
    first, *lines = data.decode("latin-1").rstrip("\r\n").split("\r\n")
    yield "", first
    for line in lines:
        name, _, value = line.partition(": ")
        yield name, value


def _name(app: Any) -> str:
    return type(app).__name__ if not hasattr(app, "__qualname__") else app.__qualname__


# -- one function for each kind of layer ---------------------------------------------------------------------------

_Explainer = Callable[[_Walk, Any], Any]
_EXPLAINERS: dict[str, _Explainer] = {}


def _explains(*names: str) -> Callable[[_Explainer], _Explainer]:
    """For classes by name, so that explaining one does not load all the others."""

    def put(function: _Explainer) -> _Explainer:
        for name in names:
            _EXPLAINERS[f"proxymw.{name}"] = function
        return function

    return put


@_explains("accesslog.AccessLog")
def _access_log(walk: _Walk, app: AccessLog) -> Any:
    walk.add("AccessLog", f"logs to {app._sink.name}")
    return app.app


@_explains("errorpages.ErrorPages")
def _error_pages(walk: _Walk, app: ErrorPages) -> Any:
    pages = ", ".join(map(str, sorted(app.pages))) or "none"
    walk.add("ErrorPages", f"has pages for {pages}{', also for answers of origins' if app.override else ''}")
    return app.app


@_explains("variables.Variables")
def _variables(walk: _Walk, app: Variables) -> Any:
    details = []
    for rule in app.rules:
        found = rule.found(walk.environ)
        what = "every request" if not rule.attribute else f"{rule.attribute} {rule.value(walk.environ)!r}"
        state = "sets" if found else "does not set"
        details.append(f"{what} {'~ ' + rule.pattern if rule.attribute else ''}: {state} {', '.join(rule.variables)}")
    app.apply(walk.environ)
    walk.add("Variables", f"{len(app.rules)} rules", details[:_SHOWN])
    return app.app


@_explains("headerskin.Headers")
def _headers(walk: _Walk, app: Headers) -> Any:
    details = [f"request: {rule.action} {rule.name} {rule.value}".rstrip() for rule in app.request]
    details += [f"response: {rule.action} {rule.name} {rule.value}".rstrip() for rule in app.response]
    for rule in app.request:
        if rule.when is None or rule.when(walk.environ):
            _change_request(walk.environ, rule, app._value(rule, walk.environ, 0.0))
    walk.add("Headers", f"changes {len(app.request)} of the request, {len(app.response)} of the response", details)
    return app.app


@_explains("clientaddress.ClientAddress")
def _client_address(walk: _Walk, app: ClientAddress) -> Any:
    before = walk.environ.get("REMOTE_ADDR", "")
    if before in app.trusted or before in app.external:
        app._believe(walk.environ, before)
    after = walk.environ.get("REMOTE_ADDR", "")
    if before != after:
        walk.add("ClientAddress", f"the client is {after}: {before} is trusted and says so in {app.header}")
    else:
        walk.add("ClientAddress", f"the client is {after}")
    return app.app


@_explains("vhosts.VirtualHosts")
def _virtual_hosts(walk: _Walk, app: VirtualHosts) -> Any:
    check(walk.environ, app._policy)
    host = walk.environ.get("HTTP_HOST")
    chosen = app._find(host)
    won = chosen[0] if chosen is not None else None
    details = [" ".join(name.text for name in site.names) + (" <-" if site is won else "") for site in app.sites]
    if chosen is None:
        walk.add("VirtualHosts", f"no name is {host!r}: the default", details[:_SHOWN])
        return app.default
    site, walk.environ["proxymw.host"] = chosen
    walk.environ["proxymw.server_name"] = site.server_name
    walk.add("VirtualHosts", f"{host!r} matches {chosen[1]}", details[:_SHOWN])
    return site.app


@_explains("apacheconf.hosts.ByAddress")
def _by_address(walk: _Walk, app: Any) -> Any:
    walk.add("ByAddress", "chooses by the address and port of the connection", [repr(app)])
    return app.choose(walk.environ)


@_explains("apacheconf.sections.Sections")
def _sections(walk: _Walk, app: Any) -> Any:
    path = inbound(walk.environ, app._policy).path
    covering = app.covering(path)
    details = [
        f"<{scope.kind}> {scope.pattern}: {'covers' if at in covering else 'does not cover'} {path}"
        for at, scope in enumerate(app.scopes[:_SHOWN])
    ]
    walk.add("Sections", f"{len(covering)} of {len(app.scopes)} sections cover {path}", details)
    return app.application(covering)


@_explains("locations.Locations")
def _locations(walk: _Walk, app: Locations) -> Any:
    path = inbound(walk.environ, app.policy).path
    prefix = app.prefix(path)
    details = [f"{one}: {'this one' if one == prefix else 'no'}" for one in list(app.locations)[:_SHOWN]]
    walk.add("Locations", f"{prefix} covers {path}" if prefix else f"none covers {path}", details)
    return app.match(path)


@_explains("apacheconf.documents.Aliases")
def _aliases(walk: _Walk, app: Any) -> Any:
    path = inbound(walk.environ, app._policy).path
    following = app.match(path)
    prefix = next((prefix for prefix, aliased in app.aliases if aliased is following), None)
    walk.add("Aliases", f"{prefix} covers {path}" if prefix else f"none covers {path}")
    return following


@_explains("apacheconf.documents.OneFile")
def _one_file(walk: _Walk, app: Any) -> Any:
    if not app.covers(walk.environ):
        walk.add("OneFile", f"{app.prefix} is a file and has nothing below it")
        return walk.finish("answer", status=404, reason="below a file")
    walk.add("OneFile", f"{app.prefix} is the file {app.name}")
    walk.environ = app.inner(walk.environ)
    return app.app


@_explains("apacheconf.passes.BadTarget")
def _bad_target(walk: _Walk, app: Any) -> Any:
    walk.add("BadTarget", app.reason)
    return walk.finish("answer", status=500, reason=app.reason)


@_explains("allow.IPAllowlist")
def _allowlist(walk: _Walk, app: IPAllowlist) -> Any:
    address = walk.environ.get("REMOTE_ADDR", "")
    passed, allowed = app._verdict(address, walk.environ)
    details = [f"allow {app.allow}", f"deny {app.deny}", *([f"order {app.order}"] if app.order else [])]
    if not passed:
        walk.add("IPAllowlist", f"denies {address}", details)
        return walk.finish("answer", status=403, reason=f"{address} is denied")
    if allowed:
        walk.environ["proxymw.allowed"] = True
    inbound(walk.environ, app._policy)
    walk.add("IPAllowlist", f"passes {address}", details)
    return app.app


@_explains("redirects.Redirects")
def _redirects(walk: _Walk, app: Redirects) -> Any:
    path = inbound(walk.environ, app._policy)
    found = app.match(path, walk.environ.get("QUERY_STRING", ""))
    if found is None:
        walk.add("Redirects", f"none of {len(app.rules)} rules matches {path.path}")
        return app.app
    rule, url = found
    walk.add("Redirects", f"{rule.path} matches {path.path}")
    if not url:
        return walk.finish("answer", status=rule.code, reason=f"Redirect {rule.path}")
    return walk.finish("redirect", status=rule.code, target=url, reason=f"Redirect {rule.path}")


@_explains("static.StaticOrPass")
def _static(walk: _Walk, app: StaticOrPass) -> Any:
    name = f"StaticOrPass {app.root}"
    try:
        path = inbound(walk.environ, app.policy).path
    except RequestRefused:
        if app.app is NOT_FOUND:
            raise
        walk.add(name, "such a path is no file")
        return app.app
    found = app.find(path)
    if found is None:
        walk.add(name, f"nothing at {path}")
        return app.app
    if walk.method not in ("GET", "HEAD") and app.app is not NOT_FOUND:
        walk.add(name, f"{found.kind} at {found.name}, but {walk.method} is passed on")
        return app.app
    walk.add(name, f"{found.kind}: {found.name}")
    if found.kind == "file":
        return walk.finish("file", status=200, target=app.root + found.name)
    if found.kind == "redirect":
        return walk.finish("redirect", status=301, target=path + "/", reason="a folder without its slash")
    return walk.finish("answer", status=403 if found.kind == "denied" else 503, reason=f"{found.kind}: {found.name}")


@_explains("manager.app.BalancerManagerApp")
def _manager(walk: _Walk, app: Any) -> Any:
    allowed = "proxymw.allowed" in walk.environ or app.allow_unprotected
    walk.add("BalancerManagerApp", "answers" if allowed else "refuses: no IPAllowlist let the client in")
    return walk.finish("manager", status=None if allowed else 403)


@_explains("balancer.BalancerPool")
def _pool(walk: _Walk, app: BalancerPool) -> Any:
    walk.add("BalancerPool", f"{app.name} by {app.method}")
    path = inbound(walk.environ, app.policy)
    query = walk.environ.get("QUERY_STRING", "")
    standing = app.eligible()
    members = tuple(MemberState(member.url, usable, why) for member, usable, why in standing)
    target = f"balancer://{app.name}{path.raw}" + (f"?{query}" if query else "")
    if not any(member.eligible for member in members):
        return walk.finish("answer", status=503, target=target, members=members, reason="no member is usable")
    return walk.finish("forward", target=target, members=members)


@_explains("prefix.PrefixProxy")
def _prefix(walk: _Walk, app: PrefixProxy) -> Any:
    path = inbound(walk.environ, app.policy)
    found = app.match(path.path)
    chosen = None if found is None else found[0]
    details = list(_turns(app.rules, chosen, path.path))
    if found is None or chosen is None:
        walk.add("PrefixProxy", f"none of {len(app.rules)} rules matches {path.path}", details)
        return app.app
    if chosen.excluded:
        walk.add("PrefixProxy", f"{chosen.prefix} ! leaves {path.path} alone", details)
        return app.app
    walk.add("PrefixProxy", f"{chosen.prefix} takes {path.path}", details)
    turn = app._find(path.path)
    assert turn is not None
    route: Any = turn.route
    if hasattr(route, "mounted"):
        walk.environ = route.below(walk.environ, path, turn)
        return route.mounted
    return walk.send(route.destination, route.request_target(walk.environ, path, turn), app.forwarder, route.options)


def _turns(rules: tuple[ProxyRule, ...], chosen: ProxyRule | None, path: str) -> Iterator[str]:
    """Each rule's turn up to the one that decides."""
    skipped = 0
    for number, rule in enumerate(rules, 1):
        if rule is chosen:
            if skipped:
                yield f"({skipped} more rules do not match)"
            yield f"{number}. {rule}: matches"
            return
        if number > _SHOWN:
            skipped += 1
            continue
        yield f"{number}. {rule.prefix}: {_why_not(rule, path)}"
    if skipped:
        yield f"({skipped} more rules do not match)"


def _why_not(rule: ProxyRule, path: str) -> str:
    if rule.regex:
        return "the pattern is not found"
    prefix = rule.prefix
    if path + "/" == prefix:
        return "no match: the final slash is missing in the path"
    if path.startswith(prefix.rstrip("/")):
        return "no match: the path goes on within the segment"
    return "no match"


@_explains("apacheconf.perdirectory.PathInfo")
def _path_info(walk: _Walk, app: Any) -> Any:
    path = inbound(walk.environ, app._policy).path
    name = app.file_in(path)
    walk.add("PathInfo", f"{path[len(name) :]} goes with the file {name}" if name != path else "no file in the path")
    walk.environ = {**walk.environ, "PATH_INFO": name}
    return app.app


@_explains("apacheconf.fallback.Fallback")
def _fallback(walk: _Walk, app: Any) -> Any:
    path = inbound(walk.environ, app._policy).path
    inner = app.inner(walk.environ)
    if inner is None:
        walk.add("Fallback", f"not taken for {path}")
        return app.app
    if app.taken(walk.environ):
        walk.add("Fallback", f"nothing at {path}, and {app.target} was asked for already")
        return NOT_FOUND
    walk.add("Fallback", f"nothing at {path}: {app.target} is asked for instead")
    walk.environ = inner
    return app.front.app


@_explains("rewrite.RewriteProxy")
def _rewrite(walk: _Walk, app: RewriteProxy) -> Any:
    trace: list[RewriteStep] = []
    path = inbound(walk.environ, app.policy).path
    decision = app.rewrite(walk.environ, trace)
    details = [line for step in trace[:_SHOWN] for line in _rewrite_step(step)]
    if len(trace) > _SHOWN:
        details.append(f"({len(trace) - _SHOWN} more turns)")
    walk.add("RewriteProxy", f"{path}: {decision}", details)
    _set_env(walk.environ, decision)
    match decision:
        case Proxy():
            return walk.send(app._destinations[id(decision.rule)], decision.target, app.forwarder, app.options)
        case Local():
            app._change(walk.environ, decision)
            return app.app if decision.passthrough else app.local
        case Redirect():
            return walk.finish("redirect", status=decision.status, target=decision.location, reason=str(decision.rule))
        case Status():
            return walk.finish("answer", status=decision.status, reason=decision.event or str(decision.rule))
    return app.app


def _rewrite_step(step: RewriteStep) -> Iterator[str]:
    rule = f"{step.number}. {step.rule} on {step.subject!r}"
    if not step.matched:
        yield f"{rule}: no match"
        return
    groups = " ".join(f"${number}={text!r}" for number, text in enumerate(step.groups))
    yield f"{rule}: {'applies' if step.applied else 'matches, but a condition fails'}{' ' + groups if groups else ''}"
    for condition, result in step.conditions:
        yield f"   {condition}: {result.value!r} {'holds' if result.holds else 'fails'}"
    if step.result:
        yield f"   {step.result}"
