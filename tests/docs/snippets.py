"""Everything in a fence of the documentation is run: Python, Apache blocks, commands, other servers' configurations."""

from __future__ import annotations

import configparser
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
from doctest import ELLIPSIS
from pathlib import Path
from typing import Any

from sybil import Document, Example
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

from proxymw import apacheconf
from tests.origins import ROOT

#: The folders that the pages name. Each page gets its own below a temporary folder.
FOLDERS = {
    "/srv/www/ducklington.org/public_html": {
        "index.html": "the front page",
        "style.css": "body {}",
        "wiki/static/logo.svg": "<svg/>",
    },
    "/srv/www/static.ducklington.org/public_html": {"index.html": "files", "screen.css": "body { color: green }"},
    "/srv/www/ducklington.org/logs": {},
    "/srv/www/static.ducklington.org/logs": {},
    "/srv/www/myproject/static": {"app.css": "p {}", "app.3f9d2c1a.js": "1"},
    "/etc/apache2/sites-enabled": {},
}


class _BlockParser(CodeBlockParser):
    """Blocks of one language, run by a function of the source and the page's namespace."""

    def __init__(self, language: str) -> None:
        super().__init__(language, lambda example: _run(language, example))


def page(path: Path, folder: Path) -> Document:
    """The page with its examples; the folders that it names are below ``folder``."""
    text = path.read_text()
    for name, files in FOLDERS.items():
        if name in text:
            for file, content in files.items():
                (folder / name[1:] / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / name[1:] / file).write_text(content)
            (folder / name[1:]).mkdir(parents=True, exist_ok=True)
    for top in ("/srv/www/", "/etc/apache2/"):
        text = text.replace(top, f"{folder}{top}")
    document = Document(text, str(path))
    languages = [_BlockParser(language) for language in RUNNERS]
    for parser in (PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), SkipParser(), *languages):
        for region in parser(document):
            document.add(region)
    return document


def fences(path: Path) -> set[str]:
    """The languages of all fences of a page."""
    opened, found = False, set()
    for line in path.read_text().splitlines():
        if line.startswith("```"):
            if not opened:
                found.add(line[3:].strip())
            opened = not opened
    return found


def _run(language: str, example: Example) -> str | None:
    return RUNNERS[language](str(example.parsed), example.namespace)


def _apache(source: str, names: dict[str, Any]) -> str | None:
    """An Apache block is one that proxymw accepts; ``apache`` is the application that it makes."""
    with contextlib.suppress(KeyError):
        source = names["apache_before"] + source
    names["apache"] = apacheconf.load(source + "\n")
    return None


def _console(source: str, names: dict[str, Any]) -> str | None:
    """Commands that can be tried are run, and what they print is compared; of gunicorn's the options are parsed."""
    lines = source.splitlines()
    commands = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    for number, after in zip(commands, [*commands[1:], len(lines)], strict=True):
        wanted = [line for line in lines[number + 1 : after] if line.strip()]
        words = shlex.split(lines[number][2:], comments=True)
        trial = COMMANDS.get(" ".join(words[:3])) or COMMANDS.get(words[0])
        if trial is None:
            return f"nothing knows how to try the command {lines[number][2:]!r}"
        problem = trial(words, wanted, names)
        if problem:
            return f"{lines[number]}\n{problem}"
    return None


def _proxymw(words: list[str], wanted: list[str], names: dict[str, Any]) -> str | None:
    from proxymw.__main__ import _parser, main

    told = io.StringIO()
    arguments = [str(names["files"].get(word, word)) for word in words[3:]]
    if arguments[0] == "serve":
        apacheconf.check(_parser().parse_args(arguments).file)
        return None
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        main(arguments)
    text = told.getvalue()
    for name, path in names["files"].items():
        text = text.replace(str(path), name)
    got = [line for line in text.splitlines() if line.strip()]
    return None if _alike(got, wanted) else "printed:\n" + text


def _alike(got: list[str], wanted: list[str]) -> bool:
    """Equal, where a line ``...`` stands for any lines."""
    pattern = "\n".join(".*" if line == "..." else re.escape(line) for line in wanted)
    return re.fullmatch(pattern, "\n".join(got), re.DOTALL) is not None


def _gunicorn(words: list[str], wanted: list[str], names: dict[str, Any]) -> str | None:
    from gunicorn.config import Config

    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            options = Config().parser().parse_args(words[1:])
            settings = Config()
            for name, value in vars(options).items():
                if value is not None and name != "args":
                    settings.set(name.lower(), value)
    except (SystemExit, ValueError, TypeError) as error:
        return f"gunicorn does not take it: {error} {said.getvalue()}"
    return None


def _installed(words: list[str], wanted: list[str], names: dict[str, Any]) -> str | None:
    """``pip install "proxymw[extra]"``: the extra exists."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for word in words:
        if word.startswith("proxymw["):
            missing = set(word[8:-1].split(",")) - set(setup["options.extras_require"])
            if missing:
                return f"no such extra: {missing}"
    return None


def _shown(words: list[str], wanted: list[str], names: dict[str, Any]) -> str | None:
    """Commands of other programs, and those that tests/live tries."""
    return None


def _nginx(source: str, names: dict[str, Any]) -> str | None:
    """``nginx -t``, where there is one."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        return None
    folder = names["folder"]
    for name in ("fullchain.pem", "privkey.pem"):
        source = source.replace(f"/etc/ssl/{name}", str(folder / name))
    if "ssl_certificate" in source:
        _certificate(folder)
    (folder / "nginx.conf").write_text(
        f"pid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n"
        + "".join(f"{kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        + source + "\n}\n"
    )  # fmt: skip
    command = [binary, "-t", "-q", "-e", "stderr", "-c", str(folder / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr


def _certificate(folder: Path) -> None:
    import trustme

    made = trustme.CA().issue_cert("ducklington.org")
    made.private_key_pem.write_to_path(folder / "privkey.pem")
    made.cert_chain_pems[0].write_to_path(folder / "fullchain.pem")


def _ini(source: str, names: dict[str, Any]) -> str | None:
    """A PasteDeploy file: ``ini`` is the application that it makes."""
    from paste.deploy import loadapp

    for kind, name, factory in entry_points():
        source = re.sub(rf"use = egg:proxymw#{name}$", f"{kind} = {factory}", source, flags=re.MULTILINE)
    path = names["folder"] / "site.ini"
    path.write_text(source)
    names["ini"] = loadapp(f"config:{path}")
    return None


def entry_points() -> list[tuple[str, str, str]]:
    """(kind, name, factory) of setup.cfg, so that a checkout that is not installed will do."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    kinds = setup["options.entry_points"]
    return [(kind, *line.split(" = ")) for kind in kinds for line in kinds[kind].strip().splitlines()]  # type: ignore[misc]


RUNNERS = {"apache": _apache, "console": _console, "nginx": _nginx, "ini": _ini}
COMMANDS = {
    "python -m proxymw": _proxymw,
    "gunicorn": _gunicorn,
    "pip": _installed,
    "pytest": _shown,
    "curl": _shown,
    "python3": _shown,
    "kill": _shown,
    "flask": _shown,
    "python": _shown,
    "systemctl": _shown,
}


@contextlib.contextmanager
def inside(folder: Path) -> Any:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
