"""Ask every model of the server for a regular and a streamed chat completion."""

import argparse
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__":

    def leave(*_: object) -> NoReturn:
        """End on Ctrl-C without a traceback, with the status that shells give."""
        os.write(2, b"\n")
        sys.exit(130)

    # Before the imports below, which take a second.
    signal.signal(signal.SIGINT, leave)

import httpx
from dotenv import dotenv_values
from llama_stack_client import (
    APIConnectionError,
    LlamaStackClient,
    LlamaStackClientError,
)

HELP = """\
Variables, taken from the environment, or else from .env (empty counts as not set):
  OPENAI_API_KEY      for the models of openai and openai-mini
  GEMINI_API_KEY      for the models of gemini
  ANTHROPIC_API_KEY   for the models of anthropic
  <PROVIDER>_API_KEY  for the models of a provider added in run.yaml
  LLAMA_STACK_PORT    the port of the server on this machine (8321)

A model without a key is skipped. The exit status is 0 when every call succeeded, 1 when
one failed, 2 when none could be made.
"""
COLUMNS = ("model", "regular", "streamed", "time")
SHARED_KEYS = {"openai-mini": "OPENAI_API_KEY"}
# The last three: the client takes an answer of any form for one of OpenAI's.
FAILURES = (
    LlamaStackClientError,
    httpx.HTTPError,
    AttributeError,
    TypeError,
    ValueError,
)


def settings() -> dict[str, str]:
    """Return the variables of the project's .env, of ./.env and of the environment.

    The later wins. `export $(cat .env)` leaves a value in its quotes: they go here.
    """
    files = dotenv_values(Path(__file__).with_name(".env")) | dotenv_values(".env")
    values = files | {name: value for name, value in os.environ.items() if value}
    return {name: (value or "").strip(" \r\"'") for name, value in values.items()}


