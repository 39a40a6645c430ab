"""DocumentRoot and Alias: files, with what ``<Directory>`` and ``<Files>`` sections say about them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from proxymw.apacheconf.fallback import Fallback
from proxymw.apacheconf.guards import guarded
from proxymw.apacheconf.lexer import ConfFileError, Place, as_path
from proxymw.apacheconf.perdirectory import BodyLimit, PathInfo
from proxymw.apacheconf.rewriting import directory_rewrite
from proxymw.apacheconf.sections import Sections, by_section
from proxymw.apacheconf.site import Scope, Settings, merge_all
from proxymw.errors import ConfigError, RequestRefused
from proxymw.exchange.inbound import NOT_FOUND, inbound, refuse
from proxymw.rules.matchers import PrefixTable
from proxymw.rules.mediatypes import TYPES, MediaTypes
from proxymw.static import StaticOrPass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from proxymw.apacheconf.build import HostParts
    from proxymw.apacheconf.site import Server, Site
    from proxymw.rules.policy import Policy


class Aliases:
    """The first alias whose path covers the request's answers it; the path stays as it is."""

    def __init__(self, app: WSGIApplication, aliases: Iterable[tuple[str, WSGIApplication]], *, policy: Policy) -> None:
        self.app, self.aliases = app, tuple(aliases)
        self._table, self._policy = PrefixTable(self.aliases), policy

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            app = self.match(inbound(environ, self._policy).path)
        except RequestRefused as error:
            return refuse(environ, start_response, error)
        return app(environ, start_response)

    def match(self, path: str) -> WSGIApplication:
        found = self._table.match(path)
        return self.app if found is None else found[0]

    def __repr__(self) -> str:
        return f"<Aliases {', '.join(prefix for prefix, _ in self.aliases)} -> {self.app!r}>"


class OneFile:
    """An Alias to a file: the path is that file, and there is nothing below it."""

    def __init__(self, prefix: str, folder: WSGIApplication, name: str) -> None:
        self.prefix, self.app, self.name = prefix, folder, name

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not self.covers(environ):
            return NOT_FOUND(environ, start_response)
        return self.app(self.inner(environ), start_response)

    def covers(self, environ: WSGIEnvironment) -> bool:
        return bool(environ.get("PATH_INFO", "").rstrip("/") == self.prefix.rstrip("/"))

    def inner(self, environ: WSGIEnvironment) -> WSGIEnvironment:
        """A copy of the environ that asks for the file in its folder."""
        # The name stands in a URL path as bytes.
        return {**environ, "PATH_INFO": "/" + os.fsencode(self.name).decode("latin-1")}

    def __repr__(self) -> str:
        return f"<OneFile {self.name} of {self.app!r}>"


@dataclass(frozen=True, slots=True)
class Documents:
    """Makes the applications that serve a server's files."""

    site: Site
    server: Server
    policy: Policy
    parts: HostParts

    def application(self, location: Settings) -> WSGIApplication:
        """Aliases before the document root, under the settings that the request's locations have."""
        server = self.server
        app = self._nothing(location)
        if server.document_root is not None:
            app = self._root("/", *server.document_root, location)
        aliases = []
        for pair, regex in server.alias_map:
            if regex:
                raise ConfFileError(pair.place, "AliasMatch", "is not supported; write Alias, or RewriteRule with [PT]")
            aliases.append((pair.first, self._root(pair.first, pair.second, pair.place, location)))
        return Aliases(app, aliases, policy=self.policy) if aliases else app

    def _root(self, prefix: str, text: str, place: Place, location: Settings) -> WSGIApplication:
        path = os.path.join(self.site.server_root or os.path.dirname(place.file), as_path(text))
        if os.path.isfile(path):
            folder, name = os.path.split(path)
            return OneFile(prefix, self._tree("/", folder, place, location), name)
        return self._tree(prefix, path, place, location) if os.path.isdir(path) else self._nothing(location)

    def _nothing(self, location: Settings) -> WSGIApplication:
        target = self.server.settings.merged(location).fallback
        return Fallback(None, target, self.parts.front_door, policy=self.policy) if target else NOT_FOUND

    def _tree(self, prefix: str, root: str, place: Place, location: Settings) -> WSGIApplication:
        """The files below `root`, each under the sections that cover it."""
        root = os.path.abspath(root)
        chosen: list[Scope] = []
        always: list[Settings] = [self.server.settings]
        ordered = sorted((s for s in self.server.directories if not s.regex), key=lambda s: s.pattern.count("/"))
        for scope in ordered:
            if not re.search(r"[*?\[]", scope.pattern) and _within(root, scope.pattern) and not scope.inner:
                always.append(scope.settings)
            else:
                chosen.append(scope)
        chosen += [scope for scope in self.server.directories if scope.regex]
        chosen += [scope for directory in self.server.directories for scope in directory.inner]
        chosen += [scope for scope in self.server.files if not _hides_ht(scope)]
        base = merge_all(always)

        def build(scopes: tuple[Scope, ...]) -> WSGIApplication:
            found = merge_all([base, *(scope.settings for scope in scopes)])
            return self._static(prefix, root, place, found, location)

        if not chosen:
            return build(())
        below = [_as_prefix(scope, prefix, root) for scope in chosen if scope.kind == "directory" and not scope.inner]
        if len(below) == len(chosen) and None not in below:
            prefixes = [one for one in below if one is not None]
            return by_section(prefixes, build, policy=self.policy)
        return Sections(chosen, build, policy=self.policy, matches=_covers(prefix, root, self.server.directories))

    def _static(self, prefix: str, root: str, place: Place, found: Settings, location: Settings) -> WSGIApplication:
        settings = found.merged(location)
        try:
            files: StaticOrPass | Fallback = StaticOrPass(None, root, prefix=prefix, **self._options(settings))
        except ConfigError as error:
            raise ConfFileError(place, "DocumentRoot", str(error)) from None
        if settings.fallback and isinstance(files, StaticOrPass):
            files = Fallback(files, settings.fallback, self.parts.front_door, policy=self.policy)
        app = self._rewritten(files, prefix, root, found, location)
        if app is files and settings.accept_path_info:
            app = PathInfo(files, policy=self.policy)
        if settings.body_limit:
            app = BodyLimit(app, settings.body_limit)
        # Who may: a Location's word replaces that of a Directory; it stands at the front of everything.
        inner = replace(
            settings,
            access=None if location.access is not None else settings.access,
            require=None if location.require is not None else settings.require,
        )
        return guarded(app, inner, self.policy)

    def _rewritten(
        self, files: StaticOrPass | Fallback, prefix: str, root: str, found: Settings, location: Settings
    ) -> WSGIApplication:
        """Behind the rules of the location, else of the innermost directory that has any."""
        if location.rewriting is not None:
            settings = self.server.settings.merged(location)
            return directory_rewrite(files, settings, self.parts, strip="", lead=root.rstrip("/"), folder=root)
        if found.rewriting is None:
            return files
        scopes = [s for s in self.server.directories if s.settings.rewriting is found.rewriting]
        folder = os.path.abspath(as_path(scopes[0].pattern)) if scopes and not scopes[0].regex else root
        below = folder[len(root.rstrip("/")) :] if _within(folder, root) else ""
        strip = prefix.rstrip("/") + below.rstrip("/") + "/"
        return directory_rewrite(files, found, self.parts, strip=strip, lead="", folder=folder)

    def _options(self, settings: Settings) -> dict[str, Any]:
        return {
            "index": _index(settings),
            "slash_redirect": settings.directory_slash is not False,
            "symlinks": _symlinks(settings),
            "mimetypes": self._types(settings),
            "etag": _etag(settings),
            "policy": self.policy,
        }

    def _types(self, settings: Settings) -> MediaTypes:
        extra = {f".{extension}": kind for extension, kind in {**self.site.types, **settings.types}.items()}
        if settings.force_type:
            return MediaTypes(table={}, default=settings.force_type, charset="")
        return MediaTypes(extra, table=_table(self.site), default="", charset="", every_extension=True)


