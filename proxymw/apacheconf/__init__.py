"""Apache configurations: read them, check them, and build the same stack out of the public constructors.

>>> app = apacheconf.load("/etc/apache2/sites-enabled/site.conf")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxymw.apacheconf.lexer import ConfFileError, Place
from proxymw.apacheconf.site import Site, Warned

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from _typeshed.wsgi import WSGIApplication

__all__ = ["ConfFileError", "Place", "Site", "Warned", "check", "from_file", "load", "read"]


def read(source: str | os.PathLike[str], *, lenient: bool = False, defines: Mapping[str, str] | None = None) -> Site:
    """What a configuration says, as values. ``source`` is a path, or the text itself where it has a line break."""
    from proxymw.apacheconf.reading import read

    return read(source, lenient=lenient, defines=defines)


def load(
    source: str | os.PathLike[str],
    *,
    lenient: bool = False,
    defines: Mapping[str, str] | None = None,
    state: str | None = None,
) -> WSGIApplication:
    """The WSGI application of a configuration, made of proxymw's own middlewares.

    Raises ConfFileError (a ConfigError) that reads ``FILE:LINE: Directive: what is wrong and what is accepted``.
    ``lenient`` ignores unsupported directives that neither route nor guard; ``defines`` are names set in advance, as
    by ``httpd -D``. ``state`` is a directory in which balancers keep what workers share, also over a reload.
    Nothing is opened or connected: logs and sockets are opened by the first request.
    """
    from proxymw.apacheconf.build import Builder

    return Builder(read(source, lenient=lenient, defines=defines), state=state).application()


def from_file(path: str | os.PathLike[str], *, lenient: bool = False) -> WSGIApplication:
    """``load``, for a server that calls a factory: ``gunicorn 'proxymw:from_file("site.conf")'``."""
    return load(path, lenient=lenient)


def check(
    source: str | os.PathLike[str], *, lenient: bool = False, defines: Mapping[str, str] | None = None
) -> list[Warned]:
    """Everything that is accepted and that one may regret, in the order of the file. Raises as ``load`` does."""
    from proxymw.apacheconf.build import Builder
    from proxymw.apacheconf.doubts import doubts

    site = read(source, lenient=lenient, defines=defines)
    Builder(site).application()
    found = [*site.warnings, *doubts(site)]
    return sorted(dict.fromkeys(found), key=lambda one: (one.place.file, one.place.line))
