"""Case four: a file that exists is served from disk; everything else goes to the application."""

from __future__ import annotations

import hashlib
import os

import pytest

from tests.live.conftest import reached

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def site(serve, hosts, docroot):
    (docroot / "big").write_bytes(os.urandom(300_000))
    return serve(rf"""
        from proxymw import RewriteProxy, StaticOrPass

        app = StaticOrPass(RewriteProxy(None, [(r"^/(.*)$", "{hosts("app")}/$1")]), {str(docroot)!r})
    """)


def test_a_file_is_served_from_disk(site, docroot):
    assert reached(site.get("/wiki/static/a")) == ("local", "served locally")
    assert site.get("/big").body == (docroot / "big").read_bytes()


def test_head_has_the_headers_of_get(site):
    got, asked = site.get("/big"), site.get("/big", method="HEAD")
    assert (asked.status, asked.body, asked.header("Content-Length")) == (200, b"", "300000")
    assert got.header("ETag") == asked.header("ETag")


def test_conditions_and_ranges(site, docroot):
    whole = site.get("/big")
    assert site.get("/big", headers={"If-None-Match": whole.header("ETag")}).status == 304
    part = site.get("/big", headers={"Range": "bytes=100-199"})
    assert (part.status, part.body) == (206, whole.body[100:200])
    assert part.header("Content-Range") == "bytes 100-199/300000"


@pytest.mark.parametrize("target", ["/", "/wiki/", "/wiki", "/nothing?a=b%20c", "/wiki/static/a/", "/a%2Fb"])
def test_anything_else_reaches_the_application_as_it_was_asked(site, target):
    assert reached(site.get(target)) == ("app", target)


def test_a_body_reaches_the_application(site):
    body = os.urandom(200_000)
    shown = site.get("/form?a=b", method="POST", body=body).json()
    assert (shown["method"], shown["target"], shown["length"]) == ("POST", "/form?a=b", 200_000)
    assert shown["sha256"] == hashlib.sha256(body).hexdigest()


def test_a_chunked_body_reaches_the_application(site):
    shown = site.get("/form", method="PUT", body=(b"x" * 10_000 for _ in range(5))).json()
    assert (shown["length"], shown["sha256"]) == (50_000, hashlib.sha256(b"x" * 50_000).hexdigest())


def test_a_post_to_a_file_reaches_the_application(site):
    assert reached(site.get("/wiki/static/a", method="POST", body=b"x")) == ("app", "/wiki/static/a")


def test_a_new_file_is_seen_at_once_and_so_is_its_end(site, docroot):
    assert reached(site.get("/new.txt"))[0] == "app"
    (docroot / "new.txt").write_text("new")
    assert reached(site.get("/new.txt")) == ("local", "new")
    (docroot / "new.txt").unlink()
    assert reached(site.get("/new.txt"))[0] == "app"


@pytest.mark.parametrize("target", ["/../secret", "/%2e%2e/secret", "/wiki/..%2f..%2f..%2fsecret"])
def test_nothing_outside_the_root_is_served(site, docroot, target):
    (docroot.parent / "secret").write_text("secret")
    assert "secret" not in site.get(target).text.replace(target, "").replace("/secret", "")
