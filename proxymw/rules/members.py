"""Members of a pool: what the operator wrote, the status bits, and what a reader of the pool is shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any, Protocol

from proxymw.errors import ConfigError
from proxymw.rules.options import check_count, check_seconds
from proxymw.rules.origins import Origin

#: Text that may be a route: it travels in cookies and path parameters. Apache's limit is 63 characters.
_ROUTE = re.compile(r"[!-+\--:<-\[\]-~]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,62}")


class Column(Protocol):
    """A column of the member table, one number for each member: a list will do."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class Flag(IntFlag):
    """The status bits of a member (mod_proxy's PROXY_WORKER_*), asked ones first, then those that were found out."""

    IGNORE_ERRORS = 1
    DRAIN = 2
    DISABLED = 4
    STOPPED = 8
    STANDBY = 16
    SPARE = 32
    #: Taken out of the pool while running; listed until nothing is in flight.
    REMOVED = 64
    #: In error after a failed connection; offered again after ``retry`` seconds.
    ERROR = 128
    #: Active health checks say no.
    CHECK_FAILED = 256
    #: Put aside by passive health checks until a time.
    EJECTED = 512
    #: Back from an ejection: one request at a time until one succeeds.
    TRIAL = 1024


#: What an operator asks for, and what the pool finds out.
ASKED = int(Flag.IGNORE_ERRORS | Flag.DRAIN | Flag.DISABLED | Flag.STOPPED | Flag.STANDBY | Flag.SPARE | Flag.REMOVED)
FOUND = int(Flag.ERROR | Flag.CHECK_FAILED | Flag.EJECTED | Flag.TRIAL)
#: With any of these a member takes no request. A trial is decided by whether one is under way.
OUT = int(Flag.DISABLED | Flag.STOPPED | Flag.REMOVED | Flag.ERROR | Flag.CHECK_FAILED | Flag.EJECTED)
#: The same as plain integers: an IntFlag costs ten times as much to test.
DRAIN_BIT, STANDBY_BIT, SPARE_BIT = int(Flag.DRAIN), int(Flag.STANDBY), int(Flag.SPARE)

_LETTERS = {
    "I": Flag.IGNORE_ERRORS,
    "N": Flag.DRAIN,
    "D": Flag.DISABLED,
    "S": Flag.STOPPED,
    "E": Flag.ERROR,
    "H": Flag.STANDBY,
    "R": Flag.SPARE,
    "C": Flag.CHECK_FAILED,
}
#: Letters that Apache takes and that mean nothing here: initialised, in shutdown, generic, free.
_IDLE_LETTERS = frozenset("OUGF")
_WORDS = (
    (Flag.IGNORE_ERRORS, "Ign "),
    (Flag.DRAIN, "Drn "),
    (Flag.DISABLED, "Dis "),
    (Flag.STOPPED, "Stop "),
    (Flag.ERROR | Flag.EJECTED, "Err "),
    (Flag.STANDBY, "Stby "),
    (Flag.SPARE, "Spar "),
    (Flag.CHECK_FAILED, "HcFl "),
)

#: The states that can be asked for by name, and the bits that stand for them.
STATES = {
    "ready": 0,
    "drain": int(Flag.DRAIN),
    "disabled": int(Flag.DISABLED),
    "standby": int(Flag.STANDBY),
    "spare": int(Flag.SPARE),
}
_STATUS_WORDS = {**STATES, "ignore_errors": int(Flag.IGNORE_ERRORS), "stopped": int(Flag.STOPPED)}
_STATE_BITS = int(Flag.DRAIN | Flag.DISABLED | Flag.STANDBY | Flag.SPARE)


def parse_status(text: str, flags: int = 0) -> int:
    """The bits of Apache's ``status=`` text, applied to ``flags``.

    ``+`` and ``-`` switch the mode for all following letters (``S-E`` sets S, clears E); letters ignore case. A whole
    word, such as ``disabled``, ``drain`` or ``ignore_errors``, is understood too.
    """
    if text.lower() in _STATUS_WORDS:
        return int(flags | _STATUS_WORDS[text.lower()])
    adding = True
    for letter in text.upper():
        if letter in "+-":
            adding = letter == "+"
        elif letter in _LETTERS:
            flags = flags | _LETTERS[letter] if adding else flags & ~_LETTERS[letter]
        elif letter not in _IDLE_LETTERS:
            words = ", ".join(_STATUS_WORDS)
            raise ConfigError(
                f"member status must be made of the letters D S I R H E N with + or -, or one of {words}, got {text!r}"
            )
    return int(flags)


