"""The way to an upstream leads through a proxy where `network.proxy` says so."""

import base64

import httpx
import pytest
from llama_stack.providers.utils.inference.model_registry import NetworkConfig

from lls_openai.upstream import pin_upstream
from tests.calls import KEY, call, chat, open_call
from tests.scripts import DONE, streaming
from tests.server import Server
from tests.upstream import Gate, Upstream
from tests.way import Proxy

pytest_plugins = ["tests.variants"]


@pytest.fixture(autouse=True)
def forget_heads(proxy: Proxy) -> None:
    """Each test sees its own requests at the proxy."""
    proxy.heads.clear()


def _target(upstream: Upstream) -> str:
    return f"POST http://127.0.0.1:{upstream.openai.port}/v1/chat/completions"


@pytest.mark.parametrize("provider", ["proxied", "proxied-by-name", "proxied-http"])
def test_a_call_goes_through_the_proxy(
    various_server: Server,
    upstream: Upstream,
    http: httpx.Client,
    proxy: Proxy,
    provider: str,
) -> None:
    """The proxy is asked for the pinned upstream; the call arrives as ever."""
    answer = call(http, various_server.url, chat(f"{provider}/gpt-4o"))

    (arrived,) = upstream.openai.calls
    assert (200, [_target(upstream)], KEY, chat("gpt-4o")) == (
        answer.status,
        proxy.asked_for,
        arrived.key,
        arrived.body,
    )


def test_the_proxys_password_is_for_the_proxy(
    various_server: Server, upstream: Upstream, http: httpx.Client, proxy: Proxy
) -> None:
    """It is sent there."""
    call(http, various_server.url, chat("proxied-by-name/gpt-4o"))

    credentials = base64.b64encode(b"user:secret").decode()
    (arrived,) = upstream.openai.calls
    assert f"Proxy-Authorization: Basic {credentials}\r\n" in proxy.heads[0]
    assert arrived.key == KEY


@pytest.mark.parametrize("provider", ["proxied-https-only", "not-proxied", "openai"])
def test_a_call_goes_around_the_proxy(
    various_server: Server, upstream: Upstream, http: httpx.Client, provider: str
) -> None:
    """A proxy for another scheme, or one that the upstream is exempt from."""
    answer = call(http, various_server.url, chat(f"{provider}/gpt-4o"))

    assert (answer.status, len(upstream.openai.calls)) == (200, 1)


def test_tls_goes_through_the_proxy_in_a_tunnel(
    various_server: Server, upstream: Upstream, http: httpx.Client, proxy: Proxy
) -> None:
    """The proxy sees a host and a port, and nothing of the call."""
    answer = call(http, various_server.url, chat("proxied-tls/gpt-4o"))

    ((method, target),) = [asked.split(" ") for asked in proxy.asked_for]
    assert (
        answer.status,
        method,
        target.partition(":")[0],
    ) == (200, "CONNECT", "127.0.0.1")
    assert len(upstream.openai.calls) == 1
    assert KEY not in "".join(proxy.heads)


def test_a_stream_comes_through_the_proxy_event_by_event(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A tunnel holds nothing back."""
    gate = Gate()
    upstream.openai.answer_with(streaming(b"data: 1\n\n", gate, DONE))
    from_here = open_call(
        http, various_server.url, chat("proxied-tls/gpt-4o", stream=True)
    )

    with from_here as stream:
        first = stream.read(1)
        gate.open()
        assert (first, stream.rest()) == (b"data: 1\n\n", DONE)


def test_a_proxy_that_is_not_there_is_an_error_of_the_way(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """502; the call goes nowhere else instead."""
    answer = call(http, various_server.url, chat("dead-proxy/gpt-4o"))

    assert answer.error_code == (502, "upstream_unreachable")
    assert upstream.openai.calls == []


@pytest.mark.parametrize(
    ("host", "no_proxy", "proxied"),
    [
        ("api.example", [], True),
        ("api.example", ["api.example"], False),
        ("API.EXAMPLE", ["api.example"], False),
        ("api.example", ["API.EXAMPLE"], False),
        ("api.example", ["example"], False),
        ("api.example", [".example"], False),
        ("api.example", ["*.example"], False),
        ("api.example", ["*"], False),
        ("myapi.example", ["api.example"], True),
        ("example", ["api.example"], True),
        ("192.0.2.7", ["192.0.2.7"], False),
        ("api.example", [""], True),
    ],
)
def test_who_is_exempt_from_the_proxy(
    host: str, no_proxy: list[str], *, proxied: bool
) -> None:
    """A name that is listed, and the names below it."""
    network = NetworkConfig(proxy={"url": "http://proxy.test", "no_proxy": no_proxy})

    assert proxied == (pin_upstream(f"https://{host}", network).proxy is not None)
