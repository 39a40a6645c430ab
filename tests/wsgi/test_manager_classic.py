"""Apache's own page and XML in the apache dialect, for clients that are no browsers."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from proxymw import BalancerManagerApp, BalancerPool, IPAllowlist, Member, Policy
from tests.wsgi.calling import Answer
from tests.wsgi.test_manager import A, B, get, post

REFERER = {"HTTP_REFERER": "http://127.0.0.1:8000/bm"}
BROWSER = {"HTTP_ACCEPT": "text/html,application/xhtml+xml"}


@pytest.fixture
def pool() -> BalancerPool:
    members = [Member(A, route="r1"), Member(B, route="r2", loadfactor=2)]
    return BalancerPool(members, name="cluster", sticky="SID|sid")


def manager(*pools: BalancerPool, **options: Any) -> Any:
    options = {"policy": Policy.apache(), "paths": {"cluster": "/app"}, **options}
    return IPAllowlist(BalancerManagerApp(pools, **options), allow=["127.0.0.1"])


def cells(answer: Answer) -> list[list[str]]:
    text = answer.body.decode("latin-1")
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.S)
    return [[re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", row)] for row in rows]


def token(app: Any) -> str:
    found = re.search(rb"nonce=([^&\"'<>\s]+)", get(app).body)
    assert found
    return found[1].decode()


def change(app: Any, **fields: str) -> Answer:
    return post(app, {"b": "cluster", "nonce": token(app), **fields}, **REFERER)


def test_shows_apaches_tables(pool: BalancerPool) -> None:
    pool.lease({}).finish(status=200, sent=501, received=3_000_000)
    answer = get(manager(pool))
    assert answer["Content-Type"] == "text/html; charset=ISO-8859-1"
    assert cells(answer) == [
        ["MaxMembers", "StickySession", "DisableFailover", "Timeout", "FailoverAttempts", "Method", "Path", "Active"],
        ["2 [2 Used]", "SID | sid", "Off", "0", "1", "byrequests", "/app", "Yes"],
        ["Worker URL", "Route", "RouteRedir", "Factor", "Set", "Status", "Elected", "Busy", "Load", "To", "From"],
        [A, "r1", "", "1.00", "0", "Init Ok", "0", "0", "100", "0", "0"],
        [B, "r2", "", "2.00", "0", "Init Ok", "1", "0", "-100", "501", "2.9M"],
    ]


def test_browsers_get_the_page_for_people(pool: BalancerPool) -> None:
    assert b"htmx" in get(manager(pool), **BROWSER).body
    assert b"htmx" not in get(manager(pool)).body
    assert b"htmx" in get(manager(pool, policy=Policy.modern())).body


def test_the_nonce_is_in_no_link(pool: BalancerPool) -> None:
    text = get(manager(pool), "/?b=cluster", **REFERER).body.decode("latin-1")
    links = re.findall(r'href="([^"]*)"', text)
    assert links == ["/bm/?b=cluster", f"/bm/?b=cluster&amp;w={A}", f"/bm/?b=cluster&amp;w={B}"]


def test_forms_come_with_a_referer_of_this_host(pool: BalancerPool) -> None:
    app, query = manager(pool), f"/?b=cluster&w={A}"
    assert b"<form" not in get(app, query).body
    assert b"<form" not in get(app, query, HTTP_REFERER="http://evil.invalid/").body
    names = re.findall(rb'name="(\w+)"', get(app, query, **REFERER).body)
    assert [name.decode() for name in dict.fromkeys(names)] == [
        *("w_lf", "w_ls", "w_wr", "w_rr"),
        *("w_status_I", "w_status_N", "w_status_D", "w_status_H", "w_status_R", "w_status_S"),
        *("w", "b", "nonce"),
    ]
    balancer = get(app, "/?b=cluster", **REFERER).body
    assert b'name="b_lbm"' in balancer
    assert b"b_nwrkr" not in balancer
    growing = manager(pool, member_networks=["10.0.0.0/8"])
    assert b"b_nwrkr" in get(growing, "/?b=cluster", **REFERER).body


def test_a_change_is_answered_with_the_page(pool: BalancerPool) -> None:
    answer = change(manager(pool), w=A, w_lf="7x", w_ls="2", w_status_D="1", w_status_I="0")
    assert answer.code == 200
    assert cells(answer)[3][:6] == [A, "r1", "", "7.00", "2", "Init Dis"]


@pytest.mark.parametrize(
    "fields",
    [
        {"w_lf": "0.5"},
        {"w_lf": "abc"},
        {"w_lf": "101"},
        {"w_ls": "100"},
        {"w_wr": "x" * 64},
        {"w_wr": "a;b"},
        {"b_lbm": "nosuch"},
        {"b_tmo": "7201"},
        {"b_max": "100"},
        {"b_ss": ""},
        {"b_ss": "a b;c"},
    ],
)
def test_bad_values_are_left_and_good_ones_beside_them_taken(pool: BalancerPool, fields: dict[str, str]) -> None:
    before = cells(get(manager(pool)))[1:5]
    assert change(manager(pool), w=A, **fields).code == 200
    assert cells(get(manager(pool)))[1:5] == before
    assert change(manager(pool), w=A, w_rr="other", **fields).code == 200
    assert pool.snapshot().member(A).redirect == "other"


@pytest.mark.parametrize(
    ("fields", "headers"),
    [({"nonce": "deadbeef"}, REFERER), ({}, {"HTTP_REFERER": "http://evil.invalid/"}), ({"b": "nosuch"}, REFERER)],
)
def test_a_refused_change_shows_the_page_as_it_was(
    pool: BalancerPool, fields: dict[str, str], headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    app = manager(pool)
    answer = post(app, {"b": "cluster", "nonce": token(app), "w": A, "w_lf": "9", **fields}, **headers)
    assert answer.code == 200
    assert pool.snapshot().member(A).weight == 1
    assert "event=mgr_csrf" in caplog.text
    assert post(manager(pool, read_only=True), {"b": "cluster", "nonce": token(app), "w": A, "w_lf": "9"}).code == 200
    assert pool.snapshot().member(A).weight == 1


def test_pool_fields_and_the_sticky_name_that_its_own_form_shows(pool: BalancerPool) -> None:
    app = manager(pool)
    assert change(app, b_lbm="bybusyness", b_tmo="3", b_max="0", b_sforce="1", b_ss="SID | sid").code == 200
    assert cells(get(app))[1][1:6] == ["SID | sid", "On", "3", "0", "bybusyness"]
    assert change(app, b_ss="-", b_sforce="0").code == 200
    assert cells(get(app))[1][1:3] == ["(None)", "Off"]


def test_get_changes_nothing_and_subpaths_show_the_page(pool: BalancerPool) -> None:
    app = manager(pool)
    assert get(app, f"/?b=cluster&w={A}&nonce={token(app)}&w_lf=9", **REFERER).code == 200
    assert pool.snapshot().member(A).weight == 1
    assert b"LoadBalancer Status" in get(app, "/x").body
    assert get(app, method="OPTIONS")["Allow"] == "GET, HEAD, OPTIONS, POST"
    assert get(app, method="PUT").code == 405
    assert get(app, "/api/v1/pools")["Content-Type"] == "application/json"


def test_everything_is_escaped_in_page_and_xml() -> None:
    pool = BalancerPool([Member(A, route="<i>&'x")], name="cluster")
    app = manager(pool)
    page = get(app, "/?b=<i>&w=<i>", RAW_URI=None, QUERY_STRING="b=%3Ci%3E&w=%3Ci%3E", **REFERER)
    xml = get(app, f"/?xml=1&nonce={token(app)}", **REFERER)
    for answer in (page, xml):
        assert b"<i>" not in answer.body
    assert ElementTree.fromstring(xml.body).find(".//{*}route").text == "<i>&'x"  # type: ignore[union-attr]


def test_xml_tells_pools_and_workers(pool: BalancerPool) -> None:
    app = manager(pool)
    answer = get(app, f"/?xml=1&nonce={token(app)}", **REFERER)
    assert answer["Content-Type"] == "text/xml"
    root = ElementTree.fromstring(answer.body)
    workers = root.findall(".//{http://httpd.apache.org}worker")
    told = {element.tag.partition("}")[2]: element.text for element in workers[1]}
    assert (told["name"], told["hostname"], told["port"], told["loadfactor"]) == (B, "127.0.0.1", "9002", "2.00")
    assert (told["status"], told["route"], told["elected"]) == ("Init Ok ", "r2", "0")
    for query in ("/?xml=1", f"/?xml=0&nonce={token(app)}"):
        assert get(app, query, **REFERER)["Content-Type"] == "text/html; charset=ISO-8859-1"
    # In the modern dialect it is there for the asking.
    assert get(manager(pool, policy=Policy.modern()), "/?xml=1")["Content-Type"] == "text/xml"


def test_it_is_as_closed_as_the_page_for_people(pool: BalancerPool) -> None:
    app = manager(pool)
    answer = get(app)
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Cache-Control"] == "no-store"
    assert get(app, REMOTE_ADDR="192.0.2.1").code == 403
    assert get(app, HTTP_HOST="rebind.invalid").code == 403
    assert get(BalancerManagerApp([pool], policy=Policy.apache())).code == 403
