"""The changes that Header and RequestHeader make to a list of headers."""

from __future__ import annotations

import re
from functools import lru_cache

Pairs = list[tuple[str, str]]

_REFERENCE = re.compile(r"\\([$\\])|\$([0-9])")
_UNFIT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def edited(headers: Pairs, action: str, name: str, value: str, replacement: str = "") -> Pairs:
    """``headers`` after one change; names compare case-insensitively, order and other lines are kept.

    ``action`` is set, append, add, merge, unset, setifempty, edit or edit*; ``value`` the value or, for the edits,
    the regular expression.
    """
    key = name.lower()
    places = [at for at, (each, _) in enumerate(headers) if each.lower() == key]
    match action:
        case "add":
            return [*headers, (name, value)]
        case "unset":
            return [pair for pair in headers if pair[0].lower() != key]
        case "setifempty":
            return headers if any(headers[at][1] for at in places) else _set(headers, places, name, value)
        case "edit" | "edit*":
            count = 0 if action == "edit*" else 1
            return [
                (each, _substituted(text, value, replacement, count)) if at in places else (each, text)
                for at, (each, text) in enumerate(headers)
            ]
        case "append" | "merge" if places:
            present = ", ".join(headers[at][1] for at in places)
            if action == "merge" and value in (part.strip(" \t") for part in _list_parts(present)):
                return headers
            return _set(headers, places, headers[places[0]][0], f"{present}, {value}" if present else value)
    return _set(headers, places, name, value)


def _set(headers: Pairs, places: list[int], name: str, value: str) -> Pairs:
    """The first line of the name replaced and the others gone; a new one at the end where there was none."""
    if not places:
        return [*headers, (name, value)]
    kept = [pair for at, pair in enumerate(headers) if at not in places[1:]]
    kept[places[0]] = (name, value)
    return kept


def _list_parts(text: str) -> list[str]:
    """The members of a comma list; commas in quoted strings do not count."""
    return re.findall(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+', text)


@lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _substituted(text: str, pattern: str, replacement: str, count: int) -> str:
    def expand(found: re.Match[str]) -> str:
        def reference(ref: re.Match[str]) -> str:
            if ref[1]:
                return ref[1]
            group = int(ref[2])
            return (found[group] or "") if group <= found.re.groups else ""

        return _REFERENCE.sub(reference, replacement)

    # A value that a client sent may end up in another header: never with a line end in it.
    return _UNFIT.sub("", _compiled(pattern).sub(expand, text, count=count))
