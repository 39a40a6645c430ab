"""The list of deliberate differences is complete: each has a reason, an expectation, and its line in the docs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ENTRIES = tomllib.loads((HERE / "deviations.toml").read_text("utf-8"))["deviation"]
PAGE = HERE.parents[1] / "docs" / "explanation" / "apache.md"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["match"][:40])
def test_each_says_why_and_what_instead(entry: dict[str, object]) -> None:
    re.compile(str(entry["match"]))
    assert len(str(entry["reason"])) > 20
    assert entry["expect"]


@pytest.mark.parametrize("reason", sorted({entry["reason"] for entry in ENTRIES}))
def test_each_has_its_line_in_the_docs(reason: str) -> None:
    page = " ".join(PAGE.read_text("utf-8").split())
    assert " ".join(reason.split()).replace("*", "\\*") in page
