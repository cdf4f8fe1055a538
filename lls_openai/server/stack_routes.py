"""Llama Stack's own routes: the route policy, and responses to exceptions."""

import logging
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from lls_openai.errors import status_body
from lls_openai.relay.app import relay_of, send_error
from lls_openai.relay.routes import uses_anthropic_form
from lls_openai.server.log_format import place_of
from lls_openai.stack import server

logger = logging.getLogger(__name__)


class RouteForbidden(Exception):  # noqa: N818 (not an error of the server)
    """The route policy does not permit the route."""


class RoutePolicy(server.RouteAuthorizationMiddleware):  # type: ignore[misc]
    """The stock route policy, with 404 for a route that it does not permit.

    The stock 403 makes clients report an invalid key.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the route, and pass the request on if it is permitted."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, routes = scope["path"], relay_of(scope).routes
        # The rules cost 3 % of a call, and give the same result without a user.
        if path in routes.permitted and "principal" not in scope:
            await self.app(scope, receive, send)
            return
        try:
            await super().__call__(scope, receive, send)
        except RouteForbidden:
            await send_error(routes.unknown_route(path), scope, send)
            return
        if path in routes.relayed and "principal" not in scope:
            routes.permitted.add(path)

    async def _send_error(self, *_args: object, **_options: object) -> None:
        raise RouteForbidden


async def respond_to_exception(request: Request, error: Exception) -> Response:
    """Return the response to an exception in such a route, and log one line for a 5xx.

    The stock handler prints a traceback for each, an unknown model's name included.
    """
    http = server.translate_exception(error)
    if http.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        # The exception's text is left out: it may quote the request.
        logger.error(
            "%s in %s %s, raised at %s",
            type(error).__name__,
            request.method,
            request.url.path,
            place_of(error),
        )
    body = status_body(
        http.status_code, str(http.detail), anthropic=uses_anthropic_form(request.scope)
    )
    return Response(body, http.status_code, media_type="application/json")
