"""Start the demo's origins and its front, tell what to try, and stop them all.

Every process has its own session (Ctrl-C reaches the launcher alone, which stops them in order) and dies with the
launcher however that ends. Nothing is restarted on purpose: a killed member must show failover.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo import tour
from demo.bootstrap import ROOT
from demo.origins import SITES, listener

RUN = Path(os.environ.get("DEMO_RUN", Path(__file__).parent / "run"))


def main(arguments: list[str]) -> int:
    port = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    port.add_argument("--port", type=int, help="port of the front (default: the first free one from 8000)")
    parser = argparse.ArgumentParser(
        prog="python3 -m demo", description="The guide's five cases on real HTTP servers.", parents=[port]
    )
    parser.set_defaults(port=None)
    commands = parser.add_subparsers(dest="command", metavar="command", title="while it runs, in another terminal")
    commands.add_parser("check", parents=[port], help="ask every URL, print ok or what is wrong")
    kill = commands.add_parser("kill", parents=[port], help="kill an origin (app3, say): the others take over")
    kill.add_argument("name")
    load = commands.add_parser("load", parents=[port], help="send requests to the cluster, show who answered")
    load.add_argument("requests", type=int, nargs="?", default=100)
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        return run(chosen.port)
    running = find(chosen.port)
    if running is None:
        print("No demo is running here. Start one with: python3 -m demo", file=sys.stderr)
        return 1
    if chosen.command == "check":
        return 1 if tour.check(running["port"]) else 0
    if chosen.command == "kill":
        return kill_origin(running, chosen.name)
    show(tour.load(running["port"], chosen.requests))
    return 0


def run(port: int | None) -> int:
    """Run the demo until Ctrl-C (or SIGTERM)."""
    try:
        front_socket = listen(port)
    except OSError as error:
        print(f"Port {port or 8000} cannot be used: {error.strerror}.", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    port = front_socket.getsockname()[1]
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        with recorded(port, children):
            origins = {name: start_origin(name, children) for name in SITES}
            children["front"] = start_front(front_socket, origins)
            record(port, children)
            if not answers(port, children["front"]):
                print(f"The front did not start; see {RUN / 'front.log'}", file=sys.stderr)
                return 1
            print(welcome(port), flush=True)
            children["front"].wait()
            print(f"The front ended; see {RUN / 'front.log'}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0
    finally:
        stop(children)


def listen(port: int | None) -> socket.socket:
    """The front's listening socket: on `port`, or on the first free one from 8000 upward."""
    for candidate in [port] if port is not None else range(8000, 8100):
        try:
            made = socket.create_server(("127.0.0.1", candidate), backlog=256)
        except OSError:
            if candidate in (port, 8099):
                raise
        else:
            made.set_inheritable(True)
            return made
    raise AssertionError


def start(command: list[str], descriptor: int, **options: Any) -> subprocess.Popen[bytes]:
    """A child with a session of its own that dies when this process dies."""
    launcher = os.getpid()

    def leave_with_parent() -> None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, on Linux
        if os.getppid() != launcher:
            os._exit(1)

    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=leave_with_parent,
        pass_fds=[descriptor],
        **options,
    )


def start_origin(name: str, children: dict[str, subprocess.Popen[bytes]]) -> str:
    """Start the origin and give its URL. Only the child keeps the socket: when it dies, connecting is refused."""
    with listener() as listening:
        children[name] = start(["demo.origins", name, str(listening.fileno())], listening.fileno())
        return "http://127.0.0.1:{1}".format(*listening.getsockname())


def start_front(listening: socket.socket, origins: dict[str, str]) -> subprocess.Popen[bytes]:
    descriptor = listening.fileno()
    command = ["gunicorn", "--bind", f"fd://{descriptor}", "--no-control-socket"]
    command += ["--forwarded-allow-ips", ""]  # gunicorn would believe anybody on this machine about the scheme
    command += ["--worker-class", "gthread", "--threads", "16", "--graceful-timeout", "2", "demo.front:app"]
    environ = {**os.environ, "DEMO_ORIGINS": json.dumps(origins), "DEMO_LOGS": str(RUN)}
    with open(RUN / "front.log", "wb") as log, listening:
        return start(command, descriptor, env=environ, stdout=log, stderr=log)


