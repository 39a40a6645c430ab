"""Fixtures of every floor. Servers made through them are stopped when the test ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.origins import EchoOrigin, Front, ScriptedOrigin


class Clock:
    """A clock that moves only when told to; call it for the time in seconds."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _factory(kind: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(kind(*args, **options))


@pytest.fixture
def echo() -> Iterator[Callable[..., EchoOrigin]]:
    """``echo("app1")`` starts an origin that answers its own name and what it received."""
    yield from _factory(EchoOrigin)


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedOrigin]]:
    """``scripted([b"HTTP/1.1 200 OK...", RESET])`` starts an origin that does exactly that."""
    yield from _factory(ScriptedOrigin)


@pytest.fixture
def front() -> Iterator[Callable[..., Front]]:
    """``front("from proxymw import ...\\napp = ...")`` starts gunicorn with that application."""
    yield from _factory(Front)
