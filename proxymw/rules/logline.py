"""One access-log line from plain fields, in Apache's formats and with Apache's escaping."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from proxymw.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

COMMON = '%h %l %u %t "%r" %>s %b'
COMBINED = COMMON + ' "%{Referer}i" "%{User-Agent}i"'
#: The formats that have a name; ``json`` is the other one.
NAMED = {"common": COMMON, "combined": COMBINED, "vhost_common": "%v " + COMMON, "vhost_combined": "%v:%p " + COMBINED}


class Lookup(Protocol):
    """A mapping, as far as a format needs one."""

    def get(self, name: str, /) -> Any: ...


def _nothing() -> Lookup:
    return {}


@dataclass(slots=True)
class LogEntry:
    """What is known of one finished request. Texts are latin-1 as in an environ; None is logged as ``-``."""

    method: str
    target: str  # as the client wrote it, or the quoted path and query
    path: str  # decoded
    query: str  # without "?"
    protocol: str
    status: int
    begin: datetime  # aware, local zone, to the second (one object for all requests of a second makes it cheap)
    seconds: float
    micros: int = 0  # of begin
    sent: int = 0  # body bytes
    head_sent: int = 0  # bytes of the response head, as far as it is known here
    received: int = 0  # bytes of the request, head included
    client: str = ""
    peer: str = ""
    user: str | None = None
    host: str = ""  # the name the client used
    server_name: str = ""  # the canonical one
    port: str = ""
    local_port: str = ""
    local_address: str = ""
    remote_port: str = ""
    scheme: str = "http"
    filename: str | None = None
    first_status: int = 0  # of the original request, where an error page was served instead
    complete: bool = True  # the body was taken to its end
    keepalive: bool = True
    pid: int = 0
    thread: int = 0
    request_headers: Lookup = field(default_factory=_nothing)  # by lower-case name
    response_headers: Iterable[tuple[str, str]] = ()
    env: Lookup = field(default_factory=_nothing)
    notes: Lookup = field(default_factory=_nothing)

    def header_in(self, name: str) -> Any:
        return self.request_headers.get(name)

    def header_out(self, name: str) -> str | None:
        values = [value for key, value in self.response_headers if key.lower() == name]
        return ", ".join(values) if values else None


# --- escaping (CVE-2003-0020: what a client sends must not reach a terminal as it is) ---

_UNSAFE = re.compile(r'["\\]|[^ -~]')
_NAMED_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def escape(text: str) -> str:
    r"""``text`` as Apache logs it: ``"`` and ``\`` after a backslash, bytes outside printable ASCII as ``\xhh``."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return _UNSAFE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    named = _NAMED_ESCAPES.get(character)
    if named is not None:
        return named
    # Characters over 255 cannot come from a client; an application may have put them into a header or a variable.
    raw = character.encode("latin-1" if character <= "\xff" else "utf-8", "surrogateescape")
    return "".join(f"\\x{byte:02x}" for byte in raw)


# --- formats ---

if TYPE_CHECKING:
    Item = Callable[[LogEntry], str]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ITEM = re.compile(r"%(?P<mods>(?:[<>]|!?[0-9]{3}(?:,[0-9]{3})*)*)(?:\{(?P<arg>[^}]*)\})?(?P<letter>\^t[io]|[A-Za-z%])")
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}


@lru_cache(8)
def clock(moment: datetime) -> str:
    """``[18/Sep/2011:19:18:28 -0400]``, with English month names in every locale."""
    m = moment
    return f"[{m.day:02}/{_MONTHS[m.month - 1]}/{m.year}:{m.hour:02}:{m.minute:02}:{m.second:02} {m:%z}]"


class LogFormat:
    r"""A LogFormat string, compiled: ``LogFormat("%h %>s %b").line(entry)``.

    All items that mod_log_config and mod_logio document are understood, with ``%!404,500{...}i`` conditions and the
    ``<`` and ``>`` marks; ``\n``, ``\t`` and ``\\`` as there. ``common``, ``combined``, ``vhost_common``,
    ``vhost_combined`` name the usual ones. An unknown item is a ConfigError.
    """

    __slots__ = ("_parts", "measures", "text")

    def __init__(self, text: str, *, name: str = "format") -> None:
        if not isinstance(text, str) or not text:
            raise ConfigError(f"{name} must be a log format, got {text!r}")
        self.text = NAMED.get(text, text)
        self._parts = tuple(_compile(self.text, name))
        #: Whether the sizes of whole messages are asked for; adding them up is work.
        self.measures = any(found["letter"] in "IOS" for found in _ITEM.finditer(self.text))

    def line(self, entry: LogEntry) -> str:
        """The line for ``entry``, without a line end."""
        return "".join([part if isinstance(part, str) else part(entry) for part in self._parts])

    def __repr__(self) -> str:
        return f"<LogFormat {self.text}>"