def answers(port: int, front: subprocess.Popen[bytes]) -> bool:
    """Wait until the front has answered a first request."""
    deadline = time.monotonic() + 30
    while front.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            tour.ask(port, tour.TOUR[0])
            return True
        time.sleep(0.05)
    return False


def stop(children: dict[str, subprocess.Popen[bytes]]) -> None:
    """The front first, so that no request meets a dead origin."""
    ordered = [children[name] for name in sorted(children, key=lambda name: name != "front")]
    for child in ordered:
        if child.poll() is None:
            child.terminate()
            if child is children.get("front"):
                wait(child)
    for child in ordered:
        wait(child)


def wait(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def record(port: int, children: dict[str, subprocess.Popen[bytes]]) -> None:
    state = {"port": port, "launcher": os.getpid(), "pids": {name: child.pid for name, child in children.items()}}
    (RUN / f"{port}.json").write_text(json.dumps(state))


@contextlib.contextmanager
def recorded(port: int, children: dict[str, subprocess.Popen[bytes]]) -> Iterator[None]:
    """Keep a file that tells `check`, `kill` and `load` where this demo is."""
    for name in ("ducklington.org", "static.ducklington.org"):
        (RUN / name).mkdir(parents=True, exist_ok=True)
    record(port, children)
    try:
        yield
    finally:
        (RUN / f"{port}.json").unlink(missing_ok=True)


def find(port: int | None) -> dict[str, Any] | None:
    """The state of the running demo: the one on `port`, or the newest."""
    files = RUN.glob("*.json") if port is None else [RUN / f"{port}.json"]
    for file in sorted(filter(Path.exists, files), key=lambda file: file.stat().st_mtime, reverse=True):
        with contextlib.suppress(OSError, ValueError):
            state: dict[str, Any] = json.loads(file.read_text())
            os.kill(state["launcher"], 0)
            return state
    return None


def kill_origin(running: dict[str, Any], name: str) -> int:
    full = name if "." in name else f"{name}.ducklington.org"
    if full not in running["pids"]:
        short = ", ".join(known.partition(".")[0] for known in running["pids"] if known != "front")
        print(f"There is no {name}; there are {short}.", file=sys.stderr)
        return 1
    with contextlib.suppress(ProcessLookupError):
        os.kill(running["pids"][full], signal.SIGKILL)
    print(f"{full} is dead. Twenty requests to the cluster:")
    shares = tour.load(running["port"], 20)
    show(shares)
    failed = sum(count for name, count in shares.items() if name.startswith("status"))
    print("No client has seen an error." if not failed else f"{failed} clients have seen an error.")
    return 1 if failed else 0


def show(shares: dict[str, int]) -> None:
    for name, count in sorted(shares.items()):
        print(f"  {name:24} {count:5}  {'#' * round(40 * count / max(shares.values()))}")


def welcome(port: int) -> str:
    local = f"http://127.0.0.1:{port}"
    return f"""proxymw demo is up (Ctrl-C stops it)
  front              {local}/
  files, case 1      http://static.localhost:{port}/screen.css
  prefixes, case 2   {local}/static/screen.css
                     {local}/media/duck.svg
                     {local}/wiki/            (not proxied: /wiki/static/a)
  rewriting, case 3  {local}/blog/index.php   (a cookie, and a redirect: /blog/login.php)
  fallback, case 4   {local}/anything-not-on-disk
  cluster, case 5    {local}/cluster/         (reload: app1 ... app5)
  manager            {local}/balancer-manager/
Each case with the guide's own lines: http://case2.localhost:{port}/ ... http://case5.localhost:{port}/
Try:  python3 -m demo check     python3 -m demo kill app3     python3 -m demo load 200"""
