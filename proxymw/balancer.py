"""BalancerPool: a group of members behind one name (``<Proxy balancer://name>``), one truth for all workers."""

from __future__ import annotations

import logging
import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
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
from proxymw.rules.lbmethods import METHODS, charge, electable
from proxymw.rules.members import DRAIN_BIT, OUT, Flag, Member
from proxymw.rules.options import application, check_count, check_seconds, flag, instance
from proxymw.rules.policy import Policy
from proxymw.rules.sticky import StickyCookie, StickyRoute, as_sticky, cookie_value
from proxymw.state.changes import PoolChanges
from proxymw.state.pool import Settings, safe
from proxymw.state.table import (
    BOUNDS,
    H_EPOCH,
    H_GENERATION,
    H_MOVED,
    H_SAMPLED,
    Table,
    wall,
)
from proxymw.state.views import retry_in

if TYPE_CHECKING:
    from proxymw.prefix import PrefixProxy
    from proxymw.prober import Prober
    from proxymw.rules.headers import HeaderList
    from proxymw.rules.origins import Origin
    from proxymw.state.roster import Roster, Seat

_log = logging.getLogger("proxymw.pool")

_ERROR, _EJECTED, _TRIAL = int(Flag.ERROR), int(Flag.EJECTED), int(Flag.TRIAL)
_CHECK_FAILED, _REMOVED, _IGNORE = int(Flag.CHECK_FAILED), int(Flag.REMOVED), int(Flag.IGNORE_ERRORS)
#: Asked out of service: such a member does not keep the others from being forced back.
_ASKED_OUT = int(Flag.DISABLED | Flag.STOPPED | Flag.REMOVED | Flag.DRAIN)
#: Found bits whose end is a matter of time.
_TIMED = _ERROR | _EJECTED | _TRIAL
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


