"""mod_rewrite."""

from __future__ import annotations

from proxymw.apacheconf.directives.core import on_off
from proxymw.apacheconf.interpreter import DIRECTORY, LOCATION, SERVERS, Interpreter, directive, raw_directive
from proxymw.apacheconf.lexer import Directive, split_raw
from proxymw.apacheconf.site import CondLine, Rewriting, RuleLine

PLACES = (*SERVERS, LOCATION, DIRECTORY)


def _rewriting(run: Interpreter) -> Rewriting:
    if run.scope is None:
        return run.server.rewriting
    if run.settings.rewriting is None:
        run.settings.rewriting = Rewriting()
    return run.settings.rewriting


@directive("RewriteEngine", where=PLACES)
def rewrite_engine(run: Interpreter, item: Directive, words: list[str]) -> None:
    _rewriting(run).engine = on_off(item, words[0])


@directive("RewriteBase", where=(LOCATION, DIRECTORY))
def rewrite_base(run: Interpreter, item: Directive, words: list[str]) -> None:
    if not words[0].startswith("/"):
        raise item.error(f"must be a URL path that starts with /, got {words[0]!r}")
    _rewriting(run).base = words[0]


_OPTIONS = ("inherit", "inheritbefore", "inheritdown", "inheritdownbefore", "ignoreinherit", "allownoslash",
            "allowanyuri", "mergebase", "ignorecontextinfo", "legacyprefixdocroot", "unsafeprefixstat")  # fmt: skip


@directive("RewriteOptions", where=PLACES, count=(1, None))
def rewrite_options(run: Interpreter, item: Directive, words: list[str]) -> None:
    for word in words:
        if word.lower() not in _OPTIONS:
            raise item.error(f"must be made of {', '.join(_OPTIONS)}, got {word!r}")
        if word.lower() in ("allowanyuri", "unsafeprefixstat", "legacyprefixdocroot"):
            run.warn(item, f"{word} is accepted and without effect")
        _rewriting(run).options.add(word.lower())


_SOURCES = ("txt", "rnd", "int")
_INTERNAL = ("toupper", "tolower", "escape", "unescape")


@directive("RewriteMap", where=SERVERS, count=(2, 3), takes="a name and a source")
def rewrite_map(run: Interpreter, item: Directive, words: list[str]) -> None:
    kind, colon, source = words[1].partition(":")
    if not colon:
        kind, source = "txt", words[1]
    if kind not in _SOURCES:
        raise item.error(f"the source must be txt:FILE, rnd:FILE or int:FUNCTION, got {words[1]!r}")
    if kind == "int" and source not in _INTERNAL:
        raise item.error(f"int: must be one of {', '.join(_INTERNAL)}, got {source!r}")
    run.server.maps[words[0]] = (f"{kind}:{source}", item.place)


def _flags(item: Directive, text: str) -> str:
    if not text.startswith("[") or not text.endswith("]"):
        raise item.error(f"flags must be written as [flag,flag=value], got {text!r}")
    return text[1:-1]


@raw_directive("RewriteCond", where=PLACES)
def rewrite_cond(run: Interpreter, item: Directive, _: list[str]) -> None:
    words = split_raw(item.text, 3)
    if len(words) < 2:
        raise item.error(f"takes a test string, a pattern and flags, got {item.text!r}")
    flags = _flags(item, words[2]) if len(words) > 2 else ""
    _rewriting(run).pending.append(CondLine(words[0], words[1], flags, item.place))


@raw_directive("RewriteRule", where=PLACES)
def rewrite_rule(run: Interpreter, item: Directive, _: list[str]) -> None:
    words = split_raw(item.text, 3)
    if len(words) < 2:
        raise item.error(f"takes a pattern, a substitution and flags, got {item.text!r}")
    flags = _flags(item, words[2]) if len(words) > 2 else ""
    rewriting = _rewriting(run)
    rewriting.rules.append(RuleLine(words[0], words[1], flags, tuple(rewriting.pending), item.place))
    rewriting.pending.clear()
