"""How the tests of this floor ask: one request through a Forwarder, with everything that can be seen of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from proxymw.exchange.forwarder import Forwarder, ForwardOptions, SingleOrigin
from proxymw.exchange.limits import Limits
from proxymw.rules.origins import Origin
from tests.client import environ

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@dataclass
class Asked:
    """What came back. ``pieces`` as they came, ``cut`` what was raised in their middle."""

    status: int
    headers: list[tuple[str, str]]
    pieces: list[bytes]
    environ: dict[str, Any]
    cut: BaseException | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1
        return values[0] if values else None


@dataclass
class FakeLease:
    origin: Origin
    name: str = "member"
    pool: str = "pool"
    app: Any = None
    limits: Limits | None = None
    set_headers: list[tuple[str, str]] = field(default_factory=list)
    finished: list[dict[str, Any]] = field(default_factory=list)

    def finish(self, error: Any = None, **counts: Any) -> None:
        self.finished.append({"error": error, **counts})

    @property
    def end(self) -> dict[str, Any]:
        assert len(self.finished) == 1, f"finished {len(self.finished)} times"
        return self.finished[0]


class FakePool:
    """A destination of leases given out in order; ``NoMember`` when there are no more."""

    def __init__(self, *leases: FakeLease) -> None:
        self.leases = list(leases)
        self.tried: list[tuple[Any, ...]] = []

    def lease(self, environ: Any, tried: tuple[Any, ...]) -> FakeLease:
        from proxymw.errors import NoMember

        self.tried.append(tried)
        if len(tried) >= len(self.leases):
            raise NoMember("no more")
        return self.leases[len(tried)]


def pool_of(*urls: str) -> FakePool:
    return FakePool(*(FakeLease(Origin.parse(url), f"m{number}") for number, url in enumerate(urls)))


def ask(
    forwarder: Forwarder,
    destination: Any,
    target: str = "/x",
    *,
    options: ForwardOptions | None = None,
    request: dict[str, Any] | None = None,
    **how: Any,
) -> Asked:
    """Forward one request to ``destination``, a URL or a pool, read the answer and close it."""
    if isinstance(destination, str):
        destination = SingleOrigin(Origin.parse(destination))
    made = request if request is not None else environ(target, **how)
    started: list[Any] = []
    result = forwarder(
        made,
        lambda status, headers, exc_info=None: started.append((status, headers)),  # type: ignore[arg-type, return-value, misc]
        destination,
        target,
        options or ForwardOptions(),
    )
    asked = Asked(0, [], [], made)
    try:
        asked.pieces.extend(result)
    except OSError as error:
        asked.cut = error
    finally:
        if hasattr(result, "close"):
            result.close()
            result.close()
    assert len(started) == 1
    status, asked.headers = started[0]
    asked.status = int(status[:3])
    assert status[3] == " "
    assert len(status) > 4, "no reason phrase"
    return asked
