"""The member table of one host: a mapped file that all workers of the server read and write.

Rules that hold it together, each found the hard way by someone:

- A record lock (``lockf``) keeps processes apart but not threads, is lost when *any* descriptor of the file is closed
  in the process, and dies with the process. So: a threading.Lock besides, one descriptor per process, never closed
  while the table is in use, and nothing to clean up after a ``kill -9``.
- Each worker holds the lock on a byte of its own for life. Who gets that lock knows that the owner is gone, gives its
  requests in flight back and keeps what it had counted. No guessing by process numbers.
- The space is allocated before it is mapped: a full disk is an error at start, not a SIGBUS later.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import re
import stat
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from proxymw.state.table import (
    H_CAPACITY,
    H_DIRTY,
    H_GENERATION,
    H_MOVED,
    H_USED,
    H_WORKERS,
    HEADER,
    OTHER_POOL,
    Layout,
    Table,
    capacity_for,
    check_header,
)

_log = logging.getLogger("proxymw.pool")

WORKERS = 64
#: Byte 0 is the lock of the table, byte n that of worker n.
_TABLE_LOCK = 0


class FileLock:
    """A thread lock and a record lock; notices when the last holder was killed in the middle of an update."""

    __slots__ = ("_fd", "_words", "table", "thread")

    def __init__(self, fd: int, words: memoryview[int]) -> None:
        self._fd = fd
        self._words = words
        self.thread = threading.Lock()
        self.table: Table | None = None

    def __enter__(self) -> None:
        self.thread.acquire()
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _TABLE_LOCK)
            words = self._words
            if words[H_DIRTY] and self.table is not None:
                self.table.repair()
            words[H_DIRTY] = 1
        except BaseException:
            self.thread.release()
            raise

    def __exit__(self, *exc: object) -> None:
        try:
            self._words[H_DIRTY] = 0
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _TABLE_LOCK)
        finally:
            self.thread.release()


class SharedTable(Table):
    """A table in a mapped file."""

    path: str
    #: Whether this process made the file.
    created: bool

    def __init__(self, fd: int, memory: mmap.mmap, layout: Layout, lock: FileLock, worker: int) -> None:
        super().__init__(memory, layout, lock, worker)
        self._fd = fd
        lock.table = self

    def reap(self) -> None:
        """Give back what workers that are gone held. Under the lock."""
        for block in range(1, self.words[H_USED] + 1):
            if block != self.worker and self.pids[block] and _try_lock(self._fd, block):
                self.retire(block)
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, block)


@dataclass(slots=True)
class _Open:
    """A table that this process has open. Kept for life: closing a descriptor would drop the locks."""

    pid: int
    name: str
    fd: int
    memory: mmap.mmap
    table: SharedTable
    #: How many pools of this process use it.
    users: int = 0


_open_tables: dict[tuple[str, str], _Open] = {}
#: Descriptors and maps of a process before its fork.
_inherited: list[_Open] = []
_open_lock = threading.Lock()


def _after_fork() -> None:
    """A lock that another thread held at the fork would never be free in the child."""
    global _open_lock
    _open_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def shared_table(path: str, name: str, members: int) -> SharedTable:
    """The table of pool ``name`` in the file ``path`` (or in a file of that directory), made if need be.

    A file that is damaged, of another version or of someone else is renamed aside. OSError when there is no safe
    place for it, or no space.
    """
    with _open_lock:
        known = _open_tables.get((path, name))
        if known is not None:
            if known.pid == os.getpid() and not known.table.words[H_MOVED]:
                known.users += 1
                return known.table
            _inherited.append(_open_tables.pop((path, name)))
        file = os.path.join(path, f"{name}.table") if os.path.isdir(path) else path
        for candidate in (file, f"{file}-{name}"):
            opened = _open(os.path.abspath(candidate), name, members)
            if opened is not None:
                opened.users += 1
                _open_tables[(path, name)] = opened
                return opened.table
        raise OSError(errno.EEXIST, "holds the tables of other pools", path)


def grow_table(old: SharedTable, path: str, name: str, members: int) -> SharedTable:
    """A bigger table in the place of ``old``, with all that it knows. Other workers follow with their next request."""
    with _open_lock:
        _safe_directory(os.path.dirname(old.path))
        fresh = f"{old.path}.{os.getpid()}"
        opened = _open(fresh, name, members)
        if opened is None:
            raise OSError(errno.EEXIST, "is in the way", fresh)
        with old.lock, opened.table.lock:
            if old.words[H_MOVED]:  # another worker was faster
                os.unlink(fresh)
            else:
                opened.table.adopt(old)
                os.replace(fresh, old.path)
                opened.table.path = old.path
                old.words[H_MOVED] = 1
                old.words[H_GENERATION] += 1
        kept = _open_tables.pop((path, name), None)
        if kept is not None:
            _inherited.append(kept)  # leases of this process still end in it
        if opened.table.path == old.path:
            _open_tables[(path, name)] = opened
        else:
            _inherited.append(opened)
    return shared_table(path, name, members)


def close_table(table: Table) -> None:
    """Leave a table: what this process counted stays, what it had in flight is given back. For tests and shutdown."""
    if not isinstance(table, SharedTable):
        return
    with _open_lock:
        keys = [key for key, opened in _open_tables.items() if opened.table is table and opened.pid == os.getpid()]
        if not keys:
            return
        opened = _open_tables[keys[0]]
        opened.users -= 1
        if opened.users:
            return
        with table.lock:
            table.retire(table.worker)
        for key in keys:
            del _open_tables[key]
        os.close(opened.fd)


def _open(path: str, name: str, members: int) -> _Open | None:
    """Open, check and map a file and take a place in it; None when it holds the table of another pool."""
    _safe_directory(os.path.dirname(path))
    for _ in range(8):
        known = _known(path)
        if known is not None:
            return known if known.name == name else None
        fd = _open_file(path)
        if fd is None:
            continue
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, _TABLE_LOCK)
            # Somebody may have put the file aside between our open and our lock: then look again.
            if _same_file(fd, path):
                problem, created = _prepare(fd, name, members)
                if not problem:
                    return _map(fd, path, name, created)
                if problem == OTHER_POOL:
                    os.close(fd)
                    return None
                _put_aside(path, problem)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise OSError(errno.EAGAIN, "changes too fast", path)


def _known(path: str) -> _Open | None:
    """What this process has open under that name already. A second descriptor must not: closing it drops the locks."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    for opened in _open_tables.values():
        if opened.pid == os.getpid() and os.path.samestat(os.fstat(opened.fd), status):
            return opened
    return None


