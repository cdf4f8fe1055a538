"""`passthrough_url` in provider data: only the provider's own upstream is accepted."""

import pytest

from tests.support.http import KEYS, Response, call_model, provider_data
from tests.support.server import Server
from tests.support.upstream import Upstream

pytestmark = pytest.mark.providers(
    {
        "beta-path": {"base_url": "${env.OPENAI_UPSTREAM_URL}/v1beta/x/"},
        "other-path": {"base_url": "${env.OPENAI_UPSTREAM_URL}/x"},
    }
)


def call(server: Server, url: object, provider: str = "openai") -> Response:
    ((name, value),) = provider_data(passthrough_url=url).items()
    return call_model(server.port, f"{provider}/m-1", f"{name}: {value}".encode())


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        pytest.param("openai", "", id="scheme-and-host"),
        pytest.param("openai", "/v1/", id="with-version"),
        pytest.param("beta-path", "/", id="scheme-and-host-of-longer-url"),
        pytest.param("beta-path", "/v1beta/x", id="versioned-path"),
        pytest.param("other-path", "/x", id="path"),
        pytest.param("other-path", "/x/v1", id="path-and-version"),
    ],
)
def test_passthrough_url_equal_to_upstream_is_accepted(
    server: Server, upstream: Upstream, provider: str, path: str
) -> None:
    response = call(server, upstream.openai.url + path, provider)

    assert response.status == 200
    assert upstream.openai.request.key == KEYS["openai"]


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("", id="empty"),
        pytest.param("https://{host}", id="other-scheme"),
        pytest.param("http://me@{host}", id="with-user"),
        pytest.param("http://{host}/v2", id="other-path"),
        pytest.param("http://127.0.0.1:{other}", id="upstream-of-another-provider"),
    ],
)
def test_passthrough_url_other_than_upstream_is_rejected(
    server: Server, upstream: Upstream, template: str
) -> None:
    host = upstream.openai.url.removeprefix("http://")
    url = template.format(host=host, other=upstream.gemini.port)

    response = call(server, url)

    assert response.status_and_code == (400, "upstream_not_allowed")
    assert upstream.openai.url in response.error["message"]
    assert upstream.requests == []


def test_passthrough_url_that_is_not_a_string_is_rejected(
    server: Server, upstream: Upstream
) -> None:
    response = call(server, 7)

    assert response.status_and_code == (400, "invalid_provider_data")
    assert response.error["param"] == "passthrough_url"
    assert upstream.requests == []
