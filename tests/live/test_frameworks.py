"""Flask, Django and Pyramid as they are deployed: two real servers, or one process with both."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.origins import ROOT

pytestmark = pytest.mark.live

FLASK = """
    from flask import Flask, redirect, request, session, url_for
    from werkzeug.middleware.proxy_fix import ProxyFix

    app = Flask(__name__)
    app.secret_key = "only for this test"

    @app.route("/hello")
    def hello():
        session["seen"] = 1
        return f"{url_for('hello')} {url_for('hello', _external=True)} {request.remote_addr}"

    @app.route("/old")
    def old():
        return redirect(url_for("hello"))

    @app.route("/upload", methods=["POST"])
    def upload():
        return str(len(request.get_data()))
"""


def test_flask_in_the_same_process_below_a_prefix(front):
    site = front(
        FLASK
        + """
    from proxymw import PrefixProxy
    app = PrefixProxy(None, [("/shop/", app)])
    """
    )
    reply = site.get("/shop/hello", host="ducklington.org")
    assert reply.text == "/shop/hello http://ducklington.org/shop/hello 127.0.0.1"
    assert site.get("/shop/old").header("Location") == "/shop/hello"
    assert site.get("/shop/upload", method="POST", body=b"x" * 300_000).text == "300000"
    assert site.get("/hello").status == 404


def test_flask_in_another_process_below_a_prefix(front):
    flask = front(FLASK + "    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1)\n")
    site = front(f"""
    from proxymw import PrefixProxy
    app = PrefixProxy(None, [("/shop/", "{flask.url}/")])
    """)
    forged = {"X-Forwarded-Prefix": "/evil", "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Host": "evil.example"}
    reply = site.get("/shop/hello", host="ducklington.org", headers=forged)
    assert reply.text == "/shop/hello http://ducklington.org/shop/hello 127.0.0.1"
    assert "Path=/shop" in reply.header("Set-Cookie")
    assert site.get("/shop/old").header("Location") == "/shop/hello"
    assert site.get("/shop/upload", method="POST", body=b"x" * 300_000).text == "300000"


def test_flask_that_knows_of_no_proxy_has_its_redirects_mapped(front):
    flask = front(FLASK)
    site = front(f"""
    from proxymw import PrefixProxy
    app = PrefixProxy(None, [("/shop/", "{flask.url}/")])
    """)
    assert site.get("/shop/old").header("Location") == "/shop/hello"
    assert "Path=/shop" in site.get("/shop/hello").header("Set-Cookie")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A Django project as startproject makes one, in short, with static files collected."""
    package = tmp_path / "myproject"
    (tmp_path / "static" / "css").mkdir(parents=True)
    (tmp_path / "static" / "css" / "site.0a1b2c3d.css").write_text("p {}")
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text(f"""
SECRET_KEY = "only for this test"
ALLOWED_HOSTS = ["ducklington.org", "127.0.0.1"]
CSRF_TRUSTED_ORIGINS = ["https://ducklington.org"]
ROOT_URLCONF = "myproject.urls"
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware",
              "django.middleware.csrf.CsrfViewMiddleware"]
INSTALLED_APPS = ["django.contrib.staticfiles"]
STATIC_URL = "/static/"
STATIC_ROOT = {str(tmp_path / "static")!r}
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = __import__("os").environ.get("SSL_REDIRECT") == "1"
USE_X_FORWARDED_HOST = True
""")
    (package / "urls.py").write_text("""
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.urls import path, reverse

def hello(request):
    return HttpResponse(f"{request.method} {request.build_absolute_uri(reverse('hello'))} {request.is_secure()}")

def form(request):
    return HttpResponse(get_token(request))

urlpatterns = [path("hello/", hello, name="hello"), path("form/", form), path("reports/", hello)]
""")
    return tmp_path


WSGI = """
    import os, sys
    sys.path.insert(0, {folder!r})
    os.environ["DJANGO_SETTINGS_MODULE"] = "myproject.settings"
    from django.core.wsgi import get_wsgi_application
    from proxymw import ClientAddress, PrefixProxy, StaticOrPass
    application = get_wsgi_application()
"""


def test_django_with_its_files_and_a_path_that_moved(front, echo, project):
    source = (
        WSGI.format(folder=str(project))
        + f"""
    application = PrefixProxy(application, [("/reports/", "{echo("reports").url}/")])
    app = StaticOrPass(application, {str(project / "static")!r}, prefix="/static/", immutable=True)
    """
    )
    site = front(source)
    assert site.get("/hello/", host="ducklington.org").text == "GET http://ducklington.org/hello/ False"
    style = site.get("/static/css/site.0a1b2c3d.css")
    assert (style.text, style.header("Cache-Control")) == ("p {}", "max-age=31536000, public, immutable")
    assert site.get("/static/none.css", host="ducklington.org").status == 404
    assert site.get("/reports/2026").json()["origin"] == "reports"
    # Django's own redirect to the trailing slash, and its check of the host.
    assert site.get("/hello", host="ducklington.org").header("Location") == "/hello/"
    assert site.get("/hello/", host="evil.example").status == 400


