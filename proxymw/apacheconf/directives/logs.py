"""mod_log_config and ErrorLog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxymw.apacheconf.interpreter import SERVERS, Interpreter, directive
from proxymw.apacheconf.site import LogLine

if TYPE_CHECKING:
    from proxymw.apacheconf.lexer import Directive


@directive("ErrorLog", where=SERVERS)
def error_log(run: Interpreter, item: Directive, words: list[str]) -> None:
    if words[0].startswith(("|", "syslog")):
        raise item.error(f"must be a file, got {words[0]!r}: pipes and syslog belong to Python's logging")
    run.server.error_log = (words[0], item.place)


@directive("CustomLog", "GlobalLog", where=SERVERS, count=(2, 3), takes="a file, a format and a condition")
def custom_log(run: Interpreter, item: Directive, words: list[str]) -> None:
    condition = words[2] if len(words) > 2 else ""
    if condition and not condition.startswith(("env=", "expr=")):
        raise item.error(f"the condition must be env=NAME, env=!NAME or expr=…, got {condition!r}")
    _add_log(run, item, words[0], words[1], condition)


@directive("TransferLog", where=SERVERS)
def transfer_log(run: Interpreter, item: Directive, words: list[str]) -> None:
    _add_log(run, item, words[0], "", "")


def _add_log(run: Interpreter, item: Directive, path: str, format_name: str, condition: str) -> None:
    if path.startswith("|"):
        raise item.error(f"must be a file, got {path!r}: no programs are started")
    run.server.logs.append(LogLine(path, format_name, item.place, condition))


@directive("LogFormat", where=SERVERS, count=(1, 2))
def log_format(run: Interpreter, item: Directive, words: list[str]) -> None:
    if len(words) > 1:
        run.server.formats[words[1]] = words[0]
    else:
        run.server.default_format = words[0]
