"""What can go wrong, each error saying whose fault it was and which status answers it."""

from __future__ import annotations


class ConfigError(ValueError):
    """A constructor was given something it cannot work with. The message reads ``name must be X, got Y``."""


class ConfigWarning(UserWarning):
    """A configuration works but says something that is probably not meant, such as a rule that can never apply."""


class RequestRefused(Exception):
    """The client sent what cannot be mapped or forwarded safely.

    ``status`` answers it (400, 403, 404, 405, 413, 417, 431 or 501), ``event`` names it in the log, ``headers`` are
    added to the answer (``Allow`` with a 405), ``text`` is its page where the reason phrase says too little.
    """

    text: str | None = None

    def __init__(self, status: int, event: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{status} {event}")
        self.status = status
        self.event = event
        self.headers = headers


class UpstreamError(Exception):
    """An exchange with an origin failed.

    The class says everything that is decided about the failure: ``status`` answers the client, ``may_have_run`` is
    whether the origin may already have acted on the request, ``connect_level`` whether no request byte can have
    reached it (so that the next member may be tried, whatever the method), ``proxy_status`` is the RFC 9209 error
    type, ``event`` the name in the log.
    """

    status = 502
    may_have_run = True
    connect_level = False
    proxy_status = "proxy_internal_error"
    event = "upstream_error"
    #: Whether a byte of an answer had come. Set on the instance by whoever raises it.
    answered = False
    #: Whether the connection had served an earlier request, and may only have gone stale.
    reused = False
    #: Seconds for ``Retry-After``, where waiting helps.
    retry_after: int | None = None


class ConnectRefused(UpstreamError):
    """Nothing listens at the origin's address, or the host is unreachable."""

    status, may_have_run, connect_level = 503, False, True
    proxy_status, event = "connection_refused", "upstream_refused"


class ConnectTimeout(UpstreamError):
    """The connection was not made in time."""

    status, may_have_run, connect_level = 504, False, True
    proxy_status, event = "connection_timeout", "upstream_connect_timeout"


class NameUnresolved(UpstreamError):
    """The origin's name has no address."""

    status, may_have_run, connect_level = 502, False, True
    proxy_status, event = "dns_error", "upstream_dns"


class TLSRefused(UpstreamError):
    """The TLS handshake failed, or the certificate was not accepted."""

    status, may_have_run, connect_level = 502, False, True
    proxy_status, event = "tls_certificate_error", "upstream_tls"


class PoolExhausted(UpstreamError):
    """All connections to the origin were in use for longer than the pool lets a request wait."""

    status, may_have_run, connect_level = 503, False, True
    proxy_status, event, retry_after = "connection_limit_reached", "upstream_pool_full", 1


class OutOfFiles(UpstreamError):
    """This process has no file descriptor left."""

    status, may_have_run, connect_level = 503, False, False
    proxy_status, event, retry_after = "proxy_internal_error", "out_of_files", 1


class NoMember(UpstreamError):
    """No member of the pool is usable, or all are at their limit."""

    status, may_have_run = 503, False
    proxy_status, event, retry_after = "destination_unavailable", "no_member", 1


class ConnectionReset(UpstreamError):
    """The origin closed or reset the connection before a whole response head had come."""

    proxy_status, event = "connection_terminated", "upstream_reset"


class ResponseMalformed(UpstreamError):
    """The origin's answer is not an HTTP/1.x response that can be passed on safely."""

    proxy_status, event = "http_protocol_error", "upstream_malformed"


class ResponseTooLarge(ResponseMalformed):
    """The head of the origin's answer is over a cap."""

    proxy_status, event = "http_response_header_section_size", "upstream_head_too_large"


class FirstByteTimeout(UpstreamError):
    """No answer within the time for its first byte, or no whole head within the total for it."""

    status = 504
    proxy_status, event = "http_response_timeout", "upstream_timeout"


class BodyTimeout(UpstreamError):
    """The origin stopped sending, or taking, a body."""

    status = 504
    proxy_status, event = "http_response_timeout", "upstream_body_timeout"


class BodyTruncated(UpstreamError):
    """The origin's body ended before its length or last chunk."""

    proxy_status, event = "http_response_incomplete", "upstream_truncated"


class ClientAborted(UpstreamError):
    """The client's body ended before its declared length; the exchange cannot be finished."""

    status = 400
    proxy_status, event = "http_request_error", "client_aborted"
