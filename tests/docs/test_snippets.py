"""Nothing in the documentation can rot: each page's examples are run in order, in a namespace of the page."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sybil")
pytest.importorskip("paste.deploy")

from tests.docs.snippets import RUNNERS, fences, inside, page
from tests.origins import ROOT

PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
#: Fences that show something to read: what a client or a server says, a picture of text, directives of the builder.
SHOWN = {"text", "http", "json", ""}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_snippet_works(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = page(path, tmp_path)
    document.namespace |= {
        "__name__": "site",
        "folder": tmp_path,
        "files": {},
        "same": same,
        "source": path.read_text(),
    }
    with inside(tmp_path):
        for example in document.examples():
            example.evaluate()


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_fence_is_run_or_meant_to_be_read(path: Path) -> None:
    assert {f for f in fences(path) if not f.startswith("{")} <= {"python", *RUNNERS, *SHOWN}


def same(one: Any, other: Any, targets: str, host: str = "ducklington.org") -> None:
    """Both applications answer alike: status, and what an origin was asked for or what was in the file."""
    from werkzeug.test import Client

    from proxymw.testing import ScriptedTransport

    def told(app: Any, target: str) -> tuple[int, str]:
        with ScriptedTransport():
            reply = Client(app).get(target, base_url=f"http://{host}", environ_base={"REMOTE_ADDR": "192.168.1.233"})
            return reply.status_code, reply.text if reply.status_code == 200 else ""

    for target in textwrap.dedent(targets).split():
        assert told(one, target) == told(other, target), target
