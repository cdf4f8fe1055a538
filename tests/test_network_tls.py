"""Whose certificate is believed, and which is shown, is what `network.tls` says."""

import httpx
import pytest

from tests.calls import KEY, call, chat
from tests.server import Server
from tests.upstream import Upstream

pytest_plugins = ["tests.variants"]

UNTRUSTED = {
    "message": "No TLS connection to the upstream: its certificate or ours failed",
    "type": "server_error",
    "param": None,
    "code": "upstream_unreachable",
}


@pytest.mark.parametrize(
    "provider", ["tls-trusted", "tls-unverified", "tls-newest", "tls-mutual"]
)
def test_an_upstream_that_is_trusted_is_called(
    various_server: Server, upstream: Upstream, http: httpx.Client, provider: str
) -> None:
    """By an authority of one's own, or blindly; with a certificate if it asks one."""
    answer = call(http, various_server.url, chat(f"{provider}/gpt-4o"))

    (arrived,) = upstream.openai.calls
    assert (200, KEY, chat("gpt-4o")) == (answer.status, arrived.key, arrived.body)


@pytest.mark.parametrize(
    "provider", ["tls-default-trust", "tls-other-authority", "tls-other-host"]
)
def test_an_upstream_that_is_not_trusted_gets_nothing(
    various_server: Server, upstream: Upstream, http: httpx.Client, provider: str
) -> None:
    """Signed by an unknown authority, or for another host: 502, and no key is sent."""
    answer = call(http, various_server.url, chat(f"{provider}/gpt-4o"))

    assert (answer.status, answer.error, upstream.openai.calls) == (502, UNTRUSTED, [])


@pytest.mark.parametrize("provider", ["tls-nameless-caller", "tls-too-old"])
def test_a_handshake_that_fails_is_an_error_of_the_way(
    various_server: Server, upstream: Upstream, http: httpx.Client, provider: str
) -> None:
    """The upstream wants a certificate that is not there, or its TLS is too old."""
    answer = call(http, various_server.url, chat(f"{provider}/gpt-4o"))

    assert answer.error_code == (502, "upstream_unreachable")
    assert upstream.openai.calls == []


def test_trust_is_not_shared_between_providers(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A connection that one provider may use stays closed to another, in one pool."""
    answers = [
        call(http, various_server.url, chat(f"{provider}/gpt-4o"))
        for provider in ("tls-unverified", "tls-default-trust", "tls-other-authority")
    ]

    assert [answer.status for answer in answers] == [200, 502, 502]
    assert len(upstream.openai.calls) == 1