def arguments(argv: list[str] | None, port: str) -> argparse.Namespace:
    """Read the command line `argv`; the server is at `port` of this machine."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HELP, formatter_class=raw
    )
    add = parser.add_argument
    model = "only this model, such as openai/gpt-4o; can be given several times"
    add("--model", action="append", metavar="PROVIDER/MODEL", help=model)
    prompt = "Say hello in one short sentence."
    add("--prompt", default=prompt, help="what to ask (default: %(default)s)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--regular", action="store_true", help="make no streamed calls")
    only.add_argument("--stream", action="store_true", help="make no regular calls")
    url = f"http://127.0.0.1:{port}"
    add("--url", default=url, help="where the server is (default: %(default)s)")
    args = parser.parse_args(argv)
    if not all("/" in name for name in args.model or ()):
        parser.error("--model takes PROVIDER/MODEL, such as openai/gpt-4o")
    return args


def give_up(message: str) -> NoReturn:
    """Say what stands in the way of any call, and end with status 2."""
    print(message, file=sys.stderr)
    sys.exit(2)


def connect(url: str) -> LlamaStackClient:
    """Return a client of the server at `url`."""
    # With a transport of its own it takes no proxy from the environment, and follows no
    # redirect: a key goes to this server only.
    http = httpx.Client(transport=httpx.HTTPTransport(), timeout=600)
    base = url.rstrip("/").removesuffix("/v1")
    try:
        return LlamaStackClient(base_url=base, http_client=http, max_retries=0)
    except httpx.InvalidURL as error:
        give_up(f"--url {url}: {error}")


def listed(server: LlamaStackClient) -> list[str]:
    """Return the language models that the `server` lists."""
    url = str(server.base_url).rstrip("/")
    try:
        models = server.models.list(timeout=10)
        ids = [model.id for model in models if model.model_type in {None, "llm"}]
    except APIConnectionError as error:
        start = f"server not running at {url}: start it with `make server`"
        give_up(f"{start} ({error.__cause__})")
    except FAILURES as error:
        give_up(f"no Llama Stack server at {url}: {reason(error)}")
    return ids or give_up(f"the server at {url} has no language model")


def key_variable(model: str) -> str:
    """Return the name of the variable with the key for `model`, a provider/model."""
    provider = model.partition("/")[0]
    name = re.sub(r"\W", "_", provider.upper()) + "_API_KEY"
    return SHARED_KEYS.get(provider, name)


def whole(client: LlamaStackClient, model: str, prompt: str) -> Iterator[str]:
    """Yield the text of a regular chat completion."""
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}]
    )
    for choice in answer.choices:
        yield choice.message.content or ""


def stream(client: LlamaStackClient, model: str, prompt: str) -> Iterator[str]:
    """Yield the text of a streamed chat completion, piece by piece."""
    chunks = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], stream=True
    )
    for chunk in chunks:
        for choice in chunk.choices:
            yield choice.delta.content or ""


def masked(pieces: Iterable[str], key: str) -> Iterator[str]:
    """Yield `pieces` without `key`, also where it is spread over several of them."""
    held = ""
    for piece in pieces:
        held = (held + piece).replace(key, "[key]")
        end = next(i for i in range(len(held) + 1) if key.startswith(held[i:]))
        yield held[:end]
        held = held[end:]
    yield held


def reason(error: Exception) -> str:
    """Return what the upstream, the server or the network says in `error`."""
    if isinstance(error, AttributeError | TypeError | ValueError):
        return f"the answer is not in OpenAI's format ({error})"
    body = getattr(error, "body", None) or str(error.__cause__ or error)
    detail = body.get("error", body) if isinstance(body, dict) else body
    message = detail.get("message", detail) if isinstance(detail, dict) else detail
    return f"{getattr(error, 'status_code', '')} {message}".strip()


def call(kind: str, pieces: Iterable[str], key: str) -> str:
    """Print the `pieces` of an answer as they arrive; return "ok" or "failed"."""
    indent = " " * 12
    print(f"  {kind}".ljust(len(indent)), end="", flush=True)
    column = ""
    try:
        for text in filter(None, masked(pieces, key)):
            print(text.replace("\n", f"\n{indent}"), end="", flush=True)
            column = f"\n{indent}"
    except FAILURES as error:
        message = " ".join(reason(error).replace(key, "[key]").split())
        print(f"{column}failed: {message[:500]}")
        return "failed"
    print()
    return "ok"


def ask(
    server: LlamaStackClient, model: str, key: str, args: argparse.Namespace
) -> tuple[str, str, str, str]:
    """Make the calls to `model` that `args` want; return its row of the summary."""
    print(model)
    header = {"X-LlamaStack-Provider-Data": json.dumps({"passthrough_api_key": key})}
    client = server.with_options(default_headers=header)
    regular = streamed = "-"
    begin = time.perf_counter()
    if not args.stream:
        regular = call("regular", whole(client, model, args.prompt), key)
    if not args.regular:
        streamed = call("streamed", stream(client, model, args.prompt), key)
    return model, regular, streamed, f"{time.perf_counter() - begin:.1f} s"


def skip(model: str) -> tuple[str, str, str, str]:
    """Name the key that `model` lacks; return its row of the summary."""
    print(f"{model}\n  skipped   {key_variable(model)} is not set")
    return model, "skipped", "skipped", "-"


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv`, and return the exit status."""
    # llama-stack-client switches on a log line for every request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    values = settings()
    args = arguments(argv, values.get("LLAMA_STACK_PORT") or "8321")
    with connect(args.url) as server:
        registered = listed(server)
        models = args.model or registered
        keys = {model: values.get(key_variable(model), "") for model in models}
        if not any(keys.values()):
            names = " or ".join(dict.fromkeys(map(key_variable, models)))
            give_up(f"no API key: set {names} in .env or in the environment")
        rows = [COLUMNS]
        for model, key in keys.items():
            rows.append(ask(server, model, key, args) if key else skip(model))
    width = max(map(len, keys))
    print()
    for model, regular, streamed, seconds in rows:
        print(f"{model:{width}}  {regular:7}  {streamed:8}  {seconds:>7}")
    return int(any("failed" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
