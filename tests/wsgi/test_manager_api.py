"""The JSON side of the manager, its metrics and health, and the numbers behind the page."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from proxymw import BalancerManagerApp, BalancerPool, ConfigError, IPAllowlist, Member
from proxymw.errors import ConnectRefused, FirstByteTimeout
from proxymw.manager.numbers import percentile, spread, wanted_shares
from proxymw.manager.texts import count, duration, event_text, milliseconds, size
from proxymw.state.table import BOUNDS
from tests.conftest import Clock
from tests.wsgi.calling import Answer, call

A, B = "http://127.0.0.1:9001", "http://127.0.0.1:9002"


@pytest.fixture
def pool(clock: Clock) -> BalancerPool:
    return BalancerPool([Member(A, loadfactor=3, route="one"), B], name="cluster", clock=clock)


def manager(*pools: BalancerPool, **options: Any) -> Any:
    return IPAllowlist(BalancerManagerApp(pools, **options), allow=["127.0.0.1"])


def ask(app: Any, path: str, method: str = "GET", value: Any = None, **extra: Any) -> Answer:
    if value is not None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        extra = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(data)), **extra}
        extra["wsgi.input"] = io.BytesIO(data)
    extra = {"HTTP_HOST": "127.0.0.1:8000", "SCRIPT_NAME": "/bm", "wsgi.multiprocess": False, **extra}
    return call(app, path, method, **extra)


def read(app: Any, path: str, **extra: Any) -> Any:
    answer = ask(app, path, **extra)
    assert (answer.code, answer["Content-Type"]) == (200, "application/json")
    return json.loads(answer.body)


def write(app: Any, path: str, method: str, value: Any = None, **extra: Any) -> Answer:
    token = read(app, "/api/v1/pools/cluster")["nonce"]
    return ask(app, path, method, value, **{"HTTP_X_PROXYMW_NONCE": token, **extra})


def problem(answer: Answer) -> str:
    assert answer["Content-Type"] == "application/problem+json"
    told = json.loads(answer.body)
    assert told["status"] == answer.code
    return str(told["detail"])


# -- reading -----------------------------------------------------------------------------------------------------------


def test_pools_tell_what_was_asked_and_what_is_true_apart(pool: BalancerPool, clock: Clock) -> None:
    pool.lease({}).finish(status=200, sent=10, received=20, seconds=0.02)
    pool.change(B, state="drain", by="anna")
    pool.lease({}).finish(ConnectRefused("no"), seconds=0.001)
    clock.advance(3)
    (told,) = read(manager(pool), "/api/v1/pools")["pools"]
    assert (told["name"], told["method"], told["usable"]) == ("cluster", "byrequests", 1)
    one, two = told["members"]
    assert (one["id"], one["name"], one["asked"], one["health"]) == (A, "one", "ready", "down")
    assert (one["requests"], one["in_flight"], one["weight"], one["set"]) == (2, 0, 3, 0)
    assert (one["sent"], one["received"], one["answers"]["2xx"]) == (10, 20, 1)
    assert (one["errors"], one["failures"], one["retry_in"]) == (1, {"connect": 1}, 57)
    assert (two["asked"], two["health"], two["changed_by"], two["name"]) == ("drain", "up", "anna", "127.0.0.1:9002")


@pytest.mark.parametrize("name", ["one", "http://127.0.0.1:9001", "http:/127.0.0.1:9001"])
def test_a_member_is_found_by_short_name_id_and_merged_slashes(pool: BalancerPool, name: str) -> None:
    assert read(manager(pool), f"/api/v1/pools/cluster/members/{name}", RAW_URI=None)["id"] == A


def test_every_member_is_found_under_its_own_href(pool: BalancerPool) -> None:
    deep = BalancerPool([A, "http://127.0.0.1:9001/base/x", Member("https://127.0.0.1:9001", route="r/1")], name="deep")
    app = manager(pool, deep)
    for told in read(app, "/api/v1/pools")["pools"]:
        for member in told["members"]:
            path = f"/api/v1/pools/{told['name']}/{member['href']}"
            from urllib.parse import unquote

            assert read(app, unquote(path), RAW_URI=None)["id"] == member["id"]


def test_fields_choose_what_is_told(pool: BalancerPool) -> None:
    assert read(manager(pool), "/api/v1/pools/cluster?fields=name,usable") == {"name": "cluster", "usable": 2}


def test_the_schema_describes_what_is_sent(pool: BalancerPool) -> None:
    app = manager(pool)
    schema = read(app, "/api/v1/schema")
    told = read(app, "/api/v1/pools/cluster")
    assert set(told) == set(schema["$defs"]["pool"]["properties"])
    for member in told["members"]:
        assert set(member) == set(schema["$defs"]["member"]["required"])
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}
    for name, rule in schema["$defs"]["member"]["properties"].items():
        value = told["members"][0][name]
        if "enum" in rule:
            assert value in rule["enum"]
        else:
            types = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
            assert any(value is None if kind == "null" else isinstance(value, kinds[kind]) for kind in types)


def test_index_and_health_and_errors(pool: BalancerPool) -> None:
    app = manager(pool)
    assert read(app, "/api/v1")["capabilities"] == {"write": True, "add_members": False}
    assert read(manager(pool, read_only=True), "/api/v1/")["capabilities"]["write"] is False
    assert ask(app, "/healthz").code == 200
    for member in (A, B):
        pool.change(member, state="disabled")
    sick = ask(app, "/healthz")
    assert (sick.code, sick.body) == (503, b"no usable member: cluster\n")
    for path in ("/api/v1/x", "/api/v1/pools/x", "/api/v1/pools/cluster/members/x", "/api/v1/pools/cluster/x"):
        answer = ask(app, path)
        assert answer.code == 404
        problem(answer)
    answer = ask(app, "/api/v1/pools", "POST", {})
    assert (answer.code, answer["Allow"]) == (405, "GET, HEAD")


def test_head_of_the_api_has_no_body(pool: BalancerPool) -> None:
    answer = ask(manager(pool), "/api/v1/pools", "HEAD")
    assert (answer.code, answer.body) == (200, b"")


def test_read_only_tells_no_nonce_and_takes_no_change(pool: BalancerPool) -> None:
    token = read(manager(pool), "/api/v1/pools/cluster")["nonce"]
    app = manager(pool, read_only=True)
    assert "nonce" not in read(app, "/api/v1/pools/cluster")
    path = "/api/v1/pools/cluster/members/one"
    assert ask(app, path, "PATCH", {"weight": 2}, HTTP_X_PROXYMW_NONCE=token).code == 403
    assert pool.snapshot().member(A).weight == 3


def test_events_tell_who_what_before_and_after(pool: BalancerPool) -> None:
    app = manager(pool)
    assert write(app, "/api/v1/pools/cluster/members/one", "PATCH", {"weight": 2}, REMOTE_USER="anna").code == 200
    (event,) = read(app, "/api/v1/events")["events"]
    assert (event["pool"], event["member"], event["by"]) == ("cluster", A, "anna@127.0.0.1")
    assert (event["loadfactor"], event["was"]) == (2, {"loadfactor": 3})
    assert read(app, f"/api/v1/events?since={event['time'] + 1}")["events"] == []
    assert ask(app, "/api/v1/events?since=x").code == 400


def test_series_are_ten_minutes_on_an_even_grid(pool: BalancerPool, clock: Clock) -> None:
    for _ in range(20):
        for _ in range(8):
            pool.lease({}).finish(status=200, seconds=0.02)
        clock.advance(1)
    told = read(manager(pool), "/api/v1/series?window=60&step=5")
    requests, bad, times, in_flight = told["pools"][0]["charts"]
    assert [line["name"] for line in requests["lines"]] == ["one", "127.0.0.1:9002"]
    assert requests["lines"][0]["values"] == [0] * 7 + [6] * 5
    assert [line["values"][-1] for line in times["lines"]] == [17.5, 24.25]
    assert set(bad["lines"][0]["values"]) == {0}
    assert len(in_flight["lines"][0]["values"]) == 12
    for query in ("window=0", "step=x", "window=9999999", "step="):
        assert ask(manager(pool), f"/api/v1/series?{query}").code == 400


# -- changing ----------------------------------------------------------------------------------------------------------


def test_patch_changes_a_member_and_tells_it(pool: BalancerPool) -> None:
    value = {"state": "standby", "weight": 1.5, "set": 2, "route": "r", "redirect": "s", "flags": {"stopped": True}}
    answer = write(manager(pool), "/api/v1/pools/cluster/members/one", "PATCH", value)
    told = json.loads(answer.body)
    assert answer.code == 200
    assert (told["asked"], told["weight"], told["set"], told["route"]) == ("standby", 1.5, 2, "r")
    assert (told["redirect"], told["flags"], told["changed_by"]) == ("s", ["stopped"], "127.0.0.1")


def test_patch_changes_a_pool(pool: BalancerPool) -> None:
    value = {"method": "bybusyness", "attempts": 0, "timeout": 2, "sticky": "SID", "nofailover": True}
    told = json.loads(write(manager(pool), "/api/v1/pools/cluster", "PATCH", value).body)
    assert {name: told[name] for name in value} == value


def test_probe_takes_a_member_back(pool: BalancerPool) -> None:
    pool.lease({}).finish(ConnectRefused("no"))
    answer = write(manager(pool), "/api/v1/pools/cluster/members/one/probe", "POST")
    assert (answer.code, json.loads(answer.body)["health"]) == (200, "up")


def test_if_match_loses_no_update_and_lasts_while_only_counters_move(pool: BalancerPool) -> None:
    app, path = manager(pool), "/api/v1/pools/cluster/members/one"
    tag = ask(app, path)["ETag"]
    pool.lease({}).finish(status=200)
    assert ask(app, path)["ETag"] == tag
    assert write(app, path, "PATCH", {"weight": 2}, HTTP_IF_MATCH=tag).code == 200
    late = write(app, path, "PATCH", {"weight": 9}, HTTP_IF_MATCH=tag)
    assert (late.code, pool.snapshot().member(A).weight) == (412, 2)
    problem(late)
    assert write(app, path, "PATCH", {"weight": 9}, HTTP_IF_MATCH="*").code == 200
    pool_tag = ask(app, "/api/v1/pools/cluster")["ETag"]
    assert write(app, "/api/v1/pools/cluster", "PATCH", {"attempts": 5}, HTTP_IF_MATCH=pool_tag).code == 200
    assert write(app, "/api/v1/pools/cluster", "PATCH", {"attempts": 0}, HTTP_IF_MATCH=pool_tag).code == 412


@pytest.mark.parametrize(
    "value",
    [
        b"{",
        b"[]",
        b"\xff",
        b"[" * 60000,
        {},
        {"weight": 0},
        {"weight": "3"},
        {"weight": True},
        {"weight": None},
        {"weight": [1]},
        {"set": 1.5},
        {"state": "gone"},
        {"state": {}},
        {"route": 1},
        {"route": "a;b"},
        {"flags": {"nosuch": True}},
        {"flags": {"stopped": 1}},
        {"flags": []},
        {"by": "me"},
        {"id": "x"},
    ],
)
def test_bad_json_is_400_and_changes_nothing(pool: BalancerPool, value: Any) -> None:
    before = pool.snapshot().generation
    answer = write(manager(pool), "/api/v1/pools/cluster/members/one", "PATCH", value)
    assert answer.code == 400
    problem(answer)
    assert pool.snapshot().generation == before


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ({"HTTP_X_PROXYMW_NONCE": "0" * 32}, 403),
        ({"HTTP_X_PROXYMW_NONCE": None}, 403),
        ({"HTTP_ORIGIN": "http://evil.invalid"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, 403),
        ({"CONTENT_TYPE": "text/plain"}, 415),
        ({"CONTENT_TYPE": "application/x-www-form-urlencoded"}, 415),
        ({"CONTENT_LENGTH": str(1 << 20)}, 413),
        ({"REMOTE_ADDR": "192.0.2.1"}, 403),
    ],
)
def test_json_changes_are_guarded_as_forms_are(pool: BalancerPool, extra: dict[str, Any], code: int) -> None:
    answer = write(manager(pool), "/api/v1/pools/cluster/members/one", "PATCH", {"weight": 2}, **extra)
    assert answer.code == code
    assert pool.snapshot().member(A).weight == 3


def test_members_are_added_and_removed_only_at_permitted_addresses(pool: BalancerPool) -> None:
    closed, app = manager(pool), manager(pool, member_networks=["10.0.0.0/8"])
    new = {"url": "http://10.1.2.3:80", "weight": 2, "route": "new"}
    path = "/api/v1/pools/cluster/members"
    assert write(closed, path, "POST", new).code == 403
    for url in ("http://127.0.0.1:1", "http://host.invalid", "unix:/run/x|http://10.0.0.1", "http://u@10.0.0.1", "x"):
        assert write(app, path, "POST", {"url": url}).code in (400, 403)
    answer = write(app, path, "POST", new)
    told = json.loads(answer.body)
    assert (answer.code, told["asked"], told["weight"], told["route"]) == (201, "disabled", 2, "new")
    assert write(app, path, "POST", new).code == 400
    assert write(closed, path + "/new", "DELETE").code == 403
    assert write(app, path + "/new", "DELETE").code == 204
    assert [member["id"] for member in read(app, "/api/v1/pools/cluster")["members"]] == [A, B]


def test_apache_adds_a_member_when_it_was_asked_twice(pool: BalancerPool) -> None:
    from tests.wsgi.test_manager import change

    app = manager(pool, member_networks=["10.0.0.0/8"])
    assert change(app, b_nwrkr="http://10.0.0.1").code == 400
    assert change(app, b_nwrkr="http://10.0.0.1", b_wyes="1").code == 303
    assert change(app, b_nwrkr="http://127.0.0.1:7", b_wyes="1").code == 403
    assert pool.snapshot().member("http://10.0.0.1").asked == "disabled"
    assert change(app, member="http://10.0.0.1", remove="yes").code == 303
    assert len(pool.snapshot().members) == 2


# -- metrics -----------------------------------------------------------------------------------------------------------


def samples(app: Any) -> dict[tuple[str, ...], float]:
    from prometheus_client.parser import text_string_to_metric_families

    answer = ask(app, "/metrics")
    assert (answer.code, answer["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_metrics_say_what_the_table_counted(pool: BalancerPool) -> None:
    pytest.importorskip("prometheus_client")
    pool.lease({}).finish(status=404, sent=5, received=7, seconds=0.02)
    first = pool.lease({})
    first.finish(ConnectRefused("no"), seconds=0.001)
    pool.lease({}, [first]).finish(FirstByteTimeout("silent"), seconds=3)
    held = pool.lease({})
    pool.change(B, state="drain")
    told = samples(manager(pool))
    assert told["proxymw_upstream_requests_total", "4xx", "cluster", A] == 1
    assert told["proxymw_upstream_errors_total", "cluster", "connect", A] == 1
    assert told["proxymw_upstream_errors_total", "cluster", B, "read_timeout"] == 1
    assert told["proxymw_upstream_redispatches_total", "cluster"] == 1
    assert told["proxymw_upstream_retries_total", "cluster"] == 0
    assert told["proxymw_upstream_bytes_total", "cluster", A, "received"] == 7
    assert told["proxymw_upstream_response_seconds_bucket", "0.025", "cluster"] == 2
    assert told["proxymw_upstream_response_seconds_bucket", "+Inf", "cluster"] == 3
    assert told["proxymw_upstream_response_seconds_count", "cluster"] == 3
    assert told["proxymw_upstream_response_seconds_sum", "cluster"] == pytest.approx(3.021, abs=1e-3)
    assert (told["proxymw_member_up", "cluster", A], told["proxymw_member_up", "cluster", B]) == (0, 1)
    assert told["proxymw_member_in_flight", "cluster", B] == 1
    assert told["proxymw_member_weight", "cluster", A] == 3
    assert told["proxymw_member_transitions_total", "cluster", "down", A] == 1
    assert told["proxymw_member_state", "cluster", "drain", B] == 1
    assert told["proxymw_member_state", "cluster", B, "ready"] == 0
    assert told["proxymw_pool_usable_members", "cluster"] == 1
    held.finish(status=200)


def test_the_collector_stands_next_to_a_users_own_metrics(pool: BalancerPool) -> None:
    client = pytest.importorskip("prometheus_client")
    from proxymw.metrics import PoolCollector

    registry = client.CollectorRegistry()
    client.Counter("orders", "Orders.", registry=registry).inc()
    registry.register(PoolCollector([pool]))
    text = client.generate_latest(registry).decode()
    assert "orders_total 1.0" in text
    assert "proxymw_pool_usable_members" in text
    with pytest.raises(ConfigError, match="pools must be"):
        PoolCollector(["cluster"])  # type: ignore[list-item]


def test_without_prometheus_client_the_page_says_how_to_get_it(
    pool: BalancerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    answer = ask(manager(pool), "/metrics")
    assert (answer.code, b"pip install proxymw[metrics]" in answer.body) == (501, True)


# -- numbers and words -------------------------------------------------------------------------------------------------


def test_percentiles_lie_within_their_class() -> None:
    empty = [0] * (len(BOUNDS) + 1)
    assert percentile(empty, 0.5) is None
    place = BOUNDS.index(0.05)
    counts = list(empty)
    counts[place] = 100
    assert percentile(counts, 0.5) == pytest.approx((BOUNDS[place - 1] + BOUNDS[place]) / 2)
    counts[-1] = 100
    assert percentile(counts, 0.95) == BOUNDS[-1]


def test_spread_puts_uneven_samples_on_an_even_grid() -> None:
    assert spread([], [], 20, 5) == [0, 0, 0, 0]
    # Nothing is known before the first sample; a gap has the mean of the sample that ends it.
    assert spread([12, 2, 0], [4, 6, 8], 25, 5) == [0, 4, 6, 6, 8]
    assert spread([12, 2, 0], [4, 6, 8], 25, 5, level=True) == [0, 0, 4, 4, 8]


def test_wanted_shares_follow_weights_among_those_elected_now() -> None:
    pool = BalancerPool(
        [Member("http://a", loadfactor=3), "http://b", Member("http://c", status="D"), Member("http://d", lbset=1)],
        name="x",
    )
    assert list(wanted_shares(pool.snapshot().members).values()) == [0.75, 0.25, 0, 0]


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (size(0), "0"),
        (size(972), "972"),
        (size(1024), "1.0K"),
        (size(10_100_000), "9.6M"),
        (size(1e18), "888P"),
        (duration(0), "0 s"),
        (duration(59.9), "59 s"),
        (duration(61), "1 min 1 s"),
        (duration(7260), "2 h 1 min"),
        (duration(7260, most=1), "2 h"),
        (duration(20 * 86400 + 3600), "20 d"),
        (duration(-5), "0 s"),
        (count(1234567), "1\u202f234\u202f567"),
        (milliseconds(None), "\u2013"),
        (milliseconds(0.0123), "12 ms"),
        (milliseconds(0.001, unit=False), "1.0"),
    ],
)
def test_numbers_in_words(got: str, wanted: str) -> None:
    assert got == wanted


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"event": "member_error", "reason": "x", "seconds": 6}, "is down: x, retry after 6 s"),
        ({"event": "member_ejected", "reason": "upstream_reset"}, "is put aside: connection reset, retry after 0 s"),
        ({"event": "member_up", "reason": "answers again"}, "is up again: answers again"),
        ({"event": "member_changed", "by": "a", "lbset": 1, "was": {"lbset": 0}}, "lbset none to 1, by a"),
        ({"event": "member_changed", "loadfactor": 2, "was": {"loadfactor": 3}}, "weight 3 to 2"),
        ({"event": "member_changed", "retry_now": True, "was": {}}, "is tried again"),
        ({"event": "member_changed", "route": "", "was": {"route": "r"}}, "route r to none"),
        ({"event": "member_changed", "state": "ready", "was": {}}, "kept as it was"),
        ({"event": "something_new", "reason": "why"}, "something new: why"),
    ],
)  # fmt: skip
def test_events_in_words(event: dict[str, Any], text: str) -> None:
    assert event_text(event) == text


# -- what the page loads -----------------------------------------------------------------------------------------------


def test_the_vendored_files_are_what_their_table_says() -> None:
    from proxymw.manager import vendor

    assert vendor.differences() == []
    assert {row[2] for row in vendor.rows().values()} == {"0BSD", "MIT"}


# -- explain -----------------------------------------------------------------------------------------------------------


def test_the_page_tells_where_a_url_goes(pool: BalancerPool) -> None:
    from proxymw import PrefixProxy
    from proxymw.explain import explain

    front = PrefixProxy(None, [("/app/", pool)])
    app = manager(pool, explain=lambda url: explain(front, "GET", url).text())
    assert b"Where does a URL go?" in ask(app, "/").body
    assert b"<pre" not in ask(app, "/").body
    told = ask(app, "/?explain=http://front.example/app/x").body.decode()
    assert "balancer://cluster/x" in told[told.index("<pre") :]
    assert b"cannot be asked" in ask(app, "/?explain=nonsense%0b", QUERY_STRING="explain=no%20url").body
    odd = ask(app, "/", QUERY_STRING="explain=http://front.example/%3Ci%3E%22").body
    assert b"<i>" not in odd
    assert b"Where does a URL go?" not in ask(manager(pool), "/").body
    with pytest.raises(ConfigError, match="explain must be a function"):
        BalancerManagerApp([pool], explain="x")  # type: ignore[arg-type]
