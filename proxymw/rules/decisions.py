"""What rewrite rules can make of a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .paths import RoutePath

if TYPE_CHECKING:
    from .conditions import ConditionResult, RewriteCond
    from .origins import Origin
    from .rewriterule import RewriteRule


@dataclass(frozen=True, slots=True)
class Step:
    """One rule's turn, as ``explain`` shows it."""

    rule: RewriteRule
    number: int
    subject: str
    matched: bool
    groups: tuple[str, ...] = ()
    conditions: tuple[tuple[RewriteCond, ConditionResult], ...] = ()
    applied: bool = False
    #: What came of it, in words.
    result: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules made of a request, and what they set on the way."""

    rule: RewriteRule | None = None
    env: tuple[tuple[str, str | None], ...] = ()
    #: The expanded parts of each [CO].
    cookies: tuple[tuple[str, ...], ...] = ()
    vary: tuple[str, ...] = ()
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class NoMatch(Decision):
    """It goes on as it came."""

    def __str__(self) -> str:
        return "unchanged"


#: The usual outcome: no rule had a say.
UNCHANGED = NoMatch()


@dataclass(frozen=True, slots=True)
class Proxy(Decision):
    """Send it to ``origin``, or to the pool ``pool`` (its name, or the pool itself), as ``target`` (path and query)."""

    target: str = "/"
    origin: Origin | None = None
    pool: Any = None

    def __str__(self) -> str:
        where = self.origin.url if self.origin else f"balancer://{getattr(self.pool, 'name', self.pool)}"
        return f"proxy to {where}{self.target}"


@dataclass(frozen=True, slots=True)
class Local(Decision):
    """Go on with this path and query; ``passthrough`` is [PT]."""

    path: RoutePath = field(default_factory=lambda: RoutePath("/", "/"))
    query: str | None = None
    passthrough: bool = False

    def __str__(self) -> str:
        return self.path.raw if self.query is None else f"{self.path.raw}?{self.query}"


@dataclass(frozen=True, slots=True)
class Redirect(Decision):
    """Answer with ``status`` and ``location``; a path-only one is relative to the application's mount point."""

    location: str = "/"
    status: int = 302

    def __str__(self) -> str:
        return f"redirect {self.status} to {self.location}"


@dataclass(frozen=True, slots=True)
class Status(Decision):
    """Answer with this status. ``event`` names the reason where it is a refusal of what the client sent."""

    status: int = 403
    event: str = ""

    def __str__(self) -> str:
        return f"answer {self.status}" + (f" ({self.event})" if self.event else "")
