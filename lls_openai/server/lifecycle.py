"""The process from the start of its lifespan to the end of a graceful shutdown."""

import asyncio
import atexit
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import time
from contextlib import suppress
from importlib.metadata import version
from types import FrameType

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from lls_openai.relay.app import Relay
from lls_openai.server.config_check import abort_startup, check_address
from lls_openai.server.middleware import RequestLifecycleMiddleware
from lls_openai.server.protocol import ClientConnection
from lls_openai.stack import StackConfig, Untyped

logger = logging.getLogger("lls_openai")

# The limit of file descriptors to ask for: a stream takes two.
MAX_DESCRIPTORS = 65_536

# A further Ctrl-C this soon after the first signal, in seconds, is the same one: the
# terminal sends it to the whole process group, and make and uv pass theirs on.
SIGNAL_GRACE_SECONDS = 1.0

SHUTDOWN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def configure_process(config: StackConfig, relay: Relay) -> None:
    """Set up the process, and uvicorn's server if one runs in it.

    Call it at the start of the lifespan, before the port is bound.
    """
    # Llama Stack's 200,000 objects are never freed: collections need not visit them.
    gc.freeze()
    _raise_descriptor_limit()
    if server := running_server():
        _configure_server(server, config, relay)
        SignalHandler(server)
        # uvicorn numbers its workers from 1; the first one announces for all.
        if multiprocessing.current_process().name.endswith(("MainProcess", "-1")):
            announce_once(server, config)
        atexit.register(_explain_failed_start, server)


def _explain_failed_start(server: uvicorn.Server) -> None:
    """Abort at exit, with the reason, if the server has never listened."""
    if server.started:
        return
    # A worker listens on the port of its parent.
    if not multiprocessing.parent_process():
        check_address(server.config.host, server.config.port)
    abort_startup("the server did not start; the log above says why")


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(hard, wanted)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def running_server() -> uvicorn.Server | None:
    """Return the owner of the signal handler; Llama Stack does not expose it."""
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return owner if isinstance(owner, uvicorn.Server) else None


def _configure_server(
    server: uvicorn.Server, stack_config: StackConfig, relay: Relay
) -> None:
    """Set what Llama Stack does not pass on to uvicorn, and add the middleware."""
    config, settings = server.config, relay.settings.values()
    client_timeout = max(each.client_timeout for each in settings)
    config.timeout_keep_alive = client_timeout  # type: ignore[assignment]  # (whole seconds or not)
    config.timeout_graceful_shutdown = max(each.drain_timeout for each in settings)
    ClientConnection.client_timeout = client_timeout
    config.http_protocol_class = ClientConnection
    config.ws_protocol_class = None
    config.loaded_app = _outermost_middleware(config.loaded_app, stack_config, relay)


def _outermost_middleware(
    app: Untyped, config: StackConfig, relay: Relay
) -> RequestLifecycleMiddleware:
    # uvicorn trusts X-Forwarded-For from 127.0.0.1 by default.
    if isinstance(app, ProxyHeadersMiddleware) and not os.environ.get(
        "FORWARDED_ALLOW_IPS"
    ):
        app = app.app
    auth = config.server.auth
    has_token = auth and auth.provider_config
    # OGX has neither quota nor CORS.
    has_guards = bool(has_token or getattr(config.server, "quota", None))
    needs_chain = getattr(config.server, "cors", None) or isinstance(
        app, ProxyHeadersMiddleware
    )
    return RequestLifecycleMiddleware(
        app, relay, has_guards=has_guards, skips_chain=not (has_guards or needs_chain)
    )


class SignalHandler:
    """Treats repeated signals as one request for a graceful shutdown.

    Only a Ctrl-C later than `SIGNAL_GRACE_SECONDS` after the first signal ends the
    process at once. uvicorn's own handler would raise the signal again at the end, and
    the exit status would not be 0.
    """

    def __init__(self, server: uvicorn.Server) -> None:
        self._server = server
        self._first = 0.0
        self._parent = multiprocessing.parent_process()
        for number in SHUTDOWN_SIGNALS:
            # `nohup` has SIGHUP ignored, a script in the background SIGINT.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self)
        # Blocked in a worker that boots.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if self._parent:
            # Without its parent, nobody could stop a worker.
            loop = asyncio.get_running_loop()
            loop.add_reader(self._parent.sentinel, self._parent_died)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if self._server.should_exit:
            if number == signal.SIGINT and now - self._first > SIGNAL_GRACE_SECONDS:
                os._exit(128 + number)
            return
        self._first = now
        self._server.should_exit = True
        logger.info(
            "Shutting down; running responses have %s s to finish",
            self._server.config.timeout_graceful_shutdown,
        )
        if self._parent and self._parent.pid:
            self._stop_group(self._parent.pid)

    def _stop_group(self, parent: int) -> None:
        """Close the port that the parent and the other workers hold, too; signal it.

        uvicorn's parent would keep the port while its workers drain, and new clients
        would wait there in vain.
        """
        for listening in self._server.servers:
            for each in listening.sockets:
                # Another worker may have closed it.
                port = socket.socket(fileno=os.dup(each.fileno()))
                with port, suppress(OSError):
                    port.shutdown(socket.SHUT_RDWR)
        os.kill(parent, signal.SIGTERM)

    def _parent_died(self) -> None:
        asyncio.get_running_loop().remove_reader(self._parent.sentinel)  # type: ignore[union-attr]  # (there is one)
        self._parent = None
        self(signal.SIGTERM, None)


def announce_once(server: uvicorn.Server, config: StackConfig) -> None:
    """Log the start lines with uvicorn's first tick, when the port is bound."""

    async def announce() -> None:
        server.config.callback_notify = None
        for line in _start_lines(server.config, config):
            logger.info(line)

    server.config.callback_notify = announce


def _start_lines(server: uvicorn.Config, config: StackConfig) -> tuple[str, str]:
    host = server.host or "localhost"
    host = f"[{host}]" if ":" in host else host
    url = f"{'https' if server.is_ssl else 'http'}://{host}:{server.port}/v1"
    models = f"{len(config.registered_resources.models)} models"
    workers = f", {server.workers} workers" if server.workers > 1 else ""
    return (
        f"lls-openai {version('lls-openai')} at {url} ({models}{workers})",
        "Use that as base URL of an OpenAI client, with your vendor's API key",
    )
