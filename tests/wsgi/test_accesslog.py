"""AccessLog: when a line is written, what it counts, and that it never costs a request."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import sys
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

import pytest

from proxymw.accesslog import AccessLog, LogFile
from proxymw.errors import ConfigError
from tests.wsgi.calling import call, echo_environ, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def replying(body: Any, status: str = "200 OK", *headers: tuple[str, str]) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response(status, [("Content-Type", "text/plain"), *headers])
        return body

    return app


class Log(io.StringIO):
    """A log that can be asked for one format item of its only line."""

    name = "the log"

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


def logged(app: Callable[..., Any], form: str, path: str = "/", method: str = "GET", **environ: Any) -> str:
    log = Log()
    call(AccessLog(app, log, format=form), path, method, **environ)
    (line,) = log.lines
    return line


def test_a_combined_line() -> None:
    before = datetime.now().astimezone().replace(microsecond=0)
    line = logged(
        replying([b"hello ", b"world"]), "combined", "/a?b=%22", HTTP_USER_AGENT='duck "1"', REMOTE_ADDR="192.0.2.7"
    )
    found = re.fullmatch(r'192\.0\.2\.7 - - \[(.*)\] "GET /a\?b=%22 HTTP/1\.1" 200 11 "-" "duck \\"1\\""', line)
    assert found
    assert before <= datetime.strptime(found[1], "%d/%b/%Y:%H:%M:%S %z") <= datetime.now().astimezone()


def test_the_line_is_written_when_the_body_ends() -> None:
    log = Log()
    body = AccessLog(replying([b"a", b"b"]), log)(request(), lambda status, headers: lambda data: None)
    chunks = iter(body)
    assert next(chunks) == b"a"
    assert log.lines == []
    assert list(chunks) == [b"b"]
    body.close()  # type: ignore[attr-defined]
    body.close()  # type: ignore[attr-defined]
    assert len(log.lines) == 1


def test_a_client_that_leaves_is_logged_with_what_it_got() -> None:
    log = Log()
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"12345"
            yield b"67890"

        def close(self) -> None:
            closed.append(True)

    body: Any = AccessLog(replying(Body()), log, format="%>s %B %X")(request(), lambda s, h: lambda d: None)
    next(iter(body))
    body.close()
    assert log.lines == ["200 5 X"]
    assert closed == [True]


def test_a_body_that_fails_is_logged_and_still_fails() -> None:
    def broken() -> Iterator[bytes]:
        yield b"123"
        raise OSError("origin went away")

    log = Log()
    with pytest.raises(OSError, match="origin went away"):
        call(AccessLog(replying(broken()), log, format="%>s %B"))
    assert log.lines == ["200 3"]


def test_a_failure_before_the_first_byte_is_the_500_that_the_server_sends() -> None:
    def broken_body() -> Iterator[bytes]:
        raise RuntimeError("early")
        yield b""

    def broken_app(environ: Any, start_response: Any) -> Any:
        raise RuntimeError("earlier")

    for app in (replying(broken_body()), broken_app):
        log = Log()
        with pytest.raises(RuntimeError, match="earl"):
            call(AccessLog(app, log, format="%>s %b"))
        assert log.lines == ["500 -"]


def test_exc_info_replaces_the_status_unless_the_head_was_out() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ValueError
        except ValueError:
            start_response("502 Bad Gateway", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"bad"]

    assert logged(app, "%>s") == "502"

    def refusing(status: str, headers: Any, exc_info: Any = None) -> Any:
        if exc_info:
            raise exc_info[1]
        return lambda data: None

    log = Log()
    with pytest.raises(ValueError):
        AccessLog(app, log, format="%>s")(request(), refusing)
    assert log.lines == ["500"]


def test_a_head_may_come_with_the_first_chunk() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("404 Not Found", [("X-A", "1")])
        yield b"abc"

    log = Log()
    body: Any = AccessLog(app, log, format="%>s %B %{X-A}o")(request(), lambda s, h: lambda d: None)
    assert list(body) == [b"abc"]
    body.close()
    assert log.lines == ["404 3 1"]


def test_write_is_counted() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"1234")
        return [b"56"]

    assert logged(app, "%B") == "6"


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not Modified"), ("GET", "204 No Content")]
)
def test_answers_without_a_body_count_nothing(method: str, status: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, [("Content-Type", "text/plain")] if status.startswith("200") else [])
        return [b""] if method == "HEAD" else []

    assert logged(app, "%b", method=method) == "-"


def test_what_the_server_drops_of_an_answer_to_head_is_not_counted() -> None:
    log = Log()
    body: Any = AccessLog(replying([b"dropped"]), log, format="%b")(request(method="HEAD"), lambda s, h: lambda d: None)
    assert list(body) == [b"dropped"]
    body.close()
    assert log.lines == ["-"]


def test_a_list_keeps_its_length_and_a_generator_has_none() -> None:
    start = lambda status, headers: lambda data: None  # noqa: E731
    assert len(AccessLog(replying([b"one"]), Log())(request(), start)) == 1  # type: ignore[arg-type]
    assert not hasattr(AccessLog(replying(iter([b"one"])), Log())(request(), start), "__len__")


def test_what_is_behind_may_change_the_path_and_the_log_shows_what_came() -> None:
    def rewriting(environ: Any, start_response: Any) -> Any:
        environ.update(PATH_INFO="/index.php", QUERY_STRING="x=1", REMOTE_USER="frank")
        return replying([b"x"])(environ, start_response)

    assert logged(rewriting, "%U %q %u %r", "/a?b=c") == "/a ?b=c frank GET /a?b=c HTTP/1.1"


def test_the_request_line_is_rebuilt_where_the_server_has_none() -> None:
    line = logged(replying([b"x"]), "%r", "/x", RAW_URI=None, SCRIPT_NAME="/m", PATH_INFO='/a b"\xc3\xa9')
    assert line == "GET /m/a%20b%22%C3%A9 HTTP/1.1"
    assert logged(replying([b"x"]), "%r", RAW_URI=None, REQUEST_URI="/%7e?x") == "GET /%7e?x HTTP/1.1"


def test_fields_from_the_environ() -> None:
    environ = {
        "HTTP_HOST": "Front.example:81", "proxymw.server_name": "main.example", "proxymw.peer": "10.0.0.1",
        "proxymw.member": "app1", "CONTENT_TYPE": "text/x", "HTTP_CONNECTION": "close", "MARK": "yes",
    }  # fmt: skip
    form = "%V %v %p %{local}p %{c}a %h %{member}n %{Content-Type}i %X %{MARK}e %{wsgi.input}e"
    line = logged(replying([b"x"]), form, **environ)
    assert line == "front.example main.example 81 8000 10.0.0.1 127.0.0.1 app1 text/x - yes -"
    log = Log()
    call(AccessLog(replying([b"x"]), log, format="%v", server_name="said.example"), **environ)
    assert log.lines == ["said.example"]


def test_the_size_of_a_request_is_that_of_its_bytes() -> None:
    head = b"POST /p?q HTTP/1.1\r\nHost: front.example\r\nX-In: dark\r\nContent-Length: 3\r\nContent-Type: a/b\r\n\r\n"
    size = logged(
        replying([b"x"]), "%I", "/p?q", "POST", HTTP_X_IN="dark", CONTENT_LENGTH="3", CONTENT_TYPE="a/b",
        **{"wsgi.input": io.BytesIO(b"abc")},
    )  # fmt: skip
    assert size == str(len(head + b"abc"))


def test_requests_can_be_left_out() -> None:
    log = Log()
    skin = AccessLog(echo_environ([], "404 Not Found"), log, when=lambda environ, status: status >= 400)
    call(skin)
    call(AccessLog(echo_environ([]), log, when=lambda environ, status: status >= 400))
    assert len(log.lines) == 1


def test_json_lines() -> None:
    fields = json.loads(logged(replying([b"abc"]), "json", "/x?y"))
    assert fields["url.path"] == "/x"
    assert fields["http.response.body.size"] == 3


# --- the server's file wrapper ---


def files(tmp_path: Path, headers: list[tuple[str, str]], seek: int = 0) -> tuple[Any, dict[str, Any], Any]:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 10)
    file = path.open("rb")
    file.seek(seek)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", headers)
        return environ["wsgi.file_wrapper"](file)

    return app, request(**{"wsgi.file_wrapper": FileWrapper}), file


@pytest.mark.parametrize(
    ("headers", "seek", "sent"),
    [([("Content-Length", "100")], 0, "100"), ([], 0, "100"), ([("Content-Length", "5")], 10, "5"), ([], 90, "10")],
)
def test_a_file_stays_the_servers_own_and_is_counted(tmp_path: Path, headers: Any, seek: int, sent: str) -> None:
    log = Log()
    app, environ, file = files(tmp_path, headers, seek)
    body: Any = AccessLog(app, log, format="%B")(environ, lambda s, h: lambda d: None)
    assert type(body) is FileWrapper
    # The server sent it all by sendfile, and put the position back.
    assert log.lines == []
    body.close()
    body.close()
    assert log.lines == [sent]
    assert file.closed


def test_a_file_that_was_cut_counts_what_had_gone(tmp_path: Path) -> None:
    log = Log()
    app, environ, file = files(tmp_path, [("Content-Length", "100")])
    body: Any = AccessLog(app, log, format="%B")(environ, lambda s, h: lambda d: None)
    file.seek(40)  # as socket.sendfile leaves it when the client goes
    body.close()
    assert log.lines == ["40"]


def test_a_file_that_was_iterated_counts_no_more_than_its_length(tmp_path: Path) -> None:
    log = Log()
    app, environ, _ = files(tmp_path, [("Content-Length", "5")], 10)
    body: Any = AccessLog(app, log, format="%B")(environ, lambda s, h: lambda d: None)
    assert b"".join(body) == b"0123456789" * 9
    body.close()
    assert log.lines == ["5"]


def test_a_wrapper_that_cannot_be_hooked_is_counted_by_the_chunk() -> None:
    class Sealed:
        __slots__ = ("_left",)

        def __init__(self, left: list[bytes]) -> None:
            self._left = left

        def __iter__(self) -> Iterator[bytes]:
            return iter(self._left)

    log = Log()
    body: Any = AccessLog(replying(Sealed([b"12", b"3"])), log, format="%B")(
        request(**{"wsgi.file_wrapper": Sealed}), lambda s, h: lambda d: None
    )
    assert b"".join(body) == b"123"
    body.close()
    assert log.lines == ["3"]


# --- the file ---


def test_the_file_is_opened_on_the_first_line_and_its_directory_made(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "access.log"
    skin = AccessLog(replying([b"x"]), path)
    assert not path.parent.exists()
    call(skin)
    call(AccessLog(replying([b"x"]), str(path)))
    assert len(path.read_text().splitlines()) == 2


def test_a_relative_path_is_taken_from_where_it_was_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = LogFile("a.log")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    file.write("x\n")
    assert (tmp_path / "a.log").read_text() == "x\n"


@pytest.mark.parametrize("rotate", ["renamed", "removed", "replaced"])
def test_a_rotated_file_is_opened_anew_at_once(tmp_path: Path, rotate: str) -> None:
    path, old = tmp_path / "a.log", tmp_path / "a.log.1"
    file = LogFile(path)
    file.write("1\n")
    if rotate == "removed":
        path.unlink()
    else:
        path.rename(old)
    if rotate == "replaced":
        path.write_text("")
    file.write("2\n")
    assert path.read_text() == "2\n"
    if rotate != "removed":
        assert old.read_text() == "1\n"


def test_a_truncated_file_goes_on_at_its_new_end(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = LogFile(path)
    file.write("1\n")
    os.truncate(path, 0)
    file.write("2\n")
    assert path.read_bytes() == b"2\n"


def test_rotation_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = LogFile(path)
    file.write("1\n")
    before = len(os.listdir("/proc/self/fd"))
    for n in range(20):
        path.rename(tmp_path / f"a.log.{n}")
        file.write("x\n")
    assert len(os.listdir("/proc/self/fd")) == before
    file.close()


def test_a_full_disk_loses_a_line_and_never_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    skin = AccessLog(replying([b"x"]), tmp_path / "a.log", format="%>s")
    write = os.write

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with caplog.at_level(logging.WARNING):
        assert [call(skin).code for _ in range(3)] == [200] * 3
    assert [r.getMessage().split()[0] for r in caplog.records] == ["event=log_lost"]
    monkeypatch.setattr(os, "write", write)
    call(skin)
    assert (tmp_path / "a.log").read_text() == "200\n"


def test_a_line_cut_by_a_full_disk_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LogFile(tmp_path / "a.log")
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))
    file.write("first\n")
    monkeypatch.setattr(os, "write", write)
    file.write("second\n")
    assert (tmp_path / "a.log").read_text() == "fir\nsecond\n"


@pytest.mark.parametrize("kind", ["directory", "fifo", "unreachable"])
def test_a_log_that_cannot_be_opened_costs_no_request(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.log"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)  # nobody reads it: opening one usually waits
    else:
        (tmp_path / "plain").write_text("")
        path = tmp_path / "plain" / "a.log"
    assert call(AccessLog(replying([b"x"]), path)).code == 200
    assert "event=log_lost" in caplog.text


def test_threads_and_processes_share_a_file_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    files = [LogFile(path), LogFile(path)]  # as two workers have it
    line = "x" * 300

    def write(file: LogFile, name: int) -> None:
        for n in range(200):
            file.write(f"{name} {n} {line}\n")

    threads = [threading.Thread(target=write, args=(files[n % 2], n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(f"{name} {n} {line}" for name in range(4) for n in range(200))


def test_streams_of_bytes_and_closed_streams(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.BytesIO()
    call(AccessLog(replying([b"x"]), stream, format="%>s é"))
    assert stream.getvalue() == "200 é\n".encode()
    stream.close()
    assert call(AccessLog(replying([b"x"]), stream)).code == 200
    assert "event=log_lost" in caplog.text


def test_a_log_that_breaks_in_any_way_costs_no_request(caplog: pytest.LogCaptureFixture) -> None:
    def breaks(environ: Any, status: int) -> bool:
        raise KeyError("bug")

    assert call(AccessLog(replying([b"x"]), Log(), when=breaks)).code == 200
    assert "event=access_log_failed" in caplog.text


# --- wsgi.errors ---


def test_errors_is_wsgi_errors_of_what_is_behind(tmp_path: Path) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        errors = environ["wsgi.errors"]
        errors.write("one ")
        errors.writelines(["line\n", "two\x1b[31m\tx\n"])
        errors.flush()
        errors.write("unfinished")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x"]

    path = tmp_path / "error.log"
    call(AccessLog(app, Log(), errors=path))
    assert path.read_text() == "one line\ntwo\\x1b[31m\tx\nunfinished\n"
    stream = io.StringIO()
    call(AccessLog(app, Log(), errors=stream))
    assert stream.getvalue().startswith("one line\n")


def test_without_errors_the_servers_stream_stays() -> None:
    environ = request()
    before = environ["wsgi.errors"]
    AccessLog(replying([b"x"]), Log())(environ, lambda s, h: lambda d: None)
    assert environ["wsgi.errors"] is before


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((None, None), {}, "^log must be a path"),
        ((None, ""), {}, "^log must be a path"),
        ((None, "a"), {"errors": 5}, "^errors must be a path"),
        ((None, "a"), {"format": "%Z"}, "^format must use known"),
        ((None, "a"), {"format": 5}, "^format must be a format name"),
        ((None, "a"), {"when": "env"}, "^when must be a callable"),
    ],
)
def test_bad_configuration_is_said_at_once(arguments: Any, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        AccessLog(*arguments, **options)


def test_repr_tells_where_it_writes() -> None:
    assert repr(AccessLog(echo_environ([]), Log())).startswith("<AccessLog the log -> ")
