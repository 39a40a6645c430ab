"""A real browser: Debian's chromium, driven by playwright. Without either, these tests skip and say why."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.origins import Front

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"]
FLAGS += ["--disable-background-networking", "--disable-sync"]


def chromium() -> str:
    """The browser on PATH, or an empty text."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[browser]")
    path = chromium()
    if not path:
        pytest.skip("no chromium on PATH: apt install chromium")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """``open_page(url, color_scheme="dark")`` opens a page of its own; ``page.said`` is what the console showed."""
    with contextlib.ExitStack() as stack:

        def opened(url: str, **options: Any) -> Any:
            context = browser.new_context(**{"viewport": {"width": 1440, "height": 1000}, **options})
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(10_000)
            page.said = []
            page.on("console", lambda message: page.said.append(message.text))
            page.on("pageerror", lambda error: page.said.append(str(error)))
            page.goto(url)
            return page

        yield opened


@pytest.fixture
def showcase(tmp_path: Path) -> Iterator[Front]:
    """Two workers with the manager of ``tests.browser.showcase`` below /balancer-manager, without traffic."""
    with Front("tests.browser.showcase:app", workers=2, env={"SHOWCASE_STATE": str(tmp_path / "table")}) as front:
        yield front


@pytest.fixture(scope="session")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """The same for all tests, with invented traffic and a member that is down."""
    state = tmp_path_factory.mktemp("busy") / "table"
    env = {"SHOWCASE_STATE": str(state), "SHOWCASE_TRAFFIC": "1", "SHOWCASE_CALM": "1"}
    with Front("tests.browser.showcase:app", workers=2, env=env) as front:
        yield front
