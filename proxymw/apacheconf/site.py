"""What a configuration says, as plain values: the Site that :mod:`~proxymw.apacheconf.build` turns into middlewares."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proxymw.apacheconf.lexer import Place


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that is accepted and that one may regret."""

    place: Place
    directive: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.directive}: warning: {self.text}"


# -- per directory, location, file ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing after ``Allow from`` or ``Deny from``; ``methods`` is the ``<Limit>`` around it."""

    text: str
    place: Place
    methods: frozenset[str] | None = None
    #: ``<LimitExcept>``: every method but these.
    excepted: bool = False

    def concerns(self, method: str) -> bool:
        if self.methods is None:
            return True
        # In <Limit>, GET stands for HEAD too.
        return (("GET" if method == "HEAD" else method) in self.methods) != self.excepted


@dataclass(slots=True)
class Access:
    """Order, Allow and Deny of one section."""

    order: str = "deny,allow"
    #: Order inside a <Limit> is for those methods only.
    limited_orders: list[tuple[str, Entry]] = field(default_factory=list)
    allow: list[Entry] = field(default_factory=list)
    deny: list[Entry] = field(default_factory=list)
    satisfy: str = "all"

    def order_for(self, method: str) -> str:
        for order, limit in reversed(self.limited_orders):
            if limit.concerns(method):
                return order
        return self.order

    def limited(self) -> bool:
        return bool(self.limited_orders) or any(entry.methods is not None for entry in (*self.allow, *self.deny))


@dataclass(slots=True)
class Requirement:
    """``Require …`` (with ``values``), or a ``<RequireAll>`` and the like (with ``children``)."""

    kind: str
    place: Place
    values: tuple[str, ...] = ()
    negated: bool = False
    children: list[Requirement] = field(default_factory=list)
    limit: Entry | None = None


@dataclass(frozen=True, slots=True)
class HeaderLine:
    """A Header or RequestHeader directive."""

    action: str
    name: str
    value: str
    place: Place
    always: bool = False
    #: ``NAME``, ``!NAME`` or empty: the environment variable the line depends on.
    env: str = ""
    replacement: str = ""


@dataclass(frozen=True, slots=True)
class PassLine:
    """A ProxyPass or ProxyPassMatch, wherever it stands; ``path`` is empty in a ``<Location>``."""

    path: str
    target: str
    place: Place
    regex: bool = False
    parameters: tuple[tuple[str, str], ...] = ()
    nocanon: bool = False
    mapping: str = ""
    interpolate: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """Two strings of a directive that comes in a list: ProxyPassReverse, Alias, cookie maps."""

    first: str
    second: str
    place: Place


@dataclass(frozen=True, slots=True)
class RedirectLine:
    pattern: str
    target: str
    status: int
    place: Place
    regex: bool = False


@dataclass(frozen=True, slots=True)
class SetEnvLine:
    """SetEnv, UnsetEnv, SetEnvIf and relatives; ``attribute`` is empty for the unconditional ones."""

    attribute: str
    pattern: str
    nocase: bool
    #: (name, value), value None: remove.
    variables: tuple[tuple[str, str | None], ...]
    place: Place


@dataclass(frozen=True, slots=True)
class CondLine:
    test: str
    pattern: str
    flags: str
    place: Place


@dataclass(frozen=True, slots=True)
class RuleLine:
    pattern: str
    target: str
    flags: str
    conditions: tuple[CondLine, ...]
    place: Place


@dataclass(slots=True)
class Rewriting:
    engine: bool | None = None
    rules: list[RuleLine] = field(default_factory=list)
    options: set[str] = field(default_factory=set)
    pending: list[CondLine] = field(default_factory=list)
    base: str | None = None


