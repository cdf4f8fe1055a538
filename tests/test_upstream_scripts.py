"""The mock upstream records what it receives and lets a test write any bytes."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.server import PROJECT
from tests.upstream import Connection, Gate, Request, Upstream, Vendor, in_background

REQUEST = (
    b"POST /v1/chat/completions?a=b HTTP/1.1\r\n"
    b"X-First: 1\r\nhOsT: somewhere\r\nX-First: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;extension\r\nde\r\n0\r\n\r\n"
)


def _connect(vendor: Vendor) -> socket.socket:
    return socket.create_connection(("127.0.0.1", vendor.port), timeout=5)


def _read_all(peer: socket.socket) -> bytes:
    received = b""
    while part := peer.recv(65536):
        received += part
    return received


async def _say_ok(_request: Request, connection: Connection) -> None:
    await connection.answer(200, {}, b"ok")


def test_a_request_is_recorded_as_sent(upstream: Upstream) -> None:
    """Target, header pairs in order, and the body without its chunks are kept."""
    upstream.openai.answer_with(_say_ok)
    with _connect(upstream.openai) as peer:
        peer.sendall(REQUEST)
        peer.recv(65536)

    (call,) = upstream.openai.calls
    assert (
        call.method,
        call.path,
        call.body,
    ) == ("POST", "/v1/chat/completions", b"abcde")
    assert call.headers == [
        (b"X-First", b"1"),
        (b"hOsT", b"somewhere"),
        (b"X-First", b"2"),
        (b"Transfer-Encoding", b"chunked"),
    ]


def test_connections_are_numbered(upstream: Upstream) -> None:
    """Reuse shows in the number, and connections are counted."""
    upstream.openai.answer_with(_say_ok)
    for requests in (2, 1):
        with _connect(upstream.openai) as peer:
            for _ in range(requests):
                peer.sendall(REQUEST)
                peer.recv(65536)

    numbers = [call.connection.number for call in upstream.openai.calls]
    first = numbers[0]
    assert ([first, first, first + 1], 2) == (numbers, upstream.openai.connections)


def test_a_script_writes_any_bytes(upstream: Upstream) -> None:
    """Neither status line nor framing is checked or completed."""

    async def script(_request: Request, connection: Connection) -> None:
        await connection.write(b"no HTTP at all")
        connection.close()

    upstream.gemini.answer_with(script)
    with _connect(upstream.gemini) as peer:
        peer.sendall(REQUEST)
        assert _read_all(peer) == b"no HTTP at all"


def test_a_script_answers_as_often_as_wanted(upstream: Upstream) -> None:
    """After that the dialect answers again."""
    upstream.anthropic.answer_with(_say_ok, times=1)
    with _connect(upstream.anthropic) as peer:
        answers = []
        for _ in range(2):
            peer.sendall(REQUEST)
            answers.append(peer.recv(65536).split(b"\r\n")[0])

    assert answers == [b"HTTP/1.1 200 OK", b"HTTP/1.1 401 Unauthorized"]


def test_a_script_can_answer_before_the_body(upstream: Upstream) -> None:
    """Without reading the body, the answer does not wait for it."""
    upstream.openai.answer_with(_say_ok, read_body=False)
    with _connect(upstream.openai) as peer:
        peer.sendall(b"POST / HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n")
        assert peer.recv(65536).split(b"\r\n")[0] == b"HTTP/1.1 200 OK"


def test_a_reset_is_a_reset(upstream: Upstream) -> None:
    """The peer gets a TCP reset, not an orderly end."""

    async def script(_request: Request, connection: Connection) -> None:
        connection.reset()

    upstream.openai.answer_with(script)
    with _connect(upstream.openai) as peer:
        peer.sendall(REQUEST)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_a_peer_that_leaves_is_noticed_at_once(upstream: Upstream) -> None:
    """The answer that is underway ends there and then, and is never complete."""
    ended: list[bool] = []

    async def script(_request: Request, connection: Connection) -> None:
        try:
            await connection.head(200, {})
            await Gate().wait()
        finally:
            ended.append(True)

    upstream.openai.answer_with(script)
    with _connect(upstream.openai) as peer:
        peer.sendall(REQUEST)
        peer.recv(65536)
        left_at = time.monotonic()
    upstream.openai.wait_until(lambda: bool(ended))

    (call,) = upstream.openai.calls
    assert call.answered_at is None
    assert call.peer_closed_at is not None
    assert left_at <= call.peer_closed_at


def test_a_gate_holds_a_script_until_the_test_opens_it(upstream: Upstream) -> None:
    """What is written behind the gate arrives after the opening only."""
    gate = Gate()

    async def script(_request: Request, connection: Connection) -> None:
        await connection.write(b"before")
        await gate.wait()
        await connection.write(b"after")
        connection.close()

    upstream.openai.answer_with(script)
    with _connect(upstream.openai) as peer:
        peer.sendall(REQUEST)
        before = peer.recv(65536)
        gate.open()
        assert (before, _read_all(peer)) == (b"before", b"after")


def test_a_reset_of_the_vendor_breaks_off_what_is_underway(upstream: Upstream) -> None:
    """A script that hangs does not outlive its test."""

    async def script(_request: Request, connection: Connection) -> None:
        await connection.write(b"begun")
        await Gate().wait()

    upstream.openai.answer_with(script)
    with _connect(upstream.openai) as peer:
        peer.sendall(REQUEST)
        begun = peer.recv(65536)
        upstream.openai.reset()
        assert (begun, _read_all(peer), upstream.openai.calls) == (b"begun", b"", [])


def test_idle_connections_can_be_dropped(upstream: Upstream) -> None:
    """The peer sees an orderly end between two requests."""
    upstream.openai.answer_with(_say_ok)
    with _connect(upstream.openai) as peer:
        peer.sendall(REQUEST)
        peer.recv(65536)
        (call,) = upstream.openai.calls
        upstream.openai.wait_until(lambda: call.answered_at is not None)
        upstream.openai.drop_connections()
        assert peer.recv(1) == b""


def test_a_faulty_script_is_told() -> None:
    """What a script raises is kept, so that no test passes in spite of it."""

    async def script(_request: Request, _connection: Connection) -> None:
        raise LookupError

    with in_background() as own:
        own.openai.answer_with(script)
        with _connect(own.openai) as peer:
            peer.sendall(REQUEST)
            assert _read_all(peer) == b""
        assert [LookupError] == [type(fault) for fault in own.openai.faults]


def _start_program(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.upstream", *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_program_prints_the_servers_variables_and_ends_on_ctrl_c() -> None:
    """The three lines can be pasted; Ctrl-C is an orderly end."""
    with _start_program() as program:
        assert program.stdout is not None
        lines = [program.stdout.readline() for _ in range(5)]
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=10)

    names = [line.partition("=http://127.0.0.1:")[0] for line in lines[2:]]
    assert names == [
        "OPENAI_UPSTREAM_URL",
        "GEMINI_UPSTREAM_URL",
        "ANTHROPIC_UPSTREAM_URL",
    ]
    assert (program.returncode, errors) == (0, "")


def test_the_program_says_that_a_port_is_taken(upstream: Upstream) -> None:
    """One line names vendor and port, and the exit status is 1."""
    port = upstream.openai.port
    with _start_program("--gemini-port", str(port)) as program:
        output, errors = program.communicate(timeout=10)

    expected = f"Port {port} for Gemini: Address already in use\n"
    assert (1, "", expected) == (program.returncode, output, errors)
