"""``python3 -m tests.bench``: what the hot paths cost, in ratios that another machine can check.

No server takes part: each WSGI callable is called with a browser's environ and talks to a real origin in a process of
its own, on another core where there is one. All subjects run in turn in each round, and a ratio is taken within a
round, so that whatever else the machine does falls on all of them alike. Figures are CPU microseconds a request.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from demo import bootstrap

if __name__ == "__main__":
    bootstrap.enter("tests.bench", "bench")

from tests.bench import subjects
from tests.bench.origin import RunningOrigin

Row = tuple[str, Callable[[], object]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median of them is shown")
    parser.add_argument("--calls", type=int, default=2000, help="calls of each subject in a round")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all)")
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"PART must be one of {', '.join(PARTS)}, got {unknown[0]!r}")
    pin()
    for part in options.parts or PARTS:
        PARTS[part](options.rounds, options.calls)
    return 0


def proxy(rounds: int, calls: int) -> None:
    """The own cost of one proxied GET of 1 KB."""
    with RunningOrigin() as origin:
        rows = subjects.proxies(origin.url)
        table("a proxied GET, 1 KB in 8 fields", rows, rounds, calls, "raw sockets")
        rows = subjects.stacks(origin.url)
        table("the same through more of the house", rows, rounds, calls, "PrefixProxy")


def routing(rounds: int, calls: int) -> None:
    """First match in order, against one dict lookup."""
    table("ordered first match, the last rule", subjects.routers(), rounds, calls * 10, "one dict lookup")


def static(rounds: int, calls: int) -> None:
    """A miss of StaticOrPass, against the look at the disk that it cannot do without."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "page.html").write_bytes(b"x" * 1024)
        time.sleep(2.5)  # a file that has just changed is read again each time
        table("StaticOrPass", subjects.files(folder), rounds, calls * 5, "os.stat of a missing file")


def balancing(rounds: int, calls: int) -> None:
    """An election and its end, in the process and in the mapped file."""
    with tempfile.TemporaryDirectory() as folder:
        table("an election and its end", subjects.elections(folder), rounds, calls * 5, "5 members, in the process")


PARTS: dict[str, Callable[[int, int], None]] = {
    "proxy": proxy,
    "routing": routing,
    "static": static,
    "balancing": balancing,
}


def pin() -> None:
    """This process on the first core: a thread that moves between cores costs twice as much."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def table(title: str, rows: list[Row], rounds: int, calls: int, base: str) -> None:
    """Run ``rows`` in turn and print their medians, their range and the ratio to ``base``."""
    taken: dict[str, list[float]] = {name: [] for name, _ in rows}
    for _ in range(rounds):
        for name, call in rows:
            taken[name].append(microseconds(call, calls))
    print(f"\n{title}, us of CPU (median of {rounds} rounds of {calls})")
    width = max(map(len, taken))
    for name, times in taken.items():
        ratio = statistics.median(mine / theirs for mine, theirs in zip(times, taken[base], strict=True))
        spread = f"{min(times):.1f}-{max(times):.1f}"
        print(f"  {name:<{width}}  {statistics.median(times):8.2f}  {spread:>15}  {ratio:7.2f}x")
    sys.stdout.flush()


def microseconds(call: Callable[[], object], calls: int) -> float:
    for _ in range(max(10, calls // 20)):
        call()
    began = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - began) / calls * 1e6


if __name__ == "__main__":
    sys.exit(main())
