"""What a member may be, and what its status bits mean."""

from __future__ import annotations

import pytest

from proxymw.errors import ConfigError
from proxymw.rules.members import Flag, Member, as_members, asked_state, parse_status, status_words, with_state


def app(environ, start_response):
    return []


@pytest.mark.parametrize(
    ("url", "member_id"),
    [
        ("http://127.0.0.1:9001", "http://127.0.0.1:9001"),
        ("HTTP://Example.ORG:80/Base/", "http://example.org/Base/"),
        ("https://[::1]:8443", "https://[::1]:8443"),
        ("unix:/run/app.sock|http://app/", "unix:/run/app.sock|http://app/"),
    ],
)
def test_a_member_is_known_by_its_normal_url(url, member_id) -> None:
    assert Member(url).id == member_id


def test_a_wsgi_application_is_a_member_known_by_its_name() -> None:
    assert Member(app).id == f"wsgi:{__name__}.app"
    assert Member(app, name="shop").id == "wsgi:shop"
    assert Member(app).origin is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loadfactor": 0}, "loadfactor must be a number between 1 and 100, got 0"),
        ({"loadfactor": 100.01}, "loadfactor must be a number between 1 and 100"),
        ({"loadfactor": "3"}, "loadfactor must be a number between 1 and 100, got '3'"),
        ({"loadfactor": True}, "got True"),
        ({"loadfactor": float("nan")}, "got nan"),
        ({"lbset": 100}, "lbset must be a whole number between 0 and 99, got 100"),
        ({"lbset": -1}, "got -1"),
        ({"route": "r" * 64}, "route must be at most 63"),
        ({"route": "a;b"}, "route must be"),
        ({"redirect": "a b"}, "redirect must be"),
        ({"status": "X"}, "letters D S I R H E N"),
        ({"retry": -1}, "retry must be a number of seconds of at least 0, got -1"),
        ({"retry": None}, "retry must be"),
        ({"timeout": 0}, "timeout must be a number of seconds of at least 0.001, got 0"),
        ({"max": 0}, "max must be a whole number of at least 1, got 0"),
        ({"limit": 0}, "limit must be"),
        ({"ttl": "4"}, "ttl must be"),
        ({"name": "a b"}, "name must be"),
    ],
)
def test_wrong_parameters_are_refused_by_name(options, message) -> None:
    with pytest.raises(ConfigError) as caught:
        Member("http://a", **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("target", [None, 7, "a:9001", "ftp://a", "http://u:p@a", "http://a?q", ""])
def test_wrong_targets_are_refused(target) -> None:
    with pytest.raises(ConfigError):
        Member(target)


def test_loadfactors_keep_two_decimals() -> None:
    assert [Member("http://a", loadfactor=value).lbfactor for value in (1, 2.5, 99.999, 1.15)] == [100, 250, 9999, 115]


def test_a_member_may_be_there_once() -> None:
    with pytest.raises(ConfigError, match="got 'http://a' twice"):
        as_members(["http://a", "HTTP://A:80"])


@pytest.mark.parametrize("members", ["http://a", Member("http://a"), 5])
def test_members_are_a_list(members) -> None:
    with pytest.raises(ConfigError, match="members must be a list"):
        as_members(members)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("", 0),
        ("D", Flag.DISABLED),
        ("+d", Flag.DISABLED),
        ("+D+H", Flag.DISABLED | Flag.STANDBY),
        ("S-E", Flag.STOPPED),
        ("IN", Flag.IGNORE_ERRORS | Flag.DRAIN),
        ("DSH-SH", Flag.DISABLED),
        ("OUGF", 0),
    ],
)
def test_status_letters(text, flags) -> None:
    assert parse_status(text) == flags


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (0, "Init Ok"),
        (Flag.DRAIN, "Init Drn Ok"),
        (Flag.IGNORE_ERRORS | Flag.ERROR, "Init Ign Err"),
        (Flag.DISABLED | Flag.STANDBY, "Init Dis Stby"),
        (Flag.STOPPED, "Init Stop"),
        (Flag.SPARE, "Init Spar Ok"),
        (Flag.CHECK_FAILED, "Init HcFl"),
    ],
)
def test_status_is_shown_in_apaches_words(flags, words) -> None:
    assert status_words(flags) == words


def test_states_replace_each_other_and_leave_the_other_bits() -> None:
    flags = with_state(int(Flag.DISABLED | Flag.IGNORE_ERRORS), "drain")
    assert flags == Flag.DRAIN | Flag.IGNORE_ERRORS
    assert asked_state(flags) == "drain"
    assert asked_state(with_state(flags, "ready")) == "ready"
    with pytest.raises(ConfigError, match="one of ready, drain, disabled, standby, spare, got 'off'"):
        with_state(0, "off")
