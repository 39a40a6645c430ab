"""A Vite development server behind a front: the page, its modules, and hot reload over a WebSocket.

Needs node, and ``npm install`` in tests/live/vite.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import eventually
from tests.origins import Front

pytest.importorskip("websockets", reason="websockets is not installed")
from websockets.sync.client import connect
from websockets.typing import Subprotocol

VITE = Path(__file__).parent / "vite" / "node_modules" / "vite" / "bin" / "vite.js"
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
    pytest.mark.skipif(not VITE.exists(), reason="Vite is not installed: npm install in tests/live/vite"),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text('<!doctype html><script type="module" src="/main.js"></script>')
    (tmp_path / "main.js").write_text('import { word } from "./word.js"; import.meta.hot.accept("./word.js");\n')
    (tmp_path / "word.js").write_text('export const word = "before";\n')
    return tmp_path


@pytest.fixture
def vite(project: Path) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(NODE), str(VITE), "--host", "127.0.0.1", "--port", str(port), "--strictPort"]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        assert process.poll() is None
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        eventually(listens, 30)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_a_change_reaches_the_page(worker: str, project: Path, vite: int) -> None:
    app = f"from proxymw import PrefixProxy\napp = PrefixProxy(None, [('/', 'http://127.0.0.1:{vite}/')])\n"
    with Front(app, worker_class=worker) as front:
        page = front.get("/", headers=[("Accept", "text/html")])
        assert "/@vite/client" in page.text
        client = front.get("/@vite/client").text
        token = re.search(r'wsToken = "([^"]+)"', client)
        assert token
        assert "word.js" in front.get("/main.js").text
        assert "before" in front.get("/word.js").text
        url = f"ws://127.0.0.1:{front.port}/?token={token[1]}"
        with connect(url, subprotocols=[Subprotocol("vite-hmr")], origin=front.url) as ws:  # type: ignore[arg-type]
            assert ws.subprotocol == "vite-hmr"
            assert json.loads(ws.recv(timeout=10)) == {"type": "connected"}
            (project / "word.js").write_text('export const word = "after";\n')
            message = json.loads(ws.recv(timeout=10))
            assert message["type"] == "update"
            (update,) = message["updates"]
            assert (update["path"], update["acceptedPath"]) == ("/main.js", "/word.js")
        assert "after" in front.get(f"/word.js?t={update['timestamp']}").text
