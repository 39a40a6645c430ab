"""mod_proxy, mod_proxy_http, mod_proxy_balancer."""

from __future__ import annotations

import re

from proxymw.apacheconf import parameters
from proxymw.apacheconf.directives.core import check_regex, number, on_off
from proxymw.apacheconf.interpreter import (
    ANYWHERE,
    LOCATION,
    PROXY,
    SERVERS,
    Interpreter,
    directive,
    section,
)
from proxymw.apacheconf.lexer import Directive, Section
from proxymw.apacheconf.site import MemberLine, Pair, PassLine, Scope

PASSES = (*SERVERS, LOCATION)
DIRS = ANYWHERE


def balancer_name(url: str) -> str | None:
    """The name in ``balancer://name/path``, or None for another URL."""
    match = re.match(r"balancer://([^/]*)", url, re.I)
    return match[1].lower() if match else None


def _check(item: Directive, table: dict[str, object], key: str, value: str) -> None:
    try:
        parameters.parse(table, key, value)  # type: ignore[arg-type]
    except ValueError as error:
        raise item.error(str(error)) from None


# -- ProxyPass -----------------------------------------------------------------------------------------------------


@directive("ProxyPass", "ProxyPassMatch", where=PASSES, count=(1, None))
def proxy_pass(run: Interpreter, item: Directive, words: list[str]) -> None:
    regex = item.key == "proxypassmatch"
    if words[0] == "~" and not regex:
        regex, words = True, words[1:]
    line, rest = _split_pass(run, item, words)
    if regex and run.scope is None:
        check_regex(item, line.first)
    parameters_, flags, mapping = _pass_parameters(item, rest)
    if run.scope is not None and run.scope.regex:
        regex = True
    target = line.second
    if target != "!":
        _check_target(item, target)
        _pass_settings(run, item, target, parameters_)
    path = PassLine(
        line.first, target, item.place, regex, tuple(parameters_), "nocanon" in flags, mapping, "interpolate" in flags
    )
    if "interpolate" in flags:
        raise item.error("'interpolate' is not supported; write a RewriteRule with %{ENV:NAME} and [P]")
    if run.scope is None:
        run.server.passes.append(path)
    else:
        run.scope.settings.proxy_pass = path


def _split_pass(run: Interpreter, item: Directive, words: list[str]) -> tuple[Pair, list[str]]:
    """The path and target, and what follows; the path is left out in a <Location>."""
    plain: list[str] = []
    while words and len(plain) < 2 and not _is_parameter(words[0]):
        plain.append(words[0])
        words = words[1:]
    if run.scope is None:
        if len(plain) < 2:
            raise item.error("takes a path and a target (! or an absolute URL), needs a path when not in a <Location>")
        return Pair(plain[0], plain[1], item.place), words
    if len(plain) > 1 and not _is_parameter(plain[1]):
        raise item.error(f"must not have a path in a <Location>, got {plain[0]!r}")
    if not plain:
        raise item.error("takes a target (! or an absolute URL), got none")
    return Pair("", plain[0], item.place), words


def _is_parameter(word: str) -> bool:
    return word.lower() in ("nocanon", "interpolate", "noquery") or re.match(r"[A-Za-z]+=", word) is not None


def _pass_parameters(item: Directive, words: list[str]) -> tuple[list[tuple[str, str]], set[str], str]:
    out: list[tuple[str, str]] = []
    flags: set[str] = set()
    mapping = ""
    for word in words:
        key, equals, value = word.partition("=")
        if word.lower() in ("nocanon", "interpolate", "noquery"):
            flags.add(word.lower())
        elif not equals:
            raise item.error(f"a parameter must be key=value, got {word!r}")
        elif key.lower() == "mapping":
            if value.lower() not in ("encoded", "servlet"):
                raise item.error(f"mapping must be encoded or servlet, got {value!r}")
            mapping = value.lower()
        else:
            out.append((key.lower(), value))
    return out, flags, mapping


