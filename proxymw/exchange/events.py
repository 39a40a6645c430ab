"""One line for what went wrong, fit for a log whoever chose the values."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from proxymw.errors import RequestRefused

_requests: Final = logging.getLogger("proxymw")
_UNPRINTABLE: Final = re.compile(r"[^\x21-\x5b\x5d-\x7e]")
_LINE_MOST: Final = 1024


def event_line(event: str, **values: Any) -> str:
    r"""``event=name key=value …``: everything but printable ASCII as ``\xNN``, blanks too, at most 1 kB.

    Values that are None or empty are left out. Never give it bodies, cookies or credentials.
    """
    parts = [f"event={event}"]
    for key, value in values.items():
        if value is not None and value != "":
            text = f"{value:.1f}" if isinstance(value, float) else str(value)
            parts.append(f"{key}={_UNPRINTABLE.sub(_escape, text[:_LINE_MOST])}")
    return " ".join(parts)[:_LINE_MOST]


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def request_values(environ: WSGIEnvironment) -> dict[str, Any]:
    """Who asked for what, for an event's line. The query is left out: it may hold secrets."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return {"client": environ.get("REMOTE_ADDR"), "method": environ.get("REQUEST_METHOD"), "path": path}


def log_refusal(environ: WSGIEnvironment, error: RequestRefused) -> None:
    if _requests.isEnabledFor(logging.INFO):
        _requests.info(event_line(error.event, status=error.status, **request_values(environ)))
