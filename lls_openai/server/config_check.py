"""run.yaml, read as Llama Stack reads it, with a line for what is wrong.

Llama Stack answers a wrong value with a traceback, and drops an unknown key without a
word: `hostt:` would listen on every interface, `allowed_model:` allow every model.
"""

import os
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from lls_openai.settings import ProviderConfig, give_up
from lls_openai.stack import VARIABLE, StackConfig, stack


class LoggingConfig(BaseModel):
    """The level of each category; Llama Stack reads this block separately."""

    category_levels: dict[str, str] = {}


class RunYaml(StackConfig):  # type: ignore[misc]
    """The whole file."""

    logging_config: LoggingConfig | None = None


@cache
def check_run_yaml() -> None:
    """Check the run.yaml that is being served, once; exit with one line when wrong."""
    if path := os.environ.get(f"{VARIABLE}_CONFIG"):
        read_run_yaml(Path(path))


def read_run_yaml(path: Path) -> StackConfig:
    """Read it, and end the process with a line when something in it is wrong."""
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
    faults = error.errors(include_input=False, include_url=False)
    lines = [f"{where}{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in faults]
    # The file as a whole has no place in it to name.
    told = "; ".join(lines).removeprefix(": ")
    return told.replace("Extra inputs are not permitted", "unknown key")
