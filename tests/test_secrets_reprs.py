"""No object of this project shows a secret when it is printed."""

import importlib
import inspect
import logging
import pkgutil
from collections.abc import Callable

import pytest

import lls_openai
from lls_openai.config import ProviderConfig
from lls_openai.logs import _FrugalLogger
from lls_openai.upstream import pin_upstream
from tests.marks import KEY, TOKEN, traces

# What an operator may keep secret in run.yaml.
CONFIG = ProviderConfig.model_validate(
    {
        "base_url": "https://api.example",
        "api_key": KEY,
        "network": {
            "headers": {"X-Token": TOKEN},
            "proxy": {"url": f"http://user:{TOKEN}@proxy.example"},
        },
    }
)
# The classes that say more of themselves than their name, with an example of each.
TALKING = {
    "ProviderConfig": CONFIG,
    "Upstream": pin_upstream(str(CONFIG.base_url), CONFIG.network),
    "_FrugalLogger": _FrugalLogger(logging.getLogger(), [], {}),
}


def _classes() -> list[type]:
    modules = [
        importlib.import_module(f"lls_openai.{found.name}")
        for found in pkgutil.iter_modules(lls_openai.__path__)
        if found.name != "__main__"
    ]
    return [
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
    ]


def test_most_objects_show_no_more_than_their_name() -> None:
    """A class that shows its fields has to be looked at, and be listed here."""
    silent: set[object] = {object.__repr__, BaseException.__repr__}

    showing = {kind.__name__ for kind in _classes() if kind.__repr__ not in silent}

    # An exception shows its message, which holds no secret (`test_secrets`).
    assert set(TALKING) == showing


@pytest.mark.parametrize("shown", [repr, str])
@pytest.mark.parametrize("name", TALKING)
def test_the_others_show_no_secret(name: str, shown: Callable[[object], str]) -> None:
    """Not the key that run.yaml may hold, nor what a proxy or a header needs."""
    assert traces(shown(TALKING[name])) == []
