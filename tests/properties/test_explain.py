"""What explain says and what is really forwarded agree, whatever the rules and the URL."""

from __future__ import annotations

import warnings
from typing import Any
from urllib.parse import unquote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import create_environ, run_wsgi_app

from proxymw import BalancerPool, PrefixProxy, RewriteProxy, RewriteRule
from proxymw.errors import ConfigError
from proxymw.explain import explain
from proxymw.rules.policy import Policy
from proxymw.testing import ScriptedTransport

SEGMENTS = ["a", "b", "ab", "a.b", "%41", "%2F", "..", ".", "", "caf%C3%A9", "a b", "a;x=1", "%3F", "a[1]"]
segments = st.lists(st.sampled_from(SEGMENTS), max_size=4)
urls = segments.map(lambda parts: "/" + "/".join(parts).replace(" ", "%20"))
queries = st.sampled_from(["", "?", "?x=1", "?x=%20&y", "?a=b?c"])
prefixes = st.lists(st.sampled_from(["a", "b", "ab", "a.b", "caf\u00e9"]), max_size=3).flatmap(
    lambda parts: st.sampled_from(["/" + "/".join(parts), "/" + "/".join([*parts, ""])])
)
origins = st.sampled_from(["http://one.example", "http://two.example:81", "https://three.example"])
bases = st.sampled_from(["/", "/x", "/x/", "/x//"])
targets = st.one_of(st.just("!"), st.builds(lambda origin, base: origin + base, origins, bases))
policies = st.sampled_from([Policy.modern(), Policy.apache()])
patterns = st.sampled_from(["^/(.*)$", "^/a/(.*)$", r"^/(.*)\.b$", "b", "^/(a|b)(.*)$", "!^/a", "^/caf"])
rewritten = st.sampled_from(
    ["http://one.example/$1", "http://two.example:81/x/$1?q=$1", "/b/$1", "-", "http://one.example/", "/ab?n=1"]
)
flags = st.sampled_from(["P", "P,NC", "P,QSA", "P,NE", "L", "PT", "R", "R=301,L", "F", "G", "P,B", "C", "S=1", "END"])


def prefix_stack(rules: list[tuple[str, str]], policy: Policy) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return PrefixProxy(None, rules, policy=policy)
        except ConfigError:
            return None


def rewrite_stack(rules: list[tuple[str, str, str]], behind: Any, policy: Policy) -> Any:
    made = []
    for pattern, target, flag in rules:
        try:
            made.append(RewriteRule(pattern, target, flag))
        except ConfigError:
            continue
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return RewriteProxy(behind, made, policy=policy)
        except ConfigError:
            return None


def asked(app: Any, url: str) -> tuple[int, str | None, list[str]]:
    """The status, the Location, and the URLs that origins were asked for."""
    path, _, query = url.partition("?")
    environ = create_environ("/", "http://front.example/", query_string=query)
    environ |= {"RAW_URI": url, "PATH_INFO": unquote(path, encoding="latin-1"), "REMOTE_ADDR": "127.0.0.1"}
    environ.pop("REQUEST_URI")
    with ScriptedTransport() as transport:
        _, status, headers = run_wsgi_app(app, environ, buffered=True)
    return int(status[:3]), headers.get("Location"), [sent.url for sent in transport.sent]


def agree(app: Any, url: str) -> None:
    told = explain(app, "GET", "http://front.example" + url)
    status, location, urls_sent = asked(app, url)
    if told.outcome == "forward":
        assert urls_sent == [told.target]
        return
    assert urls_sent == []
    assert told.status == status
    if told.outcome == "redirect" and location is not None:
        assert location.endswith(told.target)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(prefixes, targets), max_size=6), urls, queries, policies)
def test_prefix_rules(rules: list[tuple[str, str]], path: str, query: str, policy: Policy) -> None:
    app = prefix_stack(rules, policy)
    if app is not None:
        agree(app, path + query)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(patterns, rewritten, flags), max_size=5),
    st.lists(st.tuples(prefixes, targets), max_size=3),
    urls,
    queries,
    policies,
)
def test_rewrite_rules_before_prefix_rules(
    rules: list[tuple[str, str, str]], passes: list[tuple[str, str]], path: str, query: str, policy: Policy
) -> None:
    app = rewrite_stack(rules, prefix_stack(passes, policy), policy)
    if app is not None:
        agree(app, path + query)


def test_explaining_changes_no_counter() -> None:
    pool = BalancerPool(["http://one.example", "http://two.example"], name="explained")
    app = PrefixProxy(None, [("/", pool)])
    before = pool.snapshot()
    for _ in range(5):
        told = explain(app, "GET", "http://front.example/x")
        assert [member.eligible for member in told.members] == [True, True]
    after = pool.snapshot()
    assert [m.requests for m in after.members] == [m.requests for m in before.members] == [0, 0]
    assert told.target == "balancer://explained/x"
