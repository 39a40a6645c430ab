"""BalancerPool: a group of members behind one name (``<Proxy balancer://name>``), one truth for all workers."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from proxymw.errors import (
    BodyTimeout,
    BodyTruncated,
    ClientAborted,
    ConfigError,
    ConnectionReset,
    ConnectTimeout,
    FirstByteTimeout,
    NoMember,
    OutOfFiles,
    PoolExhausted,
    ResponseMalformed,
    UpstreamError,
)
from proxymw.exchange.limits import Limits
from proxymw.rules.health import (
    SECOND,
    Health,
    Probe,
    force_recovery,
    mark_error,
    on_trial,
    ramped,
    record_failure,
    record_success,
    revive,
)
from proxymw.rules.lbmethods import METHODS, Hash, as_method, charge, electable
from proxymw.rules.members import (
    ASKED,
    DRAIN_BIT,
    OUT,
    STATES,
    Flag,
    Member,
    MemberView,
    PoolSnapshot,
    as_member,
    as_members,
    asked_state,
    check_count,
    check_lbset,
    check_loadfactor,
    check_pool_name,
    check_route,
    check_seconds,
    status_words,
    with_state,
)
from proxymw.rules.policy import Policy
from proxymw.rules.sticky import StickyCookie, StickyRoute, as_sticky, cookie_value
from proxymw.state import persist
from proxymw.state.local import local_table
from proxymw.state.roster import Roster, Seat, added_text, build, join, take_over
from proxymw.state.shared import SharedTable, automatic_path, close_table, grow_table, shared_table, why_not
from proxymw.state.table import (
    BOUNDS,
    BUCKETS,
    CLASSES,
    H_EPOCH,
    H_GENERATION,
    H_MOVED,
    H_SAMPLED,
    M_ADDED,
    M_FLAGS,
    M_LBFACTOR,
    M_LBSET,
    M_REDIRECT,
    M_ROUTE,
    MARKED,
    REASONS,
    SAMPLES,
    SUMMED,
    Table,
    wall,
)

if TYPE_CHECKING:
    from proxymw.rules.headers import HeaderList
    from proxymw.rules.origins import Origin

_log = logging.getLogger("proxymw.pool")

_ERROR, _EJECTED, _TRIAL = int(Flag.ERROR), int(Flag.EJECTED), int(Flag.TRIAL)
_CHECK_FAILED, _REMOVED, _IGNORE = int(Flag.CHECK_FAILED), int(Flag.REMOVED), int(Flag.IGNORE_ERRORS)
#: Asked out of service: such a member does not keep the others from being forced back.
_ASKED_OUT = int(Flag.DISABLED | Flag.STOPPED | Flag.REMOVED | Flag.DRAIN)
#: Found bits whose end is a matter of time.
_TIMED = _ERROR | _EJECTED | _TRIAL
#: The names by which flags are changed and shown.
FLAGS = {
    "ignore_errors": int(Flag.IGNORE_ERRORS),
    "drain": int(Flag.DRAIN),
    "disabled": int(Flag.DISABLED),
    "stopped": int(Flag.STOPPED),
    "standby": int(Flag.STANDBY),
    "spare": int(Flag.SPARE),
}
_Event = tuple[int, str, dict[str, Any]]
_FAILURES: tuple[tuple[type[UpstreamError], str], ...] = (
    (PoolExhausted, "pool_full"),
    (OutOfFiles, "pool_full"),
    (ConnectTimeout, "connect_timeout"),
    (ClientAborted, "client_abort"),
    (FirstByteTimeout, "read_timeout"),
    (BodyTimeout, "read_timeout"),
    (ConnectionReset, "reset"),
    (BodyTruncated, "reset"),
    (ResponseMalformed, "protocol"),
)


@dataclass(frozen=True, slots=True)
class _Live:
    """What this process holds of the pool; made on first use, in the process that uses it."""

    pid: int
    table: Table
    #: local, shared, or why not shared.
    state: str
    #: A guess made before any request told whether there are more workers.
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class _Settings:
    """What of a pool can be changed while running."""

    method: Any
    sticky: StickyRoute | StickyCookie | None
    nofailover: bool
    attempts: int | None
    timeout: float

    def but(self, asked: Mapping[str, Any]) -> _Settings:
        known = {name: asked[name] for name in ("method", "nofailover", "attempts", "timeout") if name in asked}
        if "sticky" in asked:
            known["sticky"] = as_sticky(asked["sticky"])
        return replace(self, **known)


class Lease:
    """One member, held for one attempt; ``finish`` gives it back."""

    __slots__ = (
        "_balancer", "_counted", "_done", "_slot", "_table", "app", "limits", "member", "name", "origin", "pool",
        "refused", "set_headers",
    )  # fmt: skip

    def __init__(self, balancer: BalancerPool, table: Table, seat: Seat, set_headers: HeaderList) -> None:
        member = seat.member
        self._balancer = balancer
        self._table = table
        self._slot = seat.slot
        self._done = False
        self._counted = 0
        self.origin, self.limits = balancer._reached[seat.slot]
        self.app = member.app
        self.name = member.id
        self.pool = balancer.name
        self.member = member
        self.set_headers = set_headers
        #: The member could not be reached at all.
        self.refused = False

    def count_sent(self, size: int) -> None:
        """Count bytes of the request as they go out, so that bytraffic sees requests that are still answered.

        ``finish(sent=…)`` is told the whole all the same.
        """
        table = self._table
        with table.thread_lock:
            table.own_sent[self._slot] += size
            self._counted += size

    def finish(
        self,
        error: UpstreamError | None = None,
        *,
        status: int = 0,
        sent: int = 0,
        received: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """End the attempt: count bytes and time, and let ``error`` or ``status`` tell of the member's health.

        A second call does nothing.
        """
        table, slot = self._table, self._slot
        with table.thread_lock:
            if self._done:
                return
            self._done = True
            table.in_flight[slot] -= 1
            table.finished[slot] += 1
            if sent != self._counted:
                table.own_sent[slot] += max(0, sent - self._counted)
            if received:
                table.own_received[slot] += received
            if status:
                table.own_classes[status // 100][slot] += 1
            if seconds:
                table.own_buckets[bisect_left(BOUNDS, seconds)][slot] += 1
                micros = int(seconds * 1e6)
                table.own_latency[slot] += micros
                average = table.own_average[slot]
                table.own_average[slot] = average + ((micros - average) >> 3) if average else micros or 1
        balancer = self._balancer
        if error is not None or table.retries[slot] or table.found[slot] or status in balancer.failonstatus:
            balancer._judge(self, table, slot, error, status)
        if balancer._waiting:
            balancer._room.set()


class FallbackLease:
    """Stands for a member when none is usable: the pool's ``fallback`` answers. There is nothing to count."""

    origin = limits = member = None
    name = "fallback"
    refused = False
    set_headers: HeaderList = []  # noqa: RUF012 (never changed)

    def __init__(self, app: Callable[..., Iterable[bytes]], pool: str) -> None:
        self.app = app
        self.pool = pool

    def count_sent(self, size: int) -> None:
        pass

    def finish(self, error: UpstreamError | None = None, **counts: float) -> None:
        pass


