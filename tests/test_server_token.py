"""With authentication in run.yaml, `Authorization` holds the server's token."""

from tests.support.http import call_model
from tests.support.run_yaml import WITH_AUTH
from tests.support.server import Server
from tests.support.upstream import Upstream

pytestmark = WITH_AUTH
X_API_KEY = b"x-api-key: sk-client"
TOKEN = b"Authorization: Bearer token-of-alice"


def test_key_without_token_is_rejected(server: Server, upstream: Upstream) -> None:
    assert call_model(server.port, "openai/m-1", X_API_KEY).status == 401
    assert upstream.requests == []


def test_token_is_not_a_key(server: Server, upstream: Upstream) -> None:
    response = call_model(server.port, "openai/m-1", TOKEN)

    assert response.status_and_code == (401, "missing_api_key")
    assert upstream.requests == []


def test_token_is_not_forwarded(server: Server, upstream: Upstream) -> None:
    call_model(server.port, "openai/m-1", TOKEN, X_API_KEY)

    assert upstream.openai.request.key == "sk-client"
