"""The member table of one pool: columns of 64-bit words over any buffer, and who may write them.

The same code runs over a ``bytearray`` (one process) and a mapped file (all workers of a host). What an election reads
and writes changes only under the lock; each worker has columns of its own for what a finished exchange leaves behind
(in flight, bytes, latency), which nobody else writes while that worker lives. An aligned word is stored in one
piece, so a worker that is killed can leave an update half done but never a number half written.
"""

from __future__ import annotations

import json
import secrets
import time
from operator import add
from typing import TYPE_CHECKING, Any
from zlib import crc32

from proxymw.rules.members import FOUND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

MAGIC = int.from_bytes(b"PMWTABL\0", "little")
VERSION = 2

OTHER_POOL = "the table of another pool"

#: Words of the header.
(H_MAGIC, H_VERSION, H_CAPACITY, H_WORKERS, H_BOOT, H_NAME, H_CHECK, H_GENERATION, H_EPOCH, H_DIRTY, H_USED) = range(11)
(H_REAPED, H_SAMPLED, H_EVENTS, H_PROBER, H_PROBER_UNTIL, H_SYNC, H_SYNC_UNTIL, H_MARKED, H_MOVED) = range(11, 20)
H_SECRET = 24  # four words
HEADER = 32

#: Columns that change under the lock.
COLUMNS = (
    "used",  # 1: the slot has a member
    "lbstatus",
    "elected",
    "found",  # status bits that were found out
    "error_at",  # times are monotonic nanoseconds, the same clock in every process of a host
    "retries",
    "since",  # wall clock, microseconds: when it last went up or down
    "fails",  # passive health: failures in the window, its start, ejections in a row, until when, trial lent at
    "window",
    "ejections",
    "until",
    "trial",
    "streak",  # active health: passes (positive) or failures (negative) in a row
    "ramp",  # slow start began at
    "base_sent",  # bytraffic counts from here
    "base_received",
    "conf_flags",  # what the configuration says, to see what a reload changed
    "conf_lbfactor",
    "conf_lbset",
    "conf_text",
    "mask",  # which of the asked values below replace the configured ones
    "asked_flags",
    "asked_lbfactor",
    "asked_lbset",
    "changed",  # wall clock, microseconds, of the last change that was asked for
    "drain_until",  # monotonic nanoseconds; 0: a drain has no deadline
    "peers",  # requests in flight from other hosts, as last heard
    "redispatched",  # elected after an attempt on another member
    "retried",  # elected after an attempt on itself
    "went_up",
    "went_down",
)
#: Columns that each worker has for itself.
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
#: Upper bounds, in seconds, of the classes in which exchange times are counted (OpenTelemetry's advice and two finer
#: ones); what takes longer than the last is counted once more behind it.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
BUCKETS = tuple(f"le{number}" for number in range(len(BOUNDS) + 1))
#: Why exchanges failed.
REASONS = ("connect", "connect_timeout", "read_timeout", "reset", "protocol", "pool_full", "client_abort", "other")
_WHY = tuple(f"why_{reason}" for reason in REASONS)
OWN = (
    "mapped", "in_flight", "finished", "sent", "received", "errors", "latency", "average",
    *CLASSES, *BUCKETS, *_WHY,
)  # fmt: skip
SUMMED = ("in_flight", "finished", "sent", "received", "errors", "latency", *CLASSES, *BUCKETS, *_WHY)

#: Bits of ``mask``.
M_FLAGS, M_LBFACTOR, M_LBSET, M_ROUTE, M_REDIRECT, M_ADDED = 1, 2, 4, 8, 16, 32

ID_BYTES = 264  # a length word and 255 bytes
TEXT_BYTES = 1024
EVENTS = 128
EVENT_BYTES = 512
#: Ten minutes of one row a second: requests, errors, in flight, bytes, microseconds; all but in flight cumulated.
ROWS = 600
SAMPLES = ("requests", "errors", "in_flight", "received", "latency", "5xx")
#: And of one row each ten seconds: status classes and times, cumulated.
MARKS = 61
MARK_SECONDS = 10
MARKED = (*CLASSES, *BUCKETS)


