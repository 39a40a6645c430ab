"""RFC 9110 section 13.2.2 and Apache's ap_meets_conditions, as tables; dates; entity tags."""

from __future__ import annotations

from email.utils import format_datetime, formatdate, parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxymw.rules.conditional import (
    Preconditions,
    any_match,
    entity_tags,
    evaluate,
    http_date,
    parse_date,
    range_applies,
)

MODIFIED = 1_582_165_220  # Thu, 20 Feb 2020 02:20:20 GMT
NOW = MODIFIED + 1_000_000
TAG = '"25-59ef88bea0100"'
SAME = "Thu, 20 Feb 2020 02:20:20 GMT"
BEFORE = "Wed, 19 Feb 2020 02:20:20 GMT"
AFTER = "Fri, 21 Feb 2020 02:20:20 GMT"
FUTURE = "Fri, 21 Feb 2099 02:20:20 GMT"


def ask(apache: bool = False, *, safe: bool = True, now: int = NOW, etag: str = TAG, **fields: str) -> int:
    return evaluate(Preconditions(**fields), safe=safe, etag=etag, modified=MODIFIED, now=now, apache=apache)


@pytest.mark.parametrize(
    ("fields", "modern", "apache"),
    [
        ({}, 200, 200),
        ({"if_match": TAG}, 200, 200),
        ({"if_match": "*"}, 200, 200),
        ({"if_match": f'"nope", {TAG}'}, 200, 200),
        ({"if_match": "W/" + TAG}, 412, 412),  # strong comparison
        ({"if_match": '"nope"'}, 412, 412),
        ({"if_match": TAG.strip('"')}, 412, 412),
        ({"if_match": ""}, 412, 412),
        ({"if_none_match": TAG}, 304, 304),
        ({"if_none_match": "W/" + TAG}, 304, 304),
        ({"if_none_match": "*"}, 304, 304),
        ({"if_none_match": f'"a",,{TAG}'}, 304, 304),
        ({"if_none_match": '"a","b"'}, 200, 200),
        ({"if_none_match": TAG.strip('"')}, 200, 200),
        ({"if_none_match": '"'}, 200, 200),
        ({"if_none_match": ""}, 200, 200),
        ({"if_modified_since": SAME}, 304, 304),
        ({"if_modified_since": AFTER}, 304, 304),
        ({"if_modified_since": BEFORE}, 200, 200),
        ({"if_modified_since": FUTURE}, 304, 200),  # httpd takes a date in the future for none
        ({"if_modified_since": "yesterday"}, 200, 200),
        ({"if_modified_since": ""}, 200, 200),
        ({"if_unmodified_since": SAME}, 200, 200),
        ({"if_unmodified_since": BEFORE}, 412, 412),
        ({"if_unmodified_since": "junk"}, 200, 200),
        # An If-Match outweighs If-Unmodified-Since in the RFC; httpd asks both.
        ({"if_match": TAG, "if_unmodified_since": BEFORE}, 200, 412),
        # If-None-Match outweighs If-Modified-Since in the RFC; httpd wants both to say so.
        ({"if_none_match": TAG, "if_modified_since": BEFORE}, 304, 200),
        ({"if_none_match": '"nope"', "if_modified_since": AFTER}, 200, 200),
        ({"if_none_match": TAG, "if_modified_since": SAME}, 304, 304),
        ({"if_match": TAG, "if_none_match": TAG}, 304, 304),
        ({"if_match": '"nope"', "if_none_match": TAG}, 412, 412),
        ({"if_unmodified_since": AFTER, "if_modified_since": AFTER}, 304, 200),
        # The range is looked at afterwards, except that httpd then compares strongly and lets If-Range win.
        ({"if_none_match": TAG, "range": "bytes=0-1"}, 304, 304),
        ({"if_none_match": "W/" + TAG, "range": "bytes=0-1"}, 304, 200),
        ({"if_none_match": TAG, "range": "bytes=0-1", "if_range": TAG}, 304, 200),
    ],
)
def test_preconditions_of_a_get(fields: dict[str, str], modern: int, apache: int) -> None:
    assert ask(**fields) == modern
    assert ask(apache=True, **fields) == apache


@pytest.mark.parametrize("apache", [False, True])
def test_an_unsafe_method_is_stopped_rather_than_told_that_nothing_changed(apache: bool) -> None:
    assert ask(apache, safe=False, if_none_match=TAG) == 412
    assert ask(apache, safe=False, if_modified_since=AFTER) == 200


