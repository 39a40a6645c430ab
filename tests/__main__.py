"""``python3 -m tests [arguments of pytest]``: the whole suite, on a machine that has Python and nothing else."""

import sys

from demo import bootstrap

bootstrap.enter("tests", "test")

import pytest  # noqa: E402

sys.exit(pytest.main(sys.argv[1:]))
