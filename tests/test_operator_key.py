"""Keys and headers of the operator, in run.yaml, and how the client's go with them."""

import pytest

from tests.support.http import CHAT, MESSAGES, call_model
from tests.support.server import Server
from tests.support.upstream import Upstream

FORWARD = {"forward_headers": {"vendor_key": "X-Vendor-Key"}}
pytestmark = pytest.mark.providers(
    {
        "keyed": {"api_key": "sk-operator"},
        "forwards": FORWARD,
        "forwards-keyed": FORWARD
        | {
            "api_key": "sk-operator",
            # The first two lose to forwarded headers and the key.
            "network": {
                "headers": {
                    "X-Vendor-Key": "unused",
                    "Authorization": "unused",
                    "openai-project": "operator",
                }
            },
        },
    }
)

BEARER = b"Authorization: Bearer sk-client"
X_API_KEY = b"x-api-key: sk-client"
VENDOR_KEY = b'X-LlamaStack-Provider-Data: {"vendor_key":"v","other":"o"}'


def sent_credentials(upstream: Upstream) -> dict[str, str]:
    names = ("authorization", "x-api-key", "x-vendor-key", "openai-project")
    headers = {name: upstream.openai.request.header(name) for name in names}
    return {name: value for name, value in headers.items() if value}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(CHAT, {"authorization": "Bearer sk-operator"}, id="bearer"),
        pytest.param(MESSAGES, {"x-api-key": "sk-operator"}, id="x-api-key"),
    ],
)
@pytest.mark.parametrize(
    "headers", [pytest.param([], id="no-key"), pytest.param([BEARER], id="client-key")]
)
def test_api_key_of_run_yaml_replaces_the_clients(
    server: Server,
    upstream: Upstream,
    headers: list[bytes],
    path: str,
    expected: dict[str, str],
) -> None:
    call_model(server.port, "keyed/m-1", *headers, path=path)

    assert sent_credentials(upstream) == expected


def test_forwarded_provider_data_needs_no_key(
    server: Server, upstream: Upstream
) -> None:
    call_model(server.port, "forwards/m-1", VENDOR_KEY)

    assert sent_credentials(upstream) == {"x-vendor-key": "v"}


def test_forwarded_provider_data_is_sent_beside_the_key(
    server: Server, upstream: Upstream
) -> None:
    call_model(server.port, "forwards/m-1", VENDOR_KEY, X_API_KEY, path=MESSAGES)

    assert sent_credentials(upstream) == {"x-vendor-key": "v", "x-api-key": "sk-client"}


def test_forwarded_data_and_key_replace_configured_headers_which_replace_the_clients(
    server: Server, upstream: Upstream
) -> None:
    project = b"OpenAI-Project: client"

    call_model(server.port, "forwards-keyed/m-1", VENDOR_KEY, project)

    assert sent_credentials(upstream) == {
        "x-vendor-key": "v",
        "authorization": "Bearer sk-operator",
        "openai-project": "operator",
    }
