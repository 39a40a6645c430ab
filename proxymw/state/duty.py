"""Work that one process of a host does for all: who has the lease in the table does it, the others stand by."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxymw.state.table import Table

_log = logging.getLogger("proxymw.pool")


def claim(table: Table, owner: int, until: int, seconds: float) -> bool:
    """Whether this process has the duty for the next ``seconds``. ``owner`` and ``until`` are words of the header."""
    now = time.monotonic_ns()
    with table.lock:
        words = table.words
        if words[owner] not in (0, table.worker) and words[until] > now:
            return False
        words[owner], words[until] = table.worker, now + int(seconds * 1e9)
        return True


def yield_duty(table: Table, owner: int, until: int) -> None:
    """Let another process have the duty at once."""
    with table.lock:
        if table.words[owner] == table.worker:
            table.words[owner] = table.words[until] = 0


class Background(threading.Thread):
    """A daemon thread that calls ``step`` again and again, which returns the seconds to wait until the next time.

    Born on first use in the process that uses it, and again in a forked child. Whatever ``step`` raises is logged once
    and tried again: a background duty never ends because of one bad day.
    """

    def __init__(self, name: str, step: Callable[[], float]) -> None:
        super().__init__(name=name, daemon=True)
        self.pid = os.getpid()
        self._step = step
        self._stopping = threading.Event()

    def run(self) -> None:
        said = ""
        while not self._stopping.is_set():
            try:
                wait = self._step()
                said = ""
            except Exception as error:
                wait = 5.0
                if str(error) != said:
                    said = str(error)
                    _log.exception("event=background_failed task=%s", self.name)
            self._stopping.wait(wait)

    def stop(self, timeout: float = 5.0) -> None:
        self._stopping.set()
        if self.is_alive() and self is not threading.current_thread():
            self.join(timeout)
