"""The one value in which "exactly Apache" and "safe and byte-exact" differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything in which the two dialects differ; every skin and the forwarder take one as ``policy=``.

    ``Policy.modern()`` is the default in Python; ``Policy.apache()`` is what an Apache configuration is loaded with.
    Neither makes anything unsafe. Derive your own with ``policy.but(forwarded=())``.
    """

    #: ``client``: forward the client's own spelling of what follows the prefix; ``apache``: decode and re-encode.
    spelling: Literal["client", "apache"] = "client"
    #: ``keep``: ``%2F`` matches as a slash and is forwarded as sent; ``refuse``: 404 (AllowEncodedSlashes Off);
    #: ``decode``: AllowEncodedSlashes On; ``nodecode``: left as the three characters (NoDecode).
    encoded_slash: Literal["keep", "refuse", "decode", "nodecode"] = "keep"
    #: Runs of slashes count as one when matching (MergeSlashes).
    merge_slashes: bool = True
    #: The forwarding headers that are sent, of X-Forwarded-For, -Host, -Proto, -Prefix, -Server, Forwarded.
    forwarded: tuple[str, ...] = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix")
    #: Append to the values the client sent (Apache) instead of dropping those.
    append_forwarded: bool = False
    #: ProxyVia.
    via: Literal["off", "on", "full", "block"] = "on"
    #: Received-by name in Via and X-Forwarded-Server; empty: ``proxymw``, or the server's name in the apache dialect.
    server_name: str = ""
    #: Answer to an origin that stays silent, to one whose name has no address, to a connect that timed out.
    timeout_status: int = 504
    dns_status: int = 502
    connect_timeout_status: int = 504
    #: ``path``: mapped-back Locations are path-only; ``absolute``: made absolute with the request's Host.
    location: Literal["path", "absolute"] = "path"
    #: ``every``: a pool's member that cannot be reached never ends a request while another could answer it, and a
    #: member taken out of service never keeps the others from being forced back; ``apache``: as mod_proxy_balancer.
    failover: Literal["every", "apache"] = "every"
    #: The authority of those, ``host`` or ``host:port`` (UseCanonicalName On); empty: the request's Host.
    canonical: str = ""
    #: Say Via in responses too, where it is said in requests.
    via_back: bool = False
    #: What the manager answers a change from Apache's form with: a redirect to the page, or the page (Apache).
    manager: Literal["redirect", "page"] = "redirect"
    #: An absolute-form target (RFC 9112 3.2.2) must be for the same host as the Host field, or it ``wins`` over that.
    absolute_form: Literal["same", "wins"] = "same"
    #: ``rfc9110`` or ``apache`` conditionals, ranges, validators and directory redirects of static files.
    static: Literal["rfc9110", "apache"] = "rfc9110"

    @classmethod
    def modern(cls) -> Policy:
        return _MODERN

    @classmethod
    def apache(cls) -> Policy:
        return _APACHE

    def but(self, **changes: Any) -> Policy:
        """This policy with some fields changed."""
        return replace(self, **changes)


_MODERN = Policy()
_APACHE = Policy(
    spelling="apache",
    encoded_slash="refuse",
    forwarded=("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Server"),
    append_forwarded=True,
    via="off",
    timeout_status=502,
    dns_status=500,
    connect_timeout_status=503,
    location="absolute",
    via_back=True,
    failover="apache",
    manager="page",
    absolute_form="wins",
    static="apache",
)