def test_without_an_entity_tag_only_the_star_matches() -> None:
    for apache in (False, True):
        assert ask(apache, etag="", if_none_match=TAG) == 200
        assert ask(apache, etag="", if_none_match="*") == 304
        assert ask(apache, etag="", if_match=TAG) == 412


def test_apache_does_not_judge_a_range_of_a_young_file_by_dates() -> None:
    young = MODIFIED + 59
    assert ask(True, now=young, if_modified_since=SAME, range="bytes=0-1") == 200
    assert ask(True, now=young, if_unmodified_since=BEFORE, range="bytes=0-1") == 200
    assert ask(True, now=young + 1, if_modified_since=SAME, range="bytes=0-1") == 304
    assert ask(True, now=young, if_modified_since=SAME) == 304


@pytest.mark.parametrize(
    ("if_range", "etag", "now", "modern", "apache"),
    [
        (None, TAG, NOW, True, True),
        (TAG, TAG, NOW, True, True),
        ('"nope"', TAG, NOW, False, False),
        ("W/" + TAG, TAG, NOW, False, False),
        ("W/" + TAG, "W/" + TAG, NOW, False, False),
        (TAG, "W/" + TAG, NOW, False, False),
        (SAME, TAG, NOW, True, True),
        (SAME, TAG, MODIFIED + 59, True, False),
        (SAME, TAG, MODIFIED, False, False),
        (AFTER, TAG, NOW, False, False),  # exact or nothing, also when it is later
        (BEFORE, TAG, NOW, False, False),
        ("junk", TAG, NOW, False, False),
        ("", TAG, NOW, False, False),
    ],
)
def test_if_range(if_range: str | None, etag: str, now: int, modern: bool, apache: bool) -> None:
    asked = Preconditions(range="bytes=0-1", if_range=if_range)
    assert range_applies(asked, etag=etag, modified=MODIFIED, now=now, apache=False) is modern
    assert range_applies(asked, etag=etag, modified=MODIFIED, now=now, apache=True) is apache


def test_no_range_no_range() -> None:
    assert not range_applies(Preconditions(if_range=TAG), etag=TAG, modified=MODIFIED, now=NOW, apache=False)


@pytest.mark.parametrize(
    "text", [SAME, "Thursday, 20-Feb-20 02:20:20 GMT", "Thu Feb 20 02:20:20 2020", "Mon, 20 Feb 2020 02:20:20 GMT"]
)
def test_the_three_forms_of_a_date(text: str) -> None:
    assert parse_date(text, NOW) == MODIFIED


def test_a_two_digit_year_far_ahead_is_of_the_past_century() -> None:
    assert parse_date("Sunday, 06-Nov-94 08:49:37 GMT", NOW) == 784111777
    assert parse_date("Sun Nov  6 08:49:37 1994", NOW) == 784111777


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Thu, 20 Feb 2020 02:20:20",
        "Thu, 20 Feb 99999 02:20:20 GMT",
        "Thu, 31 Feb 2020 02:20:20 GMT",
        "Thu, 20 Feb 2020 25:20:20 GMT",
        "Fri, 16 Jul 2021 09:09:1626426577S GMT",
        "Thu, 20 Feb 0000 02:20:20 GMT",
        "Thu, ²0 Feb 2020 02:20:20 GMT",
        "1582165220",
        SAME + "\n",
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert parse_date(text, NOW) is None


@given(st.integers(-62135596800, 253402300799))
def test_dates_are_written_and_read_as_the_standard_library_does(seconds: int) -> None:
    text = http_date(seconds)
    assert parse_date(text, NOW) == seconds
    if seconds >= 0:
        assert text == formatdate(seconds, usegmt=True) == format_datetime(parsedate_to_datetime(text), usegmt=True)


def test_a_time_beyond_the_calendar_is_clamped() -> None:
    assert http_date(10**18) == "Fri, 31 Dec 9999 23:59:59 GMT"
    assert http_date(-(10**18)) == "Mon, 01 Jan 0001 00:00:00 GMT"


def test_a_list_of_tags_ends_where_it_is_malformed() -> None:
    assert list(entity_tags('"a" , W/"b",,"c,d", nope, "e"')) == [(False, '"a"'), (True, '"b"'), (False, '"c,d"')]
    assert list(entity_tags('"a" "b"')) == []


@given(st.text(st.sampled_from('"W/a, *\t'), max_size=40))
def test_no_list_of_tags_breaks_the_reader(text: str) -> None:
    for weak, tag in entity_tags(text):
        assert ("W/" if weak else "") + tag in text
    assert not any_match(text, '"zz"', strong=False)
