"""Walks the directives of a file and lets each write into the :class:`~proxymw.apacheconf.site.Site`.

A directive is a function under its name in a table, with the places it may stand in and the number of its arguments.
The tables are in :mod:`~proxymw.apacheconf.directives`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxymw.apacheconf.lexer import Directive, Section
from proxymw.apacheconf.site import Balancer, Entry, Requirement, Scope, Server, Settings, Site, Warned

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where a directive may stand: the main server, a virtual host, a <Location>, a <Directory> or <Files>, a <Proxy>.
SERVER, HOST, LOCATION, DIRECTORY, PROXY = "server config", "<VirtualHost>", "<Location>", "<Directory>", "<Proxy>"
SERVERS = (SERVER, HOST)
SECTIONS = (LOCATION, DIRECTORY, PROXY)
ANYWHERE = (*SERVERS, *SECTIONS)
TOP = (SERVER,)


@dataclass(frozen=True, slots=True)
class Known:
    """One row of the table."""

    run: Callable[[Interpreter, Directive, list[str]], None]
    where: tuple[str, ...]
    least: int = 0
    most: int | None = None
    takes: str = ""
    raw: bool = False


TABLE: dict[str, Known] = {}
SECTION_TABLE: dict[str, Known] = {}

#: Said by check: accepted, and without effect here.
NO_EFFECT: dict[str, str] = {}
#: Unsupported, but without influence on where a request goes or who may make it: ``--lenient`` accepts them.
HARMLESS: dict[str, str] = {}
#: Unsupported, with what to use instead.
INSTEAD: dict[str, str] = {}

_Run = Callable[["Interpreter", Directive, list[str]], None]


def directive(
    *names: str, where: tuple[str, ...] = ANYWHERE, count: tuple[int, int | None] = (1, 1), takes: str = ""
) -> Callable[[_Run], _Run]:
    """Puts a function into the table under these names."""

    def put(run: _Run) -> _Run:
        for name in names:
            TABLE[name.lower()] = Known(run, where, count[0], count[1], takes)
        return run

    return put


def raw_directive(*names: str, where: tuple[str, ...] = ANYWHERE, takes: str = "") -> Callable[[_Run], _Run]:
    """The same for a directive that splits its text by itself."""

    def put(run: _Run) -> _Run:
        for name in names:
            TABLE[name.lower()] = Known(run, where, 0, None, takes, raw=True)
        return run

    return put


def section(*names: str, where: tuple[str, ...] = ANYWHERE) -> Callable[[_Run], _Run]:
    def put(run: _Run) -> _Run:
        for name in names:
            SECTION_TABLE[name.lower()] = Known(run, where)
        return run

    return put


@dataclass(slots=True)
class Interpreter:
    """Where in the file we are, and the site as far as it is known."""

    site: Site
    lenient: bool = False
    server: Server = field(init=False)
    scope: Scope | None = None
    place: str = SERVER
    #: The <Limit> or <LimitExcept> around, as a template.
    limit: Entry | None = None
    #: The <RequireAll> and the like around, innermost last.
    containers: list[Requirement] = field(default_factory=list)
    #: Inside <Proxy balancer://…> or <Proxy http://…>.
    balancer: Balancer | None = None
    worker: str | None = None

    def __post_init__(self) -> None:
        self.server = self.site.main

    @property
    def settings(self) -> Settings:
        return self.server.settings if self.scope is None else self.scope.settings

    def warn(self, item: Directive, text: str) -> None:
        self.site.warnings.append(Warned(item.place, item.title, text))

    def run(self, items: Iterable[Directive]) -> None:
        for item in items:
            self.one(item)

    def one(self, item: Directive) -> None:
        if isinstance(item, Section):
            self._section(item)
            return
        known = TABLE.get(item.key)
        if known is None:
            self._unknown(item)
            return
        if self.place not in known.where:
            raise item.error(f"not allowed in {self.place}; it may stand in {', '.join(known.where)}")
        words = [] if known.raw else item.words()
        if not known.raw and not self._count_fits(known, len(words)):
            raise item.error(f"takes {_count(known)}{': ' + known.takes if known.takes else ''}, got {len(words)}")
        known.run(self, item, words)

    @staticmethod
    def _count_fits(known: Known, count: int) -> bool:
        return count >= known.least and (known.most is None or count <= known.most)

    def _section(self, item: Section) -> None:
        known = SECTION_TABLE.get(item.key)
        if known is None:
            self._unknown(item)
            return
        if self.place not in known.where:
            raise item.error(f"not allowed in {self.place}; it may stand in {', '.join(known.where)}")
        known.run(self, item, split_section(item))

    def _unknown(self, item: Directive) -> None:
        if item.key in NO_EFFECT:
            self.warn(item, f"accepted and without effect: {NO_EFFECT[item.key]}")
        elif item.key in HARMLESS:
            if not self.lenient:
                raise item.error(f"is not supported: {HARMLESS[item.key]} (--lenient ignores it)")
            self.warn(item, f"is not supported and ignored: {HARMLESS[item.key]}")
        elif item.key in INSTEAD:
            raise item.error(f"is not supported: {INSTEAD[item.key]}")
        else:
            raise item.error("unknown directive; the docs list what is supported")

    @contextmanager
    def inside(self, place: str, scope: Scope | None = None) -> Iterator[None]:
        """What comes meanwhile stands in this section."""
        held = (self.place, self.scope)
        self.place, self.scope = place, scope or self.scope
        try:
            yield
        finally:
            self.place, self.scope = held


def split_section(item: Section) -> list[str]:
    return item.words()


def _count(known: Known) -> str:
    if known.most == known.least:
        return "no arguments" if known.most == 0 else "one argument" if known.most == 1 else f"{known.most} arguments"
    if known.most is None:
        return f"at least {known.least} argument{'s' if known.least != 1 else ''}"
    return f"{known.least} to {known.most} arguments"
