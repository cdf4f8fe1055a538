"""What `lls_openai` uses of other packages without their offer is there.

The table of docs/design.md has all of it. Each name fails here, and says so, when an
upgrade takes it away or changes how it is called.
"""

import inspect
import re
from functools import cache
from pkgutil import resolve_name
from types import FunctionType

import pytest
from llama_stack.providers.utils.inference import model_registry

from tests.support import docs

TABLE = docs.rows(docs.section("docs/design.md", "Private APIs in use"))
# File, whose, and a name: with its parameters what is called or overridden.
REACHES = [
    (file, owner, name)
    for file, owner, names, *_ in TABLE
    for name in re.split(r", (?![^(]*\))", names)
]


@cache
def _names(owner: object) -> set[str]:
    """What is there: in a module, or in a class and what its methods set."""
    kinds = getattr(owner, "__mro__", ())
    functions = [f for k in kinds for f in vars(k).values()]
    codes = [f.__code__ for f in functions if isinstance(f, FunctionType)]
    set_by_methods = {name for code in codes for name in code.co_names}
    return {*dir(owner), *set_by_methods, *getattr(owner, "model_fields", ())}


@pytest.mark.parametrize(("file", "owner", "name"), REACHES)
def test_what_is_reached_into_is_there(file: str, owner: str, name: str) -> None:
    name, is_called, parameters = name.rstrip(")").partition("(")

    assert name in _names(resolve_name(owner)), file
    if is_called:
        called = inspect.signature(getattr(resolve_name(owner), name))
        found = [each for each in called.parameters if each != "self"]
        assert ", ".join(found) == parameters, file


def test_every_field_of_the_network_block_is_known() -> None:
    """A field that is new in one of these would be one that is not honoured."""
    names = {
        "NetworkConfig": "headers proxy timeout tls",
        "TLSConfig": "ciphers client_cert client_key min_version verify",
        "ProxyConfig": "cacert http https no_proxy url",
        "TimeoutConfig": "connect read",
    }

    there = {name: getattr(model_registry, name).model_fields for name in names}
    assert {name: " ".join(sorted(fields)) for name, fields in there.items()} == names
