"""`X-Forwarded-For` is used only from proxies in FORWARDED_ALLOW_IPS."""

from tests.support.http import exchange, request
from tests.support.run_yaml import SMALL_LIMITS
from tests.support.server import Server

FORWARDED = b"X-Forwarded-For: 203.0.113.7"


def logged_address(server: Server, path: str) -> str:
    exchange(server.port, request(b"GET", path, FORWARDED))
    (entry,) = server.wait_access_log(path=path)
    return str(entry["client"]).partition(":")[0]


@SMALL_LIMITS
def test_forwarded_address_of_allowed_proxy_is_logged(server: Server) -> None:
    assert logged_address(server, "/v1/models/allowed") == "203.0.113.7"


def test_forwarded_address_is_ignored_by_default(server: Server) -> None:
    """Uvicorn's own default would trust any client on this machine."""
    assert logged_address(server, "/v1/models/default") == "127.0.0.1"
