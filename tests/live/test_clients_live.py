"""Clients and origins of other people with a front between them: signatures, ranges, uploads, redirects and cookies."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client import eventually
from tests.origins import Answer, EchoOrigin, Front, Request

pytestmark = pytest.mark.live

FRONT = "from proxymw import PrefixProxy\napp = PrefixProxy(None, [('/', {url!r})], preserve_host={host})\n"


def front_of(url: str, *, preserve_host: bool = False) -> Front:
    return Front(FRONT.format(url=url.rstrip("/") + "/", host=preserve_host))


def needs(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


# -- botocore and moto's server, which checks signatures -------------------------------------------------------------


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    needs("moto", "botocore", "boto3", "flask_cors")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        # From the fourth request on everything must be signed, and signed right.
        env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "3"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def listens() -> bool:
        assert process.poll() is None
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        eventually(listens, 30)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_signed_requests_stay_signed(moto: int) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    with front_of(f"http://127.0.0.1:{moto}", preserve_host=True) as front:

        def client(service: str, key: str, secret: str) -> Any:
            style = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
            where = {"endpoint_url": front.url, "region_name": "us-east-1", "config": style}
            return boto3.client(service, aws_access_key_id=key, aws_secret_access_key=secret, **where)  # type: ignore[call-overload]

        iam = client("iam", "setup", "setup")
        iam.create_user(UserName="duck")
        pair = iam.create_access_key(UserName="duck")["AccessKey"]
        policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="duck", PolicyName="all", PolicyDocument=policy)

        with pytest.raises(ClientError) as refused:
            client("s3", pair["AccessKeyId"], "wrong").create_bucket(Bucket="pond")
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403

        s3 = client("s3", pair["AccessKeyId"], pair["SecretAccessKey"])
        s3.create_bucket(Bucket="pond")
        name, body = "a b/ü+c%2F~(1)/x.bin", os.urandom(100_000)
        s3.put_object(Bucket="pond", Key=name, Body=body, Metadata={"who": "duck"})
        got = s3.get_object(Bucket="pond", Key=name)
        assert (got["Body"].read(), got["Metadata"]) == (body, {"who": "duck"})
        part = s3.get_object(Bucket="pond", Key=name, Range="bytes=10-19")
        assert part["Body"].read() == body[10:20]
        assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="pond", Prefix="a b/")["Contents"]] == [name]
        large = os.urandom(11_000_000)
        s3.upload_fileobj(io.BytesIO(large), "pond", "large")
        assert s3.head_object(Bucket="pond", Key="large")["ContentLength"] == len(large)
        s3.delete_object(Bucket="pond", Key=name)


# -- pip and an index of wheels --------------------------------------------------------------------------------------


def wheel(name: str, *requires: str) -> bytes:
    """A wheel of one module and some ballast, so that its index is worth asking for alone."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + "".join(
        f"Requires-Dist: {r}\n" for r in requires
    )
    files = {
        f"{name}.py": b"answer = 42\n",
        f"{name}.bin": os.urandom(200_000),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in files) + f"{info}/RECORD,,\n"
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/RECORD", record)
    return made.getvalue()


class Index:
    """A simple index whose files can be had in parts."""

    def __init__(self) -> None:
        self.files = {
            "/files/pondlife-1.0-py3-none-any.whl": wheel("pondlife", "duckweed"),
            "/files/duckweed-1.0-py3-none-any.whl": wheel("duckweed"),
        }

    def __call__(self, request: Request) -> Answer:
        path = request.target.partition("?")[0]
        if match := re.fullmatch(r"/simple/(\w+)/", path):
            links = [
                f'<a href="/files/{name}#sha256={hashlib.sha256(data).hexdigest()}">{name}</a>'
                for name, data in ((path.rpartition("/")[2], data) for path, data in self.files.items())
                if name.startswith(match[1])
            ]
            return Answer(headers=[("Content-Type", "text/html")], body="<br>".join(links).encode())
        data = self.files.get(path)
        if data is None:
            return Answer(404)
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.header("Range") or "")
        if wanted is None:
            return Answer(headers=[("Accept-Ranges", "bytes")], body=data)
        first = int(wanted[1]) if wanted[1] else len(data) - int(wanted[2])
        last = int(wanted[2]) if wanted[1] and wanted[2] else len(data) - 1
        span = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
        return Answer(206, [("Content-Range", span), ("Accept-Ranges", "bytes")], data[first : last + 1])


