"""The Apache front end as composable WSGI middlewares."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names load their module on first use, so that importing the matchers pulls in neither urllib3 nor jinja2.
_HOMES = {
    "AccessLog": "accesslog",
    "BalancerManagerApp": "manager",
    "BalancerPool": "balancer",
    "ClientAddress": "clientaddress",
    "ConfigError": "errors",
    "ErrorPages": "errorpages",
    "HeaderRule": "headerskin",
    "Headers": "headerskin",
    "Health": "rules.health",
    "HostPattern": "rules.matchers",
    "IPAllowlist": "allow",
    "Locations": "locations",
    "Member": "rules.members",
    "NetworkSet": "rules.matchers",
    "PathPrefix": "rules.matchers",
    "Policy": "rules.policy",
    "PrefixProxy": "prefix",
    "PrefixTable": "rules.matchers",
    "Probe": "rules.health",
    "ProxyRule": "prefix",
    "RedirectRule": "redirects",
    "Redirects": "redirects",
    "RetryPolicy": "rules.retrying",
    "RewriteCond": "rules.rewriting",
    "RewriteProxy": "rewrite",
    "RewriteRule": "rules.rewriting",
    "SetEnvIf": "variables",
    "StaticOrPass": "static",
    "StickyCookie": "rules.sticky",
    "StickyRoute": "rules.sticky",
    "Transport": "exchange.transport",
    "Tunnels": "exchange.tunnel",
    "Variables": "variables",
    "VirtualHosts": "vhosts",
    "from_file": "apacheconf",
}

# What a type checker sees of them.
if TYPE_CHECKING:
    from proxymw.accesslog import AccessLog as AccessLog
    from proxymw.allow import IPAllowlist as IPAllowlist
    from proxymw.apacheconf import from_file as from_file
    from proxymw.balancer import BalancerPool as BalancerPool
    from proxymw.clientaddress import ClientAddress as ClientAddress
    from proxymw.errorpages import ErrorPages as ErrorPages
    from proxymw.errors import ConfigError as ConfigError
    from proxymw.exchange.transport import Transport as Transport
    from proxymw.exchange.tunnel import Tunnels as Tunnels
    from proxymw.headerskin import HeaderRule as HeaderRule
    from proxymw.headerskin import Headers as Headers
    from proxymw.locations import Locations as Locations
    from proxymw.manager import BalancerManagerApp as BalancerManagerApp
    from proxymw.prefix import PrefixProxy as PrefixProxy
    from proxymw.prefix import ProxyRule as ProxyRule
    from proxymw.redirects import RedirectRule as RedirectRule
    from proxymw.redirects import Redirects as Redirects
    from proxymw.rewrite import RewriteProxy as RewriteProxy
    from proxymw.rules.health import Health as Health
    from proxymw.rules.health import Probe as Probe
    from proxymw.rules.matchers import HostPattern as HostPattern
    from proxymw.rules.matchers import NetworkSet as NetworkSet
    from proxymw.rules.matchers import PathPrefix as PathPrefix
    from proxymw.rules.matchers import PrefixTable as PrefixTable
    from proxymw.rules.members import Member as Member
    from proxymw.rules.policy import Policy as Policy
    from proxymw.rules.retrying import RetryPolicy as RetryPolicy
    from proxymw.rules.rewriting import RewriteCond as RewriteCond
    from proxymw.rules.rewriting import RewriteRule as RewriteRule
    from proxymw.rules.sticky import StickyCookie as StickyCookie
    from proxymw.rules.sticky import StickyRoute as StickyRoute
    from proxymw.static import StaticOrPass as StaticOrPass
    from proxymw.variables import SetEnvIf as SetEnvIf
    from proxymw.variables import Variables as Variables
    from proxymw.vhosts import VirtualHosts as VirtualHosts

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'proxymw' has no attribute {name!r}")
    value = getattr(import_module(f"proxymw.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