class BalancerPool:
    """Members that share the requests made to one name; a WSGI application and the target of proxy rules.

    ``members`` are URLs, WSGI applications or Member objects. Options, with Apache's word where it differs:

    - ``method`` (lbmethod): byrequests, bytraffic, bybusyness, leastconn, ewma, hash, or a callable with the signature
      of proxymw.rules.lbmethods.LBMethod. ``hash_by``: what ``hash`` goes by: ``path``, ``client``, ``header:Name`` or
      ``cookie:name``.
    - ``state``: None: chosen by itself: in this process, or one mapped file for all workers of the server; a path of a
      file of one's own, or of a directory for such files; ``redis://…`` to share what must agree between hosts.
    - ``sticky`` (stickysession): ``"JSESSIONID|jsessionid"``, a StickyRoute, or True or a StickyCookie for a cookie of
      our own; ``nofailover``: a session whose member is gone gets 503 instead of another member.
    - ``attempts`` (maxattempts): how many more members are tried after one that cannot be reached; default: all others.
    - ``timeout``: seconds to wait for a usable member. ``forcerecovery``: when all members are in error at once, all
      are
      taken back at once. With one member this means that an error never keeps requests from being tried.
    - ``failonstatus``: statuses that put a member in error; ``failontimeout``: a timeout does.
    - ``health``: a Health for ejection instead of ``retry``; ``probe``: a Probe for active checks.
    - ``threads``: how many requests of one process may be in this pool at once; more get 503 with Retry-After.
    - ``queue``: how many requests of one process may wait, for ``queue_timeout`` seconds, when every member is at its
      ``limit``; more get 503.
    - ``fallback``: a WSGI application that answers when no member is usable.
    - ``persist``: a file in which changes made while running outlive the server.

    With all members down the answer is 503 with Retry-After, or the fallback.
    """

    def __init__(
        self,
        members: Iterable[Any] = (),
        *,
        name: str = "cluster",
        method: Any = "byrequests",
        hash_by: str = "path",
        state: str | os.PathLike[str] | None = None,
        sticky: Any = None,
        nofailover: bool = False,
        attempts: int | None = None,
        timeout: float = 0.0,
        forcerecovery: bool = True,
        failonstatus: Iterable[int] = (),
        failontimeout: bool = False,
        health: Health | None = None,
        probe: Probe | None = None,
        threads: int | None = None,
        queue: int = 0,
        queue_timeout: float = 1.0,
        fallback: Callable[..., Iterable[bytes]] | None = None,
        persist: str | os.PathLike[str] | None = None,
        policy: Policy | None = None,
        transport: Any = None,
        retry: Any = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.name = check_pool_name(name)
        self._members = as_members(members)
        self._configured = _Settings(
            method, as_sticky(sticky), bool(nofailover), check_count("attempts", attempts),
            check_seconds("timeout", timeout, optional=False) or 0.0,
        )  # fmt: skip
        self._method_name, self._method = as_method(method)
        self._key = _key_reader(hash_by)
        self._sticky, self._nofailover = self._configured.sticky, self._configured.nofailover
        self._attempts, self._timeout = self._configured.attempts, self._configured.timeout
        self._forcerecovery = bool(forcerecovery)
        self.failonstatus = _statuses(failonstatus)
        self._failontimeout = bool(failontimeout)
        self.health = _instance("health", health, Health)
        self.probe = _instance("probe", probe, Probe)
        self._threads = check_count("threads", threads, least=1)
        self._queue = check_count("queue", queue, optional=False) or 0
        self._queue_timeout = check_seconds("queue_timeout", queue_timeout, optional=False) or 0.0
        if fallback is not None and not callable(fallback):
            raise ConfigError(f"fallback must be a WSGI application, got {fallback!r}")
        self._fallback = fallback
        self._state = _state(state)
        #: Two pools of one name in one process, made in the same order in every worker, have two files.
        self._file = _file_name(self.name, self)
        self._persist = _path_or_none(persist)
        self.policy = policy if policy is not None else Policy.modern()
        self._transport = transport
        self._retry = retry
        self._now: Callable[[], int] = time.monotonic_ns if clock is None else lambda: int(clock() * SECOND)
        self._forwarder: Any = None
        self._live: _Live | None = None
        self._roster: Roster | None = None
        #: Origin and limits of each slot.
        self._reached: dict[int, tuple[Origin | None, Limits | None]] = {}
        self._birth = threading.Lock()
        self._waiting = 0
        self._room = threading.Event()

    # -- the destination -------------------------------------------------------------------------------------

    def lease(self, environ: Mapping[str, Any], tried: Sequence[Lease] = ()) -> Lease:
        """Elect a member for one attempt of a request; ``tried`` are its leases so far. NoMember when none is usable.

        Tells about the choice in ``environ`` as mod_proxy_balancer does (BALANCER_WORKER_ROUTE and so on).
        """
        live = self._live
        if live is None or live.provisional or live.pid != os.getpid():
            live = self.join(environ)
        table = live.table
        if table.words[H_MOVED]:
            live = self.join(environ)
            table = live.table
        roster = self._roster
        assert roster is not None
        refused = 0
        for lease in tried:
            refused += lease.refused
        if self._threads is not None and not tried and sum(table.in_flight) >= self._threads:
            raise _no_member(f"{self.name}: {self._threads} requests of this worker are in it already", kind=_Busy)
        route = self._route(environ)
        key = self._key(environ) if self._method_name == "hash" else ""
        try:
            if refused:
                self._allow_attempt(roster, tried, refused)
            return self._hold(environ, tried, table, roster, route, key)
        except NoMember as error:
            # A body may have been read by the attempts before: then it cannot be given to an application.
            if self._fallback is None or isinstance(error, _Busy) or (tried and _has_body(environ)):
                raise
            return FallbackLease(self._fallback, self.name)  # type: ignore[return-value]

    def _hold(
        self,
        environ: Mapping[str, Any],
        tried: Sequence[Lease],
        table: Table,
        roster: Roster,
        route: str,
        key: str,
    ) -> Lease:
        """Elect until somebody is elected or the time to wait is over."""
        deadline = 0
        while True:
            now = self._now()
            events: list[_Event] = []
            with table.lock:
                if table.words[H_GENERATION] != roster.generation:
                    roster = self._build(table)
                if now // SECOND > table.words[H_SAMPLED]:
                    table.reap()
                    table.sample(now // SECOND)
                slot, routed = self._elect(table, roster, now, tried, route, key, events)
                if slot >= 0:
                    table.elected[slot] += 1
                    table.in_flight[slot] += 1
                    if tried:
                        again = table.retried if tried[-1]._slot == slot else table.redispatched
                        again[slot] += 1
            if events:
                self._tell(events, roster)
            if slot >= 0:
                break
            deadline = self._wait(deadline, now, table, roster)
        seat = roster.by_slot[slot]
        self._describe(environ, seat, route, routed)
        return Lease(self, table, seat, self._cookie(environ, seat, route))

    def _allow_attempt(self, roster: Roster, tried: Sequence[Lease], refused: int) -> None:
        attempts = self._effective_attempts(roster)
        if refused > attempts:
            raise _no_member(f"{self.name}: {refused} members could not be reached")
        if self.policy.failover == "apache" and tried[-1].member.flags & _IGNORE:
            # Apache looks at the failed member, finds it usable still, and ends the request.
            raise _no_member(f"{self.name}: {tried[-1].name} ignores errors")

    def _effective_attempts(self, roster: Roster) -> int:
        return max(0, len(roster.seats) - 1) if self._attempts is None else self._attempts

    def _elect(
        self,
        table: Table,
        roster: Roster,
        now: int,
        tried: Sequence[Lease],
        route: str,
        key: str,
        events: list[_Event],
    ) -> tuple[int, bool]:
        """The slot elected, -1 for none, and whether it was found by the session's route. Under the lock."""
        if not route and not tried and roster.steady == table.words[H_EPOCH]:
            candidates = roster.candidates
            if not candidates:
                return -1, False
            return self._method(candidates, roster.counters, key), False
        if self._forcerecovery:
            self._recover(table, roster, now, events)
        avoid = self._avoided(tried)
        if route:
            slot = self._by_route(table, roster, now, route, avoid)
            if slot >= 0:
                usable = [i for i in roster.slots if not (roster.flags[i] | table.found[i]) & OUT]
                charge(slot, usable, roster.counters)
                return slot, True
            if self._nofailover and self._owned(roster, route):
                return -1, True
        candidates = self._candidates(table, roster, now, avoid, tried)
        if not candidates:
            return -1, False
        slot = self._method(candidates, roster.counters, key)
        if table.found[slot] & _TRIAL:
            table.trial[slot] = now
        return slot, False

    def _avoided(self, tried: Sequence[Lease]) -> frozenset[int]:
        if not tried or self.policy.failover == "apache":
            return frozenset()
        return frozenset(lease._slot for lease in tried)

    def _candidates(
        self, table: Table, roster: Roster, now: int, avoid: frozenset[int], tried: Sequence[Lease]
    ) -> Sequence[int]:
        timed = False
        health = self.health
        patience = int(max(1.0, health.eject) * SECOND) if health else 0

        def flags(i: int) -> int:
            nonlocal timed
            found = table.found[i]
            if found & _TIMED:
                timed = True
                if revive(table, i, now, roster.flags[i], roster.by_slot[i].retry):
                    table.words[H_EPOCH] += 1
                    table.since[i] = wall()
                    table.went_up[i] += 1
                found = table.found[i]
                if found & _TRIAL and on_trial(table, i, now, patience):
                    found |= _EJECTED
            return roster.flags[i] | found

        candidates: Sequence[int] = electable(roster.sets, flags)
        steady = not timed and not roster.limits
        if health is not None and health.slow_start:
            steady &= not self._ramp(table, roster, now, candidates)
        if roster.limits:
            busy = table.total("in_flight")
            candidates = [i for i in candidates if i not in roster.limits or busy[i] < roster.limits[i]]
        if avoid:
            refused = {lease._slot for lease in tried if lease.refused}
            candidates = [i for i in candidates if i not in avoid] or [i for i in candidates if i not in refused]
        elif steady:
            roster.candidates = tuple(candidates)
            roster.steady = table.words[H_EPOCH]
        return candidates

    def _ramp(self, table: Table, roster: Roster, now: int, candidates: Iterable[int]) -> bool:
        assert self.health is not None
        ramping = False
        for i in candidates:
            factor = roster.by_slot[i].member.lbfactor
            if table.ramp[i]:
                roster.lbfactor[i] = grown = ramped(factor, table.ramp[i], now, self.health.slow_start)
                ramping |= grown < factor
            else:
                roster.lbfactor[i] = factor
        return ramping

    def _recover(self, table: Table, roster: Roster, now: int, events: list[_Event]) -> None:
        """forcerecovery: when every member is in error, none of which is due for a retry, take all back."""
        found = table.found
        strict = self.policy.failover == "apache"
        serving = roster.slots if strict else [i for i in roster.slots if not roster.flags[i] & _ASKED_OUT]
        for i in serving:
            if not found[i] & (_ERROR | _EJECTED):
                return
            if revive(table, i, now, roster.flags[i], roster.by_slot[i].retry):
                table.words[H_EPOCH] += 1
                return
        if serving:
            force_recovery(table, serving)
            table.words[H_EPOCH] += 1
            events.append((-1, "pool_forced_back", {"members": len(serving)}))
            table.add_event({"event": "pool_forced_back", "members": len(serving)})

    def _by_route(self, table: Table, roster: Roster, now: int, route: str, avoid: frozenset[int]) -> int:
        """The usable member that owns ``route``, or the one its ``redirect`` names; -1 when there is none."""
        for _ in range(len(roster.seats) + 1):
            seats = self._owned(roster, route)
            redirect = ""
            for seat in seats:
                i = seat.slot
                if table.found[i] & _TIMED and revive(table, i, now, seat.flags, seat.retry):
                    table.words[H_EPOCH] += 1
                out = (seat.flags | table.found[i]) & OUT or i in avoid or self._drained(table, seat, now)
                if not out and not (seat.slot in roster.limits and self._full(table, roster, i)):
                    return i
                redirect = redirect or seat.member.redirect
            if not redirect or isinstance(self._sticky, StickyCookie):
                return -1
            route = redirect
        return -1

    def _owned(self, roster: Roster, route: str) -> list[Seat]:
        if isinstance(self._sticky, StickyCookie):
            seat = roster.by_token.get(route)
            return [seat] if seat is not None else []
        return roster.routes.get(route, [])

    @staticmethod
    def _drained(table: Table, seat: Seat, now: int) -> bool:
        return bool(seat.flags & DRAIN_BIT and 0 < table.drain_until[seat.slot] <= now)

    @staticmethod
    def _full(table: Table, roster: Roster, slot: int) -> bool:
        return table.total_of("in_flight", slot) >= roster.limits[slot]

    def _route(self, environ: Mapping[str, Any]) -> str:
        sticky = self._sticky
        if sticky is None:
            return ""
        if isinstance(sticky, StickyCookie):
            return sticky.find(environ.get("HTTP_COOKIE", ""))
        return sticky.find(
            environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", ""), environ.get("HTTP_COOKIE", "")
        )

    def _describe(self, environ: Any, seat: Seat, route: str, routed: bool) -> None:
        """The variables that mod_proxy_balancer exports."""
        environ["BALANCER_NAME"] = f"balancer://{self.name}"
        environ["BALANCER_WORKER_NAME"] = seat.member.id
        if self._sticky is None:
            return
        environ["BALANCER_WORKER_ROUTE"] = seat.member.route
        if routed and seat.member.route == route:
            environ["BALANCER_SESSION_STICKY"] = str(self._sticky)
            environ["BALANCER_SESSION_ROUTE"] = route
            environ.pop("BALANCER_ROUTE_CHANGED", None)
        elif not routed or isinstance(self._sticky, StickyRoute):
            environ["BALANCER_ROUTE_CHANGED"] = "1"

    def _cookie(self, environ: Mapping[str, Any], seat: Seat, route: str) -> HeaderList:
        sticky = self._sticky
        if not isinstance(sticky, StickyCookie) or seat.token == route:
            return []
        return [("Set-Cookie", sticky.header(seat.token, https=environ.get("wsgi.url_scheme") == "https"))]

    def _wait(self, deadline: int, now: int, table: Table, roster: Roster) -> int:
        """Wait a little for a member, outside the lock; NoMember when the time is over. Returns the deadline."""
        full = bool(roster.limits) and self._at_limit(table, roster)
        if not deadline:
            seconds = self._queue_timeout if full and self._queue else self._timeout
            if not seconds or (full and self._waiting >= self._queue):
                raise self._exhausted(table, roster, now, full)
            deadline = now + int(seconds * SECOND)
        if now >= deadline:
            raise self._exhausted(table, roster, now, full)
        with self._birth:
            self._waiting += 1
        try:
            # An event wakes the waiters of this process; the short time is for what other workers give back.
            self._room.clear()
            self._room.wait(min(0.02, (deadline - now) / SECOND))
        finally:
            with self._birth:
                self._waiting -= 1
        return deadline

    def _at_limit(self, table: Table, roster: Roster) -> bool:
        return any(not (roster.flags[i] | table.found[i]) & OUT and self._full(table, roster, i) for i in roster.limits)

    def _exhausted(self, table: Table, roster: Roster, now: int, full: bool) -> NoMember:
        if full:
            return _no_member(f"{self.name}: every member is at its limit", kind=_Busy)
        waits = [w for seat in roster.seats if (w := _retry_in(table, seat, now)) is not None]
        return _no_member(f"{self.name}: no member is usable", max(1, min(waits, default=1.0).__ceil__()))

    # -- what an exchange tells ------------------------------------------------------------------------------

    def _judge(self, lease: Lease, table: Table, slot: int, error: UpstreamError | None, status: int) -> None:
        """Take notice of how an attempt ended, where it was a failure or ends an error."""
        now = self._now()
        events: list[_Event] = []
        refused, weight, reason = self._verdict(error, status)
        lease.refused = refused or isinstance(error, PoolExhausted)
        if error is not None:
            with table.thread_lock:
                table.own_reasons[_failure(error)][slot] += 1
                if not isinstance(error, (ClientAborted, PoolExhausted, OutOfFiles)):
                    table.own_errors[slot] += 1
        roster = self._roster
        if roster is None or (not weight and error is not None):
            return
        with table.lock:
            if weight:
                self._failed(table, roster, slot, now, weight, reason, events)
            elif record_success(table, slot, now, self.health):
                table.words[H_EPOCH] += 1
                table.since[slot] = wall()
                table.went_up[slot] += 1
                events.append((slot, "member_up", {"reason": "trial passed"}))
                table.add_event({"event": "member_up", "member": lease.name, "reason": "trial passed"})
        if events:
            self._tell(events, roster)

    def _verdict(self, error: UpstreamError | None, status: int) -> tuple[bool, int, str]:
        """Whether the member could not be reached; how much it counts, in halves of a failure; and why."""
        if error is None:
            return False, 2 if status in self.failonstatus else 0, f"status {status}"
        if isinstance(error, (ClientAborted, PoolExhausted, OutOfFiles, NoMember)):
            return False, 0, ""  # nothing that the member did
        if error.connect_level:
            return True, 2, error.event
        if (status or error.status) in self.failonstatus:
            return False, 2, f"status {status or error.status}"
        timed_out = isinstance(error, (FirstByteTimeout, BodyTimeout))
        if timed_out and self._failontimeout:
            return False, 2, error.event
        if self.health is None:
            return False, 0, ""  # Apache: a member that can be connected to stays
        if timed_out:
            return False, 1, error.event
        broken = isinstance(error, (ConnectionReset, ResponseMalformed, BodyTruncated))
        return False, 2 if broken else 0, error.event

    def _failed(
        self, table: Table, roster: Roster, slot: int, now: int, weight: int, reason: str, events: list[_Event]
    ) -> None:
        seat = roster.by_slot.get(slot)
        if seat is None:
            return
        if self.health is None:
            if not mark_error(table, slot, now, seat.flags):
                return
            name, seconds = "member_error", seat.member.retry
        else:
            if seat.flags & _IGNORE:
                return
            aside = sum(bool(table.found[i] & (_EJECTED | _ERROR | _TRIAL)) for i in roster.slots if i != slot)
            seconds = record_failure(table, slot, now, self.health, weight, aside, len(roster.slots))
            if not seconds:
                return
            name = "member_ejected"
        table.words[H_EPOCH] += 1
        table.since[slot] = wall()
        table.went_down[slot] += 1
        table.write_text(slot, {**table.read_text(slot), "reason": reason})
        table.add_event({"event": name, "member": seat.member.id, "reason": reason, "seconds": seconds})
        events.append((slot, name, {"reason": reason, "retry_in": f"{seconds:g}"}))

    def _tell(self, events: Iterable[_Event], roster: Roster) -> None:
        for slot, name, fields in events:
            seat = roster.by_slot.get(slot)
            member = f" member={_safe(seat.member.id)}" if seat is not None else ""
            text = "".join(f" {key}={_safe(str(value))}" for key, value in fields.items())
            _log.warning("event=%s pool=%s%s%s", name, _safe(self.name), member, text)

    # -- the application -------------------------------------------------------------------------------------

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Forward to a member, the path as it is below SCRIPT_NAME."""
        from proxymw.errors import RequestRefused
        from proxymw.exchange.inbound import inbound, refuse

        try:
            path = inbound(environ, self.policy)
        except RequestRefused as error:
            return refuse(environ, start_response, error)
        query = environ.get("QUERY_STRING", "")
        target = f"{path.raw}?{query}" if query else path.raw
        return self.forwarder(environ, start_response, self, target)  # type: ignore[no-any-return]

    @property
    def forwarder(self) -> Any:
        """The Forwarder with which the pool answers when it is called itself."""
        if self._forwarder is None:
            from proxymw.exchange.forwarder import Forwarder

            self._forwarder = Forwarder(transport=self._transport, policy=self.policy, retry=self._retry)
        return self._forwarder

    # -- the table -------------------------------------------------------------------------------------------

    def join(self, environ: Mapping[str, Any] | None = None) -> _Live:
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
                problem = join(live.table, self._members, down=self.probe is not None and self.probe.initial == "down")
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
                _log.error("event=state_local pool=%s reason=%s", _safe(self.name), _safe(problem))
                with live.table.lock:
                    join(live.table, self._members)
                    self._build(live.table)
            self._live = live
            return live

    def _open(self, pid: int, environ: Mapping[str, Any] | None) -> _Live:
        several = environ is not None and bool(environ.get("wsgi.multiprocess"))
        if self._state is None and not several:
            return _Live(pid, local_table(self.name, len(self._members)), "local", environ is None)
        try:
            table = shared_table(self._path(), self.name, len(self._members))
        except OSError as error:
            reason = why_not(error)
            _log.error("event=state_local pool=%s workers=alone reason=%s", _safe(self.name), _safe(reason))
            return _Live(pid, local_table(self.name, len(self._members)), f"local: {reason}")
        level = logging.INFO if table.created else logging.DEBUG
        _log.log(level, "event=state_shared pool=%s path=%s", _safe(self.name), _safe(table.path))
        return _Live(pid, table, "shared")

    def _grow(self, live: _Live, problem: str) -> tuple[_Live, str]:
        """Move to a bigger file that has room for all members; what is wrong with that, if anything."""
        assert isinstance(live.table, SharedTable)
        needed = len(self._members) + sum(live.table.used)
        try:
            table = grow_table(live.table, self._path(), self.name, needed)
        except OSError as error:
            return live, f"{problem}, and {why_not(error)}"
        with table.lock:
            problem = join(table, self._members)
            if not problem:
                self._build(table)
        return replace(live, table=table), problem

    def _path(self) -> str:
        return self._state if self._state is not None else automatic_path(self._file)

    def close(self) -> None:
        """Leave the shared table; what this process had in flight is given back. A later request joins again."""
        with self._birth:
            live, self._live = self._live, None
            if live is not None and live.pid == os.getpid():
                close_table(live.table)

    def _build(self, table: Table) -> Roster:
        """Read what was asked for, in this or another worker. Under the lock."""
        now = self._configured.but(table.read_text(-1))
        if as_method(now.method)[0] != self._method_name:
            self._method_name, self._method = as_method(now.method)
        self._sticky, self._nofailover, self._attempts, self._timeout = (
            now.sticky, now.nofailover, now.attempts, now.timeout,
        )  # fmt: skip
        sticky = self._sticky
        token = sticky.token if isinstance(sticky, StickyCookie) else None
        roster = build(table, self._members, secret=table.secret, token=token)
        keep_slash = self.policy.spelling == "apache"
        self._reached = {
            slot: (_origin(seat.member, keep_slash), _limits(seat.member)) for slot, seat in roster.by_slot.items()
        }
        self._roster = roster
        if isinstance(self._method, Hash):
            self._method.names = roster.names
        return roster

    def _attached(self) -> tuple[Table, Roster]:
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

    # -- what is shown ---------------------------------------------------------------------------------------

    @property
    def method(self) -> str:
        return self._method_name

    @property
    def members(self) -> tuple[Member, ...]:
        """The members in order, with their parameters as they are now."""
        return tuple(seat.member for seat in self._attached()[1].seats)

    @property
    def secret(self) -> bytes:
        """32 random bytes kept with the table: the same in every worker. For nonces and tokens, never to be shown."""
        return self._attached()[0].secret

    def snapshot(self) -> PoolSnapshot:
        """Everything about the pool as it stands at one moment."""
        table, roster = self._attached()
        now = self._now()
        with table.lock:
            table.reap()
            totals = {name: table.total(name) for name in SUMMED}
            views = [self._view(table, seat, now, totals) for seat in roster.seats]
            views += [self._view(table, seat, now, totals) for seat in roster.removed if totals["in_flight"][seat.slot]]
            workers = sum(1 for block in table.blocks() if any(block["mapped"]))
        assert self._live is not None
        return PoolSnapshot(
            name=self.name,
            method=self._method_name,
            sticky=str(self._sticky or ""),
            nofailover=self._nofailover,
            attempts=self._effective_attempts(roster),
            timeout=self._timeout,
            state=self._live.state,
            workers=workers,
            generation=roster.generation,
            members=tuple(views),
        )

    def _view(self, table: Table, seat: Seat, now: int, totals: Mapping[str, Sequence[int]]) -> MemberView:
        i, member = seat.slot, seat.member
        found = table.found[i]
        text = table.read_text(i)
        down = bool(found & (_ERROR | _EJECTED | _CHECK_FAILED))
        finished = totals["finished"][i]
        return MemberView(
            id=member.id,
            url=member.url,
            route=member.route,
            redirect=member.redirect,
            weight=member.lbfactor / 100,
            lbset=member.lbset,
            asked="removed" if seat.flags & _REMOVED else asked_state(seat.flags),
            flags=tuple(name for name in ("ignore_errors", "stopped") if seat.flags & FLAGS[name]),
            health="down" if down else "up",
            reason=_reason(found, str(text.get("reason", ""))),
            since=table.since[i] / 1e6,
            classes=tuple(totals[name][i] for name in CLASSES),
            buckets=tuple(totals[name][i] for name in BUCKETS),
            failures={reason: count for reason in REASONS if (count := totals[f"why_{reason}"][i])},
            again=(table.retried[i], table.redispatched[i]),
            transitions=(table.went_up[i], table.went_down[i]),
            retry_in=_retry_in(table, seat, now),
            requests=table.elected[i],
            in_flight=totals["in_flight"][i],
            sent=totals["sent"][i],
            received=totals["received"][i],
            errors=totals["errors"][i],
            finished=finished,
            latency=totals["latency"][i] / finished / 1e6 if finished else 0.0,
            load=table.lbstatus[i],
            last_change=table.changed[i] / 1e6,
            changed_by=str(text.get("by", "")),
            letters=status_words(seat.flags | found),
            limit=member.limit,
        )

    def eligible(self, now: float | None = None) -> list[tuple[Member, bool, str]]:
        """Each member, whether it would take a new request now (seconds of the pool's clock), and why. Changes
        nothing."""
        table, roster = self._attached()
        moment = self._now() if now is None else int(now * SECOND)
        with table.lock:
            return [
                (seat.member, *_standing(seat, table.found[seat.slot], _retry_in(table, seat, moment)))
                for seat in roster.seats
            ]

    def in_flight(self, member_id: str) -> int:
        """Requests of a member that are under way in all workers, also after it left the pool."""
        table, _ = self._attached()
        with table.lock:
            slot = table.slot_ids().get(member_id)
            return 0 if slot is None else table.total_of("in_flight", slot)

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """What happened lately, oldest first: dicts with ``seq``, ``time`` (wall clock) and ``event``; those after
        ``after``."""
        table, _ = self._attached()
        with table.lock:
            return table.read_events(after)

    def history(self, seconds: int = 600, step: int = 1, names: Sequence[str] = SAMPLES) -> dict[str, Any]:
        """One-second samples of the last ``seconds`` (at most 600), oldest first, for charts.

        ``{"ages": [seconds ago, …], "members": {id: {"requests": […], "errors": […], "in_flight": […], "received": […],
        "latency": […], "5xx": […]}}}``: per second but for in_flight (at that moment); latency is in microseconds of
        exchanges that ended. Seconds without traffic have no sample. ``step``: one sample, the mean, for so many
        seconds. ``names``: those of interest.
        """
        table, roster = self._attached()
        now = self._now() // SECOND
        with table.lock:
            table.reap()
            table.sample(now)
            rows = table.rows(now, seconds, step)
        result: dict[str, Any] = {"ages": [now - second for second, _ in rows[1:]], "members": {}}
        for seat in roster.seats:
            columns = {}
            for name in names:
                number = SAMPLES.index(name)
                values = [row[number][seat.slot] for _, row in rows]
                columns[name] = values[1:] if name == "in_flight" else _differences(values, rows)
            result["members"][seat.member.id] = columns
        return result

    def lately(self, seconds: int = 60) -> tuple[int, dict[str, tuple[list[int], list[int]]]]:
        """What was counted in about the last ``seconds``: how many they were, to ten, and for each member its answers
        by status class (1xx to 5xx) and its exchanges by time (in the classes of BOUNDS, and one above)."""
        table, roster = self._attached()
        now = self._now() // SECOND
        with table.lock:
            marks = table.marked(now)
            base = next((mark for mark in reversed(marks) if now - mark[0] >= seconds), marks[0] if marks else None)
            end = [table.total(name) for name in MARKED]
            begin = table.mark_columns(base[1]) if base else [[0] * len(column) for column in end]
            counts = [
                [max(0, b - a) for a, b in zip(first, last, strict=False)]
                for first, last in zip(begin, end, strict=True)
            ]
        split = len(CLASSES)
        values = dict(enumerate(zip(*counts, strict=True)))
        members = {
            seat.member.id: (list(values[seat.slot][:split]), list(values[seat.slot][split:])) for seat in roster.seats
        }
        return now - base[0] if base else 0, members

    def times(self) -> list[tuple[int, list[int]]]:
        """Exchanges of all members by time (in the classes of BOUNDS, and one above) in the last ten minutes.

        One entry for each ten seconds with traffic, oldest first: the seconds since its end, and the counts.
        """
        table, _ = self._attached()
        now = self._now() // SECOND
        split = len(CLASSES)
        with table.lock:
            sums = [
                (second, [sum(column) for column in table.mark_columns(start)[split:]])
                for second, start in table.marked(now)
            ]
            sums.append((now, [sum(table.total(name)) for name in BUCKETS]))
        return [
            (now - second, [max(0, b - a) for a, b in zip(before, after, strict=True)])
            for (_, before), (second, after) in itertools.pairwise(sums)
        ]

    def change(
        self,
        member_id: str,
        *,
        by: str = "",
        state: str | None = None,
        loadfactor: float | None = None,
        lbset: int | None = None,
        route: str | None = None,
        redirect: str | None = None,
        flags: Mapping[str, bool] | None = None,
        retry_now: bool = False,
        deadline: float | None = None,
    ) -> None:
        """Change a member in all workers, from their next request on. ConfigError, and nothing changed, on a bad value.

        ``state``: ready, drain, disabled, standby or spare. ``flags``: ``{"stopped": True, "ignore_errors": False,
        …}``, any
        of Apache's bits alone. ``deadline``: seconds after which a draining member takes no session either.
        ``retry_now`` ends an error or an ejection.
        """
        table, roster = self._attached()
        seat = self._seat(roster, member_id)
        lbfactor = None if loadfactor is None else check_loadfactor(loadfactor)
        if lbset is not None:
            check_lbset(lbset)
        words = {
            name: check_route(value, name)
            for name, value in (("route", route), ("redirect", redirect))
            if value is not None
        }
        check_seconds("deadline", deadline)
        bits = _with_flags(seat.flags if state is None else with_state(seat.flags, state), flags)
        i = seat.slot
        with table.lock:
            if bits != seat.flags:
                table.asked_flags[i], table.mask[i] = bits, table.mask[i] | M_FLAGS
            if lbfactor is not None:
                table.asked_lbfactor[i], table.mask[i] = lbfactor, table.mask[i] | M_LBFACTOR
            if lbset is not None:
                table.asked_lbset[i], table.mask[i] = lbset, table.mask[i] | M_LBSET
            table.drain_until[i] = (
                self._now() + int(deadline * SECOND) if deadline is not None and bits & DRAIN_BIT else 0
            )
            if retry_now:
                table.found[i] &= ~(_ERROR | _EJECTED | _TRIAL)
                table.fails[i] = table.ejections[i] = 0
            text = {**table.read_text(i), **words, "by": by[:60]}
            if not table.write_text(i, text):
                raise ConfigError(f"member {member_id!r} has too much text, got route or redirect too long")
            for name, bit in (("route", M_ROUTE), ("redirect", M_REDIRECT)):
                if name in words:
                    table.mask[i] |= bit
            table.changed[i] = wall()
            asked = {
                "state": state, "loadfactor": loadfactor, "lbset": lbset, **words,
                "flags": dict(flags) if flags else None, "retry_now": retry_now or None, "deadline": deadline,
            }  # fmt: skip
            done = {name: value for name, value in asked.items() if value is not None}
            old = {
                "state": asked_state(seat.flags), "loadfactor": seat.member.lbfactor / 100, "lbset": seat.member.lbset,
                "route": seat.member.route, "redirect": seat.member.redirect,
                "flags": {name: bool(seat.flags & FLAGS[name]) for name in flags or ()} or None,
            }  # fmt: skip
            was = {name: value for name, value in old.items() if name in done and value != done[name]}
            table.add_event({"event": "member_changed", "member": member_id, "by": by[:60], **done, "was": was})
            self._moved(table, roster)
        _log.info(
            "event=member_changed pool=%s member=%s by=%s now=%s was=%s",
            self.name, _safe(member_id), _safe(by), _safe(_plain(done)), _safe(_plain(was)),
        )  # fmt: skip
        self._save()

    def add(self, member: Any, *, by: str = "", state: str | None = None) -> Member:
        """Add a member to the pool in all workers; ConfigError when it is there. A WSGI application cannot be added."""
        new = as_member(member)
        if new.origin is None:
            raise ConfigError(f"a member added while running must be a URL, got {member!r}")
        table, roster = self._attached()
        flags = new.flags & ASKED if state is None else with_state(new.flags & ASKED, state)
        with table.lock:
            known = table.slot_ids()
            slot = known.get(new.id)
            if slot is not None and any(seat.member.id == new.id for seat in roster.seats):
                raise ConfigError(f"member must not be in the pool already, got {new.id!r}")
            if slot is None:
                slot = table.take_slot(new.id)
            if slot is None:
                raise ConfigError(f"the pool has no room for another member, got {new.id!r}")
            configured = any(own.id == new.id for own in self._members)
            text = {"route": new.route, "redirect": new.redirect, "by": by[:60]}
            if not configured:
                text["added"] = added_text(new)  # type: ignore[assignment]
            if not table.write_text(slot, text):
                table.used[slot] = 0
                raise ConfigError(f"member has too much text, got {new.id!r}")
            table.asked_flags[slot], table.asked_lbfactor[slot], table.asked_lbset[slot] = (
                flags,
                new.lbfactor,
                new.lbset,
            )
            table.mask[slot] = M_FLAGS | M_LBFACTOR | M_LBSET | M_ROUTE | M_REDIRECT | (0 if configured else M_ADDED)
            table.changed[slot] = wall()
            table.mapped[slot] = 1
            table.add_event({"event": "member_added", "member": new.id, "by": by[:60]})
            self._moved(table, roster)
        _log.info("event=member_added pool=%s member=%s by=%s", self.name, _safe(new.id), _safe(by))
        self._save()
        return new

    def remove(self, member_id: str, *, by: str = "") -> None:
        """Take a member out of the pool in all workers; what it has in flight ends in peace (see ``in_flight``)."""
        table, roster = self._attached()
        seat = self._seat(roster, member_id)
        with table.lock:
            table.asked_flags[seat.slot] = seat.flags | _REMOVED
            table.mask[seat.slot] |= M_FLAGS
            table.changed[seat.slot] = wall()
            table.add_event({"event": "member_removed", "member": member_id, "by": by[:60]})
            self._moved(table, roster)
        _log.info("event=member_removed pool=%s member=%s by=%s", self.name, _safe(member_id), _safe(by))
        self._save()

    def drain(self, member_id: str, *, by: str = "", deadline: float | None = None, wait: float = 0.0) -> int:
        """Let a member keep its sessions and take no new ones; waits up to ``wait`` seconds for 0 in flight, returns
        it."""
        self.change(member_id, by=by, state="drain", deadline=deadline)
        end = time.monotonic() + wait
        while (busy := self.in_flight(member_id)) and time.monotonic() < end:
            time.sleep(0.02)
        return busy

    def change_pool(
        self,
        *,
        by: str = "",
        method: str | None = None,
        timeout: float | None = None,
        attempts: int | None = None,
        sticky: str | None = None,
        nofailover: bool | None = None,
    ) -> None:
        """Change the pool in all workers. ``sticky``: a cookie name or ``cookie|parameter``; empty: none."""
        if method is not None and method not in METHODS:
            raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        check_seconds("timeout", timeout)
        check_count("attempts", attempts)
        if sticky is not None:
            as_sticky(sticky)
        if nofailover is not None and not isinstance(nofailover, bool):
            raise ConfigError(f"nofailover must be True or False, got {nofailover!r}")
        table, roster = self._attached()
        values = {
            "method": method, "timeout": timeout, "attempts": attempts, "sticky": sticky, "nofailover": nofailover,
        }  # fmt: skip
        asked = {name: value for name, value in values.items() if value is not None}
        with table.lock:
            old = {
                "method": self._method_name, "timeout": self._timeout, "nofailover": self._nofailover,
                "attempts": self._effective_attempts(roster), "sticky": str(self._sticky or ""),
            }  # fmt: skip
            was = {name: value for name, value in old.items() if name in asked and value != asked[name]}
            table.write_text(-1, {**table.read_text(-1), **asked})
            table.add_event({"event": "pool_changed", "by": by[:60], **asked, "was": was})
            self._moved(table, roster)
            if method is not None:
                self._reset(table, roster)
        _log.info(
            "event=pool_changed pool=%s by=%s now=%s was=%s",
            self.name, _safe(by), _safe(_plain(asked)), _safe(_plain(was)),
        )  # fmt: skip
        self._save()

    def _seat(self, roster: Roster, member_id: str) -> Seat:
        for seat in roster.seats:
            if seat.member.id == member_id:
                return seat
        raise ConfigError(f"member must be one of {', '.join(s.member.id for s in roster.seats)}, got {member_id!r}")

    def _moved(self, table: Table, roster: Roster) -> None:
        """Something was asked for: every worker reads it with its next request. Under the lock.

        As in Apache the turn begins anew: the round robin counters restart at the load factors.
        """
        for seat in roster.seats:
            table.lbstatus[seat.slot] = seat.member.lbfactor
        table.words[H_EPOCH] += 1
        table.words[H_GENERATION] += 1
        self._build(table)

    @staticmethod
    def _reset(table: Table, roster: Roster) -> None:
        """The method begins anew: no credit, no traffic. Under the lock."""
        sent, received = table.total("sent"), table.total("received")
        for seat in roster.seats:
            i = seat.slot
            table.lbstatus[i], table.base_sent[i], table.base_received[i] = 0, sent[i], received[i]
        table.words[H_GENERATION] += 1

    def _save(self) -> None:
        """Keep the changes in the file of ``persist``."""
        if self._persist is not None:
            table, _ = self._attached()
            with table.lock:
                kept = persist.collect(table)
            persist.save(self._persist, kept)

    def __repr__(self) -> str:
        try:
            shot = self.snapshot()
        except Exception:
            return f"<BalancerPool {self.name}>"
        usable = sum(view.usable for view in shot.members)
        busy = sum(view.in_flight for view in shot.members)
        return f"<BalancerPool {self.name} {shot.method}: {len(shot.members)} members, {usable} usable, {busy} busy>"


def _origin(member: Member, keep_slash: bool) -> Origin | None:
    """Where a member is reached; Apache sends a double slash when its URL ends in one."""
    origin = member.origin
    if origin is None or keep_slash or not origin.base.endswith("/"):
        return origin
    return replace(origin, base=origin.base.rstrip("/"))


def _limits(member: Member) -> Limits | None:
    """The clocks and connections of a member; without ``connectiontimeout`` its ``timeout`` counts for that too."""
    connect = member.connectiontimeout if member.connectiontimeout is not None else member.timeout
    limits = Limits(connect, member.timeout, member.timeout, None, member.max, member.acquire, member.ttl)
    return limits if limits != Limits() else None


_named: dict[str, weakref.WeakSet[BalancerPool]] = {}


def _file_name(name: str, pool: BalancerPool) -> str:
    others = _named.setdefault(name, weakref.WeakSet())
    number = len(others)
    others.add(pool)
    return f"{name}.{number}" if number else name


def _failure(error: UpstreamError) -> str:
    """One of REASONS."""
    for kind, reason in _FAILURES:
        if isinstance(error, kind):
            return reason
    return "connect" if error.connect_level else "other"


class _Busy(NoMember):
    """Members are well, and have no room."""


def _has_body(environ: Mapping[str, Any]) -> bool:
    return environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ


def _no_member(text: str, retry_after: int = 1, kind: type[NoMember] = NoMember) -> NoMember:
    error = kind(text)
    error.retry_after = retry_after
    return error


def _retry_in(table: Table, seat: Seat, now: int) -> float | None:
    """Seconds until a member that is down is offered requests again; None when it is up or not by itself."""
    found = table.found[seat.slot]
    if found & _EJECTED:
        return max(0, table.until[seat.slot] - now) / SECOND
    if found & _ERROR and not seat.flags & Flag.STOPPED:
        return max(0, table.error_at[seat.slot] + seat.retry - now) / SECOND
    return None


def _reason(found: int, reason: str) -> str:
    if found & _CHECK_FAILED:
        return "health check failed"
    if found & _EJECTED:
        return f"ejected: {reason}" if reason else "ejected"
    if found & _ERROR:
        return reason or "in error"
    return "on trial" if found & _TRIAL else ""


def _standing(seat: Seat, found: int, retry_in: float | None) -> tuple[bool, str]:
    flags = seat.flags | found
    if flags & _REMOVED:
        return False, "removed"
    for flag, why in (
        (Flag.DISABLED, "disabled"),
        (Flag.STOPPED, "stopped"),
        (Flag.CHECK_FAILED, "health check failed"),
    ):
        if flags & flag:
            return False, why
    if flags & (_ERROR | _EJECTED):
        if retry_in == 0:
            return True, "in error, due for a retry"
        return False, f"{'in error' if flags & _ERROR else 'ejected'}, retry in {retry_in or 0:.0f} s"
    if flags & DRAIN_BIT:
        return False, "draining: takes only its own sessions"
    if flags & Flag.STANDBY:
        return True, "standby: used when no other member of its set is"
    if flags & Flag.SPARE:
        return True, "spare: used in place of a member that is out"
    return True, "on trial" if flags & _TRIAL else "ready"


def _differences(values: Sequence[int], rows: Sequence[tuple[int, Any]]) -> list[float]:
    """Per second, from cumulated values at the seconds of ``rows``."""
    return [(b - a) / (rows[n + 1][0] - rows[n][0]) for n, (a, b) in enumerate(itertools.pairwise(values))]


def _with_flags(bits: int, flags: Mapping[str, bool] | None) -> int:
    for name, on in (flags or {}).items():
        if name not in FLAGS:
            raise ConfigError(f"flags must be of {', '.join(FLAGS)}, got {name!r}")
        bits = bits | FLAGS[name] if on else bits & ~FLAGS[name]
    return bits


def _statuses(values: object) -> frozenset[int]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ConfigError(f"failonstatus must be a list of statuses, got {values!r}")
    statuses = frozenset(values)
    for status in statuses:
        if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
            raise ConfigError(f"failonstatus must be statuses from 100 to 599, got {status!r}")
    return statuses


def _instance(name: str, value: Any, kind: type[Any]) -> Any:
    if value is not None and not isinstance(value, kind):
        raise ConfigError(f"{name} must be a {kind.__name__}, got {value!r}")
    return value


def _path_or_none(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ConfigError(f"persist must be the path of a file, got {value!r}")
    return str(os.fspath(value))


def _state(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ConfigError(f"state must be a path, a redis:// URL or None, got {value!r}")
    return str(os.fspath(value))


def _key_reader(hash_by: object) -> Callable[[Mapping[str, Any]], str]:
    """The function that takes from a request what ``hash`` goes by."""
    kind, _, name = hash_by.partition(":") if isinstance(hash_by, str) else ("", "", "")
    if kind == "path" and not name:
        return lambda environ: str(environ.get("PATH_INFO", ""))
    if kind == "client" and not name:
        return lambda environ: str(environ.get("REMOTE_ADDR", ""))
    if kind == "header" and name:
        variable = "HTTP_" + name.upper().replace("-", "_")
        return lambda environ: str(environ.get(variable, ""))
    if kind == "cookie" and name:
        return lambda environ: cookie_value(environ.get("HTTP_COOKIE", ""), name) or ""
    raise ConfigError(f"hash_by must be path, client, header:Name or cookie:name, got {hash_by!r}")


def _plain(values: Mapping[str, Any]) -> str:
    """Settings for the log: ``state:drain,loadfactor:2``."""
    return ",".join(f"{name}:{value}" for name, value in values.items()) or "-"


def _safe(text: str) -> str:
    """A value for the log: printable ASCII, at most 200 characters."""
    return "".join(c if "!" <= c <= "~" else f"\\x{ord(c):02X}" for c in text[:200])


__all__ = ["BalancerPool", "FLAGS", "Health", "Lease", "Member", "Probe", "STATES"]
