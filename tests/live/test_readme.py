"""The README's code runs as it is written there; only addresses and folders are replaced."""

from __future__ import annotations

import re

import pytest

from tests.origins import ROOT, Front

pytestmark = pytest.mark.live

README = (ROOT / "README.md").read_text()


def block(heading: str) -> str:
    """The Python under a heading."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)


def served(front, echo, source: str, tmp_path, **options) -> Front:
    """`source` under gunicorn, with an origin for each port that it names."""
    root = tmp_path / "public_html"
    root.mkdir()
    (root / "style.css").write_text("body {}")
    source = source.replace("/srv/www/public_html", str(root))
    for port in sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", source))):
        source = source.replace(f"127.0.0.1:{port}", f"127.0.0.1:{echo(port).port}")
    return front(source, cwd=tmp_path, **options)


def test_flask(front, echo, tmp_path):
    site = served(front, echo, block("Flask"), tmp_path)
    assert site.get("/hello").text == "Hello from Flask"
    assert site.get("/style.css").text == "body {}"
    assert site.get("/wiki/a?b").json()["target"] == "/a?b"
    assert site.get("/nowhere").status == 404


def test_flask_test_client_still_works(echo, tmp_path):
    names: dict = {}
    source = block("Flask").replace("/srv/www/public_html", str(tmp_path))
    exec(source.replace("127.0.0.1:9103", f"127.0.0.1:{echo('wiki').port}"), {"__name__": "site"}, names)
    client = names["app"].test_client()
    assert client.get("/hello").text == "Hello from Flask"
    assert client.get("/wiki/a").json["origin"] == "wiki"


DJANGO = """
import django.conf
from django.http import HttpResponse
from django.urls import path

def hello(request):
    return HttpResponse(f"Hello from Django at {request.get_host()}: {len(request.body)}")

urlpatterns = [path("hello", hello)]
django.conf.settings.configure(
    ROOT_URLCONF=__name__, SECRET_KEY="only for this test", ALLOWED_HOSTS=["*"], MIDDLEWARE=[]
)
"""


def test_django(front, echo, tmp_path):
    site = served(front, echo, DJANGO + block("Django") + "\napp = application\n", tmp_path)
    reply = site.get("/hello", method="POST", body=b"data", host="ducklington.org")
    assert reply.text == "Hello from Django at ducklington.org: 4"
    assert site.get("/style.css").text == "body {}"
    assert [site.get("/reports/x").json()["origin"] for _ in range(4)] == ["9001", "9002", "9001", "9002"]
    assert site.get("/reports/x").json()["target"] == "/x"
    assert site.get("/nowhere").status == 404


def test_standalone(front, echo, tmp_path):
    site = served(front, echo, block("Standalone"), tmp_path, workers=2, args=["--preload"])
    served_by = [site.get("/").json()["origin"] for _ in range(8)]
    assert served_by.count("9001") == 6
    assert "cluster" in site.get("/balancer-manager/").text
    assert site.get("/balancer-manager/", source="127.0.0.2").status == 403
    assert (tmp_path / "access.log").exists()


def test_the_assertions_hold_for_the_standalone_front(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "site"}
    exec(block("Standalone") + block("Test it"), names)
    names["test_routes"]()


def test_pictures_and_pages_that_are_named_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)|(?:src|srcset)=\"([^\"]+)\"", README):
        assert (ROOT / "".join(target)).exists(), target


def test_the_demo_prints_what_the_readme_shows():
    from demo.launcher import welcome

    assert welcome(8000) in README


def test_every_name_of_the_directive_table_is_public():
    import proxymw

    table = README.split("\n## Which directive is which\n")[1].split("\n## ")[0]
    code = " ".join(line.split("|")[2] for line in table.splitlines() if line.startswith("| `"))
    names = set(re.findall(r"\b([A-Z]\w+)(?=\(|`)", code))
    assert len(names) >= 14
    assert names <= set(proxymw.__all__)
