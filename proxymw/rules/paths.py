"""The one canonical path of a request, and how the client spelled it.

Every skin matches, strips and excludes on ``RoutePath.path`` and forwards with ``RoutePath.spell``, so that no two
parts of a stack ever see two different paths.
"""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from ..errors import RequestRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .policy import Policy

# Apache's proxy canonicaliser keeps these and "/" and escapes every other byte, "%" included (ap_proxy_canonenc).
_KEPT = "~$-_.+!*'(),;:@&="
_S = rf"[A-Za-z0-9{re.escape(_KEPT)}]"
# A path that is its own canonical form and needs no quoting: no empty segment but the last, none that starts with ".".
# Not possessive: re before Python 3.11.5 gets nested possessive repeats wrong, and each "/" settles the match anyway.
_PLAIN = re.compile(rf"/(?:(?!\.){_S}+(?:/(?!\.){_S}+)*/?)?\Z")
# Bytes are carried as latin-1 characters (PEP 3333); anything above that range cannot have come from a server.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]|[^\x00-\xff]")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(r"%2[Ff]")
_REQUOTED_SLASH = re.compile(r"%25(2[Ff])")
_TOKEN = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_SLASHES = re.compile(r"//+")
# RFC 3986 has no place for these in a path; some clients send them bare all the same. A "[" or "]" is left as spelled.
_NOT_RAW = re.compile(r"""[^\x21-\x7e]|["<>\\^`{|}]""")
# RFC 9112 3.2.2: absolute-form. The authority is not ours to use; the Host check compares it.
_SCHEME_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")
_QUERY_UNSAFE = re.compile(r"[\x00-\x20\x7f]|[^\x00-\xff]")


class RoutePath:
    """A request's path, decoded once and resolved, with the client's own spelling at hand.

    ``path`` is relative to ``SCRIPT_NAME``, starts with ``/``, holds bytes as latin-1 characters, has no dot segments
    and (unless the policy keeps them) no runs of slashes. ``raw`` decodes to it, slash runs aside.
    """

    __slots__ = ("_quote", "_raw", "_starts", "path")

    def __init__(self, path: str, raw: str | None = None, *, quoted: Callable[[str], str] | None = None) -> None:
        self.path = path
        self._raw = raw
        self._quote = quoted or (quote_path if raw is None else None)
        self._starts: list[int] | None = None

    @property
    def raw(self) -> str:
        """The path as it goes on the wire: as the client spelled it, or quoted anew where no spelling is known."""
        if self._raw is None:
            self._raw = self._quote(self.path) if self._quote else self.path
        return self._raw

    def spell(self, start: int, end: int | None = None) -> str:
        """The wire's spelling of ``path[start:end]``: the client's ``%2F``, ``%7e`` and case of hex digits survive."""
        if self._quote:
            return self._quote(self.path[start:end])
        raw = self.raw
        if raw is self.path or raw == self.path:
            return self.path[start:end]
        if self._starts is None:
            self._starts = _starts(self.path, raw)
        size = len(self.path)
        stop = size if end is None else min(end, size)
        return raw[self._starts[min(start, size)] : self._starts[stop]] if start < stop else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoutePath) and (self.path, self.raw) == (other.path, other.raw)

    def __hash__(self) -> int:
        return hash((self.path, self.raw))

    def __repr__(self) -> str:
        spelled = "" if self.raw == self.path else f" sent as {self.raw!r}"
        return f"<RoutePath {self.path!r}{spelled}>"


