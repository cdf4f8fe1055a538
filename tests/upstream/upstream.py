"""The three vendors together: in a loop of their own, or in a thread for tests."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from tests.upstream.anthropic import Anthropic
from tests.upstream.gemini import Gemini
from tests.upstream.openai import OpenAI
from tests.upstream.vendor import Vendor

# OpenAI's, Gemini's and Anthropic's port; 0 takes a free one.
type Ports = tuple[int, int, int]


@dataclass(frozen=True)
class Upstream:
    """The three vendors."""

    openai: Vendor = field(default_factory=lambda: Vendor(OpenAI()))
    gemini: Vendor = field(default_factory=lambda: Vendor(Gemini()))
    anthropic: Vendor = field(default_factory=lambda: Vendor(Anthropic()))

    @property
    def vendors(self) -> tuple[Vendor, Vendor, Vendor]:
        """All three, to do the same to each."""
        return self.openai, self.gemini, self.anthropic

    def named(self, name: str) -> Vendor:
        """The vendor of a name: "OpenAI", "Gemini" or "Anthropic"."""
        return {vendor.dialect.name: vendor for vendor in self.vendors}[name]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point the server's run.yaml at these vendors."""
        return {
            "OPENAI_UPSTREAM_URL": self.openai.url,
            "GEMINI_UPSTREAM_URL": self.gemini.url,
            "ANTHROPIC_UPSTREAM_URL": self.anthropic.url,
        }

    @asynccontextmanager
    async def listening(self, ports: Ports = (0, 0, 0)) -> AsyncIterator[None]:
        """Listen in the running loop while the context lasts.

        Raises:
            OSError: A port is taken.
        """
        async with AsyncExitStack() as stack:
            for vendor, port in zip(self.vendors, ports, strict=True):
                await vendor.start(port)
                stack.push_async_callback(vendor.stop)
            yield

    def reset(self) -> None:
        """Forget recordings and scripts of all three and break off what is underway."""
        for vendor in self.vendors:
            vendor.reset()


@contextmanager
def in_background(ports: Ports = (0, 0, 0)) -> Iterator[Upstream]:
    """Run the three vendors in a thread while the context lasts.

    Yields:
        The vendors, listening.

    Raises:
        OSError: A port is taken.
    """
    with asyncio.Runner() as runner:
        upstream = Upstream()
        listening = upstream.listening(ports)
        runner.run(listening.__aenter__())
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever, name="upstream", daemon=True)
        thread.start()
        try:
            yield upstream
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            runner.run(listening.__aexit__(None, None, None))
