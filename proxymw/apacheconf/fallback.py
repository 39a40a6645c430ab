"""FallbackResource: another path is asked of the same host where a request's own maps to nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import unquote

from proxymw.apacheconf.perdirectory import PathInfo
from proxymw.errors import RequestRefused
from proxymw.exchange.inbound import NOT_FOUND, inbound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from proxymw.rules.policy import Policy
    from proxymw.static import Found, StaticOrPass

#: The request and its start_response as they came to the host; ErrorPages does not hand them on to a page.
_FRONT = "proxymw.front"
#: The fallbacks that were taken so far; one that comes up again is 404.
_TAKEN = "proxymw.fallbacks"


class Front:
    """A host's stack, which its fallbacks ask again."""

    def __init__(self) -> None:
        self.app: WSGIApplication = NOT_FOUND

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[_FRONT] = dict(environ), start_response
        return self.app(environ, start_response)

    def __repr__(self) -> str:
        return f"<Front {self.app!r}>"


class Fallback:
    """The ``files``, or what the host says to the path ``target`` where there is neither a file nor an index.

    Without files (there is no such folder) every path is one of nothing. The sections of the target hold for the
    answer, and those of the first path do not: its header lines are not applied on top.
    """

    def __init__(self, files: StaticOrPass | None, target: str, front: Front, *, policy: Policy) -> None:
        self.app: WSGIApplication = NOT_FOUND if files is None else files
        self.files, self.target, self.front, self._policy = files, target, front, policy

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        inner = self.inner(environ)
        if inner is None:
            return self.app(environ, start_response)
        if self.taken(environ):
            return NOT_FOUND(environ, start_response)
        return self.front.app(inner, environ[_FRONT][1] if _FRONT in environ else start_response)

    def find(self, path: str) -> Found | None:
        return None if self.files is None else self.files.find(path)

    def inner(self, environ: WSGIEnvironment) -> WSGIEnvironment | None:
        """The request for the target, or None where the path is something."""
        taken = environ.get(_TAKEN, ())
        try:
            if not self.misses(inbound(environ, self._policy).path):
                return None
        except RequestRefused:
            return None
        first = environ[_FRONT][0] if _FRONT in environ else environ
        query = environ.get("QUERY_STRING", "")
        path, _, query = f"{self.target}?{query}".partition("?") if query else self.target.partition("?")
        inner = {**first, "PATH_INFO": unquote(path, "latin-1"), "QUERY_STRING": query, _TAKEN: (*taken, self.target)}
        if _FRONT in environ:
            inner[_FRONT] = environ[_FRONT]
        return inner

    def taken(self, environ: WSGIEnvironment) -> bool:
        """Whether the target was asked for already, and is nothing itself."""
        return self.target in environ.get(_TAKEN, ())

    def misses(self, path: str) -> bool:
        """Whether nothing is at ``path``: no file, nor one that it goes on behind, and no folder with an index."""
        if self.files is None:
            return True
        found = self.files.find(path)
        if found is None:
            return PathInfo(self.files, policy=self._policy).file_in(path) == path
        return found.kind == "denied" and found.name.endswith("/") and self._is_folder(found.name)

    def _is_folder(self, name: str) -> bool:
        """Whether it is the folder itself that is not listed, and not a link to one that is refused."""
        root = os.path.realpath(os.fsencode(self.files.root if self.files else "/"))
        folder = os.path.normpath(os.path.join(root, name.strip("/").encode("latin-1")))
        return os.path.isdir(folder) and os.path.realpath(folder) == folder

    def __repr__(self) -> str:
        return f"<Fallback {self.target} of {self.app!r}>"
