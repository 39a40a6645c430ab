"""Headers: change the headers of requests and responses on their way (Header, RequestHeader)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from proxymw.errors import ConfigError
from proxymw.exchange.behind import behind
from proxymw.rules.headeredit import Pairs, edited
from proxymw.rules.options import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

Action = Literal["set", "append", "add", "merge", "unset", "edit", "edit*", "setifempty"]

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_FORMAT = re.compile(r"%(?:\{([^}]*)\}([A-Za-z])|([A-Za-z%]))")
# Framing belongs to the server and the forwarder: a changed length is request smuggling.
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade"})


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """One change: ``HeaderRule("set", "X-Frame-Options", "DENY")``.

    ``set`` replaces, ``append`` and ``merge`` extend the comma list (``merge`` unless the value is in it), ``add``
    makes another line, ``setifempty`` sets what is not there, ``unset`` removes; ``edit`` and ``edit*`` replace the
    first match, or every match, of the regular expression ``value`` in each line by ``replacement`` (``$0``-``$9``).

    A value may hold ``%{NAME}e`` (a variable of the request, ``(null)`` if there is none), ``%t`` (when the request
    came, ``t=`` and microseconds), ``%D`` (how long it has taken, ``D=`` and microseconds) and ``%%``.

    ``always=False``: not on error pages and redirects made by proxymw itself (Apache's ``onsuccess``); responses of
    origins and applications count as successes whatever their status. ``when`` takes the environ (``env=``).
    """

    action: Action
    name: str
    value: str = ""
    replacement: str = ""
    always: bool = True
    when: Callable[[Mapping[str, Any]], bool] | None = None

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ConfigError(f"action must be one of {', '.join(get_args(Action))}, got {self.action!r}")
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigError(f"name must be a header name, got {self.name!r}")
        if self.name.lower() in _FRAMING:
            raise ConfigError(f"name must not be a header that frames the message, got {self.name!r}")
        edits = self.action.startswith("edit")
        for option, text in (("value", self.value), ("replacement", self.replacement)):
            if not isinstance(text, str) or (_BAD_VALUE.search(text) and not (edits and option == "value")):
                raise ConfigError(f"{option} must be text without control characters, got {text!r}")
        if edits:
            try:
                re.compile(self.value)
            except re.error as error:
                raise ConfigError(f"value must be a regular expression ({error}), got {self.value!r}") from None
        else:
            _check_format(self.value)


class Headers:
    """Apply ``HeaderRule`` values, or ``(action, name, value)`` tuples, to requests and responses in the order written.

    >>> Headers(app, response=[("set", "X-Frame-Options", "DENY"), ("unset", "X-Powered-By")],
    ...         request=[("set", "X-Scheme", "https")])

    Headers that frame a message (Content-Length, Transfer-Encoding, Connection and the like) are a ConfigError.
    """

    def __init__(
        self,
        app: WSGIApplication | None,
        *,
        response: Iterable[HeaderRule | tuple[str, ...]] = (),
        request: Iterable[HeaderRule | tuple[str, ...]] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = behind(app)
        self.response = tuple(_rule(rule, "response") for rule in listed("response", response, "HeaderRule values"))
        self.request = tuple(_rule(rule, "request") for rule in listed("request", request, "HeaderRule values"))
        self._clock = clock

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begin = self._clock()
        for rule in self.request:
            if rule.when is None or rule.when(environ):
                _change_request(environ, rule, self._value(rule, environ, begin))
        if not self.response:
            return self.app(environ, start_response)
        own: list[int] = environ.setdefault("proxymw.own", [])

        def changed(
            status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            ours = bool(own) and status.startswith(str(own[-1]))
            for rule in self.response:
                if (rule.always or not ours) and (rule.when is None or rule.when(environ)):
                    value = self._value(rule, environ, begin)
                    headers = edited(headers, rule.action, rule.name, value, rule.replacement)
            return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

        return self.app(environ, changed)

    def _value(self, rule: HeaderRule, environ: WSGIEnvironment, begin: float) -> str:
        if "%" not in rule.value or rule.action.startswith("edit"):
            return rule.value

        def expand(found: re.Match[str]) -> str:
            match found[2] or found[3]:
                case "e":
                    value = environ.get(found[1])
                    return _BAD_VALUE.sub("", value) if isinstance(value, str) else "(null)"
                case "t":
                    return f"t={int(begin * 1_000_000)}"
                case "D":
                    return f"D={int((self._clock() - begin) * 1_000_000)}"
            return "%"

        return _FORMAT.sub(expand, rule.value)

    def __repr__(self) -> str:
        return f"<Headers {len(self.request)} on requests, {len(self.response)} on responses -> {self.app!r}>"


def _rule(rule: HeaderRule | tuple[str, ...], name: str) -> HeaderRule:
    if isinstance(rule, HeaderRule):
        return rule
    if not isinstance(rule, tuple) or not 2 <= len(rule) <= 4:
        raise ConfigError(f"{name} must hold HeaderRule values or (action, name, value) tuples, got {rule!r}")
    return HeaderRule(*rule)  # type: ignore[arg-type]


def _check_format(value: str) -> None:
    at = 0
    while (at := value.find("%", at)) >= 0:
        found = _FORMAT.match(value, at)
        known = found is not None and ((found[2] == "e" and found[1]) or found[3] in ("t", "D", "%"))
        if found is None or not known:
            raise ConfigError(f"value must use %{{NAME}}e, %t, %D or %% after a percent sign, got {value!r}")
        at = found.end()


def _change_request(environ: WSGIEnvironment, rule: HeaderRule, value: str) -> None:
    """A request header is one entry of the environ; lines of the same name were joined by the server."""
    key = rule.name.upper().replace("-", "_")
    if key != "CONTENT_TYPE":
        key = f"HTTP_{key}"
    before: Pairs = [(rule.name, environ[key])] if environ.get(key) is not None else []
    after = edited(before, rule.action, rule.name, value, rule.replacement)
    if not after:
        environ.pop(key, None)
    else:
        environ[key] = ("; " if key == "HTTP_COOKIE" else ", ").join(text for _, text in after)