def _asked(status: object) -> int:
    """The asked bits of a member's ``status``, text or Flag."""
    if isinstance(status, str):
        return parse_status(status)
    if isinstance(status, bool) or not isinstance(status, int) or status < 0:
        raise ConfigError(f"member status must be text such as 'drain' or '+D', got {status!r}")
    return status & ASKED


def status_words(flags: int) -> str:
    """The status as the balancer-manager prints it, such as ``Init Ok`` or ``Init Drn Ok``."""
    words = "Init " + "".join(word for bits, word in _WORDS if flags & bits)
    return (words + "Ok " if not flags & OUT else words).rstrip()


def asked_state(flags: int) -> str:
    """The one word for what was asked of a member: disabled, drain, standby, spare or ready."""
    for state in ("disabled", "drain", "standby", "spare"):
        if flags & STATES[state]:
            return state
    return "ready"


def with_state(flags: int, state: str) -> int:
    """``flags`` after ``state`` was asked for: it replaces the other four states."""
    if state not in STATES:
        raise ConfigError(f"state must be one of {', '.join(STATES)}, got {state!r}")
    return flags & ~_STATE_BITS | STATES[state]


def check_loadfactor(value: object) -> int:
    """The load factor in hundredths, as mod_proxy keeps it: 1 to 100, two decimals."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 100:
        raise ConfigError(f"member loadfactor must be a number between 1 and 100, got {value!r}")
    return int(value * 100 + 1e-6)


def check_lbset(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 99:
        raise ConfigError(f"member lbset must be a whole number between 0 and 99, got {value!r}")
    return value


def check_route(value: object, name: str = "route") -> str:
    if not isinstance(value, str) or not _ROUTE.fullmatch(value):
        raise ConfigError(
            f"member {name} must be at most 63 printable characters without space, comma, semicolon or "
            f"backslash, got {value!r}"
        )
    return value


def check_pool_name(value: object) -> str:
    """The name of a pool, lower case as in ``balancer://name``."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ConfigError(f"name must be a short word of letters, digits and -._~, got {value!r}")
    return value.lower()


@dataclass(frozen=True, slots=True)
class Member:
    """One origin, or WSGI application, of a pool (``BalancerMember``) with the parameters of its directive.

    ``target`` is a URL with an optional path, ``unix:/path|http://host/base``, or a WSGI application.
    ``max``, ``smax``, ``ttl`` (seconds), ``acquire`` (seconds) and ``min`` concern connections per process, as in
    Apache; ``limit`` is requests in flight over all workers. ``retry`` is the time in seconds after which a member in
    error is offered requests again. ``name`` identifies a WSGI application and defaults to its qualified name.
    """

    target: Any
    loadfactor: float = 1
    lbset: int = 0
    route: str = ""
    redirect: str = ""
    #: Apache's letters (``"+D"``), or a word: ready, drain, disabled, standby, spare, ignore_errors, stopped.
    status: str | int = ""
    retry: float = 60.0
    timeout: float | None = None
    connectiontimeout: float | None = None
    max: int | None = None
    smax: int | None = None
    ttl: float | None = None
    min: int | None = None
    acquire: float | None = None
    limit: int | None = None
    name: str = ""
    #: The origin, None for an application; the application, None for an origin; the text that identifies the member.
    origin: Origin | None = field(init=False, repr=False, compare=False)
    app: Callable[..., Iterable[bytes]] | None = field(init=False, repr=False, compare=False)
    id: str = field(init=False, repr=False, compare=False)
    #: The load factor in hundredths and the status bits.
    lbfactor: int = field(init=False, repr=False, compare=False)
    flags: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        if isinstance(self.target, str):
            origin = Origin.parse(self.target, name="member")
            put(self, "origin", origin)
            put(self, "app", None)
            put(self, "id", self.name or str(origin))
        elif callable(self.target):
            put(self, "origin", None)
            put(self, "app", self.target)
            put(self, "id", "wsgi:" + (self.name or _name_of(self.target)))
        else:
            raise ConfigError(f"member must be a URL or a WSGI application, got {self.target!r}")
        if len(self.id.encode("utf-8", "replace")) > 255:
            raise ConfigError(f"member URL must be at most 255 bytes, got {self.target!r}")
        if self.name and not _NAME.fullmatch(self.name):
            raise ConfigError(f"member name must be a short word of letters, digits and -._~, got {self.name!r}")
        put(self, "lbfactor", check_loadfactor(self.loadfactor))
        put(self, "flags", _asked(self.status))
        check_lbset(self.lbset)
        check_route(self.route)
        check_route(self.redirect, "redirect")
        check_seconds("member retry", self.retry, optional=False)
        check_seconds("member timeout", self.timeout, least=0.001)
        check_seconds("member connectiontimeout", self.connectiontimeout, least=0.001)
        check_seconds("member ttl", self.ttl, least=0.001)
        check_seconds("member acquire", self.acquire, least=0.001)
        check_count("member max", self.max, least=1)
        check_count("member smax", self.smax)
        check_count("member min", self.min)
        check_count("member limit", self.limit, least=1)

    @property
    def url(self) -> str:
        """The target as text: the URL as it was understood, or ``wsgi:`` and the application's name."""
        return self.id if self.origin is None else str(self.origin)


