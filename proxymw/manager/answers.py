"""The forms in which the manager answers: text, JSON, problems, files of the page."""

from __future__ import annotations

import http
import json
from typing import TYPE_CHECKING, Any

from webob import Response

from proxymw.manager.assets import asset
from proxymw.manager.security import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

NO_PAGE = "The balancer manager has no such page."


def static(name: str) -> Any:
    found = asset(name)
    if found is None:
        raise Refused(404, "mgr_not_found", NO_PAGE)
    kind, body = found
    headers = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))]
    return Response(body=body, headerlist=[*headers, ("Cache-Control", "private, max-age=86400")])


def text(status: int, detail: str, headers: Iterable[tuple[str, str]] = ()) -> Any:
    response = Response(
        (detail + "\n" if detail else "").encode(), status=status, content_type="text/plain", charset="utf-8"
    )
    for name, value in headers:
        response.headers[name] = value
    return response


def as_json(status: int, value: Any, headers: Iterable[tuple[str, str]]) -> Any:
    if value is None:
        return Response(status=status, headerlist=[])
    body = json.dumps(value, separators=(",", ":")).encode()
    kept = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers]
    return Response(body, status=status, headerlist=kept)


def problem(status: int, detail: str, headers: Iterable[tuple[str, str]] = ()) -> Any:
    """RFC 9457."""
    title = http.HTTPStatus(status).phrase
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
    kept = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body))), *headers]
    return Response(body, status=status, headerlist=kept)
