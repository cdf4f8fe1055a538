"""A loopback endpoint that others post to: it records, and answers as it is told."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import override

# Takes the path and the body of a request, gives the status and the body to answer.
type Respond = Callable[[str, bytes], tuple[int, bytes]]


class Endpoint(ThreadingHTTPServer):
    """The endpoint.

    Attributes:
        posted: Path and body of each request, in order.
    """

    daemon_threads = True

    def __init__(self, respond: Respond) -> None:
        """Listen on a free port of the loopback interface."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self._changed = threading.Condition()
        self._posted: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def posted(self) -> list[tuple[str, bytes]]:
        """Path and body of each request, in order."""
        with self._changed:
            return list(self._posted)

    def note(self, path: str, body: bytes) -> None:
        """Record a request."""
        with self._changed:
            self._posted.append((path, body))
            self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], deadline: float = 10) -> None:
        """Wait for something that is posted here.

        Args:
            condition: True when it has happened; asked again after every request.
            deadline: Seconds to wait at most.

        Raises:
            TimeoutError: It has not happened in time.
        """
        with self._changed:
            if not self._changed.wait_for(condition, deadline):
                message = f"nobody posted it within {deadline} s"
                raise TimeoutError(message)


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.note(self.path, body)
        status, answer = self.server.respond(self.path, body)
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: what was posted may hold a key."""


@contextmanager
def endpoint(respond: Respond) -> Iterator[Endpoint]:
    """Serve an endpoint in a thread while the context lasts."""
    with Endpoint(respond) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
