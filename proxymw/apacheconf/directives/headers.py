"""Headers and environment: mod_headers, mod_env, mod_setenvif."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from proxymw.apacheconf.directives.core import check_regex
from proxymw.apacheconf.interpreter import ANYWHERE, DIRECTORY, LOCATION, SERVERS, Interpreter, directive
from proxymw.apacheconf.site import HeaderLine, SetEnvLine

if TYPE_CHECKING:
    from proxymw.apacheconf.lexer import Directive

_ACTIONS = ("set", "append", "merge", "add", "unset", "setifempty", "edit", "edit*", "note", "echo")
_SUPPORTED = ("set", "append", "merge", "add", "unset", "setifempty", "edit", "edit*")


@directive("Header", "RequestHeader", where=ANYWHERE, count=(2, 6))
def header(run: Interpreter, item: Directive, words: list[str]) -> None:
    response = item.key == "header"
    always = False
    if response and words[0].lower() in ("always", "onsuccess"):
        always, words = words[0].lower() == "always", words[1:]
    action = words[0].lower() if words else ""
    if action not in _ACTIONS:
        raise item.error(f"the action must be one of {', '.join(_SUPPORTED)}, got {action!r}")
    if action not in _SUPPORTED:
        raise item.error(f"{action!r} is not supported, {', '.join(_SUPPORTED)} are")
    needs = {"unset": 2, "edit": 4, "edit*": 4}.get(action, 3)
    env = ""
    if len(words) == needs + 1:
        env, words = _condition(item, words[-1]), words[:-1]
    if len(words) != needs:
        raise item.error(f"'{action}' takes a name{' and a value' if needs > 2 else ''}, got {words[1:]!r}")
    name = words[1].rstrip(":")
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise item.error(f"the header must be a token, got {words[1]!r}")
    value = words[2] if needs > 2 else ""
    if action.startswith("edit"):
        check_regex(item, value)
    elif needs > 2:
        _check_format(item, value)
    line = HeaderLine(action, name, value, item.place, always, env, words[3] if needs > 3 else "")
    (run.settings.headers if response else run.settings.request_headers).append(line)


def _condition(item: Directive, word: str) -> str:
    if word.lower() == "early":
        raise item.error("'early' is not supported; leave it out")
    if not word.startswith("env="):
        raise item.error(f"the condition must be env=NAME or env=!NAME, got {word!r}")
    return word[4:]


def _check_format(item: Directive, value: str) -> None:
    for match in re.finditer(r"%(%|t|D|l|i|b|\{[^}]*\}[a-zA-Z]|)", value):
        if not re.fullmatch(r"%|t|D|\{[^}]*\}e|\{[^}]*\}s", match[1]):
            raise item.error(f"in a value only %%, %t, %D, %{{NAME}}e are supported, got {match[0]!r} in {value!r}")


@directive("SetEnv", where=ANYWHERE, count=(1, 2))
def set_env(run: Interpreter, item: Directive, words: list[str]) -> None:
    value = words[1] if len(words) > 1 else ""
    run.settings.env.append(SetEnvLine("", "", False, ((words[0], value),), item.place))


@directive("UnsetEnv", where=ANYWHERE, count=(1, None))
def unset_env(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.settings.env.append(SetEnvLine("", "", False, tuple((word, None) for word in words), item.place))


@directive("PassEnv", where=ANYWHERE, count=(1, None))
def pass_env(run: Interpreter, item: Directive, words: list[str]) -> None:
    import os

    found = tuple((word, os.environ[word]) for word in words if word in os.environ)
    run.settings.env.append(SetEnvLine("", "", False, found, item.place))


def _variables(words: list[str]) -> tuple[tuple[str, str | None], ...]:
    out: list[tuple[str, str | None]] = []
    for word in words:
        if word.startswith("!"):
            out.append((word[1:], None))
        else:
            name, equals, value = word.partition("=")
            out.append((name, value if equals else "1"))
    return tuple(out)


@directive("SetEnvIf", "SetEnvIfNoCase", where=(*SERVERS, LOCATION, DIRECTORY), count=(3, None))
def set_env_if(run: Interpreter, item: Directive, words: list[str]) -> None:
    check_regex(item, words[1])
    nocase = item.key == "setenvifnocase"
    run.settings.env.append(SetEnvLine(words[0], words[1], nocase, _variables(words[2:]), item.place))


@directive("BrowserMatch", "BrowserMatchNoCase", where=(*SERVERS, LOCATION, DIRECTORY), count=(2, None))
def browser_match(run: Interpreter, item: Directive, words: list[str]) -> None:
    check_regex(item, words[0])
    nocase = item.key == "browsermatchnocase"
    run.settings.env.append(SetEnvLine("User-Agent", words[0], nocase, _variables(words[1:]), item.place))
