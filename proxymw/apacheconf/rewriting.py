"""RewriteRule, RewriteCond and RewriteMap lines as RewriteProxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from proxymw.apacheconf.build import HostParts
    from proxymw.apacheconf.site import Server, Settings
    from proxymw.rules.policy import Policy


def rewrite_proxy(
    app: WSGIApplication, local: WSGIApplication, server: Server, settings: Settings, parts: HostParts, policy: Policy
) -> WSGIApplication:
    """``app`` behind the server's rewrite rules; ``local`` answers for a path that was rewritten without [PT]."""
    if not server.rewriting.engine or not server.rewriting.rules:
        return app
    return app  # until rules are built
