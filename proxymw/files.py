"""From a canonical URL path to an open regular file below a root, and never to anything else."""

from __future__ import annotations

import errno
import os
import re
from stat import S_ISLNK
from typing import Literal

from .errors import ConfigError

Symlinks = Literal["inside", "follow", "refuse", "owner"]

_O_PATH = getattr(os, "O_PATH", os.O_RDONLY)
_FOLDER = _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a fifo must not wait for its writer. O_NOCTTY: a terminal must not become ours.
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# What an operating system may take for another name (Windows' devices, streams and trailing dots), refused everywhere.
_ALIASES = re.compile(
    r"[\x00-\x1f\x7f\\:]|[. ](?:/|\Z)"
    r"|/(?:con|prn|aux|nul|com[0-9\xb9\xb2\xb3]|lpt[0-9\xb9\xb2\xb3]|conin\$|conout\$)[ ]*(?:[./]|\Z)",
    re.IGNORECASE,
)
_DOTFILE = re.compile(r"/\.(?!well-known(?:/|\Z))")
_HT = re.compile(r"/\.ht", re.IGNORECASE)
_DOTS = re.compile(r"/\.\.?(?:/|\Z)|\x00|[^\x00-\xff]")

_DENIED = frozenset({errno.EACCES, errno.EPERM})
_BUSY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT})


def status_of(error: OSError) -> Literal[0, 403, 503]:
    """What a failure to reach a file answers: 403 it may not be read, 503 it cannot be just now, 0 there is no file."""
    if error.errno in _BUSY:
        return 503
    return 403 if error.errno in _DENIED else 0


class FileTree:
    """The files below ``root``. The root is looked up anew for each file, so a link that is moved is followed at once.

    ``symlinks``: "inside" follows links that end below the root, "owner" only those whose target has the link's owner
    (SymLinksIfOwnerMatch) and "refuse" none; "follow" goes anywhere.
    ``aliases``: names are taken as they are, as Apache does it on POSIX; else those that Windows treats as another
    name, and control characters, are no file. ``dotfiles``: segments starting with a dot are files too, ``.ht*``
    excepted; else only ``.well-known`` is.
    """

    __slots__ = ("_hidden", "_root", "symlinks")

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        symlinks: Symlinks = "inside",
        dotfiles: bool = False,
        aliases: bool = False,
    ) -> None:
        if symlinks not in ("inside", "follow", "refuse", "owner"):
            raise ConfigError(f'symlinks must be "inside", "follow", "refuse" or "owner", got {symlinks!r}')
        self._root = os.fsencode(os.path.abspath(root))
        self.symlinks: Symlinks = symlinks
        patterns = [_DOTS, _HT if dotfiles else _DOTFILE]
        self._hidden = tuple(patterns if aliases else [*patterns, _ALIASES])

    def hides(self, path: str) -> bool:
        """Whether nothing of this name is ever served."""
        return any(pattern.search(path) for pattern in self._hidden)

    def stat(self, path: str) -> os.stat_result:
        """Follows links; says nothing yet about whether the file may be served. ValueError for a NUL."""
        return os.stat(self._root + path.encode("latin-1"))

    def is_link(self, path: str) -> bool:
        return os.path.islink(self._root + path.encode("latin-1"))

    def open(self, path: str) -> int:
        """A descriptor of what ``path`` names below the root. Raises OSError; ELOOP for a link that is not followed.

        Folder by folder and following nothing, so that no change on the disk meanwhile can lead outside. The caller
        checks with ``fstat`` that it is a regular file.
        """
        name = path.strip("/").encode("latin-1")
        if self.symlinks == "follow":
            return os.open(self._root + b"/" + name, _FILE)
        try:
            return _open_below(self._root, name)
        except OSError as error:
            # A link where a folder should be is ENOTDIR or ELOOP, depending on the system.
            if self.symlinks == "refuse" or error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
        if self.symlinks == "owner":
            self._check_owners(name)
        root = os.path.realpath(self._root)
        real = os.path.realpath(os.path.join(root, name), strict=True)
        if os.path.commonpath([root, real]) != root or real == root:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return _open_below(root, os.path.relpath(real, root))

    def reopen(self, path: str) -> int:
        """Open without the walk; for a caller that compares the inode with the one that ``open`` once gave."""
        return os.open(self._root + path.encode("latin-1"), _FILE)

    def _check_owners(self, name: bytes) -> None:
        at = self._root
        for segment in name.split(b"/"):
            at = os.path.join(at, segment)
            link = os.lstat(at)
            if S_ISLNK(link.st_mode) and link.st_uid != os.stat(at).st_uid:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    def __repr__(self) -> str:
        return f"<FileTree {os.fsdecode(self._root)} symlinks={self.symlinks}>"


def _open_below(root: bytes, name: bytes) -> int:
    *folders, last = name.split(b"/")
    at = os.open(root, _FOLDER)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(last, _FILE | os.O_NOFOLLOW, dir_fd=at)
    finally:
        os.close(at)
