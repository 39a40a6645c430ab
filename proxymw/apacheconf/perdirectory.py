"""What httpd does once it knows the file: rewriting in ``<Directory>`` and ``<Location>``, and path info."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxymw.errors import RequestRefused
from proxymw.exchange.inbound import answer, inbound, public_url, refuse
from proxymw.rewrite import RewriteProxy, _Variables
from proxymw.rules.decisions import UNCHANGED, Decision, Local, Step
from proxymw.rules.paths import RoutePath

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from proxymw.apacheconf.fallback import Fallback
    from proxymw.rules.policy import Policy
    from proxymw.static import StaticOrPass


class DirectoryRewrite(RewriteProxy):
    """Rewrite rules of a directory: they see the file's name, and ``strip`` of the URL path is not part of it.

    ``lead`` stands before the name instead: nothing in a ``<Directory>``, the document root in a ``<Location>``. A
    folder with an index file is served as it is, as the look-up of the index goes first.
    """

    def __init__(self, files: StaticOrPass | Fallback, rules: Any, *, strip: str, lead: str, **options: Any) -> None:
        super().__init__(files, rules, **options)
        self.files_behind, self.strip, self.lead = files, strip, lead

    def rewrite(self, environ: WSGIEnvironment, trace: list[Step] | None = None) -> Decision:
        path = inbound(environ, self.policy)
        if not path.path.startswith(self.strip) or self._has_index(path.path):
            return UNCHANGED
        rest = path.path[len(self.strip) :]
        subject = RoutePath(self.lead + rest, self.lead + path.spell(len(self.strip)))
        variables = _Variables(environ, self.document_root, self.server_name)
        decision = self.engine.decide(
            subject,
            environ.get("QUERY_STRING") or None,
            variables,
            self.files,
            public=public_url(environ, self.policy),
            trace=trace,
        )
        return self._below(decision) if isinstance(decision, Local) else decision

    def _has_index(self, path: str) -> bool:
        found = self.files_behind.find(path) if path.endswith("/") else None
        return found is not None and found.kind == "file"

    def _below(self, decision: Local) -> Decision:
        """A relative result lies in the directory; the lead is taken off again."""
        from dataclasses import replace

        path = decision.path.path
        if self.lead and path.startswith(self.lead):
            path = "/" + path[len(self.lead) :].lstrip("/")
        elif decision.rule is not None and not str(decision.rule.target).startswith("/"):
            path = self.strip.rstrip("/") + path
        return replace(decision, path=RoutePath(path))


class BodyLimit:
    """LimitRequestBody, which is about what is answered here: 413 for a longer body. Proxied ones are not limited."""

    def __init__(self, app: WSGIApplication, limit: int) -> None:
        self.app, self.limit = app, limit

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH") or "0"
        if length.isdigit() and int(length) > self.limit:
            return answer(environ, start_response, 413)
        return self.app(environ, start_response)

    def __repr__(self) -> str:
        return f"<BodyLimit {self.limit} -> {self.app!r}>"


class PathInfo:
    """AcceptPathInfo On: more path behind a file is the file's business, and the file is served."""

    def __init__(self, files: StaticOrPass | Fallback, *, policy: Policy) -> None:
        self.app, self._policy = files, policy

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            path = inbound(environ, self._policy).path
        except RequestRefused as error:
            return refuse(environ, start_response, error)
        name = self.file_in(path)
        return self.app(environ if name == path else {**environ, "PATH_INFO": name}, start_response)

    def file_in(self, path: str) -> str:
        """The longest start of ``path`` that is a file, or ``path`` itself."""
        found = self.app.find(path)
        name = path
        while (found is None or found.kind != "file") and name.count("/") > 1:
            name = name.rpartition("/")[0]
            found = self.app.find(name)
        return name if found is not None and found.kind == "file" else path

    def __repr__(self) -> str:
        return f"<PathInfo {self.app!r}>"