def _open_file(path: str) -> int | None:
    """A descriptor of a regular file of ours, new or not; None after something else was put aside."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            _put_aside(path, "not a regular file")
            return None
        raise
    status = os.fstat(fd)
    problem = ""
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        problem = "not a regular file of one name"
    elif status.st_uid != os.geteuid():
        problem = f"owned by user {status.st_uid}"
    elif status.st_mode & 0o077:
        problem = f"open to others (mode {stat.S_IMODE(status.st_mode):o})"
    if not problem:
        return fd
    os.close(fd)
    _put_aside(path, problem)
    return None


def _same_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _prepare(fd: int, name: str, members: int) -> tuple[str, bool]:
    """Format an empty file or check one that is there: what is wrong with it, and whether it is new."""
    size = os.fstat(fd).st_size
    if size == 0:
        layout = Layout(capacity_for(members), WORKERS)
        try:
            _allocate(fd, layout.size)
            with mmap.mmap(fd, layout.size) as memory:
                table = Table(memory, layout, threading.Lock(), 0)
                table.format(name, _boot())
                table.release()
        except BaseException:
            os.ftruncate(fd, 0)
            raise
        return "", True
    header = os.pread(fd, HEADER * 8, 0)
    if len(header) < HEADER * 8:
        return "too short", False
    words = memoryview(header).cast("q")
    problem = check_header(words, name, _boot())
    if not problem and Layout(words[H_CAPACITY], words[H_WORKERS]).size != size:
        problem = "wrong size"
    if not problem:
        with mmap.mmap(fd, size) as memory:
            table = Table(memory, Layout(words[H_CAPACITY], words[H_WORKERS]), threading.Lock(), 0)
            problem = "damaged" if table.damaged() else ""
            table.release()
    return problem, False


def _allocate(fd: int, size: int) -> None:
    """Have the space for the whole file on the disk now."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    for start in range(0, size, 1 << 20):
        os.pwrite(fd, bytes(min(1 << 20, size - start)), start)