@dataclass(slots=True)
class Settings:
    """What may stand in a directory, location or file section; ``None`` means not said there.

    Lists are appended to when sections are merged, everything else is replaced by the later one.
    """

    access: Access | None = None
    require: list[Requirement] | None = None
    handler: str | None = None
    headers: list[HeaderLine] = field(default_factory=list)
    request_headers: list[HeaderLine] = field(default_factory=list)
    error_documents: dict[int, str] = field(default_factory=dict)
    directory_index: tuple[str, ...] | None = None
    directory_slash: bool | None = None
    fallback: str | None = None
    file_etag: tuple[str, ...] | None = None
    accept_path_info: bool | None = None
    options: tuple[str, ...] | None = None
    types: dict[str, str] = field(default_factory=dict)
    force_type: str | None = None
    proxy_pass: PassLine | None = None
    reverses: list[Pair] = field(default_factory=list)
    cookie_domains: list[Pair] = field(default_factory=list)
    cookie_paths: list[Pair] = field(default_factory=list)
    preserve_host: bool | None = None
    add_headers: bool | None = None
    #: () for every error status.
    error_override: tuple[int, ...] | None = None
    error_override_on: bool | None = None
    env: list[SetEnvLine] = field(default_factory=list)
    rewriting: Rewriting | None = None
    body_limit: int | None = None
    canonical_name: bool | None = None

    def merged(self, later: Settings) -> Settings:
        """These settings overridden and extended by those of a more specific, or later, section."""
        values: dict[str, Any] = {}
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(later, item.name)
            if isinstance(mine, list) and isinstance(theirs, list) and item.name != "require":
                values[item.name] = [*mine, *theirs]
            elif isinstance(mine, dict):
                values[item.name] = {**mine, **theirs}
            elif item.name == "options" and mine is not None and theirs is not None:
                values[item.name] = merge_options(mine, theirs)
            else:
                values[item.name] = mine if theirs is None else theirs
        return Settings(**values)


def merge_options(base: tuple[str, ...], later: tuple[str, ...]) -> tuple[str, ...]:
    """``Options``: words with a sign change the inherited ones, words without replace them."""
    if not later or later[0][0] not in "+-":
        return later
    kept = [word for word in base if word[0] not in "+-"]
    for word in later:
        name = word[1:]
        kept = [other for other in kept if other != name]
        if word[0] == "+":
            kept.append(name)
    return tuple(kept)


def merge_all(parts: Iterable[Settings]) -> Settings:
    merged = Settings()
    for part in parts:
        merged = merged.merged(part)
    return merged


@dataclass(slots=True)
class Scope:
    """A ``<Location>``, ``<Directory>``, ``<Files>`` or ``<Proxy>`` section: what it covers and what it says."""

    kind: str
    pattern: str
    regex: bool
    place: Place
    settings: Settings = field(default_factory=Settings)
    #: Of a ``<Directory>``: the ``<Files>`` inside it.
    inner: list[Scope] = field(default_factory=list)

    def plain(self) -> bool:
        """Whether the pattern is a path and nothing else."""
        return not self.regex and not re.search(r"[*?\[]", self.pattern) and "//" not in self.pattern

    def covers(self, path: str) -> bool:
        """Whether the section is about this URL path (of a Location), file path (Directory) or name (Files)."""
        if self.regex:
            return re.search(self.pattern, path, re.S) is not None
        if self.kind == "files":
            return fnmatch.fnmatchcase(path, self.pattern)
        pattern = self.pattern
        if re.search(r"[*?\[]", pattern):
            return re.match(_glob(pattern), path, re.S) is not None
        if self.kind == "directory":
            pattern = pattern.rstrip("/") + "/"
            return (path.rstrip("/") + "/").startswith(pattern)
        following = path[len(pattern) : len(pattern) + 1]
        return path.startswith(pattern) and (pattern.endswith("/") or following in ("", "/"))


def _glob(pattern: str) -> str:
    """fnmatch with FNM_PATHNAME: a wildcard does not cross a slash; what follows the match must begin with one."""
    out = ""
    for token in re.findall(r"\[[^\]/]+\]|.", pattern, re.S):
        if token == "*":
            out += "[^/]*"
        elif token == "?":
            out += "[^/]"
        elif len(token) > 1:
            out += "[" + token[1:-1].replace("!", "^", 1 if token[1] == "!" else 0).replace("\\", "\\\\") + "]"
        else:
            out += re.escape(token)
    return out + r"(?=/|\Z)"


# -- servers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogLine:
    """A CustomLog: ``format`` is a name or a format string."""

    path: str
    format: str
    place: Place
    condition: str = ""


