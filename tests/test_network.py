"""The `network` block of run.yaml: TLS, proxies and timeouts towards upstreams."""

import time

import pytest

from tests.support.http import CHAT, KEYS, Response, bearer, call_model
from tests.support.network import Network
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import SILENCE, Json, Step, chunk, respond, response_head

OPENAI = "${env.OPENAI_UPSTREAM_URL}"
TLS = "${env.TLS_URL}"
OTHER_NAME = "${env.OTHER_NAME_URL}"
REFUSED = "${env.REFUSED_URL}"
UNRESOLVABLE = "${env.UNRESOLVABLE_URL}"
PROXY = "${env.PROXY_URL}"
TLS_PROXY = "${env.TLS_PROXY_URL}"
CA = {"verify": "${env.CA_FILE}"}
CLIENT_CERTIFICATE = {
    "client_cert": "${env.CERT_FILE}",
    "client_key": "${env.KEY_FILE}",
}


def provider(base_url: str, **network: object) -> Json:
    return {"base_url": base_url, "network": network}


def refusing_proxy(*no_proxy: str) -> Json:
    """Return a proxy that is not there, and the hosts that do not need it."""
    return {"url": REFUSED, "no_proxy": list(no_proxy)}


DIRECT = {
    "tls-own-authority": provider(TLS, tls=CA),
    "tls-unverified": provider(OTHER_NAME, tls={"verify": False}),
    "tls-mutual": provider("${env.MUTUAL_TLS_URL}", tls=CA | CLIENT_CERTIFICATE),
    "proxy-for-https-only": provider(OPENAI, proxy={"https": REFUSED}),
    "no-proxy-for-any-host": provider(OPENAI, proxy=refusing_proxy("a.b", "*")),
}
PROXIED = {
    # A part of a label is not a domain.
    "proxy-for-other-hosts": provider(
        OPENAI, proxy={"url": PROXY, "no_proxy": ["localhost", "27.0.0.1"]}
    ),
    "proxy-with-password": provider(
        OPENAI,
        proxy={
            "http": "http://user:proxy-secret@127.0.0.1:${env.PROXY_PORT}",
            "https": REFUSED,
        },
    ),
    "proxy-tunnel": provider(TLS, proxy={"url": PROXY, "cacert": "${env.CA_FILE}"}),
    "proxy-with-tls": provider(
        OPENAI, proxy={"url": TLS_PROXY, "cacert": "${env.CA_FILE}"}
    ),
    "proxy-with-tls-tunnel": provider(
        TLS, proxy={"url": TLS_PROXY, "cacert": "${env.CA_FILE}"}
    ),
}
UNREACHABLE = {
    "tls-public-authorities": provider(TLS),
    "tls-other-authority": provider(TLS, tls={"verify": "${env.OTHER_CA_FILE}"}),
    "tls-other-host": provider(OTHER_NAME, tls=CA),
    "tls-too-old": provider("${env.OLD_TLS_URL}", tls=CA | {"min_version": "TLSv1.3"}),
    "connection-refused": provider(REFUSED),
    "proxy-refused": provider(OPENAI, proxy={"url": REFUSED}),
    "proxy-of-other-authority": provider(TLS, proxy={"url": TLS_PROXY}),
    "proxy-unverified": provider(TLS, tls={"verify": False}, proxy={"url": TLS_PROXY}),
    "proxy-unresolvable": provider(TLS, proxy={"url": UNRESOLVABLE}),
    "proxy-refuses": provider(TLS, proxy={"https": "${env.GEMINI_UPSTREAM_URL}"}),
    # The error says who was asked: a resolver, or the proxy.
    "no-proxy-domain": provider(
        UNRESOLVABLE, proxy=refusing_proxy("b.test", "a.A.test")
    ),
    "no-proxy-pattern": provider(UNRESOLVABLE, proxy=refusing_proxy("*.test")),
    "no-proxy-mismatch": provider(
        UNRESOLVABLE, proxy=refusing_proxy("est", "b.a.test")
    ),
}
IMPATIENT = {
    "impatient": {"network": {"timeout": 0.5}},
    "impatient-read": provider(OPENAI, timeout={"connect": 60, "read": 0.5}),
    "impatient-connect": provider(
        "${env.UNRESPONSIVE_URL}", timeout={"connect": 0.5, "read": 60}
    ),
}
pytestmark = pytest.mark.providers(DIRECT | PROXIED | UNREACHABLE | IMPATIENT)


def call(server: Server, name: str) -> Response:
    ((header, value),) = bearer().items()
    return call_model(server.port, f"{name}/gpt-4o", f"{header}: {value}".encode())


@pytest.mark.parametrize("name", DIRECT)
def test_upstream_is_called_directly(
    server: Server, upstream: Upstream, network: Network, name: str
) -> None:
    network.proxy.requests.clear()

    response = call(server, name)

    assert response.status == 200, response
    assert upstream.openai.request.key == KEYS["openai"]
    assert network.proxy.targets == []


