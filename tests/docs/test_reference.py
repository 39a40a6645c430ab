"""The tables of the reference say what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import proxymw
from proxymw import errors
from tests.origins import ROOT

REFERENCE = ROOT / "docs" / "reference"


def text(name: str) -> str:
    return (REFERENCE / name).read_text()


def test_the_table_of_errors() -> None:
    rows = []
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.UpstreamError) and error is not errors.UpstreamError:
            ran, moves = ("yes" if error.may_have_run else "no"), ("yes" if error.connect_level else "no")
            rows.append(f"| `{name}` | {error.status} | {ran} | {moves} | `{error.proxy_status}` | `{error.event}` |")
    table = "\n".join(rows)
    assert table in text("statuses.md"), f"the table should be\n{table}"


def refusals() -> set[tuple[int, str]]:
    """(status, event) of every RequestRefused that is raised somewhere."""
    found = set()
    for path in (ROOT / "proxymw").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("RequestRefused", "TunnelRefused"):
                status, event = (getattr(arg, "value", None) for arg in node.args[:2])
                if isinstance(status, int) and isinstance(event, str):
                    found.add((status, event))
    return found


def test_every_refusal_is_in_the_table() -> None:
    told = set()
    for status, events in re.findall(r"^\| (\d{3}) \|.*\| (`.*`) \|$", text("statuses.md"), re.MULTILINE):
        told |= {(int(status), event) for event in re.findall(r"`(\w+)`", events)}
    # OPTIONS * is an answer rather than a refusal.
    assert {event for _, event in refusals()} - {"options_of_server"} <= {event for _, event in told}
    assert told - refusals() - {(404, "bad_path")} == set()


def test_every_public_class_has_its_options_listed() -> None:
    listed = set(re.findall(r"autoclass:: proxymw\.(\w+)$", text("options.md"), re.MULTILINE))
    elsewhere = {"ConfigError", "__version__", "from_file"}
    assert set(proxymw.__all__) - elsewhere == listed


@pytest.mark.parametrize("page", sorted(REFERENCE.glob("*.md")), ids=lambda path: path.stem)
def test_names_in_code_exist(page: Path) -> None:
    """Roles that Sphinx resolves are checked by its build; this holds without Sphinx."""
    from importlib import import_module

    for role, target in re.findall(r"\{(class|meth|mod|func)\}`~?([\w.]+)`", page.read_text()):
        parts = target.split(".")
        if role == "mod":
            import_module(target)
            continue
        owner = 2 if role == "meth" else 1
        module = import_module(".".join(parts[:-owner]))
        found = module
        for part in parts[-owner:]:
            found = getattr(found, part)


def test_keys_of_the_environ() -> None:
    used = set()
    for path in (ROOT / "proxymw").rglob("*.py"):
        used |= set(re.findall(r'environ\[f?"(proxymw\.\w+)"\](?:, [^=]+)? = ', path.read_text()))
    told = set(re.findall(r"`(proxymw\.\w+)`", text("environ.md")))
    internal = {"proxymw.route", "proxymw.checked", "proxymw.own"}
    assert told - used == set()
    assert used - told - internal == set(), "say in environ.md what they are"


def test_classes_of_the_table_of_directives_are_public() -> None:
    code = " ".join(line.split("|")[2] for line in text("directives.md").splitlines() if line.startswith("| `"))
    assert set(re.findall(r"\b([A-Z]\w+)\(", code)) - {"Probe"} <= set(proxymw.__all__)


def test_events_of_pools_are_told() -> None:
    source = "".join((ROOT / "proxymw" / name).read_text() for name in ("balancer.py", "prober.py"))
    used = set(re.findall(r'"event": "(\w+)"', source))
    assert used - set(re.findall(r"`(\w+)`", text("logging.md"))) == set()
