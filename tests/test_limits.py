"""What counts for the whole process: callers' time, bytes in flight, whom it trusts."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import repeat

import pytest

from tests.support import http
from tests.support.http import (
    CHAT,
    HEALTH_REQUEST,
    MEBIBYTE,
    RawConnection,
    chat,
    exchange,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import (
    DONE,
    FIRST_EVENT,
    JSON,
    RESET,
    Gate,
    Step,
    respond,
    response_head,
    stream,
)

SECONDS = 1.0
# Two bodies of SIZE are too many at a time.
IN_FLIGHT, SIZE = 1_000_000, 600_000
DEAD = "http://127.0.0.1:9"
pytestmark = pytest.mark.server(
    # The largest of the providers' values counts.
    providers={
        "openai": {"caller_timeout": SECONDS, "max_bytes_in_flight": IN_FLIGHT},
        "openai-mini": {"caller_timeout": SECONDS / 10, "max_bytes_in_flight": 1},
        "gemini": {"caller_timeout": SECONDS / 10, "max_bytes_in_flight": 1},
        "anthropic": {"caller_timeout": SECONDS / 10, "max_bytes_in_flight": 1},
    },
    # A proxy of the environment has no say: no call here arrives through this one.
    env={"FORWARDED_ALLOW_IPS": "127.0.0.1", "http_proxy": DEAD, "all_proxy": DEAD},
)
BODY = http.CHAT_BODY
LARGE = to_json(chat(user="x" * SIZE))
CALL = request(body=LARGE)


def post(*lines: bytes) -> bytes:
    return request(b"POST", CHAT, *lines, body=BODY)


WAITING = {
    "nothing": b"",
    "half a head": http.STREAMING_REQUEST[:40],
    "a head without its body": post()[: -len(BODY)],
    "half a body": post()[:-3],
    "an upgrade without its body": post(b"Connection: upgrade", b"Upgrade: h2c")[:-3],
    "garbage": b"\x00",
    "between requests": HEALTH_REQUEST,
    "a line break after an answer": HEALTH_REQUEST + b"\r\n",
    "a byte behind a 415": request(body=BODY, headers=http.PLAIN_TEXT_HEADERS)[
        : 1 - len(BODY)
    ],
    "a byte behind a 413": request(b"POST", CHAT, b"Content-Length: 999999999") + b"x",
    "a byte behind a 404": request(b"POST", "/v1/files", body=BODY)[:-3],
    "a byte behind a 200": request(b"GET", http.MODELS, body=BODY)[:-3],
}


def test_an_idle_connection_ends_in_time(server: Server, upstream: Upstream) -> None:
    before = server.open_files()
    began = time.monotonic()
    with ExitStack() as opened:
        raws = {
            state: opened.enter_context(RawConnection(server.port)) for state in WAITING
        }
        for state, raw in raws.items():
            raw.send(WAITING[state])
        took = {}
        for state, raw in raws.items():
            raw.read_to_end()
            took[state] = time.monotonic() - began
        http.eventually(
            lambda: server.open_files() <= before, "all are closed", 4 * SECONDS
        )

    assert max(took.values()) < 4 * SECONDS, took
    assert upstream.openai.requests == []


@pytest.mark.parametrize("refused", [False, True])
def test_what_drips_ends_in_time(server: Server, *, refused: bool) -> None:
    """A byte of a head, or of a body that is refused, is none of the progress."""
    long = request(
        b"POST", CHAT, b"Content-Length: 99999", headers=http.PLAIN_TEXT_HEADERS
    )
    with RawConnection(server.port) as raw:
        began = time.monotonic()
        raw.send(long if refused else HEALTH_REQUEST[:-4])
        if refused:
            assert raw.read_response().status == 415
        while not raw.is_closed_within(0.1):
            raw.send(b"a")
            assert time.monotonic() - began < 4 * SECONDS


def test_an_answer_nobody_reads_is_given_up(server: Server, upstream: Upstream) -> None:
    upstream.openai.script(*stream(*[b"x" * MEBIBYTE] * 64))
    grown = server.measure_growth()
    with RawConnection(server.port) as raw:
        raw.send(http.STREAMING_REQUEST)
        (call,) = upstream.openai.wait_requests()
        assert call.disconnected.wait(5 * SECONDS)
    assert grown() < 8 * MEBIBYTE


def test_what_goes_on_slowly_is_not_cut(server: Server, upstream: Upstream) -> None:
    """A caller that sends or reads slowly, an upstream that is silent; all at once."""
    size, before, inside = 14 * MEBIBYTE, Gate(), Gate()
    begun = response_head(200, JSON | {"content-length": str(size)})
    upstream.anthropic.script(begun, repeat(b"x" * 65536, size // 65536))
    upstream.gemini.script(before, respond()[:-1], inside, respond()[-1:])

    def sends_slowly(raw: RawConnection) -> int:
        for part in (post()[: -len(BODY)], BODY[:10], BODY[10:20], BODY[20:]):
            time.sleep(0.6 * SECONDS)
            raw.send(part)
        return raw.read_response().status

    def waits(raw: RawConnection) -> int:
        raw.send(request(body=to_json(chat("gemini/any"))))
        for gate in (before, inside):
            gate.wait_reached()
            time.sleep(1.7 * SECONDS)
            gate.open()
        return raw.read_response().status

    def reads_slowly(raw: RawConnection) -> int:
        raw.send(request(body=to_json(chat("anthropic/any"))))
        raw.read_until(b"\r\n\r\n")
        got = 0
        while part := raw.read(min(MEBIBYTE, size - got)):
            time.sleep(0.3 * SECONDS)
            got += len(part)
        return got

    with ExitStack() as opened, ThreadPoolExecutor(3) as pool:
        ways = (sends_slowly, waits, reads_slowly)
        raws = [opened.enter_context(RawConnection(server.port)) for _ in ways]
        came = list(pool.map(lambda way, raw: way(raw), ways, raws))

    assert came == [200, 200, size]


def test_too_many_bytes_in_flight_are_a_503(server: Server, upstream: Upstream) -> None:
    """In the form of the route; a call counts until its answer begins."""
    before, inside = Gate(), Gate()
    upstream.openai.script(before, *stream(FIRST_EVENT, inside, DONE))
    with RawConnection(server.port) as raw:
        raw.send(CALL)
        before.wait_reached()
        openais = exchange(server.port, CALL)
        anthropics = exchange(server.port, request(path=http.MESSAGES, body=LARGE))
        assert exchange(server.port, post()).status == 200
        before.open()
        raw.read_until(FIRST_EVENT)
        assert exchange(server.port, CALL).status == 200
        inside.open()
        assert raw.read_until(DONE)

    assert openais.status_and_code == (503, "server_busy")
    assert openais.json["error"]["type"] == "server_error"
    assert anthropics.status == 503
    assert anthropics.json["error"]["type"] == "overloaded_error"
    assert openais.headers["retry-after"] == anthropics.headers["retry-after"] == "1"


def test_bytes_in_flight_are_given_back(server: Server, upstream: Upstream) -> None:
    broken, none = (chat(f"openai/{n}", user="x" * SIZE) for n in ("breaks-off", "no"))
    too_large = chat(user="x" * IN_FLIGHT)
    ends = [(LARGE, 200), (to_json(none), 404), (b"x" * SIZE, 400)]
    ends += [(to_json(broken), 502), (to_json(too_large), 503)]
    scripts: dict[int, Step] = {404: respond(status=404), 502: RESET}
    for body, status in ends:
        if status in scripts:
            upstream.openai.script(scripts[status])
        assert exchange(server.port, request(body=body)).status == status
        assert exchange(server.port, CALL).status == 200
    with RawConnection(server.port) as raw:
        raw.send(CALL[:-10])
        http.eventually(
            lambda: exchange(server.port, CALL).status == 503, "the server is busy"
        )
    http.eventually(
        lambda: exchange(server.port, CALL).status == 200, "the bytes are released"
    )
    upstream.openai.script(gate := Gate())
    with RawConnection(server.port) as raw:
        raw.send(CALL)
        gate.wait_reached()
    http.eventually(
        lambda: exchange(server.port, CALL).status == 200, "the bytes are released"
    )

    # What uvicorn logs of an exception that nobody has caught.
    assert "Exception in ASGI application" not in server.log


@pytest.mark.parametrize(
    "client", ["203.0.113.7", pytest.param("127.0.0.1", marks=pytest.mark.server())]
)
def test_only_a_named_proxy_is_believed(server: Server, client: str) -> None:
    """Uvicorn by itself would believe whoever calls from this machine."""
    path = f"/v1/models/{client}"
    exchange(server.port, request(b"GET", path, b"X-Forwarded-For: 203.0.113.7"))

    (line,) = server.wait_access_log(path=path)
    assert line["client"].partition(":")[0] == client
