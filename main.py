"""Call every model of the server: a chat completion, then a streamed one.

A model without a key is skipped. Environment variables, also read from .env:
  OPENAI_API_KEY (also for openai-mini), <PROVIDER>_API_KEY for any other provider
  LLS_HOST (127.0.0.1) and LLAMA_STACK_PORT (8321), where the server listens
Exit status: 0 if every call succeeded, 1 if one failed, 2 if none was made.
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

# The client does not validate responses: a malformed one fails when it is used.
MALFORMED = (AttributeError, TypeError, ValueError)
FAILURES = (LlamaStackClientError, httpx.HTTPError, httpx.InvalidURL, *MALFORMED)


def parse_arguments(argv: list[str] | None, settings: dict[str, str]) -> Namespace:
    """Parse the command line; the default URL is where the server listens."""
    host, port = settings.get("LLS_HOST", ""), settings.get("LLAMA_STACK_PORT", "8321")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    add = parser.add_argument
    add("--model", action="append", help="only this one, as openai/gpt-4o; repeatable")
    add("--prompt", default="Say hello in one short sentence.", help="the user message")
    add("--url", default=url, help="default: %(default)s")
    return parser.parse_args(argv)


def fail(message: str) -> NoReturn:
    """Exit before any call was made."""
    print(message, file=sys.stderr)
    sys.exit(2)


def key_variable(model: str) -> str:
    """Return the name of the variable with the key for `model`."""
    provider = model.partition("/")[0].upper().replace("-", "_")
    return "OPENAI_API_KEY" if provider == "OPENAI_MINI" else f"{provider}_API_KEY"


def connect(url: str) -> tuple[LlamaStackClient, list[str]]:
    """Return a client of the server at `url`, and the names of its LLMs."""
    # Without the environment's proxies or redirects: keys go to this server only.
    http = httpx.Client(transport=httpx.HTTPTransport(), timeout=600)
    base = url.rstrip("/").removesuffix("/v1")
    try:
        client = LlamaStackClient(base_url=base, http_client=http, max_retries=0)
        names = [m.id for m in client.models.list(timeout=10) if m.model_type == "llm"]
    except FAILURES as error:
        reason = error_message(error)[:500]
        hint = "is it a compatible server? If it uses TLS, pass --url https://…"
        if "[SSL" in reason:
            hint = "set SSL_CERT_FILE to trust a private CA"
        elif isinstance(error.__cause__, httpx.ConnectError):
            hint = "start the server with `make server`"
        fail(f"could not list models at {url}; {hint} ({reason})")
    return client, names or fail(f"no LLM is registered at {url}")


def error_message(error: Exception) -> str:
    """Return the message of the vendor, the server or the network in `error`."""
    message: object = error.__cause__ or error
    match getattr(error, "body", None):
        case {"error": {"message": text}} | {"error": text} | {"message": text}:
            message = text
    if isinstance(error, MALFORMED):
        message = f"the response is not in OpenAI's format ({error})"
    return " ".join(f"{getattr(error, 'status_code', '')} {message}".split())


def regular(client: LlamaStackClient, request: dict[str, Any]) -> None:
    """Print a chat completion."""
    completion = client.chat.completions.create(**request)
    print(*(choice.message.content or "" for choice in completion.choices))


def streamed(client: LlamaStackClient, request: dict[str, Any]) -> None:
    """Print a streamed chat completion as it arrives."""
    for chunk in client.chat.completions.create(**request, stream=True):
        print(*(c.delta.content or "" for c in chunk.choices), end="", flush=True)
    print()


def try_model(client: LlamaStackClient, model: str, key: str, prompt: str) -> list[str]:
    """Call `model` both ways, unless `key` is empty; return its row of the table."""
    print(model)
    if not key:
        print(f"  skipped   {key_variable(model)} is not set")
        return [model, "skipped", "skipped", "-"]
    data = json.dumps({"passthrough_api_key": key})
    # Not as extra_headers, which the client writes to its debug log.
    client = client.with_options(default_headers={"X-LlamaStack-Provider-Data": data})
    request = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    row, start = [model], time.perf_counter()
    for call in (regular, streamed):
        print(f"  {call.__name__:8}  ", end="", flush=True)
        try:
            call(client, request)
            row.append("ok")
        except FAILURES as error:
            # A vendor may repeat the key in its message.
            reason = error_message(error).replace(key, "[key]")[:500]
            hint = (
                " (retired? see README.md)" if isinstance(error, NotFoundError) else ""
            )
            print(f" failed: {reason}{hint}")
            row.append("failed")
    return [*row, f"{time.perf_counter() - start:.1f} s"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # no line for each request
    file = dotenv_values(Path(__file__).with_name(".env"))
    settings = {n: text for n, text in (*file.items(), *os.environ.items()) if text}
    args = parse_arguments(argv, settings)
    client, listed = connect(args.url)
    keys = {name: settings.get(key_variable(name), "") for name in args.model or listed}
    for model, key in keys.items():
        # A model need not be listed if its provider is, or has a key.
        if not key and key_variable(model) not in map(key_variable, listed):
            fail(f"unknown model {model}; the server has {', '.join(listed)}")
    if not any(keys.values()):
        names = " or ".join(dict.fromkeys(map(key_variable, keys)))
        fail(f"no API key: set {names} in .env or in the environment")
    rows = [try_model(client, model, key, args.prompt) for model, key in keys.items()]
    width = max(map(len, keys))
    print(f"\n{'model':{width}}  regular  streamed     time")
    for model, first, second, seconds in rows:
        print(f"{model:{width}}  {first:7}  {second:8}  {seconds:>7}")
    return int(any("failed" in row for row in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print()
        sys.exit(130)
