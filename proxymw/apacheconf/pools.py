"""``<Proxy balancer://…>`` as BalancerPool."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proxymw.apacheconf import parameters
from proxymw.apacheconf.lexer import ConfFileError
from proxymw.balancer import BalancerPool
from proxymw.errors import ConfigError
from proxymw.rules.members import Member
from proxymw.rules.sticky import StickyRoute

if TYPE_CHECKING:
    from proxymw.apacheconf.site import Balancer, MemberLine, Site, Warned
    from proxymw.rules.policy import Policy

Warn = Callable[["Warned"], None]

#: Parameters that are accepted and do nothing here, with the reason.
_IDLE = {
    "keepalive": "TCP keep-alive is the transport's",
    "iobuffersize": "the transport's",
    "receivebuffersize": "the transport's",
    "responsefieldsize": "the cap on heads is fixed",
    "flushpackets": "every burst is passed on at once",
    "flushwait": "every burst is passed on at once",
    "addressttl": "names are looked up for each connection",
    "secret": "AJP only",
    "flusher": "fdpass only",
}


def member_of(line: MemberLine) -> Member:
    """A BalancerMember line as Member."""
    given: dict[str, Any] = {}
    for key, text in line.parameters:
        value = parameters.parse(parameters.MEMBER, key, text)
        if key == "status":
            value = str(given.get("status", "")) + str(value)
        given[key] = value
    known = ("loadfactor", "lbset", "route", "redirect", "status", "retry", "timeout", "connectiontimeout", "smax",
             "ttl", "min", "acquire")  # fmt: skip
    options = {key: given[key] for key in known if key in given}
    if given.get("max"):
        options["max"] = given["max"]
    try:
        return Member(line.url, **options)
    except ConfigError as error:
        raise ConfFileError(line.place, "BalancerMember", str(error)) from None


def pool_of(
    balancer: Balancer, policy: Policy, *, name: str = "", persist: str | None = None, state: str | None = None
) -> BalancerPool:
    """A balancer with everything that ProxySet and ProxyPass lines said about it."""
    members = [member_of(line) for line in balancer.members]
    options: dict[str, Any] = {}
    for key, text, _ in balancer.parameters:
        options[key] = parameters.parse(parameters.BALANCER, key, text)
    arguments: dict[str, Any] = {
        "method": options.get("lbmethod", "byrequests"),
        "nofailover": options.get("nofailover", False),
        "attempts": options.get("maxattempts"),
        "timeout": float(options.get("timeout", 0)),
        "forcerecovery": options.get("forcerecovery", True),
        "failonstatus": options.get("failonstatus", ()),
        "failontimeout": options.get("failontimeout", False),
    }
    try:
        if options.get("stickysession"):
            arguments["sticky"] = _sticky(options)
        return BalancerPool(
            members, name=name or balancer.name, policy=policy, persist=persist, state=state, **arguments
        )
    except ConfigError as error:
        raise ConfFileError(balancer.place, f"<Proxy balancer://{balancer.name}>", str(error)) from None


def _sticky(options: dict[str, Any]) -> StickyRoute:
    return StickyRoute(
        str(options["stickysession"]),
        separator=options.get("stickysessionsep", "."),
        semicolon=options.get("scolonpathdelim", False),
    )


def idle_parameters(site: Site, warn: Callable[[Any, str, str], None]) -> None:
    """Says which parameters are accepted and do nothing."""
    for server in site.servers():
        for balancer in server.balancers.values():
            for line in balancer.members:
                for key, _ in line.parameters:
                    if key in _IDLE:
                        warn(line.place, "BalancerMember", f"{key} is accepted and without effect: {_IDLE[key]}")
        for one in server.passes:
            for key, _ in one.parameters:
                if key in _IDLE and not one.target.lower().startswith("balancer:"):
                    warn(one.place, "ProxyPass", f"{key} is accepted and without effect: {_IDLE[key]}")
