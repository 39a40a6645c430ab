"""Matching paths against prefixes, exactly as ProxyPass does, and flat in the number of prefixes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .hosts import HostPattern as HostPattern
    from .networks import NetworkSet as NetworkSet

T = TypeVar("T")

_SLASHES = re.compile(r"//+")
_HOMES = {"HostPattern": "hosts", "NetworkSet": "networks"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__package__}.{home}"), name)


class PathPrefix:
    """One ProxyPass prefix.

    ``/media`` matches ``/media`` and ``/media/x`` but not ``/mediaX``; ``/static/`` does not match ``/static``. Runs of
    slashes on either side count as one. The prefix is compared with the decoded path; text beyond ASCII is UTF-8.
    """

    __slots__ = ("_key", "_slash", "prefix")

    def __init__(self, prefix: str) -> None:
        if not isinstance(prefix, str) or not prefix.startswith("/"):
            raise ConfigError(f"prefix must be a path that starts with '/', got {prefix!r}")
        if any(segment in (".", "..") for segment in prefix.split("/")):
            raise ConfigError(f"prefix must be free of '.' and '..' segments (no path has any), got {prefix!r}")
        self.prefix = prefix
        text = _SLASHES.sub("/", prefix.encode("utf-8", "surrogateescape").decode("latin-1"))
        self._slash = text.endswith("/")
        self._key = text.rstrip("/")

    def match(self, path: str) -> int | None:
        """How many characters of ``path`` the prefix consumes, or None (ALIAS_MATCH of mod_alias and mod_proxy).

        The count is larger than the prefix where ``path`` has runs of slashes. What follows is ``path[count:]``.
        """
        at = 0
        if "//" not in path:
            if not path.startswith(self._key):
                return None
            at = len(self._key)
        else:
            for segment in self._key.split("/")[1:] if self._key else ():
                start = _past_slashes(path, at)
                if start == at or not path.startswith(segment, start):
                    return None
                at = start + len(segment)
        if at == len(path):
            return None if self._slash else at
        if path[at] != "/":
            return None
        return _past_slashes(path, at) if self._slash else at

    def covers(self, other: PathPrefix) -> bool:
        """Whether every path that ``other`` matches is matched by this one too."""
        if other._key == self._key:
            return other._slash or not self._slash
        return other._key.startswith(self._key + "/")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathPrefix) and (self._key, self._slash) == (other._key, other._slash)

    def __hash__(self) -> int:
        return hash((self._key, self._slash))

    def __repr__(self) -> str:
        return f"PathPrefix({self.prefix!r})"


class PrefixTable(Generic[T]):
    """Prefixes in declared order; the first that matches wins, however many there are.

    A lookup tries each place where a segment of the path ends in a dictionary, so it costs the depth of the path and
    not the number of prefixes.
    """

    __slots__ = ("_deepest", "_index", "entries")

    def __init__(self, entries: Iterable[tuple[str | PathPrefix, T]]) -> None:
        self.entries: tuple[tuple[PathPrefix, T], ...] = tuple(
            (prefix if isinstance(prefix, PathPrefix) else PathPrefix(prefix), value) for prefix, value in entries
        )
        # key -> (place of the first entry that needs a slash after the key, place of the first that does not)
        self._index: dict[str, tuple[int, int]] = {}
        self._deepest = 0
        none = len(self.entries)
        for place, (prefix, _) in enumerate(self.entries):
            slashed, bare = self._index.get(prefix._key, (none, none))
            if prefix._slash:
                slashed = min(slashed, place)
            else:
                bare = min(bare, place)
            self._index[prefix._key] = (slashed, bare)
            self._deepest = max(self._deepest, prefix._key.count("/"))

    def match(self, path: str) -> tuple[T, int] | None:
        """The value of the first matching prefix and how much of ``path`` it consumes, or None."""
        place = self.place(path)
        if place is None:
            return None
        prefix, value = self.entries[place]
        consumed = prefix.match(path)
        assert consumed is not None
        return value, consumed

    def place(self, path: str) -> int | None:
        """The position of the first matching entry, or None."""
        plain = _SLASHES.sub("/", path) if "//" in path else path
        none = best = len(self.entries)
        index = self._index
        cut = 0
        for _ in range(self._deepest + 1):
            found = index.get(plain[:cut])
            if found is not None:
                slashed, bare = found
                if cut == len(plain):
                    slashed = none
                best = min(best, slashed, bare)
            if cut == len(plain):
                break
            cut = plain.find("/", cut + 1)
            if cut < 0:
                cut = len(plain)
        return None if best == none else best

    def shadowed(self) -> Iterator[tuple[int, int]]:
        """Pairs ``(later, earlier)``: entries that can never win, and the first that takes everything of theirs."""
        for place, (prefix, _) in enumerate(self.entries):
            earliest = place
            key = prefix._key
            ancestors = [key[:cut] for cut in range(len(key)) if key[cut] == "/"]
            for ancestor in ancestors:
                earliest = min(earliest, *self._index.get(ancestor, (place, place)))
            slashed, bare = self._index[key]
            earliest = min(earliest, bare, slashed if prefix._slash else earliest)
            if earliest < place:
                yield place, earliest

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<PrefixTable: {len(self.entries)} prefixes>"


def _past_slashes(path: str, at: int) -> int:
    while at < len(path) and path[at] == "/":
        at += 1
    return at
