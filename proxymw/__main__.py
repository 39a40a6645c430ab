"""``python -m proxymw``: check, explain, serve and convert Apache configurations."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from proxymw.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 2 for a configuration or a command line that is wrong."""
    for stream in (sys.stdout, sys.stderr):
        # Names of files and patterns may hold bytes that are no text.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:
        # What read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="proxymw", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="say what is wrong with a configuration, and what one may regret")
    _file(check)
    check.set_defaults(run=_check)

    explain = commands.add_parser("explain", help="say why a URL goes where it goes, without sending anything")
    _file(explain, "a configuration file, or module:app for a stack built in Python")
    explain.add_argument("method", metavar="METHOD")
    explain.add_argument("url", metavar="URL", help="http://host/path, or a path")
    explain.add_argument("-H", dest="headers", action="append", default=[], metavar="'Name: value'")
    explain.add_argument("--client", default="127.0.0.1", metavar="ADDRESS", help="where the request comes from")
    explain.add_argument("--json", action="store_true", help="for machines")
    explain.set_defaults(run=_explain)

    serve = commands.add_parser("serve", help="serve a configuration under gunicorn")
    _file(serve)
    serve.add_argument("--bind", action="append", default=[], metavar="ADDR", help="address:port or unix:path")
    serve.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")
    serve.add_argument("--threads", type=int, default=32, metavar="N", help="threads of a process (default 32)")
    serve.add_argument("--certfile", metavar="FILE", help="serve https with this certificate")
    serve.add_argument("--keyfile", metavar="FILE", help="its key")
    serve.add_argument("--log-level", default="warning", metavar="LEVEL", help="of the server itself")
    serve.set_defaults(run=_serve)

    convert = commands.add_parser("convert", help="print the Python that builds the same stack")
    _file(convert)
    convert.set_defaults(run=_convert)
    return parser


def _file(command: argparse.ArgumentParser, text: str = "a configuration file") -> None:
    command.add_argument("file", metavar="FILE", help=text)
    command.add_argument("--lenient", action="store_true", help="ignore unsupported directives that do no harm")
    command.add_argument("-D", dest="defines", action="append", default=[], metavar="NAME[=VALUE]", help="as httpd -D")


def _defines(options: argparse.Namespace) -> dict[str, str]:
    return dict(item.partition("=")[::2] for item in options.defines)


def _check(options: argparse.Namespace) -> int:
    from proxymw.apacheconf import check

    for warning in check(options.file, lenient=options.lenient, defines=_defines(options)):
        print(warning)
    print(f"{options.file}: good")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from proxymw.explain import explain, load_app

    app = load_app(options.file, lenient=options.lenient, defines=_defines(options))
    headers = [_header(text) for text in options.headers]
    found = explain(app, options.method, options.url, headers=headers, client=options.client)
    print(found.json() if options.json else found.text())
    return 0


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ConfigError(f"-H must be 'Name: value', got {text!r}")
    return name.strip(), value.strip()


def _serve(options: argparse.Namespace) -> int:
    try:
        from proxymw.serving import Service
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("gunicorn"):
            raise
        raise ConfigError("serve needs gunicorn: pip install 'proxymw[server]'") from None
    settings = {
        "bind": options.bind or ["127.0.0.1:8000"],
        "workers": options.workers,
        "threads": options.threads,
        "certfile": options.certfile,
        "keyfile": options.keyfile,
        "loglevel": options.log_level,
    }
    Service(options.file, settings=settings, lenient=options.lenient, defines=_defines(options)).run()
    return 0


def _convert(options: argparse.Namespace) -> int:
    from proxymw.apacheconf import read
    from proxymw.apacheconf.convert import convert

    print(convert(read(options.file, lenient=options.lenient, defines=_defines(options))), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
