"""Compare a wheel with the checkout: every file of the package that git has, and none that it has not."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tracked(root: Path = ROOT) -> set[str]:
    """The package's files that git has, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "proxymw"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    return {name for name in listed.stdout.splitlines() if (root / name).is_file()}


def differences(wheel: str | Path, root: Path = ROOT) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    missing = [f"not in the wheel: {name}" for name in sorted(tracked(root) - packed)]
    return missing + [f"in the wheel alone: {name}" for name in sorted(packed - tracked(root))]


if __name__ == "__main__":
    found = differences(sys.argv[1])
    print("\n".join(found) or f"{len(tracked())} files, as in the checkout")
    sys.exit(bool(found))
