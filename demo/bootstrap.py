"""Make `python3 -m demo` and `python3 -m tests` work on a machine that has Python and nothing else.

Standard library only. Everything above `enter` parses on Python 2.7 too, so that an old interpreter says what is
missing instead of showing a traceback.
"""

from __future__ import print_function

import hashlib
import os
import re
import subprocess
import sys

OLDEST = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".proxymw-venv")
CONSTRAINTS = os.path.join(ROOT, "demo", "constraints.txt")


def enter(package, extra):
    """Return if this interpreter can run `package` (``demo`` or ``tests``), else become one that can.

    `extra` names the extra of setup.cfg that must be importable. A virtual environment (or a CI's interpreter) that
    has everything is used as it is, and never written to; otherwise a private one is made once, in the checkout.
    """
    if sys.version_info < OLDEST:
        newer = newer_python()
        if newer is None:
            sys.exit(
                "proxymw needs Python %d.%d or newer; this is %d.%d (%s)."
                % (OLDEST + tuple(sys.version_info[:2]) + (sys.executable,))
            )
        become(newer, package)
    private = os.path.realpath(sys.prefix) == os.path.realpath(VENV)
    chosen = sys.prefix != sys.base_prefix or os.environ.get("CI")
    if chosen and not private and not missing(extra):
        return
    if private and made_for(sys.version_info) and not missing(extra):
        return
    if not private:
        prepare(extra)
        become(os.path.join(VENV, "bin", "python"), package)
    sys.exit(".proxymw-venv is out of date: start with the Python that you would like it to be made from.")


def newer_python():
    """A Python on PATH that is new enough, or None. It is run to find out: a shim may stand for nothing."""
    for minor in range(20, OLDEST[1] - 1, -1):
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            candidate = os.path.join(folder, "python3.%d" % minor)
            if os.access(candidate, os.X_OK):
                try:
                    with open(os.devnull, "w") as nowhere:
                        if subprocess.call([candidate, "-c", "import venv"], stderr=nowhere) == 0:
                            return candidate
                except OSError:
                    continue
    return None


def become(python, package):
    """Replace this process; the directory is the checkout, so that its packages are found."""
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execv(python, [python, "-m", package] + sys.argv[1:])


def requirements(extra):
    """The requirement lines of setup.cfg: ``install_requires`` and the extra's."""
    import configparser

    config = configparser.ConfigParser()
    config.read(os.path.join(ROOT, "setup.cfg"), encoding="utf-8")
    lines = config["options"]["install_requires"] + "\n" + config["options.extras_require"][extra]
    return [line.strip() for line in lines.splitlines() if line.strip()]


def missing(extra):
    """The requirements that this interpreter does not meet (comparing released versions, as setup.cfg writes them)."""
    from importlib import metadata

    unmet = []
    for line in requirements(extra):
        name = re.match(r"[\w.-]+", line).group()
        try:
            version = release(metadata.version(name))
        except metadata.PackageNotFoundError:
            unmet.append(line)
            continue
        low = re.search(r">=([\d.]+)", line)
        high = re.search(r"<([\d.]+)", line)
        if (low and version < release(low.group(1))) or (high and version >= release(high.group(1))):
            unmet.append(line)
    return unmet


def release(version):
    """`version` as a tuple of numbers that compares: ``2.10`` is newer than ``2.9`` and the same as ``2.10.0``."""
    numbers = [int(number) for number in re.match(r"[\d.]*\d", version).group().split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def stamp(version_info, root=ROOT):
    """What the private environment was made from. The path counts: an editable install of a copied or moved
    checkout would go on testing the old one."""
    digest = hashlib.sha256()
    for name in ("setup.cfg", os.path.join("demo", "constraints.txt")):
        with open(os.path.join(root, name), "rb") as source:
            digest.update(source.read())
    digest.update(repr((tuple(version_info[:3]), root)).encode("utf-8"))
    return digest.hexdigest()


def made_for(version_info):
    """The extras that the private environment has, as it should be made now: none when it is out of date."""
    marks = [name for name in (os.listdir(VENV) if os.path.isdir(VENV) else []) if name.startswith("made-for-")]
    return [name[len("made-for-") :] for name in marks if read(os.path.join(VENV, name)) == stamp(version_info)]


def read(path):
    try:
        with open(path) as source:
            return source.read()
    except IOError:
        return ""


def prepare(extra):
    """Make the private environment, or add `extra` to it. One process at a time."""
    import fcntl

    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        known = made_for(sys.version_info)
        if extra in known:
            return
        print("Setting up %s once (some ten seconds, nothing else is touched) ..." % os.path.relpath(VENV))
        sys.stdout.flush()
        if not known:
            make_environment()
        install(extra)
        with open(os.path.join(VENV, "made-for-" + extra), "w") as made:
            made.write(stamp(sys.version_info))
    finally:
        os.close(folder)


def make_environment():
    command = [sys.executable, "-m", "venv", "--clear", VENV]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode:
        sys.exit(
            "%s\nNo virtual environment could be made with %s.\nOn Debian and Ubuntu: apt install python3-venv"
            % (made.stdout.strip(), sys.executable)
        )


def install(extra):
    command = [os.path.join(VENV, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["-c", CONSTRAINTS, "-e", "%s[%s]" % (ROOT, extra)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(
            "%s\npip could not install what proxymw needs; its last words are above.\n"
            "  No network?      Set HTTPS_PROXY, or PIP_INDEX_URL to an index you can reach, and start again.\n"
            "  Have it all?     Activate a virtual environment with: pip install -e '.[%s]' - it is used as it is.\n"
            "  Start afresh:    rm -r %s" % ("\n".join(done.stdout.strip().splitlines()[-15:]), extra, VENV)
        )
