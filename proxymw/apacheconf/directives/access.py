"""Who may: mod_access_compat and mod_authz_host."""

from __future__ import annotations

from dataclasses import replace

from proxymw.apacheconf.addresses import parse_client, parse_network
from proxymw.apacheconf.interpreter import DIRECTORY, LOCATION, PROXY, SERVERS, Interpreter, directive, section
from proxymw.apacheconf.lexer import Directive, Section
from proxymw.apacheconf.site import Access, Entry, Requirement

PLACES = (*SERVERS, LOCATION, DIRECTORY, PROXY)
_ORDERS = ("allow,deny", "deny,allow", "mutual-failure")


def _access(run: Interpreter) -> Access:
    if run.settings.access is None:
        run.settings.access = Access()
    return run.settings.access


@directive("Order", where=PLACES, takes="'allow,deny', 'deny,allow' or 'mutual-failure', without a blank")
def order(run: Interpreter, item: Directive, words: list[str]) -> None:
    word = words[0].lower()
    if word not in _ORDERS:
        raise item.error(f"must be one of {', '.join(_ORDERS)}, got {words[0]!r}")
    access = _access(run)
    if run.limit is None:
        access.order = word
    else:
        access.limited_orders.append((word, run.limit))


@directive("Allow", "Deny", where=PLACES, count=(0, None))
def allow_deny(run: Interpreter, item: Directive, words: list[str]) -> None:
    if len(words) < 2 or words[0].lower() != "from":
        raise item.error("takes 'from' followed by addresses, networks, host names, all or env=NAME")
    access = _access(run)
    entries = access.allow if item.key == "allow" else access.deny
    for word in words[1:]:
        _check_client(run, item, word)
        entry = Entry(word, item.place)
        if run.limit is not None:
            entry = replace(run.limit, text=word, place=item.place)
        entries.append(entry)


def _check_client(run: Interpreter, item: Directive, word: str) -> None:
    try:
        client = parse_client(word)
    except ValueError as error:
        raise item.error(str(error)) from None
    if client.kind == "host" and item.key == "deny":
        # A deny by name that cannot be looked up would let everyone in.
        raise item.error(f"must be addresses, networks, all or env=NAME (names are not looked up), got {word!r}")
    if client.kind == "host":
        run.warn(item, f"{word} is a host name: names are not looked up, so it matches nobody")


@directive("Satisfy", where=PLACES)
def satisfy(run: Interpreter, item: Directive, words: list[str]) -> None:
    if words[0].lower() not in ("all", "any"):
        raise item.error(f"must be All or Any, got {words[0]!r}")
    _access(run).satisfy = words[0].lower()


_PROVIDERS = {
    "all": "granted or denied",
    "ip": "addresses and networks",
    "host": "host names",
    "local": "nothing more",
    "env": "names of environment variables",
    "method": "methods",
}


@directive("Require", where=PLACES, count=(1, None))
def require(run: Interpreter, item: Directive, words: list[str]) -> None:
    negated = words[0].lower() == "not"
    kind, values = words[1 if negated else 0 :][:1], tuple(words[2 if negated else 1 :])
    name = kind[0].lower() if kind else ""
    if name not in _PROVIDERS:
        raise item.error(f"must be {', '.join(_PROVIDERS)} (no users, no expressions), got {item.text!r}")
    if name == "all" and (len(values) != 1 or values[0].lower() not in ("granted", "denied")):
        raise item.error(f"'all' takes granted or denied, got {' '.join(values)!r}")
    if name == "local" and values:
        raise item.error(f"'local' takes nothing more, got {' '.join(values)!r}")
    if name not in ("all", "local") and not values:
        raise item.error(f"{name!r} takes {_PROVIDERS[name]}, got nothing")
    _check_values(run, item, name, values, negated)
    _add(run, Requirement(name, item.place, values, negated, limit=run.limit), item)


def _check_values(run: Interpreter, item: Directive, name: str, values: tuple[str, ...], negated: bool) -> None:
    if name == "host" and negated:
        raise item.error("'not host' is not supported: names are not looked up")
    if name == "host":
        run.warn(item, "names are not looked up, so it matches nobody")
    for value in values if name == "ip" else ():
        try:
            parse_network(value)
        except ValueError as error:
            raise item.error(str(error)) from None


def _add(run: Interpreter, requirement: Requirement, item: Directive) -> None:
    if run.containers:
        container = run.containers[-1]
        if requirement.negated and container.kind == "requireany":
            raise item.error("a negated Require only makes sense in <RequireAll>")
        container.children.append(requirement)
        return
    if requirement.negated:
        raise item.error("a negated Require only makes sense in <RequireAll>")
    if run.settings.require is None:
        run.settings.require = []
    run.settings.require.append(requirement)


@section("RequireAll", "RequireAny", "RequireNone", where=PLACES)
def require_container(run: Interpreter, item: Directive, words: list[str]) -> None:
    assert isinstance(item, Section)
    if words:
        raise item.error(f"takes no arguments, got {words!r}")
    container = Requirement(item.key, item.place, limit=run.limit)
    run.containers.append(container)
    for child in item.children:
        if child.key != "require" and not child.key.startswith("require"):
            raise child.error(f"only Require may stand in {item.title}")
    run.run(item.children)
    run.containers.pop()
    if not container.children:
        raise item.error("must have at least one Require in it")
    if item.key == "requireall" and all(child.negated or child.kind == "requirenone" for child in container.children):
        raise item.error("must have at least one Require that is not negated")
    _add(run, container, item)


@directive("AuthMerging", where=PLACES)
def auth_merging(run: Interpreter, item: Directive, words: list[str]) -> None:
    if words[0].lower() != "off":
        raise item.error(f"must be Off (a section's Require replaces the inherited ones), got {words[0]!r}")
