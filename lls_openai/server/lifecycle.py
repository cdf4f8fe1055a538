"""Starting and stopping: what `llama stack run` and uvicorn leave open about both."""

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

from lls_openai.server.middleware import Front
from lls_openai.server.protocol import Connection
from lls_openai.settings import ProviderConfig, give_up
from lls_openai.stack import VARIABLE, StackConfig

logger = logging.getLogger("lls_openai")

# How many descriptors are asked for: two a stream, and thousands of streams.
DESCRIPTORS = 65_536

# Within so many seconds of the first, another Ctrl-C is the same wish: it comes from
# the terminal and from make or uv, which pass it on.
ONE_WISH = 1.0

TAKEN_PORT = f"stop what listens there, or set {VARIABLE}_PORT or LLS_HOST to another"

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(config: StackConfig, settings: list[ProviderConfig]) -> None:
    """Set up the process and the server that runs in it, if that is uvicorn's.

    At the end, a server that never listened makes the exit status say so.

    Args:
        config: run.yaml, read.
        settings: those of this project's providers.
    """
    # The collector would walk Llama Stack's 200,000 objects, which stay, for nothing.
    gc.freeze()
    _allow_many_connections()
    if server := running_server():
        _set_up(server, settings)
        _Stop(server)
        # Of several workers the first speaks for all; uvicorn numbers them from 1 on.
        if multiprocessing.current_process().name.endswith(("MainProcess", "-1")):
            logger.info(_greeting(server, config))
        atexit.register(_check_port, server)


def _check_port(server: uvicorn.Server) -> None:
    if not server.started:
        place = f"{server.config.host}:{server.config.port}"
        give_up(f"cannot listen on {place}: {TAKEN_PORT}")


def _allow_many_connections() -> None:
    """Raise this process's limit of descriptors as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def running_server() -> uvicorn.Server | None:
    """Find the server by the signal handler it has set: it is handed out nowhere."""
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return owner if isinstance(owner, uvicorn.Server) else None


def _set_up(server: uvicorn.Server, settings: list[ProviderConfig]) -> None:
    """Give the server uvicorn's settings that Llama Stack leaves out, and a front."""
    config = server.config
    caller_timeout = max(each.caller_timeout for each in settings)
    config.timeout_keep_alive = caller_timeout  # type: ignore[assignment]  # (whole seconds or not)
    config.timeout_graceful_shutdown = max(each.drain_timeout for each in settings)
    Connection.caller_timeout = caller_timeout
    config.http_protocol_class = Connection
    config.ws_protocol_class = None
    app = config.loaded_app
    # uvicorn believes X-Forwarded-For of 127.0.0.1 unless told otherwise.
    if isinstance(app, ProxyHeadersMiddleware) and not os.environ.get(
        "FORWARDED_ALLOW_IPS"
    ):
        app = app.app
    config.loaded_app = Front(app, caller_timeout)


class _Stop:
    """Handles the signals that stop the server.

    However many come, they are one wish: no new callers, and running answers end. Only
    another Ctrl-C of a person, later than `ONE_WISH`, is "now". uvicorn's own handler
    would raise the signal again at the end, and the status would not be 0.
    """

    def __init__(self, server: uvicorn.Server) -> None:
        self._server = server
        self._first = 0.0
        self._parent = multiprocessing.parent_process()
        for number in _STOPS:
            # nohup has SIGHUP ignored, and means it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self)
        if self._parent:
            # A worker whose parent was killed serves nobody's wish.
            loop = asyncio.get_running_loop()
            loop.add_reader(self._parent.sentinel, self._orphaned)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        now = time.monotonic()
        if self._server.should_exit:
            if number == signal.SIGINT and now - self._first > ONE_WISH:
                os._exit(128 + number)
            return
        self._first = now
        self._server.should_exit = True
        if self._parent and self._parent.pid:
            self._stop_together(self._parent.pid)

    def _stop_together(self, parent: int) -> None:
        """Close the port, which the parent and its other workers hold too, and tell it.

        uvicorn's parent would keep the port while its workers end their answers: new
        callers would wait there for nobody.
        """
        for listening in self._server.servers:
            for each in listening.sockets:
                # Another worker may have been first.
                port = socket.socket(fileno=os.dup(each.fileno()))
                with port, suppress(OSError):
                    port.shutdown(socket.SHUT_RDWR)
        os.kill(parent, signal.SIGTERM)

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._parent.sentinel)  # type: ignore[union-attr]  # (there is one)
        self._parent = None
        self(signal.SIGTERM, None)


def _greeting(server: uvicorn.Server, config: StackConfig) -> str:
    """Say what is served, where, and how to call it."""
    scheme = "https" if server.config.is_ssl else "http"
    host = server.config.host or "localhost"
    base = f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.config.port}/v1"
    models = config.registered_resources.models
    names = ", ".join(f"{m.provider_id}/{m.model_id}" for m in models)
    return (
        f"lls-openai {version('lls-openai')} at {base}, workers: "
        f"{config.server.workers}, models: {names}. Call it with any OpenAI client: "
        f"base URL {base}, and your own key of the model's vendor"
    )
