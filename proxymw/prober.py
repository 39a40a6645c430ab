"""Active health checks: one process of a host asks every member, all processes act on what it found."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, Any

from proxymw.errors import UpstreamError
from proxymw.exchange.limits import Limits
from proxymw.exchange.request import RequestWriter
from proxymw.exchange.transport import Sender, default_transport
from proxymw.rules.health import Probe, probe_result
from proxymw.rules.members import Flag
from proxymw.rules.policy import Policy
from proxymw.state.duty import Background, claim, yield_duty
from proxymw.state.pool import safe
from proxymw.state.table import H_EPOCH, H_PROBER, H_PROBER_UNTIL, wall

if TYPE_CHECKING:
    from proxymw.rules.origins import Origin
    from proxymw.state.pool import PoolTable
    from proxymw.state.roster import Seat

_log = logging.getLogger("proxymw.health")

_STOPPED = int(Flag.STOPPED | Flag.REMOVED)
#: The most of an answer's body that is looked through.
_BODY = 1 << 20


def ask(probe: Probe, origin: Origin, transport: Sender) -> str:
    """Send one probe; what is wrong with the member, or an empty text."""
    writer = RequestWriter(Policy.modern().but(forwarded=(), via="off"))
    environ: dict[str, Any] = {
        "REQUEST_METHOD": probe.method,
        "HTTP_USER_AGENT": "proxymw-probe",
        "HTTP_ACCEPT": "*/*",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
    }
    limits = Limits(probe.timeout, probe.timeout, probe.timeout, probe.timeout)
    for attempt in range(2):
        try:
            response = transport.send(origin, writer.request(environ, probe.path, host=probe.host), limits)
            try:
                return _judge(probe, response)
            finally:
                response.close()
        except UpstreamError as error:
            # A kept connection may have gone stale: that says nothing about the member.
            if not (attempt == 0 and getattr(error, "reused", False)):
                return error.event
    return ""


def _judge(probe: Probe, response: Any) -> str:
    if response.status not in probe.status:
        return f"status {response.status}"
    body = b""
    for piece in response:
        body = (body + piece)[:_BODY]
    return "" if probe.body is None or probe.body in body else "body without what is expected"


class Prober:
    """The thread that probes the members of one pool, while this process has the duty."""

    def __init__(self, pool: PoolTable, probe: Probe, transport: Sender | None = None) -> None:
        self._pool = pool
        self._probe = probe
        self._transport = transport
        self._due: dict[int, float] = {}
        self._random = Random()
        self._executor: ThreadPoolExecutor | None = None
        self.thread = Background(f"proxymw-prober-{pool.name}", self._step)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """End the probing and let another process have it."""
        self.thread.stop(self._probe.timeout + 1)
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        table, _ = self._pool.attached()
        yield_duty(table, H_PROBER, H_PROBER_UNTIL)

    def _step(self) -> float:
        probe = self._probe
        table, roster = self._pool.attached()
        lease = max(1.0, 2 * (probe.interval * (1 + probe.jitter) + probe.timeout))
        if not claim(table, H_PROBER, H_PROBER_UNTIL, lease):
            self._due.clear()
            return min(probe.interval, lease / 4)
        now = time.monotonic()
        seats = [
            seat
            for seat in roster.seats
            if seat.member.origin is not None and not seat.flags & _STOPPED and self._due.get(seat.slot, 0.0) <= now
        ]
        for seat in seats:
            spread = 1 + probe.jitter * (2 * self._random.random() - 1)
            self._due[seat.slot] = now + probe.interval * spread
        if len(seats) == 1:
            self._probe_one(seats[0])
        elif seats:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(8, thread_name_prefix=self.thread.name)
            list(self._executor.map(self._probe_one, seats))
        # Members that left are forgotten: their time would always be past.
        here = {seat.slot for seat in roster.seats if not seat.flags & _STOPPED}
        self._due = {slot: due for slot, due in self._due.items() if slot in here}
        left = min(self._due.values(), default=now + probe.interval) - time.monotonic()
        return min(max(left, 0.01), lease / 4)

    def _probe_one(self, seat: Seat) -> None:
        origin = seat.member.origin
        assert origin is not None
        problem = ask(self._probe, origin, self._transport or default_transport())
        table, _ = self._pool.attached()
        i = seat.slot
        with table.lock:
            outcome = probe_result(table, i, not problem, self._probe, time.monotonic_ns())
            if not outcome:
                return
            table.words[H_EPOCH] += 1
            table.since[i] = wall()
            (table.went_up if outcome == "up" else table.went_down)[i] += 1
            if problem:
                table.write_text(i, {**table.read_text(i), "reason": problem})
            event = {"event": f"member_{outcome}", "member": seat.member.id, "reason": problem or "health check passed"}
            table.add_event(event)
        _log.warning(
            "event=member_%s pool=%s member=%s reason=%s",
            outcome,
            safe(self._pool.name),
            safe(seat.member.id),
            safe(event["reason"]),
        )
