"""Case three: only some requests go to a back end."""

from __future__ import annotations

import pytest

from tests.live.conftest import reached

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def six(serve, hosts, docroot):
    """The guide's second listing, and the rule of its first one, in the guide's order."""
    return serve(rf"""
        from proxymw import RewriteProxy, StaticOrPass

        app = RewriteProxy(StaticOrPass(None, {str(docroot)!r}), [
            (r"^/(.*)\.js$", "{hosts("static")}/javascript/$1.js"),
            (r"^/(.*)\.css$", "{hosts("static")}/styles/$1.css"),
            (r"^/(.*)\.jpg$", "{hosts("static")}/images/$1.jpg"),
            (r"^/blog/(.*)\.php$", "{hosts("app")}/wordpress/$1.php"),
            (r"^/wiki/(.*)$", "{hosts("app")}/mediawiki/$1"),
        ])
    """)


@pytest.fixture(scope="module")
def single(serve, hosts, docroot):
    (docroot / "blog").mkdir(exist_ok=True)
    (docroot / "blog" / "index.html").write_text("the blog's folder")
    (docroot / "blog" / "screen.css").write_text("body {}")
    return serve(rf"""
        from proxymw import RewriteProxy, StaticOrPass

        app = RewriteProxy(StaticOrPass(None, {str(docroot)!r}, index=("index.html",)), [
            (r"^/blog/(.*)\.php$", "{hosts("app")}/blog/$1.php"),
        ])
    """)


@pytest.mark.parametrize(
    ("target", "origin", "arrived"),
    [
        ("/toggle.js", "static", "/javascript/toggle.js"),
        ("/blog/js/functions.js", "static", "/javascript/blog/js/functions.js"),
        ("/wordpress/style.css", "static", "/styles/wordpress/style.css"),
        ("/a/duck.jpg", "static", "/images/a/duck.jpg"),
        ("/blog/index.php", "app", "/wordpress/index.php"),
        ("/blog/archive/index.php", "app", "/wordpress/archive/index.php"),
        ("/wiki/index.php", "app", "/mediawiki/index.php"),
        ("/wiki/info/about.html", "app", "/mediawiki/info/about.html"),
        ("/wiki/", "app", "/mediawiki/"),
        # The first match is taken even if a later rule is more precise.
        ("/wiki/skin.css", "static", "/styles/wiki/skin.css"),
        # The query goes along when the target has none of its own.
        ("/blog/index.php?p=1&q=%2F", "app", "/wordpress/index.php?p=1&q=%2F"),
    ],
)
def test_rewritten_to_a_back_end(six, target, origin, arrived):
    assert reached(six.get(target)) == (origin, arrived)


@pytest.mark.parametrize("target", ["/blog/", "/blog", "/toggle.jsx", "/index.php", "/wiki"])
def test_matched_by_no_rule(six, target):
    assert six.get(target).status == 404


@pytest.mark.parametrize(
    ("target", "origin", "arrived"),
    [
        ("/blog/index.php", "app", "/blog/index.php"),
        ("/blog/archive/index.php", "app", "/blog/archive/index.php"),
        ("/blog/", "local", "the blog's folder"),
        ("/blog/screen.css", "local", "body {}"),
    ],
)
def test_the_single_rule_takes_php_alone(single, target, origin, arrived):
    assert reached(single.get(target)) == (origin, arrived)


@pytest.mark.parametrize(("target", "status"), [("/blog/a%3Fb.php", 403), ("/blog/a%0d%0ab.php", 400)])
def test_a_capture_cannot_break_out_of_the_path(six, target, status):
    assert six.get(target).status == status


def test_a_capture_cannot_choose_the_host(six):
    assert reached(six.get("/wiki/@evil.example/")) == ("app", "/mediawiki/@evil.example/")


def test_a_body_goes_along(six):
    shown = six.get("/blog/post.php", method="POST", body=b"title=duck").json()
    assert (shown["method"], shown["target"], shown["length"]) == ("POST", "/wordpress/post.php", 10)
