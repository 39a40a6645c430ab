"""Whatever a constructor is given, it takes it or says ``name must be X, got Y``; nobody meets a TypeError."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxymw import (
    AccessLog,
    BalancerManagerApp,
    BalancerPool,
    ClientAddress,
    ConfigError,
    IPAllowlist,
    Member,
    PrefixProxy,
    RewriteCond,
    RewriteProxy,
    RewriteRule,
    StaticOrPass,
    Transport,
    VirtualHosts,
)
from tests.wsgi.calling import call

ORIGIN = "http://127.0.0.1:9"
ODD = [None, 3, -1, 1.5, float("nan"), True, "", "x", b"x", [], {}, (), object(), [None], [3], [b"x"], Path("/nowhere")]


def nothing(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]


STATIC = (
    "index prefix slash_redirect symlinks dotfiles mimetypes charset etag ranges precompressed cache_control immutable "
    "max_age headers offload memory"
)
FORWARDING = "transport preserve_host host connect first_byte between_bytes total websocket max_body retry"
REWRITE = f"document_root server_name maps balancers local reverse cookie_domains cookie_paths {FORWARDING}"
POOL = (
    "name method hash_by sticky nofailover attempts timeout forcerecovery failonstatus failontimeout health probe "
    "threads queue queue_timeout fallback"
)
MEMBER = "loadfactor lbset route redirect status retry timeout connectiontimeout max smax ttl min acquire limit"


def options(make: Callable[..., Any], names: str) -> dict[str, Callable[[Any], Any]]:
    """One constructor call for each option."""
    return {name: lambda odd, name=name: make(**{name: odd}) for name in names.split()}


CONSTRUCTORS: dict[str, Callable[[Any], Any]] = {
    "StaticOrPass root": lambda odd: StaticOrPass(None, odd),
    "PrefixProxy rules": lambda odd: PrefixProxy(None, odd),
    "PrefixProxy rule": lambda odd: PrefixProxy(None, [odd]),
    "PrefixProxy prefix": lambda odd: PrefixProxy(None, [(odd, f"{ORIGIN}/")]),
    "PrefixProxy target": lambda odd: PrefixProxy(None, [("/x/", odd)]),
    "RewriteProxy rules": lambda odd: RewriteProxy(None, odd),
    "RewriteProxy rule": lambda odd: RewriteProxy(None, [odd]),
    "RewriteRule pattern": lambda odd: RewriteRule(odd, "/y"),
    "RewriteRule target": lambda odd: RewriteRule("^/x", odd),
    "RewriteRule flags": lambda odd: RewriteRule("^/x", "/y", flags=odd),
    "RewriteRule conditions": lambda odd: RewriteRule("^/x", "/y", conditions=odd),
    "RewriteCond test": lambda odd: RewriteCond(odd, "x"),
    "RewriteCond pattern": lambda odd: RewriteCond("%{HTTP_HOST}", odd),
    "BalancerPool members": lambda odd: BalancerPool(odd),
    "BalancerPool member": lambda odd: BalancerPool([odd]),
    "Member": lambda odd: Member(odd),
    "IPAllowlist allow": lambda odd: IPAllowlist(None, allow=odd),
    "IPAllowlist deny": lambda odd: IPAllowlist(None, deny=odd),
    "IPAllowlist order": lambda odd: IPAllowlist(None, allow="all", order=odd),
    "BalancerManagerApp pools": lambda odd: BalancerManagerApp(odd),
    "VirtualHosts hosts": lambda odd: VirtualHosts(odd),
    "VirtualHosts app": lambda odd: VirtualHosts({"x.org": odd}),
    "VirtualHosts default": lambda odd: VirtualHosts({"x.org": nothing}, default=odd),
    "ClientAddress trusted": lambda odd: ClientAddress(None, odd),
    "ClientAddress header": lambda odd: ClientAddress(None, "10.0.0.1", header=odd),
    "AccessLog format": lambda odd: AccessLog(None, io.StringIO(), format=odd),
    **options(lambda **given: StaticOrPass(None, "/", **given), STATIC),
    **options(lambda **given: PrefixProxy(None, [("/x/", f"{ORIGIN}/")], **given), FORWARDING),
    **options(lambda **given: RewriteProxy(None, [("^/x/", f"{ORIGIN}/")], **given), REWRITE),
    **options(lambda **given: BalancerPool([ORIGIN], **given), POOL),
    **options(lambda **given: Member(ORIGIN, **given), MEMBER),
    **options(lambda **given: Transport(**given), "connect first_byte between_bytes total size"),
}


@pytest.mark.filterwarnings("ignore::proxymw.errors.ConfigWarning")
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_odd_values_are_taken_or_refused_in_words(name: str) -> None:
    for odd in ODD:
        words = refusal(CONSTRUCTORS[name], odd)
        assert not words or (" must " in words and re.search(", got |got one", words))


def refusal(make: Callable[[Any], Any], odd: Any) -> str:
    """Why ``odd`` is refused; empty where it is not."""
    try:
        make(odd)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        # An unset variable of the environment would have published the folder in which the server was started.
        (lambda: StaticOrPass(None, ""), "root must be an existing folder, got ''"),
        # Three is not 3.0.0.0/8, and the bytes of a text are not addresses.
        (lambda: IPAllowlist(None, allow=[3]), "allow must be IP addresses or networks, got 3"),
        (
            lambda: ClientAddress(None, trusted=b"10.0.0.1"),
            "trusted must be a list of addresses and networks, got b'10",
        ),
        # "no" would be true.
        (lambda: PrefixProxy(None, [], preserve_host="no"), "preserve_host must be True or False, got 'no'"),
        (lambda: BalancerPool([ORIGIN], nofailover="off"), "nofailover must be True or False, got 'off'"),
        (lambda: PrefixProxy(None, [], max_body="10M"), "max_body must be a whole number of at least 0, got '10M'"),
        (lambda: PrefixProxy(None, [], first_byte=float("nan")), "first_byte must be more than 0, got nan"),
        (lambda: PrefixProxy(None, [], transport="http"), "transport must be a Transport, got 'http'"),
        (lambda: PrefixProxy(None, [], retry=3), "retry must be a RetryPolicy, got 3"),
        (lambda: VirtualHosts([("x.org", nothing)]), "hosts must be a mapping"),
        (lambda: Member(ORIGIN, status=True), "member status must be text such as 'drain' or '\\+D', got True"),
        (lambda: RewriteProxy(None, [], cookie_paths=["/a"]), "cookie_paths must be a list of .* pairs, got '/a'"),
    ],
)
def test_what_would_have_been_misunderstood_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("status", "answering"), [("drain", "b"), ("disabled", "b"), ("Standby", "b"), ("ignore_errors", "a"), ("", "a")]
)
def test_a_status_may_be_a_word(status: str, answering: str) -> None:
    def says(name: str) -> Any:
        def app(environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [name.encode()]

        return app

    pool = BalancerPool([Member(says("a"), name="a", status=status), Member(says("b"), name="b")], name=f"s-{status}")
    assert call(pool).body.decode() == answering
