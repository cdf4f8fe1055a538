"""Which headers the upstream gets: those of design, and no other."""

import re

import httpx
import pytest

from tests.calls import BEARER, CHAT, KEY, ROUTES, call, chat, provider_data
from tests.scripts import answering
from tests.server import Server
from tests.upstream import Upstream

RELAYED = [
    ("OpenAI-Organization", "org-1"),
    ("OpenAI-Project", "proj_1"),
    ("OpenAI-Beta", "assistants=v2"),
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "first-beta"),
    ("Anthropic-Beta", "second-beta, third-beta"),
    ("Idempotency-Key", "an id"),
    ("X-Client-Request-Id", "another id"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "vendor=value"),
    ("Accept-Encoding", "gzip;q=1.0, br"),
]
NOT_RELAYED = {
    "Accept": "application/json",
    "Accept-Language": "de",
    "Connection": "keep-alive, X-Hop",
    "Content-Type": "application/json; charset=utf-8",
    "Cookie": "session=1",
    "Forwarded": "for=192.0.2.1",
    "Keep-Alive": "timeout=5",
    "Origin": "https://page.example",
    "Proxy-Authorization": "Basic eDp5",
    "Referer": "https://page.example/",
    "TE": "trailers",
    "User-Agent": "OpenAI/Python 3.0.0",
    "Via": "1.1 proxy.example",
    "X-Api-Key": "sk-elsewhere",
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Host": "page.example",
    "X-Hop": "1",
    "X-Real-IP": "192.0.2.1",
    "X-Stainless-Lang": "python",
    "api-key": "sk-elsewhere",
    "x-goog-api-key": "sk-elsewhere",
}


def _arrived(
    server: Server,
    upstream: Upstream,
    http: httpx.Client,
    headers: list[tuple[str, str]],
    route: str = CHAT,
) -> list[tuple[str, str]]:
    """Send a request and give the headers that arrived, names in lower case, sorted."""
    upstream.openai.answer_with(answering())
    call(http, server.url, chat("openai/m-1"), route=route, headers=headers)
    (arrived,) = upstream.openai.calls
    return sorted((n.decode().lower(), v.decode()) for n, v in arrived.headers)


def _own(upstream: Upstream, body: bytes) -> list[tuple[str, str]]:
    return [
        ("host", f"127.0.0.1:{upstream.openai.port}"),
        ("content-length", str(len(body))),
        ("content-type", "application/json"),
        ("accept", "*/*"),
        ("authorization", f"Bearer {KEY}"),
    ]


@pytest.mark.parametrize("route", ROUTES)
def test_the_headers_of_design_are_relayed(
    server: Server, upstream: Upstream, http: httpx.Client, route: str
) -> None:
    """With their values, twice where they came twice, beside what every call needs."""
    arrived = _arrived(server, upstream, http, [*BEARER.items(), *RELAYED], route)

    relayed = [(name.lower(), value) for name, value in RELAYED]
    own = _own(upstream, chat("m-1"))
    assert sorted([*own, *relayed]) == [h for h in arrived if h[0] != "user-agent"]


@pytest.mark.parametrize("carrier", ["bearer", "provider data"])
def test_no_other_header_is_relayed(
    server: Server, upstream: Upstream, http: httpx.Client, carrier: str
) -> None:
    """No cookie, no address, no key meant for elsewhere; nor what carried this key."""
    key = BEARER if carrier == "bearer" else provider_data(passthrough_api_key=KEY)

    arrived = _arrived(server, upstream, http, list((key | NOT_RELAYED).items()))

    own = _own(upstream, chat("m-1"))
    assert sorted(own) == [h for h in arrived if h[0] != "user-agent"]


def test_a_call_says_who_makes_it(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """The user agent is this project with its version, whoever the caller is."""
    arrived = _arrived(
        server, upstream, http, [*BEARER.items(), ("User-Agent", "curl/8")]
    )

    (agent,) = [value for name, value in arrived if name == "user-agent"]
    assert re.fullmatch(r"lls-openai/\d+\.\d+\.\d+", agent)


def test_a_header_in_other_letters_is_left_out(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """What is not ASCII has no agreed meaning in a header, and does not go on."""
    odd = httpx.Request(
        "POST",
        server.url + CHAT,
        content=chat(),
        headers=[
            (b"authorization", f"Bearer {KEY}".encode()),
            (b"openai-project", "pröj".encode()),
            (b"openai-organization", b"org-1"),
        ],
    )

    http.send(odd)

    (arrived,) = upstream.openai.calls
    names = ("openai-organization", "openai-project")
    assert [arrived.header_values(name) for name in names] == [["org-1"], []]
