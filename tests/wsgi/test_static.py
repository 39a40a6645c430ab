"""StaticOrPass: what is a file, what passes, and how a file is answered."""

from __future__ import annotations

import gzip
import os
import resource
import socket
import threading
import time
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxymw import ConfigError, Policy, StaticOrPass
from proxymw.filebody import FileShrank
from proxymw.rules.ranges import Limits
from tests.client import Reply, call, environ, run

MTIME = 1_582_165_220
DATE = "Thu, 20 Feb 2020 02:20:20 GMT"
HELLO = b"0123456789abcdefghijklmnopqrstuvwxyz\n"
BIG = bytes(range(256)) * 1024
TAG = '"25-59ef88bea0100"'


def put(path: Path, content: bytes = b"x", when: int = MTIME) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (when, when))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    put(root / "hello.txt", HELLO)
    put(root / "big.bin", BIG)
    put(root / "empty.css", b"")
    put(root / "index.html", b"home")
    put(root / "dir/index.html", b"dir index")
    put(root / "dir/page.html", b"page")
    put(root / "plain/file.txt", b"file")
    put(root / ".env", b"secret")
    put(root / ".git/config", b"secret")
    put(root / ".well-known/acme.txt", b"acme")
    put(root / "with space & \xfc.txt", b"odd")
    put(tmp_path / "outside.txt", b"outside")
    put(tmp_path / "root-secret/key.txt", b"outside")
    return root


def behind(request: dict[str, Any], start_response: Any) -> list[bytes]:
    """The application behind; it says what reached it."""
    body = request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("X-App", "yes"), ("Content-Type", "text/plain")])
    asked = f"{request['REQUEST_METHOD']} {request['PATH_INFO']} {request['QUERY_STRING']} "
    return [asked.encode("latin-1", "replace") + body]


def passed(reply: Reply) -> bool:
    return reply.header("X-App") == "yes"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# What is a file, and what passes.


def test_a_file_is_served_and_anything_else_reaches_the_application(root: Path) -> None:
    app = StaticOrPass(behind, root)
    reply = call(app, "/hello.txt?v=1")
    assert (reply.status, reply.body) == (200, HELLO)
    for target in ("/", "/dir", "/dir/", "/missing", "/hello.txt/", "/hello.txt/x", "/dir/page.html/x"):
        assert passed(call(app, target)), target
    assert call(app, "/app?x=1", method="POST", body=b"form").body == b"POST /app x=1 form"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_other_methods_on_a_file_reach_the_application_with_their_body(root: Path, method: str) -> None:
    reply = call(StaticOrPass(behind, root), "/hello.txt?x=1", method=method, body=b"form")
    assert reply.body == f"{method} /hello.txt x=1 form".encode()


def test_other_methods_on_a_file_with_nothing_behind(root: Path) -> None:
    app = StaticOrPass(None, root)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        reply = call(app, "/hello.txt", method=method)
        assert (reply.status, reply.header("Allow")) == (405, "GET, HEAD, OPTIONS")
    assert call(app, "/hello.txt", method="OPTIONS").header("Allow") == "GET, HEAD, OPTIONS"
    assert call(app, "/missing").status == call(app, "/missing", method="POST").status == 404
    assert (root / "hello.txt").read_bytes() == HELLO


@pytest.mark.parametrize(
    "target",
    [
        "/%2e%2e/outside.txt",
        "/../outside.txt",
        "/..%2foutside.txt",
        "/..%5coutside.txt",
        "/..%252foutside.txt",
        "/..;/outside.txt",
        "/%c0%ae%c0%ae/outside.txt",
        "/..%c0%afoutside.txt",
        "/dir/../../outside.txt",
        "/../root-secret/key.txt",
        "/-secret/key.txt",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/hello.txt%00",
        "/hello.txt%00.png",
        "/hello.txt%0a",
        "/hello.txt.",
        "/hello.txt%20",
        "/hello.txt/.",
        "/hello.txt::$DATA",
        "/dir./page.html",
        "/C:/windows/win.ini",
        "/%5c%5cevil.invalid%5cshare",
        "/.env",
        "/.git/config",
        "/dir/%2egit",
        "/CON",
        "/nul.txt",
        "/dir/com1 .css",
        "/" + "a" * 300,
        "/blah" * 1000,
        "/%ed%a0%80%ff",
        "/bad%zzescape",
    ],
)
@pytest.mark.parametrize("raw_uri", [True, False])
def test_what_is_never_a_file(root: Path, target: str, raw_uri: bool) -> None:
    for name in ("CON", "nul.txt", "dir/com1 .css", "hello.txt ", "dir./page.html", "C:/windows/win.ini"):
        put(root / name, b"secret")
    reply = call(StaticOrPass(behind, root), target, raw_uri=raw_uri)
    assert passed(reply)
    assert call(StaticOrPass(None, root, index=("index.html",)), target, raw_uri=raw_uri).status == 404