def _check_target(item: Directive, target: str) -> None:
    scheme = re.match(r"(?:unix:[^|]+\|)?([a-zA-Z][\w+.-]*)://", target)
    if scheme is None:
        raise item.error(f"the target must be ! or an absolute URL with scheme and host, got {target!r}")
    if scheme[1].lower() not in ("http", "https", "balancer", "ws", "wss"):
        raise item.error(f"the scheme must be http, https or balancer, got {target!r}")


def _pass_settings(run: Interpreter, item: Directive, target: str, given: list[tuple[str, str]]) -> None:
    name = balancer_name(target)
    for key, value in given:
        _check(item, parameters.BALANCER if name is not None else parameters.WORKER, key, value)  # type: ignore[arg-type]
    if name is not None:
        balancer = run.server.balancer(name, item.place)
        balancer.parameters.extend((key, value, item.place) for key, value in given)


@directive("ProxyPassReverse", where=PASSES, count=(1, 3))
def proxy_pass_reverse(run: Interpreter, item: Directive, words: list[str]) -> None:
    if words[-1].lower() == "interpolate":
        raise item.error("'interpolate' is not supported")
    if run.scope is not None:
        if len(words) != 1:
            raise item.error(f"must not have a path in a <Location>, got {words!r}")
        run.settings.reverses.append(Pair(run.scope.pattern, words[0], item.place))
    elif len(words) != 2:
        raise item.error(f"takes a path and a URL, got {words!r}")
    else:
        run.settings.reverses.append(Pair(words[0], words[1], item.place))


@directive("ProxyPassReverseCookieDomain", "ProxyPassReverseCookiePath", where=PASSES, count=(2, 3))
def cookie_map(run: Interpreter, item: Directive, words: list[str]) -> None:
    if len(words) > 2:
        raise item.error(f"takes an internal and a public value, got {words!r}")
    maps = run.settings.cookie_domains if item.key.endswith("domain") else run.settings.cookie_paths
    maps.append(Pair(words[0], words[1], item.place))


# -- how -----------------------------------------------------------------------------------------------------------


