"""Changing a pool while it runs: every worker obeys with its next request."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from proxymw.errors import ConfigError
from proxymw.rules.health import SECOND
from proxymw.rules.lbmethods import METHODS
from proxymw.rules.members import (
    ASKED,
    DRAIN_BIT,
    OUT,
    Flag,
    Member,
    as_member,
    asked_state,
    check_lbset,
    check_loadfactor,
    check_route,
    with_state,
)
from proxymw.rules.options import check_count, check_seconds
from proxymw.rules.sticky import as_sticky
from proxymw.state import persist
from proxymw.state.pool import safe
from proxymw.state.roster import Roster, Seat, added_text
from proxymw.state.table import (
    H_EPOCH,
    H_GENERATION,
    M_ADDED,
    M_FLAGS,
    M_LBFACTOR,
    M_LBSET,
    M_REDIRECT,
    M_ROUTE,
    Table,
    wall,
)
from proxymw.state.views import FLAGS, PoolViews

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger("proxymw.pool")
_ERROR, _EJECTED, _TRIAL, _REMOVED = int(Flag.ERROR), int(Flag.EJECTED), int(Flag.TRIAL), int(Flag.REMOVED)


class PoolChanges(PoolViews):
    """Writes what is asked for into the table."""

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
        table, roster = self.attached()
        self._seat(roster, member_id)
        lbfactor = None if loadfactor is None else check_loadfactor(loadfactor)
        if lbset is not None:
            check_lbset(lbset)
        words = {
            name: check_route(value, name)
            for name, value in (("route", route), ("redirect", redirect))
            if value is not None
        }
        check_seconds("deadline", deadline)
        _with_flags(0 if state is None else with_state(0, state), flags)
        with table.lock:
            if table.words[H_GENERATION] != roster.generation:
                roster = self._build(table)  # another change came between
            seat = self._seat(roster, member_id)
            bits = _with_flags(seat.flags if state is None else with_state(seat.flags, state), flags)
            i = seat.slot
            text = {**table.read_text(i), **words, "by": by[:60]}
            if not table.write_text(i, text):  # first: nothing else is changed then
                raise ConfigError(f"member {member_id!r} has too much text, got route or redirect too long")
            was_out = (seat.flags | table.found[i]) & OUT
            if bits != seat.flags:
                table.asked_flags[i], table.mask[i] = bits, table.mask[i] | M_FLAGS
            if lbfactor is not None:
                table.asked_lbfactor[i], table.mask[i] = lbfactor, table.mask[i] | M_LBFACTOR
            if lbset is not None:
                table.asked_lbset[i], table.mask[i] = lbset, table.mask[i] | M_LBSET
            if not bits & DRAIN_BIT or state is not None or deadline is not None:
                ends = bits & DRAIN_BIT and deadline is not None
                table.drain_until[i] = self._now() + int((deadline or 0) * SECOND) if ends else 0
            if retry_now and table.found[i] & (_ERROR | _EJECTED | _TRIAL):
                table.since[i] = wall()
                table.went_up[i] += 1
                table.found[i] &= ~(_ERROR | _EJECTED | _TRIAL)
                table.fails[i] = table.ejections[i] = 0
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
            self._moved(table, turn=lbfactor is not None)
            if was_out and not (bits | table.found[i]) & OUT:
                self._reset(table, roster)  # Apache: one that becomes usable starts level with the others
        _log.info(
            "event=member_changed pool=%s member=%s by=%s now=%s was=%s",
            self.name, safe(member_id), safe(by), safe(_plain(done)), safe(_plain(was)),
        )  # fmt: skip
        self._save()

    def add(self, member: Any, *, by: str = "", state: str | None = None) -> Member:
        """Add a member to the pool in all workers; ConfigError when it is there. A WSGI application cannot be added."""
        new = as_member(member)
        if new.origin is None:
            raise ConfigError(f"a member added while running must be a URL, got {member!r}")
        table, roster = self.attached()
        flags = new.flags & ASKED if state is None else with_state(new.flags & ASKED, state)
        with table.lock:
            known = table.slot_ids()
            slot = known.get(new.id)
            fresh = slot is None
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
                if fresh:
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
            self._moved(table)
        _log.info("event=member_added pool=%s member=%s by=%s", self.name, safe(new.id), safe(by))
        self._save()
        return new

    def remove(self, member_id: str, *, by: str = "") -> None:
        """Take a member out of the pool in all workers; what it has in flight ends in peace (see ``in_flight``)."""
        table, roster = self.attached()
        seat = self._seat(roster, member_id)
        with table.lock:
            table.asked_flags[seat.slot] = seat.flags | _REMOVED
            table.mask[seat.slot] |= M_FLAGS
            table.changed[seat.slot] = wall()
            table.add_event({"event": "member_removed", "member": member_id, "by": by[:60]})
            self._moved(table)
        _log.info("event=member_removed pool=%s member=%s by=%s", self.name, safe(member_id), safe(by))
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
        table, roster = self.attached()
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
            table.write_text(-1, {**table.read_text(-1), **asked, "changed": wall()})
            table.add_event({"event": "pool_changed", "by": by[:60], **asked, "was": was})
            self._moved(table)
            if method is not None:
                self._reset(table, roster)
        _log.info(
            "event=pool_changed pool=%s by=%s now=%s was=%s",
            self.name, safe(by), safe(_plain(asked)), safe(_plain(was)),
        )  # fmt: skip
        self._save()

    def _seat(self, roster: Roster, member_id: str) -> Seat:
        for seat in roster.seats:
            if seat.member.id == member_id:
                return seat
        raise ConfigError(f"member must be one of {', '.join(s.member.id for s in roster.seats)}, got {member_id!r}")

    def _moved(self, table: Table, *, turn: bool = False) -> None:
        """Something was asked for: every worker reads it with its next request. Under the lock.

        ``turn``: the round robin counters restart at the load factors, as Apache's do when one of these is set.
        """
        table.words[H_EPOCH] += 1
        table.words[H_GENERATION] += 1
        roster = self._build(table)
        if turn:
            for seat in roster.seats:
                table.lbstatus[seat.slot] = seat.member.lbfactor

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
            table, _ = self.attached()
            saved = -1
            # Again if something else was asked for meanwhile: whoever writes last must write the latest.
            while saved != table.words[H_GENERATION]:
                with table.lock:
                    saved = table.words[H_GENERATION]
                    kept = persist.collect(table)
                persist.save(self._persist, kept)


def _with_flags(bits: int, flags: Mapping[str, bool] | None) -> int:
    for name, on in (flags or {}).items():
        if name not in FLAGS:
            raise ConfigError(f"flags must be of {', '.join(FLAGS)}, got {name!r}")
        bits = bits | FLAGS[name] if on else bits & ~FLAGS[name]
    return bits


def _plain(values: Mapping[str, Any]) -> str:
    """Settings for the log: ``state:drain,loadfactor:2``."""
    return ",".join(f"{name}:{value}" for name, value in values.items()) or "-"
