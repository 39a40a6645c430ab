"""ErrorPages: whose errors get whose pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxymw.allow import IPAllowlist
from proxymw.errorpages import ErrorPages
from proxymw.errors import ConfigError
from proxymw.exchange.inbound import answer
from tests.wsgi.calling import call, request

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEN: list[dict[str, Any]] = []
CLOSED: list[str] = []


class Body:
    def __init__(self, text: bytes) -> None:
        self.text = text

    def __iter__(self) -> Iterator[bytes]:
        yield self.text

    def close(self) -> None:
        CLOSED.append(self.text.decode())


def site(environ: dict[str, Any], start_response: Any) -> Any:
    """Our own 404 and 405, an application's 404 and 503, and a page for errors."""
    SEEN.append(environ)
    match environ["PATH_INFO"]:
        case "/errors/404.html":
            start_response("200 OK", [("Content-Type", "text/html"), ("ETag", '"x"'), ("Last-Modified", "x")])
            return Body(b"<h1>not here</h1>")
        case "/errors/broken.html":
            return answer(environ, start_response, 404)
        case "/errors/late.html":
            return late(environ, start_response)
        case "/app404":
            start_response("404 Not Found", [("Content-Type", "text/x"), ("X-App", "1")])
            return Body(b"the application's own")
        case "/late503":
            return late(environ, start_response, "503 Service Unavailable")
        case "/405":
            return answer(environ, start_response, 405, allow="GET")
        case "/ok":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return Body(b"fine")
        case "/403":
            return answer(environ, start_response, 403)
        case "/401":
            return answer(environ, start_response, 401, headers=[("WWW-Authenticate", "Basic")])
    return answer(environ, start_response, 404)


def late(environ: dict[str, Any], start_response: Any, status: str = "200 OK") -> Any:
    start_response(status, [("Content-Type", "text/plain")])
    yield b"late"


PAGES = {404: "/errors/404.html", 405: "<b>no</b>", 403: "https://e.example/denied", 401: "who?", 503: "custom 503"}


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()
    CLOSED.clear()


def test_a_local_page_is_shown_with_the_status_of_the_error() -> None:
    result = call(ErrorPages(site, PAGES), "/missing?q=1", HTTP_RANGE="bytes=0-1", HTTP_IF_NONE_MATCH='"x"')
    assert (result.status, result.body) == ("404 Not Found", b"<h1>not here</h1>")
    assert (result["ETag"], result["Last-Modified"]) == (None, None)
    inner = SEEN[-1]
    assert (inner["REQUEST_METHOD"], inner["PATH_INFO"], inner["QUERY_STRING"]) == ("GET", "/errors/404.html", "")
    assert (inner["REDIRECT_STATUS"], inner["REDIRECT_URL"]) == ("404", "/missing")
    assert "HTTP_RANGE" not in inner
    assert "HTTP_IF_NONE_MATCH" not in inner
    assert CLOSED == ["<h1>not here</h1>"]


def test_a_post_gets_the_page_by_get_and_without_its_body() -> None:
    result = call(ErrorPages(site, PAGES), "/missing", "POST", CONTENT_LENGTH="3", CONTENT_TYPE="a/b")
    assert result.body == b"<h1>not here</h1>"
    assert (SEEN[-1]["REQUEST_METHOD"], SEEN[-1]["CONTENT_LENGTH"]) == ("GET", "")


def test_a_text_and_a_url() -> None:
    result = call(ErrorPages(site, PAGES), "/405")
    assert (result.code, result.body, result["Allow"]) == (405, b"<b>no</b>", "GET")
    assert result["Content-Type"] == "text/html; charset=utf-8"
    assert result["Content-Length"] == "9"
    result = call(ErrorPages(site, PAGES), "/403")
    assert (result.code, result["Location"]) == (302, "https://e.example/denied")
    assert call(ErrorPages(site, PAGES), "/401")["WWW-Authenticate"] == "Basic"


def test_head_gets_no_body() -> None:
    for path in ("/405", "/missing"):
        start: list[Any] = []
        body = ErrorPages(site, PAGES)(request(path, "HEAD"), lambda status, headers, start=start: start.append(status))
        if path == "/405":
            assert b"".join(body) == b""
        assert start == ["405 Method Not Allowed" if path == "/405" else "404 Not Found"]
        assert SEEN[-1]["REQUEST_METHOD"] == "HEAD"


def test_what_an_application_says_is_its_own() -> None:
    result = call(ErrorPages(site, PAGES), "/app404")
    assert (result.code, result.body, result["X-App"]) == (404, b"the application's own", "1")
    assert call(ErrorPages(site, PAGES), "/late503").body == b"late"
    assert call(ErrorPages(site, PAGES), "/ok").body == b"fine"


def test_override_takes_what_others_say_too() -> None:
    result = call(ErrorPages(site, PAGES, override=True), "/app404")
    assert (result.code, result.body, result["X-App"]) == (404, b"<h1>not here</h1>", None)
    assert CLOSED == ["the application's own", "<h1>not here</h1>"]
    assert call(ErrorPages(site, PAGES, override=True), "/late503").body == b"custom 503"
    assert call(ErrorPages(site, PAGES, override=[500, 503]), "/app404").body == b"the application's own"
    assert call(ErrorPages(site, PAGES, override=[500, 503]), "/late503").body == b"custom 503"
    assert call(ErrorPages(site, PAGES, override=True), "/ok").body == b"fine"


def test_override_without_a_page_shows_a_plain_one() -> None:
    result = call(ErrorPages(site, {}, override=True), "/app404")
    assert (result.code, result.body) == (404, b"404 Not Found\n")


@pytest.mark.parametrize("page", ["/errors/broken.html", "/missing"])
def test_a_page_that_fails_itself_gives_way_to_the_plain_one(page: str) -> None:
    result = call(ErrorPages(site, {404: page}), "/nothing")
    assert (result.code, result.body) == (404, b"404 Not Found\n")
    assert len(SEEN) == 2  # no third try


def test_a_page_may_come_late() -> None:
    result = call(ErrorPages(site, {404: "/errors/late.html"}), "/nothing")
    assert (result.code, result.body) == (404, b"late")


def test_a_guard_behind_gets_its_page() -> None:
    result = call(ErrorPages(IPAllowlist(site, "10.0.0.1"), {403: "go away"}))
    assert (result.code, result.body) == (403, b"go away")


def test_concerns_is_the_decision_alone() -> None:
    pages = ErrorPages(site, PAGES, override=[500])
    assert pages.concerns(404, ours=True)
    assert not pages.concerns(404, ours=False)
    assert pages.concerns(500, ours=False)
    assert not pages.concerns(200, ours=True)


def test_an_application_that_fails_fails() -> None:
    def broken(environ: Any, start_response: Any) -> Any:
        raise RuntimeError("bug")
        yield b""

    with pytest.raises(RuntimeError, match="bug"):
        call(ErrorPages(broken, PAGES))


@pytest.mark.parametrize(
    ("pages", "override", "says"),
    [
        ({200: "x"}, False, "^pages must be by status of 400 to 599"),
        ({"404": "x"}, False, "^pages must be by status"),
        ({404: ""}, False, "^pages must be texts"),
        ({401: "http://e.example/"}, False, "^pages must not send a 401"),
        ({}, [200], "^override must be True or statuses"),
    ],
)
def test_bad_configuration_is_said_at_once(pages: Any, override: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ErrorPages(site, pages, override=override)


def test_repr_lists_the_statuses() -> None:
    assert repr(ErrorPages(site, {404: "a", 403: "b"}, override=True)).startswith("<ErrorPages 403, 404 override -> ")
