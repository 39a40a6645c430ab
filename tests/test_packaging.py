"""What is installed is what was written, and importing it does nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import proxymw
from demo import bootstrap
from tests import wheel_content

ROOT = Path(__file__).resolve().parent.parent


def python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-W", "ignore:'cgi' is deprecated:DeprecationWarning", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "name", ["PathPrefix", "PrefixTable", "RewriteRule", "RewriteCond", "NetworkSet", "HostPattern"]
)
def test_a_matcher_imports_without_client_and_templates(name: str) -> None:
    heavy = "{'urllib3', 'jinja2', 'werkzeug', 'webob', 'socket', 'ssl', 'http.client'}"
    assert python(f"import sys; from proxymw import {name}; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_nothing_starts_at_import() -> None:
    """No thread, no socket, no open file: what is needed is born on first use, in the process that uses it."""
    told = python("""
import gc, os, socket, sys, threading
open_before = set(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else set()
import proxymw
for name in proxymw.__all__:
    getattr(proxymw, name)
import proxymw.apacheconf
left = set(os.listdir("/proc/self/fd")) - open_before if open_before else set()
print(threading.active_count(), len(left), sum(isinstance(thing, socket.socket) for thing in gc.get_objects()))
""")
    assert told == "1 0 0"


def test_every_public_name_is_there() -> None:
    for name in proxymw.__all__:
        assert getattr(proxymw, name) is not None
    assert set(proxymw.__all__) <= set(dir(proxymw))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        proxymw.Nonsense  # noqa: B018


def test_the_wheel_has_every_file(tmp_path: Path) -> None:
    """Built from a copy, so that nothing is written into the checkout; without the network where setuptools is."""
    if missing := [line for line in bootstrap.missing("test") if line.startswith("setuptools")]:
        pytest.skip(f"not installed: {missing[0]}")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel_content.differences(wheel, source) == []


def test_the_comparison_notices_a_missing_file(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("proxymw/unknown.py", "")
    found = wheel_content.differences(tmp_path / "a.whl")
    assert "not in the wheel: proxymw/py.typed" in found
    assert "in the wheel alone: proxymw/unknown.py" in found


def test_a_type_checker_sees_every_public_name() -> None:
    """The lazy names are imported for type checkers from the modules that they are loaded from."""
    source = (ROOT / "proxymw" / "__init__.py").read_text()
    shown = re.findall(r"^    from proxymw\.([\w.]+) import (\w+) as (\w+)$", source, re.MULTILINE)
    assert {(name, home) for home, name, _ in shown} == set(proxymw._HOMES.items())
    assert all(name == again for _, name, again in shown)
