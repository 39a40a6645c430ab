"""One exchange, whoever asked for it: lease, send, try again where that is safe, stream, end everything once."""

from __future__ import annotations

import errno
import logging
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, Protocol

from proxymw.errors import (
    ClientAborted,
    ConfigError,
    ConnectTimeout,
    FirstByteTimeout,
    NameUnresolved,
    NoMember,
    RequestRefused,
    UpstreamError,
)
from proxymw.exchange.applications import call_app
from proxymw.exchange.clientside import client_watch, show_cut
from proxymw.exchange.events import event_line, request_values
from proxymw.exchange.inbound import ALLOW, answer, check, public_url, refuse
from proxymw.exchange.limits import Limits
from proxymw.exchange.request import Request, RequestWriter
from proxymw.exchange.transport import Sender, default_transport
from proxymw.exchange.tunnel import NotSwitched, Switched, Tunnel, Tunnels
from proxymw.rules.headers import HeaderList, status_line
from proxymw.rules.options import check_count, flag, instance
from proxymw.rules.policy import Policy
from proxymw.rules.retrying import RetryBudget, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from proxymw.exchange.connection import Interim
    from proxymw.exchange.response import Response
    from proxymw.rules.origins import Origin
    from proxymw.rules.reversing import ReverseMap

_log: Final = logging.getLogger("proxymw.upstream")


