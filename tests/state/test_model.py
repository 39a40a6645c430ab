"""Two workers on one mapped table against a plain model of mod_proxy_balancer, in any order of events."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxymw.balancer import BalancerPool
from proxymw.errors import ConnectRefused, NoMember
from proxymw.rules.members import Member
from proxymw.rules.policy import Policy

NAMES = "abcd"
SEVERAL = {"PATH_INFO": "/", "wsgi.multiprocess": True}
RETRY = 60


@dataclass
class Model:
    """A member as the manual has it."""

    name: str
    factor: int = 100
    state: str = "ready"
    lbset: int = 0
    status: int = 0
    elected: int = 0
    busy: int = 0
    error_at: float | None = None

    def usable(self, now: float) -> bool:
        if self.error_at is not None and now >= self.error_at + RETRY:
            self.error_at = None
        return self.error_at is None and self.state != "disabled"


class Balancer:
    """The whole of the algorithm, slowly."""

    def __init__(self, members: list[Model]) -> None:
        self.members = members

    def elect(self, now: float) -> Model | None:
        if (
            self.members
            and all(m.error_at is not None for m in self.members)
            and not any(now >= m.error_at + RETRY for m in self.members if m.error_at is not None)
        ):
            for member in self.members:
                member.error_at = None
        for number in sorted({m.lbset for m in self.members}):
            members = [m for m in self.members if m.lbset == number]
            missing = 0
            candidates, spares, standbys = [], [], []
            for member in members:
                if member.state == "drain":
                    missing += 1
                    continue
                usable = member.usable(now)
                if member.state == "spare":
                    spares += [member] * usable
                elif member.state == "standby":
                    standbys += [member] * usable
                elif usable:
                    candidates.append(member)
                else:
                    missing += 1
            candidates += spares[:missing]
            candidates = candidates or standbys
            if candidates:
                best = candidates[0]
                for member in candidates:
                    member.status += member.factor
                for member in candidates:
                    if member.status > best.status:
                        best = member
                best.status -= sum(member.factor for member in candidates)
                return best
        return None


class TwoWorkers(RuleBasedStateMachine):
    @initialize(factors=st.lists(st.integers(1, 5), min_size=1, max_size=4))
    def begin(self, factors: list[int]) -> None:
        self.home = tempfile.mkdtemp(prefix="model-")
        self.now = 1000.0
        self.dead: set[str] = set()
        self.held: list = []
        self.model = Balancer([Model(name, factor * 100) for name, factor in zip(NAMES, factors, strict=False)])
        self.factors = {m.name: m.factor for m in self.model.members}
        self.workers = [self._worker(), self._worker()]

    def _worker(self, order: int = 0) -> BalancerPool:
        members = [Member(f"http://{name}", loadfactor=self.factors[name] / 100) for name in self.factors]
        return BalancerPool(
            members[order:] + members[:order],
            state=f"{self.home}/t",
            policy=Policy.apache(),
            clock=lambda: self.now,
        )

    def teardown(self) -> None:
        if hasattr(self, "home"):
            for worker in self.workers:
                worker.close()
            shutil.rmtree(self.home)

    def member(self, name: str) -> Model:
        return next(m for m in self.model.members if m.name == name)

    @rule(worker=st.integers(0, 1), hold=st.booleans())
    def ask(self, worker: int, hold: bool) -> None:
        pool = self.workers[worker]
        attempts = max(0, len(self.model.members) - 1)
        tried: tuple = ()
        while True:
            expected = self.model.elect(self.now) if len(tried) <= attempts else None
            try:
                lease = pool.lease(dict(SEVERAL), tried)
            except NoMember:
                assert expected is None
                return
            assert expected is not None
            assert lease.origin.host == expected.name
            expected.elected += 1
            if expected.name in self.dead:
                lease.finish(ConnectRefused("dead"))
                expected.error_at = self.now
                tried += (lease,)
            elif hold:
                expected.busy += 1
                self.held.append((lease, expected))
                return
            else:
                lease.finish(status=200)
                return

    @rule(which=st.integers(0, 100))
    def finish(self, which: int) -> None:
        if self.held:
            lease, member = self.held.pop(which % len(self.held))
            lease.finish(status=200)
            member.busy -= 1

    @rule(name=st.sampled_from(NAMES), alive=st.booleans())
    def kill_or_start(self, name: str, alive: bool) -> None:
        (self.dead.discard if alive else self.dead.add)(name)

    @rule(seconds=st.sampled_from([0.5, 5, 30, 61]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        worker=st.integers(0, 1),
        which=st.integers(0, 3),
        state=st.sampled_from(["ready", "drain", "disabled", "standby", "spare"]),
        factor=st.integers(1, 5),
        lbset=st.integers(0, 1),
    )
    def change(self, worker: int, which: int, state: str, factor: int, lbset: int) -> None:
        member = self.model.members[which % len(self.model.members)]
        self.workers[worker].change(f"http://{member.name}", state=state, loadfactor=factor, lbset=lbset)
        was = member.state
        member.state, member.factor, member.lbset = state, factor * 100, lbset
        back = was == "disabled" != state and member.error_at is None
        for other in self.model.members:  # the turn begins anew
            other.status = 0 if back else other.factor

    @rule(worker=st.integers(0, 1))
    def reload(self, worker: int) -> None:
        """A worker of the same configuration takes the place of one that ended."""
        if not self.held:
            self.workers[worker].close()
            self.workers[worker] = self._worker()

    @invariant()
    def both_show_the_truth(self) -> None:
        if not hasattr(self, "workers"):
            return
        for worker in self.workers:
            worker.join(SEVERAL)
            shown = [(v.id[-1], v.requests, v.in_flight, v.asked, v.weight) for v in worker.snapshot().members]
            assert shown == [(m.name, m.elected, m.busy, m.state, m.factor / 100) for m in self.model.members]


TestTwoWorkers = TwoWorkers.TestCase
TestTwoWorkers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
