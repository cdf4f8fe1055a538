"""What is put into the stack beneath and uvicorn, all of it.

Neither Llama Stack nor OGX offers a hook. Llama Stack loads the providers before it
makes its chain of middlewares, OGX when that runs already; so what is replaced are
methods of the middlewares' classes, which count for those that exist as well.
`tests/test_internals.py` fails when one is not there.
"""

import logging
import os
from collections.abc import Callable
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace

from starlette.types import ASGIApp, Receive, Scope, Send

from lls_openai.relay.app import Relay, answer_error
from lls_openai.relay.routes import ROUTES, unknown_route
from lls_openai.server.access_log import set_up_logs
from lls_openai.server.config_check import read_run_yaml
from lls_openai.server.lifecycle import serve
from lls_openai.stack import IS_OGX, VARIABLE, Stack, Untyped, server

logger = logging.getLogger(__name__)


@cache
def install() -> None:
    """Put the relay and its neighbours into the server that is being built.

    It asks for the specification once for each provider.
    """
    # It names the file to its own application in this variable.
    if path := os.environ.get(f"{VARIABLE}_CONFIG"):
        read_run_yaml(Path(path))
    set_up_logs()
    _put_in_front(server.ProviderDataMiddleware, Relay)
    _put_in_front(server.RouteAuthorizationMiddleware, _Doorkeeper)
    server.RouteAuthorizationMiddleware._send_error = _refuse  # noqa: SLF001 (docs/design.md)
    if IS_OGX:
        # It holds a body of any size before anyone has looked at a key.
        server.ZstdDecompressionMiddleware.__call__ = _hand_on
    # The stock handler prints a traceback for each error, an unknown model's too.
    server.traceback = SimpleNamespace(print_exception=_log_exception)
    # The last that is called before the server takes requests, with all in place.
    begin = Stack.create_registry_refresh_task

    def begin_too(self: Untyped) -> None:
        begin(self)
        Relay.begin(self)
        serve(self.run_config, Relay.settings)

    Stack.create_registry_refresh_task = begin_too


def _put_in_front(stock: Untyped, make: Callable[[ASGIApp], ASGIApp]) -> None:
    """Put an application in front of a middleware, of which one may be running."""
    call = stock.__call__
    front = cache(lambda middleware: make(partial(call, middleware)))

    async def called(self: Untyped, scope: Scope, receive: Receive, send: Send) -> None:
        await front(self)(scope, receive, send)

    stock.__call__ = called


async def _hand_on(self: Untyped, scope: Scope, receive: Receive, send: Send) -> None:
    await self.app(scope, receive, send)


class _Closed(Exception):  # noqa: N818 (no error)
    """The route policy has closed the route."""


async def _refuse(*_args: object, **_more: object) -> None:
    raise _Closed


class _Doorkeeper:
    """The route policy, under which a closed route is one that is not there.

    The stock answer, 403, has clients tell their users that the key is wrong.
    """

    def __init__(self, stock: Untyped) -> None:
        self._app = stock
        self._next: ASGIApp = stock.args[0].app
        self._open: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the stock middleware decide, and answer in its place."""
        # To walk the rules is slow, and the same for all who have no name here.
        path, nameless = scope.get("path"), "principal" not in scope
        if nameless and path in self._open:
            await self._next(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
            if nameless and path in ROUTES:
                self._open.add(path)
        except _Closed:
            await answer_error(unknown_route(scope["path"]), scope, receive, send)


def _log_exception(_kind: type, error: Exception, _traceback: object) -> None:
    if (
        server.translate_exception(error).status_code
        >= HTTPStatus.INTERNAL_SERVER_ERROR
    ):
        logger.error("Unexpected error in a route", exc_info=error)
