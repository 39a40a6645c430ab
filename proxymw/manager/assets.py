"""The files that the page loads, from inside the package, each by its exact name."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent / "static"

#: Every file that is served and its type; nothing else is looked for on disk.
_TYPES = {
    "manager.css": "text/css",
    "manager.js": "text/javascript",
    "theme.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "vendor/htmx.min.js": "text/javascript",
    "vendor/uPlot.iife.min.js": "text/javascript",
    "vendor/uPlot.min.css": "text/css",
}


@cache
def asset(name: str) -> tuple[str, bytes] | None:
    """The type and the content of a file of the page, or None where there is no such file."""
    kind = _TYPES.get(name)
    return None if kind is None else (kind, (_HERE / name).read_bytes())


@cache
def stamp() -> str:
    """A few letters that change when any of the files does, so that browsers may keep them."""
    digest = hashlib.sha256()
    for name in _TYPES:
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:10]