@dataclass(slots=True)
class MemberLine:
    url: str
    parameters: list[tuple[str, str]]
    place: Place


@dataclass(slots=True)
class Balancer:
    name: str
    place: Place
    members: list[MemberLine] = field(default_factory=list)
    parameters: list[tuple[str, str, Place]] = field(default_factory=list)


@dataclass(slots=True)
class Server:
    """The main server or one ``<VirtualHost>``."""

    place: Place
    addresses: tuple[str, ...] = ()
    name: str = ""
    port: int | None = None
    scheme: str = ""
    aliases: list[str] = field(default_factory=list)
    admin: str = ""
    document_root: tuple[str, Place] | None = None
    error_log: tuple[str, Place] | None = None
    logs: list[LogLine] = field(default_factory=list)
    formats: dict[str, str] = field(default_factory=dict)
    default_format: str | None = None
    passes: list[PassLine] = field(default_factory=list)
    alias_map: list[tuple[Pair, bool]] = field(default_factory=list)
    redirects: list[RedirectLine] = field(default_factory=list)
    rewriting: Rewriting = field(default_factory=Rewriting)
    maps: dict[str, tuple[str, Place]] = field(default_factory=dict)
    balancers: dict[str, Balancer] = field(default_factory=dict)
    #: Parameters given by ``ProxySet`` in ``<Proxy http://…>``.
    workers: dict[str, list[tuple[str, str, Place]]] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    locations: list[Scope] = field(default_factory=list)
    directories: list[Scope] = field(default_factory=list)
    files: list[Scope] = field(default_factory=list)
    proxies: list[Scope] = field(default_factory=list)
    via: str | None = None
    proxy_timeout: float | None = None
    timeout: float | None = None
    encoded_slashes: str | None = None
    merge_slashes: bool | None = None
    trace: str | None = None
    strict_host: bool | None = None
    max_forwards: int | None = None
    remote_header: str | None = None
    trusted: list[str] = field(default_factory=list)
    internal: list[str] = field(default_factory=list)
    persist: bool | None = None
    growth: int | None = None

    def balancer(self, name: str, place: Place) -> Balancer:
        """The balancer of that name, made when first spoken of."""
        return self.balancers.setdefault(name.lower(), Balancer(name.lower(), place))


@dataclass(slots=True)
class Site:
    """A whole configuration."""

    main: Server
    hosts: list[Server] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    types_file: tuple[str, Place] | None = None
    server_root: str | None = None

    def servers(self) -> Iterator[Server]:
        yield self.main
        yield from self.hosts


def inherit(main: Server, host: Server) -> Server:
    """A virtual host with what it takes from the main server, in httpd's order: the main server's lists come first."""
    merged = Server(place=host.place)
    for item in fields(Server):
        base, own = getattr(main, item.name), getattr(host, item.name)
        if item.name in ("addresses", "aliases", "place"):
            value = own
        elif item.name in ("name", "port", "scheme"):
            # A host without a ServerName has the main server's, whole.
            value = own if host.name else base
        elif item.name == "settings":
            value = base.merged(own)
        elif item.name == "rewriting":
            value = _inherited_rules(base, own)
        elif item.name in ("logs", "trusted", "internal"):
            value = own or base
        elif item.name in ("alias_map", "redirects"):
            value = [*own, *base]
        elif isinstance(own, list):
            value = [*base, *own]
        elif isinstance(own, dict):
            value = {**base, **own}
        else:
            value = base if own is None or own == "" else own
        setattr(merged, item.name, value)
    return merged


def _inherited_rules(base: Rewriting, own: Rewriting) -> Rewriting:
    """Rules are inherited only where RewriteOptions says so."""
    if "inherit" in own.options:
        rules = [*own.rules, *base.rules]
    elif "inheritbefore" in own.options or ("inheritdownbefore" in base.options and "ignoreinherit" not in own.options):
        rules = [*base.rules, *own.rules]
    elif "inheritdown" in base.options and "ignoreinherit" not in own.options:
        rules = [*own.rules, *base.rules]
    else:
        return own
    return Rewriting(base.engine if own.engine is None else own.engine, rules, own.options | base.options)