class Lease:
    """One member, held for one attempt; ``finish`` gives it back."""

    __slots__ = (
        "_balancer", "_counted", "_done", "_slot", "_table", "app", "limits", "member", "name", "origin", "pool",
        "refused", "set_headers", "wrote",
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
        #: Called with the bytes of the request once they are out; only bytraffic wants to know before the end.
        self.wrote = self.count_sent if balancer.counts_early else None
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
            if table.in_flight[slot] > 0:  # it was given back already when the table was left
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


class BalancerPool(PoolChanges):
    """Members that share the requests made to one name; a WSGI application and the target of proxy rules. When all of
    them are in error, and so with a single one, all are forced back at once and tried, as in Apache; with
    ``forcerecovery=False`` the answer is 503 with Retry-After until one may be tried again, and with ``fallback=`` that
    application's. What active checks (``probe``) found is believed in any case.

    ``members`` are URLs, WSGI applications or Member objects. Options, with Apache's word where it differs:

    - ``method`` (lbmethod): byrequests, bytraffic, bybusyness, leastconn, ewma, hash, or a callable with the signature
      of proxymw.rules.lbmethods.LBMethod. ``hash_by``: what ``hash`` goes by: ``path``, ``client``, ``header:Name`` or
      ``cookie:name``.
    - ``state``: None: chosen by itself: in this process, or one mapped file for all workers of the server; a path of a
      file of one's own, or of a directory for such files; ``redis://…`` to share what must agree between hosts.
    - ``sticky`` (stickysession): ``"JSESSIONID|jsessionid"``, a StickyRoute, or True or a StickyCookie for a cookie of
      our own; ``nofailover``: a session whose member is gone gets 503 instead of another member.
    - ``attempts`` (maxattempts): how many more members are tried after one that cannot be reached; default: all others.
    - ``timeout``: seconds to wait for a usable member. ``forcerecovery``: take all back when all are in error.
    - ``failonstatus``: statuses that put a member in error; ``failontimeout``: a timeout does.
    - ``health``: a Health for ejection instead of ``retry``; ``probe``: a Probe for active checks.
    - ``threads``: how many requests of one process may be in this pool at once; more get 503 with Retry-After.
    - ``queue``: how many requests of one process may wait, for ``queue_timeout`` seconds, when every member is at its
      ``limit``; more get 503.
    - ``fallback``: a WSGI application that answers when no member is usable.
    - ``persist``: a file in which changes made while running outlive the server.
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
        settings = Settings(
            method,
            as_sticky(sticky),
            flag("nofailover", nofailover),
            check_count("attempts", attempts),
            check_seconds("timeout", timeout, optional=False) or 0.0,
        )
        self.health = instance("health", health, Health)
        self.probe = instance("probe", probe, Probe)
        super().__init__(
            members,
            name=name,
            settings=settings,
            state=state,
            persist=persist,
            down=self.probe is not None and self.probe.initial == "down",
            clock=clock,
        )
        self._key = _key_reader(hash_by)
        self._forcerecovery = flag("forcerecovery", forcerecovery)
        self.failonstatus = _statuses(failonstatus)
        self._failontimeout = flag("failontimeout", failontimeout)
        self._threads = check_count("threads", threads, least=1)
        self._queue = check_count("queue", queue, optional=False) or 0
        self._queue_timeout = check_seconds("queue_timeout", queue_timeout, optional=False) or 0.0
        self._fallback = None if fallback is None else application(fallback, "fallback")
        self.policy = policy or Policy.modern()
        self._transport = transport
        self._retry = retry
        #: Origin and limits of each slot.
        self._reached: dict[int, tuple[Origin | None, Limits | None]] = {}
        self._prober: Prober | None = None
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
        route = self._route(environ)
        key = self._key(environ) if self._keyed else ""
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
        try:
            while True:
                now = self._now()
                events: list[_Event] = []
                with table.lock:
                    if self._threads is not None and not tried and not deadline:
                        self._check_room(table, self._threads)
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
        finally:
            if deadline:  # it waited, all the time from then on
                with self._birth:
                    self._waiting -= 1
        seat = roster.by_slot[slot]
        self._describe(environ, seat, route, routed)
        return Lease(self, table, seat, self._cookie(environ, seat, route))

    def _check_room(self, table: Table, threads: int) -> None:
        """The bulkhead: who waits for a member holds a thread too. Under the lock, or all who come at once pass."""
        if sum(table.in_flight) + self._waiting >= threads:
            raise _no_member(f"{self.name}: {threads} requests of this worker are in it already", kind=_Busy)

    def _allow_attempt(self, roster: Roster, tried: Sequence[Lease], refused: int) -> None:
        attempts = self._effective_attempts(roster)
        if refused > attempts:
            raise _no_member(f"{self.name}: {refused} members could not be reached")
        if self.policy.failover == "apache" and tried[-1].member.flags & _IGNORE:
            # Apache looks at the failed member, finds it usable still, and ends the request.
            raise _no_member(f"{self.name}: {tried[-1].name} ignores errors")

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
        if not candidates and timed:
            # Rather a second request to a member on trial than none to anybody.
            patience = 0
            candidates = electable(roster.sets, flags)
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
        serving = roster.slots
        if not strict:
            # Nor does a member that active checks took out keep the others from being tried.
            serving = tuple(i for i in serving if not roster.flags[i] & _ASKED_OUT and not found[i] & _CHECK_FAILED)
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

    def _begin(self) -> None:
        super()._begin()
        if self.probe is None:
            return
        from proxymw.prober import Prober

        with self._birth:
            if self._prober is None or self._prober.thread.pid != os.getpid():
                self._prober = Prober(self, self.probe, self._transport)
                self._prober.start()

    def _end(self) -> None:
        super()._end()
        prober, self._prober = self._prober, None
        if prober is not None and prober.thread.pid == os.getpid():
            prober.stop()

    def _seated(self, roster: Roster) -> None:
        self.counts_early = self._method_name == "bytraffic"
        # A method of the caller's own is given the key: it may go by it.
        self._keyed = self._method_name == "hash" or self._method_name not in METHODS
        keep_slash = self.policy.spelling == "apache"
        self._reached = {
            slot: (_origin(seat.member, keep_slash), _limits(seat.member)) for slot, seat in roster.by_slot.items()
        }

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
            with self._birth:
                self._waiting += 1
        elif now >= deadline:
            raise self._exhausted(table, roster, now, full)
        # An event wakes the waiters of this process; the short time is for what other workers give back.
        self._room.clear()
        self._room.wait(min(0.02, (deadline - now) / SECOND))
        return deadline

    def _at_limit(self, table: Table, roster: Roster) -> bool:
        return any(not (roster.flags[i] | table.found[i]) & OUT and self._full(table, roster, i) for i in roster.limits)

    def _exhausted(self, table: Table, roster: Roster, now: int, full: bool) -> NoMember:
        if full:
            return _no_member(f"{self.name}: every member is at its limit", kind=_Busy)
        waits = [w for seat in roster.seats if (w := retry_in(table, seat, now)) is not None]
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
            else:
                back = table.retries[slot] > 0
                passed = record_success(table, slot, now, self.health)
                if passed:
                    table.words[H_EPOCH] += 1
                    table.since[slot] = wall()
                    table.went_up[slot] += 1
                if passed or back:
                    reason = "trial passed" if passed else "answers again"
                    events.append((slot, "member_up", {"reason": reason}))
                    table.add_event({"event": "member_up", "member": lease.name, "reason": reason})
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
            member = f" member={safe(seat.member.id)}" if seat is not None else ""
            text = "".join(f" {key}={safe(str(value))}" for key, value in fields.items())
            _log.warning("event=%s pool=%s%s%s", name, safe(self.name), member, text)

    # -- the application -------------------------------------------------------------------------------------

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Forward to a member, the path as it is below SCRIPT_NAME: ``ProxyPass / balancer://name/``."""
        return self.front(environ, start_response)

    @cached_property
    def front(self) -> PrefixProxy:
        """What the pool answers with when it is called itself."""
        from proxymw.prefix import PrefixProxy

        return PrefixProxy(None, [("/", self)], transport=self._transport, policy=self.policy, retry=self._retry)

    def __repr__(self) -> str:
        try:
            shot = self.snapshot()
        except Exception:  # a repr must not raise, whatever state the table is in
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


def _statuses(values: object) -> frozenset[int]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ConfigError(f"failonstatus must be a list of statuses, got {values!r}")
    statuses = frozenset(values)
    for status in statuses:
        if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
            raise ConfigError(f"failonstatus must be statuses from 100 to 599, got {status!r}")
    return statuses


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


__all__ = ["BalancerPool", "Health", "Lease", "Member", "Probe"]
