"""Prometheus metrics of pools, read from their tables when asked: one scrape of any worker tells of all."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from proxymw import __version__
from proxymw.errors import ConfigError
from proxymw.rules.members import STATES
from proxymw.state.table import BOUNDS, CLASSES, REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from proxymw.balancer import BalancerPool
    from proxymw.rules.members import MemberView, PoolSnapshot

INSTALL = "Metrics need prometheus-client: pip install proxymw[metrics]"


class PoolCollector:
    """A collector for a registry of prometheus-client, beside a user's own metrics (also those of multiprocess mode).

    ``registry.register(PoolCollector([pool]))``. Labels are pool, member (its id) and words of closed lists, never
    paths or clients.
    """

    def __init__(self, pools: Iterable[BalancerPool]) -> None:
        self.pools = tuple(pools)
        for pool in self.pools:
            if not callable(getattr(pool, "snapshot", None)):
                raise ConfigError(f"pools must be a list of BalancerPool objects, got {pool!r}")

    def describe(self) -> list[Any]:
        """Nothing beforehand: registering must not open a pool's table in the parent of the workers."""
        return []

    def collect(self) -> Iterator[Any]:
        """The families of metrics, all from one snapshot of each pool."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        shots = [pool.snapshot() for pool in self.pools]

        def members(kind: Any, name: str, about: str, labels: Iterable[str], samples: Any) -> Any:
            family = kind(f"proxymw_{name}", about, labels=["pool", "member", *labels])
            for shot in shots:
                for view in shot.members:
                    for extra, value in samples(view):
                        family.add_metric([shot.name, view.id, *extra], value)
            return family

        def pools(kind: Any, name: str, about: str, value: Callable[[PoolSnapshot], float]) -> Any:
            family = kind(f"proxymw_{name}", about, labels=["pool"])
            for shot in shots:
                family.add_metric([shot.name], value(shot))
            return family

        gauge, counter = GaugeMetricFamily, CounterMetricFamily
        yield members(
            counter, "upstream_requests", "Answers by status class.", ["class"],
            lambda view: [([name], count) for name, count in zip(CLASSES, view.classes, strict=True)],
        )  # fmt: skip
        yield members(
            counter, "upstream_errors", "Failed attempts by reason.", ["reason"],
            lambda view: [([reason], view.failures.get(reason, 0)) for reason in REASONS],
        )  # fmt: skip
        yield members(
            counter, "upstream_bytes", "Bytes to and from the member.", ["direction"],
            lambda view: [(["sent"], view.sent), (["received"], view.received)],
        )  # fmt: skip
        yield members(
            counter, "member_transitions", "Times the member went up and down.", ["to"],
            lambda view: [(["up"], view.transitions[0]), (["down"], view.transitions[1])],
        )  # fmt: skip
        yield members(gauge, "member_up", "1 unless the member was found down.", [], _one(lambda v: v.health == "up"))
        yield members(gauge, "member_weight", "Load factor.", [], _one(lambda view: view.weight))
        yield members(gauge, "member_in_flight", "Requests under way.", [], _one(lambda view: view.in_flight))
        yield members(
            gauge, "member_state", "1 for the state that was asked for.", ["state"],
            lambda view: [([state], float(view.asked == state)) for state in STATES],
        )  # fmt: skip
        yield pools(
            gauge, "pool_usable_members", "Members that take requests.",
            lambda shot: sum(view.usable for view in shot.members),
        )  # fmt: skip
        yield pools(
            counter, "upstream_retries", "Attempts on the same member again.",
            lambda shot: sum(view.again[0] for view in shot.members),
        )  # fmt: skip
        yield pools(
            counter, "upstream_redispatches", "Attempts on another member.",
            lambda shot: sum(view.again[1] for view in shot.members),
        )  # fmt: skip
        times = HistogramMetricFamily(
            "proxymw_upstream_response_seconds", "Time of an exchange, body included.", labels=["pool"]
        )
        for shot in shots:
            times.add_metric([shot.name], *_histogram(shot))
        yield times
        build = gauge("proxymw_build_info", "Always 1.", labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1)
        yield build


def _one(value: Callable[[MemberView], float]) -> Callable[[MemberView], list[tuple[list[str], float]]]:
    return lambda view: [([], float(value(view)))]


def _histogram(shot: PoolSnapshot) -> tuple[list[tuple[str, float]], float]:
    """Cumulated buckets, and the sum of seconds."""
    counts = [sum(column) for column in zip(*(view.buckets for view in shot.members), strict=True)]
    counts = counts or [0] * (len(BOUNDS) + 1)
    reached, buckets = 0, []
    for bound, count in zip((*(str(bound) for bound in BOUNDS), "+Inf"), counts, strict=True):
        reached += count
        buckets.append((bound, float(reached)))
    return buckets, sum(view.latency * view.finished for view in shot.members)


def render(pools: Iterable[BalancerPool]) -> tuple[str, bytes]:
    """The metrics of ``pools`` as (content type, text). ImportError where prometheus-client is missing."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(PoolCollector(pools))
    return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry)
