"""The way to an upstream: as `network` in run.yaml has it, on shared connections."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import httpx
import pytest

from lls_openai.relay.upstream import Upstream as Pinned
from lls_openai.settings import ProviderConfig
from tests.support import http, wire
from tests.support.http import (
    CHAT,
    KEYS,
    RawConnection,
    Response,
    bearer,
    chat,
    exchange,
    request,
    to_json,
)
from tests.support.network import Network
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import (
    JSON,
    SILENCE,
    Gate,
    Json,
    Step,
    chunk,
    respond,
    response_head,
)


def way(name: str = "OPENAI_UPSTREAM", **network: object) -> Json:
    return {"base_url": f"${{env.{name}_URL}}", "network": network}


def exempt(*hosts: str) -> Json:
    """A proxy that is dead, for all but these hosts."""
    return {"url": DEAD, "no_proxy": list(hosts)}


DEAD, PROXY = "${env.REFUSED_URL}", "${env.PROXY_URL}"
OPENAI, GEMINI = "${env.OPENAI_UPSTREAM_URL}", "${env.GEMINI_UPSTREAM_URL}"
BY_NAME = "http://user:proxy-secret@127.0.0.1:${env.PROXY_PORT}"
CA, OTHER_CA = {"verify": "${env.CA_FILE}"}, "${env.OTHER_CA_FILE}"
MINE = CA | {"client_cert": "${env.CERT_FILE}", "client_key": "${env.KEY_FILE}"}
ARRIVING = {
    "tls-own-authority": way("TLS", tls=CA),
    "tls-unverified": way("OTHER_NAME", tls={"verify": False}),
    "tls-mutual": way("MUTUAL_TLS", tls=MINE),
    "proxy-for-https-only": way(proxy={"https": DEAD}),
    "proxy-for-none": way(proxy=exempt("a.b", "*")),
}
PROXIED = {
    "proxied": way(proxy={"url": PROXY, "no_proxy": ["localhost", "27.0.0.1"]}),
    "proxied-http": way(proxy={"http": BY_NAME, "https": DEAD}),
    "tunnelled": way("TLS", proxy={"url": PROXY, "cacert": "${env.CA_FILE}"}),
}
UNTRUSTED = "The TLS handshake with the upstream failed: "
UNKNOWN_AUTHORITY = UNTRUSTED + "unable to get local issuer certificate"
OTHER_HOST = (
    UNTRUSTED + "IP address mismatch, certificate is not valid for '127.0.0.1'."
)
NAMELESS = "The upstream's host name could not be resolved"
REFUSED = "The upstream refused the connection"
PROXY_REFUSED = "The proxy refused to connect to the upstream: HTTP 407"
UNREACHABLE: dict[str, tuple[str | None, Json]] = {
    "tls-public": (UNKNOWN_AUTHORITY, way("TLS")),
    "tls-other-authority": (UNKNOWN_AUTHORITY, way("TLS", tls={"verify": OTHER_CA})),
    "tls-other-host": (OTHER_HOST, way("OTHER_NAME", tls=CA)),
    # This one the upstream refuses, in a way of its own.
    "tls-too-old": (None, way("OLD_TLS", tls=CA | {"min_version": "TLSv1.3"})),
    "refused": (REFUSED, way("REFUSED")),
    "proxy-dead": (REFUSED, way(proxy={"url": DEAD})),
    "proxy-refuses": (PROXY_REFUSED, way("TLS", proxy={"https": GEMINI})),
    # Of a host that no resolver knows: either it is asked, or the proxy.
    "exempt": (NAMELESS, way("UNRESOLVABLE", proxy=exempt("b.test", "a.A.test"))),
    "exempt-star": (NAMELESS, way("UNRESOLVABLE", proxy=exempt("*.test"))),
    # A part of a label is no domain.
    "not-exempt": (REFUSED, way("UNRESOLVABLE", proxy=exempt("est", "b.a.test"))),
}
FURTHER: Json = {name: config for name, (_, config) in UNREACHABLE.items()} | {
    "impatient": {"network": {"timeout": 0.5}},
    "reading": way(timeout={"connect": 60, "read": 0.5}),
    "deaf": way("UNRESPONSIVE", timeout={"connect": 0.5, "read": 60}),
    # A host with a name, for which the mock itself stands in: it plays the proxy.
    "named": {"base_url": "http://a.test", "network": {"proxy": {"url": OPENAI}}},
}
pytestmark = pytest.mark.providers(ARRIVING | PROXIED | FURTHER)
OTHER_VENDOR: dict[str, Any] = {
    "json": chat(http.GEMINI_MODEL),
    "headers": bearer(KEYS["gemini"]),
}


def call(server: Server, provider: str, *headers: bytes) -> Response:
    body = to_json(chat(f"{provider}/gpt-4o"))
    return exchange(server.port, request(b"POST", CHAT, *headers, body=body))


def told(got: Response) -> str:
    return str(got.json["error"]["message"])


@pytest.mark.parametrize("provider", ARRIVING | PROXIED)
def test_a_call_arrives(
    server: Server, upstream: Upstream, network: Network, provider: str
) -> None:
    network.proxy.requests.clear()

    assert call(server, provider).status == 200
    assert upstream.openai.request.key == KEYS["openai"]
    target = f"POST {upstream.openai.url}{CHAT}"
    if provider == "tunnelled":
        target = f"CONNECT {network.env['TLS_URL'].removeprefix('https://')}"
        assert KEYS["openai"] not in network.proxy.requests[0]
    assert network.proxy.targets == ([target] if provider in PROXIED else [])
    if provider == "proxied-http":
        assert "dXNlcjpwcm94eS1zZWNyZXQ=" in network.proxy.requests[0]
        assert "proxy-secret" not in server.log


@pytest.mark.parametrize("provider", UNREACHABLE)
def test_a_way_that_fails_is_an_error_that_says_how(
    server: Server, upstream: Upstream, provider: str
) -> None:
    upstream.gemini.script(respond(b"", 407))

    got = call(server, provider)

    assert got.status_and_code == (502, "upstream_unreachable")
    assert UNREACHABLE[provider][0] in (None, told(got))
    assert [each.key for each in upstream.openai.requests] == []
    assert [each.key for each in upstream.gemini.requests] in ([], [None])


OK = b"HTTP/1.1 200 OK\r\n"
HINTS = response_head(103, {"link": "</>"})
HALF = response_head(200, {"transfer-encoding": "chunked"}) + chunk(b"{")
SILENT = "The upstream was silent for longer than 0.5 s (network.timeout)"
NOT_CONNECTED = "The upstream accepted no connection within 0.5 s (network.timeout)"
# The provider, and what the upstream writes, with a tenth of a second in between.
SLOW: dict[str, tuple[str, list[Step]]] = {
    "deaf": ("deaf", []),
    "silent": ("reading", [SILENCE]),
    "silent in its answer": ("impatient", [HALF, SILENCE]),
    "silent after a 1xx": ("impatient", [HINTS, SILENCE]),
    "a head that drips": ("impatient", [OK, *[b"x-a: b\r\n"] * 200]),
}


@pytest.mark.parametrize(("provider", "steps"), SLOW.values(), ids=SLOW)
def test_an_upstream_that_is_silent_for_too_long_is_a_timeout(
    server: Server, upstream: Upstream, provider: str, steps: list[Step]
) -> None:
    upstream.openai.pause = 0.1
    upstream.openai.script(*steps)
    began = time.monotonic()

    got = call(server, provider)

    assert got.status_and_code == (504, "upstream_timeout")
    assert told(got) in (SILENT, NOT_CONNECTED)
    assert 0.4 < time.monotonic() - began < 6
    assert all(each.disconnected.wait(2) for each in upstream.openai.requests)


TOO_MANY = "The upstream's response is not valid HTTP: more than 16 interim responses"


@pytest.mark.parametrize(("count", "status"), [(16, 201), (17, 502)])
def test_interim_answers_are_not_the_answer(
    server: Server, upstream: Upstream, count: int, status: int
) -> None:
    upstream.openai.script(HINTS * count + respond(b"{}", 201), times=2)

    got = [call(server, "openai") for _ in range(2)]

    assert [each.status for each in got] == [status] * 2
    assert status == 201 or told(got[0]) == TOO_MANY


def test_a_cookie_is_kept_for_nobody(server: Server, upstream: Upstream) -> None:
    upstream.openai.script(respond(headers={"set-cookie": "a=b"}), times=2)

    assert [call(server, "named").status for _ in range(2)] == [200, 200]
    assert {each.header("cookie") for each in upstream.openai.requests} == {None}


def test_callers_share_connections_and_no_keys(
    client: httpx.Client, upstream: Upstream
) -> None:
    def call(number: int) -> None:
        body = chat(user=f"sk-{number}", stream=number % 2 == 0)
        client.post(CHAT, json=body, headers=bearer(f"sk-{number}"))

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(call, range(64)))

    arrived = {each.json["user"]: each.key for each in upstream.openai.requests}
    assert arrived == {f"sk-{number}": f"sk-{number}" for number in range(64)}
    assert upstream.openai.connections <= 8


def test_what_waits_in_the_kernel_is_seen_before_a_connection_is_used(
    upstream: Upstream,
) -> None:
    """A loop that was busy has not read the end of a connection that stood idle."""
    pinned = Pinned(ProviderConfig(base_url=upstream.openai.url))
    sent = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
    upstream.openai.script(respond(), times=2)

    async def call_twice() -> None:
        for _ in range(2):
            response = await pinned.pool.send(sent, b"{}")
            await response.read()
            # These block the loop, which so cannot notice what the mock does.
            assert upstream.openai.requests[0].responded.wait(5)
            upstream.openai.drop_connections()
        await pinned.pool.close()

    asyncio.run(call_twice())

    assert len(upstream.openai.requests) == 2


@pytest.mark.parametrize("kind", [JSON, wire.EVENTS], ids=["regular", "streamed"])
@pytest.mark.parametrize("unasked", [respond(b"not yours"), b"HTTP/1.1 200", b"\r\n"])
def test_what_comes_unasked_is_nobodys_answer(
    client: httpx.Client, upstream: Upstream, unasked: bytes, kind: dict[str, str]
) -> None:
    """It would be the next caller's, and each later answer that of the call before."""
    gate, mine = Gate(), respond(b"mine", headers=kind)
    upstream.openai.script(mine + unasked)
    upstream.openai.script(mine, gate, unasked)
    upstream.openai.script(respond(b"yours"), times=2)
    call = partial(client.post, CHAT, json=chat(), headers=bearer())

    bodies = [call().content for _ in range(2)]
    gate.open()
    assert upstream.openai.requests[1].responded.wait(5)
    # The server's loop reads what came before this call.
    client.post(CHAT, **OTHER_VENDOR)
    bodies += [call().content for _ in range(2)]

    assert bodies == [b"mine", b"mine", b"yours", b"yours"]
    assert len(upstream.openai.requests) == 4


def test_a_vendor_that_hangs_costs_no_other_vendor_anything(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    upstream.openai.drop_connections()
    upstream.openai.script(SILENCE, times=None)

    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(RawConnection(server.port)).send(http.CHAT_REQUEST)
        upstream.openai.wait_requests(100)
        others = [client.post(CHAT, **OTHER_VENDOR) for _ in range(20)]
        assert {each.status_code for each in others} == {200}
        assert upstream.openai.open_connections == 100

    http.eventually(
        lambda: upstream.openai.open_connections == 0, "the upstream is disconnected"
    )
