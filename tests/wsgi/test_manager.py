"""The balancer manager: what it shows, what its forms change, and whom it refuses."""

from __future__ import annotations

import io
import logging
import re
from typing import Any
from urllib.parse import urlencode

import pytest

from proxymw import BalancerManagerApp, BalancerPool, ConfigError, IPAllowlist, Member, PrefixProxy, VirtualHosts
from tests.wsgi.calling import Answer, call

FORM = "application/x-www-form-urlencoded"
A, B = "http://127.0.0.1:9001", "http://127.0.0.1:9002"


@pytest.fixture
def pool() -> BalancerPool:
    return BalancerPool([Member(A, loadfactor=3, route="one"), B], name="cluster")


def manager(*pools: BalancerPool, **options: Any) -> Any:
    return IPAllowlist(BalancerManagerApp(pools, **options), allow=["127.0.0.1"])


def get(app: Any, path: str = "/", **extra: Any) -> Answer:
    extra = {"HTTP_HOST": "127.0.0.1:8000", "SCRIPT_NAME": "/bm", "wsgi.multiprocess": False, **extra}
    return call(app, path, **extra)


def post(app: Any, fields: Any, **extra: Any) -> Answer:
    data = fields if isinstance(fields, bytes) else urlencode(fields).encode()
    extra = {"CONTENT_TYPE": FORM, "CONTENT_LENGTH": str(len(data)), "wsgi.input": io.BytesIO(data), **extra}
    return get(app, method="POST", **extra)


def nonce_of(app: Any, pool: str = "cluster") -> str:
    text = get(app, f"/?b={pool}").body.decode()
    found = re.search(r'name="nonce" value="([0-9a-f]{32})"', text)
    assert found
    return found[1]


def change(app: Any, pool: str = "cluster", **fields: Any) -> Answer:
    return post(app, {"nonce": nonce_of(app, pool), "b": pool, **fields})


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_shows_every_pool_and_member_with_counters(pool: BalancerPool) -> None:
    other = BalancerPool([Member("http://10.0.0.9:81/base", status="D")], name="other")
    for _ in range(4):
        pool.lease({}).finish(status=200, sent=2048, received=500)
    page = get(manager(pool, other))
    text = page.body.decode()
    assert page.code == 200
    assert page["Content-Type"] == "text/html; charset=utf-8"
    for shown in ("cluster", "other", A, B, "http://10.0.0.9:81/base", "2 of 2 usable", "0 of 1 usable", "byrequests"):
        assert shown in text
    rows = re.findall(r'data-label="Requests">(\d+)<', text)
    assert rows == ["3", "1", "0"]
    assert "75.0% <small>of 75%</small>" in text


def test_shows_why_and_since_when_a_member_is_down(pool: BalancerPool) -> None:
    from proxymw.errors import ConnectRefused

    pool.lease({}).finish(ConnectRefused("no"))
    text = get(manager(pool)).body.decode()
    assert re.search(r"<b>down</b>: \w+", text)
    assert re.search(r"for \d s, retry in \d+ s", text)
    assert "Retry now" in text


@pytest.mark.parametrize(
    ("script", "path", "link"),
    [("/bm", "/", "./"), ("/bm", "", "./bm/"), ("", "/", "./"), ("/a/b c", "", "./b%20c/")],
)
def test_links_are_relative_with_and_without_the_slash(pool: BalancerPool, script: str, path: str, link: str) -> None:
    text = get(manager(pool), path, SCRIPT_NAME=script, RAW_URI=None).body.decode()
    assert f'action="{link}"' in text
    assert f'href="{link.removeprefix("./") and link}static/manager.css' in text
    assert not re.search(r'(?:href|src|action)="(?:/|http)', text)


def test_works_mounted_by_prefix_proxy_and_is_not_itself_proxied(pool: BalancerPool) -> None:
    app = PrefixProxy(None, [("/balancer-manager", manager(pool)), ("/", "http://127.0.0.1:1/")])
    for path in ("/balancer-manager", "/balancer-manager/"):
        assert b"cluster" in get(app, path, SCRIPT_NAME="").body
    assert get(app, "/balancer-manager/static/manager.css", SCRIPT_NAME="")["Content-Type"].startswith("text/css")


