"""What several hosts agree on, by way of Redis and off the path of requests.

Every host elects from its own table. One process of each host carries, about once a second, what must agree: what was
asked for (states, weights, members added), verdicts on health, the secret of cookies and nonces, and each host's
counts.
The newest wins, by the clock of the Redis server. While Redis cannot be reached nothing changes for requests; it is
said once, and made good when it is back.

Keys, all below ``proxymw:{pool}:``: ``secret`` (text), ``asked`` and ``health`` (hash: member to JSON), ``settings``
(JSON),
``count:{host}`` (hash: member to JSON, expires).
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from proxymw.errors import ConfigError
from proxymw.rules.members import Flag
from proxymw.state import persist
from proxymw.state.duty import Background, claim, yield_duty
from proxymw.state.table import H_EPOCH, H_GENERATION, H_SYNC, H_SYNC_UNTIL, Table, wall

if TYPE_CHECKING:
    from proxymw.state.pool import PoolTable

_log = logging.getLogger("proxymw.pool")

#: Seconds between two exchanges.
INTERVAL = 1.0
_SCHEMES = ("redis://", "rediss://", "unix://")
#: Verdicts that hold for all hosts. A trial is each host's own.
_SHARED = int(Flag.ERROR | Flag.EJECTED | Flag.CHECK_FAILED)
_COUNTED = ("in_flight", "finished", "sent", "received", "errors")


def is_redis(state: str | None) -> bool:
    return state is not None and state.startswith(_SCHEMES)


def check_redis(url: str) -> None:
    """ConfigError where the redis package is missing or the URL cannot be read. Does not connect."""
    if importlib.util.find_spec("redis") is None:
        raise ConfigError("state redis:// needs the redis package: pip install 'proxymw[redis]'")
    try:
        _client(url)
    except ValueError as error:
        raise ConfigError(f"state must be a redis:// URL, got one that cannot be read: {error}") from None


def _client(url: str) -> Any:
    import redis

    return redis.Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=1.0, decode_responses=True)


def host_name() -> str:
    """What tells this host, and this server on it, from others."""
    return f"{socket.gethostname()}:{os.getppid()}"


class RedisSync:
    """The thread that keeps the table of one pool in step with those of other hosts."""

    def __init__(self, pool: PoolTable, url: str) -> None:
        self._pool = pool
        self._interval = INTERVAL
        self._client = _client(url)
        self._prefix = f"proxymw:{{{pool.name}}}:"
        self.host = host_name()
        #: Microseconds that the clock of the Redis server is ahead of ours.
        self._ahead = 0
        self._failed = False
        #: (kind, member) to the last time of ours and its stamp.
        self._known: dict[tuple[str, str], tuple[int, int]] = {}
        self.thread = Background(f"proxymw-redis-{pool.name}", self._step)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.thread.stop()
        table, _ = self._pool.attached()
        yield_duty(table, H_SYNC, H_SYNC_UNTIL)
        self._client.close()

    def hosts(self) -> dict[str, dict[str, dict[str, int]]]:
        """See ``PoolViews.hosts``; empty while Redis cannot be reached."""
        import redis

        try:
            return self._hosts()
        except (redis.RedisError, OSError):
            return {}

    def _hosts(self) -> dict[str, dict[str, dict[str, int]]]:
        """The counts of every host that reported lately: ``{host: {member: {requests, in_flight, …}}}``."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        start = f"{self._prefix}count:"
        for key in self._client.scan_iter(match=_literal(start) + "*", count=100):
            values = self._client.hgetall(key)
            found[key[len(start) :]] = {member: _mapping(text) for member, text in values.items()}
        return found

    def _step(self) -> float:
        table, _ = self._pool.attached()
        if not claim(table, H_SYNC, H_SYNC_UNTIL, max(3.0, 4 * self._interval)):
            return self._interval
        import redis

        try:
            self._round(table)
        except (redis.RedisError, OSError) as error:
            if not self._failed:
                self._failed = True
                # The text of the error may hold the URL, and that a password.
                with table.lock:
                    for slot in range(table.high):
                        table.peers[slot] = 0
                _log.error("event=redis_lost pool=%s error=%s", self._pool.name, type(error).__name__)
            return min(5.0, 2 * self._interval)
        if self._failed:
            self._failed = False
            _log.warning("event=redis_back pool=%s", self._pool.name)
        return self._interval

    def _round(self, table: Table) -> None:
        """One exchange: first what others say, then what we say."""
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        pipe.get(self._prefix + "secret")
        pipe.get(self._prefix + "settings")
        pipe.hgetall(self._prefix + "asked")
        pipe.hgetall(self._prefix + "health")
        (seconds, micros), secret, settings, asked, health = pipe.execute()
        self._ahead = seconds * 1_000_000 + micros - wall()
        self._agree_on_secret(table, secret)
        latest = seconds * 1_000_000 + 60_000_000
        with table.lock:
            push_settings = self._settings(table, _stamped({"": settings}, "changed", latest).get("", {}))
            push_asked = self._asked(table, _stamped(asked, "changed", latest))
            push_health = self._health(table, _stamped(health, "since", latest))
            counts = self._counts(table)
        pipe = self._client.pipeline(transaction=False)
        if push_settings:
            pipe.set(self._prefix + "settings", json.dumps(push_settings))
        for name, values in (("asked", push_asked), ("health", push_health), (f"count:{self.host}", counts)):
            if values:
                pipe.hset(self._prefix + name, mapping={member: json.dumps(value) for member, value in values.items()})
        pipe.expire(f"{self._prefix}count:{self.host}", int(10 * self._interval) + 5)
        pipe.execute()
        others = self._hosts()
        with table.lock:
            for member, slot in table.slot_ids().items():
                table.peers[slot] = sum(
                    counts.get(member, {}).get("in_flight", 0) for host, counts in others.items() if host != self.host
                )

    def _agree_on_secret(self, table: Table, secret: str | None) -> None:
        """The first host's secret becomes everybody's, so that cookies and forms hold on every host."""
        if secret is None:
            self._client.set(self._prefix + "secret", table.secret.hex(), nx=True)
            secret = self._client.get(self._prefix + "secret")
        if secret and secret != table.secret.hex() and len(secret) == 64:
            with table.lock:
                table.set_secret(bytes.fromhex(secret))
                table.words[H_GENERATION] += 1

    def _settings(self, table: Table, theirs: dict[str, Any]) -> dict[str, Any]:
        """Take newer settings of the pool; ours, when they are the newer ones."""
        ours = table.read_text(-1)
        changed = ours.get("changed", 0)
        mine, other = self._stamp("settings", "", changed if isinstance(changed, int) else 0), theirs.get("changed", 0)
        if other > mine:
            table.write_text(-1, {**theirs, "changed": other - self._ahead})
            self._known["settings", ""] = (other - self._ahead, other)
            table.words[H_GENERATION] += 1
            table.words[H_EPOCH] += 1
            return {}
        return {**ours, "changed": mine} if mine > other else {}

    def _asked(self, table: Table, theirs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Take what was asked for elsewhere since; return what was asked for here since."""
        ids = table.slot_ids()
        taken = False
        for member, values in theirs.items():
            slot, stamp = ids.get(member), values["changed"]
            if slot is None and isinstance(values.get("added"), dict):
                slot = table.take_slot(member)
            if slot is None or stamp <= self._stamp("asked", member, table.changed[slot]):
                continue
            persist.ask(table, slot, {**_shifted(values, -self._ahead), "changed": stamp - self._ahead})
            self._known["asked", member] = (table.changed[slot], stamp)
            table.add_event(
                {
                    "event": "member_changed",
                    "member": member,
                    "by": values.get("by", ""),
                    "host": values.get("host", ""),
                }
            )
            taken = True
        if taken:
            table.words[H_GENERATION] += 1
            table.words[H_EPOCH] += 1
        ours = {}
        for member, slot in table.slot_ids().items():
            stamp = self._stamp("asked", member, table.changed[slot])
            if stamp > theirs.get(member, {}).get("changed", 0):
                asked = _shifted(persist.asked_of(table, slot), self._ahead)
                ours[member] = {**asked, "changed": stamp, "host": self.host}
        return ours

    def _health(self, table: Table, theirs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Take newer verdicts; return ours that are newer. The newest turn of a member, up or down, holds
        everywhere."""
        ours = {}
        now = time.monotonic_ns()
        for member, slot in table.slot_ids().items():
            # Who has seen no turn yet has no say.
            turned = table.went_up[slot] or table.went_down[slot] or ("health", member) in self._known
            since = self._stamp("health", member, table.since[slot]) if turned else 0
            other = theirs.get(member, {})
            if other.get("since", 0) > since:
                self._believe(table, slot, member, other, now)
            elif since > other.get("since", 0):
                found = table.found[slot] & _SHARED
                left = max(0, table.until[slot] - now) // 1_000_000 if found & Flag.EJECTED else 0
                age = max(0, now - table.error_at[slot]) // 1_000_000 if found & Flag.ERROR else 0
                ours[member] = {"since": since, "found": found, "left_ms": left, "age_ms": age, "host": self.host}
        return ours

    def _believe(self, table: Table, slot: int, member: str, other: dict[str, Any], now: int) -> None:
        found, left, age = other.get("found"), other.get("left_ms", 0), other.get("age_ms", 0)
        if not (isinstance(found, int) and isinstance(left, int) and isinstance(age, int)):
            return
        before = table.found[slot] & _SHARED
        table.found[slot] = table.found[slot] & ~_SHARED | (found & _SHARED)
        table.since[slot] = other["since"] - self._ahead
        passed = max(0, wall() - table.since[slot]) * 1000
        self._known["health", member] = (table.since[slot], other["since"])
        table.until[slot] = now + max(0, left * 1_000_000 - passed)
        table.error_at[slot] = now - age * 1_000_000 - passed
        if bool(before) != bool(found & _SHARED):
            name = "member_down" if found & _SHARED else "member_up"
            reason = f"as {str(other.get('host', ''))[:60]} found"
            table.write_text(slot, {**table.read_text(slot), "reason": reason})
            table.add_event({"event": name, "member": member, "reason": reason})
        table.words[H_EPOCH] += 1

    def _counts(self, table: Table) -> dict[str, dict[str, int]]:
        totals = {name: table.total(name) for name in _COUNTED}
        return {
            member: {"requests": table.elected[slot], **{name: column[slot] for name, column in totals.items()}}
            for member, slot in table.slot_ids().items()
            if slot < table.high
        }

    def _stamp(self, kind: str, member: str, micros: int) -> int:
        """A time of ours by the clock of the Redis server; 0 stays "never". The same time always gives the same
        stamp."""
        known = self._known.get((kind, member))
        if known is not None and known[0] == micros:
            return known[1]
        stamp = micros + self._ahead if micros else 0
        self._known[kind, member] = (micros, stamp)
        return stamp


def _shifted(values: dict[str, Any], micros: int) -> dict[str, Any]:
    """What was asked for, its deadline by another clock."""
    ends = values.get("drain_until")
    return {**values, "drain_until": ends + micros} if isinstance(ends, int) else values


def _mapping(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _stamped(entries: dict[str, Any], stamp: str, latest: int) -> dict[str, dict[str, Any]]:
    """The entries that are objects with a time, none of them from the future; anything else was not written by us."""
    values = {member: _mapping(text) for member, text in entries.items()}
    return {
        member: value for member, value in values.items() if isinstance(at := value.get(stamp), int) and 0 < at < latest
    }


def _literal(pattern: str) -> str:
    """A prefix for MATCH, its special characters taken as themselves."""
    return "".join(f"\\{c}" if c in "\\*?[]" else c for c in pattern)