def _compile(text: str, name: str) -> Iterable[str | Item]:
    at = 0
    for percent in re.finditer("%", text):
        if percent.start() < at:
            continue
        yield _literal(text[at : percent.start()])
        found = _ITEM.match(text, percent.start())
        item = None if found is None else _item(found["letter"], found["arg"], found["mods"])
        if found is None or item is None:
            piece = text[percent.start() : percent.start() + 12]
            raise ConfigError(f"{name} must use known % items, got {piece!r} in {text!r}")
        yield item
        at = found.end()
    yield _literal(text[at:])


def _literal(text: str) -> str:
    return re.sub(r"\\[nt\\]", lambda found: _ESCAPES[found[0]], text)


def _item(letter: str, arg: str | None, mods: str) -> str | Item | None:
    if letter == "%":
        return "%"
    make = _MAKERS.get(letter)
    item = None if make is None else make(arg, mods)
    codes = re.search(r"(!?)([0-9,]+)", mods)
    if item is None or codes is None:
        return item
    statuses, negated = frozenset(map(int, codes[2].split(","))), bool(codes[1])
    chosen = item
    return lambda entry: chosen(entry) if (entry.status in statuses) != negated else "-"


def _or_dash(value: object) -> str:
    """``-`` for what is not known, as Apache prints nothing at all."""
    return "-" if value is None else escape(str(value))


def _shown(get: Callable[[LogEntry], object]) -> Callable[[str | None, str], Item]:
    """An item that takes no argument and prints one field."""
    return lambda arg, mods: lambda entry: _or_dash(get(entry))


def _user(arg: str | None, mods: str) -> Item:
    return lambda entry: '""' if entry.user == "" else _or_dash(entry.user)


def _request_line(arg: str | None, mods: str) -> Item:
    return lambda entry: escape(f"{entry.method} {entry.target} {entry.protocol}")


def _status(arg: str | None, mods: str) -> Item:
    if ">" in mods:
        return lambda entry: str(entry.status)
    return lambda entry: str(entry.first_status or entry.status)


def _address(arg: str | None, mods: str) -> Item | None:
    return {None: _client, "c": lambda entry: _or_dash(entry.peer or None)}.get(arg)


def _client(entry: LogEntry) -> str:
    return _or_dash(entry.client or None)


def _port(arg: str | None, mods: str) -> Item | None:
    which = {None: "port", "canonical": "port", "local": "local_port", "remote": "remote_port"}.get(arg)
    return None if which is None else lambda entry: _or_dash(getattr(entry, which) or None)


def _header_in(arg: str | None, mods: str) -> Item | None:
    key = (arg or "").lower()
    return (lambda entry: _or_dash(entry.header_in(key))) if key else None


def _header_out(arg: str | None, mods: str) -> Item | None:
    key = (arg or "").lower()
    return (lambda entry: _or_dash(entry.header_out(key))) if key else None


def _cookie(arg: str | None, mods: str) -> Item | None:
    if not arg:
        return None
    find = re.compile(rf"(?:^|[;,])[ \t]*{re.escape(arg)}[ \t]*=[ \t]*([^;,]*)").search

    def show(entry: LogEntry) -> str:
        found = find(entry.header_in("cookie") or "")
        return "-" if found is None else escape(found[1].rstrip(" \t"))

    return show


def _variable(arg: str | None, mods: str) -> Item | None:
    return (lambda entry: _or_dash(entry.env.get(arg))) if arg else None


def _note(arg: str | None, mods: str) -> Item | None:
    return (lambda entry: _or_dash(entry.notes.get(arg))) if arg else None


def _process(arg: str | None, mods: str) -> Item | None:
    if arg in (None, "pid"):
        return lambda entry: str(entry.pid)
    if arg in ("tid", "hextid"):
        return lambda entry: f"{entry.thread:x}" if arg == "hextid" else str(entry.thread)
    return None


_UNITS = {None: 1, "s": 1, "ms": 1000, "us": 1_000_000}


def _duration(arg: str | None, mods: str) -> Item | None:
    factor = _UNITS.get(arg)
    return None if factor is None else lambda entry: str(int(entry.seconds * factor))


