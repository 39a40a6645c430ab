"""The member table of one process: a bytearray and a lock."""

from __future__ import annotations

import threading

from proxymw.state.table import H_USED, Layout, Table, capacity_for


def local_table(name: str, members: int) -> Table:
    """A table that only this process sees, with room for ``members`` and more."""
    layout = Layout(capacity_for(members), 1)
    table = Table(bytearray(layout.size), layout, threading.Lock(), 1)
    table.format(name, 0)
    table.words[H_USED] = 1
    return table