@directive("ProxyPreserveHost", where=DIRS)
def preserve_host(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.settings.preserve_host = on_off(item, words[0])


@directive("ProxyAddHeaders", where=DIRS)
def add_headers(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.settings.add_headers = on_off(item, words[0])


@directive("ProxyVia", where=SERVERS)
def proxy_via(run: Interpreter, item: Directive, words: list[str]) -> None:
    if words[0].lower() not in ("off", "on", "full", "block"):
        raise item.error(f"must be Off, On, Full or Block, got {words[0]!r}")
    run.server.via = words[0].lower()


@directive("ProxyErrorOverride", where=DIRS, count=(1, None))
def error_override(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.settings.error_override_on = on_off(item, words[0])
    codes = tuple(number(item, word, 400) for word in words[1:])
    if any(code > 599 for code in codes):
        raise item.error(f"the statuses must be between 400 and 599, got {words[1:]!r}")
    run.settings.error_override = codes


@directive("ProxyTimeout", where=SERVERS)
def proxy_timeout(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.proxy_timeout = float(number(item, words[0], 1))


@directive("ProxyMaxForwards", where=SERVERS)
def max_forwards(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.max_forwards = number(item, words[0], -1)


@directive("ProxyRequests", where=SERVERS)
def proxy_requests(run: Interpreter, item: Directive, words: list[str]) -> None:
    if on_off(item, words[0]):
        raise item.error("must be Off, got On: proxymw is a reverse proxy and never a forward proxy")


@directive("ProxyBadHeader", where=SERVERS)
def bad_header(run: Interpreter, item: Directive, words: list[str]) -> None:
    if words[0].lower() not in ("iserror", "ignore", "startbody"):
        raise item.error(f"must be IsError, Ignore or StartBody, got {words[0]!r}")
    if words[0].lower() != "iserror":
        run.warn(item, f"{words[0]} is without effect: a malformed answer is always an error")


@directive("BalancerPersist", where=SERVERS)
def balancer_persist(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.persist = on_off(item, words[0])


@directive("BalancerGrowth", where=SERVERS)
def balancer_growth(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.growth = number(item, words[0])
    if run.server.growth > 1000:
        raise item.error(f"must be between 0 and 1000, got {words[0]!r}")


@directive("BalancerInherit", "ProxyPassInherit", where=SERVERS)
def inherit(run: Interpreter, item: Directive, words: list[str]) -> None:
    if not on_off(item, words[0]):
        raise item.error("must be On: what the main server says holds in every virtual host")


# -- balancers -----------------------------------------------------------------------------------------------------


@section("Proxy", "ProxyMatch", where=SERVERS)
def proxy(run: Interpreter, item: Directive, words: list[str]) -> None:
    assert isinstance(item, Section)
    regex = item.key == "proxymatch"
    if words and words[0] == "~":
        regex, words = True, words[1:]
    if not words:
        raise item.error("takes a URL or a pattern, got none")
    url = words[0]
    if regex:
        check_regex(item, url)
    scope = Scope("proxy", url, regex, item.place)
    run.server.proxies.append(scope)
    name = None if regex else balancer_name(url)
    if name is not None:
        run.balancer = run.server.balancer(name, item.place)
        _set_all(run, item, words[1:])
    elif not regex and re.match(r"(unix:[^|]*\|)?https?://", url):
        run.worker = url
    with run.inside(PROXY, scope):
        run.run(item.children)
    run.balancer = run.worker = None


@directive("BalancerMember", where=(*SERVERS, PROXY), count=(1, None))
def balancer_member(run: Interpreter, item: Directive, words: list[str]) -> None:
    balancer = run.balancer
    if balancer is None:
        name = balancer_name(words[0])
        if run.place == PROXY or name is None or len(words) < 2:
            raise item.error("must stand in <Proxy balancer://name>, or name the balancer before the URL")
        balancer, words = run.server.balancer(name, item.place), words[1:]
    url = words[0]
    if not re.match(r"(unix:[^|]+\|)?https?://[^/]", url, re.I):
        raise item.error(f"the member must be an http:// or https:// URL, got {url!r}")
    given = []
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals:
            raise item.error(f"a parameter must be key=value, got {word!r}")
        _check(item, parameters.MEMBER, key, value)  # type: ignore[arg-type]
        given.append((key.lower(), value))
    for member in balancer.members:
        # The same URL again is the same member: its parameters are set once more.
        if member.url.lower() == url.lower():
            member.parameters.extend(given)
            return
    balancer.members.append(MemberLine(url, given, item.place))


@directive("ProxySet", where=(*SERVERS, PROXY, LOCATION), count=(1, None))
def proxy_set(run: Interpreter, item: Directive, words: list[str]) -> None:
    if run.place != PROXY:
        name = balancer_name(words[0])
        held = (run.balancer, run.worker)
        if name is not None:
            run.balancer = run.server.balancer(name, item.place)
        elif re.match(r"https?://", words[0]):
            run.worker = words[0]
        else:
            raise item.error("must stand in a <Proxy> section or name its URL first")
        _set_all(run, item, words[1:])
        run.balancer, run.worker = held
        return
    _set_all(run, item, words)


def _set_all(run: Interpreter, item: Directive, words: list[str]) -> None:
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise item.error(f"a parameter must be key=value, got {word!r}")
        if run.balancer is not None:
            _check(item, parameters.BALANCER, key, value)  # type: ignore[arg-type]
            run.balancer.parameters.append((key.lower(), value, item.place))
        elif run.worker is not None:
            _check(item, parameters.WORKER, key, value)  # type: ignore[arg-type]
            run.server.workers.setdefault(run.worker, []).append((key.lower(), value, item.place))
        else:
            raise item.error("must stand in <Proxy balancer://name> or <Proxy http://host>")
