"""Another model and another vendor, behind TLS, with metrics and a log in JSON."""

import json
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple, override

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    HistogramDataPoint,
    NumberDataPoint,
)

from tests import readme
from tests.calls import BEARER, CHAT, chat
from tests.certificates import Authority
from tests.checkout import Checkout
from tests.endpoint import Endpoint, endpoint
from tests.operating import lines
from tests.operating.conftest import variables_of
from tests.server import Server
from tests.upstream import Upstream, in_background
from tests.upstream.openai import OpenAI
from tests.way import TlsFront, listening

SECTIONS = ("TLS", "Another model", "Another vendor")


class Mistral(OpenAI):
    """A vendor that this project does not know."""

    name = "Mistral"
    models = (*OpenAI.models[:-1], "mistral-small-latest")


class TlsServer(Server):
    """The server, with TLS."""

    @property
    @override
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @override
    def _is_healthy(self) -> bool:
        try:
            answer = httpx.get(f"{self.url}/v1/health", verify=False, trust_env=False)  # noqa: S501 - whether it is up, no more
        except httpx.HTTPError:
            return False
        return answer.is_success


class Extended(NamedTuple):
    """The server, the fourth vendor, the collector, and who knows the certificates."""

    server: Server
    fourth: Upstream
    collector: Endpoint
    http: httpx.Client
    authority: Authority


@pytest.fixture(scope="module")
def extended(
    running_upstream: Upstream,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Extended]:
    """The fourth vendor's certificate is trusted by SSL_CERT_FILE."""
    directory = tmp_path_factory.mktemp("extended")
    work = tmp_path_factory.mktemp("work")
    certificate = authority.issue("localhost")
    shutil.copy(certificate.file, work / "server.pem")
    shutil.copy(certificate.key_file, work / "server-key.pem")
    config = lines.run_yaml(directory, SECTIONS)
    with in_background() as fourth, endpoint(lambda *_: (200, b"")) as collector:
        fourth.openai.dialect = Mistral()
        front = TlsFront(fourth.openai.port, certificate.for_serving())
        with listening(front):
            variables = running_upstream.environment | {
                "MISTRAL_UPSTREAM_URL": f"https://localhost:{front.port}/v1",
                "SSL_CERT_FILE": str(authority.file),
                "OTEL_METRIC_EXPORT_INTERVAL": "200",
            }
            variables |= _readmes_variables(collector)
            with (
                TlsServer(
                    directory, run_yaml=config, variables=variables, work=work
                ) as running,
                # Closed first: a server with TLS waits for connections that are open.
                httpx.Client(verify=authority.trusted()) as http,
            ):
                yield Extended(running, fourth, collector, http, authority)


def _readmes_variables(collector: Endpoint) -> dict[str, str]:
    """The variables of README's commands, with our collector for its collector."""
    logs = variables_of(readme.section("JSON logs, debug logs").block("sh"))
    metrics = variables_of(readme.section("Metrics").block("sh"))
    here = {
        name: value.replace("http://localhost:4318", collector.url)
        for name, value in metrics.items()
    }
    return logs | here


def test_the_model_is_listed_and_called(extended: Extended, upstream: Upstream) -> None:
    """By the vendor's name, with the name to display."""
    (model,) = [m for m in _models(extended) if m["id"] == "openai/gpt-5.6-luna"]
    answer = _ask(extended, "openai/gpt-5.6-luna")
    assert model["custom_metadata"]["display_name"] == "GPT-5.6 Luna"
    assert (answer.status_code, len(upstream.openai.calls)) == (200, 1)


def test_the_vendor_is_listed_and_called(extended: Extended) -> None:
    """The call arrives there with the caller's key, and nowhere else."""
    extended.fourth.reset()
    answer = _ask(extended, "mistral/mistral-small-latest")
    (arrived,) = extended.fourth.openai.calls
    assert "mistral/mistral-small-latest" in {m["id"] for m in _models(extended)}
    assert (answer.status_code, arrived.path) == (200, CHAT)
    assert (arrived.key, arrived.json["model"]) == (
        BEARER["Authorization"].removeprefix("Bearer "),
        "mistral-small-latest",
    )


def test_make_client_asks_the_vendor_over_tls(
    extended: Extended, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """README's command, with the authority's file and the key of the new vendor."""
    checkout = Checkout(tmp_path_factory.mktemp("client"))
    shutil.copy(extended.authority.file, checkout.path / "ca.pem")
    command = readme.section("TLS").block("sh")
    here = command.replace(":8321", f":{extended.server.port}")
    ended = checkout.run(here, MISTRAL_API_KEY="a-key")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("mistral-small-latest heard: ") == 2


def test_plain_http_is_not_answered(extended: Extended) -> None:
    """A key that is sent without TLS gets no answer."""
    url = extended.server.url.replace("https:", "http:")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url}/v1/models", headers=BEARER, trust_env=False)


def test_the_metrics_that_readme_names_arrive(
    extended: Extended, upstream: Upstream
) -> None:
    """After a streamed call with usage: each of them, and of which model it is."""
    text = readme.section("Metrics").text
    named = {word for word in readme.words(text) if word.startswith("llama_stack.")}
    usage = {"include_usage": True}
    _ask(extended, "openai/gpt-4o", stream=True, stream_options=usage)
    of_model = ("llama_stack.inference.duration_seconds", "openai/gpt-4o")

    def all_there() -> bool:
        arrived = _arrived(extended)
        return of_model in arrived and named <= {name for name, _ in arrived}

    extended.collector.wait_until(all_there)
    paths = {path for path, _ in extended.collector.posted}
    assert (len(named), paths) == (6, {"/v1/metrics"})
    assert len(upstream.openai.calls) == 1


def test_every_line_of_the_log_is_json(extended: Extended) -> None:
    """From the first one on."""
    printed = extended.server.log.splitlines()
    assert [line for line in printed if not _is_object(line)] == []
    assert printed != []


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _models(extended: Extended) -> list[dict[str, Any]]:
    url = f"{extended.server.url}/v1/models"
    models: list[dict[str, Any]] = extended.http.get(url).json()["data"]
    return models


def _ask(extended: Extended, model: str, **fields: object) -> httpx.Response:
    return extended.http.post(
        extended.server.url + CHAT, content=chat(model, **fields), headers=BEARER
    )


def _arrived(extended: Extended) -> set[tuple[str, str | None]]:
    """The metrics that arrived, each with the models that it was measured for."""
    return {
        (metric.name, _model_of(point))
        for _, body in extended.collector.posted
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in (*metric.sum.data_points, *metric.histogram.data_points)
    }


def _model_of(point: NumberDataPoint | HistogramDataPoint) -> str | None:
    """The attribute `model`."""
    values = {a.key: a.value.string_value for a in point.attributes}
    return values.get("model")
