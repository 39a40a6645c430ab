"""The demo as a stranger meets it: started, asked, hurt, stopped."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import tour
from tests.client import eventually, fetch
from tests.origins import ROOT, Front

pytestmark = pytest.mark.live


#: Make standard input the terminal of this session, and go on as the Python that the arguments say.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Demo:
    """``python3 -m demo`` on a terminal of its own."""

    def __init__(self, run: Path) -> None:
        self.env = {**os.environ, "DEMO_RUN": str(run), "PYTHONDONTWRITEBYTECODE": "1"}
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.keys, terminal = pty.openpty()
        self._output = run / "output"
        with open(self._output, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TAKE_TERMINAL, "-m", "demo", "--port", str(self.port)],
                cwd=ROOT,
                env=self.env,
                stdin=terminal,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        os.close(terminal)
        eventually(lambda: "demo is up" in self.output or self.process.poll() is not None, 40)
        assert self.process.poll() is None, self.output

    @property
    def output(self) -> str:
        return self._output.read_text()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "demo", *arguments, "--port", str(self.port)]
        return subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=60)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.keys)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with contextlib.closing(Demo(tmp_path)) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with contextlib.closing(Demo(tmp_path_factory.mktemp("run"))) as running:
        yield running


def descendants(pid: int) -> set[int]:
    """The processes below `pid`, as /proc tells."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run; a zombie does not."""
    running = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                running.add(pid)
    return running


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


def test_check_finds_every_url_as_it_should_be(shared):
    checked = shared.command("check")
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.endswith(f"{len(tour.TOUR)} of {len(tour.TOUR)} as they should be.\n")


def test_every_url_that_is_shown_works(shared):
    for word in shared.output.split():
        if word.startswith("http://127.0.0.1"):
            assert fetch(shared.port, word.partition(str(shared.port))[2]).status in (200, 302), word


def test_load_shows_equal_shares(shared):
    lines = shared.command("load", "50").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[f"app{number}.ducklington.org", "10"] for number in range(1, 6)]


def test_the_legacy_redirect_and_cookie_come_back_through_the_front(shared):
    first = fetch(shared.port, "/blog/login.php", host="ducklington.org")
    assert (first.status, first.header("Location")) == (302, "/blog/index.php")
    page = fetch(shared.port, "/blog/index.php")
    cookie = page.header("Set-Cookie").partition(";")[0]
    assert "Visit 1 of yours" in page.text
    assert "Visit 2 of yours" in fetch(shared.port, "/blog/index.php", headers={"Cookie": cookie}).text


def test_each_host_has_its_own_logs(shared):
    fetch(shared.port, "/screen.css?from=test", host="static.ducklington.org")
    log = Path(shared.env["DEMO_RUN"]) / "static.ducklington.org" / "access.log"
    eventually(lambda: log.exists() and "GET /screen.css?from=test HTTP/1.1" in log.read_text())


def test_killing_a_member_shows_failover(demo):
    killed = demo.command("kill", "app3")
    assert killed.returncode == 0, killed.stdout
    assert "app3.ducklington.org is dead" in killed.stdout
    assert "No client has seen an error." in killed.stdout
    assert "app3.ducklington.org  " not in killed.stdout
    assert fetch(demo.port, "/cluster/").status == 200


def test_killing_what_is_not_there_names_what_is(shared):
    told = shared.command("kill", "app9")
    assert told.returncode == 1
    assert "There is no app9; there are static, media, application, app, app1" in told.stderr


def test_commands_without_a_demo_say_how_to_start_one(tmp_path):
    env = {**os.environ, "DEMO_RUN": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "demo", "check"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "No demo is running here. Start one with: python3 -m demo\n")


def test_a_taken_port_is_told(tmp_path):
    env = {**os.environ, "DEMO_RUN": str(tmp_path)}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "demo", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot be used: Address already in use" in done.stderr


@linux
def test_ctrl_c_stops_everything(demo):
    children = descendants(demo.process.pid)
    assert len(children) == len(json.loads((Path(demo.env["DEMO_RUN"]) / f"{demo.port}.json").read_text())["pids"]) + 1
    os.write(demo.keys, b"\x03")
    assert demo.process.wait(15) == 0
    assert demo.output.endswith("Stopped.\n")
    assert "Traceback" not in demo.output
    assert alive(children) == set()
    assert not list(Path(demo.env["DEMO_RUN"]).glob("*.json"))


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(demo, number):
    children = descendants(demo.process.pid)
    demo.process.send_signal(number)
    assert demo.process.wait(15) == 0
    assert alive(children) == set()


@linux
def test_a_killed_launcher_leaves_no_orphan(demo):
    children = descendants(demo.process.pid)
    demo.process.kill()
    demo.process.wait()
    eventually(lambda: not alive(children))


@pytest.mark.parametrize("options", [{}, {"workers": 2, "args": ["--preload"]}, {"worker_class": "sync"}])
def test_the_front_alone_serves_all_five_cases(front, tmp_path, options):
    """``gunicorn demo.front:app`` with nothing announced: the origins live in its own processes."""
    site: Front = front("demo.front:app", env={"DEMO_LOGS": str(tmp_path)}, **options)
    assert tour.check(site.port) == []


def test_the_check_notices_what_is_wrong():
    def reply(status: int = 200, origin: str = "app2", arrived: str = "/", body: bytes = b"") -> tour.Reply:
        headers = tour.http.client.HTTPMessage()
        headers["X-Origin"], headers["X-Origin-Target"], headers["Location"] = origin, arrived, "/elsewhere"
        return tour.Reply(status, headers, body)

    stop = tour.Stop("5", "/cluster/", "app", "/")
    assert tour.wrong(stop, reply()) == ""
    assert tour.wrong(stop, reply(502)) == "status 502, not 200"
    assert tour.wrong(stop, reply(origin="wiki")) == "answered by wiki, not by app"
    assert tour.wrong(stop, reply(arrived="/cluster/")) == "app2 was asked for /cluster/, not for /"
    assert tour.wrong(tour.Stop("2", "/", "app2", "/", contains="<h1>"), reply()) == "'<h1>' is not in the page"
    moved = tour.Stop("3", "/", "app2", "/", headers=(("Location", "/here"),))
    assert tour.wrong(moved, reply()) == "Location is '/elsewhere', not '/here'"
