"""The two pages: what they answer, and that no client can hold up the pipeline or the end."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_runtime.service.health import Health, HealthServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_S = 20.0
CUT_S = 0.3


class State:
    """What the pages show; a test changes it."""

    def __init__(self) -> None:
        self.health = Health(alive=True, body={"alive": True, "reason": "Frames flow."})
        self.page = b"edgefetal_throttled 0.0\n"
        self.broken = False

    def answer(self) -> Health:
        if self.broken:
            raise RuntimeError("secret")
        return self.health


@pytest.fixture(autouse=True)
def _quick_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefetal_runtime.service.health._POLL_S", 0.01)


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def server(state: State) -> Iterator[HealthServer]:
    server = HealthServer(state.answer, lambda: state.page, deadline_s=CUT_S)
    server.start()
    yield server
    server.stop()


def ask(server: HealthServer, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    connection.request(method, path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def opened(server: HealthServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)


def everything(stream: socket.socket) -> bytes:
    """Read until the other side ends, kindly or not."""
    content = b""
    try:
        while more := stream.recv(65536):
            content += more
    except ConnectionError:
        pass
    return content


def test_a_living_pipeline_is_200(server: HealthServer) -> None:
    status, headers, content = ask(server, "/health")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert headers["Server"] == "edgefetal"
    assert json.loads(content) == {"alive": True, "reason": "Frames flow."}


def test_a_dead_pipeline_is_503_with_the_reason(server: HealthServer, state: State) -> None:
    state.health = Health(alive=False, body={"alive": False, "reason": "No frame came out for 11.0 s."})
    status, _, content = ask(server, "/health")
    assert status == 503
    assert json.loads(content)["reason"] == "No frame came out for 11.0 s."


def test_metrics_are_in_prometheus_own_format(server: HealthServer, state: State) -> None:
    status, headers, content = ask(server, "/metrics")
    assert (status, content) == (200, state.page)
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/healthz", "/health/", "/health?x=1", "/../etc/passwd", "/Jane"])
def test_anything_else_is_404_and_not_repeated(server: HealthServer, path: str) -> None:
    status, _, content = ask(server, path)
    assert (status, content) == (404, b"Not Found\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_any_other_method_is_405(server: HealthServer, method: str) -> None:
    status, headers, content = ask(server, "/health", method)
    assert status == 405
    assert headers["Allow"] == "GET"
    assert content == (b"" if method == "HEAD" else b"Method Not Allowed\n")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET\r\n\r\n",
        b"Jane Doe 1990\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_a_malformed_request_is_refused_without_an_echo(
    server: HealthServer, sent: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with opened(server) as stream:
        stream.sendall(sent)
        answer = everything(stream)
    assert b"Jane" not in answer
    assert b"aaa" not in answer
    assert b"200" not in answer[:20]
    assert ask(server, "/health")[0] == 200
    assert capfd.readouterr() == ("", "")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(sent=st.binary(max_size=200))
def test_any_bytes_leave_it_serving(server: HealthServer, sent: bytes) -> None:
    with opened(server) as stream:
        stream.sendall(sent)
        stream.shutdown(socket.SHUT_WR)
        everything(stream)
    assert ask(server, "/health")[0] == 200


def test_nothing_is_logged_of_a_request(server: HealthServer, capfd: pytest.CaptureFixture[str]) -> None:
    ask(server, "/health")
    ask(server, "/jane-doe")
    with opened(server) as stream:
        stream.sendall(b"GET /heal")
    assert capfd.readouterr() == ("", "")


def test_a_page_that_breaks_ends_its_connection_and_says_nothing(
    server: HealthServer, state: State, capfd: pytest.CaptureFixture[str]
) -> None:
    state.broken = True
    with opened(server) as stream:
        stream.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert everything(stream) == b""
    state.broken = False
    assert ask(server, "/health")[0] == 200
    assert "secret" not in capfd.readouterr().err


def test_a_silent_client_is_cut_off_and_others_are_served_meanwhile(server: HealthServer) -> None:
    with opened(server) as silent:
        assert ask(server, "/health")[0] == 200
        assert everything(silent) == b""


def test_a_client_that_drips_is_cut_off_at_the_deadline(server: HealthServer) -> None:
    """One byte at a time resets every timeout but that of the whole connection."""
    began_s = time.monotonic()
    with opened(server) as drip:
        drip.settimeout(0.01)
        while dripped(drip):
            assert time.monotonic() - began_s < DEADLINE_S


def dripped(stream: socket.socket) -> bool:
    """Send a byte; say whether the other side still listens."""
    try:
        stream.sendall(b"G")
        return stream.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False


def test_a_client_that_never_reads_is_cut_off(server: HealthServer, state: State) -> None:
    state.page = b"x" * 50_000_000
    with opened(server) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert wait_until(lambda: not server._server._open)
    state.page = b""
    assert ask(server, "/metrics")[0] == 200


def wait_until(condition: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > until_s:
            return False
        threading.Event().wait(0.01)
    return True


def test_only_so_many_are_served_at_once() -> None:
    server = HealthServer(lambda: Health(alive=True, body={}), lambda: b"", deadline_s=DEADLINE_S)
    server.start()
    crowd = [opened(server) for _ in range(8)]
    assert wait_until(lambda: len(server._server._open) == 8)
    with opened(server) as one_more:
        assert everything(one_more) == b""
    for stream in crowd:
        stream.close()
    assert wait_until(lambda: not server._server._open)
    assert ask(server, "/health")[0] == 200
    server.stop()


def test_the_end_waits_for_no_client() -> None:
    server = HealthServer(lambda: Health(alive=True, body={}), lambda: b"", deadline_s=1000.0)
    server.start()
    with opened(server) as stuck:
        stuck.sendall(b"GET /hea")
        assert wait_until(lambda: len(server._server._open) == 1)
        began_s = time.monotonic()
        server.stop()
        assert time.monotonic() - began_s < DEADLINE_S / 2
        assert everything(stuck) == b""
    with pytest.raises(ConnectionError):
        opened(server)


def test_it_listens_to_this_machine_alone_unless_told_otherwise(server: HealthServer) -> None:
    assert server._server.server_address[0] == "127.0.0.1"


def test_a_taken_port_is_refused_before_anything_starts(server: HealthServer) -> None:
    with pytest.raises(EnvironmentLacksError, match="name another port"):
        HealthServer(lambda: Health(alive=True, body={}), lambda: b"", port=server.port)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", -1), ("127.0.0.1", 65536), ("203.0.113.7", 0)])
def test_an_address_that_cannot_be_had_is_refused(host: str, port: int) -> None:
    with pytest.raises(EnvironmentLacksError, match=r"name (one|another)"):
        HealthServer(lambda: Health(alive=True, body={}), lambda: b"", host, port)


def test_one_that_was_never_started_can_be_stopped() -> None:
    server = HealthServer(lambda: Health(alive=True, body={}), lambda: b"")
    server.stop()
    assert server._server.socket.fileno() == -1
