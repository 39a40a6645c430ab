"""Which regular expressions can take exponential time."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

# A repeat with a larger bound behaves like one without.
_BOUNDED = 64
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT")


def explodes(pattern: str, flags: int = 0) -> bool:
    """Whether an unbounded repeat holds another one with nothing that says where one round ends and the next begins.

    So ``(a+)+`` and ``(.*,)*`` do; ``([^/]+/)*``, ``(a++)*`` and ``(?>a+)*`` do not. ``pattern`` must compile.
    """
    return _explodes(import_module("re._parser").parse(pattern, flags))


def _explodes(nodes: Iterable[Any]) -> bool:
    return any(_node_explodes(str(op), argument) for op, argument in nodes)


def _node_explodes(op: str, argument: Any) -> bool:
    if _unbounded(op, argument) and _ambiguous(list(argument[2])):
        return True
    return any(_explodes(body) for body in _bodies(op, argument))


def _unbounded(op: str, argument: Any) -> bool:
    return op in _REPEATS and int(argument[1]) > _BOUNDED


def _ambiguous(body: list[tuple[Any, Any]]) -> bool:
    while len(body) == 1 and str(body[0][0]) == "SUBPATTERN":
        body = list(body[0][1][3])
    repeated: set[int] = set()
    unbounded = False
    for op, argument in body:
        if _unbounded(str(op), argument):
            unbounded = True
            repeated |= _characters(argument[2])
        elif any(_has_unbounded(inner) for inner in _bodies(str(op), argument)):
            return True
    if not unbounded:
        return False
    single = (_characters([item]) for item in body if str(item[0]) in ("LITERAL", "NOT_LITERAL", "IN", "ANY"))
    return not any(characters.isdisjoint(repeated) for characters in single)


def _has_unbounded(nodes: Iterable[Any]) -> bool:
    return any(
        _unbounded(str(op), argument) or any(_has_unbounded(body) for body in _bodies(str(op), argument))
        for op, argument in nodes
    )


def _bodies(op: str, argument: Any) -> list[Any]:
    """The parts in which matching may backtrack; what is possessive or atomic never does."""
    match op:
        case "MAX_REPEAT" | "MIN_REPEAT":
            return [argument[2]]
        case "SUBPATTERN":
            return [argument[3]]
        case "BRANCH":
            return list(argument[1])
        case "ASSERT" | "ASSERT_NOT":
            return [argument[1]]
        case _:
            return []


def _characters(nodes: Iterable[Any]) -> set[int]:
    """Which of the 256 characters the nodes can match at all; everything, where that is hard to say."""
    found: set[int] = set()
    for op, argument in nodes:
        match str(op):
            case "LITERAL":
                found.add(argument)
            case "NOT_LITERAL":
                found |= set(range(256)) - {argument}
            case "IN":
                found |= _class_characters(argument)
            case "SUBPATTERN" | "BRANCH" | "MAX_REPEAT" | "MIN_REPEAT":
                for body in _bodies(str(op), argument):
                    found |= _characters(body)
            case "AT" | "ASSERT" | "ASSERT_NOT":
                pass
            case _:
                return set(range(256))
    return found


def _class_characters(items: list[tuple[Any, Any]]) -> set[int]:
    found: set[int] = set()
    negated = False
    for op, argument in items:
        match str(op):
            case "NEGATE":
                negated = True
            case "LITERAL":
                found.add(argument)
            case "RANGE":
                found |= set(range(argument[0], argument[1] + 1))
            case _:
                letter = {"DIGIT": "d", "SPACE": "s", "WORD": "w"}.get(str(argument).rpartition("_")[2], "")
                shape = rf"\{letter.upper() if '_NOT_' in str(argument) else letter}" if letter else "."
                found |= {code for code in range(256) if re.match(shape, chr(code), re.ASCII | re.DOTALL)}
    return set(range(256)) - found if negated else found
