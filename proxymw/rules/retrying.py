"""Whether a failed request may be sent again: never one that may have been executed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxymw.errors import ConfigError, ConnectionReset, UpstreamError

#: RFC 9110 9.2.1: methods that ask for no change. TRACE is never forwarded.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: RFC 9110 9.2.2: repeating these changes nothing more, if the origin keeps to it.
IDEMPOTENT_WRITES: Final = frozenset({"PUT", "DELETE"})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When the forwarder tries again.

    ``replays``: how often an idempotent request (RFC 9110 9.2.2) is sent again after its connection broke without a
    byte of an answer.
    ``budget``: replays as a share of all requests, so that a failing origin is not asked twice as much; a pooled
    connection that had gone stale is free. ``idempotent_writes``: PUT and DELETE count as idempotent; False for an
    origin that does not keep to it.
    ``failover``: how many other members are tried when one cannot be reached at all.
    ``statuses``: answers, such as 503, after which a repeatable request is given to one other member of a pool, within
    the budget; the first answer stands where no other comes.
    """

    replays: int = 1
    budget: float = 0.2
    idempotent_writes: bool = True
    failover: int = 32
    statuses: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for name in ("replays", "failover"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ConfigError(f"{name} must be a number of attempts, 0 or more, got {value!r}")
        if not all(isinstance(status, int) and 400 <= status <= 599 for status in self.statuses):
            raise ConfigError(f"statuses must be of 400 to 599, got {self.statuses!r}")
        if not 0 <= self.budget <= 1:
            raise ConfigError(f"budget must be a share from 0 to 1, got {self.budget!r}")

    def repeatable(self, method: str) -> bool:
        """Whether sending ``method`` twice is harmless."""
        return method in SAFE_METHODS or (self.idempotent_writes and method in IDEMPOTENT_WRITES)

    def may_replay(self, error: UpstreamError, *, method: str, replayable: bool, replays: int) -> bool:
        """Whether the request may go out again after ``error``, the budget aside.

        Only a connection that broke before any byte of an answer: a timeout may still be working on it, and garbage is
        an answer. ``replayable``: the whole body is at hand. ``replays``: how often this request was repeated already.
        """
        return (
            isinstance(error, ConnectionReset)
            and not error.answered
            and replayable
            and replays < self.replays
            and self.repeatable(method)
        )


class RetryBudget:
    """A bucket of replays: each request puts ``share`` into it, each replay takes one out. Starts with a few."""

    __slots__ = ("_left", "_most", "share")

    def __init__(self, share: float, most: float = 10.0) -> None:
        self.share = share
        self._most = most
        self._left = most if share else 0.0

    def deposit(self) -> None:
        """A request was made. Racing threads may lose a deposit: the budget errs on the careful side."""
        if self._left < self._most:
            self._left += self.share

    def withdraw(self) -> bool:
        """Whether one more replay is affordable; takes it."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
