"""A pool's members and their table: opened on first use, in the process that uses it; followed where it moves."""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from proxymw.errors import ConfigError
from proxymw.rules.health import SECOND
from proxymw.rules.lbmethods import Hash, as_method
from proxymw.rules.members import Member, as_members, check_pool_name
from proxymw.rules.options import check_count, check_seconds
from proxymw.rules.sticky import StickyCookie, StickyRoute, as_sticky
from proxymw.state import persist
from proxymw.state.local import local_table
from proxymw.state.redis import RedisSync, check_redis, is_redis
from proxymw.state.roster import Roster, build, join, take_over
from proxymw.state.shared import SharedTable, automatic_path, close_table, grow_table, shared_table, why_not
from proxymw.state.table import H_GENERATION, H_MOVED, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_log = logging.getLogger("proxymw.pool")


@dataclass(frozen=True, slots=True)
class Live:
    """What this process holds of the pool; made on first use, in the process that uses it."""

    pid: int
    table: Table
    #: local, shared, or why not shared.
    state: str
    #: A guess made before any request told whether there are more workers.
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """What of a pool can be changed while running."""

    method: Any
    sticky: StickyRoute | StickyCookie | None
    nofailover: bool
    attempts: int | None
    timeout: float

    def but(self, asked: Mapping[str, Any]) -> Settings:
        known = {name: asked[name] for name in ("method", "nofailover", "attempts", "timeout") if name in asked}
        check_count("attempts", known.get("attempts"))
        check_seconds("timeout", known.get("timeout"))
        if "sticky" in asked:
            known["sticky"] = as_sticky(asked["sticky"])
        return replace(self, **known)


