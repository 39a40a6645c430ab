"""RewriteRule, RewriteCond and RewriteMap lines as RewriteProxy."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from proxymw.apacheconf.conditions import Holds, OneOf
from proxymw.apacheconf.lexer import ConfFileError, Place, as_path
from proxymw.apacheconf.perdirectory import DirectoryRewrite
from proxymw.apacheconf.site import CondLine, Warned
from proxymw.errors import ConfigError, ConfigWarning
from proxymw.rewrite import RewriteProxy
from proxymw.rules.origins import Origin
from proxymw.rules.rewriting import INTERNAL_MAPS, RewriteCond, RewriteRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed.wsgi import WSGIApplication

    from proxymw.apacheconf.build import HostParts
    from proxymw.apacheconf.fallback import Fallback
    from proxymw.apacheconf.site import RuleLine, Server, Settings
    from proxymw.rules.policy import Policy
    from proxymw.static import StaticOrPass

    Lookup = Callable[[str], str | None]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_MAP_HOST = re.compile(r"(https?://)(\$\{(\w+):((?:[^{}|]|\$\{[^}]*\})*)(?:\|([^{}]*))?\})(.*)", re.S | re.I)
_MAP_USED = re.compile(r"\$\{([A-Za-z0-9_-]+):")
_OWN_STATUS = re.compile(r"(?:^|,)\s*(?:f|forbidden|g|gone|r=[12456]\d\d|redirect=[12456]\d\d)\s*(?:,|$)", re.I)


def rewrite_proxy(
    app: WSGIApplication, local: WSGIApplication, server: Server, settings: Settings, parts: HostParts, policy: Policy
) -> WSGIApplication:
    """``app`` behind the server's rewrite rules; ``local`` answers for a path that was rewritten without [PT]."""
    lines = server.rewriting.rules
    if not lines:
        return app
    return _made(
        lines,
        settings,
        parts,
        policy,
        # What is switched off is checked all the same.
        lambda rules, options: RewriteProxy(app, rules, local=local, **options) if server.rewriting.engine else app,
    )


def directory_rewrite(
    files: StaticOrPass | Fallback, settings: Settings, parts: HostParts, *, strip: str, lead: str, folder: str
) -> WSGIApplication:
    """``files`` behind the rewrite rules of a section."""
    rewriting = settings.rewriting
    if rewriting is None or not rewriting.engine or not rewriting.rules:
        return files
    lines = rewriting.rules if lead else [relocated(line, folder) for line in rewriting.rules]
    return _made(
        lines,
        settings,
        parts,
        parts.policy,
        lambda rules, options: DirectoryRewrite(files, rules, strip=strip, lead=lead, **options),
    )


def _made(
    lines: list[RuleLine],
    settings: Settings,
    parts: HostParts,
    policy: Policy,
    make: Callable[[list[RewriteRule], dict[str, Any]], WSGIApplication],
) -> WSGIApplication:
    """What rules of any section need, and their errors at the lines that they came from."""
    server = parts.server
    maps = maps_of(server, parts, lines)
    made = [(line, rule) for line in lines for rule in rules_of(line, server, maps, parts)]
    back = parts.back(settings)
    options: dict[str, Any] = {
        "document_root": _root(server, parts),
        "server_name": server.name or None,
        "maps": maps,
        "balancers": parts.pools.values(),
        "reverse": back.reverse,
        "cookie_domains": back.cookie_domains,
        "cookie_paths": back.cookie_paths,
        "policy": policy,
        "preserve_host": bool(settings.preserve_host),
        "retry": parts.retry,
        "websocket": False,
        **parts.clocks(),
    }
    try:
        # What Apache takes without a word it takes here too.
        with warnings.catch_warnings(action="ignore", category=ConfigWarning):
            return make([rule for _, rule in made], options)
    except ConfigError as error:
        number = re.search(r"\brule (\d+)", str(error))
        line = made[int(number[1]) - 1][0] if number else lines[0]
        raise ConfFileError(line.place, "RewriteRule", str(error)) from None


def _root(server: Server, parts: HostParts) -> str | None:
    return None if server.document_root is None else parts.builder.path(*server.document_root)


# -- rules ---------------------------------------------------------------------------------------------------------


def rules_of(line: RuleLine, server: Server, maps: Mapping[str, Any], parts: HostParts) -> Iterator[RewriteRule]:
    """The rules that stand for one line: one, or one for each value of a map that names the host."""
    conditions = [_condition(cond) for cond in _effective(line.conditions)]
    target, flags = _target(line)
    if not _has(flags, "r", "redirect") and not _OWN_STATUS.search(flags):
        named = _MAP_HOST.fullmatch(target)
        if named is not None:
            yield from _by_map(line, flags, conditions, named, maps, parts)
            return
        if _runs_into_host(line, target, server):
            yield _failing(line, flags, conditions, 500, parts)
            return
    yield _rule(line, target, flags, conditions)


def _rule(line: RuleLine, target: str, flags: str, conditions: list[RewriteCond]) -> RewriteRule:
    try:
        return RewriteRule(line.pattern, target, flags, conditions)
    except ConfigError as error:
        raise ConfFileError(line.place, "RewriteRule", str(error)) from None


def _failing(
    line: RuleLine, flags: str, conditions: list[RewriteCond], status: int, parts: HostParts, why: str = ""
) -> RewriteRule:
    """A rule that takes what the line takes, and answers what httpd does when such a request fails."""
    why = why or "the target has no host of its own, or text of the request would run into it"
    text = f"{line.target}: {why}; such requests are answered {status}"
    parts.builder.site.warnings.append(Warned(line.place, "RewriteRule", text))
    kept = [flag for flag in flags.split(",") if flag.strip().lower() in ("nc", "nocase", "c", "chain")]
    return _rule(line, "-", ",".join([*kept, f"R={status}"]), conditions)


