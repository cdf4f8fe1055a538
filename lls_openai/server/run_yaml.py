"""run.yaml, read as Llama Stack reads it, with a line for what is wrong.

Llama Stack answers a wrong value with a traceback, and drops an unknown key without a
word: `hostt:` would listen on every interface, `allowed_model:` allow every model.
"""

from difflib import get_close_matches
from pathlib import Path

import yaml
from llama_stack.core import stack
from llama_stack.core.datatypes import StackConfig
from llama_stack.log import LoggingConfig
from pydantic import ValidationError

from lls_openai.settings import ProviderConfig, give_up


class RunYaml(StackConfig):  # type: ignore[misc]
    """All of it; `llama_stack.core.server.server.create_app` reads one part alone."""

    logging_config: LoggingConfig | None = None


def read_run_yaml(path: Path) -> StackConfig:
    """Read it, and end the process with a line when something in it is wrong.

    Args:
        path: the file.
    """
    where = ""
    try:
        content = stack.replace_env_vars(yaml.safe_load(path.read_text()) or {})
        config = RunYaml.model_validate(
            stack.cast_distro_name_to_string(content), extra="forbid"
        )
        for provider in config.providers.get("inference", []):
            if provider.module == "lls_openai":
                where = f"providers.inference.{provider.provider_id}.config."
                ProviderConfig.model_validate(provider.config, extra="forbid")
    except OSError as error:
        give_up(f"cannot read {path}: {error.strerror}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        give_up(f"{path} is not YAML: {' '.join(str(error).split())}")
    except stack.EnvVarError as error:
        give_up(f"{path}: the variable {error.var_name} is not set")
    except ValidationError as error:
        give_up(f"{path}: {_explain(error, where)}")
    return config


def _explain(error: ValidationError, where: str) -> str:
    """Say in one line what is wrong, without the values, which may be secret."""
    faults = []
    for each in error.errors(include_input=False, include_url=False):
        key = where + ".".join(map(str, each["loc"]))
        unknown = each["type"] == "extra_forbidden"
        faults.append(
            f"unknown key {key}{_hint(each['loc'][-1])}"
            if unknown
            else f"{key}: {each['msg']}"
        )
    return "; ".join(faults)


def _hint(key: object) -> str:
    """Find a key of that sound, wherever it may stand."""
    known: set[str] = set()
    for model in (RunYaml, ProviderConfig):
        schema = model.model_json_schema()
        for each in (schema, *schema["$defs"].values()):
            known |= each.get("properties", {}).keys()
    near = get_close_matches(str(key), known, 1)
    return f", did you mean {near[0]}?" if near else ""
