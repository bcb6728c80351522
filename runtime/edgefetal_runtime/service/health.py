"""GET /health and GET /metrics, and nothing else, for this machine alone unless told otherwise.

A client can be slow, stuck or hostile: each connection has a deadline for all of it, only a few are served at once,
nothing that it sends is logged or echoed, and ending the server waits for no one.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_runtime.service.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOOPBACK = "127.0.0.1"
_MAX_CONNECTIONS = 8
_DEADLINE_S = 5.0
_POLL_S = 0.2
_JOIN_S = 5.0
_MAX_PORT = 65535


@dataclass(frozen=True)
class Health:
    """The answer to /health.

    Args:
        alive: 200 if so, 503 if not.
        body: what the JSON says.
    """

    alive: bool
    body: Mapping[str, str | int | float | bool | None]


class _Answers(BaseHTTPRequestHandler):
    """Answers one request. HTTP/1.0, so the connection ends with it."""

    server: _Server
    # Within the connection's deadline, so that a silent client is let go by its own thread.
    timeout = _DEADLINE_S

    def do_GET(self) -> None:
        """Answer /health and /metrics."""
        if self.path == "/health":
            health = self.server.health()
            status = HTTPStatus.OK if health.alive else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, "application/json", json.dumps(dict(health.body)).encode() + b"\n")
        elif self.path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE, self.server.metrics())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def parse_request(self) -> bool:
        """Read the request; anything but GET is refused here, because http.server takes it for a fault of ours."""
        if not super().parse_request():
            return False
        if self.command != "GET":
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
            return False
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse with a fixed text; http.server's own repeats what the client sent."""
        status = HTTPStatus(code)
        self._answer(status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode())

    def version_string(self) -> str:
        """Name the server without its version, or Python's."""
        return "edgefetal"

    def log_message(self, *_: object) -> None:
        """Log nothing that a client sent."""

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A TCP server, not an HTTPServer, which would ask the name service for its own name before it starts."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = _MAX_CONNECTIONS

    def __init__(
        self, host: str, port: int, health: Callable[[], Health], metrics: Callable[[], bytes], deadline_s: float
    ) -> None:
        self.health = health
        self.metrics = metrics
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}
        super().__init__((host, port), _Answers)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - typeshed's own words
        with self._lock:
            welcome = len(self._open) < _MAX_CONNECTIONS
            if welcome:
                self._open[request] = time.monotonic() + self._deadline_s
        if welcome:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - typeshed's own word
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off who is past the deadline, however busily it sends; `serve_forever` calls this between polls."""
        now_s = time.monotonic()
        with self._lock:
            late = [request for request, deadline_s in self._open.items() if now_s > deadline_s]
        for request in late:
            _cut(request)

    def cut_all(self) -> None:
        with self._lock:
            left = list(self._open)
        for request in left:
            _cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - typeshed's own words
        """Say nothing: a client that hangs up is no event, and Python's own way is to print its address."""


def _cut(request: socket.socket) -> None:
    # Its own thread closes it; shutting down wakes that thread.
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class HealthServer:
    """Serves /health and /metrics in a thread of its own.

    Args:
        health: called for every /health, in any thread; must not block.
        metrics: called for every /metrics, in any thread; must not block.
        host: address to listen at.
        port: port to listen at; 0 takes a free one.
        deadline_s: for one connection, from its opening to its end.

    Raises:
        EnvironmentLacksError: the address or port cannot be had.
    """

    def __init__(
        self,
        health: Callable[[], Health],
        metrics: Callable[[], bytes],
        host: str = LOOPBACK,
        port: int = 0,
        deadline_s: float = _DEADLINE_S,
    ) -> None:
        """Bind at once, so that a port that is taken is found before the first frame."""
        if not 0 <= port <= _MAX_PORT:
            message = f"There is no port {port}; name one from 1 to {_MAX_PORT}, or 0 for any free one."
            raise EnvironmentLacksError(message)
        try:
            self._server = _Server(host, port, health, metrics, deadline_s)
        except OSError as error:
            message = f"Nothing can listen at {host} port {port} ({error.strerror}); name another port or address."
            raise EnvironmentLacksError(message) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": _POLL_S}, name="health", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End it, cutting off every client."""
        if self._thread.ident is not None:
            self._server.shutdown()
            self._thread.join(_JOIN_S)
        self._server.cut_all()
        self._server.server_close()
