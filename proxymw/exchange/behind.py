"""The application behind a skin, as its constructor takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxymw.errors import ConfigError
from proxymw.exchange.inbound import NOT_FOUND

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def behind(app: WSGIApplication | None) -> WSGIApplication:
    """``app``, or one that answers 404 where it is None; ConfigError for what cannot be called."""
    if app is None:
        return NOT_FOUND
    if not callable(app):
        raise ConfigError(
            f"app, the first argument, must be the WSGI application that gets everything else (None: 404), got {app!r}"
        )
    return app
