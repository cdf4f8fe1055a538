"""run.yaml with the lines of README's sections in it, by README's own rule."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests import readme
from tests.server import RUN_YAML

# Two entries of a list are one when they agree in these.
_IDENTITY = ("provider_id", "model_id")


def run_yaml(directory: Path, sections: Iterable[str]) -> Path:
    """Write a run.yaml with the lines of sections in it.

    Args:
        directory: Where to.
        sections: The headings below "Operating it".

    Returns:
        The file.
    """
    config: Any = yaml.safe_load(RUN_YAML.read_text())
    for title in sections:
        for block in readme.section(title).blocks("yaml"):
            config = merged(config, yaml.safe_load(block))
    path = directory / "run.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return path


def merged(there: Any, added: Any) -> Any:  # noqa: ANN401 - any YAML
    """Put lines where their keys are.

    Mappings are merged. An entry of a list goes to the others of the list, or into the
    one with the same `provider_id` and `model_id`. Anything else takes the place of
    what is there.
    """
    if isinstance(there, dict) and isinstance(added, dict):
        known = {name: merged(there.get(name), value) for name, value in added.items()}
        return there | known
    if isinstance(there, list) and isinstance(added, list):
        entries = list(there)
        for entry in added:
            _put(entries, entry)
        return entries
    return added


def _put(entries: list[Any], entry: Any) -> None:  # noqa: ANN401 - any YAML
    for index, each in enumerate(entries):
        if _identity(each) and _identity(each) == _identity(entry):
            entries[index] = merged(each, entry)
            return
    entries.append(entry)


def _identity(entry: Any) -> tuple[Any, ...] | None:  # noqa: ANN401 - any YAML
    if not isinstance(entry, dict) or "provider_id" not in entry:
        return None
    return tuple(entry.get(name) for name in _IDENTITY)
