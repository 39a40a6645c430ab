"""PasteDeploy: every middleware as a filter or an application of an ``.ini`` file, as Pyramid is deployed.

Options are texts there. Each is read as what the middleware wants, and an error names the section's option: ``option
first_byte must be a number, got 'soon'``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from proxymw.accesslog import AccessLog
from proxymw.allow import IPAllowlist
from proxymw.balancer import BalancerPool
from proxymw.clientaddress import ClientAddress
from proxymw.errors import ConfigError
from proxymw.manager import BalancerManagerApp
from proxymw.prefix import PrefixProxy
from proxymw.rewrite import RewriteProxy
from proxymw.rules.members import Member
from proxymw.rules.policy import Policy
from proxymw.static import StaticOrPass

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

Reader = Callable[[str], Any]
Filter = Callable[["WSGIApplication"], "WSGIApplication"]

_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")
#: Pools by what made them: a section that is named twice, by its routes and by its manager, is one pool.
_pools: dict[tuple[object, ...], BalancerPool] = {}


def text(value: str) -> str:
    return value.strip()


def words(value: str) -> list[str]:
    """Words separated by blanks, commas or line ends."""
    return [word for word in re.split(r"[\s,]+", value) if word]


def boolean(value: str) -> bool:
    word = value.strip().lower()
    if word not in _TRUE + _FALSE:
        raise ConfigError(f"must be true or false, got {value!r}")
    return word in _TRUE


def number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"must be a number, got {value!r}") from None


def count(value: str) -> int:
    if not value.strip().isascii() or not value.strip().isdigit():
        raise ConfigError(f"must be a whole number, got {value!r}")
    return int(value)


def pairs(value: str) -> list[tuple[str, str]]:
    """Lines of two words."""
    made = []
    for line in value.splitlines():
        parts = line.split()
        if parts and len(parts) != 2:
            raise ConfigError(f"must be lines of two words each, got {line.strip()!r}")
        if parts:
            made.append((parts[0], parts[1]))
    return made


def policy(value: str) -> Policy:
    known = {"modern": Policy.modern, "apache": Policy.apache}
    if value.strip() not in known:
        raise ConfigError(f"must be modern or apache, got {value!r}")
    return known[value.strip()]()


def members(value: str) -> list[Member]:
    """Lines of a URL and parameters as of BalancerMember: ``http://app1.ducklington.org loadfactor=3 status=+H``."""
    made = []
    for line in value.splitlines():
        url, *rest = line.split() or [""]
        if not url:
            continue
        given: dict[str, Any] = {}
        for item in rest:
            name, equals, setting = item.partition("=")
            if not equals or name not in _MEMBER:
                raise ConfigError(f"must have parameters of {', '.join(_MEMBER)}, got {item!r}")
            given[name] = _MEMBER[name](setting)
        made.append(Member(url, **given))
    return made


_MEMBER: Final[dict[str, Reader]] = {
    **dict.fromkeys(("route", "redirect", "status", "name"), text),
    **dict.fromkeys(("loadfactor", "retry", "timeout", "connectiontimeout", "ttl", "acquire"), number),
    **dict.fromkeys(("lbset", "max", "smax", "min", "limit"), count),
}
_CLOCKS: Final[dict[str, Reader]] = dict.fromkeys(("connect", "first_byte", "between_bytes", "total"), number)
_FORWARDING: Final[dict[str, Reader]] = {
    **_CLOCKS,
    "policy": policy,
    "preserve_host": boolean,
    "host": text,
    "websocket": boolean,
    "max_body": count,
}
_POOL: Final[dict[str, Reader]] = {
    "members": members,
    "method": text,
    "hash_by": text,
    "state": text,
    "sticky": text,
    "nofailover": boolean,
    "attempts": count,
    "timeout": number,
    "forcerecovery": boolean,
    "persist": text,
    "policy": policy,
}
_STATIC: Final[dict[str, Reader]] = {
    "root": text,
    "index": lambda value: tuple(words(value)),
    "prefix": text,
    "precompressed": boolean,
    "immutable": boolean,
    "max_age": count,
    "charset": text,
    "policy": policy,
}