def _map(fd: int, path: str, name: str, created: bool) -> _Open:
    """Map a checked file and take a worker's place in it. The lock of the table is held, and let go at the end."""
    # Formatting or checking the file closed a descriptor of it, and with that dropped the lock.
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, _TABLE_LOCK)
    memory = mmap.mmap(fd, 0)
    words = memoryview(memory).cast("q")
    layout = Layout(words[H_CAPACITY], words[H_WORKERS])
    lock = FileLock(fd, words)
    worker = next((block for block in range(1, layout.workers + 1) if _try_lock(fd, block)), 0)
    if not worker:
        raise OSError(errno.EUSERS, f"more than {layout.workers} workers", path)
    table = SharedTable(fd, memory, layout, lock, worker)
    table.path, table.created = path, created
    if words[H_DIRTY]:
        table.repair()
    table.retire(worker)  # also after a close in peace: a lease may have ended after it
    table.pids[worker] = os.getpid()
    words[H_USED] = max(words[H_USED], worker)
    table.reap()
    words[H_DIRTY] = 0
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, _TABLE_LOCK)
    return _Open(os.getpid(), name, fd, memory, table)


def _try_lock(fd: int, byte: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _put_aside(path: str, problem: str) -> None:
    """Rename what is not ours to use; one such file is kept for whoever wants to look at it."""
    try:
        os.replace(path, f"{path}.aside")
    except FileNotFoundError:
        return
    _log.error("event=state_put_aside path=%s reason=%r", path, problem)


def _safe_directory(directory: str) -> None:
    """Make a directory of ours, or refuse one in which others could replace our file."""
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, "must be a directory", directory) from error
    status = os.stat(directory)
    if status.st_uid not in (0, os.geteuid()):
        raise PermissionError(errno.EPERM, f"belongs to user {status.st_uid}", directory)
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise PermissionError(errno.EPERM, "can be written by others", directory)


def automatic_path(name: str) -> str:
    """Where the workers of one server meet without being told: a file named after the process that started them.

    Below the directory for temporary files, in a directory that only this user can enter. Files of servers that are
    gone are removed.
    """
    directory = os.path.join(tempfile.gettempdir(), f"proxymw-{os.geteuid()}")
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        status = os.lstat(directory)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "is not a private directory of ours", directory) from None
    _sweep(directory)
    parent = os.getppid()
    return os.path.join(directory, f"{parent}-{_started(parent)}-{name}.table")


def _sweep(directory: str) -> None:
    for entry in os.scandir(directory):
        match = re.match(r"([0-9]+)-([0-9]+)-", entry.name)
        if match and not _alive(int(match[1]), match[2]):
            try:
                os.unlink(entry.path)
            except OSError:
                continue


def _alive(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return _started(pid) == started


def _started(pid: int) -> str:
    """When a process began, in clock ticks since boot: with it a number that is used again is not mistaken. Linux."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        return text.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


def _boot() -> int:
    """A number that changes with every boot: monotonic times of another boot mean nothing."""
    try:
        return crc32(Path("/proc/sys/kernel/random/boot_id").read_bytes())
    except OSError:
        return 0


def why_not(error: Any) -> str:
    """One line for the log on a table that could not be shared."""
    if isinstance(error, OSError):
        return f"{error.strerror or error} ({error.filename})" if error.filename else str(error.strerror or error)
    return str(error)
