"""The guide's five cases as a running front: ``python3 -m demo``."""
