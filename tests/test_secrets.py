"""A caller's key and prompt are in no log line, in no file and in no error's text."""

import socket
from collections.abc import Callable
from functools import partial

import httpx
import pytest

from tests.attempts import ATTEMPTS, BEARER, DATA, Attempt, body, sent
from tests.calls import open_call
from tests.inside import Watched
from tests.marks import KEY, PROMPT, TOKEN, complaints, traces
from tests.polling import poll
from tests.raw import ask, exchange
from tests.scripts import streaming
from tests.server import Server
from tests.upstream import Connection, Gate, Request, Upstream

pytest_plugins = ["tests.watched"]

FIRST = b"data: 1\n\n"
MARKED = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(params=["as everyone runs it", "logging all it can"])
def logging_server(request: pytest.FixtureRequest, server: Server) -> Server:
    """The server with the log of run.yaml, JSON; and with every debug line, as text."""
    if request.param == "as everyone runs it":
        return server
    watched: Watched = request.getfixturevalue("talkative")
    return watched.server


@pytest.fixture
def since(logging_server: Server, http: httpx.Client) -> Callable[[], str]:
    """Gives what the server has logged since the test began."""
    before = len(logging_server.log)

    def logged() -> str:
        # What was done before it is logged before it: there is one event loop.
        assert http.get(f"{logging_server.url}/v1/health").status_code == 200
        return logging_server.log[before:]

    return logged


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_a_call_leaves_no_trace(
    logging_server: Server,
    upstream: Upstream,
    since: Callable[[], str],
    attempt: Attempt,
) -> None:
    """Not in the log, where a traceback is none either, nor in an error's own text."""
    if attempt.script:
        upstream.openai.answer_with(attempt.script)

    answer = ask(logging_server.port, attempt.sent)

    assert (attempt.status, []) == (answer.status, complaints(since()))
    if attempt.code:
        assert attempt.code == answer.error["code"]
        assert traces(answer.body.decode()) == []


@pytest.mark.parametrize("name", ["stream", "silence", "body"])
def test_a_call_that_is_left_leaves_no_trace(
    logging_server: Server, upstream: Upstream, since: Callable[[], str], name: str
) -> None:
    """Its caller goes away in a stream, before the answer, or inside the request."""
    steps = [b"data: 1\n\n", Gate()] if name == "stream" else [Gate()]
    upstream.openai.answer_with(streaming(*steps))
    whole = sent(BEARER, body=body(stream=True))

    address = ("127.0.0.1", logging_server.port)
    with socket.create_connection(address, timeout=10) as caller:
        caller.sendall(whole[:-10] if name == "body" else whole)
        if name != "body":
            upstream.openai.wait_until(lambda: bool(upstream.openai.calls))
    for arrived in upstream.openai.calls:
        left = partial(getattr, arrived, "peer_closed_at")
        upstream.openai.wait_until(left)

    assert complaints(since()) == []


@pytest.mark.parametrize(
    ("model", "status"), [("brief/m-1", 504), ("small/m-1", 413), ("openai/m-1", 404)]
)
def test_a_providers_own_bounds_leave_no_trace(
    talkative: Watched, upstream: Upstream, model: str, status: int
) -> None:
    """An upstream that is silent, a body too large for one, a model unknown to one."""

    async def is_silent(_request: Request, _connection: Connection) -> None:
        await Gate().wait()

    if status == 504:
        upstream.openai.answer_with(is_silent)
    before = len(talkative.server.log)

    answer = ask(talkative.server.port, sent(BEARER, body=body(model)))

    logged = talkative.server.log[before:]
    assert (status, []) == (answer.status, complaints(logged))


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (b"Bearer good", 200),
        (b"Bearer " + TOKEN.encode(), 401),
        (b"Bearer %b\xff" % TOKEN.encode(), 401),
        (b"Basic " + TOKEN.encode(), 401),
        (TOKEN.encode(), 401),
        (b"", 401),
    ],
)
def test_a_token_of_the_servers_own_leaves_no_trace(
    guarded: Watched, authorization: bytes, status: int
) -> None:
    """Nor does the key beside it, whether the token is good, wrong, or none."""
    before = len(guarded.server.log)

    answer = ask(
        guarded.server.port,
        sent(DATA, b"Authorization: " + authorization, body=body()),
    )

    logged = guarded.server.log[before:]
    own = "" if status == 200 else answer.body.decode()
    assert (status, [], []) == (answer.status, complaints(logged), traces(own))


def test_a_path_is_logged_and_a_query_is_not(
    logging_server: Server, since: Callable[[], str]
) -> None:
    """What is asked for is no secret, and a line without it would help nobody.

    So a key that somebody writes into the path, or a model's name, is not kept secret:
    the path is in the line of the request, a name in debug lines.
    """
    start = f"GET /v1/models/known-path?key={KEY} HTTP/1.1".encode()

    ask(logging_server.port, sent(start=start, body=b""))

    logged = since()
    assert ("/v1/models/known-path" in logged, traces(logged)) == (True, [])


def test_no_file_is_touched(
    talkative: Watched, upstream: Upstream, http: httpx.Client
) -> None:
    """Whatever is called, nothing is opened to be written, made, renamed or changed.

    Python's own bytecode of modules is left out: it holds nothing of a request.
    """
    for attempt in ATTEMPTS.values():
        if attempt.script:
            upstream.openai.answer_with(attempt.script, times=1)
        exchange(talkative.server.port, attempt.sent)
        upstream.reset()
    assert http.get(f"{talkative.server.url}/v1/models").status_code == 200

    server = talkative.server
    left = [
        path
        for directory in (server.home, server.work, server.temporary)
        for path in directory.rglob("*")
    ]
    assert (talkative.inside.files(), left) == ([], [])


def test_a_call_that_is_over_is_forgotten(
    talkative: Watched, upstream: Upstream
) -> None:
    """While it runs the process holds its key; afterwards no object does, nor a prompt.

    The connection to the upstream is still open then, for the next caller.
    """
    gate = Gate()
    upstream.openai.answer_with(streaming(b"data: 1\n\n", gate))
    with httpx.Client(trust_env=False) as own:
        headers = {"Authorization": f"Bearer {KEY}"}
        asking = body(stream=True)
        with open_call(own, talkative.server.url, asking, headers=headers) as stream:
            stream.read(1)
            during = talkative.inside.holders(KEY)
            gate.open()
            stream.rest()

    def after() -> list[str]:
        return talkative.inside.holders(KEY, PROMPT)

    assert during
    assert poll(lambda: after() == []), after()