def test_serves_only_its_own_files(pool: BalancerPool) -> None:
    app = manager(pool)
    page = get(app).body.decode()
    files = re.findall(r'(?:href|src)="(static/[^"?]*)', page)
    assert len(files) > 5
    for name in files:
        assert get(app, f"/{name}").code == 200
    for path in ("/static/", "/static/../app.py", "/static/vendor/", "/static/nothing.js", "/x", "//"):
        assert get(app, path, RAW_URI=None).code in (400, 404)


def test_head_has_the_head_of_get_and_other_methods_are_told_what_is_allowed(pool: BalancerPool) -> None:
    app = manager(pool)
    head = get(app, method="HEAD")
    assert (head.code, head.body) == (200, b"")
    assert int(head["Content-Length"]) > 1000
    for method in ("PUT", "DELETE", "OPTIONS"):
        answer = get(app, method=method)
        assert (answer.code, answer["Allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize("path", ["/", "/static/manager.css", "/nothing"])
def test_every_answer_is_closed_to_frames_caches_and_foreign_scripts(pool: BalancerPool, path: str) -> None:
    answer = get(manager(pool), path)
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["Access-Control-Allow-Origin"] is None
    if path == "/":
        assert answer["Cache-Control"] == "no-store"


def test_page_has_no_inline_script_style_or_handler(pool: BalancerPool) -> None:
    for path in ("/", f"/?b=cluster&w={A}", "/?b=cluster"):
        text = get(manager(pool), path).body.decode()
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
        assert all(tag.endswith("></script>") and " src=" in tag for tag in re.findall(r"<script.*?</script>", text))


# -- everything is escaped -----------------------------------------------------------------------------------------


def test_nothing_from_the_request_or_the_pool_reaches_the_page_raw() -> None:
    evil = "<i>&'\"x"
    pool = BalancerPool([Member(A, route="<i>&'x")], name="cluster")
    app = manager(pool, hosts=["*"])
    for answer in (
        get(app, "/", QUERY_STRING=urlencode({"b": evil, "w": evil, "refresh": evil})),
        get(app, f"/?b=cluster&w={A}", HTTP_REFERER=evil),
        get(app, "/" + evil, RAW_URI=None),
        change(app, pool="cluster", w=evil, w_lf="2"),
        change(app, pool="cluster", w=A, state=evil),
        change(app, pool="cluster", w=A, w_wr=evil),
    ):
        assert b"<i>" not in answer.body
    assert b"&lt;i&gt;" in get(app).body


# -- changes ---------------------------------------------------------------------------------------------------------


def test_a_change_answers_303_back_to_the_page(pool: BalancerPool) -> None:
    app = manager(pool)
    answer = change(app, member=A, state="drain")
    assert (answer.code, answer["Location"]) == (303, "./")
    view = pool.snapshot().member(A)
    assert (view.asked, view.changed_by) == ("drain", "127.0.0.1")
    assert 'aria-pressed="true" aria-label="Drain one"' in get(app).body.decode()


def test_our_own_fields_change_weight_set_route_and_state(pool: BalancerPool) -> None:
    app = manager(pool)
    fields = {"pool": "cluster", "member": B, "loadfactor": "2.5", "lbset": "1", "route": "two", "redirect": "one"}
    assert post(app, {**fields, "state": "standby", "nonce": nonce_of(app)}, REMOTE_USER="anna").code == 303
    view = pool.snapshot().member(B)
    assert (view.weight, view.lbset, view.route, view.redirect, view.asked) == (2.5, 1, "two", "one", "standby")
    assert view.changed_by == "anna@127.0.0.1"


def test_ticked_members_are_changed_together(pool: BalancerPool) -> None:
    app = manager(pool)
    ticked = [("member", A), ("member", B)]
    assert post(app, [("nonce", nonce_of(app)), ("pool", "cluster"), *ticked, ("state", "disabled")]).code == 303
    assert [view.asked for view in pool.snapshot().members] == ["disabled", "disabled"]
    answer = post(app, {"nonce": nonce_of(app), "pool": "cluster", "state": "ready"})
    assert (answer.code, b"Tick at least one member first." in answer.body) == (400, True)


def test_retry_now_takes_a_member_back(pool: BalancerPool) -> None:
    from proxymw.errors import ConnectRefused

    pool.lease({}).finish(ConnectRefused("no"))
    assert pool.snapshot().member(A).health == "down"
    assert change(manager(pool), member=A, retry="now").code == 303
    assert pool.snapshot().member(A).health == "up"


def test_apache_parameters_change_a_member(pool: BalancerPool) -> None:
    app = manager(pool)
    fields = {"w": A, "w_lf": "7", "w_ls": "2", "w_wr": "r1", "w_rr": "r2"}
    status = {"w_status_I": "1", "w_status_N": "0", "w_status_D": "1", "w_status_H": "0", "w_status_S": "0"}
    assert change(app, **fields, **status).code == 303
    view = pool.snapshot().member(A)
    assert (view.weight, view.lbset, view.route, view.redirect) == (7, 2, "r1", "r2")
    assert (view.asked, view.flags) == ("disabled", ("ignore_errors",))
    assert change(app, w=A + "/", w_status_D="0").code == 303
    assert pool.snapshot().member(A).asked == "ready"


def test_apache_parameters_change_a_pool(pool: BalancerPool) -> None:
    fields = {"b_lbm": "bybusyness", "b_tmo": "3", "b_max": "1", "b_sforce": "1", "b_ss": "SID | sid"}
    assert change(manager(pool), **fields).code == 303
    now = pool.snapshot()
    assert (now.method, now.timeout, now.attempts, now.nofailover, now.sticky) == ("bybusyness", 3, 1, True, "SID|sid")
    assert change(manager(pool), b_ss="-").code == 303
    assert pool.snapshot().sticky == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"w": A, "w_lf": "0"},
        {"w": A, "w_lf": "101"},
        {"w": A, "w_lf": "-1"},
        {"w": A, "w_lf": "nan"},
        {"w": A, "w_lf": "\u0661"},
        {"w": A, "w_ls": "100"},
        {"w": A, "w_ls": "9" * 30},
        {"w": A, "w_wr": "a;b"},
        {"w": A, "w_wr": "x" * 64},
        {"w": A, "w_status_D": "2"},
        {"w": A, "state": "gone"},
        {"w": A, "nothing": "1"},
        {"w": "http://127.0.0.1:9999", "w_lf": "1"},
        {"w": A, "member": "nosuch", "w_lf": "1"},
        {"b_lbm": "nosuch"},
        {"b_max": "x"},
        {"b_tmo": "-1"},
        {},
    ],
)
def test_bad_values_are_400_and_change_nothing(pool: BalancerPool, fields: dict[str, str]) -> None:
    before = pool.snapshot().generation
    answer = change(manager(pool), **fields)
    assert answer.code == 400
    assert 'role="alert"' in answer.body.decode()
    assert pool.snapshot().generation == before