def _has(flags: str, *names: str) -> bool:
    return any(flag.partition("=")[0].strip().lower() in names for flag in flags.split(","))


def _target(line: RuleLine) -> tuple[str, str]:
    """Target and flags, as RewriteRule reads them: an absolute URL without [P] is a redirect that says so."""
    target, flags = line.target, line.flags
    scheme = _SCHEME.match(target)
    if target == "-" and _has(flags, "p", "proxy"):
        # httpd finds nothing to proxy to and goes on as if nothing had been said.
        flags = ",".join(flag for flag in flags.split(",") if flag.strip().lower() not in ("p", "proxy"))
        flags = flags + ",L" if flags else "L"
    elif scheme and not _has(flags, "p", "proxy", "r", "redirect") and scheme[1].lower() != "balancer":
        flags = flags + ",R" if flags else "R"
    if scheme and _has(flags, "p", "proxy"):
        # User information is taken off and never sent.
        target = re.sub(r"^(https?://)[^/@${%]*@", r"\1", target, flags=re.I)
    return target, flags


def _runs_into_host(line: RuleLine, target: str, server: Server) -> bool:
    """Whether a proxied target is one whose requests fail in httpd: no literal host, no such balancer or scheme."""
    if not _has(line.flags, "p", "proxy"):
        return False
    scheme = _SCHEME.match(target)
    if scheme is None:
        return target != "-"
    name = scheme[1].lower()
    if name == "balancer":
        return target[scheme.end() :].partition("/")[0].lower() not in server.balancers
    if name not in ("http", "https", "ws", "wss"):
        return True
    try:
        RewriteRule(line.pattern.removeprefix("!"), target, "P")
    except ConfigError as error:
        return "literal host" in str(error) or "must name a host" in str(error)
    return False


def _by_map(
    line: RuleLine,
    flags: str,
    conditions: list[RewriteCond],
    named: re.Match[str],
    maps: Mapping[str, Any],
    parts: HostParts,
) -> Iterator[RewriteRule]:
    """``http://${map:key}/…`` as a rule for each value of the map: the authority stays configuration."""
    scheme, _, name, key, default, rest = named.groups()
    table = maps.get(name)
    if not isinstance(table, Mapping):
        yield _failing(line, flags, conditions, 500, parts, "the host must be literal or come from a txt: map")
        return
    for value in dict.fromkeys([*table.values(), *([default] if default else [])]):
        if _is_authority(scheme + value):
            test = RewriteCond(f"${{{name}:{key}{'|' + default if default else ''}}}", "=" + value)
            yield _rule(line, scheme + value + rest, flags, [*conditions, test])
    # Nothing is left but a host that is none.
    yield _failing(line, flags, conditions, 400, parts, "the map has no host for some keys")


def _is_authority(url: str) -> bool:
    try:
        return not Origin.parse(url).base
    except ConfigError:
        return False


# -- conditions ----------------------------------------------------------------------------------------------------


def _effective(conditions: tuple[CondLine, ...]) -> list[CondLine]:
    """The conditions without a last group that ends in [OR]: httpd takes that one for true, whatever it says."""
    kept = list(conditions)
    while kept and _has(kept[-1].flags, "or", "ornext"):
        kept.pop()
    return kept


def _condition(cond: CondLine) -> RewriteCond:
    try:
        if cond.test == "expr":
            return RewriteCond("expr", Holds(cond.pattern), cond.flags)
        return RewriteCond(cond.test, cond.pattern, cond.flags)
    except (ConfigError, ValueError) as error:
        raise ConfFileError(cond.place, "RewriteCond", str(error)) from None


# -- maps ----------------------------------------------------------------------------------------------------------


def maps_of(server: Server, parts: HostParts, lines: list[RuleLine]) -> dict[str, Any]:
    """The server's maps by name; one that rules speak of and nobody made gives nothing for every key."""
    maps: dict[str, Any] = {}
    for name, (source, place) in server.maps.items():
        kind, _, rest = source.partition(":")
        if kind == "int":
            maps[name] = INTERNAL_MAPS[rest]
        else:
            table = read_map(parts.builder.path(rest, place), rest, place)
            maps[name] = table if kind == "txt" else OneOf(table)
    for line in lines:
        for text in (line.target, *(cond.test for cond in line.conditions)):
            for name in _MAP_USED.findall(text):
                maps.setdefault(name, {})
    return maps


def read_map(path: str, text: str, place: Place) -> dict[str, str]:
    """A txt: map: key, blanks, value; what comes third is left out, the first line of a key wins."""
    try:
        with open(as_path(path), "rb") as stream:
            data = stream.read(16 << 20).decode("latin-1")
    except OSError as error:
        raise ConfFileError(place, "RewriteMap", f"cannot read {text}: {error.strerror}") from None
    table: dict[str, str] = {}
    for line in data.split("\n"):
        if line[:1] and not line[0].isspace() and not line.startswith("#"):
            words = line.split(None, 2)
            if len(words) > 1:
                table.setdefault(words[0], words[1])
    return table


def relocated(line: RuleLine, folder: str) -> RuleLine:
    """A rule of a ``<Directory>``: the file that a request means has the folder's path in front of it."""
    folder = folder.rstrip(os.sep) + "/"
    conditions = tuple(
        replace(cond, test=re.sub(r"%\{(?:REQUEST|SCRIPT)_FILENAME\}", lambda m: folder + m[0], cond.test))
        for cond in line.conditions
    )
    return replace(line, conditions=conditions)
