"""Conditional requests: which of 200, 304 and 412 a precondition asks for, and whether ``Range`` still counts.

Two dialects: RFC 9110 section 13.2.2, and what Apache httpd 2.4 does (which ANDs If-None-Match and If-Modified-Since).
Times are whole seconds since the epoch, ``now`` is an argument, entity tags are written as in the header field.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Verdict = Literal[200, 304, 412]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = int((datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH).total_seconds())
_FIRST = int((datetime(1, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())

_CLOCK = r"(?P<h>[0-9]{2}):(?P<m>[0-9]{2}):(?P<s>[0-9]{2})"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
# RFC 9110 5.6.7: IMF-fixdate, and the two obsolete forms that a recipient must accept.
_DATES = re.compile(
    rf"(?:[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT"
    rf"|[A-Z][a-z]{{5,8}}, (?P<day2>[0-9]{{2}})-{_MONTH.replace('month', 'month2')}-(?P<year2>[0-9]{{2}}) "
    rf"{_CLOCK.replace('<h', '<h2').replace('<m', '<m2').replace('<s', '<s2')} GMT"
    rf"|[A-Z][a-z]{{2}} {_MONTH.replace('month', 'month3')} (?P<day3>[ 0-9][0-9]) "
    rf"{_CLOCK.replace('<h', '<h3').replace('<m', '<m3').replace('<s', '<s3')} (?P<year3>[0-9]{{4}}))\Z"
)
# RFC 9110 8.8.3; one list member and what separates it from the next.
_TAG = re.compile(r'[ \t]*(?:(W/)?("[!#-~\x80-\xff]*"))?[ \t]*(?:,|\Z)')

# Apache believes neither a date nor a Range on a file that changed within the last minute (RFC 2616's definition).
_SETTLED = 60


class Preconditions(NamedTuple):
    """The request fields that decide; None where the request has none."""

    if_match: str | None = None
    if_unmodified_since: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_range: str | None = None
    range: str | None = None


def http_date(seconds: int) -> str:
    """``Sun, 06 Nov 1994 08:49:37 GMT``; clamped to the years 1 to 9999."""
    at = _EPOCH + timedelta(seconds=min(max(seconds, _FIRST), _LAST))
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04}"
        f" {at.hour:02}:{at.minute:02}:{at.second:02} GMT"
    )


def parse_date(text: str, now: int) -> int | None:
    """Seconds of an HTTP-date in any of its three forms, or None. The name of the weekday is not checked."""
    found = _DATES.match(text)
    if found is None:
        return None
    part = found.groupdict()
    form = "" if part["day"] else "2" if part["day2"] else "3"
    year = int(part["year" + form])
    if form == "2":
        # RFC 9110 5.6.7: a two-digit year more than 50 years ahead is of the past century.
        this_year = (_EPOCH + timedelta(seconds=now)).year
        year += this_year // 100 * 100
        if year > this_year + 50:
            year -= 100
    seconds = min(int(part["s" + form]), 59)  # a leap second
    try:
        at = datetime(
            year,
            _MONTHS.index(part["month" + form]) + 1,
            int(part["day" + form]),
            int(part["h" + form]),
            int(part["m" + form]),
            seconds,
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return int((at - _EPOCH).total_seconds())


def entity_tags(text: str) -> Iterator[tuple[bool, str]]:
    """(weak, opaque tag with its quotes) of each list member, up to the first malformed one."""
    at = 0
    while at < len(text):
        found = _TAG.match(text, at)
        if found is None:
            return
        if found[2]:
            yield bool(found[1]), found[2]
        at = found.end()


def any_match(text: str, etag: str, *, strong: bool) -> bool:
    """Whether a list of entity tags has ``etag`` (RFC 9110 8.8.3.2). ``*`` is the caller's business."""
    if not etag or (strong and etag.startswith("W/")):
        return False
    opaque = etag.removeprefix("W/")
    return any(tag == opaque and not (strong and weak) for weak, tag in entity_tags(text))


def evaluate(conditions: Preconditions, *, safe: bool, etag: str, modified: int, now: int, apache: bool) -> Verdict:
    """What the preconditions make of an answer that would be 200.

    ``safe``: the method is GET or HEAD. ``etag`` is empty where the file has none. ``apache`` chooses the dialect.
    """
    if apache:
        return _apache(conditions, safe, etag, modified, now)
    return _rfc9110(conditions, safe, etag, modified, now)


def range_applies(conditions: Preconditions, *, etag: str, modified: int, now: int, apache: bool) -> bool:
    """Whether ``Range`` is to be looked at: there is one, and ``If-Range`` (where sent) holds."""
    if conditions.range is None:
        return False
    asked = conditions.if_range
    if asked is None:
        return True
    if asked.startswith('"'):
        # RFC 9110 13.1.5: strong comparison.
        return asked == etag
    # A date is exact or nothing, and says nothing while the file may change twice within its second (8.8.2.2).
    settled = _SETTLED if apache else 1
    return parse_date(asked, now) == modified and now - modified >= settled


def _rfc9110(conditions: Preconditions, safe: bool, etag: str, modified: int, now: int) -> Verdict:
    match, unmodified, none_match, modified_since, _, _ = conditions
    if match is not None:
        if match.strip() != "*" and not any_match(match, etag, strong=True):
            return 412
    elif unmodified is not None:
        limit = parse_date(unmodified, now)
        if limit is not None and modified > limit:
            return 412
    if none_match is not None:
        if none_match.strip() == "*" or any_match(none_match, etag, strong=False):
            return 304 if safe else 412
    elif modified_since is not None and safe:
        since = parse_date(modified_since, now)
        if since is not None and modified <= since:
            return 304
    return 200


def _apache(conditions: Preconditions, safe: bool, etag: str, modified: int, now: int) -> Verdict:
    """ap_meets_conditions: every condition is asked, and one that fails to match outweighs those that do."""
    ranged = conditions.range is not None
    young = ranged and now - modified < _SETTLED
    answers: list[bool] = []  # what each condition says to "not modified?"
    if (match := conditions.if_match) is not None and match != "*" and not any_match(match, etag, strong=True):
        return 412
    if conditions.if_unmodified_since is not None:
        limit = parse_date(conditions.if_unmodified_since, now)
        if limit is not None and modified > limit and not young:
            return 412
        answers.append(False)
    if (none_match := conditions.if_none_match) is not None:
        same = none_match == "*" or any_match(none_match, etag, strong=ranged or not safe)
        if same and not safe:
            return 412
        answers.append(same)
    if conditions.if_modified_since is not None:
        since = parse_date(conditions.if_modified_since, now)
        answers.append(since is not None and modified <= since <= now and not young)
    if ranged and conditions.if_range is not None:
        return 200
    return 304 if safe and answers and all(answers) else 200
