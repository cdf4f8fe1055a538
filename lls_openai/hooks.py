"""Where this project reaches into Llama Stack's server module, all of it.

The server looks these names up in its module after it has loaded the providers
(`llama_stack.core.server.server.create_app`), and offers no hook of its own for any:
rebinding them is the way in. `tests/test_internals.py` fails when one is not there.
"""

import logging
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import Response
from llama_stack.core.exceptions import translate_exception
from llama_stack.core.server import server
from starlette.types import Receive, Scope, Send

from lls_openai.errors import error_body, send_json
from lls_openai.logs import set_up_logs
from lls_openai.relay import Relay

logger = logging.getLogger(__name__)


def install() -> None:
    """Put the relay and quiet error answers into the server that is being built.

    Raises:
        RuntimeError: this Llama Stack has no such names.
    """
    set_up_logs()
    for name, ours in _OURS.items():
        if not hasattr(server, name):
            message = f"llama_stack.core.server.server has no {name}"
            raise RuntimeError(message)
        setattr(server, name, ours)


async def answer_exception(_request: Request, error: Exception) -> Response:
    """Answer what a route of Llama Stack raised, as the stock handler does.

    That one (`llama_stack.core.server.server.global_exception_handler`) prints a
    traceback for each, an unknown model's name among them.

    Args:
        _request: the request.
        error: what was raised.
    """
    http = translate_exception(error)
    if http.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("Unexpected error in a route", exc_info=error)
    body = error_body(str(http.detail), "invalid_request_error", None, None)
    return Response(body, http.status_code, media_type="application/json")


class Authentication(server.AuthenticationMiddleware):  # type: ignore[misc]
    """Llama Stack's authentication, if run.yaml configures it.

    The stock one raises over a token that is not UTF-8, and the log then shows it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse such a token, and leave every other to the stock middleware.

        Args:
            scope: what is asked for.
            receive: ASGI's receive.
            send: ASGI's send.
        """
        headers = dict(scope.get("headers", ()))
        if headers.get(b"authorization", b"").isascii():
            await super().__call__(scope, receive, send)
            return
        message = "The token is not a printable ASCII string"
        body = error_body(message, "authentication_error", None, None)
        await send_json(send, HTTPStatus.UNAUTHORIZED, [], body)


_OURS = {
    "AuthenticationMiddleware": Authentication,
    "ProviderDataMiddleware": Relay,
    "global_exception_handler": answer_exception,
}
