"""Accept-Encoding (RFC 9110 12.5.3): which precompressed form of a file a client wants."""

from __future__ import annotations

import re
from functools import lru_cache

# RFC 9110 12.4.2. Anything else after "q=" makes that member unusable, and never the whole field.
_MEMBER = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?\Z"
)
_ALIASES = {"x-gzip": "gzip"}


@lru_cache(maxsize=128)
def preferred(field: str, offered: tuple[str, ...]) -> tuple[str, ...]:
    """The codings of ``offered`` that the client takes, best first; equal weights keep the order of ``offered``.

    A coding counts only when it is named: ``*`` alone, and no field at all, get the file as it is. A coding that the
    client likes less than ``identity`` is left out.
    """
    weights: dict[str, float] = {}
    for member in field.split(","):
        found = _MEMBER.match(member)
        if found:
            name = found[1].lower()
            weights[_ALIASES.get(name, name)] = float(found[2]) if found[2] else 1.0
    least = weights.get("identity", 0.0)
    wanted = [name for name in offered if weights.get(name, 0.0) > 0 and weights[name] >= least]
    if not wanted and least == 0 and "identity" in weights and weights.get("*", 0.0) > 0:
        wanted = [name for name in offered if name not in weights]
    return tuple(sorted(wanted, key=lambda name: -weights.get(name, 0.0)))
