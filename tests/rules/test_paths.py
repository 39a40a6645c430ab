"""The canonical path: one reading of every target, and the client's own spelling of it."""

from urllib.parse import unquote

import pytest

from proxymw.errors import RequestRefused
from proxymw.rules.paths import RoutePath, lax_readings, query_suffix, quote_path, route_path
from proxymw.rules.policy import Policy

MODERN = Policy.modern()
APACHE = Policy.apache()


def of(target: str, *, script: str = "", policy: Policy = MODERN, raw: bool = True) -> RoutePath:
    """What a server makes of ``target``: PATH_INFO decoded once, RAW_URI as sent."""
    full = unquote(target.partition("?")[0], encoding="latin-1")
    assert full.startswith(script)
    return route_path(full[len(script) :], script, target if raw else None, policy=policy)


def status(target: str, policy: Policy = MODERN) -> int:
    with pytest.raises(RequestRefused) as refused:
        of(target, policy=policy)
    return refused.value.status


@pytest.mark.parametrize(
    ("target", "path", "sent"),
    [
        ("/", "/", "/"),
        ("/static/screen.css?v=1", "/static/screen.css", "/static/screen.css"),
        ("/up/a%2Fb", "/up/a/b", "/up/a%2Fb"),
        ("/up/a%2fb%7Ec", "/up/a/b~c", "/up/a%2fb%7Ec"),
        ("/a[1]", "/a[1]", "/a[1]"),
        ("/caf%c3%A9", "/caf\xc3\xa9", "/caf%c3%A9"),
        ("/a//b", "/a/b", "/a//b"),
        ("//a", "/a", "/a"),
        ("/%2Fa", "/a", "/a"),
        ("/a/./b/.", "/a/b/", "/a/b/"),
        ("/a/../b", "/b", "/b"),
        ("/a//../%62", "/b", "/%62"),
        ("/a/b/..", "/a/", "/a/"),
        ("/a/%2e%2E/%62", "/b", "/%62"),
        ("/a/.%2e/b", "/b", "/b"),
        ("/a..b/..c/...", "/a..b/..c/...", "/a..b/..c/..."),
        # Two readings of one target: only the resolved one is real, so the spelling is ours.
        ("/up/a%2f..%2fprivate/x", "/up/private/x", "/up/private/x"),
        ("/a/%2F/../%62", "/b", "/b"),
        ("/%252e%252e/x", "/%2e%2e/x", "/%252e%252e/x"),
        ("http://other.example/a%2Fb?c", "/a/b", "/a%2Fb"),
        ("http://other.example", "/", "/"),
        ("/a\xfcb", "/a\xfcb", "/a%FCb"),
        # Not URI characters, so no origin may see them bare, whatever the client did.
        ('/a"<>\\^`{|}', '/a"<>\\^`{|}', "/a%22%3C%3E%5C%5E%60%7B%7C%7D"),
    ],
)
def test_path_and_spelling(target: str, path: str, sent: str) -> None:
    info = target.partition("?")[0]
    if info.startswith("http:"):
        info = info[len("http://other.example") :]
    route = route_path(unquote(info, encoding="latin-1"), "", target, policy=MODERN)
    assert (route.path, route.raw) == (path, sent)
    assert route.spell(0) == sent


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/..", 400),
        ("/../x", 400),
        ("/%2e%2e/x", 400),
        ("/a/../../x", 400),
        ("/a%", 400),
        ("/a%2", 400),
        ("/a%zz", 400),
        ("/a%u0041", 400),
        ("/a%00b", 404),
        ("/a%0d%0ab", 400),
        ("/a%7f", 400),
        ("/a#b", 400),
        ("/a?b#c", 400),
    ],
)
@pytest.mark.parametrize("policy", [MODERN, APACHE], ids=["modern", "apache"])
def test_what_cannot_be_mapped_is_refused(target: str, code: int, policy: Policy) -> None:
    if policy is APACHE and target in ("/a%0d%0ab", "/a%7f"):
        path = unquote(target, encoding="latin-1")
        assert route_path(path, raw_target=target, policy=policy).raw == target.upper().replace("/A", "/a", 1).replace(
            "AB", "Ab"
        )
        return
    assert status(target, policy) == code


def test_a_path_that_does_not_start_with_a_slash_is_refused() -> None:
    for info in ("*", "@evil/p", "80", "a/b"):
        with pytest.raises(RequestRefused):
            route_path(info, "", info, policy=MODERN)


def test_characters_that_no_server_can_have_read_are_refused() -> None:
    with pytest.raises(RequestRefused):
        route_path("/caf\u20ac", "", None, policy=MODERN)


def test_broken_escapes_in_the_query_are_none_of_our_business() -> None:
    assert of("/a?b=%zz&c=%").path == "/a"


@pytest.mark.parametrize(
    ("decoded", "sent"),
    [
        ("/a b", "/a%20b"),
        ("/100%", "/100%25"),
        ("/a?b", "/a%3Fb"),
        ("/a;b=c", "/a;b=c"),
        ("/caf\xc3\xa9", "/caf%C3%A9"),
        ("/a[1]", "/a%5B1%5D"),
        ("/~$-_.+!*'(),;:@&=", "/~$-_.+!*'(),;:@&="),
        ('/"#<>\\^`{|}', "/%22%23%3C%3E%5C%5E%60%7B%7C%7D"),
    ],
)
def test_quoting_is_apaches(decoded: str, sent: str) -> None:
    assert quote_path(decoded) == sent
    assert route_path(decoded, "", None, policy=MODERN).raw == sent


