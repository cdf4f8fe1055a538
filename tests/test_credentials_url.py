"""`passthrough_url` may name the pinned upstream, and moves no call elsewhere."""

import httpx
import pytest

from lls_openai.errors import UpstreamNotAllowed
from lls_openai.upstream import pin_upstream
from tests.calls import KEY, call, chat, provider_data
from tests.server import Server
from tests.upstream import Upstream

OPENAI = "https://api.openai.com"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai"
ANTHROPIC = "https://api.anthropic.com/v1/"

ACCEPTED = {
    OPENAI: [
        OPENAI,
        f"{OPENAI}/",
        f"{OPENAI}/v1",
        f"{OPENAI}/v1/",
        f"{OPENAI}:443",
        "HTTPS://API.OpenAI.com/v1",
    ],
    GEMINI: [
        GEMINI,
        f"{GEMINI}/",
        "https://generativelanguage.googleapis.com",
        "https://generativelanguage.googleapis.com/",
    ],
    ANTHROPIC: ["https://api.anthropic.com", "https://api.anthropic.com/v1"],
}
REFUSED = [
    "",
    " ",
    "api.openai.com",
    "//api.openai.com",
    "http://api.openai.com",
    "ftp://api.openai.com",
    "file:///etc/passwd",
    "https://api.openai.com:8443",
    "https://api.openai.com:80",
    "https://api.openai.com.",
    "https://api.openai.com.evil.example",
    "https://evil.example/api.openai.com",
    "https://evil.example#https://api.openai.com",
    "https://api.openai.com@evil.example",
    "https://user@api.openai.com",
    "https://user:secret@api.openai.com",
    "https://api.openai.com/v2",
    "https://api.openai.com/v1/chat/completions",
    "https://api.openai.com/v1beta/openai",
    "https://api.openai.com?x=1",
    "https://api.openai.com#x",
    "https://api.openai.com%2e",
    "https://api%2eopenai%2ecom",
    "https://ap\u0456.openai.com",
    "https://api.openai.com\\@evil.example",
    "https://127.0.0.1",
    "https://[::1]",
    "https://169.254.169.254/latest/meta-data",
    "https://[api.openai.com",
    "https://api.openai.com:port",
]
BASES = {
    "https://api.openai.com": "https://api.openai.com/v1",
    "https://api.openai.com/": "https://api.openai.com/v1",
    "https://api.openai.com/v1": "https://api.openai.com/v1",
    "https://api.openai.com/v1/": "https://api.openai.com/v1",
    GEMINI: GEMINI,
    f"{GEMINI}/": GEMINI,
    "https://gateway.example/v2": "https://gateway.example/v2",
    "https://gateway.example/v1alpha1/x": "https://gateway.example/v1alpha1/x",
    "https://gateway.example/v10": "https://gateway.example/v10",
    "https://gateway.example/openai": "https://gateway.example/openai/v1",
    "https://gateway.example/vendor": "https://gateway.example/vendor/v1",
    "https://gateway.example/v1x": "https://gateway.example/v1x/v1",
    "https://gateway.example/dev1": "https://gateway.example/dev1/v1",
    "https://v1.gateway.example": "https://v1.gateway.example/v1",
    "http://127.0.0.1:8080": "http://127.0.0.1:8080/v1",
}


@pytest.mark.parametrize(("given", "base"), BASES.items())
def test_a_version_is_added_where_there_is_none(given: str, base: str) -> None:
    """`/v1`, behind the path; a path that names a version stays as it is."""
    assert base == str(pin_upstream(given, None).base)


@pytest.mark.parametrize(
    ("given", "url"), [(given, url) for given, urls in ACCEPTED.items() for url in urls]
)
def test_the_pinned_upstream_may_be_named(given: str, url: str) -> None:
    """As it is configured, with or without the version, or as scheme and host alone."""
    pin_upstream(given, None).check(url)


@pytest.mark.parametrize("url", REFUSED)
def test_any_other_place_is_refused(url: str) -> None:
    """And so is what only looks like it, or is no URL."""
    with pytest.raises(UpstreamNotAllowed):
        pin_upstream(OPENAI, None).check(url)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_a_call_that_names_the_upstream_is_answered(
    server: Server, upstream: Upstream, http: httpx.Client, path: str
) -> None:
    """It goes where it would have gone."""
    url = upstream.openai.url + path
    headers = provider_data(passthrough_api_key=KEY, passthrough_url=url)

    answer = call(http, server.url, chat(), headers=headers)

    (arrived,) = upstream.openai.calls
    assert (
        answer.status,
        arrived.path,
        arrived.key,
    ) == (200, "/v1/chat/completions", KEY)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_names_another_place_goes_nowhere(
    server: Server, upstream: Upstream, http: httpx.Client, *, stream: bool
) -> None:
    """400, with the upstream that it may name; not even another provider's counts."""
    headers = provider_data(
        passthrough_api_key=KEY, passthrough_url=upstream.anthropic.url
    )

    answer = call(http, server.url, chat(stream=stream), headers=headers)

    expected = {
        "message": "passthrough_url is not this provider's upstream, which is "
        f"{upstream.openai.url}: leave it out or send that",
        "type": "invalid_request_error",
        "param": "passthrough_url",
        "code": "upstream_not_allowed",
    }
    assert (400, expected) == (answer.status, answer.error)
    assert [vendor.calls for vendor in upstream.vendors] == [[], [], []]


def test_null_names_nothing(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A client may send the field empty."""
    headers = provider_data(passthrough_api_key=KEY, passthrough_url=None)

    assert call(http, server.url, chat(), headers=headers).status == 200
    assert len(upstream.openai.calls) == 1
