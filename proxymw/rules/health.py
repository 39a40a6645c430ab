"""When a member is put aside and when it comes back: retry, ejection, trial, slow start, active checks.

Every function takes the columns of the table (anything with those attributes), the number of a member, and the time
in nanoseconds; it changes the member's entries and says what happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from proxymw.errors import ConfigError
from proxymw.rules.members import Column, Flag
from proxymw.rules.options import check_count, check_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

_ERROR = int(Flag.ERROR)
_CHECK_FAILED = int(Flag.CHECK_FAILED)
_EJECTED = int(Flag.EJECTED)
_TRIAL = int(Flag.TRIAL)
_STOPPED = int(Flag.STOPPED)
_IGNORE = int(Flag.IGNORE_ERRORS)
SECOND = 1_000_000_000


class Records(Protocol):
    """The columns that health reads and writes."""

    @property
    def found(self) -> Column: ...
    @property
    def error_at(self) -> Column: ...
    @property
    def retries(self) -> Column: ...
    @property
    def fails(self) -> Column: ...
    @property
    def window(self) -> Column: ...
    @property
    def ejections(self) -> Column: ...
    @property
    def until(self) -> Column: ...
    @property
    def trial(self) -> Column: ...
    @property
    def streak(self) -> Column: ...
    @property
    def ramp(self) -> Column: ...


@dataclass(frozen=True, slots=True)
class Health:
    """Passive health: what real requests tell. Without one, a pool does as Apache does (``retry``).

    ``failures`` within ``window`` seconds put a member aside for ``eject`` seconds, twice as long each time in a row up
    to ``eject_max``, but never more than ``share`` of the members at once. It comes back with one trial request
    at a time until one succeeds, and then with a weight that grows from a tenth to all of it over ``slow_start``
    seconds.
    A timeout counts half: one slow URL must not take members out.
    """

    failures: int = 3
    window: float = 10.0
    eject: float = 10.0
    eject_max: float = 300.0
    share: float = 0.5
    slow_start: float = 0.0

    def __post_init__(self) -> None:
        check_count("health failures", self.failures, least=1, optional=False)
        for name in ("window", "eject", "eject_max"):
            check_seconds(f"health {name}", getattr(self, name), least=0.001, optional=False)
        check_seconds("health slow_start", self.slow_start, optional=False)
        if isinstance(self.share, bool) or not isinstance(self.share, (int, float)) or not 0 <= self.share <= 1:
            raise ConfigError(f"health share must be a number between 0 and 1, got {self.share!r}")


@dataclass(frozen=True, slots=True)
class Probe:
    """Active health: an HTTP request to each member every ``interval`` seconds, by one process per host.

    A member is down after ``fall`` failures in a row and up after ``rise`` passes in a row. A probe passes when the
    whole
    answer came within ``timeout`` seconds with a status in ``status`` (a range or a set) and, if ``body`` is given,
    contains it. ``initial``: whether members count as up or down until the first probes.
    """

    path: str = "/"
    interval: float = 10.0
    timeout: float = 2.0
    rise: int = 2
    fall: int = 3
    status: range | frozenset[int] | tuple[int, ...] = range(200, 400)
    body: bytes | None = None
    method: str = "GET"
    host: str | None = None
    jitter: float = 0.1
    initial: Literal["up", "down"] = "up"

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path.startswith("/") or not self.path.isprintable():
            raise ConfigError(f"probe path must be a path that begins with a slash, got {self.path!r}")
        if " " in self.path:
            raise ConfigError(f"probe path must hold no space, got {self.path!r}")
        check_seconds("probe interval", self.interval, least=0.05, optional=False)
        check_seconds("probe timeout", self.timeout, least=0.001, optional=False)
        check_count("probe rise", self.rise, least=1, optional=False)
        check_count("probe fall", self.fall, least=1, optional=False)
        if self.initial not in ("up", "down"):
            raise ConfigError(f"probe initial must be up or down, got {self.initial!r}")
        if self.method not in ("GET", "HEAD", "OPTIONS"):
            raise ConfigError(f"probe method must be GET, HEAD or OPTIONS, got {self.method!r}")
        if self.method == "HEAD" and self.body is not None:
            raise ConfigError(f"probe method must be GET where a body is expected, got {self.method!r}")
        if self.body is not None and not isinstance(self.body, bytes):
            raise ConfigError(f"probe body must be bytes, got {self.body!r}")
        statuses = self.status if isinstance(self.status, (range, frozenset, set, tuple, list)) else ()
        if not statuses or not all(isinstance(status, int) for status in statuses):
            raise ConfigError(f"probe status must be a range or a set of statuses, got {self.status!r}")
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, (int, float)) or not 0 <= self.jitter < 1:
            raise ConfigError(f"probe jitter must be a share between 0 and 1, got {self.jitter!r}")


def mark_error(t: Records, i: int, now: int, flags: int) -> bool:
    """Put a member in error after a failed connection; True when it was not. One that ignores errors never is."""
    if flags & _IGNORE:
        return False
    t.error_at[i] = now
    fresh = not t.found[i] & _ERROR
    t.found[i] |= _ERROR
    return fresh


def revive(t: Records, i: int, now: int, flags: int, retry: int) -> bool:
    """Offer a member that was put aside its way back; True when it may take requests again.

    In error (Apache): when ``retry`` nanoseconds are over it is in normal rotation, a real request is the probe.
    Ejected:
    when its time is over it is on trial.
    """
    found = t.found[i]
    if flags & _STOPPED:
        return False
    if found & _ERROR and (flags & _IGNORE or now >= t.error_at[i] + retry):
        found &= ~_ERROR
        t.retries[i] += 1
    if found & _EJECTED and now >= t.until[i]:
        found = found & ~_EJECTED | _TRIAL
        t.trial[i] = 0
    changed = found != t.found[i]
    t.found[i] = found
    return changed and not found & (_ERROR | _EJECTED | _CHECK_FAILED)


def force_recovery(t: Records, members: Iterable[int]) -> None:
    """All members are in error: clear them all at once (forcerecovery)."""
    for i in members:
        t.found[i] &= ~(_ERROR | _EJECTED | _TRIAL)
        t.retries[i] += 1


def on_trial(t: Records, i: int, now: int, patience: int) -> bool:
    """Whether a member on trial has its one request under way (for at most ``patience``; a lost one is forgotten)."""
    return bool(t.trial[i]) and now < t.trial[i] + patience


def record_failure(t: Records, i: int, now: int, health: Health, weight: int, aside: int, members: int) -> int:
    """Count a failure (``weight`` in halves); the seconds of the ejection it led to, or 0.

    ``aside`` members of ``members`` are put aside already.
    """
    if t.window[i] + int(health.window * SECOND) <= now:
        t.window[i], t.fails[i] = now, 0
    t.fails[i] += weight
    failed_trial = t.found[i] & _TRIAL
    t.trial[i] = 0
    if not failed_trial and (t.fails[i] < 2 * health.failures or aside + 1 > health.share * members):
        return 0
    seconds = min(health.eject * float(1 << min(t.ejections[i], 30)), health.eject_max)
    t.ejections[i] += 1
    t.fails[i] = 0
    t.until[i] = now + int(seconds * SECOND)
    t.found[i] = t.found[i] & ~_TRIAL | _EJECTED
    return max(1, round(seconds))


def record_success(t: Records, i: int, now: int, health: Health | None) -> bool:
    """An exchange went well; True when that ended a trial."""
    t.retries[i] = 0
    if not t.found[i] & _TRIAL:
        return False
    t.found[i] &= ~_TRIAL
    t.trial[i] = t.ejections[i] = t.fails[i] = 0
    t.ramp[i] = now if health is not None and health.slow_start else 0
    return True


def probe_result(t: Records, i: int, passed: bool, probe: Probe, now: int) -> Literal["", "up", "down"]:
    """Count an active check; ``up`` or ``down`` when the member's standing changed by it."""
    streak = t.streak[i]
    t.streak[i] = streak = max(streak, 0) + 1 if passed else min(streak, 0) - 1
    found = t.found[i]
    if passed and streak >= probe.rise and found & (_CHECK_FAILED | _ERROR | _EJECTED | _TRIAL):
        # As mod_proxy_hcheck: enough passes also end an error that traffic saw.
        t.found[i] &= ~(_CHECK_FAILED | _ERROR | _EJECTED | _TRIAL)
        t.fails[i] = t.ejections[i] = t.trial[i] = 0
        t.ramp[i] = now
        return "up"
    if not passed and -streak >= probe.fall and not found & _CHECK_FAILED:
        t.found[i] |= _CHECK_FAILED
        return "down"
    return ""


def ramped(lbfactor: int, since: int, now: int, slow_start: float) -> int:
    """The weight of a member that came back at ``since``: from a tenth to all of it over ``slow_start`` seconds."""
    if not since or not slow_start:
        return lbfactor
    share = (now - since) / (slow_start * SECOND)
    return lbfactor if share >= 1 else max(1, int(lbfactor * max(0.1, share)))
