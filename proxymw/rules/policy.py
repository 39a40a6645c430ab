"""The one value in which "exactly Apache" and "safe and byte-exact" differ."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import ConfigError


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
    #: Control characters in a path (NUL aside): ``refuse``: 400; ``encode``: matched as they are and sent on as ``%0A``
    #: and the like (Apache), which ends no line anywhere.
    controls: Literal["refuse", "encode"] = "refuse"
    #: The forwarding headers that are sent, of X-Forwarded-For, -Host, -Proto, -Prefix, -Server, Forwarded.
    forwarded: tuple[str, ...] = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix")
    #: Append to the values the client sent (Apache) instead of dropping those.
    append_forwarded: bool = False
    #: ProxyVia.
    via: Literal["off", "on", "full", "block"] = "on"
    #: Received-by name in Via and X-Forwarded-Server; empty: ``proxymw``, or the server's name in the apache dialect.
    server_name: str = ""
    #: Ask origins by name to keep the connection, as those that speak HTTP/1.0 need it.
    ask_keep_alive: bool = False
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

    def __post_init__(self) -> None:
        for name, wanted in _words().items():
            if getattr(self, name) not in wanted:
                raise ConfigError(f"{name} must be one of {', '.join(map(repr, wanted))}, got {getattr(self, name)!r}")
        if isinstance(self.forwarded, str):
            raise ConfigError(f"forwarded must be a tuple of header names, got {self.forwarded!r}")

    @classmethod
    def modern(cls) -> Policy:
        return _MODERN

    @classmethod
    def apache(cls) -> Policy:
        return _APACHE

    def but(self, **changes: Any) -> Policy:
        """This policy with some fields changed."""
        unknown = [name for name in changes if name not in {field.name for field in fields(self)}]
        if unknown:
            known = ", ".join(field.name for field in fields(self))
            raise ConfigError(f"a policy has the fields {known}, got {unknown[0]!r}")
        return replace(self, **changes)


def as_policy(policy: Policy | None) -> Policy:
    """``policy``, or the modern one where it is None; ConfigError for anything else."""
    if policy is None:
        return Policy.modern()
    if not isinstance(policy, Policy):
        raise ConfigError(f"policy must be Policy.modern(), Policy.apache() or one made with but(), got {policy!r}")
    return policy


@cache
def _words() -> dict[str, tuple[str, ...]]:
    """The fields that hold one of a few words."""
    hints = get_type_hints(Policy)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


_MODERN = Policy()
_APACHE = Policy(
    spelling="apache",
    encoded_slash="refuse",
    controls="encode",
    forwarded=("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Server"),
    append_forwarded=True,
    via="off",
    ask_keep_alive=True,
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
