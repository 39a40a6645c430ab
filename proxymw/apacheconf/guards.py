"""Order/Allow/Deny and Require as IPAllowlist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxymw.allow import IPAllowlist
from proxymw.apacheconf.addresses import parse_client, parse_network
from proxymw.apacheconf.conditions import IsSet
from proxymw.rules.networks import NetworkSet

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from proxymw.apacheconf.site import Access, Entry, Requirement, Settings
    from proxymw.rules.policy import Policy

Environ = Mapping[str, Any]
Test = Callable[[Environ], bool]
_LOOPBACK = NetworkSet(["127.0.0.0/8", "::1"])


def guarded(app: WSGIApplication, settings: Settings, policy: Policy) -> WSGIApplication:
    """``app`` behind what the settings say about who may; ``app`` itself where they say nothing."""
    access, require = settings.access, settings.require
    if access is not None and require is not None and access.satisfy == "any":
        return IPAllowlist(app, [Either(access, tuple(require))])
    if require is not None:
        app = _required(app, require, policy)
    if access is not None:
        app = _allowed(app, access, policy)
    return app


# -- Order, Allow, Deny --------------------------------------------------------------------------------------------


def _allowed(app: WSGIApplication, access: Access, policy: Policy) -> WSGIApplication:
    if access.limited():
        return IPAllowlist(app, [OrderSays(access)], policy=policy)
    order: Any = access.order
    return IPAllowlist(app, _entries(access.allow), _entries(access.deny), order=order, policy=policy)


def _entries(entries: list[Entry]) -> list[Any]:
    """The entries as IPAllowlist takes them. Host names are left out: they match nobody."""
    clients = [parse_client(entry.text) for entry in entries]
    texts = [client.text for client in clients if client.kind in ("all", "ip")]
    out: list[Any] = [NetworkSet(texts, strict=False)] if texts else []
    return [*out, *(IsSet(client.text, client.kind == "env") for client in clients if "env" in client.kind)]


@dataclass(frozen=True, slots=True)
class OrderSays:
    """The whole of Order/Allow/Deny as one test, for lines that hold for some methods only."""

    access: Access
    _allows: list[tuple[Entry, Test]] = field(init=False, repr=False, compare=False)
    _denies: list[tuple[Entry, Test]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "_allows", [(entry, _entry_test(entry)) for entry in self.access.allow])
        put(self, "_denies", [(entry, _entry_test(entry)) for entry in self.access.deny])

    def __call__(self, environ: Environ) -> bool:
        method = environ["REQUEST_METHOD"]
        allow = any(matches(environ) for entry, matches in self._allows if entry.concerns(method))
        deny = any(matches(environ) for entry, matches in self._denies if entry.concerns(method))
        if self.access.order_for(method) == "deny,allow":
            return allow or not deny
        return allow and not deny


def _entry_test(entry: Entry) -> Test:
    client = parse_client(entry.text)
    if "env" in client.kind:
        return IsSet(client.text, client.kind == "env")
    if client.kind == "host":
        return lambda environ: False
    networks = NetworkSet([client.text], strict=False)
    return lambda environ: environ.get("REMOTE_ADDR", "") in networks


# -- Require -------------------------------------------------------------------------------------------------------


def _required(app: WSGIApplication, require: list[Requirement], policy: Policy) -> WSGIApplication:
    plain = [one for one in require if one.kind in ("ip", "all") and not one.negated and one.limit is None]
    if len(plain) == len(require):
        texts: list[str] = []
        for one in plain:
            if one.kind == "ip":
                texts.extend(parse_network(value) for value in one.values)
            elif one.values[0].lower() == "granted":
                texts.append("all")
        if texts == ["all"]:
            return app
        return IPAllowlist(app, [NetworkSet(texts, strict=False)], order="allow,deny", policy=policy)
    return IPAllowlist(app, [Requires(tuple(require))], order="allow,deny", policy=policy)


@dataclass(frozen=True, slots=True)
class Requires:
    """Require lines and containers of one section."""

    lines: tuple[Requirement, ...]
    _tests: list[Verdict] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tests", [_requirement(line) for line in self.lines])

    def __call__(self, environ: Environ) -> bool:
        # Lines of one section are <RequireAny>; None is an opinion that does not count.
        return _any(self._tests, environ) is not False


@dataclass(frozen=True, slots=True)
class Either:
    """Satisfy Any: Order/Allow/Deny or Require."""

    access: Access
    lines: tuple[Requirement, ...]

    def __call__(self, environ: Environ) -> bool:
        return OrderSays(self.access)(environ) or Requires(self.lines)(environ)


Verdict = Callable[[Environ], bool | None]


def _any(tests: list[Verdict], environ: Environ) -> bool | None:
    verdicts = [test(environ) for test in tests]
    return True if True in verdicts else False if False in verdicts else None


def _all(tests: list[Verdict], environ: Environ) -> bool | None:
    verdicts = [test(environ) for test in tests]
    return False if False in verdicts else True if True in verdicts else None


def _requirement(one: Requirement) -> Verdict:
    verdict = _container(one) if one.children else _leaf(one)

    def decide(environ: Environ) -> bool | None:
        if one.limit is not None and not one.limit.concerns(environ["REQUEST_METHOD"]):
            return None
        found = verdict(environ)
        if one.negated and found is not None:
            # "not" can veto and never grant.
            return False if found else None
        return found

    return decide


def _container(one: Requirement) -> Verdict:
    tests = [_requirement(child) for child in one.children]
    if one.kind == "requireall":
        return lambda environ: _all(tests, environ)
    if one.kind == "requireany":
        return lambda environ: _any(tests, environ)
    return lambda environ: False if _any(tests, environ) else None


def _leaf(one: Requirement) -> Verdict:
    match one.kind:
        case "all":
            granted = one.values[0].lower() == "granted"
            return lambda environ: granted
        case "ip":
            networks = NetworkSet([parse_network(value) for value in one.values], strict=False)
            return lambda environ: environ.get("REMOTE_ADDR", "") in networks
        case "env":
            return lambda environ: any(name in environ for name in one.values)
        case "method":
            methods = {value.upper() for value in one.values}
            head = {"HEAD"} if "GET" in methods else set()
            return lambda environ: environ["REQUEST_METHOD"] in methods | head
        case "local":
            return lambda environ: environ.get("REMOTE_ADDR", "") in _LOOPBACK
        case _:
            return lambda environ: False
