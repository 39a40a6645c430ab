"""Conditions of directives as values that can be called, compared and printed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxymw.apacheconf.expressions import Test, compile_expression, lookup_in

Environ = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IsSet:
    """``env=NAME``, or ``env=!NAME`` where it must not be set; for requests and for log lines."""

    name: str
    wanted: bool = True

    def __call__(self, environ: Environ, status: int = 0) -> bool:
        return (self.name in environ) == self.wanted

    @property
    def __name__(self) -> str:
        return f"env={'' if self.wanted else '!'}{self.name}"


def is_set(text: str) -> IsSet:
    """The condition of ``NAME`` or ``!NAME``."""
    return IsSet(text.removeprefix("!"), not text.startswith("!"))


@dataclass(frozen=True, slots=True)
class LogIf:
    """``expr=`` of CustomLog. Raises ValueError for an expression that is not supported."""

    expression: str
    _test: Test = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_test", compile_expression(self.expression))

    def __call__(self, environ: Environ, status: int) -> bool:
        return self._test(lookup_in(environ, {"REQUEST_STATUS": str(status)}))


@dataclass(frozen=True, slots=True)
class Holds:
    """``RewriteCond expr``. Raises ValueError for an expression that is not supported."""

    expression: str
    _test: Test = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_test", compile_expression(self.expression.removeprefix("!")))

    def __call__(self, lookup: Callable[[str], str]) -> bool:
        return self._test(lookup) != self.expression.startswith("!")


@dataclass(frozen=True, slots=True)
class OneOf:
    """A ``rnd:`` map: one of the values between ``|``, by chance."""

    table: Mapping[str, str]

    def __call__(self, key: str) -> str | None:
        values = self.table.get(key)
        return None if values is None else random.choice(values.split("|"))


def never(environ: Environ, status: int) -> bool:
    """No line is logged: an ErrorLog without a CustomLog."""
    return False
