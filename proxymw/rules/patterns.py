"""Regular expressions as Apache means them, compiled by ``re``."""

from __future__ import annotations

import re
import warnings

from ..errors import ConfigError
from .backtracking import explodes

#: Longer subjects are not matched (LimitRequestLine): it bounds what backtracking can cost.
SUBJECT_MOST = 8190

_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": r"\x21-\x7e",
    "lower": "a-z",
    "print": r"\x20-\x7e",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "word": r"\w",
    "xdigit": "0-9A-Fa-f",
}
_WHOLE_PATH = re.compile(r"\^\(\.[*+]\)\$?")
_CLASS_NAME = re.compile(r"\[:(\^?)([a-z]+):\]")
# What PCRE has and re does not, or means differently.
_FOREIGN_ESCAPE = frozenset("CEGKNPQRXcegpo")
_FOREIGN_GROUP = re.compile(r"\((?:\*|\?(?:R|\||&|C|\+?\d|-\d|P>))")
_NAMED_GROUP = re.compile(r"\(\?<(?![=!])")
_BRACED_HEX = re.compile(r"x\{([0-9A-Fa-f]{1,2})\}")


def compile_pattern(
    text: str, *, nocase: bool = False, name: str = "pattern", backtracking: bool = False
) -> re.Pattern[str]:
    r"""``text`` compiled for searching in a decoded path or another latin-1 string.

    PCRE's defaults in Apache: ``.`` matches a newline too and ``$`` only the very end (PCRE_DOTALL, DOLLAR_ENDONLY).
    Classes and case are ASCII; text beyond ASCII in the pattern is UTF-8. ConfigError for syntax that only PCRE has,
    and, unless ``backtracking`` allows it, for a repeat inside a repeat that can take exponential time.
    """
    if not isinstance(text, str):
        raise ConfigError(f"{name} must be a regular expression, got {text!r}")
    translated = _translated(text.encode("utf-8", "surrogateescape").decode("latin-1"), text, name)
    flags = re.DOTALL | re.ASCII | (re.IGNORECASE if nocase else 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pattern = re.compile(translated, flags)
            risky = not backtracking and explodes(translated, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{name} must be a regular expression, got {text!r}: {error}") from None
    if risky:
        raise ConfigError(
            f"{name} must not repeat what repeats itself: a long path could keep {text!r} busy for minutes. "
            f"Make the inner part possessive, as in (a++)*, or allow it with backtracking=True"
        )
    return pattern


def literal_start(text: str) -> tuple[str, bool]:
    """The literal text that every match of an anchored pattern starts with, and whether the pattern is anchored."""
    if not text.startswith("^"):
        return "", False
    found = re.match(r"(?:[^\\.^$*+?{}\[\]|()]|\\[^A-Za-z0-9])*", text[1:])
    literal = found[0] if found else ""
    rest = text[1 + len(literal) :]
    if "|" in text:
        return "", False  # may be at top level; not worth finding out
    if rest[:1] in ("*", "?", "{", "+"):
        literal = re.sub(r"(?:\\.|.)\Z", "", literal, flags=re.DOTALL)
    return re.sub(r"\\(.)", r"\1", literal).encode("utf-8", "surrogateescape").decode("latin-1"), True


def group_starts_with_slash(text: str, number: int) -> bool:
    """Whether group ``number`` of the pattern, if it takes part, always begins with ``/``, as every path does."""
    if number < 2 and _WHOLE_PATH.fullmatch(text):
        return True
    if number == 0:
        return text.startswith(("^/", "/")) and "|" not in text
    seen = 0
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 2
            continue
        if char == "[":
            at = _class_end(text, at)
            continue
        if char == "(" and text[at + 1 : at + 2] != "?":
            seen += 1
            if seen == number:
                body = text[at + 1 :].removeprefix("\\")
                return body.startswith("/") and body[1:2] not in ("*", "?", "{") and "|" not in body
        at += 1
    return False


def _class_end(text: str, at: int) -> int:
    """Just past the ``]`` of the class that starts at ``at``."""
    at += 1
    if text[at : at + 1] == "^":
        at += 1
    if text[at : at + 1] == "]":
        at += 1
    while at < len(text) and text[at] != "]":
        named = _CLASS_NAME.match(text, at)
        at = named.end() if named else at + (2 if text[at] == "\\" else 1)
    return at + 1


def _translated(text: str, written: str, name: str) -> str:
    """The pattern in re's syntax."""
    out: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            escape, at = _escape(text, at, written, name, in_class=False)
            out.append(escape)
        elif char == "[":
            end = _class_end(text, at)
            out.append(_class(text[at:end], written, name))
            at = end
        elif char == "$":
            out.append(r"\Z")
            at += 1
        elif char == "(" and _FOREIGN_GROUP.match(text, at):
            raise ConfigError(
                f"{name} must do without groups that only PCRE has, got {written!r} ({text[at : at + 4]})"
            )
        elif _NAMED_GROUP.match(text, at):
            out.append("(?P<")
            at += 3
        else:
            out.append(char)
            at += 1
    return "".join(out)


def _class(text: str, written: str, name: str) -> str:
    out = [text[0]]
    at = 1
    while at < len(text):
        named = _CLASS_NAME.match(text, at)
        if named:
            negated, which = named.groups()
            if negated or which not in _POSIX:
                raise ConfigError(f"{name} must use POSIX classes that exist, got {written!r} ({named[0]})")
            out.append(_POSIX[which])
            at = named.end()
        elif text[at] == "\\":
            escape, at = _escape(text, at, written, name, in_class=True)
            out.append(escape)
        else:
            out.append("\\[" if text[at] == "[" else text[at])
            at += 1
    return "".join(out)


def _escape(text: str, at: int, written: str, name: str, *, in_class: bool) -> tuple[str, int]:
    letter = text[at + 1 : at + 2]
    braced = _BRACED_HEX.match(text, at + 1)
    if braced:
        return f"\\x{int(braced[1], 16):02x}", braced.end()
    if letter == "h":
        return r" \t" if in_class else r"[ \t]", at + 2
    if letter == "z" and not in_class:
        return r"\Z", at + 2
    if letter == "Z" and not in_class:
        return r"(?=\n?\Z)", at + 2
    if letter in _FOREIGN_ESCAPE:
        raise ConfigError(f"{name} must do without \\{letter}, which only PCRE has, got {written!r}")
    return text[at : at + 2], at + 2
