"""Rate limits, with a token in front, and the log at its most talkative."""

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.calls import BEARER, call, chat, provider_data
from tests.operating import lines
from tests.operating.conftest import Identity
from tests.server import Server
from tests.upstream import Upstream

TOKEN = "A token of one's own in front"  # noqa: S105 - a heading
SECTIONS = ("Rate limits", TOKEN, "JSON logs, debug logs")
LIMIT = 100


@pytest.fixture(scope="module")
def limited(
    running_upstream: Upstream,
    identity: Identity,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """The server, of which this address has used up its requests."""
    directory = tmp_path_factory.mktemp("limited")
    config = lines.run_yaml(directory, SECTIONS)
    variables = running_upstream.environment | identity.variables
    with Server(directory, run_yaml=config, variables=variables) as running:
        yield running


@pytest.fixture(scope="module")
def used_up(limited: Server, http: httpx.Client) -> list[int]:
    """The statuses of one request more than the limit, one after the other."""
    health = f"{limited.url}/v1/health"
    return [http.get(health).status_code for _ in range(LIMIT + 1)]


def test_requests_beyond_the_limit_are_refused(
    limited: Server, used_up: list[int]
) -> None:
    """A hundred are let in, with those of the harness when the server came up."""
    answered = re.findall(r'"path": ?"/v1/health", ?"status": ?200', limited.log)
    assert (len(answered), used_up[-1]) == (LIMIT, 429)


@pytest.mark.usefixtures("used_up")
def test_a_token_does_not_lift_the_limit(
    limited: Server, http: httpx.Client, identity: Identity, upstream: Upstream
) -> None:
    """The address counts, also for whoever has a good token and a key."""
    headers = {"Authorization": f"Bearer {identity.token}"}
    headers |= provider_data(passthrough_api_key="a key")
    answer = call(http, limited.url, chat(), headers=headers)
    assert (answer.status, answer.error) == (429, {"message": "Quota exceeded"})
    assert upstream.openai.calls == []


@pytest.mark.usefixtures("used_up")
def test_health_is_refused_as_well(limited: Server, http: httpx.Client) -> None:
    """Who watches the server from this address is refused with the others."""
    assert http.get(f"{limited.url}/v1/health").status_code == 429


def test_the_log_tells_more(limited: Server, http: httpx.Client) -> None:
    """Lines of the level debug are there, and neither key nor prompt in them."""
    call(http, limited.url, chat(), headers=BEARER)
    log = limited.log
    marks = ('"level": "debug"', BEARER["Authorization"], "hello")
    assert [mark in log for mark in marks] == [True, False, False]