def test_a_bad_head_is_refused_even_though_the_path_would_pass(root: Path) -> None:
    assert call(StaticOrPass(behind, root), "/hello.txt", host="evil host").status == 400
    assert call(StaticOrPass(behind, root), "/nothing", method="TRACE").status == 405


def test_dotfiles_only_when_asked_and_never_htaccess(root: Path) -> None:
    put(root / ".htaccess", b"secret")
    assert call(StaticOrPass(behind, root), "/.well-known/acme.txt").body == b"acme"
    app = StaticOrPass(behind, root, dotfiles=True)
    assert call(app, "/.env").body == b"secret"
    assert passed(call(app, "/.htaccess"))


def test_links_stay_inside_the_root(root: Path) -> None:
    (root / "in.txt").symlink_to("dir/page.html")
    (root / "indir").symlink_to("dir")
    (root / "out.txt").symlink_to("../outside.txt")
    (root / "outdir").symlink_to("../root-secret")
    (root / "absolute.txt").symlink_to(root.parent / "outside.txt")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    app = StaticOrPass(behind, root)
    assert call(app, "/in.txt").body == call(app, "/indir/page.html").body == b"page"
    for target in ("/out.txt", "/outdir/key.txt", "/absolute.txt", "/dangling", "/loop", "/loop/x"):
        assert passed(call(app, target)), target
    refuse = StaticOrPass(behind, root, symlinks="refuse")
    assert passed(call(refuse, "/in.txt"))
    assert passed(call(refuse, "/indir/page.html"))
    assert call(refuse, "/dir/page.html").body == b"page"
    assert call(StaticOrPass(behind, root, symlinks="follow"), "/out.txt").body == b"outside"
    owner = StaticOrPass(behind, root, symlinks="owner")
    assert call(owner, "/in.txt").body == b"page"
    assert passed(call(owner, "/out.txt"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owner_match_compares_the_link_with_its_target(root: Path) -> None:
    (root / "in.txt").symlink_to("dir/page.html")
    os.lchown(root / "in.txt", 65534, 65534)
    assert call(StaticOrPass(behind, root, symlinks="owner"), "/in.txt").status == 403


def test_a_folder_swapped_for_a_link_after_it_was_served_is_not_followed(root: Path) -> None:
    app = StaticOrPass(behind, root)
    outside = put(root.parent / "other/page.html", b"outside page")
    assert call(app, "/dir/page.html").body == b"page"
    (root / "dir").rename(root / "was")
    (root / "dir").symlink_to(outside.parent)
    assert passed(call(app, "/dir/page.html"))


def test_no_race_for_a_folder_leads_outside(root: Path) -> None:
    put(root.parent / "other/page.html", b"outside page")
    (root / "trap").symlink_to("../other")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for name in ("dir", "trap"):
                os.rename(root / name, root / "now")
                os.rename(root / "now", root / name)
            os.rename(root / "dir", root / "kept")
            os.rename(root / "trap", root / "dir")
            os.rename(root / "dir", root / "trap")
            os.rename(root / "kept", root / "dir")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        replies = [call(StaticOrPass(behind, root), "/dir/page.html") for _ in range(500)]
    finally:
        done.set()
        swapper.join()
    assert all(reply.body == b"page" or passed(reply) for reply in replies)


def test_the_root_may_be_a_link_that_moves(root: Path) -> None:
    put(root.parent / "release2/hello.txt", b"second release")
    current = root.parent / "current"
    current.symlink_to(root)
    app = StaticOrPass(None, current)
    assert call(app, "/hello.txt").body == HELLO
    current.unlink()
    current.symlink_to(root.parent / "release2")
    assert call(app, "/hello.txt").body == b"second release"


def test_fifo_socket_and_device_pass_at_once(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        app = StaticOrPass(behind, root)
        assert passed(call(app, "/pipe"))
        assert passed(call(app, "/socket"))
    assert passed(call(StaticOrPass(behind, "/dev"), "/null"))


def test_a_fifo_that_takes_the_place_of_a_file_after_stat_does_not_hang(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = StaticOrPass(behind, root)
    entry = os.stat(root / "hello.txt")
    (root / "hello.txt").unlink()
    os.mkfifo(root / "hello.txt")
    monkeypatch.setattr("proxymw.files.FileTree.stat", lambda self, path: entry)
    before = open_files()
    assert passed(call(app, "/hello.txt"))
    assert open_files() == before


def test_a_device_that_takes_the_place_of_a_file_is_never_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = StaticOrPass(behind, root)
    monkeypatch.setattr("proxymw.files.FileTree.open", lambda self, path: os.open("/dev/zero", os.O_RDONLY))
    before = open_files()
    assert passed(call(app, "/hello.txt"))
    assert open_files() == before


def test_an_unreadable_file_is_403_and_never_passed_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Any, path: str) -> int:
        raise PermissionError(13, "denied")

    monkeypatch.setattr("proxymw.files.FileTree.open", denied)
    for app in (StaticOrPass(behind, root), StaticOrPass(None, root)):
        for method in ("GET", "HEAD"):
            assert call(app, "/hello.txt", method=method).status == 403
        assert call(app, "/hello.txt", headers={"If-None-Match": "*"}).status == 403


def test_a_file_in_a_folder_that_may_not_be_searched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Any, path: str) -> os.stat_result:
        raise PermissionError(13, "denied")

    monkeypatch.setattr("proxymw.files.FileTree.stat", denied)
    assert passed(call(StaticOrPass(behind, root), "/closed/x"))  # -f says no
    assert call(StaticOrPass(None, root), "/closed/x").status == 403


def test_out_of_file_descriptors_is_503_and_no_passed_request(root: Path) -> None:
    app = StaticOrPass(behind, root)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    request = environ("/big.bin")
    os.close(lowest := os.dup(0))  # the limit is on the number of a descriptor, and there are gaps below the highest
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        reply = run(app, request)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (reply.status, reply.header("Retry-After")) == (503, "1")
    assert call(app, "/big.bin").body == BIG


# Folders.


def test_with_an_index_it_is_a_document_root(root: Path) -> None:
    app = StaticOrPass(behind, root, index=("missing.html", "index.html"))
    assert call(app, "/").body == b"home"
    assert call(app, "/dir/").body == b"dir index"
    assert call(app, "/dir/", headers={"If-None-Match": "*"}).status == 304
    reply = call(app, "/dir?a=1&b=%20")
    assert (reply.status, reply.header("Location")) == (301, "/dir/?a=1&b=%20")
    # A folder without an index is the application's business.
    assert passed(call(app, "/plain/"))
    assert passed(call(app, "/plain"))
    assert passed(call(app, "/dir", method="POST"))
    assert passed(call(StaticOrPass(behind, root, index=("index.html",), slash_redirect=False), "/dir"))


def test_an_index_that_is_a_folder_or_leads_outside_is_none(root: Path) -> None:
    put(root / "odd/index.html/inner", b"")
    (root / "plain/index.html").symlink_to("../../outside.txt")
    put(root / ".hidden/index.html", b"secret")
    app = StaticOrPass(behind, root, index=("index.html",))
    for target in ("/odd/", "/plain/", "/.hidden/", "/.hidden"):
        assert passed(call(app, target)), target


@pytest.mark.parametrize("target", ["//evil.invalid", "//evil.invalid/%2e%2e/dir", "///dir", "/%5cevil", "/%2f%2fevil"])
def test_a_slash_redirect_never_leads_to_another_site(root: Path, target: str) -> None:
    for name in ("evil.invalid", "\\evil", "evil"):
        put(root / name / "index.html", b"x")
    for policy in (Policy.modern(), Policy.modern().but(merge_slashes=False), Policy.apache().but(location="path")):
        for script_name in ("", "/", "//evil.invalid"):
            app = StaticOrPass(None, root, index=("index.html",), policy=policy)
            location = call(app, target, script_name=script_name, raw_uri=False).header("Location")
            if location is not None:
                assert location[0] == "/", location
                assert location[1] not in "/\\", location


def test_a_slash_redirect_keeps_the_mount_and_escapes_the_path(root: Path) -> None:
    put(root / "a b/index.html", b"x")
    app = StaticOrPass(None, root, index=("index.html",), prefix="/files")
    assert call(app, "/files/a%20b", script_name="/mnt").header("Location") == "/mnt/files/a%20b/"
    assert call(app, "/files", script_name="/mnt").header("Location") == "/mnt/files/"


def test_a_prefix_stands_for_the_root(root: Path) -> None:
    app = StaticOrPass(behind, root, prefix="/static/")
    assert call(app, "/static/hello.txt").body == HELLO
    for target in ("/hello.txt", "/static", "/static/", "/static-secret/key.txt", "/staticX/hello.txt"):
        assert passed(call(app, target)), target


# The answer.


def test_the_head_of_a_file(root: Path) -> None:
    reply = call(StaticOrPass(None, root), "/hello.txt")
    assert dict(reply.headers) == {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": "37",
        "Last-Modified": DATE,
        "ETag": TAG,
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    assert call(StaticOrPass(None, root), "/big.bin").header("Content-Type") == "application/octet-stream"


@pytest.mark.parametrize("target", ["/hello.txt", "/big.bin", "/empty.css"])
@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_head_is_get_without_its_body_and_leaves_nothing_open(root: Path, target: str, memory: int) -> None:
    app = StaticOrPass(None, root, memory=memory)
    before = open_files()
    for _ in range(3):
        get, head = call(app, target), call(app, target, method="HEAD")
        assert (head.status, head.headers, head.body) == (200, get.headers, b"")
        assert len(get.body) == int(get.header("Content-Length") or -1)
        reply = call(app, target, headers={"If-None-Match": get.header("ETag") or ""})
        assert (reply.status, reply.body) == (304, b"")
    assert open_files() == before


def test_a_304_keeps_the_validators_and_drops_what_describes_a_body(root: Path) -> None:
    reply = call(StaticOrPass(None, root, max_age=60), "/hello.txt", headers={"If-None-Match": TAG})
    assert {name for name, _ in reply.headers} == {
        "ETag",
        "Last-Modified",
        "Accept-Ranges",
        "Cache-Control",
        "X-Content-Type-Options",
    }


def test_a_failed_precondition_is_412(root: Path) -> None:
    reply = call(StaticOrPass(None, root), "/hello.txt", headers={"If-Match": '"nope"'})
    assert (reply.status, reply.header("ETag"), reply.body) == (412, TAG, b"")
    # PEP 3333's own checker wants a type with every status that may have a body.
    assert reply.header("Content-Type") == "text/plain; charset=utf-8"


def test_the_entity_tag_is_as_configured(root: Path) -> None:
    def tag(*parts: str) -> str | None:
        return call(StaticOrPass(None, root, etag=parts), "/hello.txt").header("ETag")

    inode = os.stat(root / "hello.txt").st_ino
    assert tag("mtime", "size") == tag("size", "mtime") == TAG
    assert tag("mtime", "size", "inode") == f'"{inode:x}-25-59ef88bea0100"'
    assert tag("size") == '"25"'
    assert tag() is None


def test_a_file_changed_within_the_second_has_a_weak_tag_and_no_date_in_the_future(root: Path) -> None:
    put(root / "new.txt", b"new", int(time.time()) + 3600)
    reply = call(StaticOrPass(None, root), "/new.txt")
    assert (reply.header("ETag") or "").startswith('W/"3-')
    shown = parsedate_to_datetime(reply.header("Last-Modified") or "")
    assert abs(time.time() - shown.timestamp()) < 5
    os.utime(root / "new.txt", ns=(0, 2**62))
    assert call(StaticOrPass(None, root), "/new.txt").status == 200
    os.utime(root / "new.txt", (-(10**9), -(10**9)))
    assert call(StaticOrPass(None, root), "/new.txt").header("Last-Modified") == "Sun, 24 Apr 1938 22:13:20 GMT"


# Seen at once.


@pytest.mark.parametrize("precompressed", [False, True])
def test_new_changed_and_removed_files_are_seen_at_once(root: Path, precompressed: bool) -> None:
    app = StaticOrPass(behind, root, precompressed=precompressed)
    assert passed(call(app, "/new.txt"))
    put(root / "new.txt", b"first")
    for number in range(200):
        # The same size, the same time, within one tick of the clock of the disk.
        content = b"%05d" % number
        put(root / "new.txt", content)
        assert call(app, "/new.txt").body == content
    (root / "new.txt").unlink()
    assert passed(call(app, "/new.txt"))


def test_a_file_is_not_kept_while_a_second_change_could_look_like_the_first(root: Path) -> None:
    app = StaticOrPass(None, root)
    put(root / "new.txt", b"new", int(time.time()) - 3600)
    assert call(app, "/new.txt").body == b"new"
    assert not app._shelf.files


def test_a_settled_file_is_kept_in_memory_and_let_go_when_anything_about_it_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 10
    monkeypatch.setattr("proxymw.static.time.time", lambda: later)
    app = StaticOrPass(behind, root)
    reads: list[Any] = []
    pread = os.pread
    monkeypatch.setattr("proxymw.static.os.pread", lambda *args: reads.append(args) or pread(*args))
    for _ in range(3):
        assert call(app, "/hello.txt").body == HELLO
    assert len(reads) == 1
    put(root / "hello.txt", HELLO.upper())  # the same size and mtime: ctime tells
    assert call(app, "/hello.txt").body == HELLO.upper()
    os.replace(put(root / "tmp", b"replaced"), root / "hello.txt")
    assert call(app, "/hello.txt").body == b"replaced"
    os.chmod(root / "hello.txt", 0)
    count = len(reads)
    call(app, "/hello.txt")
    assert len(reads) == count + 1 or os.geteuid() != 0


def test_memory_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + 10
    monkeypatch.setattr("proxymw.static.time.time", lambda: later)
    app = StaticOrPass(None, root, memory=10_000)
    for number in range(30):
        put(root / f"f{number}", b"x" * 1000)
        assert call(app, f"/f{number}").status == 200
    kept = [file.body for file in app._shelf.files.values() if file.body]
    assert sum(map(len, kept)) <= 10_000
    assert len(kept) == 10


# Ranges.


@pytest.mark.parametrize(("target", "content"), [("/hello.txt", HELLO), ("/big.bin", BIG)])
@pytest.mark.parametrize(
    ("field", "first", "stop"),
    [("0-0", 0, 1), ("-1", -1, None), ("5-9", 5, 10), ("30-", 30, None), ("7-999999", 7, None)],
)
def test_one_range(root: Path, target: str, content: bytes, field: str, first: int, stop: int | None) -> None:
    before = open_files()
    reply = call(StaticOrPass(None, root), target, headers={"Range": f"bytes={field}"})
    want = content[first:stop]
    start = len(content) + first if first < 0 else first
    assert (reply.status, reply.body) == (206, want)
    assert reply.header("Content-Range") == f"bytes {start}-{start + len(want) - 1}/{len(content)}"
    assert reply.header("Content-Length") == str(len(want))
    assert open_files() == before


@pytest.mark.parametrize(("target", "content"), [("/hello.txt", HELLO), ("/big.bin", BIG)])
def test_several_ranges(root: Path, target: str, content: bytes) -> None:
    before = open_files()
    reply = call(StaticOrPass(None, root), target, headers={"Range": "bytes=0-1,5-6,-2,900000-"})
    assert reply.status == 206
    assert reply.header("Content-Length") == str(len(reply.body))
    assert reply.header("Content-Range") is None
    message = BytesParser().parsebytes(f"Content-Type: {reply.header('Content-Type')}\r\n\r\n".encode() + reply.body)
    parts = message.get_payload()
    size = len(content)
    assert [part["Content-Range"] for part in parts] == [
        f"bytes 0-1/{size}",
        f"bytes 5-6/{size}",
        f"bytes {size - 2}-{size - 1}/{size}",
    ]
    if target == "/hello.txt":
        assert [part.get_payload() for part in parts] == ["01", "56", "z\n"]
        assert {part["Content-Type"] for part in parts} == {"text/plain; charset=utf-8"}
    assert open_files() == before


@pytest.mark.parametrize("target", ["/hello.txt", "/big.bin"])
def test_a_range_beyond_the_end_is_416_with_the_length(root: Path, target: str) -> None:
    before = open_files()
    app = StaticOrPass(None, root, headers=[("Access-Control-Allow-Origin", "*")], max_age=60)
    reply = call(app, target, headers={"Range": "bytes=9000000-"})
    size = (root / target[1:]).stat().st_size
    assert (reply.status, reply.header("Content-Range")) == (416, f"bytes */{size}")
    assert reply.header("Access-Control-Allow-Origin") == "*"
    assert reply.header("Cache-Control") == "no-store"
    assert open_files() == before


@pytest.mark.parametrize("field", ["lines=1-2", "bytes=5-2", "bytes=1_0-2_0", "bytes=-0", "bytes=", "bytes=0-1\xb2"])
def test_a_range_that_is_none_gets_the_file(root: Path, field: str) -> None:
    reply = call(StaticOrPass(None, root), "/hello.txt", headers={"Range": field})
    assert (reply.status, reply.body) == (200, HELLO)


def test_range_counts_for_get_alone_and_within_the_caps(root: Path) -> None:
    app = StaticOrPass(None, root)
    head = call(app, "/hello.txt", method="HEAD", headers={"Range": "bytes=0-0"})
    assert (head.status, head.header("Content-Length")) == (200, "37")
    none = StaticOrPass(None, root, ranges=Limits(ranges=0))
    assert call(none, "/hello.txt", headers={"Range": "bytes=0-0"}).status == 200


@pytest.mark.parametrize(
    ("if_range", "status"), [(TAG, 206), (DATE, 206), ('"old"', 200), ("Wed, 19 Feb 2020 02:20:20 GMT", 200)]
)
def test_if_range_guards_against_mixing_two_versions(root: Path, if_range: str, status: int) -> None:
    reply = call(StaticOrPass(None, root), "/hello.txt", headers={"Range": "bytes=0-9", "If-Range": if_range})
    assert reply.status == status
    assert reply.body == (HELLO[:10] if status == 206 else HELLO)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(first=st.integers(0, 300_000), length=st.integers(1, 300_000))
def test_a_range_is_a_slice(root: Path, first: int, length: int) -> None:
    reply = call(StaticOrPass(None, root), "/big.bin", headers={"Range": f"bytes={first}-{first + length - 1}"})
    assert reply.body == BIG[first : first + length] if first < len(BIG) else reply.status == 416


# Sending.


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=10-"}, {"Range": "bytes=10-20,200000-250000"}])
def test_a_file_that_shrinks_while_it_is_sent_is_visibly_cut(root: Path, headers: dict[str, str]) -> None:
    before = open_files()
    request = environ("/big.bin", headers=headers)
    body = iter(answer := StaticOrPass(None, root)(request, lambda *args: lambda data: None))
    next(body)
    os.truncate(root / "big.bin", 100)
    with pytest.raises(FileShrank):
        list(body)
    answer.close()  # type: ignore[attr-defined]
    assert open_files() == before


def test_a_file_that_shrank_under_a_server_that_sends_the_descriptor_is_noticed_at_the_end(root: Path) -> None:
    request = environ("/big.bin", **{"wsgi.file_wrapper": FileWrapper})
    answer: Any = StaticOrPass(None, root)(request, lambda *args: lambda data: None)
    os.truncate(root / "big.bin", 100)
    with pytest.raises(FileShrank):
        answer.close()
    answer.close()


def test_a_file_that_grows_while_it_is_sent_ends_where_it_was_announced(root: Path) -> None:
    request = environ("/big.bin", **{"wsgi.file_wrapper": FileWrapper})
    answer: Any = StaticOrPass(None, root)(request, lambda *args: lambda data: None)
    with (root / "big.bin").open("ab") as file:
        file.write(b"more")
    assert b"".join(answer) == BIG
    answer.close()


def test_a_file_replaced_while_it_is_sent_is_one_version(root: Path) -> None:
    answer = StaticOrPass(None, root)(environ("/big.bin"), lambda *args: lambda data: None)
    os.replace(put(root / "tmp", b"y" * len(BIG)), root / "big.bin")
    assert b"".join(answer) == BIG


def test_the_servers_file_wrapper_gets_whole_files_with_a_descriptor(root: Path) -> None:
    given: list[Any] = []

    def wrapper(file: Any, size: int) -> Any:
        given.append((file.fileno(), size))
        return FileWrapper(file, size)

    app = StaticOrPass(None, root)
    assert call(app, "/big.bin", **{"wsgi.file_wrapper": wrapper}).body == BIG
    assert len(given) == 1
    call(app, "/big.bin", method="HEAD", **{"wsgi.file_wrapper": wrapper})
    call(app, "/big.bin", headers={"If-None-Match": "*"}, **{"wsgi.file_wrapper": wrapper})
    assert len(given) == 1


def test_a_body_that_nobody_closes_is_closed_with_its_object(root: Path) -> None:
    before = open_files()
    for headers in ({}, {"Range": "bytes=1-"}, {"Range": "bytes=0-1,5-6"}):
        answer = StaticOrPass(None, root)(environ("/big.bin", headers=headers), lambda *args: lambda data: None)
        assert open_files() == before + 1
        del answer
    assert open_files() == before


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-1"}, {"Range": "bytes=0-1,5-6"}, {"If-None-Match": "*"}])
@pytest.mark.parametrize("target", ["/hello.txt", "/big.bin", "/missing"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_wsgi_is_kept(root: Path, method: str, target: str, headers: dict[str, str]) -> None:
    app = validator(StaticOrPass(None, root))
    request = environ(target, method=method, headers=headers)
    request.pop("HTTP_CONTENT_TYPE", None)
    run(app, request)


# Headers of one's own.


def test_cache_headers_by_pattern(root: Path) -> None:
    put(root / "assets/app.db8f2edc0c8a.js")
    put(root / "assets/report-20240115.js")
    put(root / "assets/index-BnGxkCJr.js")
    rules = [("*.html", "no-cache"), ("dir/*", "private")]
    app = StaticOrPass(None, root, cache_control=rules, immutable=True, max_age=60)

    def cache(target: str) -> str | None:
        return call(app, target).header("Cache-Control")

    assert cache("/index.html") == cache("/dir/page.html") == "no-cache"
    assert cache("/hello.txt") == cache("/assets/report-20240115.js") == "max-age=60, public"
    assert cache("/assets/app.db8f2edc0c8a.js") == "max-age=31536000, public, immutable"
    app = StaticOrPass(None, root, immutable=["assets/index-????????.js"])
    assert cache("/assets/index-BnGxkCJr.js") == "max-age=31536000, public, immutable"
    assert cache("/hello.txt") is None
    app = StaticOrPass(None, root, cache_control=lambda path: "private" if path == "hello.txt" else None)
    assert cache("/hello.txt") == "private"
    assert cache("/index.html") is None


@pytest.mark.parametrize("status", [200, 206, 304, 412, 416])
@pytest.mark.parametrize("target", ["/hello.txt", "/big.bin"])
def test_headers_of_ones_own_go_with_every_answer_about_a_file(root: Path, status: int, target: str) -> None:
    fields = {
        200: {},
        206: {"Range": "bytes=0-1"},
        304: {"If-None-Match": "*"},
        412: {"If-Match": '"x"'},
        416: {"Range": "bytes=9999999-"},
    }
    app = StaticOrPass(None, root, headers=lambda path: [("Access-Control-Allow-Origin", "*"), ("X-Path", path)])
    reply = call(app, target, headers=fields[status])
    assert reply.status == status
    assert (reply.header("Access-Control-Allow-Origin"), reply.header("X-Path")) == ("*", target[1:])


def test_a_header_of_ones_own_replaces_ours(root: Path) -> None:
    app = StaticOrPass(None, root, headers=[("Content-Type", "text/x"), ("ETag", '"mine"'), ("Vary", "Origin")])
    reply = call(app, "/hello.txt")
    assert (reply.header("Content-Type"), reply.header("ETag"), reply.header("Vary")) == ("text/x", '"mine"', "Origin")
    assert call(app, "/hello.txt", headers={"If-None-Match": '"mine"'}).status == 304


# Precompressed siblings.


@pytest.fixture
def packed(root: Path) -> Path:
    put(root / "app.js", HELLO)
    put(root / "app.js.gz", gzip.compress(HELLO))
    put(root / "app.js.br", b"brotli " * 3)
    return root


def ask(app: Any, accepted: str | None, target: str = "/app.js", **headers: str) -> Reply:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return call(app, target, headers=fields if accepted is None else {"Accept-Encoding": accepted, **fields})


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        ("", None),
        ("*", None),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, br;q=0.1", "gzip"),
        ("zstd", None),
        ("gzip;q=0", None),
        (";;q=,,%00, gzip;q=nan", None),
    ],
)
def test_a_sibling_is_sent_to_a_client_that_names_its_coding(
    packed: Path, accepted: str | None, coding: str | None
) -> None:
    reply = ask(StaticOrPass(None, packed, precompressed=True), accepted)
    assert reply.header("Content-Encoding") == coding
    assert reply.header("Vary") == "Accept-Encoding"
    assert reply.header("Content-Type") == "text/javascript; charset=utf-8"
    stored = packed / {"br": "app.js.br", "gzip": "app.js.gz", None: "app.js"}[coding]
    assert reply.body == stored.read_bytes()
    assert reply.header("Content-Length") == str(len(reply.body))


def test_each_variant_has_its_own_tag_and_conditions_and_ranges(packed: Path) -> None:
    app = StaticOrPass(None, packed, precompressed=True)
    tags = {ask(app, accepted).header("ETag") for accepted in ("br", "gzip", "")}
    assert len(tags) == 3
    plain, zipped = ask(app, "").header("ETag") or "", ask(app, "gzip").header("ETag") or ""
    assert ask(app, "gzip", If_None_Match=plain).status == 200
    reply = ask(app, "gzip", If_None_Match=zipped)
    assert (reply.status, reply.header("Vary"), reply.header("Content-Encoding")) == (304, "Accept-Encoding", None)
    reply = ask(app, "gzip", Range="bytes=2-5", If_Range=zipped)
    assert reply.body == (packed / "app.js.gz").read_bytes()[2:6]
    assert (reply.status, reply.header("Content-Encoding"), reply.header("Vary")) == (206, "gzip", "Accept-Encoding")
    assert ask(app, "gzip", Range="bytes=2-5", If_Range=plain).status == 200
    reply = ask(app, "gzip", Range="bytes=99999-")
    assert (reply.status, reply.header("Vary")) == (416, "Accept-Encoding")
    assert reply.header("Content-Range") == f"bytes */{(packed / 'app.js.gz').stat().st_size}"


def test_a_sibling_older_than_the_file_belongs_to_a_former_version(packed: Path) -> None:
    app = StaticOrPass(None, packed, precompressed=True)
    assert ask(app, "br, gzip").header("Content-Encoding") == "br"
    put(packed / "app.js", b"edited", MTIME + 1)
    reply = ask(app, "br, gzip")
    assert (reply.body, reply.header("Content-Encoding"), reply.header("Vary")) == (b"edited", None, None)


def test_a_time_copied_without_its_fraction_is_not_older(packed: Path) -> None:
    os.utime(packed / "app.js", ns=(0, MTIME * 10**9 + 123_456_789))
    assert ask(StaticOrPass(None, packed, precompressed=True), "br").header("Content-Encoding") == "br"


def test_a_sibling_is_checked_like_any_file(packed: Path) -> None:
    (packed / "app.js.br").unlink()
    (packed / "app.js.br").symlink_to("../outside.txt")
    (packed / "app.js.zst").mkdir()
    os.utime(packed.parent / "outside.txt", (MTIME + 9, MTIME + 9))
    reply = ask(StaticOrPass(None, packed, precompressed=True), "br, zstd, gzip")
    assert reply.header("Content-Encoding") == "gzip"


def test_no_sibling_no_vary_and_none_unless_asked(packed: Path) -> None:
    assert ask(StaticOrPass(None, packed, precompressed=True), "br", "/hello.txt").header("Vary") is None
    reply = ask(StaticOrPass(None, packed), "br")
    assert (reply.header("Vary"), reply.header("Content-Encoding")) == (None, None)
    only = StaticOrPass(None, packed, precompressed=["gzip"])
    assert ask(only, "br, gzip").header("Content-Encoding") == "gzip"


def test_the_server_in_front_may_send_the_file(packed: Path) -> None:
    reply = call(StaticOrPass(None, packed, offload="X-Sendfile"), "/hello.txt")
    assert (reply.header("X-Sendfile"), reply.header("Content-Length"), reply.body) == (
        str(packed / "hello.txt"),
        "0",
        b"",
    )
    app = StaticOrPass(None, packed, offload=("X-Accel-Redirect", "/internal/"), precompressed=True)
    assert ask(app, "br").header("X-Accel-Redirect") == "/internal/app.js.br"
    assert ask(app, None, "/with%20space%20&%20%C3%BC.txt").header("X-Accel-Redirect") == (
        "/internal/with%20space%20&%20%c3%bc.txt"
    )
    assert call(app, "/hello.txt", headers={"If-None-Match": TAG}).status == 304


# The Apache dialect.


def test_apache_dialect(root: Path) -> None:
    put(root / "page.html.bak", b"bak")
    put(root / "...three", b"three")
    put(root / "colon:name", b"colon")
    put(root / ".htaccess", b"secret")
    (root / "dangling").symlink_to("nowhere")
    app = StaticOrPass(None, root, index=("index.html",), policy=Policy.apache())

    def status(target: str, method: str = "GET", **headers: str) -> int:
        return call(app, target, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()}).status

    assert call(app, "/big.bin").header("Content-Type") is None
    assert call(app, "/page.html.bak").header("Content-Type") == "text/html"
    assert call(app, "/hello.txt").header("Content-Type") == "text/plain"
    assert status("/.env") == status("/...three") == status("/colon:name") == 200
    assert status("/.htaccess") == status("/dangling") == status("/" + "a" * 300) == status("/plain/") == 403
    assert status("/../outside.txt") == 400
    assert status("/hello.txt", If_None_Match=TAG, If_Modified_Since="Wed, 19 Feb 2020 02:20:20 GMT") == 200
    assert status("/hello.txt", "HEAD", Range="bytes=0-0") == 206
    assert call(app, "/plain?x=1", host="Ducklington.ORG:80").header("Location") == "http://ducklington.org/plain/?x=1"
    assert call(app, "/dir", **{"wsgi.url_scheme": "https"}).header("Location") == "https://ducklington.org/dir/"
    assert call(app, "/hello.txt", method="POST", body=b"x").body == HELLO
    assert status("/hello.txt", "POST", If_None_Match=TAG) == 412
    assert status("/missing", "POST") == 404
    assert status("/missing", "PUT") == status("/dir/", "DELETE") == 405
    assert status("/dir", "DELETE") == 301
    assert status("/missing", "FOO") == 501
    assert call(app, "/missing", method="OPTIONS").header("Allow") == "GET, HEAD, OPTIONS, POST"


def test_apache_dialect_with_an_application_behind_is_case_four(root: Path) -> None:
    put(root / ".htaccess", b"secret")
    app = StaticOrPass(behind, root, policy=Policy.apache())
    assert call(app, "/hello.txt").body == HELLO
    for target in ("/", "/dir/", "/dir", "/.htaccess", "/missing", "/../x"):
        assert passed(call(app, target)), target


# The constructor, and what explain asks.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": "index.html"}, r"index must be a tuple .* got 'index.html'"),
        ({"index": ("a/b",)}, "index must be"),
        ({"prefix": "static/"}, "prefix must be"),
        ({"prefix": "/../x/"}, "prefix must be"),
        ({"symlinks": "yes"}, "symlinks must be .* got 'yes'"),
        ({"etag": "mtime"}, "etag must be"),
        ({"etag": ("ctime",)}, "etag must be"),
        ({"precompressed": ["deflate"]}, "precompressed must be"),
        ({"max_age": -1}, "max_age must be"),
        ({"memory": -1}, "memory must be"),
        ({"immutable": "*.js"}, "immutable must be"),
        ({"headers": [("X", "a\r\nb")]}, "headers must be"),
        ({"headers": [("Content-Length", "5")]}, "headers must be"),
        ({"cache_control": [("*", "a\nb")]}, "headers must be"),
        ({"offload": "sendfile"}, "offload must be"),
    ],
)
def test_options_are_checked(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StaticOrPass(None, root, **options)


def test_a_missing_root_is_said_at_once(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"root must be an existing folder, got '.*nowhere': create"):
        StaticOrPass(None, root / "nowhere")
    with pytest.raises(ConfigError, match="root must be an existing folder"):
        StaticOrPass(None, root / "hello.txt")


def test_find_says_what_a_path_is(root: Path) -> None:
    app = StaticOrPass(behind, root, index=("index.html",), prefix="/s/")
    assert [app.find(path) and app.find(path).kind for path in ("/s/hello.txt", "/s/dir", "/s/dir/", "/s/x", "/y")] == [  # type: ignore[union-attr]
        "file",
        "redirect",
        "file",
        None,
        None,
    ]
    assert app.find("/s/dir/").name == "/dir/index.html"  # type: ignore[union-attr]
    assert repr(app).startswith("<StaticOrPass /s/ from ")


names = st.text(st.sampled_from("ab./\\%:~ \x00\xff\u0100"), max_size=12)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(path=names, symlinks=st.sampled_from(["inside", "refuse", "owner"]))
def test_nothing_outside_the_root_is_ever_found(tmp_path: Path, path: str, symlinks: Any) -> None:
    root = tmp_path / "a"
    if not root.exists():
        for name in ("a/a/a", "a/b/.a", "a/a.b", "b/a", "ab"):
            put(tmp_path / name, name.encode())
        (root / "ab").symlink_to("../ab")
        (root / "ba").symlink_to("../b")
        (root / "bb").symlink_to("a")
    app = StaticOrPass(behind, root, symlinks=symlinks)
    reply = run(app, environ("/") | {"PATH_INFO": "/" + path, "RAW_URI": ""})
    assert passed(reply) or reply.body in (b"a/a/a", b"a/a.b")
