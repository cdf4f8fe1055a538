"""Exceptions in routes of Llama Stack's own become errors of the contract."""

import asyncio
import logging

import httpx
import pytest
from fastapi import FastAPI

from lls_openai import stack
from lls_openai.server.patches import arrange

pytestmark = pytest.mark.usefixtures("only_caplog")


async def _fail() -> None:
    raise RuntimeError("quotes the request")


async def _reject() -> None:
    raise stack.api.ConflictError("is there already")


def _call(path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    app = FastAPI()
    for route in (_fail, _reject):
        app.get(f"/{route.__name__}")(route)
    # As Llama Stack registers its handler.
    app.exception_handler(stack.api.ConflictError)(
        stack.server.global_exception_handler
    )
    app.exception_handler(Exception)(stack.server.global_exception_handler)
    arrange(app)

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as own:
            return await own.get(path, headers=headers)

    return asyncio.run(call())


def test_exception_is_a_server_error_with_one_log_line(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    response = _call("/_fail")

    assert response.status_code == 500
    error = response.json()["error"]
    assert error.items() >= {"type": "server_error", "code": None}.items()
    assert "quotes the request" not in response.text + caplog.text
    (line,) = [each for each in caplog.messages if "lls_openai" not in each]
    assert line.startswith("RuntimeError in GET /_fail, raised at ")
    assert capfd.readouterr() == ("", "")


def test_exception_that_llama_stack_maps_keeps_its_status_and_is_not_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "lls_openai")
    response = _call("/_reject")

    assert response.status_code == 409
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert "is there already" in response.json()["error"]["message"]
    assert caplog.messages == []
    assert capfd.readouterr() == ("", "")


def test_exception_has_anthropics_form_for_its_clients() -> None:
    response = _call("/_reject", {"anthropic-version": "2023-06-01"})

    error = {"type": "invalid_request_error", "message": "is there already"}
    assert response.json() == {"type": "error", "error": error}
