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
    "HostPattern": "rules.matchers",
    "IPAllowlist": "allow",
    "Member": "rules.members",
    "NetworkSet": "rules.matchers",
    "PathPrefix": "rules.matchers",
    "Policy": "rules.policy",
    "PrefixProxy": "prefix",
    "PrefixTable": "rules.matchers",
    "ProxyRule": "prefix",
    "RedirectRule": "redirects",
    "Redirects": "redirects",
    "RewriteCond": "rules.rewriting",
    "RewriteProxy": "rewrite",
    "RewriteRule": "rules.rewriting",
    "StaticOrPass": "static",
    "Transport": "exchange.transport",
    "VirtualHosts": "vhosts",
}

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
