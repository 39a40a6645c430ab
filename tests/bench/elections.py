"""``python3 -m tests.bench.elections``: what an election costs, in CPU microseconds, by method and number of members.

``lease`` is the election with its counting, under the lock of the table; ``finish`` ends the attempt. Over a
bytearray of one
process and over a mapped file that other workers share.
"""

from __future__ import annotations

import sys
import tempfile
import time

from demo import bootstrap

if __name__ == "__main__":
    bootstrap.enter("tests.bench.elections", "bench")

from proxymw import BalancerPool

METHODS = ("byrequests", "bytraffic", "bybusyness", "leastconn", "ewma", "hash")
SIZES = (5, 50, 500)


def cost(method: str, members: int, state: str | None, rounds: int = 7) -> tuple[float, float]:
    """CPU microseconds of a lease and of its finish: the least of some rounds."""
    pool = BalancerPool([f"http://member{n}" for n in range(members)], method=method, state=state)
    environ = {"PATH_INFO": "/some/path", "wsgi.multiprocess": state is not None}
    calls = max(200, 10_000 // members)
    leases, finishes = [], []
    for _ in range(rounds):
        began = time.process_time()
        held = [pool.lease(environ) for _ in range(calls)]
        between = time.process_time()
        for lease in held:
            lease.finish(status=200, sent=300, received=1024, seconds=0.01)
        leases.append((between - began) / calls * 1e6)
        finishes.append((time.process_time() - between) / calls * 1e6)
    pool.close()
    return min(leases), min(finishes)


def main() -> int:
    print(f"{'':12}" + "".join(f"{f'{size} members':>24}" for size in SIZES))
    print(f"{'':12}" + f"{'lease':>12}{'finish':>12}" * len(SIZES))
    for where in ("local", "mapped"):
        print(where)
        for method in METHODS:
            row = f"  {method:10}"
            for size in SIZES:
                with tempfile.TemporaryDirectory() as home:
                    lease, finish = cost(method, size, f"{home}/table" if where == "mapped" else None)
                row += f"{lease:12.2f}{finish:12.2f}"
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