def _read(given: Mapping[str, str], readers: Mapping[str, Reader], needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """The options of a section, each read as what it is. ConfigError with the option's name."""
    for name in needed:
        if name not in given:
            raise ConfigError(f"option {name} must be given, known are {', '.join(readers)}")
    values = {}
    for name, value in given.items():
        if name not in readers:
            raise ConfigError(f"option {name} is unknown, known are {', '.join(readers)}")
        try:
            values[name] = readers[name](value)
        except ConfigError as error:
            raise ConfigError(f"option {name}: {error}") from None
    return values


# -- filters: [filter:name] use = egg:proxymw#prefix -----------------------------------------------------------------


def prefix(global_conf: Mapping[str, str], **local: str) -> Filter:
    """``rules``: lines of prefix and target; and the options of ``PrefixProxy``."""
    options = _read(local, {"rules": pairs, **_FORWARDING}, ("rules",))
    rules = options.pop("rules")
    return lambda app: PrefixProxy(app, rules, **options)


def rewrite(global_conf: Mapping[str, str], **local: str) -> Filter:
    """``rules``: lines of pattern and target; and the options of ``RewriteProxy``."""
    options = _read(local, {"rules": pairs, "reverse": pairs, "document_root": text, **_FORWARDING}, ("rules",))
    rules = options.pop("rules")
    return lambda app: RewriteProxy(app, rules, **options)


def static(global_conf: Mapping[str, str], **local: str) -> Filter:
    """``root``, ``index``, ``prefix`` …: the options of ``StaticOrPass``."""
    options = _read(local, _STATIC, ("root",))
    return lambda app: StaticOrPass(app, **options)


def allow(global_conf: Mapping[str, str], **local: str) -> Filter:
    """``allow``, ``deny``: words; ``order``."""
    options = _read(local, {"allow": words, "deny": words, "order": text})
    return lambda app: IPAllowlist(app, **options)


def clientaddress(global_conf: Mapping[str, str], **local: str) -> Filter:
    """``trusted``, ``external``: words; ``header``, ``proto``."""
    options = _read(local, {"trusted": words, "external": words, "header": text, "proto": text})
    return lambda app: ClientAddress(app, **options)


def accesslog(global_conf: Mapping[str, str], **local: str) -> Filter:
    """``log``: a path; ``errors``, ``format``."""
    options = _read(local, {"log": text, "errors": text, "format": text}, ("log",))
    return lambda app: AccessLog(app, **options)


# -- applications: [app:name] use = egg:proxymw#pool, [composite:name] use = egg:proxymw#routes ----------------------


def pool(global_conf: Mapping[str, str], **local: str) -> WSGIApplication:
    """``name`` and ``members``, lines of URL and parameters; and the options of ``BalancerPool``."""
    key = (global_conf.get("__file__"), *sorted(local.items()))
    if key not in _pools:
        options = _read(local, {"name": text, **_POOL}, ("name", "members"))
        _pools[key] = BalancerPool(options.pop("members"), **options)
    return _pools[key]


def apache(global_conf: Mapping[str, str], **local: str) -> WSGIApplication:
    """``file``: an Apache configuration; ``lenient``."""
    from proxymw import apacheconf

    options = _read(local, {"file": text, "lenient": boolean}, ("file",))
    return apacheconf.load(options["file"], lenient=options.get("lenient", False))


def routes(loader: Any, global_conf: Mapping[str, str], **local: str) -> WSGIApplication:
    """Prefixes in order, each with a URL, ``!`` or the name of a section: ``/app/ = cluster``.

    ``app`` names the section that gets everything else; then the options of ``PrefixProxy``.
    """
    rules = {name: value for name, value in local.items() if name.startswith("/")}
    rest = {name: value for name, value in local.items() if name not in rules}
    options = _read(rest, {"app": text, **_FORWARDING})
    behind = options.pop("app", None)
    plain = re.compile(r"!|(?:https?://|unix:).*")
    return PrefixProxy(
        None if behind is None else loader.get_app(behind, global_conf=global_conf),
        [
            (name, value if plain.fullmatch(value) else loader.get_app(value, global_conf=global_conf))
            for name, value in rules.items()
        ],
        **options,
    )


def manager(loader: Any, global_conf: Mapping[str, str], **local: str) -> WSGIApplication:
    """``pools``: names of sections that are pools; ``allow``: who may; ``read_only``, ``hosts``."""
    readers: dict[str, Reader] = {"pools": words, "allow": words, "read_only": boolean, "hosts": words}
    options = _read(local, readers, ("pools", "allow"))
    pools = [loader.get_app(name, global_conf=global_conf) for name in options.pop("pools")]
    allowed = options.pop("allow")
    return IPAllowlist(BalancerManagerApp(pools, **options), allowed)
