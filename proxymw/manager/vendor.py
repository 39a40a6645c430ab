"""For maintainers: bring the page's libraries from the npm registry, and keep the table of what they are.

``python -m proxymw.manager.vendor`` compares the files with the table; with ``--write`` it downloads the newest
versions within the ranges below with ``npm pack``, and writes files, licences and table. Nothing else imports it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent / "static" / "vendor"
TABLE = HERE / "README.md"
#: Package and range; licence; file in the package -> file here.
PACKAGES = (
    ("htmx.org@4", "0BSD", {"dist/htmx.min.js": "htmx.min.js", "LICENSE": "htmx.LICENSE"}),
    (
        "uplot@1",
        "MIT",
        {
            "dist/uPlot.iife.min.js": "uPlot.iife.min.js",
            "dist/uPlot.min.css": "uPlot.min.css",
            "LICENSE": "uPlot.LICENSE",
        },
    ),
)


def rows() -> dict[str, list[str]]:
    """The table by file: package, version, licence, hash."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return {file: rest for file, *rest in cells}


def differences() -> list[str]:
    """What the table and the files do not agree on."""
    told = rows()
    there = {path.name for path in HERE.iterdir() if path.name != TABLE.name}
    wrong = [f"{name} is not in the table" for name in sorted(there - told.keys())]
    wrong += [f"{name} is missing" for name in sorted(told.keys() - there)]
    return wrong + [f"{name} was changed" for name in sorted(there & told.keys()) if told[name][3] != digest(name)]


def digest(name: str) -> str:
    return hashlib.sha256((HERE / name).read_bytes()).hexdigest()


def refresh() -> None:
    """Download, unpack, write the table anew."""
    lines = []
    for package, licence, files in PACKAGES:
        with tempfile.TemporaryDirectory() as folder:
            command = ["npm", "pack", "--silent", "--ignore-scripts", package]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            archive = max(Path(folder).glob("*.tgz"))
            version = archive.stem.rpartition("-")[2]
            with tarfile.open(archive) as packed:
                for inside, name in files.items():
                    found = packed.extractfile(f"package/{inside}")
                    assert found is not None, f"{package} has no {inside}"
                    (HERE / name).write_bytes(found.read())
                    lines.append(
                        f"| `{name}` | {package.partition('@')[0]} | {version} | {licence} | `{digest(name)}` |"
                    )
    head = [line for line in TABLE.read_text().splitlines() if not line.startswith("| `")]
    TABLE.write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        refresh()
    problems = differences()
    print("\n".join(problems) or "the vendored files are what the table says")
    sys.exit(bool(problems))
