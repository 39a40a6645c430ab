"""A pool as it is shown: the manager, metrics, explain and tests read it here."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from proxymw.rules.health import SECOND
from proxymw.rules.members import DRAIN_BIT, Flag, Member, MemberView, PoolSnapshot, asked_state, status_words
from proxymw.state.pool import PoolTable
from proxymw.state.table import BUCKETS, CLASSES, MARKED, REASONS, SAMPLES, SUMMED, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxymw.state.roster import Roster, Seat

_ERROR, _EJECTED, _TRIAL = int(Flag.ERROR), int(Flag.EJECTED), int(Flag.TRIAL)
_CHECK_FAILED, _REMOVED = int(Flag.CHECK_FAILED), int(Flag.REMOVED)
#: The names by which flags are changed and shown.
FLAGS = {
    "ignore_errors": int(Flag.IGNORE_ERRORS),
    "drain": int(Flag.DRAIN),
    "disabled": int(Flag.DISABLED),
    "stopped": int(Flag.STOPPED),
    "standby": int(Flag.STANDBY),
    "spare": int(Flag.SPARE),
}


class PoolViews(PoolTable):
    """Reads the table, for those who look."""

    def _effective_attempts(self, roster: Roster) -> int:
        return max(0, len(roster.seats) - 1) if self._attempts is None else self._attempts

    def snapshot(self) -> PoolSnapshot:
        """Everything about the pool as it stands at one moment."""
        table, roster = self.attached()
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
            state=self._live.state + (" and redis" if self._redis is not None else ""),
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
            retries=table.retries[i],
            retry_in=retry_in(table, seat, now),
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
        table, roster = self.attached()
        moment = self._now() if now is None else int(now * SECOND)
        with table.lock:
            return [
                (seat.member, *_standing(seat, table.found[seat.slot], retry_in(table, seat, moment)))
                for seat in roster.seats
            ]

    def in_flight(self, member_id: str) -> int:
        """Requests of a member under way in all workers and, with Redis, on all hosts; also after it left the pool."""
        table, _ = self.attached()
        with table.lock:
            slot = table.slot_ids().get(member_id)
            return 0 if slot is None else table.total_of("in_flight", slot) + table.peers[slot]

    def hosts(self) -> dict[str, dict[str, dict[str, int]]]:
        """The counts that every host reported lately, with ``state="redis://…"``: ``{host: {member: {requests, …}}}``.

        Asks Redis; empty while it cannot be reached, and without it.
        """
        self.attached()
        return self._sync.hosts() if self._sync is not None else {}

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """What happened lately, oldest first: dicts with ``seq``, ``time`` (wall clock) and ``event``; those after
        ``after``."""
        table, _ = self.attached()
        with table.lock:
            return table.read_events(after)

    def history(
        self, seconds: int = 600, step: int = 1, names: Sequence[str] = SAMPLES, *, each: bool = True
    ) -> dict[str, Any]:
        """One-second samples of the last ``seconds`` (at most 600), oldest first, for charts.

        ``{"ages": [seconds ago, …], "members": {id: {"requests": […], "errors": […], "in_flight": […], "received": […],
        "latency": […], "5xx": […]}}}``: per second but for in_flight (at that moment); latency is in microseconds of
        exchanges that ended. Seconds without traffic have no sample. ``step``: one sample, the mean, for so many
        seconds. ``names``: those of interest. ``"total"`` has the sums of all members, and is all there is without
        ``each``.
        """
        table, roster = self.attached()
        now = self._now() // SECOND
        with table.lock:
            table.reap()
            table.sample(now)
            rows = table.rows(now, seconds, step)
        result: dict[str, Any] = {"ages": [now - second for second, _ in rows[1:]], "members": {}, "total": {}}
        for name in names:
            number = SAMPLES.index(name)
            columns = {"": [sum(row[number]) for _, row in rows]}
            if each:
                columns |= {seat.member.id: [row[number][seat.slot] for _, row in rows] for seat in roster.seats}
            for member, values in columns.items():
                told = values[1:] if name == "in_flight" else _differences(values, rows)
                (result["members"].setdefault(member, {}) if member else result["total"])[name] = told
        return result

    def lately(self, seconds: int = 60) -> tuple[int, dict[str, tuple[list[int], list[int]]]]:
        """What was counted in about the last ``seconds``: how many they were, to ten, and for each member its answers
        by status class (1xx to 5xx) and its exchanges by time (in the classes of BOUNDS, and one above)."""
        table, roster = self.attached()
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
        table, _ = self.attached()
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


def retry_in(table: Table, seat: Seat, now: int) -> float | None:
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
    """Per second, from cumulated values at the seconds of ``rows``; never below 0, where a slot has a new member."""
    return [max(0, b - a) / (rows[n + 1][0] - rows[n][0]) for n, (a, b) in enumerate(itertools.pairwise(values))]