# -- forgery -----------------------------------------------------------------------------------------------------


def test_get_with_action_parameters_changes_nothing(pool: BalancerPool, caplog: pytest.LogCaptureFixture) -> None:
    app = manager(pool)
    query = urlencode({"b": "cluster", "w": A, "nonce": nonce_of(app), "w_status_D": "1", "w_lf": "9"})
    before = pool.snapshot().generation
    with caplog.at_level(logging.WARNING, "proxymw.manager"):
        assert get(app, f"/?{query}").code == 200
    assert pool.snapshot().generation == before
    assert [record.getMessage().split()[0] for record in caplog.records] == ["event=mgr_get_ignored"]


def test_one_nonce_is_accepted_by_every_worker(pool: BalancerPool, tmp_path: Any) -> None:
    first, second = (BalancerPool([A, B], name="cluster", state=tmp_path / "table") for _ in range(2))
    token = nonce_of(manager(first))
    try:
        assert post(manager(second), {"nonce": token, "b": "cluster", "w": A, "w_lf": "9"}).code == 303
        assert first.snapshot().member(A).weight == 9
        assert token != nonce_of(manager(pool))
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize("token", [None, "", "0" * 32, "\u00e9", "none", "00000000-0000-0000-0000-000000000000"])
def test_a_wrong_nonce_is_403_with_one_text_whatever_is_wrong(pool: BalancerPool, token: str | None) -> None:
    app = manager(pool)
    fields = {"b": "cluster", "w": A, "w_status_D": "1"} | ({} if token is None else {"nonce": token})
    answer = post(app, fields)
    unknown = post(app, {**fields, "b": "nosuch"})
    foreign = post(app, {**fields, "nonce": nonce_of(app)}, HTTP_ORIGIN="http://evil.invalid")
    assert [reply.code for reply in (answer, unknown, foreign)] == [403] * 3
    assert answer.body == unknown.body == foreign.body
    assert pool.snapshot().member(A).asked == "ready"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 303),  # a script: no browser sends a POST without Origin or Sec-Fetch-Site
        ({"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_ORIGIN": "null"}, 303),
        ({"HTTP_SEC_FETCH_SITE": "none"}, 303),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_REFERER": "http://127.0.0.1:8000/bm/"}, 403),
        ({"HTTP_ORIGIN": "http://127.0.0.1:8000"}, 303),
        ({"HTTP_ORIGIN": "https://127.0.0.1:8000"}, 303),  # TLS ends in front
        ({"HTTP_ORIGIN": "http://127.0.0.1"}, 403),
        ({"HTTP_ORIGIN": "http://127.0.0.1:8001"}, 403),
        ({"HTTP_ORIGIN": "http://127.0.0.1.evil.invalid:8000"}, 403),
        ({"HTTP_ORIGIN": "null"}, 403),
        ({"HTTP_ORIGIN": ""}, 403),
        ({"HTTP_ORIGIN": "http://evil.invalid", "HTTP_REFERER": "http://127.0.0.1:8000/bm/"}, 403),
        ({"HTTP_REFERER": "http://127.0.0.1:8000/bm/"}, 303),
        ({"HTTP_REFERER": "http://evil.invalid/"}, 403),
        ({"HTTP_REFERER": "http://evil.invalid@127.0.0.1:8000/"}, 403),
    ],
)
def test_the_origin_of_a_change_must_be_this_page(pool: BalancerPool, headers: dict[str, str], code: int) -> None:
    app = manager(pool)
    answer = post(app, {"b": "cluster", "w": A, "w_lf": "9", "nonce": nonce_of(app)}, **headers)
    assert answer.code == code
    assert (pool.snapshot().member(A).weight == 9) is (code == 303)


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/json", ""])
def test_only_forms_are_taken_as_forms(pool: BalancerPool, kind: str) -> None:
    app = manager(pool)
    answer = post(app, {"b": "cluster", "w": A, "w_lf": "9", "nonce": nonce_of(app)}, CONTENT_TYPE=kind)
    assert answer.code == 415


