"""The whole corpus, judged at every level, where it lies beside the checkout. Slow: only in its own environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CORPUS = Path(os.environ.get("PROXYMW_ORACLE", HERE.parents[2] / "shared" / "oracle"))
#: Level -> (agree or deviate at least, deviate at most), in per cent of the cases that have something to compare.
BARS = {"decision": (99, 4), "request": (98, 3), "log": (97, 3)}

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(os.environ.get("PROXYMW_LONG") != "oracle", reason="set PROXYMW_LONG=oracle"),
    pytest.mark.skipif(not (CORPUS / "judge.py").exists(), reason="the corpus is not beside the checkout"),
]


def test_the_judge_finds_what_we_say() -> None:
    command = [sys.executable, str(CORPUS / "judge.py"), "--cases", str(CORPUS / "cases_public.json.gz")]
    command += ["--serve", f"{sys.executable} -m proxymw serve {{conf}} --bind 127.0.0.1:{{port}}"]
    command += ["--check", f"{sys.executable} -m proxymw check {{conf}}"]
    command += ["--deviations", str(HERE / "deviations.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False, cwd=HERE.parents[1])
    print(done.stdout)
    for level, (least, most) in BARS.items():
        row = re.search(rf"^  {level} +(\d+) +(\d+) +(\d+) +(\d+)", done.stdout, re.M)
        assert row is not None, done.stdout + done.stderr
        compared, agree, deviate, _ = map(int, row.groups())
        assert 100 * (agree + deviate) / compared >= least, level
        assert 100 * deviate / compared <= most, level