def _hides_ht(scope: Scope) -> bool:
    """The section that every configuration has; files named .ht… are never served anyway."""
    require = scope.settings.require or []
    denied = [one.kind == "all" and one.values[0].lower() == "denied" for one in require]
    return scope.pattern in (r"^\.ht", ".ht*") and denied == [True] and scope.settings == Settings(require=require)


def _as_prefix(scope: Scope, prefix: str, root: str) -> Scope | None:
    """A <Directory> below the root as the URL path that it stands for."""
    folder = os.path.abspath(as_path(scope.pattern))
    if not scope.plain() or not _within(folder, root):
        return None
    below = folder[len(root.rstrip("/")) :].encode("utf-8", "surrogateescape").decode("latin-1")
    return replace(scope, pattern=prefix.rstrip("/") + below)


def _within(root: str, directory: str) -> bool:
    return (root.rstrip("/") + "/").startswith(as_path(directory).rstrip("/") + "/")


def _covers(prefix: str, root: str, directories: list[Scope]) -> Any:
    inner = {id(scope): directory for directory in directories for scope in directory.inner}

    def covers(scope: Scope, path: str) -> bool:
        below = path[len(prefix.rstrip("/")) :]
        name = root.rstrip("/") + below.encode("latin-1").decode("utf-8", "surrogateescape")
        around = inner.get(id(scope))
        if around is not None and not around.covers(name):
            return False
        if scope.kind == "files":
            # Every segment: a file may be followed by more path, and nothing is served around its section.
            return any(scope.covers(segment) for segment in path.split("/") if segment)
        return scope.covers(name)

    return covers


def _index(settings: Settings) -> tuple[str, ...]:
    names = ("index.html",) if settings.directory_index is None else settings.directory_index
    return tuple(name for name in names if "/" not in name)


def _symlinks(settings: Settings) -> str:
    options = settings.options
    if options is None or "followsymlinks" in options or "all" in options or "+followsymlinks" in options:
        return "inside"
    return "owner" if "symlinksifownermatch" in options or "+symlinksifownermatch" in options else "refuse"


def _etag(settings: Settings) -> tuple[str, ...]:
    parts = {"mtime", "size"}
    words = settings.file_etag or ()
    if words and not any(word[0] in "+-" for word in words):
        parts = set()
    for word in words:
        name = word.lstrip("+-")
        names = {"inode", "mtime", "size"} if name == "all" else {name} & {"inode", "mtime", "size"}
        if name == "none":
            parts = set()
        elif word.startswith("-"):
            parts -= names
        else:
            parts |= names
    return tuple(part for part in ("inode", "mtime", "size") if part in parts)


def _table(site: Site) -> Any:
    """The media types of TypesConfig, or those that are shipped."""
    if site.types_file is None:
        return TYPES
    text, place = site.types_file
    path = os.path.join(site.server_root or os.path.dirname(place.file), as_path(text))
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read(1 << 20).splitlines()
    except OSError as error:
        raise ConfFileError(place, "TypesConfig", f"cannot read {text}: {error.strerror}") from None
    table = {}
    for line in lines:
        if not line.startswith("#"):
            kind, *extensions = line.split() or [""]
            table.update({f".{extension.lower()}": kind for extension in extensions})
    return table
