"""Changes made while running, kept in a file over restarts (BalancerPersist). Counters are not kept."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from typing import Any

from proxymw.rules.members import ASKED
from proxymw.state.table import (
    H_EPOCH,
    H_GENERATION,
    M_ADDED,
    M_FLAGS,
    M_LBFACTOR,
    M_LBSET,
    M_REDIRECT,
    M_ROUTE,
    Table,
    wall,
)

_log = logging.getLogger("proxymw.pool")
_VERSION = 1
_MOST = 1 << 20


def collect(table: Table) -> dict[str, Any]:
    """Everything that was asked for, as plain data. Under the lock."""
    members = {member_id: asked_of(table, slot) for member_id, slot in table.slot_ids().items() if table.mask[slot]}
    return {"version": _VERSION, "settings": table.read_text(-1), "members": members}


def asked_of(table: Table, slot: int) -> dict[str, Any]:
    """What was asked for of one member. Under the lock."""
    mask = table.mask[slot]
    text = table.read_text(slot)
    values: dict[str, Any] = {"changed": table.changed[slot], "by": text.get("by", "")}
    if table.drain_until[slot]:
        values["drain_until"] = wall() + (table.drain_until[slot] - time.monotonic_ns()) // 1000
    for name, bit, value in (
        ("flags", M_FLAGS, table.asked_flags[slot]),
        ("lbfactor", M_LBFACTOR, table.asked_lbfactor[slot]),
        ("lbset", M_LBSET, table.asked_lbset[slot]),
        ("route", M_ROUTE, text.get("route", "")),
        ("redirect", M_REDIRECT, text.get("redirect", "")),
        ("added", M_ADDED, text.get("added")),
    ):
        if mask & bit:
            values[name] = value
    return values


def apply(table: Table, kept: dict[str, Any]) -> None:
    """Ask for everything in ``kept`` that nobody has asked anything else for since. Under the lock."""
    settings, members = kept.get("settings"), kept.get("members")
    if isinstance(settings, dict) and settings and not table.read_text(-1):
        table.write_text(-1, settings)
    ids = table.slot_ids()
    for member_id, values in members.items() if isinstance(members, dict) else ():
        slot = ids.get(member_id)
        if not isinstance(values, dict) or (slot is not None and table.mask[slot]):
            continue
        if slot is None and isinstance(values.get("added"), dict):
            slot = table.take_slot(member_id)
        if slot is not None:
            ask(table, slot, values)
    table.words[H_EPOCH] += 1
    table.words[H_GENERATION] += 1


def ask(table: Table, slot: int, values: dict[str, Any]) -> None:
    """Put values as ``collect`` gives them into a slot; what is not of the right kind is left out. Under the lock."""
    mask = 0
    for name, bit, column, least, most in (
        ("flags", M_FLAGS, table.asked_flags, 0, ASKED),
        ("lbfactor", M_LBFACTOR, table.asked_lbfactor, 100, 10_000),
        ("lbset", M_LBSET, table.asked_lbset, 0, 99),
    ):
        value = values.get(name)
        if isinstance(value, int) and least <= value <= most:
            column[slot] = value
            mask |= bit
    text = {"by": str(values.get("by", ""))[:60]}
    for name, bit in (("route", M_ROUTE), ("redirect", M_REDIRECT)):
        if isinstance(values.get(name), str):
            text[name] = values[name][:63]
            mask |= bit
    if isinstance(values.get("added"), dict):
        text["added"] = values["added"]
        mask |= M_ADDED
    table.write_text(slot, text)
    ends = values.get("drain_until")
    table.drain_until[slot] = 0
    if isinstance(ends, int) and 0 < ends < 1 << 52:
        # Of the past is a deadline that is over, and not none.
        table.drain_until[slot] = max(1, time.monotonic_ns() + (ends - wall()) * 1000)
    changed = values.get("changed")
    table.changed[slot] = changed if isinstance(changed, int) and 0 <= changed < 1 << 62 else 0
    table.mask[slot] = mask


def save(path: str, kept: dict[str, Any]) -> None:
    """Write beside, then rename: the file is always a whole one. A failure is logged and otherwise no matter."""
    try:
        directory = os.path.dirname(os.path.abspath(path))
        fd, beside = tempfile.mkstemp(prefix=".proxymw-", dir=directory)
        try:
            with os.fdopen(fd, "w") as file:
                json.dump(kept, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        _log.error("event=persist_failed path=%s reason=%r", path, str(error))


def load(path: str) -> dict[str, Any]:
    """What was kept; empty when there is no file or it is not one of ours."""
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.loads(file.read(_MOST))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _log.error("event=persist_unreadable path=%s reason=%r", path, str(error))
        return {}
    return kept if isinstance(kept, dict) and kept.get("version") == _VERSION else {}