def _time(arg: str | None, mods: str) -> Item:
    stage, colon, rest = (arg or "").partition(":")
    form = rest if colon and stage in ("begin", "end") else arg or ""
    at_end = colon and stage == "end"

    def show(entry: LogEntry) -> str:
        moment = entry.begin + timedelta(microseconds=entry.micros, seconds=entry.seconds if at_end else 0)
        return _moment(moment, form)

    return show if form or at_end else lambda entry: clock(entry.begin)


def _moment(moment: datetime, form: str) -> str:
    match form:
        case "":
            return clock(moment)
        case "sec":
            return str(int(moment.timestamp()))
        case "msec":
            return str(int(moment.timestamp()) * 1000 + moment.microsecond // 1000)
        case "usec":
            return str(int(moment.timestamp()) * 1_000_000 + moment.microsecond)
        case "msec_frac":
            return f"{moment.microsecond // 1000:03}"
        case "usec_frac":
            return f"{moment.microsecond:06}"
    return escape(moment.strftime(form))


def _connection(entry: LogEntry) -> str:
    return "X" if not entry.complete else "+" if entry.keepalive else "-"


_MAKERS: dict[str, Callable[[str | None, str], Item | None]] = {
    "a": _address,
    "A": _shown(lambda e: e.local_address or None),
    "b": _shown(lambda e: e.sent or None),
    "B": _shown(lambda e: e.sent),
    "C": _cookie,
    "D": lambda arg, mods: _duration("us", mods),
    "e": _variable,
    "f": _shown(lambda e: e.filename),
    "h": lambda arg, mods: _client,
    "H": _shown(lambda e: e.protocol),
    "i": _header_in,
    "I": _shown(lambda e: e.received),
    "k": _shown(lambda e: 0),
    "l": _shown(lambda e: None),
    "L": _shown(lambda e: None),
    "m": _shown(lambda e: e.method),
    "n": _note,
    "o": _header_out,
    "O": _shown(lambda e: e.sent + e.head_sent),
    "p": _port,
    "P": _process,
    "q": _shown(lambda e: e.query and f"?{e.query}"),
    "r": _request_line,
    "R": _shown(lambda e: None),
    "s": _status,
    "S": _shown(lambda e: e.received + e.sent + e.head_sent),
    "t": _time,
    "T": _duration,
    "u": _user,
    "U": _shown(lambda e: e.path),
    "v": _shown(lambda e: e.server_name or None),
    "V": _shown(lambda e: e.host or e.server_name or None),
    "X": lambda arg, mods: _connection,
    "^ti": lambda arg, mods: lambda entry: "-",
    "^to": lambda arg, mods: lambda entry: "-",
}


class JSONFormat:
    """One JSON object a line, with the field names of ECS and OpenTelemetry; unknown fields are left out."""

    __slots__ = ()
    measures = False

    def line(self, entry: LogEntry) -> str:
        header, notes = entry.header_in, entry.notes
        fields: dict[str, object] = {
            "@timestamp": entry.begin.replace(microsecond=entry.micros).isoformat(timespec="milliseconds"),
            "client.address": entry.client,
            "http.request.method": entry.method,
            "url.scheme": entry.scheme,
            "url.domain": entry.host,
            "url.path": entry.path,
            "url.query": entry.query,
            "url.original": entry.target,
            "network.protocol.version": entry.protocol.removeprefix("HTTP/"),
            "http.response.status_code": entry.status,
            "http.response.body.size": entry.sent,
            "event.duration_ms": round(entry.seconds * 1000, 3),
            "user.name": entry.user,
            "user_agent.original": header("user-agent"),
            "http.request.referrer": header("referer"),
            "request_id": notes.get("request_id"),
            "trace_id": _trace_id(header("traceparent")),
        }
        for name in ("pool", "member", "attempts", "route_changed", "connect_ms", "upstream_ms"):
            fields[f"proxymw.{name}"] = notes.get(name)
        if not entry.complete:
            fields["proxymw.client_left"] = True
        known = {key: _readable(value) for key, value in fields.items() if value not in (None, "")}
        return json.dumps(known, separators=(",", ":"), default=str)

    def __repr__(self) -> str:
        return "<JSONFormat>"


def _readable(value: object) -> object:
    """UTF-8 that came as latin-1 becomes what it is; anything else keeps its bytes visible."""
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("latin-1", "replace").decode("utf-8", "backslashreplace")


def _trace_id(traceparent: str | None) -> str | None:
    found = re.fullmatch(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", traceparent or "")
    return found[1] if found else None


def log_format(text: str, *, name: str = "format") -> LogFormat | JSONFormat:
    """The format of that name, or the one that the % string spells."""
    return JSONFormat() if text == "json" else LogFormat(text, name=name)
