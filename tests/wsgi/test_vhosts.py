"""VirtualHosts: names, aliases, wildcards, and the first match."""

from __future__ import annotations

from typing import Any

import pytest

from proxymw.accesslog import AccessLog
from proxymw.errors import ConfigError, RequestRefused
from proxymw.vhosts import VirtualHosts
from tests.wsgi.calling import call, echo_environ


def named(name: str) -> Any:
    return echo_environ([], X_Site=name)


HOSTS = VirtualHosts(
    {
        ("ducklington.org", "www.ducklington.org"): named("main"),
        "static.ducklington.org": named("static"),
        ("wild.example", "*.wild.example", "w?ld.test"): named("wild"),
        ("late.wild.example", "late.example"): named("late"),
        "[2001:db8::1]": named("six"),
    }
)


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("ducklington.org", "main"),
        ("DUCKLINGTON.org:8080", "main"),
        ("www.ducklington.org.", "main"),
        ("www.ducklington.org.:1", "main"),
        ("static.ducklington.org", "static"),
        ("wild.example", "wild"),
        ("a.b.wild.example", "wild"),
        (".wild.example", "wild"),
        ("w1ld.test", "wild"),
        ("wld.test", "main"),
        ("late.wild.example", "wild"),  # the wildcard stands before the exact name
        ("late.example", "late"),
        ("[2001:DB8:0::1]:80", "six"),
        ("xducklington.org", "main"),
        ("unknown.example", "main"),
        ("127.0.0.1:8000", "main"),
    ],
)
def test_the_first_host_with_a_matching_name_answers(host: str, site: str) -> None:
    assert call(HOSTS, HTTP_HOST=host)["X-Site"] == site


def test_the_names_that_matched_are_told() -> None:
    answer = call(HOSTS, HTTP_HOST="A.wild.example:99")
    assert answer.environ["proxymw.host"] == "*.wild.example"
    assert answer.environ["proxymw.server_name"] == "wild.example"
    answer = call(HOSTS, HTTP_HOST="elsewhere.example")
    assert "proxymw.host" not in answer.environ


@pytest.mark.parametrize(
    "host", ["a/b", "a b", "a,b", "", "user@ducklington.org", "[::1", "a..b", "1.2.3", "a:b", "ducklington.org:99999"]
)
def test_a_host_that_is_none_is_400(host: str) -> None:
    seen: list[Any] = []
    assert call(VirtualHosts({"a": echo_environ(seen)}), HTTP_HOST=host).code == 400
    assert seen == []


def test_no_host_goes_to_the_default_in_http_1_0_and_nowhere_in_1_1() -> None:
    assert call(HOSTS, HTTP_HOST=None, SERVER_PROTOCOL="HTTP/1.0")["X-Site"] == "main"
    assert call(HOSTS, HTTP_HOST=None).code == 400


def test_the_default_may_be_another_application() -> None:
    hosts = VirtualHosts({"a.example": named("a")}, default=named("other"))
    assert call(hosts, HTTP_HOST="b.example")["X-Site"] == "other"
    assert call(hosts, HTTP_HOST="a.example")["X-Site"] == "a"


def test_none_is_nothing_there() -> None:
    assert call(VirtualHosts({"a.example": None}), HTTP_HOST="a.example").code == 404


def test_a_bad_host_is_logged_where_the_default_logs(tmp_path: Any) -> None:
    log = tmp_path / "default.log"
    hosts = VirtualHosts({"a.example": AccessLog(named("a"), log)})
    assert call(hosts, HTTP_HOST="a/b").code == 400
    assert '"GET / HTTP/1.1" 400' in log.read_text()


def test_match_is_the_decision_alone() -> None:
    one, two = named("one"), named("two")
    hosts = VirtualHosts({"one.example": one, "two.example": two})
    assert hosts.match("TWO.example:80") is two
    assert hosts.match("x.example") is one
    assert hosts.match(None) is one
    with pytest.raises(RequestRefused) as caught:
        hosts.match("a b")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (({},), "^hosts must be "),
        (({"http://a": None},), "^name must be a host name without scheme"),
        (({(): None},), "^names must be "),
        (({"a": 5},), "^application of a must be "),
    ],
)
def test_bad_configuration_is_said_at_once(arguments: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        VirtualHosts(*arguments)


def test_a_thousand_exact_names_cost_one_look_up() -> None:
    hosts = VirtualHosts({f"h{n}.example": named(str(n)) for n in range(1000)})
    assert hosts._wild == []
    assert call(hosts, HTTP_HOST="h999.example")["X-Site"] == "999"


def test_repr_lists_the_server_names() -> None:
    assert repr(VirtualHosts({("a.example", "b.example"): None, "c.example": None})).startswith(
        "<VirtualHosts a.example, c.example, default "
    )
