"""Numbers worked out from what the pools counted: percentiles, shares, series for charts. Plain functions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from proxymw.state.table import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxymw.balancer import BalancerPool
    from proxymw.rules.members import MemberView

#: What the page draws: ten minutes.
WINDOW = 600
#: Pools with more members than this are drawn as one line.
LINES = 8


def percentile(buckets: Sequence[int], part: float) -> float | None:
    """The time, in seconds, below which ``part`` of the exchanges ended, straight between the bounds of its class.

    None without exchanges; the last bound for what took longer.
    """
    total = sum(buckets)
    if not total:
        return None
    wanted = part * total
    sums = list(accumulate(buckets))
    place = next(number for number, reached in enumerate(sums) if reached >= wanted)
    if place >= len(BOUNDS):
        return BOUNDS[-1]
    low = BOUNDS[place - 1] if place else 0.0
    before = sums[place] - buckets[place]
    return low + (BOUNDS[place] - low) * (wanted - before) / buckets[place]


def added(rows: Sequence[Sequence[int]], width: int) -> list[int]:
    """The sums of columns."""
    return [sum(column) for column in zip(*rows, strict=True)] or [0] * width


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def wanted_shares(members: Sequence[MemberView]) -> dict[str, float]:
    """The share of the requests that each member's weight asks for, among those that are elected from now."""
    ready = [view for view in members if view.usable and view.asked == "ready"]
    lowest = min((view.lbset for view in ready), default=0)
    electable = {view.id: view.weight for view in ready if view.lbset == lowest}
    total = sum(electable.values())
    return {view.id: share(electable.get(view.id, 0), total) for view in members}


def spread(ages: Sequence[int], values: Sequence[float], window: int, step: int, *, level: bool = False) -> list[float]:
    """Samples at uneven ages on an even grid from ``window`` seconds ago until now; 0 where nothing is known.

    A sample stands for the time since the one before it; a ``level`` for the time until the next.
    """
    grid = range(window - step, -1, -step)
    moments = [-age for age in ages]
    result = []
    for age in grid:
        if level:
            place = bisect_right(moments, -age) - 1
        else:
            place = bisect_left(moments, -age)
            if place == 0 and moments and -age <= moments[0] - step:
                place = -1  # before anything was known
        result.append(round(values[place], 2) if 0 <= place < len(values) else 0.0)
    return result


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the last ``WINDOW`` seconds, ``step`` seconds between values."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    step: int

    @property
    def top(self) -> float:
        """The largest value, or 1 for an empty chart."""
        return max((value for line in self.lines for value in line.values if value is not None), default=0) or 1.0


def charts(pool: BalancerPool, names: Mapping[str, str], *, window: int = WINDOW, step: int = 10) -> tuple[Chart, ...]:
    """The four charts of a pool; ``names`` are the short names of its members by id."""
    history = pool.history(window, step, ("requests", "in_flight", "5xx", "errors"), each=False)
    ages, total = history["ages"], history["total"]

    def line(name: str, values: Sequence[float], *, level: bool = False) -> Line:
        return Line(name, spread(ages, values, window, step, level=level))

    if len(names) <= LINES:
        members = pool.history(window, step, ("requests",))["members"]
        requests = tuple(line(names.get(key, key), values["requests"]) for key, values in members.items())
    else:
        requests = (line("all members", total["requests"]),)
    times = pool.times()
    time_ages = [age for age, _ in times]
    quantiles = []
    for part in (0.5, 0.95):
        values = [1000 * (percentile(buckets, part) or 0) for _, buckets in times]
        dense = spread(time_ages, values, window, 10)
        quantiles.append(Line(f"p{part * 100:.0f}", dense))
    return (
        Chart("Requests", "/s", requests, step),
        Chart("5xx and failures", "/s", (line("5xx", total["5xx"]), line("failures", total["errors"])), step),
        Chart("Response time", "ms", tuple(quantiles), 10),
        Chart("In flight", "", (line("in flight", total["in_flight"], level=True),), step),
    )


def as_series(name: str, drawn: Sequence[Chart]) -> dict[str, Any]:
    """Charts as JSON."""
    return {
        "name": name,
        "charts": [
            {
                "title": chart.title,
                "unit": chart.unit,
                "step": chart.step,
                "lines": [{"name": line.name, "values": list(line.values)} for line in chart.lines],
            }
            for chart in drawn
        ],
    }


def svg_path(values: Sequence[float | None], top: float) -> str:
    """The path of a line in a box of 100 by 40, ``top`` at its upper edge."""
    points = [
        f"{100 * number / max(1, len(values) - 1):.1f},{39 - 38 * value / top:.1f}"
        for number, value in enumerate(values)
        if value is not None
    ]
    return "M" + "L".join(points) if points else ""
