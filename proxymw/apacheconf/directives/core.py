"""Servers, sections, documents: httpd's core, mod_dir, mod_alias, mod_mime, mod_remoteip."""

from __future__ import annotations

import re

from proxymw.apacheconf.interpreter import (
    ANYWHERE,
    DIRECTORY,
    HOST,
    LOCATION,
    PROXY,
    SERVER,
    SERVERS,
    TOP,
    Interpreter,
    directive,
    raw_directive,
    section,
)
from proxymw.apacheconf.lexer import Directive, Section, next_word
from proxymw.apacheconf.parameters import c_int, seconds
from proxymw.apacheconf.site import CondLine, Entry, Pair, RedirectLine, Scope, Server, Warned, merge_options
from proxymw.errors import ConfigError
from proxymw.rules.patterns import compile_pattern

FILES_IN = (*SERVERS, DIRECTORY, LOCATION)
DIRS = (*SERVERS, LOCATION, DIRECTORY)


def on_off(item: Directive, word: str) -> bool:
    if word.lower() not in ("on", "off"):
        raise item.error(f"must be On or Off, got {word!r}")
    return word.lower() == "on"


def number(item: Directive, word: str, least: int = 0) -> int:
    if not re.fullmatch(r"-?\d+", word) or int(word) < least:
        raise item.error(f"must be a number of at least {least}, got {word!r}")
    return int(word)


def check_regex(item: Directive, pattern: str) -> None:
    try:
        compile_pattern(pattern)
    except ConfigError as error:
        raise item.error(str(error)) from None


# -- servers -------------------------------------------------------------------------------------------------------


@section("VirtualHost", where=TOP)
def virtual_host(run: Interpreter, item: Directive, words: list[str]) -> None:
    assert isinstance(item, Section)
    if not words:
        raise item.error("takes at least one address[:port], got none")
    server = Server(place=item.place, addresses=tuple(words))
    run.site.hosts.append(server)
    held, run.server = run.server, server
    with run.inside(HOST):
        run.run(item.children)
    _no_pending(run, server)
    run.server = held


def _no_pending(run: Interpreter, server: Server) -> None:
    for cond in server.rewriting.pending:
        run.site.warnings.append(_lost_condition(cond))
    server.rewriting.pending.clear()


def _lost_condition(cond: CondLine) -> Warned:
    return Warned(cond.place, "RewriteCond", "no RewriteRule follows, so it has no effect")


_SERVER_NAME = re.compile(r"(?:([a-zA-Z][\w+.-]*)://)?(\[[0-9A-Fa-f:.]+\]|[^:/\[\]]+)(?::(\d+))?/?")


@directive("ServerName", where=SERVERS, takes="the host name and port of the server")
def server_name(run: Interpreter, item: Directive, words: list[str]) -> None:
    match = _SERVER_NAME.fullmatch(words[0])
    if match is None or (match[3] and not 0 < int(match[3]) < 65536):
        raise item.error(f"must be [scheme://]host[:port], got {words[0]!r}")
    run.server.scheme = (match[1] or "").lower()
    run.server.name = match[2]
    run.server.port = int(match[3]) if match[3] else None