class Layout:
    """Where everything is, in words, for a table of ``capacity`` members and ``workers`` processes."""

    def __init__(self, capacity: int, workers: int) -> None:
        self.capacity = capacity
        self.workers = workers
        self.columns = HEADER
        self.own = self.columns + len(COLUMNS) * capacity
        # Block 0 keeps what workers that are gone had counted.
        self.own_size = 1 + len(OWN) * capacity
        self.ids = self.own + (workers + 1) * self.own_size
        self.texts = self.ids + capacity * ID_BYTES // 8
        self.events = self.texts + (capacity + 1) * TEXT_BYTES // 8
        self.history = self.events + EVENTS * EVENT_BYTES // 8
        self.row = 1 + len(SAMPLES) * capacity
        self.marks = self.history + ROWS * self.row
        self.mark = 1 + len(MARKED) * capacity
        self.size = (self.marks + MARKS * self.mark) * 8


def capacity_for(members: int) -> int:
    """Room for ``members`` and for those that come while running or with a reload."""
    return (members + max(16, members // 4) + 15) // 16 * 16


class Table:
    """The columns as attributes; see the module's constants for what they hold.

    ``lock`` is held for every change of what is shared, and for a short time only. ``worker`` is the number of the
    block
    this process owns (1 upwards).
    """

    def __init__(self, buffer: Any, layout: Layout, lock: AbstractContextManager[Any], worker: int) -> None:
        self.layout = layout
        self.lock = lock
        #: Slots from here on have never been used by this process's plan; sums stop there.
        self.high = 0
        #: Keeps this worker's own columns right among its threads; part of ``lock``.
        self.thread_lock: AbstractContextManager[Any] = getattr(lock, "thread", lock)
        self.worker = worker
        self.bytes = memoryview(buffer).cast("B")
        self.words = words = self.bytes.cast("q")
        capacity = layout.capacity
        for number, name in enumerate(COLUMNS):
            start = layout.columns + number * capacity
            setattr(self, name, words[start : start + capacity])
        self._blocks = [
            {
                name: words[start : start + capacity]
                for number, name in enumerate(OWN)
                for start in (layout.own + block * layout.own_size + 1 + number * capacity,)
            }
            for block in range(layout.workers + 1)
        ]
        own = self._blocks[worker]
        self.mapped, self.in_flight, self.finished = own["mapped"], own["in_flight"], own["finished"]
        self.own_sent, self.own_received, self.own_errors = own["sent"], own["received"], own["errors"]
        self.own_latency, self.own_average = own["latency"], own["average"]
        #: By status // 100, by the class of the time, and by the reason.
        self.own_classes = [own[name] for name in ("1xx", *CLASSES)]
        self.own_buckets = [own[name] for name in BUCKETS]
        self.own_reasons = {reason: own[f"why_{reason}"] for reason in REASONS}
        self._cut = (-1, -1)
        self._cuts: dict[str, list[memoryview[int]]] = {}
        self.pids = words[layout.own : layout.ids : layout.own_size]

    used: memoryview[int]
    lbstatus: memoryview
    elected: memoryview
    found: memoryview
    error_at: memoryview
    retries: memoryview
    since: memoryview
    fails: memoryview
    window: memoryview
    ejections: memoryview
    until: memoryview
    trial: memoryview
    streak: memoryview
    ramp: memoryview
    base_sent: memoryview
    base_received: memoryview
    conf_flags: memoryview
    conf_lbfactor: memoryview
    conf_lbset: memoryview
    conf_text: memoryview
    mask: memoryview
    asked_flags: memoryview
    asked_lbfactor: memoryview
    asked_lbset: memoryview
    changed: memoryview
    drain_until: memoryview
    peers: memoryview
    redispatched: memoryview
    retried: memoryview
    went_up: memoryview
    went_down: memoryview

    # -- a new table, an old one ---------------------------------------------------------------------------------

    def format(self, name: str, boot: int) -> None:
        """Make an empty table of zeroed memory; the magic goes in last."""
        words = self.words
        words[H_VERSION], words[H_CAPACITY], words[H_WORKERS] = VERSION, self.layout.capacity, self.layout.workers
        words[H_BOOT], words[H_NAME] = boot, crc32(name.encode())
        words[H_CHECK] = _header_check(words)
        self.bytes[H_SECRET * 8 : H_SECRET * 8 + 32] = secrets.token_bytes(32)
        words[H_MAGIC] = MAGIC

    @property
    def secret(self) -> bytes:
        """32 random bytes made with the table: the same in every worker."""
        return bytes(self.bytes[H_SECRET * 8 : H_SECRET * 8 + 32])

    def set_secret(self, secret: bytes) -> None:
        self.bytes[H_SECRET * 8 : H_SECRET * 8 + 32] = secret[:32].ljust(32, b"\0")

    def reap(self) -> None:
        """Give back what workers that are gone held; in one process there are none. Under the lock."""

    def release(self) -> None:
        """Let go of the buffer, so that it can be closed. The table is of no use after that."""
        for columns in self._cuts.values():
            for column in columns:
                column.release()
        for name in COLUMNS:
            getattr(self, name).release()
        for block in self._blocks:
            for column in block.values():
                column.release()
        self.pids.release()
        self.words.release()
        self.bytes.release()

    def adopt(self, other: Table) -> None:
        """Take over what another table knows, but for what is in flight and the history. Under both locks."""
        self.set_secret(other.secret)
        self.write_text(-1, other.read_text(-1))
        events, size = self.layout.events * 8, EVENTS * EVENT_BYTES
        theirs = other.layout.events * 8
        self.bytes[events : events + size] = other.bytes[theirs : theirs + size]
        self.words[H_EVENTS] = other.words[H_EVENTS]
        for member_id, slot in other.slot_ids().items():
            own = self.take_slot(member_id)
            if own is None:
                continue
            for name in COLUMNS:
                getattr(self, name)[own] = getattr(other, name)[slot]
            self.write_text(own, other.read_text(slot))
            for name in SUMMED:
                if name != "in_flight":
                    self._blocks[0][name][own] = other.total_of(name, slot)

    # -- sums over workers ---------------------------------------------------------------------------------------

    def blocks(self) -> Iterator[dict[str, memoryview]]:
        """The blocks of all workers that ever were, the block of those that are gone included."""
        for number in range(self.words[H_USED] + 1):
            yield self._blocks[number]

    def total(self, name: str) -> Sequence[int]:
        """One of SUMMED, summed over all workers, an entry for each slot."""
        columns = self._columns(name)
        if len(columns) == 1:
            return columns[0]
        if len(columns) == 2:
            return list(map(add, *columns))
        return list(map(sum, zip(*columns, strict=True)))

    def _columns(self, name: str) -> list[memoryview[int]]:
        """A column of every worker that ever was, cut to the slots in use. Who is gone holds nothing in flight."""
        used = self.words[H_USED]
        if self._cut != (used, self.high):
            self._cut = (used, self.high)
            self._cuts = {
                name: [block[name][: self.high] for block in self._blocks[name == "in_flight" : used + 1]]
                for name in (*SUMMED, "average")
            }
        return self._cuts[name]

    def total_of(self, name: str, slot: int) -> int:
        return int(sum(block[name][slot] for block in self.blocks()))

    @property
    def averages(self) -> Sequence[int]:
        """The mean of the workers' moving averages of latency, in microseconds; 0 where nothing was measured."""
        result = []
        for values in zip(*self._columns("average"), strict=True):
            known = [value for value in values if value]
            result.append(sum(known) // len(known) if known else 0)
        return result

    def retire(self, block: int) -> None:
        """Give back what a dead worker held, keep what it had counted. Under the lock."""
        past, dead = self._blocks[0], self._blocks[block]
        for name in SUMMED:
            source, target = dead[name], past[name]
            for slot, value in enumerate(source):
                if value:
                    source[slot] = 0  # first: a second death here loses a number, and never counts it twice
                    if name != "in_flight":
                        target[slot] += value
        dead["mapped"][:] = dead["average"][:] = past["in_flight"]
        self.pids[block] = 0

    def repair(self) -> None:
        """Make good an update that its writer did not live to finish. Under the lock."""
        for slot, _ in enumerate(self.used):
            self.lbstatus[slot] = 0
        self.words[H_EPOCH] += 1
        self.words[H_GENERATION] += 1

    def damaged(self) -> bool:
        """Whether there is anything that no worker writes, not even one that was killed. Under the lock."""
        if max(self.used) > 1 or min(self.used) < 0 or any(found & ~FOUND for found in self.found):
            return True
        columns = [getattr(self, name) for name in COLUMNS if name not in ("lbstatus", "streak", "error_at", "peers")]
        columns += [block[name] for block in self.blocks() for name in OWN]
        return any(min(column) < 0 or max(column) >> 62 for column in columns)

    # -- slots and their texts -------------------------------------------------------------------------------------

    def slot_ids(self) -> dict[str, int]:
        """The id of every member that has a slot. Under the lock."""
        return {self.read_id(slot): slot for slot, used in enumerate(self.used) if used}

    def read_id(self, slot: int) -> str:
        start = self.layout.ids * 8 + slot * ID_BYTES
        length = min(self.words[start // 8], ID_BYTES - 8)
        return bytes(self.bytes[start + 8 : start + 8 + length]).decode("utf-8", "replace")

    def take_slot(self, member_id: str) -> int | None:
        """A free slot for a member, zeroed; None when the table is full. Under the lock."""
        slot = next((s for s, used in enumerate(self.used) if not used), None)
        if slot is None:
            slot = next((s for s in range(self.layout.capacity) if self._abandoned(s)), None)
        if slot is None:
            return None
        self.used[slot] = 0
        for name in COLUMNS:
            getattr(self, name)[slot] = 0
        for block in self.blocks():
            for name in OWN:
                block[name][slot] = 0
        raw = member_id.encode("utf-8", "replace")[: ID_BYTES - 8]
        start = self.layout.ids * 8 + slot * ID_BYTES
        self.words[start // 8] = len(raw)
        self.bytes[start + 8 : start + 8 + len(raw)] = raw
        self.write_text(slot, {})
        self.since[slot] = wall()
        self.used[slot] = 1
        return slot

    def _abandoned(self, slot: int) -> bool:
        return not any(block["mapped"][slot] or block["in_flight"][slot] for block in self.blocks())

    def read_text(self, slot: int) -> dict[str, Any]:
        """What is known of a slot in words (-1: of the pool itself); empty when it was not written whole."""
        start = (self.layout.texts + (slot + 1) * TEXT_BYTES // 8) * 8
        length, check = self.words[start // 8] & 0xFFFF, self.words[start // 8] >> 16
        raw = bytes(self.bytes[start + 8 : start + 8 + min(length, TEXT_BYTES - 8)])
        if not length or crc32(raw) & 0x7FFFFFFF != check:
            return {}
        try:
            value = json.loads(raw)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def write_text(self, slot: int, value: dict[str, Any]) -> bool:
        """Replace the words of a slot; False, and nothing changed, when they are too long. Under the lock."""
        raw = json.dumps(value, separators=(",", ":")).encode()
        if len(raw) > TEXT_BYTES - 8:
            return False
        start = (self.layout.texts + (slot + 1) * TEXT_BYTES // 8) * 8
        self.words[start // 8] = 0
        self.bytes[start + 8 : start + 8 + len(raw)] = raw
        self.words[start // 8] = len(raw) | (crc32(raw) & 0x7FFFFFFF) << 16
        return True

    # -- events and history ------------------------------------------------------------------------------------------

    def add_event(self, event: dict[str, Any]) -> None:
        """Append to the ring of the last EVENTS events. Under the lock."""
        number = self.words[H_EVENTS]
        raw = json.dumps({"seq": number + 1, "time": round(time.time(), 3), **event}, separators=(",", ":")).encode()
        if len(raw) > EVENT_BYTES - 8:
            raw = json.dumps(
                {"seq": number + 1, "time": round(time.time(), 3), "event": str(event.get("event"))[:60]}
            ).encode()
        start = (self.layout.events + number % EVENTS * EVENT_BYTES // 8) * 8
        self.words[start // 8] = len(raw)
        self.bytes[start + 8 : start + 8 + len(raw)] = raw
        self.words[H_EVENTS] = number + 1

    def read_events(self, after: int = 0) -> list[dict[str, Any]]:
        """The events with a number above ``after``, oldest first. Under the lock."""
        last = self.words[H_EVENTS]
        result = []
        for number in range(max(after, last - EVENTS), last):
            start = (self.layout.events + number % EVENTS * EVENT_BYTES // 8) * 8
            length = min(self.words[start // 8], EVENT_BYTES - 8)
            try:
                result.append(json.loads(bytes(self.bytes[start + 8 : start + 8 + length])))
            except ValueError:
                continue
        return result

    def sample(self, second: int) -> None:
        """Write the row of ``second`` (of the monotonic clock), once. Under the lock."""
        words, capacity = self.words, self.layout.capacity
        if words[H_SAMPLED] >= second:
            return
        start = self.layout.history + second % ROWS * self.layout.row
        words[start] = 0
        for number, column in enumerate((self.elected, *(self.total(name) for name in SAMPLES[1:]))):
            at = start + 1 + number * capacity
            for slot, value in enumerate(column):
                words[at + slot] = value
        words[start] = words[H_SAMPLED] = second
        if second - words[H_MARKED] >= MARK_SECONDS:
            self._mark(second)

    def _mark(self, second: int) -> None:
        words, capacity = self.words, self.layout.capacity
        start = self.layout.marks + second // MARK_SECONDS % MARKS * self.layout.mark
        words[start] = 0
        for number, name in enumerate(MARKED):
            at = start + 1 + number * capacity
            for slot, value in enumerate(self.total(name)):
                words[at + slot] = value
        words[start] = words[H_MARKED] = second

    def marked(self, now: int) -> list[tuple[int, int]]:
        """The rows of ten seconds that there are, as (second, first word), oldest first. Under the lock."""
        layout = self.layout
        starts = range(layout.marks, layout.marks + MARKS * layout.mark, layout.mark)
        seconds = [(self.words[start], start) for start in starts]
        return sorted(row for row in seconds if 0 < row[0] <= now and row[0] > now - MARKS * MARK_SECONDS)

    def mark_columns(self, start: int) -> list[memoryview]:
        """The columns, in the order of MARKED, of a row that begins at this word. Under the lock."""
        capacity = self.layout.capacity
        return [self.words[at : at + self.high] for at in range(start + 1, start + self.layout.mark, capacity)]

    def rows(self, now: int, seconds: int, step: int = 1) -> list[tuple[int, list[list[int]]]]:
        """The rows of the last ``seconds``, or the last row of each ``step`` of them, as (second, columns in the order
        of SAMPLES), oldest first. Under the lock."""
        words, capacity, row, base = self.words, self.layout.capacity, self.layout.row, self.layout.history
        there = [
            second
            for second in range(max(1, now - min(seconds, ROWS) + 1), now + 1)
            if words[base + second % ROWS * row] == second
        ]
        if step > 1 and there:
            there = sorted({there[0], *{second // step: second for second in there}.values()})
        result = []
        for second in there:
            start = base + second % ROWS * row + 1
            cuts = [words[at : at + self.high].tolist() for at in range(start, start + row - 1, capacity)]
            result.append((second, cuts))
        return result


def check_header(words: memoryview, name: str, boot: int) -> str:
    """Why a mapped header is not a table of this pool, version and boot; empty when it is."""
    if words[H_MAGIC] != MAGIC:
        return "not a member table"
    if words[H_VERSION] != VERSION:
        return f"version {words[H_VERSION]}, not {VERSION}"
    if words[H_CHECK] != _header_check(words):
        return "damaged header"
    if words[H_NAME] != crc32(name.encode()):
        return OTHER_POOL
    if not 0 <= words[H_USED] <= words[H_WORKERS]:
        return "damaged header"
    if words[H_BOOT] != boot:
        return "written before the last boot"
    return ""


def _header_check(words: memoryview) -> int:
    return crc32(bytes(words[H_VERSION:H_CHECK].cast("B")))


def wall() -> int:
    """The wall clock in microseconds, for what people read; never for deciding."""
    return time.time_ns() // 1000
