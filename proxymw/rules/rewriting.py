"""RewriteRule: ordered rules that send, change, redirect or refuse a request by its path.

Nothing here knows of environ, files or sockets. What a rule needs of the request comes in as a look-up of variables
and a file test, and what is decided comes out as a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..errors import ConfigError
from .conditions import RewriteCond
from .decisions import UNCHANGED, Decision, Local, NoMatch, Proxy, Redirect, Status, Step
from .expansion import Piece, Scope, quote_controls
from .options import mapping
from .paths import RoutePath, path_quoter, quote_path, resolve_path
from .patterns import SUBJECT_MOST, literal_start
from .policy import Policy, as_policy
from .rewriterule import SCHEME, RewriteRule

if TYPE_CHECKING:
    from .conditions import ConditionResult, FileTest
    from .expansion import Lookup

Variables: TypeAlias = Mapping[str, str] | Callable[[str], str]

_RESULT_MOST: Final = 2 * SUBJECT_MOST
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f]")
# A redirect's target as RFC 9110 10.2.2 allows it: an absolute URI with a plain authority, or a path.
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[A-Za-z0-9._~\[\]:-]+(?=[/?#]|\Z)")
# "//host" and "/\host" would leave the site.
_NETWORK_PATH: Final = re.compile(r"\A(?:/|\\|%5[Cc]|%2[Ff]){2,}")
_DOT_SEGMENT: Final = re.compile(r"(?:\A|/)\.\.?(?:/|\Z)")
# mod_rewrite escapes the path of a redirect with Apache's own set (os_escape_path), in lower-case hex.
_LOCATION_KEPT: Final = re.compile(r"[^A-Za-z0-9$\-_.+!*'(),:@&=/~]")
_LOCATION_QUERY: Final = re.compile(r"[^A-Za-z0-9$\-_.+!*'(),:@&=/~?;%]")


class RewriteEngine:
    """Rules in order, ready to decide.

    ``maps`` are those that ``${name:key}`` names: mappings or functions from key to value. In the apache dialect an
    absolute target without P is a redirect, as there; in the modern one it is proxied.
    """

    def __init__(
        self,
        rules: Sequence[RewriteRule],
        *,
        policy: Policy | None = None,
        maps: Mapping[str, Mapping[str, str] | Lookup] | None = None,
    ) -> None:
        self.rules = tuple(rules)
        self.policy = as_policy(policy)
        given_maps = mapping("maps", maps, "names to maps")
        self.maps: dict[str, Lookup] = {name: _lookup(name, given) for name, given in given_maps.items()}
        self.quote = path_quoter(self.policy)
        self._index = None if any(rule.options.skip for rule in self.rules) else _Index(self.rules)

    def decide(
        self,
        path: RoutePath | str,
        query: str | None = None,
        variables: Variables | None = None,
        files: FileTest | None = None,
        *,
        public: str = "",
        trace: list[Step] | None = None,
    ) -> Decision:
        """What becomes of a request.

        ``query`` is None where there is none, which differs from an empty one. ``variables`` looks up
        ``REQUEST_METHOD``, ``HTTP:Name``, ``ENV:NAME`` and the like; unknown ones are "". ``files`` is the test of
        ``-f`` and its kin: none is ever true without it. ``public`` is ``scheme://host[:port]`` for redirects.
        ``trace`` collects each rule's turn.
        """
        route = path if isinstance(path, RoutePath) else RoutePath(path)
        if trace is None and not self.concerns(route.path):
            return UNCHANGED
        return _Run(self, route, query, _variables(variables), files or _no_files, public, trace).decide()

    def concerns(self, subject: str) -> bool:
        """Whether the pattern of any rule holds for ``subject``: most requests need no more than this answer."""
        if self._index is None or len(subject) > SUBJECT_MOST:
            return True
        rules = self.rules
        for place in self._index.places(subject):
            rule = rules[place]
            if (rule.compiled.search(subject) is None) == rule.negated:
                return True
        return False

    def first(self, subject: str, place: int) -> int:
        """The first rule from ``place`` on that could match ``subject``; the number of rules where there is none."""
        return place if self._index is None else self._index.first(subject, place)

    def __repr__(self) -> str:
        return f"<RewriteEngine: {len(self.rules)} rules>"


class _Index:
    """Which rules can match at all, by the first segment of the path: a thousand rules cost what a few do.

    A chain is tried or passed over as a whole, by its first rule.
    """

    def __init__(self, rules: tuple[RewriteRule, ...]) -> None:
        keys: list[str | None] = []
        chained = False
        for rule in rules:
            keys.append(keys[-1] if chained else _segment(rule))
            chained = rule.options.chain
        anywhere = [place for place, key in enumerate(keys) if key is None]
        named: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            if key is not None:
                named.setdefault(key, []).append(place)
        self._anywhere = tuple(anywhere)
        self._places = {key: tuple(sorted(places + anywhere)) for key, places in named.items()}
        self._size = len(rules)

    def places(self, subject: str) -> tuple[int, ...]:
        """The rules that could match ``subject``, in order."""
        return self._places.get(subject[: subject.find("/", 1) + 1] or subject, self._anywhere)

    def first(self, subject: str, place: int) -> int:
        places = self.places(subject)
        low, high = 0, len(places)
        while low < high:
            middle = (low + high) // 2
            if places[middle] < place:
                low = middle + 1
            else:
                high = middle
        return places[low] if low < len(places) else self._size


def _segment(rule: RewriteRule) -> str | None:
    """``/blog/`` for a rule that can only match below it, ``/blog`` for one that matches only that; else None."""
    literal, anchored = literal_start(rule.pattern)
    if not anchored or rule.negated or rule.options.nocase or not literal.startswith("/"):
        return None
    end = literal.find("/", 1)
    if end > 0:
        return literal[: end + 1]
    return literal if re.fullmatch(r"\^" + r"[^\\.^$*+?{}\[\]|()]*" + r"\$", rule.pattern) else None


class _Run:
    """One request's way through the rules."""

    def __init__(
        self,
        engine: RewriteEngine,
        route: RoutePath,
        query: str | None,
        variables: Callable[[str], str],
        files: FileTest,
        public: str,
        trace: list[Step] | None,
    ) -> None:
        self.engine = engine
        self.original = route
        self.subject = route
        self.query = self.asked = query
        self.given = variables
        self.files = files
        self.public = public
        self.trace = trace
        self.client = engine.policy.spelling == "client"
        self.status = 0
        self.rule: RewriteRule | None = None
        self.changed = False
        self.passthrough = False
        self.env: dict[str, str | None] = {}
        self.cookies: dict[str, tuple[str, ...]] = {}
        self.vary: list[str] = []
        self.content_type = ""
        self.rounds = 0

    def decide(self) -> Decision:
        if len(self.subject.path) > SUBJECT_MOST:
            return Status(status=414, event="path_too_long")
        rules, place, chained = self.engine.rules, 0, False
        while True:
            if self.trace is None and not chained:
                place = self.engine.first(self.subject.path, place)
            if place >= len(rules):
                return self.finish()
            rule = rules[place]
            scope = self.applies(rule, place)
            chained = scope is not None and rule.options.chain
            if scope is None:
                while rules[place].options.chain and place + 1 < len(rules):
                    place += 1
                place += 1
                continue
            self.rule = rule
            decision = self.apply(rule, scope)
            if self.trace:
                came = decision or Local(path=self.subject, query=self.query)
                self.trace[-1] = replace(self.trace[-1], result=str(came))
            if decision is not None:
                return decision
            options = rule.options
            if options.next is not None:
                self.rounds += 1
                if self.rounds > options.next:
                    return self.fault("rewrite_loop")
                place = 0
                continue
            if options.end or options.last or options.passthrough:
                return self.finish()
            place += 1 + options.skip

    def applies(self, rule: RewriteRule, place: int) -> Scope | None:
        """What the rule's expansions see, where pattern and conditions hold."""
        subject = self.subject
        match = rule.compiled.search(subject.path)
        if (match is None) != rule.negated:
            if self.trace is not None:
                self.trace.append(Step(rule, place + 1, subject.path, matched=False))
            return None
        scope = Scope(
            self.variable,
            self.engine.maps,
            subject,
            None if rule.negated else match,
            client=self.client,
        )
        holds, seen = self.conditions(rule, scope)
        if self.trace is not None:
            groups = tuple(group or "" for group in (match[0], *match.groups())) if match else ()
            self.trace.append(Step(rule, place + 1, subject.path, True, groups, tuple(seen), holds))
        if not holds:
            return None
        self.vary += (name for condition, result in seen if result.holds for name in condition.varies)
        return scope

    def conditions(self, rule: RewriteRule, scope: Scope) -> tuple[bool, list[tuple[RewriteCond, ConditionResult]]]:
        """Whether they hold together, and those that were looked at: the rest of a met OR group is not."""
        seen: list[tuple[RewriteCond, ConditionResult]] = []
        met = joined = False
        for condition in rule.conditions:
            if joined and met:
                joined = condition.ornext
                continue
            result = condition.evaluate(scope, self.files)
            seen.append((condition, result))
            met, joined = result.holds, condition.ornext
            scope.conditions = result.match or scope.conditions
            if not met and not joined:
                return False, seen
        return True, seen

    def variable(self, name: str) -> str:
        kind, colon, rest = name.partition(":")
        if kind == "ENV" and rest in self.env:
            return self.env[rest] or ""
        if kind in ("LA-U", "LA-F") and colon:
            return self.variable(rest)
        if name in ("REQUEST_FILENAME", "SCRIPT_FILENAME"):
            return self.subject.path
        if name == "QUERY_STRING":
            return self.query or ""
        return self.given(name) or (self.original.path if name == "REQUEST_URI" else "")

    def apply(self, rule: RewriteRule, scope: Scope) -> Decision | None:
        """Do what a matching rule says; a decision ends the run."""
        options = rule.options
        pieces: list[Piece] = []
        if rule.kind != "none":
            scope.escape = options.escape
            pieces = rule.template.expand(scope)
            if rule.pool is rule.target and not pieces:
                pieces = [Piece(self.subject.path, self.subject.raw, self.subject.path)]
        for name, value in options.env:
            self.env[name] = None if value is None else value.text(scope)
        if options.content_type:
            self.content_type = options.content_type.text(scope)
        for cookie in options.cookies:
            parts = tuple(part.text(scope) for part in cookie)
            self.cookies.setdefault(parts[0], parts)
        if options.status is not None:
            return Status(**self.common(), status=options.status)
        if rule.kind == "none":
            self.passthrough = self.passthrough or options.passthrough
            return None
        if options.allow_3f and not self.client:
            pieces = [piece._replace(fixed=True) for piece in pieces]
        path, query = _split_query(pieces, rule)
        if not options.allow_3f and any("?" in piece.text for piece in path if not (piece.fixed or piece.escaped)):
            return Status(**self.common(), status=403, event="encoded_question_mark")
        if _made_of_dots(path):
            return Status(**self.common(), status=400, event="dot_segment_in_target")
        if sum(len(piece.text) for piece in pieces) > _RESULT_MOST:
            return self.fault("rewrite_too_long")
        self.set_query(query, rule)
        self.changed = True
        if rule.kind == "proxy" and (self.client or options.proxy or rule.pool is not None):
            return self.proxy(rule, path)
        if rule.kind == "redirect" or rule.kind == "proxy":
            return self.redirect(rule, path)
        self.local(path)
        self.passthrough = self.passthrough or options.passthrough
        return None

    def set_query(self, new: list[Piece] | None, rule: RewriteRule) -> None:
        """Which query goes on: the old one, the target's, or both (QSA)."""
        options = rule.options
        old = None if options.qsdiscard or rule.drops_query else self.query
        if new is None:
            self.query = old
            return
        text = "".join(piece.query for piece in new)
        if options.qsappend and old:
            text = f"{text}&{old}" if text else old
        self.query = text.removesuffix("&") or None

    def proxy(self, rule: RewriteRule, path: list[Piece]) -> Decision:
        target = self.spelled(path, rule) or "/"
        if not target.startswith("/"):
            return Status(**self.common(), status=400, event="target_without_slash")
        query = self.query
        if _UNSAFE.search(target) or (query and _UNSAFE.search(query)):
            return Status(**self.common(), status=403, event="unsafe_target")
        if query is not None:
            target += "?" + query.replace("#", "%23")
        return Proxy(**self.common(), target=target, origin=rule.origin, pool=rule.pool)

    def spelled(self, path: list[Piece], rule: RewriteRule) -> str:
        """The path on the wire. [NE] leaves the rule's own text as it is, and in Apache everything."""
        if rule.options.noescape:
            return "".join(piece.text if piece.fixed or not self.client else piece.path for piece in path)
        if self.client:
            return "".join(piece.path for piece in path)
        return self.engine.quote("".join(piece.text for piece in path))

    def redirect(self, rule: RewriteRule, path: list[Piece]) -> Decision | None:
        options = rule.options
        text = "".join(piece.text for piece in path)
        absolute = SCHEME.match(text)
        if rule.kind == "proxy":
            assert rule.origin is not None
            authority = f"{rule.origin.scheme}://{rule.origin.authority}"
        elif absolute:
            end = re.compile(r"[^/?]*").match(text, absolute.end()).end()  # type: ignore[union-attr]
            authority, path = text[:end], _cut(path, end)
            if not _ABSOLUTE.match(authority):
                return Status(**self.common(), status=400, event="bad_redirect")
        else:
            authority = ""
            if not text.startswith("/"):
                path = [Piece("/", "/", "/", fixed=True), *path]
        self.status = options.redirect or 302
        location = authority + self.escaped(path, rule, absolute=bool(authority))
        if options.last or options.end:
            return self.redirected(location, rule)
        # Later rules see the whole URL.
        rest = "".join(piece.text for piece in path)
        self.subject = RoutePath((authority or self.public) + rest, location if authority else self.public + location)
        return None

    def escaped(self, path: list[Piece], rule: RewriteRule, *, absolute: bool) -> str:
        text = "".join(piece.text for piece in path)
        if self.client or rule.options.noescape:
            text = self.spelled(path, rule)
        else:
            text = _LOCATION_KEPT.sub(_lower_hex, text)
        return text if absolute else _NETWORK_PATH.sub("/", text)

    def redirected(self, location: str, rule: RewriteRule | None) -> Decision:
        query = self.query
        if query is not None:
            untouched = query == self.asked or self.client or (rule is not None and rule.options.noescape)
            location += "?" + (quote_controls(query) if untouched else _LOCATION_QUERY.sub(_lower_hex, query))
        if _UNSAFE.search(location):
            return Status(**self.common(), status=403, event="unsafe_redirect")
        return Redirect(**self.common(), location=location, status=self.status)

    def local(self, path: list[Piece]) -> None:
        text = "".join(piece.text for piece in path)
        raw = "".join(piece.path for piece in path) if self.client else None
        if not text.startswith("/"):
            text, raw = "/" + text, None if raw is None else "/" + raw
        if text.startswith("//"):
            text, raw = "/" + text.lstrip("/"), None
        self.subject = RoutePath(text, raw, quoted=None if raw is not None else self.engine.quote)

    def finish(self) -> Decision:
        if self.status:
            location = self.subject.raw
            if self.public and self.engine.policy.location == "path":
                location = location.removeprefix(self.public)
            return self.redirected(location, self.rule)
        if not self.changed:
            if self.env or self.cookies or self.content_type or self.passthrough:
                return NoMatch(**self.common())
            return NoMatch()
        resolved = resolve_path(self.subject.path, self.engine.policy)
        if resolved is None:
            return Status(**self.common(), status=400, event="path_above_root")
        route = self.subject
        if resolved != route.path:
            route = RoutePath(resolved, quoted=self.engine.quote)
        if self.query and _UNSAFE.search(self.query):
            return Status(**self.common(), status=403, event="unsafe_target")
        return Local(**self.common(), path=route, query=self.query, passthrough=self.passthrough)

    def fault(self, event: str) -> Decision:
        """The rules themselves go wrong on this request."""
        return Status(**self.common(), status=508 if self.client else 500, event=event)

    def common(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "env": tuple(self.env.items()),
            "cookies": tuple(self.cookies.values()),
            "vary": tuple(dict.fromkeys(self.vary)),
            "content_type": self.content_type,
        }


