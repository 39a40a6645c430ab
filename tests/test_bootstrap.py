"""The first run: what `python3 -m demo` and `python3 -m tests` decide before anything is installed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from demo import bootstrap

ROOT = Path(__file__).resolve().parent.parent
FIRST = ["demo/__init__.py", "demo/__main__.py", "demo/bootstrap.py", "tests/__init__.py", "tests/__main__.py"]


@pytest.mark.parametrize("name", FIRST)
def test_what_an_old_python_reads_parses_there(name: str) -> None:
    ast.parse((ROOT / name).read_text("ascii"), feature_version=(3, 4))


def test_an_old_python_is_told_politely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 6, 15))
    monkeypatch.setattr(bootstrap, "newer_python", lambda: None)
    with pytest.raises(SystemExit, match=r"proxymw needs Python 3.11 or newer; this is 3\.6"):
        bootstrap.enter("demo", "demo")


def test_an_old_python_hands_over_to_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class HandedOver(Exception):
        pass

    def execv(python: str, arguments: list[str]) -> None:
        raise HandedOver(python, arguments[:3])

    monkeypatch.setattr(sys, "version_info", (3, 6, 15))
    monkeypatch.setattr(bootstrap, "newer_python", lambda: "/usr/bin/python3.12")
    monkeypatch.setattr("os.execv", execv)
    with pytest.raises(HandedOver) as caught:
        bootstrap.enter("tests", "test")
    assert caught.value.args == ("/usr/bin/python3.12", ["/usr/bin/python3.12", "-m", "tests"])


def test_a_python_that_does_not_run_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "python3.13"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bootstrap.newer_python() is None
    good = tmp_path / "python3.11"
    good.write_text("#!/bin/sh\nexit 0\n")
    good.chmod(0o755)
    assert bootstrap.newer_python() == str(good)


def checkout(folder: Path, constraints: str = "a==1\n") -> str:
    (folder / "demo").mkdir(parents=True)
    (folder / "setup.cfg").write_text("[options]\n")
    (folder / "demo" / "constraints.txt").write_text(constraints)
    return str(folder)


def test_the_stamp_changes_with_place_python_and_pins(tmp_path: Path) -> None:
    """An editable install in a copied checkout would go on testing the original."""
    here, copied = checkout(tmp_path / "here"), checkout(tmp_path / "copied")
    repinned = checkout(tmp_path / "repinned", "a==2\n")
    assert bootstrap.stamp((3, 11, 2), here) == bootstrap.stamp((3, 11, 2), here)
    stamps = {
        bootstrap.stamp(version, root) for version in [(3, 11, 2), (3, 12, 0)] for root in [here, copied, repinned]
    }
    assert len(stamps) == 6


def test_releases_compare_as_numbers() -> None:
    assert bootstrap.release("2.10") > bootstrap.release("2.9.9")
    assert bootstrap.release("3") == bootstrap.release("3.0.0")
    assert bootstrap.release("27.0.1rc1") >= bootstrap.release("27")


def test_a_requirement_that_is_not_met_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bootstrap, "requirements", lambda extra: ["pytest>=1", "pytest>=999", "pytest<2", "no-such-thing"]
    )
    assert bootstrap.missing("test") == ["pytest>=999", "pytest<2", "no-such-thing"]


def test_requirements_come_from_setup_cfg() -> None:
    named = bootstrap.requirements("demo")
    assert any(line.startswith("urllib3>=") for line in named)
    assert any(line.startswith("gunicorn>=") for line in named)
    assert not any(line.startswith("pytest") for line in named)


def test_the_private_environment_serves_both_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made for the suite, it starts the demo too, unless it was made from something else."""
    venv = tmp_path / ".proxymw-venv"
    venv.mkdir()
    monkeypatch.setattr(bootstrap, "VENV", str(venv))
    monkeypatch.setattr(sys, "prefix", str(venv))
    monkeypatch.setattr(bootstrap, "missing", lambda extra: [])
    (venv / "made-for-test").write_text(bootstrap.stamp(sys.version_info))
    bootstrap.enter("demo", "demo")
    (venv / "made-for-test").write_text("of old")
    with pytest.raises(SystemExit, match="out of date"):
        bootstrap.enter("demo", "demo")
