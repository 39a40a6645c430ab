"""IPAllowlist: who may get at what is behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any, Literal, get_args

from proxymw.errors import ConfigError, RequestRefused
from proxymw.exchange.behind import behind
from proxymw.exchange.events import event_line, request_values
from proxymw.exchange.inbound import answer, inbound, refuse
from proxymw.rules.networks import NetworkSet
from proxymw.rules.options import listed
from proxymw.rules.policy import Policy, as_policy

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


_log = logging.getLogger("proxymw")

#: An entry that is not about addresses: ``Allow from env=``, ``Require method``. Called with the environ, each time.
Predicate = Callable[[Mapping[str, Any]], bool]
Entry = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network | NetworkSet | Predicate
Order = Literal["deny,allow", "allow,deny", "mutual-failure"]

_REMEMBERED = 4096


class IPAllowlist:
    """Pass on requests from allowed addresses; answer 403 to every other before anything else happens.

    ``allow`` and ``deny`` hold addresses and networks in every form of ``NetworkSet`` (``"all"`` and ``"unix"``
    included), ready ``NetworkSet`` values, or callables that take the environ. ``allow`` alone means that everyone else
    is denied; with ``deny`` as well, an address must be allowed and not denied; ``deny`` alone denies those. Apache's
    table is used when ``order`` is given:

    ===========  ====================  ============================================
    matches      ``"deny,allow"``      ``"allow,deny"``, ``"mutual-failure"``
    ===========  ====================  ============================================
    allow only   passed                passed
    deny only    denied                denied
    neither      **passed**            **denied**
    both         **passed**            **denied**
    ===========  ====================  ============================================

    Only ``REMOTE_ADDR`` counts, whatever headers say (``ClientAddress`` is the skin that sets it behind a proxy), and
    every method is treated alike. A peer without an address, or with something else there, is denied unless ``unix``
    is allowed. ``environ["proxymw.allowed"]`` is set for a request that an ``allow`` entry matched; the balancer
    manager asks for it. A path that cannot be mapped is answered 400.
    """

    def __init__(
        self,
        app: WSGIApplication | None,
        allow: Entry | Iterable[Entry] = (),
        deny: Entry | Iterable[Entry] = (),
        order: Order | str | None = None,
        *,
        policy: Policy | None = None,
    ) -> None:
        order = _order(order)
        self.app = behind(app)
        self.allow, self.deny = _Group(allow, "allow"), _Group(deny, "deny")
        self.order = order
        self._policy = as_policy(policy)
        self._neither = order == "deny,allow" or (order is None and not self.allow and bool(self.deny))
        self._both = order == "deny,allow"
        # (an allow network matched, a deny network matched) by REMOTE_ADDR; emptied when full.
        self._seen: dict[str, tuple[bool, bool]] = {}
        if order is None and not self.allow and not self.deny:
            _log.warning("event=allowlist_empty nobody is allowed: %r", self)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        passed, allowed = self._verdict(environ.get("REMOTE_ADDR", ""), environ)
        if not passed:
            _log.info("%s", event_line("client_denied", status=403, **request_values(environ)))
            return answer(environ, start_response, 403)
        try:
            inbound(environ, self._policy)
        except RequestRefused as error:
            return refuse(environ, start_response, error)
        if allowed:
            environ["proxymw.allowed"] = True
        return self.app(environ, start_response)

    def allows(self, address: str, environ: Mapping[str, Any] | None = None) -> bool:
        """Whether a request from ``address`` is passed on; ``environ`` is for entries that are callables."""
        return self._verdict(address, {"REMOTE_ADDR": address} if environ is None else environ)[0]

    def _verdict(self, address: str, environ: Mapping[str, Any]) -> tuple[bool, bool]:
        """(passed on, an allow entry matched)."""
        seen = self._seen.get(address)
        if seen is None:
            seen = address in self.allow, address in self.deny
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[address] = seen
        allowed = seen[0] or self.allow.asks(environ)
        denied = seen[1] or self.deny.asks(environ)
        if allowed != denied:
            return allowed, allowed
        return (self._both if allowed else self._neither and _has_address(address)), allowed

    def __repr__(self) -> str:
        order = f" order={self.order}" if self.order else ""
        return f"<IPAllowlist allow {self.allow} deny {self.deny}{order} -> {self.app!r}>"


def _order(given: Any) -> Order | None:
    """As the Order directive may be written: ``Deny,Allow``."""
    if given is None:
        return None
    for order in get_args(Order):
        if isinstance(given, str) and given.lower() == order:
            return order  # type: ignore[no-any-return]
    raise ConfigError(f"order must be one of {', '.join(map(repr, get_args(Order)))}, got {given!r}")


def _has_address(address: str) -> bool:
    """An address in the usual sense: what "neither list" lets through must at least be somebody."""
    return address in _EVERYONE


_EVERYONE = NetworkSet(["all"])


class _Group:
    """One of the two lists: networks in one set, and the callables that look at the rest of the request."""

    def __init__(self, entries: Entry | Iterable[Entry], name: str) -> None:
        one = isinstance(entries, (str, NetworkSet, IPv4Address, IPv6Address, IPv4Network, IPv6Network))
        given: list[Any] = [entries] if one or callable(entries) else listed(name, entries, "addresses and networks")
        self.sets = [entry for entry in given if isinstance(entry, NetworkSet)]
        self.predicates = [entry for entry in given if callable(entry) and not isinstance(entry, NetworkSet)]
        plain = [entry for entry in given if not isinstance(entry, NetworkSet) and not callable(entry)]
        if plain:
            self.sets.insert(0, NetworkSet(plain, name=name))

    def __contains__(self, address: str) -> bool:
        return any(address in networks for networks in self.sets)

    def asks(self, environ: Mapping[str, Any]) -> bool:
        return any(predicate(environ) for predicate in self.predicates) if self.predicates else False

    def __bool__(self) -> bool:
        return bool(self.predicates) or any(self.sets)

    def __str__(self) -> str:
        texts = [text for networks in self.sets for text in networks.texts]
        texts += [getattr(predicate, "__name__", repr(predicate)) for predicate in self.predicates]
        return ", ".join(texts) or "nobody"
