"""The tree of errors is complete: as it is drawn, and for all an HTTP client raises."""

import asyncio
import json
import re
import ssl

import aiohttp
import pytest
from aiohttp import http_exceptions

from lls_openai import errors
from lls_openai.errors import RelayError, UpstreamDisconnected, UpstreamUnreachable
from lls_openai.transport import upstream_errors

DESIGN = {
    ("MissingApiKey", 401, "missing_api_key"),
    ("InvalidProviderData", 400, "invalid_provider_data"),
    ("UpstreamNotAllowed", 400, "upstream_not_allowed"),
    ("InvalidRequestBody", 400, "invalid_request_body"),
    ("ModelNotFound", 404, "model_not_found"),
    ("RequestTooLarge", 413, "request_too_large"),
    ("UpstreamUnreachable", 502, "upstream_unreachable"),
    ("UpstreamTimeout", 504, "upstream_timeout"),
}


def _all_below(kind: type[BaseException]) -> set[type[BaseException]]:
    below = set(kind.__subclasses__())
    return below | {each for child in below for each in _all_below(child)}


def test_there_are_the_errors_of_design_and_no_other() -> None:
    """Each with its status and code; one more stands inside streams only."""
    actual = {
        (kind.__name__, kind.status, kind.code)
        for kind in _all_below(RelayError)
        if issubclass(kind, RelayError)
    }

    assert actual == DESIGN | {("UpstreamDisconnected", 502, "upstream_disconnected")}


def test_the_tree_is_drawn_as_it_is() -> None:
    """The module's docstring shows each class with its status and code."""
    drawn = re.findall(r"[├└]── (\w+) +(?:(\d+) +(\w+))?", errors.__doc__ or "")

    rows = {(name, int(status), code) for name, status, code in drawn if status}
    names = {name for name, status, _ in drawn if not status}
    assert (DESIGN, {"UpstreamDisconnected"}) == (rows, names)


CLIENT_ERRORS = sorted(
    _all_below(aiohttp.ClientError)
    | _all_below(http_exceptions.HttpProcessingError)
    | {aiohttp.ClientError, http_exceptions.HttpProcessingError},
    key=lambda kind: kind.__name__,
)
OTHERS = [
    OSError,
    ConnectionResetError,
    BrokenPipeError,
    TimeoutError,
    asyncio.TimeoutError,
    ssl.SSLError,
    ssl.CertificateError,
]


@pytest.mark.parametrize("kind", [*CLIENT_ERRORS, *OTHERS], ids=lambda k: k.__name__)
@pytest.mark.parametrize("broken", [UpstreamUnreachable, UpstreamDisconnected])
def test_every_error_of_the_client_becomes_one_of_ours(
    kind: type[Exception], broken: type[RelayError]
) -> None:
    """A timeout where it is one; nothing of the client's own text is in the message."""
    error = kind.__new__(kind)
    error.args = ("sk-secret",)

    with pytest.raises(RelayError) as raised, upstream_errors(broken):
        raise error

    code = "upstream_timeout" if issubclass(kind, TimeoutError) else broken.code
    assert code == raised.value.code
    assert "sk-secret" not in raised.value.body().decode()
    assert raised.value.__suppress_context__


def test_the_public_errors_of_the_client_are_all_client_errors() -> None:
    """So that the test above has seen them all, less one that web sockets raise."""
    public = [getattr(aiohttp, name) for name in dir(aiohttp)]
    errors_of_client = {
        kind
        for kind in public
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and kind.__module__ == "aiohttp.client_exceptions"
    }

    assert errors_of_client - set(CLIENT_ERRORS) == {aiohttp.WSMessageTypeError}
    assert len(errors_of_client) > 20


def test_an_error_is_openais_object() -> None:
    """Four fields, null where there is nothing to say."""
    error = errors.ModelNotFound('a "name"', "model")

    assert json.loads(error.body()) == {
        "error": {
            "message": 'a "name"',
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