def _name_of(app: Any) -> str:
    name = getattr(app, "__qualname__", "") or getattr(app, "name", "") or type(app).__qualname__
    return f"{getattr(app, '__module__', '') or type(app).__module__}.{name}"[:200]


def as_member(value: object) -> Member:
    """``value`` itself, or a Member made of a URL or a WSGI application."""
    return value if isinstance(value, Member) else Member(value)


def as_members(values: object) -> tuple[Member, ...]:
    """The members of a pool; ConfigError when one of them is there twice."""
    if isinstance(values, (str, Member)) or not isinstance(values, Iterable):
        raise ConfigError(f"members must be a list of URLs, WSGI applications or Member objects, got {values!r}")
    members = tuple(as_member(value) for value in values)
    seen: set[str] = set()
    for member in members:
        if member.id in seen:
            raise ConfigError(f"members must differ from each other, got {member.id!r} twice")
        seen.add(member.id)
    return members


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member as it stands now, for the manager, metrics and tests. Times are seconds; ``since`` is wall time."""

    #: Stable: the normalised URL, or ``wsgi:`` and the name. What ``BalancerPool.change`` takes.
    id: str
    url: str
    route: str
    redirect: str
    weight: float
    lbset: int
    #: What was asked for: ready, drain, disabled, standby, spare (removed: no longer in the pool).
    asked: str
    #: More bits that were asked for: ignore_errors, stopped.
    flags: tuple[str, ...]
    #: up or down, why, since when, and in how many seconds it is offered requests again (None: not by itself).
    health: str
    reason: str
    since: float
    retry_in: float | None
    #: Times elected, in flight now over all workers, bytes to and from the member, failed and finished exchanges.
    requests: int
    in_flight: int
    sent: int
    received: int
    errors: int
    finished: int
    #: Mean time of an exchange in seconds, of those that told it.
    latency: float
    #: Apache's Load column: the round robin counter in hundredths.
    load: int
    last_change: float
    changed_by: str
    letters: str
    limit: int | None = None
    #: Answers by status class, 1xx to 5xx; exchanges by time (bounds in proxymw.state.table.BOUNDS).
    classes: tuple[int, ...] = (0,) * 5
    buckets: tuple[int, ...] = ()
    #: Failed attempts by reason; elected after an attempt on itself, and on another; times it went up, and down.
    failures: Mapping[str, int] = field(default_factory=dict)
    again: tuple[int, int] = (0, 0)
    transitions: tuple[int, int] = (0, 0)
    #: Returns from error that no success has followed yet.
    retries: int = 0

    @property
    def loadfactor(self) -> float:
        return self.weight

    @property
    def usable(self) -> bool:
        return self.health == "up" and self.asked not in ("disabled", "removed") and "stopped" not in self.flags


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """A pool at one moment. ``state`` says where the table lives: local, shared, or a sentence on why not shared."""

    name: str
    method: str
    sticky: str
    nofailover: bool
    attempts: int
    timeout: float
    state: str
    workers: int
    generation: int
    members: tuple[MemberView, ...]

    def member(self, member_id: str) -> MemberView:
        for view in self.members:
            if view.id == member_id:
                return view
        raise ConfigError(f"member must be one of {', '.join(m.id for m in self.members)}, got {member_id!r}")
