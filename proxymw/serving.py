"""Serving an Apache configuration under gunicorn, with a reload that never leaves a broken file in charge."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]

from proxymw.apacheconf import load
from proxymw.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from _typeshed.wsgi import WSGIApplication

#: httpd's own limits and tolerance, as far as gunicorn has a word for them. Nothing a client sends is believed here:
#: addresses and schemes come from RemoteIP… directives alone.
SETTINGS: Mapping[str, Any] = {
    "preload_app": True,
    "worker_class": "gthread",
    "threads": 32,
    "keepalive": 5,
    "graceful_timeout": 30,
    "limit_request_line": 8190,
    "limit_request_fields": 100,
    "limit_request_field_size": 8190,
    "permit_unconventional_http_method": True,
    "permit_obsolete_folding": True,
    "forwarded_allow_ips": "",
    "secure_scheme_headers": {},
    "forwarder_headers": "",
    "control_socket_disable": True,
    "loglevel": "warning",
    "proc_name": "proxymw",
}


class _Master(Arbiter):  # type: ignore[misc]
    """gunicorn's master, but a reload happens only once the new configuration is known to be good."""

    def reload(self) -> None:
        if self.app.refresh():
            super().reload()


class Service(BaseApplication):  # type: ignore[misc]
    """One configuration file as a gunicorn application.

    It is loaded in the master, so all workers have the same one, also a worker that is started years later. SIGHUP
    loads the file again: where that fails the error is printed and everything stays as it is. Pools whose members stay
    keep their counters, which live in the pool's shared state.
    """

    def __init__(
        self, path: str, *, settings: Mapping[str, Any], lenient: bool = False, defines: Mapping[str, str] | None = None
    ) -> None:
        self._path, self._lenient, self._defines = path, lenient, dict(defines or {})
        self._settings = {**SETTINGS, **settings}
        self._state = tempfile.mkdtemp(prefix="proxymw-")
        # Before anything is bound: a file that cannot be loaded is the caller's error.
        try:
            self._app = self._load()
        except BaseException:
            shutil.rmtree(self._state, ignore_errors=True)
            raise
        super().__init__()

    def _load(self) -> WSGIApplication:
        return load(self._path, lenient=self._lenient, defines=self._defines, state=self._state)

    def load_config(self) -> None:
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        return self._app

    def refresh(self) -> bool:
        """Load the file again; False, and the reason on standard error, where it cannot be."""
        try:
            self._app = self._load()
        except (ConfigError, OSError) as error:
            print(f"proxymw: the configuration was not reloaded: {error}", file=sys.stderr, flush=True)
            return False
        self.callable = None
        return True

    def run(self) -> None:
        master = os.getpid()
        try:
            _check_free(self.cfg.address)
            _Master(self).run()
        except RuntimeError as error:
            print(f"proxymw: {error}", file=sys.stderr, flush=True)
            sys.exit(1)
        finally:
            # Workers end here too.
            if os.getpid() == master:
                shutil.rmtree(self._state, ignore_errors=True)


def _check_free(addresses: Iterable[Any]) -> None:
    """ConfigError where somebody listens at an address already; gunicorn would try for five seconds first."""
    if "GUNICORN_PID" in os.environ or "LISTEN_PID" in os.environ:
        return  # the sockets were handed to us, open
    for address in addresses:
        if not isinstance(address, tuple):
            continue
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(address)
            except OSError as error:
                where = f"{address[0]}:{address[1]}"
                raise ConfigError(f"{where} cannot be used: {error.strerror}; choose another with --bind") from None
