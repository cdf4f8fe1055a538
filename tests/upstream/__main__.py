"""The upstream as a program: `python -m tests.upstream`."""

import argparse
import asyncio
import sys

from tests.upstream.upstream import Upstream


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.upstream",
        description="A loopback upstream that speaks the dialects of OpenAI, Gemini "
        "and Anthropic. Any key is good that does not contain 'wrong'.",
    )
    for vendor in ("openai", "gemini", "anthropic"):
        parser.add_argument(
            f"--{vendor}-port",
            type=int,
            default=0,
            metavar="N",
            help="port to listen on (default: a free one)",
        )
    parser.add_argument(
        "--pause",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="time between the events of a stream (default: none)",
    )
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    upstream = Upstream()
    for vendor in upstream.vendors:
        vendor.pause = arguments.pause
    ports = (arguments.openai_port, arguments.gemini_port, arguments.anthropic_port)
    async with upstream.listening(ports):
        print("Listening; Ctrl-C ends it. Start the server with these variables:\n")
        for name, url in upstream.environment.items():
            print(f"{name}={url}")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> int:
    """Serve until Ctrl-C.

    Returns:
        The exit status: 0 after Ctrl-C, 1 when a port is taken.
    """
    try:
        asyncio.run(_serve(_arguments()))
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        print(error.strerror, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
