"""A small part of httpd's expressions: comparisons of strings and numbers, =~, in {…}, and, or, not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from proxymw.apacheconf.parameters import c_int
from proxymw.errors import ConfigError
from proxymw.rules.patterns import compile_pattern

Lookup = Callable[[str], str]
Test = Callable[[Lookup], bool]
Word = Callable[[Lookup], str]

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<regex>m?(?<![\w)])/(?:[^/\\]|\\.)*/i?|m\#[^#]*\#i?)"""
    r"""|(?P<variable>%\{[^}]*\}|\$\d)|(?P<operator>&&|\|\||==|!=|<=|>=|=~|!~|-[a-z]{1,9}\b|[<>=!(){},])|(?P<word>[\w.:-]+))""",
    re.S,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_NUMERIC = {"-eq": "==", "-ne": "!=", "-lt": "<", "-le": "<=", "-gt": ">", "-ge": ">=",
            "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}  # fmt: skip
_UNARY: dict[str, Callable[[str], bool]] = {"-n": lambda text: text != "", "-z": lambda text: text == "",
          "-T": lambda text: text.lower() not in ("", "0", "off", "false", "no")}  # fmt: skip


def lookup_in(environ: Mapping[str, Any], extra: Mapping[str, str] | None = None) -> Lookup:
    """What ``%{NAME}`` stands for in a request; an empty text where there is nothing."""

    def lookup(name: str) -> str:
        if extra and name in extra:
            return extra[name]
        kind, colon, rest = name.partition(":")
        if colon and kind.upper() in ("HTTP", "REQ"):
            key = rest.upper().replace("-", "_")
            return str(environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key, ""))
        if colon and kind.upper() in ("ENV", "REQENV"):
            return str(environ.get(rest, ""))
        if name.upper() == "REQUEST_URI":
            return str(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
        if name.upper() == "REQUEST_SCHEME":
            return str(environ.get("wsgi.url_scheme", ""))
        value = environ.get(name.upper(), "")
        return value if isinstance(value, str) else ""

    return lookup


def compile_expression(text: str) -> Test:
    """The test that an expression stands for; ValueError for what is not supported."""
    parser = _Parser(text)
    test = parser.either()
    if parser.kind:
        raise ValueError(f"{parser.text!r} is not expected in the expression {text!r}")
    return test


class _Parser:
    def __init__(self, source: str) -> None:
        self._source, self._at, self._depth = source, 0, 0
        self.kind, self.text = "", ""
        self._next()

    def _next(self) -> tuple[str, str]:
        held = (self.kind, self.text)
        rest = self._source[self._at :]
        match = _TOKEN.match(self._source, self._at) if rest.strip() else None
        if match is None:
            if rest.strip():
                raise ValueError(f"cannot read {rest.strip()[:30]!r} in the expression {self._source!r}")
            self.kind = self.text = ""
        else:
            self._at = match.end()
            self.kind, self.text = str(match.lastgroup), match[str(match.lastgroup)]
        return held

    def _take(self, text: str) -> bool:
        if self.kind == "operator" and self.text == text:
            self._next()
            return True
        return False

    def either(self) -> Test:
        tests = [self._both()]
        while self._take("||"):
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda lookup: any(test(lookup) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self._take("&&"):
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda lookup: all(test(lookup) for test in tests)

    def _one(self) -> Test:
        self._depth += 1
        if self._depth > 100:
            raise ValueError("the expression is nested too deeply")
        try:
            return self._simple()
        finally:
            self._depth -= 1

    def _simple(self) -> Test:
        if self._take("!"):
            inner = self._one()
            return lambda lookup: not inner(lookup)
        if self._take("("):
            inner = self.either()
            if not self._take(")"):
                raise ValueError(f"a ')' is missing in the expression {self._source!r}")
            return inner
        if self.kind == "operator" and self.text in _UNARY:
            check, word = _UNARY[self._next()[1]], self._word()
            return lambda lookup: check(word(lookup))
        if self.kind == "word" and self.text.lower() in ("true", "false"):
            value = self._next()[1].lower() == "true"
            return lambda lookup: value
        return self._comparison(self._word())

    def _comparison(self, left: Word) -> Test:
        operator = self._next()[1] if self.kind in ("operator", "word") else ""
        if operator in ("=~", "!~"):
            return self._matching(left, operator == "!~")
        if operator in ("in", "-in"):
            words = self._list()
            return lambda lookup: left(lookup) in [word(lookup) for word in words]
        right = self._word()
        if operator in _NUMERIC:
            compare = _COMPARE[_NUMERIC[operator]]
            return lambda lookup: compare(c_int(left(lookup)), c_int(right(lookup)))
        if operator not in _COMPARE:
            raise ValueError(f"{operator!r} is not supported in the expression {self._source!r}")
        text_compare = _COMPARE[operator]
        return lambda lookup: text_compare(left(lookup), right(lookup))

    def _matching(self, left: Word, negated: bool) -> Test:
        if self.kind != "regex":
            raise ValueError(f"a regular expression is expected in {self._source!r}")
        text = self._next()[1].removeprefix("m")
        nocase = text.endswith("i")
        try:
            pattern = compile_pattern(text.removesuffix("i")[1:-1], nocase=nocase)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return lambda lookup: (pattern.search(left(lookup)) is not None) != negated

    def _list(self) -> list[Word]:
        if not self._take("{"):
            raise ValueError(f"a '{{' is expected after 'in' in {self._source!r}")
        words = [self._word()]
        while self._take(","):
            words.append(self._word())
        if not self._take("}"):
            raise ValueError(f"a '}}' is missing in {self._source!r}")
        return words

    def _word(self) -> Word:
        kind, text = self._next()
        if kind == "variable" and text.startswith("%"):
            name = text[2:-1]
            return lambda lookup: lookup(name)
        if kind == "string":
            return _interpolated(re.sub(r"\\(.)", r"\1", text[1:-1]))
        if kind == "word":
            return lambda lookup: text
        raise ValueError(f"a value is expected instead of {text!r} in the expression {self._source!r}")


def _interpolated(text: str) -> Word:
    if "%{" not in text:
        return lambda lookup: text
    return lambda lookup: re.sub(r"%\{([^}]*)\}", lambda m: lookup(m[1]), text)
