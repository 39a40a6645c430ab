"""From a file to a Site: the lexer, then the interpreter, then what the whole of it says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from proxymw.apacheconf import directives  # noqa: F401  (fills the tables)
from proxymw.apacheconf.directives.core import _no_pending
from proxymw.apacheconf.interpreter import Interpreter
from proxymw.apacheconf.lexer import Place, Reader
from proxymw.apacheconf.site import Server, Site, Warned

if TYPE_CHECKING:
    from collections.abc import Mapping


def read(source: str | os.PathLike[str], *, lenient: bool = False, defines: Mapping[str, str] | None = None) -> Site:
    """The Site of a configuration: a path, or the text itself where it has a line break.

    Raises ConfFileError, which names file, line and directive. ``lenient`` accepts unsupported directives that
    neither route nor guard; ``defines`` are names set in advance, as by ``httpd -D``.
    """
    reader = Reader(defines)
    text = os.fspath(source)
    if isinstance(source, str) and "\n" in source:
        items, name = reader.read_text(source), "<text>"
    else:
        items, name = reader.read_file(text), text
    site = Site(Server(Place(name, 1)))
    site.server_root = reader.server_root
    site.warnings = [Warned(*found) for found in reader.warnings]
    run = Interpreter(site, lenient)
    run.run(items)
    _no_pending(run, site.main)
    return site
