"""Variants of run.yaml: the real file with a few things changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.server import RUN_YAML

type Json = dict[str, Any]


def variant(directory: Path, change: Callable[[Json], None]) -> Path:
    """Write a variant of run.yaml.

    Args:
        directory: Where to.
        change: Changes what has been read, in place.

    Returns:
        The file.
    """
    config: Json = yaml.safe_load(RUN_YAML.read_text())
    change(config)
    path = directory / "run.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return path


def passthrough(provider_id: str, base_url: str, **settings: Any) -> Json:  # noqa: ANN401 - any YAML
    """A provider of this project, as an entry in run.yaml.

    Args:
        provider_id: Its name.
        base_url: Its upstream.
        settings: Further settings, beside `base_url`.
    """
    return {
        "provider_id": provider_id,
        "provider_type": "remote::passthrough",
        "module": "lls_openai",
        "config": {"base_url": base_url} | settings,
    }
