"""What is put into Llama Stack and uvicorn, all of it.

The server looks these names up in its module after it has loaded the providers
(`llama_stack.core.server.server.create_app`), and offers no hook of its own for any:
rebinding them is the way in. `tests/test_internals.py` fails when one is not there.
"""

import logging
import os
from functools import cache, lru_cache, partial
from http import HTTPStatus
from pathlib import Path

from fastapi import Request
from fastapi.responses import Response
from llama_stack.core.datatypes import RouteAccessRule, User
from llama_stack.core.exceptions import translate_exception
from llama_stack.core.server import server
from starlette.types import ASGIApp, Receive, Scope, Send

from lls_openai.relay.app import Relay, answer_error
from lls_openai.relay.errors import RelayError, error_body
from lls_openai.relay.routes import ROUTES, unknown_route
from lls_openai.server.lifecycle import serve
from lls_openai.server.logs import set_up_logs
from lls_openai.server.run_yaml import read_run_yaml

logger = logging.getLogger(__name__)


@cache
def install() -> None:
    """Put the relay and its neighbours into the server that is being built.

    Llama Stack asks for the specification once for each provider.
    """
    # Llama Stack names the file to its own application in this variable.
    if path := os.environ.get("LLAMA_STACK_CONFIG"):
        read_run_yaml(Path(path))
    set_up_logs()
    for name, ours in _OURS.items():
        setattr(server, name, ours)


class ServedRelay(Relay):
    """The relay, in a process that is set up for it."""

    def begin(self, scope: Scope) -> None:
        """Set the process up, too."""
        super().begin(scope)
        serve(scope["app"].stack.run_config, self.settings)


class RouteAuthorization(server.RouteAuthorizationMiddleware):  # type: ignore[misc]
    """Llama Stack's route policy, under which a closed route is one that is not there.

    The stock answer, 403, has clients tell their users that the key is wrong.
    """

    def __init__(self, app: ASGIApp, route_policy: list[RouteAccessRule]) -> None:
        super().__init__(app, route_policy)
        # To walk the rules takes 3 % of a call, and is the same for all who have no
        # name here.
        stock = partial(super()._is_route_allowed, user=None)
        self._open = lru_cache(maxsize=len(ROUTES))(stock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the stock middleware decide, and answer in its place."""
        try:
            await super().__call__(scope, receive, send)
        except RelayError as error:
            await answer_error(error, scope, receive, send)

    def _is_route_allowed(self, route: str, user: User | None) -> bool:
        allowed = super()._is_route_allowed(route, user) if user else self._open(route)
        if not allowed:
            raise unknown_route(route)
        return True


async def answer_exception(_request: Request, error: Exception) -> Response:
    """Answer what a route of Llama Stack raised, as the stock handler does.

    That one (`llama_stack.core.server.server.global_exception_handler`) prints a
    traceback for each, an unknown model's name among them.
    """
    http = translate_exception(error)
    if http.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("Unexpected error in a route", exc_info=error)
    body = error_body(str(http.detail), "invalid_request_error", None, None)
    return Response(body, http.status_code, media_type="application/json")


_OURS = {
    "RouteAuthorizationMiddleware": RouteAuthorization,
    "ProviderDataMiddleware": ServedRelay,
    "global_exception_handler": answer_exception,
}
