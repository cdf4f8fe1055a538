"""Everything that this project changes in the server that loads it.

Neither Llama Stack nor OGX has a hook for a middleware. Llama Stack loads its providers
before it builds the chain of middlewares, OGX afterwards. Both call the two patched
methods later, and those reach the chain by Starlette's attributes.
"""

from collections.abc import Iterator
from functools import cache

from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from lls_openai.relay.app import RelayMiddleware, attach_relay
from lls_openai.server.lifecycle import configure_process, running_server
from lls_openai.server.log_writer import STANDARD_ERROR
from lls_openai.server.metrics import Numbers, start_metrics
from lls_openai.server.ogx import remove_resolved_config
from lls_openai.server.stack_routes import RoutePolicy, respond_to_exception
from lls_openai.stack import Stack, Untyped, server

_create_registry_refresh_task = Stack.create_registry_refresh_task


def start(stack: Stack) -> None:
    """Set up the process; called in the serving loop, with every provider in place."""
    _create_registry_refresh_task(stack)
    remove_resolved_config()
    relay = attach_relay(stack)
    # Afterwards, its signal handler is ours.
    server_state = getattr(running_server(), "server_state", ServerState())
    configure_process(stack.run_config, relay)
    numbers = Numbers(
        client_connections=lambda: len(server_state.connections),
        bytes_in_flight=lambda: relay.bytes_in_flight.held,
        dropped_log_lines=lambda: STANDARD_ERROR.dropped_lines,
    )
    start_metrics(relay.settings, numbers)


async def call_first(app: Untyped, scope: Scope, receive: Receive, send: Send) -> None:
    """Arrange the chain of middlewares at the first call, and remove this patch."""
    del server.StackApp.__call__
    arrange(app)
    await app(scope, receive, send)


# Class, method and replacement.
PATCHES = (
    # The last method that is called before the server takes requests.
    (Stack, "create_registry_refresh_task", start),
    # The first one that has the application.
    (server.StackApp, "__call__", call_first),
)


@cache
def apply_patches() -> None:
    """Patch the server; it asks for the specification once for each provider."""
    for owner, name, replacement in PATCHES:
        setattr(owner, name, replacement)


def arrange(app: Untyped) -> None:
    """Add this project's middlewares and exception handler to an application."""
    app.user_middleware = [
        new for each in app.user_middleware for new in _arranged(each)
    ]
    app.exception_handlers = {
        kind: respond_to_exception
        if handler is server.global_exception_handler
        else handler
        for kind, handler in app.exception_handlers.items()
    }
    # Starlette then builds the chain at the next call.
    app.middleware_stack = None


def _arranged(middleware: Middleware) -> Iterator[Middleware]:
    """Yield the middlewares that take the place of a stock one."""
    kind, args, options = middleware
    match kind.__name__:
        case "ProviderDataMiddleware":
            # Behind authentication, route policy and quota.
            yield Middleware(RelayMiddleware)
            yield middleware
        case "RouteAuthorizationMiddleware":
            yield Middleware(RoutePolicy, *args, **options)
        case "RequestMetricsMiddleware":
            # It costs 10 % of a call, under names that differ between the servers.
            pass
        case "ZstdDecompressionMiddleware":
            # OGX unpacks 100 MB before anyone has looked at a key.
            pass
        case _:
            yield middleware
