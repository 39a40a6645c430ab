"""The pool as a destination: elections, sessions, errors and changes, with no network."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path

import pytest

from proxymw.balancer import BalancerPool, Health
from proxymw.errors import (
    BodyTruncated,
    ClientAborted,
    ConfigError,
    ConnectionReset,
    ConnectRefused,
    FirstByteTimeout,
    NoMember,
    PoolExhausted,
    ResponseMalformed,
)
from proxymw.rules.lbmethods import Hash
from proxymw.rules.members import Flag, Member
from proxymw.rules.policy import Policy
from proxymw.rules.sticky import StickyCookie, StickyRoute
from proxymw.state.table import H_EPOCH

APACHE = Policy.apache()


class Cluster:
    """A pool whose members are letters, some of them dead; asks as the forwarder would."""

    def __init__(self, members="abc", **options) -> None:
        self.now = 1000.0
        self.dead: set[str] = set()
        self.statuses: dict[str, int] = {}
        self.pool = BalancerPool(
            [f"http://{m}" if isinstance(m, str) and len(m) == 1 else m for m in members], clock=self._clock, **options
        )

    def _clock(self) -> float:
        self.now += 1e-6
        return self.now

    def ask(self, count: int = 1, **request) -> str:
        return "".join(self._one(request) for _ in range(count))

    def _one(self, request: dict) -> str:
        environ = {"PATH_INFO": "/x", "wsgi.multiprocess": False, **request}
        tried: tuple = ()
        while True:
            try:
                lease = self.pool.lease(environ, tried)
            except NoMember:
                return "!"
            name = lease.origin.host
            if name not in self.dead:
                lease.finish(status=self.statuses.get(name, 200))
                return name
            lease.finish(ConnectRefused("refused"))
            tried += (lease,)

    def view(self, name: str):
        return self.pool.snapshot().member(f"http://{name}")


def lease(pool, **request):
    return pool.lease({"PATH_INFO": "/x", "wsgi.multiprocess": False, **request})


def members(text: str) -> list[Member]:
    """``a3 b`` with letters, load factors and, after a colon, the status."""
    result = []
    for word in text.split():
        name, _, status = word.partition(":")
        result.append(Member(f"http://{name[0]}", loadfactor=float(name[1:] or 1), status=status))
    return result


ROUTES = [Member(f"http://{name}", route=f"r{number}") for number, name in enumerate("abc", 1)]


# What a real mod_proxy_balancer did, with the members that were stopped (-a) and started (+a) in between.
@pytest.mark.parametrize(
    ("cluster", "story"),
    [
        ({}, "abcabc"),
        ({"members": members("a3 b2 c")}, "abacba"),
        ({}, "-a bcbc"),
        ({}, "-b accacac"),
        ({}, "-a -b cccc +a cccc"),
        ({}, "-a -b -c !!! +a aaa"),
        ({"forcerecovery": False, "members": "ab"}, "-a -b !! +a !!!"),
        ({"attempts": 1}, "-a -b !cccc"),
        ({"attempts": 1}, "-a -b -c !!! +a a!a"),
        ({"attempts": 0}, "-a !bcbc"),
        ({"members": [Member(f"http://{m}", retry=1) for m in "abc"]}, "-b accacacac +b acacac 2 acbacbacb"),
        ({"members": [Member(f"http://{m}", retry=0) for m in "abc"]}, "-b acacacaca +b bcabca"),
        ({"members": members("a b:+I")}, "-b a!a! +b abab"),
        ({"members": members("a b c:+H")}, "abab -a -b cccc +a cccc"),
        ({"members": members("a:+H b:+H")}, "abab"),
        ({"members": members("a b c:+R d:+R")}, "abab -a bcbcbc"),
        ({"members": members("a b:+S c")}, "acac -a -c !!"),
        ({"members": members("a b:+N c")}, "acac -a -c !!"),
        ({"members": members("a b:+D+H")}, "aaaa -a !!"),
        ({"members": members("a:+E b")}, "abab"),
        ({"members": [Member("http://a"), Member("http://b", status="H"), Member("http://c", lbset=1)]}, "-a bbb"),
        ({"members": [Member(f"http://{m}", lbset=n // 2) for n, m in enumerate("abcde")]}, "abab -a bbb -b cdcd"),
        ({"members": ""}, "!!"),
    ],
)
def test_as_apache_did(cluster, story) -> None:
    tell(Cluster(policy=APACHE, **cluster), story)


def tell(cluster: Cluster, story: str) -> None:
    for step in story.split():
        if step[0] == "-":
            cluster.dead.add(step[1:])
        elif step[0] == "+":
            cluster.dead.discard(step[1:])
        elif step.isdigit():
            cluster.now += int(step)
        else:
            assert cluster.ask(len(step)) == step, story


@pytest.mark.parametrize(
    ("cluster", "story"),
    [
        ({"members": members("a b:+I")}, "-b aaaa +b abab"),  # a refusal moves on, whatever is ignored
        ({"members": members("a b:+D c")}, "-a -c !! +c cc"),  # one out of service does not stop the others' recovery
        ({"members": [Member("http://a", loadfactor=9, retry=0), "http://b"]}, "-a bbbbbb"),
    ],
)
def test_where_modern_loses_less(cluster, story) -> None:
    tell(Cluster(**cluster), story)


def test_answers_do_not_put_a_member_in_error() -> None:
    cluster = Cluster()
    for error in (ConnectionReset("x"), FirstByteTimeout("x"), ResponseMalformed("x"), BodyTruncated("x")):
        held = lease(cluster.pool)
        held.finish(error)
        assert cluster.pool.snapshot().member(held.name).health == "up"


@pytest.mark.parametrize("error", [PoolExhausted("x"), ClientAborted("x")])
def test_what_is_not_the_members_fault_is_not_held_against_it(error) -> None:
    cluster = Cluster(health=Health(failures=1))
    held = lease(cluster.pool)
    held.finish(error)
    view = cluster.pool.snapshot().member(held.name)
    assert (view.health, view.errors) == ("up", 0)


def test_failonstatus_and_failontimeout() -> None:
    cluster = Cluster(failonstatus=[503], failontimeout=True)
    cluster.statuses = {"a": 503, "b": 500}
    assert cluster.ask(6) == "abcbcb"
    lease(cluster.pool).finish(FirstByteTimeout("x"))
    assert sum(view.health == "down" for view in cluster.pool.snapshot().members) == 2


@pytest.mark.parametrize(
    ("request_", "answers"),
    [
        ({"HTTP_COOKIE": "S=x.r2"}, "bbb"),
        ({"HTTP_COOKIE": "a=1,S=x.r3,S=x.r2"}, "ccc"),
        ({"HTTP_COOKIE": "S=x.R2"}, "abc"),
        ({"HTTP_COOKIE": "S=x.gone"}, "abc"),
        ({"QUERY_STRING": "S=x.r3", "HTTP_COOKIE": "S=x.r2"}, "ccc"),
        ({"PATH_INFO": "/x;S=x.r2"}, "bbb"),
        ({}, "abc"),
    ],
)
def test_sessions_go_to_their_route(request_, answers) -> None:
    assert Cluster(ROUTES, sticky="S").ask(3, **request_) == answers


def test_a_session_pays_its_turn() -> None:
    cluster = Cluster(ROUTES, sticky=StickyRoute("S", separator="-"))
    assert cluster.ask(3, HTTP_COOKIE="S=x-r2") + cluster.ask(3) == "bbbaca"


def test_a_draining_member_keeps_its_sessions_until_the_deadline() -> None:
    cluster = Cluster(ROUTES, sticky="S")
    cluster.pool.change("http://b", state="drain", deadline=60)
    assert cluster.ask(4) == "acac"
    assert cluster.ask(2, HTTP_COOKIE="S=x.r2") == "bb"
    cluster.now += 61
    assert "b" not in cluster.ask(4, HTTP_COOKIE="S=x.r2")


def test_a_session_whose_member_is_gone() -> None:
    redistribute, refuse = Cluster(ROUTES, sticky="S"), Cluster(ROUTES, sticky="S", nofailover=True)
    for cluster in (redistribute, refuse):
        cluster.dead.add("b")
    assert set(redistribute.ask(3, HTTP_COOKIE="S=x.r2")) <= {"a", "c"}
    assert refuse.ask(3, HTTP_COOKIE="S=x.r2") == "!!!"
    assert refuse.ask(2) == "ac"
    refuse.dead.clear()
    assert refuse.ask(1, HTTP_COOKIE="S=x.r2") == "!"  # until its retry, as in Apache
    refuse.now += 61
    assert refuse.ask(1, HTTP_COOKIE="S=x.r2") == "b"


def test_a_redirect_takes_the_sessions_of_a_disabled_member() -> None:
    first = Member("http://a", route="r1", redirect="r2", status="D")
    assert Cluster([first, *ROUTES[1:]], sticky="S").ask(3, HTTP_COOKIE="S=x.r1") == "bbb"


def test_redirects_in_a_circle_end() -> None:
    pair = [
        Member("http://a", route="1", redirect="2", status="D"),
        Member("http://b", route="2", redirect="1", status="D"),
    ]
    assert Cluster(pair, sticky="S").ask(1, HTTP_COOKIE="S=x.1") == "!"


def test_a_session_may_live_in_a_higher_set() -> None:
    pool = [Member("http://a", route="r1"), Member("http://b", route="r2", lbset=1)]
    cluster = Cluster(pool, sticky="S")
    assert cluster.ask(3, HTTP_COOKIE="S=x.r2") + cluster.ask(3) == "bbbaaa"


def test_apaches_variables_are_exported() -> None:
    pool = Cluster(ROUTES, sticky="S").pool
    environ = {"PATH_INFO": "/", "wsgi.multiprocess": False, "HTTP_COOKIE": "S=x.r2"}
    pool.lease(environ).finish()
    assert environ["BALANCER_NAME"] == "balancer://cluster"
    assert environ["BALANCER_WORKER_NAME"] == "http://b"
    assert environ["BALANCER_WORKER_ROUTE"] == environ["BALANCER_SESSION_ROUTE"] == "r2"
    assert "BALANCER_ROUTE_CHANGED" not in environ
    fresh = {"PATH_INFO": "/", "wsgi.multiprocess": False}
    pool.lease(fresh).finish()
    assert fresh["BALANCER_ROUTE_CHANGED"] == "1"


def cookie_of(held) -> str:
    ((name, value),) = held.set_headers
    assert name == "Set-Cookie"
    return value.partition(";")[0]


def test_our_own_cookie_brings_a_client_back_and_is_sent_once() -> None:
    cluster = Cluster(sticky=True)
    first = lease(cluster.pool)
    cookie = cookie_of(first)
    assert first.name not in cookie
    for _ in range(3):
        again = lease(cluster.pool, HTTP_COOKIE=f"x=1, {cookie}")
        assert again.origin.host == "a"
        assert again.set_headers == []


def test_our_own_cookie_cannot_be_made_up() -> None:
    cluster = Cluster(sticky=StickyCookie("S"))
    assert cluster.ask(3, HTTP_COOKIE="S=http://c") == "abc"
    assert cluster.ask(3, HTTP_COOKIE="S=" + "A" * 16) == "abc"
    assert Cluster(sticky=StickyCookie("S")).pool.secret != cluster.pool.secret


def test_a_client_that_had_to_move_gets_a_new_cookie() -> None:
    cluster = Cluster(sticky=True)
    cookie = cookie_of(lease(cluster.pool))
    cluster.pool.change("http://a", state="disabled")
    moved = lease(cluster.pool, HTTP_COOKIE=cookie, **{"wsgi.url_scheme": "https"})
    assert moved.origin.host == "b"
    assert cookie_of(moved) != cookie
    assert moved.set_headers[0][1].endswith("Secure")


# -- limits, queue, bulkhead, fallback


def test_a_limit_holds_over_all_and_passes_the_rest_on() -> None:
    pool = Cluster([Member("http://a", limit=2), "http://b"]).pool
    held = [lease(pool).origin.host for _ in range(6)]
    assert (held.count("a"), held.count("b")) == (2, 4)


def test_past_every_limit_it_is_503_with_retry_after() -> None:
    pool = Cluster([Member("http://a", limit=1)]).pool
    first = lease(pool)
    with pytest.raises(NoMember, match="at its limit") as refused:
        lease(pool)
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    first.finish(status=200)
    lease(pool)


def test_a_bounded_queue_waits_for_room() -> None:
    pool = BalancerPool([Member("http://a", limit=1)], queue=1, queue_timeout=5)
    first = lease(pool)
    got: list = []
    waiter = threading.Thread(target=lambda: got.append(lease(pool)))
    waiter.start()
    while not pool._waiting:
        time.sleep(0.001)
    with pytest.raises(NoMember):
        lease(pool)  # the queue is full
    began = time.monotonic()
    first.finish(status=200)
    waiter.join(5)
    assert got
    assert time.monotonic() - began < 0.5


def test_the_queue_gives_up_in_time() -> None:
    pool = BalancerPool([Member("http://a", limit=1)], queue=1, queue_timeout=0.05)
    held = lease(pool)
    began = time.monotonic()
    with pytest.raises(NoMember):
        lease(pool)
    assert 0.04 < time.monotonic() - began < 1
    held.finish()


def test_the_bulkhead_leaves_threads_for_others() -> None:
    pool = Cluster(threads=2).pool
    held = [lease(pool), lease(pool)]
    with pytest.raises(NoMember, match="2 requests of this worker"):
        lease(pool)
    held[0].finish()
    lease(pool)


def test_a_fallback_answers_when_nobody_can() -> None:
    def sorry(environ, start_response):
        start_response("200 OK", [])
        return [b"later"]

    cluster = Cluster("ab", fallback=sorry)
    cluster.pool.change("http://a", state="disabled")
    cluster.pool.change("http://b", state="disabled")
    held = lease(cluster.pool)
    assert held.app is sorry
    held.finish(status=200)
    cluster.pool.change("http://a", state="ready")
    assert cluster.ask(2) == "aa"


def test_a_fallback_answers_after_refusals_but_gets_no_body_that_was_read() -> None:
    pool = Cluster("ab", fallback=lambda environ, start_response: []).pool
    for environ, answered in (({}, True), ({"CONTENT_LENGTH": "3"}, False)):
        tried: tuple = ()
        request = {"PATH_INFO": "/", "wsgi.multiprocess": False, **environ}
        for _ in range(2):
            held = pool.lease(request, tried)
            held.finish(ConnectRefused("x"))
            tried += (held,)
        if answered:
            assert pool.lease(request, tried).name == "fallback"
        else:
            with pytest.raises(NoMember):
                pool.lease(request, tried)


def test_a_full_pool_is_not_a_broken_one() -> None:
    pool = Cluster([Member("http://a", limit=1)], fallback=lambda environ, start_response: []).pool
    held = lease(pool)
    with pytest.raises(NoMember):
        lease(pool)
    held.finish()


def test_changes_are_kept_over_a_restart_where_asked(tmp_path) -> None:
    path = tmp_path / "kept.json"
    first = Cluster("ab", persist=path)
    first.pool.change("http://a", state="drain", loadfactor=7, route="x", by="anna")
    first.pool.add(Member("http://c", route="z"))
    first.pool.change_pool(method="bybusyness")
    second = Cluster("ab", persist=path)
    shot = second.pool.snapshot()
    assert shot.method == "bybusyness"
    a, c = shot.member("http://a"), shot.member("http://c")
    assert (a.asked, a.weight, a.route, a.changed_by) == ("drain", 7, "x", "anna")
    assert (c.route, c.asked) == ("z", "ready")
    assert set(second.ask(4)) == {"b", "c"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1, "members": {"http://a": {"flags": "x"}}}', "\0"])
def test_a_damaged_file_of_changes_is_no_matter(tmp_path, content) -> None:
    path = tmp_path / "kept.json"
    path.write_text(content)
    assert Cluster("ab", persist=path).ask(2) == "ab"


def test_changes_that_cannot_be_kept_still_hold(tmp_path, caplog) -> None:
    cluster = Cluster("ab", persist=tmp_path / "missing" / "kept.json")
    cluster.pool.change("http://a", state="disabled")
    assert cluster.ask(2) == "bb"
    assert "persist_failed" in caplog.text


def test_all_down_is_answered_at_once_with_the_time_to_come_back() -> None:
    cluster = Cluster("ab", forcerecovery=False)
    cluster.dead = {"a", "b"}
    cluster.ask(1)
    cluster.now += 20
    with pytest.raises(NoMember) as refused:
        lease(cluster.pool)
    assert refused.value.retry_after == 40


# -- passive health


def test_ejection_trial_and_return() -> None:
    cluster = Cluster("ab", health=Health(failures=3, window=10, eject=10))
    cluster.dead.add("a")
    assert cluster.ask(8) == "bbbbbbbb"
    assert (cluster.view("a").health, cluster.view("a").requests) == ("down", 3)
    assert cluster.view("a").reason == "ejected: upstream_refused"
    cluster.now += 11
    cluster.dead.clear()
    trial = next(held for held in (lease(cluster.pool) for _ in range(3)) if held.origin.host == "a")
    assert [lease(cluster.pool).origin.host for _ in range(3)] == ["b"] * 3  # one trial at a time
    trial.finish(status=200)
    assert set(cluster.ask(2)) == {"a", "b"}


def test_a_slow_start_after_an_ejection() -> None:
    cluster = Cluster("ab", health=Health(failures=1, eject=10, share=1, slow_start=100))
    cluster.dead.add("a")
    assert cluster.ask(2) == "bb"
    cluster.dead.clear()
    cluster.now += 11
    assert "a" in cluster.ask(2)  # the trial
    assert cluster.ask(110).count("a") < 20
    cluster.now += 100
    assert cluster.ask(100).count("a") == 50


def test_no_more_than_the_share_is_put_aside() -> None:
    cluster = Cluster("abcd", health=Health(failures=1, share=0.5))
    cluster.dead = set("abc")
    cluster.ask(40)
    assert sum(view.health == "down" for view in cluster.pool.snapshot().members) == 2


# -- looking and changing


def test_a_snapshot_tells_what_is_so() -> None:
    cluster = Cluster([Member("http://a", loadfactor=2.5, route="r1", lbset=0), "http://b"], name="Shop")
    held = lease(cluster.pool)
    other = lease(cluster.pool)
    other.finish(status=200, sent=100, received=50, seconds=0.25)
    shot = cluster.pool.snapshot()
    assert (shot.name, shot.method, shot.attempts, shot.state) == ("shop", "byrequests", 1, "local")
    a, b = shot.members
    assert (a.id, a.route, a.weight, a.in_flight, a.requests, a.letters) == ("http://a", "r1", 2.5, 1, 1, "Init Ok")
    assert (b.sent, b.received, b.finished, b.latency, b.in_flight) == (100, 50, 1, 0.25, 0)
    held.finish()
    held.finish(status=200, sent=5)
    assert cluster.view("a").in_flight == 0
    assert cluster.view("a").sent == 0
    assert repr(cluster.pool) == "<BalancerPool shop byrequests: 2 members, 2 usable, 0 busy>"


def test_changes_take_effect_and_are_told() -> None:
    cluster = Cluster()
    cluster.ask(3)
    cluster.pool.change("http://a", loadfactor=5, route="x1", lbset=1, by="anna")
    view = cluster.view("a")
    assert (view.weight, view.route, view.lbset, view.changed_by) == (5, "x1", 1, "anna")
    assert cluster.ask(4) == "bcbc"
    event = cluster.pool.events()[-1]
    assert (event["event"], event["by"], event["loadfactor"]) == ("member_changed", "anna", 5)


def test_a_load_factor_begins_the_turn_anew() -> None:
    cluster = Cluster()
    cluster.ask(1)
    cluster.pool.change("http://c", flags={"ignore_errors": True})
    assert [view.load for view in cluster.pool.snapshot().members] == [-200, 100, 100]
    cluster.pool.change("http://c", loadfactor=2)
    assert [view.load for view in cluster.pool.snapshot().members] == [100, 100, 200]


def test_a_member_that_comes_back_starts_level_with_the_others() -> None:
    cluster = Cluster()
    cluster.pool.change("http://c", state="disabled")
    cluster.ask(1)
    cluster.pool.change("http://c", state="ready")
    assert [view.load for view in cluster.pool.snapshot().members] == [0, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"loadfactor": 0},
        {"lbset": 100},
        {"route": "a b"},
        {"state": "off"},
        {"flags": {"broken": True}},
        {"redirect": "x" * 64},
        {"deadline": -1},
    ],
)
def test_a_bad_change_changes_nothing(change) -> None:
    cluster = Cluster()
    before = cluster.pool.snapshot()
    with pytest.raises(ConfigError):
        cluster.pool.change("http://a", **{"state": "drain", **change})
    assert cluster.pool.snapshot() == before


def test_an_unknown_member_is_named() -> None:
    with pytest.raises(ConfigError, match="one of http://a, http://b, http://c, got 'http://x'"):
        Cluster().pool.change("http://x", state="drain")


def test_retry_now_ends_an_error() -> None:
    cluster = Cluster("ab")
    cluster.dead.add("a")
    cluster.ask(1)
    cluster.dead.clear()
    assert cluster.view("a").letters == "Init Err"
    assert 59 < cluster.view("a").retry_in <= 60
    cluster.pool.change("http://a", retry_now=True)
    assert set(cluster.ask(2)) == {"a", "b"}


def test_the_pool_itself_can_be_changed() -> None:
    cluster = Cluster(ROUTES)
    cluster.pool.change_pool(method="bybusyness", sticky="S|s", attempts=0, timeout=1.5, nofailover=True, by="anna")
    shot = cluster.pool.snapshot()
    assert (shot.method, shot.sticky, shot.attempts, shot.timeout, shot.nofailover) == (
        "bybusyness",
        "S|s",
        0,
        1.5,
        True,
    )
    assert cluster.ask(2, HTTP_COOKIE="S=x.r2") == "bb"
    with pytest.raises(ConfigError, match="method must be one of"):
        cluster.pool.change_pool(method="fast")


def test_members_come_and_go_while_running() -> None:
    cluster = Cluster("ab")
    cluster.pool.add(Member("http://c", loadfactor=2), by="anna")
    assert sorted(cluster.ask(4)) == ["a", "b", "c", "c"]
    held = next(held for held in (lease(cluster.pool) for _ in range(4)) if held.origin.host == "c")
    cluster.pool.remove("http://c")
    assert "c" not in cluster.ask(6)
    assert cluster.pool.in_flight("http://c") >= 1
    assert cluster.view("c").asked == "removed"
    held.finish(status=200)
    cluster.pool.add("http://c")
    assert "c" in cluster.ask(6)
    with pytest.raises(ConfigError, match="already"):
        cluster.pool.add("http://c")


def test_draining_tells_when_nothing_is_left() -> None:
    pool = Cluster("ab").pool
    held = lease(pool)
    assert pool.drain("http://a") == 1
    held.finish(status=200)
    assert pool.drain("http://a", wait=1) == 0


def test_eligible_says_why_and_changes_nothing() -> None:
    cluster = Cluster([*members("a b:N c:D d:H"), Member("http://e")])
    cluster.dead = {"a"}
    cluster.ask(1)
    before = [(view.load, view.letters) for view in cluster.pool.snapshot().members]
    told = {member.id[-1]: (usable, why) for member, usable, why in cluster.pool.eligible()}
    assert told["a"] == (False, "in error, retry in 60 s")
    assert told["b"] == (False, "draining: takes only its own sessions")
    assert told["c"] == (False, "disabled")
    assert told["d"][0]
    assert told["e"] == (True, "ready")
    assert [(view.load, view.letters) for view in cluster.pool.snapshot().members] == before


def test_history_has_a_sample_for_each_second_with_traffic() -> None:
    cluster = Cluster("ab")
    for _ in range(3):
        cluster.ask(10)
        cluster.now += 1
    history = cluster.pool.history()
    assert history["ages"] == sorted(history["ages"], reverse=True)
    assert sum(history["members"]["http://a"]["requests"]) == 15


def test_errors_are_logged_once_with_escaped_values(caplog) -> None:
    cluster = Cluster("ab")
    cluster.dead.add("a")
    with caplog.at_level(logging.WARNING, "proxymw.pool"):
        cluster.ask(5)
    assert caplog.messages == ["event=member_error pool=cluster member=http://a reason=upstream_refused retry_in=60"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a b"}, "name must be"),
        ({"method": "fast"}, "method must be one of byrequests"),
        ({"attempts": -1}, "attempts must be"),
        ({"timeout": -1}, "timeout must be"),
        ({"failonstatus": [99]}, "failonstatus must be"),
        ({"failonstatus": "503"}, "failonstatus must be a list"),
        ({"hash_by": "moon"}, "hash_by must be"),
        ({"health": 3}, "health must be a Health, got 3"),
        ({"probe": "/"}, "probe must be a Probe, got '/'"),
        ({"threads": 0}, "threads must be"),
        ({"queue": -1}, "queue must be"),
        ({"fallback": "/x"}, "fallback must be"),
        ({"state": 5}, "state must be"),
        ({"sticky": "a b"}, "sticky must be"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message) -> None:
    with pytest.raises(ConfigError) as caught:
        BalancerPool(["http://a"], **options)
    assert message in str(caught.value)


def test_methods_by_key() -> None:
    cluster = Cluster(method="hash", hash_by="header:X-User")
    answers = {user: cluster.ask(3, HTTP_X_USER=user) for user in "tuvwxyz"}
    assert all(len(set(answer)) == 1 for answer in answers.values())
    assert len(set(answers.values())) > 1


def test_a_custom_method() -> None:
    assert Cluster(method=lambda candidates, counters, key: candidates[-1]).ask(3) == "ccc"


def test_wsgi_applications_are_members() -> None:
    def app(environ, start_response):
        return []

    held = lease(BalancerPool([Member(app, name="here")]))
    assert (held.app, held.origin, held.name) == (app, None, "wsgi:here")


def test_a_trailing_slash_does_not_double() -> None:
    assert lease(BalancerPool(["http://a/base/"])).origin.base == "/base"
    assert lease(BalancerPool(["http://a/base/"], policy=APACHE)).origin.base == "/base/"


def test_a_thousand_threads_lose_no_count() -> None:
    pool = BalancerPool([Member("http://a", loadfactor=3), Member("http://b", loadfactor=2), "http://c"])

    def work() -> None:
        for _ in range(100):
            lease(pool).finish(status=200, sent=1, received=2)

    threads = [threading.Thread(target=work) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    views = pool.snapshot().members
    assert [view.requests for view in views] == [3000, 2000, 1000]
    assert [view.in_flight for view in views] == [0, 0, 0]
    assert sum(view.sent for view in views) == 6000


def test_those_who_come_at_once_do_not_pass_the_bulkhead_together() -> None:
    pool = Cluster(threads=2).pool
    lease(pool).finish()
    table, _ = pool.attached()
    held = []

    def come() -> None:
        try:
            held.append(lease(pool))
        except NoMember:
            return

    threads = [threading.Thread(target=come) for _ in range(12)]
    with table.lock:
        for thread in threads:
            thread.start()
        time.sleep(0.05)  # all stand before the table now
    for thread in threads:
        thread.join()
    assert len(held) == 2


def test_who_waits_for_a_member_counts_for_the_bulkhead() -> None:
    pool = BalancerPool([Member("http://a", status="+D")], threads=1, timeout=0.3)

    def wait() -> None:
        with contextlib.suppress(NoMember):
            lease(pool)

    waiting = threading.Thread(target=wait)
    waiting.start()
    end = time.monotonic() + 5
    while not pool._waiting and time.monotonic() < end:
        time.sleep(0.001)
    began = time.monotonic()
    with pytest.raises(NoMember):
        lease(pool)
    assert time.monotonic() - began < 0.25
    waiting.join()


def test_a_method_object_is_given_the_key() -> None:
    seen = []

    def first(candidates, counters, key):
        seen.append(key)
        return candidates[0]

    Cluster(method=first, hash_by="header:X-Key").ask(HTTP_X_KEY="k")
    assert seen == ["k"]
    assert len(set(Cluster(method=Hash(bound=9.0)).ask(6, PATH_INFO="/same"))) == 1


def test_a_member_that_failed_its_checks_does_not_keep_the_others_from_being_forced_back() -> None:
    cluster = Cluster("ab")
    cluster.ask()
    table, _ = cluster.pool.attached()
    table.found[0] |= Flag.CHECK_FAILED
    table.words[H_EPOCH] += 1
    cluster.dead = {"b"}
    assert cluster.ask() == "!"
    cluster.dead = set()
    assert cluster.ask() == "b"


def test_another_change_leaves_the_deadline_of_a_drain() -> None:
    cluster = Cluster("ab", sticky="S")
    cluster.pool.change("http://a", state="drain", deadline=10)
    cluster.pool.change("http://a", route="r", loadfactor=2)
    assert cluster.ask(HTTP_COOKIE="S=1.r") == "a"
    cluster.now += 11
    assert cluster.ask(HTTP_COOKIE="S=1.r") == "b"


def test_too_much_text_changes_nothing(monkeypatch) -> None:
    pool = Cluster().pool
    table, _ = pool.attached()
    monkeypatch.setattr(type(table), "write_text", lambda *args: False)
    with pytest.raises(ConfigError, match="too much text"):
        pool.change("http://a", state="disabled", loadfactor=9, lbset=3)
    assert (table.mask[0], table.asked_lbfactor[0], table.asked_lbset[0]) == (0, 0, 0)


def test_a_deadline_outlives_a_restart(tmp_path) -> None:
    kept = tmp_path / "kept"
    BalancerPool(["http://a"], persist=kept).change("http://a", state="drain", deadline=60)
    table, _ = BalancerPool(["http://a"], persist=kept).attached()
    assert 55e9 < table.drain_until[0] - time.monotonic_ns() < 60e9


@pytest.mark.parametrize("state", ["redis:/x", Path("redis://127.0.0.1/0"), "REDIS://h", "valkey://h", "file:///x"])
def test_a_url_is_no_path_of_a_table(state) -> None:
    """A path object loses one slash of a URL; a directory named "redis:" was made."""
    with pytest.raises(ConfigError, match="state must be a path"):
        BalancerPool(["http://a"], state=state)