class PoolTable:
    """What a pool was given, and the table in which it lives."""

    def __init__(
        self,
        members: Iterable[Any],
        *,
        name: str,
        settings: Settings,
        state: str | os.PathLike[str] | None,
        persist: str | os.PathLike[str] | None,
        down: bool,
        clock: Callable[[], float] | None,
    ) -> None:
        self.name = check_pool_name(name)
        self._members = as_members(members)
        self._configured = settings
        self._method_name, self._method = as_method(settings.method)
        self._use(settings)
        self._state = _path("state", state, ", a redis:// URL or None")
        self._persist = _path("persist", persist, "")
        self._redis = self._state if is_redis(self._state) else None
        # A path object has lost one of the slashes: "redis:/host" would become a directory of that name.
        if self._redis is None and re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", self._state or ""):
            raise ConfigError(f"state must be a path, or a URL such as redis://127.0.0.1:6379/0, got {state!r}")
        if self._redis is not None:
            check_redis(self._redis)
            self._state = None  # each host has a table of its own
        self._sync: RedisSync | None = None
        #: Whether new members wait for their first active checks.
        self._down = down
        #: Two pools of one name in one process, made in the same order in every worker, have two files.
        self._file = _file_name(self.name, self)
        self._now: Callable[[], int] = time.monotonic_ns if clock is None else lambda: int(clock() * SECOND)
        self._live: Live | None = None
        self._roster: Roster | None = None
        self._birth = threading.Lock()

    def _use(self, settings: Settings) -> None:
        self._sticky, self._nofailover = settings.sticky, settings.nofailover
        self._attempts, self._timeout = settings.attempts, settings.timeout

    def join(self, environ: Mapping[str, Any] | None = None) -> Live:
        """Open the table in this process, if it is not. ``environ`` tells whether there are more workers.

        Without one, before any request, an automatic pool answers from an empty table of its own.
        """
        with self._birth:
            live = self._live
            pid = os.getpid()
            if live is not None and live.pid == pid and not (live.provisional and environ is not None):
                if not live.table.words[H_MOVED]:
                    return live
                environ = {"wsgi.multiprocess": True}
            guess = live if live is not None and live.pid == pid and live.provisional else None
            live = self._open(pid, environ)
            if guess is not None and not isinstance(live.table, SharedTable):
                live = replace(live, table=guess.table)
            with live.table.lock:
                problem = join(live.table, self._members, down=self._down)
                if not problem and guess is not None and guess.table is not live.table:
                    take_over(live.table, guess.table)
                if not problem and self._persist and getattr(live.table, "created", True):
                    persist.apply(live.table, persist.load(self._persist))
                if not problem:
                    self._build(live.table)
            if problem and isinstance(live.table, SharedTable):
                live, problem = self._grow(live, problem)
            if problem:
                live = replace(live, table=local_table(self.name, len(self._members)), state=problem)
                _log.error("event=state_local pool=%s reason=%s", safe(self.name), safe(problem))
                with live.table.lock:
                    join(live.table, self._members, down=self._down)
                    self._build(live.table)
            self._live = live
        if not live.provisional:
            self._begin()
        return live

    def _open(self, pid: int, environ: Mapping[str, Any] | None) -> Live:
        several = environ is not None and bool(environ.get("wsgi.multiprocess"))
        if self._state is None and not several:
            return Live(pid, local_table(self.name, len(self._members)), "local", environ is None)
        try:
            table = shared_table(self._path(), self.name, len(self._members))
        except OSError as error:
            reason = why_not(error)
            state = f"local: {reason}"
            if self._live is None or self._live.state != state:
                _log.error("event=state_local pool=%s workers=alone reason=%s", safe(self.name), safe(reason))
            # Files that ran out come back: then the next request tries again.
            passing = error.errno in (errno.EMFILE, errno.ENFILE)
            return Live(pid, local_table(self.name, len(self._members)), state, passing)
        level = logging.INFO if table.created else logging.DEBUG
        _log.log(level, "event=state_shared pool=%s path=%s", safe(self.name), safe(table.path))
        return Live(pid, table, "shared")

    def _grow(self, live: Live, problem: str) -> tuple[Live, str]:
        """Move to a bigger file that has room for all members; what is wrong with that, if anything."""
        assert isinstance(live.table, SharedTable)
        needed = len(self._members) + sum(live.table.used)
        try:
            table = grow_table(live.table, self._path(), self.name, needed)
        except OSError as error:
            return live, f"{problem}, and {why_not(error)}"
        with table.lock:
            problem = join(table, self._members, down=self._down)
            if not problem:
                self._build(table)
        return replace(live, table=table), problem

    def _path(self) -> str:
        return self._state if self._state is not None else automatic_path(self._file)

    def close(self) -> None:
        """Leave the shared table; what this process had in flight is given back. A later request joins again."""
        self._end()
        with self._birth:
            live, self._live = self._live, None
            if live is not None and live.pid == os.getpid():
                close_table(live.table)

    def _build(self, table: Table) -> Roster:
        """Read what was asked for, in this or another worker. Under the lock."""
        try:
            now = self._configured.but(table.read_text(-1))
            as_method(now.method)
        except (ConfigError, TypeError):
            now = self._configured  # written by another version
        if as_method(now.method)[0] != self._method_name:
            self._method_name, self._method = as_method(now.method)
        self._use(now)
        sticky = self._sticky
        token = sticky.token if isinstance(sticky, StickyCookie) else None
        roster = build(table, self._members, secret=table.secret, token=token)
        if isinstance(self._method, Hash):
            self._method.name(roster.names)
        self._seated(roster)
        self._roster = roster
        return roster

    def _begin(self) -> None:
        """Start what this process does in the background; after each opening."""
        if self._redis is None:
            return
        with self._birth:
            if self._sync is None or self._sync.thread.pid != os.getpid():
                self._sync = RedisSync(self, self._redis)
                self._sync.start()

    def _end(self) -> None:
        """Stop it."""
        sync, self._sync = self._sync, None
        if sync is not None and sync.thread.pid == os.getpid():
            sync.stop()

    def _seated(self, roster: Roster) -> None:
        """For what else is worked out for each member, before the roster is used."""

    def attached(self) -> tuple[Table, Roster]:
        """The table and the roster as they are now; opened if this process has not yet."""
        live = self._live
        if live is None or live.pid != os.getpid() or live.table.words[H_MOVED]:
            live = self.join()
        table = live.table
        roster = self._roster
        assert roster is not None
        if table.words[H_GENERATION] != roster.generation:
            with table.lock:
                roster = self._build(table)
        return table, roster

    @property
    def method(self) -> str:
        return self._method_name

    @property
    def members(self) -> tuple[Member, ...]:
        """The members in order, with their parameters as they are now."""
        return tuple(seat.member for seat in self.attached()[1].seats)

    @property
    def secret(self) -> bytes:
        """32 random bytes kept with the table: the same in every worker. For nonces and tokens, never to be shown."""
        return self.attached()[0].secret


_named: dict[str, weakref.WeakSet[PoolTable]] = {}


def _after_fork() -> None:
    """A lock that another thread held at the fork would never be free in the child."""
    for pools in _named.values():
        for pool in pools:
            pool._birth = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _file_name(name: str, pool: PoolTable) -> str:
    others = _named.setdefault(name, weakref.WeakSet())
    number = len(others)
    others.add(pool)
    return f"{name}.{number}" if number else name


def _path(name: str, value: object, more: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ConfigError(f"{name} must be a path{more}, got {value!r}")
    return str(os.fspath(value))


def safe(text: str) -> str:
    """A value for the log: printable ASCII, at most 200 characters."""
    return "".join(c if "!" <= c <= "~" else f"\\x{ord(c):02X}" for c in text[:200])