def test_pip_installs_through_a_front_and_reads_wheels_in_parts(tmp_path: Path) -> None:
    needs("pip")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env |= {"PIP_CONFIG_FILE": os.devnull, "no_proxy": "127.0.0.1"}
    with EchoOrigin(answer=Index()) as origin, front_of(origin.url) as front:
        command = [
            sys.executable,
            "-m",
            "pip",
            "--isolated",
            "install",
            "--no-cache-dir",
            "--disable-pip-version-check",
        ]
        command += [
            "--use-feature=fast-deps",
            "--index-url",
            f"{front.url}/simple/",
            "--target",
            str(tmp_path / "site"),
        ]
        done = subprocess.run([*command, "pondlife"], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "duckweed.py").read_text() == "answer = 42\n"
    assert any(request.header("Range") for request in origin.requests)


# -- curl --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [[], ["-H", "Transfer-Encoding: chunked"]], ids=["length", "chunks"])
def test_curl_uploads_with_expect(how: list[str], echo: Callable[..., EchoOrigin], tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    body = os.urandom(3_000_000)
    (tmp_path / "body").write_bytes(body)
    origin = echo()
    with front_of(origin.url) as front:
        command = ["curl", "-sS", "--http1.1", "-H", "Expect: 100-continue", "--expect100-timeout", "20", *how]
        began = time.monotonic()
        done = subprocess.run(
            [*command, "-T", str(tmp_path / "body"), f"{front.url}/up"], capture_output=True, timeout=30
        )
        assert time.monotonic() - began < 10, "nobody answered the Expect"
    assert hashlib.sha256(body).hexdigest().encode() in done.stdout
    assert origin.requests[0].header("Expect") is None


# -- httpbin and requests ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def httpbin() -> Iterator[str]:
    needs("httpbin", "requests")
    with Front("httpbin:app", threads=4) as origin, front_of(origin.url) as front:
        yield front.url


def test_requests_and_httpbin(httpbin: str) -> None:
    import requests
    from requests.auth import HTTPDigestAuth

    with requests.Session() as session:
        assert session.get(f"{httpbin}/get?a=1&b=%20").json()["args"] == {"a": "1", "b": " "}
        assert session.post(f"{httpbin}/post", data={"x": "ü"}).json()["form"] == {"x": "ü"}
        assert session.post(f"{httpbin}/post", files={"f": ("n", b"content")}).json()["files"] == {"f": "content"}
        assert session.put(f"{httpbin}/put", json={"k": [1]}).json()["json"] == {"k": [1]}
        assert session.delete(f"{httpbin}/delete").status_code == 200
        for path in ("relative-redirect/3", "absolute-redirect/3", "redirect/2"):
            reply = session.get(f"{httpbin}/{path}")
            assert (reply.status_code, reply.url) == (200, f"{httpbin}/get"), path
        assert session.get(f"{httpbin}/cookies/set?pond=1").json() == {"cookies": {"pond": "1"}}
        assert session.get(f"{httpbin}/gzip").json()["gzipped"] is True
        assert session.get(f"{httpbin}/deflate").json()["deflated"] is True
        assert len(session.get(f"{httpbin}/stream/20").text.splitlines()) == 20
        assert len(session.get(f"{httpbin}/stream-bytes/100000?chunk_size=999").content) == 100_000
        part = session.get(f"{httpbin}/range/1000", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.headers["Content-Range"]) == (206, "bytes 10-19/1000")
        assert session.get(f"{httpbin}/drip?numbytes=5&duration=0.2&delay=0").content == b"*****"
        assert session.get(f"{httpbin}/basic-auth/u/p", auth=("u", "p")).json()["authenticated"] is True
        assert session.get(f"{httpbin}/basic-auth/u/p", auth=("u", "x")).status_code == 401
        digest = HTTPDigestAuth("u", "p")
        assert session.get(f"{httpbin}/digest-auth/auth/u/p", auth=digest).json()["authenticated"] is True
        for status in (200, 204, 304, 400, 404, 418, 500, 503):
            assert session.get(f"{httpbin}/status/{status}").status_code == status
        assert session.get(f"{httpbin}/etag/abc", headers={"If-None-Match": '"abc"'}).status_code == 304
        assert session.head(f"{httpbin}/get").headers["Content-Type"] == "application/json"
        assert (
            session.get(f"{httpbin}/bytes/1000000?seed=1").content
            == session.get(f"{httpbin}/bytes/1000000?seed=1").content
        )
        assert session.get(f"{httpbin}/encoding/utf8").content.decode().count("∀")
        chunks = session.post(f"{httpbin}/post", data=iter([b"ab", b"cd"]))
        assert chunks.json()["data"] == "abcd"
