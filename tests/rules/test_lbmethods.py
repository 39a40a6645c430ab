"""The methods against what a real mod_proxy_balancer did, and who may be elected at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest

from proxymw.errors import ConfigError
from proxymw.rules.lbmethods import (
    Ewma,
    Hash,
    LeastConn,
    as_method,
    bybusyness,
    byrequests,
    bytraffic,
    charge,
    electable,
)
from proxymw.rules.members import Flag


@dataclass
class Columns:
    """Counters in plain lists."""

    lbfactor: list[int]
    lbstatus: list[int] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    latency: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for column in (self.lbstatus, self.busy, self.sent, self.received, self.latency):
            column.extend([0] * (len(self.lbfactor) - len(column)))

    @classmethod
    def of(cls, *factors: float) -> Columns:
        return cls([int(factor * 100) for factor in factors])

    @property
    def all(self) -> range:
        return range(len(self.lbfactor))


def turns(method, columns: Columns, count: int) -> str:
    return "".join(str(method(columns.all, columns, "") + 1) for _ in range(count))


@pytest.mark.parametrize(
    ("factors", "sequence"),
    [
        ((1, 1, 1), "123123"),
        ((1, 1, 1, 1, 1), "1234512345"),
        ((1, 2), "212212"),
        ((3, 1), "11211121"),
        ((3, 2, 1), "121321121321"),
        ((1, 2, 3), "321323"),
        ((5, 1, 1), "1121311"),
        ((1, 4, 1), "212232"),
        ((1, 1, 1, 2), "41234"),
        ((70, 30), "1211121121"),
        ((2.5, 1), "1211121"),
        ((1, 2, 3, 4, 5), "543254153452345"),
    ],
)
def test_byrequests_and_an_idle_bybusyness_follow_the_recorded_turns(factors, sequence) -> None:
    assert turns(byrequests, Columns.of(*factors), len(sequence)) == sequence
    assert turns(bybusyness, Columns.of(*factors), len(sequence)) == sequence


def test_byrequests_gives_every_member_its_share() -> None:
    counts = Counter(turns(byrequests, Columns.of(3, 2, 1), 6000))
    assert counts == {"1": 3000, "2": 2000, "3": 1000}


def test_byrequests_credits_only_the_candidates_it_sees() -> None:
    columns = Columns.of(1, 1, 1)
    assert [byrequests([0, 2], columns) for _ in range(4)] == [0, 2, 0, 2]
    assert columns.lbstatus[1] == 0


@pytest.mark.parametrize(
    ("factors", "sizes", "sequence"),
    [
        ((1, 1), [386], "12121212"),
        ((3, 1), [386], "1211121112"),
        ((1, 2, 3), [386], "123323123323"),
        ((1, 1), [10000, 100], "1221122112"),
        ((1, 1), [100, 3000, 50000, 700, 20], "121222221111122222"),
        ((3, 1), [100, 3000, 50000, 700, 20], "112111111111111111222221"),
        ((5, 1, 1), [10000, 100], "1232211111111313233111"),
    ],
)
def test_bytraffic_follows_the_recorded_turns(factors, sizes, sequence) -> None:
    """167 bytes of request head each; a reply counts its body and 15 bytes of status line."""
    columns = Columns.of(*factors)
    turns = ""
    for number in range(len(sequence)):
        chosen = bytraffic(columns.all, columns)
        columns.sent[chosen] += 167
        columns.received[chosen] += sizes[number % len(sizes)] + 15
        turns += str(chosen + 1)
    assert turns == sequence


def test_bybusyness_goes_round_among_the_least_busy() -> None:
    """Recorded: one request held by the third of 1:2:3, twelve free ones, six after it was let go."""
    columns = Columns.of(1, 2, 3)
    assert bybusyness(columns.all, columns) == 2
    columns.busy[2] = 1
    assert turns(bybusyness, columns, 12) == "212122121212"
    columns.busy[2] = 0
    assert turns(bybusyness, columns, 6) == "333333"


def test_leastconn_takes_the_less_busy_of_two() -> None:
    columns = Columns([100, 100], busy=[5, 0])
    assert turns(LeastConn(Random(1)), columns, 20) == "2" * 20


def test_leastconn_sees_weights() -> None:
    columns = Columns([100, 400], busy=[1, 3])
    assert turns(LeastConn(Random(1)), columns, 20) == "2" * 20


def test_ewma_prefers_the_fast_and_starves_nobody() -> None:
    columns = Columns([100, 100, 100], latency=[10_000, 1_000_000, 12_000])
    counts = Counter(turns(Ewma(), columns, 960))
    assert counts["1"] > 800
    assert counts["2"] == 20  # one in three of one in sixteen


def test_ewma_tries_a_member_that_was_never_measured() -> None:
    columns = Columns([100, 100], latency=[50_000, 0])
    columns.busy[0] = 1
    assert turns(Ewma(), columns, 1) == "2"


def test_hash_keeps_a_key_and_moves_only_the_keys_of_the_one_that_left() -> None:
    names = [f"http://h{n}" for n in range(5)]
    method, columns = Hash(names), Columns.of(1, 1, 1, 1, 1)
    keys = [f"/page/{n}" for n in range(500)]
    before = {key: method(range(5), columns, key) for key in keys}
    after = {key: method([0, 1, 2, 4], columns, key) for key in keys}
    assert all(after[key] == before[key] for key in keys if before[key] != 3)
    assert min(Counter(before.values()).values()) > 60


def test_hash_follows_the_weights() -> None:
    method, columns = Hash(["a", "b"]), Columns.of(3, 1)
    counts = Counter(method(range(2), columns, f"/{n}") for n in range(4000))
    assert 2800 < counts[0] < 3200


def test_hash_passes_over_a_member_with_too_much_load() -> None:
    method, columns = Hash(["a", "b", "c"]), Columns.of(1, 1, 1)
    home = method(range(3), columns, "/hot")
    columns.busy[home] = 30
    assert method(range(3), columns, "/hot") != home


def test_unknown_methods_are_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match="byrequests, bytraffic, bybusyness, leastconn, ewma, hash, got 'fast'"):
        as_method("fast")


def test_any_callable_is_a_method() -> None:
    def last(candidates, counters, key):
        return candidates[-1]

    name, method = as_method(last)
    assert (name, method([0, 1], Columns.of(1, 1), "")) == ("last", 1)


D, E, N, H, R = Flag.DISABLED, Flag.ERROR, Flag.DRAIN, Flag.STANDBY, Flag.SPARE


@pytest.mark.parametrize(
    ("sets", "flags", "chosen"),
    [
        ([[0, 1, 2]], [0, 0, 0], [0, 1, 2]),
        ([[0, 1, 2]], [0, E, D], [0]),
        ([[0, 1], [2]], [0, 0, 0], [0, 1]),
        ([[0, 1], [2]], [E, E, 0], [2]),
        ([[0, 1, 2]], [0, 0, H], [0, 1]),
        ([[0, 1, 2]], [E, E, H], [2]),
        ([[0, 1]], [H, H], [0, 1]),
        ([[0, 1]], [0, D | H], [0]),
        ([[0, 1]], [E, D | H], []),
        ([[0, 1, 2, 3]], [0, 0, R, R], [0, 1]),
        ([[0, 1, 2, 3]], [E, 0, R, R], [1, 2]),
        ([[0, 1, 2, 3]], [N, 0, R, R], [1, 2]),
        ([[0, 1], [2]], [E, H, 0], [1]),  # a standby of the first set before an ordinary one of the second
        ([[0]], [N], []),
        ([[0]], [N | H], []),
        ([], [], []),
    ],
)
def test_who_may_be_elected(sets, flags, chosen) -> None:
    assert electable(sets, flags.__getitem__) == chosen


def test_a_session_pays_for_its_turn() -> None:
    columns = Columns.of(1, 1, 1)
    for _ in range(3):
        charge(1, columns.all, columns)
    assert turns(byrequests, columns, 3) == "131"