def route_path(path_info: str, script_name: str = "", raw_target: str | None = None, *, policy: Policy) -> RoutePath:
    """The canonical path of a request.

    ``path_info`` and ``script_name`` are as PEP 3333 has them; ``raw_target`` is the request-target as the client sent
    it (``RAW_URI`` or ``REQUEST_URI``, absolute-form allowed) or None. It only recovers spelling, and only while it
    decodes to the same path. Raises ``RequestRefused``: 400 for a path above the root, a control byte, a broken escape
    or a fragment, 404 for NUL and for an encoded slash that the policy refuses.
    """
    if _PLAIN.match(path_info) and _agrees_plainly(script_name + path_info, raw_target):
        return RoutePath(path_info, path_info)
    raw = _raw_path(raw_target)
    if not path_info:
        path_info, raw = "/", ""
    if not path_info.startswith("/"):
        raise RequestRefused(400, "bad_path")
    merge = policy.merge_slashes
    path = _resolved(path_info, merge)
    if path is None:
        if raw and policy.encoded_slash == "refuse" and _climbs_by_encoded_slash(raw, merge):
            raise RequestRefused(404, "encoded_slash")
        raise RequestRefused(400, "path_above_root")
    found = _CONTROL.search(path_info)
    if found and (policy.controls == "refuse" or "\0" in path_info or max(path_info) > "\xff"):
        raise RequestRefused(404 if "\0" in path_info else 400, "bad_path")
    script = script_name.rstrip("/")
    mount = (_resolved(script, merge) if script.startswith("/") else script) or ""
    if raw and policy.encoded_slash in ("refuse", "nodecode") and _ENCODED_SLASH.search(raw):
        path = _with_encoded_slashes(path, raw, mount, policy)
    if policy.encoded_slash == "nodecode":
        return RoutePath(path, quoted=_quote_nodecode)
    client = raw and policy.spelling == "client" and policy.encoded_slash != "decode"
    return RoutePath(path, _recovered(path, raw, mount, merge) if client else None)


def quote_path(path: str) -> str:
    """``path`` (decoded, latin-1 characters) percent-encoded as Apache's proxy does: upper-case hex, ``%`` included."""
    return quote(path, safe="/" + _KEPT, encoding="latin-1")


def path_quoter(policy: Policy) -> Callable[[str], str]:
    """How a path that has no spelling of the client's is written on the wire."""
    return _quote_nodecode if policy.encoded_slash == "nodecode" else quote_path


def resolve_path(path: str, policy: Policy) -> str | None:
    """``path`` without dot segments and slash runs, as the policy has it; None when it climbs above the root."""
    return _resolved(path, policy.merge_slashes)


def query_suffix(query_string: str, raw_target: str | None = None) -> str:
    """``?`` and the query, byte for byte, or nothing. An empty query that the client did send keeps its ``?``.

    Raises ``RequestRefused`` (403) for a raw control byte or space, which would end the request line early.
    """
    if not query_string:
        return "?" if raw_target and raw_target.endswith("?") and raw_target.count("?") == 1 else ""
    if _QUERY_UNSAFE.search(query_string):
        raise RequestRefused(403, "bad_query")
    return "?" + query_string


def lax_readings(path: str) -> Iterator[str]:
    """The other paths that a sloppy origin could take ``path`` for; nothing for an ordinary path.

    Such an origin may decode once more, take a backslash for a slash, and drop ``;parameters`` of a segment. An
    exclusion holds for every one of these readings, or it could be walked around.
    """
    if not ("%" in path or "\\" in path or ";" in path):
        return
    seen = {path}
    for decode, backslash, parameters in product((False, True), repeat=3):
        reading = unquote(path, encoding="latin-1") if decode else path
        if backslash:
            reading = reading.replace("\\", "/")
        if parameters:
            reading = re.sub(r";[^/]*", "", reading)
        reading = _resolved(reading, True, clamp=True) or "/"
        if reading not in seen:
            seen.add(reading)
            yield reading


def _agrees_plainly(full: str, raw_target: str | None) -> bool:
    if raw_target is None or raw_target == full:
        return True
    return raw_target.startswith(full) and raw_target[len(full)] == "?" and "#" not in raw_target


