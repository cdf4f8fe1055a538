"""Unknown keys in run.yaml, which Llama Stack drops without a word.

`hostt:` would listen on every interface, `allowed_model:` allow every model.
"""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from llama_stack.core.datatypes import StackConfig
from llama_stack.core.stack import cast_distro_name_to_string, replace_env_vars
from llama_stack.log import LoggingConfig
from pydantic import BaseModel

from lls_openai.settings import give_up, load_config


def refuse_unknown_keys() -> None:
    """End the start with a line when the run.yaml of this server has such a key.

    Llama Stack names the file to its own application in this variable
    (`llama_stack.core.server.server.create_app`).
    """
    if path := os.environ.get("LLAMA_STACK_CONFIG"):
        content = replace_env_vars(yaml.safe_load(Path(path).read_text()))
        check_keys(content, StackConfig(**cast_distro_name_to_string(content)), path)


def check_keys(content: dict[str, Any], config: StackConfig, path: object) -> None:
    """End the start with a line when a key is not one of Llama Stack's.

    Args:
        content: what the file holds.
        config: the same, as Llama Stack reads it.
        path: the file, for the message.
    """
    rest = dict(content)
    # `create_app` reads this one by itself.
    logging = rest.pop("logging_config", None) or {}
    wrong = list(_unknown(rest, config, ""))
    wrong += _unknown(logging, LoggingConfig(**logging), "logging_config.")
    for provider in config.providers.get("inference", []):
        if provider.module == "lls_openai":
            where = f"providers.inference.{provider.provider_id}.config."
            settings = load_config(**provider.config)
            wrong += _unknown(provider.config, settings, where)
    if wrong:
        give_up(f"{path}: {'; '.join(wrong)}")


def _unknown(content: object, read: object, where: str) -> Iterator[str]:
    """Walk what was written beside what was read of it."""
    if isinstance(content, dict) and isinstance(read, BaseModel):
        fields = type(read).model_fields
        names = {f.alias or name: name for name, f in fields.items()}
        for key, value in content.items():
            if key in names:
                yield from _unknown(value, getattr(read, names[key]), f"{where}{key}.")
            else:
                near = get_close_matches(str(key), list(names), 1, cutoff=0.5)
                hint = f", did you mean {near[0]}?" if near else ""
                yield f"unknown key {where}{key}{hint}"
    elif isinstance(content, dict) and isinstance(read, dict):
        for key, value in content.items():
            yield from _unknown(value, read.get(key), f"{where}{key}.")
    elif isinstance(content, list) and isinstance(read, list):
        for at, (value, one) in enumerate(zip(content, read, strict=False)):
            yield from _unknown(value, one, f"{where}{at}.")
