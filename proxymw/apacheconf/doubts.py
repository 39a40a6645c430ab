"""What httpd accepts and people regret."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from proxymw.apacheconf.directives.proxy import balancer_name
from proxymw.apacheconf.lexer import as_path
from proxymw.apacheconf.pools import idle_parameters
from proxymw.apacheconf.site import PassLine, Server, Site, Warned, inherit
from proxymw.rules.matchers import PrefixTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxymw.apacheconf.lexer import Place


def doubts(site: Site) -> Iterator[Warned]:
    """Warnings about a site that could be built."""
    found: list[Warned] = []
    idle_parameters(site, lambda place, name, text: found.append(Warned(place, name, text)))
    yield from found
    for server in [inherit(site.main, host) for host in site.hosts] or [site.main]:
        yield from _roots(site, server)
        yield from _targets(server)
        yield from _shadowed(server)
        yield from _exclusions(server)
        yield from _managers(server)
        yield from _balancers(server)
        yield from _rules(server)
        yield from _formats(server)


def _roots(site: Site, server: Server) -> Iterator[Warned]:
    if server.document_root is not None:
        text, place = server.document_root
        path = os.path.join(site.server_root or os.path.dirname(place.file), as_path(text))
        if not os.path.isdir(path):
            yield Warned(place, "DocumentRoot", f"{text} does not exist: its paths are answered 404")


def _targets(server: Server) -> Iterator[Warned]:
    for line in server.passes:
        if line.target == "!" or line.regex:
            continue
        base = re.sub(r"^(?:unix:[^|]*\|)?[A-Za-z][\w+.-]*://[^/]*", "", line.target)
        if line.path.endswith("/") and not base:
            what = "host" if balancer_name(line.target) is None else "name of the balancer"
            yield Warned(
                line.place, "ProxyPass",
                f"what follows {line.path} would run into the {what} of {line.target}: such requests are answered 500; "
                f"write {line.target}/",
            )  # fmt: skip
        elif line.path.endswith("/") != base.endswith("/") and (base or line.path.endswith("/")):
            yield Warned(
                line.place, "ProxyPass",
                f"{line.path} and {line.target} do not both end with a slash; what follows is put on as it stands",
            )  # fmt: skip
        if "?" in base or "#" in base:
            yield Warned(line.place, "ProxyPass", f"the ? or # in {line.target} is sent as part of the path (%3F)")
        if "@" in line.target.partition("://")[2].partition("/")[0]:
            yield Warned(line.place, "ProxyPass", "the user name in the target is never sent")


def _literal(server: Server) -> list[PassLine]:
    return [line for line in server.passes if not line.regex and line.path.startswith("/")]


def _shadowed(server: Server) -> Iterator[Warned]:
    lines = _literal(server)
    table = PrefixTable((line.path, line) for line in lines)
    for later, earlier in table.shadowed():
        late, early = lines[later], lines[earlier]
        if early.target != "!" and late.target == "!":
            yield Warned(
                late.place, "ProxyPass", f"comes after {early.path}, from which it exempts: no effect; move it up"
            )
        else:
            yield Warned(
                late.place, "ProxyPass", f"{late.path} is never reached: {early.path} at {early.place} takes all of it"
            )


def _exclusions(server: Server) -> Iterator[Warned]:
    if not server.rewriting.engine:
        return
    proxied = [rule for rule in server.rewriting.rules if re.search(r"(?:^|,)\s*(P|proxy)\s*(?:,|$)", rule.flags, re.I)]
    for line in _literal(server):
        for rule in proxied:
            if line.target == "!" and _searches(rule.pattern, line.path.rstrip("/") + "/x"):
                yield Warned(line.place, "ProxyPass", f"the exclusion does not stop the RewriteRule at {rule.place}")
                break


def _searches(pattern: str, path: str) -> bool:
    from proxymw.errors import ConfigError
    from proxymw.rules.patterns import compile_pattern

    negated = pattern.startswith("!")
    try:
        return (compile_pattern(pattern.removeprefix("!")).search(path) is not None) != negated
    except ConfigError:
        return False


def _managers(server: Server) -> Iterator[Warned]:
    table = PrefixTable((line.path, line) for line in _literal(server))
    for scope in server.locations:
        if scope.settings.handler != "balancer-manager" or scope.regex:
            continue
        found = table.match(scope.pattern)
        if found is not None and found[0].target != "!":
            yield _proxied_manager(scope.place, scope.pattern, f"ProxyPass {found[0].path} at {found[0].place}")
            continue
        for rule in server.rewriting.rules if server.rewriting.engine else ():
            if _proxies(rule.flags) and not rule.conditions and _searches(rule.pattern, scope.pattern):
                yield _proxied_manager(scope.place, scope.pattern, f"the RewriteRule at {rule.place}")
                break
        if scope.settings.access is None and scope.settings.require is None:
            yield Warned(
                scope.place, "<Location>",
                f"nobody may use the manager at {scope.pattern} until Require or Allow says who",
            )  # fmt: skip


def _proxies(flags: str) -> bool:
    return re.search(r"(?:^|,)\s*(?:P|proxy)\s*(?:,|$)", flags, re.I) is not None


def _proxied_manager(place: Place, path: str, by: str) -> Warned:
    return Warned(
        place, "<Location>",
        f"the manager's path {path} is itself proxied by {by}; put 'ProxyPass {path} !' before it",
    )  # fmt: skip


def _balancers(server: Server) -> Iterator[Warned]:
    for line in server.passes:
        name = balancer_name(line.target)
        if name is not None and name not in server.balancers:
            yield Warned(line.place, "ProxyPass", f"there is no balancer://{name}: its requests are answered 500")
    for balancer in server.balancers.values():
        usable = [
            member
            for member in balancer.members
            if not set("".join(text for key, text in member.parameters if key == "status").upper()) & set("DS")
        ]
        if not usable:
            yield Warned(
                balancer.place, f"<Proxy balancer://{balancer.name}>", "no member is usable: requests are answered 503"
            )


def _rules(server: Server) -> Iterator[Warned]:
    if server.rewriting.rules and server.rewriting.engine is None:
        rule = server.rewriting.rules[0]
        yield Warned(rule.place, "RewriteRule", "has no effect without RewriteEngine On")
    for rule in server.rewriting.rules:
        dropped = re.search(r"\\\.([A-Za-z0-9]+)\$$", rule.pattern)
        if dropped and _proxies(rule.flags) and rule.target.partition("?")[0].endswith("$1"):
            yield Warned(
                rule.place, "RewriteRule", f"the pattern takes .{dropped[1]} off and the target does not put it back"
            )
        if rule.conditions and re.search(r"\bOR\b|ornext", rule.conditions[-1].flags, re.I):
            yield Warned(rule.conditions[-1].place, "RewriteCond", "an [OR] on the last condition makes it always true")


def _formats(server: Server) -> Iterator[Warned]:
    for line in server.logs:
        if line.format and "%" not in line.format and line.format not in (*server.formats, "json"):
            yield Warned(line.place, "CustomLog", f"there is no LogFormat {line.format}: the word itself is logged")
