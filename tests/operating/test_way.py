"""The way to a vendor: through a proxy, to a certificate of a company's authority."""

import shutil
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest

from tests.calls import call, chat
from tests.certificates import Authority
from tests.operating import lines
from tests.server import Server
from tests.upstream import Upstream
from tests.way import Proxy, TlsFront, listening

SECTIONS = ("A company's authority", "A proxy")


class Far(NamedTuple):
    """The server, and what stands between it and the vendor."""

    server: Server
    front: TlsFront
    proxy: Proxy


@pytest.fixture(scope="module")
def far(
    running_upstream: Upstream,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Far]:
    """OpenAI shows a certificate of the authority; `openai` alone has the lines."""
    directory = tmp_path_factory.mktemp("far")
    work = tmp_path_factory.mktemp("work")
    shutil.copy(authority.file, work / "company-ca.pem")
    shown = authority.issue("localhost").for_serving()
    front, proxy = TlsFront(running_upstream.openai.port, shown), Proxy()
    with listening(front, proxy):
        variables = running_upstream.environment | {
            "OPENAI_UPSTREAM_URL": f"https://localhost:{front.port}",
            "HTTPS_PROXY": f"http://user:secret@127.0.0.1:{proxy.port}",
        }
        config = lines.run_yaml(directory, SECTIONS)
        with Server(
            directory, run_yaml=config, variables=variables, work=work
        ) as running:
            yield Far(running, front, proxy)


def test_the_vendor_is_reached_through_the_proxy(
    far: Far, upstream: Upstream, http: httpx.Client
) -> None:
    """The proxy tunnels, with the name and password of its URL, and sees no key."""
    answer = call(http, far.server.url, chat("openai/gpt-4o"))
    (head,) = far.proxy.heads
    assert (answer.status, len(upstream.openai.calls)) == (200, 1)
    assert far.proxy.asked_for == [f"CONNECT localhost:{far.front.port}"]
    assert "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in head
    assert "Bearer" not in head


def test_other_providers_do_not_have_the_lines(
    far: Far, upstream: Upstream, http: httpx.Client
) -> None:
    """Neither the authority nor the proxy is theirs; none is from the environment."""
    before = list(far.proxy.heads)
    answers = [
        call(http, far.server.url, chat(model))
        for model in ("openai-mini/gpt-4o-mini", "gemini/gemini-2.5-flash-lite")
    ]
    assert answers[0].error_code == (502, "upstream_unreachable")
    assert (answers[1].status, upstream.openai.calls) == (200, [])
    assert before == far.proxy.heads
