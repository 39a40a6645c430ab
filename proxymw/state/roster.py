"""What one process knows of a pool's members: configuration and table brought together.

A roster is built anew when the table's generation has moved, and is not changed after that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

from proxymw.errors import ConfigError
from proxymw.rules.health import SECOND
from proxymw.rules.members import ASKED, STANDBY_BIT, Column, Flag, Member
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_REMOVED = int(Flag.REMOVED)
#: Parameters of a member added while running that are kept with it.
_KEPT = ("retry", "timeout", "connectiontimeout", "max", "smax", "ttl", "acquire", "limit", "name")


@dataclass(frozen=True, slots=True)
class Seat:
    """A member in its slot: its parameters as they are now, and the bits asked for."""

    slot: int
    member: Member
    flags: int
    retry: int
    token: str = ""


class Roster:
    """The seats in configuration order, those added while running after them, and what is worked out from them."""

    def __init__(self, table: Table, seats: Sequence[Seat], removed: Sequence[Seat]) -> None:
        self.generation: int = table.words[H_GENERATION]
        self.seats = tuple(seats)
        self.removed = tuple(removed)
        self.by_slot = {seat.slot: seat for seat in (*seats, *removed)}
        self.by_id = {seat.member.id: seat for seat in (*removed, *seats)}
        self.by_token = {seat.token: seat for seat in seats if seat.token}
        high = max((seat.slot for seat in (*seats, *removed)), default=-1) + 1
        self.flags = [0] * high
        self.lbfactor = [100] * high
        self.names = [""] * high
        for seat in seats:
            self.flags[seat.slot] = seat.flags
            self.lbfactor[seat.slot] = seat.member.lbfactor
            self.names[seat.slot] = seat.member.id
        table.high = max(table.high, high)
        by_set: dict[int, list[int]] = {}
        for seat in seats:
            by_set.setdefault(seat.member.lbset, []).append(seat.slot)
        self.sets = tuple(tuple(by_set[number]) for number in sorted(by_set))
        self.slots = tuple(seat.slot for seat in seats)
        self.limits = {seat.slot: seat.member.limit for seat in seats if seat.member.limit}
        self.routes: dict[str, list[Seat]] = {}
        # Two passes, as Apache: a standby answers to a route only after the others.
        for seat in sorted(seats, key=lambda seat: bool(seat.flags & STANDBY_BIT)):
            if seat.member.route:
                self.routes.setdefault(seat.member.route, []).append(seat)
        self.counters = TableCounters(table, self.lbfactor)
        #: The candidates of a table in which nothing depends on time, and the epoch they were found in.
        self.steady = -1
        self.candidates: Sequence[int] = ()


class TableCounters:
    """The columns as a load balancing method sees them."""

    __slots__ = ("_based", "_table", "lbfactor", "lbstatus")

    def __init__(self, table: Table, lbfactor: Sequence[int]) -> None:
        self._table = table
        self._based = any(table.base_sent[: table.high]) or any(table.base_received[: table.high])
        self.lbfactor = lbfactor
        self.lbstatus: Column = table.lbstatus

    @property
    def busy(self) -> Sequence[int]:
        return self._table.total("in_flight")

    @property
    def sent(self) -> Sequence[int]:
        total = self._table.total("sent")
        return [a - b for a, b in zip(total, self._table.base_sent, strict=False)] if self._based else total

    @property
    def received(self) -> Sequence[int]:
        total = self._table.total("received")
        return [a - b for a, b in zip(total, self._table.base_received, strict=False)] if self._based else total

    @property
    def latency(self) -> Sequence[int]:
        return self._table.averages


def join(table: Table, members: Iterable[Member], *, down: bool = False) -> str:
    """Give every configured member its slot; what a reload changed in the configuration replaces what was asked for.

    A member that has a slot keeps its counters. ``down``: new members wait for their first active checks. Returns why
    it
    could not be done, or an empty text. Under the lock.
    """
    words = table.words
    ids = table.slot_ids()
    changed = False
    for member in members:
        slot = ids.get(member.id)
        fresh = slot is None
        if slot is None:
            slot = table.take_slot(member.id)
            if slot is None:
                return f"the table has no room for {member.id}"
        changed |= _configure(table, slot, member, fresh=fresh)
        if fresh and down:
            table.found[slot] |= Flag.CHECK_FAILED
        table.mapped[slot] = 1
    if changed:
        words[H_GENERATION] += 1
        words[H_EPOCH] += 1
    return ""


def _configure(table: Table, slot: int, member: Member, *, fresh: bool) -> bool:
    """Write what the configuration says; an asked value is dropped where the configured one changed."""
    text = crc32(f"{member.route}\0{member.redirect}".encode())
    values = (
        (table.conf_flags, member.flags & ASKED, M_FLAGS),
        (table.conf_lbfactor, member.lbfactor, M_LBFACTOR),
        (table.conf_lbset, member.lbset, M_LBSET),
        (table.conf_text, text, M_ROUTE | M_REDIRECT),
    )
    changed = fresh
    for column, value, bit in values:
        if column[slot] != value:
            column[slot] = value
            if table.mask[slot] & bit:
                table.mask[slot] &= ~bit
                table.changed[slot] = wall()
            changed = True
    if table.mask[slot] & M_ADDED:
        table.mask[slot] &= ~M_ADDED  # now it is part of the configuration
        changed = True
    return changed


def take_over(table: Table, guess: Table) -> None:
    """Keep what was asked for before this process knew where the table lives. Under the lock of ``table``."""
    ids = table.slot_ids()
    settings = guess.read_text(-1)
    if settings and not table.read_text(-1):
        table.write_text(-1, settings)
        table.words[H_GENERATION] += 1
    for member_id, old in guess.slot_ids().items():
        slot = ids.get(member_id)
        if slot is None and guess.mask[old] & M_ADDED:
            slot = table.take_slot(member_id)
        if slot is None or not guess.mask[old] or table.mask[slot]:
            continue
        for name in ("mask", "asked_flags", "asked_lbfactor", "asked_lbset", "changed", "drain_until"):
            getattr(table, name)[slot] = getattr(guess, name)[old]
        table.write_text(slot, guess.read_text(old))
        table.words[H_GENERATION] += 1
        table.words[H_EPOCH] += 1


def build(table: Table, members: Iterable[Member], *, secret: bytes = b"", token: Any = None) -> Roster:
    """The roster of this moment. Under the lock. ``token(id, secret)`` makes the value of a sticky cookie."""
    ids = table.slot_ids()
    known = {member.id for member in members}
    seats: list[Seat] = []
    removed: list[Seat] = []
    everyone = [*members]
    for member_id, slot in ids.items():
        if member_id not in known and table.mask[slot] & M_ADDED:
            added = _added(table, slot, member_id)
            if added is not None:
                everyone.append(added)
                table.mapped[slot] = 1
    for member in everyone:
        own_slot = ids.get(member.id)
        if own_slot is None:
            continue
        now = effective(table, own_slot, member)
        flags = table.asked_flags[own_slot] if table.mask[own_slot] & M_FLAGS else member.flags & ASKED
        seat = Seat(
            own_slot, now, flags, int(member.retry * SECOND), token(member.id, secret) if token is not None else ""
        )
        (removed if flags & _REMOVED else seats).append(seat)
    return Roster(table, seats, removed)


def effective(table: Table, slot: int, member: Member) -> Member:
    """The member with the values that were asked for while running."""
    mask = table.mask[slot]
    changes: dict[str, Any] = {}
    if mask & M_LBFACTOR:
        changes["loadfactor"] = table.asked_lbfactor[slot] / 100
    if mask & M_LBSET:
        changes["lbset"] = table.asked_lbset[slot]
    if mask & (M_ROUTE | M_REDIRECT):
        text = table.read_text(slot)
        if mask & M_ROUTE:
            changes["route"] = text.get("route", member.route)
        if mask & M_REDIRECT:
            changes["redirect"] = text.get("redirect", member.redirect)
    try:
        return replace(member, **changes) if changes else member
    except ConfigError:
        return member  # half written by a worker that was killed


def _added(table: Table, slot: int, member_id: str) -> Member | None:
    parameters = table.read_text(slot).get("added")
    if not isinstance(parameters, dict):
        return None
    try:
        return Member(parameters.pop("url", member_id), **parameters)
    except (ConfigError, TypeError):
        return None


def added_text(member: Member) -> dict[str, Any]:
    """The parameters with which any worker makes the same member."""
    text: dict[str, Any] = {"url": member.url, "loadfactor": member.lbfactor / 100, "lbset": member.lbset}
    text.update({name: value for name in _KEPT if (value := getattr(member, name)) not in (None, "")})
    return text
