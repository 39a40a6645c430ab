"""Imports go down only, and the rules are pure: what a module may import is decided by the floor it lives on."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "proxymw"

# From the bottom up. A module imports from its own floor and those below; `explain`, `apacheconf` and the command
# line stand on the skins.
FLOORS = ("errors", "rules", "state", "exchange", "skins", "top")
TOP = {"explain", "apacheconf", "__main__", "serving", "paste", "testing"}
BOTTOM = {"errors", "rules", "state", "exchange"}

#: Modules that exist for the sake of an extra, and are imported by nothing else.
OPTIONAL = {"serving": {"gunicorn"}}

#: What a rule may not know: the outside world. (``http`` is for its table of statuses.)
IMPURE = {"os", "io", "socket", "ssl", "time", "threading", "subprocess", "pathlib", "secrets", "select", "http.client"}
IMPURE |= {"tempfile", "mmap", "fcntl", "signal", "asyncio", "logging", "urllib3", "werkzeug", "webob", "jinja2"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def floor_of(module: str) -> str:
    """The floor of a dotted name below the package: ``rules.paths`` is on ``rules``."""
    first = module.partition(".")[0]
    if first in BOTTOM:
        return first
    return "top" if first in TOP else "skins"


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> Iterator[str]:
    """The absolute names imported anywhere in a module, type-checking blocks included."""
    package = ["proxymw", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            if module == "proxymw":
                yield from (f"proxymw.{alias.name}" for alias in node.names)
            else:
                yield module


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_go_down_only(path: Path) -> None:
    mine = FLOORS.index(floor_of(dotted(path)))
    upward = [
        name
        for name in imports(path)
        if name.startswith("proxymw.")
        and name != "proxymw.__version__"
        and FLOORS.index(floor_of(name.removeprefix("proxymw."))) > mine
    ]
    assert upward == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "rules").rglob("*.py")), ids=dotted)
def test_rules_know_nothing_of_the_outside_world(path: Path) -> None:
    assert [name for name in imports(path) if {name, name.partition(".")[0]} & IMPURE] == []


@pytest.mark.parametrize("path", [path for path in modules() if floor_of(dotted(path)) != "exchange"], ids=dotted)
def test_only_the_exchange_names_urllib3(path: Path) -> None:
    assert [name for name in imports(path) if name.partition(".")[0] == "urllib3"] == []


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_every_import_is_declared_or_optional(path: Path) -> None:
    """A module that is imported at the top of a file is the standard library's, ours, or in ``install_requires``."""
    allowed = {"urllib3", "werkzeug", "webob", "jinja2", "markupsafe", "proxymw"} | OPTIONAL.get(dotted(path), set())
    tree = ast.parse(path.read_text("utf-8"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    assert found - allowed - set(sys.stdlib_module_names) == set()
