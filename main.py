"""Ask every model of the server for a regular and a streamed chat completion.

A model without a key is skipped. Variables, from the environment or else from .env:
  OPENAI_API_KEY (also for openai-mini), GEMINI_API_KEY, ANTHROPIC_API_KEY
  <PROVIDER>_API_KEY  for a provider added in run.yaml
  LLAMA_STACK_PORT    the server's port on this machine (8321)
Exit status: 0 when every call succeeded, 1 when one failed, 2 when none could be made.
"""

import json
import logging
import os
import sys
import time
from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from pathlib import Path
from typing import Any, NoReturn

import httpx
from dotenv import dotenv_values
from llama_stack_client import LlamaStackClient, LlamaStackClientError, NotFoundError

# The client does not validate what it parses: a malformed answer fails when it is used.
MALFORMED = (AttributeError, TypeError, ValueError)
FAILURES = (LlamaStackClientError, httpx.HTTPError, httpx.InvalidURL, *MALFORMED)


def arguments(argv: list[str] | None, port: str) -> Namespace:
    """Read the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    add = parser.add_argument
    add("--model", action="append", help="only this, such as openai/gpt-4o; repeatable")
    add("--prompt", default="Say hello in one short sentence.", help="what to ask")
    add("--url", default=f"http://127.0.0.1:{port}", help="default: %(default)s")
    return parser.parse_args(argv)


def give_up(message: str) -> NoReturn:
    """End before any call."""
    print(message, file=sys.stderr)
    sys.exit(2)


def key_variable(model: str) -> str:
    """Name the variable with the key for `model`."""
    provider = model.partition("/")[0].upper().replace("-", "_")
    return "OPENAI_API_KEY" if provider == "OPENAI_MINI" else f"{provider}_API_KEY"


def connect(url: str) -> tuple[LlamaStackClient, list[str]]:
    """Make a client of the server at `url`; return it with the models listed there."""
    # A transport of its own takes no proxy from the environment, and httpx follows no
    # redirect: a key goes to this server only.
    http = httpx.Client(transport=httpx.HTTPTransport(), timeout=600)
    base = url.rstrip("/").removesuffix("/v1")
    try:
        client = LlamaStackClient(base_url=base, http_client=http, max_retries=0)
        models = client.models.list(timeout=10)
        listed = [model.id for model in models if model.model_type == "llm"]
    except FAILURES as error:
        why = reason(error)[:500]
        if "[SSL" in why:
            give_up(f"TLS handshake with {url} failed: {why}")
        if isinstance(error.__cause__, httpx.ConnectError):
            give_up(f"server not running at {url}: start it with `make server` ({why})")
        give_up(f"no models from {url} (is it Llama Stack, of this version?): {why}")
    return client, listed or give_up(f"no language model is listed at {url}")


def reason(error: Exception) -> str:
    """Find the words of the vendor, the server or the network in `error`."""
    told: object = error.__cause__ or error
    match getattr(error, "body", None):
        case {"error": {"message": text}} | {"error": text} | {"message": text}:
            told = text
    if isinstance(error, MALFORMED):
        told = f"the answer is not in OpenAI's format ({error})"
    return " ".join(f"{getattr(error, 'status_code', '')} {told}".split())


def regular(client: LlamaStackClient, model: str, messages: list[Any]) -> None:
    """Print a regular chat completion."""
    answer = client.chat.completions.create(model=model, messages=messages)
    print(*(choice.message.content or "" for choice in answer.choices))


def streamed(client: LlamaStackClient, model: str, messages: list[Any]) -> None:
    """Print a streamed chat completion as it arrives."""
    chunks = client.chat.completions.create(model=model, messages=messages, stream=True)
    for chunk in chunks:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
    print()


def ask(server: LlamaStackClient, model: str, key: str, prompt: str) -> list[str]:
    """Call `model` both ways with `key`, if there is one; return its table row."""
    print(model)
    if not key:
        print(f"  skipped   {key_variable(model)} is not set")
        return [model, "skipped", "skipped", "-"]
    data = json.dumps({"passthrough_api_key": key})
    # Not as extra_headers: those stand in the client's debug log.
    client = server.with_options(default_headers={"X-LlamaStack-Provider-Data": data})
    row, begin = [model], time.perf_counter()
    for call in (regular, streamed):
        print(f"  {call.__name__:8}  ", end="", flush=True)
        try:
            call(client, model, [{"role": "user", "content": prompt}])
            row.append("ok")
        except FAILURES as error:
            # A vendor may repeat the key in its message.
            why = reason(error).replace(key, "[key]")[:500]
            if isinstance(error, NotFoundError):
                why += " (retired? see the models in README.md)"
            print(f" failed: {why}")
            row.append("failed")
    return [*row, f"{time.perf_counter() - begin:.1f} s"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv`; return the exit status."""
    # Importing llama_stack_client switches on a log line for every request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    file = dotenv_values(Path(__file__).with_name(".env"))
    values = {name: text for name, text in (*file.items(), *os.environ.items()) if text}
    args = arguments(argv, values.get("LLAMA_STACK_PORT", "8321"))
    server, listed = connect(args.url)
    keys = {name: values.get(key_variable(name), "") for name in args.model or listed}
    for model, key in keys.items():
        # A model need not be listed, but then its provider is, or has a key.
        if not key and key_variable(model) not in map(key_variable, listed):
            give_up(f"{model} is not listed by the server; it has {', '.join(listed)}")
    if not any(keys.values()):
        names = " or ".join(dict.fromkeys(map(key_variable, keys)))
        give_up(f"no API key: set {names} in .env or in the environment")
    rows = [ask(server, model, key, args.prompt) for model, key in keys.items()]
    width = max(map(len, keys))
    print(f"\n{'model':{width}}  regular  streamed     time")
    for name, whole, stream, seconds in rows:
        print(f"{name:{width}}  {whole:7}  {stream:8}  {seconds:>7}")
    return int(any("failed" in row for row in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print()
        sys.exit(130)