@directive("ServerAlias", where=(HOST,), count=(1, None), takes="host names, also with * and ?")
def server_alias(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.aliases.extend(words)


@directive("ServerAdmin", where=SERVERS)
def server_admin(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.admin = words[0]


@directive("ServerRoot", where=TOP)
def server_root(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.site.server_root = words[0]


@directive("DocumentRoot", where=SERVERS, takes="a directory")
def document_root(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.document_root = (words[0], item.place)


@directive("UseCanonicalName", where=(*SERVERS, DIRECTORY))
def use_canonical_name(run: Interpreter, item: Directive, words: list[str]) -> None:
    if words[0].lower() not in ("on", "off", "dns"):
        raise item.error(f"must be On, Off or DNS, got {words[0]!r}")
    if words[0].lower() == "dns":
        raise item.error("DNS is not supported, On and Off are: no name look-ups are made for a request")
    run.settings.canonical_name = words[0].lower() == "on"


@directive("StrictHostCheck", where=SERVERS)
def strict_host_check(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.strict_host = on_off(item, words[0])


@directive("TraceEnable", where=SERVERS)
def trace_enable(run: Interpreter, item: Directive, words: list[str]) -> None:
    word = words[0].lower()
    if word not in ("on", "off", "extended"):
        raise item.error(f"must be On, Off or extended, got {words[0]!r}")
    run.server.trace = word
    if word != "off":
        run.warn(item, "TRACE is always answered 405 here: it shows a page its own cookies")


@directive("AllowEncodedSlashes", where=SERVERS)
def allow_encoded_slashes(run: Interpreter, item: Directive, words: list[str]) -> None:
    word = words[0].lower()
    if word not in ("on", "off", "nodecode"):
        raise item.error(f"must be On, Off or NoDecode, got {words[0]!r}")
    run.server.encoded_slashes = word


@directive("MergeSlashes", where=SERVERS)
def merge_slashes(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.merge_slashes = on_off(item, words[0])


@directive("Timeout", where=SERVERS)
def timeout(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.timeout = float(number(item, words[0], 1))


@directive("LimitRequestBody", where=DIRS)
def limit_request_body(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.settings.body_limit = number(item, words[0])


@directive("HttpProtocolOptions", where=SERVERS, count=(1, 3))
def http_protocol_options(run: Interpreter, item: Directive, words: list[str]) -> None:
    for word in words:
        if word.lower() not in ("strict", "unsafe", "registeredmethods", "lenientmethods", "allow0.9", "require1.0"):
            raise item.error(f"must be Strict, Unsafe, RegisteredMethods, LenientMethods or Require1.0, got {word!r}")
        if word.lower() in ("unsafe", "allow0.9"):
            run.warn(item, f"{word} is accepted and without effect: requests are always checked strictly")


# -- sections ------------------------------------------------------------------------------------------------------


def _scope(run: Interpreter, item: Directive, words: list[str], kind: str) -> Scope:
    regex = item.key.endswith("match")
    if words and words[0] == "~":
        regex, words = True, words[1:]
    if len(words) != 1:
        raise item.error(f"takes one {'pattern' if regex else 'path'}, got {len(words)}")
    if regex:
        check_regex(item, words[0])
    pattern = words[0]
    if kind == "location" and not regex and not pattern.startswith("/"):
        pattern = "/" + pattern
    return Scope(kind, pattern, regex, item.place)


def _enter(run: Interpreter, item: Directive, scope: Scope, place: str) -> None:
    assert isinstance(item, Section)
    with run.inside(place, scope):
        run.run(item.children)


@section("Location", "LocationMatch", where=SERVERS)
def location(run: Interpreter, item: Directive, words: list[str]) -> None:
    scope = _scope(run, item, words, "location")
    run.server.locations.append(scope)
    _enter(run, item, scope, LOCATION)


@section("Directory", "DirectoryMatch", where=SERVERS)
def directory(run: Interpreter, item: Directive, words: list[str]) -> None:
    scope = _scope(run, item, words, "directory")
    run.server.directories.append(scope)
    _enter(run, item, scope, DIRECTORY)


@section("Files", "FilesMatch", where=FILES_IN)
def files(run: Interpreter, item: Directive, words: list[str]) -> None:
    scope = _scope(run, item, words, "files")
    (run.server.files if run.scope is None else run.scope.inner).append(scope)
    _enter(run, item, scope, DIRECTORY)


@section("Limit", "LimitExcept", where=(*SERVERS, LOCATION, DIRECTORY, PROXY))
def limit(run: Interpreter, item: Directive, words: list[str]) -> None:
    assert isinstance(item, Section)
    if not words:
        raise item.error("takes at least one method, got none")
    held, run.limit = run.limit, Entry("", item.place, frozenset(words), item.key == "limitexcept")
    run.run(item.children)
    run.limit = held


# -- documents -----------------------------------------------------------------------------------------------------


@directive("DirectoryIndex", where=DIRS, count=(1, None))
def directory_index(run: Interpreter, item: Directive, words: list[str]) -> None:
    names = () if [word.lower() for word in words] == ["disabled"] else tuple(words)
    held = run.settings.directory_index
    # Lines of one section add up; "disabled" starts afresh.
    run.settings.directory_index = names if not names or held is None else (*held, *names)


@directive("DirectorySlash", where=DIRS)
def directory_slash(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.settings.directory_slash = on_off(item, words[0])


@directive("FallbackResource", where=DIRS)
def fallback_resource(run: Interpreter, item: Directive, words: list[str]) -> None:
    if words[0].lower() != "disabled" and not words[0].startswith("/"):
        raise item.error(f"must be a URL path that starts with / or disabled, got {words[0]!r}")
    run.settings.fallback = "" if words[0].lower() == "disabled" else words[0]


@directive("FileETag", where=DIRS, count=(1, None))
def file_etag(run: Interpreter, item: Directive, words: list[str]) -> None:
    for word in words:
        if word.lstrip("+-").lower() not in ("inode", "mtime", "size", "all", "none", "digest"):
            raise item.error(f"must be made of INode, MTime, Size, Digest, All, None, got {word!r}")
    run.settings.file_etag = tuple(word.lower() for word in words)


@directive("AcceptPathInfo", where=DIRS)
def accept_path_info(run: Interpreter, item: Directive, words: list[str]) -> None:
    if words[0].lower() not in ("on", "off", "default"):
        raise item.error(f"must be On, Off or Default, got {words[0]!r}")
    run.settings.accept_path_info = words[0].lower() == "on"


_OPTIONS = ("all", "none", "execcgi", "followsymlinks", "includes", "includesnoexec", "indexes", "multiviews",
            "symlinksifownermatch")  # fmt: skip


@directive("Options", where=DIRS, count=(1, None))
def options(run: Interpreter, item: Directive, words: list[str]) -> None:
    for word in words:
        if word.lstrip("+-").lower() not in _OPTIONS:
            raise item.error(f"must be made of {', '.join(_OPTIONS)}, got {word!r}")
        if word.lstrip("+-").lower() in ("execcgi", "includes", "includesnoexec", "multiviews"):
            run.warn(item, f"{word} is accepted and without effect: files are served as they are")
    signed = {word[0] in "+-" for word in words}
    if len(signed) > 1:
        raise item.error("either all options must have + or -, or none")
    words = [word.lower() for word in words]
    held = run.settings.options
    run.settings.options = tuple(words) if held is None else merge_options(held, tuple(words))


@directive("AllowOverride", "AllowOverrideList", where=(DIRECTORY, LOCATION, *SERVERS), count=(1, None))
def allow_override(run: Interpreter, item: Directive, words: list[str]) -> None:
    if any(word.lower() != "none" for word in words):
        run.warn(item, "accepted and without effect: .htaccess files are not read")


@directive("AddType", where=DIRS, count=(2, None))
def add_type(run: Interpreter, item: Directive, words: list[str]) -> None:
    for extension in words[1:]:
        run.settings.types[extension.lstrip(".").lower()] = words[0]


@directive("ForceType", where=DIRS)
def force_type(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.settings.force_type = "" if words[0].lower() == "none" else words[0]


@directive("TypesConfig", where=TOP)
def types_config(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.site.types_file = (words[0], item.place)


@directive("SetHandler", where=DIRS)
def set_handler(run: Interpreter, item: Directive, words: list[str]) -> None:
    word = words[0].lower()
    if word not in ("balancer-manager", "none"):
        raise item.error(f"must be balancer-manager or None, got {words[0]!r}")
    run.settings.handler = word


@raw_directive("ErrorDocument", where=ANYWHERE)
def error_document(run: Interpreter, item: Directive, words: list[str]) -> None:
    code, rest = next_word(item.text)
    if not re.fullmatch(r"[345]\d\d", code) or not rest:
        raise item.error(f"takes a status of 300 to 599 and a text, local path or URL, got {item.text!r}")
    value = next_word(rest)[0]
    quoted = rest[:1] in ('"', "'")
    if not quoted and not value.startswith(("/", '"')) and not re.match(r"[a-z]+://", value) and value != "default":
        value = rest
    if re.match(r"https?://", value) and code == "401":
        run.warn(item, "a redirect cannot ask for a password; the default page is sent")
        value = "default"
    run.settings.error_documents[int(code)] = value


# -- aliases and redirects -----------------------------------------------------------------------------------------


@directive("Alias", "AliasMatch", where=SERVERS, count=(2, 2), takes="a URL path and a file path")
def alias(run: Interpreter, item: Directive, words: list[str]) -> None:
    regex = item.key == "aliasmatch"
    if regex:
        check_regex(item, words[0])
    run.server.alias_map.append((Pair(words[0], words[1], item.place), regex))


_STATUS_NAMES = {"permanent": 301, "temp": 302, "seeother": 303, "gone": 410}


@directive("Redirect", "RedirectMatch", where=SERVERS, count=(1, 3))
def redirect(run: Interpreter, item: Directive, words: list[str]) -> None:
    status = 302
    first = words[0].lower()
    if first in _STATUS_NAMES or re.fullmatch(r"[345]\d\d", first):
        status, words = _STATUS_NAMES.get(first) or c_int(first), words[1:]
    _add_redirect(run, item, words, status, item.key == "redirectmatch")


@directive("RedirectPermanent", "RedirectTemp", where=SERVERS, count=(2, 2))
def redirect_named(run: Interpreter, item: Directive, words: list[str]) -> None:
    _add_redirect(run, item, words, 301 if item.key == "redirectpermanent" else 302, False)


def _add_redirect(run: Interpreter, item: Directive, words: list[str], status: int, regex: bool) -> None:
    wants_url = 300 <= status < 400
    if len(words) != (2 if wants_url else 1):
        raise item.error(
            f"takes a path and a URL for a {status}" if wants_url else f"takes a path and no URL for a {status}"
        )
    if regex:
        check_regex(item, words[0])
    elif not words[0].startswith("/"):
        raise item.error(f"the path must start with /, got {words[0]!r}")
    target = words[1] if wants_url else ""
    if wants_url and not regex and not re.match(r"[a-zA-Z][\w+.-]*:|/", target):
        raise item.error(f"must redirect to an absolute URL or a path that starts with /, got {target!r}")
    run.server.redirects.append(RedirectLine(words[0], target, status, item.place, regex))


# -- the client's address ------------------------------------------------------------------------------------------


@directive("RemoteIPHeader", where=SERVERS)
def remote_ip_header(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.remote_header = words[0]


@directive("RemoteIPTrustedProxy", where=SERVERS, count=(1, None))
def remote_ip_trusted(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.trusted.extend(words)


@directive("RemoteIPInternalProxy", where=SERVERS, count=(1, None))
def remote_ip_internal(run: Interpreter, item: Directive, words: list[str]) -> None:
    run.server.internal.extend(words)


__all__ = ["SERVER", "check_regex", "number", "on_off", "seconds"]
