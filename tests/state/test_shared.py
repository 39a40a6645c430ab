"""The mapped table: what is in the file survives workers, what is not ours is never used."""

from __future__ import annotations

import logging
import os
import random
import signal
import stat
import time
from collections import Counter

import pytest

from proxymw.balancer import BalancerPool
from proxymw.errors import ConnectRefused, NoMember
from proxymw.rules.members import Member
from proxymw.state import shared
from proxymw.state.table import H_DIRTY, H_VERSION

# From Python 3.12 on a fork beside threads is warned of; these children only touch the table.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
SEVERAL = {"PATH_INFO": "/", "wsgi.multiprocess": True}


@pytest.fixture
def pools():
    """``pools(path, members, **options)`` makes pools that are closed at the end, as a worker that is gone would be."""
    made = []

    def make(path, members=("http://a", "http://b", "http://c"), **options):
        pool = BalancerPool(members, state=path, **options)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.close()


def ask(pool, count: int = 1) -> str:
    names = ""
    for _ in range(count):
        lease = pool.lease(SEVERAL)
        lease.finish(status=200, sent=10, received=20)
        names += lease.origin.host
    return names


def in_child(work) -> int:
    """Run ``work`` in a forked worker; its exit status, or the negative signal that ended it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = work() or 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_processes_share_one_sequence(pools, tmp_path) -> None:
    pool = pools(tmp_path / "t")
    assert ask(pool) == "a"
    assert in_child(lambda: ask(pool, 4) != "bcab") == 0
    assert ask(pool) == "c"
    assert [view.requests for view in pool.snapshot().members] == [2, 2, 2]


def test_the_file_is_private(pools, tmp_path) -> None:
    pool = pools(tmp_path / "new" / "t")
    ask(pool)
    assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(tmp_path / "new" / "t").st_mode) == 0o600


def test_a_directory_holds_a_file_for_each_pool(pools, tmp_path) -> None:
    for name in ("one", "two"):
        ask(pools(tmp_path, name=name))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one.table", "two.table"]


def test_two_pools_with_one_path_do_not_mix(pools, tmp_path) -> None:
    one, two = pools(tmp_path / "t", name="one"), pools(tmp_path / "t", name="two")
    assert ask(one, 2) + ask(two, 2) == "abab"
    assert (tmp_path / "t-two").exists()


def test_two_pools_with_one_path_keep_each_its_place(pools, tmp_path) -> None:
    """A second pool that looks at the file of the first must not drop the lock that shows the worker to be alive."""
    one, two = pools(tmp_path / "t", name="one"), pools(tmp_path / "t", name="two")
    held = one.lease(SEVERAL)
    ask(two, 1)
    again = pools(os.path.join(tmp_path, ".", "t"), name="one")
    ask(again, 1)

    def another_worker() -> int:
        other = BalancerPool(["http://a", "http://b", "http://c"], state=tmp_path / "t", name="one")
        ask(other, 1)
        return 0 if other.in_flight(held.name) == 1 and other.snapshot().workers == 2 else 1

    assert in_child(another_worker) == 0
    assert one.in_flight(held.name) == again.in_flight(held.name) == 1
    held.finish()


def test_a_limit_counts_the_requests_of_all_workers(pools, tmp_path) -> None:
    members = [Member("http://a", limit=2)]
    pool = pools(tmp_path / "t", members)
    held = [pool.lease(SEVERAL)]

    def another_worker() -> int:
        other = BalancerPool(members, state=tmp_path / "t")
        other.lease(SEVERAL)
        try:
            other.lease(SEVERAL)
        except NoMember:
            return 0
        return 1

    assert in_child(another_worker) == 0
    held[0].finish(status=200)


def test_a_killed_worker_leaves_nothing_in_flight_and_loses_no_count(pools, tmp_path) -> None:
    pool = pools(tmp_path / "t")
    ask(pool, 3)

    def hold_and_die() -> None:
        ask(pool, 6)
        for _ in range(4):
            pool.lease(SEVERAL)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(hold_and_die) == -signal.SIGKILL
    views = pool.snapshot().members
    assert [view.in_flight for view in views] == [0, 0, 0]
    assert [view.requests for view in views] == [5, 4, 4]
    assert sum(view.finished for view in views) == 9
    assert sum(view.received for view in views) == 180


def test_workers_killed_at_any_moment_tear_nothing(pools, tmp_path) -> None:
    """Sixty workers in turn, each killed while it elects as fast as it can."""
    pool = pools(tmp_path / "t", [Member("http://a", loadfactor=3), Member("http://b", loadfactor=2), "http://c"])
    ask(pool)
    rng = random.Random(7)
    longest = 0.0
    for _ in range(60):
        pid = os.fork()
        if pid == 0:
            while True:
                pool.lease(SEVERAL).finish(status=200)
        time.sleep(rng.random() * 0.02)
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        assert ask(pool) in ("a", "b", "c")
        longest = max(longest, time.monotonic() - began)
        os.waitpid(pid, 0)
    assert longest < 0.5  # the lock went with its holder
    views = pool.snapshot().members
    assert [view.in_flight for view in views] == [0, 0, 0]
    assert pool.snapshot().workers == 1
    sample = Counter(ask(pool, 60))
    assert sample == {"a": 30, "b": 20, "c": 10}


def test_an_update_left_half_done_is_made_good(pools, tmp_path) -> None:
    pool = pools(tmp_path / "t", [Member("http://a", loadfactor=3), Member("http://b", loadfactor=2), "http://c"])

    def die_inside() -> None:
        table = pool.join(SEVERAL).table
        table.lock.__enter__()
        for slot in range(3):
            table.lbstatus[slot] = 10**15
        assert table.words[H_DIRTY] == 1
        os.kill(os.getpid(), signal.SIGKILL)

    assert ask(pool, 2) == "ab"
    assert in_child(die_inside) == -signal.SIGKILL
    assert ask(pool, 6) == "abacab"[:6] or Counter(ask(pool, 60)) == {"a": 30, "b": 20, "c": 10}
    assert max(abs(view.load) for view in pool.snapshot().members) < 1000


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 4096, b"not a table" * 1000, os.urandom(100_000)])
def test_a_damaged_or_foreign_file_is_put_aside(pools, tmp_path, caplog, content) -> None:
    (tmp_path / "t").write_bytes(content)
    (tmp_path / "t").chmod(0o600)
    pool = pools(tmp_path / "t")
    with caplog.at_level(logging.ERROR, "proxymw.pool"):
        assert ask(pool, 3) == "abc"
    assert pool.snapshot().state == "shared"
    if content:
        assert (tmp_path / "t.aside").read_bytes() == content
        assert "state_put_aside" in caplog.text


def test_the_table_of_another_version_is_put_aside(pools, tmp_path) -> None:
    old = pools(tmp_path / "t")
    ask(old, 3)
    old.join(SEVERAL).table.words[H_VERSION] = 99
    old.close()
    assert ask(pools(tmp_path / "t")) == "a"
    assert (tmp_path / "t.aside").exists()


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "readable", "hard link"])
def test_what_is_not_a_private_file_of_ours_is_never_written(pools, tmp_path, kind) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    victim.chmod(0o600)
    home = tmp_path / "home"
    home.mkdir(0o700)
    path = home / "t"
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "readable":
        path.write_bytes(b"")
        path.chmod(0o644)
    else:
        os.link(victim, path)
    pool = pools(path)
    assert ask(pool, 3) == "abc"
    assert victim.read_bytes() == b"precious"
    assert pool.snapshot().state == "shared"


def test_a_directory_that_others_can_write_is_refused_and_service_goes_on(pools, tmp_path, caplog) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    pool = pools(tmp_path / "open" / "t")
    with caplog.at_level(logging.ERROR, "proxymw.pool"):
        assert ask(pool, 3) == "abc"
    assert pool.snapshot().state.startswith("local: can be written by others")
    assert "state_local" in caplog.text
    assert not (tmp_path / "open" / "t").exists()


def test_a_full_disk_falls_back_to_this_process(pools, tmp_path, caplog, monkeypatch) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared.os, "posix_fallocate", full)
    pool = pools(tmp_path / "t")
    assert ask(pool, 3) == "abc"
    assert pool.snapshot().state == "local: No space left on device"
    assert caplog.text.count("state_local") == 1


def test_a_reload_keeps_the_counters_of_the_members_that_stay(pools, tmp_path) -> None:
    old = pools(tmp_path / "t", ["http://a", "http://b", "http://c"])
    ask(old, 9)
    old.change("http://c", state="drain")
    old.close()
    new = pools(tmp_path / "t", ["http://d", "http://c", "http://a"])
    ask(new, 2)
    views = {view.id: view for view in new.snapshot().members}
    assert list(views) == ["http://d", "http://c", "http://a"]
    assert views["http://c"].asked == "drain"
    assert (views["http://c"].requests, views["http://a"].requests + views["http://d"].requests) == (3, 5)
    assert new.in_flight("http://b") == 0


def test_what_a_reload_configures_anew_replaces_what_was_asked_for(pools, tmp_path) -> None:
    old = pools(tmp_path / "t", [Member("http://a", loadfactor=2), "http://b"])
    ask(old)
    old.change("http://a", state="drain", loadfactor=5)
    old.close()
    new = pools(tmp_path / "t", [Member("http://a", loadfactor=3), "http://b"])
    view = new.snapshot().member("http://a")
    assert (view.weight, view.asked) == (3, "drain")


def test_old_and_new_workers_agree_during_a_reload(pools, tmp_path) -> None:
    old = pools(tmp_path / "t", ["http://a", "http://b"])
    ask(old, 2)

    def new_worker() -> int:
        new = BalancerPool(["http://b", "http://c"], state=tmp_path / "t")
        lease = new.lease(SEVERAL)
        lease.finish(ConnectRefused("no"))
        return 0 if lease.origin.host == "b" else 1

    assert in_child(new_worker) == 0
    assert old.snapshot().member("http://b").health == "down"
    assert ask(old, 2) == "aa"


def test_more_members_than_the_file_has_room_for_get_a_bigger_one(pools, tmp_path) -> None:
    old = pools(tmp_path / "t", ["http://a", "http://b"])
    ask(old, 4)
    old.change("http://a", state="disabled")
    secret = old.secret
    old.close()
    new = pools(tmp_path / "t", ["http://a", *(f"http://h{n}" for n in range(100))])
    ask(new, 1)
    shot = new.snapshot()
    assert shot.state == "shared"
    assert (shot.member("http://a").requests, shot.member("http://a").asked) == (2, "disabled")
    assert new.secret == secret


def test_workers_of_before_follow_to_the_bigger_file(pools, tmp_path) -> None:
    old = pools(tmp_path / "t", ["http://a", "http://b"])
    held = [old.lease(SEVERAL) for _ in range(2)]

    def new_worker() -> int:
        new = BalancerPool(["http://a", *(f"http://h{n}" for n in range(100))], state=tmp_path / "t")
        ask(new, 1)
        new.change("http://a", state="disabled")
        return 0

    assert in_child(new_worker) == 0
    assert ask(old, 2) == "bb"
    for lease in held:
        lease.finish(status=200)
    assert [view.in_flight for view in old.snapshot().members] == [0, 0]


def test_slots_are_used_again_when_nobody_has_them(pools, tmp_path) -> None:
    for round_ in range(30):
        pool = pools(tmp_path / "t", [f"http://h{round_}-{n}" for n in range(8)])
        ask(pool, 8)
        assert pool.snapshot().state == "shared"
        pool.close()


def test_everybody_sees_a_change_with_the_next_request(pools, tmp_path) -> None:
    pool = pools(tmp_path / "t")
    ask(pool, 3)

    def child() -> int:
        pool.join(SEVERAL)
        pool.change("http://b", state="disabled", by="child")
        return 0

    assert in_child(child) == 0
    assert ask(pool, 4) == "acac"
    assert pool.snapshot().member("http://b").changed_by == "child"


def test_secret_events_and_history_are_the_same_everywhere(pools, tmp_path) -> None:
    pool = pools(tmp_path / "t")
    ask(pool, 3)
    secret = pool.secret

    def child() -> int:
        pool.lease(SEVERAL).finish(ConnectRefused("no"))
        return pool.secret != secret

    assert in_child(child) == 0
    assert [event["event"] for event in pool.events()] == ["member_error"]
    assert pool.events(after=1) == []
    assert len(secret) == 32


def test_the_automatic_file_is_private_and_old_ones_are_swept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shared.tempfile, "gettempdir", lambda: str(tmp_path))
    home = tmp_path / f"proxymw-{os.geteuid()}"
    path = shared.automatic_path("cluster")
    assert os.path.dirname(path) == str(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    stale = home / "999999999-1-cluster.table"
    stale.write_bytes(b"")
    kept = home / os.path.basename(path)
    kept.write_bytes(b"")
    assert shared.automatic_path("cluster") == path
    assert not stale.exists()
    assert kept.exists()


def test_the_automatic_directory_must_be_ours_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shared.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"proxymw-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        shared.automatic_path("cluster")


def test_one_worker_needs_no_file(pools) -> None:
    pool = pools(None)
    pool.lease({"PATH_INFO": "/", "wsgi.multiprocess": False}).finish(status=200)
    assert pool.snapshot().state == "local"


def test_a_guess_made_before_the_first_request_is_given_up(pools, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shared.tempfile, "gettempdir", lambda: str(tmp_path))
    pool = pools(None)
    assert pool.snapshot().state == "local"
    ask(pool)
    assert pool.snapshot().state == "shared"


@pytest.mark.parametrize(("start", "what"), [(80, b"\x7f" * 8), (256, b"\xff" * 4096)], ids=["workers", "columns"])
def test_a_table_that_is_damaged_inside_is_put_aside(pools, tmp_path, caplog, start, what) -> None:
    """A header that is right is not all: sums over such columns failed in every request."""
    old = pools(tmp_path / "t")
    ask(old, 3)
    old.close()
    content = bytearray((tmp_path / "t").read_bytes())
    content[start : start + len(what)] = what
    (tmp_path / "t").write_bytes(content)
    assert ask(pools(tmp_path / "t"), 3) == "abc"
    assert "state_put_aside" in caplog.text


def test_a_lease_that_ends_after_the_table_was_left_is_counted_once(pools, tmp_path) -> None:
    pool = pools(tmp_path / "t")
    held = pool.lease(SEVERAL)
    pool.close()
    held.finish(status=200)
    again = pools(tmp_path / "t")
    ask(again, 1)
    assert again.in_flight(held.name) == 0


def test_what_was_asked_before_the_first_request_moves_to_the_shared_table(pools, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shared.tempfile, "gettempdir", lambda: str(tmp_path))
    pool = pools(None, ["http://a"], name="early")
    pool.add("http://c")
    pool.change_pool(method="bybusyness")
    ask(pool)
    shot = pool.snapshot()
    assert (shot.state, shot.method, [view.id for view in shot.members]) == (
        "shared", "bybusyness", ["http://a", "http://c"],
    )  # fmt: skip


def test_files_that_ran_out_cost_the_shared_table_for_that_moment_alone(pools, tmp_path, monkeypatch, caplog) -> None:
    def none_left(*args: object) -> int:
        raise OSError(24, "Too many open files")

    pool = pools(tmp_path / "t")
    with monkeypatch.context() as short:
        short.setattr(shared, "_open_file", none_left)
        assert ask(pool, 3) == "abc"
    assert caplog.text.count("event=state_local") == 1
    ask(pool)
    assert pool.snapshot().state == "shared"
