"""run.yaml, read as Llama Stack reads it, with one line for all that is wrong in it.

Llama Stack reports a wrong value by a traceback and ignores an unknown key: `hostt:`
would listen on every interface, `allowed_model:` allow every model. It also serves
plain HTTP when `tls_certfile` or `tls_keyfile` is missing.
"""

import os
import re
import socket
import ssl
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, ValidationError

from lls_openai.server.log_writer import STANDARD_ERROR
from lls_openai.settings import ProviderConfig
from lls_openai.stack import VARIABLE, StackConfig, Untyped, stack

# The exit status of uvicorn when it cannot start.
STARTUP_FAILURE = 3

# The way to a value in the file.
type Keys = tuple[str | int, ...]

_TLS_FILES = ("tls_certfile", "tls_keyfile", "tls_cafile")
_VARIABLE_NAME = re.compile(r"\$\{env\.([A-Z0-9_]+)")


def abort_startup(message: str) -> NoReturn:
    """Print one line and end the process with status 3, before it serves.

    `llama stack run` takes SystemExit for Ctrl-C and would end with status 0
    (`llama_stack.cli.stack.run`).
    """
    sys.stdout.flush()
    STANDARD_ERROR.flush()
    print(f"lls-openai: {message}", file=sys.stderr, flush=True)  # noqa: T201 (the process ends)
    os._exit(STARTUP_FAILURE)


class _LoggingConfig(BaseModel):
    category_levels: dict[str, str] = {}


class RunYaml(StackConfig):  # type: ignore[misc]
    """The whole file; Llama Stack reads `logging_config` apart from the rest."""

    logging_config: _LoggingConfig | None = None


@cache
def check_run_yaml() -> None:
    """Check the file that Llama Stack serves, which it names in a variable."""
    if path := os.environ.get(f"{VARIABLE}_CONFIG"):
        read_run_yaml(Path(path))


def read_run_yaml(path: Path) -> StackConfig:
    """Return the configuration; abort the startup if anything in it is wrong."""
    place: Keys = ()
    raw: Any = {}
    try:
        raw = yaml.safe_load(path.read_text()) or {}
        content = stack.cast_distro_name_to_string(stack.replace_env_vars(raw))
        config = RunYaml.model_validate(content, extra="forbid")
        for provider in config.providers.get("inference", []):
            if provider.module == "lls_openai":
                place = ("providers", "inference", provider.provider_id, "config")
                ProviderConfig.model_validate(provider.config, extra="forbid")
        errors = list(_check_server(config.server))
    except OSError as error:
        abort_startup(f"cannot read {path}: {error.strerror}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        abort_startup(f"{path} is not YAML: {' '.join(str(error).split())}")
    except stack.EnvVarError as error:
        abort_startup(f"{path}: environment variable {error.var_name} is not set")
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)
        errors = [((*place, *each["loc"]), each["msg"]) for each in details]
    if errors:
        lines = [_describe(keys, reason, raw) for keys, reason in errors]
        abort_startup(f"{path}: {'; '.join(lines)}")
    return config


def _check_server(server: Untyped) -> Iterator[tuple[Keys, str]]:
    """Yield the keys and reasons that Llama Stack would leave to uvicorn."""
    if server.workers < 1:
        yield ("server", "workers"), "must be at least 1"
    files = {name: getattr(server, name) for name in _TLS_FILES}
    if error := _tls_error(files) if any(files.values()) else None:
        name, reason = error
        yield ("server", name), reason


def _tls_error(files: dict[str, str | None]) -> tuple[str, str] | None:
    """Return the first key that is missing or whose file is no use, and the reason."""
    name = ""
    try:
        for name in _TLS_FILES:
            if path := files[name]:
                # ssl does not say which file it cannot read.
                Path(path).open("rb").close()
            elif name != "tls_cafile":
                return name, "is required for TLS"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        name = "tls_certfile"
        # Given a password, OpenSSL does not ask for one at the terminal.
        context.load_cert_chain(files[name] or "", files["tls_keyfile"], password="")
        name = "tls_cafile"
        if path := files[name]:
            context.load_verify_locations(path)
    except ssl.SSLError as error:
        return name, f"cannot be used for TLS: {error.reason or 'not a PEM file'}"
    except OSError as error:
        return name, f"cannot be read: {error.strerror}"
    return None


def _describe(keys: Keys, reason: str, raw: object) -> str:
    """Return the key, its variable and the reason; values may be secret."""
    variables = _VARIABLE_NAME.findall(_text_at(raw, keys))
    name = ".".join(map(str, keys)) + (f" ({variables[0]})" if variables else "")
    reason = reason.removeprefix("Value error, ")
    reason = reason.replace("Extra inputs are not permitted", "unknown key")
    # The file as a whole has no key.
    return f"{name}: {reason}" if name else reason


def _text_at(raw: object, keys: Keys) -> str:
    """Return the text of a value before its variables are replaced, if it has any."""
    for key in keys:
        if isinstance(raw, list) and isinstance(key, str):
            raw = {x.get("provider_id"): x for x in raw if isinstance(x, dict)}
        try:
            raw = raw[key]  # type: ignore[index]  # (whatever YAML holds)
        except (KeyError, IndexError, TypeError):
            return ""
    return raw if isinstance(raw, str) else ""


def check_address(host: str, port: int) -> None:
    """Abort the startup if the server could not listen on this address."""
    try:
        addresses = socket.getaddrinfo(
            host or "0.0.0.0",  # noqa: S104 (the server's own default)
            port,
            type=socket.SOCK_STREAM,
        )
        for family, *_, address in addresses:
            socket.create_server(address[:2], family=family).close()
    except (OSError, UnicodeError) as error:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        hint = f"change {VARIABLE}_PORT or LLS_HOST"
        abort_startup(f"cannot listen on {place}: {_reason(error)}; {hint}")


def _reason(error: Exception) -> str:
    """Return the system's text; those of socket repeat the address."""
    number = getattr(error, "errno", 0) or 0
    # A host that does not resolve has a negative number.
    return os.strerror(number) if number > 0 else getattr(error, "strerror", str(error))