@pytest.mark.parametrize(
    "name", ["proxy-for-other-hosts", "proxy-with-password", "proxy-with-tls"]
)
def test_http_upstream_is_called_through_the_proxy(
    server: Server, upstream: Upstream, network: Network, name: str
) -> None:
    network.proxy.requests.clear()

    response = call(server, name)

    assert response.status == 200, response
    assert upstream.openai.request.key == KEYS["openai"]
    assert network.proxy.targets == [f"POST {upstream.openai.url}{CHAT}"]


@pytest.mark.parametrize("name", ["proxy-tunnel", "proxy-with-tls-tunnel"])
def test_https_upstream_is_called_through_a_tunnel_that_hides_the_key(
    server: Server, upstream: Upstream, network: Network, name: str
) -> None:
    network.proxy.requests.clear()
    host = network.env["TLS_URL"].removeprefix("https://")

    response = call(server, name)

    assert response.status == 200, response
    assert upstream.openai.request.key == KEYS["openai"]
    assert network.proxy.targets == [f"CONNECT {host}"]
    assert KEYS["openai"] not in network.proxy.requests[0]


def test_proxy_gets_the_password_of_its_url_and_the_log_does_not(
    server: Server, network: Network
) -> None:
    network.proxy.requests.clear()

    call(server, "proxy-with-password")

    # Base64 of user:proxy-secret.
    assert "Basic dXNlcjpwcm94eS1zZWNyZXQ=" in network.proxy.requests[0]
    assert "proxy-secret" not in server.log


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tls-public-authorities", "local issuer certificate"),
        ("tls-other-authority", "local issuer certificate"),
        ("tls-other-host", "IP address mismatch"),
        ("tls-too-old", "upstream"),
        ("connection-refused", "The upstream refused the connection"),
        ("proxy-refused", "The proxy refused the connection"),
        ("proxy-of-other-authority", "handshake with the proxy failed: unable to get"),
        # `network.tls` is for the upstream alone.
        ("proxy-unverified", "handshake with the proxy failed: unable to get"),
        ("proxy-unresolvable", "The proxy's host name could not be resolved"),
        ("proxy-refuses", "The proxy refused to connect to the upstream: HTTP 407"),
        ("no-proxy-domain", "could not be resolved"),
        ("no-proxy-pattern", "could not be resolved"),
        ("no-proxy-mismatch", "refused the connection"),
    ],
)
def test_connection_failure_is_reported_and_nothing_is_sent(
    server: Server, upstream: Upstream, name: str, message: str
) -> None:
    # Gemini's mock is the proxy that refuses.
    upstream.gemini.script(respond(b"", 407))

    response = call(server, name)

    assert response.status_and_code == (502, "upstream_unreachable")
    assert message in response.error["message"]
    assert [request.key for request in upstream.requests] in ([], [None])


INTERIM_RESPONSE = response_head(103, {"link": "</>"})


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        pytest.param("impatient-connect", [], id="connecting"),
        pytest.param("impatient-read", [SILENCE], id="before-response"),
        pytest.param(
            "impatient",
            [
                response_head(200, {"transfer-encoding": "chunked"}) + chunk(b"{"),
                SILENCE,
            ],
            id="in-response",
        ),
        pytest.param("impatient", [INTERIM_RESPONSE, SILENCE], id="after-1xx"),
    ],
)
def test_silent_upstream_is_a_timeout(
    server: Server, upstream: Upstream, name: str, steps: list[Step]
) -> None:
    upstream.openai.script(*steps)
    start = time.monotonic()

    response = call(server, name)

    assert response.status_and_code == (504, "upstream_timeout")
    assert "0.5 s" in response.error["message"]
    assert 0.4 < time.monotonic() - start < 6
    assert all(each.disconnected.wait(2) for each in upstream.openai.requests)


def test_trickled_response_headers_time_out(server: Server, upstream: Upstream) -> None:
    upstream.openai.pause = 0.1
    upstream.openai.script(b"HTTP/1.1 200 OK\r\n", *[b"x-a: b\r\n"] * 200)
    start = time.monotonic()

    response = call(server, "impatient")

    assert response.status_and_code == (504, "upstream_timeout")
    assert 0.4 < time.monotonic() - start < 6
    assert upstream.openai.request.disconnected.wait(2)


def test_interim_response_restarts_the_read_timeout(
    server: Server, upstream: Upstream
) -> None:
    upstream.openai.pause = 0.1
    upstream.openai.script(*[INTERIM_RESPONSE] * 10, respond(b"{}", 201))

    assert call(server, "impatient").status == 201


def test_up_to_16_interim_responses_are_skipped(
    server: Server, upstream: Upstream
) -> None:
    upstream.openai.script(INTERIM_RESPONSE * 16 + respond(b"{}", 201), times=2)

    # The second one shows that the connection can be used again.
    assert [call(server, "openai").status for _ in range(2)] == [201, 201]


def test_more_than_16_interim_responses_return_502(
    server: Server, upstream: Upstream
) -> None:
    upstream.openai.script(INTERIM_RESPONSE * 17 + respond(b"{}", 201))

    response = call(server, "openai")

    assert response.status_and_code == (502, "upstream_unreachable")
    assert "interim responses" in response.error["message"]
