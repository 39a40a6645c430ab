"""The guide's five cases as one front: ``gunicorn demo.front:app``. Copy what you need.

Each block stands for the Apache lines above it. The origins are the guide's hosts, on loopback here: put your own
``"http://host:port"`` where it says ``url(...)``.
"""

import os
from pathlib import Path
from wsgiref.types import WSGIApplication

from demo.origins import APPS, awake, url
from proxymw import (
    AccessLog,
    BalancerManagerApp,
    BalancerPool,
    IPAllowlist,
    Member,
    PrefixProxy,
    RewriteProxy,
    StaticOrPass,
    VirtualHosts,
)

FILES = Path(__file__).parent / "files"
LOGS = Path(os.environ.get("DEMO_LOGS", Path(__file__).parent / "run"))

static = url("static.ducklington.org")
media = url("media.ducklington.org")
application = url("application.ducklington.org")
legacy = url("app.ducklington.org")


# Case one: a host of files, and a host of programs, each with its logs
#     DocumentRoot /srv/www/static.ducklington.org/public_html/
static_site = StaticOrPass(None, FILES / "static.ducklington.org", index=("index.html",))
local_files = StaticOrPass(None, FILES / "ducklington.org", index=("index.html",))


# Case two: directories live on other machines
#     ProxyPass /static/ http://static.ducklington.org/      (and three more; the exclusion comes first)
delegated = [
    ("/static/", f"{static}/"),
    ("/media", media),
    ("/wiki/static/", "!"),
    ("/wiki/", f"{application}/"),
]
two = PrefixProxy(local_files, delegated)


# Case three: only some requests go to a back end
#     RewriteRule ^/blog/(.*)\.php$ http://app.ducklington.org/blog/$1.php [proxy]
#     ProxyPassReverse /blog/ http://app.ducklington.org/blog/
php_pages = [(r"^/blog/(.*)\.php$", f"{legacy}/blog/$1.php")]
php_redirects = [("/blog/", f"{legacy}/blog/")]
three = RewriteProxy(
    local_files,
    [
        (r"^/(.*)\.js$", f"{static}/javascript/$1.js"),
        (r"^/(.*)\.css$", f"{static}/styles/$1.css"),
        (r"^/(.*)\.jpg$", f"{static}/images/$1.jpg"),
        (r"^/blog/(.*)\.php$", f"{legacy}/wordpress/$1.php"),
        (r"^/wiki/(.*)$", f"{legacy}/mediawiki/$1"),
    ],
)


# Case four: what is not a file here goes to the application
#     RewriteCond /srv/www/ducklington.org/public_html%{REQUEST_FILENAME} !-f
#     RewriteRule ^/(.*)$ http://app.ducklington.org/$1 [proxy]
everything_else = RewriteProxy(None, [(r"^/(.*)$", f"{legacy}/$1")])
four = StaticOrPass(everything_else, FILES / "ducklington.org")


# Case five: a cluster, and its manager for this machine alone
#     <Proxy balancer://cluster> BalancerMember http://app1.ducklington.org ...
#     ProxyPass / balancer://cluster/ lbmethod=byrequests
#     <Location /balancer-manager> SetHandler balancer-manager; Deny from all; Allow from 192.168.1.233
members = [Member(url(name), route=name.partition(".")[0]) for name in APPS]  # app1 ... app5
cluster = BalancerPool(members, name="cluster", method="byrequests")
manager = IPAllowlist(BalancerManagerApp([cluster]), allow=["127.0.0.1", "::1"])
five = PrefixProxy(None, [("/balancer-manager", manager), ("/", cluster)])


# All of it on one site, and each case by itself under a host name of its own
files_or_app = StaticOrPass(everything_else, FILES / "ducklington.org", index=("index.html",))
ducklington = PrefixProxy(
    RewriteProxy(files_or_app, php_pages, reverse=php_redirects),
    [*delegated, ("/cluster/", cluster), ("/balancer-manager", manager)],
)


def site(app: WSGIApplication, name: str) -> AccessLog:
    return AccessLog(app, LOGS / name / "access.log", errors=LOGS / name / "error.log")


main_site = site(ducklington, "ducklington.org")
hosts = VirtualHosts(
    {
        ("ducklington.org", "www.ducklington.org"): main_site,
        ("static.ducklington.org", "static.localhost"): site(static_site, "static.ducklington.org"),
        ("case2.ducklington.org", "case2.localhost"): two,
        ("case3.ducklington.org", "case3.localhost"): three,
        ("case4.ducklington.org", "case4.localhost"): four,
        ("case5.ducklington.org", "case5.localhost"): five,
    },
    default=main_site,
)
app = awake(hosts)  # starts the origins in this process, unless `python3 -m demo` has started them
