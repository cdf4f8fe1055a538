"""The mock upstream: OpenAI, Gemini and Anthropic on ports of the loopback."""

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice, repeat

from tests.support.http import eventually
from tests.support.vendors import Anthropic, Gemini, OpenAI
from tests.support.wire import READ_BODY, Connection, Request, Step, answer

# Whom a token belongs to, as the gatekeeper tells Llama Stack's authentication.
USERS = {
    "token-of-alice": {"principal": "alice", "attributes": {"roles": ["caller"]}},
    "token-of-bob": {"principal": "bob", "attributes": {"roles": ["caller"]}},
    "token-of-carol": {"principal": "carol", "attributes": {"roles": ["reader"]}},
}


class Vendor:
    """A listening port that answers as its vendor does, or as a test scripts it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: Callable[[Request], Iterable[Step]],
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._base_path: str = getattr(answer, "base_path", "")
        self._serving: dict[Connection, asyncio.Task[None]] = {}
        self._answering: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self.port = 0
        self._forget()

    def _forget(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[BaseException] = []
        self.connections = 0
        self.pause = 0.0
        self._scripts: Iterator[tuple[Step, ...]] = iter(())

    async def listen(self, tls: ssl.SSLContext | None = None) -> int:
        """Listen on one more port; `port` is the first of them."""
        accept = partial(Connection, self._connected, self._peer_left)
        server = await self._loop.create_server(accept, "127.0.0.1", 0, ssl=tls)
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        self.port = self.port or bound
        return bound

    def stop(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()

    @property
    def url(self) -> str:
        """What `base_url` has to be for the server to call this vendor."""
        return f"http://127.0.0.1:{self.port}{self._base_path}"

    @property
    def open_connections(self) -> int:
        return len(self._serving)

    @property
    def request(self) -> Request:
        """The one request since the test began."""
        (request,) = self.requests
        return request

    def script(self, *steps: Step, times: int | None = 1) -> None:
        """Answer the next requests with these steps; `times=None` answers them all.

        With READ_BODY in them they begin when the head of the request is there.
        """
        self._scripts = chain(self._scripts, islice(repeat(steps), times))

    def wait_requests(self, number: int = 1, seconds: float = 10) -> list[Request]:
        """Wait until so many requests have arrived whole."""
        eventually(lambda: sum(r.complete for r in self.requests) >= number, seconds)
        return self.requests

    def run[T](self, job: Coroutine[object, object, T]) -> T:
        """Run something in the mock's loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(timeout=10)

    def reset(self) -> None:
        """Forget requests and scripts, and break off what is being answered.

        Idle connections stay open, as the server's pool expects them to.
        """
        self.run(self._reset())

    def drop_connections(self) -> None:
        """Close every connection, the idle ones too, as vendors do."""
        self.run(self._drop(self._serving))

    async def _reset(self) -> None:
        await self._drop(self._answering)
        self._forget()

    async def _drop(self, connections: Iterable[Connection]) -> None:
        tasks = [self._serving[connection] for connection in connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connected(self, connection: Connection) -> None:
        self.connections += 1
        self._serving[connection] = self._loop.create_task(self._serve(connection))

    def _peer_left(self, connection: Connection) -> None:
        if connection in self._answering:
            self._serving[connection].cancel()

    async def _serve(self, connection: Connection) -> None:
        try:
            while request := await connection.read_head():
                await self._serve_one(request, connection)
                if not connection.keeps_alive:
                    break
        except ConnectionError:
            pass  # The peer left: recorded already.
        except Exception as error:  # noqa: BLE001 - a test shows it when it ends
            self.faults.append(error)
        finally:
            connection.close()
            del self._serving[connection]

    async def _serve_one(self, request: Request, connection: Connection) -> None:
        self._answering.add(connection)
        try:
            self.requests.append(request)
            script = next(self._scripts, ())
            if READ_BODY not in script:
                await connection.read_body(request)
            steps = script or self._answer(request)
            await connection.play(steps, request, self.pause)
        finally:
            self._answering.discard(connection)


def _gatekeeper(request: Request) -> list[Step]:
    user = USERS.get(request.json["api_key"])
    return [answer(b"", 401) if user is None else answer(json.dumps(user).encode())]


class Upstream:
    """The vendors, a collector of OpenTelemetry, and a service that checks tokens."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.openai = Vendor(loop, OpenAI())
        self.gemini = Vendor(loop, Gemini())
        self.anthropic = Vendor(loop, Anthropic())
        self.vendors = self.openai, self.gemini, self.anthropic
        self.collector = Vendor(loop, lambda _: [answer()])
        self.gatekeeper = Vendor(loop, _gatekeeper)
        self.all = *self.vendors, self.collector, self.gatekeeper

    def reset(self) -> None:
        for vendor in self.vendors:
            vendor.reset()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point the server at these vendors."""
        return {
            "OPENAI_UPSTREAM_URL": self.openai.url,
            "GEMINI_UPSTREAM_URL": self.gemini.url,
            "ANTHROPIC_UPSTREAM_URL": self.anthropic.url,
        }


@contextmanager
def in_background() -> Iterator[Upstream]:
    """Run all of them in a thread while the context lasts."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever, name="mock", daemon=True)
        thread.start()
        upstream = Upstream(loop)
        for vendor in upstream.all:
            vendor.run(vendor.listen())
        try:
            yield upstream
        finally:
            for vendor in upstream.all:
                loop.call_soon_threadsafe(vendor.stop)
            # Whatever is still being answered, the runner cancels.
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
