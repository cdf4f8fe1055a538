"""What `network.headers`, `api_key` and `forward_headers` add to a call."""

import httpx
import pytest

from tests.calls import BEARER, KEY, call, chat, provider_data
from tests.server import Server
from tests.upstream import Request, Upstream

pytest_plugins = ["tests.variants"]


def _arrived(
    server: Server, upstream: Upstream, http: httpx.Client, headers: dict[str, str]
) -> Request:
    """Send the headers with a call of the provider of the test; give what arrived."""
    model = headers.pop("model")
    call(http, server.url, chat(f"{model}/gpt-4o"), headers=headers)
    (arrived,) = upstream.openai.calls
    return arrived


def test_headers_of_the_provider_are_added(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """To each call, before those that the caller sends or the relay sets."""
    sent = {"model": "with-headers", "OpenAI-Project": "mine", "OpenAI-Beta": "b"}

    arrived = _arrived(various_server, upstream, http, sent | BEARER)

    names = ["x-team", "accept", "openai-project", "openai-beta", "authorization"]
    expected = [["blue"], ["application/json"], ["p"], ["b"], [f"Bearer {KEY}"]]
    assert expected == [arrived.header_values(name) for name in names]


@pytest.mark.parametrize(
    "sent", [{}, BEARER, provider_data(passthrough_api_key=KEY)], ids=str
)
def test_a_configured_key_goes_before_the_callers(
    various_server: Server, upstream: Upstream, http: httpx.Client, sent: dict[str, str]
) -> None:
    """As in the stock adapter; such a provider needs no key of the caller."""
    arrived = _arrived(various_server, upstream, http, {"model": "with-key"} | sent)

    assert arrived.header_values("authorization") == ["Bearer sk-of-the-operator"]


def test_provider_data_is_forwarded_as_configured(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """`forward_headers` names what goes into which header; nothing else goes on."""
    sent = provider_data(token="Token t", tenant="blue", other="red")  # noqa: S106 - made up

    arrived = _arrived(various_server, upstream, http, {"model": "forwarding"} | sent)

    headers = {name.decode().lower(): value.decode() for name, value in arrived.headers}
    assert (headers["authorization"], headers["x-tenant"]) == ("Token t", "blue")
    assert "red" not in headers.values()


def test_a_key_goes_before_what_is_forwarded(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """There is one `Authorization`, and it is the key's."""
    sent = provider_data(token="t", tenant="blue", passthrough_api_key=KEY)  # noqa: S106 - made up

    arrived = _arrived(various_server, upstream, http, {"model": "forwarding"} | sent)

    names = ["authorization", "x-tenant"]
    values = [arrived.header_values(name) for name in names]
    assert [[f"Bearer {KEY}"], ["blue"]] == values


def test_nothing_to_forward_is_no_key(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Provider data without what `forward_headers` names holds no key."""
    sent = provider_data(other="red")

    answer = call(http, various_server.url, chat("forwarding/gpt-4o"), headers=sent)

    assert answer.error_code == (401, "missing_api_key")
    assert upstream.openai.calls == []
