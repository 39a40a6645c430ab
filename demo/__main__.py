"""``python3 -m demo``: see the guide's five cases run. ``python3 -m demo --help`` tells the rest."""

import sys

from demo import bootstrap

bootstrap.enter("demo", "demo")

from demo.launcher import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