def _raw_path(raw_target: str | None) -> str:
    """The path of the request-target, fit for the wire; empty when there is none to use."""
    if not raw_target:
        return ""
    if "#" in raw_target:
        raise RequestRefused(400, "fragment_in_target")
    absolute = _SCHEME_AUTHORITY.match(raw_target)
    raw = raw_target[absolute.end() :] if absolute else raw_target
    raw = raw.partition("?")[0]
    if absolute and not raw:
        raw = "/"
    if _BROKEN_ESCAPE.search(raw):
        raise RequestRefused(400, "bad_escape")
    if not raw.startswith("/") or any(char > "\xff" for char in raw):
        return ""
    return _NOT_RAW.sub(lambda byte: f"%{ord(byte[0]):02X}", raw)


def _resolved(path: str, merge: bool, *, clamp: bool = False) -> str | None:
    """``path`` without dot segments and (``merge``) slash runs; None when it climbs above the root (unless clamped)."""
    *inner, last = path.split("/")[1:]
    tail = "" if last in (".", "..") else last
    if last == "..":
        inner.append(last)
    out: list[str] = [""]
    for segment in inner:
        if segment == "..":
            if len(out) > 1:
                out.pop()
            elif not clamp:
                return None
        elif segment != "." and (segment or not merge):
            out.append(segment)
    return "/".join(out) + "/" + tail


def _recovered(path: str, raw: str, mount: str, merge: bool) -> str | None:
    """The client's spelling of ``path``, or None where ``raw`` is not a spelling of it."""
    out: list[str] = [""]
    *inner, last = raw.split("/")[1:]
    plain_last = unquote(last, encoding="latin-1")
    if plain_last == "..":
        inner.append(last)
    for segment in inner:
        dots = unquote(segment, encoding="latin-1") if len(segment) <= 6 else ""
        if dots == "..":
            while merge and len(out) > 1 and not out[-1]:
                out.pop()
            if len(out) == 1:
                return None
            out.pop()
        elif dots != ".":
            out.append(segment)
    full_raw = "/".join(out) + "/" + ("" if plain_last in (".", "..") else last)
    full = unquote(full_raw, encoding="latin-1")
    if (_SLASHES.sub("/", full) if merge else full) != mount + path:
        return None
    starts = _starts(mount + path, full_raw)
    # The first slash is written plainly: what is sent never starts with "//" or an encoded slash.
    return "/" + full_raw[starts[len(mount) + 1] :]


def _starts(path: str, raw: str) -> list[int]:
    """Where in ``raw`` each character of ``path`` is spelled, and its end. One slash of ``path`` may be a whole run."""
    starts: list[int] = []
    size = len(path)
    for token in _TOKEN.finditer(raw):
        text = token[0]
        char = text if len(text) == 1 else chr(int(text[1:], 16))
        at = len(starts)
        if at < size and char == path[at]:
            starts.append(token.start())
    starts.append(len(raw))
    return starts


def _climbs_by_encoded_slash(raw: str, merge: bool) -> bool:
    """Whether the path stays below the root as long as its ``%2F`` are no slashes."""
    kept = _ENCODED_SLASH.sub("x", raw)
    return kept != raw and _resolved(unquote(kept, encoding="latin-1"), merge) is not None


def _with_encoded_slashes(path: str, raw: str, mount: str, policy: Policy) -> str:
    """What ``%2F`` does under AllowEncodedSlashes Off (404) and NoDecode (it stays three characters)."""
    merge = policy.merge_slashes
    if _resolved(unquote(raw, encoding="latin-1"), merge) != mount + path:
        return path  # not this path's spelling: something in front of us changed the path
    if policy.encoded_slash == "refuse":
        raise RequestRefused(404, "encoded_slash")
    kept = _resolved(unquote(_ENCODED_SLASH.sub(lambda m: "%25" + m[0][1:], raw), encoding="latin-1"), merge)
    if kept is None or not kept.startswith(mount + "/"):
        raise RequestRefused(400, "encoded_slash")
    return kept[len(mount) :]


def _quote_nodecode(path: str) -> str:
    """Apache's NoDecode canonicaliser: an escaped slash stays as it is, a lone ``%`` cannot be told from one (400)."""
    if _BROKEN_ESCAPE.search(path):
        raise RequestRefused(400, "bad_escape")
    return _REQUOTED_SLASH.sub(r"%\1", quote_path(path))