class Counting(io.BytesIO):
    """Says how much of it was read."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.total += len(data)
        return data


def test_a_huge_form_is_refused_unread(pool: BalancerPool) -> None:
    body = Counting(b"a=1&" * 50_000)
    answer = post(manager(pool), b"", CONTENT_LENGTH="200000", **{"wsgi.input": body})
    assert (answer.code, body.total) == (413, 0)
    body = Counting(b"a=1&" * 50_000)
    chunked = {"wsgi.input": body, "wsgi.input_terminated": True, "CONTENT_LENGTH": None}
    assert post(manager(pool), b"", **chunked).code == 413
    assert body.total <= 65 * 1024


@pytest.mark.parametrize("data", [b"a=1&" * 101, b"nonce=%ff&b=cluster", b"nonce=\xff", b"a=%00", b"w_wr=a%0d%0ab"])
def test_a_broken_form_is_400(pool: BalancerPool, data: bytes) -> None:
    assert post(manager(pool), data).code == 400


# -- who may see it --------------------------------------------------------------------------------------------------


def test_without_an_allow_list_in_front_it_says_what_is_missing(pool: BalancerPool) -> None:
    bare = BalancerManagerApp([pool])
    for answer in (get(bare), post(bare, {}), get(bare, "/static/manager.css")):
        assert (answer.code, b"IPAllowlist" in answer.body, b"cluster" in answer.body) == (403, True, False)
    assert get(bare, **{"proxymw.allowed": "yes"}).code == 403
    assert get(BalancerManagerApp([pool], allow_unprotected=True)).code == 200


def test_a_client_that_is_not_allowed_sees_nothing(pool: BalancerPool) -> None:
    answer = get(manager(pool), REMOTE_ADDR="192.0.2.7", HTTP_X_FORWARDED_FOR="127.0.0.1")
    assert (answer.code, b"cluster" in answer.body) == (403, False)


def test_read_only_shows_and_refuses_changes(pool: BalancerPool) -> None:
    token = nonce_of(manager(pool))
    app = manager(pool, read_only=True)
    page = get(app, f"/?b=cluster&w={A}").body.decode()
    assert A in page
    assert "<form" not in page
    assert token not in page
    assert "Read only" in page
    assert post(app, {"b": "cluster", "w": A, "w_lf": "9", "nonce": token}).code == 403
    assert pool.snapshot().member(A).weight == 3


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8000", 200),
        ("192.168.1.5", 200),
        ("[::1]:8000", 200),
        ("localhost:8000", 200),
        ("LOCALHOST.", 200),
        ("front.example:8000", 200),
        ("a.lan.example", 200),
        ("lan.example", 403),
        ("rebind.attacker.invalid", 403),
        ("localhost.attacker.invalid", 403),
        ("127.0.0.1.attacker.invalid", 403),
        ("127.0.0.1@evil", (400, 403)),
        ("<script>", (400, 403)),
    ],
)
def test_only_known_hosts_are_answered(pool: BalancerPool, host: str, code: Any) -> None:
    answer = get(manager(pool, hosts=["front.example", "*.lan.example"]), HTTP_HOST=host)
    assert answer.code in (code if isinstance(code, tuple) else (code,))
    assert (b"cluster" in answer.body) is (code == 200)


def test_a_name_that_virtual_hosts_matched_is_known(pool: BalancerPool) -> None:
    app = manager(pool)
    hosts = VirtualHosts({"front.example": app}, default=app)
    assert get(hosts, HTTP_HOST="front.example").code == 200
    assert get(hosts, HTTP_HOST="rebind.attacker.invalid").code == 403


def test_refusals_are_logged_without_what_was_sent(pool: BalancerPool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "proxymw.manager"):
        post(manager(pool), {"nonce": "guess", "b": "cluster"})
    (line,) = [record.getMessage() for record in caplog.records if record.name == "proxymw.manager"]
    assert line.startswith("event=mgr_csrf_token status=403 client=127.0.0.1 method=POST")
    assert "guess" not in line


# -- the constructor ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pools", "options", "message"),
    [
        ("cluster", {}, "pools must be a list of BalancerPool objects, got 'cluster'"),
        ([A], {}, "pools must be a list of BalancerPool objects"),
        ([], {"hosts": "front"}, "hosts must be a list of host names, got 'front'"),
        ([], {"hosts": ["http://x"]}, "hosts must be a host name"),
    ],
)
def test_the_constructor_says_what_it_needs(pools: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        BalancerManagerApp(pools, **options)


def test_pools_of_one_name_cannot_be_told_apart(pool: BalancerPool) -> None:
    with pytest.raises(ConfigError, match="pools must have different names"):
        BalancerManagerApp([pool, BalancerPool([B], name="cluster")])


def test_repr_tells_the_pools(pool: BalancerPool) -> None:
    assert repr(BalancerManagerApp([pool], read_only=True)) == "<BalancerManagerApp cluster read-only>"
