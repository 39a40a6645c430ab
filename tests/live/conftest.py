"""Hosts of the guide for the live tests: each answers its name, and what it received."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client import Reply
from tests.origins import EchoOrigin, Front


@pytest.fixture(scope="module")
def hosts() -> Iterator[Callable[..., str]]:
    """``hosts("app")`` starts the origin of that name once in a test module and gives its URL."""
    with contextlib.ExitStack() as stack:
        known: dict[str, EchoOrigin] = {}

        def url(name: str) -> str:
            if name not in known:
                known[name] = stack.enter_context(EchoOrigin(name))
            return known[name].url

        yield url


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., Front]]:
    """``serve(source)`` starts a front for a test module."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(Front(*args, **options))


@pytest.fixture(scope="module")
def docroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DocumentRoot with ``index.html`` and ``wiki/static/a``."""
    root = tmp_path_factory.mktemp("public_html")
    (root / "wiki" / "static").mkdir(parents=True)
    (root / "index.html").write_text("the main page")
    (root / "wiki" / "static" / "a").write_text("served locally")
    return root


def reached(reply: Reply) -> tuple[str, str]:
    """Which origin answered, and the target it was asked for; ``("local", text)`` if none did."""
    if reply.header("Content-Type") != "application/json":
        return "local", reply.text
    shown = reply.json()
    return shown["origin"], shown["target"]
