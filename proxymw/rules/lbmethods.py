"""Who may be elected, and the load balancing methods that elect: small functions over columns of integers.

A member is a number, the index into each column. Nothing here knows where the columns live, so a list in a test, a
``bytearray`` of one process and a file mapped by many are all the same to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from math import log
from random import Random
from typing import Protocol

from proxymw.errors import ConfigError
from proxymw.rules.members import DRAIN_BIT, OUT, SPARE_BIT, STANDBY_BIT, Column


class Counters(Protocol):
    """What a method may read of the members, one entry for each. Only ``lbstatus`` may be written."""

    @property
    def lbfactor(self) -> Sequence[int]:
        """Load factors in hundredths (100 is the factor 1)."""

    @property
    def lbstatus(self) -> Column:
        """The round robin counter of each member, for the method's own use."""

    @property
    def busy(self) -> Sequence[int]:
        """Requests in flight, over all workers."""

    @property
    def sent(self) -> Sequence[int]:
        """Bytes sent to the member since the last reset."""

    @property
    def received(self) -> Sequence[int]:
        """Bytes received from it since the last reset."""

    @property
    def latency(self) -> Sequence[int]:
        """Moving average of the time of an exchange, in microseconds; 0 where none has ended yet."""


#: A method takes the candidates in configuration order (never empty), the counters, and the request's key (empty
#: unless the pool has one), and returns one of the candidates.
LBMethod = Callable[[Sequence[int], Counters, str], int]


def byrequests(candidates: Sequence[int], counters: Counters, key: str = "") -> int:
    """mod_lbmethod_byrequests: every candidate gains its factor, the largest total wins and pays the sum.

    Ties keep the earlier member, so equal factors go round in configuration order.
    """
    lbstatus, lbfactor = counters.lbstatus, counters.lbfactor
    total = 0
    best = -1
    most = 0
    for i in candidates:
        factor = lbfactor[i]
        lbstatus[i] = gained = lbstatus[i] + factor
        total += factor
        if best < 0 or gained > most:
            best, most = i, gained
    lbstatus[best] = most - total
    return best