def test_django_as_origin_believes_the_front_and_nobody_else(front, project):
    django = front(WSGI.format(folder=str(project)) + "    app = application\n", env={"SSL_REDIRECT": "1"})
    site = front(f"""
    from proxymw import ClientAddress, PrefixProxy
    app = PrefixProxy(None, [("/", "{django.url}/")])
    app = ClientAddress(app, trusted=["127.0.0.2"], proto="X-Forwarded-Proto")
    """, args=["--forwarded-allow-ips", ""])  # fmt: skip
    secure = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "81.2.69.142"}
    believed = site.get("/hello/", host="ducklington.org", headers=secure, source="127.0.0.2")
    assert believed.text == "GET https://ducklington.org/hello/ True"
    claimed = site.get("/hello/", host="ducklington.org", headers=secure)
    assert (claimed.status, claimed.header("Location")) == (301, "https://ducklington.org/hello/")
    # A form over https: Origin is compared with the host that the front passed on.
    token = site.get("/form/", host="ducklington.org", headers=secure, source="127.0.0.2")
    cookie = token.header("Set-Cookie").split(";")[0]
    sent = {**secure, "Cookie": cookie, "X-CSRFToken": token.text, "Origin": "https://ducklington.org"}
    sent["Referer"] = "https://ducklington.org/form/"
    answer = site.get("/hello/", method="POST", body=b"", host="ducklington.org", headers=sent, source="127.0.0.2")
    assert answer.text == "POST https://ducklington.org/hello/ True"


def test_django_runserver_goes_through_the_stack(project):
    """`runserver` takes WSGI_APPLICATION."""
    import subprocess

    (project / "myproject" / "wsgi.py").write_text(
        WSGI.format(folder=str(project)).replace("\n    ", "\n")
        + "application = StaticOrPass(application, STATIC)\n".replace("STATIC", repr(str(project / "static")))
    )
    settings = project / "myproject" / "settings.py"
    settings.write_text(settings.read_text() + 'WSGI_APPLICATION = "myproject.wsgi.application"\n')
    code = """
from django.core.servers.basehttp import get_internal_wsgi_application
import django
django.setup()
print(get_internal_wsgi_application())
"""
    environ = {"DJANGO_SETTINGS_MODULE": "myproject.settings", "PYTHONPATH": f"{project}:{ROOT}", "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert "<StaticOrPass / from" in done.stdout, done.stderr


def test_pyramid_from_an_ini_file(front, echo, tmp_path):
    pytest.importorskip("pyramid")
    pytest.importorskip("paste.deploy")
    (tmp_path / "shop.py").write_text("""
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response

def main(global_conf, **settings):
    config = Configurator(settings=settings)
    config.add_route("pond", "/pond")
    config.add_route("old", "/old")
    config.add_view(lambda request: Response(request.route_url("pond")), route_name="pond")
    config.add_view(lambda request: HTTPFound(request.route_path("pond")), route_name="old")
    return config.make_wsgi_app()
""")
    (tmp_path / "site.ini").write_text(f"""
[composite:main]
paste.composite_factory = proxymw.paste:routes
/wiki/static/ = !
/wiki/ = {echo("wiki").url}/
/shop/ = shop
/app/ = cluster
app = files

[app:shop]
paste.app_factory = shop:main

[app:cluster]
paste.app_factory = proxymw.paste:pool
name = inifile
members =
    {echo("app1").url} loadfactor=2
    {echo("app2").url}

[app:files]
paste.app_factory = proxymw.paste:pool
name = files
members = {echo("files").url}
""")
    site = front(f"""
    import sys
    sys.path.insert(0, {str(tmp_path)!r})
    from paste.deploy import loadapp
    app = loadapp("config:{tmp_path}/site.ini")
    """)
    assert site.get("/wiki/a").json()["origin"] == "wiki"
    assert site.get("/wiki/static/a").json()["origin"] == "files"
    assert [site.get("/app/").json()["origin"] for _ in range(3)].count("app1") == 2
    assert site.get("/shop/pond", host="ducklington.org").text == "http://ducklington.org/shop/pond"
    # Pyramid makes its Location absolute.
    assert site.get("/shop/old", host="ducklington.org").header("Location").endswith("/shop/pond")


def test_gunicorn_serves_an_apache_file(front, echo, tmp_path):
    (tmp_path / "site.conf").write_text(f"ProxyPass /wiki/ {echo('wiki').url}/\n")
    site = front("proxymw:from_file('site.conf')", cwd=tmp_path)
    assert site.get("/wiki/a").json()["origin"] == "wiki"
    assert site.get("/other").status == 404
