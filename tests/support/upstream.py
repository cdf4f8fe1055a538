"""The mock upstream: OpenAI, Gemini and Anthropic on loopback ports."""

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice, repeat

from tests.support.http import eventually, to_json
from tests.support.wire import (
    DONE,
    READ_BODY,
    Connection,
    Json,
    Request,
    Step,
    event,
    respond,
    stream,
)

type Responder = Callable[[Request], Iterable[Step]]

# The users of Llama Stack's authentication, by token.
USERS = {
    "token-of-alice": {"principal": "alice", "attributes": {"roles": ["developer"]}},
    "token-of-bob": {"principal": "bob", "attributes": {"roles": ["developer"]}},
    "token-of-carol": {"principal": "carol", "attributes": {"roles": ["reader"]}},
}


class MockServer:
    """A listening port that runs scripted responses, or else default ones."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, default: Responder, base_path: str = ""
    ) -> None:
        self._loop = loop
        self._default = default
        self._base_path = base_path
        self._serving: dict[Connection, asyncio.Task[None]] = {}
        self._responding: set[Connection] = set()
        self._listeners: list[asyncio.Server] = []
        self.port = 0
        self._forget()

    def _forget(self) -> None:
        self.requests: list[Request] = []
        self.errors: list[Exception] = []
        self.connections = 0
        self.pause = 0.0
        self._scripts: Iterator[tuple[Step, ...]] = iter(())

    async def listen(self, tls: ssl.SSLContext | None = None) -> int:
        """Listen on one more port and return it; `port` is the first one."""
        protocol = partial(Connection, self._connected, self._disconnected)
        listener = await self._loop.create_server(protocol, "127.0.0.1", 0, ssl=tls)
        self._listeners.append(listener)
        port: int = listener.sockets[0].getsockname()[1]
        self.port = self.port or port
        return port

    def stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()

    @property
    def url(self) -> str:
        """The `base_url` of this server."""
        return f"http://127.0.0.1:{self.port}{self._base_path}"

    @property
    def open_connections(self) -> int:
        return len(self._serving)

    @property
    def running_calls(self) -> int:
        """How many requests have no complete response; idle connections have none."""
        return len(self._responding)

    @property
    def request(self) -> Request:
        """The only request since the test began."""
        assert len(self.requests) == 1, self.requests
        return self.requests[0]

    def script(self, *steps: Step, times: int | None = 1) -> None:
        """Respond to the next requests with these steps; `times=None` means to all.

        With READ_BODY among the steps, they begin once the request headers are read.
        """
        self._scripts = chain(self._scripts, islice(repeat(steps), times))

    def wait_requests(self, number: int = 1, seconds: float = 10) -> list[Request]:
        """Wait until `number` requests have arrived, bodies included."""
        eventually(
            lambda: sum(request.complete for request in self.requests) >= number,
            f"{number} requests at the upstream",
            seconds,
        )
        return self.requests

    def run[T](self, job: Coroutine[object, object, T]) -> T:
        """Run a coroutine in the mock's loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(timeout=10)

    def reset(self) -> None:
        """Forget requests and scripts, and cancel the running responses.

        Idle connections stay open, as the server's pool expects.
        """
        self.run(self._reset())

    def drop_connections(self) -> None:
        """Close every connection, idle ones included."""
        self.run(self._drop(self._serving))

    async def _reset(self) -> None:
        await self._drop(self._responding)
        self._forget()

    async def _drop(self, connections: Iterable[Connection]) -> None:
        tasks = [self._serving[connection] for connection in connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connected(self, connection: Connection) -> None:
        self.connections += 1
        self._serving[connection] = self._loop.create_task(self._serve(connection))

    def _disconnected(self, connection: Connection) -> None:
        if connection in self._responding:
            self._serving[connection].cancel()

    async def _serve(self, connection: Connection) -> None:
        try:
            while request := await connection.read_headers():
                await self._respond(request, connection)
                if not connection.keeps_alive:
                    break
        except ConnectionError:
            pass  # The request records that its client disconnected.
        except Exception as error:  # noqa: BLE001 - fails the test at its end
            self.errors.append(error)
        finally:
            connection.close()
            del self._serving[connection]

    async def _respond(self, request: Request, connection: Connection) -> None:
        self._responding.add(connection)
        try:
            self.requests.append(request)
            script = next(self._scripts, ())
            if READ_BODY not in script:
                await connection.read_body(request)
            await connection.play(script or self._default(request), request, self.pause)
        finally:
            self._responding.discard(connection)


def complete_chat(request: Request) -> list[Step]:
    """Respond with a chat completion that repeats the last message."""
    body = request.json
    messages = body.get("messages") or [{"content": ""}]
    text = f"{body['model']} heard: {messages[-1]['content']}"
    start = {"id": "chatcmpl-1", "created": 1_790_000_000, "model": body["model"]}
    if body.get("stream"):
        start |= {"object": "chat.completion.chunk"}
        return stream(*(event(start | delta) for delta in _deltas(text)), DONE)
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    whole = {"object": "chat.completion", "choices": [choice], "usage": usage}
    return [respond(to_json(start | whole))]


def _deltas(text: str) -> Iterator[Json]:
    for word in text.split(" "):
        content = word if word == text.split(" ", maxsplit=1)[0] else f" {word}"
        delta = {"role": "assistant", "content": content}
        yield {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def authenticate(request: Request) -> list[Step]:
    """Respond to Llama Stack's custom authentication, which asks for a user."""
    user = USERS.get(request.json["api_key"])
    return [respond(json.dumps(user).encode()) if user else respond(b"", 401)]


class Upstream:
    """The three vendors, an OpenTelemetry collector, and an authentication service."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        openai: Responder = complete_chat,
        gemini: Responder = complete_chat,
        anthropic: Responder = complete_chat,
    ) -> None:
        """Set up the servers; the arguments are the vendors' default responses."""
        self.openai = MockServer(loop, openai)
        self.gemini = MockServer(loop, gemini, "/v1beta/openai")
        self.anthropic = MockServer(loop, anthropic)
        self.vendors = self.openai, self.gemini, self.anthropic
        self.collector = MockServer(loop, lambda _: [respond()])
        self.authenticator = MockServer(loop, authenticate)
        self.all = *self.vendors, self.collector, self.authenticator

    @property
    def requests(self) -> list[Request]:
        """The requests at any vendor since the test began."""
        return [request for vendor in self.vendors for request in vendor.requests]

    def reset(self) -> None:
        for vendor in self.vendors:
            vendor.reset()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point the server at the vendors."""
        return {
            "OPENAI_UPSTREAM_URL": self.openai.url,
            "GEMINI_UPSTREAM_URL": self.gemini.url,
            "ANTHROPIC_UPSTREAM_URL": self.anthropic.url,
        }


@contextmanager
def in_background(**defaults: Responder) -> Iterator[Upstream]:
    """Run all servers in a thread; `defaults` are the vendors' default responses."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever, name="mock", daemon=True)
        thread.start()
        upstream = Upstream(loop, **defaults)
        for server in upstream.all:
            server.run(server.listen())
        try:
            yield upstream
        finally:
            for server in upstream.all:
                loop.call_soon_threadsafe(server.stop_listening)
            # The runner cancels the responses that are still running.
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
