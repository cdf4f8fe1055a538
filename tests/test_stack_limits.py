"""Llama Stack's quota and its workers, with the relay in them."""

import time
from pathlib import Path

import httpx

from tests.calls import BEARER, CHAT, Answer, call, chat
from tests.conftest import StartServer
from tests.run_yaml import Json, variant
from tests.upstream import Upstream

LIMIT = 12


def _with_quota(config: Json) -> None:
    config["server"]["quota"] = {
        "kvstore": {"backend": "kv_memory", "namespace": "quota"},
        "anonymous_max_requests": LIMIT,
        "authenticated_max_requests": LIMIT,
        "period": "day",
    }


def test_the_quota_ends_calls_before_the_relay(
    start_server: StartServer, upstream: Upstream, http: httpx.Client, tmp_path: Path
) -> None:
    """Beyond it, Llama Stack answers 429 and nothing reaches the upstream."""
    running = start_server(run_yaml=variant(tmp_path, _with_quota))

    answers: list[Answer] = []
    while len(answers) <= LIMIT and (not answers or answers[-1].status == 200):
        answers.append(call(http, running.url, chat()))

    # One request, at least, was the question whether the server is there.
    passed = len(answers) - 1
    assert (answers[-1].status, answers[-1].error["message"]) == (429, "Quota exceeded")
    assert 0 < passed < LIMIT
    assert passed == len(upstream.openai.calls)


def test_several_workers_share_the_port(
    start_server: StartServer, upstream: Upstream
) -> None:
    """With `LLS_WORKERS=2` two processes answer, each with a pool of its own."""
    running = start_server(variables={"LLS_WORKERS": "2"})
    deadline = time.monotonic() + 30
    statuses: set[int] = set()
    pools: set[int] = set()

    # A connection for each call: which worker takes it is the system's choice.
    while len(pools) < 2 and time.monotonic() < deadline:
        with httpx.Client(trust_env=False, verify=False) as caller:  # noqa: S501 - no TLS
            body = chat(stream=len(statuses) % 2 == 0)
            answer = caller.post(running.url + CHAT, content=body, headers=BEARER)
        statuses.add(answer.status_code)
        pools = {arrived.connection.number for arrived in upstream.openai.calls}
        time.sleep(0.02)

    assert ({200}, 2) == (statuses, len(pools))
    assert running.stop() == 0