def _split_query(pieces: list[Piece], rule: RewriteRule) -> tuple[list[Piece], list[Piece] | None]:
    """The pieces before and after the ``?`` that the rule itself wrote: the first, or the last (QSL)."""
    places = [(at, piece.text.find("?")) for at, piece in enumerate(pieces) if piece.fixed and "?" in piece.text]
    if not places:
        return pieces, None
    if rule.options.qslast:
        at = places[-1][0]
        cut = pieces[at].text.rfind("?")
    else:
        at, cut = places[0]
    piece = pieces[at]
    before, after = piece.text[:cut], piece.text[cut + 1 :]
    head = [*pieces[:at], Piece(before, quote_path(before), before, True)] if before else pieces[:at]
    tail = [Piece(after, quote_path(after), after, True), *pieces[at + 1 :]] if after else pieces[at + 1 :]
    return head, tail


def _made_of_dots(path: list[Piece]) -> bool:
    """Whether a dot segment came about that the rule did not write: a capture of "." beside a dot of the target."""
    text = "".join(piece.text for piece in path)
    written = "".join(piece.text if piece.fixed else "*" for piece in path)
    return bool(_DOT_SEGMENT.search(text)) and not _DOT_SEGMENT.search(written)


def _cut(pieces: list[Piece], count: int) -> list[Piece]:
    """The pieces without the first ``count`` characters of their text."""
    left: list[Piece] = []
    for piece in pieces:
        size = len(piece.text)
        if count >= size:
            count -= size
            continue
        if count:
            text = piece.text[count:]
            piece = Piece(text, quote_path(text), text, piece.fixed)
            count = 0
        left.append(piece)
    return left


def _lower_hex(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02x}"


def _lookup(name: str, given: Any) -> Lookup:
    if isinstance(given, Mapping):
        return given.get
    if callable(given):
        return given  # type: ignore[no-any-return]
    raise ConfigError(f"map {name!r} must be a mapping or a function from key to value, got {given!r}")


def _variables(given: Variables | None) -> Callable[[str], str]:
    if given is None:
        return lambda name: ""
    if isinstance(given, Mapping):
        return lambda name: given.get(name, "")
    return given


def _no_files(kind: str, path: str) -> bool:
    return False


INTERNAL_MAPS: Final[Mapping[str, Lookup]] = {
    "tolower": str.lower,
    "toupper": str.upper,
    "escape": lambda key: _LOCATION_KEPT.sub(_lower_hex, key),
    "unescape": lambda key: re.sub("%([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), key),
}

__all__ = [
    "INTERNAL_MAPS",
    "Decision",
    "Local",
    "NoMatch",
    "Proxy",
    "Redirect",
    "RewriteCond",
    "RewriteEngine",
    "RewriteRule",
    "Status",
    "Step",
]