def bytraffic(candidates: Sequence[int], counters: Counters, key: str = "") -> int:
    """mod_lbmethod_bytraffic: the least ``sent // factor + received // factor`` wins."""
    lbfactor, sent, received = counters.lbfactor, counters.sent, counters.received
    return min(candidates, key=lambda i: sent[i] // lbfactor[i] + received[i] // lbfactor[i])


def bybusyness(candidates: Sequence[int], counters: Counters, key: str = "") -> int:
    """mod_lbmethod_bybusyness: the fewest requests in flight; among those, round robin by factor."""
    lbstatus, lbfactor, busy = counters.lbstatus, counters.lbfactor, counters.busy
    total = 0
    best = -1
    for i in candidates:
        lbstatus[i] += lbfactor[i]
        total += lbfactor[i]
        if best < 0 or busy[i] < busy[best] or (busy[i] == busy[best] and lbstatus[i] > lbstatus[best]):
            best = i
    lbstatus[best] -= total
    return best


class LeastConn:
    """Power of two choices: of a member drawn by weight and any other, the one with fewer requests in flight per
    weight.

    No herd runs to the one that is free at this moment; among idle members the weights decide.
    """

    def __init__(self, random: Random | None = None) -> None:
        self._random = random or Random()

    def __call__(self, candidates: Sequence[int], counters: Counters, key: str = "") -> int:
        if len(candidates) == 1:
            return candidates[0]
        lbfactor, busy = counters.lbfactor, counters.busy
        first = self._random.choices(candidates, [lbfactor[i] for i in candidates])[0]
        others = [i for i in candidates if i != first]
        second = self._random.choice(others)
        # Cross-multiplied: busy / factor without division. Where both are idle the draw by weight decides.
        return first if busy[first] * lbfactor[second] <= busy[second] * lbfactor[first] else second


class Ewma:
    """The least expected wait: moving average of the latency times requests in flight, over the weight.

    ``floor``: one election in so many goes round robin, so that a member that once was slow is measured again and never
    starves. A member that was never measured counts as the fastest one.
    """

    def __init__(self, floor: int = 16) -> None:
        if floor < 2:
            raise ConfigError(f"floor must be at least 2, got {floor!r}")
        self._floor = floor
        self._turn = 0

    def __call__(self, candidates: Sequence[int], counters: Counters, key: str = "") -> int:
        self._turn += 1
        if self._turn % self._floor == 0:
            return byrequests(candidates, counters, key)
        latency, busy, lbfactor = counters.latency, counters.busy, counters.lbfactor
        known = [latency[i] for i in candidates if latency[i]]
        fastest = min(known) if known else 1
        return min(candidates, key=lambda i: (latency[i] or fastest) * (busy[i] + 1) / lbfactor[i])


class Hash:
    """Rendezvous hashing of the request's key: every key has its own order of members, by weight.

    A member that leaves moves only its own keys. ``bound``: a member holding more than ``bound`` times its fair share
    of
    what is in flight is passed over for the next in the key's order (bounded load). The order depends on the names of
    the
    members alone, so all workers and hosts have the same.
    """

    def __init__(self, names: Sequence[str] = (), bound: float = 1.25) -> None:
        if bound <= 1:
            raise ConfigError(f"bound must be more than 1, got {bound!r}")
        self.name(names)
        self._bound = bound

    def name(self, names: Sequence[str]) -> None:
        """Say what the members are called, by their numbers."""
        self._seeds = [_word(name) for name in names]

    def __call__(self, candidates: Sequence[int], counters: Counters, key: str = "") -> int:
        if not key:
            return byrequests(candidates, counters, key)
        lbfactor, busy, seeds = counters.lbfactor, counters.busy, self._seeds
        word = _word(key)
        room = self._bound * (sum(busy[i] for i in candidates) + 1) / sum(lbfactor[i] for i in candidates)
        best, most = -1, 0.0
        for i in candidates:
            if busy[i] and busy[i] + 1 > room * lbfactor[i]:
                continue
            # -weight / ln(uniform): the highest wins, in proportion to the weights.
            score = lbfactor[i] / -log(_mixed(word ^ seeds[i]))
            if score > most:
                best, most = i, score
        return best if best >= 0 else min(candidates, key=lambda i: busy[i])


def _word(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest())


def _mixed(word: int) -> float:
    """A number between 0 and 1 in which every bit of ``word`` has its say (the finalizer of MurmurHash3)."""
    word = (word ^ word >> 33) * 0xFF51AFD7ED558CCD & 0xFFFFFFFFFFFFFFFF
    word = (word ^ word >> 33) * 0xC4CEB9FE1A85EC53 & 0xFFFFFFFFFFFFFFFF
    return ((word ^ word >> 33) + 1) / 18446744073709551618


#: The names that ``method=`` takes.
METHODS: dict[str, Callable[[], LBMethod]] = {
    "byrequests": lambda: byrequests,
    "bytraffic": lambda: bytraffic,
    "bybusyness": lambda: bybusyness,
    "leastconn": LeastConn,
    "ewma": Ewma,
    "hash": Hash,
}


def as_method(method: object) -> tuple[str, LBMethod]:
    """The name and the function of a method given by name or as an object; ConfigError on an unknown name."""
    if isinstance(method, str):
        if method not in METHODS:
            raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        return method, METHODS[method]()
    if not callable(method):
        raise ConfigError(f"method must be one of {', '.join(METHODS)} or a callable, got {method!r}")
    return getattr(method, "__name__", type(method).__name__), method


def electable(sets: Iterable[Sequence[int]], flags: Callable[[int], int]) -> list[int]:
    """The members among which the method elects: Apache's search through sets, spares and standbys.

    ``sets`` are the members in order of lbset, then of configuration; ``flags(i)`` gives the status bits of one, after
    having offered a member in error its retry. The first set that has anyone wins: its ordinary members, as many
    of its spares as ordinary ones are missing, else its standbys.
    """
    for members in sets:
        ordinary: list[int] = []
        spares: list[int] = []
        standbys: list[int] = []
        missing = 0
        for i in members:
            bits = flags(i)
            if bits & DRAIN_BIT:
                missing += not bits & (SPARE_BIT | STANDBY_BIT)
            elif bits & SPARE_BIT:
                if not bits & OUT:
                    spares.append(i)
            elif bits & STANDBY_BIT:
                if not bits & OUT:
                    standbys.append(i)
            elif bits & OUT:
                missing += 1
            else:
                ordinary.append(i)
        chosen = ordinary + spares[:missing] or standbys
        if chosen:
            return chosen
    return []


def charge(chosen: int, usable: Iterable[int], counters: Counters) -> None:
    """A member taken by its route pays like an elected one: all usable members gain, it pays the sum."""
    lbstatus, lbfactor = counters.lbstatus, counters.lbfactor
    total = 0
    for i in usable:
        lbstatus[i] += lbfactor[i]
        total += lbfactor[i]
    lbstatus[chosen] -= total