class Lease(Protocol):
    """One member held for one attempt. ``finish`` is called exactly once for each lease."""

    @property
    def origin(self) -> Origin: ...
    @property
    def app(self) -> WSGIApplication | None:
        """Where the member is a WSGI application: it is called instead of sending to ``origin``."""

    @property
    def name(self) -> str: ...
    @property
    def pool(self) -> str: ...
    @property
    def limits(self) -> Limits | None: ...
    @property
    def set_headers(self) -> HeaderList:
        """Fields to add to the response, such as a sticky cookie."""

    def finish(
        self,
        error: UpstreamError | None = None,
        *,
        status: int = 0,
        sent: int = 0,
        received: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """The attempt is over. ``sent`` counts the request's bytes, ``received`` the status line and the body."""


class Destination(Protocol):
    """Where a rule sends: one origin, or a pool that picks a member."""

    def lease(self, environ: WSGIEnvironment, tried: tuple[Any, ...]) -> Lease:
        """A member for this request, other than those of the leases ``tried``. Raises ``NoMember``."""


class SingleOrigin:
    """The destination that is one origin. Its lease is itself: there is nothing to count."""

    __slots__ = ("limits", "name", "origin")
    app: WSGIApplication | None = None
    pool = ""
    set_headers: HeaderList = []  # noqa: RUF012 (never changed)

    def __init__(self, origin: Origin, *, limits: Limits | None = None) -> None:
        self.origin = origin
        self.name = origin.url
        self.limits = limits

    def __repr__(self) -> str:
        return f"<SingleOrigin {self.origin}>"

    def lease(self, environ: WSGIEnvironment, tried: tuple[Any, ...]) -> SingleOrigin:
        return self

    def finish(
        self,
        error: UpstreamError | None = None,
        *,
        status: int = 0,
        sent: int = 0,
        received: int = 0,
        seconds: float = 0.0,
    ) -> None:
        pass


@dataclass(frozen=True, slots=True)
class ForwardOptions:
    """How a rule wants its requests forwarded.

    ``preserve_host`` sends the client's Host, ``host`` another one; else it is the target's. ``reverse`` maps the
    response's Location and cookies back. ``prefix`` is the public prefix, for X-Forwarded-Prefix. Seconds as in
    ``Limits``; they go before those of a member. ``websocket``: whether WebSockets pass, or which upgrades do.
    """

    preserve_host: bool = False
    host: str | None = None
    reverse: ReverseMap | None = None
    prefix: str = ""
    connect: float | None = None
    first_byte: float | None = None
    between_bytes: float | None = None
    total: float | None = None
    websocket: bool | Tunnels = True
    #: The clocks above, or None where none is given.
    limits: Limits | None = field(init=False, compare=False, repr=False)
    #: What ``websocket`` stands for.
    tunnels: Tunnels | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.host is not None and (not isinstance(self.host, str) or not _is_authority(self.host)):
            raise ConfigError(f"host must be a host name with or without a port, got {self.host!r}")
        flag("preserve_host", self.preserve_host)
        clocks = (self.connect, self.first_byte, self.between_bytes, self.total)
        object.__setattr__(self, "limits", Limits(*clocks) if any(c is not None for c in clocks) else None)
        if not isinstance(self.websocket, (bool, Tunnels)):
            raise ConfigError(f"websocket must be True, False or Tunnels(...), got {self.websocket!r}")
        tunnels = Tunnels() if self.websocket is True else self.websocket or None
        object.__setattr__(self, "tunnels", tunnels)


def _is_authority(text: str) -> bool:
    from proxymw.rules.hosts import split_authority

    return split_authority(text) is not None


DEFAULT: Final = ForwardOptions()


class Forwarder:
    """Forwards requests; one for each skin that does.

    The origin's Date and Server are passed on, except that gunicorn and werkzeug's server put their own in their place;
    Date is added where it is missing. Fields that a front server would act on (X-Accel-Redirect, X-Sendfile) stay here.
    A body that breaks off raises ``ConnectionResetError`` out of the iterable, so that the client's connection is
    dropped: only an HTTP/1.0 client, where the origin gave no length, cannot tell that from an end. ``early_hints``
    hands the Link fields of a 103 to a server that takes them (``wsgi.early_hints``); other interim responses end here,
    and so do trailers, of requests and responses, with their Trailer field. ``max_body``: 413 for a larger one.
    ``client_pause``: 408 for a client that sends nothing of its body for so many seconds, under gunicorn.
    """

    def __init__(
        self,
        *,
        transport: Sender | None = None,
        policy: Policy | None = None,
        retry: RetryPolicy | None = None,
        max_body: int | None = None,
        early_hints: bool = True,
        client_pause: float | None = 10.0,
    ) -> None:
        if transport is not None and not callable(getattr(transport, "send", None)):
            raise ConfigError(f"transport must be a Transport, got {transport!r}")
        check_count("max_body", max_body)
        self._given_transport = transport
        self.policy = policy or Policy.modern()
        self.retry = instance("retry", retry, RetryPolicy) or RetryPolicy()
        self.early_hints = early_hints
        self._budget = RetryBudget(self.retry.budget)
        self._writer = RequestWriter(self.policy, max_body=max_body, client_pause=client_pause)

    @property
    def transport(self) -> Sender:
        return self._given_transport or default_transport()

    def __call__(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        destination: Destination,
        target: str,
        options: ForwardOptions = DEFAULT,
    ) -> Iterable[bytes]:
        """Forward the request to ``destination`` as ``target``: origin-form, query included.

        Answers for itself where there is no response: the refusal of the request, or the status of the failure.
        """
        try:
            if "proxymw.checked" not in environ:
                check(environ, self.policy)
            if environ.get("HTTP_MAX_FORWARDS") == "0" and environ["REQUEST_METHOD"] == "OPTIONS":
                return answer(environ, start_response, 200, allow=ALLOW)
            host = environ.get("HTTP_HOST") if options.preserve_host else options.host
            request = self._writer.request(environ, target, host=host, prefix=options.prefix)
            request.gone = client_watch(environ)
            if "HTTP_UPGRADE" in environ and options.tunnels is not None and request.stream is None:
                upgrade = options.tunnels.asked(environ)
                if upgrade is not None:
                    request.ask(upgrade)
            exchange = self._exchange(environ, destination, request, options)
        except RequestRefused as refusal:
            return _unswitched(environ, refuse(environ, start_response, refusal))
        except UpstreamError as error:
            return _unswitched(environ, self._fail(environ, start_response, error))
        lease, response, began = exchange
        if response is None:
            return call_app(environ, start_response, lease, request, options.prefix)
        if isinstance(response, Switched):
            return self._tunnel(environ, start_response, lease, response, options, began)
        body = self._deliver(environ, start_response, lease, response, options, began)
        return body if request.upgrade is None else NotSwitched(environ, body)

    def _exchange(
        self, environ: WSGIEnvironment, destination: Destination, request: Request, options: ForwardOptions
    ) -> tuple[Lease, Response | None, float]:
        """Try members until one answers. Raises the first true error. No response: the member is an application."""
        began = time.monotonic()
        self._budget.deposit()
        tried: tuple[Lease, ...] = ()
        failures: list[UpstreamError] = []
        # An answer with a retryable status: it stands unless another member gives one.
        kept: tuple[Lease, Response, float] | None = None
        while True:
            try:
                lease = destination.lease(environ, tried)
            except NoMember as error:
                if kept is not None:
                    return kept
                raise failures[0] if failures else error from None
            if lease.app is not None:
                if kept is not None:
                    _finish(*kept)
                _note(environ, lease, len(tried) + 1, began)
                return lease, None, began
            try:
                response = self._send(environ, lease, request, options)
            except UpstreamError as error:
                lease.finish(error, seconds=time.monotonic() - began)
                failures.append(error)
                tried += (lease,)
                _note(environ, lease, len(tried), began)
                if kept is not None:
                    return kept
                if not self._again(failures, request, lease):
                    raise failures[0] from None
                _log_attempt(environ, lease, error)
            except BaseException:
                # Refused while its body came, or this worker is being stopped: not the member's fault.
                lease.finish(ClientAborted("given up"), seconds=time.monotonic() - began)
                if kept is not None:
                    _finish(*kept)
                raise
            else:
                _note(environ, lease, len(tried) + 1, began)
                if kept is not None:
                    _finish(*kept)
                elif response.status in self.retry.statuses and self._elsewhere(request, lease):
                    kept = lease, response, began
                    tried += (lease,)
                    continue
                return lease, response, began

    def _send(self, environ: WSGIEnvironment, lease: Lease, request: Request, options: ForwardOptions) -> Response:
        """One attempt, with the lease held."""
        limits = lease.limits
        if options.limits is not None:
            limits = options.limits.over(limits)
        interim = _hints(environ["wsgi.early_hints"]) if self.early_hints and "wsgi.early_hints" in environ else None
        request.wrote = getattr(lease, "wrote", None)
        transport = self._given_transport or default_transport()
        own = request.upgrade is not None or not _replaces_date(environ)
        return transport.send(lease.origin, request, limits, interim=interim, own=own)

    def _again(self, failures: list[UpstreamError], request: Request, lease: Lease) -> bool:
        """Whether the request goes out once more: it cannot have run, or running it twice is harmless."""
        error = failures[-1]
        if error.connect_level:
            # A single origin would refuse again.
            more = len(failures) <= self.retry.failover and not isinstance(lease, SingleOrigin)
            return more and request.replayable
        replays = sum(not failure.connect_level for failure in failures) - 1
        may = self.retry.may_replay(error, method=request.method, replayable=request.replayable, replays=replays)
        # That a pooled connection had gone stale says nothing about the origin.
        return may and (error.reused or self._budget.withdraw())

    def _elsewhere(self, request: Request, lease: Lease) -> bool:
        """Whether a request that was answered may be given to another member."""
        may = request.replayable and self.retry.repeatable(request.method) and not isinstance(lease, SingleOrigin)
        return may and request.upgrade is None and self._budget.withdraw()

    def _deliver(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        lease: Lease,
        response: Response,
        options: ForwardOptions,
        began: float,
    ) -> Iterable[bytes]:
        """Send the head on, and the body as it comes. From here on a failure can only be shown as a cut."""
        try:
            start_response(status_line(response.status), self._headers(environ, lease, response, options))
        except BaseException:
            _finish(lease, response, began)
            raise
        if response.body is None:
            return _Body(environ, lease, response, began)
        _finish(lease, response, began)
        return [response.body]

    def _tunnel(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        lease: Lease,
        response: Switched,
        options: ForwardOptions,
        began: float,
    ) -> Iterable[bytes]:
        """Switch protocols: the lease lasts until both ends have closed. Its time is that of the handshake."""
        answered = time.monotonic()
        headers = self._headers(environ, lease, response, options)
        assert options.tunnels is not None

        def finish() -> None:
            _finish(lease, response, began, until=answered)

        try:
            tunnel = Tunnel(environ, response, headers, options.tunnels, finish)
        except RequestRefused as refusal:
            finish()
            return _unswitched(environ, refuse(environ, start_response, refusal))
        start_response(status_line(101), headers)
        return tunnel

    def _headers(
        self, environ: WSGIEnvironment, lease: Lease, response: Response, options: ForwardOptions
    ) -> HeaderList:
        headers = response.headers
        if options.reverse is not None and response.mapped:
            public = public_url(environ, self.policy)
            script_name = environ.get("SCRIPT_NAME", "")
            headers = options.reverse.apply(
                headers, origin=lease.origin, script_name=script_name, public=public, policy=self.policy
            )
        if not response.dated and not _replaces_date(environ):
            headers = [*headers, ("Date", formatdate(usegmt=True))]
        if lease.set_headers:
            headers = [*headers, *lease.set_headers]
        if self.policy.via_back and self._writer.forwarding.via in ("on", "full"):
            version = environ.get("SERVER_PROTOCOL", "HTTP/1.1").removeprefix("HTTP/")
            headers = [*headers, ("Via", self._writer.forwarding.via_field(version, host=environ.get("HTTP_HOST", "")))]
        return headers

    def _fail(self, environ: WSGIEnvironment, start_response: StartResponse, error: UpstreamError) -> list[bytes]:
        """The answer to a failed exchange, and its line in the log."""
        status = self._status(error)
        member = environ.get("proxymw.member")
        _log.warning(event_line(error.event, status=status, **request_values(environ), upstream=member, error=error))
        headers = [("Proxy-Status", f"proxymw; error={error.proxy_status}")]
        if error.retry_after is not None:
            headers.append(("Retry-After", str(error.retry_after)))
        return answer(environ, start_response, status, headers=headers)

    def _status(self, error: UpstreamError) -> int:
        if isinstance(error, ConnectTimeout):
            return self.policy.connect_timeout_status
        if isinstance(error, FirstByteTimeout):
            return self.policy.timeout_status
        if isinstance(error, NameUnresolved):
            return self.policy.dns_status
        return error.status


class _Body:
    """A body on its way, and the one owner of lease and connection: ``close`` ends both, once, read or not."""

    __slots__ = ("_began", "_environ", "_error", "_lease", "_pieces", "_response")

    def __init__(self, environ: WSGIEnvironment, lease: Lease, response: Response, began: float) -> None:
        self._environ = environ
        self._lease: Lease | None = lease
        self._response = response
        self._began = began
        self._pieces = iter(response)
        self._error: UpstreamError | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except UpstreamError as error:
            self._error = error
            _log_cut(self._environ, self._response, error)
            self.close()
            show_cut(self._environ)
            # Servers take this for a lost peer: they drop the client's connection, without a traceback in their log.
            raise ConnectionResetError(errno.ECONNRESET, f"the response was cut: {error}") from error

    def close(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            _finish(lease, self._response, self._began, self._error)

    def __del__(self) -> None:
        # A middleware in front that forgets close() must not keep the member busy for ever.
        self.close()


def _finish(
    lease: Lease, response: Response, began: float, error: UpstreamError | None = None, until: float | None = None
) -> None:
    """End an attempt that had an answer: first the connection, then the lease."""
    try:
        response.close()
    finally:
        lease.finish(
            error,
            status=response.status,
            sent=response.sent,
            received=response.received,
            seconds=(until or time.monotonic()) - began,
        )


def _unswitched(environ: WSGIEnvironment, page: list[bytes]) -> Iterable[bytes]:
    """An error page of ours; no byte that the client sent behind an upgrade that failed is read as a request."""
    return NotSwitched(environ, page) if "HTTP_UPGRADE" in environ else page


def _note(environ: WSGIEnvironment, lease: Lease, attempts: int, began: float) -> None:
    """What the access log and the metrics want to know."""
    environ["proxymw.pool"] = lease.pool
    environ["proxymw.member"] = lease.name
    environ["proxymw.attempts"] = attempts
    environ["proxymw.upstream_ms"] = (time.monotonic() - began) * 1000


def _replaces_date(environ: WSGIEnvironment) -> bool:
    """Whether the server drops an application's Date and Server and writes its own."""
    return bool(environ.get("SERVER_SOFTWARE", "").startswith(("gunicorn", "Werkzeug")))


def _hints(send: Callable[[HeaderList], object]) -> Interim:
    """Passes the Link fields of 103 responses to the server's own way of sending them."""

    def interim(status: int, headers: HeaderList) -> None:
        links = [pair for pair in headers if pair[0].lower() == "link"]
        if status == 103 and links:
            send(links)

    return interim


def _log_attempt(environ: WSGIEnvironment, lease: Lease, error: UpstreamError) -> None:
    _log.info(event_line(error.event, retried="yes", **request_values(environ), upstream=lease.name, error=error))


def _log_cut(environ: WSGIEnvironment, response: Response, error: UpstreamError) -> None:
    member = environ.get("proxymw.member")
    line = event_line(error.event, **request_values(environ), upstream=member, bytes=response.received, error=error)
    _log.warning(line)
