"""What StaticOrPass's options mean: each is read and checked once, into a plain value or a function of a path."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate
from typing import Final

from .errors import ConfigError
from .rules.headers import HeaderList, is_token, is_value
from .rules.mediatypes import MediaTypes
from .rules.options import check_count, listed, mapping, text_pairs
from .rules.ranges import Limits

PathTest = Callable[[str], bool]

#: Content codings and the suffix of a sibling so compressed, best compression first.
SUFFIXES: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}

_YEAR: Final = 31_536_000
# A digest in a file name: at least eight hex digits of which some are letters and some are not, so no date is one.
_DIGEST: Final = re.compile(r"[.\-_](?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{8,64}\.[^/]+\Z")
# Headers that follow from the file and the request alone.
_OURS: Final = frozenset({"content-length", "content-range", "content-encoding", "transfer-encoding", "connection"})
# mod_dir's escaping for Location (os_escape_path); what it keeps cannot start a second "/" or a backslash.
ESCAPES: Final = {
    code: f"%{code:02x}" for code in range(256) if not re.match(r"[A-Za-z0-9$\-_.+!*'(),:;@&=/~]", chr(code))
}


def root_option(root: object) -> str:
    """An existing folder as an absolute path. An empty text would be the folder in which the server was started."""
    if not isinstance(root, str | bytes | os.PathLike) or not root or not os.path.isdir(root):
        shown = os.fspath(root) if isinstance(root, os.PathLike) else root
        raise ConfigError(f"root must be an existing folder, got {shown!r}: create it, or correct the path")
    return os.path.abspath(os.fsdecode(root))


def file_names_option(index: Iterable[str]) -> tuple[str, ...]:
    names = listed("index", index, 'file names such as ("index.html",)', "tuple")
    if not all(isinstance(name, str) and name and "/" not in name for name in names):
        raise ConfigError(f'index must be a tuple of file names such as ("index.html",), got {index!r}')
    return tuple(names)


def url_prefix_option(prefix: str) -> str:
    if not isinstance(prefix, str) or not prefix.startswith("/") or "//" in prefix or "/." in prefix:
        raise ConfigError(f'prefix must be a URL path such as "/static/", got {prefix!r}')
    return prefix if prefix.endswith("/") else prefix + "/"


def media_types_option(given: Mapping[str, str] | MediaTypes | None, charset: str | None, apache: bool) -> MediaTypes:
    if isinstance(given, MediaTypes):
        if charset is not None:
            raise ConfigError("charset must be given to the MediaTypes, when mimetypes is one")
        return given
    given = mapping("mimetypes", given, "extensions to media types")
    if charset is not None and not isinstance(charset, str):
        raise ConfigError(f"charset must be the name of one, or empty, got {charset!r}")
    if apache:
        return MediaTypes(given, default="", charset=charset or "", every_extension=True)
    return MediaTypes(given, charset="utf-8" if charset is None else charset)


def etag_parts_option(etag: Iterable[str]) -> tuple[str, ...]:
    wanted = listed("etag", etag, '"inode", "mtime", "size"')
    if not all(part in ("inode", "mtime", "size") for part in wanted):
        raise ConfigError(f'etag must be some of "inode", "mtime", "size", got {etag!r}')
    return tuple(part for part in ("inode", "size", "mtime") if part in wanted)


def codings_option(precompressed: bool | Iterable[str]) -> tuple[str, ...]:
    if isinstance(precompressed, bool):
        return tuple(SUFFIXES) if precompressed else ()
    codings = listed("precompressed", precompressed, '"br", "zstd", "gzip"')
    if not all(coding in tuple(SUFFIXES) for coding in codings):
        raise ConfigError(f'precompressed must be True or some of "br", "zstd", "gzip", got {precompressed!r}')
    return tuple(codings)


def range_limits_option(ranges: Limits) -> Limits:
    if not isinstance(ranges, Limits) or not all(type(number) is int and number >= 0 for number in ranges):
        raise ConfigError(f"ranges must be Limits of whole numbers, got {ranges!r}")
    return ranges


def _globs(globs: Iterable[str]) -> PathTest:
    pattern = re.compile("|".join(map(translate, globs)) or r"(?!)")
    return lambda path: pattern.match(path) is not None


def cache_rules_option(
    cache_control: Iterable[tuple[str, str]] | Callable[[str], str | None],
    immutable: bool | Iterable[str] | re.Pattern[str] | PathTest,
    max_age: int | None,
) -> Callable[[str], str | None]:
    """One function from a path below the root to its Cache-Control, or None."""
    check_count("max_age", max_age)
    otherwise = None if max_age is None else f"max-age={max_age}, public"
    lasting: PathTest
    if immutable is True:
        immutable = _DIGEST
    if immutable is False:
        lasting = _globs(())
    elif isinstance(immutable, re.Pattern):
        search = immutable.search
        lasting = lambda path: search(path) is not None  # noqa: E731
    elif callable(immutable):
        lasting = immutable
    else:
        globs = listed("immutable", immutable, "globs (or True, a compiled pattern, a function)")
        if not all(isinstance(glob, str) for glob in globs):
            raise ConfigError(f"immutable must be a list of globs, got {immutable!r}")
        lasting = _globs(globs)
    by_path: Callable[[str], str | None]
    if callable(cache_control):
        by_path = cache_control
    else:
        written = text_pairs("cache_control", cache_control, "(glob, value) pairs")
        rules = [(_globs([glob]), value) for glob, value in written]
        by_path = lambda path: next((value for test, value in rules if test(path)), None)  # noqa: E731
        for _, value in rules:
            _check_header("Cache-Control", value)

    def cache(path: str) -> str | None:
        value = by_path(path)
        if value is None:
            return f"max-age={_YEAR}, public, immutable" if lasting(path) else otherwise
        _check_header("Cache-Control", value)
        return value

    return cache


def extra_headers_option(
    headers: Iterable[tuple[str, str]] | Callable[[str], Iterable[tuple[str, str]]],
) -> Callable[[str], HeaderList]:
    if callable(headers):
        function = headers
        return lambda path: _checked(function(path))
    fixed = _checked(headers)
    return lambda path: fixed


def _checked(headers: Iterable[tuple[str, str]]) -> HeaderList:
    checked = list(text_pairs("headers", headers, "(name, value) pairs"))
    for name, value in checked:
        _check_header(name, value)
    return checked


def _check_header(name: str, value: str) -> None:
    if not is_token(name) or name.lower() in _OURS or not is_value(value):
        raise ConfigError(
            f"headers must be pairs of a header name that may be set and its value, got {(name, value)!r}"
        )


def offload_option(offload: str | tuple[str, str] | None) -> Callable[[str, str], tuple[str, str]] | None:
    """The function from the root and a name below it to the header for the server in front."""
    if offload is None:
        return None
    if offload == "X-Sendfile":
        return lambda root, name: ("X-Sendfile", os.fsencode(root).decode("latin-1") + name)
    if isinstance(offload, tuple) and len(offload) == 2 and offload[0] == "X-Accel-Redirect":
        internal = url_prefix_option(offload[1])
        return lambda root, name: ("X-Accel-Redirect", internal + name[1:].translate(ESCAPES))
    raise ConfigError(f'offload must be "X-Sendfile" or ("X-Accel-Redirect", "/internal/"), got {offload!r}')