def test_without_a_raw_target_the_path_is_requoted() -> None:
    assert of("/a%2Fb%7Ec", raw=False).raw == "/a/b~c"


def test_a_raw_target_of_another_path_is_not_believed() -> None:
    route = route_path("/rewritten path", "", "/original", policy=MODERN)
    assert route.raw == "/rewritten%20path"


def test_apache_decodes_and_encodes_again() -> None:
    assert of("/%41%7e[1]//x", policy=APACHE).raw == "/A~%5B1%5D/x"
    assert of("/a%5Cb c", policy=APACHE).spell(1) == "a%5Cb%20c"


def test_encoded_slashes_under_each_setting() -> None:
    refuse, decode, nodecode = (MODERN.but(encoded_slash=how) for how in ("refuse", "decode", "nodecode"))
    assert status("/a%2Fb", refuse) == 404
    assert of("/a/b", policy=refuse).path == "/a/b"
    assert (of("/a%2Fb", policy=decode).path, of("/a%2Fb", policy=decode).raw) == ("/a/b", "/a/b")
    route = of("/p/%2e%2e%2fhello%20", policy=nodecode)
    assert (route.path, route.raw) == ("/p/..%2fhello ", "/p/..%2fhello%20")
    assert route.spell(3) == "..%2fhello%20"
    # A lone "%" matches, but cannot be sent: it could be the start of an escape.
    ambiguous = of("/a%2Fb%25", policy=nodecode)
    assert ambiguous.path == "/a%2Fb%"
    with pytest.raises(RequestRefused) as refused:
        ambiguous.spell(1)
    assert refused.value.status == 400


def test_a_refused_slash_of_a_rewritten_path_is_not_held_against_it() -> None:
    assert route_path("/elsewhere", "", "/a%2Fb", policy=APACHE).path == "/elsewhere"


def test_slash_runs_stay_where_the_policy_keeps_them() -> None:
    keep = MODERN.but(merge_slashes=False)
    route = of("/a//../%62", policy=keep)
    assert (route.path, route.raw) == ("/a/b", "/a/%62")
    assert of("//a//b", policy=keep).path == "//a//b"


def test_below_a_mount_the_path_is_relative() -> None:
    route = of("/app/a%2Fb", script="/app")
    assert (route.path, route.raw) == ("/a/b", "/a%2Fb")
    assert route_path("/b", "/%app", "/%25app/%62", policy=MODERN).raw == "/%62"
    assert route_path("", "/app", "/app", policy=MODERN).path == "/"
    assert route_path("/x", "/app", "/app%2Fx", policy=MODERN).raw == "/x"


def test_spelling_of_a_part() -> None:
    route = of("/up/a%2Fb%7e//c")
    assert route.path == "/up/a/b~/c"
    assert route.spell(4) == "a%2Fb%7e//c"
    assert route.spell(4, 8) == "a%2Fb%7e"
    assert route.spell(5, 6) == "%2F"
    assert route.spell(9) == "c"
    assert route.spell(10) == ""
    assert route.spell(6, 6) == ""


def test_the_query_goes_on_byte_for_byte() -> None:
    assert query_suffix("a=%zz&b=[/../]") == "?a=%zz&b=[/../]"
    assert query_suffix("", "/x") == ""
    assert query_suffix("", "/x?") == "?"
    for unsafe in ("a b", "a\r\nb", "a\x00", "\x7f"):
        with pytest.raises(RequestRefused) as refused:
            query_suffix(unsafe)
        assert refused.value.status == 403


@pytest.mark.parametrize(
    ("path", "reading"),
    [
        ("/up/private;a=b/x", "/up/private/x"),
        ("/up/private\\x", "/up/private/x"),
        ("/up/%70rivate/x", "/up/private/x"),
        ("/up/a/..;/private/x", "/up/private/x"),
        ("/up/a\\..\\private", "/up/private"),
        ("/up/a/%2e%2e;x/private", "/up/private"),
        ("/up/../../..;/x", "/x"),
    ],
)
def test_how_a_sloppy_origin_could_read_a_path(path: str, reading: str) -> None:
    assert reading in set(lax_readings(path))


def test_an_ordinary_path_has_one_reading() -> None:
    assert list(lax_readings("/up/private/x")) == []


def test_the_representation_says_both() -> None:
    assert repr(of("/a%2Fb")) == "<RoutePath '/a/b' sent as '/a%2Fb'>"
    assert repr(of("/a")) == "<RoutePath '/a'>"


def test_an_encoded_slash_that_would_climb_is_refused_as_each_dialect_does() -> None:
    for policy, status in ((Policy.modern(), 400), (Policy.apache(), 404)):
        with pytest.raises(RequestRefused) as caught:
            route_path("/a/../../x", raw_target="/a%2f..%2f..%2fx", policy=policy)
        assert caught.value.status == status
